//! When nothing is on its way any more that was planned by what the catalog said before: whoever moves rows waits for that (ADR 0024).
//!
//! A session notes at each server connection by which snapshot it is asked before it looks which is the newest, and the snapshot is published before
//! anybody looks at what is noted: who is not seen here with an older one works by the new one. What does not begin to be answered soon is looked for on
//! its node: it is there if it has locked a table whose rows have moved, for then it has come before them, or if it is past the
//! point at which it locks tables. What is not there is waited for: it may be on its way, on a machine that is very busy, and come when the rows have gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::change::Change;
use crate::admin::asked::Asked;
use crate::admin::registry::{Registry, ServerEntry};
use crate::distribute::switchover::MAY_BE_CANCELLED;
use crate::topology::link::LinkError;
use crate::topology::links::Links;
use crate::topology::{NodeId, Topology};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(1);
/// What has not begun to be answered for so long is looked for on its node.
const PATIENCE: Duration = Duration::from_millis(200);
/// Between two looks there.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// The longest that one of them may take.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// What is not there after so long is cancelled: it may be at something else than what it would lock.
const CANCEL_AFTER: Duration = Duration::from_secs(1);

/// What has been asked and is not there, of connections with these processes. An index is locked when all tables have been, unless there were
/// statements before in the same transaction; and who waits for a row runs already.
const NOT_THERE: &str = "\
SELECT CASE WHEN $CANCEL AND $MAY THEN pg_catalog.pg_cancel_backend(w.pid) END
  FROM (VALUES $ASKED) AS w (pid, fresh, alone)
 WHERE NOT EXISTS (
       SELECT FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_class c ON c.oid = l.relation AND c.relkind IN ('i', 'I') AND c.oid >= 16384
        WHERE l.pid = w.pid AND CASE
              WHEN l.granted THEN l.relation = ANY (ARRAY[$TABLES]::pg_catalog.oid[]) OR w.alone AND c.oid IS NOT NULL
              ELSE w.fresh AND l.locktype IN ('transactionid', 'tuple', 'advisory') END)";

/// A state of the catalog that is published.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    /// The catalog's revision.
    pub(super) revision: i64,
    /// The first snapshot that is like it.
    pub(super) topology: Arc<Topology>,
}

/// The way from what is published to what the catalog is told.
#[derive(Debug)]
pub struct Clearing {
    pub(super) taken: watch::Receiver<Option<Taken>>,
    pub(super) acknowledged: Option<watch::Sender<i64>>,
    pub(super) links: Links,
}

/// What changes from what has been acknowledged to what is published.
struct Changes {
    topology: Arc<Topology>,
    of: BTreeMap<Arc<str>, Change>,
}

impl Clearing {
    /// Acknowledges what is published as soon as nothing is on its way that was planned by something else. Never returns.
    pub async fn run(mut self, registry: &Registry) {
        let Some(acknowledged) = self.acknowledged.take() else {
            return std::future::pending().await;
        };
        let mut former: Option<Arc<Topology>> = None;
        while self.taken.changed().await.is_ok() {
            let Some(taken) = self.taken.borrow_and_update().clone() else {
                continue;
            };
            if let Some(former) = former {
                let changes = Changes::between(&former, &taken.topology);
                self.follow(&changes, registry).await;
            }
            former = Some(taken.topology);
            acknowledged.send_replace(taken.revision);
        }
        std::future::pending().await
    }

    /// Waits until nothing is on its way to where rows were.
    async fn follow(&mut self, changes: &Changes, registry: &Registry) {
        let began = Instant::now();
        loop {
            let asked = changes.asked_before(registry);
            if asked.is_empty() {
                return;
            }
            if began.elapsed() < PATIENCE {
                sleep(PAUSE).await;
                continue;
            }
            let cancels = began.elapsed() > CANCEL_AFTER;
            let looking = self.are_there(changes, &asked, cancels);
            match timeout(LOOK_LIMIT, looking).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => {}
                Ok(Err(reason)) => {
                    tracing::warn!(%reason, "cannot see whether a statement has come to its shard that was planned before rows moved");
                }
                Err(_) => {}
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// Whether all of them have come to where they were sent before rows have moved there. Those that have not are cancelled if `cancels`.
    async fn are_there(
        &mut self,
        changes: &Changes,
        asked: &[(Arc<ServerEntry>, Asked)],
        cancels: bool,
    ) -> Result<bool, LinkError> {
        let mut by_node: BTreeMap<NodeId, Vec<&(Arc<ServerEntry>, Asked)>> = BTreeMap::new();
        for one in asked {
            by_node.entry(one.0.node).or_default().push(one);
        }
        let mut are_there = true;
        for (node, asked) in by_node {
            let Some(node) = changes.topology.nodes().find(|known| known.id == node) else {
                continue;
            };
            let Some((first, change)) = asked.first().and_then(|(server, _)| {
                let change = changes.of.get(&server.database)?;
                Some((server, change))
            }) else {
                continue;
            };
            let processes = asked.iter().map(|(server, asked)| {
                format!("({}, {}, {})", server.pid, asked.fresh, asked.alone)
            });
            let processes: Vec<String> = processes.collect();
            let sql = NOT_THERE
                .replace("$CANCEL", if cancels { "true" } else { "false" })
                .replace("$MAY", MAY_BE_CANCELLED)
                .replace("$ASKED", &processes.join(", "))
                .replace("$TABLES", &change.tables.join(", "));
            let (rows, _) = self.links.ask_any(&first.database, node, &sql).await?;
            if cancels && !rows.is_empty() {
                tracing::warn!(host = %node.host, port = node.port, statements = rows.len(), "cancelling statements that were planned before rows moved and have not come to them");
            }
            are_there &= rows.is_empty();
        }
        Ok(are_there)
    }
}

impl Changes {
    fn between(former: &Topology, new: &Arc<Topology>) -> Changes {
        let of = new.databases.iter().filter_map(|(name, database)| {
            let change = Change::between(former.database(name)?, database)?;
            Some((Arc::clone(name), change))
        });
        Changes {
            of: of.collect(),
            topology: Arc::clone(new),
        }
    }

    /// What is unanswered and may have been asked of the wrong shard.
    fn asked_before(&self, registry: &Registry) -> Vec<(Arc<ServerEntry>, Asked)> {
        if self.of.is_empty() {
            return Vec::new();
        }
        let mut asked = registry.asked_before(self.topology.generation);
        asked.retain(|(server, asked)| {
            let change = self.of.get(&server.database);
            change.is_some_and(|change| change.concerns(*asked))
        });
        asked
    }
}
