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
mod condense;
pub mod fetch;
mod needs;
mod own;
mod plain;
mod reduce;
mod scope;
mod splice;
mod spread;
mod text;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use sqlparser::ast::Statement;
use switchyard_schema::{ShardIndex, TableName};

pub(super) use self::by_names::{by_names, read_by_text};
use self::condense::{Condensing, condense};
pub use self::fetch::{Fetch, Home, Restriction};
pub(super) use self::needs::Wanted;
use self::needs::{Nodes, Uses};
pub use self::own::OwnView;
use self::reduce::Mention;
pub(super) use self::splice::schemas;
pub use self::text::{Condition, Text};
use self::text::{TRUE, outside};
use super::analyse::{Analysis, only_computes};
use super::bind_join::{self, BindJoin};
use super::decide::need;
use super::learned::Learned;
use super::merge::Finish;
use super::route::{KeyRoute, KeySet, Need, Target};
use super::{Context, Layer};
use crate::relations::{Placement, Relation, RelationKind, Resolved, Volatility};
use crate::sql::Token;

/// What answers a read whose rows are on several shards.
#[derive(Debug, Clone, Default)]
pub struct Workspace {
    /// The relations whose rows are fetched.
    pub fetches: Vec<Fetch>,
    /// The views to be made of them, each after those it reads.
    pub views: Vec<TemporaryView>,
    /// Views of what the session has.
    pub own: Vec<OwnView>,
    /// Columns may be used without their names (`*`): they are what the tables have.
    pub wildcard: bool,
    /// A volatile function in it reads what is fetched: it would see what is written while the statement runs.
    pub looks_again: bool,
    /// Conditions of the text that every fetched row satisfies, in the text's order: it is run without them.
    pub settled: Vec<Settled>,
    /// Ways to answer without one, where some of the fetches have few rows.
    pub joins: Vec<BindJoin>,
    /// What executions have found out about those.
    pub learned: Arc<Learned>,
    /// It is where the first shard is, whose sequences are everybody's.
    pub at_first: bool,
    /// The sequences of which it takes values there, as expressions in SQL; none: it may be others.
    pub sequences: Vec<Box<str>>,
    /// Why a workspace has to answer.
    pub reason: String,
    /// A part that the shards can do of it: then the rows of that part are fetched instead, and finished.
    pub finish: Option<Box<Finish>>,
}

/// A condition of the text that every row satisfies that is fetched.
#[derive(Debug, Clone)]
pub struct Settled {
    /// The condition.
    pub condition: Condition,
    /// The rows' relation, which the text mentions once besides.
    pub relation: TableName,
    /// The relations that are mentioned in it.
    pub inside: Vec<TableName>,
}

impl TemporaryView {
    /// Its query as it is made in the workspace.
    pub fn text(&self, moved: &dyn Fn(&TableName) -> bool) -> Vec<u8> {
        splice::into_workspace(self.query.as_bytes(), moved, Vec::new())
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
    /// The statement's text as it runs in the workspace: schemas of the relations that are `moved` there are replaced, conditions that
    /// all fetched rows satisfy, and calls of which `fetched` has the parts.
    pub fn text<'a>(
        &self,
        sql: &[u8],
        moved: &dyn Fn(&TableName) -> bool,
        fetched: impl Iterator<Item = &'a Fetch>,
    ) -> Vec<u8> {
        let text = Text::new(sql);
        let settled = self.settled.iter();
        let conditions =
            settled.filter_map(|settled| Some((text.place(&settled.condition)?, TRUE.to_vec())));
        let calls = fetched
            .filter_map(Fetch::condensed_to)
            .flat_map(|condensed| &condensed.calls);
        let calls = calls.filter_map(|call| call.edit(&text));
        splice::into_workspace(sql, moved, conditions.chain(calls).collect())
    }

    /// What PostgreSQL has said of the result, unless that is to be asked each time: a column that is new shows at once then.
    pub fn known_description(&self) -> Option<Bytes> {
        let known = self.learned.known();
        known.description.clone().filter(|_| !self.wildcard)
    }

    /// All that may be fetched: the last is what shards can do a part of, if anything.
    pub fn all_fetches(&self) -> impl Iterator<Item = &Fetch> {
        let finished = self.finish.iter().map(|finish| &finish.rows);
        self.fetches.iter().chain(finished)
    }

    /// Whether a relation of this name is made in the workspace when all of its fetches are.
    pub fn makes(&self, name: &TableName) -> bool {
        self.fetches.iter().any(|fetch| fetch.relation == *name)
            || self.views.iter().any(|view| view.relation == *name)
            || self.own.iter().any(|view| view.is(name))
    }

    /// The parameters that say which shards' rows are needed.
    pub(super) fn params(&self) -> Vec<u16> {
        let mut params: Vec<u16> = Vec::new();
        for fetch in self.all_fetches() {
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
        let finish = self.finish.as_ref().map_or(0, |finish| finish.size());
        columns + views + finish + 512 * self.fetches.len()
    }
}

/// The workspace for a statement that has been understood, and is these tokens of the text; `Err` is why there is none.
pub(super) fn workspace(
    analysis: &Analysis,
    statement: &Statement,
    text: &Text<'_>,
    tokens: &[Token],
    context: &Context<'_>,
    reason: String,
) -> Result<Workspace, String> {
    only_reads(analysis)?;
    // Views and functions mention relations, too.
    let all_in_text = analysis.reads_views.is_none() && analysis.read_inside.is_empty();
    let mut mentions = match all_in_text {
        true => reduce::mentions(statement, text, context).unwrap_or_default(),
        false => Vec::new(),
    };
    let named = mentions.iter().map(|mention| mention.relation.clone());
    let all: Vec<TableName> = named.collect();
    // Of operands of UNION that PostgreSQL sees to be empty the result does not even have the type's modifier: none of what
    // shows it that is left out.
    let settled = match reduce::has_set_operation(statement) {
        true => Vec::new(),
        false => settle(&mut mentions, text, context),
    };
    let is_gone = |name: &TableName| {
        all.contains(name) && !mentions.iter().any(|mention| mention.relation == *name)
    };
    let nodes = Nodes::of(statement);
    let unsettled = outside(
        settled.iter().map(|settled| &settled.condition),
        text,
        tokens,
    );
    let uses = Uses::of(&nodes, text.sql(), &unsettled)?;
    if let Some(why) = analysis.own_views.iter().find_map(|view| view.lacks(&uses)) {
        return Err(why);
    }
    let mut made = Making {
        context,
        uses: &uses,
        workspace: Workspace {
            own: analysis.own_views.clone(),
            wildcard: uses.any_column(),
            looks_again: analysis.looks_again,
            at_first: analysis.calls_next,
            sequences: sequences_of(analysis),
            settled,
            reason,
            ..Workspace::default()
        },
        open: Vec::new(),
    };
    for name in analysis.read.iter().filter(|name| !is_gone(name)) {
        made.relation(name)?;
    }
    if analysis.calls_code && nodes.gives_rows() {
        return Err("A function in it may take a row of a table.".to_owned());
    }
    made.inside(&analysis.read_inside)?;
    let mut workspace = made.workspace;
    if all_in_text {
        for fetch in &mut workspace.fetches {
            restrict(fetch, analysis);
        }
    }
    take(mentions, &mut workspace.fetches);
    if all_in_text && !uses.any_column() {
        condense(&mut workspace, statement, (text, tokens), context);
    }
    same_names(&workspace)?;
    if splice::is_ambiguous(text.sql(), tokens, &|name| workspace.makes(name)) {
        return Err("A schema's name is also another name in it.".to_owned());
    }
    let may_give = matches!(context.layer, Layer::Auto | Layer::BindJoin) && !analysis.calls_next;
    if all_in_text && !nodes.gives_rows() && may_give {
        let wanted = Wanted::of(&uses, &workspace.settled, text)?;
        workspace.joins = bind_join::joins(&workspace, analysis, statement, context, &wanted);
    }
    Ok(workspace)
}

/// The sequences that the statement takes values of, if it is known which.
pub(super) fn sequences_of(analysis: &Analysis) -> Vec<Box<str>> {
    match analysis.effects.unseen_sequences {
        true => Vec::new(),
        false => analysis.used_sequences.clone(),
    }
}

/// The conditions that hold for every row that is fetched. What is mentioned inside them only is mentioned no more.
fn settle(mentions: &mut Vec<Mention>, text: &Text<'_>, context: &Context<'_>) -> Vec<Settled> {
    let all: Vec<(TableName, usize)> = mentions
        .iter()
        .map(|mention| (mention.relation.clone(), mention.place))
        .collect();
    loop {
        let before = mentions.len();
        let mut settled = settled(mentions, context);
        for settled in &mut settled {
            let place = text.place(&settled.condition).unwrap_or_default();
            let inside = all.iter().filter(|(_, at)| place.contains(at));
            settled.inside = inside.map(|(name, _)| name.clone()).collect();
            mentions.retain(|mention| !place.contains(&mention.place));
        }
        if mentions.len() == before {
            return settled;
        }
    }
}

/// The conditions that hold for every row that is fetched: those of a sharded relation that is mentioned once.
fn settled(mentions: &[Mention], context: &Context<'_>) -> Vec<Settled> {
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
    let of = |mention: &Mention, restriction: &Restriction| match restriction {
        Restriction::Condition(condition) => Some(Settled {
            condition: condition.clone(),
            relation: mention.relation.clone(),
            inside: Vec::new(),
        }),
        Restriction::Either(_) | Restriction::Meets { .. } | Restriction::Among { .. } => None,
    };
    let mut settled: Vec<Settled> = mentions
        .iter()
        .filter(once)
        .flat_map(|mention| {
            let restrictions = mention.restrictions.iter();
            restrictions.filter_map(|restriction| of(mention, restriction))
        })
        .collect();
    settled.sort_by_key(|settled| settled.condition.tokens.start);
    settled
}

/// A workspace runs the statement once, apart from the session's own backends, and everything it does there is undone.
fn only_reads(analysis: &Analysis) -> Result<(), String> {
    let not = |what: &str| Err(what.to_owned());
    if analysis.locks {
        return not("It locks rows.");
    }
    if analysis.may_change {
        return not("A function in it may change something.");
    }
    if analysis.secured_apart.is_some() {
        return not("Row security policies in it would not be one condition for all rows.");
    }
    if let Some(name) = &analysis.reads_inside {
        return Err(format!("Function \"{name}\" reads a table by itself."));
    }
    if analysis.temporary {
        return not("It reads a temporary table.");
    }
    if analysis.catalog || analysis.names_own_tables {
        return not("It reads the system catalogue, which differs from shard to shard.");
    }
    if let Some(name) = &analysis.unknown {
        return Err(format!("\"{name}\" is not known to the router."));
    }
    let effects = analysis.effects;
    let uses_sequences = effects.uses_sequences && !analysis.calls_next;
    if effects.dirty || uses_sequences || effects.reads_sequence_state {
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
    uses: &'a Uses<'a>,
    workspace: Workspace,
    /// The views that are being made.
    open: Vec<TableName>,
}

impl Making<'_> {
    fn relation(&mut self, name: &TableName) -> Result<(), String> {
        let only = self.uses.only().contains(&name.name);
        if self.workspace.makes(name) {
            let mut made = self.workspace.fetches.iter();
            let made = made.find(|fetch| fetch.relation == *name);
            return match made.is_none_or(|fetch| fetch.only == only) {
                true => Ok(()),
                false => Err(format!(
                    "It reads \"{name}\" both with and without what inherits from it (ONLY)."
                )),
            };
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
            only,
            columns: self.uses.columns(relation),
            target,
            home,
            mentions: Vec::new(),
            primary_key: self.uses.primary_key(relation),
            lookups: self.uses.lookups(relation),
            computed: None,
            condensed: Condensing::No,
        });
        Ok(())
    }

    /// Fetches relations whole: what is needed of them is not in the client's text.
    fn whole(&mut self, names: &[TableName], only: &HashSet<String>) -> Result<(), String> {
        let whole = Uses::whole(only.clone());
        let mut inner = Making {
            context: self.context,
            uses: &whole,
            workspace: std::mem::take(&mut self.workspace),
            open: std::mem::take(&mut self.open),
        };
        let outcome = names.iter().try_for_each(|name| inner.relation(name));
        (self.workspace, self.open) = (inner.workspace, inner.open);
        outcome?;
        // What the text itself mentions has been pruned to what the text needs.
        for name in names {
            let relation = self.context.relations.get(&name.schema, &name.name);
            let mut fetches = self.workspace.fetches.iter_mut();
            let fetch = fetches.find(|fetch| fetch.relation == *name);
            if let (Some(fetch), Some(relation)) = (fetch, relation) {
                fetch.columns = whole.columns(relation);
                fetch.primary_key = whole.primary_key(relation);
            }
        }
        Ok(())
    }

    /// Fetches what functions read by names without schemas, which mean what they would mean to the client.
    fn inside(&mut self, names: &[TableName]) -> Result<(), String> {
        let mut meant = Vec::new();
        for name in names {
            let context = self.context;
            let found = context
                .relations
                .resolve(context.search_path, None, &name.name);
            match found {
                _ if context.temporary.contains(&name.name) => {
                    return Err("A function in it may read a temporary table.".to_owned());
                }
                Resolved::Known(relation) => meant.push(relation.name.clone()),
                Resolved::Catalog | Resolved::Unknown => {
                    return Err(format!(
                        "A function in it names \"{name}\", which the search path does not find."
                    ));
                }
            }
        }
        self.whole(&meant, &HashSet::new())
    }

    /// What the functions of that name may read; `Err` if one may do more.
    fn read_by(&self, name: &str) -> Result<Vec<TableName>, String> {
        let mut read = Vec::new();
        for function in self.context.relations.functions_named(name) {
            let builtin = &*function.schema == "pg_catalog";
            match &function.reads {
                Some(tables) => read.extend(tables.iter().cloned()),
                None if builtin && only_computes(name) => {}
                None => {
                    let reads = function.reads_sharded.is_some() || function.reads_unsharded;
                    if reads || function.dynamic || function.volatility == Volatility::Volatile {
                        return Err(format!(
                            "Function \"{name}\", which it calls, may do more than read."
                        ));
                    }
                }
            }
        }
        Ok(read)
    }

    /// A view of sharded tables: each shard's part of it is fetched, or it is made anew.
    fn view(&mut self, relation: &Relation) -> Result<(), String> {
        let name = &relation.name;
        if spread::is_spread(relation, self.context.relations) {
            self.workspace.fetches.push(Fetch {
                relation: name.clone(),
                only: false,
                columns: self.uses.columns(relation),
                target: Target::AllShards,
                home: None,
                mentions: Vec::new(),
                primary_key: Vec::new(),
                lookups: self.uses.lookups(relation),
                computed: None,
                condensed: Condensing::No,
            });
            return Ok(());
        }
        let Some(query) = relation
            .definition
            .as_ref()
            .filter(|_| relation.kind == RelationKind::View)
        else {
            return Err(format!("\"{name}\" is not a view that can be taken apart."));
        };
        if self.open.contains(name) {
            return Err(format!("\"{name}\" reads itself."));
        }
        // As in the client's own text, what would be lost.
        let tokens = splice::all_tokens(query.as_bytes());
        let uses = Uses::of_tokens(query.as_bytes(), &tokens)?;
        let read = splice::qualified(query.as_bytes(), self.context.relations);
        self.open.push(name.clone());
        self.whole(&read, uses.only())?;
        for function in splice::calls(query.as_bytes()) {
            let read = self.read_by(&function)?;
            self.inside(&read)?;
        }
        self.open.pop();
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

/// Each fetch takes the mentions of its relation.
fn take(mentions: Vec<Mention>, fetches: &mut [Fetch]) {
    for mention in mentions {
        let mut fetches = fetches.iter_mut();
        if let Some(fetch) = fetches.find(|fetch| fetch.relation == mention.relation) {
            fetch.mentions.push(mention.restrictions);
        }
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
