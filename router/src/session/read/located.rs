//! Reads by a column with a global unique index (ADR 0021): the index is asked for the row's shard, and that shard for the rows.
//!
//! A shard that gives rows has given all: they are what it has, by one snapshot, of the one row that the value can have. Where it gives none, and the row
//! is not there either, a transaction is committed on one shard and not yet on the other: the index is asked again, until both agree. What no
//! index has, all shards are asked for.

use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use switchyard_schema::{ShardIndex, ShardSet};
use switchyard_wire::frame;
use tokio::time::{Instant, sleep};

use crate::distribute::unique::part_of;
use crate::execute::block::Block;
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::plan::{Lookup, Plan};
use crate::session::Session;
use crate::session::read::part::error_field;
use crate::session::route::Routed;
use crate::session::simple::{Ready, Sent};

/// The longest the index and the rows are waited for; then all shards are asked. A transaction that a dead router has left is ended in less.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a shard is asked again whose row changes all the time.
const VERSIONS: u8 = 5;
/// Between two looks.
const LOOKS: Duration = Duration::from_millis(2);

/// A search for the one shard.
pub(in crate::session) struct Search<'a> {
    lookup: &'a Lookup,
    plan: &'a Plan,
    need: Need,
    begun: Instant,
    versions: u8,
    /// The shard that has been asked last, and the version of the row that it had before that.
    asked: Option<(ShardIndex, Option<String>)>,
}

/// Where it goes on.
pub(in crate::session) enum Next {
    /// This shard is to be asked.
    Ask(ShardIndex),
    /// The last one was right to give nothing: it has the row.
    Nothing,
    /// All shards are to be asked.
    All,
}

impl<'a> Search<'a> {
    pub(in crate::session) fn new(lookup: &'a Lookup, plan: &'a Plan, need: Need) -> Self {
        Self {
            lookup,
            plan,
            need,
            begun: Instant::now(),
            versions: 0,
            asked: None,
        }
    }
}

impl Session {
    /// Answers a read of the simple protocol by the shard that the index names; `None`: all shards have to be asked.
    pub(in crate::session) async fn located(
        &mut self,
        lookup: &Lookup,
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<Option<Ready>, Trouble> {
        let need = self.need(routed.plan.access, routed.hint);
        let mut search = Search::new(lookup, &routed.plan, need);
        let mut last: Option<(Ready, BytesMut)> = None;
        loop {
            let shard = match self.search(&mut search).await? {
                Next::Ask(shard) => shard,
                Next::All => return Ok(None),
                Next::Nothing => {
                    let Some((ready, said)) = last else {
                        return Ok(None);
                    };
                    self.client.output.extend_from_slice(&said);
                    return Ok(Some(ready));
                }
            };
            let one = Routed {
                shards: ShardSet::one(shard),
                ..routed.clone()
            };
            self.client.wait_for_rows();
            let ready = Box::pin(self.append(&one, sent)).await;
            let said = self.client.take_unsure();
            match (ready, said) {
                (Ok(ready), Some(said)) if says_nothing(&said) => last = Some((ready, said)),
                (ready, said) => {
                    let said = said.as_deref().unwrap_or_default();
                    self.client.output.extend_from_slice(said);
                    return ready.map(Some);
                }
            }
        }
    }

    /// Where a search goes on, at its beginning and after a shard has given nothing.
    pub(in crate::session) async fn search(
        &mut self,
        search: &mut Search<'_>,
    ) -> Result<Next, Trouble> {
        if let Some((shard, before)) = search.asked.take() {
            let keeps = |block: &Block| block.keeps_snapshot();
            let held = self.participants.position(shard, search.need);
            let held = held.and_then(|held| self.participants.get(held));
            let was_primary = held.is_some_and(|held| held.is_primary);
            if !was_primary || self.block.as_ref().is_some_and(keeps) {
                return Ok(Next::All);
            }
            let (version, is_primary) = self.version(shard, search).await?;
            match version {
                _ if !is_primary => return Ok(Next::All),
                Some(_) if version == before => return Ok(Next::Nothing),
                Some(_) if search.versions == VERSIONS => return Ok(Next::All),
                Some(_) => {
                    search.versions += 1;
                    search.asked = Some((shard, version));
                    return Ok(Next::Ask(shard));
                }
                None if search.begun.elapsed() > PATIENCE => return Ok(Next::All),
                None => sleep(LOOKS).await,
            }
        }
        let Some(shard) = self.locate(search).await? else {
            return Ok(Next::All);
        };
        search.asked = Some((shard, None));
        Ok(Next::Ask(shard))
    }

    /// The shard that the index names for the value.
    async fn locate(&mut self, search: &Search<'_>) -> Result<Option<ShardIndex>, Trouble> {
        let lookup = search.lookup;
        self.let_go().await?;
        let find = part_of(&lookup.located.index.name, "_find");
        let value = escape_literal(&lookup.value);
        let query = format!("SELECT k FROM {find}({value}) AS k WHERE k IS NOT NULL");
        let index = self.join(lookup.shard, search.need).await?;
        let before = self.client.hold();
        let found = self.ask_lines(index, &query, search.plan).await;
        let said = self.client.unhold(before);
        let found = match found {
            // The index has been dropped since this was planned.
            Err(Trouble::Told) if self.block.is_none() && is_gone(&said) => return Ok(None),
            found => {
                self.client.output.extend_from_slice(&said);
                found?
            }
        };
        let shard = found.first().and_then(|key| lookup.located.shard_of(key));
        // Who holds a connection waits for none.
        if shard.is_some_and(|shard| shard != lookup.shard) {
            self.let_go().await?;
        }
        Ok(shard)
    }

    /// Which version of the row a shard has, if it has it, and whether it is asked on its primary.
    async fn version(
        &mut self,
        shard: ShardIndex,
        search: &Search<'_>,
    ) -> Result<(Option<String>, bool), Trouble> {
        let index = &search.lookup.located.index;
        self.let_go().await?;
        let query = format!(
            "SELECT pg_catalog.concat(ctid, ' ', xmin) FROM ONLY {} WHERE {} = {}",
            part_of(&index.table, ""),
            escape_identifier(&index.column),
            escape_literal(&search.lookup.value)
        );
        let held = self.join(shard, search.need).await?;
        let version = self.ask_lines(held, &query, search.plan).await?.pop();
        let is_primary = self.participants.at(held)?.is_primary;
        self.let_go().await?;
        Ok((version, is_primary))
    }
}

/// Whether an answer has no rows, and is no error.
fn says_nothing(answer: &[u8]) -> bool {
    let mut rest = answer;
    while let Ok(Some(header)) = frame::header(rest) {
        if matches!(header.tag, b'D' | b'E') {
            return false;
        }
        rest = rest.get(header.len..).unwrap_or_default();
    }
    true
}

/// Whether an error is that a function or a table does not exist.
fn is_gone(answer: &[u8]) -> bool {
    matches!(error_field(answer, b'C'), Some(b"42883" | b"42P01"))
}
