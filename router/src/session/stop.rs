//! Ending what shards and a workspace still do for a statement that has failed.
//!
//! It is cancelled, and the shards' answers are read to their ends, for their connections are good. One that takes too long is
//! closed.

use std::time::Duration;

use bytes::Buf;
use tokio::time::timeout;

use super::Session;
use crate::backend::Show;
use crate::execute::block::FailedOn;
use crate::execute::messages::{Said, next};
use crate::execute::relay::Trouble;
use crate::execute::workspace::Workspace;
use crate::startup::cancel::CancelReason;

/// So long shards may take to end by themselves, in milliseconds: mostly they all fail at the same time.
const AT_ONCE: u64 = 10;
/// So long they may take to heed one cancel request after the other, in milliseconds: one that comes before a backend has
/// begun with its statement is not heeded.
const PATIENCE: [u64; 4] = [50, 150, 300, 500];
/// So long the nodes may take to hear of one.
const CANCEL_LIMIT: Duration = Duration::from_secs(1);

impl Session {
    /// A cancel request that came before the shards began has found none of them at work.
    pub(super) async fn cancel_again(&mut self, known: u64) {
        if let Some(reason) = self.cancel.slot().requested_since(known) {
            self.cancel.slot().cancel(reason).await;
        }
    }

    /// The rows are of no use any more: what shards still do for them is cancelled, and their answers are read to their
    /// ends, for their connections are good. One that takes too long is marked as broken, as those that are lost are.
    pub(super) async fn give_up(&mut self, indexes: &[usize]) -> Result<(), Trouble> {
        for held in indexes.iter().filter_map(|at| self.participants.get(*at)) {
            if held.connection.broken {
                self.cancel.slot().withdraw(&held.connection.target);
            }
        }
        let at_once = Duration::from_millis(AT_ONCE);
        let mut drained = timeout(at_once, self.drain(indexes)).await;
        for patience in PATIENCE.map(Duration::from_millis) {
            if drained.is_err() {
                self.cancel_statement().await;
                drained = timeout(patience, self.drain(indexes)).await;
            }
        }
        if let Ok(drained) = drained {
            drained?;
        }
        for index in indexes {
            if let Some(held) = self.participants.get_mut(*index) {
                held.connection.broken |= !held.connection.replies.is_settled();
            }
        }
        self.hear_cancels().await;
        Ok(())
    }

    /// Waits until no cancel request is on its way to a backend that goes on with the session: it would meet the next statement there.
    pub(super) async fn hear_cancels(&mut self) {
        for held in self.participants.iter_mut() {
            let connection = &mut held.connection;
            if !connection.broken && !connection.target.is_settled() {
                let settled = timeout(CANCEL_LIMIT, connection.target.settled()).await;
                connection.broken |= settled != Ok(true);
            }
        }
    }

    /// What was to be made of rows of several shards has failed, in this workspace if it was to be made in one.
    pub(super) async fn abandon_rows(&mut self, workspace: Option<&mut Workspace>) {
        self.stop(workspace).await;
        self.note_abandoned();
    }

    /// Tells the client what has failed on a shard.
    pub(super) fn failed_in_part(&mut self, said: &[u8]) -> Trouble {
        self.client.output.extend_from_slice(said);
        self.note_abandoned();
        Trouble::Told
    }

    /// A statement over rows of several shards has failed.
    pub(super) fn note_abandoned(&mut self) {
        self.batch.fail_elsewhere();
        if let Some(block) = &mut self.block {
            block.failed.get_or_insert(FailedOn::Router);
        }
    }

    /// What shards and the workspace still do is of no use any more: it is cancelled, and their ends are awaited, as long as it takes
    /// until they heed it. The shards' connections are good; one that takes too long is closed, and that of a workspace that worked.
    pub(super) async fn stop(&mut self, workspace: Option<&mut Workspace>) {
        let mut working = None;
        if let Some(workspace) = workspace {
            if workspace.is_lost() {
                let slot = self.cancel.slot();
                slot.withdraw(&workspace.backend.connection.target);
            } else if !workspace.is_at_rest() {
                working = Some(workspace);
            }
        }
        if working.is_some() || self.participants.iter().any(|held| held.unread) {
            let before = self.client.ignore();
            for patience in PATIENCE.map(Duration::from_millis) {
                self.cancel_statement().await;
                let dropped = timeout(patience, self.drop_answers(working.as_deref_mut()));
                if dropped.await.is_ok() {
                    break;
                }
            }
            self.client.heed(before);
        }
        if let Some(workspace) = working {
            workspace.backend.connection.broken = true;
        }
        for held in self.participants.iter_mut() {
            held.connection.broken |= std::mem::take(&mut held.unread);
        }
        self.hear_cancels().await;
        self.participants.close_broken(&self.database);
    }

    /// Cancels what still works for a statement that has failed.
    pub(super) async fn cancel_statement(&mut self) {
        self.again.own_cancels += 1;
        let cancelled = self.cancel.slot().cancel(CancelReason::Request);
        if timeout(CANCEL_LIMIT, cancelled).await.is_err() {
            tracing::debug!("a node takes too long for a cancel request");
        }
    }

    async fn drop_answers(&mut self, workspace: Option<&mut Workspace>) {
        self.drop_unread().await;
        if let Some(workspace) = workspace {
            let (client, notes) = (&mut self.client, &mut self.described);
            workspace.drop_answers(client, notes).await;
        }
    }

    /// Reads to their ends the answers that are of no use any more.
    pub(super) async fn drop_unread(&mut self) {
        for source in self.participants.iter_mut().filter(|held| held.unread) {
            loop {
                match next(&mut self.client, source, Show::Nothing).await {
                    Ok(Said::Message(header)) => source.connection.input.advance(header.len),
                    Ok(Said::Error) => {}
                    Ok(Said::Ready) => {
                        source.unread = false;
                        break;
                    }
                    Err(_) => break,
                }
            }
        }
    }
}
