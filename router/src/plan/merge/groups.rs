//! Groups whose parts are on several shards: what the shards compute of them, and the client's statement with their columns in
//! the place of what they are.
//!
//! In the select list, HAVING, WINDOW and ORDER BY, every aggregate and every expression that is grouped by becomes a column of the
//! shards' rows. What is left must be constants, operators and PostgreSQL's own functions. The tokens are replaced in the text and the
//! nodes in the tree, each by itself, and the results are compared.

use std::borrow::Cow;

use sqlparser::ast::{Expr, Function, OrderByKind, Query, Select, SelectItem};

use super::clauses::Run;
use super::columns::{Extra, Made};
use super::finish::{Column, Statement, name, options};
use super::substitute::Substitution;
use super::text::{self, Text, alone};
use crate::plan::Context;
use crate::plan::analyse::names::function_name;
use crate::plan::analyse::root::{sole_argument, unnested};
use crate::relations::FunctionKind;
use crate::sql::{self, Scan, Token, TokenKind};

/// What looks like a call and is none: only values are put together.
const SYNTAX: &[&str] = &["array", "coalesce", "greatest", "least", "nullif", "row"];

/// How the partial results of PostgreSQL's aggregates are put together.
fn combination(name: &str) -> Option<Column> {
    Some(match name {
        "count" => Column::Count,
        "sum" => Column::Sum,
        "avg" => Column::Average,
        "min" => Column::Call("min"),
        "max" => Column::Call("max"),
        "bool_and" | "every" => Column::Call("bool_and"),
        "bool_or" => Column::Call("bool_or"),
        "bit_and" => Column::Call("bit_and"),
        "bit_or" => Column::Call("bit_or"),
        "bit_xor" => Column::Call("bit_xor"),
        _ => return None,
    })
}

/// A statement in parts.
pub(super) struct Parts {
    /// What the shards are asked.
    pub(super) rows: Text,
    /// The columns of their rows.
    pub(super) columns: Vec<Column>,
    /// So many of them, the first, are grouped by.
    pub(super) keys: usize,
    /// The client's statement before FROM.
    pub(super) before: Text,
    /// And after WHERE.
    pub(super) after: Text,
}

/// An expression that is a column of the shards' rows.
struct Term {
    /// The tokens of its first mention.
    run: Run,
    /// The trees of its mentions, which differ in the case of words at most.
    mentions: Vec<Expr>,
    column: usize,
}

/// The expressions that become columns.
pub(super) struct Terms<'a> {
    sql: &'a [u8],
    tokens: &'a [Token],
    scan: &'a Scan,
    context: &'a Context<'a>,
    keys: Vec<Term>,
    aggregates: Vec<Term>,
    extras: Vec<Extra>,
    columns: Vec<Column>,
    /// The slots of literals whose values decide whether expressions are the same.
    pub(super) guards: Vec<u32>,
}

/// The statement in parts, if all of it is made of groups.
pub(super) fn parts(
    statement: &Statement<'_>,
    grouped: bool,
    terms: &mut Terms<'_>,
) -> Option<Parts> {
    let Statement { root, clauses, .. } = *statement;
    if root.columns.iter().any(|column| column.wildcard) {
        return None;
    }
    match grouped {
        true => {
            for (key, run) in root.group.iter().zip(&clauses.group) {
                terms.key(match (key.selectable, key.column) {
                    (true, _) => run,
                    (false, column) => clauses.items.get(column?)?,
                })?;
            }
        }
        false => {
            for item in &clauses.items {
                terms.key(item)?;
            }
        }
    }
    let keys = terms.keys.len();
    let mut before = Text::default();
    before.tokens(clauses.select.clone());
    for (at, item) in clauses.items.iter().enumerate() {
        before.ours(if at == 0 { " " } else { ", " });
        terms.replace(item, &mut before)?;
    }
    let mut after = Text::default();
    if !clauses.having.is_empty() {
        after.ours("WHERE (");
        terms.replace(&clauses.having, &mut after)?;
        after.ours(") ");
    }
    terms.replace(&clauses.windows, &mut after)?;
    for (at, (key, run)) in root.order.iter().zip(&clauses.order).enumerate() {
        after.ours(if at == 0 { " ORDER BY " } else { ", " });
        match key.column {
            Some(column) => after.ours(&(column + 1).to_string()),
            None => terms.replace(run, &mut after)?,
        }
        after.ours(options(key));
    }
    after.ours(" ");
    after.tokens(clauses.limits.clone());
    terms.verify(statement, &before, &after)?;
    Some(Parts {
        rows: terms.rows(statement)?,
        columns: std::mem::take(&mut terms.columns),
        keys,
        before,
        after,
    })
}

impl<'a> Terms<'a> {
    pub(super) fn new(
        sql: &'a [u8],
        tokens: &'a [Token],
        scan: &'a Scan,
        context: &'a Context<'a>,
    ) -> Terms<'a> {
        Terms {
            sql,
            tokens,
            scan,
            context,
            keys: Vec::new(),
            aggregates: Vec::new(),
            extras: Vec::new(),
            columns: Vec::new(),
            guards: Vec::new(),
        }
    }

    /// Adds an expression that is grouped by.
    fn key(&mut self, run: &Run) -> Option<()> {
        let run = self.without_parentheses(run.clone());
        let expr = alone(&run, self.sql, self.tokens)?;
        // A row is no column, and a collation that the text names beats that of a column.
        if matches!(expr, Expr::Tuple(_)) || self.collates(&run) {
            return None;
        }
        let column = self.columns.len();
        self.column(run.clone(), Made::Itself, Column::Value);
        self.keys.push(Term {
            run,
            mentions: vec![expr],
            column,
        });
        Some(())
    }

    /// Adds an aggregate; its column.
    fn aggregate(&mut self, run: Run) -> Option<usize> {
        let expr = alone(&run, self.sql, self.tokens)?;
        let Expr::Function(function) = &expr else {
            return None;
        };
        if sole_argument(function).is_none() || self.collates(&run) {
            return None;
        }
        for at in 0..self.aggregates.len() {
            let known = self.aggregates[at].run.clone();
            if self.same(&known, &run) {
                let term = &mut self.aggregates[at];
                term.mentions.push(expr);
                return Some(term.column);
            }
        }
        let combined = combination(&self.name_of(function)?)?;
        let column = self.columns.len();
        if combined == Column::Average {
            self.column(run.clone(), Made::Instead("sum"), combined);
            self.column(run.clone(), Made::Instead("count"), Column::Counted);
        } else {
            self.column(run.clone(), Made::Itself, combined);
        }
        self.aggregates.push(Term {
            run,
            mentions: vec![expr],
            column,
        });
        Some(column)
    }

    fn column(&mut self, run: Run, made: Made, column: Column) {
        self.extras.push(Extra { run, made });
        self.columns.push(column);
    }

    /// The name of a function of PostgreSQL's, and of nobody else's.
    fn name_of<'f>(&self, function: &'f Function) -> Option<Cow<'f, str>> {
        let (schema, name) = function_name(&function.name).ok()?;
        let path = self.context.search_path;
        let relations = self.context.relations;
        let known: Vec<_> = relations
            .functions(path, schema.as_deref(), &name)
            .map(|function| &*function.schema == "pg_catalog")
            .collect();
        (!known.is_empty() && known.into_iter().all(|own| own)).then_some(name)
    }

    /// Whether it is a function of PostgreSQL's that computes on values, or on the rows of a window.
    fn computes(&self, function: &Function) -> bool {
        let is_aggregate = |name: &str| {
            let relations = self.context.relations;
            let mut known = relations.functions_named(name).iter();
            known.any(|function| function.kind == FunctionKind::Aggregate)
        };
        match self.name_of(function) {
            Some(name) => function.over.is_some() || !is_aggregate(&name),
            None => {
                let name = function_name(&function.name).ok();
                name.is_some_and(|(schema, name)| schema.is_none() && SYNTAX.contains(&&*name))
            }
        }
    }

    /// Adds the tokens of a run to a text, columns in the place of what they are.
    fn replace(&mut self, run: &Run, text: &mut Text) -> Option<()> {
        let (mut at, mut kept) = (run.start, run.start);
        while at < run.end {
            let found = match self.call(at, run.end) {
                Some(end) => Some((self.aggregate(at..end)?, end)),
                None => self.key_at(at, run.end)?,
            };
            let Some((column, end)) = found else {
                at += 1;
                continue;
            };
            text.tokens(kept..at);
            text.ours(&format!(" \"{}\" ", name(column)));
            (at, kept) = (end, end);
        }
        text.tokens(kept..run.end);
        Some(())
    }

    /// Where the call of an aggregate ends that begins here.
    fn call(&self, at: usize, end: usize) -> Option<usize> {
        let is = |at: usize, byte: u8| self.is(at, TokenKind::Punct(byte));
        if at.checked_sub(1).is_some_and(|before| is(before, b'.')) {
            return None;
        }
        let qualified = self.name(at)? == "pg_catalog" && is(at + 1, b'.');
        let called = if qualified { at + 2 } else { at };
        combination(&self.name(called)?)?;
        if !is(called + 1, b'(') {
            return None;
        }
        let mut after = self.closing(called + 1, end)? + 1;
        if self.is_word(after, "filter") && is(after + 1, b'(') {
            after = self.closing(after + 1, end)? + 1;
        }
        (after <= end && !self.is_word(after, "over")).then_some(after)
    }

    /// The key that stands here, if any does, and where it ends; the outer `None` if it cannot be said.
    fn key_at(&mut self, at: usize, end: usize) -> Option<Option<(usize, usize)>> {
        let mut best: Option<(usize, usize)> = None;
        for key in 0..self.keys.len() {
            let run = self.keys[key].run.clone();
            let mention = match self.column_name(&run) {
                Some(name) => self.mention(&run, &name, at, end),
                None => {
                    let mention = at..at + run.len();
                    (mention.end <= end && self.same(&run, &mention)).then_some(mention)
                }
            };
            let Some(mention) = mention else { continue };
            if best.is_none_or(|(_, longest)| longest < mention.end) {
                best = Some((key, mention.end));
            }
        }
        let Some((key, end)) = best else {
            return Some(None);
        };
        let expr = alone(&(at..end), self.sql, self.tokens)?;
        let key = &mut self.keys[key];
        key.mentions.push(expr);
        Some(Some((key.column, end)))
    }

    /// The name of the column that a run is, if that is all.
    fn column_name(&self, run: &Run) -> Option<Cow<'_, str>> {
        let last = run.end.checked_sub(1)?;
        let qualified = run.len() == 3 && self.is(run.start + 1, TokenKind::Punct(b'.'));
        (run.len() == 1 || qualified).then(|| self.name(last))?
    }

    /// The mention here of the column that a run is: its name, with or without the table's. What PostgreSQL accepts without one
    /// is in one table only.
    fn mention(&self, run: &Run, name: &str, at: usize, end: usize) -> Option<Run> {
        let is_point = |at: usize| self.is(at, TokenKind::Punct(b'.'));
        if at.checked_sub(1).is_some_and(is_point) {
            return None;
        }
        let mention = if is_point(at + 1) {
            at..at + 3
        } else {
            at..at + 1
        };
        let after = self.is(mention.end, TokenKind::Punct(b'(')) || is_point(mention.end);
        if mention.end > end || after || self.name(mention.end - 1)? != name {
            return None;
        }
        let both = run.len() == 3 && mention.len() == 3;
        let same = !both || self.name(run.start) == self.name(mention.start);
        same.then_some(mention)
    }

    /// Whether two runs are the same expression. Where that depends on literals, so does the plan.
    fn same(&mut self, run: &Run, other: &Run) -> bool {
        let (tokens, sql) = (self.tokens, self.sql);
        let (Some(own), Some(others)) = (tokens.get(run.clone()), tokens.get(other.clone())) else {
            return false;
        };
        let alike = |(a, b): (&Token, &Token)| {
            let (text, other) = (a.text(sql), b.text(sql));
            let same = match a.kind == TokenKind::Word {
                true => text.eq_ignore_ascii_case(other),
                false => is_literal(a) || text == other,
            };
            a.kind == b.kind && same
        };
        if own.len() != others.len() || !own.iter().zip(others).all(alike) {
            return false;
        }
        if run == other {
            return true;
        }
        let literals = own.iter().chain(others).filter(|token| is_literal(token));
        for token in literals {
            let place = |literal: &sql::Literal| literal.span.start;
            let slot = self.scan.literals.binary_search_by_key(&token.start, place);
            let Some(slot) = slot.ok().and_then(|slot| u32::try_from(slot).ok()) else {
                return false;
            };
            self.guards.push(slot);
        }
        let equal = |(a, b): (&Token, &Token)| !is_literal(a) || a.text(sql) == b.text(sql);
        own.iter().zip(others).all(equal)
    }

    fn is(&self, at: usize, kind: TokenKind) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == kind)
    }

    fn is_word(&self, at: usize, word: &str) -> bool {
        let token = self.tokens.get(at);
        token.is_some_and(|token| token.is_word(self.sql, word))
    }

    fn name(&self, at: usize) -> Option<Cow<'_, str>> {
        sql::name(self.tokens.get(at)?, self.sql)
    }

    fn collates(&self, run: &Run) -> bool {
        run.clone().any(|at| self.is_word(at, "collate"))
    }

    /// Where the parenthesis closes that opens here.
    fn closing(&self, open: usize, end: usize) -> Option<usize> {
        let mut depth = 0_usize;
        (open..end).find(|at| {
            match self.tokens.get(*at).map(|token| token.kind) {
                Some(TokenKind::Punct(b'(')) => depth += 1,
                Some(TokenKind::Punct(b')')) => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0
        })
    }

    fn without_parentheses(&self, run: Run) -> Run {
        let last = run.end.saturating_sub(1);
        let around = self.is(run.start, TokenKind::Punct(b'('))
            && self.closing(run.start, run.end) == Some(last);
        match around {
            true => self.without_parentheses(run.start + 1..last),
            false => run,
        }
    }

    /// The text for the shards.
    fn rows(&self, statement: &Statement<'_>) -> Option<Text> {
        let Statement {
            sql,
            query,
            select,
            clauses,
            ..
        } = *statement;
        if self.extras.is_empty() {
            return None;
        }
        let mut text = Text::default();
        text.tokens(0..clauses.select.start);
        text.ours(" SELECT ");
        for (at, extra) in self.extras.iter().enumerate() {
            text.ours(if at == 0 { "" } else { ", " });
            text::add(&mut text, extra, clauses);
            text.ours(&format!(" AS \"{}\"", name(at)));
        }
        text.ours(" ");
        text.tokens(clauses.source.clone());
        let keys: Vec<String> = (1..=self.keys.len()).map(|key| key.to_string()).collect();
        match keys.is_empty() {
            true => text.ours(" HAVING true"),
            false => text.ours(&format!(" GROUP BY {}", keys.join(", "))),
        }
        let ours = text.parsed(sql, self.tokens)?;
        let own = ours.body.as_select()?;
        let is_made =
            |(item, extra): (&SelectItem, &Extra)| text::is_made(item, extra, sql, self.tokens);
        let same = ours.with == query.with
            && own.from == select.from
            && own.selection == select.selection
            && own.projection.len() == self.extras.len()
            && own.projection.iter().zip(&self.extras).all(is_made);
        same.then_some(text)
    }

    /// Compares the text that is to be run on the shards' rows with the client's, in which columns take the place of what they
    /// are.
    fn verify(&self, statement: &Statement<'_>, before: &Text, after: &Text) -> Option<()> {
        let Statement {
            sql,
            query,
            select,
            root,
            ..
        } = *statement;
        let mut text = before.clone();
        text.ours(" FROM \"switchyard\" ");
        let ours = text.then(after.clone()).parsed(sql, self.tokens)?;
        let own = ours.body.as_select()?;
        let mut found = exprs(own);
        found.extend(own.selection.as_ref());
        let mut client = exprs(select);
        client.extend(select.having.as_ref());
        let orders = root.order.iter().zip(orders(query)).zip(orders(&ours));
        let orders = orders.filter(|((key, _), _)| key.column.is_none());
        for ((_, theirs), ours) in orders {
            client.push(theirs);
            found.push(ours);
        }
        let terms = || self.keys.iter().chain(&self.aggregates);
        let columns = terms().flat_map(|term| {
            let column = name(term.column);
            term.mentions.iter().map(move |expr| (expr, column.clone()))
        });
        let may_stay = |function: &Function| self.computes(function);
        let substitution = Substitution::new(columns.collect(), &may_stay);
        let windows = substitution.windows(&select.named_window)?;
        let mut same = found.len() == client.len()
            && windows == own.named_window
            && own.distinct == select.distinct
            && own.projection.len() == select.projection.len()
            && ours.limit_clause == query.limit_clause
            && ours.fetch == query.fetch;
        for (found, client) in found.iter().zip(client) {
            let client = substitution.of(client)?;
            same &= *unnested(found) == *unnested(&client);
        }
        same.then_some(())
    }
}

fn is_literal(token: &Token) -> bool {
    matches!(
        token.kind,
        TokenKind::Integer | TokenKind::Decimal | TokenKind::String
    )
}

/// The expressions of a select list.
fn exprs(select: &Select) -> Vec<&Expr> {
    let mut exprs = Vec::with_capacity(select.projection.len());
    for item in &select.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            exprs.push(expr);
        }
    }
    exprs
}

/// The expressions of ORDER BY.
fn orders(query: &Query) -> Vec<&Expr> {
    match query.order_by.as_ref().map(|order| &order.kind) {
        Some(OrderByKind::Expressions(keys)) => keys.iter().map(|key| &key.expr).collect(),
        _ => Vec::new(),
    }
}
