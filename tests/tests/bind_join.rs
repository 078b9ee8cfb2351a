//! Joins whose small side is given to the shards of the other: when they are made, when a workspace answers instead, and what
//! becomes of them when something goes wrong. That their answers are right, the differential tests show.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::dialogue::{self, Batch};
use switchyard_tests::{Bed, BedSpec, Client, Reply, eventually};

const DDL: &str = "
CREATE TABLE small (id bigint PRIMARY KEY, other bigint, divisor int, payload text);
CREATE TABLE large (id bigint PRIMARY KEY, name text);
CREATE TYPE colour AS ENUM ('red', 'green');
CREATE TABLE painted (id bigint PRIMARY KEY, other bigint, colour colour);
";

const TABLES: &str = "
[[databases.tables]]
name      = \"small\"
shard_key = \"id\"
method    = \"hash\"

[[databases.tables]]
name      = \"large\"
shard_key = \"id\"
method    = \"hash\"

[[databases.tables]]
name      = \"painted\"
shard_key = \"id\"
method    = \"hash\"
";

/// Rows of the table that is not given.
const LARGE: i64 = 40;

static BED: OnceLock<Bed> = OnceLock::new();

/// One test at a time, as counters are compared. `small` and `painted` are empty.
fn bed() -> (&'static Bed, MutexGuard<'static, ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let bed = BED.get_or_init(|| {
        let spec = BedSpec::of(ClusterSpec::for_tests(2, 0)).with_tables(DDL, TABLES);
        Bed::start(spec)
    });
    bed.refill(&["small", "large", "painted"]);
    let mut client = bed.client();
    for id in 1..=LARGE {
        let insert = format!("INSERT INTO large VALUES ({id}, 'no. {id}')");
        client.run(&insert).succeeded();
    }
    (bed, turn)
}

fn insert(client: &mut Client, id: i64, other: i64, divisor: i64, payload: &str) {
    let values = format!("({id}, {other}, {divisor}, '{payload}')");
    client
        .run(&format!("INSERT INTO small VALUES {values}"))
        .succeeded();
}

fn joins(bed: &Bed) -> f64 {
    let (_, text) = bed.router().get("/metrics").unwrap();
    let lines = text.lines();
    let name = "switchyard_bind_joins_total{database=\"shop\"} ";
    lines
        .filter_map(|line| line.strip_prefix(name))
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

/// What a statement is answered with, and whether by a bind join.
fn answer(bed: &Bed, client: &mut Client, sql: &str) -> (Reply, bool) {
    let before = joins(bed);
    let reply = client.run(sql);
    (reply, joins(bed) > before)
}

#[test]
fn few_rows_are_given_and_many_are_not() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    for id in 1..=5 {
        insert(&mut client, id, id * 7, 1, "x");
    }
    let sql =
        "SELECT s.id, l.name, s.payload FROM small s JOIN large l ON l.id = s.other ORDER BY s.id";
    let expected: Vec<Vec<String>> = (1..=5)
        .map(|id| vec![id.to_string(), format!("no. {}", id * 7), "x".to_owned()])
        .collect();
    for _ in 0..2 {
        let (reply, joined) = answer(bed, &mut client, sql);
        assert_eq!(reply.succeeded().texts(), expected);
        assert!(joined);
    }
    // More bytes than are given: the other side still may be.
    let payload = "y".repeat(1_100_000);
    insert(&mut client, 6, 1, 1, &payload);
    let check = |client: &mut Client| {
        let (reply, joined) = answer(bed, client, sql);
        let texts = reply.succeeded().texts();
        assert_eq!(texts[..5], expected[..]);
        assert_eq!(texts[5][..2], ["6", "no. 1"]);
        assert_eq!(texts[5][2], payload);
        joined
    };
    check(&mut client);
    assert!(check(&mut client));
    client
        .run("UPDATE large SET name = repeat('z', 1100000) WHERE id = 2")
        .succeeded();
    check(&mut client);
    assert!(!check(&mut client), "neither side is small");
}

#[test]
fn groups_over_given_rows_are_finished_by_postgresql() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    for id in 1..=4 {
        let payload = if id < 4 { "x" } else { "y" };
        insert(&mut client, id, id * 7, 1, payload);
    }
    let sql = "SELECT upper(s.payload), 2 * sum(l.id) / count(*) FROM small s JOIN large l ON l.id = s.other \
        GROUP BY s.payload HAVING count(*) > 1";
    for _ in 0..2 {
        let (reply, joined) = answer(bed, &mut client, sql);
        assert_eq!(reply.succeeded().texts(), [["X", "28.0000000000000000"]]);
        assert!(joined);
    }
    // The sum of floating-point numbers is not put together of parts.
    let sql = "SELECT 1 + sum(l.id::float8) FROM small s JOIN large l ON l.id = s.other";
    let (reply, _) = answer(bed, &mut client, sql);
    assert_eq!(reply.succeeded().texts(), [["71"]]);
}

#[test]
fn a_key_of_rows_fetched_leads_to_what_is_fetched_next() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    insert(&mut client, 1, 2, 1, "x");
    insert(&mut client, 2, 3, 1, "x");
    insert(&mut client, 3, 99, 1, "x");
    let sql = "SELECT a.id, b.id, l.name FROM small a JOIN small b ON b.id = a.other JOIN large l ON l.id = b.other WHERE a.id = 1";
    for _ in 0..2 {
        let (reply, joined) = answer(bed, &mut client, sql);
        assert_eq!(reply.succeeded().texts(), [["1", "2", "no. 3"]]);
        assert!(joined);
    }
}

/// PostgreSQL knows nothing of rows that are given: it would expect few of them to satisfy a condition.
#[test]
fn conditions_on_what_is_given_are_not_asked_again() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    insert(&mut client, 1, 7, 5, "x");
    insert(&mut client, 2, 8, 1, "x");
    let sql = "SELECT s.id, l.name FROM small s JOIN large l ON l.id = s.other WHERE (s.divisor > 1) AND l.name <> 'no. 9'";
    let (reply, joined) = answer(bed, &mut client, sql);
    assert_eq!(reply.succeeded().texts(), [["1", "no. 7"]]);
    assert!(joined);
    let explained = client.run(&format!("EXPLAIN {sql}")).succeeded().texts();
    let lines: Vec<&str> = explained.iter().map(|line| line[0].trim()).collect();
    let fetch = "Fetch small (id, other) from all shards, to be given by other";
    assert!(lines.contains(&fetch), "{lines:#?}");
    let filters = |what: &str| {
        let filters = lines.iter().filter(|line| line.starts_with("Filter: "));
        filters.filter(|line| line.contains(what)).count()
    };
    // Once on each shard: that of `small` where it is fetched, that of `large` where the statement runs.
    assert_eq!(
        (filters("divisor > 1"), filters("no. 9")),
        (2, 2),
        "{lines:#?}"
    );
    assert_eq!(filters(""), 4, "{lines:#?}");
}

/// The rows of `given` that the shards read, each of them.
fn given_rows(client: &mut Client, sql: &str) -> Vec<u32> {
    let explained = client.run(&format!("EXPLAIN ANALYZE {sql}"));
    let lines = explained.succeeded().texts();
    let scans = lines
        .iter()
        .filter(|line| line[0].contains("Function Scan on given"));
    let rows = |line: &Vec<String>| {
        // What PostgreSQL expects of arrays is what they have.
        let (_, rows) = line[0].split_once("rows=").unwrap();
        let (rows, _) = rows.split_once(' ').unwrap();
        rows.parse().unwrap()
    };
    scans.map(rows).collect()
}

#[test]
fn each_shard_is_given_the_rows_with_its_own_keys() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    for id in 1..=20 {
        insert(&mut client, id, 2 * id, 1, "x");
    }
    client
        .run("INSERT INTO small VALUES (21, NULL, 1, 'x')")
        .succeeded();
    let by_other = "FROM small s JOIN large l ON l.id = s.other";
    let outer = "FROM large l LEFT JOIN small s ON s.other = l.id";
    for (from, count) in [(by_other, 20), (outer, LARGE)] {
        let sql = format!("SELECT count(*), count(s.other) {from}");
        let (reply, joined) = answer(bed, &mut client, &sql);
        assert_eq!(
            reply.succeeded().texts(),
            [[count.to_string(), "20".to_owned()]]
        );
        assert!(joined);
        let rows = given_rows(&mut client, &sql);
        assert_eq!(rows.iter().sum::<u32>(), 20, "{rows:?}");
        assert!(
            rows.len() == 2 && rows.iter().all(|rows| *rows < 20),
            "{rows:?}"
        );
    }
    // One whose rows match those that a shard is given; and one of which every row may matter.
    for id in 1..=20 {
        let values = format!("({id}, {}, 'red')", 21 - id);
        client
            .run(&format!("INSERT INTO painted VALUES {values}"))
            .succeeded();
    }
    let sql = "SELECT count(*), sum(p.id + l.id) FROM painted p JOIN small s ON s.payload = 'x' AND s.divisor = p.other \
        JOIN large l ON l.id = s.other";
    let sum: i64 = (1..=20).map(|id| 20 + 2 * id).sum();
    let (reply, _) = answer(bed, &mut client, sql);
    assert_eq!(
        reply.succeeded().texts(),
        [["20".to_owned(), sum.to_string()]]
    );
    let sql = "SELECT count(*) FROM painted p JOIN small s ON s.id = p.other JOIN large l ON l.id = s.other AND l.id = p.id + p.other";
    let (reply, _) = answer(bed, &mut client, sql);
    let expected = (1..=20).filter(|id| 2 * (21 - id) == 21).count();
    assert_eq!(reply.value(), expected.to_string());
    // `large` is the largest.
    for shard in bed.cluster().shards() {
        bed.cluster()
            .sql(shard.primary.as_ref(), "ANALYZE")
            .unwrap();
    }
    let sql = "SELECT count(*), sum(p.id + l.id) FROM painted p JOIN small s ON s.id = p.other JOIN large l ON l.id = s.other";
    for _ in 0..2 {
        let (reply, joined) = answer(bed, &mut client, sql);
        let sum: i64 = (1..=20).map(|id| id + 2 * (21 - id)).sum();
        assert_eq!(
            reply.succeeded().texts(),
            [["20".to_owned(), sum.to_string()]]
        );
        assert!(joined);
    }
    let rows = given_rows(&mut client, sql);
    assert_eq!(rows.iter().sum::<u32>(), 40, "{rows:?}");
    assert!(
        rows.len() == 4 && rows.iter().all(|rows| *rows < 20),
        "{rows:?}"
    );
}

/// A condition that the shards of `large` ask, of rows of `small` that those given are not.
#[test]
fn a_condition_that_looks_at_other_rows_of_what_is_given_sees_them() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    insert(&mut client, 1, 2, 5, "x");
    insert(&mut client, 2, 1, 1, "x");
    let sql = "SELECT s.id, l.name FROM large l JOIN small s ON s.other = l.id \
        WHERE s.divisor > 3 AND l.id IN (SELECT id FROM small WHERE divisor = 1)";
    for layer in ["auto", "bind join", "workspace"] {
        client
            .run(&format!("SET switchyard.layer = '{layer}'"))
            .succeeded();
        for _ in 0..2 {
            let reply = client.run(sql);
            assert_eq!(reply.succeeded().texts(), [["1", "no. 2"]], "{layer}");
        }
    }
}

/// The statement with the rows may not mention a parameter that they were fetched by, of whose type it then says nothing.
#[test]
fn parameters_that_rows_were_fetched_by_are_needed_no_more() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    for (id, colour) in [(1, "red"), (2, "green"), (3, "red")] {
        let values = format!("({id}, {}, '{colour}')", id * 7);
        client
            .run(&format!("INSERT INTO painted VALUES {values}"))
            .succeeded();
    }
    let sql = "SELECT p.id, l.name FROM painted p JOIN large l ON l.id = p.other WHERE p.colour = $1 AND l.id > $2 ORDER BY 1";
    for (colour, expected) in [("red", "no. 21"), ("green", "no. 14"), ("red", "no. 21")] {
        let before = joins(bed);
        let batch = Batch::default()
            .parse("", sql)
            .bind("", "", &[colour, "7"])
            .execute("", 0)
            .sync();
        let lines = dialogue::step(&mut client, &batch, b'Z');
        assert!(
            lines.iter().any(|line| line.contains(expected)),
            "{lines:?}"
        );
        assert!(
            lines.iter().any(|line| line.contains("SELECT 1")),
            "{lines:?}"
        );
        assert!(joins(bed) > before);
    }
}

#[test]
fn what_a_block_has_written_is_given() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    let sql = "SELECT s.id, l.name FROM small s JOIN large l ON l.id = s.other ORDER BY s.id";
    client.run("BEGIN").succeeded();
    insert(&mut client, 1, 4, 1, "x");
    for _ in 0..2 {
        let (reply, joined) = answer(bed, &mut client, sql);
        assert_eq!(reply.succeeded().texts(), [["1", "no. 4"]]);
        assert!(joined);
    }
    client.run("ROLLBACK").succeeded();
    let (reply, _) = answer(bed, &mut client, sql);
    assert!(reply.succeeded().rows.is_empty());
}

#[test]
fn an_error_is_one_and_the_session_goes_on() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    for id in 1..=8 {
        insert(&mut client, id, id, i64::from(id != 3), "x");
    }
    let joined = "FROM small s JOIN large l ON l.id = s.other";
    // Where the rows are fetched, and where the statement runs.
    for failing in [
        format!("SELECT l.name {joined} WHERE 1 / s.divisor > 0"),
        format!("SELECT l.name, 1 / s.divisor {joined}"),
    ] {
        for _ in 0..2 {
            let reply = client.run(&failing);
            assert_eq!(reply.sqlstate(), Some("22012"), "{reply:?}");
            assert_eq!(client.run("SELECT 1").value(), "1");
        }
        client.run("BEGIN").succeeded();
        assert_eq!(client.run(&failing).sqlstate(), Some("22012"));
        assert_eq!(client.run("SELECT 1").sqlstate(), Some("25P02"));
        client.run("ROLLBACK").succeeded();
        let extended = client.extended(&failing, &[], 1);
        assert_eq!(extended.sqlstate(), Some("22012"));
    }
    let count = format!("SELECT count(*) {joined}");
    assert_eq!(client.run(&count).value(), "8");
    client.run("SET statement_timeout = '200ms'").succeeded();
    let slow = format!("SELECT l.name, pg_sleep(0.2) {joined}");
    let reply = client.run(&slow);
    assert_eq!(reply.sqlstate(), Some("57014"), "{reply:?}");
    assert_eq!(client.run(&count).value(), "8");
}

#[test]
fn a_changed_table_is_another_one() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    insert(&mut client, 1, 4, 1, "x");
    let sql = "SELECT * FROM small s JOIN large l ON l.id = s.other";
    assert_eq!(
        client.run(sql).succeeded().texts(),
        [["1", "4", "1", "x", "4", "no. 4"]]
    );
    client
        .run("ALTER TABLE small ADD COLUMN more int DEFAULT 7")
        .succeeded();
    let changed = client.run(sql).succeeded();
    client.run("ALTER TABLE small DROP COLUMN more").succeeded();
    assert_eq!(changed.texts(), [["1", "4", "1", "x", "7", "4", "no. 4"]]);
    assert_eq!(
        client.run(sql).succeeded().texts(),
        [["1", "4", "1", "x", "4", "no. 4"]]
    );
}

/// What was changed on the shards themselves is answered as it is now, or refused until the router has read it.
#[test]
fn a_table_that_was_changed_behind_the_routers_back_is_another_one() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    insert(&mut client, 1, 4, 1, "x");
    let direct = |sql: &str| {
        for shard in bed.cluster().shards() {
            bed.cluster().sql(shard.primary.as_ref(), sql).unwrap();
        }
    };
    let statements = [
        "SELECT * FROM small ORDER BY id LIMIT 2",
        "SELECT s.*, l.name FROM small s JOIN large l ON l.id = s.other",
        "SELECT s.*, count(*) OVER () FROM small s FULL JOIN large l ON l.id = s.other AND l.name > s.payload ORDER BY s.id LIMIT 1",
    ];
    for sql in statements.iter().cycle().take(2 * statements.len()) {
        client.run(sql).succeeded();
    }
    let width = |reply: &Reply| reply.columns.as_ref().map_or(0, Vec::len);
    // The tables are read again, but not each time at once.
    let mut becomes = |sql: &str, columns: usize| {
        eventually("the tables are known as they are", || {
            let reply = client.run(sql);
            let known = reply.sqlstate() != Some("40001");
            if known {
                assert_eq!(width(&reply.succeeded()), columns, "{sql}");
            }
            known
        });
    };
    for (sql, columns) in statements.into_iter().zip([4, 5, 5]) {
        becomes(sql, columns);
        direct("ALTER TABLE small ADD COLUMN more int DEFAULT 7");
        becomes(sql, columns + 1);
        direct("ALTER TABLE small DROP COLUMN more");
        becomes(sql, columns);
    }
}

/// A portal of a bind join gives its rows in parts, and one with the wrong number of values is refused as PostgreSQL would: rows that
/// are given do not take the place of a missing value.
#[test]
fn portals_are_as_those_of_others() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    for id in 1..=6 {
        insert(&mut client, id, id, 1, "x");
    }
    let sql = "SELECT s.id, l.name FROM small s JOIN large l ON l.id = s.other WHERE s.id < $1 ORDER BY 1";
    let batch = Batch::default().parse("s", sql).describe(b'S', "s").sync();
    dialogue::step(&mut client, &batch, b'Z');
    for _ in 0..2 {
        let before = joins(bed);
        let batch = Batch::default()
            .bind("p", "s", &["6"])
            .execute("p", 2)
            .flush();
        let first = dialogue::step(&mut client, &batch, b's');
        let batch = Batch::default().execute("p", 0).sync();
        let rest = dialogue::step(&mut client, &batch, b'Z');
        assert_eq!((first.len(), rest.len()), (4, 5), "{first:?} {rest:?}");
        assert!(
            rest.iter().any(|line| line.contains("SELECT 3")),
            "{rest:?}"
        );
        assert!(joins(bed) > before);
        for values in [&[][..], &["6", "7"]] {
            let wrong = Batch::default().bind("", "s", values).execute("", 0).sync();
            let refused = dialogue::step(&mut client, &wrong, b'Z');
            assert!(
                refused.iter().any(|line| line.starts_with("E 08P01")),
                "{refused:?}"
            );
        }
    }
}
