//! `FORMAT binary`: the signature, rows of fields with their lengths, the trailer.

use std::borrow::Cow;

use super::{Extent, Field, Found};

/// What a binary COPY begins with; flags, and an extension with its length, follow.
const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// The signature, the flags and the length.
const HEADER: usize = SIGNATURE.len() + 8;

/// How far the reading has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Search {
    began: bool,
    ended: bool,
    /// Of the row at the start of the input, so many bytes have been looked at, and so many fields are still to come.
    at: usize,
    left: u16,
}

impl Search {
    /// Looks for the end of the row at the start of `bytes`, which is the end of all if `last`.
    pub(super) fn row(&mut self, bytes: &[u8], last: bool) -> Found {
        let found = match (self.began, self.ended) {
            _ if bytes.is_empty() => None,
            (_, true) => Some(Found::Wrong(bytes.len())),
            (false, _) => self.header(bytes),
            (true, _) => self.fields(bytes),
        };
        match found {
            Some(found) => found,
            // PostgreSQL misses the rest.
            None if last && !bytes.is_empty() => Found::Wrong(bytes.len()),
            None => Found::Incomplete,
        }
    }

    fn header(&mut self, bytes: &[u8]) -> Option<Found> {
        let known = bytes.len().min(SIGNATURE.len());
        if bytes.get(..known) != SIGNATURE.get(..known) {
            return Some(Found::Wrong(bytes.len()));
        }
        let extension = i32::from_be_bytes(array(bytes, HEADER - 4)?);
        let Ok(extension) = usize::try_from(extension) else {
            return Some(Found::Wrong(bytes.len()));
        };
        let length = HEADER + extension;
        if bytes.len() < length {
            return None;
        }
        self.began = true;
        Some(Found::Preamble(extent(length, 0)))
    }

    fn fields(&mut self, bytes: &[u8]) -> Option<Found> {
        if self.at == 0 {
            let fields = i16::from_be_bytes(array(bytes, 0)?);
            if fields == -1 {
                self.ended = true;
                return Some(Found::Trailer(2));
            }
            let Ok(fields) = u16::try_from(fields) else {
                return Some(Found::Wrong(bytes.len()));
            };
            (self.at, self.left) = (2, fields);
        }
        while self.left > 0 {
            let length = i32::from_be_bytes(array(bytes, self.at)?);
            if length < -1 {
                return Some(Found::Wrong(bytes.len()));
            }
            let end = self.at + 4 + usize::try_from(length).unwrap_or(0);
            if bytes.len() < end {
                return None;
            }
            (self.at, self.left) = (end, self.left - 1);
        }
        let length = std::mem::take(&mut self.at);
        Some(Found::Row(extent(length, 1)))
    }
}

fn extent(length: usize, lines: u64) -> Extent {
    Extent {
        length,
        content: length,
        lines,
        lines_as_first: lines,
        plain: true,
        ends: false,
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// The field at `position` of a row, `None` if there are not so many.
pub(super) fn field(row: &[u8], position: usize) -> Option<Field<'_>> {
    let mut at = 2;
    for _ in 0..position {
        let length = i32::from_be_bytes(array(row, at)?);
        at += 4 + usize::try_from(length).unwrap_or(0);
    }
    let length = i32::from_be_bytes(array(row, at)?);
    match usize::try_from(length) {
        Ok(length) => Some(Some(Cow::Borrowed(row.get(at + 4..at + 4 + length)?))),
        Err(_) => Some(None),
    }
}
