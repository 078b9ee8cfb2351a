//! Clients that know what must be there, for they were told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use switchyard_tests::{Asks, Client, Reshard};

/// Rows that clients count up and add to while they move.
const MARKS: &str = "CREATE TABLE marks (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0);";
const CONFIG: &str = "
[[databases.tables]]
name = \"marks\"
shard_key = \"id\"
method = \"hash\"
";
const HASH: &str = "method = \"hash\"";
pub(super) const ROWS: usize = 1000;
const WRITERS: usize = 4;
/// What a client thinks after each round. Without, what moves shares the machine with clients that do little else than wait for each
/// other, and takes several times as long.
const THINKS: Duration = Duration::from_millis(10);

/// A bed with the rows, by hash.
pub(super) fn stand() -> Reshard {
    with_marks(Reshard::start(MARKS, CONFIG))
}

/// The same with a replica of each of the first two shards.
pub(super) fn stand_with_replicas() -> Reshard {
    with_marks(Reshard::start_with(1, MARKS, CONFIG))
}

/// A bed with the rows, distributed by a method that is another one in the file that asks for three shards.
pub(super) fn stand_by(two: &str, three: &str) -> Reshard {
    let stand = with_marks(Reshard::start(MARKS, &CONFIG.replace(HASH, two)));
    stand.rewrite(Asks::Three, two, three);
    stand
}

fn with_marks(stand: Reshard) -> Reshard {
    let fill = format!("INSERT INTO marks SELECT n, 0 FROM generate_series(0, {ROWS} - 1) AS n");
    stand.bed.client().run(&fill).succeeded();
    stand
}

/// What clients have done, as they were told.
pub(super) struct Done(Vec<Writer>);

impl Done {
    /// All of it is there, once.
    #[track_caller]
    pub(super) fn is_there(&self, stand: &Reshard) {
        let rows: usize = self.0.iter().map(|writer| writer.counts.len()).sum();
        let sum: i64 = self.0.iter().flat_map(|writer| &writer.counts).sum();
        let all = "SELECT count(*), count(DISTINCT id), sum(n) FROM marks";
        let seen = stand.bed.client().run(all).succeeded().texts();
        assert_eq!(
            seen,
            [[rows.to_string(), rows.to_string(), sum.to_string()]]
        );
        assert!(rows - ROWS > 10, "clients have worked");
    }
}

/// Does something while clients work.
pub(super) fn under_load(stand: &Reshard, work: impl FnOnce()) -> Done {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let run = |number| {
            let over = &over;
            move || {
                let mut writer = Writer::new(stand, number);
                for round in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    writer.round(round);
                    std::thread::sleep(THINKS);
                }
                writer
            }
        };
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| scope.spawn(run(number)))
            .collect();
        let ends = Over(&over);
        work();
        drop(ends);
        let writers = writers.into_iter().map(|writer| writer.join().unwrap());
        Done(writers.collect())
    })
}

/// Says that it is over, also when a test fails.
pub(super) struct Over<'a>(pub(super) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What one client has done to its rows, those whose number is the client's by the number of clients, as it was told.
struct Writer {
    client: Client,
    number: usize,
    counts: Vec<i64>,
}

impl Writer {
    fn new(stand: &Reshard, number: usize) -> Writer {
        Writer {
            client: stand.bed.client(),
            number,
            counts: vec![0; ROWS / WRITERS],
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
            }
            Some(_) => panic!("{replies:?}"),
        }
    }
}
