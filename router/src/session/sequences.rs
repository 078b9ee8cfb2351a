//! What a backend's session remembers for its client's next statements: the values of sequences (`currval`, `lastval`) and
//! the seed of `random()`.
//!
//! Such state is the client's within a transaction block, and as long as the backend stays with it. A block that uses
//! sequences begins on a backend that remembers nothing of other clients. When a backend goes back to its pool, what it remembers of sequences
//! is asked for, if it is known which ones it may have used; from then on the session gives it with the statements that read it. Where that
//! cannot be known, what would need the state is refused.

use switchyard_schema::ShardIndex;

use super::Session;
use crate::execute::failure::Failure;
use crate::execute::participant::Sequences;
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::execute::remember::remember;
use crate::execute::workspace::Workspace;
use crate::plan::{Operator, Plan, Write};

impl Session {
    /// Makes sure that a statement about to run on a participant finds the client's own state there, or none.
    pub(super) fn prepare_state(&mut self, index: usize, plan: &Plan) -> Result<(), Failure> {
        if self.block_has_failed() {
            return Ok(());
        }
        let effects = plan.effects;
        if effects.uses_sequences || effects.reads_sequence_state {
            let given = matches!(&plan.operator, Operator::Write(write) if write.remembers);
            self.prepare_sequences(index, plan, given)?;
        }
        if effects.asks_channels && self.listening.is_some() {
            return Err(Failure::Unsupported {
                what: "pg_listening_channels() in a session that listens".into(),
                hint: "One connection listens for all clients of the database.",
            });
        }
        if effects.seeds_random {
            let stays = self.stays(index);
            let Some(participant) = self.participants.get_mut(index).filter(|_| stays) else {
                return Err(Failure::Unsupported {
                    what: "setseed() outside a transaction block".into(),
                    hint: "Call it in the transaction block that calls random().",
                });
            };
            participant.connection.seeded = true;
        }
        Ok(())
    }

    /// Whether the client's next statement can find what this one leaves on the backend.
    fn stays(&self, index: usize) -> bool {
        let held = self.participants.get(index);
        self.block.is_some() || held.is_some_and(|held| self.participants.keeps(held))
    }

    /// The first shard joins, whose sequences are everybody's, to give values for rows of other shards.
    pub(super) async fn join_sequences(&mut self, plan: &Plan) -> Result<usize, Trouble> {
        let index = self.join(ShardIndex::FIRST, Need::Primary).await?;
        self.prepare_sequences(index, plan, true)?;
        self.participants.at(index)?.gave_next = true;
        Ok(index)
    }

    /// The same where a connection apart gives them, which keeps what it remembers of them to itself.
    pub(super) async fn join_sequences_apart(&mut self) -> Result<(), Trouble> {
        let index = self.join(ShardIndex::FIRST, Need::Primary).await?;
        self.participants.at(index)?.gave_next = true;
        Ok(())
    }

    /// A workspace is about to take values of these sequences; of none: nobody knows of which. What participants remember of them is not
    /// the latest any more.
    pub(super) fn take_sequences_apart(&mut self, workspace: &mut Workspace, of: &[Box<str>]) {
        let mut known = !of.is_empty();
        for participant in self.participants.iter_mut() {
            if participant.sequences == Sequences::Own {
                participant.sequences = Sequences::Mixed;
                known = false;
            }
        }
        workspace.sequences = of.to_vec();
        self.participants.sequences_apart += usize::from(!of.is_empty());
        self.participants.sequences_elsewhere |= !known;
    }

    /// Asks a workspace that is at its end for the values it has taken.
    pub(super) async fn remember_of(&mut self, workspace: &mut Workspace) {
        if workspace.sequences.is_empty() {
            return;
        }
        let connection = &mut workspace.backend.connection;
        let remembered = &mut self.participants.remembered;
        let learnt = !connection.broken
            && remember(connection, (&workspace.sequences, true), remembered).await;
        self.participants.sequences_elsewhere |= !learnt;
        self.participants.sequences_apart -= 1;
    }

    /// `given`: what the session remembers is given with the statement.
    fn prepare_sequences(&mut self, index: usize, plan: &Plan, given: bool) -> Result<(), Failure> {
        let (uses, reads) = (
            plan.effects.uses_sequences,
            plan.effects.reads_sequence_state,
        );
        let stays = self.stays(index);
        let apart = self.participants.sequences_apart > 0;
        let elsewhere = apart || self.participants.sequences_elsewhere || {
            let mut others = self.participants.iter().enumerate();
            others.any(|(other, held)| other != index && held.sequences != Sequences::Unused)
        };
        let elsewhere = elsewhere || !given && !self.participants.remembered.is_empty();
        let Some(participant) = self.participants.get_mut(index) else {
            return Ok(());
        };
        let connection = &participant.connection;
        let foreign = connection.sequences && participant.sequences == Sequences::Unused;
        // Between a batch's messages and its Sync a query of ours would end its transaction; and a server that has met an error in one of
        // them ignores it.
        let replies = &connection.replies;
        let answers = participant.in_block && replies.is_settled() && !replies.is_skipping();
        let in_batch = participant.needs_sync && !answers;
        match participant.sequences {
            Sequences::Own => {}
            Sequences::Mixed if reads => return Err(not_here()),
            Sequences::Unused if reads && !uses && elsewhere => return Err(not_here()),
            Sequences::Unused if reads && foreign && in_batch => return Err(not_here()),
            Sequences::Unused | Sequences::Mixed => {}
        }
        // Where the backend goes back at once, what is there of others makes what is there uncertain.
        if foreign && !in_batch && (reads || stays) {
            participant.queue_query("DISCARD SEQUENCES");
            participant.connection.sequences = false;
        }
        if uses {
            participant.note_sequences(plan);
        }
        if uses && participant.sequences != Sequences::Own {
            participant.sequences = match participant.connection.sequences {
                true => Sequences::Mixed,
                false => Sequences::Own,
            };
            participant.connection.sequences = true;
        }
        Ok(())
    }

    /// Whether a statement that reads what the session remembers of sequences has to be given it.
    pub(super) fn gives_remembered(&self, write: &Write) -> bool {
        write.remembers && !self.participants.remembered.is_empty()
    }

    /// Whether a backend that is held remembers values of this session's own.
    pub(super) fn has_own_sequences(&self) -> bool {
        let mut held = self.participants.iter();
        held.any(|held| held.sequences == Sequences::Own)
    }

    /// Names may mean other sequences from now on: by the names that the client has used nobody can be asked for their values.
    pub(super) fn rename_sequences(&mut self) {
        for participant in self.participants.iter_mut() {
            let used = participant.used_sequences.as_ref();
            if used.is_some_and(|used| !used.is_empty()) {
                participant.used_sequences = None;
            }
        }
    }

    /// The text with what the session remembers of sequences.
    pub(super) fn with_remembered(&mut self, sql: &[u8], plan: &Plan) -> Result<Vec<u8>, Failure> {
        let mut used = Vec::new();
        let mut unseen = plan.effects.unseen_sequences || self.participants.sequences_apart > 0;
        for held in self.participants.iter() {
            match &held.used_sequences {
                Some(own) => used.extend(own.iter().cloned()),
                None => unseen = true,
            }
        }
        if unseen {
            return Err(not_here());
        }
        let remembered = &self.participants.remembered;
        remembered
            .text(sql, &used, &plan.sequences)
            .ok_or(Failure::Retry)
    }

    /// `DISCARD SEQUENCES` has run on all that is held; what is not held is somebody else's.
    pub(super) fn forget_sequences(&mut self) {
        self.participants.sequences_elsewhere = false;
        self.participants.remembered.clear();
        for participant in self.participants.iter_mut() {
            participant.sequences = Sequences::Unused;
            participant.used_sequences = Some(Vec::new());
            participant.connection.sequences = false;
        }
    }
}

fn not_here() -> Failure {
    Failure::Unsupported {
        what: "currval() or lastval() outside the transaction that used the sequence".into(),
        hint: "Call it in the same transaction block, or use INSERT … RETURNING.",
    }
}
