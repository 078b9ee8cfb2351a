//! Many statements, counted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::chance::Chance;
use super::compare::{Verdict, compare, show};
use super::generate::statement;
use super::print::Text;
use super::query::Query;
use super::servers::Servers;
use super::shrink::shrink;
use crate::differential::{self, Protocol};
use crate::{Client, Reply};

/// How long one statement is made smaller.
const SHRINKING: Duration = Duration::from_secs(45);

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
    /// How many were refused, by reason.
    pub refused: BTreeMap<String, usize>,
    /// The differences, for people.
    pub differences: Vec<String>,
}

/// The connections of a run.
struct Sides {
    router: Client,
    plain: Client,
    mirror: Client,
}

impl Campaign {
    /// Runs it.
    pub fn run(&self, servers: &Servers) -> Report {
        let mut sides = Sides {
            router: servers.router(self.shards),
            plain: servers.plain(),
            mirror: servers.mirror(),
        };
        if self.layer == Layer::Workspace {
            sides
                .router
                .run("SET switchyard.layer = 'workspace'")
                .succeeded();
        }
        let mut report = Report::default();
        for number in self.first..self.first + self.statements {
            let query = statement(self.seed, number, self.views);
            let protocol = *Chance::of(self.seed, u64::MAX - number).pick(&Protocol::ALL);
            self.count(number, &query, protocol, &mut sides, &mut report);
            if report.differences.len() >= self.differences {
                break;
            }
        }
        report
    }

    fn count(
        &self,
        number: u64,
        query: &Query,
        protocol: Protocol,
        sides: &mut Sides,
        report: &mut Report,
    ) {
        let (verdict, expected, found) = sides.ask(query, protocol);
        match verdict {
            Verdict::Same => {
                report.same += 1;
                if let Some(code) = expected.sqlstate() {
                    *report.errors.entry(code.to_owned()).or_default() += 1;
                }
            }
            Verdict::Evaluation => report.evaluation += 1,
            Verdict::Slow => report.slow += 1,
            Verdict::Refused(reason) => *report.refused.entry(reason).or_default() += 1,
            Verdict::Different(_) if !sides.is_stable(query, protocol, &expected) => {
                report.unstable += 1
            }
            Verdict::Different(what) => {
                let text = self.describe(number, query, protocol, what, sides, [expected, found]);
                report.differences.push(text);
            }
        }
    }

    /// Tells a difference: the smallest statement that shows it, and what it was made of.
    fn describe(
        &self,
        number: u64,
        query: &Query,
        protocol: Protocol,
        what: &'static str,
        sides: &mut Sides,
        whole: [Reply; 2],
    ) -> String {
        let begun = Instant::now();
        let differs = |query: &Query| {
            let (verdict, expected, _) = sides.ask(query, protocol);
            verdict == Verdict::Different(what) && sides.is_stable(query, protocol, &expected)
        };
        let smallest = shrink(query, differs, || begun.elapsed() < SHRINKING);
        let (verdict, expected, found) = sides.ask(&smallest, protocol);
        // What does not happen again is shown as it was.
        let (smallest, again, answers) = match verdict {
            Verdict::Different(_) => (&smallest, "", [expected, found]),
            Verdict::Same | Verdict::Evaluation | Verdict::Slow | Verdict::Refused(_) => {
                (query, "NOT AGAIN: ", whole)
            }
        };
        let Campaign {
            seed,
            shards,
            layer,
            views,
            ..
        } = self;
        let (small, large) = (Text::of(smallest), Text::of(query));
        format!(
            "{again}{what} differ on {shards} shards, layer {layer:?}, {protocol:?}: \
             SWITCHYARD_SEED={seed} SWITCHYARD_FIRST={number} SWITCHYARD_QUERIES=1 (views: {views})\n\
             {}\n  parameters {:?}\n  plain:  {}\n  router: {}\n  made of: {}\n",
            small.sql,
            small.values,
            show(&answers[0]),
            show(&answers[1]),
            large.sql,
        )
    }
}

impl Sides {
    fn ask(&mut self, query: &Query, protocol: Protocol) -> (Verdict, Reply, Reply) {
        let text = Text::of(query);
        let expected = run(&mut self.plain, &text, protocol);
        let found = run(&mut self.router, &text, protocol);
        (
            compare(&expected, &found, query.is_ordered()),
            expected,
            found,
        )
    }

    /// Whether the plain server gives this answer in other circumstances, too.
    fn is_stable(&mut self, query: &Query, protocol: Protocol, answer: &Reply) -> bool {
        let other = run(&mut self.mirror, &Text::of(query), protocol);
        compare(answer, &other, query.is_ordered()) == Verdict::Same
    }
}

fn run(client: &mut Client, text: &Text, protocol: Protocol) -> Reply {
    differential::answer(client, &text.sql, &text.values, protocol)
}

impl Report {
    /// How many statements there were.
    pub fn total(&self) -> usize {
        let refused: usize = self.refused.values().sum();
        self.same + self.evaluation + self.slow + self.unstable + refused + self.differences.len()
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
            self.refused.values().sum::<usize>(),
            self.differences.len()
        )?;
        for (code, count) in errors {
            writeln!(f, "  {count} failed: {code}")?;
        }
        for (reason, count) in &self.refused {
            writeln!(f, "  {count} refused: {reason}")?;
        }
        self.differences
            .iter()
            .try_for_each(|difference| writeln!(f, "\n{difference}"))
    }
}
