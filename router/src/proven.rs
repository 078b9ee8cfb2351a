//! What users have proven when they logged in, by which the router proves to nodes that it acts for them.
//!
//! Of a user whose password the router does not know in the clear a login by SCRAM shows the client's key, which is good for every node that
//! keeps the same verifier (PostgreSQL's `rolpassword`): same salt, same iterations. Nothing of it is ever written anywhere.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use switchyard_wire::scram::ClientKeys;

use crate::config::Password;

/// By user. There are as many as have logged in and are not known in the clear.
#[derive(Default)]
pub struct Proven(Mutex<HashMap<Arc<str>, Proof>>);

/// What a user has proven.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof {
    /// That it knows the password of this verifier.
    Keys {
        /// The verifier's salt.
        salt: Vec<u8>,
        /// Its iterations.
        iterations: u32,
        /// What the password becomes by these.
        keys: ClientKeys,
    },
    /// That it knows this password.
    Password(Password),
}

impl Proven {
    /// The user has proven this.
    pub fn learn(&self, user: &str, proof: Proof) {
        let mut known = self.lock();
        if known.get(user) != Some(&proof) {
            known.insert(user.into(), proof);
        }
    }

    /// What the user has proven.
    #[must_use]
    pub fn of(&self, user: &str) -> Option<Proof> {
        self.lock().get(user).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Proof>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Proven {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Proven(..)")
    }
}

impl PartialEq for Proven {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Proven {}
