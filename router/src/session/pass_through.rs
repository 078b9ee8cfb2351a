//! One statement on one shard: the client's own message goes there, what comes back goes to the client, and note is taken of what that
//! has done to the connection and to the session.

use switchyard_schema::ShardIndex;
use switchyard_wire::backend::TransactionStatus;

use super::Session;
use super::route::Routed;
use super::simple::{Ready, Sent};
use crate::backend::Show;
use crate::execute::block::{Block, FailedOn};
use crate::execute::failure::Failure;
use crate::execute::relay::{Trouble, exchange};
use crate::plan::{Access, Command, Plan};
use crate::session::prepare::sql_prepared::Held;

/// How often a read whose connection was lost is run again.
pub(super) const READ_RETRIES: usize = 2;

/// What a statement has left to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// A backend has ended the block by itself: the others must end theirs.
    BlockEnded,
    /// It was DDL.
    SchemaChanged,
    /// Both.
    BlockEndedAndSchemaChanged,
}

impl Session {
    /// Sends the statement to one shard and its answer to the client.
    pub(super) async fn pass_through(
        &mut self,
        shard: ShardIndex,
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        self.pass_through_held(shard, routed, sent, None).await
    }

    /// The same of the EXECUTE of a statement, which the backend has to hold.
    pub(super) async fn pass_through_held(
        &mut self,
        shard: ShardIndex,
        routed: &Routed,
        sent: Sent<'_>,
        held: Option<Held<'_>>,
    ) -> Result<Ready, Trouble> {
        let plan = &*routed.plan;
        // Who has been told that the schema has changed may have others go by that: the router has to know of it before.
        let sent = Sent {
            alone: sent.alone && plan.command != Command::Ddl && !self.hears_at_end(),
            ..sent
        };
        if let Command::Declare { name, .. } = &plan.command {
            self.refuse_cursor_elsewhere(name.as_bytes(), shard)?;
        }
        let need = self.need(plan.access, routed.hint);
        // A read that was lost before the client saw any of it can be run again, each time on a connection that was
        // alive a moment ago.
        let may_retry = plan.access == Access::Read && self.block.is_none();
        let mut retries = if may_retry { READ_RETRIES } else { 0 };
        let answered = loop {
            let index = match self.join_now(shard, need) {
                Some(index) => index,
                None => Box::pin(self.join(shard, need)).await?,
            };
            self.asks_by(index, plan);
            if let Some(held) = held {
                Box::pin(self.hold(index, held)).await?;
            }
            if self.notifies && self.block.is_none() {
                Box::pin(self.call_by_its_number()).await;
            }
            self.expect_query(index, plan, sent)?;
            let (client, participant, described) = self.exchanging(index)?;
            let outcome = exchange(client, participant, sent.message, described).await;
            match self.answered(index, plan, outcome) {
                Err(Trouble::Lost)
                    if retries > 0
                        && !self.lost_shown
                        && self.participants.state_lost().is_none() =>
                {
                    retries -= 1;
                }
                answered => break answered,
            }
        };
        let ended = match answered {
            Ok(Some(after)) => Box::pin(self.after_statement(after)).await,
            other => other.map(|_| ()),
        };
        match ended {
            Ok(()) => Ok(sent.ready()),
            Err(trouble) => Err(self.lost(shard, plan, trouble)),
        }
    }

    /// Makes a participant ready for the client's query, which is sent next.
    pub(super) fn expect_query(
        &mut self,
        index: usize,
        plan: &Plan,
        sent: Sent<'_>,
    ) -> Result<(), Failure> {
        self.prepare_state(index, plan)?;
        let participant = self.participants.at(index)?;
        participant.expect_query(plan, sent.alone, Show::All);
        Ok(())
    }

    /// Takes note of the answer to a query. Returns what is still to be done.
    pub(super) fn answered(
        &mut self,
        index: usize,
        plan: &Plan,
        outcome: Result<bool, Trouble>,
    ) -> Result<Option<After>, Trouble> {
        if let Err(Trouble::Lost) = &outcome {
            let participant = self.participants.get(index);
            self.lost_shown = participant.is_some_and(|participant| participant.shown);
            self.participants.close(&self.database, index);
        }
        outcome?;
        Ok(self.note_statement(index, plan))
    }

    /// What a lost connection means for the statement it was lost under.
    pub(super) fn lost(&mut self, shard: ShardIndex, plan: &Plan, trouble: Trouble) -> Trouble {
        let Trouble::Lost = trouble else {
            return trouble;
        };
        let shard = self.shard_name(shard);
        let failure = match (plan.access, &self.block) {
            (Access::Write, None) => Failure::OutcomeUnknown { shard },
            _ => Failure::ShardLost { shard },
        };
        Trouble::Failure(failure)
    }

    /// Takes note of what a statement did to the backend that ran it and to the session. Returns what is still to be done.
    pub(super) fn note_statement(&mut self, index: usize, plan: &Plan) -> Option<After> {
        let participant = self.participants.get_mut(index)?;
        if plan.effects.dirty {
            participant.connection.dirty = true;
        }
        if !participant.failed {
            participant.note_pins(plan);
        }
        let (shard, status, failed) = (participant.shard, participant.status(), participant.failed);
        let mut after = None;
        match (&mut self.block, status) {
            (None, TransactionStatus::Idle) | (Some(_), TransactionStatus::InBlock) => {}
            (Some(block), TransactionStatus::Failed) => {
                block.failed.get_or_insert(FailedOn::Shard(shard));
            }
            // The backend opened a block by a statement we did not recognise as one.
            (None, TransactionStatus::InBlock | TransactionStatus::Failed) => {
                let mut block = Block::explicit("BEGIN", false, &self.settings);
                block.failed =
                    (status == TransactionStatus::Failed).then_some(FailedOn::Shard(shard));
                self.block = Some(block);
                participant.in_block = true;
            }
            // Or ended it.
            (Some(_), TransactionStatus::Idle) => {
                participant.in_block = false;
                after = Some(After::BlockEnded);
            }
        }
        if !failed {
            self.note_cursor(&plan.command, shard);
            self.note_temporary(plan);
        }
        if matches!(plan.command, Command::Ddl) && !failed {
            after = match after {
                Some(_) => Some(After::BlockEndedAndSchemaChanged),
                None => Some(After::SchemaChanged),
            };
        }
        after
    }

    /// Does what a statement has left to be done.
    pub(super) async fn after_statement(&mut self, after: After) -> Result<(), Trouble> {
        if after != After::SchemaChanged {
            self.rollback_participants().await?;
            self.block = None;
        }
        if after != After::BlockEnded {
            self.schema_changed().await;
        }
        Ok(())
    }
}
