//! Statements that change rows of several shards: each shard changes its own, in one transaction.
//!
//! One shard after the other, in their order: two such statements that want the same rows then wait for each other on the first shard
//! where they meet, as they would on one server, and never crosswise. What the shards return is appended; their counts are added.

use bytes::BytesMut;
use switchyard_wire::frontend;

use super::Session;
use super::route::Routed;
use super::simple::{Ready, Sent};
use crate::backend::{CommandTag, Reply, Show};
use crate::execute::block::Block;
use crate::execute::failure::Failure;
use crate::execute::participants::Need;
use crate::execute::relay::{Trouble, exchange};
use crate::plan::Write;

/// What the shards that have run a statement say of it together.
#[derive(Debug)]
pub(super) struct Written {
    copies: bool,
    tag: Option<CommandTag>,
    rows: u64,
}

impl Written {
    /// Nothing so far.
    pub(super) fn of(write: &Write) -> Self {
        Self {
            copies: write.copies,
            tag: None,
            rows: 0,
        }
    }

    /// No shard has said anything yet.
    fn is_first(&self) -> bool {
        self.tag.is_none()
    }

    /// Of what the next shard says: of copies one is enough.
    pub(super) fn show(&self) -> Show {
        match self.copies && !self.is_first() {
            true => Show::Errors,
            false => Show::All,
        }
    }

    /// Adds what one more shard says, which has this name.
    pub(super) fn add(
        &mut self,
        tag: CommandTag,
        shard: impl FnOnce() -> Box<str>,
    ) -> Result<(), Failure> {
        match (self.copies, self.is_first()) {
            (true, false) if tag.rows() != self.rows => {
                return Err(Failure::CopiesDiffer { shard: shard() });
            }
            (true, false) => {}
            (_, true) | (false, _) => self.rows += tag.rows(),
        }
        self.tag = Some(tag);
        Ok(())
    }

    /// The tag that one server would have said.
    pub(super) fn tag(&self) -> String {
        let tag = self.tag.unwrap_or_default();
        tag.with_rows(self.rows)
    }
}

impl Session {
    /// Runs a statement of the simple protocol on each of its shards. An error on one fails it on all.
    pub(super) async fn write_parts(
        &mut self,
        write: &Write,
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let implicit = self.block.is_none();
        if implicit {
            self.block = Some(Block::implicit(&self.settings));
        }
        let changed = self.message_of_parts(write, routed, sent).await?;
        let message = changed.as_deref().unwrap_or(sent.message);
        let Some(tag) = self.write_each(write, routed, message).await? else {
            // The error has been shown.
            if implicit {
                self.abort_implicit().await?;
            }
            return Ok(Ready::ToBeSaid);
        };
        if implicit {
            self.commit_implicit().await?;
        }
        self.complete(&tag)
    }

    /// What the shards are sent, if it is not what the client has sent.
    async fn message_of_parts(
        &mut self,
        write: &Write,
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<Option<BytesMut>, Trouble> {
        let Some(first) = routed.shards.first().filter(|_| !write.moments.is_empty()) else {
            return Ok(None);
        };
        // Errors are to speak of places in the client's own text.
        if self.analyse(sent.sql()).await? {
            return Err(Trouble::Told);
        }
        let text = self
            .with_the_time(sent.sql(), &write.moments, first)
            .await?;
        let mut message = BytesMut::new();
        frontend::encode::query(&mut message, &text);
        Ok(Some(message))
    }

    /// Runs it on one shard after the other: the tag of it all; `None` after an error.
    async fn write_each(
        &mut self,
        write: &Write,
        routed: &Routed,
        message: &[u8],
    ) -> Result<Option<String>, Trouble> {
        let plan = &*routed.plan;
        let mut written = Written::of(write);
        for shard in routed.shards.iter() {
            let index = self.join(shard, Need::Primary).await?;
            let (client, participant, described) = self.exchanging(index)?;
            participant.note_run(plan);
            participant.connection.unnamed = None;
            let reply = Reply::Part {
                describe: written.is_first(),
                ready: true,
            };
            let show = written.show();
            participant.connection.replies.expect(reply, show);
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
            if failed {
                return Ok(None);
            }
            written.add(tag, || self.shard_name(shard))?;
        }
        Ok(Some(written.tag()))
    }
}
