//! Row locks on several shards, where no shard can tell by itself which rows are to be locked: there is a limit, or an order or a
//! join that the shards do not have.
//!
//! Purpose: a [`Lock`] finds rows and locks them one after the other, as PostgreSQL's own plan does: the statement without its
//! locks and with a limit of ours finds *candidates*, in their order; then each is locked on its shard by its primary key, and is part
//! of the result if it still is what was found. Invariants: a row is locked only if PostgreSQL would lock it; the text that finds
//! candidates is the client's with columns added, and it is parsed again and compared before it is used. Collaborators: the
//! candidates are found as any statement is; `session::read::lock` runs the two steps, again if a row has changed between them.

mod places;
mod tables;

use sqlparser::ast::{Expr, Query, Select, SelectItem, SetExpr, Statement};

pub use self::places::Places;
pub use self::tables::{Locked, Wait};
use self::tables::{clauses, items, tables};
use super::analyse::Analysis;
use super::analyse::root::{Count, Limits};
use super::merge::clauses::{Clauses, Run};
use super::merge::count;
use super::refusal::Refusal;
use super::route::{Source, Values};
use super::{Access, Command, Context, Operator, Plan, parse, plan};
use crate::merge::Limit;
use crate::sql::{Scan, Token};

/// How rows of several shards are found and locked.
#[derive(Debug, Clone)]
pub struct Lock {
    /// The tables whose rows are locked, in the order of FROM.
    pub tables: Vec<Locked>,
    /// The plan that finds candidates.
    pub candidates: Box<Plan>,
    /// Why candidates have to be found first.
    pub reason: String,
    limits: Limits,
    /// The end of the select list.
    list: usize,
    /// The beginning of limits and locks.
    tail: usize,
    locks: Run,
}

impl Lock {
    /// The text that finds the first candidates, so many of them.
    pub fn candidates(&self, sql: &[u8], rows: u64) -> Vec<u8> {
        self.candidates_in(&Cut::new(sql), rows)
    }

    fn candidates_in(&self, cut: &Cut<'_>, rows: u64) -> Vec<u8> {
        let mut text = cut.between(0, self.list).to_vec();
        for (at, column) in self.tables.iter().flat_map(Locked::columns).enumerate() {
            // No name of the client's can mean it.
            text.extend_from_slice(
                format!(", {column} AS \"switchyard lock {}\"", at + 1).as_bytes(),
            );
        }
        text.push(b' ');
        text.extend_from_slice(cut.between(self.list, self.tail));
        text.extend_from_slice(format!(" LIMIT {rows}").as_bytes());
        text
    }

    /// The client's text, to be run for no rows: PostgreSQL says what is wrong with it, or what its columns are.
    pub fn probe(&self, sql: &[u8]) -> Vec<u8> {
        let cut = Cut::new(sql);
        let (tail, locks) = (cut.start(self.tail), cut.start(self.locks.start));
        let mut text = sql.get(..tail).unwrap_or_default().to_vec();
        // Positions of errors are counted in characters.
        let dropped = sql.get(tail..locks).unwrap_or_default();
        let characters = dropped.iter().filter(|byte| (**byte as i8) >= -0x40);
        text.extend(characters.map(|_| b' '));
        text.extend_from_slice(cut.between(self.locks.start, self.locks.end));
        text.extend_from_slice(b" LIMIT 0");
        text
    }

    /// How many columns of a candidate are not the client's.
    pub fn extras(&self) -> usize {
        self.tables.iter().map(Locked::width).sum()
    }

    /// The limits of one execution; `None` if any one shard gives the whole answer: no rows, or PostgreSQL's error.
    pub fn limit(&self, values: &Values<'_>) -> Result<Option<Limit>, Box<Refusal>> {
        let offset = count::rows(self.limits.offset.as_ref(), values)?;
        let limit = count::rows(self.limits.limit.as_ref(), values)?;
        Ok(match (offset, limit) {
            (count::Rows::Refused, _) | (_, count::Rows::Refused | count::Rows::Number(0)) => None,
            (offset, limit) => Some(Limit {
                offset: offset.number().unwrap_or(0),
                rows: limit.number(),
            }),
        })
    }

    /// The parameters that binding looks at.
    pub(super) fn params(&self) -> Vec<u16> {
        let counts = self.limits.limit.iter().chain(&self.limits.offset);
        let number = |count: &Count| match count {
            Count::Of(expr) => match expr.source {
                Source::Param { number, .. } => Some(number),
                Source::Literal { .. } | Source::Bool(_) | Source::Null | Source::Computed => None,
            },
            Count::One => None,
        };
        let mut params: Vec<u16> = counts.filter_map(number).collect();
        params.sort_unstable();
        params.dedup();
        params
    }

    /// Bytes on the heap, about.
    pub(super) fn size(&self) -> usize {
        let tables = self.tables.iter().map(Locked::size);
        512 + tables.sum::<usize>() + self.candidates.size()
    }
}

/// A text and its tokens.
struct Cut<'a> {
    sql: &'a [u8],
    tokens: Vec<Token>,
}

impl<'a> Cut<'a> {
    /// Of a text that has been planned, which can be cut into tokens.
    fn new(sql: &'a [u8]) -> Self {
        let end = u32::try_from(sql.len()).unwrap_or(u32::MAX);
        let tokens = parse::tokens(sql, 0..end).unwrap_or_default();
        Self { sql, tokens }
    }

    /// Where a token begins, or the text ends.
    fn start(&self, token: usize) -> usize {
        let token = self.tokens.get(token);
        token.map_or(self.sql.len(), |token| token.start as usize)
    }

    fn between(&self, from: usize, to: usize) -> &'a [u8] {
        let range = self.start(from)..self.start(to);
        self.sql.get(range).unwrap_or_default()
    }
}

/// Whether the rows that a statement locks may be copies that other shards have too.
pub(super) fn locks_copies(
    analysis: &Analysis,
    statement: &Statement,
    sql: &[u8],
    tokens: &[Token],
    context: &Context<'_>,
) -> bool {
    if !analysis.locks || !analysis.reference {
        return false;
    }
    let only_sharded = || {
        let (query, select) = outermost(statement)?;
        let found = Clauses::find(sql, tokens, query, select)?;
        let locks = clauses(sql, tokens.get(found.locks)?)?;
        let items = items(query, select, context);
        let is_sharded = |name: &String| {
            let mut named = items
                .iter()
                .filter(|item| item.alias.as_ref() == Some(name));
            let (first, other) = (named.next()?, named.next());
            let sharded = first.table.is_ok_and(|table| table.sharding().is_some());
            Some(sharded && other.is_none())
        };
        let mut named = locks.iter().flat_map(|clause| &clause.of);
        let all = named.all(|name| is_sharded(name) == Some(true));
        Some(all && locks.iter().all(|clause| !clause.of.is_empty()))
    };
    only_sharded() != Some(true)
}

fn outermost(statement: &Statement) -> Option<(&Query, &Select)> {
    let Statement::Query(query) = statement else {
        return None;
    };
    match &*query.body {
        SetExpr::Select(select) => Some((query, select)),
        SetExpr::Query(_)
        | SetExpr::SetOperation { .. }
        | SetExpr::Values(_)
        | SetExpr::Insert(_)
        | SetExpr::Update(_)
        | SetExpr::Delete(_)
        | SetExpr::Merge(_)
        | SetExpr::Table(_) => None,
    }
}

/// How the rows that a statement locks are found and locked; `Err` is why they cannot be.
pub(super) fn lock(
    analysis: &Analysis,
    statement: &Statement,
    sql: &[u8],
    tokens: &[Token],
    context: &Context<'_>,
    reason: String,
) -> Result<Lock, String> {
    if analysis.locks_inside {
        return Err("It locks rows in a subquery.".to_owned());
    }
    let unclear = || "It locks rows, and its text is not understood well enough.".to_owned();
    let (query, select) = outermost(statement).ok_or_else(unclear)?;
    let found = Clauses::find(sql, tokens, query, select).ok_or_else(unclear)?;
    let of = tokens.get(found.locks.clone()).ok_or_else(unclear)?;
    let of = clauses(sql, of).ok_or_else(unclear)?;
    let limits = analysis.limits.clone();
    let limits = limits.ok_or("It locks rows up to a limit that is not a plain number.")?;
    if limits.ties {
        return Err("It locks rows WITH TIES.".to_owned());
    }
    let items = items(query, select, context);
    let mut lock = Lock {
        tables: tables(&items, &of)?,
        candidates: Box::new(nothing()),
        reason,
        limits,
        list: found.head.end,
        tail: found.tail,
        locks: found.locks,
    };
    if lock.tables.is_empty() {
        return Err(unclear());
    }
    let cut = Cut {
        sql,
        tokens: tokens.to_vec(),
    };
    let text = lock.candidates_in(&cut, 1);
    verify(&text, query, select, lock.extras(), |ours| {
        ours.locks.is_empty() && ours.fetch.is_none()
    })
    .ok_or_else(unclear)?;
    let mut scan = Scan::new();
    scan.scan(&text).map_err(|_| unclear())?;
    let candidates = plan(&text, &scan, context);
    if let Operator::Refuse(refusal) = &candidates.operator {
        let detail = refusal.detail.as_deref().unwrap_or(&refusal.message);
        return Err(format!("The rows to lock cannot be found. {detail}"));
    }
    lock.candidates = Box::new(candidates);
    Ok(lock)
}

/// The plan that stands in a lock's place for its candidates until they are planned.
fn nothing() -> Plan {
    super::utility::plan(Operator::Session, Access::Read, Command::Empty)
}

/// Parses a text with more columns and compares it with the client's: what is not ours must be the same, and its limits and locks as
/// expected.
fn verify(
    text: &[u8],
    query: &Query,
    select: &Select,
    extras: usize,
    ends: impl FnOnce(&Query) -> bool,
) -> Option<()> {
    let end = u32::try_from(text.len()).ok()?;
    let tokens = parse::tokens(text, 0..end).ok()?;
    let readable = parse::readable(text, &tokens)?;
    let Ok(Statement::Query(ours)) = parse::parse(&readable, &tokens) else {
        return None;
    };
    let SetExpr::Select(own) = &*ours.body else {
        return None;
    };
    let (list, added) = own.projection.split_at_checked(select.projection.len())?;
    let rest = |select: &Select| Select {
        projection: Vec::new(),
        ..select.clone()
    };
    let is_cast = |item: &SelectItem| {
        matches!(
            item,
            SelectItem::ExprWithAlias {
                expr: Expr::Cast { .. },
                ..
            }
        )
    };
    let same = ours.with == query.with
        && ours.order_by == query.order_by
        && *list == *select.projection
        && rest(own) == rest(select)
        && added.len() == extras
        && added.iter().all(is_cast)
        && ends(&ours);
    same.then_some(())
}
