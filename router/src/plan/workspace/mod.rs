//! Reads that no shard can answer by itself: what a *workspace* must be given to answer them.
//!
//! Purpose: a [`Workspace`] says which relations are fetched, with which columns and from which shards, and what is made
//! of them on one PostgreSQL, where the client's own text then runs: temporary tables and views named like the originals,
//! which PostgreSQL finds first. Invariants: whatever the statement could read is among them, or it is no workspace's; the
//! text is changed by splicing, and only where it names a schema ([`Workspace::text`]). Like every plan it serves all texts
//! of one normal form, so it keeps no places in the text. Collaborators: `needs` finds what a statement reads and uses, `by_names`
//! does so where it is not understood;
//! [`crate::execute`] fetches and runs.

mod by_names;
pub mod fetch;
mod needs;
mod plain;
mod reduce;
mod splice;

use sqlparser::ast::Statement;
use switchyard_schema::{ShardIndex, TableName};

pub(super) use self::by_names::by_names;
use self::fetch::Condition;
pub use self::fetch::{Fetch, Home, Restriction, Text};
use self::needs::Uses;
use self::reduce::Mention;
use super::Context;
use super::analyse::Analysis;
use super::decide::need;
use super::route::{KeyRoute, KeySet, Need, Target};
use crate::relations::{Placement, Relation, RelationKind, Volatility};
use crate::sql::Token;

/// What answers a read whose rows are on several shards.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The relations whose rows are fetched.
    pub fetches: Vec<Fetch>,
    /// The views to be made of them, each after those it reads.
    pub views: Vec<TemporaryView>,
    /// Conditions of the text that every fetched row satisfies, in the text's order: it is run without them.
    pub settled: Vec<Condition>,
    /// Why a workspace has to answer.
    pub reason: String,
}

impl TemporaryView {
    /// Its query as it is made in the workspace.
    pub fn text(&self, moved: &dyn Fn(&TableName) -> bool) -> Vec<u8> {
        splice::into_workspace(self.query.as_bytes(), moved, &[])
    }
}

/// A view of sharded tables, to be made anew of the fetched ones.
#[derive(Debug, Clone)]
pub struct TemporaryView {
    /// The view.
    pub relation: TableName,
    /// Its columns' names.
    pub columns: Vec<String>,
    /// Its query, with every relation qualified by its schema.
    pub query: String,
}

impl Workspace {
    /// The statement's text as it runs in the workspace: schemas of the relations that are `moved` there are replaced, and
    /// conditions that all fetched rows satisfy.
    pub fn text(&self, sql: &[u8], moved: &dyn Fn(&TableName) -> bool) -> Vec<u8> {
        let text = Text::new(sql);
        let settled = self.settled.iter();
        let places: Vec<_> = settled
            .filter_map(|condition| text.place(condition))
            .collect();
        splice::into_workspace(sql, moved, &places)
    }

    /// Whether a relation of this name is made in the workspace when all of its fetches are.
    pub fn makes(&self, name: &TableName) -> bool {
        self.fetches.iter().any(|fetch| fetch.relation == *name)
            || self.views.iter().any(|view| view.relation == *name)
    }

    /// The parameters that say which shards' rows are needed.
    pub(super) fn params(&self) -> Vec<u16> {
        let mut params: Vec<u16> = Vec::new();
        for fetch in &self.fetches {
            if let Target::Keys(route) = &fetch.target {
                params.extend(route.params());
            }
        }
        params.sort_unstable();
        params.dedup();
        params
    }

    /// Bytes on the heap, about.
    pub(crate) fn size(&self) -> usize {
        let columns: usize = self
            .fetches
            .iter()
            .map(|fetch| 32 * fetch.columns.len())
            .sum();
        let views: usize = self.views.iter().map(|view| 256 + view.query.len()).sum();
        columns + views + 512 * self.fetches.len()
    }
}

/// The workspace for a statement that has been understood; `Err` is why there is none.
pub(super) fn workspace(
    analysis: &Analysis,
    statement: &Statement,
    sql: &[u8],
    tokens: &[Token],
    context: &Context<'_>,
    reason: String,
) -> Result<Workspace, String> {
    only_reads(analysis)?;
    // A view mentions relations, too.
    let mut mentions = match analysis.reads_views {
        None => reduce::mentions(statement, sql, context).unwrap_or_default(),
        Some(_) => Vec::new(),
    };
    let all: Vec<TableName> = mentions
        .iter()
        .map(|mention| mention.relation.clone())
        .collect();
    let settled = settle(&mut mentions, sql, context);
    let is_gone = |name: &TableName| {
        all.contains(name) && !mentions.iter().any(|mention| mention.relation == *name)
    };
    let uses = Uses::of(statement, sql, &fetch::without(&settled, sql, tokens))?;
    let mut made = Making {
        context,
        uses: &uses,
        workspace: Workspace {
            fetches: Vec::new(),
            views: Vec::new(),
            settled,
            reason,
        },
    };
    for name in analysis.read.iter().filter(|name| !is_gone(name)) {
        made.relation(name)?;
    }
    let mut workspace = made.workspace;
    for fetch in &mut workspace.fetches {
        restrict(fetch, analysis);
    }
    for mention in mentions {
        let mut fetches = workspace.fetches.iter_mut();
        if let Some(fetch) = fetches.find(|fetch| fetch.relation == mention.relation) {
            fetch.mentions.push(mention.restrictions);
        }
    }
    same_names(&workspace)?;
    if splice::is_ambiguous(sql, tokens, &|name| workspace.makes(name)) {
        return Err("A schema's name is also another name in it.".to_owned());
    }
    Ok(workspace)
}

/// The conditions that hold for every row that is fetched. What is mentioned inside them only is mentioned no more.
fn settle(mentions: &mut Vec<Mention>, sql: &[u8], context: &Context<'_>) -> Vec<Condition> {
    let text = Text::new(sql);
    loop {
        let settled = settled(mentions, context);
        let places: Vec<_> = settled
            .iter()
            .filter_map(|condition| text.place(condition))
            .collect();
        let before = mentions.len();
        mentions.retain(|mention| !places.iter().any(|place| place.contains(&mention.place)));
        if mentions.len() == before {
            return settled;
        }
    }
}

/// The conditions that hold for every row that is fetched: those of a sharded relation that is mentioned once.
fn settled(mentions: &[Mention], context: &Context<'_>) -> Vec<Condition> {
    let once = |mention: &&Mention| {
        let name = &mention.relation;
        let relation = context.relations.get(&name.schema, &name.name);
        let sharded = relation.is_some_and(|relation| relation.sharding().is_some());
        sharded
            && mentions
                .iter()
                .filter(|other| other.relation == *name)
                .count()
                == 1
    };
    let condition = |restriction: &Restriction| match restriction {
        Restriction::Condition(condition) => Some(condition.clone()),
        Restriction::Either(_) | Restriction::Meets { .. } | Restriction::Among { .. } => None,
    };
    let mut settled: Vec<Condition> = mentions
        .iter()
        .filter(once)
        .flat_map(|mention| mention.restrictions.iter().filter_map(condition))
        .collect();
    settled.sort_by_key(|condition| condition.tokens.start);
    settled
}

/// A workspace runs the statement once, apart from the session's own backends, and everything it does there is undone.
fn only_reads(analysis: &Analysis) -> Result<(), String> {
    let not = |what: &str| Err(what.to_owned());
    if analysis.locks {
        return not("It locks rows.");
    }
    if analysis.primary {
        return not("A function in it may change something.");
    }
    if let Some(name) = &analysis.reads_inside {
        return Err(format!("Function \"{name}\" reads a table by itself."));
    }
    if analysis.temporary {
        return not("It reads a temporary table.");
    }
    if analysis.catalog {
        return not("It reads the system catalogue, which differs from shard to shard.");
    }
    if let Some(name) = &analysis.unknown {
        return Err(format!("\"{name}\" is not known to the router."));
    }
    let effects = analysis.effects;
    if effects.dirty || effects.uses_sequences || effects.reads_sequence_state {
        return not("A function in it uses the state of its session.");
    }
    if effects.seeds_random || !effects.pins.is_empty() || !analysis.settings.is_empty() {
        return not("A function in it changes the state of its session.");
    }
    Ok(())
}

/// Puts a workspace together.
struct Making<'a> {
    context: &'a Context<'a>,
    uses: &'a Uses,
    workspace: Workspace,
}

impl Making<'_> {
    fn relation(&mut self, name: &TableName) -> Result<(), String> {
        if self.workspace.makes(name) {
            return Ok(());
        }
        let relations = self.context.relations;
        let relation = relations
            .get(&name.schema, &name.name)
            .ok_or_else(|| format!("\"{name}\" is not known to the router."))?;
        let (target, home) = match &relation.placement {
            Placement::Sharded(_) => (Target::AllShards, None),
            Placement::Reference => (Target::AnyShard, Some(Home::Everywhere)),
            Placement::Unsharded => (Target::Shard(ShardIndex::FIRST), Some(Home::First)),
            Placement::ReadsSharded(_) => return self.view(relation),
            Placement::Catalog => return Err(format!("\"{name}\" is the catalogue's.")),
            Placement::Broken(reason) => return Err(reason.clone()),
        };
        self.workspace.fetches.push(Fetch {
            relation: name.clone(),
            columns: self.uses.columns(relation),
            target,
            home,
            mentions: Vec::new(),
            primary_key: self.uses.primary_key(relation),
            lookups: self.uses.lookups(relation),
        });
        Ok(())
    }

    /// Whether a function of that name may read what is not to be seen in the text that calls it.
    fn hides(&self, name: &str) -> bool {
        let functions = self.context.relations.functions_named(name);
        functions.iter().any(|function| {
            function.reads_sharded.is_some()
                || function.dynamic
                || function.reads_unsharded
                || function.volatility == Volatility::Volatile && function.user_code
        })
    }

    /// A view of sharded tables: what it reads is fetched whole, for its text is not the client's.
    fn view(&mut self, relation: &Relation) -> Result<(), String> {
        let name = &relation.name;
        let Some(query) = relation
            .definition
            .as_ref()
            .filter(|_| relation.kind == RelationKind::View)
        else {
            return Err(format!("\"{name}\" is not a view that can be taken apart."));
        };
        // As in the client's own text, what would be lost.
        let tokens = splice::all_tokens(query.as_bytes());
        Uses::of_tokens(query.as_bytes(), &tokens)?;
        let whole = Uses::whole();
        let mut inner = Making {
            context: self.context,
            uses: &whole,
            workspace: std::mem::replace(
                &mut self.workspace,
                Workspace {
                    fetches: Vec::new(),
                    views: Vec::new(),
                    settled: Vec::new(),
                    reason: String::new(),
                },
            ),
        };
        let read = splice::qualified(query.as_bytes(), self.context.relations);
        if let Some(name) = splice::calls(query.as_bytes())
            .iter()
            .find(|name| self.hides(name))
        {
            return Err(format!(
                "Function \"{name}\", which it calls, reads tables by itself."
            ));
        }
        let outcome = read.iter().try_for_each(|name| inner.relation(name));
        self.workspace = inner.workspace;
        outcome?;
        // What the statement itself mentions has been pruned to what the statement needs: the view may need more.
        for name in &read {
            let relation = self.context.relations.get(&name.schema, &name.name);
            let fetch = self
                .workspace
                .fetches
                .iter_mut()
                .find(|fetch| fetch.relation == *name);
            if let (Some(fetch), Some(relation)) = (fetch, relation) {
                fetch.columns = whole.columns(relation);
                fetch.primary_key = whole.primary_key(relation);
            }
        }
        self.workspace.views.push(TemporaryView {
            relation: name.clone(),
            columns: relation
                .columns
                .iter()
                .map(|column| column.name.clone())
                .collect(),
            query: query.clone(),
        });
        Ok(())
    }
}

/// Restricts a fetch to the shards whose rows matter to every mention of the relation.
fn restrict(fetch: &mut Fetch, analysis: &Analysis) {
    let Target::AllShards = fetch.target else {
        return;
    };
    let display = fetch.relation.to_string();
    let mut sets: Vec<Need> = Vec::new();
    for instance in &analysis.instances {
        if *instance.name != *display {
            continue;
        }
        let need = need(analysis, instance);
        if need.keys == KeySet::Everything {
            return;
        }
        sets.push(need);
    }
    // A view has mentions of its own, which the analysis does not see.
    if analysis.reads_views.is_some() {
        return;
    }
    let Some(first) = sets.first().cloned() else {
        return;
    };
    let keys = match sets.len() {
        1 => first.keys.clone(),
        _ => KeySet::Either(sets.into_iter().map(|need| need.keys).collect()),
    };
    fetch.target = Target::Keys(KeyRoute {
        needs: vec![Need { keys, ..first }],
        first_shard_only: false,
        several: None,
    });
}

/// Two relations of the same name in different schemas cannot both be temporary.
fn same_names(workspace: &Workspace) -> Result<(), String> {
    let fetched = workspace.fetches.iter().map(|fetch| &fetch.relation);
    let mut names: Vec<&TableName> = fetched
        .chain(workspace.views.iter().map(|view| &view.relation))
        .collect();
    names.sort_by(|a, b| a.name.cmp(&b.name));
    match names.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(format!(
            "\"{}\" and \"{}\" have the same name.",
            pair[0], pair[1]
        )),
        None => Ok(()),
    }
}
