//! Ends what sessions have left prepared: those of this router whose connections were lost, and those of routers that died.
//!
//! A task of the control thread looks at every primary once a second. Invariant: a prepared part is ended only as the row
//! of its transaction says, which is on the decider and never changes. A row that says "rolled back" is put there where the
//! decider's backend is in no transaction that writes, which is the proof that nobody is about to commit, or where no row has been
//! written for too long; a row that is written and not committed yet is waited for. Even where the proof deceived, the backend that
//! came to commit would find the row and fail. What a client has prepared itself is left to clients for as long as the decider's part of it is there; no
//! other part is prepared before that one has written its row. Any number of
//! routers may do this at a time.

mod decisions;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::escape::escape_identifier;
use switchyard_catalog::{Catalog, RouterId};
use switchyard_wire::SqlState;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{debug, error, info, warn};

use self::decisions::CLEANING;
use super::{CATALOG, GlobalId, Holder};
use crate::config::Settings;
use crate::distribute::strangers::end_strangers;
use crate::distribute::switchover::cancel_waiting;
use crate::topology::link::{Link, LinkError, TextRow, Visitor};
use crate::topology::links::Links;
use crate::topology::{DatabaseTopology, Node, NodeId, Observed, Published, Shard};

/// Between two looks at all primaries.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between two attempts at what a session waits for.
const URGENT: Duration = Duration::from_millis(100);
/// The longest a session waits for a decision.
const PATIENCE: Duration = Duration::from_secs(5);
/// What has been prepared so recently is its session's own affair, mostly.
const GRACE: Duration = Duration::from_millis(1500);
/// A transaction that has no row for so long after a part of it was prepared is rolled back, though the decider's backend is in a
/// transaction: that may be its next one. If it comes to write its row after all, it finds this one and fails.
const TOO_LONG: Duration = Duration::from_millis(2500);
/// So long a session has for a change of where a table's rows are: to have it decided, and to end it then.
const CHANGE_GRACE: Duration = Duration::from_secs(3);
/// So long routers that are there have to say that they follow it.
const FOLLOW_GRACE: Duration = Duration::from_secs(10);
/// Requests that may wait.
const REQUESTS: usize = 1024;
/// The longest an answer may take.
const ANSWER: Duration = Duration::from_secs(3);

/// What is prepared here: name, owner, age in milliseconds.
const IN_DOUBT: &str = "\
SELECT gid, owner, (1000 * EXTRACT(EPOCH FROM pg_catalog.clock_timestamp() - prepared))::pg_catalog.int8
FROM pg_catalog.pg_prepared_xacts
WHERE database = pg_catalog.current_database() AND gid LIKE 'switchyard.%'";

/// Whether anything can be prepared here.
const PREPARES: &str = "SELECT pg_catalog.current_setting('max_prepared_transactions') <> '0'";

/// How a transaction on several shards has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everywhere, or as soon as the shards that are away are back.
    Committed,
    /// The same.
    RolledBack,
    /// A client has prepared it, and will end it.
    Prepared,
    /// Its decider cannot be asked.
    Unknown,
}

/// The way to the task.
#[derive(Debug, Clone)]
pub struct Resolver {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
enum Request {
    Install {
        node: Arc<Node>,
        database: Arc<str>,
        done: oneshot::Sender<Result<(), LinkError>>,
    },
    Settle {
        database: Arc<str>,
        id: GlobalId,
        done: oneshot::Sender<Outcome>,
    },
}

impl Resolver {
    /// Sees to it that decisions can be recorded on this primary.
    ///
    /// # Errors
    /// Why they cannot.
    pub(crate) async fn install(
        &self,
        database: &Arc<str>,
        node: &Arc<Node>,
    ) -> Result<(), LinkError> {
        let (done, answer) = oneshot::channel();
        let request = Request::Install {
            node: Arc::clone(node),
            database: Arc::clone(database),
            done,
        };
        // Both fail only when the control thread has ended, and then the process is about to.
        let _ = self.requests.send(request).await;
        answer.await.unwrap_or(Err(LinkError::Timeout))
    }

    /// Has a transaction that its session cannot end itself ended everywhere. Takes no longer than it is worth waiting for.
    pub(crate) async fn settle(&self, database: &Arc<str>, id: GlobalId) -> Outcome {
        let (done, answer) = oneshot::channel();
        let request = Request::Settle {
            database: Arc::clone(database),
            id,
            done,
        };
        let _ = self.requests.send(request).await;
        answer.await.unwrap_or(Outcome::Unknown)
    }
}

/// The task.
#[derive(Debug)]
pub struct Recovery {
    published: Published,
    requests: mpsc::Receiver<Request>,
    links: Links,
    waiting: Vec<Waiting>,
    cleans: Instant,
    /// Primaries that have been asked whether they prepare transactions.
    asked: HashSet<NodeId>,
}

/// A session that waits for a decision.
#[derive(Debug)]
struct Waiting {
    database: Arc<str>,
    id: GlobalId,
    since: Instant,
    /// How it has ended, once that is known, while shards are away that may not have heard of it.
    outcome: Outcome,
    done: oneshot::Sender<Outcome>,
}

/// A transaction of which parts are prepared.
#[derive(Debug, Default)]
struct InDoubt {
    parts: Vec<Part>,
    /// The age of its oldest part.
    age: Duration,
}

/// One of them.
#[derive(Debug)]
struct Part {
    node: Arc<Node>,
    shard: Arc<str>,
    /// Whose it is: another than the session's user after SET ROLE.
    owner: String,
}

impl Recovery {
    /// The task, to be run on the control thread, and the way to it.
    #[must_use]
    pub fn new(settings: watch::Receiver<Arc<Settings>>, published: Published) -> (Self, Resolver) {
        let (sender, requests) = mpsc::channel(REQUESTS);
        let recovery = Self {
            published,
            requests,
            links: Links::new(settings),
            waiting: Vec::new(),
            cleans: Instant::now() + CLEANING,
            asked: HashSet::new(),
        };
        (recovery, Resolver { requests: sender })
    }

    /// Works until every [`Resolver`] is gone.
    pub async fn run(mut self) {
        let mut turn = interval(INTERVAL);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let urgent = Instant::now() + URGENT;
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => return,
                },
                () = sleep_until(urgent), if !self.waiting.is_empty() => self.look(true).await,
                _ = turn.tick() => self.look(false).await,
            }
        }
    }

    async fn serve(&mut self, request: Request) {
        match request {
            Request::Install {
                node,
                database,
                done,
            } => {
                let installed = match node.records_decisions() {
                    true => Ok(()),
                    false => self.install(&database, &node).await,
                };
                let _ = done.send(installed);
            }
            Request::Settle { database, id, done } => {
                self.waiting.push(Waiting {
                    database,
                    id,
                    since: Instant::now(),
                    outcome: Outcome::Unknown,
                    done,
                });
                self.look(true).await;
            }
        }
    }

    /// Looks at the primaries of all databases that have several, or of those that sessions wait for.
    async fn look(&mut self, urgent: bool) {
        let topology = self.published.snapshot();
        let cleans = !urgent && Instant::now() >= self.cleans;
        for database in topology.databases.values() {
            let mut waiting = self.waiting.iter();
            let is_awaited = waiting.any(|waiting| waiting.database == database.name);
            if database.shards.len() > 1 && (is_awaited || !urgent) {
                self.look_at(database, urgent, cleans).await;
            }
        }
        if cleans {
            self.clean_catalog(&topology).await;
            self.cleans = Instant::now() + CLEANING;
        }
        let is_over = |waiting: &Waiting| waiting.since.elapsed() > PATIENCE;
        while let Some(at) = self.waiting.iter().position(is_over) {
            let waiting = self.waiting.swap_remove(at);
            let _ = waiting.done.send(waiting.outcome);
        }
        self.links.retain(&topology);
    }

    async fn look_at(&mut self, database: &DatabaseTopology, urgent: bool, cleans: bool) {
        let old = match cleans {
            true => self.old_decisions(database).await,
            false => Vec::new(),
        };
        let (mut in_doubt, all) = self.in_doubt(database).await;
        if all {
            for (node, ids) in old {
                self.forget(database, &node, &ids, &in_doubt).await;
            }
        }
        for waiting in &self.waiting {
            if waiting.database == database.name {
                in_doubt.entry(waiting.id.clone()).or_default();
            }
        }
        for (id, doubt) in in_doubt {
            let is_awaited = self.waiting.iter().any(|waiting| waiting.id == id);
            if !is_awaited && (urgent || doubt.age < GRACE) {
                continue;
            }
            match self.end(database, &id, &doubt).await {
                Ok(None) => {}
                Ok(Some(outcome)) => self.answer(&id, outcome, all),
                Err(reason) => {
                    debug!(transaction = %id, %reason, "cannot be ended yet");
                }
            }
        }
    }

    /// Tells who waits how a transaction has ended, once it has on all shards.
    fn answer(&mut self, id: &GlobalId, outcome: Outcome, all: bool) {
        while let Some(at) = self.waiting.iter().position(|waiting| waiting.id == *id) {
            if !all {
                self.waiting[at].outcome = outcome;
                return;
            }
            let _ = self.waiting.swap_remove(at).done.send(outcome);
        }
    }

    /// What is prepared on the primaries, and whether all of them have answered.
    async fn in_doubt(
        &mut self,
        database: &DatabaseTopology,
    ) -> (BTreeMap<GlobalId, InDoubt>, bool) {
        let mut found: BTreeMap<GlobalId, InDoubt> = BTreeMap::new();
        let mut all = true;
        for shard in &database.shards {
            let rows = match self.ask(database, shard.primary(), IN_DOUBT).await {
                Ok(rows) => rows,
                Err(reason) => {
                    debug!(shard = %shard.name, %reason, "cannot see what is prepared");
                    all = false;
                    continue;
                }
            };
            self.warn_if_it_prepares_nothing(database, shard).await;
            for row in rows {
                let Some((id, owner, age)) = prepared(row) else {
                    continue;
                };
                let doubt = found.entry(id).or_default();
                doubt.age = doubt.age.max(age);
                doubt.parts.push(Part {
                    node: Arc::clone(shard.primary()),
                    shard: Arc::clone(&shard.name),
                    owner,
                });
            }
        }
        (found, all)
    }

    /// Says once what would be found out at the first COMMIT.
    async fn warn_if_it_prepares_nothing(&mut self, database: &DatabaseTopology, shard: &Shard) {
        let node = shard.primary();
        if !self.asked.insert(node.id) {
            return;
        }
        match self.ask(database, node, PREPARES).await {
            Ok(rows) if is_true(&rows) => {}
            Ok(_) => {
                warn!(database = %database.name, shard = %shard.name, "max_prepared_transactions is 0: transactions that write on several shards will be refused");
            }
            Err(reason) => {
                debug!(shard = %shard.name, %reason, "cannot see whether it prepares transactions");
                self.asked.remove(&node.id);
            }
        }
    }

    /// Ends a transaction as its decider says. `None` if that is not decided and its session is at it.
    async fn end(
        &mut self,
        database: &DatabaseTopology,
        id: &GlobalId,
        doubt: &InDoubt,
    ) -> Result<Option<Outcome>, LinkError> {
        if *id.decider == *CATALOG {
            return self.end_of_change(database, id, doubt).await;
        }
        let Some(decider) = shard_named(database, &id.decider) else {
            error!(transaction = %id, "its decider is no shard of this database: it stays prepared until somebody ends it");
            return Ok(None);
        };
        let outcome = self
            .decision(database, decider.primary(), id, doubt.age)
            .await?;
        let committed = match outcome {
            Some(Outcome::Committed) => true,
            Some(Outcome::RolledBack) => false,
            Some(Outcome::Prepared | Outcome::Unknown) | None => return Ok(outcome),
        };
        for part in &doubt.parts {
            self.end_part(database, part, id, committed).await?;
        }
        Ok(outcome)
    }

    /// Ends a transaction that changes where a table's rows are, as the catalog says. Its session is left the time to do so itself.
    async fn end_of_change(
        &mut self,
        database: &DatabaseTopology,
        id: &GlobalId,
        doubt: &InDoubt,
    ) -> Result<Option<Outcome>, LinkError> {
        if doubt.parts.is_empty() || doubt.age < CHANGE_GRACE {
            return Ok(None);
        }
        let Some(credentials) = self.links.settings().catalog_credentials() else {
            error!(transaction = %id, "there is no catalog to ask: it stays prepared until somebody ends it");
            return Ok(None);
        };
        let unreachable =
            |error: switchyard_catalog::Error| LinkError::Unreachable(error.to_string());
        let catalog = Catalog::open(&credentials).await.map_err(unreachable)?;
        let decision = catalog
            .give_up(&id.to_string())
            .await
            .map_err(unreachable)?;
        let routers = catalog.routers().await.map_err(unreachable)?;
        catalog.close().await;
        let is_awaited = !routers.behind.is_empty() && decision.age < FOLLOW_GRACE;
        if decision.committed && (decision.age < CHANGE_GRACE || is_awaited) {
            return Ok(None);
        }
        let follow: Vec<RouterId> = routers.following().collect();
        for part in &doubt.parts {
            if decision.committed {
                self.cancel_waiting(database, part, &follow).await?;
            }
            self.end_part(database, part, id, decision.committed)
                .await?;
        }
        Ok(Some(match decision.committed {
            true => Outcome::Committed,
            false => Outcome::RolledBack,
        }))
    }

    /// What waits for the table on the nodes of a shard has been planned for where its rows were. Nothing is planned so by these routers.
    async fn cancel_waiting(
        &self,
        database: &DatabaseTopology,
        part: &Part,
        follow: &[RouterId],
    ) -> Result<(), LinkError> {
        let settings = self.links.settings();
        let Some(user) = settings.monitor_user() else {
            return Ok(());
        };
        let visitor = Visitor::new(user, settings.file.router.timeouts.connect, ANSWER);
        let shards = database.shards.iter();
        let shard = shards.filter(|shard| shard.name == part.shard);
        for node in shard.flat_map(|shard| &shard.nodes) {
            if let Observed::Primary | Observed::Standby = node.observed() {
                let mut link = Link::open(&visitor, node, &database.name).await?;
                cancel_waiting(&mut link).await?;
                end_strangers(&mut link, &settings, follow).await?;
            }
        }
        Ok(())
    }

    /// How the decider has decided. What is not decided is rolled back, unless its session is at it, or a client has prepared it.
    async fn decision(
        &mut self,
        database: &DatabaseTopology,
        decider: &Arc<Node>,
        id: &GlobalId,
        age: Duration,
    ) -> Result<Option<Outcome>, LinkError> {
        if !decider.records_decisions() {
            self.install(&database.name, decider).await?;
        }
        // Whether the decider's part is still there is asked before whether it has been decided.
        let held = self.ask(database, decider, &id.held()).await?;
        let is_held = is_true(&held);
        let decided = id.decision();
        let rows = self.ask(database, decider, &decided).await?;
        if !rows.is_empty() {
            return Ok(Some(ended(&rows)));
        }
        match id.holder {
            Holder::Client(_) if is_held => {
                let is_prepared = held
                    .first()
                    .is_some_and(|row| row.get(1).is_some_and(|it| it.as_deref() == Some("t")));
                return Ok(is_prepared.then_some(Outcome::Prepared));
            }
            Holder::Backend(_) if is_held && age < TOO_LONG => return Ok(None),
            Holder::Client(_) | Holder::Backend(_) => {}
        }
        self.ask(database, decider, &id.give_up()).await?;
        let rows = self.ask(database, decider, &decided).await?;
        Ok((!rows.is_empty()).then(|| ended(&rows)))
    }

    /// Ends a prepared part, as the user whose it is.
    async fn end_part(
        &self,
        database: &DatabaseTopology,
        part: &Part,
        id: &GlobalId,
        committed: bool,
    ) -> Result<(), LinkError> {
        let settings = self.links.settings();
        let Some(user) = settings.users.known(&database.name, &id.user) else {
            error!(transaction = %id, shard = %part.shard, "its user is not configured here: it stays prepared until somebody ends it");
            return Ok(());
        };
        let connect = settings.file.router.timeouts.connect;
        let visitor = Visitor::new(&user, connect, ANSWER);
        let mut link = Link::open(&visitor, &part.node, &database.name).await?;
        if part.owner != *id.user {
            link.ask(&format!("SET ROLE {}", escape_identifier(&part.owner)))
                .await?;
        }
        match link.ask(&id.end(committed)).await {
            Ok(_) => {
                info!(transaction = %id, shard = %part.shard, committed, "ended what was left prepared");
                Ok(())
            }
            // Another has been faster.
            Err(LinkError::Refused { sqlstate, .. }) if sqlstate == SqlState::UNDEFINED_OBJECT => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn ask(
        &mut self,
        database: &DatabaseTopology,
        node: &Arc<Node>,
        sql: &str,
    ) -> Result<Vec<TextRow>, LinkError> {
        let (rows, _) = self.links.ask(&database.name, node, sql).await?;
        Ok(rows)
    }
}

fn shard_named<'a>(database: &'a DatabaseTopology, name: &str) -> Option<&'a Arc<Shard>> {
    database.shards.iter().find(|shard| *shard.name == *name)
}

/// A row of [`IN_DOUBT`].
fn prepared(row: TextRow) -> Option<(GlobalId, String, Duration)> {
    let mut values = row.into_iter();
    let id = GlobalId::parse(&values.next()??)?;
    let owner = values.next()??;
    let age: i64 = values.next()??.parse().ok()?;
    Some((
        id,
        owner,
        Duration::from_millis(age.try_into().unwrap_or(0)),
    ))
}

/// What an answer to [`GlobalId::decision`] says.
fn ended(rows: &[TextRow]) -> Outcome {
    match is_true(rows) {
        true => Outcome::Committed,
        false => Outcome::RolledBack,
    }
}

/// Whether the first value is true.
fn is_true(rows: &[TextRow]) -> bool {
    let value = rows.first().and_then(|row| row.first());
    value.is_some_and(|value| value.as_deref() == Some("t"))
}
