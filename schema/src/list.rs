//! Method `list`: a key is where its value is listed; every other value, and NULL, is in the default list.

use std::cmp::Ordering;

use crate::key::{Key, KeyType};
use crate::model::ListEntry;
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
        let mut values: Vec<(Key<'static>, ShardIndex)> = Vec::new();
        for list in lists {
            for literal in &list.values {
                let key = literal.key(key_type)?;
                match values.binary_search_by(|(other, _)| order(other, &key)) {
                    Ok(_) => return Err(ResolveError::Repeated(literal.clone())),
                    Err(at) => values.insert(at, (key, list.shard)),
                }
            }
        }
        // A parsed configuration has a default. For any other, the first shard is: every key has a shard.
        let default = lists.iter().find(|l| l.default);
        Ok(Self {
            values: values.into_boxed_slice(),
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
