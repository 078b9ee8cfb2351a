//! From row to shard, as SQL: what a [`KeyMap`](crate::KeyMap) computes, evaluated by the shard itself.

use std::fmt::Write as _;

use crate::bucket::{BucketMap, bucket_sql};
use crate::key::KeyType;
use crate::model::{ListEntry, Method, RangeEntry};
use crate::modulo::remainder_sql;
use crate::placement::ResolveError;
use crate::shard::ShardIndex;

/// The SQL expression for the position of a row's shard, an `int2`. It is never NULL.
///
/// `column` is spliced in as it is, so it must be quoted where SQL needs that; it is of a type that [`KeyMap::resolve`](crate::KeyMap::resolve)
/// takes for the method.
pub fn shard_sql(
    method: &Method,
    key_type: KeyType,
    column: &str,
    buckets: &BucketMap,
) -> Result<String, ResolveError> {
    match method {
        Method::Hash => Ok(owner_sql(column, buckets)),
        Method::Modulo(shards) => {
            let shards: &[ShardIndex] = match &**shards {
                [] => &[ShardIndex::FIRST],
                shards => shards,
            };
            Ok(one_of(shards, &remainder_sql(column, shards.len())))
        }
        Method::Range(ranges) => in_ranges(ranges, key_type, column),
        Method::List(lists) => in_lists(lists, key_type, column),
    }
}

/// The same for hash keys, of whatever type.
#[must_use]
pub fn owner_sql(column: &str, buckets: &BucketMap) -> String {
    one_of(buckets.owners(), &bucket_sql(column))
}

/// The shard at a place of a list, which counts from 0.
fn one_of(shards: &[ShardIndex], place: &str) -> String {
    let shards: Vec<String> = shards
        .iter()
        .map(|shard| shard.position().to_string())
        .collect();
    let shards = shards.join(",");
    format!("('{{{shards}}}'::pg_catalog.int2[])[({place})::pg_catalog.int4 + 1]")
}

/// NULL is below no end, and so in the last range.
fn in_ranges(
    ranges: &[RangeEntry],
    key_type: KeyType,
    column: &str,
) -> Result<String, ResolveError> {
    let mut cases = String::new();
    let mut last = ShardIndex::FIRST;
    for range in ranges {
        last = range.shard;
        let Some(end) = &range.below else {
            break;
        };
        case(
            &mut cases,
            &format!("{column} < {}", end.sql(key_type)?),
            last,
        );
    }
    Ok(cases_else(&cases, last))
}

/// NULL is in no list, and so in the default one.
fn in_lists(lists: &[ListEntry], key_type: KeyType, column: &str) -> Result<String, ResolveError> {
    let mut cases = String::new();
    for list in lists.iter().filter(|list| !list.values.is_empty()) {
        let values: Result<Vec<String>, ResolveError> = list
            .values
            .iter()
            .map(|value| value.sql(key_type))
            .collect();
        let values = values?.join(", ");
        case(&mut cases, &format!("{column} IN ({values})"), list.shard);
    }
    let default = lists.iter().find(|list| list.default);
    let default = default.map_or(ShardIndex::FIRST, |list| list.shard);
    Ok(cases_else(&cases, default))
}

fn case(cases: &mut String, condition: &str, shard: ShardIndex) {
    // Writing to a string does not fail.
    let _ = write!(cases, " WHEN {condition} THEN {}", shard.position());
}

fn cases_else(cases: &str, shard: ShardIndex) -> String {
    let other = shard.position();
    match cases {
        "" => format!("{other}::pg_catalog.int2"),
        _ => format!("(CASE{cases} ELSE {other} END)::pg_catalog.int2"),
    }
}
