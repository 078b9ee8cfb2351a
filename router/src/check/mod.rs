//! `switchyard check`: is the configuration true of the servers it names?
//!
//! Looks and changes nothing. Every problem is reported at once; see `docs/operation.md` for the list.
//! Collaborators: [`crate::topology`]'s links and loader, [`crate::relations`], the catalog.

mod drift;
mod report;
mod servers;
mod tables;

use std::sync::Arc;

use switchyard_catalog::{Catalog, Credentials, Snapshot};
use switchyard_schema::{BucketMap, Database, Distribution};

use crate::config::Settings;
use crate::topology::builder::{Builder, DatabaseState};
pub use report::Report;
use report::{CatalogReport, DatabaseReport, ShardReport, TableReport};
use servers::Visited;

/// Checks everything the settings name.
pub async fn check(settings: &Settings) -> Report {
    let mut report = Report::default();
    let actual = catalog(settings, &mut report).await;
    for database in &settings.file.databases {
        check_database(settings, database, actual.as_ref(), &mut report).await;
    }
    if let Some(actual) = &actual {
        for name in actual.databases.keys() {
            if settings.file.database(name).is_none() {
                report.problems.push(format!(
                    "database \"{name}\" is in the catalog and not in the file"
                ));
            }
        }
    }
    report
}

async fn catalog(settings: &Settings, report: &mut Report) -> Option<Snapshot> {
    let configured = settings.file.catalog.as_ref()?;
    let credentials = settings.catalog_credentials()?;
    let address = format!(
        "{}:{}/{}",
        configured.host, configured.port, configured.database
    );
    let (state, snapshot) = match read_catalog(&credentials).await {
        Ok(Some(snapshot)) => ("up", Some(snapshot)),
        Ok(None) => ("empty: the first router fills it from the file", None),
        Err(error) => {
            report.problems.push(error.to_string());
            ("down", None)
        }
    };
    report.catalog = Some(CatalogReport {
        address,
        state,
        revision: snapshot.as_ref().map(|snapshot| snapshot.revision),
    });
    snapshot
}

async fn read_catalog(
    credentials: &Credentials,
) -> Result<Option<Snapshot>, switchyard_catalog::Error> {
    let catalog = Catalog::open(credentials).await?;
    let snapshot = if catalog.is_migrated().await? {
        Some(catalog.read().await?).filter(|snapshot| !snapshot.databases.is_empty())
    } else {
        None
    };
    catalog.close().await;
    Ok(snapshot)
}

async fn check_database(
    settings: &Settings,
    database: &Database,
    actual: Option<&Snapshot>,
    report: &mut Report,
) {
    let name = &database.name;
    let known = actual.and_then(|actual| actual.databases.get(name));
    let mut state = DatabaseState::configured(Arc::new(database.clone()));
    let mut differences = Vec::new();
    match (actual, known) {
        (_, Some(known)) => {
            differences = switchyard_catalog::differences(database, &known.database);
            let one_to_one = known.database.shards.len() == database.shards.len();
            if one_to_one {
                state.buckets = Arc::clone(&known.buckets);
            }
            state.epoch = known.epoch;
        }
        (Some(_), None) => differences.push("the database is not in the catalog".to_owned()),
        (None, None) => {}
    }
    for difference in &differences {
        report.problems.push(format!(
            "database \"{name}\": file and catalog differ: {difference}"
        ));
    }
    let topology = Builder::default().build([&state]);
    let Some(shards) = topology.database(name).map(|database| &database.shards) else {
        return;
    };
    let visited = servers::visit(settings, name, shards, report).await;
    tables::check(&state, shards, &visited, report);
    let defined: Vec<(&str, &[drift::Object])> = visited
        .iter()
        .filter_map(|visited| {
            let shard = shards.get(visited.shard)?;
            Some((&*shard.name, visited.defined.as_deref()?))
        })
        .collect();
    for difference in drift::differences(&defined) {
        report
            .problems
            .push(format!("database \"{name}\": {difference}"));
    }
    let buckets = state.buckets.counts(database.shards.len());
    report.databases.push(DatabaseReport {
        name: name.clone(),
        epoch: known.map(|known| known.epoch),
        shards: shard_reports(database, &buckets, visited.as_slice()),
        tables: table_reports(&state, &visited),
        differences,
    });
}

fn shard_reports(database: &Database, buckets: &[usize], visited: &[Visited]) -> Vec<ShardReport> {
    let shards = database.shards.iter().zip(buckets).enumerate();
    shards
        .map(|(position, (shard, buckets))| ShardReport {
            name: shard.name.clone(),
            weight: shard.weight,
            buckets: *buckets,
            nodes: visited
                .iter()
                .filter(|visited| visited.shard == position)
                .map(Visited::report)
                .collect(),
        })
        .collect()
}

fn table_reports(state: &DatabaseState, visited: &[Visited]) -> Vec<TableReport> {
    let found = visited
        .iter()
        .find_map(|visited| visited.catalogue.as_ref());
    let buckets: Option<&Arc<BucketMap>> = Some(&state.buckets);
    let relations =
        found.map(|found| crate::relations::Relations::build(&state.schema, found, buckets));
    let tables = state.schema.tables.iter();
    tables
        .map(|table| {
            let key = table.distribution.shard_key();
            let relation = relations
                .as_ref()
                .and_then(|relations| relations.get(&table.name.schema, &table.name.name));
            let sharding = relation.and_then(|relation| relation.sharding());
            TableReport {
                name: table.name.to_string(),
                method: match &table.distribution {
                    Distribution::Reference => "reference",
                    Distribution::Sharded(key) => key.method.name(),
                },
                shard_key: key.map(|key| key.column.clone()),
                key_type: sharding.map(|sharding| sharding.map.key_type().name()),
            }
        })
        .collect()
}
