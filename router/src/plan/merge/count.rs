//! LIMIT and OFFSET as numbers.

use switchyard_schema::{Key, KeyError, KeyType};

use crate::plan::analyse::root::Count;
use crate::plan::bind::unquote;
use crate::plan::refusal::Refusal;
use crate::plan::route::{KeyExpr, Source, Values};
use crate::sql::LiteralKind;

/// A number of rows in one execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plan) enum Rows {
    /// No limit was given, or NULL.
    All,
    Number(u64),
    /// PostgreSQL refuses the value.
    Refused,
}

impl Rows {
    pub(in crate::plan) fn number(self) -> Option<u64> {
        match self {
            Rows::Number(number) => Some(number),
            Rows::All | Rows::Refused => None,
        }
    }
}

/// The number of rows that is meant.
pub(in crate::plan) fn rows(
    count: Option<&Count>,
    values: &Values<'_>,
) -> Result<Rows, Box<Refusal>> {
    let expr = match count {
        None => return Ok(Rows::All),
        Some(Count::One) => return Ok(Rows::Number(1)),
        Some(Count::Of(expr)) => expr,
    };
    let value = match read(expr, values) {
        Ok(None) => return Ok(Rows::All),
        Ok(Some(value)) if expr.negative => value.checked_neg(),
        Ok(Some(value)) => Some(value),
        Err(KeyError::Invalid) => None,
        Err(KeyError::NotExact) => return Err(Box::new(not_exact())),
    };
    let rows = value.and_then(|value| u64::try_from(value).ok());
    Ok(rows.map_or(Rows::Refused, Rows::Number))
}

fn read(expr: &KeyExpr, values: &Values<'_>) -> Result<Option<i64>, KeyError> {
    match &expr.source {
        Source::Null => Ok(None),
        Source::Bool(_) | Source::Computed => Err(KeyError::Invalid),
        Source::Literal { slot, kind } => {
            let literal = values.literals.get(*slot as usize);
            let span =
                literal.map(|literal| literal.span.start as usize..literal.span.end as usize);
            let text = span.and_then(|span| values.sql.get(span));
            let text = text.ok_or(KeyError::NotExact)?;
            match kind {
                LiteralKind::String => {
                    let text = unquote(text).ok_or(KeyError::NotExact)?;
                    whole(Key::from_text(KeyType::Int8, &text)).map(Some)
                }
                LiteralKind::Integer | LiteralKind::Decimal => {
                    whole(Key::from_text(KeyType::Int8, text)).map(Some)
                }
            }
        }
        Source::Param { number, .. } => {
            let param = values.params.param(*number).ok_or(KeyError::NotExact)?;
            let key_type = match KeyType::from_oid(param.oid) {
                Some(whole @ (KeyType::Int2 | KeyType::Int4 | KeyType::Int8)) => whole,
                _ => return Err(KeyError::NotExact),
            };
            let Some(value) = param.value else {
                return Ok(None);
            };
            let key = match param.binary {
                true => Key::from_binary(key_type, value),
                false => Key::from_text(key_type, value),
            };
            whole(key).map(Some)
        }
    }
}

fn whole(key: Result<Key<'_>, KeyError>) -> Result<i64, KeyError> {
    let Key::Int(value) = key? else {
        return Err(KeyError::NotExact);
    };
    Ok(value)
}

fn not_exact() -> Refusal {
    Refusal::not_supported("this LIMIT or OFFSET is not supported across shards")
        .detail("Its value is not an integer, or its type is not known.")
        .hint("Cast it to bigint.")
}
