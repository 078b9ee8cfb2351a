//! No value of a sequence is given twice, whoever dies: the server that has the sequence, or the router.

#[path = "sequences/snowflakes.rs"]
mod snowflakes;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use switchyard_tests::cluster::{ClusterSpec, Stop};
use switchyard_tests::{Bed, BedSpec, Client, Login, Proxied, eventually};

/// Nothing on a server keeps one value from being stored twice.
const DDL: &str = "CREATE TABLE entries (who int NOT NULL, id bigserial); CREATE SEQUENCE single";
const TABLES: &str = "
[[databases.tables]]
name      = \"entries\"
shard_key = \"who\"
method    = \"modulo\"
";

static BED: OnceLock<Bed> = OnceLock::new();
/// The tests stop servers.
static TURN: Mutex<()> = Mutex::new(());

fn bed() -> (&'static Bed, MutexGuard<'static, ()>) {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let bed = BED.get_or_init(|| {
        let bed = Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 0)).with_tables(DDL, TABLES));
        // What is not flushed by a commit is lost with the server.
        let slow = [
            ("wal_writer_delay", Some("10s")),
            ("synchronous_commit", Some("on")),
        ];
        bed.cluster().shard(0).primary.configure(&slow).unwrap();
        bed
    });
    let mut client = bed.client();
    eventually("the shards are there", || {
        client.run("TRUNCATE entries").failure.is_none()
    });
    (bed, turn)
}

/// The first shard's server dies at once, and comes back.
fn crash(bed: &Bed) {
    let node = bed.cluster().shard(0).primary.as_ref();
    node.stop(Stop::Kill).unwrap();
    node.start().unwrap();
}

/// All numbers on both shards.
fn numbers(bed: &Bed) -> Vec<i64> {
    let each = bed.cluster().shards().iter().flat_map(|shard| {
        let all = "SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM entries";
        let all = bed.cluster().sql(shard.primary.as_ref(), all).unwrap();
        let numbers = all.split(',').filter(|number| !number.is_empty());
        numbers
            .map(|number| number.parse().unwrap())
            .collect::<Vec<i64>>()
    });
    each.collect()
}

/// A transaction that is not at its end has taken a value, and PostgreSQL has logged it and those that come next: they are another
/// transaction's to use, and nothing has brought the log to the disk.
fn open_transaction(bed: &Bed) -> Client {
    let mut open = bed.client();
    open.run("BEGIN").succeeded();
    open.run("SELECT setval('entries_id_seq', nextval('entries_id_seq') + 100)")
        .succeeded();
    open.run("SELECT nextval('entries_id_seq')").succeeded();
    open
}

/// After a crash the next value is none that a row on the other shard has.
#[track_caller]
fn no_value_comes_again(what: &str, store: impl Fn(&Bed, &mut Client)) {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    client
        .run("INSERT INTO entries (who) VALUES (1)")
        .succeeded();
    let open = open_transaction(bed);
    store(bed, &mut client);
    crash(bed);
    drop(open);
    let stored = numbers(bed);
    let greatest = stored.iter().max().copied().unwrap();
    let mut client = bed.client();
    let mut next = String::new();
    eventually("the server is back", || {
        let reply = client.run("INSERT INTO entries (who) VALUES (1) RETURNING id");
        let stored = reply.failure.is_none();
        if stored {
            next = reply.value();
        }
        stored
    });
    let next: i64 = next.parse().unwrap();
    assert!(next > greatest, "{what}: {next} after {stored:?}");
    // It was not the crash alone that made it greater.
    assert!(greatest > 100, "{what}: {stored:?}");
}

#[test]
fn rows_that_are_listed() {
    no_value_comes_again("rows", |_, client| {
        let insert = "INSERT INTO entries (who) VALUES (1), (3), (5)";
        client.run(insert).succeeded();
    });
}

#[test]
fn rows_of_a_query() {
    no_value_comes_again("query", |_, client| {
        let insert = "INSERT INTO entries (who) SELECT 2 * n + 1 FROM generate_series(1, 5) AS n";
        client.run(insert).succeeded();
    });
}

#[test]
fn rows_that_are_copied() {
    no_value_comes_again("copy", |_, client| {
        let copied = client.copy_in("COPY entries (who) FROM STDIN", b"1\n3\n5\n");
        assert_eq!(copied.succeeded().tag.as_deref(), Some("COPY 3"));
    });
}

/// A client asks for a value, and stores it in a transaction of its own.
#[test]
fn values_that_clients_ask_for() {
    no_value_comes_again("nextval", |_, client| {
        let value = client.run("SELECT nextval('entries_id_seq')").value();
        let insert = format!("INSERT INTO entries (who, id) VALUES (1, {value})");
        client.run(&insert).succeeded();
    });
}

/// Clients of two routers insert while those, and the server of the sequence, are killed again and again.
#[test]
fn routers_and_servers_are_killed_while_clients_insert() {
    let (bed, _turn) = bed();
    let mut routers: Vec<Proxied> = (0..2).map(|_| Proxied::new(bed, "")).collect();
    let ports: Vec<AtomicU16> = routers
        .iter()
        .map(|router| AtomicU16::new(router.router().port()))
        .collect();
    let (is_over, told) = (AtomicBool::new(false), AtomicUsize::new(0));
    let acknowledged = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|number| {
                let (ports, is_over, told) = (&ports, &is_over, &told);
                scope.spawn(move || insert_until(number, ports, is_over, told))
            })
            .collect();
        for round in 0..6 {
            let before = told.load(Ordering::Relaxed);
            eventually("clients insert", || {
                told.load(Ordering::Relaxed) > before + 20
            });
            match round % 2 {
                0 => crash(bed),
                _ => {
                    let at = (round / 2) % 2;
                    routers[at].router_mut().process().kill();
                    routers[at] = Proxied::new(bed, "");
                    ports[at].store(routers[at].router().port(), Ordering::Relaxed);
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
        let all = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap());
        all.collect::<Vec<i64>>()
    });
    eventually("nothing stays prepared", || {
        bed.cluster().shards().iter().all(|shard| {
            let prepared = "SELECT count(*) FROM pg_prepared_xacts";
            bed.cluster().sql(shard.primary.as_ref(), prepared).unwrap() == "0"
        })
    });
    let stored = numbers(bed);
    let distinct: BTreeSet<i64> = stored.iter().copied().collect();
    assert_eq!(distinct.len(), stored.len(), "values that are there twice");
    let told: BTreeSet<i64> = acknowledged.iter().copied().collect();
    assert_eq!(
        told.len(),
        acknowledged.len(),
        "values that were told twice"
    );
    assert!(told.is_subset(&distinct), "what is acknowledged is there");
}

/// Inserts until it is over, by whichever router is there; the values that it was told.
fn insert_until(
    number: usize,
    ports: &[AtomicU16],
    is_over: &AtomicBool,
    told: &AtomicUsize,
) -> Vec<i64> {
    let (mut values, mut client) = (Vec::new(), None);
    let mut turn = number;
    let began = Instant::now();
    while !is_over.load(Ordering::Relaxed) && began.elapsed() < Duration::from_secs(120) {
        turn += 1;
        let Some(here) = &mut client else {
            let port = ports[turn % ports.len()].load(Ordering::Relaxed);
            client = Client::reach(&Login::new(port)).ok().and_then(Result::ok);
            continue;
        };
        let insert = match turn % 3 {
            0 => "INSERT INTO entries (who) VALUES (1) RETURNING id".to_owned(),
            1 => format!("INSERT INTO entries (who) VALUES ({turn}), (1), (2) RETURNING id"),
            _ => "INSERT INTO entries (who) SELECT n FROM generate_series(1, 5) AS n".to_owned(),
        };
        match Client::try_run(here, &insert) {
            Some(reply) if reply.failure.is_none() => {
                let rows = reply.texts();
                values.extend(rows.iter().map(|row| row[0].parse::<i64>().unwrap()));
                told.fetch_add(1, Ordering::Relaxed);
            }
            Some(_) => {}
            None => client = None,
        }
    }
    values
}
