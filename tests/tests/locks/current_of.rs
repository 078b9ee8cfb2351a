//! UPDATE and DELETE … WHERE CURRENT OF cursors that have locked rows of several shards: what is refused, and what fails. What works is in
//! slt/current_of.slt.

use switchyard_tests::{Client, Reply};

use super::{bed, ids, servers};

/// A cursor's query, a statement about its row, and why it is refused.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "SELECT id FROM jobs ORDER BY id",
        "UPDATE jobs SET note = 'x'",
        "It is not declared FOR UPDATE.",
    ),
    (
        "SELECT id FROM jobs ORDER BY id FOR KEY SHARE",
        "DELETE FROM jobs",
        "Others may change its rows, which are locked FOR KEY SHARE only.",
    ),
    (
        "SELECT id FROM jobs ORDER BY id FOR UPDATE",
        "UPDATE jobs SET id = 1000",
        "The row that the cursor is at is on one shard, and the statement needs others.",
    ),
    (
        "SELECT id FROM loose FOR UPDATE",
        "DELETE FROM loose",
        "It locks rows of \"loose\", which has no primary key to find them by.",
    ),
    (
        "SELECT id FROM (SELECT id FROM jobs) AS j FOR UPDATE",
        "DELETE FROM jobs",
        "It locks rows of a subquery or a function.",
    ),
    (
        "SELECT id FROM parts ORDER BY id FOR UPDATE",
        "DELETE FROM parts_low",
        "It locks another table of an inheritance tree.",
    ),
    (
        "SELECT id FROM secret ORDER BY id FOR UPDATE",
        "DELETE FROM secret",
        "It needs the privilege to read all of the table, without row security policies.",
    ),
];

fn run(client: &mut Client, sql: &str, extended: bool) -> Reply {
    match extended {
        true => client.extended(sql, &[], 0),
        false => client.run(sql),
    }
}

#[test]
fn what_could_be_another_row_is_refused() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    for sql in [
        "TRUNCATE loose, parts, secret",
        "INSERT INTO loose VALUES (1), (2), (3), (4)",
        "INSERT INTO parts VALUES (1), (2), (3), (4)",
        "INSERT INTO secret VALUES (1), (2), (3), (4)",
    ] {
        client.run(sql).succeeded();
    }
    for extended in [false, true] {
        for (query, write, detail) in REFUSED {
            let write = format!("{write} WHERE CURRENT OF c");
            client.run("BEGIN").succeeded();
            let declare = format!("DECLARE c CURSOR FOR {query}");
            run(&mut client, &declare, extended).succeeded();
            assert_eq!(client.run("FETCH 2 c").succeeded().rows.len(), 2, "{query}");
            client.run("SAVEPOINT s").succeeded();
            let failure = run(&mut client, &write, extended).failure.unwrap();
            assert_eq!(failure.sqlstate(), "0A000", "{write}: {failure:?}");
            assert_eq!(failure.field('D'), *detail, "{write}");
            assert!(!failure.field('H').is_empty(), "{write}");
            assert_eq!(client.status, b'E');
            client.run("ROLLBACK TO s").succeeded();
            // The cursor goes on.
            assert_eq!(client.run("FETCH c").succeeded().rows.len(), 1, "{query}");
            client.run("ROLLBACK").succeeded();
        }
    }
}

/// The rows that are where others were are not taken for them.
#[test]
fn a_table_that_has_got_another_file() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    let empty = "DO $$ BEGIN EXECUTE 'TRUNCATE jobs'; END $$";
    let on = |shard: &str| format!("/* switchyard: shard={shard} */ {empty}");
    for truncations in [vec!["TRUNCATE jobs".to_owned()], vec![on("s0"), on("s1")]] {
        client.run("BEGIN").succeeded();
        let declare = "DECLARE c CURSOR FOR SELECT id FROM jobs ORDER BY id FOR UPDATE";
        client.run(declare).succeeded();
        client.run("MOVE 7 c").succeeded();
        client
            .run("UPDATE jobs SET note = 'seen' WHERE CURRENT OF c")
            .succeeded();
        for truncation in truncations {
            client.run(&truncation).succeeded();
        }
        for id in 100..160 {
            client
                .run(&format!("INSERT INTO jobs (id) VALUES ({id})"))
                .succeeded();
        }
        let message = "WHERE CURRENT OF this cursor over rows of several shards is not supported";
        let failure = client
            .run("DELETE FROM jobs WHERE CURRENT OF c")
            .failure
            .unwrap();
        assert_eq!((failure.sqlstate(), failure.message()), ("0A000", message));
        client.run("ROLLBACK").succeeded();
        assert_eq!(
            ids(&mut client, "SELECT count(*) FROM jobs WHERE note IS NULL"),
            [60]
        );
    }
}

/// A row that has moved is on another shard, where the cursor has never been.
#[test]
fn rows_that_have_moved() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    client.run("BEGIN").succeeded();
    let declare = "DECLARE c CURSOR FOR SELECT id FROM jobs ORDER BY id FOR UPDATE";
    client.run(declare).succeeded();
    client.run("MOVE 3 c").succeeded();
    client.run("SAVEPOINT s").succeeded();
    let moving = "UPDATE jobs SET id = id + 1000 WHERE id < 30";
    client.run(moving).succeeded();
    let current = "UPDATE jobs SET note = 'moved' WHERE CURRENT OF c";
    assert_eq!(client.run(current).sqlstate(), Some("0A000"));
    client.run("ROLLBACK").succeeded();
}

/// Who may not read the table finds no rows in it, but has the cursor as ever.
#[test]
fn a_role_that_reads_some_columns_only() {
    let (bed, _turn) = bed();
    for shard in bed.cluster().shards() {
        let sql = "CREATE ROLE partial; GRANT partial TO app; GRANT SELECT (id), UPDATE ON jobs TO partial";
        let node = shard.primary.as_ref();
        bed.cluster().superuser_sql(node, "shop", sql).unwrap();
    }
    let mut client = bed.client();
    for sql in [
        "SET ROLE partial",
        "BEGIN",
        "DECLARE c CURSOR FOR SELECT id FROM jobs WHERE id < 9 FOR UPDATE",
    ] {
        client.run(sql).succeeded();
    }
    assert_eq!(client.run("FETCH ALL c").succeeded().rows.len(), 8);
    let failure = client
        .run("UPDATE jobs SET note = '' WHERE CURRENT OF c")
        .failure
        .unwrap();
    assert_eq!(failure.sqlstate(), "0A000");
}

/// The rows of all pieces in which they are brought have their places.
#[test]
fn many_rows() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    client
        .run("INSERT INTO jobs SELECT n, 'many' FROM generate_series(101, 2600) AS n")
        .succeeded();
    for (order, extended) in [
        ("id", false),
        ("id DESC", true),
        ("lower(state), id", false),
    ] {
        client.run("BEGIN").succeeded();
        let declare = format!(
            "DECLARE c CURSOR FOR SELECT id FROM jobs WHERE state = 'many' ORDER BY {order} FOR UPDATE"
        );
        client.run(&declare).succeeded();
        for step in [1, 1_200, 1_299] {
            let rows = client.run(&format!("FETCH {step} c")).succeeded().texts();
            let at = rows.last().unwrap()[0].clone();
            let write = "UPDATE jobs SET note = 'at ' || id WHERE CURRENT OF c RETURNING id, note";
            let written = run(&mut client, write, extended).succeeded().texts();
            assert_eq!(written, [[at.clone(), format!("at {at}")]]);
        }
        client.run("COMMIT").succeeded();
    }
    assert_eq!(
        ids(
            &mut client,
            "SELECT id FROM jobs WHERE note IS NOT NULL ORDER BY id"
        ),
        [101, 1301, 1400, 2600]
    );
}

/// A server that is gone takes the transaction with it, and nothing stays.
#[test]
fn a_shard_is_lost() {
    let (bed, _turn) = bed();
    for extended in [false, true] {
        let mut client = bed.client();
        client.run("BEGIN").succeeded();
        let declare = "DECLARE c CURSOR FOR SELECT id FROM jobs ORDER BY id FOR UPDATE";
        client.run(declare).succeeded();
        for _ in 0..8 {
            client.run("MOVE c").succeeded();
            run(
                &mut client,
                "UPDATE jobs SET note = 'lost' WHERE CURRENT OF c",
                extended,
            )
            .succeeded();
        }
        // What the router has last said to them.
        let kill = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
            WHERE state = 'idle in transaction' AND (query LIKE 'CLOSE \"c\"%' OR query LIKE 'UPDATE jobs %')";
        for mut server in servers(bed) {
            assert_eq!(server.run(kill).succeeded().value(), "1");
        }
        let deleted = run(&mut client, "DELETE FROM jobs WHERE CURRENT OF c", extended);
        assert_eq!(deleted.sqlstate(), Some("08006"), "{deleted:?}");
        client.run("ROLLBACK").succeeded();
        assert_eq!(
            ids(&mut client, "SELECT count(*) FROM jobs WHERE note IS NULL"),
            [60]
        );
    }
}
