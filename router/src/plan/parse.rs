//! From text to syntax tree, by sqlparser, as far as it reads the text as PostgreSQL does.
//!
//! Purpose: [`parse`] gives the tree of one statement, every span in it a byte offset of the text. Invariant: the tree comes
//! from the very tokens PostgreSQL sees. sqlparser's tokenizer is checked against [`crate::sql::Lexer`] token by token, and
//! a text the two cut differently is opaque. Trees too deep to walk are opaque too. The tree is only read, never printed.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a token that is not named is an operator or does not matter"
)]

use std::borrow::Cow;
use std::ops::Range;

use sqlparser::ast::{Expr, Statement};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserOptions};
use sqlparser::tokenizer::{
    Location, Span, Token as SqlToken, TokenWithSpan, Tokenizer, Whitespace,
};

use crate::sql::{Lexer, Token, TokenKind, Unscannable};

/// Why a statement is not understood: the detail of its refusal.
pub(super) type Opaque = &'static str;

/// How deep a tree may get: nested parentheses, and operators in a row (`a OR b OR …` leans to the left).
const MAX_DEPTH: usize = 1_500;

/// How deep the parser may call itself. [`super::STACK_BYTES`] is made for it.
const MAX_NESTING: usize = 50;

/// Every token of a range of a text.
pub(super) fn tokens(sql: &[u8], range: Range<u32>) -> Result<Vec<Token>, Unscannable> {
    let text = sql.get(..range.end as usize).unwrap_or(sql);
    let mut lexer = Lexer::starting_at(text, range.start);
    let mut tokens = Vec::new();
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
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
        return Err("empty");
    };
    if depth(tokens) > MAX_DEPTH {
        return Err("too deep");
    }
    let text = sql
        .get(first.start as usize..last.end as usize)
        .ok_or("not at character boundaries")?;
    let mut found = Tokenizer::new(&DIALECT, text)
        .with_unescape(false)
        .tokenize_with_location()
        .map_err(|_| "not tokenized")?;
    relocate(&mut found, text, first.start as usize);
    agree(tokens, &found)?;
    drop_words(&mut found);
    let options = ParserOptions {
        unescape: false,
        ..ParserOptions::default()
    };
    Ok(Parser::new(&DIALECT)
        .with_recursion_limit(MAX_NESTING)
        .with_options(options)
        .with_tokens_with_locations(found))
}

const DIALECT: PostgreSqlDialect = PostgreSqlDialect {};

/// Takes out words that sqlparser does not know and that do not matter to where a statement goes: the strength of row
/// locks and what they are of, ONLY, OVERRIDING SYSTEM VALUE, VARIADIC, and EXCLUDE in window frames. Writes ISNULL as
/// IS NULL.
fn drop_words(tokens: &mut Vec<TokenWithSpan>) {
    tokens.retain(|token| !matches!(token.token, SqlToken::Whitespace(_)));
    let mut kept: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut rest = tokens.as_slice();
    while let Some((first, after)) = rest.split_first() {
        let dropped = droppable(kept.last(), rest);
        if dropped > 0 {
            rest = rest.get(dropped..).unwrap_or_default();
            continue;
        }
        rest = after;
        match plain_word(first) {
            word if word.eq_ignore_ascii_case("isnull") && is_postfix(kept.last()) => {
                let word =
                    |word: &str| TokenWithSpan::new(SqlToken::make_keyword(word), first.span);
                kept.extend([word("IS"), word("NULL")]);
            }
            _ => kept.push(first.clone()),
        }
    }
    *tokens = kept;
}

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
    if is(0, "overriding") && is(1, "system") && is(2, "value") {
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

/// Turns lines and columns into byte offsets: line 1, column offset + 1.
fn relocate(tokens: &mut [TokenWithSpan], text: &str, base: usize) {
    let mut chars = text.char_indices();
    let mut at = (1u64, 1u64, 0usize);
    let mut offset_of = |location: Location| {
        while (at.0, at.1) < (location.line, location.column) {
            match chars.next() {
                Some((start, '\n')) => at = (at.0 + 1, 1, start + 1),
                Some((start, c)) => at = (at.0, at.1 + 1, start + c.len_utf8()),
                None => break,
            }
        }
        Location::new(1, (base + at.2) as u64 + 1)
    };
    for token in tokens {
        let start = offset_of(token.span.start);
        token.span = Span::new(start, offset_of(token.span.end));
    }
}

/// The byte offset of a relocated location.
pub(super) fn offset(location: Location) -> u32 {
    u32::try_from(location.column.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// What the two tokenizers must agree on. Operators are taken together: sqlparser cuts runs of them its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Word,
    QuotedIdent,
    Number,
    String,
    OtherString,
    Param,
    Punct(u8),
    Operators,
}

fn agree(ours: &[Token], theirs: &[TokenWithSpan]) -> Result<(), Opaque> {
    let ours = join(
        ours.iter()
            .map(|token| (shape(token), token.start, token.end)),
    );
    let visible = theirs
        .iter()
        .filter(|token| !matches!(token.token, SqlToken::Whitespace(_) | SqlToken::EOF));
    let theirs = join(visible.map(|t| {
        (
            their_shape(&t.token),
            offset(t.span.start),
            offset(t.span.end),
        )
    }));
    if ours.len() != theirs.len() {
        return Err("tokenized differently");
    }
    let same = |(ours, theirs): (&Piece, &Piece)| {
        // Where their token ends is not always reported; where the next one starts is.
        ours.0 == theirs.0 && ours.1 == theirs.1
    };
    if !ours.iter().zip(&theirs).all(same) {
        return Err("tokenized differently");
    }
    Ok(())
}

type Piece = (Shape, u32, u32);

/// Takes adjacent operators together.
fn join(pieces: impl Iterator<Item = Piece>) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces {
        match joined.last_mut() {
            Some(last)
                if last.0 == Shape::Operators
                    && piece.0 == Shape::Operators
                    && last.2 == piece.1 =>
            {
                last.2 = piece.2;
            }
            _ => joined.push(piece),
        }
    }
    joined
}

fn shape(token: &Token) -> Shape {
    match token.kind {
        TokenKind::Word => Shape::Word,
        TokenKind::QuotedIdent => Shape::QuotedIdent,
        TokenKind::Integer | TokenKind::Decimal | TokenKind::OtherNumber => Shape::Number,
        TokenKind::String => Shape::String,
        TokenKind::OtherString | TokenKind::UnicodeIdent => Shape::OtherString,
        TokenKind::Param => Shape::Param,
        TokenKind::Punct(byte @ (b'(' | b')' | b'[' | b']' | b',' | b';' | b'.')) => {
            Shape::Punct(byte)
        }
        TokenKind::Punct(_) | TokenKind::Operator => Shape::Operators,
    }
}

fn their_shape(token: &SqlToken) -> Shape {
    match token {
        SqlToken::Word(word) if word.quote_style.is_none() => Shape::Word,
        SqlToken::Word(_) => Shape::QuotedIdent,
        SqlToken::Number(..) => Shape::Number,
        SqlToken::SingleQuotedString(_) => Shape::String,
        SqlToken::EscapedStringLiteral(_)
        | SqlToken::UnicodeStringLiteral(_)
        | SqlToken::NationalStringLiteral(_)
        | SqlToken::HexStringLiteral(_)
        | SqlToken::SingleQuotedByteStringLiteral(_)
        | SqlToken::DollarQuotedString(_) => Shape::OtherString,
        SqlToken::Placeholder(_) => Shape::Param,
        SqlToken::LParen => Shape::Punct(b'('),
        SqlToken::RParen => Shape::Punct(b')'),
        SqlToken::LBracket => Shape::Punct(b'['),
        SqlToken::RBracket => Shape::Punct(b']'),
        SqlToken::Comma => Shape::Punct(b','),
        SqlToken::SemiColon => Shape::Punct(b';'),
        SqlToken::Period => Shape::Punct(b'.'),
        SqlToken::Whitespace(Whitespace::Space) => Shape::Operators,
        _ => Shape::Operators,
    }
}
