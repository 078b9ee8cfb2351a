//! One database as the control thread knows it.

use std::sync::Arc;
use std::time::Duration;

use switchyard_catalog::CatalogDatabase;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::relations::{Introspection, Oids, Relations};
use crate::topology::builder::DatabaseState;
use crate::topology::link::{Link, LinkError, Visitor};
use crate::topology::loader::{self, Fingerprint};
use crate::topology::{DatabaseTopology, Node, NodeId, Observed};

/// Definitions of views and defaults are not told while their tables are locked. Another server may have no such lock.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '1s'";

/// What the control thread knows of one database.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) state: DatabaseState,
    pub(super) found: Option<Found>,
    pub(super) attempted: Option<Instant>,
    /// The connection relations were last read on.
    pub(super) link: Option<(NodeId, Link)>,
}

#[derive(Debug)]
pub(super) struct Found {
    pub(super) node: NodeId,
    pub(super) introspection: Introspection,
    pub(super) fingerprint: Fingerprint,
}

impl Entry {
    pub(super) fn new(state: DatabaseState) -> Self {
        Self {
            state,
            found: None,
            attempted: None,
            link: None,
        }
    }

    /// Joins what was found with the schema and the map anew.
    pub(super) fn resolve(&mut self) {
        if let Some(found) = &self.found {
            let state = &mut self.state;
            let mut relations =
                Relations::build(&state.schema, &found.introspection, Some(&state.buckets));
            relations.read_on = Some(found.node.0);
            for problem in relations.problems() {
                warn!(database = state.schema.name, table = %problem.table, "{}", problem.message);
            }
            state.relations = Arc::new(relations);
        }
    }

    /// Takes over what a node has said. True if it is not what was known.
    pub(super) fn take_over(
        &mut self,
        name: &str,
        (link, visited): ((NodeId, Link), Visited),
    ) -> bool {
        self.link = Some(link);
        let same_parameters = visited.parameters == self.state.parameters;
        self.state.parameters = visited.parameters;
        let Some(found) = visited.found else {
            return !same_parameters;
        };
        if self.found.is_some() {
            info!(database = name, "the schema has changed");
        }
        self.found = Some(found);
        self.resolve();
        true
    }

    /// Takes over how the shards number types. True if it is not what was known.
    pub(super) fn renumber(&mut self, oids: Oids) -> bool {
        let differs = *self.state.oids != oids;
        if differs {
            self.state.oids = Arc::new(oids);
        }
        differs
    }

    /// Takes over what the catalog says; a map whose epoch went back is not believed.
    pub(super) fn accept(&mut self, actual: &CatalogDatabase) {
        if actual.epoch < self.state.epoch {
            error!(
                database = actual.database.name,
                known = self.state.epoch,
                found = actual.epoch,
                "the catalog's epoch went back; going on with the map known"
            );
            return;
        }
        self.state.schema = Arc::clone(&actual.database);
        self.state.buckets = Arc::clone(&actual.buckets);
        self.state.epoch = actual.epoch;
        self.state.is_moving = actual.is_moving;
        self.state.movement = actual.movement;
        self.resolve();
    }
}

/// What it takes to read the relations of a database, apart from all else that the control thread does meanwhile.
pub(super) struct Visiting {
    /// Whom to ask, one after the other.
    pub(super) nodes: Vec<Arc<Node>>,
    pub(super) visitor: Visitor,
    /// The connection relations were last read on.
    pub(super) kept: Option<(NodeId, Link)>,
    /// What was found then.
    pub(super) known: Option<Fingerprint>,
}

impl Visiting {
    /// Asks the first node that answers.
    pub(super) async fn run(mut self, name: &str) -> Option<((NodeId, Link), Visited)> {
        let known = self.known.as_ref();
        for node in &self.nodes {
            let kept = self.kept.take().filter(|(id, _)| *id == node.id);
            let visiting = async {
                if let Some((_, mut link)) = kept {
                    match visit(node.id, &mut link, known).await {
                        Ok(visited) => return Ok((link, visited)),
                        // Another connection would be told the same.
                        Err(error @ LinkError::Refused { .. }) => return Err(error),
                        Err(_) => {}
                    }
                }
                let mut link = Link::open(&self.visitor, node, name).await?;
                link.ask(LOCK_TIMEOUT).await?;
                let visited = visit(node.id, &mut link, known).await?;
                Ok((link, visited))
            };
            let answer = tokio::select! {
                answer = visiting => answer,
                () = gone(node) => Err(LinkError::Timeout),
            };
            match answer {
                Ok((link, visited)) => return Some(((node.id, link), visited)),
                Err(error) => {
                    warn!(database = name, host = %node.host, port = node.port, reason = %error, "cannot read relations");
                    // It is asked again. Another server numbers its tables otherwise.
                    if known.is_some() && matches!(error, LinkError::Refused { .. }) {
                        return None;
                    }
                }
            }
        }
        None
    }
}

/// Completes when the monitor no longer sees the node.
async fn gone(node: &Node) {
    while node.observed() != Observed::Down {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What a visit to a node found.
pub(super) struct Visited {
    /// The relations, unless they are those known.
    pub(super) found: Option<Found>,
    pub(super) parameters: Arc<[(Box<str>, Box<str>)]>,
}

/// Reads the relations of a database from a node if their version is not `known`.
async fn visit(
    node: NodeId,
    link: &mut Link,
    known: Option<&Fingerprint>,
) -> Result<Visited, LinkError> {
    let fingerprint = loader::fingerprint(link).await?;
    let found = if known == Some(&fingerprint) {
        None
    } else {
        let introspection = loader::introspect(link).await?;
        Some(Found {
            node,
            introspection,
            fingerprint,
        })
    };
    Ok(Visited {
        found,
        parameters: link.parameters().into(),
    })
}

/// The nodes of a database that are in service: the first shard's primary, the other primaries, then replicas.
pub(super) fn by_trust(database: &DatabaseTopology) -> Vec<Arc<Node>> {
    let shards = database.shards.iter();
    let primaries = shards.clone().map(|shard| shard.primary());
    let replicas = shards.flat_map(|shard| shard.replicas());
    primaries
        .chain(replicas)
        .filter(|node| matches!(node.observed(), Observed::Primary | Observed::Standby))
        .cloned()
        .collect()
}
