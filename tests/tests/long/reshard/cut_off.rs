//! A router that does not hear that rows move: cut off from the catalog, or standing still. It answers as if nothing had moved, or not at all.

use std::sync::atomic::{AtomicBool, Ordering};

use switchyard_tests::{
    Asks, Client, Failure, Login, Mode, Proxy, Reply, Reshard, Router, eventually,
};

use super::load::{Over, ROWS, stand, under_load};

/// A router of the same shards that reaches the catalog through a proxy.
struct Distant {
    catalog: Proxy,
    router: Router,
}

impl Distant {
    fn new(stand: &Reshard) -> Distant {
        let node = stand.bed.cluster().catalog().unwrap();
        let catalog = Proxy::to(node.port());
        let router = stand.bed.another_router("", &|node| match node.name() {
            "catalog" => catalog.port(),
            _ => node.port(),
        });
        Distant { catalog, router }
    }

    fn client(&self) -> Client {
        Client::connect(&Login::new(self.router.port()))
    }

    fn try_client(&self) -> Result<Client, Failure> {
        Client::try_connect(&Login::new(self.router.port()))
    }

    /// Waits until it answers again.
    #[track_caller]
    fn hears_again(&self) {
        eventually("it hears again", || {
            let client = self.try_client();
            client.is_ok_and(|mut client| client.run(ALL).failure.is_none())
        });
    }

    /// Nothing that it says to the catalog arrives, nor the other way.
    fn cut_off(&self) {
        self.catalog.set(Mode::BlackHole);
    }

    fn heal(&self) {
        self.catalog.set(Mode::Forward);
        self.catalog.cut();
    }
}

const ALL: &str = "SELECT count(*) FROM marks WHERE id >= 0";

/// The answer is what it was before, or there is none. Whether there is.
#[track_caller]
fn is_right(reply: &Reply, expected: &str) -> bool {
    match &reply.failure {
        None => {
            assert_eq!(reply.value(), expected);
            true
        }
        Some(failure) => {
            // Cut off, or its connection has been ended.
            let sqlstate = failure.sqlstate();
            assert!(
                ["08006", "57P01", "40001"].contains(&sqlstate),
                "{failure:?}"
            );
            false
        }
    }
}

/// Statements on all shards, and on those of some rows. How many are answered.
#[track_caller]
fn reads_nothing_old(client: &mut Client) -> usize {
    let mut answered = usize::from(is_right(&client.run(ALL), &ROWS.to_string()));
    for id in 0..50 {
        let read = format!("SELECT count(*) FROM marks WHERE id = {id}");
        answered += usize::from(is_right(&client.run(&read), "1"));
    }
    answered
}

#[test]
fn a_router_that_was_cut_off_before() {
    let stand = stand();
    let distant = Distant::new(&stand);
    let mut idle = distant.client();
    let mut late = distant.client();
    let mut in_block = distant.client();
    assert_eq!(reads_nothing_old(&mut idle), 51);
    in_block.run("BEGIN").succeeded();
    in_block.run("SELECT count(*) FROM countries").succeeded();
    distant.cut_off();
    stand
        .run(Asks::Three, &["apply", "--yes", "--group-rows", "1000"])
        .succeeded();
    stand.is_clean(Asks::Three);
    // Whole scans meet a shard that has given rows away, whatever the connection.
    assert!(!is_right(&idle.run(ALL), &ROWS.to_string()));
    reads_nothing_old(&mut idle);
    is_right(&in_block.run(ALL), &ROWS.to_string());
    let failure = late.run(ALL).failure.unwrap();
    assert_eq!(failure.sqlstate(), "08006");
    assert_eq!(
        failure.message(),
        "the router does not hear from the catalog where rows are"
    );
    // What goes to one shard that has lost rows is not written either.
    for id in 0..50 {
        let write = format!("UPDATE marks SET n = n + 1 WHERE id = {id}");
        let reply = late.run(&write);
        assert!(reply.failure.is_some(), "{reply:?}");
    }
    assert_eq!(
        stand.bed.client().run("SELECT sum(n) FROM marks").value(),
        "0"
    );
    distant.heal();
    distant.hears_again();
    assert_eq!(reads_nothing_old(&mut distant.client()), 51);
}

/// A table is distributed, and undistributed again.
#[test]
fn a_router_that_is_cut_off_when_a_table_is_distributed() {
    let stand = stand();
    let distant = Distant::new(&stand);
    let mut near = stand.bed.client();
    near.run("CREATE TABLE notes (id bigint PRIMARY KEY)")
        .succeeded();
    near.run("INSERT INTO notes SELECT generate_series(1, 300)")
        .succeeded();
    let all = "SELECT count(*) FROM notes";
    let mut far = distant.client();
    eventually("it knows the table", || is_right(&far.run(all), "300"));
    let mut idle = distant.client();
    distant.cut_off();
    for change in [
        "SELECT create_distributed_table('notes', 'id')",
        "SELECT undistribute_table('notes')",
    ] {
        near.run(change).succeeded();
        assert_eq!(near.run(all).value(), "300");
        for client in [&mut far, &mut idle] {
            assert!(!is_right(&client.run(all), "300"), "{change}");
            let failure = client.run("INSERT INTO notes VALUES (301)").failure;
            assert!(failure.is_some(), "{change}");
        }
    }
    distant.heal();
    distant.hears_again();
    assert_eq!(distant.client().run(all).value(), "300");
    stand.is_clean(Asks::Two);
}

/// While clients of another router work, and rows are on their way.
#[test]
fn a_router_that_is_cut_off_meanwhile() {
    let stand = stand();
    let distant = Distant::new(&stand);
    let over = AtomicBool::new(false);
    let done = under_load(&stand, || {
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut answered = 0;
                while !over.load(Ordering::Relaxed) {
                    // Who logs in needs a connection, too.
                    let Ok(mut client) = distant.try_client() else {
                        continue;
                    };
                    for id in 0..20 {
                        let read = format!("SELECT count(*) FROM marks WHERE id = {id}");
                        answered += usize::from(is_right(&client.run(&read), "1"));
                        let few = format!("SELECT count(*) FROM marks WHERE id < {ROWS}");
                        answered += usize::from(is_right(&client.run(&few), &ROWS.to_string()));
                    }
                }
                answered
            });
            let ends = Over(&over);
            let status = || stand.run(Asks::Three, &["status"]).output;
            let mut moving = stand.spawn(Asks::Three, &["apply", "--yes", "--group-rows", "300"]);
            eventually("rows move", || {
                let status = status();
                status.contains(" buckets have moved") && !status.contains(" 0 of ")
            });
            distant.cut_off();
            let moved = moving.wait().unwrap();
            drop(ends);
            assert!(moved.success());
            assert!(reading.join().unwrap() > 0);
        });
    });
    stand.is_clean(Asks::Three);
    done.is_there(&stand);
    distant.heal();
    distant.hears_again();
    assert_eq!(
        distant.client().run("SELECT count(*) FROM marks").value(),
        stand.bed.client().run("SELECT count(*) FROM marks").value()
    );
}

/// It stands still from before rows move until after that, with statements half planned; and goes on.
#[test]
fn a_router_that_stands_still() {
    let stand = stand();
    let mut distant = Distant::new(&stand);
    let mut client = distant.client();
    assert_eq!(reads_nothing_old(&mut client), 51);
    distant.router.process().pause();
    client.send(|buffer| {
        postgres_protocol::message::frontend::query(ALL, buffer).unwrap();
    });
    stand
        .run(Asks::Three, &["apply", "--yes", "--group-rows", "1000"])
        .succeeded();
    distant.router.process().resume();
    is_right(&client.replies(None)[0], &ROWS.to_string());
    distant.hears_again();
    assert_eq!(reads_nothing_old(&mut distant.client()), 51);
    stand.is_clean(Asks::Three);
}
