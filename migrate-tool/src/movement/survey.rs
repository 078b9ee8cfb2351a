//! What a movement would take, and what speaks against it, found before anything is touched: each precondition of `apply` is looked at by the code
//! that `apply` runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use postgres_protocol::escape::escape_literal;
use serde::Serialize;
use switchyard_catalog::{Catalog, CatalogDatabase, Layout};
use switchyard_router::config::Settings;
use switchyard_schema::{Database, Distribution, Method, Shard, ShardIndex, shard_sql};

use super::family::Family;
use super::tables::Moving;
use super::{Error, connect, layout, newcomer, strangers};
use crate::names::quoted;
use crate::servers::{Server, ServerError};

/// Rows that move in a second, of tables with three indexes: 600,000 rows of 100 bytes between three servers of one machine of two cores moved at 33,000 to
/// 45,000, without load.
const RATE: f64 = 30_000.0;
/// Bytes that a target's log gets for each that comes, and a source's for each that goes; those of indexes are counted on both sides. Measured at the same time: 1.9 and 0.6.
const WAL_IN: f64 = 2.0;
const WAL_OUT: f64 = 0.7;
/// Large objects are in no table of the client's.
const LARGE_OBJECTS: &str = "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata";
/// Pages that are looked at of each table, where it has more.
const PAGES: u64 = 2_000;

/// What a movement would take.
#[derive(Debug, Default, Serialize, PartialEq, Eq)]
pub(crate) struct Survey {
    /// What goes from where to where.
    pub(crate) amounts: Vec<Amount>,
    /// What each shard needs for it.
    pub(crate) needs: Vec<Need>,
    /// Rows that move in all, about.
    pub(crate) rows: u64,
    /// Their bytes, with what indexes have of them.
    pub(crate) bytes: u64,
    /// How long that takes, about.
    pub(crate) seconds: u64,
    /// Why it cannot be, one sentence each.
    pub(crate) against: Vec<String>,
    /// What does not move, though rows that do may refer to it.
    pub(crate) stays: Vec<String>,
}

/// Rows that go from one shard to another, about.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct Amount {
    /// The table.
    pub(crate) table: String,
    /// The shard that has them.
    pub(crate) from: String,
    /// The shard that is to have them.
    pub(crate) to: String,
    /// How many.
    pub(crate) rows: u64,
    /// Their bytes, with what indexes have of them.
    pub(crate) bytes: u64,
}

/// What a shard's primary needs, about.
#[derive(Debug, Default, Serialize, PartialEq, Eq)]
pub(crate) struct Need {
    /// The shard.
    pub(crate) shard: String,
    /// Room for what comes.
    pub(crate) disk_bytes: u64,
    /// Log for what comes and goes.
    pub(crate) wal_bytes: u64,
}

/// Looks at the servers of a database that the catalog knows.
///
/// # Errors
/// [`Error`]: the catalog fails, or a server that could be reached.
pub(crate) async fn survey(
    settings: &Settings,
    desired: &Database,
    known: &CatalogDatabase,
) -> Result<Survey, Error> {
    let mut survey = Survey::default();
    let credentials = settings.catalog_credentials().ok_or(Error::NoCatalog)?;
    let catalog = Catalog::open(&credentials).await?;
    let shards = known.database.shards.len();
    let movement = catalog.movement(&known.database.name, shards).await?;
    catalog.close().await;
    let movement = movement.filter(|movement| movement.former != movement.target);
    let with = with_newcomers(known, desired);
    let target = match &movement {
        Some(movement) => {
            let wanted = layout::target(&movement.former, &known.database, desired);
            if movement.target != wanted || with.database.shards.len() > shards {
                survey.against(&Error::Elsewhere(desired.name.clone()));
            }
            movement.target.clone()
        }
        None => layout::target(&known.layout(), &with.database, desired),
    };
    survey.look(settings, (known, &with), &target).await?;
    survey.add_up(&with.database);
    if let Err(error) = newcomer::may_leave(&with.database, &target, desired) {
        survey.against.push(format!("`finish` would fail: {error}"));
    }
    Ok(survey)
}

/// How many rows are left to move, about.
pub(super) async fn rows_left(
    known: &CatalogDatabase,
    target: &Layout,
    families: &[Family],
    servers: &mut [Server],
) -> Result<u64, Error> {
    let mut survey = Survey::default();
    let aimed = known.aimed(target);
    survey
        .measure_all(families, servers, (&aimed, &known.database))
        .await?;
    Ok(survey.amounts.iter().map(|amount| amount.rows).sum())
}

/// The database with the shards that only the file has.
fn with_newcomers(known: &CatalogDatabase, desired: &Database) -> CatalogDatabase {
    let mut with = known.clone();
    let mut database = Database::clone(&with.database);
    for shard in &desired.shards {
        if database.shard_index(&shard.name).is_none() {
            let weight = 0;
            database.shards.push(Shard {
                weight,
                ..shard.clone()
            });
        }
    }
    with.database = Arc::new(database);
    with
}

impl Survey {
    fn against(&mut self, error: &Error) {
        self.against.push(error.to_string());
    }

    async fn look(
        &mut self,
        settings: &Settings,
        (known, with): (&CatalogDatabase, &CatalogDatabase),
        target: &Layout,
    ) -> Result<(), Error> {
        let mut servers = Vec::new();
        for position in 0..with.database.shards.len() {
            match connect(settings, with, Some(&[position])).await {
                Ok(found) => servers.extend(found),
                Err(error @ Error::Server(ServerError::Failed { .. })) => self.against(&error),
                Err(error) => return Err(error),
            }
        }
        for server in &mut servers {
            let looks = [
                newcomer::can_take_part(std::slice::from_mut(server)).await,
                strangers::may_remember(server).await,
                strangers::is_heard(server, known.epoch).await,
            ];
            for looked in looks {
                match looked {
                    Err(error @ (Error::Shard { .. } | Error::Older { .. })) => {
                        self.against(&error)
                    }
                    looked => looked?,
                }
            }
        }
        let shards = known.database.shards.len();
        let is_new = |server: &Server| server.shard.position() >= shards;
        let mut newcomers: Vec<Server> = servers.extract_if(.., |server| is_new(server)).collect();
        if servers.len() < shards {
            return Ok(());
        }
        if let Some(first) = servers.first_mut() {
            if !newcomers.is_empty() {
                self.against.extend(newcomer::missing_program().await);
            }
            for new in &mut newcomers {
                match newcomer::may_come(first, new).await {
                    Err(error @ Error::Shard { .. }) => self.against(&error),
                    looked => drop(looked?),
                }
                self.need_references(first, new, &known.database).await?;
            }
        }
        for server in &mut servers {
            self.find_large_objects(server).await?;
        }
        let (families, against) = Family::all(known, target, &mut servers).await?;
        against.iter().for_each(|error| self.against(error));
        let aimed = known.aimed(target);
        self.measure_all(&families, &mut servers, (&aimed, &with.database))
            .await
    }

    async fn measure_all(
        &mut self,
        families: &[Family],
        servers: &mut [Server],
        (target, database): (&Layout, &Database),
    ) -> Result<(), Error> {
        for table in families.iter().flat_map(|family| &family.tables) {
            for server in servers.iter_mut() {
                self.measure(table, server, target, database).await?;
            }
        }
        Ok(())
    }

    async fn find_large_objects(&mut self, server: &mut Server) -> Result<(), Error> {
        let row = server.ask(LARGE_OBJECTS).await?.pop().unwrap_or_default();
        let count: u64 = server.number(&row, 0)?;
        if count > 0 {
            let shard = &server.name;
            self.stays.push(format!(
                "shard \"{shard}\" has {count} large objects, which stay there: clients find those of the first shard, wherever rows are that refer to them"
            ));
        }
        Ok(())
    }

    /// What a new shard needs for the reference tables.
    async fn need_references(
        &mut self,
        first: &mut Server,
        new: &Server,
        database: &Database,
    ) -> Result<(), Error> {
        let mut bytes = 0.0;
        let tables = database.tables.iter();
        for table in tables.filter(|table| table.distribution == Distribution::Reference) {
            bytes += size(first, &quoted(&table.name)).await?.1;
        }
        self.needs.push(Need {
            shard: new.name.clone(),
            disk_bytes: bytes as u64,
            wal_bytes: (bytes * WAL_IN) as u64,
        });
        Ok(())
    }

    /// How much of a table a shard has that is to be elsewhere, by what some of its pages have.
    async fn measure(
        &mut self,
        table: &Moving,
        server: &mut Server,
        target: &Layout,
        database: &Database,
    ) -> Result<(), Error> {
        let method = target.methods.get(&table.name).unwrap_or(&Method::Hash);
        let owner = shard_sql(method, table.key_type, &table.key, &target.buckets);
        let owner = owner.map_err(|error| table.refused(&error.to_string()))?;
        let mut moving: BTreeMap<u16, (f64, f64)> = BTreeMap::new();
        for stored in &table.stored {
            let (pages, bytes) = size(server, stored).await?;
            let part = (PAGES as f64 / pages.max(1.0)).min(1.0);
            let percent = part * 100.0;
            let ask = format!(
                "SELECT {owner}, count(*) FROM {stored} TABLESAMPLE SYSTEM ({percent}) GROUP BY 1"
            );
            let found = server.ask(&ask).await?;
            let counts: Result<Vec<(u16, f64)>, ServerError> = found
                .iter()
                .map(|row| Ok((server.number(row, 0)?, server.number(row, 1)?)))
                .collect();
            let counts = counts?;
            let all: f64 = counts.iter().map(|(_, count)| count).sum();
            for (owner, count) in counts {
                let there = moving.entry(owner).or_default();
                there.0 += count / part;
                there.1 += bytes * count / all;
            }
        }
        moving.remove(&server.shard.0);
        for (to, (rows, bytes)) in moving {
            let to = database.shard(ShardIndex(to));
            self.amounts.push(Amount {
                table: table.name.to_string(),
                from: server.name.clone(),
                to: to.map_or_else(String::new, |shard| shard.name.clone()),
                rows: rows.round() as u64,
                bytes: bytes.round() as u64,
            });
        }
        Ok(())
    }

    fn add_up(&mut self, database: &Database) {
        for amount in &self.amounts {
            self.rows += amount.rows;
            self.bytes += amount.bytes;
        }
        self.seconds = (self.rows as f64 / RATE).ceil() as u64;
        for shard in &database.shards {
            let of = |named: fn(&Amount) -> &String| -> f64 {
                let amounts = self
                    .amounts
                    .iter()
                    .filter(|amount| *named(amount) == shard.name);
                amounts.map(|amount| amount.bytes as f64).sum()
            };
            let (goes, comes) = (of(|amount| &amount.from), of(|amount| &amount.to));
            let log = goes * WAL_OUT + comes * WAL_IN;
            match self.needs.iter_mut().find(|need| need.shard == shard.name) {
                Some(need) => {
                    need.disk_bytes += comes as u64;
                    need.wal_bytes += log as u64;
                }
                None if log > 0.0 => self.needs.push(Need {
                    shard: shard.name.clone(),
                    disk_bytes: comes as u64,
                    wal_bytes: log as u64,
                }),
                None => {}
            }
        }
        self.needs.sort_by(|one, other| one.shard.cmp(&other.shard));
    }
}

/// The pages of a table, and its bytes with its indexes.
async fn size(server: &mut Server, table: &str) -> Result<(f64, f64), Error> {
    let ask = format!(
        "SELECT pg_relation_size(t.t) / current_setting('block_size')::int8, pg_total_relation_size(t.t) FROM (SELECT {}::regclass) AS t (t)",
        escape_literal(table)
    );
    let row = server.ask(&ask).await?.pop().unwrap_or_default();
    Ok((server.number(&row, 0)?, server.number(&row, 1)?))
}
