//! Writes of several shards where something goes wrong on the way: the client gets one error, the session goes on, and no shard has
//! anything of it. And portals that return what they have written in parts.

use std::path::PathBuf;

use postgres_protocol::message::frontend;
use switchyard_tests::hardship::{
    self, Changed, Held, ROWS, Row, WAYS, backends, bed, failure, goes_on, kill, nothing_is_left,
    send, superuser,
};
use switchyard_tests::{Bed, Client, Login, Router, bind, eventually};

const ALL: &str = "UPDATE checked SET payload = 'written'";
/// Waits for a row.
const WAITING: &str = "wait_event = 'advisory'";

/// How many rows have been written, on each shard.
fn written(bed: &Bed, table: &str) -> [String; 2] {
    let count = format!("SELECT count(*) FROM {table} WHERE payload = 'written'");
    [0, 1].map(|shard| superuser(bed, shard, &count))
}

/// A statement fails, sent in each way, and leaves nothing on any shard.
#[track_caller]
fn fails(bed: &Bed, sql: &str, expected: &str, mut act: impl FnMut(&Client)) {
    let connect = |router: &Router| Client::connect(&Login::new(router.port()));
    hardship::fails(bed, (bed.router(), &connect), sql, expected, |client| {
        act(client);
    });
    for table in ["readings", "checked"] {
        assert_eq!(written(bed, table), ["0", "0"], "{sql}");
        let count = format!("SELECT count(*) FROM {table}");
        let counts = [0, 1].map(|shard| superuser(bed, shard, &count).parse::<usize>().unwrap());
        assert_eq!(counts.iter().sum::<usize>(), ROWS, "{sql}");
    }
}

#[test]
fn a_row_that_fails_on_one_shard() {
    let (bed, _turn) = bed();
    for shard in [0, 1] {
        let _row = Row::on(bed, shard, 0);
        fails(bed, ALL, "22012", |_| ());
        fails(bed, "DELETE FROM checked", "22012", |_| ());
        let returning = "DELETE FROM checked WHERE id > 0 RETURNING id, now()";
        fails(bed, returning, "22012", |_| ());
    }
}

/// `logbook` is on a disk that is full, on one shard, as long as this lives.
struct FullDisk<'a>(&'a Bed, usize, PathBuf);

impl<'a> FullDisk<'a> {
    fn of(bed: &'a Bed, shard: usize) -> FullDisk<'a> {
        // A new file, which nobody has open.
        superuser(bed, shard, "TRUNCATE logbook");
        let path =
            "SELECT current_setting('data_directory') || '/' || pg_relation_filepath('logbook')";
        let file = PathBuf::from(superuser(bed, shard, path));
        std::fs::rename(&file, file.with_extension("kept")).unwrap();
        std::os::unix::fs::symlink("/dev/full", &file).unwrap();
        FullDisk(bed, shard, file)
    }
}

impl Drop for FullDisk<'_> {
    fn drop(&mut self) {
        let Self(bed, shard, file) = self;
        std::fs::remove_file(&*file).unwrap();
        std::fs::rename(file.with_extension("kept"), &*file).unwrap();
        superuser(bed, *shard, "TRUNCATE logbook");
    }
}

#[test]
fn a_disk_that_is_full_on_one_shard() {
    let (bed, _turn) = bed();
    let stored = || {
        let counts = [
            "SELECT count(*) FROM logbook",
            "SELECT count(*) FROM pg_prepared_xacts",
        ];
        [0, 1].map(|shard| counts.map(|count| superuser(bed, shard, count)))
    };
    let rows: Vec<String> = (1..=20).map(|id| format!("({id}, 'row')")).collect();
    let list = format!("INSERT INTO logbook VALUES {}", rows.join(", "));
    let copied = |client: &mut Client| {
        let rows: Vec<String> = (1..=20).map(|id| format!("{id}\trow\n")).collect();
        client.copy_in("COPY logbook FROM STDIN", rows.concat().as_bytes())
    };
    for shard in [0, 1] {
        let full = FullDisk::of(bed, shard);
        for write in [
            list.as_str(),
            "INSERT INTO logbook SELECT id, payload FROM readings",
            "INSERT INTO logbook SELECT id + 1, payload FROM readings",
        ] {
            fails(bed, write, "53100", |_| ());
            assert_eq!(stored(), [["0", "0"], ["0", "0"]], "{write}");
        }
        let mut client = bed.client();
        assert_eq!(copied(&mut client).sqlstate(), Some("53100"));
        assert_eq!(stored(), [["0", "0"], ["0", "0"]]);
        // As soon as there is room.
        drop(full);
        copied(&mut client).succeeded();
        let count = client.run("SELECT count(*) FROM logbook").succeeded();
        assert_eq!(count.value(), "20");
        client.run("DELETE FROM logbook").succeeded();
    }
}

/// Every shard has done its part by then.
#[test]
fn a_constraint_that_fails_in_the_end() {
    let (bed, _turn) = bed();
    let _constraint = Changed::by(
        bed,
        "CREATE FUNCTION is_good() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.divisor = 77 THEN RAISE check_violation; END IF; RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER good AFTER UPDATE ON readings DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION is_good()",
        "DROP FUNCTION is_good CASCADE",
    );
    for shard in [0, 1] {
        let bad = superuser(bed, shard, "SELECT max(id) FROM readings");
        let update = format!(
            "UPDATE readings SET payload = 'written', divisor = CASE WHEN id = {bad} THEN 77 ELSE 2 END"
        );
        for statements in [vec![&*update], vec!["BEGIN", &update, "COMMIT"]] {
            let (last, before) = statements.split_last().unwrap();
            for extended in [false, true] {
                let mut client = bed.client();
                let mut ask = |sql: &str| match extended {
                    true => client.extended(sql, &[], 0),
                    false => client.run(sql),
                };
                for sql in before {
                    ask(sql).succeeded();
                }
                assert_eq!(ask(last).sqlstate(), Some("23514"), "{statements:?}");
                assert_eq!(client.status, b'I');
                hardship::works(&mut client);
                assert_eq!(written(bed, "readings"), ["0", "0"]);
            }
        }
    }
    nothing_is_left(bed, bed.router());
}

#[test]
fn a_cancel_request() {
    let (bed, _turn) = bed();
    for shard in [0, 1] {
        let held = Held::on(bed, shard);
        fails(bed, ALL, "57014", |client| {
            held.is_waited_for();
            Client::cancel(&client.key, bed.router().port());
        });
    }
}

#[test]
fn a_backend_that_is_terminated_as_it_writes() {
    let (bed, _turn) = bed();
    for shard in [0, 1] {
        let held = Held::on(bed, shard);
        fails(bed, ALL, "08006", |_| {
            held.is_waited_for();
            kill(bed, WAITING);
        });
    }
}

#[test]
fn a_client_that_disappears() {
    let (bed, _turn) = bed();
    let _held = Held::on(bed, 1);
    for way in WAYS {
        let mut client = bed.client();
        send(&mut client, way, ALL);
        eventually("it waits", || backends(bed, "1", WAITING).len() == 1);
        drop(client);
        nothing_is_left(bed, bed.router());
        assert_eq!(written(bed, "checked"), ["0", "0"], "{way:?}");
    }
}

/// Those that want the same rows, one on each shard, wait for each other on the first shard, and not crosswise. (Of several rows on a
/// shard PostgreSQL itself takes now this first and now that, and finds deadlocks.)
#[test]
fn writers_of_the_same_rows_take_turns() {
    let (bed, _turn) = bed();
    let ids = [0, 1].map(|shard| superuser(bed, shard, "SELECT min(id) FROM readings"));
    let same = format!("WHERE id IN ({})", ids.join(", "));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = bed.client();
                for _ in 0..10 {
                    let update = format!("UPDATE readings SET divisor = divisor + 1 {same}");
                    let tag = client.run(&update).succeeded().tag;
                    assert_eq!(tag.as_deref(), Some("UPDATE 2"));
                }
            });
        }
    });
    let mut client = bed.client();
    let divisors = client
        .run(&format!("SELECT DISTINCT divisor FROM readings {same}"))
        .succeeded();
    assert_eq!(divisors.value(), "41");
    client.run("UPDATE readings SET divisor = 1").succeeded();
    nothing_is_left(bed, bed.router());
}

/// The first Execute writes all of it, whatever it returns.
#[test]
fn a_portal_that_returns_its_rows_in_parts() {
    let (bed, _turn) = bed();
    let sql = "UPDATE readings SET payload = repeat(payload, 1) WHERE id > 10 RETURNING id";
    let rows = ROWS - 10;
    let mut client = bed.client();
    client.send(|buffer| {
        frontend::parse("", sql, [], buffer).unwrap();
        bind("", "", &[], 0, buffer);
        frontend::describe(b'P', "", buffer).unwrap();
        for most in [7, 0, 3] {
            frontend::execute("", most, buffer).unwrap();
        }
        frontend::sync(buffer);
    });
    let replies = client.replies(None);
    assert_eq!(replies.len(), 3, "{replies:?}");
    assert!(replies[0].suspended);
    let counts: Vec<usize> = replies.iter().map(|reply| reply.rows.len()).collect();
    assert_eq!(counts, [7, rows - 7, 0]);
    let tag = format!("UPDATE {rows}");
    for reply in &replies[1..] {
        assert_eq!(reply.tag.as_deref(), Some(&*tag));
    }
    let mut ids: Vec<usize> = replies
        .iter()
        .flat_map(|reply| reply.texts())
        .map(|row| row[0].parse().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (11..=ROWS).collect::<Vec<_>>());
    hardship::works(&mut client);
}

/// All rows of another table are given, or of a query, if they are not too many.
#[test]
fn rows_that_are_too_many_to_be_given() {
    let (bed, _turn) = bed();
    let by_table =
        "UPDATE checked c SET payload = 'written' FROM readings r WHERE r.divisor = c.id";
    let by_query =
        "UPDATE checked SET payload = 'written' WHERE payload IN (SELECT payload FROM readings)";
    for sql in [by_table, by_query] {
        fails(bed, sql, "53400", |_| ());
    }
}

/// What is computed first fails on a shard: nothing has been written.
#[test]
fn a_query_that_fails_before_a_write() {
    let (bed, _turn) = bed();
    let _row = Row::on(bed, 1, 0);
    let sql = "UPDATE checked SET payload = 'written' WHERE id > (SELECT min(1 / divisor) FROM readings) - 9";
    fails(bed, sql, "22012", |_| ());
}

/// Where nothing says on which shard a row of the source is judged, it is refused; so are rows that cannot be given.
#[test]
fn a_merge_that_no_shard_can_do() {
    let (bed, _turn) = bed();
    let source =
        "MERGE INTO checked c USING (VALUES (901, 'written'), (902, 'written')) AS v (k, p)";
    for rest in [
        "ON c.payload = v.p WHEN NOT MATCHED THEN INSERT (id, divisor, payload) VALUES (k, 1, p)",
        "ON c.id = v.k WHEN NOT MATCHED THEN INSERT (id, divisor, payload) VALUES (k + 1, 1, p)",
        "ON c.id = v.k * 1.0 WHEN NOT MATCHED THEN INSERT (id, divisor, payload) VALUES (k, 1, p)",
    ] {
        fails(bed, &format!("{source} {rest}"), "0A000", |_| ());
    }
    let numeric = "MERGE INTO checked c USING (SELECT id + 900.6 AS k FROM readings) v ON c.id = v.k \
        WHEN NOT MATCHED THEN INSERT (id, divisor, payload) VALUES (k, 1, 'written')";
    fails(bed, numeric, "0A000", |_| ());
    let record = "UPDATE checked SET payload = 'written' WHERE (SELECT ROW(max(id), 1) FROM readings) IS NOT NULL";
    fails(bed, record, "0A000", |_| ());
}

/// Workers take the next rows of a queue, each row once, whatever shards they are on.
#[test]
fn a_queue_whose_rows_are_taken_once() {
    let (bed, _turn) = bed();
    let jobs = 1..=150;
    let rows: Vec<String> = jobs.clone().map(|id| format!("({id}, 'job')")).collect();
    let mut client = bed.client();
    let fill = format!("INSERT INTO logbook VALUES {}", rows.join(", "));
    client.run(&fill).succeeded();
    let next = "DELETE FROM logbook WHERE id IN \
        (SELECT id FROM logbook ORDER BY id LIMIT 7 FOR UPDATE SKIP LOCKED) RETURNING id";
    // What somebody else has locked is passed over.
    let mut holder = bed.client();
    holder.run("BEGIN").succeeded();
    let lock = "SELECT id FROM logbook WHERE id = 1 FOR UPDATE";
    holder.run(lock).succeeded();
    client.run("BEGIN").succeeded();
    let mut passed: Vec<String> = client.run(next).succeeded().texts().concat();
    passed.sort_unstable();
    assert_eq!(passed, ["2", "3", "4", "5", "6", "7", "8"]);
    client.run("ROLLBACK").succeeded();
    holder.run("ROLLBACK").succeeded();
    let work = |extended: bool| {
        let mut client = bed.client();
        let mut taken: Vec<usize> = Vec::new();
        loop {
            let reply = match extended {
                true => client.extended(next, &[], 0),
                false => client.run(next),
            };
            let ids = reply.succeeded().texts();
            if ids.is_empty() {
                return taken;
            }
            assert!(ids.len() <= 7, "{ids:?}");
            taken.extend(ids.iter().map(|row| row[0].parse::<usize>().unwrap()));
        }
    };
    let mut taken: Vec<usize> = std::thread::scope(|scope| {
        let workers =
            [false, true, false, true].map(|extended| scope.spawn(move || work(extended)));
        let taken = workers.map(|worker| worker.join().unwrap());
        taken.concat()
    });
    taken.sort_unstable();
    assert_eq!(taken, jobs.collect::<Vec<_>>());
    let left = client.run("SELECT count(*) FROM logbook");
    assert_eq!(left.succeeded().texts(), [["0"]]);
}

/// It says what would be done, and does nothing.
#[test]
fn a_write_that_is_explained() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    let given = "DELETE FROM checked USING readings WHERE readings.divisor = checked.id";
    let ahead = "DELETE FROM checked WHERE id < (SELECT count(*) FROM readings)";
    for (sql, expected) in [
        (
            ahead,
            vec!["  Given: the rows of a query that are computed first"],
        ),
        (ALL, vec!["Write on all shards (primary)"]),
        (
            given,
            vec![
                "Write on all shards (primary)",
                "  Given: all rows of readings",
            ],
        ),
    ] {
        for extended in [false, true] {
            let sql = format!("EXPLAIN (COSTS OFF) {sql}");
            let reply = match extended {
                true => client.extended(&sql, &[], 0),
                false => client.run(&sql),
            };
            let lines: Vec<String> = reply.succeeded().texts().into_iter().flatten().collect();
            for line in &expected {
                assert!(lines.iter().any(|found| found == line), "{lines:#?}");
            }
            let parts = lines.iter().filter(|line| line.contains("on checked"));
            assert!(parts.count() >= 2, "{lines:#?}");
        }
        let analyze = client.run(&format!("EXPLAIN ANALYZE {sql}"));
        assert_eq!(analyze.sqlstate(), Some("0A000"));
    }
    assert_eq!(written(bed, "checked"), ["0", "0"]);
}

/// What comes before it in a batch is part of the same transaction.
#[test]
fn writes_of_one_batch_are_all_or_nothing() {
    let (bed, _turn) = bed();
    let _row = Row::on(bed, 1, 0);
    let mut client = bed.client();
    let batch = [
        "UPDATE readings SET payload = 'written' WHERE id = 3",
        "UPDATE readings SET payload = 'written' WHERE id IN (1, 2, 3, 4, 5, 6)",
        ALL,
    ];
    client.send(|buffer| {
        for sql in batch {
            frontend::parse("", sql, [], buffer).unwrap();
            bind("", "", &[], 0, buffer);
            frontend::execute("", 0, buffer).unwrap();
        }
        frontend::sync(buffer);
    });
    let replies = client.replies(None);
    let last = replies.last().unwrap();
    assert_eq!(last.sqlstate(), Some("22012"), "{replies:?}");
    assert_eq!(client.status, b'I');
    for table in ["readings", "checked"] {
        assert_eq!(written(bed, table), ["0", "0"]);
    }
    hardship::works(&mut client);
    nothing_is_left(bed, bed.router());
}

/// An error in a block is one of all shards, and a savepoint a way back for all.
#[test]
fn a_block_goes_on_from_its_savepoint() {
    let (bed, _turn) = bed();
    let _row = Row::on(bed, 0, 0);
    let way = hardship::Way::Block;
    let mut client = bed.client();
    send(&mut client, way, ALL);
    assert_eq!(failure(&mut client, way).sqlstate(), "22012");
    goes_on(&mut client, way, false);
}
