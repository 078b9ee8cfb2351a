//! `ranges`, `lists` and `shards` of a table: how its keys fall to shards.
//!
//! The column's type is not known here. What is wrong whatever the type is reported here; what only its type shows is reported
//! by [`KeyMap::resolve`](crate::KeyMap::resolve).

use std::cmp::Ordering;
use std::collections::HashMap;

use toml::de::DeTable;

use super::reader::{Item, Report, Section, nearest};
use super::tables::{WORDS, Word};
use crate::diagnostic::Diagnostic;
use crate::key::KeyType;
use crate::model::{ListEntry, Literal, Method, RangeEntry, Shard};
use crate::shard::ShardIndex;

/// The method with what belongs to it. `None` if it was reported as wrong, or is left to the table this one follows.
pub(super) fn method(
    section: &mut Section<'_>,
    word: Option<Word>,
    colocated: bool,
    shards: &[Shard],
) -> Option<Method> {
    let parts = [
        (section.get("ranges"), Word::Range, "range"),
        (section.get("lists"), Word::List, "list"),
        (section.get("shards"), Word::Modulo, "modulo"),
    ];
    let word = word?;
    let mut own = None;
    for (item, belongs_to, name) in parts {
        let Some(item) = item else {
            continue;
        };
        if word == belongs_to {
            own = Some(item);
        } else {
            item.problem(format!("belongs to method {name}"), None);
        }
    }
    match (word, own) {
        (Word::Hash | Word::Reference, _) => Some(Method::Hash),
        (Word::Range, Some(item)) => ranges(&item, shards).map(Method::Range),
        (Word::List, Some(item)) => lists(&item, shards).map(Method::List),
        (Word::Modulo, Some(item)) => remainders(&item, shards).map(Method::Modulo),
        (_, None) if colocated => None,
        (Word::Modulo, None) => Some(Method::Modulo(
            (0..shards.len() as u16).map(ShardIndex).collect(),
        )),
        (Word::Range, None) => {
            section.problem(
                "ranges is missing",
                Some("ranges = [ { below = …, shard = \"…\" }, { shard = \"…\" } ]"),
            );
            None
        }
        (Word::List, None) => {
            section.problem(
                "lists is missing",
                Some("lists = [ { values = […], shard = \"…\" }, { default = true, shard = \"…\" } ]"),
            );
            None
        }
    }
}

impl Method {
    /// The method of that name. `entries` is what belongs to it, in the form of the file: the key and what stands behind its `=`.
    pub fn read(
        name: &str,
        entries: Option<(&str, &str)>,
        shards: &[Shard],
    ) -> Result<Method, Vec<Diagnostic>> {
        let entries = entries.map(|(key, value)| format!("{key} = {value}"));
        let text = format!("method = {name:?}\n{}\n", entries.unwrap_or_default());
        let report = Report::new(&text);
        let (document, errors) = DeTable::parse_recoverable(&text);
        for error in &errors {
            let at = error.span().map_or(0, |span| span.start);
            report.add(at, "", error.message(), None);
        }
        let mut read = None;
        if errors.is_empty() {
            let mut section = Section::root(&document, &report);
            let word = section.get("method").and_then(|item| item.choice(&WORDS));
            read = method(&mut section, word, false, shards);
            section.finish();
        }
        let problems = report.into_diagnostics();
        match read {
            Some(read) if problems.is_empty() => Ok(read),
            _ => Err(problems),
        }
    }
}

/// A shard by name.
fn shard(item: &Item<'_>, shards: &[Shard]) -> Option<ShardIndex> {
    let name = item.string()?;
    let position = shards.iter().position(|shard| shard.name == name);
    if position.is_none() {
        let names: Vec<&str> = shards.iter().map(|shard| shard.name.as_str()).collect();
        let hint = match nearest(name, &names) {
            Some(near) if names.len() > 8 => format!("did you mean {near}?"),
            _ => format!("the shards are {}", names.join(", ")),
        };
        item.problem(format!("there is no shard {name:?}"), Some(&hint));
    }
    position.map(|position| ShardIndex(position as u16))
}

/// A value that is a key of some type.
fn literal(item: &Item<'_>) -> Option<Literal> {
    let literal = item.literal()?;
    let fits = |key_type: &KeyType| literal.key(*key_type).is_ok();
    if !KeyType::ALL.iter().any(fits) {
        item.problem(format!("{literal} is a key of no type"), None);
        return None;
    }
    Some(literal)
}

/// `shards` of method modulo, by remainder.
fn remainders(item: &Item<'_>, shards: &[Shard]) -> Option<Vec<ShardIndex>> {
    let names = item.array()?;
    if names.is_empty() {
        item.problem("must name at least one shard", None);
    }
    let remainders: Vec<Option<ShardIndex>> =
        names.iter().map(|name| shard(name, shards)).collect();
    remainders.into_iter().collect()
}

/// `ranges`: ascending, the last one open.
fn ranges(item: &Item<'_>, shards: &[Shard]) -> Option<Vec<RangeEntry>> {
    let mut entries = Vec::new();
    let mut ends: Vec<(Item<'_>, Literal)> = Vec::new();
    let mut open = None;
    let mut whole = true;
    for range in item.array()? {
        let Some(mut section) = range.section() else {
            whole = false;
            continue;
        };
        if let Some(line) = open {
            section.problem(
                "no key can be in this range",
                Some(&format!(
                    "the range on line {line} has no end: it must be the last"
                )),
            );
        }
        let below = section.get("below");
        let owner = section.require("shard", "the shard's name");
        let owner = owner.and_then(|item| shard(&item, shards));
        let literal = below.as_ref().and_then(literal);
        section.finish();
        match (&below, &literal) {
            (None, _) => open = open.or(Some(range.line())),
            (Some(below), Some(literal)) => ends.push((below.clone(), literal.clone())),
            (Some(_), None) => whole = false,
        }
        match owner {
            Some(shard) => entries.push(RangeEntry {
                below: literal,
                shard,
            }),
            None => whole = false,
        }
    }
    if open.is_none() {
        item.problem(
            "keys from the last end on would have no shard",
            Some("end with a range without below: { shard = \"…\" }"),
        );
    }
    ascending(item, &ends);
    whole.then_some(entries)
}

/// Reports ends that do not ascend, whatever the column's type may be.
fn ascending(item: &Item<'_>, ends: &[(Item<'_>, Literal)]) {
    let mut reported = false;
    for pair in ends.windows(2) {
        let ((_, low), (place, high)) = (&pair[0], &pair[1]);
        let orders = orders(low, high);
        if orders.is_empty() {
            place.problem(format!("{low} and {high} are not of one type"), None);
            reported = true;
        } else if !orders.contains(&Ordering::Less) {
            place.problem(
                format!("no key can be in this range: {high} is not above {low}"),
                Some("ranges ascend; a key is in the first one it is below the end of"),
            );
            reported = true;
        }
    }
    let fits = |key_type: &KeyType| {
        let keys: Result<Vec<_>, _> = ends.iter().map(|(_, end)| end.key(*key_type)).collect();
        keys.is_ok_and(|keys| keys.is_sorted_by(|a, b| a.compare(b) == Some(Ordering::Less)))
    };
    if !reported && !KeyType::ALL.iter().any(fits) {
        item.problem("there is no type in which all these ends ascend", None);
    }
}

/// How two literals compare, in every type both can be of.
fn orders(a: &Literal, b: &Literal) -> Vec<Ordering> {
    let order = |key_type| a.key(key_type).ok()?.compare(&b.key(key_type).ok()?);
    KeyType::ALL.into_iter().filter_map(order).collect()
}

/// `lists`: every value once, one default.
fn lists(item: &Item<'_>, shards: &[Shard]) -> Option<Vec<ListEntry>> {
    let mut entries = Vec::new();
    let mut seen = HashMap::new();
    let mut default = None;
    let mut whole = true;
    for list in item.array()? {
        let Some(mut section) = list.section() else {
            whole = false;
            continue;
        };
        let is_default = section.get("default").and_then(|item| item.boolean());
        let is_default = is_default.unwrap_or(false);
        if let (true, Some(line)) = (is_default, default) {
            section.problem(format!("the default list is already on line {line}"), None);
        } else if is_default {
            default = Some(list.line());
        }
        let values = section.get("values");
        let values = match &values {
            Some(values) => list_values(values, &mut seen),
            None if is_default => Some(Vec::new()),
            None => {
                section.problem(
                    "values is missing",
                    Some("values = [ … ], or default = true for all others"),
                );
                None
            }
        };
        let owner = section.require("shard", "the shard's name");
        let owner = owner.and_then(|item| shard(&item, shards));
        section.finish();
        match values.zip(owner) {
            Some((values, shard)) => entries.push(ListEntry {
                values,
                default: is_default,
                shard,
            }),
            None => whole = false,
        }
    }
    if default.is_none() {
        item.problem(
            "values that are not listed would have no shard",
            Some("add { default = true, shard = \"…\" }"),
        );
    }
    whole.then_some(entries)
}

/// The values of one list; `seen` are those of the earlier ones, with their lines.
fn list_values(item: &Item<'_>, seen: &mut HashMap<String, usize>) -> Option<Vec<Literal>> {
    let items = item.array()?;
    if items.is_empty() {
        item.problem("must have at least one value", None);
    }
    let mut values = Vec::with_capacity(items.len());
    for item in &items {
        let value = literal(item)?;
        if let Some(line) = seen.insert(value.text.clone(), item.line()) {
            item.problem(format!("{value} is already listed on line {line}"), None);
        }
        values.push(value);
    }
    Some(values)
}
