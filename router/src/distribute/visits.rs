//! Connections to every node by which statements there are cancelled that wait for a table whose rows are elsewhere by now.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::switchover::cancel_older;
use super::{Request, refused, silent};
use crate::config::Settings;
use crate::execute::failure::Failure;
use crate::topology::link::{Link, LinkError, Visitor};
use crate::topology::{Node, Observed};

/// Statements that began so recently may have been planned by what holds now.
const AGE: Duration = Duration::from_millis(10);
/// The longest that statements may take to heed that they are cancelled.
const HEED: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest one answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// One for each node that serves.
pub(super) struct Visits {
    nodes: Vec<Visit>,
    visitor: Visitor,
    database: Arc<str>,
}

struct Visit {
    node: Arc<Node>,
    shard: Arc<str>,
    link: Option<Link>,
}

impl Visits {
    /// Connects to all of them, before anything has been changed.
    pub(super) async fn open(request: &Request<'_>, settings: &Settings) -> Result<Self, Failure> {
        let user = settings
            .users
            .known(&request.database.name, request.user)
            .ok_or(Failure::Retry)?;
        let shards = request.database.shards.iter();
        let nodes = shards.flat_map(|shard| {
            shard.nodes.iter().map(|node| Visit {
                node: Arc::clone(node),
                shard: Arc::clone(&shard.name),
                link: None,
            })
        });
        let mut visits = Self {
            nodes: nodes.collect(),
            visitor: Visitor::new(&user, settings.file.router.timeouts.connect, ANSWER),
            database: Arc::clone(&request.database.name),
        };
        visits.cancel_once(HEED).await?;
        Ok(visits)
    }

    /// Cancels what waits, for as long as this is polled.
    pub(super) async fn cancel(&mut self) -> Infallible {
        loop {
            // Where it could not be done it is done in the end.
            drop(self.cancel_once(AGE).await);
            sleep(PAUSE).await;
        }
    }

    /// Everybody plans by what holds now: cancels what waits since before, until nothing is left of it.
    pub(super) async fn release(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            let failure = match self.cancel_once(AGE + began.elapsed()).await {
                Ok(false) => return Ok(()),
                Ok(true) => refused("55000", "statements do not heed it".to_owned()).into(),
                Err(failure) => failure,
            };
            if began.elapsed() > HEED {
                return Err(failure);
            }
            sleep(PAUSE).await;
        }
    }

    /// Cancels what has waited so long. Whether there was anything.
    async fn cancel_once(&mut self, age: Duration) -> Result<bool, Failure> {
        let (visitor, database) = (&self.visitor, &self.database);
        let mut any = false;
        for visit in &mut self.nodes {
            let cancelled = visit.cancel(visitor, database, age).await;
            any |= cancelled.map_err(|error| silent::failed(&visit.shard, error))?;
        }
        Ok(any)
    }
}

impl Visit {
    /// A node that is away serves nobody.
    async fn cancel(
        &mut self,
        visitor: &Visitor,
        database: &str,
        age: Duration,
    ) -> Result<bool, LinkError> {
        if !matches!(self.node.observed(), Observed::Primary | Observed::Standby) {
            return Ok(false);
        }
        let link = match self.link.take_if(|link| link.is_good()) {
            Some(link) => link,
            None => Link::open(visitor, &self.node, database).await?,
        };
        cancel_older(self.link.insert(link), age).await
    }
}
