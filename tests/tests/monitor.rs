//! The monitor on real servers: health, roles, and what replicas have replayed.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code fails by panicking"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchyard_cluster::{Cluster, ClusterSpec, Stop};
use switchyard_router::config::{Password, Rights, User};
use switchyard_router::topology::builder::{Builder, DatabaseState};
use switchyard_router::topology::link::{Link, Visitor};
use switchyard_router::topology::monitor::Monitor;
use switchyard_router::topology::{
    Consistency, Node, Observed, ReadFloor, ReadPolicy, Role, Shard, Topology, loader,
};
use switchyard_schema::{Database, NodeTls, SslMode};
use switchyard_tests::until;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

struct Watched {
    cluster: Cluster,
    topology: Topology,
    visitor: Visitor,
    _monitor: Monitor,
}

impl Watched {
    async fn start(shards: usize, replicas: usize) -> Self {
        let cluster = Cluster::start(ClusterSpec::for_tests(shards, replicas)).unwrap();
        let node = |node: &dyn switchyard_cluster::Node, role| switchyard_schema::Node {
            host: node.host().to_owned(),
            port: node.port(),
            role,
            zone: None,
            dbname: None,
            tls: NodeTls {
                mode: SslMode::Disable,
                root_cert: None,
            },
        };
        let shard = |shard: &switchyard_cluster::Shard| {
            let replicas = shard.replicas.iter();
            let replicas = replicas.map(|replica| node(replica.as_ref(), Role::Replica));
            switchyard_schema::Shard {
                name: shard.name.clone(),
                weight: 1,
                nodes: std::iter::once(node(shard.primary.as_ref(), Role::Primary))
                    .chain(replicas)
                    .collect(),
            }
        };
        let database = Database {
            name: cluster.spec().database.clone(),
            shards: cluster.shards().iter().map(shard).collect(),
            tables: Vec::new(),
        };
        let topology = Builder::default().build([&DatabaseState::configured(Arc::new(database))]);
        let user = User {
            name: switchyard_cluster::APP_USER.into(),
            password: Some(Password::new(&cluster.spec().password)),
            proven: Arc::default(),
            rights: Rights::All,
        };
        let visitor = Visitor::new(&user, Duration::from_secs(2), Duration::from_millis(500));
        let mut monitor = Monitor::default();
        monitor.watch(&topology, &visitor, Duration::from_millis(250));
        let watched = Self {
            cluster,
            topology,
            visitor,
            _monitor: monitor,
        };
        for shard in watched.shards() {
            for node in &shard.nodes {
                let expected = match node.role {
                    Role::Primary => Observed::Primary,
                    Role::Replica => Observed::Standby,
                };
                until("every node is what it is configured to be", || {
                    node.observed() == expected
                })
                .await;
            }
        }
        watched
    }

    fn shards(&self) -> &[Arc<Shard>] {
        &self.topology.databases.values().next().unwrap().shards
    }

    fn shard(&self) -> &Shard {
        &self.shards()[0]
    }

    fn replica(&self) -> &Arc<Node> {
        self.shard().replicas().next().unwrap()
    }

    fn serves(&self, floor: &ReadFloor) -> Role {
        let consistency = Consistency::Session;
        let choice = self.shard().reader(
            ReadPolicy::RoundRobin,
            consistency,
            floor,
            CLIENT,
            &mut None,
        );
        choice.unwrap().node.role
    }

    fn after_write(&self) -> ReadFloor {
        let mut floor = ReadFloor::default();
        self.shard().after_write(&mut floor);
        floor
    }
}

#[tokio::test]
async fn a_replica_serves_a_session_again_soon_after_its_write() {
    let watched = Watched::start(1, 1).await;
    let primary = watched.cluster.shard(0).primary.as_ref();
    watched
        .cluster
        .sql(primary, "CREATE TABLE t (n int)")
        .unwrap();
    assert_eq!(watched.serves(&ReadFloor::default()), Role::Replica);
    let mut waits = Vec::new();
    for n in 0..20 {
        watched
            .cluster
            .sql(primary, &format!("INSERT INTO t VALUES ({n})"))
            .unwrap();
        let floor = watched.after_write();
        assert_eq!(watched.serves(&floor), Role::Primary);
        waits.push(
            until("the replica serves", || {
                watched.serves(&floor) == Role::Replica
            })
            .await,
        );
        let replica = watched.cluster.shard(0).replicas[0].as_ref();
        let count = watched
            .cluster
            .sql(replica, "SELECT count(*) FROM t")
            .unwrap();
        assert_eq!(count.trim(), (n + 1).to_string());
    }
    waits.sort();
    println!("waits: {waits:?}");
    assert!(waits[10] < Duration::from_millis(250), "{waits:?}");
}

#[tokio::test]
async fn a_replica_held_back_serves_only_those_who_did_not_write() {
    let watched = Watched::start(1, 1).await;
    let replica = watched.cluster.shard(0).replicas[0].as_ref();
    replica
        .configure(&[("recovery_min_apply_delay", Some("1min"))])
        .unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let primary = watched.cluster.shard(0).primary.as_ref();
    watched
        .cluster
        .sql(primary, "CREATE TABLE t (n int)")
        .unwrap();
    let floor = watched.after_write();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        assert_eq!(watched.serves(&floor), Role::Primary);
        assert_eq!(watched.serves(&ReadFloor::default()), Role::Replica);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        watched.replica().lag() >= Duration::from_secs(1),
        "{:?}",
        watched.replica().lag()
    );
    replica
        .configure(&[("recovery_min_apply_delay", None)])
        .unwrap();
    until("the replica serves", || {
        watched.serves(&floor) == Role::Replica
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_dies_is_left_out_and_comes_back() {
    let watched = Watched::start(1, 1).await;
    let replica = watched.cluster.shard(0).replicas[0].as_ref();
    let incarnation = watched.replica().incarnation();
    replica.stop(Stop::Kill).unwrap();
    let noticed = until("the death is noticed", || {
        watched.replica().observed() == Observed::Down
    })
    .await;
    assert!(noticed < Duration::from_millis(600), "{noticed:?}");
    assert_eq!(watched.serves(&ReadFloor::default()), Role::Primary);
    let floor = watched.after_write();
    replica.start().unwrap();
    until("the replica serves", || {
        watched.serves(&ReadFloor::default()) == Role::Replica
    })
    .await;
    assert!(watched.replica().incarnation() > incarnation);
    until("the replica catches up", || {
        watched.serves(&floor) == Role::Replica
    })
    .await;
}

#[tokio::test]
async fn a_failure_reported_by_mistake_is_corrected_at_once() {
    let watched = Watched::start(1, 1).await;
    let primary = watched.shard().primary();
    primary.report_failure();
    assert_eq!(
        watched.shard().writer().unwrap_err().to_string(),
        "shard \"s0\" is unavailable: its primary does not answer"
    );
    let corrected = until("the primary is back", || watched.shard().writer().is_ok()).await;
    assert!(corrected < Duration::from_millis(100), "{corrected:?}");
}

#[tokio::test]
async fn a_frozen_primary_is_down_within_a_second_and_the_other_shard_is_not() {
    let watched = Watched::start(2, 0).await;
    let frozen = watched.cluster.shard(1).primary.as_ref();
    frozen.pause().unwrap();
    let noticed = until("the freeze is noticed", || {
        watched.shards()[1].writer().is_err()
    })
    .await;
    assert!(noticed < Duration::from_secs(1), "{noticed:?}");
    assert!(watched.shards()[0].writer().is_ok());
    frozen.resume().unwrap();
    until("the primary is back", || {
        watched.shards()[1].writer().is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_promoted_replica_is_no_replica() {
    let watched = Watched::start(1, 1).await;
    watched.cluster.shard(0).replicas[0].promote().unwrap();
    until("the promotion is noticed", || {
        watched.replica().observed() == Observed::Primary
    })
    .await;
    assert_eq!(watched.serves(&ReadFloor::default()), Role::Primary);
}

#[tokio::test]
async fn connections_settle_fast() {
    let watched = Watched::start(1, 1).await;
    for _ in 0..20 {
        let began = Instant::now();
        let settled = watched.replica().settle(Duration::from_millis(200)).await;
        assert_eq!(settled, Some(watched.replica().incarnation()));
        assert!(
            began.elapsed() < Duration::from_millis(100),
            "{:?}",
            began.elapsed()
        );
    }
}

#[tokio::test]
async fn the_catalogue_is_read_and_its_version_changes_with_it() {
    let watched = Watched::start(1, 0).await;
    let primary = watched.cluster.shard(0).primary.as_ref();
    let sql = |sql: &str| watched.cluster.sql(primary, sql).unwrap();
    sql("CREATE TABLE t (n int PRIMARY KEY, s text DEFAULT 'x'); CREATE VIEW v AS SELECT * FROM t");
    let mut link = Link::open(&watched.visitor, watched.shard().primary(), "shop")
        .await
        .unwrap();
    let found = loader::introspect(&mut link).await.unwrap();
    assert!(found.relations.iter().any(|relation| relation.name == "v"));
    assert!(
        found
            .columns
            .iter()
            .any(|column| column.name == "s" && column.default.is_some())
    );
    assert!(found.functions.len() > 1000);
    let mut before = loader::fingerprint(&mut link).await.unwrap();
    for quiet in [
        "INSERT INTO t VALUES (1)",
        "ANALYZE t",
        "TRUNCATE t",
        "CREATE TEMP TABLE tt (n int)",
    ] {
        sql(quiet);
        assert_eq!(
            loader::fingerprint(&mut link).await.unwrap(),
            before,
            "{quiet}"
        );
    }
    for change in [
        "ALTER TABLE t ADD COLUMN m int",
        "ALTER TABLE t ALTER COLUMN s SET DEFAULT 'y'",
        "CREATE OR REPLACE VIEW v AS SELECT * FROM t WHERE n > 0",
        "CREATE UNIQUE INDEX ON t (m)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER FUNCTION f() IMMUTABLE",
        "CREATE SCHEMA x",
        "DROP VIEW v",
    ] {
        sql(change);
        let after = loader::fingerprint(&mut link).await.unwrap();
        assert_ne!(after, before, "{change}");
        before = after;
    }
}
