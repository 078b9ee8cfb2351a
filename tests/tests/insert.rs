//! Rows inserted on several shards where something goes wrong on the way: the client gets one error, the session goes on, and no row
//! is on any shard. And that many rows take no longer than they have to.

use std::time::{Duration, Instant};

use switchyard_tests::hardship::{
    self, ROWS, WAYS, backends, bed, everywhere, failure, goes_on, kill, nothing_is_left, send,
    superuser,
};
use switchyard_tests::{Bed, Client, Login, Reply, Router, eventually};

/// An INSERT that waits on one shard.
const WAITING: &str = "wait_event_type = 'Lock' AND query LIKE 'INSERT INTO readings%'";

/// How many rows the shards have.
fn rows(bed: &Bed) -> usize {
    let count = "SELECT count(*) FROM readings";
    [0, 1]
        .map(|shard| superuser(bed, shard, count).parse::<usize>().unwrap())
        .iter()
        .sum()
}

/// A key of a row of a shard.
fn key_of(bed: &Bed, shard: usize) -> String {
    superuser(bed, shard, "SELECT min(id) FROM readings")
}

/// New rows on both shards; the last has this key.
fn insert(key: &str) -> String {
    let rows: Vec<String> = (2000..2020).map(|id| format!("({id}, 1, 'new')")).collect();
    format!(
        "INSERT INTO readings VALUES {}, ({key}, 1, 'last') RETURNING id",
        rows.join(", ")
    )
}

#[track_caller]
fn fails(bed: &Bed, sql: &str, expected: &str) {
    let connect = |router: &Router| Client::connect(&Login::new(router.port()));
    hardship::fails(bed, (bed.router(), &connect), sql, expected, |_| ());
    assert_eq!(rows(bed), ROWS, "{sql}");
}

#[test]
fn a_row_that_a_shard_refuses() {
    let (bed, _turn) = bed();
    for shard in [0, 1] {
        fails(bed, &insert(&key_of(bed, shard)), "23505");
    }
    fails(bed, &insert("NULL"), "23502");
    fails(bed, &insert("'none'"), "22P02");
    fails(bed, &insert("2.5"), "0A000");
    fails(bed, &insert("(SELECT max(id) FROM readings)"), "0A000");
}

/// A row of somebody else's with one of the keys, not committed.
fn holder(bed: &Bed) -> Client {
    let mut holder = bed.client();
    holder.run("BEGIN").succeeded();
    let insert = "INSERT INTO readings VALUES (2007, 1, 'held')";
    holder.run(insert).succeeded();
    holder
}

/// An INSERT that waits for another transaction's row on one shard fails by what is done to it.
#[track_caller]
fn fails_waiting(bed: &Bed, expected: &str, act: impl Fn(&Client)) {
    for way in WAYS {
        let holder = holder(bed);
        let mut client = bed.client();
        send(&mut client, way, &insert("2050"));
        eventually("it waits", || backends(bed, "1", WAITING).len() == 1);
        act(&client);
        let failure = failure(&mut client, way);
        assert_eq!(failure.sqlstate(), expected, "{way:?}: {failure:?}");
        goes_on(&mut client, way, expected == "08006");
        holder.terminate();
        client.terminate();
        nothing_is_left(bed, bed.router());
        assert_eq!(rows(bed), ROWS, "{way:?}");
    }
}

#[test]
fn a_cancel_request() {
    let (bed, _turn) = bed();
    fails_waiting(bed, "57014", |client| {
        Client::cancel(&client.key, bed.router().port());
    });
}

#[test]
fn a_backend_that_is_terminated() {
    let (bed, _turn) = bed();
    fails_waiting(bed, "08006", |_| kill(bed, WAITING));
}

#[test]
fn a_client_that_disappears() {
    let (bed, _turn) = bed();
    for way in WAYS {
        let holder = holder(bed);
        let mut client = bed.client();
        send(&mut client, way, &insert("2050"));
        eventually("it waits", || backends(bed, "1", WAITING).len() == 1);
        drop(client);
        holder.terminate();
        nothing_is_left(bed, bed.router());
        assert_eq!(rows(bed), ROWS, "{way:?}");
    }
}

/// So many rows, as clients' libraries write them.
const MANY: usize = 10_000;
/// They take so long at most: a tenth of it by a debug build.
const LONGEST: Duration = Duration::from_secs(30);

fn many(row: impl Fn(usize) -> String) -> String {
    let rows: Vec<String> = (0..MANY).map(row).collect();
    let rows = rows.join(", ");
    format!("INSERT INTO readings (id, divisor, payload) VALUES {rows} RETURNING id")
}

#[track_caller]
fn are_inserted(bed: &Bed, insert: impl FnOnce(&mut Client) -> Reply) {
    let mut client = bed.client();
    let began = Instant::now();
    let reply = insert(&mut client).succeeded();
    let took = began.elapsed();
    assert_eq!(reply.tag.as_deref(), Some(&*format!("INSERT 0 {MANY}")));
    let expected: Vec<[String; 1]> = (0..MANY).map(|n| [(10_000 + n).to_string()]).collect();
    assert_eq!(reply.texts(), expected);
    assert_eq!(rows(bed), ROWS + MANY);
    let one = "SELECT payload FROM readings WHERE id = 12345";
    assert_eq!(client.run(one).succeeded().value(), "row 2345");
    everywhere(bed, "DELETE FROM readings WHERE id >= 10000");
    assert!(took < LONGEST, "{took:?}");
}

#[test]
fn very_many_rows_of_literals() {
    let (bed, _turn) = bed();
    let sql = many(|n| format!("({}, {n}, 'row {n}')", 10_000 + n));
    are_inserted(bed, |client| client.run(&sql));
    are_inserted(bed, |client| client.extended(&sql, &[], 0));
}

#[test]
fn very_many_rows_of_parameters() {
    let (bed, _turn) = bed();
    let sql = many(|n| format!("(${}, ${}, ${})", 3 * n + 1, 3 * n + 2, 3 * n + 3));
    let values =
        (0..MANY).flat_map(|n| [(10_000 + n).to_string(), n.to_string(), format!("row {n}")]);
    let values: Vec<String> = values.collect();
    let values: Vec<Option<&str>> = values.iter().map(|value| Some(value.as_str())).collect();
    are_inserted(bed, |client| client.extended(&sql, &values, 0));
}
