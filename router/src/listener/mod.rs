//! Accepts clients, lets them in, and hands them to workers.
//!
//! One task accepts and gives each connection to the worker with the fewest ([`accept`]); on its worker the connection is
//! a task of its own, from the startup packet to the end of its session ([`work`]).
//!
//! Invariants: connections that have not authenticated are counted, those that have are counted, and neither count goes
//! past `max_clients` (but for the admin console, and a few that are entering); once half of the places to enter by are taken, no address takes the rest. A worker owns the tasks of its connections: they end with it, and one
//! that panics ends alone. When the router drains, nothing more is accepted.
//!
//! Collaborators: [`crate::startup`] lets a client in, the session it is handed to is the caller's.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use switchyard_wire::backend::encode;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tracing::field::Empty;
use tracing::{Instrument, Span, debug_span};

use crate::startup::cancel::CancelRegistry;
use crate::startup::failed::{FailedLogins, network};
use crate::startup::{Access, ClientConnection, Directory, Door, Refusal, access, admit};
use crate::stream::Socket;

mod bind;

pub use bind::{Accepted, Listener, bind, bind_unix};

/// Connections accepted for a worker that it has not taken over yet.
const HAND_OVER: usize = 128;
/// A pause when the system refuses to accept, for want of file descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// However few clients there may be, so many may be entering: cancel requests and the admin console come this way, too.
const MIN_ENTERING: usize = 64;
/// Once half of the places of those who are entering are taken, an address gets no more than this part of them: who only connects takes none
/// from others.
const SHARE: usize = 8;
/// An idle connection is probed after this time, and again each interval.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// A client that takes nothing of what we sent for this long is gone (TCP_USER_TIMEOUT). It counts also for a client that
/// lives and does not read, so it is longer than such a client has reason to be.
const USER_TIMEOUT: Duration = Duration::from_secs(300);

/// Tells sessions that the router is shutting down.
#[derive(Debug, Clone)]
pub struct Drain(watch::Receiver<bool>);

impl Drain {
    /// A drain that begins when `receiver` turns true.
    #[must_use]
    pub fn new(receiver: watch::Receiver<bool>) -> Self {
        Self(receiver)
    }

    /// Whether the router wants to shut down.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the router wants to shut down.
    pub async fn requested(&mut self) {
        if self.0.wait_for(|requested| *requested).await.is_err() {
            // Nobody can ask any more.
            std::future::pending::<()>().await;
        }
    }
}

/// A wait under way.
type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One task's wait for a [`Drain`], kept over many polls: after the first one, a poll is one atomic load.
pub struct DrainWatch {
    drain: Drain,
    waiting: Option<(Waker, Waiting)>,
}

impl DrainWatch {
    /// A wait that begins with the first poll.
    #[must_use]
    pub fn new(drain: Drain) -> Self {
        Self {
            drain,
            waiting: None,
        }
    }

    /// Ready when the router wants to shut down; the task is woken then, also if it does not poll this again before.
    pub fn poll_requested(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let is_new = self.drain.0.has_changed().unwrap_or(false);
        if let Some((waker, _)) = &self.waiting
            && !is_new
            && waker.will_wake(context.waker())
        {
            return Poll::Pending;
        }
        if self.drain.is_requested() {
            return Poll::Ready(());
        }
        let mut drain = self.drain.clone();
        let mut waiting: Pin<Box<dyn Future<Output = ()> + Send>> =
            Box::pin(async move { drain.requested().await });
        let outcome = waiting.as_mut().poll(context);
        self.waiting = Some((context.waker().clone(), waiting));
        outcome
    }
}

/// Clients there are and may be, for all workers together.
#[derive(Debug)]
pub struct Room {
    max_clients: AtomicUsize,
    clients: AtomicUsize,
    entering: AtomicUsize,
    /// How many of them come from each address.
    entering_from: Mutex<HashMap<IpAddr, usize>>,
    accepted: AtomicU64,
    refused: AtomicU64,
    turned_away: AtomicU64,
}

impl Room {
    /// Room for so many clients.
    #[must_use]
    pub fn new(max_clients: usize) -> Self {
        Self {
            max_clients: AtomicUsize::new(max_clients),
            clients: AtomicUsize::new(0),
            entering: AtomicUsize::new(0),
            entering_from: Mutex::default(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
        }
    }

    /// Changes how many clients there may be; those that are there stay.
    pub fn resize(&self, max_clients: usize) {
        self.max_clients.store(max_clients, Ordering::Relaxed);
    }

    /// Clients that have authenticated.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Connections that have not authenticated yet.
    #[must_use]
    pub fn entering(&self) -> usize {
        self.entering.load(Ordering::Relaxed)
    }

    /// Connections accepted since the start.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections refused since the start, whatever the reason, those turned away included.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Connections turned away since the start because there was no room.
    #[must_use]
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        self.clients() >= self.max_clients.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.entering_from
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, refusal: &Refusal) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        if matches!(refusal, Refusal::TooManyClients) {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A place among those counted by one of the counters of [`Room`], until dropped.
struct Place {
    room: Arc<Room>,
    counter: fn(&Room) -> &AtomicUsize,
}

/// A place among those entering, counted for its address, until dropped. A client without an address is on this machine.
struct Entering {
    place: Place,
    address: Option<IpAddr>,
}

impl Entering {
    fn take(room: &Arc<Room>, address: Option<IpAddr>) -> Option<Entering> {
        let limit = room.max_clients.load(Ordering::Relaxed).max(MIN_ENTERING);
        let place = Place::take(room, |room| &room.entering, limit)?;
        let address = address.map(network);
        if let Some(address) = address {
            let mut counts = room.lock();
            let count = counts.entry(address).or_default();
            if *count >= limit / SHARE && room.entering() > limit / 2 {
                return None;
            }
            *count += 1;
        }
        Some(Entering { place, address })
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut counts = self.place.room.lock();
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

impl Place {
    /// A place among the clients, of which the admin console has any number.
    fn client(room: &Arc<Room>, is_console: bool) -> Option<Place> {
        let limit = match is_console {
            true => usize::MAX,
            false => room.max_clients.load(Ordering::Relaxed),
        };
        Self::take(room, |room| &room.clients, limit)
    }

    fn take(room: &Arc<Room>, counter: fn(&Room) -> &AtomicUsize, limit: usize) -> Option<Place> {
        let taken = |count| (count < limit).then_some(count + 1);
        counter(room)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
            .ok()?;
        Some(Place {
            room: Arc::clone(room),
            counter,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        (self.counter)(&self.room).fetch_sub(1, Ordering::Relaxed);
    }
}

/// What all workers let clients in by.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// Who may enter; replaced by a reload.
    pub access: Arc<ArcSwap<Access>>,
    /// The keys by which queries are cancelled.
    pub cancels: Arc<CancelRegistry>,
    /// Whose logins have failed.
    pub failed: Arc<FailedLogins>,
    /// Where users are looked up that are not in the configuration.
    pub directory: Option<Directory>,
    /// How many may enter.
    pub room: Arc<Room>,
    /// When nobody may any more.
    pub drain: Drain,
}

/// A worker as [`accept`] knows it.
#[derive(Clone, Debug)]
pub struct Seat {
    connections: mpsc::Sender<Accepted>,
    load: Arc<AtomicUsize>,
}

/// The connections accepted for one worker.
#[derive(Debug)]
pub struct Incoming {
    connections: mpsc::Receiver<Accepted>,
    load: Arc<AtomicUsize>,
}

/// The two ends between [`accept`] and one worker.
#[must_use]
pub fn seat() -> (Seat, Incoming) {
    let (sender, receiver) = mpsc::channel(HAND_OVER);
    let load = Arc::<AtomicUsize>::default();
    let seat = Seat {
        connections: sender,
        load: Arc::clone(&load),
    };
    let incoming = Incoming {
        connections: receiver,
        load,
    };
    (seat, incoming)
}

/// Accepts until the door is closed, and gives each connection to the worker with the fewest.
pub async fn accept(listener: Listener, seats: Vec<Seat>, mut closed: Drain) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = closed.requested() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(connection) => hand_over(connection, &seats).await,
            Err(error) => pause_after(&error).await,
        }
    }
    // Who has knocked before is let in, or told.
    match listener.close() {
        Ok(last) => {
            for connection in last {
                hand_over(connection, &seats).await;
            }
        }
        Err(error) => tracing::warn!(%error, "could not see who has knocked last"),
    }
}

async fn hand_over(connection: Accepted, seats: &[Seat]) {
    let fewest = seats
        .iter()
        .min_by_key(|seat| seat.load.load(Ordering::Relaxed));
    let Some(seat) = fewest else {
        return;
    };
    seat.load.fetch_add(1, Ordering::Relaxed);
    if seat.connections.send(connection).await.is_err() {
        tracing::error!("a worker has ended; its share of clients is lost");
    }
}

async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    ) {
        return;
    }
    tracing::error!(%error, "could not accept a connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Serves the connections of one worker: lets each in and hands it to `serve`. Returns when the acceptor has ended and so
/// have all connections; dropping it ends them at once.
pub async fn work<F, S>(mut incoming: Incoming, entrance: Entrance, serve: S)
where
    S: Fn(ClientConnection) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            connection = incoming.connections.recv() => match connection {
                Some(connection) => {
                    let load = Load(Arc::clone(&incoming.load));
                    // Apart, for it is over before the first query; what is left is small.
                    let welcomed = Box::pin(welcome(connection, entrance.clone()));
                    let serve = serve.clone();
                    let connected = async move {
                        if let Some((client, _place)) = welcomed.await {
                            serve(client).await;
                        }
                        drop(load);
                    };
                    tasks.spawn(connected.instrument(client_span()));
                }
                None => break,
            },
            Some(ended) = tasks.join_next() => note_end(ended),
        }
    }
    while let Some(ended) = tasks.join_next().await {
        note_end(ended);
    }
}

/// Around all that happens for one connection. Below DEBUG it does not exist, and costs nothing.
fn client_span() -> Span {
    debug_span!(
        "client",
        peer = Empty,
        id = Empty,
        user = Empty,
        database = Empty
    )
}

/// A connection counted in its worker's load, until dropped.
struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn note_end(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a session ended by a bug");
    }
}

/// One connection, from its first byte until it is let in, if it is.
async fn welcome(connection: Accepted, entrance: Entrance) -> Option<(ClientConnection, Place)> {
    let (stream, peer) = match prepare(connection) {
        Ok(prepared) => prepared,
        Err(error) => {
            tracing::debug!(%error, "a connection was lost before it began");
            return None;
        }
    };
    match peer {
        Some(peer) => Span::current().record("peer", tracing::field::display(peer)),
        None => Span::current().record("peer", "unix"),
    };
    enter(stream, peer, &entrance)
        .await
        .unwrap_or_else(|refusal| {
            tracing::debug!(reason = %refusal, "a client was not let in");
            entrance.room.note(&refusal);
            None
        })
}

/// Registers the socket with the reactor of this worker. The client's address, if it has one.
fn prepare(connection: Accepted) -> io::Result<(Socket, Option<SocketAddr>)> {
    let stream = match connection {
        Accepted::Tcp(stream) => TcpStream::from_std(stream)?,
        Accepted::Unix(stream) => {
            let stream = UnixStream::from_std(stream)?;
            return Ok((Socket::Unix(stream), None));
        }
    };
    let peer = stream.peer_addr()?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok((Socket::Tcp(stream), Some(peer)))
}

async fn enter(
    mut stream: Socket,
    peer: Option<SocketAddr>,
    entrance: &Entrance,
) -> Result<Option<(ClientConnection, Place)>, Refusal> {
    let room = &entrance.room;
    room.accepted.fetch_add(1, Ordering::Relaxed);
    let Some(entering) = Entering::take(room, peer.map(|peer| peer.ip())) else {
        // Not even what it wants is asked.
        turn_away(&mut stream).await;
        return Err(Refusal::TooManyClients);
    };
    let access = entrance.access.load_full();
    let door = Door {
        access: &access,
        cancels: &entrance.cancels,
        failed: &entrance.failed,
        directory: entrance.directory.as_ref(),
        drain: &entrance.drain,
        full: room.is_full(),
    };
    let Some(mut client) = Box::pin(admit(stream, peer, door)).await? else {
        return Ok(None);
    };
    drop(entering);
    let is_console = access::is_console(&client.database);
    match Place::client(room, is_console) {
        Some(place) => Ok(Some((client, place))),
        None => {
            turn_away(&mut client.stream).await;
            Err(Refusal::TooManyClients)
        }
    }
}

async fn turn_away(stream: &mut (impl tokio::io::AsyncWrite + Unpin)) {
    let mut message = BytesMut::new();
    if let Some(report) = Refusal::TooManyClients.report() {
        encode::error(&mut message, &report);
    }
    // A few bytes always fit into the buffer of a fresh socket; whether they arrive is not our concern.
    let _ = stream.write_all(&message).await;
    let _ = stream.shutdown().await;
}

#[cfg(test)]
mod tests;
