//! Proof that a client is who it says it is.

use std::net::{IpAddr, SocketAddr};

use switchyard_schema::hba::{ClientCert, HbaMethod};
use switchyard_wire::backend::encode;
use switchyard_wire::frontend::SaslInitialResponse;
use switchyard_wire::scram::{Nonce, ScramServer, ServerError, Verifier};
use tokio::io::{AsyncRead, AsyncWrite};

use super::access::{Access, AccessUser, Demand, is_console};
use super::channel::Channel;
use super::directory::Found;
use super::failed::Turn;
use super::negotiate::Opening;
use super::tls::certificate;
use super::{Door, Refusal};
use crate::config::Rights;
use crate::proven::{Proof, Realm};
use crate::stream::Stream;

/// Whom a name is of.
enum Who<'a> {
    /// A user of the configuration.
    Listed(&'a AccessUser),
    /// One that a node knows.
    Found(Found),
    Nobody,
}

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
    let address = peer.map(|peer| peer.ip());
    let demand = access.demand(opening, address, channel.stream.is_tls())?;
    // Nobody is looked up for whom that makes no difference.
    let who = match demand.method {
        HbaMethod::Reject => {
            return Err(access.rejected(opening, address, channel.stream.is_tls()));
        }
        HbaMethod::Trust => {
            certified(channel, access, &demand, &opening.user)?;
            who(door, address, opening).await?
        }
        HbaMethod::Cert => {
            let turn = turn.await?;
            let proved = certified(channel, access, &demand, &opening.user);
            turn.ended(proved.is_ok());
            proved?;
            who(door, address, opening).await?
        }
        HbaMethod::ScramSha256 => {
            certified(channel, access, &demand, &opening.user)?;
            let who = who(door, address, opening).await?;
            scram(channel, access, turn, &opening.user, &who).await?;
            who
        }
    };
    let rights = match who {
        Who::Listed(user) => user.rights,
        Who::Found(_) => Rights::None,
        Who::Nobody => return Err(Refusal::NoRole(opening.user.clone())),
    };
    encode::authentication_ok(&mut channel.output);
    if is_console(&opening.database) && rights == Rights::None {
        return Err(Refusal::Console(opening.database.clone()));
    }
    channel.flush().await
}

async fn who<'a>(
    door: Door<'a>,
    address: Option<IpAddr>,
    opening: &Opening,
) -> Result<Who<'a>, Refusal> {
    if let Some(user) = door.access.user(&opening.user) {
        return Ok(Who::Listed(user));
    }
    let Some(directory) = door.directory else {
        return Ok(Who::Nobody);
    };
    let found = directory.find(address, &opening.database, &opening.user);
    let found = found.await?;
    Ok(found.map_or(Who::Nobody, Who::Found))
}

impl Who<'_> {
    /// What the password is checked against; for whoever has none something that lets nobody in and does not show.
    fn verifier(&self, access: &Access, name: &str) -> Verifier {
        match self {
            Self::Listed(_) | Self::Nobody => access.verifier(name),
            Self::Found(found) => access.verifier_of(found.password.as_ref(), name),
        }
    }

    /// What a login has proven that is not known from the configuration, and where.
    fn proof(&self, keys: Proof) -> Option<(Realm, Proof)> {
        match self {
            Self::Listed(user) => user.by_verifier.then_some((Realm::Everywhere, keys)),
            Self::Found(found) => {
                let password = found.password.as_ref()?;
                let proof = match Verifier::is_verifier(password.reveal()) {
                    true => keys,
                    false => Proof::Password(password.clone()),
                };
                Some((found.realm.clone(), proof))
            }
            Self::Nobody => None,
        }
    }
}

async fn scram<S: AsyncRead + AsyncWrite + Unpin>(
    channel: &mut Channel<S>,
    access: &Access,
    turn: impl Future<Output = Result<Turn<'_>, Refusal>>,
    user: &str,
    who: &Who<'_>,
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
    let server = ScramServer::new(who.verifier(access, user), nonce, binding);
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
    let (salt, iterations, keys) = accepted.into_keys();
    let keys = Proof::Keys {
        salt,
        iterations,
        keys,
    };
    if let Some((realm, proof)) = who.proof(keys) {
        access.proven().learn(realm, user, proof);
    }
    Ok(())
}

/// The handshake has found the certificate valid, if there is one; it must be this user's where that is demanded.
fn certified<S>(
    channel: &Channel<S>,
    access: &Access,
    demand: &Demand<'_>,
    user: &str,
) -> Result<(), Refusal> {
    let Some(wanted) = demand.certificate else {
        return Ok(());
    };
    let certificate = channel.stream.peer_certificate();
    let certificate = certificate.ok_or(Refusal::NoCertificate)?;
    let stands_for_user = |name: &str| match demand.map {
        Some(map) => access.maps().allows(map, name, user),
        None => name == user,
    };
    match certificate::common_name(certificate) {
        _ if wanted == ClientCert::Any => Ok(()),
        Some(name) if stands_for_user(name) => Ok(()),
        _ => Err(Refusal::Certificate(user.to_owned())),
    }
}
