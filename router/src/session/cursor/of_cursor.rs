//! UPDATE and DELETE … WHERE CURRENT OF a cursor that has the places of its rows.
//!
//! The shard of the row runs the client's own statement: for as long as that takes it has a cursor of the same name, which is at this row
//! and no other. So PostgreSQL does all that it does by itself. A row that the transaction has changed is found in its latest version,
//! as PostgreSQL finds it; in the place of one that it has deleted the shard's cursor is at a row that comes from no table.

use bytes::BytesMut;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use switchyard_schema::{ShardIndex, ShardSet, TableName};
use switchyard_wire::frame;

use crate::execute::block::{Block, FailedOn};
use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::plan::lock::Locked;
use crate::plan::{Command, Plan, Refusal};
use crate::session::Session;
use crate::session::cursor::CursorApart;
use crate::session::extended::declare::ROWS;
use crate::session::prepare::arguments::Arguments;
use crate::session::route::Routed;
use crate::session::simple::{Ready, Sent};
use crate::session::statement::SessionStatement;

/// What an UPDATE in a workspace is rolled back to that finds no row.
const BEFORE: &str = "\"switchyard before\"";

/// Where a row is.
struct Place {
    shard: ShardIndex,
    /// The table that has it, a partition maybe, and its file: numbers on that shard.
    table: u32,
    file: u32,
    /// The version of it that has been locked.
    version: String,
}

/// Where such a statement is run.
pub(in crate::session) struct Standing {
    pub(in crate::session) shard: ShardIndex,
    /// The cursor there is ours.
    ours: bool,
}

impl Session {
    /// Runs such a statement of the simple protocol.
    pub(in crate::session) async fn write_current(
        &mut self,
        plan: &Plan,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let standing = self.stand(plan, Some(sent.sql())).await?;
        let sent = Sent {
            alone: false,
            ..sent
        };
        let before = self.client.hold();
        let ready = self.at(standing.shard, plan, sent).await;
        self.leave_with(&standing, plan, ready, before).await
    }

    /// Runs one that SQL has prepared.
    pub(in crate::session) async fn execute_current_prepared(
        &mut self,
        name: &str,
        prepared: &SessionStatement,
        (routed, arguments): (&Routed, &Arguments),
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let plan = &prepared.plan;
        let standing = self.stand(plan, None).await?;
        let routed = Routed {
            shards: ShardSet::one(standing.shard),
            ..routed.clone()
        };
        let sent = Sent {
            alone: false,
            ..sent
        };
        let before = self.client.hold();
        let executing = self.execute_on_shards(name, prepared, &routed, arguments, sent);
        let ready = Box::pin(executing).await;
        self.leave_with(&standing, plan, ready, before).await
    }

    /// The statement has been run, and its answer held: it is the client's unless something fails yet.
    async fn leave_with(
        &mut self,
        standing: &Standing,
        plan: &Plan,
        ready: Result<Ready, Trouble>,
        before: BytesMut,
    ) -> Result<Ready, Trouble> {
        let left = match ready {
            Ok(_) => self.leave_row(standing, plan).await,
            Err(_) => Ok(()),
        };
        let mut answer = self.client.unhold(before);
        while let Ok(Some(header)) = frame::header(&answer) {
            let message = answer.split_to(header.len.min(answer.len()));
            if left.is_ok() || !matches!(header.tag, b'T' | b'D' | b'C') {
                self.client.output.extend_from_slice(&message);
            }
        }
        left.and(ready)
    }

    /// Sees to it that the shard of the row that the cursor is at has the cursor there. `sql`: PostgreSQL has not looked at it yet.
    pub(in crate::session) async fn stand(
        &mut self,
        plan: &Plan,
        sql: Option<&[u8]>,
    ) -> Result<Standing, Trouble> {
        let Command::OfCursor { name, .. } = &plan.command else {
            return Err(Failure::Retry.into());
        };
        Ok(match self.cursor_apart(name) {
            Some(at) => Standing {
                shard: self.stand_on_row(at, plan, sql).await?,
                ours: true,
            },
            None => Standing {
                shard: self.shard_held_for(&plan.command).ok_or(Failure::Retry)?,
                ours: false,
            },
        })
    }

    /// Gives the shard of the row that a cursor is at a cursor of the same name that is there.
    async fn stand_on_row(
        &mut self,
        at: usize,
        plan: &Plan,
        sql: Option<&[u8]>,
    ) -> Result<ShardIndex, Trouble> {
        let Command::OfCursor { name, table } = &plan.command else {
            return Err(Failure::Retry.into());
        };
        let cursor = self.cursors_apart.get(at).ok_or(Failure::Retry)?;
        let (number, locked) = match locked_by(cursor, table) {
            Ok((number, locked)) => (number, locked.clone()),
            Err(failure) => {
                let failure = self.unless_related(failure, at, table, plan).await?;
                return Err(self.after_analysis(failure.into(), sql).await);
            }
        };
        let changes = |block: &Block| block.changed_schema || block.moved_rows;
        if self.block.as_ref().is_some_and(changes) || self.batch.has_changed_schema() {
            return Err(rewritten().into());
        }
        let place = self.row_of_cursor(at, number, sql).await?;
        let shard = place.shard;
        let index = self.join(shard, self.need(plan.access, None)).await?;
        let answer = self
            .ask_lines(index, &place.stand(name, &locked), plan)
            .await;
        if let (Err(Trouble::Told), Some(block)) = (&answer, &mut self.block) {
            block.failed.get_or_insert(FailedOn::Shard(shard));
        }
        match answer?.first() {
            Some(file) if *file == place.file.to_string() => Ok(shard),
            _ => Err(rewritten().into()),
        }
    }

    /// The statement has been run: the shard's cursor goes, and what it has changed of global unique indexes is kept.
    pub(in crate::session) async fn leave_row(
        &mut self,
        standing: &Standing,
        plan: &Plan,
    ) -> Result<(), Trouble> {
        let failed = |block: &Block| block.failed.is_some();
        if self.block.as_ref().is_none_or(failed) {
            // It has gone with the transaction, or will.
            return Ok(());
        }
        if let (true, Command::OfCursor { name, .. }) = (standing.ours, &plan.command) {
            let need = self.need(plan.access, None);
            let index = self.join(standing.shard, need).await?;
            let close = format!("CLOSE {}", escape_identifier(name));
            self.ask_lines(index, &close, plan).await?;
        }
        self.keep_unique(plan).await
    }

    /// Where the row is that a cursor is at, in the table with this number.
    async fn row_of_cursor(
        &mut self,
        at: usize,
        number: usize,
        sql: Option<&[u8]>,
    ) -> Result<Place, Trouble> {
        let mut cursor = self.cursors_apart.swap_remove(at);
        let name = escape_identifier(&cursor.name);
        // PostgreSQL knows where a cursor is, and tells nobody else.
        let ask = format!(
            "SAVEPOINT {BEFORE}; UPDATE {ROWS} SET p{number} = p{number} WHERE CURRENT OF {name} RETURNING p{number}; RELEASE {BEFORE}"
        );
        let before = self.client.hold();
        let found = cursor.workspace.value(&mut self.client, &ask).await;
        let said = self.client.unhold(before);
        if let Err(Trouble::Told) = found {
            let undo = format!("ROLLBACK TO {BEFORE}; RELEASE {BEFORE}");
            let undone = cursor.workspace.run(&mut self.client, &undo).await;
            self.put_back_cursor(cursor, undone).await?;
            if let Some(sql) = sql
                && self.analyse(sql).await?
            {
                return Err(Trouble::Told);
            }
            return Err(self.failed_in_part(&said));
        }
        self.client.output.extend_from_slice(&said);
        let found = self.put_back_cursor(cursor, found).await?;
        let unclear = || Failure::Unsupported {
            what: "WHERE CURRENT OF a row that is not found by its key as a text".into(),
            hint: "Set datestyle to ISO, and extra_float_digits to 1.",
        };
        Ok(found.as_deref().and_then(Place::read).ok_or_else(unclear)?)
    }

    /// A table that the cursor does not lock may be a part of one that it does, or have it as a part.
    async fn unless_related(
        &mut self,
        failure: Failure,
        at: usize,
        table: &TableName,
        plan: &Plan,
    ) -> Result<Failure, Trouble> {
        let cursor = self.cursors_apart.get(at);
        let Some(Ok(tables)) = cursor.map(|cursor| &cursor.places) else {
            return Ok(failure);
        };
        if tables.iter().any(|locked| locked.relation == *table) {
            return Ok(failure);
        }
        let (schema, name) = (
            escape_identifier(&table.schema),
            escape_identifier(&table.name),
        );
        let name = escape_literal(&format!("{schema}.{name}"));
        let query = format!(
            "SELECT FROM pg_catalog.pg_inherits WHERE {name}::pg_catalog.regclass IN (inhrelid, inhparent) LIMIT 1"
        );
        let need = self.need(plan.access, None);
        let index = self.join(ShardIndex::FIRST, need).await?;
        Ok(
            match self.ask_lines(index, &query, plan).await?.is_empty() {
                true => failure,
                false => refused(
                    "It locks another table of an inheritance tree.",
                    "Name the table that the cursor's query names.",
                ),
            },
        )
    }

    /// What PostgreSQL says of the statement comes before what is wrong with the cursor.
    async fn after_analysis(&mut self, trouble: Trouble, sql: Option<&[u8]>) -> Trouble {
        match sql {
            None => trouble,
            Some(sql) => match self.analyse(sql).await {
                Ok(false) => trouble,
                Ok(true) => Trouble::Told,
                Err(other) => other,
            },
        }
    }
}

/// The table among those of whose rows a cursor has the places, and its number.
fn locked_by<'a>(
    cursor: &'a CursorApart,
    table: &TableName,
) -> Result<(usize, &'a Locked), Failure> {
    let invalid = |message: String| Failure::Refused(Box::new(Refusal::certain("24000", message)));
    let name = &cursor.name;
    if cursor.is_held() {
        let message = format!("cursor \"{name}\" is held from a previous transaction");
        return Err(invalid(message));
    }
    let tables = match &cursor.places {
        Ok(tables) => tables,
        Err(why) => {
            let hint =
                "Declare it FOR UPDATE over tables with primary keys, or find the row by its key.";
            return Err(refused(why, hint));
        }
    };
    let mut own = tables
        .iter()
        .enumerate()
        .filter(|(_, locked)| locked.relation == *table);
    let short = &table.name;
    match (own.next(), own.next()) {
        (Some((_, locked)), None) if !locked.stands_still() => Err(refused(
            "Others may change its rows, which are locked FOR KEY SHARE only.",
            "Declare it FOR NO KEY UPDATE.",
        )),
        (Some(found), None) => Ok(found),
        (Some(_), Some(_)) => Err(invalid(format!(
            "cursor \"{name}\" has multiple FOR UPDATE/SHARE references to table \"{short}\""
        ))),
        (None, _) => Err(invalid(format!(
            "cursor \"{name}\" does not have a FOR UPDATE/SHARE reference to table \"{short}\""
        ))),
    }
}

fn refused(detail: &str, hint: &str) -> Failure {
    let message = "WHERE CURRENT OF this cursor over rows of several shards is not supported";
    Failure::Refused(Box::new(
        Refusal::not_supported(message).detail(detail).hint(hint),
    ))
}

/// What has been kept of its rows says nothing any more.
fn rewritten() -> Failure {
    refused(
        "The transaction has changed the schema, emptied or rewritten a table, or moved rows to other shards.",
        "Commit first, or find the row by its key.",
    )
}

impl Place {
    /// As a cursor keeps it.
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ' ');
        Some(Self {
            shard: ShardIndex(parts.next()?.parse().ok()?),
            table: parts.next()?.parse().ok()?,
            file: parts.next()?.parse().ok()?,
            version: parts.next()?.to_owned(),
        })
    }

    /// The statements that tell which file the table has now, and declare a cursor that is at the row's latest version.
    fn stand(&self, name: &str, locked: &Locked) -> String {
        let (name, source, table) = (escape_identifier(name), locked.name(), self.table);
        let version = escape_literal(&self.version);
        format!(
            "SELECT pg_catalog.pg_relation_filenode({table}); \
             DECLARE {name} NO SCROLL CURSOR FOR SELECT FROM {source} WHERE tableoid = {table} AND ctid = \
             (SELECT pg_catalog.currtid2({table}::pg_catalog.regclass::pg_catalog.text, {version})) UNION ALL SELECT; \
             MOVE NEXT FROM {name}"
        )
    }
}
