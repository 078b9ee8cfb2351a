//! Copies of reference tables: all have to have the same rows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use switchyard_router::backend::TextRow;
use switchyard_schema::{ShardIndex, Table};

use super::report::Finding;
use super::{Error, ask_all, sql, texts};
use crate::servers::Server;

/// So often copies that differ are looked at again, and so long after the time before: a commit reaches one copy after the other.
const LOOKS: usize = 5;
const BETWEEN: Duration = Duration::from_millis(300);

/// A row by its hash, and which copy of it and of the first shard's has more of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Odd {
    shard: ShardIndex,
    hash: i64,
    /// It is this shard's that has more.
    extra: bool,
}

/// How many rows the first copy has, and how the others differ from it.
pub(super) async fn compare(
    servers: &mut [Server],
    table: &Table,
) -> Result<(u64, Vec<Finding>), Error> {
    let parts = ask_all(servers, &sql::parts(&table.name)).await?;
    let mut rows: u64 = 0;
    if let (Some(first), Some(parts)) = (servers.first(), parts.first()) {
        for part in parts {
            rows += first.number::<u64>(part, 1)?;
        }
    }
    let unlike = unlike(servers, &parts)?;
    if unlike.is_empty() {
        return Ok((rows, Vec::new()));
    }
    let mut odd: Option<BTreeSet<Odd>> = None;
    for _ in 0..LOOKS {
        if odd.is_some() {
            tokio::time::sleep(BETWEEN).await;
        }
        let hashes = ask_all(servers, &sql::rows(&table.name, &unlike)).await?;
        let now = odd_rows(servers, &hashes)?;
        let still = match odd {
            Some(before) => before.intersection(&now).copied().collect(),
            None => now,
        };
        if still.is_empty() {
            return Ok((rows, Vec::new()));
        }
        odd = Some(still);
    }
    let findings = findings(servers, table, &odd.unwrap_or_default()).await?;
    Ok((rows, findings))
}

/// The parts that are not alike everywhere.
fn unlike(servers: &[Server], parts: &[Vec<TextRow>]) -> Result<Vec<i64>, Error> {
    let of_copy = |rows: &Vec<TextRow>| -> BTreeSet<TextRow> { rows.iter().cloned().collect() };
    let copies: Vec<BTreeSet<TextRow>> = parts.iter().map(of_copy).collect();
    let mut unlike = BTreeSet::new();
    for (server, copy) in servers.iter().zip(&copies) {
        for part in copies.iter().flat_map(|other| copy.difference(other)) {
            unlike.insert(server.number(part, 0)?);
        }
    }
    Ok(unlike.into_iter().collect())
}

/// The rows of which the first copy and another have not as many.
fn odd_rows(servers: &[Server], hashes: &[Vec<TextRow>]) -> Result<BTreeSet<Odd>, Error> {
    let mut copies = Vec::with_capacity(servers.len());
    for (server, rows) in servers.iter().zip(hashes) {
        let count = |row| Ok((server.number(row, 0)?, server.number(row, 1)?));
        let copy: Result<BTreeMap<i64, u64>, Error> = rows.iter().map(count).collect();
        copies.push((server.shard, copy?));
    }
    let mut odd = BTreeSet::new();
    let Some(((_, first), others)) = copies.split_first() else {
        return Ok(odd);
    };
    for (shard, copy) in others {
        for hash in first.keys().chain(copy.keys()) {
            let (there, here) = (first.get(hash), copy.get(hash));
            if there != here {
                odd.insert(Odd {
                    shard: *shard,
                    hash: *hash,
                    extra: here > there,
                });
            }
        }
    }
    Ok(odd)
}

async fn findings(
    servers: &mut [Server],
    table: &Table,
    odd: &BTreeSet<Odd>,
) -> Result<Vec<Finding>, Error> {
    let Some((first, others)) = servers.split_first_mut() else {
        return Ok(Vec::new());
    };
    let mut findings = Vec::new();
    for server in others {
        let of = |extra: bool| -> Vec<i64> {
            let own = odd
                .iter()
                .filter(|row| row.shard == server.shard && row.extra == extra);
            own.map(|row| row.hash).collect()
        };
        let (missing, extra) = (of(false), of(true));
        let mut examples = Vec::new();
        if !missing.is_empty() {
            examples.extend(texts(
                first.ask(&sql::examples(&table.name, &missing)).await?,
            ));
        }
        if !extra.is_empty() {
            examples.extend(texts(
                server.ask(&sql::examples(&table.name, &extra)).await?,
            ));
        }
        if missing.is_empty() && extra.is_empty() {
            continue;
        }
        findings.push(Finding::Different {
            shard: server.name.clone(),
            missing: missing.len() as u64,
            extra: extra.len() as u64,
            examples,
        });
    }
    Ok(findings)
}
