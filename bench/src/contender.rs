//! What is compared.

use serde::Serialize;
use switchyard_cluster::{Companion, Port};

use crate::options::{Protocol, Scenario, Script};

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Name {
    /// PostgreSQL itself.
    Direct,
    /// A proxy that only copies bytes, one server connection for each client: what any proxy costs.
    Floor,
    /// PgBouncer.
    Pgbouncer,
    /// The router in front of one node, nothing sharded.
    Router,
    /// The router in front of the same node as its only shard, accounts sharded by hash of their key.
    Routed,
    /// The router in front of two shards, accounts sharded by hash of their key.
    Sharded,
}

impl Name {
    /// Everybody, the reference first.
    pub(crate) const ALL: [Name; 6] = [
        Name::Direct,
        Name::Floor,
        Name::Pgbouncer,
        Name::Router,
        Name::Routed,
        Name::Sharded,
    ];

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Name::Direct => "PostgreSQL",
            Name::Floor => "byte copy",
            Name::Pgbouncer => "PgBouncer",
            Name::Router => "router, 1 node",
            Name::Routed => "router, by key",
            Name::Sharded => "router, 2 shards",
        }
    }

    /// TPC-B's transaction touches an account, a teller and a branch with keys of their own: not one shard's.
    pub(crate) fn runs(self, scenario: Scenario) -> bool {
        !(matches!(self, Name::Routed | Name::Sharded) && scenario.script == Script::TpcB)
    }
}

/// A process of ours that takes connections.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// The port, which stays ours.
    pub(crate) port: Port,
    /// The process.
    pub(crate) process: Companion,
}

/// One that takes part, running.
#[derive(Debug)]
pub(crate) struct Contender {
    /// Who it is.
    pub(crate) name: Name,
    /// What it is exactly: its version, its mode.
    pub(crate) description: String,
    /// Where it takes connections.
    pub(crate) usual: Target,
    /// Where it takes connections of those who use prepared statements, if that is another place.
    pub(crate) prepared: Option<Target>,
}

/// Where pgbench connects to.
#[derive(Debug)]
pub(crate) enum Target {
    /// A server of the cluster.
    Server(u16),
    /// A process of ours.
    Process(Endpoint),
}

impl Target {
    /// The port.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Target::Server(port) => *port,
            Target::Process(endpoint) => endpoint.port.number(),
        }
    }

    /// The process that stands between; none for PostgreSQL itself.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self {
            Target::Server(_) => None,
            Target::Process(endpoint) => Some(endpoint.process.id()),
        }
    }
}

impl Contender {
    /// Where statements of this protocol go.
    pub(crate) fn target(&self, protocol: Protocol) -> &Target {
        match (&self.prepared, protocol) {
            (Some(prepared), Protocol::Prepared) => prepared,
            _ => &self.usual,
        }
    }
}
