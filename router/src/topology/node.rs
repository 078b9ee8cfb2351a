//! One PostgreSQL server: what was configured, what was observed, and how busy it is.
//!
//! Invariant: the atomics are written by the monitor, except that anybody may mark a node down ([`Node::report_failure`])
//! and pools count connections in use. `passed` is only ever read together with the incarnation it was measured in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use switchyard_schema::{NodeTls, Role};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};

/// Identity of a node, stable over reloads for the same database, shard and address. Never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// Counts the lives of a node as its monitor sees them: it grows each time the monitor has to connect anew, so a server
/// that restarted or recovered from a crash is a new incarnation, which has replayed nothing until measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation(pub u32);

/// What the node itself last said it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Observed {
    /// Not asked yet.
    Unknown = 0,
    /// Does not answer.
    Down = 1,
    /// Answers and is not in recovery.
    Primary = 2,
    /// Answers and is in recovery.
    Standby = 3,
}

impl Observed {
    /// The word for it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Down => "down",
            Self::Primary => "primary",
            Self::Standby => "standby",
        }
    }
}

/// One PostgreSQL server of one shard.
#[derive(Debug)]
pub struct Node {
    /// Its identity.
    pub id: NodeId,
    /// Host name or address.
    pub host: Arc<str>,
    /// TCP port.
    pub port: u16,
    /// Configured role.
    pub role: Role,
    /// Availability zone, if configured.
    pub zone: Option<Arc<str>>,
    /// How connections to it are encrypted.
    pub tls: NodeTls,
    /// What the database is called there, if not as clients call it.
    pub dbname: Option<Arc<str>>,
    vitals: Arc<Vitals>,
}

/// What changes about a node between snapshots; survives a reload that changes the node's role or zone.
#[derive(Debug, Default)]
pub struct Vitals {
    observed: AtomicU8,
    incarnation: AtomicU32,
    passed: AtomicU64,
    lag_ms: AtomicU64,
    in_use: AtomicUsize,
    failures: AtomicU64,
    probes_started: AtomicU64,
    /// Decisions on transactions of several shards can be recorded here, as far as anybody knows.
    records_decisions: AtomicBool,
    vouched: watch::Sender<Vouched>,
    wake: Arc<Notify>,
    logins: Logins,
}

/// Pools log in to a node a few at a time, however many sessions want to: a server that has just come back is not met by all of them.
#[derive(Debug)]
struct Logins(Semaphore);

/// A server makes a process for each and checks a password, so that more at a time are not sooner done.
const LOGINS_AT_A_TIME: usize = 16;

impl Default for Logins {
    fn default() -> Self {
        Self(Semaphore::new(LOGINS_AT_A_TIME))
    }
}

/// The monitor's latest answered probe.
#[derive(Clone, Copy, Debug, Default)]
struct Vouched {
    probe: u64,
    incarnation: Incarnation,
}

impl Vitals {
    /// Vitals of a node never seen; `wake` asks the monitor for a probe now.
    #[must_use]
    pub fn new(wake: Arc<Notify>) -> Self {
        Self {
            wake,
            ..Self::default()
        }
    }
}

impl Node {
    /// A node with the vitals it had in the snapshot before, or new ones.
    #[must_use]
    pub fn new(id: NodeId, configured: &switchyard_schema::Node, vitals: Arc<Vitals>) -> Self {
        Self {
            id,
            host: configured.host.as_str().into(),
            port: configured.port,
            role: configured.role,
            zone: configured.zone.as_deref().map(Arc::from),
            tls: configured.tls.clone(),
            dbname: configured.dbname.as_deref().map(Arc::from),
            vitals,
        }
    }

    /// Whether connections to it lead to the same place in the same way as those to another, which has its host and port.
    #[must_use]
    pub fn is_reached_like(&self, other: &Node) -> bool {
        self.tls == other.tls && self.dbname == other.dbname
    }

    /// What the node last said it is.
    #[must_use]
    pub fn observed(&self) -> Observed {
        match self.vitals.observed.load(Ordering::SeqCst) {
            1 => Observed::Down,
            2 => Observed::Primary,
            3 => Observed::Standby,
            _ => Observed::Unknown,
        }
    }

    /// Marks the node down at once, for everybody. To be called when a connection could not be made or the server went
    /// away; not when the server answered with an error. The monitor probes right away and brings it back.
    pub fn report_failure(&self) {
        self.vitals.failures.fetch_add(1, Ordering::Relaxed);
        self.vitals
            .observed
            .store(Observed::Down as u8, Ordering::SeqCst);
        self.vitals.wake.notify_one();
    }

    /// Asks the monitor to look at this node now, without marking it down: for a single connection that was lost.
    pub fn suspect(&self) {
        self.vitals.wake.notify_one();
    }

    /// Failures reported so far.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.vitals.failures.load(Ordering::Relaxed)
    }

    /// Time by which the node's data may be older than its primary's, as last measured.
    #[must_use]
    pub fn lag(&self) -> Duration {
        Duration::from_millis(self.vitals.lag_ms.load(Ordering::Relaxed))
    }

    /// A turn to log in, until dropped.
    pub async fn login(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.vitals.logins.0.acquire().await.ok()
    }

    /// Connections now serving a session; the pool counts them with [`Node::acquired`] and [`Node::released`].
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.vitals.in_use.load(Ordering::Relaxed)
    }

    /// A pool handed out a connection of this node.
    pub fn acquired(&self) {
        self.vitals.in_use.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection of this node came back or was closed.
    pub fn released(&self) {
        self.vitals.in_use.fetch_sub(1, Ordering::Relaxed);
    }

    /// The current incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.vitals.incarnation.load(Ordering::SeqCst))
    }

    /// The newest sample of the primary that this node has replayed, with the incarnation in which that was measured.
    #[must_use]
    pub fn passed(&self) -> (Incarnation, u64) {
        let mut incarnation = self.incarnation();
        loop {
            let passed = self.vitals.passed.load(Ordering::SeqCst);
            let after = self.incarnation();
            if after == incarnation {
                return (incarnation, passed);
            }
            incarnation = after;
        }
    }

    /// For a connection just made: waits (at most `limit`) until the monitor got an answer to a probe begun after this
    /// call, and returns the incarnation the connection is then known to live in. `None`: unknown, so the connection
    /// must not serve reads that have a floor.
    ///
    /// A primary needs no such proof: its data is never behind.
    pub async fn settle(&self, limit: Duration) -> Option<Incarnation> {
        if self.role == Role::Primary {
            return Some(self.incarnation());
        }
        let born = self.birth();
        let mut vouched = self.vitals.vouched.subscribe();
        self.vitals.wake.notify_one();
        let answered = vouched.wait_for(|latest| latest.probe >= born);
        match tokio::time::timeout(limit, answered).await {
            Ok(Ok(latest)) => Some(latest.incarnation),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// The incarnation a connection born at `born` is known to live in, if the monitor has answered since.
    #[cfg(test)]
    pub(super) fn vouched_for(&self, born: u64) -> Option<Incarnation> {
        let latest = *self.vitals.vouched.borrow();
        (latest.probe >= born).then_some(latest.incarnation)
    }

    /// The first probe that begins after now.
    pub(super) fn birth(&self) -> u64 {
        self.vitals.probes_started.load(Ordering::SeqCst) + 1
    }

    /// Whether decisions on transactions of several shards can be recorded here.
    #[must_use]
    pub fn records_decisions(&self) -> bool {
        self.vitals.records_decisions.load(Ordering::Relaxed)
    }

    /// It has been seen whether they can.
    pub fn note_records_decisions(&self, can: bool) {
        self.vitals.records_decisions.store(can, Ordering::Relaxed);
    }

    /// The vitals, to carry over to the next snapshot.
    #[must_use]
    pub fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }
}

/// What the monitor does to a node.
impl Vitals {
    /// Somebody wants a look at this node now.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// A probe is about to be sent; returns its number.
    pub fn begin_probe(&self) -> u64 {
        self.probes_started.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// A new connection of the monitor: a new incarnation, which has passed nothing.
    pub fn begin_incarnation(&self) {
        self.passed.store(0, Ordering::SeqCst);
        self.records_decisions.store(false, Ordering::Relaxed);
        self.incarnation.fetch_add(1, Ordering::SeqCst);
    }

    /// The probe was answered: the node is what it says.
    pub fn end_probe(&self, probe: u64, observed: Observed) {
        self.observed.store(observed as u8, Ordering::SeqCst);
        let incarnation = Incarnation(self.incarnation.load(Ordering::SeqCst));
        self.vouched.send_replace(Vouched { probe, incarnation });
    }

    /// The node does not answer.
    pub fn mark_down(&self) {
        self.observed.store(Observed::Down as u8, Ordering::SeqCst);
    }

    /// The node has replayed sample `sample` in its current incarnation.
    pub fn record_passed(&self, sample: u64) {
        self.passed.fetch_max(sample, Ordering::SeqCst);
    }

    /// The node's data may be this much older than its primary's.
    pub fn record_lag(&self, lag: Duration) {
        let lag_ms = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        self.lag_ms.store(lag_ms, Ordering::Relaxed);
    }
}
