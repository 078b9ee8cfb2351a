//! Cancel requests that have come to the wrong router: of those behind one address each may get the other's.
//!
//! A key's process number begins with the number of the router that has given it out (`peer_id`), so that any other knows whom to pass a request
//! on to. Invariant: what has been passed on is not passed on again, whatever the configurations say: its secret has a mark behind it.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use switchyard_schema::{Address, Config};
use tokio::time::timeout;

use super::cancel::hand_in;
use super::tls::NodeTls;
use crate::stream::Socket;

/// How long passing on may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Bits of a process number that tell clients apart; it is positive, and what is left tells routers apart.
const CLIENT_BITS: u32 = 21;
/// Behind the secret of a request that has been passed on.
const PASSED_ON: &[u8] = b"passed on by a Switchyard";

/// The routers that share an address with this one.
#[derive(Debug, Default)]
pub struct Peers {
    own: u16,
    others: BTreeMap<u16, Address>,
}

impl Peers {
    /// Those of the configuration.
    #[must_use]
    pub fn new(file: &Config) -> Self {
        let others = file.peers.iter();
        Self {
            own: file.router.peer_id,
            others: others.map(|peer| (peer.id, peer.address.clone())).collect(),
        }
    }

    /// The process number of a new key, made of random bits.
    pub(super) fn pid(&self, random: u32) -> i32 {
        let client = match self.own {
            0 => random >> 1,
            own => (random >> (32 - CLIENT_BITS)) | u32::from(own) << CLIENT_BITS,
        };
        // Clients take the number for a process id and may print it: it is positive.
        client.max(1).cast_signed()
    }

    /// The router that has given out this number, if it is another one.
    pub(super) fn of(&self, pid: i32) -> Option<&Address> {
        let id = u16::try_from(pid >> CLIENT_BITS).ok()?;
        match self.own {
            0 => None,
            own if own == id => None,
            _ => self.others.get(&id),
        }
    }
}

/// The secret of a request, without the mark that it has been passed on, and whether it had one.
pub(super) fn unmarked(secret: &[u8]) -> (&[u8], bool) {
    match secret.strip_suffix(PASSED_ON) {
        Some(secret) => (secret, true),
        None => (secret, false),
    }
}

/// Passes a request on, by TLS if the peer speaks it, and waits until it has taken effect.
pub(super) async fn pass_on(peer: &Address, pid: i32, secret: &[u8]) {
    let secret = [secret, PASSED_ON].concat();
    let passed = timeout(LIMIT, send(peer, pid, &secret)).await;
    if let Err(error) = passed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        tracing::warn!(%error, %peer, "a cancel request was not passed on");
    }
}

async fn send(peer: &Address, pid: i32, secret: &[u8]) -> io::Result<()> {
    let tls = NodeTls::new(&switchyard_schema::NodeTls::default()).map_err(io::Error::other)?;
    let (socket, _) = Socket::connect(&peer.host, peer.port).await?;
    let stream = tls.wrap(socket, &peer.host).await?;
    hand_in(stream, pid, secret).await
}

#[cfg(test)]
mod tests {
    use switchyard_wire::startup::{StartupPacket, decode_startup};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn peers(own: u16) -> Peers {
        let address = |port| Address {
            host: "a".to_owned(),
            port,
        };
        Peers {
            own,
            others: [(1, address(1)), (2, address(2)), (1023, address(3))].into(),
        }
    }

    #[test]
    fn a_process_number_says_whose_it_is() {
        for own in [1, 2, 1023] {
            for random in [0, 1, 0x1234_5678, u32::MAX] {
                let pid = peers(own).pid(random);
                assert!(pid > 0);
                assert!(peers(own).of(pid).is_none());
                let port = peers(5).of(pid).map(|peer| peer.port);
                assert_eq!(port, Some(own.min(3)), "{own} {random}");
                assert!(peers(0).of(pid).is_none());
            }
        }
        assert!(peers(0).pid(0) > 0 && peers(0).pid(u32::MAX) > 0);
        assert!(peers(1).of(-1).is_none());
    }

    /// A peer that does not encrypt is asked whether it does, and then told in the clear.
    #[tokio::test]
    async fn a_peer_is_asked_for_tls_first() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = Address {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
        };
        let asked = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut packet = [0; 8];
            stream.read_exact(&mut packet).await.unwrap();
            assert_eq!(decode_startup(&packet[4..]), Ok(StartupPacket::Ssl));
            stream.write_all(b"N").await.unwrap();
            let mut packet = vec![0; 12 + 4 + PASSED_ON.len()];
            stream.read_exact(&mut packet).await.unwrap();
            match decode_startup(&packet[4..]) {
                Ok(StartupPacket::Cancel { pid: 7, secret }) => {
                    assert_eq!(unmarked(secret), (&b"abcd"[..], true));
                }
                other => panic!("{other:?}"),
            }
        };
        tokio::join!(pass_on(&peer, 7, b"abcd"), asked);
    }

    #[test]
    fn what_was_passed_on_is_known() {
        assert_eq!(unmarked(b"abcd"), (&b"abcd"[..], false));
        let marked = [b"abcd", PASSED_ON].concat();
        assert_eq!(unmarked(&marked), (&b"abcd"[..], true));
    }
}
