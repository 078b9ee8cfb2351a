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

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::rc::Rc;

use sqlparser::ast::{
    BinaryOperator, Distinct, Expr, GroupByExpr, JoinConstraint, JoinOperator, ObjectName, Query,
    Select, SelectItem, SetExpr, Spanned, Statement, TableFactor, TableWithJoins, Visit, Visitor,
};
use switchyard_schema::{Collation, TableName};

use super::fetch::Restriction;
use super::plain::is_plain;
use super::scope::{Held, Item, Place, Scopes, close, column, hold, item};
use super::text::{Condition, Text};
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
    /// Where it is in the text, in bytes.
    pub(super) place: usize,
    pub(super) restrictions: Vec<Restriction>,
}

/// Every mention of a relation in the statement that is found; `None` if some may not have been.
pub(super) fn mentions(
    statement: &Statement,
    text: &Text<'_>,
    context: &Context<'_>,
) -> Option<Vec<Mention>> {
    let mut names = Names::default();
    let _: ControlFlow<()> = statement.visit(&mut names);
    let mut blocks = Blocks {
        text,
        context,
        ctes: names.ctes,
        scopes: Vec::new(),
        memberships: Vec::new(),
        awaited: None,
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

/// Whether a part of the statement is a UNION, INTERSECT or EXCEPT.
pub(super) fn has_set_operation(statement: &Statement) -> bool {
    struct SetOperations;
    impl Visitor for SetOperations {
        type Break = ();

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            match *query.body {
                SetExpr::SetOperation { .. } => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    statement.visit(&mut SetOperations).is_break()
}

/// The names of relations, wherever they are, and of common table expressions.
#[derive(Default)]
pub(super) struct Names {
    relations: Vec<(Option<String>, String)>,
    pub(super) ctes: HashSet<String>,
}

impl Visitor for Names {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.ctes
            .extend(ctes.filter_map(|cte| Some(name(&cte.alias.name).ok()?.into_owned())));
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        if let Ok((schema, name)) = relation_name(relation) {
            let schema = schema.map(Cow::into_owned);
            self.relations.push((schema, name.into_owned()));
        }
        ControlFlow::Continue(())
    }
}

/// Looks at one SELECT after the other, those around it in mind.
struct Blocks<'a> {
    text: &'a Text<'a>,
    context: &'a Context<'a>,
    ctes: HashSet<String>,
    /// The FROMs around, outermost first.
    scopes: Scopes<'a>,
    /// Conditions `column IN (SELECT …)` that hold for all rows of their SELECT.
    memberships: Vec<Expr>,
    /// What holds in the SELECT that is looked at next.
    awaited: Option<Expr>,
    /// FROMs whose columns cannot be named in a subquery of theirs.
    hidden: Vec<Rc<[Item<'a>]>>,
    mentions: Vec<Mention>,
}

impl Visitor for Blocks<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let level = self.scopes.len();
        let mut items = self.items(select);
        if let Some(equal) = self.awaited.take() {
            hold(&mut items, &equal);
        }
        let conditions = select.selection.iter().flat_map(conjuncts);
        self.memberships.extend(
            conditions
                .filter(|condition| membership_of(condition).is_some())
                .cloned(),
        );
        self.scopes.push(items.into());
        for (at, item) in self.scopes[level].iter().enumerate() {
            if let Some(relation) = item.relation {
                self.mentions.push(Mention {
                    relation: relation.name.clone(),
                    place: item.place,
                    restrictions: self.restrictions(&self.scopes, (level, at), &[]),
                });
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        // What is not equal to what it is looked for does not matter where the whole must be true.
        if let Some((column, query, value)) = membership_of(expr)
            && query.with.is_none()
            && self.memberships.contains(expr)
        {
            self.awaited = Some(Expr::BinaryOp {
                left: Box::new(value.clone()),
                op: BinaryOperator::Eq,
                right: Box::new(column.clone()),
            });
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
                place: 0,
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

/// `column IN (SELECT column …)`: the column, the query and its column, where each row of the query's FROM says for itself
/// which values are in it, or each group of the value's.
fn membership_of(expr: &Expr) -> Option<(&Expr, &Query, &Expr)> {
    let Expr::InSubquery {
        expr,
        subquery,
        negated: false,
    } = expr
    else {
        return None;
    };
    let SetExpr::Select(select) = &*subquery.body else {
        return None;
    };
    let [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] =
        select.projection.as_slice()
    else {
        return None;
    };
    let GroupByExpr::Expressions(groups, _) = &select.group_by else {
        return None;
    };
    let by_value = groups.contains(value) || (groups.is_empty() && select.having.is_none());
    let whole = subquery.limit_clause.is_none() && subquery.fetch.is_none();
    let distinct_on = matches!(select.distinct, Some(Distinct::On(_)));
    (by_value && whole && !distinct_on).then_some((expr, subquery, value))
}

/// A subquery that does not see the columns of the FROM it is in.
fn is_apart(factor: &TableFactor) -> bool {
    matches!(factor, TableFactor::Derived { lateral: false, .. })
}

fn is_grouped(select: &Select) -> bool {
    !matches!(&select.group_by, GroupByExpr::Expressions(groups, _) if groups.is_empty())
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
        match &select.selection {
            // Of HAVING alone there is at most one row, and PostgreSQL may make it without a look at the table.
            _ if select.having.is_some() && !is_grouped(select) => close(&mut items),
            Some(condition) => hold(&mut items, condition),
            None => {}
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
        let (alias, place, relation) = match factor {
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
                let place = parse::offset(object.span().start) as usize;
                let alias = alias.or(found.map(|(_, name)| name));
                (alias.map(Cow::into_owned), place, relation)
            }
            _ => (None, 0, None),
        };
        items.push(Item {
            alias: alias.unwrap_or_default(),
            place,
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
        condition: &Held,
        around: &[Place],
    ) -> Option<Restriction> {
        match &condition.expr {
            Expr::BinaryOp {
                op: BinaryOperator::Or,
                ..
            } => {
                let whole = self.condition(scopes, at, condition);
                let whole = whole.map(Restriction::Condition);
                whole.or_else(|| self.alternatives(scopes, at, &condition.expr, around))
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
                (Some((one, _)), _) | (_, Some((one, _))) if one != at => None,
                _ => self
                    .condition(scopes, at, condition)
                    .map(Restriction::Condition),
            },
            Expr::InSubquery { .. } => {
                let (expr, query, value) = membership_of(&condition.expr)?;
                let local = self.local_membership(scopes, at, condition);
                let local = local.map(Restriction::Condition);
                local.or_else(|| self.membership(scopes, at, (expr, query, value), around))
            }
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
            all.filter_map(|one| self.restriction(scopes, at, &Held::new(one), around))
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
        (at, column): (Place, Cow<'_, str>),
        (other, equals): (Place, Cow<'_, str>),
        around: &[Place],
    ) -> Option<Restriction> {
        let mine = item(scopes, at)?.relation?;
        let theirs = item(scopes, other)?.relation?;
        if around.contains(&other) || around.len() >= DEPTH {
            return None;
        }
        let of = key_type(mine, &column)?;
        let alike = of == key_type(theirs, &equals)? && !of.1;
        if is_with(mine, &column, theirs, &equals) {
            let around = [around, &[at]].concat();
            let others = self.restrictions(scopes, other, &around);
            return (!others.is_empty()).then(|| Restriction::Meets {
                column: column.into_owned(),
                other: theirs.name.clone(),
                equals: equals.into_owned(),
                alike,
                others,
            });
        }
        alike.then(|| Restriction::Among {
            column: column.into_owned(),
            other: theirs.name.clone(),
            equals: equals.into_owned(),
        })
    }

    /// `column IN (SELECT column FROM …)`
    fn membership(
        &self,
        scopes: &Scopes<'a>,
        at: Place,
        (expr, query, value): (&Expr, &Query, &Expr),
        around: &[Place],
    ) -> Option<Restriction> {
        let mine = column(scopes, expr).filter(|(place, _)| *place == at)?;
        let inside = self.inside(scopes, query)?;
        let other = column(&inside, value).filter(|((level, _), _)| *level == scopes.len())?;
        self.meeting(&inside, mine, other, around)
    }

    /// The scopes inside a subquery.
    fn inside(&self, scopes: &Scopes<'a>, query: &Query) -> Option<Scopes<'a>> {
        let SetExpr::Select(select) = &*query.body else {
            return None;
        };
        let mut inside = scopes.clone();
        inside.push(self.items(select).into());
        Some(inside)
    }

    /// `key IN (SELECT key FROM …)` where each shard knows which of its own keys are in the subquery.
    fn local_membership(
        &self,
        scopes: &Scopes<'a>,
        at: Place,
        condition: &Held,
    ) -> Option<Condition> {
        let (expr, query, value) = membership_of(&condition.expr)?;
        let (_, mine) = column(scopes, expr).filter(|(place, _)| *place == at)?;
        let inside = self.inside(scopes, query)?;
        let place = (scopes.len(), 0);
        let (_, theirs) = column(&inside, value).filter(|(found, _)| *found == place)?;
        let SetExpr::Select(select) = &*query.body else {
            return None;
        };
        let (relation, other) = (item(scopes, at)?.relation?, item(&inside, place)?.relation?);
        let alone = inside.last()?.len() == 1 && other.sharding().is_some();
        let own = |expr: &Expr| column(&inside, expr).is_some_and(|(found, _)| found == place);
        let immutable = |name: &ObjectName| self.is_immutable(name);
        let plain = |expr: &Expr| is_plain(expr, &own, &immutable);
        let conditions = select.selection.iter().chain(&select.having);
        (alone && is_with(relation, &mine, other, &theirs) && conditions.into_iter().all(plain))
            .then(|| self.cut(scopes, at, condition))?
    }

    /// A condition on one item alone, that says the same on every server and at any moment.
    fn condition(&self, scopes: &Scopes<'a>, at: Place, condition: &Held) -> Option<Condition> {
        let immutable = |name: &ObjectName| self.is_immutable(name);
        let own = |expr: &Expr| column(scopes, expr).is_some_and(|(place, _)| place == at);
        is_plain(&condition.expr, &own, &immutable).then(|| self.cut(scopes, at, condition))?
    }

    /// Whether every function of that name computes the same from the same, anywhere and always.
    fn is_immutable(&self, name: &ObjectName) -> bool {
        let Ok((schema, name)) = function_name(name) else {
            return false;
        };
        let (relations, path) = (self.context.relations, self.context.search_path);
        let mut functions = relations
            .functions(path, schema.as_deref(), &name)
            .peekable();
        let known = functions.peek().is_some();
        known
            && functions.all(|function| {
                *function.schema == *"pg_catalog" && function.volatility == Volatility::Immutable
            })
    }

    /// A condition as the tokens of the text that it is.
    fn cut(&self, scopes: &Scopes<'a>, at: Place, condition: &Held) -> Option<Condition> {
        let tokens = condition
            .tokens
            .get_or_init(|| self.text.locate(&condition.expr));
        let tokens = tokens.clone()?;
        let alias = &item(scopes, at)?.alias;
        let all = self.text.tokens();
        let qualifies = |number: &usize| {
            let name = all
                .get(*number)
                .and_then(|token| crate::sql::name(token, self.text.sql()));
            let next = all.get(*number + 1).map(|token| token.kind);
            name.as_deref() == Some(alias) && next == Some(TokenKind::Punct(b'.'))
        };
        let qualifiers = tokens
            .clone()
            .filter(qualifies)
            .flat_map(|at| [at, at + 1])
            .collect();
        Some(Condition { tokens, qualifiers })
    }
}

/// The type of a column, and whether different values of it may be equal.
fn key_type(relation: &Relation, name: &str) -> Option<(u32, bool)> {
    let column = relation.columns.get(relation.column(name)?)?;
    let ambiguous = column.collation == Collation::Nondeterministic;
    Some((column.type_oid, ambiguous))
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
