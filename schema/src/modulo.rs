//! Method `modulo`: remainder r of an integer key is on the r-th shard of a list.
//!
//! The remainder is never negative, unlike that of PostgreSQL's `%`: −1 modulo 3 is 2. NULL has remainder 0.

use crate::key::{Key, KeyFamily, KeyType};
use crate::placement::ResolveError;
use crate::shard::{ShardIndex, ShardSet};

/// Shards by remainder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuloMap {
    /// Not empty.
    shards: Box<[ShardIndex]>,
}

impl ModuloMap {
    pub(crate) fn resolve(shards: &[ShardIndex], key_type: KeyType) -> Result<Self, ResolveError> {
        if key_type.family() != KeyFamily::Integer {
            return Err(ResolveError::NotInteger(key_type));
        }
        let shards = match shards {
            [] => Box::from([ShardIndex::FIRST]),
            _ => Box::from(shards),
        };
        Ok(Self { shards })
    }

    pub(crate) fn shard_of(&self, key: Option<&Key<'_>>) -> ShardIndex {
        let remainder = match key {
            Some(Key::Int(value)) => value.rem_euclid(self.shards.len() as i64) as usize,
            _ => 0,
        };
        self.shards[remainder]
    }

    pub(crate) fn shards(&self) -> ShardSet {
        self.shards.iter().copied().collect()
    }

    /// The number keys are divided by.
    #[must_use]
    pub fn modulus(&self) -> usize {
        self.shards.len()
    }
}

/// The SQL expression for a row's remainder: what the map computes, evaluated by the shard itself.
#[must_use]
pub fn remainder_sql(column: &str, modulus: usize) -> String {
    format!("coalesce((({column}) % {modulus} + {modulus}) % {modulus}, 0)")
}
