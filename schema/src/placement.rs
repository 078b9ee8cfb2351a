//! From key to shard: a shard key joined with its column's type and the shards.
//!
//! A [`KeyMap`] is total: every key of its type, and NULL, has exactly one shard. It is the only such function; both programs
//! use it.

use std::ops::Bound;
use std::sync::Arc;

use crate::bucket::{Bucket, BucketMap};
use crate::key::{Key, KeyType};
use crate::list::ListMap;
use crate::model::{Database, Literal, Method, ShardKey};
use crate::modulo::ModuloMap;
use crate::range::RangeMap;
use crate::shard::{ShardIndex, ShardSet};

/// How a column's text compares, as far as shard keys care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collation {
    /// By bytes (`C`, `POSIX`), or the type has no collation.
    Bytes,
    /// In a language's order; equal means equal bytes.
    Deterministic,
    /// Strings of different bytes may be equal.
    Nondeterministic,
}

/// A shard key resolved against its column's type and the shards.
#[derive(Debug, Clone)]
pub struct KeyMap {
    key_type: KeyType,
    placement: Placement,
}

/// The function from key to shard.
#[derive(Debug, Clone)]
pub enum Placement {
    /// By bucket.
    Hash(Arc<BucketMap>),
    /// By remainder.
    Modulo(ModuloMap),
    /// By range.
    Range(RangeMap),
    /// By listed value.
    List(ListMap),
}

/// Why a shard key does not fit its column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Modulo is for integers.
    #[error("method modulo needs an integer key, and the column is {}", .0.name())]
    NotInteger(KeyType),
    /// Ranges of text are ranges of bytes.
    #[error("method range on {} needs the collation \"C\" or \"POSIX\"", .0.name())]
    NotBytewise(KeyType),
    /// Equal strings of different bytes would be on different shards.
    #[error("a shard key cannot have a nondeterministic collation")]
    Nondeterministic,
    /// A boundary or list value is not a value of the column's type.
    #[error("{literal} is not a value of type {}", .key_type.name())]
    NotAValue {
        /// The value as written.
        literal: Literal,
        /// The column's type.
        key_type: KeyType,
    },
    /// Ranges do not ascend in the order of the column's type.
    #[error("range below {0} holds no key: it does not lie above the range before it")]
    EmptyRange(Literal),
    /// Two list values are equal in the column's type.
    #[error("{0} is listed twice: it equals an earlier value")]
    Repeated(Literal),
}

/// A key of another type than the map's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the key is not of the shard key's type, {}", .0.name())]
pub struct NoShard(pub KeyType);

impl KeyMap {
    /// Joins a shard key with its column's type. `buckets` is the map in force; without one, hash keys are placed by the ring.
    pub fn resolve(
        key: &ShardKey,
        key_type: KeyType,
        collation: Collation,
        database: &Database,
        buckets: Option<&Arc<BucketMap>>,
    ) -> Result<KeyMap, ResolveError> {
        if key_type.has_collation() && collation == Collation::Nondeterministic {
            return Err(ResolveError::Nondeterministic);
        }
        let placement = match &key.method {
            Method::Hash => Placement::Hash(match buckets {
                Some(buckets) => Arc::clone(buckets),
                None => Arc::new(BucketMap::place(&database.weights())),
            }),
            Method::Modulo(shards) => Placement::Modulo(ModuloMap::resolve(shards, key_type)?),
            Method::Range(_) if key_type.has_collation() && collation != Collation::Bytes => {
                return Err(ResolveError::NotBytewise(key_type));
            }
            Method::Range(ranges) => Placement::Range(RangeMap::resolve(ranges, key_type)?),
            Method::List(lists) => Placement::List(ListMap::resolve(lists, key_type)?),
        };
        Ok(KeyMap {
            key_type,
            placement,
        })
    }

    /// The column's type: what keys must be read as.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The function itself.
    #[must_use]
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The shard of a key. `None` is NULL: bucket 0, remainder 0, the open range or the default list.
    pub fn shard_of(&self, key: Option<&Key<'_>>) -> Result<ShardIndex, NoShard> {
        if key.is_some_and(|key| !key.is_of(self.key_type.family())) {
            return Err(NoShard(self.key_type));
        }
        Ok(match &self.placement {
            Placement::Hash(buckets) => buckets.owner(Bucket::of(key)),
            Placement::Modulo(map) => map.shard_of(key),
            Placement::Range(map) => map.shard_of(key),
            Placement::List(map) => map.shard_of(key),
        })
    }

    /// The shards that can hold keys between two bounds (NULL is between none). Ranges prune; other methods cannot, save
    /// that an interval of one key is on that key's shard. Empty when no key can lie between the bounds.
    #[must_use]
    pub fn shards_between(&self, low: Bound<&Key<'_>>, high: Bound<&Key<'_>>) -> ShardSet {
        if let (Bound::Included(low), Bound::Included(high)) = (low, high)
            && low == high
        {
            return match self.shard_of(Some(low)) {
                Ok(shard) => ShardSet::one(shard),
                Err(_) => self.shards(),
            };
        }
        match &self.placement {
            Placement::Range(map) => map.shards_between(low, high),
            Placement::Hash(_) | Placement::Modulo(_) | Placement::List(_) => self.shards(),
        }
    }

    /// Every shard that can hold a key.
    #[must_use]
    pub fn shards(&self) -> ShardSet {
        match &self.placement {
            Placement::Hash(buckets) => buckets.shards(),
            Placement::Modulo(map) => map.shards(),
            Placement::Range(map) => map.shards(),
            Placement::List(map) => map.shards(),
        }
    }

    /// Whether equal keys of both maps are on the same shard, so that their tables can be joined there.
    #[must_use]
    pub fn colocated_with(&self, other: &KeyMap) -> bool {
        if self.key_type.family() != other.key_type.family() {
            return false;
        }
        match (&self.placement, &other.placement) {
            (Placement::Hash(a), Placement::Hash(b)) => Arc::ptr_eq(a, b) || a == b,
            (Placement::Modulo(a), Placement::Modulo(b)) => a == b,
            (Placement::Range(a), Placement::Range(b)) => a == b,
            (Placement::List(a), Placement::List(b)) => a == b,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
