//! System calls, counted by strace in runs of their own: it slows down what it watches.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde::Serialize;
use switchyard_cluster::Companion;

use crate::contender::{Contender, Name};
use crate::options::{Plan, Scenario};
use crate::stand::Stand;
use crate::{Error, say};

/// How long one run takes.
const SECONDS: u32 = 1;
/// How long strace may take to attach to all threads, and to write its summary.
const ATTACH: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(10);

/// The system calls of one contender in one scenario.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Calls {
    /// What was run.
    pub(crate) scenario: Scenario,
    /// By whom.
    pub(crate) name: Name,
    /// All of them, for each query.
    pub(crate) per_query: f64,
    /// The frequent ones by name, for each query.
    pub(crate) by_name: BTreeMap<String, f64>,
}

/// Each traced scenario, each contender that has a process. Nothing where strace cannot work.
pub(crate) fn measure(stand: &Stand, plan: &Plan) -> Result<Vec<Calls>, Error> {
    if Command::new("strace").arg("-V").output().is_err() {
        say("no strace: system calls are not counted");
        return Ok(Vec::new());
    }
    say("counting system calls");
    let mut all = Vec::new();
    for &scenario in &plan.traced {
        for contender in &stand.contenders {
            all.extend(trace(stand, contender, scenario)?);
        }
    }
    if all.is_empty() && stand.contenders.iter().any(|one| one.usual.pid().is_some()) {
        say("strace is not allowed to attach: system calls are not counted");
    }
    Ok(all)
}

fn trace(stand: &Stand, contender: &Contender, scenario: Scenario) -> Result<Option<Calls>, Error> {
    let target = contender.target(scenario.protocol);
    let Some(pid) = target.pid() else {
        return Ok(None);
    };
    let summary = stand.directory.path().join("strace");
    let mut strace = start(pid, &summary)?;
    sleep(ATTACH);
    let outcome = stand
        .pgbench
        .run(contender.name.title(), target.port(), scenario, SECONDS)?;
    strace.interrupt();
    strace
        .wait(PATIENCE)
        .map_err(Error::io("wait for strace"))?;
    let text = std::fs::read_to_string(&summary).unwrap_or_default();
    // Its file must not be taken for the next one's.
    let _ = std::fs::remove_file(&summary);
    let counts = parse(&text);
    let total: f64 = counts.values().sum();
    if total < outcome.transactions {
        return Ok(None);
    }
    let per_query = |count: f64| count / outcome.transactions;
    Ok(Some(Calls {
        scenario,
        name: contender.name,
        per_query: per_query(total),
        by_name: counts
            .into_iter()
            .map(|(name, count)| (name, per_query(count)))
            .filter(|(_, count)| *count >= 0.01)
            .collect(),
    }))
}

fn start(pid: u32, summary: &Path) -> Result<Companion, Error> {
    let mut command = Command::new("strace");
    command
        .args(["-f", "-c", "-qq", "-p", &pid.to_string(), "-o"])
        .arg(summary)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok(Companion::start(&mut command)?)
}

/// strace's table: share, seconds, microseconds per call, calls, errors (or nothing), name.
fn parse(summary: &str) -> BTreeMap<String, f64> {
    let row = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let calls: f64 = columns.get(3)?.parse().ok()?;
        let name = *columns.last()?;
        (name != "total").then(|| (name.to_owned(), calls))
    };
    summary.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_from_the_summary() {
        let summary = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 52.10    0.210000           5     40000           sendto
 40.00    0.160000           4     40002      1000 recvfrom
------ ----------- ----------- --------- --------- ----------------
100.00    0.370000                 80002      1000 total
";
        let expected = [("sendto", 40000.0), ("recvfrom", 40002.0)];
        let expected = expected.map(|(name, calls)| (name.to_owned(), calls));
        assert_eq!(parse(summary), BTreeMap::from(expected));
    }
}
