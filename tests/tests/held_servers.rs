//! Reads of a session that holds more than one server of a shard.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use switchyard_tests::cluster::Node;
use switchyard_tests::dialogue::{run, step};
use switchyard_tests::{Bed, BedSpec, Client, Login, Router, eventually, wait_for_replicas};

static BED: OnceLock<Bed> = OnceLock::new();

/// Replicas that are a minute behind all the while.
fn bed() -> &'static Bed {
    BED.get_or_init(|| {
        let bed = Bed::start(BedSpec::usual());
        wait_for_replicas(bed.cluster());
        for shard in bed.cluster().shards() {
            let replica = shard.replicas[0].as_ref();
            let delay = ("recovery_min_apply_delay", Some("1min"));
            replica.configure(&[delay]).unwrap();
            eventually("the delay is set", || {
                let shown = "SHOW recovery_min_apply_delay";
                bed.cluster().sql(replica, shown).unwrap() == "1min"
            });
        }
        bed
    })
}

/// One of the tests lets a replica catch up.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn router(lines: &str) -> Router {
    bed().another_router(lines, &|node: &dyn Node| node.port())
}

/// Whether a replica answers, and what it answers for the email.
fn read(client: &mut Client, user: u32) -> (bool, String) {
    let sql = format!("SELECT inet_server_port(), email FROM users WHERE id = {user}");
    let row = client.run(&sql).succeeded().texts().remove(0);
    let mut replicas = bed()
        .cluster()
        .shards()
        .iter()
        .map(|shard| &shard.replicas[0]);
    let is_replica = replicas.any(|replica| replica.port().to_string() == row[0]);
    (is_replica, row[1].clone())
}

#[test]
fn a_replica_held_by_the_session_does_not_serve_what_it_has_not_got() {
    let _turn = turn();
    let router = router("pool_mode = \"session\"");
    let mut client = Client::connect(&Login::new(router.port()));
    for user in 1..=10 {
        let value = format!("session {user}");
        read(&mut client, user);
        let update = format!("UPDATE users SET email = '{value}' WHERE id = {user}");
        client.run(&update).succeeded();
        assert_eq!(read(&mut client, user), (false, value.clone()));
        let sql = "SELECT email FROM users WHERE id = $1";
        let reply = client.extended(sql, &[Some(&user.to_string())], 0);
        assert_eq!(reply.succeeded().value(), value);
    }
}

#[test]
fn a_replica_held_by_the_session_serves_no_strong_reads() {
    let _turn = turn();
    let router = router("pool_mode = \"session\"\nconsistency = \"strong\"");
    let mut client = Client::connect(&Login::new(router.port()));
    client.run("BEGIN READ ONLY").succeeded();
    assert!(read(&mut client, 11).0, "a replica is held");
    client.run("COMMIT").succeeded();
    assert!(!read(&mut client, 11).0);
}

/// A primary that the session holds because it has read there once keeps no other read from the replica.
#[test]
fn a_primary_held_by_the_session_does_not_serve_what_a_replica_may() {
    let _turn = turn();
    let router =
        router("pool_mode = \"session\"\nconsistency = \"eventual\"\nmax_replica_lag = \"1h\"");
    let mut client = Client::connect(&Login::new(router.port()));
    let pid = "/* switchyard: primary */ SELECT pg_backend_pid() FROM users WHERE id = 31";
    let held = client.run(pid).succeeded().value();
    for _ in 0..10 {
        assert!(read(&mut client, 31).0);
        assert_eq!(client.run(pid).succeeded().value(), held);
    }
    // What can be found only on the primary is looked for there.
    client
        .run("CREATE TEMP TABLE users (id int8, email text)")
        .succeeded();
    client
        .run("INSERT INTO users VALUES (31, 'temporary')")
        .succeeded();
    let email = client.run("SELECT email FROM users").succeeded();
    assert_eq!(email.value(), "temporary");
}

/// Reads on one shard say nothing about the other, whose primary the session holds: the floor rises only where something ran.
#[test]
fn a_primary_held_by_the_session_raises_no_floor_while_it_rests() {
    let _turn = turn();
    let router = router("pool_mode = \"session\"");
    let mut client = Client::connect(&Login::new(router.port()));
    let shards = bed().cluster().shards();
    let user_of = |shard: usize| {
        let sql = "SELECT min(id) FROM users WHERE id > 40";
        let primary = shards[shard].primary.as_ref();
        bed().cluster().sql(primary, sql).unwrap().parse().unwrap()
    };
    let users: [u32; 2] = [user_of(0), user_of(1)];
    let update = format!("UPDATE users SET name = name WHERE id = {}", users[0]);
    client.run(&update).succeeded();
    assert!(!read(&mut client, users[0]).0);
    let replica = shards[0].replicas[0].as_ref();
    replica
        .configure(&[("recovery_min_apply_delay", None)])
        .unwrap();
    eventually("the replica serves", || {
        // These requests do not touch it, and take long enough for the replica to be measured.
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(500) {
            read(&mut client, users[1]);
        }
        client.run("BEGIN READ ONLY").succeeded();
        let (is_replica, _) = read(&mut client, users[0]);
        client.run("COMMIT").succeeded();
        is_replica
    });
    replica
        .configure(&[("recovery_min_apply_delay", Some("1min"))])
        .unwrap();
}

/// A batch is one transaction: what it reads after a write has the write.
#[test]
fn a_batch_reads_what_it_has_written() {
    let _turn = turn();
    for (lines, value) in [("", "first"), ("pool_mode = \"session\"", "second")] {
        let router = router(lines);
        let mut client = Client::connect(&Login::new(router.port()));
        let email = "SELECT email FROM users WHERE id = $1";
        let update = "UPDATE users SET email = $2 WHERE id = $1";
        let batch = run(email, &["21"])
            .parse("", update)
            .bind("", "", &["21", value])
            .execute("", 0)
            .parse("", email)
            .bind("", "", &["21"])
            .execute("", 0)
            .sync();
        let seen = step(&mut client, &batch, b'Z');
        let rows: Vec<&String> = seen.iter().filter(|line| line.starts_with('D')).collect();
        assert_eq!(rows.len(), 2, "{seen:?}");
        assert!(rows[1].contains(value), "{seen:?}");
    }
}
