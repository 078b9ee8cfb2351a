//! Which node serves: lock-free and allocation-free, called for every statement.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::consistency::{Consistency, ReadFloor};
use super::node::{Incarnation, Node, Observed};
use super::{ReadPolicy, Role, Shard, Unavailable, UnavailableReason};

/// The samples after which a session whose reads went to the primary is worth a short wait to leave it.
const SAMPLES_BEFORE_RETURN: u64 = 10;

/// The node chosen for a read.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// Where to read.
    pub node: &'a Arc<Node>,
    /// For a replica: the incarnation that may serve.
    replica: Option<Incarnation>,
}

impl<'a> Choice<'a> {
    /// The primary.
    #[must_use]
    pub fn primary(node: &'a Arc<Node>) -> Self {
        Self {
            node,
            replica: None,
        }
    }

    /// A replica, as measured in `incarnation`.
    pub(super) fn replica(node: &'a Arc<Node>, incarnation: Incarnation) -> Self {
        Self {
            node,
            replica: Some(incarnation),
        }
    }

    /// Whether the choice is a replica.
    #[must_use]
    pub fn is_replica(&self) -> bool {
        self.replica.is_some()
    }

    /// For a replica: the incarnation that may serve, which [`Shard::after_read`] wants back.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.replica
    }

    /// Whether a connection settled in `incarnation` (see [`Node::settle`]) may serve this choice. If not, the server
    /// restarted between the choice and the connection: choose again, or use [`Shard::writer`].
    ///
    /// A connection of an *earlier* incarnation that still answers proves that the server did not restart since.
    #[must_use]
    pub fn allows(&self, incarnation: Incarnation) -> bool {
        self.replica.is_none_or(|chosen| incarnation <= chosen)
    }
}

impl Shard {
    /// The node for writes, locking reads and read-write transactions.
    ///
    /// # Errors
    /// At once if the primary is down or is in recovery.
    pub fn writer(&self) -> Result<&Arc<Node>, Unavailable> {
        let primary = self.primary();
        let reason = match primary.observed() {
            Observed::Primary | Observed::Unknown => return Ok(primary),
            Observed::Down => UnavailableReason::PrimaryDown,
            Observed::Standby => UnavailableReason::PrimaryInRecovery,
        };
        Err(Unavailable {
            shard: Arc::clone(&self.name),
            reason,
        })
    }

    /// The node for a plain read. With no replica that may serve, the primary does.
    ///
    /// Under [`Consistency::Strong`] the primary serves; for a transaction that says READ ONLY or a hint that asks for
    /// a replica the caller passes [`Consistency::Session`] instead.
    ///
    /// `turn` is the turn of round robin, taken when it is first needed. A choice made again for the same read, as nothing
    /// came of the one before, is to have the same turn: otherwise some replicas would get more than their share.
    ///
    /// # Errors
    /// If no replica may serve and the primary cannot.
    pub fn reader(
        &self,
        policy: ReadPolicy,
        consistency: Consistency,
        floor: &ReadFloor,
        client: IpAddr,
        turn: &mut Option<usize>,
    ) -> Result<Choice<'_>, Unavailable> {
        let replica = match (policy, consistency) {
            (ReadPolicy::Primary, _) | (_, Consistency::Strong) => None,
            // The primary is all there is.
            _ if self.nodes.len() == 1 => None,
            (_, Consistency::Session) => self.choose(policy, client, turn, |node| {
                let (incarnation, passed) = node.passed();
                let admits = self.samples().admit(passed);
                (admits && floor.admits(node.id, incarnation, passed)).then_some(incarnation)
            }),
            (_, Consistency::Eventual { max_lag }) => self.choose(policy, client, turn, |node| {
                let admits = self.samples().admit(node.passed().1);
                (admits && node.lag() <= max_lag).then(|| node.incarnation())
            }),
        };
        match replica {
            Some(choice) => Ok(choice),
            None => self.writer().map(Choice::primary),
        }
    }

    /// To be called when a write, or anything else that ran on the primary other than a plain read, has finished.
    pub fn after_write(&self, floor: &mut ReadFloor) {
        let next = self.samples().next();
        floor.saw_primary(next);
        floor.waiting_since = None;
    }

    /// To be called when a plain read chosen by [`Shard::reader`] has finished.
    pub fn after_read(&self, floor: &mut ReadFloor, node: &Node, incarnation: Incarnation) {
        let next = self.samples().next();
        match node.role {
            Role::Primary => {
                floor.saw_primary(next);
                floor.waiting_since.get_or_insert(next);
            }
            Role::Replica => floor.saw_replica(node.id, incarnation, next),
        }
    }

    /// Whether the primary has served this session's reads for so long (about a second without a write), only because
    /// each of them raised its floor, that it should [`Shard::hand_over`].
    #[must_use]
    pub fn should_hand_over(&self, floor: &ReadFloor) -> bool {
        floor
            .waiting_since
            .is_some_and(|since| self.samples().started() >= since + SAMPLES_BEFORE_RETURN)
            && self
                .replicas()
                .any(|node| node.observed() == Observed::Standby)
    }

    /// Before a read of a session that [`Shard::should_hand_over`]: asks for a sample now and waits, at most `limit`,
    /// until a replica has passed it. A session that reads without a pause would otherwise never leave the primary.
    pub async fn hand_over(&self, floor: &mut ReadFloor, limit: Duration) {
        floor.waiting_since = None;
        let wanted = floor.sample;
        let wait = async {
            loop {
                let announced = self.samples().announced();
                if self.replicas().any(|node| node.passed().1 >= wanted) {
                    return;
                }
                self.samples().hurry();
                announced.await;
            }
        };
        // Too slow is an answer too: the primary goes on serving, and the session tries again later.
        let _ = tokio::time::timeout(limit, wait).await;
    }

    /// The best of the replicas in service that `admit` lets through.
    fn choose(
        &self,
        policy: ReadPolicy,
        client: IpAddr,
        turn: &mut Option<usize>,
        admit: impl Fn(&Node) -> Option<Incarnation>,
    ) -> Option<Choice<'_>> {
        let eligible = |position: usize| {
            let node = &self.nodes[position];
            if node.role != Role::Replica || node.observed() != Observed::Standby {
                return None;
            }
            let incarnation = admit(node)?;
            Some(Choice::replica(node, incarnation))
        };
        let count = self.nodes.len();
        let mut turn = || *turn.get_or_insert_with(|| self.turn.fetch_add(1, Ordering::Relaxed));
        if policy == ReadPolicy::RoundRobin {
            let able = (0..count).filter(|node| eligible(*node).is_some()).count();
            let turn = turn().checked_rem(able)?;
            return (0..count).filter_map(eligible).nth(turn);
        }
        let start = match policy {
            ReadPolicy::LeastConnections => turn(),
            ReadPolicy::RoundRobin | ReadPolicy::ClientAddress | ReadPolicy::Primary => 0,
        };
        (0..count)
            .filter_map(|step| eligible(start.wrapping_add(step) % count))
            .min_by_key(|choice| match policy {
                ReadPolicy::ClientAddress => affinity(client, choice.node),
                ReadPolicy::LeastConnections | ReadPolicy::RoundRobin | ReadPolicy::Primary => {
                    choice.node.in_use() as u64
                }
            })
    }
}

/// Rendezvous hashing: each client ranks the nodes in an order of its own, so a node that goes or comes moves only
/// its own clients.
fn affinity(client: IpAddr, node: &Node) -> u64 {
    let mut hasher = DefaultHasher::new();
    (client, &node.host, node.port).hash(&mut hasher);
    hasher.finish()
}
