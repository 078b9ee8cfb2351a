//! A group of rows on its way from one shard to another: one transaction on both, up to the point where both parts can be prepared.

use std::time::Duration;

use switchyard_router::backend::TextRow;
use switchyard_router::backend::transfer::{TransferError, Transferred, transfer};
use switchyard_schema::Keys;
use tokio::time::Instant;

use super::Error;
use super::lock::lock;
use super::tables::{self, Moving};
use super::visit::Visit;
use super::waiting::{giving_way, is_awaited};
use crate::servers::Server;

/// The transaction. Neither triggers nor foreign keys notice that rows move. A deadlock with a client is ours to give way in.
pub(super) const BEGIN: &str = "\
BEGIN; SET LOCAL row_security = off; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL session_replication_role = replica; SET LOCAL deadlock_timeout = '50ms'; SET LOCAL lock_timeout = '5s'";

/// What a group has come to that can be prepared.
#[derive(Debug)]
pub(super) struct Filled {
    /// What it has.
    pub(super) moved: Transferred,
    /// How long its rows have taken, without what the tables were waited for.
    pub(super) took: Duration,
    /// Clients wait for them, or for the tables.
    pub(super) is_awaited: bool,
}

/// Rows that move together.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) tables: &'a [Moving],
    /// Their names, in the order in which they are locked.
    pub(super) order: &'a mut [String],
    /// Their columns.
    pub(super) shapes: &'a [TextRow],
    pub(super) keys: &'a Keys,
}

impl Group<'_> {
    /// Takes a table's rows away, as a COPY.
    fn take(&self, table: &Moving) -> Result<String, Error> {
        let (name, columns, condition) = (&table.sql, &table.columns, table.of(self.keys)?);
        Ok(table.take(&format!(
            "DELETE FROM {name} WHERE {condition} RETURNING {columns}"
        )))
    }

    /// Brings a group's rows from `source` to `target`, and locks the tables of both, so that no further ones come. A group
    /// that takes long gives way to who waits for it, by 57014, if it is to. `None`: the tables are not what they were.
    pub(super) async fn fill(
        &mut self,
        (source, target): (&mut Server, &mut Server),
        visits: &mut [Visit],
        gives_way: bool,
    ) -> Result<Option<Filled>, Error> {
        for server in [&mut *source, &mut *target] {
            server.ask(BEGIN).await?;
            if self.order.is_empty() {
                continue;
            }
            // From here on nobody changes them: a column that came since would be lost.
            let keep = format!("LOCK TABLE {} IN ROW EXCLUSIVE MODE", self.order.join(", "));
            server.ask(&keep).await?;
            if tables::shapes(self.tables, server).await? != *self.shapes {
                return Ok(None);
            }
        }
        let session = (source.shard, source.link.target().pid());
        let began = Instant::now();
        let copying = self.copy((source, target));
        let first = match gives_way {
            true => giving_way(copying, session, visits).await?,
            false => copying.await?,
        };
        let copied = began.elapsed();
        let were_awaited = lock(self.order, (source, target), visits).await?;
        let locked = Instant::now();
        // What was just deleted is in the index still: nearly all of it is looked at again.
        source.ask("SET LOCAL enable_seqscan = off").await?;
        let rest = self.copy((source, target)).await?;
        let took = copied + locked.elapsed();
        let is_awaited = is_awaited((source, target)).await? || were_awaited;
        let moved = Transferred {
            rows: first.rows + rest.rows,
            bytes: first.bytes + rest.bytes,
        };
        Ok(Some(Filled {
            moved,
            took,
            is_awaited,
        }))
    }

    async fn copy(
        &self,
        (source, target): (&mut Server, &mut Server),
    ) -> Result<Transferred, Error> {
        let mut all = Transferred::default();
        for table in self.tables {
            let (take, put) = (self.take(table)?, table.put());
            let moved = transfer(
                (source.link.connection(), &take),
                (target.link.connection(), &put),
            );
            let moved = moved.await.map_err(|error| match error {
                TransferError::Source(error) => source.failed(error.into()),
                TransferError::Target(error) => target.failed(error.into()),
            })?;
            all.rows += moved.rows;
            all.bytes += moved.bytes;
        }
        Ok(all)
    }
}
