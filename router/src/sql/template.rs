//! Recognising a text that differs from one seen before in the values of its literals only.
//!
//! Purpose: clients send the same statement with other values again and again; comparing the bytes between the literals
//! and reading the literals alone takes a tenth of a [`Scan`]. Invariant: what a template matches, a scan would have given
//! the same key and the literals found here; it may fail to match what it could. Why that holds: tokens are cut from left
//! to right, and what the lexer sees ahead of a token is the same in both texts, because a literal is only taken for one
//! behind a blank, an operator or a punctuation mark, and starts with the same kind of character.

use super::lexer::{Class, Lexer, TokenKind, class};
use super::scan::{Literal, LiteralKind, Scan};

/// Longer texts are not worth keeping: they are mostly values.
const LONGEST: usize = 1024;

/// A text and where its literals are.
#[derive(Debug)]
pub(crate) struct Template {
    text: Box<[u8]>,
    literals: Box<[Literal]>,
}

impl Template {
    /// The template of a text that has just been scanned; `None` if it is not one statement or not worth keeping.
    pub(crate) fn new(sql: &[u8], scan: &Scan) -> Option<Self> {
        let stands_apart = |literal: &Literal| {
            let before = (literal.span.start as usize).checked_sub(1)?;
            let before = class(*sql.get(before)?);
            matches!(before, Class::Space | Class::Operator | Class::Punct).then_some(())
        };
        let apart = scan
            .literals
            .iter()
            .all(|literal| stands_apart(literal).is_some());
        if scan.by_value
            || !apart
            || sql.len() > LONGEST
            || scan.statements.len() != 1
            || scan.hint.is_some()
        {
            return None;
        }
        Some(Self {
            text: sql.into(),
            literals: scan.literals.as_slice().into(),
        })
    }

    /// Whether `sql` is this text but for the values of its literals, which are then in `literals`.
    pub(crate) fn matches(&self, sql: &[u8], literals: &mut Vec<Literal>) -> bool {
        literals.clear();
        let (mut here, mut there) = (0, 0);
        for literal in &self.literals {
            let (start, end) = (literal.span.start as usize, literal.span.end as usize);
            let fixed = self.text.get(there..start).unwrap_or_default();
            let at = here + fixed.len();
            if sql.get(here..at) != Some(fixed) || !self.starts_alike(start, sql, at) {
                return false;
            }
            let Some(found) = literal_at(sql, at, literal.kind) else {
                return false;
            };
            (here, there) = (found.span.end as usize, end);
            literals.push(found);
        }
        sql.get(here..) == self.text.get(there..)
    }

    fn starts_alike(&self, start: usize, sql: &[u8], at: usize) -> bool {
        match (self.text.get(start), sql.get(at)) {
            (Some(known), Some(found)) => class(*known) == class(*found),
            _ => false,
        }
    }
}

/// The literal of this kind that starts at `at`.
fn literal_at(sql: &[u8], at: usize, kind: LiteralKind) -> Option<Literal> {
    let token = Lexer::starting_at(sql, u32::try_from(at).ok()?)
        .next()
        .ok()??;
    let expected = match kind {
        LiteralKind::Integer => TokenKind::Integer,
        LiteralKind::Decimal => TokenKind::Decimal,
        LiteralKind::String => TokenKind::String,
    };
    (token.kind == expected).then_some(Literal {
        kind,
        span: token.start..token.end,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Template;
    use crate::sql::Scan;

    fn scan(sql: &str) -> Option<Scan> {
        let mut scan = Scan::new();
        scan.scan(sql.as_bytes()).ok().map(|()| scan)
    }

    fn matches(known: &str, sql: &str) -> bool {
        let template = Template::new(known.as_bytes(), &scan(known).unwrap()).unwrap();
        template.matches(sql.as_bytes(), &mut Vec::new())
    }

    #[test]
    fn only_values_may_differ() {
        let known = "SELECT a FROM t WHERE id = 5 AND s = 'x' LIMIT 1;";
        assert!(matches(known, known));
        assert!(matches(
            known,
            "SELECT a FROM t WHERE id = 12345 AND s = 'it''s 5' LIMIT 20;"
        ));
        for other in [
            "SELECT a FROM t WHERE id = 5.5 AND s = 'x' LIMIT 1;",
            "SELECT a FROM t WHERE id = '5' AND s = 'x' LIMIT 1;",
            "SELECT a FROM t WHERE id = -5 AND s = 'x' LIMIT 1;",
            "SELECT a FROM t WHERE id = 5 AND s = E'x' LIMIT 1;",
            "SELECT a FROM t WHERE id = 5 AND s = 'x' LIMIT 1",
            "SELECT a FROM t WHERE id = 5 AND s = 'x' LIMIT 1; ",
            "SELECT b FROM t WHERE id = 5 AND s = 'x' LIMIT 1;",
            "SELECT a FROM t WHERE id = 5 AND s = 'x'\n'y' LIMIT 1;",
            "SELECT a FROM t WHERE id = 5 AND s = 'x",
        ] {
            assert!(!matches(known, other), "{other}");
        }
    }

    #[test]
    fn a_text_that_means_its_values_makes_no_template() {
        for known in [
            "SET work_mem = '5MB'",
            "EXECUTE s (5, 12)",
            "FETCH 5 FROM c",
        ] {
            let template = Template::new(known.as_bytes(), &scan(known).unwrap());
            assert!(template.is_none(), "{known}");
        }
    }

    #[test]
    fn a_literal_that_touches_a_word_makes_no_template() {
        let known = "SELECT x.5";
        assert!(Template::new(known.as_bytes(), &scan(known).unwrap()).is_none());
    }

    /// Pieces whose meaning depends on what they touch.
    const PIECES: &[&str] = &[
        "SELECT ", "x", "e", "U&", "$1", "$", ".", "..", "5", "12", "1_0", "0x1", "5.0", ".5",
        "1e3", "'a'", "'b''c'", "''", "E'q'", "\n", " ", "-", "--", "/*", "*/", "+", "(", ")", ",",
        "=", "::", ":", "[", "\"i\"", ";",
    ];

    fn text() -> impl Strategy<Value = String> {
        proptest::collection::vec(proptest::sample::select(PIECES), 1..10)
            .prop_map(|pieces| format!("SELECT {}", pieces.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn what_matches_has_the_same_key_and_literals(known in text(), at in 0..40usize, with in proptest::sample::select(PIECES), cut in 0..4usize) {
            let mut other = known.clone();
            let at = at.min(other.len());
            let end = (at + cut).min(other.len());
            other.replace_range(at..end, with);
            if let Some(first) = scan(&known)
                && let Some(template) = Template::new(known.as_bytes(), &first)
            {
                let mut literals = Vec::new();
                if template.matches(other.as_bytes(), &mut literals) {
                    let second = scan(&other).expect("a text that matches can be scanned");
                    prop_assert_eq!(&first.normalized, &second.normalized, "{:?} {:?}", known, other);
                    prop_assert_eq!(literals, second.literals);
                    prop_assert_eq!(second.statements.len(), 1);
                }
            }
        }
    }
}
