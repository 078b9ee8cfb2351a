//! One statement on several shards: rows appended, or the same change everywhere in one transaction.

use bytes::BytesMut;
use switchyard_schema::ShardIndex;
use switchyard_wire::backend::encode;
use switchyard_wire::frontend;

use super::Session;
use super::route::Routed;
use super::simple::{Ready, Sent};
use crate::backend::{Reply, Show};
use crate::execute::failure::Failure;
use crate::execute::messages::lines;
use crate::execute::participants::Need;
use crate::execute::relay::{Trouble, exchange, fill_any};
use crate::plan::{Broadcast, Command, Plan, enforceable};
use crate::session::read::part::opens_with;

impl Session {
    /// Sends a query to several shards at once and appends their rows in shard order, as one result.
    pub(super) async fn append(
        &mut self,
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let plan = &*routed.plan;
        let need = self.need(plan.access, routed.hint);
        let mut indexes = Vec::with_capacity(routed.shards.len());
        for shard in routed.shards.iter() {
            indexes.push(self.join(shard, need).await?);
        }
        for (position, index) in indexes.iter().enumerate() {
            let Some(participant) = self.participants.get_mut(*index) else {
                continue;
            };
            participant.note_run(plan);
            let connection = &mut participant.connection;
            connection.output.extend_from_slice(sent.message);
            connection.unnamed = None;
            connection.replies.expect(
                Reply::Part {
                    describe: position == 0,
                    ready: true,
                },
                Show::All,
            );
            // An idle backend reads a whole query before it answers: this cannot block on its replies.
            if connection.flush().await.is_err() {
                return Err(self.lose(*index, plan));
            }
        }
        let rows = self.relay_parts(&indexes, plan).await?;
        if let Some(rows) = rows {
            encode::command_complete(&mut self.client.output, format!("SELECT {rows}").as_bytes());
        }
        for index in indexes {
            if let Some(after) = self.note_statement(index, plan) {
                self.after_statement(after).await?;
            }
        }
        Ok(Ready::ToBeSaid)
    }

    /// Relays the parts of one result in order. The number of rows, or `None` after an error, which the client has
    /// been shown; what the other shards still do is then cancelled.
    pub(super) async fn relay_parts(
        &mut self,
        indexes: &[usize],
        plan: &Plan,
    ) -> Result<Option<u64>, Trouble> {
        self.await_beginnings(indexes).await?;
        let mut rows = Some(0);
        let mut trouble = None;
        for (position, index) in indexes.iter().enumerate() {
            if rows.is_none() || trouble.is_some() {
                self.give_up(indexes.get(position..).unwrap_or_default())
                    .await?;
                break;
            }
            let Self {
                client,
                participants,
                described,
                ..
            } = self;
            let Some(participant) = participants.get_mut(*index) else {
                continue;
            };
            match exchange(client, participant, &[], described).await {
                Ok(false) => {
                    let count = participant.connection.replies.last_tag().rows();
                    rows = rows.map(|sum: u64| sum + count);
                }
                Ok(true) => rows = None,
                Err(Trouble::Lost) => {
                    participant.connection.broken = true;
                    self.cancel.slot().withdraw(&participant.connection.target);
                    trouble = Some(self.lost_at(*index, plan));
                }
                Err(other) => return Err(other),
            }
        }
        self.participants.close_broken(&self.database);
        match trouble {
            Some(trouble) => Err(trouble),
            None => Ok(rows),
        }
    }

    /// While rows may move, waits until each of the shards has begun to answer: a client that takes its time for the rows of one would hold up
    /// whoever waits for what the others have been asked (ADR 0024).
    pub(super) async fn await_beginnings(&mut self, indexes: &[usize]) -> Result<(), Trouble> {
        if !self.is_moving() || self.block.is_some() {
            return Ok(());
        }
        let is_silent = |session: &Self, index: &usize| {
            let held = session.participants.get(*index);
            let connection = held.map(|held| &held.connection);
            connection.is_some_and(|held| !held.broken && opens_with(&held.input).is_none())
        };
        loop {
            let silent = indexes.iter().copied();
            let silent: Vec<usize> = silent.filter(|index| is_silent(self, index)).collect();
            if silent.is_empty() {
                break;
            }
            fill_any(&mut self.client, &mut self.participants, &silent).await?;
        }
        for index in indexes {
            self.participants.at(*index)?.connection.has_answered();
        }
        Ok(())
    }

    /// Runs a statement on all shards inside one transaction: on the first, whose answer is the client's, then on the
    /// others. Fails as a whole: nothing is shown before all have succeeded and, outside a block, committed.
    pub(super) async fn broadcast(
        &mut self,
        plan: &Plan,
        kind: Broadcast,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        if self.block.is_none() && plan.command == Command::Lock {
            return Err(Failure::NoBlock("LOCK TABLE").into());
        }
        let implicit = self.begin_implicit();
        let held = self.client.hold();
        let mut outcome = self.run_everywhere(plan, kind, sent).await;
        if let Ok(true) = outcome {
            outcome = self.keep_unique(plan).await.map(|()| true);
        }
        if matches!((&outcome, &plan.command), (Ok(true), Command::Ddl)) {
            outcome = self.look_after_unique(plan).await.map(|()| true);
        }
        let answer = self.client.unhold(held);
        match outcome {
            Ok(true) => {
                if let Some(block) = &mut self.block {
                    block.locks_tables |= kind == Broadcast::Ddl;
                }
                if implicit {
                    self.commit_implicit().await?;
                }
                self.client.output.extend_from_slice(&answer);
                if kind == Broadcast::Ddl {
                    self.schema_changed().await;
                }
            }
            // The error is the answer; what other shards said before it is not.
            Ok(false) => {
                self.client.output.extend_from_slice(&answer);
                if implicit {
                    self.abort_implicit().await?;
                }
            }
            Err(trouble) => return Err(trouble),
        }
        Ok(Ready::ToBeSaid)
    }

    /// True if the statement succeeded on every shard. The answer is left in the client's output.
    async fn run_everywhere(
        &mut self,
        plan: &Plan,
        kind: Broadcast,
        sent: Sent<'_>,
    ) -> Result<bool, Trouble> {
        let mut first_rows = None;
        for position in 0..self.database.shards.len() {
            let shard = ShardIndex(u16::try_from(position).map_err(|_| Failure::Retry)?);
            let index = self.join(shard, Need::Primary).await?;
            self.asks_by(index, plan);
            let mark = self.client.output.len();
            let failed = self
                .run_hidden(index, plan, sent.message, position == 0)
                .await?;
            if failed {
                let error: BytesMut = self.client.output.split_off(mark);
                self.client.output = error;
                return Ok(false);
            }
            let Some(participant) = self.participants.get_mut(index) else {
                continue;
            };
            let rows = participant.connection.replies.last_tag().rows();
            if kind == Broadcast::Ddl && position == 0 {
                self.refuse_unenforceable(index, plan).await?;
            }
            if kind == Broadcast::Reference && *first_rows.get_or_insert(rows) != rows {
                return Err(Failure::CopiesDiffer {
                    shard: self.shard_name(shard),
                }
                .into());
            }
        }
        Ok(true)
    }

    /// Refuses what the schema's change on the first shard has brought and no shard could enforce.
    pub(super) async fn refuse_unenforceable(
        &mut self,
        index: usize,
        plan: &Plan,
    ) -> Result<(), Trouble> {
        let Some(query) = enforceable::query(&self.database.schema) else {
            return Ok(());
        };
        match self.ask_lines(index, &query, plan).await?.first() {
            Some(row) => Err(Failure::Refused(Box::new(enforceable::refusal(row))).into()),
            None => Ok(()),
        }
    }

    /// Asks a participant a question of ours, on behalf of a statement with this plan; the answer is of one column.
    pub(super) async fn ask_lines(
        &mut self,
        index: usize,
        query: &str,
        plan: &Plan,
    ) -> Result<Vec<String>, Trouble> {
        self.settle_one(index, plan).await?;
        let (client, participant, _) = self.exchanging(index)?;
        frontend::encode::query(&mut participant.connection.output, query.as_bytes());
        participant.connection.unnamed = None;
        let rows = match participant.connection.flush().await {
            Ok(()) => lines(client, participant).await,
            Err(_) => Err(Trouble::Lost),
        };
        match rows {
            Err(Trouble::Lost) => Err(self.lose(index, plan)),
            rows => rows,
        }
    }

    pub(super) async fn run_hidden(
        &mut self,
        index: usize,
        plan: &Plan,
        message: &[u8],
        show: bool,
    ) -> Result<bool, Trouble> {
        let Self {
            client,
            participants,
            described,
            ..
        } = self;
        let Some(participant) = participants.get_mut(index) else {
            return Err(Failure::Retry.into());
        };
        participant.expect_query(plan, false, if show { Show::All } else { Show::Errors });
        match exchange(client, participant, message, described).await {
            Ok(failed) => {
                let shard = participant.shard;
                if failed && let Some(block) = &mut self.block {
                    block
                        .failed
                        .get_or_insert(crate::execute::block::FailedOn::Shard(shard));
                }
                Ok(failed)
            }
            Err(Trouble::Lost) => Err(self.lose(index, plan)),
            Err(other) => Err(other),
        }
    }

    /// Closes a participant whose connection is lost; the failure to report.
    pub(super) fn lose(&mut self, index: usize, plan: &Plan) -> Trouble {
        let trouble = self.lost_at(index, plan);
        self.participants.close(&self.database, index);
        trouble
    }

    pub(super) fn lost_at(&mut self, index: usize, plan: &Plan) -> Trouble {
        let shard = self
            .participants
            .get_mut(index)
            .map_or(ShardIndex::FIRST, |participant| participant.shard);
        self.lost(shard, plan, Trouble::Lost)
    }
}
