//! `t.tableoid = pg_class.oid`: the name of the table that a row of `t` is in. Every shard has its own number for a table, and the same
//! name, so that a shard can say it of its own rows.

use crate::sql::{Token, TokenKind};

/// Words of what is looked at no further.
const OTHER: &[&str] = &[
    "any",
    "case",
    "except",
    "exists",
    "full",
    "intersect",
    "left",
    "natural",
    "not",
    "or",
    "right",
    "union",
    "using",
    "with",
];

/// Whether the only thing that a statement reads of the catalogue is the name of the table that each row of another relation is
/// in.
pub(super) fn names_own_tables(sql: &[u8], tokens: &[Token]) -> bool {
    let statement = Words { sql, tokens };
    let Some(at) = statement.only("tableoid") else {
        return false;
    };
    let simple = statement.only("select").is_some()
        && !OTHER.iter().any(|word| statement.has(word))
        && statement.equals_number(at);
    let other = |position: usize| !statement.is_harmless(position, at);
    simple && statement.is_read_once() && !(0..tokens.len()).any(other)
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

    fn text(&self, at: usize) -> &[u8] {
        let token = self.tokens.get(at);
        token.map_or(b"", |token| token.text(self.sql))
    }

    fn has(&self, word: &str) -> bool {
        (0..self.tokens.len()).any(|at| self.is(at, word))
    }

    /// Where the word stands, if it stands once.
    fn only(&self, word: &str) -> Option<usize> {
        let mut places = (0..self.tokens.len()).filter(|at| self.is(*at, word));
        let first = places.next();
        first.filter(|_| places.next().is_none())
    }

    /// Whether `tableoid`, there, is in the condition `name.tableoid = pg_class.oid`, which holds for every row.
    fn equals_number(&self, at: usize) -> bool {
        let begins = at.checked_sub(3).is_some_and(|before| {
            ["where", "and", "on"]
                .iter()
                .any(|word| self.is(before, word))
        });
        let ends = ["and", "order", "limit", "where", ""];
        let ends = ends.iter().any(|word| match *word {
            "" => matches!(self.text(at + 5), b"" | b";"),
            word => self.is(at + 5, word),
        });
        begins
            && ends
            && self.text(at - 1) == b"."
            && self.text(at + 1) == b"="
            && self.is(at + 2, "pg_class")
            && self.text(at + 3) == b"."
            && self.is(at + 4, "oid")
    }

    /// `pg_class` stands once in FROM, under its own name, and else only in front of its columns.
    fn is_read_once(&self) -> bool {
        let mentions = (0..self.tokens.len()).filter(|at| self.is(*at, "pg_class"));
        let mut read = mentions.filter(|at| self.text(at + 1) != b".");
        let Some(at) = read.next() else {
            return false;
        };
        let after = matches!(self.text(at + 1), b"," | b"" | b";");
        let after = after
            || ["where", "on", "join"]
                .iter()
                .any(|word| self.is(at + 1, word));
        let before = at.checked_sub(1).is_some_and(|before| {
            self.text(before) == b"," || self.is(before, "from") || self.is(before, "join")
        });
        read.next().is_none() && after && before
    }

    /// Whether the token cannot be another column of `pg_class` than the name.
    fn is_harmless(&self, at: usize, tableoid: usize) -> bool {
        let Some(token) = self.tokens.get(at) else {
            return true;
        };
        match token.kind {
            TokenKind::Punct(b'*') | TokenKind::Operator if self.text(at) == b"*" => {
                let qualified = at.checked_sub(2).is_some_and(|before| {
                    self.text(before + 1) == b"." && !self.is(before, "pg_class")
                });
                let counted = at
                    .checked_sub(1)
                    .is_some_and(|before| self.text(before) == b"(");
                qualified || counted
            }
            TokenKind::Word => {
                let word = token.text(self.sql).to_ascii_lowercase();
                let number = word == b"oid" && at != tableoid + 4;
                word == b"relname" || !(number || word.starts_with(b"rel"))
            }
            TokenKind::QuotedIdent | TokenKind::UnicodeIdent => false,
            TokenKind::Integer
            | TokenKind::Decimal
            | TokenKind::OtherNumber
            | TokenKind::String
            | TokenKind::OtherString
            | TokenKind::Param
            | TokenKind::Operator
            | TokenKind::Punct(_) => true,
        }
    }
}
