//! Rows that move while clients work: from two shards to three, back, and at every kill.

mod cut_off;
mod grow;
mod kills;
mod late;
mod load;
mod methods;
mod obstacles;
mod promotion;
mod steps;
mod straddling;

use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use load::{Over, stand, under_load};
use switchyard_tests::{Asks, Client, Login, Reshard, eventually};

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
    assert!(report.contains(" buckets and "), "{report}");
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

#[test]
fn clients_notice_nothing() {
    let stand = stand();
    let done = under_load(&stand, || {
        stand
            .run(Asks::Three, &["apply", "--yes", "--group-rows", "600"])
            .succeeded();
        stand.run(Asks::Three, &["rollback", "--yes"]).succeeded();
    });
    stand.is_clean(Asks::Three);
    done.is_there(&stand);
}

/// A superuser who looks at the shards meanwhile cannot be cancelled, and is in nobody's way: who waits for the same tables is.
#[test]
fn a_superuser_looks_at_the_shards() {
    let stand = stand();
    let over = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        for shard in 0..2 {
            let (stand, over) = (&stand, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    stand.superuser(shard, "SELECT count(*) FROM marks");
                }
            });
        }
        let _ends = Over(&over);
        under_load(&stand, || {
            let moved = stand.run(Asks::Three, &["apply", "--yes", "--group-rows", "200"]);
            assert!(
                moved.well && !moved.log.contains("cannot cancel"),
                "{moved:?}"
            );
        })
    });
    stand.is_clean(Asks::Three);
    done.is_there(&stand);
}

/// The program dies at some moment, again and again, while clients work. What it leaves prepared routers end, and it goes on where it was, or goes back.
/// `SWITCHYARD_KILLS` says how often.
#[test]
fn the_program_is_killed() {
    killed(&stand());
}

/// What all of it takes, about, in milliseconds.
const TAKES: u64 = 10_000;

fn killed(stand: &Reshard) {
    let kills: u64 = std::env::var("SWITCHYARD_KILLS").map_or(6, |kills| kills.parse().unwrap());
    let done = under_load(stand, || {
        for kill in 0..kills {
            let command = if kill % 4 == 3 { "rollback" } else { "apply" };
            let arguments = [command, "--yes", "--group-rows", "400"];
            let mut program = stand.spawn(Asks::Three, &arguments);
            let moment = Duration::from_millis(kill * 7919 % TAKES);
            let began = Instant::now();
            // It may be done before.
            while began.elapsed() < moment && program.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(20));
            }
            program.kill().unwrap();
            program.wait_with_output().unwrap();
        }
    });
    eventually("what was left is ended", || {
        stand.on_all("SELECT count(*) FROM pg_prepared_xacts") == ["0"; 3]
    });
    // It may have been on its way back: it turns round.
    stand.run(Asks::Three, &["apply", "--yes"]).succeeded();
    stand.is_clean(Asks::Three);
    let marks = stand.on_all("SELECT count(*) FROM marks");
    assert!(marks.iter().all(|count| count != "0"), "{marks:?}");
    done.is_there(stand);
}

/// Two hours from now, by UTC, and three.
fn later() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let hour = |hours| (now.as_secs() / 3600 + hours) % 24;
    format!("{:02}:00-{:02}:00", hour(2), hour(3))
}

#[test]
fn rows_move_when_they_may() {
    let stand = stand();
    let wrong = stand.run(Asks::Three, &["apply", "--yes", "--window", "8-9"]);
    assert!(!wrong.well && wrong.log.contains("such as 22:00-06:30"));
    let mut program = stand.spawn(Asks::Three, &["apply", "--yes", "--window", &later()]);
    let log = BufReader::new(program.stderr.take().unwrap());
    let held_up = |line: &String| line.contains("nothing moves for now");
    assert!(log.lines().map_while(Result::ok).any(|line| held_up(&line)));
    assert_eq!(stand.superuser(2, "SELECT count(*) FROM marks"), "0");
    // It waits, and nobody else does its work meanwhile.
    for command in [["apply", "--yes"].as_slice(), &["finish"], &["abort"]] {
        let second = stand.run(Asks::Three, command);
        let reason = "another program is moving rows of database \"shop\"";
        assert!(!second.well && second.log.contains(reason), "{second:?}");
    }
    program.kill().unwrap();
    program.wait().unwrap();
    stand
        .run(Asks::Three, &["apply", "--yes", "--max-lag", "1"])
        .succeeded();
    stand.is_clean(Asks::Three);
}

/// A column that comes while rows move goes with them.
#[test]
fn tables_are_altered_meanwhile() {
    let stand = stand();
    let mut client = stand.bed.client();
    let small = ["apply", "--yes", "--group-rows", "50"];
    let program = stand.spawn(Asks::Three, &small);
    eventually("rows move", || {
        stand.superuser(2, "SELECT to_regclass('marks') IS NOT NULL") == "t"
            && stand.superuser(2, "SELECT count(*) FROM marks") != "0"
    });
    client
        .run("ALTER TABLE marks ADD COLUMN note text")
        .succeeded();
    let noted = client
        .run("UPDATE marks SET note = 'row ' || id")
        .succeeded();
    assert_eq!(noted.tag.as_deref(), Some("UPDATE 1000"));
    let output = program.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    // It was there already when the new shard got its definitions, or the program has to be told again.
    assert!(output.status.success(), "{log}");
    stand.is_clean(Asks::Three);
    let there = "SELECT count(*) FROM marks WHERE note = 'row ' || id";
    assert_eq!(client.run(there).value(), "1000");
}

/// How many buckets a shard has rows of, and how many rows with one key.
const BUCKETS: &str = "SELECT concat(count(DISTINCT hash_record_extended(ROW(id), 6005349254376741188) & 16383), ' ', count(*) FILTER (WHERE id = 42)) FROM marks";

#[test]
fn a_key_gets_a_shard_of_its_own() {
    let stand = stand();
    let isolate = |key: &'static str, shard: &'static str| {
        [
            "isolate", "--yes", "--table", "marks", "--key", key, "--shard", shard,
        ]
    };
    let refused = |arguments: &[&str], reason: &str| {
        let outcome = stand.run(Asks::Three, arguments);
        assert!(!outcome.well && outcome.log.contains(reason), "{outcome:?}");
        stand.is_clean(Asks::Two);
    };
    refused(&isolate("x", "s2"), "\"x\" is no bigint");
    refused(&isolate("42", "s9"), "has a shard \"s9\"");
    let mut other = isolate("42", "s2");
    other[3] = "events";
    refused(
        &other,
        "give the key a shard in its ranges or lists in the file",
    );
    other[3] = "countries";
    refused(&other, "only keys of tables by hash, range and list");

    let done = under_load(&stand, || {
        stand.run(Asks::Three, &isolate("42", "s2")).succeeded();
    });
    done.is_there(&stand);
    stand.is_clean(Asks::Three);
    assert_eq!(stand.superuser(2, BUCKETS), "1 1");
    // The same again is nothing, another one has to wait.
    stand.run(Asks::Three, &isolate("42", "s2")).succeeded();
    let other = stand.run(Asks::Three, &isolate("43", "s2"));
    let reason = "has a movement that leads elsewhere";
    assert!(!other.well && other.log.contains(reason), "{other:?}");
    stand.run(Asks::Three, &["finish"]).succeeded();
    let plan = stand.run(Asks::Three, &["plan"]).succeeded();
    assert!(plan.contains("Nothing to do"), "{plan}");
    // What the shard had leaves it.
    stand.run(Asks::Three, &isolate("42", "s1")).succeeded();
    stand.is_clean(Asks::Three);
    assert_eq!(stand.superuser(1, BUCKETS), "1 1");
    assert!(stand.superuser(2, BUCKETS).ends_with(" 0"));
    stand.run(Asks::Three, &["rollback", "--yes"]).succeeded();
    assert_eq!(stand.superuser(2, BUCKETS), "1 1");
    stand.is_clean(Asks::Three);
}

/// Tickets with numbers that no sequence makes.
const TICKETS: &str = "CREATE TABLE tickets (id bigint, owner int NOT NULL);";
const TICKETS_CONFIG: &str = "
[[databases.tables]]
name = \"tickets\"
shard_key = \"owner\"
method = \"hash\"
";

/// A new shard makes numbers of its own.
#[test]
fn a_new_shard_makes_numbers() {
    let stand = Reshard::start(TICKETS, TICKETS_CONFIG);
    let mut client = stand.bed.client();
    client
        .run("SELECT create_snowflake_generator()")
        .succeeded();
    client
        .run("ALTER TABLE tickets ALTER id SET DEFAULT switchyard.gen_snowflake_id(), ADD PRIMARY KEY (id, owner)")
        .succeeded();
    let some = "INSERT INTO tickets (owner) SELECT n FROM generate_series(1, 150) AS n";
    client.run(some).succeeded();
    stand.run(Asks::Three, &["apply", "--yes"]).succeeded();
    stand.is_clean(Asks::Three);
    client.run(some).succeeded();
    let made = "SELECT count(*), count(DISTINCT id), count(DISTINCT id >> 12 & 1023) FROM tickets";
    assert_eq!(client.run(made).succeeded().texts(), [["300", "300", "3"]]);
    stand.is_clean(Asks::Three);
}

/// A trigger that fires whatever happens.
const LOUD: &str =
    "CREATE FUNCTION loud() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER loud BEFORE INSERT ON marks FOR EACH ROW EXECUTE FUNCTION loud();
    ALTER TABLE marks ENABLE ALWAYS TRIGGER loud";

/// What cannot be is refused with what to do, and nothing is left of it.
#[test]
fn what_speaks_against_it_is_said() {
    let stand = stand();
    let refused = |arguments: &[&str], reason: &str| {
        let outcome = stand.run(Asks::Three, arguments);
        assert!(!outcome.well && outcome.log.contains(reason), "{outcome:?}");
        stand.is_clean(Asks::Two);
    };
    refused(&["apply"], "nobody has said yes");
    refused(&["rollback", "--yes"], "has no movement");
    refused(&["finish"], "has no movement");
    refused(&["pause"], "has no movement");
    refused(
        &["apply", "--yes", "--database", "nosuch"],
        "has no database \"nosuch\"",
    );
    stand.superuser(2, "CREATE TABLE leftover (a int)");
    refused(
        &["apply", "--yes"],
        "its database is not empty: it has public.leftover",
    );
    stand.superuser(
        2,
        "DROP TABLE leftover; REVOKE SET ON PARAMETER session_replication_role FROM app",
    );
    refused(
        &["apply", "--yes"],
        "GRANT SET ON PARAMETER session_replication_role",
    );
    stand.superuser(0, "ALTER DATABASE shop SET switchyard.epoch = 99");
    stand.owner(1, "SELECT lo_create(0)");
    let plan = stand.run(Asks::Three, &["plan"]);
    for reason in [
        "shard \"s1\" has 1 large objects, which stay there",
        "shard \"s2\" cannot take part: the user may not set session_replication_role",
        "shard \"s0\" remembers epoch 99, and the catalog is at ",
    ] {
        assert!(!plan.well && plan.output.contains(reason), "{plan:?}");
    }
    stand.superuser(0, "ALTER DATABASE shop RESET switchyard.epoch");
    stand.superuser(2, "GRANT SET ON PARAMETER session_replication_role TO app");
    for shard in 0..2 {
        stand.owner(shard, LOUD);
    }
    refused(
        &["apply", "--yes"],
        "its trigger loud would fire for rows that move",
    );
    for shard in 0..3 {
        stand.owner(shard, "DROP TRIGGER loud ON marks");
    }
    // The third shard is one by now, without a bucket. A row that is there by mistake stands in the way of none that comes, or fails it.
    let stray = stand.superuser(0, "SELECT min(id) FROM marks");
    stand.superuser(2, &format!("INSERT INTO marks VALUES ({stray}, 7)"));
    let outcome = stand.run(Asks::Three, &["apply", "--yes"]);
    let log = &outcome.log;
    assert!(
        outcome.well || log.contains("duplicate key value violates unique constraint"),
        "{outcome:?}"
    );
    stand.superuser(
        2,
        &format!("DELETE FROM marks WHERE id = {stray} AND n = 7"),
    );
    stand.run(Asks::Three, &["apply", "--yes"]).succeeded();
    stand.is_clean(Asks::Three);
    assert_eq!(
        stand.bed.client().run("SELECT count(*) FROM marks").value(),
        "1000"
    );
    stand.run(Asks::Three, &["abort"]).succeeded();
    let status = stand.run(Asks::Three, &["status"]).succeeded();
    assert!(status.contains("nothing is moving"), "{status}");
}
