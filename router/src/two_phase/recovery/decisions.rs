//! The tables of decisions: made when they are first needed, and cleaned of what nobody needs any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use switchyard_catalog::{Catalog, Credentials};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{InDoubt, Recovery, is_true};
use crate::topology::link::LinkError;
use crate::topology::{DatabaseTopology, Node, Topology};
use crate::two_phase::GlobalId;

/// Between two looks for decisions that nobody needs any more.
pub(super) const CLEANING: Duration = Duration::from_secs(30);

/// The longest that the catalog's may take.
const CATALOG_ANSWERS: Duration = Duration::from_secs(5);

/// Whether decisions can be recorded here.
const IS_INSTALLED: &str = "\
SELECT pg_catalog.to_regclass('switchyard.decisions') IS NOT NULL AND pg_catalog.to_regclass('switchyard.prepared') IS NOT NULL";

/// Sees to it that decisions can be recorded here. The lock keeps two routers from doing so at a time.
const INSTALL: &str = "\
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('switchyard.decisions'));
CREATE SCHEMA IF NOT EXISTS switchyard;
CREATE TABLE IF NOT EXISTS switchyard.decisions (
    gid pg_catalog.text PRIMARY KEY,
    committed pg_catalog.bool NOT NULL DEFAULT true,
    decided_by pg_catalog.name NOT NULL DEFAULT session_user,
    decided_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now());
COMMENT ON TABLE switchyard.decisions IS 'Whether transactions on several shards, of which this one decides, are committed.';
CREATE TABLE IF NOT EXISTS switchyard.prepared (LIKE switchyard.decisions INCLUDING ALL);
COMMENT ON TABLE switchyard.prepared IS 'The same of transactions that clients prepare.';
GRANT USAGE ON SCHEMA switchyard TO PUBLIC;
GRANT SELECT, INSERT (gid, committed) ON switchyard.decisions, switchyard.prepared TO PUBLIC";

/// Decisions that may be of no use any more. One that says "rolled back" keeps its transaction from being committed for as long as
/// that may be tried; of what clients prepare nothing is tried once it has been decided.
const OLD_DECISIONS: &str = "\
SELECT gid FROM switchyard.decisions AS decided
WHERE decided_at < pg_catalog.now() - '1 minute'::pg_catalog.interval
  AND (committed OR NOT EXISTS (
    SELECT FROM pg_catalog.pg_locks
    WHERE locktype = 'transactionid' AND granted AND pid::pg_catalog.text = pg_catalog.split_part(decided.gid, '.', 3)))
UNION ALL
SELECT gid FROM switchyard.prepared WHERE decided_at < pg_catalog.now() - '1 minute'::pg_catalog.interval
LIMIT 10000";

impl Recovery {
    /// Decisions that may be of no use any more, by the primary they are on.
    pub(super) async fn old_decisions(
        &mut self,
        database: &DatabaseTopology,
    ) -> Vec<(Arc<Node>, Vec<GlobalId>)> {
        let mut old = Vec::new();
        for shard in &database.shards {
            let node = shard.primary();
            if !node.records_decisions() {
                continue;
            }
            match self.ask(database, node, OLD_DECISIONS).await {
                Ok(rows) => {
                    let names = rows.into_iter().filter_map(|row| row.into_iter().next()?);
                    let ids = names.filter_map(|name| GlobalId::parse(&name)).collect();
                    old.push((Arc::clone(node), ids));
                }
                Err(reason) => {
                    debug!(shard = %shard.name, %reason, "cannot see old decisions");
                }
            }
        }
        old
    }

    /// Removes decisions of the catalog of which no part is prepared anywhere any more.
    pub(super) async fn clean_catalog(&mut self, topology: &Topology) {
        let Some(credentials) = self.links.settings().catalog_credentials() else {
            return;
        };
        let cleaning = self.forget_of_catalog(topology, &credentials);
        match timeout(CATALOG_ANSWERS, cleaning).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "cannot remove old decisions of the catalog"),
            Err(_) => debug!("the catalog does not answer"),
        }
    }

    async fn forget_of_catalog(
        &mut self,
        topology: &Topology,
        credentials: &Credentials,
    ) -> Result<(), switchyard_catalog::Error> {
        let known: Vec<String> = topology.databases.keys().map(ToString::to_string).collect();
        let catalog = Catalog::open(credentials).await?;
        let mut old = catalog.old_decisions(&known).await?;
        for database in topology.databases.values() {
            if old.is_empty() {
                break;
            }
            let (in_doubt, all) = self.in_doubt(database).await;
            let is_done = |name: &String| {
                let id = GlobalId::parse(name);
                all && id.is_some_and(|id| !in_doubt.contains_key(&id))
            };
            old.retain(is_done);
        }
        if !old.is_empty() {
            catalog.forget(&old).await?;
        }
        catalog.close().await;
        Ok(())
    }

    /// Removes decisions of which no part is prepared anywhere any more.
    pub(super) async fn forget(
        &mut self,
        database: &DatabaseTopology,
        node: &Arc<Node>,
        ids: &[GlobalId],
        in_doubt: &BTreeMap<GlobalId, InDoubt>,
    ) {
        let is_done = |id: &&GlobalId| !in_doubt.contains_key(*id);
        let names: Vec<String> = ids
            .iter()
            .filter(is_done)
            .map(|id| escape_literal(&id.to_string()))
            .collect();
        if names.is_empty() {
            return;
        }
        let names = names.join(", ");
        let delete = format!(
            "DELETE FROM switchyard.decisions WHERE gid IN ({names}); DELETE FROM switchyard.prepared WHERE gid IN ({names})"
        );
        if let Err(reason) = self.ask(database, node, &delete).await {
            debug!(host = %node.host, port = node.port, %reason, "cannot remove old decisions");
        }
    }

    /// Sees to it that decisions can be recorded on this primary.
    pub(super) async fn install(
        &mut self,
        database: &Arc<str>,
        node: &Arc<Node>,
    ) -> Result<(), LinkError> {
        let mut installed = self.links.ask(database, node, IS_INSTALLED).await;
        if installed.as_ref().is_ok_and(|(rows, _)| !is_true(rows)) {
            installed = self.links.ask(database, node, INSTALL).await;
        }
        match &installed {
            Ok(_) => node.note_records_decisions(true),
            Err(reason) => {
                warn!(%database, host = %node.host, port = node.port, %reason, "transactions on several shards cannot be decided");
            }
        }
        installed.map(drop)
    }
}
