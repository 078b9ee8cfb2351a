//! What lasts while rows move: transactions that are open, and writes of reference tables; and replies that are lost.

use std::sync::atomic::{AtomicBool, Ordering};

use postgres_protocol::message::frontend;
use switchyard_tests::{Asks, Client, Hold as At, Mode, Proxy, Reply, Reshard, eventually};

use super::load::{Over, ROWS, stand};
use super::steps::{APPLY, REFERENCES, ROWS_ON_THEIR_WAY, Steps};

const ALL: &str = "SELECT count(*), count(DISTINCT id) FROM marks";

/// All rows are there, once, and where they belong.
#[track_caller]
fn has_all(stand: &Reshard, rows: usize) {
    stand.is_clean(Asks::Three);
    let rows = rows.to_string();
    let seen = stand.bed.client().run(ALL).succeeded().texts();
    assert_eq!(seen, [[rows.clone(), rows]]);
}

/// The rest of a COPY that has begun.
fn end_copy(client: &mut Client, rows: &[u8]) -> Reply {
    client.send(|buffer| {
        frontend::CopyData::new(rows).unwrap().write(buffer);
        frontend::copy_done(buffer);
    });
    client.replies(None).remove(0)
}

/// A cursor, a COPY, what a client has prepared, and a block that has gone back to a savepoint, all begun before a group is to end and ended while the program waits for that.
#[test]
fn transactions_that_are_open_are_waited_for() {
    let steps = Steps::of(stand());
    let stand = &steps.stand;
    let (mut program, held) = steps.up_to(&APPLY, &[ROWS_ON_THEIR_WAY]);
    let [mut cursor, mut copy, mut prepared, mut block] = [(); 4].map(|()| stand.bed.client());
    cursor.run("BEGIN").succeeded();
    cursor
        .run("DECLARE c CURSOR FOR SELECT id FROM marks WHERE id < 1000")
        .succeeded();
    let mut rows = cursor.run("FETCH 10 FROM c").succeeded().rows.len();
    copy.send(|buffer| {
        frontend::query("COPY marks FROM STDIN", buffer).unwrap();
    });
    assert_eq!(copy.receive().tag, b'G');
    copy.send(|buffer| {
        let first: String = (2000..2100).map(|id| format!("{id}\t0\n")).collect();
        frontend::CopyData::new(first.as_bytes())
            .unwrap()
            .write(buffer);
    });
    prepared.run("BEGIN").succeeded();
    for id in 3000..3020 {
        let insert = format!("INSERT INTO marks VALUES ({id}, 0)");
        prepared.run(&insert).succeeded();
    }
    prepared.run("PREPARE TRANSACTION 'open'").succeeded();
    for sql in [
        "BEGIN",
        "INSERT INTO marks SELECT n, 0 FROM generate_series(4000, 4019) AS n",
        "SAVEPOINT one",
        "INSERT INTO marks SELECT n, 0 FROM generate_series(5000, 5019) AS n",
        "ROLLBACK TO one",
    ] {
        block.run(sql).succeeded();
    }
    held.release();
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'";
    eventually("the program waits for tables", || {
        stand.superuser(0, waits) != "0"
    });
    rows += cursor.run("FETCH ALL FROM c").succeeded().rows.len();
    assert_eq!(rows, ROWS);
    cursor.run("COMMIT").succeeded();
    let last: String = (2100..2200).map(|id| format!("{id}\t0\n")).collect();
    let copied = end_copy(&mut copy, last.as_bytes());
    assert_eq!(copied.succeeded().tag.as_deref(), Some("COPY 200"));
    prepared.run("COMMIT PREPARED 'open'").succeeded();
    assert!(
        program.try_wait().unwrap().is_none(),
        "it waits for all of them"
    );
    block.run("COMMIT").succeeded();
    assert!(program.wait().unwrap().success());
    has_all(stand, ROWS + 200 + 20 + 20);
}

/// Writes a reference table, row after row.
fn name_countries(stand: &Reshard, over: &AtomicBool) -> Vec<String> {
    let mut client = stand.bed.client();
    let codes = ('0'..='9').flat_map(|one| ('0'..='9').map(move |other| format!("{one}{other}")));
    let some = codes.take_while(|_| !over.load(Ordering::Relaxed));
    some.inspect(|code| {
        let insert = format!("INSERT INTO countries VALUES ('{code}', 'new', 'EUR')");
        client.run(&insert).succeeded();
    })
    .collect()
}

/// A shard that comes has the rows of reference tables that are written meanwhile. Nobody waits for another.
#[test]
fn reference_tables_are_written_while_a_shard_comes() {
    let steps = Steps::of(stand());
    let stand = &steps.stand;
    let over = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| name_countries(stand, &over));
        let ends = Over(&over);
        let (mut program, held) = steps.up_to(&APPLY, &[REFERENCES]);
        held.release();
        assert!(program.wait().unwrap().success());
        drop(ends);
        writer.join().unwrap()
    });
    assert!(written.len() > 2, "the client has worked");
    let count = "SELECT count(*) FROM countries WHERE name = 'new'";
    let each = stand.on_all(count);
    assert!(
        each.iter().all(|count| *count == written.len().to_string()),
        "{each:?}"
    );
    has_all(stand, ROWS);
}

/// The connection breaks on which the program has sent a COMMIT, before or after that has come: it is found out whether it has.
#[test]
fn commits_are_lost_in_the_reply() {
    let stand = stand();
    let catalog = Proxy::to(stand.bed.cluster().catalog().unwrap().port());
    let third = Proxy::to(stand.primary(2).1.port());
    let port = |proxy: &Proxy| format!(":{}", proxy.port());
    let former = format!(":{}", stand.bed.cluster().catalog().unwrap().port());
    stand.rewrite(Asks::Three, &former, &port(&catalog));
    let former = format!("port = {}", stand.primary(2).1.port());
    stand.rewrite(Asks::Three, &former, &format!("port = {}", third.port()));
    stand.run(Asks::Three, &["apply", "--yes"]).succeeded();
    let words: [(&Proxy, &[&'static [u8]]); 3] = [
        (&catalog, &[b"switchyard.decisions", b"COMMIT"]),
        (&third, &[b"PREPARE TRANSACTION"]),
        (&third, &[b"COMMIT PREPARED"]),
    ];
    for (proxy, words) in words {
        for at in [At::Before, At::After] {
            let back = ["rollback", "--yes"];
            let (last, others) = words.split_last().unwrap();
            let mut word = others.first().unwrap_or(last);
            proxy.hold_at(word, if others.is_empty() { at } else { At::Before });
            let mut program = stand.spawn(Asks::Three, &back);
            eventually("it is there", || proxy.is_held());
            if word != last {
                word = last;
                proxy.hold_at(word, at);
                proxy.set(Mode::Forward);
                eventually("it is there", || proxy.is_held());
            }
            proxy.cut();
            proxy.set(Mode::Forward);
            if !program.wait().unwrap().success() {
                stand.run(Asks::Three, &back).succeeded();
            }
            has_all(&stand, ROWS);
        }
    }
}

/// Partitions that come, VACUUM FULL and TRUNCATE have the tables for themselves between groups.
#[test]
fn tables_are_truncated_and_rewritten_meanwhile() {
    let stand = stand();
    let mut client = stand.bed.client();
    for sql in [
        "CREATE TABLE days (id bigint, day int) PARTITION BY LIST (day)",
        "SELECT create_distributed_table('days', 'id')",
        "CREATE TABLE notes (id bigint PRIMARY KEY)",
        "SELECT create_distributed_table('notes', 'id')",
    ] {
        client.run(sql).succeeded();
    }
    let mut program = stand.spawn(Asks::Three, &["apply", "--yes", "--group-rows", "50"]);
    eventually("rows move", || {
        stand.superuser(2, "SELECT to_regclass('marks') IS NOT NULL") == "t"
            && stand.superuser(2, "SELECT count(*) FROM marks") != "0"
    });
    let mut days = 0;
    while days < 12 && program.try_wait().unwrap().is_none() {
        days += 1;
        for sql in [
            format!("CREATE TABLE day_{days} PARTITION OF days FOR VALUES IN ({days})"),
            format!("INSERT INTO days SELECT n, {days} FROM generate_series(1, 40) AS n"),
            "VACUUM FULL marks".to_owned(),
            "TRUNCATE notes".to_owned(),
            "INSERT INTO notes SELECT n FROM generate_series(1, 40) AS n".to_owned(),
        ] {
            let reply = client.run(&sql);
            assert!(reply.failure.is_none(), "{sql}: {:?}", reply.failure);
        }
    }
    assert!(days > 1, "rows still moved");
    let output = program.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{log}");
    has_all(&stand, ROWS);
    for (table, rows) in [("days", 40 * days), ("notes", 40)] {
        let count = format!("SELECT count(*) FROM {table}");
        assert_eq!(client.run(&count).value(), rows.to_string());
    }
}
