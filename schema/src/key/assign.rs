//! What a column makes of a value stored in it: `varchar(n)` drops blanks, `numeric(p, s)` and `timestamp(p)` round.
//!
//! The shard of a row is decided by the value as stored, so a write must look at its key through this; a comparison must not.

use std::borrow::Cow;

use super::{Key, KeyError, KeyType, Numeric};

/// `VARHDRSZ`: what PostgreSQL adds to the modifiers of varchar, char and numeric.
const HEADER: i32 = 4;

impl<'a> Key<'a> {
    /// The key as a column of this type and `atttypmod` stores it. [`KeyError::Invalid`] if PostgreSQL refuses it. Lengths are counted in characters of UTF-8.
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
                Ok(Key::Timestamp(timestamp(micros, modifier)))
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
    let value = value.rounded(scale);
    match value.whole_decimals() {
        Some(whole) if whole > precision - scale => Err(KeyError::Invalid),
        Some(_) => Ok(value),
        None if value.is_nan() => Ok(value),
        None => Err(KeyError::Invalid),
    }
}

/// Rounded to so many decimals of a second, halves away from PostgreSQL's epoch.
fn timestamp(micros: i64, precision: i32) -> i64 {
    let unit = 10_i64.pow(6 - precision.clamp(0, 6) as u32);
    if micros == i64::MIN || micros == i64::MAX {
        return micros;
    }
    let magnitude = micros.saturating_abs().saturating_add(unit / 2) / unit * unit;
    magnitude * micros.signum()
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
    fn numeric_is_rounded() {
        let modifier = HEADER + (5 << 16 | 2);
        for (value, rounded) in [
            ("1", "1"),
            ("1.50", "1.5"),
            ("-999.99", "-999.99"),
            ("0.001", "0"),
            ("1.005", "1.01"),
            ("-1.005", "-1.01"),
            ("9.995", "10"),
            ("99.999", "100"),
            ("0.00499999", "0"),
            ("0.00000001", "0"),
            ("12.3449", "12.34"),
            ("NaN", "NaN"),
        ] {
            assert_eq!(
                stored(KeyType::Numeric, modifier, value),
                key(KeyType::Numeric, rounded),
                "{value}"
            );
        }
        for value in ["1000", "999.995", "12345.6", "99999.001", "Infinity"] {
            assert_eq!(
                stored(KeyType::Numeric, modifier, value),
                Err(KeyError::Invalid),
                "{value}"
            );
        }
        // numeric(3,-2)
        let hundreds = HEADER + (3 << 16 | (-2 & 0x7FF));
        for (value, rounded) in [
            ("1250", "1300"),
            ("49", "0"),
            ("50", "100"),
            ("99949", "99900"),
        ] {
            assert_eq!(
                stored(KeyType::Numeric, hundreds, value),
                key(KeyType::Numeric, rounded),
                "{value}"
            );
        }
    }

    #[test]
    fn timestamp_is_rounded() {
        for (precision, value, rounded) in [
            (0, "2026-01-31 12:00:01", "2026-01-31 12:00:01"),
            (0, "2026-01-31 12:00:01.5", "2026-01-31 12:00:02"),
            (0, "2026-01-31 12:00:01.499999", "2026-01-31 12:00:01"),
            (1, "2026-01-31 12:00:01.55", "2026-01-31 12:00:01.6"),
            (0, "1999-12-31 23:59:58.5", "1999-12-31 23:59:58"),
            (0, "infinity", "infinity"),
        ] {
            assert_eq!(
                stored(KeyType::Timestamp, precision, value),
                key(KeyType::Timestamp, rounded),
                "{value}"
            );
        }
    }
}
