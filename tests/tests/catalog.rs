//! The catalog on a real server: many programs at once, compare-and-swap, following, being away.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code fails by panicking"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use switchyard_catalog::{Catalog, Credentials, Error, Link, Recorded, RouterId, Step};
use switchyard_cluster::{Cluster, ClusterSpec, Stop};
use switchyard_schema::{
    BucketMap, Database, Distribution, Literal, LiteralForm, Method, Node, NodeTls, RangeEntry,
    Role, Shard, ShardIndex, ShardKey, SslMode, Table, TableName,
};

fn cluster() -> Cluster {
    Cluster::start(ClusterSpec::for_tests(0, 0).with_catalog()).unwrap()
}

fn credentials(cluster: &Cluster) -> Credentials {
    let node = cluster.catalog().unwrap();
    let catalog = switchyard_schema::Catalog {
        host: node.host().to_owned(),
        port: node.port(),
        user: "switchyard".into(),
        database: "switchyard".into(),
        password: None,
        tls: NodeTls {
            mode: SslMode::Disable,
            root_cert: None,
        },
    };
    Credentials::new(&catalog, Some(&cluster.spec().password))
}

fn database() -> Database {
    let node = |port, role| Node {
        host: "10.0.0.1".into(),
        port,
        role,
        zone: Some("a".into()),
        dbname: None,
        tls: NodeTls {
            mode: SslMode::VerifyCa,
            root_cert: Some(Path::new("/ca.pem").into()),
        },
    };
    let shard = |name: &str, port, weight| Shard {
        name: name.into(),
        weight,
        nodes: vec![node(port, Role::Primary), node(port + 1, Role::Replica)],
    };
    let sharded = |column: &str, method, colocate_with| {
        Distribution::Sharded(ShardKey {
            column: column.into(),
            method,
            colocate_with,
        })
    };
    let boundary = Literal {
        text: "2026-01-01".into(),
        form: LiteralForm::String,
    };
    let ranges = Method::Range(vec![
        RangeEntry {
            below: Some(boundary),
            shard: ShardIndex(1),
        },
        RangeEntry {
            below: None,
            shard: ShardIndex(0),
        },
    ]);
    let table = |name: &str, distribution| Table {
        name: TableName::new("public", name),
        distribution,
    };
    Database {
        name: "shop".into(),
        shards: vec![shard("s0", 10, 1), shard("s1", 20, 3)],
        tables: vec![
            table("countries", Distribution::Reference),
            table("events", sharded("at", ranges, None)),
            table(
                "orders",
                sharded(
                    "user_id",
                    Method::Hash,
                    Some(TableName::new("public", "users")),
                ),
            ),
            table("users", sharded("id", Method::Hash, None)),
        ],
    }
}

#[tokio::test]
async fn many_programs_start_at_once_and_one_fills_it() {
    let cluster = cluster();
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let credentials = credentials(&cluster);
            tokio::spawn(async move {
                let catalog = Catalog::connect(&credentials).await.unwrap();
                catalog.initialise(&[database()]).await.unwrap()
            })
        })
        .collect();
    let mut filled = 0;
    for start in starts {
        filled += usize::from(start.await.unwrap());
    }
    assert_eq!(filled, 1);
    let catalog = Catalog::connect(&credentials(&cluster)).await.unwrap();
    let snapshot = catalog.read().await.unwrap();
    let shop = &snapshot.databases["shop"];
    assert_eq!(*shop.database, database());
    assert_eq!(*shop.buckets, BucketMap::place(&database().weights()));
    assert_eq!(shop.epoch, 1);
}

#[tokio::test]
async fn a_map_changes_by_compare_and_swap_only() {
    let cluster = cluster();
    let catalog = Catalog::connect(&credentials(&cluster)).await.unwrap();
    catalog.initialise(&[database()]).await.unwrap();
    let other = BucketMap::place(&[("s0", 1), ("s1", 0)]);
    assert_eq!(catalog.advance("shop", 2, &other).await.unwrap(), None);
    assert_eq!(catalog.advance("shop", 1, &other).await.unwrap(), Some(2));
    assert_eq!(catalog.advance("shop", 1, &other).await.unwrap(), None);
    assert_eq!(catalog.advance("nosuch", 1, &other).await.unwrap(), None);
    let shop = &catalog.read().await.unwrap().databases["shop"];
    assert_eq!((shop.epoch, &*shop.buckets), (2, &other));
}

#[tokio::test]
async fn changes_are_followed_and_an_absence_survived() {
    let cluster = cluster();
    let credentials = credentials(&cluster);
    let catalog = Catalog::connect(&credentials).await.unwrap();
    catalog.initialise(&[database()]).await.unwrap();
    let first = catalog.read().await.unwrap();
    let router = RouterId(17);
    catalog.register(router).await.unwrap();
    let (mut follower, following) = catalog.clone().follow(credentials.clone(), first, router);
    let following = tokio::spawn(following);

    let other = BucketMap::place(&[("s0", 1), ("s1", 0)]);
    for epoch in 1..5 {
        let began = Instant::now();
        catalog.advance("shop", epoch, &other).await.unwrap();
        follower.snapshots.changed().await.unwrap();
        assert_eq!(
            follower.snapshots.borrow_and_update().databases["shop"].epoch,
            epoch + 1
        );
        assert!(
            began.elapsed() < Duration::from_millis(300),
            "{:?}",
            began.elapsed()
        );
    }

    let node = cluster.catalog().unwrap();
    node.stop(Stop::Immediate).unwrap();
    follower
        .link
        .wait_for(|link| *link == Link::Down)
        .await
        .unwrap();
    assert_eq!(follower.snapshots.borrow().databases["shop"].epoch, 5);
    node.start().unwrap();
    follower
        .link
        .wait_for(|link| *link == Link::Up)
        .await
        .unwrap();
    catalog.advance("shop", 5, &other).await.unwrap();
    let caught_up = follower
        .snapshots
        .wait_for(|snapshot| snapshot.databases["shop"].epoch == 6);
    tokio::time::timeout(Duration::from_secs(1), caught_up)
        .await
        .unwrap()
        .unwrap();
    following.abort();
}

#[tokio::test]
async fn a_newer_catalog_is_refused() {
    let cluster = cluster();
    let credentials = credentials(&cluster);
    Catalog::connect(&credentials).await.unwrap();
    let sql = "INSERT INTO switchyard.migrations (version, name) VALUES (99, 'future')";
    cluster
        .superuser_sql(cluster.catalog().unwrap(), "switchyard", sql)
        .unwrap();
    let error = Catalog::connect(&credentials).await.unwrap_err();
    assert!(matches!(error, Error::Newer { found: 99, .. }), "{error}");
}

#[tokio::test]
async fn damage_is_an_error_not_a_guess() {
    let cluster = cluster();
    let catalog = Catalog::connect(&credentials(&cluster)).await.unwrap();
    catalog.initialise(&[database()]).await.unwrap();
    let node = cluster.catalog().unwrap();
    for damage in [
        "UPDATE switchyard.nodes SET role = 'replica' WHERE shard = 1",
        "UPDATE switchyard.tables SET placement = '[]' WHERE name = 'events'",
        "DELETE FROM switchyard.bucket_maps",
    ] {
        cluster.superuser_sql(node, "switchyard", damage).unwrap();
        let error = catalog.read().await.unwrap_err();
        assert!(matches!(error, Error::Damaged(_)), "{damage}: {error}");
    }
}

/// A catalog as the third version had it, in which buckets move.
const THIRD: [&str; 3] = [
    include_str!("../../catalog/migrations/0001_initial.sql"),
    include_str!("../../catalog/migrations/0002_decisions.sql"),
    include_str!("../../catalog/migrations/0003_movements.sql"),
];
const MOVING: &str = "
CREATE TABLE switchyard.migrations (version int4 PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
INSERT INTO switchyard.migrations (version, name) VALUES (1, 'initial'), (2, 'decisions'), (3, 'movements');
INSERT INTO switchyard.databases VALUES ('shop');
INSERT INTO switchyard.shards VALUES ('shop', 0, 's0', 1), ('shop', 1, 's1', 0);
INSERT INTO switchyard.nodes VALUES ('shop', 0, 0, 'a', 1, 'primary', NULL, 'disable', NULL), ('shop', 1, 0, 'b', 1, 'primary', NULL, 'disable', NULL);
INSERT INTO switchyard.tables VALUES ('shop', 'public', 'parts', 'modulo', 'id', NULL, NULL, '[0, 1]');
INSERT INTO switchyard.bucket_maps VALUES ('shop', 7, decode(repeat('0000', 16384), 'hex'));
INSERT INTO switchyard.movements VALUES ('shop', decode(repeat('0001', 16384), 'hex'), decode(repeat('0000', 16384), 'hex'), true, true);
";

/// A movement that a former version has begun is known to the next, and the tables that it is not about stay where they are.
#[tokio::test]
async fn a_former_version_is_brought_up_to_date() {
    let cluster = cluster();
    let node = cluster.catalog().unwrap();
    let third = format!(
        "SET ROLE switchyard; CREATE SCHEMA switchyard; {} {MOVING}",
        THIRD.concat()
    );
    cluster.superuser_sql(node, "switchyard", &third).unwrap();
    let catalog = Catalog::connect(&credentials(&cluster)).await.unwrap();
    assert!(catalog.is_migrated().await.unwrap());
    let known = catalog
        .read()
        .await
        .unwrap()
        .databases
        .remove("shop")
        .unwrap();
    let movement = catalog.movement("shop", 2).await.unwrap().unwrap();
    assert!(movement.paused && movement.former.methods.is_empty());
    let here = BucketMap::place(&[("s0", 1), ("s1", 0)]);
    assert_eq!(movement.target.buckets, here);
    assert_eq!(known.layout().buckets, here);

    let mut lease = catalog.lease("shop").await.unwrap().unwrap();
    let mut target = known.layout();
    let parts = TableName::new("public", "parts");
    let there = Method::Modulo(vec![ShardIndex(1)]);
    target.methods.insert(parts.clone(), there.clone());
    let ways = (&known.layout(), &target);
    lease.record(ways, false).await.unwrap();
    let movement = lease.movement(2).await.unwrap().unwrap();
    assert_eq!(movement.former, known.layout());
    assert_eq!(movement.target, target);
    let step = Step::Layout(&target);
    let taken = lease.take(&known, step, "gid").await.unwrap();
    assert_eq!(taken, Recorded::Done);
    // What it was made for is no more.
    let taken = lease.take(&known, step, "another").await.unwrap();
    assert_eq!(taken, Recorded::Outdated);
    let snapshot = catalog.read().await.unwrap();
    let now = &snapshot.databases["shop"];
    assert_eq!((now.epoch, now.layout()), (8, target));
}
