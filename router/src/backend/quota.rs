//! Connections that several pools may have together: those of one database, or of one user, on a node.
//!
//! A pool that may have more but for its quota is *starved*: what other pools have at rest is closed for it, and what they give up
//! goes to the starved pool where somebody has waited longest. Invariants: no lock of a pool is held while another pool is looked at; a pool
//! becomes starved, or ceases to be, under its own lock.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::Instant;

use super::pool::Pool;

/// See the module.
#[derive(Debug, Default)]
pub struct Quota {
    limit: AtomicUsize,
    open: AtomicUsize,
    /// Whether `pools.starved` has something in it.
    has_starved: AtomicBool,
    pools: Mutex<SharedBy>,
}

#[derive(Debug, Default)]
struct SharedBy {
    members: Vec<Weak<Pool>>,
    starved: Vec<Weak<Pool>>,
}

impl Quota {
    /// So many connections together, from now on.
    pub(super) fn allow(&self, limit: usize) {
        self.limit.store(limit, Ordering::SeqCst);
    }

    /// The pool is one of those it is for.
    pub(super) fn join(&self, pool: &Arc<Pool>) {
        let mut pools = self.lock();
        pools.members.retain(|pool| pool.strong_count() > 0);
        pools.members.push(Arc::downgrade(pool));
    }

    /// The right to one connection more.
    pub(super) fn take(&self) -> bool {
        let limit = self.limit.load(Ordering::SeqCst);
        let more = |open| (open < limit).then_some(open + 1);
        self.open
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
            .is_ok()
    }

    /// So many connections are no more.
    pub(super) fn release(&self, count: usize) {
        self.open.fetch_sub(count, Ordering::SeqCst);
    }

    /// The pool waits for a right that it could not take. To be called while its queue is locked.
    pub(super) fn starve(&self, pool: &Arc<Pool>) {
        let mut pools = self.lock();
        let pool = Arc::downgrade(pool);
        if !pools.starved.iter().any(|known| known.ptr_eq(&pool)) {
            pools.starved.push(pool);
        }
        self.has_starved.store(true, Ordering::SeqCst);
    }

    /// The pool does not wait for this quota any more. To be called while its queue is locked.
    pub(super) fn sate(&self, pool: &Pool) {
        let mut pools = self.lock();
        pools
            .starved
            .retain(|known| !std::ptr::eq(known.as_ptr(), pool) && known.strong_count() > 0);
        self.has_starved
            .store(!pools.starved.is_empty(), Ordering::SeqCst);
    }

    /// Whether a pool waits for a right, as far as is known without a lock.
    pub(super) fn has_starved(&self) -> bool {
        self.has_starved.load(Ordering::SeqCst)
    }

    /// Gives starved pools what there is, who has waited longest first, closing connections that rest elsewhere. To be called when something
    /// has been released, or has come to rest.
    pub(super) fn serve(&self) {
        while self.has_starved()
            && let Some((_, pool)) = self.longest_wait()
            && (self.has_room() || self.evict(&pool))
        {
            pool.serve_next(self);
        }
    }

    /// The starved pool whose first in the queue has waited longest, and since when.
    pub(super) fn longest_wait(&self) -> Option<(Instant, Arc<Pool>)> {
        let starved: Vec<_> = {
            let pools = self.lock();
            pools.starved.iter().filter_map(Weak::upgrade).collect()
        };
        let waits = starved
            .into_iter()
            .filter_map(|pool| Some((pool.starves_since(self)?, pool)));
        waits.min_by_key(|(since, _)| *since)
    }

    /// Whether there is room for one connection more.
    pub(super) fn has_room(&self) -> bool {
        self.open.load(Ordering::SeqCst) < self.limit.load(Ordering::SeqCst)
    }

    /// Closes a connection at rest in another pool than this one, of those that are to be kept open only if there is no other. False if there is none.
    fn evict(&self, starved: &Arc<Pool>) -> bool {
        let members: Vec<_> = {
            let mut pools = self.lock();
            pools.members.retain(|pool| pool.strong_count() > 0);
            pools.members.iter().filter_map(Weak::upgrade).collect()
        };
        let others = || members.iter().filter(|pool| !Arc::ptr_eq(pool, starved));
        others().any(|pool| pool.close_one_of_many()) || others().any(|pool| pool.close_one())
    }

    fn lock(&self) -> MutexGuard<'_, SharedBy> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
