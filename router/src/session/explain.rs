//! EXPLAIN of statements whose rows are on several shards: our own plan as a tree, and below each step what PostgreSQL says
//! of its part.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not in a workspace is appended"
)]

use switchyard_schema::{ShardIndex, ShardSet};
use switchyard_wire::Format;
use switchyard_wire::backend::{Column, encode};

use super::Session;
use super::fetch::{Asked, Brought};
use super::furnish::{Fill, Furnished, Furnishing};
use super::route::Routed;
use super::simple::{Ready, Sent};
use crate::execute::failure::Failure;
use crate::execute::messages::lines;
use crate::execute::relay::Trouble;
use crate::execute::workspace::Workspace;
use crate::plan::explain::{Steps, steps};
use crate::plan::{self, Operator, Plan, explained, query_within};

/// The number of type text.
const TEXT: u32 = 25;

/// Where a statement and its fetches go.
pub(super) struct Spread<'a> {
    pub(super) plan: &'a Plan,
    pub(super) shards: &'a ShardSet,
    pub(super) fetches: &'a [ShardSet],
}

/// The column of the answer.
pub(super) fn query_plan(format: Format) -> Column<'static> {
    Column {
        format,
        ..Column::new(b"QUERY PLAN", TEXT, -1)
    }
}

impl Session {
    /// EXPLAIN by the simple protocol.
    pub(super) async fn explain(
        &mut self,
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let asked = Asked {
            sql: sent.sql(),
            params: None,
            given: Vec::new(),
            need: self.need(routed.plan.access, routed.hint),
            cancels: self.cancel.slot().requests(),
        };
        let spread = Spread {
            plan: &routed.plan,
            shards: &routed.shards,
            fetches: &routed.fetches,
        };
        let lines = self.explain_lines(&spread, &asked).await?;
        let output = &mut self.client.output;
        encode::row_description(output, &[query_plan(Format::Text)]);
        for line in &lines {
            encode::data_row(output, &[Some(line)]);
        }
        self.complete("EXPLAIN")
    }

    /// The lines of the answer.
    pub(super) async fn explain_lines(
        &mut self,
        spread: &Spread<'_>,
        asked: &Asked<'_>,
    ) -> Result<Vec<String>, Trouble> {
        let query = query_within(asked.sql, &spread.plan.command);
        self.describe(&query).await?;
        let (options, words) = explained(asked.sql);
        if !options.text {
            return Err(Failure::Unsupported {
                what: "EXPLAIN in this format, of a statement whose rows are on several shards,"
                    .into(),
                hint: "Leave out FORMAT.",
            }
            .into());
        }
        let steps = steps(spread.plan, &self.database.relations, asked.sql, None);
        if let Operator::Lock(_) = &spread.plan.operator {
            if options.analyze {
                return Err(Failure::Unsupported {
                    what: "EXPLAIN ANALYZE of a statement that locks rows it has to find first"
                        .into(),
                    hint: "Leave out ANALYZE.",
                }
                .into());
            }
            return Ok(lines_of(&[steps.head, steps.tail].concat()));
        }
        let fill = match options.analyze {
            true => Fill::Rows,
            false => Fill::Nothing,
        };
        match &spread.plan.operator {
            Operator::Workspace(plan) => {
                let words = String::from_utf8_lossy(words).into_owned();
                self.explain_workspace(plan, spread, asked, steps, (fill, &words))
                    .await
            }
            operator => {
                self.gather(spread.shards, asked.need).await?;
                let mut said = lines_of(&steps.head);
                let text = match operator {
                    Operator::Merge(merge) => [words, b" ", &merge.text(&query)].concat(),
                    _ => asked.sql.to_vec(),
                };
                let text = String::from_utf8_lossy(&text).into_owned();
                self.explain_parts(&mut said, 2, spread.shards, &text, asked)
                    .await?;
                said.extend(lines_of(&steps.tail));
                Ok(said)
            }
        }
    }

    /// What each shard says of its part.
    async fn explain_parts(
        &mut self,
        said: &mut Vec<String>,
        depth: usize,
        shards: &ShardSet,
        sql: &str,
        asked: &Asked<'_>,
    ) -> Result<(), Trouble> {
        for shard in shards.iter() {
            let name = self.shard_name(shard);
            said.push(format!("{:depth$}Shard {name}", ""));
            let plan = self.explain_on(shard, sql, asked).await?;
            said.extend(
                plan.iter()
                    .map(|line| format!("{:1$}{line}", "", depth + 2)),
            );
        }
        Ok(())
    }

    async fn explain_on(
        &mut self,
        shard: ShardIndex,
        sql: &str,
        asked: &Asked<'_>,
    ) -> Result<Vec<String>, Trouble> {
        let index = self.join(shard, asked.need).await?;
        let plan = match self.ask(index, sql, Format::Text, asked).await {
            Ok(()) => {
                let (client, source, _) = self.exchanging(index)?;
                let plan = lines(client, source).await;
                source.unread = plan
                    .as_ref()
                    .is_err_and(|trouble| !matches!(trouble, Trouble::Told));
                plan
            }
            Err(trouble) => Err(trouble),
        };
        match plan {
            Err(Trouble::Lost) => Err(self.lost_with_rows(None).into()),
            Err(trouble) => {
                self.abandon_rows(None).await;
                Err(trouble)
            }
            plan => plan,
        }
    }

    /// The fetches, each with what the shards say of it, and what the workspace says of the statement itself.
    async fn explain_workspace(
        &mut self,
        plan: &plan::Workspace,
        spread: &Spread<'_>,
        asked: &Asked<'_>,
        steps: Steps,
        (fill, words): (Fill, &str),
    ) -> Result<Vec<String>, Trouble> {
        let furnished = Box::pin(self.furnish(plan, spread.fetches, asked, fill)).await?;
        let Furnished {
            mut workspace,
            text,
            brought,
        } = match furnished {
            Furnishing::Done(furnished) => furnished,
            Furnishing::Failed(said) => return Err(self.failed_in_part(&said)),
        };
        let own = self.explain_there(&mut workspace, &text, asked).await;
        let own = self.leave_workspace(workspace, own).await?;
        let mut said = lines_of(&steps.head);
        let finished = brought.iter().any(|brought| {
            let finish = plan.finish.as_ref();
            finish.is_some_and(|finish| finish.rows.relation == brought.relation)
        });
        let all = plan.all_fetches().zip(spread.fetches).zip(&steps.fetches);
        for ((fetch, shards), step) in all.filter(|((fetch, _), _)| fetch.is_computed() == finished)
        {
            said.extend(lines_of(step));
            let of_fetch = |brought: &&Brought| brought.relation == fetch.relation;
            let Some(brought) = brought.iter().find(of_fetch) else {
                continue;
            };
            if fill == Fill::Rows {
                let Brought { rows, bytes, .. } = brought;
                said.push(format!("    Fetched: {rows} rows, {bytes} bytes"));
            }
            let sql = format!("{words}{}", brought.query);
            self.explain_parts(&mut said, 4, shards, &sql, asked)
                .await?;
        }
        said.extend(lines_of(&steps.tail));
        said.push("  Statement".to_owned());
        said.extend(own.iter().map(|line| format!("    {line}")));
        Ok(said)
    }

    async fn explain_there(
        &mut self,
        workspace: &mut Workspace,
        text: &[u8],
        asked: &Asked<'_>,
    ) -> Result<Vec<String>, Trouble> {
        let connection = &mut *workspace.backend.connection;
        connection.unnamed = None;
        asked.encode(&mut connection.output, text, Format::Text);
        workspace.flush(&mut self.client).await?;
        lines(&mut self.client, &mut workspace.backend).await
    }
}

fn lines_of(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}
