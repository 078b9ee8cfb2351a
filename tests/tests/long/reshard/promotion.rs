//! Primaries that die while rows move, and whose standbys are promoted: what was acknowledged is there, and the same command goes on.

use std::collections::BTreeSet;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};

use switchyard_tests::{Asks, Client, Login, Reshard, eventually};

use super::load::{Over, ROWS, stand_with_replicas};
use super::steps::{APPLY, DECISION, Held, Hold, Steps};

/// The first of the rows that are written meanwhile.
const NEW: usize = 1_000_000;

/// Inserts one row after the other; those that were acknowledged. What fails may or may not be there.
fn insert(login: &Login, over: &AtomicBool) -> BTreeSet<usize> {
    let mut written = BTreeSet::new();
    let mut client = None;
    for id in NEW.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        if client.is_none() {
            client = Client::try_connect(login).ok();
        }
        let sql = format!("INSERT INTO marks VALUES ({id}, 0)");
        let reply = client.as_mut().map(|client| client.try_run(&sql));
        match reply {
            Some(Some(reply)) if reply.failure.is_none() => drop(written.insert(id)),
            Some(Some(_)) => {}
            Some(None) | None => client = None,
        }
    }
    written
}

/// Commits of a shard wait for its standby.
fn wait_for_standby(stand: &Reshard, shard: usize) {
    let primary = stand.primary(shard).1;
    let settings = [
        ("synchronous_commit", Some("on")),
        ("synchronous_standby_names", Some("*")),
    ];
    primary.configure(&settings).unwrap();
    let waits = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    eventually("it waits for its standby", || {
        stand.superuser(shard, waits) == "1"
    });
}

/// The program ends, as its shard does, and says the same command again.
fn goes_on(
    stand: &Reshard,
    (mut program, held): (Child, Held<'_>),
    shard: usize,
    command: &[&str],
) {
    stand.promote(shard);
    held.release();
    program.wait().unwrap();
    eventually("the same command goes on", || {
        stand.run(Asks::Three, command).well
    });
}

#[test]
fn standbys_are_promoted_while_rows_move() {
    let steps = Steps::of(stand_with_replicas());
    let stand = &steps.stand;
    wait_for_standby(stand, 0);
    wait_for_standby(stand, 1);
    let over = AtomicBool::new(false);
    let login = stand.bed.login();
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| insert(&login, &over));
        let ends = Over(&over);
        // A source, with a group that is prepared and not decided.
        let rows = Hold::Shard(1, "SELECT FROM marks FOR UPDATE");
        let at = steps.up_to(&APPLY, &[rows, DECISION]);
        goes_on(stand, at, 1, &APPLY);
        // A target, with a group that is decided and not let go.
        let back = ["rollback", "--yes", "--group-rows", "100"];
        let rows = Hold::Shard(2, "SELECT FROM marks FOR UPDATE");
        let at = steps.up_to(&back, &[rows, Hold::Router]);
        goes_on(stand, at, 0, &back);
        drop(ends);
        writer.join().unwrap()
    });
    stand.run(Asks::Three, &["verify"]).succeeded();
    let old = format!("SELECT count(*), count(DISTINCT id) FROM marks WHERE id < {NEW}");
    let mut client = stand.bed.client();
    let rows = ROWS.to_string();
    assert_eq!(client.run(&old).succeeded().texts(), [[rows.clone(), rows]]);
    let new = format!("SELECT id FROM marks WHERE id >= {NEW}");
    let there = client.run(&new).succeeded().texts().concat();
    let found: BTreeSet<usize> = there.iter().map(|id| id.parse().unwrap()).collect();
    assert_eq!(found.len(), there.len(), "none is there twice");
    let lost: Vec<_> = written.difference(&found).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert!(written.len() > 20, "the client has worked");
    assert_eq!(stand.superuser(2, "SELECT count(*) FROM marks"), "0");
}
