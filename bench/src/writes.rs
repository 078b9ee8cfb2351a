//! Writes over both shards, against the same by one PostgreSQL or on one shard. All servers sync what they commit.
//!
//! One connection each, in turn within each round; what counts are the medians of the rounds' ratios.

use std::fmt::Write;
use std::io;
use std::time::Instant;

use serde::Serialize;
use switchyard_cluster::{APP_USER, Cluster, ClusterSpec, Node, Port, RouterFile, Settings};

use crate::client::Client;
use crate::contender::Endpoint;
use crate::gate::Gate;
use crate::options::WritesPlan;
use crate::pgbench::{DATABASE, PASSWORD};
use crate::stand::patiently;
use crate::statistics::Spread;
use crate::{Error, router, say};

const DDL: &str = "
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);
CREATE TABLE entries (id bigint PRIMARY KEY, account int NOT NULL, amount numeric NOT NULL, note text NOT NULL);
CREATE TABLE tickets (id bigserial, holder int NOT NULL, note text NOT NULL);
CREATE TABLE journal (id bigserial, note text NOT NULL);
CREATE TABLE slips (id bigserial, holder int NOT NULL, note text NOT NULL);
CREATE SEQUENCE numbers;
";
/// By modulo, even accounts and holders are on one shard and odd ones on the other. The journal and the sequences are on the first.
const TABLES: &str = "
[[databases.tables]]
name      = \"accounts\"
shard_key = \"id\"
method    = \"modulo\"

[[databases.tables]]
name      = \"entries\"
shard_key = \"id\"
method    = \"hash\"

[[databases.tables]]
name      = \"tickets\"
shard_key = \"holder\"
method    = \"modulo\"

[[databases.tables]]
name      = \"slips\"
shard_key = \"holder\"
method    = \"modulo\"
";
/// On the shards, rows of this table are numbered without a sequence.
const SNOWFLAKES: [&str; 2] = [
    "SELECT create_snowflake_generator()",
    "ALTER TABLE slips ALTER id SET DEFAULT switchyard.gen_snowflake_id()",
];
/// Transactions, and INSERTs, in a round.
const RUNS: u64 = 100;
/// Rows of one INSERT.
const INSERTED: u64 = 1_000;
/// Bytes given to COPY at a time.
const PIECE: usize = 64 << 10;

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    rounds: u32,
    copied: u64,
    comparisons: Vec<Comparison>,
}

/// One thing done in two ways.
#[derive(Debug, Serialize)]
struct Comparison {
    title: &'static str,
    /// What each of the ways is.
    ways: [&'static str; 2],
    /// Milliseconds by each.
    ms: [Option<f64>; 2],
    /// The second way's time, as a multiple of the first's: the median of the rounds.
    ratio: Option<Spread>,
    at_most: f64,
}

/// The servers, the router, and a client of each of the two.
struct Stand {
    plain: Client,
    router: Client,
    /// By a router that has the first shard only, and nothing that is sharded.
    alone: Client,
    // Order matters: who uses a server goes before it.
    _routers: [Endpoint; 2],
    _cluster: Cluster,
    _directory: tempfile::TempDir,
    /// The last key of an entry.
    last: u64,
}

/// Starts servers and measures everything.
pub(crate) fn measure(plan: &WritesPlan) -> Result<Report, Error> {
    say("starting PostgreSQL for writes");
    let mut stand = Stand::raise()?;
    let failed = Error::io("measure writes");
    let comparisons = stand.compare(plan).map_err(failed)?;
    Ok(Report {
        rounds: plan.rounds,
        copied: plan.copied,
        comparisons,
    })
}

impl Stand {
    fn raise() -> Result<Stand, Error> {
        let settings = Settings::durable()
            .with("shared_buffers", "256MB")
            .with("max_wal_size", "4GB")
            .with("autovacuum", "off");
        let cluster = Cluster::start(ClusterSpec {
            database: DATABASE.to_owned(),
            password: PASSWORD.to_owned(),
            settings,
            ..ClusterSpec::for_tests(2, 0).with_oracle()
        })?;
        for node in cluster.nodes() {
            cluster.sql(node, DDL)?;
        }
        let (port, http) = (Port::any()?, Port::any()?);
        let text = cluster.router_file(&RouterFile {
            listen: port.number(),
            http: http.number(),
            auth: "scram-sha-256",
            router: "",
            tables: TABLES,
        });
        drop(http);
        let directory = tempfile::tempdir().map_err(Error::io("make a directory"))?;
        let endpoint = router::launch(directory.path(), "writes", &text, port)?;
        let number = endpoint.port.number();
        let login = |port: u16| Client::login(port, APP_USER, DATABASE);
        patiently("router", || login(number).map(drop))?;
        let first = cluster.shards().get(..1).unwrap_or_default();
        let alone = router::in_front_of(directory.path(), "alone", "", first, "")?;
        let alone_number = alone.port.number();
        patiently("router", || login(alone_number).map(drop))?;
        let plain = cluster.oracle().map(Node::port).unwrap_or_default();
        let failed = |error| Error::io("log in")(error);
        Ok(Stand {
            plain: login(plain).map_err(failed)?,
            router: login(number).map_err(failed)?,
            alone: login(alone_number).map_err(failed)?,
            _routers: [endpoint, alone],
            _cluster: cluster,
            _directory: directory,
            last: 0,
        })
    }

    fn compare(&mut self, plan: &WritesPlan) -> io::Result<Vec<Comparison>> {
        for account in 0..4 {
            let open = format!("INSERT INTO accounts VALUES ({account}, 0)");
            self.router.run(&open)?;
            self.plain.run(&open)?;
        }
        for sql in SNOWFLAKES {
            self.router.run(sql)?;
        }
        let mut transactions = [Vec::new(), Vec::new()];
        let mut routed = [Vec::new(), Vec::new()];
        let mut inserts = [Vec::new(), Vec::new()];
        let mut copies = [Vec::new(), Vec::new()];
        let mut numbered: [[Vec<f64>; 2]; 5] = Default::default();
        for round in 0..plan.rounds {
            say(&format!("writes: round {} of {}", round + 1, plan.rounds));
            transactions[0].push(transfer(&mut self.router, 0, 2)?);
            transactions[1].push(transfer(&mut self.router, 0, 1)?);
            routed[0].push(transfer(&mut self.alone, 0, 2)?);
            routed[1].push(transfer(&mut self.router, 0, 2)?);
            let first = self.last + 1;
            self.last += RUNS * INSERTED;
            inserts[0].push(insert(&mut self.plain, first)?);
            inserts[1].push(insert(&mut self.router, first)?);
            let rows = rows(plan.copied);
            copies[0].push(copy(&mut self.plain, &rows)?);
            copies[1].push(copy(&mut self.router, &rows)?);
            for (way, client) in [&mut self.plain, &mut self.router].into_iter().enumerate() {
                client.run("TRUNCATE entries")?;
                for (of, what) in numbered.iter_mut().zip(Numbered::ALL) {
                    of[way].push(what.run(client)?);
                }
                client.run("TRUNCATE tickets, journal, slips")?;
            }
            self.last = 0;
        }
        let numbered = numbered.into_iter().zip(Numbered::ALL);
        let numbered = numbered.map(|(ms, what)| {
            let (title, at_most) = what.demand();
            Comparison::new(title, ["PostgreSQL", "router"], ms, at_most)
        });
        let numbered: Vec<Comparison> = numbered.collect();
        let mut comparisons = vec![
            Comparison::new(
                "transaction of two updates",
                ["one shard", "two shards"],
                transactions,
                3.0,
            ),
            Comparison::new(
                "the same on one shard",
                ["one node only", "one of two"],
                routed,
                1.05,
            ),
            Comparison::new(
                "INSERT of 1,000 rows",
                ["PostgreSQL", "router"],
                inserts,
                1.5,
            ),
            // At least 0.9 × the rate is at most 1 / 0.9 × the time.
            Comparison::new("COPY FROM", ["PostgreSQL", "router"], copies, 1.0 / 0.9),
        ];
        comparisons.extend(numbered);
        Ok(comparisons)
    }
}

/// What takes values of sequences.
#[derive(Debug, Clone, Copy)]
enum Numbered {
    /// A client asks for one.
    Nextval,
    /// A row of a table that is on the first shard.
    Journal,
    /// A row that is on the other shard.
    Ticket,
    /// Rows of both shards.
    Tickets,
    /// A row that is on the other shard, numbered there by a snowflake instead.
    Slip,
}

impl Numbered {
    const ALL: [Numbered; 5] = [
        Numbered::Nextval,
        Numbered::Journal,
        Numbered::Ticket,
        Numbered::Tickets,
        Numbered::Slip,
    ];

    /// Its name, and the multiple of one PostgreSQL's time that it may take. A row elsewhere than its sequence takes a transaction of two
    /// servers, where one statement was.
    fn demand(self) -> (&'static str, f64) {
        match self {
            Numbered::Nextval => ("nextval()", 3.0),
            Numbered::Journal => ("INSERT, serial, first shard", 1.5),
            Numbered::Ticket => ("INSERT, serial, other shard", 4.0),
            Numbered::Tickets => ("INSERT of 1,000 rows, serial", 2.0),
            Numbered::Slip => ("INSERT, snowflake, other shard", 2.0),
        }
    }

    fn sql(self) -> String {
        match self {
            Numbered::Nextval => "SELECT nextval('numbers')".to_owned(),
            Numbered::Journal => "INSERT INTO journal (note) VALUES ('a note')".to_owned(),
            Numbered::Ticket => {
                "INSERT INTO tickets (holder, note) VALUES (1, 'a ticket')".to_owned()
            }
            Numbered::Slip => "INSERT INTO slips (holder, note) VALUES (1, 'a slip')".to_owned(),
            Numbered::Tickets => {
                let rows = (0..INSERTED).map(|row| format!("({row}, 'ticket of {row}')"));
                let rows: Vec<String> = rows.collect();
                format!(
                    "INSERT INTO tickets (holder, note) VALUES {}",
                    rows.join(", ")
                )
            }
        }
    }

    /// Milliseconds of one, on average.
    fn run(self, client: &mut Client) -> io::Result<f64> {
        let sql = self.sql();
        let begun = Instant::now();
        for _ in 0..RUNS {
            client.run(&sql)?;
        }
        Ok(begun.elapsed().as_secs_f64() * 1e3 / RUNS as f64)
    }
}

/// Milliseconds of one transaction, on average.
fn transfer(client: &mut Client, from: u32, to: u32) -> io::Result<f64> {
    let begun = Instant::now();
    for _ in 0..RUNS {
        client.run("BEGIN")?;
        client.run(&format!(
            "UPDATE accounts SET balance = balance - 1 WHERE id = {from}"
        ))?;
        client.run(&format!(
            "UPDATE accounts SET balance = balance + 1 WHERE id = {to}"
        ))?;
        client.run("COMMIT")?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3 / RUNS as f64)
}

/// Milliseconds of one INSERT, on average; the first key is given.
fn insert(client: &mut Client, first: u64) -> io::Result<f64> {
    let statements: Vec<String> = (0..RUNS)
        .map(|run| {
            let mut sql = String::from("INSERT INTO entries VALUES ");
            for row in 0..INSERTED {
                let id = first + run * INSERTED + row;
                let separator = if row == 0 { "" } else { ", " };
                // Writing to a string does not fail.
                let _ = write!(
                    sql,
                    "{separator}({id}, {}, {}.50, 'entry {id} of many')",
                    id % 1000,
                    id % 97
                );
            }
            sql
        })
        .collect();
    let begun = Instant::now();
    for statement in &statements {
        client.run(statement)?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3 / RUNS as f64)
}

/// Rows for COPY, in its text format.
fn rows(count: u64) -> Vec<u8> {
    let mut text = String::new();
    for id in 1..=count {
        let _ = writeln!(
            text,
            "{id}\t{}\t{}.50\tentry {id} of very many that are copied",
            id % 1000,
            id % 97
        );
    }
    text.into_bytes()
}

/// Milliseconds of one COPY into an empty table.
fn copy(client: &mut Client, rows: &[u8]) -> io::Result<f64> {
    client.run("TRUNCATE entries")?;
    let begun = Instant::now();
    client.copy_in("COPY entries FROM STDIN", rows.chunks(PIECE))?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

impl Comparison {
    fn new(title: &'static str, ways: [&'static str; 2], ms: [Vec<f64>; 2], at_most: f64) -> Self {
        let [first, second] = &ms;
        let ratios = second
            .iter()
            .zip(first)
            .map(|(second, first)| second / first);
        let ratio = Spread::of(ratios);
        let median = |values: Vec<f64>| Spread::of(values).map(|spread| spread.median);
        Comparison {
            title,
            ways,
            ratio,
            ms: ms.map(median),
            at_most,
        }
    }

    fn gate(&self) -> Option<Gate> {
        let measured = self.ratio?.median;
        let [first, second] = self.ways;
        let demand = format!("{}: {second}, × the time of {first}", self.title);
        Some(Gate::at_most(demand, measured, self.at_most))
    }
}

impl Report {
    /// For people.
    pub(crate) fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "\nWrites over two shards, medians of {} rounds; {} rows copied",
            self.rounds, self.copied
        )?;
        for Comparison {
            title,
            ways,
            ms,
            ratio,
            ..
        } in &self.comparisons
        {
            let ms = ms.map(|ms| ms.map_or("-".to_owned(), |ms| format!("{ms:.2}")));
            let ratio = ratio.map_or("-".to_owned(), |ratio| {
                format!("{:.2} ({:.2} to {:.2})", ratio.median, ratio.min, ratio.max)
            });
            writeln!(
                text,
                "  {title:28} {}: {} ms, {}: {} ms, × {ratio}",
                ways[0], ms[0], ways[1], ms[1]
            )?;
        }
        Ok(())
    }

    /// The demands.
    pub(crate) fn gates(&self) -> Vec<Gate> {
        self.comparisons
            .iter()
            .filter_map(Comparison::gate)
            .collect()
    }
}
