//! `FORMAT text`: where rows end (PostgreSQL's `CopyReadLineText`) and what is in their fields (`CopyReadAttributesText`).

use std::borrow::Cow;

use memchr::{memchr, memchr3};

use super::{Extent, Field, Found, LineEnd, Text};

/// How far the search for a row's end has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Search {
    /// The bytes before have been looked at.
    at: usize,
    /// There was a backslash.
    escaped: bool,
}

impl Search {
    /// Looks for the end of the row at the start of `bytes`, which is the end of all if `last`.
    pub(super) fn row(&mut self, bytes: &[u8], last: bool, end: &mut Option<LineEnd>) -> Found {
        let found = self.find(bytes, last, end);
        if found != Found::Incomplete {
            *self = Search::default();
        }
        found
    }

    fn find(&mut self, bytes: &[u8], last: bool, end: &mut Option<LineEnd>) -> Found {
        loop {
            let rest = bytes.get(self.at..).unwrap_or_default();
            let Some(found) = memchr3(b'\n', b'\r', b'\\', rest) else {
                self.at = bytes.len();
                return match (last, bytes.is_empty()) {
                    (true, false) => self.extent(bytes.len(), bytes.len()),
                    _ => Found::Incomplete,
                };
            };
            let at = self.at + found;
            self.at = at;
            if bytes.get(at) == Some(&b'\\') {
                match bytes.get(at + 1) {
                    None if last => return self.extent(bytes.len(), bytes.len()),
                    None => return Found::Incomplete,
                    Some(b'.') => return marker(bytes, at, last, *end),
                    Some(_) => {
                        self.escaped = true;
                        self.at = at + 2;
                    }
                }
                continue;
            }
            return match line_end(bytes, at, last, end) {
                Ended::By(length) => self.extent(at, at + length),
                Ended::Incomplete => Found::Incomplete,
                Ended::Otherwise => Found::Wrong(at + 1),
            };
        }
    }

    fn extent(&self, content: usize, length: usize) -> Found {
        Found::Row(Extent {
            length,
            content,
            lines: 1,
            lines_as_first: 1,
            plain: !self.escaped,
            ends: false,
        })
    }
}

/// What ends a line at a newline or carriage return.
pub(super) enum Ended {
    /// So many bytes.
    By(usize),
    /// It depends on what follows.
    Incomplete,
    /// Earlier lines have ended otherwise.
    Otherwise,
}

/// Looks at the newline or carriage return at `at`.
pub(super) fn line_end(bytes: &[u8], at: usize, last: bool, end: &mut Option<LineEnd>) -> Ended {
    let next = bytes.get(at + 1);
    match (bytes.get(at), &end) {
        (Some(b'\n'), None | Some(LineEnd::Newline)) => {
            *end = Some(LineEnd::Newline);
            Ended::By(1)
        }
        (Some(b'\r'), Some(LineEnd::Return)) => Ended::By(1),
        (Some(b'\r'), None | Some(LineEnd::ReturnNewline)) => match next {
            None if !last => Ended::Incomplete,
            Some(b'\n') => {
                *end = Some(LineEnd::ReturnNewline);
                Ended::By(2)
            }
            _ if end.is_some() => Ended::Otherwise,
            _ => {
                *end = Some(LineEnd::Return);
                Ended::By(1)
            }
        },
        _ => Ended::Otherwise,
    }
}

/// Whether what follows `\.` ends the line as lines end: `None` if not enough has come.
pub(super) fn marker_ends(bytes: &[u8], after: usize, end: Option<LineEnd>) -> Option<bool> {
    let first = *bytes.get(after)?;
    Some(match end {
        None => matches!(first, b'\n' | b'\r'),
        Some(LineEnd::Newline) => first == b'\n',
        Some(LineEnd::Return) => first == b'\r',
        Some(LineEnd::ReturnNewline) => first == b'\r' && *bytes.get(after + 1)? == b'\n',
    })
}

/// `\.` at `at`: the end, if the line ends behind it. What stands before it in the line is a row.
fn marker(bytes: &[u8], at: usize, last: bool, end: Option<LineEnd>) -> Found {
    match marker_ends(bytes, at + 2, end) {
        None if !last => Found::Incomplete,
        Some(true) if at == 0 => Found::End,
        Some(true) => Found::Row(Extent {
            length: at
                + 2
                + if end == Some(LineEnd::ReturnNewline) {
                    2
                } else {
                    1
                },
            content: at,
            lines: 1,
            lines_as_first: 1,
            plain: false,
            ends: true,
        }),
        _ => Found::Wrong(bytes.len()),
    }
}

/// The field at `position` of a row, `None` if there are not so many. `plain`: there is no backslash in the row.
pub(super) fn field<'a>(
    row: &'a [u8],
    position: usize,
    options: &Text,
    plain: bool,
) -> Option<Field<'a>> {
    let mut rest = row;
    for _ in 0..position {
        let end = end_of_field(rest, options.delimiter, plain)?;
        rest = rest.get(end + 1..)?;
    }
    let end = end_of_field(rest, options.delimiter, plain).unwrap_or(rest.len());
    let raw = rest.get(..end)?;
    if *raw == *options.null {
        return Some(None);
    }
    Some(Some(match plain {
        true => Cow::Borrowed(raw),
        false => unescaped(raw),
    }))
}

/// Where the delimiter is that ends the first field.
fn end_of_field(rest: &[u8], delimiter: u8, plain: bool) -> Option<usize> {
    if plain {
        return memchr(delimiter, rest);
    }
    let mut at = 0;
    loop {
        match rest.get(at)? {
            byte if *byte == delimiter => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn unescaped(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\\', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut value = Vec::with_capacity(raw.len());
    let mut rest = raw;
    loop {
        match rest {
            [] | [b'\\'] => return Cow::Owned(value),
            [b'\\', b'x', after @ ..] if after.first().is_some_and(u8::is_ascii_hexdigit) => {
                let (byte, digits) = number(after, 16, 2);
                value.push(byte);
                rest = after.get(digits..).unwrap_or_default();
            }
            [b'\\', after @ ..] if matches!(after.first(), Some(b'0'..=b'7')) => {
                let (byte, digits) = number(after, 8, 3);
                value.push(byte);
                rest = after.get(digits..).unwrap_or_default();
            }
            [b'\\', letter, after @ ..] => {
                value.push(match letter {
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 11,
                    other => *other,
                });
                rest = after;
            }
            [byte, after @ ..] => {
                value.push(*byte);
                rest = after;
            }
        }
    }
}

/// A byte by its number in up to so many digits, and how many there are.
fn number(digits: &[u8], radix: u32, most: usize) -> (u8, usize) {
    let digits = digits.iter().take(most);
    let digits = digits.map_while(|digit| char::from(*digit).to_digit(radix));
    digits.fold((0, 0), |(byte, count): (u8, usize), digit| {
        // As C does it: what does not fit is cut off.
        (
            byte.wrapping_mul(radix as u8).wrapping_add(digit as u8),
            count + 1,
        )
    })
}
