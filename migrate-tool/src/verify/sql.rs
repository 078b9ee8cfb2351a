//! What servers are asked. Pure.

use postgres_protocol::escape::escape_literal;
use switchyard_schema::{ShardIndex, TableName};

use crate::names::quoted;

/// Rows that are shown of those that are wrong.
const EXAMPLES: usize = 5;
/// Characters of a row that are shown.
const SHOWN: usize = 200;

/// How many rows of those that one shard has each shard owns: its position, and their number. `owner` is the expression for a row's shard; `pages` are the first that are
/// looked at, and the first that are not any more.
pub(super) fn owners(table: &str, owner: &str, pages: Option<(u64, Option<u64>)>) -> String {
    let condition = match pages {
        None => String::new(),
        Some((from, None)) => format!("WHERE ctid >= '({from},0)'::pg_catalog.tid"),
        Some((from, Some(to))) => format!(
            "WHERE ctid >= '({from},0)'::pg_catalog.tid AND ctid < '({to},0)'::pg_catalog.tid"
        ),
    };
    format!("SELECT {owner} AS owner, count(*) FROM {table} {condition} GROUP BY 1 ORDER BY 1")
}

/// The tables that have a table's rows, itself or its partitions, and their pages.
pub(super) fn stored(table: &TableName) -> String {
    let table = escape_literal(&quoted(table));
    format!(
        "SELECT c.oid::regclass, pg_relation_size(c.oid) / current_setting('block_size')::int8 FROM pg_class c
          WHERE c.relkind = 'r' AND (c.oid = {table}::regclass OR c.oid IN (SELECT relid FROM pg_partition_tree({table}::regclass)))
          ORDER BY c.oid"
    )
}

/// Keys of rows that a shard has and another one owns.
pub(super) fn strays(table: &TableName, key: &str, owner: &str, by: ShardIndex) -> String {
    let (table, by) = (quoted(table), by.position());
    format!("SELECT {key}::text FROM {table} WHERE {owner} = {by} ORDER BY 1 LIMIT {EXAMPLES}")
}

/// A table's rows as their hashes.
fn hashes(table: &TableName) -> String {
    let table = quoted(table);
    format!("(SELECT hashtextextended(copied::text, 0) AS hash FROM {table} AS copied) AS hashes")
}

/// What a copy of a table has, in 256 parts: the part, the number of its rows, and the sum of their hashes.
pub(super) fn parts(table: &TableName) -> String {
    let hashes = hashes(table);
    format!("SELECT hash & 255, count(*), sum(hash) FROM {hashes} GROUP BY 1")
}

/// The hashes of the rows of some parts, and how often each is there.
pub(super) fn rows(table: &TableName, parts: &[i64]) -> String {
    let (hashes, parts) = (hashes(table), list(parts));
    format!("SELECT hash, count(*) FROM {hashes} WHERE hash & 255 IN ({parts}) GROUP BY 1")
}

/// Some of the rows with these hashes, as text.
pub(super) fn examples(table: &TableName, hashes: &[i64]) -> String {
    let (table, hashes) = (quoted(table), list(hashes));
    format!(
        "SELECT left(copied::text, {SHOWN}) FROM {table} AS copied WHERE hashtextextended(copied::text, 0) IN ({hashes}) LIMIT {EXAMPLES}"
    )
}

fn list(numbers: &[i64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
    numbers.join(", ")
}
