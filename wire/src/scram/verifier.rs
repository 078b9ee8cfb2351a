//! What a server keeps of a password.

use base64::Engine;
use zeroize::Zeroizing;

use super::{
    BASE64, ClientKeys, DEFAULT_ITERATIONS, Key, MAX_ITERATIONS, SCRAM_SHA_256, hmac, sha256,
};

/// What a server keeps of a password: enough to check it, not enough to use it.
#[derive(Clone)]
pub struct Verifier {
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Zeroizing<Key>,
    pub(super) server_key: Zeroizing<Key>,
    /// Nobody's: every exchange with it fails, however good the proof.
    pub(super) mock: bool,
}

/// A text that is no verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// It has another form than `SCRAM-SHA-256$iterations:salt$stored:server`.
    #[error("not of the form SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>")]
    Form,
    /// The iterations are no number from 1 to [`MAX_ITERATIONS`].
    #[error("iterations must be a number from 1 to {MAX_ITERATIONS}")]
    Iterations,
}

impl Verifier {
    /// The verifier of a password under a salt.
    pub fn derive(password: &str, salt: &[u8], iterations: u32) -> Verifier {
        let keys = ClientKeys::derive(password, salt, iterations);
        Verifier {
            iterations,
            salt: salt.to_vec(),
            stored_key: Zeroizing::new(sha256(&*keys.client_key)),
            server_key: keys.server_key,
            mock: false,
        }
    }

    /// The verifier of a password under a salt that is always the same for this user and secret. Together with
    /// [`Verifier::mock`] it lets a stranger see the same kind of salt, steady over time, for users that exist and for
    /// users that do not.
    pub fn of_user(password: &str, secret: &[u8; 32], user: &[u8]) -> Verifier {
        Verifier::derive(password, &salt(secret, user), DEFAULT_ITERATIONS)
    }

    /// A verifier for a user that does not exist: it looks like [`Verifier::of_user`] and lets nobody in.
    pub fn mock(secret: &[u8; 32], user: &[u8]) -> Verifier {
        Verifier {
            iterations: DEFAULT_ITERATIONS,
            salt: salt(secret, user),
            stored_key: Zeroizing::new([0; 32]),
            server_key: Zeroizing::new([0; 32]),
            mock: true,
        }
    }

    /// Reads the form PostgreSQL keeps in `pg_authid.rolpassword`.
    pub fn parse(text: &str) -> Result<Verifier, VerifierError> {
        let parts = || {
            let rest = text.strip_prefix(SCRAM_SHA_256)?.strip_prefix('$')?;
            let (head, keys) = rest.split_once('$')?;
            let (iterations, salt) = head.split_once(':')?;
            let (stored, server) = keys.split_once(':')?;
            let key = |text: &str| -> Option<Zeroizing<Key>> {
                let bytes = Zeroizing::new(BASE64.decode(text).ok()?);
                Some(Zeroizing::new(bytes.as_slice().try_into().ok()?))
            };
            Some((
                iterations,
                BASE64.decode(salt).ok()?,
                key(stored)?,
                key(server)?,
            ))
        };
        let (iterations, salt, stored_key, server_key) = parts().ok_or(VerifierError::Form)?;
        if !iterations.bytes().all(|b| b.is_ascii_digit()) {
            return Err(VerifierError::Iterations);
        }
        let iterations = iterations.parse().map_err(|_| VerifierError::Iterations)?;
        if !(1..=MAX_ITERATIONS).contains(&iterations) {
            return Err(VerifierError::Iterations);
        }
        Ok(Verifier {
            iterations,
            salt,
            stored_key,
            server_key,
            mock: false,
        })
    }

    /// Whether a text claims to be a verifier rather than a password.
    pub fn is_verifier(text: &str) -> bool {
        text.starts_with("SCRAM-SHA-256$")
    }

    /// The form PostgreSQL keeps in `pg_authid.rolpassword`.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "{SCRAM_SHA_256}${}:{}${}:{}",
            self.iterations,
            BASE64.encode(&self.salt),
            BASE64.encode(*self.stored_key),
            BASE64.encode(*self.server_key),
        ))
    }

    /// The server's key, which a client needs to know the server by.
    pub fn server_key(&self) -> &[u8; 32] {
        &self.server_key
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(..)")
    }
}

fn salt(secret: &[u8; 32], user: &[u8]) -> Vec<u8> {
    hmac(secret, &[b"salt of ", user])[..16].to_vec()
}
