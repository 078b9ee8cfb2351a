//! Real PostgreSQL clusters on loopback: what the demo, the tests and the benches stand on.
//!
//! [`Provider`] is the seam: it makes servers. [`Local`] makes them as processes of this machine, from the server
//! binaries an [`Install`] found, under an unprivileged [`Account`] when we are root (PostgreSQL refuses root).
//! [`Cluster`] puts the servers of a provider together: shards with their replicas, a catalog, a plain server to compare
//! with, and loads tables into them as a configuration distributes their rows. Everything is synchronous, so that it can be
//! used from anywhere.
//!
//! Invariant: nothing outlives us. Dropping a [`Cluster`] stops its servers and, unless the directory was chosen by the
//! user, removes their files; when the process dies without unwinding, the guard process of the [`Stage`] does the same.

mod account;
mod cluster;
mod companion;
mod error;
mod file;
mod guard;
mod install;
mod load;
mod local;
mod port;
mod process;
mod provider;
mod server;
mod session;
mod settings;
mod stage;
mod template;

pub use account::Account;
pub use cluster::{APP_USER, Cluster, ClusterSpec, MOVING_RIGHTS, Shard};
pub use companion::Companion;
pub use error::Error;
pub use file::{RouterFile, with_shard};
pub use install::Install;
pub use load::{LoadError, Rows, Table};
pub use local::Local;
pub use port::Port;
pub use provider::{Node, Provider, Role, SUPERUSER, Stop};
pub use settings::Settings;
pub use stage::Stage;
