//! TLS towards nodes.

use std::io;

use tokio::net::TcpStream;

use crate::backend::BackendStream;

/// How connections to nodes are encrypted.
#[derive(Debug, Clone, Default)]
pub enum NodeTls {
    /// Not at all.
    #[default]
    Disabled,
}

impl NodeTls {
    /// Encrypts a fresh connection as configured.
    ///
    /// # Errors
    /// The handshake's.
    pub async fn wrap(&self, socket: TcpStream, host: &str) -> io::Result<BackendStream> {
        let _ = host;
        match self {
            Self::Disabled => Ok(BackendStream::Plain(socket)),
        }
    }
}
