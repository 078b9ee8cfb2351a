//! A shard key value: from PostgreSQL's text or binary form, exactly or not at all.
//!
//! A [`Key`] equals another exactly when PostgreSQL's `=` of the type says so, and equal keys hash alike. What cannot be read
//! with certainty, because its meaning depends on a setting, a version or the clock, is [`KeyError::NotExact`]: the caller
//! must not guess. Reading integers, text, uuid, dates and time stamps allocates nothing.

mod assign;
mod datetime;
mod numeric;
mod text;

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::hash;

pub use numeric::Numeric;

/// The types a shard key can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `text`
    Text,
    /// `varchar`
    Varchar,
    /// `char(n)`: trailing blanks mean nothing
    Bpchar,
    /// `uuid`
    Uuid,
    /// `bytea`
    Bytea,
    /// `date`
    Date,
    /// `timestamp`
    Timestamp,
    /// `timestamptz`
    Timestamptz,
    /// `numeric`
    Numeric,
    /// `boolean`
    Bool,
}

impl KeyType {
    /// Every key type.
    pub const ALL: [KeyType; 13] = [
        KeyType::Int2,
        KeyType::Int4,
        KeyType::Int8,
        KeyType::Text,
        KeyType::Varchar,
        KeyType::Bpchar,
        KeyType::Uuid,
        KeyType::Bytea,
        KeyType::Date,
        KeyType::Timestamp,
        KeyType::Timestamptz,
        KeyType::Numeric,
        KeyType::Bool,
    ];

    /// The type with this OID in `pg_type`, if it can be a shard key.
    #[must_use]
    pub fn from_oid(oid: u32) -> Option<KeyType> {
        Self::ALL.into_iter().find(|t| t.oid() == oid)
    }

    /// The type's OID in `pg_type`.
    #[must_use]
    pub const fn oid(self) -> u32 {
        match self {
            KeyType::Bool => 16,
            KeyType::Bytea => 17,
            KeyType::Int8 => 20,
            KeyType::Int2 => 21,
            KeyType::Int4 => 23,
            KeyType::Text => 25,
            KeyType::Bpchar => 1042,
            KeyType::Varchar => 1043,
            KeyType::Date => 1082,
            KeyType::Timestamp => 1114,
            KeyType::Timestamptz => 1184,
            KeyType::Numeric => 1700,
            KeyType::Uuid => 2950,
        }
    }

    /// PostgreSQL's name of the type.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            KeyType::Int2 => "smallint",
            KeyType::Int4 => "integer",
            KeyType::Int8 => "bigint",
            KeyType::Text => "text",
            KeyType::Varchar => "character varying",
            KeyType::Bpchar => "character",
            KeyType::Uuid => "uuid",
            KeyType::Bytea => "bytea",
            KeyType::Date => "date",
            KeyType::Timestamp => "timestamp without time zone",
            KeyType::Timestamptz => "timestamp with time zone",
            KeyType::Numeric => "numeric",
            KeyType::Bool => "boolean",
        }
    }

    /// Its name in `pg_type`, which takes no modifier of its own accord.
    #[must_use]
    pub const fn internal_name(self) -> &'static str {
        match self {
            KeyType::Int2 => "int2",
            KeyType::Int4 => "int4",
            KeyType::Int8 => "int8",
            KeyType::Text => "text",
            KeyType::Varchar => "varchar",
            KeyType::Bpchar => "bpchar",
            KeyType::Uuid => "uuid",
            KeyType::Bytea => "bytea",
            KeyType::Date => "date",
            KeyType::Timestamp => "timestamp",
            KeyType::Timestamptz => "timestamptz",
            KeyType::Numeric => "numeric",
            KeyType::Bool => "bool",
        }
    }

    /// Whether a collation decides the type's order and equality.
    #[must_use]
    pub const fn has_collation(self) -> bool {
        matches!(self, KeyType::Text | KeyType::Varchar | KeyType::Bpchar)
    }

    /// The types whose values compare and hash alike across types: columns of one family can be colocated.
    #[must_use]
    pub const fn family(self) -> KeyFamily {
        match self {
            KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => KeyFamily::Integer,
            KeyType::Text | KeyType::Varchar => KeyFamily::Text,
            KeyType::Bpchar => KeyFamily::Bpchar,
            KeyType::Uuid => KeyFamily::Uuid,
            KeyType::Bytea => KeyFamily::Bytea,
            KeyType::Date => KeyFamily::Date,
            KeyType::Timestamp => KeyFamily::Timestamp,
            KeyType::Timestamptz => KeyFamily::Timestamptz,
            KeyType::Numeric => KeyFamily::Numeric,
            KeyType::Bool => KeyFamily::Bool,
        }
    }
}

/// Key types that compare and hash alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyFamily {
    /// `smallint`, `integer`, `bigint`
    Integer,
    /// `text`, `varchar`
    Text,
    /// `char(n)`
    Bpchar,
    /// `uuid`
    Uuid,
    /// `bytea`
    Bytea,
    /// `date`
    Date,
    /// `timestamp`
    Timestamp,
    /// `timestamptz`
    Timestamptz,
    /// `numeric`
    Numeric,
    /// `boolean`
    Bool,
}

/// Why a value is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// PostgreSQL may accept the value, but what it means cannot be told from here for certain.
    #[error("the value of the shard key is not in a form whose meaning is certain")]
    NotExact,
    /// Every supported PostgreSQL refuses the value: any shard gives PostgreSQL's own error.
    #[error("the value is not valid for the shard key's type")]
    Invalid,
}

/// A shard key value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key<'a> {
    /// An integer of any width.
    Int(i64),
    /// The bytes of a text or varchar.
    Text(Cow<'a, [u8]>),
    /// The bytes of a `char(n)` without trailing blanks; [`Key::bpchar`] makes one.
    Bpchar(Cow<'a, [u8]>),
    /// A uuid.
    Uuid([u8; 16]),
    /// A bytea.
    Bytea(Cow<'a, [u8]>),
    /// Days since 2000-01-01; `i32::MIN` and `i32::MAX` are the infinities.
    Date(i32),
    /// Microseconds since 2000-01-01 (UTC for timestamptz); `i64::MIN` and `i64::MAX` are the infinities.
    Timestamp(i64),
    /// A numeric.
    Numeric(Numeric),
    /// A boolean.
    Bool(bool),
}

impl<'a> Key<'a> {
    /// Reads a value in PostgreSQL's text form: a parameter, an unadorned literal's contents, a COPY field.
    pub fn from_text(key_type: KeyType, value: &'a [u8]) -> Result<Key<'a>, KeyError> {
        match key_type {
            KeyType::Int2 => text::integer(value, i16::MIN.into(), i16::MAX.into()).map(Key::Int),
            KeyType::Int4 => text::integer(value, i32::MIN.into(), i32::MAX.into()).map(Key::Int),
            KeyType::Int8 => text::integer(value, i64::MIN, i64::MAX).map(Key::Int),
            KeyType::Text | KeyType::Varchar => Ok(Key::Text(Cow::Borrowed(value))),
            KeyType::Bpchar => Ok(Key::bpchar(value)),
            KeyType::Uuid => text::uuid(value).map(Key::Uuid),
            KeyType::Bytea => text::bytea(value).map(Key::Bytea),
            KeyType::Date => datetime::date(value).map(Key::Date),
            KeyType::Timestamp => datetime::timestamp(value).map(Key::Timestamp),
            KeyType::Timestamptz => datetime::timestamptz(value).map(Key::Timestamp),
            KeyType::Numeric => Numeric::from_text(value).map(Key::Numeric),
            KeyType::Bool => text::boolean(value).map(Key::Bool),
        }
    }

    /// Reads a value in PostgreSQL's binary form: a binary parameter, a binary COPY field.
    pub fn from_binary(key_type: KeyType, value: &'a [u8]) -> Result<Key<'a>, KeyError> {
        match key_type {
            KeyType::Int2 => Ok(Key::Int(i16::from_be_bytes(exactly(value)?).into())),
            KeyType::Int4 => Ok(Key::Int(i32::from_be_bytes(exactly(value)?).into())),
            KeyType::Int8 => Ok(Key::Int(i64::from_be_bytes(exactly(value)?))),
            KeyType::Text | KeyType::Varchar => Ok(Key::Text(Cow::Borrowed(value))),
            KeyType::Bpchar => Ok(Key::bpchar(value)),
            KeyType::Uuid => Ok(Key::Uuid(exactly(value)?)),
            KeyType::Bytea => Ok(Key::Bytea(Cow::Borrowed(value))),
            KeyType::Date => {
                datetime::checked_days(i32::from_be_bytes(exactly(value)?)).map(Key::Date)
            }
            KeyType::Timestamp | KeyType::Timestamptz => {
                datetime::checked_micros(i64::from_be_bytes(exactly(value)?)).map(Key::Timestamp)
            }
            KeyType::Numeric => Numeric::from_binary(value).map(Key::Numeric),
            KeyType::Bool => Ok(Key::Bool(exactly::<1>(value)?[0] != 0)),
        }
    }

    /// A `char(n)` key: trailing blanks are taken off.
    #[must_use]
    pub fn bpchar(value: &'a [u8]) -> Key<'a> {
        let blanks = value.iter().rev().take_while(|b| **b == b' ').count();
        Key::Bpchar(Cow::Borrowed(&value[..value.len() - blanks]))
    }

    /// PostgreSQL's extended hash of the value with [`hash::SEED`].
    #[must_use]
    pub fn hash_extended(&self) -> u64 {
        self.hash_with(hash::SEED)
    }

    /// PostgreSQL's extended hash of the value with a seed of choice.
    #[must_use]
    pub fn hash_with(&self, seed: u64) -> u64 {
        match self {
            Key::Int(value) | Key::Timestamp(value) => hash::int8(*value, seed),
            Key::Text(value) | Key::Bpchar(value) | Key::Bytea(value) => hash::bytes(value, seed),
            Key::Uuid(value) => hash::bytes(value, seed),
            Key::Date(value) => hash::int8((*value).into(), seed),
            Key::Numeric(value) => value.hash_with(seed),
            Key::Bool(value) => hash::int8((*value).into(), seed),
        }
    }

    /// PostgreSQL's order of two keys of one family, text by bytes (collation `C`). `None` if the families differ.
    #[must_use]
    pub fn compare(&self, other: &Key<'_>) -> Option<Ordering> {
        match (self, other) {
            (Key::Int(a), Key::Int(b)) | (Key::Timestamp(a), Key::Timestamp(b)) => Some(a.cmp(b)),
            (Key::Text(a), Key::Text(b))
            | (Key::Bpchar(a), Key::Bpchar(b))
            | (Key::Bytea(a), Key::Bytea(b)) => Some(a.cmp(b)),
            (Key::Uuid(a), Key::Uuid(b)) => Some(a.cmp(b)),
            (Key::Date(a), Key::Date(b)) => Some(a.cmp(b)),
            (Key::Numeric(a), Key::Numeric(b)) => Some(a.cmp(b)),
            (Key::Bool(a), Key::Bool(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// The same key, borrowing nothing.
    #[must_use]
    pub fn into_owned(self) -> Key<'static> {
        match self {
            Key::Int(value) => Key::Int(value),
            Key::Text(value) => Key::Text(Cow::Owned(value.into_owned())),
            Key::Bpchar(value) => Key::Bpchar(Cow::Owned(value.into_owned())),
            Key::Uuid(value) => Key::Uuid(value),
            Key::Bytea(value) => Key::Bytea(Cow::Owned(value.into_owned())),
            Key::Date(value) => Key::Date(value),
            Key::Timestamp(value) => Key::Timestamp(value),
            Key::Numeric(value) => Key::Numeric(value),
            Key::Bool(value) => Key::Bool(value),
        }
    }

    /// Whether the key is one of the family's.
    #[must_use]
    pub fn is_of(&self, family: KeyFamily) -> bool {
        match self {
            Key::Int(_) => family == KeyFamily::Integer,
            Key::Text(_) => family == KeyFamily::Text,
            Key::Bpchar(_) => family == KeyFamily::Bpchar,
            Key::Uuid(_) => family == KeyFamily::Uuid,
            Key::Bytea(_) => family == KeyFamily::Bytea,
            Key::Date(_) => family == KeyFamily::Date,
            Key::Timestamp(_) => family == KeyFamily::Timestamp || family == KeyFamily::Timestamptz,
            Key::Numeric(_) => family == KeyFamily::Numeric,
            Key::Bool(_) => family == KeyFamily::Bool,
        }
    }
}

/// A value of exactly `N` bytes.
fn exactly<const N: usize>(value: &[u8]) -> Result<[u8; N], KeyError> {
    value.try_into().map_err(|_| KeyError::Invalid)
}

#[cfg(test)]
mod tests;
