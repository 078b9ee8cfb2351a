//! A statement's text, and conditions in it.

use std::borrow::Cow;
use std::ops::Range;

use sqlparser::ast::{Expr, Spanned};

use crate::plan::edits::Edits;
use crate::plan::parse;
use crate::sql::Token;

/// What stands for a condition that holds.
pub(super) const TRUE: &[u8] = b"true";

/// So many tokens may be missing at either end of a span.
const MORE: usize = 3;

/// A condition of the text, on one relation alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Its tokens, by number.
    pub tokens: Range<usize>,
    /// Those of them that name the relation: its columns need no qualifier where it stands alone.
    pub qualifiers: Vec<usize>,
}

/// A statement's text and its tokens.
#[derive(Debug)]
pub struct Text<'a> {
    sql: Cow<'a, [u8]>,
    tokens: Cow<'a, [Token]>,
    /// What has been changed of the client's.
    edits: Edits,
}

impl<'a> Text<'a> {
    /// Of a text that has been planned.
    pub fn new(sql: &'a [u8]) -> Self {
        let end = u32::try_from(sql.len()).unwrap_or(u32::MAX);
        // What has been planned can be cut into tokens.
        let tokens = parse::tokens(sql, 0..end).unwrap_or_default();
        Self {
            sql: Cow::Borrowed(sql),
            tokens: Cow::Owned(tokens),
            edits: Edits::default(),
        }
    }

    /// Of a text that has been cut into these tokens.
    pub(in crate::plan) fn of(sql: &'a [u8], tokens: &'a [Token]) -> Self {
        Self {
            sql: Cow::Borrowed(sql),
            tokens: Cow::Borrowed(tokens),
            edits: Edits::default(),
        }
    }

    /// The client's text with `true` in the places of these conditions. Tokens keep their numbers: the first of a condition becomes
    /// that, the others nothing.
    pub fn without(self, conditions: &[Condition]) -> Self {
        if conditions.is_empty() {
            return self;
        }
        let places = conditions
            .iter()
            .filter_map(|condition| self.place(condition));
        let edits = Edits::new(places.map(|place| (place, TRUE.to_vec())).collect());
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let moved = |token: &Token| {
            let place = edits.moved(token.start as usize..token.end as usize);
            Token {
                start: offset(place.start),
                end: offset(place.end),
                ..*token
            }
        };
        Text {
            sql: Cow::Owned(edits.apply(&self.sql)),
            tokens: self.tokens.iter().map(moved).collect(),
            edits,
        }
    }

    /// Where in the client's text a character of this one comes from, both counted from 1; `sql` is the client's.
    pub fn origin(&self, sql: &[u8], position: usize) -> Option<usize> {
        self.edits.origin(sql, position)
    }

    /// The text itself.
    pub fn sql(&self) -> &[u8] {
        &self.sql
    }

    /// The tokens.
    pub(in crate::plan) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// A condition as it stands in the text, without its qualifiers. Of a text that is not the planned one it makes no SQL.
    pub(super) fn condition(&self, condition: &Condition) -> String {
        let kept = condition.tokens.clone();
        let kept = kept.filter(|number| !condition.qualifiers.contains(number));
        let text = |number: usize| {
            let token = self.tokens.get(number)?;
            std::str::from_utf8(token.text(&self.sql)).ok()
        };
        let words: Vec<&str> = kept.map(|number| text(number).unwrap_or("?")).collect();
        words.join(" ")
    }

    /// A condition for people: as the client has written it, without its qualifiers.
    pub(super) fn shown(&self, condition: &Condition) -> String {
        let mut shown = String::new();
        let mut end = None;
        let mut apart = false;
        for number in condition.tokens.clone() {
            let Some(token) = self.tokens.get(number) else {
                shown.push('?');
                continue;
            };
            apart |= end.is_some_and(|end| end < token.start);
            end = Some(token.end);
            if condition.qualifiers.contains(&number) {
                continue;
            }
            let text = String::from_utf8_lossy(token.text(&self.sql));
            let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
            if apart || shown.ends_with(is_word) && text.starts_with(is_word) {
                shown.push(' ');
            }
            apart = false;
            shown.push_str(&text);
        }
        shown
    }

    /// The tokens that are an expression: those which, parsed by themselves, are the same expression. The tree's own spans
    /// leave out words at either end.
    pub(super) fn locate(&self, expr: &Expr) -> Option<Range<usize>> {
        let span = expr.span();
        let (start, end) = (parse::offset(span.start), parse::offset(span.end));
        let tokens = self.tokens();
        let first = tokens.iter().position(|token| token.start >= start)?;
        let last = tokens.iter().rposition(|token| token.start < end)?;
        let places = (0..=MORE).flat_map(|before| (0..=MORE).map(move |after| (before, after)));
        places
            .filter_map(|(before, after)| {
                let range = first.checked_sub(before)?..last.checked_add(after + 1)?;
                let found = parse::expression(self.sql(), tokens.get(range.clone())?)?;
                (found == *expr).then_some(range)
            })
            .next()
    }

    /// The tokens of a condition.
    pub(super) fn tokens_of(&self, condition: &Condition) -> &[Token] {
        let tokens = self.tokens.get(condition.tokens.clone());
        tokens.unwrap_or_default()
    }

    /// Where a condition stands in the text, in bytes.
    pub(super) fn place(&self, condition: &Condition) -> Option<Range<usize>> {
        let first = self.tokens.get(condition.tokens.start)?;
        let last = self.tokens.get(condition.tokens.end.checked_sub(1)?)?;
        Some(first.start as usize..last.end as usize)
    }
}

/// Those of the tokens that are in none of the conditions.
pub(super) fn outside<'c, 't>(
    conditions: impl IntoIterator<Item = &'c Condition>,
    text: &Text<'_>,
    tokens: &'t [Token],
) -> Cow<'t, [Token]> {
    let conditions = conditions.into_iter();
    let places: Vec<Range<usize>> = conditions
        .filter_map(|condition| text.place(condition))
        .collect();
    if places.is_empty() {
        return Cow::Borrowed(tokens);
    }
    let outside = |token: &&Token| {
        !places
            .iter()
            .any(|place| place.contains(&(token.start as usize)))
    };
    let outside = tokens.iter().filter(outside);
    Cow::Owned(outside.copied().collect())
}

#[cfg(test)]
mod tests {
    use super::{Condition, Text};

    fn condition(tokens: std::ops::Range<usize>) -> Condition {
        Condition {
            tokens,
            qualifiers: Vec::new(),
        }
    }

    #[test]
    fn tokens_keep_their_numbers_without_conditions() {
        let sql = b"SELECT a FROM t WHERE b = 'x' AND c AND d < 5";
        let text = Text::new(sql).without(&[condition(5..8), condition(11..14)]);
        assert_eq!(text.sql(), b"SELECT a FROM t WHERE true AND c AND true");
        let words: Vec<&[u8]> = text
            .tokens()
            .iter()
            .map(|token| token.text(text.sql()))
            .collect();
        let expected = [
            "SELECT", "a", "FROM", "t", "WHERE", "true", "", "", "AND", "c", "AND", "true", "", "",
        ];
        assert_eq!(words, expected.map(str::as_bytes));
        // `c`, and what is ours.
        assert_eq!(text.origin(sql, 32), Some(35));
        assert_eq!(text.origin(sql, 24), None);
    }
}
