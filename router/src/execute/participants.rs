//! The backends a session holds: borrowed when a statement first touches a shard, returned when nothing needs them.
//!
//! Invariant: between two requests, outside a transaction block, a session holds only pinned backends.

mod borrower;
mod release;
mod workspaces;

use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use smallvec::SmallVec;
use switchyard_schema::ShardIndex;
use switchyard_wire::SqlState;

pub(crate) use borrower::Borrower;

use super::participant::Participant;
use crate::backend::{Borrowed, CheckoutError, ConnectError, Pool, Purpose, Settings};
use crate::execute::block::Block;
use crate::execute::failure::Failure;
use crate::plan::remembered::Remembered;
use crate::plan::{Pin, Pins};
use crate::topology::{
    Choice, Consistency, DatabaseTopology, Node, NodeId, Observed, ReadFloor, Shard, Unavailable,
};

/// The longest a read waits for a replica when its session is handed over from the primary.
const HAND_OVER_LIMIT: Duration = Duration::from_millis(20);

/// The longest a read waits for a replica its client asked for.
const ASKED_LIMIT: Duration = Duration::from_secs(1);

/// What a statement needs of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The primary.
    Primary,
    /// A replica if one may serve, under the session's consistency.
    Read,
    /// A replica if one may serve, also under `strong`: the client said READ ONLY.
    Replica,
    /// A replica if one may serve soon: the client asked for it by a hint.
    AskedReplica,
}

/// The backends of one session. What every borrowing needs stands together.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Participants {
    list: SmallVec<[Participant; 1]>,
    floors: Vec<ReadFloor>,
    pools: SmallVec<[(NodeId, Arc<Pool>); 2]>,
    /// The turn a read on this shard has taken among the replicas, while no backend has come of it.
    turn: Option<(ShardIndex, usize)>,
    /// The session has used sequences on a backend that it no longer holds.
    pub(crate) sequences_elsewhere: bool,
    /// So many workspaces have taken values of sequences and have not been asked for them.
    pub(crate) sequences_apart: usize,
    /// What it has taken of sequences on backends that it no longer holds, as far as that is known.
    pub(crate) remembered: Remembered,
    borrower: Borrower,
    /// The shard whose connection was lost with a part of the open block: the block can only be rolled back.
    lost: Option<Arc<str>>,
    /// The shard whose connection was lost with what the session kept there: the session cannot go on as if it had it.
    state_lost: Option<Arc<str>>,
}

impl Participants {
    pub(crate) fn new(borrower: Borrower) -> Self {
        Self {
            borrower,
            list: SmallVec::new(),
            floors: Vec::new(),
            pools: SmallVec::new(),
            turn: None,
            lost: None,
            state_lost: None,
            sequences_elsewhere: false,
            sequences_apart: 0,
            remembered: Remembered::default(),
        }
    }

    /// The shard on which a part of the open block was lost.
    pub(crate) fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// The shard on which temporary tables, locks or the like were lost.
    pub(crate) fn state_lost(&self) -> Option<&str> {
        self.state_lost.as_deref()
    }

    /// The block a part of which was lost is over.
    pub(crate) fn forget_lost(&mut self) {
        self.lost = None;
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Participant> + Clone {
        self.list.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Participant> {
        self.list.iter_mut()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Participant> {
        self.list.get(index)
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut Participant> {
        self.list.get_mut(index)
    }

    /// A participant that has been there a moment ago.
    pub(crate) fn at(&mut self, index: usize) -> Result<&mut Participant, Failure> {
        match self.list.get_mut(index) {
            Some(participant) => Ok(participant),
            None => Err(Failure::Retry),
        }
    }

    /// The participant that holds `shard`, if it is to serve `need`: the primary where the client has written on it, for what
    /// reads is to see that. One at rest does not keep a read from a replica.
    pub(crate) fn position(&self, shard: ShardIndex, need: Need) -> Option<usize> {
        let serves = |held: &Participant| {
            held.shard == shard
                && match need {
                    Need::Primary => held.is_primary,
                    Need::Read | Need::Replica | Need::AskedReplica => !held.is_at_rest(),
                }
        };
        let mut held = self.list.iter();
        held.clone()
            .position(|held| serves(held) && held.wrote)
            .or_else(|| held.position(serves))
    }

    /// The participant that holds `shard` by its primary, or by a replica.
    pub(crate) fn position_of(&self, shard: ShardIndex, is_primary: bool) -> Option<usize> {
        let mut held = self.list.iter();
        held.position(|held| held.shard == shard && held.is_primary == is_primary)
    }

    /// The backend for `shard`: the one already held, or one borrowed now, with the session's settings applied and,
    /// in a block, the block joined (the messages for that are queued ahead of what follows).
    pub(crate) async fn join(
        &mut self,
        database: &DatabaseTopology,
        shard: ShardIndex,
        need: Need,
        settings: &Arc<Settings>,
        block: Option<&Block>,
    ) -> Result<usize, Failure> {
        let held = self.position(shard, need);
        if self.is_bound_elsewhere(held) {
            return Err(Failure::SettingsElsewhere);
        }
        let index = match held {
            Some(index) => index,
            None => self.borrow(database, shard, need).await?,
        };
        let participant = &mut self.list[index];
        participant.used = true;
        participant.connection.renumber_by(database.oids.of(shard));
        let settings = wanted(settings, block);
        if !participant.has(settings) {
            Box::pin(participant.apply(settings)).await?;
        }
        participant.join_block(block);
        Ok(index)
    }

    /// Whether settings that nobody knows hold on a participant other than this one.
    fn is_bound_elsewhere(&self, index: Option<usize>) -> bool {
        let mut held = self.list.iter().enumerate();
        held.any(|(other, held)| held.pins.contains(Pin::Setting) && Some(other) != index)
    }

    /// As [`Participants::join`], where nothing has to be waited for; `None` otherwise.
    pub(crate) fn join_now(
        &mut self,
        database: &DatabaseTopology,
        shard: ShardIndex,
        need: Need,
        settings: &Arc<Settings>,
        block: Option<&Block>,
    ) -> Option<usize> {
        let held = self.position(shard, need);
        if self.is_bound_elsewhere(held) {
            return None;
        }
        let index = match held {
            Some(index) => index,
            None => self.borrow_now(database, shard, need)?,
        };
        let participant = &mut self.list[index];
        participant.used = true;
        participant.connection.renumber_by(database.oids.of(shard));
        participant.has(wanted(settings, block)).then(|| {
            participant.join_block(block);
            index
        })
    }

    /// As [`Participants::borrow`], where the node's pool is known and has an idle connection.
    fn borrow_now(
        &mut self,
        database: &DatabaseTopology,
        index: ShardIndex,
        need: Need,
    ) -> Option<usize> {
        let shard = database.shards.get(index.position())?;
        let floor = self.floors.get(index.position())?;
        if need == Need::AskedReplica || (need == Need::Read && shard.should_hand_over(floor)) {
            return None;
        }
        let choice = self.choose(shard, index, need).ok()?;
        if let Some(held) = self.held_for(index, &choice) {
            return Some(held);
        }
        let (_, pool) = self.pools.iter().find(|(id, _)| *id == choice.node.id)?;
        let connection = pool.check_out_idle(self.borrower.worker.index, self.borrower.client)?;
        self.admit(shard, index, choice, connection)
    }

    async fn borrow(
        &mut self,
        database: &DatabaseTopology,
        index: ShardIndex,
        need: Need,
    ) -> Result<usize, Failure> {
        let shard = database
            .shards
            .get(index.position())
            .ok_or(Failure::Retry)?;
        if self.floors.len() < database.shards.len() {
            self.floors
                .resize(database.shards.len(), ReadFloor::default());
        }
        let floor = &mut self.floors[index.position()];
        if need == Need::Read && shard.should_hand_over(floor) {
            Box::pin(shard.hand_over(floor, HAND_OVER_LIMIT)).await;
        }
        if need == Need::AskedReplica && !self.has_replica_now(shard, index) {
            shard
                .hand_over(&mut self.floors[index.position()], ASKED_LIMIT)
                .await;
        }
        // A node that fails is marked down as it fails, so the next choice is another one.
        let mut failure = None;
        for _ in 0..=shard.nodes.len() {
            match self.borrow_once(database, shard, index, need).await {
                Ok(Some(position)) => return Ok(position),
                Ok(None) => {}
                Err(Failure::ShardDown { shard }) => {
                    failure = Some(Failure::ShardDown { shard });
                    if need == Need::Primary {
                        break;
                    }
                }
                Err(other) => return Err(other),
            }
        }
        Err(failure.unwrap_or_else(|| Failure::ShardDown {
            shard: (&*shard.name).into(),
        }))
    }

    /// Whether a replica may serve this session at once, or none will soon.
    fn has_replica_now(&self, shard: &Shard, index: ShardIndex) -> bool {
        let floor = &self.floors[index.position()];
        let Borrower {
            policy, address, ..
        } = self.borrower;
        let any_up = shard
            .replicas()
            .any(|node| node.observed() == Observed::Standby);
        !any_up
            || shard
                .reader(policy, Consistency::Session, floor, address, &mut Some(0))
                .is_ok_and(|choice| choice.is_replica())
    }

    /// `None`: the choice did not hold, choose again.
    async fn borrow_once(
        &mut self,
        database: &DatabaseTopology,
        shard: &Shard,
        index: ShardIndex,
        need: Need,
    ) -> Result<Option<usize>, Failure> {
        let choice = self
            .choose(shard, index, need)
            .map_err(|_| Failure::ShardDown {
                shard: (&*shard.name).into(),
            })?;
        if let Some(held) = self.held_for(index, &choice) {
            return Ok(Some(held));
        }
        let node = choice.node;
        let pool = self.pool(database, shard, node)?;
        let slot = &self.borrower.slot;
        let known = slot.requests();
        let cancelled = |context: &mut Context<'_>| slot.poll_requested_since(known, context);
        let connection = match self.borrower.check_out(&pool, cancelled).await {
            Ok(connection) => connection,
            Err(CheckoutError::Retired) => {
                self.pools.retain(|(id, _)| *id != node.id);
                return Ok(None);
            }
            Err(error) => return Err(checkout_failure(&shard.name, &error)),
        };
        Ok(self.admit(shard, index, choice, connection))
    }

    /// The primary the session holds, where the choice is the primary.
    fn held_for(&mut self, shard: ShardIndex, choice: &Choice<'_>) -> Option<usize> {
        let held = self
            .position_of(shard, true)
            .filter(|_| !choice.is_replica());
        if held.is_some() {
            self.turn = None;
        }
        held
    }

    /// The node that is to serve.
    fn choose<'a>(
        &mut self,
        shard: &'a Shard,
        index: ShardIndex,
        need: Need,
    ) -> Result<Choice<'a>, Unavailable> {
        let consistency = match (need, self.borrower.consistency) {
            (Need::Primary, _) => return shard.writer().map(Choice::primary),
            (Need::Replica | Need::AskedReplica, Consistency::Strong) => Consistency::Session,
            (_, consistency) => consistency,
        };
        let mut turn = self
            .turn
            .take()
            .filter(|(of, _)| *of == index)
            .map(|(_, turn)| turn);
        let choice = shard.reader(
            self.borrower.policy,
            consistency,
            &self.floors[index.position()],
            self.borrower.address,
            &mut turn,
        );
        self.turn = turn.map(|turn| (index, turn));
        choice
    }

    /// Takes in a connection to the chosen node; `None` if the server restarted since the choice.
    fn admit(
        &mut self,
        shard: &Shard,
        index: ShardIndex,
        choice: Choice<'_>,
        connection: Borrowed,
    ) -> Option<usize> {
        let is_replica = choice.is_replica();
        if is_replica
            && !connection
                .incarnation
                .is_some_and(|incarnation| choice.allows(incarnation))
        {
            return None;
        }
        tracing::debug!(shard = %shard.name, host = %choice.node.host, port = choice.node.port, "a backend was taken");
        self.borrower.slot.publish(&connection.target);
        self.turn = None;
        let participant = Participant::new(index, &shard.name, !is_replica, connection);
        self.list.push(participant);
        Some(self.list.len() - 1)
    }

    fn pool(
        &mut self,
        database: &DatabaseTopology,
        shard: &Shard,
        node: &Arc<Node>,
    ) -> Result<Arc<Pool>, Failure> {
        if let Some((_, pool)) = self.pools.iter().find(|(id, _)| *id == node.id) {
            return Ok(Arc::clone(pool));
        }
        let pool = self
            .borrower
            .pool(database, shard, node, Purpose::Sessions)?;
        self.pools.push((node.id, Arc::clone(&pool)));
        Ok(pool)
    }

    /// How far back the session may read, to be put back after borrowing what shows it no data; `None` while it holds
    /// backends, which may have shown it some.
    pub(crate) fn floors(&self) -> Option<Vec<ReadFloor>> {
        self.list.is_empty().then(|| self.floors.clone())
    }

    /// Puts back what [`Participants::floors`] said.
    pub(crate) fn put_back_floors(&mut self, floors: Option<Vec<ReadFloor>>) {
        if let Some(floors) = floors {
            self.floors = floors;
        }
    }

    /// The participants that must be sent a Sync before anything else.
    pub(crate) fn needing_sync(&self) -> SmallVec<[usize; 4]> {
        (0..self.list.len())
            .filter(|index| self.list[*index].needs_sync)
            .collect()
    }

    /// Why backends stay with the session between requests.
    pub(crate) fn pins(&self) -> Pins {
        let mut pins = Pins::NONE;
        self.list
            .iter()
            .for_each(|participant| pins.extend(participant.pins));
        pins
    }

    /// Drops every pin: the backends are reset when they are released.
    pub(crate) fn unpin_all(&mut self) {
        for participant in &mut self.list {
            if !std::mem::take(&mut participant.pins).is_empty() {
                participant.connection.dirty = true;
            }
        }
    }
}

/// The settings a backend must have before it takes part: what the block has set since is replayed when it is joined, so
/// that it ends as it does everywhere.
fn wanted<'a>(settings: &'a Arc<Settings>, block: Option<&'a Block>) -> &'a Arc<Settings> {
    block.map_or(settings, Block::settings_before)
}

fn checkout_failure(shard: &str, error: &CheckoutError) -> Failure {
    let shard = shard.into();
    match error {
        CheckoutError::Timeout => Failure::PoolExhausted { shard },
        CheckoutError::Retired => Failure::Retry,
        CheckoutError::Cancelled(reason) => Failure::Cancelled(*reason),
        CheckoutError::Connect(error) if error.is_node_down() => Failure::ShardDown { shard },
        CheckoutError::Connect(error) => match &**error {
            ConnectError::Refused { sqlstate, message } => Failure::ShardRefused {
                shard,
                sqlstate: *sqlstate,
                message: message.as_str().into(),
            },
            ConnectError::Unproven(reason) => Failure::ShardRefused {
                shard,
                sqlstate: SqlState::INVALID_PASSWORD,
                message: (*reason).into(),
            },
            ConnectError::Io(_)
            | ConnectError::Broken(_)
            | ConnectError::Timeout
            | ConnectError::Protocol(_) => Failure::ShardBrokeProtocol { shard },
            ConnectError::Outdated => Failure::OutOfTouch,
        },
    }
}
