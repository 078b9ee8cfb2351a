//! The keys that SCRAM derived from a password, kept for the next connection.

use std::sync::{Mutex, PoisonError};

use switchyard_wire::scram::ClientKeys;

/// The keys derived last. Deriving them takes a millisecond, in which a worker does nothing else, and a node wants the same ones
/// each time, until the role's password is set anew.
#[derive(Debug, Default)]
pub struct ScramKeys(Mutex<Option<Derived>>);

#[derive(Debug)]
struct Derived {
    salt: Vec<u8>,
    iterations: u32,
    keys: ClientKeys,
}

impl ScramKeys {
    /// The keys of a password, always the same, for this salt and number of iterations.
    pub(super) fn of(&self, password: &str, salt: &[u8], iterations: u32) -> ClientKeys {
        let mut derived = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = derived
            .as_ref()
            .filter(|known| known.salt == salt && known.iterations == iterations);
        if let Some(known) = known {
            return known.keys.clone();
        }
        let keys = ClientKeys::derive(password, salt, iterations);
        *derived = Some(Derived {
            salt: salt.to_vec(),
            iterations,
            keys: keys.clone(),
        });
        keys
    }
}
