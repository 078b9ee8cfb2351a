//! Names as PostgreSQL folds them.

use std::borrow::Cow;

use super::lexer::{Token, TokenKind};

/// The longest name; PostgreSQL cuts longer ones.
const NAME_BYTES: usize = 63;

/// An unquoted name: lower case, cut to length.
pub(crate) fn fold(text: &str) -> Cow<'_, str> {
    match text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => cut(Cow::Owned(text.to_ascii_lowercase())),
        false => cut(Cow::Borrowed(text)),
    }
}

/// What a quoted name stands for, from between its quotes.
pub(crate) fn unquoted(inside: &str) -> Cow<'_, str> {
    match inside.contains('"') {
        true => cut(Cow::Owned(inside.replace("\"\"", "\""))),
        false => cut(Cow::Borrowed(inside)),
    }
}

/// A name cut to the length PostgreSQL keeps.
fn cut(name: Cow<'_, str>) -> Cow<'_, str> {
    if name.len() <= NAME_BYTES {
        return name;
    }
    let end = name.floor_char_boundary(NAME_BYTES);
    match name {
        Cow::Borrowed(name) => Cow::Borrowed(&name[..end]),
        Cow::Owned(mut name) => {
            name.truncate(end);
            Cow::Owned(name)
        }
    }
}

/// A word or quoted identifier among the tokens as a name.
pub(crate) fn name<'a>(token: &Token, sql: &'a [u8]) -> Option<Cow<'a, str>> {
    let text = || std::str::from_utf8(token.text(sql)).ok();
    match token.kind {
        TokenKind::Word => Some(fold(text()?)),
        TokenKind::QuotedIdent => {
            let text = text()?;
            Some(unquoted(text.get(1..text.len() - 1)?))
        }
        TokenKind::Integer
        | TokenKind::Decimal
        | TokenKind::OtherNumber
        | TokenKind::String
        | TokenKind::OtherString
        | TokenKind::UnicodeIdent
        | TokenKind::Param
        | TokenKind::Operator
        | TokenKind::Punct(_) => None,
    }
}
