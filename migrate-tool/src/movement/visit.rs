//! Connections to every node of the shards concerned, by which others there are cancelled or ended.

use std::sync::Arc;
use std::time::Duration;

use switchyard_catalog::RouterId;
use switchyard_router::backend::TextRow;
use switchyard_router::distribute::strangers::end_strangers;
use switchyard_router::distribute::switchover::cancel_older;
use switchyard_router::topology::Node;
use switchyard_router::topology::link::{Link, LinkError, Visitor};
use switchyard_schema::ShardIndex;
use tokio::time::Instant;

use super::{Error, Work};
use crate::servers::{Server, ServerError};

/// The longest that one answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// A node that is away is tried again after this.
const AWAY: Duration = Duration::from_secs(1);

/// A connection to a node, by which others there are cancelled.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) shard: ShardIndex,
    pub(super) name: String,
    node: Arc<Node>,
    database: String,
    visitor: Arc<Visitor>,
    link: Option<Link>,
    /// The node was away, and is not to be tried before.
    away_until: Option<Instant>,
}

impl Visit {
    pub(super) fn new(
        server: &Server,
        node: &Arc<Node>,
        visitor: &Arc<Visitor>,
        database: &str,
    ) -> Self {
        Self {
            shard: server.shard,
            name: server.name.clone(),
            node: Arc::clone(node),
            database: database.to_owned(),
            visitor: Arc::clone(visitor),
            link: None,
            away_until: None,
        }
    }

    /// The connection; another one if that has broken, or answered too late.
    ///
    /// # Errors
    /// [`LinkError`]: there is none to be had.
    pub(super) async fn link(&mut self) -> Result<&mut Link, LinkError> {
        if let Some(link) = self.link.take_if(|link| link.is_good()) {
            return Ok(self.link.insert(link));
        }
        if self.away_until.is_some_and(|until| Instant::now() < until) {
            return Err(LinkError::Unreachable("the node is away".to_owned()));
        }
        match Link::open(&self.visitor, &self.node, &self.database).await {
            Ok(link) => {
                self.away_until = None;
                Ok(self.link.insert(link))
            }
            Err(reason) => {
                let (host, port) = (&self.node.host, self.node.port);
                tracing::warn!(%host, port, %reason, "cannot cancel what waits there for rows that move");
                self.away_until = Some(Instant::now() + AWAY);
                Err(reason)
            }
        }
    }

    pub(super) async fn ask(&mut self, sql: &str) -> Result<Vec<TextRow>, LinkError> {
        self.link().await?.ask(sql).await
    }

    /// Cancels what has waited so long there for tables that are locked by something prepared. Whether there was anything, or may be:
    /// a node that is away serves nobody, one that does not answer in time may.
    pub(super) async fn cancel_older(&mut self, age: Duration) -> bool {
        let Ok(link) = self.link().await else {
            return false;
        };
        match cancel_older(link, age).await {
            Ok(any) => any,
            Err(reason) => {
                tracing::warn!(shard = self.name, %reason, "cannot cancel what waits for rows that move");
                !matches!(reason, LinkError::Refused { .. })
            }
        }
    }

    /// Ends connections that are of none of these routers. A node that is away serves nobody.
    pub(super) async fn end_strangers(
        &mut self,
        work: &Work<'_>,
        routers: &[RouterId],
    ) -> Result<(), Error> {
        // The warning has been given.
        let Ok(link) = self.link().await else {
            return Ok(());
        };
        match end_strangers(link, work.settings, routers).await {
            Err(LinkError::Lost(reason)) => {
                tracing::warn!(shard = self.name, %reason, "a node is away");
                Ok(())
            }
            ended => ended.map_err(|source| self.failed(work, source)),
        }
    }

    pub(super) fn failed(&self, work: &Work<'_>, source: LinkError) -> Error {
        let database = work.known.database.name.clone();
        let shard = self.name.clone();
        Error::Server(ServerError::Failed {
            database,
            shard,
            source,
        })
    }
}

/// Connections to all nodes of some shards. A replica that is away serves nobody.
pub(super) async fn visits(work: &Work<'_>, servers: &[Server]) -> Result<Vec<Visit>, Error> {
    let connect = work.settings.file.router.timeouts.connect;
    let visitor = Arc::new(Visitor::new(work.user()?, connect, ANSWER));
    let name = &work.known.database.name;
    let mut visits = Vec::new();
    for server in servers {
        for node in &server.nodes {
            let mut visit = Visit::new(server, node, &visitor, name);
            let _warned = visit.link().await;
            visits.push(visit);
        }
    }
    Ok(visits)
}
