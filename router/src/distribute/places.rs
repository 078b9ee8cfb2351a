//! The primaries of all shards, on connections of a change's own, in one transaction.

use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use switchyard_schema::TableName;
use switchyard_wire::SqlState;
use tokio::time::sleep;

use super::{Change, Request, refused};
use crate::config::Settings;
use crate::execute::failure::Failure;
use crate::startup::cancel::CancelSlot;
use crate::topology::Shard;
use crate::topology::link::{Link, LinkError, TextRow, Visitor};

/// The longest one statement may take: those that move rows take as long as there are rows. Cancel requests reach them.
const PATIENCE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The transaction.
const BEGIN: &str = "\
BEGIN; SET LOCAL row_security = off; SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL client_connection_check_interval = '1s'";

/// So many seconds the table is waited for, time after time. A transaction that has used it on one shard may want it on another, where
/// it is locked by then: between two attempts it is let go.
const WAITS: [u32; 5] = [1, 1, 2, 4, 8];

/// Changes of this kind wait for each other on the first shard.
const ONE_AT_A_TIME: &str = "\
SET LOCAL lock_timeout = '10s';
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('switchyard.distribute'))";

/// Between two attempts.
const BETWEEN: Duration = Duration::from_millis(100);

/// The columns of a table as every shard must have them.
const COLUMNS: &str = "\
SELECT pg_catalog.quote_ident(a.attname), pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated
  FROM pg_catalog.pg_attribute a
 WHERE a.attrelid = $TABLE::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attname";

/// One shard.
struct Place {
    shard: Arc<Shard>,
    link: Link,
}

/// All shards, in their order. What is not committed when it goes is rolled back.
pub(super) struct Places<'a> {
    list: Vec<Place>,
    slot: &'a CancelSlot,
    /// The transaction has begun, and there are others than the first.
    pub(super) in_transaction: bool,
}

impl Drop for Places<'_> {
    fn drop(&mut self) {
        for place in &self.list {
            self.slot.withdraw(place.link.target());
        }
    }
}

impl<'a> Places<'a> {
    /// Connects to all of them.
    pub(super) async fn open(request: &Request<'a>, settings: &Settings) -> Result<Self, Failure> {
        let user = settings
            .users
            .known(&request.database.name, request.user)
            .ok_or(Failure::Retry)?;
        let connect = settings.file.router.timeouts.connect;
        let visitor = Visitor::new(&user, connect, PATIENCE);
        let mut places = Self {
            list: Vec::new(),
            slot: request.slot,
            in_transaction: false,
        };
        for shard in &request.database.shards {
            let down = || Failure::ShardDown {
                shard: (&*shard.name).into(),
            };
            let primary = shard.writer().map_err(|_| down())?;
            let link = Link::open(&visitor, primary, &request.database.name).await;
            let link = link.map_err(|error| {
                tracing::debug!(shard = %shard.name, %error, "no connection for a change of a table");
                down()
            })?;
            request.slot.publish(link.target());
            places.list.push(Place {
                shard: Arc::clone(shard),
                link,
            });
        }
        if !request.settings.is_empty() {
            for index in 0..places.len() {
                places.ask(index, &request.settings).await?;
            }
        }
        Ok(places)
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn shard(&self, index: usize) -> &Arc<Shard> {
        &self.list[index].shard
    }

    pub(super) fn link(&mut self, index: usize) -> &mut Link {
        &mut self.list[index].link
    }

    /// Two of them, for rows on their way from one to the other.
    pub(super) fn pair(&mut self, from: usize, to: usize) -> (&mut Link, &mut Link) {
        let (low, high) = self.list.split_at_mut(from.max(to));
        let (low, high) = (&mut low[from.min(to)].link, &mut high[0].link);
        match from < to {
            true => (low, high),
            false => (high, low),
        }
    }

    /// Asks one of them.
    pub(super) async fn ask(&mut self, index: usize, sql: &str) -> Result<Vec<TextRow>, Failure> {
        let answer = self.list[index].link.ask(sql).await;
        answer.map_err(|error| self.failure(index, error))
    }

    /// What an error of one of them is to the client.
    pub(super) fn failure(&self, index: usize, error: LinkError) -> Failure {
        let shard: Box<str> = (&*self.list[index].shard.name).into();
        match error {
            LinkError::Refused { sqlstate, message } => Failure::ShardSays {
                shard,
                sqlstate,
                message: message.into(),
            },
            LinkError::Unreachable(_)
            | LinkError::Lost(_)
            | LinkError::Full
            | LinkError::Timeout => Failure::ShardLost { shard },
            LinkError::Unexpected(_) => Failure::ShardBrokeProtocol { shard },
        }
    }

    /// Begins the transaction, and locks the table everywhere: from then on nobody reads or writes it.
    pub(super) async fn lock(
        &mut self,
        change: &Change,
        settings: &Settings,
    ) -> Result<(), Failure> {
        for index in 0..self.len() {
            self.may_cancel(index, settings).await?;
        }
        let mut waits = WAITS.into_iter().peekable();
        while let Some(seconds) = waits.next() {
            match self.lock_once(change, seconds).await {
                Err(failure) if waits.peek().is_some() && waits_crosswise(&failure) => {
                    for index in 0..self.len() {
                        self.ask(index, "ROLLBACK").await?;
                    }
                    sleep(BETWEEN).await;
                }
                locked => {
                    self.in_transaction = locked.is_ok() && self.len() > 1;
                    return locked;
                }
            }
        }
        Ok(())
    }

    /// Asks for the table on all shards at a time. One after the other, whoever reads on several of them would hold one that is still to
    /// be locked, and wait for one that is.
    async fn lock_once(&mut self, change: &Change, seconds: u32) -> Result<(), Failure> {
        self.ask(0, &format!("{BEGIN}; {ONE_AT_A_TIME}")).await?;
        for index in 1..self.len() {
            self.ask(index, BEGIN).await?;
        }
        let lock = format!(
            "SET LOCAL lock_timeout = '{seconds}s'; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE; SET LOCAL lock_timeout = '10s'",
            change.sql_name()
        );
        for index in 0..self.len() {
            let sent = self.link(index).connection().send_query(&lock).await;
            sent.map_err(|error| self.failure(index, error.into()))?;
        }
        let mut locked = Ok(());
        for index in 0..self.len() {
            let answer = self.link(index).connection().query_answer().await;
            if let Err(error) = answer {
                locked = locked.and(Err(self.failure(index, error.into())));
            }
        }
        locked
    }

    /// Keeps others from making a table of this name until the end of the transaction, of which nothing stays.
    pub(super) async fn hold_name(&mut self, table: &TableName) -> Result<(), Failure> {
        let (schema, name) = (
            escape_identifier(&table.schema),
            escape_identifier(&table.name),
        );
        self.ask(0, "BEGIN; SET LOCAL lock_timeout = '2s'").await?;
        let missing = format!(
            "SELECT 1 WHERE pg_catalog.to_regnamespace({}) IS NULL",
            escape_literal(&schema)
        );
        if !self.ask(0, &missing).await?.is_empty() {
            self.ask(0, &format!("CREATE SCHEMA {schema}")).await?;
        }
        self.ask(0, &format!("CREATE TABLE {schema}.{name} ()"))
            .await?;
        Ok(())
    }

    /// Statements that wait for the table have been planned for what it was: it must be possible to cancel them.
    async fn may_cancel(&mut self, index: usize, settings: &Settings) -> Result<(), Failure> {
        let users: Vec<String> = settings
            .users
            .iter()
            .map(|user| escape_literal(&user.name))
            .collect();
        let others = format!(
            "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ({}) AND NOT (
                 pg_catalog.pg_has_role(session_user, oid, 'MEMBER')
                 OR (NOT rolsuper AND pg_catalog.pg_has_role(session_user, 'pg_signal_backend', 'MEMBER')))",
            users.join(", ")
        );
        let rows = self.ask(index, &others).await?;
        let Some(other) = rows
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next()?)
        else {
            return Ok(());
        };
        Err(refused(
            "42501",
            format!("statements of user \"{other}\" cannot be cancelled"),
        )
        .detail("Statements that wait for the table while its rows are moved have to be.")
        .hint("GRANT pg_signal_backend TO the user, on every shard.")
        .into())
    }

    /// The table's columns are the same everywhere.
    pub(super) async fn compare(&mut self, change: &Change) -> Result<(), Failure> {
        let first = self.columns(0, change).await?;
        for index in 1..self.len() {
            if self.columns(index, change).await? != first {
                let (table, shard) = (&change.table, &self.shard(index).name);
                let message = format!("table \"{table}\" is not the same on shard \"{shard}\"");
                return Err(refused("55000", message)
                    .hint("\"switchyard check\" shows the differences.")
                    .into());
            }
        }
        Ok(())
    }

    pub(super) async fn columns(
        &mut self,
        index: usize,
        change: &Change,
    ) -> Result<Vec<TextRow>, Failure> {
        let query = COLUMNS.replace("$TABLE", &escape_literal(&change.sql_name()));
        self.ask(index, &query).await
    }
}

/// Whether the table could not be locked for others, who may wait in their turn.
fn waits_crosswise(failure: &Failure) -> bool {
    let sqlstate = failure.sqlstate();
    sqlstate == SqlState::LOCK_NOT_AVAILABLE || sqlstate == SqlState::DEADLOCK_DETECTED
}
