//! Row locks on several shards between sessions: who waits, who passes over, who is refused; and that no row is locked that one
//! PostgreSQL would not lock.

#[path = "locks/current_of.rs"]
mod current_of;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::{Bed, BedSpec, Client, Login, eventually};

const DDL: &str = "
CREATE TABLE jobs (id bigint PRIMARY KEY, state text NOT NULL DEFAULT 'new', note text);
CREATE TABLE loose (id bigint, note text);
CREATE TABLE parts (id bigint PRIMARY KEY, note text) PARTITION BY RANGE (id);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE secret (id bigint PRIMARY KEY, note text);
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
";

const TABLES: &str = "
[[databases.tables]]
name      = \"jobs\"
shard_key = \"id\"
method    = \"hash\"

[[databases.tables]]
name      = \"loose\"
shard_key = \"id\"
method    = \"hash\"

[[databases.tables]]
name      = \"parts\"
shard_key = \"id\"
method    = \"hash\"

[[databases.tables]]
name      = \"secret\"
shard_key = \"id\"
method    = \"hash\"
";

const JOBS: usize = 60;
const WORKERS: usize = 10;

/// Takes the first job that nobody has.
const TAKE: &str =
    "SELECT id FROM jobs WHERE state = 'new' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED";
const WAIT: &str = "SELECT id FROM jobs WHERE state = 'new' ORDER BY id LIMIT 1 FOR UPDATE";

static BED: OnceLock<Bed> = OnceLock::new();
static TURN: Mutex<()> = Mutex::new(());

/// Servers with all jobs new.
fn bed() -> (&'static Bed, MutexGuard<'static, ()>) {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let bed = BED.get_or_init(|| {
        let spec = BedSpec::of(ClusterSpec::for_tests(2, 0)).with_tables(DDL, TABLES);
        Bed::start(BedSpec {
            auth: "trust",
            ..spec
        })
    });
    let mut client = bed.client();
    client.run("TRUNCATE jobs").succeeded();
    for id in 1..=JOBS {
        client
            .run(&format!("INSERT INTO jobs (id) VALUES ({id})"))
            .succeeded();
    }
    (bed, turn)
}

/// The ids a statement gives.
#[track_caller]
fn ids(client: &mut Client, sql: &str) -> Vec<u32> {
    let rows = client.run(sql).succeeded().texts();
    rows.iter().map(|row| row[0].parse().unwrap()).collect()
}

/// The ids that nobody has locked, and so are those that are locked.
#[track_caller]
fn locked(bed: &Bed) -> Vec<u32> {
    let free = ids(
        &mut bed.client(),
        "SELECT id FROM jobs FOR UPDATE SKIP LOCKED",
    );
    (1..=JOBS as u32).filter(|id| !free.contains(id)).collect()
}

#[test]
fn a_limit_locks_the_rows_it_gives_and_no_other() {
    let (bed, _turn) = bed();
    let (mut first, mut second) = (bed.client(), bed.client());
    first.run("BEGIN").succeeded();
    assert_eq!(ids(&mut first, TAKE), [1]);
    assert_eq!(locked(bed), [1]);
    second.run("BEGIN").succeeded();
    assert_eq!(ids(&mut second, TAKE), [2]);
    let more = "SELECT id FROM jobs ORDER BY id LIMIT 4 OFFSET 1 FOR UPDATE SKIP LOCKED";
    // As in PostgreSQL, what is passed over by OFFSET is locked, too.
    assert_eq!(ids(&mut second, more), [3, 4, 5, 6]);
    assert_eq!(locked(bed), [1, 2, 3, 4, 5, 6]);
    // Others can share what is shared.
    let share = "SELECT id FROM jobs WHERE id > 10 ORDER BY id LIMIT 3 FOR SHARE NOWAIT";
    assert_eq!(ids(&mut first, share), [11, 12, 13]);
    assert_eq!(ids(&mut second, share), [11, 12, 13]);
    first.run("ROLLBACK").succeeded();
    second.run("COMMIT").succeeded();
    assert!(locked(bed).is_empty());
}

#[test]
fn nowait_is_an_error_of_postgresql_and_the_block_has_failed() {
    let (bed, _turn) = bed();
    let (mut first, mut second) = (bed.client(), bed.client());
    first.run("BEGIN").succeeded();
    assert_eq!(
        ids(
            &mut first,
            "SELECT id FROM jobs ORDER BY id LIMIT 3 FOR UPDATE"
        ),
        [1, 2, 3]
    );
    let free = "SELECT id FROM jobs WHERE id > 3 ORDER BY id LIMIT 3 FOR UPDATE NOWAIT";
    let taken = "SELECT id FROM jobs WHERE id > 2 ORDER BY id LIMIT 3 FOR UPDATE NOWAIT";
    assert_eq!(second.run(taken).sqlstate(), Some("55P03"));
    assert_eq!(ids(&mut second, free), [4, 5, 6]);
    for sql in [
        taken,
        "SELECT id FROM jobs ORDER BY id FOR SHARE NOWAIT",
        "SELECT id FROM jobs FOR UPDATE NOWAIT",
    ] {
        second.run("BEGIN").succeeded();
        assert_eq!(second.run(sql).sqlstate(), Some("55P03"), "{sql}");
        assert_eq!(second.run("SELECT 1").sqlstate(), Some("25P02"));
        second.run("ROLLBACK").succeeded();
    }
    first.run("COMMIT").succeeded();
    assert_eq!(ids(&mut second, taken), [3, 4, 5]);
    assert!(locked(bed).is_empty());
}

/// A statement that waits for a lock, in a session of its own.
fn waiting(bed: &Bed, sql: &'static str) -> thread::JoinHandle<Vec<u32>> {
    let mut client = bed.client();
    let handle = thread::spawn(move || ids(&mut client, sql));
    let mut servers = servers(bed);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    eventually("it waits", || {
        servers
            .iter_mut()
            .any(|server| server.run(waits).value() == "1")
    });
    handle
}

fn servers(bed: &Bed) -> Vec<Client> {
    let shards = bed.cluster().shards().iter();
    shards
        .map(|shard| Client::connect(&Login::new(shard.primary.port())))
        .collect()
}

#[test]
fn a_row_that_is_waited_for_is_looked_at_again() {
    let (bed, _turn) = bed();
    let mut holder = bed.client();
    let changes = [
        // It is given as it is then, or no more.
        ("UPDATE jobs SET note = 'changed' WHERE id = 1", vec![1]),
        ("UPDATE jobs SET state = 'done' WHERE id = 1", vec![2]),
        ("DELETE FROM jobs WHERE id = 1", vec![2]),
    ];
    for (change, expected) in changes {
        holder.run("BEGIN").succeeded();
        holder.run(change).succeeded();
        let waiting = waiting(bed, WAIT);
        holder.run("COMMIT").succeeded();
        assert_eq!(waiting.join().unwrap(), expected, "{change}");
        holder
            .run("UPDATE jobs SET state = 'new' WHERE id = 1")
            .succeeded();
    }
    // And where it comes to nothing in the end.
    holder.run("BEGIN").succeeded();
    holder.run("DELETE FROM jobs WHERE id = 2").succeeded();
    let waiting = waiting(bed, WAIT);
    holder.run("ROLLBACK").succeeded();
    assert_eq!(waiting.join().unwrap(), [2]);
}

#[test]
fn a_join_across_shards_gives_what_is_there_when_its_rows_are_locked() {
    let (bed, _turn) = bed();
    let mut holder = bed.client();
    holder.run("BEGIN").succeeded();
    holder
        .run("UPDATE jobs SET state = 'done' WHERE id = 4")
        .succeeded();
    let waiting = waiting(
        bed,
        "SELECT b.id FROM jobs a JOIN jobs b ON b.id = a.id + 1 WHERE b.state = 'new' AND a.id > 2 \
         ORDER BY a.id LIMIT 2 FOR UPDATE OF b",
    );
    holder.run("COMMIT").succeeded();
    assert_eq!(waiting.join().unwrap(), [5, 6]);
    assert!(locked(bed).is_empty());
}

#[test]
fn a_locking_read_that_waits_can_be_cancelled() {
    let (bed, _turn) = bed();
    let (mut holder, mut waiting) = (bed.client(), bed.client());
    holder.run("BEGIN").succeeded();
    holder
        .run("UPDATE jobs SET note = 'mine' WHERE id = 1")
        .succeeded();
    waiting.run("SET statement_timeout = '100ms'").succeeded();
    for sql in [
        WAIT,
        "SELECT id FROM jobs FOR UPDATE",
        "SELECT id FROM jobs ORDER BY id FOR UPDATE",
    ] {
        assert_eq!(waiting.run(sql).sqlstate(), Some("57014"), "{sql}");
        let declare = format!("DECLARE c CURSOR FOR {sql}");
        for extended in [false, true] {
            waiting.run("BEGIN").succeeded();
            let declared = match extended {
                true => waiting.extended(&declare, &[], 0),
                false => waiting.run(&declare),
            };
            assert_eq!(declared.sqlstate(), Some("57014"), "{declare}");
            assert_eq!(waiting.status, b'E');
            waiting.run("ROLLBACK").succeeded();
        }
    }
    holder.run("COMMIT").succeeded();
    assert_eq!(ids(&mut waiting, WAIT), [1]);
    assert!(locked(bed).is_empty());
}

/// Takes jobs until there are none; how many each worker got.
fn work(login: &Login, extended: bool) -> Vec<u32> {
    let mut client = Client::connect(login);
    let mut taken = Vec::new();
    loop {
        client.run("BEGIN").succeeded();
        let job = match extended {
            false => ids(&mut client, TAKE),
            true => {
                let take = "SELECT id FROM jobs WHERE state = $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED";
                let reply = client
                    .extended(take, &[Some("new"), Some("1")], 0)
                    .succeeded();
                reply
                    .texts()
                    .iter()
                    .map(|row| row[0].parse().unwrap())
                    .collect()
            }
        };
        let Some(id) = job.first() else {
            client.run("COMMIT").succeeded();
            return taken;
        };
        let done = format!("UPDATE jobs SET state = 'done' WHERE id = {id}");
        assert_eq!(
            client.run(&done).succeeded().tag.as_deref(),
            Some("UPDATE 1")
        );
        client.run("COMMIT").succeeded();
        taken.push(*id);
    }
}

#[test]
fn every_job_of_a_queue_is_taken_once() {
    let (bed, _turn) = bed();
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| {
            let login = bed.login();
            thread::spawn(move || work(&login, number % 2 == 0))
        })
        .collect();
    let mut times: BTreeMap<u32, u32> = BTreeMap::new();
    for worker in workers {
        for id in worker.join().unwrap() {
            *times.entry(id).or_default() += 1;
        }
    }
    let once: BTreeMap<u32, u32> = (1..=JOBS as u32).map(|id| (id, 1)).collect();
    assert_eq!(times, once);
}

#[test]
fn a_cursor_locks_its_rows_when_it_is_declared() {
    let (bed, _turn) = bed();
    let declare = "DECLARE c CURSOR FOR SELECT id FROM jobs WHERE id <= 5 ORDER BY id FOR UPDATE";
    for extended in [false, true] {
        let mut client = bed.client();
        let mut run = |sql: &str| match extended {
            true => client.extended(sql, &[], 0).succeeded().texts(),
            false => client.run(sql).succeeded().texts(),
        };
        run("BEGIN");
        run("SAVEPOINT before");
        run(declare);
        assert_eq!(locked(bed), [1, 2, 3, 4, 5]);
        assert_eq!(run("FETCH 2 c"), [["1"], ["2"]]);
        let mut other = bed.client();
        other.run("BEGIN").succeeded();
        let too = "DECLARE c CURSOR FOR SELECT id FROM jobs WHERE id < 9 FOR UPDATE NOWAIT";
        assert_eq!(other.run(too).sqlstate(), Some("55P03"));
        assert_eq!(other.status, b'E');
        other.run("ROLLBACK").succeeded();
        let limited =
            "DECLARE c CURSOR FOR SELECT id FROM jobs ORDER BY id LIMIT 2 FOR UPDATE SKIP LOCKED";
        other.run("BEGIN").succeeded();
        other.run(limited).succeeded();
        assert_eq!(locked(bed), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(other.run("FETCH ALL c").succeeded().texts(), [["6"], ["7"]]);
        other.run("COMMIT").succeeded();
        run("ROLLBACK TO before");
        assert_eq!(locked(bed), [0_u32; 0]);
        run(declare);
        run("COMMIT");
        assert_eq!(locked(bed), [0_u32; 0]);
        assert_eq!(client.status, b'I');
    }
}

/// More rows than are brought at a time, of more bytes than a buffer.
#[test]
fn a_cursor_with_many_locked_rows() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    for id in 100..2_600 {
        let insert = format!("INSERT INTO jobs VALUES ({id}, 'many', repeat('x', 100))");
        client.run(&insert).succeeded();
    }
    for query in [
        "WHERE state = 'many'",
        "WHERE state = 'many' ORDER BY id DESC",
    ] {
        client.run("BEGIN").succeeded();
        let declare = format!("DECLARE c CURSOR FOR SELECT id, note FROM jobs {query} FOR UPDATE");
        client.run(&declare).succeeded();
        let mut rows = Vec::new();
        for fetch in ["FETCH 1100 c", "FETCH ALL c"] {
            rows.extend(client.run(fetch).succeeded().texts());
        }
        let ids: Vec<u32> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
        assert!(rows.iter().all(|row| row[1].len() == 100));
        let mut sorted = ids.clone();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(sorted, (100..2_600).rev().collect::<Vec<_>>());
        assert!(!query.contains("DESC") || ids == sorted);
        client.run("COMMIT").succeeded();
    }
}

/// The rows are run through when the cursor is declared, and so is what is wrong with one of them.
#[test]
fn a_row_that_fails_leaves_neither_cursor_nor_locks() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    for query in [
        "FOR UPDATE",
        "ORDER BY id FOR UPDATE",
        "ORDER BY id LIMIT 50 FOR UPDATE",
    ] {
        let declare = format!("DECLARE c CURSOR FOR SELECT id, 1 / (id - 40) FROM jobs {query}");
        for extended in [false, true] {
            client.run("BEGIN").succeeded();
            client.run("SAVEPOINT before").succeeded();
            let declared = match extended {
                true => client.extended(&declare, &[], 0),
                false => client.run(&declare),
            };
            assert_eq!(declared.sqlstate(), Some("22012"), "{declare}");
            assert_eq!(client.run("FETCH c").sqlstate(), Some("25P02"), "{declare}");
            client.run("ROLLBACK TO before").succeeded();
            assert_eq!(client.run("FETCH c").sqlstate(), Some("34000"), "{declare}");
            client.run("ROLLBACK").succeeded();
            let count = client.run("SELECT count(*) FROM jobs").succeeded();
            assert_eq!(count.value(), JOBS.to_string());
            assert!(locked(bed).is_empty());
        }
    }
}
