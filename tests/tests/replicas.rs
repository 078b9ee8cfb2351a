//! What reads on replicas may miss, and who serves them when a replica is gone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use postgres_protocol::message::frontend;
use switchyard_tests::cluster::{Node, Stop};
use switchyard_tests::{
    Bed, BedSpec, Client, Login, Router, Turn, Turns, bind, eventually, wait_for_replicas,
};

const SESSIONS: usize = 16;
/// Writes, each with the read of what was written.
const PAIRS: usize = 10_000;
/// Users that each session has for itself: nobody else writes them.
const OWN_USERS: usize = 300 / SESSIONS;

/// The tests hold replicas back and kill them.
static BEDS: Turns<2> = Turns::new(|| Bed::start(BedSpec::usual()));

fn bed() -> (&'static Bed, Turn) {
    let (bed, turn) = BEDS.take();
    // The test before may have stopped some of them.
    eventually("the router sees every node up", || {
        let (_, page) = bed.router().get("/metrics").unwrap_or_default();
        let mut nodes = page
            .lines()
            .filter(|line| line.starts_with("switchyard_node_up{"));
        nodes.clone().count() == 4 && nodes.all(|line| line.ends_with(" 1.0"))
    });
    (bed, turn)
}

fn replicas(bed: &Bed) -> Vec<&dyn Node> {
    bed.cluster()
        .shards()
        .iter()
        .flat_map(|shard| &shard.replicas)
        .map(AsRef::as_ref)
        .collect()
}

fn ports<'a>(nodes: impl IntoIterator<Item = &'a dyn Node>) -> Vec<String> {
    nodes
        .into_iter()
        .map(|node| node.port().to_string())
        .collect()
}

/// Asks for the port of the server that reads this user.
fn server_of(user: usize) -> String {
    format!("SELECT inet_server_port() FROM users WHERE id = {user}")
}

/// The port of the server that reads this user.
fn reader_of(client: &mut Client, user: usize) -> String {
    client.run(&server_of(user)).succeeded().value()
}

/// What [`write_then_read`] saw.
#[derive(Debug, Default)]
struct Seen {
    missed: AtomicUsize,
    on_replica: AtomicUsize,
    /// Reads whose server died under them (SQLSTATE 08006).
    cut: AtomicUsize,
}

/// What [`only_read`] saw.
#[derive(Debug, Default)]
struct Reads {
    on_replica: AtomicUsize,
    elsewhere: AtomicUsize,
    /// Reads whose server died under them (SQLSTATE 08006).
    cut: AtomicUsize,
}

/// A session that reads and never writes, until the others are done.
fn only_read(bed: &Bed, reader: usize, done: &AtomicBool, reads: &Reads) {
    let replicas = ports(replicas(bed));
    let mut client = bed.client();
    for user in (1..=300).cycle().skip(reader * 100) {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let read = client.run(&server_of(user));
        let seen = if read.sqlstate() == Some("08006") {
            &reads.cut
        } else if replicas.contains(&read.succeeded().value()) {
            &reads.on_replica
        } else {
            &reads.elsewhere
        };
        seen.fetch_add(1, Ordering::Relaxed);
    }
}

/// Says that the work is done when it is dropped, also by a failure: whoever waits for the word must not wait for ever.
struct SayDone<'a>(&'a AtomicBool);

impl Drop for SayDone<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sessions write a row and read it again, in autocommit, in turn by the simple and the extended protocol.
fn write_then_read(bed: &Bed, next: &AtomicUsize, may_end: impl Fn() -> bool + Sync) -> Seen {
    let seen = Seen::default();
    let replicas = ports(replicas(bed));
    std::thread::scope(|scope| {
        for session in 0..SESSIONS {
            let (seen, replicas, may_end) = (&seen, &replicas, &may_end);
            scope.spawn(move || {
                let mut client = bed.client();
                loop {
                    let pair = next.fetch_add(1, Ordering::Relaxed);
                    if pair >= 10 * PAIRS || pair >= PAIRS && may_end() {
                        break;
                    }
                    let id = (1 + session + SESSIONS * (pair % OWN_USERS)).to_string();
                    let value = format!("{session}-{pair}");
                    let Some([found, server]) =
                        one_pair(&mut client, pair.is_multiple_of(2), &id, &value)
                    else {
                        seen.cut.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    seen.missed
                        .fetch_add(usize::from(found != value), Ordering::Relaxed);
                    seen.on_replica
                        .fetch_add(usize::from(replicas.contains(&server)), Ordering::Relaxed);
                }
            });
        }
    });
    seen
}

/// Writes a user's email; returns what a read right after finds, and the port of the server that answered it. None: the read's
/// server died.
fn one_pair(client: &mut Client, simple: bool, id: &str, value: &str) -> Option<[String; 2]> {
    let read = if simple {
        client
            .run(&format!(
                "UPDATE users SET email = '{value}' WHERE id = {id}"
            ))
            .succeeded();
        client.run(&format!(
            "SELECT email, inet_server_port() FROM users WHERE id = {id}"
        ))
    } else {
        client
            .extended(
                "UPDATE users SET email = $2 WHERE id = $1",
                &[Some(id), Some(value)],
                0,
            )
            .succeeded();
        client.extended(
            "SELECT email, inet_server_port() FROM users WHERE id = $1",
            &[Some(id)],
            0,
        )
    };
    if read.sqlstate() == Some("08006") {
        return None;
    }
    Some(read.succeeded().texts().remove(0).try_into().unwrap())
}

/// Holds every replica back; the value goes back to nothing when this is dropped.
struct HeldBack<'a>(&'a Bed);

impl HeldBack<'_> {
    fn by<'a>(bed: &'a Bed, delay: &str) -> HeldBack<'a> {
        for replica in replicas(bed) {
            replica
                .configure(&[("recovery_min_apply_delay", Some(delay))])
                .unwrap();
            let set =
                format!("SELECT current_setting('recovery_min_apply_delay')::interval = '{delay}'");
            eventually("the delay is set", || {
                bed.cluster().sql(replica, &set).unwrap() == "t"
            });
        }
        HeldBack(bed)
    }
}

impl Drop for HeldBack<'_> {
    fn drop(&mut self) {
        for replica in replicas(self.0) {
            replica
                .configure(&[("recovery_min_apply_delay", None)])
                .unwrap();
        }
    }
}

#[test]
fn no_session_misses_its_own_write_while_replicas_are_a_minute_behind() {
    let (bed, _turn) = bed();
    let held_back = HeldBack::by(bed, "1min");

    // Sessions that only read are served by replicas all the while.
    let (done, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    let reads = Reads::default();
    let seen = std::thread::scope(|scope| {
        for reader in 0..2 {
            let (done, reads) = (&done, &reads);
            scope.spawn(move || only_read(bed, reader, done, reads));
        }
        let _done = SayDone(&done);
        write_then_read(bed, &next, || true)
    });
    assert_eq!(
        seen.cut.into_inner(),
        0,
        "reads whose server died, though none did"
    );
    assert_eq!(
        seen.missed.into_inner(),
        0,
        "reads that missed their session's write"
    );
    assert_eq!(
        seen.on_replica.into_inner(),
        0,
        "reads by which no replica can have seen their session's write"
    );
    assert!(reads.on_replica.into_inner() > 100);
    assert_eq!(
        (reads.elsewhere.into_inner(), reads.cut.into_inner()),
        (0, 0),
        "reads of sessions that did not write"
    );
    drop(held_back);
    wait_for_replicas(bed.cluster());
}

/// A client whose settings are new to the router is told of run-time parameters by a primary. It has read nothing there.
#[test]
fn replicas_serve_whoever_has_only_logged_in() {
    let (bed, _turn) = bed();
    wait_for_replicas(bed.cluster());
    let held_back = HeldBack::by(bed, "1min");
    let mut writer = bed.client();
    let all = ports(replicas(bed));
    for user in 1..=20_usize {
        one_pair(&mut writer, true, &user.to_string(), "news").unwrap();
    }
    for newcomer in 0..10 {
        let login = bed
            .login()
            .with("application_name", &format!("newcomer {newcomer}"));
        let mut client = Client::connect(&login);
        for user in 1..=20 {
            assert!(all.contains(&reader_of(&mut client, user)), "{newcomer}");
        }
    }
    drop(held_back);
    wait_for_replicas(bed.cluster());
}

/// A replica that was read in the same batch, before the write, has not seen it.
#[test]
fn a_replica_read_before_a_write_does_not_serve_what_comes_after_it() {
    let (bed, _turn) = bed();
    wait_for_replicas(bed.cluster());
    let held_back = HeldBack::by(bed, "1min");
    let mut client = bed.client();
    assert!(ports(replicas(bed)).contains(&reader_of(&mut client, 9)));
    let write = "UPDATE users SET email = 'batched' WHERE id = 9";
    client.send(|buffer| {
        for sql in [&*server_of(9), write] {
            frontend::parse("", sql, [], buffer).unwrap();
            bind("", "", &[], 0, buffer);
            frontend::execute("", 0, buffer).unwrap();
        }
        frontend::sync(buffer);
    });
    for reply in client.replies(None) {
        reply.succeeded();
    }
    let read = client.run("SELECT email FROM users WHERE id = 9");
    assert_eq!(read.succeeded().value(), "batched");
    drop(held_back);
    wait_for_replicas(bed.cluster());
}

#[test]
fn a_session_returns_to_the_replica_once_that_has_its_write() {
    let (bed, _turn) = bed();
    wait_for_replicas(bed.cluster());
    let all = ports(replicas(bed));
    let mut client = bed.client();
    eventually("reads go to a replica", || {
        all.contains(&reader_of(&mut client, 7))
    });
    one_pair(&mut client, true, "7", "mine");
    eventually("reads go to a replica again", || {
        let read = client
            .run("SELECT email, inet_server_port() FROM users WHERE id = 7")
            .succeeded()
            .texts();
        assert_eq!(read[0][0], "mine");
        all.contains(&read[0][1])
    });
}

#[test]
fn no_session_misses_its_own_write_while_replicas_are_killed_and_restarted() {
    let (bed, _turn) = bed();
    let held_back = HeldBack::by(bed, "1min");
    let (done, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (reads, kills) = (Reads::default(), AtomicUsize::new(0));
    let seen = std::thread::scope(|scope| {
        for reader in 0..2 {
            let (done, reads) = (&done, &reads);
            scope.spawn(move || only_read(bed, reader, done, reads));
        }
        scope.spawn(|| {
            for (killed, replica) in replicas(bed).into_iter().cycle().enumerate() {
                // Each time the replicas have had the time to serve.
                eventually("the sessions go on", || {
                    done.load(Ordering::Relaxed)
                        || next.load(Ordering::Relaxed) > (killed + 1) * PAIRS / 10
                });
                if done.load(Ordering::Relaxed) {
                    return;
                }
                replica.stop(Stop::Kill).unwrap();
                replica.start().unwrap();
                kills.store(killed + 1, Ordering::Relaxed);
            }
        });
        let seen = {
            let _done = SayDone(&done);
            write_then_read(bed, &next, || kills.load(Ordering::Relaxed) >= 5)
        };
        assert!(kills.load(Ordering::Relaxed) >= 5);
        seen
    });
    drop(held_back);
    wait_for_replicas(bed.cluster());
    let cut = seen.cut.into_inner();
    assert!(
        cut < 100,
        "{cut} reads failed because their server was killed under them"
    );
    // Whenever they are there, the replicas serve.
    assert!(reads.on_replica.into_inner() > 100);
    let cut = reads.cut.into_inner();
    assert!(cut < 100, "{cut} reads of sessions that did not write");
    assert_eq!(
        seen.missed.into_inner(),
        0,
        "reads that missed their session's write"
    );
}

#[test]
fn a_dead_replica_is_left_out_at_once_and_returns() {
    let (bed, _turn) = bed();
    let shard = bed.cluster().shard(0);
    let replica = shard.replicas[0].as_ref();
    let mut client = bed.client();
    // A user of this shard, as its primary knows.
    let user = bed
        .cluster()
        .sql(shard.primary.as_ref(), "SELECT min(id) FROM users")
        .unwrap()
        .parse()
        .unwrap();
    let port = replica.port().to_string();
    eventually("the replica serves", || {
        reader_of(&mut client, user) == port
    });

    replica.stop(Stop::Kill).unwrap();
    let primary = shard.primary.port().to_string();
    for _ in 0..20 {
        assert_eq!(
            reader_of(&mut client, user),
            primary,
            "no read fails, the primary serves"
        );
        assert_eq!(reader_of(&mut bed.client(), user), primary);
    }
    replica.start().unwrap();
    eventually("the replica serves again", || {
        reader_of(&mut client, user) == port
    });
}

/// A read whose server dies under it is answered, by another server or by an error; nobody waits for ever.
#[test]
fn reads_in_flight_on_a_dying_replica_are_answered() {
    let (bed, _turn) = bed();
    wait_for_replicas(bed.cluster());
    let router = bed.another_router("consistency = \"eventual\"", &|node: &dyn Node| node.port());
    let (done, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for reader in 0..SESSIONS {
            let (done, answers, router) = (&done, &answers, &router);
            scope.spawn(move || {
                let mut client = Client::connect(&switchyard_tests::Login::new(router.port()));
                for user in (1..=300_u32).cycle().skip(reader) {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    // Receiving fails the test when the router is silent for long.
                    let reply = if user.is_multiple_of(2) {
                        client.run(&format!("SELECT name FROM users WHERE id = {user}"))
                    } else {
                        client.extended(
                            "SELECT name FROM users WHERE id = $1",
                            &[Some(&user.to_string())],
                            0,
                        )
                    };
                    assert!(
                        matches!(reply.sqlstate(), None | Some("08006")),
                        "{reply:?}"
                    );
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _done = SayDone(&done);
        for replica in replicas(bed).into_iter().cycle().take(6) {
            let goal = answers.load(Ordering::Relaxed) + 1_000;
            eventually("the readers go on", || {
                answers.load(Ordering::Relaxed) > goal
            });
            replica.stop(Stop::Kill).unwrap();
            replica.start().unwrap();
        }
    });
}

/// A transaction that may write sees what it wrote, and one that may not is served by a replica.
#[test]
fn transactions_choose_their_servers_by_what_they_may_do() {
    let (bed, _turn) = bed();
    wait_for_replicas(bed.cluster());
    let all = ports(replicas(bed));
    let primaries = ports(
        bed.cluster()
            .shards()
            .iter()
            .map(|shard| shard.primary.as_ref()),
    );
    let mut client = bed.client();
    for begin in [
        "BEGIN",
        "START TRANSACTION READ WRITE",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
    ] {
        client.run(begin).succeeded();
        assert!(primaries.contains(&reader_of(&mut client, 8)), "{begin}");
        client.run("ROLLBACK").succeeded();
    }
    for begin in [
        "BEGIN READ ONLY",
        "START TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ",
    ] {
        eventually("a replica serves", || {
            client.run(begin).succeeded();
            let server = reader_of(&mut client, 8);
            client.run("COMMIT").succeeded();
            all.contains(&server)
        });
    }
    // What writes or locks goes to the primary, whatever it looks like.
    for sql in [
        "SELECT inet_server_port() FROM users WHERE id = 8 FOR UPDATE",
        "SELECT inet_server_port() FROM users WHERE id = 8 FOR KEY SHARE",
        "WITH w AS (UPDATE users SET name = name WHERE id = 8 RETURNING 1) SELECT inet_server_port()",
        "SELECT inet_server_port(), random() FROM users WHERE id = 8",
    ] {
        let mut fresh = bed.client();
        let reply = fresh.run(sql).succeeded();
        if !reply.rows.is_empty() {
            assert!(primaries.contains(&reply.value()), "{sql}");
        }
    }
}

#[test]
fn hints_and_policies_choose_the_server() {
    let (bed, _turn) = bed();
    wait_for_replicas(bed.cluster());
    let all = ports(replicas(bed));
    let primaries = ports(
        bed.cluster()
            .shards()
            .iter()
            .map(|shard| shard.primary.as_ref()),
    );
    let mut client = bed.client();
    let mut server = |hint: &str| {
        client
            .run(&format!(
                "{hint} SELECT inet_server_port() FROM users WHERE id = 9"
            ))
            .succeeded()
            .value()
    };
    assert!(primaries.contains(&server("/* switchyard: primary */")));
    // Not before it has what the primary showed this session.
    eventually("a replica serves", || {
        all.contains(&server("/* switchyard: replica */"))
    });
    let of_shard = |index: usize| {
        let shard = bed.cluster().shard(index);
        [
            shard.primary.port().to_string(),
            shard.replicas[0].port().to_string(),
        ]
    };
    for (index, hint) in ["/* switchyard: shard=s0 */", "/* switchyard: shard=s1 */"]
        .into_iter()
        .enumerate()
    {
        let found = client
            .run(&format!("{hint} SELECT inet_server_port()"))
            .succeeded()
            .value();
        assert!(of_shard(index).contains(&found), "{hint}");
    }

    let same = |node: &dyn Node| node.port();
    let strong = bed.another_router("read_policy = \"primary\"", &same);
    let mut client = Client::connect(&switchyard_tests::Login::new(strong.port()));
    for user in 1..20 {
        assert!(primaries.contains(&reader_of(&mut client, user)));
    }
}

#[test]
fn a_session_says_where_its_reads_go() {
    let (bed, _turn) = bed();
    wait_for_replicas(bed.cluster());
    let replicas = ports(replicas(bed));
    let login = bed.login().with("options", "-c switchyard.route=primary");
    let mut client = Client::connect(&login);
    let on_replica = |client: &mut Client| replicas.contains(&reader_of(client, 1));
    let never = |client: &mut Client| (0..20).all(|_| !on_replica(client));
    assert!(never(&mut client));
    client.run("SET switchyard.route = 'replica'").succeeded();
    eventually("a replica serves", || on_replica(&mut client));
    // It comes and goes as any setting.
    client.run("BEGIN").succeeded();
    client.run("SET switchyard.route = 'primary'").succeeded();
    client.run("ROLLBACK").succeeded();
    eventually("a replica serves again", || on_replica(&mut client));
    client.run("RESET switchyard.route").succeeded();
    assert!(never(&mut client));
    client.run("SET switchyard.route = 'replica'").succeeded();
    client.run("DISCARD ALL").succeeded();
    assert!(never(&mut client));

    let failure = client.run("SET switchyard.route = 'somewhere'").failure;
    assert_eq!(failure.unwrap().sqlstate(), "22023");
    let login = bed.login().with("switchyard.route", "somewhere");
    let failure = Client::try_connect(&login).unwrap_err();
    assert_eq!((failure.severity(), failure.sqlstate()), ("FATAL", "22023"));
}

#[test]
fn a_replica_further_behind_than_allowed_serves_no_eventual_reads() {
    let (bed, _turn) = bed();
    wait_for_replicas(bed.cluster());
    let eventual = |lag: &str| {
        let lines = format!("consistency = \"eventual\"\nmax_replica_lag = \"{lag}\"");
        bed.another_router(&lines, &|node: &dyn Node| node.port())
    };
    let routers = [eventual("1s"), eventual("1h")];
    let connect = |router: &Router| Client::connect(&Login::new(router.port()));
    let [mut strict, mut lax] = routers.each_ref().map(connect);
    let replicas = ports(replicas(bed));
    for client in [&mut strict, &mut lax] {
        eventually("a replica serves", || {
            replicas.contains(&reader_of(client, 1))
        });
    }
    let _held_back = HeldBack::by(bed, "1min");
    let mut writer = bed.client();
    for user in 1..20 {
        let update = format!("UPDATE users SET name = name WHERE id = {user}");
        writer.run(&update).succeeded();
    }
    eventually("the replica has fallen too far behind", || {
        !replicas.contains(&reader_of(&mut strict, 1))
    });
    assert!(replicas.contains(&reader_of(&mut lax, 1)));
}

/// When each connection that looks after this node, one per router, last asked.
fn looks(client: &mut Client) -> BTreeMap<String, String> {
    let sql = "SELECT pid, query_start FROM pg_stat_activity \
               WHERE query LIKE '%pg_last_xact_replay_timestamp%' AND pid <> pg_backend_pid()";
    let rows = client.run(sql).succeeded().texts();
    let pair = |mut row: Vec<String>| (row.remove(0), row.remove(0));
    rows.into_iter().map(pair).collect()
}

/// Watches until one of those connections has asked so often: how many have asked, and how many there are.
fn until_asked(client: &mut Client, times: usize) -> (usize, usize) {
    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    let mut before = looks(client);
    eventually("one of them asks", || {
        let now = looks(client);
        for (process, at) in &now {
            if before.get(process) != Some(at) {
                *asked.entry(process.clone()).or_default() += 1;
            }
        }
        before = now;
        asked.values().any(|count| *count >= times)
    });
    (asked.len(), before.len())
}

#[test]
fn a_replica_without_its_primary_is_asked_at_the_configured_interval() {
    let (bed, _turn) = bed();
    let router = |interval: &str| {
        let lines = format!("health_interval = \"{interval}\"");
        bed.another_router(&lines, &|node: &dyn Node| node.port())
    };
    let _routers = [router("200ms"), router("1h")];
    let shard = bed.cluster().shard(0);
    let mut client = bed.node_client(shard.replicas[0].as_ref());
    // The bed's own router asks every second.
    until_asked(&mut client, 5);
    assert_eq!(until_asked(&mut client, 5), (3, 3));
    shard.primary.stop(Stop::Fast).unwrap();
    // What its end has set off is soon over.
    until_asked(&mut client, 10);
    assert_eq!(until_asked(&mut client, 10), (2, 3));
    shard.primary.start().unwrap();
}
