//! The control thread on real servers: relations, the catalog, drift.

#![allow(clippy::unwrap_used, reason = "test code fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchyard_catalog::{Catalog, Credentials};
use switchyard_cluster::{Cluster, ClusterSpec, RouterFile, Stop};
use switchyard_router::config::{Environment, Settings};
use switchyard_router::control::{CatalogStatus, Control, ControlHandle, RefreshCause, Status};
use switchyard_router::topology::{DatabaseTopology, Observed, Published};
use switchyard_schema::BucketMap;
use switchyard_tests::{Bed, BedSpec, Client, eventually, until};

const TABLES: &str = r#"
[[databases.tables]]
name = "users"
shard_key = "id"
method = "hash"
"#;

struct NoVariables;

impl Environment for NoVariables {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

/// On which shard, by its number, a row that the client inserts through the router arrives.
fn shard_of_new_row(bed: &Bed, client: &mut Client, id: usize) -> usize {
    let insert =
        format!("INSERT INTO users VALUES ({id}, 'a', 'b', 'kr') RETURNING inet_server_port()");
    let port = client.run(&insert).succeeded().value();
    let mut shards = bed.cluster().shards().iter();
    shards
        .position(|shard| shard.primary.port().to_string() == port)
        .unwrap()
}

fn settings(cluster: &Cluster, tables: &str) -> Settings {
    let text = cluster.router_file(&RouterFile {
        listen: 6432,
        http: 6433,
        auth: "trust",
        router: "",
        tables,
    });
    Settings::parse(&text, Path::new("switchyard.toml"), &NoVariables).unwrap()
}

/// A control thread that is polled by the test's runtime.
struct Running {
    published: Published,
    status: Arc<Status>,
    handle: ControlHandle,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(cluster: &Cluster) -> Self {
        let (mut control, handle) = Control::new(Arc::new(settings(cluster, TABLES)));
        control.prepare().await.unwrap();
        Self {
            published: control.published().clone(),
            status: Arc::clone(control.status()),
            handle,
            task: tokio::spawn(control.run()),
        }
    }

    fn shop(&self) -> Arc<DatabaseTopology> {
        Arc::clone(self.published.snapshot().database("shop").unwrap())
    }

    fn knows(&self, table: &str) -> bool {
        self.shop().relations.get("public", table).is_some()
    }

    async fn refresh(&self, cause: RefreshCause) {
        self.handle.refresh(&"shop".into(), cause).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn on_primaries(cluster: &Cluster, sql: &str) {
    for shard in cluster.shards() {
        cluster.sql(shard.primary.as_ref(), sql).unwrap();
    }
}

fn catalog_credentials(cluster: &Cluster) -> Credentials {
    let settings = settings(cluster, TABLES);
    let password = settings
        .catalog_password
        .as_ref()
        .map(|password| password.reveal().to_owned());
    Credentials::new(settings.file.catalog.as_ref().unwrap(), password.as_deref())
}

#[tokio::test]
async fn relations_are_read_at_start_after_ddl_and_when_they_drift() {
    let cluster = Cluster::start(ClusterSpec::for_tests(2, 0)).unwrap();
    on_primaries(&cluster, "CREATE TABLE users (id int8 PRIMARY KEY)");
    let running = Running::start(&cluster).await;
    assert!(running.status.is_ready());
    assert!(running.knows("users"));
    assert!(running.shop().relations.problems().is_empty());

    on_primaries(&cluster, "CREATE TABLE made_by_us (n int)");
    running.refresh(RefreshCause::Ddl).await;
    assert!(running.knows("made_by_us"));

    on_primaries(&cluster, "CREATE TABLE made_by_others (n int)");
    let seen = until("drift is noticed", || running.knows("made_by_others")).await;
    assert!(seen < Duration::from_secs(3), "{seen:?}");

    // Nothing changes, so nothing is published.
    let generation = running.published.snapshot().generation;
    running.refresh(RefreshCause::Ddl).await;
    assert_eq!(running.published.snapshot().generation, generation);
}

#[tokio::test]
async fn unknown_names_are_looked_for_at_most_once_a_second() {
    let cluster = Cluster::start(ClusterSpec::for_tests(1, 0)).unwrap();
    on_primaries(&cluster, "CREATE TABLE users (id int8 PRIMARY KEY)");
    let running = Running::start(&cluster).await;
    let began = Instant::now();
    for _ in 0..200 {
        running.refresh(RefreshCause::UnknownName).await;
    }
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn many_requests_are_one_read() {
    let cluster = Cluster::start(ClusterSpec::for_tests(1, 0)).unwrap();
    on_primaries(&cluster, "CREATE TABLE users (id int8 PRIMARY KEY)");
    let running = Arc::new(Running::start(&cluster).await);
    let began = Instant::now();
    let requests: Vec<_> = (0..1000)
        .map(|_| {
            let running = Arc::clone(&running);
            tokio::spawn(async move { running.refresh(RefreshCause::Ddl).await })
        })
        .collect();
    for request in requests {
        request.await.unwrap();
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_server_away_at_start_is_read_when_it_comes() {
    let cluster = Cluster::start(ClusterSpec::for_tests(1, 0)).unwrap();
    on_primaries(&cluster, "CREATE TABLE users (id int8 PRIMARY KEY)");
    let node = cluster.shard(0).primary.as_ref();
    node.stop(Stop::Fast).unwrap();
    let running = Running::start(&cluster).await;
    assert!(!running.status.is_ready());
    assert_eq!(
        running.shop().shards[0].primary().observed(),
        Observed::Down
    );
    node.start().unwrap();
    until("relations are read", || running.knows("users")).await;
    assert!(running.status.is_ready());
}

#[tokio::test]
async fn the_catalog_is_in_force_and_followed_and_its_absence_survived() {
    let cluster = Cluster::start(ClusterSpec::for_tests(2, 0).with_catalog()).unwrap();
    on_primaries(&cluster, "CREATE TABLE users (id int8 PRIMARY KEY)");
    let running = Running::start(&cluster).await;
    assert_eq!(running.shop().epoch, 1);

    let catalog = Catalog::connect(&catalog_credentials(&cluster))
        .await
        .unwrap();
    let everything_on_s1 = BucketMap::place(&[("s0", 0), ("s1", 1)]);
    let began = Instant::now();
    catalog.advance("shop", 1, &everything_on_s1).await.unwrap();
    until("the new map is in force", || running.shop().epoch == 2).await;
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    let shop = running.shop();
    assert_eq!(*shop.buckets, everything_on_s1);
    let users = shop.relations.get("public", "users").unwrap();
    let shards = users.sharding().unwrap().map.shards();
    assert_eq!(shards.only().map(|shard| shard.0), Some(1));

    // An epoch that goes back, as after restoring a backup, is not believed.
    let node = cluster.catalog().unwrap();
    let sql = |sql: &str| cluster.superuser_sql(node, "switchyard", sql).unwrap();
    sql("UPDATE switchyard.bucket_maps SET epoch = 1");
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(running.shop().epoch, 2);
    sql("UPDATE switchyard.bucket_maps SET epoch = 3");
    until("the next map is in force", || running.shop().epoch == 3).await;

    node.stop(Stop::Fast).unwrap();
    until("the absence is noticed", || {
        running.status.catalog() == CatalogStatus::Down
    })
    .await;
    running.refresh(RefreshCause::Ddl).await;
    assert!(running.knows("users"));
    assert_eq!(running.shop().epoch, 3);
    node.start().unwrap();
    until("the catalog is back", || {
        running.status.catalog() == CatalogStatus::Up
    })
    .await;
}

#[test]
fn clients_are_served_without_the_catalog_and_by_its_new_map_once_it_is_back() {
    let bed = Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 0).with_catalog()));
    let node = bed.cluster().catalog().unwrap();
    let mut client = bed.client();
    let mut ids = 1000..;
    let mut shards_of = |client: &mut Client| {
        let mut shards: Vec<usize> = (&mut ids)
            .take(16)
            .map(|id| shard_of_new_row(&bed, client, id))
            .collect();
        shards.sort_unstable();
        shards.dedup();
        shards
    };
    let catalog_is = |what: &str| {
        let (_, page) = bed.router().get("/metrics").unwrap();
        page.lines()
            .any(|line| line == format!("switchyard_catalog_up {what}"))
    };
    assert_eq!(shards_of(&mut client), [0, 1]);
    for how in [Stop::Kill, Stop::Fast] {
        node.stop(how).unwrap();
        eventually("the router has noticed", || catalog_is("0.0"));
        for client in [&mut client, &mut bed.client()] {
            assert_eq!(shards_of(client), [0, 1]);
            let users = "SELECT count(*) FROM users WHERE id = $1";
            for id in 1..=20 {
                let reply = client.extended(users, &[Some(&id.to_string())], 0);
                assert_eq!(reply.succeeded().value(), "1");
            }
            let all = client
                .run("SELECT id FROM users WHERE id <= 300")
                .succeeded();
            assert_eq!(all.rows.len(), 300);
        }
        node.start().unwrap();
    }

    // Changed as soon as it is back: the router may not yet have found it again.
    let map = BucketMap::place(&[("s0", 0), ("s1", 1)]);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let changed = runtime.enable_all().build().unwrap().block_on(async {
        let credentials = catalog_credentials(bed.cluster());
        let catalog = Catalog::connect(&credentials).await.unwrap();
        catalog.advance("shop", 1, &map).await.unwrap();
        Instant::now()
    });
    eventually("new rows go by the new map", || {
        shards_of(&mut client) == [1]
    });
    let took = changed.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(shards_of(&mut bed.client()), [1]);
}

#[tokio::test]
async fn without_its_catalog_a_router_does_not_start() {
    let cluster = Cluster::start(ClusterSpec::for_tests(1, 0).with_catalog()).unwrap();
    cluster.catalog().unwrap().stop(Stop::Fast).unwrap();
    let (mut control, _handle) = Control::new(Arc::new(settings(&cluster, TABLES)));
    let began = Instant::now();
    let error = control.prepare().await.unwrap_err();
    assert!(error.to_string().contains("catalog"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_reload_keeps_what_stays() {
    let cluster = Cluster::start(ClusterSpec::for_tests(2, 0)).unwrap();
    on_primaries(&cluster, "CREATE TABLE users (id int8 PRIMARY KEY)");
    let running = Running::start(&cluster).await;
    let before = running.shop();
    let reference = "\n[[databases.tables]]\nname = \"users\"\nmethod = \"reference\"\n";
    running
        .handle
        .reload(Arc::new(settings(&cluster, reference)))
        .await;
    let after = running.shop();
    assert!(
        after
            .relations
            .get("public", "users")
            .unwrap()
            .sharding()
            .is_none()
    );
    for (before, after) in before.shards.iter().zip(&after.shards) {
        assert_eq!(before.primary().id, after.primary().id);
        assert_eq!(after.primary().observed(), Observed::Primary);
    }
}
