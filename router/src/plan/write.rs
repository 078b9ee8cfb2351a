//! Statements that change rows of several shards, where each row's change depends on rows of its own shard only.
//!
//! Purpose: [`Write`] says which shards such an UPDATE, DELETE, MERGE or INSERT … SELECT goes to; each runs the client's text on its own rows, all in
//! one transaction. Invariants: together the shards do what one server would do with all the rows; what a shard would compute by
//! itself, and one server only once, is not among it. Collaborators: `decide` says where rows are; `session::write` runs it.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "few statements write, of which few are not looked into"
)]

use sqlparser::ast::{Insert, SetExpr, Statement};
use switchyard_schema::{ShardIndex, TableName};

use super::ahead::{self, Ahead, Instead};
use super::analyse::{self, Analysis, Instance, StoredKeys};
use super::apart::{Understood, several};
use super::decide;
use super::given::{Given, GivenText};
use super::moment::{Clock, Moments};
use super::moving::changes_keys;
use super::refusal::Refusal;
use super::route::{KeyRoute, Target};
use super::shares::Shares;
use super::{Broadcast, Context, Operator, Plan, Planner};
use crate::relations::{Placement, RelationKind};
use crate::sql::Token;

/// A statement that changes rows of several shards.
#[derive(Debug, Clone)]
pub struct Write {
    /// The shards that may have rows it changes.
    pub target: Target,
    /// What it calls the present.
    pub moments: Moments,
    /// Every shard has a copy of the rows, and must report the same number of them.
    pub copies: bool,
    /// Tables of which other shards have rows that matter: all of their rows are given with the statement.
    pub given: Vec<(Given, Target)>,
    /// Queries of which it needs the rows of all shards: they are computed first, and their rows given.
    pub ahead: Vec<Ahead>,
    /// It reads what the session remembers of sequences, and may have to be given that.
    pub remembers: bool,
}

impl Write {
    /// The text that the shards run, at this time, with the rows that are given as parameters from this number on: those of what is
    /// computed ahead, and then those of tables. `None` if they cannot stand in for their tables.
    pub(crate) fn text(
        &self,
        sql: &[u8],
        clock: Option<&Clock>,
        (ahead, first): (&[Given], usize),
    ) -> Option<Vec<u8>> {
        let text = ahead::text(self, sql, clock, (ahead, first))?;
        if self.given.is_empty() {
            return Some(text);
        }
        let given: Vec<&Given> = self.given.iter().map(|(given, _)| given).collect();
        let arrays = ahead.iter().map(|given| given.columns.len());
        Some(GivenText::new(&text, &given, first + arrays.sum::<usize>())?.text)
    }

    /// Whether a shard that has all the rows can be sent the client's own text.
    pub(crate) fn is_plain(&self) -> bool {
        self.given.is_empty() && self.ahead.is_empty()
    }

    /// Whether each of its shards can be sent the client's own text, whatever is remembered, and their rows are appended.
    pub(super) fn is_as_written(&self) -> bool {
        self.is_plain() && self.moments.is_empty() && !self.copies && !self.remembers
    }

    /// Whether it needs to know the time.
    pub(crate) fn asks_for_the_time(&self) -> bool {
        !self.moments.is_empty() || self.ahead.iter().any(|ahead| ahead.moments)
    }

    /// The parameters that binding looks at.
    pub(super) fn params(&self) -> Vec<u16> {
        match &self.target {
            Target::Keys(route) => route.params(),
            Target::AnyShard | Target::Shard(_) | Target::AllShards => Vec::new(),
        }
    }

    /// Bytes on the heap, about.
    pub(super) fn size(&self) -> usize {
        let ahead = 1024 * self.ahead.len();
        match &self.target {
            Target::Keys(route) => ahead + route.size(),
            Target::AnyShard | Target::Shard(_) | Target::AllShards => ahead,
        }
    }
}

impl Planner<'_> {
    /// Plans a write of several shards, where it is one or may turn out to be.
    pub(super) fn written(&self, plan: &mut Plan, (analysis, statement, tokens): Understood<'_>) {
        let changes = match statement {
            Statement::Query(query) => match &*query.body {
                SetExpr::Insert(Statement::Insert(of)) => is_of_rows(of),
                _ => true,
            },
            Statement::Insert(of) => is_of_rows(of),
            Statement::Update(_) | Statement::Delete(_) | Statement::Merge(_) => true,
            _ => false,
        };
        // Each shard would take values of its own.
        let changes = changes && analysis.takes_next.is_none();
        match &mut plan.operator {
            operator @ Operator::Broadcast(Broadcast::Reference) if analysis.moments => {
                *operator = match self.moments_of(analysis, tokens) {
                    Ok(moments) => Operator::Write(Box::new(Write {
                        target: Target::AllShards,
                        moments,
                        copies: true,
                        given: Vec::new(),
                        ahead: Vec::new(),
                        remembers: false,
                    })),
                    Err(refusal) => Operator::Refuse(Box::new(refusal)),
                };
            }
            Operator::Refuse(refusal) if changes => {
                let refused = analysis.writes_reference.as_ref().map(|_| &**refusal);
                match self.change(refused, (analysis, statement, tokens), &mut plan.guards) {
                    Ok(operator) => plan.operator = operator,
                    Err(why) => **refusal = why,
                }
            }
            Operator::PassThrough(Target::Keys(KeyRoute {
                several: Some(refusal),
                ..
            })) if changes => {
                match self.change(None, (analysis, statement, tokens), &mut plan.guards) {
                    Ok(operator) => plan.several = several(plan, operator),
                    Err(why) => **refusal = why,
                }
            }
            Operator::PassThrough(_)
            | Operator::Append(_)
            | Operator::Merge(_)
            | Operator::Broadcast(_)
            | Operator::Session
            | Operator::Workspace(_)
            | Operator::Lock(_)
            | Operator::Write(_)
            | Operator::Insert(_)
            | Operator::InsertQuery(_)
            | Operator::Move(_)
            | Operator::Steps(_)
            | Operator::CopyIn(_)
            | Operator::Refuse(_) => {}
        }
    }

    /// How several shards do it, unless it is refused as it is: with rows given, then, or not at all.
    fn change(
        &self,
        refused: Option<&Refusal>,
        written: Understood<'_>,
        guards: &mut Vec<u32>,
    ) -> Result<Operator, Refusal> {
        let write = match refused {
            Some(refusal) => Err(refusal.clone()),
            None => self.write(written),
        };
        let write = self.or_given(write, written, guards)?;
        Ok(match changes_keys(written.0, written.1) {
            true => Operator::Move(Box::new(self.moved(write, written)?)),
            false => Operator::Write(Box::new(write)),
        })
    }

    fn write(&self, (analysis, statement, tokens): Understood<'_>) -> Result<Write, Refusal> {
        let target = target(analysis, changes_keys(analysis, statement))?;
        Ok(Write {
            target,
            moments: self.moments_of(analysis, tokens)?,
            copies: false,
            given: Vec::new(),
            ahead: Vec::new(),
            remembers: false,
        })
    }

    /// The write, or else one to which the tables are given whose rows it does not find on its shards. The first refusal stays.
    fn or_given(
        &self,
        write: Result<Write, Refusal>,
        written: Understood<'_>,
        guards: &mut Vec<u32>,
    ) -> Result<Write, Refusal> {
        let refusal = match write {
            Ok(write) => return Ok(write),
            Err(refusal) => refusal,
        };
        let alone = |ahead: &[Instead]| self.with_given((&[], ahead), written);
        if let Some(write) = self.computed_ahead(written, guards, alone) {
            return Ok(write);
        }
        for names in self.givable(written) {
            if let Some((write, known)) = self.with_given((&names, &[]), written) {
                guards.extend(known);
                return Ok(write);
            }
            let both = |ahead: &[Instead]| self.with_given((&names, ahead), written);
            if let Some(write) = self.computed_ahead(written, guards, both) {
                return Ok(write);
            }
        }
        Err(refusal)
    }

    /// The sets of tables that may be given to it.
    fn givable(&self, (analysis, _, tokens): Understood<'_>) -> Vec<Vec<TableName>> {
        let bare = |word| tokens.iter().any(|token| token.is_word(self.sql, word));
        // Rows that are given have no table that others inherit from, no primary key that other columns of a group go with, nor may
        // their names be those of other expressions.
        if bare("with") || bare("only") || bare("group") {
            return Vec::new();
        }
        let is_other = |name: &TableName| {
            let target = analysis.changed.as_ref();
            target.is_some_and(|target| target.name != name.name)
        };
        let sets = [false, true].map(|all| givable(analysis, self.context, all));
        let mut sets = Vec::from(sets);
        sets.retain(|names| !names.is_empty() && names.iter().all(is_other));
        sets.dedup();
        sets
    }

    /// The write with the rows of these tables given to it, and those of queries that are computed ahead; and the literals it depends on.
    fn with_given(
        &self,
        (names, ahead): (&[TableName], &[Instead]),
        (_, statement, tokens): Understood<'_>,
    ) -> Option<(Write, Vec<u32>)> {
        let context = Context {
            given: names,
            ahead,
            ..*self.context
        };
        let source = (self.sql, tokens);
        let (analysis, known) = analyse::analyse(statement, None, source, self.scan, &context);
        let analysis = analysis.ok()?;
        let is_taken = |ahead: &Instead| analysis.ahead.contains(&ahead.start);
        if !ahead.iter().all(is_taken) {
            return None;
        }
        let copies = analysis.writes_reference.is_some();
        let target = if let Some(table) = &analysis.writes_reference {
            decide::writes_reference(&analysis, table).ok()?;
            is_same_in_any_order(statement).then_some(())?;
            Target::AllShards
        } else if analysis.instances.is_empty() && analysis.stored.is_empty() {
            let elsewhere = analysis.temporary || analysis.reads_views.is_some();
            (!elsewhere).then_some(Target::Shard(ShardIndex::FIRST))?
        } else {
            target(&analysis, changes_keys(&analysis, statement)).ok()?
        };
        let given = names.iter().map(|name| self.whole(name));
        let write = Write {
            target,
            moments: self.moments_of(&analysis, tokens).ok()?,
            copies,
            given: given.collect::<Option<_>>()?,
            ahead: Vec::new(),
            remembers: false,
        };
        write.text(self.sql, None, (&[], 1))?;
        Some((write, known))
    }

    /// All rows of a table, and where they are.
    fn whole(&self, name: &TableName) -> Option<(Given, Target)> {
        let relation = self.context.relations.get(&name.schema, &name.name)?;
        let columns: Vec<String> = relation.columns.iter().map(|c| c.name.clone()).collect();
        let from = match relation.placement {
            Placement::Sharded(_) => Target::AllShards,
            Placement::Reference
            | Placement::Unsharded
            | Placement::Catalog
            | Placement::ReadsSharded(_)
            | Placement::Broken(_) => Target::Shard(ShardIndex::FIRST),
        };
        Some((Given::of(relation, &columns)?, from))
    }

    /// What the statement calls the present.
    fn moments_of(&self, analysis: &Analysis, tokens: &[Token]) -> Result<Moments, Refusal> {
        if !analysis.moments {
            return Ok(Moments::default());
        }
        self.moments(tokens, &analysis.defaults).ok_or_else(|| {
            let refusal = analysis.varies.clone();
            refusal.unwrap_or_else(|| Refusal::not_supported("the time in this statement"))
        })
    }
}

/// Whether copies of a table are changed alike by given rows, in whatever order a shard takes them: of several that match one, or conflict, each
/// might take another, where PostgreSQL takes one. MERGE takes none.
fn is_same_in_any_order(statement: &Statement) -> bool {
    let main = match statement {
        Statement::Query(query) => match &*query.body {
            SetExpr::Update(main) | SetExpr::Delete(main) | SetExpr::Merge(main) => main,
            _ => return false,
        },
        main => main,
    };
    match main {
        Statement::Update(update) => update.from.is_none(),
        main => matches!(main, Statement::Delete(_) | Statement::Merge(_)),
    }
}

/// Whether it inserts what a query returns, in whatever order.
fn is_of_rows(insert: &Insert) -> bool {
    let Some(query) = insert.source.as_deref() else {
        return false;
    };
    let is_ordered = query.order_by.is_some() && insert.returning.is_some();
    !matches!(&*query.body, SetExpr::Values(_)) && !is_ordered
}

/// The shards of a write of which each shard can do its part; `Err` is why they cannot. Rows may move from one to another, or not.
fn target(analysis: &Analysis, may_move: bool) -> Result<Target, Refusal> {
    let facts = &analysis.facts;
    // Of rows of an INSERT this is said only where nothing else is wrong.
    let merges = !may_move && analysis.target.is_none();
    if let Some(refusal) = analysis.computed.as_ref().filter(|_| merges) {
        return Err(refusal.clone());
    }
    let Shares { tables, returned } = Shares::of(analysis)?;
    for stored in analysis.stored.iter().filter(|_| !may_move) {
        let stays = match &stored.keys {
            StoredKeys::Column(column, scope) => {
                let known = facts.known(*scope);
                let same = |anchor: &&Instance| {
                    known.same(*column, anchor.key) && anchor.map.colocated_with(&stored.map)
                };
                tables.iter().chain(&returned).any(same)
                    && decide::is_stored_as_it_is(analysis, stored, *column)
            }
            StoredKeys::Values(_) => false,
        };
        if !stays {
            return Err(Refusal::not_supported(format!(
                "storing rows of table \"{}\" with other shard keys than those of the rows they are made of is not supported across shards",
                stored.name
            ))
            .detail("The rows may have to move to another shard.")
            .hint("Delete the rows and insert them with the new keys."));
        }
    }
    Ok(decide::targets(analysis, &tables))
}

/// The tables besides the one that is written whose rows can be given: those of which other shards have rows that matter, or all.
fn givable(analysis: &Analysis, context: &Context<'_>, all: bool) -> Vec<TableName> {
    let Some(target) = &analysis.changed else {
        return Vec::new();
    };
    let own = target.to_string();
    let own = analysis.instances.iter().find(|i| *i.name == *own);
    let is_tied = |name: &TableName| {
        let name = name.to_string();
        let mut mentions = analysis.instances.iter().filter(|i| *i.name == *name);
        mentions.all(|mention| {
            own.is_some_and(|own| {
                let known = analysis.facts.known(mention.scope);
                known.same(mention.key, own.key) && own.map.colocated_with(&mention.map)
            })
        })
    };
    let can_be_given = |name: &&TableName| {
        let relation = context.relations.get(&name.schema, &name.name);
        relation.is_some_and(|relation| {
            relation.kind == RelationKind::Table
                && match relation.placement {
                    Placement::Sharded(_) => all || !is_tied(name),
                    Placement::Unsharded => true,
                    Placement::Reference
                    | Placement::Catalog
                    | Placement::ReadsSharded(_)
                    | Placement::Broken(_) => false,
                }
        })
    };
    let others = analysis.read.iter().filter(|name| *name != target);
    others.filter(can_be_given).cloned().collect()
}
