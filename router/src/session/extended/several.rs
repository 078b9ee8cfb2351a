//! Portals that are bound on several shards.

use std::sync::Arc;

use switchyard_schema::ShardSet;
use switchyard_wire::backend::encode;
use switchyard_wire::frontend::{self, Bind};

use crate::backend::{Reply, Show};
use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::plan::{Broadcast, Command, Operator};
use crate::session::Session;
use crate::session::statement::{Portal, SessionStatement};

use super::lossy;

impl Session {
    /// Binds on every shard, so that errors in the values are found at once; the first shard's answer is the client's.
    pub(super) async fn bind_several(
        &mut self,
        shards: ShardSet,
        prepared: &SessionStatement,
        bind: &Bind<'_>,
    ) -> Result<(), Trouble> {
        if matches!(prepared.plan.operator, Operator::Broadcast(_)) && self.block.is_none() {
            if prepared.plan.command == Command::Lock {
                return Err(Failure::NoBlock("LOCK TABLE").into());
            }
            // A server that has met an error ignores all that begins a block.
            self.settle().await?;
            self.begin_implicit();
        }
        let need = self.need(prepared.plan.access, prepared.hint);
        self.gather(&shards, need).await?;
        let mut unsent = self.take_unsent(bind.statement);
        let mut on_primaries = ShardSet::empty();
        for (position, shard) in shards.iter().enumerate() {
            let index = self.activate(shard, need).await?;
            let Some(participant) = self.participants.get_mut(index) else {
                return Err(Failure::Retry.into());
            };
            if participant.is_primary {
                on_primaries.insert(shard);
            }
            let show = if position == 0 {
                Show::All
            } else {
                Show::Errors
            };
            participant.queue_bind(prepared, bind, unsent, show);
            unsent = false;
        }
        self.settle().await?;
        let portal = Portal::Several {
            shards,
            on_primaries,
            plan: Arc::clone(&prepared.plan),
            progress: 0,
        };
        self.portals.insert(bind.portal, portal);
        Ok(())
    }

    /// Executes a portal that is bound on several shards. What changes all of them is told when nothing speaks against it any more.
    pub(super) async fn execute_several(
        &mut self,
        name: &[u8],
        max_rows: i32,
    ) -> Result<(), Trouble> {
        let Some(Portal::Several { plan, .. }) = self.portals.get(name) else {
            return Err(Failure::NoSuchPortal(lossy(name)).into());
        };
        let plan = Arc::clone(plan);
        if !matches!(plan.operator, Operator::Broadcast(_)) {
            return self.execute_each(name, max_rows).await;
        }
        self.settle().await?;
        let held = self.client.hold();
        let mut outcome = self.execute_each(name, max_rows).await;
        if outcome.is_ok() {
            outcome = self.keep_unique(&plan).await;
        }
        if outcome.is_ok() && plan.command == Command::Ddl {
            outcome = self.look_after_unique(&plan).await;
        }
        let said = self.client.unhold(held);
        if matches!(outcome, Ok(()) | Err(Trouble::Told)) {
            self.client.output.extend_from_slice(&said);
        }
        outcome
    }

    /// Executes it on one shard after the other, as far as the row limit goes.
    async fn execute_each(&mut self, name: &[u8], max_rows: i32) -> Result<(), Trouble> {
        let Some(Portal::Several {
            shards,
            on_primaries,
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
            if let (Operator::Broadcast(Broadcast::Ddl), 0) = (&plan.operator, position) {
                self.refuse_unenforceable(index, &plan).await?;
                continue;
            }
            if !broadcast && participant.connection.replies.is_suspended() {
                let portal = Portal::Several {
                    shards: shards.clone(),
                    on_primaries,
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
}
