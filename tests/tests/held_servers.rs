//! Reads of a session that holds more than one server of a shard.

use std::sync::OnceLock;

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
    let router = router("pool_mode = \"session\"\nconsistency = \"strong\"");
    let mut client = Client::connect(&Login::new(router.port()));
    client.run("BEGIN READ ONLY").succeeded();
    assert!(read(&mut client, 11).0, "a replica is held");
    client.run("COMMIT").succeeded();
    assert!(!read(&mut client, 11).0);
}

/// A batch is one transaction: what it reads after a write has the write.
#[test]
fn a_batch_reads_what_it_has_written() {
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
