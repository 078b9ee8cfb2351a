//! Portals of statements that a workspace answers: bound when the rows are there, gone when all have been fetched.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use switchyard_schema::ShardSet;
use switchyard_wire::Format;
use switchyard_wire::backend::{Column, encode};
use switchyard_wire::frontend::{self, Bind, Kind};

use super::bind::BoundParams;
use crate::backend::{Connection, Reply, Show};
use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::relay::{Trouble, exchange};
use crate::execute::workspace::Workspace;
use crate::plan::{self, Command, Operator, Values, query_within};
use crate::relations::FIRST_USER_OID;
use crate::session::Session;
use crate::session::statement::{Portal, SessionStatement, Statement};
use crate::session::workspace::fetch::Asked;
use crate::session::workspace::furnish::{Fill, Furnished, Furnishing};
use crate::session::workspace::{columns, is_of, planned};

/// A workspace with a portal that has rows left.
#[derive(Debug)]
pub(in crate::session) struct OpenWorkspace {
    number: u64,
    workspace: Workspace,
    /// What PostgreSQL says of its rows.
    rows: Bytes,
}

impl Session {
    /// Binds a statement in a workspace of its own, with everything it reads.
    pub(super) async fn bind_in_workspace(
        &mut self,
        prepared: &SessionStatement,
        bind: &Bind<'_>,
    ) -> Result<(), Trouble> {
        let Operator::Workspace(plan) = &prepared.plan.operator else {
            return Err(Failure::Retry.into());
        };
        let cancels = self.cancels_before();
        self.settle_before_bind(bind).await?;
        self.close_portal(bind.portal).await;
        // Rows are asked for by simple queries.
        self.keep_writes()?;
        let shards = self.fetches_of_bind(plan, prepared, bind)?;
        let known = plan.known_description();
        let is_select = prepared.plan.command == Command::Select;
        if let Some(rows) = known.filter(|_| is_select && has_types(prepared)) {
            let mut asked = self.asked_by(prepared, bind, cancels);
            if self
                .bind_join(prepared, &shards, &rows, bind, &mut asked)
                .await?
            {
                return Ok(());
            }
            asked.given.clear();
            if plan.learned.given_rows().is_some() {
                let described = (Some(rows.clone()), rows);
                return self
                    .bind_furnished(plan, &shards, &asked, prepared, bind, described)
                    .await;
            }
        }
        let (description, rows) = self.describe_twice(bind.statement, prepared).await?;
        if let Command::Declare { name, hold } = &prepared.plan.command {
            self.may_declare(name, *hold)?;
        }
        let mut asked = self.asked_by(prepared, bind, cancels);
        if is_select
            && (plan.learned.learn(&rows) || plan.wildcard)
            && self
                .bind_join(prepared, &shards, &rows, bind, &mut asked)
                .await?
        {
            return Ok(());
        }
        asked.given.clear();
        let described = (description, rows);
        self.bind_furnished(plan, &shards, &asked, prepared, bind, described)
            .await
    }

    /// Binds a statement in a workspace with the rows of these shards; what PostgreSQL says of it, and of the query in it.
    pub(in crate::session) async fn bind_furnished(
        &mut self,
        plan: &plan::Workspace,
        shards: &[ShardSet],
        asked: &Asked<'_>,
        prepared: &SessionStatement,
        bind: &Bind<'_>,
        (description, rows): (Option<Bytes>, Bytes),
    ) -> Result<(), Trouble> {
        let fill = Fill::of(&prepared.plan.command);
        let before = self.client.hold();
        let furnished = Box::pin(self.furnish(plan, shards, asked, fill)).await;
        let said = self.client.unhold(before);
        let mut furnished = match self.tell(furnished, said, asked).await? {
            Furnishing::Done(furnished) => *furnished,
            Furnishing::Failed(said) => {
                let description = description.map(|of| formatted(&of, bind));
                self.bind_failed(prepared, bind, description, said.freeze());
                return Ok(());
            }
        };
        let own = match self.bind_there(&mut furnished, asked, bind).await {
            Ok(own) => own,
            Err(trouble) => {
                let outcome: Result<(), Trouble> = Err(trouble);
                return self.leave_workspace(furnished.workspace, outcome).await;
            }
        };
        let description = match description {
            // It was kept from another text of the plan.
            Some(kept) if !is_of(&kept, &own) => {
                self.describe_prepared(bind.statement, prepared).await?
            }
            description => description,
        };
        encode::bind_complete(&mut self.client.output);
        self.workspaces_opened += 1;
        let number = self.workspaces_opened;
        self.workspaces.push(OpenWorkspace {
            number,
            workspace: furnished.workspace,
            rows,
        });
        let portal = Portal::Workspace {
            number,
            plan: Arc::clone(&prepared.plan),
            description: description.map(|of| planned(&of, &own)),
            failed: None,
        };
        self.portals.insert(bind.portal, portal);
        Ok(())
    }

    /// Binds a statement of which a part has failed on a shard: the client is told when it executes it.
    pub(super) fn bind_failed(
        &mut self,
        prepared: &SessionStatement,
        bind: &Bind<'_>,
        description: Option<Bytes>,
        said: Bytes,
    ) {
        encode::bind_complete(&mut self.client.output);
        let portal = Portal::Workspace {
            number: 0,
            plan: Arc::clone(&prepared.plan),
            description,
            failed: Some(said),
        };
        self.portals.insert(bind.portal, portal);
    }

    /// The shards of each fetch, by the values bound.
    pub(super) fn fetches_of_bind(
        &self,
        plan: &plan::Workspace,
        prepared: &SessionStatement,
        bind: &Bind<'_>,
    ) -> Result<Vec<ShardSet>, Failure> {
        let values = Values {
            sql: prepared.statement.sql(),
            literals: &prepared.literals,
            params: &BoundParams::new(bind, &prepared.statement),
        };
        self.fetches(plan, &values)
    }

    /// What PostgreSQL says of a prepared statement's result, if it has one, and of the rows of the query in it.
    async fn describe_twice(
        &mut self,
        name: &[u8],
        prepared: &SessionStatement,
    ) -> Result<(Option<Bytes>, Bytes), Trouble> {
        let description = self.describe_prepared(name, prepared).await?;
        let rows = match &description {
            Some(rows) => rows.clone(),
            // Of the query inside PostgreSQL has said nothing.
            None => {
                let query = query_within(prepared.statement.sql(), &prepared.plan.command);
                self.describe(&query).await?
            }
        };
        Ok((description, rows))
    }

    /// What a client asks by a Bind.
    pub(super) fn asked_by<'a>(
        &self,
        prepared: &'a SessionStatement,
        bind: &'a Bind<'a>,
        cancels: u64,
    ) -> Asked<'a> {
        let types = parameter_types(&prepared.statement, prepared.plan.params);
        Asked {
            sql: prepared.statement.sql(),
            params: Some((types, bind)),
            given: GivenRows::default(),
            need: self.need(prepared.plan.access, prepared.hint),
            cancels,
        }
    }

    async fn bind_there(
        &mut self,
        furnished: &mut Furnished,
        asked: &Asked<'_>,
        bind: &Bind<'_>,
    ) -> Result<BytesMut, Trouble> {
        let Furnished {
            workspace,
            text,
            given,
            ..
        } = furnished;
        // A condition that every row here satisfies is no longer in the text, nor are its parameters.
        let results: Vec<Format> = bind.result_formats.iter().collect();
        let own = asked.with(std::mem::take(given));
        let messages = |output: &mut BytesMut| {
            own.encode_bind(output, text, bind.portal, &results);
            frontend::encode::describe(output, Kind::Portal, bind.portal);
            frontend::encode::sync(output);
        };
        workspace.send(&mut self.client, messages).await
    }

    /// What PostgreSQL says of a prepared statement's result; its parameter types are noted.
    pub(super) async fn describe_prepared(
        &mut self,
        name: &[u8],
        prepared: &SessionStatement,
    ) -> Result<Option<Bytes>, Trouble> {
        let index = self.activate_any(prepared).await?;
        let before = self.client.hold();
        let asked = match self.queue_describe(index, name, prepared, Show::All) {
            Ok(()) => self.settle().await,
            Err(trouble) => Err(trouble),
        };
        let answer = self.client.unhold(before);
        if let Err(trouble) = asked {
            self.client.output.extend_from_slice(&answer);
            return Err(trouble);
        }
        Ok(Self::row_description(answer))
    }

    /// Executes a portal in its workspace; where its rows have all been fetched there are none left.
    pub(super) async fn execute_in_workspace(
        &mut self,
        name: &[u8],
        number: u64,
        command: &Command,
        max_rows: i32,
    ) -> Result<(), Trouble> {
        self.settle().await?;
        let open = self
            .workspaces
            .iter()
            .position(|open| open.number == number);
        let Some(mut open) = open.map(|open| self.workspaces.swap_remove(open)) else {
            encode::command_complete(&mut self.client.output, b"SELECT 0");
            return Ok(());
        };
        let cancels = self.cancels_before();
        let executed = match self.not_cancelled(cancels) {
            Ok(()) => {
                let backend = &mut open.workspace.backend;
                queue_execute(&mut backend.connection, name, max_rows);
                exchange(&mut self.client, backend, &[], &mut self.described).await
            }
            Err(trouble) => Err(trouble),
        };
        let outcome = match executed {
            Ok(true) => Err(Trouble::Told),
            Ok(false) if open.workspace.backend.connection.replies.is_suspended() => {
                self.workspaces.push(open);
                return Ok(());
            }
            Ok(false) => Ok(()),
            Err(trouble) => Err(trouble),
        };
        if outcome.is_err() {
            self.portals.remove(name);
            return self.leave_workspace(open.workspace, outcome).await;
        }
        Box::pin(self.keep_cursor(command, None, open.workspace, open.rows)).await
    }

    /// The cancel requests that are not about this batch.
    pub(super) fn cancels_before(&mut self) -> u64 {
        let now = self.cancel.slot().requests();
        *self.batch.cancels.get_or_insert(now)
    }

    /// Ends the workspace of a portal, if it has one that is open.
    pub(super) async fn close_portal(&mut self, name: &[u8]) {
        let Some(Portal::Workspace { number, .. }) = self.portals.get(name) else {
            return;
        };
        let number = *number;
        if let Some(open) = self
            .workspaces
            .iter()
            .position(|open| open.number == number)
        {
            let open = self.workspaces.swap_remove(open);
            self.end_workspace(open.workspace).await;
        }
    }

    /// Ends every workspace: the transaction is over, and with it all portals.
    pub(in crate::session) async fn end_workspaces(&mut self) {
        while let Some(open) = self.workspaces.pop() {
            self.end_workspace(open.workspace).await;
        }
    }

    /// Ends the workspaces of portals that are no more: another one has the name, or a simple query took the place of the
    /// unnamed one.
    pub(in crate::session) async fn end_workspaces_without_portal(&mut self) {
        let forgotten = |session: &Self| {
            let is_of = |portal: &Portal, open: &OpenWorkspace| matches!(portal, Portal::Workspace { number, .. } if *number == open.number);
            let mut open = session.workspaces.iter();
            open.position(|open| !session.portals.values().any(|portal| is_of(portal, open)))
        };
        while let Some(open) = forgotten(self) {
            let open = self.workspaces.swap_remove(open);
            self.end_workspace(open.workspace).await;
        }
    }

    pub(in crate::session) async fn end_workspace(&mut self, workspace: Workspace) {
        let outcome: Result<(), Trouble> = Ok(());
        // Nothing was awaited of it: what goes wrong now closes its connection.
        if self.leave_workspace(workspace, outcome).await.is_err() {
            tracing::debug!("a workspace was closed");
        }
    }
}

pub(in crate::session) fn queue_execute(connection: &mut Connection, portal: &[u8], max_rows: i32) {
    frontend::encode::execute(&mut connection.output, portal, max_rows);
    frontend::encode::sync(&mut connection.output);
    connection.replies.expect(Reply::Execute, Show::All);
    connection.replies.expect(Reply::Sync, Show::Nothing);
}

/// A RowDescription with the formats that a client asks for.
pub(super) fn formatted(description: &[u8], bind: &Bind<'_>) -> Bytes {
    let mut output = BytesMut::new();
    if let Some(columns) = columns(description) {
        let columns = columns.iter().enumerate().map(|(at, column)| Column {
            format: bind.result_formats.format(at),
            ..column
        });
        let columns: Vec<Column<'_>> = columns.collect();
        encode::row_description(&mut output, &columns);
    }
    output.freeze()
}

/// Whether the types of all parameters are known.
fn has_types(prepared: &SessionStatement) -> bool {
    let mut numbers = 1..=prepared.plan.params;
    numbers.all(|number| prepared.statement.parameter_type(number) != 0)
}

/// The types of parameters 1 to `count`, or as many as are declared, as declared or described. The
/// workspace finds those that users made itself, as the shard did.
pub(super) fn parameter_types(statement: &Statement, count: u16) -> Vec<u32> {
    (1..=count.max(statement.declared()))
        .map(|number| portable(statement.parameter_type(number)))
        .collect()
}

/// The number of a type on any server, or 0, which leaves it to the server.
pub(in crate::session) fn portable(oid: u32) -> u32 {
    if oid < FIRST_USER_OID { oid } else { 0 }
}
