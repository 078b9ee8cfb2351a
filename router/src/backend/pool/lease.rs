//! Connections on loan: the right to one, and who has it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use super::{Idle, Pool};
use crate::backend::Connection;
use crate::topology::Node;

/// What a lease counts for in its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stake {
    /// A connection that is being made, or is about to be.
    Opening,
    /// One that is there.
    Open,
    /// Nothing: the connection has come to rest.
    Nothing,
}

/// The right to one of a pool's connections, and perhaps the connection. Dropping it gives the right up and closes the connection.
#[derive(Debug)]
pub(in crate::backend) struct Lease {
    pub(super) pool: Arc<Pool>,
    pub(super) connection: Option<Box<Connection>>,
    stake: Stake,
}

/// A connection lent to a session. Dropping it closes the connection; [`Borrowed::give_back`] returns it.
#[derive(Debug)]
pub struct Borrowed {
    lease: Lease,
    connection: Box<Connection>,
    worker: usize,
    waited: Duration,
}

impl Lease {
    /// Of a connection, or of a place where one may be opened, that has been counted already.
    pub(super) fn new(pool: &Arc<Pool>, connection: Option<Box<Connection>>) -> Self {
        pool.node.acquired();
        let stake = match connection {
            Some(_) => Stake::Open,
            None => Stake::Opening,
        };
        Self {
            pool: Arc::clone(pool),
            connection,
            stake,
        }
    }

    /// Of a connection that has been at rest.
    pub(super) fn of_open(pool: &Arc<Pool>) -> Self {
        let mut lease = Self::new(pool, None);
        lease.stake = Stake::Open;
        lease
    }

    /// Its connection has been made.
    pub(super) fn opened(&mut self) {
        if self.stake == Stake::Opening {
            self.stake = Stake::Open;
            self.pool.note_opened();
        }
    }

    pub(super) fn borrowed(
        self,
        connection: Box<Connection>,
        worker: usize,
        client: u64,
        waited: Duration,
    ) -> Borrowed {
        if let Some(entry) = &connection.entry {
            entry.set_client(client);
        }
        Borrowed {
            lease: self,
            connection,
            worker,
            waited,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.node.released();
        if self.stake == Stake::Nothing {
            return;
        }
        // The connection, if any, closes; the right to open another goes to the next waiter.
        self.connection = None;
        let pool = &self.pool;
        let mut state = pool.lock();
        if self.stake == Stake::Opening {
            state.opening -= 1;
        }
        pool.forget(&mut state, 1);
        let next = match pool.shares_with_starved(&state) {
            true => None,
            false => pool.next_lease(&mut state, 0),
        };
        drop(state);
        match next {
            Some((waiter, lease)) => waiter.place.settle(Ok(lease)),
            None => pool.serve_starved(),
        }
    }
}

impl Borrowed {
    /// How long the session waited for it in the pool's queue.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// The node this connection leads to.
    pub fn node(&self) -> &Arc<Node> {
        &self.lease.pool.node
    }

    /// Returns the connection to its pool if it is clean; closes it otherwise.
    pub fn give_back(self) {
        let Self {
            mut lease,
            connection,
            worker,
            ..
        } = self;
        let is_over = lease.pool.is_retired() || lease.pool.is_replaced(&connection);
        if !connection.is_reusable() || is_over || lease.pool.owes_others() {
            return;
        }
        if let Some(entry) = &connection.entry {
            entry.set_client(0);
        }
        let mut state = lease.pool.lock();
        if let Some(waiter) = state.waiters.pop_front() {
            drop(state);
            lease.connection = Some(connection);
            waiter.place.settle(Ok(lease));
            return;
        }
        // One of the reserve goes when nobody waits any more, and no pool that is retired now keeps one.
        if state.open > lease.pool.limits.size || lease.pool.is_retired() {
            return;
        }
        state.idle.push(Idle {
            connection,
            worker,
            since: lease.pool.now(),
        });
        lease.stake = Stake::Nothing;
        drop(state);
        lease.pool.serve_starved();
    }
}

impl Deref for Borrowed {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}
