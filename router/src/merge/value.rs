//! Values as they are compared.

use std::cmp::Ordering;

use bytes::Bytes;
use switchyard_schema::{Key, KeyType};
use switchyard_wire::Format;

use super::MergeError;
use super::decimal::Decimal;

/// How values of a column are written and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `numeric`
    Numeric,
    /// `boolean`
    Bool,
    /// `uuid`
    Uuid,
    /// `text` and `varchar`, by their bytes.
    Text,
    /// `char(n)`, by its bytes without trailing blanks.
    Bpchar,
    /// `bytea`
    Bytea,
    /// `date`; see [`Kind::is_comparable_as_written`].
    Date,
    /// `timestamp` and `timestamptz`; see [`Kind::is_comparable_as_written`].
    Timestamp,
    /// `double precision`; see [`Kind::is_comparable_as_written`].
    Float8,
    /// `real`; see [`Kind::is_comparable_as_written`].
    Float4,
}

/// A value, decoded as far as comparing needs.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Int(i64),
    Float(f64),
    Bytes(Bytes),
    Decimal(Decimal),
}

impl Kind {
    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Int2 => "smallint",
            Kind::Int4 => "integer",
            Kind::Int8 => "bigint",
            Kind::Numeric => "numeric",
            Kind::Bool => "boolean",
            Kind::Uuid => "uuid",
            Kind::Text => "text",
            Kind::Bpchar => "character",
            Kind::Bytea => "bytea",
            Kind::Date => "date",
            Kind::Timestamp => "timestamp",
            Kind::Float8 => "double precision",
            Kind::Float4 => "real",
        }
    }

    /// Whether a value can be compared however it is written. The text of a time or of a float depends on settings, and may
    /// say less than the value does: such columns are compared by a column that has their binary form as `bytea`.
    pub const fn is_comparable_as_written(self) -> bool {
        match self {
            Kind::Int2
            | Kind::Int4
            | Kind::Int8
            | Kind::Numeric
            | Kind::Bool
            | Kind::Uuid
            | Kind::Text
            | Kind::Bpchar
            | Kind::Bytea => true,
            Kind::Date | Kind::Timestamp | Kind::Float8 | Kind::Float4 => false,
        }
    }

    /// Reads a value of a row, which is `bytes` or lies in it. `sent`: it is the binary form, as `bytea`.
    pub(super) fn read(
        self,
        format: Format,
        sent: bool,
        row: &Bytes,
        bytes: &[u8],
    ) -> Result<Value, MergeError> {
        if sent && format == Format::Text {
            let Ok(Key::Bytea(inside)) = Key::from_text(KeyType::Bytea, bytes) else {
                return Err(self.unreadable());
            };
            let inside = Bytes::from(inside.into_owned());
            return self.read(Format::Binary, false, &inside, &inside);
        }
        let format = if sent { Format::Binary } else { format };
        let key_type = match (self, format) {
            (Kind::Numeric, Format::Text) => return Decimal::from_text(bytes).map(Value::Decimal),
            (Kind::Numeric, Format::Binary) => {
                return Decimal::from_binary(bytes).map(Value::Decimal);
            }
            (Kind::Float8, Format::Binary) => return float(self, bytes, f64::from_be_bytes),
            (Kind::Float4, Format::Binary) => {
                return float(self, bytes, |bytes| f64::from(f32::from_be_bytes(bytes)));
            }
            (Kind::Float8 | Kind::Float4 | Kind::Date | Kind::Timestamp, Format::Text) => {
                return Err(self.unreadable());
            }
            (Kind::Int2, _) => KeyType::Int2,
            (Kind::Int4, _) => KeyType::Int4,
            (Kind::Int8, _) => KeyType::Int8,
            (Kind::Bool, _) => KeyType::Bool,
            (Kind::Uuid, _) => KeyType::Uuid,
            (Kind::Text, _) => KeyType::Text,
            (Kind::Bpchar, _) => KeyType::Bpchar,
            (Kind::Bytea, _) => KeyType::Bytea,
            (Kind::Date, _) => KeyType::Date,
            (Kind::Timestamp, _) => KeyType::Timestamp,
        };
        let key = match format {
            Format::Text => Key::from_text(key_type, bytes),
            Format::Binary => Key::from_binary(key_type, bytes),
        };
        Ok(match key.map_err(|_| self.unreadable())? {
            Key::Int(value) | Key::Timestamp(value) => Value::Int(value),
            Key::Date(value) => Value::Int(value.into()),
            Key::Bool(value) => Value::Int(value.into()),
            Key::Uuid(value) => Value::Bytes(Bytes::copy_from_slice(&value)),
            Key::Text(value) | Key::Bpchar(value) | Key::Bytea(value) => {
                Value::Bytes(match value {
                    std::borrow::Cow::Borrowed(part) => row.slice_ref(part),
                    std::borrow::Cow::Owned(bytes) => bytes.into(),
                })
            }
            Key::Numeric(_) => return Err(self.unreadable()),
        })
    }

    fn unreadable(self) -> MergeError {
        MergeError::Unreadable(self.name())
    }
}

fn float<const N: usize>(
    kind: Kind,
    bytes: &[u8],
    read: impl Fn([u8; N]) -> f64,
) -> Result<Value, MergeError> {
    let bytes = <[u8; N]>::try_from(bytes).map_err(|_| kind.unreadable())?;
    Ok(Value::Float(read(bytes)))
}

impl Value {
    /// PostgreSQL's order of two values of one kind.
    pub(super) fn compare(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Int(a), Value::Int(b)) => a.cmp(b),
            (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
            (Value::Decimal(a), Value::Decimal(b)) => a.compare(b),
            // NaN is equal to itself and larger than all else, and there is one zero.
            (Value::Float(a), Value::Float(b)) => a
                .partial_cmp(b)
                .unwrap_or_else(|| a.is_nan().cmp(&b.is_nan())),
            (Value::Int(_) | Value::Bytes(_) | Value::Decimal(_) | Value::Float(_), _) => {
                Ordering::Equal
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, format: Format, sent: bool, bytes: &[u8]) -> Result<Value, MergeError> {
        let row = Bytes::copy_from_slice(bytes);
        kind.read(format, sent, &row, &row)
    }

    fn order(kind: Kind, format: Format, sent: bool, a: &[u8], b: &[u8]) -> Ordering {
        let value = |bytes| read(kind, format, sent, bytes).unwrap();
        value(a).compare(&value(b))
    }

    #[test]
    fn text_is_ordered_by_type() {
        use Ordering::{Equal, Greater, Less};
        let cases: [(Kind, &str, &str, Ordering); 14] = [
            (Kind::Int4, "9", "10", Less),
            (
                Kind::Int8,
                "-9223372036854775808",
                "9223372036854775807",
                Less,
            ),
            (Kind::Int2, "-3", "-3", Equal),
            (Kind::Numeric, "9.50", "10", Less),
            (Kind::Numeric, "1.0", "1.00", Equal),
            (Kind::Bool, "f", "t", Less),
            (Kind::Text, "Z", "a", Less),
            (Kind::Text, "a", "a ", Less),
            (Kind::Text, "é", "z", Greater),
            (Kind::Bpchar, "a   ", "a", Equal),
            (Kind::Bpchar, "a b ", "a", Greater),
            (Kind::Bytea, "\\xff", "\\x0a", Greater),
            (Kind::Bytea, "\\377", "z", Greater),
            (
                Kind::Uuid,
                "00000000-0000-0000-0000-0000000000ff",
                "00000000-0000-0000-0000-000000000100",
                Less,
            ),
        ];
        for (kind, a, b, expected) in cases {
            let (a, b) = (a.as_bytes(), b.as_bytes());
            assert_eq!(order(kind, Format::Text, false, a, b), expected, "{kind:?}");
            assert_eq!(order(kind, Format::Text, false, b, a), expected.reverse());
        }
    }

    #[test]
    fn the_binary_form_is_ordered_by_type_whether_sent_or_written_out() {
        let cases: [(Kind, Vec<u8>, Vec<u8>); 6] = [
            (
                Kind::Timestamp,
                (-1_i64).to_be_bytes().to_vec(),
                0_i64.to_be_bytes().to_vec(),
            ),
            (
                Kind::Date,
                i32::MIN.to_be_bytes().to_vec(),
                8000_i32.to_be_bytes().to_vec(),
            ),
            (
                Kind::Float8,
                (-0.5_f64).to_be_bytes().to_vec(),
                0.25_f64.to_be_bytes().to_vec(),
            ),
            (
                Kind::Float8,
                f64::INFINITY.to_be_bytes().to_vec(),
                f64::NAN.to_be_bytes().to_vec(),
            ),
            (
                Kind::Float4,
                (-2_f32).to_be_bytes().to_vec(),
                1e-3_f32.to_be_bytes().to_vec(),
            ),
            (
                Kind::Int4,
                (-1_i32).to_be_bytes().to_vec(),
                1_i32.to_be_bytes().to_vec(),
            ),
        ];
        let hex = |bytes: &[u8]| {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("\\x{digits}").into_bytes()
        };
        for (kind, a, b) in &cases {
            let less = Ordering::Less;
            assert_eq!(order(*kind, Format::Binary, false, a, b), less, "{kind:?}");
            assert_eq!(order(*kind, Format::Binary, true, a, b), less, "{kind:?}");
            assert_eq!(order(*kind, Format::Text, true, &hex(a), &hex(b)), less);
            assert_eq!(
                order(*kind, Format::Text, true, &hex(b), &hex(b)),
                Ordering::Equal
            );
        }
        let zero = |zero: f64| zero.to_be_bytes();
        let order = order(Kind::Float8, Format::Binary, false, &zero(-0.0), &zero(0.0));
        assert_eq!(order, Ordering::Equal);
    }

    #[test]
    fn what_cannot_be_certain_is_an_error() {
        for (kind, format, bytes) in [
            (Kind::Timestamp, Format::Text, &b"2026-01-01 00:00:00"[..]),
            (Kind::Date, Format::Text, b"2026-01-01"),
            (Kind::Float8, Format::Text, b"1.5"),
            (Kind::Int4, Format::Binary, b"123"),
            (Kind::Int4, Format::Text, b"x"),
            (Kind::Numeric, Format::Text, b"x"),
            (Kind::Uuid, Format::Binary, b"short"),
        ] {
            let read = read(kind, format, false, bytes);
            assert_eq!(read, Err(MergeError::Unreadable(kind.name())));
        }
    }
}
