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
        Port::bind(0, false).map_err(|source| Port::failed(0, source))
    }

    /// Holds this very port, or says that it is taken. Connections that ended a moment ago do not take it, so that a server
    /// can return to its port.
    pub fn exactly(number: u16) -> Result<Port, Error> {
        Port::bind(number, false)
            .or_else(|_| Port::bind(number, true))
            .map_err(|source| Port::failed(number, source))
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    fn bind(number: u16, reuse: bool) -> std::io::Result<Port> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let address: SocketAddr = SocketAddrV4::new(Ipv4Addr::LOCALHOST, number).into();
        socket.set_reuse_address(reuse)?;
        socket.bind(&address.into())?;
        socket.set_reuse_address(true)?;
        let bound = socket.local_addr()?.as_socket();
        Ok(Port {
            number: bound.map_or(number, |address| address.port()),
            _held: socket,
        })
    }

    fn failed(port: u16, source: std::io::Error) -> Error {
        if source.kind() == ErrorKind::AddrInUse {
            return Error::PortTaken { port };
        }
        Error::Io {
            action: "hold a port on",
            path: "127.0.0.1".into(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_held_port_is_refused_to_others_who_look_for_one() {
        let held = Port::any().unwrap();
        assert!(Port::bind(held.number(), false).is_err());
        let others: Vec<Port> = (0..100).map(|_| Port::any().unwrap()).collect();
        assert!(others.iter().all(|other| other.number() != held.number()));
    }

    #[test]
    fn a_server_returns_to_a_port_whose_last_connections_linger() {
        let held = Port::any().unwrap();
        let number = held.number();
        let listener = TcpListener::bind(("127.0.0.1", number)).unwrap();
        let client = TcpStream::connect(("127.0.0.1", number)).unwrap();
        drop(listener.accept().unwrap()); // who closes first waits
        drop((client, listener, held));
        // A child of another test that has not yet executed its program may hold the listener for a moment.
        while TcpStream::connect(("127.0.0.1", number)).is_ok() {}
        assert!(Port::bind(number, false).is_err(), "the connection lingers");
        assert_eq!(Port::exactly(number).unwrap().number(), number);
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
