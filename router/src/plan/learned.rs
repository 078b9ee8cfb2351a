//! What executions of a plan that needs a workspace have found out, and the next ones need not ask again.
//!
//! Invariant: it changes how a statement is answered, not its answer. A plan serves texts with other literals, too, on which types may
//! depend: whoever relies on what is known here compares it with what PostgreSQL says at the time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

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
    /// What PostgreSQL expects of its fetches.
    pub estimates: Estimates,
    /// What PostgreSQL has said of the statement's result, on the tables as they are.
    pub description: Option<Bytes>,
    /// The joins that have been tried: how they are executed, or that they cannot be.
    pub tried: Vec<(usize, Option<Arc<Bound>>)>,
    /// What is known of the rows that shards make of a part of the statement.
    pub part: Option<Part>,
}

/// What PostgreSQL expects of the fetches of a plan, by their numbers; nothing before it was asked.
#[derive(Debug, Clone, Default)]
pub struct Estimates {
    /// How many rows each has, about, if nothing restricts it that was fetched before.
    pub rows: Vec<f64>,
    /// Each as it had better be made, if that is without looking at other relations' rows on the shard.
    pub alone: Vec<Option<Arc<Fetch>>>,
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
    /// Of rows with columns of these types (OID and modifier), of which `TEMPORARY_COLUMNS` of [`crate::relations::introspect`] has
    /// returned these lines; `None` if it has not returned what it should.
    pub fn read(rows: &Fetch, types: &[(u32, i32)], lines: &[String]) -> Option<Rows> {
        let (mut columns, mut alterations) = (Vec::new(), Vec::new());
        for ((name, (type_oid, modifier)), line) in rows.columns.iter().zip(types).zip(lines) {
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
            };
            columns.push((!sql_type.is_empty()).then_some(column));
        }
        let whole = rows.columns.len() == lines.len() && types.len() == lines.len();
        let columns: Option<Vec<GivenColumn>> = columns.into_iter().collect();
        let given = columns.map(|columns| Given {
            relation: rows.relation.clone(),
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
    pub fn estimates(&self) -> Estimates {
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
    /// Rows of a join were too many: it is not tried again.
    pub fn give_up(&mut self, join: usize) {
        self.tried.retain(|(tried, _)| *tried != join);
        self.tried.push((join, None));
    }

    /// Whether and how a join can be executed, if that is known.
    pub fn tried(&self, join: usize) -> Option<Option<Arc<Bound>>> {
        let found = self.tried.iter().find(|(tried, _)| *tried == join);
        found.map(|(_, bound)| bound.clone())
    }
}
