use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use switchyard_schema::{NodeTls as ConfiguredNodeTls, SslMode};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::stream::Socket;

/// An authority with a directory for what it signs.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.crt"), certificate.pem()).unwrap();
        Authority {
            issuer: Issuer::new(params, key),
            directory,
        }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.file("ca.crt")
    }

    /// A certificate for a common name and hosts, with its key, in files `<name>.crt` and `<name>.key`.
    pub(crate) fn sign(&self, name: &str, hosts: &[&str]) -> CertificateDer<'static> {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Switchyard");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file(&format!("{name}.crt")), certificate.pem()).unwrap();
        std::fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
        certificate.der().clone()
    }

    /// The configuration of a server with the certificate of that name.
    pub(crate) fn server(&self, name: &str) -> switchyard_schema::ClientTls {
        switchyard_schema::ClientTls {
            cert: self.file(&format!("{name}.crt")),
            key: self.file(&format!("{name}.key")),
            client_ca: None,
            required: false,
        }
    }
}

#[test]
fn a_common_name_is_read_as_written() {
    let authority = Authority::new("the authority's name is not the subject's");
    for name in ["app", "a user with spaces", "ünïcode"] {
        let certificate = authority.sign(name, &["localhost"]);
        assert_eq!(certificate::common_name(&certificate), Some(name));
    }
}

#[test]
fn damaged_certificates_are_not_understood() {
    let certificate = Authority::new("ca").sign("app", &["localhost"]);
    let bytes = certificate.as_ref();
    for cut in 0..bytes.len() {
        assert_eq!(certificate::common_name(&bytes[..cut]), None);
        assert_eq!(certificate::end_point(&bytes[..cut]), None);
    }
    let mut damaged = bytes.to_vec();
    for i in 0..damaged.len() {
        for value in [0, 0x7f, 0x80, 0x84, 0xff] {
            let kept = std::mem::replace(&mut damaged[i], value);
            let _ = certificate::common_name(&damaged);
            let _ = certificate::end_point(&damaged);
            damaged[i] = kept;
        }
    }
}

#[test]
fn channel_binding_hashes_as_the_certificate_was_signed() {
    use sha2::{Digest, Sha256};
    // ECDSA with SHA-256.
    let certificate = Authority::new("ca").sign("app", &["localhost"]);
    assert_eq!(
        certificate::end_point(&certificate),
        Some(Sha256::digest(&certificate).to_vec())
    );
    // Ed25519: not defined.
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    assert_eq!(certificate::end_point(certificate.der()), None);
}

#[test]
fn what_cannot_be_used_is_said() {
    let authority = Authority::new("ca");
    authority.sign("a", &["localhost"]);
    authority.sign("b", &["localhost"]);
    std::fs::write(authority.file("empty"), "").unwrap();
    let load = |change: fn(&Authority, &mut switchyard_schema::ClientTls)| {
        let mut configured = authority.server("a");
        change(&authority, &mut configured);
        ClientTls::load(&configured, false)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(load(|_, _| {}), Ok(()));
    let missing = load(|_, tls| tls.cert = "/nowhere".into()).unwrap_err();
    assert!(missing.starts_with("/nowhere: "), "{missing}");
    let empty = load(|ca, tls| tls.cert = ca.file("empty")).unwrap_err();
    assert!(empty.ends_with("empty: no certificate found"), "{empty}");
    assert!(load(|ca, tls| tls.key = ca.file("a.crt")).is_err());
    let mixed = load(|ca, tls| tls.key = ca.file("b.key")).unwrap_err();
    assert!(mixed.contains("a.crt: "), "{mixed}");
    assert!(matches!(
        ClientTls::load(&authority.server("a"), true),
        Err(TlsError::NoAuthority(_))
    ));
}

/// A node that answers SSLRequest, and what it says under TLS.
async fn node(tls: Option<Arc<rustls::ServerConfig>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 8];
        stream.read_exact(&mut request).await.unwrap();
        assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47]);
        match tls {
            None => stream.write_all(b"Nplain").await.unwrap(),
            Some(config) => {
                stream.write_all(b"S").await.unwrap();
                if let Ok(mut stream) = TlsAcceptor::from(config).accept(stream).await {
                    let _ = stream.write_all(b"secret").await;
                    let _ = stream.shutdown().await;
                }
            }
        }
    });
    port
}

async fn said(
    mode: SslMode,
    root: Option<PathBuf>,
    host: &str,
    port: u16,
) -> Result<String, String> {
    let root_cert = root;
    let tls = NodeTls::new(&ConfiguredNodeTls { mode, root_cert }).map_err(|e| e.to_string())?;
    let (socket, _) = Socket::connect("127.0.0.1", port).await.unwrap();
    let mut stream = tls
        .wrap(socket, host)
        .await
        .map_err(|error| error.to_string())?;
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .await
        .map_err(|error| error.to_string())?;
    Ok(text)
}

#[tokio::test]
async fn sslmode_means_what_it_means_to_libpq() {
    let (known, unknown) = (Authority::new("known"), Authority::new("unknown"));
    known.sign("node", &["localhost"]);
    let config = ClientTls::load(&known.server("node"), false).unwrap();
    let config = Arc::clone(config.config());
    let try_it = async |mode, root: Option<&Authority>, host| {
        let port = node(Some(Arc::clone(&config))).await;
        said(mode, root.map(Authority::ca), host, port).await
    };
    use SslMode::{Prefer, Require, VerifyCa, VerifyFull};
    let secret = Ok("secret".to_owned());
    assert_eq!(try_it(Prefer, None, "localhost").await, secret);
    assert_eq!(try_it(Prefer, None, "127.0.0.1").await, secret);
    assert_eq!(try_it(Require, None, "elsewhere").await, secret);
    assert_eq!(try_it(Require, Some(&known), "elsewhere").await, secret);
    assert!(try_it(Require, Some(&unknown), "localhost").await.is_err());
    assert_eq!(try_it(VerifyCa, Some(&known), "elsewhere").await, secret);
    assert!(try_it(VerifyCa, Some(&unknown), "localhost").await.is_err());
    assert_eq!(try_it(VerifyFull, Some(&known), "localhost").await, secret);
    assert!(try_it(VerifyFull, Some(&known), "elsewhere").await.is_err());
    assert!(
        try_it(VerifyFull, Some(&unknown), "localhost")
            .await
            .is_err()
    );
    assert!(try_it(VerifyFull, None, "localhost").await.is_err());

    let plain = node(None).await;
    assert_eq!(
        said(Prefer, None, "localhost", plain).await,
        Ok("plain".to_owned())
    );
    for mode in [Require, VerifyFull] {
        let plain = node(None).await;
        assert!(
            said(mode, Some(known.ca()), "localhost", plain)
                .await
                .is_err()
        );
    }
}
