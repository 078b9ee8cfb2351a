//! The lexer against PostgreSQL's rules, case by case, and the scanner's promises on any input.

use proptest::prelude::*;

use super::{Lexer, LiteralKind, Scan, TokenKind};

fn tokens(sql: &str) -> Result<Vec<(&str, TokenKind)>, &'static str> {
    let mut lexer = Lexer::new(sql.as_bytes());
    let mut found = Vec::new();
    loop {
        match lexer.next() {
            Ok(Some(token)) => {
                found.push((&sql[token.start as usize..token.end as usize], token.kind))
            }
            Ok(None) => return Ok(found),
            Err(error) => return Err(error.reason),
        }
    }
}

fn texts(sql: &str) -> Vec<&str> {
    tokens(sql)
        .unwrap()
        .into_iter()
        .map(|(text, _)| text)
        .collect()
}

fn kinds(sql: &str) -> Vec<TokenKind> {
    tokens(sql)
        .unwrap()
        .into_iter()
        .map(|(_, kind)| kind)
        .collect()
}

fn scan(sql: &str) -> Scan {
    let mut scan = Scan::new();
    scan.scan(sql.as_bytes()).unwrap();
    scan
}

#[test]
fn operators_end_where_postgresql_ends_them() {
    assert_eq!(texts("a=-1"), ["a", "=", "-", "1"]);
    assert_eq!(texts("a @-1"), ["a", "@-", "1"]);
    assert_eq!(texts("a*-/*c*/b"), ["a", "*", "-", "b"]);
    assert_eq!(texts("a<--c\nb"), ["a", "<", "b"]);
    assert_eq!(texts("a->>'b'"), ["a", "->>", "'b'"]);
    assert_eq!(texts("a+-+b"), ["a", "+", "-", "+", "b"]);
    assert_eq!(texts("a<=-b"), ["a", "<=", "-", "b"]);
    assert_eq!(texts("a::int8"), ["a", "::", "int8"]);
    assert_eq!(
        texts("f(a:=1,b=>2)"),
        ["f", "(", "a", ":=", "1", ",", "b", "=>", "2", ")"]
    );
}

#[test]
fn numbers_are_cut_as_postgresql_cuts_them() {
    use TokenKind::{Decimal, Integer, OtherNumber};
    assert_eq!(
        kinds("1 1.5 .5 1. 1e5 1.5E-3 1.e5"),
        [
            Integer, Decimal, Decimal, Decimal, Decimal, Decimal, Decimal
        ]
    );
    assert_eq!(kinds("1_000 0x1F 0o17 0b1 1_0.5"), [OtherNumber; 5]);
    assert_eq!(texts("1..2"), ["1", "..", "2"]);
    assert_eq!(texts("a[1:2]"), ["a", "[", "1", ":", "2", "]"]);
    for junk in ["1a", "1e", "1e+", "1.5x", "0x", "1_"] {
        assert!(tokens(junk).is_err(), "{junk}");
    }
}

#[test]
fn strings_end_where_postgresql_ends_them() {
    use TokenKind::{OtherString, String, Word};
    assert_eq!(kinds(r"'a\' b"), [String, Word]);
    assert_eq!(texts("'it''s'"), ["'it''s'"]);
    assert_eq!(kinds(r"E'a\' b' c"), [OtherString, Word]);
    assert_eq!(kinds(r"e'a\\' c"), [OtherString, Word]);
    assert_eq!(kinds("'a' 'b'"), [String, String]);
    assert_eq!(kinds("'a'\n'b'"), [OtherString]);
    assert_eq!(kinds("'a' -- c\n  'b'"), [OtherString]);
    assert_eq!(kinds("'a' /* c\n */ 'b'"), [String, String]);
    assert_eq!(kinds("E'a'\n'b\\'c'"), [OtherString]);
    assert_eq!(
        kinds("b'01' X'1f' n'x' U&'x' u&\"x\""),
        [
            OtherString,
            OtherString,
            OtherString,
            OtherString,
            TokenKind::UnicodeIdent
        ]
    );
    assert_eq!(texts("$$a'b$$ $x$ $$ $x$"), ["$$a'b$$", "$x$ $$ $x$"]);
    assert_eq!(texts("a$b$c"), ["a$b$c"]);
    assert_eq!(texts("$1 $23+1"), ["$1", "$23", "+", "1"]);
    for open in [
        "'a", "E'a\\'", "$$a", "$x$ $y$", "\"a", "/* /* */", "$1a", "a $ b",
    ] {
        assert!(tokens(open).is_err(), "{open}");
    }
}

#[test]
fn comments_nest_and_end() {
    assert_eq!(
        texts("a /* b /* c */ d */ e -- f\n g -- h"),
        ["a", "e", "g"]
    );
    assert_eq!(texts("a--b\rc"), ["a", "c"]);
    assert_eq!(texts("'--' \"/*\" a"), ["'--'", "\"/*\"", "a"]);
}

#[test]
fn only_literal_values_leave_the_key() {
    let same = |a: &str, b: &str| assert_eq!(scan(a).normalized, scan(b).normalized, "{a} | {b}");
    let different =
        |a: &str, b: &str| assert_ne!(scan(a).normalized, scan(b).normalized, "{a} | {b}");
    same(
        "SELECT * FROM t WHERE a = 1",
        "SELECT  *\nFROM t -- c\n WHERE a=/* c */22",
    );
    same("SELECT 'a'", "SELECT 'b''c'");
    same("insert into t values (1.5)", "insert into t values (2e3)");
    different("SELECT 1", "SELECT '1'");
    different("SELECT 1", "SELECT 1.0");
    different("SELECT 1", "SELECT -1");
    different("SELECT a", "SELECT b");
    different("SELECT a", "SELECT A");
    different("SELECT $1", "SELECT $2");
    different("SELECT E'a'", "SELECT E'b'");
    different("SELECT 0x1", "SELECT 0x2");
    different("SET a = 1", "SET a = 2");
    different(
        "CREATE TABLE t (a varchar(1))",
        "CREATE TABLE t (a varchar(2))",
    );
    different("SELECT 1", "/* switchyard: primary */ SELECT 1");
    different(
        "/* switchyard: shard=a */ SELECT 1",
        "/* switchyard: shard=b */ SELECT 1",
    );
    different(
        "/* switchyard: shard=a */ SELECT 1",
        "/* switchyard: shard=a primary */ SELECT 1",
    );
    different("SELECT a b", "SELECT ab");
    different("SELECT 'a' 'b'", "SELECT 'a'\n'b'");
    different("SELECT a; SELECT b", "SELECT a SELECT b");
}

#[test]
fn literals_are_where_they_are_said_to_be() {
    let sql = "SELECT 'x', 1, -2.5, E'e', $1 FROM t WHERE a = 'é''' AND b = 7";
    let scan = scan(sql);
    let found: Vec<_> = scan
        .literals
        .iter()
        .map(|l| (l.kind, &sql[l.span.start as usize..l.span.end as usize]))
        .collect();
    assert_eq!(
        found,
        [
            (LiteralKind::String, "'x'"),
            (LiteralKind::Integer, "1"),
            (LiteralKind::Decimal, "2.5"),
            (LiteralKind::String, "'é'''"),
            (LiteralKind::Integer, "7"),
        ]
    );
}

#[test]
fn statements_end_at_top_level_semicolons() {
    let statements = |sql: &str| -> Vec<String> {
        scan(sql)
            .statements
            .iter()
            .map(|s| sql[s.start as usize..s.end as usize].to_owned())
            .collect()
    };
    assert_eq!(statements(" ;; SELECT 1 ; ; BEGIN;"), ["SELECT 1", "BEGIN"]);
    assert_eq!(
        statements("SELECT ';' ; SELECT $$;$$"),
        ["SELECT ';'", "SELECT $$;$$"]
    );
    assert_eq!(
        statements("CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 3").len(),
        2
    );
    let body = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; SELECT 2; END; SELECT 3";
    assert_eq!(statements(body).len(), 2);
    assert_eq!(statements("BEGIN; SELECT 1; END").len(), 3);
    assert!(statements("-- nothing\n /* at all */ ;").is_empty());
}

/// Pieces that texts are made of, so that random texts hit the rules.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("SELECT".to_owned()),
        Just("INSERT".to_owned()),
        Just("SET".to_owned()),
        "[a-c]{1,3}",
        "[0-9]{1,3}(\\.[0-9]{0,2})?",
        "'[a-z' ]{0,4}'",
        "E'[a-z\\\\']{0,4}'",
        "\"[a-z]{1,3}\"",
        "\\$[1-9]",
        "[-+*/<>=~!@#%^&|`?]{1,3}",
        "[(),;.:\\[\\]]",
        "--[a-z]{0,3}\n",
        "/\\*[a-z*/]{0,4}\\*/",
        "\\$\\$[a-z';]{0,4}\\$\\$",
        "[ \n\t]{1,2}",
        "\\PC{1,2}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever the bytes: no panic, and what is found lies inside the text, in order, and covers all but blanks.
    #[test]
    fn any_bytes_are_scanned_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut scan = Scan::new();
        if scan.scan(&bytes).is_ok() {
            let mut end = 0;
            for literal in &scan.literals {
                prop_assert!(literal.span.start >= end && literal.span.start < literal.span.end);
                end = literal.span.end;
            }
            prop_assert!(end as usize <= bytes.len());
        }
    }

    /// Two texts have one key exactly if their tokens are the same but for the values of literals.
    #[test]
    fn one_key_means_one_sequence_of_tokens(
        a in prop::collection::vec(piece(), 0..12),
        b in prop::collection::vec(piece(), 0..12),
        blank in prop::sample::select(vec![" ", "\n", " /* c */ ", ""]),
    ) {
        let (a, b) = (a.concat(), b.join(blank));
        let (mut first, mut second) = (Scan::new(), Scan::new());
        if first.scan(a.as_bytes()).is_err() || second.scan(b.as_bytes()).is_err() {
            return Ok(());
        }
        prop_assert_eq!(first.normalized == second.normalized, shape(&a, &first) == shape(&b, &second), "{} | {}", a, b);
    }

    /// Scanning again gives the same, and another value of a literal gives the same key and the same slots.
    #[test]
    fn another_value_is_another_text_with_the_same_key(pieces in prop::collection::vec(piece(), 0..12), other in "[a-z]{0,5}") {
        let sql = format!("SELECT {}", pieces.join(" "));
        let mut before = Scan::new();
        if before.scan(sql.as_bytes()).is_err() || before.statements.len() != 1 {
            return Ok(());
        }
        let mut changed = sql.clone();
        for literal in before.literals.iter().rev() {
            if literal.kind == LiteralKind::String {
                changed.replace_range(literal.span.start as usize..literal.span.end as usize, &format!("'{other}'"));
            }
        }
        let mut after = Scan::new();
        prop_assert!(after.scan(changed.as_bytes()).is_ok(), "{}", changed);
        prop_assert_eq!(&before.normalized, &after.normalized, "{} | {}", sql, changed);
        prop_assert_eq!(before.literals.len(), after.literals.len());
    }
}

/// The tokens of a text with literal values left out where the key leaves them out; and the hint.
fn shape(sql: &str, scan: &Scan) -> (Vec<String>, String) {
    let mut shape = Vec::new();
    let mut statement_is_plain = None;
    for (text, kind) in tokens(sql).unwrap() {
        if kind == TokenKind::Punct(b';') {
            statement_is_plain = None;
        } else if statement_is_plain.is_none() && kind != TokenKind::Punct(b'(') {
            let plain = ["select", "insert", "update", "delete", "with", "values"];
            statement_is_plain = Some(
                kind == TokenKind::Word && plain.contains(&text.to_ascii_lowercase().as_str()),
            );
        }
        let left_out = matches!(
            kind,
            TokenKind::Integer | TokenKind::Decimal | TokenKind::String
        );
        shape.push(if left_out && statement_is_plain == Some(true) {
            format!("{kind:?}")
        } else {
            text.to_owned()
        });
    }
    (shape, format!("{:?}", scan.hint))
}
