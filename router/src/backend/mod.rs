//! PostgreSQL as we are its client: connections to nodes, and the pools that lend them to sessions.
//!
//! Invariant: a connection goes back to its pool only when it is provably clean ([`Connection::is_reusable`]);
//! anything else closes it. Collaborators: [`crate::topology`] names the nodes, [`crate::session`] borrows.

mod admission;
mod authenticate;
mod command_tag;
mod connection;
mod gate;
mod kept;
mod pool;
mod pools;
mod prepared;
mod quota;
mod refusal;
mod renumbering;
mod replies;
mod scram_keys;
mod settings;
pub mod transfer;
mod turn;

pub use admission::Admission;
pub(crate) use command_tag::CommandTag;
pub use connection::{ConnectError, ConnectOptions, Connection, QueryError, TextRow};
pub use gate::{Gate, Gates};
pub(crate) use kept::{Kept, Meaning, Meeting};
pub use pool::{Borrowed, CheckoutError, Pool, PoolLimits, PoolUse};
pub use pools::{PoolKey, Pools, Purpose, SharedLimits};
pub use prepared::PreparedSet;
pub(crate) use replies::{Event, Replies, Reply, Show, Undone};
pub use scram_keys::ScramKeys;
pub(crate) use settings::{CONSISTENT_READ, LAYER, ROUTE, boolean};
pub use settings::{Settings, set_config};
pub use turn::Turn;
