//! What the router has to reach, compared with what was measured.

use serde::Serialize;

use crate::contender::Name;
use crate::options::{Protocol, Scenario, Script};
use crate::report::Row;

/// One demand.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Gate {
    /// What is demanded, for people.
    pub(crate) demand: String,
    /// What was measured.
    pub(crate) measured: f64,
    /// The bound.
    pub(crate) bound: f64,
    /// Whether it is met.
    pub(crate) met: bool,
}

/// At least this share of PgBouncer's throughput, and at most this multiple of its CPU time, from 16 clients on.
const THROUGHPUT: f64 = 0.9;
const CPU: f64 = 1.1;
/// At most this multiple of the latency that PgBouncer adds, for one client.
const LATENCY: f64 = 1.2;
/// At least this share of the unsharded throughput when routing by shard key.
const ROUTING: f64 = 0.95;

/// Every demand that the measured rows say something about.
pub(crate) fn gates(rows: &[Row]) -> Vec<Gate> {
    rows.iter().flat_map(of_row).collect()
}

fn of_row(row: &Row) -> Vec<Gate> {
    let Scenario {
        script,
        protocol,
        clients,
    } = row.scenario;
    let mut gates = Vec::new();
    if script != Script::SelectOnly {
        return gates;
    }
    let mut demand = |what: &str, measured: Option<f64>, bound: f64, at_least: bool| {
        let Some(measured) = measured else {
            return;
        };
        let met = if at_least {
            measured >= bound
        } else {
            measured <= bound
        };
        gates.push(Gate {
            demand: format!("{}: {what}", row.scenario.title()),
            measured,
            bound,
            met,
        });
    };
    if row.name == Name::Router && protocol != Protocol::Extended {
        if clients == 1 {
            let added = row.added_latency_to_pgbouncer;
            demand(
                "added latency, × PgBouncer's, at most",
                added,
                LATENCY,
                false,
            );
        } else {
            let (tps, cpu) = (row.tps_to_pgbouncer, row.cpu_to_pgbouncer);
            demand("throughput, × PgBouncer's, at least", tps, THROUGHPUT, true);
            demand("CPU per query, × PgBouncer's, at most", cpu, CPU, false);
        }
    }
    if row.name == Name::Routed {
        let tps = row.tps_to_unsharded;
        demand(
            "routed by key, × one node's throughput, at least",
            tps,
            ROUTING,
            true,
        );
    }
    gates
}
