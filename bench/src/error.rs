//! What can go wrong while measuring.

use std::io;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The servers.
    #[error("the servers could not be started")]
    Cluster(#[from] switchyard_cluster::Error),
    /// The tables.
    #[error("the tables could not be loaded")]
    Load(#[from] switchyard_cluster::LoadError),
    /// The router's configuration, which we wrote.
    #[error("the router's configuration has errors: {0:?}")]
    Config(Vec<switchyard_schema::Diagnostic>),
    /// A file, a socket or a process.
    #[error("cannot {action}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A program is not there.
    #[error("{program} not found; {hint}")]
    Missing {
        /// The program.
        program: &'static str,
        /// How to get it.
        hint: &'static str,
    },
    /// pgbench failed.
    #[error("pgbench against {contender}: {output}")]
    Pgbench {
        /// Which contender.
        contender: &'static str,
        /// What it printed.
        output: String,
    },
    /// A contender does not answer.
    #[error("{contender} does not take connections: {reason}")]
    NotReady {
        /// Which contender.
        contender: &'static str,
        /// Its last words.
        reason: String,
    },
    /// The report could not be made into JSON.
    #[error("cannot write the report as JSON")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// For `map_err`.
    pub(crate) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { action, source }
    }
}
