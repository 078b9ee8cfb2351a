//! A TCP proxy whose connections break on demand.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;
use switchyard_cluster::Port;

/// How a proxy treats bytes and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Everything passes.
    Forward,
    /// Everything passes, this much later per piece of up to 8 kB.
    Slow(Duration),
    /// Connections are accepted and stay open; bytes wait, and pass when the mode changes.
    Stall,
    /// Connections are accepted and stay open; bytes are swallowed.
    BlackHole,
    /// Whatever the server says, the client hears this.
    Say(&'static [u8]),
    /// New connections are refused, as by a machine without the server. Existing ones go on.
    Refuse,
}

/// Where a proxy stops, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Before what has the word in it has passed.
    Before,
    /// After it has; its answer waits.
    After,
}

/// Forwards connections from a port of its own to another port of 127.0.0.1.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    target: u16,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    connections: Vec<Connection>,
    /// How many connections there have been.
    accepted: u64,
    /// Whether somebody listens; follows `mode` and `closing`.
    listening: bool,
    closing: bool,
    /// The word on its way to the server at which everything stops, and whether it has come.
    hold: Option<(&'static [u8], Hold)>,
    held: bool,
}

#[derive(Debug)]
struct Connection {
    number: u64,
    ends: [TcpStream; 2],
    /// How many directions have not ended.
    open: u8,
}

/// The most that passes at once.
const PIECE: usize = 8 * 1024;

impl Proxy {
    /// A proxy to a port of 127.0.0.1.
    pub fn to(target: u16) -> Proxy {
        let port = Port::any().unwrap();
        let state = State {
            mode: Mode::Forward,
            connections: Vec::new(),
            accepted: 0,
            listening: false,
            closing: false,
            hold: None,
            held: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            target,
        });
        let acceptor = {
            let (shared, port) = (Arc::clone(&shared), port.number());
            std::thread::spawn(move || accept(&shared, port))
        };
        let proxy = Proxy {
            port,
            shared,
            acceptor: Some(acceptor),
        };
        proxy.shared.wait_until(|state| state.listening);
        proxy
    }

    /// Its own port.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Changes the mode; in force when this returns.
    pub fn set(&self, mode: Mode) {
        self.shared.lock().mode = mode;
        self.shared.changed.notify_all();
        // The acceptor may wait for a connection: this one shows it the change.
        drop(TcpStream::connect(("127.0.0.1", self.port())));
        self.shared
            .wait_until(|state| state.listening == (state.mode != Mode::Refuse));
    }

    /// Breaks every connection there is with a reset.
    pub fn cut(&self) {
        self.shared.lock().cut();
    }

    /// Stalls as soon as this word is on its way to the server.
    pub fn hold_at(&self, word: &'static [u8], hold: Hold) {
        let mut state = self.shared.lock();
        state.hold = Some((word, hold));
        state.held = false;
    }

    /// Whether the word has come, so that it stalls.
    pub fn is_held(&self) -> bool {
        self.shared.lock().held
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.closing = true;
            state.cut();
        }
        self.shared.changed.notify_all();
        drop(TcpStream::connect(("127.0.0.1", self.port())));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl State {
    /// A direction of a connection has ended.
    fn ended(&mut self, number: u64) {
        self.connections.retain_mut(|connection| {
            connection.open -= u8::from(connection.number == number);
            connection.open > 0
        });
    }

    fn cut(&mut self) {
        for stream in self
            .connections
            .drain(..)
            .flat_map(|connection| connection.ends)
        {
            // Without lingering the close is a reset; the shutdown wakes whoever reads.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn wait_until(&self, condition: impl Fn(&State) -> bool) {
        let _state = self
            .changed
            .wait_while(self.lock(), |state| !condition(state))
            .unwrap();
    }

    fn set_listening(&self, listening: bool) {
        self.lock().listening = listening;
        self.changed.notify_all();
    }
}

fn accept(shared: &Arc<Shared>, port: u16) {
    loop {
        {
            let waiting = |state: &mut State| state.mode == Mode::Refuse && !state.closing;
            let state = shared.changed.wait_while(shared.lock(), waiting).unwrap();
            if state.closing {
                return;
            }
        }
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        shared.set_listening(true);
        for stream in listener.incoming() {
            let state = shared.lock();
            if state.closing || state.mode == Mode::Refuse {
                break;
            }
            drop(state);
            if let Ok(client) = stream {
                forward(shared, client);
            }
        }
        // A process that is being started beside has the socket, too, until it runs its own program.
        SockRef::from(&listener).shutdown(Shutdown::Read).unwrap();
        drop(listener);
        shared.set_listening(false);
    }
}

/// Connects to the target and starts a thread for each direction.
fn forward(shared: &Arc<Shared>, client: TcpStream) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", shared.target)) else {
        return;
    };
    let clone = |stream: &TcpStream| stream.try_clone().unwrap();
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    let number = {
        let mut state = shared.lock();
        state.accepted += 1;
        let number = state.accepted;
        state.connections.push(Connection {
            number,
            ends: [clone(&client), clone(&server)],
            open: 2,
        });
        number
    };
    for (from, to, downstream) in [
        (clone(&client), clone(&server), false),
        (server, client, true),
    ] {
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            pump(&shared, from, to, downstream);
            shared.lock().ended(number);
        });
    }
}

/// Moves bytes one way until an end closes, then closes the other end.
fn pump(shared: &Shared, mut from: TcpStream, mut to: TcpStream, downstream: bool) {
    let mut piece = [0; PIECE];
    loop {
        let count = match from.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let Some(bytes) = admit(shared, &piece[..count], downstream) else {
            continue;
        };
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// What of these bytes may pass, once they may. None: they are swallowed.
fn admit<'a>(shared: &Shared, bytes: &'a [u8], downstream: bool) -> Option<&'a [u8]> {
    let stalled = |state: &mut State| state.mode == Mode::Stall && !state.closing;
    let mut state = shared.lock();
    if let (false, Some((word, hold))) = (downstream, state.hold)
        && bytes.windows(word.len()).any(|part| part == word)
    {
        state.hold = None;
        state.held = true;
        state.mode = Mode::Stall;
        shared.changed.notify_all();
        if hold == Hold::After {
            return Some(bytes);
        }
    }
    let state = shared.changed.wait_while(state, stalled).unwrap();
    let mode = state.mode;
    drop(state);
    match mode {
        Mode::BlackHole => None,
        Mode::Say(instead) if downstream => Some(instead),
        Mode::Slow(delay) => {
            std::thread::sleep(delay);
            Some(bytes)
        }
        Mode::Forward | Mode::Stall | Mode::Refuse | Mode::Say(_) => Some(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// A server that sends back what it gets.
    fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut copy = stream.try_clone().unwrap();
                    let _ = std::io::copy(&mut copy, &mut stream);
                });
            }
        });
        port
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
    }

    fn say(stream: &mut TcpStream, word: &[u8]) {
        stream.write_all(word).unwrap();
        let mut answer = vec![0; word.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, word);
    }

    #[test]
    fn bytes_pass_and_the_end_passes() {
        let proxy = Proxy::to(echo());
        let mut stream = connect(&proxy);
        say(&mut stream, b"hello");
        assert_eq!(proxy.connections(), 1);
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        crate::eventually("forgotten", || proxy.connections() == 0);
    }

    #[test]
    fn a_cut_resets_connections_and_new_ones_work() {
        let proxy = Proxy::to(echo());
        let mut stream = connect(&proxy);
        say(&mut stream, b"hello");
        proxy.cut();
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
        say(&mut connect(&proxy), b"again");
    }

    #[test]
    fn stalled_bytes_arrive_later_and_swallowed_ones_never() {
        let proxy = Proxy::to(echo());
        let mut stream = connect(&proxy);
        say(&mut stream, b"hello");
        proxy.set(Mode::BlackHole);
        stream.write_all(b"lost").unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        assert!(stream.read(&mut [0; 8]).is_err());
        proxy.set(Mode::Stall);
        stream.write_all(b"late").unwrap();
        assert!(stream.read(&mut [0; 8]).is_err());
        proxy.set(Mode::Forward);
        let mut answer = [0; 4];
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"late");
    }

    #[test]
    fn a_slow_proxy_takes_its_time() {
        let proxy = Proxy::to(echo());
        proxy.set(Mode::Slow(Duration::from_millis(50)));
        let begin = Instant::now();
        say(&mut connect(&proxy), b"hello");
        assert!(
            begin.elapsed() >= Duration::from_millis(100),
            "once each way"
        );
    }

    #[test]
    fn connections_are_refused_until_they_are_not() {
        let proxy = Proxy::to(echo());
        let mut old = connect(&proxy);
        say(&mut old, b"hello");
        proxy.set(Mode::Refuse);
        let refused = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        say(&mut old, b"still");
        proxy.set(Mode::Forward);
        say(&mut connect(&proxy), b"again");
    }
}
