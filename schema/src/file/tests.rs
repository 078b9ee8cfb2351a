//! The configuration every user starts from, and every way to get one wrong.
#![expect(clippy::too_many_lines, reason = "tables of cases")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::access::AuthMethod;
use crate::model::{
    Config, Consistency, Distribution, ListEntry, Literal, LiteralForm, Method, PoolMode,
    RangeEntry, ReadPolicy, Role, Secret, SslMode, TableName,
};
use crate::shard::ShardIndex;

/// The example every user starts from.
const EXAMPLE: &str = r#"
[router]
listen      = "127.0.0.1:6432"     # PostgreSQL clients
http        = "127.0.0.1:6433"     # /metrics /healthz /readyz, later the dashboard
pool_mode   = "transaction"        # transaction | session
pool_size   = 20                   # server connections per node, database and user
max_clients = 10000
read_policy = "least-connections"  # round-robin | least-connections | client-address | primary
consistency = "session"            # session | strong | eventual: what a read on a replica may miss

[router.tls]                       # absent: SSLRequest is answered 'N'
cert = "server.crt"
key  = "server.key"

[auth]
method = "scram-sha-256"           # trust | scram-sha-256 | cert

[[users]]
name     = "app"
password = "secret"                # clients prove it to the router; the router proves it to the nodes
admin    = true                    # may use the admin console; default false

[[databases]]
name = "shop"

[[databases.shards]]
name  = "s0"
nodes = [
  { host = "127.0.0.1", port = 6511, role = "primary", zone = "a" },
  { host = "127.0.0.1", port = 6521, role = "replica", zone = "b" },
]

[[databases.shards]]
name  = "s1"
nodes = [ { host = "127.0.0.1", port = 6512, role = "primary" } ]

[[databases.tables]]
name      = "users"                # public unless qualified
shard_key = "id"
method    = "hash"                 # hash | modulo | range | list | reference

[[databases.tables]]
name          = "orders"
shard_key     = "user_id"
method        = "hash"
colocate_with = "users"

[[databases.tables]]
name      = "events"
shard_key = "created_at"
method    = "range"
ranges    = [ { below = "2026-01-01", shard = "s0" }, { shard = "s1" } ]   # first that fits; last is open

[[databases.tables]]
name   = "regions"
shard_key = "code"
method = "list"
lists  = [ { values = ["kr", "jp"], shard = "s0" }, { default = true, shard = "s1" } ]

[[databases.tables]]
name   = "countries"
method = "reference"

[catalog]                          # optional; needed for more than one router and for online changes
url = "postgres://switchyard@127.0.0.1:6500/switchyard"
"#;

fn parse(text: &str) -> Config {
    Config::parse(text).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// The problems of a text, each as it is printed.
fn problems(text: &str) -> Vec<String> {
    match Config::parse(text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// A small valid configuration whose tables and shards can be replaced.
fn with_tables(tables: &str) -> String {
    format!(
        r#"users = [{{ name = "app", password = "x" }}]
[[databases]]
name = "shop"
shards = [
  {{ name = "s0", nodes = [{{ host = "a", role = "primary" }}] }},
  {{ name = "s1", nodes = [{{ host = "b", role = "primary" }}] }},
]
tables = [
{tables}
]"#
    )
}

fn method_of<'c>(config: &'c Config, table: &str) -> &'c Method {
    let table = config.databases[0].table(&TableName::new("public", table));
    &table.unwrap().distribution.shard_key().unwrap().method
}

fn string(text: &str) -> Literal {
    Literal {
        text: text.into(),
        form: LiteralForm::String,
    }
}

#[test]
fn the_example_is_read() {
    let config = parse(EXAMPLE);
    assert_eq!(config.router.listen.to_string(), "127.0.0.1:6432");
    assert_eq!(config.router.http.as_ref().map(|a| a.port), Some(6433));
    assert_eq!(config.router.pool_mode, PoolMode::Transaction);
    assert_eq!(
        (config.router.pool_size, config.router.max_clients),
        (20, 10_000)
    );
    assert_eq!(config.router.read_policy, ReadPolicy::LeastConnections);
    assert_eq!(config.router.consistency, Consistency::Session);
    assert_eq!(config.auth.method, AuthMethod::ScramSha256);
    let user = config.user("app").unwrap();
    assert_eq!(user.password, Some(Secret::Inline("secret".into())));
    assert!(user.admin);

    let shop = config.database("shop").unwrap();
    assert_eq!(shop.weights(), [("s0", 1), ("s1", 1)]);
    let replica = &shop.shards[0].nodes[1];
    assert_eq!(
        (replica.role, replica.port, replica.zone.as_deref()),
        (Role::Replica, 6521, Some("b"))
    );
    assert_eq!(shop.shards[1].primary().map(|n| n.port), Some(6512));

    let orders = &shop.tables[1].distribution.shard_key().unwrap();
    assert_eq!(
        (orders.column.as_str(), &orders.method),
        ("user_id", &Method::Hash)
    );
    assert_eq!(
        orders.colocate_with,
        Some(TableName::new("public", "users"))
    );
    let first = RangeEntry {
        below: Some(string("2026-01-01")),
        shard: ShardIndex(0),
    };
    let rest = RangeEntry {
        below: None,
        shard: ShardIndex(1),
    };
    assert_eq!(
        method_of(&config, "events"),
        &Method::Range(vec![first, rest])
    );
    let asia = ListEntry {
        values: vec![string("kr"), string("jp")],
        default: false,
        shard: ShardIndex(0),
    };
    let others = ListEntry {
        values: vec![],
        default: true,
        shard: ShardIndex(1),
    };
    assert_eq!(
        method_of(&config, "regions"),
        &Method::List(vec![asia, others])
    );
    assert_eq!(shop.tables[4].distribution, Distribution::Reference);

    let catalog = config.catalog.unwrap();
    assert_eq!((catalog.host.as_str(), catalog.port), ("127.0.0.1", 6500));
    assert_eq!(
        (catalog.user.as_str(), catalog.database.as_str()),
        ("switchyard", "switchyard")
    );
}

#[test]
fn what_is_left_out_has_a_default() {
    let config = parse(&with_tables(""));
    assert_eq!(config.router, Default::default());
    assert_eq!(config.log, Default::default());
    assert_eq!(config.catalog, None);
    let node = &config.databases[0].shards[0].nodes[0];
    assert_eq!((node.port, node.tls.mode), (5432, SslMode::Prefer));
}

#[test]
fn every_option_is_read() {
    let config = parse(
        r#"
[router]
unix_socket_dir = "run"
workers = 3
max_prepared_statements = 7
max_login_failures = 8
max_fetch_bytes = "5MB"
workspace_sessions = 6
workspace_temp_limit = "7GB"
drain_timeout = "1s"
client_login_timeout = "2s"
client_idle_timeout = "3s"
idle_transaction_timeout = "4s"
transaction_timeout = "14s"
query_timeout = "5s"
query_wait_timeout = "6s"
connect_timeout = "7s"
server_idle_timeout = "off"
server_lifetime = "9s"
health_interval = "100ms"
health_timeout = "11s"
max_replica_lag = "12s"
tls = { cert = "a.crt", key = "/etc/a.key", client_ca = "ca.crt", required = true }
[log]
format = "json"
level = "debug"
sql = "full"
[auth]
method = "cert"
[[users]]
name = "app"
password_file = "app.password"
[[users]]
name = "other"
password_env = "OTHER_PASSWORD"
[[databases]]
name = "shop"
sslmode = "verify-full"
sslrootcert = "nodes.crt"
[[databases.shards]]
name = "s0"
weight = 3
nodes = [
  { host = "/run/postgresql", role = "primary", sslmode = "disable" },
  { host = "db.example", role = "replica" },
]
[[databases.tables]]
name = "a"
shard_key = "id"
method = "modulo"
shards = ["s0", "s0"]
[catalog]
url = "postgres://switchyard@db/switchyard"
password_file = "catalog.password"
sslmode = "require"
"#,
    );
    let seconds = |n| Some(Duration::from_secs(n));
    assert_eq!(config.router.max_login_failures, 8);
    let times = &config.router.timeouts;
    assert_eq!(Some(times.drain), seconds(1));
    assert_eq!(Some(times.client_login), seconds(2));
    assert_eq!(times.client_idle, seconds(3));
    assert_eq!(times.idle_transaction, seconds(4));
    assert_eq!(times.transaction, seconds(14));
    assert_eq!(times.query, seconds(5));
    assert_eq!(Some(times.query_wait), seconds(6));
    assert_eq!(Some(times.connect), seconds(7));
    assert_eq!(times.server_idle, None);
    assert_eq!(times.server_lifetime, seconds(9));
    assert_eq!(times.health_interval, Duration::from_millis(100));
    assert_eq!(Some(times.health_timeout), seconds(11));
    assert_eq!(Some(times.max_replica_lag), seconds(12));
    assert_eq!(
        (config.router.workers, config.router.max_prepared_statements),
        (Some(3), 7)
    );
    assert_eq!(config.router.max_fetch_bytes, 5 << 20);
    assert_eq!(config.router.workspace_sessions, 6);
    assert_eq!(config.router.workspace_temp_limit, Some(7 << 30));
    assert!(config.log.full_sql);
    assert_eq!(
        config.users[1].password,
        Some(Secret::Env("OTHER_PASSWORD".into()))
    );
    assert_eq!(config.databases[0].weights(), [("s0", 3)]);
    assert_eq!(
        method_of(&config, "a"),
        &Method::Modulo(vec![ShardIndex(0), ShardIndex(0)])
    );
    let modes: Vec<SslMode> = config.databases[0].shards[0]
        .nodes
        .iter()
        .map(|n| n.tls.mode)
        .collect();
    assert_eq!(modes, [SslMode::Disable, SslMode::VerifyFull]);
    assert_eq!(
        config.catalog.as_ref().map(|c| c.tls.mode),
        Some(SslMode::Require)
    );

    let mut config = config;
    config.resolve_paths(Path::new("/etc/switchyard"));
    let tls = config.router.tls.unwrap();
    assert_eq!(tls.cert, PathBuf::from("/etc/switchyard/a.crt"));
    assert_eq!(tls.key, PathBuf::from("/etc/a.key"));
    assert_eq!(tls.client_ca, Some(PathBuf::from("/etc/switchyard/ca.crt")));
    assert_eq!(
        config.router.unix_socket_dir,
        Some(PathBuf::from("/etc/switchyard/run"))
    );
    assert_eq!(
        config.users[0].password,
        Some(Secret::File("/etc/switchyard/app.password".into()))
    );
    let catalog = config.catalog.unwrap();
    assert_eq!(
        catalog.password,
        Some(Secret::File("/etc/switchyard/catalog.password".into()))
    );
    let node = &config.databases[0].shards[0].nodes[1];
    assert_eq!(
        node.tls.root_cert,
        Some(PathBuf::from("/etc/switchyard/nodes.crt"))
    );
}

#[test]
fn literals_keep_their_form() {
    let config = parse(&with_tables(
        r#"{ name = "a", shard_key = "k", method = "range", ranges = [
             { below = 0x10, shard = "s0" }, { below = 1_000, shard = "s1" }, { shard = "s0" }] },
           { name = "b", shard_key = "k", method = "range", ranges = [
             { below = 2026-01-01, shard = "s0" }, { below = 2026-01-01T12:00:00Z, shard = "s1" }, { shard = "s0" }] },
           { name = "c", shard_key = "k", method = "list", lists = [
             { values = [true], shard = "s0" }, { default = true, values = [1.50], shard = "s1" }] }"#,
    ));
    let texts = |table| match method_of(&config, table) {
        Method::Range(ranges) => ranges
            .iter()
            .filter_map(|r| r.below.as_ref().map(Literal::to_string))
            .collect(),
        Method::List(lists) => lists
            .iter()
            .flat_map(|l| l.values.iter().map(Literal::to_string))
            .collect(),
        Method::Hash | Method::Modulo(_) => Vec::new(),
    };
    assert_eq!(texts("a"), ["16", "1000"]);
    assert_eq!(texts("b"), ["2026-01-01", "2026-01-01T12:00:00Z"]);
    assert_eq!(texts("c"), ["true", "1.50"]);
}

#[test]
fn colocated_tables_share_what_the_first_says() {
    let config = parse(&with_tables(
        r#"{ name = "c", shard_key = "k", method = "range", colocate_with = "b" },
           { name = "b", shard_key = "k", method = "range", colocate_with = "a" },
           { name = "a", shard_key = "k", method = "range", ranges = [{ below = 5, shard = "s1" }, { shard = "s0" }] },
           { name = "d", shard_key = "k", method = "range", colocate_with = "a",
             ranges = [{ below = 5, shard = "s1" }, { shard = "s0" }] },
           { name = "m", shard_key = "k", method = "modulo", shards = ["s1"] },
           { name = "n", shard_key = "k", method = "modulo", colocate_with = "m" }"#,
    ));
    for table in ["b", "c", "d"] {
        assert_eq!(
            method_of(&config, table),
            method_of(&config, "a"),
            "{table}"
        );
    }
    assert_eq!(
        method_of(&config, "n"),
        &Method::Modulo(vec![ShardIndex(1)])
    );
}

#[test]
fn secrets_are_not_printed() {
    let text = EXAMPLE.replace("switchyard@127", "switchyard:hidden@127");
    let printed = format!("{:?}", parse(&text));
    assert!(
        !printed.contains("secret") && !printed.contains("hidden"),
        "{printed}"
    );
}

#[test]
fn all_problems_come_at_once_with_their_places() {
    let text = r#"[router]
listen = "6432"
pool_mode = "portal"
pool_size = 0
poolsize = 5
drain_timeout = 30
tls = { cert = "a", key = 5 }
[auth]
method = "md5"
[[users]]
name = "app"
[[databases]]
name = "switchyard"
[[databases.shards]]
name = "s 0"
weight = 101
nodes = []
[colour]
"#;
    assert_eq!(
        problems(text),
        [
            r#"line 2, column 10: router.listen: is not an address (host:port, like "127.0.0.1:6432" or "[::1]:6432")"#,
            r#"line 3, column 13: router.pool_mode: "portal" is not known here (allowed are transaction, session, statement)"#,
            r#"line 4, column 13: router.pool_size: must be from 1 to 10000"#,
            r#"line 5, column 1: router.poolsize: is not a key of this section (did you mean pool_size?)"#,
            r#"line 6, column 17: router.drain_timeout: is not a duration (a number and a unit in quotes, like "100ms", "5s", "2m", "1h" or "7d")"#,
            r#"line 7, column 27: router.tls.key: must be a string, not integer"#,
            r#"line 9, column 10: auth.method: "md5" is not known here (allowed are trust, scram-sha-256, cert, hba)"#,
            r#"line 10, column 1: users[0]: the user has no password, and auth.method is scram-sha-256 (set password, password_env or password_file)"#,
            r#"line 13, column 8: databases[0].name: "switchyard" is the admin console's (give the database another name)"#,
            r#"line 15, column 8: databases[0].shards[0].name: is not a shard's name (allowed are letters, digits, - and _)"#,
            r#"line 16, column 10: databases[0].shards[0].weight: must be from 0 to 100"#,
            r#"line 17, column 9: databases[0].shards[0].nodes: the shard has no primary (give one node role = "primary")"#,
            r#"line 18, column 2: colour: is not a key of this section (allowed are router, log, auth, users, databases, peers, catalog)"#,
        ]
    );
}

#[test]
fn one_key_is_changed() {
    let before = crate::RouterConfig::default();
    let changed = |key: &str, value: &str| before.with(key, value);
    assert_eq!(changed("pool_size", "7").unwrap().pool_size, 7);
    assert_eq!(
        changed("pool_mode", "session").unwrap().pool_mode,
        PoolMode::Session
    );
    let after = changed("query_timeout", "5s").unwrap();
    assert_eq!(
        after.timeouts.query,
        Some(std::time::Duration::from_secs(5))
    );
    assert_eq!(changed("query_timeout", "off").unwrap(), before);
    for (key, value, complaint) in [
        ("pool_sice", "7", "is not a key"),
        ("pool_size", "0", "must be from 1"),
        ("pool_size", "x\"\ny = 1", "must be an integer"),
        ("pool_size = 7 #", "1", "is not a key"),
        ("query_timeout", "5", "neither a duration"),
        ("", "1", ""),
    ] {
        let problems = changed(key, value).unwrap_err();
        assert!(problems[0].message.contains(complaint), "{problems:?}");
    }
}

/// The only problem of a configuration with these tables, without its place.
fn problem_of(tables: &str) -> String {
    only_problem(&with_tables(tables))
}

fn only_problem(text: &str) -> String {
    match problems(text).as_slice() {
        [problem] => problem.split_once(": ").unwrap().1.to_owned(),
        problems => panic!("{problems:#?}"),
    }
}

#[test]
fn an_empty_file_lacks_users_and_databases() {
    assert_eq!(
        problems(""),
        [
            "line 1, column 1: there is no [[users]]: nobody could connect",
            "line 1, column 1: there is no [[databases]]: there is nothing to route",
        ]
    );
}

#[test]
fn toml_that_is_none() {
    let problems = problems("[router]\nlisten = \n[auth\n");
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(
        problems[0].starts_with("line 2, column 10: "),
        "{problems:#?}"
    );
    assert!(
        problems[1].starts_with("line 3, column 6: "),
        "{problems:#?}"
    );
}

#[test]
fn names_and_users_on_the_nodes() {
    let of = |keys: &str, shards: &str, more: &str| {
        let node = |name: &str| {
            format!("{{ name = '{name}', nodes = [{{ host = '{name}', role = 'primary' }}] }}, ")
        };
        let shards: String = shards.chars().map(|name| node(&name.to_string())).collect();
        format!(
            "users = [{{ name = 'u', password = 'p' }}]\n{more}\n[[databases]]\nname = 'd'\n{keys}\nshards = [{shards}]"
        )
    };
    let config = parse(&of("dbname = 'e'\nuser = 'u'", "a", ""));
    let node = &config.databases[0].shards[0].nodes[0];
    assert_eq!(node.dbname.as_deref(), Some("e"));
    assert_eq!(config.pooling.logins["d"], "u");
    let cases = [
        (
            of("dbname = 'e'", "ab", ""),
            "databases[0].dbname: is for databases with one shard",
        ),
        (
            of("user = 'v'", "a", ""),
            "databases[0].user: \"v\" is not among [[users]]",
        ),
        (
            of(
                "dbname = 'e'",
                "a",
                "catalog = { url = 'postgres://u@h/c' }",
            ),
            "catalog: there is a database with dbname",
        ),
    ];
    for (text, expected) in cases {
        let problem = only_problem(&text);
        assert!(problem.contains(expected), "{problem}");
    }
}

#[test]
fn shards_and_nodes() {
    let shards = |shards: &str| {
        format!(
            "users = [{{ name = 'u', password = 'p' }}]\n[[databases]]\nname = 'd'\nshards = [{shards}]"
        )
    };
    let node = |host: &str, role: &str| format!("{{ host = '{host}', role = '{role}' }}");
    let (a, b) = (node("a", "primary"), node("b", "replica"));
    let cases = [
        (
            format!("{{ name = 's', nodes = [{b}] }}"),
            "shards[0].nodes: the shard has no primary",
        ),
        (
            format!("{{ name = 's', nodes = [{a}, {}] }}", node("b", "primary")),
            "shards[0].nodes[1]: the shard already has a primary",
        ),
        (
            format!("{{ name = 's', nodes = [{a}] }}, {{ name = 't', nodes = [{a}] }}"),
            "shards[1].nodes[0]: node a:5432 is already on line 4",
        ),
        (
            format!(
                "{{ name = 's', nodes = [{a}] }}, {{ name = 's', nodes = [{}] }}",
                node("c", "primary")
            ),
            "shards[1].name: shard \"s\" is there twice",
        ),
        ("{ name = 's' }".into(), "shards[0].nodes: is missing"),
        (format!("{{ nodes = [{a}] }}"), "shards[0].name: is missing"),
        (
            format!("{{ name = 's', weight = 0, nodes = [{a}] }}"),
            ": every shard has weight 0",
        ),
        (String::new(), ": the database has no [[databases.shards]]"),
        (
            format!("{{ name = 's', nodes = [{}] }}", node("a", "main")),
            "nodes[0].role: \"main\" is not known here",
        ),
        (
            "{ name = 's', nodes = [{ host = 'a:5432', role = 'primary', port = 0 }] }".into(),
            "nodes[0].port: must be",
        ),
        (
            "{ name = 's', nodes = [{ host = 'a b', role = 'primary' }] }".into(),
            "nodes[0].host: is not a host",
        ),
        (
            "{ name = 's', nodes = ['a'] }".into(),
            "nodes[0]: must be a table, not string",
        ),
        (
            "{ name = 's', nodes = [{ host = 'a', role = 'primary', sslmode = 'verify-ca' }] }"
                .into(),
            "nodes[0].sslmode: needs authorities",
        ),
    ];
    for (text, expected) in cases {
        let problem = only_problem(&shards(&text));
        assert!(
            problem.contains(expected),
            "{text}\n  gives {problem}\n  not {expected}"
        );
    }
}

#[test]
fn users_and_catalog() {
    let rest = "[[databases]]\nname = 'd'\nshards = [{ name = 's', nodes = [{ host = 'a', role = 'primary' }] }]\n";
    let user = "[[users]]\nname = 'u'\npassword = 'p'\n";
    let cases = [
        (
            format!("{user}{user}{rest}"),
            "users[1].name: user \"u\" is there twice",
        ),
        (
            format!("{user}password_env = 'P'\n{rest}"),
            "users[0].password_env: there is more than one password",
        ),
        (
            format!("[[users]]\nname = 'u'\npassword = ''\n{rest}"),
            "users[0].password: must not be empty",
        ),
        (
            format!("[[users]]\npassword = 'p'\n{rest}"),
            "users[0].name: is missing",
        ),
        (format!("users = 'u'\n{rest}"), "users: must be an array"),
        (
            format!("[auth]\nmethod = 'cert'\n{user}{rest}"),
            "auth.method: needs client certificates",
        ),
        (
            format!("{user}{rest}{rest}"),
            "databases[1].name: database \"d\" is there twice",
        ),
        (
            format!("{user}{rest}[catalog]\n"),
            "catalog.url: is missing",
        ),
        (
            format!("{user}{rest}[catalog]\nurl = 'mysql://x'\n"),
            "catalog.url: does not begin with postgres://",
        ),
        (
            format!("{user}{rest}[catalog]\nurl = 'postgres://u:p@h/d'\npassword = 'p'"),
            "catalog.url: there is a password in the URL and another",
        ),
    ];
    for (text, expected) in cases {
        // `users = 'u'` has a second consequence: nobody could connect.
        let problems = problems(&text);
        assert!(
            problems.iter().any(|p| p.contains(expected)),
            "{text}\n  gives {problems:#?}\n  not {expected}"
        );
        assert!(problems.len() <= 2, "{problems:#?}");
    }
}

#[test]
fn tables() {
    let table = |rest: &str| format!("{{ name = 't', {rest} }}");
    let cases = [
        (table("method = 'hash'"), "tables[0]: shard_key is missing"),
        (table("shard_key = 'k'"), "tables[0].method: is missing"),
        (
            table("shard_key = 'k', method = 'rnage'"),
            "\"rnage\" is not known here",
        ),
        (
            table("shard_key = 'k', method = 'reference'"),
            "tables[0].shard_key: is not for a reference table",
        ),
        (
            table("shard_key = 'k', method = 'hash', ranges = []"),
            "tables[0].ranges: belongs to method range",
        ),
        (
            table("shard_key = 'k', method = 'range'"),
            "tables[0]: ranges is missing",
        ),
        (
            table("shard_key = 'k', method = 'list'"),
            "tables[0]: lists is missing",
        ),
        (
            table("shard_key = 'k', method = 'modulo', shards = []"),
            "shards: must name at least one shard",
        ),
        (
            table("shard_key = 'k', method = 'modulo', shards = ['s2']"),
            "shards[0]: there is no shard \"s2\" (the shards are s0, s1)",
        ),
        (
            table("shard_key = '', method = 'hash'"),
            "shard_key: must not be empty",
        ),
        (
            table("shard_key = 'k', method = 'hash', colocate_with = 't'"),
            "cannot be colocated with itself",
        ),
        (
            table("shard_key = 'k', method = 'hash', colocate_with = 'x'"),
            "colocate_with: there is no table x here",
        ),
        (
            "{ name = 'a.b.c', method = 'reference' }".into(),
            "name: is not a table's name",
        ),
        (
            "{ name = 'pg_catalog.pg_class', method = 'reference' }".into(),
            "PostgreSQL's own tables",
        ),
        (
            "{ name = 't', method = 'reference' },\n{ name = 'public.t', method = 'reference' }"
                .into(),
            "tables[1].name: table t is already on line 9",
        ),
        (
            "{ name = 'r', method = 'reference' }, ".to_owned()
                + &table("shard_key = 'k', method = 'hash', colocate_with = 'r'"),
            "r is a reference table",
        ),
        (
            "{ name = 'm', shard_key = 'k', method = 'modulo' }, ".to_owned()
                + &table("shard_key = 'k', method = 'hash', colocate_with = 'm'"),
            "its method is modulo, and this table's is hash",
        ),
        (
            "{ name = 'm', shard_key = 'k', method = 'modulo' }, ".to_owned()
                + &table(
                    "shard_key = 'k', method = 'modulo', shards = ['s1'], colocate_with = 'm'",
                ),
            "its ranges, lists or shards are not this table's",
        ),
    ];
    for (text, expected) in cases {
        let problem = problem_of(&text);
        assert!(
            problem.contains(expected),
            "{text}\n  gives {problem}\n  not {expected}"
        );
    }
}

#[test]
fn tables_that_follow_one_another_in_a_circle() {
    let text = with_tables(
        "{ name = 'a', shard_key = 'k', method = 'hash', colocate_with = 'b' },
         { name = 'b', shard_key = 'k', method = 'hash', colocate_with = 'a' }",
    );
    let problems = problems(&text);
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(
        problems[0].contains("tables[0].colocate_with: the tables follow one another in a circle")
    );
}

#[test]
fn ranges_and_lists() {
    let range = |ranges: &str| {
        format!("{{ name = 't', shard_key = 'k', method = 'range', ranges = [{ranges}] }}")
    };
    let list = |lists: &str| {
        format!("{{ name = 't', shard_key = 'k', method = 'list', lists = [{lists}] }}")
    };
    let open = "{ shard = 's1' }";
    let default = "{ default = true, shard = 's1' }";
    let cases = [
        (
            range("{ below = 5, shard = 's0' }"),
            "ranges: keys from the last end on would have no shard",
        ),
        (
            range(""),
            "ranges: keys from the last end on would have no shard",
        ),
        (
            range(&format!("{open}, {{ below = 5, shard = 's0' }}")),
            "ranges[1]: no key can be in this range (the range on line 9 has no end",
        ),
        (
            range(&format!("{open}, {open}")),
            "ranges[1]: no key can be in this range",
        ),
        (
            range(&format!(
                "{{ below = 5, shard = 's0' }}, {{ below = 5, shard = 's1' }}, {open}"
            )),
            "ranges[1].below: no key can be in this range: 5 is not above 5",
        ),
        (
            range(&format!(
                "{{ below = '2026-02-01', shard = 's0' }}, {{ below = '2026-01-01', shard = 's1' }}, {open}"
            )),
            "\"2026-01-01\" is not above \"2026-02-01\"",
        ),
        (
            range(&format!(
                "{{ below = 2026-01-01, shard = 's0' }}, {{ below = 7, shard = 's1' }}, {open}"
            )),
            "ranges[1].below: 2026-01-01 and 7 are not of one type",
        ),
        (
            range(&format!(
                "{{ below = '10', shard = 's0' }}, {{ below = '9', shard = 's0' }}, {{ below = '11', shard = 's0' }}, {open}"
            )),
            "ranges: there is no type in which all these ends ascend",
        ),
        (
            range(&format!("{{ below = 5, shard = 's9' }}, {open}")),
            "ranges[0].shard: there is no shard \"s9\"",
        ),
        (
            range(&format!("{{ below = 5 }}, {open}")),
            "ranges[0].shard: is missing",
        ),
        (
            range(&format!("{{ below = [], shard = 's0' }}, {open}")),
            "ranges[0].below: must be a single value",
        ),
        (
            range(&format!("{{ above = 5, shard = 's0' }}, {open}")),
            "ranges[1]: no key can be in this range",
        ),
        (
            list("{ values = ['a'], shard = 's0' }"),
            "lists: values that are not listed would have no shard",
        ),
        (
            list(&format!("{default}, {default}")),
            "lists[1]: the default list is already on line 9",
        ),
        (
            list(&format!("{{ shard = 's0' }}, {default}")),
            "lists[0]: values is missing",
        ),
        (
            list(&format!("{{ values = [], shard = 's0' }}, {default}")),
            "lists[0].values: must have at least one value",
        ),
        (
            list(&format!(
                "{{ values = ['a', 'b'], shard = 's0' }}, {{ values = ['a'], shard = 's1' }}, {default}"
            )),
            "lists[1].values[0]: \"a\" is already listed on line 9",
        ),
        (
            list(&format!("{{ values = ['a'] }}, {default}")),
            "lists[0].shard: is missing",
        ),
    ];
    for (text, expected) in cases {
        let problems = problems(&with_tables(&text));
        assert!(
            problems.iter().any(|p| p.contains(expected)),
            "{text}\n  gives {problems:#?}\n  not {expected}"
        );
        // `above` is an unknown key, which is a problem of its own.
        assert!(
            problems.len() == 1 || text.contains("above"),
            "{problems:#?}"
        );
    }
}

const MANUAL: &str = include_str!("../../../docs/configuration.md");

#[test]
fn the_manual_shows_what_is_valid() {
    let examples: Vec<&str> = MANUAL
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(!examples.is_empty());
    for example in examples {
        parse(example);
    }
}

#[test]
fn the_manual_names_every_key() {
    let wrong = with_tables("{ name = 't', method = 'reference', qqqqqqqq = 1 }")
        .replace("{ host = \"a\"", "{ qqqqqqqq = 1, host = \"a\"")
        .replace("{ name = \"s0\"", "{ qqqqqqqq = 1, name = \"s0\"")
        .replace("{ name = \"app\"", "{ qqqqqqqq = 1, name = \"app\"")
        .replace("name = \"shop\"", "name = \"shop\"\nqqqqqqqq = 1");
    let sections = "[router]\nqqqqqqqq = 1\n[router.tls]\nqqqqqqqq = 1\ncert = 'c'\nkey = 'k'\n[log]\nqqqqqqqq = 1
                    [auth]\nqqqqqqqq = 1\n[catalog]\nqqqqqqqq = 1\nurl = 'postgres://u@h/d'\n";
    let problems = problems(&format!("{wrong}\n{sections}"));
    assert_eq!(problems.len(), 10, "{problems:#?}");
    for problem in problems {
        let keys = problem
            .split_once("(allowed are ")
            .unwrap()
            .1
            .trim_end_matches(')');
        for key in keys.split(", ") {
            let named = [
                format!("`{key}`"),
                format!("`{key} ="),
                format!("[{key}"),
                format!(".{key}]"),
                format!("{key} = "),
            ];
            assert!(
                named.iter().any(|name| MANUAL.contains(name)),
                "{key} in {problem}"
            );
        }
    }
}

mod any_text {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    proptest! {
        #[test]
        fn is_read_or_refused_with_a_reason(text in ".{0,200}") {
            prop_assert!(!problems(&text).is_empty());
        }

        /// Whatever a slip of the hand does to a file, it is read, or something is said about a line of it.
        #[test]
        fn near_the_example_is_read_or_refused(at in any::<Index>(), cut in 0..30_usize, put in "[a-z0-9\\[\\]{}='\", \\n-]{0,5}") {
            let characters: Vec<char> = EXAMPLE.chars().collect();
            let at = at.index(characters.len());
            let after = characters.len().min(at + cut);
            let text: String = characters[..at].iter().copied().chain(put.chars()).chain(characters[after..].iter().copied()).collect();
            let lines = text.split('\n').count();
            if let Err(problems) = Config::parse(&text) {
                prop_assert!(!problems.is_empty());
                for problem in problems {
                    prop_assert!((1..=lines).contains(&problem.line), "{problem} in {lines} lines");
                }
            }
        }
    }
}
