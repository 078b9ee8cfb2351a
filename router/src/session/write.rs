//! Statements that change rows of several shards: each shard changes its own, in one transaction.
//!
//! One shard after the other, in their order: two such statements that want the same rows then wait for each other on the first shard
//! where they meet, as they would on one server, and never crosswise. What the shards return is appended; their counts are added.

use switchyard_schema::ShardIndex;
use switchyard_wire::backend::encode;

use super::Session;
use super::route::Routed;
use super::simple::{Ready, Sent};
use crate::backend::{CommandTag, Reply, Show};
use crate::execute::block::{Block, FailedOn};
use crate::execute::failure::Failure;
use crate::execute::participants::Need;
use crate::execute::relay::{Trouble, exchange};
use crate::plan::Plan;

/// What the shards that have run a statement say of it together.
#[derive(Debug, Default)]
pub(super) struct Written {
    tag: CommandTag,
    rows: u64,
}

impl Written {
    /// Adds what one more shard says.
    pub(super) fn add(&mut self, tag: CommandTag) {
        self.rows += tag.rows();
        self.tag = tag;
    }

    /// The tag that one server would have said.
    pub(super) fn tag(&self) -> String {
        self.tag.with_rows(self.rows)
    }
}

impl Session {
    /// Runs a statement of the simple protocol on each of its shards. An error on one fails it on all.
    pub(super) async fn write_parts(
        &mut self,
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let plan = &*routed.plan;
        let implicit = self.block.is_none();
        if implicit {
            self.block = Some(Block::implicit(&self.settings));
        }
        let need = self.need(plan.access, routed.hint);
        let mut written = Written::default();
        for (position, shard) in routed.shards.iter().enumerate() {
            let Some(tag) = self
                .write_part(plan, (shard, need), sent.message, position == 0)
                .await?
            else {
                // The error has been shown.
                if implicit {
                    self.abort_implicit().await?;
                }
                return Ok(Ready::ToBeSaid);
            };
            written.add(tag);
        }
        if implicit {
            self.commit_implicit().await?;
        }
        encode::command_complete(&mut self.client.output, written.tag().as_bytes());
        Ok(Ready::ToBeSaid)
    }

    /// Runs it on one shard: what that says at the end; `None` after an error.
    async fn write_part(
        &mut self,
        plan: &Plan,
        (shard, need): (ShardIndex, Need),
        message: &[u8],
        describe: bool,
    ) -> Result<Option<CommandTag>, Trouble> {
        let index = self.join(shard, need).await?;
        let (client, participant, described) = self.exchanging(index)?;
        participant.note_run(plan);
        participant.connection.unnamed = None;
        let reply = Reply::Part {
            describe,
            ready: true,
        };
        participant.connection.replies.expect(reply, Show::All);
        let failed = match exchange(client, participant, message, described).await {
            Ok(failed) => failed,
            Err(Trouble::Lost) => return Err(self.lose(index, plan)),
            Err(other) => return Err(other),
        };
        let tag = participant.connection.replies.last_tag();
        if let Some(after) = self.note_statement(index, plan) {
            // A backend has ended the block by itself.
            self.after_statement(after).await?;
            return Err(Failure::Retry.into());
        }
        if failed && let Some(block) = &mut self.block {
            block.failed.get_or_insert(FailedOn::Shard(shard));
        }
        Ok((!failed).then_some(tag))
    }
}
