//! One pass over a text: the plan cache's key, the literals in it, its statements and its hint.
//!
//! Purpose: two texts with the same [`Scan::normalized`] differ in the values of integer, decimal and plain string
//! literals only, so one plan serves both. Invariant: the key keeps every token in order, a literal as the mark of
//! its kind (its sign is an operator and stays); comments and white space are out, a leading hint is in. A statement
//! that is not a query or a plain write keeps its literals too. Collaborators: [`super::lexer`] finds the tokens.

use std::ops::Range;

use super::hint::Hint;
use super::lexer::{Lexer, Token, TokenKind, Unscannable};

/// The kind of a literal whose value is not part of the cache key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LiteralKind {
    /// `42`
    Integer,
    /// `4.2`, `.5`, `1e3`
    Decimal,
    /// `'text'`; quotes inside are doubled.
    String,
}

/// A literal of the text, in the order of appearance: its *slot* is its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Literal {
    /// What it is.
    pub kind: LiteralKind,
    /// Where it is in the text, in bytes, quotes included.
    pub span: Range<u32>,
}

/// What one pass over a text found. Reuse one value for many texts: its buffers are kept.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    /// The cache key.
    pub normalized: Vec<u8>,
    /// Every integer, decimal and plain string literal.
    pub literals: Vec<Literal>,
    /// The statements between top-level semicolons, from first to last token; empty ones are left out.
    pub statements: Vec<Range<u32>>,
    /// The hint in front of the first token.
    pub hint: Option<Hint>,
    /// The values of literals are part of the key: what the text means depends on them.
    pub(crate) by_value: bool,
}

/// Marks of literals in the key: control bytes, which the lexer accepts nowhere outside constants.
const INTEGER_MARK: u8 = 0x01;
const DECIMAL_MARK: u8 = 0x02;
const STRING_MARK: u8 = 0x03;

/// How the literals of the current statement enter the key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// No word seen yet.
    Undecided,
    /// As marks.
    Marks,
    /// As they are.
    Exact,
}

impl Scan {
    /// An empty scan.
    pub fn new() -> Self {
        Scan::default()
    }

    /// Reads a text, replacing what an earlier call found.
    pub fn scan(&mut self, sql: &[u8]) -> Result<(), Unscannable> {
        self.normalized.clear();
        self.literals.clear();
        self.statements.clear();
        self.hint = None;
        self.by_value = false;
        // Every token is followed by a blank in the key, and short ones are copied as blocks.
        self.normalized.resize(2 * sql.len() + 2 * BLOCK, 0);
        let mut key = 0;
        let mut lexer = Lexer::new(sql);
        self.leading_hint(&mut lexer)?;
        let mut mode = Mode::Undecided;
        let mut nesting = Nesting::default();
        let mut statement: Option<Range<u32>> = None;
        while let Some(token) = lexer.next()? {
            if token.kind == TokenKind::Punct(b';') {
                self.write(b";", 0, 1, &mut key);
                if nesting.is_top() {
                    self.statements.extend(statement.take());
                    mode = Mode::Undecided;
                    nesting = Nesting::default();
                }
                continue;
            }
            statement = Some(statement.map_or(token.start, |range| range.start)..token.end);
            if mode == Mode::Undecided {
                mode = decide(token, sql);
            }
            nesting.see(token, sql, mode);
            self.token(token, sql, mode, &mut key);
        }
        self.normalized.truncate(key);
        self.statements.extend(statement);
        if let Some(hint) = &self.hint {
            hint.write_key(&mut self.normalized);
        }
        Ok(())
    }

    /// A text of this length has been recognised as one statement without a hint; its literals are noted already, its key
    /// is not known.
    pub(crate) fn recognised(&mut self, length: usize) {
        self.normalized.clear();
        self.hint = None;
        self.by_value = false;
        self.statements.clear();
        self.statements
            .push(0..u32::try_from(length).unwrap_or(u32::MAX));
    }

    fn leading_hint(&mut self, lexer: &mut Lexer<'_>) -> Result<(), Unscannable> {
        loop {
            lexer.skip_space();
            match lexer.block_comment()? {
                Some(inside) => {
                    if let Some(hint) = Hint::parse(inside) {
                        self.hint = Some(hint);
                    }
                }
                None if lexer.line_comment() => {}
                None => return Ok(()),
            }
        }
    }

    #[inline]
    fn token(&mut self, token: Token, sql: &[u8], mode: Mode, key: &mut usize) {
        let (start, end) = (token.start as usize, token.end as usize);
        let (kind, mark) = match token.kind {
            TokenKind::Integer => (LiteralKind::Integer, INTEGER_MARK),
            TokenKind::Decimal => (LiteralKind::Decimal, DECIMAL_MARK),
            TokenKind::String => (LiteralKind::String, STRING_MARK),
            TokenKind::Word
            | TokenKind::QuotedIdent
            | TokenKind::OtherNumber
            | TokenKind::OtherString
            | TokenKind::UnicodeIdent
            | TokenKind::Param
            | TokenKind::Operator
            | TokenKind::Punct(_) => return self.write(sql, start, end, key),
        };
        self.literals.push(Literal {
            kind,
            span: token.start..token.end,
        });
        if mode == Mode::Marks {
            self.write(&[mark], 0, 1, key);
        } else {
            self.by_value = true;
            self.write(sql, start, end, key);
        }
    }

    /// Writes a piece of `from` and a blank to the key.
    #[inline]
    fn write(&mut self, from: &[u8], start: usize, end: usize, key: &mut usize) {
        let length = end - start;
        let block = from.get(start..start + BLOCK).filter(|_| length <= BLOCK);
        match (block, self.normalized.get_mut(*key..*key + BLOCK)) {
            (Some(block), Some(into)) => into.copy_from_slice(block),
            _ => self.normalized[*key..*key + length].copy_from_slice(&from[start..end]),
        }
        *key += length;
        self.normalized[*key] = b' ';
        *key += 1;
    }
}

/// Tokens up to this length are copied as a block of this length: cheaper than a copy of odd length.
const BLOCK: usize = 16;

/// What a semicolon may be inside of without ending the statement: parentheses (`CREATE RULE … DO (a; b)`) and SQL
/// function bodies (`CREATE FUNCTION … BEGIN ATOMIC a; b; END`).
#[derive(Default)]
struct Nesting {
    parentheses: u32,
    /// `CREATE` was the first word.
    create: bool,
    after_begin: bool,
    /// Depth of `BEGIN ATOMIC … END` and, inside one, of `CASE … END`.
    body: u32,
    words: u32,
}

impl Nesting {
    fn is_top(&self) -> bool {
        self.parentheses == 0 && self.body == 0
    }

    fn see(&mut self, token: Token, sql: &[u8], mode: Mode) {
        match token.kind {
            TokenKind::Punct(b'(') => self.parentheses += 1,
            TokenKind::Punct(b')') => self.parentheses = self.parentheses.saturating_sub(1),
            TokenKind::Word if mode == Mode::Exact => self.word(token, sql),
            TokenKind::Word
            | TokenKind::QuotedIdent
            | TokenKind::Integer
            | TokenKind::Decimal
            | TokenKind::OtherNumber
            | TokenKind::String
            | TokenKind::OtherString
            | TokenKind::UnicodeIdent
            | TokenKind::Param
            | TokenKind::Operator
            | TokenKind::Punct(_) => {}
        }
    }

    fn word(&mut self, token: Token, sql: &[u8]) {
        self.words += 1;
        if self.words == 1 {
            self.create = token.is_word(sql, "create");
            return;
        }
        if !self.create {
            return;
        }
        let begin = std::mem::replace(&mut self.after_begin, token.is_word(sql, "begin"));
        if (begin && token.is_word(sql, "atomic")) || (self.body > 0 && token.is_word(sql, "case"))
        {
            self.body += 1;
        } else if self.body > 0 && token.is_word(sql, "end") {
            self.body -= 1;
        }
    }
}

/// Only queries and plain writes have their literals taken out.
fn decide(token: Token, sql: &[u8]) -> Mode {
    match token.kind {
        TokenKind::Punct(b'(') => Mode::Undecided,
        TokenKind::Word => {
            let word = token.text(sql);
            let plain = ["select", "insert", "update", "delete", "with", "values"];
            if plain
                .iter()
                .any(|plain| word.eq_ignore_ascii_case(plain.as_bytes()))
            {
                Mode::Marks
            } else {
                Mode::Exact
            }
        }
        TokenKind::QuotedIdent
        | TokenKind::Integer
        | TokenKind::Decimal
        | TokenKind::OtherNumber
        | TokenKind::String
        | TokenKind::OtherString
        | TokenKind::UnicodeIdent
        | TokenKind::Param
        | TokenKind::Operator
        | TokenKind::Punct(_) => Mode::Exact,
    }
}
