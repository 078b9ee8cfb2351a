//! `FORMAT csv`: where rows end (PostgreSQL's `CopyReadLineText`) and what is in their fields (`CopyReadAttributesCSV`).

use std::borrow::Cow;

use memchr::{memchr2, memchr3};

use super::text::{Ended, line_end, marker_ends};
use super::{Csv, Extent, Field, Found, LineEnd};

/// How far the search for a row's end has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Search {
    /// The bytes before have been looked at.
    at: usize,
    /// They end within quotes.
    quoted: bool,
    /// They end behind an escape, which was not escaped itself.
    escaped: bool,
    /// There were quotes.
    has_quotes: bool,
    /// There is no marker at the start.
    unmarked: bool,
    /// Newlines and carriage returns within quotes.
    newlines: u64,
    returns: u64,
}

impl Search {
    /// Looks for the end of the row at the start of `bytes`, which is the end of all if `last`.
    pub(super) fn row(
        &mut self,
        bytes: &[u8],
        last: bool,
        options: &Csv,
        end: &mut Option<LineEnd>,
    ) -> Found {
        let found = self.find(bytes, last, options, end);
        if found != Found::Incomplete {
            *self = Search::default();
        }
        found
    }

    fn find(
        &mut self,
        bytes: &[u8],
        last: bool,
        options: &Csv,
        end: &mut Option<LineEnd>,
    ) -> Found {
        if !self.unmarked && options.ends_with_marker && bytes.first() == Some(&b'\\') {
            let ends = match bytes.get(1) {
                None => None,
                Some(b'.') => marker_stands(bytes, *end),
                Some(_) => Some(Marker::None),
            };
            match ends {
                None if !last => return Found::Incomplete,
                Some(Marker::End) => return Found::End,
                Some(Marker::Wrong) => return Found::Wrong(bytes.len()),
                None | Some(Marker::None) => {}
            }
        }
        self.unmarked |= !bytes.is_empty();
        loop {
            let rest = bytes.get(self.at..).unwrap_or_default();
            let found = match self.quoted {
                true => self.within_quotes(rest, options),
                false => memchr3(options.quote, b'\n', b'\r', rest),
            };
            let Some(found) = found else {
                self.at = bytes.len();
                return match (last, bytes.is_empty()) {
                    (true, false) => self.extent(bytes.len(), bytes.len(), *end),
                    _ => Found::Incomplete,
                };
            };
            let at = self.at + found;
            self.at = at;
            if bytes.get(at) == Some(&options.quote) {
                self.quoted = !self.quoted;
                self.has_quotes = true;
                self.at = at + 1;
                continue;
            }
            let before = *end;
            return match line_end(bytes, at, last, end) {
                Ended::By(length) => self.extent(at, at + length, before),
                Ended::Incomplete => Found::Incomplete,
                Ended::Otherwise => Found::Wrong(at + 1),
            };
        }
    }

    /// Where the quote is that ends the quotes.
    fn within_quotes(&mut self, rest: &[u8], options: &Csv) -> Option<usize> {
        let escape = options.escape;
        let mut at = 0;
        loop {
            let tail = rest.get(at..).unwrap_or_default();
            let Some(found) = memchr2(options.quote, escape, tail) else {
                self.count(tail);
                self.escaped &= tail.is_empty();
                return None;
            };
            self.count(tail.get(..found).unwrap_or_default());
            self.escaped &= found == 0;
            at += found;
            if escape != options.quote && rest.get(at) == Some(&escape) {
                self.escaped = !self.escaped;
            } else if !std::mem::take(&mut self.escaped) {
                return Some(at);
            }
            at += 1;
        }
    }

    fn count(&mut self, bytes: &[u8]) {
        for at in memchr::memchr2_iter(b'\n', b'\r', bytes) {
            match bytes.get(at) {
                Some(b'\n') => self.newlines += 1,
                _ => self.returns += 1,
            }
        }
    }

    /// A row. PostgreSQL counts the lines within quotes by how the first line has ended, which a shard does not know before its
    /// own first row.
    fn extent(&self, content: usize, length: usize, end: Option<LineEnd>) -> Found {
        let within = match end {
            Some(LineEnd::Newline) => self.newlines,
            _ => self.returns,
        };
        Found::Row(Extent {
            length,
            content,
            lines: 1 + within,
            lines_as_first: 1 + self.returns,
            plain: !self.has_quotes,
            ends: false,
        })
    }
}

/// What `\.` at the start of a line is.
enum Marker {
    /// The end of all.
    End,
    /// Something PostgreSQL has an error for.
    Wrong,
    /// Data.
    None,
}

/// `None`: not enough has come.
fn marker_stands(bytes: &[u8], end: Option<LineEnd>) -> Option<Marker> {
    let after = match end {
        Some(LineEnd::ReturnNewline) => match bytes.get(2)? {
            b'\r' => *bytes.get(3)?,
            _ => return Some(Marker::None),
        },
        _ => *bytes.get(2)?,
    };
    if !matches!(after, b'\n' | b'\r') {
        return Some(Marker::None);
    }
    Some(match marker_ends(bytes, 2, end)? {
        true => Marker::End,
        false => Marker::Wrong,
    })
}

/// The field at `position` of a row, `None` if there are not so many, or quotes are not closed. `plain`: there is no quote in the row.
pub(super) fn field<'a>(
    row: &'a [u8],
    position: usize,
    options: &Csv,
    plain: bool,
) -> Option<Field<'a>> {
    let mut rest = row;
    for _ in 0..position {
        let end = end_of_field(rest, options, plain)?;
        rest = rest.get(end + 1..)?;
    }
    let end = end_of_field(rest, options, plain).unwrap_or(rest.len());
    let raw = rest.get(..end)?;
    let quoted = !plain && raw.contains(&options.quote);
    let value = match quoted {
        true => Some(unquoted(raw, options)?),
        false if *raw == *options.null => None,
        false => Some(Cow::Borrowed(raw)),
    };
    let forced = match value {
        None if options.key_not_null => Some(Cow::Owned(options.null.to_vec())),
        Some(value) if options.key_null && *value == *options.null => None,
        value => value,
    };
    Some(forced)
}

/// Where the delimiter is that ends the first field.
fn end_of_field(rest: &[u8], options: &Csv, plain: bool) -> Option<usize> {
    if plain {
        return memchr::memchr(options.delimiter, rest);
    }
    let mut at = 0;
    loop {
        let byte = *rest.get(at)?;
        if byte == options.delimiter {
            return Some(at);
        }
        at += 1;
        if byte == options.quote {
            at += quotes(rest.get(at..)?, options, &mut |_| ())?;
        }
    }
}

fn unquoted<'a>(raw: &[u8], options: &Csv) -> Option<Cow<'a, [u8]>> {
    let mut value = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(byte) = raw.get(at) {
        at += 1;
        match *byte == options.quote {
            true => at += quotes(raw.get(at..)?, options, &mut |byte| value.push(byte))?,
            false => value.push(*byte),
        }
    }
    Some(Cow::Owned(value))
}

/// What is within quotes, which `rest` begins with: the bytes up to the quote that ends them, and that. `None` if there is none.
fn quotes(rest: &[u8], options: &Csv, take: &mut dyn FnMut(u8)) -> Option<usize> {
    let mut at = 0;
    loop {
        let byte = *rest.get(at)?;
        at += 1;
        let next = rest.get(at).copied();
        let escapes = |next: &u8| *next == options.escape || *next == options.quote;
        if byte == options.escape
            && let Some(next) = next.filter(escapes)
        {
            take(next);
            at += 1;
        } else if byte == options.quote {
            return Some(at);
        } else {
            take(byte);
        }
    }
}
