//! INSERT, UPDATE, DELETE and MERGE: the keys of the rows they touch and of the rows they make.

use sqlparser::ast::{
    Assignment, AssignmentTarget, ConflictTarget, Delete, Expr, FromTable, Insert, Merge,
    MergeAction, MergeClauseKind, MergeInsertExpr, MergeInsertKind, MergeUpdateKind, ObjectName,
    OnConflict, OnConflictAction, OnInsert, OutputClause, Query, SelectItem, SetExpr, Statement,
    TableFactor, TableObject, Update, UpdateTableFromKind,
};

use super::facts::{ColumnId, Fact, ScopeId};
use super::from::{On, Tree, aliased, broken};
use super::names::{Frame, Item, Output, name, relation_name};
use super::{Analyser, Stop, Stored, StoredKeys, display};
use crate::plan::refusal::Refusal;
use crate::plan::route::{KeyExpr, KeySet, Source, StoredAs};
use crate::relations::{DefaultValue, Placement, Relation, RelationKind, Resolved, Sharding};

/// The table a statement writes.
#[derive(Clone, Copy)]
struct WriteTarget<'a> {
    relation: Option<&'a Relation>,
}

impl<'a> WriteTarget<'a> {
    fn sharding(&self) -> Option<(&'a Relation, &'a Sharding)> {
        let relation = self.relation?;
        Some((relation, relation.sharding()?))
    }
}

impl<'a> Analyser<'a> {
    /// Walks a whole statement.
    pub(super) fn statement(
        &mut self,
        statement: &'a Statement,
        scope: ScopeId,
    ) -> Result<(), Stop> {
        match statement {
            Statement::Query(query) => self.top_query(query, scope).map(|_| ()),
            _ => self.write(statement, scope).map(|_| ()),
        }
    }

    /// Walks a write; returns the columns of its RETURNING.
    pub(super) fn write(
        &mut self,
        statement: &'a Statement,
        scope: ScopeId,
    ) -> Result<Vec<Output>, Stop> {
        self.spend()?;
        self.analysis.writes = true;
        self.analysis.primary = true;
        self.frames.push(Frame::default());
        let returned = match statement {
            Statement::Insert(insert) => self.insert(insert, scope),
            Statement::Update(update) => self.update(update, scope),
            Statement::Delete(delete) => self.delete(delete, scope),
            Statement::Merge(merge) => self.merge(merge, scope),
            _ => Err(Stop::Opaque("not a query")),
        };
        self.frames.pop();
        returned
    }

    fn returning(
        &mut self,
        items: Option<&'a Vec<SelectItem>>,
        scope: ScopeId,
    ) -> Result<Vec<Output>, Stop> {
        match items {
            Some(items) => Ok(self.projection(items, scope)?.0),
            None => Ok(Vec::new()),
        }
    }

    /// The target of a write as an item of the innermost frame.
    fn target(
        &mut self,
        name: &ObjectName,
        scope: ScopeId,
    ) -> Result<(WriteTarget<'a>, Item), Stop> {
        let (schema, name) = relation_name(name)?;
        let mut item = Item {
            alias: Some(name.clone()),
            schema: schema.clone(),
            columns: Vec::new(),
            open: true,
            scope,
        };
        if self.is_temporary(schema.as_deref(), &name) {
            self.analysis.temporary = true;
            return Ok((WriteTarget { relation: None }, item));
        }
        let relation = match self.relation(schema.as_deref(), &name) {
            Resolved::Known(relation) => relation,
            Resolved::Catalog => {
                return Err(Refusal::not_supported(format!(
                    "writing the system relation \"{name}\" is not supported"
                ))
                .into());
            }
            Resolved::Unknown => {
                self.is_unknown(&name);
                self.needs_first_shard(&name);
                return Ok((WriteTarget { relation: None }, item));
            }
        };
        let reference = matches!(relation.placement, Placement::Reference) && !self.alone;
        if reference && relation.kind != RelationKind::Table {
            return Err(Refusal::not_supported(format!(
                "writing through the view \"{}\" is not supported",
                relation.name
            ))
            .hint("Write the reference table itself.")
            .into());
        }
        if reference {
            self.analysis.writes_reference = Some(relation.name.to_string());
        }
        item.schema = Some(relation.name.schema.clone());
        (item.columns, item.open) = (self.mention(relation, scope)?, false);
        if !self.alone {
            self.triggers(relation)?;
        }
        let relation = if self.alone { None } else { Some(relation) };
        Ok((WriteTarget { relation }, item))
    }

    /// What the target's triggers may touch: they run on the shard of the row.
    fn triggers(&mut self, relation: &Relation) -> Result<(), Stop> {
        let triggers = &relation.triggers;
        let refuse = |what: String| {
            let message = format!(
                "writing table \"{}\" is not supported: a trigger of it {what}",
                relation.name
            );
            Err(Stop::from(Refusal::not_supported(message).detail(
                "The trigger runs on the shard of the row and sees that shard only.",
            )))
        };
        if matches!(relation.placement, Placement::Reference) {
            let differs = triggers
                .unsharded
                .as_ref()
                .or(triggers.elsewhere.as_ref())
                .map(ToString::to_string);
            let differs = differs
                .or_else(|| triggers.unseen.clone())
                .or_else(|| triggers.varying.clone());
            if let Some(what) = differs {
                self.analysis
                    .diverges
                    .get_or_insert(format!("a trigger that uses \"{what}\""));
            }
            return Ok(());
        }
        if let Some(table) = &triggers.elsewhere {
            return refuse(format!("uses the sharded table \"{table}\""));
        }
        if let Some(table) = &triggers.reference {
            return refuse(format!("may write the reference table \"{table}\""));
        }
        if let Some(function) = triggers
            .unseen
            .as_ref()
            .filter(|_| self.context.relations.has_sharded())
        {
            return refuse(format!(
                "runs code that the router cannot see: function \"{function}\""
            ));
        }
        if let Some(table) = &triggers.unsharded {
            self.needs_first_shard(&table.to_string());
        }
        Ok(())
    }

    fn insert(&mut self, insert: &'a Insert, scope: ScopeId) -> Result<Vec<Output>, Stop> {
        let TableObject::TableName(table) = &insert.table else {
            return Err(Stop::Opaque("INSERT into no table"));
        };
        if !is_plain_insert(insert) {
            return Err(Stop::Opaque("not PostgreSQL's INSERT"));
        }
        let instances = self.analysis.instances.len();
        let (target, mut item) = self.target(table, scope)?;
        // New rows are placed by the keys they store, not found by a condition.
        self.analysis.instances.truncate(instances);
        if let Some(alias) = &insert.table_alias {
            item.alias = Some(name(&alias.alias)?);
        }
        let listed = insert
            .columns
            .iter()
            .map(|column| relation_name(column).and_then(single))
            .collect::<Result<Vec<_>, _>>()?;
        self.insert_rows(target, &item, &listed, insert.source.as_deref(), scope)?;
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

    fn push_item(&mut self, item: Item) {
        self.items.push(item);
        let id = self.items.len() - 1;
        if let Some(frame) = self.frames.last_mut() {
            frame.items.push(id);
        }
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
                [] => Some(sharding.column),
                names => names.iter().position(|name| *name == key.name),
            };
            Some((relation, sharding, position))
        });
        match (rows, source) {
            (Some(rows), _) => {
                for expr in rows
                    .iter()
                    .flat_map(|row| row.iter())
                    .filter(|expr| !is_default(expr))
                {
                    self.expr(expr, scope, false)?;
                }
                if let Some((relation, sharding, position)) = key {
                    let keys = rows
                        .iter()
                        .map(|row| self.row_key(relation, sharding, row, position));
                    let keys = keys.collect::<Result<Vec<_>, _>>()?;
                    if let Some(column) = item
                        .columns
                        .get(sharding.column)
                        .and_then(|output| output.column)
                    {
                        self.analysis
                            .facts
                            .add(scope, Fact::Keys(column, KeySet::AnyOf(keys.clone())));
                    }
                    self.store(relation, sharding, StoredKeys::Values(keys));
                }
            }
            (None, Some(query)) => self.insert_query(key, query, scope)?,
            (None, None) => {
                if let Some((relation, sharding, _)) = key {
                    let key = self.missing_key(relation, sharding)?;
                    self.store(relation, sharding, StoredKeys::Values(vec![key]));
                }
            }
        }
        self.frames.extend(hidden);
        Ok(())
    }

    fn insert_query(
        &mut self,
        key: Option<(&'a Relation, &'a Sharding, Option<usize>)>,
        query: &'a Query,
        scope: ScopeId,
    ) -> Result<(), Stop> {
        let leaf = self.analysis.facts.scope(Some(scope));
        let (columns, _, ragged) = self.positional(query, leaf)?;
        self.analysis.facts.merge(leaf, scope);
        if self.analysis.writes_reference.is_some()
            && (query.limit_clause.is_some() || query.fetch.is_some())
        {
            self.analysis
                .diverges
                .get_or_insert_with(|| "LIMIT".to_owned());
        }
        let Some((relation, sharding, position)) = key else {
            return Ok(());
        };
        let keys = match position {
            None => StoredKeys::Values(vec![self.missing_key(relation, sharding)?]),
            Some(position) => match columns.get(position).and_then(|output| output.column) {
                Some(column) if !ragged => StoredKeys::Column(column, scope),
                _ => match self.selected_constant(query, position) {
                    Some(value) => StoredKeys::Values(vec![value]),
                    None => return Err(unknown_key(relation, sharding).into()),
                },
            },
        };
        self.store(relation, sharding, keys);
        Ok(())
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

    fn row_key(
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
    fn missing_key(&self, relation: &'a Relation, sharding: &'a Sharding) -> Result<KeyExpr, Stop> {
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
    fn defaults(
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
            if given && !rows.into_iter().flatten().any(default_in) {
                continue;
            }
            self.default_value(relation, column)?;
        }
        Ok(())
    }

    fn default_value(
        &mut self,
        relation: &'a Relation,
        column: &'a crate::relations::Column,
    ) -> Result<(), Stop> {
        let sharded = relation.sharding().is_some();
        match column.default {
            DefaultValue::Absent | DefaultValue::Immutable | DefaultValue::Generated => {}
            DefaultValue::Sequence if sharded => {
                return Err(Refusal::not_supported(format!(
                    "column \"{}\" of the sharded table \"{}\" takes its value from a sequence",
                    column.name, relation.name
                ))
                .detail("Each shard has a sequence of its own: the values would not be unique. Sequences across shards are not supported yet.")
                .hint(format!("Give the column \"{}\" a value in the INSERT.", column.name))
                .into());
            }
            DefaultValue::Sequence | DefaultValue::Stable | DefaultValue::Volatile => {
                let what = || format!("the default of column \"{}\"", column.name);
                self.analysis.diverges.get_or_insert_with(what);
            }
        }
        Ok(())
    }

    fn store(&mut self, relation: &'a Relation, sharding: &'a Sharding, keys: StoredKeys) {
        let column = relation.columns.get(sharding.column);
        self.analysis.stored.push(Stored {
            name: display(relation),
            map: std::sync::Arc::clone(&sharding.map),
            column: StoredAs {
                typmod: column.map_or(-1, |column| column.typmod),
                not_null: column.is_some_and(|column| column.not_null),
            },
            keys,
        });
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

    fn assignments(
        &mut self,
        target: WriteTarget<'a>,
        assignments: &'a [Assignment],
        scope: ScopeId,
    ) -> Result<(), Stop> {
        for assignment in assignments {
            match &assignment.target {
                AssignmentTarget::ColumnName(column) => {
                    let column = assigned_column(column)?;
                    self.assignment(target, &column, Some(&assignment.value))?;
                }
                AssignmentTarget::Tuple(columns) => {
                    let values = match &assignment.value {
                        Expr::Tuple(values) if values.len() == columns.len() => Some(values),
                        _ => None,
                    };
                    for (at, column) in columns.iter().enumerate() {
                        let column = assigned_column(column)?;
                        self.assignment(target, &column, values.and_then(|values| values.get(at)))?;
                    }
                }
            }
            let exprs = match &assignment.value {
                Expr::Tuple(values) => values.iter().collect(),
                value => vec![value],
            };
            for expr in exprs.into_iter().filter(|expr| !is_default(expr)) {
                self.expr(expr, scope, false)?;
            }
        }
        Ok(())
    }

    /// One column set to a value (`None`: part of a subquery's row).
    fn assignment(
        &mut self,
        target: WriteTarget<'a>,
        column: &str,
        value: Option<&'a Expr>,
    ) -> Result<(), Stop> {
        if let (Some(relation), Some(value)) = (target.relation, value)
            && is_default(value)
            && let Some(position) = relation.column(column)
        {
            self.default_value(relation, &relation.columns[position])?;
        }
        let Some((relation, sharding)) = target.sharding() else {
            return Ok(());
        };
        if relation.key_column().is_none_or(|key| key.name != column) {
            return Ok(());
        }
        let same = value.is_some_and(|value| self.is_own_key(value, column));
        if same {
            return Ok(());
        }
        match value.and_then(|value| self.key_expr(value)) {
            Some(value) => self.store(relation, sharding, StoredKeys::Values(vec![value])),
            None => {
                return Err(Refusal::not_supported(format!(
                    "changing the shard key \"{column}\" of table \"{}\" is not supported",
                    relation.name
                ))
                .detail("The row would have to move to another shard.")
                .hint("Delete the row and insert it with the new key.")
                .into());
            }
        }
        Ok(())
    }

    /// `key = key`, or `key = excluded.key` where the conflict was on the key.
    fn is_own_key(&self, value: &Expr, key: &str) -> bool {
        let own = |ident: &sqlparser::ast::Ident| name(ident).is_ok_and(|name| name == key);
        let first = self
            .frames
            .last()
            .and_then(|frame| frame.items.first())
            .map(|id| &self.items[*id]);
        match value {
            Expr::Nested(inner) => self.is_own_key(inner, key),
            Expr::Identifier(ident) => {
                own(ident)
                    && self
                        .frames
                        .last()
                        .is_some_and(|frame| frame.items.len() == 1)
            }
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [qualifier, column] => {
                    let qualifier = name(qualifier).ok();
                    let target = first.and_then(|item| item.alias.clone());
                    own(column) && (qualifier == target || qualifier.as_deref() == Some("excluded"))
                }
                _ => false,
            },
            _ => false,
        }
    }

    fn update(&mut self, update: &'a Update, scope: ScopeId) -> Result<Vec<Output>, Stop> {
        let foreign = !update.optimizer_hints.is_empty()
            || update.or.is_some()
            || update.output.is_some()
            || !update.order_by.is_empty()
            || update.limit.is_some()
            || !update.table.joins.is_empty();
        if foreign {
            return Err(Stop::Opaque("not PostgreSQL's UPDATE"));
        }
        let (target, leaf) = self.target_factor(&update.table.relation, scope)?;
        let mut trees = vec![leaf];
        match &update.from {
            None => {}
            Some(UpdateTableFromKind::AfterSet(tables)) => trees.extend(self.from(tables, scope)?),
            Some(UpdateTableFromKind::BeforeSet(_)) => {
                return Err(Stop::Opaque("not PostgreSQL's UPDATE"));
            }
        }
        self.join_all(trees, update.selection.as_ref(), scope)?;
        self.assignments(target, &update.assignments, scope)?;
        let mut returned = self.returning(update.returning.as_ref(), scope)?;
        // What RETURNING returns is the new value.
        if !self.analysis.stored.is_empty() {
            returned.iter_mut().for_each(|output| output.column = None);
        }
        Ok(returned)
    }

    fn delete(&mut self, delete: &'a Delete, scope: ScopeId) -> Result<Vec<Output>, Stop> {
        let foreign = !delete.optimizer_hints.is_empty()
            || !delete.tables.is_empty()
            || delete.output.is_some()
            || !delete.order_by.is_empty()
            || delete.limit.is_some();
        let FromTable::WithFromKeyword(from) = &delete.from else {
            return Err(Stop::Opaque("not PostgreSQL's DELETE"));
        };
        let [table] = from.as_slice() else {
            return Err(Stop::Opaque("not PostgreSQL's DELETE"));
        };
        if foreign || !table.joins.is_empty() {
            return Err(Stop::Opaque("not PostgreSQL's DELETE"));
        }
        let (_, leaf) = self.target_factor(&table.relation, scope)?;
        let mut trees = vec![leaf];
        if let Some(using) = &delete.using {
            trees.extend(self.from(using, scope)?);
        }
        self.join_all(trees, delete.selection.as_ref(), scope)?;
        self.returning(delete.returning.as_ref(), scope)
    }

    /// The target of UPDATE, DELETE or MERGE as a leaf of the joins.
    fn target_factor(
        &mut self,
        factor: &'a TableFactor,
        parent: ScopeId,
    ) -> Result<(WriteTarget<'a>, Tree<'a>), Stop> {
        let TableFactor::Table {
            name,
            alias,
            args: None,
            version: None,
            sample: None,
            json_path: None,
            ..
        } = factor
        else {
            return Err(Stop::Opaque("a write without a plain target"));
        };
        let leaf = self.analysis.facts.scope(Some(parent));
        let (target, item) = self.target(name, leaf)?;
        let item = aliased(item, alias.as_ref())?;
        self.push_item(item);
        Ok((target, Tree::Leaf(self.items.len() - 1)))
    }

    fn merge(&mut self, merge: &'a Merge, scope: ScopeId) -> Result<Vec<Output>, Stop> {
        if !merge.optimizer_hints.is_empty() {
            return Err(Stop::Opaque("not PostgreSQL's MERGE"));
        }
        let (target, into) = self.target_factor(&merge.table, scope)?;
        let source = self.source_factor(&merge.source, scope)?;
        let all_rows = merge
            .clauses
            .iter()
            .any(|clause| clause.clause_kind == MergeClauseKind::NotMatchedBySource);
        // Source rows always count; rows of the target count where they match, unless a clause is for those that do not.
        if all_rows {
            let inside = self.analysis.facts.scope(Some(scope));
            self.assign(&into, inside)?;
            self.assign(&source, scope)?;
            self.expr(&merge.on, inside, false)?;
        } else if merge
            .clauses
            .iter()
            .all(|clause| clause.clause_kind == MergeClauseKind::Matched)
        {
            let tree = Tree::Inner(Box::new(source), Box::new(into), On::Condition(&merge.on));
            self.assign(&tree, scope)?;
        } else {
            let tree = Tree::Left(Box::new(source), Box::new(into), On::Condition(&merge.on));
            self.assign(&tree, scope)?;
        }
        for clause in &merge.clauses {
            if let Some(predicate) = &clause.predicate {
                self.expr(predicate, scope, false)?;
            }
            self.merge_action(target, &clause.action, scope)?;
        }
        match &merge.output {
            None => Ok(Vec::new()),
            Some(OutputClause::Returning { select_items, .. }) => {
                self.returning(Some(select_items), scope)
            }
            Some(OutputClause::Output { .. }) => Err(Stop::Opaque("not PostgreSQL's MERGE")),
        }
    }

    fn source_factor(&mut self, factor: &'a TableFactor, scope: ScopeId) -> Result<Tree<'a>, Stop> {
        // The target is not visible in the source.
        let hidden = self.frames.pop();
        self.frames.push(Frame::default());
        let tree = self.factor(factor, scope);
        let items = self
            .frames
            .pop()
            .map(|frame| frame.items)
            .unwrap_or_default();
        self.frames.extend(hidden);
        if let Some(frame) = self.frames.last_mut() {
            frame.items.extend(items);
        }
        tree
    }

    fn merge_action(
        &mut self,
        target: WriteTarget<'a>,
        action: &'a MergeAction,
        scope: ScopeId,
    ) -> Result<(), Stop> {
        match action {
            MergeAction::DoNothing { .. } | MergeAction::Delete { .. } => Ok(()),
            MergeAction::Update(update) => {
                if update.update_predicate.is_some() || update.delete_predicate.is_some() {
                    return Err(Stop::Opaque("not PostgreSQL's MERGE"));
                }
                match &update.kind {
                    MergeUpdateKind::Set(assignments) => {
                        self.assignments(target, assignments, scope)
                    }
                    MergeUpdateKind::Wildcard => Err(Stop::Opaque("not PostgreSQL's MERGE")),
                }
            }
            MergeAction::Insert(insert) => self.merge_insert(target, insert, scope),
        }
    }

    fn merge_insert(
        &mut self,
        target: WriteTarget<'a>,
        insert: &'a MergeInsertExpr,
        scope: ScopeId,
    ) -> Result<(), Stop> {
        let (MergeInsertKind::Values(values), None) = (&insert.kind, &insert.insert_predicate)
        else {
            return Err(Stop::Opaque("not PostgreSQL's MERGE"));
        };
        let rows: Vec<&'a [Expr]> = values
            .rows
            .iter()
            .map(|row| row.content.as_slice())
            .collect();
        let listed = insert
            .columns
            .iter()
            .map(|column| relation_name(column).and_then(single))
            .collect::<Result<Vec<_>, _>>()?;
        let [row] = rows.as_slice() else {
            return Err(Stop::Opaque("MERGE that inserts several rows"));
        };
        for expr in row.iter().filter(|expr| !is_default(expr)) {
            self.expr(expr, scope, false)?;
        }
        self.defaults(target, &listed, Some(row.len()), Some(&rows))?;
        let Some((relation, sharding)) = target.sharding() else {
            return Ok(());
        };
        let key = relation.key_column().map_or("", |column| &column.name);
        let position = if listed.is_empty() {
            Some(sharding.column)
        } else {
            listed.iter().position(|name| name == key)
        };
        let given = position
            .and_then(|position| row.get(position))
            .and_then(|expr| self.column(expr));
        let keys = match given {
            Some(column) => StoredKeys::Column(column, scope),
            None => StoredKeys::Values(vec![self.row_key(relation, sharding, row, position)?]),
        };
        self.store(relation, sharding, keys);
        Ok(())
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
        let column = self.analysis.facts.column(family, scope);
        self.analysis
            .facts
            .add(scope, Fact::Keys(column, KeySet::AnyOf(values)));
        Some(column)
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

/// The keyword DEFAULT, which sqlparser takes for a name.
fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

fn single((schema, name): (Option<String>, String)) -> Result<String, Stop> {
    match schema {
        None => Ok(name),
        Some(_) => Err(Stop::Opaque("a column with a qualifier as a target")),
    }
}

fn assigned_column(column: &ObjectName) -> Result<String, Stop> {
    single(relation_name(column)?)
}
