//! The rows of COPY FROM STDIN, divided among the shards.
//!
//! Purpose: find where a row ends and which of its bytes are the shard key, exactly as PostgreSQL does, and pass the row's bytes
//! on unchanged ([`Distributor`]). Invariants: pure; a row whose shard is not certain is never placed: it is *astray*, and a
//! shard is asked what is wrong with it. Nothing is kept of rows but which of the input's lines a shard has got last
//! ([`Lines`]). Collaborators: [`crate::plan`] reads the options of the statement; the session moves the bytes.

mod added;
mod binary;
mod csv;
mod distribute;
mod lines;
mod text;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use switchyard_schema::{Key, KeyError, KeyMap, ShardIndex};

pub use distribute::{Astray, Distributor, Lane, Reason};
pub use lines::Lines;

/// How the rows are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// `FORMAT text`
    Text(Text),
    /// `FORMAT csv`
    Csv(Csv),
    /// `FORMAT binary`
    Binary,
}

/// The options of text that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// What is between two fields.
    pub delimiter: u8,
    /// How NULL is written.
    pub null: Box<[u8]>,
    /// A line comes before the rows.
    pub header: bool,
}

/// The options of CSV that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csv {
    /// What is between two fields.
    pub delimiter: u8,
    /// How NULL is written, without quotes.
    pub null: Box<[u8]>,
    /// A line comes before the rows.
    pub header: bool,
    /// What is around fields.
    pub quote: u8,
    /// What is before a quote within quotes.
    pub escape: u8,
    /// What is NULL otherwise is the text of NULL, for the shard key.
    pub key_not_null: bool,
    /// The text of NULL within quotes is NULL, too, for the shard key.
    pub key_null: bool,
    /// A line of `\.` is the end.
    pub ends_with_marker: bool,
}

/// Where the shard key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPlace {
    /// Among the fields that the client sends, at this position.
    Sent(usize),
    /// Among those that are added, at this position.
    Added(usize),
    /// Nowhere: it is NULL.
    Nowhere,
}

/// The shard key among the fields of a row.
#[derive(Debug, Clone)]
pub struct KeyColumn {
    /// Where it is among the fields.
    pub place: KeyPlace,
    /// From key to shard.
    pub map: Arc<KeyMap>,
    /// The column's type modifier, or -1.
    pub typmod: i32,
}

impl KeyColumn {
    /// The shard of a row whose key is written like this; `None` stands for NULL.
    fn shard_of(&self, field: Option<&[u8]>, binary: bool) -> Result<ShardIndex, KeyError> {
        let key_type = self.map.key_type();
        let key = match field {
            None => None,
            Some(field) => {
                let key = match binary {
                    true => Key::from_binary(key_type, field)?,
                    false => Key::from_text(key_type, field)?,
                };
                Some(key.stored(key_type, self.typmod)?)
            }
        };
        let shard = self.map.shard_of(key.as_ref());
        shard.map_err(|_| KeyError::NotExact)
    }
}

/// How lines end: what the first one ends with holds for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    Newline,
    Return,
    ReturnNewline,
}

/// What stands at the start of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Not all of a row has come yet.
    Incomplete,
    /// A row.
    Row(Extent),
    /// What every shard is to get.
    Preamble(Extent),
    /// The end; what comes after it does not matter.
    End,
    /// The end, which every shard is to get, in so many bytes.
    Trailer(usize),
    /// So many bytes that PostgreSQL has an error for.
    Wrong(usize),
}

/// A row in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    /// Its bytes.
    length: usize,
    /// Its bytes without what ends the line.
    content: usize,
    /// So many lines PostgreSQL counts.
    lines: u64,
    /// So many a shard counts that reads it as its first.
    lines_as_first: u64,
    /// No byte of it stands for another.
    plain: bool,
    /// It is the last one: the marker of the end stands in it.
    ends: bool,
}

/// A field of a row: the bytes its type's input function gets; `None` is NULL.
type Field<'a> = Option<Cow<'a, [u8]>>;
