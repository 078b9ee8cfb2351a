//! INSERT of what a query returns, by way of a workspace: it runs the query and gives the rows the table's types, and each shard copies
//! its own into the table, all of them at a time.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use switchyard_schema::{ShardIndex, ShardSet};
use switchyard_wire::Format;
use switchyard_wire::backend::Message;
use switchyard_wire::frame::HEADER;

use crate::backend::Show;
use crate::execute::arrays::{Arrays, NotTaken};
use crate::execute::block::FailedOn;
use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::load::{begin, divide, finish, store, take_all};
use crate::execute::participants::Need;
use crate::execute::relay::{Trouble, decode_message};
use crate::execute::workspace::Workspace;
use crate::plan::FromQuery;
use crate::plan::insert_query::Steps;
use crate::plan::moment::Clock;
use crate::session::Session;
use crate::session::workspace::columns;
use crate::session::workspace::fetch::Asked;
use crate::session::workspace::furnish::{Fill, Furnished, Furnishing};
use crate::session::write::insert::{Inserted, Inserting, MOST_RETURNED};

impl Session {
    /// Inserts the rows of a query, in a block, which is there.
    pub(in crate::session) async fn insert_query(
        &mut self,
        from: &FromQuery,
        inserting: &Inserting<'_>,
    ) -> Result<Inserted, Trouble> {
        let Some(learned) = &from.first else {
            return self.store_query(from, inserting).await;
        };
        let query = FromQuery::query(inserting.sql, from.has_conflict()).ok_or(Failure::Retry)?;
        let clock = self.clock_of(from).await?;
        let query = from.at(query, clock.as_ref());
        let asked = Asked {
            sql: &query,
            params: inserting.bound.clone(),
            given: GivenRows::default(),
            need: Need::Primary,
            cancels: inserting.cancels,
        };
        let (given, arrays) = self.compute_rows(learned, &query, &asked).await?;
        let text = from.over(inserting.sql, &given, asked.parameters() + 1);
        let over = Inserting {
            sql: &text.ok_or(Failure::Retry)?,
            bound: inserting.bound.clone(),
            given: GivenRows::new(arrays.into_iter().map(Some).collect()),
            ..*inserting
        };
        self.store_query(from, &over).await
    }

    /// The time, if the statement asks for it.
    async fn clock_of(&mut self, from: &FromQuery) -> Result<Option<Clock>, Trouble> {
        Ok(match from.moments {
            true => Some(self.clock(ShardIndex::FIRST).await?),
            false => None,
        })
    }

    /// The same, of a query that a workspace can run.
    async fn store_query(
        &mut self,
        from: &FromQuery,
        inserting: &Inserting<'_>,
    ) -> Result<Inserted, Trouble> {
        let query = FromQuery::query(inserting.sql, from.has_conflict()).ok_or(Failure::Retry)?;
        let fetches =
            inserting.with_values(&query, |values| self.fetches(&from.workspace, values))??;
        let asked = Asked {
            sql: &query,
            params: inserting.bound.clone(),
            given: inserting.given.clone(),
            need: Need::Primary,
            cancels: inserting.cancels,
        };
        let described = self.described(&query, &asked).await?;
        let width = columns(&described).map_or(0, |columns| columns.len());
        let clock = self.clock_of(from).await?;
        let steps = from.steps(width, clock.as_ref());
        let steps = steps.map_err(|refusal| Failure::Refused(Box::new(refusal)))?;
        let furnished = Box::pin(self.furnish(&from.workspace, &fetches, &asked, Fill::Rows));
        let Furnished {
            mut workspace,
            text,
            ..
        } = match furnished.await? {
            Furnishing::Done(furnished) => *furnished,
            Furnishing::Failed(said) => return Err(self.failed_in_part(&said)),
        };
        let text = from.at(text, clock.as_ref());
        let filled = self.fill(from, &mut workspace, &steps, &text, &asked).await;
        if from.clauses.is_some() {
            let rows = match filled {
                Ok(()) => self.take_divided(from, &mut workspace, &steps).await,
                Err(trouble) => Err(trouble),
            };
            let rows = self.leave_workspace(workspace, rows).await?;
            return self
                .store_with_clauses(from, &steps, rows, (inserting, clock.as_ref()))
                .await;
        }
        if from.is_everywhere() {
            let rows = match filled {
                Ok(()) => self.take_copied(&mut workspace, &steps).await,
                Err(trouble) => Err(trouble),
            };
            let rows = self.leave_workspace(workspace, rows).await?;
            return self.store_copies(&steps, &rows, inserting).await;
        }
        let outcome = match filled {
            Ok(()) => {
                self.divide_rows(from, &mut workspace, &steps, inserting)
                    .await
            }
            Err(trouble) => Err(trouble),
        };
        let count = self.leave_workspace(workspace, outcome).await?;
        Ok(Inserted {
            count,
            ..Inserted::default()
        })
    }

    /// What PostgreSQL says of the result of a text.
    async fn described(&mut self, text: &[u8], asked: &Asked<'_>) -> Result<Bytes, Trouble> {
        if asked.given.is_empty() {
            return self.describe(text).await;
        }
        // Parameters that only another part of the client's statement mentions have the types that they have there.
        let asked = asked.with_types_in(text);
        match Box::pin(self.analyse_apart(text, &asked)).await? {
            Ok(described) => Ok(described.freeze()),
            Err(said) => {
                self.client.output.extend_from_slice(&said);
                Err(Trouble::Told)
            }
        }
    }

    /// Takes the rows out of the workspace, as arrays for their shards.
    async fn take_divided(
        &mut self,
        from: &FromQuery,
        workspace: &mut Workspace,
        steps: &Steps,
    ) -> Result<BTreeMap<ShardIndex, Arrays>, Trouble> {
        let given = from.given(steps).ok_or(Failure::Retry)?;
        let types: Vec<u32> = given.iter().map(|column| column.element_oid()).collect();
        let formats: Vec<Format> = given.iter().map(|column| column.format()).collect();
        self.ask_divided(workspace, steps, &formats).await?;
        let (mut divided, mut bytes) = (BTreeMap::new(), 0);
        let take = |message: &[u8]| {
            bytes += message.len();
            let arrays = divided.entry(shard_of(from, steps, message)?);
            let arrays = arrays
                .or_insert_with(|| Arrays::of_many(types.iter().copied(), u32::MAX, MOST_RETURNED));
            let taken = arrays.push(message.get(HEADER..).unwrap_or_default());
            match taken {
                Ok(()) if bytes <= MOST_RETURNED => Ok(()),
                Ok(()) | Err(NotTaken::Full) => {
                    let limit = MOST_RETURNED as u64;
                    Err(Failure::FetchLimit { limit })
                }
                Err(NotTaken::Unreadable) => Err(Failure::Retry),
            }
        };
        take_all(&mut self.client, workspace, take).await?;
        Ok(divided)
    }

    /// Takes the rows out of the workspace, in binary.
    async fn take_copied(
        &mut self,
        workspace: &mut Workspace,
        steps: &Steps,
    ) -> Result<Vec<Bytes>, Trouble> {
        self.ask_divided(workspace, steps, &[Format::Binary])
            .await?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let take = |message: &[u8]| {
            bytes += message.len();
            rows.push(Bytes::copy_from_slice(
                message.get(HEADER..).unwrap_or_default(),
            ));
            match bytes <= MOST_RETURNED {
                true => Ok(()),
                false => {
                    let limit = MOST_RETURNED as u64;
                    Err(Failure::FetchLimit { limit })
                }
            }
        };
        take_all(&mut self.client, workspace, take).await?;
        Ok(rows)
    }

    /// Stores rows in every copy of a reference table, one after the other as everybody does: who wants the same row waits on the first.
    async fn store_copies(
        &mut self,
        steps: &Steps,
        rows: &[Bytes],
        inserting: &Inserting<'_>,
    ) -> Result<Inserted, Trouble> {
        let mut first = None;
        for shard in ShardSet::all(self.database.shards.len()).iter() {
            let index = self.settled(shard, inserting).await?;
            let participant = self.participants.at(index)?;
            participant.note_run(inserting.plan);
            // What the triggers of each copy say is said once.
            let show = match first {
                None => Show::Notices,
                Some(_) => Show::Errors,
            };
            let stored = store(&mut self.client, participant, &steps.copy, rows, show).await;
            let stored = match stored {
                Ok(stored) => stored,
                Err(Trouble::Told) => return Err(self.failed_on(shard)),
                Err(Trouble::Lost) => return Err(self.lose(index, inserting.plan)),
                Err(trouble) => return Err(trouble),
            };
            self.same_count(&mut first, stored, shard)?;
        }
        Ok(Inserted {
            count: first.unwrap_or_default(),
            ..Inserted::default()
        })
    }

    /// Copies of a table count the same.
    fn same_count(
        &self,
        first: &mut Option<u64>,
        count: u64,
        shard: ShardIndex,
    ) -> Result<(), Failure> {
        match *first.get_or_insert(count) == count {
            true => Ok(()),
            false => Err(Failure::CopiesDiffer {
                shard: self.shard_name(shard),
            }),
        }
    }

    /// Stores rows on their shards by a statement with the clauses of the client's.
    async fn store_with_clauses(
        &mut self,
        from: &FromQuery,
        steps: &Steps,
        rows: BTreeMap<ShardIndex, Arrays>,
        (inserting, clock): (&Inserting<'_>, Option<&Clock>),
    ) -> Result<Inserted, Trouble> {
        let mut inserted = Inserted::default();
        let mut width = 0;
        let mut asked = Asked {
            sql: inserting.sql,
            params: inserting.bound.clone(),
            given: inserting.given.clone(),
            need: Need::Primary,
            cancels: inserting.cancels,
        };
        if from.clauses.as_ref().is_some_and(|clauses| clauses.returns) {
            let description = self.described(inserting.sql, &asked).await?;
            width = columns(&description).map_or(0, |columns| columns.len());
            // Of a portal this has been said.
            inserted.description = inserting.bound.is_none().then_some(description);
        }
        let text = from.store(inserting.sql, steps, asked.parameters() + 1, clock);
        let text = String::from_utf8(text.ok_or(Failure::Retry)?).map_err(|_| Failure::NotUtf8)?;
        let formats = inserting.formats(width);
        let (mut returned, mut first) = (0, None);
        let count = self.database.shards.len();
        let parts = rows.into_iter().flat_map(|(shard, arrays)| {
            let given = arrays.finish();
            let shards = match from.is_everywhere() {
                true => ShardSet::all(count),
                false => ShardSet::one(shard),
            };
            let shards: Vec<ShardIndex> = shards.iter().collect();
            shards.into_iter().map(move |shard| (shard, given.clone()))
        });
        for (shard, given) in parts {
            let index = self.settled(shard, inserting).await?;
            self.participants.at(index)?.note_run(inserting.plan);
            asked.given = GivenRows::new(given.into_iter().map(Some).collect());
            let sent = self.ask(index, &text, &formats, &asked).await;
            self.or_lost(index, inserting, sent)?;
            let answer = self
                .rows_or_error(index, inserting.plan, &mut returned, |_| None)
                .await?;
            if from.is_everywhere() && first.is_some() {
                self.same_count(&mut first, answer.count, shard)?;
                continue;
            }
            first = Some(answer.count);
            inserted.count += answer.count;
            inserted.rows.extend(answer.rows);
        }
        Ok(inserted)
    }

    /// Runs the query in the workspace.
    async fn fill(
        &mut self,
        from: &FromQuery,
        workspace: &mut Workspace,
        steps: &Steps,
        text: &[u8],
        asked: &Asked<'_>,
    ) -> Result<(), Trouble> {
        workspace.run(&mut self.client, &steps.make).await?;
        let fill = [steps.fill.as_bytes(), text].concat();
        let messages = |output: &mut BytesMut| asked.encode(output, &fill, &[Format::Binary]);
        workspace.carry_out(&mut self.client, messages).await?;
        if from.takes_next() {
            self.join_sequences_apart().await?;
        }
        Ok(())
    }

    /// Brings the rows from the workspace to their shards; how many are stored.
    async fn divide_rows(
        &mut self,
        from: &FromQuery,
        workspace: &mut Workspace,
        steps: &Steps,
        inserting: &Inserting<'_>,
    ) -> Result<u64, Trouble> {
        let mut targets: Vec<(ShardIndex, usize)> = Vec::new();
        for shard in from.shards(self.database.shards.len()).iter() {
            let index = self.join(shard, Need::Primary).await?;
            targets.push((shard, index));
        }
        let indexes: Vec<usize> = targets.iter().map(|(_, index)| *index).collect();
        self.settle_each(&indexes, inserting.plan).await?;
        let mut begun = Vec::with_capacity(targets.len());
        let mut outcome = Ok(());
        for (shard, index) in &targets {
            let participant = self.participants.at(*index)?;
            participant.note_run(inserting.plan);
            match begin(&mut self.client, participant, &steps.copy).await {
                Ok(()) => begun.push((*shard, *index)),
                Err(trouble) => {
                    outcome = Err(trouble);
                    break;
                }
            }
        }
        outcome = outcome.and_then(|()| self.not_cancelled(inserting.cancels));
        if outcome.is_ok() {
            outcome = self.divide_among(from, workspace, steps, &begun).await;
        }
        let mut stored = 0;
        for (shard, index) in begun {
            let participant = self.participants.at(index)?;
            if participant.connection.broken {
                continue;
            }
            let show = outcome.is_ok().then_some(Show::Notices);
            match finish(&mut self.client, participant, show).await {
                Ok(rows) => stored += rows,
                Err(trouble) if outcome.is_ok() => {
                    if let Some(block) = &mut self.block {
                        block.failed.get_or_insert(FailedOn::Shard(shard));
                    }
                    outcome = Err(trouble);
                }
                // The client hears of the trouble there was before.
                Err(_) => {}
            }
        }
        outcome.map(|()| stored)
    }

    /// Reads the rows from the workspace, each for the participant of its shard.
    async fn divide_among(
        &mut self,
        from: &FromQuery,
        workspace: &mut Workspace,
        steps: &Steps,
        targets: &[(ShardIndex, usize)],
    ) -> Result<(), Trouble> {
        self.ask_divided(workspace, steps, &[Format::Binary])
            .await?;
        let place = |message: &[u8]| {
            let shard = shard_of(from, steps, message)?;
            let target = targets.iter().find(|(of, _)| *of == shard);
            target.map(|(_, index)| *index).ok_or(Failure::Retry)
        };
        let Self {
            client,
            participants,
            ..
        } = self;
        divide(client, workspace, participants, place).await
    }

    /// Asks the workspace for the rows, in these formats.
    async fn ask_divided(
        &mut self,
        workspace: &mut Workspace,
        steps: &Steps,
        formats: &[Format],
    ) -> Result<(), Trouble> {
        let own = Asked {
            sql: steps.take.as_bytes(),
            params: None,
            given: GivenRows::default(),
            need: Need::Primary,
            cancels: 0,
        };
        let messages = |output: &mut BytesMut| own.encode(output, steps.take.as_bytes(), formats);
        workspace.ask(&mut self.client, messages).await
    }
}

/// The shard of a row, which is a whole message.
fn shard_of(from: &FromQuery, steps: &Steps, message: &[u8]) -> Result<ShardIndex, Failure> {
    let Ok(Message::DataRow(row)) = decode_message(message) else {
        return Err(Failure::Retry);
    };
    let Some(key) = steps.key else {
        return Ok(ShardIndex::FIRST);
    };
    let key = row.iter().nth(key).ok_or(Failure::Retry)?;
    from.shard(key).ok_or_else(|| Failure::Unsupported {
        what: "a row whose shard its key does not say".into(),
        hint: "Every key must have a shard.",
    })
}
