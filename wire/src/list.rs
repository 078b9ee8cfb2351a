//! The lists inside messages: object ids, format codes, values.
//!
//! Each is a view of the message's own bytes, walked once when the message is decoded.

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::body::{DecodeError, Reader};

/// How a value is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// As the type's input and output functions have it.
    #[default]
    Text,
    /// As the type's send and receive functions have it.
    Binary,
}

impl Format {
    /// The protocol's code for it.
    pub fn code(self) -> i16 {
        match self {
            Format::Text => 0,
            Format::Binary => 1,
        }
    }

    pub(crate) fn from_code(code: i16) -> Result<Format, DecodeError> {
        match code {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            other => Err(DecodeError::UnsupportedFormat(other)),
        }
    }
}

/// A list of type ids.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Oids<'a>(&'a [[u8; 4]]);

impl<'a> Oids<'a> {
    pub(crate) fn read(body: &mut Reader<'a>) -> Result<Oids<'a>, DecodeError> {
        let count = usize::from(body.u16()?);
        let (oids, _) = body.take(count * 4)?.as_chunks();
        Ok(Oids(oids))
    }

    /// How many there are.
    pub fn len(self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The one at position `i`.
    pub fn get(self, i: usize) -> Option<u32> {
        self.0.get(i).map(|oid| u32::from_be_bytes(*oid))
    }

    /// All of them in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = u32> + 'a {
        self.0.iter().map(|oid| u32::from_be_bytes(*oid))
    }

    pub(crate) fn write(self, dst: &mut BytesMut) {
        crate::frame::put_counted(dst, self.0, |dst, oid| dst.put_slice(oid));
    }
}

impl fmt::Debug for Oids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Format codes: none (all text), one for all, or one for each value.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Formats<'a>(&'a [[u8; 2]]);

impl<'a> Formats<'a> {
    /// Everything in binary.
    pub const BINARY: Formats<'static> = Formats(&[[0, 1]]);
    /// Everything in text.
    pub const TEXT: Formats<'static> = Formats(&[]);

    pub(crate) fn read(body: &mut Reader<'a>) -> Result<Formats<'a>, DecodeError> {
        let count = usize::from(body.u16()?);
        let (codes, _) = body.take(count * 2)?.as_chunks();
        for code in codes {
            Format::from_code(i16::from_be_bytes(*code))?;
        }
        Ok(Formats(codes))
    }

    pub(crate) fn check_count(self, values: usize) -> Result<(), DecodeError> {
        let formats = self.0.len();
        if formats > 1 && formats != values {
            return Err(DecodeError::FormatCount { formats, values });
        }
        Ok(())
    }

    /// How many codes were sent, which is not how many values there are.
    pub fn len(self) -> usize {
        self.0.len()
    }

    /// Whether no code was sent: everything is text.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The format of value `i`.
    pub fn format(self, i: usize) -> Format {
        let code = match self.0 {
            [] => return Format::Text,
            [all] => all,
            each => match each.get(i) {
                Some(code) => code,
                None => return Format::Text,
            },
        };
        if *code == [0, 1] {
            Format::Binary
        } else {
            Format::Text
        }
    }

    /// The codes as sent.
    pub fn iter(self) -> impl ExactSizeIterator<Item = Format> + 'a {
        self.0.iter().map(|code| {
            if *code == [0, 1] {
                Format::Binary
            } else {
                Format::Text
            }
        })
    }

    pub(crate) fn write(self, dst: &mut BytesMut) {
        crate::frame::put_counted(dst, self.0, |dst, code| dst.put_slice(code));
    }
}

impl fmt::Debug for Formats<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Values with their lengths, `None` for NULL: the parameters of a Bind, the columns of a DataRow.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Values<'a> {
    count: u16,
    bytes: &'a [u8],
}

impl<'a> Values<'a> {
    pub(crate) fn read(body: &mut Reader<'a>) -> Result<Values<'a>, DecodeError> {
        let count = body.u16()?;
        let start = body.0;
        for _ in 0..count {
            let len = body.i32()?;
            if len != -1 {
                body.take(usize::try_from(len).map_err(|_| DecodeError::Truncated)?)?;
            }
        }
        let bytes = &start[..start.len() - body.0.len()];
        Ok(Values { count, bytes })
    }

    /// How many there are.
    pub fn len(self) -> usize {
        usize::from(self.count)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.count == 0
    }

    /// The value at position `i`; the outer `None` if there are not so many. Walks the values before it.
    pub fn get(self, i: usize) -> Option<Option<&'a [u8]>> {
        self.iter().nth(i)
    }

    /// All of them in order.
    pub fn iter(self) -> ValuesIter<'a> {
        ValuesIter {
            left: self.count,
            bytes: self.bytes,
        }
    }

    /// The values as they stand in the message, each after its length word, without their count.
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn write(self, dst: &mut BytesMut) {
        dst.put_u16(self.count);
        dst.put_slice(self.bytes);
    }
}

impl<'a> IntoIterator for Values<'a> {
    type Item = Option<&'a [u8]>;
    type IntoIter = ValuesIter<'a>;

    fn into_iter(self) -> ValuesIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Values<'_> {
    /// Lengths only: values are the user's data and do not belong in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|value| value.map(<[u8]>::len)))
            .finish()
    }
}

/// Iterator of [`Values`].
#[derive(Clone)]
pub struct ValuesIter<'a> {
    left: u16,
    bytes: &'a [u8],
}

impl<'a> ValuesIter<'a> {
    /// What is left, as [`Values::as_bytes`] has it.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a> Iterator for ValuesIter<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (word, rest) = self.bytes.split_first_chunk::<4>()?;
        let Ok(len) = usize::try_from(i32::from_be_bytes(*word)) else {
            self.bytes = rest;
            return Some(None);
        };
        let (value, rest) = rest.split_at_checked(len)?;
        self.bytes = rest;
        Some(Some(value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

impl ExactSizeIterator for ValuesIter<'_> {}

/// Appends values with their count.
pub(crate) fn put_values<V: AsRef<[u8]>>(dst: &mut BytesMut, values: &[Option<V>]) {
    crate::frame::put_counted(dst, values, |dst, value| match value {
        None => dst.put_i32(-1),
        Some(value) => {
            let value = value.as_ref();
            dst.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
            dst.put_slice(value);
        }
    });
}

/// Appends format codes with their count.
pub(crate) fn put_formats(dst: &mut BytesMut, formats: &[Format]) {
    crate::frame::put_counted(dst, formats, |dst, format| dst.put_i16(format.code()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_mean_none_one_or_each() {
        let read = |bytes: &'static [u8]| Formats::read(&mut Reader(bytes)).unwrap();
        assert_eq!(read(&[0, 0]).format(3), Format::Text);
        assert_eq!(read(&[0, 1, 0, 1]).format(3), Format::Binary);
        let each = read(&[0, 2, 0, 1, 0, 0]);
        assert_eq!(
            [each.format(0), each.format(1), each.format(2)],
            [Format::Binary, Format::Text, Format::Text]
        );
        assert_eq!(
            Formats::read(&mut Reader(&[0, 1, 0, 2])),
            Err(DecodeError::UnsupportedFormat(2))
        );
        assert_eq!(
            each.check_count(3),
            Err(DecodeError::FormatCount {
                formats: 2,
                values: 3
            })
        );
    }

    #[test]
    fn values_are_checked_before_they_are_believed() {
        let read = |bytes: &'static [u8]| Values::read(&mut Reader(bytes));
        let ok = read(&[0, 3, 0, 0, 0, 1, b'x', 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]).unwrap();
        assert_eq!(
            ok.iter().collect::<Vec<_>>(),
            [Some(&b"x"[..]), None, Some(&b""[..])]
        );
        assert_eq!(ok.get(1), Some(None));
        assert_eq!(ok.get(3), None);
        assert_eq!(read(&[0xff, 0xff]), Err(DecodeError::Truncated));
        assert_eq!(
            read(&[0, 1, 0x7f, 0xff, 0xff, 0xff, 1]),
            Err(DecodeError::Truncated)
        );
        assert_eq!(
            read(&[0, 1, 0xff, 0xff, 0xff, 0xfe]),
            Err(DecodeError::Truncated)
        );
    }
}
