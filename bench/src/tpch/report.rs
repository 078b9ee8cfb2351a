//! What comes out of TPC-H: a table for people, the same for programs, and the demands.

use std::fmt::Write;

use serde::Serialize;
use switchyard_tpch::QUERIES;

use super::latency::Latency;
use super::planning::Planning;
use super::{Failure, LIMIT, Name, Run};
use crate::gate::Gate;
use crate::options::TpchPlan;
use crate::report::number;
use crate::statistics::Spread;

/// All queries together take at most this multiple of the plain server's time.
const TOTAL: f64 = 1.5;
/// Every query takes less than this multiple of the time by postgres_fdw.
const AGAINST_FDW: f64 = 1.0;

/// Everything measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scale: f64,
    rounds: u32,
    queries: Vec<Row>,
    totals: Row,
    failures: Vec<Failure>,
    latencies: Vec<Latency>,
    planning: Planning,
    gates: Vec<Gate>,
}

/// One query, or all of them together. Ratios are medians of the ratios of each round.
#[derive(Clone, Debug, Serialize)]
struct Row {
    /// The query's number; 0 is all of them.
    query: usize,
    plain_ms: Option<Spread>,
    router_ms: Option<Spread>,
    fdw_ms: Option<Spread>,
    router_to_plain: Option<f64>,
    router_to_fdw: Option<f64>,
}

impl Report {
    /// Puts together what was measured.
    pub(crate) fn new(
        plan: &TpchPlan,
        runs: &[Run],
        failures: Vec<Failure>,
        (latencies, planning): (Vec<Latency>, Planning),
    ) -> Report {
        let all: Vec<usize> = QUERIES.iter().map(|query| query.number).collect();
        let queries: Vec<Row> = all
            .iter()
            .map(|&query| Row::of(query, &[query], plan.rounds, runs))
            .collect();
        let totals = Row::of(0, &all, plan.rounds, runs);
        Report {
            scale: plan.scale,
            rounds: plan.rounds,
            gates: gates(&all, plan.rounds, runs, &failures)
                .into_iter()
                .chain(latencies.iter().filter_map(Latency::gate))
                .chain(planning.gates())
                .collect(),
            queries,
            totals,
            failures,
            latencies,
            planning,
        }
    }

    /// For people.
    pub(crate) fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "\nTPC-H at scale {}, line items with their orders on two shards: ms, medians of {} rounds\n  \
             {:6}{:>12}{:>12}{:>14}{:>14}{:>16}",
            self.scale,
            self.rounds,
            "",
            Name::Plain.title(),
            Name::Router.title(),
            Name::Fdw.title(),
            "× PostgreSQL",
            "× postgres_fdw",
        )?;
        for row in self.queries.iter().chain([&self.totals]) {
            let title = match row.query {
                0 => "all".to_owned(),
                number => format!("Q{number}"),
            };
            writeln!(
                text,
                "  {title:6}{:>12}{:>12}{:>14}{:>14}{:>16}",
                number(row.plain_ms.map(|spread| spread.median), 1),
                number(row.router_ms.map(|spread| spread.median), 1),
                number(row.fdw_ms.map(|spread| spread.median), 1),
                number(row.router_to_plain, 2),
                number(row.router_to_fdw, 2),
            )?;
        }
        for failure in &self.failures {
            let (query, name) = (failure.query, failure.name.title());
            writeln!(text, "  Q{query} by {name}: {}", failure.reason)?;
        }
        for awake in [false, true] {
            self.write_latencies(awake, text)?;
        }
        let Planning {
            planned_us,
            found_us,
        } = self.planning;
        writeln!(
            text,
            "\nA join of five tables is planned in {planned_us:.1} µs, and its plan found in {found_us:.1} µs"
        )
    }

    fn write_latencies(&self, awake: bool, text: &mut String) -> std::fmt::Result {
        let how = match awake {
            true => ", processors kept awake",
            false => "",
        };
        writeln!(
            text,
            "\nSmall statements over both shards{how}: µs\n  {:40}{:>12}{:>12}{:>12}{:>14}",
            "", "PostgreSQL", "byte copy", "router", "× PostgreSQL"
        )?;
        for latency in self.latencies.iter().filter(|one| one.awake == awake) {
            writeln!(
                text,
                "  {:40}{:>12}{:>12}{:>12}{:>14}",
                latency.title,
                number(latency.plain_us, 0),
                number(latency.copied_us, 0),
                number(latency.router_us, 0),
                number(latency.ratio, 2),
            )?;
        }
        Ok(())
    }

    /// The demands, and whether they are met.
    pub(crate) fn gates(&self) -> &[Gate] {
        &self.gates
    }
}

impl Row {
    /// Queries together, each contender's time being the sum; nobody has one who did not answer all of them.
    fn of(query: usize, queries: &[usize], rounds: u32, runs: &[Run]) -> Row {
        let answered = |name: Name, round: u32| -> Option<f64> {
            let all = queries.iter();
            all.map(|&query| seconds(runs, query, name, round)).sum()
        };
        let spread = |name: Name| {
            let seconds = (0..rounds).filter_map(|round| answered(name, round));
            Spread::of(seconds.map(|seconds| seconds * 1e3))
        };
        let router_to = |name: Name| {
            let ratio = |round| Some(answered(Name::Router, round)? / answered(name, round)?);
            Spread::of((0..rounds).filter_map(ratio)).map(|spread| spread.median)
        };
        Row {
            query,
            plain_ms: spread(Name::Plain),
            router_ms: spread(Name::Router),
            fdw_ms: spread(Name::Fdw),
            router_to_plain: router_to(Name::Plain),
            router_to_fdw: router_to(Name::Fdw),
        }
    }
}

fn seconds(runs: &[Run], query: usize, name: Name, round: u32) -> Option<f64> {
    let mut runs = runs.iter();
    let run = runs.find(|run| run.query == query && run.name == name && run.round == round)?;
    Some(run.seconds)
}

/// What the router takes for these queries, as a multiple of what another takes: the median over the rounds. A query that was
/// not answered counts with all the time it was allowed, so that not to answer is never faster.
fn demanded(queries: &[usize], rounds: u32, runs: &[Run], other: Name) -> Option<f64> {
    let time = |name: Name, round: u32| -> f64 {
        let limit = LIMIT.as_secs_f64();
        let one = |&query| seconds(runs, query, name, round).unwrap_or(limit);
        queries.iter().map(one).sum()
    };
    let ratios = (0..rounds).map(|round| time(Name::Router, round) / time(other, round));
    Spread::of(ratios).map(|spread| spread.median)
}

fn gates(queries: &[usize], rounds: u32, runs: &[Run], failures: &[Failure]) -> Vec<Gate> {
    let mut gates = Vec::new();
    let failed = failures.iter().filter(|one| one.name == Name::Router);
    let answered = queries.len().saturating_sub(failed.count());
    gates.push(Gate::at_least(
        "TPC-H: queries answered as PostgreSQL does",
        answered as f64,
        queries.len() as f64,
    ));
    if let Some(measured) = demanded(queries, rounds, runs, Name::Plain) {
        let demand = "TPC-H: time of all queries, × PostgreSQL's";
        gates.push(Gate::at_most(demand, measured, TOTAL));
    }
    let each = queries.iter().filter_map(|&query| {
        let measured = demanded(&[query], rounds, runs, Name::Fdw)?;
        Some((measured, query))
    });
    if let Some((measured, query)) = each.max_by(|one, other| one.0.total_cmp(&other.0)) {
        gates.push(Gate {
            demand: format!("TPC-H: time of Q{query}, the worst, × postgres_fdw's, below"),
            measured,
            bound: AGAINST_FDW,
            met: measured < AGAINST_FDW,
        });
    }
    gates
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLANNING: Planning = Planning {
        planned_us: 80.0,
        found_us: 4.0,
    };
    const PLAN: TpchPlan = TpchPlan {
        scale: 0.1,
        rounds: 1,
    };

    /// Every query takes each contender that many seconds.
    fn runs(times: [(Name, f64); 3]) -> Vec<Run> {
        let of_query = |query: usize| {
            times.map(|(name, seconds)| Run {
                round: 0,
                query,
                name,
                seconds,
            })
        };
        (1..=22).flat_map(of_query).collect()
    }

    fn met(report: &Report) -> Vec<bool> {
        report.gates().iter().map(|gate| gate.met).collect()
    }

    #[test]
    fn times_are_compared_with_both() {
        let mut runs = runs([(Name::Plain, 1.0), (Name::Router, 1.25), (Name::Fdw, 2.5)]);
        let report = Report::new(&PLAN, &runs, Vec::new(), (Vec::new(), PLANNING));
        assert_eq!(report.totals.router_to_fdw, Some(0.5));
        assert_eq!(met(&report), [true, true, true, true, false]);
        // Still within the total, but one query is slower than by postgres_fdw.
        runs[4].seconds = 2.6;
        let report = Report::new(&PLAN, &runs, Vec::new(), (Vec::new(), PLANNING));
        assert_eq!(met(&report), [true, true, false, true, false]);
        assert!(report.gates()[2].demand.contains("Q2,"));
    }

    #[test]
    fn an_unanswered_query_counts_with_all_the_time_it_had() {
        let mut runs = runs([(Name::Plain, 1.0), (Name::Router, 0.5), (Name::Fdw, 2.0)]);
        runs.remove(1);
        let failure = Failure {
            query: 1,
            name: Name::Router,
            reason: "0A000".to_owned(),
        };
        let report = Report::new(&PLAN, &runs, vec![failure], (Vec::new(), PLANNING));
        assert_eq!(report.queries[0].router_ms, None);
        assert_eq!(report.totals.router_ms, None);
        assert_eq!(report.queries[0].router_to_plain, None);
        assert_eq!(report.gates()[2].measured, 30.0);
        assert_eq!(met(&report), [false, false, false, true, false]);
    }
}
