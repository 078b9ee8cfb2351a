//! Statements that PostgreSQL runs in no transaction block, on one shard after the other. One that fails says how far it has come; called
//! again it goes on with the shards that are left.

use bytes::BytesMut;
use postgres_protocol::escape::escape_literal;
use switchyard_schema::ShardIndex;
use switchyard_wire::backend::{Message, decode, encode};
use switchyard_wire::frame::HEADER;

use crate::execute::failure::Failure;
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::plan::stepwise::Stepwise;
use crate::plan::{Command, Plan, Refusal};
use crate::session::Session;
use crate::session::simple::{Ready, Sent};

/// Whether the index is there, on one shard: nothing, or whether it is valid.
const INDEX: &str = "\
SELECT i.indisvalid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
 WHERE c.relname = $INDEX
   AND c.relnamespace = (SELECT t.relnamespace FROM pg_catalog.pg_class t WHERE t.oid = pg_catalog.to_regclass($TABLE))";

/// What index it is.
const DEFINITION: &str = "\
SELECT pg_catalog.pg_get_indexdef(c.oid) FROM pg_catalog.pg_class c
 WHERE c.relname = $INDEX
   AND c.relnamespace = (SELECT t.relnamespace FROM pg_catalog.pg_class t WHERE t.oid = pg_catalog.to_regclass($TABLE))";

/// Indexes that a REINDEX CONCURRENTLY has left.
const LEFT: &str = "\
SELECT i.indexrelid::pg_catalog.regclass FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
 WHERE NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$'";

/// The shards of such a statement.
struct Steps {
    /// Those that have it already.
    done: Vec<ShardIndex>,
    /// Those it has to be run on.
    left: Vec<ShardIndex>,
}

impl Session {
    /// Runs it.
    pub(in crate::session) async fn stepwise(
        &mut self,
        plan: &Plan,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let statement = Stepwise::read(sent.sql());
        if self.block.is_some() {
            return Err(Failure::NotInBlock(statement.what()).into());
        }
        let mut steps = self.steps(&statement, plan).await?;
        let (had, missing) = (steps.done.first().copied(), steps.left.first().copied());
        let mut answer = BytesMut::new();
        while let Some(shard) = steps.left.first().copied() {
            let index = self.join_for_all(shard, Need::Primary).await?;
            let held = self.client.hold();
            let ran = self
                .run_hidden(index, plan, sent.message, answer.is_empty())
                .await;
            let said = self.client.unhold(held);
            match ran {
                Ok(false) if answer.is_empty() => answer = said,
                Ok(false) => {}
                Ok(true) => {
                    let (detail, hint) = self.halfway(&statement, &steps, plan).await?;
                    add_to_error(&mut self.client.output, &said, &detail, &hint);
                    self.stepped(plan).await;
                    return Err(Trouble::Told);
                }
                Err(Trouble::Failure(failure)) => {
                    self.stepped(plan).await;
                    let (detail, hint) = self.halfway(&statement, &steps, plan).await?;
                    return Err(Failure::Halfway {
                        failure: Box::new(failure),
                        detail: detail.into(),
                        hint: hint.into(),
                    }
                    .into());
                }
                Err(trouble) => return Err(trouble),
            }
            steps.done.push(steps.left.remove(0));
        }
        self.stepped(plan).await;
        if let (Some(had), Some(got)) = (had, missing) {
            self.is_the_same(&statement, (had, got), plan).await?;
        }
        self.client.output.extend_from_slice(&answer);
        Ok(Ready::ToBeSaid)
    }

    /// An index that a shard had before must be the one that another has got now.
    async fn is_the_same(
        &mut self,
        statement: &Stepwise,
        (had, got): (ShardIndex, ShardIndex),
        plan: &Plan,
    ) -> Result<(), Trouble> {
        let Stepwise::Create { index, table } = statement else {
            return Ok(());
        };
        let query = DEFINITION
            .replace("$INDEX", &escape_literal(index))
            .replace("$TABLE", &escape_literal(table));
        let mut definitions = Vec::new();
        for shard in [had, got] {
            let index = self.join_for_all(shard, Need::Primary).await?;
            definitions.push(self.ask_lines(index, &query, plan).await?);
        }
        if had == got || definitions.first() == definitions.last() {
            return Ok(());
        }
        let (had, got) = (self.shard_name(had), self.shard_name(got));
        let message = format!("relation \"{index}\" already exists");
        let refusal = Refusal::certain("42P07", message)
            .detail(format!(
                "Shard \"{had}\" had another index of that name than shard \"{got}\" has got now."
            ))
            .hint(format!(
                "Remove the wrong one, and call this again: {}.",
                removal(&had, index)
            ));
        Err(Failure::Refused(Box::new(refusal)).into())
    }

    async fn stepped(&mut self, plan: &Plan) {
        if plan.command == Command::Ddl {
            self.schema_changed().await;
        }
    }

    /// What is left to be done. Where nothing is, or was ever done, the first shard has the answer.
    async fn steps(&mut self, statement: &Stepwise, plan: &Plan) -> Result<Steps, Trouble> {
        let mut steps = Steps {
            done: Vec::new(),
            left: Vec::new(),
        };
        for position in 0..self.database.shards.len() {
            let shard = ShardIndex(u16::try_from(position).map_err(|_| Failure::Retry)?);
            let there = match statement {
                Stepwise::Again(_) => None,
                Stepwise::Create { .. } | Stepwise::Drop(_) => {
                    self.index_on(shard, statement, plan).await?
                }
            };
            let is_done = match (statement, there) {
                (Stepwise::Create { index, .. }, Some(false)) => {
                    return Err(self.invalid(shard, index).into());
                }
                (Stepwise::Create { .. }, there) => there.is_some(),
                (Stepwise::Drop(_), there) => there.is_none(),
                (Stepwise::Again(_), _) => false,
            };
            match is_done {
                true => steps.done.push(shard),
                false => steps.left.push(shard),
            }
        }
        if steps.left.is_empty() {
            steps.left.push(ShardIndex::FIRST);
        }
        Ok(steps)
    }

    /// Whether a shard has the index, and whether it is valid.
    async fn index_on(
        &mut self,
        shard: ShardIndex,
        statement: &Stepwise,
        plan: &Plan,
    ) -> Result<Option<bool>, Trouble> {
        let query = match statement {
            Stepwise::Create { index, table } => INDEX
                .replace("$INDEX", &escape_literal(index))
                .replace("$TABLE", &escape_literal(table)),
            Stepwise::Drop(index) => format!(
                "SELECT 't' WHERE pg_catalog.to_regclass({}) IS NOT NULL",
                escape_literal(index)
            ),
            Stepwise::Again(_) => return Ok(None),
        };
        let index = self.join_for_all(shard, Need::Primary).await?;
        let lines = self.ask_lines(index, &query, plan).await?;
        Ok(lines.first().map(|valid| valid == "t"))
    }

    fn invalid(&self, shard: ShardIndex, index: &str) -> Failure {
        let shard = self.shard_name(shard);
        let message = format!("index \"{index}\" on shard \"{shard}\" is invalid");
        let refusal = Refusal::certain("55000", message)
            .detail("Making it has been broken off.")
            .hint(format!(
                "Remove it, and call this again: {}.",
                removal(&shard, index)
            ));
        Failure::Refused(Box::new(refusal))
    }

    /// How far it has come, and what is to be done next.
    async fn halfway(
        &mut self,
        statement: &Stepwise,
        steps: &Steps,
        plan: &Plan,
    ) -> Result<(String, String), Trouble> {
        let mut detail = String::new();
        let names = |session: &Self, shards: &[ShardIndex]| {
            let names = shards.iter().map(|shard| session.shard_name(*shard));
            let names: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
            names.join(", ")
        };
        if !steps.done.is_empty() {
            detail = format!("Done on {}. ", names(self, &steps.done));
        }
        let (failed, left) = steps.left.split_first().ok_or(Failure::Retry)?;
        detail += &format!("Failed on {}.", names(self, &[*failed]));
        if !left.is_empty() {
            detail += &format!(" Not begun on {}.", names(self, left));
        }
        let mut hint = String::new();
        for index in self.left_behind(*failed, statement, plan).await {
            let shard = self.shard_name(*failed);
            hint = format!(
                "{hint}An invalid index is left; remove it: {}. ",
                removal(&shard, &index)
            );
        }
        hint += match statement {
            Stepwise::Again(_) => "Call it again.",
            Stepwise::Create { .. } | Stepwise::Drop(_) => {
                "Call it again to go on: shards where it is done are left out."
            }
        };
        Ok((detail, hint))
    }

    /// Invalid indexes that the shard on which it failed has now; none if it cannot be asked.
    async fn left_behind(
        &mut self,
        shard: ShardIndex,
        statement: &Stepwise,
        plan: &Plan,
    ) -> Vec<String> {
        match statement {
            Stepwise::Create { index, .. } => match self.index_on(shard, statement, plan).await {
                Ok(Some(false)) => vec![index.clone()],
                Ok(_) | Err(_) => Vec::new(),
            },
            Stepwise::Again("REINDEX CONCURRENTLY") => {
                let Ok(index) = self.join_for_all(shard, Need::Primary).await else {
                    return Vec::new();
                };
                self.ask_lines(index, LEFT, plan).await.unwrap_or_default()
            }
            Stepwise::Drop(_) | Stepwise::Again(_) => Vec::new(),
        }
    }
}

fn removal(shard: &str, index: &str) -> String {
    format!("/* switchyard: shard={shard} */ DROP INDEX CONCURRENTLY {index}")
}

/// PostgreSQL's error with a detail and a hint of ours behind its own. What stands before it is not for the client.
fn add_to_error(output: &mut BytesMut, said: &[u8], detail: &str, hint: &str) {
    let mut rest = said;
    while let Ok(Some(header)) = switchyard_wire::frame::header(rest) {
        let Some((message, after)) = rest.split_at_checked(header.len) else {
            return;
        };
        rest = after;
        let body = message.get(HEADER..).unwrap_or_default();
        let Ok(Message::ErrorResponse(fields)) = decode(header.tag, body) else {
            continue;
        };
        let with = |code: u8, ours: &str| match fields.get(code) {
            Some(own) => format!("{}\n{ours}", String::from_utf8_lossy(own)),
            None => ours.to_owned(),
        };
        let (detail, hint) = (with(b'D', detail), with(b'H', hint));
        let own = fields
            .iter()
            .filter(|(code, _)| !matches!(code, b'D' | b'H'));
        let ours = [(b'D', detail.as_bytes()), (b'H', hint.as_bytes())];
        encode::fields(output, b'E', own.chain(ours));
        return;
    }
}
