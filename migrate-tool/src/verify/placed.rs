//! Rows of sharded tables: each has to be on the shard that its key says.

use postgres_protocol::escape::escape_identifier;
use switchyard_schema::{BucketMap, KeyType, ResolveError, ShardIndex, ShardKey, Table, shard_sql};

use super::report::Finding;
use super::{Error, ask_all, sql, texts};
use crate::servers::Server;

/// From a row to its shard, in SQL.
#[derive(Debug)]
pub(super) struct Rule {
    /// The key.
    key: String,
    /// The position of the shard that owns a row.
    owner: String,
}

impl Rule {
    /// The rule of a table with this key.
    ///
    /// # Errors
    /// The placement does not fit the key's type.
    pub(super) fn of(
        key: &ShardKey,
        key_type: KeyType,
        buckets: &BucketMap,
    ) -> Result<Rule, ResolveError> {
        let column = escape_identifier(&key.column);
        let owner = shard_sql(&key.method, key_type, &column, buckets)?;
        Ok(Rule { key: column, owner })
    }
}

/// How many rows there are, and those that are on a shard that does not own them.
pub(super) async fn look(
    servers: &mut [Server],
    table: &Table,
    rule: &Rule,
) -> Result<(u64, Vec<Finding>), Error> {
    let counted = ask_all(servers, &sql::owners(&table.name, &rule.owner)).await?;
    let names: Vec<String> = servers.iter().map(|server| server.name.clone()).collect();
    let (mut all, mut findings) = (0, Vec::new());
    for (server, owners) in servers.iter_mut().zip(counted) {
        for row in owners {
            let owner = ShardIndex(server.number(&row, 0)?);
            let rows: u64 = server.number(&row, 1)?;
            all += rows;
            if owner == server.shard {
                continue;
            }
            let strays = sql::strays(&table.name, &rule.key, &rule.owner, owner);
            findings.push(Finding::Misplaced {
                shard: server.name.clone(),
                owner: names.get(owner.position()).cloned().unwrap_or_default(),
                rows,
                keys: texts(server.ask(&strays).await?),
            });
        }
    }
    Ok((all, findings))
}
