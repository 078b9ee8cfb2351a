//! `make suites`: the test suites of drivers, on a plain server and through the router, test by test.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use switchyard_tests::suites::{SUITES, Suite, table};

/// Runs the test suites of drivers on a plain server and through a router in transaction mode, and compares each test.
#[derive(Debug, Parser)]
struct Arguments {
    /// The suites; all of them, if none is named.
    #[arg(value_parser = SUITES.map(|suite| suite.name))]
    suites: Vec<String>,
    /// Of a hundred tests of a suite that pass directly, how many have to pass through the router.
    #[arg(long, default_value = "97")]
    at_least: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen = |suite: &&Suite| {
        arguments.suites.is_empty() || arguments.suites.iter().any(|name| name == suite.name)
    };
    let mut compared = Vec::new();
    let mut enough = true;
    for suite in SUITES.iter().filter(chosen) {
        match suite.compare(&|line| say(line)) {
            Ok(comparison) => {
                enough &= comparison.share().is_some_and(|s| s >= arguments.at_least);
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
