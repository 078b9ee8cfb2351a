//! The random-query differential test: statements made from a seed go to the router and to a plain server with the same
//! data, and the answers must be the same.
//!
//! - [`schema`] and [`data`]: the tables, and their rows from a seed.
//! - [`generate`]: statements as small trees ([`query`]), which [`mod@print`] makes text of.
//! - [`compare`]: what two answers are to each other; where they differ, [`shrink`] looks for a smaller statement.
//! - [`servers`]: the databases and the router.
//! - [`Campaign`] runs many statements and counts.

mod campaign;
pub mod chance;
pub mod compare;
pub mod data;
pub mod generate;
pub mod print;
pub mod query;
pub mod schema;
mod scripts;
pub mod servers;
pub mod shrink;
pub mod types;

pub use campaign::{Campaign, Report};
pub use scripts::{Scripts, Written};
pub use servers::Servers;
