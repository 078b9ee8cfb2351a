//! Settings of the configuration file that no other test is about: what each says is what happens.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code fails by panicking"
)]

#[path = "settings/access.rs"]
mod access;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use postgres_protocol::message::frontend;
use switchyard_tests::cluster::{Cluster, ClusterSpec, RouterFile};
use switchyard_tests::dialogue::{Batch, step};
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
    let servers = router.console().run("SHOW SERVERS").succeeded();
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
    encodings_can_be_changed_by_a_function(&router);
    changes_are_known_when_they_are_answered(&router);
}

/// As drivers do that look for an encoding's name. The next backend has it as well.
fn encodings_can_be_changed_by_a_function(router: &Router) {
    let change = "SELECT set_config('client_encoding', $1, false)";
    let (mut client, mut other) = (client(router), client(router));
    for (name, canonical) in [("latin9", "LATIN9"), ("euc-jp", "EUC_JP"), ("utf8", "UTF8")] {
        let changed = client.extended(change, &[Some(name)], 0);
        assert_eq!(changed.succeeded().texts(), [[canonical]]);
        other.run("BEGIN").succeeded();
        other.run("SELECT 1").succeeded();
        let shown = client.run("SHOW client_encoding").succeeded().texts();
        other.run("COMMIT").succeeded();
        assert_eq!(shown, [[canonical]]);
    }
}

/// Whoever has prepared a statement before another client changes its table is told so by the first execution afterwards, however soon.
fn changes_are_known_when_they_are_answered(router: &Router) {
    let (mut changing, mut reading) = (client(router), client(router));
    changing
        .run("CREATE TABLE plans (i int, t text)")
        .succeeded();
    for (round, to) in ["int", "bigint", "int", "bigint"].into_iter().enumerate() {
        let sql = "SELECT * FROM plans";
        let name = format!("s{round}");
        let prepared = Batch::default().parse(&name, sql).describe(b'S', &name);
        step(&mut reading, &prepared.sync(), b'Z');
        let change = format!("ALTER TABLE plans ALTER COLUMN t TYPE {to} USING 1");
        match round < 2 {
            true => changing.run(&change).succeeded(),
            false => changing.extended(&change, &[], 0).succeeded(),
        };
        let executed = Batch::default().bind("", &name, &[]).execute("", 0).sync();
        let seen = step(&mut reading, &executed, b'Z');
        let changed = "E 0A000 cached plan must not change result type";
        assert_eq!(seen, [changed, "Z \"I\""], "{change}");
    }
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

/// The router's own settings have values before anybody sets them, and defaults of roles and databases.
#[test]
fn the_routers_own_settings() {
    let bed = bed();
    let mut client = bed.client();
    let own = [
        ("switchyard.consistent_read", "off", "on"),
        ("switchyard.layer", "auto", "merge"),
        ("switchyard.route", "default", "primary"),
    ];
    for (name, default, other) in own {
        let show = format!("SHOW {name}");
        let current = format!("SELECT current_setting('{name}')");
        let is = |client: &mut Client, value: &str| {
            assert_eq!(client.run(&show).value(), value);
            assert_eq!(client.extended(&show, &[], 0).value(), value);
            assert_eq!(client.run(&current).value(), value);
        };
        is(&mut client, default);
        client.run(&format!("SET {name} = '{other}'")).succeeded();
        is(&mut client, other);
        for reset in [&*format!("RESET {name}"), "RESET ALL", "DISCARD ALL"] {
            client.run(reset).succeeded();
            is(&mut client, default);
            client.run(&format!("SET {name} = '{other}'")).succeeded();
        }
        client.run(&format!("RESET {name}")).succeeded();
    }
}

/// On servers of its own: other tests' clients would get what the role has.
#[test]
fn the_routers_own_settings_of_a_role() {
    let bed = Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 0)));
    let everywhere = |sql: &str| {
        for shard in bed.cluster().shards() {
            let node = shard.primary.as_ref();
            bed.cluster().superuser_sql(node, "shop", sql).unwrap();
        }
    };
    everywhere("ALTER DATABASE shop SET switchyard.consistent_read = off");
    everywhere("ALTER ROLE app SET switchyard.consistent_read = on");
    // A router that has not yet asked for them.
    let router = bed.another_router("", &|node| node.port());
    let mut client = Client::connect(&Login::new(router.port()));
    let mut chosen = Client::connect(
        &Login::new(router.port()).with("options", "-cswitchyard.consistent_read=off"),
    );
    everywhere("ALTER ROLE app RESET switchyard.consistent_read");
    everywhere("ALTER DATABASE shop RESET switchyard.consistent_read");
    let show = "SHOW switchyard.consistent_read";
    assert_eq!(client.run(show).value(), "on");
    assert_eq!(chosen.run(show).value(), "off");
    let count = "SELECT count(*) FROM users";
    let refused = |client: &mut Client| {
        client.run("BEGIN").succeeded();
        let sqlstate = client.run(count).sqlstate().map(str::to_owned);
        client.run("ROLLBACK").succeeded();
        sqlstate
    };
    assert_eq!(refused(&mut client).as_deref(), Some("0A000"));
    assert_eq!(refused(&mut chosen), None);
    client
        .run("SET switchyard.consistent_read = off")
        .succeeded();
    assert_eq!(refused(&mut client), None);
    client.run("RESET switchyard.consistent_read").succeeded();
    assert_eq!(client.run(show).value(), "on");
    assert_eq!(refused(&mut client).as_deref(), Some("0A000"));
}
