//! Rows turned into arrays, one for each column: so they are given to a statement as parameters.
//!
//! Purpose: [`Arrays`] takes binary rows as they come from shards, and gives binary arrays. Nothing is decoded: the elements of an array
//! are written as the values of a row are (PostgreSQL's `array_recv`, `src/backend/utils/adt/arrayfuncs.c`). Invariant: it keeps no
//! more than its limits allow.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

/// So many rows can be given by parameters, at most,
pub(crate) const MOST_ROWS: u32 = 20_000;
/// and so many bytes of them: they are kept in the router's memory, and sent to every shard.
pub(crate) const MOST_BYTES: usize = 1 << 20;

/// The bytes before an array's elements: dimensions, flags, type, length, lower bound.
const HEADER: usize = 20;
/// Where the number of elements is.
const COUNT: Range<usize> = 12..16;

/// Rows, column by column.
#[derive(Debug)]
pub(crate) struct Arrays {
    columns: Vec<Column>,
    most_rows: u32,
    most_bytes: usize,
    rows: u32,
    bytes: usize,
}

#[derive(Debug)]
struct Column {
    /// Of the elements.
    type_oid: u32,
    has_null: bool,
    /// Room for the header, then the elements.
    array: BytesMut,
}

/// Why a row was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// The rows are too many, or too large.
    Full,
    /// It is no row of these columns.
    Unreadable,
}

impl Arrays {
    /// For rows with columns of these types, few enough to be given to every shard.
    pub(crate) fn new(types: impl IntoIterator<Item = u32>) -> Self {
        Self::of_many(types, MOST_ROWS, MOST_BYTES)
    }

    /// For so many rows, at most, and bytes of them.
    pub(crate) fn of_many(
        types: impl IntoIterator<Item = u32>,
        most_rows: u32,
        most_bytes: usize,
    ) -> Self {
        let column = |type_oid| Column {
            type_oid,
            has_null: false,
            array: BytesMut::zeroed(HEADER),
        };
        Self {
            columns: types.into_iter().map(column).collect(),
            most_rows,
            most_bytes,
            rows: 0,
            bytes: 0,
        }
    }

    /// How many rows there are.
    pub(crate) fn rows(&self) -> u32 {
        self.rows
    }

    /// The bytes of their values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the body of a DataRow with binary values.
    pub(crate) fn push(&mut self, row: &[u8]) -> Result<(), NotTaken> {
        if self.rows >= self.most_rows || self.bytes + row.len() > self.most_bytes {
            return Err(NotTaken::Full);
        }
        let (count, mut values) = row.split_first_chunk().ok_or(NotTaken::Unreadable)?;
        if usize::from(u16::from_be_bytes(*count)) != self.columns.len() {
            return Err(NotTaken::Unreadable);
        }
        for column in &mut self.columns {
            let (length, _) = values.split_first_chunk().ok_or(NotTaken::Unreadable)?;
            // A negative length is NULL's.
            let length = usize::try_from(i32::from_be_bytes(*length)).ok();
            column.has_null |= length.is_none();
            let (value, after) = values
                .split_at_checked(4 + length.unwrap_or(0))
                .ok_or(NotTaken::Unreadable)?;
            column.array.extend_from_slice(value);
            values = after;
        }
        if !values.is_empty() {
            return Err(NotTaken::Unreadable);
        }
        self.rows += 1;
        self.bytes += row.len();
        Ok(())
    }

    /// The arrays, in the order of the columns.
    pub(crate) fn finish(self) -> Vec<Bytes> {
        let rows = self.rows;
        let array = |column: Column| column.finish(rows);
        self.columns.into_iter().map(array).collect()
    }
}

impl Column {
    fn finish(mut self, rows: u32) -> Bytes {
        let mut header = BytesMut::with_capacity(HEADER);
        header.put_i32(i32::from(rows > 0));
        header.put_i32(self.has_null.into());
        header.put_u32(self.type_oid);
        if rows == 0 {
            // An array of no dimensions.
            return header.freeze();
        }
        header.put_u32(rows);
        header.put_i32(1);
        if let Some(room) = self.array.get_mut(..HEADER) {
            room.copy_from_slice(&header);
        }
        self.array.freeze()
    }
}

/// An element of an array, with its length before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Element<'a>(&'a [u8]);

impl<'a> Element<'a> {
    /// Its value; `None` if it is NULL.
    pub(crate) fn value(self) -> Option<&'a [u8]> {
        let (length, value) = self.0.split_first_chunk()?;
        (i32::from_be_bytes(*length) >= 0).then_some(value)
    }
}

/// The elements of an array of one dimension, or none.
pub(crate) fn elements(array: &[u8]) -> impl Iterator<Item = Element<'_>> {
    let mut left = array.get(HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, _) = left.split_first_chunk()?;
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        let (element, after) = left.split_at_checked(4 + length)?;
        left = after;
        Some(Element(element))
    })
}

/// The array of those of the elements that are wanted, by their numbers.
pub(crate) fn some_of(array: &[u8], wanted: impl Fn(usize) -> bool) -> Bytes {
    let header = array.get(..HEADER).unwrap_or(array);
    let mut some = BytesMut::with_capacity(array.len());
    some.extend_from_slice(header);
    let mut rows: u32 = 0;
    for (_, Element(element)) in elements(array).enumerate().filter(|(row, _)| wanted(*row)) {
        some.extend_from_slice(element);
        rows += 1;
    }
    match some.get_mut(COUNT) {
        Some(count) if rows > 0 => count.copy_from_slice(&rows.to_be_bytes()),
        Some(_) => {
            // An array of no dimensions.
            some.truncate(COUNT.start);
            if let Some(dimensions) = some.get_mut(..4) {
                dimensions.fill(0);
            }
        }
        None => {}
    }
    some.freeze()
}

#[cfg(test)]
mod tests {
    use super::{Arrays, MOST_ROWS, NotTaken, elements, some_of};

    /// A row of an int4 and a text.
    fn row(number: Option<i32>, text: Option<&str>) -> Vec<u8> {
        let mut row = vec![0, 2];
        let mut value = |bytes: Option<&[u8]>| match bytes {
            Some(bytes) => {
                row.extend(i32::try_from(bytes.len()).unwrap().to_be_bytes());
                row.extend(bytes);
            }
            None => row.extend((-1_i32).to_be_bytes()),
        };
        value(
            number
                .map(i32::to_be_bytes)
                .as_ref()
                .map(<[u8; 4]>::as_slice),
        );
        value(text.map(str::as_bytes));
        row
    }

    #[test]
    fn the_values_of_rows_are_the_elements_of_arrays() {
        let mut arrays = Arrays::new([23, 25]);
        arrays.push(&row(Some(7), Some("ab"))).unwrap();
        arrays.push(&row(Some(-1), None)).unwrap();
        assert_eq!(arrays.rows(), 2);
        let arrays = arrays.finish();
        // As `SELECT array_send('{7,-1}'::int4[])` and `array_send('{ab,NULL}'::text[])` give them.
        let numbers = b"\0\0\0\x01\0\0\0\0\0\0\0\x17\0\0\0\x02\0\0\0\x01\0\0\0\x04\0\0\0\x07\0\0\0\x04\xff\xff\xff\xff";
        let texts =
            b"\0\0\0\x01\0\0\0\x01\0\0\0\x19\0\0\0\x02\0\0\0\x01\0\0\0\x02ab\xff\xff\xff\xff";
        assert_eq!(arrays, [&numbers[..], &texts[..]]);
    }

    #[test]
    fn some_of_the_elements_are_an_array() {
        let mut arrays = Arrays::new([23, 25]);
        for (number, text) in [(Some(1), Some("a")), (None, Some("")), (Some(3), None)] {
            arrays.push(&row(number, text)).unwrap();
        }
        let arrays = arrays.finish();
        for (array, values) in arrays.iter().zip([
            [Some(&[0, 0, 0, 1][..]), None, Some(&[0, 0, 0, 3])],
            [Some(b"a"), Some(b""), None],
        ]) {
            let of = |array| {
                elements(array)
                    .map(super::Element::value)
                    .collect::<Vec<_>>()
            };
            assert_eq!(of(array), values);
            assert_eq!(some_of(array, |_| true), array);
            let some = some_of(array, |row| row > 0);
            assert_eq!(some[12..16], [0, 0, 0, 2]);
            assert_eq!(of(&some), values[1..]);
        }
        let mut two = Arrays::new([23, 25]);
        two.push(&row(None, Some(""))).unwrap();
        two.push(&row(Some(3), None)).unwrap();
        let expected = two.finish();
        assert_eq!(some_of(&arrays[0], |row| row > 0), expected[0]);
        assert_eq!(some_of(&arrays[1], |row| row > 0), expected[1]);
        let none = some_of(&arrays[0], |_| false);
        // NULLs or not, of no elements.
        assert_eq!(none[..4], [0; 4]);
        assert_eq!(none.len(), 12);
        assert_eq!(elements(&none).count(), 0);
    }

    #[test]
    fn no_rows_are_arrays_without_dimensions() {
        let empty = Arrays::new([23]).finish();
        assert_eq!(empty, [&b"\0\0\0\0\0\0\0\0\0\0\0\x17"[..]]);
    }

    #[test]
    fn what_is_too_much_or_no_row_is_not_taken() {
        let mut arrays = Arrays::new([23, 25]);
        assert_eq!(arrays.push(&[0, 1, 0, 0, 0, 0]), Err(NotTaken::Unreadable));
        let short = row(Some(1), Some("abc"));
        let short = &short[..short.len() - 1];
        let mut broken = Arrays::new([23, 25]);
        assert_eq!(broken.push(short), Err(NotTaken::Unreadable));
        let large = "x".repeat(400_000);
        for _ in 0..2 {
            arrays.push(&row(Some(1), Some(&large))).unwrap();
        }
        assert_eq!(
            arrays.push(&row(Some(1), Some(&large))),
            Err(NotTaken::Full)
        );
        let mut many = Arrays::new([23, 25]);
        for number in 0..MOST_ROWS {
            many.push(&row(i32::try_from(number).ok(), None)).unwrap();
        }
        assert_eq!(many.push(&row(None, None)), Err(NotTaken::Full));
    }
}
