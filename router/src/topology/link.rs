//! The control thread's own connections to nodes: for looking at them, never for a client's statements.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{Connection as _, Row as _, ValueRef as _};

use super::Node;
use crate::config::{Password, User};

/// As whom the control thread looks at nodes, and how long a node may take to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// The user's name.
    pub user: std::sync::Arc<str>,
    /// The user's password.
    pub password: Option<Password>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long one answer may take.
    pub answer_timeout: Duration,
}

impl Visitor {
    /// A visitor who logs in as `user`.
    #[must_use]
    pub fn new(user: &User, connect_timeout: Duration, answer_timeout: Duration) -> Self {
        Self {
            user: std::sync::Arc::clone(&user.name),
            password: user.password.clone(),
            connect_timeout,
            answer_timeout,
        }
    }
}

/// A row of text values.
pub type TextRow = Vec<Option<String>>;

/// A connection of the control thread.
#[derive(Debug)]
pub struct Link {
    connection: PgConnection,
    answer_timeout: Duration,
}

/// Why a node could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No connection, or it was lost.
    #[error("{0}")]
    Lost(String),
    /// Connecting or answering took too long.
    #[error("no answer in time")]
    Timeout,
    /// The server refused the question; the connection is still good.
    #[error("{0}")]
    Refused(String),
    /// The answer does not have the expected form.
    #[error("unexpected answer to a question about {0}")]
    Unexpected(&'static str),
}

impl Link {
    /// Connects to the database on the node.
    ///
    /// # Errors
    /// [`LinkError::Lost`] or [`LinkError::Timeout`].
    pub async fn open(visitor: &Visitor, node: &Node, database: &str) -> Result<Self, LinkError> {
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&node.host)
            .port(node.port)
            .username(&visitor.user)
            .database(database)
            .application_name("switchyard monitor")
            .ssl_mode(PgSslMode::Disable);
        if let Some(password) = &visitor.password {
            options = options.password(password.reveal());
        }
        let connecting = PgConnection::connect_with(&options);
        let connection = tokio::time::timeout(visitor.connect_timeout, connecting)
            .await
            .map_err(|_| LinkError::Timeout)?
            .map_err(|error| LinkError::Lost(error.to_string()))?;
        Ok(Self {
            connection,
            answer_timeout: visitor.answer_timeout,
        })
    }

    /// Asks, and returns the rows.
    ///
    /// # Errors
    /// [`LinkError`]; after any but [`LinkError::Refused`] the link is of no further use.
    pub async fn ask(&mut self, sql: &'static str) -> Result<Vec<TextRow>, LinkError> {
        let asking = sqlx::raw_sql(sql).fetch_all(&mut self.connection);
        let rows = tokio::time::timeout(self.answer_timeout, asking)
            .await
            .map_err(|_| LinkError::Timeout)?
            .map_err(|error| match error {
                sqlx::Error::Database(error) => LinkError::Refused(error.to_string()),
                error => LinkError::Lost(error.to_string()),
            })?;
        let text = |row: &sqlx::postgres::PgRow| {
            (0..row.len())
                .map(|column| {
                    let value = row.try_get_raw(column).ok()?;
                    (!value.is_null()).then(|| value.as_str().ok().map(str::to_owned))?
                })
                .collect()
        };
        Ok(rows.iter().map(text).collect())
    }

    /// What the server reported at connect.
    #[must_use]
    pub fn parameters(&self) -> Vec<(Box<str>, Box<str>)> {
        Vec::new()
    }
}
