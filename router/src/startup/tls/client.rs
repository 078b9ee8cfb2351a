//! TLS towards clients: we are the server.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::{TlsError, authorities, certificate, certificates, provider};
use crate::startup::negotiate::ALPN;

/// TLS towards clients, ready for handshakes.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ServerConfig>,
    required: bool,
    end_point: Option<Vec<u8>>,
}

impl ClientTls {
    /// Reads certificate, key and authorities. With `certificate_required` a client without a valid certificate does not
    /// get through the handshake.
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn load(
        configured: &switchyard_schema::ClientTls,
        certificate_required: bool,
    ) -> Result<Self, TlsError> {
        let chain = certificates(&configured.cert)?;
        let key =
            PrivateKeyDer::from_pem_file(&configured.key).map_err(|error| TlsError::File {
                path: configured.key.clone(),
                reason: error.to_string(),
            })?;
        let wrong = |source| TlsError::Certificate {
            path: configured.cert.clone(),
            source,
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(wrong)?;
        let builder = match &configured.client_ca {
            Some(path) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(authorities(path)?, provider());
                let verifier = match certificate_required {
                    true => verifier,
                    false => verifier.allow_unauthenticated(),
                };
                let verifier = verifier.build().map_err(|error| TlsError::File {
                    path: path.clone(),
                    reason: error.to_string(),
                })?;
                builder.with_client_cert_verifier(verifier)
            }
            None if certificate_required => {
                return Err(TlsError::NoAuthority("authentication by certificate"));
            }
            None => builder.with_no_client_auth(),
        };
        let end_point = chain.first().and_then(|own| certificate::end_point(own));
        let key = provider()
            .key_provider
            .load_private_key(key)
            .map_err(wrong)?;
        let own = CertifiedKey::new(chain, key);
        let belongs = match own
            .end_entity_cert()
            .ok()
            .and_then(|own| certificate::key_of_version_1(own))
        {
            Some(public) => {
                let same = own.key.public_key().is_none_or(|key| *key == *public);
                same.then_some(())
                    .ok_or(rustls::InconsistentKeys::KeyMismatch.into())
            }
            None => match own.keys_match() {
                // The kind of key does not tell.
                Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(()),
                verdict => verdict,
            },
        };
        belongs.map_err(wrong)?;
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // As PostgreSQL, we resume no sessions: what they would save is little beside what they would keep in memory.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            required: configured.required,
            end_point,
        })
    }

    /// What a handshake needs.
    #[must_use]
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Whether clients without TLS are refused.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Channel binding data of type `tls-server-end-point`, if our certificate is of a kind that has any.
    #[must_use]
    pub fn end_point(&self) -> Option<&[u8]> {
        self.end_point.as_deref()
    }
}
