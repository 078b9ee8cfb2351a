//! From configuration to snapshots, with identities that last.
//!
//! Invariant: a node keeps its [`NodeId`] and vitals for as long as its database, shard and address are configured, and a shard
//! its sample numbers for as long as the process lives. Collaborators: the control thread owns the one [`Builder`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use switchyard_catalog::Progress;
use switchyard_schema::{BucketMap, Database, Role};
use tokio::sync::Notify;

use super::consistency::Samples;
use super::node::{Node, NodeId, Vitals};
use super::{DatabaseTopology, Shard, Topology};
use crate::relations::{Oids, Relations};

/// What a snapshot of one database is made of.
#[derive(Clone, Debug)]
pub struct DatabaseState {
    /// Shards, nodes and tables.
    pub schema: Arc<Database>,
    /// The bucket map.
    pub buckets: Arc<BucketMap>,
    /// Version of the bucket map.
    pub epoch: u64,
    /// Rows may be on their way from shard to shard.
    pub is_moving: bool,
    /// The movement that has begun.
    pub movement: Option<Progress>,
    /// What introspection found.
    pub relations: Arc<Relations>,
    /// How the shards number types and tables.
    pub oids: Arc<Oids>,
    /// What the servers report at connect.
    pub parameters: Arc<[(Box<str>, Box<str>)]>,
}

impl DatabaseState {
    /// A database as configured, before its servers have been asked anything. Without a map from the catalog, buckets
    /// are placed by the ring.
    #[must_use]
    pub fn configured(schema: Arc<Database>) -> Self {
        let buckets = Arc::new(BucketMap::place(&schema.weights()));
        Self {
            schema,
            buckets,
            epoch: 0,
            is_moving: false,
            movement: None,
            relations: Arc::default(),
            oids: Arc::default(),
            parameters: Arc::default(),
        }
    }
}

impl DatabaseState {
    /// Whether a statement's plan is the same under both.
    fn plans_like(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.relations, &other.relations)
            && Arc::ptr_eq(&self.oids, &other.oids)
            && Arc::ptr_eq(&self.buckets, &other.buckets)
            && self.epoch == other.epoch
            && (Arc::ptr_eq(&self.schema, &other.schema) || self.schema == other.schema)
    }
}

/// Makes snapshots.
#[derive(Debug, Default)]
pub struct Builder {
    last_node: u32,
    generation: u64,
    nodes: HashMap<NodeKey, (NodeId, Arc<Vitals>)>,
    samples: HashMap<ShardKey, Arc<Samples>>,
    /// What each database's last snapshot was made of, and its generation.
    last: BTreeMap<String, (DatabaseState, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ShardKey {
    database: Box<str>,
    shard: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct NodeKey {
    shard: ShardKey,
    host: Box<str>,
    port: u16,
}

impl Builder {
    /// The snapshot of these databases. Nodes that are in none of them are forgotten.
    pub fn build<'a>(
        &mut self,
        databases: impl IntoIterator<Item = &'a DatabaseState>,
    ) -> Topology {
        self.generation += 1;
        let mut known = HashMap::new();
        let mut by_name = BTreeMap::new();
        let mut made = BTreeMap::new();
        for state in databases {
            let before = self.last.get(&state.schema.name);
            let same = before.filter(|(last, _)| last.plans_like(state));
            let generation = same.map_or(self.generation, |(_, generation)| *generation);
            made.insert(state.schema.name.clone(), (state.clone(), generation));
            let shards = state
                .schema
                .shards
                .iter()
                .filter_map(|shard| self.shard(&state.schema.name, shard, &mut known))
                .collect();
            let name: Arc<str> = state.schema.name.as_str().into();
            let database = DatabaseTopology {
                name: Arc::clone(&name),
                shards,
                schema: Arc::clone(&state.schema),
                relations: Arc::clone(&state.relations),
                oids: Arc::clone(&state.oids),
                buckets: Arc::clone(&state.buckets),
                epoch: state.epoch,
                is_moving: state.is_moving,
                movement: state.movement,
                generation,
                parameters: Arc::clone(&state.parameters),
            };
            by_name.insert(name, Arc::new(database));
        }
        self.nodes = known;
        self.last = made;
        Topology {
            databases: by_name,
            generation: self.generation,
        }
    }

    fn shard(
        &mut self,
        database: &str,
        shard: &switchyard_schema::Shard,
        known: &mut HashMap<NodeKey, (NodeId, Arc<Vitals>)>,
    ) -> Option<Arc<Shard>> {
        let key = ShardKey {
            database: database.into(),
            shard: shard.name.as_str().into(),
        };
        let samples = self
            .samples
            .entry(key.clone())
            .or_insert_with(|| Arc::new(Samples::new(Arc::new(Notify::new()))));
        let samples = Arc::clone(samples);
        let nodes: Vec<_> = shard
            .nodes
            .iter()
            .map(|node| self.node(&key, node, known))
            .collect();
        let primary = nodes.iter().position(|node| node.role == Role::Primary)?;
        Shard::new(shard.name.as_str().into(), nodes, primary, samples).map(Arc::new)
    }

    fn node(
        &mut self,
        shard: &ShardKey,
        node: &switchyard_schema::Node,
        known: &mut HashMap<NodeKey, (NodeId, Arc<Vitals>)>,
    ) -> Arc<Node> {
        let key = NodeKey {
            shard: shard.clone(),
            host: node.host.as_str().into(),
            port: node.port,
        };
        let (id, vitals) = self.nodes.get(&key).cloned().unwrap_or_else(|| {
            self.last_node += 1;
            (
                NodeId(self.last_node),
                Arc::new(Vitals::new(Arc::new(Notify::new()))),
            )
        });
        known.insert(key, (id, Arc::clone(&vitals)));
        Arc::new(Node::new(id, node, vitals))
    }
}

#[cfg(test)]
mod tests {
    use switchyard_schema::{NodeTls, SslMode};

    use super::*;

    fn database(shards: &[(&str, &[u16])]) -> DatabaseState {
        let node = |(position, port): (usize, &u16)| switchyard_schema::Node {
            host: "127.0.0.1".into(),
            port: *port,
            role: if position == 0 {
                Role::Primary
            } else {
                Role::Replica
            },
            zone: None,
            tls: NodeTls {
                mode: SslMode::Disable,
                root_cert: None,
            },
            dbname: None,
        };
        let shard = |(name, ports): &(&str, &[u16])| switchyard_schema::Shard {
            name: (*name).into(),
            weight: 1,
            nodes: ports.iter().enumerate().map(node).collect(),
        };
        DatabaseState::configured(Arc::new(Database {
            name: "shop".into(),
            shards: shards.iter().map(shard).collect(),
            tables: Vec::new(),
        }))
    }

    fn ids(topology: &Topology) -> Vec<Vec<u32>> {
        let database = topology.database("shop").unwrap();
        let nodes = |shard: &Arc<Shard>| shard.nodes.iter().map(|node| node.id.0).collect();
        database.shards.iter().map(nodes).collect()
    }

    #[test]
    fn identities_last_over_reloads() {
        let mut builder = Builder::default();
        let before = builder.build([&database(&[("s0", &[1, 2]), ("s1", &[3])])]);
        before.database("shop").unwrap().shards[0]
            .primary()
            .report_failure();
        before.database("shop").unwrap().shards[0].samples().begin();
        let after = builder.build([&database(&[("s0", &[2, 1, 4])])]);
        assert_eq!(ids(&before), [vec![1, 2], vec![3]]);
        assert_eq!(ids(&after), [vec![2, 1, 4]]);
        let shard = &after.database("shop").unwrap().shards[0];
        assert_eq!(shard.primary().id, NodeId(2));
        assert_eq!(shard.nodes[1].failures(), 1);
        assert_eq!(shard.samples().started(), 1);
        assert!(after.generation > before.generation);
    }

    #[test]
    fn plans_are_kept_while_nothing_they_depend_on_changes() {
        let mut builder = Builder::default();
        let generation = |topology: &Topology| topology.database("shop").unwrap().generation;
        let mut state = database(&[("s0", &[1])]);
        let first = builder.build([&state]);
        state.parameters = Arc::from([("TimeZone".into(), "UTC".into())]);
        let second = builder.build([&state]);
        assert!(second.generation > first.generation);
        assert_eq!(generation(&second), generation(&first));
        state.relations = Arc::default();
        assert!(generation(&builder.build([&state])) > generation(&first));
    }

    #[test]
    fn a_node_that_left_and_came_back_is_another() {
        let mut builder = Builder::default();
        builder.build([&database(&[("s0", &[1, 2])])]);
        builder.build([&database(&[("s0", &[1])])]);
        let again = builder.build([&database(&[("s0", &[1, 2])])]);
        assert_eq!(ids(&again), [vec![1, 3]]);
    }
}
