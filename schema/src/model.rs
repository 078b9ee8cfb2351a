//! What a configuration describes, once it is known to be valid.
//!
//! [`Config::parse`] is the only way from text to this model, and every rule of `docs/configuration.md` that needs no server
//! holds for what it returns: names are unique, each shard has one primary, what is referred to exists, ranges ascend and end
//! open, lists end in a default. Secrets stay unresolved ([`Secret`]), because this crate does no I/O.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::access::{Auth, User};
use crate::pooling::Pooling;
use crate::shard::ShardIndex;

/// The whole configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[router]`
    pub router: RouterConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[auth]`
    pub auth: Auth,
    /// `[[users]]`
    pub users: Vec<User>,
    /// `[[databases]]`
    pub databases: Vec<Database>,
    /// `[[peers]]`
    pub peers: Vec<Peer>,
    /// What databases and users say of their pools
    pub pooling: Pooling,
    /// `[catalog]`, if there is one
    pub catalog: Option<Catalog>,
}

impl Config {
    /// Makes every relative path of the file relative to `directory`, the place of the file.
    pub fn resolve_paths(&mut self, directory: &Path) {
        let resolve = |path: &mut PathBuf| *path = directory.join(&*path);
        if let Some(tls) = &mut self.router.tls {
            resolve(&mut tls.cert);
            resolve(&mut tls.key);
            tls.client_ca.as_mut().map(resolve);
        }
        self.router.unix_socket_dir.as_mut().map(resolve);
        self.auth.hba_file.as_mut().map(resolve);
        self.auth.ident_file.as_mut().map(resolve);
        let secrets = self.users.iter_mut().filter_map(|u| u.password.as_mut());
        let catalog = self.catalog.as_mut();
        let (catalog_secret, catalog_tls) = match catalog {
            Some(catalog) => (catalog.password.as_mut(), Some(&mut catalog.tls)),
            None => (None, None),
        };
        for secret in secrets.chain(catalog_secret) {
            if let Secret::File(path) = secret {
                resolve(path);
            }
        }
        let nodes = self.databases.iter_mut().flat_map(|d| &mut d.shards);
        let nodes = nodes.flat_map(|s| &mut s.nodes).map(|n| &mut n.tls);
        for tls in nodes.chain(catalog_tls) {
            tls.root_cert.as_mut().map(resolve);
        }
    }

    /// The database of that name.
    #[must_use]
    pub fn database(&self, name: &str) -> Option<&Database> {
        self.databases.iter().find(|d| d.name == name)
    }

    /// The user of that name.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|u| u.name == name)
    }
}

/// `[router]`: how this router listens, pools and reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterConfig {
    /// Where PostgreSQL clients connect.
    pub listen: Address,
    /// A directory for a Unix socket of PostgreSQL's naming (`.s.PGSQL.<port>`), if clients may connect by one.
    pub unix_socket_dir: Option<PathBuf>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub http: Option<Address>,
    /// TLS towards clients; without it SSLRequest is answered `N`.
    pub tls: Option<ClientTls>,
    /// Whether another router may listen on the same port at the same time.
    pub so_reuseport: bool,
    /// This router's number among those that share an address; 0 if it is alone.
    pub peer_id: u16,
    /// Worker threads; none given means half the cores, at least one.
    pub workers: Option<u16>,
    /// When a server connection goes back to its pool.
    pub pool_mode: PoolMode,
    /// Server connections per node, database and user.
    pub pool_size: u32,
    /// So many of them are kept open.
    pub min_pool_size: u32,
    /// So many more for who has waited for `reserve_pool_timeout`.
    pub reserve_pool_size: u32,
    /// Server connections per node and database; 0 for any number.
    pub max_db_connections: u32,
    /// Server connections per node and user; 0 for any number.
    pub max_user_connections: u32,
    /// Client connections, all databases together.
    pub max_clients: u32,
    /// Client connections of one database; 0 for any number.
    pub max_db_client_connections: u32,
    /// Client connections of one user; 0 for any number.
    pub max_user_client_connections: u32,
    /// Logins from one address that may fail per minute; 0 for any number.
    pub max_login_failures: u32,
    /// Which node serves a read.
    pub read_policy: ReadPolicy,
    /// What a read on a replica may miss.
    pub consistency: Consistency,
    /// Statements kept prepared on one server connection.
    pub max_prepared_statements: u32,
    /// Bytes of rows that one statement may fetch from the shards into its workspace.
    pub max_fetch_bytes: u64,
    /// Workspaces at a time, per node, database and user.
    pub workspace_sessions: u32,
    /// Bytes of temporary files that one workspace may write; `None` is the server's own limit.
    pub workspace_temp_limit: Option<u64>,
    /// The times the router keeps.
    pub timeouts: Timeouts,
}

/// The durations of `[router]`. `None` is `"off"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// `drain_timeout`: how long SIGTERM waits for running transactions.
    pub drain: Duration,
    /// `client_login_timeout`: from accept to the end of authentication.
    pub client_login: Duration,
    /// `client_idle_timeout`: a client outside a transaction that sends nothing.
    pub client_idle: Option<Duration>,
    /// `idle_transaction_timeout`: a client inside a transaction that sends nothing.
    pub idle_transaction: Option<Duration>,
    /// `transaction_timeout`: one transaction, from its first statement to its end.
    pub transaction: Option<Duration>,
    /// `query_timeout`: one statement, from the client's message to its result.
    pub query: Option<Duration>,
    /// `query_wait_timeout`: a statement waiting for a server connection.
    pub query_wait: Duration,
    /// `reserve_pool_timeout`: a wait for a server connection that gives a right to the reserve.
    pub reserve_pool: Duration,
    /// `server_login_retry`: the longest pause between attempts to log in to a node that refuses it.
    pub server_login_retry: Duration,
    /// `connect_timeout`: opening a server connection, authentication included.
    pub connect: Duration,
    /// `server_idle_timeout`: an unused server connection in a pool.
    pub server_idle: Option<Duration>,
    /// `server_lifetime`: the age at which a server connection is not used again.
    pub server_lifetime: Option<Duration>,
    /// `health_interval`: between two looks at a node.
    pub health_interval: Duration,
    /// `health_timeout`: how long a node may take to answer such a look.
    pub health_timeout: Duration,
    /// `max_replica_lag`: a replica further behind serves no reads.
    pub max_replica_lag: Duration,
}

/// `host:port`, as written; resolving the host is the router's part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// A name or an IP address; IPv6 without the brackets.
    pub host: String,
    /// The port; 0 lets the system choose where listening allows it.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// `[[peers]]`: another router behind the same address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its `peer_id`.
    pub id: u16,
    /// Where it can be reached itself.
    pub address: Address,
}

/// `[router.tls]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// The certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authorities client certificates are checked against, PEM.
    pub client_ca: Option<PathBuf>,
    /// Whether clients without TLS are refused.
    pub required: bool,
}

/// When a server connection goes back to its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// At the end of each transaction.
    Transaction,
    /// When the client leaves.
    Session,
    /// As `Transaction`, and transaction blocks are refused.
    Statement,
}

/// Which node serves a read that may go to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadPolicy {
    /// Each replica in turn.
    RoundRobin,
    /// The replica with the fewest connections in use.
    LeastConnections,
    /// The replica that the hash of the client's address names.
    ClientAddress,
    /// Never a replica.
    Primary,
}

/// What a read on a replica may miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Nothing its session wrote or has read before.
    Session,
    /// Nothing: primaries serve reads, except those that ask for a replica.
    Strong,
    /// Whatever is younger than `max_replica_lag`.
    Eventual,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// The form of a line.
    pub format: LogFormat,
    /// What is logged: a level or a list of `target=level`.
    pub filter: String,
    /// Whether SQL is logged as the client wrote it; otherwise with its literals taken out.
    pub full_sql: bool,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Where a password is.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// In the file itself.
    Inline(String),
    /// In an environment variable.
    Env(String),
    /// In a file; a trailing newline is not part of it.
    File(PathBuf),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Inline(_) => f.write_str("Inline(..)"),
            Secret::Env(name) => f.debug_tuple("Env").field(name).finish(),
            Secret::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// `[[databases]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// The name clients connect to and the nodes know.
    pub name: String,
    /// The shards; a [`ShardIndex`] is a position in here.
    pub shards: Vec<Shard>,
    /// The tables that are not unsharded.
    pub tables: Vec<Table>,
}

impl Database {
    /// Whether servers call it otherwise than clients.
    pub(crate) fn is_called_otherwise(&self) -> bool {
        let mut nodes = self.shards.iter().flat_map(|shard| &shard.nodes);
        nodes.any(|node| node.dbname.is_some())
    }

    /// The position of the shard of that name.
    #[must_use]
    pub fn shard_index(&self, name: &str) -> Option<ShardIndex> {
        let position = self.shards.iter().position(|s| s.name == name)?;
        u16::try_from(position).ok().map(ShardIndex)
    }

    /// The shard at that position.
    #[must_use]
    pub fn shard(&self, index: ShardIndex) -> Option<&Shard> {
        self.shards.get(index.position())
    }

    /// The table of that name, unless it is unsharded.
    #[must_use]
    pub fn table(&self, name: &TableName) -> Option<&Table> {
        self.tables.iter().find(|t| t.name == *name)
    }

    /// Names and weights of the shards, as [`BucketMap::place`](crate::BucketMap::place) takes them.
    #[must_use]
    pub fn weights(&self) -> Vec<(&str, u32)> {
        let shards = self.shards.iter();
        shards.map(|s| (s.name.as_str(), s.weight)).collect()
    }
}

/// `[[databases.shards]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// The name, unique in the database.
    pub name: String,
    /// The share of the buckets this shard takes, relative to the others.
    pub weight: u32,
    /// One primary and any number of replicas.
    pub nodes: Vec<Node>,
}

impl Shard {
    /// The primary.
    #[must_use]
    pub fn primary(&self) -> Option<&Node> {
        self.nodes.iter().find(|n| n.role == Role::Primary)
    }
}

/// One PostgreSQL server of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// A name, an IP address, or the directory of a Unix socket (starting with `/`).
    pub host: String,
    /// The port.
    pub port: u16,
    /// Primary or replica.
    pub role: Role,
    /// The failure domain.
    pub zone: Option<String>,
    /// TLS towards this node.
    pub tls: NodeTls,
    /// What the database is called there, if not as clients call it.
    pub dbname: Option<String>,
}

impl Node {
    /// Host and port.
    #[must_use]
    pub fn address(&self) -> Address {
        Address {
            host: self.host.clone(),
            port: self.port,
        }
    }
}

/// Primary or replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Follows the primary by streaming replication.
    Replica,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
        })
    }
}

/// TLS towards a server, in libpq's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTls {
    /// `sslmode`
    pub mode: SslMode,
    /// `sslrootcert`: the authorities the server's certificate is checked against, PEM.
    pub root_cert: Option<PathBuf>,
}

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS if the server has it.
    Prefer,
    /// TLS, whatever the certificate.
    Require,
    /// TLS with a certificate of a known authority.
    VerifyCa,
    /// As `VerifyCa`, and for this host.
    VerifyFull,
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SslMode::Disable => "disable",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        })
    }
}

/// `[catalog]`: the PostgreSQL that holds the actual state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// A name, an IP address, or the directory of a Unix socket.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The user.
    pub user: String,
    /// The database.
    pub database: String,
    /// The password, if one is needed.
    pub password: Option<Secret>,
    /// TLS towards it.
    pub tls: NodeTls,
}

/// `[[databases.tables]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Schema and name.
    pub name: TableName,
    /// Where its rows are. A table that is not listed is unsharded: whole on the first shard.
    pub distribution: Distribution,
}

/// A table's name with its schema, both as PostgreSQL's catalog has them (no quotes, no folding).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The schema.
    pub schema: String,
    /// The name in the schema.
    pub name: String,
}

impl TableName {
    /// A name from its two parts.
    #[must_use]
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            schema: schema.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.schema == "public" {
            f.write_str(&self.name)
        } else {
            write!(f, "{}.{}", self.schema, self.name)
        }
    }
}

/// Where a table's rows are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Distribution {
    /// Whole on every shard.
    Reference,
    /// Each row on the shard its key says.
    Sharded(ShardKey),
}

impl Distribution {
    /// The shard key, of a sharded table.
    #[must_use]
    pub fn shard_key(&self) -> Option<&ShardKey> {
        match self {
            Distribution::Reference => None,
            Distribution::Sharded(key) => Some(key),
        }
    }
}

/// How a column decides the shard, as written. [`KeyMap::resolve`](crate::KeyMap::resolve) joins it with the column's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardKey {
    /// The column.
    pub column: String,
    /// From key to shard. A colocated table carries the method of the table it follows.
    pub method: Method,
    /// The table this one says it is colocated with.
    pub colocate_with: Option<TableName>,
}

/// From key to shard, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// By hash into buckets, and by the bucket map.
    Hash,
    /// By the remainder of an integer key: remainder r is on the r-th of these shards.
    Modulo(Vec<ShardIndex>),
    /// By the first range the key is below the end of; the last one is open.
    Range(Vec<RangeEntry>),
    /// By listed value; the last one is the default.
    List(Vec<ListEntry>),
}

impl Method {
    /// The word in the file.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Method::Hash => "hash",
            Method::Modulo(_) => "modulo",
            Method::Range(_) => "range",
            Method::List(_) => "list",
        }
    }
}

/// One range: keys below `below` that no earlier range took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeEntry {
    /// The end, not included; none is the open end.
    pub below: Option<Literal>,
    /// The shard.
    pub shard: ShardIndex,
}

/// One list: these values, or all that no list names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEntry {
    /// The values.
    pub values: Vec<Literal>,
    /// Whether values that no list names, and NULL, are here.
    pub default: bool,
    /// The shard.
    pub shard: ShardIndex,
}

/// A key value as the file has it. Which key it is depends on the column's type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Literal {
    /// The value's text, in PostgreSQL's form.
    pub text: String,
    /// How TOML has it.
    pub form: LiteralForm,
}

/// How a literal is written in TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LiteralForm {
    /// In quotes: fits every type.
    String,
    /// An integer: fits integers and numeric.
    Integer,
    /// A number with a point or an exponent: fits numeric.
    Decimal,
    /// A date or a time stamp: fits those.
    DateTime,
    /// `true` or `false`: fits bool.
    Boolean,
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.form {
            LiteralForm::String => write!(f, "{:?}", self.text),
            LiteralForm::Integer
            | LiteralForm::Decimal
            | LiteralForm::DateTime
            | LiteralForm::Boolean => f.write_str(&self.text),
        }
    }
}
