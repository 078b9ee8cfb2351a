//! The servers: one with all the data, two shards with the router in front, and one that reaches the shards itself.

use std::path::{Path, PathBuf};

use switchyard_cluster::{Cluster, ClusterSpec, Node, Port, RouterFile, Settings};
use switchyard_schema::Config;
use switchyard_tpch::{DDL, Layout, tables};
use tempfile::TempDir;

use super::{LIMIT, Name, foreign};
use crate::client::Client;
use crate::contender::Endpoint;
use crate::pgbench::{DATABASE, PASSWORD};
use crate::stand::patiently;
use crate::{Error, router};
use switchyard_cluster::APP_USER;

const LAYOUT: Layout = Layout::Colocated;
const SHARDS: usize = 2;
const ROUTER: &str = "tpch";

/// Everything that is measured, running. Dropping it ends it all.
#[derive(Debug)]
pub(crate) struct Stand {
    // Order matters: who uses a server goes before it.
    router: Endpoint,
    coordinator: Box<dyn Node>,
    plain: u16,
    configuration: PathBuf,
    _cluster: Cluster,
    _directory: TempDir,
}

impl Stand {
    /// Starts servers, loads the tables, starts the router, and waits until it answers.
    pub(crate) fn raise(scale: f64) -> Result<Stand, Error> {
        let cluster = Cluster::start(ClusterSpec {
            database: DATABASE.to_owned(),
            password: PASSWORD.to_owned(),
            settings: settings(),
            ..ClusterSpec::for_tests(SHARDS, 0).with_oracle()
        })?;
        let (port, http) = (Port::any()?, Port::any()?);
        let text = cluster.router_file(&RouterFile {
            listen: port.number(),
            http: http.number(),
            auth: "scram-sha-256",
            router: "",
            tables: &LAYOUT.tables(SHARDS),
        });
        let config = Config::parse(&text).map_err(Error::Config)?;
        cluster.load(&config, &tables(scale), DDL)?;
        let coordinator = foreign::start(&cluster, LAYOUT, scale)?;
        let shards = cluster
            .shards()
            .iter()
            .map(|shard| (&*shard.primary, SHARDS));
        let whole = cluster.oracle().into_iter().chain([&*coordinator]);
        for (node, sharing) in shards.chain(whole.map(|node| (node, 1))) {
            // The tables do not change any more: no query has to set hint bits.
            cluster.sql(node, "VACUUM ANALYZE")?;
            cluster.sql(
                node,
                &format!(
                    "ALTER ROLE {APP_USER} SET statement_timeout = {};\
                     ALTER ROLE {APP_USER} SET max_parallel_workers_per_gather = {}",
                    LIMIT.as_millis(),
                    workers(sharing)
                ),
            )?;
        }
        let directory = tempfile::tempdir().map_err(Error::io("make a directory"))?;
        drop(http);
        let router = router::launch(directory.path(), ROUTER, &text, port)?;
        patiently(Name::Router.title(), || {
            Client::login(router.port.number(), APP_USER, DATABASE).map(drop)
        })?;
        Ok(Stand {
            router,
            coordinator,
            plain: cluster.oracle().map(Node::port).unwrap_or_default(),
            configuration: router::file(directory.path(), ROUTER),
            _cluster: cluster,
            _directory: directory,
        })
    }

    /// The router's configuration file.
    pub(crate) fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// Where a contender takes connections.
    pub(crate) fn port(&self, name: Name) -> u16 {
        match name {
            Name::Plain => self.plain,
            Name::Router => self.router.port.number(),
            Name::Fdw => self.coordinator.port(),
        }
    }
}

/// Parallel workers of a query, beside the backend itself: as many processes as the server has processors, those of this machine
/// divided among all that work on one query at the same time.
fn workers(sharing: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / sharing).saturating_sub(1)
}

/// The same for all servers. Compiling queries takes longer here than it saves.
fn settings() -> Settings {
    Settings::for_tests()
        .with("shared_buffers", "256MB")
        .with("work_mem", "64MB")
        .with("autovacuum", "off")
        .with("jit", "off")
}
