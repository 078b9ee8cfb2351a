//! Every key of every type has exactly one shard, for any valid configuration; and what may be pruned may be pruned.

use std::cmp::Ordering;
use std::ops::Bound;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::key::KeyFamily;
use crate::model::{Config, TableName};

/// A value of the type in PostgreSQL's text form, without quotes and backslashes.
fn value(key_type: KeyType) -> BoxedStrategy<String> {
    let date = (1_i32..9999, 1_i32..=12, 1_i32..=28)
        .prop_map(|(year, month, day)| format!("{year:04}-{month:02}-{day:02}"));
    let time = (date.clone(), 0..24, 0..60, 0..60)
        .prop_map(|(date, h, m, s)| format!("{date} {h:02}:{m:02}:{s:02}"));
    match key_type {
        KeyType::Int2 => prop_oneof![-5..5_i16, any::<i16>()]
            .prop_map(|v| v.to_string())
            .boxed(),
        KeyType::Int4 => prop_oneof![-5..5_i32, any::<i32>()]
            .prop_map(|v| v.to_string())
            .boxed(),
        KeyType::Int8 => prop_oneof![-5..5_i64, any::<i64>()]
            .prop_map(|v| v.to_string())
            .boxed(),
        KeyType::Text | KeyType::Varchar | KeyType::Bpchar | KeyType::Bytea => {
            "[a-c ]{0,4}".boxed()
        }
        KeyType::Uuid => any::<u128>().prop_map(|v| format!("{v:032x}")).boxed(),
        KeyType::Date => prop_oneof![1 => Just("infinity".to_owned()), 9 => date].boxed(),
        KeyType::Timestamp => time.boxed(),
        KeyType::Timestamptz => (time, -15..=15)
            .prop_map(|(time, offset)| format!("{time}{offset:+03}"))
            .boxed(),
        KeyType::Numeric => prop_oneof![
            1 => select(vec!["NaN", "Infinity", "-Infinity", "0", "-0.00"]).prop_map(str::to_owned),
            9 => "-?[0-9]{1,6}(\\.[0-9]{0,6})?(e-?[0-9])?",
        ]
        .boxed(),
        KeyType::Bool => select(vec!["t", "f"]).prop_map(str::to_owned).boxed(),
    }
}

fn key(key_type: KeyType, text: &str) -> Key<'_> {
    Key::from_text(key_type, text.as_bytes()).unwrap()
}

/// The method of a generated table, in the form of the file.
#[derive(Debug, Clone)]
struct Written {
    key_type: KeyType,
    shards: usize,
    /// Of the shards, in their order.
    weights: Vec<u32>,
    toml: String,
    /// For range and list: values and the shard each names.
    values: Vec<(String, usize)>,
    /// The shard of the open range or the default list.
    rest: usize,
}

fn written() -> impl Strategy<Value = Written> {
    select(KeyType::ALL.to_vec()).prop_flat_map(|key_type| {
        let mut methods = vec!["hash", "range", "list"];
        if key_type.family() == KeyFamily::Integer {
            methods.push("modulo");
        }
        let values = prop::collection::vec((value(key_type), any::<Index>()), 1..6);
        let weights = prop::collection::vec(0..4_u32, 5);
        (1..6_usize, select(methods), values, any::<Index>(), weights).prop_map(
            move |(shards, method, values, rest, weights)| {
                let values = values
                    .into_iter()
                    .map(|(value, shard)| (value, shard.index(shards)));
                let written = write(
                    key_type,
                    shards,
                    method,
                    values.collect(),
                    rest.index(shards),
                );
                let mut weights = weights;
                // One shard has room, or the configuration is not valid.
                weights[written.rest] += 1;
                Written { weights, ..written }
            },
        )
    })
}

fn write(
    key_type: KeyType,
    shards: usize,
    method: &str,
    mut values: Vec<(String, usize)>,
    rest: usize,
) -> Written {
    values.sort_by(|(a, _), (b, _)| key(key_type, a).compare(&key(key_type, b)).unwrap());
    values.dedup_by(|(a, _), (b, _)| key(key_type, a) == key(key_type, b));
    let entries = |value: &dyn Fn(&str) -> String, rest: String| {
        let entries = values
            .iter()
            .map(|(v, shard)| format!("{{ {}, shard = 's{shard}' }}", value(v)));
        entries.chain([rest]).collect::<Vec<_>>().join(", ")
    };
    let toml = match method {
        "range" => format!(
            "ranges = [{}]",
            entries(
                &|v| format!("below = '{v}'"),
                format!("{{ shard = 's{rest}' }}")
            )
        ),
        "list" => format!(
            "lists = [{}]",
            entries(
                &|v| format!("values = ['{v}']"),
                format!("{{ default = true, shard = 's{rest}' }}")
            )
        ),
        "modulo" => {
            let names: Vec<String> = values
                .iter()
                .map(|(_, shard)| format!("'s{shard}'"))
                .collect();
            format!("shards = [{}]", names.join(", "))
        }
        _ => String::new(),
    };
    Written {
        key_type,
        shards,
        weights: vec![1; shards],
        toml: format!("method = '{method}'\n{toml}"),
        values,
        rest,
    }
}

impl Written {
    /// Reads it as a file and resolves its table.
    fn resolve(&self) -> KeyMap {
        let shard = |n| {
            format!(
                "[[databases.shards]]\nname = 's{n}'\nweight = {}\nnodes = [{{ host = 'h{n}', role = 'primary' }}]\n",
                self.weights[n]
            )
        };
        let shards: String = (0..self.shards).map(shard).collect();
        let text = format!(
            "[[users]]\nname = 'u'\npassword = 'p'\n[[databases]]\nname = 'd'\n{shards}
             [[databases.tables]]\nname = 't'\nshard_key = 'k'\n{}",
            self.toml
        );
        let config =
            Config::parse(&text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"));
        let database = &config.databases[0];
        let table = database.table(&TableName::new("public", "t")).unwrap();
        let shard_key = table.distribution.shard_key().unwrap();
        KeyMap::resolve(shard_key, self.key_type, Collation::Bytes, database, None).unwrap()
    }

    /// The shard by the plainest reading of the documentation.
    fn expected(&self, map: &KeyMap, wanted: Option<&Key<'_>>) -> usize {
        let named =
            |(value, shard): &(String, usize)| (key(self.key_type, value).into_owned(), *shard);
        let mut values = self.values.iter().map(named);
        let Some(wanted) = wanted else {
            return match map.placement() {
                Placement::Hash(buckets) => buckets.owners()[0].position(),
                Placement::Modulo(_) => self.values[0].1,
                Placement::Range(_) | Placement::List(_) => self.rest,
            };
        };
        match map.placement() {
            Placement::Hash(buckets) => {
                buckets.owners()[(wanted.hash_extended() & 16_383) as usize].position()
            }
            Placement::Modulo(_) => {
                let Key::Int(value) = wanted else {
                    panic!("{wanted:?}")
                };
                let count = self.values.len() as i64;
                self.values[(((value % count) + count) % count) as usize].1
            }
            Placement::Range(_) => values
                .find(|(end, _)| wanted.compare(end) == Some(Ordering::Less))
                .map_or(self.rest, |(_, shard)| shard),
            Placement::List(_) => values
                .find(|(listed, _)| listed == wanted)
                .map_or(self.rest, |(_, shard)| shard),
        }
    }
}

/// A configuration with keys of its type: any, and those at the boundaries.
fn with_keys() -> impl Strategy<Value = (Written, Vec<String>)> {
    written().prop_flat_map(|written| {
        let keys = prop::collection::vec(value(written.key_type), 1..20);
        (Just(written), keys).prop_map(|(written, mut keys)| {
            keys.extend(written.values.iter().map(|(value, _)| value.clone()));
            (written, keys)
        })
    })
}

fn bound<'k>(kind: u8, key: &'k Key<'k>) -> Bound<&'k Key<'k>> {
    match kind {
        0 => Bound::Included(key),
        1 => Bound::Excluded(key),
        _ => Bound::Unbounded,
    }
}

fn within(key: &Key<'_>, low: Bound<&Key<'_>>, high: Bound<&Key<'_>>) -> bool {
    let order = |other: &Key<'_>| key.compare(other).unwrap();
    (match low {
        Bound::Included(low) => order(low).is_ge(),
        Bound::Excluded(low) => order(low).is_gt(),
        Bound::Unbounded => true,
    }) && match high {
        Bound::Included(high) => order(high).is_le(),
        Bound::Excluded(high) => order(high).is_lt(),
        Bound::Unbounded => true,
    }
}

proptest! {
    #[test]
    fn every_key_has_exactly_one_shard((written, keys) in with_keys()) {
        let map = written.resolve();
        prop_assert!(map.shards().is_subset(&ShardSet::all(written.shards)));
        let keys: Vec<Key<'_>> = keys.iter().map(|k| key(written.key_type, k)).collect();
        for key in keys.iter().map(Some).chain([None]) {
            let shard = map.shard_of(key).unwrap();
            prop_assert_eq!(shard.position(), written.expected(&map, key), "{:?}", key);
            prop_assert!(map.shards().contains(shard));
            let weighs = written.weights[shard.position()] > 0;
            prop_assert!(weighs || !matches!(map.placement(), Placement::Hash(_)));
        }
    }

    #[test]
    fn pruning_keeps_every_shard_that_has_a_key(
        (written, keys) in with_keys(), kinds in (0..3_u8, 0..3_u8), ends in any::<(Index, Index)>()
    ) {
        let map = written.resolve();
        let keys: Vec<Key<'_>> = keys.iter().map(|k| key(written.key_type, k)).collect();
        let (low, high) = (bound(kinds.0, ends.0.get(&keys)), bound(kinds.1, ends.1.get(&keys)));
        let shards = map.shards_between(low, high);
        prop_assert!(shards.is_subset(&map.shards()));
        for key in keys.iter().filter(|key| within(key, low, high)) {
            prop_assert!(shards.contains(map.shard_of(Some(key)).unwrap()), "{key:?}");
        }
    }

    #[test]
    fn ranges_prune_as_far_as_their_ends_tell(values in prop::collection::btree_set(-50..50_i64, 1..6), low in -60..60_i64, high in -60..60_i64) {
        let values: Vec<(String, usize)> = values.iter().enumerate().map(|(s, v)| (v.to_string(), s)).collect();
        let rest = values.len();
        let map = write(KeyType::Int8, rest + 1, "range", values, rest).resolve();
        let (from, to) = (Key::Int(low), Key::Int(high));
        let expected: ShardSet = (low..=high).map(|k| map.shard_of(Some(&Key::Int(k))).unwrap()).collect();
        prop_assert_eq!(map.shards_between(Bound::Included(&from), Bound::Included(&to)), expected);
        let expected: ShardSet = (low..high).map(|k| map.shard_of(Some(&Key::Int(k))).unwrap()).collect();
        prop_assert_eq!(map.shards_between(Bound::Included(&from), Bound::Excluded(&to)), expected);
    }
}

const HASH: &str = "hash";

#[test]
fn a_key_of_another_type_has_no_shard() {
    let map = write(KeyType::Int4, 2, HASH, Vec::new(), 0).resolve();
    assert_eq!(
        map.shard_of(Some(&Key::Bool(true))),
        Err(NoShard(KeyType::Int4))
    );
    assert!(map.shard_of(Some(&Key::Int(5))).is_ok());
}

#[test]
fn one_key_is_on_one_shard_whatever_the_method() {
    let map = write(KeyType::Int4, 4, HASH, Vec::new(), 0).resolve();
    let five = Key::Int(5);
    let between = map.shards_between(Bound::Included(&five), Bound::Included(&five));
    assert_eq!(between, ShardSet::one(map.shard_of(Some(&five)).unwrap()));
    assert_eq!(
        map.shards_between(Bound::Included(&five), Bound::Unbounded),
        ShardSet::all(4)
    );
}

#[test]
fn tables_are_colocated_when_equal_keys_meet() {
    let ends = vec![("5".to_owned(), 0)];
    let hash = |key_type| write(key_type, 3, HASH, Vec::new(), 0).resolve();
    let range = |key_type, rest| write(key_type, 3, "range", ends.clone(), rest).resolve();
    assert!(hash(KeyType::Int4).colocated_with(&hash(KeyType::Int8)));
    assert!(hash(KeyType::Text).colocated_with(&hash(KeyType::Varchar)));
    assert!(!hash(KeyType::Text).colocated_with(&hash(KeyType::Bpchar)));
    assert!(!hash(KeyType::Int4).colocated_with(&hash(KeyType::Numeric)));
    assert!(!hash(KeyType::Timestamp).colocated_with(&hash(KeyType::Timestamptz)));
    assert!(range(KeyType::Int2, 1).colocated_with(&range(KeyType::Int8, 1)));
    assert!(!range(KeyType::Int8, 1).colocated_with(&range(KeyType::Int8, 2)));
    assert!(!range(KeyType::Int8, 1).colocated_with(&hash(KeyType::Int8)));
}

/// Resolves a method as it stands in the file, on two shards.
fn resolve(method: &str, key_type: KeyType, collation: Collation) -> Result<KeyMap, ResolveError> {
    let text = format!(
        "users = [{{ name = 'u', password = 'p' }}]\n[[databases]]\nname = 'd'\nshards = [
           {{ name = 's0', nodes = [{{ host = 'a', role = 'primary' }}] }},
           {{ name = 's1', nodes = [{{ host = 'b', role = 'primary' }}] }} ]
         tables = [{{ name = 't', shard_key = 'k', {method} }}]"
    );
    let config = Config::parse(&text).unwrap();
    let database = &config.databases[0];
    let key = database.tables[0].distribution.shard_key().unwrap();
    KeyMap::resolve(key, key_type, collation, database, None)
}

#[test]
fn what_does_not_fit_the_column_is_refused() {
    let hash = "method = 'hash'";
    let range = "method = 'range', ranges = [{ below = '10', shard = 's0' }, { below = '9', shard = 's1' }, { shard = 's0' }]";
    let list = "method = 'list', lists = [{ values = ['1.0', '1.00'], shard = 's0' }, { default = true, shard = 's1' }]";
    let date =
        "method = 'range', ranges = [{ below = '2026-01-01', shard = 's0' }, { shard = 's1' }]";
    let plain = Collation::Deterministic;
    let error = |method, key_type, collation| {
        resolve(method, key_type, collation)
            .err()
            .map(|e| e.to_string())
    };
    assert_eq!(error(hash, KeyType::Text, plain), None);
    assert_eq!(
        error(hash, KeyType::Text, Collation::Nondeterministic).as_deref(),
        Some("a shard key cannot have a nondeterministic collation")
    );
    assert_eq!(
        error("method = 'modulo'", KeyType::Uuid, plain).as_deref(),
        Some("method modulo needs an integer key, and the column is uuid")
    );
    assert_eq!(error(range, KeyType::Text, Collation::Bytes), None);
    assert_eq!(
        error(range, KeyType::Text, plain).as_deref(),
        Some("method range on text needs the collation \"C\" or \"POSIX\"")
    );
    assert_eq!(
        error(range, KeyType::Int4, plain).as_deref(),
        Some("range below \"9\" holds no key: it does not lie above the range before it")
    );
    assert_eq!(error(list, KeyType::Text, plain), None);
    assert_eq!(
        error(list, KeyType::Numeric, plain).as_deref(),
        Some("\"1.00\" is listed twice: it equals an earlier value")
    );
    assert_eq!(
        error(date, KeyType::Int4, plain).as_deref(),
        Some("\"2026-01-01\" is not a value of type integer")
    );
    for key_type in [KeyType::Date, KeyType::Timestamp, KeyType::Timestamptz] {
        assert_eq!(error(date, key_type, plain), None, "{key_type:?}");
    }
}

#[test]
fn the_form_of_a_literal_decides_the_types_it_fits() {
    let range = |below: &str, key_type| {
        let method = format!(
            "method = 'range', ranges = [{{ below = {below}, shard = 's0' }}, {{ shard = 's1' }}]"
        );
        resolve(&method, key_type, Collation::Bytes).is_ok()
    };
    assert!(
        range("5", KeyType::Int4) && range("5", KeyType::Numeric) && !range("5", KeyType::Text)
    );
    assert!(!range("1.5", KeyType::Int4) && range("1.5", KeyType::Numeric));
    assert!(!range("70000", KeyType::Int2));
    assert!(range("2026-01-01", KeyType::Date) && !range("2026-01-01", KeyType::Text));
    assert!(range("2026-01-01T10:00:00", KeyType::Timestamptz));
    assert!(range("true", KeyType::Bool) && !range("true", KeyType::Int4));
    let midnight = |below: &str| {
        let method = format!(
            "method = 'range', ranges = [{{ below = {below}, shard = 's0' }}, {{ shard = 's1' }}]"
        );
        resolve(&method, KeyType::Timestamptz, Collation::Bytes).unwrap()
    };
    assert!(midnight("2026-01-01").colocated_with(&midnight("'2026-01-01 01:00:00+01'")));
}
