//! Rows that differ in nothing but what is counted or summed of them: the shards send one for all that are alike.
//!
//! Purpose: of `SELECT u.id, count(o.id) FROM users u LEFT JOIN orders o ON … GROUP BY u.id` every shard counts its orders for each
//! combination of the other columns that the statement uses, and the workspace adds up what they have counted. Invariant: rows that
//! are alike in all columns that are used outside the calls meet the same rows, satisfy the same conditions and are in the same
//! groups, whatever the joins; so nothing else in their query block may tell how many there are.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "only what is understood is condensed"
)]

use std::collections::HashSet;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use postgres_protocol::escape::escape_identifier;
use sqlparser::ast::{
    Expr, FunctionArgExpr, Ident, JoinConstraint, JoinOperator, Query, Select, SelectItem, SetExpr,
    Spanned, Statement, TableFactor, TableWithJoins, Visit, Visitor,
};
use sqlparser::tokenizer::Location;
use switchyard_schema::{Collation, KeyType};

use super::fetch::names;
use super::reduce::Names;
use super::text::{Condition, Text};
use super::{Fetch, Workspace};
use crate::plan::Context;
use crate::plan::analyse::names::{function_name, name, relation_name};
use crate::plan::analyse::root::sole_argument;
use crate::plan::needed::is_exact;
use crate::plan::parse;
use crate::relations::{Column, Relation, Resolved};
use crate::sql::Token;

/// What rows of a relation can be condensed to.
#[derive(Debug)]
pub(in crate::plan) struct Condensed {
    /// The columns by which rows are told apart; never none.
    pub(super) by: Vec<String>,
    /// What is computed of rows that are alike: columns of ours, and how a shard makes them.
    pub(super) parts: Vec<(String, String)>,
    /// The calls of the text that the parts are for.
    pub(super) calls: Vec<Call>,
}

impl Condensed {
    /// The columns in SQL, and those they are grouped by.
    pub(super) fn columns(&self) -> (String, String) {
        let groups = names(&self.by);
        let made = self.parts.iter().map(|(_, made)| made.as_str());
        let columns: Vec<&str> = [groups.as_str()].into_iter().chain(made).collect();
        (columns.join(", "), groups)
    }
}

/// A call of an aggregate.
#[derive(Debug)]
pub(in crate::plan) struct Call {
    /// The call, and what stands there instead.
    tokens: Range<usize>,
    instead: String,
}

impl Call {
    /// Where it is in the text, in bytes, and what stands there instead.
    pub(super) fn edit(&self, text: &Text<'_>) -> Option<(Range<usize>, Vec<u8>)> {
        let call = Condition {
            tokens: self.tokens.clone(),
            qualifiers: Vec::new(),
        };
        Some((text.place(&call)?, self.instead.clone().into_bytes()))
    }
}

/// Finds what can be condensed of what is fetched. All of that is mentioned in the text, and no column is used without its name.
pub(super) fn condense(
    workspace: &mut Workspace,
    statement: &Statement,
    (text, tokens): (&Text<'_>, &[Token]),
    context: &Context<'_>,
) {
    let is_aggregate = |token: &Token| {
        ["count", "sum"]
            .iter()
            .any(|name| token.is_word(text.sql(), name))
    };
    if !tokens.iter().any(is_aggregate) {
        return;
    }
    let mut blocks = Blocks {
        context,
        ctes: ctes(statement),
        found: Vec::new(),
    };
    let _: ControlFlow<()> = statement.visit(&mut blocks);
    let settled = workspace.settled.iter();
    let settled: Vec<Range<usize>> = settled
        .filter_map(|settled| text.place(&settled.condition))
        .collect();
    for (number, found) in blocks.found.iter().enumerate() {
        let relation = found.relation;
        let mut fetches = workspace.fetches.iter_mut();
        let fetch = fetches.find(|fetch| fetch.relation == relation.name);
        // Rows of another mention are not counted.
        let Some(fetch) = fetch.filter(|fetch| fetch.home.is_none() && fetch.mentions.len() == 1)
        else {
            continue;
        };
        if let Some(condensed) = found.condensed(number, fetch, text, &settled) {
            fetch.condensed = Condensing::Possible(Arc::new(condensed));
        }
    }
}

/// Whether rows are condensed.
#[derive(Debug, Clone, Default)]
pub(in crate::plan) enum Condensing {
    /// They are not.
    #[default]
    No,
    /// They can be.
    Possible(Arc<Condensed>),
    /// They are.
    Done(Arc<Condensed>),
}

/// A query block whose aggregates are all of one relation's columns.
struct Found<'a> {
    relation: &'a Relation,
    aggregates: Vec<Aggregate<'a>>,
    /// Where functions are called besides, in bytes.
    others: Vec<usize>,
    /// The relation's columns, and where they are used, in bytes.
    columns: Vec<(usize, &'a Column)>,
}

struct Aggregate<'a> {
    expr: Expr,
    function: Function,
    column: &'a Column,
    /// Where the column is named, in bytes.
    argument: usize,
    /// It is a column of the result whose name PostgreSQL would make up.
    unnamed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Count,
    /// Of numbers whose sum is a bigint, or another numeric.
    Sum {
        small: bool,
    },
}

impl Function {
    /// The aggregate of that name over values of that type.
    fn of(name: &str, key_type: Option<KeyType>) -> Option<Self> {
        match (name, key_type) {
            ("count", _) => Some(Self::Count),
            ("sum", Some(KeyType::Int2 | KeyType::Int4)) => Some(Self::Sum { small: true }),
            ("sum", Some(KeyType::Int8 | KeyType::Numeric)) => Some(Self::Sum { small: false }),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum { .. } => "sum",
        }
    }

    /// What makes the whole of the parts.
    fn whole(self, part: &str) -> String {
        match self {
            Self::Count => format!("(coalesce(pg_catalog.sum({part}), 0)::pg_catalog.int8)"),
            Self::Sum { small: true } => format!("(pg_catalog.sum({part})::pg_catalog.int8)"),
            Self::Sum { small: false } => format!("pg_catalog.sum({part})"),
        }
    }
}

impl Found<'_> {
    fn condensed(
        &self,
        number: usize,
        fetch: &Fetch,
        text: &Text<'_>,
        settled: &[Range<usize>],
    ) -> Option<Condensed> {
        let is_settled = |at: &usize| settled.iter().any(|place| place.contains(at));
        if !self.others.iter().all(is_settled) || !fetch.primary_key.is_empty() {
            return None;
        }
        let (mut parts, mut calls): (Vec<(String, String)>, Vec<Call>) = Default::default();
        for aggregate in &self.aggregates {
            let column = escape_identifier(&aggregate.column.name);
            let made = format!("pg_catalog.{}({column})", aggregate.function.name());
            let known = parts.iter().position(|(_, known)| *known == made);
            let at = known.unwrap_or(parts.len());
            let part = format!("switchyard {}.{}", number + 1, at + 1);
            let mut instead = aggregate.function.whole(&escape_identifier(&part));
            if aggregate.unnamed {
                instead = format!("{instead} AS {}", aggregate.function.name());
            }
            if known.is_none() {
                parts.push((part, made));
            }
            let tokens = text.locate(&aggregate.expr)?;
            calls.push(Call { tokens, instead });
        }
        let is_argument = |at: &usize| {
            let mut aggregates = self.aggregates.iter();
            aggregates.any(|aggregate| aggregate.argument == *at)
        };
        let used = self.columns.iter();
        let used = used.filter(|(at, _)| !is_argument(at) && !is_settled(at));
        let used: Vec<&Column> = used.map(|(_, column)| *column).collect();
        if used.is_empty() || !used.iter().all(|column| is_exact_column(column)) {
            return None;
        }
        let is_used = |name: &&String| used.iter().any(|column| column.name == **name);
        let all = self.relation.columns.iter().map(|column| &column.name);
        let by: Vec<String> = all.filter(is_used).cloned().collect();
        let key = &self.relation.primary_key;
        let is_key = !key.is_empty() && key.iter().all(|column| by.contains(column));
        let has_lookups = fetch.lookups.iter().all(|column| by.contains(column));
        (!is_key && has_lookups).then_some(Condensed { by, parts, calls })
    }
}

/// Whether values of a column that are equal are the same.
fn is_exact_column(column: &Column) -> bool {
    let exact = KeyType::from_oid(column.type_oid).is_some_and(is_exact);
    exact && column.collation != Collation::Nondeterministic
}

/// Looks at one query block after the other.
struct Blocks<'a> {
    context: &'a Context<'a>,
    /// Names that common table expressions have somewhere.
    ctes: HashSet<String>,
    found: Vec<Found<'a>>,
}

impl Visitor for Blocks<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        match &*query.body {
            SetExpr::Select(select) => {
                let found = self.block(query, select);
                self.found.extend(found);
                ControlFlow::Continue(())
            }
            // In parentheses: ORDER BY behind them may mean what is inside.
            SetExpr::Query(_) => {
                self.found.clear();
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

impl<'a> Blocks<'a> {
    /// A block all of whose calls are of aggregates of one relation's columns.
    fn block(&self, query: &Query, select: &Select) -> Option<Found<'a>> {
        let mut items = Vec::new();
        for table in &select.from {
            self.items(table, &mut items)?;
        }
        let mut inside = Inside::default();
        inside.look(select)?;
        inside.look(&query.order_by)?;
        let (alone, within) = unnamed(&select.projection)?;
        let mut found: Option<Found<'a>> = None;
        let mut others = Vec::new();
        for expr in inside.calls {
            let at = expr.span().start;
            let Some((relation, mut aggregate)) = self.aggregate(&expr, &items) else {
                others.push(parse::offset(at) as usize);
                continue;
            };
            if within.contains(&at) {
                return None;
            }
            aggregate.unnamed = alone.contains(&at);
            let found = found.get_or_insert_with(|| Found {
                relation,
                aggregates: Vec::new(),
                others: Vec::new(),
                columns: Vec::new(),
            });
            if !std::ptr::eq(found.relation, relation) {
                return None;
            }
            found.aggregates.push(aggregate);
        }
        let found = found?;
        let named = |(qualifier, column): &(Option<String>, String)| {
            let alias = items
                .iter()
                .find(|(_, own)| std::ptr::eq(*own, found.relation));
            let is_its = qualifier.is_none()
                || alias.is_some_and(|(alias, _)| Some(alias) == qualifier.as_ref());
            let at = found.relation.column(column).filter(|_| is_its)?;
            found.relation.columns.get(at)
        };
        let columns = inside.columns.iter();
        let columns = columns.filter_map(|(at, column)| Some((*at, named(column)?)));
        Some(Found {
            columns: columns.collect(),
            others,
            ..found
        })
    }

    /// The relations of a join tree, with the names that they have there; `None` if there is anything else.
    fn items(&self, table: &TableWithJoins, items: &mut Vec<(String, &'a Relation)>) -> Option<()> {
        if !table
            .joins
            .iter()
            .all(|join| joins_by_condition(&join.join_operator))
        {
            return None;
        }
        let joined = table.joins.iter().map(|join| &join.relation);
        for factor in [&table.relation].into_iter().chain(joined) {
            match factor {
                TableFactor::NestedJoin {
                    table_with_joins,
                    alias: None,
                } => self.items(table_with_joins, items)?,
                TableFactor::Table {
                    name: object,
                    alias,
                    args: None,
                    sample: None,
                    ..
                } => {
                    let (schema, own) = relation_name(object).ok()?;
                    if schema.is_none() && self.ctes.contains(&*own) {
                        return None;
                    }
                    let (relations, path) = (self.context.relations, self.context.search_path);
                    let Resolved::Known(relation) =
                        relations.resolve(path, schema.as_deref(), &own)
                    else {
                        return None;
                    };
                    let alias = alias.as_ref().map(|alias| name(&alias.name));
                    let alias = alias.transpose().ok()?.unwrap_or(own);
                    items.push((alias.into_owned(), relation));
                }
                _ => return None,
            }
        }
        Some(())
    }

    /// The aggregate that a call is, and the relation whose column it is of.
    fn aggregate(
        &self,
        expr: &Expr,
        items: &[(String, &'a Relation)],
    ) -> Option<(&'a Relation, Aggregate<'a>)> {
        let Expr::Function(function) = expr else {
            return None;
        };
        let (schema, called) = function_name(&function.name).ok()?;
        let (relations, path) = (self.context.relations, self.context.search_path);
        let mut known = relations
            .functions(path, schema.as_deref(), &called)
            .peekable();
        known.peek()?;
        if known.any(|function| &*function.schema != "pg_catalog") || function.filter.is_some() {
            return None;
        }
        let FunctionArgExpr::Expr(argument) = sole_argument(function)? else {
            return None;
        };
        let (qualifier, column) = match argument {
            Expr::Identifier(column) => (None, name(column).ok()?),
            Expr::CompoundIdentifier(parts) => {
                let [qualifier, column] = parts.as_slice() else {
                    return None;
                };
                (Some(name(qualifier).ok()?), name(column).ok()?)
            }
            _ => return None,
        };
        let mut of = items.iter().filter(|(alias, relation)| {
            let has = relation.column(&column).is_some();
            has && qualifier
                .as_ref()
                .is_none_or(|qualifier| qualifier == alias)
        });
        let ((_, relation), None) = (of.next()?, of.next()) else {
            return None;
        };
        let column = relation.columns.get(relation.column(&column)?)?;
        let aggregate = Aggregate {
            expr: expr.clone(),
            function: Function::of(&called, KeyType::from_oid(column.type_oid))?,
            column,
            argument: parse::offset(argument.span().start) as usize,
            unnamed: false,
        };
        Some((relation, aggregate))
    }
}

/// Where the calls are that are columns of the result without a name of their own, and those that are parts of such a one, which may
/// have their names.
fn unnamed(projection: &[SelectItem]) -> Option<(Vec<Location>, Vec<Location>)> {
    let (mut alone, mut inside) = (Vec::new(), Vec::new());
    for item in projection {
        match item {
            SelectItem::UnnamedExpr(call @ Expr::Function(_)) => alone.push(call.span().start),
            SelectItem::UnnamedExpr(expr) => {
                let mut within = Inside::default();
                within.look(expr)?;
                inside.extend(within.calls.iter().map(|call| call.span().start));
            }
            _ => {}
        }
    }
    Some((alone, inside))
}

/// The names of common table expressions.
fn ctes(statement: &Statement) -> HashSet<String> {
    let mut names = Names::default();
    let _: ControlFlow<()> = statement.visit(&mut names);
    names.ctes
}

/// Whether a join names no columns by which it joins.
fn joins_by_condition(operator: &JoinOperator) -> bool {
    match operator {
        JoinOperator::Join(by)
        | JoinOperator::Inner(by)
        | JoinOperator::Left(by)
        | JoinOperator::LeftOuter(by)
        | JoinOperator::Right(by)
        | JoinOperator::RightOuter(by)
        | JoinOperator::FullOuter(by)
        | JoinOperator::CrossJoin(by) => {
            matches!(by, JoinConstraint::On(_) | JoinConstraint::None)
        }
        _ => false,
    }
}

/// What is in a query block.
#[derive(Default)]
struct Inside {
    /// The calls of functions.
    calls: Vec<Expr>,
    /// Columns with their qualifiers, and where they are, in bytes.
    columns: Vec<(usize, (Option<String>, String))>,
}

impl Inside {
    /// `None` if there are queries in it, or what may be a column and is not known to be one.
    fn look(&mut self, node: &impl Visit) -> Option<()> {
        node.visit(self).is_continue().then_some(())
    }

    fn column(&mut self, parts: &[Ident]) -> ControlFlow<()> {
        let known = match parts {
            [column] => name(column).ok().map(|column| (None, column)),
            [qualifier, column] => name(qualifier)
                .ok()
                .zip(name(column).ok())
                .map(|(qualifier, column)| (Some(qualifier.into_owned()), column)),
            _ => None,
        };
        let Some((qualifier, column)) = known else {
            return ControlFlow::Break(());
        };
        let at = parts
            .first()
            .map_or(0, |first| parse::offset(first.span.start));
        self.columns
            .push((at as usize, (qualifier, column.into_owned())));
        ControlFlow::Continue(())
    }
}

impl Visitor for Inside {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        ControlFlow::Break(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(_) => self.calls.push(expr.clone()),
            Expr::Identifier(column) => return self.column(std::slice::from_ref(column)),
            Expr::CompoundIdentifier(parts) => return self.column(parts),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
