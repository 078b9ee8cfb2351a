//! Expressions whose value is known at binding.

use sqlparser::ast::{
    ArrayElemTypeDef, CastKind, DataType, ExactNumberInfo, Expr, ObjectNamePart, TimezoneInfo,
    UnaryOperator, Value, ValueWithSpan,
};
use switchyard_schema::KeyType;

use super::Analyser;
use crate::plan::parse::offset;
use crate::plan::route::{KeyExpr, Source};
use crate::sql::LiteralKind;

impl Analyser<'_> {
    /// The expression as a key expression, if its value is a literal or a parameter, with casts that are exact.
    pub(super) fn key_expr(&self, expr: &Expr) -> Option<KeyExpr> {
        match expr {
            Expr::Nested(inner) => self.key_expr(inner),
            Expr::Value(value) => self.constant(value),
            Expr::UnaryOp {
                op: UnaryOperator::Plus,
                expr,
            } => self.key_expr(expr).filter(is_number),
            Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr,
            } => {
                let mut value = self.key_expr(expr).filter(is_number)?;
                value.negative = !value.negative;
                Some(value)
            }
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr,
                data_type,
                format: None,
            } => {
                let mut value = self.key_expr(expr)?;
                value.casts.push(key_type(data_type)?);
                Some(value)
            }
            Expr::TypedString(typed) if !typed.uses_odbc_syntax => {
                let mut value = self.constant(&typed.value)?;
                value.casts.push(key_type(&typed.data_type)?);
                Some(value)
            }
            _ => None,
        }
    }

    /// The expression as an array whose elements are known at binding; casts are those of the elements.
    pub(super) fn array_expr(&self, expr: &Expr) -> Option<KeyExpr> {
        match expr {
            Expr::Nested(inner) => self.array_expr(inner),
            Expr::Value(value) => self.constant(value).filter(|value| {
                matches!(
                    value.source,
                    Source::Param { .. }
                        | Source::Null
                        | Source::Literal {
                            kind: LiteralKind::String,
                            ..
                        }
                )
            }),
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr,
                data_type,
                format: None,
            } => {
                let DataType::Array(
                    ArrayElemTypeDef::SquareBracket(element, None)
                    | ArrayElemTypeDef::AngleBracket(element),
                ) = data_type
                else {
                    return None;
                };
                let mut value = self.array_expr(expr)?;
                value.casts.push(key_type(element)?);
                Some(value)
            }
            _ => None,
        }
    }

    fn constant(&self, value: &ValueWithSpan) -> Option<KeyExpr> {
        let source = match &value.value {
            Value::Number(..) => self.slot(value, &[LiteralKind::Integer, LiteralKind::Decimal])?,
            Value::SingleQuotedString(_) => self.slot(value, &[LiteralKind::String])?,
            Value::Boolean(value) => Source::Bool(*value),
            Value::Null => Source::Null,
            Value::Placeholder(name) => {
                let number = name
                    .strip_prefix('$')?
                    .parse()
                    .ok()
                    .filter(|number| *number > 0)?;
                Source::Param {
                    number,
                    sole: self.is_sole(number),
                }
            }
            _ => return None,
        };
        Some(KeyExpr {
            source,
            negative: false,
            casts: Vec::new(),
        })
    }

    /// The text that a string is; the plan is then for this string only.
    pub(super) fn text_of(&mut self, value: &ValueWithSpan) -> Option<String> {
        let Source::Literal {
            slot,
            kind: LiteralKind::String,
        } = self.constant(value)?.source
        else {
            return None;
        };
        self.text_in(slot)
    }

    /// Whether the statement mentions a parameter once.
    pub(super) fn is_sole(&self, number: u16) -> bool {
        self.mentioned_once.binary_search(&number).is_ok()
    }

    /// The literal at a span.
    fn slot(&self, value: &ValueWithSpan, kinds: &[LiteralKind]) -> Option<Source> {
        let start = offset(value.span.start);
        let slot = self
            .scan
            .literals
            .binary_search_by_key(&start, |literal| literal.span.start)
            .ok()?;
        let kind = self.scan.literals.get(slot)?.kind;
        let slot = u32::try_from(slot).ok()?;
        kinds
            .contains(&kind)
            .then_some(Source::Literal { slot, kind })
    }
}

fn is_number(value: &KeyExpr) -> bool {
    let number = matches!(
        value.source,
        Source::Literal {
            kind: LiteralKind::Integer | LiteralKind::Decimal,
            ..
        }
    );
    number
        && value.casts.iter().all(|cast| {
            matches!(
                cast,
                KeyType::Int2 | KeyType::Int4 | KeyType::Int8 | KeyType::Numeric
            )
        })
}

/// The key type a type name without modifiers stands for.
pub(super) fn key_type(data_type: &DataType) -> Option<KeyType> {
    Some(match data_type {
        DataType::SmallInt(None) | DataType::Int2(None) => KeyType::Int2,
        DataType::Int(None) | DataType::Integer(None) | DataType::Int4(None) => KeyType::Int4,
        DataType::BigInt(None) | DataType::Int8(None) => KeyType::Int8,
        DataType::Text => KeyType::Text,
        DataType::Varchar(None)
        | DataType::CharacterVarying(None)
        | DataType::CharVarying(None) => KeyType::Varchar,
        DataType::Uuid => KeyType::Uuid,
        DataType::Bytea => KeyType::Bytea,
        DataType::Date => KeyType::Date,
        DataType::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            KeyType::Timestamp
        }
        DataType::Timestamp(None, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => {
            KeyType::Timestamptz
        }
        DataType::Numeric(ExactNumberInfo::None)
        | DataType::Decimal(ExactNumberInfo::None)
        | DataType::Dec(ExactNumberInfo::None) => KeyType::Numeric,
        DataType::Bool | DataType::Boolean => KeyType::Bool,
        DataType::Custom(name, modifiers) if modifiers.is_empty() => match name.0.as_slice() {
            [
                ObjectNamePart::Identifier(schema),
                ObjectNamePart::Identifier(name),
            ] if schema.value.eq_ignore_ascii_case("pg_catalog") => {
                catalog_type(&name.value.to_ascii_lowercase())?
            }
            _ => return None,
        },
        _ => return None,
    })
}

fn catalog_type(name: &str) -> Option<KeyType> {
    Some(match name {
        "int2" => KeyType::Int2,
        "int4" => KeyType::Int4,
        "int8" => KeyType::Int8,
        "text" => KeyType::Text,
        "varchar" => KeyType::Varchar,
        "uuid" => KeyType::Uuid,
        "bytea" => KeyType::Bytea,
        "date" => KeyType::Date,
        "timestamp" => KeyType::Timestamp,
        "timestamptz" => KeyType::Timestamptz,
        "numeric" => KeyType::Numeric,
        "bool" => KeyType::Bool,
        _ => return None,
    })
}
