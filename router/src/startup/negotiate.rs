//! The first packets: encryption, the version of the protocol, what the client wants.

use std::io;
use std::sync::Arc;

use switchyard_wire::backend::encode;
use switchyard_wire::startup::{ProtocolVersion, StartupPacket, decode_startup};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::channel::Channel;
use super::tls::ClientTls;
use super::{Refusal, parameters};
use crate::stream::Stream;

/// The first byte of a TLS handshake. No startup packet that long would be accepted.
const TLS_HANDSHAKE: u8 = 0x16;

/// The application protocol of clients that begin with TLS.
pub(super) const ALPN: &[u8] = b"postgresql";

/// What a client wants.
#[derive(Debug)]
pub(super) enum Wish {
    /// A session.
    Session(Opening),
    /// The query of another connection cancelled.
    Cancel { pid: i32, secret: Box<[u8]> },
}

/// What a client says of the session it wants.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) user: String,
    pub(super) database: String,
    pub(super) settings: Vec<(String, String)>,
    pub(super) version: ProtocolVersion,
}

/// What may still be asked for.
#[derive(Debug)]
struct Asked {
    tls: bool,
    gss: bool,
}

enum Step {
    Again,
    StartTls,
    Done(Wish),
}

/// Goes on until the client has said what it wants. What fails has been said to the client.
pub(super) async fn negotiate<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    tls: Option<&ClientTls>,
) -> Result<(Channel<S>, Wish), Refusal> {
    let mut channel = Channel::new(Stream::Plain(stream));
    let mut asked = Asked {
        tls: false,
        gss: false,
    };
    if channel.peek().await? == TLS_HANDSHAKE {
        channel = direct_tls(channel, tls).await?;
        asked = Asked {
            tls: true,
            gss: true,
        };
    }
    loop {
        match step(&mut channel, &mut asked, tls).await {
            Ok(Step::Again) => {}
            Ok(Step::StartTls) => channel = start_tls(channel, tls).await?,
            Ok(Step::Done(wish)) => return Ok((channel, wish)),
            Err(refusal) => {
                channel.refuse(&refusal).await;
                return Err(refusal);
            }
        }
    }
}

async fn step<S: AsyncRead + AsyncWrite + Unpin>(
    channel: &mut Channel<S>,
    asked: &mut Asked,
    tls: Option<&ClientTls>,
) -> Result<Step, Refusal> {
    let packet = channel.packet().await?;
    match decode_startup(&packet)? {
        StartupPacket::Ssl if !asked.tls => {
            asked.tls = true;
            nothing_more(channel, "SSL")?;
            if tls.is_none() {
                channel.answer(b'N').await?;
                return Ok(Step::Again);
            }
            asked.gss = true;
            channel.answer(b'S').await?;
            Ok(Step::StartTls)
        }
        StartupPacket::GssEnc if !asked.gss => {
            asked.gss = true;
            nothing_more(channel, "GSSAPI encryption")?;
            channel.answer(b'N').await?;
            Ok(Step::Again)
        }
        // Asked twice: PostgreSQL takes the request for a version of the protocol.
        StartupPacket::Ssl => Err(Refusal::Version(ProtocolVersion::from_word(80_877_103))),
        StartupPacket::GssEnc => Err(Refusal::Version(ProtocolVersion::from_word(80_877_104))),
        StartupPacket::Cancel { pid, secret } => Ok(Step::Done(Wish::Cancel {
            pid,
            secret: secret.into(),
        })),
        StartupPacket::Startup { version, .. } if version.major != 3 => {
            Err(Refusal::Version(version))
        }
        StartupPacket::Startup { version, params } => {
            let agreed = agree(version);
            let unknown: Vec<&[u8]> = params.protocol_options().collect();
            if agreed != version || !unknown.is_empty() {
                encode::negotiate_protocol_version(&mut channel.output, agreed, &unknown);
            }
            let opening = parameters::read(params, agreed)?;
            if tls.is_some_and(ClientTls::is_required) && !channel.stream.is_tls() {
                return Err(Refusal::TlsRequired);
            }
            Ok(Step::Done(Wish::Session(opening)))
        }
    }
}

/// The newest version both sides speak. There never was a 3.1.
fn agree(wanted: ProtocolVersion) -> ProtocolVersion {
    if wanted >= ProtocolVersion::V3_2 {
        ProtocolVersion::V3_2
    } else {
        ProtocolVersion::V3_0
    }
}

/// Bytes that came before the answer to a request for encryption were not encrypted and may be anybody's
/// (CVE-2021-23214): they must not be taken for what is said under it.
fn nothing_more<S>(channel: &Channel<S>, request: &'static str) -> Result<(), Refusal> {
    if channel.input.is_empty() {
        return Ok(());
    }
    tracing::warn!("received unencrypted data after {request} request");
    Err(Refusal::EarlyData(request))
}

async fn start_tls<S: AsyncRead + AsyncWrite + Unpin>(
    channel: Channel<S>,
    tls: Option<&ClientTls>,
) -> Result<Channel<S>, Refusal> {
    let stream = handshake(channel, tls, Refusal::DirectTls).await?;
    Ok(Channel::new(stream))
}

/// TLS from the first byte on. It must be meant for PostgreSQL, or a browser could be made to speak to us.
async fn direct_tls<S: AsyncRead + AsyncWrite + Unpin>(
    channel: Channel<S>,
    tls: Option<&ClientTls>,
) -> Result<Channel<S>, Refusal> {
    let stream = handshake(channel, tls, Refusal::DirectTls).await?;
    if let Stream::Tls(stream) = &stream
        && stream.get_ref().1.alpn_protocol() != Some(ALPN)
    {
        return Err(Refusal::NoAlpn);
    }
    Ok(Channel::new(stream))
}

/// The handshake, of which the channel may have read the beginning.
async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    channel: Channel<S>,
    tls: Option<&ClientTls>,
    unavailable: Refusal,
) -> Result<Stream<S>, Refusal> {
    let (Some(tls), Stream::Plain(stream)) = (tls, channel.stream) else {
        return Err(unavailable);
    };
    let mut begun = &channel.input[..];
    let mut failure = None;
    let accepting = TlsAcceptor::from(Arc::clone(tls.config())).accept_with(stream, |session| {
        while !begun.is_empty() && failure.is_none() {
            failure = session.read_tls(&mut begun).err().or_else(|| {
                let processed = session.process_new_packets();
                processed.err().map(io::Error::other)
            });
        }
    });
    // The handshake would wait for more before it finds that again.
    if let Some(failure) = failure {
        return Err(Refusal::Handshake(failure));
    }
    let stream = accepting.await.map_err(Refusal::Handshake)?;
    Ok(Stream::Tls(Box::new(stream.into())))
}
