//! What came of it: numbers per file, and every difference with both answers.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use super::compare::{Verdict, What};

/// What came of a file.
#[derive(Debug, Clone, Default)]
pub struct FileReport {
    /// The file's name, without its ending.
    pub name: String,
    /// Whether its writes ran on both sides.
    pub written: bool,
    /// How many reads, and writes if they ran on both sides, the plain server answers.
    pub accepted: usize,
    /// How many of them the router answers in the same way.
    pub equal: usize,
    /// How many it answers like a plain server whose rows lie in another order, and not like the first.
    pub equal_reordered: usize,
    /// How many it answers differently, as two plain servers with the same rows do among themselves.
    pub undetermined: usize,
    /// How many it refuses with an error of its own.
    pub refused: usize,
    /// How many it answers differently.
    pub different: usize,
    /// How many it has an error for.
    pub failing: usize,
    /// How many of them have the same SQLSTATE through the router.
    pub failing_same: usize,
    /// Every difference.
    pub differences: Vec<Difference>,
    /// What went wrong in keeping the shards in step.
    pub troubles: Vec<String>,
}

/// A statement with different answers.
#[derive(Debug, Clone)]
pub struct Difference {
    /// Its line.
    pub line: usize,
    /// Its text.
    pub sql: String,
    /// In what way.
    pub outcome: Outcome,
    /// The plain server's answer.
    pub plain: String,
    /// The router's.
    pub router: String,
}

/// In what way an answer differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The router refuses, for this reason.
    Refused(String),
    /// It answers differently, and so does another plain server with the same rows.
    Undetermined,
    /// It answers differently.
    Different(What),
    /// Where the plain server has an error, it has none or another one.
    OtherError,
}

impl Outcome {
    fn name(&self) -> String {
        match self {
            Outcome::Refused(reason) => format!("refused: {reason}"),
            Outcome::Undetermined => "not determined by the data".to_owned(),
            Outcome::Different(what) => format!("different: {}", what.name()),
            Outcome::OtherError => "error of the plain server: other".to_owned(),
        }
    }
}

impl FileReport {
    pub(super) fn new(name: &str, written: bool) -> FileReport {
        FileReport {
            name: name.to_owned(),
            written,
            ..FileReport::default()
        }
    }

    pub(super) fn count(&mut self, verdict: &Verdict) {
        self.accepted += 1;
        match verdict {
            Verdict::Equal => self.equal += 1,
            Verdict::EqualReordered => self.equal_reordered += 1,
            Verdict::Undetermined => self.undetermined += 1,
            Verdict::Refused(_) => self.refused += 1,
            Verdict::Different(_) => self.different += 1,
        }
    }

    pub(super) fn failed(&mut self, same: bool) {
        self.failing += 1;
        self.failing_same += usize::from(same);
    }

    pub(super) fn add(&mut self, difference: Difference) {
        self.differences.push(difference);
    }

    fn add_numbers(&mut self, other: &FileReport) {
        self.accepted += other.accepted;
        self.equal += other.equal;
        self.equal_reordered += other.equal_reordered;
        self.undetermined += other.undetermined;
        self.refused += other.refused;
        self.different += other.different;
        self.failing += other.failing;
        self.failing_same += other.failing_same;
    }
}

/// The sum of several files.
pub fn sum(reports: &[FileReport]) -> FileReport {
    let mut total = FileReport::new("all", false);
    reports.iter().for_each(|report| total.add_numbers(report));
    total
}

/// The share of answers that are equal, of a hundred, rounded down to hundredths.
pub fn share(report: &FileReport) -> f64 {
    let hundredths = ((report.equal + report.equal_reordered) * 10_000)
        .checked_div(report.accepted)
        .unwrap_or(10_000);
    f64::from(u32::try_from(hundredths).unwrap_or_default()) / 100.0
}

/// The table, in Markdown, and the reasons with how often each occurs.
pub fn table(reports: &[FileReport]) -> String {
    let mut text = String::from(
        "| file | accepted | equal | equal, reordered | equal % | not determined | refused | different | errors | same SQLSTATE |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    let total = sum(reports);
    for report in reports.iter().chain([&total]) {
        let FileReport {
            name,
            accepted,
            equal,
            equal_reordered,
            undetermined,
            refused,
            different,
            failing,
            failing_same,
            ..
        } = report;
        let _ = writeln!(
            text,
            "| {name} | {accepted} | {equal} | {equal_reordered} | {:.2} | {undetermined} | {refused} | {different} | {failing} | {failing_same} |",
            share(report)
        );
    }
    let _ = writeln!(text);
    let mut ways: BTreeMap<String, usize> = BTreeMap::new();
    for difference in reports.iter().flat_map(|report| &report.differences) {
        *ways.entry(difference.outcome.name()).or_default() += 1;
    }
    let mut ways: Vec<(String, usize)> = ways.into_iter().collect();
    ways.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (way, count) in ways {
        let _ = writeln!(text, "{count:5}  {way}");
    }
    text
}

/// Every difference, with both answers.
pub fn differences(reports: &[FileReport]) -> String {
    let mut text = String::new();
    for report in reports {
        for difference in &report.differences {
            let Difference {
                line,
                sql,
                outcome,
                plain,
                router,
            } = difference;
            let _ = writeln!(
                text,
                "=== {}.sql:{line}  {}\n{sql}\n--- plain\n{plain}--- router\n{router}",
                report.name,
                outcome.name()
            );
        }
        for trouble in &report.troubles {
            let _ = writeln!(text, "=== {}.sql  TROUBLE {trouble}", report.name);
        }
    }
    text
}

/// For programs.
pub fn json(reports: &[FileReport]) -> Value {
    let file = |report: &FileReport| {
        let differences: Vec<Value> = report.differences.iter().map(|difference| {
            json!({ "line": difference.line, "sql": difference.sql, "outcome": difference.outcome.name() })
        }).collect();
        json!({
            "file": report.name,
            "accepted": report.accepted,
            "equal": report.equal,
            "equal_reordered": report.equal_reordered,
            "undetermined": report.undetermined,
            "refused": report.refused,
            "different": report.different,
            "share": share(report),
            "errors": report.failing,
            "errors_same": report.failing_same,
            "differences": differences,
            "troubles": report.troubles,
        })
    };
    let files: Vec<Value> = reports.iter().map(file).collect();
    json!({ "all": file(&sum(reports)), "files": files })
}
