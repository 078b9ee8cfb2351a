//! Changing the catalog.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use switchyard_schema::{BucketMap, Database, Distribution, Node, Shard, Table};

use crate::read::encode;
use crate::{Catalog, Error, placement};

impl Catalog {
    /// Fills an empty catalog with the databases of the configuration file, their buckets placed by the ring. Returns
    /// whether it was empty. Any number of programs may do so at once.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn initialise(&self, databases: &[Database]) -> Result<bool, Error> {
        let mut connection = self.acquire().await?;
        let mut transaction = connection.begin().await?;
        sqlx::raw_sql("LOCK TABLE switchyard.databases IN SHARE ROW EXCLUSIVE MODE")
            .execute(&mut *transaction)
            .await?;
        let row = sqlx::query("SELECT NOT EXISTS (SELECT FROM switchyard.databases)")
            .fetch_one(&mut *transaction)
            .await?;
        let empty: bool = row.try_get(0)?;
        if empty {
            for database in databases {
                insert(&mut transaction, database).await?;
            }
        }
        transaction.commit().await?;
        Ok(empty)
    }

    /// Makes the nodes of a database's shards those that they have here. Shards that the catalog does not have are left out. False: it has no such database.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_nodes(&self, database: &Database) -> Result<bool, Error> {
        let mut connection = self.acquire().await?;
        let mut transaction = connection.begin().await?;
        let shards = sqlx::query(
            "SELECT name, position FROM switchyard.shards WHERE database = $1 FOR UPDATE",
        )
        .bind(&database.name)
        .fetch_all(&mut *transaction)
        .await?;
        for row in &shards {
            let (name, position): (String, i32) = (row.try_get(0)?, row.try_get(1)?);
            let Some(shard) = database.shards.iter().find(|shard| shard.name == name) else {
                continue;
            };
            sqlx::query("DELETE FROM switchyard.nodes WHERE database = $1 AND shard = $2")
                .bind(&database.name)
                .bind(position)
                .execute(&mut *transaction)
                .await?;
            insert_nodes(&mut transaction, &database.name, position, shard).await?;
        }
        transaction.commit().await?;
        Ok(!shards.is_empty())
    }

    /// Replaces the bucket map of a database if its epoch is still `expected`: the one commit point of every movement of
    /// buckets. Returns the new epoch, or `None` if the epoch was another.
    ///
    /// # Errors
    /// [`Error`]. After [`Error::Query`] with a lost connection the outcome is unknown: read the epoch.
    pub async fn advance(
        &self,
        database: &str,
        expected: u64,
        buckets: &BucketMap,
    ) -> Result<Option<u64>, Error> {
        let Ok(expected) = i64::try_from(expected) else {
            return Ok(None);
        };
        let row = sqlx::query(
            "UPDATE switchyard.bucket_maps SET epoch = epoch + 1, owners = $3
              WHERE database = $1 AND epoch = $2 RETURNING epoch",
        )
        .bind(database)
        .bind(expected)
        .bind(encode(buckets))
        .fetch_optional(&mut *self.acquire().await?)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let epoch: i64 = row.try_get(0)?;
        Ok(u64::try_from(epoch).ok())
    }
}

async fn insert(connection: &mut PgConnection, database: &Database) -> Result<(), Error> {
    sqlx::query("INSERT INTO switchyard.databases (name) VALUES ($1)")
        .bind(&database.name)
        .execute(&mut *connection)
        .await?;
    for (shard, position) in database.shards.iter().zip(0..) {
        insert_shard(connection, &database.name, position, shard).await?;
    }
    for table in &database.tables {
        insert_table(connection, database, table).await?;
    }
    let buckets = BucketMap::place(&database.weights());
    sqlx::query("INSERT INTO switchyard.bucket_maps (database, epoch, owners) VALUES ($1, 1, $2)")
        .bind(&database.name)
        .bind(encode(&buckets))
        .execute(connection)
        .await?;
    Ok(())
}

pub(crate) async fn insert_shard(
    connection: &mut PgConnection,
    database: &str,
    position: usize,
    shard: &Shard,
) -> Result<(), Error> {
    let position = i32::try_from(position).map_err(|_| Error::Damaged("too many shards".into()))?;
    sqlx::query(
        "INSERT INTO switchyard.shards (database, position, name, weight) VALUES ($1, $2, $3, $4)",
    )
    .bind(database)
    .bind(position)
    .bind(&shard.name)
    .bind(i64::from(shard.weight))
    .execute(&mut *connection)
    .await?;
    insert_nodes(connection, database, position, shard).await
}

async fn insert_nodes(
    connection: &mut PgConnection,
    database: &str,
    position: i32,
    shard: &Shard,
) -> Result<(), Error> {
    for (node, number) in shard.nodes.iter().zip(0i32..) {
        insert_node(connection, database, position, number, node).await?;
    }
    Ok(())
}

async fn insert_node(
    connection: &mut PgConnection,
    database: &str,
    shard: i32,
    position: i32,
    node: &Node,
) -> Result<(), Error> {
    let root_cert = node.tls.root_cert.as_ref();
    sqlx::query(
        "INSERT INTO switchyard.nodes (database, shard, position, host, port, role, zone, ssl_mode, ssl_root_cert)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(database)
    .bind(shard)
    .bind(position)
    .bind(&node.host)
    .bind(i32::from(node.port))
    .bind(node.role.to_string())
    .bind(node.zone.as_deref())
    .bind(node.tls.mode.to_string())
    .bind(root_cert.map(|path| path.to_string_lossy().into_owned()))
    .execute(connection)
    .await?;
    Ok(())
}

pub(crate) async fn insert_table(
    connection: &mut PgConnection,
    database: &Database,
    table: &Table,
) -> Result<(), Error> {
    let key = table.distribution.shard_key();
    let method = match &table.distribution {
        Distribution::Reference => "reference",
        Distribution::Sharded(key) => key.method.name(),
    };
    let placement = match key {
        Some(key) => placement::to_json(&key.method)?,
        None => None,
    };
    let colocate = key.and_then(|key| key.colocate_with.as_ref());
    sqlx::query(
        "INSERT INTO switchyard.tables
             (database, schema, name, method, shard_key, colocate_schema, colocate_name, placement)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb)",
    )
    .bind(&database.name)
    .bind(&table.name.schema)
    .bind(&table.name.name)
    .bind(method)
    .bind(key.map(|key| key.column.as_str()))
    .bind(colocate.map(|table| table.schema.as_str()))
    .bind(colocate.map(|table| table.name.as_str()))
    .bind(placement)
    .execute(connection)
    .await?;
    Ok(())
}
