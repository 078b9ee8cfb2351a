//! The simple query protocol: one message, any number of statements, one ReadyForQuery.

use std::ops::Range;

use bytes::Buf;
use switchyard_schema::ShardIndex;
use switchyard_wire::DecodeError;
use switchyard_wire::backend::encode;
use switchyard_wire::frame;
use switchyard_wire::frontend;

use super::Session;
use super::route::{Routed, Text};
use crate::execute::block::FailedOn;
use crate::execute::failure::Failure;
use crate::execute::participant::Participant;
use crate::execute::participants::Need;
use crate::execute::relay::{Trouble, exchange};
use crate::metrics::clock::Tick;
use crate::plan::{Broadcast, Command, Operator, Plan};
use crate::sql::without_empty;

/// How often a query is planned anew for tables that have changed meanwhile: groups of rows that move change them one after the other.
const PLANS: usize = 3;

/// Who has said ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    /// The backend's own has been passed on.
    Said,
    /// It is still to be said.
    ToBeSaid,
}

/// A statement of a query string as it is sent to backends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent<'a> {
    /// A whole Query message.
    pub(super) message: &'a [u8],
    /// The statement is the whole of the client's query: the backend's ReadyForQuery is the client's.
    pub(super) alone: bool,
}

impl<'a> Sent<'a> {
    /// The text in the message.
    pub(super) fn sql(&self) -> &'a [u8] {
        let body = self.message.get(frame::HEADER..).unwrap_or_default();
        body.strip_suffix(b"\0").unwrap_or(body)
    }

    /// Who has said ReadyForQuery when the statement has been answered.
    pub(super) fn ready(&self) -> Ready {
        match self.alone {
            true => Ready::Said,
            false => Ready::ToBeSaid,
        }
    }
}

impl Session {
    /// Handles a Query or FunctionCall message of `length` bytes at the start of the input.
    pub(super) async fn simple_query(&mut self, length: usize) -> Result<(), Trouble> {
        if !self.batch.is_empty() {
            Box::pin(self.flush()).await?;
            // An error of the batch skips the query as well.
            if self.batch.is_skipping() {
                self.client.input.advance(length);
                return Ok(());
            }
            if self.batch.has_written() && self.block.is_none() {
                self.client.input.advance(length);
                return Box::pin(self.refuse_query_in_batch()).await;
            }
            Box::pin(self.close_batch()).await?;
        }
        if self.block.is_none() {
            self.refresh();
        }
        let began = Tick::now();
        let mut message = self.client.take_message(length);
        let outcome = match message.first() {
            Some(b'F') => Box::pin(self.function_call(&message)).await,
            _ => {
                // As in PostgreSQL, a query takes the place of the unnamed statement and portal.
                self.statements.remove(b"");
                self.portals.remove(b"");
                leave_out_empty(&mut message);
                let told = self.client.told();
                match self.query(&message).await {
                    Err(Trouble::Failure(Failure::Retry)) => {
                        Box::pin(self.query_anew(&message, told)).await
                    }
                    outcome => outcome,
                }
            }
        };
        message.clear();
        self.client.put_back(message);
        self.count_time(began);
        match outcome {
            Ok(Ready::Said) => self.finish().await,
            Ok(Ready::ToBeSaid) => self.ready().await,
            Err(Trouble::Failure(failure)) => Box::pin(self.fail_simple(failure)).await,
            Err(Trouble::Lost) => {
                let failure = self.lost_unawares();
                Box::pin(self.fail_simple(failure)).await
            }
            Err(Trouble::Told) => {
                Box::pin(self.abort_implicit()).await?;
                self.ready().await
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// Ends a request of the simple protocol by an error of ours.
    pub(super) async fn fail_simple(&mut self, failure: Failure) -> Result<(), Trouble> {
        self.report(&failure);
        self.abort_implicit().await?;
        self.ready().await
    }

    async fn query(&mut self, message: &[u8]) -> Result<Ready, Trouble> {
        let sent = Sent {
            message,
            alone: true,
        };
        if message.last() != Some(&0) {
            return Err(Failure::InvalidMessage(DecodeError::Unterminated).into());
        }
        if self.is_to_know_the_blocks(sent.sql()) {
            Box::pin(self.know_the_blocks()).await?;
        }
        let text = match self.route_text(sent.sql()) {
            Ok(text) => text,
            Err(failure) => return Err(Box::pin(self.or_refused(failure, sent.sql())).await),
        };
        match text {
            Text::Empty => {
                encode::empty_query(&mut self.client.output);
                Ok(Ready::ToBeSaid)
            }
            Text::One(routed) => {
                let routed = match &routed.plan.unknown {
                    None => routed,
                    Some(_) => Box::pin(self.know_relations(routed, sent.sql())).await?,
                };
                match self.passes_to(&routed) {
                    Some(shard) if !self.consistent_read => {
                        self.count(&routed.plan, 1);
                        self.pass_through(shard, &routed, sent).await
                    }
                    Some(_) | None => Box::pin(self.statement(&routed, sent)).await,
                }
            }
            Text::Several(statements) => Box::pin(self.several(sent.sql(), &statements)).await,
            Text::Unscannable => {
                Box::pin(self.unscannable(sent.sql())).await?;
                Ok(Ready::ToBeSaid)
            }
        }
    }

    /// Whether the relations are to be read as the block has made them, before this is planned. What makes others, or ends the block, need
    /// not wait for that.
    fn is_to_know_the_blocks(&self, sql: &[u8]) -> bool {
        let words: [&[u8]; 8] = [
            b"alter",
            b"comment",
            b"commit",
            b"create",
            b"drop",
            b"end",
            b"grant",
            b"rollback",
        ];
        let begins = |word: &&[u8]| {
            sql.get(..word.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(word))
        };
        let is_old = self
            .block
            .as_ref()
            .is_some_and(|block| block.relations_are_old);
        is_old && !words.iter().any(begins)
    }

    /// A statement is refused for its values. What PostgreSQL finds wrong with it comes first.
    pub(super) async fn or_refused(&mut self, failure: Failure, sql: &[u8]) -> Trouble {
        let is_second = matches!(&failure, Failure::Refused(refusal) if refusal.analyse_first);
        if !is_second || self.block_has_failed() {
            return failure.into();
        }
        match self.analyse(sql).await {
            Ok(true) => Trouble::Told,
            Ok(false) => failure.into(),
            Err(trouble) => trouble,
        }
    }

    /// Plans and runs a query again whose tables have turned out not to be what its plan was made for, if nobody has seen anything of it: the
    /// client has been told nothing since `told` bytes, and no block of its own is at stake.
    async fn query_anew(&mut self, message: &[u8], told: u64) -> Result<Ready, Trouble> {
        for _ in 0..PLANS {
            let is_explicit = self.block.as_ref().is_some_and(|block| block.explicit);
            if is_explicit || self.client.told() != told {
                break;
            }
            self.abort_implicit().await?;
            if !self.learn_relations().await {
                break;
            }
            match Box::pin(self.query(message)).await {
                Err(Trouble::Failure(Failure::Retry)) => {}
                outcome => return outcome,
            }
        }
        Err(Failure::Retry.into())
    }

    /// A plan that met a name nobody knows is made again from the relations as they are now: the name may be that of
    /// a view of sharded tables.
    async fn know_relations(&mut self, routed: Routed, sql: &[u8]) -> Result<Routed, Trouble> {
        let Some(name) = &routed.plan.unknown else {
            return Ok(routed);
        };
        if !self.learn_name(name).await {
            return Ok(routed);
        }
        match self.route_text(sql)? {
            Text::One(routed) => Ok(routed),
            Text::Empty | Text::Several(_) | Text::Unscannable => Ok(routed),
        }
    }

    /// Statements that share one message are one transaction, unless they say otherwise: each is planned and sent on
    /// its own, inside an implicit block.
    async fn several(&mut self, sql: &[u8], statements: &[Range<u32>]) -> Result<Ready, Trouble> {
        if self.block.is_none() && self.has_syntax_error(sql).await? {
            return Err(Trouble::Told);
        }
        for range in statements {
            self.begin_implicit();
            let piece = piece_of(sql, range);
            let mut message = bytes::BytesMut::with_capacity(piece.len() + frame::HEADER + 1);
            frontend::encode::query(&mut message, &piece);
            let sent = Sent {
                message: &message,
                alone: false,
            };
            if self.is_to_know_the_blocks(piece.trim_ascii_start()) {
                Box::pin(self.know_the_blocks()).await?;
            }
            let text = match self.route_text(&piece) {
                Ok(text) => text,
                Err(failure) => return Err(Box::pin(self.or_refused(failure, &piece)).await),
            };
            let Text::One(routed) = text else {
                return Err(Failure::Unsupported {
                    what: "this combination of statements in one query".into(),
                    hint: "Send the statements one by one.",
                }
                .into());
            };
            let routed = self.know_relations(routed, &piece).await?;
            self.statement(&routed, sent).await?;
            self.forget_text(&routed.plan.command);
            if self.block_has_failed() && !is_end(&routed.plan) {
                self.abort_implicit().await?;
                return Ok(Ready::ToBeSaid);
            }
        }
        self.commit_implicit().await?;
        Ok(Ready::ToBeSaid)
    }

    /// The shard a statement simply goes to, as most do.
    fn passes_to(&self, routed: &Routed) -> Option<ShardIndex> {
        let failed = self.block.as_ref().and_then(|block| block.failed);
        let passes = matches!(
            routed.plan.operator,
            Operator::PassThrough(_) | Operator::Append(_) | Operator::Merge(_) | Operator::Lock(_)
        ) || matches!(&routed.plan.operator, Operator::Write(write) if write.is_plain() && !self.gives_remembered(write));
        let looked_after = failed.is_some() || routed.plan.unique.is_some();
        if !passes || looked_after || !routed.plan.settings.is_empty() {
            return None;
        }
        routed.shards.only()
    }

    /// Runs one statement; in a block of its own where what it reads has to be of one moment.
    pub(super) async fn statement(
        &mut self,
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        if !self.consistent_read {
            return self.statement_as_is(routed, sent).await;
        }
        let begins = self.block.is_none();
        Box::pin(self.cut_before(&routed.plan, &routed.shards)).await?;
        let ready = Box::pin(self.statement_as_is(routed, sent)).await?;
        if begins {
            self.end_cut().await?;
        }
        Ok(ready)
    }

    async fn statement_as_is(&mut self, routed: &Routed, sent: Sent<'_>) -> Result<Ready, Trouble> {
        let plan = &*routed.plan;
        self.count(plan, routed.shards.len());
        if let Some(shard) = self.passes_to(routed) {
            return self.pass_through(shard, routed, sent).await;
        }
        if let Some(failed) = self.block.as_ref().and_then(|block| block.failed)
            && !is_end(plan)
        {
            return self.statement_in_failed_block(failed, plan, sent).await;
        }
        if !plan.settings.is_empty() {
            return Box::pin(self.setting_statement(routed, sent)).await;
        }
        if let Some(lookup) = routed
            .lookup
            .as_ref()
            .filter(|_| plan.command == Command::Select)
            && let Some(ready) = Box::pin(self.located(lookup, routed, sent)).await?
        {
            return Ok(ready);
        }
        match &plan.operator {
            Operator::Append(_) | Operator::Write(_)
                if matches!(plan.command, Command::Copy(_)) =>
            {
                Box::pin(self.copy_parts(routed, sent)).await
            }
            Operator::Append(_)
            | Operator::Merge(_)
            | Operator::Workspace(_)
            | Operator::Lock(_)
            | Operator::Write(_)
                if matches!(plan.command, Command::Explain { .. }) =>
            {
                Box::pin(self.explain(routed, sent)).await
            }
            Operator::PassThrough(_) | Operator::Append(_) => {
                Box::pin(self.append(routed, sent)).await
            }
            Operator::Merge(merge) => Box::pin(self.merge(merge, routed, sent)).await,
            Operator::Broadcast(Broadcast::Stepwise) => Box::pin(self.stepwise(plan, sent)).await,
            Operator::Broadcast(kind) => self.broadcast(plan, *kind, sent).await,
            Operator::Session => Box::pin(self.control(plan, sent)).await,
            Operator::Workspace(_) if plan.command == Command::CreateAs => {
                Box::pin(self.create_as(routed, sent)).await
            }
            Operator::Workspace(_) => Box::pin(self.in_workspace(routed, sent)).await,
            Operator::Lock(lock) => Box::pin(self.locked(lock, routed, sent)).await,
            Operator::Write(write) => Box::pin(self.write_parts(write, routed, sent)).await,
            Operator::Insert(_)
            | Operator::InsertQuery(_)
            | Operator::Move(_)
            | Operator::Steps(_) => Box::pin(self.insert(routed, sent)).await,
            Operator::CopyIn(copy) => Box::pin(self.copy_in(copy, routed, sent)).await,
            Operator::Refuse(refusal) => {
                if refusal.analyse_first && Box::pin(self.analyse_refused(sent.sql())).await? {
                    return Ok(Ready::ToBeSaid);
                }
                Err(Failure::Refused(refusal.clone()).into())
            }
        }
    }

    /// In a failed block PostgreSQL refuses all but the block's end; the shard that failed does so itself, and finds
    /// syntax errors first, as one PostgreSQL would.
    async fn statement_in_failed_block(
        &mut self,
        failed: FailedOn,
        plan: &Plan,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let FailedOn::Shard(shard) = failed else {
            return Err(Failure::InFailedTransaction.into());
        };
        // A backend that is not in the block would run it.
        let joined = |held: &Participant| held.shard == shard && held.in_block;
        if !self.participants.iter().any(joined) {
            return Err(Failure::InFailedTransaction.into());
        }
        let index = self.join_for_all(shard, Need::Replica).await?;
        self.expect_query(index, plan, sent)?;
        let (client, participant, described) = self.exchanging(index)?;
        let outcome = exchange(client, participant, sent.message, described).await;
        if let Some(after) = self.answered(index, plan, outcome)? {
            self.after_statement(after).await?;
        }
        Ok(sent.ready())
    }
}

/// Blanks out empty statements in front of a Query message's text.
fn leave_out_empty(message: &mut [u8]) {
    let text = frame::HEADER..message.len().saturating_sub(1);
    if let Some(without) = message.get(text.clone()).and_then(without_empty)
        && let Some(place) = message.get_mut(text)
    {
        place.copy_from_slice(&without);
    }
}

/// One statement of a query string, with what stands before it as blanks, so that PostgreSQL counts error positions
/// from the start of the whole string.
fn piece_of(sql: &[u8], range: &Range<u32>) -> Vec<u8> {
    let (start, end) = (range.start as usize, range.end as usize);
    let before = sql.get(..start).unwrap_or_default();
    // Positions are counted in characters, so one blank stands for one character.
    let characters = before.iter().filter(|byte| (**byte as i8) >= -0x40).count();
    let mut piece = vec![b' '; characters];
    piece.extend_from_slice(sql.get(start..end).unwrap_or_default());
    piece
}

/// The end of a block, or a way back into it: accepted also when it has failed.
pub(super) fn is_end(plan: &Plan) -> bool {
    matches!(
        plan.command,
        Command::Commit { .. }
            | Command::Rollback { .. }
            | Command::PrepareTransaction(_)
            | Command::RollbackTo(_)
    )
}

#[cfg(test)]
mod tests {
    use super::piece_of;

    #[test]
    fn a_piece_keeps_its_place_in_characters() {
        let sql = "SELECT 'é'; SELECT nope";
        let start = u32::try_from(sql.find("SELECT nope").unwrap()).unwrap();
        let piece = piece_of(sql.as_bytes(), &(start..u32::try_from(sql.len()).unwrap()));
        let piece = String::from_utf8(piece).unwrap();
        assert_eq!(piece.trim_start(), "SELECT nope");
        assert_eq!(piece.chars().count(), sql.chars().count());
    }
}
