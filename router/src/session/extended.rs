//! The extended query protocol: Parse, Bind, Describe, Execute, Close, Flush, Sync.
//!
//! The messages between two Syncs are a *batch*. Each is routed as it comes and queued for one backend at a time (the
//! *active* one); replies come back in the order of the messages because the active backend's are relayed before
//! another one becomes active. A Parse waits until the next message tells which backend it is for. After an error all
//! is skipped up to the Sync, as PostgreSQL does.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the other frontend messages do not belong to the extended protocol"
)]

use bytes::{Buf, BytesMut};
use smallvec::SmallVec;
use switchyard_schema::{ShardIndex, ShardSet};
use switchyard_wire::backend::{TransactionStatus, encode};
use switchyard_wire::frame::{HEADER, Header};
use switchyard_wire::frontend::{self, Kind, Message};
use switchyard_wire::{Format, Formats, Values as WireValues};
use tokio::time::Instant;

use super::Session;
use super::block::FailedOn;
use super::failure::Failure;
use super::simple::{Sent, is_end};
use super::statement::{Portal, SessionStatement, StatementText};
use crate::backend::{Connection, Reply, Show};
use crate::execute::participants::Need;
use crate::execute::relay::{Trouble, relay, send};
use crate::plan::{Access, Command, Operator, Param, Params, Plan, Values};
use crate::session::statement::Statement;

/// What has happened since the last Sync.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// An error has been reported: everything up to the Sync is skipped.
    skipping: bool,
    /// The error was the router's own, so no backend knows of it.
    failed_here: bool,
    /// The participant whose replies come next.
    active: Option<usize>,
    /// The statement whose Parse has not been sent yet.
    unsent: Option<Box<[u8]>>,
    /// The names of statements whose Parse has been sent or answered, in order.
    parsed: Vec<Box<[u8]>>,
    /// The participant (its shard, whether it is the primary) on which an error happened: it skips to the Sync itself.
    failed_on: Option<(ShardIndex, bool)>,
    /// The shard this batch has written to, outside a block.
    writer: Option<ShardIndex>,
    schema_changed: bool,
    /// When its first message came.
    began: Option<Instant>,
}

impl Batch {
    /// Nothing has happened since the last Sync.
    pub(super) fn is_empty(&self) -> bool {
        self.began.is_none()
    }

    /// An error has happened, so nothing but a Sync is of interest.
    pub(super) fn is_skipping(&self) -> bool {
        self.skipping
    }
}

/// A Bind message.
#[derive(Debug, Clone, Copy)]
struct Bind<'a> {
    portal: &'a [u8],
    statement: &'a [u8],
    param_formats: Formats<'a>,
    params: WireValues<'a>,
    result_formats: Formats<'a>,
}

/// A portal's name that no client can use: executing it fails, which makes a backend give up its implicit transaction.
const NO_PORTAL: &[u8] = b"sy no such portal";

impl Session {
    /// Handles one message of the extended protocol at the start of the input.
    pub(super) async fn extended(&mut self, header: Header) -> Result<(), Trouble> {
        if self.batch.is_empty() && self.block.is_none() {
            self.refresh();
        }
        if header.tag == b'S' {
            // What follows may be data for a COPY that begins now, so none of the input may be held back.
            self.client.input.advance(header.len);
            let outcome = self.sync().await;
            let failed = matches!(outcome, Err(Trouble::Failure(_) | Trouble::Told));
            self.batch_outcome(outcome).await?;
            return if failed {
                self.sync_after_failure().await
            } else {
                Ok(())
            };
        }
        let mut input = self.client.take_input();
        let body = input.get(HEADER..header.len).unwrap_or_default();
        let outcome = match frontend::decode(header.tag, body) {
            Ok(_) if self.batch.skipping => Ok(()),
            Ok(message) => {
                self.batch.began.get_or_insert_with(Instant::now);
                self.message(message).await
            }
            Err(error) => Err(Trouble::Protocol(error.to_string().into())),
        };
        input.advance(header.len);
        self.client.put_back(input);
        self.batch_outcome(outcome).await
    }

    /// Reports an error within a batch, which goes on after the next Sync.
    async fn batch_outcome(&mut self, outcome: Result<(), Trouble>) -> Result<(), Trouble> {
        match outcome {
            Err(Trouble::Failure(failure)) => Box::pin(self.fail_batch(&failure)).await,
            Err(Trouble::Told) => {
                self.batch.skipping = true;
                Ok(())
            }
            other => other,
        }
    }

    /// A Sync met an error: the batch has failed with it, and still ends here. Each further error takes a participant
    /// out, so this ends.
    async fn sync_after_failure(&mut self) -> Result<(), Trouble> {
        for _ in 0..=self.participants.len() {
            match self.sync().await {
                outcome @ Err(Trouble::Failure(_) | Trouble::Told) => {
                    self.batch_outcome(outcome).await?;
                }
                other => return other,
            }
        }
        self.batch_ready().await
    }

    /// COPY data outside a COPY: it may be for an Execute that still waits to be sent. Otherwise a backend has ended its
    /// COPY by an error, and what the client sends until it learns of that is dropped.
    pub(super) async fn copy_data(&mut self, length: usize) -> Result<(), Trouble> {
        let active = self.batch.active;
        let waits = active
            .and_then(|active| self.participants.get(active))
            .is_some_and(|active| !active.connection.replies.is_settled());
        if !waits || self.batch.skipping {
            self.client.input.advance(length);
            return Ok(());
        }
        let outcome = self.settle().await;
        self.batch_outcome(outcome).await
    }

    async fn message(&mut self, message: Message<'_>) -> Result<(), Trouble> {
        match message {
            Message::Parse {
                name,
                sql,
                param_types,
            } => {
                let declared: Vec<u32> = param_types.iter().collect();
                self.parse(name, sql, &declared).await
            }
            Message::Bind {
                portal,
                statement,
                param_formats,
                params,
                result_formats,
            } => {
                let bind = Bind {
                    portal,
                    statement,
                    param_formats,
                    params,
                    result_formats,
                };
                self.bind_portal(&bind).await
            }
            Message::Describe {
                kind: Kind::Statement,
                name,
            } => Box::pin(self.describe_statement(name)).await,
            Message::Describe {
                kind: Kind::Portal,
                name,
            } => self.describe_portal(name).await,
            Message::Execute { portal, max_rows } => self.execute(portal, max_rows).await,
            Message::Close { kind, name } => self.close(kind, name).await,
            Message::Flush => {
                self.send_unsent().await?;
                self.settle().await?;
                self.client
                    .flush()
                    .await
                    .map_err(crate::execute::relay::client_gone)
            }
            _ => Err(Trouble::Protocol(
                "unexpected message in the extended protocol".into(),
            )),
        }
    }

    async fn parse(&mut self, name: &[u8], sql: &[u8], declared: &[u32]) -> Result<(), Trouble> {
        self.send_unsent().await?;
        if !name.is_empty() && self.statements.contains_key(name) {
            return Err(Failure::DuplicateStatement(lossy(name)).into());
        }
        let Some(mut prepared) = self.prepare(sql, declared)? else {
            return Box::pin(self.let_postgresql_refuse(sql)).await;
        };
        if prepared.plan.unknown.is_some()
            && Box::pin(self.learn_relations()).await
            && let Some(again) = self.prepare(sql, declared)?
        {
            prepared = again;
        }
        if let Operator::Refuse(refusal) = &prepared.plan.operator {
            let refusal = refusal.clone();
            if refusal.analyse_first {
                self.settle().await?;
                if Box::pin(self.analyse(sql)).await? {
                    return Err(Trouble::Told);
                }
            }
            return Err(Failure::Refused(refusal).into());
        }
        if let Command::Execute { name, .. } = &prepared.plan.command {
            if !self.statements.contains_key(name.as_bytes()) {
                return Err(Failure::NoSuchStatement(name.as_str().into()).into());
            }
            return Err(Failure::Unsupported {
                what: "EXECUTE by the extended query protocol".into(),
                hint: "Bind and execute the prepared statement itself, or use the simple query protocol.",
            }
            .into());
        }
        self.statements.insert(name.into(), prepared);
        self.batch.unsent = Some(name.into());
        Ok(())
    }

    /// The prepared statement for a text, or `None` if it is not one statement.
    pub(super) fn prepare(
        &mut self,
        sql: &[u8],
        declared: &[u32],
    ) -> Result<Option<SessionStatement>, Failure> {
        let worker = std::sync::Arc::clone(&self.worker);
        let mut desk = worker.desk();
        if desk.scan.scan(sql).is_err() || desk.scan.statements.len() > 1 {
            return Ok(None);
        }
        let plan = match self.plan_scanned(&mut desk, sql) {
            Err(Failure::NotUtf8) => return Ok(None),
            planned => planned?,
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
            plan,
            unsent: true,
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
    pub(super) fn statement_named(&mut self, name: &[u8]) -> Result<SessionStatement, Failure> {
        let missing = || match name {
            b"" => Failure::NoUnnamedStatement,
            name => Failure::NoSuchStatement(lossy(name)),
        };
        let known = self.statements.get(name).cloned().ok_or_else(missing)?;
        let context = match self.context {
            Some(context) => context,
            None => {
                let worker = std::sync::Arc::clone(&self.worker);
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
        let current = SessionStatement {
            statement: known.statement,
            unsent: known.unsent,
            ..replanned
        };
        self.statements.insert(name.into(), current.clone());
        Ok(current)
    }

    async fn bind_portal(&mut self, bind: &Bind<'_>) -> Result<(), Trouble> {
        if self
            .batch
            .unsent
            .as_deref()
            .is_some_and(|unsent| unsent != bind.statement)
        {
            self.send_unsent().await?;
        }
        let prepared = self.statement_named(bind.statement)?;
        if let Some(failed) = self.block.as_ref().and_then(|block| block.failed)
            && !is_end(&prepared.plan)
        {
            return Box::pin(self.bind_in_failed_block(failed, &prepared, bind)).await;
        }
        if let Operator::Refuse(refusal) = &prepared.plan.operator {
            return Err(Failure::Refused(refusal.clone()).into());
        }
        if let Command::Execute { .. } = prepared.plan.command {
            return Err(Failure::Unsupported {
                what: "EXECUTE by the extended query protocol".into(),
                hint: "Bind the prepared statement instead.",
            }
            .into());
        }
        if matches!(prepared.plan.operator, Operator::Session)
            && let Some(shard) = self.shard_held_for(&prepared.plan.command)
        {
            return self.bind_one(shard, prepared, bind).await;
        }
        if matches!(prepared.plan.operator, Operator::Session) {
            self.local_parse_complete(bind.statement).await?;
            self.reply(encode::bind_complete).await?;
            let portal = Portal::Session {
                plan: prepared.plan,
                statement: prepared.statement,
            };
            self.portals.insert(bind.portal, portal);
            return Ok(());
        }
        let known = |number: &u16| prepared.statement.parameter_type(*number) != 0;
        if !prepared.plan.key_params.iter().all(known) {
            Box::pin(self.learn_key_types(bind.statement, &prepared)).await?;
        }
        let shards = {
            let values = Values {
                sql: prepared.statement.sql(),
                literals: &prepared.literals,
                params: &BoundParams {
                    bind,
                    statement: &prepared.statement,
                },
            };
            self.bind(&prepared.plan, &values)?
        };
        let broadcast = matches!(prepared.plan.operator, Operator::Broadcast(_));
        match shards.only() {
            Some(shard) if !broadcast => self.bind_one(shard, prepared, bind).await,
            _ => Box::pin(self.bind_several(shards, prepared, bind)).await,
        }
    }

    /// No backend ever sees it.
    fn is_handled_here(&self, plan: &Plan) -> bool {
        matches!(plan.operator, Operator::Session) && self.shard_held_for(&plan.command).is_none()
    }

    /// The shard that failed refuses the statement itself.
    async fn bind_in_failed_block(
        &mut self,
        failed: FailedOn,
        prepared: &SessionStatement,
        bind: &Bind<'_>,
    ) -> Result<(), Trouble> {
        match failed {
            FailedOn::Shard(shard) => self.bind_one(shard, prepared.clone(), bind).await,
            FailedOn::Router => Err(Failure::InFailedTransaction.into()),
        }
    }

    async fn bind_one(
        &mut self,
        shard: ShardIndex,
        prepared: SessionStatement,
        bind: &Bind<'_>,
    ) -> Result<(), Trouble> {
        let need = self.need(prepared.plan.access, prepared.hint);
        let index = self.activate(shard, need).await?;
        let unsent = self.take_unsent(bind.statement);
        let Some(participant) = self.participants.get_mut(index) else {
            return Err(Failure::Retry.into());
        };
        participant.needs_sync = true;
        let named = !bind.statement.is_empty();
        hold_statement(
            &mut participant.connection,
            &prepared.statement,
            named,
            unsent,
        );
        participant.bound = (
            prepared.statement.number,
            SmallVec::from_slice(bind.statement),
        );
        encode_bind(&mut participant.connection, bind, &prepared.statement);
        participant
            .connection
            .replies
            .expect(Reply::Bind, Show::All);
        let portal = Portal::One {
            shard,
            is_primary: participant.is_primary,
            plan: prepared.plan,
        };
        self.portals.insert(bind.portal, portal);
        Ok(())
    }

    /// Binds on every shard, so that errors in the values are found at once; the first shard's answer is the client's.
    async fn bind_several(
        &mut self,
        shards: ShardSet,
        prepared: SessionStatement,
        bind: &Bind<'_>,
    ) -> Result<(), Trouble> {
        if matches!(prepared.plan.operator, Operator::Broadcast(_)) && self.block.is_none() {
            self.block = Some(super::block::Block::implicit(&self.settings));
        }
        let need = self.need(prepared.plan.access, prepared.hint);
        let mut unsent = self.take_unsent(bind.statement);
        let named = !bind.statement.is_empty();
        for (position, shard) in shards.iter().enumerate() {
            let index = self.activate(shard, need).await?;
            let Some(participant) = self.participants.get_mut(index) else {
                return Err(Failure::Retry.into());
            };
            participant.needs_sync = true;
            hold_statement(
                &mut participant.connection,
                &prepared.statement,
                named,
                unsent,
            );
            unsent = false;
            participant.bound = (
                prepared.statement.number,
                SmallVec::from_slice(bind.statement),
            );
            encode_bind(&mut participant.connection, bind, &prepared.statement);
            let show = if position == 0 {
                Show::All
            } else {
                Show::Errors
            };
            participant.connection.replies.expect(Reply::Bind, show);
        }
        self.settle().await?;
        let portal = Portal::Several {
            shards,
            plan: prepared.plan,
            progress: 0,
        };
        self.portals.insert(bind.portal, portal);
        Ok(())
    }

    /// Gets the types of the parameters that decide the shard from PostgreSQL, which infers them.
    async fn learn_key_types(
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

    /// Queues a Describe of the statement on a backend; its parameter types are noted as they come.
    fn queue_describe(
        &mut self,
        index: usize,
        name: &[u8],
        prepared: &SessionStatement,
        show: Show,
    ) -> Result<(), Trouble> {
        let unsent = self.take_unsent(name);
        self.described
            .0
            .push(std::sync::Arc::clone(&prepared.statement));
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
            note_types_of: Some(prepared.statement.number),
        };
        connection.replies.expect(reply, show);
        Ok(())
    }

    async fn describe_statement(&mut self, name: &[u8]) -> Result<(), Trouble> {
        if self
            .batch
            .unsent
            .as_deref()
            .is_some_and(|unsent| unsent != name)
        {
            self.send_unsent().await?;
        }
        let prepared = self.statement_named(name)?;
        if self.is_handled_here(&prepared.plan) {
            self.local_parse_complete(name).await?;
            self.reply(|output| {
                encode::parameter_description(output, &[]);
                encode::no_data(output);
            })
            .await?;
            return Ok(());
        }
        let index = self.activate_any(&prepared).await?;
        self.queue_describe(index, name, &prepared, Show::All)?;
        Ok(())
    }

    async fn describe_portal(&mut self, name: &[u8]) -> Result<(), Trouble> {
        let shard = match self.portals.get(name) {
            None => self
                .cursors
                .iter()
                .find(|cursor| cursor.name.as_bytes() == name)
                .map(|cursor| cursor.shard)
                .ok_or_else(|| Failure::NoSuchPortal(lossy(name)))?,
            Some(Portal::Session { .. }) => {
                return self.reply(encode::no_data).await;
            }
            Some(Portal::One { shard, .. }) => *shard,
            Some(Portal::Several { shards, .. }) => shards.first().unwrap_or(ShardIndex::FIRST),
        };
        let index = self.activate_held(shard, name).await?;
        if let Some(participant) = self.participants.get_mut(index) {
            participant.needs_sync = true;
            let connection = &mut *participant.connection;
            frontend::encode::describe(&mut connection.output, Kind::Portal, name);
            connection.replies.expect(
                Reply::Describe {
                    note_types_of: None,
                },
                Show::All,
            );
        }
        Ok(())
    }

    async fn execute(&mut self, name: &[u8], max_rows: i32) -> Result<(), Trouble> {
        let portal = self
            .portals
            .get(name)
            .cloned()
            .ok_or_else(|| Failure::NoSuchPortal(lossy(name)))?;
        let (plan, shards) = portal.plan();
        self.count(plan, shards);
        match portal {
            Portal::Session { plan, statement } => {
                self.settle().await?;
                Box::pin(self.execute_control(&plan, &statement)).await
            }
            Portal::One { shard, plan, .. } => {
                self.note_write(shard, &plan)?;
                self.note_cursor(&plan.command, shard);
                self.note_temporary(&plan);
                let index = self.activate_held(shard, name).await?;
                self.batch.schema_changed |= matches!(plan.command, Command::Ddl);
                if let Some(participant) = self.participants.get_mut(index) {
                    participant.needs_sync = true;
                    participant.note_run(&plan);
                    participant.connection.dirty |= plan.effects.dirty;
                    if let Some(pin) = plan.effects.pins.iter().next() {
                        participant.pin.get_or_insert(pin);
                    }
                    let connection = &mut *participant.connection;
                    frontend::encode::execute(&mut connection.output, name, max_rows);
                    connection.replies.expect(Reply::Execute, Show::All);
                }
                Ok(())
            }
            Portal::Several { .. } => Box::pin(self.execute_several(name, max_rows)).await,
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
        if self.block.is_none() && changes_settings {
            self.block = Some(super::block::Block::implicit(&self.settings));
            self.adopt_batch()?;
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

    /// What this batch has done so far becomes part of the block that has just begun.
    fn adopt_batch(&mut self) -> Result<(), Failure> {
        let Some(block) = &mut self.block else {
            return Ok(());
        };
        if let Some(writer) = self.batch.writer.take() {
            block.note_write(writer)?;
        }
        for participant in self.participants.iter_mut() {
            if participant.needs_sync && !participant.in_block {
                participant.queue_query(&block.joining_sql());
                participant.in_block = true;
            }
        }
        Ok(())
    }

    /// Executes a portal that is bound on several shards: one after the other, as far as the row limit goes.
    async fn execute_several(&mut self, name: &[u8], max_rows: i32) -> Result<(), Trouble> {
        let Some(Portal::Several {
            shards,
            plan,
            progress,
        }) = self.portals.get(name).cloned()
        else {
            return Err(Failure::NoSuchPortal(lossy(name)).into());
        };
        self.settle().await?;
        let broadcast = matches!(plan.operator, Operator::Broadcast(_));
        self.batch.schema_changed |= matches!(plan.command, Command::Ddl);
        let (mut total, mut left) = (0, u64::try_from(max_rows).unwrap_or(0));
        for (position, shard) in shards.iter().enumerate().skip(progress) {
            let index = self.activate_held(shard, name).await?;
            let Some(participant) = self.participants.get_mut(index) else {
                return Err(Failure::Retry.into());
            };
            participant.needs_sync = true;
            participant.note_run(&plan);
            let limit = if broadcast {
                0
            } else {
                i32::try_from(left).unwrap_or(0)
            };
            frontend::encode::execute(&mut participant.connection.output, name, limit);
            let (reply, show) = match (broadcast, position) {
                (true, 0) => (Reply::Execute, Show::All),
                (true, _) => (Reply::Execute, Show::Errors),
                (false, _) => (
                    Reply::Part {
                        describe: false,
                        ready: false,
                    },
                    Show::All,
                ),
            };
            participant.connection.replies.expect(reply, show);
            self.settle().await?;
            let Some(participant) = self.participants.get_mut(index) else {
                return Err(Failure::Retry.into());
            };
            let tag = participant.connection.replies.last_tag();
            if !broadcast && participant.connection.replies.is_suspended() {
                let portal = Portal::Several {
                    shards: shards.clone(),
                    plan,
                    progress: position,
                };
                self.portals.insert(name, portal);
                encode::portal_suspended(&mut self.client.output);
                return Ok(());
            }
            total += tag.rows();
            left = left.saturating_sub(tag.rows());
        }
        if !broadcast {
            encode::command_complete(
                &mut self.client.output,
                format!("SELECT {total}").as_bytes(),
            );
        }
        Ok(())
    }

    async fn close(&mut self, kind: Kind, name: &[u8]) -> Result<(), Trouble> {
        match kind {
            Kind::Statement => {
                if self.batch.unsent.as_deref() == Some(name) {
                    self.send_unsent().await?;
                }
                self.statements.remove(name);
            }
            Kind::Portal => {
                let shards = match self.portals.remove(name) {
                    Some(Portal::One { shard, .. }) => ShardSet::one(shard),
                    Some(Portal::Several { shards, .. }) => shards,
                    Some(Portal::Session { .. }) | None => ShardSet::empty(),
                };
                for shard in shards.iter() {
                    self.close_portal_on(shard, name);
                }
            }
        }
        self.reply(encode::close_complete).await
    }

    fn close_portal_on(&mut self, shard: ShardIndex, name: &[u8]) {
        let held = self.participants.position(shard, Need::Replica);
        if let Some(participant) = held.and_then(|held| self.participants.get_mut(held)) {
            participant.needs_sync = true;
            let connection = &mut *participant.connection;
            frontend::encode::close(&mut connection.output, Kind::Portal, name);
            connection.replies.expect(Reply::Close, Show::Errors);
        }
    }

    /// Ends the batch.
    async fn sync(&mut self) -> Result<(), Trouble> {
        if !self.batch.skipping {
            self.send_unsent().await?;
        }
        let failed = self.batch.skipping;
        if self.block.as_ref().is_some_and(|block| !block.explicit) {
            self.sync_hidden().await?;
            if failed {
                Box::pin(self.abort_implicit()).await?
            } else {
                Box::pin(self.commit_implicit_in_batch()).await?
            }
            return self.batch_ready().await;
        }
        let touched = self.participants.needing_sync();
        let alone = match touched.as_slice() {
            [only] if !self.batch.failed_here => *only,
            _ => {
                // An error on one participant must be known before another one commits.
                if !self.batch.skipping {
                    self.settle().await?;
                }
                if self.sync_hidden().await? {
                    return self.batch_ready().await;
                }
                return self.await_another_sync().await;
            }
        };
        let ready = self.sync_one(alone, Show::All).await?;
        if !ready {
            return self.await_another_sync().await;
        }
        self.end_batch().await;
        self.finish().await
    }

    /// The backend was in COPY and ignored the Sync: the client sends another.
    async fn await_another_sync(&mut self) -> Result<(), Trouble> {
        self.client
            .flush()
            .await
            .map_err(crate::execute::relay::client_gone)
    }

    async fn batch_ready(&mut self) -> Result<(), Trouble> {
        self.end_batch().await;
        self.ready().await
    }

    async fn end_batch(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if let Some(began) = batch.began {
            self.counters.query_time(began.elapsed());
        }
        if batch.schema_changed {
            Box::pin(self.schema_changed()).await;
        }
        self.described.0.clear();
        if self.block.is_none() {
            self.portals.clear();
        }
    }

    /// A Sync for every backend that the batch touched, whose ReadyForQuery nobody sees.
    /// True when all have said it.
    async fn sync_hidden(&mut self) -> Result<bool, Trouble> {
        let writer = self.batch.writer;
        let next = |session: &Self| {
            let waiting = session.participants.needing_sync();
            // The one that has written commits last: by then nothing else can fail.
            let wrote = |index: &usize| {
                let held = session.participants.get(*index);
                held.is_some_and(|held| Some(held.shard) == writer && held.is_primary)
            };
            let reader = waiting.iter().copied().find(|index| !wrote(index));
            reader.or(waiting.first().copied())
        };
        while let Some(index) = next(self) {
            if !self.sync_one(index, Show::Nothing).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// True when ReadyForQuery has come.
    async fn sync_one(&mut self, index: usize, show: Show) -> Result<bool, Trouble> {
        let failed_on = self.batch.failed_on;
        let abort = self.batch.skipping && self.block.is_none();
        let Some(participant) = self.participants.get_mut(index) else {
            return Ok(true);
        };
        let abort = abort && failed_on != Some((participant.shard, participant.is_primary));
        let connection = &mut *participant.connection;
        if abort {
            frontend::encode::execute(&mut connection.output, NO_PORTAL, 0);
            connection.replies.expect(Reply::Execute, Show::Nothing);
        }
        let before = connection.replies.readies();
        frontend::encode::sync(&mut connection.output);
        connection.replies.expect(Reply::Sync, show);
        participant.needs_sync = false;
        if self.exchange(index).await? {
            self.forget_unparsed(index);
        }
        let Some(participant) = self.participants.get_mut(index) else {
            return Ok(true);
        };
        let (shard, status) = (participant.shard, participant.status());
        let ready = participant.connection.replies.readies() != before;
        if ready {
            self.note_status(index, shard, status);
        } else {
            participant.needs_sync = true;
        }
        Ok(ready)
    }

    fn note_status(&mut self, index: usize, shard: ShardIndex, status: TransactionStatus) {
        match (&mut self.block, status) {
            (Some(block), TransactionStatus::Failed) => {
                block.failed.get_or_insert(FailedOn::Shard(shard));
            }
            (None, TransactionStatus::InBlock | TransactionStatus::Failed) => {
                let mut block = super::block::Block::explicit("BEGIN", false, &self.settings);
                block.failed =
                    (status == TransactionStatus::Failed).then_some(FailedOn::Shard(shard));
                self.block = Some(block);
                if let Some(participant) = self.participants.get_mut(index) {
                    participant.in_block = true;
                }
            }
            _ => {}
        }
    }

    /// A simple query came before the Sync: PostgreSQL would go on in the same implicit transaction and commit it with
    /// the query; here the batch ends first.
    pub(super) async fn close_batch(&mut self) -> Result<(), Trouble> {
        self.sync_hidden().await?;
        self.end_batch().await;
        Ok(())
    }

    /// Reports an error of the router's own within a batch.
    async fn fail_batch(&mut self, failure: &Failure) -> Result<(), Trouble> {
        // PostgreSQL would have parsed the statement before it met this error.
        let parsed = match self.batch.unsent {
            Some(_) => self.send_unsent().await,
            None => Ok(()),
        };
        let settled = match parsed {
            Ok(()) => self.settle().await,
            Err(trouble) => Err(trouble),
        };
        match settled {
            Ok(()) => {
                self.report(failure);
                self.batch.failed_here = true;
            }
            // An earlier message of the batch failed first: that is the error the client gets.
            Err(Trouble::Told) => {}
            Err(Trouble::Failure(earlier)) => {
                self.report(&earlier);
                self.batch.failed_here = true;
            }
            Err(trouble) => return Err(trouble),
        }
        self.batch.skipping = true;
        Ok(())
    }

    /// Makes the backend for `shard` the active one.
    async fn activate(&mut self, shard: ShardIndex, need: Need) -> Result<usize, Trouble> {
        let held = self.participants.position(shard, need);
        if self.batch.active.is_some() && self.batch.active != held {
            self.settle().await?;
        }
        let index = self.join(shard, need).await?;
        self.batch.active = Some(index);
        Ok(index)
    }

    async fn activate_any(&mut self, prepared: &SessionStatement) -> Result<usize, Trouble> {
        let shard = match self
            .batch
            .active
            .and_then(|active| self.participants.get(active))
        {
            Some(active) => active.shard,
            None => self.any_shard(),
        };
        let need = self.need(prepared.plan.access, prepared.hint);
        self.activate(shard, need).await
    }

    /// The backend on which a portal is bound.
    async fn activate_held(&mut self, shard: ShardIndex, portal: &[u8]) -> Result<usize, Trouble> {
        let need = match self.portals.get(portal) {
            Some(Portal::One {
                is_primary: true, ..
            }) => Need::Primary,
            _ => Need::Replica,
        };
        let held = self.participants.position(shard, need);
        let index = held.ok_or_else(|| Failure::NoSuchPortal(lossy(portal)))?;
        if self.batch.active.is_some() && self.batch.active != held {
            self.settle().await?;
        }
        self.batch.active = held;
        Ok(index)
    }

    /// Gets all replies the active backend owes, without ending the batch.
    async fn settle(&mut self) -> Result<(), Trouble> {
        let Some(active) = self.batch.active else {
            return Ok(());
        };
        let Some(participant) = self.participants.get_mut(active) else {
            self.batch.active = None;
            return Ok(());
        };
        if participant.connection.replies.is_settled() && participant.connection.output.is_empty() {
            return Ok(());
        }
        frontend::encode::flush(&mut participant.connection.output);
        if self.exchange(active).await? {
            self.forget_unparsed(active);
            return Err(Trouble::Told);
        }
        Ok(())
    }

    /// An error happened on a participant: the statements whose Parse did not take place do not exist.
    pub(super) fn forget_unparsed(&mut self, index: usize) {
        let Some(participant) = self.participants.get(index) else {
            return;
        };
        self.batch.failed_on = Some((participant.shard, participant.is_primary));
        let kept = self.batch.parsed.len().saturating_sub(participant.unparsed);
        let unsent = self.batch.unsent.take();
        for name in self.batch.parsed.drain(kept..).chain(unsent) {
            self.statements.remove(&name);
        }
    }

    /// Sends what is queued for a participant and relays its replies. True if an error was among them.
    pub(super) async fn exchange(&mut self, index: usize) -> Result<bool, Trouble> {
        let Self {
            client,
            participants,
            described,
            block,
            ..
        } = self;
        let Some(participant) = participants.get_mut(index) else {
            return Ok(false);
        };
        let outcome = match send(client, participant, &[], described).await {
            Ok(()) => relay(client, participant, described).await,
            Err(trouble) => Err(trouble),
        };
        match outcome {
            Ok(failed) => {
                if failed && let Some(block) = block {
                    block
                        .failed
                        .get_or_insert(FailedOn::Shard(participant.shard));
                }
                Ok(failed)
            }
            Err(Trouble::Lost) => {
                let shard = (&*participant.shard_name).into();
                let failure = match (&self.block, participant.wrote) {
                    (None, true) => Failure::OutcomeUnknown { shard },
                    _ => Failure::ShardLost { shard },
                };
                self.participants.close(&self.database, index);
                self.batch.active = None;
                Err(failure.into())
            }
            Err(other) => Err(other),
        }
    }

    /// Outside a block a batch is one transaction, which can write to one shard only.
    fn note_write(&mut self, shard: ShardIndex, plan: &Plan) -> Result<(), Failure> {
        if plan.access != Access::Write {
            return Ok(());
        }
        if let Some(block) = &mut self.block {
            return block.note_write(shard);
        }
        match self.batch.writer {
            Some(writer) if writer != shard => Err(Failure::SecondWriter),
            _ => {
                self.batch.writer = Some(shard);
                Ok(())
            }
        }
    }

    /// Commits what a broadcast in this batch did; an error is shown in front of ReadyForQuery.
    async fn commit_implicit_in_batch(&mut self) -> Result<(), Trouble> {
        match self.commit_implicit().await {
            Ok(()) | Err(Trouble::Told) => Ok(()),
            Err(Trouble::Failure(failure)) => {
                self.report(&failure);
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    /// Sends a Parse that nothing followed up: to any backend, for its errors are all that matters.
    async fn send_unsent(&mut self) -> Result<(), Trouble> {
        let Some(name) = self.batch.unsent.clone() else {
            return Ok(());
        };
        let prepared = self.statement_named(&name)?;
        if self.is_handled_here(&prepared.plan) {
            return self.local_parse_complete(&name).await;
        }
        let index = self.activate_any(&prepared).await?;
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
    fn take_unsent(&mut self, name: &[u8]) -> bool {
        let unsent = self.batch.unsent.as_deref() == Some(name);
        if unsent {
            self.batch.parsed.extend(self.batch.unsent.take());
            if let Some(statement) = self.statements.get_mut(name) {
                statement.unsent = false;
            }
        }
        unsent
    }

    /// A statement the session handles itself needs no backend to parse it.
    async fn local_parse_complete(&mut self, name: &[u8]) -> Result<(), Trouble> {
        if self.take_unsent(name) {
            self.reply(encode::parse_complete).await?;
        }
        Ok(())
    }

    /// Puts a message of ours behind the replies still owed.
    async fn reply(&mut self, encode: impl FnOnce(&mut BytesMut)) -> Result<(), Trouble> {
        let active = self
            .batch
            .active
            .and_then(|active| self.participants.get_mut(active));
        match active {
            Some(participant) if !participant.connection.replies.is_settled() => {
                let mut bytes = BytesMut::new();
                encode(&mut bytes);
                participant
                    .connection
                    .replies
                    .expect(Reply::Ours(bytes.freeze()), Show::All);
            }
            _ => encode(&mut self.client.output),
        }
        Ok(())
    }
}

/// Makes sure the backend has the statement: queues its Parse where needed. `unsent`: the client awaits ParseComplete.
fn hold_statement(connection: &mut Connection, statement: &Statement, named: bool, unsent: bool) {
    let held = if named {
        connection.prepared.touch(statement.number)
    } else {
        connection.unnamed == Some(statement.number)
    };
    if held {
        if unsent {
            let mut complete = BytesMut::new();
            encode::parse_complete(&mut complete);
            connection
                .replies
                .expect(Reply::Ours(complete.freeze()), Show::All);
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
            connection.replies.expect(Reply::Close, Show::Nothing);
        }
    } else {
        connection.unnamed = Some(statement.number);
    }
    statement.encode_prepare(&mut connection.output, named);
    let reply = Reply::Parse {
        statement: statement.number,
        named,
    };
    connection
        .replies
        .expect(reply, if unsent { Show::All } else { Show::Errors });
}

/// Passes a Bind on under the backend's name for the statement.
fn encode_bind(connection: &mut Connection, bind: &Bind<'_>, statement: &Statement) {
    let name = backend_name(statement, !bind.statement.is_empty());
    frontend::encode::bind_like(
        &mut connection.output,
        bind.portal,
        name.as_bytes(),
        bind.param_formats,
        bind.params,
        bind.result_formats,
    );
}

fn backend_name(statement: &Statement, named: bool) -> &str {
    if named { statement.backend_name() } else { "" }
}

fn lossy(name: &[u8]) -> Box<str> {
    String::from_utf8_lossy(name).into()
}

/// The parameters of a Bind message, with their types.
struct BoundParams<'a> {
    bind: &'a Bind<'a>,
    statement: &'a Statement,
}

impl Params for BoundParams<'_> {
    fn param(&self, number: u16) -> Option<Param<'_>> {
        let index = usize::from(number).checked_sub(1)?;
        Some(Param {
            value: self.bind.params.get(index)?,
            binary: self.bind.param_formats.format(index) == Format::Binary,
            oid: self.statement.parameter_type(number),
        })
    }
}
