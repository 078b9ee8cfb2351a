//! What each test came to, on both sides.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// What the tests of a suite came to on one side, by their names.
#[derive(Debug, Clone, Default)]
pub struct Outcomes(BTreeMap<String, Outcome>);

/// What a test came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Passed,
    Skipped,
    Failed(String),
}

/// A test that passes on the plain server and not through the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its name.
    pub test: String,
    /// What it says.
    pub reason: String,
}

/// Both sides of a suite.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The suite.
    pub suite: String,
    /// How many tests the plain server passes.
    pub plain: usize,
    /// How many of them pass through the router.
    pub router: usize,
    /// The others.
    pub differences: Vec<Difference>,
}

impl Outcomes {
    /// Lines of `passed`, `failed` or `skipped`, a name, and a reason, with tabs between. A suite may have several tests of one name.
    pub fn parse(text: &str) -> Outcomes {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let lines = text.lines().filter_map(|line| {
            let mut parts = line.split('\t');
            let (word, name) = (parts.next()?, parts.next()?);
            let reason = parts.next().unwrap_or_default();
            let outcome = match word {
                "passed" => Outcome::Passed,
                "skipped" => Outcome::Skipped,
                "failed" => Outcome::Failed(reason.to_owned()),
                _ => return None,
            };
            let nth = seen.entry(name).or_default();
            *nth += 1;
            let name = match *nth {
                1 => name.to_owned(),
                nth => format!("{name} ({nth})"),
            };
            Some((name, outcome))
        });
        Outcomes(lines.collect())
    }

    /// How many there are of each kind.
    pub fn summary(&self) -> String {
        let failed = self.0.len() - self.count(&Outcome::Passed) - self.count(&Outcome::Skipped);
        format!(
            "{} passed, {failed} failed, {} skipped",
            self.count(&Outcome::Passed),
            self.count(&Outcome::Skipped)
        )
    }

    fn count(&self, outcome: &Outcome) -> usize {
        self.0.values().filter(|found| *found == outcome).count()
    }
}

impl Comparison {
    /// Compares the two sides of a suite.
    pub fn of(suite: &str, plain: &Outcomes, router: &Outcomes) -> Comparison {
        let passed = plain.0.iter().filter(|(_, o)| **o == Outcome::Passed);
        let passed: Vec<&String> = passed.map(|(name, _)| name).collect();
        let differences = passed.iter().filter_map(|&name| {
            let reason = match router.0.get(name) {
                Some(Outcome::Passed) => return None,
                Some(Outcome::Failed(reason)) => reason.clone(),
                Some(Outcome::Skipped) => "skipped".to_owned(),
                None => "not run".to_owned(),
            };
            let test = name.clone();
            Some(Difference { test, reason })
        });
        let differences: Vec<Difference> = differences.collect();
        Comparison {
            suite: suite.to_owned(),
            plain: passed.len(),
            router: passed.len() - differences.len(),
            differences,
        }
    }

    /// The tests that pass through the router, of a hundred that pass on the plain server; none, if none does.
    pub fn share(&self) -> Option<f64> {
        (self.plain > 0).then(|| 100.0 * self.router as f64 / self.plain as f64)
    }
}

/// A line for each suite, and then its differences.
pub fn table(comparisons: &[Comparison]) -> String {
    let mut text =
        "| suite | pass directly | through the router | % |\n|---|---:|---:|---:|\n".to_owned();
    for comparison in comparisons {
        let share = comparison.share().unwrap_or_default();
        // Rounded down: what is short of a demand must not look as if it met it.
        let share = (share * 100.0).floor() / 100.0;
        let Comparison {
            suite,
            plain,
            router,
            ..
        } = comparison;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {suite} | {plain} | {router} | {share:.2} |");
    }
    for comparison in comparisons {
        for Difference { test, reason } in &comparison.differences {
            let _ = writeln!(text, "\n{}: {test}\n    {reason}", comparison.suite);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str =
        "passed\ta\npassed\tb\npassed\tb\nfailed\tc\tbroken\nskipped\td\npassed\te\npassed\tf\n";

    #[test]
    fn what_passes_directly_has_to_pass() {
        let router = "passed\ta\npassed\tb\nfailed\tb\tother row\npassed\tc\nskipped\te\n";
        let compared = Comparison::of("x", &Outcomes::parse(PLAIN), &Outcomes::parse(router));
        assert_eq!((compared.plain, compared.router), (5, 2));
        assert_eq!(compared.share(), Some(40.0));
        let found = compared.differences.iter();
        let found: Vec<(&str, &str)> = found.map(|d| (&*d.test, &*d.reason)).collect();
        let expected = [("b (2)", "other row"), ("e", "skipped"), ("f", "not run")];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_suite_that_has_run_nothing_has_no_share() {
        let nothing = Outcomes::default();
        assert_eq!(Comparison::of("x", &nothing, &nothing).share(), None);
        assert_eq!(
            Outcomes::parse(PLAIN).summary(),
            "5 passed, 1 failed, 1 skipped"
        );
    }
}
