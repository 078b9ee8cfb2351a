//! A session at one server, for setting it up: a program started for each statement would take most of a cluster's start.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what a server may say at each point is a short list; all else is a protocol error"
)]

use std::io::{self, Read, Write};
use std::net::TcpStream;

use bytes::BytesMut;
use switchyard_wire::backend::{Authentication, Message, decode};
use switchyard_wire::frame;
use switchyard_wire::frontend::encode;
use switchyard_wire::scram::{ClientBinding, Nonce, ScramClient};
use switchyard_wire::startup::{self, ProtocolVersion};

use crate::{Error, Node};

/// Bytes that are asked for, or of COPY's data that are sent, at a time.
const PIECE: usize = 64 << 10;

/// Whom to log in as, and where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Login<'a> {
    pub(crate) node: &'a dyn Node,
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    pub(crate) database: &'a str,
}

/// A connection that is logged in. Blocking, without limits in time: what it asks takes as long as the server wants.
#[derive(Debug)]
pub(crate) struct Session {
    stream: TcpStream,
    received: BytesMut,
    server: String,
}

/// What ends an exchange.
enum Trouble {
    Io(io::Error),
    /// The server's own error, or what it should not have said.
    Refused(String),
}

impl Session {
    /// Logs in by SCRAM, a password in clear, or as is.
    pub(crate) fn open(login: Login<'_>) -> Result<Session, Error> {
        let server = login.node.name().to_owned();
        let reached = TcpStream::connect((login.node.host(), login.node.port()));
        let opened = reached.map_err(Trouble::Io).and_then(|stream| {
            // Small messages each wait for an answer.
            stream.set_nodelay(true)?;
            let mut session = Session {
                stream,
                received: BytesMut::with_capacity(PIECE),
                server: server.clone(),
            };
            session.log_in(login)?;
            Ok(session)
        });
        opened.map_err(|trouble| trouble.at(&server))
    }

    /// Runs SQL, which may be several statements in one transaction. Rows come back one per line, columns separated by `|`.
    pub(crate) fn run(&mut self, sql: &str) -> Result<String, Error> {
        self.copy(sql, b"")
    }

    /// The same, where the SQL has a COPY FROM STDIN whose data this is.
    pub(crate) fn copy(&mut self, sql: &str, data: &[u8]) -> Result<String, Error> {
        let mut output = BytesMut::new();
        encode::query(&mut output, sql.as_bytes());
        let rows = self.send(&output).and_then(|()| self.answer(data));
        rows.map_err(|trouble| trouble.at(&self.server))
    }

    fn log_in(&mut self, login: Login<'_>) -> Result<(), Trouble> {
        let mut output = BytesMut::new();
        let params = [("user", login.user), ("database", login.database)];
        let params = params.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        startup::encode::startup(&mut output, ProtocolVersion::V3_0, params);
        self.send(&output)?;
        loop {
            let message = self.receive()?;
            output.clear();
            match message.decode()? {
                Message::Authentication(Authentication::CleartextPassword) => {
                    encode::password(&mut output, login.password.as_bytes());
                    self.send(&output)?;
                }
                Message::Authentication(Authentication::Sasl(_)) => self.prove(login.password)?,
                Message::Authentication(Authentication::Ok)
                | Message::ParameterStatus { .. }
                | Message::BackendKeyData { .. }
                | Message::NoticeResponse(_) => {}
                Message::ReadyForQuery(_) => return Ok(()),
                other => return Err(other.into()),
            }
        }
    }

    fn prove(&mut self, password: &str) -> Result<(), Trouble> {
        let untrue = |error: &dyn std::fmt::Display| Trouble::Refused(error.to_string());
        let nonce = Nonce::random().map_err(|error| untrue(&error))?;
        let client = ScramClient::new("", nonce, ClientBinding::Unsupported);
        let mut output = BytesMut::new();
        let mechanism = client.mechanism().as_bytes();
        encode::sasl_initial_response(&mut output, mechanism, Some(client.message()));
        self.send(&output)?;
        let message = self.receive()?;
        let challenged = match message.decode()? {
            Message::Authentication(Authentication::SaslContinue(data)) => {
                client.server_first(data).map_err(|error| untrue(&error))?
            }
            other => return Err(other.into()),
        };
        let proof = challenged.prove_password(password);
        output.clear();
        encode::sasl_response(&mut output, proof.message());
        self.send(&output)?;
        let message = self.receive()?;
        match message.decode()? {
            Message::Authentication(Authentication::SaslFinal(data)) => {
                proof.server_final(data).map_err(|error| untrue(&error))
            }
            other => Err(other.into()),
        }
    }

    /// Reads until the next query may come.
    fn answer(&mut self, data: &[u8]) -> Result<String, Trouble> {
        let mut lines = Vec::new();
        let mut refused = None;
        loop {
            let message = self.receive()?;
            match message.decode()? {
                Message::DataRow(values) => {
                    let values: Vec<_> = values.iter().map(Option::unwrap_or_default).collect();
                    lines.extend_from_slice(&values.join(&b'|'));
                    lines.push(b'\n');
                }
                Message::CopyData(line) => lines.extend_from_slice(line),
                Message::CopyInResponse(_) => self.send_copy(data)?,
                Message::ErrorResponse(fields) => {
                    refused.get_or_insert(fields.message().into_owned());
                }
                Message::ReadyForQuery(_) => break,
                Message::RowDescription(_)
                | Message::CommandComplete { .. }
                | Message::EmptyQueryResponse
                | Message::CopyOutResponse(_)
                | Message::CopyDone
                | Message::NoticeResponse(_)
                | Message::NotificationResponse { .. }
                | Message::ParameterStatus { .. } => {}
                other => return Err(other.into()),
            }
        }
        match refused {
            Some(refused) => Err(Trouble::Refused(refused)),
            None => Ok(String::from_utf8_lossy(&lines).trim_end().to_owned()),
        }
    }

    fn send_copy(&mut self, data: &[u8]) -> Result<(), Trouble> {
        let mut output = BytesMut::with_capacity(PIECE + frame::HEADER);
        for piece in data.chunks(PIECE) {
            output.clear();
            encode::copy_data(&mut output, piece);
            self.send(&output)?;
        }
        output.clear();
        encode::copy_done(&mut output);
        self.send(&output)
    }

    fn send(&mut self, output: &[u8]) -> Result<(), Trouble> {
        Ok(self.stream.write_all(output)?)
    }

    fn receive(&mut self) -> Result<Received, Trouble> {
        loop {
            let header = frame::header(&self.received);
            let header = header.map_err(|error| Trouble::Refused(error.to_string()))?;
            if let Some(header) = header
                && self.received.len() >= header.len
            {
                let mut body = self.received.split_to(header.len);
                let body = body.split_off(frame::HEADER);
                let tag = header.tag;
                return Ok(Received { tag, body });
            }
            let kept = self.received.len();
            self.received.resize(kept + PIECE, 0);
            let read = self.stream.read(&mut self.received[kept..]);
            let read = read.inspect_err(|_| self.received.truncate(kept))?;
            self.received.truncate(kept + read);
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

/// A message as it has come.
struct Received {
    tag: u8,
    body: BytesMut,
}

impl Received {
    fn decode(&self) -> Result<Message<'_>, Trouble> {
        let decoded = decode(self.tag, &self.body);
        decoded.map_err(|error| Trouble::Refused(error.to_string()))
    }
}

impl Trouble {
    fn at(self, server: &str) -> Error {
        let server = server.to_owned();
        match self {
            Trouble::Io(source) => Error::Unreached { server, source },
            Trouble::Refused(message) => Error::Refused { server, message },
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Io(error)
    }
}

/// What a server says where something else is due.
impl From<Message<'_>> for Trouble {
    fn from(message: Message<'_>) -> Trouble {
        match message {
            Message::ErrorResponse(fields) => Trouble::Refused(fields.message().into_owned()),
            other => Trouble::Refused(format!("unexpected message {other:?}")),
        }
    }
}
