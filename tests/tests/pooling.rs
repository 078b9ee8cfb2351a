//! Many clients on few server connections: nobody sees anybody else's session, and nothing grows without a limit.

#[path = "pooling/limits.rs"]
mod limits;
#[path = "pooling/listening.rs"]
mod listening;

use std::sync::OnceLock;
use std::time::Duration;

use postgres_protocol::message::frontend;
use switchyard_tests::cluster::{ClusterSpec, Node};
use switchyard_tests::{Bed, BedSpec, Client, Login, Router, eventually};

static BED: OnceLock<Bed> = OnceLock::new();

fn bed() -> &'static Bed {
    BED.get_or_init(|| Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 0))))
}

/// A router with this in its `[router]`, on the shared servers.
fn router(lines: &str) -> Router {
    bed().another_router(lines, &|node: &dyn Node| node.port())
}

fn client(router: &Router) -> Client {
    Client::connect(&Login::new(router.port()))
}

/// The server process that serves a client's statement for a user.
fn server_of(client: &mut Client, user: u32) -> String {
    client
        .run(&format!(
            "SELECT pg_backend_pid() FROM users WHERE id = {user}"
        ))
        .succeeded()
        .value()
}

#[test]
fn a_connection_serves_on_however_much_it_has_said() {
    let router = router("read_policy = \"primary\"");
    let mut client = client(&router);
    let server = server_of(&mut client, 1);
    for size in [4_000, 5_000, 20_000, 100_000, 1_000_000, 10_000_000] {
        let sql = format!("SELECT repeat('x', {size}) FROM users WHERE id = 1");
        assert_eq!(client.run(&sql).succeeded().value().len(), size);
        assert_eq!(server_of(&mut client, 1), server, "after {size} bytes");
    }
}

/// Who would go on would believe to have locks and tables that are not there.
#[test]
fn a_session_ends_with_the_server_that_keeps_something_for_it() {
    let router = router("");
    let mut node = bed().node_client(bed().cluster().shard(0).primary.as_ref());
    for keeps in [
        "SELECT pg_advisory_lock(4711)",
        "CREATE TEMPORARY TABLE gone (id int)",
    ] {
        let mut client = client(&router);
        client.run(keeps).succeeded();
        let server = format!("FROM pg_stat_activity WHERE query = '{keeps}'");
        let end = format!("SELECT count(pg_terminate_backend(pid)) {server}");
        assert_eq!(node.run(&end).succeeded().value(), "1", "{keeps}");
        eventually("it has gone", || {
            node.run(&format!("SELECT count(*) {server}")).value() == "0"
        });
        let failure = client.run("SELECT count(*) FROM users").failure.unwrap();
        assert_eq!(failure.sqlstate(), "08006", "{keeps}: {failure:?}");
        let said = client.receive();
        assert_eq!(said.tag, b'E', "{keeps}");
        let error = String::from_utf8_lossy(&said.body);
        assert!(error.contains("SFATAL"), "{keeps}: {error}");
        let why = "and with it what the session kept there";
        assert!(error.contains(why), "{keeps}: {error}");
    }
}

#[test]
fn many_clients_share_few_connections() {
    let router = router("pool_size = 2\nread_policy = \"primary\"");
    let mut clients: Vec<Client> = (0..60).map(|_| client(&router)).collect();
    let mut servers: Vec<String> = Vec::new();
    for _ in 0..3 {
        for client in &mut clients {
            servers.push(server_of(client, 1));
        }
    }
    servers.sort();
    servers.dedup();
    assert!(servers.len() <= 2, "{servers:?}");
    // All at the same time: who finds no connection waits for one.
    std::thread::scope(|scope| {
        for mut client in clients {
            scope.spawn(move || {
                for user in 1..20 {
                    client.run("BEGIN").succeeded();
                    client
                        .run(&format!(
                            "SELECT pg_sleep(0.001), name FROM users WHERE id = {user}"
                        ))
                        .succeeded();
                    client.run("COMMIT").succeeded();
                }
            });
        }
    });
}

#[test]
fn settings_stay_with_their_client() {
    let router = router("pool_size = 1\nread_policy = \"primary\"");
    let zones = ["Asia/Seoul", "Europe/Oslo", "UTC", "America/Lima"];
    let mut clients: Vec<(Client, &str)> = zones
        .into_iter()
        .map(|zone| {
            let mut client = client(&router);
            client.run(&format!("SET TimeZone = '{zone}'")).succeeded();
            (client, zone)
        })
        .collect();
    let by_login = Client::connect(&Login::new(router.port()).with("TimeZone", "Asia/Tokyo"));
    let by_options =
        Client::connect(&Login::new(router.port()).with("options", "-c TimeZone=Asia/Kabul"));
    clients.push((by_login, "Asia/Tokyo"));
    clients.push((by_options, "Asia/Kabul"));
    for user in 1..6 {
        for (client, zone) in &mut clients {
            let shown = client.run(&format!(
                "SELECT current_setting('TimeZone') FROM users WHERE id = {user}"
            ));
            assert_eq!(shown.succeeded().value(), *zone);
            assert_eq!(client.run("SHOW TimeZone").succeeded().value(), *zone);
            assert_eq!(client.parameters["TimeZone"], *zone);
        }
    }
    // What a rolled-back block set is gone; what a committed one set stays.
    let (first, _) = &mut clients[0];
    for (end, expected) in [("ROLLBACK", "Asia/Seoul"), ("COMMIT", "Asia/Baku")] {
        first.run("BEGIN").succeeded();
        first.run("SET TimeZone = 'Asia/Baku'").succeeded();
        assert_eq!(first.run("SHOW TimeZone").value(), "Asia/Baku");
        first.run(end).succeeded();
        assert_eq!(first.run("SHOW TimeZone").value(), expected);
    }
}

/// What a statement is does not depend on what says nothing in front of it.
#[test]
fn what_comes_after_an_empty_statement_is_the_clients_own_as_well() {
    let router = router("pool_size = 1\nread_policy = \"primary\"");
    let mut other = client(&router);
    for empty in [";", " ;; ", "/* x */ ;", "-- x\n;"] {
        for extended in [false, true] {
            let mut client = client(&router);
            let mut run = |sql: &str| {
                let sql = format!("{empty}{sql}");
                let reply = match extended {
                    true => client.extended(&sql, &[], 0),
                    false => client.run(&sql),
                };
                (reply.succeeded(), client.status)
            };
            run("SET TimeZone = 'Asia/Seoul'");
            assert_eq!(run("SHOW TimeZone").0.value(), "Asia/Seoul");
            run("PREPARE mine AS SELECT 1");
            assert_eq!(run("START TRANSACTION").1, b'T');
            assert_eq!(run("ROLLBACK").1, b'I');
            for (sql, expected) in [
                ("SHOW TimeZone", None),
                ("EXECUTE mine", Some("26000")),
                ("DISCARD ALL", None),
            ] {
                let found = other.run(sql);
                assert_eq!(found.sqlstate(), expected, "{empty:?} {sql}");
                assert!(!found.texts().concat().contains(&"Asia/Seoul".to_owned()));
            }
            assert_eq!(run("EXECUTE mine").0.value(), "1");
            assert_eq!(run("DISCARD ALL").0.tag.as_deref(), Some("DISCARD ALL"));
        }
    }
}

/// However a setting is written it is its client's, or refused.
#[test]
fn settings_in_other_words_stay_with_their_client_too() {
    let router = router("pool_size = 1\nread_policy = \"primary\"");
    let mut other = client(&router);
    for (sql, sqlstate) in [
        ("SET TimeZone = 'Asia/Seoul';; ;", None),
        ("SET TimeZone = E'Asia/Seoul'", None),
        ("SET TimeZone TO $zone$Asia/Seoul$zone$", None),
        ("SET TimeZone = E'Asia\\/Seoul'", Some("0A000")),
        ("SET U&\"TimeZone\" = 'Asia/Seoul'", Some("0A000")),
        ("SET TimeZone = Asia/Seoul", Some("42601")),
        ("PREPARE U&\"mine\" AS SELECT 1", Some("0A000")),
        ("SAVEPOINT U&\"mine\"", Some("0A000")),
        ("BEGIN WORK READ", Some("42601")),
    ] {
        for extended in [false, true] {
            let mut client = client(&router);
            let told = match extended {
                true => client.extended(sql, &[], 0),
                false => client.run(sql),
            };
            assert_eq!(told.sqlstate(), sqlstate, "{sql}: {told:?}");
            assert_eq!(client.status, b'I', "{sql}");
            if sqlstate.is_none() {
                assert_eq!(client.run("SHOW TimeZone").value(), "Asia/Seoul", "{sql}");
            }
            assert_ne!(other.run("SHOW TimeZone").value(), "Asia/Seoul", "{sql}");
            let prepared = "SELECT count(*) FROM pg_prepared_statements WHERE name = 'mine'";
            assert_eq!(other.run(prepared).value(), "0", "{sql}");
        }
    }
}

#[test]
fn a_client_that_leaves_in_a_transaction_leaves_nothing() {
    let router = router("pool_size = 1\nread_policy = \"primary\"");
    for _ in 0..5 {
        let mut client = client(&router);
        client.run("BEGIN").succeeded();
        client
            .run("UPDATE users SET name = 'left' WHERE id = 11")
            .succeeded();
        drop(client);
    }
    let mut next = client(&router);
    assert_ne!(
        next.run("SELECT name FROM users WHERE id = 11")
            .succeeded()
            .value(),
        "left"
    );
    assert_eq!(
        next.run("UPDATE users SET name = name WHERE id = 11")
            .tag
            .as_deref(),
        Some("UPDATE 1")
    );

    // In the middle of a statement: it is cancelled.
    let mut sleeper = client(&router);
    sleeper.send(|buffer| {
        frontend::query("SELECT pg_sleep(600) FROM users WHERE id = 11", buffer).unwrap()
    });
    let mut servers: Vec<Client> = bed()
        .cluster()
        .shards()
        .iter()
        .map(|shard| bed().node_client(shard.primary.as_ref()))
        .collect();
    let mut sleeping = || -> u32 {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(600)%' AND state = 'active'";
        servers
            .iter_mut()
            .map(|server| server.run(count).value().parse::<u32>().unwrap())
            .sum()
    };
    eventually("it sleeps", || sleeping() == 1);
    drop(sleeper);
    eventually("it is cancelled", || sleeping() == 0);
    next.run("SELECT name FROM users WHERE id = 11").succeeded();
}

/// The router holds only so much for a client that does not read.
#[test]
fn a_client_that_does_not_read_is_bounded() {
    let router = router("");
    let before = memory(&router);
    let mut slow = client(&router);
    let gigabytes =
        "SELECT repeat('x', 1000) FROM users, generate_series(1, 2000000) WHERE id = 12";
    slow.send(|buffer| frontend::query(gigabytes, buffer).unwrap());
    slow.receive();
    std::thread::sleep(Duration::from_secs(2)); // long enough to fill memory, were it not bounded
    let after = memory(&router);
    assert!(after < before + 64 * 1024, "{before} kB, then {after} kB");
    client(&router)
        .run("SELECT name FROM users WHERE id = 12")
        .succeeded();
    drop(slow);
}

/// Resident memory of the router in kB.
fn memory(router: &Router) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", router.id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn one_client_too_many_is_told_so() {
    let router = router("max_clients = 3");
    let clients: Vec<Client> = (0..3).map(|_| client(&router)).collect();
    let failure = Client::try_connect(&Login::new(router.port())).unwrap_err();
    assert_eq!((failure.sqlstate(), failure.severity()), ("53300", "FATAL"));
    drop(clients);
    eventually("there is room again", || {
        Client::try_connect(&Login::new(router.port())).is_ok()
    });
}

#[test]
fn in_session_mode_a_client_keeps_its_connection() {
    let router = router("pool_mode = \"session\"\npool_size = 2\nread_policy = \"primary\"");
    let (mut one, mut two) = (client(&router), client(&router));
    let (first, second) = (server_of(&mut one, 1), server_of(&mut two, 1));
    assert_ne!(first, second);
    for sql in ["BEGIN", "COMMIT", "SELECT 1"] {
        one.run(sql).succeeded();
    }
    assert_eq!(server_of(&mut one, 1), first);
    one.terminate();
    // There is no other one to be had: it waits for that.
    assert_eq!(server_of(&mut client(&router), 1), first);
}

/// What makes a session keep its connection, step by step; with the last one there is no reason left. Parts are divided by `|`.
const KEPT: [&str; 7] = [
    "SELECT pg_advisory_lock(4712) | SELECT pg_advisory_unlock(4712)",
    "SELECT pg_advisory_lock(4712), pg_try_advisory_lock_shared(4713) | SELECT pg_advisory_unlock_all()",
    "CREATE TEMPORARY TABLE short (id int) | DROP TABLE short",
    "BEGIN; CREATE TEMPORARY TABLE short (id int) ON COMMIT DROP | COMMIT",
    "CREATE TEMPORARY TABLE short AS SELECT 1 AS one | DROP TABLE IF EXISTS short",
    "BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT 1; COMMIT | CLOSE held",
    "BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT 1 | ROLLBACK",
];

/// The reasons that clients keep connections for.
fn pinned(console: &mut Client) -> String {
    let shown = console.run("SHOW CLIENTS").succeeded();
    let mut columns = shown.columns.iter().flatten();
    let pinned = columns.position(|column| column.name == "pinned").unwrap();
    let rows = shown.texts().into_iter();
    let reasons: Vec<String> = rows.map(|mut row| row.swap_remove(pinned)).collect();
    reasons.concat()
}

/// Whoever keeps a connection gives it back when there is no reason left.
#[test]
fn a_connection_is_kept_as_long_as_there_is_a_reason() {
    let router = router("pool_size = 1\nread_policy = \"primary\"");
    let (mut other, mut console) = (client(&router), router.console());
    for (steps, extended) in KEPT
        .iter()
        .flat_map(|steps| [(steps, false), (steps, true)])
    {
        let mut client = client(&router);
        let mut steps = steps.split(" | ").peekable();
        while let Some(sql) = steps.next() {
            let replies = match extended && !sql.contains(';') {
                true => vec![client.extended(sql, &[], 0)],
                false => client.simple(sql),
            };
            for reply in replies {
                reply.succeeded();
            }
            if client.status == b'I' {
                let is_last = steps.peek().is_none();
                eventually(sql, || pinned(&mut console).is_empty() == is_last);
            }
        }
        // There is but the one connection.
        other.run("SELECT name FROM users WHERE id = 3").succeeded();
    }
}

/// A lock that was not to be had keeps nothing.
#[test]
fn what_a_connection_is_kept_for_is_what_the_server_says() {
    let router = router("pool_size = 1");
    let mut node = bed().node_client(bed().cluster().shard(0).primary.as_ref());
    let (mut client, mut console) = (client(&router), router.console());
    node.run("SELECT pg_advisory_lock(4714)").succeeded();
    let locked = client.run("SELECT pg_try_advisory_lock(4714)").succeeded();
    assert_eq!(locked.value(), "f");
    eventually("it is not kept", || pinned(&mut console).is_empty());
}

/// Whoever leaves while rows are copied to it leaves the connection to others, however much was still to come.
#[test]
fn a_client_that_leaves_while_it_is_sent_rows_leaves_nothing() {
    let router = router("pool_size = 1\nread_policy = \"primary\"");
    let mut next = client(&router);
    let rows = "SELECT repeat('x', 1000) FROM users, generate_series(1, 1000000) WHERE id = 3";
    for sql in [rows.to_owned(), format!("COPY ({rows}) TO STDOUT")] {
        for in_block in [false, true] {
            let mut client = client(&router);
            if in_block {
                client.run("BEGIN").succeeded();
            }
            client.send(|buffer| frontend::query(&sql, buffer).unwrap());
            client.receive();
            drop(client);
            next.run("SELECT name FROM users WHERE id = 3").succeeded();
        }
    }
}
