//! The text for the shards: pieces of the client's, and words of ours.

use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, LimitClause, Query, Select, SelectItem,
    SetExpr, Statement,
};

use super::Ordering;
use super::clauses::{Clauses, Run};
use super::columns::{Columns, Extra, Made};
use crate::plan::analyse::root::{Root, unnested};
use crate::plan::edits::characters;
use crate::plan::parse;
use crate::sql::{Token, TokenKind};

/// A text made of another one's tokens. It holds no values: they are in the other text.
#[derive(Debug, Clone, Default)]
pub(in crate::plan) struct Text(Vec<Piece>);

#[derive(Debug, Clone)]
enum Piece {
    /// These tokens of the client's, with what is between them.
    Tokens(Run),
    Ours(Box<str>),
}

impl Text {
    pub(super) fn tokens(&mut self, run: Run) {
        if !run.is_empty() {
            self.0.push(Piece::Tokens(run));
        }
    }

    pub(super) fn ours(&mut self, words: &str) {
        self.0.push(Piece::Ours(words.into()));
    }

    /// The same of a text that has so many tokens more before these.
    pub(super) fn behind(mut self, tokens: usize) -> Text {
        for piece in &mut self.0 {
            if let Piece::Tokens(run) = piece {
                *run = run.start + tokens..run.end + tokens;
            }
        }
        self
    }

    /// This text and another one.
    pub(super) fn then(mut self, other: Text) -> Text {
        self.0.extend(other.0);
        self
    }

    /// The text with the client's pieces taken from this one.
    pub(in crate::plan) fn write(&self, sql: &[u8], tokens: &[Token]) -> Vec<u8> {
        let mut text = Vec::with_capacity(sql.len() + 128);
        for piece in &self.0 {
            match piece {
                Piece::Ours(words) => text.extend_from_slice(words.as_bytes()),
                Piece::Tokens(run) => {
                    let run = tokens.get(run.clone()).unwrap_or_default();
                    if let (Some(first), Some(last)) = (run.first(), run.last()) {
                        let span = first.start as usize..last.end as usize;
                        text.extend_from_slice(sql.get(span).unwrap_or_default());
                    }
                }
            }
        }
        text
    }

    /// Adds a limit: of one shard at most those rows can matter that are passed over and those that are given. `None` if the
    /// client's are not where they should be.
    pub(super) fn limit(
        &mut self,
        sql: &[u8],
        clauses: &Clauses<'_>,
        query: &Query,
        root: &Root,
    ) -> Option<()> {
        if root.limits.limit.is_none() {
            return Some(());
        }
        let is = |run: &Option<Run>, expr: Option<&Expr>| match (run, expr) {
            (Some(run), Some(expr)) => {
                alone(run, sql, clauses.tokens).as_ref() == Some(unnested(expr))
            }
            (None, None) => true,
            _ => false,
        };
        let (limit, offset) = written(query);
        if !is(&clauses.limit, limit) || !is(&clauses.offset, offset) {
            return None;
        }
        self.ours(match root.limits.ties {
            true => " FETCH FIRST (",
            false => " LIMIT (",
        });
        if clauses.offset.is_some() {
            // The sum may be more than bigint holds; NULL is no limit.
            self.ours("least((");
        }
        match &clauses.limit {
            Some(run) => self.tokens(run.clone()),
            None => self.ours("1"),
        }
        if let Some(offset) = &clauses.offset {
            self.ours(")::pg_catalog.int8::pg_catalog.numeric OPERATOR(pg_catalog.+) coalesce((");
            self.tokens(offset.clone());
            self.ours(")::pg_catalog.int8::pg_catalog.numeric, 0), 9223372036854775807)");
        }
        self.ours(match root.limits.ties {
            true => ") ROWS WITH TIES",
            false => ")",
        });
        Some(())
    }

    /// Adds the row locks.
    pub(super) fn locks(&mut self, clauses: &Clauses<'_>) {
        if !clauses.locks.is_empty() {
            self.ours(" ");
            self.tokens(clauses.locks.clone());
        }
    }

    /// Where in the client's text a character of this one comes from: both are counted from 1.
    pub(super) fn origin(&self, sql: &[u8], tokens: &[Token], position: usize) -> Option<usize> {
        let mut left = position.checked_sub(1)?;
        for piece in &self.0 {
            let run = match piece {
                Piece::Ours(words) => {
                    left = left.checked_sub(words.chars().count())?;
                    continue;
                }
                Piece::Tokens(run) => tokens.get(run.clone())?,
            };
            let (start, end) = (run.first()?.start as usize, run.last()?.end as usize);
            let here = characters(sql.get(start..end)?);
            match left.checked_sub(here) {
                Some(rest) => left = rest,
                None => return Some(characters(sql.get(..start)?) + left + 1),
            }
        }
        None
    }

    pub(in crate::plan) fn size(&self) -> usize {
        let piece = |piece: &Piece| match piece {
            Piece::Ours(words) => words.len(),
            Piece::Tokens(_) => 0,
        };
        self.0.len() * size_of::<Piece>() + self.0.iter().map(piece).sum::<usize>()
    }

    /// Parses the text, which is a query.
    pub(super) fn parsed(&self, sql: &[u8], tokens: &[Token]) -> Option<Box<Query>> {
        let text = self.write(sql, tokens);
        let end = u32::try_from(text.len()).ok()?;
        let found = parse::tokens(&text, 0..end).ok()?;
        let readable = parse::readable(&text, &found)?;
        match parse::parse(&readable, &found) {
            Ok(Statement::Query(query)) => Some(query),
            _ => None,
        }
    }

    /// Parses the text and compares it with the client's: whatever is not ours must be the same.
    pub(super) fn verify(
        &self,
        sql: &[u8],
        tokens: &[Token],
        query: &Query,
        extras: &[Extra],
    ) -> Option<()> {
        let ours = self.parsed(sql, tokens)?;
        let (SetExpr::Select(select), SetExpr::Select(own)) = (&*query.body, &*ours.body) else {
            return None;
        };
        let shown = select.projection.len();
        let (list, added) = own.projection.split_at_checked(shown)?;
        let same = ours.with == query.with
            && *list == *select.projection
            && added.len() == extras.len()
            && rest(select) == rest(own)
            && ours.locks.is_empty();
        let is_made = |(item, extra): (&SelectItem, &Extra)| is_made(item, extra, sql, tokens);
        (same && added.iter().zip(extras).all(is_made)).then_some(())
    }
}

/// The expressions of LIMIT or FETCH, and of OFFSET.
fn written(query: &Query) -> (Option<&Expr>, Option<&Expr>) {
    let fetch = query
        .fetch
        .as_ref()
        .and_then(|fetch| fetch.quantity.as_ref());
    match &query.limit_clause {
        Some(LimitClause::LimitOffset { limit, offset, .. }) => (
            limit.as_ref().or(fetch),
            offset.as_ref().map(|offset| &offset.value),
        ),
        Some(LimitClause::OffsetCommaLimit { .. }) | None => (fetch, None),
    }
}

/// What of a SELECT is never changed.
fn rest(select: &Select) -> Select {
    Select {
        projection: Vec::new(),
        ..select.clone()
    }
}

/// Whether a select item is what was to be made of the client's expression.
pub(super) fn is_made(item: &SelectItem, extra: &Extra, sql: &[u8], tokens: &[Token]) -> bool {
    let SelectItem::ExprWithAlias { expr, .. } = item else {
        return false;
    };
    let Some(source) = alone(&extra.run, sql, tokens) else {
        return false;
    };
    match (extra.made, expr) {
        (Made::Itself, expr) => *unnested(expr) == source,
        (Made::Collated, Expr::Collate { expr, .. }) => *unnested(expr) == source,
        (Made::Call(name), Expr::Function(function)) => {
            let FunctionArguments::List(list) = &function.args else {
                return false;
            };
            let [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] = list.args.as_slice()
            else {
                return false;
            };
            is_ours(&function.name.0, name) && *unnested(argument) == source
        }
        (Made::Instead(name), Expr::Function(function)) => {
            let Expr::Function(mut source) = source else {
                return false;
            };
            source.name = function.name.clone();
            is_ours(&function.name.0, name) && source == *function
        }
        _ => false,
    }
}

/// Whether a name is that of PostgreSQL's own function.
fn is_ours(parts: &[sqlparser::ast::ObjectNamePart], name: &str) -> bool {
    let parts: Vec<&str> = parts
        .iter()
        .filter_map(|part| part.as_ident())
        .map(|ident| ident.value.as_str())
        .collect();
    parts == ["pg_catalog", name]
}

/// An expression of the client's, parsed by itself.
pub(super) fn alone(run: &Run, sql: &[u8], tokens: &[Token]) -> Option<Expr> {
    let expr = parse::expression(sql, tokens.get(run.clone())?)?;
    Some(unnested(&expr).clone())
}

/// The text for the shards, without limits.
pub(super) fn assemble(clauses: &Clauses<'_>, columns: &Columns<'_>, order: &Ordering) -> Text {
    let mut text = Text::default();
    text.tokens(clauses.head.clone());
    for (at, extra) in columns.extras().iter().enumerate() {
        text.ours(", ");
        add(&mut text, extra, clauses);
        // No name of the client's can mean it.
        text.ours(&format!(" AS \"switchyard {}\"", at + 1));
    }
    text.ours(" ");
    text.tokens(clauses.middle.clone());
    order_by(&mut text, clauses, order);
    text
}

/// Adds a column of ours.
pub(super) fn add(text: &mut Text, extra: &Extra, clauses: &Clauses<'_>) {
    match extra.made {
        Made::Itself => {
            text.ours("(");
            text.tokens(extra.run.clone());
            text.ours(")");
        }
        Made::Collated => {
            text.ours("(");
            text.tokens(extra.run.clone());
            text.ours(") COLLATE pg_catalog.\"C\"");
        }
        Made::Call(name) => {
            text.ours(&format!("pg_catalog.{name}("));
            text.tokens(extra.run.clone());
            text.ours(")");
        }
        Made::Instead(name) => {
            let open = |at: &usize| {
                let token = clauses.tokens.get(*at);
                token.is_some_and(|token| token.kind == TokenKind::Punct(b'('))
            };
            let start = extra.run.clone().find(open).unwrap_or(extra.run.start);
            text.ours(&format!("pg_catalog.{name}"));
            text.tokens(start..extra.run.end);
        }
    }
}

fn order_by(text: &mut Text, clauses: &Clauses<'_>, order: &Ordering) {
    let own = !clauses.order_by.is_empty();
    let mut keys: Vec<String> = Vec::new();
    match order {
        Ordering::Own => {}
        Ordering::OwnThen(ordinals) => keys.extend(ordinals.iter().map(u16::to_string)),
        Ordering::By(ordered) => keys.extend(ordered.iter().map(|ordered| {
            let direction = if ordered.key.descending { " DESC" } else { "" };
            let nulls = match ordered.key.nulls_first {
                true => " NULLS FIRST",
                false => " NULLS LAST",
            };
            format!("{}{direction}{nulls}", ordered.ordinal)
        })),
    }
    let by = matches!(order, Ordering::By(_));
    if own && !by {
        text.ours(" ");
        text.tokens(clauses.order_by.clone());
    }
    if !keys.is_empty() {
        text.ours(if own && !by { ", " } else { " ORDER BY " });
        text.ours(&keys.join(", "));
    }
}
