//! What is listened on: a TCP port, and a Unix socket beside it.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use switchyard_schema::Address;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

/// Connections the system may keep for us before we accept them.
const BACKLOG: u32 = 1024;
/// As PostgreSQL's `unix_socket_permissions`: everybody may connect. The directory may say otherwise.
const MODE: u32 = 0o777;

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// On a TCP port.
    Tcp(TcpListener),
    /// On a Unix socket, whose file goes with it.
    Unix(UnixListener, SocketFile),
}

/// A connection just accepted, on its way to the reactor of its worker.
#[derive(Debug)]
pub enum Accepted {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

impl Listener {
    /// The next connection.
    ///
    /// # Errors
    /// The system's.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => listener.accept().await?.0.into_std().map(Accepted::Tcp),
            Self::Unix(listener, _) => listener.accept().await?.0.into_std().map(Accepted::Unix),
        }
    }
}

impl Listener {
    /// Closes the socket. Those that have connected and not been accepted yet, whom the system would reset.
    ///
    /// # Errors
    /// The system's.
    pub fn close(self) -> io::Result<Vec<Accepted>> {
        let mut last = Vec::new();
        match self {
            Self::Tcp(listener) => {
                let listener = listener.into_std()?;
                // No more than the system keeps, however many go on coming.
                while last.len() < BACKLOG as usize
                    && let Ok((stream, _)) = listener.accept()
                {
                    stream.set_nonblocking(true)?;
                    last.push(Accepted::Tcp(stream));
                }
            }
            Self::Unix(listener, _file) => {
                let listener = listener.into_std()?;
                while last.len() < BACKLOG as usize
                    && let Ok((stream, _)) = listener.accept()
                {
                    stream.set_nonblocking(true)?;
                    last.push(Accepted::Unix(stream));
                }
            }
        }
        Ok(last)
    }
}

/// Listens, with `shared` beside others that do so on the same port. Must be called within a runtime, the one that will accept.
///
/// # Errors
/// The host has no address, or none of them can be listened on.
pub async fn bind(address: &Address, shared: bool) -> io::Result<TcpListener> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for found in tokio::net::lookup_host((address.host.as_str(), address.port)).await? {
        match bind_one(found, shared) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn bind_one(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A router that starts again right away must not wait for the connections of the one before to be forgotten.
    socket.set_reuseaddr(true)?;
    if shared {
        socket.set_reuseport(true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Listens on a Unix socket. A file that a dead server left behind is replaced; one at which somebody answers is not, nor
/// is one that is no socket. Must be called within a runtime.
///
/// # Errors
/// The system's; [`io::ErrorKind::AddrInUse`] if somebody listens there.
pub fn bind_unix(path: &Path) -> io::Result<Listener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        outcome => outcome?,
    };
    let file = SocketFile::new(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
    Ok(Listener::Unix(listener, file))
}

fn is_left_behind(path: &Path) -> bool {
    let is_socket = path
        .symlink_metadata()
        .is_ok_and(|found| found.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && std::os::unix::net::UnixStream::connect(path).is_err_and(refused)
}

/// The file of a Unix socket, until dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another server's may have taken its place; that one stays.
        if identity(&self.path).is_ok_and(|found| found == self.identity)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the Unix socket");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = path.symlink_metadata()?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_goes_with_its_listener_and_what_a_dead_server_left_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".s.PGSQL.1");
        let listener = bind_unix(&path).unwrap();
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o777);
        let second = bind_unix(&path).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(!path.exists());

        // A server that was killed leaves its file.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = bind_unix(&path).unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();

        // One whose file was taken away leaves the next one's alone.
        std::fs::remove_file(&path).unwrap();
        let next = bind_unix(&path).unwrap();
        drop(listener);
        assert!(path.exists());
        drop(next);

        std::fs::write(&path, "precious").unwrap();
        assert!(bind_unix(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
