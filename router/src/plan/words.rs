//! Reading a statement word by word, for what is not parsed.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a token that is not named does not matter"
)]

use std::ops::Range;

use crate::sql::{self, Token, TokenKind};

/// A place among the tokens of a statement.
#[derive(Debug, Clone)]
pub(super) struct Words<'a> {
    pub(super) sql: &'a [u8],
    rest: &'a [Token],
}

impl<'a> Words<'a> {
    pub(super) fn new(sql: &'a [u8], tokens: &'a [Token]) -> Self {
        let is_end = |token: &Token| token.kind == TokenKind::Punct(b';');
        let ends = tokens
            .iter()
            .rev()
            .take_while(|token| is_end(token))
            .count();
        let rest = tokens.get(..tokens.len() - ends).unwrap_or_default();
        Words { sql, rest }
    }

    pub(super) fn rest(&self) -> &'a [Token] {
        self.rest
    }

    pub(super) fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    /// The range of what is left.
    pub(super) fn range(&self) -> Range<u32> {
        match (self.rest.first(), self.rest.last()) {
            (Some(first), Some(last)) => first.start..last.end,
            _ => 0..0,
        }
    }

    /// Takes one token.
    pub(super) fn next(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// Whether this word is next.
    pub(super) fn is(&self, word: &str) -> bool {
        self.rest
            .first()
            .is_some_and(|token| token.is_word(self.sql, word))
    }

    /// Takes this word, if it is next.
    pub(super) fn eat(&mut self, word: &str) -> bool {
        let found = self.is(word);
        if found {
            self.next();
        }
        found
    }

    /// Takes these words, if all are next.
    pub(super) fn eat_all(&mut self, words: &[&str]) -> bool {
        let back = self.rest;
        if words.iter().all(|word| self.eat(word)) {
            return true;
        }
        self.rest = back;
        false
    }

    /// Takes one of these words.
    pub(super) fn eat_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.eat(word))
    }

    /// Takes this character or operator.
    pub(super) fn eat_symbol(&mut self, symbol: &str) -> bool {
        let found = self.rest.first().is_some_and(|token| {
            matches!(token.kind, TokenKind::Punct(_) | TokenKind::Operator)
                && token.text(self.sql) == symbol.as_bytes()
        });
        if found {
            self.next();
        }
        found
    }

    /// Takes a name.
    pub(super) fn name(&mut self) -> Option<String> {
        let name = sql::name(self.rest.first()?, self.sql)?;
        self.next();
        Some(name.into_owned())
    }

    /// Takes a name with its schema, if it has one.
    pub(super) fn qualified_name(&mut self) -> Option<(Option<String>, String)> {
        let first = self.name()?;
        if !self.eat_symbol(".") {
            return Some((None, first));
        }
        Some((Some(first), self.name()?))
    }

    /// Takes everything up to this word outside parentheses, and the word.
    pub(super) fn skip_past(&mut self, word: &str) -> bool {
        let mut depth = 0u32;
        while let Some(token) = self.rest.first() {
            match token.kind {
                TokenKind::Punct(b'(') => depth += 1,
                TokenKind::Punct(b')') => depth = depth.saturating_sub(1),
                _ if depth == 0 && token.is_word(self.sql, word) => {
                    self.next();
                    return true;
                }
                _ => {}
            }
            self.next();
        }
        false
    }

    /// Takes a parenthesised list; returns the range of each item.
    pub(super) fn list(&mut self) -> Option<Vec<Range<u32>>> {
        if !self.eat_symbol("(") {
            return None;
        }
        let mut items = Vec::new();
        let mut item: Option<Range<u32>> = None;
        let mut depth = 0u32;
        while let Some(token) = self.next() {
            match token.kind {
                TokenKind::Punct(b')' | b']') if depth == 0 => {
                    items.extend(item);
                    return Some(items);
                }
                TokenKind::Punct(b',') if depth == 0 => {
                    items.extend(item.take());
                    continue;
                }
                TokenKind::Punct(b'(' | b'[') => depth += 1,
                TokenKind::Punct(b')' | b']') => depth -= 1,
                _ => {}
            }
            item = Some(item.map_or(token.start, |item| item.start)..token.end);
        }
        None
    }

    /// What is left, split at commas outside parentheses.
    pub(super) fn split(&self) -> impl Iterator<Item = Words<'a>> + use<'a> {
        let sql = self.sql;
        let mut depth = 0u32;
        let at_comma = move |token: &Token| {
            match token.kind {
                TokenKind::Punct(b'(') => depth += 1,
                TokenKind::Punct(b')') => depth = depth.saturating_sub(1),
                TokenKind::Punct(b',') => return depth == 0,
                _ => {}
            }
            false
        };
        self.rest
            .split(at_comma)
            .map(move |rest| Words { sql, rest })
    }

    /// Whether this word occurs anywhere in what is left.
    pub(super) fn has(&self, word: &str) -> bool {
        self.rest.iter().any(|token| token.is_word(self.sql, word))
    }
}
