//! Buckets that move while clients work: from two shards to three, back, and at every kill.

use switchyard_tests::{Asks, Client, Login, Reshard};

/// What a client sees of the shop.
fn seen(client: &mut Client) -> String {
    client
        .run(
            "SELECT (SELECT count(*) || ' ' || sum(id) FROM users), (SELECT count(*) || ' ' || sum(user_id) FROM orders),
                    (SELECT count(*) || ' ' || sum(quantity) FROM order_items), (SELECT count(*) FROM products),
                    (SELECT count(*) FROM events), (SELECT count(*) FROM countries)",
        )
        .succeeded()
        .texts()
        .concat()
        .join("; ")
}

#[test]
fn two_shards_become_three_and_two_again() {
    let stand = Reshard::start("", "");
    let mut client = stand.bed.client();
    let other = stand.bed.another_router("", &|node| node.port());
    let mut second = Client::connect(&Login::new(other.port()));
    let before = seen(&mut client);

    let report = stand
        .run(Asks::Three, &["apply", "--yes", "--group-rows", "1000"])
        .succeeded();
    assert!(report.contains(" buckets with "), "{report}");
    stand.is_clean(Asks::Three);
    assert_eq!(seen(&mut client), before);
    assert_eq!(seen(&mut second), before);
    let users = stand.on_all("SELECT count(*) FROM users");
    assert!(
        users
            .iter()
            .all(|count| (60..140).contains(&count.parse().unwrap())),
        "{users:?}"
    );
    assert_eq!(
        stand.on_all("SELECT count(*) FROM countries")[2],
        stand.on_all("SELECT count(*) FROM countries")[0]
    );
    let status = stand.run(Asks::Three, &["status"]).succeeded();
    assert!(
        status.contains("have moved; `finish` accepts it"),
        "{status}"
    );

    // There and back.
    stand.run(Asks::Three, &["rollback", "--yes"]).succeeded();
    stand.is_clean(Asks::Three);
    assert_eq!(stand.superuser(2, "SELECT count(*) FROM users"), "0");
    assert_eq!(seen(&mut second), before);
    stand.run(Asks::Three, &["rollback", "--yes"]).succeeded();
    stand.run(Asks::Three, &["finish"]).succeeded();
    let status = stand.run(Asks::Three, &["status"]).succeeded();
    assert!(status.contains("nothing is moving"), "{status}");
    client
        .run("INSERT INTO countries VALUES ('zz', 'Nowhere', 'xxx')")
        .succeeded();
    assert_eq!(
        stand.on_all("SELECT name FROM countries WHERE code = 'zz'"),
        ["Nowhere"; 3]
    );
    client
        .run("DELETE FROM countries WHERE code = 'zz'")
        .succeeded();

    // And without the third again.
    stand.run(Asks::Two, &["apply", "--yes"]).succeeded();
    stand.is_clean(Asks::Two);
    stand.run(Asks::Two, &["finish"]).succeeded();
    assert_eq!(stand.superuser(2, "SELECT count(*) FROM users"), "0");
    assert_eq!(seen(&mut client), before);
    assert_eq!(seen(&mut second), before);
}

/// Rows that clients count up and add to while they move.
const MARKS: &str = "CREATE TABLE marks (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0);";
const MARKS_CONFIG: &str =
    "\n[[databases.tables]]\nname = \"marks\"\nshard_key = \"id\"\nmethod = \"hash\"\n";
const ROWS: usize = 1000;
const WRITERS: usize = 4;

/// What one client has done to its rows, those whose number is the client's by the number of clients, as it was told.
struct Writer {
    client: Client,
    number: usize,
    counts: Vec<i64>,
    /// Blocks that failed as they may.
    failed: usize,
}

impl Writer {
    fn new(stand: &Reshard, number: usize) -> Writer {
        Writer {
            client: stand.bed.client(),
            number,
            counts: vec![0; ROWS / WRITERS],
            failed: 0,
        }
    }

    fn id(&self, row: usize) -> usize {
        row * WRITERS + self.number
    }

    /// One round of statements on a row. None of them fails, but for blocks, by a serialization failure.
    fn round(&mut self, round: usize) {
        let row = round * 7 % (ROWS / WRITERS);
        let id = self.id(row).to_string();
        let count = format!("UPDATE marks SET n = n + 1 WHERE id = {id} RETURNING n");
        let counted = match round % 2 {
            0 => self.client.run(&count).succeeded().value(),
            _ => self
                .client
                .extended(
                    "UPDATE marks SET n = n + 1 WHERE id = $1 RETURNING n",
                    &[Some(&id)],
                    0,
                )
                .succeeded()
                .value(),
        };
        self.counts[row] += 1;
        assert_eq!(counted, self.counts[row].to_string(), "row {id}");
        let read = self
            .client
            .extended("SELECT n FROM marks WHERE id = $1", &[Some(&id)], 1);
        assert_eq!(read.succeeded().rows.len(), 1, "row {id}");
        let there = self
            .client
            .run(&format!("SELECT count(*) FROM marks WHERE id < {ROWS}"));
        assert_eq!(there.succeeded().value(), ROWS.to_string());
        let new = self.id(self.counts.len());
        let insert = format!("INSERT INTO marks VALUES ({new}, 1)");
        assert_eq!(
            self.client.run(&insert).succeeded().tag.as_deref(),
            Some("INSERT 0 1")
        );
        self.counts.push(1);
        self.block(row, &count);
    }

    fn block(&mut self, row: usize, count: &str) {
        self.client.run("BEGIN").succeeded();
        let mut replies = vec![self.client.run(count)];
        if replies[0].failure.is_none() {
            replies.push(self.client.run("SELECT count(*), sum(n) FROM marks"));
        }
        let failure = replies.iter().find_map(|reply| reply.failure.as_ref());
        let sqlstate = failure.map(|failure| failure.sqlstate().to_owned());
        let end = self.client.run("COMMIT").succeeded();
        match sqlstate.as_deref() {
            None => {
                assert_eq!(end.tag.as_deref(), Some("COMMIT"));
                self.counts[row] += 1;
            }
            Some("40001") => {
                assert_eq!(end.tag.as_deref(), Some("ROLLBACK"));
                self.failed += 1;
            }
            Some(_) => panic!("{replies:?}"),
        }
    }
}

#[test]
fn clients_notice_nothing() {
    let stand = Reshard::start(MARKS, MARKS_CONFIG);
    let mut client = stand.bed.client();
    client
        .run(&format!(
            "INSERT INTO marks SELECT n, 0 FROM generate_series(0, {ROWS} - 1) AS n"
        ))
        .succeeded();
    let done = std::sync::atomic::AtomicBool::new(false);
    let writers: Vec<Writer> = std::thread::scope(|scope| {
        let work = |number| {
            let (stand, done) = (&stand, &done);
            move || {
                let mut writer = Writer::new(stand, number);
                for round in 0.. {
                    if done.load(std::sync::atomic::Ordering::Relaxed) {
                        break;
                    }
                    writer.round(round);
                }
                writer
            }
        };
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| scope.spawn(work(number)))
            .collect();
        let over = Done(&done);
        stand
            .run(Asks::Three, &["apply", "--yes", "--group-rows", "600"])
            .succeeded();
        stand.run(Asks::Three, &["rollback", "--yes"]).succeeded();
        drop(over);
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect()
    });
    stand.is_clean(Asks::Three);
    let rounds: usize = writers.iter().map(|writer| writer.counts.len()).sum();
    let sum: i64 = writers.iter().flat_map(|writer| &writer.counts).sum();
    let seen = client
        .run("SELECT count(*), count(DISTINCT id), sum(n) FROM marks")
        .succeeded();
    assert_eq!(
        seen.texts(),
        [[rounds.to_string(), rounds.to_string(), sum.to_string()]]
    );
    let failed: usize = writers.iter().map(|writer| writer.failed).sum();
    println!("{} rounds, {failed} blocks failed", rounds - ROWS);
}

/// Says that it is over, also when a test fails.
struct Done<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}
