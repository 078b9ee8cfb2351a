//! How pools get on that share a limit: who has waited longest in any of them is next, unless that would cost too many connections made anew.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Pool, State};
use crate::backend::quota::Quota;

/// A connection goes to who is next in its own pool, unless somebody in a pool that shares a limit with it has waited so much longer: for one of another
/// user's it has to be closed, and one has to be made.
const HEAD_START: Duration = Duration::from_millis(100);
impl Pool {
    /// Since when somebody has waited for this quota. Nobody does where the pool may have no more anyway, or another quota has no room, either.
    pub(in crate::backend) fn starves_since(self: &Arc<Self>, quota: &Quota) -> Option<Instant> {
        let state = self.lock();
        let first = state.waiters.front().map(|first| first.since);
        let is_other = |other: &&Arc<Quota>| !std::ptr::eq(Arc::as_ptr(other), quota);
        let mut others = self.quotas.iter().filter(is_other);
        let full = others.find(|other| !other.has_room());
        let starves = full.is_none() && state.open < self.limits.size;
        if let (Some(full), Some(_)) = (full, first) {
            full.starve(self);
        }
        if first.is_none() || !starves {
            quota.sate(self);
        }
        first.filter(|_| starves)
    }

    /// Lets the first in the queue make a connection, if this quota, that the pool shares, has room for it.
    pub(in crate::backend) fn serve_next(self: &Arc<Self>, quota: &Quota) {
        let mut state = self.lock();
        quota.sate(self);
        // Starved again, if there is no room after all.
        let next = self.next_lease(&mut state, 0);
        if next.is_some() && !state.waiters.is_empty() {
            quota.starve(self);
        }
        drop(state);
        if let Some((waiter, lease)) = next {
            waiter.place.settle(Ok(lease));
        }
    }

    /// Whether somebody waits in another pool, for a quota that both share, who came long before anybody who waits in this one.
    pub(super) fn owes_others(&self) -> bool {
        let mut quotas = self.quotas.iter().filter(|quota| quota.has_starved());
        quotas.any(|quota| {
            let others = quota.longest_wait().map(|(since, _)| since);
            let own = self.lock().waiters.front().map(|first| first.since);
            others
                .zip(own)
                .is_some_and(|(others, own)| others + HEAD_START < own)
        })
    }

    /// Whether other pools wait for a quota that this one shares, too: then its own queue waits among them.
    pub(super) fn shares_with_starved(self: &Arc<Self>, state: &State) -> bool {
        let mut wanted = self.quotas.iter().filter(|quota| quota.has_starved());
        let Some(quota) = wanted.next() else {
            return false;
        };
        if !state.waiters.is_empty() {
            quota.starve(self);
        }
        true
    }

    /// Lets pools go on that share a quota with this one, where there is something for them.
    pub(super) fn serve_starved(&self) {
        self.quotas.iter().for_each(|quota| quota.serve());
    }

    pub(in crate::backend) fn join_quotas(self: &Arc<Self>) {
        self.quotas.iter().for_each(|quota| quota.join(self));
    }
}
