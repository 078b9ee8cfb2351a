use switchyard_schema::{Database, Shard};

use super::*;

fn database(shards: &[(&str, u32)]) -> Database {
    let shard = |(name, weight): &(&str, u32)| Shard {
        name: (*name).to_owned(),
        weight: *weight,
        nodes: Vec::new(),
    };
    Database {
        name: "shop".to_owned(),
        shards: shards.iter().map(shard).collect(),
        tables: Vec::new(),
    }
}

#[test]
fn a_new_shard_gets_its_share_and_nothing_else_moves() {
    let before = BucketMap::place(&[("a", 1), ("b", 1)]);
    let known = database(&[("a", 1), ("b", 1), ("c", 0)]);
    let map = target(&before, &known, &database(&[("c", 1), ("a", 1), ("b", 1)]));
    let counts = map.counts(3);
    assert!(
        counts.iter().all(|count| (5461..=5462).contains(count)),
        "{counts:?}"
    );
    let groups = groups(&before, &map);
    assert!(groups.iter().all(|group| group.to == 2), "{groups:?}");
    let moving: usize = groups.iter().map(|group| group.buckets.len()).sum();
    assert_eq!(moving, counts[2]);
}

#[test]
fn a_shard_that_is_not_in_the_file_gets_nothing() {
    let before = BucketMap::place(&[("a", 1), ("b", 1), ("c", 1)]);
    let map = target(
        &before,
        &database(&[("a", 1), ("b", 1), ("c", 1)]),
        &database(&[("a", 1), ("b", 1)]),
    );
    assert_eq!(map.counts(3)[2], 0);
}

#[test]
fn the_same_shards_keep_what_they_have() {
    let before = BucketMap::place(&[("a", 1), ("b", 1)]);
    let known = database(&[("a", 1), ("b", 1)]);
    assert_eq!(target(&before, &known, &known), before);
}
