//! One statement on several shards whose rows are merged here: each shard's are read as they are needed.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use switchyard_schema::{ShardIndex, ShardSet};
use switchyard_wire::backend::encode;
use switchyard_wire::frontend;

use crate::backend::{Reply, Show};
use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::participants::Need;
use crate::execute::relay::{Trouble, client_gone, exchange, fill_any, relay_available};
use crate::merge::{Formats, Limit, MergeError, Merger, Recipe, Step};
use crate::plan::{Merge, Plan};
use crate::session::Session;
use crate::session::read::keep::{Steady, is_outdated};
use crate::session::read::part::{
    Part, Shown, is_worth_sending, next_part, opens_with, place_error,
};
use crate::session::route::Routed;
use crate::session::simple::{Ready, Sent};
use crate::session::workspace::fetch::encode_run_kept;
use crate::startup::cancel::CancelReason;

/// Rows that have to be sorted here may take so many bytes.
const MOST_SORTED: usize = 64 << 20;

/// So many bytes are gathered for the client before they are written.
const GATHERED: usize = 64 << 10;

/// The rows of several shards on their way into one result.
#[derive(Debug)]
pub(in crate::session) struct Merging {
    merger: Merger,
    sources: Vec<Source>,
    /// So many of them have said something.
    begun: usize,
    /// The portal that has the rows on every shard; `None` if they come without being asked for.
    portal: Option<Box<[u8]>>,
}

/// The rows of one shard.
#[derive(Debug)]
struct Source {
    /// Those that have come and are not needed yet.
    come: VecDeque<Bytes>,
    state: State,
    /// It has said something.
    begun: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// More have to be asked for.
    Waits,
    /// They are coming.
    Runs,
    /// All have come.
    Ended,
}

/// A statement for several shards whose rows are merged.
pub(in crate::session) struct Scattered<'a> {
    pub(in crate::session) plan: &'a Plan,
    /// The kind of node that may answer.
    pub(in crate::session) need: Need,
    pub(in crate::session) shards: &'a ShardSet,
    /// Appends the messages for a shard, up to one that is answered by ReadyForQuery; where it keeps what is steady, under its name.
    pub(in crate::session) messages: &'a (dyn Fn(ShardIndex, Option<&str>, &mut BytesMut) + Sync),
    /// What shards may keep.
    pub(in crate::session) steady: Option<Steady<'a>>,
    pub(in crate::session) recipe: &'a Arc<Recipe>,
    pub(in crate::session) limit: Limit,
    /// Where in the client's text a character of the shards' comes from.
    pub(in crate::session) origin: &'a (dyn Fn(usize) -> Option<usize> + Sync),
    /// A RowDescription that says of which tables the columns are, where the shards' does not.
    pub(in crate::session) description: Option<&'a [u8]>,
}

/// How far a merge has come.
#[derive(Debug)]
pub(in crate::session) enum Outcome {
    /// To its end; so many rows have been given.
    End(u64),
    /// As many rows as asked for have been given.
    Suspended,
    /// A shard has failed.
    Failed(Failed),
    /// What the shards sent could not be merged.
    Unmerged(MergeError),
    /// Their rows have other columns than the plan knows.
    Stale,
}

/// A shard that has failed: the client is told, or the connection is lost and marked as broken.
#[derive(Debug, Clone, Copy)]
pub(in crate::session) struct Failed {
    /// Its source.
    pub(in crate::session) source: usize,
    /// Where in what the client is owed its last words begin.
    said_at: usize,
}

impl Merging {
    /// A merge of so many sources, whose rows are in this portal on every shard, or on their way.
    pub(in crate::session) fn new(
        recipe: &Arc<Recipe>,
        formats: Formats,
        sources: usize,
        limit: Limit,
        portal: Option<&[u8]>,
    ) -> Self {
        let state = match portal {
            Some(_) => State::Waits,
            None => State::Runs,
        };
        let source = || Source {
            come: VecDeque::new(),
            state,
            begun: false,
        };
        Self {
            merger: Merger::new(Arc::clone(recipe), formats, sources, limit, MOST_SORTED),
            sources: (0..sources).map(|_| source()).collect(),
            begun: 0,
            portal: portal.map(Box::from),
        }
    }
}

impl Session {
    /// Sends a query to several shards at once and merges their rows into one result.
    pub(in crate::session) async fn merge(
        &mut self,
        merge: &Merge,
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let text = merge.text(sent.sql());
        let messages = |_, kept: Option<&str>, output: &mut BytesMut| match kept {
            Some(name) => encode_run_kept(output, name),
            None => frontend::encode::query(output, &text),
        };
        self.merge_answers(Scattered {
            plan: &routed.plan,
            need: self.need(routed.plan.access, routed.hint),
            shards: &routed.shards,
            messages: &messages,
            steady: Steady::of(&routed.plan, &text, Vec::new(), &GivenRows::default()),
            recipe: &merge.recipe,
            limit: routed.limit,
            origin: &|position| merge.origin(sent.sql(), position),
            description: None,
        })
        .await
    }

    /// Sends a statement to several shards at once and merges their rows into one result.
    pub(in crate::session) async fn merge_answers(
        &mut self,
        mut scattered: Scattered<'_>,
    ) -> Result<Ready, Trouble> {
        let (written, owed) = (self.client.written(), self.client.output.len());
        let cancels = self.others_cancels();
        if let Some(ready) = self.merge_parts(&scattered).await? {
            return Ok(ready);
        }
        self.distrust_kept();
        if self.client.written() != written {
            return Err(Failure::Retry.into());
        }
        self.client.output.truncate(owed);
        if self.others_cancels() != cancels {
            return Err(Failure::Cancelled(CancelReason::Request).into());
        }
        scattered.steady = None;
        let merged = self.merge_parts(&scattered).await?;
        merged.ok_or_else(|| Failure::Retry.into())
    }

    /// The same; `None` if a shard has kept something else than what the text is now.
    async fn merge_parts(&mut self, scattered: &Scattered<'_>) -> Result<Option<Ready>, Trouble> {
        let plan = scattered.plan;
        let cancels = self.cancel.slot().requests();
        let indexes = self.send_parts(scattered).await?;
        self.cancel_again(cancels).await;
        let (formats, count) = (Formats::text(), indexes.len());
        let (recipe, limit) = (scattered.recipe, scattered.limit);
        let mut merging = Merging::new(recipe, formats, count, limit, None);
        let shown = Some(Shown {
            columns: recipe.columns.into(),
            extras: recipe.extras.into(),
            tables: scattered.description,
        });
        let outcome = match self.merge_rows(&indexes, &mut merging, shown, None).await {
            Err(Trouble::Failure(Failure::Retry)) => Outcome::Stale,
            outcome => outcome?,
        };
        let mut outdated = false;
        let lost = match &outcome {
            Outcome::End(_) | Outcome::Suspended => self.drain(&indexes).await?,
            Outcome::Unmerged(_) | Outcome::Stale => {
                self.give_up(&indexes).await?;
                None
            }
            Outcome::Failed(failed) => {
                let output = &mut self.client.output;
                let said = output.get(failed.said_at..).unwrap_or_default();
                outdated = scattered.steady.is_some() && is_outdated(said);
                match outdated {
                    true => output.truncate(failed.said_at),
                    false => place_error(output, failed.said_at, scattered.origin),
                }
                self.give_up(&indexes).await?;
                let failed = indexes.get(failed.source).copied();
                failed.filter(|failed| self.is_broken(*failed))
            }
        };
        let lost = lost.map(|index| self.lost_at(index, plan));
        for index in indexes {
            if !self.is_broken(index)
                && let Some(after) = self.note_statement(index, plan)
            {
                self.after_statement(after).await?;
            }
        }
        self.participants.close_broken(&self.database);
        if let Some(trouble) = lost {
            return Err(trouble);
        }
        match outcome {
            _ if outdated => return Ok(None),
            Outcome::End(rows) => {
                let tag = format!("SELECT {rows}");
                encode::command_complete(&mut self.client.output, tag.as_bytes());
            }
            Outcome::Failed(_) | Outcome::Suspended => {}
            Outcome::Unmerged(error) => return Err(Failure::Unmerged(error).into()),
            Outcome::Stale => return Err(Failure::Retry.into()),
        }
        Ok(Some(Ready::ToBeSaid))
    }

    /// Sends a statement to each of its shards: the participants, in their order.
    async fn send_parts(&mut self, scattered: &Scattered<'_>) -> Result<Vec<usize>, Trouble> {
        let plan = scattered.plan;
        let mut indexes = Vec::with_capacity(scattered.shards.len());
        for shard in scattered.shards.iter() {
            indexes.push(self.join(shard, scattered.need).await?);
        }
        let steady = scattered.steady.as_ref();
        let mut keep = |index: &usize| steady.and_then(|steady| self.keep(*index, steady));
        let kept: Vec<Option<u64>> = indexes.iter().map(&mut keep).collect();
        self.settle_each(&indexes, plan).await?;
        for (index, kept) in indexes.iter().zip(kept) {
            let participant = self.participants.at(*index)?;
            participant.note_run(plan);
            let (shard, kept) = (participant.shard, participant.kept(kept));
            let connection = &mut *participant.connection;
            (scattered.messages)(shard, kept.as_deref(), &mut connection.output);
            connection.unnamed = None;
            let reply = Reply::Part {
                describe: false,
                ready: true,
            };
            connection.replies.expect(reply, Show::Nothing);
            // An idle backend reads a whole query before it answers: this cannot block on its replies.
            if connection.flush().await.is_err() {
                return Err(self.lose(*index, plan));
            }
        }
        Ok(indexes)
    }

    /// As [`Session::settle_one`], all of them: they work on what is queued at the same time.
    pub(in crate::session) async fn settle_each(
        &mut self,
        indexes: &[usize],
        plan: &Plan,
    ) -> Result<(), Trouble> {
        for index in indexes {
            let participant = self.participants.at(*index)?;
            // What is queued are a few statements of ours: a backend reads them before it answers.
            if !participant.needs_sync && participant.connection.flush().await.is_err() {
                return Err(self.lose(*index, plan));
            }
        }
        for index in indexes {
            self.settle_one(*index, plan).await?;
        }
        Ok(())
    }

    /// Sends what is queued for a participant, and waits for what it owes: its next reply is then the statement's.
    pub(in crate::session) async fn settle_one(
        &mut self,
        index: usize,
        plan: &Plan,
    ) -> Result<(), Trouble> {
        let Self {
            client,
            participants,
            described,
            ..
        } = self;
        let participant = participants.at(index)?;
        let asks_extended = participant.needs_sync;
        let connection = &mut *participant.connection;
        if connection.output.is_empty() && connection.replies.is_settled() {
            return Ok(());
        }
        if asks_extended {
            // A backend keeps its answers to the extended protocol until it is told not to.
            frontend::encode::flush(&mut connection.output);
        }
        match exchange(client, participant, &[], described).await {
            // What it has answered is not what it is asked now.
            Ok(false) => Ok(self.asks(index)?),
            Ok(true) => Err(Trouble::Told),
            Err(Trouble::Lost) => Err(self.lose(index, plan)),
            Err(other) => Err(other),
        }
    }

    /// Gives the client rows of the result, at most `max_rows`. The sources are the participants of these indexes;
    /// `shown`: how much of the first one's description of its rows is the client's.
    pub(in crate::session) async fn merge_rows(
        &mut self,
        indexes: &[usize],
        merging: &mut Merging,
        mut shown: Option<Shown<'_>>,
        max_rows: Option<u64>,
    ) -> Result<Outcome, Trouble> {
        let Merging {
            merger,
            sources,
            begun,
            portal,
        } = merging;
        let mut rows = 0;
        loop {
            if max_rows == Some(rows) {
                return Ok(Outcome::Suspended);
            }
            let at = match merger.step(&mut self.client.output) {
                Ok(Step::Row) => {
                    rows += 1;
                    if self.client.output.len() > GATHERED {
                        self.client.flush().await.map_err(client_gone)?;
                    }
                    continue;
                }
                Ok(Step::Need(at)) => at,
                Ok(Step::End) => return Ok(Outcome::End(rows)),
                Err(error) => return Ok(Outcome::Unmerged(error)),
            };
            let (Some(index), Some(source)) = (indexes.get(at), sources.get_mut(at)) else {
                return Err(Failure::Retry.into());
            };
            if let Some(row) = source.come.pop_front() {
                if let Err(error) = merger.feed(row) {
                    return Ok(Outcome::Unmerged(error));
                }
                continue;
            }
            match source.state {
                State::Ended => merger.end(),
                State::Waits => {
                    let portal = portal.as_deref().unwrap_or_default();
                    self.execute_source(*index, source, portal, max_rows)
                        .await?;
                }
                State::Runs => {
                    let at = match *begun < sources.len() {
                        true => self.first_to_speak(indexes, sources, at).await?,
                        false => at,
                    };
                    let (Some(index), Some(source)) = (indexes.get(at), sources.get_mut(at)) else {
                        return Err(Failure::Retry.into());
                    };
                    *begun += usize::from(!std::mem::replace(&mut source.begun, true));
                    let received = self.receive(*index, source, shown.take()).await?;
                    if let Err(said_at) = received {
                        return Ok(Outcome::Failed(Failed {
                            source: at,
                            said_at,
                        }));
                    }
                }
            }
        }
    }

    /// Waits for the source that is needed next. Those that have said nothing yet will all be needed: one of them that says
    /// that it has failed comes first.
    async fn first_to_speak(
        &mut self,
        indexes: &[usize],
        sources: &[Source],
        needed: usize,
    ) -> Result<usize, Trouble> {
        loop {
            let mut silent = Vec::with_capacity(sources.len());
            for (at, (index, source)) in indexes.iter().zip(sources).enumerate() {
                if at != needed && (source.begun || source.state != State::Runs) {
                    continue;
                }
                let connection = &self.participants.at(*index)?.connection;
                match opens_with(&connection.input) {
                    _ if connection.broken => return Ok(at),
                    Some(b'E') => return Ok(at),
                    Some(_) if at == needed => return Ok(at),
                    Some(_) => {}
                    None => silent.push(*index),
                }
            }
            let Self {
                client,
                participants,
                ..
            } = self;
            if is_worth_sending(&client.output) {
                client.flush().await.map_err(client_gone)?;
            }
            fill_any(client, participants, &silent).await?;
        }
    }

    /// Takes what a shard sends next. An error: it has failed; see [`Failed::said_at`].
    async fn receive(
        &mut self,
        index: usize,
        source: &mut Source,
        shown: Option<Shown<'_>>,
    ) -> Result<Result<(), usize>, Trouble> {
        let Self {
            client,
            participants,
            described,
            ..
        } = self;
        let participant = participants.at(index)?;
        let state = match next_part(client, participant, shown).await {
            Ok(Part::Row(row)) => {
                source.come.push_back(row);
                return Ok(Ok(()));
            }
            Ok(Part::End) => State::Ended,
            Ok(Part::Paused) => State::Waits,
            Ok(Part::Failed(said_at)) => return Ok(Err(said_at)),
            Err(Trouble::Lost) => {
                participant.connection.broken = true;
                return Ok(Err(client.output.len()));
            }
            Err(other) => return Err(other),
        };
        relay_available(client, participant, described)?;
        source.state = state;
        Ok(Ok(()))
    }

    /// Takes all that the shards have been asked for, so that they can be asked for something else. `None`: all have sent
    /// it; else the one that has failed.
    pub(in crate::session) async fn receive_rest(
        &mut self,
        indexes: &[usize],
        merging: &mut Merging,
    ) -> Result<Option<Failed>, Trouble> {
        for (at, (index, source)) in indexes.iter().zip(&mut merging.sources).enumerate() {
            while source.state == State::Runs {
                if let Err(said_at) = self.receive(*index, source, None).await? {
                    return Ok(Some(Failed {
                        source: at,
                        said_at,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Asks every shard for rows from which none is at hand.
    pub(in crate::session) async fn ask_all(
        &mut self,
        indexes: &[usize],
        merging: &mut Merging,
        max_rows: Option<u64>,
    ) -> Result<(), Trouble> {
        for (index, source) in indexes.iter().zip(&mut merging.sources) {
            if source.state == State::Waits && source.come.is_empty() {
                let portal = merging.portal.as_deref().unwrap_or_default();
                self.execute_source(*index, source, portal, max_rows)
                    .await?;
            }
        }
        Ok(())
    }

    async fn execute_source(
        &mut self,
        index: usize,
        source: &mut Source,
        portal: &[u8],
        max_rows: Option<u64>,
    ) -> Result<(), Trouble> {
        let participant = self.participants.at(index)?;
        participant.needs_sync = true;
        let connection = &mut *participant.connection;
        // No more than the client may want: what it does not want yet is kept here.
        let rows = max_rows.and_then(|rows| i32::try_from(rows).ok());
        frontend::encode::execute(&mut connection.output, portal, rows.unwrap_or(0));
        frontend::encode::flush(&mut connection.output);
        let reply = Reply::Part {
            describe: false,
            ready: false,
        };
        connection.replies.expect(reply, Show::Nothing);
        source.state = State::Runs;
        // Where this fails, so does reading the answer.
        let _broken = connection.flush().await;
        Ok(())
    }

    fn is_broken(&self, index: usize) -> bool {
        let held = self.participants.get(index);
        held.is_some_and(|held| held.connection.broken)
    }

    /// Waits for the end of every shard's answer, of which nothing more is shown. The first participant whose connection is
    /// lost, if any is: they are marked as broken.
    pub(in crate::session) async fn drain(
        &mut self,
        indexes: &[usize],
    ) -> Result<Option<usize>, Trouble> {
        let mut lost = None;
        for index in indexes {
            let Self {
                client,
                participants,
                described,
                ..
            } = self;
            let Some(participant) = participants.get_mut(*index) else {
                continue;
            };
            let failed = participant.failed;
            participant.connection.replies.hide_all();
            let outcome = match participant.connection.broken {
                true => Err(Trouble::Lost),
                false => exchange(client, participant, &[], described).await,
            };
            participant.failed = failed;
            match outcome {
                Ok(_) => {}
                Err(Trouble::Lost) => {
                    participant.connection.broken = true;
                    lost.get_or_insert(*index);
                }
                Err(other) => return Err(other),
            }
        }
        Ok(lost)
    }
}
