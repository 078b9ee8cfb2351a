//! Reads over rows of several shards that fail on their way: the client gets one error, PostgreSQL's own where it is
//! PostgreSQL's, the session goes on, and nothing is left on any server.

use std::time::{Duration, Instant};

use postgres_protocol::message::frontend;
use switchyard_tests::cluster::{ClusterSpec, Stop};
use switchyard_tests::hardship::{
    Changed, Held, PAYLOAD, ROWS, Row, WAYS, Way, backends, bed, failure, fill, goes_on, kill,
    nothing_is_left, primary, router, send, spec, superuser, works,
};
use switchyard_tests::{
    Bed, Client, Failure, Login, Proxied, Router, bind, eventually, hardship, wait_for_replicas,
};

/// Waits in the middle of the rows of the second shard, or fails there.
const FETCH: &str = "SELECT count(*), max(payload) < 'y' FROM checked";
/// Keeps the workspace busy for longer than any test.
const WORK: &str = "SELECT count(*) FROM readings AS a, readings AS b, readings AS c, readings AS d, \
                    readings AS e, readings AS f";
/// More than lies between two programs, from the workspace.
const RESULT: &str = "SELECT repeat(payload, 100) FROM readings ORDER BY id";

/// Waits until the workspace works.
fn is_working(bed: &Bed) {
    eventually("the workspace works", || {
        let condition = "state = 'active' AND query LIKE '%readings AS e, readings AS f%'";
        backends(bed, "1", condition).len() == 1
    });
}

/// Waits until the workspace is held up by a client that does not read.
fn is_held_up(bed: &Bed) {
    eventually("the workspace waits for the client", || {
        let condition = "wait_event = 'ClientWrite' AND query LIKE '%payload%ORDER BY id%'";
        backends(bed, "1", condition).len() == 1
    });
}

fn client_of(router: &Router) -> Client {
    let mut client = Client::connect(&Login::new(router.port()));
    client.run("SET switchyard.layer = 'workspace'").succeeded();
    client
}

/// As [`hardship::fails`], in a workspace.
#[track_caller]
fn fails(bed: &Bed, router: &Router, sql: &str, expected: &str, act: impl FnMut(&Client)) {
    hardship::fails(bed, (router, &client_of), sql, expected, act);
}

/// As [`goes_on`], where there is no workspace to be had.
#[track_caller]
fn goes_on_elsewhere(client: &mut Client, way: Way) {
    let anywhere = "SET switchyard.layer = 'auto'";
    if way.is_block() {
        client.run("ROLLBACK TO before").succeeded();
        client.run(anywhere).succeeded();
        let own = "SELECT payload FROM readings WHERE id = 1000";
        assert_eq!(client.run(own).succeeded().value(), "own");
        client.run("ROLLBACK").succeeded();
    }
    client.run(anywhere).succeeded();
    let one = "SELECT divisor FROM readings WHERE id = 5";
    assert_eq!(client.run(one).succeeded().value(), "1");
}

#[test]
fn a_division_by_zero_on_one_shard() {
    let (bed, _turn) = bed();
    for shard in [0, 1] {
        let _row = Row::on(bed, shard, 0);
        fails(bed, bed.router(), FETCH, "22012", |_| ());
    }
}

/// The same where rows are appended, and the client has some of them already.
#[test]
fn a_division_by_zero_on_one_shard_whose_rows_are_appended() {
    let (bed, _turn) = bed();
    for shard in [0, 1] {
        let _row = Row::on(bed, shard, 0);
        for way in WAYS {
            let mut client = bed.client();
            send(&mut client, way, "SELECT payload FROM checked");
            let failure = failure(&mut client, way);
            assert_eq!(failure.sqlstate(), "22012", "{way:?}: {failure:?}");
            goes_on(&mut client, way, false);
            nothing_is_left(bed, bed.router());
            client.terminate();
        }
    }
}

/// Other shards are not left to finish what nobody wants any more: here they never would.
#[test]
fn a_division_by_zero_on_the_first_of_several_shards() {
    let (bed, _turn) = bed();
    let [first, second] = [0, 1].map(|shard| superuser(bed, shard, "SELECT min(id) FROM readings"));
    let sql = format!(
        "SELECT 100 / (id - {first}), generate_series(1, 1000000000000) FROM readings \
         WHERE id IN ({first}, {second})"
    );
    for way in WAYS.into_iter().filter(|way| *way != Way::Pipeline) {
        let mut client = bed.client();
        send(&mut client, way, &sql);
        let failure = failure(&mut client, way);
        assert_eq!(failure.sqlstate(), "22012", "{way:?}: {failure:?}");
        goes_on(&mut client, way, false);
        nothing_is_left(bed, bed.router());
        client.terminate();
    }
}

#[test]
fn a_division_by_zero_in_the_workspace() {
    let (bed, _turn) = bed();
    let at_once = "SELECT sum(100 / (id - 40)) FROM readings";
    let after_rows = "SELECT 100 / (id - 40), payload \
                      FROM (SELECT * FROM readings ORDER BY id OFFSET 0) AS r";
    for sql in [at_once, after_rows] {
        fails(bed, bed.router(), sql, "22012", |_| ());
    }
}

#[test]
fn a_table_that_must_not_be_read() {
    let (bed, _turn) = bed();
    // Only one shard says so.
    superuser(bed, 1, "REVOKE SELECT ON checked FROM app");
    fails(bed, bed.router(), FETCH, "42501", |_| ());
    superuser(bed, 1, "GRANT SELECT ON checked TO app");
}

/// A backend ends, which is no end of a session.
#[test]
fn a_backend_that_is_terminated_under_a_fetch() {
    let (bed, _turn) = bed();
    let held = Held::on(bed, 1);
    fails(bed, bed.router(), FETCH, "08006", |_| held.kill());
}

/// The server does not notice, and goes on until it wants to say something.
#[test]
fn a_connection_that_breaks_under_a_fetch() {
    let (bed, _turn) = bed();
    let mut held = Held::on(bed, 1);
    let proxied = Proxied::new(bed, "");
    for way in WAYS {
        held.hold();
        let mut client = client_of(proxied.router());
        send(&mut client, way, FETCH);
        held.is_waited_for();
        proxied.of_shard(1).cut();
        let failure = failure(&mut client, way);
        assert_eq!(failure.sqlstate(), "08006", "{way:?}: {failure:?}");
        held.release();
        goes_on(&mut client, way, true);
        nothing_is_left(bed, proxied.router());
    }
}

#[test]
fn a_workspace_that_is_terminated_as_it_works() {
    let (bed, _turn) = bed();
    fails(bed, bed.router(), WORK, "08006", |_| {
        is_working(bed);
        kill(
            bed,
            "state = 'active' AND query LIKE '%readings AS e, readings AS f%'",
        );
    });
}

#[test]
fn a_workspace_that_is_terminated_as_it_is_given_rows() {
    let (bed, _turn) = bed();
    let mut held = Held::on(bed, 1);
    for way in WAYS {
        held.hold();
        let mut client = client_of(bed.router());
        send(&mut client, way, FETCH);
        held.is_waited_for();
        kill(bed, "state = 'active' AND query LIKE 'COPY pg_temp%'");
        held.release();
        let failure = failure(&mut client, way);
        assert_eq!(failure.sqlstate(), "08006", "{way:?}: {failure:?}");
        goes_on(&mut client, way, false);
        nothing_is_left(bed, bed.router());
    }
}

#[test]
fn a_server_that_dies_under_a_fetch() {
    let (bed, _turn) = bed();
    let mut held = Held::on(bed, 1);
    for way in [Way::Simple, Way::BlockExtended] {
        held.hold();
        let mut client = client_of(bed.router());
        send(&mut client, way, FETCH);
        held.is_waited_for();
        primary(bed, 1).stop(Stop::Kill).unwrap();
        let failure = failure(&mut client, way);
        assert_eq!(failure.sqlstate(), "08006", "{way:?}: {failure:?}");
        primary(bed, 1).start().unwrap();
        eventually("the shard is back", || {
            let all = "SELECT count(*) FROM users";
            bed.client().run(all).failure.is_none()
        });
        goes_on(&mut client, way, true);
        nothing_is_left(bed, bed.router());
    }
}

#[test]
fn the_clients_own_time_limit() {
    let (bed, _turn) = bed();
    let held = Held::on(bed, 1);
    for sql in [FETCH, WORK] {
        for way in WAYS {
            let mut client = client_of(bed.router());
            client.run("SET statement_timeout = '1s'").succeeded();
            send(&mut client, way, sql);
            let failure = failure(&mut client, way);
            let expected = ("57014", "canceling statement due to statement timeout");
            let seen = (failure.sqlstate(), failure.message());
            assert_eq!(seen, expected, "{way:?}");
            goes_on(&mut client, way, false);
            nothing_is_left(bed, bed.router());
            client.terminate();
        }
    }
    drop(held);
}

#[test]
fn the_routers_time_limit() {
    let (bed, _turn) = bed();
    let router = router(bed, "query_timeout = \"1s\"");
    let _held = Held::on(bed, 1);
    for sql in [FETCH, WORK] {
        fails(bed, &router, sql, "57014", |_| ());
    }
}

#[test]
fn a_cancel_request() {
    let (bed, _turn) = bed();
    let held = Held::on(bed, 1);
    let cancel = |client: &Client| Client::cancel(&client.key, bed.router().port());
    fails(bed, bed.router(), FETCH, "57014", |client| {
        held.is_waited_for();
        cancel(client);
    });
    drop(held);
    fails(bed, bed.router(), WORK, "57014", |client| {
        is_working(bed);
        cancel(client);
    });
    fails(bed, bed.router(), RESULT, "57014", |client| {
        is_held_up(bed);
        cancel(client);
    });
}

#[test]
fn a_client_that_disappears() {
    let (bed, _turn) = bed();
    let held = Held::on(bed, 1);
    let stages: [(&str, &dyn Fn()); 3] = [
        (FETCH, &|| held.is_waited_for()),
        (WORK, &|| is_working(bed)),
        (RESULT, &|| is_held_up(bed)),
    ];
    for (sql, is_there) in stages {
        for way in WAYS {
            let mut client = client_of(bed.router());
            send(&mut client, way, sql);
            is_there();
            drop(client);
            nothing_is_left(bed, bed.router());
        }
    }
}

#[test]
fn more_rows_than_may_be_fetched() {
    let (bed, _turn) = bed();
    let router = router(bed, "max_fetch_bytes = \"500kB\"");
    for sql in [RESULT, "SELECT count(*), min(payload) FROM readings"] {
        fails(bed, &router, sql, "53400", |_| ());
    }
}

#[test]
fn a_workspace_that_others_have() {
    let (bed, _turn) = bed();
    let lines = "workspace_sessions = 1\nquery_wait_timeout = \"1s\"";
    let router = router(bed, lines);
    // Sessions have their workspaces on one shard after the other.
    let condition = "query LIKE '%readings AS e, readings AS f%' AND state = 'active'";
    let mut holders = Vec::new();
    for number in 1..=2 {
        let mut holder = client_of(&router);
        send(&mut holder, Way::Simple, WORK);
        holders.push(holder);
        eventually("it works", || backends(bed, "1", condition).len() == number);
    }
    // Of what is sent in a pipeline here, the first would need one.
    for way in WAYS.into_iter().filter(|way| *way != Way::Pipeline) {
        let mut client = client_of(&router);
        send(&mut client, way, RESULT);
        // Others go on.
        let mut other = Client::connect(&Login::new(router.port()));
        for id in 1..=ROWS {
            let one = format!("SELECT divisor FROM readings WHERE id = {id}");
            assert_eq!(other.run(&one).succeeded().value(), "1");
        }
        let failure = failure(&mut client, way);
        assert_eq!(failure.sqlstate(), "53400", "{way:?}: {failure:?}");
        assert!(failure.message().contains("1 workspaces"), "{failure:?}");
        goes_on_elsewhere(&mut client, way);
        client.terminate();
    }
    // Who waits can be cancelled, and can leave.
    let mut waiting = client_of(&router);
    let mut leaving = client_of(&router);
    for client in [&mut waiting, &mut leaving] {
        send(client, Way::Simple, RESULT);
    }
    eventually("they wait", || waiting_for_workspaces(&router) == 2.0);
    Client::cancel(&waiting.key, router.port());
    let cancelled = failure(&mut waiting, Way::Simple);
    assert_eq!(cancelled.sqlstate(), "57014", "{cancelled:?}");
    drop(leaving);
    eventually("nobody waits", || waiting_for_workspaces(&router) == 0.0);
    drop(holders);
    nothing_is_left(bed, &router);
    works(&mut client_of(&router));
    nothing_is_left(bed, &router);
}

fn waiting_for_workspaces(router: &Router) -> f64 {
    metric(router, "switchyard_pool_waiting{", "purpose=\"workspaces\"")
}

/// The sum of what a metric says wherever its labels contain `label`.
#[track_caller]
fn metric(router: &Router, name: &str, label: &str) -> f64 {
    let (_, page) = router.get("/metrics").unwrap();
    let mut lines = page
        .lines()
        .filter(|line| line.starts_with(name))
        .peekable();
    assert!(lines.peek().is_some(), "no {name} in\n{page}");
    let values = lines.filter(|line| line.contains(label));
    values
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[test]
fn what_is_brought_is_counted() {
    let (bed, _turn) = bed();
    let router = router(bed, "");
    let mut client = client_of(&router);
    client
        .run("SELECT count(*), min(payload) FROM readings")
        .succeeded();
    assert_eq!(
        metric(&router, "switchyard_queries_total{", "route=\"workspace\""),
        1.0
    );
    assert_eq!(
        metric(&router, "switchyard_fetched_rows_total{", ""),
        ROWS as f64
    );
    let bytes = metric(&router, "switchyard_fetched_bytes_total{", "");
    let (least, most) = (ROWS * PAYLOAD, ROWS * (PAYLOAD + 50));
    assert!(bytes > least as f64 && bytes < most as f64, "{bytes}");
    let idle = |purpose: &str| metric(&router, "switchyard_pool_idle{", purpose);
    assert_eq!(idle("purpose=\"workspaces\""), 1.0);
    assert_eq!(idle("purpose=\"sessions\""), 2.0);
}

/// A portal that another takes the name of, or that a query ends, gives its workspace back.
#[test]
fn portals_that_are_not_fetched_to_their_end() {
    let (bed, _turn) = bed();
    let router = router(bed, "workspace_sessions = 1\nquery_wait_timeout = \"5s\"");
    let mut client = client_of(&router);
    client.run("BEGIN").succeeded();
    for round in 0..4 {
        client.send(|buffer| {
            frontend::parse("", "SELECT id FROM readings ORDER BY id", [], buffer).unwrap();
            bind("", "", &[], 0, buffer);
            frontend::execute("", 3, buffer).unwrap();
            frontend::sync(buffer);
        });
        let replies = client.replies(None);
        assert!(replies[0].suspended, "{replies:?}");
        assert_eq!(replies[0].texts(), [["1"], ["2"], ["3"]]);
        if round % 2 == 1 {
            let count = client.run("SELECT count(*) FROM readings").succeeded();
            assert_eq!(count.value(), ROWS.to_string());
        }
    }
    client.run("COMMIT").succeeded();
    nothing_is_left(bed, &router);
}

/// Rows come from a replica, and then from the primary.
#[test]
fn a_replica_that_dies_under_a_fetch() {
    let bed = Bed::start(spec(ClusterSpec::for_tests(2, 1)));
    fill(&bed);
    superuser(
        &bed,
        1,
        "UPDATE checked SET divisor = -1 WHERE id = (SELECT max(id) FROM checked)",
    );
    wait_for_replicas(bed.cluster());
    let replica = bed.cluster().shard(1).replicas[0].as_ref();
    let mut holder = bed.node_client(replica);
    holder.run("SELECT pg_advisory_lock(7)").succeeded();
    let mut client = client_of(bed.router());
    send(&mut client, Way::Simple, FETCH);
    eventually("the fetch waits on the replica", || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'";
        bed.cluster().sql(replica, waiting).unwrap() == "1"
    });
    replica.stop(Stop::Kill).unwrap();
    let failure = failure(&mut client, Way::Simple);
    assert_eq!(failure.sqlstate(), "08006", "{failure:?}");
    works(&mut client);
    nothing_is_left(&bed, bed.router());
}

/// More temporary files than the workspace may write; PostgreSQL lets no role set that limit unless it was granted to it.
#[test]
fn more_temporary_files_than_allowed() {
    let (bed, _turn) = bed();
    let lines = "workspace_temp_limit = \"100kB\"";
    let router = router(bed, lines);
    let sort = "SELECT count(*) FROM (SELECT DISTINCT payload || id || n FROM readings, generate_series(1, 3) AS n) AS s";
    let sort = &format!("{sort} WHERE current_setting('work_mem') = '64kB'");
    fails_plainly(bed, &router, sort, "42501");
    let _granted = Changed::by(
        bed,
        "GRANT SET ON PARAMETER temp_file_limit TO app",
        "REVOKE SET ON PARAMETER temp_file_limit FROM app",
    );
    let _little = Changed::by(
        bed,
        "ALTER ROLE app SET work_mem = '64kB'",
        "ALTER ROLE app RESET work_mem",
    );
    fails(bed, &self::router(bed, lines), sort, "53400", |_| ());
}

/// As [`fails`], where no such statement can succeed.
#[track_caller]
fn fails_plainly(bed: &Bed, router: &Router, sql: &str, expected: &str) {
    // Of what is sent in a pipeline here, the first would fail.
    for way in WAYS.into_iter().filter(|way| *way != Way::Pipeline) {
        let mut client = client_of(router);
        send(&mut client, way, sql);
        let failure = failure(&mut client, way);
        assert_eq!(failure.sqlstate(), expected, "{way:?}: {failure:?}");
        goes_on_elsewhere(&mut client, way);
        nothing_is_left(bed, router);
    }
}

#[test]
fn no_right_to_make_temporary_tables() {
    let (bed, _turn) = bed();
    let revoked = Changed::by(
        bed,
        "REVOKE TEMPORARY ON DATABASE shop FROM PUBLIC, app",
        "GRANT TEMPORARY ON DATABASE shop TO PUBLIC, app",
    );
    fails_plainly(bed, bed.router(), RESULT, "42501");
    drop(revoked);
    works(&mut client_of(bed.router()));
}

/// Each has a connection to one shard and waits for another, or for a workspace: somebody can always go on.
#[test]
fn sessions_that_need_each_others_connections() {
    let (bed, _turn) = bed();
    let lines = "pool_size = 1\nworkspace_sessions = 1\nquery_wait_timeout = \"20s\"";
    let router = router(bed, lines);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..6 {
            let mut client = client_of(&router);
            scope.spawn(move || {
                if number >= 4 {
                    client.run("SET switchyard.layer = 'auto'").succeeded();
                }
                for _ in 0..10 {
                    match number {
                        0..4 => works(&mut client),
                        _ => drop(client.run("SELECT divisor FROM readings").succeeded()),
                    }
                }
            });
        }
    });
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    nothing_is_left(bed, &router);
}

/// What runs when the router is told to stop is finished.
#[test]
fn a_router_that_shuts_down() {
    let (bed, _turn) = bed();
    let mut held = Held::on(bed, 1);
    let mut router = router(bed, "");
    let mut client = client_of(&router);
    send(&mut client, Way::Simple, FETCH);
    held.is_waited_for();
    router.process().terminate();
    held.release();
    let reply = client.replies(None).remove(0).succeeded();
    assert_eq!(reply.texts(), [[ROWS.to_string(), "t".into()]]);
    let message = client.receive();
    assert_eq!(Failure::decode(&message.body).sqlstate(), "57P01");
    let ended = router.process().wait(Duration::from_secs(20)).unwrap();
    assert!(ended.is_some_and(|status| status.success()));
}
