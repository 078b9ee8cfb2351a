//! Which of a statement's bind joins is executed, if any: the one with the fewest rows of those that PostgreSQL takes.

use std::sync::Arc;

use switchyard_schema::ShardSet;
use switchyard_wire::backend::Column;

use crate::execute::arrays::MOST_ROWS;
use crate::execute::relay::Trouble;
use crate::merge::Limit;
use crate::plan::bind_join::{BindJoin, Bound, cheapest, operator};
use crate::plan::given::GivenText;
use crate::plan::workspace::Text;
use crate::plan::{Command, Context, Layer, Merge, NoParams, Operator, Plan, Values, plan};
use crate::session::Session;
use crate::session::extended::bind::BoundParams;
use crate::session::read::bind_join::{Joining, finish_of, given_text, merge_of};
use crate::session::workspace::fetch::Asked;
use crate::session::workspace::{columns, types};
use crate::sql::Scan;

/// How a statement is answered whose small tables will be fetched.
pub(in crate::session) struct Chosen<'a> {
    /// Among the plan's.
    pub(in crate::session) number: usize,
    pub(in crate::session) join: &'a BindJoin,
    /// In which its tables are fetched.
    pub(in crate::session) order: Vec<usize>,
    pub(in crate::session) bound: Arc<Bound>,
    /// Where the statement then goes.
    pub(in crate::session) shards: ShardSet,
    pub(in crate::session) limit: Limit,
    /// One shard gives the whole answer to the client's own text, as no row, or an error, is all that its limit lets be.
    pub(in crate::session) whole: bool,
}

impl Chosen<'_> {
    /// How rows are merged, if they are.
    pub(in crate::session) fn merge(&self) -> Option<&Merge> {
        merge_of(&self.bound.plan).filter(|_| !self.whole)
    }

    /// The text for the shards.
    pub(in crate::session) fn text(&self, asked: &Asked<'_>) -> Option<GivenText> {
        given_text(self.merge(), asked, self.join)
    }
}

impl Session {
    /// The join that answers, if one can and its rows seem to be few.
    pub(in crate::session) async fn choose_join<'a>(
        &mut self,
        joining: &Joining<'a>,
        asked: &Asked<'_>,
    ) -> Result<Option<Chosen<'a>>, Trouble> {
        let Joining {
            workspace, fetches, ..
        } = joining;
        if workspace.finish.is_some()
            && !workspace.learned.is_apart()
            && self.layer != Layer::BindJoin
        {
            // The shards do a part of it as it is.
            return Ok(None);
        }
        let joins = &workspace.joins;
        let complete = asked.parameters() == usize::from(joining.plan.params);
        let is_select = joining.plan.command == Command::Select;
        // A join is tried on a connection apart.
        if joins.is_empty() || !complete || !is_select || self.is_in_the_way() {
            return Ok(None);
        }
        let learned = self.learn_rows(workspace, fetches, asked).await;
        self.or_abandoned(learned).await?;
        let Some((number, order, bound)) = self.choose(joining, asked).await? else {
            return Ok(None);
        };
        let Some(join) = joins.get(number) else {
            return Ok(None);
        };
        let routed = self.routed_joined(&bound, joining, asked);
        Ok(routed.map(|(shards, limit)| Chosen {
            number,
            join,
            order,
            bound,
            shards,
            limit: limit.unwrap_or_default(),
            whole: limit.is_none(),
        }))
    }

    /// Where the statement goes when the rows are given, and which rows of a merge are its result: `None` if any one shard gives all.
    fn routed_joined(
        &self,
        bound: &Bound,
        joining: &Joining<'_>,
        asked: &Asked<'_>,
    ) -> Option<(ShardSet, Option<Limit>)> {
        let params = match (&asked.params, joining.statement) {
            (Some((_, bind)), Some(statement)) => Some(BoundParams::new(bind, statement)),
            _ => None,
        };
        let values = Values {
            sql: asked.sql,
            literals: joining.literals,
            params: params.as_ref().map_or(&NoParams, |params| params),
        };
        let shards = match finish_of(&bound.plan) {
            Some(finish) => {
                let target = &finish.rows.target;
                target.shards(&values, self.database.shards.len()).ok()?
            }
            None => self.bind(&bound.plan, &values).ok()?,
        };
        let limit = match merge_of(&bound.plan) {
            Some(merge) => merge.limit(&values).ok()?,
            None => Some(Limit::default()),
        };
        (!shards.is_empty()).then_some((shards, limit))
    }

    /// The number of the join with the fewest rows that can be executed, and the order to fetch its tables in.
    async fn choose(
        &mut self,
        joining: &Joining<'_>,
        asked: &Asked<'_>,
    ) -> Result<Option<(usize, Vec<usize>, Arc<Bound>)>, Trouble> {
        let workspace = joining.workspace;
        let most = match self.layer {
            Layer::BindJoin => f64::INFINITY,
            Layer::Auto | Layer::Merge | Layer::Workspace => MOST_ROWS.into(),
        };
        loop {
            let chosen = {
                let known = workspace.learned.known();
                let unfit = |join| known.is_unfit(join);
                cheapest(workspace, &known.estimates, most, unfit)
                    .map(|(number, order)| (number, order, known.tried(number).flatten()))
            };
            let Some((number, order, bound)) = chosen else {
                return Ok(None);
            };
            let Some(join) = workspace.joins.get(number) else {
                return Ok(None);
            };
            if let Some(bound) = bound {
                return Ok(Some((number, order, bound)));
            }
            let bound = self.try_join(joining, join, asked).await?;
            workspace.learned.known().tried.push((number, bound));
        }
    }

    /// How a join is executed, if PostgreSQL takes the statement with the rows given for the same: then its result has the same columns.
    async fn try_join(
        &mut self,
        joining: &Joining<'_>,
        join: &BindJoin,
        asked: &Asked<'_>,
    ) -> Result<Option<Arc<Bound>>, Trouble> {
        let names: Vec<_> = join
            .given
            .iter()
            .map(|(_, given)| given.relation.clone())
            .collect();
        let mut scan = Scan::default();
        if scan.scan(asked.sql).is_err() {
            return Ok(None);
        }
        let context = Context {
            given: &names,
            ..self.planning_context()
        };
        let planned = plan(asked.sql, &scan, &context);
        let Some(mut plan) = operator(planned, joining.plan) else {
            return Ok(None);
        };
        if let Operator::Workspace(workspace) = &mut plan.operator
            && let Some(finish) = &mut workspace.finish
        {
            let given = join.given.iter().map(|(_, given)| given.clone());
            let settled = Arc::clone(&join.settled);
            finish
                .rows
                .give(given.collect(), asked.parameters() + 1, settled);
        }
        let text = match finish_of(&plan) {
            Some(finish) => finish
                .rows
                .query(&Text::new(asked.sql), &|_, _| None)
                .into(),
            None => match given_text(merge_of(&plan), asked, join) {
                Some(text) => text.text,
                None => return Ok(None),
            },
        };
        let own = self.analyse_apart(&text, asked).await?;
        let fits = own.is_ok_and(|own| match finish_of(&plan) {
            Some(finish) => finish.text(asked.sql, &types(&own)).is_some(),
            None => is_alike(joining.description, &own, &plan),
        });
        let settled = Arc::clone(&join.settled);
        Ok(fits.then(|| Arc::new(Bound { plan, settled })))
    }
}

/// Whether the columns of a result are those that PostgreSQL has announced; a merge has its own behind them.
fn is_alike(description: &[u8], own: &[u8], plan: &Plan) -> bool {
    let (Some(announced), Some(own)) = (columns(description), columns(own)) else {
        return false;
    };
    let extras = merge_of(plan).map_or(0, |merge| usize::from(merge.recipe.extras));
    let same = |(a, b): (Column<'_>, Column<'_>)| {
        a.name == b.name && a.type_oid == b.type_oid && a.type_modifier == b.type_modifier
    };
    own.len() == announced.len() + extras && announced.iter().zip(own.iter()).all(same)
}
