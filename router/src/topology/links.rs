//! Connections of a task of the control thread to nodes, mostly primaries, kept as long as they are good.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::link::{Link, LinkError, TextRow, Visitor};
use super::{Node, NodeId, Observed, Topology};
use crate::config::Settings;

/// The longest an answer may take.
const ANSWER: Duration = Duration::from_secs(3);

/// Links to nodes, each opened when it is first needed.
#[derive(Debug)]
pub(crate) struct Links {
    settings: watch::Receiver<Arc<Settings>>,
    open: HashMap<NodeId, Link>,
}

impl Links {
    /// None yet.
    pub(crate) fn new(settings: watch::Receiver<Arc<Settings>>) -> Self {
        Self {
            settings,
            open: HashMap::new(),
        }
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.borrow())
    }

    /// Asks a primary, by a new link if there is no good one. True if it was the link of the time before, whose session has
    /// gone on.
    ///
    /// # Errors
    /// [`LinkError`], also where the node is no primary at present.
    pub(crate) async fn ask(
        &mut self,
        database: &str,
        node: &Node,
        sql: &str,
    ) -> Result<(Vec<TextRow>, bool), LinkError> {
        if node.observed() != Observed::Primary {
            self.open.remove(&node.id);
            return Err(LinkError::Unreachable("no primary at present".to_owned()));
        }
        self.ask_any(database, node, sql).await
    }

    /// The same of any node.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(crate) async fn ask_any(
        &mut self,
        database: &str,
        node: &Node,
        sql: &str,
    ) -> Result<(Vec<TextRow>, bool), LinkError> {
        if let Some(mut link) = self.open.remove(&node.id) {
            let answer = link.ask(sql).await;
            if let Ok(_) | Err(LinkError::Refused { .. }) = answer {
                self.open.insert(node.id, link);
                return answer.map(|rows| (rows, true));
            }
        }
        let settings = self.settings();
        let Some(user) = settings.monitor_user() else {
            return Err(LinkError::Unreachable("no user is configured".to_owned()));
        };
        let connect = settings.file.router.timeouts.connect;
        let visitor = Visitor::new(user, connect, ANSWER);
        let mut link = Link::open(&visitor, node, database).await?;
        link.ask("SET lock_timeout = '1s'").await?;
        let answer = link.ask(sql).await;
        if let Ok(_) | Err(LinkError::Refused { .. }) = answer {
            self.open.insert(node.id, link);
        }
        answer.map(|rows| (rows, false))
    }

    /// Closes those to nodes that have left the topology.
    pub(crate) fn retain(&mut self, topology: &Topology) {
        let is_there = |id: &NodeId| topology.nodes().any(|node| node.id == *id);
        self.open.retain(|id, _| is_there(id));
    }

    /// Closes all.
    pub(crate) fn close(&mut self) {
        self.open.clear();
    }
}
