//! Portals of statements that the session runs itself.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use switchyard_wire::SqlState;
use switchyard_wire::backend::encode;
use switchyard_wire::frontend::{self, Bind};

use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::relay::Trouble;
use crate::execute::report;
use crate::plan::stepwise::Stepwise;
use crate::plan::{Access, Broadcast, Command, CopyDirection, Operator, Plan};
use crate::session::Session;
use crate::session::explain::query_plan;
use crate::session::route::Text;
use crate::session::simple::Sent;
use crate::session::statement::{Portal, SessionStatement, Statement};
use crate::session::transaction::prepared::ending;
use crate::session::workspace::fetch::Asked;

use super::bind::has_parameters;
use super::workspace::parameter_types;

impl Session {
    /// Binds a statement that the session runs itself.
    pub(super) fn bind_here(&mut self, prepared: &SessionStatement, bind: &Bind<'_>) {
        self.reply(encode::bind_complete);
        let portal = Portal::Session {
            plan: Arc::clone(&prepared.plan),
            statement: Arc::clone(&prepared.statement),
        };
        self.portals.insert(bind.portal, portal);
    }

    /// Binds a statement that the session runs itself, or a workspace of a cursor's.
    pub(super) async fn bind_own(
        &mut self,
        prepared: &Arc<SessionStatement>,
        bind: &Bind<'_>,
    ) -> Result<(), Trouble> {
        self.meant_portal_is_whole(&prepared.plan.command)?;
        if let Command::OfCursor { .. } = prepared.plan.command {
            return Box::pin(self.bind_insert(Arc::clone(prepared), bind)).await;
        }
        self.local_parse_complete(bind.statement);
        if prepared.plan.command == Command::Distribute {
            let statement = self.distribute_with(prepared, bind)?;
            let prepared = SessionStatement {
                statement,
                ..SessionStatement::clone(prepared)
            };
            self.bind_here(&prepared, bind);
            return Ok(());
        }
        let needed = match prepared.plan.command {
            Command::Declare { .. } => prepared.parameters(),
            _ => Some(0),
        };
        has_parameters(bind, needed)?;
        let Command::Fetch { name } = &prepared.plan.command else {
            self.bind_here(prepared, bind);
            return Ok(());
        };
        let Some(at) = self.cursor_apart(name) else {
            return Err(Failure::NoSuchCursor(name.as_str().into()).into());
        };
        self.settle().await?;
        let mut unnamed = *bind;
        unnamed.portal = b"";
        let sql = prepared.statement.sql();
        let description = self.describe_fetch(at, sql, &unnamed).await?;
        let mut message = BytesMut::new();
        frontend::encode::bind_like(&mut message, &unnamed, b"");
        encode::bind_complete(&mut self.client.output);
        let portal = Portal::Fetch {
            cursor: name.as_str().into(),
            plan: Arc::clone(&prepared.plan),
            statement: Arc::clone(&prepared.statement),
            bind: message.freeze(),
            description,
        };
        self.portals.insert(bind.portal, portal);
        Ok(())
    }

    /// Binds an EXPLAIN of a statement for several shards, which is answered at once: the portal has the lines.
    pub(super) async fn bind_explain(
        &mut self,
        prepared: &SessionStatement,
        bind: &Bind<'_>,
    ) -> Result<(), Trouble> {
        let cancels = self.cancels_before();
        self.settle_before_bind(bind).await?;
        // Shards are asked by messages of ours.
        self.keep_writes()?;
        let (plan, sql) = (&prepared.plan, prepared.statement.sql());
        let asked = Asked {
            sql,
            params: Some((parameter_types(&prepared.statement, plan.params), bind)),
            given: GivenRows::default(),
            need: self.need(plan.access, prepared.hint),
            cancels,
        };
        let statement = Some(&*prepared.statement);
        let lines = self.explain_lines(&plan.command, statement, &asked).await?;
        let mut description = BytesMut::new();
        let column = query_plan(bind.result_formats.format(0));
        encode::row_description(&mut description, &[column]);
        encode::bind_complete(&mut self.client.output);
        let portal = Portal::Answered {
            plan: Arc::clone(plan),
            description: description.freeze(),
            rows: lines.iter().map(|line| data_row(line)).collect(),
            tag: None,
        };
        self.portals.insert(bind.portal, portal);
        Ok(())
    }

    /// Gives the client rows of an answer that is there.
    pub(super) fn execute_answered(&mut self, name: &[u8], max_rows: i32) {
        let Some(Portal::Answered {
            rows, plan, tag, ..
        }) = self.portals.get_mut(name)
        else {
            return;
        };
        let most = match usize::try_from(max_rows) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(most) => most,
        };
        let output = &mut self.client.output;
        let given = rows.len().min(most);
        for row in rows.drain(..given) {
            output.extend_from_slice(&row);
        }
        match (rows.is_empty(), &plan.command, tag) {
            (false, ..) => encode::portal_suspended(output),
            (true, _, Some(tag)) => encode::command_complete(output, tag.as_bytes()),
            (true, Command::Explain { .. }, None) => encode::command_complete(output, b"EXPLAIN"),
            (true, _, None) => {
                let tag = format!("SELECT {given}");
                encode::command_complete(output, tag.as_bytes());
            }
        }
    }

    /// Executes a portal of a statement that the session runs itself.
    pub(super) async fn execute_own(
        &mut self,
        plan: &Plan,
        statement: &Arc<Statement>,
    ) -> Result<(), Trouble> {
        if let Operator::Broadcast(Broadcast::Stepwise) = plan.operator {
            return Box::pin(self.execute_stepwise(plan, statement)).await;
        }
        match plan.command {
            // It begins once the rest of the input can be taken for its rows.
            Command::Copy(CopyDirection::In) => {
                self.batch.copy = Some(Arc::clone(statement));
                Ok(())
            }
            Command::Copy(_) => Box::pin(self.execute_copy(statement)).await,
            Command::Distribute => {
                self.distribute(statement.sql()).await?;
                self.distributed();
                Ok(())
            }
            Command::EndPrepared { commit, .. } => {
                self.end_transaction_of_batch(ending(commit)).await?;
                self.execute_control(plan, statement).await
            }
            _ => self.execute_control(plan, statement).await,
        }
    }

    /// Runs it on one shard after the other, by simple queries, which are transactions of their own.
    async fn execute_stepwise(
        &mut self,
        plan: &Plan,
        statement: &Statement,
    ) -> Result<(), Trouble> {
        self.end_transaction_of_batch(Stepwise::read(statement.sql()).what())
            .await?;
        let mut message = BytesMut::new();
        frontend::encode::query(&mut message, statement.sql());
        let sent = Sent {
            message: &message,
            alone: false,
        };
        self.stepwise(plan, sent).await.map(|_| ())
    }

    /// Ends the transaction that the batch has been until now, for what runs in none. It must not have written.
    async fn end_transaction_of_batch(&mut self, what: &'static str) -> Result<(), Trouble> {
        self.settle().await?;
        if self.batch.has_written() {
            return Err(Failure::NotInBlock(what).into());
        }
        self.sync_hidden().await?;
        self.batch.parsed.clear();
        Ok(())
    }

    /// Copies rows of several shards, which are asked for by simple queries.
    async fn execute_copy(&mut self, statement: &Statement) -> Result<(), Trouble> {
        let Text::One(routed) = self.route_text(statement.sql())? else {
            return Err(Failure::Retry.into());
        };
        match routed.plan.access {
            Access::Write => self.begin_in_batch()?,
            Access::Read | Access::PrimaryRead | Access::LockingRead => self.keep_writes()?,
        }
        let mut message = BytesMut::new();
        frontend::encode::query(&mut message, statement.sql());
        let sent = Sent {
            message: &message,
            alone: false,
        };
        self.copy_parts(&routed, sent).await.map(|_| ())
    }

    /// Copies the client's rows to several shards: what the batch has written becomes part of its transaction.
    pub(super) async fn execute_copy_in(&mut self, statement: &Statement) -> Result<(), Trouble> {
        self.begin_in_batch()?;
        let Text::One(routed) = self.route_text(statement.sql())? else {
            return Err(Failure::Retry.into());
        };
        let Operator::CopyIn(copy) = &routed.plan.operator else {
            return Err(Failure::Retry.into());
        };
        let rows = self.copy_rows(copy, &routed, statement.sql()).await?;
        let tag = format!("COPY {rows}");
        encode::command_complete(&mut self.client.output, tag.as_bytes());
        Ok(())
    }

    /// A simple query of ours would commit what the batch has written: that becomes part of an implicit block.
    pub(super) fn keep_writes(&mut self) -> Result<(), Failure> {
        match self.batch.has_written() {
            true => self.begin_in_batch(),
            false => Ok(()),
        }
    }

    /// Runs a statement of the session's own. It goes to backends by the simple protocol, which would end the batch's
    /// transaction there: what the batch does becomes an implicit block first.
    async fn execute_control(&mut self, plan: &Plan, statement: &Statement) -> Result<(), Trouble> {
        let changes_settings = matches!(
            plan.command,
            Command::Set { .. }
                | Command::Reset(_)
                | Command::SetSessionCharacteristics(_)
                | Command::SetTransaction(_)
                | Command::Prepare { .. }
        );
        let in_block = self.block.as_ref().is_some_and(|block| block.explicit);
        if !in_block && changes_settings {
            // It has no effect, and the block that is begun here, or was for what came before, would hide that.
            let what = match plan.command {
                Command::Set { local: true, .. } => Some("SET LOCAL"),
                Command::SetTransaction(_) => Some("SET TRANSACTION"),
                _ => None,
            };
            if let Some(what) = what {
                let message = format!("{what} can only be used in transaction blocks");
                let code = SqlState::NO_ACTIVE_SQL_TRANSACTION;
                report::warning(&mut self.client.output, code, &message);
            }
            self.begin_in_batch()?;
        }
        if let Command::Listen(_) | Command::Unlisten(_) = plan.command {
            // It holds when what else the batch has done is committed.
            self.begin_in_batch()?;
        }
        if matches!(
            plan.command,
            Command::Commit { .. } | Command::Rollback { .. }
        ) {
            // It is what the batch has done that is committed or rolled back.
            self.keep_writes()?;
        }
        let mut message = BytesMut::new();
        frontend::encode::query(&mut message, statement.sql());
        let sent = Sent {
            message: &message,
            alone: false,
        };
        self.control(plan, sent).await?;
        match (&plan.command, &self.block) {
            (Command::Begin(_), Some(_)) => Ok(self.adopt_batch()?),
            (_, Some(block)) if block.failed.is_some() => Err(Trouble::Told),
            _ => Ok(()),
        }
    }

    /// Sees to it that the batch is a block, which ends with it.
    pub(super) fn begin_in_batch(&mut self) -> Result<(), Failure> {
        match self.begin_implicit() {
            true => self.adopt_batch(),
            false => Ok(()),
        }
    }

    /// What this batch has done so far becomes part of the block that has just begun.
    pub(super) fn adopt_batch(&mut self) -> Result<(), Failure> {
        let Some(block) = &mut self.block else {
            return Ok(());
        };
        self.batch.writer = None;
        for participant in self.participants.iter_mut() {
            if participant.needs_sync && !participant.in_block {
                participant.queue_query(&block.joining_sql());
                participant.in_block = true;
            }
        }
        Ok(())
    }
}

/// A whole message: a row of one column.
fn data_row(value: &str) -> Bytes {
    let mut row = BytesMut::new();
    encode::data_row(&mut row, &[Some(value)]);
    row.freeze()
}
