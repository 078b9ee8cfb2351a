//! Rows of sharded tables: each has to be on the shard that its key says.

use std::time::Instant;

use futures_util::future::try_join_all;
use postgres_protocol::escape::escape_identifier;
use switchyard_schema::{BucketMap, KeyType, ResolveError, ShardIndex, ShardKey, Table, shard_sql};

use super::progress::{Owners, Progress};
use super::report::Finding;
use super::{Error, sql, texts};
use crate::names::quoted;
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
    progress: &Progress,
) -> Result<(u64, Vec<Finding>), Error> {
    let counting = servers
        .iter_mut()
        .map(async |server| match progress.piece() {
            Some(piece) => count_in_pieces(server, table, rule, (progress, piece)).await,
            None => {
                count(
                    server,
                    &sql::owners(&quoted(&table.name), &rule.owner, None),
                )
                .await
            }
        });
    let counted = try_join_all(counting).await?;
    let names: Vec<String> = servers.iter().map(|server| server.name.clone()).collect();
    let (mut all, mut findings) = (0, Vec::new());
    for (server, owners) in servers.iter_mut().zip(counted) {
        for (owner, rows) in owners {
            let owner = ShardIndex(owner);
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

/// The rows that an answer is about, by their owners.
async fn count(server: &mut Server, sql: &str) -> Result<Owners, Error> {
    let mut owners = Owners::new();
    for row in server.ask(sql).await? {
        owners.insert(server.number(&row, 0)?, server.number(&row, 1)?);
    }
    Ok(owners)
}

/// The same of a table, some pages at a time, but for those that have been looked at already.
async fn count_in_pieces(
    server: &mut Server,
    table: &Table,
    rule: &Rule,
    (progress, piece): (&Progress, u64),
) -> Result<Owners, Error> {
    let mut owners = Owners::new();
    for row in server.ask(&sql::stored(&table.name)).await? {
        let pages: u64 = server.number(&row, 1)?;
        let stored = row.into_iter().next().flatten().unwrap_or_default();
        let name = format!("{} {} {stored}", server.database(), server.name);
        let mut seen = progress.of(&name, &rule.owner);
        while !seen.all {
            let began = Instant::now();
            let to = seen.pages + piece;
            // What is behind the last page by now belongs to the last piece.
            seen.all = to >= pages;
            let part = (seen.pages, (!seen.all).then_some(to));
            let found = count(server, &sql::owners(&stored, &rule.owner, Some(part))).await?;
            for (owner, rows) in found {
                *seen.owners.entry(owner).or_default() += rows;
            }
            seen.pages = to;
            progress.note(&name, &seen)?;
            tokio::time::sleep(progress.rest(began.elapsed())).await;
        }
        for (owner, rows) in seen.owners {
            *owners.entry(owner).or_default() += rows;
        }
    }
    Ok(owners)
}
