//! A client that can log in and run a statement. pgbench does everything else.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::BytesMut;
use switchyard_wire::backend::{Authentication, Message, decode, tag};
use switchyard_wire::scram::{ClientBinding, Nonce, ScramClient};
use switchyard_wire::startup::{self, ProtocolVersion};
use switchyard_wire::{frame, frontend};

use crate::pgbench::PASSWORD;

/// One connection, logged in and idle.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
}

impl Client {
    /// Logs in, with the password of everybody here if one is asked for.
    pub(crate) fn login(port: u16, user: &str, database: &str) -> io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let mut client = Client { stream };
        client.set_patience(Duration::from_secs(10))?;
        let mut packet = BytesMut::new();
        let parameters = [("user", user), ("database", database)];
        startup::encode::startup(
            &mut packet,
            ProtocolVersion::V3_0,
            parameters.map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        );
        client.stream.write_all(&packet)?;
        client.authenticate()?;
        client.until_ready(|_| {})?;
        Ok(client)
    }

    /// Says how long the server may be silent when an answer is due.
    pub(crate) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(patience))
    }

    /// Runs a statement and forgets its result.
    pub(crate) fn run(&mut self, sql: &str) -> io::Result<()> {
        self.send(sql)?;
        self.until_ready(|_| {})
    }

    /// Runs a statement and returns its rows as they came.
    pub(crate) fn rows(&mut self, sql: &str) -> io::Result<Vec<Vec<u8>>> {
        let mut rows = Vec::new();
        self.send(sql)?;
        self.until_ready(|row| rows.push(row))?;
        Ok(rows)
    }

    /// Runs a COPY FROM STDIN with this data.
    pub(crate) fn copy_in<'a>(
        &mut self,
        sql: &str,
        data: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        self.set_patience(Duration::from_secs(120))?;
        self.send(sql)?;
        match self.message()? {
            (b'G', _) => {}
            (tag::ERROR_RESPONSE, body) => return Err(refused(&body)),
            (_, body) => return Err(unexpected("answer to COPY", &body)),
        }
        let mut message = BytesMut::new();
        for piece in data {
            message.clear();
            frontend::encode::copy_data(&mut message, piece);
            self.stream.write_all(&message)?;
        }
        message.clear();
        frontend::encode::copy_done(&mut message);
        self.stream.write_all(&message)?;
        self.until_ready(|_| {})
    }

    fn send(&mut self, sql: &str) -> io::Result<()> {
        let mut message = BytesMut::new();
        frontend::encode::query(&mut message, sql.as_bytes());
        self.stream.write_all(&message)
    }

    /// Proves that we know the password, if the server wants to know.
    fn authenticate(&mut self) -> io::Result<()> {
        let Some(demand) = self.demand()? else {
            return Ok(());
        };
        let nonce = Nonce::random().map_err(|error| io::Error::other(error.to_string()))?;
        let scram = ScramClient::new("", nonce, ClientBinding::Unsupported);
        let mechanism = scram.mechanism().as_bytes();
        let offered = match decode(tag::AUTHENTICATION, &demand) {
            Ok(Message::Authentication(Authentication::Sasl(offered))) => offered,
            _ => return Err(unexpected("demand for a password", &demand)),
        };
        if !offered.iter().any(|name| name == mechanism) {
            return Err(unexpected("choice of mechanisms", &demand));
        }
        let mut answer = BytesMut::new();
        frontend::encode::sasl_initial_response(&mut answer, mechanism, Some(scram.message()));
        self.stream.write_all(&answer)?;
        let demand = self.demand()?.unwrap_or_default();
        let challenged = match decode(tag::AUTHENTICATION, &demand) {
            Ok(Message::Authentication(Authentication::SaslContinue(data))) => {
                scram.server_first(data).map_err(invalid)?
            }
            _ => return Err(unexpected("challenge", &demand)),
        };
        let proof = challenged.prove_password(PASSWORD);
        answer.clear();
        frontend::encode::sasl_response(&mut answer, proof.message());
        self.stream.write_all(&answer)?;
        let demand = self.demand()?.unwrap_or_default();
        match decode(tag::AUTHENTICATION, &demand) {
            Ok(Message::Authentication(Authentication::SaslFinal(data))) => {
                proof.server_final(data).map_err(invalid)?;
            }
            _ => return Err(unexpected("last word on the password", &demand)),
        }
        match self.demand()? {
            None => Ok(()),
            Some(demand) => Err(unexpected("further demand", &demand)),
        }
    }

    /// What the server wants next before it lets us in; none: it does.
    fn demand(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.message()? {
            (tag::AUTHENTICATION, body) if body == [0; 4] => Ok(None),
            (tag::AUTHENTICATION, body) => Ok(Some(body)),
            (tag::ERROR_RESPONSE, body) => Err(refused(&body)),
            (_, body) => Err(unexpected("message before the login", &body)),
        }
    }

    /// Reads up to ReadyForQuery; an ErrorResponse on the way is an error.
    fn until_ready(&mut self, mut row: impl FnMut(Vec<u8>)) -> io::Result<()> {
        let mut failed = None;
        loop {
            match self.message() {
                Ok((tag::READY_FOR_QUERY, _)) => return failed.map_or(Ok(()), Err),
                Ok((tag::ERROR_RESPONSE, body)) => failed = Some(refused(&body)),
                Ok((tag::DATA_ROW, body)) => row(body),
                Ok(_) => {}
                // After a FATAL error there is nothing more to read.
                Err(error) => return Err(failed.unwrap_or(error)),
            }
        }
    }

    fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut header = [0; frame::HEADER];
        self.stream.read_exact(&mut header)?;
        let header = match frame::header(&header) {
            Ok(Some(header)) => header,
            Ok(None) => return Err(ErrorKind::UnexpectedEof.into()),
            Err(error) => return Err(invalid(error)),
        };
        let mut body = vec![0; header.body_len()];
        self.stream.read_exact(&mut body)?;
        Ok((header.tag, body))
    }
}

/// What an ErrorResponse says.
fn refused(body: &[u8]) -> io::Error {
    match decode(tag::ERROR_RESPONSE, body) {
        Ok(Message::ErrorResponse(fields)) => {
            let code = String::from_utf8_lossy(fields.get(b'C').unwrap_or_default());
            io::Error::other(format!("{code}: {}", fields.message()))
        }
        _ => unexpected("error", body),
    }
}

fn unexpected(what: &str, body: &[u8]) -> io::Error {
    let body = String::from_utf8_lossy(body);
    invalid(format!("not the usual {what}: {body:?}"))
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}
