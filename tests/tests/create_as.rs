//! Tables made of rows of several shards where something goes wrong on the way: the client gets one error, the session goes on, and
//! the table is on no shard.

use switchyard_tests::hardship::{
    self, ROWS, Row, WAYS, backends, bed, everywhere, failure, goes_on, kill, nothing_is_left,
    router, send, superuser,
};
use switchyard_tests::{Bed, Client, Login, Router, eventually};

/// More rows than can come to an end, one after the other.
const ENDLESS: &str = "CREATE TABLE made AS SELECT a.payload FROM readings AS a, readings AS b, readings AS c, readings AS d";
/// Takes rows.
const LOADING: &str = "state = 'active' AND query LIKE 'COPY %made% FROM STDIN%'";

/// On which shards the table is.
fn made(bed: &Bed) -> [bool; 2] {
    let found = "SELECT count(*) FROM pg_class WHERE relname = 'made'";
    [0, 1].map(|shard| superuser(bed, shard, found) != "0")
}

/// A statement fails, sent in each way, and makes nothing.
#[track_caller]
fn fails(bed: &Bed, router: &Router, sql: &str, expected: &str, mut act: impl FnMut(&Client)) {
    let connect = |router: &Router| Client::connect(&Login::new(router.port()));
    hardship::fails(bed, (router, &connect), sql, expected, |client| act(client));
    assert_eq!(made(bed), [false, false], "{sql}");
}

#[test]
fn a_query_that_fails_on_a_shard() {
    let (bed, _turn) = bed();
    let statements = [
        "CREATE TABLE made AS SELECT id, payload FROM checked",
        "SELECT id, payload INTO made FROM checked",
        "CREATE TEMP TABLE made AS SELECT id, payload FROM checked",
    ];
    for shard in [0, 1] {
        let _row = Row::on(bed, shard, 0);
        for sql in statements {
            fails(bed, bed.router(), sql, "22012", |_| ());
        }
    }
}

/// The table has some of the rows by then.
#[test]
fn a_query_that_fails_after_many_rows() {
    let (bed, _turn) = bed();
    let sql = "CREATE TABLE made AS SELECT 100 / (id - 40), payload \
               FROM (SELECT * FROM readings ORDER BY id OFFSET 0) AS r";
    fails(bed, bed.router(), sql, "22012", |_| ());
}

#[test]
fn more_rows_than_may_be_fetched() {
    let (bed, _turn) = bed();
    let router = router(bed, "max_fetch_bytes = \"500kB\"");
    let sql = "CREATE TABLE made AS SELECT * FROM readings";
    fails(bed, &router, sql, "53400", |_| ());
}

#[test]
fn a_cancel_request() {
    let (bed, _turn) = bed();
    fails(bed, bed.router(), ENDLESS, "57014", |client| {
        eventually("rows come", || backends(bed, "1", LOADING).len() == 1);
        Client::cancel(&client.key, bed.router().port());
    });
}

/// By somebody who does not know what else works for the statement.
#[test]
fn a_copy_that_is_cancelled_on_its_server() {
    let (bed, _turn) = bed();
    fails(bed, bed.router(), ENDLESS, "57014", |_| {
        eventually("it is cancelled", || {
            backends(bed, "pg_cancel_backend(pid)", LOADING) == ["t"]
        });
    });
}

#[test]
fn a_backend_that_is_terminated_as_it_takes_rows() {
    let (bed, _turn) = bed();
    fails(bed, bed.router(), ENDLESS, "08006", |_| kill(bed, LOADING));
}

#[test]
fn a_client_that_disappears() {
    let (bed, _turn) = bed();
    for way in WAYS {
        let mut client = bed.client();
        send(&mut client, way, ENDLESS);
        eventually("rows come", || backends(bed, "1", LOADING).len() == 1);
        drop(client);
        nothing_is_left(bed, bed.router());
        assert_eq!(made(bed), [false, false], "{way:?}");
    }
}

/// What one shard refuses is made on none.
#[test]
fn a_table_that_one_shard_does_not_take() {
    let (bed, _turn) = bed();
    everywhere(
        bed,
        "CREATE SCHEMA kept; GRANT USAGE, CREATE ON SCHEMA kept TO app",
    );
    superuser(bed, 1, "REVOKE CREATE ON SCHEMA kept FROM app");
    let sql = "CREATE TABLE kept.made AS SELECT id FROM readings";
    fails(bed, bed.router(), sql, "42501", |_| ());
    superuser(bed, 1, "CREATE TABLE kept.made ()");
    for way in WAYS {
        let mut client = bed.client();
        send(&mut client, way, sql);
        assert_eq!(failure(&mut client, way).sqlstate(), "42P07", "{way:?}");
        goes_on(&mut client, way, false);
        assert_eq!(made(bed), [false, true], "{way:?}");
    }
    everywhere(bed, "DROP SCHEMA kept CASCADE");
}

/// That a table exists is noticed whatever the client wants to be told.
#[test]
fn a_table_that_exists_gets_no_rows() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    client.run("SET client_min_messages = 'error'").succeeded();
    let sql = "CREATE TABLE IF NOT EXISTS made AS SELECT * FROM readings";
    let first = client.run(sql).succeeded();
    assert_eq!(first.tag.as_deref(), Some(&*format!("SELECT {ROWS}")));
    assert_eq!(made(bed), [true, true]);
    let again = client.run(sql).succeeded();
    assert_eq!(again.tag.as_deref(), Some("CREATE TABLE AS"));
    let again = client.extended(sql, &[], 0).succeeded();
    assert_eq!(again.tag.as_deref(), Some("CREATE TABLE AS"));
    let count = client.run("SELECT count(*) FROM made").succeeded();
    assert_eq!(count.value(), ROWS.to_string());
    client.run("DROP TABLE made").succeeded();
    assert_eq!(made(bed), [false, false]);
}

/// A name that the search path finds somewhere else first is made where PostgreSQL makes it.
#[test]
fn a_name_that_a_temporary_table_has() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    for sql in [
        "CREATE TEMP TABLE made (id bigint)",
        "CREATE TABLE public.made AS SELECT id FROM readings WHERE id > 5",
    ] {
        client.run(sql).succeeded();
    }
    let count = |client: &mut Client, table: &str| {
        let count = client.run(&format!("SELECT count(*) FROM {table}"));
        count.succeeded().value()
    };
    assert_eq!(count(&mut client, "made"), "0");
    assert_eq!(count(&mut client, "public.made"), (ROWS - 5).to_string());
    client.run("DROP TABLE public.made").succeeded();
    client.terminate();
    nothing_is_left(bed, bed.router());
    assert_eq!(made(bed), [false, false]);
}
