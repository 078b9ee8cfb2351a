//! The beginning of a session: what an authenticated client is told before its first query.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::BytesMut;
use switchyard_schema::{PoolMode, RouterConfig};
use switchyard_wire::SqlState;
use switchyard_wire::backend::{Severity, encode};

use super::again::Again;
use super::extended::Batch;
use super::pass_through::READ_RETRIES;
use super::settings::{consistent_read, layer, route_hint};
use super::statement::ByName;
use super::{Described, Session};
use crate::admin::activity::OverdueWatch;
use crate::admin::registry::{ClientEntry, NewClient, Registration};
use crate::backend::{CONSISTENT_READ, LAYER, ROUTE, Settings};
use crate::execute::client::Client;
use crate::execute::client::Reported;
use crate::execute::failure::Failure;
use crate::execute::participant::Participant;
use crate::execute::participants::{Borrower, Need, Participants};
use crate::execute::report;
use crate::listener::DrainWatch;
use crate::metrics::Counters;
use crate::plan::{Layer, unreadable};
use crate::relations::SearchPath;
use crate::startup::ClientConnection;
use crate::topology::{Consistency, DatabaseTopology};
use crate::worker::Worker;
use switchyard_wire::backend::TransactionStatus;
use tokio::io::AsyncWriteExt;

/// What stands for the address of a client that has none, where replicas are chosen by it.
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Startup parameters that are no settings.
const NOT_SETTINGS: [&str; 4] = ["user", "database", "replication", "options"];

/// Why a client that has authenticated does not get a session.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("database \"{0}\" does not exist")]
    NoDatabase(Box<str>),
    /// In PostgreSQL's words.
    #[error("database \"{0}\" is not currently accepting connections")]
    Disabled(Box<str>),
    /// In PostgreSQL's words.
    #[error("too many connections for {what} \"{name}\"")]
    TooMany { what: &'static str, name: Box<str> },
    #[error("{0}")]
    Settings(Failure),
    #[error("the client has left")]
    Gone(#[from] std::io::Error),
}

/// Opens the session and makes it ready for the first query.
pub(super) async fn open(
    connection: ClientConnection,
    worker: Arc<Worker>,
) -> Result<Session, OpenError> {
    let topology = worker.services.topology.snapshot();
    let Some(database) = topology.database(&connection.database).cloned() else {
        let error = OpenError::NoDatabase((&*connection.database).into());
        return Err(refuse(connection, SqlState::INVALID_CATALOG_NAME, error).await);
    };
    if worker.services.gates.of(&database.name).is_disabled() {
        let error = OpenError::Disabled((&*database.name).into());
        let sqlstate = SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE;
        return Err(refuse(connection, sqlstate, error).await);
    }
    let mut session = new(connection, worker, database, topology.generation);
    if let Some(error) = session.is_one_too_many() {
        let sqlstate = SqlState::TOO_MANY_CONNECTIONS;
        session.say_goodbye(sqlstate, &error.to_string()).await;
        return Err(error);
    }
    session.read_names();
    session.greet().await?;
    Ok(session)
}

/// PostgreSQL, too, says what is wrong with a database only to those who have authenticated.
async fn refuse(
    mut connection: ClientConnection,
    sqlstate: SqlState,
    error: OpenError,
) -> OpenError {
    let mut output = BytesMut::new();
    report::fatal(&mut output, sqlstate, &error.to_string());
    match connection.stream.write_all(&output).await {
        Ok(()) => error,
        Err(gone) => OpenError::Gone(gone),
    }
}

/// The client's line in SHOW CLIENTS.
fn register(
    connection: &ClientConnection,
    worker: &Worker,
    database: &Arc<str>,
    user: &Arc<str>,
) -> Registration<ClientEntry> {
    worker.services.registry.enter_client(NewClient {
        user: Arc::clone(user),
        database: Arc::clone(database),
        address: connection.peer,
        worker: worker.index,
        tls: connection.stream.is_tls(),
        slot: Arc::clone(connection.cancel.slot()),
    })
}

/// What counts for the database on this worker.
fn count_login(worker: &Worker, database: &Arc<str>) -> Arc<Counters> {
    let metrics = &worker.services.metrics;
    let counters = metrics.counters(worker.index, database);
    counters.login();
    counters
}

/// A session that has not said anything yet.
fn new(
    connection: ClientConnection,
    worker: Arc<Worker>,
    database: Arc<DatabaseTopology>,
    generation: u64,
) -> Session {
    let process = worker.services.settings.load_full();
    let counters = count_login(&worker, &database.name);
    let client: Arc<str> = (&*connection.user).into();
    let mode = process.file.pool(&database.name, &client).mode;
    let settings = startup_settings(&connection.parameters);
    let entry = register(&connection, &worker, &database.name, &client);
    let login = process.file.pooling.logins.get(&*database.name);
    // To the nodes, and to all that plans, the session is his who logs in to them.
    let user = login.map_or(client, |login| login.as_str().into());
    if let Some(name) = settings.value_of("application_name") {
        entry.set_application_name(name);
    }
    let borrower = Borrower {
        counters: Arc::clone(&counters),
        client: entry.id,
        slot: Arc::clone(connection.cancel.slot()),
        turn: Arc::default(),
        worker: Arc::clone(&worker),
        user: Arc::clone(&user),
        address: connection.peer.map_or(LOCAL, |peer| peer.ip()),
        policy: process.file.router.read_policy,
        consistency: consistency(&process.file.router),
        keep: mode == PoolMode::Session,
    };
    Session {
        gate: worker.services.gates.of(&database.name),
        client: Client::new(
            connection.stream,
            connection.leftover,
            Arc::clone(&counters),
        ),
        counters,
        cancel: connection.cancel,
        entry,
        database,
        generation,
        participants: Participants::new(borrower),
        block: None,
        block_began: None,
        refuses_blocks: mode == PoolMode::Statement,
        settings: Arc::new(settings),
        search_path: SearchPath::default(),
        reading: Arc::default(),
        default_path: DEFAULT_SEARCH_PATH.into(),
        role: Arc::clone(&user),
        route_hint: None,
        layer: Layer::Auto,
        consistent_read: false,
        again: Again::default(),
        workspaces: Vec::new(),
        workspaces_opened: 0,
        read_within: 0,
        temporary: Vec::new(),
        before_ddl: None,
        listening: None,
        notifies: false,
        called: None,
        context: None,
        statements: ByName::default(),
        portals: ByName::default(),
        cursors: Vec::new(),
        cursors_apart: Vec::new(),
        batch: Batch::default(),
        described: Described::default(),
        lost_shown: false,
        drain: DrainWatch::new(connection.drain),
        overdue: OverdueWatch::default(),
        user,
        worker,
    }
}

/// The settings among the parameters of a startup packet.
fn startup_settings(parameters: &[(String, String)]) -> Settings {
    let settings = parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    Settings::from_startup(
        settings.filter(|(name, _)| !NOT_SETTINGS.contains(name) && !name.starts_with("_pq_.")),
    )
}

impl Session {
    /// Whether the database or the user has as many clients as it may have. Those count that were there before.
    fn is_one_too_many(&self) -> Option<OpenError> {
        let services = &self.worker.services;
        let settings = services.settings.load();
        let limits = settings.file.pool(&self.database.name, &self.entry.user);
        let limits = [
            (
                limits.max_db_client_connections,
                "database",
                &self.database.name,
            ),
            (limits.max_user_client_connections, "role", &self.entry.user),
        ];
        if limits.iter().all(|(limit, ..)| *limit == 0) {
            return None;
        }
        let mut clients = services.registry.clients();
        clients.retain(|client| client.id < self.entry.id);
        let of = |client: &ClientEntry, what| match what {
            "role" => Arc::clone(&client.user),
            _ => Arc::clone(&client.database),
        };
        limits.into_iter().find_map(|(limit, what, name)| {
            let count = clients.iter().filter(|client| of(client, what) == *name);
            let is_full = limit > 0 && count.count() >= limit as usize;
            is_full.then(|| OpenError::TooMany {
                what,
                name: (&**name).into(),
            })
        })
    }

    /// Reports the run-time parameters as a node reports them under the client's settings, and the cancel key.
    async fn greet(&mut self) -> Result<(), OpenError> {
        let reported = self.reported_parameters().await;
        if let Ok(reported) = &reported {
            self.take_defaults(&reported.defaults);
        }
        let parameters = match reported.and_then(|reported| self.readable(reported)) {
            Ok(parameters) => parameters,
            Err(failure) => {
                let report = report::of(&failure, Severity::Fatal);
                encode::error(&mut self.client.output, &report);
                self.client.flush().await?;
                return Err(OpenError::Settings(failure));
            }
        };
        if self.settings.value_of("search_path").is_none() {
            self.default_path = Arc::clone(&parameters.search_path);
            self.read_names();
        }
        self.client.tell_all(&parameters);
        let output = &mut self.client.output;
        encode::backend_key_data(output, self.cancel.pid, &self.cancel.secret);
        encode::ready_for_query(output, TransactionStatus::Idle);
        self.client.flush().await?;
        Ok(())
    }

    /// What ALTER ROLE and ALTER DATABASE have SET of the router's own settings holds as if the client had said it at login.
    fn take_defaults(&mut self, defaults: &[(Box<str>, Box<str>)]) {
        for (name, value) in defaults {
            self.settings = Arc::new(self.settings.with_default(name, value));
        }
        if !defaults.is_empty() {
            self.read_names();
        }
    }

    /// Sees to it that a session does not begin, by its startup packet or the servers' defaults, with what SET is refused
    /// for.
    fn readable(&self, reported: Arc<Reported>) -> Result<Arc<Reported>, Failure> {
        route_hint(self.settings.value_of(ROUTE))?;
        layer(self.settings.value_of(LAYER))?;
        consistent_read(self.settings.value_of(CONSISTENT_READ))?;
        let alone = self.database.shards.len() == 1;
        let refusal = reported
            .parameters
            .iter()
            .find_map(|(name, value)| unreadable(name, value, alone));
        match refusal {
            Some(refusal) => Err(Failure::Refused(Box::new(refusal))),
            None => Ok(reported),
        }
    }

    /// What a node reports when the session's settings hold: from a node the first time these settings are seen, remembered
    /// after that.
    pub(super) async fn reported_parameters(&mut self) -> Result<Arc<Reported>, Failure> {
        let worker = Arc::clone(&self.worker);
        let key = (
            Arc::clone(&self.database.name),
            Arc::clone(&self.role),
            Arc::clone(&self.settings),
        );
        if let Some((settings, known)) = worker.reported(self.generation, &key) {
            // Equal settings that are one value are compared by address from now on.
            self.settings = settings;
            return Ok(known);
        }
        let shard = self.any_shard();
        let settings = Arc::clone(&self.settings);
        let floors = self.participants.floors();
        let mut retries = READ_RETRIES;
        let reported = loop {
            let Self {
                participants,
                database,
                ..
            } = self;
            let joining = participants.join(database, shard, Need::Primary, &settings, None);
            let index = joining.await?;
            match self.participants.at(index)?.reported().await {
                Err(Failure::ShardLost { .. }) if retries > 0 => retries -= 1,
                reported => break reported?,
            }
            self.participants.close_broken(&self.database);
        };
        self.participants.release(&self.database).await;
        // What a server says of itself is no data: replicas may serve this session as before.
        self.participants.put_back_floors(floors);
        let reported = Arc::new(reported);
        worker.remember_reported(self.generation, key, Arc::clone(&reported));
        Ok(reported)
    }
}

/// PostgreSQL's own default of `search_path`, until a server has been asked.
const DEFAULT_SEARCH_PATH: &str = "\"$user\", public";

/// The defaults of the router's own settings, which servers do not apply: theirs are what the router connects with.
const DEFAULTS: &str = "\
SELECT pg_catalog.split_part(c.setting, '=', 1), pg_catalog.substr(c.setting, pg_catalog.strpos(c.setting, '=') + 1)
  FROM pg_catalog.pg_db_role_setting AS s, pg_catalog.unnest(s.setconfig) AS c (setting)
 WHERE c.setting LIKE 'switchyard.%'
   AND s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()))
   AND s.setrole IN (0, (SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname = SESSION_USER))
 ORDER BY s.setrole = 0, s.setdatabase = 0";

impl Participant {
    async fn reported(&mut self) -> Result<Reported, Failure> {
        let rows = self.connection.simple_query("SHOW search_path").await;
        let rows = rows.map_err(|error| self.query_failure(error))?;
        let path = rows.into_iter().flatten().flatten().next();
        let rows = self.connection.simple_query(DEFAULTS).await;
        let rows = rows.map_err(|error| self.query_failure(error))?;
        let defaults = rows.into_iter().filter_map(|row| {
            let mut values = row.into_iter().flatten();
            Some((values.next()?.into(), values.next()?.into()))
        });
        let defaults = defaults.collect();
        let parameters = self.connection.parameters();
        Ok(Reported {
            parameters: parameters
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            search_path: path.unwrap_or_default().into(),
            defaults,
        })
    }
}

fn consistency(router: &RouterConfig) -> Consistency {
    match router.consistency {
        switchyard_schema::Consistency::Session => Consistency::Session,
        switchyard_schema::Consistency::Strong => Consistency::Strong,
        switchyard_schema::Consistency::Eventual => Consistency::Eventual {
            max_lag: router.timeouts.max_replica_lag,
        },
    }
}
