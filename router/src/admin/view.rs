//! A picture of the process at one moment.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::registry::{ClientEntry, ServerEntry};
use super::system::System;
use crate::backend::Purpose;
use crate::config::Settings;
use crate::control::CatalogStatus;
use crate::metrics::DatabaseTotals;
use crate::topology::{DatabaseTopology, Node, NodeId, Shard, Topology};

/// What SHOW commands and `/metrics` are made from.
#[derive(Clone, Debug)]
pub struct View {
    /// When the picture was taken.
    pub taken_at: SystemTime,
    /// When the process started.
    pub started_at: SystemTime,
    /// What the process runs by.
    pub settings: Arc<Settings>,
    /// The topology in force.
    pub topology: Arc<Topology>,
    /// Whether there is a catalog, and whether it answers.
    pub catalog: CatalogStatus,
    /// The counters by database.
    pub totals: DatabaseTotals,
    /// The clients, in order of login.
    pub clients: Vec<Arc<ClientEntry>>,
    /// The connections to nodes, in order of opening.
    pub servers: Vec<Arc<ServerEntry>>,
    /// The pools.
    pub pools: Vec<PoolReading>,
    /// What the system says of the process, where somebody has asked.
    pub system: System,
    /// The databases that are paused.
    pub paused: Vec<Arc<str>>,
    /// The databases that nobody may log in to.
    pub disabled: Vec<Arc<str>>,
}

/// How full one pool is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolReading {
    /// The node its connections lead to.
    pub node: NodeId,
    /// The database.
    pub database: Arc<str>,
    /// The user.
    pub user: Arc<str>,
    /// What its connections are for.
    pub purpose: Purpose,
    /// Connections that serve a session or are being opened.
    pub active: usize,
    /// Those of them that are being opened.
    pub opening: usize,
    /// Connections at rest.
    pub idle: usize,
    /// Sessions that wait for one.
    pub waiting: usize,
    /// Sessions that had to wait since the pool was made.
    pub waited: u64,
    /// How long the first in the queue has waited.
    pub longest_wait: Duration,
    /// The most connections there may be.
    pub size: usize,
}

/// A node with where it belongs.
#[derive(Clone, Copy, Debug)]
pub struct Located<'a> {
    /// The database.
    pub database: &'a Arc<DatabaseTopology>,
    /// The shard.
    pub shard: &'a Arc<Shard>,
    /// The node.
    pub node: &'a Arc<Node>,
}

impl View {
    /// All nodes, by database and shard.
    pub fn nodes(&self) -> impl Iterator<Item = Located<'_>> {
        self.topology.databases.values().flat_map(|database| {
            database.shards.iter().flat_map(move |shard| {
                let located = move |node| Located {
                    database,
                    shard,
                    node,
                };
                shard.nodes.iter().map(located)
            })
        })
    }

    /// The node of that identity, if the topology still has it.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<Located<'_>> {
        self.nodes().find(|located| located.node.id == id)
    }
}

impl Located<'_> {
    /// Host and port.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.node.host, self.node.port)
    }
}
