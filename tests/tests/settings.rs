//! Settings of the configuration file that no other test is about: what each says is what happens.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code fails by panicking"
)]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use postgres_protocol::message::frontend;
use switchyard_tests::cluster::{Cluster, ClusterSpec, RouterFile};
use switchyard_tests::{
    Bed, BedSpec, Client, Failure, Login, Mode, Proxy, Reply, Router, RouterPorts, bind, eventually,
};

static BED: OnceLock<Bed> = OnceLock::new();

fn bed() -> &'static Bed {
    BED.get_or_init(|| Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 0))))
}

fn router(lines: &str) -> Router {
    bed().another_router(lines, &|node| node.port())
}

fn client(router: &Router) -> Client {
    Client::connect(&Login::new(router.port()))
}

const READ: &str = "SELECT name FROM users WHERE id = 1";

/// Connections in the pools of a router.
fn pooled(router: &Router) -> usize {
    let login = Login {
        database: "switchyard".to_owned(),
        ..Login::new(router.port())
    };
    let servers = Client::connect(&login).run("SHOW SERVERS").succeeded();
    servers.rows.len()
}

#[test]
fn a_connection_keeps_so_many_statements_prepared() {
    for (limit, kept) in [(2, "2"), (100, "5")] {
        let router = router(&format!("pool_size = 1\nmax_prepared_statements = {limit}"));
        let mut client = client(&router);
        let mut run = |round: usize| {
            for number in 0..5 {
                let name = format!("s{number}");
                client.send(|buffer| {
                    if round == 0 {
                        let sql =
                            format!("SELECT {number}::text || $1 || name FROM users WHERE id = 1");
                        frontend::parse(&name, &sql, [], buffer).unwrap();
                    }
                    bind("", &name, &[Some("x")], 0, buffer);
                    frontend::execute("", 0, buffer).unwrap();
                    frontend::sync(buffer);
                });
                let reply = client.replies(None).remove(0).succeeded();
                assert_eq!(reply.rows.len(), 1, "{reply:?}");
            }
        };
        // What was closed to make room is prepared again.
        run(0);
        run(1);
        // The view lists the session's own; this is what the server has.
        let count = "SELECT (SELECT count(*) FROM pg_prepared_statement() WHERE NOT from_sql) \
                     FROM users WHERE id = 1";
        assert_eq!(client.run(count).succeeded().value(), kept);
    }
}

#[test]
fn who_waits_for_a_connection_waits_no_longer_than_the_limit() {
    let router = router("pool_size = 1\nquery_wait_timeout = \"1s\"");
    let mut holder = client(&router);
    holder.run("BEGIN").succeeded();
    holder.run(READ).succeeded();
    let mut waiting = client(&router);
    let since = Instant::now();
    let failure = waiting.run(READ).failure.unwrap();
    let took = since.elapsed();
    assert_eq!(failure.sqlstate(), "53300");
    let limit = Duration::from_secs(1);
    assert!(took >= limit && took < 4 * limit, "{took:?}");
    holder.run("COMMIT").succeeded();
    waiting.run(READ).succeeded();
}

#[test]
fn a_node_that_does_not_let_us_in_is_given_up_in_time() {
    let primaries = [0, 1].map(|shard| bed().cluster().shard(shard).primary.port());
    let proxies = primaries.map(Proxy::to);
    // The monitor must not find out first.
    let lines = "connect_timeout = \"1s\"\nhealth_timeout = \"1h\"";
    let router = bed().another_router(lines, &|node| {
        let found = primaries.iter().position(|port| *port == node.port());
        proxies[found.unwrap()].port()
    });
    let mut client = client(&router);
    client.run("BEGIN").succeeded();
    proxies.iter().for_each(|proxy| proxy.set(Mode::Stall));
    let since = Instant::now();
    let sql = "SELECT quantity FROM order_items";
    let failure = client.run(sql).failure.unwrap();
    let took = since.elapsed();
    assert_eq!(failure.sqlstate(), "08006", "{failure:?}");
    let limit = Duration::from_secs(1);
    assert!(took >= limit && took < 4 * limit, "{took:?}");
}

#[test]
fn connections_nobody_uses_are_closed() {
    let (soon, late) = (router("server_idle_timeout = \"1s\""), router(""));
    for router in [&soon, &late] {
        client(router).run(READ).succeeded();
        assert!(pooled(router) > 0);
    }
    eventually("they are closed", || pooled(&soon) == 0);
    assert!(pooled(&late) > 0);
}

#[test]
fn connections_do_not_serve_longer_than_their_lifetime() {
    let short = router("server_lifetime = \"1s\"\npool_size = 1");
    let mut short = client(&short);
    let long = router("server_lifetime = \"off\"\npool_size = 1");
    let mut long = client(&long);
    let process = |client: &mut Client| -> String {
        let reply: Reply = client.run("SELECT pg_backend_pid() FROM users WHERE id = 1");
        reply.succeeded().value()
    };
    let firsts = [process(&mut short), process(&mut long)];
    // They are in use all the time.
    eventually("another one serves", || process(&mut short) != firsts[0]);
    assert_eq!(process(&mut long), firsts[1]);
}

#[test]
fn there_are_so_many_workers() {
    for count in [1, 3] {
        let router = router(&format!("workers = {count}"));
        let tasks = std::fs::read_dir(format!("/proc/{}/task", router.id())).unwrap();
        let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
        let workers = names.filter(|name| {
            name.as_ref()
                .is_ok_and(|name| name.starts_with("switchyard-work"))
        });
        assert_eq!(workers.count(), count);
    }
}

/// Why a client with this startup parameter is not let in.
fn refused(port: u16, name: &str, value: &str) -> Option<Failure> {
    Client::try_connect(&Login::new(port).with(name, value)).err()
}

#[test]
fn a_session_does_not_begin_with_what_the_router_cannot_read() {
    let port = bed().router().port();
    let latin = [
        ("client_encoding", "LATIN1"),
        ("Client_Encoding", "latin-1"),
        ("options", "-c client_encoding=LATIN1"),
    ];
    for (name, value) in latin {
        let failure = refused(port, name, value).unwrap();
        assert_eq!(
            (failure.severity(), failure.sqlstate(), failure.message()),
            (
                "FATAL",
                "0A000",
                "client encoding \"latin1\" is not supported"
            )
        );
        assert_eq!(failure.field('H'), "Use UTF8.");
    }
    let failure = refused(port, "standard_conforming_strings", "off").unwrap();
    assert_eq!(failure.sqlstate(), "0A000", "{failure:?}");
    for value in ["UTF8", "unicode", "SQL_ASCII"] {
        assert_eq!(refused(port, "client_encoding", value), None, "{value}");
    }
    // What PostgreSQL does not know it says itself.
    let failure = refused(port, "client_encoding", "nosuch").unwrap();
    assert_eq!(failure.sqlstate(), "22023", "{failure:?}");
}

/// A router on these servers with no table of its own.
fn bare(cluster: &Cluster) -> Router {
    let ports = RouterPorts::choose();
    let file = RouterFile {
        listen: ports.port(),
        http: ports.http(),
        auth: "trust",
        router: "",
        tables: "",
    };
    Router::start(&cluster.router_file(&file), ports)
}

#[test]
fn one_shard_does_what_its_server_does() {
    let cluster = Cluster::start(ClusterSpec::for_tests(1, 0)).unwrap();
    let router = bare(&cluster);
    assert_eq!(refused(router.port(), "client_encoding", "LATIN1"), None);
}

#[test]
fn a_default_of_the_servers_that_the_router_cannot_read_is_noticed() {
    let mut spec = ClusterSpec::for_tests(2, 0);
    spec.settings.set("client_encoding", "LATIN1");
    let cluster = Cluster::start(spec).unwrap();
    let router = bare(&cluster);
    let failure = refused(router.port(), "application_name", "test").unwrap();
    assert_eq!(failure.sqlstate(), "0A000", "{failure:?}");
    // The client may say better.
    assert_eq!(refused(router.port(), "client_encoding", "UTF8"), None);
}
