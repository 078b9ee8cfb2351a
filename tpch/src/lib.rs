//! TPC-H: eight tables, their rows at any scale, the 22 queries, and ways to lay the tables out over shards.
//!
//! - [`tables`] with [`DDL`] is what [`Cluster::load`](switchyard_cluster::Cluster::load) takes; rows are those of the
//!   specification's own generator, the same ones each time.
//! - [`QUERIES`] have the text of the specification (3.0, 2.4) with its validation parameters. Other than there are only: the
//!   precision in Q1's interval, which PostgreSQL does not have; `limit` for the number of rows to return; and Q15, which is
//!   the specification's variant A, with a common table expression for its view.
//! - [`Layout`] is how a configuration distributes the tables.
//!
//! The tests compare answers on it, the benchmark times: it is a crate of its own so that neither needs the other.

mod data;
mod layout;
mod query;

pub use data::tables;
pub use layout::Layout;
pub use query::{QUERIES, Query};

/// The tables with primary keys, and indexes where foreign keys start, for one PostgreSQL or for each shard.
pub const DDL: &str = include_str!("schema.sql");
