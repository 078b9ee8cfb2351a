//! The routers that work by a catalog: which there are, and by which revision each of them plans (ADR 0024, ADR 0025).
//!
//! A router renews its row twice a second. One whose row is three seconds old is *silent*: it has ended, has stood still, or cannot reach the catalog. It may be
//! at work still, by what it has heard last, so that whoever moves rows does not wait for it, but keeps it from the shards.

use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::{Catalog, Error, Lease};

/// The age of its row at which a router is silent.
const SILENT: Duration = Duration::from_secs(3);
/// The age at which a router takes its own row to be so old: sooner, by its own clock.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_millis(2500);

/// What tells a router from others: a random number, which is also the key of the advisory lock that each of its connections to a shard holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouterId(pub i64);

/// The routers at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routers {
    /// Those that have been heard of lately.
    pub present: Vec<RouterId>,
    /// Those that are silent.
    pub silent: Vec<RouterId>,
    /// Those present that may still have something on its way which was planned before what the catalog says now.
    pub behind: Vec<RouterId>,
}

impl Routers {
    /// Those present that plan by what the catalog says now.
    pub fn following(&self) -> impl Iterator<Item = RouterId> {
        let present = self.present.iter();
        present
            .filter(|router| !self.behind.contains(router))
            .copied()
    }
}

impl Catalog {
    /// Says that a router is there which has read nothing yet: whoever moves rows from now on waits for it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn register(&self, router: RouterId) -> Result<(), Error> {
        sqlx::query("INSERT INTO switchyard.routers (id, revision) VALUES ($1, 0) ON CONFLICT (id) DO NOTHING")
            .bind(router.0.to_string())
            .execute(&mut *self.acquire().await?)
            .await?;
        Ok(())
    }

    /// Says that it has ended.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn unregister(&self, router: RouterId) -> Result<(), Error> {
        sqlx::query("DELETE FROM switchyard.routers WHERE id = $1")
            .bind(router.0.to_string())
            .execute(&mut *self.acquire().await?)
            .await?;
        Ok(())
    }

    /// Says that it is still there, and by which revision all is planned that it does. False: it has been forgotten meanwhile.
    pub(crate) async fn renew(&self, router: RouterId, revision: i64) -> Result<bool, Error> {
        // What is lost by a crash of the catalog is said again.
        let renewed = sqlx::query(
            "UPDATE switchyard.routers SET revision = $2, renewed_at = pg_catalog.clock_timestamp()
               FROM pg_catalog.set_config('synchronous_commit', 'off', true)
              WHERE id = $1",
        )
        .bind(router.0.to_string())
        .bind(revision)
        .execute(&mut *self.acquire().await?)
        .await?;
        Ok(renewed.rows_affected() > 0)
    }

    /// The routers at this moment.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn routers(&self) -> Result<Routers, Error> {
        routers(&mut *self.acquire().await?).await
    }

    /// The same as [`Lease::forget_silent`].
    ///
    /// # Errors
    /// [`Error`].
    pub async fn forget_silent(&self, silent: &[RouterId]) -> Result<(), Error> {
        forget_silent(&mut *self.acquire().await?, silent).await
    }
}

impl Lease {
    /// The same as [`Catalog::routers`].
    ///
    /// # Errors
    /// [`Error`].
    pub async fn routers(&mut self) -> Result<Routers, Error> {
        routers(&mut self.connection).await
    }

    /// Forgets routers that are silent still. One that comes back registers anew, and reads everything anew before.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn forget_silent(&mut self, silent: &[RouterId]) -> Result<(), Error> {
        forget_silent(&mut self.connection, silent).await
    }
}

async fn forget_silent(connection: &mut PgConnection, silent: &[RouterId]) -> Result<(), Error> {
    let ids: Vec<String> = silent.iter().map(|router| router.0.to_string()).collect();
    sqlx::query(
            "DELETE FROM switchyard.routers
              WHERE id = ANY ($1) AND renewed_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $2)",
        )
        .bind(ids)
        .bind(SILENT.as_secs_f64())
        .execute(connection)
        .await?;
    Ok(())
}

async fn routers(connection: &mut PgConnection) -> Result<Routers, Error> {
    let rows = sqlx::query(
        "SELECT router.id, router.renewed_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $1),
                router.revision < revision.number
           FROM switchyard.routers AS router, switchyard.revision",
    )
    .bind(SILENT.as_secs_f64())
    .fetch_all(connection)
    .await?;
    let mut routers = Routers::default();
    for row in rows {
        let id: String = row.try_get(0)?;
        // What has another name is none of this version's.
        let Ok(id) = id.parse() else { continue };
        let (is_silent, is_behind) = (row.try_get(1)?, row.try_get(2)?);
        match is_silent {
            true => routers.silent.push(RouterId(id)),
            false => routers.present.push(RouterId(id)),
        }
        if is_behind && !is_silent {
            routers.behind.push(RouterId(id));
        }
    }
    Ok(routers)
}
