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
