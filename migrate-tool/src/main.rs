//! `switchyard-migrate`: plans the movement of data between shards.
//!
//! `plan` computes (`plan`) and prints (`print`); `verify` asks the servers (`verify`). The configuration and the catalog are read by the
//! router's library, so that both programs understand them alike. What a command computes goes to standard output, everything else to
//! standard error as log lines. Exit codes: 0 done, 1 configuration or runtime error, or rows that are wrong, 2 usage.

mod log;
mod plan;
mod print;
mod verify;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use switchyard_catalog::{Catalog, Credentials, Snapshot};
use switchyard_router::config::{ConfigError, Password, ProcessEnvironment, Settings};

/// Moves data between Switchyard shards.
#[derive(Debug, Parser)]
#[command(name = "switchyard-migrate", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what would move to make the actual state what the configuration file asks for. Touches nothing.
    Plan(Common),
    /// Look whether every row is on the shard that owns it, and reference tables are the same everywhere. Touches nothing.
    Verify(Common),
}

#[derive(Debug, Args)]
struct Common {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print machine-readable JSON
    #[arg(long)]
    json: bool,
    /// The form of log lines [default: the file's]
    #[arg(long, value_enum, value_name = "FORM")]
    log_format: Option<log::Form>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Catalog(#[from] switchyard_catalog::Error),
    #[error("starting the runtime: {0}")]
    Runtime(#[source] io::Error),
    #[error("writing the output: {0}")]
    Output(#[from] io::Error),
    #[error(transparent)]
    Verify(#[from] verify::Error),
    #[error("the catalog changes all the time: look at the rows when tables are not distributed")]
    Unsteady,
}

/// So often rows are looked at while the catalog changes.
const LOOKS: usize = 3;

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let (Command::Plan(common) | Command::Verify(common)) = &command;
    let settings = load(&common.config);
    log::start(
        common.log_format,
        settings.as_ref().ok().map(|s| &s.file.log),
    );
    let done = settings.and_then(|settings| match &command {
        Command::Plan(_) => print_plan(&settings, common.json),
        Command::Verify(_) => print_verified(&settings, common.json),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            switchyard_router::logging::each_line(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

fn load(path: &Path) -> Result<Settings, Failure> {
    Ok(Settings::load(path, &ProcessEnvironment)?)
}

fn print_plan(settings: &Settings, json: bool) -> Result<bool, Failure> {
    let actual = runtime()?.block_on(actual(settings))?;
    print(&plan::plan(&settings.file, actual.as_ref()), json)?;
    Ok(true)
}

/// False: rows are wrong.
fn print_verified(settings: &Settings, json: bool) -> Result<bool, Failure> {
    let report = runtime()?.block_on(verified(settings))?;
    print(&report, json)?;
    Ok(report.is_clean())
}

/// Looks at all rows. Where something is wrong and the catalog has changed meanwhile, they may be where it says now: again.
async fn verified(settings: &Settings) -> Result<verify::Report, Failure> {
    let revision = |actual: &Option<Snapshot>| actual.as_ref().map(|actual| actual.revision);
    for _ in 0..LOOKS {
        let before = actual(settings).await?;
        let report = verify::verify(settings, before.as_ref()).await?;
        if report.is_clean() || revision(&before) == revision(&actual(settings).await?) {
            return Ok(report);
        }
    }
    Err(Failure::Unsteady)
}

fn print(what: &(impl Display + Serialize), json: bool) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut output, what).map_err(io::Error::from)?;
        writeln!(output)?;
    } else {
        write!(output, "{what}")?;
    }
    Ok(output.flush()?)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().map_err(Failure::Runtime)
}

/// What the catalog holds, if there is one. One without our tables holds nothing; it is left as it is.
async fn actual(settings: &Settings) -> Result<Option<Snapshot>, Failure> {
    let Some(catalog) = &settings.file.catalog else {
        return Ok(None);
    };
    let password = settings.catalog_password.as_ref().map(Password::reveal);
    let credentials = Credentials::new(catalog, password);
    let catalog = Catalog::open(&credentials).await?;
    let snapshot = if catalog.is_migrated().await? {
        catalog.read().await?
    } else {
        Snapshot {
            revision: 0,
            databases: BTreeMap::new(),
        }
    };
    catalog.close().await;
    Ok(Some(snapshot))
}
