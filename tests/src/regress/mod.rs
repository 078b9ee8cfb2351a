//! PostgreSQL's own regression files, run on a plain server and through the router at the same time.
//!
//! The tables of the files are spread over shards: what a file defines is repeated on every shard, what it writes is written on
//! the plain server and given to the shards row by row (`mirror`), and what it reads is read on both sides and compared
//! (`compare`). The oracle is the plain server, not the expected output that comes with the files.
//!
//! - [`Source`] is where the files are, and which of them run.
//! - `script` reads psql's scripts, `statement` says what is done with each statement, `order` what it orders by.
//! - `stand` is the servers, `run` runs the files, [`report`] says what came of it.

mod compare;
mod mirror;
mod order;
pub mod report;
mod rows;
mod run;
mod script;
mod source;
mod stand;
mod statement;
mod write;

pub use compare::What;
pub use report::{Difference, FileReport, Outcome};
pub use source::{Source, Use};

use crate::Login;
use stand::Stand;

/// Runs files one after the other, and tells `progress` of each.
pub fn run(
    source: &Source,
    chosen: &[String],
    mut progress: impl FnMut(&FileReport),
) -> Vec<FileReport> {
    let mut stand = Stand::start();
    let mut mirror = stand.mirror();
    let mut reports = Vec::new();
    for (name, usage) in Source::files(chosen) {
        let report = run::Run::file(&mut stand, &mut mirror, source, name, usage);
        progress(&report);
        reports.push(report);
    }
    reports
}

/// What PostgreSQL's own runner of these files sets, and a limit in time.
fn settings(login: Login) -> Login {
    login
        .with("TimeZone", "PST8PDT")
        .with("DateStyle", "Postgres, MDY")
        .with("IntervalStyle", "postgres_verbose")
        .with("statement_timeout", "20s")
}
