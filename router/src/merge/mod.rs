//! Rows of several shards made into the rows of one: the operators that are provably PostgreSQL's.
//!
//! Purpose: a [`Recipe`] says how the rows of a scattered statement become its result, and a [`Merger`] does it: it is fed
//! rows as they come, says whose it needs next, and gives the result row by row. Invariants: pure; it holds one row per
//! shard, and besides that only what a [`Recipe::sort`] has to see whole; it compares and adds only what is known to be
//! compared and added as PostgreSQL does, in the format the values come in. Collaborators: [`crate::plan`] makes recipes,
//! the session feeds them.

mod aggregate;
mod decimal;
mod group;
mod interleave;
mod limit;
mod merger;
mod order;
mod recipe;
#[cfg(test)]
mod tests;
mod value;

pub use decimal::Decimal;
pub use limit::Limit;
pub use merger::{Merger, Step};
pub use recipe::{Combine, Formats, Group, Recipe, SortKey};
pub use value::Kind;

/// Why rows could not be merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// A shard sent something the router takes for impossible.
    #[error("a shard sent a value of type {0} that cannot be read")]
    Unreadable(&'static str),
    /// A sum of `bigint` values is none.
    #[error("bigint out of range")]
    BigintOverflow,
    /// A sum of `numeric` values is none.
    #[error("value overflows numeric format")]
    NumericOverflow,
    /// The rows that have to be sorted together are more than the router keeps.
    #[error("the rows to be sorted take more than {0} bytes")]
    TooLarge(usize),
}
