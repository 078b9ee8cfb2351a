//! Many statements, counted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::chance::Chance;
use super::compare::{Verdict, compare, show};
use super::generate::{statement, writes};
use super::print::Text;
use super::query::Query;
use super::servers::Servers;
use super::shrink::shrink;
use crate::differential::{self, Protocol};
use crate::{Client, Reply};

/// How long one statement is made smaller.
const SHRINKING: Duration = Duration::from_secs(45);

/// What the planner may do without.
const METHODS: [&str; 6] = [
    "hashjoin",
    "mergejoin",
    "nestloop",
    "hashagg",
    "seqscan",
    "material",
];

/// Sets of methods that lead to different plans when they are away.
const OTHER_PLANS: [&[&str]; 5] = [
    &["hashjoin", "hashagg", "nestloop"],
    &["mergejoin", "hashjoin", "material"],
    &["mergejoin", "hashjoin", "seqscan", "material"],
    &["mergejoin", "seqscan"],
    &["nestloop", "mergejoin"],
];

/// Which layer of the router is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// The one that it chooses.
    Auto,
    /// The workspace for whatever can be run there.
    Workspace,
}

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Campaign {
    /// The seed of the statements.
    pub seed: u64,
    /// The number of the first.
    pub first: u64,
    /// How many.
    pub statements: u64,
    /// How many shards.
    pub shards: usize,
    /// The router's layer.
    pub layer: Layer,
    /// Whether statements may read views.
    pub views: bool,
    /// After how many differences it ends.
    pub differences: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// How many answers were the same, errors included.
    pub same: usize,
    /// How many of these were errors, by SQLSTATE.
    pub errors: BTreeMap<String, usize>,
    /// How many failed on a value, on one side only.
    pub evaluation: usize,
    /// How many took too long.
    pub slow: usize,
    /// How many have an answer that depends on the order of rows.
    pub unstable: usize,
    /// How many each layer of the router answered the same, by its name.
    pub layers: BTreeMap<String, usize>,
    /// How many were refused, by reason, and the shortest of each.
    pub refused: BTreeMap<String, (usize, String)>,
    /// The differences, for people.
    pub differences: Vec<String>,
}

/// A statement and what is around it.
#[derive(Debug, Clone)]
struct Case {
    /// Writes before it in a transaction, which is rolled back; without any there is no transaction.
    writes: Vec<String>,
    query: Query,
    protocol: Protocol,
}

/// The connections of a run.
struct Sides {
    router: Client,
    /// The router again, which answers in a workspace what can be run there.
    apart: Client,
    plain: Client,
    mirror: Client,
    copies: Client,
}

impl Campaign {
    /// Runs it.
    pub fn run(&self, servers: &Servers) -> Report {
        let mut sides = Sides {
            router: servers.router(self.shards),
            apart: servers.router(self.shards),
            plain: servers.plain(),
            mirror: servers.mirror(),
            copies: servers.copies(),
        };
        let layer = "SET switchyard.layer = 'workspace'";
        sides.apart.run(layer).succeeded();
        if self.layer == Layer::Workspace {
            sides.router.run(layer).succeeded();
        }
        let mut report = Report::default();
        for number in self.first..self.first + self.statements {
            let mut chance = Chance::of(self.seed, u64::MAX - number);
            let case = Case {
                protocol: *chance.pick(&Protocol::ALL),
                writes: writes(&mut chance),
                query: statement(self.seed, number, self.views),
            };
            self.count(number, &case, &mut sides, &mut report);
            if report.differences.len() >= self.differences {
                break;
            }
        }
        report
    }

    fn count(&self, number: u64, case: &Case, sides: &mut Sides, report: &mut Report) {
        let (verdict, expected, found) = sides.ask(case);
        match verdict {
            Verdict::Same => {
                report.same += 1;
                if let Some(code) = expected.sqlstate() {
                    *report.errors.entry(code.to_owned()).or_default() += 1;
                }
                let layer = sides.layer(case);
                // What the router answers by a way of its own, it answers alike by the other.
                if self.layer == Layer::Auto && ![ONE_SHARD, WORKSPACE].contains(&layer.as_str()) {
                    self.count_apart(number, case, sides, report);
                }
                *report.layers.entry(layer).or_default() += 1;
            }
            Verdict::Evaluation => report.evaluation += 1,
            Verdict::Slow => report.slow += 1,
            Verdict::Refused(reason) => {
                let (count, shortest) = report.refused.entry(reason).or_default();
                *count += 1;
                let sql = Text::of(&case.query).sql;
                if shortest.is_empty() || sql.len() < shortest.len() {
                    *shortest = sql;
                }
            }
            Verdict::Different(_) if !sides.is_stable(case, &expected) => report.unstable += 1,
            Verdict::Different(what) => {
                let (smallest, answers) = smallest(case, what, sides, [expected, found]);
                let told = self.describe(number, what, case, &smallest, &answers);
                report.differences.push(told);
            }
        }
    }

    /// Compares the answer of a workspace, too, with that of the plain server, which is the router's.
    fn count_apart(&self, number: u64, case: &Case, sides: &mut Sides, report: &mut Report) {
        std::mem::swap(&mut sides.router, &mut sides.apart);
        let (verdict, expected, found) = sides.ask(case);
        if let Verdict::Different(what) = verdict
            && sides.is_stable(case, &expected)
        {
            let (smallest, answers) = smallest(case, what, sides, [expected, found]);
            let apart = Campaign {
                layer: Layer::Workspace,
                ..*self
            };
            let told = apart.describe(number, what, case, &smallest, &answers);
            report.differences.push(told);
        }
        std::mem::swap(&mut sides.router, &mut sides.apart);
    }

    fn describe(
        &self,
        number: u64,
        what: &str,
        case: &Case,
        smallest: &Case,
        answers: &[Reply; 2],
    ) -> String {
        let Campaign {
            seed,
            shards,
            layer,
            views,
            ..
        } = self;
        let Case {
            writes,
            query,
            protocol,
        } = smallest;
        let (small, large) = (Text::of(query), Text::of(&case.query));
        let [plain, router] = answers.each_ref().map(show);
        format!(
            "{what} differ on {shards} shards, layer {layer:?}, {protocol:?}: \
             SWITCHYARD_SEED={seed} SWITCHYARD_FIRST={number} SWITCHYARD_QUERIES=1 (views: {views})\n\
             {}{}\n  parameters {:?}\n  plain:  {plain}\n  router: {router}\n  made of: {}\n",
            writes
                .iter()
                .map(|write| format!("{write};\n"))
                .collect::<String>(),
            small.sql,
            small.values,
            large.sql,
        )
    }
}

/// The smallest case found that differs in the same way, and its answers.
fn smallest(
    case: &Case,
    what: &'static str,
    sides: &mut Sides,
    answers: [Reply; 2],
) -> (Case, [Reply; 2]) {
    let begun = Instant::now();
    let mut last = answers;
    let mut differs = |case: &Case| {
        let (verdict, expected, found) = sides.ask(case);
        let differs = verdict == Verdict::Different(what) && sides.is_stable(case, &expected);
        if differs {
            last = [expected, found];
        }
        differs
    };
    let mut smallest = case.clone();
    for index in (0..case.writes.len()).rev() {
        let mut fewer = smallest.clone();
        fewer.writes.remove(index);
        if differs(&fewer) {
            smallest = fewer;
        }
    }
    let (writes, protocol) = (smallest.writes.clone(), case.protocol);
    let of = |query: &Query| Case {
        writes: writes.clone(),
        query: query.clone(),
        protocol,
    };
    let query = shrink(
        &smallest.query,
        |query| differs(&of(query)),
        || begun.elapsed() < SHRINKING,
    );
    (of(&query), last)
}

/// The layers that every router has, by the first words of their plans.
const WORKSPACE: &str = "Workspace";
/// What is aggregated, ordered or limited on the shards, and finished in a workspace.
const PARTS: &str = "Rows made by";
/// What PostgreSQL's own plan is for.
const ONE_SHARD: &str = "One shard";

impl Sides {
    /// The layer that answers it: the first word of the router's plan.
    fn layer(&mut self, case: &Case) -> String {
        let Text { sql, values } = Text::of(&case.query);
        let sql = differential::with_literals(&sql, &values);
        let plan = self.router.run(&format!("EXPLAIN {sql}"));
        if plan.failure.is_some() {
            return "No plan".to_owned();
        }
        let lines: Vec<String> = plan.texts().into_iter().flatten().collect();
        let parts = |line: &String| line.trim_start().starts_with(PARTS);
        if lines.iter().any(parts) {
            return PARTS.to_owned();
        }
        let line = lines.first().cloned().unwrap_or_default();
        match line.split(' ').next() {
            Some(word) if !line.contains("(cost=") => word.to_owned(),
            _ => ONE_SHARD.to_owned(),
        }
    }

    fn ask(&mut self, case: &Case) -> (Verdict, Reply, Reply) {
        let expected = case.run(&mut self.plain);
        let found = case.run(&mut self.router);
        let verdict = compare(&expected, &found, case.query.is_ordered());
        (verdict, expected, found)
    }

    /// Whether the plain server gives this answer in other circumstances, too: with its rows in another order, with
    /// other plans, and with copies of the tables. (PostgreSQL 15 has plans for outer joins that lose a condition.)
    fn is_stable(&mut self, case: &Case, answer: &Reply) -> bool {
        OTHER_PLANS.iter().all(|without| {
            for method in METHODS {
                let on = if without.contains(&method) {
                    "off"
                } else {
                    "on"
                };
                self.mirror
                    .run(&format!("SET enable_{method} = {on}"))
                    .succeeded();
            }
            let other = case.run(&mut self.mirror);
            compare(answer, &other, case.query.is_ordered()) == Verdict::Same
        }) && {
            // Copies have no keys, without which some groups are errors.
            let other = case.run(&mut self.copies);
            other.failure.is_some()
                || compare(answer, &other, case.query.is_ordered()) == Verdict::Same
        }
    }
}

impl Case {
    /// The statement's answer, or that of a write which failed.
    fn run(&self, client: &mut Client) -> Reply {
        if self.writes.is_empty() {
            return self.statement(client);
        }
        client.run("BEGIN").succeeded();
        let failed = self
            .writes
            .iter()
            .map(|write| client.run(write))
            .find(|reply| reply.failure.is_some());
        let reply = failed.unwrap_or_else(|| self.statement(client));
        client.run("ROLLBACK").succeeded();
        reply
    }

    fn statement(&self, client: &mut Client) -> Reply {
        let Text { sql, values } = Text::of(&self.query);
        differential::answer(client, &sql, &values, self.protocol)
    }
}

impl Report {
    /// How many statements there were.
    pub fn total(&self) -> usize {
        self.same
            + self.evaluation
            + self.slow
            + self.unstable
            + self.refused()
            + self.differences.len()
    }

    /// How many statements were refused.
    pub fn refused(&self) -> usize {
        self.refused.values().map(|(count, _)| count).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            same,
            errors,
            evaluation,
            slow,
            unstable,
            ..
        } = self;
        writeln!(
            f,
            "{} statements: {same} the same ({} of them errors), {evaluation} failed on a value on one side, \
             {slow} too slow, {unstable} not determined, {} refused, {} different",
            self.total(),
            errors.values().sum::<usize>(),
            self.refused(),
            self.differences.len()
        )?;
        for (layer, count) in &self.layers {
            writeln!(f, "  {count} answered by: {layer}")?;
        }
        for (code, count) in errors {
            writeln!(f, "  {count} failed: {code}")?;
        }
        for (reason, (count, shortest)) in &self.refused {
            writeln!(
                f,
                "  {count} refused: {reason}
      {shortest}"
            )?;
        }
        self.differences
            .iter()
            .try_for_each(|difference| writeln!(f, "\n{difference}"))
    }
}
