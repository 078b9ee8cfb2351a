//! Bind: a statement and its values become a portal, on one shard, on several, or of the session's own.

use std::sync::Arc;

use switchyard_schema::{ShardIndex, ShardSet};
use switchyard_wire::frontend::Bind;

use super::bind::{BoundParams, has_parameters};
use super::lossy;
use crate::backend::Show;
use crate::execute::block::FailedOn;
use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::plan::{Broadcast, Command, Operator, Pin, Plan, Values};
use crate::session::Session;
use crate::session::learn::settings_of_several;
use crate::session::route::bind_settings;
use crate::session::simple::is_end;
use crate::session::statement::{Portal, SessionStatement};

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
            bind_settings(Arc::clone(&prepared.plan), &values, &self.database)?
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

    /// Binds as the client asks, and once more if it has waited while its tables changed, and nobody has seen anything of it.
    pub(super) async fn bind_asked(&mut self, bind: &Bind<'_>) -> Result<(), Trouble> {
        let told = self.client.told();
        let begins = self.block.is_none()
            && !self.batch.has_written()
            && self.portals.values().next().is_none();
        let outcome = self.bind_portal(bind).await;
        let is_unseen = |session: &Self| {
            session.client.told() == told && session.participants.needing_sync().is_empty()
        };
        match outcome {
            Err(Trouble::Failure(Failure::Retry)) if begins && is_unseen(self) => {
                self.abort_implicit().await?;
                Box::pin(self.learn_relations()).await;
                self.bind_portal(bind).await
            }
            outcome => outcome,
        }
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
        self.asks_by(index, &prepared.plan);
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
}

/// Whether the types of the parameters that decide the shard are known.
fn knows_key_types(prepared: &SessionStatement) -> bool {
    let known = |number: &u16| prepared.statement.parameter_type(*number) != 0;
    prepared.plan.key_params.iter().all(known)
}
