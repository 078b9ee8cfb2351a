//! From text to syntax tree, by sqlparser, as far as it reads the text as PostgreSQL does.
//!
//! Purpose: [`parse`] gives the tree of one statement, every span in it a byte offset of the text. Invariant: the tree comes
//! from the very tokens PostgreSQL sees: the parser is given those of [`crate::sql::Lexer`], each as sqlparser has it, and a
//! statement with one that sqlparser does not have is opaque. Trees too deep to walk are opaque too. The tree is only read, never
//! printed.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a token that is not named is an operator or does not matter"
)]

use std::borrow::Cow;
use std::ops::Range;

use sqlparser::ast::{Expr, Statement};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserOptions};
use sqlparser::tokenizer::{Location, Span, Token as SqlToken, TokenWithSpan, Tokenizer};

use crate::sql::{Lexer, Token, TokenKind, Unscannable};

/// Why a statement is not understood: the detail of its refusal.
pub(super) type Opaque = &'static str;

/// How deep a tree may get: nested parentheses, and operators in a row (`a OR b OR …` leans to the left).
const MAX_DEPTH: usize = 1_500;

/// How deep the parser may call itself. [`super::STACK_BYTES`] is made for it.
const MAX_NESTING: usize = 50;

/// As a rule a text has no more tokens than one for so many bytes.
const TOKEN_BYTES: usize = 4;

/// Every token of a range of a text.
pub(super) fn tokens(sql: &[u8], range: Range<u32>) -> Result<Vec<Token>, Unscannable> {
    let text = sql.get(..range.end as usize).unwrap_or(sql);
    let mut lexer = Lexer::starting_at(text, range.start);
    let mut tokens = Vec::with_capacity(text.len() / TOKEN_BYTES);
    while let Some(token) = lexer.next()? {
        tokens.push(token);
    }
    Ok(tokens)
}

/// The text as the parser needs it. Bytes that are not UTF-8 may be in comments and in plain string literals: neither is
/// part of the cache key, so neither may decide how the statement is planned.
pub(super) fn readable<'a>(sql: &'a [u8], tokens: &[Token]) -> Option<Cow<'a, str>> {
    if let Ok(text) = std::str::from_utf8(sql) {
        return Some(Cow::Borrowed(text));
    }
    let mut text = vec![b' '; sql.len()];
    for token in tokens {
        let (start, end) = (token.start as usize, token.end as usize);
        let into = text.get_mut(start..end)?;
        into.copy_from_slice(token.text(sql));
        if token.kind == TokenKind::String {
            into.iter_mut()
                .filter(|byte| !byte.is_ascii())
                .for_each(|byte| *byte = b'?');
        }
    }
    String::from_utf8(text).ok().map(Cow::Owned)
}

/// Parses the one statement that the tokens are.
pub(super) fn parse(sql: &str, tokens: &[Token]) -> Result<Statement, Opaque> {
    let tokens = match tokens {
        [
            rest @ ..,
            Token {
                kind: TokenKind::Punct(b';'),
                ..
            },
        ] => rest,
        _ => tokens,
    };
    let mut parser = parser(sql, tokens)?;
    let statement = parser.parse_statement().map_err(|_| "not parsed")?;
    match parser.peek_token().token {
        SqlToken::EOF => Ok(statement),
        _ => Err("not parsed to the end"),
    }
}

/// Parses the one expression that the tokens are; `None` if they are none.
pub(super) fn expression(sql: &[u8], tokens: &[Token]) -> Option<Expr> {
    let text = readable(sql, tokens)?;
    let mut parser = parser(&text, tokens).ok()?;
    let expr = parser.parse_expr().ok()?;
    (parser.peek_token().token == SqlToken::EOF).then_some(expr)
}

/// A parser of what the tokens are.
fn parser(sql: &str, tokens: &[Token]) -> Result<Parser<'static>, Opaque> {
    if tokens.is_empty() {
        return Err("empty");
    }
    if depth(tokens) > MAX_DEPTH {
        return Err("too deep");
    }
    let found = translate(sql, tokens)?;
    let options = ParserOptions {
        unescape: false,
        ..ParserOptions::default()
    };
    Ok(Parser::new(&DIALECT)
        .with_recursion_limit(MAX_NESTING)
        .with_options(options)
        .with_tokens_with_locations(drop_words(found)))
}

const DIALECT: PostgreSqlDialect = PostgreSqlDialect {};

/// Takes out words that sqlparser does not know and that do not matter to where a statement goes: the strength of row
/// locks and what they are of, ONLY, OVERRIDING … VALUE, VARIADIC, EXCLUDE in window frames, the predicate of a partial
/// index in ON CONFLICT, and constant subscripts of columns that are set. Writes ISNULL as IS NULL, TABLE as SELECT * FROM where it is the whole of a statement or ON CONFLICT is behind it, and BETWEEN SYMMETRIC as NOT
/// BETWEEN, of which nothing is concluded, as nothing can be from bounds in any order.
fn drop_words(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut kept: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut rest = tokens.into_iter();
    loop {
        let parts = [predicate, subscript];
        let parts = parts.map(|length| length(&kept, rest.as_slice()));
        let dropped = match parts.iter().sum() {
            0 => droppable(kept.last(), rest.as_slice()),
            length => length,
        };
        if dropped > 0 {
            rest.by_ref().take(dropped).for_each(drop);
            continue;
        }
        let Some(first) = rest.next() else {
            return kept;
        };
        let word = |word: &str| TokenWithSpan::new(SqlToken::make_keyword(word), first.span);
        match plain_word(&first) {
            own if own.eq_ignore_ascii_case("isnull") && is_postfix(kept.last()) => {
                kept.extend([word("IS"), word("NULL")]);
            }
            own if own.eq_ignore_ascii_case("symmetric") && is(kept.last(), "between") => {
                let between = kept.pop();
                if !is(kept.last(), "not") {
                    kept.push(word("NOT"));
                }
                kept.extend(between);
            }
            own if own.eq_ignore_ascii_case("table") && is_all(kept.last(), rest.as_slice()) => {
                let all = TokenWithSpan::new(SqlToken::Mul, first.span);
                kept.extend([word("SELECT"), all, word("FROM")]);
            }
            _ => kept.push(first),
        }
    }
}

fn is(token: Option<&TokenWithSpan>, word: &str) -> bool {
    token.is_some_and(|token| plain_word(token).eq_ignore_ascii_case(word))
}

/// Whether these tokens behind TABLE are a table's name, and nothing but an ON CONFLICT is behind it.
fn is_all(before: Option<&TokenWithSpan>, rest: &[TokenWithSpan]) -> bool {
    let at = |at: usize| rest.get(at).map(|token| &token.token);
    let name = match at(1) == Some(&SqlToken::Period) {
        true => 3,
        false => 1,
    };
    let conflicts = is(rest.get(name), "on") && is(rest.get(name + 1), "conflict");
    let is_whole = before.is_none() && rest.len() == name;
    matches!(at(name - 1), Some(SqlToken::Word(_))) && (conflicts || is_whole)
}

/// The length of the predicate of a partial index, if these tokens begin with one: it is behind the columns of an ON CONFLICT.
fn predicate(kept: &[TokenWithSpan], rest: &[TokenWithSpan]) -> usize {
    let closes = kept
        .last()
        .is_some_and(|token| token.token == SqlToken::RParen);
    if !closes || !is(rest.first(), "where") {
        return 0;
    }
    let columns = kept
        .iter()
        .rposition(|token| token.token == SqlToken::LParen);
    let before = columns.and_then(|at| kept.get(at.checked_sub(1)?));
    if !is(before, "conflict") {
        return 0;
    }
    let mut depth = 0_usize;
    let action = rest.iter().position(|token| {
        depth += usize::from(token.token == SqlToken::LParen);
        depth = depth.saturating_sub(usize::from(token.token == SqlToken::RParen));
        depth == 0 && is(Some(token), "do")
    });
    action.unwrap_or(0)
}

/// The length of a subscript that these tokens begin with, if it is of a column that SET gives a value, and of constants alone: what is in the
/// element of a column is in the column.
fn subscript(kept: &[TokenWithSpan], rest: &[TokenWithSpan]) -> usize {
    let is_open = |token: &TokenWithSpan| token.token == SqlToken::LBracket;
    let is_column = |token: &TokenWithSpan| matches!(token.token, SqlToken::Word(_));
    if !rest.first().is_some_and(is_open) || !kept.last().is_some_and(is_column) {
        return 0;
    }
    let is_constant = |token: &TokenWithSpan| {
        matches!(
            token.token,
            SqlToken::Number(..)
                | SqlToken::SingleQuotedString(_)
                | SqlToken::Placeholder(_)
                | SqlToken::Minus
                | SqlToken::Colon
        )
    };
    let constants = rest.iter().skip(1).take_while(|token| is_constant(token));
    let length = constants.count() + 2;
    let closes = |token: &TokenWithSpan| token.token == SqlToken::RBracket;
    let is_whole = length > 2 && rest.get(length - 1).is_some_and(closes);
    let mut behind = rest.iter().skip(length);
    let is_set = behind
        .next()
        .is_some_and(|token| is_open(token) || token.token == SqlToken::Eq);
    match is_whole && is_set && is_assigned(kept) {
        true => length,
        false => 0,
    }
}

/// Whether the last of these tokens stands where SET has the name of a column.
fn is_assigned(kept: &[TokenWithSpan]) -> bool {
    let mut before = kept.iter().rev().skip(1);
    let mut token = before.next();
    if token.is_none_or(|token| token.token != SqlToken::Comma && !is(Some(token), "set")) {
        return false;
    }
    let mut depth = 0_usize;
    while let Some(here) = token {
        match here.token {
            SqlToken::RParen => depth += 1,
            SqlToken::LParen if depth == 0 => return false,
            SqlToken::LParen => depth -= 1,
            _ if depth == 0 && is(token, "set") => return true,
            _ if depth == 0 && ENDS_OF_SET.iter().any(|word| is(token, word)) => return false,
            _ => {}
        }
        token = before.next();
    }
    false
}

/// No SET goes on behind one of these.
const ENDS_OF_SET: [&str; 7] = [
    "from",
    "group",
    "order",
    "returning",
    "select",
    "values",
    "where",
];

/// Whether a word after this token is a postfix operator and not a name.
fn is_postfix(before: Option<&TokenWithSpan>) -> bool {
    before.is_some_and(|token| {
        !plain_word(token).eq_ignore_ascii_case("as")
            && !matches!(
                token.token,
                SqlToken::Period | SqlToken::Comma | SqlToken::LParen
            )
    })
}

/// How many tokens to drop here.
fn droppable(before: Option<&TokenWithSpan>, rest: &[TokenWithSpan]) -> usize {
    let word = |at: usize| rest.get(at).map_or("", |token| plain_word(token));
    let is = |at: usize, expected: &str| word(at).eq_ignore_ascii_case(expected);
    let after = |words: &[&str]| {
        before.is_some_and(|token| {
            words
                .iter()
                .any(|w| plain_word(token).eq_ignore_ascii_case(w))
        })
    };
    let name = |at: usize| {
        matches!(
            rest.get(at).map(|token| &token.token),
            Some(SqlToken::Word(_))
        )
    };
    if is(0, "no") && is(1, "key") && is(2, "update") && after(&["for"]) {
        return 2;
    }
    if is(0, "key") && is(1, "share") && after(&["for"]) {
        return 1;
    }
    if is(0, "of") && after(&["update", "share"]) {
        return 1 + names(rest.get(1..).unwrap_or_default());
    }
    let comma = before.is_some_and(|token| token.token == SqlToken::Comma);
    if is(0, "only") && name(1) && (comma || after(&["from", "join", "update", "using"])) {
        return 1;
    }
    if is(0, "overriding") && (is(1, "system") || is(1, "user")) && is(2, "value") {
        return 3;
    }
    let opening = before.is_some_and(|token| token.token == SqlToken::LParen);
    if is(0, "variadic") && (comma || opening) {
        return 1;
    }
    let excluded = [("current", "row"), ("no", "others")]
        .iter()
        .any(|(a, b)| is(1, a) && is(2, b));
    match is(0, "exclude") {
        true if excluded => 3,
        true if is(1, "group") || is(1, "ties") => 2,
        _ => 0,
    }
}

fn plain_word(token: &TokenWithSpan) -> &str {
    match &token.token {
        SqlToken::Word(word) if word.quote_style.is_none() => &word.value,
        _ => "",
    }
}

/// The length of a list of names.
fn names(tokens: &[TokenWithSpan]) -> usize {
    let mut length = 0;
    loop {
        match tokens.get(length).map(|token| &token.token) {
            Some(SqlToken::Word(_)) => length += 1,
            _ => return length,
        }
        match tokens.get(length).map(|token| &token.token) {
            Some(SqlToken::Comma | SqlToken::Period) => length += 1,
            _ => return length,
        }
    }
}

/// A bound on the depth of the tree: tokens since the last comma, summed over the open parentheses.
fn depth(tokens: &[Token]) -> usize {
    let mut open: Vec<usize> = Vec::new();
    let (mut here, mut below, mut deepest) = (0, 0, 0);
    for token in tokens {
        match token.kind {
            TokenKind::Punct(b'(' | b'[') => {
                open.push(here);
                below += here;
                here = 0;
            }
            TokenKind::Punct(b')' | b']') => {
                here = open.pop().unwrap_or(0);
                below -= here.min(below);
                here += 1;
            }
            TokenKind::Punct(b',') => here = 0,
            _ => here += 1,
        }
        deepest = deepest.max(below + here);
    }
    deepest
}

/// PostgreSQL's tokens as sqlparser has them, each where it stands in the text.
fn translate(sql: &str, tokens: &[Token]) -> Result<Vec<TokenWithSpan>, Opaque> {
    let mut translated = Vec::with_capacity(tokens.len() + 1);
    for token in tokens {
        let text = sql
            .get(token.start as usize..token.end as usize)
            .ok_or("not at character boundaries")?;
        match usual(token.kind, text) {
            Some(found) => translated.push(TokenWithSpan::new(found, span(token))),
            None => unusual(token, text, &mut translated)?,
        }
    }
    Ok(translated)
}

fn span(token: &Token) -> Span {
    let location = |at: u32| Location::new(1, u64::from(at) + 1);
    Span::new(location(token.start), location(token.end))
}

/// The byte offset of a location.
pub(super) fn offset(location: Location) -> u32 {
    u32::try_from(location.column.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// The token that sqlparser makes of it, where that is plain.
fn usual(kind: TokenKind, text: &str) -> Option<SqlToken> {
    let inside = || text.get(1..text.len().checked_sub(1)?);
    Some(match kind {
        TokenKind::Word => SqlToken::make_word(text, None),
        TokenKind::QuotedIdent => SqlToken::make_word(inside()?, Some('"')),
        TokenKind::Integer | TokenKind::Decimal => SqlToken::Number(text.to_owned(), false),
        TokenKind::String => SqlToken::SingleQuotedString(inside()?.to_owned()),
        TokenKind::Param => SqlToken::Placeholder(text.to_owned()),
        TokenKind::Punct(b'(') => SqlToken::LParen,
        TokenKind::Punct(b')') => SqlToken::RParen,
        TokenKind::Punct(b'[') => SqlToken::LBracket,
        TokenKind::Punct(b']') => SqlToken::RBracket,
        TokenKind::Punct(b',') => SqlToken::Comma,
        TokenKind::Punct(b';') => SqlToken::SemiColon,
        TokenKind::Punct(b'.') => SqlToken::Period,
        TokenKind::Operator => match text {
            "=" => SqlToken::Eq,
            "<>" => SqlToken::Neq,
            "<" => SqlToken::Lt,
            ">" => SqlToken::Gt,
            "<=" => SqlToken::LtEq,
            ">=" => SqlToken::GtEq,
            "+" => SqlToken::Plus,
            "-" => SqlToken::Minus,
            "*" => SqlToken::Mul,
            "/" => SqlToken::Div,
            "||" => SqlToken::StringConcat,
            "::" => SqlToken::DoubleColon,
            _ => return None,
        },
        _ => return None,
    })
}

/// Adds what sqlparser itself makes of a token: one of the same kind, or an operator in pieces.
fn unusual(token: &Token, text: &str, into: &mut Vec<TokenWithSpan>) -> Result<(), Opaque> {
    let found = Tokenizer::new(&DIALECT, text)
        .with_unescape(false)
        .tokenize_with_location()
        .map_err(|_| "not tokenized")?;
    let same = match (token.kind, found.as_slice()) {
        (TokenKind::Operator | TokenKind::Punct(_), pieces) => {
            pieces.iter().all(|piece| is_operator(&piece.token))
        }
        (TokenKind::OtherNumber, [one]) => matches!(one.token, SqlToken::Number(..)),
        (TokenKind::OtherString, [one]) => is_other_string(&one.token),
        _ => false,
    };
    if !same {
        return Err("tokenized differently");
    }
    into.extend(found.into_iter().map(|piece| {
        // An operator is of one byte for each column.
        let start = token.start.saturating_add(offset(piece.span.start));
        let own = Token { start, ..*token };
        TokenWithSpan::new(piece.token, span(&own))
    }));
    Ok(())
}

/// Constants of kinds that are kept exactly.
fn is_other_string(token: &SqlToken) -> bool {
    matches!(
        token,
        SqlToken::EscapedStringLiteral(_)
            | SqlToken::UnicodeStringLiteral(_)
            | SqlToken::NationalStringLiteral(_)
            | SqlToken::HexStringLiteral(_)
            | SqlToken::SingleQuotedByteStringLiteral(_)
            | SqlToken::DollarQuotedString(_)
    )
}

/// Whether a token that is made of an operator's text is one.
fn is_operator(token: &SqlToken) -> bool {
    !matches!(
        token,
        SqlToken::Word(_)
            | SqlToken::Number(..)
            | SqlToken::SingleQuotedString(_)
            | SqlToken::Placeholder(_)
            | SqlToken::Period
            | SqlToken::Whitespace(_)
            | SqlToken::EOF
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(sql: &str) -> Result<Vec<TokenWithSpan>, Opaque> {
        let end = u32::try_from(sql.len()).unwrap();
        translate(sql, &tokens(sql.as_bytes(), 0..end).unwrap())
    }

    /// Where PostgreSQL and sqlparser cut alike, the parser is given what it would be given by its own tokenizer.
    #[test]
    fn tokens_are_those_that_sqlparser_has() {
        let texts = [
            "SELECT a.\"B\"\"c\", 'it''s', 1, 2.5, .5, 1e3, 1_000, $1 FROM t AS ä /* c */ WHERE x -- d",
            "E'\\n' || N'n' || x'1f' || $$d$$ || $e$ $$ $e$ || U&'\\0061' || 'f'",
            "(a[1:2])::int, b; = <> != < > <= >= + - * / % ^ || :: := => ~ !~ ~* !~* ~~ !~~",
            "-> ->> #> #>> @> <@ ? ?| ?& && | & # << >> |/ ||/ @ <-> -|- <=> @@ @@@ ##",
        ];
        for text in texts {
            let own = cut(text).unwrap().into_iter().map(|found| found.token);
            let mut tokenizer = Tokenizer::new(&DIALECT, text).with_unescape(false);
            let theirs = tokenizer.tokenize().unwrap().into_iter();
            let theirs = theirs.filter(|token| !matches!(token, SqlToken::Whitespace(_)));
            assert_eq!(own.collect::<Vec<_>>(), theirs.collect::<Vec<_>>());
        }
    }

    #[test]
    fn tokens_are_cut_and_stand_where_postgresql_cuts_them() {
        let found = cut("SELECT\n 'ä' <-1").unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|found| {
                (
                    found.to_string(),
                    offset(found.span.start),
                    offset(found.span.end),
                )
            })
            .collect();
        let expected = [
            ("SELECT", 0, 6),
            ("'ä'", 8, 12),
            ("<", 13, 14),
            ("-", 14, 15),
            ("1", 15, 16),
        ];
        let expected = expected.map(|(text, start, end)| (text.to_owned(), start, end));
        assert_eq!(found, expected);
        for other in ["U&\"a\"", "0x1f", "'a'\n'b'", "a .. b"] {
            assert_eq!(cut(other), Err("tokenized differently"), "{other}");
        }
    }
}
