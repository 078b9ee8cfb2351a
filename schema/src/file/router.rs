//! `[router]`, `[log]` and `[catalog]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::access::secret;
use super::address;
use super::pool;
use super::reader::{Item, Report, Section};
use crate::diagnostic::Diagnostic;
use crate::model::{
    Address, Catalog, ClientTls, Consistency, LogConfig, LogFormat, NodeTls, Peer, PoolMode,
    ReadPolicy, RouterConfig, Secret, SslMode, Timeouts,
};
use toml::de::DeTable;

/// `[router]`; all of it may be left out.
pub(super) fn router(item: Option<Item<'_>>) -> Option<RouterConfig> {
    let mut config = RouterConfig::default();
    let Some(item) = item else {
        return Some(config);
    };
    let mut section = item.section()?;
    fill(&mut config, &mut section);
    section.finish();
    Some(config)
}

/// The most routers behind one address.
const MOST_PEERS: u32 = 1023;

/// `[[peers]]`
pub(super) fn peers(root: &mut Section<'_>) -> Vec<Peer> {
    let mut peers: Vec<Peer> = Vec::new();
    for mut section in root.sections("peers") {
        let id = section.require("id", "the other router's peer_id");
        let host = section.require("host", "a name or an address");
        let port = section.get("port");
        let port = port.map_or(Some(6432), |item| item.integer(1..=65_535));
        let read = id.as_ref().and_then(|item| item.integer(1..=MOST_PEERS));
        let host = host.and_then(|item| item.text());
        section.finish();
        let (Some(item), Some(id), Some(host), Some(port)) = (id, read, host, port) else {
            continue;
        };
        if peers.iter().any(|peer| u32::from(peer.id) == id) {
            item.problem(format!("peer {id} is there twice"), None);
        }
        let address = Address {
            host: host.to_owned(),
            port: port as u16,
        };
        peers.push(Peer {
            id: id as u16,
            address,
        });
    }
    peers
}

impl RouterConfig {
    /// The same with another value of one key, as `SET` in the admin console writes it: a number, or text, in quotes or not.
    ///
    /// # Errors
    /// What the file would be told, with the places of a file of this line.
    pub fn with(&self, key: &str, value: &str) -> Result<Self, Vec<Diagnostic>> {
        let is_bare = value.parse::<u32>().is_ok() || matches!(value, "true" | "false");
        let value = match is_bare {
            true => value.to_owned(),
            false => format!("{value:?}"),
        };
        let is_key = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let key: String = key
            .bytes()
            .filter(|byte| is_key(*byte))
            .map(char::from)
            .collect();
        let text = format!("{key} = {value}");
        let report = Report::new(&text);
        let (document, errors) = DeTable::parse_recoverable(&text);
        for error in errors {
            report.add(0, "", error.message(), None);
        }
        let mut config = self.clone();
        let mut section = Section::root(&document, &report);
        fill(&mut config, &mut section);
        section.finish();
        let problems = report.into_diagnostics();
        match problems.is_empty() {
            true => Ok(config),
            false => Err(problems),
        }
    }
}

/// Puts what the section says in the place of what the configuration has.
fn fill(config: &mut RouterConfig, section: &mut Section<'_>) {
    let modes = PoolMode::ALL.map(|mode| (mode.name(), mode));
    let policies = ReadPolicy::ALL.map(|policy| (policy.name(), policy));
    let levels = Consistency::ALL.map(|level| (level.name(), level));
    set(&mut config.listen, section.get("listen"), address);
    set(&mut config.http, section.get("http"), |item| {
        address(item).map(Some)
    });
    set(
        &mut config.unix_socket_dir,
        section.get("unix_socket_dir"),
        |item| item.path().map(Some),
    );
    set(
        &mut config.so_reuseport,
        section.get("so_reuseport"),
        Item::boolean,
    );
    set(&mut config.peer_id, section.get("peer_id"), |item| {
        item.integer(0..=MOST_PEERS).map(|id| id as u16)
    });
    set(&mut config.workers, section.get("workers"), |item| {
        item.integer(1..=1024).map(|workers| Some(workers as u16))
    });
    set(&mut config.pool_mode, section.get("pool_mode"), |item| {
        item.choice(&modes)
    });
    set(
        &mut config.read_policy,
        section.get("read_policy"),
        |item| item.choice(&policies),
    );
    set(
        &mut config.consistency,
        section.get("consistency"),
        |item| item.choice(&levels),
    );
    set(
        &mut config.max_fetch_bytes,
        section.get("max_fetch_bytes"),
        Item::size,
    );
    set(
        &mut config.workspace_temp_limit,
        section.get("workspace_temp_limit"),
        Item::size_or_off,
    );
    counts(section, config);
    timeouts(section, &mut config.timeouts);
    set(&mut config.tls, section.get("tls"), |item| {
        client_tls(item).map(Some)
    });
}

fn counts(section: &mut Section<'_>, config: &mut RouterConfig) {
    let counts: [(&'static str, &mut u32, RangeInclusive<u32>); 11] = [
        ("pool_size", &mut config.pool_size, 1..=pool::MOST),
        ("min_pool_size", &mut config.min_pool_size, 0..=pool::MOST),
        (
            "reserve_pool_size",
            &mut config.reserve_pool_size,
            0..=pool::MOST,
        ),
        (
            "max_db_connections",
            &mut config.max_db_connections,
            0..=pool::MOST,
        ),
        (
            "max_user_connections",
            &mut config.max_user_connections,
            0..=pool::MOST,
        ),
        (
            "max_db_client_connections",
            &mut config.max_db_client_connections,
            0..=pool::MOST_CLIENTS,
        ),
        (
            "max_user_client_connections",
            &mut config.max_user_client_connections,
            0..=pool::MOST_CLIENTS,
        ),
        (
            "max_clients",
            &mut config.max_clients,
            1..=pool::MOST_CLIENTS,
        ),
        (
            "max_login_failures",
            &mut config.max_login_failures,
            0..=1_000_000,
        ),
        (
            "max_prepared_statements",
            &mut config.max_prepared_statements,
            1..=100_000,
        ),
        (
            "workspace_sessions",
            &mut config.workspace_sessions,
            1..=10_000,
        ),
    ];
    for (key, field, allowed) in counts {
        set(field, section.get(key), |item| item.integer(allowed));
    }
}

/// Puts what was read in the place of the default. A value that is wrong has been reported and changes nothing.
fn set<'a, T>(field: &mut T, item: Option<Item<'a>>, read: impl FnOnce(&Item<'a>) -> Option<T>) {
    if let Some(value) = item.and_then(|item| read(&item)) {
        *field = value;
    }
}

fn timeouts(section: &mut Section<'_>, timeouts: &mut Timeouts) {
    let Timeouts {
        drain,
        client_login,
        client_idle,
        idle_transaction,
        transaction,
        query,
        query_wait,
        reserve_pool,
        server_login_retry,
        connect,
        server_idle,
        server_lifetime,
        health_interval,
        health_timeout,
        max_replica_lag,
    } = timeouts;
    let always: [(&'static str, &mut Duration); 9] = [
        ("drain_timeout", drain),
        ("client_login_timeout", client_login),
        ("query_wait_timeout", query_wait),
        ("reserve_pool_timeout", reserve_pool),
        ("server_login_retry", server_login_retry),
        ("connect_timeout", connect),
        ("health_interval", health_interval),
        ("health_timeout", health_timeout),
        ("max_replica_lag", max_replica_lag),
    ];
    for (key, field) in always {
        set(field, section.get(key), Item::duration);
    }
    let optional: [(&'static str, &mut Option<Duration>); 6] = [
        ("client_idle_timeout", client_idle),
        ("idle_transaction_timeout", idle_transaction),
        ("transaction_timeout", transaction),
        ("query_timeout", query),
        ("server_idle_timeout", server_idle),
        ("server_lifetime", server_lifetime),
    ];
    for (key, field) in optional {
        set(field, section.get(key), Item::duration_or_off);
    }
}

fn address(item: &Item<'_>) -> Option<Address> {
    let address = address::parse(item.string()?);
    if address.is_none() {
        item.problem("is not an address", Some(address::FORM));
    }
    address
}

fn client_tls(item: &Item<'_>) -> Option<ClientTls> {
    let mut section = item.section()?;
    let file = "a PEM file, relative to this one";
    let cert = section.require("cert", file).and_then(|item| item.path());
    let key = section.require("key", file).and_then(|item| item.path());
    let client_ca = section.get("client_ca").and_then(|item| item.path());
    let required = section.get("required").and_then(|item| item.boolean());
    section.finish();
    Some(ClientTls {
        cert: cert?,
        key: key?,
        client_ca,
        required: required.unwrap_or(false),
    })
}

/// `[log]`
pub(super) fn log(item: Option<Item<'_>>) -> Option<LogConfig> {
    let mut config = LogConfig::default();
    let Some(item) = item else {
        return Some(config);
    };
    let mut section = item.section()?;
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let forms = [("redacted", false), ("full", true)];
    set(&mut config.format, section.get("format"), |item| {
        item.choice(&formats)
    });
    set(&mut config.filter, section.get("level"), |item| {
        item.text().map(str::to_owned)
    });
    set(&mut config.full_sql, section.get("sql"), |item| {
        item.choice(&forms)
    });
    section.finish();
    Some(config)
}

/// `[catalog]`
pub(super) fn catalog(item: &Item<'_>) -> Option<Catalog> {
    let mut section = item.section()?;
    let url = section.require("url", address::URL_FORM);
    let password = secret(&mut section);
    let tls = node_tls(&mut section, &NodeTls::default());
    let parsed = url.as_ref().and_then(|item| {
        let parsed = address::parse_url(item.string()?);
        parsed
            .map_err(|problem| item.problem(problem, Some(address::URL_FORM)))
            .ok()
    });
    section.finish();
    let (url, parsed) = (url?, parsed?);
    let password = match (parsed.password, password.into_secret()) {
        (Some(_), Some(_)) => {
            url.problem("there is a password in the URL and another beside it", None);
            return None;
        }
        (Some(password), None) => Some(Secret::Inline(password)),
        (None, secret) => secret,
    };
    Some(Catalog {
        host: parsed.host,
        port: parsed.port,
        user: parsed.user,
        database: parsed.database,
        password,
        tls,
    })
}

/// `sslmode` and `sslrootcert`, each falling back to the enclosing section's.
pub(super) fn node_tls(section: &mut Section<'_>, outer: &NodeTls) -> NodeTls {
    let mode = section.get("sslmode");
    let root_cert = section.get("sslrootcert").and_then(|item| item.path());
    let chosen = mode
        .as_ref()
        .and_then(|item| item.choice(&address::SSL_MODES));
    let tls = NodeTls {
        mode: chosen.unwrap_or(outer.mode),
        root_cert: root_cert.or_else(|| outer.root_cert.clone()),
    };
    let verifies = matches!(tls.mode, SslMode::VerifyCa | SslMode::VerifyFull);
    if let (true, None, Some(mode)) = (verifies, &tls.root_cert, mode) {
        mode.problem(
            "needs authorities to check certificates against",
            Some("set sslrootcert to a PEM file"),
        );
    }
    tls
}
