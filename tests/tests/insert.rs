//! Rows inserted on several shards where something goes wrong on the way: the client gets one error, the session goes on, and no row
//! is on any shard. And that many rows take no longer than they have to.

use std::time::{Duration, Instant};

use switchyard_tests::hardship::{
    self, ROWS, WAYS, backends, bed, everywhere, failure, goes_on, kill, nothing_is_left, send,
    superuser,
};
use switchyard_tests::{Bed, Client, Login, Reply, Router, eventually};

/// An INSERT that waits on one shard.
const WAITING: &str = "wait_event_type = 'Lock' AND (query LIKE 'INSERT INTO readings%' OR query LIKE 'COPY %readings%')";

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

/// Rows of a query, which belong to other shards than those they are made of.
const FROM_QUERY: &str = "INSERT INTO readings SELECT 2000 + id, 1, payload FROM readings";

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
    let id = key_of(bed, 0);
    let taken = format!(
        "INSERT INTO readings SELECT 2000 + id, 1, 'x' FROM readings UNION ALL SELECT {id}, 1, 'x'"
    );
    fails(bed, &taken, "23505");
    let null = "INSERT INTO readings SELECT nullif(2000 + id, 2030), 1, 'x' FROM readings";
    fails(bed, null, "23502");
    let divided = "INSERT INTO readings SELECT 2000 + id / (id - 30), 1, 'x' FROM readings";
    fails(bed, divided, "22012");
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
    let kinds = [insert("2050"), FROM_QUERY.to_owned()];
    for (way, sql) in WAYS
        .iter()
        .flat_map(|way| kinds.iter().map(|sql| (*way, sql)))
    {
        let holder = holder(bed);
        let mut client = bed.client();
        send(&mut client, way, sql);
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
    let kinds = [insert("2050"), FROM_QUERY.to_owned()];
    for (way, sql) in WAYS
        .iter()
        .flat_map(|way| kinds.iter().map(|sql| (*way, sql)))
    {
        let holder = holder(bed);
        let mut client = bed.client();
        send(&mut client, way, sql);
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

/// Rows that pass through on their way from a workspace to their shards.
#[test]
fn very_many_rows_of_a_query() {
    let (bed, _turn) = bed();
    let sql = format!(
        "INSERT INTO readings (id, divisor, payload) SELECT 10000 + n, n, 'row ' || n FROM generate_series(0, {}) AS n",
        MANY - 1
    );
    let mut client = bed.client();
    for way in ["simple", "extended"] {
        let reply = match way {
            "simple" => client.run(&sql).succeeded(),
            _ => client.extended(&sql, &[], 1).succeeded(),
        };
        assert_eq!(reply.tag.as_deref(), Some(&*format!("INSERT 0 {MANY}")));
        assert_eq!(rows(bed), ROWS + MANY);
        let one = "SELECT payload FROM readings WHERE id = 12345";
        assert_eq!(client.run(one).succeeded().value(), "row 2345");
        everywhere(bed, "DELETE FROM readings WHERE id >= 10000");
    }
}

/// More than there is room for on the way, while there are rows left to send: a server that is not listened to takes none.
#[test]
fn very_many_rows_of_a_query_with_much_to_say_of_them() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    let trigger = "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE NOTICE '%', left(NEW.payload, 900); RETURN NEW; END $$;
        CREATE TRIGGER tells BEFORE INSERT ON readings FOR EACH ROW EXECUTE FUNCTION tell()";
    everywhere(bed, trigger);
    let sql = "INSERT INTO readings (id, divisor, payload)
        SELECT 10000 + n, n, repeat('x', 2000) FROM generate_series(1, 40000) AS n";
    let reply = client.run(sql).succeeded();
    assert_eq!(reply.tag.as_deref(), Some("INSERT 0 40000"));
    assert_eq!(client.notices.len(), 40_000);
    everywhere(
        bed,
        "DELETE FROM readings WHERE id >= 10000; DROP TRIGGER tells ON readings; DROP FUNCTION tell()",
    );
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
