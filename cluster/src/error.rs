//! What can go wrong while a cluster is started or handled.

use std::path::PathBuf;

/// Why a server or a cluster could not do what was asked of it. Messages are for people: they say what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No server binaries on this machine.
    #[error("no PostgreSQL server binaries{} found in {looked}; install them (Debian: apt-get install postgresql) or set PG_BINDIR", wanted.map(|v| format!(" of version {v}")).unwrap_or_default())]
    NoBinaries {
        /// The major version asked for, if any.
        wanted: Option<u32>,
        /// The places that were searched.
        looked: String,
    },
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A program could not be started, or failed.
    #[error("{program} failed: {output}")]
    Command {
        /// The program's name.
        program: String,
        /// Its exit status and what it said.
        output: String,
    },
    /// A server cannot be reached, or was lost.
    #[error("server {server} does not answer")]
    Unreached {
        /// The server.
        server: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A server has refused a login or SQL, or does not speak as one.
    #[error("server {server}: {message}")]
    Refused {
        /// The server.
        server: String,
        /// What it said.
        message: String,
    },
    /// The account the servers must run as cannot be had.
    #[error("PostgreSQL refuses to run as root, and no unprivileged account can be used: {0}")]
    Account(String),
    /// The servers' account cannot reach a directory it must use.
    #[error("{} cannot be reached by the account {account:?} that the servers run as; choose a directory below /var/tmp or open it with chmod o+x", path.display())]
    Unreachable {
        /// The directory.
        path: PathBuf,
        /// The account's name.
        account: String,
    },
    /// Another live process uses this directory.
    #[error("{} is in use by another process ({holder}); stop that one first or choose another directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who holds it, as far as known.
        holder: String,
    },
    /// A directory is there but is not one of ours.
    #[error("{} is not empty and was not made by switchyard; choose another directory", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
    },
    /// A port that must be used is taken.
    #[error(
        "port {port} on 127.0.0.1 is in use by another program; stop it or choose another port"
    )]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// A server process ended while it was starting.
    #[error("server {name} did not start: {log}")]
    NotStarted {
        /// The server.
        name: String,
        /// The end of its log.
        log: String,
    },
    /// A server did not get into the expected state in time.
    #[error("server {name} was not {state} within {seconds} s: {log}")]
    TimedOut {
        /// The server.
        name: String,
        /// The state waited for.
        state: &'static str,
        /// How long.
        seconds: u64,
        /// The end of its log.
        log: String,
    },
    /// The server is not in the state this needs.
    #[error("server {name} is {state}")]
    WrongState {
        /// The server.
        name: String,
        /// What it is instead.
        state: &'static str,
    },
}

impl Error {
    /// For `map_err`: an I/O error with what was tried on which path.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    }
}
