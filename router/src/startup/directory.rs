//! Users that are not in the configuration, looked up on a node by `auth_query`.
//!
//! Invariants: a connection that asks never carries anything of a client's but the name, as a parameter; its `search_path` is empty, so
//! that nothing a client or a schema brings is taken for PostgreSQL's own; and such connections are in pools of their own. Nobody is
//! asked while the database is paused.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;

use switchyard_schema::UserLookup;

use super::Refusal;
use super::lookups::Lookups;
use crate::backend::{CheckoutError, PoolKey, Purpose, QueryError, TextRow};
use crate::config::Password;
use crate::proven::Realm;
use crate::topology::{Node, Observed, Topology};
use crate::worker::Services;

/// Where users are looked up.
#[derive(Clone)]
pub struct Directory {
    services: Arc<Services>,
    lookups: Arc<Lookups>,
    worker: usize,
}

impl fmt::Debug for Directory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Directory(..)")
    }
}

/// A user that has been found.
#[derive(Debug)]
pub(super) struct Found {
    /// The password, or a verifier of it; none if nobody can log in as this user by one.
    pub(super) password: Option<Password>,
    /// Where the name is this user's.
    pub(super) realm: Realm,
}

/// Why nobody can be looked up.
#[derive(Debug, thiserror::Error)]
enum LookupError {
    #[error("no node of the database can be asked")]
    NoNode,
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("auth_query has to return a name and a password")]
    Columns,
    #[error("auth_query has returned more than one row")]
    Rows,
}

impl Directory {
    /// That of a worker.
    #[must_use]
    pub fn new(services: Arc<Services>, lookups: Arc<Lookups>, worker: usize) -> Self {
        Self {
            services,
            lookups,
            worker,
        }
    }

    /// The user, if there is such a one, for a client from this address. Nobody is asked unless the configuration says how.
    pub(super) async fn find(
        &self,
        address: Option<IpAddr>,
        database: &str,
        user: &str,
    ) -> Result<Option<Found>, Refusal> {
        let settings = self.services.settings.load_full();
        let Some(lookup) = &settings.file.auth.lookup else {
            return Ok(None);
        };
        let _asking = self.lookups.turn(address).await;
        let asked = Box::pin(self.ask(lookup, database, user)).await;
        let found = asked.and_then(|(realm, rows)| {
            let password = found(rows, user)?;
            if password.as_ref().is_none_or(Option::is_none) {
                settings.users.proven().forget(realm.clone(), user);
            }
            Ok(password.map(|password| Found { password, realm }))
        });
        found.map_err(|error| {
            tracing::warn!(%error, "a user could not be looked up");
            Refusal::Lookup
        })
    }

    async fn ask(
        &self,
        lookup: &UserLookup,
        database: &str,
        user: &str,
    ) -> Result<(Realm, Vec<TextRow>), LookupError> {
        let wanted = lookup.database.as_deref().unwrap_or(database);
        let topology = self.services.topology.snapshot();
        let (database, _) = place(&topology, wanted).ok_or(LookupError::NoNode)?;
        self.services.gates.of(&database).pass().await;
        // The servers may be others after a pause.
        let topology = self.services.topology.snapshot();
        let (database, node) = place(&topology, wanted).ok_or(LookupError::NoNode)?;
        let realm = match lookup.database {
            Some(_) => Realm::Everywhere,
            None => Realm::Database(Arc::clone(&database)),
        };
        let key = PoolKey {
            node: node.id,
            database,
            user: lookup.user.as_str().into(),
            purpose: Purpose::Logins,
        };
        let pool = self.services.pool(key, node);
        let pool = pool.map_err(|_| LookupError::NoNode)?;
        let turn = Arc::default();
        let lent = pool.check_out(self.worker, 0, &turn, |_| Poll::Pending);
        let mut connection = lent.await?;
        let rows = connection.query_with(&lookup.query, &[user]).await?;
        connection.give_back();
        Ok((realm, rows))
    }
}

/// Where to ask: the first shard of the database, or of any if there is no such one, so that nobody hears which there are.
fn place<'a>(topology: &'a Topology, database: &str) -> Option<(Arc<str>, &'a Arc<Node>)> {
    let any = || topology.databases.values().next();
    let database = topology.database(database).or_else(any)?;
    let shard = database.shards.first()?;
    let is_up = |node: &&Arc<Node>| node.observed() != Observed::Down;
    let node = shard.writer().ok();
    let node = node.or_else(|| shard.nodes.iter().find(is_up))?;
    Some((Arc::clone(&database.name), node))
}

/// The password of the user, if there is such a one, and if the user has one.
fn found(mut rows: Vec<TextRow>, user: &str) -> Result<Option<Option<Password>>, LookupError> {
    if rows.len() > 1 {
        return Err(LookupError::Rows);
    }
    let Some(mut row) = rows.pop() else {
        return Ok(None);
    };
    let [name, password, ..] = row.as_mut_slice() else {
        return Err(LookupError::Columns);
    };
    let password = password.take().map(Password::from);
    // A name that is too long for PostgreSQL finds the role whose name is its beginning.
    let is_same = name.as_deref() == Some(user);
    Ok(is_same.then_some(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_the_user_that_was_asked_for() {
        let row = |values: &[Option<&str>]| -> TextRow {
            values
                .iter()
                .map(|value| value.map(str::to_owned))
                .collect()
        };
        let found = |rows: Vec<TextRow>| {
            found(rows, "ann").map(|found| found.map(|password| password.is_some()))
        };
        let ann = || row(&[Some("ann"), Some("secret")]);
        assert!(matches!(found(vec![ann()]), Ok(Some(true))));
        assert!(matches!(
            found(vec![row(&[Some("ann"), None])]),
            Ok(Some(false))
        ));
        assert!(matches!(
            found(vec![row(&[Some("Ann"), Some("x")])]),
            Ok(None)
        ));
        assert!(matches!(found(vec![row(&[None, Some("x")])]), Ok(None)));
        assert!(matches!(found(Vec::new()), Ok(None)));
        assert!(matches!(found(vec![ann(), ann()]), Err(LookupError::Rows)));
        assert!(matches!(
            found(vec![row(&[Some("ann")])]),
            Err(LookupError::Columns)
        ));
    }
}
