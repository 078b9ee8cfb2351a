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

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use switchyard_wire::startup::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};

use crate::listener::Drain;
use crate::stream::{Socket, Stream};

pub mod access;
mod authenticate;
pub mod cancel;
mod channel;
pub mod directory;
pub mod failed;
pub mod lookups;
mod negotiate;
mod parameters;
pub mod peers;
mod refusal;
pub mod tls;

pub use access::Access;
pub use directory::Directory;
pub use refusal::Refusal;

use cancel::{CancelRegistration, CancelRegistry};
use failed::FailedLogins;
use negotiate::Wish;

/// How long a client may take to receive the news that it took too long.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A client that has authenticated and been told so. ParameterStatus, BackendKeyData and ReadyForQuery are due next.
#[derive(Debug)]
pub struct ClientConnection<S = Socket> {
    /// Its stream.
    pub stream: Stream<S>,
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
    /// Its address; `None` for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// Tells when the router wants to shut down.
    pub drain: Drain,
}

/// What a connection is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Door<'a> {
    /// Who may enter, and how they prove it.
    pub access: &'a Access,
    /// The keys by which queries are cancelled.
    pub cancels: &'a CancelRegistry,
    /// Whose logins have failed.
    pub failed: &'a FailedLogins,
    /// Where users are looked up that are not in the configuration.
    pub directory: Option<&'a Directory>,
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
    peer: Option<SocketAddr>,
    door: Door<'_>,
) -> Result<Option<ClientConnection<S>>, Refusal> {
    let deadline = Instant::now() + door.access.login_timeout();
    // PostgreSQL, too, says nothing to a client that does not finish its startup packet.
    // As in PostgreSQL there is no TLS on a Unix socket, nor is it demanded there.
    let tls = door.access.tls().filter(|_| peer.is_some());
    let negotiating = Box::pin(negotiate::negotiate(stream, tls));
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
        authenticate::authenticate(&mut channel, door, peer, &opening).await?;
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
