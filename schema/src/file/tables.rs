//! `[[databases.tables]]`: which tables are distributed, by what, and which go together.

use std::collections::HashMap;

use super::method;
use super::reader::{Item, Section, nearest};
use crate::model::{Distribution, Method, Shard, ShardKey, Table, TableName};

/// The schemas whose tables are PostgreSQL's own.
const SYSTEM_SCHEMAS: [&str; 2] = ["pg_catalog", "information_schema"];

/// A table as read, before it is known whether what it follows exists.
struct Reading<'a> {
    table: Table,
    /// Where it says what it follows.
    follows: Option<Item<'a>>,
    /// Whether it has ranges, lists or shards of its own.
    own_method: bool,
}

/// `[[databases.tables]]`
pub(super) fn tables(database: &mut Section<'_>, shards: &[Shard]) -> Vec<Table> {
    let mut readings: Vec<Reading<'_>> = Vec::new();
    let mut lines: HashMap<TableName, usize> = HashMap::new();
    for mut section in database.sections("tables") {
        let item = section.require("name", "a table's name, in schema public unless qualified");
        let name = item.as_ref().and_then(table_name);
        if let (Some(item), Some(name)) = (&item, &name)
            && let Some(line) = lines.insert(name.clone(), section.line())
        {
            item.problem(format!("table {name} is already on line {line}"), None);
        }
        let reading = table(&mut section, name, shards);
        section.finish();
        readings.extend(reading);
    }
    follow(&mut readings);
    readings.into_iter().map(|reading| reading.table).collect()
}

/// How a table is distributed, as the word `method` says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Hash,
    Modulo,
    Range,
    List,
    Reference,
}

pub(super) const WORDS: [(&str, Word); 5] = [
    ("hash", Word::Hash),
    ("modulo", Word::Modulo),
    ("range", Word::Range),
    ("list", Word::List),
    ("reference", Word::Reference),
];

fn table<'a>(
    section: &mut Section<'a>,
    name: Option<TableName>,
    shards: &[Shard],
) -> Option<Reading<'a>> {
    let word = section.require("method", "allowed are hash, modulo, range, list, reference");
    let word = word.and_then(|item| item.choice(&WORDS));
    let column = section.get("shard_key");
    let follows = section.get("colocate_with");
    let colocated = follows.is_some();
    let method = method::method(section, word, colocated, shards);
    let (word, name) = (word?, name);
    if word == Word::Reference {
        for item in [&column, &follows].into_iter().flatten() {
            item.problem(
                "is not for a reference table: it is whole on every shard",
                Some("leave it out, or choose another method"),
            );
        }
        return Some(Reading {
            table: Table {
                name: name?,
                distribution: Distribution::Reference,
            },
            follows: None,
            own_method: true,
        });
    }
    if column.is_none() {
        section.problem(
            "shard_key is missing",
            Some("the column that decides the shard"),
        );
    }
    let column = column.and_then(|item| item.name())?;
    let target = follows.as_ref().and_then(table_name);
    Some(Reading {
        table: Table {
            name: name?,
            distribution: Distribution::Sharded(ShardKey {
                column: column.to_owned(),
                method: method.as_ref().map_or_else(|| word.empty(), |m| m.clone()),
                colocate_with: target,
            }),
        },
        follows,
        own_method: method.is_some(),
    })
}

impl Word {
    /// The method before its ranges, lists or shards are known: a colocated table takes them from the one it follows.
    fn empty(self) -> Method {
        match self {
            Word::Hash | Word::Reference => Method::Hash,
            Word::Modulo => Method::Modulo(Vec::new()),
            Word::Range => Method::Range(Vec::new()),
            Word::List => Method::List(Vec::new()),
        }
    }
}

/// `table`, `schema.table`; a part with a dot in it stands in double quotes.
fn table_name(item: &Item<'_>) -> Option<TableName> {
    let text = item.text()?;
    let name = match parts(text).as_deref() {
        Some([name]) => TableName::new("public", name),
        Some([schema, name]) => TableName::new(schema, name),
        _ => {
            item.problem(
                "is not a table's name",
                Some("table or schema.table, as in pg_class; a part with a dot stands in \"double quotes\""),
            );
            return None;
        }
    };
    if name.schema.len() > 63 || name.name.len() > 63 {
        item.problem("is longer than PostgreSQL's 63 bytes", None);
        return None;
    }
    if SYSTEM_SCHEMAS.contains(&name.schema.as_str()) {
        item.problem("PostgreSQL's own tables cannot be distributed", None);
        return None;
    }
    Some(name)
}

/// The parts of a qualified name, none of them empty.
fn parts(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted.find('"')?;
                (&quoted[..end], &quoted[end + 1..])
            }
            None => rest.split_at(rest.find('.').unwrap_or(rest.len())),
        };
        if part.is_empty() || (!rest.starts_with('"') && part.contains('"')) {
            return None;
        }
        parts.push(part.to_owned());
        match after.strip_prefix('.') {
            Some(after) => rest = after,
            None if after.is_empty() => return Some(parts),
            None => return None,
        }
    }
}

/// Checks what tables follow, and gives each the method of the one it follows in the end.
fn follow(readings: &mut [Reading<'_>]) {
    let positions: HashMap<TableName, usize> = readings
        .iter()
        .enumerate()
        .map(|(position, reading)| (reading.table.name.clone(), position))
        .collect();
    let names: Vec<String> = readings.iter().map(|r| r.table.name.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut leaders: Vec<Option<usize>> = Vec::with_capacity(readings.len());
    for reading in readings.iter() {
        leaders.push(leader(reading, readings, &positions, &names));
    }
    for position in 0..readings.len() {
        let Some(item) = readings[position].follows.clone() else {
            continue;
        };
        let Some(root) = root(position, &leaders) else {
            if leaders[position].is_some() {
                item.problem("the tables follow one another in a circle", None);
            }
            continue;
        };
        if root != position {
            let (root, own) = (
                readings[root].table.distribution.clone(),
                &mut readings[position],
            );
            adopt(own, &root, &item);
        }
    }
}

/// The table a table says it follows, if there is such a table and it can be followed.
fn leader(
    reading: &Reading<'_>,
    readings: &[Reading<'_>],
    positions: &HashMap<TableName, usize>,
    names: &[&str],
) -> Option<usize> {
    let item = reading.follows.as_ref()?;
    let target = reading
        .table
        .distribution
        .shard_key()?
        .colocate_with
        .as_ref()?;
    if *target == reading.table.name {
        item.problem("a table cannot be colocated with itself", None);
        return None;
    }
    let Some(&position) = positions.get(target) else {
        let near = nearest(&target.to_string(), names);
        let hint = near.map(|near| format!("did you mean {near}?"));
        let hint = hint.unwrap_or_else(|| "name another table of [[databases.tables]]".to_owned());
        item.problem(format!("there is no table {target} here"), Some(&hint));
        return None;
    };
    if readings[position].table.distribution == Distribution::Reference {
        item.problem(
            format!("{target} is a reference table: it is on every shard anyway"),
            Some("name a table with a shard key"),
        );
        return None;
    }
    Some(position)
}

/// The table at the end of the chain; `None` if the chain is a circle or its first link is broken.
fn root(position: usize, leaders: &[Option<usize>]) -> Option<usize> {
    let mut at = leaders[position]?;
    for _ in 0..leaders.len() {
        match leaders[at] {
            Some(next) => at = next,
            None => return Some(at),
        }
    }
    None
}

/// Gives a table the method of the one it follows; what it says itself must be the same.
fn adopt(reading: &mut Reading<'_>, root: &Distribution, item: &Item<'_>) {
    let (Distribution::Sharded(key), Some(root)) =
        (&mut reading.table.distribution, root.shard_key())
    else {
        return;
    };
    if key.method.name() != root.method.name() {
        item.problem(
            format!(
                "its method is {}, and this table's is {}",
                root.method.name(),
                key.method.name()
            ),
            Some("colocated tables share their method"),
        );
    } else if reading.own_method && key.method != root.method {
        item.problem(
            "its ranges, lists or shards are not this table's",
            Some("leave them out here: colocated tables share them"),
        );
    } else {
        key.method = root.method.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_parts() {
        let parts_of = |text| parts(text).map(|p| p.join("|"));
        assert_eq!(parts_of("users").as_deref(), Some("users"));
        assert_eq!(parts_of("shop.users").as_deref(), Some("shop|users"));
        assert_eq!(parts_of("shop.\"a.b\"").as_deref(), Some("shop|a.b"));
        assert_eq!(parts_of("\"Shop\".Users").as_deref(), Some("Shop|Users"));
        for text in [
            "", ".", "a.", ".a", "a..b", "\"a", "\"\"", "\"a\"b", "a\"b\"",
        ] {
            assert_eq!(parts(text), None, "{text:?}");
        }
    }
}
