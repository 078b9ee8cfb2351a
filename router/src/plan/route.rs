//! Where a statement goes: key expressions, and their binding to shards.
//!
//! Purpose: a [`Target`] is part of a plan and holds no values; [`Target::shards`] evaluates its key expressions against
//! the values of one execution. Invariant: a shard is left out only if it is certain that no row of it matters. What
//! cannot be converted exactly counts as "any shard", and a statement that must run on one shard is then refused.

use std::sync::Arc;

use switchyard_schema::{KeyFamily, KeyMap, KeyType, ShardIndex, ShardSet};

use super::refusal::Refusal;
use crate::sql::{Literal, LiteralKind};

/// Where a statement goes.
#[derive(Debug, Clone)]
pub enum Target {
    /// Any one shard gives the same answer.
    AnyShard,
    /// This one.
    Shard(ShardIndex),
    /// The shards of the key values.
    Keys(KeyRoute),
    /// All of them.
    AllShards,
}

/// The shards that hold the rows a statement is about, as a function of its values.
#[derive(Debug, Clone)]
pub struct KeyRoute {
    /// One per sharded relation (rows stored by INSERT count as one): their shards together are the route.
    pub needs: Vec<Need>,
    /// An unsharded relation takes part: the only shard possible is the first.
    pub first_shard_only: bool,
    /// The answer when the route is more than one shard; `None` if the rows are appended.
    pub several: Option<Box<Refusal>>,
}

/// What one sharded relation needs.
#[derive(Debug, Clone)]
pub struct Need {
    /// The relation as the user would name it.
    pub relation: Arc<str>,
    /// From key to shard.
    pub map: Arc<KeyMap>,
    /// The keys of the rows that matter.
    pub keys: KeySet,
    /// The keys are stored, not compared: NULL is a key, conversion is by assignment.
    pub stored: Option<StoredAs>,
}

/// The column that stored keys are assigned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredAs {
    /// The type modifier, or -1.
    pub typmod: i32,
    /// NULL is an error there.
    pub not_null: bool,
}

/// A set of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySet {
    /// `key = expr`
    Equal(KeyExpr),
    /// `key IN (…)`, or the keys of the rows of `VALUES`
    AnyOf(Vec<KeyExpr>),
    /// `key = ANY (array)`
    Elements(KeyExpr),
    /// Between two bounds, either of which may be absent.
    Between(Option<Limit>, Option<Limit>),
    /// `key IS NULL`
    Null,
    /// In one of them.
    Either(Vec<KeySet>),
    /// In all of them.
    Both(Vec<KeySet>),
    /// No key at all.
    Nothing,
    /// Any key.
    Everything,
}

/// One end of a range of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The value.
    pub value: KeyExpr,
    /// Whether the value itself is in.
    pub inclusive: bool,
}

/// An expression whose value is known at binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyExpr {
    /// Where the value comes from.
    pub source: Source,
    /// A minus in front.
    pub negative: bool,
    /// Casts to types without modifiers, innermost first.
    pub casts: Vec<KeyType>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A literal of the text, by slot.
    Literal {
        /// Index into [`crate::sql::Scan::literals`].
        slot: u32,
        /// Its kind.
        kind: LiteralKind,
    },
    /// `$n`
    Param {
        /// n, from 1.
        number: u16,
        /// The statement mentions it nowhere else: if its type is not declared, it is the key's (or the cast's).
        sole: bool,
    },
    /// `TRUE`, `FALSE`
    Bool(bool),
    /// `NULL`
    Null,
    /// What PostgreSQL computes before the rows are stored.
    Computed,
}

impl KeyExpr {
    /// The family of the value's type, where the expression alone decides it.
    pub(super) fn family(&self) -> Option<KeyFamily> {
        match (self.casts.last(), &self.source) {
            (Some(cast), _) => Some(cast.family()),
            (
                None,
                Source::Literal {
                    kind: LiteralKind::Integer,
                    ..
                },
            ) => Some(KeyFamily::Integer),
            (
                None,
                Source::Literal {
                    kind: LiteralKind::Decimal,
                    ..
                },
            ) => Some(KeyFamily::Numeric),
            (
                None,
                Source::Literal {
                    kind: LiteralKind::String,
                    ..
                },
            ) => Some(KeyFamily::Text),
            (None, Source::Bool(_)) => Some(KeyFamily::Bool),
            (None, Source::Param { .. } | Source::Null | Source::Computed) => None,
        }
    }
}

/// The values of one execution.
pub struct Values<'a> {
    /// The text that is executed (same normalised text as the one that was planned).
    pub sql: &'a [u8],
    /// Its literals.
    pub literals: &'a [Literal],
    /// Its parameters.
    pub params: &'a dyn Params,
}

/// Access to the parameters of one execution.
pub trait Params {
    /// Parameter `$number` (from 1); `None` if it is not known yet.
    fn param(&self, number: u16) -> Option<Param<'_>>;
}

/// The value of a parameter.
#[derive(Debug, Clone, Copy)]
pub struct Param<'a> {
    /// The bytes, or `None` for NULL.
    pub value: Option<&'a [u8]>,
    /// Whether they are in binary format.
    pub binary: bool,
    /// The type's OID: as declared, else as PostgreSQL described it, else 0.
    pub oid: u32,
}

impl Params for &[Param<'_>] {
    fn param(&self, number: u16) -> Option<Param<'_>> {
        self.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// No parameters: the simple query protocol.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoParams;

impl Params for NoParams {
    fn param(&self, _number: u16) -> Option<Param<'_>> {
        None
    }
}

impl Target {
    /// The shards this execution goes to: never none. For [`Target::AnyShard`] it is the first; the caller may take
    /// any other instead.
    pub fn shards(&self, values: &Values<'_>, shards: usize) -> Result<ShardSet, Box<Refusal>> {
        match self {
            Target::AnyShard => Ok(ShardSet::one(ShardIndex::FIRST)),
            Target::Shard(shard) => Ok(ShardSet::one(*shard)),
            Target::AllShards => Ok(ShardSet::all(shards)),
            Target::Keys(route) => route.shards(values),
        }
    }
}

impl KeyRoute {
    /// The parameters it looks at.
    pub(super) fn params(&self) -> Vec<u16> {
        let mut params = Vec::new();
        self.needs
            .iter()
            .for_each(|need| need.keys.params(&mut params));
        params.sort_unstable();
        params.dedup();
        params
    }

    /// Bytes on the heap, about.
    pub(crate) fn size(&self) -> usize {
        512 + self
            .needs
            .iter()
            .map(|need| size_of::<Need>() + need.keys.size())
            .sum::<usize>()
    }
}

impl KeySet {
    pub(super) fn params(&self, params: &mut Vec<u16>) {
        let mut add = |key: &KeyExpr| {
            if let Source::Param { number, .. } = key.source {
                params.push(number);
            }
        };
        match self {
            KeySet::Equal(key) | KeySet::Elements(key) => add(key),
            KeySet::AnyOf(keys) => keys.iter().for_each(add),
            KeySet::Between(low, high) => {
                low.iter().chain(high).for_each(|limit| add(&limit.value))
            }
            KeySet::Either(sets) | KeySet::Both(sets) => {
                sets.iter().for_each(|set| set.params(params))
            }
            KeySet::Null | KeySet::Nothing | KeySet::Everything => {}
        }
    }

    pub(super) fn size(&self) -> usize {
        match self {
            KeySet::AnyOf(list) => list.len() * size_of::<KeyExpr>(),
            KeySet::Either(sets) | KeySet::Both(sets) => sets
                .iter()
                .map(|set| size_of::<KeySet>() + set.size())
                .sum(),
            KeySet::Equal(_)
            | KeySet::Elements(_)
            | KeySet::Between(..)
            | KeySet::Null
            | KeySet::Nothing
            | KeySet::Everything => 16,
        }
    }
}
