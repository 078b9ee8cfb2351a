//! Global unique indexes (ADR 0021): what a statement has changed of a column, as triggers have recorded it on the shards of the rows, is
//! brought to the shards of the values, in the same transaction and before the client is told.
//!
//! Shard by shard, and there in the order in which it was done: one server, too, looks for each row whether its value is there already.

use std::fmt::Write;
use std::sync::Arc;

use postgres_protocol::escape::escape_identifier;
use switchyard_schema::ShardIndex;

use super::Session;
use crate::execute::failure::Failure;
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::plan::{Plan, Refusal};
use crate::relations::GlobalIndex;

/// So many changes are taken at a time.
const MOST: usize = 10_000;

/// One change, as `…_take` says it: what has been done, the bucket of the value, and the rest for `…_apply`.
struct Change {
    is_truncation: bool,
    shard: ShardIndex,
    line: String,
}

impl Change {
    /// What is behind the operation and the bucket.
    fn body(&self) -> &str {
        self.line.rsplit(' ').next().unwrap_or_default()
    }
}

impl Session {
    /// Keeps the global unique indexes of the tables that a statement may have written, in a block, which is there. A value that is
    /// there already fails the statement.
    pub(super) async fn keep_unique(&mut self, plan: &Plan) -> Result<(), Trouble> {
        let Some(indexes) = &plan.unique else {
            return Ok(());
        };
        for index in Arc::clone(indexes).iter() {
            Box::pin(self.keep_index(index, plan)).await?;
        }
        Ok(())
    }

    async fn keep_index(&mut self, index: &GlobalIndex, plan: &Plan) -> Result<(), Trouble> {
        let held = self.participants.iter();
        let held = held.filter(|held| held.in_block && held.is_primary && held.changed);
        let mut written: Vec<ShardIndex> = held.map(|held| held.shard).collect();
        written.sort_unstable();
        let mut truncated = 0;
        for shard in written {
            loop {
                let changes = self.taken(shard, index, plan).await?;
                let is_last = changes.len() < MOST;
                truncated += changes.iter().filter(|change| change.is_truncation).count();
                self.apply(&changes, index, plan).await?;
                if is_last {
                    break;
                }
            }
        }
        match truncated == 0 || truncated == self.database.shards.len() {
            true => Ok(()),
            false => Err(one_truncated(index)),
        }
    }

    /// What has been recorded on a shard, in order; it is not there any more then.
    async fn taken(
        &mut self,
        shard: ShardIndex,
        index: &GlobalIndex,
        plan: &Plan,
    ) -> Result<Vec<Change>, Trouble> {
        let query = format!("SELECT {}({MOST})", function(index, "take"));
        let lines = self.ask_shard(shard, &query, plan).await?;
        let owners = self.database.buckets.owners();
        let change = |line: String| {
            let mut words = line.split(' ');
            let (operation, bucket) = (words.next()?, words.next()?);
            let bucket: usize = bucket.parse().ok()?;
            let is_truncation = operation == "T";
            Some(Change {
                is_truncation,
                shard: match is_truncation {
                    true => shard,
                    false => *owners.get(bucket)?,
                },
                line,
            })
        };
        let changes: Option<Vec<Change>> = lines.into_iter().map(change).collect();
        Ok(changes.ok_or(Failure::Retry)?)
    }

    /// Brings changes to the shards of the index, in the shards' order: who wants the same values waits on the first of them.
    async fn apply(
        &mut self,
        changes: &[Change],
        index: &GlobalIndex,
        plan: &Plan,
    ) -> Result<(), Trouble> {
        let mut shards: Vec<ShardIndex> = changes.iter().map(|change| change.shard).collect();
        shards.sort_unstable();
        shards.dedup();
        for shard in shards {
            let own = changes.iter().filter(|change| change.shard == shard);
            let bodies: Vec<&str> = own.map(Change::body).collect();
            let mut query = format!("SELECT {}('{{", function(index, "apply"));
            // Writing to a string does not fail.
            let _ = write!(query, "{}}}')", bodies.join(","));
            let said = self.ask_shard(shard, &query, plan).await?;
            if let Some(detail) = said.into_iter().find(|said| !said.is_empty()) {
                return Err(Failure::Duplicate {
                    index: Box::new(index.clone()),
                    detail: detail.into(),
                }
                .into());
            }
        }
        Ok(())
    }

    /// Asks a shard something that writes, as part of a statement.
    async fn ask_shard(
        &mut self,
        shard: ShardIndex,
        query: &str,
        plan: &Plan,
    ) -> Result<Vec<String>, Trouble> {
        let index = self.join(shard, Need::Primary).await?;
        self.settle_one(index, plan).await?;
        self.participants.at(index)?.note_run(plan);
        match self.ask_lines(index, query, plan).await {
            Err(Trouble::Told) => Err(self.failed_on(shard)),
            answer => answer,
        }
    }
}

/// One of the functions that keep an index.
fn function(index: &GlobalIndex, what: &str) -> String {
    format!(
        "{}.{}",
        escape_identifier(&index.name.schema),
        escape_identifier(&format!("{}_{what}", index.name.name))
    )
}

/// A hint has sent a TRUNCATE to one shard.
fn one_truncated(index: &GlobalIndex) -> Trouble {
    let table = &index.table;
    let message = format!("TRUNCATE of table \"{table}\" on some shards only is not supported");
    let name = &index.name;
    let refusal = Refusal::certain("0A000", message).detail(format!(
        "The table has the global unique index \"{name}\", which would have to be truncated with it."
    ));
    Failure::Refused(Box::new(refusal)).into()
}
