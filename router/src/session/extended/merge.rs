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
use crate::execute::given_rows::GivenRows;
use crate::execute::participant::Participant;
use crate::execute::participants::Need;
use crate::execute::relay::{Trouble, exchange};
use crate::merge::{Formats, Limit, Recipe};
use crate::plan::{Merge, Operator, Plan, Values};
use crate::session::Session;
use crate::session::read::merge::{Merging, Outcome};
use crate::session::read::part::{Shown, describe};
use crate::session::statement::{Portal, SessionStatement, Statement, StatementText};
use crate::session::workspace::fetch::TEXT;

/// A portal's merge; `None` when its rows have all been given, and while they are.
pub(in crate::session) type Shared = Arc<Mutex<Option<Box<Merging>>>>;

/// A statement of ours that is bound on several shards, whose rows are merged.
pub(in crate::session) struct Parts<'a> {
    pub(in crate::session) statement: Arc<Statement>,
    /// The plan of the client's statement.
    pub(in crate::session) plan: &'a Arc<Plan>,
    /// The kind of node that may answer.
    pub(in crate::session) need: Need,
    pub(in crate::session) shards: ShardSet,
    pub(in crate::session) recipe: &'a Arc<Recipe>,
    pub(in crate::session) limit: Limit,
    /// Rows in parameters that come after the client's.
    pub(in crate::session) given: &'a GivenRows,
    /// Those of the client's that the text does not mention, by their numbers: they have no value then.
    pub(in crate::session) unused: Vec<usize>,
    /// A RowDescription that says of which tables the columns are, where the shards' does not.
    pub(in crate::session) description: Option<&'a [u8]>,
    pub(in crate::session) bind: &'a Bind<'a>,
}

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
        self.settle_before_bind(bind).await?;
        let text = merge.text(prepared.statement.sql());
        self.bind_parts(&Parts {
            statement: self.statement_of_shards(&text, prepared, &[]),
            plan: &prepared.plan,
            need: self.need(prepared.plan.access, prepared.hint),
            shards,
            recipe: &merge.recipe,
            limit: self.limit_of_bind(merge, prepared, bind)?,
            given: &GivenRows::default(),
            unused: Vec::new(),
            description: None,
            bind,
        })
        .await
    }

    /// Binds a statement on every shard of a merge.
    pub(in crate::session) async fn bind_parts(
        &mut self,
        parts: &Parts<'_>,
    ) -> Result<(), Trouble> {
        let Parts {
            plan,
            need,
            recipe,
            bind,
            ..
        } = *parts;
        let shards = parts.shards.clone();
        let formats = formats(recipe, bind)?;
        self.gather(&shards, need).await?;
        let mut indexes = Vec::with_capacity(shards.len());
        let mut on_primaries = ShardSet::empty();
        for shard in shards.iter() {
            let index = self.join(shard, need).await?;
            if self.participants.at(index)?.is_primary {
                on_primaries.insert(shard);
            }
            indexes.push(index);
        }
        self.settle_each(&indexes, plan).await?;
        for (position, index) in indexes.iter().enumerate() {
            self.queue_bind_part(*index, position == 0, parts, &formats)?;
            let connection = &mut *self.participants.at(*index)?.connection;
            if connection.flush().await.is_err() {
                return Err(self.lose(*index, plan));
            }
        }
        let description = self.bound_merge(&indexes, parts).await?;
        encode::bind_complete(&mut self.client.output);
        let formats = Formats::each(formats);
        let (count, portal) = (indexes.len(), Some(bind.portal));
        let merging = Merging::new(recipe, formats, count, parts.limit, portal);
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

    /// The statement that the shards run. Its parameters have the types that the client's have, wherever they stand now; these are unused.
    pub(in crate::session) fn statement_of_shards(
        &self,
        text: &[u8],
        prepared: &SessionStatement,
        unused: &[usize],
    ) -> Arc<Statement> {
        let mut types = parameter_types(&prepared.statement, prepared.plan.params);
        // PostgreSQL wants to know the type even of a parameter that the text does not mention.
        for number in unused {
            let place = number.checked_sub(1).and_then(|at| types.get_mut(at));
            if let Some(unknown @ 0) = place {
                *unknown = TEXT;
            }
        }
        let text = StatementText::Parsed {
            sql: text.into(),
            declared: types.into(),
        };
        let statements = &self.worker.services.statements;
        prepared
            .statement
            .derived(text, |text| statements.intern(self.scope(), text))
    }

    /// Queues Bind, the Parse it needs, and for the first shard a Describe.
    fn queue_bind_part(
        &mut self,
        index: usize,
        describes: bool,
        parts: &Parts<'_>,
        formats: &[Format],
    ) -> Result<(), Failure> {
        let Parts {
            bind, statement, ..
        } = parts;
        let participant = self.participants.at(index)?;
        participant.needs_sync = true;
        let named = !bind.statement.is_empty();
        let connection = &mut *participant.connection;
        hold_statement(connection, statement, named, false);
        let name = if named { statement.backend_name() } else { "" };
        let mut param_formats: Vec<Format> = bind.param_formats.iter().collect();
        let params = bind.params.iter().zip(1..);
        let used = |number: &usize| !parts.unused.contains(number);
        let mut params: Vec<Option<&[u8]>> = params
            .map(|(value, number)| value.filter(|_| used(&number)))
            .collect();
        if !parts.given.is_empty() {
            let own = 0..params.len();
            param_formats = own.map(|at| bind.param_formats.format(at)).collect();
            let given = parts.given.on(participant.shard);
            param_formats.extend(given.iter().map(|_| Format::Binary));
            params.extend(given.iter().map(Option::as_deref));
        }
        let begins = connection.output.len();
        frontend::encode::bind(
            &mut connection.output,
            bind.portal,
            name.as_bytes(),
            &param_formats,
            &params,
            formats,
        );
        connection.renumber_bind(begins, |number| statement.parameter_type(number));
        connection.replies.expect(Reply::Bind, Show::Errors);
        if describes {
            frontend::encode::describe(&mut connection.output, Kind::Portal, bind.portal);
            let reply = Reply::Describe { noted_of: None };
            connection.replies.expect(reply, Show::All);
        }
        frontend::encode::flush(&mut connection.output);
        Ok(())
    }

    /// Waits until every shard has bound its part: the description of the result.
    async fn bound_merge(
        &mut self,
        indexes: &[usize],
        parts: &Parts<'_>,
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
            let shown = Shown {
                columns: parts.recipe.columns.into(),
                extras: parts.recipe.extras.into(),
                tables: parts.description,
            };
            if describe(&mut description, &message, shown).is_none() {
                // Who prepares it again gets another plan.
                Box::pin(self.learn_relations()).await;
                return Err(Failure::Retry.into());
            }
            return Ok(description);
        };
        Err(self.failed_part(failed, parts.plan))
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
            .merge_rows(&indexes, &mut merging, None, max_rows)
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
            Outcome::Stale => {
                self.give_up(&indexes).await?;
                self.close_lost();
                Err(Failure::Retry.into())
            }
        }
    }
}

/// How the shards are to write their columns: those of the result as the client asked for, ours in binary.
fn formats(recipe: &Recipe, bind: &Bind<'_>) -> Result<Vec<Format>, Failure> {
    let (shown, extras) = (recipe.columns, recipe.extras);
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
