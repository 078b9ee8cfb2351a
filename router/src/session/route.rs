//! Where a text goes: scanning, planning (from the worker's cache) and binding, without waiting for anything.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the commands listed are the session's own; all others run on a shard"
)]

use std::ops::Range;
use std::sync::Arc;

use switchyard_schema::{ShardIndex, ShardSet};
use switchyard_wire::DecodeError;

use super::Session;
use super::statement::{Portal, Scope};
use crate::execute::failure::Failure;
use crate::execute::participant::Participant;
use crate::execute::participants::Need;
use crate::merge::Limit;
use crate::plan::{
    Access, CacheContext, Command, Context, ContextId, Lookup, NoParams, Operator, Pin, Plan,
    Target, Values, plan,
};
use crate::session::write::insert::shards_of_rows;
use crate::sql::{HintNode, Scan, redacted};
use crate::topology::DatabaseTopology;
use crate::worker::Desk;

/// One statement, planned, and bound where its values are known.
#[derive(Debug, Clone)]
pub(crate) struct Routed {
    pub(crate) plan: Arc<Plan>,
    /// The shards it goes to; empty if it goes to none.
    pub(crate) shards: ShardSet,
    /// For a workspace: the shards of each of its fetches.
    pub(crate) fetches: Vec<ShardSet>,
    /// Of an INSERT: the shard of each row.
    pub(crate) rows: Vec<ShardIndex>,
    /// Of rows that are merged: which of them.
    pub(crate) limit: Limit,
    /// The hint in the text.
    pub(crate) hint: Option<HintNode>,
    /// What a global unique index is asked first.
    pub(crate) lookup: Option<Lookup>,
}

/// A cursor declared by SQL.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    pub(super) name: String,
    pub(super) shard: ShardIndex,
    /// It outlives its transaction.
    pub(super) hold: bool,
    /// Its transaction has not ended yet.
    pub(super) is_new: bool,
    /// Its shard knows the whole text that declared it.
    pub(super) whole: bool,
}

/// What a query string contains.
pub(crate) enum Text {
    Empty,
    One(Routed),
    /// Where each statement is.
    Several(Vec<Range<u32>>),
    /// PostgreSQL's lexer would not accept it, as far as ours can tell.
    Unscannable,
}

/// The plan with the settings this execution changes, if it changes any.
pub(super) fn bind_settings(
    plan: Arc<Plan>,
    values: &Values<'_>,
    database: &DatabaseTopology,
) -> Result<Arc<Plan>, Failure> {
    if plan.settings.is_empty() {
        return Ok(plan);
    }
    let bound = plan
        .with_settings_bound(values, database.shards.len() == 1)
        .map_err(Failure::Refused)?;
    Ok(Arc::new(bound))
}

/// Which of the rows are the result, where they are merged.
pub(super) fn limit_of(plan: &Plan, values: &Values<'_>) -> Result<Limit, Failure> {
    match &plan.operator {
        Operator::Merge(merge) => {
            let limit = merge.limit(values).map_err(Failure::Refused)?;
            Ok(limit.unwrap_or_default())
        }
        Operator::Lock(lock) => {
            let limit = lock.limit(values).map_err(Failure::Refused)?;
            Ok(limit.unwrap_or_default())
        }
        _ => Ok(Limit::default()),
    }
}

/// What planning a text came to.
pub(super) enum Planned {
    /// Of one statement, or of none.
    One(Arc<Plan>),
    Several,
    /// As [`Text::Unscannable`].
    Unscannable,
}

/// The shards of rows.
fn set_of(rows: Vec<ShardIndex>) -> ShardSet {
    let mut shards = ShardSet::empty();
    for shard in rows {
        shards.insert(shard);
    }
    shards
}

impl Session {
    /// Plans and binds a query string of the simple protocol.
    pub(crate) fn route_text(&mut self, sql: &[u8]) -> Result<Text, Failure> {
        let worker = Arc::clone(&self.worker);
        let mut desk = worker.desk();
        let plan = match self.plan_text(&mut desk, sql)? {
            Planned::One(_) if desk.scan.statements.is_empty() => return Ok(Text::Empty),
            Planned::Several => return Ok(Text::Several(desk.scan.statements.clone())),
            Planned::Unscannable => return Ok(Text::Unscannable),
            Planned::One(plan) => plan,
        };
        let values = Values {
            sql,
            literals: &desk.scan.literals,
            params: &NoParams,
        };
        let (plan, shards) = self.bind_either(plan, &values)?;
        let fetches = match &plan.operator {
            Operator::Workspace(workspace) => self.fetches(workspace, &values)?,
            _ => Vec::new(),
        };
        let rows = shards_of_rows(&plan, &values)?;
        let limit = limit_of(&plan, &values)?;
        let located = plan.located.as_ref().filter(|_| shards.only().is_none());
        let lookup = located.and_then(|located| located.lookup(&values));
        let plan = bind_settings(plan, &values, &self.database)?;
        Ok(Text::One(Routed {
            lookup,
            rows,
            limit,
            hint: desk.scan.hint.as_ref().and_then(|hint| hint.node),
            plan,
            shards,
            fetches,
        }))
    }

    /// The plan of a text, from the cache if it is there; the desk then holds its scan.
    pub(super) fn plan_text(&mut self, desk: &mut Desk, sql: &[u8]) -> Result<Planned, Failure> {
        let context = self.context_id(desk);
        let logs = tracing::enabled!(tracing::Level::DEBUG);
        if let Some(plan) = desk.plans.recognise(sql, &mut desk.scan, context) {
            if logs {
                self.log_statement(sql);
            }
            self.counters.plan_cache(true);
            return Ok(Planned::One(plan));
        }
        // What is recognised goes to PostgreSQL as it is, which looks for itself.
        if sql.contains(&0) {
            return Err(Failure::InvalidMessage(DecodeError::Trailing));
        }
        if desk.scan.scan(sql).is_err() {
            return Ok(Planned::Unscannable);
        }
        if desk.scan.statements.len() > 1 {
            return Ok(Planned::Several);
        }
        if logs {
            self.log_statement(sql);
        }
        if let Some(plan) = desk.plans.get(sql, &desk.scan, context) {
            self.counters.plan_cache(true);
            desk.plans.make_familiar(sql, &desk.scan, context, &plan);
            return Ok(Planned::One(plan));
        }
        self.counters.plan_cache(false);
        let plan = match self.plan_anew(&desk.scan, sql) {
            Err(Failure::NotUtf8) => return Ok(Planned::Unscannable),
            plan => Arc::new(plan?),
        };
        // A plan made in ignorance is not worth keeping.
        if plan.unknown.is_none() {
            desk.plans
                .insert(sql, &desk.scan, context, Arc::clone(&plan));
        }
        Ok(Planned::One(plan))
    }

    /// Logs what the client sent, as much of it as `[log] sql` lets be seen.
    fn log_statement(&self, sql: &[u8]) {
        let shown = match self.worker.services.settings.load().file.log.full_sql {
            true => String::from_utf8_lossy(sql),
            false => redacted(sql),
        };
        tracing::debug!(sql = %shown, "a statement arrived");
    }

    fn plan_anew(&self, scan: &Scan, sql: &[u8]) -> Result<Plan, Failure> {
        let text = std::str::from_utf8(sql).map_err(|_| Failure::NotUtf8)?;
        Ok(plan(text, scan, &self.planning_context()))
    }

    /// What plans depend on besides the text.
    pub(super) fn planning_context(&self) -> Context<'_> {
        Context {
            relations: &self.database.relations,
            search_path: &self.search_path,
            temporary: &self.temporary,
            layer: self.layer,
            given: &[],
            ahead: &[],
            in_trigger: false,
        }
    }

    /// The number of all that plans depend on besides the text.
    pub(super) fn context_id(&mut self, desk: &mut Desk) -> ContextId {
        if let Some(context) = self.context {
            return context;
        }
        let context = desk.plans.context(&CacheContext {
            database: (&*self.database.name).into(),
            epoch: self.database.generation,
            role: (&*self.role).into(),
            search_path: self.search_path.clone(),
            temporary: self.temporary.clone(),
            layer: self.layer,
        });
        self.context = Some(context);
        context
    }

    /// What names mean to this session now.
    pub(super) fn scope(&self) -> Scope {
        Scope {
            database: Arc::clone(&self.database.name),
            generation: self.database.generation,
            role: Arc::clone(&self.role),
            search_path: self.search_path.clone(),
            reading: Arc::clone(&self.reading),
        }
    }

    /// The plan for these values, which is another one where they lead to several shards, and its shards.
    pub(super) fn bind_either(
        &self,
        plan: Arc<Plan>,
        values: &Values<'_>,
    ) -> Result<(Arc<Plan>, ShardSet), Failure> {
        match (self.bind(&plan, values), &plan.several) {
            (Ok(shards), _) => Ok((plan, shards)),
            (Err(_), Some(several)) => {
                let several = Arc::clone(several);
                let shards = self.bind(&several, values)?;
                Ok((several, shards))
            }
            (Err(failure), None) => Err(failure),
        }
    }

    /// The shards one execution goes to.
    pub(super) fn bind(&self, plan: &Plan, values: &Values<'_>) -> Result<ShardSet, Failure> {
        let count = self.database.shards.len();
        let target = match &plan.operator {
            Operator::PassThrough(Target::AnyShard) => return Ok(ShardSet::one(self.any_shard())),
            Operator::PassThrough(target) | Operator::Append(target) => target,
            Operator::Merge(merge) => {
                let shards = merge
                    .target
                    .shards(values, count)
                    .map_err(Failure::Refused)?;
                let some = merge.limit(values).map_err(Failure::Refused)?.is_some();
                // Where any shard gives the whole answer, one does.
                let one = shards.first().filter(|_| !some);
                return Ok(one.map_or(shards, ShardSet::one));
            }
            Operator::Write(write) => &write.target,
            Operator::Lock(lock) => {
                let some = lock.limit(values).map_err(Failure::Refused)?.is_some();
                return Ok(match some {
                    true => ShardSet::empty(),
                    false => ShardSet::one(self.any_shard()),
                });
            }
            Operator::Insert(_) => return Ok(set_of(shards_of_rows(plan, values)?)),
            Operator::Broadcast(_) | Operator::CopyIn(_) => return Ok(ShardSet::all(count)),
            Operator::Session
            | Operator::Workspace(_)
            | Operator::InsertQuery(_)
            | Operator::Move(_)
            | Operator::Steps(_)
            | Operator::Refuse(_) => {
                return Ok(ShardSet::empty());
            }
        };
        target.shards(values, count).map_err(Failure::Refused)
    }

    /// A shard for what any shard can answer: one already held, else one that is up, starting with a different one
    /// for each session.
    pub(super) fn any_shard(&self) -> ShardIndex {
        let held = self.participants.iter();
        let first = held.clone().next();
        // State that is on one backend only is to be found.
        let special =
            |held: &&Participant| held.connection.seeded || held.pins.contains(Pin::Setting);
        let in_block = |held: &&Participant| held.in_block;
        let chosen = held.clone().find(special);
        if let Some(held) = chosen.or_else(|| held.clone().find(in_block)).or(first) {
            return held.shard;
        }
        let shards = &self.database.shards;
        let start = self.entry.id as usize;
        (0..shards.len())
            .map(|step| (start + step) % shards.len())
            .find(|position| shards[*position].writer().is_ok())
            .and_then(|position| u16::try_from(position).ok())
            .map_or(ShardIndex::FIRST, ShardIndex)
    }

    /// The shard that runs a statement which has no shard by what it says, but by what the session holds: cursors,
    /// settings. `None`: the session runs it itself.
    pub(super) fn shard_held_for(&self, command: &Command) -> Option<ShardIndex> {
        match command {
            Command::Fetch { name }
            | Command::OfCursor { name, .. }
            | Command::CloseCursor(Some(name)) => self.shard_of_cursor(name),
            Command::Begin(_)
            | Command::Commit { .. }
            | Command::Rollback { .. }
            | Command::PrepareTransaction(_)
            | Command::EndPrepared { .. }
            | Command::Savepoint(_)
            | Command::Release(_)
            | Command::RollbackTo(_)
            | Command::SetTransaction(_)
            | Command::SetSessionCharacteristics(_)
            | Command::SetConstraints
            | Command::Set { .. }
            | Command::Reset(_)
            | Command::Discard(_)
            | Command::Prepare { .. }
            | Command::Execute { .. }
            | Command::Deallocate(_)
            | Command::Declare { .. }
            | Command::CloseCursor(None)
            | Command::Listen(_)
            | Command::Unlisten(_)
            | Command::Distribute
            | Command::Empty => None,
            _ => Some(self.any_shard()),
        }
    }

    /// The shard that has a cursor, or a portal of the protocol, which SQL knows by the same names. `None`: the session has it.
    fn shard_of_cursor(&self, name: &str) -> Option<ShardIndex> {
        if self.cursor_apart(name).is_some() {
            return None;
        }
        match self.portals.get(name.as_bytes()) {
            Some(Portal::One { shard, .. }) => Some(*shard),
            Some(_) => None,
            None => {
                let cursor = self.cursors.iter().find(|cursor| cursor.name == *name);
                Some(cursor.map_or_else(|| self.any_shard(), |cursor| cursor.shard))
            }
        }
    }

    /// Only what one shard has a portal of can be reached by SQL.
    pub(super) fn meant_portal_is_whole(&self, command: &Command) -> Result<(), Failure> {
        let (Command::Fetch { name }
        | Command::OfCursor { name, .. }
        | Command::CloseCursor(Some(name))) = command
        else {
            return Ok(());
        };
        match self.portals.get(name.as_bytes()) {
            None | Some(Portal::One { .. }) => Ok(()),
            Some(_) => Err(Failure::Unsupported {
                what: "FETCH, MOVE or CLOSE of a portal that the protocol has bound over rows of several shards".into(),
                hint: "Execute and close it by the protocol, or DECLARE a cursor.",
            }),
        }
    }

    /// Takes note of a temporary relation that may exist from now on. Once it may be gone, the session that has it is
    /// [asked](Self::learn_temporary).
    pub(super) fn note_temporary(&mut self, plan: &Plan) {
        if let Some(name) = &plan.temporary
            && !self.temporary.contains(name)
        {
            self.temporary.push(name.clone());
            if let Some(block) = &mut self.block {
                block.changed_temporary = true;
            }
            self.context = None;
        }
    }

    /// Takes note of a cursor that has been declared on a shard.
    pub(super) fn note_cursor(&mut self, command: &Command, shard: ShardIndex) {
        match command {
            Command::Declare { name, hold } => {
                self.cursors.retain(|cursor| cursor.name != *name);
                self.cursors.push(Cursor {
                    name: name.clone(),
                    shard,
                    hold: *hold,
                    is_new: true,
                    whole: true,
                });
            }
            Command::CloseCursor(Some(name)) => self.cursors.retain(|cursor| cursor.name != *name),
            _ => {}
        }
    }

    /// The kind of node a statement needs, by what it does, the block it is in and the client's wishes.
    pub(super) fn need(&self, access: Access, hint: Option<HintNode>) -> Need {
        let wish = hint.or(self.route_hint);
        match (&self.block, access, wish) {
            (Some(block), ..) if block.read_only => Need::Replica,
            (Some(_), ..) | (None, Access::LockingRead | Access::Write, _) => Need::Primary,
            (None, Access::Read | Access::PrimaryRead, Some(HintNode::Replica)) => {
                Need::AskedReplica
            }
            (None, Access::PrimaryRead, _) | (None, Access::Read, Some(HintNode::Primary)) => {
                Need::Primary
            }
            (None, Access::Read, None) => Need::Read,
        }
    }
}
