//! `make regress`: PostgreSQL's own regression files through the router, compared with a plain server.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use switchyard_tests::regress::{self, FileReport, Source, report};

/// Runs PostgreSQL's regression files through the router and compares each read with a plain server.
#[derive(Debug, Parser)]
struct Arguments {
    /// The files to compare, without `.sql`; all that are listed, if none is named.
    files: Vec<String>,
    /// `src/test/regress` of PostgreSQL's source.
    #[arg(long)]
    source: Option<PathBuf>,
    /// Where every difference is written, with both answers.
    #[arg(long, default_value = "target/regress/differences.txt")]
    report: PathBuf,
    /// The result as JSON.
    #[arg(long)]
    json: bool,
    /// The share of equal answers of the files that read, of a hundred, below which this fails.
    #[arg(long)]
    at_least: Option<f64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let source = match &arguments.source {
        Some(directory) => Source::at(directory),
        None => Source::unpacked(),
    };
    let Some(source) = source else {
        say(
            "no regression files there: run `.ci/regress-source`, or name src/test/regress of PostgreSQL's source",
        );
        return ExitCode::FAILURE;
    };
    let began = Instant::now();
    let progress = |report: &FileReport| {
        say(&format!(
            "{:6.1} s  {:20} {:5} of {:5} equal",
            began.elapsed().as_secs_f64(),
            report.name,
            report.equal,
            report.accepted
        ))
    };
    let reports = regress::run(&source, &arguments.files, progress);
    if let Err(error) = std::fs::write(&arguments.report, report::differences(&reports)) {
        say(&format!("{}: {error}", arguments.report.display()));
        return ExitCode::FAILURE;
    }
    let compared: Vec<FileReport> = reports
        .into_iter()
        .filter(|report| report.accepted > 0)
        .collect();
    let (written, read): (Vec<FileReport>, Vec<FileReport>) =
        compared.iter().cloned().partition(|report| report.written);
    let text = match arguments.json {
        true => format!("{:#}\n", report::json(&compared)),
        false => [("Reads", &read), ("Reads and writes", &written)]
            .into_iter()
            .filter(|(_, reports)| !reports.is_empty())
            .map(|(title, reports)| format!("{title}\n\n{}\n", report::table(reports)))
            .collect(),
    };
    let printed = std::io::stdout().write_all(text.as_bytes());
    say(&format!(
        "every difference, with both answers: {}",
        arguments.report.display()
    ));
    let enough = arguments
        .at_least
        .is_none_or(|least| report::share(&report::sum(&read)) >= least);
    if enough && printed.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// To standard error, where progress belongs. Nobody is left to be told if that fails.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
