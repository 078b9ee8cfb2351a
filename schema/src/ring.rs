//! The consistent-hash ring: which shards are near a bucket, nearest first.
//!
//! The ring is the circle of 64-bit numbers. Bucket b stands at b × 2⁵⁰; a shard has [`POINTS`] pseudo-random points for each
//! unit of its weight, which depend on its name alone; a bucket belongs to the first point clockwise. Whatever else stands on
//! the ring, a shard's points stay where they are: that is all the proof there is that nothing moves between old shards.
//! The numbers here decide where rows live and never change (ADR 0003).

use crate::bucket::BUCKETS;
use crate::hash;

/// Points on the ring for each unit of weight.
const POINTS: u32 = 4096;

/// How far apart the buckets stand.
const SPACING: u32 = 64 - BUCKETS.trailing_zeros();

/// How far clockwise of each bucket the shard's nearest point is. No point at all: the largest distance everywhere.
pub(crate) fn distances(name: &str, weight: u32) -> Vec<u64> {
    let seed = hash::bytes(name.as_bytes(), hash::SEED);
    // The first point at or after each bucket and before the next.
    let mut first: Vec<Option<u64>> = vec![None; BUCKETS];
    for number in 0..weight.saturating_mul(POINTS) {
        let point = hash::uint32(number, seed);
        let slot = &mut first[(point >> SPACING) as usize];
        *slot = Some(slot.map_or(point, |other| other.min(point)));
    }
    // Anticlockwise, so that a bucket without a point of its own takes the next one's; the start wraps around.
    let mut next = first.iter().flatten().next().copied();
    let mut distances = vec![u64::MAX; BUCKETS];
    for (bucket, distance) in distances.iter_mut().enumerate().rev() {
        next = first[bucket].or(next);
        if let Some(point) = next {
            *distance = point.wrapping_sub((bucket as u64) << SPACING);
        }
    }
    distances
}

#[cfg(test)]
mod tests {
    use std::hash::{Hash, Hasher};

    use consistent_hash::{Node, RingHash, StaticHashRing};

    use super::*;

    /// A number that puts itself on the ring: the other implementation takes our hashes as they are.
    struct Position(u64);

    impl Hash for Position {
        fn hash<H: Hasher>(&self, state: &mut H) {
            state.write_u64(self.0);
        }
    }

    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    struct Name(&'static str);

    impl Hash for Name {
        fn hash<H: Hasher>(&self, state: &mut H) {
            state.write_u64(hash::bytes(self.0.as_bytes(), hash::SEED));
        }
    }

    /// Hands back the number it is given.
    #[derive(Default)]
    struct Identity(u64);

    impl Hasher for Identity {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, _: &[u8]) {
            panic!("only whole numbers are hashed");
        }
        fn write_u64(&mut self, number: u64) {
            self.0 = number;
        }
    }

    struct OurHash;

    impl RingHash for OurHash {
        fn hash_item<T: Hash>(&self, item: &T) -> u64 {
            let mut hasher = Identity::default();
            item.hash(&mut hasher);
            hasher.finish()
        }
        fn hash_vnode<K: Hash>(&self, name: &K, number: usize) -> u64 {
            hash::uint32(number as u32, self.hash_item(name))
        }
    }

    #[test]
    fn agrees_with_an_independent_ring() {
        let shards = [("s0", 1), ("s1", 2), ("elsewhere", 1), ("s3", 3)];
        let nodes =
            shards.map(|(name, weight)| Node::new(Name(name)).quantity((weight * POINTS) as usize));
        let ring = StaticHashRing::new(OurHash, nodes.into_iter());
        let distances = shards.map(|(name, weight)| distances(name, weight));
        for bucket in 0..BUCKETS {
            let near = shards.iter().zip(&distances);
            let mut near: Vec<(u64, &str)> = near.map(|(s, d)| (d[bucket], s.0)).collect();
            near.sort_unstable();
            let ours: Vec<&str> = near.into_iter().map(|(_, name)| name).collect();
            let position = Position((bucket as u64) << SPACING);
            let theirs: Vec<&str> = ring.calc_candidates(&position).map(|n| n.key.0).collect();
            assert_eq!(ours, theirs, "bucket {bucket}");
        }
    }

    #[test]
    fn a_shard_without_weight_is_nowhere() {
        assert!(distances("s0", 0).iter().all(|d| *d == u64::MAX));
    }
}
