//! The Switchyard router: clients connect to it as if it were one PostgreSQL.
//!
//! Modules follow a request: [`listener`] accepts, [`startup`] negotiates and authenticates, [`session`] runs the
//! request loop, [`sql`] and [`plan`] (pure) decide where a statement goes, [`execute`] talks to the shards through
//! [`backend`] connections of the nodes in [`topology`], [`merge`] (pure) makes the rows of several shards one result, and [`copy_in`] (pure) divides those of a client among them. Everything else operates the process.

pub mod admin;
pub mod backend;
pub(crate) mod buffers;
pub mod check;
pub mod cli;
pub mod config;
pub mod control;
pub mod copy_in;
pub mod deadlock;
pub mod demo;
pub mod distribute;
pub mod execute;
pub mod explain;
pub mod hearing;
pub mod http;
pub mod listener;
pub mod logging;
pub mod merge;
pub mod metrics;
pub mod plan;
pub mod process;
pub mod proven;
pub mod relations;
pub mod session;
pub mod sql;
pub mod startup;
pub mod stream;
pub mod topology;
pub mod two_phase;
pub mod worker;
