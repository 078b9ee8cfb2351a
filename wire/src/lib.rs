//! The PostgreSQL frontend/backend protocol, versions 3.0 and 3.2, as pure functions over bytes.
//!
//! Both directions live here, each with its decoder and its encoder, so that the router, its tests and the fuzzers
//! share one codec. Nothing here reads a socket, a clock or a file; the caller brings whole messages, found with
//! [`frame::header`], and gets borrowed views of them.
//!
//! Invariants:
//! - Decoding allocates nothing. A decoded message borrows the bytes it was decoded from.
//! - A message is checked whole when it is decoded: lists, values and fields are walked once, so that reading them
//!   afterwards cannot fail or panic.
//! - A length is compared with the bytes that are there before it is used.
//! - Encoders append to a [`bytes::BytesMut`] and cannot fail; see [`frame`] for what happens at the limits.

mod body;

pub mod backend;
pub mod frame;
pub mod frontend;
pub mod list;
pub mod scram;
pub mod sqlstate;
pub mod startup;

pub use body::DecodeError;
pub use list::{Format, Formats, Oids, Values, ValuesIter};
pub use sqlstate::SqlState;
