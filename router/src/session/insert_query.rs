//! INSERT of what a query returns, by way of a workspace: it runs the query and gives the rows the table's types, and each shard copies
//! its own into the table, all of them at a time.

use bytes::BytesMut;
use switchyard_schema::ShardIndex;
use switchyard_wire::Format;
use switchyard_wire::backend::Message;

use super::Session;
use super::fetch::Asked;
use super::furnish::{Fill, Furnished, Furnishing};
use super::insert::{Inserted, Inserting};
use super::workspace::columns;
use crate::execute::block::FailedOn;
use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::load::{begin, divide, finish};
use crate::execute::participants::Need;
use crate::execute::relay::{Trouble, decode_message};
use crate::execute::workspace::Workspace;
use crate::plan::FromQuery;
use crate::plan::insert_query::Steps;

impl Session {
    /// Inserts the rows of a query, in a block, which is there.
    pub(super) async fn insert_query(
        &mut self,
        from: &FromQuery,
        inserting: &Inserting<'_>,
    ) -> Result<Inserted, Trouble> {
        let query = FromQuery::query(inserting.sql).ok_or(Failure::Retry)?;
        let fetches =
            inserting.with_values(&query, |values| self.fetches(&from.workspace, values))??;
        let asked = Asked {
            sql: &query,
            params: inserting.bound.clone(),
            given: GivenRows::default(),
            need: Need::Primary,
            cancels: inserting.cancels,
        };
        let described = self.describe(&query).await?;
        let width = columns(&described).map_or(0, |columns| columns.len());
        let clock = match from.moments {
            true => Some(self.clock(ShardIndex::FIRST).await?),
            false => None,
        };
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
        let outcome = self
            .divide_rows(from, &mut workspace, &steps, &text, (inserting, &asked))
            .await;
        let count = self.leave_workspace(workspace, outcome).await?;
        Ok(Inserted {
            count,
            ..Inserted::default()
        })
    }

    /// Runs the query in the workspace, and brings its rows to their shards; how many are stored.
    async fn divide_rows(
        &mut self,
        from: &FromQuery,
        workspace: &mut Workspace,
        steps: &Steps,
        text: &[u8],
        (inserting, asked): (&Inserting<'_>, &Asked<'_>),
    ) -> Result<u64, Trouble> {
        workspace.run(&mut self.client, &steps.make).await?;
        let fill = [steps.fill.as_bytes(), text].concat();
        let messages = |output: &mut BytesMut| asked.encode(output, &fill, Format::Binary);
        workspace.send(&mut self.client, messages).await?;
        if from.takes_next() {
            self.join_sequences_apart().await?;
        }
        let mut targets: Vec<(ShardIndex, usize)> = Vec::new();
        for shard in from.shards().iter() {
            let index = self.join(shard, Need::Primary).await?;
            self.settle_one(index, inserting.plan).await?;
            targets.push((shard, index));
        }
        let mut begun = Vec::with_capacity(targets.len());
        let mut outcome = Ok(());
        for (shard, index) in &targets {
            let participant = self.participants.at(*index)?;
            participant.note_run(inserting.plan);
            participant.unread = true;
            match begin(&mut self.client, participant, &steps.copy).await {
                Ok(()) => begun.push((*shard, *index)),
                Err(trouble) => {
                    outcome = Err(trouble);
                    break;
                }
            }
        }
        if outcome.is_ok() {
            outcome = self.divide_among(from, workspace, steps, &begun).await;
        }
        let mut stored = 0;
        for (shard, index) in begun {
            let participant = self.participants.at(index)?;
            if participant.connection.broken {
                continue;
            }
            match finish(&mut self.client, participant, outcome.is_ok()).await {
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
        let own = Asked {
            sql: steps.take.as_bytes(),
            params: None,
            given: GivenRows::default(),
            need: Need::Primary,
            cancels: 0,
        };
        let messages =
            |output: &mut BytesMut| own.encode(output, steps.take.as_bytes(), Format::Binary);
        workspace.ask(&mut self.client, messages).await?;
        let place = |message: &[u8]| {
            let Ok(Message::DataRow(row)) = decode_message(message) else {
                return Err(Failure::Retry);
            };
            let key = row.iter().nth(steps.key).ok_or(Failure::Retry)?;
            let shard = from.shard(key).ok_or_else(|| Failure::Unsupported {
                what: "a row whose shard its key does not say".into(),
                hint: "Every key must have a shard.",
            })?;
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
}
