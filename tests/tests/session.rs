//! What a session keeps and what ends with it, compared with one PostgreSQL: batches that fail, transactions that lose a
//! server, settings that are taken back.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::dialogue::{Batch, query, run, step};
use switchyard_tests::{Bed, BedSpec, Client};

static BED: OnceLock<Bed> = OnceLock::new();

/// Two primaries, and one connection for all clients.
fn bed() -> &'static Bed {
    BED.get_or_init(|| {
        let cluster = ClusterSpec::for_tests(2, 0).with_oracle();
        Bed::start(BedSpec::of(cluster).with_router("pool_size = 1"))
    })
}

/// One test at a time: they write to the same rows, and some end the servers' connections.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two users that do not live on the same shard, the first on shard 0.
fn users() -> (&'static str, &'static str) {
    ("3", "1")
}

/// Does the same on the oracle and through the router; what comes back must be the same, step by step.
#[track_caller]
fn same(steps: Vec<Batch>) {
    same_until(steps.into_iter().map(|batch| (batch, b'Z')).collect());
}

#[track_caller]
fn same_until(steps: Vec<(Batch, u8)>) {
    let _turn = turn();
    let (mut oracle, mut router) = (bed().oracle(), bed().client());
    for (number, (batch, last)) in steps.iter().enumerate() {
        let expected = step(&mut oracle, batch, *last);
        assert_eq!(
            expected,
            step(&mut router, batch, *last),
            "step {number}; oracle on the left, router on the right"
        );
    }
}

const NAME: &str = "SELECT name FROM users WHERE id = $1";
const RENAME: &str = "UPDATE users SET name = $2 WHERE id = $1";

#[test]
fn an_error_on_one_shard_undoes_what_the_batch_did_on_another() {
    let (here, there) = users();
    let fails = |batch: Batch| {
        batch
            .parse("", "SELECT 1 / (id - id) FROM users WHERE id = $1")
            .bind("", "", &[there])
            .execute("", 0)
            .sync()
    };
    same(vec![
        run(RENAME, &[here, "before"]).sync(),
        fails(run(RENAME, &[here, "after"])),
        run(NAME, &[here]).sync(),
    ]);
}

#[test]
fn a_statement_that_does_not_parse_does_not_exist() {
    let nope = "SELECT nope FROM users WHERE id = $1";
    let bound = |name| {
        Batch::default()
            .bind("", name, &["3"])
            .execute("", 0)
            .sync()
    };
    same(vec![
        Batch::default().parse("s", nope).sync(),
        bound("s"),
        Batch::default()
            .parse("s", NAME.replace("name", "id").as_str())
            .sync(),
        bound("s"),
        Batch::default().parse("", "SELECT 1").sync(),
        Batch::default().parse("", nope).sync(),
        bound(""),
        run("SELECT 1 / 0", &[]).parse("t", "SELECT 1").sync(),
        Batch::default()
            .parse("t", "SELECT 2")
            .bind("", "t", &[])
            .execute("", 0)
            .sync(),
    ]);
}

#[test]
fn a_query_takes_the_unnamed_statement_s_place() {
    same(vec![
        Batch::default().parse("", "SELECT 1").sync(),
        query("SELECT 2"),
        Batch::default().bind("", "", &[]).execute("", 0).sync(),
    ]);
}

#[test]
fn a_query_does_not_commit_what_a_batch_has_written() {
    let _turn = turn();
    let (here, _) = users();
    let mut client = bed().client();
    let name = NAME.replace("$1", here);
    let before = client.run(&name).value();
    let seen = step(
        &mut client,
        &run(RENAME, &[here, "early"]).query("SELECT 1 / 0"),
        b'Z',
    );
    assert!(
        seen.iter().any(|line| line.starts_with("E 0A000")),
        "{seen:?}"
    );
    assert_eq!(seen.last().map(String::as_str), Some("Z \"I\""));
    assert_eq!(client.run(&name).value(), before);
}

#[test]
fn queries_are_skipped_up_to_sync() {
    same_until(vec![
        (run("SELECT 1 / 0", &[]).flush(), b'E'),
        (query("SELECT 1").sync(), b'Z'),
        (query("SELECT 2"), b'Z'),
    ]);
}

#[test]
fn a_block_begun_in_a_batch_takes_in_what_went_before() {
    let (here, _) = users();
    let begin = |batch: Batch| {
        batch
            .parse("", "BEGIN")
            .bind("", "", &[])
            .execute("", 0)
            .sync()
    };
    same(vec![
        run(RENAME, &[here, "before"]).sync(),
        begin(run(RENAME, &[here, "after"])),
        query("ROLLBACK"),
        run(NAME, &[here]).sync(),
    ]);
}

#[test]
fn a_setting_in_a_batch_that_fails_is_taken_back() {
    let (here, _) = users();
    let set = |batch: Batch| {
        let set = batch.parse("", "SET work_mem = '5MB'").bind("", "", &[]);
        set.execute("", 0)
    };
    let fails = |batch: Batch| {
        let divided = batch.parse("", "SELECT 1 / 0").bind("", "", &[]);
        divided.execute("", 0).sync()
    };
    same(vec![
        run(RENAME, &[here, "before"]).sync(),
        fails(set(run(RENAME, &[here, "after"]))),
        query("SHOW work_mem"),
        run(NAME, &[here]).sync(),
        set(Batch::default()).sync(),
        query("SHOW work_mem"),
        run("SET work_mem = 'nonsense'", &[])
            .parse("", "SELECT 1")
            .bind("", "", &[])
            .execute("", 0)
            .sync(),
    ]);
}

#[test]
fn portals_over_several_shards_are_counted_and_closed() {
    let portal = |values: &[&str]| Batch::default().bind("p", "s", values);
    let some = "SELECT 1 FROM users WHERE id IN ($1, $2, $3)";
    same(vec![
        query("BEGIN"),
        Batch::default().parse("s", some).sync(),
        portal(&["1", "2", "3"]).execute("p", 2).sync(),
        Batch::default().execute("p", 2).sync(),
        Batch::default().execute("p", 2).close_portal("p").sync(),
        portal(&["3", "4", "5"]).execute("p", 0).sync(),
        query("COMMIT"),
    ]);
}

#[test]
fn copy_by_the_extended_protocol() {
    let copy = || run("COPY loaded FROM STDIN", &[]);
    same_until(vec![
        (query("CREATE TABLE loaded (a int, b text)"), b'Z'),
        // As libpq does: a Sync behind the Execute, and another at the end.
        (copy().sync(), b'G'),
        (Batch::default().copy("1\tone\n").sync(), b'Z'),
        (copy().sync(), b'G'),
        (Batch::default().copy("not a number\n").sync(), b'Z'),
        (copy().copy("2\ttwo\n").sync(), b'Z'),
        (query("SELECT * FROM loaded"), b'Z'),
        (query("DROP TABLE loaded"), b'Z'),
    ]);
}

#[test]
fn a_batch_ends_though_its_server_is_gone() {
    let _turn = turn();
    let (here, _) = users();
    let mut client = bed().client();
    client.simple("BEGIN");
    step(&mut client, &run(RENAME, &[here, "lost"]).sync(), b'Z');
    terminate_all();
    let seen = step(&mut client, &run(NAME, &[here]).sync(), b'Z');
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(seen[0].starts_with("E 08006"), "{seen:?}");
    assert_eq!(seen[1], "Z \"E\"");
    client.simple("ROLLBACK");
    let name = client.run(&NAME.replace("$1", here)).value();
    assert_ne!(name, "lost");
}

#[test]
fn a_cursor_s_name_is_taken_on_every_shard() {
    let (here, there) = users();
    let declare = |user: &str| {
        query(&format!(
            "DECLARE c CURSOR FOR {}",
            NAME.replace("$1", user)
        ))
    };
    let bind =
        |portal: &str, user: &str| Batch::default().parse("", NAME).bind(portal, "", &[user]);
    same(vec![
        query("BEGIN"),
        bind("c", here).sync(),
        bind("c", there).sync(),
        query("ROLLBACK"),
        query("BEGIN"),
        declare(here),
        declare(there),
        query("ROLLBACK"),
        query("BEGIN"),
        bind("c", here).sync(),
        declare(there),
        query("ROLLBACK"),
        query("BEGIN"),
        bind("c", here).close_portal("c").sync(),
        declare(there),
        bind("d", here).execute("d", 0).sync(),
        query("COMMIT"),
    ]);
}

#[test]
fn a_cursor_over_several_shards_is_a_portal_too() {
    let step = Batch::default;
    same(vec![
        query("BEGIN"),
        query("DECLARE c SCROLL CURSOR FOR SELECT id, name FROM users ORDER BY id"),
        step().describe(b'P', "c").execute("c", 2).sync(),
        query("FETCH 1 FROM c"),
        step().execute("c", 1).sync(),
        step()
            .parse("f", "FETCH 2 FROM c")
            .describe(b'S', "f")
            .bind("p", "f", &[])
            .describe(b'P', "p")
            .execute("p", 0)
            .sync(),
        step().parse("m", "MOVE 2 IN c").describe(b'S', "m").sync(),
        step().bind("", "f", &[]).execute("", 0).sync(),
        step().bind("c", "f", &[]).sync(),
        query("ROLLBACK"),
        step().execute("c", 1).sync(),
        step().bind("", "f", &[]).execute("", 0).sync(),
        query("DEALLOCATE ALL"),
    ]);
}

#[test]
fn execute_with_too_few_arguments_is_postgresql_s_error() {
    same(vec![
        query("PREPARE p (int8) AS SELECT name FROM users WHERE id = $1"),
        query("EXECUTE p"),
        query("EXECUTE p (3, 4)"),
        query("EXECUTE p (3)"),
        query("DEALLOCATE p"),
    ]);
}

/// Ends every backend of the router's on both shards.
fn terminate_all() {
    for shard in bed().cluster().shards() {
        let sql = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
                   WHERE usename = 'app' AND pid <> pg_backend_pid()";
        bed().cluster().sql(shard.primary.as_ref(), sql).unwrap();
    }
}

#[test]
fn a_block_that_lost_its_server_cannot_go_on_from_a_savepoint() {
    let _turn = turn();
    let (here, _) = users();
    let mut client = bed().client();
    client.simple("BEGIN");
    client.run(&format!("UPDATE users SET name = 'lost' WHERE id = {here}"));
    client.simple("SAVEPOINT s");
    terminate_all();
    let read = format!("SELECT name FROM users WHERE id = {here}");
    assert_eq!(client.run(&read).sqlstate(), Some("08006"));
    // Going on would commit a transaction without its first write.
    assert_eq!(client.run("ROLLBACK TO s").sqlstate(), Some("08006"));
    assert_eq!(client.run(&read).sqlstate(), Some("25P02"));
    client.simple("COMMIT");
    assert_eq!(client.status, b'I');
    client.simple("BEGIN; SAVEPOINT s; ROLLBACK TO s; COMMIT");
    assert_ne!(client.run(&read).value(), "lost");
}

#[test]
fn modes_said_within_a_query_string_or_later_hold() {
    let (here, _) = users();
    let rename = format!("UPDATE users SET name = 'forbidden' WHERE id = {here}");
    same(vec![
        query("BEGIN ISOLATION LEVEL REPEATABLE READ; SHOW transaction_isolation"),
        query("COMMIT"),
        query(&format!("BEGIN READ ONLY; {rename}; COMMIT")),
        query("ROLLBACK"),
        query("SELECT 1; BEGIN READ ONLY; SHOW transaction_read_only"),
        query("ROLLBACK"),
        query("BEGIN"),
        query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
        query("COMMIT AND CHAIN"),
        query("SHOW transaction_isolation"),
        query("ROLLBACK"),
    ]);
}

#[test]
fn in_session_mode_blocks_and_settings_are_as_on_one_server() {
    let _turn = turn();
    let (here, there) = users();
    let router = bed().another_router("pool_mode = \"session\"", &|node| node.port());
    let mut client = Client::connect(&switchyard_tests::Login::new(router.port()));
    let read = |user| format!("SELECT id FROM users WHERE id = {user}");
    for sql in [
        &*read(here),
        &*read(there),
        "BEGIN",
        "SAVEPOINT a",
        &*read(there),
        "SAVEPOINT b",
    ] {
        client.run(sql).succeeded();
    }
    assert_eq!(client.run("SELECT 1 / 0").sqlstate(), Some("22012"));
    for sql in [read(here), read(there)] {
        assert_eq!(client.run(&sql).sqlstate(), Some("25P02"));
    }
    for sql in [
        "ROLLBACK TO a",
        &*read(here),
        "RELEASE a",
        "COMMIT",
        "SET work_mem = '6MB'",
    ] {
        client.run(sql).succeeded();
    }
    for user in [here, there] {
        let sql = format!("SELECT current_setting('work_mem') FROM users WHERE id = {user}");
        assert_eq!(client.run(&sql).value(), "6MB");
    }
    client.run("CREATE TEMP TABLE passing (a int)").succeeded();
    client.run("DISCARD ALL").succeeded();
    assert_eq!(client.run("SHOW work_mem").value(), "4MB");
    assert_eq!(
        client.run("SELECT * FROM passing").sqlstate(),
        Some("42P01")
    );
}
