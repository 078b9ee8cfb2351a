//! What operators order by the console: PAUSE and RESUME, KILL, RECONNECT, DISABLE, SHUTDOWN.

use std::time::Duration;

use postgres_protocol::message::frontend;
use switchyard_tests::{Client, Login, Router, eventually};

use super::{READ, client, column, router};

/// What SHOW CLIENTS says that the clients of the shop do.
fn states(router: &Router) -> Vec<String> {
    let clients = router.console().run("SHOW CLIENTS").succeeded();
    column(&clients, "state")
}

fn one_is_held_up(router: &Router) {
    eventually("a client is held up", || {
        states(router).contains(&"waiting".to_owned())
    });
}

fn backend(client: &mut Client) -> String {
    client
        .run("SELECT pg_backend_pid() FROM users WHERE id = 1")
        .value()
}

#[track_caller]
fn ends(client: &mut Client, sqlstate: &str) {
    let goodbye = client.receive();
    let said = String::from_utf8_lossy(&goodbye.body).into_owned();
    assert!(goodbye.tag == b'E' && said.contains(sqlstate), "{said}");
    assert_eq!(client.try_receive().unwrap(), None);
}

#[test]
fn a_pause_lets_transactions_end_and_holds_up_what_comes() {
    let router = router("");
    let (mut busy, mut held) = (client(&router), client(&router));
    busy.run("BEGIN").succeeded();
    busy.run("UPDATE users SET name = 'before' WHERE id = 1")
        .succeeded();
    std::thread::scope(|scope| {
        let pausing = scope.spawn(|| router.console().run("PAUSE shop"));
        eventually("it is paused", || {
            let databases = router.console().run("SHOW DATABASES").succeeded();
            column(&databases, "paused") == ["1"]
        });
        let reading = scope.spawn(|| held.run(READ).value());
        one_is_held_up(&router);
        // What has begun goes on, also where it has not been yet.
        busy.run("UPDATE users SET name = 'before' WHERE id IN (1, 2, 3, 4)")
            .succeeded();
        assert!(!pausing.is_finished() && !reading.is_finished());
        busy.run("COMMIT").succeeded();
        let paused = pausing.join().unwrap().succeeded();
        assert_eq!(paused.tag.as_deref(), Some("PAUSE"));
        let pools = router.console().run("SHOW NODE_POOLS").succeeded();
        for connections in ["sv_active", "sv_idle"] {
            assert!(
                column(&pools, connections).iter().all(|count| count == "0"),
                "{pools:?}"
            );
        }
        assert!(!reading.is_finished());
        router.console().run("RESUME shop").succeeded();
        assert_eq!(reading.join().unwrap(), "before");
    });
    router
        .console()
        .refused("RESUME", "55000", "nothing is paused");
    router
        .console()
        .refused("PAUSE nowhere", "55000", "there is no database \"nowhere\"");
}

#[test]
fn a_client_is_held_up_for_so_long_and_may_leave() {
    let router = router("query_wait_timeout = \"1s\"");
    let (mut patient, leaving) = (client(&router), client(&router));
    router.console().run("PAUSE").succeeded();
    leaving.terminate();
    patient.send(|buffer| frontend::query(READ, buffer).unwrap());
    ends(&mut patient, "57P03");
    eventually("both have gone", || states(&router).is_empty());
    router.console().run("RESUME").succeeded();
    client(&router).run(READ).succeeded();
}

#[test]
fn one_client_is_killed_idle_and_at_work() {
    let router = router("");
    let named =
        |name: &str| Client::connect(&Login::new(router.port()).with("application_name", name));
    let (mut idle, mut working, mut other) = (named("idle"), named("working"), client(&router));
    let kill = |name: &str| {
        let clients = router.console().run("SHOW CLIENTS").succeeded();
        let names = column(&clients, "application_name");
        let at = names.iter().position(|found| found == name).unwrap();
        let id = &column(&clients, "id")[at];
        router
            .console()
            .run(&format!("KILL_CLIENT {id}"))
            .succeeded();
    };
    kill("idle");
    ends(&mut idle, "57P01");
    std::thread::scope(|scope| {
        let sleeping = scope.spawn(|| {
            let failure = working
                .run("SELECT pg_sleep(60) FROM users WHERE id = 1")
                .failure;
            assert_eq!(failure.unwrap().sqlstate(), "08006");
            ends(&mut working, "57P01");
        });
        eventually("it works", || {
            states(&router).contains(&"active".to_owned())
        });
        kill("working");
        sleeping.join().unwrap();
    });
    other.run(READ).succeeded();
    router
        .console()
        .refused("KILL_CLIENT 999999", "55000", "there is no client 999999");
}

#[test]
fn connections_are_made_anew() {
    let router = router("");
    let mut client = client(&router);
    let before = backend(&mut client);
    assert_eq!(backend(&mut client), before);
    router.console().run("RECONNECT shop").succeeded();
    router.console().run("WAIT_CLOSE shop").succeeded();
    let after = backend(&mut client);
    assert_ne!(after, before);
    // One that is in use is closed when it comes back.
    client.run("BEGIN").succeeded();
    assert_eq!(backend(&mut client), after);
    router.console().run("RECONNECT").succeeded();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| router.console().run("WAIT_CLOSE"));
        assert_eq!(backend(&mut client), after);
        assert!(!waiting.is_finished());
        client.run("COMMIT").succeeded();
        waiting.join().unwrap().succeeded();
    });
    assert_ne!(backend(&mut client), after);
}

#[test]
fn nobody_logs_in_to_a_disabled_database() {
    let router = router("");
    let mut before = client(&router);
    router.console().run("DISABLE shop").succeeded();
    let failure = Client::try_connect(&Login::new(router.port())).unwrap_err();
    assert_eq!(failure.sqlstate(), "55000");
    let message = "database \"shop\" is not currently accepting connections";
    assert_eq!(failure.message(), message);
    before.run(READ).succeeded();
    router.console().run("ENABLE shop").succeeded();
    client(&router).run(READ).succeeded();
}

#[test]
fn a_killed_database_has_neither_clients_nor_connections() {
    let router = router("");
    let (mut idle, mut busy) = (client(&router), client(&router));
    busy.run("BEGIN").succeeded();
    busy.run("UPDATE users SET name = 'never' WHERE id = 7")
        .succeeded();
    router.console().run("KILL shop").succeeded();
    ends(&mut idle, "57P01");
    ends(&mut busy, "57P01");
    std::thread::scope(|scope| {
        let held = scope.spawn(|| {
            client(&router)
                .run("SELECT name FROM users WHERE id = 7")
                .value()
        });
        one_is_held_up(&router);
        router.console().run("RESUME shop").succeeded();
        assert_ne!(held.join().unwrap(), "never");
    });
}

#[test]
fn the_router_shuts_down_by_order() {
    for (order, waits) in [("SHUTDOWN", false), ("SHUTDOWN WAIT_FOR_SERVERS", true)] {
        let mut router = router("");
        let mut busy = client(&router);
        busy.run("BEGIN").succeeded();
        busy.run(READ).succeeded();
        router.console().send(|buffer| {
            frontend::query(order, buffer).unwrap();
        });
        if waits {
            eventually("it drains", || {
                matches!(router.get("/readyz"), Some((503, _)))
            });
            busy.run(READ).succeeded();
            busy.run("COMMIT").succeeded();
        }
        let status = router.process().wait(Duration::from_secs(10)).unwrap();
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{order}");
    }
}
