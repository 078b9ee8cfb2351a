//! A few of PostgreSQL's own regression files through the router, where `make regress` has fetched them before. All of them,
//! and what came of it: `make regress`, docs/compatibility.md.

use switchyard_tests::regress::{self, Outcome, Source, report};

/// Files without tables, with tables of one column, and with a join or two.
const FILES: [&str; 3] = ["int4", "text", "case"];

#[test]
fn a_few_files_are_answered_as_before() {
    let Some(source) = Source::unpacked() else {
        // The network is nothing that a test may need.
        return;
    };
    let chosen = FILES.map(ToOwned::to_owned);
    let reports = regress::run(&source, &chosen, |_| {});
    let sum = report::sum(&reports);
    assert!(sum.accepted >= 100, "{}", report::table(&reports));
    let wrong = reports
        .iter()
        .flat_map(|report| &report.differences)
        .any(|difference| {
            matches!(
                difference.outcome,
                Outcome::Different(_) | Outcome::OtherError
            )
        });
    assert!(!wrong, "{}", report::differences(&reports));
}
