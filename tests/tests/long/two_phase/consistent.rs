//! `switchyard.consistent_read`: what a read of several shards sees of a transaction on several shards.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use switchyard_tests::{Bed, Client, Hold, Login, Proxied, Reply, eventually};

use super::{BEFORE, POINTS, at_point, balances, bed, kill, nothing_is_prepared, transfer};

const SUM: &str = "SELECT sum(balance) FROM accounts";
/// The same in a workspace.
const APART: &str =
    "SELECT sum(balance) FROM (SELECT balance, row_number() OVER (ORDER BY id) FROM accounts) AS a";

fn consistent(bed: &Bed) -> Client {
    let option = "-cswitchyard.consistent_read=on";
    Client::connect(&bed.login().with("options", option))
}

/// Adds up what has only been appended.
fn total(reply: &Reply) -> i64 {
    assert!(reply.failure.is_none(), "{reply:?}");
    let rows = reply.texts();
    rows.iter().map(|row| row[0].parse::<i64>().unwrap()).sum()
}

/// Decided on the first shard, not yet committed on the other.
#[test]
fn half_a_transaction_is_not_seen() {
    let (bed, _turn) = bed();
    let mut proxied = Proxied::new(bed, "");
    let point = POINTS[6];
    assert_eq!((point.0, point.2), (1, Hold::Before));
    let mut plain = bed.client();
    let mut reader = consistent(bed);
    assert_eq!(reader.run("SHOW switchyard.consistent_read").value(), "on");
    at_point(&mut proxied, point, |proxied| {
        assert_eq!(plain.run(SUM).value(), "190");
        // It waits until the other shard has it, too: another router sees to that.
        assert_eq!(reader.run(SUM).value(), "200");
        kill(proxied);
    });
    assert_eq!(reader.run(SUM).value(), "200");
    assert!(nothing_is_prepared(bed));
}

/// What a fence stands on is made again where somebody has removed it, as a dump that was restored would.
#[test]
fn tables_of_decisions_that_have_gone() {
    let (bed, _turn) = bed();
    let mut reader = consistent(bed);
    for gone in [vec![0], vec![1], vec![0, 1]] {
        assert_eq!(reader.run(SUM).value(), "200");
        for shard in gone {
            let primary = bed.cluster().shard(shard).primary.as_ref();
            let drop = "DROP SCHEMA switchyard CASCADE";
            bed.cluster().superuser_sql(primary, "shop", drop).unwrap();
        }
        assert_eq!(reader.run(SUM).value(), "200");
    }
}

/// Nobody knows yet how it ends, and it does not end.
#[test]
fn a_decision_that_does_not_come_is_not_waited_for_for_ever() {
    let (bed, _turn) = bed();
    let mut proxied = Proxied::new(bed, "");
    let point = POINTS[4];
    assert_eq!((point.0, point.2), (0, Hold::Before));
    let mut reader = consistent(bed);
    at_point(&mut proxied, point, |proxied| {
        let begin = Instant::now();
        let failure = reader.run(SUM).failure.unwrap();
        assert_eq!(failure.sqlstate(), "55P03", "{failure:?}");
        let waited = begin.elapsed();
        assert!(waited < Duration::from_secs(8), "{waited:?}: {failure:?}");
        kill(proxied);
    });
    eventually("nothing stays prepared", || nothing_is_prepared(bed));
    assert_eq!(reader.run(SUM).value(), "200");
    assert_eq!(balances(bed), BEFORE);
}

/// What a client has prepared keeps nobody from reading, and nobody sees half of its end.
#[test]
fn what_a_client_prepares_is_seen_whole() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    transfer(&mut client);
    client.run("PREPARE TRANSACTION 'seen'").succeeded();
    let mut reader = consistent(bed);
    assert_eq!(
        reader
            .run("SELECT balance FROM accounts ORDER BY id")
            .texts(),
        [["100"], ["100"]]
    );
    client.run("COMMIT PREPARED 'seen'").succeeded();
    assert_eq!(
        reader
            .run("SELECT balance FROM accounts ORDER BY id")
            .texts(),
        [["90"], ["110"]]
    );
}

/// Within blocks: all of one that keeps its snapshot is of one moment.
#[test]
fn blocks() {
    let (bed, _turn) = bed();
    let mut reader = consistent(bed);
    let mut writer = bed.client();
    reader
        .run("BEGIN ISOLATION LEVEL REPEATABLE READ")
        .succeeded();
    assert_eq!(
        reader
            .run("SELECT balance FROM accounts WHERE id = 0")
            .value(),
        "100"
    );
    transfer(&mut writer);
    writer.run("COMMIT").succeeded();
    assert_eq!(reader.run(SUM).value(), "200");
    assert_eq!(
        reader
            .run("SELECT balance FROM accounts WHERE id = 1")
            .value(),
        "100"
    );
    let late = reader.run("SET LOCAL switchyard.consistent_read = off");
    assert_eq!(late.sqlstate(), Some("25001"));
    reader.run("ROLLBACK").succeeded();

    reader.run("BEGIN").succeeded();
    assert_eq!(
        reader
            .run("SELECT balance FROM accounts WHERE id = 1")
            .value(),
        "110"
    );
    let refused = reader.run(SUM).failure.unwrap();
    assert_eq!(refused.sqlstate(), "0A000");
    reader.run("ROLLBACK").succeeded();

    reader.run("BEGIN").succeeded();
    reader
        .run("SET LOCAL switchyard.consistent_read = off")
        .succeeded();
    assert_eq!(reader.run(SUM).value(), "200");
    reader.run("COMMIT").succeeded();
    let wrong = reader.run("SET switchyard.consistent_read = perhaps");
    assert_eq!(wrong.sqlstate(), Some("22023"));
    reader
        .run("SET switchyard.consistent_read = off")
        .succeeded();
    reader.run("BEGIN").succeeded();
    assert_eq!(reader.run(SUM).value(), "200");
    reader.run("COMMIT").succeeded();
}

/// What is counted while money moves.
#[derive(Default)]
struct Counts {
    moved: AtomicUsize,
    seen: AtomicUsize,
    wrong: AtomicUsize,
    is_over: AtomicBool,
}

impl Counts {
    fn get(&self) -> [usize; 3] {
        [&self.moved, &self.seen, &self.wrong].map(|count| count.load(Ordering::Relaxed))
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// It is over, also when a test fails.
struct Over<'a>(&'a Counts);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// Moves money to and fro, until it is over.
fn mover(port: u16, counts: &Counts) {
    let mut client = Client::connect(&Login::new(port));
    for round in 0.. {
        if counts.is_over() {
            return;
        }
        let by = if round % 2 == 0 { 10 } else { -10 };
        let both = format!(
            "UPDATE accounts SET balance = balance - {by} WHERE id = 0; \
             UPDATE accounts SET balance = balance + {by} WHERE id = 1"
        );
        for reply in client.simple(&both) {
            reply.succeeded();
        }
        counts.moved.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts what a reader sees, and what of it adds up wrongly, until it is over.
fn sums(client: &mut Client, counts: &Counts) {
    client
        .run("PREPARE held AS SELECT balance FROM accounts")
        .succeeded();
    while !counts.is_over() {
        let mut seen = vec![
            total(&client.run(SUM)),
            total(&client.run("SELECT balance FROM accounts")),
            total(&client.run(APART)),
            total(&client.run("EXECUTE held")),
            total(&client.extended(SUM, &[], 0)),
            total(&client.extended(
                "SELECT balance FROM accounts WHERE id > $1",
                &[Some("-1")],
                0,
            )),
            total(&client.extended(APART, &[], 0)),
        ];
        for by in [Client::run, |client: &mut Client, sql: &str| {
            client.extended(sql, &[], 0)
        }] {
            by(client, "BEGIN ISOLATION LEVEL REPEATABLE READ").succeeded();
            let one = total(&by(client, "SELECT balance FROM accounts WHERE id = 0"));
            seen.push(one + total(&by(client, "SELECT balance FROM accounts WHERE id = 1")));
            by(client, "COMMIT").succeeded();
        }
        let wrong = seen.iter().filter(|sum| **sum != 200).count();
        counts.wrong.fetch_add(wrong, Ordering::Relaxed);
        counts.seen.fetch_add(seen.len(), Ordering::Relaxed);
    }
}

#[test]
fn sums_are_right_while_money_moves() {
    let (bed, _turn) = bed();
    let another = bed.another_router("", &|node| node.port());
    for (setting, may_be_wrong) in [("on", false), ("off", true)] {
        let counts = Counts::default();
        std::thread::scope(|scope| {
            let counts = &counts;
            let ports = [bed.router().port(), another.port()];
            for port in ports {
                scope.spawn(move || mover(port, counts));
            }
            for port in [ports[0], ports[0], ports[1]] {
                scope.spawn(move || {
                    let mut client = Client::connect(&Login::new(port));
                    let set = format!("SET switchyard.consistent_read = {setting}");
                    client.run(&set).succeeded();
                    sums(&mut client, counts);
                });
            }
            let _over = Over(counts);
            eventually("enough has been seen", || {
                let [moved, seen, wrong] = counts.get();
                moved > 100 && seen > 200 && (wrong > 0 || !may_be_wrong)
            });
        });
        let [_, seen, wrong] = counts.get();
        assert_eq!(wrong > 0, may_be_wrong, "{setting}: {wrong} of {seen}");
    }
}
