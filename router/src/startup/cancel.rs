//! Cancel keys, and what they cancel.
//!
//! A client gets a key when it enters ([`CancelRegistry::register`]). Its session publishes into the key's slot each
//! backend it borrows ([`CancelSlot::publish`]) and withdraws it before giving it back ([`CancelSlot::withdraw`]). A cancel
//! request finds the slot by its key and is forwarded to every backend published there.
//!
//! Invariant: a forwarded cancel never meets the next borrower's query. It is counted in the backend's [`CancelTarget`]
//! under the lock of the slot, so after `withdraw` no new one can begin; and a backend is not given back before
//! [`CancelTarget::settled`] has said that those begun are over: PostgreSQL has signalled the backend before it closes the
//! socket of a cancel request, and a backend ignores the signal when it waits for its next query.
//!
//! Cost: a lock nobody else holds and a push per borrowed backend, the same to withdraw, a relaxed load to see that it is
//! settled. Nothing per query of a transaction, nothing per message.

use std::collections::HashMap;
use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use smallvec::SmallVec;
use socket2::Socket;
use subtle::ConstantTimeEq;
use switchyard_wire::SqlState;
use switchyard_wire::frontend::encode;
use switchyard_wire::startup::ProtocolVersion;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::peers::{self, Peers};
use super::tls::NodeTls;
use crate::stream::{Endpoint, Stream};

/// How long forwarding to one node may take. A backend whose cancel did not end in time is not used again.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(10);
/// Length of a secret under protocol 3.0.
const SHORT_SECRET: usize = 4;
/// Length of a secret under protocol 3.2, as PostgreSQL has it.
const LONG_SECRET: usize = 32;

/// What a client shows to have its query cancelled.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelKey {
    /// The process number.
    pub pid: i32,
    /// The secret.
    pub secret: Box<[u8]>,
}

impl CancelKey {
    fn random(version: ProtocolVersion, peers: &Peers) -> Result<Self, getrandom::Error> {
        let long = version >= ProtocolVersion::V3_2;
        let mut secret = vec![0; if long { LONG_SECRET } else { SHORT_SECRET }];
        getrandom::fill(&mut secret)?;
        let pid = peers.pid(getrandom::u32()?);
        Ok(Self {
            pid,
            secret: secret.into(),
        })
    }
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "CancelKey({}, ..)", self.pid)
    }
}

/// All keys that have been given out and are still good.
#[derive(Debug, Default)]
pub struct CancelRegistry {
    entries: Arc<Entries>,
    peers: ArcSwap<Peers>,
    forwarded: AtomicU64,
    unknown: AtomicU64,
}

type Entries = Mutex<HashMap<i32, Entry>>;

#[derive(Debug)]
struct Entry {
    secret: Box<[u8]>,
    slot: Arc<CancelSlot>,
}

/// A key while it is good, with its slot.
#[derive(Debug)]
pub struct CancelRegistration {
    key: CancelKey,
    slot: Arc<CancelSlot>,
    entries: Arc<Entries>,
}

impl CancelRegistration {
    /// Where the session says what works for it.
    #[must_use]
    pub fn slot(&self) -> &Arc<CancelSlot> {
        &self.slot
    }

    /// A key that no registry knows, for sessions in tests.
    #[must_use]
    pub fn detached(key: CancelKey) -> Self {
        Self {
            key,
            slot: Arc::default(),
            entries: Arc::default(),
        }
    }
}

impl Deref for CancelRegistration {
    type Target = CancelKey;

    fn deref(&self) -> &CancelKey {
        &self.key
    }
}

impl Drop for CancelRegistration {
    fn drop(&mut self) {
        lock(&self.entries).remove(&self.key.pid);
    }
}

impl CancelRegistry {
    /// These are the routers that share an address with this one.
    pub fn know(&self, peers: Peers) {
        self.peers.store(Arc::new(peers));
    }

    /// A new key, good until what is returned is dropped.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn register(
        &self,
        version: ProtocolVersion,
    ) -> Result<CancelRegistration, getrandom::Error> {
        let slot = Arc::<CancelSlot>::default();
        loop {
            let key = CancelKey::random(version, &self.peers.load())?;
            let mut entries = lock(&self.entries);
            if entries.contains_key(&key.pid) {
                continue;
            }
            let entry = Entry {
                secret: key.secret.clone(),
                slot: Arc::clone(&slot),
            };
            entries.insert(key.pid, entry);
            drop(entries);
            return Ok(CancelRegistration {
                key,
                slot,
                entries: Arc::clone(&self.entries),
            });
        }
    }

    /// Cancels what works for the client with this key, if there is one: wakes its session where it waits, and forwards
    /// the request to its backends. Returns when the nodes have taken note.
    pub async fn cancel(&self, pid: i32, secret: &[u8]) {
        let (secret, is_passed_on) = peers::unmarked(secret);
        if !is_passed_on && let Some(peer) = self.peers.load().of(pid).cloned() {
            return peers::pass_on(&peer, pid, secret).await;
        }
        let Some(slot) = self.find(pid, secret) else {
            // PostgreSQL, too, has but a line in its log for this.
            tracing::debug!(pid, "no session has the key of a cancel request");
            self.unknown.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.forwarded.fetch_add(1, Ordering::Relaxed);
        slot.cancel(CancelReason::Request).await;
    }

    fn find(&self, pid: i32, secret: &[u8]) -> Option<Arc<CancelSlot>> {
        let entries = lock(&self.entries);
        let entry = entries.get(&pid)?;
        bool::from(entry.secret.ct_eq(secret)).then(|| Arc::clone(&entry.slot))
    }

    /// Requests that had a good key, since the start.
    #[must_use]
    pub fn forwarded(&self) -> u64 {
        self.forwarded.load(Ordering::Relaxed)
    }

    /// Requests that had none, since the start.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }
}

/// Why what works for a client is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CancelReason {
    /// The client asked for it, or has left.
    Request,
    /// `query_timeout` is over.
    Timeout,
    /// Transactions on several shards wait for each other, and this one is the victim.
    Deadlock,
    /// `transaction_timeout` is over.
    TransactionTimeout,
}

impl CancelReason {
    /// What PostgreSQL says when it cancels a statement for this reason.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::Request => "canceling statement due to user request",
            Self::Timeout => "canceling statement due to statement timeout",
            Self::Deadlock => "deadlock detected",
            Self::TransactionTimeout => "canceling statement due to transaction timeout",
        }
    }

    /// The SQLSTATE that goes with it.
    #[must_use]
    pub fn sqlstate(self) -> SqlState {
        match self {
            Self::Request | Self::Timeout | Self::TransactionTimeout => SqlState::QUERY_CANCELED,
            Self::Deadlock => SqlState::DEADLOCK_DETECTED,
        }
    }

    fn load(from: &AtomicU8) -> Self {
        match from.load(Ordering::Relaxed) {
            1 => Self::Timeout,
            2 => Self::Deadlock,
            3 => Self::TransactionTimeout,
            _ => Self::Request,
        }
    }

    fn store(self, to: &AtomicU8) {
        to.store(self as u8, Ordering::Relaxed);
    }
}

/// What works for one client.
#[derive(Debug, Default)]
pub struct CancelSlot {
    working: Mutex<SmallVec<[Arc<CancelTarget>; 1]>>,
    requests: AtomicU64,
    /// The [`CancelReason`] of the last of them.
    reason: AtomicU8,
    /// The task that waits for a backend, or did so last.
    session: Mutex<Option<Waker>>,
}

impl CancelSlot {
    /// The session has borrowed this backend.
    pub fn publish(&self, target: &Arc<CancelTarget>) {
        CancelReason::Request.store(&target.reason);
        lock(&self.working).push(Arc::clone(target));
    }

    /// The session is about to give this backend back. It may do so when [`CancelTarget::settled`].
    pub fn withdraw(&self, target: &Arc<CancelTarget>) {
        let mut working = lock(&self.working);
        if let Some(index) = working.iter().position(|found| Arc::ptr_eq(found, target)) {
            working.swap_remove(index);
        }
    }

    /// Cancel requests so far, for [`CancelSlot::poll_requested_since`].
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Ready when there is a cancel request that is not among the first `known`: for a session that has no backend yet,
    /// which would hear of it.
    pub fn poll_requested_since(
        &self,
        known: u64,
        context: &mut Context<'_>,
    ) -> Poll<CancelReason> {
        let mut session = lock(&self.session);
        let is_known = |waker: &Waker| waker.will_wake(context.waker());
        if !session.as_ref().is_some_and(is_known) {
            *session = Some(context.waker().clone());
        }
        drop(session);
        match self.requested_since(known) {
            Some(reason) => Poll::Ready(reason),
            None => Poll::Pending,
        }
    }

    /// Why the latest cancel request came, if it is not among the first `known`.
    #[must_use]
    pub fn requested_since(&self, known: u64) -> Option<CancelReason> {
        (self.requests() != known).then(|| CancelReason::load(&self.reason))
    }

    /// Cancels what works for the client: wakes its session where it waits for a backend, and forwards the request to its
    /// backends. What is returned completes when the nodes have taken note.
    pub fn cancel(&self, reason: CancelReason) -> impl Future<Output = ()> + use<> {
        reason.store(&self.reason);
        let forwards = self.begin(reason);
        async move {
            let mut forwarding: JoinSet<()> = forwards.into_iter().map(Forward::run).collect();
            while forwarding.join_next().await.is_some() {}
        }
    }

    /// Shuts down the connections to all that work now: they did not heed a cancel request. Their session finds them lost.
    pub fn sever(&self) {
        let working = lock(&self.working);
        for socket in working.iter().filter_map(|target| target.socket.upgrade()) {
            // It fails for a connection that the node has closed already.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Begins to forward to all that work now.
    fn begin(&self, reason: CancelReason) -> Vec<Forward> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let working = lock(&self.working);
        let begin = |target| Forward::begin(target, reason);
        let begun = working.iter().map(begin).collect();
        drop(working);
        let session = lock(&self.session).clone();
        if let Some(session) = session {
            session.wake();
        }
        begun
    }
}

/// A backend as a cancel request reaches it. Made with the connection; lives as long. What every borrower looks at comes
/// first.
#[derive(Debug)]
#[repr(C)]
pub struct CancelTarget {
    /// Requests on their way.
    forwarding: AtomicUsize,
    /// The [`CancelReason`] of the last request.
    reason: AtomicU8,
    /// A request was sent and how it ended is not known.
    uncertain: AtomicBool,
    pid: i32,
    secret: Box<[u8]>,
    address: CancelAddress,
    /// The connection itself, as long as there is one.
    socket: Weak<Socket>,
    over: Notify,
}

/// Where a backend's node is.
#[derive(Clone, Debug)]
pub struct CancelAddress {
    /// The address the backend's own connection leads to: a name may have several, and other servers behind them.
    pub endpoint: Endpoint,
    /// The name that the node's certificate is for.
    pub host: Arc<str>,
    /// How to encrypt.
    pub tls: NodeTls,
}

impl CancelTarget {
    /// The backend behind a connection: its node, what it said in BackendKeyData, and the connection's socket.
    #[must_use]
    pub fn new(address: CancelAddress, pid: i32, secret: &[u8], socket: &Arc<Socket>) -> Arc<Self> {
        Arc::new(Self {
            address,
            pid,
            secret: secret.into(),
            socket: Arc::downgrade(socket),
            reason: AtomicU8::new(CancelReason::Request as u8),
            forwarding: AtomicUsize::new(0),
            uncertain: AtomicBool::new(false),
            over: Notify::new(),
        })
    }

    /// Where the backend's node is.
    #[must_use]
    pub fn address(&self) -> &CancelAddress {
        &self.address
    }

    /// Why its statement was cancelled last.
    #[must_use]
    pub fn reason(&self) -> CancelReason {
        CancelReason::load(&self.reason)
    }

    /// The server's process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether nothing is on its way to this backend and it may serve another session. Meaningful once it is withdrawn.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        // The lock of the slot, which the caller took to withdraw, orders this after what was begun there.
        self.forwarding.load(Ordering::Acquire) == 0 && !self.uncertain.load(Ordering::Relaxed)
    }

    /// Waits until nothing is on its way to this backend. False: something may still reach it, so it must be closed.
    pub async fn settled(&self) -> bool {
        loop {
            let over = self.over.notified();
            if self.forwarding.load(Ordering::Acquire) == 0 {
                return !self.uncertain.load(Ordering::Relaxed);
            }
            over.await;
        }
    }

    async fn send(&self) -> io::Result<()> {
        let connection = self.address.endpoint.connect().await?;
        let host = &self.address.host;
        let stream = self.address.tls.wrap(connection, host).await?;
        hand_in(stream, self.pid, &self.secret).await
    }
}

/// Sends a request and waits until it has taken effect: it is answered by the end of the connection, and by nothing before that.
pub(super) async fn hand_in(mut stream: Stream, pid: i32, secret: &[u8]) -> io::Result<()> {
    let mut request = BytesMut::new();
    encode::cancel_request(&mut request, pid, secret);
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut nothing = [0; 16];
    while stream.read(&mut nothing).await? > 0 {}
    Ok(())
}

/// A request on its way to one backend. Dropped before its end, it leaves the backend uncertain.
#[derive(Debug)]
struct Forward {
    target: Arc<CancelTarget>,
    certain: bool,
}

impl Forward {
    fn begin(target: &Arc<CancelTarget>, reason: CancelReason) -> Self {
        reason.store(&target.reason);
        target.forwarding.fetch_add(1, Ordering::Relaxed);
        Self {
            target: Arc::clone(target),
            certain: false,
        }
    }

    async fn run(mut self) {
        match timeout(FORWARD_TIMEOUT, self.target.send()).await {
            Ok(Ok(())) => self.certain = true,
            Ok(Err(error)) => {
                tracing::debug!(%error, pid = self.target.pid, "a cancel request was not forwarded");
            }
            Err(_) => tracing::debug!(
                pid = self.target.pid,
                "a node takes too long for a cancel request"
            ),
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        if !self.certain {
            self.target.uncertain.store(true, Ordering::Relaxed);
        }
        self.target.forwarding.fetch_sub(1, Ordering::Release);
        self.target.over.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks guard is consistent between any two statements under them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use switchyard_wire::startup::{StartupPacket, decode_startup};
    use tokio::net::{TcpListener, TcpStream};

    /// A node that takes one cancel request and closes when it is told to.
    async fn node() -> (CancelAddress, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = CancelAddress {
            endpoint: Endpoint::Tcp(listener.local_addr().unwrap()),
            host: "127.0.0.1".into(),
            tls: NodeTls::default(),
        };
        (address, listener)
    }

    async fn take(listener: &TcpListener) -> (TcpStream, i32, Vec<u8>) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut packet = [0; 16];
        stream.read_exact(&mut packet).await.unwrap();
        match decode_startup(&packet[4..]) {
            Ok(StartupPacket::Cancel { pid, secret }) => (stream, pid, secret.to_vec()),
            other => panic!("{other:?}"),
        }
    }

    fn target(address: CancelAddress, number: u8) -> Arc<CancelTarget> {
        let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        CancelTarget::new(address, number.into(), &[number; 4], &Arc::new(socket))
    }

    fn registry() -> Arc<CancelRegistry> {
        Arc::default()
    }

    #[test]
    fn keys_are_as_long_as_the_protocol_has_them_and_end_with_their_session() {
        let registry = registry();
        let short = registry.register(ProtocolVersion::V3_0).unwrap();
        let long = registry.register(ProtocolVersion::V3_2).unwrap();
        assert_eq!((short.secret.len(), long.secret.len()), (4, 32));
        assert!(short.pid > 0 && long.pid > 0 && short.pid != long.pid);
        assert!(registry.find(long.pid, &long.secret).is_some());
        assert!(registry.find(long.pid, &long.secret[..4]).is_none());
        assert!(registry.find(short.pid, &long.secret).is_none());
        assert!(registry.find(0, b"").is_none());
        let (pid, secret) = (long.pid, long.secret.clone());
        drop(long);
        assert!(registry.find(pid, &secret).is_none());
        assert_eq!(lock(&registry.entries).len(), 1);
    }

    #[tokio::test]
    async fn a_cancel_reaches_what_works_and_nothing_else() {
        let (address, listener) = node().await;
        let registry = registry();
        let session = registry.register(ProtocolVersion::V3_0).unwrap();
        let gone = target(address.clone(), 1);
        let works = target(address, 2);
        session.slot().publish(&gone);
        session.slot().publish(&works);
        session.slot().withdraw(&gone);
        let cancelling = registry.cancel(session.pid, &session.secret);
        let serving = async {
            let (_stream, pid, secret) = take(&listener).await;
            assert_eq!((pid, &*secret), (2, &[2; 4][..]));
        };
        tokio::join!(cancelling, serving);
        assert!(gone.is_settled() && works.is_settled());
        assert_eq!((registry.forwarded(), registry.unknown()), (1, 0));
        registry.cancel(session.pid, b"wrong").await;
        assert_eq!((registry.forwarded(), registry.unknown()), (1, 1));
    }

    #[tokio::test]
    async fn a_backend_is_not_settled_before_the_node_has_closed() {
        let (address, listener) = node().await;
        let registry = registry();
        let session = registry.register(ProtocolVersion::V3_2).unwrap();
        let target = target(address, 2);
        session.slot().publish(&target);
        let key = (session.pid, session.secret.clone());
        let handle = tokio::spawn(async move { registry.cancel(key.0, &key.1).await });
        let (stream, ..) = take(&listener).await;
        session.slot().withdraw(&target);
        assert!(!target.is_settled());
        let waiting = timeout(Duration::from_millis(50), target.settled());
        assert!(
            waiting.await.is_err(),
            "given back while a cancel is on its way"
        );
        drop(stream);
        assert!(target.settled().await);
        assert!(target.is_settled());
        handle.await.unwrap();
    }

    #[tokio::test]
    async fn a_backend_whose_cancel_was_cut_short_is_not_used_again() {
        let (address, listener) = node().await;
        let registry = registry();
        let session = registry.register(ProtocolVersion::V3_0).unwrap();
        let target = target(address, 2);
        session.slot().publish(&target);
        let key = (session.pid, session.secret.clone());
        let handle = tokio::spawn(async move { registry.cancel(key.0, &key.1).await });
        let (_stream, ..) = take(&listener).await;
        session.slot().withdraw(&target);
        handle.abort();
        assert!(!target.settled().await);
        assert!(!target.is_settled());
    }

    #[tokio::test]
    async fn a_session_that_waits_for_a_backend_hears_of_it() {
        let registry = registry();
        let session = registry.register(ProtocolVersion::V3_0).unwrap();
        let slot = Arc::clone(session.slot());
        let known = slot.requests();
        let cancelling = async {
            tokio::task::yield_now().await;
            registry.cancel(session.pid, &session.secret).await;
        };
        let requested = poll_fn(|context| slot.poll_requested_since(known, context));
        let (reason, ()) = tokio::join!(requested, cancelling);
        assert_eq!(reason, CancelReason::Request);
        // One that came before it waited counts, too.
        slot.cancel(CancelReason::Timeout).await;
        let reason = poll_fn(|context| slot.poll_requested_since(known, context)).await;
        assert_eq!(
            (reason, slot.requests()),
            (CancelReason::Timeout, known + 2)
        );
    }
}
