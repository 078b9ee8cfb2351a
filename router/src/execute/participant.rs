//! One backend taking part in what a client does, and what is known of it meanwhile.

use std::borrow::Cow;
use std::sync::Arc;

use smallvec::SmallVec;
use switchyard_schema::ShardIndex;
use switchyard_wire::backend::TransactionStatus;
use switchyard_wire::frontend::encode;

use crate::backend::{Borrowed, QueryError, Reply, Settings, Show};
use crate::execute::block::Block;
use crate::execute::failure::Failure;
use crate::plan::{Access, Command, Pins, Plan};

/// One backend taking part in what the client does.
#[derive(Debug)]
pub(crate) struct Participant {
    pub(crate) shard: ShardIndex,
    pub(crate) shard_name: Arc<str>,
    pub(crate) is_primary: bool,
    pub(crate) connection: Borrowed,
    /// It has joined the session's transaction block.
    pub(crate) in_block: bool,
    /// It has been used since it was borrowed or, if the session kept it, since the request before.
    pub(crate) used: bool,
    /// Something other than a plain read ran here since it was borrowed.
    pub(crate) wrote: bool,
    /// A statement that changes rows ran here since it was borrowed.
    pub(crate) changed: bool,
    /// What runs is not a query: outside a block PostgreSQL finishes it also for a client that has left.
    pub(crate) finishes: bool,
    /// Rows that are read here, not passed on, are still to come.
    pub(crate) unread: bool,
    /// It waits for COPY data.
    pub(crate) copying: bool,
    /// An error was shown since the request began.
    pub(crate) failed: bool,
    /// So many of the client's Parse messages did not take place because of that error.
    pub(crate) unparsed: usize,
    /// It has been sent messages of the extended protocol since the last Sync.
    pub(crate) needs_sync: bool,
    /// Bytes of its reply to this request have reached the client.
    pub(crate) shown: bool,
    /// The number of the statement bound last, and the client's name for it.
    pub(crate) bound: (u64, SmallVec<[u8; 24]>),
    /// Why it stays with the session between requests.
    pub(crate) pins: Pins,
    /// One of these reasons may have ended.
    pub(crate) may_unpin: bool,
    /// What its session remembers of sequences.
    pub(crate) sequences: Sequences,
    /// The sequences of which it does, as expressions in SQL; `None` if it may be others.
    pub(crate) used_sequences: Option<Vec<Box<str>>>,
    /// Values of its sequences have been told to the client, which may store them anywhere.
    pub(crate) told_next: bool,
    /// Values of its sequences are stored on other shards in this block.
    pub(crate) gave_next: bool,
}

/// Has a transaction wait for the disk when it commits, if anything in the server's log is not there.
pub(crate) const HAVE_ON_DISK: &str = concat!(
    "SELECT CASE WHEN pg_catalog.pg_current_wal_flush_lsn() < pg_catalog.pg_current_wal_insert_lsn()",
    " THEN pg_catalog.pg_logical_emit_message(true, 'switchyard', 'values of sequences') END"
);

/// Whose values of sequences a backend's session remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sequences {
    /// Not this session's.
    Unused,
    /// This session's only.
    Own,
    /// This session's, and those of sessions before it.
    Mixed,
}

impl Participant {
    /// A backend just borrowed, on which nothing has run yet.
    pub(super) fn new(
        shard: ShardIndex,
        name: &Arc<str>,
        is_primary: bool,
        connection: Borrowed,
    ) -> Self {
        Self {
            shard,
            shard_name: Arc::clone(name),
            is_primary,
            connection,
            in_block: false,
            used: false,
            wrote: false,
            changed: false,
            finishes: false,
            unread: false,
            copying: false,
            failed: false,
            unparsed: 0,
            needs_sync: false,
            shown: false,
            bound: (0, SmallVec::new()),
            pins: Pins::NONE,
            may_unpin: false,
            sequences: Sequences::Unused,
            used_sequences: Some(Vec::new()),
            told_next: false,
            gave_next: false,
        }
    }

    /// Takes note of what a statement gives reason to keep it for, and of reasons that end with it. What happens in a block may be undone.
    pub(crate) fn note_pins(&mut self, of: &Plan) {
        let pins = of.effects.pins;
        self.may_unpin |= of.may_unpin() || self.in_block && !pins.is_empty();
        self.pins.extend(pins);
    }

    /// Takes note that a statement is about to use these sequences, or others.
    pub(crate) fn note_sequences(&mut self, of: &Plan) {
        self.told_next |= of.command == Command::Select;
        let known = !of.effects.unseen_sequences && !of.sequences.is_empty();
        match self.used_sequences.as_mut().filter(|_| known) {
            None => self.used_sequences = None,
            Some(used) => {
                for sequence in &of.sequences {
                    if !used.contains(sequence) {
                        used.push(sequence.clone());
                    }
                }
            }
        }
    }

    /// The sequences whose values are the client's and can be asked for.
    pub(crate) fn own_sequences(&self) -> Option<&[Box<str>]> {
        let own = self.sequences == Sequences::Own && !self.connection.broken;
        self.used_sequences.as_deref().filter(|_| own)
    }

    /// What commits where nothing is prepared. Values of sequences that are stored elsewhere must not come again, whatever happens
    /// here: PostgreSQL does not wait for the disk where a transaction has only taken values that another one has logged.
    pub(crate) fn commit_sql(&self) -> Cow<'static, str> {
        match self.gave_next && !self.changed {
            true => format!("{HAVE_ON_DISK}; COMMIT").into(),
            false => "COMMIT".into(),
        }
    }

    /// Whether a server's session is to be asked about sequences, or to have them on its disk, before others get it.
    pub(crate) fn owes_sequences(&self) -> bool {
        !self.connection.broken && (self.told_next || self.own_sequences().is_some())
    }

    /// Whether the block cannot commit if this participant is lost before it does.
    pub(crate) fn must_commit(&self) -> bool {
        self.wrote || self.gave_next
    }

    /// Whether reads may go elsewhere: it is held by the mode of pooling alone, and nothing of the session's is to be found
    /// only here.
    pub(super) fn is_at_rest(&self) -> bool {
        let connection = &self.connection;
        let is_plain = self.pins.is_empty() && !connection.dirty && !connection.seeded;
        is_plain && !self.used && !self.in_block
    }

    /// Whether the session's settings hold here. Inside its block they were applied as the block went.
    pub(crate) fn has(&self, settings: &Arc<Settings>) -> bool {
        self.connection.applied.as_ref() == Some(settings) || self.in_block
    }

    /// Joins the session's block, if there is one and it has not yet.
    pub(super) fn join_block(&mut self, block: Option<&Block>) {
        if let Some(block) = block
            && !self.in_block
        {
            self.queue_query(&block.joining_sql());
            self.in_block = true;
        }
    }

    /// Takes note that a statement with this plan is about to run here.
    pub(crate) fn note_run(&mut self, plan: &Plan) {
        let writes = matches!(plan.access, Access::LockingRead | Access::Write);
        self.wrote |= writes;
        self.changed |= plan.access == Access::Write;
        self.finishes |= writes && !matches!(plan.command, Command::Select);
    }

    /// Takes note that a query of the client's, with this plan, is sent here next.
    pub(crate) fn expect_query(&mut self, plan: &Plan, show_ready: bool, show: Show) {
        self.note_run(plan);
        self.connection.unnamed = None;
        let reply = Reply::Query { show_ready };
        self.connection.replies.expect(reply, show);
    }

    /// Queues a query of ours, of whose reply nobody sees anything but errors.
    pub(crate) fn queue_query(&mut self, sql: &str) {
        self.queue_query_shown(sql, Show::Errors);
    }

    /// The same, but for ReadyForQuery, with an answer that may be the client's.
    pub(crate) fn queue_query_shown(&mut self, sql: &str, show: Show) {
        encode::query(&mut self.connection.output, sql.as_bytes());
        self.connection.unnamed = None;
        self.connection
            .replies
            .expect(Reply::Query { show_ready: false }, show);
    }

    /// Whether this was the tag of the last statement that completed.
    pub(crate) fn last_tag_is(&self, tag: &[u8]) -> bool {
        self.connection.replies.last_tag().is(tag)
    }

    /// What the last ReadyForQuery said.
    pub(crate) fn status(&self) -> TransactionStatus {
        self.connection.replies.status()
    }

    /// The failure for a connection that was lost while a statement ran.
    pub(crate) fn lost(&mut self, committing: bool) -> Failure {
        self.connection.broken = true;
        self.connection.node().suspect();
        let shard = (&*self.shard_name).into();
        if committing {
            Failure::OutcomeUnknown { shard }
        } else {
            Failure::ShardLost { shard }
        }
    }

    pub(crate) fn query_failure(&mut self, error: QueryError) -> Failure {
        match error {
            QueryError::Server { sqlstate, message } => Failure::ShardRefused {
                shard: (&*self.shard_name).into(),
                sqlstate,
                message: message.into(),
            },
            QueryError::Io(_) | QueryError::Protocol(_) => self.lost(false),
        }
    }

    /// Makes `settings` hold: one round trip, taken before the client's statement goes out, for it must not run under
    /// other settings (another role, say) should one of them fail.
    pub(crate) async fn apply(&mut self, settings: &Arc<Settings>) -> Result<(), Failure> {
        let connection = &mut *self.connection;
        let preamble = settings.preamble(connection.applied.as_deref());
        connection.applied = None;
        if !preamble.is_empty() {
            let answer = connection.simple_query(&preamble).await;
            answer.map_err(|error| self.query_failure(error))?;
        }
        self.connection.applied = Some(Arc::clone(settings));
        self.connection.unnamed = None;
        Ok(())
    }
}
