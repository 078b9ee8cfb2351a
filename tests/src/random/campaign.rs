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
pub(super) enum Layer {
    /// The one that it chooses.
    Auto,
    /// Merges, in the router or finished in the workspace, for whatever they can answer.
    Merge,
    /// Bind joins for whatever can be answered by them.
    BindJoin,
    /// The workspace for whatever can be run there.
    Workspace,
}

impl Layer {
    /// All of them; the first is that of a session which asks for none.
    const ALL: [Layer; 4] = [Layer::Auto, Layer::Merge, Layer::BindJoin, Layer::Workspace];

    /// The value of `switchyard.layer`.
    fn setting(self) -> &'static str {
        match self {
            Layer::Auto => "auto",
            Layer::Merge => "merge",
            Layer::BindJoin => "bind join",
            Layer::Workspace => "workspace",
        }
    }
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
    /// How many each layer of the router answered the same, by its name. One statement may be answered by several.
    pub layers: BTreeMap<String, usize>,
    /// How many bind joins the router says it has made.
    pub bind_joins: u64,
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
    /// The router, asked for each of its layers.
    routers: [Client; Layer::ALL.len()],
    plain: Client,
    mirror: Client,
    copies: Client,
}

impl Campaign {
    /// Runs it.
    pub fn run(&self, servers: &Servers) -> Report {
        let routers = Layer::ALL.map(|layer| {
            let mut router = servers.router(self.shards);
            let set = format!("SET switchyard.layer = '{}'", layer.setting());
            router.run(&set).succeeded();
            router
        });
        let mut sides = Sides {
            routers,
            plain: servers.plain(),
            mirror: servers.mirror(),
            copies: servers.copies(),
        };
        let mut report = Report::default();
        let before = servers.bind_joins(self.shards);
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
        report.bind_joins = servers.bind_joins(self.shards) - before;
        report
    }

    /// Compares what the router answers of itself, and then what each other layer does.
    fn count(&self, number: u64, case: &Case, sides: &mut Sides, report: &mut Report) {
        let mut answered: Vec<String> = Vec::new();
        for layer in Layer::ALL {
            let first = layer == Layer::Auto;
            // What is explained before it is run for the first time is not planned by running it.
            let known = (!first).then(|| sides.layer(case, layer));
            if known.as_ref().is_some_and(|name| answered.contains(name)) {
                continue;
            }
            let (verdict, expected, found) = sides.ask_twice(case, layer);
            match verdict {
                Verdict::Same if first => report.count_same(&expected),
                Verdict::Same => {}
                Verdict::Different(_) if !sides.is_stable(case, &expected) => {
                    report.unstable += usize::from(first);
                    return;
                }
                Verdict::Different(what) => {
                    let asked = Asked { case, layer, what };
                    let (smallest, answers) = smallest(&asked, sides, [expected, found]);
                    let told = self.describe(number, &asked, &smallest, &answers);
                    report.differences.push(told);
                    return;
                }
                // The router has answered it already.
                Verdict::Evaluation | Verdict::Slow | Verdict::Refused(_) if !first => continue,
                Verdict::Evaluation => {
                    report.evaluation += 1;
                    return;
                }
                Verdict::Slow => {
                    report.slow += 1;
                    return;
                }
                Verdict::Refused(reason) => {
                    report.count_refused(reason, case);
                    return;
                }
            }
            let name = known.unwrap_or_else(|| sides.layer(case, layer));
            *report.layers.entry(name.clone()).or_default() += 1;
            answered.push(name);
        }
    }

    fn describe(
        &self,
        number: u64,
        Asked { case, layer, what }: &Asked<'_>,
        smallest: &Case,
        answers: &[Reply; 2],
    ) -> String {
        let Campaign {
            seed,
            shards,
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

/// A difference to be told.
struct Asked<'a> {
    case: &'a Case,
    /// The layer that was asked for.
    layer: Layer,
    what: &'static str,
}

/// The smallest case found that differs in the same way, and its answers.
fn smallest(
    &Asked { case, layer, what }: &Asked<'_>,
    sides: &mut Sides,
    answers: [Reply; 2],
) -> (Case, [Reply; 2]) {
    let begun = Instant::now();
    let mut last = answers;
    let mut differs = |case: &Case| {
        let (verdict, expected, found) = sides.ask_twice(case, layer);
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

/// What is aggregated, ordered or limited on the shards, and finished in a workspace.
const PARTS: &str = "Rows made by";
/// By parameters.
const BIND_JOIN: &str = "Bind join";
/// What PostgreSQL's own plan is for.
const ONE_SHARD: &str = "One shard";

impl Sides {
    fn router(&mut self, layer: Layer) -> &mut Client {
        let [auto, merge, bind_join, workspace] = &mut self.routers;
        match layer {
            Layer::Auto => auto,
            Layer::Merge => merge,
            Layer::BindJoin => bind_join,
            Layer::Workspace => workspace,
        }
    }

    /// What answers it when this layer is asked for: the first words of the router's plan.
    fn layer(&mut self, case: &Case, asked: Layer) -> String {
        let Text { sql, values } = Text::of(&case.query);
        let (sql, router) = (format!("EXPLAIN {sql}"), self.router(asked));
        let plan = differential::answer(router, &sql, &values, case.protocol);
        if plan.failure.is_some() {
            return "No plan".to_owned();
        }
        let lines: Vec<String> = plan.texts().into_iter().flatten().collect();
        let line = lines.first().cloned().unwrap_or_default();
        let parts = |line: &String| line.trim_start().starts_with(PARTS);
        match line.split(' ').next() {
            _ if line.contains("(cost=") => ONE_SHARD.to_owned(),
            _ if line.starts_with(BIND_JOIN) => BIND_JOIN.to_owned(),
            _ if lines.iter().any(parts) => PARTS.to_owned(),
            Some(word) => word.to_owned(),
            None => ONE_SHARD.to_owned(),
        }
    }

    /// Asks again where a plan learns from its first execution: the next one goes by that.
    fn ask_twice(&mut self, case: &Case, layer: Layer) -> (Verdict, Reply, Reply) {
        let first = self.ask(case, layer);
        match first.0 == Verdict::Same && layer != Layer::Workspace {
            true => self.ask(case, layer),
            false => first,
        }
    }

    fn ask(&mut self, case: &Case, layer: Layer) -> (Verdict, Reply, Reply) {
        let expected = case.run(&mut self.plain);
        let found = case.run(self.router(layer));
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
    fn count_same(&mut self, expected: &Reply) {
        self.same += 1;
        if let Some(code) = expected.sqlstate() {
            *self.errors.entry(code.to_owned()).or_default() += 1;
        }
    }

    fn count_refused(&mut self, reason: String, case: &Case) {
        let (count, shortest) = self.refused.entry(reason).or_default();
        *count += 1;
        let sql = Text::of(&case.query).sql;
        if shortest.is_empty() || sql.len() < shortest.len() {
            *shortest = sql;
        }
    }

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
        writeln!(f, "  {} bind joins made", self.bind_joins)?;
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
