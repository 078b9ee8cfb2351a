//! Transactions on several shards that wait for each other: one of them fails with 40P01, soon, and the others go on.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::{Bed, BedSpec, Client, Login, eventually};

/// By modulo 0 and 2 lie on the first shard, 1 and 3 on the second.
const DDL: &str = "CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL);";
const TABLES: &str = "
[[databases.tables]]
name      = \"accounts\"
shard_key = \"id\"
method    = \"modulo\"
";

fn bed() -> Bed {
    let spec = BedSpec::of(ClusterSpec::for_tests(2, 0));
    let bed = Bed::start(spec.with_tables(DDL, TABLES));
    let mut client = bed.client();
    for id in 0..4 {
        let fill = format!("INSERT INTO accounts VALUES ({id}, 100)");
        client.run(&fill).succeeded();
    }
    bed
}

fn add(client: &mut Client, amount: i32, id: i32) -> Option<switchyard_tests::Failure> {
    let update = format!("UPDATE accounts SET balance = balance + {amount} WHERE id = {id}");
    client.run(&update).failure
}

/// Each of these has one account and then wants another's. One fails, the others commit.
#[track_caller]
fn deadlock(clients: Vec<Client>, accounts: &[(i32, i32)]) {
    let (told, outcomes) = mpsc::channel();
    let mut began = Vec::new();
    for (mut client, (has, _)) in clients.into_iter().zip(accounts) {
        client.run("BEGIN").succeeded();
        assert!(add(&mut client, 1, *has).is_none());
        began.push(client);
    }
    let begin = Instant::now();
    let threads: Vec<_> = began
        .into_iter()
        .zip(accounts.to_vec())
        .map(|(mut client, (_, wants))| {
            let told = told.clone();
            std::thread::spawn(move || {
                let failure = add(&mut client, 1, wants);
                let took = begin.elapsed();
                let end = client.run("COMMIT").succeeded().tag;
                told.send((failure, took, end)).unwrap();
            })
        })
        .collect();
    let mut failed = 0;
    for _ in &threads {
        let (failure, took, end) = outcomes.recv_timeout(Duration::from_secs(30)).unwrap();
        match failure {
            Some(failure) => {
                failed += 1;
                assert_eq!(failure.sqlstate(), "40P01", "{failure:?}");
                assert_eq!(failure.message(), "deadlock detected");
                assert!(took < Duration::from_secs(2), "{took:?}");
                assert_eq!(end.as_deref(), Some("ROLLBACK"));
            }
            None => assert_eq!(end.as_deref(), Some("COMMIT")),
        }
    }
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(failed, 1, "one victim");
}

/// The sum of all balances since the last time: each transaction that commits has added two.
fn added(bed: &Bed) -> i32 {
    let sum = bed
        .client()
        .run("SELECT sum(balance) FROM accounts")
        .value();
    let added = sum.parse::<i32>().unwrap() - 400;
    bed.client()
        .run("UPDATE accounts SET balance = 100 WHERE id = 0")
        .succeeded();
    for id in 1..4 {
        let reset = format!("UPDATE accounts SET balance = 100 WHERE id = {id}");
        bed.client().run(&reset).succeeded();
    }
    added
}

#[test]
fn one_of_those_that_wait_for_each_other_fails() {
    let bed = bed();
    deadlock(vec![bed.client(), bed.client()], &[(0, 1), (1, 0)]);
    assert_eq!(added(&bed), 2);
    // A longer way round.
    let clients = (0..3).map(|_| bed.client()).collect();
    deadlock(clients, &[(0, 1), (1, 2), (2, 0)]);
    assert_eq!(added(&bed), 4);
    // By clients of two routers.
    let other = bed.another_router("", &|node| node.port());
    let theirs = || Client::connect(&Login::new(other.port()));
    for _ in 0..3 {
        deadlock(vec![bed.client(), theirs()], &[(0, 1), (1, 0)]);
        assert_eq!(added(&bed), 2);
    }
    let clients = vec![bed.client(), theirs(), bed.client(), theirs()];
    deadlock(clients, &[(0, 1), (1, 2), (2, 3), (3, 0)]);
    assert_eq!(added(&bed), 6);
    // The routers leave nothing on the nodes.
    for shard in bed.cluster().shards() {
        eventually("there are no marks", || {
            let marks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
            bed.cluster().sql(shard.primary.as_ref(), marks).unwrap() == "0"
        });
    }
}

/// Who waits for somebody that will go on is left alone.
#[test]
fn a_long_wait_is_no_deadlock() {
    let bed = bed();
    let (mut first, mut second) = (bed.client(), bed.client());
    for client in [&mut first, &mut second] {
        client.run("BEGIN").succeeded();
    }
    assert!(add(&mut first, 1, 0).is_none());
    assert!(add(&mut first, 1, 1).is_none());
    assert!(add(&mut second, 1, 2).is_none());
    assert!(add(&mut second, 1, 3).is_none());
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| add(&mut second, 1, 1));
        // More looks than a deadlock outlasts: each that finds somebody waiting ends with the marks, which stay the connection's last question.
        let looked = "SELECT query_start FROM pg_stat_activity WHERE query LIKE 'SELECT classid, objid FROM pg_catalog.pg_locks%' AND pid <> pg_backend_pid()";
        let primary = bed.cluster().shard(1).primary.as_ref();
        let mut looks = BTreeSet::new();
        eventually("the router has looked often", || {
            looks.insert(bed.cluster().sql(primary, looked).unwrap());
            looks.remove("");
            looks.len() > 5
        });
        assert!(!waits.is_finished());
        first.run("COMMIT").succeeded();
        assert!(waits.join().unwrap().is_none());
    });
    second.run("COMMIT").succeeded();
    assert_eq!(added(&bed), 5);
}
