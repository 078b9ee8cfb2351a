//! Values and keys: what type PostgreSQL sees a value as, and which key that is where it is compared or stored.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not named is not known for certain"
)]

use std::borrow::Cow;

use std::sync::Arc;

use switchyard_schema::{Key, KeyError, KeyFamily, KeyType};

use crate::plan::located::{Located, Lookup};
use crate::plan::route::{KeySet, Values};

/// A value as PostgreSQL's analyser sees it: its type decides which `=` compares it.
#[derive(Debug, Clone)]
pub(super) enum Typed<'a> {
    /// A string literal whose type the context decides.
    Untyped(Cow<'a, [u8]>),
    /// An integer literal.
    Integer(i64),
    /// A number with a point, or too big for `bigint`.
    Decimal(Cow<'a, [u8]>),
    /// A value of this type.
    Value(KeyType, Key<'a>),
    Null,
}

/// What an expression means as a key.
#[derive(Debug, Clone)]
pub(super) enum Bound<'a> {
    /// This key.
    Key(Key<'a>),
    /// NULL.
    Null,
    /// No key of the type is equal to it, or PostgreSQL refuses it.
    Never,
    /// Not known for certain.
    Unknown,
}

/// A key read from a value of a declared type. An invalid value is an error of PostgreSQL's, which any shard gives.
pub(super) fn typed_key(key_type: KeyType, key: Result<Key<'_>, KeyError>) -> Option<Typed<'_>> {
    match key {
        Ok(key) => Some(Typed::Value(key_type, key)),
        Err(KeyError::Invalid | KeyError::NotExact) => None,
    }
}

/// An explicit cast to a type without modifier.
pub(super) fn convert(typed: Typed<'_>, to: KeyType) -> Option<Typed<'_>> {
    let fits = |value: i64| match to {
        KeyType::Int2 => i16::try_from(value).is_ok(),
        KeyType::Int4 => i32::try_from(value).is_ok(),
        KeyType::Int8
        | KeyType::Text
        | KeyType::Varchar
        | KeyType::Bpchar
        | KeyType::Uuid
        | KeyType::Bytea
        | KeyType::Date
        | KeyType::Timestamp
        | KeyType::Timestamptz
        | KeyType::Numeric
        | KeyType::Bool => true,
    };
    match typed {
        Typed::Null => Some(Typed::Null),
        Typed::Untyped(text) => typed_key(to, owned_from_text(to, text)),
        Typed::Integer(value) | Typed::Value(_, Key::Int(value)) => match to.family() {
            KeyFamily::Integer if fits(value) => Some(Typed::Value(to, Key::Int(value))),
            KeyFamily::Text => Some(Typed::Value(
                to,
                Key::Text(Cow::Owned(value.to_string().into_bytes())),
            )),
            KeyFamily::Numeric => typed_key(
                to,
                owned_from_text(to, Cow::Owned(value.to_string().into_bytes())),
            ),
            _ => None,
        },
        Typed::Decimal(text) => match to.family() {
            KeyFamily::Numeric => typed_key(to, owned_from_text(to, text)),
            KeyFamily::Integer => integral(&text)
                .filter(|value| fits(*value))
                .map(|v| Typed::Value(to, Key::Int(v))),
            _ => None,
        },
        Typed::Value(from, key) if from == to => Some(Typed::Value(to, key)),
        Typed::Value(_, Key::Text(text)) => typed_key(to, owned_from_text(to, text)),
        Typed::Value(..) => None,
    }
}

/// The key that a value is when compared with a column of the type.
pub(super) fn compare(typed: Typed<'_>, column: KeyType) -> Bound<'_> {
    let known = |key: Result<Key<'static>, KeyError>| match key {
        Ok(key) => Bound::Key(key),
        Err(KeyError::Invalid) => Bound::Never,
        Err(KeyError::NotExact) => Bound::Unknown,
    };
    match typed {
        Typed::Null => Bound::Null,
        Typed::Untyped(Cow::Borrowed(text)) => match Key::from_text(column, text) {
            Ok(key) => Bound::Key(key),
            Err(KeyError::Invalid) => Bound::Never,
            Err(KeyError::NotExact) => Bound::Unknown,
        },
        Typed::Untyped(Cow::Owned(text)) => {
            known(Key::from_text(column, &text).map(Key::into_owned))
        }
        Typed::Integer(value) | Typed::Value(_, Key::Int(value)) => match column.family() {
            KeyFamily::Integer => Bound::Key(Key::Int(value)),
            KeyFamily::Numeric => {
                known(Key::from_text(column, value.to_string().as_bytes()).map(Key::into_owned))
            }
            _ => Bound::Unknown,
        },
        Typed::Decimal(text) => match column.family() {
            KeyFamily::Integer => match integral(&text) {
                Some(value) => Bound::Key(Key::Int(value)),
                None if text.iter().any(|byte| matches!(byte, b'e' | b'E')) => Bound::Unknown,
                // No integer of any width is equal to it.
                None => Bound::Never,
            },
            KeyFamily::Numeric => known(Key::from_text(column, &text).map(Key::into_owned)),
            _ => Bound::Unknown,
        },
        Typed::Value(from, key) if from.family() == column.family() => Bound::Key(key),
        Typed::Value(..) => Bound::Unknown,
    }
}

/// The key that a value becomes when it is assigned to a column of the type.
pub(super) fn assign(typed: Typed<'_>, column: KeyType, typmod: i32) -> Bound<'_> {
    let bound = match typed {
        Typed::Integer(value) if column.family() == KeyFamily::Text => {
            Bound::Key(Key::Text(Cow::Owned(value.to_string().into_bytes())))
        }
        // A value that does not fit is PostgreSQL's error; any shard gives it.
        // Rounded to an integer.
        Typed::Decimal(text) if column.family() == KeyFamily::Integer => {
            integral(&text).map_or(Bound::Unknown, |value| Bound::Key(Key::Int(value)))
        }
        typed => compare(typed, column),
    };
    let Bound::Key(key) = bound else {
        return bound;
    };
    match key.stored(column, typmod) {
        Ok(key) => Bound::Key(key),
        Err(KeyError::NotExact) => Bound::Unknown,
        Err(_) => Bound::Never,
    }
}

fn owned_from_text<'a>(key_type: KeyType, text: Cow<'a, [u8]>) -> Result<Key<'a>, KeyError> {
    match text {
        Cow::Borrowed(text) => Key::from_text(key_type, text),
        Cow::Owned(text) => Key::from_text(key_type, &text).map(Key::into_owned),
    }
}

/// The value of a decimal literal without an exponent whose fraction is zero.
fn integral(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|digit| digit == b'0') {
        return None;
    }
    whole.parse().ok()
}

impl Located {
    /// The question of one execution; `None` if the value is not known for certain, or no row can have it.
    pub(crate) fn lookup(self: &Arc<Self>, values: &Values<'_>) -> Option<Lookup> {
        let KeySet::Equal(key) = &self.need.keys else {
            return None;
        };
        let Bound::Key(key) = key.bound(&self.need.map, values) else {
            return None;
        };
        let value = text_of(&key)?;
        // A number may be none of the column's type.
        Key::from_text(self.need.map.key_type(), value.as_bytes()).ok()?;
        Some(Lookup {
            shard: self.need.map.shard_of(Some(&key)).ok()?,
            value,
            located: Arc::clone(self),
        })
    }
}

/// A key in a text form that PostgreSQL reads under any settings.
fn text_of(key: &Key<'_>) -> Option<String> {
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    match key {
        Key::Int(value) => Some(value.to_string()),
        Key::Text(bytes) | Key::Bpchar(bytes) => String::from_utf8(bytes.to_vec()).ok(),
        Key::Uuid(bytes) => Some(hex(bytes)),
        Key::Bytea(bytes) => Some(format!("\\x{}", hex(bytes))),
        Key::Bool(value) => Some(value.to_string()),
        Key::Date(_) | Key::Timestamp(_) | Key::Numeric(_) => None,
    }
}
