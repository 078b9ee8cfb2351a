use std::collections::BTreeMap;

use std::sync::Arc;

use switchyard_catalog::Layout;
use switchyard_cluster::{Cluster, RouterFile};
use switchyard_router::config::ProcessEnvironment;
use switchyard_router::topology::link::Visitor;
use switchyard_schema::{BucketMap, Shard, ShardIndex};

use super::*;

const TABLES: &str = "\n[[databases.tables]]\nname = 't'\nmethod = 'reference'\n";

fn settings(cluster: &Cluster) -> Settings {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shop.toml");
    let text = cluster.router_file(&RouterFile {
        listen: 1,
        http: 2,
        auth: "scram-sha-256",
        router: "",
        tables: TABLES,
    });
    std::fs::write(&file, text).unwrap();
    Settings::load(&file, &ProcessEnvironment).unwrap()
}

/// A session of the first shard's primary.
pub(super) async fn server(cluster: &Cluster) -> Server {
    let settings = settings(cluster);
    let state = DatabaseState::configured(Arc::new(settings.file.databases[0].clone()));
    let servers = servers::connect(&settings, &state, Some(&[0]), PATIENCE).await;
    servers.unwrap().remove(0)
}

/// Sessions that look after all nodes of the first shard.
pub(super) async fn visits(cluster: &Cluster) -> Vec<visit::Visit> {
    let settings = settings(cluster);
    let server = server(cluster).await;
    let user = settings.monitor_user().unwrap();
    let visitor = Visitor::new(user, Duration::from_secs(5), Duration::from_secs(5));
    let visitor = Arc::new(visitor);
    let nodes = server.nodes.iter();
    nodes
        .map(|node| visit::Visit::new(&server, node, &visitor, "shop"))
        .collect()
}

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

fn layout_of(shards: &[(&str, u32)]) -> Layout {
    Layout {
        buckets: BucketMap::place(shards),
        methods: BTreeMap::new(),
    }
}

#[test]
fn a_new_shard_gets_its_share_and_nothing_else_moves() {
    let before = layout_of(&[("a", 1), ("b", 1)]);
    let known = database(&[("a", 1), ("b", 1), ("c", 0)]);
    let after = layout::target(&before, &known, &database(&[("c", 1), ("a", 1), ("b", 1)]));
    let counts = after.buckets.counts(3);
    assert!(
        counts.iter().all(|count| (5461..=5462).contains(count)),
        "{counts:?}"
    );
    let shifts = before.buckets.shifts(&after.buckets);
    assert!(
        shifts.iter().all(|shift| shift.to == ShardIndex(2)),
        "{shifts:?}"
    );
    assert_eq!(before.differing(&after), (counts[2], 0));
}

#[test]
fn a_shard_that_is_not_in_the_file_gets_nothing() {
    let known = database(&[("a", 1), ("b", 1), ("c", 1)]);
    let before = layout_of(&[("a", 1), ("b", 1), ("c", 1)]);
    let after = layout::target(&before, &known, &database(&[("a", 1), ("b", 1)]));
    assert_eq!(after.buckets.counts(3)[2], 0);
}

#[test]
fn the_same_shards_keep_what_they_have() {
    let before = layout_of(&[("a", 1), ("b", 1)]);
    let known = database(&[("a", 1), ("b", 1)]);
    assert_eq!(layout::target(&before, &known, &known), before);
}

/// Shards are told by name: the file may have them in another order.
#[test]
fn methods_are_those_of_the_file_in_the_numbers_of_the_catalog() {
    let file = |shards: &str, method: &str| {
        let text = format!(
            "users = [{{ name = 'u', password = 'p' }}]\n[[databases]]\nname = 'd'\nshards = [{shards}]
             tables = [{{ name = 't', shard_key = 'k', method = 'modulo', {method} }}]"
        );
        let config = switchyard_schema::Config::parse(&text).unwrap();
        config.databases[0].clone()
    };
    let shard =
        |name| format!("{{ name = '{name}', nodes = [{{ host = '{name}', role = 'primary' }}] }}");
    let known = file(&[shard("a"), shard("b")].join(","), "shards = ['a', 'b']");
    let desired = file(
        &[shard("b"), shard("a")].join(","),
        "shards = ['b', 'b', 'a']",
    );
    let table = switchyard_schema::TableName::new("public", "t");
    let modulo = |shards: &[u16]| {
        let shards = shards.iter().copied().map(ShardIndex).collect();
        BTreeMap::from([(table.clone(), switchyard_schema::Method::Modulo(shards))])
    };
    let before = Layout {
        methods: modulo(&[0, 1]),
        ..layout_of(&[("a", 1), ("b", 1)])
    };
    let after = layout::target(&before, &known, &desired);
    assert_eq!(after.methods, modulo(&[1, 1, 0]));
}
