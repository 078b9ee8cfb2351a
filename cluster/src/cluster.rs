//! Servers put together: a sharded database, its catalog, and a plain server to compare with.

use std::sync::Arc;

use crate::session::{Login, Session};
use crate::{Error, Local, Node, Provider, SUPERUSER, Settings};

/// The role that applications log in as; it owns the database.
pub const APP_USER: &str = "app";

/// What lets [`APP_USER`], who is no superuser, move rows: to be run on every shard.
pub const MOVING_RIGHTS: &str = "\
GRANT SET ON PARAMETER session_replication_role, deadlock_timeout, switchyard.epoch TO app; GRANT pg_signal_backend TO app";

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    /// How many shards.
    pub shards: usize,
    /// How many replicas each shard has.
    pub replicas: usize,
    /// Whether there is a server for the catalog (role and database `switchyard`).
    pub catalog: bool,
    /// Whether there is a plain server with the same database, not behind the router.
    pub oracle: bool,
    /// The database's name.
    pub database: String,
    /// The password of [`APP_USER`] and of the catalog's role.
    pub password: String,
    /// Settings of all servers.
    pub settings: Settings,
}

impl ClusterSpec {
    /// For tests: `shards` shards with `replicas` replicas each, database `shop`, nothing else.
    pub fn for_tests(shards: usize, replicas: usize) -> ClusterSpec {
        ClusterSpec {
            shards,
            replicas,
            catalog: false,
            oracle: false,
            database: "shop".to_owned(),
            password: "secret".to_owned(),
            settings: Settings::for_tests(),
        }
    }

    /// The same with a catalog.
    #[must_use]
    pub fn with_catalog(self) -> ClusterSpec {
        ClusterSpec {
            catalog: true,
            ..self
        }
    }

    /// The same with a plain server to compare with.
    #[must_use]
    pub fn with_oracle(self) -> ClusterSpec {
        ClusterSpec {
            oracle: true,
            ..self
        }
    }
}

/// A shard: its primary, and the replicas that stream from it.
#[derive(Debug)]
pub struct Shard {
    /// `s0`, `s1`, …
    pub name: String,
    /// Takes the writes.
    pub primary: Box<dyn Node>,
    /// Stream from it.
    pub replicas: Vec<Box<dyn Node>>,
}

/// Running servers. Dropping it stops them all.
#[derive(Debug)]
pub struct Cluster {
    // Order matters: nodes go before the provider whose directory they are in.
    shards: Vec<Shard>,
    catalog: Option<Box<dyn Node>>,
    oracle: Option<Box<dyn Node>>,
    spec: ClusterSpec,
    provider: Arc<dyn Provider>,
}

impl Cluster {
    /// Starts a cluster of local processes in a temporary directory.
    pub fn start(spec: ClusterSpec) -> Result<Cluster, Error> {
        Cluster::start_with(Arc::new(Local::temporary()?), spec)
    }

    /// Starts a cluster on a provider. One that keeps data is found again if `spec` has not changed.
    pub fn start_with(provider: Arc<dyn Provider>, spec: ClusterSpec) -> Result<Cluster, Error> {
        let start = &Start {
            provider: provider.as_ref(),
            spec: &spec,
        };
        let (shards, catalog, oracle) = std::thread::scope(|scope| {
            let shards: Vec<_> = (0..spec.shards)
                .map(|index| scope.spawn(move || start.shard(index)))
                .collect();
            let catalog = spec.catalog.then(|| scope.spawn(|| start.catalog()));
            let oracle = spec.oracle.then(|| scope.spawn(|| start.oracle()));
            let shards: Result<Vec<Shard>, Error> = shards.into_iter().map(join).collect();
            (
                shards,
                catalog.map(join).transpose(),
                oracle.map(join).transpose(),
            )
        });
        Ok(Cluster {
            shards: shards?,
            catalog: catalog?,
            oracle: oracle?,
            spec,
            provider,
        })
    }

    /// The shards, in order.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// One shard.
    pub fn shard(&self, index: usize) -> &Shard {
        &self.shards[index]
    }

    /// The catalog's server.
    pub fn catalog(&self) -> Option<&dyn Node> {
        self.catalog.as_deref()
    }

    /// The plain server.
    pub fn oracle(&self) -> Option<&dyn Node> {
        self.oracle.as_deref()
    }

    /// Every server.
    pub fn nodes(&self) -> impl Iterator<Item = &dyn Node> {
        let of_shards = self
            .shards
            .iter()
            .flat_map(|shard| std::iter::once(&shard.primary).chain(&shard.replicas));
        of_shards
            .chain(&self.catalog)
            .chain(&self.oracle)
            .map(AsRef::as_ref)
    }

    /// What it was made from.
    pub fn spec(&self) -> &ClusterSpec {
        &self.spec
    }

    /// What made it.
    pub fn provider(&self) -> &dyn Provider {
        self.provider.as_ref()
    }

    /// Whether any server's data was made by this run.
    pub fn is_new(&self) -> bool {
        self.nodes().any(Node::is_new)
    }

    /// The catalog's URL, as the configuration file wants it.
    pub fn catalog_url(&self) -> Option<String> {
        self.catalog_url_via(&|node| node.port())
    }

    /// The same by another port.
    pub(crate) fn catalog_url_via(&self, port_of: &dyn Fn(&dyn Node) -> u16) -> Option<String> {
        let node = self.catalog()?;
        Some(format!(
            "postgres://switchyard:{}@{}:{}/switchyard",
            self.spec.password,
            node.host(),
            port_of(node)
        ))
    }

    /// Runs SQL in the database as its owner, several statements in one transaction; rows come back one per line, columns separated by `|`.
    pub fn sql(&self, node: &dyn Node, sql: &str) -> Result<String, Error> {
        self.owner(node)?.run(sql)
    }

    /// Runs SQL as the superuser in any database of a server.
    pub fn superuser_sql(
        &self,
        node: &dyn Node,
        database: &str,
        sql: &str,
    ) -> Result<String, Error> {
        superuser(self.provider.as_ref(), node, database)?.run(sql)
    }

    /// A session of the database's owner.
    pub(crate) fn owner(&self, node: &dyn Node) -> Result<Session, Error> {
        Session::open(Login {
            node,
            user: APP_USER,
            password: &self.spec.password,
            database: &self.spec.database,
        })
    }
}

fn superuser(provider: &dyn Provider, node: &dyn Node, database: &str) -> Result<Session, Error> {
    Session::open(Login {
        node,
        user: SUPERUSER,
        password: provider.superuser_password(),
        database,
    })
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let shards = std::mem::take(&mut self.shards);
        let others = [self.catalog.take(), self.oracle.take()];
        std::thread::scope(|scope| {
            for shard in shards {
                scope.spawn(move || {
                    drop(shard.primary); // first: a clean stop waits until replicas have everything
                    drop(shard.replicas);
                });
            }
            for node in others.into_iter().flatten() {
                scope.spawn(move || drop(node));
            }
        });
    }
}

/// What the threads that start servers share.
struct Start<'a> {
    provider: &'a dyn Provider,
    spec: &'a ClusterSpec,
}

impl Start<'_> {
    fn shard(&self, index: usize) -> Result<Shard, Error> {
        let name = format!("s{index}");
        let primary = self
            .provider
            .primary(&node_name(&name, 0), &self.spec.settings)?;
        self.prepare(primary.as_ref(), APP_USER, &self.spec.database)?;
        let replicas = (1..=self.spec.replicas)
            .map(|number| {
                self.provider.replica(
                    &node_name(&name, number),
                    primary.as_ref(),
                    &self.spec.settings,
                )
            })
            .collect::<Result<_, _>>()?;
        Ok(Shard {
            name,
            primary,
            replicas,
        })
    }

    fn catalog(&self) -> Result<Box<dyn Node>, Error> {
        let node = self.provider.primary("catalog", &self.spec.settings)?;
        self.prepare(node.as_ref(), "switchyard", "switchyard")?;
        Ok(node)
    }

    fn oracle(&self) -> Result<Box<dyn Node>, Error> {
        let node = self.provider.primary("oracle", &self.spec.settings)?;
        self.prepare(node.as_ref(), APP_USER, &self.spec.database)?;
        Ok(node)
    }

    /// Makes the role and its database, unless they are there.
    fn prepare(&self, node: &dyn Node, role: &str, database: &str) -> Result<(), Error> {
        let mut superuser = superuser(self.provider, node, "postgres")?;
        let mut is_there =
            |sql: String| Ok::<bool, Error>(!node.is_new() && superuser.run(&sql)? == "1");
        if is_there(format!(
            "SELECT 1 FROM pg_database WHERE datname = '{database}'"
        ))? {
            return Ok(());
        }
        let password = self.spec.password.replace('\'', "''");
        let known = is_there(format!("SELECT 1 FROM pg_roles WHERE rolname = '{role}'"))?;
        let verb = if known { "ALTER" } else { "CREATE" };
        let statements = [
            format!("{verb} ROLE \"{role}\" LOGIN PASSWORD '{password}'"),
            format!("CREATE DATABASE \"{database}\" OWNER \"{role}\""),
            MAY_REMEMBER.replace("$ROLE", role),
        ];
        statements
            .iter()
            .try_for_each(|sql| superuser.run(sql).map(drop))
    }
}

/// By an epoch that a shard remembers routers are kept from it that do not hear where rows are. Before PostgreSQL 15 nobody has to be allowed to set it.
const MAY_REMEMBER: &str = "\
DO $$ BEGIN
    IF current_setting('server_version_num')::int >= 150000 THEN
        EXECUTE 'GRANT SET ON PARAMETER switchyard.epoch TO \"$ROLE\"';
    END IF;
END $$";

/// `s0-a` is the first shard's primary, `s0-b` its first replica.
fn node_name(shard: &str, number: usize) -> String {
    let letter = char::from(b'a' + u8::try_from(number % 26).unwrap_or_default());
    format!("{shard}-{letter}")
}

/// A thread's result; its panic goes on in ours.
fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
