//! The transaction block a client is in, as the router must remember it: participants join when they are first
//! touched, and what happened before is replayed to them ([`Block::joining_sql`]).

use std::fmt::Write;
use std::sync::Arc;

use crate::backend::{CONSISTENT_READ, Settings};
use crate::plan::Isolation;
use crate::session::Change;
use postgres_protocol::escape::escape_identifier;
use switchyard_schema::ShardIndex;

/// A transaction block: explicit (BEGIN), or the implicit one around several statements in one simple query.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// The statement that opens it on a shard, with the client's modes.
    begin: Box<str>,
    /// The client said BEGIN; otherwise the block ends with the query string.
    pub(crate) explicit: bool,
    /// No participant may write, so replicas may take part.
    pub(crate) read_only: bool,
    /// An error happened; only its end, or a rollback to a savepoint, is accepted.
    pub(crate) failed: Option<FailedOn>,
    /// Savepoints, settings, when constraints are checked and what is listened to, oldest first.
    replay: Vec<Replay>,
    /// The session's settings before the block, restored when it is rolled back. They hold on a participant when it
    /// joins.
    settings_before: Arc<Settings>,
    /// The settings that hold now, those of `SET LOCAL` included.
    effective: Arc<Settings>,
    /// Settings changed until its end or for longer, where that is not known: the participant (its shard, whether it is
    /// the primary) that will tell, and their names.
    pub(crate) unsure: Vec<(ShardIndex, bool, Box<str>)>,
    /// The schema has been changed in it.
    pub(crate) changed_schema: bool,
    /// And what is known of the relations is from before.
    pub(crate) relations_are_old: bool,
    /// Temporary relations have been made in it, or may have been renamed or dropped.
    pub(crate) changed_temporary: bool,
    /// Tables have been locked in it against every other session, the session's own workspaces too.
    pub(crate) locks_tables: bool,
    /// Rows have left their shards in it for others.
    pub(crate) moved_rows: bool,
    /// The snapshots of all shards have been taken at one moment.
    pub(crate) is_cut: bool,
    /// They are to be: `switchyard.consistent_read`.
    pub(crate) consistent: bool,
    /// The level that the client has given it.
    isolation: Option<Isolation>,
    /// What it has got by `AND CHAIN`.
    inherited: Option<Modes>,
    /// When it began, once a statement on several shards has asked.
    pub(crate) began: Option<Box<str>>,
}

/// The modes of a block, as the next one has them.
#[derive(Debug, Clone)]
struct Modes {
    begin: Box<str>,
    read_only: bool,
    isolation: Option<Isolation>,
}

/// Where a block failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailedOn {
    /// On a shard, whose own transaction is in the failed state.
    Shard(ShardIndex),
    /// In the router.
    Router,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Replay {
    Savepoint {
        name: Box<str>,
        settings: Arc<Settings>,
        effective: Arc<Settings>,
    },
    Setting(Box<str>),
    /// When constraints are checked.
    Constraints(Box<str>),
    /// Modes given behind a savepoint: to go back to it takes them back.
    Modes(Box<str>),
    /// LISTEN or UNLISTEN, for when it is committed.
    Listening(Change),
}

impl Block {
    pub(crate) fn explicit(begin: &str, read_only: bool, settings: &Arc<Settings>) -> Self {
        Self {
            begin: begin.into(),
            explicit: true,
            read_only,
            failed: None,
            replay: Vec::new(),
            settings_before: Arc::clone(settings),
            effective: Arc::clone(settings),
            unsure: Vec::new(),
            changed_schema: false,
            relations_are_old: false,
            changed_temporary: false,
            locks_tables: false,
            moved_rows: false,
            is_cut: false,
            consistent: settings.is_on(CONSISTENT_READ),
            isolation: None,
            inherited: None,
            began: None,
        }
    }

    /// The block around one statement, whose snapshots are taken at one moment.
    pub(crate) fn of_snapshot(settings: &Arc<Settings>) -> Self {
        let mut block = Self::implicit(settings);
        block.set_begin("BEGIN ISOLATION LEVEL REPEATABLE READ");
        block.set_isolation(Some(Isolation::RepeatableRead));
        block
    }

    /// Takes note of the level that the client gives it, if any.
    pub(crate) fn set_isolation(&mut self, isolation: Option<Isolation>) {
        self.isolation = isolation.or(self.isolation);
    }

    /// Whether its statements see what its first one has seen, as far as that is known.
    pub(crate) fn keeps_snapshot(&self) -> bool {
        let default = self
            .settings_before
            .value_of("default_transaction_isolation");
        match self.isolation {
            Some(level) => matches!(level, Isolation::RepeatableRead | Isolation::Serializable),
            None => default.is_some_and(|level| {
                level.eq_ignore_ascii_case("repeatable read")
                    || level.eq_ignore_ascii_case("serializable")
            }),
        }
    }

    /// The block around the statements of one query string.
    pub(crate) fn implicit(settings: &Arc<Settings>) -> Self {
        Self {
            explicit: false,
            ..Self::explicit("BEGIN", false, settings)
        }
    }

    /// What a participant that joins now must run first: one query string.
    pub(crate) fn joining_sql(&self) -> String {
        let mut sql = self.begin.to_string();
        for step in &self.replay {
            let _ = match step {
                Replay::Savepoint { name, .. } => {
                    write!(sql, "; SAVEPOINT {}", escape_identifier(name))
                }
                Replay::Setting(statement)
                | Replay::Constraints(statement)
                | Replay::Modes(statement) => write!(sql, "; {statement}"),
                Replay::Listening(_) => Ok(()),
            };
        }
        sql
    }

    /// The settings made in it, each behind a semicolon: for a session apart that is to run under the same.
    pub(crate) fn settings_sql(&self) -> String {
        let mut sql = String::new();
        for step in &self.replay {
            if let Replay::Setting(statement) = step {
                // Writing to a string does not fail.
                let _ = write!(sql, "; {statement}");
            }
        }
        sql
    }

    /// The client gives the block other modes, by this statement.
    pub(crate) fn set_begin(&mut self, begin: &str) {
        self.begin = begin.into();
    }

    /// Takes note of a `SET TRANSACTION`, whose modes are also those of a block that follows by `AND CHAIN`.
    pub(crate) fn add_modes(&mut self, statement: &str) {
        let statement = statement.trim().trim_end_matches(';');
        if self.has_savepoints() {
            self.replay.push(Replay::Modes(statement.into()));
        } else {
            self.begin = format!("{}; {statement}", self.begin).into();
        }
    }

    /// The block that follows on this one's end by `AND CHAIN`: with the same modes, but for those that a rollback has taken
    /// back. If it has failed outside of any savepoint, these are all that it has not itself got by `AND CHAIN`.
    pub(crate) fn next(&self, committed: bool, settings: &Arc<Settings>) -> Self {
        let inherited = match self.failed.is_some() && !self.has_savepoints() {
            true => self.inherited.clone(),
            false => Some(self.handed_on(committed)),
        };
        let Some(modes) = inherited else {
            return Self::explicit("BEGIN", false, settings);
        };
        let mut next = Self::explicit(&modes.begin, modes.read_only, settings);
        next.set_isolation(modes.isolation);
        next.inherited = Some(modes);
        next
    }

    fn handed_on(&self, committed: bool) -> Modes {
        let mut begin = self.begin.to_string();
        let is_kept = |step: &&Replay| committed || !matches!(step, Replay::Savepoint { .. });
        for step in self.replay.iter().take_while(is_kept) {
            if let Replay::Modes(statement) = step {
                let _ = write!(begin, "; {statement}");
            }
        }
        Modes {
            begin: begin.into(),
            read_only: self.read_only,
            isolation: self.isolation,
        }
    }

    /// The session's settings before the block.
    pub(crate) fn settings_before(&self) -> &Arc<Settings> {
        &self.settings_before
    }

    /// The settings that hold in it now.
    pub(crate) fn effective(&self) -> &Settings {
        &self.effective
    }

    pub(crate) fn add_savepoint(&mut self, name: &str, settings: &Arc<Settings>) {
        self.replay.push(Replay::Savepoint {
            name: name.into(),
            settings: Arc::clone(settings),
            effective: Arc::clone(&self.effective),
        });
    }

    /// Takes note of a statement that changed settings, and of what holds since.
    pub(crate) fn add_setting(&mut self, statement: &str, effective: Settings) {
        let statement = statement.trim().trim_end_matches(';');
        self.replay.push(Replay::Setting(statement.into()));
        self.effective = Arc::new(effective);
    }

    /// Takes note of a `SET CONSTRAINTS`.
    pub(crate) fn add_constraints(&mut self, statement: &str) {
        let statement = statement.trim().trim_end_matches(';');
        self.replay.push(Replay::Constraints(statement.into()));
    }

    /// Takes note of a LISTEN or UNLISTEN.
    pub(crate) fn add_listening(&mut self, change: Change) {
        self.replay.push(Replay::Listening(change));
    }

    /// The LISTENs and UNLISTENs that hold when it is committed, in their order.
    pub(crate) fn listening(&self) -> Vec<Change> {
        let changes = self.replay.iter().filter_map(|step| match step {
            Replay::Listening(change) => Some(change.clone()),
            Replay::Savepoint { .. }
            | Replay::Setting(_)
            | Replay::Constraints(_)
            | Replay::Modes(_) => None,
        });
        changes.collect()
    }

    /// True when a rollback to a savepoint is possible.
    pub(crate) fn has_savepoints(&self) -> bool {
        let is_savepoint = |step: &Replay| matches!(step, Replay::Savepoint { .. });
        self.replay.iter().any(is_savepoint)
    }

    /// True when the block has a savepoint of this name.
    pub(crate) fn has_savepoint(&self, name: &str) -> bool {
        self.position(name).is_some()
    }

    /// The steps it has taken so far that may be taken back: savepoints and what was set.
    pub(crate) fn steps(&self) -> usize {
        self.replay.len()
    }

    /// The steps it had taken when the savepoint was made, and with it.
    pub(crate) fn steps_to(&self, savepoint: &str) -> usize {
        self.position(savepoint).map_or(0, |position| position + 1)
    }

    /// Forgets the savepoint and all after it, keeping what was set since.
    pub(crate) fn release_savepoint(&mut self, name: &str) {
        if let Some(position) = self.position(name) {
            let later = self.replay.split_off(position);
            let kept = later
                .into_iter()
                .filter(|step| !matches!(step, Replay::Savepoint { .. }));
            self.replay.extend(kept);
        }
    }

    /// Goes back to the savepoint, which stays; returns the session's settings as they were then.
    pub(crate) fn rollback_to_savepoint(&mut self, name: &str) -> Option<Arc<Settings>> {
        let position = self.position(name)?;
        self.replay.truncate(position + 1);
        self.failed = None;
        match self.replay.last() {
            Some(Replay::Savepoint {
                settings,
                effective,
                ..
            }) => {
                self.effective = Arc::clone(effective);
                Some(Arc::clone(settings))
            }
            _ => None,
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.replay.iter().rposition(
            |step| matches!(step, Replay::Savepoint { name: known, .. } if **known == *name),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Block;
    use crate::backend::Settings;

    fn block() -> Block {
        Block::explicit(
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            false,
            &Arc::default(),
        )
    }

    #[test]
    fn a_late_participant_hears_what_happened() {
        let mut block = block();
        block.add_savepoint("a", &Arc::default());
        block.add_setting("SET LOCAL work_mem = '1MB';", Settings::default());
        block.add_savepoint("B", &Arc::default());
        assert_eq!(
            block.joining_sql(),
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SAVEPOINT \"a\"; SET LOCAL work_mem = '1MB'; SAVEPOINT \"B\""
        );
        block.release_savepoint("a");
        assert_eq!(
            block.joining_sql(),
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL work_mem = '1MB'"
        );
    }

    #[test]
    fn going_back_to_a_savepoint_keeps_it_and_takes_its_settings() {
        let mut block = block();
        let settings = Settings::default().with("timezone", "SET timezone = 'UTC'", None);
        let settings = Arc::new(settings);
        block.add_savepoint("a", &settings);
        block.add_savepoint("b", &Arc::default());
        assert_eq!(block.rollback_to_savepoint("a"), Some(settings));
        assert!(block.has_savepoint("a"));
        assert!(!block.has_savepoint("b"));
        assert_eq!(block.rollback_to_savepoint("b"), None);
    }
}
