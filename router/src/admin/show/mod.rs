//! The answers to SHOW, in PgBouncer's columns where they make sense. Pure: a [`View`] in, a [`Table`] out.
//!
//! `map` shows how the data is laid out and on which servers, `activity` who uses it and how much.

mod activity;
mod map;

use std::time::Duration;

use switchyard_schema::RouterConfig;

use super::command::Topic;
use super::order::Order;
use super::table::{ColumnType, List, Table};
use super::view::View;
use crate::config::AT_START;

/// Answers `SHOW topic`.
#[must_use]
pub fn show(topic: Topic, view: &View) -> Table {
    match topic {
        Topic::Help => help(),
        Topic::Version => version(),
        Topic::Config => config(view),
        Topic::Databases => map::databases(view),
        Topic::Shards => map::shards(view),
        Topic::Nodes => map::nodes(view),
        Topic::Tables => map::tables(view),
        Topic::Buckets => map::buckets(view),
        Topic::Migrations => map::migrations(view),
        Topic::Pools => activity::pools(view),
        Topic::NodePools => activity::node_pools(view),
        Topic::Clients => activity::clients(view),
        Topic::Servers => activity::servers(view),
        Topic::Stats => activity::stats(view),
        Topic::StatsTotals => activity::stats_totals(view).done(),
        Topic::Totals => activity::totals(view),
        Topic::Lists => activity::lists(view),
        Topic::Users => activity::users(view),
        Topic::State => activity::state(view),
        Topic::Sockets => activity::sockets(view, false),
        Topic::ActiveSockets => activity::sockets(view, true),
        Topic::Mem => activity::memory(view),
        Topic::Fds => activity::descriptors(view),
        Topic::Peers => map::peers(view),
    }
}

/// The columns of `SHOW topic`, which a Describe wants before there are rows.
#[must_use]
pub fn columns(topic: Topic, view: &View) -> Vec<(&'static str, ColumnType)> {
    show(topic, view).columns
}

fn help() -> Table {
    let show = Topic::ALL
        .into_iter()
        .map(|topic| format!("SHOW {}", topic.word()));
    let orders = Order::FORMS.into_iter().map(str::to_owned);
    let others = ["RELOAD", "SET <key> = <value>"].map(str::to_owned);
    List::of(show.chain(others).chain(orders))
        .text("command", String::clone)
        .done()
}

fn version() -> Table {
    List::of([concat!("Switchyard ", env!("CARGO_PKG_VERSION"))])
        .text("version", |version| *version)
        .done()
}

/// Every key, and by its default whether somebody has set it. PgBouncer's names stand beside ours where they are others.
fn config(view: &View) -> Table {
    let in_force = values(&view.settings.file.router);
    let defaults = values(&RouterConfig::default());
    let pairs = in_force.into_iter().zip(defaults);
    let pairs = pairs.map(|((key, value), (_, default))| (key, value, Some(default)));
    let facts = [
        (
            "config_file",
            view.settings.path.display().to_string(),
            None,
        ),
        ("catalog", view.catalog.label().to_owned(), None),
    ];
    List::of(facts.into_iter().chain(pairs))
        .text("key", |(key, _, _)| *key)
        .text("value", |(_, value, _)| value.clone())
        .text("default", |(_, _, default)| default.clone())
        .text("changeable", |(key, _, default)| {
            match default.is_some() && !AT_START.contains(key) {
                true => "yes",
                false => "no",
            }
        })
        .done()
}

fn values(router: &RouterConfig) -> Vec<(&'static str, String)> {
    let timeouts = &router.timeouts;
    let duration = |time: Duration| format!("{time:?}");
    let optional = |time: Option<Duration>| time.map_or("off".to_owned(), duration);
    let http = router.http.as_ref();
    let tls = if router.tls.is_some() { "on" } else { "off" };
    vec![
        ("listen", router.listen.to_string()),
        ("http", http.map_or("off".to_owned(), ToString::to_string)),
        ("so_reuseport", router.so_reuseport.to_string()),
        ("peer_id", router.peer_id.to_string()),
        ("tls", tls.to_owned()),
        ("pool_mode", router.pool_mode.name().to_owned()),
        ("pool_size", router.pool_size.to_string()),
        ("default_pool_size", router.pool_size.to_string()),
        ("min_pool_size", router.min_pool_size.to_string()),
        ("reserve_pool_size", router.reserve_pool_size.to_string()),
        ("max_db_connections", router.max_db_connections.to_string()),
        (
            "max_user_connections",
            router.max_user_connections.to_string(),
        ),
        ("max_clients", router.max_clients.to_string()),
        ("max_client_conn", router.max_clients.to_string()),
        (
            "max_db_client_connections",
            router.max_db_client_connections.to_string(),
        ),
        (
            "max_user_client_connections",
            router.max_user_client_connections.to_string(),
        ),
        ("max_login_failures", router.max_login_failures.to_string()),
        (
            "max_prepared_statements",
            router.max_prepared_statements.to_string(),
        ),
        ("max_fetch_bytes", router.max_fetch_bytes.to_string()),
        ("workspace_sessions", router.workspace_sessions.to_string()),
        (
            "workspace_temp_limit",
            router
                .workspace_temp_limit
                .map_or("off".to_owned(), |limit| limit.to_string()),
        ),
        ("read_policy", router.read_policy.name().to_owned()),
        ("consistency", router.consistency.name().to_owned()),
        ("drain_timeout", duration(timeouts.drain)),
        ("client_login_timeout", duration(timeouts.client_login)),
        ("client_idle_timeout", optional(timeouts.client_idle)),
        (
            "idle_transaction_timeout",
            optional(timeouts.idle_transaction),
        ),
        ("transaction_timeout", optional(timeouts.transaction)),
        ("query_timeout", optional(timeouts.query)),
        ("query_wait_timeout", duration(timeouts.query_wait)),
        ("reserve_pool_timeout", duration(timeouts.reserve_pool)),
        ("server_login_retry", duration(timeouts.server_login_retry)),
        ("connect_timeout", duration(timeouts.connect)),
        ("server_idle_timeout", optional(timeouts.server_idle)),
        ("server_lifetime", optional(timeouts.server_lifetime)),
        ("health_interval", duration(timeouts.health_interval)),
        ("health_timeout", duration(timeouts.health_timeout)),
        ("max_replica_lag", duration(timeouts.max_replica_lag)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::sample;

    /// A row as `column=value`, those that are NULL left out.
    fn row(topic: Topic, number: usize) -> String {
        let table = show(topic, &sample::view());
        let named = table.columns.iter().zip(&table.rows[number]);
        let shown =
            named.filter_map(|((name, _), value)| Some(format!("{name}={}", value.as_ref()?)));
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_map_says_where_data_lies() {
        assert_eq!(
            row(Topic::Databases, 0),
            "name=shop host=a port=1 database=shop shards=2 nodes=3 pool_size=20 min_pool_size=0 reserve_pool_size=0 pool_mode=transaction \
             max_connections=0 current_connections=5 max_client_connections=0 current_client_connections=1 \
             epoch=0 generation=1 problems=0 paused=1 disabled=0"
        );
        assert_eq!(
            row(Topic::Shards, 0),
            "database=shop shard=s0 position=0 weight=1 primary=a:1 primary_state=unknown replicas=1 \
             replicas_up=0 buckets=8211 sample=0"
        );
        assert_eq!(
            row(Topic::Nodes, 1),
            "id=2 database=shop shard=s0 host=b port=2 role=replica state=unknown zone=z lag_ms=0 \
             passed_sample=0 incarnation=0 in_use=0 failures=0"
        );
        assert_eq!(
            row(Topic::Tables, 0),
            "database=shop table=users method=hash shard_key=id shards=unknown"
        );
        assert_eq!(
            row(Topic::Buckets, 1),
            "database=shop shard=s1 buckets=8173 share=49.88 % epoch=0"
        );
    }

    #[test]
    fn activity_says_who_does_what() {
        assert_eq!(
            row(Topic::Pools, 0),
            "database=shop user=app cl_active=1 cl_waiting=0 cl_active_cancel_req=0 cl_waiting_cancel_req=0 sv_active=1 \
             sv_active_cancel=0 sv_being_canceled=0 sv_idle=3 sv_used=0 sv_tested=0 sv_login=1 maxwait=2 maxwait_us=500000 \
             pool_mode=transaction"
        );
        assert_eq!(
            row(Topic::NodePools, 0),
            "database=shop user=app shard=s0 node=a:1 role=primary cl_waiting=4 sv_active=2 sv_idle=3 \
             pool_size=20 waited=5 pool_mode=transaction purpose=sessions"
        );
        let client = row(Topic::Clients, 0);
        assert!(
            client.starts_with("type=C id=1 user=app database=shop state=active addr=unix port=0")
        );
        assert!(client.ends_with("pinned= worker=0 tls=on application_name=test"));
        let server = row(Topic::Servers, 0);
        assert!(server.starts_with(
            "type=S id=1 user=app database=shop state=idle addr=b port=2 shard=s0 role=replica"
        ));
        assert!(server.ends_with("served=0 remote_pid=77"), "{server}");
        let stats = row(Topic::Stats, 0);
        assert!(stats.starts_with("database=shop total_xact_count=0 total_query_count=1"));
        assert!(stats.ends_with("clients_active=1 clients_waiting=0"));
        let totals = row(Topic::StatsTotals, 0);
        assert!(stats.starts_with(&totals) && totals.ends_with("plan_cache_misses=0"));
        assert_eq!(row(Topic::Totals, 1), "name=total_query_count value=1");
        assert_eq!(
            row(Topic::Config, 0),
            "key=config_file value=sample.toml changeable=no"
        );
        let keys = [
            "key=listen value=127.0.0.1:6432 default=127.0.0.1:6432 changeable=no",
            "key=max_client_conn value=10000 default=10000 changeable=yes",
        ];
        let config: Vec<String> = (0..20).map(|number| row(Topic::Config, number)).collect();
        for key in keys {
            assert!(config.contains(&key.to_owned()), "{config:#?}");
        }
    }
}
