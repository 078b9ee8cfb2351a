//! Method `list`: a key is where its value is listed; every other value, and NULL, is in the default list.

use std::cmp::Ordering;

use crate::key::{Key, KeyType};
use crate::model::{ListEntry, Literal};
use crate::placement::ResolveError;
use crate::shard::{ShardIndex, ShardSet};

/// Shards by listed value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListMap {
    /// In ascending order, without repetition.
    values: Box<[(Key<'static>, ShardIndex)]>,
    default: ShardIndex,
}

impl ListMap {
    pub(crate) fn resolve(lists: &[ListEntry], key_type: KeyType) -> Result<Self, ResolveError> {
        let mut values: Vec<(Key<'static>, ShardIndex, &Literal)> = Vec::new();
        for list in lists {
            for literal in &list.values {
                values.push((literal.key(key_type)?, list.shard, literal));
            }
        }
        values.sort_by(|(a, ..), (b, ..)| order(a, b));
        let equal = |pair: &&[(Key<'_>, ShardIndex, &Literal)]| pair[0].0 == pair[1].0;
        if let Some(pair) = values.windows(2).find(equal) {
            return Err(ResolveError::Repeated(pair[1].2.clone()));
        }
        // A parsed configuration has a default. For any other, the first shard is: every key has a shard.
        let default = lists.iter().find(|l| l.default);
        Ok(Self {
            values: values.into_iter().map(|(k, s, _)| (k, s)).collect(),
            default: default.map_or(ShardIndex::FIRST, |l| l.shard),
        })
    }

    pub(crate) fn shard_of(&self, key: Option<&Key<'_>>) -> ShardIndex {
        let listed = key.and_then(|key| {
            self.values
                .binary_search_by(|(other, _)| order(other, key))
                .ok()
        });
        listed.map_or(self.default, |at| self.values[at].1)
    }

    pub(crate) fn shards(&self) -> ShardSet {
        let listed = self.values.iter().map(|(_, shard)| *shard);
        listed.chain([self.default]).collect()
    }
}

/// The order of keys of one type; the map never meets another.
fn order(a: &Key<'_>, b: &Key<'_>) -> Ordering {
    a.compare(b).unwrap_or(Ordering::Equal)
}
