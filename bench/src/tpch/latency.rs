//! Small statements over both shards: how long one takes by the router, against the same by one PostgreSQL.
//!
//! One connection each, in turn; what is compared is the median of a round. A proxy that only copies bytes in front of that PostgreSQL
//! is a third: what any process in between costs on the machine. All of it twice: as the machine is, and with its processors kept awake.

use std::time::Instant;

use serde::Serialize;
use switchyard_cluster::APP_USER;

use super::Name;
use super::stand::Stand;
use crate::Error;
use crate::awake::Awake;
use crate::client::Client;
use crate::gate::Gate;
use crate::pgbench::DATABASE;
use crate::stand::{byte_copy, patiently};
use crate::statistics::Spread;

/// Times that each statement runs in a round.
const RUNS: usize = 50;

/// A statement and how much longer than by PostgreSQL it may take.
struct Statement {
    title: &'static str,
    sql: &'static str,
    bound: f64,
}

/// Of an ORDER BY and of a GROUP BY one is answered from an index or from few rows, so that what is measured is the way and not the scan,
/// and one from all rows of a table.
const STATEMENTS: [Statement; 5] = [
    Statement {
        title: "ORDER BY LIMIT 20 of all orders",
        sql: "SELECT o_orderkey, o_totalprice FROM orders ORDER BY o_totalprice DESC, o_orderkey LIMIT 20",
        bound: 2.0,
    },
    Statement {
        title: "ORDER BY LIMIT 20 of an index",
        sql: "SELECT o_orderkey, o_totalprice FROM orders ORDER BY o_orderkey LIMIT 20",
        bound: 2.0,
    },
    Statement {
        title: "GROUP BY of 25 rows",
        sql: "SELECT n_regionkey, count(*), max(n_nationkey) FROM nation GROUP BY n_regionkey",
        bound: 2.0,
    },
    Statement {
        title: "GROUP BY of all customers",
        sql: "SELECT c_mktsegment, count(*), max(c_acctbal) FROM customer GROUP BY c_mktsegment",
        bound: 2.0,
    },
    Statement {
        title: "lookup join of 20 rows to another key",
        sql: "SELECT l_orderkey, l_linenumber, p_name FROM lineitem JOIN part ON p_partkey = l_partkey \
              WHERE l_orderkey IN (1, 2, 3, 4, 5)",
        bound: 3.0,
    },
];

/// One statement's times.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Latency {
    /// The statement, for people.
    pub(crate) title: &'static str,
    /// Whether processors were kept awake.
    pub(crate) awake: bool,
    /// Microseconds by the plain server.
    pub(crate) plain_us: Option<f64>,
    /// Microseconds by the plain server behind a proxy that only copies bytes.
    pub(crate) copied_us: Option<f64>,
    /// Microseconds by the router.
    pub(crate) router_us: Option<f64>,
    /// The median of the rounds' ratios.
    pub(crate) ratio: Option<f64>,
    bound: f64,
}

impl Statement {
    /// How long it takes by each, in microseconds.
    fn round(&self, [plain, copied, router]: &mut [Client; 3]) -> std::io::Result<Times> {
        Ok([
            median_us(plain, self.sql)?,
            median_us(copied, self.sql)?,
            median_us(router, self.sql)?,
        ])
    }
}

/// By the plain server, behind the proxy, and by the router.
type Times = [f64; 3];

impl Latency {
    /// The medians of rounds.
    fn of(statement: &Statement, awake: bool, rounds: &[Times]) -> Latency {
        let median = |value: fn(&Times) -> f64| {
            Spread::of(rounds.iter().map(value)).map(|spread| spread.median)
        };
        Latency {
            title: statement.title,
            awake,
            plain_us: median(|[plain, _, _]| *plain),
            copied_us: median(|[_, copied, _]| *copied),
            router_us: median(|[_, _, router]| *router),
            ratio: median(|[plain, _, router]| router / plain),
            bound: statement.bound,
        }
    }

    /// The demand, and whether it is met.
    pub(crate) fn gate(&self) -> Option<Gate> {
        let measured = self.ratio?;
        let floor = self.copied_us? / self.plain_us?;
        let how = match self.awake {
            true => ", processors kept awake",
            false => "",
        };
        let demand = format!(
            "latency of {}{how}, × PostgreSQL's (a byte copy: {floor:.2})",
            self.title
        );
        Some(Gate::at_most(demand, measured, self.bound))
    }
}

/// Measures every statement in as many rounds, on the machine as it is and with its processors kept awake.
pub(super) fn measure(stand: &Stand, rounds: u32) -> Result<Vec<Latency>, Error> {
    let login = |port: u16| Client::login(port, APP_USER, DATABASE);
    let copy = byte_copy(stand.port(Name::Plain))?;
    patiently("byte copy", || login(copy.port.number()).map(drop))?;
    let client = |port: u16| login(port).map_err(Error::io("log in"));
    let mut clients = [
        client(stand.port(Name::Plain))?,
        client(copy.port.number())?,
        client(stand.port(Name::Router))?,
    ];
    let mut latencies = Vec::with_capacity(2 * STATEMENTS.len());
    for awake in [false, true] {
        let _processes = awake.then(Awake::start).transpose()?;
        for statement in &STATEMENTS {
            let rounds = (0..rounds).map(|_| statement.round(&mut clients));
            let rounds: Result<Vec<_>, _> = rounds.collect();
            let rounds = rounds.map_err(Error::io("measure latency"))?;
            latencies.push(Latency::of(statement, awake, &rounds));
        }
    }
    Ok(latencies)
}

/// The median time of a statement, in microseconds.
fn median_us(client: &mut Client, sql: &str) -> std::io::Result<f64> {
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let begun = Instant::now();
        client.run(sql)?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Spread::of(times).map_or(f64::NAN, |spread| spread.median))
}
