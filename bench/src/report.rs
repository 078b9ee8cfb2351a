//! What comes out: tables for people, JSON for programs.

use std::fmt::Write;

use serde::Serialize;

use crate::Error;
use crate::contender::Name;
use crate::gate::{Gate, gates};
use crate::idle::Idle;
use crate::measure::Run;
use crate::options::{Plan, Scenario};
use crate::stand::Stand;
use crate::statistics::Spread;
use crate::trace::Calls;
use crate::{reshard, tpch, writes};

/// Everything measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// What it was measured on.
    pub(crate) machine: Machine,
    /// What it costs to go through the router.
    #[serde(flatten)]
    pub(crate) pgbench: Option<Pgbench>,
    /// What queries over all shards take.
    pub(crate) tpch: Option<tpch::Report>,
    /// What writes to both shards take.
    pub(crate) writes: Option<writes::Report>,
    /// What it takes to move rows between shards.
    pub(crate) reshard: Option<reshard::Report>,
}

/// Everything measured with pgbench.
#[derive(Debug, Serialize)]
pub(crate) struct Pgbench {
    rounds: u32,
    seconds: u32,
    scale: u32,
    contenders: Vec<(Name, String)>,
    rows: Vec<Row>,
    calls: Vec<Calls>,
    idle: Vec<Idle>,
    gates: Vec<Gate>,
}

/// The machine, which everything shares.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    processors: usize,
    model: String,
    kernel: String,
}

/// One contender in one scenario. Ratios are medians of the ratios of each round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// What was run.
    pub(crate) scenario: Scenario,
    /// By whom.
    pub(crate) name: Name,
    /// Transactions per second.
    pub(crate) tps: Spread,
    /// CPU microseconds of the process in between for each transaction (CPU milliseconds per 1,000).
    pub(crate) cpu_us: Option<Spread>,
    /// Throughput as a share of PostgreSQL's own.
    pub(crate) tps_to_direct: Option<f64>,
    /// Throughput as a multiple of PgBouncer's.
    pub(crate) tps_to_pgbouncer: Option<f64>,
    /// CPU time as a multiple of PgBouncer's.
    pub(crate) cpu_to_pgbouncer: Option<f64>,
    /// Throughput as a share of the router's with one node.
    pub(crate) tps_to_unsharded: Option<f64>,
    /// How much longer a transaction takes than without anybody in between, in microseconds.
    pub(crate) added_latency_us: Option<f64>,
    /// The same as a multiple of what PgBouncer adds.
    pub(crate) added_latency_to_pgbouncer: Option<f64>,
}

impl Report {
    /// For programs.
    pub(crate) fn to_json(&self) -> Result<String, Error> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// For people.
    pub(crate) fn to_table(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_tables(&mut text);
        text
    }

    fn write_tables(&self, text: &mut String) -> std::fmt::Result {
        let Machine {
            processors,
            model,
            kernel,
        } = &self.machine;
        writeln!(text, "{processors} processors ({model}), Linux {kernel}")?;
        let mut gates: Vec<Gate> = Vec::new();
        if let Some(pgbench) = &self.pgbench {
            pgbench.write(text)?;
            gates.extend(pgbench.gates.iter().cloned());
        }
        if let Some(tpch) = &self.tpch {
            tpch.write(text)?;
            gates.extend(tpch.gates().iter().cloned());
        }
        if let Some(writes) = &self.writes {
            writes.write(text)?;
            gates.extend(writes.gates());
        }
        if let Some(reshard) = &self.reshard {
            reshard.write(text)?;
            gates.extend(reshard.gates());
        }
        write_gates(&gates, text)
    }
}

impl Pgbench {
    /// Puts together what was measured.
    pub(crate) fn new(
        stand: &Stand,
        plan: &Plan,
        runs: &[Run],
        calls: Vec<Calls>,
        idle: Vec<Idle>,
    ) -> Pgbench {
        let describe = |one: &crate::contender::Contender| (one.name, one.description.clone());
        let contenders: Vec<_> = stand.contenders.iter().map(describe).collect();
        let pairs = plan.scenarios.iter().flat_map(|&scenario| {
            let names = contenders.iter().map(|(name, _)| *name);
            names.map(move |name| (scenario, name))
        });
        let rows: Vec<Row> = pairs
            .filter_map(|(scenario, name)| Row::of(runs, scenario, name))
            .collect();
        Pgbench {
            rounds: plan.rounds,
            seconds: plan.seconds,
            scale: plan.scale,
            gates: gates(&rows),
            contenders,
            rows,
            calls,
            idle,
        }
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        for (name, description) in &self.contenders {
            writeln!(text, "  {:18}{description}", name.title())?;
        }
        writeln!(
            text,
            "pgbench at scale {}, {} rounds of {} s, one thread. Everything shares this machine. Medians; ratios are medians of\n\
             the ratios of each round. CPU: of the process in between, per 1,000 transactions.",
            self.scale, self.rounds, self.seconds
        )?;
        self.write_rows(text)?;
        self.write_calls(text)?;
        self.write_idle(text)
    }

    fn write_rows(&self, text: &mut String) -> std::fmt::Result {
        let mut last = None;
        for row in &self.rows {
            if last != Some(row.scenario) {
                writeln!(
                    text,
                    "\n{}\n  {:18}{:>9}{:>17}{:>10}{:>12}{:>9}{:>13}{:>12}",
                    row.scenario.title(),
                    "",
                    "tps",
                    "min–max",
                    "× direct",
                    "× PgBouncer",
                    "+ µs",
                    "CPU ms/1,000",
                    "× PgBouncer",
                )?;
                last = Some(row.scenario);
            }
            writeln!(
                text,
                "  {:18}{:>9.0}{:>17}{:>10}{:>12}{:>9}{:>13}{:>12}",
                row.name.title(),
                row.tps.median,
                format!("{:.0}–{:.0}", row.tps.min, row.tps.max),
                number(row.tps_to_direct, 2),
                number(row.tps_to_pgbouncer, 2),
                number(row.added_latency_us, 1),
                number(row.cpu_us.map(|cpu| cpu.median), 1),
                number(row.cpu_to_pgbouncer, 2),
            )?;
        }
        Ok(())
    }

    fn write_calls(&self, text: &mut String) -> std::fmt::Result {
        if !self.calls.is_empty() {
            writeln!(text, "\nSystem calls per query (under strace)")?;
        }
        for calls in &self.calls {
            let each = |(name, count): (&String, &f64)| format!("{name} {count:.2}");
            let names: Vec<String> = calls.by_name.iter().map(each).collect();
            writeln!(
                text,
                "  {:36}{:18}{:>6.2}  {}",
                calls.scenario.title(),
                calls.name.title(),
                calls.per_query,
                names.join(", ")
            )?;
        }
        Ok(())
    }

    fn write_idle(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\nMemory of idle clients, each after one query")?;
        for idle in &self.idle {
            writeln!(
                text,
                "  {:18}{} clients: {} kB → {} kB, {:.2} kB each",
                idle.name.title(),
                idle.clients,
                idle.before_kb,
                idle.with_kb,
                idle.kb_per_client()
            )?;
        }
        Ok(())
    }
}

fn write_gates(gates: &[Gate], text: &mut String) -> std::fmt::Result {
    if !gates.is_empty() {
        writeln!(text, "\nDemands")?;
    }
    for gate in gates {
        let verdict = if gate.met { "met   " } else { "MISSED" };
        writeln!(
            text,
            "  {verdict} {:5.2}  {} {}",
            gate.measured, gate.demand, gate.bound
        )?;
    }
    Ok(())
}

/// A figure, if there is one.
pub(crate) fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

impl Row {
    /// What the runs say; none if there were none.
    fn of(runs: &[Run], scenario: Scenario, name: Name) -> Option<Row> {
        let ours: Vec<&Run> = of(runs, scenario, name).collect();
        // The medians over the rounds of a figure made of this contender's run and those of others in the same round.
        let over_rounds = |figure: &dyn Fn(&Run) -> Option<f64>| {
            Spread::of(ours.iter().filter_map(|run| figure(run))).map(|spread| spread.median)
        };
        let other =
            |name: Name, round: u32| of(runs, scenario, name).find(|run| run.round == round);
        let tps_to = |name: Name| over_rounds(&|run| Some(run.tps / other(name, run.round)?.tps));
        let added = |run: &Run| Some(1e6 / run.tps - 1e6 / other(Name::Direct, run.round)?.tps);
        // A transaction takes as long as all clients together need for as many as there are of them.
        let added = |run: &Run| added(run).map(|us| us * f64::from(scenario.clients));
        Some(Row {
            scenario,
            name,
            tps: Spread::of(ours.iter().map(|run| run.tps))?,
            cpu_us: Spread::of(ours.iter().filter_map(|run| run.cpu_us)),
            tps_to_direct: tps_to(Name::Direct),
            tps_to_pgbouncer: tps_to(Name::Pgbouncer),
            tps_to_unsharded: tps_to(Name::Router),
            cpu_to_pgbouncer: over_rounds(&|run| {
                Some(run.cpu_us? / other(Name::Pgbouncer, run.round)?.cpu_us?)
            }),
            added_latency_us: over_rounds(&added),
            added_latency_to_pgbouncer: over_rounds(&|run| {
                Some(added(run)? / added(other(Name::Pgbouncer, run.round)?)?)
            }),
        })
    }
}

fn of(runs: &[Run], scenario: Scenario, name: Name) -> impl Iterator<Item = &Run> {
    runs.iter()
        .filter(move |run| run.scenario == scenario && run.name == name)
}

impl Machine {
    /// This one.
    pub(crate) fn this() -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let model = read("/proc/cpuinfo")
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or_else(|| "unknown".to_owned(), |(_, model)| model.to_owned());
        Machine {
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            model,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Protocol, Script};

    fn run(round: u32, name: Name, tps: f64, cpu_us: Option<f64>) -> Run {
        let scenario = Scenario {
            script: Script::SelectOnly,
            protocol: Protocol::Simple,
            clients: 1,
        };
        Run {
            round,
            scenario,
            name,
            tps,
            cpu_us,
        }
    }

    #[test]
    fn contenders_are_compared_within_each_round() {
        // The machine is half as fast in the second round; the ratios stay.
        let runs = [
            run(0, Name::Direct, 10_000.0, None),
            run(0, Name::Pgbouncer, 8_000.0, Some(20.0)),
            run(0, Name::Router, 9_000.0, Some(10.0)),
            run(1, Name::Direct, 5_000.0, None),
            run(1, Name::Pgbouncer, 4_000.0, Some(40.0)),
            run(1, Name::Router, 4_500.0, Some(20.0)),
        ];
        let row = Row::of(&runs, runs[0].scenario, Name::Router).unwrap();
        assert_eq!(row.tps_to_direct, Some(0.9));
        assert_eq!(row.tps_to_pgbouncer, Some(1.125));
        assert_eq!(row.cpu_to_pgbouncer, Some(0.5));
        assert_eq!(row.tps.median, 6_750.0);
        let added = row.added_latency_us.unwrap();
        assert!((added - (11.111 + 22.222) / 2.0).abs() < 0.01, "{added}");
        let gates = gates(&[row]);
        assert_eq!(gates.len(), 1);
        assert!(gates[0].met);
    }

    #[test]
    fn what_was_not_run_is_not_reported() {
        let direct = run(0, Name::Direct, 10_000.0, None);
        assert!(Row::of(&[direct], direct.scenario, Name::Router).is_none());
        let row = Row::of(&[direct], direct.scenario, Name::Direct).unwrap();
        assert_eq!(row.tps_to_pgbouncer, None);
        assert!(gates(&[row]).is_empty());
    }
}
