//! A client that can log in where no password is asked for, and run a statement. pgbench does everything else.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::BytesMut;
use switchyard_wire::startup::{self, ProtocolVersion};
use switchyard_wire::{frame, frontend};

/// One connection, logged in and idle.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
}

impl Client {
    /// Logs in.
    pub(crate) fn login(port: u16, user: &str, database: &str) -> io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut packet = BytesMut::new();
        let parameters = [("user", user), ("database", database)];
        startup::encode::startup(
            &mut packet,
            ProtocolVersion::V3_0,
            parameters.map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        );
        let mut client = Client { stream };
        client.stream.write_all(&packet)?;
        client.until_ready()?;
        Ok(client)
    }

    /// Runs a statement and forgets its result.
    pub(crate) fn run(&mut self, sql: &str) -> io::Result<()> {
        let mut message = BytesMut::new();
        frontend::encode::query(&mut message, sql.as_bytes());
        self.stream.write_all(&message)?;
        self.until_ready()
    }

    /// Reads up to ReadyForQuery; an ErrorResponse on the way is an error.
    fn until_ready(&mut self) -> io::Result<()> {
        loop {
            let mut header = [0; frame::HEADER];
            self.stream.read_exact(&mut header)?;
            let header = match frame::header(&header) {
                Ok(Some(header)) => header,
                Ok(None) => return Err(ErrorKind::UnexpectedEof.into()),
                Err(error) => return Err(io::Error::new(ErrorKind::InvalidData, error)),
            };
            let mut body = vec![0; header.body_len()];
            self.stream.read_exact(&mut body)?;
            match header.tag {
                b'Z' => return Ok(()),
                b'E' => {
                    let text = String::from_utf8_lossy(&body).replace('\0', " ");
                    return Err(io::Error::other(text));
                }
                _ => {}
            }
        }
    }
}
