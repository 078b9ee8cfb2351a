//! Servers that die, hang or vanish: an error that names the shard, soon, and nobody else is affected; what is unknown is
//! called unknown.

use std::time::{Duration, Instant};

use postgres_protocol::message::frontend;
use switchyard_tests::cluster::{ClusterSpec, Node, Stop};
use switchyard_tests::dialogue::{run, step};
use switchyard_tests::{
    Bed, BedSpec, Client, Hold, Login, Mode, Proxied, Proxy, Turns, eventually,
};

/// The tests stop servers.
static BEDS: Turns<2> = Turns::new(|| {
    let spec = BedSpec::of(ClusterSpec::for_tests(2, 0));
    Bed::start(spec.with_tables(LATE_CHECK, LATE_CHECK_CONFIG))
});

/// Its rows are checked at COMMIT, which then waits for whoever is inserting the same value.
const LATE_CHECK: &str = "CREATE TABLE late (value text UNIQUE DEFERRABLE INITIALLY DEFERRED);";
const LATE_CHECK_CONFIG: &str = "\n[[databases.tables]]\nname = \"late\"\nmethod = \"reference\"\n";

/// A user that lies on this shard, as the shard knows.
fn user_on(bed: &Bed, shard: usize) -> String {
    bed.cluster()
        .sql(
            bed.cluster().shard(shard).primary.as_ref(),
            "SELECT min(id) FROM users",
        )
        .unwrap()
}

fn name_of(user: &str) -> String {
    format!("SELECT name FROM users WHERE id = {user}")
}

/// The statement fails in under a second with a message that names the shard.
#[track_caller]
fn fails_soon(client: &mut Client, sql: &str, shard: &str) {
    let begin = Instant::now();
    let failure = client
        .run(sql)
        .failure
        .unwrap_or_else(|| panic!("{sql} is answered"));
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}: {failure:?}");
    assert_eq!(failure.sqlstate(), "08006", "{failure:?}");
    assert!(
        failure.message().contains(&format!("\"{shard}\"")),
        "{failure:?}"
    );
}

#[test]
fn a_dead_shard_is_named_and_the_others_work() {
    let (bed, _turn) = BEDS.take();
    let users = [user_on(bed, 0), user_on(bed, 1)];
    let mut client = bed.client();
    let mut in_transaction = bed.client();
    in_transaction.run("BEGIN").succeeded();
    in_transaction
        .run(&format!(
            "UPDATE users SET name = 'kept' WHERE id = {}",
            users[0]
        ))
        .succeeded();
    client.run(&name_of(&users[1])).succeeded();

    let victim = bed.cluster().shard(1).primary.as_ref();
    for how in [Stop::Kill, Stop::Fast] {
        victim.stop(how).unwrap();
        for _ in 0..5 {
            fails_soon(&mut client, &name_of(&users[1]), "s1");
            fails_soon(&mut client, "SELECT id FROM users", "s1");
            fails_soon(
                &mut bed.client(),
                &format!("UPDATE users SET name = 'x' WHERE id = {}", users[1]),
                "s1",
            );
            client.run(&name_of(&users[0])).succeeded();
            bed.client().run(&name_of(&users[0])).succeeded();
        }
        in_transaction.run(&name_of(&users[0])).succeeded();
        let (status, metrics) = bed.router().get("/metrics").unwrap();
        assert_eq!(status, 200);
        assert!(metrics.contains("s1"));

        victim.start().unwrap();
        eventually("the shard is back", || {
            client.run(&name_of(&users[1])).failure.is_none()
        });
    }
    in_transaction.run("COMMIT").succeeded();
    assert_eq!(client.run(&name_of(&users[0])).value(), "kept");
}

/// A transaction on a server that dies is lost; its client is told, and can begin another.
#[test]
fn a_transaction_on_a_dying_server_fails() {
    let (bed, _turn) = BEDS.take();
    let user = user_on(bed, 1);
    let victim = bed.cluster().shard(1).primary.as_ref();
    let mut client = bed.client();
    client.run("BEGIN").succeeded();
    client
        .run(&format!("UPDATE users SET name = 'lost' WHERE id = {user}"))
        .succeeded();
    victim.stop(Stop::Kill).unwrap();
    victim.start().unwrap();
    let failure = client.run(&name_of(&user)).failure.unwrap();
    assert_eq!(failure.sqlstate(), "08006", "{failure:?}");
    if failure.severity() != "FATAL" {
        assert_eq!(client.status, b'E');
        assert_eq!(client.run("COMMIT").tag.as_deref(), Some("ROLLBACK"));
        eventually("it works again", || {
            client.run(&name_of(&user)).failure.is_none()
        });
        assert_ne!(client.run(&name_of(&user)).value(), "lost");
    }
}

/// Lets what has this word in it come to the second shard, and breaks the connection before its answer: what the client makes of it.
fn without_answer<T: Send>(
    proxied: &Proxied,
    word: &'static [u8],
    done: impl Fn() -> bool,
    ask: impl FnOnce() -> T + Send,
) -> T {
    let proxy = proxied.of_shard(1);
    proxy.hold_at(word, Hold::After);
    std::thread::scope(|scope| {
        let asking = scope.spawn(ask);
        eventually("it has come", || proxy.is_held() && done());
        proxy.cut();
        proxy.set(Mode::Forward);
        asking.join().unwrap()
    })
}

#[test]
fn the_outcome_of_a_commit_whose_answer_is_lost_is_called_unknown() {
    let (bed, _turn) = BEDS.take();
    let user = user_on(bed, 1);
    let proxied = Proxied::new(bed, "");
    let mut client = proxied.client();
    let update = format!("UPDATE users SET name = 'unknown' WHERE id = {user}");
    client.run("BEGIN").succeeded();
    client.run(&update).succeeded();
    // It is committed: the client has to be told that this may be so.
    let committed = || bed.client().run(&name_of(&user)).value() == "unknown";
    let reply = without_answer(&proxied, b"COMMIT", committed, || client.run("COMMIT"));
    let failure = reply.failure.unwrap();
    assert_eq!(failure.sqlstate(), "08007", "{failure:?}");

    // A read that locks rows has no effect that outlives its connection.
    let mut locking = proxied.client();
    let read = "SELECT name FROM users WHERE id = $1 FOR UPDATE";
    let batch = || run(read, &[&user.to_string()]).sync();
    eventually("it works again", || {
        step(&mut locking, &batch(), b'Z')
            .iter()
            .all(|line| !line.starts_with('E'))
    });
    let word: &'static [u8] = user.clone().leak().as_bytes();
    let seen = without_answer(
        &proxied,
        word,
        || true,
        || step(&mut locking, &batch(), b'Z'),
    );
    assert!(seen[1].starts_with("E 08006"), "{seen:?}");

    // The same for a statement that is its own transaction.
    let mut client = proxied.client();
    eventually("it works again", || {
        client.run(&name_of(&user)).failure.is_none()
    });
    let reply = without_answer(&proxied, b"'unknown'", || true, || client.run(&update));
    let failure = reply.failure.unwrap();
    assert!(
        ["08007", "40003"].contains(&failure.sqlstate()),
        "{failure:?}"
    );
}

/// Idle connections that died while nobody looked are not given to a client.
#[test]
fn connections_cut_while_idle_are_not_noticed_by_clients() {
    let (bed, _turn) = BEDS.take();
    let users = [user_on(bed, 0), user_on(bed, 1)];
    let proxied = Proxied::new(bed, "");
    let mut client = proxied.client();
    // After five connections in a row that broke, the monitor's too, the router would call the node down.
    for _ in 0..4 {
        for user in &users {
            client.run(&name_of(user)).succeeded();
            client
                .extended("SELECT name FROM users WHERE id = $1", &[Some(user)], 1)
                .succeeded();
        }
        proxied.proxies().for_each(Proxy::cut);
    }
}

/// A server that is reachable but silent, as a machine that hangs or a network that swallows packets.
#[test]
fn a_silent_shard_is_named_soon_once_it_was_noticed() {
    let (bed, _turn) = BEDS.take();
    let users = [user_on(bed, 0), user_on(bed, 1)];
    let proxied = Proxied::new(
        bed,
        "health_interval = \"200ms\"\nhealth_timeout = \"500ms\"",
    );
    let mut client = proxied.client();
    client.run(&name_of(&users[1])).succeeded();
    proxied.of_shard(1).set(Mode::BlackHole);
    let down =
        |line: &str| line.contains("node_up") && line.contains("s1") && line.ends_with(" 0.0");
    eventually("the router notices", || {
        proxied
            .router()
            .get("/metrics")
            .is_some_and(|(_, page)| page.lines().any(down))
    });
    for _ in 0..5 {
        fails_soon(&mut client, &name_of(&users[1]), "s1");
        client.run(&name_of(&users[0])).succeeded();
    }
    // Swallowed bytes do not come back: those connections must be given up.
    proxied.of_shard(1).cut();
    proxied.of_shard(1).set(Mode::Forward);
    eventually("the shard is back", || {
        client.run(&name_of(&users[1])).failure.is_none()
    });
}

#[test]
fn a_cancel_request_reaches_the_statement_that_runs() {
    let (bed, _turn) = BEDS.take();
    let users = [user_on(bed, 0), user_on(bed, 1)];
    for user in &users {
        let mut client = bed.client();
        let (key, port) = (client.key.clone(), bed.router().port());
        let sleep = format!("SELECT pg_sleep(30) FROM users WHERE id = {user}");
        let mut direct: Vec<Client> = bed
            .cluster()
            .shards()
            .iter()
            .map(|shard| bed.node_client(shard.primary.as_ref()))
            .collect();
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(move || (client.run(&sleep), client));
            eventually("it sleeps", || {
                let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
                direct
                    .iter_mut()
                    .any(|server| server.run(sleeping).value() == "1")
            });
            Client::cancel(&(key.0, vec![0; key.1.len()]), port); // a wrong secret does nothing
            Client::cancel(&key, port);
            let (reply, mut client) = sleeper.join().unwrap();
            assert_eq!(reply.sqlstate(), Some("57014"));
            client.run(&name_of(user)).succeeded();
        });
    }
}

/// Who is already waiting when a server falls silent is told, too, though a little later: it might only be slow.
#[test]
fn what_waits_for_a_shard_that_falls_silent_ends() {
    let (bed, _turn) = BEDS.take();
    let users = [user_on(bed, 0), user_on(bed, 1)];
    let silent = bed.cluster().shard(1).primary.as_ref();
    let router = bed.another_router("", &|node: &dyn Node| node.port());
    let connect = || Client::connect(&Login::new(router.port()));
    let [mut alone, mut in_block, mut elsewhere] = [connect(), connect(), connect()];
    in_block.run("BEGIN").succeeded();
    for client in [&mut alone, &mut in_block] {
        client.run(&name_of(&users[1])).succeeded();
    }
    silent.pause().unwrap();
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for client in [&mut alone, &mut in_block] {
            let sql = name_of(&users[1]);
            scope.spawn(move || {
                let failure = client.run(&sql).failure.unwrap();
                assert_eq!(failure.sqlstate(), "08006", "{failure:?}");
                assert!(failure.message().contains("\"s1\""), "{failure:?}");
            });
        }
        for _ in 0..100 {
            elsewhere.run(&name_of(&users[0])).succeeded();
        }
    });
    let took = begin.elapsed();
    silent.resume().unwrap();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(in_block.status, b'E');
    in_block.run("ROLLBACK");
    for client in [&mut alone, &mut in_block] {
        eventually("the shard is back", || {
            client.run(&name_of(&users[1])).failure.is_none()
        });
    }
}

/// A client that has the start of a row cannot be told of an error: it would take it for the rest of the row.
#[test]
fn a_server_that_dies_within_a_row_ends_the_connection() {
    const ROW: usize = 20_000_000;
    let (bed, _turn) = BEDS.take();
    let user = user_on(bed, 0);
    let sql =
        format!("SELECT repeat('x', {ROW}) FROM users, generate_series(1, 5) WHERE id = {user}");
    let mut server = bed.node_client(bed.cluster().shard(0).primary.as_ref());
    let mut client = bed.client();
    client.send(|buffer| frontend::query(&sql, buffer).unwrap());
    assert_eq!(client.receive().tag, b'T');
    // The server is held up within a row, as nobody reads on; until the router's and the system's buffers are full, only now and then.
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE query LIKE 'SELECT repeat(%' AND wait_event = 'ClientWrite'";
    eventually("it waits for its client and is killed", || {
        server.run(kill).value() == "1"
    });
    while let Some(message) = client.try_receive().unwrap() {
        assert_eq!(message.tag, b'D', "within a row");
        // The number of columns, the length, and nothing but the value.
        assert!(message.body[6..].iter().all(|byte| *byte == b'x'));
    }
    bed.client().run(&name_of(&user)).succeeded();
}

fn on_primaries(bed: &Bed, sql: &str) -> Vec<String> {
    let shards = bed.cluster().shards().iter();
    shards
        .map(|shard| bed.cluster().sql(shard.primary.as_ref(), sql).unwrap())
        .collect()
}

/// Holds up the end of the transaction of whoever inserts this value into `late`, on one shard; then cuts off the second
/// shard, and lets it go on. What the writer is told.
fn cut_during_commit(
    proxied: &Proxied,
    holder: &mut Client,
    value: &str,
    write: impl FnOnce() -> Option<switchyard_tests::Failure> + Send,
) -> Option<switchyard_tests::Failure> {
    holder.run("BEGIN").succeeded();
    let insert = format!("INSERT INTO late VALUES ('{value}')");
    holder.run(&insert).succeeded();
    std::thread::scope(|scope| {
        let writer = scope.spawn(write);
        let waiting =
            "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted";
        eventually("it commits", || holder.run(waiting).value() == "1");
        proxied.of_shard(1).cut();
        holder.run("ROLLBACK").succeeded();
        writer.join().unwrap()
    })
}

/// A write to all shards, the second of which is lost while the transaction is committed: everywhere, if it had prepared its
/// part by then, and the client is told so; nowhere, if it had not.
#[test]
fn a_shard_lost_while_a_transaction_on_several_commits() {
    let (bed, _turn) = BEDS.take();
    let here = user_on(bed, 0);
    let proxied = Proxied::new(bed, "");
    let insert = |value: &str| format!("INSERT INTO late VALUES ('{value}')");
    type Write<'a> = &'a (dyn Fn(&mut Client, &str) -> Option<switchyard_tests::Failure> + Sync);
    let simple: Write<'_> = &|client, value| client.run(&insert(value)).failure;
    let extended: Write<'_> = &|client, value| {
        let sql = "INSERT INTO late VALUES ($1)";
        client.extended(sql, &[Some(value)], 0).failure
    };
    let block: Write<'_> = &|client, value| {
        client.run("BEGIN").succeeded();
        client.run("CREATE TABLE whole (a int)").succeeded();
        client.run(&insert(value)).succeeded();
        client.run("COMMIT").failure
    };
    // The first shard decides: it waits at its COMMIT, the second where it prepares.
    let cases = [
        ("a query", 0, simple),
        ("a batch", 0, extended),
        ("a block", 0, block),
        ("unprepared", 1, simple),
    ];
    for (value, held, write) in cases {
        let mut client = proxied.client();
        eventually("writes reach both shards", || {
            let write = "DELETE FROM late WHERE value = 'none'";
            client.run(write).failure.is_none()
        });
        let mut holder = bed.node_client(bed.cluster().shard(held).primary.as_ref());
        let failure = cut_during_commit(&proxied, &mut holder, value, || write(&mut client, value));
        let stored = format!("SELECT count(*) FROM late WHERE value = '{value}'");
        match held {
            0 => {
                assert_eq!(failure.map(|failure| failure.sqlstate().to_owned()), None);
                assert_eq!(on_primaries(bed, &stored), ["1", "1"], "{value}");
            }
            _ => {
                let failure = failure.unwrap();
                assert_eq!(failure.sqlstate(), "08006", "{failure:?}");
                assert_eq!(failure.message(), "the connection to shard \"s1\" was lost");
                eventually("nothing stays prepared", || {
                    let prepared = "SELECT count(*) FROM pg_prepared_xacts";
                    on_primaries(bed, prepared) == ["0", "0"]
                });
                assert_eq!(on_primaries(bed, &stored), ["0", "0"], "{value}");
            }
        }
        // The session has no transaction any longer, and works.
        assert_eq!(client.status, b'I');
        client.run(&name_of(&here)).succeeded();
        assert_eq!(client.status, b'I');
    }
    let made = on_primaries(bed, "SELECT count(*) FROM pg_class WHERE relname = 'whole'");
    assert_eq!(made, ["1", "1"]);
    on_primaries(bed, "DROP TABLE whole");
    on_primaries(bed, "TRUNCATE late");
}

/// The shard that decides is lost before it has heard of the COMMIT: nothing is committed anywhere.
#[test]
fn a_shard_lost_before_the_commit_leaves_the_other_untouched() {
    let (bed, _turn) = BEDS.take();
    let proxied = Proxied::new(bed, "");
    let mut client = proxied.client();
    let names = "SELECT name FROM countries WHERE code = 'jp'";
    let before = on_primaries(bed, names);
    client.run("BEGIN").succeeded();
    let update = "UPDATE countries SET name = 'first' WHERE code = 'jp'";
    client.run(update).succeeded();
    proxied.of_shard(0).cut();
    let failure = client.run("COMMIT").failure.unwrap();
    assert_eq!(failure.sqlstate(), "08006", "{failure:?}");
    assert_eq!(failure.message(), "the connection to shard \"s0\" was lost");
    assert_eq!(on_primaries(bed, names), before);
    assert_eq!(client.status, b'I');
    client.run(&name_of(&user_on(bed, 1))).succeeded();
}

/// Everybody wants a new connection at the same time: no more are made than the pool may have, and everybody is served.
#[test]
fn after_all_connections_are_lost_no_more_are_made_than_there_may_be() {
    const SIZE: usize = 3;
    /// The monitor's, the one that reads relations, and one that cancels.
    const OWN: usize = 3;
    let (bed, _turn) = BEDS.take();
    let proxied = Proxied::new(bed, &format!("pool_size = {SIZE}"));
    let sql = name_of(&user_on(bed, 1));
    let mut clients: Vec<Client> = (0..40).map(|_| proxied.client()).collect();
    let proxy = proxied.of_shard(1);
    for _ in 0..3 {
        proxy.cut();
        std::thread::scope(|scope| {
            let all: Vec<_> = clients
                .iter_mut()
                .map(|client| scope.spawn(|| client.run(&sql).succeeded()))
                .collect();
            while !all.iter().all(|served| served.is_finished()) {
                assert!(proxy.connections() <= SIZE + OWN);
                std::thread::yield_now();
            }
        });
    }
}

/// What no server says: unknown messages, impossible lengths, messages of another moment, an error without a word, a status that is none.
const NONSENSE: [&[u8]; 7] = [
    b"z\0\0\0\x04",
    b"Z\0\0\0\x03",
    b"D\xff\xff\xff\xff",
    b"R\0\0\0\x08\0\0\0\0",
    b"E\0\0\0\x05\0Z\0\0\0\x05I",
    b"Z\0\0\0\x05X",
    b"2\0\0\0\x042\0\0\0\x042\0\0\0\x04Z\0\0\0\x05T",
];

/// It ends the connection to the server; the client hears of an error, by either protocol, and goes on.
#[test]
fn nonsense_from_a_server_ends_its_connection_only() {
    let (bed, _turn) = BEDS.take();
    let proxied = Proxied::new(bed, "");
    let sql = name_of(&user_on(bed, 1));
    let mut client = proxied.client();
    let mut other = proxied.client();
    let proxy = proxied.of_shard(1);
    for nonsense in NONSENSE {
        for extended in [false, true] {
            eventually("the shard answers", || client.run(&sql).failure.is_none());
            proxy.set(Mode::Say(nonsense));
            let reply = match extended {
                false => client.run(&sql),
                true => client.extended(&sql, &[], 0),
            };
            proxy.set(Mode::Forward);
            let failed = reply.failure.as_ref().map(|failure| failure.sqlstate());
            // An error without a word passes as any other does.
            let known = [Some("XX000"), Some("08006"), Some("")];
            assert!(
                known.contains(&failed),
                "{nonsense:?} {extended}: {reply:?}"
            );
            assert_eq!(client.status, b'I');
        }
    }
    proxy.cut();
    eventually("the shard answers everybody", || {
        let mut clients = [&mut client, &mut other, &mut proxied.client()];
        clients
            .iter_mut()
            .all(|client| client.run(&sql).failure.is_none())
    });
}
