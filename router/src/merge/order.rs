//! Rows and the order of them.

use std::cmp::Ordering;

use bytes::Bytes;
use smallvec::SmallVec;
use switchyard_wire::backend::{Message, decode};

use super::MergeError;
use super::recipe::{Formats, SortKey};
use super::value::{Kind, Value};

/// The values of a row's sort keys.
pub(super) type Keys = SmallVec<[Option<Value>; 2]>;

/// A row as a shard sent it.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// The body of its DataRow.
    body: Bytes,
}

impl Row {
    pub(super) fn new(body: Bytes) -> Row {
        Row { body }
    }

    /// A copy that keeps nothing else in memory.
    pub(super) fn detached(&self) -> Row {
        Row::new(Bytes::copy_from_slice(&self.body))
    }

    /// Its values.
    pub(super) fn values(&self) -> Result<switchyard_wire::Values<'_>, MergeError> {
        match decode(b'D', &self.body) {
            Ok(Message::DataRow(values)) => Ok(values),
            Ok(_) | Err(_) => Err(MergeError::Unreadable("row")),
        }
    }

    /// The value of a column.
    pub(super) fn value(&self, column: u16) -> Result<Option<&[u8]>, MergeError> {
        let value = self.values()?.get(usize::from(column));
        value.ok_or(MergeError::Unreadable("row"))
    }

    /// Bytes it takes.
    pub(super) fn size(&self) -> usize {
        self.body.len()
    }

    /// The value of a column, decoded. `sent`: it is the binary form, as `bytea`.
    pub(super) fn read(
        &self,
        column: u16,
        kind: Kind,
        sent: bool,
        formats: &Formats,
    ) -> Result<Option<Value>, MergeError> {
        let read = |bytes| kind.read(formats.of(column), sent, &self.body, bytes);
        self.value(column)?.map(read).transpose()
    }

    /// The value of one sort key.
    pub(super) fn key(
        &self,
        key: &SortKey,
        formats: &Formats,
    ) -> Result<Option<Value>, MergeError> {
        self.read(key.column, key.kind, key.sent, formats)
    }

    /// The values of its sort keys.
    pub(super) fn keys(&self, order: &[SortKey], formats: &Formats) -> Result<Keys, MergeError> {
        order.iter().map(|key| self.key(key, formats)).collect()
    }
}

/// Which of two values comes first.
pub(super) fn compare_by(key: &SortKey, a: Option<&Value>, b: Option<&Value>) -> Ordering {
    let null = if key.nulls_first {
        Ordering::Less
    } else {
        Ordering::Greater
    };
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => null,
        (Some(_), None) => null.reverse(),
        (Some(a), Some(b)) if key.descending => b.compare(a),
        (Some(a), Some(b)) => a.compare(b),
    }
}

/// Which of two rows comes first, by the values of their sort keys.
pub(super) fn compare(order: &[SortKey], a: &Keys, b: &Keys) -> Ordering {
    order
        .iter()
        .zip(a.iter().zip(b))
        .map(|(key, (a, b))| compare_by(key, a.as_ref(), b.as_ref()))
        .find(|ordering| ordering.is_ne())
        .unwrap_or(Ordering::Equal)
}
