//! Transactions that have written on several shards: all of them commit, or none.
//!
//! One of the shards is the *decider*. While the others prepare their parts, it writes a row to `switchyard.decisions` that says
//! that the transaction is committed; then the decider commits, its part of the data with the row; then the others commit what they have
//! prepared. So the decision is as durable as the data, and no router keeps anything. Whoever finds a prepared part without
//! its session asks the decider: the row is there, or it is put there, saying that the transaction is rolled back. Either
//! way the first to commit a row decides, as it has a unique key.
//!
//! A transaction that a client prepares itself is decided by the first shard: the row is written in its part there, which is prepared under the client's
//! own name, so that COMMIT PREPARED of that name is what decides. Until then the part keeps a lock that says so.
//!
//! A `GlobalId` names such a transaction; the session commits it (`session/transaction/commit.rs`), or prepares it and ends it later
//! (`session/transaction/prepared.rs`), and [`recovery`] ends what a session has left. ADR 0015 and 0022 have the reasons.

pub mod fence;
pub mod recovery;

use std::fmt;
use std::num::NonZeroU32;

use postgres_protocol::escape::escape_literal;
use sha2::{Digest, Sha256};

/// PostgreSQL's limit of such a name, in bytes.
const MAX_BYTES: usize = 199;
/// What comes first in each.
const PREFIX: &str = "switchyard";
/// What makes the number of an advisory lock of a name.
const LOCK: &str = "pg_catalog.hashtextextended";
/// What comes first in what is computed of a client's name, where else a process stands.
const CLIENTS: char = 'c';
/// The decider of transactions that change where a table's rows are, in the place of a shard's name: no shard is called so.
pub const CATALOG: &str = "(catalog)";
/// Asks a node for the names of the parts of such transactions that are prepared there.
pub(crate) const PARTS: &str = "\
SELECT gid FROM pg_catalog.pg_prepared_xacts
WHERE database = pg_catalog.current_database() AND gid LIKE 'switchyard.%'";

/// The name of a transaction on several shards, under which its parts are prepared
/// (<https://www.postgresql.org/docs/current/sql-prepare-transaction.html>). It says who decides, so that any router can
/// ask.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GlobalId {
    /// What tells it from all others: 32 hexadecimal digits.
    token: Box<str>,
    /// Who has the decider's part until it is decided.
    pub(crate) holder: Holder,
    /// The shard that decides.
    pub decider: Box<str>,
    /// Whom the session is logged in as on the shards.
    pub(crate) user: Box<str>,
}

/// Who has the decider's part of a transaction until it is decided.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// The backend of a session, by its process.
    Backend(NonZeroU32),
    /// A client that prepares it, by what is computed of the name that the client gives it: see [`digest`].
    Client(Box<str>),
}

/// What is computed of the name that a client has given a transaction: 32 hexadecimal digits. The name itself would be too long to be part of
/// another one.
pub(crate) fn digest(name: &str) -> Box<str> {
    let bytes = Sha256::digest(name.as_bytes());
    let digits = bytes.iter().take(16).map(|byte| format!("{byte:02x}"));
    digits.collect::<String>().into()
}

/// Whether a name is of the kind that is the router's own.
pub(crate) fn is_reserved(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// Why there is no name for a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unnamed {
    /// The names of the shard and of the user are too long together.
    #[error("the names of the shard and of the user are too long")]
    TooLong,
    /// The decider has not said which process it is.
    #[error("the process of a backend is not known")]
    NoProcess,
    /// The system has no random numbers.
    #[error("no random numbers")]
    NoRandomNumbers,
}

impl GlobalId {
    /// A new one, of a transaction that a session ends.
    ///
    /// # Errors
    /// [`Unnamed`].
    pub fn new(process: i32, decider: &str, user: &str) -> Result<Self, Unnamed> {
        let process = u32::try_from(process).ok().and_then(NonZeroU32::new);
        Self::held_by(
            Holder::Backend(process.ok_or(Unnamed::NoProcess)?),
            decider,
            user,
        )
    }

    /// A new one, of a transaction that a client prepares under a name of its own.
    pub(crate) fn of_client(name: &str, decider: &str, user: &str) -> Result<Self, Unnamed> {
        Self::held_by(Holder::Client(digest(name)), decider, user)
    }

    fn held_by(holder: Holder, decider: &str, user: &str) -> Result<Self, Unnamed> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| Unnamed::NoRandomNumbers)?;
        let id = Self {
            token: format!("{:032x}", u128::from_be_bytes(random)).into(),
            holder,
            decider: decider.into(),
            user: user.into(),
        };
        match id.to_string().len() <= MAX_BYTES {
            true => Ok(id),
            false => Err(Unnamed::TooLong),
        }
    }

    /// Reads one; `None` if the name is somebody else's.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        // Shards' names have no dots.
        let mut parts = name.splitn(5, '.');
        if parts.next()? != PREFIX {
            return None;
        }
        let token = parts.next()?;
        let is_token = token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
        let holder = parts.next()?;
        let holder = match holder.strip_prefix(CLIENTS) {
            Some(digest) => Holder::Client(digest.into()),
            None => Holder::Backend(holder.parse().ok()?),
        };
        let (decider, user) = (parts.next()?, parts.next()?);
        is_token.then(|| Self {
            token: token.into(),
            holder,
            decider: decider.into(),
            user: user.into(),
        })
    }

    /// Whether a client has given it this name.
    pub(crate) fn is_of_client(&self, name: &str) -> bool {
        matches!(&self.holder, Holder::Client(known) if **known == *digest(name))
    }

    /// As a literal of SQL.
    fn literal(&self) -> String {
        escape_literal(&self.to_string())
    }

    /// Where the decision is recorded. What a client prepares has a table of its own, for it keeps it locked.
    fn table(&self) -> &'static str {
        match self.holder {
            Holder::Backend(_) => "switchyard.decisions",
            Holder::Client(_) => "switchyard.prepared",
        }
    }

    /// What makes a part ready to be committed.
    #[must_use]
    pub fn prepare(&self) -> String {
        format!("PREPARE TRANSACTION {}", self.literal())
    }

    /// What makes the decider's COMMIT that of the whole transaction. The lock lasts as long as a client's part does, through whatever restarts.
    pub(crate) fn decide(&self) -> String {
        let (id, table) = (self.literal(), self.table());
        match self.holder {
            Holder::Backend(_) => {
                format!("INSERT INTO {table} (gid) VALUES ({id})")
            }
            Holder::Client(_) => format!(
                "INSERT INTO {table} (gid) SELECT {id} FROM pg_catalog.pg_advisory_xact_lock_shared({LOCK}({id}, 0))"
            ),
        }
    }

    /// Asks the decider whether the transaction may yet be decided. To be asked before [`GlobalId::decision`]. If it is a client's, the second column
    /// says whether it is prepared there.
    pub(crate) fn held(&self) -> String {
        match self.holder {
            Holder::Backend(process) => format!(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'transactionid' AND granted AND pid = {process})"
            ),
            Holder::Client(_) => format!(
                "SELECT pg_catalog.count(*) > 0, pg_catalog.bool_or(pid IS NULL) FROM pg_catalog.pg_locks \
                 WHERE locktype = 'advisory' AND objsubid = 1 AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
                 AND (classid::pg_catalog.int8 << 32) | objid::pg_catalog.int8 = {LOCK}({}, 0)",
                self.literal()
            ),
        }
    }

    /// Asks the decider how it has decided: no row, if it has not. Nobody else's word that it is committed counts.
    pub(crate) fn decision(&self) -> String {
        format!(
            "SELECT committed AND decided_by = {} FROM {} WHERE gid = {}",
            escape_literal(&self.user),
            self.table(),
            self.literal()
        )
    }

    /// Has the decider decide that it is rolled back, unless it has decided.
    pub(crate) fn give_up(&self) -> String {
        format!(
            "INSERT INTO {} (gid, committed) VALUES ({}, false) ON CONFLICT DO NOTHING",
            self.table(),
            self.literal()
        )
    }

    /// What ends a part that has been prepared.
    #[must_use]
    pub fn end(&self, committed: bool) -> String {
        let verb = if committed { "COMMIT" } else { "ROLLBACK" };
        format!("{verb} PREPARED {}", self.literal())
    }
}

impl fmt::Display for GlobalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            token,
            holder,
            decider,
            user,
        } = self;
        write!(f, "{PREFIX}.{token}.{holder}.{decider}.{user}")
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend(process) => write!(f, "{process}"),
            Self::Client(digest) => write!(f, "{CLIENTS}{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{GlobalId, Unnamed, digest, is_reserved};

    #[test]
    fn a_name_is_read_as_it_was_written() {
        let id = GlobalId::new(4711, "s-1_b", "o'neil.jr").unwrap();
        assert_eq!(GlobalId::parse(&id.to_string()), Some(id.clone()));
        assert_ne!(GlobalId::new(4711, "s-1_b", "o'neil.jr"), Ok(id.clone()));
        assert_eq!(
            id.prepare(),
            format!(
                "PREPARE TRANSACTION 'switchyard.{}.4711.s-1_b.o''neil.jr'",
                id.token
            )
        );
    }

    #[test]
    fn a_clients_transaction_is_found_by_the_clients_name() {
        let name = "it's.long".repeat(22);
        let id = GlobalId::of_client(&name, "s0", "app").unwrap();
        let read = GlobalId::parse(&id.to_string()).unwrap();
        assert_eq!(read, id);
        assert!(read.is_of_client(&name) && !read.is_of_client("it's"));
        let own = GlobalId::new(4711, "s0", "app").unwrap();
        assert!(!own.is_of_client(&name));
        assert_eq!(&*digest("abc"), "ba7816bf8f01cfea414140de5dae2223");
        assert!(is_reserved("switchyard.x") && !is_reserved("switchyard") && !is_reserved("x"));
    }

    #[test]
    fn names_of_others_are_not_read() {
        let token = "0123456789abcdef0123456789abcdef";
        assert!(GlobalId::parse(&format!("switchyard.{token}.1.s0.app")).is_some());
        for name in [
            "pgdog_1",
            "switchyard",
            &format!("switchyard.{token}"),
            &format!("switchyard.{token}.0.s0.app"),
            &format!("switchyard.{token}.1.s0"),
            "switchyard.short.1.s0.app",
            &format!("other.{token}.1.s0.app"),
        ] {
            assert_eq!(GlobalId::parse(name), None, "{name}");
        }
    }

    #[test]
    fn what_has_no_name_says_why() {
        let long = "x".repeat(150);
        assert_eq!(GlobalId::new(1, &long, "app"), Err(Unnamed::TooLong));
        assert_eq!(GlobalId::new(0, "s0", "app"), Err(Unnamed::NoProcess));
    }
}
