//! However many rows come, and however slowly the client reads, the router holds few of them. The volume is a tenth of what it
//! should be tested with now and then: `SWITCHYARD_TEST_VOLUME=10` makes it ten times as much.

use std::io::Read;
use std::sync::OnceLock;
use std::time::Duration;

use postgres_protocol::message::frontend;
use switchyard_tests::cluster::{ClusterSpec, Node};
use switchyard_tests::{Bed, BedSpec, Client, Login, Router};

const MEGABYTE: usize = 1_000_000;
/// The most memory a router may have had.
const LIMIT: usize = 200 * MEGABYTE;
/// The bytes of a large row; compressed they are few.
const LARGE: usize = 10 * MEGABYTE;
/// As many of them there are.
const ROWS: usize = 30;

const DDL: &str = "CREATE TABLE large (id bigint PRIMARY KEY, payload text NOT NULL);
CREATE TABLE huge (id bigint PRIMARY KEY, payload text NOT NULL);";

const TABLES: &str = "
[[databases.tables]]
name      = \"large\"
shard_key = \"id\"
method    = \"hash\"

[[databases.tables]]
name          = \"huge\"
shard_key     = \"id\"
method        = \"hash\"
colocate_with = \"large\"
";

static BED: OnceLock<Bed> = OnceLock::new();

fn bed() -> &'static Bed {
    BED.get_or_init(|| {
        let spec = BedSpec::of(ClusterSpec::for_tests(2, 0)).with_tables(DDL, TABLES);
        let bed = Bed::start(spec);
        let mut client = bed.client();
        for id in 1..=ROWS {
            let insert = format!("INSERT INTO large VALUES ({id}, {id} || repeat('x', {LARGE}))");
            client.run(&insert).succeeded();
        }
        for id in 1..=2 {
            let insert = format!(
                "INSERT INTO huge VALUES ({id}, repeat('x', {}))",
                25 * LARGE
            );
            client.run(&insert).succeeded();
        }
        bed
    })
}

/// How much more than usual is to be moved.
fn volume() -> usize {
    let volume = std::env::var("SWITCHYARD_TEST_VOLUME");
    volume.map_or(1, |volume| volume.parse().unwrap())
}

fn router(lines: &str) -> Router {
    bed().another_router(lines, &|node: &dyn Node| node.port())
}

fn client(router: &Router) -> Client {
    Client::connect(&Login::new(router.port()))
}

/// The most memory the router has ever had, in bytes.
fn peak(router: &Router) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", router.id())).unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes = line.split_whitespace().next().unwrap();
    kilobytes.parse::<usize>().unwrap() * 1024
}

#[track_caller]
fn is_small(router: &Router) {
    let peak = peak(router);
    eprintln!("the router had {} MB", peak / MEGABYTE);
    assert!(peak < LIMIT, "{} MB", peak / MEGABYTE);
}

/// Reads an answer, a megabyte at a time and with pauses, and counts its messages by their types and its bytes.
fn read_slowly(client: &mut Client) -> (Vec<usize>, usize) {
    let mut stream = client.stream();
    let (mut counts, mut bytes) = (vec![0; 256], 0);
    let mut chunk = vec![0; MEGABYTE];
    let mut head = Vec::new();
    let mut rest = 0;
    loop {
        let read = stream.read(&mut chunk).unwrap();
        assert_ne!(read, 0, "the router closed the connection");
        bytes += read;
        let mut piece = &chunk[..read];
        while !piece.is_empty() {
            let skipped = piece.len().min(rest);
            piece = &piece[skipped..];
            rest -= skipped;
            if rest > 0 || piece.is_empty() {
                break;
            }
            let taken = piece.len().min(5 - head.len());
            head.extend_from_slice(&piece[..taken]);
            piece = &piece[taken..];
            if let [tag, length @ ..] = &head[..]
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                counts[usize::from(*tag)] += 1;
                rest = usize::try_from(u32::from_be_bytes(length)).unwrap() - 4;
                head.clear();
            }
        }
        if counts[usize::from(b'Z')] > 0 && rest == 0 {
            return (counts, bytes);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The statement is answered by so many rows of a megabyte or more, which are read slowly.
#[track_caller]
fn is_read_slowly(router: &Router, sql: &str, rows: usize, width: usize) {
    let mut client = client(router);
    client.send(|buffer| frontend::query(sql, buffer).unwrap());
    let (counts, bytes) = read_slowly(&mut client);
    let count = |tag: u8| counts[usize::from(tag)];
    assert_eq!((count(b'D'), count(b'E')), (rows, 0), "{sql}");
    assert!(bytes > rows * width, "{bytes}");
    is_small(router);
}

#[test]
fn rows_of_several_shards_for_a_slow_reader() {
    let router = router("");
    let times = 17 * volume();
    let sql = format!("SELECT repeat('x', {MEGABYTE}) FROM large, generate_series(1, {times})");
    is_read_slowly(&router, &sql, ROWS * times, MEGABYTE);
}

#[test]
fn ordered_rows_of_several_shards_for_a_slow_reader() {
    let router = router("max_fetch_bytes = \"100GB\"");
    for _ in 0..volume() {
        let sql = "SELECT id, payload FROM large ORDER BY id";
        is_read_slowly(&router, sql, ROWS, LARGE);
    }
}

/// A shard's rows are read when they are needed: those of the others wait.
#[test]
fn merged_rows_for_a_slow_reader() {
    let router = router("");
    let (width, times) = (MEGABYTE / 10, 80 * volume());
    let sql = format!(
        "SELECT id, repeat('x', {width}) FROM large, generate_series(1, {times}) ORDER BY id"
    );
    let plan = client(&router).run(&format!("EXPLAIN {sql}")).value();
    assert!(plan.starts_with("Merge of all shards"), "{plan}");
    is_read_slowly(&router, &sql, ROWS * times, width);
}

#[test]
fn a_join_in_a_workspace_within_the_limit() {
    let router = router("max_fetch_bytes = \"100GB\"");
    let mut client = client(&router);
    client.run("SET switchyard.layer = 'workspace'").succeeded();
    for _ in 0..volume() {
        let sql = "SELECT count(*), sum(length(a.payload)) FROM large AS a, large AS b WHERE b.id = a.id + 1";
        let seen = client.run(sql).succeeded().texts();
        // A payload begins with its number.
        let digits: usize = (1..ROWS).map(|id| id.to_string().len()).sum();
        let all = (ROWS - 1) * LARGE + digits;
        assert_eq!(seen, [[(ROWS - 1).to_string(), all.to_string()]]);
        is_small(&router);
    }
}

#[test]
fn a_join_in_a_workspace_beyond_the_limit() {
    let router = router("max_fetch_bytes = \"200MB\"");
    let mut client = client(&router);
    for _ in 0..volume() {
        let sql =
            "SELECT count(*) FROM large AS a JOIN large AS b ON a.payload = b.payload || b.id";
        let failure = client.run(sql).failure.unwrap();
        assert_eq!(failure.sqlstate(), "53400", "{failure:?}");
        is_small(&router);
        assert_eq!(client.run("SELECT id FROM large WHERE id = 7").value(), "7");
    }
}

/// What restricts other rows is asked for by the router, and sent to shards.
#[test]
fn keys_larger_than_memory() {
    let router = router("");
    let mut client = client(&router);
    client.run("SET switchyard.layer = 'workspace'").succeeded();
    let sql = "SELECT count(*) FROM huge AS a JOIN large AS b ON a.payload = b.payload";
    assert_eq!(client.run(sql).succeeded().value(), "0");
    is_small(&router);
}

/// A single row is more than the router may have.
#[test]
fn rows_larger_than_memory() {
    let router = router("");
    let sql = "SELECT id, length(payload) FROM huge ORDER BY length(payload), id";
    let mut client = client(&router);
    client.run("SET switchyard.layer = 'workspace'").succeeded();
    let seen = client.run(sql).succeeded().texts();
    let length = (25 * LARGE).to_string();
    let expected = ["1", "2"].map(|id| [id.to_owned(), length.clone()]);
    assert_eq!(seen, expected);
    is_small(&router);
    let appended = "SELECT payload FROM huge";
    is_read_slowly(&router, appended, 2, 25 * LARGE);
}
