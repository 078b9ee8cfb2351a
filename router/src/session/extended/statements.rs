//! Prepared statements: Parse, Describe and Close of a statement, and holding one on a backend.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use switchyard_wire::backend::encode;
use switchyard_wire::frontend::{self, Kind};

use crate::backend::{Connection, Reply, Show};
use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::plan::{Command, Operator, Plan, Refusal};
use crate::session::Session;
use crate::session::distribute::{description, parameter_types};
use crate::session::route::Planned;
use crate::session::statement::{Origin, SessionStatement, Statement, StatementText};
use crate::session::workspace::is_described_as;
use crate::sql::without_empty;

use super::lossy;

impl Session {
    pub(super) async fn parse(
        &mut self,
        name: &[u8],
        sql: &[u8],
        declared: &[u32],
    ) -> Result<(), Trouble> {
        let without = without_empty(sql);
        let sql = without.as_deref().unwrap_or(sql);
        self.send_unsent().await?;
        if !name.is_empty() && self.statements.get(name).is_some() {
            return Err(Failure::DuplicateStatement(lossy(name)).into());
        }
        let Some(mut prepared) = self.prepare(sql, declared)? else {
            return Box::pin(self.let_postgresql_refuse(sql)).await;
        };
        if let Some(name) = &prepared.plan.unknown
            && Box::pin(self.learn_name(name)).await
            && let Some(again) = self.prepare(sql, declared)?
        {
            prepared = again;
        }
        if let Operator::Refuse(refusal) = &prepared.plan.operator {
            return Err(self.refused(refusal, &prepared).await);
        }
        if let Command::Execute { name, .. } = &prepared.plan.command
            && self.statements.get(name.as_bytes()).is_none()
        {
            return Err(Failure::NoSuchStatement(name.as_str().into()).into());
        }
        if self.consistent_read {
            // Analysing it would take a snapshot.
            Box::pin(self.cut_block(&prepared.plan)).await?;
        }
        self.statements.insert(name, Arc::new(prepared));
        self.batch.unsent = Some(name.into());
        Ok(())
    }

    /// The prepared statement for a text, or `None` if it is not one statement.
    pub(in crate::session) fn prepare(
        &mut self,
        sql: &[u8],
        declared: &[u32],
    ) -> Result<Option<SessionStatement>, Failure> {
        let worker = Arc::clone(&self.worker);
        let mut desk = worker.desk();
        let plan = match self.plan_text(&mut desk, sql)? {
            Planned::One(plan) => plan,
            Planned::Several | Planned::Unscannable => return Ok(None),
        };
        Ok(Some(SessionStatement {
            statement: worker.services.statements.intern(
                self.scope(),
                StatementText::Parsed {
                    sql: sql.into(),
                    declared: declared.into(),
                },
            ),
            context: self.context_id(&mut desk),
            literals: desk.scan.literals.as_slice().into(),
            hint: desk.scan.hint.as_ref().and_then(|hint| hint.node),
            origin: Origin {
                written: None,
                at: SystemTime::now(),
                generation: self.database.generation,
            },
            is_in_doubt: false,
            plan,
        }))
    }

    /// A text that is not one statement: PostgreSQL says why.
    async fn let_postgresql_refuse(&mut self, sql: &[u8]) -> Result<(), Trouble> {
        self.settle().await?;
        if Box::pin(self.analyse(sql)).await? {
            return Err(Trouble::Told);
        }
        Err(Failure::Unsupported {
            what: "this statement".into(),
            hint: "Its text could not be divided into words with certainty.",
        }
        .into())
    }

    /// The statement of this name, planned for what holds now.
    pub(in crate::session) fn statement_named(
        &mut self,
        name: &[u8],
    ) -> Result<Arc<SessionStatement>, Failure> {
        let missing = || match name {
            b"" => Failure::NoUnnamedStatement,
            name => Failure::NoSuchStatement(lossy(name)),
        };
        let known = Arc::clone(self.statements.get(name).ok_or_else(missing)?);
        let context = match self.context {
            Some(context) => context,
            None => {
                let worker = Arc::clone(&self.worker);
                self.context_id(&mut worker.desk())
            }
        };
        if known.context == context {
            return Ok(known);
        }
        let declared = match &known.statement.text {
            StatementText::Parsed { declared, .. } => declared.clone(),
            StatementText::Prepared { .. } => Box::default(),
        };
        let replanned = self
            .prepare(known.statement.sql(), &declared)?
            .ok_or_else(missing)?;
        let current = Arc::new(SessionStatement {
            statement: Arc::clone(&known.statement),
            is_in_doubt: known.statement.columns().is_some()
                && known.origin.generation != self.database.generation,
            origin: known.origin.clone(),
            ..replanned
        });
        self.statements.insert(name, Arc::clone(&current));
        Ok(current)
    }

    /// The same, once more where a name in it was not known: it may be by now. Its columns are those that were described.
    pub(in crate::session) async fn statement_known(
        &mut self,
        name: &[u8],
    ) -> Result<Arc<SessionStatement>, Trouble> {
        let mut prepared = self.statement_named(name)?;
        if let Some(unknown) = &prepared.plan.unknown
            && Box::pin(self.learn_name(unknown)).await
        {
            prepared = self.statement_named(name)?;
        }
        match prepared.is_in_doubt {
            true => Box::pin(self.with_same_columns(name, prepared)).await,
            false => Ok(prepared),
        }
    }

    /// The same without doubt about its columns. PostgreSQL has an error for others than it has described; a backend that
    /// prepares the statement after the change would not know.
    async fn with_same_columns(
        &mut self,
        name: &[u8],
        prepared: Arc<SessionStatement>,
    ) -> Result<Arc<SessionStatement>, Trouble> {
        let StatementText::Parsed { sql, declared } = &prepared.statement.text else {
            return Ok(prepared);
        };
        if self.block_has_failed() || matches!(prepared.plan.operator, Operator::Refuse(_)) {
            return Ok(prepared);
        }
        let Some(anew) = self.prepare(sql, declared)? else {
            return Ok(prepared);
        };
        let now = match anew.statement.columns() {
            Some(columns) => Some(columns.clone()),
            None => self.describe_prepared(name, &anew).await?,
        };
        let told = prepared.statement.columns();
        if !is_described_as(told, now.as_ref()) {
            return Err(Failure::ResultChanged.into());
        }
        let mut sure = SessionStatement::clone(&prepared);
        sure.is_in_doubt = false;
        sure.origin.generation = self.database.generation;
        let sure = Arc::new(sure);
        self.statements.insert(name, Arc::clone(&sure));
        Ok(sure)
    }

    /// What is wrong with a statement that is refused, be it in PostgreSQL's words.
    pub(super) async fn refused(
        &mut self,
        refusal: &Refusal,
        prepared: &SessionStatement,
    ) -> Trouble {
        let analysed = async {
            self.settle().await?;
            Box::pin(self.analyse_refused(prepared.statement.sql())).await
        };
        match refusal.analyse_first.then_some(analysed) {
            Some(analysed) => match analysed.await {
                Ok(true) => Trouble::Told,
                Ok(false) => Failure::Refused(Box::new(refusal.clone())).into(),
                Err(trouble) => trouble,
            },
            None => Failure::Refused(Box::new(refusal.clone())).into(),
        }
    }

    pub(super) async fn describe_statement(&mut self, name: &[u8]) -> Result<(), Trouble> {
        if self
            .batch
            .unsent
            .as_deref()
            .is_some_and(|unsent| unsent != name)
        {
            self.send_unsent().await?;
        }
        let prepared = self.statement_known(name).await?;
        if self.is_handled_here(&prepared.plan) {
            self.local_parse_complete(name);
            let rows = match &prepared.plan.command {
                Command::Fetch { name } => self
                    .cursor_apart(name)
                    .and_then(|at| self.describe_cursor(at, prepared.statement.sql())),
                Command::Execute { name, .. } => {
                    let executed = self.statement_named(name.as_bytes())?;
                    Box::pin(self.describe_executed(&executed)).await?.columns
                }
                Command::Distribute => Some(description(prepared.statement.sql()).freeze()),
                _ => None,
            };
            let parameters = match &prepared.plan.command {
                Command::Distribute => parameter_types(&prepared.statement),
                _ => Vec::new(),
            };
            self.reply(|output| {
                encode::parameter_description(output, &parameters);
                match &rows {
                    Some(rows) => output.extend_from_slice(rows),
                    None => encode::no_data(output),
                }
            });
            return Ok(());
        }
        let index = self.activate_any(&prepared).await?;
        self.queue_describe(index, name, &prepared, Show::All)?;
        Ok(())
    }

    /// Queues a Describe of the statement on a backend; its parameter types are noted as they come.
    pub(super) fn queue_describe(
        &mut self,
        index: usize,
        name: &[u8],
        prepared: &SessionStatement,
        show: Show,
    ) -> Result<(), Trouble> {
        let unsent = self.take_unsent(name);
        self.described.0.push(Arc::clone(&prepared.statement));
        let Some(participant) = self.participants.get_mut(index) else {
            return Err(Failure::Retry.into());
        };
        participant.needs_sync = true;
        let connection = &mut *participant.connection;
        hold_statement(connection, &prepared.statement, !name.is_empty(), unsent);
        let backend_name = backend_name(&prepared.statement, !name.is_empty());
        frontend::encode::describe(
            &mut connection.output,
            Kind::Statement,
            backend_name.as_bytes(),
        );
        let reply = Reply::Describe {
            noted_of: Some(prepared.statement.number),
        };
        connection.replies.expect(reply, show);
        Ok(())
    }

    /// Sends a Parse that nothing followed up: to any backend, for its errors are all that matters.
    pub(super) async fn send_unsent(&mut self) -> Result<(), Trouble> {
        let Some(name) = self.batch.unsent.clone() else {
            return Ok(());
        };
        let prepared = self.statement_named(&name)?;
        if self.is_handled_here(&prepared.plan) {
            self.local_parse_complete(&name);
            return Ok(());
        }
        let index = match self.activate_any(&prepared).await {
            Ok(index) => index,
            Err(trouble) => {
                self.batch.unsent = None;
                self.statements.remove(&name);
                return Err(trouble);
            }
        };
        let unsent = self.take_unsent(&name);
        if let Some(participant) = self.participants.get_mut(index) {
            participant.needs_sync = true;
            hold_statement(
                &mut participant.connection,
                &prepared.statement,
                !name.is_empty(),
                unsent,
            );
        }
        Ok(())
    }

    /// True, once, if the Parse of `name` still waits to be sent.
    pub(super) fn take_unsent(&mut self, name: &[u8]) -> bool {
        let unsent = self.batch.unsent.as_deref() == Some(name);
        if unsent {
            self.batch.parsed.extend(self.batch.unsent.take());
        }
        unsent
    }

    /// A statement the session handles itself needs no backend to parse it.
    pub(super) fn local_parse_complete(&mut self, name: &[u8]) {
        if self.take_unsent(name) {
            self.reply(encode::parse_complete);
        }
    }

    /// No backend ever sees it.
    pub(super) fn is_handled_here(&self, plan: &Plan) -> bool {
        let is_own = matches!(plan.operator, Operator::Session)
            && !matches!(plan.command, Command::OfCursor { .. });
        is_own && self.shard_held_for(&plan.command).is_none()
    }

    /// Gets the types of the parameters that decide the shard from PostgreSQL, which infers them.
    pub(super) async fn learn_key_types(
        &mut self,
        name: &[u8],
        prepared: &SessionStatement,
    ) -> Result<(), Trouble> {
        let shard = self.any_shard();
        let need = self.need(prepared.plan.access, prepared.hint);
        let index = self.activate(shard, need).await?;
        self.queue_describe(index, name, prepared, Show::Errors)?;
        self.settle().await
    }
}

/// The whole message.
const PARSE_COMPLETE: Bytes = Bytes::from_static(b"1\0\0\0\x04");

/// Makes sure the backend has the statement: queues its Parse where needed. `unsent`: the client awaits ParseComplete.
pub(super) fn hold_statement(
    connection: &mut Connection,
    statement: &Statement,
    named: bool,
    unsent: bool,
) {
    let held = if named {
        connection.prepared.touch(statement.number)
    } else {
        connection.unnamed == Some(statement.number)
    };
    if held {
        if unsent {
            connection.replies.put(PARSE_COMPLETE);
        }
        return;
    }
    if named {
        if let Some(evicted) = connection.prepared.insert(statement.number) {
            frontend::encode::close(
                &mut connection.output,
                Kind::Statement,
                format!("sy_{evicted}").as_bytes(),
            );
            let reply = Reply::Evict { statement: evicted };
            connection.replies.expect(reply, Show::Nothing);
        }
    } else {
        connection.unnamed = Some(statement.number);
    }
    statement.encode_prepare(connection, named);
    let reply = Reply::Parse {
        statement: statement.number,
        named,
    };
    connection
        .replies
        .expect(reply, if unsent { Show::All } else { Show::Errors });
}

pub(super) fn backend_name(statement: &Statement, named: bool) -> &str {
    if named { statement.backend_name() } else { "" }
}
