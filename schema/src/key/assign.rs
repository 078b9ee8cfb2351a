//! What a column makes of a value stored in it: `varchar(n)` drops blanks, `numeric(p, s)` and `timestamp(p)` round.
//!
//! The shard of a row is decided by the value as stored, so a write must look at its key through this; a comparison must not.

use std::borrow::Cow;

use super::{Key, KeyError, KeyType, Numeric};

/// `VARHDRSZ`: what PostgreSQL adds to the modifiers of varchar, char and numeric.
const HEADER: i32 = 4;

impl<'a> Key<'a> {
    /// The key as a column of this type and `atttypmod` stores it. [`KeyError::NotExact`] if it would be rounded,
    /// [`KeyError::Invalid`] if PostgreSQL refuses it. Lengths are counted in characters of UTF-8.
    pub fn stored(self, key_type: KeyType, modifier: i32) -> Result<Key<'a>, KeyError> {
        if modifier < 0 {
            return Ok(self);
        }
        match (key_type, self) {
            (KeyType::Varchar, Key::Text(text)) => varchar(text, modifier - HEADER).map(Key::Text),
            (KeyType::Bpchar, Key::Bpchar(text)) => match excess(&text, modifier - HEADER) {
                Some(_) => Err(KeyError::Invalid),
                None => Ok(Key::Bpchar(text)),
            },
            (KeyType::Numeric, Key::Numeric(value)) => {
                numeric(value, modifier - HEADER).map(Key::Numeric)
            }
            (KeyType::Timestamp | KeyType::Timestamptz, Key::Timestamp(micros)) => {
                timestamp(micros, modifier).map(Key::Timestamp)
            }
            (_, key) => Ok(key),
        }
    }
}

/// Where the characters beyond the first `length` begin, if there are any.
fn excess(text: &[u8], length: i32) -> Option<usize> {
    let starts = text.iter().enumerate().filter(|(_, b)| **b & 0xC0 != 0x80);
    let length = usize::try_from(length).unwrap_or(0);
    starts.map(|(at, _)| at).nth(length)
}

/// Blanks beyond the length are dropped, anything else is refused.
fn varchar(text: Cow<'_, [u8]>, length: i32) -> Result<Cow<'_, [u8]>, KeyError> {
    let Some(at) = excess(&text, length) else {
        return Ok(text);
    };
    if text[at..].iter().any(|b| *b != b' ') {
        return Err(KeyError::Invalid);
    }
    Ok(match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..at]),
        Cow::Owned(mut text) => {
            text.truncate(at);
            Cow::Owned(text)
        }
    })
}

fn numeric(value: Numeric, modifier: i32) -> Result<Numeric, KeyError> {
    let precision = (modifier >> 16) & 0xFFFF;
    // Eleven bits with a sign since version 15, before that never more than 1000: the same bits.
    let scale = ((modifier & 0x7FF) ^ 0x400) - 0x400;
    match (value.whole_decimals(), value.scale()) {
        (Some(whole), Some(needed)) => {
            if scale < 0 || needed > scale {
                Err(KeyError::NotExact)
            } else if whole > precision - scale {
                Err(KeyError::Invalid)
            } else {
                Ok(value)
            }
        }
        _ if value.is_nan() => Ok(value),
        _ => Err(KeyError::Invalid),
    }
}

fn timestamp(micros: i64, precision: i32) -> Result<i64, KeyError> {
    let unit = 10_i64.pow(6 - precision.clamp(0, 6) as u32);
    if micros % unit == 0 || micros == i64::MIN || micros == i64::MAX {
        Ok(micros)
    } else {
        Err(KeyError::NotExact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(key_type: KeyType, modifier: i32, value: &str) -> Result<Key<'_>, KeyError> {
        Key::from_text(key_type, value.as_bytes())?.stored(key_type, modifier)
    }

    fn key(key_type: KeyType, value: &str) -> Result<Key<'_>, KeyError> {
        Key::from_text(key_type, value.as_bytes())
    }

    #[test]
    fn varchar_drops_blanks_beyond_its_length() {
        let three = HEADER + 3;
        assert_eq!(
            stored(KeyType::Varchar, three, "abc"),
            key(KeyType::Text, "abc")
        );
        assert_eq!(
            stored(KeyType::Varchar, three, "ab   "),
            key(KeyType::Text, "ab ")
        );
        assert_eq!(
            stored(KeyType::Varchar, three, "äöü  "),
            key(KeyType::Text, "äöü")
        );
        assert_eq!(
            stored(KeyType::Varchar, three, "abcd"),
            Err(KeyError::Invalid)
        );
        assert_eq!(
            stored(KeyType::Varchar, -1, "abcd  "),
            key(KeyType::Text, "abcd  ")
        );
    }

    #[test]
    fn char_ignores_blanks() {
        let three = HEADER + 3;
        assert_eq!(
            stored(KeyType::Bpchar, three, "ab     "),
            key(KeyType::Bpchar, "ab")
        );
        assert_eq!(
            stored(KeyType::Bpchar, three, "abcd"),
            Err(KeyError::Invalid)
        );
    }

    #[test]
    fn numeric_is_refused_when_it_would_be_rounded() {
        let modifier = HEADER + (5 << 16 | 2);
        for value in ["1", "1.50", "-999.99", "0", "0.01", "NaN", "100.0000"] {
            assert_eq!(
                stored(KeyType::Numeric, modifier, value),
                key(KeyType::Numeric, value),
                "{value}"
            );
        }
        for value in ["0.001", "1.005", "99999.001"] {
            assert_eq!(
                stored(KeyType::Numeric, modifier, value),
                Err(KeyError::NotExact),
                "{value}"
            );
        }
        for value in ["1000", "12345.6", "Infinity"] {
            assert_eq!(
                stored(KeyType::Numeric, modifier, value),
                Err(KeyError::Invalid),
                "{value}"
            );
        }
    }

    #[test]
    fn timestamp_is_refused_when_it_would_be_rounded() {
        let whole = "2026-01-31 12:00:01";
        let tenth = "2026-01-31 12:00:01.5";
        assert_eq!(
            stored(KeyType::Timestamp, 0, whole),
            key(KeyType::Timestamp, whole)
        );
        assert_eq!(
            stored(KeyType::Timestamp, 0, tenth),
            Err(KeyError::NotExact)
        );
        assert_eq!(
            stored(KeyType::Timestamp, 1, tenth),
            key(KeyType::Timestamp, tenth)
        );
        assert!(stored(KeyType::Timestamp, 0, "infinity").is_ok());
    }
}
