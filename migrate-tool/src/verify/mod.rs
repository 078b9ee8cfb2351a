//! Is every row where it belongs? Looks at all primaries while clients work, and changes nothing.
//!
//! A row of a sharded table has to be on the shard that its key says ([`placed`]), and the copies of a reference table have to have the
//! same rows ([`copies`]). Servers look for themselves, each for its own rows and all at once: what leaves them are numbers, hashes,
//! and some of the rows that are wrong. A row that is moved or written meanwhile is no false alarm: a shard never has a row that is
//! another's, and copies that differ are looked at again until what differs has had time to be the same.

mod copies;
mod placed;
mod progress;
mod report;
mod sql;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use switchyard_catalog::Snapshot;
use switchyard_router::backend::TextRow;
use switchyard_router::config::Settings;
use switchyard_router::relations::Relations;
use switchyard_router::topology::builder::DatabaseState;
use switchyard_schema::{Distribution, Table};

use crate::servers::{self, Server, ServerError};

pub(crate) use progress::{Manner, Progress};
pub(crate) use report::Report;
use report::{DatabaseReport, TableReport};

/// The longest one question may take: a scan of a table.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// Why rows could not be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A server cannot be asked.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// What has been looked at cannot be noted.
    #[error("noting what has been looked at: {0}")]
    Notes(#[from] std::io::Error),
    /// File and servers disagree about a table.
    #[error("database \"{database}\", table {table}: {message}")]
    Table {
        /// The database.
        database: String,
        /// The table.
        table: String,
        /// How.
        message: String,
    },
}

/// Asks all servers the same, at once: their answers, in the shards' order.
async fn ask_all(servers: &mut [Server], sql: &str) -> Result<Vec<Vec<TextRow>>, Error> {
    Ok(try_join_all(servers.iter_mut().map(|server| server.ask(sql))).await?)
}

/// Looks at every table of every database of the file; where there is a catalog, as that says where rows are.
///
/// # Errors
/// [`Error`]: a server cannot be asked, or has not the table that it should.
pub(crate) async fn verify(
    settings: &Settings,
    actual: Option<&Snapshot>,
    manner: &Manner,
) -> Result<Report, Error> {
    let progress = Progress::load(manner)?;
    let mut report = Report::default();
    for database in &settings.file.databases {
        let known = actual.and_then(|actual| actual.databases.get(&database.name));
        let mut state = DatabaseState::configured(Arc::new(database.clone()));
        if let Some(known) = known {
            state = DatabaseState::configured(Arc::clone(&known.database));
            state.buckets = Arc::clone(&known.buckets);
            state.epoch = known.epoch;
        }
        let epoch = known.map(|known| known.epoch);
        let tables = verify_database(settings, &state, &progress).await?;
        report.databases.push(DatabaseReport {
            name: database.name.clone(),
            epoch,
            tables,
        });
    }
    progress.finish()?;
    Ok(report)
}

async fn verify_database(
    settings: &Settings,
    state: &DatabaseState,
    progress: &Progress,
) -> Result<Vec<TableReport>, Error> {
    let mut servers = servers::connect(settings, state, None, PATIENCE).await?;
    let Some(first) = servers.first_mut() else {
        return Ok(Vec::new());
    };
    let found = first.introspect().await?;
    let relations = Relations::build(&state.schema, &found, Some(&state.buckets));
    ask_all(&mut servers, servers::SETTINGS).await?;
    let mut reports = Vec::new();
    for table in &state.schema.tables {
        tracing::info!(database = %state.schema.name, table = %table.name, "looking at a table's rows");
        reports.push(verify_table(&mut servers, (state, progress), &relations, table).await?);
    }
    Ok(reports)
}

async fn verify_table(
    servers: &mut [Server],
    (state, progress): (&DatabaseState, &Progress),
    relations: &Relations,
    table: &Table,
) -> Result<TableReport, Error> {
    let wrong = |message: String| Error::Table {
        database: state.schema.name.clone(),
        table: table.name.to_string(),
        message,
    };
    let mut problems = relations.problems().iter();
    if let Some(problem) = problems.find(|problem| problem.table == table.name) {
        return Err(wrong(problem.message.clone()));
    }
    let relation = relations.get(&table.name.schema, &table.name.name);
    let relation = relation.ok_or_else(|| wrong("it is not on the first shard".to_owned()))?;
    let (rows, findings) = match &table.distribution {
        Distribution::Reference => copies::compare(servers, table).await?,
        Distribution::Sharded(key) => {
            let sharding = relation.sharding();
            let sharding = sharding.ok_or_else(|| wrong("it has no shard key".to_owned()))?;
            let rule = placed::Rule::of(key, sharding.map.key_type(), &state.buckets);
            let rule = rule.map_err(|error| wrong(error.to_string()))?;
            placed::look(servers, table, &rule, progress).await?
        }
    };
    Ok(TableReport {
        name: table.name.to_string(),
        rows,
        findings,
    })
}

/// The texts in the only column of rows.
fn texts(rows: Vec<TextRow>) -> Vec<String> {
    let null = || "NULL".to_owned();
    rows.into_iter()
        .filter_map(|row| row.into_iter().next())
        .map(|value| value.unwrap_or_else(null))
        .collect()
}
