//! The control thread: it alone changes the topology.
//!
//! It watches the nodes, reads the shards' catalogues, follows the catalog, and publishes a new snapshot when any of
//! them says something new. Invariant: nothing here is on a query's path; a session that needs something done (relations
//! read anew after DDL) sends a request and awaits the answer. Requests for the same thing are answered by one read that
//! began after all of them.
//!
//! Collaborators: [`crate::topology`] has the parts, [`switchyard_catalog`] the actual state when there is one.

mod actual;
mod change;
mod clearing;
mod entry;
mod oids;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use switchyard_catalog::{CatalogDatabase, RouterId, Snapshot};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::Settings;
use crate::topology::builder::{Builder, DatabaseState};
use crate::topology::link::Visitor;
use crate::topology::links::Links;
use crate::topology::monitor::Monitor;
use crate::topology::{Heartbeat, Observed, Published};
pub use actual::CatalogStatus;
use actual::{Actual, News};
pub use clearing::Clearing;
use clearing::Taken;
use entry::{Entry, Visiting, by_trust};
use oids::OidReader;

/// Between two looks at the version of the shards' catalogues, for changes made past this router.
const DRIFT_INTERVAL: Duration = Duration::from_secs(1);
/// The same where looking takes long, be it that a server was waited for.
const MOST_DRIFT_INTERVAL: Duration = Duration::from_secs(30);
/// Relations are read at most this often for names that are not known.
const UNKNOWN_INTERVAL: Duration = Duration::from_secs(1);
/// Reading a catalogue may take this long.
const LOAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two attempts to read one that has changed.
const AGAIN: Duration = Duration::from_millis(100);
/// Requests that may wait; further senders wait for room.
const REQUESTS: usize = 64;

/// Why a session wants relations read anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshCause {
    /// The session has changed the schema: what it reads next must know.
    Ddl,
    /// The session met a name that is not known: someone else may have made it. Rate limited.
    UnknownName,
    /// The session met the name of a table that is configured and not known.
    UnknownTable,
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
    settings: watch::Sender<Arc<Settings>>,
    published: Published,
    builder: Builder,
    monitor: Monitor,
    databases: BTreeMap<String, Entry>,
    /// Away while the primaries are asked.
    oid_reader: Option<OidReader>,
    actual: Option<Actual>,
    status: Arc<Status>,
    requests: mpsc::Receiver<Request>,
    taken: watch::Sender<Option<Taken>>,
}

/// What others may see of the control thread.
#[derive(Debug, Default)]
pub struct Status {
    ready: AtomicBool,
    catalog: AtomicU8,
}

impl Status {
    /// Whether the router knows enough to serve: the relations of every database have been read.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Whether there is a catalog and whether it answers.
    #[must_use]
    pub fn catalog(&self) -> CatalogStatus {
        CatalogStatus::from_number(self.catalog.load(Ordering::Relaxed))
    }
}

/// Why the router cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The catalog could not be read.
    #[error(transparent)]
    Catalog(#[from] switchyard_catalog::Error),
    /// The system has no random numbers.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
}

impl Control {
    /// A control thread's state and the way to it. Publishes the first snapshot at once, with relations unknown.
    #[must_use]
    pub fn new(settings: Arc<Settings>) -> (Self, ControlHandle) {
        let (sender, requests) = mpsc::channel(REQUESTS);
        let databases = configured(&settings);
        let settings = watch::Sender::new(settings);
        let mut control = Self {
            databases,
            oid_reader: Some(OidReader::new(Links::new(settings.subscribe()))),
            settings,
            published: Published::default(),
            builder: Builder::default(),
            monitor: Monitor::default(),
            actual: None,
            status: Arc::default(),
            requests,
            taken: watch::Sender::new(None),
        };
        control.publish();
        (control, ControlHandle { requests: sender })
    }

    /// Where snapshots are published.
    #[must_use]
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// The settings in force, also after a reload.
    #[must_use]
    pub fn settings(&self) -> watch::Receiver<Arc<Settings>> {
        self.settings.subscribe()
    }

    /// What tells the catalog that all is planned by what it says.
    #[must_use]
    pub fn clearing(&self) -> Clearing {
        Clearing {
            taken: self.taken.subscribe(),
            links: Links::new(self.settings.subscribe()),
            acknowledged: self.actual.as_ref().map(Actual::acknowledged),
        }
    }

    /// Whether the catalog hears of this router, where there is one.
    #[must_use]
    pub fn heartbeat(&self) -> Option<Heartbeat> {
        self.actual.as_ref().map(Actual::heartbeat)
    }

    /// Has the catalog forget this router, which does nothing any more. To be polled when it is so.
    pub fn leaving(&self) -> impl Future<Output = ()> + Send + use<> {
        let leaving = self.actual.as_ref().map(Actual::leaving);
        async {
            if let Some(leaving) = leaving {
                leaving.await;
            }
        }
    }

    /// What others may see of the control thread.
    #[must_use]
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Reads the catalog, begins to watch the nodes, waits for the first word of each (or until it is late), and reads
    /// the relations. What could not be read of the nodes [`Control::run`] goes on trying.
    ///
    /// # Errors
    /// A catalog is configured and cannot be read.
    pub async fn prepare(&mut self) -> Result<(), PrepareError> {
        let router = getrandom::u64().map_err(PrepareError::Random)?;
        let router = RouterId(router.cast_signed());
        self.actual = Actual::read(&self.settings.borrow().clone(), router).await?;
        if let Some(actual) = &self.actual {
            let snapshot = actual.snapshot();
            self.accept(&snapshot);
        }
        self.watch();
        let patience = self.settings.borrow().file.router.timeouts.health_timeout;
        let _ = tokio::time::timeout(patience, self.first_look()).await;
        self.refresh_all().await;
        Ok(())
    }

    /// Serves requests and follows changes; returns when every [`ControlHandle`] is gone.
    pub async fn run(mut self) {
        let mut drift = Instant::now() + DRIFT_INTERVAL;
        loop {
            if let Some(actual) = &self.actual {
                let status = actual.status();
                self.status.catalog.store(status as u8, Ordering::Relaxed);
            }
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => return,
                },
                news = actual::news(&mut self.actual) => {
                    if let News::State(snapshot) = news {
                        self.accept(&snapshot);
                        self.watch();
                    }
                    self.refresh_all().await;
                }
                () = tokio::time::sleep_until(drift) => {
                    let began = Instant::now();
                    self.refresh_all().await;
                    // Large catalogues are looked at less often: at most 2 % of the time.
                    let pause = (50 * began.elapsed()).min(MOST_DRIFT_INTERVAL);
                    drift = Instant::now() + DRIFT_INTERVAL.max(pause);
                }
            }
        }
    }

    /// Takes over what the catalog says, and publishes it.
    fn accept(&mut self, snapshot: &Snapshot) {
        self.databases.retain(|name, _| {
            let kept = snapshot.databases.contains_key(name);
            if !kept {
                warn!(database = name, "not in the catalog, so not served");
            }
            kept
        });
        for (name, actual) in &snapshot.databases {
            self.require_moved(name, actual);
            let entry = self.databases.entry(name.clone());
            entry
                .or_insert_with(|| {
                    Entry::new(DatabaseState::configured(Arc::clone(&actual.database)))
                })
                .accept(actual);
        }
        self.publish();
        let taken = Taken {
            revision: snapshot.revision,
            topology: self.published.snapshot(),
        };
        self.taken.send_replace(Some(taken));
    }

    /// Where tables are distributed otherwise than before, or buckets have moved, a replica has to have the rows that have been moved, or at least the lock
    /// that the tables are under until they are there.
    fn require_moved(&self, name: &str, actual: &CatalogDatabase) {
        let topology = self.published.snapshot();
        let Some(database) = topology.database(name) else {
            return;
        };
        if database.schema.tables != actual.database.tables || database.epoch != actual.epoch {
            let shards = database.shards.iter();
            shards.for_each(|shard| shard.samples().require_next());
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
            let missed = requests
                .iter()
                .any(|(cause, _)| *cause == RefreshCause::UnknownTable);
            if must {
                if let Some(actual) = &self.actual {
                    actual.announce_definitions().await;
                }
                self.refresh_surely(&database).await;
            } else if missed || self.may_look_for_unknown(&database) {
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
        let former = self.settings.borrow().clone();
        if former.file.catalog != settings.file.catalog {
            warn!("a change of [catalog] takes effect with the next start");
        }
        for (name, entry) in &mut databases {
            if let Some(known) = self.databases.remove(name) {
                entry.found = known.found;
                entry.state.parameters = known.state.parameters;
                entry.state.oids = known.state.oids;
                entry.state.epoch = known.state.epoch;
                entry.resolve();
            }
        }
        let manner = |settings: &Settings| {
            let interval = settings.file.router.timeouts.health_interval;
            (visitor(settings), interval)
        };
        let same_manner = manner(&former) == manner(&settings);
        self.databases = databases;
        self.settings.send_replace(settings);
        if !same_manner {
            self.monitor.forget();
        }
        match &self.actual {
            Some(actual) => {
                let snapshot = actual.snapshot();
                self.accept(&snapshot);
            }
            None => self.publish(),
        }
        self.watch();
        info!("configuration reloaded");
        self.refresh_all().await;
    }

    fn publish(&mut self) {
        let states = self.databases.values().map(|entry| &entry.state);
        self.published.publish(self.builder.build(states));
        if let Some(oid_reader) = &mut self.oid_reader {
            oid_reader.retain(&self.published.snapshot());
        }
        let ready = self.databases.values().all(|entry| entry.found.is_some());
        self.status.ready.store(ready, Ordering::Relaxed);
    }

    fn watch(&mut self) {
        let settings = self.settings.borrow().clone();
        let Some(visitor) = visitor(&settings) else {
            warn!("no user is configured, so nodes cannot be watched");
            return;
        };
        let interval = settings.file.router.timeouts.health_interval;
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

    /// The same as [`Control::refresh`], again and again while no server can be read.
    async fn refresh_surely(&mut self, name: &str) {
        let began = Instant::now();
        while !self.refresh(name).await && began.elapsed() < LOAD_TIMEOUT {
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Reads the relations of one database if they have changed, and publishes them. False if no server could be read.
    async fn refresh(&mut self, name: &str) -> bool {
        let Some(visiting) = self.visiting(name) else {
            return true;
        };
        let topology = self.published.snapshot();
        let mut oid_reader = self.oid_reader.take();
        let mut looking = Box::pin(async {
            let visited = visiting.run(name).await;
            let oids = match (&mut oid_reader, topology.database(name)) {
                (Some(oid_reader), Some(database)) => Some(oid_reader.read(database).await),
                _ => None,
            };
            (visited, oids)
        });
        let (visited, oids) = loop {
            tokio::select! {
                looked = &mut looking => break looked,
                // Where rows are by now cannot wait for a server that takes its time.
                snapshot = actual::changed(&mut self.actual) => {
                    self.accept(&snapshot);
                    self.watch();
                }
            }
        };
        drop(looking);
        self.oid_reader = oid_reader;
        let Some(entry) = self.databases.get_mut(name) else {
            return true;
        };
        entry.attempted = Some(Instant::now());
        let renumbered = oids.is_some_and(|oids| entry.renumber(oids));
        let is_read = visited.is_some();
        if visited.is_some_and(|visited| entry.take_over(name, visited)) || renumbered {
            self.publish();
        }
        is_read
    }

    /// What it takes to read the relations of a database.
    fn visiting(&mut self, name: &str) -> Option<Visiting> {
        let topology = self.published.snapshot();
        let database = topology.database(name)?;
        let mut visitor = visitor(&self.settings.borrow())?;
        visitor.answer_timeout = LOAD_TIMEOUT;
        let entry = self.databases.get_mut(name)?;
        Some(Visiting {
            nodes: by_trust(database),
            visitor,
            kept: entry.link.take(),
            known: entry.found.as_ref().map(|found| found.fingerprint.clone()),
        })
    }
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
