//! Names as PostgreSQL folds them.

use super::lexer::{Token, TokenKind};

/// The longest name; PostgreSQL cuts longer ones.
const NAME_BYTES: usize = 63;

/// An unquoted name: lower case, cut to length.
pub(crate) fn fold(text: &str) -> String {
    cut(text.to_ascii_lowercase())
}

/// A name cut to the length PostgreSQL keeps.
pub(crate) fn cut(mut name: String) -> String {
    if name.len() > NAME_BYTES {
        let mut end = NAME_BYTES;
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name.truncate(end);
    }
    name
}

/// A word or quoted identifier among the tokens as a name.
pub(crate) fn name(token: &Token, sql: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(token.text(sql)).ok()?;
    match token.kind {
        TokenKind::Word => Some(fold(text)),
        TokenKind::QuotedIdent => Some(cut(text.get(1..text.len() - 1)?.replace("\"\"", "\""))),
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
