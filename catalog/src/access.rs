//! Connecting to the catalog.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection};
use switchyard_schema::SslMode;
use tokio::time::{Instant, sleep, timeout};

use crate::{Error, migrations};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a catalog that is being restarted is waited for, and between two attempts.
const RESTART: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);
/// How long the server may take for one statement, as far as it notices itself.
const STATEMENT_TIMEOUT: &str = "5s";

/// Where the catalog is and who we are there.
#[derive(Clone, Debug)]
pub struct Credentials {
    options: PgConnectOptions,
}

impl Credentials {
    /// From the configuration, with the password it names.
    #[must_use]
    pub fn new(catalog: &switchyard_schema::Catalog, password: Option<&str>) -> Self {
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&catalog.host)
            .port(catalog.port)
            .username(&catalog.user)
            .database(&catalog.database)
            .application_name("switchyard")
            .options([("statement_timeout", STATEMENT_TIMEOUT)])
            .ssl_mode(match catalog.tls.mode {
                SslMode::Disable => PgSslMode::Disable,
                SslMode::Prefer => PgSslMode::Prefer,
                SslMode::Require => PgSslMode::Require,
                SslMode::VerifyCa => PgSslMode::VerifyCa,
                SslMode::VerifyFull => PgSslMode::VerifyFull,
            });
        if let Some(root_cert) = &catalog.tls.root_cert {
            options = options.ssl_root_cert(root_cert);
        }
        if let Some(password) = password {
            options = options.password(password);
        }
        Self { options }
    }

    /// Connects once. A pool would try again and again where nobody listens, and say no more in the end than that it took too long.
    async fn reach(&self) -> Result<(), Error> {
        let connecting = timeout(CONNECT_TIMEOUT, self.options.connect());
        let connected = connecting.await.map_err(|_| Error::Timeout)?;
        let connection = connected.map_err(|error| {
            if let sqlx::Error::Io(source) = error {
                let address = format!("{}:{}", self.options.get_host(), self.options.get_port());
                return Error::Away { address, source };
            }
            Error::Unreachable(error)
        })?;
        connection.close().await.map_err(Error::Unreachable)
    }
}

/// A connected catalog of the latest version.
#[derive(Clone, Debug)]
pub struct Catalog {
    pub(crate) pool: PgPool,
}

impl Catalog {
    /// Connects, and migrates the schema if it is not of the latest version.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn connect(credentials: &Credentials) -> Result<Self, Error> {
        let catalog = Self::open(credentials).await?;
        let mut connection = catalog.acquire().await?;
        migrations::migrate(&mut connection).await?;
        drop(connection);
        Ok(catalog)
    }

    /// Connects and changes nothing: for looking only. Reading fails if the schema is not there.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn open(credentials: &Credentials) -> Result<Self, Error> {
        credentials.reach().await?;
        // One connection listens, another reads.
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_lazy_with(credentials.options.clone());
        Ok(Self { pool })
    }

    /// The same for who cannot come back later: a catalog that is being restarted is waited for.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn open_patiently(credentials: &Credentials) -> Result<Self, Error> {
        let give_up = Instant::now() + RESTART;
        loop {
            match Self::open(credentials).await {
                Err(Error::Away { .. } | Error::Unreachable(_)) if Instant::now() < give_up => {
                    sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Whether there is a schema of the version this program knows.
    ///
    /// # Errors
    /// [`Error`]; also [`Error::Newer`].
    pub async fn is_migrated(&self) -> Result<bool, Error> {
        let found = migrations::version(&mut *self.acquire().await?).await?;
        match found {
            Some(found) if found > migrations::LATEST => Err(Error::Newer {
                found,
                known: migrations::LATEST,
            }),
            found => Ok(found == Some(migrations::LATEST)),
        }
    }

    pub(crate) async fn acquire(
        &self,
    ) -> Result<sqlx::pool::PoolConnection<sqlx::Postgres>, Error> {
        let acquired = self.pool.acquire().await;
        acquired.map_err(|error| match matches!(error, sqlx::Error::PoolTimedOut) {
            true => Error::Timeout,
            false => Error::Unreachable(error),
        })
    }

    /// Closes the connections.
    pub async fn close(self) {
        self.pool.close().await;
    }
}

/// A connection that is in one transaction's state for reading.
pub(crate) async fn begin_read(
    connection: &mut PgConnection,
) -> Result<sqlx::Transaction<'_, sqlx::Postgres>, Error> {
    Ok(connection
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?)
}
