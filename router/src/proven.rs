//! What users have proven when they logged in, by which the router proves to nodes that it acts for them.
//!
//! Of a user whose password the router does not know in the clear a login by SCRAM shows the client's key, which is good for every node that
//! keeps the same verifier (PostgreSQL's `rolpassword`): same salt, same iterations. Nothing of it is ever written anywhere.
//!
//! Invariant: what has been proven against one database's roles is not used for another's, where the same name may be somebody else.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use switchyard_wire::scram::ClientKeys;

use crate::config::Password;

/// By realm and user. There are as many as have logged in and are not known in the clear.
#[derive(Default)]
pub struct Proven(Mutex<HashMap<(Realm, Arc<str>), Proof>>);

/// Where a name is one user's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Realm {
    /// Everywhere: the file has the user, or it says where all are looked up.
    Everywhere,
    /// In the database where the user has been looked up.
    Database(Arc<str>),
}

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
    pub fn learn(&self, realm: Realm, user: &str, proof: Proof) {
        self.lock().insert((realm, user.into()), proof);
    }

    /// What the user has proven that holds in the database.
    #[must_use]
    pub fn of(&self, database: &str, user: &str) -> Option<Proof> {
        let realms = [Realm::Everywhere, Realm::Database(database.into())];
        let known = self.lock();
        let proof = |realm| known.get(&(realm, Arc::from(user))).cloned();
        realms.into_iter().find_map(proof)
    }

    /// There is no such user any more, or none who may log in.
    pub fn forget(&self, realm: Realm, user: &str) {
        self.lock().remove(&(realm, Arc::from(user)));
    }

    /// Forgets the users for whom `stays` is false.
    pub fn retain(&self, stays: impl Fn(&str) -> bool) {
        self.lock().retain(|(_, user), _| stays(user));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Realm, Arc<str>), Proof>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_somebody_else_in_another_database() {
        let proven = Proven::default();
        let proof = |text: &str| Proof::Password(Password::new(text));
        let realm = |database: &str| Realm::Database(database.into());
        proven.learn(realm("shop"), "bob", proof("one"));
        proven.learn(realm("other"), "bob", proof("two"));
        proven.learn(Realm::Everywhere, "ann", proof("three"));
        assert!(proven.of("shop", "bob") == Some(proof("one")));
        assert!(proven.of("other", "bob") == Some(proof("two")));
        assert!(proven.of("third", "bob").is_none());
        assert!(proven.of("third", "ann") == Some(proof("three")));
        proven.forget(realm("shop"), "bob");
        assert!(proven.of("shop", "bob").is_none());
        proven.retain(|user| user == "ann");
        assert!(proven.of("other", "bob").is_none() && proven.of("shop", "ann").is_some());
    }
}
