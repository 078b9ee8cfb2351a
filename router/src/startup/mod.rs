//! From an accepted socket to an authenticated client.
//!
//! [`admit`] takes a connection through its phases: `negotiate` (encryption, protocol version, what the client wants),
//! then `authenticate`; a cancel request ends after the first. What comes out is a [`ClientConnection`] that has been told
//! AuthenticationOk and nothing more: the session goes on from there.
//!
//! Invariants: the whole takes at most `client_login_timeout`. Before authentication a client makes us hold no more than a
//! startup packet or a password message. What failed is said in PostgreSQL's words where PostgreSQL says anything, and
//! the connection is closed without a word where it does not. Nothing said before TLS counts after it.
//!
//! Collaborators: [`crate::listener`] calls it and owns limits; [`access`] is who may enter; [`cancel`] the keys handed out.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use switchyard_wire::startup::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::server::TlsStream;

use crate::listener::Drain;

pub mod access;
mod authenticate;
pub mod cancel;
mod channel;
mod negotiate;
mod parameters;
mod refusal;
pub mod tls;

pub use access::Access;
pub use refusal::Refusal;

use cancel::{CancelRegistration, CancelRegistry};
use negotiate::Wish;

/// How long a client may take to receive the news that it took too long.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A client that has authenticated and been told so. ParameterStatus, BackendKeyData and ReadyForQuery are due next.
#[derive(Debug)]
pub struct ClientConnection<S = TcpStream> {
    /// Its stream.
    pub stream: ClientStream<S>,
    /// What it has sent already behind its last message.
    pub leftover: BytesMut,
    /// Whom it has proved to be.
    pub user: String,
    /// The database it asks for; whether there is one has not been looked at.
    pub database: String,
    /// The settings of its startup packet, those inside `options` first.
    pub parameters: Vec<(String, String)>,
    /// The version of the protocol that was agreed.
    pub version: ProtocolVersion,
    /// Its cancel key. While this lives the key is good.
    pub cancel: CancelRegistration,
    /// Its address.
    pub peer: SocketAddr,
    /// Tells when the router wants to shut down.
    pub drain: Drain,
}

/// A client's stream: plain or TLS.
#[derive(Debug)]
pub enum ClientStream<S = TcpStream> {
    /// Unencrypted.
    Plain(S),
    /// Encrypted; boxed, for its buffers are large and most streams are plain.
    Tls(Box<TlsStream<S>>),
}

impl<S> ClientStream<S> {
    /// Whether it is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

impl ClientStream {
    /// Waits until a read may find something, without a buffer to read into.
    ///
    /// # Errors
    /// The socket's.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.readable().await,
            // Decrypted bytes may be waiting inside.
            Self::Tls(_) => Ok(()),
        }
    }

    /// As [`ClientStream::readable`].
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(context).map(|_| ()),
            Self::Tls(_) => Poll::Ready(()),
        }
    }

    /// Writes what a plain socket takes at once. TLS must be polled.
    ///
    /// # Errors
    /// The socket's; [`io::ErrorKind::WouldBlock`] if it takes nothing now.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_write(bytes),
            Self::Tls(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// What a connection is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Door<'a> {
    /// Who may enter, and how they prove it.
    pub access: &'a Access,
    /// The keys by which queries are cancelled.
    pub cancels: &'a CancelRegistry,
    /// Whether the router shuts down.
    pub drain: &'a Drain,
    /// Whether there is no room for another client.
    pub full: bool,
}

/// Lets a client in, or carries out a cancel request, which yields `None`.
///
/// # Errors
/// [`Refusal`], which the client has been told as far as it is meant to be.
pub async fn admit<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: SocketAddr,
    door: Door<'_>,
) -> Result<Option<ClientConnection<S>>, Refusal> {
    let deadline = Instant::now() + door.access.login_timeout();
    // PostgreSQL, too, says nothing to a client that does not finish its startup packet.
    let negotiating = Box::pin(negotiate::negotiate(stream, door.access));
    let (mut channel, wish) = timeout_at(deadline, negotiating)
        .await
        .map_err(|_| Refusal::Timeout)??;
    let opening = match wish {
        Wish::Session(opening) => opening,
        Wish::Cancel { pid, secret } => {
            door.cancels.cancel(pid, &secret).await;
            return Ok(None);
        }
    };
    let entering = async {
        door.may_enter(&opening)?;
        authenticate::authenticate(&mut channel, door.access, &opening).await?;
        door.cancels
            .register(opening.version)
            .map_err(Refusal::Random)
    };
    let entered = timeout_at(deadline, entering)
        .await
        .unwrap_or(Err(Refusal::Timeout));
    match entered {
        Ok(cancel) => Ok(Some(ClientConnection {
            stream: channel.stream,
            leftover: channel.input,
            user: opening.user,
            database: opening.database,
            parameters: opening.settings,
            version: opening.version,
            cancel,
            peer,
            drain: door.drain.clone(),
        })),
        Err(refusal) => {
            // Whether the client hears it or not, it is refused.
            let _ = timeout(LAST_WORD, channel.refuse(&refusal)).await;
            Err(refusal)
        }
    }
}

impl Door<'_> {
    /// What can be said before anybody has proved anything.
    fn may_enter(&self, opening: &negotiate::Opening) -> Result<(), Refusal> {
        if self.drain.is_requested() {
            return Err(Refusal::ShuttingDown);
        }
        // The console must open when nothing else does.
        if self.full && !access::is_console(&opening.database) {
            return Err(Refusal::TooManyClients);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
