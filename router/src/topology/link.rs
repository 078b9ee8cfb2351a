//! The control thread's own connections to nodes: for looking at them, never for a client's statements.

use std::sync::Arc;
use std::time::Duration;

use switchyard_wire::SqlState;

use super::Node;
pub use crate::backend::TextRow;
use crate::backend::{ConnectError, ConnectOptions, Connection, QueryError, ScramKeys};
use crate::config::{Password, User};
use crate::proven::Proven;
use crate::startup::cancel::CancelTarget;
use crate::startup::tls::NodeTls;

/// What PostgreSQL lists these connections as. They are planned by nothing that a movement of rows changes.
pub const LINK_NAME: &str = "switchyard";

/// As whom the control thread looks at nodes, and how long a node may take to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// The user's name.
    pub user: Arc<str>,
    /// The user's password.
    pub password: Option<Password>,
    /// What the user has proven.
    pub proven: Arc<Proven>,
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
            user: Arc::clone(&user.name),
            password: user.password.clone(),
            proven: Arc::clone(&user.proven),
            connect_timeout,
            answer_timeout,
        }
    }
}

/// A connection of the control thread.
#[derive(Debug)]
pub struct Link {
    connection: Connection,
    answer_timeout: Duration,
}

/// Why a node could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody is there, or the server lets nobody in.
    #[error("{0}")]
    Unreachable(String),
    /// The connection broke.
    #[error("{0}")]
    Lost(String),
    /// The server is there and has no connection left for us.
    #[error("the server has no connection left")]
    Full,
    /// Connecting or answering took too long.
    #[error("no answer in time")]
    Timeout,
    /// The server refused the question; the connection is still good.
    #[error("{message} ({})", .sqlstate.as_str())]
    Refused {
        /// The server's SQLSTATE.
        sqlstate: SqlState,
        /// The server's message.
        message: String,
    },
    /// The answer does not have the expected form.
    #[error("unexpected answer to a question about {0}")]
    Unexpected(&'static str),
}

impl From<QueryError> for LinkError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Server { sqlstate, message } => Self::Refused { sqlstate, message },
            QueryError::Io(_) | QueryError::Protocol(_) => Self::Lost(error.to_string()),
        }
    }
}

impl Link {
    /// Connects to the database on the node.
    ///
    /// # Errors
    /// [`LinkError::Lost`] or [`LinkError::Timeout`].
    pub async fn open(visitor: &Visitor, node: &Node, database: &str) -> Result<Self, LinkError> {
        let options = ConnectOptions {
            host: node.host.to_string(),
            port: node.port,
            user: visitor.user.to_string(),
            password: visitor.password.clone(),
            proven: Arc::clone(&visitor.proven),
            scram_keys: ScramKeys::default(),
            database: node.dbname.as_deref().unwrap_or(database).to_owned(),
            prepared_limit: 1,
            tls: NodeTls::new(&node.tls)
                .map_err(|error| LinkError::Unreachable(error.to_string()))?,
            timeout: visitor.connect_timeout,
            settings: &[("application_name", LINK_NAME)],
        };
        let connection = Connection::connect(&options).await.map_err(unconnected)?;
        Ok(Self {
            connection,
            answer_timeout: visitor.answer_timeout,
        })
    }

    /// Asks, and returns the rows.
    ///
    /// # Errors
    /// [`LinkError`]; after any but [`LinkError::Refused`] the link is of no further use.
    pub async fn ask(&mut self, sql: &str) -> Result<Vec<TextRow>, LinkError> {
        let asking = self.connection.simple_query(sql);
        let answer = tokio::time::timeout(self.answer_timeout, asking).await;
        let Ok(answer) = answer else {
            self.connection.broken = true;
            return Err(LinkError::Timeout);
        };
        answer.map_err(LinkError::from)
    }

    /// Whether it can be asked again.
    #[must_use]
    pub fn is_good(&self) -> bool {
        !self.connection.broken
    }

    /// How what it runs can be cancelled.
    #[must_use]
    pub fn target(&self) -> &Arc<CancelTarget> {
        &self.connection.target
    }

    /// The connection itself, for more than questions.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// What the server reported at connect.
    #[must_use]
    pub fn parameters(&self) -> Vec<(Box<str>, Box<str>)> {
        self.connection
            .parameters()
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }
}

/// What a failure to connect says of the server.
fn unconnected(error: ConnectError) -> LinkError {
    match &error {
        ConnectError::Timeout => LinkError::Timeout,
        ConnectError::Refused { sqlstate, .. } if *sqlstate == SqlState::TOO_MANY_CONNECTIONS => {
            LinkError::Full
        }
        ConnectError::Broken(_) => LinkError::Lost(error.to_string()),
        ConnectError::Io(_)
        | ConnectError::Refused { .. }
        | ConnectError::Unproven(_)
        | ConnectError::Protocol(_)
        | ConnectError::Outdated => LinkError::Unreachable(error.to_string()),
    }
}
