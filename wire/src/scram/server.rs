//! The server's side: it checks a proof against a [`Verifier`].

use base64::Engine;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::attribute::{self, AttributeError};
use super::{
    BASE64, BINDING_TYPE, ClientKeys, Key, Nonce, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, Verifier,
    hmac, sha256, xor,
};
use crate::sqlstate::SqlState;

/// Why an exchange ended. Texts, details and codes are PostgreSQL's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// A mechanism that was not offered.
    #[error("client selected an invalid SASL authentication mechanism")]
    Mechanism,
    /// A message is not made as it should be.
    #[error("malformed SCRAM message")]
    Malformed(&'static str),
    /// An attribute is not made as it should be.
    #[error("malformed SCRAM message")]
    Attribute(#[from] AttributeError),
    /// The client wants to act as somebody else.
    #[error("client uses authorization identity, but it is not supported")]
    AuthorizationIdentity,
    /// The client insists on an extension.
    #[error("client requires an unsupported SCRAM extension")]
    Extension,
    /// Somebody between us hid that we offer channel binding.
    #[error("SCRAM channel binding negotiation error")]
    BindingDowngrade,
    /// A kind of channel binding we do not know.
    #[error("unsupported SCRAM channel-binding type")]
    BindingType,
    /// The client is bound to another channel than ours.
    #[error("SCRAM channel binding check failed")]
    BindingMismatch,
    /// The client answers another challenge than ours.
    #[error("invalid SCRAM response")]
    Nonce,
    /// The password is wrong or the user unknown; the caller words it with the user's name.
    #[error("password authentication failed")]
    Proof,
}

impl ServerError {
    /// PostgreSQL's code for it.
    pub fn sqlstate(self) -> SqlState {
        match self {
            ServerError::AuthorizationIdentity | ServerError::Extension => {
                SqlState::FEATURE_NOT_SUPPORTED
            }
            ServerError::BindingDowngrade | ServerError::BindingMismatch => {
                SqlState::INVALID_AUTHORIZATION_SPECIFICATION
            }
            ServerError::Proof => SqlState::INVALID_PASSWORD,
            ServerError::Mechanism
            | ServerError::Malformed(_)
            | ServerError::Attribute(_)
            | ServerError::BindingType
            | ServerError::Nonce => SqlState::PROTOCOL_VIOLATION,
        }
    }

    /// PostgreSQL's DETAIL for it.
    pub fn detail(self) -> Option<String> {
        match self {
            ServerError::Malformed(detail) => Some(detail.to_owned()),
            ServerError::Attribute(error) => Some(error.to_string()),
            ServerError::BindingDowngrade => Some(
                "The client supports SCRAM channel binding but thinks the server does not.  \
                 However, this server does support channel binding."
                    .to_owned(),
            ),
            ServerError::Nonce => Some("Nonce does not match.".to_owned()),
            ServerError::Mechanism
            | ServerError::AuthorizationIdentity
            | ServerError::Extension
            | ServerError::BindingType
            | ServerError::BindingMismatch
            | ServerError::Proof => None,
        }
    }
}

/// A server that waits for the client's first message.
#[derive(Debug)]
pub struct ScramServer {
    verifier: Verifier,
    nonce: Nonce,
    binding: Option<Vec<u8>>,
}

impl ScramServer {
    /// An exchange against `verifier`. `binding` is the `tls-server-end-point` data of the connection, where it has any.
    pub fn new(verifier: Verifier, nonce: Nonce, binding: Option<Vec<u8>>) -> ScramServer {
        ScramServer {
            verifier,
            nonce,
            binding,
        }
    }

    /// The mechanisms to offer, the favourite first.
    pub fn mechanisms(&self) -> &'static [&'static str] {
        match self.binding {
            Some(_) => &[SCRAM_SHA_256_PLUS, SCRAM_SHA_256],
            None => &[SCRAM_SHA_256],
        }
    }

    /// Whether the mechanism that the client chose is one of those. To be asked before it is told anything under it.
    pub fn check_mechanism(&self, chosen: &[u8]) -> Result<(), ServerError> {
        let mut offered = self.mechanisms().iter();
        match offered.any(|offered| offered.as_bytes() == chosen) {
            true => Ok(()),
            false => Err(ServerError::Mechanism),
        }
    }

    /// Takes the client's first message under the mechanism it chose.
    pub fn client_first(
        self,
        mechanism: &[u8],
        message: &[u8],
    ) -> Result<ServerChallenge, ServerError> {
        self.check_mechanism(mechanism)?;
        check_length(message)?;
        let bare = match mechanism == SCRAM_SHA_256_PLUS.as_bytes() {
            true => gs2_header_bound(message)?,
            false => gs2_header(message, self.binding.is_some())?,
        };
        let client_nonce = client_nonce(bare)?;
        let header = &message[..message.len() - bare.len()];
        let mut binding = header.to_vec();
        if header.first() == Some(&b'p') {
            binding.extend(self.binding.unwrap_or_default());
        }
        let nonce = format!("{}{}", String::from_utf8_lossy(client_nonce), self.nonce.0);
        let message = format!(
            "r={nonce},s={},i={}",
            BASE64.encode(&self.verifier.salt),
            self.verifier.iterations
        );
        Ok(ServerChallenge {
            verifier: self.verifier,
            client_first_bare: bare.to_vec(),
            binding: BASE64.encode(binding),
            bound: header.first() == Some(&b'p'),
            nonce,
            message,
        })
    }
}

fn check_length(message: &[u8]) -> Result<(), ServerError> {
    if message.is_empty() {
        return Err(ServerError::Malformed("The message is empty."));
    }
    if message.contains(&0) {
        return Err(ServerError::Malformed(
            "Message length does not match input length.",
        ));
    }
    Ok(())
}

/// Skips the header of a message under the mechanism without channel binding.
fn gs2_header(message: &[u8], binding_offered: bool) -> Result<&[u8], ServerError> {
    let rest = match message.first() {
        Some(b'n') => &message[1..],
        Some(b'y') if binding_offered => return Err(ServerError::BindingDowngrade),
        Some(b'y') => &message[1..],
        Some(b'p') => {
            return Err(ServerError::Malformed(
                "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes \
                 channel binding data.",
            ));
        }
        _ => return Err(ServerError::Malformed("Unexpected channel-binding flag.")),
    };
    let rest = rest.strip_prefix(b",").ok_or(ServerError::Malformed(
        "Comma expected, but found another character.",
    ))?;
    authorization_identity(rest)
}

/// Skips the header of a message under the mechanism with channel binding.
fn gs2_header_bound(message: &[u8]) -> Result<&[u8], ServerError> {
    let mut rest = message;
    match message.first() {
        Some(b'p') => {
            if attribute::named(&mut rest, b'p')? != BINDING_TYPE.as_bytes() {
                return Err(ServerError::BindingType);
            }
            authorization_identity(rest)
        }
        Some(b'n' | b'y') => Err(ServerError::Malformed(
            "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.",
        )),
        _ => Err(ServerError::Malformed("Unexpected channel-binding flag.")),
    }
}

fn authorization_identity(rest: &[u8]) -> Result<&[u8], ServerError> {
    match rest.split_first() {
        Some((b',', bare)) => Ok(bare),
        Some((b'a', _)) => Err(ServerError::AuthorizationIdentity),
        _ => Err(ServerError::Malformed(
            "Unexpected attribute in client-first-message.",
        )),
    }
}

/// Reads the client's first message without its header.
fn client_nonce(mut bare: &[u8]) -> Result<&[u8], ServerError> {
    if bare.first() == Some(&b'm') {
        return Err(ServerError::Extension);
    }
    // The user is the startup packet's; this name is not looked at.
    attribute::named(&mut bare, b'n')?;
    let nonce = attribute::named(&mut bare, b'r')?;
    if !attribute::is_nonce(nonce) {
        return Err(ServerError::Malformed(
            "Non-printable characters in SCRAM nonce.",
        ));
    }
    while !bare.is_empty() {
        attribute::any(&mut bare)?;
    }
    Ok(nonce)
}

/// A server that sent its challenge and waits for the proof.
#[derive(Debug)]
pub struct ServerChallenge {
    verifier: Verifier,
    client_first_bare: Vec<u8>,
    /// What the client must repeat of the header and the channel, in base64.
    binding: String,
    bound: bool,
    nonce: String,
    message: String,
}

impl ServerChallenge {
    /// The challenge to send.
    pub fn message(&self) -> &[u8] {
        self.message.as_bytes()
    }

    /// Takes the client's final message and checks its proof.
    pub fn client_final(self, message: &[u8]) -> Result<ServerAccepted, ServerError> {
        check_length(message)?;
        let mut rest = message;
        let binding = attribute::named(&mut rest, b'c')?;
        if binding != self.binding.as_bytes() {
            return Err(match self.bound {
                true => ServerError::BindingMismatch,
                false => ServerError::Malformed(
                    "Unexpected SCRAM channel-binding attribute in client-final-message.",
                ),
            });
        }
        let nonce = attribute::named(&mut rest, b'r')?;
        let (without_proof, proof) = loop {
            let before = message.len() - rest.len();
            if let (b'p', proof) = attribute::any(&mut rest)? {
                // The comma in front of the proof is not part of what it proves.
                break (&message[..before - 1], proof);
            }
        };
        let proof = proof_bytes(proof)?;
        if !rest.is_empty() {
            return Err(ServerError::Malformed(
                "Garbage found at the end of client-final-message.",
            ));
        }
        if nonce != self.nonce.as_bytes() {
            return Err(ServerError::Nonce);
        }
        self.check(without_proof, &proof)
    }

    fn check(self, without_proof: &[u8], proof: &Key) -> Result<ServerAccepted, ServerError> {
        let signed: [&[u8]; 5] = [
            &self.client_first_bare,
            b",",
            self.message.as_bytes(),
            b",",
            without_proof,
        ];
        let client_key = Zeroizing::new(xor(proof, &hmac(&self.verifier.stored_key, &signed)));
        let good = sha256(&*client_key).ct_eq(&*self.verifier.stored_key);
        if self.verifier.mock || !bool::from(good) {
            return Err(ServerError::Proof);
        }
        let signature = hmac(&self.verifier.server_key, &signed);
        Ok(ServerAccepted {
            message: format!("v={}", BASE64.encode(signature)),
            client_key,
            verifier: self.verifier,
        })
    }
}

fn proof_bytes(proof: &[u8]) -> Result<Key, ServerError> {
    let mut key = [0; 32];
    match BASE64.decode_slice(proof, &mut key) {
        Ok(32) => Ok(key),
        _ => Err(ServerError::Malformed(
            "Malformed proof in client-final-message.",
        )),
    }
}

/// A server that knows its client.
pub struct ServerAccepted {
    message: String,
    client_key: Zeroizing<Key>,
    verifier: Verifier,
}

impl std::fmt::Debug for ServerAccepted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ServerAccepted(..)")
    }
}

impl ServerAccepted {
    /// The last message to send: that we know the password, too.
    pub fn message(&self) -> &[u8] {
        self.message.as_bytes()
    }

    /// The salt, the iterations, and what the password becomes by them.
    pub fn into_keys(self) -> (Vec<u8>, u32, ClientKeys) {
        let Verifier {
            salt,
            iterations,
            server_key,
            ..
        } = self.verifier;
        let keys = ClientKeys::from_parts(*self.client_key, *server_key);
        (salt, iterations, keys)
    }

    /// The client's key, with which the same user can be proven to another server that has the same verifier.
    pub fn client_key(&self) -> &[u8; 32] {
        &self.client_key
    }
}
