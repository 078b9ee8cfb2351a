//! Writes before a statement, in its transaction: what a session has not committed yet, it sees.

use crate::random::chance::Chance;
use crate::random::schema::{Column, TABLES, Table};

/// Some writes, each of one shard. Most statements have none.
pub fn writes(chance: &mut Chance) -> Vec<String> {
    if !chance.percent(15) {
        return Vec::new();
    }
    let count = chance.weighted(&[(5, 1), (1, 2)]);
    (0..count).map(|index| write(900 + index, chance)).collect()
}

fn write(id: usize, chance: &mut Chance) -> String {
    let table = chance.pick(TABLES);
    let key = if table.key.is_empty() {
        "id"
    } else {
        table.key
    };
    let key = find(table, key);
    let at = match key.name {
        "id" => chance.between(1, table.rows).to_string(),
        _ => quoted(key, chance),
    };
    match chance.below(4) {
        0 => format!("DELETE FROM {} WHERE {} = {at}", table.name, key.name),
        1 => {
            let others = |column: &&Column| column.name != key.name && column.name != "id";
            let others: Vec<&Column> = table.columns.iter().filter(others).collect();
            let column = *chance.pick(&others);
            let value = quoted(column, chance);
            let (table, key) = (table.name, key.name);
            format!(
                "UPDATE {table} SET {} = {value} WHERE {key} = {at}",
                column.name
            )
        }
        _ => {
            let values: Vec<String> = table
                .columns
                .iter()
                .map(|column| match column.name {
                    "id" => id.to_string(),
                    _ => quoted(column, chance),
                })
                .collect();
            format!("INSERT INTO {} VALUES ({})", table.name, values.join(", "))
        }
    }
}

fn find<'a>(table: &'a Table, name: &str) -> &'a Column {
    let found = table.columns.iter().find(|column| column.name == name);
    found.expect("every table has its key and an id")
}

fn quoted(column: &Column, chance: &mut Chance) -> String {
    let value = *chance.pick(column.ty.values());
    format!("'{}'", value.replace('\'', "''"))
}
