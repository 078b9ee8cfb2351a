//! TLS on both sides: towards clients ([`ClientTls`]) and towards nodes ([`NodeTls`]).
//!
//! Both speak TLS 1.2 and 1.3 by rustls with ring. Reading certificates happens when the configuration is read; a
//! connection only borrows what was made then.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

pub(crate) mod certificate;
mod client;
mod node;

pub use client::ClientTls;
pub use node::NodeTls;

/// Why TLS cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds no PEM of the kind.
    #[error("{}: {reason}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Certificate and key do not serve.
    #[error("{}: {source}", .path.display())]
    Certificate {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// A certificate is to be checked and no authority is configured.
    #[error("{0} needs a file with certificates of authorities")]
    NoAuthority(&'static str),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file_error = |reason: String| TlsError::File {
        path: path.clone(),
        reason,
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| file_error(error.to_string()))?;
    if found.is_empty() {
        return Err(file_error("no certificate found".to_owned()));
    }
    Ok(found)
}

fn authorities(path: &PathBuf) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store
            .add(certificate)
            .map_err(|source| TlsError::Certificate {
                path: path.clone(),
                source,
            })?;
    }
    Ok(Arc::new(store))
}

#[cfg(test)]
pub(crate) mod tests;
