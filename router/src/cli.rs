//! The `switchyard` program: its commands, where their output goes, and its exit codes.
//!
//! What a command computes goes to standard output; what it has to say about that goes to standard error as log lines.
//! Exit codes: 0 it is well, 1 it is not, 2 the command line is wrong.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use switchyard_schema::LogFormat;
use tracing::error;

use crate::config::{ProcessEnvironment, Settings};
use crate::demo;
use crate::logging;
use crate::process::{Router, signals};

/// A PostgreSQL sharding router.
#[derive(Debug, Parser)]
#[command(
    name = "switchyard",
    version,
    about,
    args_conflicts_with_subcommands = true
)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration file, to run the router.
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// The form of log lines; the configuration's `[log] format` otherwise.
    #[arg(long, global = true, value_enum)]
    log_format: Option<Format>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the router.
    Run(ConfigArgs),
    /// Validate the configuration, visit every node, print the topology; exit 1 on any problem.
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Print the distributed plan of one statement, without running it.
    Explain {
        #[command(flatten)]
        config: ConfigArgs,
        /// The database; the first one of the configuration otherwise.
        #[arg(long)]
        database: Option<String>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
        /// Also how long planning takes, and finding the plan in the cache: medians, in microseconds.
        #[arg(long)]
        times: bool,
        /// The statement.
        sql: String,
    },
    /// Start a cluster on this machine, with data in it, and a router in front; Ctrl-C ends all of it.
    Demo {
        /// Keep the data in this directory, and find it there the next time.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// The router's port; the next one serves http.
        #[arg(long, default_value_t = 6432)]
        port: u16,
    },
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration file.
    #[arg(long, short)]
    config: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// A command's outcome: `Err` has been logged.
type Outcome = Result<(), Failed>;

/// The command failed and has said so.
struct Failed;

/// Runs the command of the process's command line.
#[must_use]
pub fn main() -> ExitCode {
    let line = CommandLine::try_parse().and_then(|line| match (&line.command, &line.config) {
        (None, None) => {
            let message = "a command or --config FILE is needed";
            Err(CommandLine::command().error(ErrorKind::MissingRequiredArgument, message))
        }
        _ => Ok(line),
    });
    let line = match line {
        Ok(line) => line,
        Err(error) => {
            // Help and version are no errors. Nothing can be done when the terminal is gone.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match dispatch(line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed) => ExitCode::FAILURE,
    }
}

fn dispatch(line: CommandLine) -> Outcome {
    let format = line.log_format.map(|format| match format {
        Format::Text => LogFormat::Text,
        Format::Json => LogFormat::Json,
    });
    match (line.command, line.config) {
        (None, None) => Err(Failed),
        (None, Some(config)) | (Some(Command::Run(ConfigArgs { config })), _) => {
            run(load(&config, format)?)
        }
        (Some(Command::Demo { dir, port }), _) => {
            logging::start(format.unwrap_or(LogFormat::Text), "info");
            demo(dir, port)
        }
        (Some(Command::Check { config, json }), _) => check(&load(&config.config, format)?, json),
        (
            Some(Command::Explain {
                config,
                database,
                json,
                times,
                sql,
            }),
            _,
        ) => {
            let settings = load(&config.config, format)?;
            explain(settings, database.as_deref(), (json, times), &sql)
        }
    }
}

/// Reads the configuration and starts logging in its form.
fn load(path: &Path, format: Option<LogFormat>) -> Result<Settings, Failed> {
    match Settings::load(path, &ProcessEnvironment) {
        Ok(settings) => {
            let log = &settings.file.log;
            logging::start(format.unwrap_or(log.format), &log.filter);
            Ok(settings)
        }
        Err(problem) => {
            logging::start(format.unwrap_or(LogFormat::Text), "info");
            logging::each_line(&problem.to_string());
            Err(Failed)
        }
    }
}

/// The runtime of commands that end by themselves.
fn runtime() -> Result<tokio::runtime::Runtime, Failed> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|problem| {
            error!("cannot start: {problem}");
            Failed
        })
}

fn print(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    // A reader that has gone, like `head`, wants no more.
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(problem) if problem.kind() != io::ErrorKind::BrokenPipe => {
            error!("cannot print: {problem}");
            Err(Failed)
        }
        _ => Ok(()),
    }
}

fn failed(problem: &dyn std::fmt::Display) -> Failed {
    logging::each_line(&problem.to_string());
    Failed
}

fn run(settings: Settings) -> Outcome {
    let router = Router::start(settings).map_err(|problem| failed(&problem))?;
    signals::obey(router).map_err(|problem| failed(&problem))
}

fn demo(directory: Option<PathBuf>, port: u16) -> Outcome {
    let options = demo::Options { directory, port };
    let demo = demo::start(&options).map_err(|problem| failed(&problem))?;
    let settings = Settings::load(demo.config_file(), &ProcessEnvironment)
        .map_err(|problem| failed(&problem))?;
    let router = Router::start(settings).map_err(|problem| failed(&problem))?;
    print(&demo.welcome())?;
    // The router ends before its servers do.
    signals::obey(router).map_err(|problem| failed(&problem))
}

fn explain(
    settings: Settings,
    database: Option<&str>,
    (json, times): (bool, bool),
    sql: &str,
) -> Outcome {
    let explained = runtime()?.block_on(crate::explain::explain(settings, database, sql));
    let explained = explained.map_err(|problem| {
        error!("{problem}");
        Failed
    })?;
    let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
    let (planned, found) = (explained.times.planned, explained.times.found);
    let (planned, found) = (micros(planned), micros(found));
    let plan = explained.plan;
    match (json, times) {
        (true, true) => {
            let times = serde_json::json!({ "planned_us": planned, "found_us": found });
            print(&serde_json::json!({ "sql": sql, "plan": plan, "times": times }).to_string())
        }
        (true, false) => print(&serde_json::json!({ "sql": sql, "plan": plan }).to_string()),
        (false, true) => {
            print(plan.trim_end())?;
            print(&format!(
                "Planned in {planned:.1} µs, found in the plan cache in {found:.1} µs"
            ))
        }
        (false, false) => print(plan.trim_end()),
    }
}

fn check(settings: &Settings, json: bool) -> Outcome {
    let report = runtime()?.block_on(crate::check::check(settings));
    if json {
        let text = serde_json::to_string_pretty(&report).map_err(|problem| {
            error!("cannot print: {problem}");
            Failed
        })?;
        print(&text)?;
    } else {
        print(&report.to_string())?;
    }
    if report.is_good() {
        Ok(())
    } else {
        Err(Failed)
    }
}
