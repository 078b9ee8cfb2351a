//! Rows of several shards that are merged in the router, copied, or fetched from cursors, and fail on their way: the client gets
//! one error, PostgreSQL's own where it is PostgreSQL's, the session goes on, and nothing is left on any server.

use std::time::{Duration, Instant};

use postgres_protocol::message::frontend;
use switchyard_tests::hardship::{
    Held, Row, WAYS, Way, backends, bed, fails, failure, goes_on, kill, nothing_is_left, router,
    send, superuser, works,
};
use switchyard_tests::{Bed, Client, Login, Proxied, Router, bind, eventually};

/// One row, made of one row of each shard.
const TOTAL: &str = "SELECT count(*), max(id) FROM checked";
/// Rows of both shards, as they come.
const ORDERED: &str = "SELECT id, payload FROM checked ORDER BY id";
/// Groups of both shards.
const GROUPED: &str = "SELECT divisor, count(*) FROM checked GROUP BY divisor ORDER BY divisor";

const MERGES: [&str; 3] = [TOTAL, ORDERED, GROUPED];
/// These are not sent by the extended protocol here.
const COPIES: [&str; 2] = [
    "COPY checked TO STDOUT",
    "COPY (SELECT id, payload FROM checked WHERE id > 0) TO STDOUT",
];
const SIMPLE: [Way; 2] = [Way::Simple, Way::Block];

/// Keeps a cursor's workspace busy for longer than any test.
const WORK: &str = "SELECT count(*) FROM readings AS a, readings AS b, readings AS c, readings AS d, \
                    readings AS e, readings AS f";

fn connect(router: &Router) -> Client {
    Client::connect(&Login::new(router.port()))
}

/// Each merge fails, sent in each way, after `act` has been done to it; and each COPY by the simple protocol.
#[track_caller]
fn all_fail(bed: &Bed, router: &Router, expected: &str, mut act: impl FnMut(&Client)) {
    for sql in MERGES {
        fails(bed, (router, &connect), sql, expected, &mut act);
    }
    for sql in COPIES {
        for way in SIMPLE {
            let mut client = connect(router);
            send(&mut client, way, sql);
            act(&client);
            let failure = failure(&mut client, way);
            assert_eq!(failure.sqlstate(), expected, "{sql}, {way:?}: {failure:?}");
            goes_on(&mut client, way, expected == "08006");
            nothing_is_left(bed, router);
        }
    }
}

#[test]
fn these_are_merged() {
    let (bed, _turn) = bed();
    for sql in MERGES {
        let plan = bed.client().run(&format!("EXPLAIN {sql}")).value();
        assert!(plan.starts_with("Merge of all shards"), "{plan}");
    }
}

#[test]
fn a_division_by_zero_on_one_shard() {
    let (bed, _turn) = bed();
    for shard in [0, 1] {
        let _row = Row::on(bed, shard, 0);
        all_fail(bed, bed.router(), "22012", |_| ());
    }
}

/// What another shard does is not waited for: here it would take as long as somebody holds a lock.
#[test]
fn a_division_by_zero_on_one_shard_while_another_takes_its_time() {
    let (bed, _turn) = bed();
    for shard in [0, 1] {
        let _row = Row::on(bed, shard, 0);
        let held = Held::on(bed, 1 - shard);
        // Of rows in order the first come before any of them fails.
        for sql in [TOTAL, GROUPED] {
            fails(bed, (bed.router(), &connect), sql, "22012", |_| ());
        }
        drop(held);
    }
}

/// A backend ends, which is no end of a session.
#[test]
fn a_backend_that_is_terminated() {
    let (bed, _turn) = bed();
    for shard in [0, 1] {
        let held = Held::on(bed, shard);
        all_fail(bed, bed.router(), "08006", |_| held.kill());
    }
}

#[test]
fn a_plan_with_what_it_takes() {
    let (bed, _turn) = bed();
    let explain = format!("EXPLAIN ANALYZE {TOTAL}");
    let held = Held::on(bed, 1);
    let router = (bed.router(), &connect as &dyn Fn(&Router) -> Client);
    fails(bed, router, &explain, "08006", |_| held.kill());
    fails(bed, router, &explain, "57014", |client| {
        held.is_waited_for();
        Client::cancel(&client.key, bed.router().port());
    });
    drop(held);
    let _row = Row::on(bed, 0, 0);
    fails(bed, router, &explain, "22012", |_| ());
}

/// The server does not notice, and goes on until it wants to say something.
#[test]
fn a_connection_that_breaks() {
    let (bed, _turn) = bed();
    let mut held = Held::on(bed, 1);
    let proxied = Proxied::new(bed, "");
    for sql in MERGES {
        for way in WAYS {
            held.hold();
            let mut client = connect(proxied.router());
            send(&mut client, way, sql);
            held.is_waited_for();
            proxied.of_shard(1).cut();
            let failure = failure(&mut client, way);
            assert_eq!(failure.sqlstate(), "08006", "{sql}, {way:?}: {failure:?}");
            held.release();
            goes_on(&mut client, way, true);
            nothing_is_left(bed, proxied.router());
        }
    }
}

#[test]
fn the_clients_own_time_limit() {
    let (bed, _turn) = bed();
    let _held = Held::on(bed, 1);
    let impatient = |router: &Router| {
        let mut client = connect(router);
        client.run("SET statement_timeout = '500ms'").succeeded();
        client
    };
    for sql in MERGES {
        fails(bed, (bed.router(), &impatient), sql, "57014", |_| ());
    }
}

#[test]
fn the_routers_time_limit() {
    let (bed, _turn) = bed();
    let router = router(bed, "query_timeout = \"500ms\"");
    let _held = Held::on(bed, 0);
    for sql in MERGES {
        fails(bed, (&router, &connect), sql, "57014", |_| ());
    }
}

#[test]
fn a_cancel_request() {
    let (bed, _turn) = bed();
    for shard in [0, 1] {
        let held = Held::on(bed, shard);
        all_fail(bed, bed.router(), "57014", |client| {
            held.is_waited_for();
            Client::cancel(&client.key, bed.router().port());
        });
    }
}

#[test]
fn a_client_that_disappears() {
    let (bed, _turn) = bed();
    for shard in [0, 1] {
        let held = Held::on(bed, shard);
        let merges = MERGES
            .into_iter()
            .flat_map(|sql| WAYS.map(|way| (sql, way)));
        let copies = COPIES
            .into_iter()
            .flat_map(|sql| SIMPLE.map(|way| (sql, way)));
        for (sql, way) in merges.chain(copies) {
            let mut client = connect(bed.router());
            send(&mut client, way, sql);
            held.is_waited_for();
            drop(client);
            nothing_is_left(bed, bed.router());
        }
    }
}

/// A client that asks for a few rows at a time, and goes on after an error in its block.
#[test]
fn a_portal_that_fails_as_it_goes_on() {
    let (bed, _turn) = bed();
    let row = Row::on(bed, 1, 0);
    let mut client = bed.client();
    client.run("BEGIN").succeeded();
    client.run("DECLARE c CURSOR FOR SELECT 1").succeeded();
    client.run("SAVEPOINT before").succeeded();
    let failed = client.extended(ORDERED, &[], 1).failure;
    assert_eq!(failed.expect("a row is bad").sqlstate(), "22012");
    assert_eq!(client.status, b'E');
    drop(row);
    client.run("ROLLBACK TO before").succeeded();
    assert_eq!(client.run("FETCH c").succeeded().value(), "1");
    let rows = client.extended(TOTAL, &[], 0).succeeded().texts();
    assert_eq!(rows, [["60", "60"]]);
    client.run("COMMIT").succeeded();
    works(&mut client);
    nothing_is_left(bed, bed.router());
}

/// What is said to shards about one portal is answered before they are asked for the rows of another.
#[test]
fn a_portal_that_is_closed_in_a_pipeline() {
    let (bed, _turn) = bed();
    let join = "SELECT count(*) FROM readings AS a JOIN readings AS b ON b.id = a.id + 1";
    let mut client = bed.client();
    for _ in 0..4 {
        client.send(|buffer| {
            frontend::parse("", "SELECT id FROM readings ORDER BY id", [], buffer).unwrap();
            bind("p", "", &[], 0, buffer);
            frontend::execute("p", 3, buffer).unwrap();
            frontend::close(b'P', "p", buffer).unwrap();
            frontend::parse("", join, [], buffer).unwrap();
            bind("", "", &[], 0, buffer);
            frontend::execute("", 0, buffer).unwrap();
            frontend::sync(buffer);
        });
        let replies = client.replies(None);
        assert_eq!(replies[0].texts(), [["1"], ["2"], ["3"]]);
        assert_eq!(replies[1].clone().succeeded().texts(), [["59"]]);
    }
    works(&mut client);
    nothing_is_left(bed, bed.router());
}

/// In a block a cursor's error is the block's, and it ends with it.
#[track_caller]
fn cursor_fails(client: &mut Client, fetch: &str, expected: &str) {
    let failed = client.run(fetch).failure;
    let failed = failed.unwrap_or_else(|| panic!("{fetch} succeeds"));
    assert_eq!(failed.sqlstate(), expected, "{failed:?}");
    assert_eq!(client.status, b'E');
    client.run("ROLLBACK").succeeded();
    works(client);
}

fn declare(client: &mut Client, query: &str) {
    client.run("BEGIN").succeeded();
    let declare = format!("DECLARE c CURSOR FOR {query}");
    client.run(&declare).succeeded();
}

#[test]
fn a_division_by_zero_in_a_cursor() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    let late = "SELECT 100 / (id - 40) FROM (SELECT * FROM readings ORDER BY id OFFSET 0) AS r";
    declare(&mut client, late);
    assert_eq!(client.run("FETCH 20 FROM c").succeeded().rows.len(), 20);
    cursor_fails(&mut client, "FETCH ALL FROM c", "22012");
    nothing_is_left(bed, bed.router());
    // Its rows are brought as it is declared.
    let _row = Row::on(bed, 0, 0);
    client.run("BEGIN").succeeded();
    cursor_fails(
        &mut client,
        &format!("DECLARE c CURSOR FOR {ORDERED}"),
        "22012",
    );
    nothing_is_left(bed, bed.router());
}

#[test]
fn a_cursor_whose_workspace_is_terminated() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    declare(&mut client, "SELECT id FROM readings ORDER BY id");
    kill(
        bed,
        "state = 'idle in transaction' AND query LIKE 'DECLARE%'",
    );
    cursor_fails(&mut client, "FETCH c", "08006");
    nothing_is_left(bed, bed.router());
}

#[test]
fn a_cursor_that_is_cancelled() {
    let (bed, _turn) = bed();
    let held = Held::on(bed, 1);
    let (router, address) = (bed.router(), bed.router().port());
    let mut client = connect(router);
    for sql in [ORDERED, WORK] {
        let key = client.key.clone();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                match sql {
                    ORDERED => held_is_waited_for(bed),
                    _ => is_working(bed),
                }
                Client::cancel(&key, address);
            });
            match sql {
                ORDERED => {
                    client.run("BEGIN").succeeded();
                    let declare = format!("DECLARE c CURSOR FOR {sql}");
                    cursor_fails(&mut client, &declare, "57014");
                }
                _ => {
                    declare(&mut client, sql);
                    cursor_fails(&mut client, "FETCH c", "57014");
                }
            }
        });
        nothing_is_left(bed, router);
    }
    drop(held);
}

#[test]
fn a_cursor_that_takes_too_long() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    client.run("SET statement_timeout = '500ms'").succeeded();
    declare(&mut client, WORK);
    cursor_fails(&mut client, "FETCH c", "57014");
    nothing_is_left(bed, bed.router());
}

fn held_is_waited_for(bed: &Bed) {
    eventually("the fetch waits", || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'";
        superuser(bed, 1, waiting) == "1"
    });
}

fn is_working(bed: &Bed) {
    eventually("the workspace works", || {
        backends(bed, "1", "state = 'active' AND query LIKE 'FETCH%'").len() == 1
    });
}

/// Sessions that have one connection to each shard between them all get their turn, however they read.
#[test]
fn sessions_that_need_each_others_connections() {
    let (bed, _turn) = bed();
    let lines = "pool_size = 1\nworkspace_sessions = 1\nquery_wait_timeout = \"20s\"";
    let router = router(bed, lines);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..6 {
            let mut client = connect(&router);
            scope.spawn(move || {
                for round in 0..10 {
                    match (number + round) % 5 {
                        0 => works(&mut client),
                        1 => drop(client.run(ORDERED).succeeded()),
                        3 => drop(client.run(&format!("EXPLAIN {TOTAL}")).succeeded()),
                        2 => drop(
                            client
                                .extended("SELECT divisor FROM checked", &[], 0)
                                .succeeded(),
                        ),
                        _ => drop(client.extended(GROUPED, &[], 1).succeeded()),
                    }
                }
            });
        }
    });
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    nothing_is_left(bed, &router);
}
