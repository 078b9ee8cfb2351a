//! Transactions that write on several shards: all of them commit or none, whoever dies, and nothing stays prepared. `bank` has
//! many of them at a time.

mod consistent;
mod deadlocks;
mod prepared;

use std::time::{Duration, Instant};

use switchyard_tests::cluster::{ClusterSpec, Settings, Stop};
use switchyard_tests::{
    Bed, BedSpec, Client, Hold, Login, Mode, Proxied, Reply, Turn, Turns, eventually,
};

/// `checked` has a constraint that is looked at when the transaction ends.
const DDL: &str = "
CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL);
CREATE TABLE checked (id int, twin int, UNIQUE (id, twin) DEFERRABLE INITIALLY DEFERRED);
";
const TABLES: &str = "
[[databases.tables]]
name      = \"accounts\"
shard_key = \"id\"
method    = \"modulo\"

[[databases.tables]]
name      = \"checked\"
shard_key = \"id\"
method    = \"modulo\"
";

/// The tests stop servers.
static BEDS: Turns<3> = Turns::new(|| {
    let spec = BedSpec::of(ClusterSpec::for_tests(2, 0));
    Bed::start(spec.with_tables(DDL, TABLES))
});

fn bed() -> (&'static Bed, Turn) {
    let (bed, turn) = BEDS.take();
    fill(bed);
    (bed, turn)
}

/// 100 in both accounts.
fn fill(bed: &Bed) {
    let mut client = bed.client();
    for id in [0, 1] {
        // By modulo 0 lies on the first shard, 1 on the second.
        let fill = format!(
            "INSERT INTO accounts VALUES ({id}, 100) ON CONFLICT (id) DO UPDATE SET balance = 100"
        );
        eventually("the shards are there", || {
            client.run(&fill).failure.is_none()
        });
    }
}

/// The balances on both shards.
fn balances(bed: &Bed) -> [String; 2] {
    on_primaries(
        bed,
        "SELECT string_agg(id || ':' || balance, ',') FROM accounts",
    )
}

fn on_primaries(bed: &Bed, sql: &str) -> [String; 2] {
    [0, 1].map(|shard| {
        let primary = bed.cluster().shard(shard).primary.as_ref();
        bed.cluster().sql(primary, sql).unwrap()
    })
}

const BEFORE: [&str; 2] = ["0:100", "1:100"];
const AFTER: [&str; 2] = ["0:90", "1:110"];

/// Moves money from one shard to the other; not committed yet.
fn transfer(client: &mut Client) {
    client.run("BEGIN").succeeded();
    client
        .run("UPDATE accounts SET balance = balance - 10 WHERE id = 0")
        .succeeded();
    client
        .run("UPDATE accounts SET balance = balance + 10 WHERE id = 1")
        .succeeded();
}

fn nothing_is_prepared(bed: &Bed) -> bool {
    on_primaries(bed, "SELECT count(*) FROM pg_prepared_xacts") == ["0", "0"]
}

#[test]
fn both_commit_or_none() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    transfer(&mut client);
    client.run("ROLLBACK").succeeded();
    assert_eq!(balances(bed), BEFORE);
    transfer(&mut client);
    assert_eq!(balances(bed), BEFORE);
    assert_eq!(
        client.run("COMMIT").succeeded().tag.as_deref(),
        Some("COMMIT")
    );
    assert_eq!(balances(bed), AFTER);
    assert!(nothing_is_prepared(bed));
}

/// Several statements of one query are one transaction, as are those of a batch of the extended protocol.
#[test]
fn implicit_transactions() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    let both = "UPDATE accounts SET balance = balance - 10 WHERE id = 0; \
                UPDATE accounts SET balance = balance + 10 WHERE id = 1";
    for reply in client.simple(both) {
        reply.succeeded();
    }
    assert_eq!(balances(bed), AFTER);
    let failing = "UPDATE accounts SET balance = 0 WHERE id = 0; \
                   UPDATE accounts SET balance = 1 / 0 WHERE id = 1";
    let replies = client.simple(failing);
    assert_eq!(replies.last().unwrap().sqlstate(), Some("22012"));
    assert_eq!(balances(bed), AFTER);
    assert_eq!(client.status, b'I');
}

#[test]
fn savepoints_hold_on_all_shards() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    client.run("BEGIN").succeeded();
    client
        .run("UPDATE accounts SET balance = 90 WHERE id = 0")
        .succeeded();
    client.run("SAVEPOINT a").succeeded();
    client
        .run("UPDATE accounts SET balance = 0 WHERE id = 1")
        .succeeded();
    client
        .run("UPDATE accounts SET balance = 0 WHERE id = 0")
        .succeeded();
    client.run("ROLLBACK TO a").succeeded();
    client
        .run("UPDATE accounts SET balance = 110 WHERE id = 1")
        .succeeded();
    client.run("COMMIT").succeeded();
    assert_eq!(balances(bed), AFTER);
}

/// A constraint that fails when the transaction ends, on the shard that decides or on the one that prepares.
#[test]
fn a_deferred_constraint_that_fails_on_one_shard() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    for broken in [0, 1] {
        transfer(&mut client);
        for id in [0, 1] {
            let insert = format!("INSERT INTO checked VALUES ({id}, 7)");
            client.run(&insert).succeeded();
            if id == broken {
                client.run(&insert).succeeded();
            }
        }
        let failure = client.run("COMMIT").failure.unwrap();
        assert_eq!(failure.sqlstate(), "23505", "{failure:?}");
        assert_eq!(
            failure.message(),
            "duplicate key value violates unique constraint \"checked_id_twin_key\""
        );
        assert_eq!(client.status, b'I');
        assert_eq!(balances(bed), BEFORE);
        assert_eq!(
            on_primaries(bed, "SELECT count(*) FROM checked"),
            ["0", "0"]
        );
        assert!(nothing_is_prepared(bed));
    }
}

/// What is set in the transaction holds after it, or not, as with one server.
#[test]
fn settings_follow_the_transaction() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    for (end, expected) in [("COMMIT", "33s"), ("ROLLBACK", "0")] {
        client.run("RESET statement_timeout").succeeded();
        transfer(&mut client);
        client.run("SET statement_timeout = '33s'").succeeded();
        client.run("SET LOCAL lock_timeout = '44s'").succeeded();
        client
            .run("UPDATE accounts SET balance = balance WHERE id IN (0)")
            .succeeded();
        client.run(end).succeeded();
        for id in [0, 1] {
            let show = format!(
                "SELECT current_setting('statement_timeout') || current_setting('lock_timeout') FROM accounts WHERE id = {id}"
            );
            assert_eq!(client.run(&show).value(), format!("{expected}0"));
        }
    }
}

/// What cannot be prepared is on the shard that decides.
#[test]
fn temporary_tables_and_notify_take_part() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    client.run("CREATE TEMP TABLE mine (a int)").succeeded();
    transfer(&mut client);
    client.run("INSERT INTO mine VALUES (1)").succeeded();
    client.run("NOTIFY news").succeeded();
    client.run("COMMIT").succeeded();
    assert_eq!(balances(bed), AFTER);
    assert_eq!(client.run("SELECT a FROM mine").value(), "1");
}

/// A session that listens is told of what it has notified itself of, though the COMMIT that did so was the router's own.
#[test]
fn a_session_hears_itself() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    client.run("LISTEN news").succeeded();
    transfer(&mut client);
    client.run("NOTIFY news, 'moved'").succeeded();
    client.send(|buffer| postgres_protocol::message::frontend::query("COMMIT", buffer).unwrap());
    let mut heard = 0;
    loop {
        let message = client.receive();
        match message.tag {
            b'A' => heard += usize::from(message.body.ends_with(b"news\0moved\0")),
            b'Z' => break,
            _ => {}
        }
    }
    assert_eq!(heard, 1);
    assert_eq!(balances(bed), AFTER);
}

/// A session that acts as somebody else decides as who it is logged in as: nobody else's word counts.
#[test]
fn a_session_with_the_authorization_of_another() {
    // Who may take it is looked at when a connection is made.
    let anew = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
    let on_shards = |bed: &Bed, sql: &str| {
        for shard in [0, 1] {
            let node = bed.cluster().shard(shard).primary.as_ref();
            bed.cluster().superuser_sql(node, "shop", sql).unwrap();
        }
    };
    let (bed, _turn) = bed();
    on_shards(
        bed,
        "CREATE ROLE another; GRANT ALL ON accounts TO another; ALTER ROLE app SUPERUSER",
    );
    on_shards(bed, anew);
    for guise in ["SET SESSION AUTHORIZATION another", "SET ROLE another"] {
        fill(bed);
        let mut client = bed.client();
        client.run(guise).succeeded();
        transfer(&mut client);
        client.run("COMMIT").succeeded();
        assert_eq!(balances(bed), AFTER);
        let last = "SELECT decided_by FROM switchyard.decisions ORDER BY decided_at DESC LIMIT 1";
        let decider = bed.cluster().shard(0).primary.as_ref();
        let decided_by = bed.cluster().sql(decider, last).unwrap();
        assert_eq!(decided_by, "app", "{guise}");
        assert_eq!(client.run("SELECT current_user").value(), "another");
    }
    on_shards(
        bed,
        "REVOKE ALL ON accounts FROM another; DROP ROLE another; ALTER ROLE app NOSUPERUSER",
    );
    on_shards(bed, anew);
}

/// A point of the protocol at which somebody dies: the shard whose connection is watched, the word, the side, and what has
/// become of the transaction.
type Point = (usize, &'static [u8], Hold, [&'static str; 2]);

/// The first shard decides.
const POINTS: [Point; 8] = [
    (1, b"PREPARE TRANSACTION", Hold::Before, BEFORE),
    (1, b"PREPARE TRANSACTION", Hold::After, BEFORE),
    (0, b"INSERT INTO switchyard", Hold::Before, BEFORE),
    (0, b"INSERT INTO switchyard", Hold::After, BEFORE),
    (0, b"COMMIT\0", Hold::Before, BEFORE),
    (0, b"COMMIT\0", Hold::After, AFTER),
    (1, b"COMMIT PREPARED", Hold::Before, AFTER),
    (1, b"COMMIT PREPARED", Hold::After, AFTER),
];

/// Lets a transfer come to a point, does what is to be done there, and says what the client was told, if anything.
fn at_point(proxied: &mut Proxied, point: Point, act: impl FnOnce(&mut Proxied)) -> Option<Reply> {
    let mut client = proxied.client();
    transfer(&mut client);
    let (shard, word, hold, _) = point;
    at_word((proxied, client, "COMMIT"), (shard, word, hold), act)
}

/// The same with a statement of a client's.
fn at_word(
    (proxied, mut client, sql): (&mut Proxied, Client, &str),
    (shard, word, hold): (usize, &'static [u8], Hold),
    act: impl FnOnce(&mut Proxied),
) -> Option<Reply> {
    proxied.of_shard(shard).hold_at(word, hold);
    std::thread::scope(|scope| {
        let committing = scope.spawn(|| client.try_run(sql));
        eventually("the point is reached", || proxied.of_shard(shard).is_held());
        act(proxied);
        committing.join().unwrap()
    })
}

/// Kills the router, and breaks its connections.
fn kill(proxied: &mut Proxied) {
    proxied.router_mut().process().kill();
    for proxy in proxied.proxies() {
        proxy.cut();
        proxy.set(Mode::Forward);
    }
}

#[test]
fn a_router_that_is_killed_at_any_point_leaves_nothing_undone() {
    for point in POINTS {
        let (bed, _turn) = bed();
        let mut proxied = Proxied::new(bed, "");
        let mut killed = Instant::now();
        let told = at_point(&mut proxied, point, |proxied| {
            killed = Instant::now();
            kill(proxied);
        });
        assert!(told.is_none(), "{point:?}: {told:?}");
        // The bed's own router ends it.
        eventually("nothing stays prepared", || {
            nothing_is_prepared(bed)
                && {
                    let busy = "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid()";
                    on_primaries(bed, busy) == ["0", "0"]
                }
        });
        assert!(
            killed.elapsed() < Duration::from_secs(5),
            "{point:?}: {:?}",
            killed.elapsed()
        );
        assert_eq!(balances(bed), point.3, "{point:?}");
    }
}

/// The connection is lost, and the router lives: the client is told how it has ended.
#[test]
fn a_connection_that_is_lost_at_any_point() {
    for point in POINTS {
        let (bed, _turn) = bed();
        let mut proxied = Proxied::new(bed, "");
        let told = at_point(&mut proxied, point, |proxied| {
            let proxy = proxied.of_shard(point.0);
            proxy.cut();
            proxy.set(Mode::Forward);
        })
        .unwrap();
        eventually("nothing stays prepared", || nothing_is_prepared(bed));
        assert_eq!(balances(bed), point.3, "{point:?}");
        match point.3 == AFTER {
            true => assert_eq!(told.tag.as_deref(), Some("COMMIT"), "{point:?}: {told:?}"),
            false => assert_eq!(told.sqlstate(), Some("08006"), "{point:?}: {told:?}"),
        }
    }
}

/// What is left prepared is ended soon also where the decider's backend, which is lent to the next client at once, is in another
/// transaction by then.
#[test]
fn the_next_transaction_of_the_deciders_backend_holds_nothing_up() {
    let (bed, _turn) = bed();
    let mut proxied = Proxied::new(bed, "pool_size = 1");
    let point = (1, b"PREPARE TRANSACTION".as_slice(), Hold::After, BEFORE);
    let told = at_point(&mut proxied, point, |proxied| {
        let proxy = proxied.of_shard(1);
        proxy.cut();
        proxy.set(Mode::Forward);
    });
    let begin = Instant::now();
    assert_eq!(told.unwrap().sqlstate(), Some("08006"));
    let mut next = proxied.client();
    next.run("BEGIN").succeeded();
    next.run("UPDATE accounts SET balance = 100 WHERE id = 0")
        .succeeded();
    eventually("nothing stays prepared", || nothing_is_prepared(bed));
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    next.run("COMMIT").succeeded();
    assert_eq!(balances(bed), BEFORE);
}

/// The server dies and comes back: whatever the client was told holds.
#[test]
fn a_server_that_is_killed_at_any_point() {
    for point in POINTS {
        let (bed, _turn) = bed();
        let mut proxied = Proxied::new(bed, "");
        let node = bed.cluster().shard(point.0).primary.as_ref();
        let told = at_point(&mut proxied, point, |proxied| {
            node.stop(Stop::Immediate).unwrap();
            let proxy = proxied.of_shard(point.0);
            proxy.cut();
            proxy.set(Mode::Forward);
            node.start().unwrap();
        })
        .unwrap();
        let mut client = bed.client();
        eventually("the server is back, and nothing stays prepared", || {
            client
                .run("SELECT 1 FROM accounts WHERE id IN (0, 1)")
                .failure
                .is_none()
                && nothing_is_prepared(bed)
        });
        // A server that dies with the COMMIT may or may not have it.
        let balances = balances(bed);
        assert!(
            balances == BEFORE || balances == AFTER,
            "{point:?}: {balances:?}"
        );
        match told.sqlstate() {
            None => assert_eq!(balances, AFTER, "{point:?}"),
            Some("08006") => assert_eq!(balances, BEFORE, "{point:?}"),
            Some("08007") => {}
            Some(other) => panic!("{point:?}: {other}"),
        }
    }
}

/// Where decisions cannot be recorded the transaction is refused, with what to do.
#[test]
fn decisions_that_cannot_be_recorded() {
    let (bed, _turn) = bed();
    let superuser = |sql: &str| {
        for shard in [0, 1] {
            let primary = bed.cluster().shard(shard).primary.as_ref();
            bed.cluster().superuser_sql(primary, "shop", sql).unwrap();
        }
    };
    superuser("DROP SCHEMA IF EXISTS switchyard CASCADE; ALTER DATABASE shop OWNER TO postgres");
    let fresh = bed.another_router("", &|node| node.port());
    let mut client = Client::connect(&Login::new(fresh.port()));
    transfer(&mut client);
    let failure = client.run("COMMIT").failure.unwrap();
    assert_eq!(failure.sqlstate(), "55000", "{failure:?}");
    assert_eq!(
        failure.message(),
        "the transaction on several shards cannot be committed: shard \"s0\" cannot record the decision: permission denied \
         for database shop"
    );
    assert_eq!(client.status, b'I');
    assert_eq!(balances(bed), BEFORE);
    superuser("ALTER DATABASE shop OWNER TO app");
    transfer(&mut client);
    client.run("COMMIT").succeeded();
    assert_eq!(balances(bed), AFTER);
}

/// Servers that prepare nothing are reported when the router starts, and the transaction is refused in PostgreSQL's own words.
#[test]
fn servers_that_prepare_nothing() {
    let cluster = ClusterSpec {
        settings: Settings::for_tests().with("max_prepared_transactions", "0"),
        ..ClusterSpec::for_tests(2, 0)
    };
    let bed = Bed::start(BedSpec::of(cluster).with_tables(DDL, TABLES));
    let mut client = bed.client();
    client
        .run("INSERT INTO accounts VALUES (0, 100)")
        .succeeded();
    client
        .run("INSERT INTO accounts VALUES (1, 100)")
        .succeeded();
    eventually("it is reported for both", || {
        let log = bed.router().log();
        log.matches("max_prepared_transactions is 0").count() == 2
    });
    transfer(&mut client);
    let failure = client.run("COMMIT").failure.unwrap();
    assert_eq!(failure.sqlstate(), "55000", "{failure:?}");
    assert_eq!(failure.message(), "prepared transactions are disabled");
    assert_eq!(
        failure.field('H'),
        "Set max_prepared_transactions to a nonzero value."
    );
    assert_eq!(balances(&bed), BEFORE);
    // Nor does a client prepare anything.
    transfer(&mut client);
    let failure = client.run("PREPARE TRANSACTION 'none'").failure.unwrap();
    assert_eq!(failure.sqlstate(), "55000", "{failure:?}");
    assert_eq!(client.status, b'I');
    assert_eq!(balances(&bed), BEFORE);
    // One shard's transactions need none of it.
    client
        .run("UPDATE accounts SET balance = 90 WHERE id = 0")
        .succeeded();
    assert_eq!(client.status, b'I');
}
