//! Reads by a column with a global unique index: the same answers as a plain server's, from one shard, and right while rows move.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use switchyard_tests::{Client, Reply};

use super::unique::{BEDS, Pair};

/// Reads that the index may help with, and others.
const READS: &[&str] = &[
    "SELECT * FROM $T WHERE email = 'mail7'",
    "SELECT * FROM $T WHERE email = 'nobody'",
    "SELECT * FROM $T WHERE email = ''",
    "SELECT * FROM $T WHERE email = 'it''s \\'",
    "SELECT * FROM $T WHERE email = E'it\\'s \\\\'",
    "SELECT * FROM $T WHERE email = NULL",
    "SELECT * FROM $T WHERE 'mail' || 8 = email",
    "SELECT id FROM $T AS u WHERE u.email = 'mail7' AND name = 'name1'",
    "SELECT id FROM $T AS u WHERE u.email = 'mail7' AND name = 'name2'",
    "SELECT id FROM $T WHERE email = 'mail7' OR name = 'name1' ORDER BY id",
    "SELECT id FROM $T WHERE email = 'mail7' ORDER BY name, id LIMIT 1",
    "SELECT id FROM $T WHERE email = 'mail7' LIMIT 0",
    "SELECT id FROM $T WHERE email = 'mail7' OFFSET 1",
    "SELECT 1 AS one FROM $T WHERE email = 'mail9' LIMIT 1",
    "SELECT count(*) FROM $T WHERE email = 'mail7'",
    "SELECT count(*) FROM $T WHERE email = 'nobody'",
    "SELECT name, count(*), max(id) FROM $T WHERE email = 'mail7' GROUP BY name",
    "SELECT name, count(*) FROM $T WHERE email = 'mail7' GROUP BY name HAVING count(*) > 1",
    "SELECT DISTINCT name FROM $T WHERE email = 'mail7'",
    "SELECT EXISTS (SELECT FROM $T WHERE email = 'mail7')",
    "SELECT u.id, o.item FROM $T AS u JOIN $T_o AS o ON o.id = u.id WHERE u.email = 'mail7' ORDER BY o.item",
    "SELECT u.id, o.item FROM $T AS u LEFT JOIN $T_o AS o ON o.id = u.id WHERE u.email = 'mail29'",
    "SELECT sum(o.item) FROM $T AS u JOIN $T_o AS o USING (id) WHERE u.email = 'mail7'",
    "SELECT o.item FROM $T_o AS o LEFT JOIN $T AS u ON o.id = u.id AND u.email = 'mail7' WHERE o.item < 5",
    "SELECT id FROM $T WHERE email = 'mail7' AND email = 'mail8'",
    "SELECT id FROM $T WHERE email IN ('mail7', 'mail8')",
    "SELECT id FROM $T WHERE email = 'mail7' UNION ALL SELECT id FROM $T WHERE email = 'mail12'",
    "SELECT a.id, b.id FROM $T AS a, $T AS b WHERE a.email = 'mail7' AND b.email = 'mail8'",
    "SELECT id, (SELECT count(*) FROM $T_o AS o WHERE o.id = u.id) FROM $T AS u WHERE email = 'mail9'",
    "SELECT 1 / (id - 7) FROM $T WHERE email = 'mail7'",
    "SELECT id, row_number() OVER (ORDER BY name) FROM $T WHERE email = 'mail7'",
    "WITH u AS (SELECT * FROM $T WHERE email = 'mail10') SELECT id FROM u",
    "SELECT id FROM (SELECT * FROM $T) AS u WHERE email = 'mail10'",
    "SELECT id FROM ONLY public.$T WHERE email = 'mail10' FOR UPDATE",
    "SELECT id FROM $T WHERE email = 7",
];

/// The SQLSTATE, the rows and the tag.
fn told(reply: &Reply) -> (Option<&str>, Vec<Vec<String>>, Option<&str>) {
    (reply.sqlstate(), reply.texts(), reply.tag.as_deref())
}

/// Reads by the column: the same comes of them, whatever they do with the row.
#[test]
fn reads_by_the_column() {
    let (bed, _turn) = BEDS.take();
    let mut pair = Pair::new(bed, "email text, name text");
    let pair = &mut pair;
    let child = pair.text("CREATE TABLE $T_o (id int8, item int, PRIMARY KEY (id, item))");
    for sql in [
        &*child,
        &*pair.text("SELECT create_distributed_table('$T_o', 'id')"),
    ] {
        pair.router.run(sql).succeeded();
    }
    pair.oracle.run(&child).succeeded();
    pair.succeeds(
        "INSERT INTO $T SELECT n, 'mail' || n, 'name' || n % 3 FROM generate_series(1, 30) AS n",
    );
    pair.succeeds(
        "INSERT INTO $T VALUES (31, NULL, 'none'), (32, '', 'empty'), (33, 'it''s \\', 'quoted')",
    );
    pair.succeeds("INSERT INTO $T_o SELECT n / 3, n FROM generate_series(1, 60) AS n");
    for sql in READS {
        let sql = pair.text(sql);
        for block in ["", "BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
            for by in [Client::run, |client: &mut Client, sql: &str| {
                client.extended(sql, &[], 0)
            }] {
                if !block.is_empty() {
                    pair.succeeds(block);
                }
                let (router, oracle) = (by(&mut pair.router, &sql), by(&mut pair.oracle, &sql));
                assert_eq!(told(&router), told(&oracle), "{sql}");
                if !block.is_empty() {
                    pair.succeeds("ROLLBACK");
                }
            }
        }
    }
    let by = "SELECT id, name FROM $T WHERE email = $1";
    for email in ["mail3", "mail4", "mail5", "nobody", ""] {
        pair.extended(by, &[Some(email)]).succeeded();
        pair.extended(
            "SELECT u.id, item FROM $T AS u JOIN $T_o USING (id) WHERE email = $1 ORDER BY 2",
            &[Some(email)],
        )
        .succeeded();
    }
    pair.extended(by, &[None]).succeeded();
    // What the session itself has just changed is found.
    pair.succeeds("BEGIN");
    pair.succeeds("UPDATE $T SET email = 'mine' WHERE id = 3");
    pair.succeeds("UPDATE $T SET id = 1003 WHERE id = 4");
    pair.succeeds("DELETE FROM $T WHERE id = 5");
    for email in ["mail3", "mail4", "mail5", "mine"] {
        pair.extended(by, &[Some(email)]).succeeded();
        pair.succeeds(&format!("SELECT id FROM $T WHERE email = '{email}'"));
    }
    pair.succeeds("ROLLBACK");
    pair.check();
}

#[test]
fn reads_by_columns_of_other_types() {
    for (column, values) in [
        ("int4", ["7", "-7", "2147483647", "3000000000"]),
        ("char(5)", ["'a'", "'a  '", "'b'::text", "'longer than it'"]),
        ("bytea", ["'\\x00ff'", "'abc'", "'\\\\'", "''"]),
        (
            "uuid",
            [
                "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
                "'{A0EEBC999C0B4EF8BB6D6BB9BD380A11}'",
                "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12'",
                "'nothing'",
            ],
        ),
        ("numeric", ["7", "7.00", "'NaN'", "1e3"]),
    ] {
        let (bed, _turn) = BEDS.take();
        let mut pair = Pair::new(bed, &format!("email {column}"));
        for (id, value) in values.iter().enumerate() {
            pair.run(&format!("INSERT INTO $T VALUES ({id}, {value})"));
        }
        for value in values {
            let read = format!("SELECT * FROM $T WHERE email = {value} AND id >= 0");
            pair.run(&read);
            pair.extended(&read, &[]);
        }
        pair.check();
    }
}

/// A shard that has nothing to do with the row is not asked.
#[test]
fn reads_by_the_column_go_to_one_shard() {
    let (bed, _turn) = BEDS.take();
    let mut pair = Pair::new(bed, "email text");
    let insert = pair.apart(1);
    pair.router.run(&insert).succeeded();
    let (sql, table) = (
        pair.text("SELECT id FROM $T WHERE email = 'v"),
        pair.table.clone(),
    );
    let id = insert.split(['(', ',']).nth(1).unwrap().to_owned();
    let (by_value, other) = (format!("{sql}{id}'"), format!("{sql}no such'"));
    let count = pair.text("SELECT count(*) FROM $T");
    let empty = |shard: &switchyard_tests::cluster::Shard| {
        bed.cluster().sql(shard.primary.as_ref(), &count).unwrap() == "0"
    };
    let empty = bed.cluster().shards().iter().find(|shard| empty(shard));
    let mut holder = bed.node_client(empty.unwrap().primary.as_ref());
    holder.run("BEGIN").succeeded();
    holder
        .run(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
        .succeeded();
    let router = &mut pair.router;
    router.run("SET lock_timeout = '500ms'").succeeded();
    for block in ["", "BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE"] {
        if !block.is_empty() {
            router.run(block).succeeded();
        }
        assert_eq!(router.run(&by_value).succeeded().value(), id);
        let reply = router.extended(&by_value, &[], 0);
        assert_eq!(reply.succeeded().value(), id);
        if !block.is_empty() {
            router.run("COMMIT").succeeded();
        }
    }
    // Nobody has this one: all shards are asked.
    assert_eq!(router.run(&other).sqlstate(), Some("55P03"));
    holder.run("ROLLBACK").succeeded();
    router.run(&other).succeeded();
}

/// Runs statements again where they were the victim of a deadlock.
#[track_caller]
fn until_it_succeeds(client: &mut Client, sql: &str) {
    let mut is_victim = true;
    while is_victim {
        let last = client.simple(sql).pop().unwrap();
        is_victim = last.sqlstate() == Some("40P01");
        if !is_victim {
            last.succeeded();
        }
    }
}

/// Rows that go from shard to shard, and values that go from row to row, are there once at any time.
#[test]
fn reads_by_the_column_while_rows_move() {
    let (bed, _turn) = BEDS.take();
    let mut pair = Pair::new(bed, "email text");
    let table = pair.table.clone();
    pair.succeeds("INSERT INTO $T SELECT n, 'mail' || n FROM generate_series(1, 20) AS n");
    let is_over = AtomicBool::new(false);
    let read = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let (is_over, read, table) = (&is_over, &read, &table);
        // A row goes to other shards, with its value.
        let moves = scope.spawn(move || {
            let mut client = bed.client();
            for round in 0..40 {
                let (from, to) = (round * 100 + 1, (round + 1) * 100 + 1);
                let update = format!("UPDATE {table} SET id = {to} WHERE id = {from}");
                until_it_succeeds(&mut client, &update);
            }
        });
        // And a value to other rows.
        let hands_on = scope.spawn(move || {
            let mut client = bed.client();
            for round in 0..40 {
                let (from, to) = (2 + round % 18, 2 + (round + 1) % 18);
                let both = format!(
                    "UPDATE {table} SET email = NULL WHERE id = {from}; \
                     UPDATE {table} SET email = 'mail2' WHERE id = {to}"
                );
                until_it_succeeds(&mut client, &both);
            }
        });
        for (email, extended) in [
            ("mail1", false),
            ("mail1", true),
            ("mail2", false),
            ("mail2", true),
        ] {
            scope.spawn(move || {
                let mut client = bed.client();
                let sql = format!("SELECT email FROM {table} WHERE email = '{email}'");
                while !is_over.load(Ordering::Relaxed) {
                    let reply = match extended {
                        true => client.extended(&sql, &[], 0),
                        false => client.run(&sql),
                    };
                    assert_eq!(reply.succeeded().texts(), [[email]]);
                    read.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let ended = [moves, hands_on].map(|writer| writer.join());
        is_over.store(true, Ordering::Relaxed);
        for ended in ended {
            ended.unwrap();
        }
    });
    assert!(read.into_inner() > 100);
    pair.check_index();
}
