//! How the data is laid out: databases, tables, buckets, shards and nodes.

use std::sync::Arc;

use switchyard_schema::{BUCKETS, Distribution, Role, Table as Configured};

use crate::admin::table::{List, Table};
use crate::admin::view::{Located, View};
use crate::topology::{DatabaseTopology, Node, Observed, Shard};

pub(super) fn databases(view: &View) -> Table {
    // What holds for a user of whom nothing is said.
    let config = |database: &Arc<DatabaseTopology>| view.settings.file.pool(&database.name, "");
    List::of(view.topology.databases.values())
        .text("name", |database| &*database.name)
        // Of the first shard, as one PostgreSQL would say it.
        .text("host", |database| {
            first_node(database).map(|node| &*node.host)
        })
        .number("port", |database| {
            first_node(database).map(|node| node.port)
        })
        .text("database", |database| &*database.name)
        .number("shards", |database| database.shards.len())
        .number("nodes", |database| {
            let shards = database.shards.iter();
            shards.map(|shard| shard.nodes.len()).sum::<usize>()
        })
        .number("pool_size", |database| config(database).size)
        .number("min_pool_size", |database| config(database).min_size)
        .number("reserve_pool_size", |database| {
            config(database).reserve_size
        })
        .text("pool_mode", |database| config(database).mode.name())
        .number("max_connections", |database| {
            config(database).max_db_connections
        })
        .number("current_connections", |database| {
            let pools = view.pools.iter();
            pools
                .filter(|pool| pool.database == database.name)
                .map(|pool| pool.active + pool.idle)
                .sum::<usize>()
        })
        .number("max_client_connections", |database| {
            config(database).max_db_client_connections
        })
        .number("current_client_connections", |database| {
            let clients = view.clients.iter();
            clients
                .filter(|client| client.database == database.name)
                .count()
        })
        .number("epoch", |database| database.epoch)
        .number("generation", |database| database.generation)
        .number("problems", |database| database.relations.problems().len())
        .number("paused", |database| {
            u64::from(view.paused.contains(&database.name))
        })
        .number("disabled", |database| {
            u64::from(view.disabled.contains(&database.name))
        })
        .done()
}

fn first_node(database: &DatabaseTopology) -> Option<&Arc<Node>> {
    database.shards.first().map(|shard| shard.primary())
}

/// A shard with where it belongs.
struct Placed<'a> {
    database: &'a Arc<DatabaseTopology>,
    shard: &'a Arc<Shard>,
    position: usize,
    buckets: usize,
}

fn placed(view: &View) -> impl Iterator<Item = Placed<'_>> {
    view.topology.databases.values().flat_map(|database| {
        let counts = database.buckets.counts(database.shards.len());
        let shards = database.shards.iter().zip(counts).enumerate();
        shards.map(move |(position, (shard, buckets))| Placed {
            database,
            shard,
            position,
            buckets,
        })
    })
}

pub(super) fn shards(view: &View) -> Table {
    List::of(placed(view))
        .text("database", |placed| &*placed.database.name)
        .text("shard", |placed| &*placed.shard.name)
        .number("position", |placed| placed.position)
        .number("weight", |placed| {
            let configured = placed.database.schema.shards.get(placed.position);
            configured.map_or(0, |shard| shard.weight)
        })
        .text("primary", |placed| {
            let primary = placed.shard.primary();
            format!("{}:{}", primary.host, primary.port)
        })
        .text("primary_state", |placed| {
            placed.shard.primary().observed().label()
        })
        .number("replicas", |placed| placed.shard.replicas().count())
        .number("replicas_up", |placed| {
            let replicas = placed.shard.replicas();
            replicas
                .filter(|node| node.observed() == Observed::Standby)
                .count()
        })
        .number("buckets", |placed| placed.buckets)
        .number("sample", |placed| placed.shard.samples().started())
        .done()
}

pub(super) fn nodes(view: &View) -> Table {
    let is_replica = |located: &Located<'_>| located.node.role == Role::Replica;
    List::of(view.nodes())
        .number("id", |located| located.node.id.0)
        .text("database", |located| &*located.database.name)
        .text("shard", |located| &*located.shard.name)
        .text("host", |located| &*located.node.host)
        .number("port", |located| located.node.port)
        .text("role", |located| located.node.role.to_string())
        .text("state", |located| located.node.observed().label())
        .text("zone", |located| located.node.zone.as_deref())
        .number("lag_ms", |located| {
            // A replica that nothing is known of has an endless lag.
            let lag = u64::try_from(located.node.lag().as_millis()).unwrap_or(u64::MAX);
            (is_replica(located) && lag < u64::MAX).then_some(lag)
        })
        .number("passed_sample", |located| {
            is_replica(located).then(|| located.node.passed().1)
        })
        .number("incarnation", |located| located.node.passed().0.0)
        .number("in_use", |located| located.node.in_use())
        .number("failures", |located| located.node.failures())
        .done()
}

/// A table of the configuration.
struct Entry<'a> {
    database: &'a Arc<DatabaseTopology>,
    configured: &'a Configured,
}

impl<'a> Entry<'a> {
    fn key(&self) -> Option<&'a switchyard_schema::ShardKey> {
        match &self.configured.distribution {
            Distribution::Reference => None,
            Distribution::Sharded(key) => Some(key),
        }
    }

    /// From keys to shards, as far as the table has been found.
    fn map(&self) -> Option<&'a Arc<switchyard_schema::KeyMap>> {
        let name = &self.configured.name;
        let relation = self.database.relations.get(&name.schema, &name.name)?;
        Some(&relation.sharding()?.map)
    }

    fn shards(&self) -> String {
        match self.map() {
            Some(map) => {
                let shards = map.shards();
                let shards = shards
                    .iter()
                    .filter_map(|index| self.database.shards.get(index.position()));
                let names: Vec<&str> = shards.map(|shard| &*shard.name).collect();
                names.join(", ")
            }
            None if self.key().is_none() => "all".to_owned(),
            None => "unknown".to_owned(),
        }
    }

    fn problem(&self) -> Option<String> {
        let problems = self.database.relations.problems().iter();
        let own = problems.filter(|problem| problem.table == self.configured.name);
        let own: Vec<&str> = own.map(|problem| problem.message.as_str()).collect();
        (!own.is_empty()).then(|| own.join("; "))
    }
}

pub(super) fn tables(view: &View) -> Table {
    let tables = view.topology.databases.values().flat_map(|database| {
        let tables = database.schema.tables.iter();
        tables.map(move |configured| Entry {
            database,
            configured,
        })
    });
    List::of(tables)
        .text("database", |table| &*table.database.name)
        .text("table", |table| table.configured.name.to_string())
        .text("method", |table| {
            table.key().map_or("reference", |key| key.method.name())
        })
        .text("shard_key", |table| table.key().map(|key| &*key.column))
        .text("key_type", |table| {
            table.map().map(|map| map.key_type().name())
        })
        .text("colocate_with", |table| {
            let other = table.key().and_then(|key| key.colocate_with.as_ref());
            other.map(ToString::to_string)
        })
        .text("shards", Entry::shards)
        .text("problem", Entry::problem)
        .done()
}

pub(super) fn buckets(view: &View) -> Table {
    List::of(placed(view))
        .text("database", |placed| &*placed.database.name)
        .text("shard", |placed| &*placed.shard.name)
        .number("buckets", |placed| placed.buckets)
        .text("share", |placed| {
            format!("{:.2} %", 100.0 * placed.buckets as f64 / BUCKETS as f64)
        })
        .number("epoch", |placed| placed.database.epoch)
        .done()
}

/// Movements of rows that have begun and are not finished, as the catalog has them.
pub(super) fn migrations(view: &View) -> Table {
    let databases = view.topology.databases.values();
    let begun = databases.filter_map(|database| Some((database, database.movement?)));
    List::of(begun)
        .text("database", |(database, _)| &*database.name)
        .text("state", |(_, movement)| movement.state())
        .number("buckets", |(_, movement)| movement.buckets[0])
        .number("buckets_left", |(_, movement)| movement.buckets[1])
        .number("tables", |(_, movement)| movement.tables[0])
        .number("tables_left", |(_, movement)| movement.tables[1])
        .number("epoch", |(database, _)| database.epoch)
        .done()
}

/// Routers that share an address, this one first.
pub(super) fn peers(view: &View) -> Table {
    let file = &view.settings.file;
    let own = (file.router.peer_id, &file.router.listen);
    let others = file.peers.iter().map(|peer| (peer.id, &peer.address));
    let all = std::iter::once(own).chain(others);
    List::of(all.filter(|(id, _)| *id > 0))
        .number("peer_id", |(id, _)| *id)
        .text("host", |(_, address)| address.host.clone())
        .number("port", |(_, address)| address.port)
        .done()
}
