//! Proof that a client is who it says it is.

use std::net::SocketAddr;

use switchyard_schema::AuthMethod;
use switchyard_wire::backend::encode;
use switchyard_wire::frontend::SaslInitialResponse;
use switchyard_wire::scram::{Nonce, ScramServer, ServerError};
use tokio::io::{AsyncRead, AsyncWrite};

use super::access::{Access, is_console};
use super::channel::Channel;
use super::failed::Turn;
use super::negotiate::Opening;
use super::tls::certificate;
use super::{Door, Refusal};
use crate::stream::Stream;

/// Has the client prove who it is, and tells it that it has.
pub(super) async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    channel: &mut Channel<S>,
    door: Door<'_>,
    peer: Option<SocketAddr>,
    opening: &Opening,
) -> Result<(), Refusal> {
    let access = door.access;
    // To be awaited when the proof is there, before it is looked at.
    let turn = door
        .failed
        .turn(peer.map(|peer| peer.ip()), access.max_login_failures());
    match access.method() {
        AuthMethod::Trust => {}
        AuthMethod::ScramSha256 => scram(channel, access, turn, &opening.user).await?,
        AuthMethod::Cert => {
            let turn = turn.await?;
            let proved = has_certificate(channel, &opening.user);
            turn.ended(proved.is_ok());
            proved?;
        }
    }
    let user = access
        .user(&opening.user)
        .ok_or_else(|| Refusal::NoRole(opening.user.clone()))?;
    encode::authentication_ok(&mut channel.output);
    if is_console(&opening.database) && !user.admin {
        return Err(Refusal::Console(opening.database.clone()));
    }
    channel.flush().await
}

async fn scram<S: AsyncRead + AsyncWrite + Unpin>(
    channel: &mut Channel<S>,
    access: &Access,
    turn: impl Future<Output = Result<Turn<'_>, Refusal>>,
    user: &str,
) -> Result<(), Refusal> {
    let refused = |error| {
        if error == ServerError::Proof {
            Refusal::Password(user.to_owned())
        } else {
            Refusal::Scram(error)
        }
    };
    let binding = match (&channel.stream, access.tls()) {
        (Stream::Tls(_), Some(tls)) => tls.end_point().map(<[u8]>::to_vec),
        _ => None,
    };
    let nonce = Nonce::random().map_err(Refusal::Random)?;
    let server = ScramServer::new(access.verifier(user), nonce, binding);
    encode::authentication_sasl(&mut channel.output, server.mechanisms());
    channel.flush().await?;

    let message = channel.password_message("SASL response").await?;
    let initial = SaslInitialResponse::decode(&message)?;
    server.check_mechanism(initial.mechanism).map_err(refused)?;
    let later;
    let first = match initial.response {
        Some(response) => response,
        // The client waits for a challenge before it says anything; there is nothing to say.
        None => {
            encode::authentication_sasl_continue(&mut channel.output, b"");
            channel.flush().await?;
            later = channel.password_message("SASL response").await?;
            &later
        }
    };
    let challenge = server
        .client_first(initial.mechanism, first)
        .map_err(refused)?;
    encode::authentication_sasl_continue(&mut channel.output, challenge.message());
    channel.flush().await?;

    let last = channel.password_message("SASL response").await?;
    let turn = turn.await?;
    let proved = challenge.client_final(&last);
    turn.ended(proved.is_ok());
    let accepted = proved.map_err(refused)?;
    encode::authentication_sasl_final(&mut channel.output, accepted.message());
    Ok(())
}

/// The handshake has found the certificate valid; it must be this user's.
fn has_certificate<S>(channel: &Channel<S>, user: &str) -> Result<(), Refusal> {
    let certificate = channel.stream.peer_certificate();
    let certificate = certificate.ok_or(Refusal::NoCertificate)?;
    match certificate::common_name(certificate) {
        Some(name) if name == user => Ok(()),
        _ => Err(Refusal::Certificate(user.to_owned())),
    }
}
