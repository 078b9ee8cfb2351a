//! A bank: money moves between accounts on different shards while routers, servers, the catalog and connections are killed at random. The
//! sum never changes, whoever adds it up meanwhile by consistent reads, every transfer that was acknowledged is there once, and nothing stays prepared.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use switchyard_tests::cluster::{ClusterSpec, Stop};
use switchyard_tests::random::chance::Chance;
use switchyard_tests::{Bed, BedSpec, Client, Login, Mode, Proxied, eventually};

/// Each transfer has a line for each of its two accounts, on the account's shard.
const DDL: &str = "
CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL);
CREATE TABLE lines (account int REFERENCES accounts, transfer bigint, amount int NOT NULL, PRIMARY KEY (account, transfer));
";
const TABLES: &str = "
[[databases.tables]]
name      = \"accounts\"
shard_key = \"id\"
method    = \"modulo\"

[[databases.tables]]
name          = \"lines\"
shard_key     = \"account\"
method        = \"modulo\"
colocate_with = \"accounts\"
";

const ACCOUNTS: usize = 20;
const CLIENTS: usize = 8;
const ROUTERS: usize = 2;
const SHARDS: usize = 3;
const LASTS: Duration = Duration::from_secs(60);
const SEED: u64 = 4;

/// What a client knows of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// COMMIT was acknowledged.
    Committed,
    /// It was refused, or had not come to its COMMIT.
    Failed,
    /// The client was told that nobody knows, or nothing.
    Unknown,
}

/// Moves some money; `number` is the transfer's.
fn transfer(client: &mut Client, number: usize, chance: &mut Chance) -> (Told, bool) {
    let from = chance.below(ACCOUNTS);
    // On another shard.
    let to = loop {
        let to = chance.below(ACCOUNTS);
        if to % SHARDS != from % SHARDS {
            break to;
        }
    };
    let amount = chance.between(1, 9);
    let statements = [
        "BEGIN".to_owned(),
        format!("UPDATE accounts SET balance = balance - {amount} WHERE id = {from}"),
        format!("UPDATE accounts SET balance = balance + {amount} WHERE id = {to}"),
        format!("INSERT INTO lines VALUES ({from}, {number}, -{amount})"),
        format!("INSERT INTO lines VALUES ({to}, {number}, {amount})"),
    ];
    for statement in &statements {
        match client.try_run(statement) {
            Some(reply) if reply.failure.is_none() => {}
            Some(_) => return (Told::Failed, client.try_run("ROLLBACK").is_some()),
            None => return (Told::Failed, false),
        }
    }
    match client.try_run("COMMIT") {
        Some(reply) => match (reply.sqlstate(), reply.tag.as_deref()) {
            (None, Some("COMMIT")) => (Told::Committed, true),
            (Some("08007"), _) => (Told::Unknown, true),
            _ => (Told::Failed, true),
        },
        None => (Told::Unknown, false),
    }
}

/// A client of whichever router is there, until the time is over. What it was told, by transfer.
fn customer(
    number: usize,
    ports: &[AtomicU16],
    numbers: &AtomicUsize,
    is_over: &AtomicBool,
) -> BTreeMap<usize, Told> {
    let mut chance = Chance::of(SEED, number as u64);
    let mut told = BTreeMap::new();
    let mut client = None;
    while !is_over.load(Ordering::Relaxed) {
        let Some(here) = &mut client else {
            let port = ports[chance.below(ROUTERS)].load(Ordering::Relaxed);
            client = Client::reach(&Login::new(port)).ok().and_then(Result::ok);
            continue;
        };
        let transfer_number = numbers.fetch_add(1, Ordering::Relaxed);
        let (outcome, goes_on) = transfer(here, transfer_number, &mut chance);
        told.insert(transfer_number, outcome);
        if !goes_on {
            client = None;
        }
    }
    told
}

/// Adds up all money, through whichever router is there, until the time is over. How often it has been told.
fn auditor(ports: &[AtomicU16], is_over: &AtomicBool) -> usize {
    let mut chance = Chance::of(SEED, 2000);
    let (mut told, mut client) = (0, None);
    while !is_over.load(Ordering::Relaxed) {
        let Some(here) = &mut client else {
            let port = ports[chance.below(ROUTERS)].load(Ordering::Relaxed);
            let login = Login::new(port).with("options", "-cswitchyard.consistent_read=on");
            client = Client::reach(&login).ok().and_then(Result::ok);
            continue;
        };
        match here.try_run("SELECT sum(balance) FROM accounts") {
            Some(reply) if reply.failure.is_none() => {
                assert_eq!(reply.value(), (1000 * ACCOUNTS).to_string());
                told += 1;
            }
            Some(_) => std::thread::sleep(Duration::from_millis(50)),
            None => client = None,
        }
        // The others are to get on.
        std::thread::sleep(Duration::from_millis(20));
    }
    told
}

/// Kills something, now and then, until the time is over. How often it has.
fn faults(
    bed: &Bed,
    mut routers: Vec<Proxied>,
    ports: &[AtomicU16],
    is_over: &AtomicBool,
) -> [usize; 4] {
    let mut chance = Chance::of(SEED, 1000);
    let mut done = [0; 4];
    let begin = Instant::now();
    while begin.elapsed() < LASTS {
        std::thread::sleep(Duration::from_millis(chance.between(100, 1500) as u64));
        let at = chance.below(ROUTERS);
        let shard = chance.below(SHARDS);
        let fault = chance.below(4);
        done[fault] += 1;
        match fault {
            0 => {
                routers[at].router_mut().process().kill();
                routers[at] = Proxied::new(bed, "");
                ports[at].store(routers[at].router().port(), Ordering::Relaxed);
            }
            1 => routers[at].of_shard(shard).cut(),
            2 => {
                let node = match chance.below(SHARDS + 1) {
                    SHARDS => bed.cluster().catalog().unwrap(),
                    shard => bed.cluster().shard(shard).primary.as_ref(),
                };
                node.stop(*chance.pick(&[Stop::Kill, Stop::Immediate, Stop::Fast]))
                    .unwrap();
                node.start().unwrap();
            }
            _ => {
                let proxy = routers[at].of_shard(shard);
                proxy.set(Mode::Stall);
                std::thread::sleep(Duration::from_millis(chance.between(100, 2500) as u64));
                proxy.cut();
                proxy.set(Mode::Forward);
            }
        }
    }
    is_over.store(true, Ordering::Relaxed);
    done
}

#[test]
fn no_money_is_made_or_lost() {
    let bed = Bed::start(
        BedSpec::of(ClusterSpec::for_tests(SHARDS, 0).with_catalog()).with_tables(DDL, TABLES),
    );
    let mut client = bed.client();
    for id in 0..ACCOUNTS {
        let open = format!("INSERT INTO accounts VALUES ({id}, 1000)");
        client.run(&open).succeeded();
    }
    let routers: Vec<Proxied> = (0..ROUTERS).map(|_| Proxied::new(&bed, "")).collect();
    let ports = routers
        .iter()
        .map(|router| AtomicU16::new(router.router().port()));
    let ports: Vec<AtomicU16> = ports.collect();
    let (numbers, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (told, faults, audits) = std::thread::scope(|scope| {
        let faults = scope.spawn(|| faults(&bed, routers, &ports, &is_over));
        let auditor = scope.spawn(|| auditor(&ports, &is_over));
        let customers: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (ports, numbers, is_over) = (&ports, &numbers, &is_over);
                scope.spawn(move || customer(number, ports, numbers, is_over))
            })
            .collect();
        let told = customers
            .into_iter()
            .flat_map(|customer| customer.join().unwrap());
        (
            told.collect::<BTreeMap<usize, Told>>(),
            faults.join().unwrap(),
            auditor.join().unwrap(),
        )
    });
    eventually("nothing stays prepared or at work", || {
        let left = "SELECT (SELECT count(*) FROM pg_prepared_xacts) + (SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid')";
        each(&bed, left) == ["0"; SHARDS]
    });
    let count = |wanted: Told| told.values().filter(|told| **told == wanted).count();
    let committed = count(Told::Committed);
    println!(
        "{committed} transfers acknowledged, {} failed, {} unknown; {} routers killed, {} times connections cut, {} \
         servers stopped, {} stalls; {audits} times all was added up",
        count(Told::Failed),
        count(Told::Unknown),
        faults[0],
        faults[1],
        faults[2],
        faults[3],
    );
    balanced(&bed, &told);
    assert!(committed > 100, "they came to work");
    assert!(audits > 10, "{audits}");
    assert!(faults.iter().all(|times| *times > 0), "{faults:?}");
}

/// Asks each shard.
fn each(bed: &Bed, sql: &str) -> Vec<String> {
    let shards = bed.cluster().shards().iter();
    shards
        .map(|shard| bed.cluster().sql(shard.primary.as_ref(), sql).unwrap())
        .collect()
}

/// What is in the tables is what the clients were told, and adds up.
fn balanced(bed: &Bed, told: &BTreeMap<usize, Told>) {
    let mut lines: BTreeMap<usize, Vec<i32>> = BTreeMap::new();
    for shard in each(bed, "SELECT transfer || ' ' || amount FROM lines") {
        for line in shard.lines() {
            let (transfer, amount) = line.split_once(' ').unwrap();
            let amounts = lines.entry(transfer.parse().unwrap()).or_default();
            amounts.push(amount.parse().unwrap());
        }
    }
    for (transfer, told) in told {
        let amounts = lines.get(transfer).map_or(&[][..], Vec::as_slice);
        match told {
            Told::Committed => assert_eq!(amounts.len(), 2, "{transfer} was acknowledged"),
            Told::Failed => assert!(amounts.is_empty(), "{transfer} failed: {amounts:?}"),
            Told::Unknown => assert!(matches!(amounts.len(), 0 | 2), "{transfer}: {amounts:?}"),
        }
        assert_eq!(amounts.iter().sum::<i32>(), 0, "{transfer}");
    }
    assert!(lines.keys().all(|transfer| told.contains_key(transfer)));
    let sums = each(bed, "SELECT sum(balance) FROM accounts");
    let sum: i64 = sums.iter().map(|sum| sum.parse::<i64>().unwrap()).sum();
    assert_eq!(sum, 1000 * ACCOUNTS as i64);
    let differ = "SELECT count(*) FROM accounts WHERE balance <> 1000 + (SELECT coalesce(sum(amount), 0) FROM lines WHERE account = id)";
    assert_eq!(each(bed, differ), ["0"; SHARDS]);
}
