//! How the shards of a database number types and tables, looked at again and again.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::debug;

use crate::relations::{Oids, USER_TYPES, USER_TYPES_VERSION, UserType};
use crate::topology::link::LinkError;
use crate::topology::links::Links;
use crate::topology::loader::types_of;
use crate::topology::{DatabaseTopology, Shard, Topology};

/// What the primaries have said of their types.
#[derive(Debug)]
pub(super) struct OidReader {
    links: Links,
    /// By database and shard.
    known: HashMap<(Arc<str>, Arc<str>), Known>,
}

/// The types on one primary, and their version.
#[derive(Debug)]
struct Known {
    version: Option<String>,
    types: Vec<UserType>,
}

impl OidReader {
    pub(super) fn new(links: Links) -> Self {
        Self {
            links,
            known: HashMap::new(),
        }
    }

    /// Asks the primaries of a database. One that does not answer has the types that it had.
    pub(super) async fn read(&mut self, database: &DatabaseTopology) -> Oids {
        for shard in &database.shards {
            if let Err(error) = self.look(&database.name, shard).await {
                debug!(database = &*database.name, shard = &*shard.name, reason = %error, "cannot read types");
            }
        }
        let shards = database.shards.iter();
        let types = |shard: &Arc<Shard>| {
            let known = self.known.get(&(database.name.clone(), shard.name.clone()));
            known.map(|known| known.types.as_slice())
        };
        Oids::new(&shards.map(types).collect::<Vec<_>>())
    }

    async fn look(&mut self, database: &Arc<str>, shard: &Shard) -> Result<(), LinkError> {
        let (links, primary) = (&mut self.links, shard.primary());
        let (mut rows, _) = links.ask(database, primary, USER_TYPES_VERSION).await?;
        let version = rows.pop().and_then(|mut row| row.pop()).flatten();
        let of = (Arc::clone(database), Arc::clone(&shard.name));
        if let Some(known) = self.known.get(&of)
            && known.version == version
        {
            return Ok(());
        }
        let (rows, _) = links.ask(database, primary, USER_TYPES).await?;
        let types = types_of(rows)?;
        self.known.insert(of, Known { version, types });
        Ok(())
    }

    /// Forgets what has left the topology.
    pub(super) fn retain(&mut self, topology: &Topology) {
        self.links.retain(topology);
        let is_there = |database: &str, shard: &str| {
            let database = topology.database(database);
            database
                .is_some_and(|database| database.shards.iter().any(|known| *known.name == *shard))
        };
        self.known
            .retain(|(database, shard), _| is_there(database, shard));
    }
}
