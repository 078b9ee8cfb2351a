//! The description of a result's columns.

use bytes::{BufMut, BytesMut};

use crate::body::{DecodeError, Reader};
use crate::frame::put_cstr;
use crate::list::Format;

/// One column of a RowDescription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// The table it comes from, or 0.
    pub table: u32,
    /// Its number in that table, or 0.
    pub attribute: i16,
    /// Its type.
    pub type_oid: u32,
    /// The type's size, negative if it varies.
    pub type_size: i16,
    /// The type's modifier, or -1.
    pub type_modifier: i32,
    /// How its values are written.
    pub format: Format,
}

impl<'a> Column<'a> {
    /// A column that comes from no table, in text.
    pub fn new(name: &'a [u8], type_oid: u32, type_size: i16) -> Column<'a> {
        Column {
            name,
            table: 0,
            attribute: 0,
            type_oid,
            type_size,
            type_modifier: -1,
            format: Format::Text,
        }
    }

    fn read(body: &mut Reader<'a>) -> Result<Column<'a>, DecodeError> {
        Ok(Column {
            name: body.cstr()?,
            table: body.u32()?,
            attribute: body.i16()?,
            type_oid: body.u32()?,
            type_size: body.i16()?,
            type_modifier: body.i32()?,
            format: Format::from_code(body.i16()?)?,
        })
    }

    pub(super) fn write(&self, dst: &mut BytesMut) {
        put_cstr(dst, self.name);
        dst.put_u32(self.table);
        dst.put_i16(self.attribute);
        dst.put_u32(self.type_oid);
        dst.put_i16(self.type_size);
        dst.put_i32(self.type_modifier);
        dst.put_i16(self.format.code());
    }
}

/// The columns of a RowDescription.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Columns<'a> {
    count: u16,
    bytes: &'a [u8],
}

impl<'a> Columns<'a> {
    pub(super) fn read(body: &mut Reader<'a>) -> Result<Columns<'a>, DecodeError> {
        let count = body.u16()?;
        let start = body.0;
        for _ in 0..count {
            Column::read(body)?;
        }
        let bytes = &start[..start.len() - body.0.len()];
        Ok(Columns { count, bytes })
    }

    /// How many there are.
    pub fn len(self) -> usize {
        usize::from(self.count)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.count == 0
    }

    /// All of them in order.
    pub fn iter(self) -> impl Iterator<Item = Column<'a>> {
        let mut body = Reader(self.bytes);
        (0..self.count).map_while(move |_| Column::read(&mut body).ok())
    }

    pub(super) fn write(self, dst: &mut BytesMut) {
        dst.put_u16(self.count);
        dst.put_slice(self.bytes);
    }
}

impl std::fmt::Debug for Columns<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
