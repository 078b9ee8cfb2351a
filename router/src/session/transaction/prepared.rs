//! Transactions that the client prepares itself, and ends later by any session of any router.
//!
//! The first shard always takes part, and its part has the client's own name: PostgreSQL sees to it that the name is there once, says whose
//! it is, and lists it. Parts on other shards have names of ours ([`crate::two_phase`]). The first shard's part holds the decision: it is committed
//! by the client's COMMIT PREPARED, and with that the others are; what is left of them then, recovery ends.

use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use switchyard_schema::ShardIndex;
use switchyard_wire::SqlState;
use tokio::time::{Instant, sleep};

use crate::backend::{QueryError, Show};
use crate::execute::failure::Failure;
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::plan::Refusal;
use crate::session::Session;
use crate::session::simple::{Ready, Sent};
use crate::session::transaction::commit::{Indexes, Parties, UNMASKED, guise};
use crate::two_phase::fence::{HOLD_DECISION, LET_GO_OF_DECISION};
use crate::two_phase::recovery::Outcome;
use crate::two_phase::{GlobalId, PARTS};

/// A part of a transaction that a client has prepared.
struct Part {
    id: GlobalId,
    /// The participant that can end it.
    index: usize,
}

/// What is to be ended, and by which statement of the client's.
struct End<'a> {
    name: &'a str,
    commit: bool,
    sql: String,
}

/// The longest the first shard is asked what has become of a transaction; then nobody knows.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts.
const APART: Duration = Duration::from_millis(50);

/// The number of what is prepared under a name, with its epoch: that of the next number, or the one before.
const NUMBER: &str = "\
SELECT (n.next & ~4294967295) + n.own - CASE WHEN n.own > (n.next & 4294967295) THEN 4294967296 ELSE 0 END
  FROM (SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::pg_catalog.text::pg_catalog.int8 AS next,
               p.transaction::pg_catalog.text::pg_catalog.int8 AS own
          FROM pg_catalog.pg_prepared_xacts AS p WHERE p.gid = $NAME AND p.database = pg_catalog.current_database()) AS n";

/// What has become of it.
const STATUS: &str = "\
SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts AS p
                          WHERE p.gid = $NAME AND p.transaction::pg_catalog.text::pg_catalog.int8 = $NUMBER::pg_catalog.int8 & 4294967295)
            THEN 'prepared' ELSE pg_catalog.pg_xact_status($NUMBER::pg_catalog.xid8) END";

/// What ends a prepared transaction.
pub(in crate::session) fn ending(commit: bool) -> &'static str {
    match commit {
        true => "COMMIT PREPARED",
        false => "ROLLBACK PREPARED",
    }
}

impl Session {
    /// `PREPARE TRANSACTION`
    pub(in crate::session) async fn prepare_transaction(
        &mut self,
        name: &str,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let is_explicit = self.block.as_ref().is_some_and(|block| block.explicit);
        if !is_explicit {
            self.warn_no_transaction();
        }
        // As in PostgreSQL: several statements of one query string are a block, those of a batch are not.
        let in_batch = !is_explicit && !self.batch.is_empty();
        if self.block.is_none() || in_batch {
            self.commit_block().await?;
            return self.complete("ROLLBACK");
        }
        if self.block_has_failed() {
            self.rollback_block().await?;
            return self.complete("ROLLBACK");
        }
        let prepared = self.prepare_block(name, sent).await;
        let Some(mut block) = self.block.take() else {
            return Err(Failure::Retry.into());
        };
        if let Err(trouble) = prepared {
            self.take_settings(Arc::clone(block.settings_before()));
            self.rollback_participants().await?;
            return Err(trouble);
        }
        self.participants.leave_block();
        self.participants.close_broken(&self.database);
        self.take_settings(Arc::clone(&self.settings));
        if !block.unsure.is_empty() {
            self.learn_unsure(std::mem::take(&mut block.unsure)).await?;
        }
        if block.changed_temporary {
            self.learn_temporary().await;
        }
        self.complete("PREPARE TRANSACTION")
    }

    /// Prepares all parts of the block, or none.
    async fn prepare_block(&mut self, name: &str, sent: Sent<'_>) -> Result<(), Trouble> {
        if self.will_hold_a_cursor() {
            let message = "cannot PREPARE a transaction that has created a cursor WITH HOLD";
            return Err(Failure::Refused(Box::new(Refusal::certain("0A000", message))).into());
        }
        if self
            .block
            .as_ref()
            .is_some_and(|block| !block.listening().is_empty())
        {
            let message =
                "cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY";
            return Err(Failure::Refused(Box::new(Refusal::certain("0A000", message))).into());
        }
        self.end_cursors_since(0).await;
        let decider = self.join_for_all(ShardIndex::FIRST, Need::Primary).await?;
        self.writes_on(decider)?;
        let sql = String::from_utf8_lossy(sent.sql()).into_owned();
        let writers = self.participants_that(|held| held.wrote);
        let others = writers.iter().filter(|index| **index != decider);
        if others.count() == 0 {
            return self.prepare_here(decider, &sql).await;
        }
        let shard = Arc::clone(&self.participants.at(decider)?.shard_name);
        let id = GlobalId::of_client(name, &shard, &self.user);
        let parties = self.parties_under(id, decider, &writers).await?;
        let prepared = self.prepare_parts(&parties, &sql).await;
        match prepared {
            Err(Trouble::Lost) => self.settle_prepared(&parties).await,
            Err(trouble) => {
                // Nobody will prepare the decider's part.
                self.end_prepared(&parties, false).await;
                Err(trouble)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Prepares where only the first shard has something to lose.
    async fn prepare_here(&mut self, decider: usize, sql: &str) -> Result<(), Trouble> {
        self.take_steps(&self.readers()).await?;
        match self.prepare_decider(decider, sql).await {
            Err(Trouble::Lost) => {
                let shard = self.shard_name(ShardIndex::FIRST);
                Err(Failure::OutcomeUnknown { shard }.into())
            }
            prepared => prepared,
        }
    }

    /// The decider writes its row first: whoever finds a part without a row and without the decider's lock knows that there will be none.
    async fn prepare_parts(&mut self, parties: &Parties, sql: &str) -> Result<(), Trouble> {
        let block = self.block.as_ref();
        let guise = block.and_then(|block| guise(block.effective()));
        if guise.is_some() {
            self.run_on_decider(parties, UNMASKED).await?;
        }
        self.take_steps(&[parties.decision()]).await?;
        if let Some(guise) = guise {
            self.run_on_decider(parties, &guise).await?;
        }
        self.take_steps(&parties.preparations()).await?;
        self.prepare_decider(parties.decider, sql).await
    }

    /// Prepares the decider's part, under the client's name. From then on the transaction is prepared.
    async fn prepare_decider(&mut self, decider: usize, sql: &str) -> Result<(), Trouble> {
        let failed = self.run_shown(decider, sql, Show::Notices).await?;
        let settings = Arc::clone(&self.settings);
        let decider = self.participants.at(decider)?;
        if failed || !decider.last_tag_is(b"PREPARE TRANSACTION") {
            return Err(Trouble::Told);
        }
        decider.in_block = false;
        decider.connection.applied = Some(settings);
        Ok(())
    }

    /// The decider was lost while it prepared its part: it is asked whether it has.
    async fn settle_prepared(&mut self, parties: &Parties) -> Result<(), Trouble> {
        let decider = self.participants.at(parties.decider)?;
        decider.in_block = false;
        let shard: Box<str> = (&*decider.shard_name).into();
        match self.settle_elsewhere(&parties.id).await {
            Outcome::Prepared | Outcome::Committed => Ok(()),
            Outcome::RolledBack => Err(Failure::ShardLost { shard }.into()),
            Outcome::Unknown => Err(Failure::OutcomeUnknown { shard }.into()),
        }
    }

    /// `COMMIT PREPARED`, `ROLLBACK PREPARED`
    pub(in crate::session) async fn end_prepared_transaction(
        &mut self,
        name: &str,
        commit: bool,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        if self.block.is_some() {
            return Err(Failure::NotInBlock(ending(commit)).into());
        }
        // In the order of the shards, as everybody waits for connections.
        let decider = self.join_for_all(ShardIndex::FIRST, Need::Primary).await?;
        let parts = self.parts_of(name).await?;
        let sql = String::from_utf8_lossy(sent.sql()).into_owned();
        let end = End { name, commit, sql };
        let number = self.number_of(decider, &end).await?;
        let (ended, is_here) = match self.end_first(decider, &end).await {
            Err(Trouble::Lost) => {
                self.participants.at(decider)?.connection.broken = true;
                (self.end_again(&number, &end).await, false)
            }
            ended => (ended, true),
        };
        if ended? {
            return Err(Trouble::Told);
        }
        for part in parts {
            if !is_here || self.end_part(decider, &part).await.is_err() {
                // It is decided. What follows in this session is to see it, so that it is waited for.
                self.settle_elsewhere(&part.id).await;
            }
        }
        self.participants.close_broken(&self.database);
        if commit {
            self.schema_changed().await;
        }
        self.complete(ending(commit))
    }

    /// Ends the first shard's part. True if it has failed, and the error has been shown.
    async fn end_first(&mut self, decider: usize, end: &End<'_>) -> Result<bool, Trouble> {
        self.writes_on(decider)?;
        match end.commit {
            true => self.decide(decider, &end.sql).await,
            false => self.run_on(decider, &end.sql).await,
        }
    }

    /// The number of the transaction that the first shard has prepared under the name, if there is one.
    async fn number_of(
        &mut self,
        decider: usize,
        end: &End<'_>,
    ) -> Result<Option<String>, Trouble> {
        let connection = &mut self.participants.at(decider)?.connection;
        connection.unnamed = None;
        let query = NUMBER.replace("$NAME", &escape_literal(end.name));
        match connection.simple_query(&query).await {
            Ok(rows) => Ok(rows.into_iter().flatten().next().flatten()),
            Err(error) => Err(self.participants.at(decider)?.query_failure(error).into()),
        }
    }

    /// The connection was lost while the first shard's part was ended: it is asked whether it has been, and ended if it has not.
    async fn end_again(&mut self, number: &Option<String>, end: &End<'_>) -> Result<bool, Trouble> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            self.participants.close_broken(&self.database);
            if let Some(failed) = self.end_unless_ended(number.as_deref(), end).await? {
                return Ok(failed);
            }
            sleep(APART).await;
        }
        self.participants.close_broken(&self.database);
        let shard = self.shard_name(ShardIndex::FIRST);
        Err(Failure::OutcomeUnknown { shard }.into())
    }

    /// One attempt at that; `None` if nothing is certain yet.
    async fn end_unless_ended(
        &mut self,
        number: Option<&str>,
        end: &End<'_>,
    ) -> Result<Option<bool>, Trouble> {
        let decider = match self.join_for_all(ShardIndex::FIRST, Need::Primary).await {
            Ok(decider) => decider,
            Err(Trouble::Failure(_) | Trouble::Lost) => return Ok(None),
            Err(other) => return Err(other),
        };
        let Some(number) = number else {
            // There was none, as PostgreSQL is to say.
            return self.or_later(decider, end).await;
        };
        let query = STATUS
            .replace("$NAME", &escape_literal(end.name))
            .replace("$NUMBER", &escape_literal(number));
        let connection = &mut self.participants.at(decider)?.connection;
        let Ok(rows) = connection.simple_query(&query).await else {
            connection.broken = true;
            return Ok(None);
        };
        let status = rows.into_iter().flatten().next().flatten();
        match (status.as_deref(), end.commit) {
            (Some("committed"), true) | (Some("aborted"), false) => Ok(Some(false)),
            (Some("prepared"), _) => {
                let before = self.client.hold();
                let ended = self.or_later(decider, end).await;
                self.client.unhold(before);
                // Who has failed may have met the one before, which is still at it.
                Ok(ended?.filter(|failed| !failed))
            }
            // Somebody else has ended it otherwise, as PostgreSQL is to say.
            (Some("committed" | "aborted"), _) => self.or_later(decider, end).await,
            _ => Ok(None),
        }
    }

    /// Ends the first shard's part; `None` if the connection is lost once more.
    async fn or_later(&mut self, decider: usize, end: &End<'_>) -> Result<Option<bool>, Trouble> {
        match self.end_first(decider, end).await {
            Err(Trouble::Lost) => {
                self.participants.at(decider)?.connection.broken = true;
                Ok(None)
            }
            ended => ended.map(Some),
        }
    }

    /// Commits the first shard's part, unless a fence stands: for that it would have to wait.
    async fn decide(&mut self, decider: usize, sql: &str) -> Result<bool, Trouble> {
        if self.run_on(decider, HOLD_DECISION).await? {
            return Ok(true);
        }
        let committed = self.run_on(decider, sql).await?;
        let connection = &mut self.participants.at(decider)?.connection;
        // With the connection the lock goes, too.
        connection.broken |= connection.simple_query(LET_GO_OF_DECISION).await.is_err();
        Ok(committed)
    }

    /// The parts on other shards of what a client has given this name. A shard that cannot be asked learns of the end later.
    async fn parts_of(&mut self, name: &str) -> Result<Vec<Part>, Trouble> {
        let mut asked = Indexes::new();
        for position in 1..self.database.shards.len() {
            let shard = ShardIndex(u16::try_from(position).map_err(|_| Failure::Retry)?);
            let index = match self.join_for_all(shard, Need::Primary).await {
                Ok(index) => index,
                Err(Trouble::Failure(Failure::ShardDown { .. })) => continue,
                Err(trouble) => return Err(trouble),
            };
            let connection = &mut self.participants.at(index)?.connection;
            connection.unnamed = None;
            if connection.send_query(PARTS).await.is_ok() {
                asked.push(index);
            }
        }
        let mut parts = Vec::new();
        for index in asked {
            let connection = &mut self.participants.at(index)?.connection;
            // One that is lost is closed in the end.
            let Ok(rows) = connection.query_answer().await else {
                continue;
            };
            let names = rows.into_iter().flatten().flatten();
            let ids = names.filter_map(|name| GlobalId::parse(&name));
            let ids = ids.filter(|id| id.is_of_client(name));
            parts.extend(ids.map(|id| Part { id, index }));
        }
        Ok(parts)
    }

    /// What is done on it raises what the session's reads have to have seen.
    fn writes_on(&mut self, index: usize) -> Result<(), Failure> {
        let participant = self.participants.at(index)?;
        participant.wrote = true;
        participant.connection.unnamed = None;
        Ok(())
    }

    /// Ends a part as the decider says, which has just decided; unless it is a part of what somebody has prepared under the same name since.
    async fn end_part(&mut self, decider: usize, part: &Part) -> Result<(), Unended> {
        let decider = &mut self.participants.at(decider)?.connection;
        let held = decider.simple_query(&part.id.held()).await?;
        if is_true(&held) == Some(true) {
            return Ok(());
        }
        let decided = decider.simple_query(&part.id.decision()).await?;
        // Without a row there will be none: the decider's part is gone.
        let committed = is_true(&decided) == Some(true);
        self.writes_on(part.index)?;
        let connection = &mut self.participants.at(part.index)?.connection;
        match connection.simple_query(&part.id.end(committed)).await {
            Ok(_) => Ok(()),
            // Another has been faster.
            Err(QueryError::Server { sqlstate, .. }) if sqlstate == SqlState::UNDEFINED_OBJECT => {
                Ok(())
            }
            Err(error) => {
                tracing::warn!(transaction = %part.id, %error, "what is prepared could not be ended at once");
                Err(Unended)
            }
        }
    }
}

/// A part could not be ended by the session.
struct Unended;

impl From<QueryError> for Unended {
    fn from(_: QueryError) -> Self {
        Self
    }
}

impl From<Failure> for Unended {
    fn from(_: Failure) -> Self {
        Self
    }
}

/// The first value of an answer.
fn is_true(rows: &[Vec<Option<String>>]) -> Option<bool> {
    let value = rows.first()?.first()?.as_deref()?;
    Some(value == "t")
}
