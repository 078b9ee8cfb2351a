//! Portals whose rows are merged from several shards.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use switchyard_schema::ShardSet;
use switchyard_wire::Format;
use switchyard_wire::backend::encode;
use switchyard_wire::frontend::{self, Bind, Kind};

use super::bind::BoundParams;
use super::lossy;
use super::statements::hold_statement;
use super::workspace::parameter_types;
use crate::backend::{Reply, Show};
use crate::execute::block::FailedOn;
use crate::execute::failure::Failure;
use crate::execute::participant::Participant;
use crate::execute::relay::{Trouble, exchange};
use crate::merge::{Formats, Limit};
use crate::plan::{Merge, Operator, Plan, Values};
use crate::session::Session;
use crate::session::merge::{Merging, Outcome, describe};
use crate::session::statement::{Portal, SessionStatement, Statement, StatementText};

/// A portal's merge; `None` when its rows have all been given, and while they are.
pub(in crate::session) type Shared = Arc<Mutex<Option<Box<Merging>>>>;

impl Session {
    /// Binds a text of ours on every shard, all at once; their rows are merged when the portal is executed.
    pub(super) async fn bind_merge(
        &mut self,
        shards: ShardSet,
        prepared: &SessionStatement,
        bind: &Bind<'_>,
    ) -> Result<(), Trouble> {
        let Operator::Merge(merge) = &prepared.plan.operator else {
            return Err(Failure::Retry.into());
        };
        // PostgreSQL parses the client's own text: it says what is wrong with it, and where.
        self.send_unsent().await?;
        self.settle().await?;
        if !bind.portal.is_empty() && self.portals.get(bind.portal).is_some() {
            return Err(Failure::DuplicateCursor(lossy(bind.portal)).into());
        }
        let formats = formats(merge, bind)?;
        let limit = self.limit_of_bind(merge, prepared, bind)?;
        let (statement, plan) = (self.statement_of_shards(merge, prepared), &prepared.plan);
        let need = self.need(plan.access, prepared.hint);
        self.gather(&shards, need).await?;
        let mut indexes = Vec::with_capacity(shards.len());
        let mut on_primaries = ShardSet::empty();
        for shard in shards.iter() {
            let index = self.join(shard, need).await?;
            self.settle_one(index, plan).await?;
            if self.participants.at(index)?.is_primary {
                on_primaries.insert(shard);
            }
            indexes.push(index);
        }
        for (position, index) in indexes.iter().enumerate() {
            self.queue_bind_merge(*index, position == 0, &statement, bind, &formats)?;
            let connection = &mut *self.participants.at(*index)?.connection;
            if connection.flush().await.is_err() {
                return Err(self.lose(*index, plan));
            }
        }
        let description = self.bound_merge(&indexes, merge, plan).await?;
        encode::bind_complete(&mut self.client.output);
        let formats = Formats::each(formats);
        let merging = Merging::new(
            &merge.recipe,
            formats,
            indexes.len(),
            limit,
            Some(bind.portal),
        );
        let portal = Portal::Merge {
            shards,
            on_primaries,
            plan: Arc::clone(plan),
            description: Some(description.freeze()),
            merging: Arc::new(Mutex::new(Some(Box::new(merging)))),
        };
        self.portals.insert(bind.portal, portal);
        Ok(())
    }

    fn limit_of_bind(
        &self,
        merge: &Merge,
        prepared: &SessionStatement,
        bind: &Bind<'_>,
    ) -> Result<Limit, Failure> {
        let values = Values {
            sql: prepared.statement.sql(),
            literals: &prepared.literals,
            params: &BoundParams::new(bind, &prepared.statement),
        };
        let limit = merge.limit(&values).map_err(Failure::Refused)?;
        Ok(limit.unwrap_or_default())
    }

    /// The statement that the shards run. Its parameters have the types that the client's have, wherever they stand now.
    fn statement_of_shards(&self, merge: &Merge, prepared: &SessionStatement) -> Arc<Statement> {
        let sql = merge.text(prepared.statement.sql());
        let types = parameter_types(&prepared.statement, prepared.plan.params);
        self.worker.services.statements.intern(
            self.scope(),
            StatementText::Parsed {
                sql: sql.into(),
                declared: types.into(),
            },
        )
    }

    /// Queues Bind, the Parse it needs, and for the first shard a Describe.
    fn queue_bind_merge(
        &mut self,
        index: usize,
        describes: bool,
        statement: &Statement,
        bind: &Bind<'_>,
        formats: &[Format],
    ) -> Result<(), Failure> {
        let participant = self.participants.at(index)?;
        participant.needs_sync = true;
        let named = !bind.statement.is_empty();
        let connection = &mut *participant.connection;
        hold_statement(connection, statement, named, false);
        let name = if named { statement.backend_name() } else { "" };
        let param_formats: Vec<Format> = bind.param_formats.iter().collect();
        let params: Vec<Option<&[u8]>> = bind.params.iter().collect();
        frontend::encode::bind(
            &mut connection.output,
            bind.portal,
            name.as_bytes(),
            &param_formats,
            &params,
            formats,
        );
        connection.replies.expect(Reply::Bind, Show::Errors);
        if describes {
            frontend::encode::describe(&mut connection.output, Kind::Portal, bind.portal);
            let reply = Reply::Describe {
                note_types_of: None,
            };
            connection.replies.expect(reply, Show::All);
        }
        frontend::encode::flush(&mut connection.output);
        Ok(())
    }

    /// Waits until every shard has bound its part: the description of the result.
    async fn bound_merge(
        &mut self,
        indexes: &[usize],
        merge: &Merge,
        plan: &Plan,
    ) -> Result<BytesMut, Trouble> {
        let mut failed = None;
        let mut answer = BytesMut::new();
        for (position, index) in indexes.iter().enumerate() {
            let first = position == 0;
            let before = first.then(|| self.client.hold());
            let Self {
                client,
                participants,
                described,
                ..
            } = self;
            let participant = participants.at(*index)?;
            if failed.is_some() {
                participant.connection.replies.hide_all();
            }
            let outcome = exchange(client, participant, &[], described).await;
            if let Some(before) = before {
                answer = client.unhold(before);
                if outcome.is_err() || participant.failed {
                    client.output.extend_from_slice(&answer);
                }
            }
            match outcome {
                Ok(false) => {}
                Ok(true) => failed = failed.or(Some(*index)),
                Err(Trouble::Lost) => {
                    participant.connection.broken = true;
                    failed = failed.or(Some(*index));
                }
                Err(other) => return Err(other),
            }
        }
        let Some(failed) = failed else {
            let message = Self::row_description(answer).ok_or(Failure::Retry)?;
            let mut description = BytesMut::new();
            return describe(&mut description, &message, merge.recipe.columns.into())
                .map(|()| description)
                .ok_or_else(|| Failure::Retry.into());
        };
        Err(self.failed_part(failed, plan))
    }

    /// A shard has failed in a merge: what that means for the batch and the block.
    fn failed_part(&mut self, failed: usize, plan: &Plan) -> Trouble {
        let trouble = match self.participants.at(failed) {
            Ok(participant) if !participant.connection.broken => {
                let shard = participant.shard;
                if let Some(block) = &mut self.block {
                    block.failed.get_or_insert(FailedOn::Shard(shard));
                }
                self.forget_unparsed(failed);
                Trouble::Told
            }
            _ => self.lost_at(failed, plan),
        };
        self.close_lost();
        trouble
    }

    /// Closes the connections that are lost.
    fn close_lost(&mut self) {
        let broken = |held: &Participant| held.connection.broken;
        if self.participants.iter().any(broken) {
            self.batch.active = None;
            self.participants.close_broken(&self.database);
        }
    }

    /// Ends every shard's part of a merge that has come to its end.
    async fn drain_merge(&mut self, indexes: &[usize], plan: &Plan) -> Result<(), Trouble> {
        let lost = self.drain(indexes).await?;
        let lost = lost.map(|index| self.lost_at(index, plan));
        self.close_lost();
        lost.map_or(Ok(()), Err)
    }

    /// Executes a portal whose rows are merged.
    pub(super) async fn execute_merge(
        &mut self,
        name: &[u8],
        max_rows: i32,
    ) -> Result<(), Trouble> {
        self.settle().await?;
        let cancels = self.cancel.slot().requests();
        let Some(Portal::Merge {
            shards,
            on_primaries,
            plan,
            merging: shared,
            ..
        }) = self.portals.get(name).cloned()
        else {
            return Err(Failure::NoSuchPortal(lossy(name)).into());
        };
        let taken = shared.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut merging) = taken else {
            encode::command_complete(&mut self.client.output, b"SELECT 0");
            return Ok(());
        };
        let held = |shard| {
            self.participants
                .position_of(shard, on_primaries.contains(shard))
        };
        let indexes: Option<Vec<usize>> = shards.iter().map(held).collect();
        let indexes = indexes.ok_or_else(|| Failure::NoSuchPortal(lossy(name)))?;
        for index in &indexes {
            // Something else of the batch may still be unanswered there, such as a Close.
            self.settle_one(*index, &plan).await?;
            self.participants.at(*index)?.note_run(&plan);
        }
        let max_rows = u64::try_from(max_rows).ok().filter(|rows| *rows > 0);
        self.ask_all(&indexes, &mut merging, max_rows).await?;
        self.cancel_again(cancels).await;
        let mut outcome = self
            .merge_rows(&indexes, &mut merging, false, max_rows)
            .await?;
        if let Outcome::Suspended = outcome
            && let Some(failed) = self.receive_rest(&indexes, &mut merging).await?
        {
            outcome = Outcome::Failed(failed);
        }
        match outcome {
            Outcome::Suspended => {
                encode::portal_suspended(&mut self.client.output);
                let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                *shared = Some(merging);
                Ok(())
            }
            Outcome::End(rows) => {
                self.drain_merge(&indexes, &plan).await?;
                let tag = format!("SELECT {rows}");
                encode::command_complete(&mut self.client.output, tag.as_bytes());
                Ok(())
            }
            Outcome::Failed(at) => {
                let failed = indexes.get(at.source).copied().unwrap_or_default();
                let others = indexes.iter().copied().filter(|index| *index != failed);
                self.give_up(&others.collect::<Vec<_>>()).await?;
                Err(self.failed_part(failed, &plan))
            }
            Outcome::Unmerged(error) => {
                self.give_up(&indexes).await?;
                self.close_lost();
                Err(Failure::Unmerged(error).into())
            }
        }
    }
}

/// How the shards are to write their columns: those of the result as the client asked for, ours in binary.
fn formats(merge: &Merge, bind: &Bind<'_>) -> Result<Vec<Format>, Failure> {
    let (shown, extras) = (merge.recipe.columns, merge.recipe.extras);
    let asked = bind.result_formats;
    if asked.len() > 1 && asked.len() != usize::from(shown) {
        return Err(Failure::FormatCount {
            formats: asked.len(),
            columns: shown.into(),
        });
    }
    let shown = (0..usize::from(shown)).map(|at| asked.format(at));
    Ok(shown.chain((0..extras).map(|_| Format::Binary)).collect())
}
