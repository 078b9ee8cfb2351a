//! Global unique indexes, by the triggers that keep them.

use std::sync::Arc;

use switchyard_schema::TableName;

use crate::relations::GlobalIndex;
use crate::relations::introspect::Introspection;

/// Every one, with its table.
pub(super) fn indexes(found: &Introspection) -> Arc<[GlobalIndex]> {
    let rows = found.global_indexes.iter();
    let indexes = rows.filter_map(|row| {
        let mut relations = found.relations.iter();
        let table = relations.find(|relation| relation.oid == row.relation)?;
        Some(GlobalIndex {
            table: TableName::new(&table.schema, &table.name),
            column: row.column.clone(),
            name: TableName::new(&row.schema, &row.name),
        })
    });
    indexes.collect()
}
