//! Loopback ports that stay ours between choosing them and using them.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use socket2::{Domain, Socket, Type};

use crate::Error;

/// A port of 127.0.0.1 that nobody else gets while this value lives.
///
/// A socket stays bound to it but never listens. It was bound without `SO_REUSEADDR`, so that it failed if anybody was
/// there; the option is set afterwards, so that a server (which sets it too) can bind and listen beside it, while other
/// programs that look for a free port, and outgoing connections, keep away.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _held: Socket,
}

impl Port {
    /// Holds some free port.
    pub fn any() -> Result<Port, Error> {
        Port::bind(0)
    }

    /// Holds this very port, or says that it is taken.
    pub fn exactly(number: u16) -> Result<Port, Error> {
        Port::bind(number)
    }

    /// Holds this port if it is free, else any.
    pub fn preferably(number: u16) -> Result<Port, Error> {
        Port::bind(number).or_else(|_| Port::any())
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    fn bind(number: u16) -> Result<Port, Error> {
        let failed = |source: std::io::Error| {
            if source.kind() == ErrorKind::AddrInUse {
                return Error::PortTaken { port: number };
            }
            Error::Io {
                action: "hold a port on",
                path: "127.0.0.1".into(),
                source,
            }
        };
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(failed)?;
        let address: SocketAddr = SocketAddrV4::new(Ipv4Addr::LOCALHOST, number).into();
        socket.bind(&address.into()).map_err(failed)?;
        socket.set_reuse_address(true).map_err(failed)?;
        let bound = socket
            .local_addr()
            .map_err(failed)?
            .as_socket()
            .map_or(number, |address| address.port());
        Ok(Port {
            number: bound,
            _held: socket,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_held_port_is_refused_to_others_who_look_for_one() {
        let held = Port::any().unwrap();
        assert!(
            matches!(Port::exactly(held.number()), Err(Error::PortTaken { port }) if port == held.number())
        );
        assert_ne!(
            Port::preferably(held.number()).unwrap().number(),
            held.number()
        );
    }

    #[test]
    fn a_server_can_listen_on_a_held_port_again_and_again() {
        let held = Port::any().unwrap();
        for _ in 0..3 {
            let listener = TcpListener::bind(("127.0.0.1", held.number())).unwrap(); // sets SO_REUSEADDR, as PostgreSQL
            TcpStream::connect(("127.0.0.1", held.number())).unwrap();
            drop(listener);
            // A child of another test that has not yet executed its program may hold the listener for a moment.
            while TcpStream::connect(("127.0.0.1", held.number())).is_ok() {}
        }
    }

    #[test]
    fn a_port_in_use_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = Port::exactly(port).unwrap_err().to_string();
        assert!(error.contains(&port.to_string()), "{error}");
    }
}
