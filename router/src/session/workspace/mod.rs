//! Reads that a workspace answers: the rows are brought there, and the client's own text runs on them.

pub(super) mod create_as;
pub(super) mod fetch;
pub(super) mod few_rows;
mod finish;
pub(super) mod furnish;

use bytes::{Buf, Bytes, BytesMut};
use switchyard_schema::ShardSet;
use switchyard_wire::backend::{Column, Columns, Fields, Message, decode, encode};
use switchyard_wire::frame::{self, HEADER};
use switchyard_wire::frontend;
use switchyard_wire::{Format, SqlState};

use crate::backend::{Reply, Show};
use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::messages::{Said, next, violation};
use crate::execute::participant::Participant;
use crate::execute::relay::{Trouble, exchange};
use crate::execute::workspace::Workspace;
use crate::plan::workspace::Fetch;
use crate::plan::{self, Command, Operator, Values, query_within};
use crate::relations::FIRST_USER_OID;
use crate::session::Session;
use crate::session::route::Routed;
use crate::session::simple::{Ready, Sent};
use crate::session::workspace::fetch::Asked;
use crate::session::workspace::furnish::{Fill, Furnished, Furnishing};

impl Session {
    /// Runs a query of the simple protocol in a workspace.
    pub(in crate::session) async fn in_workspace(
        &mut self,
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let Operator::Workspace(plan) = &routed.plan.operator else {
            return Err(Failure::Retry.into());
        };
        let cancels = self.cancel.slot().requests();
        let need = self.need(routed.plan.access, routed.hint);
        let mut asked = Asked {
            sql: sent.sql(),
            params: None,
            given: GivenRows::default(),
            need,
            cancels,
        };
        let known = plan.known_description();
        let command = &routed.plan.command;
        if let Some(description) = known {
            let ready = self.joined(routed, plan, &description, &mut asked).await?;
            if let Some(ready) = ready {
                return Ok(ready);
            }
            asked.given.clear();
            if *command == Command::Select && plan.learned.given_rows().is_some() {
                return self
                    .answer_in(plan, &routed.fetches, &asked, command, &description)
                    .await;
            }
        }
        // PostgreSQL, on the tables as they are, says what the columns of the result are, or what is wrong.
        let query = query_within(sent.sql(), &routed.plan.command);
        let description = self.describe(&query).await?;
        if let Command::Declare { name, hold } = &routed.plan.command {
            self.may_declare(name, *hold)?;
        }
        if plan.learned.learn(&description) || plan.wildcard {
            let ready = self.joined(routed, plan, &description, &mut asked).await?;
            if let Some(ready) = ready {
                return Ok(ready);
            }
        }
        asked.given.clear();
        self.answer_in(plan, &routed.fetches, &asked, command, &description)
            .await
    }

    /// Answers a query of the simple protocol in a workspace with the rows of these shards.
    pub(in crate::session) async fn answer_in(
        &mut self,
        plan: &plan::Workspace,
        fetches: &[ShardSet],
        asked: &Asked<'_>,
        command: &Command,
        description: &Bytes,
    ) -> Result<Ready, Trouble> {
        let before = self.client.hold();
        let fill = Fill::of(command);
        let furnished = Box::pin(self.furnish(plan, fetches, asked, fill)).await;
        let said = self.client.unhold(before);
        let furnished = self.tell(furnished, said, asked).await?;
        let Furnished {
            mut workspace,
            text,
            given,
            ..
        } = match furnished {
            Furnishing::Done(furnished) => *furnished,
            Furnishing::Failed(said) => {
                self.client.output.extend_from_slice(description);
                return Err(self.failed_in_part(&said));
            }
        };
        if let Command::Copy(_) | Command::Declare { .. } = command {
            if let Err(trouble) = self.pass_from_workspace(&mut workspace, &text).await {
                return self.leave_workspace(workspace, Err(trouble)).await;
            }
            self.keep_cursor(command, Some(asked.sql), workspace, description.clone())
                .await?;
            return Ok(Ready::ToBeSaid);
        }
        let own = asked.with(given);
        let messages = |output: &mut BytesMut| match own.given.is_empty() {
            true => frontend::encode::query(output, &text),
            false => own.encode(output, &text, &[Format::Text]),
        };
        let before = self.client.hold();
        let begun = match workspace.ask_at_last(&mut self.client, messages).await {
            Ok(()) => self.first_said(&mut workspace).await,
            Err(trouble) => Err(trouble),
        };
        let said = self.client.unhold(before);
        if begun.is_err() {
            let failed = self.leave_workspace(workspace, begun).await;
            return self
                .tell(failed.map(|_| Ready::ToBeSaid), said, asked)
                .await;
        }
        self.client.output.extend_from_slice(&said);
        let rows = self
            .pass_rows(&mut workspace, &begun?, asked.sql, description)
            .await;
        let rows = self.leave_workspace(workspace, rows).await?;
        self.complete(&format!("SELECT {rows}"))
    }

    /// Runs a statement in a workspace whose answer is the client's as it is.
    async fn pass_from_workspace(
        &mut self,
        workspace: &mut Workspace,
        text: &[u8],
    ) -> Result<(), Trouble> {
        let backend = &mut workspace.backend;
        frontend::encode::query(&mut backend.connection.output, text);
        let reply = Reply::Query { show_ready: false };
        backend.connection.replies.expect(reply, Show::All);
        match exchange(&mut self.client, backend, &[], &mut self.described).await? {
            true => Err(Trouble::Told),
            false => Ok(()),
        }
    }

    /// Passes the answer on to a statement that a workspace was asked; the number of rows.
    pub(in crate::session) async fn pass_answer(
        &mut self,
        workspace: &mut Workspace,
        sql: &[u8],
        description: &Bytes,
    ) -> Result<u64, Trouble> {
        let own = self.first_said(workspace).await?;
        self.pass_rows(workspace, &own, sql, description).await
    }

    /// The RowDescription that a workspace's answer begins with.
    async fn first_said(&mut self, workspace: &mut Workspace) -> Result<BytesMut, Trouble> {
        let mut failed = false;
        loop {
            match next(&mut self.client, &mut workspace.backend, Show::All).await? {
                Said::Message(header) if header.tag == b'T' => {
                    return Ok(workspace.backend.connection.input.split_to(header.len));
                }
                // Of Parse and Bind, where rows were given.
                Said::Message(header) if matches!(header.tag, b'1' | b'2') => {
                    workspace.backend.connection.input.advance(header.len);
                }
                Said::Message(header) => {
                    return Err(violation(&mut workspace.backend, Some(header.tag)));
                }
                Said::Error => failed = true,
                Said::Ready if failed => {
                    workspace.answer_noted();
                    return Err(Trouble::Told);
                }
                Said::Ready => return Err(violation(&mut workspace.backend, Some(b'Z'))),
            }
        }
    }

    /// Passes the answer on that a workspace gives, behind the RowDescription of its `own`; the number of rows. It is announced as
    /// PostgreSQL has described it on the tables as they are: lately, or for another text of the plan.
    async fn pass_rows(
        &mut self,
        workspace: &mut Workspace,
        own: &[u8],
        sql: &[u8],
        description: &Bytes,
    ) -> Result<u64, Trouble> {
        let description = match is_of(description, own) {
            true => planned(description, own),
            false => {
                let now = self.describe(sql).await?;
                if columns_of(&now) != columns_of(own) {
                    // What was brought is not what the tables are.
                    return Err(Failure::Retry.into());
                }
                planned(&now, own)
            }
        };
        workspace.answer_noted();
        self.client.output.extend_from_slice(&description);
        let reply = Reply::Part {
            describe: false,
            ready: true,
        };
        let backend = &mut workspace.backend;
        backend.connection.replies.expect(reply, Show::All);
        match exchange(&mut self.client, backend, &[], &mut self.described).await? {
            true => Err(Trouble::Told),
            false => Ok(backend.connection.replies.last_tag().rows()),
        }
    }

    /// What PostgreSQL says of a statement's result: the whole RowDescription, with no formats chosen. An error has been shown.
    pub(in crate::session) async fn describe(&mut self, sql: &[u8]) -> Result<Bytes, Trouble> {
        let described = self.describe_if_any(sql).await?;
        described.ok_or_else(|| {
            let (what, hint) = (
                "a statement without a result".into(),
                "Only queries are run over rows of several shards.",
            );
            Failure::Unsupported { what, hint }.into()
        })
    }

    /// The same of a statement that may have no result.
    pub(in crate::session) async fn describe_if_any(
        &mut self,
        sql: &[u8],
    ) -> Result<Option<Bytes>, Trouble> {
        let before = self.client.hold();
        let analysed = self.analyse_result(sql).await;
        let answer = self.client.unhold(before);
        if analysed? {
            self.client.output.extend_from_slice(&answer);
            return Err(Trouble::Told);
        }
        Ok(Self::row_description(answer))
    }

    /// The RowDescription among the messages of an answer.
    pub(in crate::session) fn row_description(answer: BytesMut) -> Option<Bytes> {
        let mut answer = answer.freeze();
        while let Ok(Some(header)) = frame::header(&answer) {
            if answer.len() < header.len {
                break;
            }
            let message = answer.split_to(header.len);
            if header.tag == b'T' {
                return Some(message);
            }
        }
        None
    }

    /// The shards of each fetch.
    pub(in crate::session) fn fetches(
        &self,
        workspace: &plan::Workspace,
        values: &Values<'_>,
    ) -> Result<Vec<ShardSet>, Failure> {
        let count = self.database.shards.len();
        let shards = |fetch: &Fetch| fetch.target.shards(values, count);
        let shards: Result<_, _> = workspace.all_fetches().map(shards).collect();
        shards.map_err(Failure::Refused)
    }

    /// A cancel request meets what works at its moment. One that came between two steps is heard here.
    pub(in crate::session) fn not_cancelled(&self, known: u64) -> Result<(), Trouble> {
        match self.cancel.slot().requested_since(known) {
            Some(reason) => Err(Failure::Cancelled(reason).into()),
            None => Ok(()),
        }
    }

    /// Ends a workspace, and where there was trouble what was still to be read from the shards. The trouble is what the client
    /// is to be told.
    pub(in crate::session) async fn leave_workspace<T>(
        &mut self,
        mut workspace: Workspace,
        outcome: Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let outcome = match outcome {
            Err(Trouble::Lost) => Err(self.lost_with_rows(Some(&workspace.backend)).into()),
            other => other,
        };
        if outcome.is_err() {
            self.abandon_rows(Some(&mut workspace)).await;
        }
        self.give_back_workspace(workspace).await;
        outcome
    }

    /// Gives a workspace's connection back, if it can be lent again.
    pub(in crate::session) async fn give_back_workspace(&mut self, mut workspace: Workspace) {
        let connection = &workspace.backend.connection;
        if workspace.is_at_rest() && !connection.broken {
            let cleaned = workspace.clean(&mut self.client).await;
            workspace.backend.connection.broken |= cleaned.is_err();
        } else {
            workspace.backend.connection.broken = true;
        }
        self.remember_of(&mut workspace).await;
        self.participants
            .give_back_workspace(workspace.backend)
            .await;
    }

    /// The failure for a connection that was lost while rows of several shards were read: a participant's, or this one.
    pub(in crate::session) fn lost_with_rows(&mut self, apart: Option<&Participant>) -> Failure {
        let broken = self.participants.iter().find(|held| held.connection.broken);
        let lost = broken.or(apart);
        let shard = lost.map_or_else(Box::default, |lost| (&*lost.shard_name).into());
        self.participants.close_broken(&self.database);
        Failure::ShardLost { shard }
    }
}

/// What PostgreSQL says of a result on the tables as they are, with the formats and the modifiers of types that `own`, the
/// RowDescription of what was planned in the workspace, has: planning may find out more.
pub(in crate::session) fn planned(description: &[u8], own: &[u8]) -> Bytes {
    let mut output = BytesMut::new();
    if let (Some(columns), Some(own)) = (columns(description), columns(own)) {
        let columns: Vec<Column<'_>> = columns
            .iter()
            .zip(own.iter())
            .map(|(column, own)| Column {
                format: own.format,
                type_modifier: own.type_modifier,
                ..column
            })
            .collect();
        encode::row_description(&mut output, &columns);
    }
    output.freeze()
}

/// Whether columns of the same types are announced. A workspace's own tables have rows of its own types.
pub(in crate::session) fn is_of(description: &[u8], own: &[u8]) -> bool {
    let (Some(description), Some(own)) = (columns(description), columns(own)) else {
        return false;
    };
    let alike = |(announced, own): (Column<'_>, Column<'_>)| {
        announced.type_oid == own.type_oid || announced.type_oid.min(own.type_oid) >= FIRST_USER_OID
    };
    description.len() == own.len() && description.iter().zip(own.iter()).all(alike)
}

/// The types of the columns of a RowDescription; none if it is none.
pub(in crate::session) fn types(description: &[u8]) -> Vec<u32> {
    columns(description).map_or_else(Vec::new, |columns| {
        columns.iter().map(|column| column.type_oid).collect()
    })
}

/// Whether both are the same columns by name and type, or neither is of any.
pub(in crate::session) fn is_described_as(told: Option<&Bytes>, now: Option<&Bytes>) -> bool {
    let told = told.and_then(|told| columns(told));
    let now = now.and_then(|now| columns(now));
    let (Some(told), Some(now)) = (&told, &now) else {
        return told.is_none() && now.is_none();
    };
    let alike = |(told, now): (Column<'_>, Column<'_>)| {
        let type_of = |column: &Column<'_>| (column.type_oid, column.type_modifier);
        type_of(&told) == type_of(&now) && told.name == now.name
    };
    told.len() == now.len() && told.iter().zip(now.iter()).all(alike)
}

/// How many columns a RowDescription has.
fn columns_of(description: &[u8]) -> usize {
    columns(description).map_or(0, |columns| columns.len())
}

/// The columns of a RowDescription.
pub(in crate::session) fn columns(description: &[u8]) -> Option<Columns<'_>> {
    let body = description.get(HEADER..)?;
    match decode(b'T', body) {
        Ok(Message::RowDescription(columns)) => Some(columns),
        _ => None,
    }
}

/// The SQLSTATE of the error among messages of a server.
pub(in crate::session) fn error_in(messages: &[u8]) -> Option<SqlState> {
    fields_in(messages)?.sqlstate()
}

/// Whether the error among messages of a server is about a place in its text.
pub(in crate::session) fn is_placed(messages: &[u8]) -> bool {
    fields_in(messages).is_some_and(|fields| fields.get(b'P').is_some())
}

/// The error among messages of a server.
fn fields_in(messages: &[u8]) -> Option<Fields<'_>> {
    let mut rest = messages;
    while let Ok(Some(header)) = frame::header(rest) {
        let (message, after) = rest.split_at_checked(header.len)?;
        if let Ok(Message::ErrorResponse(fields)) = decode(header.tag, message.get(HEADER..)?) {
            return Some(fields);
        }
        rest = after;
    }
    None
}
