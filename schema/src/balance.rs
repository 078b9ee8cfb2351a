//! Who owns which bucket: at first by the ring, later by moving as few as the new shares allow.
//!
//! [`place`] has no memory and so can promise least movement but not exact shares: a ring is a draw, even if a fixed one.
//! [`rebalance`] starts from the map in force and can promise both.

use std::collections::HashMap;

use crate::bucket::{BUCKETS, BucketMap};
use crate::ring;
use crate::shard::ShardIndex;

/// [`BucketMap::place`].
pub(crate) fn place<S: AsRef<str>>(shards: &[(S, u32)]) -> Box<[ShardIndex]> {
    let mut nearest = vec![(u64::MAX, ShardIndex::FIRST); BUCKETS];
    // Two points may coincide: then the name decides, never the order of the shards.
    let mut by_name: Vec<(&str, u32, ShardIndex)> = shards
        .iter()
        .zip(0..)
        .map(|((name, weight), index)| (name.as_ref(), *weight, ShardIndex(index)))
        .collect();
    by_name.sort_unstable();
    for (name, weight, shard) in by_name {
        for (nearest, distance) in nearest.iter_mut().zip(ring::distances(name, weight)) {
            if distance < nearest.0 {
                *nearest = (distance, shard);
            }
        }
    }
    nearest.into_iter().map(|(_, shard)| shard).collect()
}

/// [`BucketMap::rebalance`].
pub(crate) fn rebalance<S: AsRef<str>, T: AsRef<str>>(
    map: &BucketMap,
    before: &[S],
    after: &[(T, u32)],
) -> Box<[ShardIndex]> {
    let mut owners = renamed(map, before, after);
    let mut counts = vec![0; after.len()];
    for owner in owners.iter().flatten() {
        counts[owner.position()] += 1;
    }
    let shares = shares(after, &counts);
    let less = |a: &[usize], b: &[usize]| -> Vec<usize> {
        a.iter().zip(b).map(|(a, b)| a.saturating_sub(*b)).collect()
    };
    let mut room = less(&shares, &counts);
    let mut surplus = less(&counts, &shares);
    let receivers = receivers(after, &room);
    loop {
        let mut wishes = wishes(&owners, &surplus, &receivers, &room);
        if wishes.is_empty() {
            break;
        }
        // The nearest first. The first wish of a round always comes true, so rounds come to an end.
        wishes.sort_unstable();
        for (_, bucket, receiver) in wishes {
            let to = receivers[receiver].shard;
            if room[to.position()] == 0 {
                continue;
            }
            match owners[bucket] {
                Some(from) if surplus[from.position()] == 0 => continue,
                Some(from) => surplus[from.position()] -= 1,
                None => {}
            }
            room[to.position()] -= 1;
            owners[bucket] = Some(to);
        }
    }
    let settled = |owner: Option<ShardIndex>| owner.unwrap_or(ShardIndex::FIRST);
    owners.into_iter().map(settled).collect()
}

/// The owners as positions in `after`; `None` where the shard is gone.
fn renamed<S: AsRef<str>, T: AsRef<str>>(
    map: &BucketMap,
    before: &[S],
    after: &[(T, u32)],
) -> Vec<Option<ShardIndex>> {
    let names = after.iter().map(|(name, _)| name.as_ref());
    let after: HashMap<&str, u16> = names.zip(0..).collect();
    let renamed: Vec<Option<ShardIndex>> = before
        .iter()
        .map(|name| after.get(name.as_ref()).copied().map(ShardIndex))
        .collect();
    let owner = |owner: &ShardIndex| renamed.get(owner.position()).copied().flatten();
    map.owners().iter().map(owner).collect()
}

/// How many buckets each shard is to have: its part of the weight, rounded so that the sum is right. Of the shards that may
/// be rounded up, those that would else give a bucket away come first, then those with the larger fraction.
fn shares<T: AsRef<str>>(shards: &[(T, u32)], counts: &[usize]) -> Vec<usize> {
    let total: u64 = shards.iter().map(|(_, weight)| u64::from(*weight)).sum();
    if total == 0 {
        let mut shares = vec![0; shards.len()];
        shares.iter_mut().take(1).for_each(|s| *s = BUCKETS);
        return shares;
    }
    let part = |weight: u32| u64::from(weight) * BUCKETS as u64;
    let mut shares: Vec<usize> = shards
        .iter()
        .map(|(_, weight)| (part(*weight) / total) as usize)
        .collect();
    let mut fractions: Vec<usize> = (0..shards.len())
        .filter(|&s| !part(shards[s].1).is_multiple_of(total))
        .collect();
    fractions.sort_by_key(|&s| {
        let (name, weight) = &shards[s];
        let keeps = counts[s] > shares[s];
        (!keeps, u64::MAX - part(*weight) % total, name.as_ref())
    });
    let rest = BUCKETS - shares.iter().sum::<usize>();
    for shard in fractions.into_iter().take(rest) {
        shares[shard] += 1;
    }
    shares
}

/// A shard that is to get buckets.
struct Receiver {
    shard: ShardIndex,
    /// From each bucket to the shard, clockwise.
    distances: Vec<u64>,
}

/// The shards with room, by name, so that the order of the shards decides nothing.
fn receivers<T: AsRef<str>>(shards: &[(T, u32)], room: &[usize]) -> Vec<Receiver> {
    let mut by_name: Vec<(&str, u32, u16)> = shards
        .iter()
        .zip(0..)
        .map(|((name, weight), index)| (name.as_ref(), *weight, index))
        .filter(|(_, _, index)| room[usize::from(*index)] > 0)
        .collect();
    by_name.sort_unstable();
    let receiver = |(name, weight, index)| Receiver {
        shard: ShardIndex(index),
        distances: ring::distances(name, weight),
    };
    by_name.into_iter().map(receiver).collect()
}

/// For each bucket that has to or may move: how far it is to the nearest receiver with room, the bucket, the receiver.
fn wishes(
    owners: &[Option<ShardIndex>],
    surplus: &[usize],
    receivers: &[Receiver],
    room: &[usize],
) -> Vec<(u64, usize, usize)> {
    let may_move = |owner: &Option<ShardIndex>| owner.is_none_or(|s| surplus[s.position()] > 0);
    let movable = owners.iter().enumerate().filter(|(_, o)| may_move(o));
    movable
        .filter_map(|(bucket, _)| {
            let open = receivers.iter().enumerate();
            let open = open.filter(|(_, r)| room[r.shard.position()] > 0);
            open.map(|(index, r)| (r.distances[bucket], bucket, index))
                .min()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bucket::Bucket;

    /// Shards with distinct names and weights from the range, in no particular order.
    fn shards(weight: std::ops::RangeInclusive<u32>) -> impl Strategy<Value = Vec<(String, u32)>> {
        prop::collection::btree_map("[a-z]{1,3}[0-9]{0,2}", weight, 1..9)
            .prop_map(|shards| shards.into_iter().collect::<Vec<_>>())
            .prop_shuffle()
            .prop_filter("no weight", |s| s.iter().any(|(_, weight)| *weight > 0))
    }

    fn named<'a>(map: &'a BucketMap, shards: &'a [(String, u32)]) -> Vec<&'a str> {
        let name = |owner: &ShardIndex| shards[owner.position()].0.as_str();
        map.owners().iter().map(name).collect()
    }

    fn names(shards: &[(String, u32)]) -> Vec<&str> {
        shards.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Checks that every shard has its share to one bucket, and returns how many buckets moved beyond the least possible.
    fn rebalanced(
        map: &BucketMap,
        before: &[(String, u32)],
        after: &[(String, u32)],
    ) -> (BucketMap, usize) {
        let next = map.rebalance(&names(before), after);
        let total: u32 = after.iter().map(|(_, weight)| weight).sum();
        let counts = next.counts(after.len());
        let mut least = 0;
        for ((name, weight), count) in after.iter().zip(&counts) {
            let share = f64::from(*weight) * BUCKETS as f64 / f64::from(total);
            assert!(
                (*count as f64 - share).abs() < 1.0,
                "{name} has {count} of {share}"
            );
            let had = named(map, before)
                .iter()
                .filter(|owner| *owner == name)
                .count();
            least += count.saturating_sub(had);
        }
        let (old, new) = (named(map, before), named(&next, after));
        let moved = old.iter().zip(&new).filter(|(a, b)| a != b).count();
        (next, moved - least)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn the_order_of_the_shards_does_not_matter(
            (shards, shuffled) in shards(0..=4).prop_flat_map(|s| (Just(s.clone()), Just(s).prop_shuffle()))
        ) {
            let (a, b) = (BucketMap::place(&shards), BucketMap::place(&shuffled));
            prop_assert_eq!(named(&a, &shards), named(&b, &shuffled));
        }

        #[test]
        fn a_new_shard_takes_buckets_and_moves_no_others(shards in shards(1..=4), weight in 1..=4_u32) {
            let mut more = shards.clone();
            more.insert(shards.len() / 2, ("newcomer".into(), weight));
            let (a, b) = (BucketMap::place(&shards), BucketMap::place(&more));
            let (a, b) = (named(&a, &shards), named(&b, &more));
            prop_assert!(a.iter().zip(&b).all(|(a, b)| a == b || *b == "newcomer"));
            prop_assert!(b.contains(&"newcomer"));
        }

        #[test]
        fn a_lost_shard_gives_its_buckets_and_moves_no_others(shards in shards(1..=4), which in 0..8_usize) {
            prop_assume!(shards.len() > 1);
            let mut fewer = shards.clone();
            let lost = fewer.remove(which % shards.len()).0;
            let (a, b) = (BucketMap::place(&shards), BucketMap::place(&fewer));
            let (a, b) = (named(&a, &shards), named(&b, &fewer));
            prop_assert!(a.iter().zip(&b).all(|(a, b)| a == b || **a == *lost));
        }

        #[test]
        fn more_weight_only_attracts(shards in shards(1..=4), which in 0..8_usize, more in 1..=3_u32) {
            let mut heavier = shards.clone();
            let at = which % shards.len();
            heavier[at].1 += more;
            let (a, b) = (BucketMap::place(&shards), BucketMap::place(&heavier));
            prop_assert!(a.owners().iter().zip(b.owners()).all(|(a, b)| a == b || b.position() == at));
        }

        #[test]
        fn rebalancing_is_exact_and_moves_the_least_possible(before in shards(0..=5), after in shards(0..=5)) {
            let map = BucketMap::place(&before);
            let (next, excess) = rebalanced(&map, &before, &after);
            prop_assert_eq!(excess, 0);
            let (again, excess) = rebalanced(&next, &after, &after);
            prop_assert_eq!(excess, 0);
            prop_assert_eq!(again, next);
        }

        #[test]
        fn from_exact_shares_only_the_shard_that_comes_or_goes_is_touched(shards in shards(1..=4)) {
            let (even, _) = rebalanced(&BucketMap::place(&shards), &shards, &shards);
            let mut more = shards.clone();
            more.push(("newcomer".into(), 2));
            let (grown, _) = rebalanced(&even, &shards, &more);
            let (a, b) = (named(&even, &shards), named(&grown, &more));
            prop_assert!(a.iter().zip(&b).all(|(a, b)| a == b || *b == "newcomer"));
            let (back, _) = rebalanced(&grown, &more, &shards);
            let (a, b) = (named(&grown, &more), named(&back, &shards));
            prop_assert!(a.iter().zip(&b).all(|(a, b)| a == b || *a == "newcomer"));
        }
    }

    #[test]
    fn usual_shards_are_balanced_within_a_few_percent() {
        for count in [2, 3, 4, 6, 8] {
            let shards: Vec<(String, u32)> = (0..count).map(|n| (format!("s{n}"), 1)).collect();
            let share = BUCKETS as f64 / f64::from(count);
            for owned in BucketMap::place(&shards).counts(shards.len()) {
                let off = (owned as f64 / share - 1.0).abs();
                assert!(off < 0.05, "{count} shards: {owned} of {share:.0}");
            }
        }
    }

    #[test]
    fn weights_are_respected() {
        let shards = [("s0", 1), ("s1", 2), ("s2", 5), ("s3", 0)];
        let counts = BucketMap::place(&shards).counts(4);
        for ((name, weight), owned) in shards.iter().zip(counts) {
            let share = BUCKETS as f64 * f64::from(*weight) / 8.0;
            assert!(
                (owned as f64 - share).abs() <= share * 0.05,
                "{name}: {owned} of {share}"
            );
        }
    }

    #[test]
    fn the_first_map_never_changes() {
        // If this fails, rows of existing databases are on other shards than the router believes. Do not adjust it.
        let map = BucketMap::place(&[("s0", 1), ("s1", 1), ("s2", 2)]);
        let bytes: Vec<u8> = map.owners().iter().map(|s| s.0 as u8).collect();
        assert_eq!(map.counts(3), [4032, 4106, 8246]);
        assert_eq!(crate::hash::bytes(&bytes, 0), 4_564_496_000_310_942_826);
    }

    #[test]
    fn without_weight_everything_is_on_the_first() {
        for shards in [vec![], vec![("s0", 0), ("s1", 0)]] {
            let map = BucketMap::place(&shards);
            assert!(Bucket::all().all(|b| map.owner(b) == ShardIndex::FIRST));
            assert_eq!(map.rebalance(&["s0", "s1"], &shards), map);
        }
    }
}
