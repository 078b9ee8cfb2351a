//! A running router: its threads, and how they begin and end.
//!
//! [`Router::start`] reads the installation on the control thread, then opens the door on the workers. It is a library call:
//! the program, the demo and tests run routers with it.
//!
//! Invariant: every thread belongs to its [`Router`] and ends with it. Ending has two steps: *draining* accepts nobody and
//! lets transactions end; *stopping* ends what still runs. Draining turns into stopping after `drain_timeout`.
//!
//! Collaborators: [`Operations`] is what operators do to a running router, [`signals`] how they do it to a program.

mod operations;
mod orders;
mod overdue;
pub mod signals;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

use crate::admin::console;
use crate::config::Settings;
use crate::control::{Control, ControlHandle, PrepareError, Status};
use crate::deadlock::Detector;
use crate::hearing::{self, Hearing};
use crate::http;
use crate::listener::{self, Drain, Incoming, Listener, Seat};
use crate::session;
use crate::startup::tls::TlsError;
use crate::startup::{ClientConnection, access};
use crate::stream::unix_socket;
use crate::topology::{Heartbeat, Published};
use crate::two_phase::fence::{FenceKeeper, Fences};
use crate::two_phase::recovery::{Recovery, Resolver};
use crate::worker::{Services, Worker};
pub use operations::{Operations, ReloadError};

/// Between two looks whether clients are left, when the router ends with the last one.
const LOOK_FOR_CLIENTS: Duration = Duration::from_millis(50);

/// A router that runs. Dropping it stops it at once.
#[derive(Debug)]
pub struct Router {
    address: SocketAddr,
    http: Option<SocketAddr>,
    operations: Arc<Operations>,
    ending: Ending,
    workers: Vec<JoinHandle<()>>,
    control: Option<JoinHandle<()>>,
}

/// Switches that turn on once and for all.
#[derive(Clone, Debug)]
struct Ending {
    /// Nobody is accepted any more.
    close: watch::Sender<bool>,
    drain: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    /// The workers have ended: now the control thread may.
    finish: watch::Sender<bool>,
}

impl Ending {
    fn new() -> Self {
        let switch = || watch::Sender::new(false);
        Self {
            close: switch(),
            drain: switch(),
            stop: switch(),
            finish: switch(),
        }
    }
}

impl Ending {
    /// Accepts nobody any more and sends idle clients away. Whether it did so already.
    fn drain(&self) -> bool {
        self.close.send_replace(true);
        self.drain.send_replace(true)
    }
}

/// Completes when the switch has been turned on.
async fn turned_on(switch: &watch::Sender<bool>) {
    // The sender is borrowed, so it is there.
    let _ = switch.subscribe().wait_for(|on| *on).await;
}

/// Why a router cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: switchyard_schema::Address,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A Unix socket cannot be listened on.
    #[error("cannot listen on {}: {source}", .path.display())]
    ListenUnix {
        /// The socket's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A thread or its runtime cannot be made.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system has no random numbers.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
    /// The installation cannot be read.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// A thread ended before it was ready.
    #[error("a thread ended before it was ready")]
    Ended,
}

/// What the control thread does.
struct ControlWork {
    control: Control,
    recovery: Recovery,
    fence_keeper: FenceKeeper,
    hearing: hearing::Keeper,
    /// What tells this router from others, for [`Detector`].
    number: u32,
    http: Option<tokio::net::TcpListener>,
}

/// What the control thread has when it is ready.
struct Prepared {
    control: ControlHandle,
    resolver: Resolver,
    fences: Fences,
    hearing: Hearing,
    heartbeat: Option<Heartbeat>,
    published: Published,
    status: Arc<Status>,
    http: Option<SocketAddr>,
}

impl Router {
    /// Starts a router. Returns when it accepts clients; nodes that could not be reached are tried again and again.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        let settings = Arc::new(settings);
        let entry = operations::Entry::new(&settings)?;
        let ending = Ending::new();
        let (operations_for_control, when_built) = oneshot::channel();
        let (control, prepared) = start_control(&settings, &ending, when_built)?;
        // From here on a failure ends the control thread by dropping the sender.
        let prepared = prepared.recv().map_err(|_| StartError::Ended)??;
        let services = Services::new(
            Arc::clone(&settings),
            prepared.published,
            prepared.control,
            prepared.resolver,
            prepared.fences,
            prepared.hearing,
            prepared.heartbeat,
        );
        let operations = Operations::new(services, prepared.status, entry, ending.clone());
        let operations = Arc::new(operations);
        let _ = operations_for_control.send(Arc::clone(&operations));
        let (address, workers) = start_workers(&settings, &operations, &ending)?;
        operations.opened();
        info!(%address, workers = workers.len(), "accepting clients");
        Ok(Self {
            address,
            http: prepared.http,
            operations,
            ending,
            workers,
            control: Some(control),
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where http is served, if it is.
    #[must_use]
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// What can be seen of the router and done to it.
    #[must_use]
    pub fn operations(&self) -> &Arc<Operations> {
        &self.operations
    }

    /// Accepts nobody any more, sends idle clients away and lets transactions end, for `drain_timeout` at most.
    pub fn drain(&self) {
        if !self.ending.drain() {
            info!("draining");
        }
    }

    /// Completes when it drains, whoever has asked for it.
    pub async fn is_asked_to_end(&self) {
        turned_on(&self.ending.drain).await;
    }

    /// Ends whatever still runs.
    pub fn stop(&self) {
        self.drain();
        if !self.ending.stop.send_replace(true) {
            info!("stopping");
        }
    }

    /// Waits until the router has ended, which somebody has to make it do.
    pub fn wait(mut self) {
        self.join();
    }

    /// Whether all workers have ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.workers.iter().all(JoinHandle::is_finished)
    }

    fn join(&mut self) {
        for thread in self.workers.drain(..) {
            join(thread);
        }
        self.ending.finish.send_replace(true);
        if let Some(thread) = self.control.take() {
            join(thread);
            info!("ended");
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if self.control.is_some() {
            self.stop();
            self.join();
        }
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        error!("a thread ended by a bug");
    }
}

fn start_thread(
    name: &str,
    run: impl FnOnce(&Runtime) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name(format!("switchyard-{name}"))
        .stack_size(crate::plan::STACK_BYTES)
        .spawn(move || {
            run(&runtime);
            // What blocks (resolving a name, say) is not waited for.
            runtime.shutdown_background();
        })
}

type Preparation = mpsc::Receiver<Result<Prepared, StartError>>;

fn start_control(
    settings: &Arc<Settings>,
    ending: &Ending,
    when_built: oneshot::Receiver<Arc<Operations>>,
) -> Result<(JoinHandle<()>, Preparation), StartError> {
    let (report, prepared) = mpsc::channel();
    let (settings, ending) = (Arc::clone(settings), ending.clone());
    let thread = start_thread("control", move |runtime| {
        runtime.block_on(async {
            match prepare(settings).await {
                Ok((work, ready)) => {
                    let _ = report.send(Ok(ready));
                    serve_control(work, &ending, when_built).await;
                }
                Err(error) => drop(report.send(Err(error))),
            }
        });
    })?;
    Ok((thread, prepared))
}

async fn prepare(settings: Arc<Settings>) -> Result<(ControlWork, Prepared), StartError> {
    let http = match &settings.file.router.http {
        Some(address) => Some(bind(address, settings.file.router.so_reuseport).await?),
        None => None,
    };
    let (mut control, handle) = Control::new(settings);
    control.prepare().await?;
    let (recovery, resolver) = Recovery::new(control.settings(), control.published().clone());
    let (fence_keeper, fences) = FenceKeeper::new(control.settings(), control.published().clone());
    let (ears, hearing) = hearing::Keeper::new(control.settings(), control.published().clone());
    let prepared = Prepared {
        control: handle,
        resolver,
        fences,
        hearing,
        heartbeat: control.heartbeat(),
        published: control.published().clone(),
        status: Arc::clone(control.status()),
        http: http
            .as_ref()
            .map(|listener| listener.local_addr())
            .transpose()?,
    };
    if !prepared.status.is_ready() {
        warn!("not all tables could be read yet");
    }
    let work = ControlWork {
        control,
        recovery,
        fence_keeper,
        hearing: ears,
        number: getrandom::u32().map_err(StartError::Random)?,
        http,
    };
    Ok((work, prepared))
}

async fn bind(
    address: &switchyard_schema::Address,
    shared: bool,
) -> Result<tokio::net::TcpListener, StartError> {
    listener::bind(address, shared)
        .await
        .map_err(|source| StartError::Listen {
            address: address.clone(),
            source,
        })
}

/// The control thread's work, until the workers have ended.
async fn serve_control(
    work: ControlWork,
    ending: &Ending,
    when_built: oneshot::Receiver<Arc<Operations>>,
) {
    let Ok(operations) = when_built.await else {
        // The router did not come to be.
        return;
    };
    let ControlWork {
        control,
        recovery,
        fence_keeper,
        hearing,
        number,
        http,
    } = work;
    let detector = Detector::new(
        Arc::clone(operations.services()),
        number,
        control.settings(),
    );
    let clearing = control.clearing();
    let leaving = control.leaving();
    let pages = async {
        match http {
            Some(listener) => {
                let source: Arc<dyn http::Source> = Arc::clone(&operations) as _;
                if let Err(error) = http::serve(listener, source).await {
                    error!(%error, "http has ended");
                }
            }
            None => std::future::pending().await,
        }
    };
    let emptied = async {
        turned_on(&ending.close).await;
        // Twice in a row: who is entering is on the way from one list to the other.
        let mut times_empty = 0;
        while times_empty < 2 {
            tokio::time::sleep(LOOK_FOR_CLIENTS).await;
            times_empty = if operations.has_clients() {
                0
            } else {
                times_empty + 1
            };
        }
        ending.drain();
        std::future::pending::<()>().await;
    };
    let deadline = async {
        turned_on(&ending.drain).await;
        let limit = operations.settings().file.router.timeouts.drain;
        tokio::time::sleep(limit).await;
        if !ending.stop.send_replace(true) {
            warn!(?limit, "drain_timeout is over; ending what still runs");
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = Box::pin(control.run()) => {}
        () = Box::pin(recovery.run()) => {}
        () = Box::pin(fence_keeper.run()) => {}
        () = Box::pin(hearing.run()) => {}
        () = detector.run() => {}
        () = Box::pin(clearing.run(&operations.services().registry)) => {}
        () = pages => {}
        () = emptied => {}
        () = deadline => {}
        () = operations.keep_house() => {}
        () = turned_on(&ending.finish) => {}
    }
    leaving.await;
}

fn start_workers(
    settings: &Settings,
    operations: &Arc<Operations>,
    ending: &Ending,
) -> Result<(SocketAddr, Vec<JoinHandle<()>>), StartError> {
    let count = match settings.file.router.workers {
        Some(count) => usize::from(count),
        None => std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)),
    };
    let (seats, incoming): (Vec<Seat>, Vec<Incoming>) =
        (0..count.max(1)).map(|_| listener::seat()).unzip();
    let (report, bound) = mpsc::channel();
    let unix = settings.file.router.unix_socket_dir.clone();
    let shared = settings.file.router.so_reuseport;
    let at = (settings.file.router.listen.clone(), shared);
    let mut door = Some((at, unix, seats, report));
    let mut threads = Vec::new();
    for (index, incoming) in incoming.into_iter().enumerate() {
        let entrance = operations.entrance(index, Drain::new(ending.drain.subscribe()));
        let worker = Arc::new(Worker::new(index, Arc::clone(operations.services())));
        let (operations, ending, door) = (Arc::clone(operations), ending.clone(), door.take());
        let thread = start_thread(&format!("worker-{index}"), move |runtime| {
            operations.services().note_runtime(index, runtime.handle());
            runtime.block_on(async {
                if let Some((address, unix, seats, report)) = door {
                    let (at, listeners) = match listen(&address, unix.as_deref()).await {
                        Ok(open) => open,
                        Err(error) => return drop(report.send(Err(error))),
                    };
                    for listener in listeners {
                        let closed = Drain::new(ending.close.subscribe());
                        tokio::spawn(listener::accept(listener, seats.clone(), closed));
                    }
                    let _ = report.send(Ok(at));
                }
                let work = listener::work(incoming, entrance, move |client| {
                    serve(client, Arc::clone(&worker), Arc::clone(&operations))
                });
                tokio::select! {
                    () = work => {}
                    () = turned_on(&ending.stop) => {}
                }
            });
        })?;
        threads.push(thread);
    }
    let address = bound.recv().map_err(|_| StartError::Ended)??;
    Ok((address, threads))
}

/// Listens where clients connect: on the port, and on the Unix socket that belongs to it if there is to be one.
async fn listen(
    (address, shared): &(switchyard_schema::Address, bool),
    unix_directory: Option<&Path>,
) -> Result<(SocketAddr, Vec<Listener>), StartError> {
    let listener = bind(address, *shared).await?;
    let at = listener.local_addr().map_err(StartError::Thread)?;
    let mut listeners = vec![Listener::Tcp(listener)];
    if let Some(directory) = unix_directory {
        let path = unix_socket(directory, at.port());
        let listener =
            listener::bind_unix(&path).map_err(|source| StartError::ListenUnix { path, source })?;
        listeners.push(listener);
    }
    Ok((at, listeners))
}

/// Serves one client that has been let in.
fn serve(
    client: ClientConnection,
    worker: Arc<Worker>,
    operations: Arc<Operations>,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    match access::is_console(&client.database) {
        true => Box::pin(administer(client, operations)),
        false => Box::pin(session::run(client, worker)),
    }
}

/// Serves one client of the admin console.
async fn administer(client: ClientConnection, operations: Arc<Operations>) {
    let visitor = operations.visitor(&client);
    let served = console::serve(
        client.stream,
        client.leftover,
        &visitor,
        &*operations,
        client.drain,
    );
    if let Err(error) = Box::pin(served).await {
        tracing::debug!(%error, "a console was lost");
    }
}
