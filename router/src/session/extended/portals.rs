//! Portals: Describe, Execute and Close of a portal. Bind has a [file](super::bind_portal) of its own.

use std::sync::Arc;

use bytes::BytesMut;
use switchyard_schema::{ShardIndex, ShardSet};
use switchyard_wire::backend::encode;
use switchyard_wire::frontend::{self, Kind};

use crate::backend::{Reply, Show};
use crate::execute::failure::Failure;
use crate::execute::participant::Participant;
use crate::execute::relay::Trouble;
use crate::plan::{Access, Command, Plan};
use crate::session::Session;
use crate::session::distribute::description;
use crate::session::route::Cursor;
use crate::session::simple::is_end;
use crate::session::statement::Portal;

use super::lossy;

impl Session {
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
    pub(super) fn cursor_portal(&self, name: &[u8]) -> Option<usize> {
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
    pub(super) async fn begin_for_another(
        &mut self,
        shard: ShardIndex,
        plan: &Plan,
    ) -> Result<(), Trouble> {
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
