//! TLS towards nodes: we are the client, by libpq's `sslmode`.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use switchyard_schema::SslMode;
use switchyard_wire::frontend::encode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{TlsError, authorities, provider};
use crate::startup::negotiate::ALPN;

/// How connections to nodes are encrypted.
#[derive(Clone, Default)]
pub enum NodeTls {
    /// Not at all.
    #[default]
    Disabled,
    /// If the node can.
    Preferred(Arc<ClientConfig>),
    /// Always.
    Required(Arc<ClientConfig>),
}

impl std::fmt::Debug for NodeTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Disabled => "Disabled",
            Self::Preferred(_) => "Preferred",
            Self::Required(_) => "Required",
        })
    }
}

impl NodeTls {
    /// Makes the configuration ready: reads the authorities.
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn new(configured: &switchyard_schema::NodeTls) -> Result<Self, TlsError> {
        let root = configured.root_cert.as_ref();
        let check = match (configured.mode, root) {
            (SslMode::Disable, _) => return Ok(Self::Disabled),
            (SslMode::Prefer, _) | (SslMode::Require, None) => Check::Nothing,
            // With an authority at hand libpq takes `require` for `verify-ca`.
            (SslMode::Require | SslMode::VerifyCa, Some(path)) => {
                Check::Authority(authorities(path)?)
            }
            (SslMode::VerifyFull, Some(path)) => Check::Host(authorities(path)?),
            (SslMode::VerifyCa, None) => return Err(TlsError::NoAuthority("sslmode verify-ca")),
            (SslMode::VerifyFull, None) => {
                return Err(TlsError::NoAuthority("sslmode verify-full"));
            }
        };
        let wrong = |reason: String| TlsError::File {
            path: root.cloned().unwrap_or_default(),
            reason,
        };
        let provider = provider();
        let verifier = NodeVerifier::new(check, &provider).map_err(wrong)?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        let config = Arc::new(config);
        Ok(match configured.mode {
            SslMode::Prefer => Self::Preferred(config),
            SslMode::Disable | SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
                Self::Required(config)
            }
        })
    }

    /// Encrypts a fresh connection as configured.
    ///
    /// # Errors
    /// The socket's, the handshake's, or that the node has no TLS where it must.
    pub async fn wrap(&self, mut socket: TcpStream, host: &str) -> io::Result<NodeStream> {
        let (config, required) = match self {
            Self::Disabled => return Ok(NodeStream::Plain(socket)),
            Self::Preferred(config) => (config, false),
            Self::Required(config) => (config, true),
        };
        let mut request = BytesMut::new();
        encode::ssl_request(&mut request);
        socket.write_all(&request).await?;
        // One byte and no more: what follows it unencrypted must not be taken for the node's (CVE-2021-23222).
        match socket.read_u8().await? {
            b'S' => {}
            b'N' if !required => return Ok(NodeStream::Plain(socket)),
            b'N' => return Err(io::Error::other("the server does not support SSL")),
            _ => return Err(io::Error::other("unexpected answer to SSL request")),
        }
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name, socket)
            .await?;
        Ok(NodeStream::Tls(Box::new(stream)))
    }
}

/// A stream to a node: plain TCP or TLS.
#[derive(Debug)]
pub enum NodeStream {
    /// Unencrypted.
    Plain(TcpStream),
    /// Encrypted; boxed, for its buffers are large and most streams are plain.
    Tls(Box<TlsStream<TcpStream>>),
}

impl NodeStream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Whether the socket is known to have bytes, an end of stream or an error waiting. Costs no system call: it looks at
    /// the readiness that the reactor found last.
    #[must_use]
    pub fn has_input(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.socket().poll_read_ready(&mut context).is_ready()
    }

    /// Writes what a plain socket takes at once. TLS must be polled.
    ///
    /// # Errors
    /// The socket's; [`io::ErrorKind::WouldBlock`] if it takes nothing now.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_write(bytes),
            Self::Tls(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// The node's address on this connection.
    ///
    /// # Errors
    /// The socket's.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket().peer_addr()
    }
}

impl AsyncRead for NodeStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for NodeStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// What is checked of a node's certificate.
enum Check {
    /// Nothing: who listens on the way is kept out, who stands in it is not.
    Nothing,
    /// That an authority signed it.
    Authority(Arc<rustls::RootCertStore>),
    /// That an authority signed it for this host.
    Host(Arc<rustls::RootCertStore>),
}

#[derive(Debug)]
struct NodeVerifier {
    authorities: Option<Arc<WebPkiServerVerifier>>,
    any_host: bool,
    provider: Arc<CryptoProvider>,
}

impl NodeVerifier {
    fn new(check: Check, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let (store, any_host) = match check {
            Check::Nothing => (None, true),
            Check::Authority(store) => (Some(store), true),
            Check::Host(store) => (Some(store), false),
        };
        let authorities = store
            .map(|store| {
                WebPkiServerVerifier::builder_with_provider(store, Arc::clone(provider)).build()
            })
            .transpose()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            authorities,
            any_host,
            provider: Arc::clone(provider),
        })
    }
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(authorities) = &self.authorities else {
            return Ok(ServerCertVerified::assertion());
        };
        let verdict = authorities.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verdict {
            // The name is what is checked last: all else is in order.
            Err(rustls::Error::InvalidCertificate(
                NotValidForName | NotValidForNameContext { .. },
            )) if self.any_host => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
