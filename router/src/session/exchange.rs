//! Statements of the session's own on the backends it holds, and questions to PostgreSQL on the client's behalf.

use switchyard_schema::ShardIndex;
use switchyard_wire::frontend::{self, Kind};

use super::Session;
use crate::admin::asked::Asked;
use crate::backend::{Reply, Show};
use crate::execute::block::FailedOn;
use crate::execute::failure::Failure;
use crate::execute::participants::Need;
use crate::execute::relay::{Trouble, exchange};
use crate::plan::Plan;
use crate::topology::Heartbeat;

impl Session {
    /// The backend for `shard`, joined to the block if there is one, to be asked what goes by where rows are.
    pub(super) async fn join(&mut self, shard: ShardIndex, need: Need) -> Result<usize, Trouble> {
        if let Some(index) = self.join_now(shard, need) {
            return Ok(index);
        }
        let index = self.join_for_all(shard, need).await?;
        self.asks(index)?;
        Ok(index)
    }

    /// The same, to be asked what does not: it is waited for by nobody who moves rows.
    pub(super) async fn join_for_all(
        &mut self,
        shard: ShardIndex,
        need: Need,
    ) -> Result<usize, Trouble> {
        self.is_placed_as_planned()?;
        let Self {
            participants,
            database,
            settings,
            block,
            entry,
            ..
        } = self;
        let waiting = entry.waiting();
        let joining = participants.join(database, shard, need, settings, block.as_ref());
        let index = Box::pin(joining).await?;
        drop(waiting);
        // It may have waited for long.
        self.is_placed_as_planned()?;
        Ok(index)
    }

    /// Notes that a backend is about to be asked by the snapshot of the present request, and then looks whether rows are where that says: whoever
    /// publishes another one looks at what is noted afterwards (ADR 0024).
    pub(super) fn asks(&mut self, index: usize) -> Result<(), Failure> {
        if self.worker.services.heartbeat.is_some() {
            let held = self.participants.at(index)?;
            let fresh = !held.needs_sync;
            held.connection.is_asked(Asked {
                generation: self.generation,
                by_rows: true,
                fresh,
                alone: fresh && self.block.is_none(),
            });
        }
        self.is_placed_as_planned()
    }

    /// Takes back that it goes by where rows are, of a statement that does not.
    pub(super) fn asks_by(&mut self, index: usize, plan: &Plan) {
        if let Some(held) = self.participants.get(index)
            && !plan.goes_by_rows()
            && let Some(entry) = &held.connection.entry
        {
            entry.unanswered.goes_anywhere();
        }
    }

    /// Rows are still where the present request takes them to be.
    fn is_placed_as_planned(&self) -> Result<(), Failure> {
        let heartbeat = &self.worker.services.heartbeat;
        if self.database.is_moving && heartbeat.as_ref().is_some_and(Heartbeat::is_lost) {
            return Err(Failure::OutOfTouch);
        }
        let published = &self.worker.services.topology;
        if published.generation() == self.generation {
            return Ok(());
        }
        match published.load().database(&self.database.name) {
            Some(now) if !now.places_like(&self.database) => Err(Failure::Retry),
            Some(_) | None => Ok(()),
        }
    }

    /// The same where nothing has to be waited for, as mostly.
    pub(super) fn join_now(&mut self, shard: ShardIndex, need: Need) -> Option<usize> {
        self.is_placed_as_planned().ok()?;
        let Self {
            participants,
            database,
            settings,
            block,
            ..
        } = self;
        let index = participants.join_now(database, shard, need, settings, block.as_ref())?;
        self.asks(index).ok()?;
        Some(index)
    }

    /// Runs a statement of ours on one participant; its errors are shown. True if there was one.
    pub(super) async fn run_on(&mut self, index: usize, sql: &str) -> Result<bool, Trouble> {
        self.run_shown(index, sql, Show::Errors).await
    }

    /// The same, where the answer may be the client's.
    pub(super) async fn run_shown(
        &mut self,
        index: usize,
        sql: &str,
        show: Show,
    ) -> Result<bool, Trouble> {
        let Self {
            client,
            participants,
            described,
            ..
        } = self;
        let Some(participant) = participants.get_mut(index) else {
            return Ok(false);
        };
        participant.queue_query_shown(sql, show);
        let outcome = exchange(client, participant, &[], described).await;
        if let Err(Trouble::Lost) = outcome {
            participant.connection.broken = true;
        }
        outcome
    }

    /// Runs a statement of ours on every participant of the block, or on all that are held if there is none. An error is shown once and fails the block.
    pub(super) async fn run_on_all(&mut self, sql: &str) -> Result<(), Trouble> {
        self.run_shown_on_all(sql, Show::Errors).await
    }

    /// The same, where notices may be the client's.
    pub(super) async fn run_shown_on_all(&mut self, sql: &str, show: Show) -> Result<(), Trouble> {
        for index in 0..self.participants.len() {
            let in_block = self.block.is_some();
            let Some(shard) = self
                .participants
                .get(index)
                .filter(|participant| participant.in_block || !in_block)
                .map(|participant| participant.shard)
            else {
                continue;
            };
            match self.run_shown(index, sql, show).await {
                Ok(false) => {}
                Ok(true) => {
                    if let Some(block) = &mut self.block {
                        block.failed.get_or_insert(FailedOn::Shard(shard));
                    }
                    return Err(Trouble::Told);
                }
                Err(Trouble::Lost) => {
                    let shard = self.shard_name(shard);
                    self.participants.close_broken(&self.database);
                    return Err(Failure::ShardLost { shard }.into());
                }
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    /// A connection was lost under what changes nothing, such as preparing a statement.
    pub(super) fn lost_unawares(&mut self) -> Failure {
        let broken = self.participants.iter().find(|held| held.connection.broken);
        let shard = broken.map_or_else(Box::default, |held| (&*held.shard_name).into());
        self.participants.close_broken(&self.database);
        Failure::ShardLost { shard }
    }

    /// Gives back the backends that nothing needs any longer.
    pub(super) async fn release(&mut self) {
        self.participants.release(&self.database).await;
    }

    /// Lets PostgreSQL analyse a text without running it. True if it found an error, which the client has been shown.
    pub(super) async fn analyse(&mut self, sql: &[u8]) -> Result<bool, Trouble> {
        self.analyse_as(sql, Wanted::Errors).await
    }

    /// The same; the client is shown the description of the result, too.
    pub(super) async fn analyse_result(&mut self, sql: &[u8]) -> Result<bool, Trouble> {
        self.analyse_as(sql, Wanted::Description).await
    }

    async fn analyse_as(&mut self, sql: &[u8], wanted: Wanted) -> Result<bool, Trouble> {
        let shard = self.any_shard();
        let need = match &self.block {
            Some(block) if !block.read_only => Need::Primary,
            _ => Need::Replica,
        };
        let index = self.join_for_all(shard, need).await?;
        let Self {
            client,
            participants,
            described,
            ..
        } = self;
        let Some(participant) = participants.get_mut(index) else {
            return Err(Failure::Retry.into());
        };
        let connection = &mut *participant.connection;
        connection.unnamed = None;
        frontend::encode::parse(&mut connection.output, b"", sql, &[]);
        let reply = Reply::Parse {
            statement: 0,
            named: false,
        };
        connection.replies.expect(reply, Show::Errors);
        if wanted == Wanted::Description {
            frontend::encode::describe(&mut connection.output, Kind::Statement, b"");
            let reply = Reply::Describe { noted_of: None };
            connection.replies.expect(reply, Show::All);
        }
        // Within a batch a Sync would commit what the batch has done here.
        let in_batch = participant.needs_sync;
        if in_batch {
            frontend::encode::flush(&mut connection.output);
        } else {
            frontend::encode::sync(&mut connection.output);
            connection.replies.expect(Reply::Sync, Show::Nothing);
        }
        let outcome = exchange(client, participant, &[], described).await;
        match outcome {
            Ok(failed) => {
                if failed && let Some(block) = &mut self.block {
                    block.failed.get_or_insert(FailedOn::Shard(shard));
                }
                if failed && in_batch {
                    self.forget_unparsed(index);
                }
                Ok(failed)
            }
            Err(Trouble::Lost) => {
                participant.connection.broken = true;
                self.participants.close_broken(&self.database);
                Err(Failure::ShardLost {
                    shard: self.shard_name(shard),
                }
                .into())
            }
            Err(other) => Err(other),
        }
    }

    /// PostgreSQL reads the whole of a query string before it runs any of it. True if it finds a syntax error, which the
    /// client has been shown. Not to be used in a block, which would fail.
    pub(super) async fn has_syntax_error(&mut self, sql: &[u8]) -> Result<bool, Trouble> {
        let before = self.client.hold();
        let analysed = self.analyse(sql).await;
        let answer = self.client.unhold(before);
        analysed?;
        // Parse takes one statement. Where several are well formed, that is all it has to say.
        if answer.is_empty() || contains(&answer, b"Rexec_parse_message\0") {
            return Ok(false);
        }
        self.client.output.extend_from_slice(&answer);
        Ok(true)
    }

    /// A text our scanner cannot divide into words: PostgreSQL's error if it cannot either, a refusal otherwise.
    pub(super) async fn unscannable(&mut self, sql: &[u8]) -> Result<(), Trouble> {
        if self.analyse(sql).await? {
            return Err(Trouble::Told);
        }
        Err(Failure::Unsupported {
            what: "this statement".into(),
            hint: "Its text could not be divided into words with certainty.",
        }
        .into())
    }

    /// The name of a shard, for messages.
    pub(super) fn shard_name(&self, shard: ShardIndex) -> Box<str> {
        let shard = self.database.shards.get(shard.position());
        shard.map_or_else(Box::default, |shard| (&*shard.name).into())
    }
}

/// What is wanted of an analysis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Errors,
    Description,
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
