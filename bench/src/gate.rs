//! What the router has to reach, compared with what was measured.

use std::fmt::Display;

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

impl Gate {
    /// Demands at least so much.
    pub(crate) fn at_least(demand: impl Display, measured: f64, bound: f64) -> Gate {
        Gate {
            demand: format!("{demand}, at least"),
            measured,
            bound,
            met: measured >= bound,
        }
    }

    /// Demands at most so much.
    pub(crate) fn at_most(demand: impl Display, measured: f64, bound: f64) -> Gate {
        Gate {
            demand: format!("{demand}, at most"),
            measured,
            bound,
            met: measured <= bound,
        }
    }
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
    let title = |what: &str| format!("{}: {what}", row.scenario.title());
    let at_least = |what: &str, measured: Option<f64>, bound| {
        measured.map(|measured| Gate::at_least(title(what), measured, bound))
    };
    let at_most = |what: &str, measured: Option<f64>, bound| {
        measured.map(|measured| Gate::at_most(title(what), measured, bound))
    };
    if row.name == Name::Router && protocol != Protocol::Extended {
        if clients == 1 {
            let added = row.added_latency_to_pgbouncer;
            gates.extend(at_most("added latency, × PgBouncer's", added, LATENCY));
        } else {
            let (tps, cpu) = (row.tps_to_pgbouncer, row.cpu_to_pgbouncer);
            gates.extend(at_least("throughput, × PgBouncer's", tps, THROUGHPUT));
            gates.extend(at_most("CPU per query, × PgBouncer's", cpu, CPU));
        }
    }
    if row.name == Name::Routed {
        let tps = row.tps_to_unsharded;
        gates.extend(at_least(
            "routed by key, × one node's throughput",
            tps,
            ROUTING,
        ));
    }
    gates
}
