//! Rows that an UPDATE of the shard key moves to other shards, among sessions that want the same rows; and what keeps rows where they are.

use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::{Bed, BedSpec, Client, eventually};

const TABLES: &str = "
[[databases.tables]]
name      = \"items\"
shard_key = \"id\"
method    = \"modulo\"

[[databases.tables]]
name      = \"parts\"
shard_key = \"item\"
method    = \"modulo\"
";

const MADE: &str = "CREATE TABLE items (id int PRIMARY KEY, word text, n int NOT NULL DEFAULT 0);
    CREATE TABLE parts (item int, number int, PRIMARY KEY (item, number))";

fn bed() -> Bed {
    let bed = Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 0)).with_tables(MADE, TABLES));
    let insert = "INSERT INTO items (id, word) VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')";
    bed.client().run(insert).succeeded();
    bed
}

fn on(bed: &Bed, shard: usize, sql: &str) -> String {
    let node = bed.cluster().shard(shard).primary.as_ref();
    bed.cluster().superuser_sql(node, "shop", sql).unwrap()
}

/// All rows; each is where it belongs, and nothing waits to be committed.
#[track_caller]
fn rows(bed: &Bed) -> Vec<Vec<String>> {
    for shard in [0, 1] {
        let wrong = format!("SELECT count(*) FROM items WHERE id % 2 <> {shard}");
        assert_eq!(on(bed, shard, &wrong), "0");
        assert_eq!(
            on(bed, shard, "SELECT count(*) FROM pg_prepared_xacts"),
            "0"
        );
    }
    let all = bed
        .client()
        .run("SELECT id, word, n FROM items ORDER BY id");
    all.succeeded().texts()
}

/// Somebody waits for a lock on a shard.
fn is_waited(bed: &Bed) {
    eventually("somebody waits", || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        [0, 1].iter().any(|shard| on(bed, *shard, waiting) != "0")
    });
}

#[test]
fn who_waits_for_a_row_finds_it_where_it_is_then() {
    let bed = bed();
    let mut first = bed.client();
    for (waiting, tag, n) in [
        (
            "UPDATE items SET n = n + 1 WHERE word = 'a'",
            "UPDATE 1",
            "1",
        ),
        (
            "SELECT id FROM items WHERE word = 'a' FOR UPDATE",
            "SELECT 1",
            "1",
        ),
        ("UPDATE items SET n = n + 1 WHERE id < 3", "UPDATE 2", "2"),
    ] {
        let from: i32 = first
            .run("SELECT id FROM items WHERE word = 'a'")
            .succeeded()
            .value()
            .parse()
            .unwrap();
        let to = 3 - 2 * from.rem_euclid(2);
        let to = if to == 1 { 0 } else { to - 2 };
        first.run("BEGIN").succeeded();
        first
            .run(&format!("UPDATE items SET id = {to} WHERE id = {from}"))
            .succeeded();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| bed.client().run(waiting).succeeded());
            is_waited(&bed);
            first.run("COMMIT").succeeded();
            assert_eq!(
                second.join().unwrap().tag.as_deref(),
                Some(tag),
                "{waiting}"
            );
        });
        let now = first
            .run("SELECT id, n FROM items WHERE word = 'a'")
            .succeeded();
        assert_eq!(now.texts(), [[to.to_string(), n.to_owned()]], "{waiting}");
        rows(&bed);
    }
}

#[test]
fn a_row_that_somebody_has_changed_moves_as_it_is_then() {
    let bed = bed();
    let mut first = bed.client();
    for sql in [
        "UPDATE items SET id = 11 - id WHERE id < 3",
        "UPDATE items SET id = 11 - id WHERE id > 8",
        "UPDATE items SET id = 10 WHERE id = 1",
    ] {
        first.run("BEGIN").succeeded();
        first
            .run("UPDATE items SET n = n + 1 WHERE word = 'a'")
            .succeeded();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| bed.client().run(sql).succeeded());
            is_waited(&bed);
            first.run("COMMIT").succeeded();
            second.join().unwrap();
        });
        rows(&bed);
    }
    let row = first
        .run("SELECT id, n FROM items WHERE word = 'a'")
        .succeeded();
    assert_eq!(row.texts(), [["10", "3"]]);
}

/// Nothing is changed by what fails, in whatever way it is sent.
#[track_caller]
fn fails(bed: &Bed, sql: &str, expected: &str) -> String {
    let before = rows(bed);
    let mut client = bed.client();
    for statements in [vec![sql], vec!["BEGIN", sql, "COMMIT"]] {
        for extended in [false, true] {
            let replies = statements.iter().map(|sql| match extended {
                true => client.extended(sql, &[], 0),
                false => client.run(sql),
            });
            let failures: Vec<_> = replies.filter_map(|reply| reply.failure).collect();
            let codes: Vec<_> = failures.iter().map(|failure| failure.sqlstate()).collect();
            assert_eq!(codes, [expected], "{sql}: {failures:?}");
            assert_eq!(client.status, b'I', "{sql}");
        }
    }
    assert_eq!(rows(bed), before, "{sql}");
    let failure = client.run(sql).failure.unwrap();
    failure.field('D').to_owned()
}

#[test]
fn what_fails_leaves_everything_where_it_was() {
    let bed = bed();
    // Found where the row goes; by two rows that go to one place; by a row on its way; by the update.
    for (sql, code) in [
        ("UPDATE items SET id = 2 WHERE id = 1", "23505"),
        ("UPDATE items SET id = 101 + id / 4 * 0", "23505"),
        (
            "UPDATE items SET id = CASE id WHEN 4 THEN 3 ELSE id END",
            "23505",
        ),
        ("UPDATE items SET id = 10 / (id - 4)", "22012"),
        ("UPDATE items SET id = id + 1, n = NULL", "23502"),
    ] {
        fails(&bed, sql, code);
    }
}

#[test]
fn one_who_waits_is_cancelled_or_loses_a_shard() {
    let bed = bed();
    let before = rows(&bed);
    let mut first = bed.client();
    for kill in [false, true] {
        for held in [1, 2] {
            first.run("BEGIN").succeeded();
            first
                .run(&format!("UPDATE items SET n = n WHERE id = {held}"))
                .succeeded();
            let mut client = bed.client();
            let (key, port) = (client.key.clone(), bed.router().port());
            std::thread::scope(|scope| {
                let second = scope.spawn(|| client.run("UPDATE items SET id = id + 101"));
                is_waited(&bed);
                match kill {
                    false => Client::cancel(&key, port),
                    true => {
                        let waiting = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
                        let ended = [0, 1].map(|shard| on(&bed, shard, waiting));
                        assert!(ended.contains(&"1".to_owned()), "{ended:?}");
                    }
                }
                let code = if kill { "08006" } else { "57014" };
                assert_eq!(second.join().unwrap().sqlstate(), Some(code));
            });
            first.run("ROLLBACK").succeeded();
            assert_eq!(rows(&bed), before);
        }
    }
}

/// Rows go to and fro while others count in them: no row and no count is lost, and who fails is told to try again.
#[test]
fn many_at_once() {
    let bed = bed();
    let (mut counted, rounds) = (0, 40);
    std::thread::scope(|scope| {
        let movers = [0, 1].map(|which| {
            let bed = &bed;
            scope.spawn(move || {
                let mut client = bed.client();
                for round in 0..rounds {
                    let sql = match (round + which) % 3 {
                        0 => "UPDATE items SET id = id + 5 WHERE word IN ('a', 'b')",
                        1 => "UPDATE items SET id = id - 5 WHERE word IN ('a', 'b') AND id > 1000",
                        _ => "UPDATE items SET id = id + 1003 WHERE word = 'c' AND id < 100000",
                    };
                    let reply = client.run(sql);
                    let told = reply.sqlstate();
                    assert!(matches!(told, None | Some("40P01")), "{reply:?}");
                }
            })
        });
        let counters = [0, 1].map(|_| {
            let bed = &bed;
            scope.spawn(move || {
                let (mut client, mut counted) = (bed.client(), 0);
                for round in 0..rounds {
                    let word = ["a", "b", "c", "d"][round % 4];
                    let reply =
                        client.run(&format!("UPDATE items SET n = n + 1 WHERE word = '{word}'"));
                    match reply.sqlstate() {
                        None => {
                            assert_eq!(reply.tag.as_deref(), Some("UPDATE 1"), "{word}");
                            counted += 1;
                        }
                        told => assert_eq!(told, Some("40P01"), "{reply:?}"),
                    }
                }
                counted
            })
        });
        movers.into_iter().for_each(|mover| mover.join().unwrap());
        counted = counters
            .into_iter()
            .map(|counter| counter.join().unwrap())
            .sum();
    });
    let rows = rows(&bed);
    assert_eq!(rows.len(), 4);
    let sum: i32 = rows.iter().map(|row| row[2].parse::<i32>().unwrap()).sum();
    assert_eq!(sum, counted);
}

/// What one server does with a row whose key changes, and two would not.
#[test]
fn rows_that_stay() {
    let bed = bed();
    let mut client = bed.client();
    client.run("CREATE FUNCTION looks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$").succeeded();
    let tie = "ALTER TABLE parts ADD CONSTRAINT tie FOREIGN KEY (item) REFERENCES items";
    let child = "A foreign key of it refers to a table that is not a reference table.";
    let parent = "Rows that refer to it change with it: a foreign key has ON UPDATE CASCADE, SET NULL or SET DEFAULT.";
    for (make, undo, table, why) in [
        (
            "CREATE TRIGGER looks AFTER DELETE ON items FOR EACH ROW EXECUTE FUNCTION looks()"
                .to_owned(),
            "DROP TRIGGER looks ON items",
            "items",
            "It has triggers.",
        ),
        (
            "ALTER TABLE items ENABLE ROW LEVEL SECURITY".to_owned(),
            "ALTER TABLE items DISABLE ROW LEVEL SECURITY",
            "items",
            "It has row security policies.",
        ),
        (
            tie.to_owned(),
            "ALTER TABLE parts DROP CONSTRAINT tie",
            "parts",
            child,
        ),
        (
            format!("{tie} ON UPDATE CASCADE"),
            "ALTER TABLE parts DROP CONSTRAINT tie",
            "items",
            parent,
        ),
    ] {
        client.run(&make).succeeded();
        let key = if table == "items" { "id" } else { "item" };
        for value in [format!("{key} + 1"), "17".to_owned()] {
            let detail = fails(
                &bed,
                &format!("UPDATE {table} SET {key} = {value}"),
                "0A000",
            );
            let expected = format!(
                "The row would have to move to another shard, where one server would update it. {why}"
            );
            assert_eq!(detail, expected, "{make}");
        }
        client.run(undo).succeeded();
    }
    client.run("UPDATE items SET id = id + 101").succeeded();
    let ids = rows(&bed).into_iter().map(|mut row| row.swap_remove(0));
    assert_eq!(ids.collect::<Vec<_>>(), ["102", "103", "104", "105"]);
}
