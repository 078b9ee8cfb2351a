//! Names as they stand in SQL.

use postgres_protocol::escape::escape_identifier;
use switchyard_schema::TableName;

/// A table's.
pub(crate) fn quoted(table: &TableName) -> String {
    let (schema, name) = (
        escape_identifier(&table.schema),
        escape_identifier(&table.name),
    );
    format!("{schema}.{name}")
}
