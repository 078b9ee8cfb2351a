//! Statements that change rows of several shards: each shard changes its own, in one transaction.
//!
//! One shard after the other, in their order: two such statements that want the same rows then wait for each other on the first shard
//! where they meet, as they would on one server, and never crosswise. What the shards return is appended; their counts are added.

pub(super) mod ahead;
mod copy_in;
mod copying;
mod execute_write;
mod given_values;
pub(super) mod insert;
mod insert_query;
pub(super) mod moving;
pub(super) mod steps;
mod stepwise;
mod transcode;
pub(super) mod unique;

use bytes::{Bytes, BytesMut};
use switchyard_schema::{ShardIndex, ShardSet};
use switchyard_wire::Format;
use switchyard_wire::frontend;

use crate::backend::{CommandTag, Reply, Show};
use crate::execute::arrays::{MOST_BYTES, MOST_ROWS};
use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::participants::Need;
use crate::execute::relay::{Trouble, exchange};
use crate::plan::given::Given;
use crate::plan::{Plan, Target, Write};
use crate::session::Session;
use crate::session::route::Routed;
use crate::session::simple::{Ready, Sent};
use crate::session::workspace::fetch::Asked;
use crate::session::workspace::few_rows::FewRows;

/// What the shards that have run a statement say of it together.
#[derive(Debug)]
pub(in crate::session) struct Written {
    copies: bool,
    tag: Option<CommandTag>,
    rows: u64,
}

impl Written {
    /// Nothing so far.
    pub(in crate::session) fn of(write: &Write) -> Self {
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
    pub(in crate::session) fn show(&self) -> Show {
        match self.copies && !self.is_first() {
            true => Show::Errors,
            false => Show::All,
        }
    }

    /// Adds what one more shard says, which has this name.
    pub(in crate::session) fn add(
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
    pub(in crate::session) fn tag(&self) -> String {
        let tag = self.tag.unwrap_or_default();
        tag.with_rows(self.rows)
    }
}

impl Session {
    /// Runs a statement of the simple protocol on each of its shards. An error on one fails it on all.
    pub(in crate::session) async fn write_parts(
        &mut self,
        write: &Write,
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let implicit = self.begin_implicit();
        let changed = self.messages_of_parts(write, routed, sent).await?;
        self.write_and_tell(write, routed, sent, (changed, implicit))
            .await
    }

    /// Sends each shard its part, or what the client has sent, and ends the implicit block that there is.
    pub(in crate::session) async fn write_and_tell(
        &mut self,
        write: &Write,
        routed: &Routed,
        sent: Sent<'_>,
        (changed, implicit): (Option<Vec<BytesMut>>, bool),
    ) -> Result<Ready, Trouble> {
        let Some(tag) = self.write_each(write, routed, sent, changed).await? else {
            // The error has been shown.
            if implicit {
                self.abort_implicit().await?;
            }
            return Ok(Ready::ToBeSaid);
        };
        self.keep_unique(&routed.plan).await?;
        if implicit {
            self.commit_implicit().await?;
        }
        self.complete(&tag)
    }

    /// What each shard is sent, if it is not what the client has sent.
    async fn messages_of_parts(
        &mut self,
        write: &Write,
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<Option<Vec<BytesMut>>, Trouble> {
        if self.goes_as_it_is(write) {
            return Ok(None);
        }
        // Errors are to speak of places in the client's own text, and columns of its tables.
        let description = self.describe_if_any(sent.sql()).await?;
        let mut asked = Asked {
            sql: sent.sql(),
            params: None,
            given: GivenRows::default(),
            need: Need::Primary,
            cancels: self.cancel.slot().requests(),
        };
        let text = self
            .changed_text(&routed.plan, write, &routed.shards, &mut asked)
            .await?;
        let message = |shard| {
            let mut message = BytesMut::new();
            match write.is_plain() {
                true => frontend::encode::query(&mut message, &text),
                false => asked.encode_for(shard, &mut message, &text, &[Format::Text]),
            }
            message
        };
        let output = &mut self.client.output;
        output.extend_from_slice(description.as_deref().unwrap_or_default());
        Ok(Some(routed.shards.iter().map(message).collect()))
    }

    /// Whether the shards are sent what the client has sent.
    pub(in crate::session) fn goes_as_it_is(&self, write: &Write) -> bool {
        write.moments.is_empty() && write.is_plain() && !self.gives_remembered(write)
    }

    /// The text that the shards are sent, where it is not the client's: with what the session remembers of sequences, or with the rest.
    pub(in crate::session) async fn changed_text(
        &mut self,
        plan: &Plan,
        write: &Write,
        shards: &ShardSet,
        asked: &mut Asked<'_>,
    ) -> Result<Vec<u8>, Trouble> {
        match self.gives_remembered(write) {
            true => Ok(self.with_remembered(asked.sql, plan)?),
            false => self.text_of_parts(write, shards, asked).await,
        }
    }

    /// The text that these shards are sent, with the time and the rows that it needs, which are then among what is `asked`.
    pub(in crate::session) async fn text_of_parts(
        &mut self,
        write: &Write,
        shards: &ShardSet,
        asked: &mut Asked<'_>,
    ) -> Result<Vec<u8>, Trouble> {
        let first = shards.first().unwrap_or(ShardIndex::FIRST);
        let clock = match write.asks_for_the_time() {
            true => Some(self.clock(first).await?),
            false => None,
        };
        let (mut ahead, mut arrays, mut divided) = (Vec::new(), Vec::new(), Vec::new());
        for query in &write.ahead {
            let computed = self
                .compute_ahead(query, clock.as_ref(), (asked, shards))
                .await;
            let computed = self.or_abandoned(computed).await?;
            let own = arrays.len()..arrays.len() + computed.arrays.len();
            divided.extend(computed.shards.map(|shards| (own, shards)));
            arrays.extend(computed.arrays.into_iter().map(Some));
            ahead.push(computed.given);
        }
        for (given, from) in &write.given {
            let fetched = self.rows_to_give(given, from, asked).await;
            let rows = self.or_abandoned(fetched).await?;
            arrays.extend(rows.into_iter().map(Some));
        }
        let first = (ahead.as_slice(), asked.parameters() + 1);
        let text = write.text(asked.sql, clock.as_ref(), first);
        asked.given = GivenRows::new(arrays);
        asked.given.divide(&divided, shards);
        Ok(text.ok_or(Failure::Retry)?)
    }

    /// All rows of a table, as arrays.
    async fn rows_to_give(
        &mut self,
        given: &Given,
        from: &Target,
        asked: &Asked<'_>,
    ) -> Result<Vec<Bytes>, Trouble> {
        let shards = match from {
            Target::AllShards => ShardSet::all(self.database.shards.len()),
            Target::AnyShard | Target::Shard(_) | Target::Keys(_) => {
                ShardSet::one(ShardIndex::FIRST)
            }
        };
        let query = given.query(MOST_ROWS.saturating_add(1));
        match self.few_rows(given, &shards, &query, asked).await? {
            FewRows::All(arrays) => Ok(arrays.finish()),
            FewRows::TooMany => Err(Failure::GivenLimit {
                what: format!("table \"{}\"", given.relation).into(),
                rows: MOST_ROWS,
                bytes: MOST_BYTES,
            }
            .into()),
            FewRows::OfOtherTypes => Err(Failure::Retry.into()),
            FewRows::Failed { .. } => Err(Trouble::Told),
        }
    }

    /// Runs it on one shard after the other: the tag of it all; `None` after an error.
    async fn write_each(
        &mut self,
        write: &Write,
        routed: &Routed,
        sent: Sent<'_>,
        changed: Option<Vec<BytesMut>>,
    ) -> Result<Option<String>, Trouble> {
        let plan = &*routed.plan;
        let describe = changed.is_none();
        let mut written = Written::of(write);
        for (at, shard) in routed.shards.iter().enumerate() {
            let changed = changed.as_ref().and_then(|messages| messages.get(at));
            let message = changed.map_or(sent.message, |message| message);
            let index = self.join(shard, Need::Primary).await?;
            self.prepare_state(index, plan)?;
            let (client, participant, described) = self.exchanging(index)?;
            participant.note_run(plan);
            participant.connection.unnamed = None;
            let reply = Reply::Part {
                describe: describe && written.is_first(),
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
