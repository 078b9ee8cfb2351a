//! INSERT of rows that belong to several shards: each is sent those that it stores, all at once, and what they return comes in the
//! order of the rows.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use switchyard_schema::ShardIndex;
use switchyard_wire::Format;
use switchyard_wire::backend::{Column, Message};
use switchyard_wire::frame::HEADER;
use switchyard_wire::frontend::{self, Bind};
use tokio::time::timeout;

use crate::backend::{CommandTag, Show};
use crate::execute::block::FailedOn;
use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::messages::{Said, next, violation};
use crate::execute::participant::Participant;
use crate::execute::participants::Need;
use crate::execute::relay::{Trouble, decode_message};
use crate::plan::insert::{Ahead, Computed, Part, with_values};
use crate::plan::moment::Clock;
use crate::plan::{Insert, Operator, Param, Plan, Values};
use crate::session::Session;
use crate::session::read::part::{error_position, place_error};
use crate::session::route::Routed;
use crate::session::simple::{Ready, Sent};
use crate::session::workspace::columns;
use crate::session::workspace::fetch::Asked;
use crate::sql::Scan;

/// So many bytes of rows may be returned: they are kept until every shard has stored its own.
pub(in crate::session) const MOST_RETURNED: usize = 64 << 20;
/// So many values are computed by one query.
const MOST_COLUMNS: usize = 1_000;
/// So long other shards have to say that they fail, too, when one has.
const AT_ONCE: Duration = Duration::from_millis(10);

/// An INSERT as a client asks for it.
pub(in crate::session) struct Inserting<'a> {
    pub(in crate::session) plan: &'a Plan,
    pub(in crate::session) sql: &'a [u8],
    /// The shard of each row.
    pub(in crate::session) shards: &'a [ShardIndex],
    /// Its parameters, if it has any: their types, and the message they are in.
    pub(in crate::session) bound: Option<(Vec<u32>, &'a Bind<'a>)>,
    /// Cancel requests that came before it.
    pub(in crate::session) cancels: u64,
    /// Rows that are given with it.
    pub(in crate::session) given: GivenRows,
}

/// What came of it.
#[derive(Debug, Default)]
pub(in crate::session) struct Inserted {
    /// What is said of the rows that are returned, if it was asked for: a whole message.
    pub(in crate::session) description: Option<Bytes>,
    /// Those rows, each a whole message.
    pub(in crate::session) rows: Vec<Bytes>,
    /// How many rows have been stored.
    pub(in crate::session) count: u64,
    /// The command tag without that number; empty for INSERT.
    pub(in crate::session) command: &'static str,
}

impl Inserted {
    /// The command tag.
    pub(in crate::session) fn tag(&self) -> String {
        match self.command {
            "" => format!("INSERT 0 {}", self.count),
            command => format!("{command} {}", self.count),
        }
    }
}

/// What one shard has answered.
#[derive(Debug, Default)]
pub(in crate::session) struct Answer {
    description: Option<Bytes>,
    pub(in crate::session) rows: VecDeque<Bytes>,
    pub(in crate::session) count: u64,
    /// It has refused.
    failed: bool,
}

/// What one shard says of the error it met, in words of the client's text.
struct Refused {
    shard: ShardIndex,
    said: BytesMut,
}

impl Session {
    /// Inserts rows, by the simple protocol.
    pub(in crate::session) async fn insert(
        &mut self,
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        // What PostgreSQL lets stand in a single row only, each shard may have in one.
        let looks = !matches!(&routed.plan.operator, Operator::Insert(insert) if !insert.calls);
        if looks && Box::pin(self.analyse(sent.sql())).await? {
            return Err(Trouble::Told);
        }
        let inserting = Inserting {
            plan: &routed.plan,
            sql: sent.sql(),
            shards: &routed.rows,
            bound: None,
            cancels: self.cancel.slot().requests(),
            given: GivenRows::default(),
        };
        self.insert_and_tell(&inserting).await
    }

    /// Inserts rows, and tells the client when they are there to stay, or as much as the block is.
    pub(in crate::session) async fn insert_and_tell(
        &mut self,
        asked: &Inserting<'_>,
    ) -> Result<Ready, Trouble> {
        let implicit = self.begin_implicit();
        let inserted = self.insert_rows(asked).await?;
        if implicit {
            self.commit_implicit().await?;
        }
        let output = &mut self.client.output;
        output.extend_from_slice(inserted.description.as_deref().unwrap_or_default());
        let rows = inserted.rows.iter();
        rows.for_each(|row| output.extend_from_slice(row));
        self.complete(&inserted.tag())
    }

    /// Inserts rows, in a block, which is there. What has gone wrong fails the block.
    pub(in crate::session) async fn insert_rows(
        &mut self,
        asked: &Inserting<'_>,
    ) -> Result<Inserted, Trouble> {
        let outcome = if let Operator::InsertQuery(from) = &asked.plan.operator {
            Box::pin(self.insert_query(from, asked)).await
        } else if let Operator::Move(of) = &asked.plan.operator {
            Box::pin(self.move_rows(of, asked)).await
        } else if let Operator::Steps(steps) = &asked.plan.operator {
            Box::pin(self.run_steps(steps, asked)).await
        } else if let Operator::Insert(insert) = &asked.plan.operator
            && insert.of_defaults
        {
            let text = with_values(asked.sql).ok_or(Failure::Retry)?;
            let bound = asked.bound.clone();
            let asked = Inserting {
                sql: &text,
                bound,
                given: GivenRows::default(),
                ..*asked
            };
            Box::pin(self.insert_parts(&asked)).await
        } else {
            Box::pin(self.insert_parts(asked)).await
        };
        let kept = match &outcome {
            Ok(_) => self.keep_unique(asked.plan).await,
            Err(_) => Ok(()),
        };
        let outcome = kept.and(outcome);
        match &outcome {
            Ok(_) => {}
            Err(Trouble::Gone | Trouble::Protocol(_)) => {}
            Err(_) => self.abandon_rows(None).await,
        }
        outcome
    }

    async fn insert_parts(&mut self, asked: &Inserting<'_>) -> Result<Inserted, Trouble> {
        let Operator::Insert(insert) = &asked.plan.operator else {
            return Err(Failure::Retry.into());
        };
        let first = asked.shards.first().copied();
        let clock = match insert.moments {
            true => Some(self.clock(first.unwrap_or(ShardIndex::FIRST)).await?),
            false => None,
        };
        let computed = match insert.computes() {
            true => self.compute(insert, asked, clock.as_ref()).await?,
            false => Ahead {
                keys: Vec::new(),
                next: Vec::new(),
            },
        };
        let own = match insert.computes_keys() {
            true => match asked.shards_with(insert, &computed.keys) {
                Ok(shards) => Some(shards),
                Err(failure) => return Err(self.or_refused(failure, asked.sql).await),
            },
            false => None,
        };
        let shards = own.as_deref().unwrap_or(asked.shards);
        let parts = insert.parts(asked.sql, shards, clock.as_ref(), &computed);
        let parts = parts.ok_or(Failure::Retry)?;
        let indexes = self.send_rows(asked, &parts).await?;
        self.cancel_again(asked.cancels).await;
        let mut answers = Vec::with_capacity(parts.len());
        let mut returned = 0;
        for (at, (part, index)) in parts.iter().zip(&indexes).enumerate() {
            let before = self.client.hold();
            let answer = self.rows_answered(*index, asked.plan, &mut returned).await;
            let said = self.client.unhold(before);
            let answer = answer?;
            if answer.failed {
                let first = refused(asked.sql, part, said);
                let others = parts.iter().zip(&indexes).skip(at + 1);
                let others: Vec<_> = others.map(|(part, index)| (part, *index)).collect();
                return Err(self.insert_refused(asked, first, &others).await);
            }
            self.client.output.extend_from_slice(&said);
            answers.push(answer);
        }
        for index in &indexes {
            if let Some(after) = self.note_statement(*index, asked.plan) {
                self.after_statement(after).await?;
            }
        }
        let of = parts.iter().map(|part| part.shard);
        Ok(put_together(shards, of.zip(answers).collect()))
    }

    /// One of the shards, which computes what is computed once.
    async fn join_one(&mut self, insert: &Insert, asked: &Inserting<'_>) -> Result<usize, Trouble> {
        if insert.takes_next {
            return self.join_sequences(asked.plan).await;
        }
        let joined = |held: &&Participant| held.in_block && held.is_primary;
        let joined = self.participants.iter().find(joined);
        let joined = joined.map(|held| held.shard);
        let shard = joined.or(asked.shards.first().copied());
        let shard = shard.unwrap_or_else(|| self.any_shard());
        self.join(shard, Need::Primary).await
    }

    /// Lets PostgreSQL compute the keys that are expressions, and the next values of sequences.
    async fn compute(
        &mut self,
        insert: &Insert,
        asked: &Inserting<'_>,
        clock: Option<&Clock>,
    ) -> Result<Ahead<Computed>, Trouble> {
        let expressions = insert.expressions(asked.sql, clock);
        let expressions = expressions.ok_or(Failure::Retry)?;
        let index = self.join_one(insert, asked).await?;
        Ok(Ahead {
            keys: self.compute_on(index, &expressions.keys, asked).await?,
            next: self.compute_on(index, &expressions.next, asked).await?,
        })
    }

    /// Lets one shard compute these.
    async fn compute_on(
        &mut self,
        index: usize,
        expressions: &[String],
        asked: &Inserting<'_>,
    ) -> Result<Vec<Computed>, Trouble> {
        let mut computed = Vec::with_capacity(expressions.len());
        let reads_state = asked.plan.effects.reads_sequence_state;
        for mut query in queries(expressions, !reads_state) {
            if reads_state {
                let given = self.with_remembered(query.as_bytes(), asked.plan)?;
                query = String::from_utf8(given).map_err(|_| Failure::NotUtf8)?;
            }
            let own = Asked {
                sql: query.as_bytes(),
                params: asked.bound.clone(),
                given: GivenRows::default(),
                need: Need::Primary,
                cancels: asked.cancels,
            };
            self.ask(index, &query, &[Format::Text], &own).await?;
            let mut returned = 0;
            // An error speaks of places in a text of ours.
            let answer = self
                .rows_or_error(index, asked.plan, &mut returned, |_| None)
                .await?;
            let values = answer.values().ok_or(Failure::Retry)?;
            if values.iter().any(|value| value.type_name().is_none()) {
                let (what, hint) = (
                    "a value of this type that is computed before its row is stored".into(),
                    "Cast it to a number or to text.",
                );
                return Err(Failure::Unsupported { what, hint }.into());
            }
            computed.extend(values);
        }
        if computed.len() != expressions.len() {
            return Err(Failure::Retry.into());
        }
        Ok(computed)
    }

    /// Sends each shard its rows: the participants, in the parts' order.
    async fn send_rows(
        &mut self,
        asked: &Inserting<'_>,
        parts: &[Part],
    ) -> Result<Vec<usize>, Trouble> {
        // Shards are joined in their order by everybody, so that fewer wait for each other.
        let mut order: Vec<usize> = (0..parts.len()).collect();
        order.sort_by_key(|at| parts.get(*at).map(|part| part.shard));
        let mut indexes = vec![0; parts.len()];
        for at in &order {
            if let (Some(part), Some(index)) = (parts.get(*at), indexes.get_mut(*at)) {
                *index = self.join(part.shard, Need::Primary).await?;
            }
        }
        // One that works by the extended protocol keeps its answers until it is asked for them.
        for index in &indexes {
            if self.participants.at(*index)?.needs_sync {
                self.settle_one(*index, asked.plan).await?;
            }
        }
        for at in order {
            let (Some(part), Some(index)) = (parts.get(at), indexes.get(at)) else {
                continue;
            };
            let text = part.text(asked.sql);
            let participant = self.participants.at(*index)?;
            participant.note_run(asked.plan);
            participant.failed = false;
            participant.unread = true;
            let connection = &mut *participant.connection;
            connection.unnamed = None;
            asked.encode(&mut connection.output, &text);
            // An idle backend reads a whole statement before it answers: this cannot block on its replies.
            if connection.flush().await.is_err() {
                return Err(self.lose(*index, asked.plan));
            }
        }
        // What they owe from before, the answer to BEGIN mostly, they have answered first.
        self.settle_each(&indexes, asked.plan).await?;
        Ok(indexes)
    }

    /// Reads a shard's answer to its end. An error is the client's, with the place it has in its text.
    pub(in crate::session) async fn rows_or_error(
        &mut self,
        index: usize,
        plan: &Plan,
        returned: &mut usize,
        origin: impl Fn(usize) -> Option<usize>,
    ) -> Result<Answer, Trouble> {
        let before = self.client.hold();
        let answer = self.rows_answered(index, plan, returned).await;
        let mut said = self.client.unhold(before);
        let answer = answer?;
        if !answer.failed {
            self.client.output.extend_from_slice(&said);
            return Ok(answer);
        }
        place_error(&mut said, 0, origin);
        self.client.output.extend_from_slice(&said);
        let shard = self.participants.at(index)?.shard;
        if let Some(block) = &mut self.block {
            block.failed.get_or_insert(FailedOn::Shard(shard));
        }
        Err(Trouble::Told)
    }

    /// Reads a shard's answer to its end. What it says besides is in the client's output.
    async fn rows_answered(
        &mut self,
        index: usize,
        plan: &Plan,
        returned: &mut usize,
    ) -> Result<Answer, Trouble> {
        let mut answer = Answer::default();
        loop {
            let Self {
                client,
                participants,
                cancel,
                ..
            } = self;
            let participant = participants.at(index)?;
            let said = match next(client, participant, Show::All).await {
                Ok(said) => said,
                Err(Trouble::Lost) => {
                    participant.connection.broken = true;
                    cancel.slot().withdraw(&participant.connection.target);
                    return Err(self.lost_at(index, plan));
                }
                Err(trouble) => return Err(trouble),
            };
            let header = match said {
                Said::Message(header) => header,
                Said::Error => {
                    answer.failed = true;
                    continue;
                }
                Said::Ready => {
                    participant.unread = false;
                    return Ok(answer);
                }
            };
            let message = participant.connection.input.split_to(header.len);
            match header.tag {
                b'T' => answer.description = Some(message.freeze()),
                b'D' => {
                    *returned += message.len();
                    if *returned > MOST_RETURNED {
                        let limit = MOST_RETURNED as u64;
                        return Err(Failure::ReturnedLimit { limit }.into());
                    }
                    answer.rows.push_back(message.freeze());
                }
                b'C' => answer.count = stored(&message),
                b'1' | b'2' | b'n' => {}
                tag => return Err(violation(participant, Some(tag))),
            }
        }
    }

    /// A shard has refused its rows. The client hears one error: of several, that of the first place in its text, or else of
    /// the first row.
    async fn insert_refused(
        &mut self,
        asked: &Inserting<'_>,
        first: Refused,
        others: &[(&Part, usize)],
    ) -> Trouble {
        let mut all = vec![first];
        for (part, index) in others {
            let before = self.client.hold();
            let mut returned = 0;
            let answered = self.rows_answered(*index, asked.plan, &mut returned);
            let answered = timeout(AT_ONCE, answered).await;
            let said = self.client.unhold(before);
            if matches!(&answered, Ok(Ok(answer)) if answer.failed) {
                all.push(refused(asked.sql, part, said));
            }
        }
        let told = all
            .iter()
            .min_by_key(|refused| error_position(&refused.said).unwrap_or(usize::MAX));
        if let Some(Refused { shard, said }) = told {
            self.client.output.extend_from_slice(said);
            if let Some(block) = &mut self.block {
                block.failed.get_or_insert(FailedOn::Shard(*shard));
            }
        }
        Trouble::Told
    }
}

impl Answer {
    /// The values of its rows, one row after the other.
    fn values(&self) -> Option<Vec<Computed>> {
        let description = columns(self.description.as_deref()?)?;
        let value = |(value, column): (Option<&[u8]>, Column<'_>)| Computed {
            text: value.map(<[u8]>::to_vec),
            oid: column.type_oid,
        };
        let mut values = Vec::new();
        for row in &self.rows {
            let Ok(Message::DataRow(row)) = decode_message(row) else {
                return None;
            };
            values.extend(row.iter().zip(description.iter()).map(value));
        }
        Some(values)
    }
}

impl Inserting<'_> {
    /// The shard of each row, where these are the keys that were computed.
    fn shards_with(
        &self,
        insert: &Insert,
        computed: &[Computed],
    ) -> Result<Vec<ShardIndex>, Failure> {
        self.with_values(self.sql, |values| insert.shards(values, computed))?
            .map_err(Failure::Refused)
    }

    /// Calls with the values of an execution of this text.
    pub(in crate::session) fn with_values<T>(
        &self,
        sql: &[u8],
        call: impl FnOnce(&Values<'_>) -> T,
    ) -> Result<T, Failure> {
        let mut scan = Scan::new();
        scan.scan(sql).map_err(|_| Failure::Retry)?;
        let params: Vec<Param<'_>> = match &self.bound {
            Some((types, bind)) => {
                let values = bind.params.iter().zip(types).enumerate();
                let param = |(at, (value, oid)): (usize, (_, &u32))| Param {
                    value,
                    binary: bind.param_formats.format(at) == Format::Binary,
                    oid: *oid,
                };
                values.map(param).collect()
            }
            None => Vec::new(),
        };
        Ok(call(&Values {
            sql,
            literals: &scan.literals,
            params: &params.as_slice(),
        }))
    }

    /// The formats of the columns that the client gets.
    pub(in crate::session) fn formats(&self, columns: usize) -> Vec<Format> {
        let wanted = |at| match &self.bound {
            Some((_, bind)) => bind.result_formats.format(at),
            None => Format::Text,
        };
        (0..columns).map(wanted).collect()
    }

    /// Appends the messages that run a shard's text, up to one that is answered by ReadyForQuery.
    fn encode(&self, output: &mut BytesMut, text: &[u8]) {
        let Some((types, bind)) = &self.bound else {
            return frontend::encode::query(output, text);
        };
        let asked = Asked {
            sql: self.sql,
            params: Some((types.clone(), bind)),
            given: GivenRows::default(),
            need: Need::Primary,
            cancels: self.cancels,
        };
        let results: Vec<Format> = bind.result_formats.iter().collect();
        asked.encode_bind(output, text, b"", &results);
        frontend::encode::execute(output, b"", 0);
        frontend::encode::sync(output);
    }
}

/// The queries whose rows have the values of these expressions, in their order. The next values of a sequence for many rows are one expression
/// many times: if it `may_repeat`, it is written once.
fn queries(expressions: &[String], may_repeat: bool) -> Vec<String> {
    // PostgreSQL runs a subquery that does not depend on the row once for all rows.
    let is_plain = |one: &&String| !one.to_ascii_lowercase().contains("select");
    match expressions {
        [first, _, ..]
            if may_repeat && is_plain(&first) && expressions.iter().all(|one| one == first) =>
        {
            let times = expressions.len();
            vec![format!(
                "SELECT {first} FROM pg_catalog.generate_series(1, {times})"
            )]
        }
        _ => {
            let some = expressions.chunks(MOST_COLUMNS);
            some.map(|some| format!("SELECT {}", some.join(", ")))
                .collect()
        }
    }
}

/// The shard of each row that an execution of this plan stores, if the plan is for several.
pub(in crate::session) fn shards_of_rows(
    plan: &Plan,
    values: &Values<'_>,
) -> Result<Vec<ShardIndex>, Failure> {
    let Operator::Insert(insert) = &plan.operator else {
        return Ok(Vec::new());
    };
    match insert.computes_keys() {
        true => Ok(Vec::new()),
        false => insert.shards(values, &[]).map_err(Failure::Refused),
    }
}

fn refused(sql: &[u8], part: &Part, mut said: BytesMut) -> Refused {
    place_error(&mut said, 0, |position| part.origin(sql, position));
    Refused {
        shard: part.shard,
        said,
    }
}

/// The number of rows in a whole CommandComplete message.
fn stored(message: &[u8]) -> u64 {
    CommandTag::of(message.get(HEADER..).unwrap_or_default()).rows()
}

/// One result: each shard returns its rows in their order, and all of them unless a trigger or a conflict has left some out.
fn put_together(shards: &[ShardIndex], mut answers: Vec<(ShardIndex, Answer)>) -> Inserted {
    let count = answers.iter().map(|(_, answer)| answer.count).sum();
    let returned = answers.iter().map(|(_, answer)| answer.rows.len()).sum();
    let description = answers
        .first_mut()
        .and_then(|(_, answer)| answer.description.take());
    let mut rows = Vec::with_capacity(returned);
    for shard in shards {
        let answer = answers.iter_mut().find(|(of, _)| of == shard);
        rows.extend(answer.and_then(|(_, answer)| answer.rows.pop_front()));
    }
    Inserted {
        description,
        rows,
        count,
        command: "",
    }
}
