//! Small statements over both shards: how long one takes by the router, against the same by one PostgreSQL.
//!
//! One connection each, in turn; what is compared is the median of a round. A proxy that only copies bytes in front of that PostgreSQL
//! is a third: what any process in between costs on the machine.

use std::time::Instant;

use serde::Serialize;
use switchyard_cluster::APP_USER;

use super::Name;
use super::stand::Stand;
use crate::Error;
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

impl Latency {
    /// The demand, and whether it is met.
    pub(crate) fn gate(&self) -> Option<Gate> {
        let measured = self.ratio?;
        let floor = self.copied_us? / self.plain_us?;
        let demand = format!(
            "latency of {}, × PostgreSQL's (a byte copy: {floor:.2})",
            self.title
        );
        Some(Gate::at_most(demand, measured, self.bound))
    }
}

/// Measures every statement in as many rounds.
pub(super) fn measure(stand: &Stand, rounds: u32) -> Result<Vec<Latency>, Error> {
    let login = |port: u16| Client::login(port, APP_USER, DATABASE);
    let failed = |error| Error::io("measure latency")(error);
    let copy = byte_copy(stand.port(Name::Plain))?;
    patiently("byte copy", || login(copy.port.number()).map(drop))?;
    let mut copied = login(copy.port.number()).map_err(failed)?;
    let mut plain = login(stand.port(Name::Plain)).map_err(failed)?;
    let mut router = login(stand.port(Name::Router)).map_err(failed)?;
    let mut latencies = Vec::with_capacity(STATEMENTS.len());
    for Statement { title, sql, bound } in STATEMENTS {
        let (mut by_plain, mut by_copy, mut by_router) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            by_plain.extend(median_us(&mut plain, sql).map_err(failed)?);
            by_copy.extend(median_us(&mut copied, sql).map_err(failed)?);
            by_router.extend(median_us(&mut router, sql).map_err(failed)?);
        }
        let ratios: Vec<f64> = by_router
            .iter()
            .zip(&by_plain)
            .map(|(router, plain)| router / plain)
            .collect();
        let median = |values: Vec<f64>| Spread::of(values).map(|spread| spread.median);
        latencies.push(Latency {
            title,
            plain_us: median(by_plain),
            copied_us: median(by_copy),
            router_us: median(by_router),
            ratio: median(ratios),
            bound,
        });
    }
    Ok(latencies)
}

/// The median time of a statement, in microseconds.
fn median_us(client: &mut Client, sql: &str) -> std::io::Result<Option<f64>> {
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let begun = Instant::now();
        client.run(sql)?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Spread::of(times).map(|spread| spread.median))
}
