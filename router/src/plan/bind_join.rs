//! Joins whose small sides are fetched and given to the shards of the large one by parameters (*bind joins*).
//!
//! Purpose: of a statement that needs a workspace, `joins` finds sets of relations without which it would not, because every
//! shard would have them; where their rows are few, the session fetches them and sends them along ([`super::given`]). A join that is
//! tried is planned by giving the planner those relations ([`super::Context::given`]). Invariant: whether a join is tried depends on how
//! many rows there are, its answer does not.

use std::borrow::Cow;
use std::sync::Arc;

use sqlparser::ast::Statement;
use switchyard_schema::TableName;

use super::analyse::{Analysis, Instance, facts, names};
use super::given::Given;
use super::learned::{Estimate, in_order};
use super::needed::{Needed, OwnKeys, needed, own_keys};
use super::workspace::{Condition, Fetch, Home, Wanted, Workspace};
use super::{Context, Operator, Plan};
use crate::relations::Relation;

/// A way to answer: these rows are given, and all others are read where they are.
#[derive(Debug, Clone)]
pub struct BindJoin {
    /// What is given, each with the number of its fetch in the workspace's.
    pub given: Vec<(usize, Given)>,
    /// Conditions of the text that all of those rows satisfy: it is run without them, as PostgreSQL, which knows nothing of the rows,
    /// would expect few of them to.
    pub settled: Arc<[Condition]>,
    /// Which of its rows a shard needs, for each.
    pub needed: Vec<Needed>,
    /// What its rows are looked for by when they are fetched, as far as each shard need look for its own keys only, for each.
    pub own_keys: Vec<Vec<OwnKeys>>,
}

impl BindJoin {
    /// How many arrays are given: one for each column.
    pub fn arrays(&self) -> usize {
        let given = self.given.iter().map(|(_, given)| given.columns.len());
        given.sum()
    }

    /// The column by which a shard is given what it needs of one that is given, if not all of it.
    pub(super) fn by(&self, position: usize) -> Option<&str> {
        let column = self.needed.get(position)?.column()?;
        let (_, given) = self.given.get(position)?;
        given.columns.get(column).map(|column| column.name.as_str())
    }

    /// Where the arrays of one that is given begin among all.
    pub fn slot(&self, position: usize) -> usize {
        let before = self.given.get(..position).unwrap_or_default();
        before.iter().map(|(_, given)| given.columns.len()).sum()
    }
}

/// How a bind join is executed.
#[derive(Debug)]
pub struct Bound {
    /// What is done with the statement when the rows are given.
    pub plan: Plan,
    /// As the join has them.
    pub settled: Arc<[Condition]>,
}

/// A row that matches one of another relation may be one of so many.
const MATCHES: f64 = 10.0;

/// The join with the fewest rows to be given, at most so many, and the order to fetch them in; of those that are not `unfit`.
pub fn cheapest(
    workspace: &Workspace,
    estimates: &[Estimate],
    most: f64,
    unfit: impl Fn(usize) -> bool,
) -> Option<(usize, Vec<usize>)> {
    let mut best: Option<(f64, usize, Vec<usize>)> = None;
    for (number, join) in workspace.joins.iter().enumerate() {
        if unfit(number) {
            continue;
        }
        let (total, order) = cost(join, &workspace.fetches, estimates);
        let better = best.as_ref().is_none_or(|(best, ..)| total < *best);
        if total <= most && better {
            best = Some((total, number, order));
        }
    }
    best.map(|(_, number, order)| (number, order))
}

/// How many rows a join is expected to give, about, if it has been asked for; none if PostgreSQL does not take it.
pub fn expected(workspace: &Workspace, join: usize) -> Option<Option<f64>> {
    let known = workspace.learned.known();
    if let Some(None) = known.tried(join) {
        return Some(None);
    }
    let estimates = (!known.estimates.is_empty()).then_some(&known.estimates)?;
    let (total, _) = cost(workspace.joins.get(join)?, &workspace.fetches, estimates);
    Some(Some(total))
}

/// How many rows are given, about, and the order to fetch them in, by position.
fn cost(join: &BindJoin, fetches: &[Fetch], estimates: &[Estimate]) -> (f64, Vec<usize>) {
    let expected = |position: &usize| {
        let given = join.given.get(*position);
        let known = given.and_then(|(fetch, _)| estimates.get(*fetch));
        known.map_or(f64::MAX, |known| known.rows)
    };
    let numbers = join.given.iter().map(|(fetch, _)| *fetch);
    let position = |number: usize| join.given.iter().position(|(fetch, _)| *fetch == number);
    let order: Vec<usize> = in_order(estimates, numbers)
        .into_iter()
        .filter_map(position)
        .collect();
    let mut total = 0.0;
    let mut fetched: Vec<(&TableName, f64)> = Vec::new();
    for position in &order {
        let Some(fetch) = join
            .given
            .get(*position)
            .and_then(|(fetch, _)| fetches.get(*fetch))
        else {
            continue;
        };
        let mut own = expected(position);
        for (other, _) in fetch.awaits() {
            let known = fetched.iter().find(|(relation, _)| *relation == other);
            own = known.map_or(own, |(_, rows)| own.min(rows * MATCHES));
        }
        fetched.push((&fetch.relation, own));
        total += own;
    }
    (total, order)
}

/// The ways to answer by giving rows; `wanted` says which columns of them.
pub(super) fn joins(
    workspace: &Workspace,
    analysis: &Analysis,
    statement: &Statement,
    context: &Context<'_>,
    wanted: &Wanted<'_>,
) -> Vec<BindJoin> {
    let Statement::Query(query) = statement else {
        return Vec::new();
    };
    // Rows that are given have no table that others could inherit from, nor is what the session has on the shards.
    if !workspace.own.is_empty() || workspace.fetches.iter().any(|fetch| fetch.only) {
        return Vec::new();
    }
    let given: Vec<Option<(&Relation, Given)>> = workspace
        .fetches
        .iter()
        .map(|fetch| {
            let name = &fetch.relation;
            let relation = context.relations.get(&name.schema, &name.name)?;
            Some((relation, wanted.least(relation)?))
        })
        .collect();
    let mut named = query.with.iter().flat_map(|with| &with.cte_tables);
    let is_other = |name: Cow<'_, str>| {
        let mut fetches = workspace.fetches.iter();
        fetches.all(|fetch| fetch.relation.name != name)
    };
    // A statement cannot have two common table expressions of one name.
    if !named.all(|cte| names::name(&cte.alias.name).is_ok_and(is_other)) {
        return Vec::new();
    }
    let ties = Ties::new(&workspace.fetches, analysis);
    let mut sets: Vec<Vec<usize>> = Vec::new();
    let numbers = |wanted: &dyn Fn(&Fetch) -> bool| -> Vec<usize> {
        let numbered = workspace.fetches.iter().enumerate();
        let wanted = numbered.filter(|(_, fetch)| wanted(fetch));
        wanted.map(|(number, _)| number).collect()
    };
    for anchor in workspace
        .fetches
        .iter()
        .filter(|fetch| fetch.home.is_none())
    {
        let stays = |fetch: &Fetch| match fetch.home {
            None => ties.tied(&anchor.relation, &fetch.relation),
            Some(Home::Everywhere) => true,
            Some(Home::First) => false,
        };
        sets.push(numbers(&|fetch| !stays(fetch)));
    }
    sets.push(numbers(&|fetch| fetch.home.is_none()));
    let mut joins: Vec<BindJoin> = Vec::new();
    for (at, set) in sets.iter().enumerate() {
        let before = sets.get(..at).unwrap_or_default();
        if set.is_empty() || before.contains(set) {
            continue;
        }
        let Some((settled, stay)) = settled(workspace, set) else {
            continue;
        };
        let with_rows = |number: &usize| {
            let (relation, least) = given.get(*number)?.as_ref()?;
            Some((*number, wanted.with(&stay, least, relation)?))
        };
        let given: Option<Vec<(usize, Given)>> = set.iter().map(with_rows).collect();
        if let Some(given) = given {
            joins.push(BindJoin {
                needed: needed(&given, workspace, context),
                own_keys: own_keys(&given, workspace, context),
                given,
                settled: settled.into(),
            });
        }
    }
    joins
}

/// The conditions that hold for all rows that are given of these relations, and the numbers of those that stay in the text. `None` if one of
/// the latter looks at what is given: the rows that matter to it have not been fetched.
fn settled(workspace: &Workspace, given: &[usize]) -> Option<(Vec<Condition>, Vec<usize>)> {
    let is_given = |name: &TableName| {
        let mut given = given
            .iter()
            .filter_map(|number| workspace.fetches.get(*number));
        given.any(|fetch| fetch.relation == *name)
    };
    let (mut left_out, mut stay) = (Vec::new(), Vec::new());
    for (number, settled) in workspace.settled.iter().enumerate() {
        if is_given(&settled.relation) {
            left_out.push(settled.condition.clone());
        } else if settled.inside.iter().any(is_given) {
            return None;
        } else {
            stay.push(number);
        }
    }
    Some((left_out, stay))
}

/// The mentions of each relation that is fetched, and what is known where they are.
struct Ties<'a>(Vec<(&'a TableName, Vec<Mention<'a>>)>);

type Mention<'a> = (&'a Instance, facts::Known<'a>);

impl<'a> Ties<'a> {
    fn new(fetches: &'a [Fetch], analysis: &'a Analysis) -> Self {
        let mentions = |fetch: &'a Fetch| {
            let name = fetch.relation.to_string();
            let all = analysis.instances.iter();
            let own = all.filter(|instance| *instance.name == *name);
            let known = own.map(|instance| (instance, analysis.facts.known(instance.scope)));
            (&fetch.relation, known.collect())
        };
        Self(fetches.iter().map(mentions).collect())
    }

    fn mentions(&self, relation: &TableName) -> &[Mention<'a>] {
        let found = self.0.iter().find(|(name, _)| *name == relation);
        found.map_or(&[], |(_, mentions)| mentions)
    }

    /// Whether rows of the two that are joined are on one shard, wherever the statement mentions them.
    fn tied(&self, one: &TableName, other: &TableName) -> bool {
        if one == other {
            return true;
        }
        let (ones, others) = (self.mentions(one), self.mentions(other));
        let ties = |(a, at_a): &Mention<'_>, (b, at_b): &Mention<'_>| {
            let same = at_b.same(a.key, b.key) || at_a.same(a.key, b.key);
            a.map.colocated_with(&b.map) && same
        };
        !others.is_empty() && others.iter().all(|b| ones.iter().any(|a| ties(a, b)))
    }
}

/// The plan of a statement whose small relations are given, if it is of use; `outer` is the one without.
pub fn operator(planned: Plan, outer: &Plan) -> Option<Plan> {
    let known = |guard: &u32| outer.guards.contains(guard);
    let fits = planned.guards.iter().all(known)
        && planned.settings.is_empty()
        && planned.access == outer.access;
    let is_of_use = if let Operator::Workspace(workspace) = &planned.operator {
        // Rows that the shards make with what is given, and PostgreSQL finishes.
        workspace.finish.is_some()
    } else {
        matches!(
            planned.operator,
            Operator::PassThrough(_) | Operator::Append(_) | Operator::Merge(_)
        )
    };
    (fits && is_of_use).then_some(planned)
}
