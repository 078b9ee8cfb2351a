//! The code of a DO that is refused: PostgreSQL says what is wrong with it where a function is made of it.

use super::parse;
use crate::sql::{Token, TokenKind};

/// A statement that has PostgreSQL parse the code, and where that is in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Code {
    /// It makes a function.
    pub(crate) text: String,
    /// So many characters stand before the code there,
    own: usize,
    /// and so many in the client's text.
    clients: usize,
}

impl Code {
    /// That of a DO in PL/pgSQL.
    pub(crate) fn of(sql: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(sql).ok()?;
        let tokens = parse::tokens(sql, 0..u32::try_from(sql.len()).ok()?).ok()?;
        let is = |token: Option<&Token>, word| token.is_some_and(|token| token.is_word(sql, word));
        if !is(tokens.first(), "do") {
            return None;
        }
        if let Some(at) = tokens
            .iter()
            .position(|token| token.is_word(sql, "language"))
            && !is(tokens.get(at + 1), "plpgsql")
        {
            return None;
        }
        let is_string =
            |token: &&Token| matches!(token.kind, TokenKind::String | TokenKind::OtherString);
        let code = tokens.iter().find(is_string)?;
        let (start, end) = (code.start as usize, code.end as usize);
        let make = "CREATE FUNCTION pg_temp.\"switchyard do\"() RETURNS void LANGUAGE plpgsql AS ";
        Some(Self {
            text: format!("{make}{}", text.get(start..end)?),
            own: make.len(),
            clients: text.get(..start)?.chars().count(),
        })
    }

    /// The position in the client's text of one in this; both count from 1.
    pub(crate) fn origin(&self, position: usize) -> Option<usize> {
        Some(position.checked_sub(self.own)? + self.clients)
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn code_is_found_in_its_place() {
        let code = Code::of("DO /* ä */ LANGUAGE plpgsql $a$BEGIN x$a$".as_bytes()).unwrap();
        assert!(code.text.ends_with(" AS $a$BEGIN x$a$"));
        let at = code.text.len() - "$a$BEGIN x$a$".len();
        assert_eq!(code.origin(at + 1), Some(29));
        assert_eq!(Code::of(b"DO LANGUAGE plperl $$x$$"), None);
        assert_eq!(Code::of(b"SELECT $$x$$"), None);
        assert!(Code::of(b"do 'x' language PLPGSQL").is_some());
    }
}
