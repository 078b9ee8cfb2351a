//! Global unique indexes (ADR 0021): what a statement has changed of a column, as triggers have recorded it on the shards of the rows, is
//! brought to the shards of the values, in the same transaction and before the client is told.
//!
//! Shard by shard, and there in the order in which it was done: one server, too, looks for each row whether its value is there already.

use std::fmt::Write;
use std::sync::Arc;

use postgres_protocol::escape::escape_literal;
use switchyard_schema::{ShardIndex, ShardSet};

use crate::distribute::unique::{drop_sql, part_of};
use crate::execute::block::Block;
use crate::execute::failure::Failure;
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::plan::{Plan, Refusal};
use crate::relations::GlobalIndex;
use crate::session::Session;

/// So many changes are taken at a time.
const MOST: usize = 4_000;

/// One change, as `…_take` says it: what has been done, the bucket of the value, its place among the transaction's, and all of it for
/// `…_apply`.
struct Change {
    is_truncation: bool,
    /// Where it belongs.
    shard: ShardIndex,
    place: i64,
    body: String,
}

impl Change {
    /// Reads a line of a shard's.
    fn read(line: &str, own: ShardIndex, owners: &[ShardIndex]) -> Option<Self> {
        let mut words = line.split(' ');
        let (operation, bucket) = (words.next()?, words.next()?);
        let bucket: usize = bucket.parse().ok()?;
        let is_truncation = operation == "T";
        Some(Change {
            is_truncation,
            shard: match is_truncation {
                true => own,
                false => *owners.get(bucket)?,
            },
            place: words.next()?.parse().ok()?,
            body: words.next()?.to_owned(),
        })
    }
}

impl Session {
    /// Keeps the global unique indexes of the tables that a statement may have written, in a block, which is there. A value that is
    /// there already fails the statement.
    pub(in crate::session) async fn keep_unique(&mut self, plan: &Plan) -> Result<(), Trouble> {
        let Some(indexes) = &plan.unique else {
            return Ok(());
        };
        let block = self.block.as_ref();
        let settings = block.map_or(&*self.settings, Block::effective);
        let role = settings.value_of("session_replication_role");
        if let (true, Some(index)) = (role == Some("replica"), indexes.first()) {
            return Err(without_triggers(index));
        }
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
            let mut taken = 0;
            loop {
                let changes = self.taken((shard, taken), index, plan).await?;
                let truncations = changes.iter().filter(|change| change.is_truncation);
                truncated += truncations.count();
                self.apply(&changes, index, plan).await?;
                match changes.last() {
                    Some(last) if changes.len() == MOST => taken = last.place,
                    Some(_) | None => break,
                }
            }
        }
        match truncated == 0 || truncated == self.database.shards.len() {
            true => Ok(()),
            false => Err(one_truncated(index)),
        }
    }

    /// What has been recorded on a shard behind what has been taken, in order; it is not there any more then.
    async fn taken(
        &mut self,
        (shard, taken): (ShardIndex, i64),
        index: &GlobalIndex,
        plan: &Plan,
    ) -> Result<Vec<Change>, Trouble> {
        let query = format!("SELECT {}({taken}, {MOST})", function(index, "take"));
        let lines = self.ask_shard(shard, &query, plan).await?;
        let owners = self.database.buckets.owners();
        let changes = lines.iter().map(|line| Change::read(line, shard, owners));
        let changes: Option<Vec<Change>> = changes.collect();
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
            let bodies: Vec<&str> = own.map(|change| &*change.body).collect();
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

    /// After a change of the schema: the index of a table that is gone goes, too; what would keep an index from being kept is refused.
    pub(in crate::session) async fn look_after_unique(
        &mut self,
        plan: &Plan,
    ) -> Result<(), Trouble> {
        let indexes = Arc::clone(self.database.relations.global_indexes());
        for index in indexes.iter() {
            let state = self
                .ask_shard(ShardIndex::FIRST, &state_of(index), plan)
                .await?;
            match state.first().map(String::as_str) {
                Some("gone") => self.drop_index(index, plan).await?,
                Some("broken") => return Err(broken(index)),
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    async fn drop_index(&mut self, index: &GlobalIndex, plan: &Plan) -> Result<(), Trouble> {
        let drop = drop_sql(&index.name);
        for shard in ShardSet::all(self.database.shards.len()).iter() {
            self.ask_shard(shard, &drop, plan).await?;
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
    part_of(&index.name, &format!("_{what}"))
}

/// Asks what has become of an index that is still there: `gone` with its table, `broken`, or nothing.
fn state_of(index: &GlobalIndex) -> String {
    let record = escape_literal(&format!("{}()", function(index, "record")));
    let column = escape_literal(&index.column);
    let tables = ["", "_changes"].map(|part| escape_literal(&part_of(&index.name, part)));
    let [values, changes] = tables.map(|table| format!("pg_catalog.to_regclass({table}) IS NULL"));
    format!(
        "SELECT CASE WHEN pg_catalog.count(t.oid) = 0 THEN 'gone'
                     WHEN pg_catalog.count(t.oid) <> 3 OR pg_catalog.bool_or(t.tgenabled = 'D') OR pg_catalog.count(a.attname) <> 3
                          OR {values} OR {changes} THEN 'broken' END
           FROM pg_catalog.pg_proc p LEFT JOIN pg_catalog.pg_trigger t ON t.tgfoid = p.oid
           LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = t.tgrelid AND a.attname = {column} AND NOT a.attisdropped
          WHERE p.oid = pg_catalog.to_regprocedure({record}) GROUP BY p.oid"
    )
}

fn broken(index: &GlobalIndex) -> Trouble {
    let (name, table, column) = (&index.name, &index.table, &index.column);
    let message = format!("global unique index \"{name}\" would not be kept any more");
    let refusal = Refusal::certain("0A000", message)
        .detail(format!(
            "Its triggers have to be enabled, and its tables and column \"{column}\" of table \"{table}\" to have their names."
        ))
        .hint(format!(
            "Call drop_global_unique_index('{name}') first, and make it anew then."
        ));
    Failure::Refused(Box::new(refusal)).into()
}

/// The triggers have not fired.
fn without_triggers(index: &GlobalIndex) -> Trouble {
    let table = &index.table;
    let message = format!(
        "writing table \"{table}\" with session_replication_role = 'replica' is not supported"
    );
    let name = &index.name;
    let refusal = Refusal::certain("0A000", message)
        .detail(format!("Triggers keep the global unique index \"{name}\"."));
    Failure::Refused(Box::new(refusal)).into()
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
