//! A request that waits, as an operator has paused the database.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use super::Session;
use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;

impl Session {
    /// Whether the request that has come is to wait: what has begun before goes on.
    pub(super) fn is_held_up(&self) -> bool {
        self.gate.is_paused()
            && self.block.is_none()
            && self.batch.is_empty()
            && self.participants.len() == 0
            && self.workspaces.is_empty()
            && self.cursors_apart.is_empty()
    }

    /// Waits until the database is resumed, for `query_wait_timeout` at most: then the session ends, as it does with PgBouncer.
    pub(super) async fn await_resume(&mut self) -> Result<(), Trouble> {
        let limit = self
            .worker
            .services
            .settings
            .load()
            .file
            .router
            .timeouts
            .query_wait;
        let gate = Arc::clone(&self.gate);
        let _waiting = self.entry.waiting();
        let client = &mut self.client;
        let mut passing = pin!(tokio::time::timeout(limit, gate.pass()));
        poll_fn(|context| match passing.as_mut().poll(context) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(_)) => Poll::Ready(Err(Failure::Paused.into())),
            Poll::Pending => client.poll_gone(context).map(|()| Err(Trouble::Gone)),
        })
        .await
    }
}
