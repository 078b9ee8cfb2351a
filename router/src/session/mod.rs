//! One client's session: the request loop.
//!
//! A session is one task on one worker. It owns the client's stream and borrows backends ([`crate::execute`]) for as
//! long as a request or a transaction block needs them. `simple` and `extended` handle the two query protocols, `route`
//! finds out where a statement goes, and what `statement` has is what the client has given names to. What one shard does
//! alone is relayed from here; a statement of several shards is run in a room of its own: rows appended or the same change
//! everywhere (`fan_out`), a `read` whose rows are merged, a `write` that is divided, rows in a `workspace`, a `cursor`.
//! `transaction` begins and ends the blocks, `prepare` is PREPARE and EXECUTE.

mod again;
mod analyse;
mod clock;
mod cursor;
mod distribute;
mod exchange;
mod explain;
mod extended;
mod fan_out;
mod function_call;
mod learn;
mod listening;
mod listing;
mod open;
mod pass_through;
mod paused;
mod prepare;
mod read;
mod relations;
mod route;
mod sequences;
mod settings;
mod simple;
mod statement;
mod stop;
mod transaction;
mod workspace;
mod write;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Buf, Bytes};
use switchyard_wire::SqlState;
use switchyard_wire::backend::{TransactionStatus, encode};
use switchyard_wire::frame::Header;

use crate::admin::activity::OverdueWatch;
use crate::admin::registry::{ClientEntry, ClientState, Registration};
use crate::backend::{Gate, Settings};
use crate::execute::block::{Block, FailedOn};
use crate::execute::client::{Client, ClientError};
use crate::execute::failure::Failure;
use crate::execute::participant::Participant;
use crate::execute::participants::Participants;
use crate::execute::relay::{NoteDescription, Trouble};
use crate::execute::report;
use crate::listener::DrainWatch;
use crate::metrics::clock::Tick;
use crate::metrics::{Counters, ErrorClass, RouteKind};
use crate::plan::{Access, ContextId, Layer, Operator, Plan};
use crate::relations::SearchPath;
use crate::sql::HintNode;
use crate::startup::ClientConnection;
use crate::startup::cancel::CancelRegistration;
use crate::topology::DatabaseTopology;
use crate::worker::Worker;
use again::Again;
use cursor::CursorApart;
use extended::{Batch, OpenWorkspace};
pub(crate) use listening::Change;
use listening::{Listening, poll_heard};
use route::Cursor;
pub(crate) use statement::Statements;
use statement::{ByName, Portal, SessionStatement, Statement};

/// Serves a client that has authenticated, until it leaves.
pub fn run(connection: ClientConnection, worker: Arc<Worker>) -> impl Future<Output = ()> + Send {
    // What is needed for it is not kept beside the session.
    let opened = Box::pin(open::open(connection, worker));
    async move {
        match opened.await {
            Ok(mut session) => {
                session.introduce();
                session.serve().await;
                tracing::debug!("a client has left");
            }
            Err(error) => tracing::debug!(%error, "a session could not be opened"),
        }
    }
}

/// What every query touches stands together, at the start: with many sessions that take turns, little of a session is in a
/// cache when its turn comes.
#[repr(C)]
struct Session {
    worker: Arc<Worker>,
    /// What operators have said about the database.
    gate: Arc<Gate>,
    /// The snapshot the present request works on.
    database: Arc<DatabaseTopology>,
    generation: u64,
    /// What the client has set; applied to every backend before it serves.
    settings: Arc<Settings>,
    counters: Arc<Counters>,
    /// Its line in SHOW CLIENTS.
    entry: Registration<ClientEntry>,
    /// The number of all that plans depend on besides the text; `None` when it has changed.
    context: Option<ContextId>,
    /// `SET switchyard.route`
    route_hint: Option<HintNode>,
    /// `SET switchyard.layer`
    layer: Layer,
    /// `SET switchyard.consistent_read`, as it holds in the block if there is one.
    consistent_read: bool,
    again: Again,
    /// Bytes of the statement under which a connection was lost had reached the client.
    lost_shown: bool,
    client: Client,
    batch: Batch,
    participants: Participants,
    portals: ByName<Portal>,
    statements: ByName<Arc<SessionStatement>>,
    block: Option<Block>,
    /// When the block began.
    block_began: Option<Tick>,
    /// Statement pooling: there are no transaction blocks.
    refuses_blocks: bool,
    described: Described,
    cursors: Vec<Cursor>,
    /// Workspaces of portals that have rows left.
    workspaces: Vec<OpenWorkspace>,
    drain: DrainWatch,
    overdue: OverdueWatch,
    /// Cursors over rows of several shards.
    cursors_apart: Vec<CursorApart>,
    /// So many workspaces have been opened for portals.
    workspaces_opened: u64,
    /// So many times relations have been read within a block.
    read_within: u64,
    /// Its key, good as long as this is.
    cancel: CancelRegistration,
    user: Arc<str>,
    /// The role that runs statements, after SET ROLE.
    role: Arc<str>,
    search_path: SearchPath,
    /// The settings by which PostgreSQL reads literals.
    reading: Arc<str>,
    /// The `search_path` that holds where the client has not set one: a role or a database can have its own.
    default_path: Arc<str>,
    /// Temporary relations the session may have created.
    temporary: Vec<String>,
    /// What there was before the session changed the schema.
    before_ddl: Option<Arc<DatabaseTopology>>,
    /// What it listens to, if it does.
    listening: Option<Box<Listening>>,
    /// The transaction has said that it notifies.
    notifies: bool,
    /// The server's process whose notifications bear the client's number now.
    called: Option<i32>,
}

/// Statements that backends are being asked about.
#[derive(Debug, Default)]
struct Described(Vec<Arc<Statement>>);

impl NoteDescription for Described {
    fn note_types(&mut self, statement: u64, types: &[u32]) {
        if let Some(asked) = self.0.iter().find(|asked| asked.number == statement) {
            asked.describe(types);
        }
    }

    fn note_columns(&mut self, statement: u64, columns: Bytes) {
        if let Some(position) = self.0.iter().position(|asked| asked.number == statement) {
            self.0.swap_remove(position).describe_columns(columns);
        }
    }
}

/// The session ends.
struct End;

/// What a session that waits for its client gets.
enum Awaited {
    /// What the client did: see [`Client::next`].
    Client(Result<Option<Header>, ClientError>),
    /// The client took too long.
    Overdue,
    /// The router shuts down.
    Drain,
    /// There is a notification for it, or there will be none any more.
    Heard,
}

impl Session {
    /// Says in the connection's span whose session it is.
    fn introduce(&self) {
        let span = tracing::Span::current();
        span.record("id", self.entry.id);
        span.record("user", &*self.user);
        span.record("database", &*self.database.name);
        tracing::debug!("a client has logged in");
    }

    /// A request that began then has been answered, and with it a transaction has ended, unless it is in a block.
    fn count_time(&mut self, began: Tick) {
        self.counters.query_time(began.elapsed());
        let first = self.block_began.take().unwrap_or(began);
        match self.block {
            Some(_) => self.block_began = Some(first),
            None => self.counters.transaction_time(first.elapsed()),
        }
    }

    async fn serve(&mut self) {
        while self.serve_one().await.is_ok() {}
        Box::pin(self.leave()).await;
    }

    /// Handles the next message, or the batch of messages that it begins.
    async fn serve_one(&mut self) -> Result<(), End> {
        let header = match self.client.peek() {
            Ok(Some(header)) => header,
            Ok(None) | Err(_) => self.await_message().await?,
        };
        if self.is_held_up()
            && let Err(trouble) = Box::pin(self.await_resume()).await
        {
            return Err(Box::pin(self.end_by(trouble)).await);
        }
        let outcome = match self.is_moving() {
            false => self.request(header).await,
            true => Box::pin(self.request_while_moving(header)).await,
        };
        match outcome {
            Ok(()) if self.listening.is_none() => Ok(()),
            Ok(()) => Box::pin(self.go_on_listening()).await,
            Err(trouble) => Err(Box::pin(self.end_by(trouble)).await),
        }
    }

    /// Whether rows may be on their way from shard to shard.
    fn is_moving(&self) -> bool {
        let published = &self.worker.services.topology;
        match published.generation() == self.generation {
            true => self.database.is_moving,
            false => {
                let topology = published.load();
                let database = topology.database(&self.database.name);
                database.is_some_and(|database| database.is_moving)
            }
        }
    }

    async fn request(&mut self, header: Header) -> Result<(), Trouble> {
        match header.tag {
            b'Q' | b'F' if self.batch.is_skipping() => {
                self.client.input.advance(header.len);
                Ok(())
            }
            b'Q' => self.simple_query(header.len).await,
            b'F' => Box::pin(self.simple_query(header.len)).await,
            b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'S' => self.extended().await,
            b'X' => Err(Trouble::Gone),
            b'd' | b'c' | b'f' => Box::pin(self.copy_data(header.len)).await,
            tag => Err(Trouble::Protocol(
                format!("invalid frontend message type {tag}").into(),
            )),
        }
    }

    /// Waits for a message, or until the session must end: the client takes too long, or is idle when the router shuts down.
    async fn await_message(&mut self) -> Result<Header, End> {
        // Errors go out at once, as PostgreSQL sends them, whether or not a Flush or Sync follows.
        if !self.client.output.is_empty() && Box::pin(self.client.flush()).await.is_err() {
            return Err(End);
        }
        let idle = self.block.is_none() && self.batch.is_empty();
        if !idle {
            self.batch.waits();
            self.participants.are_at_rest();
        }
        self.entry.set_state(match idle {
            true => ClientState::Idle,
            false => ClientState::IdleInTransaction,
        });
        if let Some(shard) = self.participants.state_lost() {
            // PostgreSQL's session would have ended with its process.
            let shard = shard.into();
            return Err(Box::pin(self.end_by(Failure::StateLost { shard }.into())).await);
        }
        loop {
            match self.await_once(idle).await {
                Awaited::Client(Ok(Some(header))) => {
                    self.entry.request_arrived();
                    return Ok(header);
                }
                Awaited::Heard => Box::pin(self.hear(idle)).await?,
                awaited @ (Awaited::Client(_) | Awaited::Overdue | Awaited::Drain) => {
                    return Err(Box::pin(self.end_wait(awaited, idle)).await);
                }
            }
        }
    }

    async fn await_once(&mut self, idle: bool) -> Awaited {
        let Self {
            client,
            drain,
            entry,
            overdue,
            listening,
            ..
        } = self;
        let listening = listening.as_deref();
        let mut next = pin!(client.next());
        poll_fn(|context| match next.as_mut().poll(context) {
            Poll::Ready(next) => Poll::Ready(Awaited::Client(next)),
            Poll::Pending if entry.poll_overdue(overdue, context).is_ready() => {
                Poll::Ready(Awaited::Overdue)
            }
            Poll::Pending if poll_heard(listening, idle, context) => Poll::Ready(Awaited::Heard),
            Poll::Pending if idle => drain.poll_requested(context).map(|()| Awaited::Drain),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// The end of the session, which came while it waited for its client.
    async fn end_wait(&mut self, awaited: Awaited, idle: bool) -> End {
        match awaited {
            Awaited::Client(Ok(_)) | Awaited::Heard => {}
            Awaited::Client(Err(error)) => return self.end_by(error.into()).await,
            Awaited::Overdue if self.entry.is_killed() => {
                let message = "terminating connection due to administrator command";
                self.say_goodbye(SqlState::ADMIN_SHUTDOWN, message).await;
            }
            Awaited::Overdue => {
                if !idle && self.transaction_is_over() {
                    let message = "terminating connection due to transaction timeout";
                    self.say_goodbye(SqlState::TRANSACTION_TIMEOUT, message)
                        .await;
                    return End;
                }
                if !idle {
                    return self.end_by(Trouble::Overdue).await;
                }
                let message = "terminating connection due to idle-session timeout";
                self.say_goodbye(SqlState::IDLE_SESSION_TIMEOUT, message)
                    .await;
            }
            Awaited::Drain => {
                let message = "terminating connection due to administrator command";
                self.say_goodbye(SqlState::ADMIN_SHUTDOWN, message).await;
            }
        }
        End
    }

    /// Whether the transaction has gone on for longer than `transaction_timeout`.
    fn transaction_is_over(&self) -> bool {
        let settings = self.worker.services.settings.load();
        let limit = settings.file.router.timeouts.transaction;
        let lasted = self.entry.transaction_lasted();
        lasted
            .zip(limit)
            .is_some_and(|(lasted, limit)| lasted >= limit)
    }

    /// The end of the session, said to the client where it can still hear it.
    async fn end_by(&mut self, trouble: Trouble) -> End {
        match trouble {
            Trouble::Protocol(message) => {
                self.say_goodbye(SqlState::PROTOCOL_VIOLATION, &message)
                    .await
            }
            Trouble::Failure(failure) => {
                self.say_goodbye(failure.sqlstate(), &failure.to_string())
                    .await
            }
            Trouble::Overdue => {
                let sqlstate = SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT;
                let message = "terminating connection due to idle-in-transaction timeout";
                self.say_goodbye(sqlstate, message).await;
            }
            Trouble::Gone | Trouble::Lost | Trouble::Told => {}
        }
        End
    }

    async fn say_goodbye(&mut self, sqlstate: SqlState, message: &str) {
        report::fatal(&mut self.client.output, sqlstate, message);
        // The client may be gone already; it was told if it can be.
        let _ = self.client.flush().await;
    }

    /// Gives back or closes what the session holds. A statement that still runs for a client that has left is
    /// cancelled, except a write of its own: PostgreSQL would finish that too.
    async fn leave(&mut self) {
        let runs = |held: &Participant| {
            !held.connection.replies.is_settled() && (held.in_block || !held.finishes)
        };
        let held = self.participants.iter().enumerate();
        let running: Vec<usize> = held
            .filter_map(|(index, held)| runs(held).then_some(index))
            .collect();
        if !running.is_empty() {
            let before = self.client.ignore();
            if self.give_up(&running).await.is_err() {
                // One of them waits for what the client does not send any more.
                self.cancel_statement().await;
            }
            self.client.heed(before);
        }
        if self.called.is_some() {
            self.hear_until_now().await;
        }
        // Their connections are closed.
        self.workspaces.clear();
        self.cursors_apart.clear();
        self.participants.abandon(&self.database).await;
    }

    /// Whether nothing but the block's end can follow.
    fn block_has_failed(&self) -> bool {
        let block = self.block.as_ref();
        block.is_some_and(|block| block.failed.is_some())
    }

    /// What ReadyForQuery says.
    fn status(&self) -> TransactionStatus {
        match &self.block {
            None => TransactionStatus::Idle,
            Some(block) if block.failed.is_some() => TransactionStatus::Failed,
            Some(_) => TransactionStatus::InBlock,
        }
    }

    /// Tells the client of an error; a transaction block fails with it.
    fn report(&mut self, failure: &Failure) {
        // The end of the session will be told instead.
        if self.client.overdue {
            return;
        }
        self.again.met_a_move |= matches!(failure, Failure::Retry);
        let sqlstate = failure.sqlstate();
        tracing::debug!(sqlstate = sqlstate.as_str(), "a statement failed");
        self.counters
            .error(ErrorClass::of_sqlstate(sqlstate.as_bytes()));
        report::error(&mut self.client.output, failure);
        if let Some(block) = &mut self.block {
            block.failed.get_or_insert(FailedOn::Router);
        }
    }

    /// Ends a request: what is owed is written, then backends that nothing needs go back to their pools.
    async fn ready(&mut self) -> Result<(), Trouble> {
        if self.client.overdue {
            return Err(Trouble::Overdue);
        }
        if self.client.untold {
            Box::pin(self.tell_settings()).await;
        }
        if self.hears_at_end() {
            Box::pin(self.hear_until_now()).await;
            // The end of the session is told instead.
            if self.deaf().is_some() {
                return self.finish().await;
            }
        }
        let status = self.status();
        encode::ready_for_query(&mut self.client.output, status);
        self.finish().await
    }

    /// As [`Session::ready`], when a backend's own ReadyForQuery has been passed on.
    async fn finish(&mut self) -> Result<(), Trouble> {
        if self.client.untold {
            Box::pin(self.tell_settings()).await;
        }
        let flushed = self.client.flush_now();
        if !flushed.map_err(crate::execute::relay::client_gone)? {
            Box::pin(self.client.flush())
                .await
                .map_err(crate::execute::relay::client_gone)?;
        }
        if !self.workspaces.is_empty() {
            match self.block {
                None => Box::pin(self.end_workspaces()).await,
                Some(_) => Box::pin(self.end_workspaces_without_portal()).await,
            }
        }
        if self.block.is_none() {
            // No portal outlives its transaction, and those that are ours nobody else would end.
            self.portals.clear();
            if !self.cursors.is_empty() {
                self.cursors.retain_mut(|cursor| {
                    cursor.is_new = false;
                    cursor.hold
                });
            }
            if !self.participants.release_now(&self.database) {
                Box::pin(self.release()).await;
            }
            self.entry.set_pins(self.participants.pins());
            self.counters.transaction();
            self.entry.count_transaction();
        }
        Ok(())
    }

    /// A statement begins that is run like this.
    fn count(&mut self, plan: &Plan, shards: usize) {
        self.notifies |= plan.effects.notifies;
        let route = match &plan.operator {
            Operator::PassThrough(_) | Operator::Append(_) | Operator::Merge(_) if shards > 1 => {
                RouteKind::Scatter
            }
            Operator::PassThrough(_) | Operator::Append(_) | Operator::Merge(_)
                if plan.access == Access::Read =>
            {
                RouteKind::Replica
            }
            Operator::PassThrough(_) | Operator::Append(_) | Operator::Merge(_) => {
                RouteKind::Primary
            }
            Operator::InsertQuery(_) => RouteKind::Workspace,
            Operator::Lock(_)
            | Operator::Write(_)
            | Operator::Move(_)
            | Operator::Steps(_)
            | Operator::Insert(_)
            | Operator::CopyIn(_) => RouteKind::Scatter,
            Operator::Broadcast(_) => RouteKind::Broadcast,
            Operator::Workspace(_) => RouteKind::Workspace,
            Operator::Session => RouteKind::Local,
            Operator::Refuse(_) => RouteKind::Refused,
        };
        tracing::debug!(route = route.label(), shards, "a statement runs");
        self.counters.query(route);
        self.entry.count_query();
        self.entry.set_state(ClientState::Active);
    }

    /// Works on the newest topology from now on. Within a transaction block only where rows are still at their places: what the block has
    /// seen of them may be older.
    fn refresh(&mut self) {
        let published = &self.worker.services.topology;
        if published.generation() == self.generation {
            return;
        }
        let topology = published.load();
        if let Some(database) = topology.database(&self.database.name) {
            if self.block.is_some() && !database.places_like(&self.database) {
                return;
            }
            self.database = Arc::clone(database);
            self.generation = topology.generation;
            self.context = None;
        }
    }
}
