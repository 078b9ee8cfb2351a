//! EXPLAIN of statements whose rows are on several shards: our own plan as a tree, and below each step what PostgreSQL says
//! of its part. With ANALYZE the statement is run as it would be by itself, and rows are fetched once.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not in a workspace is appended"
)]

use std::sync::Arc;

use switchyard_schema::{ShardIndex, ShardSet};
use switchyard_wire::Format;
use switchyard_wire::backend::{Column, encode};

use super::Session;
use super::extended::bind::BoundParams;
use super::route::{Planned, Routed};
use super::simple::{Ready, Sent};
use super::statement::Statement;
use crate::execute::arrays::{MOST_BYTES, MOST_ROWS};
use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::messages::lines;
use crate::execute::relay::Trouble;
use crate::execute::workspace::Workspace;
use crate::plan::explain::{Names, Steps, bind_join_head, given_fetch, steps};
use crate::plan::{self, Command, NoParams, Operator, Plan, Values, explained, query_within};
use crate::session::read::bind_join::{Joining, finish_of};
use crate::session::workspace::fetch::{Asked, Brought};
use crate::session::workspace::furnish::{Fill, Furnished, Furnishing};
use crate::sql::Literal;

/// The number of type text.
const TEXT: u32 = 25;

/// The query that is explained, as it would be run by itself.
struct Query {
    plan: Arc<Plan>,
    literals: Vec<Literal>,
    shards: ShardSet,
    /// The shards of each of its fetches.
    fetches: Vec<ShardSet>,
}

/// What is wanted of it.
struct Wanted {
    /// ANALYZE: it is run.
    fill: Fill,
    /// The text up to the query.
    words: String,
    /// The same without ANALYZE: for what has been fetched already.
    without_analyze: String,
}

/// What is explained only, and not run.
fn unanalysed(operator: &Operator) -> Trouble {
    let does = match operator {
        Operator::Lock(_) => "locks rows it has to find first",
        _ => "changes rows of several shards",
    };
    Failure::Unsupported {
        what: format!("EXPLAIN ANALYZE of a statement that {does}").into(),
        hint: "Leave out ANALYZE.",
    }
    .into()
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
            given: GivenRows::default(),
            need: self.need(routed.plan.access, routed.hint),
            cancels: self.cancel.slot().requests(),
        };
        let command = &routed.plan.command;
        let lines = self.explain_lines(command, None, &asked).await?;
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
        command: &Command,
        statement: Option<&Statement>,
        asked: &Asked<'_>,
    ) -> Result<Vec<String>, Trouble> {
        let sql = query_within(asked.sql, command);
        let description = self.describe_if_any(&sql).await?.unwrap_or_default();
        let (options, words) = explained(asked.sql);
        if !options.text {
            return Err(Failure::Unsupported {
                what: "EXPLAIN in another format than text of a statement whose rows are on several shards"
                    .into(),
                hint: "Leave out FORMAT.",
            }
            .into());
        }
        let mut asked = Asked {
            sql: &sql,
            params: asked.params.clone(),
            given: GivenRows::default(),
            need: asked.need,
            cancels: asked.cancels,
        };
        let query = self.query_of(&asked, statement)?;
        let steps = steps(&query.plan, &self.names(&sql, &query.literals), &sql, None);
        let wanted = Wanted {
            fill: match options.analyze {
                true => Fill::Rows,
                false => Fill::Nothing,
            },
            words: String::from_utf8_lossy(words).into_owned(),
            without_analyze: options.without_analyze(),
        };
        match &query.plan.operator {
            Operator::Lock(_) | Operator::Write(_) if options.analyze => {
                Err(unanalysed(&query.plan.operator))
            }
            Operator::Lock(_) => Ok(lines_of(&[steps.head, steps.tail].concat())),
            Operator::Workspace(workspace) => {
                let joining = Joining {
                    plan: &query.plan,
                    workspace,
                    fetches: &query.fetches,
                    literals: &query.literals,
                    statement,
                    description: &description,
                };
                let joined = self.explain_join(&joining, &mut asked, &wanted).await?;
                if let Some(said) = joined {
                    return Ok(said);
                }
                asked.given.clear();
                // Of its joins more is known now.
                let steps = plan::explain::steps(
                    &query.plan,
                    &self.names(&sql, &query.literals),
                    &sql,
                    None,
                );
                self.explain_workspace(workspace, &query.fetches, &asked, steps, &wanted)
                    .await
            }
            Operator::Merge(merge) => {
                let text = merge.text(&sql);
                self.explain_rows(&query.shards, steps, &text, &asked, &wanted)
                    .await
            }
            _ => {
                self.explain_rows(&query.shards, steps, &sql, &asked, &wanted)
                    .await
            }
        }
    }

    /// The query in an EXPLAIN: its plan is the one by which it would be run.
    fn query_of(
        &mut self,
        asked: &Asked<'_>,
        statement: Option<&Statement>,
    ) -> Result<Query, Failure> {
        let worker = Arc::clone(&self.worker);
        let mut desk = worker.desk();
        let Planned::One(plan) = self.plan_text(&mut desk, asked.sql)? else {
            return Err(Failure::Retry);
        };
        let literals = desk.scan.literals.clone();
        let params = match (&asked.params, statement) {
            (Some((_, bind)), Some(statement)) => Some(BoundParams::new(bind, statement)),
            _ => None,
        };
        let values = Values {
            sql: asked.sql,
            literals: &literals,
            params: params.as_ref().map_or(&NoParams, |params| params),
        };
        let (plan, shards) = self.bind_either(plan, &values)?;
        let fetches = match &plan.operator {
            Operator::Workspace(workspace) => self.fetches(workspace, &values)?,
            _ => Vec::new(),
        };
        Ok(Query {
            plan,
            literals,
            shards,
            fetches,
        })
    }

    /// What numbers in a plan of this text mean.
    fn names<'a>(&'a self, sql: &'a [u8], literals: &'a [Literal]) -> Names<'a> {
        Names {
            relations: &self.database.relations,
            literals: Some((sql, literals)),
        }
    }

    /// Rows that come from the shards, each with what it says of its text.
    async fn explain_rows(
        &mut self,
        shards: &ShardSet,
        steps: Steps,
        text: &[u8],
        asked: &Asked<'_>,
        wanted: &Wanted,
    ) -> Result<Vec<String>, Trouble> {
        self.gather(shards, asked.need).await?;
        let mut said = lines_of(&steps.head);
        let text = format!("{}{}", wanted.words, String::from_utf8_lossy(text));
        self.explain_parts(&mut said, 2, shards, &text, asked)
            .await?;
        said.extend(lines_of(&steps.tail));
        Ok(said)
    }

    /// A bind join, if one is made: what is fetched to be given, and what the shards then do. With ANALYZE it is made.
    async fn explain_join(
        &mut self,
        joining: &Joining<'_>,
        asked: &mut Asked<'_>,
        wanted: &Wanted,
    ) -> Result<Option<Vec<String>>, Trouble> {
        let fetched = self.fetch_join(joining, asked, wanted.fill).await?;
        let Some((chosen, given)) = fetched else {
            return Ok(None);
        };
        let workspace = joining.workspace;
        let mut said = lines_of(&bind_join_head(workspace, joining.plan));
        for brought in &given {
            let mut fetches = workspace.fetches.iter().zip(joining.fetches);
            let Some((fetch, shards)) =
                fetches.find(|(fetch, _)| fetch.relation == brought.relation)
            else {
                continue;
            };
            let names = self.names(asked.sql, joining.literals);
            let step = given_fetch(fetch, chosen.join, &names, asked.sql);
            self.explain_fetch(&mut said, &step, (brought, shards), asked, wanted)
                .await?;
        }
        let plan = &chosen.bound.plan;
        // What else is known of the statement has been said.
        let steps = Steps {
            tail: String::new(),
            ..steps(
                plan,
                &self.names(asked.sql, joining.literals),
                asked.sql,
                None,
            )
        };
        let rest = match (&plan.operator, finish_of(plan)) {
            (Operator::Workspace(finished), Some(_)) => {
                let shards = std::slice::from_ref(&chosen.shards);
                self.explain_workspace(finished, shards, asked, steps, wanted)
                    .await?
            }
            _ => {
                let Some(text) = chosen.text(asked) else {
                    return Ok(None);
                };
                self.explain_rows(&chosen.shards, steps, &text.text, asked, wanted)
                    .await?
            }
        };
        said.extend(rest.iter().map(|line| format!("  {line}")));
        if wanted.fill == Fill::Nothing {
            said.push(format!(
                "  Workspace instead, if there are more than {MOST_ROWS} rows, or {MOST_BYTES} bytes of them, to be given"
            ));
        }
        Ok(Some(said))
    }

    /// A fetch, how much it brought, and what each shard says of it, which does not run it again.
    async fn explain_fetch(
        &mut self,
        said: &mut Vec<String>,
        step: &str,
        (brought, shards): (&Brought, &ShardSet),
        asked: &Asked<'_>,
        wanted: &Wanted,
    ) -> Result<(), Trouble> {
        said.extend(lines_of(step));
        let Brought {
            rows, bytes, query, ..
        } = brought;
        if wanted.fill == Fill::Rows {
            said.push(format!("    Fetched: {rows} rows, {bytes} bytes"));
        }
        let sql = format!("{}{query}", wanted.without_analyze);
        self.explain_parts(said, 4, shards, &sql, asked).await
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
        let plan = match self.ask(index, sql, &[Format::Text], asked).await {
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
        fetches: &[ShardSet],
        asked: &Asked<'_>,
        steps: Steps,
        wanted: &Wanted,
    ) -> Result<Vec<String>, Trouble> {
        let furnished = Box::pin(self.furnish(plan, fetches, asked, wanted.fill)).await?;
        let Furnished {
            mut workspace,
            text,
            brought,
            ..
        } = match furnished {
            Furnishing::Done(furnished) => *furnished,
            Furnishing::Failed(said) => return Err(self.failed_in_part(&said)),
        };
        let text = [wanted.words.as_bytes(), &text].concat();
        let own = self.explain_there(&mut workspace, &text, asked).await;
        let own = self.leave_workspace(workspace, own).await?;
        let mut said = lines_of(&steps.head);
        let finished = brought.iter().any(|brought| {
            let finish = plan.finish.as_ref();
            finish.is_some_and(|finish| finish.rows.relation == brought.relation)
        });
        let all = plan.all_fetches().zip(fetches).zip(&steps.fetches);
        for ((fetch, shards), step) in all.filter(|((fetch, _), _)| fetch.is_computed() == finished)
        {
            let of_fetch = |brought: &&Brought| brought.relation == fetch.relation;
            match brought.iter().find(of_fetch) {
                Some(brought) => {
                    self.explain_fetch(&mut said, step, (brought, shards), asked, wanted)
                        .await?;
                }
                None => said.extend(lines_of(step)),
            }
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
        asked.encode(&mut connection.output, text, &[Format::Text]);
        workspace.flush(&mut self.client).await?;
        lines(&mut self.client, &mut workspace.backend).await
    }
}

fn lines_of(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}
