//! What time it is, for statements that several shards run: it is one value, which one of them says.

use std::borrow::Cow;

use switchyard_schema::ShardIndex;
use switchyard_wire::backend::Message;
use switchyard_wire::frame;

use super::Session;
use crate::backend::Show;
use crate::execute::failure::Failure;
use crate::execute::participants::Need;
use crate::execute::relay::{Trouble, decode_message};
use crate::plan::moment::{CLOCK, Clock, Moments};

impl Session {
    /// The statement's text with the time in it, if it asks for that. It is in a block.
    pub(super) async fn with_the_time<'a>(
        &mut self,
        sql: &'a [u8],
        moments: &Moments,
        shard: ShardIndex,
    ) -> Result<Cow<'a, [u8]>, Trouble> {
        if moments.is_empty() {
            return Ok(Cow::Borrowed(sql));
        }
        let clock = self.clock(shard).await?;
        Ok(Cow::Owned(moments.text(sql, &clock)))
    }

    /// Asks a shard that is in the block, or this one. The transaction began when the first of them was asked.
    pub(super) async fn clock(&mut self, shard: ShardIndex) -> Result<Clock, Trouble> {
        let joined = self.participants.iter().find(|held| held.in_block);
        let shard = joined.map_or(shard, |held| held.shard);
        let index = self.join_for_all(shard, Need::Primary).await?;
        let before = self.client.hold();
        let outcome = self.run_shown(index, CLOCK, Show::All).await;
        let answer = self.client.unhold(before);
        match outcome {
            Ok(false) => {}
            Ok(true) => {
                self.client.output.extend_from_slice(&answer);
                return Err(Trouble::Told);
            }
            Err(Trouble::Lost) => {
                self.participants.close_broken(&self.database);
                let shard = self.shard_name(shard);
                return Err(Failure::ShardLost { shard }.into());
            }
            Err(other) => return Err(other),
        }
        let [transaction, statement] = times(&answer).ok_or(Failure::Retry)?;
        let block = self.block.as_mut().ok_or(Failure::Retry)?;
        let transaction = block.began.get_or_insert(transaction).clone();
        Ok(Clock {
            transaction,
            statement,
        })
    }
}

/// The two rows of an answer.
fn times(mut answer: &[u8]) -> Option<[Box<str>; 2]> {
    let mut times = Vec::new();
    while let Ok(Some(header)) = frame::header(answer) {
        let (message, rest) = answer.split_at_checked(header.len)?;
        if let Ok(Message::DataRow(row)) = decode_message(message) {
            let time = std::str::from_utf8(row.iter().next()??).ok()?;
            times.push(time.into());
        }
        answer = rest;
    }
    times.try_into().ok()
}
