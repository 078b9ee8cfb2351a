//! Session consistency in simulated histories: a primary that commits, replicas that replay, lag, restart and forget,
//! a monitor whose answers arrive late, sessions on pooled connections. No read may see less than its session saw.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use switchyard_schema::{NodeTls, SslMode};

use super::history::{History, Lsn, Sample};
use super::node::{Node, Vitals};
use super::{
    Choice, Consistency, Incarnation, NodeId, Observed, ReadFloor, ReadPolicy, Role, Samples,
    Shard, UnavailableReason,
};

const REPLICAS: usize = 2;
const SESSIONS: usize = 3;
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[derive(Clone, Debug)]
enum Step {
    /// The session leaves and another comes.
    Login {
        session: usize,
    },
    Write {
        session: usize,
    },
    /// Chooses where to read, or takes a connection of the pool, or has the server run the read.
    Read {
        session: usize,
        connection: usize,
    },
    /// Begins a sample, or has the primary answer it, or has the answer arrive.
    Sample,
    Replay {
        replica: usize,
        records: u64,
    },
    Restart {
        replica: usize,
        lost: u64,
    },
    /// Begins a probe, or has the replica answer it, or has the answer arrive.
    Probe {
        replica: usize,
    },
    Connect {
        replica: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let replica = 0..REPLICAS;
    let session = 0..SESSIONS;
    prop_oneof![
        1 => session.clone().prop_map(|session| Step::Login { session }),
        1 => session.clone().prop_map(|session| Step::Write { session }),
        12 => (session, 0usize..3).prop_map(|(session, connection)| Step::Read { session, connection }),
        6 => Just(Step::Sample),
        3 => (replica.clone(), 1u64..12).prop_map(|(replica, records)| Step::Replay { replica, records }),
        1 => (replica.clone(), 0u64..8).prop_map(|(replica, lost)| Step::Restart { replica, lost }),
        12 => replica.clone().prop_map(|replica| Step::Probe { replica }),
        2 => replica.prop_map(|replica| Step::Connect { replica }),
    ]
}

/// A pooled connection: the server's life it belongs to, and what the pool knows of it.
#[derive(Clone, Copy)]
struct Pooled {
    life: u32,
    born: u64,
    settled: Option<Incarnation>,
}

#[derive(Default)]
struct Server {
    life: u32,
    replayed: u64,
    monitor: Option<u32>,
    probe: Option<(u64, Option<u64>)>,
    pool: Vec<Pooled>,
}

#[derive(Default)]
struct Client {
    floor: ReadFloor,
    seen: u64,
    reading: Option<Reading>,
}

/// A read for which a replica has been chosen, and then a connection, and which the server has not run yet.
#[derive(Clone, Copy)]
struct Reading {
    replica: usize,
    incarnation: Incarnation,
    connection: Option<Pooled>,
}

struct World {
    shard: Shard,
    committed: u64,
    servers: [Server; REPLICAS],
    clients: [Client; SESSIONS],
    sample: Option<(u64, Option<u64>)>,
    history: History,
    replica_reads: usize,
}

impl World {
    fn new() -> Self {
        Self {
            shard: shard(REPLICAS),
            committed: 1,
            servers: Default::default(),
            clients: Default::default(),
            sample: None,
            history: History::default(),
            replica_reads: 0,
        }
    }

    fn replica(&self, replica: usize) -> &Arc<Node> {
        &self.shard.nodes[replica + 1]
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Login { session } => self.clients[session] = Client::default(),
            Step::Write { session } => {
                let client = &mut self.clients[session];
                if client.reading.is_none() {
                    self.committed += 1;
                    client.seen = self.committed;
                    self.shard.after_write(&mut client.floor);
                }
            }
            Step::Read {
                session,
                connection,
            } => match self.clients[session].reading {
                None => self.choose(session)?,
                Some(reading) => match reading.connection {
                    None => self.connect(session, reading, connection),
                    Some(pooled) => self.end_read(session, reading, pooled)?,
                },
            },
            Step::Sample => self.sample(),
            Step::Replay { replica, records } => {
                let server = &mut self.servers[replica];
                server.replayed = (server.replayed + records).min(self.committed);
            }
            Step::Restart { replica, lost } => {
                let server = &mut self.servers[replica];
                server.life += 1;
                server.replayed = server.replayed.saturating_sub(lost);
            }
            Step::Connect { replica } => {
                let born = self.replica(replica).birth();
                let server = &mut self.servers[replica];
                server.pool.push(Pooled {
                    life: server.life,
                    born,
                    settled: None,
                });
            }
            Step::Probe { replica } => self.probe(replica),
        }
        Ok(())
    }

    fn choose(&mut self, session: usize) -> Result<(), TestCaseError> {
        let floor = &self.clients[session].floor;
        let choice = self.shard.reader(
            ReadPolicy::RoundRobin,
            Consistency::Session,
            floor,
            CLIENT,
            &mut None,
        );
        let choice = choice.map_err(|error| TestCaseError::fail(error.to_string()))?;
        match choice.incarnation() {
            Some(incarnation) => {
                let of = |replica: &usize| Arc::ptr_eq(choice.node, self.replica(*replica));
                let replica = (0..REPLICAS).find(of).unwrap();
                self.clients[session].reading = Some(Reading {
                    replica,
                    incarnation,
                    connection: None,
                });
            }
            None => self.read_primary(session),
        }
        Ok(())
    }

    fn read_primary(&mut self, session: usize) {
        let client = &mut self.clients[session];
        client.reading = None;
        client.seen = self.committed;
        self.shard.after_read(
            &mut client.floor,
            self.shard.primary(),
            Incarnation::default(),
        );
    }

    /// Takes the newest settled connection but `skip`, unless it is of a later incarnation than the one chosen.
    fn connect(&mut self, session: usize, reading: Reading, skip: usize) {
        let choice = Choice::replica(self.replica(reading.replica), reading.incarnation);
        let settled = |pooled: &&Pooled| pooled.settled.is_some();
        let pool = &self.servers[reading.replica].pool;
        match pool.iter().rev().filter(settled).nth(skip) {
            Some(pooled) if pooled.settled.is_some_and(|settled| choice.allows(settled)) => {
                let connection = Some(*pooled);
                self.clients[session].reading = Some(Reading {
                    connection,
                    ..reading
                });
            }
            _ => self.read_primary(session),
        }
    }

    fn end_read(
        &mut self,
        session: usize,
        reading: Reading,
        pooled: Pooled,
    ) -> Result<(), TestCaseError> {
        let client = &mut self.clients[session];
        client.reading = None;
        let server = &self.servers[reading.replica];
        if pooled.life != server.life {
            return Ok(());
        }
        prop_assert!(
            server.replayed >= client.seen,
            "session {session} went back in time"
        );
        client.seen = server.replayed;
        self.replica_reads += 1;
        let node = &self.shard.nodes[reading.replica + 1];
        self.shard
            .after_read(&mut client.floor, node, reading.incarnation);
        Ok(())
    }

    fn sample(&mut self) {
        match &mut self.sample {
            None => self.sample = Some((self.shard.samples().begin(), None)),
            Some((_, position @ None)) => *position = Some(self.committed),
            Some((number, Some(position))) => {
                let (number, position) = (*number, Lsn(*position));
                let began = Instant::now();
                self.history.record(Sample {
                    number,
                    position,
                    began,
                });
                self.sample = None;
            }
        }
    }

    fn probe(&mut self, replica: usize) {
        let node = Arc::clone(self.replica(replica));
        let vitals = node.vitals();
        let server = &mut self.servers[replica];
        match server.probe {
            None => {
                if server.monitor.is_none() {
                    server.monitor = Some(server.life);
                    vitals.begin_incarnation();
                }
                server.probe = Some((vitals.begin_probe(), None));
            }
            Some((number, None)) if server.monitor == Some(server.life) => {
                server.probe = Some((number, Some(server.replayed)));
            }
            Some((_, None)) => {
                server.monitor = None;
                server.probe = None;
                vitals.mark_down();
            }
            Some((number, Some(replayed))) => {
                vitals.end_probe(number, Observed::Standby);
                if let Some(passed) = self.history.passed(Lsn(replayed)) {
                    vitals.record_passed(passed.number);
                }
                server.probe = None;
                for pooled in &mut server.pool {
                    pooled.settled = pooled.settled.or_else(|| node.vouched_for(pooled.born));
                }
            }
        }
    }
}

/// A shard of a primary in service and replicas nobody asked yet.
fn shard(replicas: usize) -> Shard {
    let node = |number: usize| {
        let role = if number == 0 {
            Role::Primary
        } else {
            Role::Replica
        };
        let configured = switchyard_schema::Node {
            host: "db".into(),
            port: u16::try_from(number).unwrap(),
            role,
            zone: None,
            dbname: None,
            tls: NodeTls {
                mode: SslMode::Disable,
                root_cert: None,
            },
        };
        let id = NodeId(u32::try_from(number).unwrap());
        Arc::new(Node::new(id, &configured, Arc::new(Vitals::default())))
    };
    let nodes: Vec<_> = (0..=replicas).map(node).collect();
    nodes[0].vitals().end_probe(1, Observed::Primary);
    Shard::new("s0".into(), nodes, 0, Arc::new(Samples::default())).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn no_read_goes_back_in_time(steps in prop::collection::vec(step(), 1..200)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step)?;
        }
    }
}

#[test]
fn the_simulation_does_read_on_replicas() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut reads = 0;
    for _ in 0..100 {
        let steps = prop::collection::vec(step(), 300)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let mut world = World::new();
        for step in &steps {
            world.run(step).unwrap();
        }
        reads += world.replica_reads;
    }
    assert!(reads > 300, "only {reads} reads on replicas");
}

#[test]
fn a_connection_of_a_later_life_does_not_serve_an_earlier_choice() {
    let mut world = World::new();
    let run = |world: &mut World, steps: &[Step]| {
        for step in steps {
            world.run(step).unwrap();
        }
    };
    let probe = Step::Probe { replica: 0 };
    let sample = Step::Sample;
    let read = Step::Read {
        session: 0,
        connection: 0,
    };
    let caught_up = [
        Step::Write { session: 0 },
        sample.clone(),
        sample.clone(),
        sample,
        Step::Replay {
            replica: 0,
            records: 2,
        },
        probe.clone(),
        probe.clone(),
        probe.clone(),
    ];
    run(&mut world, &caught_up);
    run(&mut world, std::slice::from_ref(&read));
    assert!(world.clients[0].reading.is_some());
    let restart = Step::Restart {
        replica: 0,
        lost: 2,
    };
    let connect = Step::Connect { replica: 0 };
    run(
        &mut world,
        &[restart, probe.clone(), probe.clone(), connect],
    );
    run(
        &mut world,
        &[
            probe.clone(),
            probe.clone(),
            probe.clone(),
            probe.clone(),
            probe,
        ],
    );
    assert!(world.servers[0].pool[0].settled.is_some());
    run(&mut world, &[read.clone(), read]);
    assert_eq!(world.replica_reads, 0);
}

fn client(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

fn in_service(shard: &Shard) {
    for node in shard.replicas() {
        node.vitals().begin_incarnation();
        let probe = node.vitals().begin_probe();
        node.vitals().end_probe(probe, Observed::Standby);
    }
}

fn reads(shard: &Shard, policy: ReadPolicy, from: IpAddr) -> NodeId {
    let floor = ReadFloor::default();
    shard
        .reader(policy, Consistency::Session, &floor, from, &mut None)
        .unwrap()
        .node
        .id
}

#[test]
fn round_robin_is_even_also_when_a_replica_is_down() {
    let shard = shard(3);
    in_service(&shard);
    shard.nodes[2].report_failure();
    let mut counts = [0; 4];
    for _ in 0..100 {
        counts[reads(&shard, ReadPolicy::RoundRobin, client(1)).0 as usize] += 1;
    }
    assert_eq!(counts, [0, 50, 0, 50]);
}

#[test]
fn least_connections_prefers_the_idle_one_and_spreads_ties() {
    let shard = shard(2);
    in_service(&shard);
    shard.nodes[1].acquired();
    for _ in 0..10 {
        assert_eq!(
            reads(&shard, ReadPolicy::LeastConnections, client(1)),
            NodeId(2)
        );
    }
    shard.nodes[1].released();
    let chosen: Vec<_> = (0..10)
        .map(|_| reads(&shard, ReadPolicy::LeastConnections, client(1)))
        .collect();
    assert!(chosen.contains(&NodeId(1)) && chosen.contains(&NodeId(2)));
}

#[test]
fn a_client_address_keeps_its_replica() {
    let shard = shard(3);
    in_service(&shard);
    let of = |last| reads(&shard, ReadPolicy::ClientAddress, client(last));
    let before: Vec<_> = (0..100).map(of).collect();
    assert_eq!(before, (0..100).map(of).collect::<Vec<_>>());
    shard.nodes[1].report_failure();
    for (last, node) in before.iter().enumerate() {
        let after = of(u8::try_from(last).unwrap());
        assert!(after != NodeId(1) && (*node == NodeId(1) || after == *node));
    }
}

#[test]
fn without_replicas_the_primary_reads_and_without_it_the_shard_is_named() {
    let shard = shard(1);
    assert_eq!(reads(&shard, ReadPolicy::RoundRobin, client(1)), NodeId(0));
    in_service(&shard);
    assert_eq!(reads(&shard, ReadPolicy::RoundRobin, client(1)), NodeId(1));
    assert_eq!(reads(&shard, ReadPolicy::Primary, client(1)), NodeId(0));
    shard.primary().report_failure();
    assert_eq!(reads(&shard, ReadPolicy::RoundRobin, client(1)), NodeId(1));
    shard.nodes[1].report_failure();
    let error = shard
        .reader(
            ReadPolicy::RoundRobin,
            Consistency::Session,
            &ReadFloor::default(),
            client(1),
            &mut None,
        )
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "shard \"s0\" is unavailable: its primary does not answer"
    );
}

#[test]
fn roles_are_what_nodes_say() {
    let shard = shard(1);
    in_service(&shard);
    let probe = shard.nodes[1].vitals().begin_probe();
    shard.nodes[1].vitals().end_probe(probe, Observed::Primary);
    assert_eq!(reads(&shard, ReadPolicy::RoundRobin, client(1)), NodeId(0));
    shard.primary().vitals().end_probe(2, Observed::Standby);
    assert_eq!(
        shard.writer().unwrap_err().reason,
        UnavailableReason::PrimaryInRecovery
    );
}

#[test]
fn eventual_reads_stop_at_the_lag_allowed() {
    let shard = shard(1);
    in_service(&shard);
    let max_lag = Duration::from_secs(1);
    let read = || {
        let consistency = Consistency::Eventual { max_lag };
        let choice = shard.reader(
            ReadPolicy::RoundRobin,
            consistency,
            &ReadFloor::default(),
            client(1),
            &mut None,
        );
        choice.unwrap().is_replica()
    };
    shard.nodes[1].vitals().record_lag(max_lag);
    assert!(read());
    shard.nodes[1]
        .vitals()
        .record_lag(max_lag + Duration::from_millis(1));
    assert!(!read());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_only_reads_leaves_the_primary() {
    let shard = shard(1);
    in_service(&shard);
    let mut floor = ReadFloor::default();
    shard.after_write(&mut floor);
    let primary = Arc::clone(shard.primary());
    for _ in 0..20 {
        shard.samples().begin();
        shard.after_read(&mut floor, &primary, Incarnation::default());
    }
    assert!(shard.should_hand_over(&floor));
    let limit = Duration::from_millis(50);
    let pass = async {
        tokio::time::sleep(limit / 2).await;
        let sample = shard.samples().begin();
        shard.nodes[1].vitals().record_passed(sample);
        shard.samples().announce();
    };
    let began = tokio::time::Instant::now();
    tokio::join!(shard.hand_over(&mut floor, limit), pass);
    assert_eq!(began.elapsed(), limit / 2);
    let choice = shard
        .reader(
            ReadPolicy::RoundRobin,
            Consistency::Session,
            &floor,
            client(1),
            &mut None,
        )
        .unwrap();
    assert!(choice.is_replica());
}
