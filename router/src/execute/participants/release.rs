//! How backends leave a session: given back, kept for its next request, or closed.

use std::sync::Arc;

use switchyard_wire::backend::TransactionStatus;

use super::Participants;
use crate::execute::participant::{Participant, Sequences};
use crate::execute::remember::remember;
use crate::plan::Pins;
use crate::topology::DatabaseTopology;

impl Participants {
    /// Returns every backend that nothing needs any longer. Call when no reply is owed and no block is open.
    pub(crate) async fn release(&mut self, database: &DatabaseTopology) {
        self.release_now(database);
        for index in (0..self.list.len()).rev() {
            if self.list[index].may_unpin {
                self.list[index].look_at_pins().await;
            }
            if self.keeps(&self.list[index]) {
                continue;
            }
            self.note_state(index);
            let participant = self.list.remove(index);
            let owes = participant.owes_sequences();
            let used = participant.own_sequences().map(<[Box<str>]>::to_vec);
            let (used, durable) = (used.unwrap_or_default(), participant.told_next);
            let mut connection = participant.connection;
            if owes {
                let asked = (used.as_slice(), durable);
                let learnt = remember(&mut connection, asked, &mut self.remembered).await;
                self.sequences_elsewhere |= !learnt;
            }
            if connection.dirty && !connection.broken && connection.reset().await.is_err() {
                connection.broken = true;
            }
            self.borrower.slot.withdraw(&connection.target);
            connection.broken |= !connection.target.settled().await;
            connection.give_back();
        }
    }

    /// The client is waited for: nothing that has been sent is unanswered, and what is queued is not sent by where rows were.
    pub(crate) fn are_at_rest(&self) {
        for held in &self.list {
            let connection = &held.connection;
            if connection.replies.is_settled() || !connection.output.is_empty() {
                connection.has_answered();
            }
        }
    }

    /// As [`Participants::release`] for those that can go without waiting. True if that is all.
    pub(crate) fn release_now(&mut self, database: &DatabaseTopology) -> bool {
        let mut all = true;
        // What has been written counts last: a replica that was read before it must not serve what comes next.
        for wrote in [false, true] {
            for index in 0..self.list.len() {
                if self.list[index].wrote == wrote {
                    self.note_seen(database, index);
                }
            }
        }
        for index in (0..self.list.len()).rev() {
            let participant = &mut self.list[index];
            participant.in_block = false;
            participant.gave_next = false;
            participant.used = false;
            participant.wrote = false;
            participant.changed = false;
            participant.finishes = false;
            // What has not been synchronised is not known to be idle.
            participant.connection.broken |= participant.needs_sync;
            participant.may_unpin &= !participant.pins.is_empty();
            if self.keeps(&self.list[index]) {
                self.list[index].connection.has_answered();
                all &= !self.list[index].may_unpin;
                continue;
            }
            let participant = &self.list[index];
            let connection = &participant.connection;
            if participant.owes_sequences() || connection.dirty && !connection.broken {
                all = false;
                continue;
            }
            self.borrower.slot.withdraw(&connection.target);
            if connection.target.is_settled() {
                self.note_state(index);
                self.list.remove(index).connection.give_back();
            } else {
                all = false;
            }
        }
        all
    }

    /// Whether it stays with the session between requests. Replicas do not by session pooling alone: the next read may need
    /// more than they have.
    pub(crate) fn keeps(&self, participant: &Participant) -> bool {
        let by_mode = self.borrower.keep && participant.is_primary;
        (by_mode || !participant.pins.is_empty()) && !participant.connection.broken
    }

    /// Raises the session's floor by what it saw on this participant, if it has used it.
    fn note_seen(&mut self, database: &DatabaseTopology, index: usize) {
        let Some(participant) = self.list.get(index) else {
            return;
        };
        let lost = participant.sequences != Sequences::Unused;
        let lost = lost && participant.own_sequences().is_none();
        self.sequences_elsewhere |= lost && !self.keeps(participant);
        if !participant.used {
            return;
        }
        let Some(shard) = database.shards.get(participant.shard.position()) else {
            return;
        };
        let Some(floor) = self.floors.get_mut(participant.shard.position()) else {
            return;
        };
        if participant.is_primary && participant.wrote {
            shard.after_write(floor);
        } else {
            let incarnation = participant.connection.incarnation.unwrap_or_default();
            shard.after_read(floor, participant.connection.node(), incarnation);
        }
    }

    /// Takes note of what goes with a participant whose connection is of no further use.
    fn note_state(&mut self, index: usize) {
        let held = self.list.get(index);
        let lost = held.filter(|held| held.connection.broken && !held.pins.is_empty());
        if let Some(held) = lost {
            self.state_lost = Some(Arc::clone(&held.shard_name));
        }
    }

    /// Takes a participant out of the session and closes its connection.
    pub(crate) fn close(&mut self, database: &DatabaseTopology, index: usize) {
        if index < self.list.len() {
            self.note_seen(database, index);
            self.note_state(index);
            let participant = self.list.remove(index);
            if participant.in_block {
                self.lost = Some(Arc::clone(&participant.shard_name));
            }
            if participant.connection.broken {
                participant.connection.node().suspect();
                self.borrower.worker.services.pools.close_dead();
            }
            self.borrower.slot.withdraw(&participant.connection.target);
        }
    }

    /// Closes every participant whose connection is of no further use.
    pub(crate) fn close_broken(&mut self, database: &DatabaseTopology) {
        for index in (0..self.list.len()).rev() {
            if self.list[index].connection.broken {
                self.close(database, index);
            }
        }
    }

    /// The session's block is over on every participant.
    pub(crate) fn leave_block(&mut self) {
        self.lost = None;
        for participant in &mut self.list {
            participant.in_block = false;
            participant.gave_next = false;
        }
    }

    /// The client has left: a clean backend goes back to its pool, one in a transaction is rolled back first, one that
    /// still works is closed.
    pub(crate) async fn abandon(&mut self, database: &DatabaseTopology) {
        if self.borrower.keep {
            for participant in &mut self.list {
                participant.connection.dirty = true;
            }
        }
        self.borrower.keep = false;
        self.unpin_all();
        for participant in &mut self.list {
            let connection = &mut participant.connection;
            let idle = connection.replies.is_settled()
                && connection.output.is_empty()
                && !participant.needs_sync;
            let open = connection.replies.status() != TransactionStatus::Idle;
            connection.broken |=
                !idle || (open && connection.simple_query("ROLLBACK").await.is_err());
        }
        self.release(database).await;
    }

    /// `DISCARD ALL`: makes every backend that is held as good as new.
    pub(crate) async fn reset_all(&mut self, database: &DatabaseTopology) {
        for participant in &mut self.list {
            participant.pins = Pins::NONE;
            let connection = &mut participant.connection;
            connection.broken |= connection.reset().await.is_err();
        }
        self.close_broken(database);
    }
}
