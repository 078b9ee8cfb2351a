//! The catalog: the actual state of an installation, kept in a PostgreSQL of its own, in a schema `switchyard`.
//!
//! The configuration file says what should be; the catalog says what is: databases, shards, nodes, tables, and which shard
//! owns which bucket. Routers read it and follow its changes; the migrate tool changes it. It is never on a query's path.
//!
//! Invariants: migrations run under a lock, each in order and once; a bucket map changes only by [`Catalog::advance`], and
//! its epoch only grows; what a reader sees is one transaction's state.
//!
//! Reading order: [`Catalog`] connects and migrates; [`Snapshot`] is what it holds; [`follow`](Catalog::follow) reports
//! changes; [`differences`] compares with the file; [`Catalog::distribute`] changes where one table's rows are.

mod access;
mod difference;
mod distribute;
mod error;
mod follow;
mod layout;
mod migrations;
mod movement;
mod placement;
mod read;
mod routers;
mod write;

pub use access::{Catalog, Credentials};
pub use difference::differences;
pub use distribute::{Decision, Recorded};
pub use error::Error;
pub use follow::{Follower, Link};
pub use layout::Layout;
pub use migrations::LATEST;
pub use movement::{Lease, Movement, Progress, Step};
pub use read::{CatalogDatabase, Snapshot};
pub use routers::{HEARTBEAT_TIMEOUT, RouterId, Routers};
