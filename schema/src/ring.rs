//! The consistent-hash ring.

use crate::bucket::BUCKETS;
use crate::hash;
use crate::shard::ShardIndex;

/// Points a shard has on the ring for each unit of its weight.
const POINTS: u32 = 4096;

pub(crate) fn place<S: AsRef<str>>(shards: &[(S, u32)]) -> Box<[ShardIndex]> {
    // The arc before each bucket's position, with the first point on it.
    let mut arcs = vec![(u64::MAX, ShardIndex::FIRST); BUCKETS];
    for ((name, weight), index) in shards.iter().zip(0..) {
        for number in 0..weight.saturating_mul(POINTS) {
            let point = hash::uint32(number, hash::bytes(name.as_ref().as_bytes(), 0));
            let arc = &mut arcs[(point >> 50) as usize];
            *arc = (*arc).min((point, ShardIndex(index)));
        }
    }
    let mut next = arcs.iter().find(|a| a.0 != u64::MAX).copied();
    for arc in arcs.iter_mut().rev() {
        match next {
            Some(owner) if arc.0 == u64::MAX => *arc = owner,
            _ => next = Some(*arc),
        }
    }
    arcs.into_iter().map(|arc| arc.1).collect()
}
