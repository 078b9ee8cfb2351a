//! Connections that several pools may have together: those of one database, or of one user, on a node.
//!
//! A pool that may have more but for its quota is *starved*: what other pools have at rest is closed for it, and what they give up
//! goes to starved pools in turn. Invariant: no lock of a pool is held while another pool is looked at.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::pool::{Pool, Served};

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
    starved: VecDeque<Weak<Pool>>,
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

    /// The pool waits for a right that it could not take.
    pub(super) fn starve(&self, pool: &Arc<Pool>) {
        let mut pools = self.lock();
        let pool = Arc::downgrade(pool);
        if !pools.starved.iter().any(|known| known.ptr_eq(&pool)) {
            pools.starved.push_back(pool);
        }
        self.has_starved.store(true, Ordering::SeqCst);
    }

    /// Gives starved pools what there is, closing connections that rest elsewhere. To be called when something has been released,
    /// or has come to rest.
    pub(super) fn serve(&self) {
        if !self.has_starved.load(Ordering::SeqCst) {
            return;
        }
        // Who gets nothing goes to the end, once around.
        let mut left = self.lock().starved.len();
        while left > 0
            && let Some(pool) = self.next_starved()
        {
            left -= 1;
            // Its sessions may have got what that pool's own gave back, or given up.
            if !pool.is_awaited() {
                continue;
            }
            let served = match self.has_room() || self.evict(&pool) {
                true => pool.serve_next(),
                false => Served::Denied,
            };
            match served {
                Served::All => {}
                Served::One => {
                    self.starve(&pool);
                    left += 1;
                }
                Served::Denied => self.starve(&pool),
            }
        }
    }

    fn has_room(&self) -> bool {
        self.open.load(Ordering::SeqCst) < self.limit.load(Ordering::SeqCst)
    }

    fn next_starved(&self) -> Option<Arc<Pool>> {
        let mut pools = self.lock();
        let next = std::iter::from_fn(|| pools.starved.pop_front()).find_map(|pool| pool.upgrade());
        self.has_starved
            .store(!pools.starved.is_empty(), Ordering::SeqCst);
        next
    }

    /// Closes a connection at rest in another pool than this one. False if there is none.
    fn evict(&self, starved: &Arc<Pool>) -> bool {
        let members: Vec<_> = {
            let mut pools = self.lock();
            pools.members.retain(|pool| pool.strong_count() > 0);
            pools.members.iter().filter_map(Weak::upgrade).collect()
        };
        let mut others = members.iter().filter(|pool| !Arc::ptr_eq(pool, starved));
        others.any(|pool| pool.close_one())
    }

    fn lock(&self) -> MutexGuard<'_, SharedBy> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
