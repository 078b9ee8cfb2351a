//! Connections to every node of the shards concerned, by which others there are cancelled or ended.

use std::time::Duration;

use switchyard_catalog::RouterId;
use switchyard_router::distribute::strangers::end_strangers;
use switchyard_router::topology::link::{Link, LinkError, Visitor};
use switchyard_schema::ShardIndex;

use super::{Error, Work};
use crate::servers::{Server, ServerError};

/// The longest that one answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// A connection to a node, by which others there are cancelled.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) shard: ShardIndex,
    pub(super) name: String,
    pub(super) link: Link,
}

impl Visit {
    /// Ends connections that are of none of these routers. A node that is away serves nobody.
    pub(super) async fn end_strangers(
        &mut self,
        work: &Work<'_>,
        routers: &[RouterId],
    ) -> Result<(), Error> {
        match end_strangers(&mut self.link, work.settings, routers).await {
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
    let visitor = Visitor::new(work.user()?, connect, ANSWER);
    let mut visits = Vec::new();
    for server in servers {
        for node in &server.nodes {
            match Link::open(&visitor, node, &work.known.database.name).await {
                Ok(link) => visits.push(Visit {
                    shard: server.shard,
                    name: server.name.clone(),
                    link,
                }),
                Err(reason) => {
                    tracing::warn!(host = %node.host, port = node.port, %reason, "cannot cancel what waits there for rows that move");
                }
            }
        }
    }
    Ok(visits)
}
