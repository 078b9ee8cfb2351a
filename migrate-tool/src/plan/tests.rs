//! Plans of small configurations against catalogs made from others.

use proptest::prelude::*;
use switchyard_schema::BUCKETS;

use super::*;

use std::sync::Arc;

/// A configuration with these shards (name and weight) and tables.
fn config(shards: &[(&str, u32)], tables: &str) -> Config {
    let shard = |(name, weight): &(&str, u32)| {
        format!(
            "{{ name = '{name}', weight = {weight}, nodes = [{{ host = '{name}', role = 'primary' }}] }}"
        )
    };
    let shards: Vec<String> = shards.iter().map(shard).collect();
    let text = format!(
        "users = [{{ name = 'u', password = 'p' }}]\n[[databases]]\nname = 'd'\nshards = [{}]\ntables = [{tables}]",
        shards.join(",")
    );
    Config::parse(&text).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// The catalog a file leads to when it is the first.
fn catalog(config: &Config) -> Snapshot {
    let entry = |database: &Database| {
        let actual = CatalogDatabase {
            is_moving: false,
            movement: None,
            buckets: Arc::new(BucketMap::place(&database.weights())),
            database: Arc::new(database.clone()),
            epoch: 7,
        };
        (database.name.clone(), actual)
    };
    Snapshot {
        revision: 1,
        databases: config.databases.iter().map(entry).collect(),
    }
}

fn compare(from: &Config, to: &Config) -> DatabasePlan {
    let mut plan = plan(to, Some(&catalog(from)));
    assert!(plan.compared);
    plan.databases.remove(0)
}

const USERS: &str = "{ name = 'users', shard_key = 'id', method = 'hash' }";

#[test]
fn without_a_catalog_it_says_where_things_are() {
    let config = config(&[("s0", 1), ("s1", 1)], USERS);
    let plan = plan(&config, None);
    assert!(!plan.compared);
    let database = &plan.databases[0];
    assert_eq!(database.change, Change::None);
    assert_eq!(
        database.shards.iter().map(|s| s.buckets).sum::<usize>(),
        BUCKETS
    );
    assert_eq!(database.tables[0].placement, "hash of id");
    assert!(database.moves.is_empty());
}

#[test]
fn a_catalog_made_from_the_file_needs_nothing() {
    let file = config(&[("s0", 1), ("s1", 2)], USERS);
    let plan = compare(&file, &file);
    assert_eq!((plan.change, plan.buckets_to_move), (Change::None, 0));
    let reordered = config(&[("s1", 2), ("s0", 1)], USERS);
    let plan = compare(&file, &reordered);
    // Unsharded tables are on the first shard, so the order is a difference, but not to buckets.
    assert_eq!((plan.change, plan.buckets_to_move), (Change::Changed, 0));
    assert_eq!(plan.differences, ["the shards are in another order"]);
}

#[test]
fn a_new_shard_gets_its_share_and_nothing_else_moves() {
    let plan = compare(
        &config(&[("s0", 1), ("s1", 1)], USERS),
        &config(&[("s0", 1), ("s1", 1), ("s2", 1)], USERS),
    );
    assert_eq!(plan.change, Change::Changed);
    assert_eq!(plan.epoch, Some(7));
    assert!(
        plan.moves.iter().all(|step| step.to == "s2"),
        "{:?}",
        plan.moves
    );
    assert_eq!(plan.shards[2].change, Change::New);
    assert_eq!(plan.shards[2].buckets_now, Some(0));
    assert!(
        (5461..=5462).contains(&plan.buckets_to_move),
        "{}",
        plan.buckets_to_move
    );
}

#[test]
fn a_lost_shard_gives_everything_away() {
    let plan = compare(
        &config(&[("s0", 1), ("s1", 1), ("s2", 1)], USERS),
        &config(&[("s0", 1), ("s2", 1)], USERS),
    );
    assert!(
        plan.moves
            .iter()
            .filter(|step| step.from == "s1")
            .map(|step| step.count)
            .sum::<usize>()
            > 5000
    );
    let gone = plan.shards.iter().find(|shard| shard.name == "s1").unwrap();
    assert_eq!(
        (gone.change, gone.buckets, gone.buckets_now),
        (Change::Gone, 0, gone.buckets_now)
    );
    assert_eq!(
        plan.shards.iter().map(|shard| shard.buckets).sum::<usize>(),
        BUCKETS
    );
}

#[test]
fn tables_come_go_and_change() {
    let tables = |events: &str| {
        format!(
            "{{ name = 'events', shard_key = 'at', method = 'range', ranges = [{{ below = {events}, shard = 's0' }}, {{ shard = 's1' }}] }}"
        )
    };
    let shards = [("s0", 1), ("s1", 1)];
    let before = config(
        &shards,
        &format!(
            "{}, {{ name = 'countries', method = 'reference' }}",
            tables("'2026-01-01'")
        ),
    );
    let after = config(&shards, &format!("{}, {USERS}", tables("'2027-01-01'")));
    let plan = compare(&before, &after);
    let changes: Vec<(&str, Change)> = plan
        .tables
        .iter()
        .map(|t| (t.name.as_str(), t.change))
        .collect();
    assert_eq!(
        changes,
        [
            ("events", Change::Changed),
            ("users", Change::New),
            ("countries", Change::Gone)
        ]
    );
    assert_eq!(
        plan.tables[0].placement,
        "range of at: below \"2027-01-01\" on s0; the rest on s1"
    );
    assert_eq!(
        plan.tables[0].placement_now.as_deref(),
        Some("range of at: below \"2026-01-01\" on s0; the rest on s1")
    );
}

#[test]
fn databases_come_and_go() {
    let file = config(&[("s0", 1)], USERS);
    let empty = Snapshot {
        revision: 1,
        databases: BTreeMap::new(),
    };
    let fresh = plan(&file, Some(&empty));
    assert_eq!(fresh.databases[0].change, Change::New);
    let mut other = catalog(&file);
    let moved = other.databases.remove("d").unwrap();
    other.databases.insert("old".into(), moved);
    let plan = plan(&file, Some(&other));
    let changes: Vec<(&str, Change)> = plan
        .databases
        .iter()
        .map(|d| (d.name.as_str(), d.change))
        .collect();
    assert_eq!(changes, [("d", Change::New), ("old", Change::Gone)]);
}

#[test]
fn runs_are_written_as_ranges() {
    assert_eq!(ranges_of(&[]), "");
    assert_eq!(ranges_of(&[5]), "5");
    assert_eq!(ranges_of(&[0, 1, 2, 3, 17, 19, 20]), "0-3,17,19-20");
}

#[test]
fn it_prints_for_people() {
    let file = config(&[("s0", 1), ("s1", 3)], USERS);
    let bigger = config(&[("s0", 1), ("s1", 3), ("s2", 4)], USERS);
    let printed = plan(&bigger, Some(&catalog(&file))).to_string();
    for expected in [
        "database d, compared with epoch 7",
        "(new)",
        "-> 2048",
        "-> 8192",
        "from s1 to s2",
        "8192 buckets to move",
    ] {
        assert!(
            printed.contains(expected),
            "{expected} is not in\n{printed}"
        );
    }
    let alone = plan(&file, None).to_string();
    assert!(alone.contains("Nothing to compare with"), "{alone}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn moves_add_up(before in prop::collection::btree_map("s[0-9]", 1..4_u32, 1..6), after in prop::collection::btree_map("s[0-9]", 1..4_u32, 1..6)) {
        let shards = |shards: &std::collections::BTreeMap<String, u32>| {
            let shards: Vec<(&str, u32)> = shards.iter().map(|(name, weight)| (name.as_str(), *weight)).collect();
            config(&shards, USERS)
        };
        let plan = compare(&shards(&before), &shards(&after));
        for shard in &plan.shards {
            let sum = |of: &dyn Fn(&Move) -> bool| plan.moves.iter().filter(|m| of(m)).map(|m| m.count).sum::<usize>();
            let (gets, gives) = (sum(&|m| m.to == shard.name), sum(&|m| m.from == shard.name));
            prop_assert_eq!(shard.buckets_now.unwrap() + gets - gives, shard.buckets);
            prop_assert!(gets == 0 || gives == 0, "{} gets and gives", shard.name);
        }
    }
}
