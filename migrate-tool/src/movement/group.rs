//! A group of rows on its way from one shard to another: one transaction on both, up to the point where both parts can be prepared.

use std::time::Duration;

use switchyard_router::backend::TextRow;
use switchyard_router::backend::transfer::{TransferError, Transferred, transfer};
use switchyard_router::distribute::switchover::MAY_BE_CANCELLED;
use switchyard_schema::Keys;
use tokio::time::{Instant, sleep};

use super::Error;
use super::tables::{self, Moving};
use super::visit::Visit;
use super::waiting::{clearing_the_way, giving_way, is_awaited};
use crate::servers::{Server, ServerError};

/// The transaction. Neither triggers nor foreign keys notice that rows move. A deadlock with a client is ours to give way in.
pub(super) const BEGIN: &str = "\
BEGIN; SET LOCAL row_security = off; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL session_replication_role = replica; SET LOCAL deadlock_timeout = '50ms'; SET LOCAL lock_timeout = '5s'";

/// Cancels who waits for rows that have been deleted here: he would find them gone, and silently change nothing.
const CANCEL: &str = "\
SELECT pg_catalog.pg_cancel_backend(w.pid) FROM (SELECT DISTINCT pid FROM pg_catalog.pg_locks WHERE NOT granted) AS w
 WHERE pg_catalog.pg_backend_pid() = ANY (pg_catalog.pg_blocking_pids(w.pid)) AND $MAY";

/// The longest that a table is waited for at a time, while everybody else has to wait behind us.
const TURN: Duration = Duration::from_millis(100);
/// After so long a turn is given up in which somebody waits for us whom we wait for.
const DEADLOCK: Duration = Duration::from_millis(50);
/// So long nobody is cancelled for having a table.
const POLITE: Duration = Duration::from_secs(2);
/// The longest that a table is waited for at a time then.
const LONG_TURN: Duration = Duration::from_secs(1);
/// Between two such turns.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest that tables are waited for in all.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a group has come to that can be prepared.
#[derive(Debug)]
pub(super) struct Filled {
    /// What it has.
    pub(super) moved: Transferred,
    /// Clients wait for them, or for the tables.
    pub(super) is_awaited: bool,
}

/// Rows that move together.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) tables: &'a [Moving],
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
        &self,
        (source, target): (&mut Server, &mut Server),
        visits: &mut [Visit],
        gives_way: bool,
    ) -> Result<Option<Filled>, Error> {
        let Group { tables, shapes, .. } = self;
        let names: Vec<&str> = tables.iter().map(|table| table.sql.as_str()).collect();
        for server in [&mut *source, &mut *target] {
            server.ask(BEGIN).await?;
            if names.is_empty() {
                continue;
            }
            // From here on nobody changes them: a column that came since would be lost.
            let keep = format!("LOCK TABLE {} IN ROW EXCLUSIVE MODE", names.join(", "));
            server.ask(&keep).await?;
            if tables::shapes(tables, server).await? != *shapes {
                return Ok(None);
            }
        }
        let session = (source.shard, source.link.target().pid());
        let copying = self.copy((source, target));
        let first = match gives_way {
            true => giving_way(copying, session, visits).await?,
            false => copying.await?,
        };
        let were_awaited = lock(&names, (source, target), visits).await?;
        // What was just deleted is in the index still: nearly all of it is looked at again.
        source.ask("SET LOCAL enable_seqscan = off").await?;
        let rest = self.copy((source, target)).await?;
        let is_awaited = is_awaited((source, target)).await? || were_awaited;
        let moved = Transferred {
            rows: first.rows + rest.rows,
            bytes: first.bytes + rest.bytes,
        };
        Ok(Some(Filled { moved, is_awaited }))
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

/// Locks the tables on both shards. Others wait no longer than a turn for each attempt. Where clients whose transactions have several tables come again and again,
/// those who wait for us are cancelled in the end: they have some of the tables, and we the others. Whether there was anybody who waited for rows.
pub(super) async fn lock(
    tables: &[&str],
    (source, target): (&mut Server, &mut Server),
    visits: &mut [Visit],
) -> Result<bool, Error> {
    let mut were_awaited = false;
    if tables.is_empty() {
        return Ok(were_awaited);
    }
    let sessions = [&*source, &*target].map(|server| (server.shard, server.link.target().pid()));
    let cancel = CANCEL.replace("$MAY", MAY_BE_CANCELLED);
    let began = Instant::now();
    loop {
        let is_patient = began.elapsed() < POLITE;
        let (turn, deadlock) = match is_patient {
            true => (TURN, DEADLOCK),
            false => (LONG_TURN, LONG_TURN * 2),
        };
        let lock = format!(
            "SAVEPOINT turn; SET LOCAL lock_timeout = '{}ms'; SET LOCAL deadlock_timeout = '{}ms'; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
            turn.as_millis(),
            deadlock.as_millis(),
            tables.join(", ")
        );
        were_awaited |= !source.ask(&cancel).await?.is_empty();
        let locking = async { tokio::join!(source.ask(&lock), target.ask(&lock)) };
        let (at_source, at_target) = match is_patient {
            true => locking.await,
            false => clearing_the_way(locking, sessions, visits).await,
        };
        match at_source.and(at_target) {
            Ok(_) => return Ok(were_awaited),
            Err(error) if is_busy(&error) && began.elapsed() < PATIENCE => {}
            Err(error) if is_busy(&error) => return Err(Error::Busy),
            Err(error) => return Err(error.into()),
        }
        source.ask("ROLLBACK TO turn").await?;
        target.ask("ROLLBACK TO turn").await?;
        sleep(PAUSE).await;
    }
}

/// Whether a table is somebody else's for longer than a turn.
fn is_busy(error: &ServerError) -> bool {
    matches!(error.sqlstate(), Some("55P03" | "40P01"))
}
