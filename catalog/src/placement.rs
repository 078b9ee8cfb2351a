//! Which keys are on which shard, as the `placement` column has it. Shards are positions.

use serde::{Deserialize, Serialize};
use switchyard_schema::{ListEntry, Literal, LiteralForm, Method, RangeEntry, ShardIndex};

use crate::Error;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    below: Option<Value>,
    shard: u16,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    values: Vec<Value>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    shard: u16,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Value {
    text: String,
    form: Form,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Form {
    String,
    Integer,
    Decimal,
    DateTime,
    Boolean,
}

/// The column's value for a method; `None` where the method says it all.
pub(crate) fn to_json(method: &Method) -> Result<Option<String>, Error> {
    let json = match method {
        Method::Hash => return Ok(None),
        Method::Modulo(shards) => {
            serde_json::to_string(&shards.iter().map(|shard| shard.0).collect::<Vec<_>>())
        }
        Method::Range(ranges) => {
            serde_json::to_string(&ranges.iter().map(Range::from).collect::<Vec<_>>())
        }
        Method::List(lists) => {
            serde_json::to_string(&lists.iter().map(List::from).collect::<Vec<_>>())
        }
    };
    json.map(Some)
        .map_err(|error| Error::Damaged(error.to_string()))
}

/// The method from its name and the column's value.
pub(crate) fn from_json(method: &str, placement: Option<&str>) -> Result<Method, Error> {
    let damaged = |error: serde_json::Error| Error::Damaged(format!("placement: {error}"));
    let json = placement.unwrap_or("[]");
    Ok(match method {
        "hash" => Method::Hash,
        "modulo" => {
            let shards: Vec<u16> = serde_json::from_str(json).map_err(damaged)?;
            Method::Modulo(shards.into_iter().map(ShardIndex).collect())
        }
        "range" => {
            let ranges: Vec<Range> = serde_json::from_str(json).map_err(damaged)?;
            Method::Range(ranges.into_iter().map(RangeEntry::from).collect())
        }
        "list" => {
            let lists: Vec<List> = serde_json::from_str(json).map_err(damaged)?;
            Method::List(lists.into_iter().map(ListEntry::from).collect())
        }
        other => return Err(Error::Damaged(format!("method \"{other}\""))),
    })
}

impl From<&RangeEntry> for Range {
    fn from(entry: &RangeEntry) -> Self {
        Self {
            below: entry.below.as_ref().map(Value::from),
            shard: entry.shard.0,
        }
    }
}

impl From<Range> for RangeEntry {
    fn from(range: Range) -> Self {
        Self {
            below: range.below.map(Literal::from),
            shard: ShardIndex(range.shard),
        }
    }
}

impl From<&ListEntry> for List {
    fn from(entry: &ListEntry) -> Self {
        Self {
            values: entry.values.iter().map(Value::from).collect(),
            default: entry.default,
            shard: entry.shard.0,
        }
    }
}

impl From<List> for ListEntry {
    fn from(list: List) -> Self {
        Self {
            values: list.values.into_iter().map(Literal::from).collect(),
            default: list.default,
            shard: ShardIndex(list.shard),
        }
    }
}

impl From<&Literal> for Value {
    fn from(literal: &Literal) -> Self {
        Self {
            text: literal.text.clone(),
            form: match literal.form {
                LiteralForm::String => Form::String,
                LiteralForm::Integer => Form::Integer,
                LiteralForm::Decimal => Form::Decimal,
                LiteralForm::DateTime => Form::DateTime,
                LiteralForm::Boolean => Form::Boolean,
            },
        }
    }
}

impl From<Value> for Literal {
    fn from(value: Value) -> Self {
        Self {
            text: value.text,
            form: match value.form {
                Form::String => LiteralForm::String,
                Form::Integer => LiteralForm::Integer,
                Form::Decimal => LiteralForm::Decimal,
                Form::DateTime => LiteralForm::DateTime,
                Form::Boolean => LiteralForm::Boolean,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str, form: LiteralForm) -> Literal {
        Literal {
            text: text.into(),
            form,
        }
    }

    #[test]
    fn methods_survive() {
        let methods = [
            Method::Hash,
            Method::Modulo(vec![ShardIndex(1), ShardIndex(0)]),
            Method::Range(vec![
                RangeEntry {
                    below: Some(literal("2026-01-01", LiteralForm::DateTime)),
                    shard: ShardIndex(0),
                },
                RangeEntry {
                    below: None,
                    shard: ShardIndex(1),
                },
            ]),
            Method::List(vec![
                ListEntry {
                    values: vec![
                        literal("kr", LiteralForm::String),
                        literal("1", LiteralForm::Integer),
                    ],
                    default: false,
                    shard: ShardIndex(0),
                },
                ListEntry {
                    values: Vec::new(),
                    default: true,
                    shard: ShardIndex(1),
                },
            ]),
        ];
        for method in methods {
            let json = to_json(&method).unwrap();
            assert_eq!(from_json(method.name(), json.as_deref()).unwrap(), method);
        }
    }

    #[test]
    fn damage_is_named() {
        let error = from_json("range", Some("[{\"shard\": 0, \"belo\": 1}]")).unwrap_err();
        assert!(error.to_string().contains("belo"), "{error}");
        assert!(from_json("ring", None).is_err());
    }
}
