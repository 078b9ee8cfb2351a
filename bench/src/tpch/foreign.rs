//! A PostgreSQL whose tables are on the shards' servers, by postgres_fdw: what can be had without a router.

use std::fmt::Write;

use switchyard_cluster::{APP_USER, Cluster, Node, Table};
use switchyard_tpch::{Layout, tables};

use crate::Error;
use crate::pgbench::{DATABASE, PASSWORD};

/// Where its rows are on each shard's server. PostgreSQL's hash partitions are not our buckets: with rows placed as it would
/// place them it can skip the partitions that a key is not in, too.
const SCHEMA: &str = "fdw";

/// Loads the rows and starts it, with everything on that makes it faster: scans of the shards at the same time, joins and
/// aggregates partition by partition, large fetches, the shards' own estimates.
pub(crate) fn start(cluster: &Cluster, layout: Layout, scale: f64) -> Result<Box<dyn Node>, Error> {
    std::thread::scope(|scope| {
        let shards = 0..cluster.shards().len();
        let fill = |shard| scope.spawn(move || fill(cluster, layout, scale, shard));
        let threads: Vec<_> = shards.map(fill).collect();
        threads
            .into_iter()
            .try_for_each(|thread| match thread.join() {
                Ok(filled) => filled,
                Err(panic) => std::panic::resume_unwind(panic),
            })
    })?;
    let settings = cluster.spec().settings.clone();
    let settings = settings
        .with("enable_partitionwise_join", "on")
        .with("enable_partitionwise_aggregate", "on");
    let node = cluster.provider().primary("coordinator", &settings)?;
    let superuser = |database: &str, sql: &str| {
        cluster
            .superuser_sql(node.as_ref(), database, sql)
            .map(drop)
    };
    superuser(
        "postgres",
        &format!("CREATE ROLE {APP_USER} LOGIN PASSWORD '{PASSWORD}'"),
    )?;
    superuser(
        "postgres",
        &format!("CREATE DATABASE {DATABASE} OWNER {APP_USER}"),
    )?;
    superuser(DATABASE, &servers(cluster))?;
    cluster.sql(node.as_ref(), &foreign_tables(cluster, layout))?;
    cluster.sql(node.as_ref(), "ANALYZE")?;
    Ok(node)
}

/// Puts on a shard's server what PostgreSQL's own partitioning would: everything goes into a partitioned table, of which one
/// partition stays. The tables of the shard itself are there already.
fn fill(cluster: &Cluster, layout: Layout, scale: f64, shard: usize) -> Result<(), Error> {
    let modulus = cluster.shards().len();
    let node = cluster.shard(shard).primary.as_ref();
    let mut before = format!("CREATE SCHEMA {SCHEMA};\n");
    let mut after = String::new();
    // Writing to a string cannot fail.
    for (table, key) in layout.shard_keys() {
        let _ = writeln!(
            before,
            "CREATE TABLE {SCHEMA}.{table} (LIKE public.{table} INCLUDING ALL) PARTITION BY HASH ({key});"
        );
        for remainder in 0..modulus {
            let _ = writeln!(
                before,
                "CREATE TABLE {SCHEMA}.{table}_{remainder} PARTITION OF {SCHEMA}.{table} \
                 FOR VALUES WITH (MODULUS {modulus}, REMAINDER {remainder});"
            );
        }
        let _ = writeln!(
            after,
            "ALTER TABLE {SCHEMA}.{table} DETACH PARTITION {SCHEMA}.{table}_{shard};\nDROP TABLE {SCHEMA}.{table};"
        );
    }
    let tables = tables(scale);
    let names: Vec<String> = tables
        .iter()
        .map(|table| format!("{SCHEMA}.{}", table.name))
        .collect();
    let qualified: Vec<Table<'_>> = tables
        .into_iter()
        .zip(&names)
        .map(|(table, name)| Table { name, ..table })
        .collect();
    cluster.load_whole(node, &qualified, &before)?;
    cluster.sql(node, &after)?;
    Ok(())
}

/// The shards as foreign servers.
fn servers(cluster: &Cluster) -> String {
    let mut sql = "CREATE EXTENSION postgres_fdw;\n".to_owned();
    for shard in cluster.shards() {
        let (name, host, port) = (&shard.name, shard.primary.host(), shard.primary.port());
        // Writing to a string cannot fail.
        let _ = writeln!(
            sql,
            "CREATE SERVER {name} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{host}', port '{port}', \
             dbname '{DATABASE}', fetch_size '10000', async_capable 'true', use_remote_estimate 'true');\n\
             CREATE USER MAPPING FOR {APP_USER} SERVER {name} OPTIONS (user '{APP_USER}', password '{PASSWORD}');\n\
             GRANT USAGE ON FOREIGN SERVER {name} TO {APP_USER};"
        );
    }
    sql
}

/// Each table with one partition per shard.
fn foreign_tables(cluster: &Cluster, layout: Layout) -> String {
    let mut sql = format!(
        "CREATE SCHEMA model;\nSET search_path = model;\n{}\nSET search_path = public;\n",
        switchyard_tpch::DDL
    );
    let shards = cluster.shards();
    for (table, key) in layout.shard_keys() {
        // Writing to a string cannot fail.
        let _ = writeln!(
            sql,
            "CREATE TABLE {table} (LIKE model.{table}) PARTITION BY HASH ({key});"
        );
        for (index, shard) in shards.iter().enumerate() {
            let (name, modulus) = (&shard.name, shards.len());
            let _ = writeln!(
                sql,
                "CREATE FOREIGN TABLE {table}_{name} PARTITION OF {table} \
                 FOR VALUES WITH (MODULUS {modulus}, REMAINDER {index}) \
                 SERVER {name} OPTIONS (schema_name '{SCHEMA}', table_name '{table}_{index}');"
            );
        }
    }
    sql + "DROP SCHEMA model CASCADE;"
}
