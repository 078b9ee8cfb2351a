//! The catalog's own schema, version by version.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use crate::Error;

/// One step from a version to the next; never changed once released.
struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: [Migration; 5] = [
    Migration {
        version: 1,
        name: "initial",
        sql: include_str!("../migrations/0001_initial.sql"),
    },
    Migration {
        version: 2,
        name: "decisions",
        sql: include_str!("../migrations/0002_decisions.sql"),
    },
    Migration {
        version: 3,
        name: "movements",
        sql: include_str!("../migrations/0003_movements.sql"),
    },
    Migration {
        version: 4,
        name: "layouts",
        sql: include_str!("../migrations/0004_layouts.sql"),
    },
    Migration {
        version: 5,
        name: "turned",
        sql: include_str!("../migrations/0005_turned.sql"),
    },
];

/// The version this program migrates to.
pub const LATEST: i32 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// The advisory lock that one migrating program holds: the letters SWITCHYD.
const LOCK: i64 = i64::from_be_bytes(*b"SWITCHYD");

/// Brings the schema to [`LATEST`]. Any number of programs may do so at once.
pub(crate) async fn migrate(connection: &mut PgConnection) -> Result<(), Error> {
    if version(connection).await? == Some(LATEST) {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_catalog.pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *transaction)
        .await?;
    sqlx::raw_sql(
        "CREATE SCHEMA IF NOT EXISTS switchyard;
         CREATE TABLE IF NOT EXISTS switchyard.migrations (
             version int4 PRIMARY KEY,
             name text NOT NULL,
             applied_at timestamptz NOT NULL DEFAULT pg_catalog.now())",
    )
    .execute(&mut *transaction)
    .await?;
    let found = version(&mut transaction).await?.unwrap_or(0);
    if found > LATEST {
        return Err(Error::Newer {
            found,
            known: LATEST,
        });
    }
    for migration in MIGRATIONS.iter().filter(|step| step.version > found) {
        sqlx::raw_sql(migration.sql)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("INSERT INTO switchyard.migrations (version, name) VALUES ($1, $2)")
            .bind(migration.version)
            .bind(migration.name)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// The version the schema has; `None` if there is none.
pub(crate) async fn version(connection: &mut PgConnection) -> Result<Option<i32>, Error> {
    let known = sqlx::query("SELECT pg_catalog.to_regclass('switchyard.migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !known.try_get::<bool, _>(0)? {
        return Ok(None);
    }
    let row = sqlx::query("SELECT pg_catalog.max(version) FROM switchyard.migrations")
        .fetch_one(connection)
        .await?;
    Ok(row.try_get(0)?)
}
