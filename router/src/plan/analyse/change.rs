//! UPDATE, DELETE and MERGE: the rows they find, and the keys of the rows they make.

use postgres_protocol::escape::escape_identifier;
use sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, Expr, FromTable, Ident, Merge, MergeAction,
    MergeClauseKind, MergeInsertExpr, MergeInsertKind, MergeUpdateKind, ObjectName, OutputClause,
    TableFactor, Update, UpdateTableFromKind,
};

use super::facts::ScopeId;
use super::from::{On, Tree};
use super::insert::computed;
use super::names::{Frame, Output, name, relation_name};
use super::write::{WriteTarget, is_default, single};
use super::{Analyser, Stop, StoredKeys};
use crate::plan::moment::MomentDefault;
use crate::plan::parse::offset;
use crate::plan::refusal::Refusal;
use crate::relations::{Column, DefaultValue};
use crate::sql::TokenKind;

impl<'a> Analyser<'a> {
    pub(super) fn assignments(
        &mut self,
        target: WriteTarget<'a>,
        assignments: &'a [Assignment],
        scope: ScopeId,
    ) -> Result<(), Stop> {
        self.updates(target)?;
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
            && relation.has_default_of_its_own(column)
            && !self.gives_default(value, &relation.columns[position])
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
                let refusal = Refusal::not_supported(format!(
                    "changing the shard key \"{column}\" of table \"{}\" is not supported",
                    relation.name
                ))
                .detail("The row would have to move to another shard.")
                .hint("Delete the row and insert it with the new key.");
                if !self.moves {
                    return Err(refusal.into());
                }
                self.analysis.computed.get_or_insert(refusal);
                self.store(relation, sharding, StoredKeys::Values(vec![computed()]));
            }
        }
        Ok(())
    }

    /// Whether a column is set to a value of the moment by a DEFAULT that is written into the text.
    fn gives_default(&mut self, value: &Expr, column: &Column) -> bool {
        let (Expr::Identifier(word), DefaultValue::Moment, Some(expression)) =
            (value, column.default, &column.expression)
        else {
            return false;
        };
        if !self.gives_moments {
            return false;
        }
        self.analysis.moments = true;
        self.analysis.defaults.push(MomentDefault {
            at: offset(word.span.start),
            is_word: true,
            before: String::new(),
            expression: Some(expression.clone()),
        });
        true
    }

    /// `key = key`, or `key = excluded.key` where the conflict was on the key.
    fn is_own_key(&self, value: &Expr, key: &str) -> bool {
        let own = |ident: &Ident| name(ident).is_ok_and(|name| name == key);
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
                    let target = first.and_then(|item| item.alias.as_deref());
                    let is_target = qualifier.as_deref() == target;
                    own(column) && (is_target || qualifier.as_deref() == Some("excluded"))
                }
                _ => false,
            },
            _ => false,
        }
    }

    pub(super) fn update(
        &mut self,
        update: &'a Update,
        scope: ScopeId,
    ) -> Result<Vec<Output>, Stop> {
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
        self.depends_on_match(update);
        self.join_all(trees, update.selection.as_ref(), scope)?;
        // What other statements find is not all that they would have to move.
        self.moves = self.frames.len() == 1;
        self.gives_moments = true;
        self.assignments(target, &update.assignments, scope)?;
        (self.moves, self.gives_moments) = (false, false);
        let mut returned = self.returning(update.returning.as_ref(), scope)?;
        // What RETURNING returns is the new value.
        if !self.analysis.stored.is_empty() {
            returned.iter_mut().for_each(|output| output.column = None);
        }
        Ok(returned)
    }

    pub(super) fn delete(
        &mut self,
        delete: &'a Delete,
        scope: ScopeId,
    ) -> Result<Vec<Output>, Stop> {
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

    pub(super) fn merge(&mut self, merge: &'a Merge, scope: ScopeId) -> Result<Vec<Output>, Stop> {
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
                        self.gives_moments = true;
                        self.assignments(target, assignments, scope)?;
                        self.gives_moments = false;
                        Ok(())
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
        self.inserts(target)?;
        for expr in row.iter().filter(|expr| !is_default(expr)) {
            self.expr(expr, scope, false)?;
        }
        self.gives_moments =
            target.sharding().is_some() && row.iter().all(|value| !is_default(value));
        self.defaults(target, &listed, Some(row.len()), Some(&rows))?;
        if std::mem::take(&mut self.gives_moments) {
            self.give_left_out(target, insert, &listed)?;
        }
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
            None => match self.row_key(relation, sharding, row, position) {
                Ok(key) => StoredKeys::Values(vec![key]),
                Err(Stop::Refuse(refusal)) => {
                    // It may be that of a row that is given to its shard.
                    self.analysis.computed.get_or_insert(*refusal);
                    StoredKeys::Values(vec![computed()])
                }
                Err(stop) => return Err(stop),
            },
        };
        self.store(relation, sharding, keys);
        Ok(())
    }
}

impl Analyser<'_> {
    /// Columns that a row of a MERGE leaves out, and that have values of the moment: they are written into the text.
    fn give_left_out(
        &mut self,
        target: WriteTarget<'_>,
        insert: &MergeInsertExpr,
        listed: &[String],
    ) -> Result<(), Stop> {
        let (Some(relation), MergeInsertKind::Values(values)) = (target.relation, &insert.kind)
        else {
            return Ok(());
        };
        let Some(row) = values.rows.first() else {
            return Ok(());
        };
        let is_given = |at: usize, name: &String| match listed {
            [] => at < row.content.len(),
            listed => listed.contains(name),
        };
        let left_out: Vec<&Column> = relation
            .columns
            .iter()
            .enumerate()
            .filter(|(at, column)| !is_given(*at, &column.name))
            .map(|(_, column)| column)
            .collect();
        let is_moment = |column: &&&Column| column.default == DefaultValue::Moment;
        let Some(last) = left_out.iter().rposition(|column| is_moment(&column)) else {
            return Ok(());
        };
        // Where no columns are listed, values stand for those in between, too.
        let wanted = |column: &&&Column| listed.is_empty() || is_moment(column);
        let wanted: Vec<&Column> = left_out
            .iter()
            .take(last + 1)
            .filter(wanted)
            .copied()
            .collect();
        let close = offset(row.closing_token.0.span.start);
        if !listed.is_empty() {
            let values = offset(insert.kind_token.0.span.start);
            let before = self
                .tokens
                .iter()
                .rev()
                .filter(|token| token.start < values);
            let mut list = before.filter(|token| token.kind == TokenKind::Punct(b')'));
            let list = list
                .next()
                .ok_or(Stop::Opaque("not PostgreSQL's MERGE"))?
                .start;
            for column in &wanted {
                let name = escape_identifier(&column.name);
                self.writes_default(list, format!(", {name}"), None);
            }
        }
        for column in wanted {
            match &column.expression {
                Some(expression) if column.default == DefaultValue::Moment => {
                    self.writes_default(close, ", ".to_owned(), Some(expression.clone()));
                }
                _ => self.writes_default(close, ", DEFAULT".to_owned(), None),
            }
        }
        Ok(())
    }

    fn writes_default(&mut self, at: u32, before: String, expression: Option<Box<str>>) {
        self.analysis.defaults.push(MomentDefault {
            at,
            is_word: false,
            before,
            expression,
        });
    }
}

fn assigned_column(column: &ObjectName) -> Result<String, Stop> {
    single(relation_name(column)?)
}
