//! `switchyard-migrate`: plans the movement of data between shards.
//!
//! `plan` computes (`plan`) and prints (`print`); the configuration and the catalog are read by the router's library, so
//! that both programs understand them alike. What a command computes goes to standard output, everything else to standard
//! error as log lines. Exit codes: 0 done, 1 configuration or runtime error, 2 usage.

mod log;
mod plan;
mod print;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
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
    #[error("writing the plan: {0}")]
    Output(#[from] io::Error),
}

fn main() -> ExitCode {
    let Command::Plan(common) = Arguments::parse().command;
    let settings = load(&common.config);
    log::start(
        common.log_format,
        settings.as_ref().ok().map(|s| &s.file.log),
    );
    let done = settings.and_then(|settings| print_plan(&settings, common.json));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            switchyard_router::logging::each_line(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

fn load(path: &Path) -> Result<Settings, Failure> {
    Ok(Settings::load(path, &ProcessEnvironment)?)
}

fn print_plan(settings: &Settings, json: bool) -> Result<(), Failure> {
    let actual = match &settings.file.catalog {
        Some(catalog) => Some(read(catalog, settings)?),
        None => None,
    };
    let plan = plan::plan(&settings.file, actual.as_ref());
    let mut output = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut output, &plan).map_err(io::Error::from)?;
        writeln!(output)?;
    } else {
        write!(output, "{plan}")?;
    }
    Ok(output.flush()?)
}

/// What the catalog holds. One without our tables holds nothing; it is left as it is.
fn read(catalog: &switchyard_schema::Catalog, settings: &Settings) -> Result<Snapshot, Failure> {
    let password = settings.catalog_password.as_ref().map(Password::reveal);
    let credentials = Credentials::new(catalog, password);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    runtime.block_on(async {
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
        Ok(snapshot)
    })
}
