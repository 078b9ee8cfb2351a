//! Portals: Bind, Describe, Execute and Close of a portal.

use std::sync::Arc;

use bytes::BytesMut;
use switchyard_schema::{ShardIndex, ShardSet};
use switchyard_wire::backend::encode;
use switchyard_wire::frontend::{self, Bind, Kind};

use crate::backend::{Reply, Show};
use crate::execute::block::FailedOn;
use crate::execute::failure::Failure;
use crate::execute::participant::Participant;
use crate::execute::relay::Trouble;
use crate::plan::{Access, Broadcast, Command, Operator, Pin, Plan, Values};
use crate::session::Session;
use crate::session::distribute::description;
use crate::session::learn::settings_of_several;
use crate::session::route::{Cursor, bind_settings};
use crate::session::simple::is_end;
use crate::session::statement::{Portal, SessionStatement};

use super::bind::{BoundParams, has_parameters};
use super::lossy;

impl Session {
    /// Waits until all that was sent has been answered; a portal of this name must not be open.
    pub(super) async fn settle_before_bind(&mut self, bind: &Bind<'_>) -> Result<(), Trouble> {
        self.send_unsent().await?;
        self.settle().await?;
        match !bind.portal.is_empty() && self.portals.get(bind.portal).is_some() {
            true => Err(Failure::DuplicateCursor(lossy(bind.portal)).into()),
            false => Ok(()),
        }
    }

    /// Binds a statement of one shard behind what is queued for the same backend. False: something has to be waited for.
    pub(super) fn bind_now(&mut self, bind: &Bind<'_>) -> Result<bool, Failure> {
        let unsent = self.batch.unsent.as_deref();
        if unsent.is_some_and(|unsent| unsent != bind.statement)
            || self.consistent_read
            || self.block_has_failed()
        {
            return Ok(false);
        }
        let prepared = self.statement_named(bind.statement)?;
        let passes = matches!(
            prepared.plan.operator,
            Operator::PassThrough(_) | Operator::Append(_) | Operator::Merge(_) | Operator::Lock(_)
        ) || matches!(&prepared.plan.operator, Operator::Write(write) if write.is_plain() && !self.gives_remembered(write));
        let looked_after = prepared.is_in_doubt
            || prepared.plan.unknown.is_some()
            || !prepared.plan.settings.is_empty()
            || prepared.plan.unique.is_some();
        if !passes || looked_after || !knows_key_types(&prepared) {
            return Ok(false);
        }
        let shards = match self.shards_of(&prepared, bind) {
            // Another plan serves these values.
            Err(_) if prepared.plan.several.is_some() => return Ok(false),
            shards => shards?,
        };
        let need = self.need(prepared.plan.access, prepared.hint);
        let index = match shards.only() {
            Some(shard) => self.activate_now(shard, need),
            None => None,
        };
        let Some(index) = index else {
            return Ok(false);
        };
        self.queue_bind(index, &prepared, bind)?;
        Ok(true)
    }

    /// Binds a statement that changes settings. A batch that fails takes them back, as the end of a block does.
    async fn bind_setting(
        &mut self,
        prepared: &SessionStatement,
        bind: &Bind<'_>,
    ) -> Result<(), Trouble> {
        let shards = self.shards_of(prepared, bind)?;
        let Some(shard) = shards.only() else {
            return Err(settings_of_several().into());
        };
        let plan = {
            let values = Values {
                sql: prepared.statement.sql(),
                literals: &prepared.literals,
                params: &BoundParams::new(bind, &prepared.statement),
            };
            bind_settings(Arc::clone(&prepared.plan), &values)?
        };
        self.has_servers_defaults(&plan)?;
        let ends_transactions = matches!(plan.command, Command::Call | Command::Do);
        if ends_transactions && self.block.is_none() {
            // In a block it could not. What it sets stays where it is, and the session with it.
            let mut plan = Plan::clone(&plan);
            plan.settings.clear();
            plan.effects.pins.insert(Pin::Setting);
            let plan = Arc::new(plan);
            let prepared = SessionStatement {
                plan,
                ..prepared.clone()
            };
            return self.bind_one(shard, &prepared, bind).await;
        }
        self.begin_in_batch()?;
        let prepared = SessionStatement {
            plan,
            ..prepared.clone()
        };
        self.bind_one(shard, &prepared, bind).await
    }

    /// The statement with the plan that serves these values, and its shards.
    fn either(
        &self,
        prepared: Arc<SessionStatement>,
        bind: &Bind<'_>,
    ) -> Result<(Arc<SessionStatement>, ShardSet), Failure> {
        let values = Values {
            sql: prepared.statement.sql(),
            literals: &prepared.literals,
            params: &BoundParams::new(bind, &prepared.statement),
        };
        let (plan, shards) = self.bind_either(Arc::clone(&prepared.plan), &values)?;
        if Arc::ptr_eq(&plan, &prepared.plan) {
            return Ok((prepared, shards));
        }
        let other = SessionStatement {
            plan,
            ..SessionStatement::clone(&prepared)
        };
        Ok((Arc::new(other), shards))
    }

    /// The shards that one execution goes to.
    fn shards_of(&self, prepared: &SessionStatement, bind: &Bind<'_>) -> Result<ShardSet, Failure> {
        let values = Values {
            sql: prepared.statement.sql(),
            literals: &prepared.literals,
            params: &BoundParams::new(bind, &prepared.statement),
        };
        self.bind(&prepared.plan, &values)
    }

    pub(super) async fn bind_portal(&mut self, bind: &Bind<'_>) -> Result<(), Trouble> {
        if self
            .batch
            .unsent
            .as_deref()
            .is_some_and(|unsent| unsent != bind.statement)
        {
            self.send_unsent().await?;
        }
        let prepared = self.statement_known(bind.statement).await?;
        if let Some(failed) = self.block.as_ref().and_then(|block| block.failed)
            && !is_end(&prepared.plan)
        {
            return self.bind_in_failed_block(failed, &prepared, bind).await;
        }
        if let Operator::Refuse(refusal) = &prepared.plan.operator {
            return Err(self.refused(refusal, &prepared).await);
        }
        if self.cursor_portal(bind.portal).is_some() {
            return Err(Failure::DuplicateCursor(lossy(bind.portal)).into());
        }
        if let Command::Execute { .. } = prepared.plan.command {
            self.local_parse_complete(bind.statement);
            return Box::pin(self.bind_execute(&prepared, bind)).await;
        }
        if matches!(prepared.plan.operator, Operator::Session) {
            let held = self.shard_held_for(&prepared.plan.command);
            if let Some(shard) = held.filter(|_| prepared.plan.unique.is_none()) {
                return self.bind_one(shard, &prepared, bind).await;
            }
            return Box::pin(self.bind_own(&prepared, bind)).await;
        }
        if self.consistent_read {
            Box::pin(self.cut_block(&prepared.plan)).await?;
        }
        if !knows_key_types(&prepared) {
            self.learn_key_types(bind.statement, &prepared).await?;
        }
        if !prepared.plan.settings.is_empty() {
            return self.bind_setting(&prepared, bind).await;
        }
        let (prepared, shards) = self.either(prepared, bind)?;
        let spreads = shards.only().is_none();
        if spreads || matches!(prepared.plan.operator, Operator::Workspace(_)) {
            has_parameters(bind, prepared.parameters())?;
        }
        if matches!(prepared.plan.command, Command::Explain { .. }) && spreads {
            return Box::pin(self.bind_explain(&prepared, bind)).await;
        }
        if prepared.plan.command == Command::CreateAs {
            return Box::pin(self.bind_create_as(prepared, bind)).await;
        }
        if self.consistent_read {
            Box::pin(self.cut_before(&prepared.plan, &shards)).await?;
        }
        if spreads
            && prepared.plan.located.is_some()
            && prepared.plan.command == Command::Select
            && Box::pin(self.bind_located(&prepared, bind)).await?
        {
            return Ok(());
        }
        self.bind_rows(shards, prepared, bind).await
    }

    /// Binds a statement that shards run, or that is made of what they run.
    async fn bind_rows(
        &mut self,
        shards: ShardSet,
        prepared: Arc<SessionStatement>,
        bind: &Bind<'_>,
    ) -> Result<(), Trouble> {
        match (&prepared.plan.operator, shards.only()) {
            (Operator::Workspace(_), _) => Box::pin(self.bind_in_workspace(&prepared, bind)).await,
            (Operator::Session, _) => Box::pin(self.bind_own(&prepared, bind)).await,
            (
                Operator::Insert(_)
                | Operator::InsertQuery(_)
                | Operator::Move(_)
                | Operator::Steps(_),
                _,
            ) => Box::pin(self.bind_insert(prepared, bind)).await,
            (Operator::Lock(_), None) => Box::pin(self.bind_locked(prepared, bind)).await,
            (Operator::Broadcast(Broadcast::Stepwise), _) => {
                self.send_unsent().await?;
                self.bind_here(&prepared, bind);
                Ok(())
            }
            (Operator::Broadcast(_), _) => self.bind_several(shards, &prepared, bind).await,
            (Operator::Write(write), _)
                if !write.is_plain()
                    || self.gives_remembered(write)
                    || prepared.plan.unique.is_some() =>
            {
                Box::pin(self.bind_written(shards, &prepared, bind)).await
            }
            (_, Some(shard)) => self.bind_one(shard, &prepared, bind).await,
            _ if matches!(prepared.plan.command, Command::Copy(_)) => {
                self.send_unsent().await?;
                self.bind_here(&prepared, bind);
                Ok(())
            }
            (Operator::Merge(_), None) => Box::pin(self.bind_merge(shards, &prepared, bind)).await,
            (Operator::Write(_), None) => {
                Box::pin(self.bind_written(shards, &prepared, bind)).await
            }
            _ => self.bind_several(shards, &prepared, bind).await,
        }
    }

    /// The shard that failed refuses the statement itself.
    async fn bind_in_failed_block(
        &mut self,
        failed: FailedOn,
        prepared: &SessionStatement,
        bind: &Bind<'_>,
    ) -> Result<(), Trouble> {
        match failed {
            FailedOn::Shard(shard) => self.bind_one(shard, prepared, bind).await,
            FailedOn::Router => Err(Failure::InFailedTransaction.into()),
        }
    }

    pub(super) async fn bind_one(
        &mut self,
        shard: ShardIndex,
        prepared: &SessionStatement,
        bind: &Bind<'_>,
    ) -> Result<(), Trouble> {
        self.begin_for_another(shard, &prepared.plan).await?;
        let need = self.need(prepared.plan.access, prepared.hint);
        let index = self.activate(shard, need).await?;
        Ok(self.queue_bind(index, prepared, bind)?)
    }

    /// Queues a Bind, and the Parse it needs, for a participant.
    fn queue_bind(
        &mut self,
        index: usize,
        prepared: &SessionStatement,
        bind: &Bind<'_>,
    ) -> Result<(), Failure> {
        self.prepare_state(index, &prepared.plan)?;
        if !bind.portal.is_empty() {
            let shard = self.participants.at(index)?.shard;
            self.refuse_cursor_elsewhere(bind.portal, shard)?;
        }
        let unsent = self.take_unsent(bind.statement);
        let participant = self.participants.at(index)?;
        participant.queue_bind(prepared, bind, unsent, Show::All);
        let portal = Portal::One {
            shard: participant.shard,
            is_primary: participant.is_primary,
            plan: Arc::clone(&prepared.plan),
        };
        self.portals.insert(bind.portal, portal);
        Ok(())
    }

    /// A portal of this name on another shard is one too many, as it is on the same shard, where the backend says so.
    pub(in crate::session) fn refuse_cursor_elsewhere(
        &self,
        name: &[u8],
        shard: ShardIndex,
    ) -> Result<(), Failure> {
        let portal_elsewhere = match self.portals.get(name) {
            Some(Portal::One { shard: held, .. }) => *held != shard,
            Some(
                Portal::Several { .. }
                | Portal::Written { .. }
                | Portal::Merge { .. }
                | Portal::Workspace { .. }
                | Portal::CreateAs { .. }
                | Portal::Insert { .. }
                | Portal::Locked { .. },
            ) => true,
            Some(Portal::Session { .. } | Portal::Fetch { .. } | Portal::Answered { .. })
            | None => false,
        };
        let is_elsewhere =
            |cursor: &Cursor| cursor.name.as_bytes() == name && cursor.shard != shard;
        let is_apart = self.cursor_portal(name).is_some();
        match portal_elsewhere || is_apart || self.cursors.iter().any(is_elsewhere) {
            true => Err(Failure::DuplicateCursor(lossy(name))),
            false => Ok(()),
        }
    }

    /// A cursor in a workspace, which is a portal too.
    fn cursor_portal(&self, name: &[u8]) -> Option<usize> {
        match self.portals.get(name) {
            Some(_) => None,
            None => self.cursor_apart(std::str::from_utf8(name).ok()?),
        }
    }

    pub(super) async fn describe_portal(&mut self, name: &[u8]) -> Result<(), Trouble> {
        if let Some(at) = self.cursor_portal(name) {
            let description = self.describe_cursor(at, b"");
            self.reply(|output| output.extend_from_slice(&description.unwrap_or_default()));
            return Ok(());
        }
        let shard = match self.portals.get(name) {
            None => self
                .cursors
                .iter()
                .find(|cursor| cursor.name.as_bytes() == name)
                .map(|cursor| cursor.shard)
                .ok_or_else(|| Failure::NoSuchPortal(lossy(name)))?,
            Some(Portal::Session { plan, statement }) if plan.command == Command::Distribute => {
                let description = description(statement.sql());
                self.reply(|output| output.extend_from_slice(&description));
                return Ok(());
            }
            Some(Portal::Session { .. } | Portal::CreateAs { .. }) => {
                self.reply(encode::no_data);
                return Ok(());
            }
            Some(
                Portal::Answered { description, .. }
                | Portal::Locked { description, .. }
                | Portal::Insert { description, .. },
            ) => {
                let description = description.clone();
                self.reply(|output| output.extend_from_slice(&description));
                return Ok(());
            }
            Some(Portal::Written {
                description: Some(description),
                ..
            }) => {
                let description = description.clone();
                self.reply(|output| output.extend_from_slice(&description));
                return Ok(());
            }
            Some(
                Portal::Workspace { description, .. }
                | Portal::Fetch { description, .. }
                | Portal::Merge { description, .. },
            ) => {
                let description = description.clone();
                self.reply(|output| match &description {
                    Some(description) => output.extend_from_slice(description),
                    None => encode::no_data(output),
                });
                return Ok(());
            }
            Some(Portal::One { shard, .. }) => *shard,
            Some(Portal::Several { shards, .. } | Portal::Written { shards, .. }) => {
                shards.first().unwrap_or(ShardIndex::FIRST)
            }
        };
        let index = self.activate_held(shard, name).await?;
        if let Some(participant) = self.participants.get_mut(index) {
            let mut message = BytesMut::new();
            frontend::encode::describe(&mut message, Kind::Portal, name);
            participant.queue_describe_portal(&message);
        }
        Ok(())
    }

    /// Describes a portal of the active backend, by the client's own message. False: it is none.
    pub(super) fn describe_portal_now(&mut self, name: &[u8], message: &[u8]) -> bool {
        let Some((_, participant)) = self.portal_at_hand(name) else {
            return false;
        };
        participant.queue_describe_portal(message);
        true
    }

    /// A portal that is bound on the active backend only: its plan, and the participant. None while a Parse still waits,
    /// which is to be answered first.
    fn portal_at_hand(&mut self, name: &[u8]) -> Option<(&Arc<Plan>, &mut Participant)> {
        if self.batch.unsent.is_some() {
            return None;
        }
        let Some(Portal::One {
            shard,
            is_primary,
            plan,
        }) = self.portals.get(name)
        else {
            return None;
        };
        let active = self.participants.get_mut(self.batch.active?)?;
        (active.shard == *shard && active.is_primary == *is_primary).then_some((plan, active))
    }

    /// Executes a portal of the active backend, by the client's own message. False: it is none.
    pub(super) fn execute_now(&mut self, name: &[u8], message: &[u8]) -> Result<bool, Failure> {
        if self.block_has_failed() {
            return Ok(false);
        }
        let Some((plan, participant)) = self.portal_at_hand(name) else {
            return Ok(false);
        };
        if !plan.settings.is_empty() {
            return Ok(false);
        }
        let (plan, shard) = (Arc::clone(plan), participant.shard);
        if self.writes_elsewhere(shard, &plan) {
            return Ok(false);
        }
        self.count(&plan, 1);
        self.execute_on(shard, &plan)?;
        if let Some(active) = self.batch.active
            && let Some(participant) = self.participants.get_mut(active)
        {
            participant.queue_execute(&plan, message);
        }
        Ok(true)
    }

    /// Takes note of what executing a portal on one shard means for the session.
    fn execute_on(&mut self, shard: ShardIndex, plan: &Plan) -> Result<(), Failure> {
        if plan.access == Access::Write && self.block.is_none() {
            self.batch.writer = Some(shard);
        }
        if let Command::Declare { name, .. } = &plan.command {
            self.refuse_cursor_elsewhere(name.as_bytes(), shard)?;
        }
        self.note_cursor(&plan.command, shard);
        self.note_temporary(plan);
        self.batch.schema_changed |= matches!(plan.command, Command::Ddl);
        Ok(())
    }

    async fn execute_on_one(
        &mut self,
        name: &[u8],
        shard: ShardIndex,
        plan: &Plan,
        max_rows: i32,
    ) -> Result<(), Trouble> {
        self.begin_for_another(shard, plan).await?;
        self.execute_on(shard, plan)?;
        let index = self.activate_held(shard, name).await?;
        if let Some(participant) = self.participants.get_mut(index) {
            let mut message = BytesMut::new();
            frontend::encode::execute(&mut message, name, max_rows);
            participant.queue_execute(plan, &message);
        }
        if !plan.settings.is_empty() {
            self.settle().await?;
            Box::pin(self.learn_settings(index, plan)).await?;
        }
        Ok(())
    }

    pub(super) async fn execute(&mut self, name: &[u8], max_rows: i32) -> Result<(), Trouble> {
        let failed = self.block_has_failed();
        if let Some(at) = self.cursor_portal(name) {
            self.settle().await?;
            if failed {
                return Err(Failure::InFailedTransaction.into());
            }
            return Box::pin(self.execute_cursor(at, max_rows)).await;
        }
        let portal = self
            .portals
            .get(name)
            .cloned()
            .ok_or_else(|| Failure::NoSuchPortal(lossy(name)))?;
        let (plan, shards) = portal.plan();
        if failed && !is_end(plan) {
            // Its own shard may not know.
            return Err(Failure::InFailedTransaction.into());
        }
        self.count(plan, shards);
        match portal {
            Portal::Session { plan, statement } => {
                self.settle().await?;
                self.execute_own(&plan, &statement).await
            }
            Portal::One { shard, plan, .. } => {
                self.execute_on_one(name, shard, &plan, max_rows).await
            }
            Portal::Written { .. } => Box::pin(self.execute_written(name, max_rows)).await,
            Portal::Several { .. } => self.execute_several(name, max_rows).await,
            Portal::Merge { .. } => Box::pin(self.execute_merge(name, max_rows)).await,
            Portal::Workspace {
                failed: Some(said), ..
            } => {
                self.settle().await?;
                self.portals.remove(name);
                Err(self.failed_in_part(&said))
            }
            Portal::Workspace { number, plan, .. } => {
                let run = self.execute_in_workspace(name, number, &plan.command, max_rows);
                Box::pin(run).await
            }
            Portal::Locked { .. } => Box::pin(self.execute_locked(name, max_rows)).await,
            Portal::Insert { .. } => Box::pin(self.execute_insert(name, max_rows)).await,
            Portal::CreateAs { prepared, bind } => {
                Box::pin(self.execute_create_as(&prepared, &bind)).await
            }
            Portal::Answered { .. } => {
                self.settle().await?;
                self.execute_answered(name, max_rows);
                Ok(())
            }
            Portal::Fetch {
                cursor,
                statement,
                bind,
                ..
            } => {
                self.settle().await?;
                let run = self.execute_fetch(&cursor, statement.sql(), &bind, max_rows);
                Box::pin(run).await
            }
        }
    }

    pub(super) async fn close(&mut self, kind: Kind, name: &[u8]) -> Result<(), Trouble> {
        // Its ParseComplete goes before our CloseComplete.
        self.send_unsent().await?;
        match kind {
            Kind::Statement => {
                self.statements.remove(name);
            }
            Kind::Portal => {
                self.close_portal(name).await;
                let portal = self.portals.remove(name);
                let shards = match &portal {
                    Some(Portal::One { shard, .. }) => ShardSet::one(*shard),
                    Some(
                        Portal::Several { shards, .. }
                        | Portal::Written { shards, .. }
                        | Portal::Merge { shards, .. },
                    ) => shards.clone(),
                    Some(
                        Portal::Session { .. }
                        | Portal::Workspace { .. }
                        | Portal::Answered { .. }
                        | Portal::Locked { .. }
                        | Portal::CreateAs { .. }
                        | Portal::Insert { .. }
                        | Portal::Fetch { .. },
                    )
                    | None => ShardSet::empty(),
                };
                for shard in shards.iter() {
                    let held = portal
                        .as_ref()
                        .and_then(|portal| portal.is_on_primary(shard))
                        .and_then(|is_primary| self.participants.position_of(shard, is_primary));
                    self.close_portal_on(held, name);
                }
            }
        }
        self.reply(encode::close_complete);
        Ok(())
    }

    fn close_portal_on(&mut self, held: Option<usize>, name: &[u8]) {
        if let Some(participant) = held.and_then(|held| self.participants.get_mut(held)) {
            participant.needs_sync = true;
            let connection = &mut *participant.connection;
            frontend::encode::close(&mut connection.output, Kind::Portal, name);
            connection.replies.expect(Reply::Close, Show::Errors);
        }
    }

    /// Outside a block a batch is one transaction. Where it is about to write to another shard than before it becomes a
    /// block, which ends with it.
    async fn begin_for_another(&mut self, shard: ShardIndex, plan: &Plan) -> Result<(), Trouble> {
        if self.writes_elsewhere(shard, plan) {
            self.settle().await?;
            self.begin_in_batch()?;
        }
        Ok(())
    }

    /// Whether it writes to another shard than the batch has written to.
    fn writes_elsewhere(&self, shard: ShardIndex, plan: &Plan) -> bool {
        let wrote_elsewhere = self.batch.writer.is_some_and(|writer| writer != shard);
        wrote_elsewhere && plan.access == Access::Write
    }
}

/// Whether the types of the parameters that decide the shard are known.
fn knows_key_types(prepared: &SessionStatement) -> bool {
    let known = |number: &u16| prepared.statement.parameter_type(*number) != 0;
    prepared.plan.key_params.iter().all(known)
}
