//! One relation's part of a workspace, and the SQL that gets it from a shard.
//!
//! Conditions are the client's own text, token by token: a plan keeps the numbers of tokens, and whoever fetches has the text
//! at hand.

use std::fmt::Write;
use std::sync::Arc;

use postgres_protocol::escape::escape_identifier;
use switchyard_schema::TableName;

use super::condense::{Condensed, Condensing};
use super::text::{Condition, Text};
use crate::plan::given::{Given, GivenText};
use crate::plan::merge;
use crate::plan::route::Target;

/// One relation to be fetched.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// The relation.
    pub relation: TableName,
    /// Without what inherits from it.
    pub only: bool,
    /// The columns that are needed, in the relation's order; never none.
    pub columns: Vec<String>,
    /// The shards whose rows are needed.
    pub target: Target,
    /// Every shard has all of it, or the first has: it can be read where it is, if the workspace is on that shard and the
    /// session has nothing uncommitted.
    pub home: Option<Home>,
    /// What the rows that matter satisfy, for each mention of the relation: a row is needed if it may matter to one of them. An
    /// empty list is satisfied by all rows.
    pub mentions: Vec<Vec<Restriction>>,
    /// The primary key, if the statement may rely on it: PostgreSQL lets the other columns of a group go with it.
    pub primary_key: Vec<String>,
    /// Columns that subqueries look for rows by.
    pub lookups: Vec<String>,
    /// It is no relation: each shard computes its rows.
    pub(in crate::plan) computed: Option<Computed>,
    /// Whether one row comes for all that are alike in what the statement looks at besides counting them.
    pub(super) condensed: Condensing,
}

/// How shards compute rows.
#[derive(Debug, Clone)]
pub(in crate::plan) struct Computed {
    pub(in crate::plan) text: merge::Text,
    /// Rows that are given with the text, in the parameters from this number on.
    given: Vec<Given>,
    first: usize,
    /// Conditions of the client's text that those satisfy.
    settled: Arc<[Condition]>,
}

impl Computed {
    fn query(&self, text: &Text<'_>) -> Vec<u8> {
        if self.given.is_empty() {
            return self.text.write(text.sql(), text.tokens());
        }
        let text = Text::new(text.sql()).without(&self.settled);
        let query = self.text.write(text.sql(), text.tokens());
        let given: Vec<&Given> = self.given.iter().collect();
        // What rows cannot be given to is nothing to run.
        GivenText::new(&query, &given, self.first)
            .map(|given| given.text)
            .unwrap_or_default()
    }
}

/// Where all rows of a relation that is not sharded are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// On every shard.
    Everywhere,
    /// On the first shard.
    First,
}

/// Something that rows of a relation must satisfy to matter.
#[derive(Debug, Clone)]
pub enum Restriction {
    /// A condition of the text.
    Condition(Condition),
    /// Everything in one of the lists.
    Either(Vec<Vec<Restriction>>),
    /// Its column equals one of another relation's, whose matching rows are on the same shard.
    Meets {
        /// The column.
        column: String,
        /// The other relation.
        other: TableName,
        /// The other relation's column.
        equals: String,
        /// Both columns are of one type, so that values of the one can be compared as the other's.
        alike: bool,
        /// What the other relation's rows must satisfy.
        others: Vec<Restriction>,
    },
    /// Its column equals one of another relation's, which may have been fetched already.
    Among {
        /// The column.
        column: String,
        /// The other relation.
        other: TableName,
        /// The other relation's column, of the same type.
        equals: String,
    },
}

/// What the rows of one mention must satisfy, for people.
pub(in crate::plan) fn listed(restrictions: &[Restriction], text: &Text<'_>) -> String {
    let listed = restrictions.iter();
    let listed: Vec<String> = listed.map(|restriction| shown(restriction, text)).collect();
    listed.join(" AND ")
}

fn shown(restriction: &Restriction, text: &Text<'_>) -> String {
    match restriction {
        Restriction::Condition(condition) => text.shown(condition),
        Restriction::Either(lists) => {
            let lists: Vec<String> = lists.iter().map(|list| listed(list, text)).collect();
            format!("({})", lists.join(" OR "))
        }
        Restriction::Meets {
            column,
            other,
            equals,
            others,
            ..
        } => {
            let others = listed(others, text);
            format!("{column} IN (SELECT {equals} FROM {other} WHERE {others})")
        }
        Restriction::Among {
            column,
            other,
            equals,
        } => format!("{column} IN (fetched {other}.{equals}, if few)"),
    }
}

/// The values of a column of a relation that has been fetched, as the text of an array; `None` if they are not known or too many.
pub type Keys<'a> = dyn Fn(&TableName, &str) -> Option<String> + 'a;

impl Fetch {
    /// Rows that each shard computes by this text.
    pub(in crate::plan) fn computed(
        name: TableName,
        columns: Vec<String>,
        target: Target,
        text: merge::Text,
    ) -> Fetch {
        Fetch {
            relation: name,
            only: false,
            columns,
            target,
            home: None,
            mentions: Vec::new(),
            primary_key: Vec::new(),
            lookups: Vec::new(),
            computed: Some(Computed {
                text,
                given: Vec::new(),
                first: 1,
                settled: Arc::default(),
            }),
            condensed: Condensing::No,
        }
    }

    /// The same with one row for all that are alike, if it can be.
    pub fn condense(&self) -> Option<Fetch> {
        let Condensing::Possible(condensed) = &self.condensed else {
            return None;
        };
        let parts = condensed.parts.iter().map(|(name, _)| name);
        Some(Fetch {
            columns: condensed.by.iter().chain(parts).cloned().collect(),
            condensed: Condensing::Done(Arc::clone(condensed)),
            ..self.clone()
        })
    }

    /// What it is condensed to, if it is.
    pub(super) fn condensed_to(&self) -> Option<&Condensed> {
        match &self.condensed {
            Condensing::Done(condensed) => Some(condensed),
            Condensing::No | Condensing::Possible(_) => None,
        }
    }

    /// What it can be condensed by: the columns of which rows come, and what is made of them.
    pub(in crate::plan) fn condensable(&self) -> Option<(&[String], Vec<&str>)> {
        let Condensing::Possible(condensed) = &self.condensed else {
            return None;
        };
        let parts = condensed.parts.iter().map(|(_, made)| made.as_str());
        Some((&condensed.by, parts.collect()))
    }

    /// The same of rows that are given with the text, in the parameters from this number on, and satisfy these conditions.
    pub fn give(&mut self, given: Vec<Given>, first: usize, settled: Arc<[Condition]>) {
        if let Some(computed) = &mut self.computed {
            (computed.given, computed.first, computed.settled) = (given, first, settled);
        }
    }

    /// Whether it is no relation, but rows that each shard computes.
    pub fn is_computed(&self) -> bool {
        self.computed.is_some()
    }

    /// The query for the rows that a shard has.
    pub fn query(&self, text: &Text<'_>, keys: &Keys<'_>) -> String {
        if let Some(computed) = &self.computed {
            let query = computed.query(text);
            return String::from_utf8_lossy(&query).into_owned();
        }
        let Some(condensed) = self.condensed_to() else {
            return self.query_of(&names(&self.columns), text, keys);
        };
        let (columns, groups) = condensed.columns();
        let query = self.query_of(&columns, text, keys);
        format!("{query} GROUP BY {groups}")
    }

    /// The same for rows that are given.
    pub fn query_given(&self, given: &Given, text: &Text<'_>, keys: &Keys<'_>) -> String {
        let columns: Vec<String> = given
            .columns
            .iter()
            .map(|column| column.name.clone())
            .collect();
        self.query_of(&names(&columns), text, keys)
    }

    fn query_of(&self, columns: &str, text: &Text<'_>, keys: &Keys<'_>) -> String {
        let only = if self.only { "ONLY " } else { "" };
        let mut query = format!("SELECT {columns} FROM {only}{}", qualified(&self.relation));
        let mentions: Vec<String> = self
            .mentions
            .iter()
            .map(|mention| all_of(mention, text, keys))
            .collect();
        let restricted = !mentions.is_empty() && mentions.iter().all(|mention| !mention.is_empty());
        if restricted {
            query.push_str(" WHERE ");
            query.push_str(&mentions.join(" OR "));
        }
        query
    }

    /// The statement that makes the table for it in a workspace.
    pub fn creation(&self, text: &Text<'_>) -> String {
        let table = escape_identifier(&self.relation.name);
        let columns = names(&self.columns);
        let relation = qualified(&self.relation);
        let query = match (&self.computed, self.condensed_to()) {
            (Some(_), _) => self.query(text, &|_, _| None),
            (None, None) => format!("SELECT {columns} FROM {relation}"),
            (None, Some(condensed)) => {
                let (made, groups) = condensed.columns();
                format!("SELECT {made} FROM {relation} GROUP BY {groups}")
            }
        };
        format!(
            "CREATE TEMPORARY TABLE pg_temp.{table} ({columns}) ON COMMIT DROP AS {query} WITH NO DATA"
        )
    }

    /// The same without looking at other relations' rows on the shard; `None` if that is what it is.
    pub fn alone(&self) -> Option<Fetch> {
        let mut looks = self.mentions.iter().flatten();
        looks.any(looks_elsewhere).then(|| Fetch {
            mentions: self.mentions.iter().map(|mention| alone(mention)).collect(),
            ..self.clone()
        })
    }

    /// Whether any row may be left out.
    pub fn is_restricted(&self) -> bool {
        !self.mentions.is_empty() && self.mentions.iter().all(|mention| !mention.is_empty())
    }

    /// The relations whose keys could restrict it.
    pub fn awaits(&self) -> impl Iterator<Item = (&TableName, &str)> {
        self.mentions.iter().flat_map(|mention| awaited(mention))
    }
}

fn looks_elsewhere(restriction: &Restriction) -> bool {
    match restriction {
        Restriction::Meets { .. } => true,
        Restriction::Either(lists) => lists.iter().flatten().any(looks_elsewhere),
        Restriction::Condition(_) | Restriction::Among { .. } => false,
    }
}

/// Restrictions that need no other relation's rows, unless they have been fetched.
fn alone(restrictions: &[Restriction]) -> Vec<Restriction> {
    let restrictions = restrictions.iter();
    let own = restrictions.filter_map(|restriction| match restriction {
        Restriction::Meets {
            column,
            other,
            equals,
            alike,
            ..
        } => alike.then(|| Restriction::Among {
            column: column.clone(),
            other: other.clone(),
            equals: equals.clone(),
        }),
        Restriction::Either(lists) => Some(Restriction::Either(
            lists.iter().map(|list| alone(list)).collect(),
        )),
        Restriction::Condition(_) | Restriction::Among { .. } => Some(restriction.clone()),
    });
    own.collect()
}

fn awaited(restrictions: &[Restriction]) -> Vec<(&TableName, &str)> {
    restrictions
        .iter()
        .flat_map(|restriction| match restriction {
            Restriction::Condition(_) => Vec::new(),
            Restriction::Either(lists) => lists.iter().flat_map(|list| awaited(list)).collect(),
            Restriction::Meets {
                other,
                equals,
                alike,
                others,
                ..
            } => {
                let itself = alike.then_some((other, equals.as_str()));
                itself.into_iter().chain(awaited(others)).collect()
            }
            Restriction::Among { other, equals, .. } => vec![(other, equals.as_str())],
        })
        .collect()
}

/// Everything in a list must hold; empty if nothing in it can be said.
fn all_of(restrictions: &[Restriction], text: &Text<'_>, keys: &Keys<'_>) -> String {
    let said = restrictions
        .iter()
        .filter_map(|restriction| said(restriction, text, keys));
    let said: Vec<String> = said.collect();
    match said.is_empty() {
        true => String::new(),
        false => format!("({})", said.join(" AND ")),
    }
}

fn said(restriction: &Restriction, text: &Text<'_>, keys: &Keys<'_>) -> Option<String> {
    match restriction {
        Restriction::Condition(condition) => {
            let condition = text.condition(condition);
            Some(format!("({condition})"))
        }
        Restriction::Either(lists) => {
            let lists: Vec<String> = lists.iter().map(|list| all_of(list, text, keys)).collect();
            let says = lists.iter().all(|list| !list.is_empty());
            says.then(|| format!("({})", lists.join(" OR ")))
        }
        Restriction::Meets {
            column,
            other,
            equals,
            alike,
            others,
        } => {
            let column = escape_identifier(column);
            // What has been fetched is what matters of it: nothing needs to be found out again.
            if let Some(values) = alike.then(|| keys(other, equals)).flatten() {
                return Some(format!("{column} = ANY ({values})"));
            }
            let others = all_of(others, text, keys);
            if others.is_empty() {
                return None;
            }
            let equals = escape_identifier(equals);
            let other = qualified(other);
            Some(format!(
                "{column} IN (SELECT {equals} FROM {other} WHERE {others})"
            ))
        }
        Restriction::Among {
            column,
            other,
            equals,
        } => {
            let values = keys(other, equals)?;
            Some(format!("{} = ANY ({values})", escape_identifier(column)))
        }
    }
}

/// A list of columns.
pub fn names(columns: &[String]) -> String {
    let mut list = String::new();
    for (at, column) in columns.iter().enumerate() {
        let comma = if at > 0 { ", " } else { "" };
        // Writing to a string does not fail.
        let _ = write!(list, "{comma}{}", escape_identifier(column));
    }
    list
}

/// A relation's name with its schema, as SQL.
pub fn qualified(name: &TableName) -> String {
    let (schema, name) = (
        escape_identifier(&name.schema),
        escape_identifier(&name.name),
    );
    format!("{schema}.{name}")
}
