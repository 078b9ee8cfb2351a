//! The admin console: what operators see and do through the database `switchyard`.
//!
//! Collaborators: sessions and pools enter themselves in the [`registry`].

pub mod registry;
