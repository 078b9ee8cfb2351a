//! The harness itself: what it claims to see, it sees. Two plain servers stand in for oracle and router.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use switchyard_router::demo::shop::{self, Shop};
use switchyard_tests::cluster::{Cluster, ClusterSpec};
use switchyard_tests::differential::{self, Protocol, Sides};
use switchyard_tests::{Bed, BedSpec, Client, Login};

/// Two plain servers with the same tables and rows.
struct Twins(Cluster);

impl Twins {
    fn start() -> Twins {
        let twins = Twins(Cluster::start(ClusterSpec::for_tests(1, 0).with_oracle()).unwrap());
        twins.fill();
        twins
    }

    /// Makes and fills the tables anew.
    fn fill(&self) {
        let cluster = &self.0;
        for server in cluster.nodes() {
            let empty = "DROP SCHEMA public CASCADE; CREATE SCHEMA public";
            cluster.sql(server, empty).unwrap();
            cluster
                .load_whole(server, &Shop::SMALL.tables(), shop::DDL)
                .unwrap();
            cluster
                .sql(server, include_str!("../slt/tables.sql"))
                .unwrap();
        }
    }
}

impl Sides for Twins {
    fn oracle(&self) -> Client {
        Client::connect(&Login::new(self.0.oracle().unwrap().port()))
    }

    fn router(&self) -> Client {
        Client::connect(&Login::new(self.0.shard(0).primary.port()))
    }
}

fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("slt")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    files
}

/// Every file holds on PostgreSQL itself: what it says succeeds does, and the same statements have the same answers.
#[test]
fn the_files_of_statements_are_right() {
    let twins = Twins::start();
    for file in files() {
        // No file meets another's rows, as with the router's own tests.
        twins.fill();
        differential::run(&file, Protocol::Simple, &twins);
    }
}

/// A server that answers otherwise is caught, whatever the difference is.
#[test]
fn differences_are_seen() {
    let twins = Twins::start();
    let shard = twins.0.shard(0).primary.as_ref();
    let found = |sql: &str| -> String {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("one.slt");
        std::fs::write(&file, sql).unwrap();
        let caught = Mutex::new(String::new());
        let run = std::panic::AssertUnwindSafe(|| {
            differential::run(&file, Protocol::ExtendedText, &twins)
        });
        if let Err(panic) = std::panic::catch_unwind(run) {
            *caught.lock().unwrap_or_else(PoisonError::into_inner) =
                panic.downcast_ref::<String>().unwrap().clone();
        }
        caught.into_inner().unwrap()
    };
    let query = "query I rowsort\nSELECT * FROM notes";
    assert_eq!(found(query), "");
    assert!(found("statement error 42P01\nSELECT 1").contains("the oracle succeeds"));
    assert!(found("statement ok\nSELECT nothing").contains("42703"));

    let oracle = twins.0.oracle().unwrap();
    twins
        .0
        .sql(oracle, "INSERT INTO notes VALUES (1, 'y')")
        .unwrap();
    assert!(found(query).contains("tag differ"));
    twins
        .0
        .sql(shard, "INSERT INTO notes VALUES (1, 'x')")
        .unwrap();
    assert!(found(query).contains("rows differ"));
    twins.0.sql(oracle, "UPDATE notes SET body = 'x'").unwrap();
    assert_eq!(found(query), "");
    twins
        .0
        .sql(shard, "ALTER TABLE notes ALTER id TYPE bigint")
        .unwrap();
    assert!(found(query).contains("columns differ"));
    assert!(found("statement ok\nDELETE FROM countries WHERE code = 'xx'").is_empty());
    twins
        .0
        .sql(shard, "INSERT INTO countries VALUES ('xx', 'x', 'x')")
        .unwrap();
    assert!(found("statement ok\nDELETE FROM countries WHERE code = 'xx'").contains("tag differ"));
    twins
        .0
        .sql(
            shard,
            "ALTER TABLE regions ADD UNIQUE (code); INSERT INTO regions VALUES ('a')",
        )
        .unwrap();
    assert!(found("statement ok\nINSERT INTO regions VALUES ('a')").contains("failure differ"));
    assert!(found("statement ok\nINSERT INTO regions VALUES ('b')").is_empty());
}

/// The threads of routers that run in this process.
fn threads_of_routers() -> usize {
    let names = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = names.flat_map(|thread| std::fs::read_to_string(thread.path().join("comm")));
    names.filter(|name| name.starts_with("switchyard-")).count()
}

/// Routers run in a test's own process as well: several at a time, each by its own configuration, and nothing of them is left.
#[test]
fn routers_run_in_this_process() {
    let bed = Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 0)));
    let of_program = bed.client().run("SELECT sum(id) FROM users").value();
    let routers = ["max_clients = 1", "workers = 2"].map(|line| bed.router_in_process(line));
    let login = |router: &switchyard_router::process::Router| Login::new(router.address().port());
    let mut clients = routers
        .each_ref()
        .map(|router| Client::connect(&login(router)));
    for client in &mut clients {
        assert_eq!(client.run("SELECT sum(id) FROM users").value(), of_program);
    }
    let refused = Client::try_connect(&login(&routers[0])).unwrap_err();
    assert_eq!(refused.sqlstate(), "53300");
    Client::connect(&login(&routers[1])).terminate();
    assert!(threads_of_routers() >= 5);

    let ports = routers.each_ref().map(|router| router.address().port());
    drop(routers);
    for client in &mut clients {
        while client.try_receive().unwrap().is_some() {}
    }
    assert_eq!(threads_of_routers(), 0);
    for port in ports {
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    }
}

/// The raw client sees what the protocol says.
#[test]
fn the_client_sees_the_protocol() {
    let cluster = Cluster::start(ClusterSpec::for_tests(1, 0)).unwrap();
    let login = Login::new(cluster.shard(0).primary.port());
    let mut client = Client::connect(&login.clone().with("application_name", "tester"));
    assert_eq!(client.parameters["server_encoding"], "UTF8");
    assert_eq!(client.run("SHOW application_name").value(), "tester");
    assert_eq!(client.status, b'I');
    assert_eq!(client.run("BEGIN").tag.as_deref(), Some("BEGIN"));
    assert_eq!(client.status, b'T');
    assert_eq!(client.run("SELECT 1/0").sqlstate(), Some("22012"));
    assert_eq!(client.status, b'E');
    assert_eq!(client.run("ROLLBACK").tag.as_deref(), Some("ROLLBACK"));

    let reply = client
        .extended("SELECT $1::int4 + 1 AS n, NULL", &[Some("41")], 1)
        .succeeded();
    assert_eq!(reply.rows, [[Some(vec![0, 0, 0, 42]), None]]);
    let column = &reply.columns.unwrap()[0];
    assert_eq!(
        (column.name.as_str(), column.type_oid, column.format),
        ("n", 23, 1)
    );
    assert_eq!(
        client.parameter_types("SELECT $1::uuid, $2 + 1").unwrap(),
        [2950, 23]
    );

    client
        .run("CREATE TEMP TABLE c (a int, b text)")
        .succeeded();
    assert_eq!(
        client
            .copy_in("COPY c FROM STDIN", b"1\tone\n2\t\\N\n")
            .tag
            .as_deref(),
        Some("COPY 2")
    );
    assert_eq!(client.run("COPY c TO STDOUT").copied, b"1\tone\n2\t\\N\n");
    assert_eq!(client.simple("SELECT 1; SELECT 2").len(), 2);
    assert!(client.run("").empty);

    let mut victim = Client::connect(&login);
    let canceller = (victim.key.clone(), login.port);
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| victim.run("SELECT pg_sleep(30)"));
        switchyard_tests::eventually("it sleeps", || {
            client
                .run("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
                .value()
                == "1"
        });
        Client::cancel(&canceller.0, canceller.1);
        assert_eq!(sleeper.join().unwrap().sqlstate(), Some("57014"));
    });
    let wrong = Login {
        password: "wrong".to_owned(),
        ..login
    };
    assert_eq!(Client::try_connect(&wrong).unwrap_err().sqlstate(), "28P01");
}
