//! Where the clauses of a query's outermost block are, in tokens.
//!
//! PostgreSQL reserves the words that begin clauses: outside parentheses they are nothing else, but for the names of columns
//! after `AS` and after a point, and for a few phrases that are known here. What is found is checked against the tree: see
//! [`Text::verify`](super::text::Text::verify).

use std::ops::Range;

use sqlparser::ast::{Distinct, GroupByExpr, OrderByKind, Query, Select, SelectItem};

use crate::sql::{Token, TokenKind};

/// A run of tokens.
pub(in crate::plan) type Run = Range<usize>;

/// The clauses of the outermost SELECT.
#[derive(Debug)]
pub(in crate::plan) struct Clauses<'a> {
    pub(super) tokens: &'a [Token],
    /// The expressions of the select list, without their aliases; of `*` all of it.
    pub(super) items: Vec<Run>,
    /// The expressions of GROUP BY.
    pub(super) group: Vec<Run>,
    /// The expressions of ORDER BY, without its options.
    pub(super) order: Vec<Run>,
    /// All from the first word to the end of the select list.
    pub(in crate::plan) head: Run,
    /// SELECT, and DISTINCT or ALL.
    pub(super) select: Run,
    /// FROM and WHERE.
    pub(super) source: Run,
    /// The condition of HAVING.
    pub(super) having: Run,
    /// WINDOW.
    pub(super) windows: Run,
    /// From there to ORDER BY or a limit.
    pub(super) middle: Run,
    /// ORDER BY.
    pub(super) order_by: Run,
    /// Where limits and row locks may begin.
    pub(in crate::plan) tail: usize,
    /// The expression of LIMIT or FETCH.
    pub(super) limit: Option<Run>,
    /// The expression of OFFSET.
    pub(super) offset: Option<Run>,
    /// All of LIMIT, OFFSET and FETCH.
    pub(super) limits: Run,
    /// All of FOR UPDATE and its like.
    pub(in crate::plan) locks: Run,
}

/// The words that begin a clause, in their order, but that limits may also come behind FOR.
const BEGINNINGS: [&str; 10] = [
    "from", "where", "group", "having", "window", "order", "limit", "offset", "fetch", "for",
];

impl<'a> Clauses<'a> {
    /// Finds them; `None` if they are not as expected.
    pub(in crate::plan) fn find(
        sql: &'a [u8],
        tokens: &'a [Token],
        query: &Query,
        select: &Select,
    ) -> Option<Clauses<'a>> {
        let ends = tokens.last()?.kind == TokenKind::Punct(b';');
        let end = tokens.len() - usize::from(ends);
        let words = Words { sql, tokens };
        let outer = words.outside_parentheses(0..end);
        let is_select = |at: &usize| words.is(*at, "select");
        let start = *outer.iter().find(|at| is_select(at))?;
        let begins: Vec<usize> = outer
            .iter()
            .copied()
            .filter(|at| *at > start && words.begins_clause(*at))
            .collect();
        let clause = |word: &str| {
            let mut found = begins
                .iter()
                .enumerate()
                .filter(|(_, at)| words.is(**at, word));
            let (position, at) = found.next()?;
            let next = begins.get(position + 1).copied().unwrap_or(end);
            found.next().is_none().then_some(*at..next)
        };
        let from = clause("from")?;
        let list = words.select_list(start, from.start, select)?;
        let items = words.items(list.clone(), select)?;
        let order_by = clause("order");
        let limit = clause("limit").or_else(|| clause("fetch"));
        let offset = clause("offset");
        let is_lock = |at: &usize| words.is(*at, "for");
        let first_lock = begins.iter().copied().find(is_lock);
        let last_lock = begins.iter().rposition(is_lock);
        let locks = match (first_lock, last_lock) {
            (Some(first), Some(last)) => first..begins.get(last + 1).copied().unwrap_or(end),
            _ => end..end,
        };
        let first = |runs: &[&Option<Run>]| {
            let starts = runs.iter().filter_map(|run| run.as_ref());
            starts.map(|run| run.start).min().unwrap_or(end)
        };
        let limits = first(&[&limit, &offset]);
        let tail = limits.min(locks.start);
        let (having, windows) = (clause("having"), clause("window"));
        let order_by = order_by.unwrap_or(tail..tail);
        if order_by.end != tail {
            return None;
        }
        let source = first(&[&clause("group"), &having, &windows]).min(order_by.start);
        let none = end..end;
        Some(Clauses {
            tokens,
            items,
            group: match clause("group") {
                Some(run) => words.group(run, select)?,
                None => Vec::new(),
            },
            order: match order_by.is_empty() {
                true => Vec::new(),
                false => words.order(order_by.clone(), query)?,
            },
            head: 0..from.start,
            select: start..list.start,
            source: from.start..source,
            having: having.map_or(none.clone(), |run| run.start + 1..run.end),
            windows: windows.unwrap_or(none),
            middle: from.start..order_by.start,
            order_by,
            tail,
            limit: limit.and_then(|run| words.rows(run)),
            offset: offset.and_then(|run| words.rows(run)),
            limits: limits..end,
            locks,
        })
    }
}

struct Words<'a> {
    sql: &'a [u8],
    tokens: &'a [Token],
}

impl Words<'_> {
    fn is(&self, at: usize, word: &str) -> bool {
        let token = self.tokens.get(at);
        token.is_some_and(|token| token.is_word(self.sql, word))
    }

    fn is_any(&self, at: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(at, word))
    }

    fn kind(&self, at: usize) -> Option<TokenKind> {
        self.tokens.get(at).map(|token| token.kind)
    }

    /// The tokens that are in no parentheses.
    fn outside_parentheses(&self, run: Run) -> Vec<usize> {
        let mut depth = 0_usize;
        let mut outside = Vec::new();
        for at in run {
            match self.kind(at) {
                Some(TokenKind::Punct(b'(' | b'[')) => depth += 1,
                Some(TokenKind::Punct(b')' | b']')) => depth = depth.saturating_sub(1),
                _ if depth == 0 => outside.push(at),
                _ => {}
            }
        }
        outside
    }

    /// Whether the word there begins a clause.
    fn begins_clause(&self, at: usize) -> bool {
        if !self.is_any(at, &BEGINNINGS) {
            return false;
        }
        let Some(before) = at.checked_sub(1) else {
            return false;
        };
        let is_name = self.is(before, "as") || self.kind(before) == Some(TokenKind::Punct(b'.'));
        // IS DISTINCT FROM, ROWS FROM (…), WITHIN GROUP (…).
        let is_phrase = (self.is(at, "from") && self.is_any(before, &["distinct", "rows"]))
            || (self.is(at, "group") && self.is(before, "within"));
        !is_name && !is_phrase
    }

    /// Where the select list is.
    fn select_list(&self, select: usize, from: usize, tree: &Select) -> Option<Run> {
        let mut start = select + 1;
        match &tree.distinct {
            None => {}
            Some(Distinct::All) => start += 1,
            Some(Distinct::Distinct) => start += 1,
            Some(Distinct::On(_)) => {
                let open = start + 2;
                let outside = self.outside_parentheses(open..from);
                start = *outside.first()?;
            }
        }
        (start < from).then_some(start..from)
    }

    /// Cuts a run at its commas.
    fn list(&self, run: Run) -> Vec<Run> {
        let mut items = Vec::new();
        let mut start = run.start;
        for at in self.outside_parentheses(run.clone()) {
            if self.kind(at) == Some(TokenKind::Punct(b',')) {
                items.push(start..at);
                start = at + 1;
            }
        }
        items.push(start..run.end);
        items
    }

    fn items(&self, list: Run, select: &Select) -> Option<Vec<Run>> {
        let items = self.list(list);
        let without_alias = |(run, item): (Run, &SelectItem)| {
            let SelectItem::ExprWithAlias { .. } = item else {
                return Some(run);
            };
            let alias = run.end.checked_sub(1)?;
            let is_as = alias.checked_sub(1).is_some_and(|at| self.is(at, "as"));
            Some(run.start..if is_as { alias - 1 } else { alias })
        };
        let runs: Option<Vec<Run>> = items
            .into_iter()
            .zip(&select.projection)
            .map(without_alias)
            .collect();
        runs.filter(|runs| runs.len() == select.projection.len())
    }

    fn group(&self, run: Run, select: &Select) -> Option<Vec<Run>> {
        let GroupByExpr::Expressions(exprs, _) = &select.group_by else {
            return None;
        };
        let start = run.start + 2;
        let quantified = self.is_any(start, &["all", "distinct"]);
        let runs = self.list(start + usize::from(quantified)..run.end);
        (runs.len() == exprs.len()).then_some(runs)
    }

    fn order(&self, run: Run, query: &Query) -> Option<Vec<Run>> {
        let OrderByKind::Expressions(exprs) = &query.order_by.as_ref()?.kind else {
            return None;
        };
        let mut runs = self.list(run.start + 2..run.end);
        for run in &mut runs {
            let last = |run: &Run, back: usize| run.end.checked_sub(back).unwrap_or(run.start);
            if self.is(last(run, 2), "nulls") && self.is_any(last(run, 1), &["first", "last"]) {
                run.end -= 2;
            }
            if self.is_any(last(run, 1), &["asc", "desc"]) {
                run.end -= 1;
            }
        }
        (runs.len() == exprs.len()).then_some(runs)
    }

    /// The expression of LIMIT, OFFSET or FETCH, if it has one.
    fn rows(&self, run: Run) -> Option<Run> {
        let mut expr = run.start + 1..run.end;
        if self.is(run.start, "fetch") {
            expr.start += 1;
            let outside = self.outside_parentheses(expr.clone());
            let is_end = |at: &&usize| self.is_any(**at, &["row", "rows"]);
            expr.end = *outside.iter().find(is_end)?;
        } else if self.is_any(run.end - 1, &["row", "rows"]) {
            expr.end -= 1;
        }
        (!expr.is_empty()).then_some(expr)
    }
}
