//! The seam between clusters and what runs their servers: processes today, containers later (ADR 0005).

use std::fmt::Debug;
use std::time::Duration;

use crate::{Error, Settings};

/// The superuser of every server a provider makes; databases and roles of a test are made with it.
pub const SUPERUSER: &str = "postgres";

/// How a server takes part in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Streams from a primary and serves reads.
    Replica,
}

/// How to stop a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Roll back what runs, then shut down cleanly.
    Fast,
    /// Abort; the next start recovers.
    Immediate,
    /// SIGKILL to all of its processes, as if the machine had died.
    Kill,
}

/// Makes PostgreSQL servers.
pub trait Provider: Debug + Send + Sync {
    /// A running primary of its own. A provider that keeps data finds it again by `name`.
    fn primary(&self, name: &str, settings: &Settings) -> Result<Box<dyn Node>, Error>;

    /// A running replica that streams from `primary` through a physical replication slot of its own.
    fn replica(
        &self,
        name: &str,
        primary: &dyn Node,
        settings: &Settings,
    ) -> Result<Box<dyn Node>, Error>;

    /// The password of [`SUPERUSER`] on every server of this provider.
    fn superuser_password(&self) -> &str;
}

/// One PostgreSQL server. All methods block until what they say is the case.
pub trait Node: Debug + Send + Sync {
    /// Its name, unique within the provider.
    fn name(&self) -> &str;

    /// The host clients reach it at.
    fn host(&self) -> &str;

    /// The port clients reach it at; stays the same over restarts.
    fn port(&self) -> u16;

    /// What it was made as; [`Node::promote`] changes it.
    fn role(&self) -> Role;

    /// Whether its data was made by this run, rather than found.
    fn is_new(&self) -> bool;

    /// Starts a stopped server and waits until it takes connections.
    fn start(&self) -> Result<(), Error>;

    /// Stops it and waits until it is gone. Nothing happens if it is not running.
    fn stop(&self, how: Stop) -> Result<(), Error>;

    /// Freezes all of its processes: connections stay open and nothing answers.
    fn pause(&self) -> Result<(), Error>;

    /// Goes on after [`Node::pause`].
    fn resume(&self) -> Result<(), Error>;

    /// Makes a replica a primary.
    fn promote(&self) -> Result<(), Error>;

    /// Changes settings (`None`: back to the default) and reloads; what needs a restart takes effect with the next start.
    fn configure(&self, changes: &[(&str, Option<&str>)]) -> Result<(), Error>;

    /// Everything it has logged so far.
    fn log(&self) -> Result<String, Error>;
}

/// How long a server may take to start, stop or promote before that is an error.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
