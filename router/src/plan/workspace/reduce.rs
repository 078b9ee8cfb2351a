//! Which rows of a relation can matter to a statement: fewer are fetched.
//!
//! A mention of a relation in a FROM is restricted by the conditions that hold for every row it contributes: those of WHERE and of
//! inner joins, but of an outer join's only on its nullable side. A condition on that mention alone is asked of the shards as
//! it stands; one that says that a column equals another mention's restricts it to the keys there. Whatever is not certain
//! restricts nothing. Rows are only left out of what is fetched: the statement itself checks all of its conditions again.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "only conditions that are understood restrict anything"
)]

use std::collections::HashSet;
use std::ops::{ControlFlow, Range};
use std::rc::Rc;

use sqlparser::ast::{
    BinaryOperator, Expr, FunctionArguments, JoinConstraint, JoinOperator, Query, Select,
    SelectItem, SetExpr, Spanned, Statement, TableFactor, TableWithJoins, Visit, Visitor,
};
use switchyard_schema::TableName;

use super::fetch::{Condition, Restriction, Text};
use crate::plan::Context;
use crate::plan::analyse::names::{function_name, name, relation_name};
use crate::plan::analyse::predicate::conjuncts;
use crate::plan::parse;
use crate::relations::{Placement, Relation, Resolved, Volatility};
use crate::sql::TokenKind;

/// Restrictions inside restrictions at most.
const DEPTH: usize = 3;

/// A mention of a relation, and what its rows satisfy if they matter.
#[derive(Debug)]
pub(super) struct Mention {
    pub(super) relation: TableName,
    pub(super) restrictions: Vec<Restriction>,
}

/// Every mention of a relation in the statement that is found; `None` if some may not have been.
pub(super) fn mentions(
    statement: &Statement,
    sql: &[u8],
    context: &Context<'_>,
) -> Option<Vec<Mention>> {
    let mut names = Names::default();
    let _: ControlFlow<()> = statement.visit(&mut names);
    let mut blocks = Blocks {
        text: Text::new(sql),
        sql,
        context,
        ctes: names.ctes,
        scopes: Vec::new(),
        hidden: Vec::new(),
        mentions: Vec::new(),
    };
    let _: ControlFlow<()> = statement.visit(&mut blocks);
    let all = names
        .relations
        .iter()
        .filter(|(schema, name)| blocks.relation(schema.as_deref(), name).is_some());
    (all.count() == blocks.mentions.len()).then_some(blocks.mentions)
}

/// The names of relations, wherever they are, and of common table expressions.
#[derive(Default)]
struct Names {
    relations: Vec<(Option<String>, String)>,
    ctes: HashSet<String>,
}

impl Visitor for Names {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.ctes
            .extend(ctes.filter_map(|cte| name(&cte.alias.name).ok()));
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &sqlparser::ast::ObjectName) -> ControlFlow<()> {
        self.relations.extend(relation_name(relation).ok());
        ControlFlow::Continue(())
    }
}

/// Looks at one SELECT after the other, those around it in mind.
struct Blocks<'a> {
    text: Text<'a>,
    sql: &'a [u8],
    context: &'a Context<'a>,
    ctes: HashSet<String>,
    /// The FROMs around, outermost first.
    scopes: Scopes<'a>,
    /// FROMs whose columns cannot be named in a subquery of theirs.
    hidden: Vec<Rc<[Item<'a>]>>,
    mentions: Vec<Mention>,
}

/// The FROMs whose columns can be named at a place, outermost first.
type Scopes<'a> = Vec<Rc<[Item<'a>]>>;

/// An item, by the FROM it is in and its place there.
type Place = (usize, usize);

/// An item of a FROM.
struct Item<'a> {
    alias: String,
    /// The relation, if it is one that could be fetched. The columns of anything else are not known.
    relation: Option<&'a Relation>,
    /// What holds for every row it contributes.
    conditions: Vec<Expr>,
    /// It is on the nullable side of an outer join: what is above that restricts it no more.
    closed: bool,
}

impl Visitor for Blocks<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let level = self.scopes.len();
        self.scopes.push(self.items(select).into());
        for (at, item) in self.scopes[level].iter().enumerate() {
            if let Some(relation) = item.relation {
                self.mentions.push(Mention {
                    relation: relation.name.clone(),
                    restrictions: self.restrictions(&self.scopes, (level, at), &[]),
                });
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &Select) -> ControlFlow<()> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if is_apart(factor) {
            let unseen = Item {
                alias: String::new(),
                relation: None,
                conditions: Vec::new(),
                closed: true,
            };
            let around = self.scopes.last_mut();
            self.hidden
                .extend(around.map(|around| std::mem::replace(around, Rc::new([unseen]))));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if is_apart(factor)
            && let (Some(around), Some(hidden)) = (self.scopes.last_mut(), self.hidden.pop())
        {
            *around = hidden;
        }
        ControlFlow::Continue(())
    }
}

/// A subquery that does not see the columns of the FROM it is in.
fn is_apart(factor: &TableFactor) -> bool {
    matches!(factor, TableFactor::Derived { lateral: false, .. })
}

/// A condition holds for what these items contribute.
fn hold(items: &mut [Item<'_>], condition: &Expr) {
    for item in items.iter_mut().filter(|item| !item.closed) {
        item.conditions
            .extend(conjuncts(condition).into_iter().cloned());
    }
}

fn close(items: &mut [Item<'_>]) {
    items.iter_mut().for_each(|item| item.closed = true);
}

impl<'a> Blocks<'a> {
    /// The relation of that name, if it is one that could be fetched.
    fn relation(&self, schema: Option<&str>, name: &str) -> Option<&'a Relation> {
        if schema.is_none() && self.ctes.contains(name) {
            return None;
        }
        let path = self.context.search_path;
        match self.context.relations.resolve(path, schema, name) {
            Resolved::Known(relation) => match relation.placement {
                Placement::Sharded(_) | Placement::Reference | Placement::Unsharded => {
                    Some(relation)
                }
                Placement::Catalog | Placement::ReadsSharded(_) | Placement::Broken(_) => None,
            },
            Resolved::Catalog | Resolved::Unknown => None,
        }
    }

    /// The items of a SELECT, with what holds for them.
    fn items(&self, select: &Select) -> Vec<Item<'a>> {
        let mut items = Vec::new();
        for table in &select.from {
            self.tree(table, &mut items);
        }
        if let Some(condition) = &select.selection {
            hold(&mut items, condition);
        }
        items
    }

    /// Adds the items of a join tree, with what its joins say of them.
    fn tree(&self, table: &TableWithJoins, items: &mut Vec<Item<'a>>) {
        let first = items.len();
        self.factor(&table.relation, items);
        for join in &table.joins {
            let right = items.len();
            self.factor(&join.relation, items);
            let (constraint, side) = match &join.join_operator {
                JoinOperator::Join(on) | JoinOperator::Inner(on) | JoinOperator::CrossJoin(on) => {
                    (on, first..right)
                }
                JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => (on, right..items.len()),
                JoinOperator::Right(on) | JoinOperator::RightOuter(on) => (on, first..right),
                _ => {
                    close(&mut items[first..]);
                    continue;
                }
            };
            let inner = matches!(
                join.join_operator,
                JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_)
            );
            let held = if inner { first..items.len() } else { side };
            if let JoinConstraint::On(condition) = constraint {
                hold(&mut items[held.clone()], condition);
            }
            if !inner {
                close(&mut items[held]);
            }
        }
    }

    fn factor(&self, factor: &TableFactor, items: &mut Vec<Item<'a>>) {
        let (alias, relation) = match factor {
            TableFactor::NestedJoin {
                table_with_joins,
                alias: None,
            } => return self.tree(table_with_joins, items),
            TableFactor::Table {
                name: object,
                alias,
                args: None,
                ..
            } => {
                let found = relation_name(object).ok();
                let relation = found
                    .as_ref()
                    .and_then(|(schema, name)| self.relation(schema.as_deref(), name));
                // Where its columns have other names, it counts as not found.
                let renames = alias
                    .as_ref()
                    .is_some_and(|alias| !alias.columns.is_empty());
                let relation = relation.filter(|_| !renames);
                let alias = alias.as_ref().and_then(|alias| name(&alias.name).ok());
                (alias.or(found.map(|(_, name)| name)), relation)
            }
            _ => (None, None),
        };
        items.push(Item {
            alias: alias.unwrap_or_default(),
            relation,
            conditions: Vec::new(),
            closed: false,
        });
    }

    /// What the rows of one item must satisfy. `around` are the items whose restriction this is a part of.
    fn restrictions(&self, scopes: &Scopes<'a>, at: Place, around: &[Place]) -> Vec<Restriction> {
        let Some(item) = item(scopes, at) else {
            return Vec::new();
        };
        let found = item.conditions.iter();
        found
            .filter_map(|condition| self.restriction(scopes, at, condition, around))
            .collect()
    }

    fn restriction(
        &self,
        scopes: &Scopes<'a>,
        at: Place,
        condition: &Expr,
        around: &[Place],
    ) -> Option<Restriction> {
        match condition {
            Expr::BinaryOp {
                op: BinaryOperator::Or,
                ..
            } => {
                let whole = self.condition(scopes, at, condition);
                let whole = whole.map(Restriction::Condition);
                whole.or_else(|| self.alternatives(scopes, at, condition, around))
            }
            Expr::BinaryOp {
                left,
                op: BinaryOperator::Eq,
                right,
            } => match (column(scopes, left), column(scopes, right)) {
                (Some(mine), Some(other)) if mine.0 == at && other.0 != at => {
                    self.meeting(scopes, mine, other, around)
                }
                (Some(other), Some(mine)) if mine.0 == at && other.0 != at => {
                    self.meeting(scopes, mine, other, around)
                }
                _ => self
                    .condition(scopes, at, condition)
                    .map(Restriction::Condition),
            },
            Expr::InSubquery {
                expr,
                subquery,
                negated: false,
            } => self.membership(scopes, at, expr, subquery, around),
            _ => self
                .condition(scopes, at, condition)
                .map(Restriction::Condition),
        }
    }

    /// One of several conditions holds: what each of them says of the item, if each says something.
    fn alternatives(
        &self,
        scopes: &Scopes<'a>,
        at: Place,
        condition: &Expr,
        around: &[Place],
    ) -> Option<Restriction> {
        let one = |condition: &Expr| -> Vec<Restriction> {
            let all = conjuncts(condition).into_iter();
            all.filter_map(|condition| self.restriction(scopes, at, condition, around))
                .collect()
        };
        let either: Vec<Vec<Restriction>> = disjuncts(condition).into_iter().map(one).collect();
        let says = either.iter().all(|one| !one.is_empty());
        says.then_some(Restriction::Either(either))
    }

    /// The restriction by the rows of another item whose column is equal.
    fn meeting(
        &self,
        scopes: &Scopes<'a>,
        (at, column): (Place, String),
        (other, equals): (Place, String),
        around: &[Place],
    ) -> Option<Restriction> {
        let mine = item(scopes, at)?.relation?;
        let theirs = item(scopes, other)?.relation?;
        if around.contains(&other) || around.len() >= DEPTH {
            return None;
        }
        if is_with(mine, &column, theirs, &equals) {
            let around = [around, &[at]].concat();
            let others = self.restrictions(scopes, other, &around);
            return (!others.is_empty()).then(|| Restriction::Meets {
                column,
                other: theirs.name.clone(),
                equals,
                others,
            });
        }
        let of = key_type(mine, &column)?;
        let alike = of == key_type(theirs, &equals)? && !of.1;
        alike.then(|| Restriction::Among {
            column,
            other: theirs.name.clone(),
            equals,
        })
    }

    /// `column IN (SELECT column FROM …)`
    fn membership(
        &self,
        scopes: &Scopes<'a>,
        at: Place,
        expr: &Expr,
        subquery: &Query,
        around: &[Place],
    ) -> Option<Restriction> {
        let mine = column(scopes, expr).filter(|(place, _)| *place == at)?;
        let SetExpr::Select(select) = &*subquery.body else {
            return None;
        };
        let [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] =
            select.projection.as_slice()
        else {
            return None;
        };
        let mut inside = scopes.clone();
        inside.push(self.items(select).into());
        let other = column(&inside, value).filter(|((level, _), _)| *level == scopes.len())?;
        self.meeting(&inside, mine, other, around)
    }

    /// A condition on one item alone, that says the same on every server and at any moment.
    fn condition(&self, scopes: &Scopes<'a>, at: Place, condition: &Expr) -> Option<Condition> {
        let relations = self.context.relations;
        let immutable = |object: &sqlparser::ast::ObjectName| {
            let Ok((schema, name)) = function_name(object) else {
                return false;
            };
            let mut functions = relations
                .functions(self.context.search_path, schema.as_deref(), &name)
                .peekable();
            let known = functions.peek().is_some();
            known
                && functions.all(|function| {
                    *function.schema == *"pg_catalog"
                        && function.volatility == Volatility::Immutable
                })
        };
        let own = |expr: &Expr| column(scopes, expr).is_some_and(|(place, _)| place == at);
        if !is_plain(condition, &own, &immutable) {
            return None;
        }
        let tokens = self.locate(condition)?;
        let alias = &item(scopes, at)?.alias;
        let all = self.text.tokens();
        let qualifies = |number: &usize| {
            let name = all
                .get(*number)
                .and_then(|token| crate::sql::name(token, self.sql));
            let next = all.get(*number + 1).map(|token| token.kind);
            name.as_ref() == Some(alias) && next == Some(TokenKind::Punct(b'.'))
        };
        let qualifiers = tokens
            .clone()
            .filter(qualifies)
            .flat_map(|at| [at, at + 1])
            .collect();
        Some(Condition { tokens, qualifiers })
    }

    /// The tokens that are an expression: those which, parsed by themselves, are the same expression. The tree's own spans
    /// leave out words at either end.
    fn locate(&self, expr: &Expr) -> Option<Range<usize>> {
        let span = expr.span();
        let (start, end) = (parse::offset(span.start), parse::offset(span.end));
        let tokens = self.text.tokens();
        let first = tokens.iter().position(|token| token.start >= start)?;
        let last = tokens.iter().rposition(|token| token.start < end)?;
        let places = (0..=MORE).flat_map(|before| (0..=MORE).map(move |after| (before, after)));
        places
            .filter_map(|(before, after)| {
                let range = first.checked_sub(before)?..last.checked_add(after + 1)?;
                let found = parse::expression(self.sql, tokens.get(range.clone())?)?;
                (found == *expr).then_some(range)
            })
            .next()
    }
}

/// So many tokens may be missing at either end of a span.
const MORE: usize = 3;

/// The type of a column, and whether different values of it may be equal.
fn key_type(relation: &Relation, name: &str) -> Option<(u32, bool)> {
    let column = relation.columns.get(relation.column(name)?)?;
    Some((column.type_oid, column.nondeterministic))
}

/// Whether rows of two relations whose columns are equal are always on the same shard.
fn is_with(mine: &Relation, column: &str, theirs: &Relation, equals: &str) -> bool {
    let key = |relation: &Relation, name: &str| {
        let key = relation.key_column();
        key.is_some_and(|key| key.name == name)
    };
    match (&mine.placement, &theirs.placement) {
        (_, Placement::Reference) => true,
        (Placement::Sharded(mine_at), Placement::Sharded(theirs_at)) => {
            mine_at.map.colocated_with(&theirs_at.map) && key(mine, column) && key(theirs, equals)
        }
        _ => false,
    }
}

fn item<'s, 'a>(scopes: &'s Scopes<'a>, (level, at): Place) -> Option<&'s Item<'a>> {
    scopes.get(level)?.get(at)
}

/// Conditions one of which holds.
fn disjuncts(condition: &Expr) -> Vec<&Expr> {
    match condition {
        Expr::BinaryOp {
            left,
            op: BinaryOperator::Or,
            right,
        } => [disjuncts(left), disjuncts(right)].concat(),
        Expr::Nested(inner) => disjuncts(inner),
        _ => vec![condition],
    }
}

/// The column that an expression is: its item, and its name. The innermost FROM that has it counts, if no item of unknown
/// columns there could have it instead.
fn column(scopes: &Scopes<'_>, expr: &Expr) -> Option<(Place, String)> {
    match expr {
        Expr::Nested(inner) => column(scopes, inner),
        Expr::Identifier(ident) => {
            let name = name(ident).ok()?;
            let has = |item: &Item<'_>| {
                let relation = item.relation;
                relation.is_none_or(|relation| relation.column(&name).is_some())
            };
            let place = innermost(scopes, &has)?;
            item(scopes, place)?.relation?;
            Some((place, name))
        }
        Expr::CompoundIdentifier(parts) => {
            let [qualifier, column] = parts.as_slice() else {
                return None;
            };
            let (qualifier, column) = (name(qualifier).ok()?, name(column).ok()?);
            let place = innermost(scopes, &|item| item.alias == qualifier)?;
            item(scopes, place)?.relation?.column(&column)?;
            Some((place, column))
        }
        _ => None,
    }
}

/// The one item in the innermost FROM where there is any.
fn innermost(scopes: &Scopes<'_>, is: &dyn Fn(&Item<'_>) -> bool) -> Option<Place> {
    let found = |level: &usize| -> Vec<Place> {
        let items = scopes[*level].iter().enumerate();
        items
            .filter(|(_, item)| is(item))
            .map(|(at, _)| (*level, at))
            .collect()
    };
    let mut levels = (0..scopes.len()).rev().map(|level| found(&level));
    match levels.find(|found| !found.is_empty())?.as_slice() {
        [place] => Some(*place),
        _ => None,
    }
}

/// Whether an expression is made of own columns, constants and what computes the same anywhere.
fn is_plain(
    expr: &Expr,
    own: &dyn Fn(&Expr) -> bool,
    immutable: &dyn Fn(&sqlparser::ast::ObjectName) -> bool,
) -> bool {
    let plain = |expr: &Expr| is_plain(expr, own, immutable);
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => own(expr),
        Expr::Value(_) | Expr::TypedString(_) => true,
        Expr::Interval(interval) => plain(&interval.value),
        Expr::Nested(inner)
        | Expr::IsNull(inner)
        | Expr::IsNotNull(inner)
        | Expr::IsTrue(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsNotFalse(inner)
        | Expr::UnaryOp { expr: inner, .. }
        | Expr::Cast { expr: inner, .. }
        | Expr::Extract { expr: inner, .. } => plain(inner),
        Expr::BinaryOp { left, op, right } => is_standard(op) && plain(left) && plain(right),
        Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
            plain(left) && plain(right)
        }
        Expr::InList { expr, list, .. } => plain(expr) && list.iter().all(plain),
        Expr::Between {
            expr, low, high, ..
        } => plain(expr) && plain(low) && plain(high),
        Expr::Like { expr, pattern, .. } | Expr::ILike { expr, pattern, .. } => {
            plain(expr) && plain(pattern)
        }
        Expr::Substring {
            expr,
            substring_from,
            substring_for,
            ..
        } => {
            let parts = [substring_from, substring_for];
            plain(expr) && parts.into_iter().flatten().all(|part| plain(part))
        }
        Expr::Function(function) => {
            let FunctionArguments::List(list) = &function.args else {
                return false;
            };
            let argument = |argument: &sqlparser::ast::FunctionArg| match argument {
                sqlparser::ast::FunctionArg::Unnamed(sqlparser::ast::FunctionArgExpr::Expr(
                    expr,
                )) => plain(expr),
                _ => false,
            };
            let simple = function.over.is_none()
                && function.filter.is_none()
                && function.within_group.is_empty()
                && list.duplicate_treatment.is_none()
                && list.clauses.is_empty();
            simple && immutable(&function.name) && list.args.iter().all(argument)
        }
        _ => false,
    }
}

/// Operators that users do not make.
fn is_standard(operator: &BinaryOperator) -> bool {
    matches!(
        operator,
        BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
            | BinaryOperator::And
            | BinaryOperator::Or
            | BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo
            | BinaryOperator::StringConcat
    )
}
