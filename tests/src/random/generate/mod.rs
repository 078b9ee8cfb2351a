//! Statements made at random, typed, so that PostgreSQL accepts nearly all, and determined: their answer does not depend on
//! the order in which a server meets the rows. They are biased to what a router can get wrong.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is special about a few types is not about the others"
)]

mod aggregate;
mod condition;
mod expression;
mod from;
mod layers;
mod script;
mod select;
mod writes;

pub use script::{Step, script};
pub use writes::writes;

use super::chance::Chance;
use super::query::{Body, By, Cte, Distinct, Expr, Group, Limit, Order, Part, Query, Select};
use super::types::Type;

/// A statement of a seed, by its number.
pub fn statement(seed: u64, number: u64, views: bool) -> Query {
    let mut generator = Generator {
        chance: Chance::of(seed, number.wrapping_add(1_000)),
        scopes: Vec::new(),
        named: Vec::new(),
        names: 0,
        subqueries: 0,
        pinned: false,
        bare: 0,
        views,
    };
    generator.statement()
}

/// What makes a statement.
struct Generator {
    chance: Chance,
    /// What can be referred to, the innermost last.
    scopes: Vec<Scope>,
    /// The queries of WITH that can be seen.
    named: Vec<Named>,
    /// How many names have been given.
    names: usize,
    /// How many more subqueries there may be.
    subqueries: usize,
    /// Whether shard keys are restricted to one value all over the statement, or nearly.
    pinned: bool,
    /// Above zero: no subqueries, parameters, aggregates or columns from outside, as befits what is written twice or
    /// belongs to an aggregate.
    bare: usize,
    /// Whether there are views and functions that read tables.
    views: bool,
}

/// What can be referred to at one level.
#[derive(Default)]
struct Scope {
    atoms: Vec<Atom>,
    /// How many relations they are of.
    relations: usize,
    /// What aggregates are made of, if the level is grouped.
    grouped: Option<Vec<Atom>>,
}

/// A column, or an expression that stands for one.
#[derive(Clone)]
struct Atom {
    expr: Expr,
    /// Whether it is a column as it is.
    column: bool,
    /// Whether it is a table's shard key.
    key: bool,
    /// Whether it tells the rows of its relation apart.
    id: bool,
}

/// A query of WITH.
#[derive(Clone)]
struct Named {
    name: String,
    columns: Vec<(String, Type)>,
}

const DIRECTIONS: [(usize, &str); 6] = [
    (6, ""),
    (3, " DESC"),
    (1, " NULLS FIRST"),
    (1, " DESC NULLS LAST"),
    (1, " ASC NULLS LAST"),
    (1, " DESC NULLS FIRST"),
];

impl Generator {
    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    fn statement(&mut self) -> Query {
        match self.chance.below(100) {
            0..2 => {
                let types = self.types(2);
                return self.values_query(&types);
            }
            2..36 => return self.merged(),
            36..52 => return self.looked_up(),
            _ => {}
        }
        let seen = self.named.len();
        // Small statements are those that a router does not refuse, or shortens; great ones try everything at once.
        let large = self.chance.percent(45);
        self.subqueries = if large { 4 } else { self.chance.below(2) };
        self.pinned = self.chance.percent(22);
        let (with, recursive) = if self.chance.percent(if large { 25 } else { 5 }) {
            self.with()
        } else {
            (Vec::new(), false)
        };
        let mut query = self.query(None, true);
        if self.chance.percent(10) {
            all_columns(&mut query);
        }
        query.with = with;
        query.recursive = recursive;
        self.named.truncate(seen);
        query
    }

    /// Some types whose equal values look the same.
    fn types(&mut self, most: usize) -> Vec<Type> {
        let count = self.chance.between(1, most);
        (0..count)
            .map(|_| *self.chance.pick(&Type::PLAIN))
            .collect()
    }

    /// A query of these columns' types, or any.
    fn query(&mut self, types: Option<&[Type]>, top: bool) -> Query {
        if self
            .chance
            .percent(if self.subqueries > 1 { 16 } else { 6 })
        {
            return self.set_operation(types, top);
        }
        let (select, extra) = self.select(types);
        let distinct = select.distinct.clone();
        let mut query = Query::of(Body::Select(Box::new(select)));
        self.order(&mut query, extra, &distinct, top);
        query
    }

    fn set_operation(&mut self, types: Option<&[Type]>, top: bool) -> Query {
        let types = match types {
            Some(types) => types.to_vec(),
            None => self.types(3),
        };
        let operator = self.chance.weighted(&[
            (4, "UNION ALL"),
            (3, "UNION"),
            (2, "INTERSECT"),
            (1, "INTERSECT ALL"),
            (2, "EXCEPT"),
            (1, "EXCEPT ALL"),
        ]);
        let mut operands = [0, 1].map(|_| {
            if self.chance.percent(8) {
                return Box::new(self.values_query(&types));
            }
            Box::new(self.query(Some(&types), false))
        });
        let [left, right] = &mut operands;
        // ORDER BY of a set operation knows no table, so its operands keep theirs within parentheses.
        let (left, right) = (left.clone(), right.clone());
        let mut query = Query::of(Body::Set {
            operator,
            left,
            right,
        });
        self.order(&mut query, Vec::new(), &Distinct::All, top);
        query
    }

    fn values_query(&mut self, types: &[Type]) -> Query {
        let count = self.chance.between(1, 3);
        let rows = (0..count)
            .map(|_| types.iter().map(|ty| self.constant(*ty)).collect())
            .collect();
        Query::of(Body::Values(rows))
    }

    /// Gives a query its order and limit: a limit only where the order leaves nothing open, or where ties are kept.
    fn order(&mut self, query: &mut Query, extra: Vec<Order>, distinct: &Distinct, top: bool) {
        let first = match distinct {
            Distinct::On(count) => *count,
            Distinct::No | Distinct::All => 0,
        };
        if first == 0 && self.chance.percent(if top { 50 } else { 80 }) {
            return;
        }
        let mut ordinals: Vec<usize> = (1..=query.width()).collect();
        self.shuffle(&mut ordinals, first);
        let ordinals = ordinals.into_iter().map(By::Ordinal);
        let ties = first == 0 && self.chance.percent(10);
        let unique = extra.iter().any(|order| matches!(order.by, By::Unique(_)));
        query.order = if first == 0 { extra } else { Vec::new() };
        if !unique {
            let kept = if ties { 1 } else { usize::MAX };
            let rest: Vec<Order> = ordinals
                .take(kept)
                .map(|by| Order {
                    by,
                    direction: self.chance.weighted(&DIRECTIONS),
                })
                .collect();
            query.order.extend(rest);
        }
        if ties {
            let count = Some(Part::Text(self.chance.between(1, 6).to_string()));
            let offset = None;
            query.limit = Some(Limit {
                count,
                offset,
                ties,
            });
        } else if self.chance.percent(if top { 45 } else { 90 }) {
            query.limit = Some(self.limit());
        }
    }

    fn limit(&mut self) -> Limit {
        let mut number = |share: usize, most: usize| {
            let number = self.chance.between(0, most);
            let part = match self.chance.below(12) {
                0 => Part::Value(Some(number.to_string()), "::int8"),
                1 => Part::Value(None, "::int8"),
                2 => Part::Text(format!("({number} + 1)")),
                _ => Part::Text(number.to_string()),
            };
            self.chance.percent(share).then_some(part)
        };
        Limit {
            count: number(90, 12),
            offset: number(35, 6),
            ties: false,
        }
    }

    /// Any order; the first so many stay before the others.
    fn shuffle(&mut self, numbers: &mut [usize], first: usize) {
        let (front, back) = numbers.split_at_mut(first);
        for part in [front, back] {
            for index in (1..part.len()).rev() {
                part.swap(index, self.chance.below(index + 1));
            }
        }
    }

    fn with(&mut self) -> (Vec<Cte>, bool) {
        let mut with = Vec::new();
        let mut recursive = false;
        for _ in 0..self.chance.between(1, 2) {
            let name = self.name("w");
            let hint =
                self.chance
                    .weighted(&[(5, ""), (2, "MATERIALIZED "), (1, "NOT MATERIALIZED ")]);
            let query = if self.chance.percent(20) {
                recursive = true;
                self.recursive(&name)
            } else {
                self.derived(None)
            };
            let columns = columns(&query);
            self.named.push(Named {
                name: name.clone(),
                columns,
            });
            with.push(Cte { name, hint, query });
        }
        (with, recursive)
    }

    /// `SELECT 1, x FROM t UNION ALL SELECT n + 1, x FROM t JOIN r ON …`, a few steps deep.
    fn recursive(&mut self, name: &str) -> Query {
        let start = self.derived(Some(&[Type::Int4, Type::Int8]));
        let own = Named {
            name: name.to_owned(),
            columns: columns(&start),
        };
        let step = self.recursive_step(own);
        let operator = if self.chance.percent(50) {
            "UNION"
        } else {
            "UNION ALL"
        };
        Query::of(Body::Set {
            operator,
            left: Box::new(bounded(start)),
            right: Box::new(Query::of(Body::Select(Box::new(step)))),
        })
    }
}

/// The first column of the start of a recursion is 1, so that it ends.
fn bounded(mut start: Query) -> Query {
    match &mut start.body {
        Body::Select(select) => {
            if let Some(item) = select.items.first_mut() {
                item.expr = Expr::text(Type::Int4, "1");
            }
            // DISTINCT, groups and so on may stay: a constant disturbs none of them.
            start
        }
        Body::Set { .. } | Body::Values(_) => start,
    }
}

/// The names and types of a query's columns.
fn columns(query: &Query) -> Vec<(String, Type)> {
    match &query.body {
        Body::Select(select) => select
            .items
            .iter()
            .map(|item| (item.alias.clone(), item.expr.ty))
            .collect(),
        Body::Set { left, .. } => columns(left),
        Body::Values(rows) => rows
            .iter()
            .take(1)
            .flatten()
            .enumerate()
            .map(|(index, expr)| (format!("column{}", index + 1), expr.ty))
            .collect(),
    }
}

/// Selects `*`, where neither groups nor the order stand in the way.
fn all_columns(query: &mut Query) {
    let free = query.order.is_empty() && query.limit.is_none();
    if let Body::Select(select) = &mut query.body
        && free
        && select.group == Group::None
        && select.having.is_none()
        && !select.from.is_empty()
    {
        select.distinct = Distinct::No;
        select.items.truncate(1);
        for item in &mut select.items {
            item.expr = Expr::text(Type::Bool, "*");
            item.alias.clear();
        }
    }
}

/// A SELECT of nothing yet.
fn empty_select() -> Select {
    Select {
        distinct: Distinct::No,
        items: Vec::new(),
        from: Vec::new(),
        filter: None,
        group: Group::None,
        having: None,
    }
}
