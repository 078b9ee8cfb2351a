//! Movements of rows between shards (ADR 0024): what the program that moves them writes. One program at a time has the [`Lease`] of a
//! database, and writes on the connection that holds it: who has lost it cannot write any more.

use std::collections::BTreeMap;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Postgres, Row};
use switchyard_schema::{Database, Shard};

use crate::distribute::{decide, is_as_known};
use crate::layout::Layout;
use crate::read::{decode, encode};
use crate::write::insert_shard;
use crate::{Catalog, CatalogDatabase, Error, Recorded, placement};

/// A movement that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// Where rows were before.
    pub former: Layout,
    /// Where they are to be.
    pub target: Layout,
    /// No further group is to move for now.
    pub paused: bool,
    /// It was a rollback that set out to the target.
    pub turned: bool,
}

/// How far a movement is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// A program is at it.
    pub is_active: bool,
    /// No further group is to move for now.
    pub is_paused: bool,
    /// Buckets that move in all, and those of them that have not yet.
    pub buckets: [usize; 2],
    /// The same of tables without hash keys.
    pub tables: [usize; 2],
}

impl Progress {
    /// How far a movement of this database is, which a program is at or not.
    #[must_use]
    pub fn of(known: &CatalogDatabase, movement: &Movement, is_active: bool) -> Self {
        let (buckets, tables) = movement.former.differing(&movement.target);
        let (buckets_left, tables_left) = known.layout().differing(&known.aimed(&movement.target));
        Self {
            is_active,
            is_paused: movement.paused,
            buckets: [buckets, buckets_left],
            tables: [tables, tables_left],
        }
    }

    /// What it is doing, in a word.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match (
            self.buckets[1] + self.tables[1],
            self.is_paused,
            self.is_active,
        ) {
            (0, _, _) => "moved",
            (_, true, _) => "paused",
            (_, false, true) => "moving",
            (_, false, false) => "stopped",
        }
    }
}

/// The right to move rows of a database, for as long as the connection lasts.
#[derive(Debug)]
pub struct Lease {
    pub(crate) connection: PoolConnection<Postgres>,
    database: String,
}

/// What a transaction that is prepared on the shards makes true.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// Rows are where this layout says.
    Layout(&'a Layout),
    /// There is one shard more, with no rows that are sharded.
    Shard(&'a Shard),
}

impl Catalog {
    /// The right to move rows of a database; `None` while another program has it.
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

    /// Has the program that moves rows of a database stop after the present group, or go on when it is started. False: there is no movement.
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

    /// Writes down what is to be done, in place of what was, whether a rollback set out to do it, and that rows may be on their way.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn record(
        &mut self,
        (former, target): (&Layout, &Layout),
        turned: bool,
    ) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO switchyard.movements (database, former, former_methods, target, target_methods, turned, active)
             VALUES ($1, $2, $3::jsonb, $4, $5::jsonb, $6, true)
             ON CONFLICT (database) DO UPDATE SET former = excluded.former, former_methods = excluded.former_methods,
                 target = excluded.target, target_methods = excluded.target_methods,
                 turned = excluded.turned, active = true",
        )
        .bind(&self.database)
        .bind(encode(&former.buckets))
        .bind(former.methods_json()?)
        .bind(encode(&target.buckets))
        .bind(target.methods_json()?)
        .bind(turned)
        .execute(&mut *self.connection)
        .await?;
        Ok(())
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
        match step {
            Step::Layout(layout) => write_layout(&mut work, known, layout).await?,
            Step::Shard(shard) => {
                let position = known.database.shards.len();
                insert_shard(&mut work, &self.database, position, shard).await?;
            }
        }
        advance(&mut work, &self.database).await?;
        work.commit().await?;
        Ok(Recorded::Done)
    }

    /// Begins a new epoch by a layout that has every row where it is already. False: the catalog is not as it is `known`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn rewrite(
        &mut self,
        known: &CatalogDatabase,
        layout: &Layout,
    ) -> Result<bool, Error> {
        let mut work = self.connection.begin().await?;
        if !is_as_known(&mut work, known).await? {
            return Ok(false);
        }
        write_layout(&mut work, known, layout).await?;
        advance(&mut work, &self.database).await?;
        work.commit().await?;
        Ok(true)
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
        advance(&mut work, &self.database).await?;
        sqlx::query("DELETE FROM switchyard.movements WHERE database = $1")
            .bind(&self.database)
            .execute(&mut *work)
            .await?;
        work.commit().await?;
        Ok(true)
    }
}

/// Writes what is another than what the catalog is known to have.
async fn write_layout(
    work: &mut PgConnection,
    known: &CatalogDatabase,
    layout: &Layout,
) -> Result<(), Error> {
    let former = known.layout();
    let database = &known.database.name;
    if layout.buckets != former.buckets {
        sqlx::query("UPDATE switchyard.bucket_maps SET owners = $2 WHERE database = $1")
            .bind(database)
            .bind(encode(&layout.buckets))
            .execute(&mut *work)
            .await?;
    }
    for (table, method) in &layout.methods {
        if former.methods.get(table) == Some(method) {
            continue;
        }
        sqlx::query(
            "UPDATE switchyard.tables SET placement = $4::jsonb WHERE database = $1 AND schema = $2 AND name = $3",
        )
        .bind(database)
        .bind(&table.schema)
        .bind(&table.name)
        .bind(placement::to_json(method)?)
        .execute(&mut *work)
        .await?;
    }
    Ok(())
}

/// Rows are elsewhere from now on, or shards others.
pub(crate) async fn advance(work: &mut PgConnection, database: &str) -> Result<(), Error> {
    sqlx::query("UPDATE switchyard.bucket_maps SET epoch = epoch + 1 WHERE database = $1")
        .bind(database)
        .execute(work)
        .await?;
    Ok(())
}

async fn movement(
    connection: &mut PgConnection,
    database: &str,
    shards: usize,
) -> Result<Option<Movement>, Error> {
    let row = sqlx::query(
        "SELECT former, former_methods::text, target, target_methods::text, paused, turned FROM switchyard.movements WHERE database = $1",
    )
    .bind(database)
    .fetch_optional(connection)
    .await?;
    row.map(|row| from_row(&row, shards)).transpose()
}

/// A movement, from the columns of its row.
fn from_row(row: &PgRow, shards: usize) -> Result<Movement, Error> {
    let layout = |buckets, methods| -> Result<Layout, Error> {
        Ok(Layout {
            buckets: decode(row.try_get(buckets)?, shards)?,
            methods: Layout::methods_from(row.try_get(methods)?)?,
        })
    };
    Ok(Movement {
        former: layout(0, 1)?,
        target: layout(2, 3)?,
        paused: row.try_get(4)?,
        turned: row.try_get(5)?,
    })
}

/// How far all movements are, by database: of those that lead nowhere, only whether rows may be on their way.
pub(crate) async fn read_all(
    connection: &mut PgConnection,
) -> Result<BTreeMap<String, PgRow>, Error> {
    let rows = sqlx::query(
        "SELECT former, former_methods::text, target, target_methods::text, paused, turned, active, database FROM switchyard.movements",
    )
    .fetch_all(connection)
    .await?;
    let named = rows.into_iter().map(|row| Ok((row.try_get(7)?, row)));
    named.collect()
}

/// Whether rows may be on their way, and how far their movement is.
pub(crate) fn progress(
    row: &PgRow,
    known: &CatalogDatabase,
) -> Result<(bool, Option<Progress>), Error> {
    let is_active = row.try_get(6)?;
    let movement = from_row(row, known.database.shards.len())?;
    let leads = movement.former != movement.target;
    let progress = leads.then(|| Progress::of(known, &movement, is_active));
    Ok((is_active, progress))
}
