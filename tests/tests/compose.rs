//! `docker-compose.yml` and what it refers to fit together. Docker is not needed for that.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use switchyard_schema::{Config, Secret};
use switchyard_tests::shop;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// The services, by the indentation of the file.
fn services() -> BTreeSet<String> {
    let text = read("docker-compose.yml");
    let (_, services) = text.split_once("\nservices:\n").unwrap();
    let names = services.lines().filter_map(|line| {
        let name = line.strip_prefix("  ")?.strip_suffix(':')?;
        (!name.starts_with(' ')).then(|| name.to_owned())
    });
    names.collect()
}

fn config() -> Config {
    Config::parse(&read("examples/compose/switchyard.toml")).unwrap()
}

#[test]
fn every_file_it_mounts_is_there() {
    let text = read("docker-compose.yml");
    let mounted: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- ./")?.split(':').next())
        .collect();
    assert_eq!(mounted.len(), 6, "{mounted:?}");
    for path in mounted {
        assert!(root().join(path).exists(), "{path}");
    }
    assert!(text.contains("build: .") && root().join("Dockerfile").exists());
}

#[test]
fn the_router_names_services_and_the_shop_s_tables() {
    let (config, services) = (config(), services());
    let nodes = config.databases[0]
        .shards
        .iter()
        .flat_map(|shard| &shard.nodes);
    let mut named: BTreeSet<String> = nodes.map(|node| node.host.clone()).collect();
    assert_eq!(named.len(), 4);
    named.insert(config.catalog.unwrap().host);
    for host in named {
        assert!(
            services.contains(&host),
            "{host} is not one of {services:?}"
        );
    }
    let shards = |n| {
        format!(
            "[[databases.shards]]\nname = \"s{n}\"\nnodes = [ {{ host = \"h{n}\", role = \"primary\" }} ]\n"
        )
    };
    let shop = format!(
        "[auth]\nmethod = \"trust\"\n[[users]]\nname = \"app\"\n[[databases]]\nname = \"shop\"\n{}{}{}",
        shards(0),
        shards(1),
        shop::TABLES
    );
    let shop = Config::parse(&shop).unwrap();
    assert_eq!(config.databases[0].tables, shop.databases[0].tables);
}

#[test]
fn published_and_scraped_ports_are_those_the_router_listens_on() {
    let (config, text) = (config(), read("docker-compose.yml"));
    let http = config.router.http.unwrap();
    for port in [config.router.listen.port, http.port] {
        assert!(
            text.contains(&format!("\"127.0.0.1:{port}:{port}\"")),
            "{port}"
        );
    }
    let scraped = format!("[\"router:{}\"]", http.port);
    assert!(read("examples/compose/prometheus.yml").contains(&scraped));
    let user = &config.users[0];
    let Some(Secret::Inline(password)) = &user.password else {
        panic!("the user has no password")
    };
    for (name, value) in [
        ("USER", user.name.as_str()),
        ("PASSWORD", password),
        ("DB", "shop"),
    ] {
        assert!(
            text.contains(&format!("POSTGRES_{name}: {value}\n")),
            "{name}"
        );
    }
    let url = format!(
        "postgres://{}:{password}@127.0.0.1:{}/shop",
        user.name, config.router.listen.port
    );
    assert!(text.contains(&url), "{url}");
}
