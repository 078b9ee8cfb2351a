//! Who is connected: every client and every server connection, for SHOW CLIENTS and SHOW SERVERS.
//!
//! Invariant: entering and leaving takes a lock, once per connection; everything that changes per statement is a relaxed
//! atomic of the entry. An entry lives as long as its [`Registration`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use super::activity::{Activity, Clock, OverdueWatch, Stay};
use super::asked::{Asked, Unanswered};
use crate::plan::Pins;
use crate::startup::cancel::CancelSlot;
use crate::topology::NodeId;

/// What a client is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ClientState {
    /// Nothing.
    Idle = 0,
    /// A statement is running.
    Active = 1,
    /// It waits for a connection to a node.
    Waiting = 2,
    /// Nothing, inside a transaction.
    IdleInTransaction = 3,
}

impl ClientState {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Idle,
        Self::Active,
        Self::Waiting,
        Self::IdleInTransaction,
    ];

    /// The state whose number the last two bits are.
    pub(super) fn of_bits(bits: u64) -> Self {
        match bits & 3 {
            1 => Self::Active,
            2 => Self::Waiting,
            3 => Self::IdleInTransaction,
            _ => Self::Idle,
        }
    }

    /// The word SHOW CLIENTS uses.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::Waiting => "waiting",
            Self::IdleInTransaction => "idle in transaction",
        }
    }
}

/// The time of what has not happened.
const NEVER: u64 = u64::MAX;

/// One client. What changes with every statement stands together, at the start.
#[derive(Debug)]
#[repr(C)]
pub struct ClientEntry {
    activity: Activity,
    clock: Arc<Clock>,
    queries: AtomicU64,
    transactions: AtomicU64,
    request_at_ms: AtomicU64,
    pins: AtomicU8,
    listens: AtomicBool,
    /// When the transaction began, in milliseconds from 1; 0: there is none.
    transaction_since: AtomicU64,
    /// `idle_in_transaction_session_timeout` as the client has set it; 0: no limit.
    idle_transaction_ms: AtomicU64,
    /// Number of the client in this process, from 1.
    pub id: u64,
    /// Whom it logged in as.
    pub user: Arc<str>,
    /// Where to.
    pub database: Arc<str>,
    /// Its address; `None` for a Unix socket.
    pub address: Option<SocketAddr>,
    /// The worker that serves it.
    pub worker: usize,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// When it logged in.
    pub connected_at: SystemTime,
    /// What works for it, to be cancelled.
    pub(crate) slot: Arc<CancelSlot>,
    application_name: Mutex<Box<str>>,
}

/// A client as it logs in: see [`ClientEntry`].
#[derive(Debug)]
pub(crate) struct NewClient {
    pub(crate) user: Arc<str>,
    pub(crate) database: Arc<str>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) worker: usize,
    pub(crate) tls: bool,
    pub(crate) slot: Arc<CancelSlot>,
}

/// A wait of a client's statement for a connection.
#[derive(Debug)]
#[must_use]
pub struct Waiting<'a>(&'a ClientEntry);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.activity.correct(ClientState::Active);
    }
}

impl ClientEntry {
    /// A client that has just logged in.
    pub(crate) fn new(id: u64, client: NewClient, clock: Arc<Clock>) -> Self {
        Self {
            id,
            user: client.user,
            database: client.database,
            address: client.address,
            worker: client.worker,
            tls: client.tls,
            connected_at: SystemTime::now(),
            slot: client.slot,
            activity: Activity::new(&clock),
            clock,
            application_name: Mutex::default(),
            pins: AtomicU8::new(0),
            listens: AtomicBool::new(false),
            transaction_since: AtomicU64::new(0),
            idle_transaction_ms: AtomicU64::new(0),
            queries: AtomicU64::new(0),
            transactions: AtomicU64::new(0),
            request_at_ms: AtomicU64::new(NEVER),
        }
    }

    /// The client said how it wants to be called.
    pub fn set_application_name(&self, name: &str) {
        let mut known = self.lock_name();
        if **known != *name {
            *known = name.into();
        }
    }

    /// How the client wants to be called.
    #[must_use]
    pub fn application_name(&self) -> Box<str> {
        self.lock_name().clone()
    }

    fn lock_name(&self) -> std::sync::MutexGuard<'_, Box<str>> {
        self.application_name
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The client is now doing this.
    pub fn set_state(&self, state: ClientState) {
        self.activity.set(state, &self.clock);
    }

    /// The client has sent something.
    pub fn request_arrived(&self) {
        self.set_state(ClientState::Active);
        self.request_at_ms.store(self.clock.ms(), Ordering::Relaxed);
    }

    /// The client's statement waits for a connection, until what this returns is dropped. Its time runs on meanwhile.
    pub fn waiting(&self) -> Waiting<'_> {
        self.activity.correct(ClientState::Waiting);
        Waiting(self)
    }

    /// What the client is doing.
    #[must_use]
    pub fn state(&self) -> ClientState {
        self.stay().state
    }

    /// What the client is doing, and for how long.
    #[must_use]
    pub fn stay(&self) -> Stay {
        self.activity.stay(&self.clock)
    }

    /// What the client is doing takes too long: a session that waits for it hears of it. False if that had been said
    /// before.
    pub fn end_stay(&self, stay: Stay) -> bool {
        self.activity.end(stay)
    }

    /// An operator ends the session: what works for it is lost, and it ends when it next waits for its client.
    pub fn kill(&self) {
        self.activity.kill();
        self.slot.sever();
    }

    /// Whether an operator has ended the session.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.activity.is_killed()
    }

    /// Ready when what the client is doing now takes too long.
    pub fn poll_overdue(&self, watch: &mut OverdueWatch, context: &mut Context<'_>) -> Poll<()> {
        watch.poll(&self.activity, context)
    }

    /// The longest that the client may be idle in a transaction from now on, as it has asked for itself.
    pub fn set_idle_transaction(&self, limit: Option<Duration>) {
        let ms = limit.map_or(0, |limit| u64::try_from(limit.as_millis()).unwrap_or(0));
        self.idle_transaction_ms.store(ms, Ordering::Relaxed);
    }

    /// The longest that the client may be idle in a transaction, if it has asked for a limit.
    #[must_use]
    pub fn idle_transaction(&self) -> Option<Duration> {
        let ms = self.idle_transaction_ms.load(Ordering::Relaxed);
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// Whether the session listens from now on.
    pub fn set_listens(&self, listens: bool) {
        self.listens.store(listens, Ordering::Relaxed);
    }

    /// Whether the session listens to something.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.listens.load(Ordering::Relaxed)
    }

    /// Why the session keeps connections from now on.
    pub fn set_pins(&self, pins: Pins) {
        self.pins.store(pins.bits(), Ordering::Relaxed);
    }

    /// Why the session keeps connections between transactions.
    #[must_use]
    pub fn pins(&self) -> Pins {
        Pins::from_bits(self.pins.load(Ordering::Relaxed))
    }

    /// A statement begins.
    pub fn count_query(&self) {
        add_one(&self.queries);
        if self.transaction_since.load(Ordering::Relaxed) == 0 {
            self.transaction_since
                .store(self.clock.ms() + 1, Ordering::Relaxed);
        }
    }

    /// How long the transaction has lasted, within a tick of the clock; none if there is none.
    #[must_use]
    pub fn transaction_lasted(&self) -> Option<Duration> {
        let since = self.transaction_since.load(Ordering::Relaxed);
        let lasted = (self.clock.ms() + 1).saturating_sub(since);
        (since > 0).then(|| Duration::from_millis(lasted))
    }

    /// A transaction ended.
    pub fn count_transaction(&self) {
        add_one(&self.transactions);
        self.transaction_since.store(0, Ordering::Relaxed);
    }

    /// Statements so far.
    #[must_use]
    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }

    /// Transactions so far.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.transactions.load(Ordering::Relaxed)
    }

    /// When the client sent something last, within a tick of the clock; `None` if it has not yet.
    #[must_use]
    pub fn request_at(&self) -> Option<SystemTime> {
        match self.request_at_ms.load(Ordering::Relaxed) {
            NEVER => None,
            ms => Some(self.clock.time_of(ms)),
        }
    }
}

/// One connection to a node. What changes with every client stands at the start.
#[derive(Debug)]
#[repr(C)]
pub struct ServerEntry {
    client: AtomicU64,
    served: AtomicU64,
    /// What it has been asked by where rows are.
    pub(crate) unanswered: Unanswered,
    /// Number of the connection in this process, from 1.
    pub id: u64,
    /// The node it leads to.
    pub node: NodeId,
    /// As whom.
    pub user: Arc<str>,
    /// To which database.
    pub database: Arc<str>,
    /// The server's process.
    pub pid: u32,
    /// When it was opened.
    pub connected_at: SystemTime,
}

impl ServerEntry {
    /// A connection just opened, serving nobody.
    #[must_use]
    pub fn new(id: u64, node: NodeId, user: Arc<str>, database: Arc<str>, pid: u32) -> Self {
        Self {
            id,
            node,
            user,
            database,
            pid,
            connected_at: SystemTime::now(),
            client: AtomicU64::new(0),
            served: AtomicU64::new(0),
            unanswered: Unanswered::default(),
        }
    }

    /// The connection now serves this client (its number), or with 0 nobody.
    pub fn set_client(&self, client: u64) {
        if client != 0 {
            add_one(&self.served);
        }
        self.unanswered.forget();
        self.client.store(client, Ordering::Relaxed);
    }

    /// The client served now; 0 for none.
    #[must_use]
    pub fn client(&self) -> u64 {
        self.client.load(Ordering::Relaxed)
    }

    /// How often it was handed out.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

/// Adds one to a number that only the calling session writes, or the one that holds the connection: cheaper than an addition that others may make too.
fn add_one(count: &AtomicU64) {
    let sum = count.load(Ordering::Relaxed).wrapping_add(1);
    count.store(sum, Ordering::Relaxed);
}

/// All clients and server connections of the process. Clones are the same registry.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    clock: Arc<Clock>,
    clients: Arc<Entries<ClientEntry>>,
    servers: Arc<Entries<ServerEntry>>,
}

#[derive(Debug)]
struct Entries<T> {
    last: AtomicU64,
    entries: Mutex<BTreeMap<u64, Arc<T>>>,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self {
            last: AtomicU64::new(0),
            entries: Mutex::default(),
        }
    }
}

impl<T> Entries<T> {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<T>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, make: impl FnOnce(u64) -> T) -> Registration<T> {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let entry = Arc::new(make(id));
        self.lock().insert(id, Arc::clone(&entry));
        Registration {
            id,
            entry,
            entries: Arc::clone(self),
        }
    }

    fn list(&self) -> Vec<Arc<T>> {
        self.lock().values().cloned().collect()
    }
}

impl Registry {
    /// The time by which clients' doings are judged.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Enters a client.
    pub(crate) fn enter_client(&self, client: NewClient) -> Registration<ClientEntry> {
        let clock = Arc::clone(&self.clock);
        self.clients.enter(|id| ClientEntry::new(id, client, clock))
    }

    /// Enters a server connection; `make` gets its number.
    pub fn enter_server(&self, make: impl FnOnce(u64) -> ServerEntry) -> Registration<ServerEntry> {
        self.servers.enter(make)
    }

    /// All clients, in order of login.
    #[must_use]
    pub fn clients(&self) -> Vec<Arc<ClientEntry>> {
        self.clients.list()
    }

    /// All server connections, in order of opening.
    #[must_use]
    pub fn servers(&self) -> Vec<Arc<ServerEntry>> {
        self.servers.list()
    }

    /// The number of the server connection that was opened last.
    #[must_use]
    pub fn last_server(&self) -> u64 {
        self.servers.last.load(Ordering::Relaxed)
    }

    /// The server connections that have not begun to answer what was planned by a snapshot before this one.
    pub(crate) fn asked_before(&self, generation: u64) -> Vec<(Arc<ServerEntry>, Asked)> {
        let servers = self.servers.lock();
        let before = servers.values().filter_map(|server| {
            let asked = server.unanswered.get()?;
            (asked.generation < generation).then(|| (Arc::clone(server), asked))
        });
        before.collect()
    }

    /// How many clients there are.
    #[must_use]
    pub fn client_count(&self) -> usize {
        self.clients.lock().len()
    }
}

/// An entry for as long as this lives.
#[derive(Debug)]
pub struct Registration<T> {
    id: u64,
    entry: Arc<T>,
    entries: Arc<Entries<T>>,
}

impl<T> Deref for Registration<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.entry
    }
}

impl<T> Drop for Registration<T> {
    fn drop(&mut self) {
        self.entries.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_leaves_with_its_registration() {
        let registry = Registry::default();
        let client = registry.enter_client(NewClient {
            user: "app".into(),
            database: "shop".into(),
            address: None,
            worker: 0,
            tls: false,
            slot: Arc::default(),
        });
        client.request_arrived();
        let waiting = client.waiting();
        assert_eq!(registry.clients()[0].state(), ClientState::Waiting);
        drop(waiting);
        assert_eq!(registry.clients()[0].state(), ClientState::Active);
        assert_eq!(registry.client_count(), 1);
        drop(client);
        assert!(registry.clients().is_empty());
    }
}
