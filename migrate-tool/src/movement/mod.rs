//! Moves rows between shards while clients work (ADR 0024).
//!
//! A movement is the way from the layout in force to another one: the bucket map, and the placements of tables without hash keys ([`layout`]). Tables
//! whose equal keys are together stay so ([`family`]). It goes in [`group`]s of rows, as large as may move at a time ([`part`]), each in one transaction on the
//! shard that has them and the one that is to have them, which the catalog decides ([`switchover`]). So the layout in force always says where
//! every row is, and whoever dies leaves nothing to repair: the same command goes on. What the catalog keeps of a movement is only where it
//! leads, and where back. Shards that the catalog does not know yet become shards first ([`newcomer`]).

mod family;
mod group;
mod index;
mod isolate;
mod layout;
mod lock;
mod newcomer;
mod pace;
mod part;
mod report;
mod run;
mod strangers;
mod survey;
mod switchover;
mod tables;
mod visit;
mod waiting;

use std::time::Duration;

use switchyard_catalog::{Catalog, CatalogDatabase, Credentials, Layout, Lease, Movement};
use switchyard_router::config::{Settings, User};
use switchyard_router::topology::builder::DatabaseState;
use switchyard_schema::Database;
use tokio::time::sleep;

use crate::servers::{self, Server, ServerError};
pub(crate) use isolate::isolate;
pub(crate) use pace::Pace;
pub(crate) use report::{Report, Status};
use run::Run;
pub(crate) use survey::{Amount, Survey, survey};

/// The longest one statement may take: those that move rows take as long as there are rows.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// What clients have begun before their router knows that rows may be on their way is not run again: most of it is over after so long.
const NOTED: Duration = Duration::from_secs(1);
/// The SQLSTATE of a server that has no room left.
const DISK_FULL: &str = "53100";

/// Why rows could not be moved. What has moved stays where it is, and the same command goes on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A shard's primary failed.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A server has no room left.
    #[error(
        "{0}: free some there and run this again, or say `abort`, which leaves rows where they are"
    )]
    Full(ServerError),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] switchyard_catalog::Error),
    /// Rows move only where there is a catalog.
    #[error(
        "the file has no [catalog], and only by what a catalog says all routers learn at one moment where rows are"
    )]
    NoCatalog,
    /// The catalog does not know the database yet.
    #[error("the catalog has no database \"{0}\": start a router with this file first")]
    Unknown(String),
    /// Another program moves its rows.
    #[error("another program is moving rows of database \"{0}\"")]
    Leased(String),
    /// There is a movement, to another layout than is asked for.
    #[error(
        "database \"{0}\" has a movement that leads elsewhere: say `finish` or `rollback` first, or `abort` to leave rows where they are"
    )]
    Elsewhere(String),
    /// There is no such shard.
    #[error("neither the file nor the catalog has a shard \"{0}\"")]
    NoShard(String),
    /// There is none.
    #[error("database \"{0}\" has no movement")]
    None(String),
    /// It is not at its end.
    #[error(
        "{buckets} buckets and rows of {tables} tables without hash keys of database \"{database}\" are still to move: say `apply`, or `abort` to leave them where they are"
    )]
    Unfinished {
        /// The database.
        database: String,
        /// How many buckets.
        buckets: usize,
        /// How many tables.
        tables: usize,
    },
    /// A table cannot move.
    #[error("table {table} cannot move: {why}")]
    Table {
        /// The table.
        table: String,
        /// Why.
        why: String,
    },
    /// A shard cannot take part.
    #[error("shard \"{shard}\" cannot take part: {why}")]
    Shard {
        /// The shard.
        shard: String,
        /// Why.
        why: String,
    },
    /// The catalog knows less than a shard.
    #[error(
        "shard \"{shard}\" remembers epoch {remembered}, and the catalog is at {catalog}: it may have been restored from an old backup, and what it says of where rows are is not true any more"
    )]
    Older {
        /// The shard.
        shard: String,
        /// Its epoch.
        remembered: u64,
        /// The catalog's.
        catalog: u64,
    },
    /// Clients hold the tables.
    #[error(
        "transactions that last keep tables from being locked for a moment: end them, and run this again"
    )]
    Busy,
    /// The catalog changes all the time.
    #[error("the catalog changes all the time: run this when tables are not distributed")]
    Unsteady,
    /// No name for a transaction.
    #[error("{0}")]
    Unnamed(String),
}

/// What a program that moves rows of one database works with.
#[derive(Debug)]
struct Work<'a> {
    settings: &'a Settings,
    credentials: Credentials,
    catalog: Catalog,
    lease: Lease,
    /// The database as the catalog has it.
    known: CatalogDatabase,
}

impl<'a> Work<'a> {
    /// Takes the lease of a database.
    async fn open(settings: &'a Settings, database: &str) -> Result<Work<'a>, Error> {
        let credentials = settings.catalog_credentials().ok_or(Error::NoCatalog)?;
        let catalog = Catalog::connect(&credentials).await?;
        let lease = catalog.lease(database).await?;
        let lease = lease.ok_or_else(|| Error::Leased(database.to_owned()))?;
        let known = known(&catalog, database).await?;
        let mut work = Work {
            settings,
            credentials,
            catalog,
            lease,
            known,
        };
        let mut servers = work.servers(None).await?;
        switchover::settle(&mut work, &mut servers, switchover::ATTENDED).await?;
        work.refresh().await?;
        Ok(work)
    }

    /// The movement that is recorded, if there is one. One that leads nowhere only says that rows may be on their way.
    async fn movement(&mut self) -> Result<Option<Movement>, Error> {
        let shards = self.known.database.shards.len();
        let movement = self.lease.movement(shards).await?;
        Ok(movement.filter(|movement| movement.former != movement.target))
    }

    /// Has all routers know that rows may be on their way, on a recorded movement or on none, and keeps those from the shards that do not hear of it.
    async fn announce(&mut self) -> Result<(), Error> {
        let (former, target, turned) = match self.movement().await? {
            Some(movement) => (movement.former, movement.target, movement.turned),
            None => (self.known.layout(), self.known.layout(), false),
        };
        self.lease.record((&former, &target), turned).await?;
        sleep(NOTED).await;
        let mut servers = self.servers(None).await?;
        let mut visits = visit::visits(self, &servers).await?;
        strangers::shut_out(self, &mut servers, &mut visits).await
    }

    fn user(&self) -> Result<&'a User, Error> {
        let user = self.settings.monitor_user();
        Ok(user.ok_or(ServerError::NoUser)?)
    }

    /// Reads again what the catalog has.
    async fn refresh(&mut self) -> Result<(), Error> {
        let name = self.known.database.name.clone();
        self.known = known(&self.catalog, &name).await?;
        Ok(())
    }

    /// Connects to the primaries of the shards at some positions, or of all.
    async fn servers(&self, only: Option<&[usize]>) -> Result<Vec<Server>, Error> {
        connect(self.settings, &self.known, only).await
    }
}

/// Connects to the primaries of the shards at some positions, or of all.
async fn connect(
    settings: &Settings,
    known: &CatalogDatabase,
    only: Option<&[usize]>,
) -> Result<Vec<Server>, Error> {
    let mut state = DatabaseState::configured(known.database.clone());
    state.buckets = known.buckets.clone();
    let mut servers = servers::connect(settings, &state, only, PATIENCE).await?;
    for server in &mut servers {
        server.ask(servers::SETTINGS).await?;
    }
    Ok(servers)
}

/// What the catalog has of a database.
async fn known(catalog: &Catalog, database: &str) -> Result<CatalogDatabase, Error> {
    let mut snapshot = catalog.read().await?;
    let known = snapshot.databases.remove(database);
    known.ok_or_else(|| Error::Unknown(database.to_owned()))
}

/// Moves rows to where the file asks for, or goes on with that.
///
/// # Errors
/// [`Error`].
pub(crate) async fn apply(
    settings: &Settings,
    desired: &Database,
    pace: &Pace,
) -> Result<Report, Error> {
    let mut work = Work::open(settings, &desired.name).await?;
    newcomer::welcome(&mut work, desired).await?;
    let known = work.known.database.clone();
    let wanted = |from: &Layout| layout::target(from, &known, desired);
    match work.movement().await? {
        Some(movement) if movement.target == wanted(&movement.former) => {}
        // A rollback is on its way, or there: turn round.
        Some(movement) if movement.turned && movement.former == wanted(&movement.target) => {
            let there = (&movement.target, &movement.former);
            work.lease.record(there, false).await?;
        }
        Some(_) => return Err(Error::Elsewhere(desired.name.clone())),
        None => {
            let former = work.known.layout();
            let target = layout::target(&former, &work.known.database, desired);
            if target == former {
                work.lease.forget().await?;
                return Ok(Report::nothing(&work.known));
            }
            work.lease.record((&former, &target), false).await?;
        }
    }
    go(work, pace).await
}

/// Moves rows back to where they were before, or goes on with that.
///
/// # Errors
/// [`Error`].
pub(crate) async fn rollback(
    settings: &Settings,
    database: &str,
    pace: &Pace,
) -> Result<Report, Error> {
    let mut work = Work::open(settings, database).await?;
    let movement = work.movement().await?;
    let movement = movement.ok_or_else(|| Error::None(database.to_owned()))?;
    let is_there = work.known.layout() == work.known.aimed(&movement.target);
    if is_there || !movement.turned {
        let back = (&movement.target, &movement.former);
        work.lease.record(back, true).await?;
    }
    go(work, pace).await
}

/// Accepts what has moved: shards that own nothing and are not in the file any more are no shards of the catalog, and there is no way back.
///
/// # Errors
/// [`Error`].
pub(crate) async fn finish(settings: &Settings, desired: &Database) -> Result<Report, Error> {
    let mut work = Work::open(settings, &desired.name).await?;
    let name = || desired.name.clone();
    let known = work.known.clone();
    let movement = work.movement().await?.ok_or_else(|| Error::None(name()))?;
    let aimed = known.aimed(&movement.target);
    let (buckets, tables) = known.layout().differing(&aimed);
    if buckets + tables > 0 {
        return Err(Error::Unfinished {
            database: name(),
            buckets,
            tables,
        });
    }
    newcomer::may_leave(&known.database, &known.layout(), desired)?;
    if !work.lease.finish(&known, desired).await? {
        return Err(Error::Unsteady);
    }
    Ok(Report::nothing(&known))
}

/// Leaves rows where they are by now, and nothing else behind.
///
/// # Errors
/// [`Error`].
pub(crate) async fn abort(settings: &Settings, desired: &Database) -> Result<Report, Error> {
    let mut work = Work::open(settings, &desired.name).await?;
    newcomer::take_leave(&mut work, desired).await?;
    let mut servers = work.servers(None).await?;
    index::remove(&mut servers).await?;
    work.lease.forget().await?;
    Ok(Report::nothing(&work.known))
}

/// Has groups move no further, or again.
///
/// # Errors
/// [`Error`].
pub(crate) async fn pause(settings: &Settings, database: &str, paused: bool) -> Result<(), Error> {
    let credentials = settings.catalog_credentials().ok_or(Error::NoCatalog)?;
    let catalog = Catalog::connect(&credentials).await?;
    let there = catalog.pause(database, paused).await?;
    catalog.close().await;
    match there {
        true => Ok(()),
        false => Err(Error::None(database.to_owned())),
    }
}

/// Makes the catalog's nodes those of the file. Who moves rows meanwhile goes on with the primaries that it is connected to.
///
/// # Errors
/// [`Error`].
pub(crate) async fn set_nodes(settings: &Settings, desired: &Database) -> Result<(), Error> {
    let credentials = settings.catalog_credentials().ok_or(Error::NoCatalog)?;
    let catalog = Catalog::connect(&credentials).await?;
    let there = catalog.set_nodes(desired).await?;
    catalog.close().await;
    match there {
        true => Ok(()),
        false => Err(Error::Unknown(desired.name.clone())),
    }
}

/// How far the movement of a database is.
///
/// # Errors
/// [`Error`].
pub(crate) async fn status(settings: &Settings, database: &str) -> Result<Status, Error> {
    let credentials = settings.catalog_credentials().ok_or(Error::NoCatalog)?;
    let catalog = Catalog::connect(&credentials).await?;
    let known = known(&catalog, database).await?;
    let movement = catalog
        .movement(database, known.database.shards.len())
        .await?;
    catalog.close().await;
    Ok(Status::of(&known, movement.as_ref()))
}

/// Moves what is left of the recorded movement.
async fn go(mut work: Work<'_>, pace: &Pace) -> Result<Report, Error> {
    work.announce().await?;
    let outcome = Run::begin(&mut work, pace).await;
    let outcome = match outcome {
        Ok(run) => run.finish(&mut work).await,
        Err(error) => Err(error),
    };
    work.lease.rest().await?;
    match outcome {
        Err(Error::Server(error)) if error.sqlstate() == Some(DISK_FULL) => Err(Error::Full(error)),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests;
