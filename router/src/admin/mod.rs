//! The admin console: what operators see and do through the database `switchyard`.
//!
//! [`command`] reads a statement, [`show`] answers it with a [`Table`] from a [`View`], the picture of one moment;
//! `/metrics` is made from the same picture. Invariant: looking takes no lock that a query waits for longer than for a
//! counter.
//! Collaborators: sessions and connections enter themselves in the [`registry`].

pub mod activity;
pub(crate) mod asked;
pub mod command;
pub mod console;
pub mod order;
pub mod registry;
#[cfg(test)]
pub(crate) mod sample;
pub mod show;
pub mod system;
pub mod table;
mod time;
pub mod view;

pub use command::{Command, Topic, UnknownCommand};
pub use table::Table;
pub use view::View;
