//! What is elsewhere by a new snapshot than by a former one.

use std::mem::discriminant;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use switchyard_schema::{Distribution, Method, Table};

use crate::admin::asked::Asked;
use crate::topology::DatabaseTopology;

/// What has changed of where a database's rows are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Expressions for the numbers of the tables concerned.
    pub(super) tables: Vec<String>,
    /// Also whoever takes rows to be everywhere, or on the first shard, may be wrong.
    is_of_kind: bool,
}

impl Change {
    /// `None`: all rows are where they were.
    pub(super) fn between(former: &DatabaseTopology, new: &DatabaseTopology) -> Option<Change> {
        let is_other_count = former.shards.len() != new.shards.len();
        // With one shard all is there, whoever thinks what.
        if new.shards.len() == 1 && !is_other_count {
            return None;
        }
        let are_other_buckets = former.buckets != new.buckets;
        let mut is_of_kind = is_other_count;
        let mut tables = Vec::new();
        let (before, after) = (&former.schema.tables, &new.schema.tables);
        for table in before.iter().chain(after) {
            let (was, is) = (of(before, table), of(after, table));
            let is_concerned = was != is
                || match &table.distribution {
                    Distribution::Reference => is_other_count,
                    Distribution::Sharded(key) => key.method == Method::Hash && are_other_buckets,
                };
            let number = number_of(table);
            if is_concerned && !tables.contains(&number) {
                is_of_kind |= !are_of_one_kind(was, is);
                tables.push(number);
            }
        }
        (!tables.is_empty()).then_some(Change { tables, is_of_kind })
    }

    /// Whether what was asked before may have been asked of the wrong shard.
    pub(super) fn concerns(&self, asked: Asked) -> bool {
        asked.by_rows || self.is_of_kind
    }
}

fn of<'a>(tables: &'a [Table], like: &Table) -> Option<&'a Distribution> {
    let found = tables.iter().find(|table| table.name == like.name);
    found.map(|table| &table.distribution)
}

/// Whether the rows are found by the same column in the same manner.
fn are_of_one_kind(was: Option<&Distribution>, is: Option<&Distribution>) -> bool {
    match (was, is) {
        (Some(Distribution::Sharded(was)), Some(Distribution::Sharded(is))) => {
            was.column == is.column && discriminant(&was.method) == discriminant(&is.method)
        }
        (was, is) => was == is,
    }
}

fn number_of(table: &Table) -> String {
    let (schema, name) = (&table.name.schema, &table.name.name);
    let name = format!("{}.{}", escape_identifier(schema), escape_identifier(name));
    format!("pg_catalog.to_regclass({})", escape_literal(&name))
}
