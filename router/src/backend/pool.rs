//! Pools of connections, one per node, database and user.
//!
//! Checking out takes one short lock and no system call when a connection is idle. The most recently used connection
//! goes out first (its caches are warm), preferably one that was opened on the same worker, whose reactor it is
//! registered with. Waiters are served in order, each until a deadline.
//!
//! Invariant: [`State::open`] counts the connections that are idle, lent or being made, each once, and so do the quotas that the pool shares
//! with others. `lease` is the right to one of them, `sharing` how they come to who waits for one in another pool, `upkeep` what is done every now and then.

mod lease;
mod sharing;
mod upkeep;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::Socket;
use tokio::time::Instant;

use crate::admin::registry::{Registry, ServerEntry};

use super::quota::Quota;
use super::refusal::Refusal;
use super::turn::{Place, Turn};
use super::{Admission, ConnectError, ConnectOptions, Connection, PoolKey};
use crate::startup::cancel::CancelReason;
use crate::topology::{Node, Observed};

pub use lease::Borrowed;
pub(super) use lease::Lease;

/// How long a new connection to a replica waits for the monitor to vouch for the server it leads to.
const SETTLE_LIMIT: Duration = Duration::from_millis(500);
/// Between two looks at what is known of a node that is being connected to.
const LOOK_AT_NODE: Duration = Duration::from_millis(50);

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
    /// So many are kept open.
    pub min: usize,
    /// So many more for sessions that have waited for `reserve_after`.
    pub reserve: usize,
    /// See `reserve`.
    pub reserve_after: Duration,
    /// How long a session waits for one.
    pub wait: Duration,
    /// The longest pause between attempts to connect that are refused.
    pub login_retry: Duration,
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
    /// What it shares with other pools.
    quotas: Box<[Arc<Quota>]>,
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
    /// Connections, those being made included.
    open: usize,
    /// Of these, those being made.
    opening: usize,
    /// The node does not let us in.
    refusal: Option<Refusal>,
    /// The sockets of all connections, idle and lent.
    sockets: Vec<Weak<Socket>>,
    waiters: VecDeque<Waiter>,
}

/// A session in the queue.
#[derive(Debug)]
struct Waiter {
    place: Place,
    since: Instant,
}

/// Whether a connection may be made.
enum May<'a> {
    /// It may, and has been counted.
    Open,
    /// Not now.
    Wait,
    /// Not while other pools have what they have of this quota.
    Starve(&'a Quota),
    /// The node does not let us in.
    Fail(Arc<ConnectError>),
}

/// Why there is nothing to be had at once.
enum Denied {
    /// The session has got a place in the queue, as of then.
    Queued(Instant),
    /// The node does not let us in.
    Refused(Arc<ConnectError>),
    /// The pool is of no use any more.
    Retired,
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
        let is_this = |waiter: &Waiter| waiter.place.is_of(self.turn);
        if let Some(index) = state.waiters.iter().position(is_this) {
            state.waiters.remove(index);
        }
        drop(state);
        self.turn.leave();
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
    /// Those of them that are being opened.
    pub opening: usize,
    /// Connections at rest.
    pub idle: usize,
    /// Sessions waiting for one.
    pub waiting: usize,
    /// Checkouts that had to wait since the start.
    pub waited: u64,
    /// How long the first in the queue has waited.
    pub longest_wait: Duration,
    /// The limit on connections.
    pub size: usize,
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
        quotas: Box<[Arc<Quota>]>,
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
            quotas,
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
            opening: state.opening,
            idle: state.idle.len(),
            waiting: state.waiters.len(),
            waited: self.waited.load(Ordering::Relaxed),
            longest_wait: state
                .waiters
                .front()
                .map_or(Duration::ZERO, |first| first.since.elapsed()),
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
        mut cancelled: impl FnMut(&mut Context<'_>) -> Poll<CancelReason>,
    ) -> Result<Borrowed, CheckoutError> {
        let mut began = None;
        loop {
            let mut lease = match self.try_lease(worker, turn, began) {
                Ok(lease) => lease,
                Err(Denied::Queued(since)) => {
                    began = Some(since);
                    self.wait(turn, &mut cancelled).await?
                }
                Err(Denied::Refused(error)) => return Err(CheckoutError::Connect(error)),
                Err(Denied::Retired) => return Err(CheckoutError::Retired),
            };
            let connection = match lease.connection.take() {
                Some(connection) => connection,
                None => match Box::pin(self.open()).await {
                    Ok(connection) => connection,
                    // Those that are lent come back.
                    Err(error) if self.note_failure(&error) => continue,
                    Err(error) => return Err(CheckoutError::Connect(error)),
                },
            };
            lease.opened();
            let waited = began.map_or(Duration::ZERO, |since| since.elapsed());
            return Ok(lease.borrowed(connection, worker, client, waited));
        }
    }

    /// As [`Pool::check_out`], where an idle connection serves; `None` if there is none.
    #[must_use]
    pub fn check_out_idle(self: &Arc<Self>, worker: usize, client: u64) -> Option<Borrowed> {
        if self.is_retired() {
            return None;
        }
        let connection = self.take_idle(&mut self.lock(), worker)?;
        let lease = Lease::of_open(self);
        Some(lease.borrowed(connection, worker, client, Duration::ZERO))
    }

    fn take_idle(&self, state: &mut State, worker: usize) -> Option<Box<Connection>> {
        while let Some(idle) = state.take_idle(worker) {
            // Anything that arrives while nobody waits for it is an end of stream or news we do not want to mix
            // with a session's replies. What the reactor knows of may have been read since: then the system is asked.
            let is_quiet = !idle.connection.stream.has_input() || idle.connection.is_open();
            if !is_quiet || self.is_over(&idle, state.open) {
                self.forget(state, 1);
                continue;
            }
            return Some(idle.connection);
        }
        None
    }

    /// An idle connection, or the right to open one, or a place in the queue: since now, unless it is not the first.
    fn try_lease(
        self: &Arc<Self>,
        worker: usize,
        turn: &Arc<Turn>,
        began: Option<Instant>,
    ) -> Result<Lease, Denied> {
        let mut state = self.lock();
        // Under the lock: who queues later is not among those that `retire` sends away.
        if self.is_retired() {
            return Err(Denied::Retired);
        }
        if let Some(connection) = self.take_idle(&mut state, worker) {
            return Ok(Lease::new(self, Some(connection)));
        }
        match self.take_place(&mut state, 0) {
            May::Open => return Ok(Lease::new(self, None)),
            May::Fail(error) => return Err(Denied::Refused(error)),
            May::Starve(quota) => quota.starve(self),
            May::Wait => {}
        }
        let since = began.unwrap_or_else(Instant::now);
        let place = turn.enter();
        state.queue(Waiter { place, since });
        drop(state);
        self.serve_starved();
        Err(Denied::Queued(since))
    }

    /// Counts a connection that is to be made, if one may: with `reserve` more than the pool's size.
    fn take_place(&self, state: &mut State, reserve: usize) -> May<'_> {
        if state.open >= self.limits.size + reserve {
            return May::Wait;
        }
        let has_others = state.open > state.opening;
        // The first is made alone: what comes of it holds for all.
        if state.opening > 0 && !has_others {
            return May::Wait;
        }
        if let Some(refusal) = &state.refusal
            && !refusal.is_over(Instant::now())
        {
            return match has_others {
                true => May::Wait,
                false => May::Fail(Arc::clone(&refusal.error)),
            };
        }
        for (index, quota) in self.quotas.iter().enumerate() {
            if !quota.take() {
                self.quotas[..index]
                    .iter()
                    .for_each(|quota| quota.release(1));
                return May::Starve(quota);
            }
        }
        state.open += 1;
        state.opening += 1;
        May::Open
    }

    /// The first in the queue, and the right to make a connection, if one may be made.
    fn next_lease(self: &Arc<Self>, state: &mut State, reserve: usize) -> Option<(Waiter, Lease)> {
        if state.waiters.is_empty() {
            return None;
        }
        match self.take_place(state, reserve) {
            May::Open => {}
            May::Starve(quota) => {
                quota.starve(self);
                return None;
            }
            May::Wait | May::Fail(_) => return None,
        }
        let waiter = state.waiters.pop_front()?;
        Some((waiter, Lease::new(self, None)))
    }

    /// So many connections are no more.
    fn forget(&self, state: &mut State, count: usize) {
        state.open -= count;
        self.quotas.iter().for_each(|quota| quota.release(count));
    }

    /// A connection has been made. Those go on that have waited to see whether it could be.
    fn note_opened(self: &Arc<Self>) {
        let mut state = self.lock();
        state.opening -= 1;
        let was_refused = state.refusal.take().is_some();
        let is_first = state.open - state.opening == 1;
        let is_awaited = (was_refused || is_first) && !state.waiters.is_empty();
        drop(state);
        if is_awaited {
            self.look_after_waiters();
        }
    }

    /// Takes note of a connection that could not be made. Whether to wait for those that are lent, because the node lets nobody in; if there
    /// are none, who waits gets the same error.
    fn note_failure(&self, error: &Arc<ConnectError>) -> bool {
        let is_refusal = matches!(
            **error,
            ConnectError::Refused { .. } | ConnectError::Protocol(_)
        ) && !error.is_node_down();
        let mut state = self.lock();
        if is_refusal {
            let longest = self.limits.login_retry;
            let (before, now) = (state.refusal.as_ref(), Instant::now());
            state.refusal = Some(Refusal::after(before, Arc::clone(error), now, longest));
        }
        if state.open > state.opening {
            return is_refusal;
        }
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        for waiter in waiters {
            let error = CheckoutError::Connect(Arc::clone(error));
            waiter.place.settle(Err(error));
        }
        false
    }

    async fn wait(
        &self,
        turn: &Arc<Turn>,
        cancelled: &mut impl FnMut(&mut Context<'_>) -> Poll<CancelReason>,
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
        let _turn = self.node.login().await;
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

    async fn open(&self) -> Result<Box<Connection>, Arc<ConnectError>> {
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
                Err(Arc::new(error))
            }
        }
    }

    /// The time, as of the last [`Pool::close_old`].
    fn now(&self) -> u64 {
        self.age_ms.load(Ordering::Relaxed)
    }

    /// Whether an idle connection has lived too long, or rested too long and is not one that is kept open.
    fn is_over(&self, idle: &Idle, open: usize) -> bool {
        let now = self.now();
        let older = |since: u64, limit: u64| now.saturating_sub(since) > limit;
        let number = idle.connection.entry.as_ref().map_or(0, |entry| entry.id);
        let lifetime = lifetime_of(number, self.lifetime_ms);
        let has_rested = older(idle.since, self.idle_ms) && open > self.limits.min;
        has_rested || older(idle.connection.born, lifetime)
    }

    fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
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
    /// By how long each has waited, which may be a second time.
    fn queue(&mut self, waiter: Waiter) {
        let came_before = |one: &Waiter| one.since <= waiter.since;
        let index = self.waiters.partition_point(came_before);
        self.waiters.insert(index, waiter);
    }

    fn take_idle(&mut self, worker: usize) -> Option<Idle> {
        let own = self.idle.iter().rposition(|idle| idle.worker == worker);
        let index = own.or_else(|| self.idle.len().checked_sub(1))?;
        Some(self.idle.remove(index))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{State, Waiter, lifetime_of};
    use crate::backend::turn::Turn;

    #[test]
    fn who_waits_again_has_not_lost_the_place() {
        let start = Instant::now();
        let mut state = State::default();
        for seconds in [2, 3, 3, 1] {
            let place = Arc::new(Turn::default()).enter();
            let since = start + Duration::from_secs(seconds);
            state.queue(Waiter { place, since });
        }
        let waited = state
            .waiters
            .iter()
            .map(|one| (one.since - start).as_secs());
        assert_eq!(waited.collect::<Vec<_>>(), [1, 2, 3, 3]);
    }

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
