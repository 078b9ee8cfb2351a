//! Transaction blocks that begin by themselves, and the end of those that are to commit: at once where one shard has been written to, in two phases where several
//! have ([`crate::two_phase`] says how).

use std::sync::Arc;

use postgres_protocol::escape::escape_literal;
use smallvec::SmallVec;
use switchyard_wire::SqlState;
use switchyard_wire::backend::TransactionStatus;

use crate::backend::{QueryError, Settings, Show};
use crate::execute::block::Block;
use crate::execute::failure::Failure;
use crate::execute::participant::Participant;
use crate::execute::relay::{Trouble, exchange};
use crate::session::Session;
use crate::topology::Node;
use crate::topology::link::LinkError;
use crate::two_phase::recovery::Outcome;
use crate::two_phase::{GlobalId, Unnamed};

/// Participants, by their positions.
pub(in crate::session) type Indexes = SmallVec<[usize; 4]>;

/// What takes part in a commit of two phases.
pub(in crate::session) struct Parties {
    pub(in crate::session) id: GlobalId,
    pub(in crate::session) decider: usize,
    /// The others that have written: they prepare.
    pub(in crate::session) others: Indexes,
    /// Those that have not: they commit.
    readers: Vec<Step>,
}

/// What a participant does in the first phase.
#[derive(Clone)]
pub(in crate::session) struct Step {
    index: usize,
    sql: String,
    /// What PostgreSQL says when it is done.
    tag: &'static [u8],
}

impl Step {
    pub(in crate::session) fn new(index: usize, sql: &str, tag: &'static [u8]) -> Self {
        let sql = sql.to_owned();
        Self { index, sql, tag }
    }
}

impl Parties {
    /// What all but the decider do in the first phase.
    pub(in crate::session) fn preparations(&self) -> Vec<Step> {
        let prepare = self.id.prepare();
        let readers = self.readers.iter().cloned();
        let others = self.others.iter();
        let others = others.map(|index| Step::new(*index, &prepare, b"PREPARE TRANSACTION"));
        readers.chain(others).collect()
    }

    /// What the decider does then.
    pub(in crate::session) fn decision(&self) -> Step {
        Step::new(self.decider, &self.id.decide(), b"INSERT 0 1")
    }
}

/// The decision counts as that of whom the session is logged in as.
pub(in crate::session) const UNMASKED: &str = "SET LOCAL SESSION AUTHORIZATION DEFAULT";

/// What makes a session act once more as whom it has taken the authorization of, to the end of its transaction, if it has.
pub(in crate::session) fn guise(settings: &Settings) -> Option<String> {
    let user = settings.value_of("session_authorization")?;
    let mut sql = format!("SET LOCAL SESSION AUTHORIZATION {}", escape_literal(user));
    if let Some(role) = settings.value_of("role") {
        sql.push_str("; SET LOCAL ROLE ");
        sql.push_str(&escape_literal(role));
    }
    Some(sql)
}

fn undecidable(shard: &str, reason: Box<str>) -> Failure {
    Failure::Undecidable {
        shard: shard.into(),
        reason,
    }
}

impl Session {
    /// Sees to it that there is a block, which is to end with the statement or the query string. True if there was none.
    pub(in crate::session) fn begin_implicit(&mut self) -> bool {
        let is_new = self.block.is_none();
        if is_new {
            self.block = Some(Block::implicit(&self.settings));
        }
        is_new
    }

    /// Commits the block on every participant. The block is over either way; if it is not committed, then nowhere.
    pub(in crate::session) async fn commit_block(&mut self) -> Result<(), Trouble> {
        if self.block.is_some()
            && !self.cursors_apart.is_empty()
            && let Err(trouble) = Box::pin(self.commit_cursors()).await
        {
            self.rollback_block().await?;
            return Err(trouble);
        }
        let changes = match Box::pin(self.prepare_to_be_heard()).await {
            Ok(changes) => changes,
            Err(failure) => {
                self.rollback_block().await?;
                return Err(failure.into());
            }
        };
        let Some(mut block) = self.block.take() else {
            return Ok(());
        };
        let writers = self.participants_that(|held| held.wrote);
        let changed = self.participants_that(|held| held.changed);
        let committed = match (writers.len(), changed.is_empty()) {
            (2.., false) => {
                let guise = guise(block.effective());
                Box::pin(self.commit_in_two_phases(&writers, &changed, guise)).await
            }
            _ => self.commit_at_once(&writers).await,
        };
        self.committed_listening(&changes, committed.is_ok());
        if let Err(trouble) = committed {
            self.take_settings(Arc::clone(block.settings_before()));
            self.rollback_participants().await?;
            return Err(trouble);
        }
        self.hold_cursors();
        self.participants.leave_block();
        self.participants.close_broken(&self.database);
        self.take_settings(Arc::clone(&self.settings));
        if !block.unsure.is_empty() {
            Box::pin(self.learn_unsure(std::mem::take(&mut block.unsure))).await?;
        }
        if block.changed_schema {
            self.schema_changed().await;
        } else if block.changed_temporary {
            Box::pin(self.learn_temporary()).await;
        }
        Ok(())
    }

    /// The participants of the block of which this is true.
    pub(in crate::session) fn participants_that(
        &self,
        is_so: impl Fn(&Participant) -> bool,
    ) -> Indexes {
        let held = self.participants.iter().enumerate();
        held.filter(|(_, held)| held.in_block && is_so(held))
            .map(|(index, _)| index)
            .collect()
    }

    /// Commits where at most one shard has something to lose: those that have only read first, for that can fail.
    async fn commit_at_once(&mut self, writers: &[usize]) -> Result<(), Trouble> {
        let readers = self.participants_that(|held| !held.wrote);
        for index in readers.iter().chain(writers) {
            let commit = self.participants.get(*index);
            let commit = commit.map_or("COMMIT".into(), Participant::commit_sql);
            let outcome = self.run_shown(*index, &commit, Show::Notices).await;
            let Some(participant) = self.participants.get_mut(*index) else {
                continue;
            };
            match outcome {
                Ok(false) if participant.last_tag_is(b"COMMIT") => {
                    participant.connection.applied = Some(Arc::clone(&self.settings));
                    participant.in_block = false;
                }
                // Deferred constraints, say, or it had failed before: PostgreSQL's own error has been shown.
                Ok(_) => return Err(Trouble::Told),
                Err(Trouble::Lost) if participant.wrote => {
                    let shard = (&*participant.shard_name).into();
                    return Err(Failure::OutcomeUnknown { shard }.into());
                }
                Err(Trouble::Lost) if participant.must_commit() => {
                    let shard = (&*participant.shard_name).into();
                    return Err(Failure::ShardLost { shard }.into());
                }
                // Nothing was to be committed there. What others commit must not be said to have failed.
                Err(Trouble::Lost) => self.client.overdue &= writers.is_empty(),
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    /// Commits where several shards have been written to. `guise`: what makes the session act as somebody else.
    async fn commit_in_two_phases(
        &mut self,
        writers: &[usize],
        changed: &[usize],
        guise: Option<String>,
    ) -> Result<(), Trouble> {
        let parties = self.parties(writers, changed).await?;
        if guise.is_some() {
            self.run_on_decider(&parties, UNMASKED).await?;
        }
        let mut steps = parties.preparations();
        steps.push(parties.decision());
        let mut prepared = self.take_steps(&steps).await;
        if let (Ok(()), Some(guise)) = (&prepared, guise) {
            prepared = self.run_on_decider(&parties, &guise).await;
        }
        if let Err(trouble) = prepared {
            self.end_prepared(&parties, false).await;
            return Err(trouble);
        }
        let decider = parties.decider;
        match self.run_shown(decider, "COMMIT", Show::Notices).await {
            Ok(false) => {}
            Ok(true) => {
                self.end_prepared(&parties, false).await;
                return Err(Trouble::Told);
            }
            Err(Trouble::Lost) => return self.settle_undecided(&parties).await,
            // The client has left: the decider says how it has ended.
            Err(other) => return Err(other),
        }
        let settings = Arc::clone(&self.settings);
        let decider = self.participants.at(parties.decider)?;
        decider.in_block = false;
        if !decider.last_tag_is(b"COMMIT") {
            self.end_prepared(&parties, false).await;
            return Err(Trouble::Told);
        }
        decider.connection.applied = Some(settings);
        if !self.end_prepared(&parties, true).await {
            // It is committed. What follows in this session is to see it, so that it is waited for.
            self.settle_elsewhere(&parties.id).await;
        }
        Ok(())
    }

    /// Runs a statement of ours in the decider's part.
    pub(in crate::session) async fn run_on_decider(
        &mut self,
        parties: &Parties,
        sql: &str,
    ) -> Result<(), Trouble> {
        match self.run_on(parties.decider, sql).await {
            Ok(false) => Ok(()),
            Ok(true) => Err(Trouble::Told),
            Err(Trouble::Lost) => {
                let participant = self.participants.at(parties.decider)?;
                participant.connection.broken = true;
                let shard = (&*participant.shard_name).into();
                Err(Failure::ShardLost { shard }.into())
            }
            Err(other) => Err(other),
        }
    }

    /// Who does what. The decider is the one that may have done what cannot be prepared (temporary tables, NOTIFY): one that is held for
    /// the session, or the first shard.
    async fn parties(&mut self, writers: &[usize], changed: &[usize]) -> Result<Parties, Trouble> {
        let place = |index: &&usize| {
            let held = self.participants.get(**index);
            held.map(|held| (held.pins.is_empty(), held.shard))
        };
        let decider = changed.iter().min_by_key(place).copied();
        let decider = decider.ok_or(Failure::Retry)?;
        let participant = self.participants.at(decider)?;
        let process = participant.connection.target.pid();
        let id = GlobalId::new(process, &participant.shard_name, &self.user);
        self.parties_under(id, decider, writers).await
    }

    /// The same, where it is known who decides. It is seen to that the decision can be recorded.
    pub(in crate::session) async fn parties_under(
        &mut self,
        id: Result<GlobalId, Unnamed>,
        decider: usize,
        writers: &[usize],
    ) -> Result<Parties, Trouble> {
        let participant = self.participants.at(decider)?;
        let node = Arc::clone(participant.connection.node());
        let shard = Arc::clone(&participant.shard_name);
        let id = id.map_err(|unnamed| undecidable(&shard, unnamed.to_string().into()))?;
        self.install_decisions(&shard, &node).await?;
        let others = writers.iter().copied().filter(|index| *index != decider);
        Ok(Parties {
            id,
            decider,
            others: others.collect(),
            readers: self.readers(),
        })
    }

    /// Sees to it that decisions can be recorded on the primary of a shard.
    pub(in crate::session) async fn install_decisions(
        &mut self,
        shard: &str,
        node: &Arc<Node>,
    ) -> Result<(), Failure> {
        if node.records_decisions() {
            return Ok(());
        }
        let resolver = &self.worker.services.resolver;
        let installed = resolver.install(&self.database.name, node).await;
        installed.map_err(|reason| match reason {
            LinkError::Refused { message, .. } => undecidable(shard, message.into()),
            LinkError::Unreachable(_)
            | LinkError::Lost(_)
            | LinkError::Full
            | LinkError::Timeout
            | LinkError::Unexpected(_) => Failure::ShardDown {
                shard: shard.into(),
            },
        })
    }

    /// How those commit that have not written.
    pub(in crate::session) fn readers(&self) -> Vec<Step> {
        let readers = self.participants_that(|held| !held.wrote).into_iter();
        let readers = readers.filter_map(|index| {
            let commit = self.participants.get(index)?.commit_sql();
            Some(Step::new(index, &commit, b"COMMIT"))
        });
        readers.collect()
    }

    /// Steps of the first phase, on all at a time. Only the first error is told.
    pub(in crate::session) async fn take_steps(&mut self, steps: &[Step]) -> Result<(), Trouble> {
        for step in steps {
            let participant = self.participants.at(step.index)?;
            participant.queue_query_shown(&step.sql, Show::Notices);
            // What is lost here is found to be lost when the answer is read.
            participant.connection.broken |= participant.connection.flush().await.is_err();
        }
        let mut outcome = Ok(());
        for step in steps {
            let held = self.client.hold();
            let done = self.answer_to(step).await;
            let said = self.client.unhold(held);
            if outcome.is_ok() {
                self.client.output.extend_from_slice(&said);
                outcome = done;
            }
        }
        outcome
    }

    /// One participant's answer in the first phase.
    async fn answer_to(&mut self, step: &Step) -> Result<(), Trouble> {
        let settings = Arc::clone(&self.settings);
        let (client, participant, described) = self.exchanging(step.index)?;
        let outcome = match participant.connection.broken {
            true => Err(Trouble::Lost),
            false => exchange(client, participant, &[], described).await,
        };
        match outcome {
            Ok(false) if participant.last_tag_is(step.tag) => {
                if participant.status() == TransactionStatus::Idle {
                    participant.connection.applied = Some(settings);
                    participant.in_block = false;
                }
                Ok(())
            }
            // It had failed before, and the error has been shown.
            Ok(false) => Err(Trouble::Told),
            Ok(true) => {
                // It may be the decider, whose table has gone: it is looked for the next time.
                participant.connection.node().note_records_decisions(false);
                Err(Trouble::Told)
            }
            Err(Trouble::Lost) => {
                participant.connection.broken = true;
                match participant.must_commit() {
                    true => Err(Failure::ShardLost {
                        shard: (&*participant.shard_name).into(),
                    }
                    .into()),
                    // Nothing was to be committed there.
                    false => {
                        self.client.overdue = false;
                        Ok(())
                    }
                }
            }
            Err(other) => Err(other),
        }
    }

    /// Ends what has been prepared, on all at a time. False if one of them did not say that it has.
    pub(in crate::session) async fn end_prepared(
        &mut self,
        parties: &Parties,
        committed: bool,
    ) -> bool {
        let sql = parties.id.end(committed);
        let mut asked = Indexes::new();
        let mut all = true;
        for index in &parties.others {
            let Some(participant) = self.participants.get_mut(*index) else {
                continue;
            };
            // One that is still in the block has not prepared; of one that was lost nobody knows.
            let connection = &mut participant.connection;
            if participant.in_block || connection.broken {
                all = false;
                continue;
            }
            match connection.send_query(&sql).await {
                Ok(()) => asked.push(*index),
                Err(_) => all = false,
            }
        }
        for index in asked {
            let Some(participant) = self.participants.get_mut(index) else {
                continue;
            };
            match participant.connection.query_answer().await {
                Ok(_) => {}
                // Another router has been faster.
                Err(QueryError::Server { sqlstate, .. })
                    if sqlstate == SqlState::UNDEFINED_OBJECT => {}
                Err(error) => {
                    tracing::warn!(transaction = %parties.id, shard = %participant.shard_name, %error, "what is prepared could not be ended at once");
                    all = false;
                }
            }
            participant.connection.unnamed = None;
        }
        all
    }

    /// The decider was lost while it committed: what it has recorded is asked for.
    async fn settle_undecided(&mut self, parties: &Parties) -> Result<(), Trouble> {
        let decider = self.participants.at(parties.decider)?;
        decider.in_block = false;
        let shard: Box<str> = (&*decider.shard_name).into();
        self.participants.close_broken(&self.database);
        match self.settle_elsewhere(&parties.id).await {
            Outcome::Committed => Ok(()),
            Outcome::RolledBack => Err(Failure::ShardLost { shard }.into()),
            Outcome::Prepared | Outcome::Unknown => Err(Failure::OutcomeUnknown { shard }.into()),
        }
    }

    /// Has the transaction ended by others than this session's connections.
    pub(in crate::session) async fn settle_elsewhere(&mut self, id: &GlobalId) -> Outcome {
        let resolver = &self.worker.services.resolver;
        resolver.settle(&self.database.name, id.clone()).await
    }
}
