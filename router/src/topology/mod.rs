//! The map of databases, shards and nodes, as every other part of the router sees it.
//!
//! Invariant: a [`Topology`] is immutable; a change is a new snapshot published in [`Published`]. What moves without a
//! new snapshot (health, measured replay positions, connections in use) lives in atomics of [`Node`] and [`Shard`],
//! which keep their identity over reloads, so that choosing a node takes no lock and allocates nothing.
//!
//! Collaborators: the monitor measures nodes on the control thread, [`consistency`] decides which replica may
//! serve a read, sessions choose and report, pools are keyed by [`NodeId`].

pub mod builder;
pub mod consistency;
pub mod history;
pub mod link;
pub(crate) mod links;
pub mod loader;
pub mod monitor;
pub mod node;

mod choice;
mod heartbeat;
#[cfg(test)]
mod simulation;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, Guard};

use switchyard_catalog::Progress;
use switchyard_schema::{BucketMap, Database};

pub use choice::Choice;
pub use consistency::{Consistency, ReadFloor, Samples};
pub use heartbeat::Heartbeat;
pub use node::{Incarnation, Node, NodeId, Observed};
pub use switchyard_schema::{ReadPolicy, Role};

use crate::relations::{Oids, Relations};

/// Where the current snapshot is, for all threads. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Published(Arc<Place>);

#[derive(Debug, Default)]
struct Place {
    current: ArcSwap<Topology>,
    /// Of the current snapshot.
    generation: AtomicU64,
}

impl Published {
    /// Publishes a first snapshot.
    #[must_use]
    pub fn new(topology: Topology) -> Self {
        Self(Arc::new(Place {
            generation: AtomicU64::new(topology.generation),
            current: ArcSwap::from_pointee(topology),
        }))
    }

    /// The current snapshot's [`Topology::generation`]: whether there is a new one costs no more than a load to know.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::SeqCst)
    }

    /// The current snapshot for a short look: lock-free and without touching a reference count in the common case.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Topology>> {
        self.0.current.load()
    }

    /// The current snapshot to keep for a request.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Topology> {
        self.0.current.load_full()
    }

    /// Replaces the snapshot; requests under way keep theirs.
    pub fn publish(&self, topology: Topology) {
        let generation = topology.generation;
        self.0.current.store(Arc::new(topology));
        self.0.generation.store(generation, Ordering::SeqCst);
    }
}

/// One immutable snapshot of everything the router serves.
#[derive(Debug, Default)]
pub struct Topology {
    /// Databases by the name clients connect to.
    pub databases: BTreeMap<Arc<str>, Arc<DatabaseTopology>>,
    /// Grows by one with every snapshot published.
    pub generation: u64,
}

impl Topology {
    /// All nodes of all databases.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        let shards = self
            .databases
            .values()
            .flat_map(|database| &database.shards);
        shards.flat_map(|shard| &shard.nodes)
    }

    /// The database clients call `name`.
    #[must_use]
    pub fn database(&self, name: &str) -> Option<&Arc<DatabaseTopology>> {
        self.databases.get(name)
    }
}

/// One sharded database.
#[derive(Debug)]
pub struct DatabaseTopology {
    /// Its name, here and on every node.
    pub name: Arc<str>,
    /// Shards in the order of the configuration: the position is the shard's index.
    pub shards: Vec<Arc<Shard>>,
    /// Tables, shards and nodes as configured.
    pub schema: Arc<Database>,
    /// What introspection found on the shards; empty until the first load.
    pub relations: Arc<Relations>,
    /// How the shards number types and tables.
    pub oids: Arc<Oids>,
    /// Which shard owns which bucket.
    pub buckets: Arc<BucketMap>,
    /// Version of the bucket map.
    pub epoch: u64,
    /// Rows may be on their way from shard to shard: what is cancelled for them is run again.
    pub is_moving: bool,
    /// The movement that has begun, for people.
    pub movement: Option<Progress>,
    /// The first snapshot with these relations and this map: plans made under one generation are good under it only.
    pub generation: u64,
    /// Parameters the servers report at connect (`server_version`, `TimeZone`, …), for our own `ParameterStatus`.
    pub parameters: Arc<[(Box<str>, Box<str>)]>,
}

impl DatabaseTopology {
    /// The same with other relations, which plans of no other generation know.
    #[must_use]
    pub fn with_relations(&self, relations: Relations, oids: Oids, generation: u64) -> Self {
        Self {
            name: Arc::clone(&self.name),
            shards: self.shards.clone(),
            schema: Arc::clone(&self.schema),
            relations: Arc::new(relations),
            oids: Arc::new(oids),
            buckets: Arc::clone(&self.buckets),
            epoch: self.epoch,
            is_moving: self.is_moving,
            movement: self.movement,
            generation,
            parameters: Arc::clone(&self.parameters),
        }
    }

    /// Whether both have every row at the same place.
    #[must_use]
    pub fn places_like(&self, other: &Self) -> bool {
        let same_schema = Arc::ptr_eq(&self.schema, &other.schema);
        (same_schema || self.schema.tables == other.schema.tables)
            && self.epoch == other.epoch
            && (Arc::ptr_eq(&self.buckets, &other.buckets) || self.buckets == other.buckets)
    }
}

/// One horizontal part of a database: a primary and its replicas.
#[derive(Debug)]
pub struct Shard {
    /// Its configured name.
    pub name: Arc<str>,
    /// All nodes in the order of the configuration.
    pub nodes: Vec<Arc<Node>>,
    primary: usize,
    samples: Arc<Samples>,
    turn: AtomicUsize,
}

impl Shard {
    /// A shard of `nodes`, of which `nodes[primary]` is the configured primary. `None` if there is no such node.
    #[must_use]
    pub fn new(
        name: Arc<str>,
        nodes: Vec<Arc<Node>>,
        primary: usize,
        samples: Arc<Samples>,
    ) -> Option<Self> {
        (primary < nodes.len()).then_some(Self {
            name,
            nodes,
            primary,
            samples,
            turn: AtomicUsize::new(0),
        })
    }

    /// The configured primary, whatever its health.
    #[must_use]
    pub fn primary(&self) -> &Arc<Node> {
        &self.nodes[self.primary]
    }

    /// The configured replicas, whatever their health.
    pub fn replicas(&self) -> impl Iterator<Item = &Arc<Node>> {
        let primary = self.primary;
        self.nodes
            .iter()
            .enumerate()
            .filter(move |(position, _)| *position != primary)
            .map(|(_, node)| node)
    }

    /// The shard's samples of its primary's position.
    #[must_use]
    pub fn samples(&self) -> &Arc<Samples> {
        &self.samples
    }
}

/// A shard cannot serve this request now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// The shard's name.
    pub shard: Arc<str>,
    /// Why.
    pub reason: UnavailableReason,
}

/// Why a shard cannot serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnavailableReason {
    /// The primary does not answer.
    PrimaryDown,
    /// The configured primary is in recovery, so it takes no writes.
    PrimaryInRecovery,
}

impl Unavailable {
    /// `connection_failure`.
    pub const SQLSTATE: &'static str = "08006";
}

impl fmt::Display for Unavailable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.reason {
            UnavailableReason::PrimaryDown => "its primary does not answer",
            UnavailableReason::PrimaryInRecovery => "its configured primary is in recovery",
        };
        write!(
            formatter,
            "shard \"{}\" is unavailable: {reason}",
            self.shard
        )
    }
}

impl std::error::Error for Unavailable {}
