//! Row locks on several shards where the rows have to be found first: see [`crate::plan::lock`].
//!
//! Rows are found without locks and then locked by their primary keys, as many at a time as PostgreSQL would certainly lock. One that
//! is no longer what was found makes all of it begin anew, with what is locked by then standing still. The rows of the result are kept
//! here until all are locked.

use std::collections::{BTreeMap, HashSet};

use bytes::{Bytes, BytesMut};
use switchyard_schema::ShardIndex;
use switchyard_wire::Format;
use switchyard_wire::backend::{Message, encode};
use switchyard_wire::frame;
use switchyard_wire::frontend::{self, Bind};

use crate::execute::block::FailedOn;
use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::messages::lines;
use crate::execute::relay::{Trouble, decode_message};
use crate::merge::Limit;
use crate::plan::lock::{Locked, Wait};
use crate::plan::{Lock, Plan};
use crate::session::Session;
use crate::session::route::{Routed, Text};
use crate::session::simple::{Ready, Sent};
use crate::session::workspace::fetch::Asked;
use crate::sql::HintNode;

/// Without a limit, so many candidates are found at first.
const FIRST: u64 = 1 << 12;
/// Of candidates, so many more are found than are wanted: some may be passed over.
const SPARE: u64 = 32;
/// So many rows are locked by one statement at most.
const TOGETHER: usize = 1_000;
/// So many bytes of candidates may be kept.
const MOST_BYTES: usize = 64 << 20;
/// How often rows may change before they are locked.
const MOST_ATTEMPTS: usize = 1_000;

/// What a client asks, as it came.
pub(in crate::session) struct Locking<'a> {
    pub(in crate::session) plan: &'a Plan,
    pub(in crate::session) lock: &'a Lock,
    pub(in crate::session) sql: &'a [u8],
    pub(in crate::session) limit: Limit,
    pub(in crate::session) hint: Option<HintNode>,
    /// Its parameters, if it came by the extended protocol: their types, and the message they are in.
    pub(in crate::session) bound: Option<(Vec<u32>, &'a Bind<'a>)>,
    /// Cancel requests that came before it.
    pub(in crate::session) cancels: u64,
}

/// What a statement of ours has answered.
#[derive(Default)]
struct Collected {
    description: Bytes,
    rows: Vec<Bytes>,
}

/// A row that may be part of the result.
struct Candidate {
    /// A whole DataRow message, with what is the client's.
    row: Bytes,
    /// The columns that are not.
    extras: Vec<Option<String>>,
}

/// A row of a table: the table's position among those that are locked, its shard, and all that is in it.
type Image = (usize, ShardIndex, String);

/// What is known of the tables' rows.
#[derive(Default)]
struct Known {
    held: HashSet<Image>,
    skipped: HashSet<Image>,
}

/// A row of one table that is to be locked.
struct Wanted<'a> {
    key: Vec<&'a str>,
    image: &'a str,
}

impl Session {
    /// Runs a statement of the simple protocol.
    pub(in crate::session) async fn locked(
        &mut self,
        lock: &Lock,
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let locking = Locking {
            plan: &routed.plan,
            lock,
            sql: sent.sql(),
            limit: routed.limit,
            hint: routed.hint,
            bound: None,
            cancels: self.cancel.slot().requests(),
        };
        let implicit = self.begin_implicit();
        // As from PostgreSQL, what is said of the columns comes before any error in the rows.
        let description = self.probe_locked(&locking).await?;
        self.client.output.extend_from_slice(&description);
        let rows = self.lock_rows(&locking).await?;
        if implicit {
            self.commit_implicit().await?;
        }
        let output = &mut self.client.output;
        rows.iter().for_each(|row| output.extend_from_slice(row));
        self.complete(&format!("SELECT {}", rows.len()))
    }

    /// Lets PostgreSQL look at the statement, in a block, which is there: the whole RowDescription.
    pub(in crate::session) async fn probe_locked(
        &mut self,
        asked: &Locking<'_>,
    ) -> Result<Bytes, Trouble> {
        let probed = self.collect(asked.lock.probe(asked.sql), asked, 0).await?;
        Ok(probed.description)
    }

    /// Finds rows and locks them, in a block, which is there: whole DataRow messages.
    pub(in crate::session) async fn lock_rows(
        &mut self,
        asked: &Locking<'_>,
    ) -> Result<Vec<Bytes>, Trouble> {
        let wanted = asked.limit.rows;
        let wanted = wanted.map(|rows| rows.saturating_add(asked.limit.offset));
        let mut window = wanted.unwrap_or(FIRST).saturating_add(SPARE);
        let mut known = Known::default();
        for _ in 0..MOST_ATTEMPTS {
            self.not_cancelled(asked.cancels)?;
            // PostgreSQL takes no larger limit.
            let most = window.min(i64::MAX.unsigned_abs());
            let text = asked.lock.candidates(asked.sql, most);
            let extras = asked.lock.extras();
            let found = self.collect(text, asked, extras).await?.rows;
            let all = (found.len() as u64) < most;
            let candidates: Option<Vec<_>> = found
                .iter()
                .map(|row| Candidate::read(row, extras))
                .collect();
            let candidates = candidates.ok_or(Failure::Retry)?;
            let taken = self.lock_candidates(asked, &candidates, wanted, &mut known);
            let Some(taken) = taken.await? else {
                continue;
            };
            let enough = wanted.is_some_and(|wanted| taken.len() as u64 >= wanted);
            if all || enough {
                let offset = usize::try_from(asked.limit.offset).unwrap_or(usize::MAX);
                let rows = taken.into_iter().skip(offset).map(|row| row.row.clone());
                return Ok(rows.collect());
            }
            window = window.saturating_mul(4);
        }
        Err(Failure::RowsChange.into())
    }

    /// Locks candidates in their order, as many as are wanted: those that are locked. `None`: some have changed.
    async fn lock_candidates<'c>(
        &mut self,
        asked: &Locking<'_>,
        candidates: &'c [Candidate],
        wanted: Option<u64>,
        known: &mut Known,
    ) -> Result<Option<Vec<&'c Candidate>>, Trouble> {
        let wanted = wanted.map_or(usize::MAX, |rows| {
            usize::try_from(rows).unwrap_or(usize::MAX)
        });
        let mut taken: Vec<&Candidate> = Vec::new();
        let mut rest = candidates;
        while taken.len() < wanted && !rest.is_empty() {
            let together = (wanted - taken.len()).min(TOGETHER).min(rest.len());
            let (batch, after) = rest.split_at(together);
            rest = after;
            let mut batch: Vec<&Candidate> = batch.iter().collect();
            let mut first = 0;
            for (number, table) in asked.lock.tables.iter().enumerate() {
                let extras = first..first + table.width();
                first = extras.end;
                let mut rows = Vec::with_capacity(batch.len());
                for candidate in &batch {
                    let extras = candidate.extras.get(extras.clone()).unwrap_or_default();
                    rows.push(place(table, extras)?);
                }
                if !self.lock_table(asked, number, table, &rows, known).await? {
                    return Ok(None);
                }
                let mut passed = rows.iter().map(|(shard, row)| {
                    let image = (number, *shard, row.image.to_owned());
                    known.skipped.contains(&image)
                });
                batch.retain(|_| passed.next() == Some(false));
            }
            taken.extend(batch);
        }
        Ok(Some(taken))
    }

    /// Locks rows of one table, on one shard after the other. False: some have changed.
    async fn lock_table(
        &mut self,
        asked: &Locking<'_>,
        number: usize,
        table: &Locked,
        rows: &[(ShardIndex, Wanted<'_>)],
        known: &mut Known,
    ) -> Result<bool, Trouble> {
        let mut by_shard: BTreeMap<ShardIndex, Vec<&Wanted<'_>>> = BTreeMap::new();
        for (shard, row) in rows {
            let image = (number, *shard, row.image.to_owned());
            if !known.held.contains(&image) && !known.skipped.contains(&image) {
                by_shard.entry(*shard).or_default().push(row);
            }
        }
        for (shard, rows) in by_shard {
            let keys: Vec<&[&str]> = rows.iter().map(|row| row.key.as_slice()).collect();
            let query = table.query(&keys);
            let mut missing: HashSet<&str> = rows.iter().map(|row| row.image).collect();
            for image in self.lock_on(shard, &query, asked).await? {
                if !missing.remove(image.as_str()) {
                    return Ok(false);
                }
                known.held.insert((number, shard, image));
            }
            let own = |image: &str| (number, shard, image.to_owned());
            match table.wait {
                Wait::Skip => known.skipped.extend(missing.into_iter().map(own)),
                Wait::Block | Wait::Fail if missing.is_empty() => {}
                Wait::Block | Wait::Fail => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Runs a query of ours that locks rows of a shard; its column.
    async fn lock_on(
        &mut self,
        shard: ShardIndex,
        query: &str,
        asked: &Locking<'_>,
    ) -> Result<Vec<String>, Trouble> {
        let need = self.need(asked.plan.access, asked.hint);
        let index = self.join(shard, need).await?;
        self.participants.at(index)?.note_run(asked.plan);
        let own = Asked {
            sql: query.as_bytes(),
            params: None,
            given: GivenRows::default(),
            need,
            cancels: asked.cancels,
        };
        self.ask(index, query, &[Format::Text], &own).await?;
        let (client, source, _) = self.exchanging(index)?;
        let locked = lines(client, source).await;
        let told = matches!(&locked, Err(Trouble::Told));
        source.unread = locked.is_err() && !told;
        match locked {
            Err(Trouble::Lost) => Err(self.lost_with_rows(None).into()),
            Err(trouble) => {
                if let (true, Some(block)) = (told, &mut self.block) {
                    block.failed.get_or_insert(FailedOn::Shard(shard));
                }
                self.abandon_rows(None).await;
                Err(trouble)
            }
            locked => locked,
        }
    }

    /// Runs a statement of ours as if it were the client's, and takes its answer. The last columns are not the client's.
    async fn collect(
        &mut self,
        text: Vec<u8>,
        asked: &Locking<'_>,
        extras: usize,
    ) -> Result<Collected, Trouble> {
        let before = self.client.hold();
        let outcome = match &asked.bound {
            None => self.run_text(&text).await,
            Some((types, bind)) => Box::pin(self.run_bound(&text, types, bind, extras)).await,
        };
        let answer = self.client.unhold(before);
        let (collected, failed) = self.take_answer(answer);
        outcome?;
        if failed {
            return Err(Trouble::Told);
        }
        collected
    }

    /// By the simple protocol.
    async fn run_text(&mut self, text: &[u8]) -> Result<(), Trouble> {
        let mut message = BytesMut::new();
        frontend::encode::query(&mut message, text);
        let Text::One(routed) = self.route_text(text)? else {
            return Err(Failure::Retry.into());
        };
        let sent = Sent {
            message: &message,
            alone: false,
        };
        Box::pin(self.statement(&routed, sent)).await.map(drop)
    }

    /// Takes rows out of an answer; errors and notices are the client's. Whether there was an error.
    fn take_answer(&mut self, answer: BytesMut) -> (Result<Collected, Trouble>, bool) {
        if answer.len() > MOST_BYTES {
            let limit = MOST_BYTES as u64;
            return (Err(Failure::FetchLimit { limit }.into()), false);
        }
        let (mut collected, mut failed) = (Collected::default(), false);
        let mut answer = answer.freeze();
        while let Ok(Some(header)) = frame::header(&answer) {
            if answer.len() < header.len {
                break;
            }
            let message = answer.split_to(header.len);
            match header.tag {
                b'T' => collected.description = message,
                b'D' => collected.rows.push(message),
                b'E' | b'N' | b'A' | b'S' => {
                    failed |= header.tag == b'E';
                    self.client.output.extend_from_slice(&message);
                }
                _ => {}
            }
        }
        (Ok(collected), failed)
    }
}

impl Candidate {
    /// From a whole DataRow message.
    fn read(message: &[u8], extras: usize) -> Option<Candidate> {
        let Ok(Message::DataRow(row)) = decode_message(message) else {
            return None;
        };
        let values: Vec<Option<&[u8]>> = row.iter().collect();
        let (shown, extras) = values.split_at(values.len().checked_sub(extras)?);
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let mut row = BytesMut::new();
        encode::data_row(&mut row, shown);
        Some(Candidate {
            row: row.freeze(),
            extras: extras.iter().map(|value| value.map(text)).collect(),
        })
    }
}

/// Where a row is, and what of it is needed to lock it.
fn place<'a>(
    table: &Locked,
    extras: &'a [Option<String>],
) -> Result<(ShardIndex, Wanted<'a>), Failure> {
    let unclear = || Failure::Unsupported {
        what: "locking a row whose shard its values do not say".into(),
        hint: "Set datestyle to ISO.",
    };
    let [of, key @ .., image] = extras else {
        return Err(Failure::Retry);
    };
    let shard = table.shard(of.as_deref()).ok_or_else(unclear)?;
    let key: Option<Vec<&str>> = key.iter().map(Option::as_deref).collect();
    let wanted = Wanted {
        key: key.ok_or_else(unclear)?,
        image: image.as_deref().ok_or_else(unclear)?,
    };
    Ok((shard, wanted))
}
