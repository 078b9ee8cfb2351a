//! The primaries of a database's shards, as both that look at rows and that move them reach them.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use switchyard_router::backend::TextRow;
use switchyard_router::config::Settings;
use switchyard_router::relations::Introspection;
use switchyard_router::topology::Node;
use switchyard_router::topology::builder::{Builder, DatabaseState};
use switchyard_router::topology::link::{Link, LinkError, Visitor};
use switchyard_router::topology::loader;
use switchyard_schema::ShardIndex;

/// Of the values a server writes as text, all are the same on every server; and rows that a policy hides are an error, not missing.
pub(crate) const SETTINGS: &str = "\
SET row_security = off; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET search_path = pg_catalog;
SET extra_float_digits = 3; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET timezone = 'UTC'; SET bytea_output = 'hex'";

/// Why a primary could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// It failed, or refused.
    #[error("database \"{database}\", shard \"{shard}\": {source}")]
    Failed {
        /// The database.
        database: String,
        /// The shard.
        shard: String,
        /// What happened.
        source: LinkError,
    },
    /// The configuration has no user.
    #[error("no user is configured")]
    NoUser,
}

impl ServerError {
    /// The SQLSTATE with which the server has refused.
    pub(crate) fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Failed {
                source: LinkError::Refused { sqlstate, .. },
                ..
            } => Some(sqlstate.as_str()),
            Self::Failed { .. } | Self::NoUser => None,
        }
    }
}

/// A shard's primary.
#[derive(Debug)]
pub(crate) struct Server {
    database: Arc<str>,
    pub(crate) shard: ShardIndex,
    pub(crate) name: String,
    /// The primary and its replicas.
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) link: Link,
}

impl Server {
    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    pub(crate) async fn ask(&mut self, sql: &str) -> Result<Vec<TextRow>, ServerError> {
        let answer = self.link.ask(sql).await;
        answer.map_err(|source| self.failed(source))
    }

    /// What relations it has.
    pub(crate) async fn introspect(&mut self) -> Result<Introspection, ServerError> {
        let found = loader::introspect(&mut self.link).await;
        found.map_err(|source| self.failed(source))
    }

    /// The number in a column of a row of its answer.
    pub(crate) fn number<T: FromStr>(
        &self,
        row: &TextRow,
        column: usize,
    ) -> Result<T, ServerError> {
        let value = row.get(column).and_then(Option::as_deref);
        let number = value.and_then(|value| value.parse().ok());
        number.ok_or_else(|| self.failed(LinkError::Unexpected("a table's rows")))
    }

    pub(crate) fn failed(&self, source: LinkError) -> ServerError {
        ServerError::Failed {
            database: self.database.to_string(),
            shard: self.name.clone(),
            source,
        }
    }
}

/// Connects to the primaries of all shards, or of those at some positions, as the user who looks at servers. One answer may take as long
/// as `patience`.
///
/// # Errors
/// [`ServerError`].
pub(crate) async fn connect(
    settings: &Settings,
    state: &DatabaseState,
    only: Option<&[usize]>,
    patience: Duration,
) -> Result<Vec<Server>, ServerError> {
    let user = settings.monitor_user().ok_or(ServerError::NoUser)?;
    let visitor = Visitor::new(user, settings.file.router.timeouts.connect, patience);
    let name = &state.schema.name;
    let topology = Builder::default().build([state]);
    let shards = topology.database(name);
    let shards = shards.map(|database| database.shards.iter());
    let mut servers = Vec::new();
    for (shard, at) in shards.into_iter().flatten().zip(0..) {
        if only.is_some_and(|only| !only.contains(&usize::from(at))) {
            continue;
        }
        let link = Link::open(&visitor, shard.primary(), name).await;
        servers.push(Server {
            database: name.as_str().into(),
            shard: ShardIndex(at),
            name: shard.name.to_string(),
            nodes: shard.nodes.clone(),
            link: link.map_err(|source| ServerError::Failed {
                database: name.clone(),
                shard: shard.name.to_string(),
                source,
            })?,
        });
    }
    Ok(servers)
}
