//! Which shard, and which set of shards.
//!
//! A [`ShardIndex`] is the position of a shard in [`Database::shards`](crate::Database::shards). A [`ShardSet`] is a set
//! of them as a bitset: the answer to "where can these rows be". Up to 128 shards a set does not allocate.

use std::fmt;

use smallvec::SmallVec;

/// The most shards a database can have. Keeps every index, set and bucket map small.
pub const MAX_SHARDS: usize = 256;

/// The position of a shard in [`Database::shards`](crate::Database::shards).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardIndex(pub u16);

impl ShardIndex {
    /// The first shard: the home of unsharded tables.
    pub const FIRST: ShardIndex = ShardIndex(0);

    /// The position as an index into a slice.
    #[must_use]
    pub const fn position(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of shards. Two sets are equal when they hold the same shards.
#[derive(Clone, Default)]
pub struct ShardSet {
    /// One bit per shard; no trailing zero word, so that equal sets have equal words.
    words: SmallVec<[u64; 2]>,
}

impl ShardSet {
    /// The set without any shard.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The set of one shard.
    #[must_use]
    pub fn one(shard: ShardIndex) -> Self {
        let (word, bit) = (shard.position() / 64, shard.position() % 64);
        let mut words = [0; 2];
        let Some(place) = words.get_mut(word) else {
            return Self::from_iter([shard]);
        };
        *place = 1 << bit;
        Self {
            words: SmallVec::from_buf_and_len(words, word + 1),
        }
    }

    /// The set of the shards at positions `0..count`.
    #[must_use]
    pub fn all(count: usize) -> Self {
        let mut words: SmallVec<[u64; 2]> = SmallVec::from_elem(u64::MAX, count / 64);
        if !count.is_multiple_of(64) {
            words.push((1 << (count % 64)) - 1);
        }
        Self { words }
    }

    /// Adds a shard; says whether it was absent.
    pub fn insert(&mut self, shard: ShardIndex) -> bool {
        let (word, bit) = (shard.position() / 64, shard.position() % 64);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let absent = self.words[word] & (1 << bit) == 0;
        self.words[word] |= 1 << bit;
        absent
    }

    /// Whether the shard is in the set.
    #[must_use]
    pub fn contains(&self, shard: ShardIndex) -> bool {
        let (word, bit) = (shard.position() / 64, shard.position() % 64);
        self.words.get(word).is_some_and(|w| w & (1 << bit) != 0)
    }

    /// How many shards there are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Whether there is no shard in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The lowest shard of the set.
    #[must_use]
    pub fn first(&self) -> Option<ShardIndex> {
        self.iter().next()
    }

    /// The shard, if the set holds exactly one.
    #[must_use]
    pub fn only(&self) -> Option<ShardIndex> {
        let (last, before) = self.words.split_last()?;
        let is_only = last.is_power_of_two() && before.iter().all(|word| *word == 0);
        let position = before.len() * 64 + last.trailing_zeros() as usize;
        is_only.then_some(ShardIndex(position as u16))
    }

    /// The shards in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ShardIndex> + '_ {
        self.words.iter().enumerate().flat_map(|(index, &word)| {
            let base = index * 64;
            let rest = |w: u64| Some(w).filter(|w| *w != 0);
            std::iter::successors(rest(word), move |w| rest(w & (w - 1)))
                .map(move |w| ShardIndex((base + w.trailing_zeros() as usize) as u16))
        })
    }

    /// The shards that are in either set.
    #[must_use]
    pub fn union(&self, other: &ShardSet) -> ShardSet {
        let (long, short) = if self.words.len() >= other.words.len() {
            (self, other)
        } else {
            (other, self)
        };
        let mut words = long.words.clone();
        for (word, more) in words.iter_mut().zip(&short.words) {
            *word |= more;
        }
        Self { words }
    }

    /// The shards that are in both sets.
    #[must_use]
    pub fn intersect(&self, other: &ShardSet) -> ShardSet {
        let mut words: SmallVec<[u64; 2]> = self
            .words
            .iter()
            .zip(&other.words)
            .map(|(a, b)| a & b)
            .collect();
        while words.last() == Some(&0) {
            words.pop();
        }
        Self { words }
    }

    /// Whether every shard of this set is in the other.
    #[must_use]
    pub fn is_subset(&self, other: &ShardSet) -> bool {
        self.iter().all(|shard| other.contains(shard))
    }
}

impl PartialEq for ShardSet {
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words
    }
}

impl Eq for ShardSet {}

impl fmt::Debug for ShardSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|s| s.0)).finish()
    }
}

impl FromIterator<ShardIndex> for ShardSet {
    fn from_iter<I: IntoIterator<Item = ShardIndex>>(shards: I) -> Self {
        let mut set = Self::empty();
        set.extend(shards);
        set
    }
}

impl Extend<ShardIndex> for ShardSet {
    fn extend<I: IntoIterator<Item = ShardIndex>>(&mut self, shards: I) {
        for shard in shards {
            self.insert(shard);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(positions: &BTreeSet<u16>) -> ShardSet {
        positions.iter().map(|&p| ShardIndex(p)).collect()
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(
            a in prop::collection::btree_set(0u16..300, 0..40),
            b in prop::collection::btree_set(0u16..300, 0..40),
        ) {
            let (x, y) = (set(&a), set(&b));
            prop_assert_eq!(x.iter().map(|s| s.0).collect::<Vec<_>>(), a.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(x.len(), a.len());
            prop_assert_eq!(x.is_empty(), a.is_empty());
            prop_assert_eq!(x.first().map(|s| s.0), a.first().copied());
            prop_assert_eq!(x.only().is_some(), a.len() == 1);
            prop_assert_eq!(x.union(&y), set(&a.union(&b).copied().collect()));
            prop_assert_eq!(x.intersect(&y), set(&a.intersection(&b).copied().collect()));
            prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
            prop_assert_eq!(x == y, a == b);
        }

        #[test]
        fn all_is_every_position(count in 0usize..=MAX_SHARDS) {
            let expected: BTreeSet<u16> = (0..count as u16).collect();
            prop_assert_eq!(ShardSet::all(count), set(&expected));
        }
    }
}
