//! Reads that a workspace answers: the rows are brought there, and the client's own text runs on them.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::escape::escape_identifier;
use switchyard_schema::{ShardIndex, ShardSet, TableName};
use switchyard_wire::SqlState;
use switchyard_wire::backend::{Column, Columns, Message, decode, encode};
use switchyard_wire::frame::{self, HEADER};
use switchyard_wire::frontend;
use tokio::time::timeout;

use super::Session;
use super::fetch::{Asked, Brought, Part, not_brought};
use super::route::Routed;
use super::simple::{Ready, Sent};
use crate::backend::{Reply, Show};
use crate::execute::block::{Block, FailedOn};
use crate::execute::failure::Failure;
use crate::execute::messages::{Said, next, violation};
use crate::execute::participant::Participant;
use crate::execute::participants::Need;
use crate::execute::relay::{Trouble, exchange};
use crate::execute::workspace::Workspace;
use crate::plan::workspace::fetch::{names, qualified};
use crate::plan::workspace::{Fetch, Home, TemporaryView};
use crate::plan::{self, Command, Operator, Values, query_within};
use crate::startup::cancel::CancelReason;

/// So long shards may take to give up what nobody wants any more.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// A workspace with everything in it that a statement reads.
pub(super) struct Furnished {
    pub(super) workspace: Workspace,
    /// The statement's text as it runs there.
    pub(super) text: Vec<u8>,
    /// Of what relations there are rows.
    pub(super) brought: Vec<Brought>,
}

/// What is brought to a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    /// The rows that the statement reads.
    Rows,
    /// None: the tables are made, and that is all.
    Nothing,
}

impl Session {
    /// Runs a query of the simple protocol in a workspace.
    pub(super) async fn in_workspace(
        &mut self,
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let Operator::Workspace(plan) = &routed.plan.operator else {
            return Err(Failure::Retry.into());
        };
        let cancels = self.cancel.slot().requests();
        // PostgreSQL, on the tables as they are, says what the columns of the result are, or what is wrong.
        let query = query_within(sent.sql(), &routed.plan.command);
        let description = self.describe(&query).await?;
        if let Command::Declare { name, hold } = &routed.plan.command {
            self.may_declare(name, *hold)?;
        }
        let need = self.need(routed.plan.access, routed.hint);
        let asked = Asked {
            sql: sent.sql(),
            params: None,
            need,
            cancels,
        };
        let furnished = self
            .furnish(plan, &routed.fetches, &asked, Fill::Rows)
            .await?;
        let Furnished {
            mut workspace,
            text,
            ..
        } = furnished;
        let command = &routed.plan.command;
        if let Command::Copy(_) | Command::Declare { .. } = command {
            if let Err(trouble) = self.pass_from_workspace(&mut workspace, &text).await {
                return self.leave_workspace(workspace, Err(trouble)).await;
            }
            self.keep_cursor(command, workspace, description).await?;
            return Ok(Ready::ToBeSaid);
        }
        let rows = self
            .query_workspace(&mut workspace, &text, &description)
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

    /// Runs the statement; the number of rows, which the client has got.
    pub(super) async fn query_workspace(
        &mut self,
        workspace: &mut Workspace,
        text: &[u8],
        description: &[u8],
    ) -> Result<u64, Trouble> {
        frontend::encode::query(&mut workspace.backend.connection.output, text);
        workspace.answer_awaited();
        workspace.flush(&mut self.client).await?;
        let mut failed = false;
        let own = loop {
            match next(&mut self.client, &mut workspace.backend, Show::All).await? {
                Said::Message(header) if header.tag == b'T' => {
                    break workspace.backend.connection.input.split_to(header.len);
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
        };
        workspace.answer_noted();
        let description = planned(description, &own);
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
    pub(super) async fn describe(&mut self, sql: &[u8]) -> Result<Bytes, Trouble> {
        let before = self.client.hold();
        let analysed = self.analyse_result(sql).await;
        let answer = self.client.unhold(before);
        if analysed? {
            self.client.output.extend_from_slice(&answer);
            return Err(Trouble::Told);
        }
        let described = Self::row_description(answer);
        described.ok_or_else(|| {
            let (what, hint) = (
                "a statement without a result".into(),
                "Only queries are run over rows of several shards.",
            );
            Failure::Unsupported { what, hint }.into()
        })
    }

    /// The RowDescription among the messages of an answer.
    pub(super) fn row_description(answer: BytesMut) -> Option<Bytes> {
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
    pub(super) fn fetches(
        &self,
        workspace: &plan::Workspace,
        values: &Values<'_>,
    ) -> Result<Vec<ShardSet>, Failure> {
        let count = self.database.shards.len();
        let shards = |fetch: &Fetch| fetch.target.shards(values, count);
        let shards: Result<_, _> = workspace.fetches.iter().map(shards).collect();
        shards.map_err(Failure::Refused)
    }

    /// Makes a workspace with all that the statement reads.
    pub(super) async fn furnish(
        &mut self,
        plan: &plan::Workspace,
        shards: &[ShardSet],
        asked: &Asked<'_>,
        fill: Fill,
    ) -> Result<Furnished, Trouble> {
        // It would wait for the session itself, and could not see what is not committed.
        let waits = |block: &Block| block.locks_tables || block.changed_schema;
        if self.block.as_ref().is_some_and(waits) {
            return Err(Failure::Unsupported {
                what: "a read over rows of several shards in a transaction that has changed the schema or locked tables".into(),
                hint: "Commit first.",
            }
            .into());
        }
        let on_first = |fetch: &Fetch| fetch.home == Some(Home::First);
        let home = match plan.fetches.iter().any(on_first) {
            true => ShardIndex::FIRST,
            false => self.any_shard(),
        };
        // What the session has not committed is seen by its own connections only.
        let in_place = self.block.is_none();
        let moved = |fetch: &Fetch| !(in_place && fetch.home.is_some());
        let fetches: Vec<Part<'_>> = plan
            .fetches
            .iter()
            .zip(shards)
            .filter(|(fetch, _)| moved(fetch))
            .collect();
        let is_made = |name: &TableName| {
            fetches.iter().any(|(fetch, _)| fetch.relation == *name)
                || plan.views.iter().any(|view| view.relation == *name)
        };
        let making: Vec<(&TableName, String)> = plan
            .views
            .iter()
            .map(|view| (&view.relation, create_view(view, &is_made)))
            .collect();
        let backend = self.take_workspace(home).await?;
        let limit = self.fetch_limit();
        let mut workspace = Workspace::new(backend, limit);
        let furnished = async {
            self.gather(&fetches, asked.need).await?;
            self.open_workspace(&mut workspace, &fetches, &plan.views)
                .await?;
            let brought = match fill {
                Fill::Rows => {
                    let views = !plan.views.is_empty();
                    self.fill_for(views, &mut workspace, &fetches, asked)
                        .await?
                }
                Fill::Nothing => not_brought(&fetches, asked),
            };
            let sql = finishing(&fetches);
            workspace.run(&mut self.client, &sql).await?;
            self.make_views(&mut workspace, &making).await?;
            self.not_cancelled(asked.cancels)?;
            Ok(brought)
        };
        match furnished.await {
            Ok(brought) => Ok(Furnished {
                workspace,
                text: plan.text(asked.sql, &is_made),
                brought,
            }),
            Err(trouble) => {
                let outcome: Result<(), Trouble> = Err(trouble);
                self.leave_workspace(workspace, outcome).await?;
                Err(Trouble::Told)
            }
        }
    }

    /// So many bytes of rows may be brought to one workspace.
    fn fetch_limit(&self) -> u64 {
        let settings = self.worker.services.settings.load();
        settings.file.router.max_fetch_bytes
    }

    /// Brings the rows. Of those that views read, what the views' owners may read this role may not.
    async fn fill_for(
        &mut self,
        views: bool,
        workspace: &mut Workspace,
        fetches: &[Part<'_>],
        asked: &Asked<'_>,
    ) -> Result<Vec<Brought>, Trouble> {
        if !views {
            return self.fill_workspace(workspace, fetches, asked).await;
        }
        let before = self.client.hold();
        let filled = self.fill_workspace(workspace, fetches, asked).await;
        let said = self.client.unhold(before);
        let denied = error_in(&said) == Some(SqlState::INSUFFICIENT_PRIVILEGE);
        if matches!(filled, Err(Trouble::Told)) && denied {
            let what = "a view over rows of several shards whose tables this role may not read";
            let hint = "Grant SELECT on the tables that the view reads.";
            let what = what.into();
            return Err(Failure::Unsupported { what, hint }.into());
        }
        self.client.output.extend_from_slice(&said);
        filled
    }

    /// Makes the views, of PostgreSQL's own printing, which it does not always read again.
    async fn make_views(
        &mut self,
        workspace: &mut Workspace,
        views: &[(&TableName, String)],
    ) -> Result<(), Trouble> {
        for (view, sql) in views {
            let before = self.client.hold();
            let made = workspace.run(&mut self.client, sql).await;
            let said = self.client.unhold(before);
            if let (Err(Trouble::Told), Some(state)) = (&made, error_in(&said)) {
                tracing::debug!(%view, sqlstate = state.as_str(), "a view cannot be made anew");
                let what = format!("the view \"{view}\" over rows of several shards");
                let hint = "Use the view's query in place of the view.";
                let what = what.into();
                return Err(Failure::Unsupported { what, hint }.into());
            }
            self.client.output.extend_from_slice(&said);
            made?;
        }
        Ok(())
    }

    /// A connection for a workspace.
    async fn take_workspace(&mut self, home: ShardIndex) -> Result<Participant, Trouble> {
        self.end_workspaces_without_portal().await;
        let Self {
            participants,
            database,
            ..
        } = self;
        if let Some(idle) = participants.borrow_workspace_now(database, home)? {
            return Ok(idle);
        }
        self.let_go().await?;
        let Self {
            participants,
            database,
            client,
            ..
        } = self;
        let workspace = participants.borrow_workspace(database, home, client);
        Ok(Box::pin(workspace).await?)
    }

    /// Takes a connection to every shard that rows come from. Where one has to be waited for, none of a higher number is
    /// kept meanwhile, nor wanted by those who have lower ones: so two sessions cannot wait for each other, unless
    /// transaction blocks make them keep what they have.
    async fn gather(&mut self, parts: &[Part<'_>], need: Need) -> Result<(), Trouble> {
        let none = ShardSet::empty();
        let shards = parts.iter().fold(none, |all, (_, own)| all.union(own));
        let mut each = shards.iter();
        if each.all(|shard| self.join_now(shard, need).is_some()) {
            return Ok(());
        }
        self.let_go().await?;
        for shard in shards.iter() {
            self.join(shard, need).await?;
        }
        Ok(())
    }

    /// A cancel request meets what works at its moment. One that came between two steps is heard here.
    pub(super) fn not_cancelled(&self, known: u64) -> Result<(), Trouble> {
        match self.cancel.slot().requested_since(known) {
            Some(reason) => Err(Failure::Cancelled(reason).into()),
            None => Ok(()),
        }
    }

    /// Begins the workspace's transaction, under the client's settings, and makes its tables.
    async fn open_workspace(
        &mut self,
        workspace: &mut Workspace,
        fetches: &[Part<'_>],
        views: &[TemporaryView],
    ) -> Result<(), Trouble> {
        let settings = match &self.block {
            Some(block) => block.settings_before(),
            None => &self.settings,
        };
        if !workspace.backend.has(settings) {
            workspace.backend.apply(settings).await?;
        }
        let mut sql = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE".to_owned();
        if let Some(block) = &self.block {
            sql.push_str(&block.settings_sql());
        }
        let router = &self.worker.services.settings.load().file.router;
        if let Some(limit) = router.workspace_temp_limit {
            sql.push_str(&format!(
                "; SET LOCAL temp_file_limit = '{}kB'",
                limit.div_ceil(1024)
            ));
        }
        for view in views {
            // Whether the role may read it: one that is made anew is its own.
            sql.push_str(&format!(
                "; SELECT FROM {} LIMIT 0",
                qualified(&view.relation)
            ));
        }
        for (fetch, _) in fetches {
            sql.push_str(&format!(
                "; CREATE TEMPORARY TABLE pg_temp.{} ON COMMIT DROP AS {}",
                escape_identifier(&fetch.relation.name),
                fetch.shape()
            ));
        }
        workspace.run(&mut self.client, &sql).await
    }

    /// Ends a workspace, and where there was trouble what was still to be read from the shards. The trouble is what the client
    /// is to be told.
    pub(super) async fn leave_workspace<T>(
        &mut self,
        mut workspace: Workspace,
        outcome: Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let outcome = match outcome {
            Err(Trouble::Lost) => Err(self.lost_with_rows(Some(&workspace.backend)).into()),
            other => other,
        };
        if outcome.is_err() {
            self.abandon_rows(Some(&workspace)).await;
        }
        let connection = &workspace.backend.connection;
        if workspace.is_at_rest() && !connection.broken {
            let cleaned = workspace.clean(&mut self.client).await;
            workspace.backend.connection.broken |= cleaned.is_err();
        } else {
            workspace.backend.connection.broken = true;
        }
        self.participants
            .give_back_workspace(workspace.backend)
            .await;
        outcome
    }

    /// The failure for a connection that was lost while rows of several shards were read: a participant's, or this one.
    pub(super) fn lost_with_rows(&mut self, apart: Option<&Participant>) -> Failure {
        let broken = self.participants.iter().find(|held| held.connection.broken);
        let lost = broken.or(apart);
        let shard = lost.map_or_else(Box::default, |lost| (&*lost.shard_name).into());
        self.participants.close_broken(&self.database);
        Failure::ShardLost { shard }
    }

    /// What was to be made of rows of several shards has failed, in this workspace if it was to be made in one.
    pub(super) async fn abandon_rows(&mut self, workspace: Option<&Workspace>) {
        self.stop(workspace).await;
        self.batch.fail_elsewhere();
        if let Some(block) = &mut self.block {
            block.failed.get_or_insert(FailedOn::Router);
        }
    }

    /// What shards and the workspace still do is of no use any more: it is cancelled, and the shards' ends are awaited, for
    /// their connections are good. One that takes too long is closed.
    async fn stop(&mut self, workspace: Option<&Workspace>) {
        if let Some(workspace) = workspace.filter(|workspace| workspace.is_lost()) {
            self.cancel
                .slot()
                .withdraw(&workspace.backend.connection.target);
        }
        let works = |workspace: &Workspace| !workspace.is_lost() && !workspace.is_at_rest();
        let is_working =
            workspace.is_some_and(works) || self.participants.iter().any(|held| held.unread);
        if is_working && timeout(STOP_LIMIT, self.drop_unread()).await.is_err() {
            tracing::debug!("a node takes too long to give up a statement");
        }
        for held in self.participants.iter_mut() {
            held.connection.broken |= std::mem::take(&mut held.unread);
        }
        self.participants.close_broken(&self.database);
    }

    /// Cancels what still works for a statement that has failed.
    pub(super) async fn cancel_statement(&mut self) {
        let cancelled = self.cancel.slot().cancel(CancelReason::Request);
        if timeout(STOP_LIMIT, cancelled).await.is_err() {
            tracing::debug!("a node takes too long for a cancel request");
        }
    }

    async fn drop_unread(&mut self) {
        self.cancel_statement().await;
        for source in self.participants.iter_mut().filter(|held| held.unread) {
            loop {
                match next(&mut self.client, source, Show::Nothing).await {
                    Ok(Said::Message(header)) => source.connection.input.advance(header.len),
                    Ok(Said::Error) => {}
                    Ok(Said::Ready) => {
                        source.unread = false;
                        break;
                    }
                    Err(_) => break,
                }
            }
        }
    }
}

/// What PostgreSQL says of a result on the tables as they are, with the formats and the modifiers of types that `own`, the
/// RowDescription of what was planned in the workspace, has: planning may find out more.
pub(super) fn planned(description: &[u8], own: &[u8]) -> Bytes {
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

fn columns(description: &[u8]) -> Option<Columns<'_>> {
    let body = description.get(HEADER..)?;
    match decode(b'T', body) {
        Ok(Message::RowDescription(columns)) => Some(columns),
        _ => None,
    }
}

/// The SQLSTATE of the error among messages of a server.
fn error_in(messages: &[u8]) -> Option<SqlState> {
    let mut rest = messages;
    while let Ok(Some(header)) = frame::header(rest) {
        let (message, after) = rest.split_at_checked(header.len)?;
        if let Ok(Message::ErrorResponse(fields)) = decode(header.tag, message.get(HEADER..)?) {
            return fields.sqlstate();
        }
        rest = after;
    }
    None
}

/// What is done when the rows are there: keys and indexes, and what the server should know of the tables.
fn finishing(fetches: &[Part<'_>]) -> String {
    let mut steps: Vec<String> = Vec::new();
    let mut tables: Vec<String> = Vec::new();
    for (fetch, _) in fetches {
        let table = format!("pg_temp.{}", escape_identifier(&fetch.relation.name));
        if !fetch.primary_key.is_empty() {
            let key = names(&fetch.primary_key);
            steps.push(format!("ALTER TABLE {table} ADD PRIMARY KEY ({key})"));
        }
        for column in &fetch.lookups {
            let column = escape_identifier(column);
            steps.push(format!("CREATE INDEX ON {table} ({column})"));
        }
        tables.push(table);
    }
    if !tables.is_empty() {
        // A rough idea is enough, and costs a tenth.
        steps.push("SET LOCAL default_statistics_target = 10".to_owned());
        steps.push(format!("ANALYZE {}", tables.join(", ")));
    }
    steps.join("; ")
}

fn create_view(view: &TemporaryView, is_made: &dyn Fn(&TableName) -> bool) -> String {
    let query = view.text(is_made);
    format!(
        "CREATE TEMPORARY VIEW {} ({}) AS {}",
        escape_identifier(&view.relation.name),
        names(&view.columns),
        String::from_utf8_lossy(&query)
            .trim_end()
            .trim_end_matches(';')
    )
}
