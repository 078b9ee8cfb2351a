//! The end of a batch, and the backend its messages are queued for.

use switchyard_schema::ShardIndex;
use switchyard_wire::backend::TransactionStatus;
use switchyard_wire::frontend;

use crate::backend::{Reply, Show};
use crate::execute::block::{Block, FailedOn};
use crate::execute::client::Client;
use crate::execute::failure::Failure;
use crate::execute::participant::Participant;
use crate::execute::participants::Need;
use crate::execute::relay::{Trouble, exchange};
use crate::session::statement::SessionStatement;
use crate::session::{Described, Session};

use super::{NO_PORTAL, lossy};

impl Session {
    /// Handles a Sync.
    pub(super) async fn end_of_batch(&mut self) -> Result<(), Trouble> {
        if self.notifies && self.block.is_none() {
            Box::pin(self.call_by_its_number()).await;
        }
        let outcome = match self.alone() {
            Some(only) => self.sync_alone(only).await,
            None => Box::pin(self.sync()).await,
        };
        match outcome {
            Err(trouble @ (Trouble::Failure(_) | Trouble::Told)) => {
                Box::pin(self.sync_after_failure(trouble)).await
            }
            other => other,
        }
    }

    /// The one participant that the batch touched, where its ReadyForQuery is the client's. Who has been told that the schema has changed may
    /// have others go by that: the router has to know of it before.
    fn alone(&self) -> Option<usize> {
        let batch = &self.batch;
        if batch.unsent.is_some()
            || batch.failed_here
            || batch.schema_changed
            || self.hears_at_end()
            || self.block.as_ref().is_some_and(|block| !block.explicit)
        {
            return None;
        }
        let mut touched = (0..self.participants.len()).filter(|index| {
            let participant = self.participants.get(*index);
            participant.is_some_and(|participant| participant.needs_sync)
        });
        let only = touched.next()?;
        touched.next().is_none().then_some(only)
    }

    async fn sync_alone(&mut self, only: usize) -> Result<(), Trouble> {
        let before = self.queue_sync(only, Show::All)?;
        let outcome = {
            let (client, participant, described) = self.exchanging(only)?;
            exchange(client, participant, &[], described).await
        };
        let failed = self.exchanged(only, outcome)?;
        if !self.synced(only, before, failed) {
            return Box::pin(self.await_another_sync()).await;
        }
        self.end_batch();
        self.finish().await
    }

    /// Ends the batch.
    async fn sync(&mut self) -> Result<(), Trouble> {
        if !self.batch.skipping {
            self.send_unsent().await?;
        }
        if self.block.as_ref().is_some_and(|block| !block.explicit) {
            self.sync_hidden().await?;
            // A shard may have told of an error only now.
            if self.batch.skipping || self.block_has_failed() {
                self.abort_implicit().await?;
            } else {
                self.commit_implicit_in_batch().await?;
            }
            return self.batch_ready().await;
        }
        if let Some(only) = self.alone() {
            return self.sync_alone(only).await;
        }
        // An error on one participant must be known before another one commits.
        if !self.batch.skipping {
            self.settle().await?;
        }
        if self.sync_hidden().await? {
            return self.batch_ready().await;
        }
        self.await_another_sync().await
    }

    /// A Sync met an error: the batch has failed with it, and still ends here. Each further error takes a participant
    /// out, so this ends.
    async fn sync_after_failure(&mut self, trouble: Trouble) -> Result<(), Trouble> {
        self.batch_trouble(trouble).await?;
        for _ in 0..=self.participants.len() {
            match self.sync().await {
                Err(trouble @ (Trouble::Failure(_) | Trouble::Told)) => {
                    self.batch_trouble(trouble).await?;
                }
                other => return other,
            }
        }
        self.batch_ready().await
    }

    /// The backend was in COPY and ignored the Sync: the client sends another.
    async fn await_another_sync(&mut self) -> Result<(), Trouble> {
        self.client
            .flush()
            .await
            .map_err(crate::execute::relay::client_gone)
    }

    async fn batch_ready(&mut self) -> Result<(), Trouble> {
        if self.end_batch() {
            self.schema_changed().await;
        }
        self.ready().await
    }

    /// Nothing has happened since the last Sync any more. True if the schema has changed.
    fn end_batch(&mut self) -> bool {
        let batch = std::mem::take(&mut self.batch);
        if let Some(began) = batch.began {
            self.count_time(began);
        }
        self.described.0.clear();
        if self.block.is_none() {
            self.portals.clear();
        }
        batch.schema_changed
    }

    /// A Sync for every backend that the batch touched, whose ReadyForQuery nobody sees.
    /// True when all have said it.
    pub(super) async fn sync_hidden(&mut self) -> Result<bool, Trouble> {
        let writer = self.batch.writer;
        let next = |session: &Self| {
            let waiting = session.participants.needing_sync();
            // The one that has written commits last: by then nothing else can fail.
            let wrote = |index: &usize| {
                let held = session.participants.get(*index);
                held.is_some_and(|held| Some(held.shard) == writer && held.is_primary)
            };
            let reader = waiting.iter().copied().find(|index| !wrote(index));
            reader.or(waiting.first().copied())
        };
        while let Some(index) = next(self) {
            if !self.sync_one(index, Show::Nothing).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// True when ReadyForQuery has come.
    async fn sync_one(&mut self, index: usize, show: Show) -> Result<bool, Trouble> {
        let before = self.queue_sync(index, show)?;
        let failed = self.exchange(index).await?;
        Ok(self.synced(index, before, failed))
    }

    /// Queues a Sync. Returns how many have been answered before.
    fn queue_sync(&mut self, index: usize, show: Show) -> Result<u32, Failure> {
        self.asks_still(index)?;
        let abort = self.batch.skipping && self.block.is_none();
        let participant = self.participants.at(index)?;
        let connection = &mut *participant.connection;
        // One that has met an error ignores what comes before the Sync.
        let abort = abort && !connection.replies.is_skipping();
        if abort {
            frontend::encode::execute(&mut connection.output, NO_PORTAL, 0);
            connection.replies.expect(Reply::Execute, Show::Nothing);
        }
        frontend::encode::sync(&mut connection.output);
        connection.replies.expect(Reply::Sync, show);
        participant.needs_sync = false;
        Ok(connection.replies.syncs())
    }

    /// Takes note of the answer to a Sync. True if it was a ReadyForQuery: a backend that waits for COPY data ignores a Sync, and what was
    /// queued before it may have had a ReadyForQuery of its own.
    fn synced(&mut self, index: usize, before: u32, failed: bool) -> bool {
        if failed {
            self.forget_unparsed(index);
        }
        let Some(participant) = self.participants.get_mut(index) else {
            return true;
        };
        let (shard, status) = (participant.shard, participant.status());
        let ready = participant.connection.replies.syncs() != before;
        participant.needs_sync = !ready;
        if ready {
            self.note_status(index, shard, status);
        }
        ready
    }

    fn note_status(&mut self, index: usize, shard: ShardIndex, status: TransactionStatus) {
        match (&mut self.block, status) {
            (Some(block), TransactionStatus::Failed) => {
                block.failed.get_or_insert(FailedOn::Shard(shard));
            }
            (None, TransactionStatus::InBlock | TransactionStatus::Failed) => {
                let mut block = Block::explicit("BEGIN", false, &self.settings);
                block.failed =
                    (status == TransactionStatus::Failed).then_some(FailedOn::Shard(shard));
                self.block = Some(block);
                if let Some(participant) = self.participants.get_mut(index) {
                    participant.in_block = true;
                }
            }
            _ => {}
        }
    }

    /// A simple query came before the Sync of a batch that has written: in PostgreSQL it would commit or fail together with
    /// what the batch has done.
    pub(in crate::session) async fn refuse_query_in_batch(&mut self) -> Result<(), Trouble> {
        let failure = Failure::Unsupported {
            what: "a simple query between a write by the extended query protocol and its Sync"
                .into(),
            hint: "Send Sync first, or begin a transaction block.",
        };
        self.fail_batch(&failure).await?;
        self.sync_hidden().await?;
        self.batch_ready().await
    }

    /// A simple query came before the Sync of a batch that has only read: the batch ends first.
    pub(in crate::session) async fn close_batch(&mut self) -> Result<(), Trouble> {
        self.sync_hidden().await?;
        if self.end_batch() {
            self.schema_changed().await;
        }
        Ok(())
    }

    /// Gives back what nothing needs before the next message, where that can be: who waits for a connection and keeps
    /// others could wait for one who waits for those.
    pub(in crate::session) async fn let_go(&mut self) -> Result<(), Trouble> {
        if self.block.is_some()
            || self.batch.has_written()
            || self.portals.values().next().is_some()
        {
            return Ok(());
        }
        self.settle().await?;
        self.sync_hidden().await?;
        self.batch.parsed.clear();
        self.batch.active = None;
        self.release().await;
        Ok(())
    }

    /// Commits what a broadcast in this batch did; an error is shown in front of ReadyForQuery.
    async fn commit_implicit_in_batch(&mut self) -> Result<(), Trouble> {
        match self.commit_implicit().await {
            Ok(()) | Err(Trouble::Told) => Ok(()),
            Err(Trouble::Failure(failure)) => {
                self.report(&failure);
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    /// Makes the backend for `shard` the active one where nothing has to be waited for.
    pub(super) fn activate_now(&mut self, shard: ShardIndex, need: Need) -> Option<usize> {
        if self.batch.active.is_some()
            && self.batch.active != self.participants.position(shard, need)
        {
            return None;
        }
        let index = self.join_now(shard, need)?;
        self.batch.active = Some(index);
        Some(index)
    }

    /// Makes the backend for `shard` the active one.
    pub(super) async fn activate(
        &mut self,
        shard: ShardIndex,
        need: Need,
    ) -> Result<usize, Trouble> {
        let held = self.participants.position(shard, need);
        if self.batch.active.is_some() && self.batch.active != held {
            self.settle().await?;
        }
        let index = self.join(shard, need).await?;
        self.batch.active = Some(index);
        Ok(index)
    }

    /// Makes some backend the active one that can analyse a statement: in a failed block the one that refuses it.
    pub(super) async fn activate_any(
        &mut self,
        prepared: &SessionStatement,
    ) -> Result<usize, Trouble> {
        let failed = self.block.as_ref().and_then(|block| block.failed);
        let active = self
            .batch
            .active
            .and_then(|active| self.participants.get(active));
        let shard = match (failed, active) {
            (Some(FailedOn::Router), _) => return Err(Failure::InFailedTransaction.into()),
            (Some(FailedOn::Shard(shard)), _) => shard,
            (None, Some(active)) => active.shard,
            (None, None) => self.any_shard(),
        };
        let need = self.need(prepared.plan.access, prepared.hint);
        self.activate(shard, need).await
    }

    /// The backend on which a portal is bound.
    pub(super) async fn activate_held(
        &mut self,
        shard: ShardIndex,
        portal: &[u8],
    ) -> Result<usize, Trouble> {
        let bound = self.portals.get(portal);
        let held = match bound.and_then(|portal| portal.is_on_primary(shard)) {
            Some(is_primary) => self.participants.position_of(shard, is_primary),
            // A cursor declared by SQL.
            None => self.participants.position(shard, Need::Replica),
        };
        let index = held.ok_or_else(|| Failure::NoSuchPortal(lossy(portal)))?;
        if self.batch.active.is_some() && self.batch.active != held {
            self.settle().await?;
        }
        self.batch.active = held;
        Ok(index)
    }

    /// Gets all replies the active backend owes, without ending the batch.
    pub(super) async fn settle(&mut self) -> Result<(), Trouble> {
        let Some(active) = self.batch.active else {
            return Ok(());
        };
        let Some(participant) = self.participants.get_mut(active) else {
            self.batch.active = None;
            return Ok(());
        };
        if participant.connection.replies.is_settled() && participant.connection.output.is_empty() {
            return Ok(());
        }
        frontend::encode::flush(&mut participant.connection.output);
        self.asks_still(active)?;
        if self.exchange(active).await? {
            self.forget_unparsed(active);
            return Err(Trouble::Told);
        }
        Ok(())
    }

    /// What has been queued since before the client was waited for is sent only if rows are where it was planned for; else it is dropped, with the
    /// connection that it was for.
    fn asks_still(&mut self, index: usize) -> Result<(), Failure> {
        let held = self.participants.at(index)?;
        if !self.batch.waited || held.connection.output.is_empty() {
            return Ok(());
        }
        self.asks(index).inspect_err(|_| {
            self.participants.close(&self.database, index);
            self.batch.active = None;
            for name in self.batch.parsed.drain(..).chain(self.batch.unsent.take()) {
                self.statements.remove(&name);
            }
        })
    }

    /// An error happened on a participant: the statements whose Parse did not take place do not exist.
    pub(in crate::session) fn forget_unparsed(&mut self, index: usize) {
        let Some(participant) = self.participants.get(index) else {
            return;
        };
        let kept = self.batch.parsed.len().saturating_sub(participant.unparsed);
        let unsent = self.batch.unsent.take();
        for name in self.batch.parsed.drain(kept..).chain(unsent) {
            self.statements.remove(&name);
        }
    }

    /// Sends what is queued for a participant and relays its replies. True if an error was among them.
    pub(in crate::session) async fn exchange(&mut self, index: usize) -> Result<bool, Trouble> {
        let (client, participant, described) = self.exchanging(index)?;
        let outcome = exchange(client, participant, &[], described).await;
        self.exchanged(index, outcome)
    }

    /// Who takes part in an exchange of bytes.
    pub(in crate::session) fn exchanging(
        &mut self,
        index: usize,
    ) -> Result<(&mut Client, &mut Participant, &mut Described), Failure> {
        let participant = self.participants.at(index)?;
        Ok((&mut self.client, participant, &mut self.described))
    }

    /// What came of an exchange in a batch.
    fn exchanged(&mut self, index: usize, outcome: Result<bool, Trouble>) -> Result<bool, Trouble> {
        let Some(participant) = self.participants.get(index) else {
            return outcome;
        };
        match outcome {
            Ok(true) => {
                if let Some(block) = &mut self.block {
                    block
                        .failed
                        .get_or_insert(FailedOn::Shard(participant.shard));
                }
                Ok(true)
            }
            Err(Trouble::Lost) => {
                let shard = (&*participant.shard_name).into();
                let failure = match (&self.block, participant.changed) {
                    (None, true) => Failure::OutcomeUnknown { shard },
                    _ => Failure::ShardLost { shard },
                };
                self.participants.close(&self.database, index);
                self.batch.active = None;
                Err(failure.into())
            }
            other => other,
        }
    }
}
