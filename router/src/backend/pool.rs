//! Pools of connections, one per node, database and user.
//!
//! Checking out takes one short lock and no system call when a connection is idle. The most recently used connection
//! goes out first (its caches are warm), preferably one that was opened on the same worker, whose reactor it is
//! registered with. Waiters are served in order, each until a deadline.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::Socket;
use tokio::time::Instant;

use crate::admin::registry::{Registry, ServerEntry};

use super::turn::Turn;
use super::{Admission, ConnectError, ConnectOptions, Connection};
use crate::startup::cancel::CancelReason;
use crate::topology::{Node, NodeId, Observed};

/// How long a new connection to a replica waits for the monitor to vouch for the server it leads to.
const SETTLE_LIMIT: Duration = Duration::from_millis(500);
/// Between two looks at what is known of a node that is being connected to.
const LOOK_AT_NODE: Duration = Duration::from_millis(50);

/// What a pool's connections have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The node they lead to.
    pub node: NodeId,
    /// The database.
    pub database: Arc<str>,
    /// The user.
    pub user: Arc<str>,
    /// What they are for.
    pub purpose: Purpose,
}

/// What connections are lent for. A session may wait for one of either kind while it holds others: one kind never waits for
/// the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// To run what clients send.
    Sessions,
    /// To finish what the shards cannot finish by themselves.
    Workspaces,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Sessions, Self::Workspaces];

    /// Its label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Workspaces => "workspaces",
        }
    }
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
    /// The client wants it no longer.
    #[error("the wait was cancelled")]
    Cancelled(CancelReason),
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
    admission: Option<Admission>,
    /// [`PoolLimits::idle`] and [`PoolLimits::lifetime`] as they are compared with every connection lent.
    idle_ms: u64,
    lifetime_ms: u64,
    registry: Registry,
    made: Instant,
    /// Milliseconds from `made` to the last [`Pool::close_old`]: the time as lending knows it, without asking the clock.
    age_ms: AtomicU64,
    state: Mutex<State>,
    retired: AtomicBool,
    /// Connections up to this number are not lent again.
    replaced: AtomicU64,
    waited: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Idle>,
    open: usize,
    /// The sockets of all connections, idle and lent.
    sockets: Vec<Weak<Socket>>,
    waiters: VecDeque<Waiter>,
}

/// A session in the queue.
#[derive(Debug)]
struct Waiter {
    turn: Arc<Turn>,
    since: Instant,
}

/// While it lives, a session waits by this turn; dropped, nothing is lent to it any more.
struct Queued<'a> {
    pool: &'a Pool,
    turn: &'a Arc<Turn>,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        // Whoever settled the turn has taken it out of the queue already, mostly.
        let mut state = self.pool.lock();
        let is_this = |waiter: &Waiter| Arc::ptr_eq(&waiter.turn, self.turn);
        if let Some(index) = state.waiters.iter().position(is_this) {
            state.waiters.remove(index);
        }
        drop(state);
        // A lease that came too late goes to the next in the queue as it drops.
        drop(self.turn.take());
    }
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    worker: usize,
    /// [`Pool::age_ms`] when it came to rest.
    since: u64,
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
pub(super) struct Lease {
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
        admission: Option<Admission>,
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
            admission,
            idle_ms: milliseconds(limits.idle),
            lifetime_ms: milliseconds(limits.lifetime),
            registry,
            made: Instant::now(),
            age_ms: AtomicU64::new(0),
            state: Mutex::default(),
            retired: AtomicBool::new(false),
            replaced: AtomicU64::new(0),
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
            waiting: state.waiters.len(),
            waited: self.waited.load(Ordering::Relaxed),
            size: self.limits.size,
        }
    }

    /// Borrows a connection: an idle one, a new one, or the next that is given back. For the last of these the session
    /// waits by its `turn`, until `cancelled` is ready.
    ///
    /// # Errors
    /// [`CheckoutError`]. A failure to connect is reported to the node's health as well.
    pub async fn check_out(
        self: &Arc<Self>,
        worker: usize,
        client: u64,
        turn: &Arc<Turn>,
        cancelled: impl FnMut(&mut Context<'_>) -> Poll<CancelReason>,
    ) -> Result<Borrowed, CheckoutError> {
        if self.retired.load(Ordering::Relaxed) {
            return Err(CheckoutError::Retired);
        }
        let mut waited = Duration::ZERO;
        let mut lease = match self.try_lease(worker, turn) {
            Ok(lease) => lease,
            Err(since) => {
                let lease = self.wait(turn, cancelled).await?;
                waited = since.elapsed();
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
            // with a session's replies. What the reactor knows of may have been read since: then the system is asked.
            let is_quiet = !idle.connection.stream.has_input() || idle.connection.is_open();
            if !is_quiet || self.is_too_old(&idle) {
                state.open -= 1;
                continue;
            }
            return Some(idle.connection);
        }
        None
    }

    /// An idle connection, or the right to open one, or a place in the queue since now.
    fn try_lease(self: &Arc<Self>, worker: usize, turn: &Arc<Turn>) -> Result<Lease, Instant> {
        let mut state = self.lock();
        if let Some(connection) = self.take_idle(&mut state, worker) {
            return Ok(self.lease(Some(connection)));
        }
        if state.open < self.limits.size {
            state.open += 1;
            return Ok(self.lease(None));
        }
        let since = Instant::now();
        state.waiters.push_back(Waiter {
            turn: Arc::clone(turn),
            since,
        });
        Err(since)
    }

    async fn wait(
        &self,
        turn: &Arc<Turn>,
        mut cancelled: impl FnMut(&mut Context<'_>) -> Poll<CancelReason>,
    ) -> Result<Lease, CheckoutError> {
        self.waited.fetch_add(1, Ordering::Relaxed);
        let _queued = Queued { pool: self, turn };
        poll_fn(|context| {
            if let Poll::Ready(outcome) = turn.poll(context) {
                return Poll::Ready(outcome);
            }
            cancelled(context).map(|reason| Err(CheckoutError::Cancelled(reason)))
        })
        .await
    }

    /// A connection that breaks while it is made may be that one's bad luck: the node gets another try.
    async fn connect(&self) -> Result<Connection, ConnectError> {
        match self.connect_once().await {
            Err(ConnectError::Broken(_)) => {
                self.node.suspect();
                self.connect_once().await
            }
            outcome => outcome,
        }
    }

    async fn connect_once(&self) -> Result<Connection, ConnectError> {
        let mut connection = Connection::connect(&self.options).await?;
        if let Some(admission) = &self.admission {
            let admitted =
                admission.admit(&mut connection, &self.key.database, self.options.timeout);
            admitted.await?;
        }
        Ok(connection)
    }

    /// Ends when the node has been down for a moment; a failure reported by mistake is corrected sooner.
    async fn node_is_down(&self) {
        let mut seen_down = 0;
        while seen_down < 2 {
            tokio::time::sleep(LOOK_AT_NODE).await;
            let is_down = self.node.observed() == Observed::Down;
            seen_down = if is_down { seen_down + 1 } else { 0 };
        }
    }

    async fn open(&self) -> Result<Box<Connection>, CheckoutError> {
        let outcome = tokio::select! {
            biased;
            outcome = self.connect() => outcome,
            // A node that accepts and then says nothing is not waited for longer than others need to notice.
            () = self.node_is_down() => Err(ConnectError::Timeout),
        };
        match outcome {
            Ok(mut connection) => {
                connection.born = self.now();
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

    /// The time, as of the last [`Pool::close_old`].
    fn now(&self) -> u64 {
        self.age_ms.load(Ordering::Relaxed)
    }

    fn is_too_old(&self, idle: &Idle) -> bool {
        let now = self.now();
        let older = |since: u64, limit: u64| now.saturating_sub(since) > limit;
        let number = idle.connection.entry.as_ref().map_or(0, |entry| entry.id);
        let lifetime = lifetime_of(number, self.lifetime_ms);
        older(idle.connection.born, lifetime) || older(idle.since, self.idle_ms)
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
        let age = milliseconds(Some(self.made.elapsed()));
        self.age_ms.store(age, Ordering::Relaxed);
        let mut state = self.lock();
        let before = state.idle.len();
        state.idle.retain(|idle| !self.is_too_old(idle));
        state.open -= before - state.idle.len();
    }

    /// Ends the wait of sessions that have waited longer than [`PoolLimits::wait`]. To be called every now and then.
    pub fn end_waits(&self) {
        loop {
            let mut state = self.lock();
            let first = state.waiters.front();
            if first.is_none_or(|first| first.since.elapsed() <= self.limits.wait) {
                return;
            }
            let first = state.waiters.pop_front();
            drop(state);
            if let Some(first) = first {
                first.turn.settle(Err(CheckoutError::Timeout));
            }
        }
    }

    /// Closes what is idle and lets nothing come back: the node has left the topology.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.close_idle();
        let waiters = std::mem::take(&mut self.lock().waiters);
        for waiter in waiters {
            waiter.turn.settle(Err(CheckoutError::Retired));
        }
    }

    /// Closes connections up to this number: those at rest now, those that are lent when they come back.
    pub fn replace_up_to(&self, last: u64) {
        self.replaced.store(last, Ordering::Relaxed);
        let mut state = self.lock();
        let before = state.idle.len();
        state
            .idle
            .retain(|idle| !self.is_replaced(&idle.connection));
        state.open -= before - state.idle.len();
    }

    /// Whether connections that are to be closed are still lent.
    pub fn has_replaced(&self) -> bool {
        let replaced = self.replaced.load(Ordering::Relaxed);
        let servers = self.registry.servers();
        let own = servers.iter().filter(|server| {
            server.node == self.key.node
                && server.database == self.key.database
                && server.user == self.key.user
        });
        own.into_iter().any(|server| server.id <= replaced)
    }

    fn is_replaced(&self, connection: &Connection) -> bool {
        let replaced = self.replaced.load(Ordering::Relaxed);
        let entry = connection.entry.as_ref();
        replaced > 0 && entry.is_some_and(|entry| entry.id <= replaced)
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

/// What the connection of this number lives of the longest that one may: from four fifths to all of it, so that connections made at the same
/// time are not all made anew at the same time.
fn lifetime_of(number: u64, longest: u64) -> u64 {
    // Multiples of the golden ratio: the parts of numbers that follow each other lie far apart.
    let part = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
    longest - longest / 5 / 1024 * part
}

/// A limit in milliseconds; none is more than anything reaches.
fn milliseconds(limit: Option<Duration>) -> u64 {
    let limit = limit.map(|limit| u64::try_from(limit.as_millis()));
    limit.and_then(Result::ok).unwrap_or(u64::MAX)
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
        match state.waiters.pop_front() {
            None => state.open -= 1,
            Some(waiter) => {
                drop(state);
                waiter.turn.settle(Ok(self.pool.lease(None)));
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
        let is_over =
            lease.pool.retired.load(Ordering::Relaxed) || lease.pool.is_replaced(&connection);
        if !connection.is_reusable() || is_over {
            return;
        }
        if let Some(entry) = &connection.entry {
            entry.set_client(0);
        }
        let mut state = lease.pool.lock();
        if let Some(waiter) = state.waiters.pop_front() {
            drop(state);
            lease.connection = Some(connection);
            waiter.turn.settle(Ok(lease));
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

    /// Those of one database, or of all.
    pub fn of(&self, database: Option<&str>) -> Vec<Arc<Pool>> {
        let mut pools = self.all();
        pools.retain(|pool| database.is_none_or(|database| *pool.key.database == *database));
        pools
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

#[cfg(test)]
mod tests {
    use super::lifetime_of;

    #[test]
    fn connections_of_one_moment_end_at_different_ones() {
        const HOUR: u64 = 3_600_000;
        let mut ends: Vec<u64> = (1..=20).map(|number| lifetime_of(number, HOUR)).collect();
        assert!(
            ends.iter().all(|end| (HOUR * 4 / 5..=HOUR).contains(end)),
            "{ends:?}"
        );
        ends.sort_unstable();
        let gaps = ends.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.min() > Some(HOUR / 200), "{ends:?}");
        assert!(lifetime_of(7, u64::MAX) > u64::MAX / 2);
    }
}
