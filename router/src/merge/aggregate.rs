//! Partial aggregates made whole.

use std::cmp::Ordering;

use bytes::Bytes;
use switchyard_wire::Format;

use super::MergeError;
use super::decimal::Decimal;
use super::order::{Row, compare_by};
use super::recipe::{Combine, Formats};
use super::value::{Kind, Value};

/// What a column of a group has come to so far.
#[derive(Debug)]
pub(super) enum Partial {
    Whole(Option<i64>),
    Sum(Option<Decimal>),
    Average { sum: Option<Decimal>, count: u64 },
    First(Option<(Value, Bytes)>),
}

impl Partial {
    pub(super) fn new(combine: Combine) -> Partial {
        match combine {
            Combine::SumNumeric => Partial::Sum(None),
            Combine::Average { .. } => Partial::Average {
                sum: None,
                count: 0,
            },
            Combine::First(_) => Partial::First(None),
            Combine::SumInt8
            | Combine::And
            | Combine::Or
            | Combine::BitAnd(_)
            | Combine::BitOr(_)
            | Combine::BitXor(_) => Partial::Whole(None),
        }
    }

    /// Takes in a row's value of the column.
    pub(super) fn add(
        &mut self,
        combine: Combine,
        column: u16,
        row: &Row,
        formats: &Formats,
    ) -> Result<(), MergeError> {
        match (self, combine) {
            (Partial::Average { sum, count }, Combine::Average { .. }) => {
                average(sum, count, combine, row, formats)
            }
            (Partial::Sum(sum), _) => {
                let more = decimal(row, column, Kind::Numeric, formats)?;
                add(sum, more)
            }
            (Partial::First(first), Combine::First(key)) => {
                let (Some(value), Some(bytes)) = (row.key(&key, formats)?, row.value(column)?)
                else {
                    return Ok(());
                };
                let is_first = first.as_ref().is_none_or(|(first, _)| {
                    compare_by(&key, Some(&value), Some(first)) == Ordering::Less
                });
                if is_first {
                    *first = Some((value, Bytes::copy_from_slice(bytes)));
                }
                Ok(())
            }
            (Partial::Whole(so_far), combine) => {
                let Some(value) = whole(row, column, kind(combine), formats)? else {
                    return Ok(());
                };
                *so_far = Some(match *so_far {
                    None => value,
                    Some(so_far) => fold(combine, so_far, value)?,
                });
                Ok(())
            }
            (Partial::Average { .. } | Partial::First(_), _) => Ok(()),
        }
    }

    /// The value of the whole group.
    pub(super) fn finish(self, combine: Combine, format: Format) -> Option<Bytes> {
        match self {
            Partial::Whole(value) => value.map(|value| write_whole(kind(combine), value, format)),
            Partial::Sum(sum) => sum.map(|sum| write_decimal(&sum, format)),
            Partial::Average { sum, count } => {
                sum.map(|sum| write_decimal(&sum.averaged(count), format))
            }
            Partial::First(first) => first.map(|(_, bytes)| bytes),
        }
    }
}

/// The kind of integers, or of booleans, that are combined.
fn kind(combine: Combine) -> Kind {
    match combine {
        Combine::And | Combine::Or => Kind::Bool,
        Combine::BitAnd(kind) | Combine::BitOr(kind) | Combine::BitXor(kind) => kind,
        Combine::SumInt8 | Combine::SumNumeric | Combine::Average { .. } | Combine::First(_) => {
            Kind::Int8
        }
    }
}

fn fold(combine: Combine, a: i64, b: i64) -> Result<i64, MergeError> {
    Ok(match combine {
        Combine::And | Combine::BitAnd(_) => a & b,
        Combine::Or | Combine::BitOr(_) => a | b,
        Combine::BitXor(_) => a ^ b,
        Combine::SumInt8 | Combine::SumNumeric | Combine::Average { .. } | Combine::First(_) => {
            a.checked_add(b).ok_or(MergeError::BigintOverflow)?
        }
    })
}

fn average(
    sum: &mut Option<Decimal>,
    count: &mut u64,
    combine: Combine,
    row: &Row,
    formats: &Formats,
) -> Result<(), MergeError> {
    let Combine::Average {
        sum: sums,
        whole: is_whole,
        count: counts,
    } = combine
    else {
        return Ok(());
    };
    let more = match is_whole {
        true => whole(row, sums, Kind::Int8, formats)?.map(|sum| Decimal::from_int(sum.into())),
        false => decimal(row, sums, Kind::Numeric, formats)?,
    };
    let rows = whole(row, counts, Kind::Int8, formats)?.unwrap_or(0);
    let rows = u64::try_from(rows).map_err(|_| MergeError::Unreadable("count"))?;
    *count = count.checked_add(rows).ok_or(MergeError::BigintOverflow)?;
    add(sum, more)
}

fn add(sum: &mut Option<Decimal>, more: Option<Decimal>) -> Result<(), MergeError> {
    *sum = match (sum.take(), more) {
        (Some(sum), Some(more)) => Some(sum.add(&more)?),
        (sum, more) => sum.or(more),
    };
    Ok(())
}

fn read(
    row: &Row,
    column: u16,
    kind: Kind,
    formats: &Formats,
) -> Result<Option<Value>, MergeError> {
    row.read(column, kind, false, formats)
}

fn whole(row: &Row, column: u16, kind: Kind, formats: &Formats) -> Result<Option<i64>, MergeError> {
    match read(row, column, kind, formats)? {
        None => Ok(None),
        Some(Value::Int(value)) => Ok(Some(value)),
        Some(Value::Float(_) | Value::Bytes(_) | Value::Decimal(_)) => {
            Err(MergeError::Unreadable(kind.name()))
        }
    }
}

fn decimal(
    row: &Row,
    column: u16,
    kind: Kind,
    formats: &Formats,
) -> Result<Option<Decimal>, MergeError> {
    match read(row, column, kind, formats)? {
        None => Ok(None),
        Some(Value::Decimal(value)) => Ok(Some(value)),
        Some(Value::Float(_) | Value::Bytes(_) | Value::Int(_)) => {
            Err(MergeError::Unreadable(kind.name()))
        }
    }
}

fn write_decimal(value: &Decimal, format: Format) -> Bytes {
    let mut out = Vec::new();
    match format {
        Format::Text => value.write_text(&mut out),
        Format::Binary => value.write_binary(&mut out),
    }
    out.into()
}

fn write_whole(kind: Kind, value: i64, format: Format) -> Bytes {
    let bytes = value.to_be_bytes();
    let size = match (kind, format) {
        (Kind::Bool, Format::Text) => {
            return Bytes::from_static(if value == 0 { b"f" } else { b"t" });
        }
        (_, Format::Text) => return value.to_string().into(),
        (Kind::Bool, Format::Binary) => 1,
        (Kind::Int2, Format::Binary) => 2,
        (Kind::Int4, Format::Binary) => 4,
        (_, Format::Binary) => 8,
    };
    Bytes::copy_from_slice(&bytes[bytes.len() - size..])
}
