//! Connections for workspaces, which are apart from what takes part in the client's transaction.

use std::sync::Arc;
use std::task::{Context, Poll};

use switchyard_schema::ShardIndex;

use super::{Borrower, Participants, checkout_failure};
use crate::backend::{Borrowed, CheckoutError, Pool, Purpose};
use crate::execute::client::Client;
use crate::execute::failure::Failure;
use crate::execute::participant::Participant;
use crate::startup::cancel::{CancelReason, CancelSlot};
use crate::topology::{Choice, DatabaseTopology, Shard};

impl Participants {
    /// A connection to the primary of a shard for a workspace, apart from those that take part in what the client does. One who
    /// leaves meanwhile waits no longer.
    pub(crate) async fn borrow_workspace(
        &self,
        database: &DatabaseTopology,
        index: ShardIndex,
        waiting: &mut Client,
    ) -> Result<Participant, Failure> {
        let (shard, pool) = self.workspaces_of(database, index)?;
        let slot = &self.borrower.slot;
        let known = slot.requests();
        let cancelled = |context: &mut Context<'_>| match waiting.poll_gone(context) {
            Poll::Ready(()) => Poll::Ready(CancelReason::Request),
            Poll::Pending => slot.poll_requested_since(known, context),
        };
        let connection = match self.borrower.check_out(&pool, cancelled).await {
            Ok(connection) => connection,
            Err(CheckoutError::Timeout) => {
                let limit = pool.usage().size;
                return Err(Failure::WorkspacesBusy { limit });
            }
            Err(error) => return Err(checkout_failure(&shard.name, &error)),
        };
        Ok(workspace(database, index, shard, slot, connection))
    }

    /// The same, where one is idle.
    pub(crate) fn borrow_workspace_now(
        &self,
        database: &DatabaseTopology,
        index: ShardIndex,
    ) -> Result<Option<Participant>, Failure> {
        let (shard, pool) = self.workspaces_of(database, index)?;
        let Borrower {
            worker,
            client,
            slot,
            ..
        } = &self.borrower;
        let Some(connection) = pool.check_out_idle(worker.index, *client) else {
            return Ok(None);
        };
        Ok(Some(workspace(database, index, shard, slot, connection)))
    }

    /// A shard, and the pool of its primary's workspaces.
    fn workspaces_of<'a>(
        &self,
        database: &'a DatabaseTopology,
        index: ShardIndex,
    ) -> Result<(&'a Shard, Arc<Pool>), Failure> {
        let shard = database
            .shards
            .get(index.position())
            .ok_or(Failure::Retry)?;
        let choice = shard
            .writer()
            .map(Choice::primary)
            .map_err(|_| Failure::ShardDown {
                shard: (&*shard.name).into(),
            })?;
        let purpose = Purpose::Workspaces;
        let pool = self.borrower.pool(database, shard, choice.node, purpose)?;
        Ok((shard, pool))
    }

    /// Gives back a workspace's connection, or closes it if it is of no further use.
    pub(crate) async fn give_back_workspace(&self, workspace: Participant) {
        let mut connection = workspace.connection;
        self.borrower.slot.withdraw(&connection.target);
        connection.broken |= !connection.target.settled().await;
        connection.give_back();
    }
}

/// A connection that has been borrowed for a workspace.
fn workspace(
    database: &DatabaseTopology,
    index: ShardIndex,
    shard: &Shard,
    slot: &CancelSlot,
    mut connection: Borrowed,
) -> Participant {
    slot.publish(&connection.target);
    connection.renumber_by(database.oids.of(index));
    Participant::new(index, &shard.name, true, connection)
}
