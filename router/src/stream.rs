//! The stream of a connection, to a client or to a node: TCP or a Unix socket, plain or TLS.
//!
//! Invariant: which of them it is is known by a match, not by a pointer: what is written and read on the path of a query
//! goes to the socket directly.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::BytesMut;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::pki_types::CertificateDer;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use crate::buffers::make_room;

/// What is read first, into memory that is warm. A message that is larger is read on into its own.
const FIRST: usize = 4 << 10;

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// On a port.
    Tcp(SocketAddr),
    /// On a Unix socket.
    Unix(PathBuf),
}

/// A stream: plain or TLS.
#[derive(Debug)]
pub enum Stream<S = Socket> {
    /// Unencrypted.
    Plain(S),
    /// Encrypted; boxed, for its buffers are large and most streams are plain.
    Tls(Box<TlsStream<S>>),
}

/// The Unix socket in `directory` that belongs to a port, by PostgreSQL's naming.
#[must_use]
pub fn unix_socket(directory: &Path, port: u16) -> PathBuf {
    directory.join(format!(".s.PGSQL.{port}"))
}

impl Endpoint {
    /// Connects to the same server once more.
    ///
    /// # Errors
    /// The system's.
    pub async fn connect(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(address) => TcpStream::connect(address).await.map(Socket::Tcp),
            Self::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
        }
    }
}

impl Socket {
    /// Connects to a host, or to the Unix socket in a directory, as libpq tells them apart.
    ///
    /// # Errors
    /// The system's.
    pub async fn connect(host: &str, port: u16) -> io::Result<(Self, Endpoint)> {
        if host.starts_with('/') {
            let endpoint = Endpoint::Unix(unix_socket(Path::new(host), port));
            return Ok((endpoint.connect().await?, endpoint));
        }
        let stream = TcpStream::connect((host, port)).await?;
        let endpoint = Endpoint::Tcp(stream.peer_addr()?);
        Ok((Self::Tcp(stream), endpoint))
    }

    /// Whether what is said on it stays on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// For settings of the system's.
    #[must_use]
    pub fn reference(&self) -> SockRef<'_> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream),
            Self::Unix(stream) => SockRef::from(stream),
        }
    }

    fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(context),
            Self::Unix(stream) => stream.poll_read_ready(context),
        }
    }

    /// Reads what has come, as much as fits.
    fn try_receive<'a>(&self, room: &'a mut [MaybeUninit<u8>]) -> io::Result<&'a [u8]> {
        let mut received = None;
        let readable = Interest::READABLE;
        let outcome = match self {
            Self::Tcp(stream) => stream.try_io(readable, || receive(stream, room, &mut received)),
            Self::Unix(stream) => stream.try_io(readable, || receive(stream, room, &mut received)),
        };
        match received {
            Some(bytes) => Ok(bytes),
            None => outcome.map(|()| <&[u8]>::default()),
        }
    }

    /// Reads what else has come, as much as `input` has room for: how much. An error, or the end, is met by the next who reads.
    fn try_read_more(&self, input: &mut BytesMut) -> usize {
        let (before, room) = (input.len(), input.capacity() - input.len());
        let readable = Interest::READABLE;
        let _ = match self {
            Self::Tcp(stream) => {
                stream.try_io(readable, || all_of(stream.try_read_buf(input)?, room))
            }
            Self::Unix(stream) => {
                stream.try_io(readable, || all_of(stream.try_read_buf(input)?, room))
            }
        };
        input.len() - before
    }

    /// By the system call itself: the C library's is a point of cancellation, which costs two locked instructions.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL;
        match self {
            Self::Tcp(stream) => {
                stream.try_io(Interest::WRITABLE, || Ok(send(stream, bytes, flags)?))
            }
            Self::Unix(stream) => {
                stream.try_io(Interest::WRITABLE, || Ok(send(stream, bytes, flags)?))
            }
        }
    }
}

/// Reads from a socket, by the system call itself. What is read is in `received` even where the outcome is that it would block, by which
/// Tokio learns that the socket has no more: it has not where the room is not filled (epoll(7), "Questions and answers", 9).
fn receive<'a>(
    socket: impl AsFd,
    room: &'a mut [MaybeUninit<u8>],
    received: &mut Option<&'a [u8]>,
) -> io::Result<()> {
    let size = room.len();
    let ((bytes, _), count) = recv(socket, room, RecvFlags::empty())?;
    *received = Some(bytes);
    all_of(count, size)
}

/// What Tokio is told of a read of so many bytes into so much room: that it would block, where that was all there is.
fn all_of(count: usize, room: usize) -> io::Result<()> {
    match (1..room).contains(&count) {
        true => Err(io::ErrorKind::WouldBlock.into()),
        false => Ok(()),
    }
}

impl<S> Stream<S> {
    /// Whether it is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The certificate the other side has shown, if there is TLS and it has one.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.peer_certificates()?.first(),
        }
    }

    fn socket(&self) -> &S {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl Stream {
    /// Waits until a read may find something, without a buffer to read into.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(socket) => socket.poll_read_ready(context).map(|_| ()),
            // Decrypted bytes may be waiting inside.
            Self::Tls(_) => Poll::Ready(()),
        }
    }

    /// Reads more into `input`, which it makes room in. How many bytes; 0 at the end of the stream.
    ///
    /// Small messages come by way of the stack, which is warm, and cost less than by Tokio's own way to read: the socket is known to have
    /// no more once a read has not filled its room.
    pub fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        input: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        if let Self::Plain(socket) = self {
            let mut room = [const { MaybeUninit::uninit() }; FIRST];
            match socket.try_receive(&mut room) {
                Ok(bytes) => {
                    make_room(input);
                    input.extend_from_slice(bytes);
                    if bytes.len() < FIRST {
                        return Poll::Ready(Ok(bytes.len()));
                    }
                    return Poll::Ready(Ok(FIRST + socket.try_read_more(input)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        make_room(input);
        pin!(self.read_buf(input)).poll(context)
    }

    /// Whether the socket is known to have bytes, an end of stream or an error waiting. Costs no system call: it looks at
    /// the readiness that the reactor found last.
    #[must_use]
    pub fn has_input(&self) -> bool {
        let look = || Ok(());
        let looked = match self.socket() {
            Socket::Tcp(socket) => socket.try_io(Interest::READABLE, look),
            Socket::Unix(socket) => socket.try_io(Interest::READABLE, look),
        };
        looked.is_ok()
    }

    /// Writes what a plain socket takes at once. TLS must be polled.
    ///
    /// # Errors
    /// The socket's; [`io::ErrorKind::WouldBlock`] if it takes nothing now.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_write(bytes),
            Self::Tls(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// Hands the polls of [`AsyncRead`] and [`AsyncWrite`] to whichever of two streams it is.
macro_rules! either {
    ([$($bounds:tt)*] $type:ty: $first:ident, $second:ident) => {
        impl<$($bounds)*> AsyncRead for $type {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::$first(stream) => Pin::new(stream).poll_read(context, buffer),
                    Self::$second(stream) => Pin::new(stream).poll_read(context, buffer),
                }
            }
        }

        impl<$($bounds)*> AsyncWrite for $type {
            fn poll_write(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::$first(stream) => Pin::new(stream).poll_write(context, bytes),
                    Self::$second(stream) => Pin::new(stream).poll_write(context, bytes),
                }
            }

            fn poll_flush(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::$first(stream) => Pin::new(stream).poll_flush(context),
                    Self::$second(stream) => Pin::new(stream).poll_flush(context),
                }
            }

            fn poll_shutdown(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::$first(stream) => Pin::new(stream).poll_shutdown(context),
                    Self::$second(stream) => Pin::new(stream).poll_shutdown(context),
                }
            }
        }
    };
}

either!([] Socket: Tcp, Unix);
either!([S: AsyncRead + AsyncWrite + Unpin] Stream<S>: Plain, Tls);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// However much comes at a time, all of it is read, in order, and its end is seen.
    #[tokio::test]
    async fn what_comes_is_received_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sizes = [1, FIRST - 1, 1, FIRST, FIRST, FIRST + 1, 100_000, 7];
        let sent: Vec<u8> = (0..sizes.iter().sum()).map(|at| (at % 251) as u8).collect();
        let mut received = BytesMut::new();
        let (mut sender, receiver) = tokio::join!(TcpStream::connect(address), listener.accept());
        let mut stream = Stream::Plain(Socket::Tcp(receiver.unwrap().0));
        let mut rest = &sent[..];
        for size in sizes {
            let (part, behind) = rest.split_at(size);
            rest = behind;
            sender.as_mut().unwrap().write_all(part).await.unwrap();
            let due = received.len() + size;
            while received.len() < due {
                let count = poll_fn(|context| stream.poll_receive(context, &mut received)).await;
                assert!(count.unwrap() > 0);
            }
        }
        drop(sender);
        let end = poll_fn(|context| stream.poll_receive(context, &mut received)).await;
        assert_eq!(end.unwrap(), 0);
        assert!(received == sent);
    }
}
