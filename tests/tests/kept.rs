//! Texts of the router's own that shards keep prepared: which are, and that whoever sends them again is answered as if none were.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::dialogue::{self, Batch};
use switchyard_tests::{Bed, BedSpec, Client, eventually};

const DDL: &str = "
CREATE TABLE kept (id bigint PRIMARY KEY, other bigint, v int);
CREATE TABLE few (id bigint PRIMARY KEY, name text);
CREATE FUNCTION moment() RETURNS timestamptz IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN clock_timestamp(); END $$;
";

const TABLES: &str = "
[[databases.tables]]
name      = \"kept\"
shard_key = \"id\"
method    = \"hash\"

[[databases.tables]]
name      = \"few\"
shard_key = \"id\"
method    = \"hash\"
";

/// Each table has so many rows.
const ROWS: usize = 40;

/// After so many executions shards have kept a text that may be kept.
const OFTEN: usize = 4;

static BED: OnceLock<Bed> = OnceLock::new();

/// One test at a time. A shard has one connection, so that everybody finds what has been kept before.
fn bed() -> (&'static Bed, MutexGuard<'static, ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let bed = BED.get_or_init(|| {
        let spec = BedSpec::of(ClusterSpec::for_tests(2, 0).with_oracle());
        let spec = spec.with_tables(DDL, TABLES).with_router("pool_size = 1");
        Bed::start(spec)
    });
    bed.refill(&["kept", "few"]);
    both(bed, |client| {
        let rows = (1..=ROWS).map(|id| format!("({id}, {}, {})", ROWS + 1 - id, id % 7));
        let values: Vec<String> = rows.collect();
        let insert = format!("INSERT INTO kept VALUES {}", values.join(", "));
        client.run(&insert).succeeded();
        let rows = (1..=ROWS).map(|id| format!("({id}, 'no. {id}')"));
        let values: Vec<String> = rows.collect();
        let insert = format!("INSERT INTO few VALUES {}", values.join(", "));
        client.run(&insert).succeeded();
    });
    (bed, turn)
}

/// Does it by the router and on the plain server.
fn both(bed: &Bed, act: impl Fn(&mut Client)) {
    act(&mut bed.client());
    act(&mut bed.oracle());
}

/// A client of the router and one of the plain server, of which the same is asked.
struct Pair {
    router: Client,
    plain: Client,
}

impl Pair {
    fn new(bed: &Bed) -> Self {
        Self {
            router: bed.client(),
            plain: bed.oracle(),
        }
    }

    /// Both say the same; so often in turn.
    #[track_caller]
    fn same(&mut self, sql: &str, times: usize) {
        for _ in 0..times {
            let (own, plain) = (self.router.run(sql), self.plain.run(sql));
            assert_eq!(own.sqlstate(), plain.sqlstate(), "{sql}");
            assert_eq!(own.columns, plain.columns, "{sql}");
            assert_eq!(own.rows, plain.rows, "{sql}");
        }
    }
}

/// The texts that the first shard has kept, if they have this in them.
fn kept(client: &mut Client, part: &str) -> Vec<String> {
    let list = "SELECT statement FROM pg_prepared_statement() WHERE name LIKE 'sy\\_own\\_%'";
    let rows = client.run(list).succeeded().texts();
    let texts = rows.into_iter().flatten();
    texts.filter(|text| text.contains(part)).collect()
}

const SORTED: &str = "SELECT id, v FROM kept ORDER BY v, id LIMIT 5";
const GROUPED: &str = "SELECT v, count(*), max(other) FROM kept GROUP BY v ORDER BY v";
const JOINED: &str =
    "SELECT k.id, f.name FROM kept k JOIN few f ON f.id = k.other WHERE k.id IN (1, 2, 3, 4, 5)";

/// The third time a text comes it is prepared, and rows are given with it as before.
#[test]
fn what_a_session_repeats_is_prepared() {
    let (bed, _turn) = bed();
    let mut pair = Pair::new(bed);
    let joined = format!("SELECT * FROM ({JOINED}) AS j ORDER BY id");
    eventually("all of it is prepared", || {
        for sql in [SORTED, GROUPED, &*joined] {
            pair.same(sql, OFTEN);
        }
        // The rows of one table, and the statement with them.
        let parts = ["ORDER BY v, id", "GROUP BY v", "\"public\".", "unnest"];
        let client = &mut pair.router;
        parts.iter().all(|part| !kept(client, part).is_empty())
    });
}

/// What a string stands for may depend on the moment, and what a user's function says of itself may be wrong. In a block a failure would be seen.
#[test]
fn what_may_mean_something_else_is_not_prepared() {
    let (bed, _turn) = bed();
    let mut pair = Pair::new(bed);
    let moments = [
        "SELECT id, 'now'::timestamptz FROM kept ORDER BY id LIMIT 1",
        "SELECT id, moment() FROM kept ORDER BY id LIMIT 1",
    ];
    for sql in moments {
        let mut before = String::new();
        for _ in 0..2 * OFTEN {
            let now = pair.router.run(sql).succeeded().texts()[0][1].clone();
            assert_ne!(now, before, "{sql}");
            before = now;
        }
    }
    pair.router.run("BEGIN").succeeded();
    for _ in 0..OFTEN {
        pair.router
            .run("SELECT id FROM kept ORDER BY id LIMIT 6")
            .succeeded();
    }
    pair.router.run("COMMIT").succeeded();
    for part in ["now", "moment()", "LIMIT 6"] {
        assert_eq!(kept(&mut pair.router, part), [""; 0]);
    }
}

/// What a text means depends on settings, on the search path, and on the role.
#[test]
fn with_other_settings_it_is_another_text() {
    let (bed, _turn) = bed();
    let mut pair = Pair::new(bed);
    let sql = "SELECT id, other FROM kept WHERE other = NULL OR v = 1 ORDER BY id LIMIT 5";
    let settings = [
        "SET transform_null_equals = on",
        "RESET ALL",
        "SET transform_null_equals = on",
    ];
    pair.same(sql, OFTEN);
    both(bed, |client| {
        client
            .run("UPDATE kept SET other = NULL WHERE v = 3")
            .succeeded();
    });
    for setting in settings {
        pair.same(setting, 1);
        pair.same(sql, OFTEN);
    }
    // Another session has its own.
    let mut other = Pair::new(bed);
    other.same(sql, OFTEN);
    pair.same(sql, 1);
}

/// Whoever changes a table behind the router's back has it prepared anew: PostgreSQL's error for what had been prepared is not the client's.
#[test]
fn a_table_that_was_changed_behind_the_routers_back() {
    let (bed, _turn) = bed();
    let mut pair = Pair::new(bed);
    let both = |sql: &str| {
        for shard in bed.cluster().shards() {
            bed.cluster().sql(shard.primary.as_ref(), sql).unwrap();
        }
        bed.oracle().run(sql).succeeded();
    };
    let joined = format!("SELECT * FROM ({JOINED}) AS j ORDER BY id");
    for (sql, to) in [
        (SORTED, "bigint"),
        (&*joined, "int"),
        (GROUPED, "bigint"),
        (SORTED, "int"),
    ] {
        pair.same(sql, 2 * OFTEN);
        both(&format!("ALTER TABLE kept ALTER v TYPE {to}"));
        both("ALTER TABLE few ALTER name TYPE varchar(20)");
        // The router reads the tables again, but not each time at once.
        eventually("the tables are known as they are", || {
            let own = pair.router.run(sql);
            assert!(matches!(own.sqlstate(), None | Some("40001")), "{own:?}");
            own.sqlstate().is_none()
        });
        pair.same(sql, 2 * OFTEN);
        both("ALTER TABLE few ALTER name TYPE text");
        eventually("the tables are known as they were", || {
            let own = pair.router.run(sql);
            assert!(matches!(own.sqlstate(), None | Some("40001")), "{own:?}");
            own.sqlstate().is_none()
        });
        pair.same(sql, OFTEN);
    }
}

/// No more texts are kept than the least that a server has room for, and those that are met no more are closed.
#[test]
fn there_is_an_end_to_what_is_kept() {
    let (bed, _turn) = bed();
    let mut pair = Pair::new(bed);
    for limit in 1..=3 * ROWS {
        pair.same(
            &format!("SELECT id FROM kept ORDER BY id LIMIT {limit}"),
            OFTEN,
        );
    }
    let all = kept(&mut pair.router, "").len();
    assert!(all <= 40, "{all}");
}

/// A statement that the client has named is planned for any values after a while, as PostgreSQL does it; one without a name for each.
#[test]
fn statements_with_parameters() {
    let (bed, _turn) = bed();
    let mut pair = Pair::new(bed);
    let sql = "SELECT k.id, f.name FROM kept k JOIN few f ON f.id = k.other WHERE k.v = $1 AND k.id < $2 ORDER BY k.id";
    for name in ["named", ""] {
        let parse = || Batch::default().parse(name, sql);
        let prepared = parse().sync();
        for client in [&mut pair.router, &mut pair.plain] {
            dialogue::step(client, &prepared, b'Z');
        }
        for run in 0..4 * OFTEN {
            let begun = if name.is_empty() {
                parse()
            } else {
                Batch::default()
            };
            let values = [(run % 7).to_string(), (10 + 5 * (run % 4)).to_string()];
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let batch = begun.bind("", name, &values).execute("", 0).sync();
            let own = dialogue::step(&mut pair.router, &batch, b'Z');
            assert_eq!(
                own,
                dialogue::step(&mut pair.plain, &batch, b'Z'),
                "{values:?}"
            );
        }
    }
    // The name is of the one statement only: what has no name leaves no text behind.
    let texts = kept(&mut pair.router, "\"v\"");
    assert!(texts.len() <= 1, "{texts:?}");
}
