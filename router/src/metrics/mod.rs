//! What the router counts.
//!
//! Each worker counts each database into [`Counters`] of its own; a scrape adds them up. Labels are bounded: databases,
//! nodes and the enums of this file, never users, addresses or SQL.
//!
//! Invariant: a [`Counters`] is written by one worker thread only, so an addition is a load and a store.
//!
//! Collaborators: sessions count, [`crate::http`] and the admin console read.

pub mod clock;
pub mod exposition;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Where a statement went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// One shard's primary.
    Primary,
    /// One shard's replica.
    Replica,
    /// Several shards, rows appended.
    Scatter,
    /// Rows of several shards, brought together in a workspace.
    Workspace,
    /// All shards in one transaction.
    Broadcast,
    /// Answered by the session itself.
    Local,
    /// The admin console.
    Admin,
    /// Refused by the router.
    Refused,
}

impl RouteKind {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 8] = [
        Self::Primary,
        Self::Replica,
        Self::Scatter,
        Self::Workspace,
        Self::Broadcast,
        Self::Local,
        Self::Admin,
        Self::Refused,
    ];

    /// Its label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Scatter => "scatter",
            Self::Workspace => "workspace",
            Self::Broadcast => "broadcast",
            Self::Local => "local",
            Self::Admin => "admin",
            Self::Refused => "refused",
        }
    }
}

/// What kind of error a client was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// An error of PostgreSQL, passed through.
    Server,
    /// 0A: cannot be answered exactly.
    Unsupported,
    /// 08P01: the client broke the protocol.
    Protocol,
    /// 08, 40003: a node was lost or is down.
    Unavailable,
    /// 28, 3D: who or where.
    Authentication,
    /// 25: the state of the transaction.
    Transaction,
    /// 40: try again.
    Retry,
    /// 53: a limit was reached.
    Limit,
    /// 55: fenced.
    Fenced,
    /// 57: cancelled, timed out or shutting down.
    Cancelled,
    /// XX: a bug of ours.
    Internal,
    /// Anything else the router says of itself.
    Other,
}

impl ErrorClass {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 12] = [
        Self::Server,
        Self::Unsupported,
        Self::Protocol,
        Self::Unavailable,
        Self::Authentication,
        Self::Transaction,
        Self::Retry,
        Self::Limit,
        Self::Fenced,
        Self::Cancelled,
        Self::Internal,
        Self::Other,
    ];

    /// The class of an error the router raises itself, by its SQLSTATE.
    #[must_use]
    pub fn of_sqlstate(sqlstate: &[u8]) -> Self {
        match sqlstate {
            b"08P01" => Self::Protocol,
            b"40003" => Self::Unavailable,
            [b'0', b'8', ..] => Self::Unavailable,
            [b'0', b'A', ..] => Self::Unsupported,
            [b'2', b'8', ..] | [b'3', b'D', ..] => Self::Authentication,
            [b'2', b'5', ..] => Self::Transaction,
            [b'4', b'0', ..] => Self::Retry,
            [b'5', b'3', ..] => Self::Limit,
            [b'5', b'5', ..] => Self::Fenced,
            [b'5', b'7', ..] => Self::Cancelled,
            [b'X', b'X', ..] => Self::Internal,
            _ => Self::Other,
        }
    }

    /// Its label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Unsupported => "unsupported",
            Self::Protocol => "protocol",
            Self::Unavailable => "unavailable",
            Self::Authentication => "authentication",
            Self::Transaction => "transaction",
            Self::Retry => "retry",
            Self::Limit => "limit",
            Self::Fenced => "fenced",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
            Self::Other => "other",
        }
    }
}

/// A number that one thread adds to and others read.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    fn add(&self, amount: u64) {
        let sum = self.read().wrapping_add(amount);
        self.0.store(sum, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one worker counts for one database. A session fetches it once, by [`Metrics::counters`].
#[derive(Debug, Default)]
pub struct Counters {
    queries: [Count; RouteKind::ALL.len()],
    errors: [Count; ErrorClass::ALL.len()],
    logins: Count,
    transactions: Count,
    received: Count,
    sent: Count,
    query_us: Count,
    transaction_us: Count,
    wait_us: Count,
    plan_hits: Count,
    plan_misses: Count,
    bind_joins: Count,
    fetched_rows: Count,
    fetched_bytes: Count,
}

impl Counters {
    /// A client has been let in.
    pub fn login(&self) {
        self.logins.add(1);
    }

    /// A statement was sent on its way.
    pub fn query(&self, route: RouteKind) {
        self.queries[route as usize].add(1);
    }

    /// A transaction ended.
    pub fn transaction(&self) {
        self.transactions.add(1);
    }

    /// A client was sent an error.
    pub fn error(&self, class: ErrorClass) {
        self.errors[class as usize].add(1);
    }

    /// Bytes read from clients.
    pub fn received(&self, bytes: usize) {
        self.received.add(bytes as u64);
    }

    /// Bytes written to clients.
    pub fn sent(&self, bytes: usize) {
        self.sent.add(bytes as u64);
    }

    /// Time from a statement to the end of its answer.
    pub fn query_time(&self, time: Duration) {
        self.query_us.add(micros(time));
    }

    /// Time from a transaction's first statement to its end.
    pub fn transaction_time(&self, time: Duration) {
        self.transaction_us.add(micros(time));
    }

    /// Time a session waited for a connection.
    pub fn wait_time(&self, time: Duration) {
        self.wait_us.add(micros(time));
    }

    /// A statement's plan was in the cache, or not.
    pub fn plan_cache(&self, hit: bool) {
        let count = if hit {
            &self.plan_hits
        } else {
            &self.plan_misses
        };
        count.add(1);
    }

    /// A statement that would have needed a workspace was sent to shards with the rows of its small tables.
    pub fn bind_join(&self) {
        self.bind_joins.add(1);
    }

    /// Rows were brought from a shard into a workspace, or to be given to others.
    pub fn fetched(&self, rows: u64, bytes: u64) {
        self.fetched_rows.add(rows);
        self.fetched_bytes.add(bytes);
    }

    fn add_to(&self, totals: &mut Totals) {
        for (total, count) in totals.queries.iter_mut().zip(&self.queries) {
            *total += count.read();
        }
        for (total, count) in totals.errors.iter_mut().zip(&self.errors) {
            *total += count.read();
        }
        totals.logins += self.logins.read();
        totals.transactions += self.transactions.read();
        totals.received += self.received.read();
        totals.sent += self.sent.read();
        totals.query_us += self.query_us.read();
        totals.transaction_us += self.transaction_us.read();
        totals.wait_us += self.wait_us.read();
        totals.plan_hits += self.plan_hits.read();
        totals.plan_misses += self.plan_misses.read();
        totals.bind_joins += self.bind_joins.read();
        totals.fetched_rows += self.fetched_rows.read();
        totals.fetched_bytes += self.fetched_bytes.read();
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The counters of one database, all workers together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Statements by [`RouteKind::ALL`].
    pub queries: [u64; RouteKind::ALL.len()],
    /// Errors by [`ErrorClass::ALL`].
    pub errors: [u64; ErrorClass::ALL.len()],
    /// Clients let in.
    pub logins: u64,
    /// Transactions ended.
    pub transactions: u64,
    /// Bytes read from clients.
    pub received: u64,
    /// Bytes written to clients.
    pub sent: u64,
    /// Microseconds spent on statements.
    pub query_us: u64,
    /// Microseconds that transactions took.
    pub transaction_us: u64,
    /// Microseconds waited for connections.
    pub wait_us: u64,
    /// Plans found in the cache.
    pub plan_hits: u64,
    /// Plans made.
    pub plan_misses: u64,
    /// Statements sent to shards with the rows of their small tables.
    pub bind_joins: u64,
    /// Rows brought from shards into workspaces, or to be given to other shards.
    pub fetched_rows: u64,
    /// Their bytes.
    pub fetched_bytes: u64,
}

/// The sums by database.
pub type DatabaseTotals = BTreeMap<Arc<str>, Totals>;

/// All counters of the process.
#[derive(Debug, Default)]
pub struct Metrics {
    counters: Mutex<BTreeMap<Place, Arc<Counters>>>,
}

/// What one [`Counters`] counts.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    database: Arc<str>,
    worker: usize,
}

impl Metrics {
    /// The counters of `worker` for `database`. Takes a lock: once per session.
    #[must_use]
    pub fn counters(&self, worker: usize, database: &Arc<str>) -> Arc<Counters> {
        let mut all = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Place {
            database: Arc::clone(database),
            worker,
        };
        Arc::clone(all.entry(place).or_default())
    }

    /// The sums by database.
    #[must_use]
    pub fn totals(&self) -> DatabaseTotals {
        let all = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals = DatabaseTotals::new();
        for (place, counters) in all.iter() {
            counters.add_to(totals.entry(Arc::clone(&place.database)).or_default());
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_add_up() {
        let metrics = Metrics::default();
        let database: Arc<str> = "shop".into();
        for worker in 0..3 {
            let counters = metrics.counters(worker, &database);
            counters.query(RouteKind::Scatter);
            counters.received(10);
            counters.error(ErrorClass::of_sqlstate(b"0A000"));
        }
        metrics.counters(0, &database).query(RouteKind::Scatter);
        let totals = &metrics.totals()[&database];
        assert_eq!(totals.queries[RouteKind::Scatter as usize], 4);
        assert_eq!(totals.received, 30);
        assert_eq!(totals.errors[ErrorClass::Unsupported as usize], 3);
    }

    #[test]
    fn labels_follow_discriminants() {
        for (position, route) in RouteKind::ALL.iter().enumerate() {
            assert_eq!(*route as usize, position);
        }
        for (position, class) in ErrorClass::ALL.iter().enumerate() {
            assert_eq!(*class as usize, position);
        }
    }
}
