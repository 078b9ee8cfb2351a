//! Reading the catalog.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use switchyard_schema::{
    BUCKETS, BucketMap, Database, Distribution, Node, NodeTls, Role, Shard, ShardIndex, ShardKey,
    SslMode, Table, TableName,
};

use crate::access::begin_read;
use crate::movement::{Progress, progress, read_all};
use crate::{Catalog, Error, placement};

/// What the catalog holds, as of one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Grows with every change.
    pub revision: i64,
    /// The databases by name.
    pub databases: BTreeMap<String, CatalogDatabase>,
}

/// One database of the catalog.
#[derive(Clone, Debug)]
pub struct CatalogDatabase {
    /// Shards, nodes and tables.
    pub database: Arc<Database>,
    /// Which shard owns which bucket.
    pub buckets: Arc<BucketMap>,
    /// The version of the bucket map.
    pub epoch: u64,
    /// Rows may be on their way from shard to shard.
    pub is_moving: bool,
    /// The movement that has begun.
    pub movement: Option<Progress>,
}

impl Catalog {
    /// Reads everything, as of one moment.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn read(&self) -> Result<Snapshot, Error> {
        let mut connection = self.acquire().await?;
        let mut transaction = begin_read(&mut connection).await?;
        let snapshot = read(&mut transaction).await?;
        transaction.rollback().await?;
        Ok(snapshot)
    }

    /// The number that grows with every change.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn revision(&self) -> Result<i64, Error> {
        revision(&mut *self.acquire().await?).await
    }
}

pub(crate) async fn revision(connection: &mut PgConnection) -> Result<i64, Error> {
    let row = sqlx::query("SELECT number FROM switchyard.revision")
        .fetch_one(connection)
        .await?;
    Ok(row.try_get(0)?)
}

pub(crate) async fn read(connection: &mut PgConnection) -> Result<Snapshot, Error> {
    let revision = revision(connection).await?;
    let mut databases = BTreeMap::new();
    for row in all(connection, "SELECT name FROM switchyard.databases").await? {
        let name: String = row.try_get(0)?;
        let database = Database {
            name: name.clone(),
            shards: Vec::new(),
            tables: Vec::new(),
        };
        databases.insert(name, database);
    }
    read_shards(connection, &mut databases).await?;
    read_nodes(connection, &mut databases).await?;
    read_tables(connection, &mut databases).await?;
    let maps = read_maps(connection, &databases).await?;
    let movements = read_all(connection).await?;
    let databases = databases
        .into_iter()
        .map(|(name, database)| {
            check(&database)?;
            let (epoch, buckets) = maps
                .get(&name)
                .cloned()
                .ok_or_else(|| Error::Damaged(format!("database \"{name}\" has no bucket map")))?;
            let mut database = CatalogDatabase {
                is_moving: false,
                movement: None,
                database: Arc::new(database),
                buckets,
                epoch,
            };
            if let Some(row) = movements.get(&name) {
                (database.is_moving, database.movement) = progress(row, &database)?;
            }
            Ok((name, database))
        })
        .collect::<Result<_, Error>>()?;
    Ok(Snapshot {
        revision,
        databases,
    })
}

async fn all(connection: &mut PgConnection, sql: &'static str) -> Result<Vec<PgRow>, Error> {
    Ok(sqlx::query(sql).fetch_all(connection).await?)
}

fn of<'a>(
    databases: &'a mut BTreeMap<String, Database>,
    name: &str,
) -> Result<&'a mut Database, Error> {
    let unknown = || Error::Damaged(format!("database \"{name}\" is not there"));
    databases.get_mut(name).ok_or_else(unknown)
}

async fn read_shards(
    connection: &mut PgConnection,
    databases: &mut BTreeMap<String, Database>,
) -> Result<(), Error> {
    let sql = "SELECT database, position, name, weight FROM switchyard.shards ORDER BY database, position";
    for row in all(connection, sql).await? {
        let database = of(databases, row.try_get(0)?)?;
        let position: i32 = row.try_get(1)?;
        if usize::try_from(position) != Ok(database.shards.len()) {
            let name = &database.name;
            return Err(Error::Damaged(format!(
                "shards of database \"{name}\" are not numbered from 0"
            )));
        }
        let weight: i64 = row.try_get(3)?;
        database.shards.push(Shard {
            name: row.try_get(2)?,
            weight: u32::try_from(weight)
                .map_err(|_| Error::Damaged(format!("weight {weight}")))?,
            nodes: Vec::new(),
        });
    }
    Ok(())
}

async fn read_nodes(
    connection: &mut PgConnection,
    databases: &mut BTreeMap<String, Database>,
) -> Result<(), Error> {
    let sql = "SELECT database, shard, host, port, role, zone, ssl_mode, ssl_root_cert
                 FROM switchyard.nodes ORDER BY database, shard, position";
    for row in all(connection, sql).await? {
        let database = of(databases, row.try_get(0)?)?;
        let shard: i32 = row.try_get(1)?;
        let shard = usize::try_from(shard).ok();
        let shard = shard.and_then(|shard| database.shards.get_mut(shard));
        let shard = shard.ok_or_else(|| Error::Damaged("a node of no shard".into()))?;
        let port: i32 = row.try_get(3)?;
        let role: &str = row.try_get(4)?;
        let mode: &str = row.try_get(6)?;
        let root_cert: Option<&str> = row.try_get(7)?;
        shard.nodes.push(Node {
            host: row.try_get(2)?,
            port: u16::try_from(port).map_err(|_| Error::Damaged(format!("port {port}")))?,
            role: match role {
                "primary" => Role::Primary,
                "replica" => Role::Replica,
                other => return Err(Error::Damaged(format!("role \"{other}\""))),
            },
            zone: row.try_get(5)?,
            tls: NodeTls {
                mode: ssl_mode(mode)?,
                root_cert: root_cert.map(PathBuf::from),
            },
            dbname: None,
        });
    }
    Ok(())
}

fn ssl_mode(mode: &str) -> Result<SslMode, Error> {
    Ok(match mode {
        "disable" => SslMode::Disable,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        other => return Err(Error::Damaged(format!("ssl mode \"{other}\""))),
    })
}

async fn read_tables(
    connection: &mut PgConnection,
    databases: &mut BTreeMap<String, Database>,
) -> Result<(), Error> {
    let sql = "SELECT database, schema, name, method, shard_key, colocate_schema, colocate_name, placement::text
                 FROM switchyard.tables ORDER BY database, schema, name";
    for row in all(connection, sql).await? {
        let database = of(databases, row.try_get(0)?)?;
        let method: &str = row.try_get(3)?;
        let column: Option<String> = row.try_get(4)?;
        let colocate: (Option<String>, Option<String>) = (row.try_get(5)?, row.try_get(6)?);
        let placement: Option<&str> = row.try_get(7)?;
        let distribution = match column {
            None => Distribution::Reference,
            Some(column) => Distribution::Sharded(ShardKey {
                column,
                method: placement::from_json(method, placement)?,
                colocate_with: colocate
                    .0
                    .zip(colocate.1)
                    .map(|(schema, name)| TableName { schema, name }),
            }),
        };
        database.tables.push(Table {
            name: TableName {
                schema: row.try_get(1)?,
                name: row.try_get(2)?,
            },
            distribution,
        });
    }
    Ok(())
}

type Maps = BTreeMap<String, (u64, Arc<BucketMap>)>;

async fn read_maps(
    connection: &mut PgConnection,
    databases: &BTreeMap<String, Database>,
) -> Result<Maps, Error> {
    let mut maps = Maps::new();
    let sql = "SELECT database, epoch, owners FROM switchyard.bucket_maps";
    for row in all(connection, sql).await? {
        let name: String = row.try_get(0)?;
        let epoch: i64 = row.try_get(1)?;
        let owners: &[u8] = row.try_get(2)?;
        let shards = databases
            .get(&name)
            .map_or(0, |database| database.shards.len());
        let buckets = decode(owners, shards)?;
        let epoch = u64::try_from(epoch).map_err(|_| Error::Damaged(format!("epoch {epoch}")))?;
        maps.insert(name, (epoch, Arc::new(buckets)));
    }
    Ok(maps)
}

/// The bucket map from its stored form.
pub(crate) fn decode(owners: &[u8], shards: usize) -> Result<BucketMap, Error> {
    let (pairs, []) = owners.as_chunks::<2>() else {
        return Err(Error::Damaged("a bucket map of an odd length".into()));
    };
    let owners = pairs
        .iter()
        .map(|pair| ShardIndex(u16::from_be_bytes(*pair)))
        .collect();
    BucketMap::from_owners(owners, shards).map_err(|error| Error::Damaged(error.to_string()))
}

/// The bucket map's stored form.
pub(crate) fn encode(buckets: &BucketMap) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 * BUCKETS);
    for owner in buckets.owners() {
        bytes.extend_from_slice(&owner.0.to_be_bytes());
    }
    bytes
}

/// What must hold for a router to work with it, and the tables' constraints do not say.
fn check(database: &Database) -> Result<(), Error> {
    let damaged = |what: String| {
        Err(Error::Damaged(format!(
            "database \"{}\": {what}",
            database.name
        )))
    };
    if database.shards.is_empty() {
        return damaged("it has no shards".into());
    }
    for shard in &database.shards {
        if shard.primary().is_none() {
            return damaged(format!("shard \"{}\" has no primary", shard.name));
        }
    }
    let beyond = |shard: &ShardIndex| shard.position() >= database.shards.len();
    for table in &database.tables {
        let Some(key) = table.distribution.shard_key() else {
            continue;
        };
        let wrong = match &key.method {
            switchyard_schema::Method::Hash => false,
            switchyard_schema::Method::Modulo(shards) => {
                shards.is_empty() || shards.iter().any(beyond)
            }
            switchyard_schema::Method::Range(ranges) => {
                let open = |range: &switchyard_schema::RangeEntry| range.below.is_none();
                !ranges.last().is_some_and(open)
                    || ranges.iter().filter(|range| open(range)).count() != 1
                    || ranges.iter().any(|range| beyond(&range.shard))
            }
            switchyard_schema::Method::List(lists) => {
                lists.iter().filter(|list| list.default).count() != 1
                    || lists.iter().any(|list| beyond(&list.shard))
            }
        };
        if wrong {
            return damaged(format!("table {} has no valid placement", table.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_survive() {
        let buckets = BucketMap::place(&[("a", 1), ("b", 2), ("c", 1)]);
        let bytes = encode(&buckets);
        assert_eq!(bytes.len(), 32768);
        assert_eq!(decode(&bytes, 3).unwrap(), buckets);
        assert!(decode(&bytes, 2).is_err());
        assert!(decode(&bytes[1..], 3).is_err());
    }
}
