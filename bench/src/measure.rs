//! Throughput and CPU time, in rounds.

use crate::contender::{Contender, Name};
use crate::options::{Plan, Scenario};
use crate::process::cpu_seconds;
use crate::stand::Stand;
use crate::{Error, say};

/// One contender's turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Which round.
    pub(crate) round: u32,
    /// What was run.
    pub(crate) scenario: Scenario,
    /// By whom.
    pub(crate) name: Name,
    /// Transactions per second.
    pub(crate) tps: f64,
    /// CPU microseconds of the process in between, for each transaction.
    pub(crate) cpu_us: Option<f64>,
}

/// Every round: each scenario, each contender in its turn.
pub(crate) fn measure(stand: &Stand, plan: &Plan) -> Result<Vec<Run>, Error> {
    let mut runs = Vec::new();
    for round in 0..plan.rounds {
        say(&format!("round {} of {}", round + 1, plan.rounds));
        for (index, &scenario) in plan.scenarios.iter().enumerate() {
            let turn = round as usize + index;
            let mut order: Vec<&Contender> = stand.contenders.iter().collect();
            let first = turn % order.len().max(1);
            order.rotate_left(first);
            for contender in order.into_iter().filter(|one| one.name.runs(scenario)) {
                runs.push(run(stand, plan, contender, round, scenario)?);
            }
        }
    }
    Ok(runs)
}

fn run(
    stand: &Stand,
    plan: &Plan,
    contender: &Contender,
    round: u32,
    scenario: Scenario,
) -> Result<Run, Error> {
    let name = contender.name;
    let target = contender.target(scenario.protocol);
    let cpu = || target.pid().and_then(cpu_seconds);
    let before = cpu();
    let outcome = stand
        .pgbench
        .run(name.title(), target.port(), scenario, plan.seconds)?;
    let used = cpu().zip(before).map(|(after, before)| after - before);
    Ok(Run {
        round,
        scenario,
        name,
        tps: outcome.tps,
        cpu_us: used.map(|seconds| seconds * 1e6 / outcome.transactions.max(1.0)),
    })
}
