//! One connection to a PostgreSQL node: connecting, authenticating, and the state a pool must know about.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what a node may say at this point is a short list; all else is a protocol error"
)]

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use socket2::TcpKeepalive;
use switchyard_catalog::RouterId;
use switchyard_wire::backend::{self, Message, TransactionStatus};
use switchyard_wire::frontend::encode;
use switchyard_wire::startup::{ProtocolVersion, encode::startup};
use switchyard_wire::{SqlState, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::admission::unmarked;
use super::renumbering::Renumbering;
use super::{CONSISTENT_READ, Kept, LAYER, PreparedSet, ROUTE, Replies, ScramKeys, Settings};
use crate::admin::asked::Asked;
use crate::admin::registry::{Registration, ServerEntry};
use crate::config::Password;
use crate::proven::Proven;
use crate::relations::OidMap;
use crate::startup::cancel::{CancelAddress, CancelTarget};
use crate::startup::tls::NodeTls;
use crate::stream::{Endpoint, Socket, Stream};
use crate::topology::Incarnation;

/// A node that does not acknowledge what we sent for this long is gone (TCP_USER_TIMEOUT). It counts also for one that
/// lives and does not read, as a COPY that waits for a lock; the monitor notices a dead node much earlier.
const USER_TIMEOUT: Duration = Duration::from_secs(300);
/// The largest message accepted whole from a node while connecting or for our own queries.
const CONTROL_MESSAGE_LIMIT: usize = 16 << 20;

/// Where and as whom to connect.
#[derive(Debug)]
pub struct ConnectOptions {
    /// Host name, address, or the directory of a Unix socket.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The PostgreSQL role.
    pub user: String,
    /// Its password; `None` where the node trusts us.
    pub password: Option<Password>,
    /// What the user has proven to us, where we do not know the password.
    pub proven: Arc<Proven>,
    /// The keys that SCRAM has derived from the password.
    pub scram_keys: ScramKeys,
    /// The database on the node.
    pub database: String,
    /// Prepared statements kept on one connection before the oldest is closed.
    pub prepared_limit: usize,
    /// How to encrypt.
    pub tls: NodeTls,
    /// The whole of connecting and authenticating must take no longer.
    pub timeout: Duration,
    /// Settings it begins with, besides those that clients have.
    pub settings: &'static [(&'static str, &'static str)],
}

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The network or TLS failed.
    #[error("could not connect: {0}")]
    Io(#[source] io::Error),
    /// The node, or something between, closed the connection before it was ready.
    #[error("the connection broke while it was made: {0}")]
    Broken(#[source] io::Error),
    /// It took longer than [`ConnectOptions::timeout`], or than the node was believed to be up.
    #[error("connecting timed out")]
    Timeout,
    /// The node refused, in its own words.
    #[error("{message} ({})", .sqlstate.as_str())]
    Refused {
        /// The node's SQLSTATE.
        sqlstate: SqlState,
        /// The node's message.
        message: String,
    },
    /// The router cannot prove to the node that it acts for the user. The node would say no more than that the password is wrong.
    #[error("{0}")]
    Unproven(&'static str),
    /// The node said something the protocol does not allow here.
    #[error("the node broke the protocol: {0}")]
    Protocol(String),
    /// Rows have moved, or may be moving, that this router does not hear of.
    #[error("the router does not hear from the catalog where rows are")]
    Outdated,
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl ConnectError {
    /// Whether the node as a whole does not serve now, whoever asks.
    #[must_use]
    pub fn is_node_down(&self) -> bool {
        match self {
            Self::Io(_) | Self::Broken(_) | Self::Timeout => true,
            Self::Refused { sqlstate, .. } => [
                SqlState::CANNOT_CONNECT_NOW,
                SqlState::ADMIN_SHUTDOWN,
                SqlState::CRASH_SHUTDOWN,
            ]
            .contains(sqlstate),
            Self::Unproven(_) | Self::Protocol(_) | Self::Outdated => false,
        }
    }
}

/// Why one of our own queries on a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// PostgreSQL answered with an error.
    #[error("{message} ({})", .sqlstate.as_str())]
    Server {
        /// The node's SQLSTATE.
        sqlstate: SqlState,
        /// The node's message.
        message: String,
    },
    /// The node said something the protocol does not allow here.
    #[error("the node broke the protocol: {0}")]
    Protocol(String),
}

/// A row of text values, as the simple query protocol returns them.
pub type TextRow = Vec<Option<String>>;

/// An authenticated connection, ready for queries. What every query touches stands together, at the start.
#[derive(Debug)]
#[repr(C)]
pub struct Connection {
    pub(crate) stream: Stream,
    /// Bytes read and not yet consumed.
    pub(crate) input: BytesMut,
    /// Bytes to be written.
    pub(crate) output: BytesMut,
    /// The settings that hold here between transactions; `None` if that is not known.
    pub(crate) applied: Option<Arc<Settings>>,
    /// How a cancel request reaches the backend.
    pub(crate) target: Arc<CancelTarget>,
    /// Its line in SHOW SERVERS.
    pub(crate) entry: Option<Registration<ServerEntry>>,
    /// When it was made, in milliseconds of its pool's age.
    pub(crate) born: u64,
    /// The life of the server this connection belongs to, where the monitor has vouched for it.
    pub(crate) incarnation: Option<Incarnation>,
    /// Something ran that may have left session state behind: reset before another session gets it.
    pub(crate) dirty: bool,
    /// Its session remembers values of sequences, for `currval` and `lastval`.
    pub(crate) sequences: bool,
    /// Its `random()` has been seeded, which nothing undoes: it must not be lent again.
    pub(crate) seeded: bool,
    /// The stream is of no further use.
    pub(crate) broken: bool,
    /// Whose it is, where that is marked on the server.
    marker: Option<RouterId>,
    /// What the node owes for what has been sent, and the transaction status it last reported.
    pub(crate) replies: Replies,
    /// The statements prepared here.
    pub(crate) prepared: PreparedSet,
    /// And texts of ours.
    pub(crate) kept: Kept,
    /// The unnamed prepared statement, by the router's statement number.
    pub(crate) unnamed: Option<u64>,
    /// How what it describes is renumbered, where it numbers types and tables otherwise than the first shard.
    renumbering: Option<Box<Renumbering>>,
    parameters: Vec<(Box<str>, Box<str>)>,
    /// A second handle on the socket, by which others can shut it down while this task waits on it.
    pub(crate) socket: Arc<socket2::Socket>,
}

impl Connection {
    /// Connects and authenticates.
    ///
    /// # Errors
    /// [`ConnectError`], also when the whole takes longer than the options allow.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, ConnectError> {
        tokio::time::timeout(options.timeout, Self::connect_unbounded(options))
            .await
            .map_err(|_| ConnectError::Timeout)?
    }

    async fn connect_unbounded(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let (socket, endpoint) = Socket::connect(&options.host, options.port)
            .await
            .map_err(ConnectError::Io)?;
        let reference = socket.reference();
        if let Endpoint::Tcp(_) = endpoint {
            reference.set_tcp_nodelay(true)?;
            reference.set_tcp_keepalive(
                &TcpKeepalive::new()
                    .with_time(Duration::from_secs(30))
                    .with_interval(Duration::from_secs(10)),
            )?;
            reference.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        }
        let duplicate = Arc::new(reference.try_clone()?);
        let address = CancelAddress {
            host: options.host.as_str().into(),
            endpoint,
            tls: options.tls.clone(),
        };
        let stream = options.tls.wrap(socket, &options.host).await?;
        let mut connection = Self {
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
            replies: Replies::default(),
            prepared: PreparedSet::new(options.prepared_limit),
            kept: Kept::default(),
            unnamed: None,
            renumbering: None,
            applied: Some(Arc::default()),
            dirty: false,
            sequences: false,
            seeded: false,
            broken: false,
            incarnation: None,
            born: 0,
            marker: None,
            parameters: Vec::new(),
            target: CancelTarget::new(address, 0, &[], &duplicate),
            socket: duplicate,
            entry: None,
        };
        let settings = [
            ("user", options.user.as_str()),
            ("database", options.database.as_str()),
            // The router's own settings, so that SHOW and current_setting() know them, as what they are until they are set.
            (CONSISTENT_READ, "off"),
            (LAYER, "auto"),
            (ROUTE, "default"),
        ]
        .into_iter()
        .chain(options.settings.iter().copied())
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        startup(&mut connection.output, ProtocolVersion::V3_0, settings);
        connection.flush().await?;
        connection.authenticate(options).await?;
        connection.await_ready().await?;
        Ok(connection)
    }

    async fn await_ready(&mut self) -> Result<(), ConnectError> {
        loop {
            let message = self.read_control_message().await?;
            match decode(&message)? {
                Message::ParameterStatus { name, value } => self.note_parameter(name, value),
                Message::BackendKeyData { pid, secret } => {
                    let address = self.target.address().clone();
                    self.target = CancelTarget::new(address, pid, secret, &self.socket);
                }
                Message::ReadyForQuery(_) => return Ok(()),
                Message::NoticeResponse(_) => {}
                Message::ErrorResponse(fields) => return Err(refused(&fields)),
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Runs a query of our own by the simple protocol and returns its rows as text.
    ///
    /// # Errors
    /// [`QueryError`]; the connection is of no further use unless it is [`QueryError::Server`].
    pub async fn simple_query(&mut self, sql: &str) -> Result<Vec<TextRow>, QueryError> {
        self.send_query(sql).await?;
        self.query_answer().await
    }

    /// Runs a query of our own with parameters, and returns its rows as text.
    ///
    /// # Errors
    /// [`QueryError`]; the connection is of no further use unless it is [`QueryError::Server`].
    pub(crate) async fn query_with(
        &mut self,
        sql: &str,
        parameters: &[&str],
    ) -> Result<Vec<TextRow>, QueryError> {
        encode::parse(&mut self.output, b"", sql.as_bytes(), &[]);
        let values: Vec<_> = parameters
            .iter()
            .map(|value| Some(value.as_bytes()))
            .collect();
        encode::bind(&mut self.output, b"", b"", &[], &values, &[]);
        encode::execute(&mut self.output, b"", 0);
        encode::sync(&mut self.output);
        self.broken = true;
        self.flush().await?;
        self.query_answer().await
    }

    /// The first half of [`Connection::simple_query`], for queries to several nodes at a time: sends it.
    ///
    /// # Errors
    /// The connection is of no further use.
    pub(crate) async fn send_query(&mut self, sql: &str) -> Result<(), QueryError> {
        encode::query(&mut self.output, sql.as_bytes());
        self.broken = true;
        Ok(self.flush().await?)
    }

    /// The second half: reads the answer.
    ///
    /// # Errors
    /// [`QueryError`]; the connection is of no further use unless it is [`QueryError::Server`].
    pub(crate) async fn query_answer(&mut self) -> Result<Vec<TextRow>, QueryError> {
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            let bytes = self.read_control_message().await?;
            match decode(&bytes)? {
                Message::DataRow(row) => rows.push(
                    row.iter()
                        .map(|value| value.map(|value| String::from_utf8_lossy(value).into_owned()))
                        .collect(),
                ),
                Message::ErrorResponse(fields) => {
                    failure = Some(server_error(&fields));
                }
                Message::ParameterStatus { name, value } => self.note_parameter(name, value),
                // Code has listened here.
                Message::NotificationResponse { .. } => self.dirty = true,
                Message::ReadyForQuery(status) => {
                    self.replies.set_status(status);
                    self.broken = false;
                    return failure.map_or(Ok(rows), Err);
                }
                Message::CopyInResponse { .. }
                | Message::CopyOutResponse { .. }
                | Message::CopyBothResponse { .. } => {
                    return Err(QueryError::Protocol(
                        "COPY in a query of the router's own".into(),
                    ));
                }
                _ => {}
            }
        }
    }

    /// Makes a connection that may hold session state as good as new: `DISCARD ALL`.
    ///
    /// # Errors
    /// [`QueryError`]: the connection must then be closed.
    pub async fn reset(&mut self) -> Result<(), QueryError> {
        self.simple_query("DISCARD ALL").await?;
        if let Some(router) = self.marker {
            self.simple_query(&marking(router)).await?;
        }
        self.prepared.clear();
        self.kept.clear();
        self.unnamed = None;
        self.applied = Some(Arc::default());
        self.dirty = false;
        self.sequences = false;
        Ok(())
    }

    /// The lock that marks it as a router's, if it is marked.
    pub(crate) fn marker(&self) -> Option<RouterId> {
        self.marker
    }

    /// Marks it as a router's, for as long as it lasts. The epoch up to which the shard knows of movements, 0 for none.
    pub(super) async fn mark(&mut self, router: RouterId) -> Result<u64, ConnectError> {
        let rows = self.simple_query(&marking(router)).await;
        let rows = rows.map_err(unmarked)?;
        self.marker = Some(router);
        let epoch = rows.first().and_then(|row| row.get(1)?.as_deref());
        Ok(epoch.and_then(|epoch| epoch.parse().ok()).unwrap_or(0))
    }

    /// Reads one whole message into a buffer of its own. Not for the path of a client's rows.
    pub(super) async fn read_control_message(&mut self) -> io::Result<BytesMut> {
        loop {
            if let Some(header) = frame::header(&self.input).map_err(io::Error::other)? {
                if header.len > CONTROL_MESSAGE_LIMIT {
                    return Err(io::Error::other("message too large"));
                }
                if self.input.len() >= header.len {
                    return Ok(self.input.split_to(header.len));
                }
            }
            self.fill().await?;
        }
    }

    /// Reads what has arrived, waiting for something.
    ///
    /// # Errors
    /// An end of stream is [`io::ErrorKind::UnexpectedEof`].
    pub(crate) async fn fill(&mut self) -> io::Result<()> {
        self.input.reserve(READ_SIZE);
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) => {
                self.broken = true;
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(count) => {
                self.arrived(count);
                Ok(())
            }
            Err(error) => {
                self.broken = true;
                Err(error)
            }
        }
    }

    /// Reads what has arrived into its input, if anything has. How many bytes; 0 at the end of the stream.
    pub(crate) fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let received = self.stream.poll_receive(context, &mut self.input);
        if let Poll::Ready(Ok(count)) = received {
            self.arrived(count);
        }
        received
    }

    #[inline]
    fn arrived(&mut self, count: usize) {
        if let Some(renumbering) = &mut self.renumbering {
            renumbering.arrived(&mut self.input, count);
        }
    }

    /// Has what it describes from now on renumbered by `map`, if the replies to all before have been taken.
    pub(crate) fn renumber_by(&mut self, map: Option<&Arc<OidMap>>) {
        let same = match (self.oid_map(), map) {
            (Some(known), Some(map)) => Arc::ptr_eq(known, map),
            (known, map) => known.is_none() && map.is_none(),
        };
        if !same && self.replies.is_settled() && self.input.is_empty() {
            self.renumbering = map.map(|map| Box::new(Renumbering::new(map)));
        }
    }

    /// How its numbers of types and tables differ from the first shard's, if they do.
    pub(crate) fn oid_map(&self) -> Option<&Arc<OidMap>> {
        self.renumbering
            .as_ref()
            .map(|renumbering| &renumbering.map)
    }

    /// Notes what it is about to be asked.
    pub(crate) fn is_asked(&self, asked: Asked) {
        if let Some(entry) = &self.entry {
            entry.unanswered.note(asked);
        }
    }

    /// The answer to what it has been asked last has begun: by now all is locked that the answer is made of.
    pub(crate) fn has_answered(&self) {
        if let Some(entry) = &self.entry {
            entry.unanswered.forget();
        }
    }

    /// Writes all pending output.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        while self.output.has_remaining() {
            self.stream
                .write_buf(&mut self.output)
                .await
                .inspect_err(|_| self.broken = true)?;
        }
        self.stream.flush().await
    }

    /// Renumbers the Bind message that begins here in its output, if it numbers types otherwise than the first shard.
    pub(crate) fn renumber_bind(&mut self, begins: usize, type_of: impl Fn(u16) -> u32) {
        if let Some(renumbering) = &self.renumbering
            && let Some(message) = self.output.get_mut(begins..)
        {
            renumbering.map.renumber_bind(message, type_of);
        }
    }

    /// Takes note of a ParameterStatus from the node.
    pub(crate) fn note_parameter(&mut self, name: &[u8], value: &[u8]) {
        let name = String::from_utf8_lossy(name);
        let value: Box<str> = String::from_utf8_lossy(value).into();
        match self
            .parameters
            .iter_mut()
            .find(|(known, _)| **known == *name)
        {
            Some((_, known)) => *known = value,
            None => self.parameters.push((name.into(), value)),
        }
    }

    /// The run-time parameters the node has reported, with their present values.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters
            .iter()
            .map(|(name, value)| (&**name, &**value))
    }

    /// Whether the node has neither closed the connection nor said anything unasked. Costs a system call.
    pub(crate) fn is_open(&self) -> bool {
        let mut nothing = [std::mem::MaybeUninit::uninit()];
        let peeked = self.socket.peek(&mut nothing);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// True when another session may use this connection at once: idle, nothing outstanding, nothing left behind.
    pub fn is_reusable(&self) -> bool {
        !self.broken
            && !self.dirty
            && !self.seeded
            && self.replies.is_settled()
            && self.replies.status() == TransactionStatus::Idle
            && self.input.is_empty()
            && self.output.is_empty()
    }
}

/// Takes the lock that marks a connection, and asks for the epoch.
fn marking(router: RouterId) -> String {
    format!(
        "SELECT pg_catalog.pg_advisory_lock_shared({}), pg_catalog.current_setting('switchyard.epoch', true)",
        router.0
    )
}

/// Room made for one read of what is said to the router itself.
const READ_SIZE: usize = 8 << 10;

pub(super) fn decode(message: &[u8]) -> io::Result<Message<'_>> {
    let (head, body) = message
        .split_at_checked(frame::HEADER)
        .ok_or(io::ErrorKind::InvalidData)?;
    backend::decode(head[0], body).map_err(io::Error::other)
}

fn field(fields: &backend::Fields<'_>, code: u8) -> String {
    fields
        .get(code)
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .unwrap_or_default()
}

fn sqlstate(fields: &backend::Fields<'_>) -> SqlState {
    fields
        .get(b'C')
        .and_then(SqlState::parse)
        .unwrap_or(SqlState::INTERNAL_ERROR)
}

pub(super) fn server_error(fields: &backend::Fields<'_>) -> QueryError {
    QueryError::Server {
        sqlstate: sqlstate(fields),
        message: field(fields, b'M'),
    }
}

pub(super) fn refused(fields: &backend::Fields<'_>) -> ConnectError {
    ConnectError::Refused {
        sqlstate: sqlstate(fields),
        message: field(fields, b'M'),
    }
}

pub(super) fn unexpected(message: &Message<'_>) -> ConnectError {
    ConnectError::Protocol(format!("unexpected {message:?}"))
}
