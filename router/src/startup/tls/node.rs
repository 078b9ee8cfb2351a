//! TLS towards nodes: we are the client, by libpq's `sslmode`.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use switchyard_schema::SslMode;
use switchyard_wire::frontend::encode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::{TlsError, authorities, certificate, provider};
use crate::startup::negotiate::ALPN;
use crate::stream::{Socket, Stream};

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

    /// Encrypts a fresh connection as configured; on a Unix socket, as libpq, never.
    ///
    /// # Errors
    /// The socket's, the handshake's, or that the node has no TLS where it must.
    pub async fn wrap(&self, mut socket: Socket, host: &str) -> io::Result<Stream> {
        let (config, required) = match self {
            _ if socket.is_local() => return Ok(Stream::Plain(socket)),
            Self::Disabled => return Ok(Stream::Plain(socket)),
            Self::Preferred(config) => (config, false),
            Self::Required(config) => (config, true),
        };
        let mut request = BytesMut::new();
        encode::ssl_request(&mut request);
        socket.write_all(&request).await?;
        // One byte and no more: what follows it unencrypted must not be taken for the node's (CVE-2021-23222).
        match socket.read_u8().await? {
            b'S' => {}
            b'N' if !required => return Ok(Stream::Plain(socket)),
            b'N' => return Err(io::Error::other("the server does not support SSL")),
            _ => return Err(io::Error::other("unexpected answer to SSL request")),
        }
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name, socket)
            .await?;
        Ok(Stream::Tls(Box::new(stream.into())))
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
        match certificate::key_of_version_1(certificate) {
            // Nothing else of it is looked at, but who answers must have its key: channel binding relies on that.
            Some(key) if self.authorities.is_none() => {
                let key = SubjectPublicKeyInfoDer::from(key);
                verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
            }
            _ => verify_tls13_signature(message, certificate, signature, algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
