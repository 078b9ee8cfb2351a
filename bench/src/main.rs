//! `make bench`: what it costs to go through the router, and what it is worth.
//!
//! pgbench runs in turn against PostgreSQL itself, a proxy that only copies bytes (the floor), PgBouncer, and the router
//! with one unsharded node and with two shards. All of them are started here, on loopback, and stopped in the end. The
//! machine is shared by everything that is measured and by whatever else runs on it, so that the contenders take turns
//! within each round, in rotating order, and are compared round by round; medians of those comparisons are what counts.
//!
//! Then the same for TPC-H ([`tpch`]): queries that no shard can answer alone; and for writes to both shards ([`writes`]), and for rows that
//! move between shards ([`reshard`]).

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

mod awake;
mod client;
mod contender;
mod error;
mod floor;
mod gate;
mod idle;
mod measure;
mod options;
mod pgbench;
mod pgbouncer;
mod process;
mod report;
mod reshard;
mod router;
mod stand;
mod statistics;
mod tpch;
mod trace;
mod writes;

use error::Error;
use options::{Arguments, Command};
use stand::Stand;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Some(Command::Floor { listen, to }) => floor::serve(*listen, *to),
        Some(Command::Awake) => awake::spin(),
        None => compare(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            let mut cause = std::error::Error::source(&error);
            while let Some(source) = cause {
                say(&format!("  because: {source}"));
                cause = source.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &Arguments) -> Result<(), Error> {
    process::raise_file_limit();
    let report = report::Report {
        machine: report::Machine::this(),
        pgbench: arguments.pgbench().as_ref().map(pgbench).transpose()?,
        tpch: arguments.tpch().as_ref().map(tpch::measure).transpose()?,
        writes: arguments
            .writes()
            .as_ref()
            .map(writes::measure)
            .transpose()?,
        reshard: arguments
            .reshard()
            .as_ref()
            .map(reshard::measure)
            .transpose()?,
    };
    let text = if arguments.json {
        report.to_json()?
    } else {
        report.to_table()
    };
    writeln!(io::stdout(), "{text}").map_err(Error::io("write the report"))
}

/// pgbench against everybody.
fn pgbench(plan: &options::Plan) -> Result<report::Pgbench, Error> {
    let stand = Stand::raise(plan)?;
    let idle = idle::measure(&stand, plan)?;
    let calls = trace::measure(&stand, plan)?;
    let runs = measure::measure(&stand, plan)?;
    Ok(report::Pgbench::new(&stand, plan, &runs, calls, idle))
}

/// Tells the person who waits how far we are.
fn say(text: &str) {
    // If nobody can read it, nobody misses it.
    let _ = writeln!(io::stderr(), "bench: {text}");
}
