//! SCRAM-SHA-256 (RFC 5802, RFC 7677), both sides, as state machines whose steps consume the state.
//!
//! Server: [`ScramServer`] → [`ServerChallenge`] → [`ServerAccepted`]. Client: [`ScramClient`] → [`ClientChallenged`] →
//! [`ClientFinal`]. A state holds what its next step needs and no step can be repeated or left out.
//!
//! The machines keep to PostgreSQL where it is stricter or laxer than the RFC: the user name inside the exchange is
//! ignored in favour of the startup packet's, passwords that SASLprep rejects are used as they are, and the only
//! channel binding is `tls-server-end-point`. Secrets are compared in constant time and wiped when dropped. Randomness
//! is an argument ([`Nonce`]), so an exchange can be replayed in a test.

mod attribute;
mod client;
mod server;
mod verifier;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

pub use client::{ClientBinding, ClientChallenged, ClientError, ClientFinal, ScramClient};
pub use server::{ScramServer, ServerAccepted, ServerChallenge, ServerError};
pub use verifier::{Verifier, VerifierError};

/// The mechanism's name.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
/// The name of the mechanism with channel binding.
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// PostgreSQL's own number of iterations.
pub const DEFAULT_ITERATIONS: u32 = 4096;
/// The most iterations accepted from a peer or a stored verifier: about a second of work, not a denial of service.
pub const MAX_ITERATIONS: u32 = 1_000_000;

const BINDING_TYPE: &str = "tls-server-end-point";

type Key = [u8; 32];

/// One side's random contribution to an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// Eighteen random bytes, as PostgreSQL has it.
    pub fn random() -> Result<Nonce, getrandom::Error> {
        let mut bytes = [0; 18];
        getrandom::fill(&mut bytes)?;
        Ok(Nonce(BASE64.encode(bytes)))
    }

    /// This text, if it is not empty and all of it is printable ASCII without commas.
    pub fn new(text: &str) -> Option<Nonce> {
        attribute::is_nonce(text.as_bytes()).then(|| Nonce(text.to_owned()))
    }
}

/// What a client derives from a password, salt and number of iterations. Deriving costs milliseconds; keys may be kept
/// and used again for the same salt and iterations.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientKeys {
    client_key: Zeroizing<Key>,
    server_key: Zeroizing<Key>,
}

impl ClientKeys {
    /// Derives the keys.
    pub fn derive(password: &str, salt: &[u8], iterations: u32) -> ClientKeys {
        let prepared = stringprep::saslprep(password)
            .map(|text| Zeroizing::new(text.into_owned()))
            .unwrap_or_else(|_| Zeroizing::new(password.to_owned()));
        let mut salted = Zeroizing::new([0; 32]);
        pbkdf2::pbkdf2_hmac::<Sha256>(prepared.as_bytes(), salt, iterations, &mut *salted);
        ClientKeys {
            client_key: Zeroizing::new(hmac(&salted, &[b"Client Key"])),
            server_key: Zeroizing::new(hmac(&salted, &[b"Server Key"])),
        }
    }

    /// Keys known from elsewhere: the client's from an exchange it won as a client of ours
    /// ([`ServerAccepted::client_key`]), the server's from the verifier.
    pub fn from_parts(client_key: [u8; 32], server_key: [u8; 32]) -> ClientKeys {
        ClientKeys {
            client_key: Zeroizing::new(client_key),
            server_key: Zeroizing::new(server_key),
        }
    }
}

impl std::fmt::Debug for ClientKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientKeys(..)")
    }
}

fn hmac(key: &Key, parts: &[&[u8]]) -> Key {
    // HMAC pads a short key with zeroes to its block; doing so here takes the constructor that cannot fail.
    let mut block = Zeroizing::new([0; 64]);
    block[..key.len()].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn sha256(bytes: &[u8]) -> Key {
    Sha256::digest(bytes).into()
}

fn xor(a: &Key, b: &Key) -> Key {
    std::array::from_fn(|i| a[i] ^ b[i])
}

#[cfg(test)]
mod tests;
