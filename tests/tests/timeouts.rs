//! Clients and statements that take too long: each limit of the configuration ends what it is for, and nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code fails by panicking"
)]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use postgres_protocol::message::frontend;
use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::{
    Bed, BedSpec, Client, Failure, Login, Mode, Proxy, Router, bind, eventually,
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

/// The limit of these tests.
const LIMIT: Duration = Duration::from_secs(1);
/// What the documentation allows beside it, and what a busy machine may need.
const SLACK: Duration = Duration::from_secs(4);

#[track_caller]
fn within_limits(took: Duration) {
    // The limit is counted from a tick of the clock before.
    let earliest = LIMIT - Duration::from_millis(300);
    assert!(took >= earliest && took < LIMIT + SLACK, "{took:?}");
}

/// The connection ends by this error, in time.
#[track_caller]
fn is_ended(client: &mut Client, since: Instant, sqlstate: &str, message: &str) {
    let error = client.receive();
    within_limits(since.elapsed());
    assert_eq!(error.tag, b'E');
    let failure = Failure::decode(&error.body);
    assert_eq!(
        (failure.severity(), failure.sqlstate(), failure.message()),
        ("FATAL", sqlstate, message)
    );
    assert_eq!(client.try_receive().unwrap(), None);
}

#[test]
fn an_idle_client_is_sent_away_and_a_working_one_is_not() {
    let router = router("client_idle_timeout = \"1s\"");
    let mut idle = client(&router);
    let mut working = client(&router);
    let mut in_block = client(&router);
    in_block.run("BEGIN").succeeded();
    working.send(|buffer| frontend::query("SELECT pg_sleep(3)", buffer).unwrap());
    idle.run("SELECT 1").succeeded();
    let message = "terminating connection due to idle-session timeout";
    is_ended(&mut idle, Instant::now(), "57P05", message);
    assert_eq!(working.replies(None).remove(0).failure, None);
    in_block.run("COMMIT").succeeded();
}

#[test]
fn a_client_that_holds_a_transaction_is_sent_away() {
    let router = router("idle_transaction_timeout = \"1s\"");
    let message = "terminating connection due to idle-in-transaction timeout";
    let mut idle = client(&router);
    let mut held = client(&router);
    held.run("BEGIN").succeeded();
    held.run("UPDATE users SET name = 'held' WHERE id = 1")
        .succeeded();
    is_ended(&mut held, Instant::now(), "25P03", message);
    // Neither lock nor change is left.
    let mut other = client(&router);
    other.run("SET lock_timeout = '5s'").succeeded();
    let name = other.run("SELECT name FROM users WHERE id = 1 FOR UPDATE");
    assert_ne!(name.succeeded().value(), "held");

    let mut failed = client(&router);
    failed.run("BEGIN").succeeded();
    assert!(failed.run("SELECT nosuch").failure.is_some());
    is_ended(&mut failed, Instant::now(), "25P03", message);

    // A batch without its Sync is a transaction, too.
    let mut batch = client(&router);
    batch.send(|buffer| {
        frontend::parse("", "SELECT 1", [], buffer).unwrap();
        bind("", "", &[], 0, buffer);
        frontend::execute("", 0, buffer).unwrap();
        frontend::flush(buffer);
    });
    let since = Instant::now();
    while batch.receive().tag != b'C' {}
    is_ended(&mut batch, since, "25P03", message);
    idle.run("SELECT 1").succeeded();
}

/// `idle_in_transaction_session_timeout`, which each backend keeps for itself.
#[test]
fn a_client_that_holds_a_transaction_for_longer_than_it_has_asked_for_is_sent_away() {
    let message = "terminating connection due to idle-in-transaction timeout";
    let mut own = bed().client();
    own.run("SET idle_in_transaction_session_timeout = '1s'")
        .succeeded();
    own.run("BEGIN").succeeded();
    own.run("UPDATE users SET name = 'held' WHERE id = 2")
        .succeeded();
    let since = Instant::now();
    let failure = Failure::decode(&own.receive().body);
    assert!(since.elapsed() >= LIMIT - Duration::from_millis(50));
    let said = (failure.severity(), failure.sqlstate(), failure.message());
    assert_eq!(said, ("FATAL", "25P03", message));
    assert_eq!(own.try_receive().unwrap(), None);
    // Where the router does not know of it, the client hears of it when it goes on.
    let bed = Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 0)));
    bed.client()
        .run("ALTER DATABASE shop SET idle_in_transaction_session_timeout = '400ms'")
        .succeeded();
    let router = bed.another_router("", &|node| node.port());
    for sql in ["SELECT name FROM users WHERE id = 2", "COMMIT"] {
        let mut late = client(&router);
        late.run("BEGIN").succeeded();
        late.run("UPDATE users SET name = 'held' WHERE id = 2")
            .succeeded();
        let mut other = client(&router);
        eventually("the server has ended the transaction", || {
            let lock = "SELECT name FROM users WHERE id = 2 FOR UPDATE NOWAIT";
            other.run(lock).failure.is_none()
        });
        late.send(|buffer| frontend::query(sql, buffer).unwrap());
        let error = late.receive();
        assert_eq!(error.tag, b'E', "{sql}");
        let failure = Failure::decode(&error.body);
        let said = (failure.severity(), failure.sqlstate(), failure.message());
        assert_eq!(said, ("FATAL", "25P03", message), "{sql}");
        assert_eq!(late.try_receive().unwrap(), None);
    }
}

#[test]
fn a_statement_that_takes_too_long_is_cancelled() {
    let router = router("query_timeout = \"1s\"");
    let mut client = client(&router);
    // One of the shards of a scatter has to wait.
    let mut lock = bed().node_client(bed().cluster().shard(1).primary.as_ref());
    lock.run("BEGIN").succeeded();
    lock.run("LOCK TABLE order_items").succeeded();
    let too_long = [
        "SELECT pg_sleep(60)",
        "SELECT pg_sleep(60) FROM users WHERE id = 1",
        "SELECT quantity FROM order_items",
    ];
    for (number, sql) in too_long.into_iter().enumerate() {
        let since = Instant::now();
        let reply = match number {
            1 => client.extended(sql, &[], 0),
            _ => client.run(sql),
        };
        let failure = reply.failure.unwrap_or_else(|| panic!("{sql} is answered"));
        assert_eq!(
            (failure.severity(), failure.sqlstate(), failure.message()),
            (
                "ERROR",
                "57014",
                "canceling statement due to statement timeout"
            ),
            "{sql}"
        );
        within_limits(since.elapsed());
        client.run("SELECT 1").succeeded();
    }
    // Idle time is no statement's, and the limit is each statement's own.
    client.run("BEGIN").succeeded();
    for _ in 0..4 {
        client.run("SELECT pg_sleep(0.6)").succeeded();
    }
    let failure = client.run("SELECT pg_sleep(60)").failure.unwrap();
    assert_eq!(failure.sqlstate(), "57014");
    assert_eq!(client.status, b'E');
    client.run("ROLLBACK").succeeded();
}

#[test]
fn a_transaction_that_takes_too_long_ends() {
    let router = router("transaction_timeout = \"1s\"");
    let message = "terminating connection due to transaction timeout";
    let mut idle = client(&router);
    let since = Instant::now();
    idle.run("BEGIN").succeeded();
    idle.run("UPDATE users SET name = 'held' WHERE id = 3")
        .succeeded();
    is_ended(&mut idle, since, "25P04", message);
    // It is the whole that counts, and a statement is cancelled first.
    let mut busy = client(&router);
    let since = Instant::now();
    busy.run("BEGIN").succeeded();
    busy.run("SELECT pg_sleep(0.5)").succeeded();
    let failure = busy.run("SELECT pg_sleep(60)").failure.unwrap();
    let said = (failure.sqlstate(), failure.message());
    let cancelled = "canceling statement due to transaction timeout";
    assert_eq!(said, ("57014", cancelled));
    is_ended(&mut busy, since, "25P04", message);
    // One statement after the other is many transactions, also where they come at once.
    let mut client = client(&router);
    client.send(|buffer| {
        for _ in 0..4 {
            frontend::query("SELECT pg_sleep(0.6)", buffer).unwrap();
        }
    });
    for _ in 0..4 {
        assert_eq!(client.replies(None).remove(0).failure, None);
    }
    let failure = client.run("SELECT pg_sleep(60)").failure.unwrap();
    assert_eq!(failure.message(), cancelled);
    client.run("SELECT 1").succeeded();
}

#[test]
fn the_client_s_own_cancellation_keeps_its_name() {
    let router = router("query_timeout = \"1h\"");
    let mut client = client(&router);
    client.send(|buffer| frontend::query("SELECT pg_sleep(60)", buffer).unwrap());
    let pid_found = || {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' \
                       AND state = 'active'";
        let cluster = bed().cluster();
        (0..2).any(|shard| {
            let primary = cluster.shard(shard).primary.as_ref();
            cluster.sql(primary, running).unwrap() != "0"
        })
    };
    switchyard_tests::eventually("it runs", pid_found);
    Client::cancel(&client.key, router.port());
    let failure = client.replies(None).remove(0).failure.unwrap();
    assert_eq!(
        (failure.sqlstate(), failure.message()),
        ("57014", "canceling statement due to user request")
    );
}

#[test]
fn a_statement_that_waits_for_a_connection_takes_its_time_too() {
    let router = router("query_timeout = \"1s\"\npool_size = 1");
    let mut holder = client(&router);
    let mut waiting = client(&router);
    holder.run("BEGIN").succeeded();
    holder
        .run("SELECT name FROM users WHERE id = 1")
        .succeeded();
    let since = Instant::now();
    let failure = waiting.run("SELECT name FROM users WHERE id = 1").failure;
    within_limits(since.elapsed());
    let failure = failure.expect("there is one connection");
    assert_eq!(failure.sqlstate(), "57014");
    // And who waits may give up.
    waiting.send(|buffer| {
        frontend::query("SELECT name FROM users WHERE id = 1", buffer).unwrap();
    });
    switchyard_tests::eventually("it waits", || {
        let (_, metrics) = router.get("/metrics").unwrap();
        let waiting = metrics.lines().filter(|line| {
            line.starts_with("switchyard_pool_waiting")
                || (line.starts_with("switchyard_clients") && line.contains("\"waiting\""))
        });
        let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        waiting.map(value).filter(|count| *count == 1.0).count() == 2
    });
    Client::cancel(&waiting.key, router.port());
    let failure = waiting.replies(None).remove(0).failure.unwrap();
    assert_eq!(failure.message(), "canceling statement due to user request");
    holder.run("COMMIT").succeeded();
    waiting
        .run("SELECT name FROM users WHERE id = 1")
        .succeeded();
}

#[test]
fn a_server_that_does_not_heed_the_cancellation_is_left() {
    let primaries = [0, 1].map(|shard| bed().cluster().shard(shard).primary.port());
    let proxies = primaries.map(Proxy::to);
    let lines = "query_timeout = \"1s\"\nhealth_timeout = \"1h\"";
    let router = bed().another_router(lines, &|node| {
        let found = primaries.iter().position(|port| *port == node.port());
        proxies[found.unwrap()].port()
    });
    let mut client = client(&router);
    client
        .run("SELECT name FROM users WHERE id = 1")
        .succeeded();
    proxies.iter().for_each(|proxy| proxy.set(Mode::Stall));
    let since = Instant::now();
    let update = "UPDATE users SET name = name WHERE id = 1";
    let failure = client.run(update).failure.unwrap();
    let took = since.elapsed();
    assert!(
        took > Duration::from_secs(5) && took < Duration::from_secs(15),
        "{took:?}"
    );
    assert_eq!(failure.sqlstate(), "08007", "{failure:?}");
    proxies.iter().for_each(|proxy| proxy.set(Mode::Forward));
    client.run("SELECT 1").succeeded();
}
