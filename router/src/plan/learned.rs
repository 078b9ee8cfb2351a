//! What executions of a plan that needs a workspace have found out, and the next ones need not ask again.
//!
//! Invariant: it changes how a statement is answered, not its answer. A plan serves texts with other literals, too, on which types may
//! depend: whoever relies on what is known here compares it with what PostgreSQL says at the time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use switchyard_schema::TableName;

use super::bind_join::Bound;
use super::given::{Given, GivenColumn};
use super::workspace::Fetch;
use crate::relations::SqlType;

/// See [`Known`].
#[derive(Debug, Default)]
pub struct Learned(Mutex<Known>);

/// What is known of a plan.
#[derive(Debug, Default)]
pub struct Known {
    /// What PostgreSQL expects of its fetches, by their numbers; nothing before it was asked.
    pub estimates: Vec<Estimate>,
    /// What PostgreSQL has said of the statement's result, on the tables as they are.
    pub description: Option<Bytes>,
    /// The joins that have been tried: how they are executed, or that they cannot be.
    pub tried: Vec<(usize, Option<Arc<Bound>>)>,
    /// The joins whose rows were too many: they are not tried again.
    pub given_up: Vec<usize>,
    /// What is known of the rows that shards make of a part of the statement.
    pub part: Option<Part>,
}

/// What PostgreSQL expects of a fetch.
#[derive(Debug, Clone)]
pub struct Estimate {
    /// How many rows there are on all shards, about, if nothing restricts it that was fetched before.
    pub rows: f64,
    /// What they cost a shard, in PostgreSQL's units, of which reading a page in order is one.
    pub cost: f64,
    /// The fetch as it had better be made, if that is without looking at other relations' rows on the shard.
    pub alone: Option<Arc<Fetch>>,
    /// The fetch as it is made for a workspace, if one row for all that are alike is far fewer.
    pub condensed: Option<Arc<Fetch>>,
}

/// The order to make these fetches in, by their numbers. Each restricts those that follow by its keys: they then cost no more than a look
/// for each, about. Next is always what makes it and all that is left the cheapest.
pub fn in_order(estimates: &[Estimate], fetches: impl Iterator<Item = usize>) -> Vec<usize> {
    let of = |number: usize| {
        let known = estimates.get(number);
        known.map_or((f64::MAX, f64::MAX), |own| (own.rows, own.cost))
    };
    let mut left: Vec<usize> = fetches.collect();
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let with_the_rest = |number: usize| {
            let (rows, cost) = of(number);
            let others = left.iter().filter(|other| **other != number);
            cost + others.map(|other| of(*other).1.min(rows)).sum::<f64>()
        };
        let totals = left.iter().map(|number| with_the_rest(*number));
        let next = totals
            .enumerate()
            .min_by(|(_, a), (_, b)| a.total_cmp(b))
            .map_or(0, |(at, _)| at);
        order.push(left.remove(next));
    }
    order
}

/// What is known of the rows that shards make of a part of a statement.
#[derive(Debug, Clone)]
pub enum Part {
    /// Rows of their types cannot be put together.
    Apart,
    /// They are brought to a table.
    Rows(Arc<Rows>),
}

/// The rows that shards make of a part of a statement.
#[derive(Debug)]
pub struct Rows {
    /// The modifiers of their columns' types, as planned.
    pub modifiers: Vec<i32>,
    /// What has to be done to a table of such rows that was made of their query: actions of `ALTER TABLE`.
    pub alterations: String,
    /// How they are given by parameters, if they can be, and are few.
    pub given: Option<Given>,
}

impl Rows {
    /// Of rows with columns of any types, as [`Rows::read`] of a result with these names; those that cannot be given as they are are given as texts.
    pub fn read_all(names: &[String], types: &[(u32, i32)], lines: &[String]) -> Option<Given> {
        let column = |((name, (type_oid, modifier)), line): ((&String, &(u32, i32)), &String)| {
            let mut parts = line.split('\t');
            let (own, suffix, whole) = (parts.next()?, parts.next()?, parts.nth(1)?);
            let as_text = own.is_empty();
            let (own, suffix) = if as_text { (whole, "") } else { (own, suffix) };
            Some(GivenColumn {
                name: name.clone(),
                type_oid: *type_oid,
                modifier: *modifier,
                sql_type: SqlType {
                    name: own.into(),
                    suffix: suffix.into(),
                },
                as_text,
            })
        };
        let whole = names.len() == lines.len() && types.len() == lines.len();
        let columns = names.iter().zip(types).zip(lines).map(column);
        let columns: Option<Vec<GivenColumn>> = columns.collect();
        columns.filter(|_| whole).map(|columns| Given {
            relation: TableName::new("", "rows"),
            columns: columns.into(),
        })
    }

    /// Of rows with columns of these types (OID and modifier), of which `TEMPORARY_COLUMNS` of [`crate::relations::introspect`] has
    /// returned these lines; `None` if it has not returned what it should.
    pub fn read(
        (relation, names): (&TableName, &[String]),
        types: &[(u32, i32)],
        lines: &[String],
    ) -> Option<Rows> {
        let (mut columns, mut alterations) = (Vec::new(), Vec::new());
        for ((name, (type_oid, modifier)), line) in names.iter().zip(types).zip(lines) {
            let mut parts = line.split('\t');
            let (sql_type, suffix) = (parts.next()?, parts.next()?);
            let alteration = parts.next()?;
            if !alteration.is_empty() {
                alterations.push(alteration);
            }
            let column = GivenColumn {
                name: name.clone(),
                type_oid: *type_oid,
                modifier: *modifier,
                sql_type: SqlType {
                    name: sql_type.into(),
                    suffix: suffix.into(),
                },
                as_text: false,
            };
            columns.push((!sql_type.is_empty()).then_some(column));
        }
        let whole = names.len() == lines.len() && types.len() == lines.len();
        let columns: Option<Vec<GivenColumn>> = columns.into_iter().collect();
        let given = columns.map(|columns| Given {
            relation: relation.clone(),
            columns: columns.into(),
        });
        whole.then(|| Rows {
            modifiers: types.iter().map(|(_, modifier)| *modifier).collect(),
            alterations: alterations.join(", "),
            given,
        })
    }
}

impl Learned {
    /// For a moment.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a result's description; whether it is the first.
    pub fn learn(&self, description: &Bytes) -> bool {
        let mut known = self.known();
        let first = known.description.is_none();
        known.description.get_or_insert_with(|| description.clone());
        first
    }

    /// Whether rows of a part cannot be put together.
    pub fn is_apart(&self) -> bool {
        matches!(self.known().part, Some(Part::Apart))
    }

    /// What PostgreSQL expects of the fetches.
    pub fn estimates(&self) -> Vec<Estimate> {
        self.known().estimates.clone()
    }

    /// How rows of a part are given by parameters, if they are.
    pub fn given_rows(&self) -> Option<Arc<Rows>> {
        match &self.known().part {
            Some(Part::Rows(rows)) if rows.given.is_some() => Some(Arc::clone(rows)),
            _ => None,
        }
    }
}

impl Known {
    /// Whether a join is not to be tried: it cannot be executed, or its rows were too many.
    pub fn is_unfit(&self, join: usize) -> bool {
        matches!(self.tried(join), Some(None)) || self.given_up.contains(&join)
    }

    /// Whether and how a join can be executed, if that is known.
    pub fn tried(&self, join: usize) -> Option<Option<Arc<Bound>>> {
        let found = self.tried.iter().find(|(tried, _)| *tried == join);
        found.map(|(_, bound)| bound.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::{Estimate, in_order};

    #[test]
    fn what_restricts_others_at_little_cost_comes_first() {
        let estimate = |rows: f64, cost: f64| Estimate {
            rows,
            cost,
            alone: None,
            condensed: None,
        };
        // As many rows of a small table and of a large one.
        let (small, large) = (estimate(5558.0, 2850.0), estimate(5536.0, 10_585.0));
        let few = estimate(25.0, 1.2);
        assert_eq!(in_order(&[large.clone(), small, few], 0..3), [2, 1, 0]);
        // Few rows of a large table restrict many of a small one.
        let (many, some) = (estimate(10_000.0, 500.0), estimate(10.0, 1000.0));
        assert_eq!(in_order(&[many, some], 0..2), [1, 0]);
        assert_eq!(in_order(&[], 3..5), [3, 4]);
    }
}
