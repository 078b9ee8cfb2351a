//! Do all shards have the configured tables, and alike? Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use switchyard_schema::TableName;

use super::report::Report;
use super::servers::Visited;
use crate::relations::introspect::ColumnRow;
use crate::relations::{Introspection, Relations};
use crate::topology::Shard;
use crate::topology::builder::DatabaseState;

/// Checks the tables of every shard whose catalogue could be read.
pub(super) fn check(
    state: &DatabaseState,
    shards: &[Arc<Shard>],
    visited: &[Visited],
    report: &mut Report,
) {
    let database = &state.schema.name;
    let mut said = BTreeSet::new();
    let mut first: Option<(&str, &Introspection)> = None;
    for node in visited {
        let Some(found) = &node.catalogue else {
            continue;
        };
        let name = shards.get(node.shard).map_or("", |shard| &*shard.name);
        let relations = Relations::build(&state.schema, found, Some(&state.buckets));
        for problem in relations.problems() {
            said.insert(problem.table.clone());
            report.problems.push(format!(
                "database \"{database}\", shard \"{name}\", table {}: {}",
                problem.table, problem.message
            ));
        }
        match first {
            None => first = Some((name, found)),
            Some((reference, expected)) => {
                let tables = state.schema.tables.iter().map(|table| &table.name);
                for table in tables.filter(|table| !said.contains(*table)) {
                    for difference in differences(table, expected, found) {
                        report.problems.push(format!(
                            "database \"{database}\", table {table}: {difference} (shard \"{name}\" against \"{reference}\")"
                        ));
                    }
                }
            }
        }
    }
}

/// How a table differs between two servers, in what matters to clients and to routing.
fn differences(table: &TableName, expected: &Introspection, found: &Introspection) -> Vec<String> {
    let (expected, found) = (columns(table, expected), columns(table, found));
    let mut differences = Vec::new();
    for column in &expected {
        match found.iter().find(|other| other.name == column.name) {
            None => differences.push(format!("column \"{}\" is missing", column.name)),
            Some(other) => {
                let what = if is_builtin(column.type_oid) && other.type_oid != column.type_oid {
                    "type"
                } else if other.typmod != column.typmod {
                    "length or precision"
                } else if other.collation != column.collation {
                    "collation"
                } else {
                    continue;
                };
                differences.push(format!("column \"{}\" has another {what}", column.name));
            }
        }
    }
    for column in &found {
        if !expected.iter().any(|other| other.name == column.name) {
            differences.push(format!("column \"{}\" is there only", column.name));
        }
    }
    let order = |columns: &[&ColumnRow]| {
        columns
            .iter()
            .map(|column| column.name.clone())
            .collect::<Vec<_>>()
    };
    if differences.is_empty() && order(&expected) != order(&found) {
        differences.push("the columns are in another order".to_owned());
    }
    differences
}

/// Other types have different numbers on different servers.
fn is_builtin(type_oid: i64) -> bool {
    type_oid < 16_384
}

fn columns<'a>(table: &TableName, found: &'a Introspection) -> Vec<&'a ColumnRow> {
    let mut relations = found.relations.iter();
    let relation = relations.find(|row| row.schema == table.schema && row.name == table.name);
    let oid = relation.map(|row| row.oid);
    let columns = found.columns.iter();
    columns
        .filter(|column| Some(column.relation) == oid)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relations::introspect::RelationRow;

    fn server(columns: &[(&str, i64, &str)]) -> Introspection {
        let row = |(number, (name, type_oid, collation)): (usize, &(&str, i64, &str))| ColumnRow {
            relation: 1,
            number: i32::try_from(number).unwrap(),
            name: (*name).into(),
            type_oid: *type_oid,
            typmod: -1,
            not_null: false,
            collation: (*collation).into(),
            default: None,
            identity: false,
            generated: false,
            sql_type: None,
            sql_suffix: String::new(),
            text_type: None,
        };
        Introspection {
            relations: vec![RelationRow {
                oid: 1,
                schema: "public".into(),
                name: "t".into(),
                kind: "r".into(),
                parent: None,
                definition: None,
                unlogged: false,
                rules: false,
                policies: false,
                updatable: false,
            }],
            columns: columns.iter().enumerate().map(row).collect(),
            ..Introspection::default()
        }
    }

    #[test]
    fn tables_must_be_alike() {
        let table = TableName::new("public", "t");
        let one = server(&[("a", 20, ""), ("b", 25, "C"), ("c", 99_999, "")]);
        assert!(
            differences(
                &table,
                &one,
                &server(&[("a", 20, ""), ("b", 25, "C"), ("c", 99_998, "")])
            )
            .is_empty()
        );
        assert_eq!(
            differences(
                &table,
                &one,
                &server(&[("a", 23, ""), ("b", 25, "x"), ("d", 20, "")])
            ),
            [
                "column \"a\" has another type",
                "column \"b\" has another collation",
                "column \"c\" is missing",
                "column \"d\" is there only",
            ]
        );
        assert_eq!(
            differences(
                &table,
                &one,
                &server(&[("b", 25, "C"), ("a", 20, ""), ("c", 99_999, "")])
            ),
            ["the columns are in another order"]
        );
    }
}
