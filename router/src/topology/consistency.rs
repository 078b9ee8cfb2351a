//! What a session has seen, and so what a replica must have replayed to serve its next read.
//!
//! The monitor takes *samples* of each primary: it bumps the sample number, then asks for the WAL insert position. A
//! replica whose replay position has reached that of sample `n` has *passed* `n`. A session that saw the primary at
//! time `t` may read on a replica once that has passed a sample begun after `t`: its position includes everything
//! that was committed by then. No query pays for this; see ADR 0009.
//!
//! Invariant: a read never sees less than an earlier read or write of the same session on that shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::node::{Incarnation, NodeId};

/// What a read on a replica may miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Nothing the session wrote or saw before.
    Session,
    /// Nothing at all: the primary serves.
    Strong,
    /// Whatever was written within this time.
    Eventual {
        /// The most a replica may lag.
        max_lag: Duration,
    },
}

/// Numbers of the samples of one shard's primary. Numbers only grow, over reloads and changes of primary too.
#[derive(Debug, Default)]
pub struct Samples {
    started: AtomicU64,
    /// The sample that every replica must have passed to serve anybody.
    least: AtomicU64,
    wake: Arc<Notify>,
    passed: Notify,
}

impl Samples {
    /// No sample yet; `wake` asks the monitor for a sample now.
    #[must_use]
    pub fn new(wake: Arc<Notify>) -> Self {
        Self {
            wake,
            ..Self::default()
        }
    }

    /// Begins a sample and returns its number. To be called *before* the primary is asked.
    pub fn begin(&self) -> u64 {
        self.started.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The newest sample begun.
    #[must_use]
    pub fn started(&self) -> u64 {
        self.started.load(Ordering::SeqCst)
    }

    /// A sample that will begin after now.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.started() + 1
    }

    /// From now on replicas serve nobody before they have passed a sample that begins after now: rows have come from other shards.
    pub fn require_next(&self) {
        self.least.fetch_max(self.next(), Ordering::SeqCst);
    }

    /// Whether a replica that passed `passed` may serve at all.
    #[must_use]
    pub fn admit(&self, passed: u64) -> bool {
        passed >= self.least.load(Ordering::Relaxed)
    }

    /// A replica has passed a further sample: those who wait look again.
    pub fn announce(&self) {
        self.passed.notify_waiters();
    }

    /// Asks for a sample now.
    pub(super) fn hurry(&self) {
        self.wake.notify_one();
    }

    /// Somebody wants a sample now.
    pub(super) async fn wanted(&self) {
        self.wake.notified().await;
    }

    /// Waits for the next announcement.
    pub(super) fn announced(&self) -> tokio::sync::futures::Notified<'_> {
        self.passed.notified()
    }
}

/// How far back a session may read on one shard. A session keeps one per shard, starting with [`ReadFloor::default`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadFloor {
    /// A replica must have passed this sample, unless it is `seen`.
    pub(super) sample: u64,
    /// The replica that served the last read, and may serve the next whatever it passed since.
    pub(super) seen: Option<(NodeId, Incarnation)>,
    /// The sample number when the primary began to serve this session's reads only because no replica had passed.
    pub(super) waiting_since: Option<u64>,
}

impl ReadFloor {
    /// Whether a replica that passed `passed` in `incarnation` may serve the next read.
    #[must_use]
    pub fn admits(&self, node: NodeId, incarnation: Incarnation, passed: u64) -> bool {
        passed >= self.sample || self.seen == Some((node, incarnation))
    }

    /// The session saw the primary: a finished write, or a read there.
    pub(super) fn saw_primary(&mut self, next: u64) {
        self.sample = next;
        self.seen = None;
    }

    /// The session saw a replica.
    pub(super) fn saw_replica(&mut self, node: NodeId, incarnation: Incarnation, next: u64) {
        self.sample = next;
        self.seen = Some((node, incarnation));
        self.waiting_since = None;
    }
}
