//! CREATE TABLE AS and SELECT INTO of rows of several shards: PostgreSQL makes the table without rows, from the client's own text, on
//! every shard; a workspace runs the query, and its rows are copied into the table on the first shard. All of it is one transaction.

use bytes::Buf;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use switchyard_schema::{ShardIndex, ShardSet};
use switchyard_wire::Format;

use crate::backend::Show;
use crate::execute::block::FailedOn;
use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::load::load;
use crate::execute::messages::{Said, next};
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::plan::create_as::CreateAs;
use crate::plan::{self, Operator, Plan};
use crate::session::Session;
use crate::session::route::Routed;
use crate::session::simple::{Ready, Sent};
use crate::session::workspace::fetch::Asked;
use crate::session::workspace::furnish::{Fill, Furnished, Furnishing};

/// A table that is to be made.
pub(in crate::session) struct Making<'a> {
    pub(in crate::session) plan: &'a Plan,
    /// The shards of each fetch.
    pub(in crate::session) fetches: &'a [ShardSet],
    pub(in crate::session) created: &'a CreateAs,
    /// The client's text.
    pub(in crate::session) sql: &'a [u8],
}

impl Session {
    /// Makes a table of a query's rows, by the simple protocol.
    pub(in crate::session) async fn create_as(
        &mut self,
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let created = CreateAs::of(sent.sql()).ok_or(Failure::Retry)?;
        let cancels = self.cancel.slot().requests();
        let implicit = self.begin_implicit();
        let asked = Asked {
            sql: &created.query(sent.sql()),
            params: None,
            given: GivenRows::default(),
            need: Need::Primary,
            cancels,
        };
        let making = Making {
            plan: &routed.plan,
            fetches: &routed.fetches,
            created: &created,
            sql: sent.sql(),
        };
        let tag = self.make_table(&making, &asked).await?;
        if implicit {
            self.commit_implicit().await?;
        }
        if !created.temporary {
            self.schema_changed().await;
        }
        self.complete(&tag)
    }

    /// Makes the table and brings its rows, in a block, which is there: the command tag. What has gone wrong fails the block.
    pub(in crate::session) async fn make_table(
        &mut self,
        making: &Making<'_>,
        asked: &Asked<'_>,
    ) -> Result<String, Trouble> {
        let made = Box::pin(self.make_and_fill(making, asked)).await;
        if let Err(Trouble::Told) = made {
            self.note_abandoned();
        }
        if made.is_ok() {
            if let Some(block) = &mut self.block {
                block.locks_tables |= !making.created.temporary;
            }
            self.note_temporary(making.plan);
            let index = self.join(ShardIndex::FIRST, Need::Primary).await?;
            let participant = self.participants.at(index)?;
            participant.note_pins(making.plan);
        }
        made
    }

    async fn make_and_fill(
        &mut self,
        making: &Making<'_>,
        asked: &Asked<'_>,
    ) -> Result<String, Trouble> {
        let (plan, created) = (making.plan, making.created);
        let Operator::Workspace(workspace) = &plan.operator else {
            return Err(Failure::Retry.into());
        };
        // What is wrong with the query comes first, at its place in the text.
        self.describe(asked.sql).await?;
        let target = self.target(created, asked).await?;
        if created.if_not_exists.is_some() && self.exists(&target, asked).await? {
            // PostgreSQL says so.
            let definition = created.definition(making.sql, false);
            let first = ShardIndex::FIRST;
            self.define(first, plan, &definition, asked, Show::All)
                .await?;
            return Ok("CREATE TABLE AS".to_owned());
        }
        let definition = created.definition(making.sql, true);
        // As any other statement about a name that is, or was, a temporary table's.
        let is_own = created.temporary || self.temporary.contains(&created.name);
        let shards = match is_own {
            true => ShardSet::one(ShardIndex::FIRST),
            false => ShardSet::all(self.database.shards.len()),
        };
        for shard in shards.iter() {
            self.define(shard, plan, &definition, asked, Show::Errors)
                .await?;
        }
        let rows = self
            .fill_table(workspace, making.fetches, &target, asked)
            .await?;
        Ok(format!("SELECT {rows}"))
    }

    /// The table with its schema: where an unqualified name is made is asked, as what it finds may be another.
    async fn target(&mut self, created: &CreateAs, asked: &Asked<'_>) -> Result<String, Trouble> {
        let name = escape_identifier(&created.name);
        let schema = match &created.schema {
            Some(schema) => Some(escape_identifier(schema)),
            None if created.temporary => Some("pg_temp".to_owned()),
            None => {
                let current = "SELECT pg_catalog.quote_ident(pg_catalog.current_schema())";
                let index = self.join(ShardIndex::FIRST, Need::Primary).await?;
                self.value_of(index, current, asked).await?
            }
        };
        // Without any schema PostgreSQL has an error of its own.
        Ok(match schema.filter(|schema| !schema.is_empty()) {
            Some(schema) => format!("{schema}.{name}"),
            None => name,
        })
    }

    async fn exists(&mut self, target: &str, asked: &Asked<'_>) -> Result<bool, Trouble> {
        let name = escape_literal(target);
        let found = format!("SELECT 1 WHERE pg_catalog.to_regclass({name}) IS NOT NULL");
        let index = self.join(ShardIndex::FIRST, Need::Primary).await?;
        Ok(self.value_of(index, &found, asked).await?.is_some())
    }

    /// Runs a text of the client's that makes the table on a shard.
    async fn define(
        &mut self,
        shard: ShardIndex,
        plan: &Plan,
        sql: &[u8],
        asked: &Asked<'_>,
        show: Show,
    ) -> Result<(), Trouble> {
        let index = self.join(shard, Need::Primary).await?;
        let participant = self.participants.at(index)?;
        participant.note_run(plan);
        let sql = std::str::from_utf8(sql).map_err(|_| Failure::NotUtf8)?;
        self.ask(index, sql, &[Format::Text], asked).await?;
        let (client, participant, _) = self.exchanging(index)?;
        let mut failed = false;
        loop {
            match next(client, participant, show).await {
                Ok(Said::Message(header)) => participant.connection.input.advance(header.len),
                Ok(Said::Error) => failed = true,
                Ok(Said::Ready) => break,
                Err(Trouble::Lost) => return Err(self.lose(index, plan)),
                Err(trouble) => return Err(trouble),
            }
        }
        participant.unread = false;
        if failed {
            if let Some(block) = &mut self.block {
                block.failed.get_or_insert(FailedOn::Shard(shard));
            }
            return Err(Trouble::Told);
        }
        Ok(())
    }

    /// Brings the rows to a workspace, and what it makes of them into the table on the first shard; their number.
    async fn fill_table(
        &mut self,
        plan: &plan::Workspace,
        fetches: &[ShardSet],
        target: &str,
        asked: &Asked<'_>,
    ) -> Result<u64, Trouble> {
        let furnished = Box::pin(self.furnish(plan, fetches, asked, Fill::Rows)).await?;
        let Furnished {
            mut workspace,
            text,
            ..
        } = match furnished {
            Furnishing::Done(furnished) => *furnished,
            Furnishing::Failed(said) => return Err(self.failed_in_part(&said)),
        };
        let copy = format!("COPY {target} FROM STDIN (FORMAT binary)");
        let messages = |output: &mut _| asked.encode(output, &text, &[Format::Binary]);
        let loaded = match self.join(ShardIndex::FIRST, Need::Primary).await {
            Ok(index) => {
                let Self {
                    client,
                    participants,
                    cancel,
                    ..
                } = self;
                let cancelled = || cancel.slot().requested_since(asked.cancels);
                let target = participants.at(index)?;
                load(client, &mut workspace, messages, target, &copy, cancelled).await
            }
            Err(trouble) => Err(trouble),
        };
        self.leave_workspace(workspace, loaded).await
    }
}
