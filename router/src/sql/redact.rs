//! Statements as a log may show them: without what clients keep in them.

use std::borrow::Cow;

use super::lexer::{Lexer, TokenKind};

/// The statement with `?` for each constant and a blank for each gap: no values, no comments. A text that cannot be cut
/// into tokens is not shown at all.
pub(crate) fn redacted(sql: &[u8]) -> Cow<'_, str> {
    const UNSHOWN: Cow<'static, str> = Cow::Borrowed("?");
    let mut lexer = Lexer::new(sql);
    let (mut shown, mut end) = (Vec::with_capacity(sql.len()), 0);
    loop {
        let token = match lexer.next() {
            Ok(Some(token)) => token,
            Ok(None) => break,
            Err(_) => return UNSHOWN,
        };
        if token.start > end && !shown.is_empty() {
            shown.push(b' ');
        }
        end = token.end;
        match token.kind {
            TokenKind::Integer
            | TokenKind::Decimal
            | TokenKind::OtherNumber
            | TokenKind::String
            | TokenKind::OtherString => shown.push(b'?'),
            TokenKind::Word
            | TokenKind::QuotedIdent
            | TokenKind::UnicodeIdent
            | TokenKind::Param
            | TokenKind::Operator
            | TokenKind::Punct(_) => shown.extend_from_slice(token.text(sql)),
        }
    }
    String::from_utf8(shown).map_or(UNSHOWN, Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_and_comments_are_not_shown() {
        for (sql, shown) in [
            (
                "SELECT a, $1 FROM t  WHERE b=-7 /* secret */ AND c > 1.5e3",
                "SELECT a, $1 FROM t WHERE b=-? AND c > ?",
            ),
            (
                "ALTER ROLE \"me\" PASSWORD 'it''s'-- secret",
                "ALTER ROLE \"me\" PASSWORD ?",
            ),
            (
                "SELECT E'\\'secret', $$secret$$, 'secret'\n'secret', 0xFF, X'AF'",
                "SELECT ?, ?, ?, ?, ?",
            ),
            ("SELECT 'never ends", "?"),
        ] {
            assert_eq!(redacted(sql.as_bytes()), shown, "{sql}");
        }
    }
}
