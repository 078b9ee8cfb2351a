//! Which of the rows that are given to a statement each shard needs.
//!
//! Purpose: of a relation whose rows only matter where a column of theirs equals a shard key of what stays on the shards, a shard
//! needs those with its own keys; and of one whose rows only matter where they match others that are given, those that match the ones
//! it needs. Invariant: it is the same reduction by which rows are not fetched at all ([`super::workspace`]'s `reduce`), of the statement as
//! one shard sees it.

use std::sync::Arc;

use switchyard_schema::{KeyMap, KeyType, TableName};

use super::Context;
use super::given::Given;
use super::workspace::{Restriction, Workspace};

/// Which rows of a relation that is given a shard needs.
#[derive(Debug, Clone)]
pub enum Needed {
    /// All.
    All,
    /// Those of which this column is a key of the shard's own.
    Own {
        /// Among the columns that are given.
        column: usize,
        /// The column's type.
        key_type: KeyType,
        /// Where keys are.
        map: Arc<KeyMap>,
    },
    /// Those of which this column equals one of another relation's rows that the shard needs.
    Matching {
        /// Among the columns that are given.
        column: usize,
        /// The other relation, among those that are given.
        other: usize,
        /// Its column.
        equals: usize,
    },
}

impl Needed {
    /// The column that says it, if not all rows are needed.
    pub fn column(&self) -> Option<usize> {
        match self {
            Needed::All => None,
            Needed::Own { column, .. } | Needed::Matching { column, .. } => Some(*column),
        }
    }
}

/// Values that a relation's rows are looked for by, which are keys of its shards: each shard looks for its own.
#[derive(Debug, Clone)]
pub struct OwnKeys {
    /// The relation whose values they are, among those that are given.
    pub other: usize,
    /// Its column.
    pub equals: usize,
    /// Their type.
    pub key_type: KeyType,
    /// Where keys are.
    pub map: Arc<KeyMap>,
}

/// What each relation that is given is looked for by, as far as it is its shards' own keys.
pub(super) fn own_keys(
    given: &[(usize, Given)],
    workspace: &Workspace,
    context: &Context<'_>,
) -> Vec<Vec<OwnKeys>> {
    let of = |(number, own): &(usize, Given)| -> Option<Vec<OwnKeys>> {
        let fetch = workspace.fetches.get(*number)?;
        let [mention] = fetch.mentions.as_slice() else {
            return None;
        };
        let name = &own.relation;
        let relation = context.relations.get(&name.schema, &name.name)?;
        let (map, key) = (&relation.sharding()?.map, relation.key_column()?);
        let key_type = KeyType::from_oid(key.type_oid)?;
        let looked_for = |restriction| {
            let (column, other, equals) = compared(restriction)?;
            // Another column may be looked for by the same values.
            let is_it =
                |(relation, name): &(&TableName, &str)| *relation == other && *name == equals;
            if *column != key.name || fetch.awaits().filter(is_it).count() != 1 {
                return None;
            }
            let place = given
                .iter()
                .position(|(_, given)| given.relation == *other)?;
            Some(OwnKeys {
                other: place,
                equals: given.get(place)?.1.position(equals)?,
                key_type,
                map: Arc::clone(map),
            })
        };
        Some(mention.iter().filter_map(looked_for).collect())
    };
    given
        .iter()
        .map(|given| of(given).unwrap_or_default())
        .collect()
}

/// The column that must equal one of another relation's, if that is what a restriction says: of the same type.
fn compared(restriction: &Restriction) -> Option<(&String, &TableName, &String)> {
    match restriction {
        Restriction::Among {
            column,
            other,
            equals,
        }
        | Restriction::Meets {
            column,
            other,
            equals,
            alike: true,
            ..
        } => Some((column, other, equals)),
        Restriction::Condition(_) | Restriction::Either(_) | Restriction::Meets { .. } => None,
    }
}

/// What is needed of each relation that is given.
pub(super) fn needed(
    given: &[(usize, Given)],
    workspace: &Workspace,
    context: &Context<'_>,
) -> Vec<Needed> {
    let mut needed = vec![Needed::All; given.len()];
    loop {
        let mut found = Vec::new();
        for (at, (fetch, own)) in given.iter().enumerate() {
            let fetch = workspace.fetches.get(*fetch);
            // Rows may matter to another mention.
            let Some([mention]) = fetch.map(|fetch| fetch.mentions.as_slice()) else {
                continue;
            };
            if needed.get(at).is_some_and(|known| known.column().is_none()) {
                let by = |restriction| by(restriction, own, (given, &needed), context);
                found.extend(mention.iter().find_map(by).map(|found| (at, found)));
            }
        }
        if found.is_empty() {
            return needed;
        }
        for (at, found) in found {
            if let Some(place) = needed.get_mut(at) {
                *place = found;
            }
        }
    }
}

/// What a restriction says of it.
fn by(
    restriction: &Restriction,
    own: &Given,
    (given, needed): (&[(usize, Given)], &[Needed]),
    context: &Context<'_>,
) -> Option<Needed> {
    let (column, other, equals) = compared(restriction)?;
    let column = own.position(column)?;
    let key_type = KeyType::from_oid(own.columns.get(column)?.type_oid)?;
    let place = given.iter().position(|(_, given)| given.relation == *other);
    let Some(other) = place else {
        let relation = context.relations.get(&other.schema, &other.name)?;
        let sharding = relation.sharding()?;
        let by_key = relation.key_column()?.name == *equals;
        return by_key.then(|| Needed::Own {
            column,
            key_type,
            map: Arc::clone(&sharding.map),
        });
    };
    needed.get(other)?.column()?;
    let equals = given.get(other)?.1.position(equals)?;
    is_exact(key_type).then_some(Needed::Matching {
        column,
        other,
        equals,
    })
}

/// Whether values of a type are equal exactly where their binary forms are, if their collation is deterministic.
pub(super) fn is_exact(key_type: KeyType) -> bool {
    match key_type {
        KeyType::Int2
        | KeyType::Int4
        | KeyType::Int8
        | KeyType::Text
        | KeyType::Varchar
        | KeyType::Uuid
        | KeyType::Bytea
        | KeyType::Date
        | KeyType::Timestamp
        | KeyType::Timestamptz
        | KeyType::Bool => true,
        // 1.0 and 1.00, 'a' and 'a '.
        KeyType::Numeric | KeyType::Bpchar => false,
    }
}
