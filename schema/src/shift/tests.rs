//! Every step is a method that moves the keys it is about and no others, and the last is the target.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::model::{Database, LiteralForm, ShardKey};
use crate::placement::{Collation, KeyMap};

const SHARDS: u16 = 4;

fn number(value: i64) -> Literal {
    Literal {
        text: value.to_string(),
        form: LiteralForm::Integer,
    }
}

fn shard() -> impl Strategy<Value = ShardIndex> {
    (0..SHARDS).prop_map(ShardIndex)
}

fn ranges() -> impl Strategy<Value = Method> {
    let ends = prop::collection::btree_map(-20..20_i64, shard(), 0..6);
    (ends, shard()).prop_map(|(ends, rest)| {
        let end = |(end, shard)| RangeEntry {
            below: Some(number(end)),
            shard,
        };
        let open = RangeEntry {
            below: None,
            shard: rest,
        };
        Method::Range(ends.into_iter().map(end).chain([open]).collect())
    })
}

fn lists() -> impl Strategy<Value = Method> {
    let values = prop::collection::btree_map(-8..8_i64, shard(), 0..8);
    (values, shard()).prop_map(|(values, rest)| {
        let list = |(value, shard)| ListEntry {
            values: vec![number(value)],
            default: false,
            shard,
        };
        let default = ListEntry {
            values: Vec::new(),
            default: true,
            shard: rest,
        };
        Method::List(values.into_iter().map(list).chain([default]).collect())
    })
}

fn moduli() -> impl Strategy<Value = Method> {
    prop::collection::vec(shard(), 1..9).prop_map(Method::Modulo)
}

fn pair() -> impl Strategy<Value = (Method, Method)> {
    prop_oneof![
        (ranges(), ranges()),
        (lists(), lists()),
        (moduli(), moduli()),
    ]
}

/// Where each of some keys, and NULL, is by a method.
fn places(method: &Method) -> Vec<(Option<i64>, ShardIndex)> {
    let key = ShardKey {
        column: "k".to_owned(),
        method: method.clone(),
        colocate_with: None,
    };
    let database = Database {
        name: "d".to_owned(),
        shards: Vec::new(),
        tables: Vec::new(),
    };
    let map = KeyMap::resolve(&key, KeyType::Int8, Collation::Bytes, &database, None).unwrap();
    let place = |key: Option<i64>| {
        let shard = map.shard_of(key.map(Key::Int).as_ref());
        (key, shard.unwrap())
    };
    (-25..25).map(Some).chain([None]).map(place).collect()
}

/// Whether a key is one of them, by the plainest reading.
fn has(keys: &Keys, key: Option<i64>) -> bool {
    let value = |literal: &Literal| literal.text.parse::<i64>().unwrap();
    match (keys, key) {
        (Keys::Buckets(_), _) => panic!("no hash keys"),
        (Keys::Remainders { remainders, .. }, None) => remainders.contains(&0),
        (
            Keys::Remainders {
                modulus,
                remainders,
            },
            Some(key),
        ) => remainders.contains(&(key.rem_euclid(*modulus as i64) as usize)),
        (Keys::Range { below, .. }, None) => below.is_none(),
        (Keys::Range { from, below }, Some(key)) => {
            from.as_ref().is_none_or(|from| key >= value(from))
                && below.as_ref().is_none_or(|below| key < value(below))
        }
        (Keys::Values(_), None) => false,
        (Keys::Values(values), Some(key)) => values.iter().any(|listed| value(listed) == key),
        (Keys::Others(_), None) => true,
        (Keys::Others(values), Some(key)) => values.iter().all(|listed| value(listed) != key),
    }
}

/// A part of some keys, cut at a number.
fn part(keys: &Keys, at: i64) -> Keys {
    match keys {
        Keys::Remainders {
            modulus,
            remainders,
        } => Keys::Remainders {
            modulus: *modulus,
            remainders: remainders[..remainders.len().div_ceil(2)].to_vec(),
        },
        Keys::Range { from, .. } if has(keys, Some(at)) && has(keys, Some(at - 1)) => Keys::Range {
            from: from.clone(),
            below: Some(number(at)),
        },
        Keys::Values(values) => Keys::Values(values[..values.len().div_ceil(2)].to_vec()),
        Keys::Buckets(_) | Keys::Range { .. } | Keys::Others(_) => keys.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn steps_lead_to_the_target((former, target) in pair(), cuts in prop::collection::vec(-20..20_i64, 1..5)) {
        let mut now = former;
        let mut steps = 0;
        while let Some(shift) = now.shifts(&target, KeyType::Int8).unwrap().first() {
            let keys = part(&shift.keys, cuts[steps % cuts.len()]);
            let next = now.with(&keys, shift.to, KeyType::Int8).unwrap();
            for ((key, before), (_, after)) in places(&now).into_iter().zip(places(&next)) {
                let expected = if has(&keys, key) { (shift.from, shift.to) } else { (before, before) };
                prop_assert_eq!((before, after), expected, "{:?} of {:?}", key, keys);
            }
            now = next;
            steps += 1;
            prop_assert!(steps < 200);
        }
        prop_assert_eq!(places(&now), places(&target));
    }

    #[test]
    fn buckets_lead_to_the_target(weights in prop::collection::vec(0..3_u32, 3), more in select(vec![0_u32, 1, 5])) {
        let names = ["a", "b", "c"];
        let shards = |weights: &[u32]| names.iter().copied().zip(weights.iter().copied()).collect::<Vec<_>>();
        let target = BucketMap::place(&shards(&[more, weights[0], 1]));
        let mut now = BucketMap::place(&shards(&weights));
        for shift in now.shifts(&target) {
            let Keys::Buckets(buckets) = &shift.keys else { panic!("{shift:?}") };
            prop_assert!(buckets.iter().all(|bucket| now.owner(*bucket) == shift.from));
            now = now.with(buckets, shift.to);
        }
        prop_assert_eq!(now, target);
    }
}

#[test]
fn what_cannot_be_is_said() {
    let modulo = |count: u16| Method::Modulo((0..count).map(ShardIndex).collect());
    let error = modulo(1000)
        .shifts(&modulo(999), KeyType::Int8)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "remainders by 1000 and by 999 cannot be told apart by one number up to 16384"
    );
    let error = modulo(2).shifts(&Method::Hash, KeyType::Int8).unwrap_err();
    assert_eq!(
        error.to_string(),
        "it is distributed by modulo, and a table's method cannot change while clients work"
    );
}

#[test]
fn keys_are_told_in_sql() {
    let sql = |keys: &Keys| keys.sql("k", KeyType::Int4).unwrap();
    let range = |from: Option<i64>, below: Option<i64>| Keys::Range {
        from: from.map(number),
        below: below.map(number),
    };
    assert_eq!(
        sql(&range(Some(3), None)),
        "(k >= '3'::pg_catalog.int4 OR k IS NULL)"
    );
    assert_eq!(sql(&range(None, Some(3))), "k < '3'::pg_catalog.int4");
    assert_eq!(sql(&range(None, None)), "true");
    assert_eq!(
        sql(&Keys::Others(vec![number(1), number(2)])),
        "(k NOT IN ('1'::pg_catalog.int4, '2'::pg_catalog.int4) OR k IS NULL)"
    );
    let remainders = Keys::Remainders {
        modulus: 6,
        remainders: vec![1, 5],
    };
    assert_eq!(
        sql(&remainders),
        "coalesce(((k) % 6 + 6) % 6, 0) = ANY ('{1,5}'::pg_catalog.int8[])"
    );
}
