//! The program against a real catalog: empty, filled from another file, and away.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use switchyard_catalog::{Catalog, Credentials};
use switchyard_cluster::{Cluster, ClusterSpec, Stop};
use switchyard_schema::Config;

/// A configuration with this catalog and so many shards.
fn configuration(url: &str, shards: usize) -> String {
    let shard = |n| format!("{{ name = 's{n}', nodes = [{{ host = 'h{n}', role = 'primary' }}] }}");
    let shards: Vec<String> = (0..shards).map(shard).collect();
    format!(
        "users = [{{ name = 'app', password = 'secret' }}]
         catalog = {{ url = '{url}', sslmode = 'disable' }}
         [[databases]]
         name = 'shop'
         shards = [{}]
         tables = [{{ name = 'users', shard_key = 'id', method = 'hash' }}]",
        shards.join(", ")
    )
}

fn run(text: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shop.toml");
    fs::write(&file, text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_switchyard-migrate"))
        .args(["plan", "--json", "--config"])
        .arg(&file)
        .output()
        .unwrap()
}

fn plan(text: &str) -> Value {
    let output = run(text);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["compared"], true);
    let database = plan["databases"][0].take();
    let against = database["survey"]["against"].as_array();
    let code = i32::from(against.is_some_and(|against| !against.is_empty()));
    assert_eq!(output.status.code(), Some(code), "{log}");
    database
}

/// Fills the catalog as a router would.
fn initialise(text: &str) {
    let config = Config::parse(text).unwrap();
    let catalog = config.catalog.unwrap();
    let credentials = Credentials::new(&catalog, Some("secret"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let catalog = Catalog::connect(&credentials).await.unwrap();
        assert!(catalog.initialise(&config.databases).await.unwrap());
        catalog.close().await;
    });
}

#[test]
fn the_file_is_compared_with_the_catalog() {
    let cluster = Cluster::start(ClusterSpec::for_tests(0, 0).with_catalog()).unwrap();
    let url = cluster.catalog_url().unwrap();

    let empty = plan(&configuration(&url, 2));
    assert_eq!(empty["change"], "new");
    let tables = "SELECT count(*) FROM pg_namespace WHERE nspname = 'switchyard'";
    let node = cluster.catalog().unwrap();
    let count = cluster.superuser_sql(node, "switchyard", tables).unwrap();
    assert_eq!(count, "0", "a plan touches nothing");

    initialise(&configuration(&url, 2));
    let same = plan(&configuration(&url, 2));
    assert_eq!(
        (&same["change"], &same["epoch"]),
        (&"none".into(), &1.into())
    );
    assert_eq!(same["buckets_to_move"], 0);

    let grown = plan(&configuration(&url, 3));
    assert_eq!(grown["change"], "changed");
    assert_eq!(
        grown["differences"][0],
        "shard \"s2\" is not in the catalog"
    );
    let moving = grown["buckets_to_move"].as_u64().unwrap();
    assert!((5461..=5462).contains(&moving), "{moving}");
    for step in grown["moves"].as_array().unwrap() {
        assert_eq!(step["to"], "s2");
    }

    // No server has these names.
    let against = grown["survey"]["against"].as_array().unwrap();
    assert_eq!(against.len(), 3, "{against:?}");
    let first = against[0].as_str().unwrap();
    assert!(
        first.starts_with("database \"shop\", shard \"s0\": "),
        "{first}"
    );

    node.stop(Stop::Fast).unwrap();
    let output = run(&configuration(&url, 2));
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("the catalog cannot be reached"), "{log}");
    assert!(!log.contains("secret"), "{log}");
}
