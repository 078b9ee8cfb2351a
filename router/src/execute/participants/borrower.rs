//! Who borrows connections.

use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::backend::{Borrowed, CheckoutError, Pool, PoolKey, Purpose, Turn};
use crate::execute::failure::Failure;
use crate::metrics::Counters;
use crate::startup::cancel::{CancelReason, CancelSlot};
use crate::topology::{Consistency, DatabaseTopology, Node, ReadPolicy, Shard};
use crate::worker::Worker;

/// Who borrows: what does not change during a session. What every borrowing needs comes first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Borrower {
    pub(crate) worker: Arc<Worker>,
    /// The client's number, for SHOW SERVERS.
    pub(crate) client: u64,
    /// Where cancel requests find what works for the client.
    pub(crate) slot: Arc<CancelSlot>,
    pub(crate) consistency: Consistency,
    pub(crate) policy: ReadPolicy,
    /// Session pooling: a primary that is borrowed stays until the client leaves.
    pub(crate) keep: bool,
    pub(crate) address: IpAddr,
    pub(crate) user: Arc<str>,
    pub(crate) counters: Arc<Counters>,
    /// Its place in the queue of a pool.
    pub(crate) turn: Arc<Turn>,
}

impl Borrower {
    /// The pool of a node, for what is to be done there.
    pub(super) fn pool(
        &self,
        database: &DatabaseTopology,
        shard: &Shard,
        node: &Arc<Node>,
        purpose: Purpose,
    ) -> Result<Arc<Pool>, Failure> {
        let key = PoolKey {
            node: node.id,
            database: Arc::clone(&database.name),
            user: Arc::clone(&self.user),
            purpose,
        };
        self.worker.services.pool(key, node).map_err(|error| {
            tracing::error!(%error, shard = %shard.name, "TLS to a node cannot be used");
            Failure::ShardDown {
                shard: (&*shard.name).into(),
            }
        })
    }

    /// A connection of a pool. How long it was waited for is counted.
    pub(super) async fn check_out(
        &self,
        pool: &Arc<Pool>,
        cancelled: impl FnMut(&mut Context<'_>) -> Poll<CancelReason>,
    ) -> Result<Borrowed, CheckoutError> {
        let lent = pool.check_out(self.worker.index, self.client, &self.turn, cancelled);
        let connection = lent.await?;
        if !connection.waited().is_zero() {
            self.counters.wait_time(connection.waited());
        }
        Ok(connection)
    }
}
