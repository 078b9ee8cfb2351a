//! What a backend's session remembers for its client's next statements: the values of sequences (`currval`, `lastval`) and
//! the seed of `random()`.
//!
//! Such state is the client's within a transaction block, and as long as the backend stays with it. A block that uses
//! sequences begins on a backend that remembers nothing of other clients. Elsewhere what would need the state is refused.

use switchyard_schema::ShardIndex;

use super::Session;
use crate::execute::failure::Failure;
use crate::execute::participant::Sequences;
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::plan::{Effects, Plan};

impl Session {
    /// Makes sure that a statement about to run on a participant finds the client's own state there, or none.
    pub(super) fn prepare_state(&mut self, index: usize, plan: &Plan) -> Result<(), Failure> {
        if self
            .block
            .as_ref()
            .is_some_and(|block| block.failed.is_some())
        {
            return Ok(());
        }
        let effects = plan.effects;
        if effects.uses_sequences || effects.reads_sequence_state {
            let (uses, reads) = (effects.uses_sequences, effects.reads_sequence_state);
            self.prepare_sequences(index, uses, reads)?;
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
    pub(super) async fn join_sequences(&mut self, effects: Effects) -> Result<usize, Trouble> {
        let index = self.join(ShardIndex::FIRST, Need::Primary).await?;
        self.prepare_sequences(index, true, effects.reads_sequence_state)?;
        self.participants.at(index)?.gave_next = true;
        Ok(index)
    }

    /// The same where a connection apart gives them, which keeps what it remembers of them to itself.
    pub(super) async fn join_sequences_apart(&mut self) -> Result<(), Trouble> {
        let index = self.join(ShardIndex::FIRST, Need::Primary).await?;
        self.participants.at(index)?.gave_next = true;
        self.note_sequences_apart();
        Ok(())
    }

    /// A connection apart takes values of sequences: what participants remember of them is not the latest any more.
    pub(super) fn note_sequences_apart(&mut self) {
        self.participants.sequences_elsewhere = true;
        for participant in self.participants.iter_mut() {
            if participant.sequences == Sequences::Own {
                participant.sequences = Sequences::Mixed;
            }
        }
    }

    fn prepare_sequences(&mut self, index: usize, uses: bool, reads: bool) -> Result<(), Failure> {
        let stays = self.stays(index);
        let elsewhere = self.participants.sequences_elsewhere || {
            let mut others = self.participants.iter().enumerate();
            others.any(|(other, held)| other != index && held.sequences != Sequences::Unused)
        };
        let Some(participant) = self.participants.get_mut(index) else {
            return Ok(());
        };
        let connection = &participant.connection;
        let foreign = connection.sequences && participant.sequences == Sequences::Unused;
        // Between a batch's messages and its Sync a query of ours would end its transaction.
        let in_batch = participant.needs_sync && !participant.in_block;
        match participant.sequences {
            Sequences::Own => return Ok(()),
            Sequences::Mixed if reads => return Err(not_here()),
            Sequences::Unused if reads && !uses && elsewhere => return Err(not_here()),
            Sequences::Unused if reads && foreign && in_batch => return Err(not_here()),
            Sequences::Unused | Sequences::Mixed => {}
        }
        let discard = foreign && !in_batch && (reads || stays);
        if discard {
            participant.queue_query("DISCARD SEQUENCES");
            participant.connection.sequences = false;
        }
        if uses {
            participant.sequences = match participant.connection.sequences {
                true => Sequences::Mixed,
                false => Sequences::Own,
            };
            participant.connection.sequences = true;
        }
        Ok(())
    }

    /// `DISCARD SEQUENCES` has run on all that is held; what is not held is somebody else's.
    pub(super) fn forget_sequences(&mut self) {
        self.participants.sequences_elsewhere = false;
        for participant in self.participants.iter_mut() {
            participant.sequences = Sequences::Unused;
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
