//! What can go wrong with the catalog.

use std::io;

/// Why the catalog could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers where it is said to be.
    #[error(
        "the catalog cannot be reached at {address}: {source}; does its server run, and is the URL in [catalog] right?"
    )]
    Away {
        /// Host and port.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The server refuses, or breaks off.
    #[error("the catalog cannot be reached: {0}")]
    Unreachable(#[source] sqlx::Error),
    /// A query failed.
    #[error("the catalog failed: {0}")]
    Query(#[from] sqlx::Error),
    /// It took too long.
    #[error("the catalog did not answer in time")]
    Timeout,
    /// A newer program has migrated it.
    #[error("the catalog has version {found}, and this program knows versions up to {known}")]
    Newer {
        /// Its version.
        found: i32,
        /// The newest this program knows.
        known: i32,
    },
    /// It holds what no program of ours would write.
    #[error("the catalog is damaged: {0}")]
    Damaged(String),
}
