//! The options of a COPY FROM STDIN, as far as they say where a row ends and which of its bytes are the shard key.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a token that is not named is no string"
)]

use super::bind::unquote;
use super::words::Words;
use crate::copy_in::{Csv, Format, Text};
use crate::sql::TokenKind;

/// The options of a COPY FROM, as written.
#[derive(Debug, Default)]
pub(super) struct Options {
    format: Vec<u8>,
    delimiter: Option<Vec<u8>>,
    null: Option<Vec<u8>>,
    quote: Option<Vec<u8>>,
    escape: Option<Vec<u8>>,
    header: bool,
    not_null: Columns,
    force_null: Columns,
    /// That of the rows, if it is not the servers'.
    encoding: Option<Box<str>>,
}

/// The columns an option is about.
#[derive(Debug, Default)]
enum Columns {
    #[default]
    None,
    Named(Vec<String>),
    All,
}

impl Columns {
    fn contains(&self, name: &str) -> bool {
        match self {
            Columns::None => false,
            Columns::Named(names) => names.iter().any(|known| known == name),
            Columns::All => true,
        }
    }
}

impl Options {
    /// Reads what comes behind STDIN. `None`: there is something whose meaning is not known here.
    pub(super) fn read(binary: bool, mut words: Words<'_>) -> Option<Options> {
        let mut options = Options::default();
        if binary {
            options.format = b"binary".to_vec();
        }
        words.eat("using");
        if words.eat("delimiters") {
            options.delimiter = Some(string(&mut words)?);
        }
        words.eat("with");
        if words
            .rest()
            .first()
            .is_some_and(|token| token.kind == TokenKind::Punct(b'('))
        {
            let inside = words.clone();
            words.list()?;
            let length = inside.rest().len() - words.rest().len();
            let inside = inside.rest().get(1..length - 1)?;
            for option in Words::new(words.sql, inside).split() {
                options.option(option)?;
            }
        } else {
            while !words.is_done() && !words.is("where") {
                options.old_option(&mut words)?;
            }
        }
        // A condition is the shards' own affair, where each row is all that it looks at.
        (words.is_done() || words.is("where")).then_some(options)
    }

    /// `name value` in parentheses.
    fn option(&mut self, mut words: Words<'_>) -> Option<()> {
        let name = words.name()?;
        match name.as_str() {
            "format" => self.format = value(&mut words)?,
            "delimiter" => self.delimiter = Some(value(&mut words)?),
            "null" => self.null = Some(value(&mut words)?),
            "quote" => self.quote = Some(value(&mut words)?),
            "escape" => self.escape = Some(value(&mut words)?),
            "header" => self.header = is_on(&mut words)?,
            "freeze" => _ = is_on(&mut words)?,
            "force_not_null" => self.not_null = columns(&mut words)?,
            "force_null" => self.force_null = columns(&mut words)?,
            "encoding" => self.encoding = converted(&value(&mut words)?)?,
            "log_verbosity" => _ = value(&mut words)?,
            "on_error" => value(&mut words)?
                .eq_ignore_ascii_case(b"stop")
                .then_some(())?,
            _ => return None,
        }
        words.is_done().then_some(())
    }

    /// As before PostgreSQL 9.
    fn old_option(&mut self, words: &mut Words<'_>) -> Option<()> {
        let name = words.name()?;
        match name.as_str() {
            "binary" | "csv" => self.format = name.into_bytes(),
            "freeze" => {}
            "header" => self.header = true,
            "delimiter" => self.delimiter = Some(string_as(words)?),
            "null" => self.null = Some(string_as(words)?),
            "quote" => self.quote = Some(string_as(words)?),
            "escape" => self.escape = Some(string_as(words)?),
            "encoding" => self.encoding = converted(&string(words)?)?,
            "force" if words.eat_all(&["not", "null"]) => self.not_null = names(words)?,
            "force" if words.eat("null") => self.force_null = names(words)?,
            _ => return None,
        }
        Some(())
    }

    /// The encoding of rows that PostgreSQL has to convert. Binary ones are in the client's.
    pub(super) fn encoding(&self) -> Option<Box<str>> {
        self.encoding.clone().filter(|_| self.format != b"binary")
    }

    /// What the options say of rows whose key is in this column. `None`: PostgreSQL does not accept them, or accepts what is not known
    /// here.
    pub(super) fn format(&self, key: &str) -> Option<Format> {
        let one = |bytes: &Option<Vec<u8>>, usual: u8| match bytes.as_deref() {
            None => Some(usual),
            Some([byte]) => Some(*byte),
            Some(_) => None,
        };
        let null = |usual: &[u8]| self.null.as_deref().unwrap_or(usual).into();
        match self.format.as_slice() {
            b"" | b"text" => Some(Format::Text(Text {
                delimiter: one(&self.delimiter, b'\t')?,
                null: null(b"\\N"),
                header: self.header,
            })),
            b"csv" => {
                let quote = one(&self.quote, b'"')?;
                Some(Format::Csv(Csv {
                    delimiter: one(&self.delimiter, b',')?,
                    null: null(b""),
                    header: self.header,
                    quote,
                    escape: one(&self.escape, quote)?,
                    key_not_null: self.not_null.contains(key),
                    key_null: self.force_null.contains(key),
                    ends_with_marker: true,
                }))
            }
            b"binary" => Some(Format::Binary),
            _ => None,
        }
    }
}

/// Encodings that PostgreSQL converts to UTF-8, by their letters and digits.
const CONVERTED: [&str; 65] = [
    "abc",
    "alt",
    "big5",
    "euccn",
    "eucjis2004",
    "eucjp",
    "euckr",
    "euctw",
    "gb18030",
    "gbk",
    "iso88591",
    "iso885910",
    "iso885913",
    "iso885914",
    "iso885915",
    "iso885916",
    "iso88592",
    "iso88593",
    "iso88594",
    "iso88595",
    "iso88596",
    "iso88597",
    "iso88598",
    "iso88599",
    "johab",
    "koi8",
    "koi8r",
    "koi8u",
    "latin1",
    "latin10",
    "latin2",
    "latin3",
    "latin4",
    "latin5",
    "latin6",
    "latin7",
    "latin8",
    "latin9",
    "mskanji",
    "shiftjis",
    "shiftjis2004",
    "sjis",
    "tcvn",
    "tcvn5712",
    "uhc",
    "vscii",
    "win",
    "win1250",
    "win1251",
    "win1252",
    "win1253",
    "win1254",
    "win1255",
    "win1256",
    "win1257",
    "win1258",
    "win866",
    "win874",
    "win932",
    "win936",
    "win949",
    "win950",
    "windows932",
    "windows936",
    "windows949",
];

/// The encoding of the rows, if PostgreSQL has to convert it. `None`: none that is known here.
fn converted(encoding: &[u8]) -> Option<Option<Box<str>>> {
    let letters = encoding.iter().filter(|byte| byte.is_ascii_alphanumeric());
    let name: String = letters
        .map(|byte| char::from(byte.to_ascii_lowercase()))
        .collect();
    match &*name {
        "utf8" | "unicode" | "sqlascii" => Some(None),
        name if CONVERTED.contains(&name) || is_windows(name) => Some(Some(name.into())),
        _ => None,
    }
}

fn is_windows(name: &str) -> bool {
    let number = name.strip_prefix("windows");
    number.is_some_and(|number| CONVERTED.contains(&&*format!("win{number}")))
}

/// A word, a name or a string.
fn value(words: &mut Words<'_>) -> Option<Vec<u8>> {
    match words.name() {
        Some(name) => Some(name.into_bytes()),
        None => string(words),
    }
}

fn string_as(words: &mut Words<'_>) -> Option<Vec<u8>> {
    words.eat("as");
    string(words)
}

fn string(words: &mut Words<'_>) -> Option<Vec<u8>> {
    let token = words.rest().first()?;
    let text = token.text(words.sql);
    let value = match token.kind {
        TokenKind::String => unquote(text)?.into_owned(),
        TokenKind::OtherString => escaped(text)?,
        _ => return None,
    };
    words.next();
    Some(value)
}

/// The contents of `E'…'`, as far as single characters are written by it.
fn escaped(text: &[u8]) -> Option<Vec<u8>> {
    let inside = text
        .strip_prefix(b"E'")
        .or_else(|| text.strip_prefix(b"e'"))?;
    match inside.strip_suffix(b"'")? {
        [b'\\', letter] => Some(vec![match letter {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'\\' | b'\'' | b'"' => *letter,
            _ => return None,
        }]),
        [b'\\', b'x', digits @ ..] if digits.len() == 2 => {
            let digits = std::str::from_utf8(digits).ok()?;
            Some(vec![u8::from_str_radix(digits, 16).ok()?])
        }
        plain if !plain.iter().any(|byte| matches!(byte, b'\\' | b'\'')) => Some(plain.to_vec()),
        _ => None,
    }
}

/// A truth value, on if it is left out. `HEADER MATCH` is a header, too.
fn is_on(words: &mut Words<'_>) -> Option<bool> {
    let Some(token) = words.next() else {
        return Some(true);
    };
    let text = token.text(words.sql).to_ascii_lowercase();
    match text.as_slice() {
        b"true" | b"on" | b"1" | b"'true'" | b"'on'" | b"'1'" | b"match" | b"'match'" => Some(true),
        b"false" | b"off" | b"0" | b"'false'" | b"'off'" | b"'0'" => Some(false),
        _ => None,
    }
}

/// Columns in parentheses, or all.
fn columns(words: &mut Words<'_>) -> Option<Columns> {
    if words.eat_symbol("*") {
        return Some(Columns::All);
    }
    words.eat_symbol("(").then_some(())?;
    let columns = names(words)?;
    words.eat_symbol(")").then_some(columns)
}

fn names(words: &mut Words<'_>) -> Option<Columns> {
    if words.eat_symbol("*") {
        return Some(Columns::All);
    }
    let mut names = vec![words.name()?];
    while words.eat_symbol(",") {
        names.push(words.name()?);
    }
    Some(Columns::Named(names))
}
