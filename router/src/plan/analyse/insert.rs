//! INSERT: the keys of the new rows.

use sqlparser::ast::{
    ConflictTarget, Expr, Insert, OnConflict, OnConflictAction, OnInsert, Query, SelectItem,
    SetExpr, Statement, TableObject,
};

use super::facts::{ColumnId, Fact, ScopeId};
use super::mention::broken;
use super::names::{Item, Output, name, relation_name};
use super::write::{WriteTarget, is_default, single};
use super::{Analyser, Stop, StoredKeys};
use crate::plan::overriding::Overriding;
use crate::plan::refusal::Refusal;
use crate::plan::remembered::sequence_of;
use crate::plan::route::{KeyExpr, KeySet, Source};
use crate::relations::{Column, DefaultValue, Relation, Sharding};

/// PostgreSQL's functions of sequences.
pub(in crate::plan) const SEQUENCE_CALLS: [&str; 4] = ["nextval", "currval", "lastval", "setval"];

impl<'a> Analyser<'a> {
    pub(super) fn insert(
        &mut self,
        insert: &'a Insert,
        scope: ScopeId,
    ) -> Result<Vec<Output>, Stop> {
        let TableObject::TableName(table) = &insert.table else {
            return Err(Stop::Opaque("INSERT into no table"));
        };
        if !is_plain_insert(insert) {
            return Err(Stop::Opaque("not PostgreSQL's INSERT"));
        }
        self.understands_overriding()?;
        let instances = self.analysis.instances.len();
        let used = self.analysis.used_sequences.len();
        let used_some = self.analysis.effects.uses_sequences;
        let (target, mut item) = self.target(table, scope)?;
        self.inserts(target)?;
        // New rows are placed by the keys they store, not found by a condition.
        self.analysis.instances.truncate(instances);
        if let Some(alias) = &insert.table_alias {
            item.alias = Some(name(&alias.alias)?.into_owned());
        }
        let listed = insert
            .columns
            .iter()
            .map(|column| relation_name(column).and_then(single))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(relation) = target.relation
            && self.frames.len() == 1
        {
            self.analysis.target = Some((relation.name.clone(), listed.clone()));
        }
        let source = insert.source.as_deref();
        let is_list = source.is_none_or(|source| values_rows(source).is_some());
        let is_known = target.relation.is_some() && insert.on.is_none();
        let is_known = is_known && (is_list || !listed.is_empty());
        if is_known {
            // Which columns take their defaults, and which sequences are used for them.
            self.analysis.used_sequences.truncate(used);
        }
        self.insert_rows(target, &item, &listed, source, scope)?;
        let analysis = &mut self.analysis;
        if is_known && analysis.used_sequences.len() == used {
            let effects = &mut analysis.effects;
            effects.uses_sequences = used_some || effects.unseen_sequences;
        }
        if let Some(rows) = source.and_then(values_rows) {
            self.inserted(&rows, target, &listed, insert.returning.is_some());
        }
        let excluded = Item {
            alias: Some("excluded".to_owned()),
            ..item.clone()
        };
        self.push_item(item);
        if let Some(on) = &insert.on {
            let OnInsert::OnConflict(conflict) = on else {
                return Err(Stop::Opaque("not PostgreSQL's INSERT"));
            };
            self.push_item(excluded);
            self.on_conflict(target, conflict, scope)?;
            if let Some(frame) = self.frames.last_mut() {
                frame.items.pop();
            }
        }
        self.returning(insert.returning.as_ref(), scope)
    }

    /// The new rows: what they store in the key column, and in columns with defaults.
    fn insert_rows(
        &mut self,
        target: WriteTarget<'a>,
        item: &Item,
        listed: &[String],
        source: Option<&'a Query>,
        scope: ScopeId,
    ) -> Result<(), Stop> {
        let hidden = self.frames.pop();
        let rows = source.and_then(values_rows);
        let width = match (&rows, source) {
            (Some(rows), _) => rows.iter().map(|row| row.len()).max(),
            (None, Some(_)) => None,
            (None, None) => Some(0),
        };
        self.defaults(target, listed, width, rows.as_deref())?;
        let key = target.sharding().and_then(|(relation, sharding)| {
            let key = relation.columns.get(sharding.column)?;
            let position = match listed {
                _ if self.ignores(key) => None,
                [] => Some(sharding.column),
                names => names.iter().position(|name| *name == key.name),
            };
            Some((relation, sharding, position))
        });
        match (rows, source) {
            (Some(rows), _) => {
                let position = key.and_then(|(.., position)| position);
                for row in &rows {
                    self.row_values(row, position, scope)?;
                }
                if let Some((relation, sharding, position)) = key {
                    let keys = rows
                        .iter()
                        .map(|row| self.row_key_or_computed(relation, sharding, row, position));
                    let keys = keys.collect::<Result<Vec<_>, _>>()?;
                    let keys = match self.folded {
                        Some(folded) => folded.keys(&keys, |number| self.is_sole(number)),
                        None => keys,
                    };
                    if let Some(column) = item
                        .columns
                        .get(sharding.column)
                        .and_then(|output| output.column)
                        .filter(|_| self.analysis.computed.is_none())
                    {
                        self.analysis
                            .facts
                            .add(scope, Fact::Keys(column, KeySet::AnyOf(keys.clone())));
                    }
                    self.store(relation, sharding, StoredKeys::Values(keys));
                }
            }
            (None, Some(query)) => self.insert_query(key, listed, query, scope)?,
            (None, None) => {
                if let Some((relation, sharding, _)) = key {
                    let key = self.next_key(relation, sharding)?;
                    self.store(relation, sharding, StoredKeys::Values(vec![key]));
                }
            }
        }
        self.frames.extend(hidden);
        Ok(())
    }

    /// It is not looked for which of several INSERTs has an OVERRIDING USER VALUE.
    fn understands_overriding(&self) -> Result<(), Stop> {
        match self.overriding {
            Some(Overriding::User) if self.in_common || self.frames.len() > 1 => Err(Stop::Opaque(
                "OVERRIDING USER VALUE in a part of a statement",
            )),
            _ => Ok(()),
        }
    }

    /// Whether values that are given to a column are not stored.
    fn ignores(&self, column: &Column) -> bool {
        Overriding::ignores(self.overriding, column)
    }

    /// The values of a row. A key that is computed first may be whatever one server computes.
    fn row_values(
        &mut self,
        row: &'a [Expr],
        key: Option<usize>,
        scope: ScopeId,
    ) -> Result<(), Stop> {
        for (position, expr) in row.iter().enumerate() {
            if is_default(expr) {
                continue;
            }
            let computed =
                self.folded.is_some() && key == Some(position) && self.key_expr(expr).is_none();
            let may_call = self.folded.is_some() && self.analysis.first_shard.is_none();
            let before = (computed || may_call).then(|| self.analysis.merge.clone());
            let catalog = self.analysis.catalog;
            self.expr(expr, scope, false)?;
            let calls = may_call && self.takes_sequence_call();
            if calls {
                self.analysis.catalog = catalog;
            }
            if let Some(before) = before.filter(|_| computed || calls) {
                self.analysis.merge = before;
            }
        }
        Ok(())
    }

    /// Whether a value of a sharded table's row is of the first shard for the sake of a sequence: then it is computed there, whatever
    /// else is in it.
    fn takes_sequence_call(&mut self) -> bool {
        let first = self.analysis.first_shard.as_deref();
        let name = first.and_then(|name| name.strip_suffix("()"));
        let calls = name.is_some_and(|name| SEQUENCE_CALLS.contains(&name));
        if calls && self.stores_by_key() {
            let refusal = Refusal::not_supported(format!(
                "function \"{}\" is not supported in these rows of a sharded table",
                name.unwrap_or_default()
            ))
            .detail("Each shard has a sequence of its own, of which only the first's counts.")
            .hint("Call it first and pass its value.");
            self.analysis.sequence_values.get_or_insert(refusal);
            self.analysis.first_shard = None;
            return true;
        }
        false
    }

    /// Whether the INSERT that is the whole statement stores rows of a sharded table.
    fn stores_by_key(&self) -> bool {
        let relation = self.analysis.target.as_ref();
        let relation =
            relation.and_then(|(name, _)| self.context.relations.get(&name.schema, &name.name));
        relation.is_some_and(|relation| relation.sharding().is_some())
    }

    /// The key of a row of the statement, which may be one that has to be computed.
    fn row_key_or_computed(
        &mut self,
        relation: &'a Relation,
        sharding: &'a Sharding,
        row: &'a [Expr],
        position: Option<usize>,
    ) -> Result<KeyExpr, Stop> {
        match self.row_key(relation, sharding, row, position) {
            Err(Stop::Refuse(refusal)) if self.folded.is_some() || self.in_common => {
                self.analysis.computed.get_or_insert(*refusal);
                Ok(computed())
            }
            key => key,
        }
    }

    fn insert_query(
        &mut self,
        key: Option<(&'a Relation, &'a Sharding, Option<usize>)>,
        listed: &[String],
        query: &'a Query,
        scope: ScopeId,
    ) -> Result<(), Stop> {
        let leaf = self.analysis.facts.scope(Some(scope));
        let (columns, open, ragged) = self.positional(query, leaf)?;
        self.analysis.facts.merge(leaf, scope);
        if let Some((relation, ..)) = key
            && listed.is_empty()
        {
            let known = if open || ragged { 0 } else { columns.len() };
            self.left_out(relation, known);
        }
        let Some((relation, sharding, position)) = key else {
            return Ok(());
        };
        let keys = match position {
            None => StoredKeys::Values(vec![self.next_key(relation, sharding)?]),
            Some(position) => match columns.get(position).and_then(|output| output.column) {
                Some(column) if !ragged => StoredKeys::Column(column, scope),
                _ => match self.selected_constant(query, position) {
                    Some(value) => StoredKeys::Values(vec![value]),
                    None => {
                        let refusal = unknown_key(relation, sharding);
                        self.analysis.computed.get_or_insert(refusal);
                        StoredKeys::Values(vec![computed()])
                    }
                },
            },
        };
        self.store(relation, sharding, keys);
        Ok(())
    }

    /// Columns behind the first ones, which a query may not return: of those that take values of sequences note is taken.
    fn left_out(&mut self, relation: &'a Relation, known: usize) {
        for column in relation.columns.iter().skip(known) {
            if let DefaultValue::Sequence | DefaultValue::Identity = column.default {
                let refusal = takes_next_refusal(relation, column);
                self.analysis.takes_next.get_or_insert(refusal);
            }
        }
    }

    /// The key of rows that do not give one, if it may be computed before they are stored.
    fn next_key(
        &mut self,
        relation: &'a Relation,
        sharding: &'a Sharding,
    ) -> Result<KeyExpr, Stop> {
        use DefaultValue::{Identity, Moment, Own, Sequence};
        let column = relation.columns.get(sharding.column);
        match column.map(|column| column.default) {
            Some(Sequence | Identity | Own | Moment) => {
                let refusal = unknown_key(relation, sharding);
                self.analysis.computed.get_or_insert(refusal);
                Ok(computed())
            }
            _ => self.missing_key(relation, sharding),
        }
    }

    /// The literal or parameter that a plain SELECT returns as its n-th column.
    fn selected_constant(&self, query: &Query, position: usize) -> Option<KeyExpr> {
        let SetExpr::Select(select) = &*query.body else {
            return None;
        };
        let before = select.projection.get(..=position)?;
        let plain = |item: &SelectItem| {
            matches!(
                item,
                SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }
            )
        };
        if !before.iter().all(plain) {
            return None;
        }
        match before.last()? {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                self.key_expr(expr)
            }
            SelectItem::ExprWithAliases { .. }
            | SelectItem::QualifiedWildcard(..)
            | SelectItem::Wildcard(_) => None,
        }
    }

    pub(super) fn row_key(
        &self,
        relation: &'a Relation,
        sharding: &'a Sharding,
        row: &'a [Expr],
        position: Option<usize>,
    ) -> Result<KeyExpr, Stop> {
        match position.and_then(|position| row.get(position)) {
            Some(expr) if !is_default(expr) => self
                .key_expr(expr)
                .ok_or_else(|| unknown_key(relation, sharding).into()),
            _ => self.missing_key(relation, sharding),
        }
    }

    /// The key of a row that does not give one.
    pub(super) fn missing_key(
        &self,
        relation: &'a Relation,
        sharding: &'a Sharding,
    ) -> Result<KeyExpr, Stop> {
        match relation
            .columns
            .get(sharding.column)
            .map(|column| column.default)
        {
            Some(DefaultValue::Absent) => Ok(KeyExpr {
                source: Source::Null,
                negative: false,
                casts: Vec::new(),
            }),
            Some(_) => {
                let key = relation.key_column().map_or("", |column| &column.name);
                Err(Refusal::not_supported(format!("the shard key \"{key}\" of table \"{}\" must be given", relation.name))
                    .detail("Its default value is computed where the row is stored, and where that is depends on it.")
                    .hint("Give the shard key a value in the INSERT.")
                    .into())
            }
            None => Err(broken(relation, "its shard key is not a column").into()),
        }
    }

    /// Columns that take their default in some row.
    pub(super) fn defaults(
        &mut self,
        target: WriteTarget<'a>,
        listed: &[String],
        width: Option<usize>,
        rows: Option<&[&'a [Expr]]>,
    ) -> Result<(), Stop> {
        let Some(relation) = target.relation else {
            return Ok(());
        };
        for (at, column) in relation.columns.iter().enumerate() {
            let position = match listed {
                [] => Some(at),
                names => names.iter().position(|name| *name == column.name),
            };
            let given = match (position, width) {
                (None, _) => false,
                (Some(position), Some(width)) => position < width,
                (Some(_), None) => true,
            };
            let default_in = |row: &&[Expr]| {
                position
                    .and_then(|position| row.get(position))
                    .is_some_and(is_default)
            };
            let is_stored = given && !self.ignores(column);
            if is_stored && !rows.into_iter().flatten().any(default_in) {
                continue;
            }
            if let DefaultValue::Sequence | DefaultValue::Identity = column.default {
                let sequence = column.expression.as_deref().and_then(sequence_of);
                self.analysis.used_sequences.extend(sequence);
            }
            let is_key = target
                .sharding()
                .is_some_and(|(_, sharding)| sharding.column == at);
            match column.default {
                // It is computed first.
                DefaultValue::Stable
                | DefaultValue::Moment
                | DefaultValue::Own
                | DefaultValue::Volatile
                    if is_key && (self.folded.is_some() || self.in_common) => {}
                // So is this, on the first shard, whose sequence is everybody's.
                DefaultValue::Sequence | DefaultValue::Identity
                    if target.sharding().is_some() && self.folded.is_some() => {}
                // And here where the query runs, if it can be run there.
                DefaultValue::Sequence | DefaultValue::Identity
                    if target.sharding().is_some() && (rows.is_none() || self.in_common) =>
                {
                    let refusal = takes_next_refusal(relation, column);
                    self.analysis.takes_next.get_or_insert(refusal);
                }
                DefaultValue::Moment if self.gives_moments => self.analysis.moments = true,
                DefaultValue::Moment if self.folded.is_some() => {
                    self.diverges_by_default(column);
                    self.analysis.moments = true;
                }
                _ => self.default_value(relation, column)?,
            }
        }
        for column in relation.hidden() {
            if let DefaultValue::Sequence | DefaultValue::Identity = column.default {
                let sequence = column.expression.as_deref().and_then(sequence_of);
                self.analysis.used_sequences.extend(sequence);
            }
            self.default_value(relation, column)?;
        }
        Ok(())
    }

    pub(super) fn default_value(
        &mut self,
        relation: &'a Relation,
        column: &'a crate::relations::Column,
    ) -> Result<(), Stop> {
        let sharded = relation.sharding().is_some();
        match column.default {
            DefaultValue::Absent | DefaultValue::Immutable | DefaultValue::Generated => {}
            DefaultValue::Sequence | DefaultValue::Identity if sharded => {
                return Err(takes_next_refusal(relation, column).into());
            }
            DefaultValue::Elsewhere if sharded => {
                return Err(default_elsewhere(relation, column).into());
            }
            DefaultValue::Own => self.diverges_by_default(column),
            DefaultValue::Elsewhere
            | DefaultValue::Sequence
            | DefaultValue::Identity
            | DefaultValue::Stable
            | DefaultValue::Moment
            | DefaultValue::Volatile => {
                self.needs_merge(|| {
                    Refusal::not_supported(format!(
                        "the default of column \"{}\" is not supported across shards",
                        column.name
                    ))
                    .detail("Each shard would compute a value of its own.")
                    .hint("Compute the value first and pass it as a parameter.")
                });
                self.diverges_by_default(column);
            }
        }
        Ok(())
    }

    /// Copies of a reference table with this default could differ.
    fn diverges_by_default(&mut self, column: &Column) {
        let what = || format!("the default of column \"{}\"", column.name);
        self.analysis.diverges.get_or_insert_with(what);
    }

    fn on_conflict(
        &mut self,
        target: WriteTarget<'a>,
        conflict: &'a OnConflict,
        scope: ScopeId,
    ) -> Result<(), Stop> {
        if let Some((relation, _)) = target.sharding() {
            let key = relation.key_column().map_or("", |column| &column.name);
            let covered = match &conflict.conflict_target {
                Some(ConflictTarget::Columns(columns)) => columns
                    .iter()
                    .map(name)
                    .collect::<Result<Vec<_>, _>>()?
                    .iter()
                    .any(|column| column == key),
                Some(ConflictTarget::OnConstraint(_)) | None => !relation.unique_without_key,
            };
            if !covered {
                return Err(Refusal::not_supported(format!(
                    "ON CONFLICT without the shard key \"{key}\" is not supported"
                ))
                .detail(format!(
                    "A conflicting row of table \"{}\" may be on another shard.",
                    relation.name
                ))
                .hint("Make the shard key part of the unique index and of the conflict target.")
                .into());
            }
        }
        match &conflict.action {
            OnConflictAction::DoNothing => Ok(()),
            OnConflictAction::DoUpdate(update) => {
                self.assignments(target, &update.assignments, scope)?;
                match &update.selection {
                    Some(condition) => self.expr(condition, scope, false),
                    None => Ok(()),
                }
            }
        }
    }
}

impl Analyser<'_> {
    /// A column for a literal or parameter that a subquery or VALUES returns, so that what it equals is known.
    pub(super) fn constant_column(&mut self, exprs: &[&Expr], scope: ScopeId) -> Option<ColumnId> {
        let values = exprs
            .iter()
            .map(|expr| self.key_expr(expr))
            .collect::<Option<Vec<_>>>()?;
        let family = values.first().and_then(KeyExpr::family)?;
        if !values.iter().all(|value| value.family() == Some(family)) {
            return None;
        }
        let values = KeySet::AnyOf(values);
        let facts = &mut self.analysis.facts;
        Some(facts.constant_column(values, family, scope))
    }
}

fn unknown_key(relation: &Relation, sharding: &Sharding) -> Refusal {
    let key = relation
        .columns
        .get(sharding.column)
        .map_or("", |column| &column.name);
    Refusal::not_supported(format!("the shard of the new rows of table \"{}\" is not known", relation.name))
        .detail(format!("The shard key \"{key}\" is neither a constant nor a parameter, nor a column that equals the shard key of the rows it comes from."))
        .hint("Compute the shard key first and pass it as a value.")
}

fn takes_next_refusal(relation: &Relation, column: &Column) -> Refusal {
    Refusal::not_supported(format!(
        "column \"{}\" of the sharded table \"{}\" takes its value from a sequence",
        column.name, relation.name
    ))
    .detail("Each shard's own values would not be unique, and the router cannot give any here.")
    .hint(format!(
        "Give the column \"{}\" a value in the INSERT.",
        column.name
    ))
}

/// What is stored would depend on the shard.
pub(in crate::plan) fn default_elsewhere(relation: &Relation, column: &Column) -> Refusal {
    let message = format!(
        "the default of column \"{}\" of table \"{}\" is not supported",
        column.name, relation.name
    );
    Refusal::not_supported(message)
        .detail("It is made by code that may use tables, which would run on the shard of the row and see that shard only.")
        .hint("Compute the value first and pass it as a parameter.")
}

pub(super) fn computed() -> KeyExpr {
    KeyExpr {
        source: Source::Computed,
        negative: false,
        casts: Vec::new(),
    }
}

fn is_plain_insert(insert: &Insert) -> bool {
    insert.optimizer_hints.is_empty()
        && insert.or.is_none()
        && !insert.ignore
        && insert.into
        && !insert.overwrite
        && insert.assignments.is_empty()
        && insert.partitioned.is_none()
        && insert.after_columns.is_empty()
        && !insert.has_table_keyword
        && insert.output.is_none()
        && !insert.replace_into
        && insert.priority.is_none()
        && insert.insert_alias.is_none()
        && insert.settings.is_none()
        && insert.format_clause.is_none()
        && insert.multi_table_insert_type.is_none()
        && insert.multi_table_into_clauses.is_empty()
        && insert.multi_table_when_clauses.is_empty()
        && insert.multi_table_else_clause.is_none()
}

/// How many rows the plain VALUES of an INSERT has, if that is what the statement is.
pub(in crate::plan) fn inserted_rows(statement: &Statement) -> Option<usize> {
    match statement {
        Statement::Insert(insert) => Some(values_rows(insert.source.as_deref()?)?.len()),
        _ => None,
    }
}

/// The rows of a plain VALUES.
fn values_rows(query: &Query) -> Option<Vec<&[Expr]>> {
    let bare = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && query.locks.is_empty();
    match &*query.body {
        SetExpr::Values(values) if bare && !values.explicit_row && !values.value_keyword => Some(
            values
                .rows
                .iter()
                .map(|row| row.content.as_slice())
                .collect(),
        ),
        _ => None,
    }
}
