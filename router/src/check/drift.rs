//! Is everything that is defined on one shard defined alike on all of them?
//!
//! What runs on several shards takes them to be alike: an index, a trigger or a grant that one of them lacks makes the same statement
//! another one there. Each primary is asked for all of its definitions, as text without numbers of its own ([`read`]); the rest is pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::topology::link::{Link, LinkError, TextRow};

/// All that is defined: kind, name, the relation it belongs to, and how it is defined. Left out are PostgreSQL's own objects, those of
/// extensions, temporary ones, and the router's own schema.
const DEFINITIONS: &str = include_str!("drift.sql");

/// The longest definition that is shown.
const SHOWN: usize = 160;
/// So many differences of a database are told.
const TOLD: usize = 200;

/// One thing that is defined on a shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Object {
    kind: String,
    name: String,
    /// The relation that it is a part of.
    of: Option<String>,
    definition: String,
}

/// Reads what is defined on a server.
pub(super) async fn read(link: &mut Link) -> Result<Vec<Object>, LinkError> {
    link.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path TO ''")
        .await?;
    let rows = link.ask(DEFINITIONS).await;
    // Also ends a failed transaction, so that the link can be used again.
    link.ask("COMMIT").await?;
    let objects: Option<Vec<Object>> = rows?.into_iter().map(object).collect();
    objects.ok_or(LinkError::Unexpected("its definitions"))
}

fn object(row: TextRow) -> Option<Object> {
    let mut values = row.into_iter();
    Some(Object {
        kind: values.next()??,
        name: values.next()??,
        of: values.next()?,
        definition: values.next()?.unwrap_or_default(),
    })
}

/// What is not the same everywhere, one sentence each.
pub(super) fn differences(shards: &[(&str, &[Object])]) -> Vec<String> {
    let mut found: BTreeMap<(&str, &str), BTreeMap<&str, &Object>> = BTreeMap::new();
    for (shard, objects) in shards {
        for object in *objects {
            let key = (&*object.kind, &*object.name);
            found.entry(key).or_default().insert(shard, object);
        }
    }
    let relations: BTreeMap<&str, BTreeSet<&str>> = found
        .iter()
        .filter(|((kind, _), _)| is_relation(kind))
        .map(|((_, name), on)| (*name, on.keys().copied().collect()))
        .collect();
    let mut told = Vec::new();
    for ((kind, name), on) in &found {
        let of = on.values().find_map(|object| object.of.as_deref());
        // Of a relation that a shard lacks it lacks all the rest, too.
        let expected = shards.iter().map(|(shard, _)| *shard).filter(|shard| {
            let parent = of.and_then(|of| relations.get(of));
            parent.is_none_or(|there| there.contains(shard))
        });
        let missing: Vec<&str> = expected.filter(|shard| !on.contains_key(shard)).collect();
        if !missing.is_empty() {
            told.push(format!("{kind} {name} is missing on {}", quoted(&missing)));
        }
        let mut forms: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (shard, object) in on {
            forms.entry(&object.definition).or_default().push(shard);
        }
        if forms.len() > 1 {
            told.push(format!("{kind} {name} differs: {}", shown(&forms)));
        }
    }
    if told.len() > TOLD {
        let more = told.len() - TOLD;
        told.truncate(TOLD);
        told.push(format!("{more} more differences"));
    }
    told
}

fn is_relation(kind: &str) -> bool {
    matches!(
        kind,
        "table" | "view" | "materialized view" | "foreign table" | "sequence"
    )
}

fn quoted(shards: &[&str]) -> String {
    let names: Vec<String> = shards.iter().map(|shard| format!("\"{shard}\"")).collect();
    let word = if names.len() == 1 { "shard" } else { "shards" };
    format!("{word} {}", names.join(", "))
}

/// Each form with its shards, as far as it can be shown.
fn shown(forms: &BTreeMap<&str, Vec<&str>>) -> String {
    let all_short = forms
        .keys()
        .all(|form| form.len() <= SHOWN && !form.contains('\n'));
    let mut parts: Vec<String> = forms
        .iter()
        .map(|(form, shards)| match all_short {
            true if form.is_empty() => format!("nothing on {}", quoted(shards)),
            true => format!("{form} on {}", quoted(shards)),
            false => quoted(shards),
        })
        .collect();
    if !all_short {
        parts.sort();
    }
    match all_short {
        true => parts.join("; "),
        false => format!("between {}", parts.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Object, differences};

    fn object(kind: &str, name: &str, of: Option<&str>, definition: &str) -> Object {
        Object {
            kind: kind.into(),
            name: name.into(),
            of: of.map(str::to_owned),
            definition: definition.into(),
        }
    }

    #[test]
    fn what_is_alike_is_no_difference() {
        let one = [
            object("table", "public.t", None, "owner app"),
            object("index", "public.i", Some("public.t"), "btree (a)"),
        ];
        let other = [one[1].clone(), one[0].clone()];
        assert!(differences(&[("s0", &one), ("s1", &other), ("s2", &one)]).is_empty());
    }

    #[test]
    fn differences_are_named_by_object_and_shards() {
        let table = object("table", "public.t", None, "owner app");
        let index = |definition| object("index", "public.i", Some("public.t"), definition);
        let one = [table.clone(), index("btree (a)")];
        let two = [
            table.clone(),
            index("btree (b)"),
            object("view", "public.v", None, "x\ny"),
        ];
        let three = [table, object("view", "public.v", None, "x\nz")];
        assert_eq!(
            differences(&[("s0", &one), ("s1", &two), ("s2", &three)]),
            [
                "index public.i is missing on shard \"s2\"",
                "index public.i differs: btree (a) on shard \"s0\"; btree (b) on shard \"s1\"",
                "view public.v is missing on shard \"s0\"",
                "view public.v differs: between shard \"s1\" and shard \"s2\"",
            ]
        );
    }

    #[test]
    fn what_belongs_to_a_missing_table_is_not_told_besides() {
        let one = [
            object("table", "public.t", None, ""),
            object("index", "public.i", Some("public.t"), "btree (a)"),
        ];
        assert_eq!(
            differences(&[("s0", &one), ("s1", &[]), ("s2", &[])]),
            ["table public.t is missing on shards \"s1\", \"s2\""]
        );
    }
}
