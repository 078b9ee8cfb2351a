//! A client that shows every message. Blocking; every read has a limit in time, so that a silent server fails the test.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use socket2::{Domain, Socket, Type};

use crate::reply::{Failure, Reader, Replies, Reply, text};

/// How long a server may be silent when an answer is due.
const SILENCE: Duration = Duration::from_secs(30);

/// Where and as whom to connect.
#[derive(Debug, Clone)]
pub struct Login {
    /// Port on 127.0.0.1.
    pub port: u16,
    /// The user.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The database.
    pub database: String,
    /// The address to connect from, one of the machine's own.
    pub from: Option<IpAddr>,
    /// More startup parameters.
    pub parameters: Vec<(String, String)>,
}

/// A message from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its type.
    pub tag: u8,
    /// What follows the length.
    pub body: Bytes,
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    received: BytesMut,
    /// What ParameterStatus said, the latest of each.
    pub parameters: BTreeMap<String, String>,
    /// Process number and secret of BackendKeyData.
    pub key: (i32, Vec<u8>),
    /// The transaction status of the last ReadyForQuery.
    pub status: u8,
    /// Notices since the last look.
    pub notices: Vec<Failure>,
}

impl Login {
    /// A login to the test's database as its owner.
    pub fn new(port: u16) -> Login {
        Login {
            port,
            user: switchyard_cluster::APP_USER.to_owned(),
            password: "secret".to_owned(),
            database: "shop".to_owned(),
            from: None,
            parameters: Vec::new(),
        }
    }

    /// From this address, such as 127.0.0.2.
    #[must_use]
    pub fn from(mut self, address: IpAddr) -> Login {
        self.from = Some(address);
        self
    }

    /// With one more startup parameter.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Login {
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }
}

fn connect_from(address: IpAddr, port: u16) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(address, 0).into())?;
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    Ok(socket.into())
}

impl Client {
    /// Connects and logs in; a failed test if that is not possible.
    #[track_caller]
    pub fn connect(login: &Login) -> Client {
        match Client::try_connect(login) {
            Ok(client) => client,
            Err(failure) => panic!("cannot log in: {failure:?}"),
        }
    }

    /// Connects and logs in, or says with what error the server refused.
    pub fn try_connect(login: &Login) -> Result<Client, Failure> {
        match Client::reach(login) {
            Ok(outcome) => outcome,
            Err(error) => panic!("cannot log in: {error}"),
        }
    }

    /// The same where the server may not be there, or die meanwhile.
    pub fn reach(login: &Login) -> std::io::Result<Result<Client, Failure>> {
        let stream = match login.from {
            Some(address) => connect_from(address, login.port),
            None => TcpStream::connect(("127.0.0.1", login.port)),
        };
        let mut client = Client::of(stream?);
        let user = [
            ("user", login.user.as_str()),
            ("database", login.database.as_str()),
        ];
        let more = login
            .parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let mut buffer = BytesMut::new();
        frontend::startup_message(user.into_iter().chain(more), &mut buffer)?;
        client.send_raw(&buffer)?;
        if let Err(failure) = client.authenticate(&login.password)? {
            return Ok(Err(failure));
        }
        loop {
            let message = client.receive_or_end()?;
            match message.tag {
                b'K' => {
                    let process = Reader(&message.body).i32();
                    client.key = (process, message.body[4..].to_vec());
                }
                b'E' => return Ok(Err(Failure::decode(&message.body))),
                b'Z' => return Ok(Ok(client)),
                _ => {}
            }
        }
    }

    /// A connection on which nothing has been said.
    pub fn open(port: u16) -> Client {
        Client::of(TcpStream::connect(("127.0.0.1", port)).unwrap())
    }

    fn of(stream: TcpStream) -> Client {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        let received = BytesMut::new();
        Client {
            stream,
            received,
            parameters: BTreeMap::new(),
            key: (0, Vec::new()),
            status: 0,
            notices: Vec::new(),
        }
    }

    fn authenticate(&mut self, password: &str) -> std::io::Result<Result<(), Failure>> {
        let mut scram: Option<ScramSha256> = None;
        loop {
            let message = self.receive_or_end()?;
            if message.tag == b'E' {
                return Ok(Err(Failure::decode(&message.body)));
            }
            assert_eq!(message.tag, b'R', "{message:?}");
            let mut body = Reader(&message.body);
            match (body.i32(), &mut scram) {
                (0, _) => return Ok(Ok(())),
                (10, _) => {
                    let state =
                        ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                    let first = state.message().to_vec();
                    let mut buffer = BytesMut::new();
                    frontend::sasl_initial_response(SCRAM_SHA_256, &first, &mut buffer)?;
                    self.send_raw(&buffer)?;
                    scram = Some(state);
                }
                (11, Some(state)) => {
                    state.update(body.0).unwrap();
                    let answer = state.message().to_vec();
                    let mut buffer = BytesMut::new();
                    frontend::sasl_response(&answer, &mut buffer)?;
                    self.send_raw(&buffer)?;
                }
                (12, Some(state)) => state.finish(body.0).unwrap(),
                (other, _) => panic!("authentication request {other} is not supported"),
            }
        }
    }

    /// Sends what `encode` writes.
    pub fn send(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        let mut buffer = BytesMut::new();
        encode(&mut buffer);
        self.send_raw(&buffer).unwrap();
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The next message; a failed test if the connection ends.
    #[track_caller]
    pub fn receive(&mut self) -> Message {
        match self.try_receive() {
            Ok(Some(message)) => message,
            Ok(None) => panic!("the server closed the connection"),
            Err(error) => panic!("no message: {error}"),
        }
    }

    fn receive_or_end(&mut self) -> std::io::Result<Message> {
        let message = self.try_receive()?;
        message.ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }

    /// The next message, none at the connection's end.
    pub fn try_receive(&mut self) -> std::io::Result<Option<Message>> {
        loop {
            if let Some(message) = self.buffered() {
                self.note(&message);
                return Ok(Some(message));
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                // The process was stopped and goes on.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn buffered(&mut self) -> Option<Message> {
        let header = self.received.get(..5)?;
        let length = Reader(&header[1..]).i32() as usize;
        if self.received.len() < 1 + length {
            return None;
        }
        let mut whole = self.received.split_to(1 + length).freeze();
        let tag = whole[0];
        Some(Message {
            tag,
            body: whole.split_off(5),
        })
    }

    fn note(&mut self, message: &Message) {
        match message.tag {
            b'S' => {
                let name = text(&message.body);
                let value = text(&message.body[name.len() + 1..]);
                self.parameters.insert(name, value);
            }
            b'Z' => self.status = message.body[0],
            b'N' => self.notices.push(Failure::decode(&message.body)),
            _ => {}
        }
    }

    /// Everything up to ReadyForQuery, as replies. COPY FROM STDIN is given `input`.
    pub fn replies(&mut self, input: Option<&[u8]>) -> Vec<Reply> {
        self.replies_to(input, false)
    }

    /// The same. By the extended protocol the server ignores a Sync that was sent before a COPY's data, and wants another.
    pub(crate) fn replies_to(&mut self, mut input: Option<&[u8]>, extended: bool) -> Vec<Reply> {
        let mut replies = Replies::default();
        loop {
            let message = self.receive();
            match message.tag {
                b'G' => {
                    let data = input.take();
                    self.send(|buffer| {
                        match data {
                            Some(data) => {
                                frontend::CopyData::new(data).unwrap().write(buffer);
                                frontend::copy_done(buffer);
                            }
                            None => frontend::copy_fail("no data", buffer).unwrap(),
                        }
                        if extended {
                            frontend::sync(buffer);
                        }
                    });
                }
                b'Z' => return replies.into_vec(),
                _ => replies.take(&message),
            }
        }
    }

    /// Runs one statement by the simple protocol; `None` if the connection ends before it is answered.
    pub fn try_run(&mut self, sql: &str) -> Option<Reply> {
        let mut buffer = BytesMut::new();
        frontend::query(sql, &mut buffer).unwrap();
        self.send_raw(&buffer).ok()?;
        let mut replies = Replies::default();
        while let Ok(Some(message)) = self.try_receive() {
            match message.tag {
                b'Z' => return replies.into_vec().pop(),
                _ => replies.take(&message),
            }
        }
        None
    }

    /// Runs SQL by the simple protocol: one reply per statement.
    pub fn simple(&mut self, sql: &str) -> Vec<Reply> {
        self.send(|buffer| frontend::query(sql, buffer).unwrap());
        self.replies(None)
    }

    /// Runs one statement by the simple protocol.
    #[track_caller]
    pub fn run(&mut self, sql: &str) -> Reply {
        let mut replies = self.simple(sql);
        assert_eq!(replies.len(), 1, "{sql}: {replies:?}");
        replies.remove(0)
    }

    /// Runs `COPY … FROM STDIN` with this data.
    #[track_caller]
    pub fn copy_in(&mut self, sql: &str, data: &[u8]) -> Reply {
        self.send(|buffer| frontend::query(sql, buffer).unwrap());
        let mut replies = self.replies(Some(data));
        assert_eq!(replies.len(), 1, "{sql}: {replies:?}");
        replies.remove(0)
    }

    /// A statement outside of blocks that fails with this SQLSTATE and message by either protocol; what is told by the extended one.
    #[track_caller]
    pub fn refused(&mut self, sql: &str, sqlstate: &str, message: &str) -> Failure {
        let of = |client: &mut Client, reply: Reply| {
            let failure = reply.failure.unwrap_or_else(|| panic!("{sql} is accepted"));
            assert_eq!(failure.sqlstate(), sqlstate, "{sql}: {failure:?}");
            assert_eq!(failure.message(), message, "{sql}");
            assert_eq!(client.status, b'I', "{sql}");
            failure
        };
        let simple = self.run(sql);
        let simple = of(self, simple);
        let extended = self.extended(sql, &[], 0);
        let extended = of(self, extended);
        for field in ['D', 'H'] {
            assert_eq!(simple.field(field), extended.field(field), "{sql}");
        }
        extended
    }

    /// Runs one statement by the extended protocol with the unnamed statement and portal, parameters in text, results in
    /// `format` (0 text, 1 binary).
    pub fn extended(&mut self, sql: &str, parameters: &[Option<&str>], format: i16) -> Reply {
        self.extended_with(sql, parameters, format, None)
    }

    /// The same with data for COPY FROM STDIN.
    pub fn extended_with(
        &mut self,
        sql: &str,
        parameters: &[Option<&str>],
        format: i16,
        input: Option<&[u8]>,
    ) -> Reply {
        self.send(|buffer| {
            frontend::parse("", sql, [], buffer).unwrap();
            bind("", "", parameters, format, buffer);
            frontend::describe(b'P', "", buffer).unwrap();
            frontend::execute("", 0, buffer).unwrap();
            frontend::sync(buffer);
        });
        let mut replies = self.replies_to(input, true);
        // What has run can still fail: its transaction ends with Sync.
        let failed_late = replies.len() == 2 && replies[1].failure.is_some();
        assert!(replies.len() <= 1 || failed_late, "{sql}: {replies:?}");
        replies.pop().unwrap_or_default()
    }

    /// The types PostgreSQL gives to the parameters of a statement, or its error.
    pub fn parameter_types(&mut self, sql: &str) -> Result<Vec<u32>, Failure> {
        self.send(|buffer| {
            frontend::parse("", sql, [], buffer).unwrap();
            frontend::describe(b'S', "", buffer).unwrap();
            frontend::sync(buffer);
        });
        let mut types = Ok(Vec::new());
        loop {
            let message = self.receive();
            match message.tag {
                b't' => {
                    let mut body = Reader(&message.body);
                    types = Ok((0..body.i16()).map(|_| body.i32() as u32).collect());
                }
                b'E' => types = Err(Failure::decode(&message.body)),
                b'Z' => return types,
                _ => {}
            }
        }
    }

    /// Asks the server on `port` to cancel what runs on the connection with this key.
    pub fn cancel(key: &(i32, Vec<u8>), port: u16) {
        let mut request = Client::open(port);
        let length = 12 + u32::try_from(key.1.len()).unwrap();
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(&80_877_102_u32.to_be_bytes());
        bytes.extend_from_slice(&key.0.to_be_bytes());
        bytes.extend_from_slice(&key.1);
        request.send_raw(&bytes).unwrap();
        assert_eq!(
            request.try_receive().unwrap(),
            None,
            "a cancel request has no answer"
        );
    }

    /// Says goodbye.
    pub fn terminate(mut self) {
        self.send(frontend::terminate);
    }
}

/// Encodes a Bind with parameters in text.
pub fn bind(
    portal: &str,
    statement: &str,
    parameters: &[Option<&str>],
    result_format: i16,
    buffer: &mut BytesMut,
) {
    let encoded = frontend::bind(
        portal,
        statement,
        [],
        parameters,
        |parameter, buffer| {
            Ok(match parameter {
                Some(text) => {
                    buffer.extend_from_slice(text.as_bytes());
                    postgres_protocol::IsNull::No
                }
                None => postgres_protocol::IsNull::Yes,
            })
        },
        [result_format],
        buffer,
    );
    if encoded.is_err() {
        panic!("these parameters cannot be sent: {parameters:?}");
    }
}
