//! The rows: made from a seed, with NULLs, duplicates, and values that look different and are equal.

use super::chance::Chance;
use super::schema::{Column, TABLES, Table};
use super::types::Type;

/// A literal of the type, quoted and cast.
pub fn literal(ty: Type, text: &str) -> String {
    format!("'{}'{}", text.replace('\'', "''"), ty.cast())
}

/// One INSERT for each row of each table, in the order of the tables.
pub fn inserts(seed: u64) -> Vec<String> {
    let mut statements = Vec::new();
    for (number, table) in TABLES.iter().enumerate() {
        let mut chance = Chance::of(seed, number as u64);
        statements.extend((1..=table.rows).map(|id| insert(table, id, &mut chance)));
    }
    statements
}

fn insert(table: &Table, id: usize, chance: &mut Chance) -> String {
    let values: Vec<String> = table
        .columns
        .iter()
        .map(|column| match column.name {
            "id" => id.to_string(),
            _ => value(column, chance),
        })
        .collect();
    format!("INSERT INTO {} VALUES ({})", table.name, values.join(", "))
}

fn value(column: &Column, chance: &mut Chance) -> String {
    if chance.percent(column.nulls) {
        return "NULL".to_owned();
    }
    format!("'{}'", chance.pick(column.ty.values()).replace('\'', "''"))
}
