//! Where rows are to be: the layout that the file asks for, told in the catalog's numbers of shards. Pure.

use switchyard_catalog::Layout;
use switchyard_schema::{
    BucketMap, Database, ListEntry, Method, RangeEntry, Shard, ShardIndex, TableName,
};

/// The layout that the file asks for, as it follows from another one. Tables whose method is another one than in the file stay where they are.
pub(super) fn target(from: &Layout, known: &Database, desired: &Database) -> Layout {
    let methods = from.methods.iter().map(|(table, method)| {
        let wanted = wanted(table, method, known, desired);
        (table.clone(), wanted.unwrap_or_else(|| method.clone()))
    });
    Layout {
        buckets: buckets(&from.buckets, known, desired),
        methods: methods.collect(),
    }
}

/// The map that the file asks for. Shards that the file has no more get nothing.
fn buckets(from: &BucketMap, known: &Database, desired: &Database) -> BucketMap {
    let names: Vec<&str> = known
        .shards
        .iter()
        .map(|shard| shard.name.as_str())
        .collect();
    let weight = |name: &&str| {
        let index = desired
            .shard_index(name)
            .and_then(|index| desired.shard(index));
        index.map_or(0, |shard| shard.weight)
    };
    let wanted: Vec<(&str, u32)> = names.iter().map(|name| (*name, weight(name))).collect();
    if wanted == known.weights() {
        return from.clone();
    }
    from.rebalance(&names, &wanted)
}

/// The method that the file has for a table, if it is of the same kind.
fn wanted(
    table: &TableName,
    method: &Method,
    known: &Database,
    desired: &Database,
) -> Option<Method> {
    let key = desired.table(table)?.distribution.shard_key()?;
    let now = known.table(table)?.distribution.shard_key()?;
    if key.column != now.column || key.method.name() != method.name() {
        return None;
    }
    let shard = |index: &ShardIndex| {
        let name: &Shard = desired.shard(*index)?;
        known.shard_index(&name.name)
    };
    Some(match &key.method {
        Method::Hash => Method::Hash,
        Method::Modulo(shards) => Method::Modulo(shards.iter().map(shard).collect::<Option<_>>()?),
        Method::Range(ranges) => {
            let range = |entry: &RangeEntry| {
                Some(RangeEntry {
                    below: entry.below.clone(),
                    shard: shard(&entry.shard)?,
                })
            };
            Method::Range(ranges.iter().map(range).collect::<Option<_>>()?)
        }
        Method::List(lists) => {
            let list = |entry: &ListEntry| {
                Some(ListEntry {
                    shard: shard(&entry.shard)?,
                    ..entry.clone()
                })
            };
            Method::List(lists.iter().map(list).collect::<Option<_>>()?)
        }
    })
}
