//! The answers to SHOW, in PgBouncer's columns where they make sense. Pure: a [`View`] in, a [`Table`] out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use switchyard_schema::{Distribution, Role};

use super::command::Topic;
use super::registry::ClientState;
use super::view::View;
use crate::metrics::Totals;
use crate::topology::Observed;

/// A column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// `text`
    Text,
    /// `int8`
    Int8,
}

/// The rows of an answer, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Names and types.
    pub columns: Vec<(&'static str, ColumnType)>,
    /// Values, in the order of the columns.
    pub rows: Vec<Vec<Option<String>>>,
}

/// One value of a row.
enum Value {
    Text(String),
    Number(u64),
    Null,
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

impl Table {
    fn new(columns: &[(&'static str, ColumnType)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    fn push(&mut self, row: impl IntoIterator<Item = Value>) {
        let text = |value| match value {
            Value::Text(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            Value::Null => None,
        };
        let row: Vec<_> = row.into_iter().map(text).collect();
        debug_assert_eq!(row.len(), self.columns.len());
        self.rows.push(row);
    }
}

/// `row![a, b]`: values of a row.
macro_rules! row {
    ($($value:expr),* $(,)?) => { [$(Value::from($value)),*] };
}

use ColumnType::{Int8, Text};

/// Answers `SHOW topic`.
#[must_use]
pub fn show(topic: Topic, view: &View) -> Table {
    match topic {
        Topic::Help => help(),
        Topic::Version => version(),
        Topic::Config => config(view),
        Topic::Databases => databases(view),
        Topic::Shards => shards(view),
        Topic::Nodes => nodes(view),
        Topic::Tables => tables(view),
        Topic::Buckets => buckets(view),
        Topic::Pools => pools(view),
        Topic::Clients => clients(view),
        Topic::Servers => servers(view),
        Topic::Stats => stats(view),
    }
}

/// The columns of `SHOW topic`, which a Describe wants before there are rows.
#[must_use]
pub fn columns(topic: Topic, view: &View) -> Vec<(&'static str, ColumnType)> {
    show(topic, view).columns
}

fn help() -> Table {
    let mut table = Table::new(&[("command", Text)]);
    for topic in Topic::ALL {
        table.push(row![format!("SHOW {}", topic.word())]);
    }
    table.push(row!["RELOAD"]);
    table
}

fn version() -> Table {
    let mut table = Table::new(&[("version", Text)]);
    table.push(row![concat!("Switchyard ", env!("CARGO_PKG_VERSION"))]);
    table
}

fn config(view: &View) -> Table {
    let mut table = Table::new(&[("key", Text), ("value", Text)]);
    let router = &view.settings.file.router;
    let timeouts = &router.timeouts;
    let duration = |time: Duration| format!("{time:?}");
    let optional = |time: Option<Duration>| time.map_or("off".to_owned(), duration);
    let address = |address: &switchyard_schema::Address| address.to_string();
    let values = [
        ("config_file", view.settings.path.display().to_string()),
        ("listen", address(&router.listen)),
        (
            "http",
            router.http.as_ref().map_or("off".to_owned(), address),
        ),
        (
            "tls",
            if router.tls.is_some() { "on" } else { "off" }.to_owned(),
        ),
        (
            "pool_mode",
            format!("{:?}", router.pool_mode).to_lowercase(),
        ),
        ("pool_size", router.pool_size.to_string()),
        ("max_clients", router.max_clients.to_string()),
        (
            "max_prepared_statements",
            router.max_prepared_statements.to_string(),
        ),
        ("read_policy", read_policy(router.read_policy).to_owned()),
        (
            "consistency",
            format!("{:?}", router.consistency).to_lowercase(),
        ),
        ("drain_timeout", duration(timeouts.drain)),
        ("client_login_timeout", duration(timeouts.client_login)),
        ("client_idle_timeout", optional(timeouts.client_idle)),
        (
            "idle_transaction_timeout",
            optional(timeouts.idle_transaction),
        ),
        ("query_timeout", optional(timeouts.query)),
        ("query_wait_timeout", duration(timeouts.query_wait)),
        ("connect_timeout", duration(timeouts.connect)),
        ("server_idle_timeout", optional(timeouts.server_idle)),
        ("server_lifetime", optional(timeouts.server_lifetime)),
        ("health_interval", duration(timeouts.health_interval)),
        ("health_timeout", duration(timeouts.health_timeout)),
        ("max_replica_lag", duration(timeouts.max_replica_lag)),
        ("catalog", view.catalog.label().to_owned()),
    ];
    for (key, value) in values {
        table.push(row![key, value]);
    }
    table
}

fn read_policy(policy: switchyard_schema::ReadPolicy) -> &'static str {
    match policy {
        switchyard_schema::ReadPolicy::RoundRobin => "round-robin",
        switchyard_schema::ReadPolicy::LeastConnections => "least-connections",
        switchyard_schema::ReadPolicy::ClientAddress => "client-address",
        switchyard_schema::ReadPolicy::Primary => "primary",
    }
}

fn databases(view: &View) -> Table {
    let mut table = Table::new(&[
        ("name", Text),
        ("shards", Int8),
        ("nodes", Int8),
        ("pool_size", Int8),
        ("pool_mode", Text),
        ("current_connections", Int8),
        ("clients", Int8),
        ("epoch", Int8),
        ("generation", Int8),
        ("problems", Int8),
    ]);
    let router = &view.settings.file.router;
    for database in view.topology.databases.values() {
        let nodes: usize = database.shards.iter().map(|shard| shard.nodes.len()).sum();
        let pools = view
            .pools
            .iter()
            .filter(|pool| pool.database == database.name);
        let connections: usize = pools.map(|pool| pool.active + pool.idle).sum();
        let clients = view
            .clients
            .iter()
            .filter(|client| client.database == database.name);
        table.push(row![
            &*database.name,
            database.shards.len(),
            nodes,
            u64::from(router.pool_size),
            format!("{:?}", router.pool_mode).to_lowercase(),
            connections,
            clients.count(),
            database.epoch,
            database.generation,
            database.relations.problems().len(),
        ]);
    }
    table
}

fn shards(view: &View) -> Table {
    let mut table = Table::new(&[
        ("database", Text),
        ("shard", Text),
        ("position", Int8),
        ("weight", Int8),
        ("primary", Text),
        ("primary_state", Text),
        ("replicas", Int8),
        ("replicas_up", Int8),
        ("buckets", Int8),
        ("sample", Int8),
    ]);
    for database in view.topology.databases.values() {
        let buckets = database.buckets.counts(database.shards.len());
        for (position, shard) in database.shards.iter().enumerate() {
            let weight = database
                .schema
                .shards
                .get(position)
                .map_or(0, |shard| shard.weight);
            let primary = shard.primary();
            let up = shard
                .replicas()
                .filter(|node| node.observed() == Observed::Standby);
            table.push(row![
                &*database.name,
                &*shard.name,
                position,
                u64::from(weight),
                format!("{}:{}", primary.host, primary.port),
                primary.observed().label(),
                shard.replicas().count(),
                up.count(),
                buckets.get(position).copied().unwrap_or(0),
                shard.samples().started(),
            ]);
        }
    }
    table
}

fn nodes(view: &View) -> Table {
    let mut table = Table::new(&[
        ("id", Int8),
        ("database", Text),
        ("shard", Text),
        ("host", Text),
        ("port", Int8),
        ("role", Text),
        ("state", Text),
        ("zone", Text),
        ("lag_ms", Int8),
        ("passed_sample", Int8),
        ("incarnation", Int8),
        ("in_use", Int8),
        ("failures", Int8),
    ]);
    for located in view.nodes() {
        let node = located.node;
        let replica = node.role == Role::Replica;
        let (incarnation, passed) = node.passed();
        let lag = u64::try_from(node.lag().as_millis()).unwrap_or(u64::MAX);
        let lag = (replica && lag < u64::MAX).then_some(lag);
        let zone = node.zone.as_deref();
        table.push([
            u64::from(node.id.0).into(),
            (&*located.database.name).into(),
            (&*located.shard.name).into(),
            (&*node.host).into(),
            u64::from(node.port).into(),
            node.role.to_string().into(),
            node.observed().label().into(),
            zone.map_or(Value::Null, Value::from),
            lag.map_or(Value::Null, Value::from),
            if replica { passed.into() } else { Value::Null },
            u64::from(incarnation.0).into(),
            node.in_use().into(),
            node.failures().into(),
        ]);
    }
    table
}

fn tables(view: &View) -> Table {
    let mut table = Table::new(&[
        ("database", Text),
        ("table", Text),
        ("method", Text),
        ("shard_key", Text),
        ("key_type", Text),
        ("colocate_with", Text),
        ("shards", Text),
        ("problem", Text),
    ]);
    for database in view.topology.databases.values() {
        for configured in &database.schema.tables {
            let name = &configured.name;
            let problems = database.relations.problems().iter();
            let problem = problems
                .filter(|problem| problem.table == *name)
                .map(|problem| problem.message.as_str());
            let problem: Vec<_> = problem.collect();
            let (method, key) = match &configured.distribution {
                Distribution::Reference => ("reference", None),
                Distribution::Sharded(key) => (key.method.name(), Some(key)),
            };
            let relation = database.relations.get(&name.schema, &name.name);
            let map = relation
                .and_then(|relation| relation.sharding())
                .map(|sharding| &sharding.map);
            let shards = match map {
                Some(map) => map
                    .shards()
                    .iter()
                    .filter_map(|index| database.shards.get(index.position()))
                    .map(|shard| shard.name.to_string())
                    .collect::<Vec<_>>()
                    .join(", "),
                None if key.is_none() => "all".to_owned(),
                None => "unknown".to_owned(),
            };
            let or_null = |text: Option<String>| text.map_or(Value::Null, Value::from);
            table.push([
                (&*database.name).into(),
                name.to_string().into(),
                method.into(),
                or_null(key.map(|key| key.column.clone())),
                or_null(map.map(|map| map.key_type().name().to_owned())),
                or_null(
                    key.and_then(|key| key.colocate_with.as_ref())
                        .map(ToString::to_string),
                ),
                shards.into(),
                or_null((!problem.is_empty()).then(|| problem.join("; "))),
            ]);
        }
    }
    table
}

fn buckets(view: &View) -> Table {
    let mut table = Table::new(&[
        ("database", Text),
        ("shard", Text),
        ("buckets", Int8),
        ("share", Text),
        ("epoch", Int8),
    ]);
    for database in view.topology.databases.values() {
        let counts = database.buckets.counts(database.shards.len());
        for (shard, count) in database.shards.iter().zip(counts) {
            let share = 100.0 * count as f64 / switchyard_schema::BUCKETS as f64;
            table.push(row![
                &*database.name,
                &*shard.name,
                count,
                format!("{share:.2} %"),
                database.epoch,
            ]);
        }
    }
    table
}

fn pools(view: &View) -> Table {
    let mut table = Table::new(&[
        ("database", Text),
        ("user", Text),
        ("shard", Text),
        ("node", Text),
        ("role", Text),
        ("cl_waiting", Int8),
        ("sv_active", Int8),
        ("sv_idle", Int8),
        ("pool_size", Int8),
        ("waited", Int8),
        ("pool_mode", Text),
    ]);
    let mode = format!("{:?}", view.settings.file.router.pool_mode).to_lowercase();
    for pool in &view.pools {
        let located = view.node(pool.node);
        let (shard, address, role) = match &located {
            Some(located) => (
                located.shard.name.to_string(),
                located.address(),
                located.node.role.to_string(),
            ),
            None => (
                "removed".to_owned(),
                "removed".to_owned(),
                "removed".to_owned(),
            ),
        };
        table.push(row![
            &*pool.database,
            &*pool.user,
            shard,
            address,
            role,
            pool.waiting,
            pool.active,
            pool.idle,
            pool.size,
            pool.waited,
            mode.as_str(),
        ]);
    }
    table
}

fn clients(view: &View) -> Table {
    let mut table = Table::new(&[
        ("type", Text),
        ("id", Int8),
        ("user", Text),
        ("database", Text),
        ("state", Text),
        ("addr", Text),
        ("port", Int8),
        ("connect_time", Text),
        ("request_time", Text),
        ("queries", Int8),
        ("transactions", Int8),
        ("pinned", Text),
        ("worker", Int8),
        ("tls", Text),
        ("application_name", Text),
    ]);
    for client in &view.clients {
        let (address, port) = match client.address {
            Some(address) => (address.ip().to_string(), u64::from(address.port())),
            None => ("unix".to_owned(), 0),
        };
        let request = match client.request_at_ms() {
            0 => Value::Null,
            at_ms => time(UNIX_EPOCH + Duration::from_millis(at_ms)).into(),
        };
        table.push([
            "C".into(),
            client.id.into(),
            (&*client.user).into(),
            (&*client.database).into(),
            client.state().label().into(),
            address.into(),
            port.into(),
            time(client.connected_at).into(),
            request,
            client.queries().into(),
            client.transactions().into(),
            client.pinned().label().into(),
            client.worker.into(),
            if client.tls { "on" } else { "" }.into(),
            (&*client.application_name()).into(),
        ]);
    }
    table
}

fn servers(view: &View) -> Table {
    let mut table = Table::new(&[
        ("type", Text),
        ("id", Int8),
        ("user", Text),
        ("database", Text),
        ("state", Text),
        ("addr", Text),
        ("port", Int8),
        ("shard", Text),
        ("role", Text),
        ("connect_time", Text),
        ("client", Int8),
        ("served", Int8),
        ("remote_pid", Int8),
    ]);
    for server in &view.servers {
        let located = view.node(server.node);
        let text = |text: Option<String>| text.map_or(Value::Null, Value::from);
        let state = if server.client() == 0 {
            "idle"
        } else {
            "active"
        };
        let client = server.client();
        table.push([
            "S".into(),
            server.id.into(),
            (&*server.user).into(),
            (&*server.database).into(),
            state.into(),
            text(located.map(|located| located.node.host.to_string())),
            located.map_or(Value::Null, |located| u64::from(located.node.port).into()),
            text(located.map(|located| located.shard.name.to_string())),
            text(located.map(|located| located.node.role.to_string())),
            time(server.connected_at).into(),
            if client == 0 {
                Value::Null
            } else {
                client.into()
            },
            u64::from(server.served()).into(),
            u64::from(server.pid).into(),
        ]);
    }
    table
}

fn stats(view: &View) -> Table {
    let mut table = Table::new(&[
        ("database", Text),
        ("total_xact_count", Int8),
        ("total_query_count", Int8),
        ("total_received", Int8),
        ("total_sent", Int8),
        ("total_query_time", Int8),
        ("total_wait_time", Int8),
        ("total_logins", Int8),
        ("total_errors", Int8),
        ("plan_cache_hits", Int8),
        ("plan_cache_misses", Int8),
        ("clients_active", Int8),
        ("clients_waiting", Int8),
    ]);
    for (database, totals) in &view.totals {
        let clients = |state| {
            let clients = view
                .clients
                .iter()
                .filter(|client| client.database == *database);
            clients.filter(|client| client.state() == state).count()
        };
        let Totals {
            queries, errors, ..
        } = totals;
        table.push(row![
            &**database,
            totals.transactions,
            queries.iter().sum::<u64>(),
            totals.received,
            totals.sent,
            totals.query_us,
            totals.wait_us,
            totals.logins,
            errors.iter().sum::<u64>(),
            totals.plan_hits,
            totals.plan_misses,
            clients(ClientState::Active),
            clients(ClientState::Waiting),
        ]);
    }
    table
}

/// A time as `2026-01-31 12:00:00 UTC`.
fn time(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!(
        "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02} UTC",
        second % 60
    )
}

/// The date so many days after 1970-01-01, by the proleptic Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years that begin in March end with the leap day; eras of 400 years are all alike.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (year_of_era + era * 400 + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        let at = |seconds| time(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(at(951_868_799), "2000-02-29 23:59:59 UTC");
        assert_eq!(at(951_868_800), "2000-03-01 00:00:00 UTC");
        assert_eq!(at(4_107_542_399), "2100-02-28 23:59:59 UTC");
        assert_eq!(at(4_107_542_400), "2100-03-01 00:00:00 UTC");
        assert_eq!(at(1_790_000_000), "2026-09-21 14:13:20 UTC");
    }
}
