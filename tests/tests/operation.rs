//! Running a router: its console, http, signals.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code fails by panicking"
)]

#[path = "operation/orders.rs"]
mod orders;
#[path = "operation/restart.rs"]
mod restart;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use switchyard_tests::cluster::{ClusterSpec, Stop};
use switchyard_tests::{Bed, BedSpec, Client, Login, Reply, Router, eventually};

const READ: &str = "SELECT name FROM users WHERE id = 1";

/// For tests that do nothing to the servers: each has a router of its own.
fn bed() -> &'static Bed {
    static BED: OnceLock<Bed> = OnceLock::new();
    BED.get_or_init(|| Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 0))))
}

fn router(lines: &str) -> Router {
    bed().another_router(lines, &|node| node.port())
}

fn client(router: &Router) -> Client {
    Client::connect(&Login::new(router.port()))
}

fn login(bed: &Bed, database: &str) -> Login {
    Login {
        database: database.to_owned(),
        ..bed.login()
    }
}

fn console(bed: &Bed) -> Client {
    bed.router().console()
}

/// The values of one column.
#[track_caller]
fn column(reply: &Reply, name: &str) -> Vec<String> {
    let columns = reply.columns.iter().flatten();
    let position = columns.clone().position(|column| column.name == name);
    let position = position.unwrap_or_else(|| panic!("no column {name} in {reply:?}"));
    reply
        .texts()
        .into_iter()
        .map(|mut row| row.swap_remove(position))
        .collect()
}

fn metric(bed: &Bed, line: &str) -> f64 {
    let (status, text) = bed.router().get("/metrics").unwrap();
    assert_eq!(status, 200);
    let value = text
        .lines()
        .find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {line} in\n{text}"))
}

/// What there is always something to show of.
const TOPICS: [&str; 7] = [
    "STATS_TOTALS",
    "TOTALS",
    "DATABASES",
    "VERSION",
    "CONFIG",
    "BUCKETS",
    "HELP",
];

/// A client is listed by the name that it has given itself since its login.
#[track_caller]
fn is_listed_by_its_name(client: &mut Client, console: &mut Client) {
    client.run("SET application_name = 'renamed'").succeeded();
    let named = "renamed".to_owned();
    eventually("it is listed by its name", || {
        let clients = console.run("SHOW CLIENTS").succeeded();
        column(&clients, "application_name").contains(&named)
    });
}

#[test]
fn the_console_shows_what_runs() {
    let bed = Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 1)));
    let mut client = bed.client();
    client.run(READ).succeeded();
    let mut console = console(&bed);
    is_listed_by_its_name(&mut client, &mut console);
    let nodes = console.run("SHOW NODES").succeeded();
    assert_eq!(column(&nodes, "shard"), ["s0", "s0", "s1", "s1"]);
    assert_eq!(
        column(&nodes, "state"),
        ["primary", "standby", "primary", "standby"]
    );
    let shards = console.run("SHOW SHARDS;").succeeded();
    let buckets: u32 = column(&shards, "buckets")
        .iter()
        .map(|count| count.parse::<u32>().unwrap())
        .sum();
    assert_eq!(buckets, 16_384);
    let tables = console.run("show tables").succeeded();
    assert!(column(&tables, "table").contains(&"orders".to_owned()));
    assert!(column(&tables, "key_type").contains(&"bigint".to_owned()));
    assert!(
        column(&console.run("SHOW POOLS").succeeded(), "database").contains(&"shop".to_owned())
    );
    let clients = console.run("SHOW CLIENTS").succeeded();
    assert!(
        column(&clients, "database").contains(&"shop".to_owned()),
        "{clients:?}"
    );
    let mut keeper = bed.client();
    keeper.run("SELECT pg_advisory_lock(4719)").succeeded();
    keeper.run("CREATE TEMP TABLE mine (id int)").succeeded();
    let clients = console.run("SHOW CLIENTS").succeeded();
    let pinned = "temporary table, advisory lock".to_owned();
    assert!(column(&clients, "pinned").contains(&pinned), "{clients:?}");
    keeper.run("DISCARD ALL").succeeded();
    let clients = console.run("SHOW CLIENTS").succeeded();
    assert!(!column(&clients, "pinned").contains(&pinned), "{clients:?}");
    let servers = console.run("SHOW SERVERS").succeeded();
    assert!(
        column(&servers, "database").contains(&"shop".to_owned()),
        "{servers:?}"
    );
    let stats = console.run("SHOW STATS").succeeded();
    let queries: u64 = column(&stats, "total_query_count")[0].parse().unwrap();
    assert!(queries >= 1, "{stats:?}");
    for topic in TOPICS {
        let shown = console.run(&format!("SHOW {topic}")).succeeded();
        assert!(!shown.rows.is_empty(), "{topic}");
    }

    assert_eq!(console.run("SELECT 1").sqlstate(), Some("42601"));
    assert_eq!(console.run("SHOW NOSUCH").sqlstate(), Some("42601"));
    assert_eq!(
        console.run("SET extra_float_digits = 3").tag.as_deref(),
        Some("SET")
    );
    assert_eq!(console.run("SHOW VERSION").succeeded().rows.len(), 1);
    assert_eq!(
        Client::connect(&login(&bed, "pgbouncer"))
            .run("SHOW HELP")
            .succeeded()
            .columns
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn the_console_speaks_the_extended_protocol() {
    let mut console = bed().router().console();
    for format in [0, 1] {
        let nodes = console.extended("SHOW NODES", &[], format).succeeded();
        assert_eq!(nodes.rows.len(), 2);
        assert_eq!(
            console.extended("SHOW NOSUCH", &[], format).sqlstate(),
            Some("42601")
        );
    }
    assert_eq!(
        console.parameter_types("SHOW POOLS").unwrap(),
        Vec::<u32>::new()
    );
}

/// The columns and rows that PgBouncer's exporter for Prometheus makes metrics of, and nothing twice: it would refuse to show any.
#[test]
fn what_pgbouncers_exporter_reads_is_there() {
    const STATS: &str = "database total_query_count total_query_time total_received total_sent total_wait_time \
                         total_xact_count total_xact_time";
    const POOLS: &str = "database user cl_active cl_active_cancel_req cl_waiting cl_waiting_cancel_req sv_active sv_active_cancel \
                         sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait";
    const DATABASES: &str = "name host port database pool_size pool_mode max_connections current_connections paused disabled";
    let bed = bed();
    let mut client = bed.client();
    for sql in ["BEGIN", "SELECT pg_sleep(0.05)", "COMMIT"] {
        client.run(sql).succeeded();
    }
    client.run("SELECT count(*) FROM users").succeeded();
    let mut console = bed.router().console();
    for (topic, wanted) in [("STATS", STATS), ("POOLS", POOLS), ("DATABASES", DATABASES)] {
        let shown = console.run(&format!("SHOW {topic};")).succeeded();
        let names = shown.columns.iter().flatten().map(|column| &*column.name);
        let names: Vec<&str> = names.collect();
        for wanted in wanted.split_whitespace() {
            assert!(
                names.contains(&wanted),
                "{topic} has no {wanted}: {names:?}"
            );
        }
    }
    let pools = console.run("SHOW POOLS").succeeded().texts();
    let of_users: std::collections::BTreeSet<_> = pools.iter().map(|row| &row[..2]).collect();
    assert_eq!(of_users.len(), pools.len(), "{pools:?}");
    let lists = column(&console.run("SHOW LISTS;").succeeded(), "list");
    for wanted in "databases users pools free_clients used_clients free_servers used_servers dns_names dns_zones dns_queries"
        .split_whitespace()
    {
        assert!(lists.contains(&wanted.to_owned()), "{lists:?}");
    }
    let config = console.run("SHOW CONFIG;").succeeded();
    assert_eq!(config.columns.as_ref().map(Vec::len), Some(4));
    let config = config.texts();
    for wanted in ["max_client_conn", "max_user_connections"] {
        let row = config.iter().find(|row| row[0] == wanted).unwrap();
        row[1].parse::<f64>().unwrap();
    }
    let stats = console.run("SHOW STATS").succeeded();
    let times = column(&stats, "total_xact_time");
    assert!(
        times
            .iter()
            .any(|time| time.parse::<u64>().unwrap() >= 40_000),
        "{stats:?}"
    );
}

#[test]
fn metrics_and_readiness_say_how_it_is() {
    let bed = Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 1)));
    let mut client = bed.client();
    for _ in 0..10 {
        client.run(READ).succeeded();
    }
    assert_eq!(bed.router().get("/healthz").unwrap().0, 200);
    assert_eq!(bed.router().get("/readyz").unwrap().0, 200);
    let (_, text) = bed.router().get("/metrics").unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let routed = |route: &str| {
        metric(
            &bed,
            &format!("switchyard_queries_total{{database=\"shop\",route=\"{route}\"}}"),
        )
    };
    assert!(routed("replica") + routed("primary") >= 10.0, "{text}");
    client.run("nonsense").failure.unwrap();
    let replica = bed.cluster().shard(0).replicas[0].as_ref();
    let up = format!(
        "switchyard_node_up{{database=\"shop\",shard=\"s0\",node=\"127.0.0.1:{}\",role=\"replica\"}}",
        replica.port()
    );
    assert!((metric(&bed, &up) - 1.0).abs() < 0.1);
    replica.stop(Stop::Fast).unwrap();
    eventually("the replica is down", || metric(&bed, &up) < 0.5);
    client.run(READ).succeeded();
}

#[test]
fn a_reload_keeps_sessions_and_refuses_nonsense() {
    let mut bed = Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 1)));
    let mut client = bed.client();
    client.run("BEGIN").succeeded();
    client.run(READ).succeeded();
    let file = bed.router().config_file();
    let good = std::fs::read_to_string(&file).unwrap();

    std::fs::write(
        &file,
        good.replace("[router]", "[router]\nread_policy = \"sometimes\""),
    )
    .unwrap();
    let mut console = console(&bed);
    let failure = console.run("RELOAD").failure.unwrap();
    assert!(
        failure.message().contains("router.read_policy"),
        "{failure:?}"
    );
    bed.router_mut().process().hang_up();
    eventually("the problem is logged", || {
        bed.router().log().matches("router.read_policy").count() >= 2
    });
    client.run(READ).succeeded();

    std::fs::write(
        &file,
        good.replace("[router]", "[router]\nread_policy = \"primary\""),
    )
    .unwrap();
    bed.router_mut().process().hang_up();
    eventually("the reload is logged", || {
        bed.router().log().contains("configuration reloaded")
    });
    client.run("COMMIT").succeeded();
    let config = console.run("SHOW CONFIG").succeeded().texts();
    assert!(
        config
            .iter()
            .any(|row| row[..2] == ["read_policy", "primary"]),
        "{config:?}"
    );

    // A replica that leaves the configuration gets no more reads.
    let replica = bed.cluster().shard(0).replicas[0].port();
    let without: String = good
        .lines()
        .filter(|line| !line.contains(&format!("port = {replica}")))
        .fold(String::new(), |text, line| text + line + "\n");
    std::fs::write(&file, without).unwrap();
    assert_eq!(
        console.run("RELOAD").succeeded().tag.as_deref(),
        Some("RELOAD")
    );
    assert_eq!(console.run("SHOW NODES").succeeded().rows.len(), 3);
    client.run(READ).succeeded();
}

#[test]
fn a_drain_lets_transactions_end() {
    const READ: &str = "SELECT name FROM users WHERE id = 9";
    let mut router = router("");
    let mut idle = client(&router);
    let mut busy = client(&router);
    busy.run("BEGIN").succeeded();
    busy.run("UPDATE users SET name = 'drained' WHERE id = 9")
        .succeeded();
    router.process().terminate();
    let goodbye = idle.receive();
    assert_eq!(goodbye.tag, b'E');
    assert!(String::from_utf8_lossy(&goodbye.body).contains("57P01"));
    assert_eq!(router.get("/readyz").map(|(status, _)| status), Some(503));
    eventually("nobody is let in", || {
        std::net::TcpStream::connect(("127.0.0.1", router.port())).is_err()
    });
    busy.run(READ).succeeded();
    busy.run("COMMIT").succeeded();
    let status = router.process().wait(Duration::from_secs(5)).unwrap();
    assert_eq!(status.and_then(|status| status.code()), Some(0));
    let shards = bed().cluster().shards().iter();
    let names: String = shards
        .map(|shard| bed().cluster().sql(shard.primary.as_ref(), READ).unwrap())
        .collect();
    assert_eq!(names.trim(), "drained");
}

#[test]
fn a_drain_is_bounded_and_a_second_signal_does_not_wait() {
    for (drain_timeout, signals, limit) in [("1s", 1, 4), ("60s", 2, 2)] {
        let mut router = router(&format!("drain_timeout = \"{drain_timeout}\""));
        let mut busy = client(&router);
        busy.run("BEGIN").succeeded();
        let began = Instant::now();
        for sent in 1..=signals {
            router.process().terminate();
            // Two signals at once would be one.
            if sent < signals {
                let is_draining = || matches!(router.get("/readyz"), Some((503, _)));
                eventually("the first signal is heeded", is_draining);
            }
        }
        let status = router.process().wait(Duration::from_secs(20)).unwrap();
        assert_eq!(status.and_then(|status| status.code()), Some(0));
        assert!(
            began.elapsed() < Duration::from_secs(limit),
            "{:?}",
            began.elapsed()
        );
    }
}

/// What a line of a JSON log says in one of its fields, here or in its span.
fn logged<'a>(line: &'a serde_json::Value, field: &str) -> &'a str {
    let places = [&line[field], &line["span"][field]];
    let found = places.into_iter().find_map(serde_json::Value::as_str);
    found.unwrap_or_default()
}

#[test]
fn at_debug_the_log_tells_who_did_what_without_constants() {
    let log_of = |sql: &str| {
        let lines = format!("[log]\nformat = \"json\"\nlevel = \"debug\"\nsql = \"{sql}\"");
        let router = router(&lines);
        let mut client = client(&router);
        client
            .run("SELECT name FROM users WHERE id = 7 AND name <> 'secret'")
            .succeeded();
        let refused = "CREATE UNIQUE INDEX ON users (email)";
        client.run(refused).failure.unwrap();
        client.terminate();
        eventually("the client has left", || {
            router.log().contains("a client has left")
        });
        router.log()
    };
    let log = log_of("redacted");
    assert!(!log.contains("secret"), "{log}");
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let said = |message: &str| {
        let mut said = lines.iter().filter(move |line| line["message"] == message);
        said.next()
            .unwrap_or_else(|| panic!("nothing like {message:?} in\n{log}"))
    };
    let statement = said("a statement arrived");
    assert_eq!(
        logged(statement, "sql"),
        "SELECT name FROM users WHERE id = ? AND name <> ?"
    );
    assert_eq!(
        (logged(statement, "user"), logged(statement, "database")),
        ("app", "shop")
    );
    assert!(logged(statement, "peer").starts_with("127.0.0.1:"));
    assert_eq!(logged(said("a statement runs"), "route"), "replica");
    assert!(["s0", "s1"].contains(&logged(said("a backend was taken"), "shard")));
    assert_eq!(logged(said("a statement failed"), "sqlstate"), "0A000");
    assert!(log_of("full").contains("name <> 'secret'"));
}
