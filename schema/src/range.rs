//! Method `range`: a key is in the first range it is below the end of; the last range is open, and NULL is there too,
//! as NULL sorts last.

use std::cmp::Ordering;
use std::ops::Bound;

use crate::key::{Key, KeyType};
use crate::model::RangeEntry;
use crate::placement::ResolveError;
use crate::shard::{ShardIndex, ShardSet};

/// Shards by range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeMap {
    /// The ends of all ranges but the last, ascending, none included in its range.
    ends: Box<[Key<'static>]>,
    /// One shard per range: one more than there are ends.
    shards: Box<[ShardIndex]>,
}

impl RangeMap {
    pub(crate) fn resolve(ranges: &[RangeEntry], key_type: KeyType) -> Result<Self, ResolveError> {
        let mut ends: Vec<Key<'static>> = Vec::with_capacity(ranges.len());
        let mut shards = Vec::with_capacity(ranges.len());
        for range in ranges {
            shards.push(range.shard);
            let Some(literal) = &range.below else {
                break;
            };
            let end = literal.key(key_type)?;
            if ends.last().is_some_and(|last| !below(last, &end)) {
                return Err(ResolveError::EmptyRange(literal.clone()));
            }
            ends.push(end);
        }
        // A parsed configuration ends open. For any other, the last range is taken as open: every key has a shard.
        if shards.is_empty() {
            shards.push(ShardIndex::FIRST);
        }
        ends.truncate(shards.len() - 1);
        Ok(Self {
            ends: ends.into_boxed_slice(),
            shards: shards.into_boxed_slice(),
        })
    }

    pub(crate) fn shard_of(&self, key: Option<&Key<'_>>) -> ShardIndex {
        self.shards[self.position(key)]
    }

    /// The position of the range a key is in.
    fn position(&self, key: Option<&Key<'_>>) -> usize {
        match key {
            Some(key) => self.ends.partition_point(|end| !below(key, end)),
            None => self.ends.len(),
        }
    }

    pub(crate) fn shards_between(&self, low: Bound<&Key<'_>>, high: Bound<&Key<'_>>) -> ShardSet {
        let first = match low {
            Bound::Included(key) | Bound::Excluded(key) => self.position(Some(key)),
            Bound::Unbounded => 0,
        };
        let last = match high {
            Bound::Included(key) => self.position(Some(key)),
            // Keys below a range's end are in that range or an earlier one.
            Bound::Excluded(key) => self.ends.partition_point(|end| below(end, key)),
            Bound::Unbounded => self.ends.len(),
        };
        if disjoint(low, high) {
            return ShardSet::empty();
        }
        match self.shards.get(first..=last) {
            Some(shards) => shards.iter().copied().collect(),
            None => ShardSet::empty(),
        }
    }

    pub(crate) fn shards(&self) -> ShardSet {
        self.shards.iter().copied().collect()
    }
}

fn below(a: &Key<'_>, b: &Key<'_>) -> bool {
    a.compare(b) == Some(Ordering::Less)
}

/// Whether no key can lie between the bounds.
fn disjoint(low: Bound<&Key<'_>>, high: Bound<&Key<'_>>) -> bool {
    match (low, high) {
        (Bound::Included(low), Bound::Included(high)) => below(high, low),
        (
            Bound::Included(low) | Bound::Excluded(low),
            Bound::Included(high) | Bound::Excluded(high),
        ) => !below(low, high),
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}
