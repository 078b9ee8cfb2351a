//! The client's side: it proves a password and checks that the server knows it, too.

use base64::Engine;
use subtle::ConstantTimeEq;

use super::attribute::{self, AttributeError};
use super::{
    BASE64, BINDING_TYPE, ClientKeys, MAX_ITERATIONS, Nonce, SCRAM_SHA_256, SCRAM_SHA_256_PLUS,
    hmac, sha256, xor,
};

/// Why an exchange ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// A message of the server is not made as it should be.
    #[error("malformed SCRAM message from the server: {0}")]
    Malformed(&'static str),
    /// An attribute of the server's message is not made as it should be.
    #[error("malformed SCRAM message from the server: {0}")]
    Attribute(#[from] AttributeError),
    /// The server's nonce does not go on from ours.
    #[error("invalid SCRAM nonce from the server")]
    Nonce,
    /// The server asks for no iterations, or for too many.
    #[error("the server asks for {0} SCRAM iterations; from 1 to {MAX_ITERATIONS} are accepted")]
    Iterations(u64),
    /// The server says the exchange failed.
    #[error("the server rejected the SCRAM exchange: {0}")]
    Rejected(String),
    /// The server does not know the password: it is not the one we meant to reach.
    #[error("incorrect server signature")]
    Signature,
}

/// How the exchange is tied to the TLS connection under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientBinding {
    /// Not at all: the connection has no TLS, or we cannot.
    Unsupported,
    /// Not at all, because the server did not offer it, though we could.
    NotOffered,
    /// By `tls-server-end-point`: the hash of the server's certificate.
    TlsServerEndPoint(Vec<u8>),
}

impl ClientBinding {
    fn header(&self) -> String {
        match self {
            ClientBinding::Unsupported => "n,,".to_owned(),
            ClientBinding::NotOffered => "y,,".to_owned(),
            ClientBinding::TlsServerEndPoint(_) => format!("p={BINDING_TYPE},,"),
        }
    }
}

/// A client that waits for the server's challenge.
#[derive(Debug)]
pub struct ScramClient {
    binding: ClientBinding,
    nonce: Nonce,
    message: String,
    header_len: usize,
}

impl ScramClient {
    /// An exchange as `user`, which may be empty with PostgreSQL: it goes by the startup packet.
    pub fn new(user: &str, nonce: Nonce, binding: ClientBinding) -> ScramClient {
        let header = binding.header();
        let user = user.replace('=', "=3D").replace(',', "=2C");
        ScramClient {
            message: format!("{header}n={user},r={}", nonce.0),
            header_len: header.len(),
            binding,
            nonce,
        }
    }

    /// The mechanism to choose.
    pub fn mechanism(&self) -> &'static str {
        match self.binding {
            ClientBinding::TlsServerEndPoint(_) => SCRAM_SHA_256_PLUS,
            ClientBinding::Unsupported | ClientBinding::NotOffered => SCRAM_SHA_256,
        }
    }

    /// The first message to send.
    pub fn message(&self) -> &[u8] {
        self.message.as_bytes()
    }

    /// Takes the server's challenge.
    pub fn server_first(self, message: &[u8]) -> Result<ClientChallenged, ClientError> {
        let mut rest = message;
        let nonce = attribute::named(&mut rest, b'r')?;
        let own = self.nonce.0.as_bytes();
        if !attribute::is_nonce(nonce) || !nonce.starts_with(own) || nonce.len() == own.len() {
            return Err(ClientError::Nonce);
        }
        let salt = BASE64
            .decode(attribute::named(&mut rest, b's')?)
            .map_err(|_| ClientError::Malformed("invalid salt"))?;
        let iterations = iterations(attribute::named(&mut rest, b'i')?)?;
        while !rest.is_empty() {
            attribute::any(&mut rest)?;
        }
        let mut bound = self.message.as_bytes()[..self.header_len].to_vec();
        if let ClientBinding::TlsServerEndPoint(data) = &self.binding {
            bound.extend(data);
        }
        let without_proof = format!(
            "c={},r={}",
            BASE64.encode(bound),
            String::from_utf8_lossy(nonce)
        );
        let mut signed = self.message.into_bytes().split_off(self.header_len);
        signed.push(b',');
        signed.extend(message);
        signed.push(b',');
        signed.extend(without_proof.as_bytes());
        Ok(ClientChallenged {
            salt,
            iterations,
            signed,
            without_proof,
        })
    }
}

fn iterations(text: &[u8]) -> Result<u32, ClientError> {
    let malformed = ClientError::Malformed("invalid iteration count");
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return Err(malformed);
    }
    let value = text
        .iter()
        .fold(0u64, |value, b| value * 10 + u64::from(b - b'0'));
    match u32::try_from(value) {
        Ok(value @ 1..=MAX_ITERATIONS) => Ok(value),
        _ => Err(ClientError::Iterations(value)),
    }
}

/// A client that has its challenge and must prove the password.
#[derive(Debug)]
pub struct ClientChallenged {
    salt: Vec<u8>,
    iterations: u32,
    signed: Vec<u8>,
    without_proof: String,
}

impl ClientChallenged {
    /// The salt to derive keys with.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// The iterations to derive keys with.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Proves a password. Costs milliseconds.
    pub fn prove_password(self, password: &str) -> ClientFinal {
        let keys = ClientKeys::derive(password, &self.salt, self.iterations);
        self.prove(&keys)
    }

    /// Proves a password by keys derived from it before, with this salt and these iterations.
    pub fn prove(self, keys: &ClientKeys) -> ClientFinal {
        let stored_key = sha256(&*keys.client_key);
        let proof = xor(&keys.client_key, &hmac(&stored_key, &[&self.signed]));
        ClientFinal {
            message: format!("{},p={}", self.without_proof, BASE64.encode(proof)),
            server_signature: hmac(&keys.server_key, &[&self.signed]),
        }
    }
}

/// A client that sent its proof and waits for the server's.
#[derive(Debug)]
pub struct ClientFinal {
    message: String,
    server_signature: [u8; 32],
}

impl ClientFinal {
    /// The proof to send.
    pub fn message(&self) -> &[u8] {
        self.message.as_bytes()
    }

    /// Takes the server's last message. Only after this is the server known; AuthenticationOk without it must not be
    /// believed.
    pub fn server_final(self, message: &[u8]) -> Result<(), ClientError> {
        let mut rest = message;
        if rest.first() == Some(&b'e') {
            let reason = attribute::named(&mut rest, b'e')?;
            return Err(ClientError::Rejected(
                String::from_utf8_lossy(reason).into_owned(),
            ));
        }
        let signature = attribute::named(&mut rest, b'v')?;
        let mut found = [0; 32];
        if BASE64.decode_slice(signature, &mut found) != Ok(32) {
            return Err(ClientError::Malformed("invalid server signature"));
        }
        match bool::from(found.ct_eq(&self.server_signature)) {
            true => Ok(()),
            false => Err(ClientError::Signature),
        }
    }
}
