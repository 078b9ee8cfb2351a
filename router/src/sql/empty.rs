//! Empty statements.

use super::lexer::{Class, Lexer, TokenKind, class};

/// The text with blanks in the places of semicolons before its first statement; `None` if there are none. They say nothing,
/// and a statement is known by what a text begins with; places in the text stay what they are.
pub(crate) fn without_empty(sql: &[u8]) -> Option<Vec<u8>> {
    let first = sql.iter().find(|byte| class(**byte) != Class::Space)?;
    if !matches!(first, b';' | b'/' | b'-') {
        return None;
    }
    let mut lexer = Lexer::new(sql);
    let mut without = None;
    while let Ok(Some(token)) = lexer.next()
        && token.kind == TokenKind::Punct(b';')
    {
        let text = without.get_or_insert_with(|| sql.to_vec());
        if let Some(byte) = text.get_mut(token.start as usize) {
            *byte = b' ';
        }
    }
    without
}

#[cfg(test)]
mod tests {
    use super::without_empty;

    #[test]
    fn semicolons_before_a_statement_are_blanks() {
        for (sql, without) in [
            ("SELECT ';'; ;", None),
            ("/* ; */ SELECT 1;", None),
            ("-1;", None),
            ("; SET a = 1; SELECT 2", Some("  SET a = 1; SELECT 2")),
            (" ;;\t/* ; */;SELECT ';'", Some("   \t/* ; */ SELECT ';'")),
            ("-- ;\n;BEGIN;", Some("-- ;\n BEGIN;")),
            ("\u{b};RESET ALL", Some("\u{b} RESET ALL")),
            (";;", Some("  ")),
            ("", None),
        ] {
            let found = without_empty(sql.as_bytes());
            let found = found.map(|text| String::from_utf8(text).unwrap());
            assert_eq!(found.as_deref(), without, "{sql}");
        }
    }
}
