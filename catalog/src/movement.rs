//! Movements of buckets between shards (ADR 0024): what the program that moves them writes. One program at a time has the [`Lease`] of a
//! database, and writes on the connection that holds it: who has lost it cannot write any more.

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Postgres, Row};
use switchyard_schema::{BucketMap, Database, Shard};

use crate::distribute::{decide, is_as_known};
use crate::read::{decode, encode};
use crate::write::insert_shard;
use crate::{Catalog, CatalogDatabase, Error, Recorded};

/// A movement that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// Where buckets were before.
    pub former: BucketMap,
    /// Where they are to be.
    pub target: BucketMap,
    /// No further group is to move for now.
    pub paused: bool,
}

/// The right to move buckets of a database, for as long as the connection lasts.
#[derive(Debug)]
pub struct Lease {
    connection: PoolConnection<Postgres>,
    database: String,
}

/// What a transaction that is prepared on the shards makes true.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// Buckets are where this map says.
    Buckets(&'a BucketMap),
    /// There is one shard more, with no bucket.
    Shard(&'a Shard),
}

impl Catalog {
    /// The right to move buckets of a database; `None` while another program has it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn lease(&self, database: &str) -> Result<Option<Lease>, Error> {
        let mut connection = self.acquire().await?;
        let row = sqlx::query(
            "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended('switchyard.movement.' || $1, 0))",
        )
        .bind(database)
        .fetch_one(&mut *connection)
        .await?;
        let taken: bool = row.try_get(0)?;
        Ok(taken.then(|| Lease {
            connection,
            database: database.to_owned(),
        }))
    }

    /// The movement of a database that has `shards` shards.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn movement(&self, database: &str, shards: usize) -> Result<Option<Movement>, Error> {
        movement(&mut *self.acquire().await?, database, shards).await
    }

    /// Has the program that moves buckets of a database stop after the present group, or go on when it is started. False: there is no movement.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn pause(&self, database: &str, paused: bool) -> Result<bool, Error> {
        let done = sqlx::query("UPDATE switchyard.movements SET paused = $2 WHERE database = $1")
            .bind(database)
            .bind(paused)
            .execute(&mut *self.acquire().await?)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}

impl Lease {
    /// The movement as it is now.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn movement(&mut self, shards: usize) -> Result<Option<Movement>, Error> {
        movement(&mut self.connection, &self.database, shards).await
    }

    /// Writes down what is to be done, in place of what was, and that rows may be on their way.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn record(&mut self, former: &BucketMap, target: &BucketMap) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO switchyard.movements (database, former, target, active) VALUES ($1, $2, $3, true)
             ON CONFLICT (database) DO UPDATE SET former = excluded.former, target = excluded.target, active = true",
        )
        .bind(&self.database)
        .bind(encode(former))
        .bind(encode(target))
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// How many routers may still have something on its way that was planned before what the catalog says now. Routers of which nothing has been heard
    /// for three seconds are gone.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn behind(&mut self) -> Result<i64, Error> {
        let row = sqlx::query(
            "SELECT pg_catalog.count(*) FROM switchyard.routers AS router, switchyard.revision
              WHERE router.revision < revision.number
                AND router.renewed_at > pg_catalog.clock_timestamp() - '3 seconds'::pg_catalog.interval",
        )
        .fetch_one(&mut *self.connection)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// Writes down that no rows are on their way any more.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn rest(&mut self) -> Result<(), Error> {
        sqlx::query("UPDATE switchyard.movements SET active = false WHERE database = $1")
            .bind(&self.database)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    /// Forgets the movement.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn forget(&mut self) -> Result<(), Error> {
        sqlx::query("DELETE FROM switchyard.movements WHERE database = $1")
            .bind(&self.database)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    /// Records a step, and with it that `transaction`, which is prepared on the shards and makes it so, is committed. Only if the catalog has
    /// the database as it is `known`. The epoch grows by one.
    ///
    /// # Errors
    /// [`Error`]. After a lost connection the outcome is unknown: ask for the [`Catalog::decision`].
    pub async fn take(
        &mut self,
        known: &CatalogDatabase,
        step: Step<'_>,
        transaction: &str,
    ) -> Result<Recorded, Error> {
        let mut work = self.connection.begin().await?;
        if !is_as_known(&mut work, known).await? {
            return Ok(Recorded::Outdated);
        }
        if !decide(&mut work, transaction).await? {
            return Ok(Recorded::GivenUp);
        }
        let buckets = match step {
            Step::Buckets(buckets) => buckets,
            Step::Shard(shard) => {
                let position = known.database.shards.len();
                insert_shard(&mut work, &self.database, position, shard).await?;
                &known.buckets
            }
        };
        write_map(&mut work, &self.database, buckets).await?;
        work.commit().await?;
        Ok(Recorded::Done)
    }

    /// Makes shards and weights those of `database`, which has the same shards as the catalog but for some at the end that own nothing any more,
    /// and forgets the movement. False: the catalog is not as it is `known`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn finish(
        &mut self,
        known: &CatalogDatabase,
        database: &Database,
    ) -> Result<bool, Error> {
        let mut work = self.connection.begin().await?;
        if !is_as_known(&mut work, known).await? {
            return Ok(false);
        }
        for shard in &known.database.shards {
            let kept = database.shards.iter().find(|kept| kept.name == shard.name);
            let query = match kept {
                Some(_) => {
                    "UPDATE switchyard.shards SET weight = $3 WHERE database = $1 AND name = $2"
                }
                None => {
                    "DELETE FROM switchyard.shards WHERE database = $1 AND name = $2 AND $3 >= 0"
                }
            };
            sqlx::query(query)
                .bind(&self.database)
                .bind(&shard.name)
                .bind(kept.map_or(0, |kept| i64::from(kept.weight)))
                .execute(&mut *work)
                .await?;
        }
        write_map(&mut work, &self.database, &known.buckets).await?;
        sqlx::query("DELETE FROM switchyard.movements WHERE database = $1")
            .bind(&self.database)
            .execute(&mut *work)
            .await?;
        work.commit().await?;
        Ok(true)
    }
}

async fn write_map(
    work: &mut PgConnection,
    database: &str,
    buckets: &BucketMap,
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE switchyard.bucket_maps SET epoch = epoch + 1, owners = $2 WHERE database = $1",
    )
    .bind(database)
    .bind(encode(buckets))
    .execute(work)
    .await?;
    Ok(())
}

async fn movement(
    connection: &mut PgConnection,
    database: &str,
    shards: usize,
) -> Result<Option<Movement>, Error> {
    let row =
        sqlx::query("SELECT former, target, paused FROM switchyard.movements WHERE database = $1")
            .bind(database)
            .fetch_optional(connection)
            .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Movement {
        former: decode(row.try_get(0)?, shards)?,
        target: decode(row.try_get(1)?, shards)?,
        paused: row.try_get(2)?,
    }))
}
