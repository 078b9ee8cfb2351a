//! Joins whose small side is given to the shards of the other: when they are made, when a workspace answers instead, and what
//! becomes of them when something goes wrong. That their answers are right, the differential tests show.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::dialogue::{self, Batch};
use switchyard_tests::{Bed, BedSpec, Client, Reply, eventually};

const DDL: &str = "
CREATE TABLE small (id bigint PRIMARY KEY, other bigint, divisor int, payload text);
CREATE TABLE large (id bigint PRIMARY KEY, name text);
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
";

/// Rows of the table that is not given.
const LARGE: i64 = 40;

static BED: OnceLock<Bed> = OnceLock::new();

/// One test at a time, as counters are compared. `small` is empty.
fn bed() -> (&'static Bed, MutexGuard<'static, ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let bed = BED.get_or_init(|| {
        let spec = BedSpec::of(ClusterSpec::for_tests(2, 0)).with_tables(DDL, TABLES);
        Bed::start(spec)
    });
    bed.refill(&["small", "large"]);
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
