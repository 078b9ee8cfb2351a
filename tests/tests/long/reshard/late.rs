//! What was planned by where rows were and comes to its shard when they have gone; and reads on replicas while they go.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use switchyard_tests::{Asks, Client, Login, Reply, Reshard, Router, eventually};

use super::load::{Over, ROWS, stand, stand_with_replicas};
use super::steps::{INDEX, Steps};

/// The answer is right, or it is said that the transaction is to be run again. Whether it is right.
#[track_caller]
fn is_right(reply: &Reply, expected: &str) -> bool {
    match &reply.failure {
        None => assert_eq!(reply.value(), expected),
        Some(failure) => assert_eq!(failure.sqlstate(), "40001", "{failure:?}"),
    }
    reply.failure.is_none()
}

/// A batch up to its Sync, which is not sent.
fn begin_batch(client: &mut Client, id: usize) {
    let sql = format!("SELECT count(*) FROM marks WHERE id = {id}");
    client.send(|buffer| {
        frontend::parse("", &sql, [], buffer).unwrap();
        let no_value = |(): (), _: &mut _| Ok(IsNull::Yes);
        let none: [(); 0] = [];
        frontend::bind("", "", [], none, no_value, [0], buffer)
            .ok()
            .unwrap();
        frontend::describe(b'P', "", buffer).unwrap();
        frontend::execute("", 0, buffer).unwrap();
    });
}

/// Clients that leave a batch without its end while rows move are not answered as if they had not.
#[test]
fn a_batch_is_ended_when_rows_have_moved() {
    let stand = stand();
    let mut clients: Vec<Client> = (0..16).map(|_| stand.bed.client()).collect();
    for (id, client) in clients.iter_mut().enumerate() {
        if id % 2 == 1 {
            client.run("BEGIN").succeeded();
        }
        begin_batch(client, id);
    }
    // It has come when its connection is taken.
    let mut console = stand.bed.router().console();
    eventually("all of them wait", || {
        let waiting = console.run("SHOW CLIENTS").succeeded().texts();
        let waits = |row: &&Vec<String>| row.iter().any(|value| value == "idle in transaction");
        waiting.iter().filter(waits).count() == 16
    });
    stand.run(Asks::Three, &["apply", "--yes"]).succeeded();
    let mut right = 0;
    for (id, client) in clients.iter_mut().enumerate() {
        client.send(frontend::sync);
        right += usize::from(is_right(&client.replies(None)[0], "1"));
        if id % 2 == 1 {
            client.run("ROLLBACK").succeeded();
        }
        let again = format!("SELECT count(*) FROM marks WHERE id = {id}");
        assert_eq!(client.extended(&again, &[], 0).value(), "1");
    }
    assert!(right < 16, "some of the rows have moved");
    stand.is_clean(Asks::Three);
}

/// Sends a signal to some processes.
fn signal(name: &str, processes: &[String]) {
    let sent = Command::new("kill")
        .args(["-s", name])
        .args(processes)
        .status();
    assert!(sent.unwrap().success());
}

/// The servers of connections that stand still.
struct Still(Vec<String>);

impl Still {
    fn new(processes: Vec<String>) -> Still {
        signal("STOP", &processes);
        Still(processes)
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        signal("CONT", &self.0);
    }
}

/// Two rows that move from the first shard to the third.
fn moved_rows(stand: &Reshard) -> [String; 2] {
    stand.run(Asks::Three, &["apply", "--yes"]).succeeded();
    let there = stand.superuser(2, "SELECT string_agg(id::text, ',') FROM marks");
    stand.run(Asks::Three, &["rollback", "--yes"]).succeeded();
    ["min", "max"].map(|which| {
        let row = format!("SELECT {which}(id) FROM marks WHERE id IN ({there})");
        stand.superuser(0, &row)
    })
}

/// What a router has sent to servers that do not come to it, since they stand still, is not done when the rows have moved: it is run again by where
/// they are then, or, within a transaction block, is to be.
#[test]
fn statements_come_late() {
    let steps = Steps::of(stand_with_replicas());
    let stand = &steps.stand;
    let [row, new] = moved_rows(stand);
    let delete = format!("DELETE FROM marks WHERE id = {new}");
    stand.bed.client().run(&delete).succeeded();
    // Routers that have one connection to each server.
    let routers: Vec<Router> = (0..3)
        .map(|_| {
            stand
                .bed
                .another_router("pool_size = 1", &|node| node.port())
        })
        .collect();
    let client = |router: &Router| Client::connect(&Login::new(router.port()));
    let mut clients = vec![client(&routers[0])];
    clients.extend(routers.iter().map(client));
    let own = format!("SELECT pg_backend_pid() FROM marks WHERE id = {row}");
    let mut servers = Vec::new();
    for (number, client) in clients.iter_mut().enumerate() {
        let begin = ["BEGIN READ ONLY", "BEGIN"][usize::from(number > 0)];
        client.run(begin).succeeded();
        servers.push(client.run(&own).succeeded().value());
        client.run("COMMIT").succeeded();
    }
    // Rows are about to move when they are asked.
    let (mut moving, held) = steps.up_to(&["apply", "--yes"], &[INDEX]);
    clients[3].run("BEGIN").succeeded();
    let still = Still::new(servers);
    let statements = [
        format!("SELECT count(*) FROM marks WHERE id <> {new}"),
        format!("UPDATE marks SET n = n + 1 WHERE id = {row} RETURNING n"),
        format!("INSERT INTO marks VALUES ({new}, 1) RETURNING n"),
        format!("UPDATE marks SET n = n + 7 WHERE id = {row} RETURNING n"),
    ];
    let mut consoles: Vec<Client> = routers.iter().map(Router::console).collect();
    std::thread::scope(|scope| {
        let mut asking = Vec::new();
        for (client, sql) in clients.iter_mut().zip(&statements) {
            asking.push(scope.spawn(move || client.run(sql)));
        }
        eventually("all are asked", || {
            let states = consoles.iter_mut();
            let states = states.flat_map(|console| console.run("SHOW CLIENTS").succeeded().texts());
            let active = |row: &Vec<String>| row.iter().any(|value| value == "active");
            states.filter(active).count() == 4
        });
        held.release();
        let prepared = "SELECT count(*) FROM pg_prepared_xacts";
        eventually("rows are about to have moved", || {
            stand.superuser(0, prepared) != "0"
        });
        let began = Instant::now();
        eventually("they have, or are waited for", || {
            stand.superuser(0, prepared) == "0" || began.elapsed() > Duration::from_secs(2)
        });
        drop(still);
        let replies: Vec<Reply> = asking
            .into_iter()
            .map(|asking| asking.join().unwrap())
            .collect();
        let values: Vec<String> = replies[..3].iter().map(Reply::value).collect();
        assert_eq!(values, [(ROWS - 1).to_string(), "1".into(), "1".into()]);
        let failure = replies[3].failure.as_ref();
        assert_eq!(failure.map(|failure| failure.sqlstate()), Some("40001"));
        assert!(moving.wait().unwrap().success());
    });
    stand.is_clean(Asks::Three);
    let sum = stand.bed.client().run("SELECT sum(n) FROM marks");
    assert_eq!(sum.value(), "2");
}

/// What replicas say is right at every moment, too.
#[test]
fn replicas_are_read_while_rows_move() {
    let stand = stand_with_replicas();
    let (over, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (stand, over, reads) = (&stand, &over, &reads);
            scope.spawn(move || {
                let mut client = stand.bed.client();
                for round in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let all = client.run("SELECT count(*), sum(n), count(DISTINCT id) FROM marks");
                    let rows = ROWS.to_string();
                    assert_eq!(
                        all.succeeded().texts(),
                        [[rows.clone(), "0".to_owned(), rows]]
                    );
                    let id = (round * 3 + number) * 7 % ROWS;
                    let one = format!("SELECT count(*) FROM marks WHERE id = {id}");
                    assert_eq!(client.extended(&one, &[], 0).succeeded().value(), "1");
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _ends = Over(&over);
        let small = ["apply", "--yes", "--group-rows", "200"];
        stand.run(Asks::Three, &small).succeeded();
        let replica = stand.bed.cluster().shard(0).replicas[0].as_ref();
        let readers = "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'app' AND query LIKE 'SELECT%marks%'";
        let seen = stand.bed.cluster().superuser_sql(replica, "shop", readers);
        assert_eq!(seen.unwrap(), "t", "replicas are read");
    });
    assert!(reads.load(Ordering::Relaxed) > 20, "{reads:?}");
    stand.is_clean(Asks::Three);
}
