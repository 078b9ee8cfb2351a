//! The demo gets a third shard while clients work, loses it, gets it again and keeps it, and has two in the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use switchyard_schema::BUCKETS;
use switchyard_tests::cluster::{Cluster, ClusterSpec, MOVING_RIGHTS, with_shard};
use switchyard_tests::{Client, Login, migrate};

use super::{free_port, start};

const CLIENTS: i64 = 4;
/// What clients count up, of the first users, which are a client's own each.
const USERS: i64 = 100;
/// So long clients think after each transaction: others want the processors, too.
const THINKS: Duration = Duration::from_millis(5);

/// Transactions as pgbench has them, on rows of all kinds; one that was not serializable is run again. How often it has counted.
fn work(port: u16, number: i64, over: &AtomicBool) -> i64 {
    let all = "SELECT count(*) FROM users";
    let mut client = Client::connect(&Login::new(port));
    let users = client.run(all).succeeded().value();
    let mut done = 0;
    while !over.load(Ordering::Relaxed) {
        let user = 1 + (done * CLIENTS + number) % USERS;
        let order = 1_000_000 + done;
        let statements = [
            "BEGIN".to_owned(),
            format!("UPDATE users SET name = 'user ' || id WHERE id = {user}"),
            format!("SELECT name FROM users WHERE id = {user}"),
            format!(
                "INSERT INTO orders (user_id, id, ship_to, total) SELECT {user}, {order}, country, 1 FROM users WHERE id = {user}"
            ),
            "UPDATE products SET price = price WHERE id = 1".to_owned(),
            "COMMIT".to_owned(),
        ];
        let failure = statements.iter().find_map(|sql| client.run(sql).failure);
        match failure {
            None => done += 1,
            Some(failure) => {
                assert_eq!(failure.sqlstate(), "40001", "{failure:?}");
                client.run("ROLLBACK").succeeded();
            }
        }
        // Statements of their own fail never.
        let read = format!("SELECT count(*) FROM orders WHERE user_id = {user} AND id >= 1000000");
        client.run(&read).succeeded();
        assert_eq!(client.run(all).succeeded().value(), users);
        std::thread::sleep(THINKS);
    }
    done
}

/// Tells clients to end, whatever comes.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn the_demo_gets_a_third_shard_and_loses_it() {
    let demo = start(free_port(), &[]);
    // Clients are to work while many groups move, not while many rows do.
    for (table, user) in [
        ("order_items", "user_id"),
        ("orders", "user_id"),
        ("users", "id"),
    ] {
        let fewer = format!("DELETE FROM {table} WHERE {user} > 3000");
        demo.client().run(&fewer).succeeded();
    }
    let third = Cluster::start(ClusterSpec::for_tests(1, 0)).unwrap();
    let node = third.shard(0).primary.as_ref();
    third.superuser_sql(node, "shop", MOVING_RIGHTS).unwrap();
    let two = demo.directory.join("switchyard.toml");
    let three = tempfile::tempdir().unwrap();
    let file = three.path().join("three.toml");
    let text = std::fs::read_to_string(&two).unwrap();
    std::fs::write(&file, with_shard(&text, "s2", node)).unwrap();

    let over = AtomicBool::new(false);
    let done: i64 = std::thread::scope(|scope| {
        let (over, port) = (&over, demo.port);
        let clients = (0..CLIENTS).map(|number| scope.spawn(move || work(port, number, over)));
        let clients: Vec<_> = clients.collect();
        let ends = Over(over);
        let run = |arguments: &[&str], file| migrate(arguments, file).succeeded();
        let there = run(&["apply", "--yes", "--json"], &file);
        // A third of them, and no more.
        let buckets = there.split("\"buckets\":").nth(1).unwrap();
        let buckets: usize = buckets[..buckets.find(',').unwrap()]
            .trim()
            .parse()
            .unwrap();
        let least = BUCKETS / 3;
        assert!(
            buckets.abs_diff(least) <= least / 100,
            "{buckets} of {least}"
        );
        run(&["rollback", "--yes", "--busy", "100"], &file);
        run(&["apply", "--yes", "--busy", "100"], &file);
        run(&["finish"], &file);
        run(&["verify"], &file);
        run(&["apply", "--yes", "--busy", "100"], &two);
        run(&["finish"], &two);
        drop(ends);
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum()
    });
    migrate(&["verify"], &two).succeeded();
    assert_eq!(third.sql(node, "SELECT count(*) FROM users").unwrap(), "0");
    let new = demo
        .client()
        .run("SELECT count(*) FROM orders WHERE id >= 1000000");
    assert_eq!(new.value(), done.to_string());
    assert!(done > 20, "clients have worked");
}
