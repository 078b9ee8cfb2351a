//! Visits every server: is it there, what is it, and does it fit.

use std::sync::Arc;

use switchyard_schema::Role;
use tokio::task::JoinSet;

use super::drift::{self, Object};
use super::report::{NodeReport, Report};
use crate::config::{Settings, User};
use crate::relations::Introspection;
use crate::topology::link::{Link, LinkError, TextRow, Visitor};
use crate::topology::{Node, Shard, loader};

/// The oldest server that everything works with.
const OLDEST: u32 = 140_000;

/// What is asked of every server, in one row.
const FACTS: &str = "\
SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('server_version'),
       pg_catalog.current_setting('server_version_num'), pg_catalog.current_setting('server_encoding'),
       pg_catalog.current_setting('max_prepared_transactions'), pg_catalog.current_setting('max_connections'),
       EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver WHERE pid IS NOT NULL)";

/// Which cluster a server belongs to; not everybody may ask.
const SYSTEM: &str = "SELECT system_identifier FROM pg_catalog.pg_control_system()";

/// What a visit to one node found.
#[derive(Debug)]
pub(super) struct Visited {
    /// The shard's position.
    pub(super) shard: usize,
    node: Arc<Node>,
    facts: Option<Facts>,
    system: Option<String>,
    /// A primary's catalogue.
    pub(super) catalogue: Option<Introspection>,
    /// All that is defined on a primary.
    pub(super) defined: Option<Vec<Object>>,
    problems: Vec<String>,
}

#[derive(Debug)]
struct Facts {
    in_recovery: bool,
    version: String,
    version_number: u32,
    encoding: String,
    max_prepared_transactions: u32,
    max_connections: u32,
    receives: bool,
}

impl Visited {
    pub(super) fn report(&self) -> NodeReport {
        let streaming = self
            .facts
            .as_ref()
            .filter(|_| self.node.role == Role::Replica);
        NodeReport {
            address: address(&self.node),
            role: self.node.role.to_string(),
            zone: self.node.zone.as_deref().map(str::to_owned),
            state: if self.facts.is_some() { "up" } else { "down" },
            version: self.facts.as_ref().map(|facts| facts.version.clone()),
            streaming: streaming.map(|facts| facts.receives),
        }
    }
}

fn address(node: &Node) -> String {
    format!("{}:{}", node.host, node.port)
}

/// Visits all nodes of a database at once.
pub(super) async fn visit(
    settings: &Settings,
    database: &str,
    shards: &[Arc<Shard>],
    report: &mut Report,
) -> Vec<Visited> {
    let Some(user) = settings.monitor_user() else {
        report.problems.push("no user is configured".to_owned());
        return Vec::new();
    };
    let mut visits = JoinSet::new();
    for (position, shard) in shards.iter().enumerate() {
        for (number, node) in shard.nodes.iter().enumerate() {
            let visitor = visitor(settings, user);
            let others = settings
                .users
                .iter()
                .filter(|other| other.name != user.name);
            let others: Vec<_> = others.map(|other| self::visitor(settings, other)).collect();
            let (node, database) = (Arc::clone(node), database.to_owned());
            visits.spawn(async move {
                let visited = visit_node(position, node, &database, &visitor, &others).await;
                (position, number, visited)
            });
        }
    }
    let mut visited = visits.join_all().await;
    visited.sort_by_key(|(position, number, _)| (*position, *number));
    let visited: Vec<_> = visited.into_iter().map(|(_, _, visited)| visited).collect();
    judge(settings, database, shards, &visited, report);
    visited
}

fn visitor(settings: &Settings, user: &User) -> Visitor {
    let timeouts = &settings.file.router.timeouts;
    Visitor::new(user, timeouts.connect, timeouts.connect)
}

async fn visit_node(
    shard: usize,
    node: Arc<Node>,
    database: &str,
    visitor: &Visitor,
    others: &[Visitor],
) -> Visited {
    let mut visited = Visited {
        shard,
        node,
        facts: None,
        system: None,
        catalogue: None,
        defined: None,
        problems: Vec::new(),
    };
    if let Err(error) = ask(&mut visited, database, visitor).await {
        let problem = format!("as user \"{}\": {error}", visitor.user);
        visited.problems.push(problem);
        return visited;
    }
    for other in others {
        if let Err(error) = Link::open(other, &visited.node, database).await {
            let problem = format!("as user \"{}\": {error}", other.user);
            visited.problems.push(problem);
        }
    }
    visited
}

async fn ask(visited: &mut Visited, database: &str, visitor: &Visitor) -> Result<(), LinkError> {
    let mut link = Link::open(visitor, &visited.node, database).await?;
    let rows = link.ask(FACTS).await?;
    let facts = rows.first().and_then(read);
    visited.facts = Some(facts.ok_or(LinkError::Unexpected("the server"))?);
    visited.system = match link.ask(SYSTEM).await {
        Ok(mut rows) => rows.pop().and_then(|mut row| row.pop()?),
        Err(LinkError::Refused { .. }) => None,
        Err(error) => return Err(error),
    };
    if visited.node.role == Role::Primary {
        visited.catalogue = Some(loader::introspect(&mut link).await?);
        visited.defined = Some(drift::read(&mut link).await?);
    }
    Ok(())
}

fn read(row: &TextRow) -> Option<Facts> {
    let text = |column: usize| row.get(column)?.clone();
    let number = |column: usize| text(column)?.parse().ok();
    Some(Facts {
        in_recovery: text(0)? == "t",
        version: text(1)?,
        version_number: number(2)?,
        encoding: text(3)?,
        max_prepared_transactions: number(4)?,
        max_connections: number(5)?,
        receives: text(6)? == "t",
    })
}

/// What the findings mean.
fn judge(
    settings: &Settings,
    database: &str,
    shards: &[Arc<Shard>],
    visited: &[Visited],
    report: &mut Report,
) {
    for node in visited {
        let shard = shards.get(node.shard).map_or("", |shard| &shard.name);
        let place = format!(
            "database \"{database}\", shard \"{shard}\", node {}",
            address(&node.node)
        );
        let say = |problem: &str| format!("{place}: {problem}");
        report
            .problems
            .extend(node.problems.iter().map(|problem| say(problem)));
        let Some(facts) = &node.facts else { continue };
        if facts.version_number < OLDEST {
            report
                .problems
                .push(say("the server is older than PostgreSQL 14"));
        }
        if facts.encoding != "UTF8" {
            report.problems.push(say(&format!(
                "the database's encoding is {}, not UTF8",
                facts.encoding
            )));
        }
        let system = primary_of(visited, node.shard).and_then(|primary| primary.system.as_ref());
        match (node.node.role, facts.in_recovery) {
            (Role::Primary, true) => report
                .problems
                .push(say("configured as primary, but it is in recovery")),
            (Role::Replica, false) => report
                .problems
                .push(say("configured as replica, but it is not in recovery")),
            (Role::Replica, true) if !facts.receives => {
                report.problems.push(say("the replica does not stream"));
            }
            _ => {}
        }
        if let (Some(system), Some(own)) = (system, &node.system)
            && system != own
        {
            report
                .problems
                .push(say("it is not a copy of the shard's primary"));
        }
        if node.node.role == Role::Primary
            && facts.max_prepared_transactions == 0
            && shards.len() > 1
        {
            report.warnings.push(say(
                "max_prepared_transactions is 0; transactions over several shards will need it",
            ));
        }
        let (host, port) = (&node.node.host, node.node.port);
        let pools = settings.file.most_connections(host, port);
        if pools > u64::from(facts.max_connections) {
            let limit = facts.max_connections;
            let others = match settings.file.auth.lookup {
                Some(_) => ", without those of users who are looked up",
                None => "",
            };
            report.warnings.push(say(&format!(
                "pools may come to have {pools} connections{others}, more than max_connections, {limit}"
            )));
        }
    }
}

fn primary_of(visited: &[Visited], shard: usize) -> Option<&Visited> {
    visited
        .iter()
        .find(|node| node.shard == shard && node.node.role == Role::Primary)
}
