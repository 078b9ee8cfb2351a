//! PostgreSQL's lexer (`src/backend/parser/scan.l`), as far as token boundaries go.
//!
//! Purpose: cut a text into tokens exactly where PostgreSQL 15 and later cut it, with `standard_conforming_strings`
//! on and a client encoding whose multi-byte characters contain no ASCII bytes (UTF-8). Invariant: every token
//! boundary is PostgreSQL's; a text PostgreSQL's lexer rejects is [`Unscannable`]. Values are not decoded here.

/// The text cannot be cut into tokens: PostgreSQL's own lexer would reject it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {at}")]
pub struct Unscannable {
    /// What is wrong.
    pub reason: &'static str,
    /// Where, in bytes from the start of the text.
    pub at: u32,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A keyword or an unquoted identifier.
    Word,
    /// `"quoted"`.
    QuotedIdent,
    /// Decimal digits only.
    Integer,
    /// Digits with a point or an exponent.
    Decimal,
    /// `0x1F`, `0o17`, `0b1` or digits with underscores (PostgreSQL 16): kept exactly.
    OtherNumber,
    /// `'plain'` in one piece: backslashes are ordinary, quotes are doubled.
    String,
    /// Any other constant, kept exactly: `E''`, `B''`, `X''`, `N''`, `U&''`, `$$ $$`, strings continued over a newline.
    OtherString,
    /// `U&"ident"`.
    UnicodeIdent,
    /// `$1`.
    Param,
    /// An operator, `::`, `:=`, `=>` or `..`.
    Operator,
    /// One of `( ) [ ] , ; : .` or a character that belongs to no token of PostgreSQL's.
    Punct(u8),
}

/// A token and where it is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Token {
    /// The token's own text.
    pub fn text<'a>(&self, sql: &'a [u8]) -> &'a [u8] {
        sql.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    /// Whether this is the given word, which must be written in lower case.
    pub fn is_word(&self, sql: &[u8], word: &str) -> bool {
        self.kind == TokenKind::Word && self.text(sql).eq_ignore_ascii_case(word.as_bytes())
    }

    /// The number of a parameter: n of `$n`, if there can be so many.
    pub fn parameter(&self, sql: &[u8]) -> Option<u16> {
        let digits = self.text(sql).strip_prefix(b"$")?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }
}

/// Classes of bytes that can start a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Space,
    Word,
    Digit,
    Quote,
    DoubleQuote,
    Dollar,
    Dot,
    Colon,
    Operator,
    Punct,
    Control,
}

const CLASS: [Class; 256] = classes();
/// Bytes that continue an identifier.
const IN_WORD: [bool; 256] = word_bytes();

/// What kind of token this byte can start.
pub(super) fn class(byte: u8) -> Class {
    CLASS[byte as usize]
}

const fn classes() -> [Class; 256] {
    let mut table = [Class::Punct; 256];
    let mut i = 0;
    while i < 256 {
        let byte = i as u8;
        table[i] = match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => Class::Space,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => Class::Word,
            b'0'..=b'9' => Class::Digit,
            b'\'' => Class::Quote,
            b'"' => Class::DoubleQuote,
            b'$' => Class::Dollar,
            b'.' => Class::Dot,
            b':' => Class::Colon,
            _ if is_operator(byte) => Class::Operator,
            0..=0x1f | 0x7f => Class::Control,
            _ => Class::Punct,
        };
        i += 1;
    }
    table
}

const fn word_bytes() -> [bool; 256] {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 256 {
        table[i] =
            matches!(i as u8, b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | b'0'..=b'9' | 0x80..=0xff);
        i += 1;
    }
    table
}

const fn is_operator(byte: u8) -> bool {
    matches!(
        byte,
        b'~' | b'!'
            | b'@'
            | b'#'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
            | b'+'
            | b'-'
            | b'*'
            | b'/'
            | b'%'
            | b'<'
            | b'>'
            | b'='
    )
}

/// The state of lexing one text.
#[derive(Debug, Clone)]
pub struct Lexer<'a> {
    sql: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    /// Starts at the beginning. Texts above 1 GiB do not exist (a message cannot carry them).
    pub fn new(sql: &'a [u8]) -> Self {
        Lexer { sql, at: 0 }
    }

    /// Starts at a byte, which must be a token boundary.
    pub fn starting_at(sql: &'a [u8], at: u32) -> Self {
        Lexer {
            sql,
            at: at as usize,
        }
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.sql.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn fail<T>(&self, reason: &'static str, at: usize) -> Result<T, Unscannable> {
        Err(Unscannable {
            reason,
            at: at as u32,
        })
    }

    /// Skips white space only; comments stay. Returns where the next token or comment starts.
    pub(crate) fn skip_space(&mut self) -> usize {
        while let Some(&byte) = self.sql.get(self.at) {
            if CLASS[byte as usize] != Class::Space {
                break;
            }
            self.at += 1;
        }
        self.at
    }

    /// If a block comment starts here, skips it and returns its inside.
    pub(crate) fn block_comment(&mut self) -> Result<Option<&'a [u8]>, Unscannable> {
        if self.peek(0) != b'/' || self.peek(1) != b'*' {
            return Ok(None);
        }
        let start = self.at;
        let mut depth = 1u32;
        self.at += 2;
        while depth > 0 {
            match (self.sql.get(self.at), self.peek(1)) {
                (Some(b'*'), b'/') => {
                    depth -= 1;
                    self.at += 2;
                }
                (Some(b'/'), b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (Some(_), _) => self.at += 1,
                (None, _) => return self.fail("unterminated comment", start),
            }
        }
        Ok(self.sql.get(start + 2..self.at - 2))
    }

    /// If a line comment starts here, skips it.
    pub(crate) fn line_comment(&mut self) -> bool {
        if self.peek(0) != b'-' || self.peek(1) != b'-' {
            return false;
        }
        while let Some(&byte) = self.sql.get(self.at) {
            if byte == b'\n' || byte == b'\r' {
                break;
            }
            self.at += 1;
        }
        true
    }

    /// The next token, or `None` at the end.
    #[inline]
    #[expect(
        clippy::should_implement_trait,
        reason = "fallible; an iterator of results would keep going after an error"
    )]
    pub fn next(&mut self) -> Result<Option<Token>, Unscannable> {
        loop {
            let start = self.skip_space();
            let Some(&byte) = self.sql.get(start) else {
                return Ok(None);
            };
            let kind = match CLASS[byte as usize] {
                Class::Word => self.word(byte)?,
                Class::Punct => {
                    self.at += 1;
                    TokenKind::Punct(byte)
                }
                Class::Digit => self.number()?,
                Class::Dot => self.dot()?,
                Class::Quote => self.plain_string()?,
                Class::Operator => {
                    if self.line_comment() || self.block_comment()?.is_some() {
                        continue;
                    }
                    self.operator();
                    TokenKind::Operator
                }
                Class::Dollar => self.dollar()?,
                Class::DoubleQuote => {
                    self.quoted(b'"', "unterminated quoted identifier")?;
                    TokenKind::QuotedIdent
                }
                Class::Colon => self.colon(),
                Class::Space | Class::Control => return self.fail("control character", start),
            };
            return Ok(Some(Token {
                kind,
                start: start as u32,
                end: self.at as u32,
            }));
        }
    }

    fn word(&mut self, first: u8) -> Result<TokenKind, Unscannable> {
        if let Some(kind) = self.prefixed(first)? {
            return Ok(kind);
        }
        self.at += 1;
        while let Some(&byte) = self.sql.get(self.at) {
            if !IN_WORD[byte as usize] {
                break;
            }
            self.at += 1;
        }
        Ok(TokenKind::Word)
    }

    /// Constants and identifiers that start with a letter: `E''`, `B''`, `X''`, `N''`, `U&''`, `U&""`.
    fn prefixed(&mut self, first: u8) -> Result<Option<TokenKind>, Unscannable> {
        let next = self.peek(1);
        match first | 0x20 {
            b'e' if next == b'\'' => {
                self.at += 1;
                self.escape_string()?;
            }
            b'b' | b'x' | b'n' if next == b'\'' => {
                self.at += 1;
                self.continued()?;
            }
            b'u' if next == b'&' && self.peek(2) == b'\'' => {
                self.at += 2;
                self.continued()?;
            }
            b'u' if next == b'&' && self.peek(2) == b'"' => {
                self.at += 2;
                self.quoted(b'"', "unterminated quoted identifier")?;
                return Ok(Some(TokenKind::UnicodeIdent));
            }
            _ => return Ok(None),
        }
        Ok(Some(TokenKind::OtherString))
    }

    /// Skips one quoted piece; a doubled quote stands for itself.
    fn quoted(&mut self, quote: u8, reason: &'static str) -> Result<(), Unscannable> {
        let start = self.at;
        self.at += 1;
        loop {
            match self
                .sql
                .get(self.at..)
                .unwrap_or_default()
                .iter()
                .position(|&byte| byte == quote)
            {
                None => return self.fail(reason, start),
                Some(skip) => self.at += skip + 1,
            }
            if self.peek(0) != quote {
                return Ok(());
            }
            self.at += 1;
        }
    }

    fn plain_string(&mut self) -> Result<TokenKind, Unscannable> {
        Ok(if self.continued()? {
            TokenKind::OtherString
        } else {
            TokenKind::String
        })
    }

    /// Skips a quoted constant and its continuations on later lines; says whether there were any.
    fn continued(&mut self) -> Result<bool, Unscannable> {
        self.quoted(b'\'', "unterminated quoted string")?;
        let mut pieces = 1;
        while self.continuation() {
            self.quoted(b'\'', "unterminated quoted string")?;
            pieces += 1;
        }
        Ok(pieces > 1)
    }

    /// Moves to the quote that continues a constant: white space with a newline in it, line comments allowed.
    fn continuation(&mut self) -> bool {
        let back = self.at;
        let mut newline = false;
        loop {
            let from = self.at;
            let to = self.skip_space();
            newline |= self
                .sql
                .get(from..to)
                .unwrap_or_default()
                .iter()
                .any(|&byte| byte == b'\n' || byte == b'\r');
            if !self.line_comment() {
                break;
            }
        }
        if newline && self.peek(0) == b'\'' {
            return true;
        }
        self.at = back;
        false
    }

    fn escape_string(&mut self) -> Result<(), Unscannable> {
        let start = self.at;
        loop {
            self.at += 1;
            loop {
                match self.sql.get(self.at) {
                    None => return self.fail("unterminated quoted string", start),
                    Some(b'\\') if self.at + 1 < self.sql.len() => self.at += 2,
                    Some(b'\'') if self.peek(1) == b'\'' => self.at += 2,
                    Some(b'\'') => break,
                    Some(_) => self.at += 1,
                }
            }
            self.at += 1;
            if !self.continuation() {
                return Ok(());
            }
        }
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek(0).is_ascii_digit() {
            self.at += 1;
        }
        self.at - start
    }

    /// PostgreSQL 16 allows single underscores between digits.
    fn digits_with_underscores(&mut self) -> bool {
        let mut underscores = false;
        loop {
            self.digits();
            if self.peek(0) != b'_' || !self.peek(1).is_ascii_digit() {
                return underscores;
            }
            underscores = true;
            self.at += 1;
        }
    }

    fn number(&mut self) -> Result<TokenKind, Unscannable> {
        let start = self.at;
        if self.peek(0) == b'0' && matches!(self.peek(1) | 0x20, b'x' | b'o' | b'b') {
            self.at += 2;
            let digits = self.at;
            while self.peek(0).is_ascii_hexdigit() || self.peek(0) == b'_' {
                self.at += 1;
            }
            if self.at == digits {
                return self.fail("invalid number", start);
            }
            return self.end_of_number(start, TokenKind::OtherNumber);
        }
        let mut underscores = self.digits_with_underscores();
        let mut kind = TokenKind::Integer;
        // `1..2` is 1, `..`, 2.
        if self.peek(0) == b'.' && self.peek(1) != b'.' {
            self.at += 1;
            underscores |= self.digits_with_underscores();
            kind = TokenKind::Decimal;
        }
        if self.exponent(start)? {
            kind = TokenKind::Decimal;
        }
        self.end_of_number(
            start,
            if underscores {
                TokenKind::OtherNumber
            } else {
                kind
            },
        )
    }

    fn exponent(&mut self, start: usize) -> Result<bool, Unscannable> {
        if self.peek(0) | 0x20 != b'e' {
            return Ok(false);
        }
        self.at += 1 + usize::from(matches!(self.peek(1), b'+' | b'-'));
        if self.digits() == 0 {
            return self.fail("trailing junk after numeric literal", start);
        }
        Ok(true)
    }

    /// A number may not run into an identifier.
    fn end_of_number(&self, start: usize, kind: TokenKind) -> Result<TokenKind, Unscannable> {
        if CLASS[self.peek(0) as usize] == Class::Word {
            return self.fail("trailing junk after numeric literal", start);
        }
        Ok(kind)
    }

    fn dot(&mut self) -> Result<TokenKind, Unscannable> {
        let start = self.at;
        self.at += 1;
        if self.peek(0).is_ascii_digit() {
            let underscores = self.digits_with_underscores();
            self.exponent(start)?;
            let kind = if underscores {
                TokenKind::OtherNumber
            } else {
                TokenKind::Decimal
            };
            return self.end_of_number(start, kind);
        }
        if self.peek(0) == b'.' {
            self.at += 1;
            return Ok(TokenKind::Operator);
        }
        Ok(TokenKind::Punct(b'.'))
    }

    fn colon(&mut self) -> TokenKind {
        self.at += 1;
        if matches!(self.peek(0), b':' | b'=') {
            self.at += 1;
            return TokenKind::Operator;
        }
        TokenKind::Punct(b':')
    }

    /// The longest operator here: it ends before a comment, and does not end in `+` or `-` unless it holds one of
    /// ``~ ! @ # ^ & | ` ? %``.
    fn operator(&mut self) {
        let start = self.at;
        let mut end = start;
        while let Some(&byte) = self.sql.get(end) {
            let next = self.sql.get(end + 1).copied().unwrap_or(0);
            let comment = (byte == b'-' && next == b'-') || (byte == b'/' && next == b'*');
            if !is_operator(byte) || (end > start && comment) {
                break;
            }
            end += 1;
        }
        let text = self.sql.get(start..end).unwrap_or_default();
        let mut length = text.len();
        let special = |byte: &u8| {
            matches!(
                byte,
                b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%'
            )
        };
        while length > 1
            && matches!(text[length - 1], b'+' | b'-')
            && !text[..length - 1].iter().any(special)
        {
            length -= 1;
        }
        self.at = start + length;
    }

    fn dollar(&mut self) -> Result<TokenKind, Unscannable> {
        let start = self.at;
        self.at += 1;
        if self.peek(0).is_ascii_digit() {
            self.digits();
            if CLASS[self.peek(0) as usize] == Class::Word {
                return self.fail("trailing junk after parameter", start);
            }
            return Ok(TokenKind::Param);
        }
        while IN_WORD[self.peek(0) as usize] && self.peek(0) != b'$' && self.at < self.sql.len() {
            self.at += 1;
        }
        if self.peek(0) != b'$' {
            return self.fail("stray dollar sign", start);
        }
        self.at += 1;
        let tag = self.sql.get(start..self.at).unwrap_or_default();
        let mut from = self.at;
        while let Some(skip) = self
            .sql
            .get(from..)
            .unwrap_or_default()
            .iter()
            .position(|&byte| byte == b'$')
        {
            from += skip;
            if self.sql.get(from..from + tag.len()) == Some(tag) {
                self.at = from + tag.len();
                return Ok(TokenKind::OtherString);
            }
            from += 1;
        }
        self.fail("unterminated dollar-quoted string", start)
    }
}
