//! Where one table's rows are, changed together with the rows: the catalog decides how the transaction on the shards ends that
//! moves them.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use switchyard_schema::{Distribution, Table, TableName};

use crate::movement::advance;
use crate::write::insert_table;
use crate::{Catalog, CatalogDatabase, Error, read};

/// What came of recording a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is in force, and its transaction on the shards is committed.
    Done,
    /// The catalog is not what the change was made for. Nothing has been recorded.
    Outdated,
    /// Somebody has given the transaction up. Nothing has been recorded.
    GivenUp,
}

/// How a transaction of the shards has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Committed, or rolled back.
    pub committed: bool,
    /// How long ago that was.
    pub age: Duration,
}

impl Catalog {
    /// Records that the rows of `table` are `to` from now on (`None`: unsharded), and with it that `transaction`, which is prepared on
    /// the shards and makes it so, is committed. Only if the catalog has the database as it is `known`. The epoch grows by one.
    ///
    /// # Errors
    /// [`Error`]. After a lost connection the outcome is unknown: ask for the [`Catalog::decision`].
    pub async fn distribute(
        &self,
        known: &CatalogDatabase,
        table: &TableName,
        to: Option<&Distribution>,
        transaction: &str,
    ) -> Result<Recorded, Error> {
        let name = &known.database.name;
        let mut connection = self.acquire().await?;
        let mut work = connection.begin().await?;
        if !is_as_known(&mut work, known).await? {
            return Ok(Recorded::Outdated);
        }
        if !decide(&mut work, transaction).await? {
            return Ok(Recorded::GivenUp);
        }
        sqlx::query(
            "DELETE FROM switchyard.tables WHERE database = $1 AND schema = $2 AND name = $3",
        )
        .bind(name)
        .bind(&table.schema)
        .bind(&table.name)
        .execute(&mut *work)
        .await?;
        if let Some(distribution) = to {
            let table = Table {
                name: table.clone(),
                distribution: distribution.clone(),
            };
            insert_table(&mut work, &known.database, &table).await?;
        }
        advance(&mut work, name).await?;
        work.commit().await?;
        Ok(Recorded::Done)
    }

    /// How a transaction has ended; `None` if nobody has decided.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn decision(&self, transaction: &str) -> Result<Option<Decision>, Error> {
        let row = sqlx::query(
            "SELECT committed, (1000 * EXTRACT(EPOCH FROM pg_catalog.clock_timestamp() - decided_at))::int8
               FROM switchyard.decisions WHERE gid = $1",
        )
        .bind(transaction)
        .fetch_optional(&mut *self.acquire().await?)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let age: i64 = row.try_get(1)?;
        Ok(Some(Decision {
            committed: row.try_get(0)?,
            age: Duration::from_millis(age.try_into().unwrap_or(0)),
        }))
    }

    /// Decides that a transaction is rolled back, unless it has been decided: how it has ended.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn give_up(&self, transaction: &str) -> Result<Decision, Error> {
        sqlx::query(
            "INSERT INTO switchyard.decisions (gid, committed) VALUES ($1, false) ON CONFLICT DO NOTHING",
        )
        .bind(transaction)
        .execute(&mut *self.acquire().await?)
        .await?;
        let decided = self.decision(transaction).await?;
        decided.ok_or_else(|| Error::Damaged("a decision has gone".into()))
    }

    /// Decisions that may be of no use any more: of transactions that were committed a minute ago, or rolled back a day ago, for so long somebody may yet try to commit
    /// one. None if the catalog has databases besides `known`, on whose shards parts may be prepared.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn old_decisions(&self, known: &[String]) -> Result<Vec<String>, Error> {
        let rows = sqlx::query(
            "SELECT gid FROM switchyard.decisions
              WHERE decided_at < pg_catalog.now() - CASE WHEN committed THEN '1 minute' ELSE '1 day' END::interval
                AND NOT EXISTS (SELECT FROM switchyard.databases WHERE name <> ALL ($1)) LIMIT 1000",
        )
        .bind(known)
        .fetch_all(&mut *self.acquire().await?)
        .await?;
        let gids = rows.iter().map(|row| row.try_get(0));
        Ok(gids.collect::<Result<_, _>>()?)
    }

    /// Removes decisions.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn forget(&self, transactions: &[String]) -> Result<(), Error> {
        sqlx::query("DELETE FROM switchyard.decisions WHERE gid = ANY ($1)")
            .bind(transactions)
            .execute(&mut *self.acquire().await?)
            .await?;
        Ok(())
    }
}

/// Whether the catalog has the database as it is `known`. From here on to the end of the transaction nobody else changes it: one change of a database at a
/// time, and no movement of buckets meanwhile.
pub(crate) async fn is_as_known(
    work: &mut PgConnection,
    known: &CatalogDatabase,
) -> Result<bool, Error> {
    let name = &known.database.name;
    for lock in [
        "SELECT FROM switchyard.databases WHERE name = $1 FOR UPDATE",
        "SELECT FROM switchyard.bucket_maps WHERE database = $1 FOR UPDATE",
    ] {
        sqlx::query(lock).bind(name).execute(&mut *work).await?;
    }
    let actual = read::read(work).await?;
    let same =
        |actual: &CatalogDatabase| actual.epoch == known.epoch && actual.database == known.database;
    Ok(actual.databases.get(name).is_some_and(same))
}

/// Writes that a transaction of the shards is committed. False: somebody has given it up.
pub(crate) async fn decide(work: &mut PgConnection, transaction: &str) -> Result<bool, Error> {
    let decided = sqlx::query(
        "INSERT INTO switchyard.decisions (gid, committed) VALUES ($1, true) ON CONFLICT DO NOTHING",
    )
    .bind(transaction)
    .execute(work)
    .await?;
    Ok(decided.rows_affected() > 0)
}
