//! `switchyard demo`: a real cluster on this machine with a small web shop in it, and a router in front.
//!
//! [`start`] makes everything but the router; what it returns stops the servers when it is dropped, and takes their files
//! away unless the user chose the directory. If this process dies before that, the cluster's guard does the same.

pub mod shop;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use switchyard_cluster::{
    APP_USER, Cluster, ClusterSpec, LoadError, Local, MOVING_RIGHTS, Port, RouterFile, Settings,
};
use switchyard_schema::{Config, Diagnostic};

use shop::Shop;

/// What the user may choose.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the data is kept; without it the demo leaves nothing behind.
    pub directory: Option<PathBuf>,
    /// The router's port; the next one serves http.
    pub port: u16,
}

/// A running cluster with the shop loaded, and the configuration of its router.
#[derive(Debug)]
pub struct Demo {
    cluster: Cluster,
    config_file: PathBuf,
    port: u16,
}

/// Why the demo cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A server did not start, or did not do what it was asked to.
    #[error(transparent)]
    Cluster(#[from] switchyard_cluster::Error),
    /// The port after the router's would be above the highest there is.
    #[error("port {0} leaves no room for the http port, which is the next one")]
    LastPort(u16),
    /// A file could not be read or written.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The configuration is not one.
    #[error("the configuration has errors: {0:?}")]
    Config(Vec<Diagnostic>),
    /// The shop could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// Starts the cluster and loads the shop, or finds both in the directory the user chose.
pub fn start(options: &Options) -> Result<Demo, DemoError> {
    let http = options
        .port
        .checked_add(1)
        .ok_or(DemoError::LastPort(options.port))?;
    // Before any work is done; held until the router is about to listen.
    let ports = [Port::exactly(options.port)?, Port::exactly(http)?];
    let (local, settings) = match &options.directory {
        Some(directory) => (Local::kept(directory)?, Settings::durable()),
        None => (Local::temporary()?, Settings::for_tests()),
    };
    for leftover in local.stage().leftovers() {
        tracing::info!(directory = %leftover.display(), "removed what an earlier demo left behind");
    }
    let place = local.stage().path().to_path_buf();
    let version = local.install().major();
    tracing::info!(directory = %place.display(), version, "starting two shards, each a primary and a replica, and the catalog");
    let spec = ClusterSpec {
        settings,
        ..ClusterSpec::for_tests(2, 1).with_catalog()
    };
    let cluster = Cluster::start_with(Arc::new(local), spec)?;
    let text = cluster.router_file(&RouterFile {
        listen: options.port,
        http,
        auth: "scram-sha-256",
        router: "",
        tables: shop::TABLES,
    });
    let config = Config::parse(&text).map_err(DemoError::Config)?;
    fill_once(&cluster, &config, &place)?;
    // So that `switchyard-migrate` can be tried. Earlier versions ask for a superuser.
    for shard in cluster.shards().iter().filter(|_| version >= 15) {
        let primary = shard.primary.as_ref();
        cluster.superuser_sql(primary, &cluster.spec().database, MOVING_RIGHTS)?;
    }
    let config_file = place.join("switchyard.toml");
    keep_or_write(&config_file, &text, &config)?;
    drop(ports);
    Ok(Demo {
        cluster,
        config_file,
        port: options.port,
    })
}

impl Demo {
    /// The router's configuration file.
    #[must_use]
    pub fn config_file(&self) -> &Path {
        &self.config_file
    }

    /// The servers.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What to print when the router is ready.
    #[must_use]
    pub fn welcome(&self) -> String {
        let spec = self.cluster.spec();
        let url = format!(
            "postgres://{APP_USER}:{}@127.0.0.1:{}/{}",
            spec.password, self.port, spec.database
        );
        format!(
            "\nReady. Connect with\n\n    psql {url}\n\nand try\n\n{}\n\n\
             Configuration: {}\nMetrics:       http://127.0.0.1:{}/metrics\nCtrl-C stops everything.\n",
            QUERIES.join("\n\n"),
            self.config_file.display(),
            self.port.saturating_add(1),
        )
    }
}

/// Worth trying: each shows another way of a statement to its shards.
pub const QUERIES: [&str; 5] = [
    "-- one user: the key says which shard\n\
     SELECT * FROM users WHERE id = 42;",
    "-- a join of colocated tables, on one shard\n\
     SELECT o.id, o.status, sum(i.quantity * i.price) AS total\n  \
       FROM orders o JOIN order_items i ON i.user_id = o.user_id AND i.order_id = o.id\n \
      WHERE o.user_id = 42 GROUP BY o.id, o.status;",
    "-- a range of time that one shard holds\n\
     SELECT kind, count(*) FROM events\n \
      WHERE created_at >= '2026-02-01' AND created_at < '2026-03-01' GROUP BY kind;",
    "-- every shard, each joining the reference table by itself\n\
     SELECT u.id, u.name, c.name AS country FROM users u JOIN countries c ON c.code = u.country\n \
      WHERE u.name = 'Grace Kim';",
    "-- a transaction on one shard\n\
     BEGIN;\n\
     INSERT INTO orders (user_id, id, ship_to) VALUES (42, 100, 'no');\n\
     SELECT id, status, placed_at FROM orders WHERE user_id = 42;\n\
     ROLLBACK;",
];

/// Loads the shop unless that was done and finished before.
fn fill_once(cluster: &Cluster, config: &Config, place: &Path) -> Result<(), DemoError> {
    let marker = place.join("shop.loaded");
    if marker.is_file() {
        tracing::info!("the shop is there already");
        return Ok(());
    }
    tracing::info!("loading the shop");
    for shard in cluster.shards() {
        cluster.sql(shard.primary.as_ref(), "DROP OWNED BY CURRENT_USER CASCADE")?; // of a load that was interrupted
    }
    let rows = cluster.load(config, &Shop::DEMO.tables(), shop::DDL)?;
    std::fs::write(&marker, "").map_err(|source| DemoError::File {
        path: marker,
        source,
    })?;
    tracing::info!(rows, "loaded");
    Ok(())
}

/// Leaves a file from an earlier start alone, with whatever the user changed in it, as long as it leads to this cluster.
fn keep_or_write(path: &Path, text: &str, config: &Config) -> Result<(), DemoError> {
    let fits = |found: &Config| {
        let shards = |config: &Config| -> Vec<_> {
            config
                .databases
                .iter()
                .flat_map(|database| &database.shards)
                .flat_map(|shard| shard.nodes.clone())
                .collect()
        };
        found.router.listen == config.router.listen
            && found.router.http == config.router.http
            && found.catalog == config.catalog
            && shards(found) == shards(config)
    };
    let kept = std::fs::read_to_string(path)
        .ok()
        .and_then(|text| Config::parse(&text).ok());
    if kept.as_ref().is_some_and(fits) {
        return Ok(());
    }
    std::fs::write(path, text).map_err(|source| DemoError::File {
        path: path.to_path_buf(),
        source,
    })
}
