//! `switchyard-migrate`: moves data between shards.
//!
//! `plan` computes (`plan`) and prints (`print`); `verify` asks the servers (`verify`); `nodes` tells the catalog where they are; all else moves rows (`movement`). The configuration and the catalog are read by the
//! router's library, so that both programs understand them alike. What a command computes goes to standard output, everything else to
//! standard error as log lines. Exit codes: 0 done, 1 configuration or runtime error, rows that are wrong, or a plan that something speaks against, 2 usage.

mod log;
mod movement;
mod names;
mod plan;
mod print;
mod servers;
mod verify;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use switchyard_catalog::{Catalog, Credentials, Snapshot};
use switchyard_router::config::{ConfigError, Password, ProcessEnvironment, Settings};
use switchyard_schema::Database;

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
    Verify(Verifying),
    /// Move rows to where the configuration file asks for, while clients work; or go on with that.
    Apply(Moving),
    /// Give a key of a table by hash a shard of its own, with the keys that share its bucket: all other buckets leave it.
    Isolate(Isolating),
    /// Move rows back to where they were before `apply`.
    Rollback(Moving),
    /// Accept what has moved: there is no way back, and shards that own nothing and are not in the file are forgotten.
    Finish(Chosen),
    /// Leave rows where they are by now, and nothing else behind.
    Abort(Chosen),
    /// Have `apply` or `rollback` stop after the present group of rows.
    Pause(Chosen),
    /// Let `apply` and `rollback` go on when they are run again.
    Resume(Chosen),
    /// Say how far the movement is.
    Status(Chosen),
    /// Make the nodes of the catalog's shards those of the file: when a replica has been promoted, or a server is another one. Moves nothing.
    Nodes(Chosen),
}

/// A command that looks at rows.
#[derive(Debug, Args)]
struct Verifying {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    manner: verify::Manner,
}

/// A command for some databases.
#[derive(Debug, Args)]
struct Chosen {
    #[command(flatten)]
    common: Common,
    /// The database [default: all of the file]
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
}

/// A command that moves rows.
#[derive(Debug, Args)]
struct Moving {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    pace: movement::Pace,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// A key that gets a shard of its own.
#[derive(Debug, Args)]
struct Isolating {
    #[command(flatten)]
    moving: Moving,
    /// The table, as the file has it
    #[arg(long, value_name = "TABLE")]
    table: String,
    /// The key's value, as PostgreSQL writes it
    #[arg(long, value_name = "VALUE")]
    key: String,
    /// The shard
    #[arg(long, value_name = "NAME")]
    shard: String,
}

impl Command {
    fn common(&self) -> &Common {
        match self {
            Self::Plan(common) | Self::Verify(Verifying { common, .. }) => common,
            Self::Apply(Moving { chosen, .. })
            | Self::Rollback(Moving { chosen, .. })
            | Self::Isolate(Isolating {
                moving: Moving { chosen, .. },
                ..
            })
            | Self::Finish(chosen)
            | Self::Abort(chosen)
            | Self::Pause(chosen)
            | Self::Resume(chosen)
            | Self::Status(chosen)
            | Self::Nodes(chosen) => &chosen.common,
        }
    }
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
    #[error(transparent)]
    Movement(#[from] movement::Error),
    #[error("the file has no database \"{0}\"")]
    NoDatabase(String),
    #[error("the file has several databases: say which one (`--database`)")]
    WhichDatabase,
    #[error("nobody has said yes: nothing is moved (`--yes` if there is nobody to ask)")]
    NotSaid,
    #[error("the catalog changes all the time: look at the rows when tables are not distributed")]
    Unsteady,
}

/// So often rows are looked at while the catalog changes.
const LOOKS: usize = 3;

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let common = command.common();
    let settings = load(&common.config);
    log::start(
        common.log_format,
        settings.as_ref().ok().map(|s| &s.file.log),
    );
    let done = settings.and_then(|settings| run(&command, &settings));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            switchyard_router::logging::each_line(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

/// False: rows are wrong, or something speaks against the plan.
fn run(command: &Command, settings: &Settings) -> Result<bool, Failure> {
    match command {
        Command::Plan(common) => return print_plan(settings, common.json),
        Command::Verify(verifying) => return print_verified(settings, verifying),
        Command::Apply(moving) => move_rows(settings, moving, false)?,
        Command::Isolate(isolating) => isolate(settings, isolating)?,
        Command::Rollback(moving) => move_rows(settings, moving, true)?,
        Command::Finish(chosen) => end_movement(settings, chosen, true)?,
        Command::Abort(chosen) => end_movement(settings, chosen, false)?,
        Command::Pause(chosen) => set_paused(settings, chosen, true)?,
        Command::Resume(chosen) => set_paused(settings, chosen, false)?,
        Command::Status(chosen) => print_status(settings, chosen)?,
        Command::Nodes(chosen) => set_nodes(settings, chosen)?,
    }
    Ok(true)
}

impl Chosen {
    /// The databases meant.
    fn databases<'a>(&self, settings: &'a Settings) -> Result<Vec<&'a Database>, Failure> {
        let all = settings.file.databases.iter();
        let meant = |database: &&Database| {
            self.database
                .as_ref()
                .is_none_or(|name| *name == database.name)
        };
        let meant: Vec<&Database> = all.filter(meant).collect();
        match (&self.database, meant.is_empty()) {
            (Some(name), true) => Err(Failure::NoDatabase(name.clone())),
            _ => Ok(meant),
        }
    }
}

fn move_rows(settings: &Settings, moving: &Moving, back: bool) -> Result<(), Failure> {
    if !moving.yes {
        print_plan(settings, false)?;
        is_wanted()?;
    }
    let pace = &moving.pace;
    for database in moving.chosen.databases(settings)? {
        let report = match back {
            true => runtime()?.block_on(movement::rollback(settings, &database.name, pace)),
            false => runtime()?.block_on(movement::apply(settings, database, pace)),
        };
        print(&report?, moving.chosen.common.json)?;
    }
    Ok(())
}

fn isolate(settings: &Settings, isolating: &Isolating) -> Result<(), Failure> {
    let Isolating {
        moving,
        table,
        key,
        shard,
    } = isolating;
    let databases = moving.chosen.databases(settings)?;
    let [database] = databases.as_slice() else {
        return Err(Failure::WhichDatabase);
    };
    if !moving.yes {
        is_wanted()?;
    }
    let meant = (table.as_str(), key.as_str(), shard.as_str());
    let isolated = movement::isolate(settings, database, meant, &moving.pace);
    let report = runtime()?.block_on(isolated)?;
    print(&report, moving.chosen.common.json)
}

fn end_movement(settings: &Settings, chosen: &Chosen, accept: bool) -> Result<(), Failure> {
    for database in chosen.databases(settings)? {
        let report = match accept {
            true => runtime()?.block_on(movement::finish(settings, database)),
            false => runtime()?.block_on(movement::abort(settings, database)),
        };
        print(&report?, chosen.common.json)?;
    }
    Ok(())
}

fn set_paused(settings: &Settings, chosen: &Chosen, paused: bool) -> Result<(), Failure> {
    for database in chosen.databases(settings)? {
        runtime()?.block_on(movement::pause(settings, &database.name, paused))?;
    }
    Ok(())
}

fn set_nodes(settings: &Settings, chosen: &Chosen) -> Result<(), Failure> {
    for database in chosen.databases(settings)? {
        runtime()?.block_on(movement::set_nodes(settings, database))?;
    }
    Ok(())
}

fn print_status(settings: &Settings, chosen: &Chosen) -> Result<(), Failure> {
    for database in chosen.databases(settings)? {
        let status = runtime()?.block_on(movement::status(settings, &database.name))?;
        print(&status, chosen.common.json)?;
    }
    Ok(())
}

/// Asks whoever sits there.
fn is_wanted() -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::NotSaid);
    }
    io::stderr().write_all(b"Move rows so? [yes/no] ")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(Failure::NotSaid),
    }
}

fn load(path: &Path) -> Result<Settings, Failure> {
    Ok(Settings::load(path, &ProcessEnvironment)?)
}

/// False: something speaks against it.
fn print_plan(settings: &Settings, json: bool) -> Result<bool, Failure> {
    let plan = runtime()?.block_on(planned(settings))?;
    print(&plan, json)?;
    Ok(plan.is_possible())
}

/// Compares the file with the catalog, and asks the servers of databases that differ what it would take.
async fn planned(settings: &Settings) -> Result<plan::Plan, Failure> {
    let actual = actual(settings).await?;
    let mut plan = plan::plan(&settings.file, actual.as_ref());
    for database in &mut plan.databases {
        let known = actual
            .as_ref()
            .and_then(|actual| actual.databases.get(&database.name));
        let desired = settings.file.database(&database.name);
        if let (plan::Change::Changed, Some(known), Some(desired)) =
            (database.change, known, desired)
        {
            database.survey = Some(movement::survey(settings, desired, known).await?);
        }
    }
    Ok(plan)
}

/// False: rows are wrong.
fn print_verified(settings: &Settings, verifying: &Verifying) -> Result<bool, Failure> {
    let report = runtime()?.block_on(verified(settings, &verifying.manner))?;
    print(&report, verifying.common.json)?;
    Ok(report.is_clean())
}

/// Looks at all rows. Where something is wrong and the catalog has changed meanwhile, they may be where it says now: again.
async fn verified(settings: &Settings, manner: &verify::Manner) -> Result<verify::Report, Failure> {
    let revision = |actual: &Option<Snapshot>| actual.as_ref().map(|actual| actual.revision);
    for _ in 0..LOOKS {
        let before = actual(settings).await?;
        let report = verify::verify(settings, before.as_ref(), manner).await?;
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
