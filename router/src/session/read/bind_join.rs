//! Joins by parameters: the rows of small tables are fetched and sent along with the statement, to the shards of the others.
//!
//! Where the rows turn out to be too many, the statement is a workspace's after all: up to then nothing has been answered.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use switchyard_schema::{ShardSet, TableName};
use switchyard_wire::frontend::Bind;

use crate::execute::arrays::{Arrays, MOST_BYTES, MOST_ROWS};
use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::relay::Trouble;
use crate::merge::{Limit, Recipe};
use crate::plan::bind_join::{BindJoin, Bound};
use crate::plan::given::{Given, GivenText};
use crate::plan::workspace::{Fetch, Text};
use crate::plan::{self, Finish, Merge, Operator, Plan};
use crate::session::Session;
use crate::session::extended::merge::Parts;
use crate::session::read::choose_join::Chosen;
use crate::session::read::merge::Scattered;
use crate::session::route::Routed;
use crate::session::simple::Ready;
use crate::session::statement::{SessionStatement, Statement};
use crate::session::workspace::columns;
use crate::session::workspace::fetch::{Asked, Brought, parameters};
use crate::session::workspace::few_rows::FewRows;
use crate::session::workspace::furnish::Fill;
use crate::sql::{Literal, Scan};

/// A statement that needs a workspace, unless small tables are given to it.
pub(in crate::session) struct Joining<'a> {
    pub(in crate::session) plan: &'a Plan,
    pub(in crate::session) workspace: &'a plan::Workspace,
    /// The shards of each of its fetches.
    pub(in crate::session) fetches: &'a [ShardSet],
    /// The literals of its text.
    pub(in crate::session) literals: &'a [Literal],
    /// What the client has prepared, if it has.
    pub(in crate::session) statement: Option<&'a Statement>,
    /// What PostgreSQL says of its result, on the tables as they are.
    pub(in crate::session) description: &'a Bytes,
}

/// How a statement whose small tables have been fetched is answered.
pub(in crate::session) enum Joined {
    /// By rows of the shards.
    Scattered(Scatter),
    /// By a workspace that finishes rows of these shards.
    Finished(ShardSet, Arc<Bound>),
}

/// A statement that is sent with the rows of its small tables.
pub(in crate::session) struct Scatter {
    pub(in crate::session) shards: ShardSet,
    pub(in crate::session) recipe: Arc<Recipe>,
    pub(in crate::session) limit: Limit,
    /// As it is sent, with the rows as parameters.
    pub(in crate::session) text: GivenText,
    bound: Arc<Bound>,
    /// One shard gives the whole answer to the client's own text.
    whole: bool,
}

impl Scatter {
    /// Where in the client's text a character of the one that is sent comes from.
    pub(in crate::session) fn origin(&self, sql: &[u8], position: usize) -> Option<usize> {
        let client = Text::new(sql).without(&self.bound.settled);
        let merge = merge_of(&self.bound.plan).filter(|_| !self.whole);
        let position = match merge {
            Some(merge) => {
                let position = self.text.origin(&merge.text_of(&client), position)?;
                merge.origin_in(&client, position)?
            }
            None => self.text.origin(client.sql(), position)?,
        };
        client.origin(sql, position)
    }
}

impl Session {
    /// Answers a query of the simple protocol by parameters, if that can be done.
    pub(in crate::session) async fn joined(
        &mut self,
        routed: &Routed,
        workspace: &plan::Workspace,
        description: &Bytes,
        asked: &mut Asked<'_>,
    ) -> Result<Option<Ready>, Trouble> {
        let mut scan = Scan::default();
        if workspace.joins.is_empty() || scan.scan(asked.sql).is_err() {
            return Ok(None);
        }
        let joining = Joining {
            plan: &routed.plan,
            workspace,
            fetches: &routed.fetches,
            literals: &scan.literals,
            statement: None,
            description,
        };
        let before = self.client.hold();
        let joined = self.join_by_parameters(&joining, asked).await;
        let said = self.client.unhold(before);
        let joined = match self.tell(joined, said, asked).await? {
            Some(Joined::Scattered(joined)) => joined,
            Some(Joined::Finished(shards, bound)) => {
                let Operator::Workspace(plan) = &bound.plan.operator else {
                    return Err(Failure::Retry.into());
                };
                let command = &routed.plan.command;
                let shards = [shards];
                let answer = self.answer_in(plan, &shards, asked, command, description);
                return Box::pin(answer).await.map(Some);
            }
            None => return Ok(None),
        };
        let given: &Asked<'_> = asked;
        let text = joined.text.text.as_slice();
        let messages = |shard, kept: Option<&str>, output: &mut BytesMut| match kept {
            Some(name) => given.encode_kept(shard, output, (text, name), &[]),
            None => given.encode_for(shard, output, text, &[]),
        };
        let scattered = Scattered {
            plan: &routed.plan,
            need: asked.need,
            shards: &joined.shards,
            messages: &messages,
            steady: given.steady(&routed.plan, text),
            recipe: &joined.recipe,
            limit: joined.limit,
            origin: &|position| joined.origin(asked.sql, position),
            description: Some(description),
        };
        self.merge_answers(scattered).await.map(Some)
    }

    /// Binds a statement of the extended protocol with its small tables' rows, if that can be done.
    pub(in crate::session) async fn bind_join(
        &mut self,
        prepared: &SessionStatement,
        fetches: &[ShardSet],
        description: &Bytes,
        bind: &Bind<'_>,
        asked: &mut Asked<'_>,
    ) -> Result<bool, Trouble> {
        let Operator::Workspace(workspace) = &prepared.plan.operator else {
            return Ok(false);
        };
        let joining = Joining {
            plan: &prepared.plan,
            workspace,
            fetches,
            literals: &prepared.literals,
            statement: Some(&prepared.statement),
            description,
        };
        let joined = match self.join_by_parameters(&joining, asked).await? {
            Some(Joined::Scattered(joined)) => joined,
            Some(Joined::Finished(shards, bound)) => {
                let Operator::Workspace(plan) = &bound.plan.operator else {
                    return Err(Failure::Retry.into());
                };
                let described = (Some(description.clone()), description.clone());
                let shards = [shards];
                let bound = self.bind_furnished(plan, &shards, asked, prepared, bind, described);
                return Box::pin(bound).await.map(|()| true);
            }
            None => return Ok(false),
        };
        let mentioned = parameters(&joined.text.text);
        let own = 1..=asked.parameters();
        let unused: Vec<usize> = own.filter(|number| !mentioned.contains(number)).collect();
        self.bind_parts(&Parts {
            statement: self.statement_of_shards(&joined.text.text, prepared, &unused),
            plan: &prepared.plan,
            need: asked.need,
            shards: joined.shards,
            recipe: &joined.recipe,
            limit: joined.limit,
            given: &asked.given,
            unused,
            description: Some(description),
            bind,
        })
        .await
        .map(|()| true)
    }

    /// Fetches the small tables of a statement, if it can be answered so; their rows are then among what is `asked`.
    pub(in crate::session) async fn join_by_parameters(
        &mut self,
        joining: &Joining<'_>,
        asked: &mut Asked<'_>,
    ) -> Result<Option<Joined>, Trouble> {
        let fetched = self.fetch_join(joining, asked, Fill::Rows).await?;
        Ok(fetched.and_then(|(chosen, _)| executed(joining, chosen, asked)))
    }

    /// Fetches the rows of the best join of which they are few, which are then among what is `asked`. Or makes room for them only.
    pub(in crate::session) async fn fetch_join<'a>(
        &mut self,
        joining: &Joining<'a>,
        asked: &mut Asked<'_>,
        fill: Fill,
    ) -> Result<Option<(Chosen<'a>, Vec<Brought>)>, Trouble> {
        while let Some(chosen) = self.choose_join(joining, asked).await? {
            if let Some(brought) = self.give_rows(joining, &chosen, asked, fill).await? {
                return Ok(Some((chosen, brought)));
            }
        }
        Ok(None)
    }

    /// Fetches the rows of a join, which are then among what is `asked`; `None` if they are too many. Or makes room for them only.
    async fn give_rows(
        &mut self,
        joining: &Joining<'_>,
        chosen: &Chosen<'_>,
        asked: &mut Asked<'_>,
        fill: Fill,
    ) -> Result<Option<Vec<Brought>>, Trouble> {
        let Chosen { join, order, .. } = chosen;
        asked.given = GivenRows::new(vec![None; join.arrays()]);
        let numbers = join.given.iter().map(|(fetch, _)| *fetch);
        let parts = numbers.filter_map(|number| joining.fetches.get(number));
        let all = parts.fold(chosen.shards.clone(), |all, own| all.union(own));
        self.gather(&all, asked.need).await?;
        let fetched = self.fetch_given(joining, (join, order), asked, fill).await;
        let fetched = self.or_abandoned(fetched).await?;
        if fetched.is_none() {
            let mut known = joining.workspace.learned.known();
            known.given_up.push(chosen.number);
        } else if fill == Fill::Rows {
            asked.given.split(join, &chosen.shards);
            self.counters.bind_join();
        }
        Ok(fetched)
    }

    /// What is done about an error while rows were read.
    pub(in crate::session) async fn or_abandoned<T>(
        &mut self,
        outcome: Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let outcome = match outcome {
            Err(Trouble::Lost) => Err(self.lost_with_rows(None).into()),
            other => other,
        };
        if outcome.is_err() {
            self.abandon_rows(None).await;
        }
        outcome
    }

    /// Fetches what is given, the small first, which restricts what follows; `None` if it is not few enough.
    async fn fetch_given(
        &mut self,
        joining: &Joining<'_>,
        (join, order): (&BindJoin, &[usize]),
        asked: &mut Asked<'_>,
        fill: Fill,
    ) -> Result<Option<Vec<Brought>>, Trouble> {
        let text = Text::new(asked.sql);
        let mut brought = Vec::with_capacity(order.len());
        let first = asked.parameters() + 1;
        let mut done: Vec<usize> = Vec::with_capacity(order.len());
        let mut bytes = 0;
        let learned = &joining.workspace.learned;
        let estimates = learned.estimates();
        for position in order {
            let Some((number, given)) = join.given.get(*position) else {
                continue;
            };
            let known = estimates.get(*number);
            let alone = known.and_then(|known| known.alone.as_deref());
            let fetch = alone.or(joining.workspace.fetches.get(*number));
            let (Some(fetch), Some(shards)) = (fetch, joining.fetches.get(*number)) else {
                continue;
            };
            let (query, restricted) = few_of(fetch, given, (join, &done), &text, first);
            if fill == Fill::Nothing {
                brought.push(Brought {
                    relation: fetch.relation.clone(),
                    query,
                    rows: 0,
                    bytes: 0,
                });
                continue;
            }
            asked.given.own_keys(join, *position, shards);
            let own = (query.as_str(), joining.plan);
            let few = self.few_rows_again(given, shards, own, asked).await;
            asked.given.whole();
            let arrays = match few? {
                FewRows::All(arrays) => Some(arrays),
                FewRows::TooMany => None,
                FewRows::OfOtherTypes => return Ok(None),
                FewRows::Failed { .. } => return Err(Trouble::Told),
            };
            let rows = arrays.as_ref().map_or(MOST_ROWS * 2, Arrays::rows);
            if !restricted && let Some(known) = learned.known().estimates.get_mut(*number) {
                known.rows = f64::from(rows);
            }
            bytes += arrays.as_ref().map_or(0, Arrays::bytes);
            let Some(arrays) = arrays.filter(|_| bytes <= MOST_BYTES) else {
                return Ok(None);
            };
            brought.push(Brought {
                relation: fetch.relation.clone(),
                query,
                rows: rows.into(),
                bytes: arrays.bytes() as u64,
            });
            asked.given.put(join.slot(*position), arrays.finish());
            done.push(*position);
        }
        Ok(Some(brought))
    }
}

/// How a statement is executed for which the rows of a join have been fetched.
fn executed(joining: &Joining<'_>, chosen: Chosen<'_>, asked: &Asked<'_>) -> Option<Joined> {
    if finish_of(&chosen.bound.plan).is_some() {
        return Some(Joined::Finished(chosen.shards, chosen.bound));
    }
    let text = chosen.text(asked)?;
    let recipe = match chosen.merge() {
        Some(merge) => Arc::clone(&merge.recipe),
        None => appended(joining.description),
    };
    let Chosen {
        bound,
        shards,
        limit,
        whole,
        ..
    } = chosen;
    Some(Joined::Scattered(Scatter {
        shards,
        recipe,
        limit,
        text,
        bound,
        whole,
    }))
}

/// The query for a table's rows, one more than may be given, restricted by what has been fetched: arrays, from this parameter on. Whether
/// it is.
fn few_of(
    fetch: &Fetch,
    given: &Given,
    (join, done): (&BindJoin, &[usize]),
    text: &Text<'_>,
    first: usize,
) -> (String, bool) {
    let array = |relation: &TableName, column: &str| {
        let mut fetched = done
            .iter()
            .filter_map(|at| Some((*at, join.given.get(*at)?)));
        let (at, (_, other)) = fetched.find(|(_, (_, other))| other.relation == *relation)?;
        other.array_of(column, first + join.slot(at))
    };
    let mut awaited = fetch.awaits();
    let restricted = awaited.any(|(relation, column)| array(relation, column).is_some());
    let query = fetch.query_given(given, text, &array);
    (format!("{query} LIMIT {}", MOST_ROWS + 1), restricted)
}

pub(in crate::session) fn merge_of(plan: &Plan) -> Option<&Merge> {
    let Operator::Merge(merge) = &plan.operator else {
        return None;
    };
    Some(merge)
}

pub(in crate::session) fn finish_of(plan: &Plan) -> Option<&Finish> {
    let Operator::Workspace(workspace) = &plan.operator else {
        return None;
    };
    workspace.finish.as_deref()
}

/// The text for the shards.
pub(in crate::session) fn given_text(
    merge: Option<&Merge>,
    asked: &Asked<'_>,
    join: &BindJoin,
) -> Option<GivenText> {
    let given: Vec<&Given> = join.given.iter().map(|(_, given)| given).collect();
    let first = asked.parameters() + 1;
    let text = Text::new(asked.sql).without(&join.settled);
    match merge {
        Some(merge) => GivenText::new(&merge.text_of(&text), &given, first),
        None => GivenText::new(text.sql(), &given, first),
    }
}

/// The rows of one shard after the other's.
fn appended(description: &[u8]) -> Arc<Recipe> {
    let columns = columns(description).map_or(0, |columns| columns.len());
    Arc::new(Recipe {
        columns: u16::try_from(columns).unwrap_or(u16::MAX),
        ..Recipe::default()
    })
}
