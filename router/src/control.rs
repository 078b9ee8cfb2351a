//! The control thread: it alone changes the topology.
//!
//! It watches the nodes, reads the shards' catalogues, follows the catalog, and publishes a new snapshot when any of
//! them says something new. Invariant: nothing here is on a query's path; a session that needs something done (relations
//! read anew after DDL) sends a request and awaits the answer. Requests for the same thing are answered by one read that
//! began after all of them.
//!
//! Collaborators: [`crate::topology`] has the parts, [`crate::catalog`] the actual state when there is one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::Settings;
use crate::relations::{Introspection, Relations};
use crate::topology::builder::{Builder, DatabaseState};
use crate::topology::link::{Link, LinkError, Visitor};
use crate::topology::loader::{self, Fingerprint};
use crate::topology::monitor::Monitor;
use crate::topology::{DatabaseTopology, Node, Observed, Published};

/// Between two looks at the version of the shards' catalogues, for changes made past this router.
const DRIFT_INTERVAL: Duration = Duration::from_secs(2);
/// Relations are read at most this often for names that are not known.
const UNKNOWN_INTERVAL: Duration = Duration::from_secs(1);
/// Between two attempts to read relations that could not be read.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Reading a catalogue may take this long.
const LOAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Requests that may wait; further senders wait for room.
const REQUESTS: usize = 64;

/// Why a session wants relations read anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshCause {
    /// The session has changed the schema: what it reads next must know.
    Ddl,
    /// The session met a name that is not known: someone else may have made it. Rate limited.
    UnknownName,
}

/// The way to the control thread.
#[derive(Clone, Debug)]
pub struct ControlHandle {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
enum Request {
    Refresh {
        database: Arc<str>,
        cause: RefreshCause,
        done: oneshot::Sender<()>,
    },
    Reload {
        settings: Arc<Settings>,
        done: oneshot::Sender<()>,
    },
}

impl ControlHandle {
    /// Has the relations of a database read anew. When it returns, the published snapshot knows what was true when it was
    /// called; unless no shard could be read, or the cause is rate limited, when the snapshot is what it was.
    pub async fn refresh(&self, database: &Arc<str>, cause: RefreshCause) {
        let (done, answer) = oneshot::channel();
        let database = Arc::clone(database);
        self.send(
            Request::Refresh {
                database,
                cause,
                done,
            },
            answer,
        )
        .await;
    }

    /// Puts new settings in force. Returns when the new snapshot is published.
    pub async fn reload(&self, settings: Arc<Settings>) {
        let (done, answer) = oneshot::channel();
        self.send(Request::Reload { settings, done }, answer).await;
    }

    async fn send(&self, request: Request, answer: oneshot::Receiver<()>) {
        // Both fail only when the control thread has ended, and then the process is about to.
        if self.requests.send(request).await.is_ok() {
            let _ = answer.await;
        }
    }
}

/// The state of the control thread.
#[derive(Debug)]
pub struct Control {
    settings: Arc<Settings>,
    published: Published,
    builder: Builder,
    monitor: Monitor,
    databases: BTreeMap<String, Entry>,
    requests: mpsc::Receiver<Request>,
}

/// What the control thread knows of one database.
#[derive(Debug)]
struct Entry {
    state: DatabaseState,
    found: Option<Found>,
    attempted: Option<Instant>,
}

#[derive(Debug)]
struct Found {
    introspection: Introspection,
    fingerprint: Fingerprint,
}

impl Entry {
    fn new(state: DatabaseState) -> Self {
        Self {
            state,
            found: None,
            attempted: None,
        }
    }

    /// Joins what was found with the schema and the map anew.
    fn resolve(&mut self) {
        if let Some(found) = &self.found {
            let state = &mut self.state;
            let relations =
                Relations::build(&state.schema, &found.introspection, Some(&state.buckets));
            for problem in relations.problems() {
                warn!(database = state.schema.name, table = %problem.table, "{}", problem.message);
            }
            state.relations = Arc::new(relations);
        }
    }
}

impl Control {
    /// A control thread's state and the way to it. Publishes the first snapshot at once, with relations unknown.
    #[must_use]
    pub fn new(settings: Arc<Settings>) -> (Self, ControlHandle) {
        let (sender, requests) = mpsc::channel(REQUESTS);
        let mut control = Self {
            databases: configured(&settings),
            settings,
            published: Published::default(),
            builder: Builder::default(),
            monitor: Monitor::default(),
            requests,
        };
        control.publish();
        (control, ControlHandle { requests: sender })
    }

    /// Where snapshots are published.
    #[must_use]
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// Begins to watch the nodes, waits for the first word of each (or until it is late), and reads the relations. Returns
    /// whether all of them could be read; if not, [`Control::run`] goes on trying.
    pub async fn prepare(&mut self) -> bool {
        self.watch();
        let patience = self.settings.file.router.timeouts.health_timeout;
        let _ = tokio::time::timeout(patience, self.first_look()).await;
        self.refresh_all().await;
        self.is_complete()
    }

    /// Whether the relations of every database are known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.databases.values().all(|entry| entry.found.is_some())
    }

    /// Serves requests and follows changes; returns when every [`ControlHandle`] is gone.
    pub async fn run(mut self) {
        let mut drift = Instant::now() + DRIFT_INTERVAL;
        loop {
            let next = if self.is_complete() {
                drift
            } else {
                drift.min(Instant::now() + RETRY_INTERVAL)
            };
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => return,
                },
                () = tokio::time::sleep_until(next) => {
                    self.notice_drift().await;
                    drift = Instant::now() + DRIFT_INTERVAL;
                }
            }
        }
    }

    /// Serves a request and all that have come meanwhile.
    async fn serve(&mut self, first: Request) {
        let mut refreshes: BTreeMap<Arc<str>, Vec<(RefreshCause, oneshot::Sender<()>)>> =
            BTreeMap::new();
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Refresh {
                    database,
                    cause,
                    done,
                } => refreshes.entry(database).or_default().push((cause, done)),
                Request::Reload { settings, done } => {
                    self.reload(settings).await;
                    let _ = done.send(());
                }
            }
            next = self.requests.try_recv().ok();
        }
        for (database, requests) in refreshes {
            let must = requests
                .iter()
                .any(|(cause, _)| *cause == RefreshCause::Ddl);
            if must || self.may_look_for_unknown(&database) {
                self.refresh(&database).await;
            }
            for (_, done) in requests {
                let _ = done.send(());
            }
        }
    }

    fn may_look_for_unknown(&self, database: &str) -> bool {
        let attempted = self
            .databases
            .get(database)
            .and_then(|entry| entry.attempted);
        attempted.is_none_or(|attempted| attempted.elapsed() >= UNKNOWN_INTERVAL)
    }

    async fn reload(&mut self, settings: Arc<Settings>) {
        let mut databases = configured(&settings);
        for (name, entry) in &mut databases {
            if let Some(known) = self.databases.remove(name) {
                entry.found = known.found;
                entry.state.parameters = known.state.parameters;
                entry.resolve();
            }
        }
        let same_user = visitor(&self.settings) == visitor(&settings);
        self.databases = databases;
        self.settings = settings;
        if !same_user {
            self.monitor.forget();
        }
        self.publish();
        self.watch();
        info!("configuration reloaded");
        self.refresh_all().await;
    }

    fn publish(&mut self) {
        let states = self.databases.values().map(|entry| &entry.state);
        self.published.publish(self.builder.build(states));
    }

    fn watch(&mut self) {
        let Some(visitor) = visitor(&self.settings) else {
            warn!("no user is configured, so nodes cannot be watched");
            return;
        };
        let interval = self.settings.file.router.timeouts.health_interval;
        self.monitor
            .watch(&self.published.snapshot(), &visitor, interval);
    }

    /// Waits until every node has been asked once.
    async fn first_look(&self) {
        let topology = self.published.snapshot();
        let nodes = || {
            let shards = topology
                .databases
                .values()
                .flat_map(|database| &database.shards);
            shards.flat_map(|shard| &shard.nodes)
        };
        while nodes().any(|node| node.observed() == Observed::Unknown) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn refresh_all(&mut self) {
        for name in self.names() {
            self.refresh(&name).await;
        }
    }

    fn names(&self) -> Vec<String> {
        self.databases.keys().cloned().collect()
    }

    /// Reads the relations of databases that changed without our doing, or could not be read yet.
    async fn notice_drift(&mut self) {
        for name in self.names() {
            let Some((entry, _)) = self.entry(&name) else {
                continue;
            };
            let Some(found) = &entry.found else {
                self.refresh(&name).await;
                continue;
            };
            let before = found.fingerprint.clone();
            match self
                .visit(&name, async |link| loader::fingerprint(link).await)
                .await
            {
                Some((now, _)) if now != before => {
                    info!(database = name, "the schema has changed");
                    self.refresh(&name).await;
                }
                _ => {}
            }
        }
    }

    /// Reads the relations of one database, and publishes them if they are new.
    async fn refresh(&mut self, name: &str) {
        let known = self
            .databases
            .get(name)
            .and_then(|entry| entry.found.as_ref())
            .map(|found| found.fingerprint.clone());
        let read = self
            .visit(name, async |link| {
                let fingerprint = loader::fingerprint(link).await?;
                if known.as_ref() == Some(&fingerprint) {
                    return Ok(None);
                }
                let introspection = loader::introspect(link).await?;
                Ok(Some(Found {
                    introspection,
                    fingerprint,
                }))
            })
            .await;
        let Some(entry) = self.databases.get_mut(name) else {
            return;
        };
        entry.attempted = Some(Instant::now());
        let Some((found, parameters)) = read else {
            return;
        };
        let parameters: Arc<[_]> = parameters.into();
        let same_parameters = parameters == entry.state.parameters;
        entry.state.parameters = parameters;
        match found {
            Some(found) => {
                entry.found = Some(found);
                entry.resolve();
            }
            None if same_parameters => return,
            None => {}
        }
        self.publish();
    }

    /// Asks the first node of a database that answers, in the order of trust.
    async fn visit<T>(
        &self,
        name: &str,
        ask: impl AsyncFn(&mut Link) -> Result<T, LinkError>,
    ) -> Option<(T, Vec<(Box<str>, Box<str>)>)> {
        let (_, database) = self.entry(name)?;
        let mut visitor = visitor(&self.settings)?;
        visitor.answer_timeout = LOAD_TIMEOUT;
        for node in by_trust(&database) {
            let visit = async {
                let mut link = Link::open(&visitor, &node, name).await?;
                let answer = ask(&mut link).await?;
                Ok::<_, LinkError>((answer, link.parameters()))
            };
            match visit.await {
                Ok(answer) => return Some(answer),
                Err(error) => {
                    warn!(database = name, host = %node.host, port = node.port, reason = %error, "cannot read relations");
                }
            }
        }
        None
    }

    fn entry(&self, name: &str) -> Option<(&Entry, Arc<DatabaseTopology>)> {
        let topology = self.published.snapshot();
        let database = topology.database(name)?;
        Some((self.databases.get(name)?, Arc::clone(database)))
    }
}

/// The nodes of a database that are in service: the first shard's primary, the other primaries, then replicas.
fn by_trust(database: &DatabaseTopology) -> Vec<Arc<Node>> {
    let shards = database.shards.iter();
    let primaries = shards.clone().map(|shard| shard.primary());
    let replicas = shards.flat_map(|shard| shard.replicas());
    primaries
        .chain(replicas)
        .filter(|node| matches!(node.observed(), Observed::Primary | Observed::Standby))
        .cloned()
        .collect()
}

fn configured(settings: &Settings) -> BTreeMap<String, Entry> {
    let databases = settings.file.databases.iter();
    databases
        .map(|database| {
            let state = DatabaseState::configured(Arc::new(database.clone()));
            (database.name.clone(), Entry::new(state))
        })
        .collect()
}

fn visitor(settings: &Settings) -> Option<Visitor> {
    let timeouts = &settings.file.router.timeouts;
    let user = settings.monitor_user()?;
    Some(Visitor::new(
        user,
        timeouts.connect,
        timeouts.health_timeout,
    ))
}
