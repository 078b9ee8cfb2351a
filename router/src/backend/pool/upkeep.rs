//! What is done to a pool every now and then, and when its node fails, changes or goes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::{CheckoutError, Lease, May, Pool, State, milliseconds};
use crate::backend::Connection;

impl Pool {
    /// Shuts down every connection, those lent to sessions too: the node does not answer, and sessions that wait for it
    /// would wait as long as TCP does.
    pub fn sever(&self) {
        let sockets = std::mem::take(&mut self.lock().sockets);
        for socket in sockets.iter().filter_map(Weak::upgrade) {
            // It fails for one that the node has closed already.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
        self.close_idle();
    }

    /// Closes idle connections that the node has closed, asking the system about each: after a connection was lost, for
    /// it is seldom the only one.
    pub fn close_dead(&self) {
        self.close_unless(&mut self.lock(), Connection::is_open);
    }

    /// Closes idle connections that have rested or lived too long. To be called every now and then: it moves the time
    /// by which the limits are judged.
    pub fn close_old(&self) {
        let age = milliseconds(Some(self.made.elapsed()));
        self.age_ms.store(age, Ordering::Relaxed);
        let mut state = self.lock();
        let mut open = state.open;
        let before = state.idle.len();
        state.idle.retain(|idle| {
            let is_over = self.is_over(idle, open);
            open -= usize::from(is_over);
            !is_over
        });
        let closed = before - state.idle.len();
        self.forget(&mut state, closed);
    }

    /// Closes an idle connection, the one that has rested longest. False if there is none.
    pub(in crate::backend) fn close_one(&self) -> bool {
        self.close_one_beyond(0)
    }

    /// The same, where more are open than are to be kept open.
    pub(in crate::backend) fn close_one_of_many(&self) -> bool {
        self.close_one_beyond(self.limits.min)
    }

    fn close_one_beyond(&self, kept: usize) -> bool {
        let mut state = self.lock();
        if state.idle.is_empty() || state.open <= kept {
            return false;
        }
        let idle = state.idle.remove(0);
        self.forget(&mut state, 1);
        drop(state);
        drop(idle);
        true
    }

    /// Closes all idle connections, as after a failure of the node, and forgets that it let nobody in.
    pub fn close_idle(&self) {
        let idle = {
            let mut state = self.lock();
            state.refusal = None;
            let idle = std::mem::take(&mut state.idle);
            self.forget(&mut state, idle.len());
            idle
        };
        drop(idle);
    }

    fn close_unless(&self, state: &mut State, stays: impl Fn(&Connection) -> bool) {
        let before = state.idle.len();
        state.idle.retain(|idle| stays(&idle.connection));
        let closed = before - state.idle.len();
        self.forget(state, closed);
    }

    /// Ends the wait of sessions that have waited longer than [`super::PoolLimits::wait`], and lets those go on that may by now: the
    /// pause after a refusal is over, or they have a right to the reserve. To be called every now and then.
    pub fn look_after_waiters(self: &Arc<Self>) {
        self.end_waits();
        loop {
            let mut state = self.lock();
            let Some(first) = state.waiters.front() else {
                return;
            };
            let reserve = match first.since.elapsed() >= self.limits.reserve_after {
                true => self.limits.reserve,
                false => 0,
            };
            let Some((waiter, lease)) = self.next_lease(&mut state, reserve) else {
                drop(state);
                return self.serve_starved();
            };
            drop(state);
            waiter.place.settle(Ok(lease));
        }
    }

    fn end_waits(&self) {
        loop {
            let mut state = self.lock();
            let first = state.waiters.front();
            if first.is_none_or(|first| first.since.elapsed() <= self.limits.wait) {
                return;
            }
            let first = state.waiters.pop_front();
            drop(state);
            if let Some(first) = first {
                first.place.settle(Err(CheckoutError::Timeout));
            }
        }
    }

    /// Whether fewer connections are open than are to be kept open.
    pub fn is_short(&self) -> bool {
        let state = self.lock();
        state.open < self.limits.min && state.opening == 0 && !self.is_retired()
    }

    /// Opens connections until as many are open as are to be kept open, on the worker where it is polled.
    pub async fn warm(self: &Arc<Self>, worker: usize) {
        while self.is_short() {
            let place = self.take_place(&mut self.lock(), 0);
            let May::Open = place else { return };
            let mut lease = Lease::new(self, None);
            match self.open().await {
                Ok(connection) => {
                    lease.opened();
                    lease
                        .borrowed(connection, worker, 0, std::time::Duration::ZERO)
                        .give_back();
                }
                Err(error) => {
                    self.note_failure(&error);
                    return;
                }
            }
        }
    }

    /// Closes what is idle and lets nothing come back: the node has left the topology.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.close_idle();
        let waiters = std::mem::take(&mut self.lock().waiters);
        for waiter in waiters {
            waiter.place.settle(Err(CheckoutError::Retired));
        }
    }

    /// Closes connections up to this number: those at rest now, those that are lent when they come back.
    pub fn replace_up_to(&self, last: u64) {
        self.replaced.store(last, Ordering::Relaxed);
        let mut state = self.lock();
        state.refusal = None;
        self.close_unless(&mut state, |connection| !self.is_replaced(connection));
    }

    /// Whether connections that are to be closed are still lent.
    pub fn has_replaced(&self) -> bool {
        let replaced = self.replaced.load(Ordering::Relaxed);
        let servers = self.registry.servers();
        let own = servers.iter().filter(|server| {
            server.node == self.key.node
                && server.database == self.key.database
                && server.user == self.key.user
        });
        own.into_iter().any(|server| server.id <= replaced)
    }

    pub(super) fn is_replaced(&self, connection: &Connection) -> bool {
        let replaced = self.replaced.load(Ordering::Relaxed);
        let entry = connection.entry.as_ref();
        replaced > 0 && entry.is_some_and(|entry| entry.id <= replaced)
    }
}
