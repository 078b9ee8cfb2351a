//! A statement over what a common table expression returns that writes rows of several shards: each shard writes its rows, and then the rest
//! runs with what they have returned.

use switchyard_schema::{ShardIndex, ShardSet};

use crate::execute::arrays::{Arrays, MOST_BYTES, MOST_ROWS};
use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::plan::given::GivenColumn;
use crate::plan::{Rest, Steps};
use crate::session::Session;
use crate::session::workspace::columns;
use crate::session::workspace::fetch::Asked;
use crate::session::workspace::few_rows::FewRows;
use crate::session::write::insert::{Inserted, Inserting};

impl Session {
    /// Runs both, in a block, which is there.
    pub(in crate::session) async fn run_steps(
        &mut self,
        steps: &Steps,
        asked: &Inserting<'_>,
    ) -> Result<Inserted, Trouble> {
        let count = self.database.shards.len();
        let target = &steps.write.target;
        let shards = asked.with_values(asked.sql, |values| target.shards(values, count))?;
        let shards = shards.map_err(Failure::Refused)?;
        let description = self.describe_if_any(asked.sql).await?;
        let width = description.as_deref().and_then(columns);
        let width = width.map_or(0, |columns| columns.len());
        let mut own = Asked {
            sql: asked.sql,
            params: asked.bound.clone(),
            given: GivenRows::default(),
            need: Need::Primary,
            cancels: asked.cancels,
        };
        let one = shards.first().unwrap_or(ShardIndex::FIRST);
        let text = self
            .with_the_time(asked.sql, &steps.write.moments, one)
            .await?;
        let text = text.into_owned();
        let first = utf8(steps.first(&text))?;
        own.given = match steps.apart {
            true => self.written_apart(steps, first.as_bytes(), &own).await?,
            false => {
                let written = self.written_rows(steps, asked, (&shards, &first), &own);
                written.await?
            }
        };
        let second = utf8(steps.second(&text, own.parameters() + 1))?;
        let (one, command) = match &steps.rest {
            Rest::Query => (one, "SELECT"),
            Rest::OnFirst => (ShardIndex::FIRST, ""),
            Rest::Insert(from) => {
                let inserting = Inserting {
                    plan: asked.plan,
                    sql: second.as_bytes(),
                    shards: &[],
                    bound: asked.bound.clone(),
                    cancels: asked.cancels,
                    given: own.given,
                };
                return Box::pin(self.insert_query(from, &inserting)).await;
            }
        };
        let index = self.settled(one, asked).await?;
        if command.is_empty() {
            self.participants.at(index)?.note_run(asked.plan);
        }
        let sent = self.ask(index, &second, &asked.formats(width), &own).await;
        self.or_lost(index, asked, sent)?;
        let mut returned = 0;
        let answer = self
            .rows_or_error(index, asked.plan, &mut returned, |_| None)
            .await?;
        Ok(Inserted {
            // Of a portal this has been said.
            description: description.filter(|_| asked.bound.is_none()),
            rows: answer.rows.into(),
            count: answer.count,
            command,
        })
    }

    /// Writes by this text, as if it were the client's: the rows that it has returned.
    async fn written_apart(
        &mut self,
        steps: &Steps,
        first: &[u8],
        own: &Asked<'_>,
    ) -> Result<GivenRows, Trouble> {
        let formats = steps.given.formats();
        let taking = self.run_ahead(first, own, &formats).await?;
        let arrays = match taking.arrays(steps.given.types())? {
            Some(arrays) => arrays,
            None => return Err(too_many(steps).into()),
        };
        Ok(GivenRows::new(arrays.into_iter().map(Some).collect()))
    }

    /// Writes on these shards by this text: the rows that it has returned.
    async fn written_rows(
        &mut self,
        steps: &Steps,
        asked: &Inserting<'_>,
        (shards, first): (&ShardSet, &str),
        own: &Asked<'_>,
    ) -> Result<GivenRows, Trouble> {
        let elements = steps.given.columns.iter().map(GivenColumn::element_oid);
        let mut few = FewRows::All(Arrays::new(elements));
        let formats = steps.given.formats();
        for shard in shards.iter() {
            let index = self.settled(shard, asked).await?;
            self.participants.at(index)?.note_run(asked.plan);
            let sent = self.ask(index, first, &formats, own).await;
            self.or_lost(index, asked, sent)?;
            let taken = self.take_rows(index, &steps.given, few).await;
            few = match taken {
                Err(Trouble::Lost) => return Err(self.lose(index, asked.plan)),
                taken => taken?,
            };
            if let FewRows::Failed { .. } = few {
                return Err(self.failed_on(shard));
            }
        }
        match few {
            FewRows::All(arrays) => Ok(GivenRows::new(
                arrays.finish().into_iter().map(Some).collect(),
            )),
            FewRows::TooMany => Err(too_many(steps).into()),
            FewRows::OfOtherTypes | FewRows::Failed { .. } => Err(Failure::Retry.into()),
        }
    }
}

fn too_many(steps: &Steps) -> Failure {
    Failure::GivenLimit {
        what: format!("table \"{}\"", steps.given.relation.name).into(),
        rows: MOST_ROWS,
        bytes: MOST_BYTES,
    }
}

fn utf8(text: Option<Vec<u8>>) -> Result<String, Failure> {
    String::from_utf8(text.ok_or(Failure::Retry)?).map_err(|_| Failure::NotUtf8)
}
