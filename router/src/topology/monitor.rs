//! Looks at every node, again and again: is it there, what is it, how far has it replayed.
//!
//! One task per node on the control thread. The primary's task takes samples of its position; each sample makes the
//! replicas' tasks measure. Invariant: a task ends with its [`Monitor`], or when its node leaves the topology; only this
//! module calls a node up. See [`super::consistency`] for what the numbers mean.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::{Instrument, debug, error, info, info_span, warn};

use super::history::{History, Lsn, Sample, WalLayout};
use super::link::{Link, LinkError, Visitor};
use super::node::{Node, NodeId, Observed};
use super::{Role, Samples, Shard, Topology};

/// Between two samples of a primary that has replicas.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// After a sample that a replica has not passed yet, look again after these.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(4), Duration::from_millis(16)];
/// Two looks at one node, whoever asks for them, are at least this far apart.
const BREATH: Duration = Duration::from_millis(1);
/// Two attempts to reach a node that is down are at least this far apart, whoever asks, and at most that.
const MIN_RETRY: Duration = Duration::from_millis(50);
const MAX_RETRY: Duration = Duration::from_secs(2);

/// So many connections in a row may break before the node counts as down.
const MAX_BROKEN: u32 = 4;

/// Is the node in recovery; where has it replayed to; how old is what it replayed last, in milliseconds; where does it insert.
const LOOK: &str = "\
SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_last_wal_replay_lsn(),
       (1000 * EXTRACT(EPOCH FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp()))::pg_catalog.int8,
       CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn() END";

/// Which cluster is the node a copy of; the sizes of its WAL.
const IDENTIFY: &str = "\
SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()),
       (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_block_size'),
       (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size')";

/// The tasks that look at nodes.
#[derive(Debug, Default)]
pub struct Monitor {
    watches: HashMap<NodeId, Watch>,
    shards: HashMap<ShardKey, Arc<ShardWatch>>,
}

type ShardKey = (Arc<str>, Arc<str>);

/// The task of one node; ends when dropped.
#[derive(Debug)]
struct Watch {
    node: Arc<Node>,
    task: AbortHandle,
    pause: Duration,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the tasks of one shard share.
#[derive(Debug)]
struct ShardWatch {
    samples: Arc<Samples>,
    primary: NodeId,
    facts: Mutex<ShardFacts>,
    sampled: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct ShardFacts {
    history: History,
    /// The primary's system identifier.
    system: Option<String>,
}

impl ShardWatch {
    fn facts(&self) -> MutexGuard<'_, ShardFacts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Monitor {
    /// Watches exactly the nodes of `topology` from now on. What is watched already goes on undisturbed.
    pub fn watch(&mut self, topology: &Topology, visitor: &Visitor, interval: Duration) {
        let mut watches = HashMap::new();
        let mut shards = HashMap::new();
        for database in topology.databases.values() {
            for shard in &database.shards {
                let key = (Arc::clone(&database.name), Arc::clone(&shard.name));
                let shared = self.shard(&key, shard);
                for node in &shard.nodes {
                    let pause = match node.role {
                        // Without replicas nobody needs samples.
                        Role::Primary if shard.nodes.len() > 1 => SAMPLE_INTERVAL,
                        Role::Primary | Role::Replica => interval,
                    };
                    let watch = self
                        .watches
                        .remove(&node.id)
                        .filter(|watch| watch.is_of(node) && watch.pause == pause);
                    let watch = watch.unwrap_or_else(|| {
                        let attendant = Attendant {
                            node: Arc::clone(node),
                            database: Arc::clone(&database.name),
                            shard: Arc::clone(&shared),
                            visitor: visitor.clone(),
                            interval,
                            pause,
                        };
                        let (host, port) = (&node.host, node.port);
                        let span =
                            info_span!("node", shard = %shard.name, %host, port, role = %node.role);
                        let task = tokio::spawn(attendant.attend().instrument(span));
                        Watch {
                            node: Arc::clone(node),
                            task: task.abort_handle(),
                            pause,
                        }
                    });
                    watches.insert(node.id, watch);
                }
                shards.insert(key, shared);
            }
        }
        self.watches = watches;
        self.shards = shards;
    }

    /// Forgets all tasks, so that the next [`Monitor::watch`] begins anew: after a change of credentials or intervals.
    pub fn forget(&mut self) {
        self.watches.clear();
    }

    fn shard(&self, key: &ShardKey, shard: &Shard) -> Arc<ShardWatch> {
        let primary = shard.primary().id;
        match self.shards.get(key) {
            Some(known) if known.primary == primary => Arc::clone(known),
            _ => Arc::new(ShardWatch {
                samples: Arc::clone(shard.samples()),
                primary,
                facts: Mutex::default(),
                sampled: watch::Sender::new(0),
            }),
        }
    }
}

impl Watch {
    /// Whether the task looks at this node as it is configured now.
    fn is_of(&self, node: &Arc<Node>) -> bool {
        self.node.id == node.id && self.node.role == node.role && self.node.is_reached_like(node)
    }
}

/// Looks at one node.
struct Attendant {
    node: Arc<Node>,
    database: Arc<str>,
    shard: Arc<ShardWatch>,
    visitor: Visitor,
    interval: Duration,
    /// Between two looks, if nobody asks for one.
    pause: Duration,
}

impl LinkError {
    /// Whether this says that the node is gone. A connection that breaks is not enough, until it has happened some
    /// times in a row; nor is a server that has no connection left.
    fn is_final(&self, broken: &mut u32) -> bool {
        match self {
            Self::Lost(_) => {
                *broken += 1;
                *broken > MAX_BROKEN
            }
            Self::Full => false,
            Self::Unreachable(_) | Self::Timeout | Self::Refused { .. } | Self::Unexpected(_) => {
                true
            }
        }
    }
}

/// What a look found.
struct Look {
    in_recovery: bool,
    replayed: Option<Lsn>,
    replayed_age: Option<Duration>,
    inserted: Option<Lsn>,
}

/// What a node said of itself when the link was opened.
#[derive(Default)]
struct Identity {
    system: Option<String>,
    wal: WalLayout,
}

impl Attendant {
    /// Never returns; the task is aborted when nobody wants it any more.
    async fn attend(self) {
        let mut retry = MIN_RETRY;
        let mut broken = 0;
        let mut said_down = false;
        loop {
            let failed = match Link::open(&self.visitor, &self.node, &self.database).await {
                Ok(mut link) => {
                    if said_down {
                        info!("node is up");
                    }
                    said_down = false;
                    retry = MIN_RETRY;
                    let mut answered = false;
                    let failed = self.visit(&mut link, &mut answered).await;
                    if answered {
                        broken = 0;
                    }
                    failed
                }
                Err(error) => error,
            };
            if self.node.observed() != Observed::Down && !failed.is_final(&mut broken) {
                debug!(reason = %failed, "no connection; trying again");
                let is_full = matches!(failed, LinkError::Full);
                tokio::time::sleep(if is_full { MAX_RETRY } else { BREATH }).await;
                continue;
            }
            self.node.vitals().mark_down();
            if said_down {
                debug!(reason = %failed, "node is still down");
            } else {
                warn!(reason = %failed, "node is down");
                said_down = true;
            }
            tokio::time::sleep(MIN_RETRY).await;
            let rest = retry.saturating_sub(MIN_RETRY);
            let _ = tokio::time::timeout(rest, self.node.vitals().woken()).await;
            retry = (2 * retry).max(self.interval).min(MAX_RETRY);
        }
    }

    /// Looks at the node until it does not answer; says whether it ever did.
    async fn visit(&self, link: &mut Link, answered: &mut bool) -> LinkError {
        self.node.vitals().begin_incarnation();
        let identity = match self.identify(link).await {
            Ok(identity) => identity,
            Err(error) => return error,
        };
        if self.node.role == Role::Primary {
            let mut facts = self.shard.facts();
            facts.history.clear();
            facts.system.clone_from(&identity.system);
        }
        let mut sampled = self.shard.sampled.subscribe();
        let mut again = LOOK_AGAIN.iter();
        loop {
            sampled.mark_unchanged();
            let behind = match self.look(link, &identity).await {
                Ok(behind) => {
                    *answered = true;
                    behind
                }
                Err(reason @ LinkError::Refused { .. }) => {
                    // Recovery may end between two functions of one question.
                    debug!(%reason, "question refused");
                    false
                }
                Err(error) => return error,
            };
            tokio::time::sleep(BREATH).await;
            let pause = match again.next() {
                Some(pause) if behind => *pause,
                _ => self.pause,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.node.vitals().woken() => {}
                () = self.shard.samples.wanted(), if self.node.role == Role::Primary => {}
                _ = sampled.changed(), if self.node.role == Role::Replica => again = LOOK_AGAIN.iter(),
            }
        }
    }

    async fn identify(&self, link: &mut Link) -> Result<Identity, LinkError> {
        let rows = match link.ask(IDENTIFY).await {
            Ok(rows) => rows,
            Err(reason @ LinkError::Refused { .. }) => {
                warn!(%reason, "node does not say which cluster it belongs to");
                return Ok(Identity::default());
            }
            Err(error) => return Err(error),
        };
        let text = |column: usize| rows.first().and_then(|row| row.get(column)?.clone());
        let size = |column: usize| {
            text(column)
                .and_then(|size| size.parse().ok())
                .filter(|size| *size > 0)
        };
        let wal = match (size(1), size(2)) {
            (Some(block_size), Some(segment_size)) => WalLayout {
                block_size,
                segment_size,
            },
            _ => WalLayout::default(),
        };
        Ok(Identity {
            system: text(0),
            wal,
        })
    }

    /// One look. Returns whether a replica has not passed the newest sample.
    async fn look(&self, link: &mut Link, identity: &Identity) -> Result<bool, LinkError> {
        let vitals = self.node.vitals();
        let began = Instant::now();
        // The number before the question: that is what makes it a sample.
        let sample = (self.node.role == Role::Primary).then(|| self.shard.samples.begin());
        let probe = vitals.begin_probe();
        let look = Look::read(&link.ask(LOOK).await?)?;
        let mut facts = self.shard.facts();
        if self.node.role == Role::Replica && is_foreign(facts.system.as_deref(), identity) {
            if self.node.observed() != Observed::Down {
                error!("node is not a copy of its shard's primary");
            }
            vitals.mark_down();
            return Ok(false);
        }
        if !look.in_recovery {
            if let (Some(number), Some(inserted)) = (sample, look.inserted) {
                let position = inserted.end_of_last_record(identity.wal);
                facts.history.record(Sample {
                    number,
                    position,
                    began,
                });
                self.shard.sampled.send_replace(number);
            }
            self.saw(probe, Observed::Primary);
            return Ok(false);
        }
        let newest = facts.history.newest();
        let passed = look
            .replayed
            .and_then(|replayed| facts.history.passed(replayed));
        drop(facts);
        if let Some(passed) = passed {
            vitals.record_passed(passed.number);
            self.shard.samples.announce();
        }
        vitals.record_lag(lag(newest, passed, &look));
        self.saw(probe, Observed::Standby);
        Ok(passed.map(|sample| sample.number) != newest.map(|sample| sample.number))
    }

    fn saw(&self, probe: u64, observed: Observed) {
        let role = match self.node.role {
            Role::Primary => Observed::Primary,
            Role::Replica => Observed::Standby,
        };
        if observed != role && self.node.observed() != observed {
            warn!(
                found = observed.label(),
                "node is not what it is configured to be"
            );
        }
        self.node.vitals().end_probe(probe, observed);
    }
}

fn is_foreign(primary: Option<&str>, identity: &Identity) -> bool {
    match (primary, identity.system.as_deref()) {
        (Some(primary), Some(replica)) => primary != replica,
        _ => false,
    }
}

/// At most how far a replica is behind: it has everything from before the newest sample it passed began, and everything up to
/// the time of the last transaction it replayed.
fn lag(newest: Option<Sample>, passed: Option<Sample>, look: &Look) -> Duration {
    let by_sample = match (newest, passed) {
        (Some(newest), Some(passed)) if newest.number == passed.number => Duration::ZERO,
        (_, Some(passed)) => passed.began.elapsed(),
        (_, None) => Duration::MAX,
    };
    by_sample.min(look.replayed_age.unwrap_or(Duration::MAX))
}

impl Look {
    fn read(rows: &[Vec<Option<String>>]) -> Result<Self, LinkError> {
        let unexpected = LinkError::Unexpected("recovery");
        let [row] = rows else {
            return Err(unexpected);
        };
        let [in_recovery, replayed, age_ms, inserted] = row.as_slice() else {
            return Err(unexpected);
        };
        let lsn = |text: &Option<String>| text.as_deref().and_then(Lsn::parse);
        Ok(Self {
            in_recovery: in_recovery.as_deref() == Some("t"),
            replayed: lsn(replayed),
            replayed_age: age_ms
                .as_deref()
                .and_then(|age| age.parse::<i64>().ok())
                .map(|age| Duration::from_millis(u64::try_from(age).unwrap_or(0))),
            inserted: lsn(inserted),
        })
    }
}
