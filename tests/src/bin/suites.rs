//! `make suites`: the test suites of drivers, on a plain server and through the router, test by test.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use switchyard_tests::suites::{SUITES, Suite, table};

/// Runs the test suites of drivers on a plain server and through a router in transaction mode, and compares each test.
#[derive(Debug, Parser)]
struct Arguments {
    /// The suites; if none is named, those of drivers, which is all but PgBouncer's.
    #[arg(value_parser = SUITES.map(|suite| suite.name))]
    suites: Vec<String>,
    /// Of a hundred tests of a suite that pass directly, how many have to pass through the router: 97, of PgBouncer's 95.
    #[arg(long)]
    at_least: Option<f64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen = |suite: &&Suite| match arguments.suites.as_slice() {
        [] => suite.name != "pgbouncer",
        named => named.iter().any(|name| name == suite.name),
    };
    let mut compared = Vec::new();
    let mut enough = true;
    for suite in SUITES.iter().filter(chosen) {
        match suite.compare(&|line| say(line)) {
            Ok(comparison) => {
                let demand = arguments.at_least.unwrap_or(suite.demand);
                enough &= comparison.share().is_some_and(|share| share >= demand);
                compared.push(comparison);
            }
            Err(reason) => {
                say(&reason);
                enough = false;
            }
        }
    }
    let printed = std::io::stdout().write_all(table(&compared).as_bytes());
    match enough && printed.is_ok() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// To standard error, where progress belongs. Nobody is left to be told if that fails.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
