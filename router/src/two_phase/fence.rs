//! Moments at which every transaction on several shards is committed on all of them or on none, for reads that are to see it so.
//!
//! A *fence* is a lock of the decisions of all shards that those who decide wait for, and that waits for them: while it stands nothing is decided. What
//! had been decided before is then committed on the other shards, too, for which the fence waits; snapshots that are taken by then are all of one cut. Those
//! who decide pay nothing for it while nobody reads so.
//!
//! A task of the control thread raises fences, for all sessions that wait for one at a time. Invariant: a session is told that a fence has stood only
//! where each of its locks was there until after the session's last snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use switchyard_wire::SqlState;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::{GlobalId, PARTS};
use crate::config::Settings;
use crate::topology::link::LinkError;
use crate::topology::links::Links;
use crate::topology::{DatabaseTopology, Node, Published};

/// The longest that a fence is tried to raise.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest a fence waits for what has been decided to be committed everywhere; then it lets go for a while.
const SETTLES: Duration = Duration::from_millis(100);
/// Between two looks whether it is.
const LOOKS: Duration = Duration::from_millis(2);
/// Between two attempts.
const APART: Duration = Duration::from_millis(50);
/// The longest a fence stands for sessions to take their snapshots.
const STANDS: Duration = Duration::from_secs(1);
/// Sessions that may wait, and that one fence serves.
const REQUESTS: usize = 1024;

/// Keeps everybody from deciding. It conflicts with what an INSERT takes, not with others of its kind.
const FENCE: &str = "\
BEGIN;
SET LOCAL lock_timeout = '500ms';
LOCK TABLE ONLY switchyard.decisions IN SHARE MODE";

/// Keeps clients from committing what they have prepared: they hold the same lock meanwhile, see [`HOLD_DECISION`].
const FENCE_CLIENTS: &str = "\
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('switchyard.prepared', 0))";

/// What stands around a client's COMMIT PREPARED on the first shard, which cannot be in a transaction.
pub(crate) const HOLD_DECISION: &str = "\
SELECT pg_catalog.pg_advisory_lock_shared(pg_catalog.hashtextextended('switchyard.prepared', 0))";
/// Its end.
pub(crate) const LET_GO_OF_DECISION: &str = "\
SELECT pg_catalog.pg_advisory_unlock_shared(pg_catalog.hashtextextended('switchyard.prepared', 0))";

/// Why a fence is not yet of use.
const HALF: &str =
    "a transaction that is committed on one shard is still to be committed on another";

/// The way to the task.
#[derive(Debug, Clone)]
pub struct Fences {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
struct Request {
    database: Arc<str>,
    raised: oneshot::Sender<Result<Fence, Box<str>>>,
}

/// A fence that stands.
#[derive(Debug)]
pub(crate) struct Fence {
    passed: oneshot::Sender<oneshot::Sender<bool>>,
}

impl Fences {
    /// Raises a fence around a database.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(crate) async fn raise(&self, database: &Arc<str>) -> Result<Fence, Box<str>> {
        let (raised, fence) = oneshot::channel();
        let request = Request {
            database: Arc::clone(database),
            raised,
        };
        // Both fail only when the control thread has ended, and then the process is about to.
        let _ = self.requests.send(request).await;
        let ended = || Err("the router shuts down".into());
        fence.await.unwrap_or_else(|_| ended())
    }
}

impl Fence {
    /// The session has taken its snapshots. Whether the fence has stood until now.
    pub(crate) async fn passed(self) -> bool {
        let (answer, stood) = oneshot::channel();
        self.passed.send(answer).is_ok() && stood.await.unwrap_or(false)
    }
}

/// The task.
#[derive(Debug)]
pub struct FenceKeeper {
    published: Published,
    requests: mpsc::Receiver<Request>,
    links: Links,
}

impl FenceKeeper {
    /// The task, to be run on the control thread, and the way to it.
    #[must_use]
    pub fn new(settings: watch::Receiver<Arc<Settings>>, published: Published) -> (Self, Fences) {
        let (sender, requests) = mpsc::channel(REQUESTS);
        let keeper = Self {
            published,
            requests,
            links: Links::new(settings),
        };
        (keeper, Fences { requests: sender })
    }

    /// Works until every [`Fences`] is gone.
    pub async fn run(mut self) {
        while let Some(first) = self.requests.recv().await {
            let mut waiting = vec![first];
            while let Ok(next) = self.requests.try_recv() {
                waiting.push(next);
            }
            while let Some(database) = waiting.first().map(|one| Arc::clone(&one.database)) {
                let (these, others) = waiting
                    .into_iter()
                    .partition(|one| one.database == database);
                waiting = others;
                self.serve(&database, these).await;
            }
            self.links.retain(&self.published.snapshot());
        }
    }

    /// One fence for all of them.
    async fn serve(&mut self, name: &str, requests: Vec<Request>) {
        let topology = self.published.snapshot();
        let raised = match topology.database(name) {
            Some(database) => self.raise(database).await,
            None => Err("the database is gone".into()),
        };
        let mut sessions = Vec::with_capacity(requests.len());
        for request in requests {
            let (passed, passes) = oneshot::channel();
            let fence = raised.clone().map(|()| Fence { passed });
            if request.raised.send(fence).is_ok() {
                sessions.push(passes);
            }
        }
        let over = Instant::now() + STANDS;
        let mut answers = Vec::with_capacity(sessions.len());
        for passes in sessions {
            // One who comes later finds nobody.
            if let Ok(Ok(answer)) = timeout_at(over, passes).await {
                answers.push(answer);
            }
        }
        let Some(database) = topology.database(name) else {
            return;
        };
        let stood = self.lower(database).await;
        for answer in answers {
            let _ = answer.send(stood);
        }
    }

    /// Raises a fence, or says why that cannot be. Either way it is to be lowered.
    async fn raise(&mut self, database: &DatabaseTopology) -> Result<(), Box<str>> {
        let give_up = Instant::now() + PATIENCE;
        let mut known = HALF.to_owned();
        loop {
            // One that is given up closes its connection, and PostgreSQL takes back what it holds.
            let (reason, passes) = match timeout_at(give_up, self.attempt(database)).await {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) => (HALF.to_owned(), true),
                Ok(Err(error)) => (error.to_string(), passes(&error)),
                Err(_) => (known, false),
            };
            if !passes {
                return Err(reason.into());
            }
            known = reason;
            // Those who decide may be waiting for each other by the fence.
            self.lower(database).await;
            sleep(APART).await;
        }
    }

    /// True if the fence stands and all that has been decided is committed.
    async fn attempt(&mut self, database: &DatabaseTopology) -> Result<bool, LinkError> {
        for (position, shard) in database.shards.iter().enumerate() {
            let fence = match position {
                0 => format!("{FENCE}; {FENCE_CLIENTS}"),
                _ => FENCE.to_owned(),
            };
            self.ask(database, shard.primary(), &fence).await?;
        }
        let begin = Instant::now();
        loop {
            if self.is_settled(database).await? {
                return Ok(true);
            }
            if begin.elapsed() > SETTLES {
                return Ok(false);
            }
            sleep(LOOKS).await;
        }
    }

    /// Whether no part is prepared of what has been decided.
    async fn is_settled(&mut self, database: &DatabaseTopology) -> Result<bool, LinkError> {
        let mut prepared: BTreeMap<Box<str>, Vec<GlobalId>> = BTreeMap::new();
        for shard in &database.shards {
            let rows = self.ask(database, shard.primary(), PARTS).await?;
            let names = rows.into_iter().flatten().flatten();
            for id in names.filter_map(|name| GlobalId::parse(&name)) {
                prepared.entry(id.decider.clone()).or_default().push(id);
            }
        }
        for (decider, ids) in prepared {
            // A change of where rows are holds its table locked instead.
            let Some(shard) = database.shards.iter().find(|shard| *shard.name == *decider) else {
                continue;
            };
            let rows = self.ask(database, shard.primary(), &decided(&ids)).await?;
            if !rows.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Lowers the fence. True if all of it has stood until now.
    async fn lower(&mut self, database: &DatabaseTopology) -> bool {
        let mut stood = true;
        for shard in &database.shards {
            let lowered = self.links.ask(&database.name, shard.primary(), "COMMIT");
            stood &= matches!(lowered.await, Ok((_, true)));
        }
        stood
    }

    async fn ask(
        &mut self,
        database: &DatabaseTopology,
        node: &Arc<Node>,
        sql: &str,
    ) -> Result<Vec<Vec<Option<String>>>, LinkError> {
        let answered = self.links.ask(&database.name, node, sql).await;
        if answered.as_ref().is_err_and(is_missing) {
            // Somebody has removed the tables of decisions: who wants a fence has them made again.
            node.note_records_decisions(false);
        }
        answered.map(|(rows, _)| rows)
    }
}

/// Whether what has been asked for is not there.
fn is_missing(error: &LinkError) -> bool {
    let missing = [SqlState::INVALID_SCHEMA_NAME, SqlState::UNDEFINED_TABLE];
    matches!(error, LinkError::Refused { sqlstate, .. } if missing.contains(sqlstate))
}

/// Whether what keeps a fence from being raised may pass soon.
fn passes(error: &LinkError) -> bool {
    match error {
        LinkError::Refused { sqlstate, .. } => {
            [SqlState::LOCK_NOT_AVAILABLE, SqlState::DEADLOCK_DETECTED].contains(sqlstate)
        }
        LinkError::Unreachable(_)
        | LinkError::Lost(_)
        | LinkError::Full
        | LinkError::Timeout
        | LinkError::Unexpected(_) => true,
    }
}

/// Asks a decider for those of these transactions that are committed.
fn decided(ids: &[GlobalId]) -> String {
    let pair = |id: &GlobalId| {
        let name = escape_literal(&id.to_string());
        format!("({name}, {})", escape_literal(&id.user))
    };
    let pairs: Vec<String> = ids.iter().map(pair).collect();
    let pairs = pairs.join(", ");
    format!(
        "SELECT gid FROM switchyard.decisions WHERE committed AND (gid, decided_by) IN ({pairs}) \
         UNION ALL SELECT gid FROM switchyard.prepared WHERE committed AND (gid, decided_by) IN ({pairs})"
    )
}
