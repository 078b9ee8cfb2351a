//! Buckets: the 16,384 slots hash keys fall in, and the map that says which shard owns each.
//!
//! A key's bucket never changes; what moves between shards is a bucket. [`BucketMap::place`] makes the first map from names and
//! weights, [`BucketMap::rebalance`] the next one from the last.

use std::fmt;

use crate::balance;
use crate::key::Key;
use crate::shard::{MAX_SHARDS, ShardIndex, ShardSet};

/// How many buckets there are. A power of two, so that SQL finds a row's bucket with `&`.
pub const BUCKETS: usize = 16_384;

/// One of the buckets, `0..BUCKETS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(u16);

impl Bucket {
    /// The bucket of NULL keys, and of whatever hashes to it.
    pub const NULL: Bucket = Bucket(0);

    /// The bucket with this number, if it is below [`BUCKETS`].
    #[must_use]
    pub fn new(number: u16) -> Option<Bucket> {
        (usize::from(number) < BUCKETS).then_some(Bucket(number))
    }

    /// The bucket of a key; `None` is NULL.
    #[must_use]
    pub fn of(key: Option<&Key<'_>>) -> Bucket {
        match key {
            Some(key) => Bucket((key.hash_extended() % BUCKETS as u64) as u16),
            None => Bucket::NULL,
        }
    }

    /// Every bucket in order.
    pub fn all() -> impl Iterator<Item = Bucket> {
        (0..BUCKETS as u16).map(Bucket)
    }

    /// The bucket's number.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

/// The SQL expression for the bucket of a row: what [`Bucket::of`] computes, evaluated by the shard itself.
///
/// `column` is spliced in as it is, so it must be quoted where SQL needs that. One form serves every key type, NULL included,
/// because the hash of a record of one column is the hash of that column (PostgreSQL 14 and later).
#[must_use]
pub fn bucket_sql(column: &str) -> String {
    format!(
        "(hash_record_extended(ROW({column}), {seed}) & {mask})",
        seed = crate::hash::SEED,
        mask = BUCKETS - 1
    )
}

/// Which shard owns each bucket.
#[derive(Clone, PartialEq, Eq)]
pub struct BucketMap {
    /// Exactly [`BUCKETS`] owners.
    owners: Box<[ShardIndex]>,
    /// Each of them once: planning asks often.
    shards: ShardSet,
}

/// Why a list of owners is not a bucket map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BucketMapError {
    /// Not one owner per bucket.
    #[error("a bucket map has {BUCKETS} buckets, not {0}")]
    Length(usize),
    /// An owner beyond the shards there are.
    #[error("bucket {bucket} belongs to shard number {owner}, but there are {shards} shards")]
    UnknownShard {
        /// The bucket.
        bucket: usize,
        /// Its owner.
        owner: ShardIndex,
        /// How many shards there are.
        shards: usize,
    },
}

impl BucketMap {
    /// The map of a new database: a weighted consistent-hash ring over the shards' names.
    ///
    /// It depends on names and weights alone, not on their order, and is the same in every release. A shard more takes
    /// buckets and moves none between the others; a shard less gives up its own and moves no other. Shards of weight 0 own
    /// nothing; if all have weight 0, or there is no shard, everything is on the first.
    #[must_use]
    pub fn place<S: AsRef<str>>(shards: &[(S, u32)]) -> BucketMap {
        BucketMap::of(balance::place(shards))
    }

    /// The map after shards have come, gone or changed weight: each gets its exact share (to one bucket), and no map that
    /// gives it so moves fewer buckets. The ring says which buckets move, and where to.
    ///
    /// `before` names the shards of this map, in its order; owners in the result are positions in `after`.
    #[must_use]
    pub fn rebalance<S: AsRef<str>, T: AsRef<str>>(
        &self,
        before: &[S],
        after: &[(T, u32)],
    ) -> BucketMap {
        BucketMap::of(balance::rebalance(self, before, after))
    }

    /// A map from one owner per bucket, each below `shards`.
    pub fn from_owners(
        owners: Vec<ShardIndex>,
        shards: usize,
    ) -> Result<BucketMap, BucketMapError> {
        if owners.len() != BUCKETS {
            return Err(BucketMapError::Length(owners.len()));
        }
        let beyond = |owner: &ShardIndex| owner.position() >= shards.min(MAX_SHARDS);
        match owners.iter().position(beyond) {
            Some(bucket) => Err(BucketMapError::UnknownShard {
                bucket,
                owner: owners[bucket],
                shards,
            }),
            None => Ok(BucketMap::of(owners.into_boxed_slice())),
        }
    }

    pub(crate) fn of(owners: Box<[ShardIndex]>) -> BucketMap {
        let shards = owners.iter().copied().collect();
        BucketMap { owners, shards }
    }

    /// The shard that owns a bucket.
    #[must_use]
    pub fn owner(&self, bucket: Bucket) -> ShardIndex {
        self.owners[usize::from(bucket.0)]
    }

    /// Owner by owner, in the order of the buckets.
    #[must_use]
    pub fn owners(&self) -> &[ShardIndex] {
        &self.owners
    }

    /// How many buckets each of the first `shards` shards owns.
    #[must_use]
    pub fn counts(&self, shards: usize) -> Vec<usize> {
        let mut counts = vec![0; shards];
        for owner in &self.owners {
            if let Some(count) = counts.get_mut(owner.position()) {
                *count += 1;
            }
        }
        counts
    }

    /// The shards that own a bucket.
    #[must_use]
    pub fn shards(&self) -> ShardSet {
        self.shards.clone()
    }
}

impl fmt::Debug for BucketMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shards = self.owners.iter().max().map_or(0, |s| s.position() + 1);
        f.debug_struct("BucketMap")
            .field("counts", &self.counts(shards))
            .finish_non_exhaustive()
    }
}
