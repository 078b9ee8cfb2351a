//! Transactions that have written on several shards: all of them commit, or none.
//!
//! One of the shards is the *decider*. While the others prepare their parts, it writes a row to `switchyard.decisions` that says
//! that the transaction is committed; then the decider commits, its part of the data with the row; then the others commit what they have
//! prepared. So the decision is as durable as the data, and no router keeps anything. Whoever finds a prepared part without
//! its session asks the decider: the row is there, or it is put there, saying that the transaction is rolled back. Either
//! way the first to commit a row decides, as it has a unique key.
//!
//! A `GlobalId` names such a transaction; the session commits it (`session/commit.rs`), and [`recovery`] ends what a session
//! has left. ADR 0015 has the reasons.

pub mod recovery;

use std::fmt;
use std::num::NonZeroU32;

use postgres_protocol::escape::escape_literal;

/// PostgreSQL's limit of such a name, in bytes.
const MAX_BYTES: usize = 199;
/// What comes first in each.
const PREFIX: &str = "switchyard";
/// The decider of transactions that change where a table's rows are, in the place of a shard's name: no shard is called so.
pub(crate) const CATALOG: &str = "(catalog)";

/// The name of a transaction on several shards, under which its parts are prepared
/// (<https://www.postgresql.org/docs/current/sql-prepare-transaction.html>). It says who decides, so that any router can
/// ask.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GlobalId {
    /// What tells it from all others: 32 hexadecimal digits.
    token: Box<str>,
    /// The process of the backend on the decider that the transaction runs on.
    pub(crate) process: NonZeroU32,
    /// The shard that decides.
    pub(crate) decider: Box<str>,
    /// Whom the session is logged in as on the shards.
    pub(crate) user: Box<str>,
}

/// Why there is no name for a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unnamed {
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
    /// A new one.
    pub(crate) fn new(process: i32, decider: &str, user: &str) -> Result<Self, Unnamed> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| Unnamed::NoRandomNumbers)?;
        let process = u32::try_from(process).ok().and_then(NonZeroU32::new);
        let id = Self {
            token: format!("{:032x}", u128::from_be_bytes(random)).into(),
            process: process.ok_or(Unnamed::NoProcess)?,
            decider: decider.into(),
            user: user.into(),
        };
        match id.to_string().len() <= MAX_BYTES {
            true => Ok(id),
            false => Err(Unnamed::TooLong),
        }
    }

    /// Reads one; `None` if the name is somebody else's.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        // Shards' names have no dots.
        let mut parts = name.splitn(5, '.');
        if parts.next()? != PREFIX {
            return None;
        }
        let token = parts.next()?;
        let is_token = token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
        let process = parts.next()?.parse().ok()?;
        let (decider, user) = (parts.next()?, parts.next()?);
        is_token.then(|| Self {
            token: token.into(),
            process,
            decider: decider.into(),
            user: user.into(),
        })
    }

    /// As a literal of SQL.
    fn literal(&self) -> String {
        escape_literal(&self.to_string())
    }

    /// What makes a part ready to be committed.
    pub(crate) fn prepare(&self) -> String {
        format!("PREPARE TRANSACTION {}", self.literal())
    }

    /// What makes the decider's COMMIT that of the whole transaction.
    pub(crate) fn decide(&self) -> String {
        let id = self.literal();
        format!("INSERT INTO switchyard.decisions (gid) VALUES ({id})")
    }

    /// What ends a part that has been prepared.
    pub(crate) fn end(&self, committed: bool) -> String {
        let verb = if committed { "COMMIT" } else { "ROLLBACK" };
        format!("{verb} PREPARED {}", self.literal())
    }
}

impl fmt::Display for GlobalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            token,
            process,
            decider,
            user,
        } = self;
        write!(f, "{PREFIX}.{token}.{process}.{decider}.{user}")
    }
}

#[cfg(test)]
mod tests {
    use super::{GlobalId, Unnamed};

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
