//! The state of a session, compared with one PostgreSQL: clients take turns on one pooled connection, and each must find
//! its own settings and nothing of the others'.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::dialogue::{Batch, query, run, step};
use switchyard_tests::{Bed, BedSpec, Client, Login};

static BED: OnceLock<Bed> = OnceLock::new();

/// Two primaries, and one connection for all clients.
fn bed() -> &'static Bed {
    BED.get_or_init(|| {
        let cluster = ClusterSpec::for_tests(2, 0).with_oracle();
        Bed::start(BedSpec::of(cluster).with_router("pool_size = 1"))
    })
}

/// One test at a time, for the sake of the one connection.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A user on the first shard, and one on the second.
const HERE: &str = "3";
const THERE: &str = "1";

/// The startup parameters of a client.
type Startup<'a> = &'a [(&'a str, &'a str)];

const PLAIN: Startup<'static> = &[];

fn connect(port: u16, startup: Startup<'_>) -> Client {
    let login = startup
        .iter()
        .fold(Login::new(port), |login, (name, value)| {
            login.with(name, value)
        });
    Client::connect(&login)
}

/// Clients with these startup parameters take turns, on the oracle and through the router; what comes back must be the
/// same, step by step.
#[track_caller]
fn same(clients: &[Startup<'_>], steps: Vec<(usize, Batch)>) {
    let _turn = turn();
    let oracle_port = bed().cluster().oracle().unwrap().port();
    let router_port = bed().router().port();
    let all = |port| -> Vec<Client> {
        clients
            .iter()
            .map(|startup| connect(port, startup))
            .collect()
    };
    let (mut oracle, mut router) = (all(oracle_port), all(router_port));
    for (number, (client, batch)) in steps.iter().enumerate() {
        let expected = step(&mut oracle[*client], batch, b'Z');
        assert_eq!(
            expected,
            step(&mut router[*client], batch, b'Z'),
            "step {number}, client {client}; oracle on the left, router on the right"
        );
    }
}

/// Tests that define things of the same names come one after the other; a turn is but for a part of a test.
fn definitions() -> MutexGuard<'static, ()> {
    static DEFINITIONS: Mutex<()> = Mutex::new(());
    DEFINITIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs these on the oracle and through the router.
#[track_caller]
fn both(statements: &[&str]) {
    let _turn = turn();
    for mut client in [bed().oracle(), bed().client()] {
        for sql in statements {
            client.run(sql).succeeded();
        }
    }
}

/// Queries of the clients, by number.
#[track_caller]
fn same_queries(clients: &[Startup<'_>], steps: &[(usize, &str)]) {
    let steps = steps.iter().map(|(client, sql)| (*client, query(sql)));
    same(clients, steps.collect());
}

#[test]
fn reset_goes_back_to_what_the_client_started_with() {
    let startup: Startup<'_> = &[
        ("application_name", "mine"),
        ("TimeZone", "Asia/Seoul"),
        ("options", "-c work_mem=7MB -c search_path=nowhere,public"),
    ];
    same_queries(
        &[startup, PLAIN],
        &[
            (0, "SET work_mem = '5MB'"),
            (0, "SET application_name = 'other'"),
            (1, "SHOW work_mem"),
            (0, "RESET work_mem"),
            (0, "SHOW work_mem"),
            (1, "SHOW work_mem"),
            (0, "RESET application_name"),
            (0, "SHOW application_name"),
            (0, "SET TIME ZONE 'UTC'"),
            (0, "SET TIME ZONE LOCAL"),
            (0, "SHOW timezone"),
            (0, "SET TimeZone = 'UTC'"),
            (0, "SET TIME ZONE DEFAULT"),
            (0, "SHOW timezone"),
            (0, "SET TimeZone = 'UTC'"),
            (0, "SET TimeZone TO DEFAULT"),
            (0, "SHOW timezone"),
            (0, "SET search_path = pg_catalog"),
            (0, "RESET search_path"),
            (0, "SHOW search_path"),
            (0, "SET datestyle = 'SQL, DMY'"),
            (0, "SET TimeZone = 'UTC'"),
            (0, "RESET ALL"),
            (0, "SHOW timezone"),
            (0, "SHOW work_mem"),
            (0, "SHOW datestyle"),
            (1, "SHOW timezone"),
            (0, "SET TimeZone = 'UTC'"),
            (0, "SET work_mem = '5MB'"),
            (0, "DISCARD ALL"),
            (0, "SHOW timezone"),
            (0, "SHOW work_mem"),
            (0, "SHOW search_path"),
            (1, "SHOW search_path"),
        ],
    );
}

#[test]
fn reset_in_a_block_ends_with_the_block() {
    let startup: Startup<'_> = &[("TimeZone", "Asia/Seoul"), ("options", "-c work_mem=7MB")];
    let (here, there) = (
        format!(
            "SELECT current_setting('TimeZone'), current_setting('work_mem') FROM users WHERE id = {HERE}"
        ),
        format!(
            "SELECT current_setting('TimeZone'), current_setting('work_mem') FROM users WHERE id = {THERE}"
        ),
    );
    same_queries(
        &[startup, PLAIN],
        &[
            (0, "SET TimeZone = 'UTC'"),
            (0, "BEGIN"),
            (0, "RESET TimeZone"),
            (0, "SET work_mem = '9MB'"),
            (0, &here),
            (0, &there),
            (0, "ROLLBACK"),
            (1, &here),
            (0, &here),
            (0, &there),
            (0, "BEGIN"),
            (0, "SET LOCAL TimeZone TO DEFAULT"),
            (0, &there),
            (0, &here),
            (0, "COMMIT"),
            (0, &here),
            (0, "BEGIN"),
            (0, "SET LOCAL work_mem = '8MB'"),
            (0, "RESET ALL"),
            (0, &here),
            (0, &there),
            (0, "COMMIT"),
            (1, &here),
            (0, &here),
            (0, &there),
        ],
    );
}

#[test]
fn the_client_hears_of_reported_settings_that_change() {
    let startup: Startup<'_> = &[("TimeZone", "Asia/Seoul")];
    let here = format!("SELECT id FROM users WHERE id = {HERE}");
    let there = format!("SELECT id FROM users WHERE id = {THERE}");
    same_queries(
        &[startup, PLAIN],
        &[
            (0, "SET TimeZone = 'UTC'"),
            (0, "SET TimeZone = 'UTC'"),
            (0, "BEGIN"),
            (0, "SET LOCAL TimeZone = 'Europe/Paris'"),
            (0, &here),
            (0, &there),
            (0, "COMMIT"),
            (1, &here),
            (0, "BEGIN"),
            (0, &here),
            (0, "SAVEPOINT s"),
            (0, "SET TimeZone = 'Europe/Paris'"),
            (0, "SET application_name = 'new'"),
            (0, &there),
            (0, "ROLLBACK TO SAVEPOINT s"),
            (0, &there),
            (0, &here),
            (0, "SET TimeZone = 'Europe/Rome'"),
            (0, &there),
            (0, "ROLLBACK"),
            (0, "SHOW TimeZone"),
            (0, "BEGIN; SET TimeZone = 'Europe/Rome'; COMMIT"),
            (0, "SET LOCAL TimeZone = 'UTC'"),
            (0, "SHOW TimeZone"),
            (0, "BEGIN"),
            (0, "SET TimeZone = 'Europe/Paris'"),
            (0, "SELECT 1 / 0"),
            (0, "COMMIT"),
            (1, "SHOW TimeZone"),
            (0, "SHOW TimeZone"),
            (0, "BEGIN"),
            (0, "SET TimeZone = 'Europe/Paris'"),
            (0, "ROLLBACK AND CHAIN"),
            (0, "SHOW TimeZone"),
            (0, "COMMIT"),
            (0, "DISCARD ALL"),
            (0, "SHOW TimeZone"),
        ],
    );
}

#[test]
fn settings_by_the_extended_protocol_are_the_same() {
    let startup: Startup<'_> = &[("TimeZone", "Asia/Seoul"), ("options", "-c work_mem=7MB")];
    let set = |sql: &str| run(sql, &[]).sync();
    same(
        &[startup, PLAIN],
        vec![
            (0, set("SET TimeZone = 'UTC'")),
            (1, set("SHOW TimeZone")),
            (0, set("SHOW TimeZone")),
            (0, set("RESET TimeZone")),
            (0, set("SET work_mem = '5MB'")),
            (0, set("RESET ALL")),
            (0, set("SHOW work_mem")),
            (0, set("BEGIN")),
            (0, set("SET LOCAL TimeZone = 'UTC'")),
            (0, set("SHOW TimeZone")),
            (0, set("COMMIT")),
            (0, set("SHOW TimeZone")),
            (0, set("SET TimeZone = 'UTC'")),
            (0, set("DISCARD ALL")),
            (0, set("SHOW TimeZone")),
            (
                0,
                run("SET TimeZone = 'UTC'", &[])
                    .parse("", "SELECT 1 / 0")
                    .bind("", "", &[])
                    .execute("", 0)
                    .sync(),
            ),
            (0, set("SHOW TimeZone")),
        ],
    );
}

/// What a setting is on the shard of a user.
fn at(user: &str, setting: &str) -> String {
    format!("SELECT current_setting('{setting}', true) FROM users WHERE id = {user}")
}

#[test]
fn set_config_is_set() {
    let startup: Startup<'_> = &[("options", "-c work_mem=7MB")];
    let (here, there) = (at(HERE, "work_mem"), at(THERE, "work_mem"));
    let own = at(THERE, "app.user");
    same_queries(
        &[startup, PLAIN],
        &[
            (0, "SELECT set_config('work_mem', '5MB', false)"),
            (1, &here),
            (0, &here),
            (0, &there),
            (
                0,
                "SELECT set_config('WORK_MEM', '6' || 'MB', false) AS m, 1",
            ),
            (1, &here),
            (0, &there),
            (1, "SELECT set_config('work_mem', '8MB', false)"),
            (1, "SELECT set_config('work_mem', NULL, false)"),
            (1, &there),
            (0, &there),
            (
                0,
                "SELECT CASE WHEN 1 = 2 THEN set_config('work_mem', '9MB', false) END",
            ),
            (0, &there),
            (
                0,
                "SELECT set_config('TimeZone', 'UTC', false), set_config('app.user', 'it''s', false)",
            ),
            (0, "SHOW TimeZone"),
            (0, &own),
            (0, "SELECT set_config('work_mem', 'nonsense', false)"),
            (0, &there),
            (0, "SELECT set_config('work_mem', '5MB', true)"),
            (0, &there),
            (0, "BEGIN"),
            (0, "SELECT set_config('work_mem', '5MB', true)"),
            (0, &here),
            (0, &there),
            (0, "SELECT set_config('app.user', 'me', false)"),
            (0, &own),
            (0, "SAVEPOINT s"),
            (0, "SELECT set_config('work_mem', '6MB', true)"),
            (0, &here),
            (0, "ROLLBACK TO s"),
            (0, &here),
            (0, &there),
            (0, "COMMIT"),
            (0, &here),
            (0, &there),
            (0, &own),
            (0, "BEGIN"),
            (0, "SELECT set_config('work_mem', '5MB', false)"),
            (0, "ROLLBACK"),
            (0, &there),
            (0, "DISCARD ALL"),
            (0, &there),
        ],
    );
}

#[test]
fn set_config_goes_before_a_write_on_any_shard() {
    let rename = format!(
        "UPDATE users SET name = current_setting('app.user') WHERE id = {THERE} RETURNING name"
    );
    same_queries(
        &[PLAIN],
        &[
            (0, "BEGIN"),
            (0, "SELECT set_config('app.user', 'me', true)"),
            (0, &rename),
            (0, "COMMIT"),
        ],
    );
}

#[test]
fn set_config_takes_its_arguments_from_parameters() {
    let by = |sql: &str, values: &[&str]| run(sql, values).sync();
    let there = || query(&at(THERE, "work_mem"));
    let fails = run("SELECT set_config('work_mem', $1, false)", &["8MB"])
        .parse("", "SELECT 1 / 0")
        .bind("", "", &[])
        .execute("", 0)
        .sync();
    same(
        &[PLAIN, PLAIN],
        vec![
            (0, by("SELECT set_config('work_mem', $1, false)", &["9MB"])),
            (1, query("SHOW work_mem")),
            (0, there()),
            (
                0,
                by(
                    "SELECT set_config($1, $2::text, $3)",
                    &["work_mem", "10MB", "off"],
                ),
            ),
            (0, there()),
            (
                0,
                by("SELECT set_config($1, $2, true)", &["work_mem", "11MB"]),
            ),
            (0, there()),
            (0, fails),
            (0, there()),
            (0, query("BEGIN")),
            (
                0,
                by("SELECT set_config($1, $2, true)", &["work_mem", "11MB"]),
            ),
            (0, there()),
            (0, query("COMMIT")),
            (0, there()),
            (
                0,
                query("PREPARE s AS SELECT set_config('work_mem', $1, $2)"),
            ),
            (0, query("EXECUTE s ('12MB', false)")),
            (1, query("SHOW work_mem")),
            (0, there()),
        ],
    );
}

#[test]
fn set_config_decides_what_names_mean() {
    both(&[
        "CREATE SCHEMA named",
        "CREATE TABLE named.users (alone text)",
        "INSERT INTO named.users VALUES ('here')",
    ]);
    same(
        &[PLAIN, PLAIN],
        vec![
            (
                0,
                run("SELECT set_config('search_path', $1, false)", &["named"]).sync(),
            ),
            (0, query("SELECT * FROM users")),
            (1, query("SELECT * FROM users WHERE id = 3")),
            (0, query("SELECT * FROM users")),
            (0, query("RESET search_path")),
            (0, query("SELECT * FROM users WHERE id = 3")),
            (0, query("BEGIN")),
            (0, query("SELECT set_config('search_path', 'named', true)")),
            (0, query("SELECT * FROM users")),
            (0, query("COMMIT")),
            (0, query("SELECT * FROM users WHERE id = 3")),
        ],
    );
    both(&["DROP SCHEMA named CASCADE"]);
}

/// A literal is read when its statement is parsed, by the settings of whoever has it parsed.
#[test]
fn literals_are_read_by_the_settings_of_their_client() {
    let american: Startup<'_> = &[("DateStyle", "ISO, MDY"), ("TimeZone", "Asia/Seoul")];
    let british: Startup<'_> = &[("DateStyle", "ISO, DMY"), ("TimeZone", "Europe/London")];
    let texts = [
        "SELECT date '01/02/2026' FROM users WHERE id = 1",
        "SELECT '01/02/2026'::date",
        "SELECT timestamptz '2026-02-01 12:00' = timestamptz '2026-02-01 12:00+09'",
        "SELECT count(*) FROM users WHERE date '01/02/2026' = date '2026-01-02'",
    ];
    let mut steps = Vec::new();
    for text in texts {
        for round in 0..2 {
            for client in 0..2 {
                steps.push((client, run(text, &[]).sync()));
                let name = format!("s{round}");
                let named = Batch::default().parse(&name, text).bind("", &name, &[]);
                let closed = named.execute("", 0).close_statement(&name).sync();
                steps.push((client, closed));
            }
        }
        steps.push((0, query("SET DateStyle = 'ISO, DMY'")));
        steps.push((0, run(text, &[]).sync()));
        steps.push((0, query("RESET DateStyle")));
    }
    same(&[american, british], steps);
}

/// Words for the time are read when a statement is parsed, too, which is each client's own moment.
#[test]
fn a_time_in_words_is_of_its_own_moment() {
    let _turn = turn();
    let mut clients = [bed().client(), bed().client()];
    for sql in [
        "SELECT timestamptz 'now'",
        "SELECT $$ Now $$::timestamptz FROM users WHERE id = 1",
    ] {
        let mut times = Vec::new();
        for turn in 0..6 {
            let client = &mut clients[turn % 2];
            times.push(client.extended(sql, &[], 0).succeeded().value());
            let named = Batch::default().parse("mine", sql).bind("", "mine", &[]);
            let named = named.execute("", 0).close_statement("mine").sync();
            times.push(step(client, &named, b'Z').swap_remove(2));
            let prepared = client.simple(&format!("PREPARE mine AS {sql}; EXECUTE mine"));
            times.push(prepared[1].clone().succeeded().value());
            client.run("DEALLOCATE mine").succeeded();
        }
        let all = times.len();
        times.sort();
        times.dedup();
        assert_eq!(times.len(), all, "{sql}");
    }
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let _turn = turn();
    let mut client = bed().client();
    for sql in [
        "SELECT set_config(name, setting, false) FROM pg_settings WHERE name LIKE 'work%'",
        "SELECT set_config('standard_conforming_strings', 'off', false)",
        "SELECT set_config('work_mem', '5MB', false) FROM users",
        "DECLARE c CURSOR WITH HOLD FOR SELECT set_config('work_mem', '5MB', false)",
    ] {
        assert_eq!(client.run(sql).sqlstate(), Some("0A000"), "{sql}");
    }
    assert_eq!(client.run("SHOW work_mem").value(), "4MB");
    let mut client = connect(bed().router().port(), &[("options", "-c work_mem=7MB")]);
    let to_default = client.run("SELECT set_config('work_mem', NULL, false)");
    assert_eq!(to_default.sqlstate(), Some("0A000"));
}

const NUMBERED: [&str; 7] = [
    "CREATE SEQUENCE tickets",
    "CREATE TABLE numbered (id serial, said text)",
    "CREATE TABLE counted (id int GENERATED ALWAYS AS IDENTITY, said text)",
    "CREATE TABLE silent (said text)",
    "CREATE FUNCTION next_ticket() RETURNS int LANGUAGE sql VOLATILE AS $$ SELECT nextval('tickets')::int $$",
    "CREATE SCHEMA elsewhere",
    "CREATE SEQUENCE elsewhere.tickets",
];

const NOT_NUMBERED: [&str; 4] = [
    "DROP TABLE numbered, counted, silent",
    "DROP FUNCTION next_ticket",
    "DROP SEQUENCE tickets",
    "DROP SCHEMA elsewhere CASCADE",
];

const TICKET: &str = "SELECT currval('tickets')";
const LAST: &str = "SELECT lastval()";
const NUMBER: &str = "INSERT INTO numbered (said) VALUES ('a')";

#[test]
fn values_of_sequences_are_the_clients_own() {
    let _definitions = definitions();
    both(&NUMBERED);
    same_queries(
        &[PLAIN, PLAIN, PLAIN],
        &[
            // Those who have used none get PostgreSQL's own error, whoever used the connection before.
            (0, TICKET),
            (0, "SELECT nextval('tickets')"),
            (1, TICKET),
            (1, LAST),
            (1, "BEGIN"),
            (1, TICKET),
            (1, "ROLLBACK"),
            // In a block they are the block's own.
            (1, "BEGIN"),
            (1, NUMBER),
            (1, LAST),
            (1, "SELECT currval('numbered_id_seq')"),
            (1, TICKET),
            (1, "ROLLBACK"),
            (2, "BEGIN"),
            (2, "INSERT INTO silent VALUES ('b')"),
            (2, "SAVEPOINT s"),
            (2, LAST),
            (2, "ROLLBACK TO s"),
            (2, "INSERT INTO counted (said) VALUES ('c')"),
            (2, LAST),
            (2, "SELECT currval(pg_get_serial_sequence('counted', 'id'))"),
            (2, "SELECT next_ticket(), lastval()"),
            (2, "SELECT setval('tickets', 100)"),
            (2, TICKET),
            (2, "DISCARD SEQUENCES"),
            (2, LAST),
            (2, "ROLLBACK"),
            (0, "SELECT nextval('tickets') = currval('tickets')"),
            (
                0,
                "INSERT INTO numbered (said) VALUES ('d') RETURNING id = lastval()",
            ),
            (
                0,
                "BEGIN; INSERT INTO numbered (said) VALUES ('e'); SELECT lastval(); COMMIT",
            ),
            (
                0,
                "INSERT INTO numbered (said) VALUES ('f'); SELECT lastval()",
            ),
            (1, "SELECT nextval('tickets')"),
            (0, "DISCARD ALL"),
            (0, TICKET),
        ],
    );
    both(&NOT_NUMBERED);
}

#[test]
fn values_of_sequences_by_the_extended_protocol_are_too() {
    let _definitions = definitions();
    both(&NUMBERED);
    let by = |sql: &str| run(sql, &[]).sync();
    same(
        &[PLAIN, PLAIN],
        vec![
            (1, by("SELECT nextval('tickets')")),
            (0, by(LAST)),
            (0, by("BEGIN")),
            (0, by(NUMBER)),
            (0, by(LAST)),
            (0, by(TICKET)),
            (0, by("ROLLBACK")),
            (1, by("SELECT nextval('tickets')")),
            (0, query("BEGIN")),
            (
                0,
                run(NUMBER, &[])
                    .parse("", LAST)
                    .bind("", "", &[])
                    .execute("", 0)
                    .sync(),
            ),
            (0, query("ROLLBACK")),
        ],
    );
    both(&NOT_NUMBERED);
}

const BOTH_NUMBERS: &str = "SELECT currval('numbered_id_seq'), lastval()";

/// Statements of three clients, one after the other.
const OUTLIVING: &[(usize, &str)] = &[
    (0, "SELECT nextval('tickets')"),
    (1, "SELECT nextval('tickets')"),
    (0, TICKET),
    (0, LAST),
    (1, TICKET),
    (1, LAST),
    (0, NUMBER),
    (0, LAST),
    (0, TICKET),
    (
        0,
        "SELECT currval('numbered_id_seq') AS mine, 1 + currval('public.tickets'::regclass)",
    ),
    (2, TICKET),
    (2, LAST),
    // What the block has taken itself, and what was there before.
    (0, "BEGIN"),
    (0, TICKET),
    (0, NUMBER),
    (0, LAST),
    (0, TICKET),
    (0, BOTH_NUMBERS),
    (0, "COMMIT"),
    (0, BOTH_NUMBERS),
    (1, "BEGIN"),
    (1, "SELECT nextval('tickets')"),
    (1, "ROLLBACK"),
    (1, TICKET),
    // setval() is the session's own, too.
    (0, "SELECT setval('numbered_id_seq', 500)"),
    (0, LAST),
    (1, NUMBER),
    (0, BOTH_NUMBERS),
    (1, BOTH_NUMBERS),
    (0, "SELECT setval('tickets', 7, false)"),
    (0, TICKET),
    (2, "SELECT setval('tickets', 70)"),
    (2, TICKET),
    (2, LAST),
    // A statement that fails has taken its value nevertheless.
    (2, "INSERT INTO counted (id) VALUES (1)"),
    (2, "INSERT INTO numbered (said) SELECT (1 / 0)::text"),
    (2, "SELECT 1 / (nextval('tickets') * 0)"),
    (2, TICKET),
    (2, "SELECT currval('nowhere')"),
    (
        2,
        "INSERT INTO silent VALUES (currval('tickets') || 'x') RETURNING said",
    ),
    (
        2,
        "SELECT currval('tickets') FROM silent WHERE said = currval('tickets') || 'x'",
    ),
    (2, "UPDATE silent SET said = lastval() RETURNING said"),
    (
        2,
        "INSERT INTO counted (said) VALUES (lastval()) RETURNING said, id = lastval()",
    ),
    (0, "DISCARD SEQUENCES"),
    (0, TICKET),
    (0, LAST),
    (1, TICKET),
    (1, "DISCARD ALL"),
    (1, TICKET),
];

/// Whichever connection is lent for the next transaction.
#[test]
fn values_of_sequences_outlive_their_transaction() {
    let _definitions = definitions();
    both(&NUMBERED);
    let steps = OUTLIVING;
    same_queries(&[PLAIN, PLAIN, PLAIN], steps);
    both(&[
        "TRUNCATE numbered, counted, silent RESTART IDENTITY",
        "SELECT setval('tickets', 1000)",
    ]);
    let by = |sql: &str| run(sql, &[]).sync();
    let steps = steps.iter().map(|(client, sql)| (*client, by(sql)));
    let given = run("SELECT currval($1), $2", &["tickets", "x"]).sync();
    let steps = steps.chain([(2, given)]);
    same(&[PLAIN, PLAIN, PLAIN], steps.collect());
    both(&NOT_NUMBERED);
}

#[test]
fn values_that_unseen_code_takes_are_refused_outside_their_transaction() {
    let _definitions = definitions();
    both(&NUMBERED);
    {
        let _turn = turn();
        let mut client = bed().client();
        let refused = |client: &mut Client, sql: &str| {
            assert_eq!(client.run(sql).sqlstate(), Some("0A000"), "{sql}");
            assert_eq!(
                client.extended(sql, &[], 0).sqlstate(),
                Some("0A000"),
                "{sql}"
            );
        };
        client.run("SELECT next_ticket()").succeeded();
        refused(&mut client, TICKET);
        refused(&mut client, LAST);
        client.run("DISCARD SEQUENCES").succeeded();
        assert_eq!(client.run(LAST).sqlstate(), Some("55000"));
        client.run("SELECT nextval('tickets')").succeeded();
        client.run(LAST).succeeded();
        refused(&mut client, "EXPLAIN SELECT currval('tickets')");
        refused(&mut client, "SELECT setseed(0.5)");
        // By the names that were used nobody can be asked for the values once they may mean other sequences.
        let (ticket, rename) = ("SELECT currval('public.tickets')", "RENAME TO");
        for (change, back) in [
            ("SET search_path TO elsewhere", "RESET search_path"),
            (
                &*format!("ALTER SEQUENCE tickets {rename} sold; CREATE SEQUENCE tickets"),
                &*format!("DROP SEQUENCE tickets; ALTER SEQUENCE sold {rename} tickets"),
            ),
        ] {
            client.run("DISCARD SEQUENCES").succeeded();
            client.run("SELECT nextval('tickets')").succeeded();
            client.run(ticket).succeeded();
            for sql in ["BEGIN", "SELECT nextval('tickets')", change, "COMMIT", back] {
                let replies = client.simple(sql);
                replies
                    .into_iter()
                    .for_each(|reply| drop(reply.succeeded()));
            }
            refused(&mut client, ticket);
        }
        client.run("DISCARD SEQUENCES").succeeded();
        let prepare = format!("PREPARE latest AS {TICKET}");
        client.run(&prepare).succeeded();
        let value = client.run("SELECT nextval('tickets')").value();
        assert_eq!(client.run("EXECUTE latest").value(), value);
        client.run("BEGIN").succeeded();
        let value = client.run("SELECT nextval('tickets')").value();
        assert_eq!(client.run("EXECUTE latest").value(), value);
        client.run("ROLLBACK").succeeded();
    }
    both(&NOT_NUMBERED);
}

#[test]
fn in_session_mode_values_of_sequences_stay() {
    let _turn = turn();
    let router = bed().another_router("pool_mode = \"session\"", &|node| node.port());
    let login = Login::new(router.port());
    let mut client = Client::connect(&login);
    client.run("CREATE SEQUENCE kept").succeeded();
    let value = client.run("SELECT nextval('kept')").value();
    assert_eq!(client.run("SELECT currval('kept')").value(), value);
    assert_eq!(client.extended("SELECT lastval()", &[], 0).value(), value);
    client.run("SELECT setseed(0.5)").succeeded();
    let first = client.run("SELECT random()").value();
    client.run("SELECT setseed(0.5)").succeeded();
    assert_eq!(client.run("SELECT random()").value(), first);
    client.run("DROP SEQUENCE kept").succeeded();
}

#[test]
fn a_seed_ends_with_its_block() {
    let pid = "SELECT pg_backend_pid()";
    let seeded = |client: &mut Client| {
        client.run("BEGIN").succeeded();
        client.run("SELECT setseed(0.25)").succeeded();
        let value = client.run("SELECT random()").value();
        client.run("COMMIT").succeeded();
        value
    };
    let _turn = turn();
    let (mut oracle, mut router) = (bed().oracle(), bed().client());
    let before = router.run(pid).value();
    assert_eq!(seeded(&mut router), seeded(&mut oracle));
    // The connection is not lent again.
    assert_ne!(router.run(pid).value(), before);
}

const SETTERS: [&str; 8] = [
    "CREATE FUNCTION set_memory(v text) RETURNS void LANGUAGE plpgsql AS \
     $$ BEGIN PERFORM set_config('work_mem', v, false); END $$",
    "CREATE FUNCTION outer_setter(v text) RETURNS int LANGUAGE plpgsql AS \
     $$ BEGIN PERFORM set_memory(v); SET LOCAL app.local = 'x'; RETURN 1; END $$",
    "CREATE FUNCTION set_tenant(v text) RETURNS void LANGUAGE sql AS \
     $$ SELECT set_config('app.tenant', v, false) $$",
    "CREATE PROCEDURE set_by_call() LANGUAGE plpgsql AS $$ BEGIN SET work_mem = '11MB'; COMMIT; END $$",
    "CREATE FUNCTION set_anything(n text, v text) RETURNS void LANGUAGE plpgsql AS \
     $$ BEGIN PERFORM set_config(n, v, false); END $$",
    "CREATE FUNCTION set_on_write() RETURNS trigger LANGUAGE plpgsql AS \
     $$ BEGIN SET app.written = 'yes'; RETURN NEW; END $$",
    "CREATE TABLE watched (a int)",
    "CREATE TRIGGER watch BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION set_on_write()",
];

const NO_SETTERS: [&str; 2] = [
    "DROP TABLE watched",
    "DROP ROUTINE set_memory, outer_setter, set_tenant, set_by_call, set_anything, set_on_write",
];

#[test]
fn settings_made_by_code_are_the_clients() {
    let _definitions = definitions();
    both(&SETTERS);
    let (here, there) = (at(HERE, "work_mem"), at(THERE, "work_mem"));
    let (local, tenant) = (at(THERE, "app.local"), at(THERE, "app.tenant"));
    let written = at(THERE, "app.written");
    same_queries(
        &[PLAIN, PLAIN],
        &[
            (0, "SELECT set_memory('5MB')"),
            (1, "SHOW work_mem"),
            (0, &there),
            (0, &here),
            (0, "SELECT set_memory('4MB')"),
            (0, &there),
            (0, "SELECT set_tenant('me')"),
            (1, &here),
            (0, &tenant),
            (0, "CALL set_by_call()"),
            (1, "SHOW work_mem"),
            (0, &there),
            (0, "DO $$ BEGIN SET work_mem = '12MB'; END $$"),
            (1, "SHOW work_mem"),
            (0, &there),
            (0, "BEGIN"),
            (0, &there),
            (0, "SELECT outer_setter('13MB')"),
            (0, &there),
            (0, &local),
            (0, "SAVEPOINT s"),
            (0, "SELECT set_memory('14MB')"),
            (0, &there),
            (0, "ROLLBACK TO s"),
            (0, &there),
            (0, "COMMIT"),
            (1, &here),
            (0, &there),
            (0, "SELECT set_memory('15MB'), 1 / 0"),
            (0, &there),
            (0, "BEGIN"),
            (0, "SELECT set_memory('16MB')"),
            (0, "ROLLBACK"),
            (0, &here),
            (0, &there),
            (0, "INSERT INTO watched VALUES (1)"),
            (0, &written),
            (0, "DISCARD ALL"),
            (0, &there),
        ],
    );
    let by = |sql: &str, values: &[&str]| run(sql, values).sync();
    same(
        &[PLAIN, PLAIN],
        vec![
            (0, by("SELECT set_memory($1)", &["5MB"])),
            (1, by("SHOW work_mem", &[])),
            (0, by(&there, &[])),
            (0, by("CALL set_by_call()", &[])),
            (0, by("SHOW work_mem", &[])),
            (0, by("DISCARD ALL", &[])),
            (1, by("SHOW work_mem", &[])),
        ],
    );
    both(&NO_SETTERS);
}

#[test]
fn a_setting_that_nobody_knows_holds_where_it_was_made_or_is_refused() {
    let _definitions = definitions();
    both(&SETTERS);
    {
        let _turn = turn();
        let mut client = bed().client();
        client
            .run("/* switchyard: shard=s0 */ SELECT set_anything('work_mem', '5MB')")
            .succeeded();
        assert_eq!(client.run("SHOW work_mem").value(), "5MB");
        assert_eq!(client.run(&at(HERE, "work_mem")).value(), "5MB");
        assert_eq!(client.run(&at(THERE, "work_mem")).sqlstate(), Some("0A000"));
        client.run("DISCARD ALL").succeeded();
        assert_eq!(client.run(&at(THERE, "work_mem")).value(), "4MB");
        assert_eq!(bed().client().run("SHOW work_mem").value(), "4MB");
    }
    both(&NO_SETTERS);
}

#[test]
fn what_has_no_effect_outside_a_block_is_warned_of() {
    let by = |sql: &str| run(sql, &[]).sync();
    let local = "SET LOCAL work_mem = '5MB'";
    let serializable = "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE";
    same(
        &[PLAIN],
        vec![
            (0, query(local)),
            (0, query(serializable)),
            (0, by(local)),
            (0, by("SET LOCAL work_mem = 'nonsense'")),
            (0, by(serializable)),
            // Behind what has an effect, in the same batch.
            (
                0,
                run("SET application_name = 'x'", &[])
                    .parse("", local)
                    .bind("", "", &[])
                    .execute("", 0)
                    .parse("", serializable)
                    .bind("", "", &[])
                    .execute("", 0)
                    .sync(),
            ),
            // And a parameter that it does not have.
            (0, run(local, &["7"]).sync()),
            (0, query("SHOW work_mem")),
            (0, query("SHOW transaction_isolation")),
            (0, query("BEGIN")),
            (0, by(local)),
            (0, query("SHOW work_mem")),
            (0, query("COMMIT")),
        ],
    );
}
