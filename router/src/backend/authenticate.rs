//! Proof to a node that we are who we say we are; by SCRAM the node proves that it knows the password, too.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what a node may say at this point is a short list; all else is a protocol error"
)]

use postgres_protocol::authentication::md5_hash;
use switchyard_wire::backend::{Authentication, Mechanisms, Message};
use switchyard_wire::frontend::encode;
use switchyard_wire::scram::{
    ClientBinding, ClientError, ClientKeys, Nonce, SCRAM_SHA_256_PLUS, ScramClient, Verifier,
};

use super::connection::{ConnectError, ConnectOptions, Connection, decode, refused, unexpected};
use crate::config::Password;
use crate::proven::Proof;
use crate::startup::tls::certificate;

impl Connection {
    /// Does what the node demands until it lets us in.
    pub(super) async fn authenticate(
        &mut self,
        options: &ConnectOptions,
    ) -> Result<(), ConnectError> {
        loop {
            let message = self.read_control_message().await?;
            match decode(&message)? {
                Message::Authentication(Authentication::Ok) => return Ok(()),
                Message::Authentication(Authentication::CleartextPassword) => {
                    encode::password(&mut self.output, password(options)?.reveal().as_bytes());
                }
                Message::Authentication(Authentication::Md5Password { salt }) => {
                    let password = password(options)?;
                    let password = password.reveal().as_bytes();
                    let hashed = md5_hash(options.user.as_bytes(), password, salt);
                    encode::password(&mut self.output, hashed.as_bytes());
                }
                Message::Authentication(Authentication::Sasl(offered)) => {
                    let client = self.scram(offered)?;
                    self.prove(client, options).await?;
                    continue;
                }
                Message::ErrorResponse(fields) => return Err(refused(&fields)),
                Message::NoticeResponse(_) => continue,
                other => return Err(unexpected(&other)),
            }
            self.flush().await?;
        }
    }

    /// The best mechanism of those offered: tied to the TLS connection if there is one and the node can.
    fn scram(&self, offered: Mechanisms<'_>) -> Result<ScramClient, ConnectError> {
        let offers = |name: &str| offered.iter().any(|found| found == name.as_bytes());
        let bound = self
            .stream
            .peer_certificate()
            .and_then(|shown| certificate::end_point(shown));
        let binding = match bound {
            Some(bound) if offers(SCRAM_SHA_256_PLUS) => ClientBinding::TlsServerEndPoint(bound),
            Some(_) => ClientBinding::NotOffered,
            None => ClientBinding::Unsupported,
        };
        let nonce = Nonce::random().map_err(|error| ConnectError::Protocol(error.to_string()))?;
        // The name is that of the startup packet.
        let client = ScramClient::new("", nonce, binding);
        match offers(client.mechanism()) {
            true => Ok(client),
            false => Err(ConnectError::Protocol(format!(
                "the node offers no authentication that is known here, but {offered:?}"
            ))),
        }
    }

    async fn prove(
        &mut self,
        client: ScramClient,
        options: &ConnectOptions,
    ) -> Result<(), ConnectError> {
        let mechanism = client.mechanism().as_bytes();
        encode::sasl_initial_response(&mut self.output, mechanism, Some(client.message()));
        self.flush().await?;
        let message = self.read_control_message().await?;
        let challenged = match decode(&message)? {
            Message::Authentication(Authentication::SaslContinue(data)) => {
                client.server_first(data).map_err(untrue)?
            }
            Message::ErrorResponse(fields) => return Err(refused(&fields)),
            other => return Err(unexpected(&other)),
        };
        let keys = keys(options, challenged.salt(), challenged.iterations())?;
        let proof = challenged.prove(&keys);
        encode::sasl_response(&mut self.output, proof.message());
        self.flush().await?;
        let message = self.read_control_message().await?;
        match decode(&message)? {
            Message::Authentication(Authentication::SaslFinal(data)) => {
                proof.server_final(data).map_err(untrue)
            }
            Message::ErrorResponse(fields) => Err(refused(&fields)),
            other => Err(unexpected(&other)),
        }
    }
}

fn untrue(error: ClientError) -> ConnectError {
    ConnectError::Protocol(error.to_string())
}

/// The password in the clear, which the configuration has, or the user's login has shown.
fn password(options: &ConnectOptions) -> Result<Password, ConnectError> {
    let configured = options.password.as_ref();
    if let Some(password) = configured.filter(|password| !Verifier::is_verifier(password.reveal()))
    {
        return Ok(password.clone());
    }
    match options.proven.of(&options.database, &options.user) {
        Some(Proof::Password(password)) => Ok(password),
        _ => Err(ConnectError::Unproven(
            "the node wants a password that the router does not know",
        )),
    }
}

/// The keys for a verifier with this salt: those of the password, or those that the user has shown.
fn keys(
    options: &ConnectOptions,
    salt: &[u8],
    iterations: u32,
) -> Result<ClientKeys, ConnectError> {
    if let Ok(password) = password(options) {
        let keys = &options.scram_keys;
        return Ok(keys.of(password.reveal(), salt, iterations));
    }
    match options.proven.of(&options.database, &options.user) {
        Some(Proof::Keys {
            salt: own,
            iterations: times,
            keys,
        }) if own == salt && times == iterations => Ok(keys),
        Some(_) => Err(ConnectError::Unproven(
            "the node has another verifier of the user's password than the one by which the user has logged in",
        )),
        None => Err(ConnectError::Unproven(
            "the router does not know the password by which the user proves itself: it has to log in anew",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::BytesMut;
    use switchyard_schema::{NodeTls as ConfiguredNodeTls, SslMode};
    use switchyard_wire::backend::{TransactionStatus, encode};
    use switchyard_wire::frontend::SaslInitialResponse;
    use switchyard_wire::scram::{ClientKeys, ScramServer, Verifier};
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::backend::ScramKeys;
    use crate::startup::tls::tests::Authority;
    use crate::startup::tls::{ClientTls, NodeTls};

    /// What is wrong with a node.
    #[derive(Clone, Copy, PartialEq)]
    enum Fault {
        None,
        /// It does not know the password, and says that ours is right.
        Impostor,
        /// It does not prove anything at all.
        Silent,
        OffersNothing,
    }

    async fn body(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
        let _tag = stream.read_u8().await.unwrap();
        let mut body = vec![0; stream.read_u32().await.unwrap() as usize - 4];
        stream.read_exact(&mut body).await.unwrap();
        body
    }

    /// A node that lets in whoever knows the password "secret". The mechanism that was chosen.
    async fn node<S: AsyncRead + AsyncWrite + Unpin>(
        mut stream: S,
        binding: Option<Vec<u8>>,
        fault: Fault,
    ) -> Result<String, String> {
        let mut startup = vec![0; stream.read_u32().await.unwrap() as usize - 4];
        stream.read_exact(&mut startup).await.unwrap();
        let verifier = Verifier::derive("secret", b"salt", 4096);
        let server = ScramServer::new(verifier, Nonce::random().unwrap(), binding);
        let mut output = BytesMut::new();
        match fault {
            Fault::OffersNothing => encode::authentication_sasl(&mut output, &["OAUTHBEARER"]),
            _ => encode::authentication_sasl(&mut output, server.mechanisms()),
        }
        stream.write_all_buf(&mut output).await.unwrap();
        if fault == Fault::OffersNothing {
            return Err("nothing was offered".to_owned());
        }
        let message = body(&mut stream).await;
        let initial = SaslInitialResponse::decode(&message).unwrap();
        let first = initial.response.unwrap();
        let challenge = server.client_first(initial.mechanism, first).unwrap();
        encode::authentication_sasl_continue(&mut output, challenge.message());
        stream.write_all_buf(&mut output).await.unwrap();
        let accepted = challenge
            .client_final(&body(&mut stream).await)
            .map_err(|error| error.to_string())?;
        match fault {
            Fault::Silent => {}
            Fault::Impostor => {
                let made_up = b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
                encode::authentication_sasl_final(&mut output, made_up);
            }
            _ => encode::authentication_sasl_final(&mut output, accepted.message()),
        }
        encode::authentication_ok(&mut output);
        encode::ready_for_query(&mut output, TransactionStatus::Idle);
        stream.write_all_buf(&mut output).await.unwrap();
        Ok(String::from_utf8_lossy(initial.mechanism).into_owned())
    }

    async fn connect(listener: &TcpListener, tls: NodeTls) -> Result<(), String> {
        let options = ConnectOptions {
            settings: &[],
            proven: Arc::default(),
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
            user: "app".to_owned(),
            password: Some(Password::new("secret")),
            scram_keys: ScramKeys::default(),
            database: "shop".to_owned(),
            prepared_limit: 1,
            tls,
            timeout: Duration::from_secs(10),
        };
        let connected = Connection::connect(&options).await;
        connected.map(drop).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_node_must_know_the_password_too() {
        for (fault, complaint) in [
            (Fault::None, None),
            (Fault::Impostor, Some("incorrect server signature")),
            (Fault::Silent, Some("unexpected Authentication(Ok)")),
            (Fault::OffersNothing, Some("OAUTHBEARER")),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let serving = async {
                let (stream, _) = listener.accept().await.unwrap();
                node(stream, None, fault).await
            };
            let (connected, _) = tokio::join!(connect(&listener, NodeTls::Disabled), serving);
            match complaint {
                None => assert_eq!(connected, Ok(())),
                Some(text) => assert!(connected.unwrap_err().contains(text), "{text}"),
            }
        }
    }

    /// Keys are those of the salt that is asked for, however often another one was.
    #[test]
    fn keys_are_derived_anew_for_another_salt() {
        let keys = ScramKeys::default();
        let proof = |salt: &[u8], iterations| {
            let derived = keys.of("secret", salt, iterations);
            let fresh = ClientKeys::derive("secret", salt, iterations);
            assert_eq!(derived, fresh);
        };
        for (salt, iterations) in [(b"a", 2), (b"a", 2), (b"b", 2), (b"b", 3), (b"a", 2)] {
            proof(salt, iterations);
        }
    }

    #[tokio::test]
    async fn proof_is_tied_to_the_tls_connection_it_is_given_on() {
        let authority = Authority::new("ca");
        authority.sign("node", &["127.0.0.1"]);
        let server = ClientTls::load(&authority.server("node"), false).unwrap();
        let bound = server.end_point().unwrap().to_vec();
        let other = vec![0; bound.len()];
        for (binding, chosen) in [
            (Some(bound), Ok("SCRAM-SHA-256-PLUS")),
            (None, Ok("SCRAM-SHA-256")),
            // The end of another connection than ours.
            (Some(other), Err("SCRAM channel binding check failed")),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let acceptor = TlsAcceptor::from(Arc::clone(server.config()));
            let serving = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 8];
                stream.read_exact(&mut request).await.unwrap();
                stream.write_all(b"S").await.unwrap();
                let stream = acceptor.accept(stream).await.unwrap();
                node(stream, binding, Fault::None).await
            };
            let tls = NodeTls::new(&ConfiguredNodeTls {
                mode: SslMode::Require,
                root_cert: None,
            });
            let connecting = connect(&listener, tls.unwrap());
            let (connected, found) = tokio::join!(connecting, serving);
            assert_eq!(connected.is_ok(), chosen.is_ok());
            assert_eq!(found.as_deref().map_err(String::as_str), chosen);
        }
    }
}
