//! DECLARE of a cursor whose rows are on several shards and are to be locked: all of them are locked when the cursor is declared, and
//! it has them in a workspace.
//!
//! The query is run as any other, by a portal of ours, so many rows at a time. PostgreSQL locks rows as they are fetched; which shard
//! that would be is not known before.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use switchyard_schema::ShardIndex;
use switchyard_wire::Format;
use switchyard_wire::backend::{Column, encode};
use switchyard_wire::frame::{self, HEADER};
use switchyard_wire::frontend::{self, Bind, Kind};

use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::execute::workspace::Workspace;
use crate::plan::lock::Places;
use crate::plan::{Command, Plan, cursor_is_binary, query_within};
use crate::relations::FIRST_USER_OID;
use crate::session::Session;
use crate::session::simple::{Ready, Sent};
use crate::session::workspace::columns;

/// The name of a statement and a portal of ours. No client's is the same: it would have to be that of a router's portal.
const DECLARED: &[u8] = b"switchyard declares";
/// The table with the rows. PostgreSQL reads a temporary table from its beginning to its end.
pub(in crate::session) const ROWS: &str = "pg_temp.\"switchyard rows\"";
/// So many rows are kept here at a time.
const TOGETHER: i32 = 1_000;

impl Session {
    /// Declares such a cursor.
    pub(in crate::session) async fn declare_locked(
        &mut self,
        plan: &Plan,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let Command::Declare { name, hold } = &plan.command else {
            return Err(Failure::Retry.into());
        };
        // That such a cursor cannot be WITH HOLD, say.
        if self.analyse(sent.sql()).await? {
            return Err(Trouble::Told);
        }
        self.may_declare(name, *hold)?;
        if plan.params > 0 {
            return Err(Failure::Unsupported {
                what: "a cursor with parameters whose rows are on several shards and are locked"
                    .into(),
                hint: "Write the values into the text.",
            }
            .into());
        }
        let query = query_within(sent.sql(), &plan.command);
        let declared = match self.places_of(&query, plan).await {
            Ok(places) => Box::pin(self.declare_placed(plan, sent.sql(), &query, places)).await,
            Err(trouble) => Err(trouble),
        };
        self.statements.remove(DECLARED);
        self.portals.remove(DECLARED);
        // Messages of the extended protocol have gone out, whatever the client's own was.
        let synced = match self.batch.is_empty() {
            true => self.close_batch().await,
            false => self.sync_hidden().await.map(drop),
        };
        if let Err(Trouble::Told) = declared {
            self.note_abandoned();
        }
        declared?;
        synced?;
        self.complete("DECLARE CURSOR")
    }

    async fn declare_placed(
        &mut self,
        plan: &Plan,
        sql: &[u8],
        query: &[u8],
        places: Result<Places, String>,
    ) -> Result<(), Trouble> {
        let text = places.as_ref().map_or(query, |places| &*places.text);
        let prepared = self.prepare(text, &[])?.ok_or(Failure::Retry)?;
        self.statements.insert(DECLARED, Arc::new(prepared));
        self.lock_and_keep(plan, sql, places).await
    }

    async fn lock_and_keep(
        &mut self,
        plan: &Plan,
        sql: &[u8],
        places: Result<Places, String>,
    ) -> Result<(), Trouble> {
        let (description, answer) = self.hidden(Step::Bind).await?;
        drop(answer);
        let description = description.ok_or(Failure::Retry)?;
        let backend = self.take_workspace(ShardIndex::FIRST).await?;
        let mut workspace = Workspace::new(backend, self.fetch_limit());
        let shown = without_places(&description, places.as_ref().ok())?;
        let kept = self
            .fill_cursor(&mut workspace, plan, sql, (&shown, places.as_ref().ok()))
            .await;
        match kept {
            Ok(()) => {
                self.keep_cursor(&plan.command, Some(sql), workspace, shown)
                    .await?;
                self.note_places(places.map(|places| places.tables));
                Ok(())
            }
            Err(trouble) => self.leave_workspace(workspace, Err(trouble)).await,
        }
    }

    /// Brings the rows, and declares the cursor that has them.
    async fn fill_cursor(
        &mut self,
        workspace: &mut Workspace,
        plan: &Plan,
        sql: &[u8],
        (shown, places): (&[u8], Option<&Places>),
    ) -> Result<(), Trouble> {
        let Command::Declare { name, .. } = &plan.command else {
            return Err(Failure::Retry.into());
        };
        self.open_workspace(workspace, &[], "SELECT 1").await?;
        let types = types_of(shown, places)?;
        let list = workspace.value(&mut self.client, &types).await?;
        let create = format!(
            "CREATE TEMPORARY TABLE {ROWS} ({}) ON COMMIT DROP",
            list.unwrap_or_default()
        );
        workspace.run(&mut self.client, &create).await?;
        let copy = format!("COPY {ROWS} FROM STDIN (FORMAT binary)");
        workspace.begin_copy(&mut self.client, &copy).await?;
        loop {
            let (_, mut answer) = self.hidden(Step::Execute).await?;
            let (mut suspended, mut rows) = (false, Vec::new());
            while let Ok(Some(header)) = frame::header(&answer) {
                let message = answer.split_to(header.len);
                suspended |= header.tag == b's';
                if header.tag == b'D' {
                    rows.push(message.freeze());
                }
            }
            if let Some(places) = places {
                rows = self.place_rows(places, &rows, plan).await?;
            }
            for row in rows {
                workspace.give(row.get(HEADER..).unwrap_or_default())?;
            }
            workspace.flush(&mut self.client).await?;
            if !suspended {
                break;
            }
        }
        workspace.end_copy(&mut self.client).await?;
        self.hidden(Step::Close).await?;
        let binary = match cursor_is_binary(sql) {
            true => " BINARY",
            false => "",
        };
        let name = postgres_protocol::escape::escape_identifier(name);
        let columns = columns(shown).map_or(0, |columns| columns.len());
        let columns: Vec<String> = (0..columns).map(|at| format!("c{at}")).collect();
        let columns = columns.join(", ");
        let declare =
            format!("DECLARE {name}{binary} NO SCROLL CURSOR FOR SELECT {columns} FROM {ROWS}");
        workspace.run(&mut self.client, &declare).await
    }

    /// Does a step with the portal of ours: the RowDescription in the answer, and the answer without what is the client's.
    async fn hidden(&mut self, step: Step) -> Result<(Option<Bytes>, BytesMut), Trouble> {
        let before = self.client.hold();
        let done = self.step(step).await;
        let settled = match done {
            Ok(()) => self.settle().await,
            Err(trouble) => Err(trouble),
        };
        let answer = self.client.unhold(before);
        let (mut own, mut rest, mut description) = (BytesMut::new(), answer, None);
        while let Ok(Some(header)) = frame::header(&rest) {
            let message = rest.split_to(header.len.min(rest.len()));
            match header.tag {
                b'E' | b'N' | b'A' | b'S' => self.client.output.extend_from_slice(&message),
                b'T' => description = Some(message.freeze()),
                _ => own.extend_from_slice(&message),
            }
        }
        settled.map(|()| (description, own))
    }

    async fn step(&mut self, step: Step) -> Result<(), Trouble> {
        match step {
            Step::Bind => {
                let mut message = BytesMut::new();
                let none: &[Option<&[u8]>] = &[];
                frontend::encode::bind(
                    &mut message,
                    DECLARED,
                    DECLARED,
                    &[],
                    none,
                    &[Format::Binary],
                );
                let bind = Bind::decode(message.get(HEADER..).unwrap_or_default());
                let bind = bind.map_err(Failure::InvalidMessage)?;
                Box::pin(self.bind_portal(&bind)).await?;
                self.describe_portal(DECLARED).await
            }
            Step::Execute => Box::pin(self.execute(DECLARED, TOGETHER)).await,
            Step::Close => self.close(Kind::Portal, DECLARED).await,
        }
    }
}

/// What is done with the portal of ours.
#[derive(Debug, Clone, Copy)]
enum Step {
    Bind,
    Execute,
    Close,
}

/// The RowDescription of the client's columns only.
fn without_places(description: &[u8], places: Option<&Places>) -> Result<Bytes, Failure> {
    let columns = columns(description).ok_or(Failure::Retry)?;
    let shown = columns.len().checked_sub(places.map_or(0, Places::extras));
    let columns: Vec<Column<'_>> = columns.iter().take(shown.ok_or(Failure::Retry)?).collect();
    let mut output = BytesMut::new();
    encode::row_description(&mut output, &columns);
    Ok(output.freeze())
}

/// The query for the list of columns of a table with rows like these, and their places.
fn types_of(description: &[u8], places: Option<&Places>) -> Result<String, Failure> {
    let columns = columns(description).ok_or(Failure::Retry)?;
    let mut list = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        if column.type_oid >= FIRST_USER_OID {
            return Err(Failure::Unsupported {
                what: "a cursor whose rows are on several shards and are locked, with a column of a type that users made,".into(),
                hint: "Cast the column to text.",
            });
        }
        list.push(format!(
            "'c{at} ' || pg_catalog.format_type({}, {})",
            column.type_oid, column.type_modifier
        ));
    }
    for at in 0..places.map_or(0, |places| places.tables.len()) {
        list.push(format!("'p{at} text'"));
    }
    let list = match list.is_empty() {
        true => "''".to_owned(),
        false => list.join(" || ', ' || "),
    };
    Ok(format!("SELECT {list}"))
}
