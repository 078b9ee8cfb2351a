//! Statements of which the shards do a part and PostgreSQL does the rest, on the rows of that part.
//!
//! The shards group and aggregate, or order and limit; what only PostgreSQL can do exactly (expressions, HAVING, windows,
//! collations) is done in one place, on as many rows as there are groups or as the limit lets through. The types of
//! those rows are PostgreSQL's to say: they decide at the time whether partial results can be combined, see [`Finish::text`].

use std::fmt::{self, Write};

use sqlparser::ast::{Query, Select};
use switchyard_schema::TableName;

use super::clauses::Clauses;
use super::columns::Columns;
use super::groups;
use super::text::{self, Text};
use super::{Ordering, Shape, all_tokens};
use crate::plan::analyse::root::{Root, RootKey};
use crate::plan::route::Target;
use crate::plan::workspace::Fetch;
use crate::sql::Token;

/// What the shards' rows are called where they are finished.
const ROWS: &str = "switchyard rows";

/// How rows that the shards have made are finished by PostgreSQL.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The rows.
    pub rows: Fetch,
    columns: Vec<Column>,
    /// Rows that are equal in so many columns, the first, are made into one.
    group: Option<usize>,
    before: Text,
    after: Text,
}

/// What is done with a column of the shards' rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    /// Nothing.
    Value,
    /// Counts are added.
    Count,
    /// Sums are added.
    Sum,
    /// Sums are added and divided by the counts in the next column.
    Average,
    /// The counts of an average.
    Counted,
    /// This function combines its own results.
    Call(&'static str),
}

/// The name of a column of the shards' rows, counted from 0.
pub(super) fn name(column: usize) -> String {
    format!("switchyard {}", column + 1)
}

mod oid {
    pub(super) const INT8: u32 = 20;
    pub(super) const UNKNOWN: u32 = 705;
    pub(super) const INTERVAL: u32 = 1186;
    pub(super) const NUMERIC: u32 = 1700;
    pub(super) const RECORD: u32 = 2249;
    pub(super) const RECORDS: u32 = 2287;
}

impl Finish {
    /// Rows that are finished by a statement of these parts.
    fn new(target: Target, rows: Text, columns: Vec<Column>, before: Text, after: Text) -> Finish {
        let names = (0..columns.len()).map(name).collect();
        Finish {
            rows: Fetch::computed(TableName::new("pg_temp", ROWS), names, target, rows),
            columns,
            group: None,
            before,
            after,
        }
    }

    /// The statement that finishes rows whose columns have these types, by their numbers; `None` if some cannot be put together
    /// exactly. The sum of floating-point numbers depends on the order they are added in.
    pub fn text(&self, sql: &[u8], types: &[u32]) -> Option<Vec<u8>> {
        let is_exact = |(column, oid): (&Column, &u32)| match column {
            Column::Sum | Column::Average => {
                matches!(*oid, oid::INT8 | oid::INTERVAL | oid::NUMERIC)
            }
            Column::Value | Column::Count | Column::Counted | Column::Call(_) => {
                !matches!(*oid, oid::UNKNOWN | oid::RECORD | oid::RECORDS)
            }
        };
        let exact =
            types.len() == self.columns.len() && self.columns.iter().zip(types).all(is_exact);
        exact.then(|| self.written(sql, types))
    }

    fn written(&self, sql: &[u8], types: &[u32]) -> Vec<u8> {
        let tokens = all_tokens(sql);
        let mut text = self.before.write(sql, &tokens);
        text.extend_from_slice(self.combined(types).as_bytes());
        text.extend_from_slice(&self.after.write(sql, &tokens));
        text
    }

    /// The query for the rows with partial results combined.
    fn combined(&self, types: &[u32]) -> String {
        let column = |(at, column): (usize, &Column)| {
            let (own, next) = (quoted(at), quoted(at + 1));
            let sum = |column: &str| format!("pg_catalog.sum({column})");
            let made = match column {
                Column::Value => return Some(own),
                Column::Counted => return None,
                Column::Count => format!("coalesce({}, 0)::pg_catalog.int8", sum(&own)),
                Column::Sum if types.get(at) == Some(&oid::INT8) => {
                    format!("{}::pg_catalog.int8", sum(&own))
                }
                Column::Sum => sum(&own),
                Column::Average => {
                    let (sum, count) = (sum(&own), sum(&next));
                    format!(
                        "CASE WHEN {count} OPERATOR(pg_catalog.>) 0 \
                         THEN {sum} OPERATOR(pg_catalog./) {count} END"
                    )
                }
                Column::Call(function) => format!("pg_catalog.{function}({own})"),
            };
            Some(format!("{made} AS {own}"))
        };
        let columns: Vec<String> = self.columns.iter().enumerate().filter_map(column).collect();
        let keys = |count: usize| {
            let keys: Vec<String> = (1..=count).map(|key| key.to_string()).collect();
            format!(" GROUP BY {}", keys.join(", "))
        };
        let group = match self.group {
            None => String::new(),
            // One row, whatever there is.
            Some(0) => " HAVING true".to_owned(),
            Some(count) => keys(count),
        };
        let columns = columns.join(", ");
        format!(" FROM (SELECT {columns} FROM pg_temp.\"{ROWS}\"{group}) AS \"switchyard\" ")
    }

    /// The same statement with these tokens around it.
    pub(super) fn within(mut self, all: &[Token], own: &[Token]) -> Option<Finish> {
        let (first, last) = (own.first()?, own.last()?);
        let before = all.partition_point(|token| token.start < first.start);
        let after = all.partition_point(|token| token.start <= last.start);
        let mut start = Text::default();
        start.tokens(0..before);
        start.ours(" ");
        self.before = start.then(self.before.behind(before));
        self.after = self.after.behind(before);
        self.after.ours(" ");
        self.after.tokens(after..all.len());
        if let Some(computed) = &mut self.rows.computed {
            computed.text = std::mem::take(&mut computed.text).behind(before);
        }
        Some(self)
    }

    /// Bytes on the heap, about.
    pub(in crate::plan) fn size(&self) -> usize {
        let columns = 48 * self.columns.len();
        512 + columns + self.before.size() + self.after.size()
    }

    /// Prints what the shards are asked, and how it is finished, as far as types do not decide.
    pub(in crate::plan) fn explain(&self, out: &mut String, sql: &[u8]) -> fmt::Result {
        let rows = self
            .rows
            .query(&crate::plan::workspace::Text::new(sql), &|_, _| None);
        writeln!(out, "    Text: {rows}")?;
        let types = vec![oid::NUMERIC; self.columns.len()];
        let text = self.written(sql, &types);
        writeln!(
            out,
            "    Finished by: {}",
            String::from_utf8_lossy(&text).trim()
        )
    }
}

fn quoted(column: usize) -> String {
    format!("\"{}\"", name(column))
}

/// What the planning of a [`Finish`] looks at.
pub(super) struct Statement<'a> {
    pub(super) sql: &'a [u8],
    pub(super) query: &'a Query,
    pub(super) select: &'a Select,
    pub(super) root: &'a Root,
    pub(super) clauses: &'a Clauses<'a>,
}

/// How the rows of these shards are finished, if PostgreSQL can.
pub(super) fn finish(
    statement: &Statement<'_>,
    target: Target,
    shape: Option<Shape>,
    terms: &mut groups::Terms<'_>,
) -> Option<Finish> {
    if shape == Some(Shape::Finished) {
        return ordered(statement, target);
    }
    let features = &statement.root.features;
    let grouped = features.aggregate || features.group_by || features.having;
    if features.distinct_on || !grouped && (!features.distinct || features.window) {
        return None;
    }
    let parts = groups::parts(statement, grouped, terms)?;
    let group = Some(parts.keys);
    let finish = Finish::new(target, parts.rows, parts.columns, parts.before, parts.after);
    Some(Finish { group, ..finish })
}

/// Rows that only have to be put in order, and of which a limit lets some through.
fn ordered(statement: &Statement<'_>, target: Target) -> Option<Finish> {
    let Statement {
        sql,
        query,
        root,
        clauses,
        ..
    } = *statement;
    let mut columns = Columns::new(root, clauses);
    let mut keys = Vec::with_capacity(root.order.len());
    for (at, key) in root.order.iter().enumerate() {
        // A column of ours must not make rows distinct that are equal.
        if root.features.distinct && key.column.is_none() {
            return None;
        }
        let column = quoted(columns.position(at)?.into());
        keys.push(column + options(key));
    }
    // Where all rows come, their order on the shards is of no use.
    let order = match root.limits.limit.is_some() || root.features.distinct_on {
        true => Ordering::Own,
        false => Ordering::By(Vec::new()),
    };
    let mut rows = text::assemble(clauses, &columns, &order);
    rows.verify(sql, clauses.tokens, query, columns.extras())?;
    rows.limit(sql, clauses, query, root)?;
    let (shown, extras) = (columns.shown(), columns.extras_len());
    let list: Vec<String> = (0..shown).map(|column| quoted(column.into())).collect();
    let (mut before, mut after) = (Text::default(), Text::default());
    before.ours("SELECT ");
    before.ours(&list.join(", "));
    after.ours("ORDER BY ");
    after.ours(&keys.join(", "));
    after.ours(" ");
    after.tokens(clauses.limits.clone());
    let all = vec![Column::Value; usize::from(shown + extras)];
    (!root.order.is_empty()).then(|| Finish::new(target, rows, all, before, after))
}

/// The options of an expression of ORDER BY.
pub(super) fn options(key: &RootKey) -> &'static str {
    match (key.descending, key.nulls_first) {
        (false, false) => " NULLS LAST",
        (false, true) => " NULLS FIRST",
        (true, false) => " DESC NULLS LAST",
        (true, true) => " DESC NULLS FIRST",
    }
}
