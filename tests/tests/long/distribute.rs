//! `create_distributed_table` and its friends: empty tables and filled ones, at the clients and at the kills that come meanwhile.

mod current_of;
mod located;
mod methods;
mod unique;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use switchyard_tests::cluster::{ClusterSpec, Node, Stop};
use switchyard_tests::{Bed, BedSpec, Client, Login, eventually};

fn bed() -> Bed {
    Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 1).with_catalog()))
}

/// As a superuser: others who come past the routers are ended with those of a router that dies.
fn on_shards(bed: &Bed, sql: &str) -> Vec<String> {
    let shards = bed.cluster().shards().iter();
    let ask = |node: &dyn Node| bed.cluster().superuser_sql(node, "shop", sql).unwrap();
    shards.map(|shard| ask(shard.primary.as_ref())).collect()
}

fn catalog(bed: &Bed, sql: &str) -> String {
    let node = bed.cluster().catalog().unwrap();
    bed.cluster()
        .superuser_sql(node, "switchyard", sql)
        .unwrap()
}

fn value(client: &mut Client, sql: &str) -> String {
    client.run(sql).succeeded().value()
}

const FILL: &str = "CREATE TABLE things (id bigint, name text, twice bigint GENERATED ALWAYS AS (id * 2) STORED, PRIMARY KEY (id));
    INSERT INTO things (id, name) SELECT n, 'thing ' || n FROM generate_series(1, 2000) AS n";

/// What a client sees of the table.
fn seen(client: &mut Client) -> String {
    value(
        client,
        "SELECT count(*) || ' ' || sum(id) || ' ' || sum(twice) || ' ' || count(DISTINCT name) FROM things",
    )
}

const ALL: &str = "2000 2001000 4002000 2000";

/// They are planned for a table of the first shard, or for copies, and wait for a connection while rows move. The last is of several
/// statements.
const WAITING: [(&str, &str); 6] = [
    ("UPDATE things SET name = 'found' WHERE id = 1", "UPDATE 1"),
    (
        "UPDATE things SET name = name WHERE id < 1000",
        "UPDATE 999",
    ),
    ("SELECT name FROM things WHERE id < 1000", "SELECT 999"),
    (
        "SELECT count(*), sum(id) FROM things GROUP BY id % 100",
        "SELECT 100",
    ),
    ("INSERT INTO kinds DEFAULT VALUES", "INSERT 0 1"),
    (
        "INSERT INTO parts SELECT n, n FROM generate_series(1, 100) AS n; DELETE FROM parts",
        "INSERT 0 100, DELETE 100",
    ),
];

#[test]
fn statements_that_have_waited_for_a_connection_find_the_rows() {
    let spec = BedSpec::of(ClusterSpec::for_tests(2, 0).with_catalog());
    let bed = Bed::start(spec.with_router("pool_size = 1"));
    let (mut holder, mut caller) = (bed.client(), bed.client());
    for sql in FILL.split(';').chain([
        "CREATE TABLE unsharded (i int)",
        "CREATE TABLE parts (thing int8, part int)",
        "CREATE TABLE kinds (kind text DEFAULT 'one')",
        "SELECT create_distributed_table('parts', 'thing')",
        "SELECT create_reference_table('kinds')",
    ]) {
        caller.run(sql).succeeded();
    }
    holder.run("BEGIN").succeeded();
    holder.run("SELECT count(*) FROM unsharded").succeeded();
    std::thread::scope(|scope| {
        let simple = WAITING.map(|(sql, tags)| {
            let mut client = bed.client();
            (scope.spawn(move || client.simple(sql)), tags)
        });
        let of_one = WAITING.into_iter().filter(|(sql, _)| !sql.contains(';'));
        let extended = of_one.map(|(sql, tags)| {
            let mut client = bed.client();
            (
                scope.spawn(move || vec![client.extended(sql, &[], 0)]),
                tags,
            )
        });
        let waiting: Vec<_> = simple.into_iter().chain(extended).collect();
        eventually("they wait for a connection", || {
            waiting_clients(&bed) == waiting.len()
        });
        caller
            .run("SELECT create_distributed_table('things', 'id')")
            .succeeded();
        holder.run("COMMIT").succeeded();
        for (answering, tags) in waiting {
            let replies = answering.join().unwrap().into_iter();
            let answered: Vec<_> = replies.filter_map(|reply| reply.succeeded().tag).collect();
            assert_eq!(answered.join(", "), tags);
        }
    });
    let found = "SELECT count(*) FROM things WHERE name = 'found'";
    assert_eq!(value(&mut caller, found), "1");
    let kinds = on_shards(&bed, "SELECT count(*) FROM kinds");
    assert_eq!(kinds, ["2", "2"]);
}

/// How many clients wait for a connection.
fn waiting_clients(bed: &Bed) -> usize {
    let clients = bed.router().console().run("SHOW CLIENTS").succeeded();
    let clients = clients.texts();
    let states = clients.iter().flatten();
    states.filter(|state| *state == "waiting").count()
}

#[test]
fn empty_tables_are_distributed() {
    let bed = bed();
    let (mut client, second) = (bed.client(), bed.another_router("", &|node| node.port()));
    let mut other = Client::connect(&Login::new(second.port()));
    for sql in [
        "CREATE TABLE things (id bigint PRIMARY KEY, name text)",
        "CREATE TABLE parts (thing int8, part int, PRIMARY KEY (thing, part))",
        "CREATE TABLE kinds (kind text PRIMARY KEY)",
    ] {
        client.run(sql).succeeded();
    }
    let began = Instant::now();
    let reply = client.run("SELECT create_distributed_table('things', 'id')");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(reply.tag.as_deref(), Some("SELECT 1"), "{reply:?}");
    assert_eq!(reply.columns.unwrap()[0].name, "create_distributed_table");
    let notice = client.notices.pop().unwrap();
    assert!(
        notice
            .message()
            .contains("name = \"things\", shard_key = \"id\", method = \"hash\"")
    );
    // By the other protocol, too.
    let reply = client.extended(
        "SELECT create_distributed_table('parts', 'thing', colocate_with => 'things')",
        &[],
        0,
    );
    assert_eq!(reply.tag.as_deref(), Some("SELECT 1"), "{reply:?}");
    assert_eq!(reply.columns.unwrap()[0].name, "create_distributed_table");
    client
        .run("SELECT create_reference_table('public.kinds')")
        .succeeded();
    // Every router knows by now.
    for client in [&mut client, &mut other] {
        let plan = client
            .run("EXPLAIN SELECT * FROM things JOIN parts ON thing = id")
            .succeeded();
        assert!(plan.value().starts_with("Append of"), "{plan:?}");
    }
    other
        .run("INSERT INTO things SELECT n, 'x' FROM generate_series(1, 100) AS n")
        .succeeded();
    other
        .run("INSERT INTO kinds VALUES ('a'), ('b')")
        .succeeded();
    let counts = on_shards(&bed, "SELECT count(*) FROM things");
    assert!(
        counts.iter().all(|count| count != "0" && count != "100"),
        "{counts:?}"
    );
    assert_eq!(on_shards(&bed, "SELECT count(*) FROM kinds"), ["2", "2"]);
    // And a foreign key that could not have been there before.
    client
        .run("ALTER TABLE parts ADD FOREIGN KEY (thing) REFERENCES things")
        .succeeded();
    assert_eq!(
        on_shards(&bed, "SELECT count(*) FROM pg_prepared_xacts"),
        ["0", "0"]
    );
}

#[test]
fn filled_tables_are_moved() {
    let bed = bed();
    let mut client = bed.client();
    for reply in client.simple(FILL) {
        reply.succeeded();
    }
    client.run("CREATE TABLE log (what text)").succeeded();
    client
        .run("CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (TG_OP); RETURN NULL; END'")
        .succeeded();
    client
        .run("CREATE TRIGGER note AFTER INSERT OR DELETE ON things FOR EACH ROW EXECUTE FUNCTION note()")
        .succeeded();
    assert_eq!(seen(&mut client), ALL);
    client
        .run("SELECT create_distributed_table('things', 'id')")
        .succeeded();
    assert_eq!(seen(&mut client), ALL);
    let counts = on_shards(&bed, "SELECT count(*) FROM things");
    let counts: Vec<u32> = counts.iter().map(|count| count.parse().unwrap()).collect();
    assert!(
        counts.iter().all(|count| *count > 500) && counts.iter().sum::<u32>() == 2000,
        "{counts:?}"
    );
    // Each is where it is looked for, on replicas too.
    for id in (1..2000).step_by(97) {
        let found = value(
            &mut client,
            &format!("SELECT name FROM things WHERE id = {id}"),
        );
        assert_eq!(found, format!("thing {id}"));
    }
    assert_eq!(on_shards(&bed, "SELECT count(*) FROM log"), ["0", "0"]);
    assert_eq!(
        on_shards(
            &bed,
            "SELECT tgenabled FROM pg_trigger WHERE tgname = 'note'"
        ),
        ["O", "O"]
    );
    moved_back(&bed, &mut client);
}

/// To the first shard, to all of them, and forgotten.
fn moved_back(bed: &Bed, client: &mut Client) {
    client
        .run("SELECT undistribute_table('things')")
        .succeeded();
    assert_eq!(seen(client), ALL);
    assert_eq!(on_shards(bed, "SELECT count(*) FROM things"), ["2000", "0"]);
    client
        .run("SELECT create_reference_table('things')")
        .succeeded();
    assert_eq!(
        on_shards(bed, "SELECT count(*) FROM things"),
        ["2000", "2000"]
    );
    assert_eq!(seen(client), ALL);
    client
        .run("SELECT undistribute_table('things')")
        .succeeded();
    assert_eq!(on_shards(bed, "SELECT count(*) FROM things"), ["2000", "0"]);
    // One that is gone is forgotten: a new one is not distributed.
    let entries = "SELECT count(*) FROM switchyard.tables WHERE name = 'things'";
    for drop in ["DROP TABLE things", "BEGIN; DROP TABLE things; COMMIT"] {
        client
            .run("SELECT create_distributed_table('things', 'id')")
            .succeeded();
        assert_eq!(catalog(bed, entries), "1");
        for reply in client.simple(drop) {
            reply.succeeded();
        }
        assert_eq!(catalog(bed, entries), "0", "{drop}");
        client
            .run("CREATE TABLE things (id int, name text)")
            .succeeded();
        client
            .run("INSERT INTO things VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')")
            .succeeded();
        assert_eq!(on_shards(bed, "SELECT count(*) FROM things"), ["4", "0"]);
    }
    // Where it was not dropped by a router, it can be forgotten by a call.
    client
        .run("SELECT create_reference_table('things')")
        .succeeded();
    on_shards(bed, "DROP TABLE things");
    client
        .run("SELECT undistribute_table('things')")
        .succeeded();
    assert_eq!(catalog(bed, entries), "0");
}

/// Calls, with the SQLSTATE and the message of each.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "create_distributed_table('nosuch', 'id')",
        "42P01",
        "relation \"nosuch\" does not exist",
    ),
    (
        "create_reference_table('nosuch')",
        "42P01",
        "relation \"nosuch\" does not exist",
    ),
    (
        "undistribute_table('nosuch')",
        "42P01",
        "relation \"nosuch\" does not exist",
    ),
    (
        "undistribute_table('t')",
        "42809",
        "table \"t\" is not distributed",
    ),
    (
        "create_distributed_table('t', 'nosuch')",
        "42703",
        "column \"nosuch\" of relation \"t\" does not exist",
    ),
    (
        "create_distributed_table('t', 'at')",
        "0A000",
        "table \"t\" cannot be distributed by column \"at\"",
    ),
    (
        "create_distributed_table('t', 'id')",
        "0A000",
        "unique constraint \"t_email_key\" of table \"t\" cannot hold across shards",
    ),
    (
        "create_distributed_table('u', 'id')",
        "0A000",
        "foreign key \"child_id_fkey\" of table \"child\" cannot hold across shards",
    ),
    (
        "create_distributed_table('child', 'id')",
        "0A000",
        "foreign key \"child_id_fkey\" of table \"child\" cannot hold across shards",
    ),
    (
        "create_distributed_table('seen', 'id')",
        "0A000",
        "table \"seen\" cannot be distributed: the materialized view \"m\" reads it",
    ),
    (
        "create_distributed_table('v', 'id')",
        "42809",
        "\"v\" is not a table",
    ),
    (
        "create_distributed_table('users', 'id')",
        "42P16",
        "table \"users\" is already distributed",
    ),
    (
        "create_reference_table('users')",
        "42P16",
        "table \"users\" is already distributed",
    ),
    (
        "create_distributed_table('words', 'word', colocate_with => 'users')",
        "42804",
        "cannot colocate tables \"users\" and \"words\"",
    ),
    (
        "create_distributed_table('words', 'word', colocate_with => 'countries')",
        "42809",
        "table \"countries\" is not distributed by a column",
    ),
    (
        "create_distributed_table('words', 'word', colocate_with => 'nosuch')",
        "42P01",
        "relation \"nosuch\" does not exist",
    ),
    (
        "create_distributed_table('pg_class', 'oid')",
        "42501",
        "must be owner of table pg_class",
    ),
    (
        "create_distributed_table('words')",
        "42883",
        "create_distributed_table does not take these arguments",
    ),
];

#[test]
fn what_cannot_be_is_refused() {
    let bed = bed();
    let mut client = bed.client();
    for sql in [
        "CREATE TABLE t (id int PRIMARY KEY, email text UNIQUE, at point)",
        "CREATE TABLE u (id int PRIMARY KEY)",
        "CREATE TABLE child (id int REFERENCES u)",
        "CREATE VIEW v AS SELECT * FROM u",
        "CREATE TABLE seen (id int)",
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM seen",
        "CREATE TABLE words (word text, n int)",
    ] {
        client.run(sql).succeeded();
    }
    let before = catalog(&bed, "SELECT number FROM switchyard.revision");
    for (sql, sqlstate, message) in REFUSED {
        client.refused(&format!("SELECT {sql}"), sqlstate, message);
    }
    // What every shard has may be referred to.
    client.run("SELECT create_reference_table('u')").succeeded();
    client.run("BEGIN").succeeded();
    let failure = client
        .run("SELECT create_reference_table('words')")
        .failure
        .unwrap();
    assert_eq!(failure.sqlstate(), "25001");
    client.run("ROLLBACK").succeeded();
    let after = catalog(&bed, "SELECT number FROM switchyard.revision");
    assert_eq!(
        before.parse::<u32>().unwrap() + 3,
        after.parse::<u32>().unwrap()
    );
}

#[test]
fn a_table_that_another_router_has_just_made_has_its_rows_where_they_belong() {
    let spec = BedSpec::of(ClusterSpec::for_tests(2, 0).with_catalog());
    let bed = Bed::start(spec.with_tables(
        "",
        "[[databases.tables]]\nname = \"late\"\nshard_key = \"id\"\nmethod = \"hash\"\n",
    ));
    let second = bed.another_router("", &|node| node.port());
    let (mut client, mut other) = (bed.client(), Client::connect(&Login::new(second.port())));
    let insert = |id: usize| format!("INSERT INTO late VALUES ({id})");
    // There is none yet, and the router has just looked.
    for sql in ["SELECT * FROM late", "COPY late FROM STDIN", &insert(1)] {
        assert_eq!(other.run(sql).sqlstate(), Some("42P01"), "{sql}");
    }
    assert_eq!(other.extended(&insert(1), &[], 0).sqlstate(), Some("42P01"));
    client.run("CREATE TABLE late (id int)").succeeded();
    for id in 1..=8 {
        other.run(&insert(id)).succeeded();
    }
    client.run("DROP TABLE late").succeeded();
    eventually("the other router knows", || {
        other.run("SELECT * FROM late").failure.is_some()
    });
    client.run("CREATE TABLE late (id int)").succeeded();
    for id in 1..=8 {
        other.extended(&insert(id), &[], 0).succeeded();
    }
    let counts = on_shards(&bed, "SELECT count(*) FROM late");
    assert!(counts.iter().all(|count| count != "0"), "{counts:?}");
    for id in 1..=8 {
        let found = format!("SELECT count(*) FROM late WHERE id = {id}");
        assert_eq!(value(&mut client, &found), "1", "{id}");
    }
}

/// A router that plans by what a table was stores rows where nobody looks for them. By itself it looks once a second.
#[test]
fn changed_definitions_are_soon_known_to_other_routers() {
    const CHANGES: usize = 12;
    let bed = bed();
    let second = bed.another_router("", &|node| node.port());
    let (mut client, mut other) = (bed.client(), Client::connect(&Login::new(second.port())));
    let columns: String = (0..CHANGES).map(|at| format!("a{at} int, ")).collect();
    client
        .run(&format!("CREATE TABLE wide ({columns} id int, said text)"))
        .succeeded();
    client
        .run("SELECT create_distributed_table('wide', 'id')")
        .succeeded();
    let (mut took, mut id) = (Duration::ZERO, 0);
    for change in 0..CHANGES {
        client
            .run(&format!("ALTER TABLE wide DROP COLUMN a{change}"))
            .succeeded();
        let began = Instant::now();
        let mut knows = began;
        let before = "0, ".repeat(CHANGES - 1 - change);
        let mut found = 0;
        // By chance it may be the right shard.
        while found < 8 {
            id += 1;
            other
                .run(&format!("INSERT INTO wide VALUES ({before}{id}, 'x')"))
                .succeeded();
            let count = format!("SELECT count(*) FROM wide WHERE id = {id}");
            found += 1;
            if value(&mut client, &count) != "1" {
                (found, knows) = (0, Instant::now());
            }
        }
        took += knows - began;
    }
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn without_a_catalog_it_is_refused() {
    let bed = Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 0)));
    let mut client = bed.client();
    client.run("CREATE TABLE t (id int)").succeeded();
    let failure = client
        .run("SELECT create_distributed_table('t', 'id')")
        .failure
        .unwrap();
    assert_eq!(failure.sqlstate(), "55000");
    assert_eq!(
        failure.message(),
        "create_distributed_table needs a catalog"
    );
    assert!(
        failure
            .field('H')
            .contains("name = \"t\", shard_key = \"id\", method = \"hash\""),
        "{failure:?}"
    );
}

/// What fails on the second shard leaves the first as it was.
#[test]
fn a_failure_on_the_second_shard_leaves_nothing() {
    let bed = bed();
    let mut client = bed.client();
    for reply in client.simple(FILL) {
        reply.succeeded();
    }
    let second = bed.cluster().shard(1).primary.as_ref();
    // The key of one row that is to go there is taken.
    let check = "ALTER TABLE things ADD CONSTRAINT odd CHECK (id <> 1234 AND id <> 1235 AND id <> 1236 AND id <> 1237 AND id <> 1238)";
    bed.cluster().sql(second, check).unwrap();
    let failure = client
        .run("SELECT create_distributed_table('things', 'id')")
        .failure
        .unwrap();
    assert_eq!(failure.sqlstate(), "23514", "{failure:?}");
    assert!(failure.message().ends_with("(shard \"s1\")"), "{failure:?}");
    assert_eq!(
        on_shards(&bed, "SELECT count(*) FROM things"),
        ["2000", "0"]
    );
    assert_eq!(
        on_shards(&bed, "SELECT count(*) FROM pg_prepared_xacts"),
        ["0", "0"]
    );
    assert_eq!(seen(&mut client), ALL);
    let shared = "ALTER TABLE things DROP CONSTRAINT odd; ALTER TABLE things ADD COLUMN more int";
    bed.cluster().sql(second, shared).unwrap();
    let failure = client
        .run("SELECT create_distributed_table('things', 'id')")
        .failure
        .unwrap();
    assert_eq!(
        failure.message(),
        "table \"things\" is not the same on shard \"s1\""
    );
    bed.cluster()
        .sql(
            second,
            "ALTER TABLE things DROP COLUMN more; INSERT INTO things (id) VALUES (1)",
        )
        .unwrap();
    let failure = client
        .run("SELECT create_distributed_table('things', 'id')")
        .failure
        .unwrap();
    assert_eq!(failure.sqlstate(), "55000", "{failure:?}");
    bed.cluster().sql(second, "TRUNCATE things").unwrap();
    client
        .run("SELECT create_distributed_table('things', 'id')")
        .succeeded();
    assert_eq!(seen(&mut client), ALL);
}

/// Reads that each client makes at least.
const ENOUGH: u32 = 20;

/// What a client has met that reads and writes all the time.
#[derive(Default)]
struct Busy {
    reads: u32,
    errors: Vec<String>,
    /// The rows whose INSERT has been acknowledged.
    stored: Vec<usize>,
}

impl Busy {
    /// Works until it is told to stop and has read often enough to tell: every other client in transaction blocks.
    fn work(port: u16, number: usize, stop: &AtomicBool) -> Busy {
        let mut client = Client::connect(&Login::new(port));
        let mut busy = Busy::default();
        let mut id = 10_000 * (number + 1);
        let give_up = Instant::now() + Duration::from_secs(60);
        let in_time = || Instant::now() < give_up;
        while !stop.load(Ordering::Relaxed) || busy.reads <= ENOUGH && in_time() {
            id += 1;
            match busy.transaction(&mut client, id, number % 2 == 1) {
                Ok(()) => busy.stored.push(id),
                Err(sqlstate) => busy.errors.push(sqlstate),
            }
        }
        busy
    }

    /// Reads all rows and adds one.
    fn transaction(&mut self, client: &mut Client, id: usize, block: bool) -> Result<(), String> {
        let run = |client: &mut Client, sql: &str| {
            let reply = client.run(sql);
            match &reply.failure {
                Some(failure) => Err(failure.sqlstate().to_owned()),
                None => Ok(reply),
            }
        };
        if block {
            run(client, "BEGIN")?;
        }
        let done = run(client, "SELECT count(*) FROM things WHERE id <= 2000").and_then(|count| {
            assert_eq!(count.value(), "2000");
            self.reads += 1;
            run(
                client,
                &format!("INSERT INTO things (id, name) VALUES ({id}, 'new')"),
            )
        });
        if block {
            let end = run(client, "COMMIT")?;
            if done.is_ok() {
                assert_eq!(end.tag.as_deref(), Some("COMMIT"));
            }
        }
        done.map(drop)
    }
}

/// Clients that read and write all the time, on two routers, see all rows or an error.
#[test]
fn nobody_sees_half_of_it() {
    let bed = bed();
    let second = bed.another_router("", &|node| node.port());
    let mut client = bed.client();
    for reply in client.simple(FILL) {
        reply.succeeded();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let ports = [bed.router().port(), second.port()];
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let (port, stop) = (ports[number / 2], Arc::clone(&stop));
            spawn(move || Busy::work(port, number, &stop))
        })
        .collect();
    for _ in 0..2 {
        for call in [
            "create_distributed_table('things', 'id')",
            "undistribute_table('things')",
        ] {
            client.run(&format!("SELECT {call}")).succeeded();
            // Some go on between the changes.
            client.run("SELECT pg_sleep(0.5)").succeeded();
        }
    }
    client
        .run("SELECT create_distributed_table('things', 'id')")
        .succeeded();
    stop.store(true, Ordering::Relaxed);
    for busy in clients {
        let busy = busy.join().unwrap();
        assert!(busy.reads > ENOUGH, "{} reads", busy.reads);
        let expected = ["57014", "40001"];
        let known = |error: &String| expected.contains(&&**error);
        assert!(busy.errors.iter().all(known), "{:?}", busy.errors);
        // What was acknowledged is there once, where it is looked for.
        for id in busy.stored {
            let sql = format!("SELECT count(*) FROM things WHERE id = {id}");
            assert_eq!(value(&mut client, &sql), "1", "{id}");
        }
    }
    assert_eq!(
        on_shards(&bed, "SELECT count(*) FROM pg_prepared_xacts"),
        ["0", "0"]
    );
}

/// A router that dies at any moment leaves all of it or nothing, and others end what it has prepared.
#[test]
fn a_router_that_dies_leaves_all_or_nothing() {
    let bed = bed();
    let second = bed.another_router("", &|node| node.port());
    let mut client = Client::connect(&Login::new(second.port()));
    for reply in client.simple(FILL) {
        reply.succeeded();
    }
    // Later each time, until it dies too late to keep it from being done.
    for doublings in 0..14 {
        let victim = bed.another_router("", &|node| node.port());
        let mut doomed = Client::connect(&Login::new(victim.port()));
        let asking =
            spawn(move || doomed.try_run("SELECT create_distributed_table('things', 'id')"));
        sleep(Duration::from_millis(5 << doublings));
        drop(victim);
        asking.join().unwrap();
        eventually("nothing is left prepared", || {
            on_shards(&bed, "SELECT count(*) FROM pg_prepared_xacts") == ["0", "0"]
                && on_shards(
                    &bed,
                    "SELECT count(*) FROM pg_locks WHERE NOT granted OR mode = 'AccessExclusiveLock'",
                ) == ["0", "0"]
        });
        assert_eq!(seen(&mut client), ALL);
        let recorded = catalog(
            &bed,
            "SELECT count(*) FROM switchyard.tables WHERE name = 'things'",
        );
        let counts = on_shards(&bed, "SELECT count(*) FROM things");
        assert_eq!(
            recorded == "0",
            counts == ["2000", "0"],
            "{recorded} {counts:?}"
        );
        if recorded != "0" {
            return;
        }
    }
    panic!("however late the router dies, nothing is recorded");
}

/// Without the catalog nothing is recorded, and nothing stays locked.
#[test]
fn a_catalog_that_is_away_changes_nothing() {
    let bed = bed();
    let mut client = bed.client();
    for reply in client.simple(FILL) {
        reply.succeeded();
    }
    let node = bed.cluster().catalog().unwrap();
    node.stop(Stop::Immediate).unwrap();
    let call = "SELECT create_distributed_table('things', 'id')";
    let failure = client.run(call).failure.unwrap();
    assert_eq!(failure.sqlstate(), "08006", "{failure:?}");
    assert_eq!(seen(&mut client), ALL);
    let locks = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'";
    eventually("nothing is locked", || on_shards(&bed, locks) == ["0", "0"]);
    node.start().unwrap();
    eventually("the catalog is there", || {
        client.run(call).failure.is_none()
    });
    assert_eq!(seen(&mut client), ALL);
}

/// The catalog keeps how a change has ended as long as somebody may have to know, and no longer.
#[test]
fn decisions_of_the_catalog_are_removed() {
    let bed = bed();
    let name = |token: char, user: &str| {
        let token = String::from(token).repeat(32);
        format!("switchyard.{token}.1.(catalog).{user}")
    };
    // Nobody can end this one: its user is nobody here.
    let left = name('b', "nobody");
    let on_first = |sql: &str| {
        let node = bed.cluster().shard(0).primary.as_ref();
        bed.cluster().superuser_sql(node, "shop", sql).unwrap()
    };
    on_first("CREATE TABLE left_over (a int)");
    let prepare = format!("BEGIN; INSERT INTO left_over VALUES (1); PREPARE TRANSACTION '{left}'");
    on_first(&prepare);
    let rows = [
        (name('a', "app"), true, "2 minutes"),
        (left.clone(), true, "2 minutes"),
        (name('c', "app"), true, "0"),
        (name('d', "app"), false, "2 minutes"),
        (name('e', "app"), false, "2 days"),
    ];
    for (gid, committed, age) in &rows {
        catalog(
            &bed,
            &format!(
                "INSERT INTO switchyard.decisions VALUES ('{gid}', {committed}, now() - '{age}'::interval)"
            ),
        );
    }
    let there = |gid: &str| {
        let count = format!("SELECT count(*) FROM switchyard.decisions WHERE gid = '{gid}'");
        catalog(&bed, &count) == "1"
    };
    let begin = Instant::now();
    while there(&rows[0].0) || there(&rows[4].0) {
        assert!(
            begin.elapsed() < Duration::from_secs(45),
            "they are removed"
        );
        sleep(Duration::from_millis(500));
    }
    for (gid, ..) in rows.iter().take(4).skip(1) {
        assert!(there(gid), "{gid} may be needed");
    }
    on_first(&format!("ROLLBACK PREPARED '{left}'; "));
}
