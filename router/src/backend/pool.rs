//! Pools of connections, one per node, database and user.
//!
//! Checking out takes one short lock and no system call when a connection is idle. The most recently used connection
//! goes out first (its caches are warm), preferably one that was opened on the same worker, whose reactor it is
//! registered with. Waiters are served in order, each until a deadline.

use std::collections::{HashMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use socket2::Socket;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::admin::registry::{Registry, ServerEntry};

use super::{ConnectError, ConnectOptions, Connection};
use crate::topology::{Node, NodeId};

/// How long a new connection to a replica waits for the monitor to vouch for the server it leads to.
const SETTLE_LIMIT: Duration = Duration::from_millis(500);

/// What a pool's connections have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The node they lead to.
    pub node: NodeId,
    /// The database.
    pub database: Arc<str>,
    /// The user.
    pub user: Arc<str>,
}

/// Why no connection could be had.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// All connections stayed busy until the deadline.
    #[error("no connection became free in time")]
    Timeout,
    /// A new connection could not be made.
    #[error(transparent)]
    Connect(#[from] Arc<ConnectError>),
    /// The node has left the topology.
    #[error("the node has been removed")]
    Retired,
}

/// What a pool may hold, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct PoolLimits {
    /// Connections at most.
    pub size: usize,
    /// How long a session waits for one.
    pub wait: Duration,
    /// How long one may rest unused.
    pub idle: Option<Duration>,
    /// The age at which one is not lent again.
    pub lifetime: Option<Duration>,
}

/// The connections of one [`PoolKey`], at most `size` of them.
#[derive(Debug)]
pub struct Pool {
    key: PoolKey,
    node: Arc<Node>,
    options: ConnectOptions,
    limits: PoolLimits,
    registry: Registry,
    made: Instant,
    /// Milliseconds from `made` to the last [`Pool::close_old`]: the time as lending knows it, without asking the clock.
    age_ms: AtomicU64,
    state: Mutex<State>,
    retired: AtomicBool,
    waiting: AtomicUsize,
    waited: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Idle>,
    open: usize,
    /// The sockets of all connections, idle and lent.
    sockets: Vec<Weak<Socket>>,
    waiters: VecDeque<oneshot::Sender<Lease>>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    worker: usize,
    since: Instant,
}

/// How full a pool is, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUse {
    /// Connections lent to sessions or being opened.
    pub active: usize,
    /// Connections at rest.
    pub idle: usize,
    /// Sessions waiting for one.
    pub waiting: usize,
    /// Checkouts that had to wait since the start.
    pub waited: u64,
    /// The limit on connections.
    pub size: usize,
}

/// The right to one of a pool's connections, counted in [`State::open`], and perhaps the connection. Dropping it gives
/// the right up and closes the connection.
#[derive(Debug)]
struct Lease {
    pool: Arc<Pool>,
    connection: Option<Box<Connection>>,
    /// False once the place it stands for has been taken by an idle connection.
    holds_place: bool,
}

/// A connection lent to a session. Dropping it closes the connection; [`Borrowed::give_back`] returns it.
#[derive(Debug)]
pub struct Borrowed {
    lease: Lease,
    connection: Box<Connection>,
    worker: usize,
    waited: Duration,
}

impl Pool {
    /// A pool that opens connections by `options`, none yet.
    pub fn new(
        key: PoolKey,
        node: Arc<Node>,
        options: ConnectOptions,
        limits: PoolLimits,
        registry: Registry,
    ) -> Self {
        Self {
            key,
            node,
            options,
            limits: PoolLimits {
                size: limits.size.max(1),
                ..limits
            },
            registry,
            made: Instant::now(),
            age_ms: AtomicU64::new(0),
            state: Mutex::default(),
            retired: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            waited: AtomicU64::new(0),
        }
    }

    /// The node the connections lead to.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// What the connections have in common.
    pub fn key(&self) -> &PoolKey {
        &self.key
    }

    /// How full the pool is.
    pub fn usage(&self) -> PoolUse {
        let state = self.lock();
        PoolUse {
            active: state.open - state.idle.len(),
            idle: state.idle.len(),
            waiting: self.waiting.load(Ordering::Relaxed),
            waited: self.waited.load(Ordering::Relaxed),
            size: self.limits.size,
        }
    }

    /// Borrows a connection: an idle one, a new one, or the next that is given back.
    ///
    /// # Errors
    /// [`CheckoutError`]. A failure to connect is reported to the node's health as well.
    pub async fn check_out(
        self: &Arc<Self>,
        worker: usize,
        client: u64,
    ) -> Result<Borrowed, CheckoutError> {
        if self.retired.load(Ordering::Relaxed) {
            return Err(CheckoutError::Retired);
        }
        let mut waited = Duration::ZERO;
        let mut lease = match self.try_lease(worker) {
            Ok(lease) => lease,
            Err(waiter) => {
                let began = Instant::now();
                let lease = Box::pin(self.wait(waiter)).await?;
                waited = began.elapsed();
                lease
            }
        };
        let connection = match lease.connection.take() {
            Some(connection) => connection,
            None => Box::pin(self.open()).await?,
        };
        Ok(lease.borrowed(connection, worker, client, waited))
    }

    /// As [`Pool::check_out`], where an idle connection serves; `None` if there is none.
    #[must_use]
    pub fn check_out_idle(self: &Arc<Self>, worker: usize, client: u64) -> Option<Borrowed> {
        if self.retired.load(Ordering::Relaxed) {
            return None;
        }
        let connection = self.take_idle(&mut self.lock(), worker)?;
        let lease = self.lease(None);
        Some(lease.borrowed(connection, worker, client, Duration::ZERO))
    }

    fn take_idle(&self, state: &mut State, worker: usize) -> Option<Box<Connection>> {
        while let Some(idle) = state.take_idle(worker) {
            // Anything that arrives while nobody waits for it is an end of stream or news we do not want to mix
            // with a session's replies.
            if idle.connection.stream.has_input() || self.is_too_old(&idle) {
                state.open -= 1;
                continue;
            }
            return Some(idle.connection);
        }
        None
    }

    /// An idle connection, or the right to open one, or a place in the queue.
    fn try_lease(self: &Arc<Self>, worker: usize) -> Result<Lease, oneshot::Receiver<Lease>> {
        let mut state = self.lock();
        if let Some(connection) = self.take_idle(&mut state, worker) {
            return Ok(self.lease(Some(connection)));
        }
        if state.open < self.limits.size {
            state.open += 1;
            return Ok(self.lease(None));
        }
        let (sender, receiver) = oneshot::channel();
        // Those that have given up are passed over when their turn comes; here they only must not pile up.
        if state.waiters.len().is_power_of_two() {
            state.waiters.retain(|waiter| !waiter.is_closed());
        }
        state.waiters.push_back(sender);
        Err(receiver)
    }

    async fn wait(&self, waiter: oneshot::Receiver<Lease>) -> Result<Lease, CheckoutError> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.waited.fetch_add(1, Ordering::Relaxed);
        let outcome = tokio::time::timeout(self.limits.wait, waiter).await;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        match outcome {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(_)) => Err(CheckoutError::Retired),
            Err(_) => Err(CheckoutError::Timeout),
        }
    }

    /// A connection that breaks while it is made may be that one's bad luck: the node gets another try.
    async fn connect(&self) -> Result<Connection, ConnectError> {
        match Connection::connect(&self.options).await {
            Err(ConnectError::Broken(_)) => {
                self.node.suspect();
                Connection::connect(&self.options).await
            }
            outcome => outcome,
        }
    }

    async fn open(&self) -> Result<Box<Connection>, CheckoutError> {
        match self.connect().await {
            Ok(mut connection) => {
                connection.incarnation = self.node.settle(SETTLE_LIMIT).await;
                let pid = connection.target.pid().cast_unsigned();
                let (user, database) = (Arc::clone(&self.key.user), Arc::clone(&self.key.database));
                let entry = |id| ServerEntry::new(id, self.node.id, user, database, pid);
                connection.entry = Some(self.registry.enter_server(entry));
                let mut state = self.lock();
                state.sockets.retain(|socket| socket.strong_count() > 0);
                state.sockets.push(Arc::downgrade(&connection.socket));
                drop(state);
                Ok(Box::new(connection))
            }
            Err(error) => {
                if error.is_node_down() {
                    self.node.report_failure();
                }
                Err(CheckoutError::Connect(Arc::new(error)))
            }
        }
    }

    /// The time of the last [`Pool::close_old`].
    fn now(&self) -> Instant {
        self.made + Duration::from_millis(self.age_ms.load(Ordering::Relaxed))
    }

    fn is_too_old(&self, idle: &Idle) -> bool {
        let now = self.now();
        let older = |since: Instant, limit: Option<Duration>| {
            limit.is_some_and(|limit| now.saturating_duration_since(since) > limit)
        };
        older(idle.connection.born, self.limits.lifetime) || older(idle.since, self.limits.idle)
    }

    /// Shuts down every connection, those lent to sessions too: the node does not answer, and sessions that wait for it
    /// would wait as long as TCP does.
    pub fn sever(&self) {
        let sockets = std::mem::take(&mut self.lock().sockets);
        for socket in sockets.iter().filter_map(Weak::upgrade) {
            // It fails for one that the node has closed already.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
        self.close_idle();
    }

    /// Closes idle connections that the node has closed, asking the system about each: after a connection was lost, for
    /// it is seldom the only one.
    pub fn close_dead(&self) {
        let mut state = self.lock();
        let before = state.idle.len();
        state.idle.retain(|idle| idle.connection.is_open());
        state.open -= before - state.idle.len();
    }

    /// Closes idle connections that have rested or lived too long. To be called every now and then: it moves the time
    /// by which the limits are judged.
    pub fn close_old(&self) {
        let age = self.made.elapsed().as_millis();
        self.age_ms
            .store(u64::try_from(age).unwrap_or(u64::MAX), Ordering::Relaxed);
        let mut state = self.lock();
        let before = state.idle.len();
        state.idle.retain(|idle| !self.is_too_old(idle));
        state.open -= before - state.idle.len();
    }

    /// Closes what is idle and lets nothing come back: the node has left the topology.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.close_idle();
        self.lock().waiters.clear();
    }

    /// Closes all idle connections, as after a failure of the node.
    pub fn close_idle(&self) {
        let idle = {
            let mut state = self.lock();
            state.open -= state.idle.len();
            std::mem::take(&mut state.idle)
        };
        drop(idle);
    }

    fn lease(self: &Arc<Self>, connection: Option<Box<Connection>>) -> Lease {
        self.node.acquired();
        Lease {
            pool: Arc::clone(self),
            connection,
            holds_place: true,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements under the lock, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_idle(&mut self, worker: usize) -> Option<Idle> {
        let own = self.idle.iter().rposition(|idle| idle.worker == worker);
        let index = own.or_else(|| self.idle.len().checked_sub(1))?;
        Some(self.idle.remove(index))
    }
}

impl Lease {
    fn borrowed(
        self,
        connection: Box<Connection>,
        worker: usize,
        client: u64,
        waited: Duration,
    ) -> Borrowed {
        if let Some(entry) = &connection.entry {
            entry.set_client(client);
        }
        Borrowed {
            lease: self,
            connection,
            worker,
            waited,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.node.released();
        if !self.holds_place {
            return;
        }
        // The connection, if any, closes; the right to open another goes to the next waiter.
        self.connection = None;
        let mut state = self.pool.lock();
        let next = loop {
            match state.waiters.pop_front() {
                Some(waiter) if waiter.is_closed() => {}
                other => break other,
            }
        };
        match next {
            None => state.open -= 1,
            Some(waiter) => {
                drop(state);
                // Should the waiter have gone meanwhile, the new lease comes back and drops here in turn.
                drop(waiter.send(self.pool.lease(None)));
            }
        }
    }
}

impl Borrowed {
    /// How long the session waited for it in the pool's queue.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// The node this connection leads to.
    pub fn node(&self) -> &Arc<Node> {
        &self.lease.pool.node
    }

    /// Returns the connection to its pool if it is clean; closes it otherwise.
    pub fn give_back(self) {
        let Self {
            mut lease,
            connection,
            worker,
            ..
        } = self;
        if !connection.is_reusable() || lease.pool.retired.load(Ordering::Relaxed) {
            return;
        }
        if let Some(entry) = &connection.entry {
            entry.set_client(0);
        }
        let mut state = lease.pool.lock();
        while let Some(waiter) = state.waiters.pop_front() {
            if waiter.is_closed() {
                continue;
            }
            drop(state);
            lease.connection = Some(connection);
            // A waiter that has gone meanwhile sends the lease back, which closes the connection as it drops.
            drop(waiter.send(lease));
            return;
        }
        state.idle.push(Idle {
            connection,
            worker,
            since: lease.pool.now(),
        });
        lease.holds_place = false;
        drop(state);
    }
}

impl Deref for Borrowed {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// All pools of a process.
#[derive(Debug, Default)]
pub struct Pools {
    pools: Mutex<HashMap<PoolKey, Arc<Pool>>>,
}

impl Pools {
    /// The pool of `key`, made by `make` at first use.
    ///
    /// # Errors
    /// What `make` says.
    pub fn get_or_insert<E>(
        &self,
        key: &PoolKey,
        make: impl FnOnce() -> Result<Pool, E>,
    ) -> Result<Arc<Pool>, E> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(key) {
            return Ok(Arc::clone(pool));
        }
        let pool = Arc::new(make()?);
        pools.insert(key.clone(), Arc::clone(&pool));
        Ok(pool)
    }

    /// Closes idle connections that nodes have closed, in every pool.
    pub fn close_dead(&self) {
        for pool in self.all() {
            pool.close_dead();
        }
    }

    /// All pools, in no order.
    pub fn all(&self) -> Vec<Arc<Pool>> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.values().cloned().collect()
    }

    /// Retires every pool for which `keep` is false.
    pub fn retain(&self, keep: impl Fn(&PoolKey) -> bool) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|key, pool| {
            let kept = keep(key);
            if !kept {
                pool.retire();
            }
            kept
        });
    }
}
