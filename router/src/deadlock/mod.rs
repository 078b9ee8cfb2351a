//! Finds transactions that wait for each other on different shards, where no PostgreSQL sees the whole of it, and cancels one.
//!
//! A task of the control thread looks twice a second, while this router has transactions on several shards: which backends wait
//! for which (`pg_locks`, `pg_blocking_pids`), and whose they are. Its own it knows; those of other routers it knows by
//! *marks*: a router that sees its transactions wait, or others wait for them, says which backends are one transaction's by
//! advisory locks on the nodes, held by this task's own connections, whose keys are a backend's process and the transaction's
//! number. So no statement of a client's pays for it. A cycle that is seen twice with the same waits is a deadlock; every
//! router chooses the same victim, and the one whose it is cancels it, with 40P01.

mod graph;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, info};

use crate::config::Settings;
use crate::startup::cancel::CancelReason;
use crate::topology::link::{LinkError, TextRow};
use crate::topology::links::Links;
use crate::topology::{DatabaseTopology, Node, NodeId, Shard};
use crate::worker::Services;
use graph::{Backend, Graph, Transaction, Wait};

/// Between two looks. A deadlock is seen twice, and marks may have to be made before that.
const INTERVAL: Duration = Duration::from_millis(500);

/// Which backend waits for which. A prepared transaction is 0, and waits for nobody.
const WAITS: &str = "\
SELECT waiting.pid, blocker
FROM (SELECT DISTINCT pid FROM pg_catalog.pg_locks WHERE NOT granted) AS waiting,
     pg_catalog.unnest(pg_catalog.pg_blocking_pids(waiting.pid)) AS blocker
WHERE blocker > 0";

/// The marks of other routers: process and number.
const MARKS: &str = "\
SELECT classid, objid FROM pg_catalog.pg_locks
WHERE locktype = 'advisory' AND objsubid = 2 AND mode = 'ShareLock' AND granted AND pid <> pg_catalog.pg_backend_pid()
  AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";

/// The task.
#[derive(Debug)]
pub struct Detector {
    services: Arc<Services>,
    links: Links,
    /// What tells this router's numbers of transactions from others'.
    salt: u32,
    /// The waits of the cycles that were seen the last time.
    seen: BTreeSet<Vec<Wait>>,
    marks: BTreeSet<(Backend, u32)>,
}

/// The transactions of this router on several primaries, by client.
type Own = BTreeMap<u64, Vec<Backend>>;

impl Detector {
    /// The task, to be run on the control thread. The salt is another on each router.
    #[must_use]
    pub fn new(
        services: Arc<Services>,
        salt: u32,
        settings: watch::Receiver<Arc<Settings>>,
    ) -> Self {
        Self {
            services,
            links: Links::new(settings),
            salt,
            seen: BTreeSet::new(),
            marks: BTreeSet::new(),
        }
    }

    /// Works for as long as it is polled.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let topology = self.services.topology.snapshot();
            let mut seen = BTreeSet::new();
            let mut is_idle = true;
            for database in topology.databases.values() {
                let own = self.own(database);
                if own.is_empty() {
                    continue;
                }
                is_idle = false;
                match self.look(database, &own).await {
                    Ok(cycles) => seen.extend(cycles),
                    Err(reason) => {
                        debug!(database = %database.name, %reason, "cannot look for deadlocks");
                    }
                }
            }
            self.seen = seen;
            if is_idle {
                // Their sessions end, and the marks with them.
                self.links.close();
                self.marks.clear();
            }
            self.links.retain(&topology);
        }
    }

    /// The transactions of this router that have backends on several primaries of a database.
    fn own(&self, database: &DatabaseTopology) -> Own {
        let mut own = Own::new();
        if database.shards.len() < 2 {
            return own;
        }
        for server in self.services.registry.servers() {
            let is_primary = |shard: &Arc<Shard>| shard.primary().id == server.node;
            if server.client() != 0 && database.shards.iter().any(is_primary) {
                let backends = own.entry(server.client()).or_default();
                backends.push((server.node, server.pid));
            }
        }
        own.retain(|_, backends| {
            let nodes: BTreeSet<NodeId> = backends.iter().map(|(node, _)| *node).collect();
            nodes.len() > 1
        });
        own
    }

    /// The number of a client's transaction.
    fn number(&self, client: u64) -> u32 {
        // Clients' numbers are counted up from 1: their low half tells them apart.
        self.salt ^ u32::try_from(client & u64::from(u32::MAX)).unwrap_or_default()
    }

    /// Looks once: breaks the cycles that were seen before, and returns those that are there now.
    async fn look(
        &mut self,
        database: &DatabaseTopology,
        own: &Own,
    ) -> Result<Vec<Vec<Wait>>, LinkError> {
        let mut graph = Graph::default();
        let mut waits = Vec::new();
        for shard in &database.shards {
            let node = shard.primary();
            for (waiter, blocker) in pairs(&self.ask(database, node, WAITS).await?) {
                waits.push(((node.id, waiter), (node.id, blocker)));
            }
        }
        if waits.is_empty() {
            self.mark(database, BTreeSet::new()).await?;
            return Ok(Vec::new());
        }
        for shard in &database.shards {
            let node = shard.primary();
            for (process, number) in pairs(&self.ask(database, node, MARKS).await?) {
                graph.own((node.id, process), number);
            }
        }
        for (client, backends) in own {
            for backend in backends {
                graph.own(*backend, self.number(*client));
            }
        }
        waits.iter().for_each(|wait| graph.wait(*wait));
        self.mark(database, self.concerned(&graph, &waits, own))
            .await?;
        let cycles = graph.cycles();
        for cycle in cycles.iter().filter(|cycle| self.seen.contains(*cycle)) {
            if let Some(victim) = graph.victim(cycle) {
                self.break_at(victim, own).await;
            }
        }
        Ok(cycles)
    }

    /// What others have to know of this router's transactions: those that wait, or are waited for, if others are among it.
    fn concerned(&self, graph: &Graph, waits: &[Wait], own: &Own) -> BTreeSet<(Backend, u32)> {
        let numbers: BTreeSet<u32> = own.keys().map(|client| self.number(*client)).collect();
        let of = |backend: &Backend| graph.transaction(*backend);
        let is_own = |transaction: Transaction| match transaction {
            Transaction::Several(number) => numbers.contains(&number),
            Transaction::One(_) => false,
        };
        let ends = || {
            waits
                .iter()
                .flat_map(|(waiter, blocker)| [of(waiter), of(blocker)])
        };
        if ends().all(is_own) {
            return BTreeSet::new();
        }
        let concerned: BTreeSet<Transaction> = ends().collect();
        let mut marks = BTreeSet::new();
        for (client, backends) in own {
            let number = self.number(*client);
            if concerned.contains(&Transaction::Several(number)) {
                marks.extend(backends.iter().map(|backend| (*backend, number)));
            }
        }
        marks
    }

    /// Makes these marks on the nodes, and takes others back.
    async fn mark(
        &mut self,
        database: &DatabaseTopology,
        wanted: BTreeSet<(Backend, u32)>,
    ) -> Result<(), LinkError> {
        for shard in &database.shards {
            let node = shard.primary();
            let here = |marks: &BTreeSet<(Backend, u32)>| -> BTreeSet<(Backend, u32)> {
                let marks = marks.iter().filter(|((at, _), _)| *at == node.id);
                marks.copied().collect()
            };
            let (wanted, held) = (here(&wanted), here(&self.marks));
            let mut sql = String::new();
            for ((_, process), number) in wanted.difference(&held) {
                let number = number.cast_signed();
                sql += &format!("SELECT pg_catalog.pg_advisory_lock_shared({process}, {number});");
            }
            for ((_, process), number) in held.difference(&wanted) {
                let number = number.cast_signed();
                sql +=
                    &format!("SELECT pg_catalog.pg_advisory_unlock_shared({process}, {number});");
            }
            if sql.is_empty() {
                continue;
            }
            self.marks.retain(|mark| !held.contains(mark));
            self.ask(database, node, &sql).await?;
            self.marks.extend(wanted);
        }
        Ok(())
    }

    async fn ask(
        &mut self,
        database: &DatabaseTopology,
        node: &Arc<Node>,
        sql: &str,
    ) -> Result<Vec<TextRow>, LinkError> {
        let (rows, is_same) = self.links.ask(&database.name, node, sql).await?;
        if !is_same {
            // The marks were the former session's.
            self.marks.retain(|((at, _), _)| *at != node.id);
        }
        Ok(rows)
    }

    /// Cancels the transaction of this number, if it is this router's.
    async fn break_at(&self, victim: u32, own: &Own) {
        let Some(client) = own.keys().find(|client| self.number(**client) == victim) else {
            return;
        };
        for entry in self.services.registry.clients() {
            if entry.id == *client {
                info!(
                    client,
                    "transactions on several shards wait for each other: this one is cancelled"
                );
                entry.slot.cancel(CancelReason::Deadlock).await;
            }
        }
    }
}

/// Rows of two numbers.
fn pairs(rows: &[TextRow]) -> Vec<(u32, u32)> {
    let number = |row: &TextRow, column: usize| row.get(column)?.as_ref()?.parse().ok();
    rows.iter()
        .filter_map(|row| Some((number(row, 0)?, number(row, 1)?)))
        .collect()
}
