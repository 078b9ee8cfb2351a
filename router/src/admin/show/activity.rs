//! Who uses the router, and how much: pools, clients, connections to nodes, counters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::registry::{ClientState, ServerEntry};
use crate::admin::table::{List, Table};
use crate::admin::time::readable;
use crate::admin::view::{Located, PoolReading, View};
use crate::config::Rights;
use crate::metrics::Totals;
use crate::plan::Pin;

/// Where a pool's or a connection's node is; `None` once the topology has it no more.
type Place<'a> = Option<Located<'a>>;

/// A database and a user, whatever nodes their pools lead to: what PgBouncer calls a pool.
struct Together<'a> {
    database: &'a str,
    user: &'a str,
    pools: Vec<&'a PoolReading>,
    clients: Vec<ClientState>,
}

impl Together<'_> {
    fn sum(&self, of: impl Fn(&PoolReading) -> usize) -> usize {
        self.pools.iter().map(|pool| of(pool)).sum()
    }

    fn waiting(&self) -> usize {
        let clients = self.clients.iter();
        clients.filter(|s| **s == ClientState::Waiting).count()
    }

    fn longest_wait(&self) -> Duration {
        let waits = self.pools.iter().map(|pool| pool.longest_wait);
        waits.max().unwrap_or_default()
    }
}

/// In PgBouncer's columns. What it has states of its own for is 0: a cancel request waits for nothing here, and a connection is tested
/// as it is lent.
pub(super) fn pools(view: &View) -> Table {
    type Key<'a> = (&'a str, &'a str);
    let mut together: BTreeMap<Key<'_>, Together<'_>> = BTreeMap::new();
    fn of<'a, 'm>(
        all: &'m mut BTreeMap<Key<'a>, Together<'a>>,
        (database, user): Key<'a>,
    ) -> &'m mut Together<'a> {
        all.entry((database, user)).or_insert_with(|| Together {
            database,
            user,
            pools: Vec::new(),
            clients: Vec::new(),
        })
    }
    for pool in &view.pools {
        let key = (&*pool.database, &*pool.user);
        of(&mut together, key).pools.push(pool);
    }
    for client in &view.clients {
        let key = (&*client.database, &*client.user);
        of(&mut together, key).clients.push(client.state());
    }
    List::of(together.into_values())
        .text("database", |pool| pool.database)
        .text("user", |pool| pool.user)
        .number("cl_active", |pool| pool.clients.len() - pool.waiting())
        .number("cl_waiting", Together::waiting)
        .number("cl_active_cancel_req", |_| 0_usize)
        .number("cl_waiting_cancel_req", |_| 0_usize)
        .number("sv_active", |pool| {
            pool.sum(|pool| pool.active - pool.opening)
        })
        .number("sv_active_cancel", |_| 0_usize)
        .number("sv_being_canceled", |_| 0_usize)
        .number("sv_idle", |pool| pool.sum(|pool| pool.idle))
        .number("sv_used", |_| 0_usize)
        .number("sv_tested", |_| 0_usize)
        .number("sv_login", |pool| pool.sum(|pool| pool.opening))
        .number("maxwait", |pool| pool.longest_wait().as_secs())
        .number("maxwait_us", |pool| {
            u64::from(pool.longest_wait().subsec_micros())
        })
        .text("pool_mode", |pool| {
            let file = &view.settings.file;
            file.pool(pool.database, pool.user).mode.name()
        })
        .done()
}

/// As the router has them: each node's of its own.
pub(super) fn node_pools(view: &View) -> Table {
    const REMOVED: &str = "removed";
    let pools = view.pools.iter().map(|pool| (pool, view.node(pool.node)));
    List::of(pools)
        .text("database", |(pool, _)| &*pool.database)
        .text("user", |(pool, _)| &*pool.user)
        .text("shard", |(_, place): &(_, Place<'_>)| {
            place.map_or(REMOVED, |located| &located.shard.name)
        })
        .text("node", |(_, place)| {
            place.map_or(REMOVED.to_owned(), |located| located.address())
        })
        .text("role", |(_, place)| {
            place.map_or(REMOVED.to_owned(), |located| located.node.role.to_string())
        })
        .number("cl_waiting", |(pool, _)| pool.waiting)
        .number("sv_active", |(pool, _)| pool.active)
        .number("sv_idle", |(pool, _)| pool.idle)
        .number("pool_size", |(pool, _)| pool.size)
        .number("waited", |(pool, _)| pool.waited)
        .text("pool_mode", |(pool, _)| {
            let file = &view.settings.file;
            file.pool(&pool.database, &pool.user).mode.name()
        })
        .text("purpose", |(pool, _)| pool.purpose.label())
        .done()
}

pub(super) fn clients(view: &View) -> Table {
    List::of(&view.clients)
        .text("type", |_| "C")
        .number("id", |client| client.id)
        .text("user", |client| &*client.user)
        .text("database", |client| &*client.database)
        .text("state", |client| client.state().label())
        .text("addr", |client| {
            let address = client.address;
            address.map_or("unix".to_owned(), |address| address.ip().to_string())
        })
        .number("port", |client| {
            client.address.map_or(0, |address| address.port())
        })
        .text("connect_time", |client| readable(client.connected_at))
        .text("request_time", |client| client.request_at().map(readable))
        .number("queries", |client| client.queries())
        .number("transactions", |client| client.transactions())
        .text("pinned", |client| {
            let reasons: Vec<&str> = client.pins().iter().map(Pin::label).collect();
            reasons.join(", ")
        })
        .number("worker", |client| client.worker)
        .text("tls", |client| if client.tls { "on" } else { "" })
        .text("application_name", |client| {
            client.application_name().to_string()
        })
        .done()
}

pub(super) fn servers(view: &View) -> Table {
    let servers = view
        .servers
        .iter()
        .map(|server| (server, view.node(server.node)));
    List::of(servers)
        .text("type", |_| "S")
        .number("id", |(server, _)| server.id)
        .text("user", |(server, _)| &*server.user)
        .text("database", |(server, _)| &*server.database)
        .text("state", |(server, _)| server_state(server))
        .text("addr", |(_, place): &(_, Place<'_>)| {
            place.map(|located| &*located.node.host)
        })
        .number("port", |(_, place)| place.map(|located| located.node.port))
        .text("shard", |(_, place)| {
            place.map(|located| &*located.shard.name)
        })
        .text("role", |(_, place)| {
            place.map(|located| located.node.role.to_string())
        })
        .text("connect_time", |(server, _)| readable(server.connected_at))
        .number("client", |(server, _)| {
            Some(server.client()).filter(|client| *client > 0)
        })
        .number("served", |(server, _)| server.served())
        .number("remote_pid", |(server, _)| server.pid)
        .done()
}

fn server_state(server: &ServerEntry) -> &'static str {
    match server.client() {
        0 => "idle",
        _ => "active",
    }
}

pub(super) fn stats(view: &View) -> Table {
    let clients = |database: &str, state: ClientState| {
        let clients = view.clients.iter();
        let own = clients.filter(|client| *client.database == *database);
        own.filter(|client| client.state() == state).count()
    };
    stats_totals(view)
        .number("clients_active", |(database, _)| {
            clients(database, ClientState::Active)
        })
        .number("clients_waiting", |(database, _)| {
            clients(database, ClientState::Waiting)
        })
        .done()
}

/// What has been counted since the start, by database.
pub(super) fn stats_totals(view: &View) -> List<(&Arc<str>, &Totals)> {
    List::of(&view.totals)
        .text("database", |(database, _)| database.to_string())
        .number("total_xact_count", |(_, totals)| totals.transactions)
        .number("total_query_count", |(_, totals)| {
            totals.queries.iter().sum::<u64>()
        })
        .number("total_received", |(_, totals)| totals.received)
        .number("total_sent", |(_, totals)| totals.sent)
        .number("total_xact_time", |(_, totals)| totals.transaction_us)
        .number("total_query_time", |(_, totals)| totals.query_us)
        .number("total_wait_time", |(_, totals)| totals.wait_us)
        .number("total_logins", |(_, totals)| totals.logins)
        .number("total_errors", |(_, totals)| {
            totals.errors.iter().sum::<u64>()
        })
        .number("plan_cache_hits", |(_, totals)| totals.plan_hits)
        .number("plan_cache_misses", |(_, totals)| totals.plan_misses)
}

/// The same, added up.
pub(super) fn totals(view: &View) -> Table {
    let counted = stats_totals(view).done();
    let sum = |column: usize| -> u64 {
        let values = counted
            .rows
            .iter()
            .filter_map(|row| row.get(column)?.as_ref());
        values.filter_map(|value| value.parse::<u64>().ok()).sum()
    };
    let columns = counted.columns.iter().enumerate().skip(1);
    List::of(columns.map(|(column, (name, _))| (*name, sum(column))))
        .text("name", |(name, _)| *name)
        .number("value", |(_, value)| *value)
        .done()
}

pub(super) fn lists(view: &View) -> Table {
    let idle = |server: &&Arc<ServerEntry>| server.client() == 0;
    let free = view.servers.iter().filter(idle).count();
    let counts = [
        ("databases", view.topology.databases.len()),
        ("users", view.settings.users.iter().count()),
        ("pools", view.pools.len()),
        ("free_clients", 0),
        ("used_clients", view.clients.len()),
        ("free_servers", free),
        ("used_servers", view.servers.len() - free),
        ("peers", view.settings.file.peers.len()),
        // Names are looked up as connections are made, and not kept.
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
    ];
    List::of(counts)
        .text("list", |(list, _)| *list)
        .number("items", |(_, items)| *items)
        .done()
}

pub(super) fn users(view: &View) -> Table {
    let file = &view.settings.file;
    let rules = |name: &str| {
        let rules = file.pooling.users.get(name);
        rules.copied().unwrap_or_default()
    };
    let clients = |name: &str| {
        let clients = view.clients.iter();
        clients.filter(|client| *client.user == *name).count()
    };
    let servers = |name: &str| {
        let servers = view.servers.iter();
        servers.filter(|server| *server.user == *name).count()
    };
    List::of(view.settings.users.iter())
        .text("name", |user| user.name.to_string())
        .number("pool_size", |user| rules(&user.name).size)
        .text("pool_mode", |user| {
            rules(&user.name).mode.map(|mode| mode.name())
        })
        .number("max_user_connections", |user| {
            let own = rules(&user.name).max_connections;
            own.unwrap_or(file.router.max_user_connections)
        })
        .number("current_connections", |user| servers(&user.name))
        .number("max_user_client_connections", |user| {
            let own = rules(&user.name).max_clients;
            own.unwrap_or(file.router.max_user_client_connections)
        })
        .number("current_client_connections", |user| clients(&user.name))
        .text("admin", |user| match user.rights {
            Rights::All => "yes",
            Rights::None | Rights::Show => "no",
        })
        .text("stats", |user| match user.rights {
            Rights::All | Rights::Show => "yes",
            Rights::None => "no",
        })
        .done()
}

pub(super) fn state(view: &View) -> Table {
    let word = |is_so: bool| if is_so { "yes" } else { "no" };
    let paused = !view.paused.is_empty();
    let states = [("active", word(!paused)), ("paused", word(paused))];
    List::of(states)
        .text("key", |(key, _)| *key)
        .text("value", |(_, value)| *value)
        .done()
}

/// Clients and connections to nodes: all of them, or those at work.
pub(super) fn sockets(view: &View, at_work: bool) -> Table {
    struct Socket<'a> {
        kind: &'static str,
        id: u64,
        user: &'a str,
        database: &'a str,
        state: &'static str,
        address: String,
        port: u16,
    }
    let clients = view.clients.iter().map(|client| Socket {
        kind: "C",
        id: client.id,
        user: &client.user,
        database: &client.database,
        state: client.state().label(),
        address: client
            .address
            .map_or("unix".to_owned(), |address| address.ip().to_string()),
        port: client.address.map_or(0, |address| address.port()),
    });
    let servers = view.servers.iter().map(|server| {
        let place = view.node(server.node);
        Socket {
            kind: "S",
            id: server.id,
            user: &server.user,
            database: &server.database,
            state: server_state(server),
            address: place
                .as_ref()
                .map_or(String::new(), |at| at.node.host.to_string()),
            port: place.map_or(0, |at| at.node.port),
        }
    });
    let is_idle = |socket: &Socket<'_>| socket.state == ClientState::Idle.label();
    let sockets = clients.chain(servers);
    List::of(sockets.filter(|socket| !at_work || !is_idle(socket)))
        .text("type", |socket| socket.kind)
        .number("id", |socket| socket.id)
        .text("user", |socket| socket.user.to_owned())
        .text("database", |socket| socket.database.to_owned())
        .text("state", |socket| socket.state)
        .text("addr", |socket| socket.address.clone())
        .number("port", |socket| socket.port)
        .done()
}

/// The memory of the process, as the system counts it.
pub(super) fn memory(view: &View) -> Table {
    List::of(&view.system.memory)
        .text("name", |(name, _)| name.clone())
        .number("memtotal", |(_, bytes)| *bytes)
        .done()
}

/// What the process has open.
pub(super) fn descriptors(view: &View) -> Table {
    List::of(&view.system.descriptors)
        .number("fd", |(number, _)| *number)
        .text("target", |(_, target)| target.clone())
        .done()
}
