//! Routers that share an address: one takes another's place, and cancel requests come to either.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use switchyard_tests::{Client, Login, Router, eventually};

use super::{READ, bed, client, column, router};

/// Another router on the port of the first.
fn beside(first: &Router, lines: &str) -> Router {
    bed().router_by(lines, |file| {
        let from = file.find("listen = ").unwrap();
        let to = from + file[from..].find('\n').unwrap();
        let listen = format!("listen = \"127.0.0.1:{}\"", first.port());
        format!("{}{listen}{}", &file[..from], &file[to..])
    })
}

#[test]
fn a_router_takes_the_place_of_another_and_nobody_notices() {
    let lines = "so_reuseport = true";
    let mut old = router(lines);
    let mut stays = client(&old);
    stays.run("SET application_name = 'stays'").succeeded();
    let mut console = old.console();
    let new = beside(&old, lines);
    let (done, port) = (AtomicBool::new(false), old.port());
    std::thread::scope(|scope| {
        let come_and_go = scope.spawn(|| {
            let mut served = 0;
            while !done.load(Ordering::Relaxed) {
                let mut client = Client::connect(&Login::new(port));
                client.run(READ).succeeded();
                served += 1;
            }
            served
        });
        console.run("SHUTDOWN WAIT_FOR_CLIENTS").succeeded();
        eventually("all come to the new one", || {
            let shown = console.run("SHOW CLIENTS").succeeded();
            column(&shown, "application_name") == ["stays"]
        });
        let answered = |router: &Router| router.get("/readyz").map(|(status, _)| status);
        assert_eq!(answered(&new), Some(200));
        for _ in 0..5 {
            stays.run(READ).succeeded();
        }
        assert_eq!(stays.run("SHOW application_name").value(), "stays");
        done.store(true, Ordering::Relaxed);
        assert!(come_and_go.join().unwrap() > 0);
    });
    assert!(old.is_alive());
    drop(stays);
    let ended = old.process().wait(Duration::from_secs(10)).unwrap();
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
    Client::connect(&Login::new(port)).run(READ).succeeded();
}

#[test]
fn a_cancel_request_finds_its_way_through_another_router() {
    let with_peer = |id: u16, other: u16, port: u16| {
        bed().router_by(&format!("peer_id = {id}"), |file| {
            format!("{file}\n[[peers]]\nid = {other}\nhost = \"127.0.0.1\"\nport = {port}\n")
        })
    };
    let first = with_peer(1, 2, 1);
    let second = with_peer(2, 1, first.port());
    let mut client = client(&first);
    let (pid, secret) = client.key.clone();
    let secret: [u8; 4] = secret.try_into().unwrap();
    let cancel = |router: &Router, secret: [u8; 4]| {
        let mut request = BytesMut::new();
        frontend::cancel_request(pid, i32::from_be_bytes(secret), &mut request);
        let mut connection = Client::open(router.port());
        connection.send_raw(&request).unwrap();
        assert_eq!(connection.try_receive().unwrap(), None);
    };
    std::thread::scope(|scope| {
        let sleeping = scope.spawn(|| {
            client
                .run("SELECT pg_sleep(60) FROM users WHERE id = 1")
                .sqlstate()
                .map(str::to_owned)
        });
        eventually("it sleeps", || {
            let shown = first.console().run("SHOW CLIENTS").succeeded();
            column(&shown, "state") == ["active"]
        });
        cancel(&second, secret.map(|byte| !byte));
        assert!(!sleeping.is_finished());
        cancel(&second, secret);
        assert_eq!(sleeping.join().unwrap().as_deref(), Some("57014"));
    });
    let peers = second.console().run("SHOW PEERS").succeeded();
    assert_eq!(column(&peers, "peer_id"), ["2", "1"]);
}

#[test]
fn settings_are_changed_at_run_time_as_far_as_they_can_be() {
    let router = router("");
    let mut console = router.console();
    let shown = |console: &mut Client, wanted: &str| {
        let config = console.run("SHOW CONFIG").succeeded();
        let at = column(&config, "key").iter().position(|key| key == wanted);
        column(&config, "value").swap_remove(at.unwrap())
    };
    assert_eq!(
        console
            .run("SET max_clients = 2")
            .succeeded()
            .tag
            .as_deref(),
        Some("SET")
    );
    assert_eq!(shown(&mut console, "max_clients"), "2");
    // The console is one, too.
    let mut one = client(&router);
    one.run(READ).succeeded();
    assert_eq!(
        Client::try_connect(&Login::new(router.port()))
            .unwrap_err()
            .sqlstate(),
        "53300"
    );
    console.run("SET query_timeout TO '300ms'").succeeded();
    assert_eq!(
        one.run("SELECT pg_sleep(60) FROM users WHERE id = 1")
            .sqlstate(),
        Some("57014")
    );
    for sql in [
        "SET listen = '127.0.0.1:1'",
        "SET nosuch = 1",
        "SET pool_size = 0",
    ] {
        assert_eq!(console.run(sql).sqlstate(), Some("22023"), "{sql}");
    }
    // What drivers say has no meaning, and the file goes before all.
    console.run("SET extra_float_digits = 3").succeeded();
    console.run("RELOAD").succeeded();
    assert_eq!(shown(&mut console, "max_clients"), "10000");
    client(&router).run(READ).succeeded();
    for topic in ["ACTIVE_SOCKETS", "MEM", "FDS"] {
        let rows = console.run(&format!("SHOW {topic}")).succeeded().rows.len();
        assert!(rows > 0 || topic == "ACTIVE_SOCKETS", "{topic}");
    }
}
