//! `/metrics`: the counters and the state of everything, in OpenMetrics' text form.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use switchyard_schema::Role;

use super::{ErrorClass, RouteKind, Totals};
use crate::admin::View;
use crate::admin::registry::ClientState;
use crate::admin::view::{Located, PoolReading};
use crate::backend::Purpose;
use crate::control::CatalogStatus;
use crate::topology::Observed;

/// The content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics as of the view's moment.
///
/// # Errors
/// Never in practice: text grows until memory ends.
pub fn render(view: View) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("switchyard");
    registry.register_collector(Box::new(Scrape(view)));
    let mut text = String::with_capacity(16 << 10);
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Scrape(View);

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.process(&mut page)?;
        self.traffic(&mut page)?;
        self.clients(&mut page)?;
        self.nodes(&mut page)?;
        self.pools(&mut page)?;
        self.databases(&mut page)
    }
}

type Labels<'a> = &'a [(&'a str, &'a str)];

/// Name, help, and how to read the value.
type Reading<T> = (&'static str, &'static str, fn(&T) -> f64);

/// What is counted by database and nothing else.
const TOTALS: [Reading<Totals>; 11] = [
    ("logins", "Clients let in", |totals| totals.logins as f64),
    ("transactions", "Transactions ended", |totals| {
        totals.transactions as f64
    }),
    ("received_bytes", "Bytes read from clients", |totals| {
        totals.received as f64
    }),
    ("sent_bytes", "Bytes written to clients", |totals| {
        totals.sent as f64
    }),
    (
        "query_seconds",
        "Time from statements to the end of their answers",
        |totals| totals.query_us as f64 / 1e6,
    ),
    (
        "wait_seconds",
        "Time sessions waited for connections to nodes",
        |totals| totals.wait_us as f64 / 1e6,
    ),
    (
        "plan_cache_hits",
        "Statements whose plan was known",
        |totals| totals.plan_hits as f64,
    ),
    (
        "plan_cache_misses",
        "Statements that had to be planned",
        |totals| totals.plan_misses as f64,
    ),
    (
        "bind_joins",
        "Statements sent to shards with the rows of their small tables, instead of to a workspace",
        |totals| totals.bind_joins as f64,
    ),
    (
        "fetched_rows",
        "Rows brought from shards into workspaces, or to other shards",
        |totals| totals.fetched_rows as f64,
    ),
    (
        "fetched_bytes",
        "Bytes of rows brought from shards into workspaces, or to other shards",
        |totals| totals.fetched_bytes as f64,
    ),
];

/// Families of one label set after the other.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauges<'f>(
        &'f mut self,
        name: &'f str,
        help: &str,
        each: impl FnOnce(&mut dyn FnMut(Labels<'_>, f64) -> fmt::Result) -> fmt::Result,
    ) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        each(&mut |labels, value| match labels {
            [] => family.encode_gauge(&value),
            labels => ConstGauge::new(value).encode(family.encode_family(&labels)?),
        })
    }

    fn counters<'f>(
        &'f mut self,
        name: &'f str,
        help: &str,
        each: impl FnOnce(&mut dyn FnMut(Labels<'_>, f64) -> fmt::Result) -> fmt::Result,
    ) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        each(&mut |labels, value| ConstCounter::new(value).encode(family.encode_family(&labels)?))
    }
}

impl Scrape {
    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let view = &self.0;
        let version = env!("CARGO_PKG_VERSION");
        page.gauges("build_info", "The version that runs", |put| {
            put(&[("version", version)], 1.0)
        })?;
        let up = view
            .taken_at
            .duration_since(view.started_at)
            .unwrap_or_default();
        page.gauges("uptime_seconds", "Time since the process started", |put| {
            put(&[], up.as_secs_f64())
        })?;
        page.gauges(
            "topology_generation",
            "Grows with every change of the topology in force",
            |put| put(&[], view.topology.generation as f64),
        )?;
        if view.catalog == CatalogStatus::None {
            return Ok(());
        }
        page.gauges("catalog_up", "Whether the catalog answers", |put| {
            put(&[], f64::from(u8::from(view.catalog == CatalogStatus::Up)))
        })
    }

    fn traffic(&self, page: &mut Page<'_>) -> fmt::Result {
        let totals = &self.0.totals;
        page.counters("queries", "Statements by where they went", |put| {
            for (database, totals) in totals {
                for (route, count) in RouteKind::ALL.iter().zip(totals.queries) {
                    put(
                        &[("database", database), ("route", route.label())],
                        count as f64,
                    )?;
                }
            }
            Ok(())
        })?;
        page.counters("errors", "Errors sent to clients, by class", |put| {
            for (database, totals) in totals {
                for (class, count) in ErrorClass::ALL.iter().zip(totals.errors) {
                    put(
                        &[("database", database), ("class", class.label())],
                        count as f64,
                    )?;
                }
            }
            Ok(())
        })?;
        for (name, help, read) in TOTALS {
            page.counters(name, help, |put| {
                totals
                    .iter()
                    .try_for_each(|(database, totals)| put(&[("database", database)], read(totals)))
            })?;
        }
        Ok(())
    }

    fn clients(&self, page: &mut Page<'_>) -> fmt::Result {
        let view = &self.0;
        page.gauges("clients", "Clients by what they do", |put| {
            for database in view.topology.databases.keys() {
                for state in ClientState::ALL {
                    let clients = view.clients.iter();
                    let count = clients
                        .filter(|client| client.database == *database && client.state() == state)
                        .count();
                    let labels = [("database", &**database), ("state", state.label())];
                    put(&labels, count as f64)?;
                }
            }
            Ok(())
        })?;
        page.gauges(
            "listening_clients",
            "Clients that listen to notifications",
            |put| {
                for database in view.topology.databases.keys() {
                    let clients = view.clients.iter();
                    let listen = clients
                        .filter(|client| client.database == *database && client.listens())
                        .count();
                    put(&[("database", database)], listen as f64)?;
                }
                Ok(())
            },
        )?;
        let limit = f64::from(view.settings.file.router.max_clients);
        page.gauges("clients_limit", "The most clients there may be", |put| {
            put(&[], limit)
        })
    }

    fn nodes(&self, page: &mut Page<'_>) -> fmt::Result {
        let each = |put: &mut dyn FnMut(Labels<'_>, f64) -> fmt::Result,
                    read: fn(&Located<'_>) -> Option<f64>| {
            self.0.nodes().try_for_each(|located| match read(&located) {
                Some(value) => put(&node_labels(&located, &located.address()), value),
                None => Ok(()),
            })
        };
        let is_replica = |located: &Located<'_>| located.node.role == Role::Replica;
        page.gauges(
            "node_up",
            "Whether the node answers and is what it is configured to be",
            |put| {
                each(put, |located| {
                    let wanted = match located.node.role {
                        Role::Primary => Observed::Primary,
                        Role::Replica => Observed::Standby,
                    };
                    Some(f64::from(u8::from(located.node.observed() == wanted)))
                })
            },
        )?;
        page.gauges(
            "node_connections_in_use",
            "Connections that serve a session",
            |put| each(put, |located| Some(located.node.in_use() as f64)),
        )?;
        page.gauges(
            "replica_lag_seconds",
            "At most how far the replica is behind its primary",
            |put| {
                self.0.nodes().filter(is_replica).try_for_each(|located| {
                    let lag = located.node.lag();
                    // Not known yet.
                    if lag.as_millis() >= u128::from(u64::MAX) {
                        return Ok(());
                    }
                    put(
                        &node_labels(&located, &located.address()),
                        lag.as_secs_f64(),
                    )
                })
            },
        )?;
        page.counters(
            "node_failures",
            "Times a session found the node gone",
            |put| each(put, |located| Some(located.node.failures() as f64)),
        )
    }

    fn pools(&self, page: &mut Page<'_>) -> fmt::Result {
        let readings: [Reading<PoolReading>; 4] = [
            (
                "pool_active",
                "Connections that serve a session or are being opened",
                |pool| pool.active as f64,
            ),
            ("pool_idle", "Connections at rest", |pool| pool.idle as f64),
            (
                "pool_waiting",
                "Sessions that wait for a connection",
                |pool| pool.waiting as f64,
            ),
            ("pool_limit", "The most connections there may be", |pool| {
                pool.size as f64
            }),
        ];
        for (name, help, read) in readings {
            page.gauges(name, help, |put| self.by_node(put, read))?;
        }
        page.counters(
            "pool_waits",
            "Times a session had to wait for a connection",
            |put| self.by_node(put, |pool| pool.waited as f64),
        )
    }

    /// The sums over the pools of each node, by what they are for: users are no label.
    fn by_node(
        &self,
        put: &mut dyn FnMut(Labels<'_>, f64) -> fmt::Result,
        read: impl Fn(&PoolReading) -> f64,
    ) -> fmt::Result {
        self.0.nodes().try_for_each(|located| {
            let address = located.address();
            let [database, shard, node, role] = node_labels(&located, &address);
            Purpose::ALL.into_iter().try_for_each(|purpose| {
                let pools = self.0.pools.iter();
                let pools =
                    pools.filter(|pool| pool.node == located.node.id && pool.purpose == purpose);
                let labels = [database, shard, node, role, ("purpose", purpose.label())];
                // The sum of nothing is -0.
                put(&labels, pools.map(&read).fold(0.0, |sum, one| sum + one))
            })
        })
    }

    fn databases(&self, page: &mut Page<'_>) -> fmt::Result {
        let databases = &self.0.topology.databases;
        page.gauges(
            "catalog_epoch",
            "Version of the bucket map in force",
            |put| {
                databases.iter().try_for_each(|(name, database)| {
                    put(&[("database", name)], database.epoch as f64)
                })
            },
        )?;
        page.gauges(
            "movement_active",
            "Whether rows may be on their way from shard to shard",
            |put| {
                databases.iter().try_for_each(|(name, database)| {
                    let is_moving = f64::from(u8::from(database.is_moving));
                    put(&[("database", name)], is_moving)
                })
            },
        )?;
        page.gauges(
            "movement_buckets_left",
            "Buckets that are still to move, where a movement has begun",
            |put| {
                databases.iter().try_for_each(|(name, database)| {
                    let Some(movement) = database.movement else {
                        return Ok(());
                    };
                    put(&[("database", name)], movement.buckets[1] as f64)
                })
            },
        )?;
        page.gauges(
            "schema_problems",
            "Tables whose configuration and columns disagree",
            |put| {
                databases.iter().try_for_each(|(name, database)| {
                    put(
                        &[("database", name)],
                        database.relations.problems().len() as f64,
                    )
                })
            },
        )
    }
}

fn node_labels<'a>(located: &Located<'a>, address: &'a str) -> [(&'a str, &'a str); 4] {
    let role = match located.node.role {
        Role::Primary => "primary",
        Role::Replica => "replica",
    };
    [
        ("database", &*located.database.name),
        ("shard", &*located.shard.name),
        ("node", address),
        ("role", role),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::sample;

    #[test]
    fn the_page_is_complete_and_well_formed() {
        let text = render(sample::view()).unwrap();
        for line in [
            "switchyard_queries_total{database=\"shop\",route=\"primary\"} 1.0",
            "switchyard_errors_total{database=\"shop\",class=\"unsupported\"} 1.0",
            "switchyard_clients{database=\"shop\",state=\"active\"} 1.0",
            "switchyard_listening_clients{database=\"shop\"} 0.0",
            "switchyard_pool_waiting{database=\"shop\",shard=\"s0\",node=\"a:1\",role=\"primary\",purpose=\"sessions\"} 4.0",
            "switchyard_pool_waiting{database=\"shop\",shard=\"s0\",node=\"a:1\",role=\"primary\",purpose=\"workspaces\"} 0.0",
            "switchyard_bind_joins_total{database=\"shop\"} 1.0",
            "switchyard_fetched_rows_total{database=\"shop\"} 2.0",
            "switchyard_fetched_bytes_total{database=\"shop\"} 99.0",
            "switchyard_node_up{database=\"shop\",shard=\"s0\",node=\"b:2\",role=\"replica\"} 0.0",
            "switchyard_catalog_up 0.0",
            "switchyard_uptime_seconds 5.0",
            "# EOF",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
        let names = text.lines().filter(|line| line.starts_with("# TYPE "));
        let mut names: Vec<_> = names.collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a family appears twice");
    }
}
