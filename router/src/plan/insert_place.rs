//! Where an INSERT has its query, by its tokens.

use std::ops::Range;

use crate::sql::{Token, TokenKind};

/// Where the query is, and the common table expressions in front of the INSERT, which the query can have as well.
pub(super) struct Place {
    pub(super) ctes: Range<usize>,
    pub(super) query: Range<usize>,
}

/// The place in a text. There may be an ON CONFLICT behind the query.
pub(super) fn place(sql: &[u8], tokens: &[Token], on_conflict: bool) -> Option<Place> {
    let mut ctes = 0..0;
    let mut tokens = tokens;
    if tokens.first()?.is_word(sql, "with") {
        let into = |two: &[Token]| match two {
            [insert, into] => insert.is_word(sql, "insert") && into.is_word(sql, "into"),
            _ => false,
        };
        let at = tokens.windows(2).position(into)?;
        ctes = tokens.first()?.start as usize..tokens.get(at)?.start as usize;
        tokens = tokens.get(at..)?;
    }
    let query = query_of(sql, tokens, on_conflict)?;
    // It can have them if it has none of its own.
    let has_own = tokens
        .iter()
        .any(|token| token.start as usize == query.start && token.is_word(sql, "with"));
    (ctes.is_empty() || !has_own).then_some(Place { ctes, query })
}

/// Where the query of an INSERT is.
fn query_of(sql: &[u8], tokens: &[Token], on_conflict: bool) -> Option<Range<usize>> {
    let starts = |token: &Token| {
        let words = ["select", "with", "values", "table"];
        words.iter().any(|word| token.is_word(sql, word))
    };
    let mut depth = 0_usize;
    let mut first = None;
    for (at, token) in tokens.iter().enumerate() {
        if token.kind == TokenKind::Punct(b'(') {
            let rest = tokens.get(at + 1..)?;
            let inner = rest
                .iter()
                .find(|token| token.kind != TokenKind::Punct(b'('));
            if depth == 0 && inner.is_some_and(&starts) {
                first = Some(token);
                break;
            }
            depth += 1;
        } else if token.kind == TokenKind::Punct(b')') {
            depth = depth.checked_sub(1)?;
        } else if depth == 0 && starts(token) {
            first = Some(token);
            break;
        }
    }
    let end = clauses(sql, tokens, on_conflict);
    let mut last = tokens.get(..end)?.iter().rev();
    let last = last.find(|token| token.kind != TokenKind::Punct(b';'))?;
    Some(first?.start as usize..last.end as usize)
}

/// The number of the token that the clauses behind the query begin with.
fn clauses(sql: &[u8], tokens: &[Token], on_conflict: bool) -> usize {
    let is = |at: usize, word| tokens.get(at).is_some_and(|token| token.is_word(sql, word));
    let (mut depth, mut end) = (0_usize, tokens.len());
    let mut conflict = None;
    for (at, token) in tokens.iter().enumerate() {
        if token.kind == TokenKind::Punct(b'(') {
            depth += 1;
        } else if token.kind == TokenKind::Punct(b')') {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && is(at, "returning") {
            // A reserved word.
            end = end.min(at);
        } else if depth == 0 && on_conflict && is(at, "on") && is(at + 1, "conflict") && at < end {
            conflict = Some(at);
        }
    }
    conflict.unwrap_or(end)
}
