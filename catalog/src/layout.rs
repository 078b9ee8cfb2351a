//! Where the rows of all sharded tables of a database are: the bucket map, and what tables of other methods have in its place.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use switchyard_schema::{BucketMap, Method, TableName};

use crate::{CatalogDatabase, Error, placement};

/// Where rows are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Those with hash keys.
    pub buckets: BucketMap,
    /// Those of each other sharded table.
    pub methods: BTreeMap<TableName, Method>,
}

/// A table's method, as the columns of a movement have it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    schema: String,
    name: String,
    method: String,
    /// As in the column of a table.
    placement: serde_json::Value,
}

impl CatalogDatabase {
    /// Where its rows are.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let methods = self.database.tables.iter().filter_map(|table| {
            let method = &table.distribution.shard_key()?.method;
            (*method != Method::Hash).then(|| (table.name.clone(), method.clone()))
        });
        Layout {
            buckets: BucketMap::clone(&self.buckets),
            methods: methods.collect(),
        }
    }

    /// What a movement's target is for the tables that there are by now: one that has come since goes with the one that it is colocated with.
    #[must_use]
    pub fn aimed(&self, target: &Layout) -> Layout {
        let mut aimed = self.layout();
        for (table, method) in &mut aimed.methods {
            let mut leader = Some(table.clone());
            for _ in 0..self.database.tables.len() {
                let Some(name) = leader else { break };
                if let Some(found) = target.methods.get(&name) {
                    if found.name() == method.name() {
                        *method = found.clone();
                    }
                    break;
                }
                let table = self.database.table(&name);
                let key = table.and_then(|table| table.distribution.shard_key());
                leader = key.and_then(|key| key.colocate_with.clone());
            }
        }
        aimed.buckets.clone_from(&target.buckets);
        aimed
    }
}

impl Layout {
    /// How many buckets, and how many tables without hash keys, are elsewhere by the other layout, or are written otherwise.
    #[must_use]
    pub fn differing(&self, other: &Layout) -> (usize, usize) {
        let pairs = self.buckets.owners().iter().zip(other.buckets.owners());
        let buckets = pairs.filter(|(one, other)| one != other).count();
        let differs = |(table, method): &(&TableName, &Method)| {
            let there = other.methods.get(*table);
            there.is_some_and(|other| other != *method)
        };
        (buckets, self.methods.iter().filter(differs).count())
    }

    pub(crate) fn methods_json(&self) -> Result<String, Error> {
        let entry = |(table, method): (&TableName, &Method)| {
            let placement = placement::to_json(method)?;
            Ok(Entry {
                schema: table.schema.clone(),
                name: table.name.clone(),
                method: method.name().to_owned(),
                placement: serde_json::from_str(placement.as_deref().unwrap_or("[]"))
                    .map_err(damaged)?,
            })
        };
        let entries: Result<Vec<Entry>, Error> = self.methods.iter().map(entry).collect();
        serde_json::to_string(&entries?).map_err(damaged)
    }

    pub(crate) fn methods_from(json: &str) -> Result<BTreeMap<TableName, Method>, Error> {
        let entries: Vec<Entry> = serde_json::from_str(json).map_err(damaged)?;
        let method = |entry: Entry| {
            let placement = entry.placement.to_string();
            let method = placement::from_json(&entry.method, Some(&placement))?;
            Ok((TableName::new(entry.schema, entry.name), method))
        };
        entries.into_iter().map(method).collect()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn damaged(error: serde_json::Error) -> Error {
    Error::Damaged(format!("methods of a movement: {error}"))
}

#[cfg(test)]
mod tests {
    use switchyard_schema::ShardIndex;

    use super::*;

    #[test]
    fn methods_survive() {
        let modulo = Method::Modulo(vec![ShardIndex(1), ShardIndex(0)]);
        let methods = BTreeMap::from([
            (TableName::new("a", "b"), modulo),
            (TableName::new("public", "c"), Method::List(Vec::new())),
        ]);
        let layout = Layout {
            buckets: BucketMap::place(&[("s0", 1)]),
            methods: methods.clone(),
        };
        let json = layout.methods_json().unwrap();
        assert_eq!(Layout::methods_from(&json).unwrap(), methods);
        assert!(Layout::methods_from("[]").unwrap().is_empty());
        assert!(Layout::methods_from("[{}]").is_err());
    }
}
