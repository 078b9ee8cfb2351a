//! FROM: the items, their columns, and the tree of joins.

use std::borrow::Cow;

use sqlparser::ast::{
    Expr, FunctionArg, Ident, Join, JoinConstraint, JoinOperator, ObjectName, TableAlias,
    TableFactor, TableWithJoins,
};

use super::facts::{ColumnId, ScopeId};
use super::names::{Frame, Item, ItemId, Merged, Output, function_name, name, relation_name};
use super::{Analyser, Stop};
use crate::plan::parse::offset;
use crate::plan::refusal::Refusal;
use crate::plan::types::Typed;

/// The joins of a FROM; right joins are turned round.
#[derive(Debug)]
pub(super) enum Tree<'e> {
    Leaf(ItemId),
    Inner(Box<Tree<'e>>, Box<Tree<'e>>, On<'e>),
    /// The first is preserved.
    Left(Box<Tree<'e>>, Box<Tree<'e>>, On<'e>),
    Full(Box<Tree<'e>>, Box<Tree<'e>>, On<'e>),
}

/// The condition of a join.
#[derive(Debug, Clone)]
pub(super) enum On<'e> {
    Condition(&'e Expr),
    /// USING or NATURAL.
    Equal(Vec<(ColumnId, ColumnId)>),
    Nothing,
}

impl Tree<'_> {
    pub(super) fn items(&self) -> Vec<ItemId> {
        match self {
            Tree::Leaf(item) => vec![*item],
            Tree::Inner(left, right, _)
            | Tree::Left(left, right, _)
            | Tree::Full(left, right, _) => {
                let mut items = left.items();
                items.extend(right.items());
                items
            }
        }
    }

    /// Whether there is an outer join in it.
    pub(super) fn has_outer(&self) -> bool {
        match self {
            Tree::Leaf(_) => false,
            Tree::Inner(left, right, _) => left.has_outer() || right.has_outer(),
            Tree::Left(..) | Tree::Full(..) => true,
        }
    }
}

impl<'a> Analyser<'a> {
    /// Walks a FROM inside a scope. Its items are in the innermost frame, which the caller has pushed.
    pub(super) fn from(
        &mut self,
        tables: &'a [TableWithJoins],
        parent: ScopeId,
    ) -> Result<Vec<Tree<'a>>, Stop> {
        tables
            .iter()
            .map(|table| self.table_with_joins(table, parent))
            .collect()
    }

    pub(super) fn table_with_joins(
        &mut self,
        table: &'a TableWithJoins,
        parent: ScopeId,
    ) -> Result<Tree<'a>, Stop> {
        let mut tree = self.factor(&table.relation, parent)?;
        for join in &table.joins {
            tree = self.join(tree, join, parent)?;
        }
        Ok(tree)
    }

    fn join(&mut self, left: Tree<'a>, join: &'a Join, parent: ScopeId) -> Result<Tree<'a>, Stop> {
        self.spend()?;
        if join.global {
            return Err(Stop::Opaque("not PostgreSQL's syntax"));
        }
        let right = self.factor(&join.relation, parent)?;
        let (constraint, side) = match &join.join_operator {
            JoinOperator::Join(on) | JoinOperator::Inner(on) | JoinOperator::CrossJoin(on) => {
                (on, Side::Inner)
            }
            JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => (on, Side::Left),
            JoinOperator::Right(on) | JoinOperator::RightOuter(on) => (on, Side::Right),
            JoinOperator::FullOuter(on) => (on, Side::Full),
            _ => return Err(Stop::Opaque("not PostgreSQL's join")),
        };
        let on = match constraint {
            JoinConstraint::On(condition) => On::Condition(condition),
            JoinConstraint::Using(names) => {
                let names = names
                    .iter()
                    .map(|name| relation_name(name).map(|(_, name)| name.into_owned()));
                let names = names.collect::<Result<Vec<_>, _>>()?;
                On::Equal(self.merge_columns(&left, &right, &names, side))
            }
            JoinConstraint::Natural => {
                let names = self.common_columns(&left, &right);
                On::Equal(self.merge_columns(&left, &right, &names, side))
            }
            JoinConstraint::None => On::Nothing,
        };
        let (left, right) = (Box::new(left), Box::new(right));
        Ok(match side {
            Side::Inner => Tree::Inner(left, right, on),
            Side::Left => Tree::Left(left, right, on),
            Side::Right => Tree::Left(right, left, on),
            Side::Full => Tree::Full(left, right, on),
        })
    }

    fn common_columns(&self, left: &Tree<'_>, right: &Tree<'_>) -> Vec<String> {
        let names = |tree: &Tree<'_>| -> Vec<String> {
            let items = tree.items();
            items
                .iter()
                .flat_map(|id| &self.items[*id].columns)
                .filter_map(|column| column.name.clone())
                .collect()
        };
        let right = names(right);
        let mut common: Vec<String> = names(left)
            .into_iter()
            .filter(|name| right.contains(name))
            .collect();
        common.dedup();
        common
    }

    /// Merges the columns of those names; returns the pairs whose values are equal.
    fn merge_columns(
        &mut self,
        left: &Tree<'_>,
        right: &Tree<'_>,
        names: &[String],
        side: Side,
    ) -> Vec<(ColumnId, ColumnId)> {
        let (left, right) = (left.items(), right.items());
        let mut pairs = Vec::new();
        for name in names {
            let ((a, a_typed), (b, b_typed)) = (
                self.side_column(&left, name),
                self.side_column(&right, name),
            );
            if let (Some(a), Some(b)) = (a, b) {
                pairs.push((a, b));
            }
            // Of different types one is cast to the other, or both to a third.
            let typed = a_typed.filter(|_| a_typed == b_typed);
            let column = match side {
                Side::Inner | Side::Left => a,
                Side::Right => b,
                Side::Full => None,
            };
            let hides = left.iter().chain(&right).copied().collect();
            if let Some(frame) = self.frames.last_mut() {
                frame.merged.push(Merged {
                    name: name.clone(),
                    column,
                    typed,
                    hides,
                });
            }
        }
        pairs
    }

    /// The column of that name on one side of a join.
    fn side_column(&self, items: &[ItemId], name: &str) -> (Option<ColumnId>, Option<Typed>) {
        let merged = self.frames.last().map(|frame| frame.merged.iter().rev());
        if let Some(merged) = merged
            .into_iter()
            .flatten()
            .find(|m| m.name == name && m.hides.iter().all(|id| items.contains(id)))
        {
            return (merged.column, merged.typed);
        }
        let mut columns = items
            .iter()
            .flat_map(|id| &self.items[*id].columns)
            .filter(|c| c.name.as_deref() == Some(name));
        match (columns.next(), columns.next()) {
            (Some(column), None) => (column.column, column.typed),
            _ => (None, None),
        }
    }

    /// Adds an item to the innermost frame.
    fn add_item(&mut self, item: Item) -> Tree<'a> {
        self.items.push(item);
        let id = self.items.len() - 1;
        if let Some(frame) = self.frames.last_mut() {
            frame.items.push(id);
        }
        Tree::Leaf(id)
    }

    /// One item of a FROM.
    pub(super) fn factor(
        &mut self,
        factor: &'a TableFactor,
        parent: ScopeId,
    ) -> Result<Tree<'a>, Stop> {
        let around = std::mem::replace(&mut self.in_from, true);
        let tree = self.factor_inside(factor, parent);
        self.in_from = around;
        tree
    }

    fn factor_inside(
        &mut self,
        factor: &'a TableFactor,
        parent: ScopeId,
    ) -> Result<Tree<'a>, Stop> {
        self.spend()?;
        let scope = self.analysis.facts.scope(Some(parent));
        match factor {
            TableFactor::Table { .. } => self.table(factor, parent, scope),
            TableFactor::Function {
                name, args, alias, ..
            } => self.called_item(name, args, alias.as_ref(), parent, scope),
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset: false,
                with_offset_alias: None,
                ..
            } => {
                for array in array_exprs {
                    self.expr(array, parent, false)?;
                }
                self.function_item("unnest".to_owned(), alias.as_ref(), scope)
            }
            TableFactor::Derived {
                lateral,
                subquery,
                alias,
                sample: None,
            } => {
                let hidden = if *lateral { None } else { self.frames.pop() };
                let derived = self.derived(subquery, scope);
                self.frames.extend(hidden);
                let (columns, open) = derived?;
                let item = Item {
                    alias: None,
                    schema: None,
                    columns,
                    open,
                    scope,
                };
                let item = aliased(item, alias.as_ref())?;
                Ok(self.add_item(item))
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias: None,
            } => self.table_with_joins(table_with_joins, parent),
            _ => Err(Stop::Opaque("a kind of table that is not understood")),
        }
    }

    /// A relation, or a function called without LATERAL.
    fn table(
        &mut self,
        factor: &'a TableFactor,
        parent: ScopeId,
        scope: ScopeId,
    ) -> Result<Tree<'a>, Stop> {
        let TableFactor::Table {
            name,
            alias,
            args,
            with_hints,
            version: None,
            with_ordinality,
            partitions,
            json_path: None,
            sample,
            index_hints,
        } = factor
        else {
            return Err(Stop::Opaque("not PostgreSQL's table"));
        };
        if !with_hints.is_empty() || !partitions.is_empty() || !index_hints.is_empty() {
            return Err(Stop::Opaque("not PostgreSQL's table"));
        }
        match args {
            Some(args) if args.settings.is_none() && sample.is_none() => {
                self.called_item(name, &args.args, alias.as_ref(), parent, scope)
            }
            None if !with_ordinality => {
                if sample.is_some() {
                    self.diverges("TABLESAMPLE");
                    self.needs_merge(|| {
                        Refusal::not_supported("TABLESAMPLE is not supported across shards yet")
                    });
                }
                let item = self.named_item(name, scope)?;
                let item = aliased(item, alias.as_ref())?;
                Ok(self.add_item(item))
            }
            _ => Err(Stop::Opaque("not PostgreSQL's table")),
        }
    }

    /// What a relation's name stands for, or rows that are given in its place.
    fn named_item(&mut self, name: &ObjectName, scope: ScopeId) -> Result<Item, Stop> {
        let (schema, relation) = relation_name(name)?;
        let first = name.0.first().and_then(|part| part.as_ident());
        let start = first.map_or(u32::MAX, |first| offset(first.span.start));
        let given = self.given_at(start, scope, |own, top| {
            let item = own.relation_item(schema.as_deref(), &relation, top)?;
            Ok((item.columns, item.open, item.open))
        });
        let Some((columns, open)) = given else {
            return self.relation_item(schema.as_deref(), &relation, scope);
        };
        Ok(Item {
            alias: Some(relation.into_owned()),
            schema: None,
            columns,
            open,
            scope,
        })
    }

    fn called_item(
        &mut self,
        name: &ObjectName,
        args: &'a [FunctionArg],
        alias: Option<&TableAlias>,
        parent: ScopeId,
        scope: ScopeId,
    ) -> Result<Tree<'a>, Stop> {
        let (schema, function) = function_name(name)?;
        if !self.runs_constant(schema.as_deref(), &function, args)? {
            self.called(name)?;
        }
        for arg in args {
            self.function_arg(arg, parent)?;
        }
        self.function_item(function.into_owned(), alias, scope)
    }

    /// A function in FROM: its columns are known only as far as the alias names them.
    fn function_item(
        &mut self,
        name: String,
        alias: Option<&TableAlias>,
        scope: ScopeId,
    ) -> Result<Tree<'a>, Stop> {
        let item = Item {
            alias: Some(name),
            schema: None,
            columns: Vec::new(),
            open: true,
            scope,
        };
        let item = aliased(item, alias)?;
        Ok(self.add_item(item))
    }

    /// What `*` stands for: the merged columns first, then the others.
    pub(super) fn expand(&self, frame: &Frame) -> (Vec<Output>, bool) {
        let mut columns: Vec<Output> = Vec::new();
        let mut open = false;
        for (at, merged) in frame.merged.iter().enumerate() {
            // A later merge of the same name takes the earlier one in.
            if !frame.merged[at + 1..]
                .iter()
                .any(|later| later.name == merged.name)
            {
                columns.push(Output {
                    name: Some(merged.name.clone()),
                    column: merged.column,
                    typed: merged.typed,
                });
            }
        }
        for id in &frame.items {
            let item = &self.items[*id];
            open |= item.open;
            let hidden = |output: &&Output| {
                frame
                    .merged
                    .iter()
                    .any(|m| output.name.as_deref() == Some(&m.name) && m.hides.contains(id))
            };
            columns.extend(
                item.columns
                    .iter()
                    .filter(|output| !hidden(output))
                    .cloned(),
            );
        }
        (columns, open)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Inner,
    Left,
    Right,
    Full,
}

/// Applies an alias and its column names.
pub(super) fn aliased(mut item: Item, alias: Option<&TableAlias>) -> Result<Item, Stop> {
    let Some(alias) = alias else { return Ok(item) };
    if alias.at.is_some() {
        return Err(Stop::Opaque("not PostgreSQL's syntax"));
    }
    item.alias = Some(name(&alias.name)?.into_owned());
    item.schema = None;
    let columns: Vec<&Ident> = alias.columns.iter().map(|column| &column.name).collect();
    let names = columns
        .into_iter()
        .map(name)
        .collect::<Result<Vec<_>, _>>()?;
    if item.open && item.columns.is_empty() {
        item.columns = names
            .into_iter()
            .map(|name| Output {
                name: Some(name.into_owned()),
                ..Output::default()
            })
            .collect();
    } else {
        rename(&mut item.columns, names);
    }
    Ok(item)
}

pub(super) fn rename<'n>(columns: &mut [Output], names: impl IntoIterator<Item = Cow<'n, str>>) {
    for (column, name) in columns.iter_mut().zip(names) {
        column.name = Some(name.into_owned());
    }
}
