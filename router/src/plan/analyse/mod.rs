//! From a syntax tree to what planning needs: which relations, which keys, what holds where, what must not be scattered.
//!
//! Purpose: [`Analyser`] walks one statement once and fills an [`Analysis`]. Invariant: what is not understood stops the
//! walk ([`Stop::Opaque`]); nothing is skipped because it seems harmless. It reads no literal's value without noting the
//! literal as a guard. Collaborators: [`facts`] keeps what holds where; `decide` turns the analysis into an operator.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "sqlparser has nodes for every dialect; what is not named is opaque"
)]

mod ahead;
mod call;
mod change;
mod copies;
mod expr;
pub(super) mod facts;
mod from;
mod insert;
mod inserted;
mod joins;
pub(super) mod mention;
pub(super) mod names;
mod own_table;
pub(super) mod predicate;
mod query;
pub(super) mod root;
mod select;
mod setting;
mod value;
pub(super) mod write;

pub(super) use call::{differs_in_triggers, only_computes, reads_catalogue};
pub(super) use insert::{SEQUENCE_CALLS, inserted_rows};
pub(super) use write::is_default;

use std::sync::Arc;

use sqlparser::ast::{Query, Statement};
use switchyard_schema::{KeyMap, TableName};

use self::facts::{ColumnId, Facts, ScopeId};
use self::names::{Frame, Item, Output};
use self::root::{Limits, Root};
use super::moment::MomentDefault;
use super::overriding::Overriding;
use super::parse::Opaque;
use super::refusal::Refusal;
use super::route::{KeyExpr, StoredAs};
use super::rows::Folded;
use super::workspace::OwnView;
use super::{Context, Effects};
use crate::relations::{GlobalIndex, Relation, Volatility};
use crate::sql::{Scan, Token, TokenKind};

/// Why a walk ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The statement is not understood.
    Opaque(Opaque),
    /// The statement is understood and cannot be answered.
    Refuse(Box<Refusal>),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Refuse(Box::new(refusal))
    }
}

/// One mention of a sharded relation.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    /// What to call it.
    pub(super) name: Arc<str>,
    /// From key to shard.
    pub(super) map: Arc<KeyMap>,
    /// The key column of this mention.
    pub(super) key: ColumnId,
    /// The scope of its rows.
    pub(super) scope: ScopeId,
    /// Its columns that are unique over all shards.
    pub(super) unique: Vec<(GlobalIndex, ColumnId)>,
}

/// Keys that are stored, in new rows or in place of old ones.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) name: Arc<str>,
    pub(super) map: Arc<KeyMap>,
    pub(super) column: StoredAs,
    pub(super) keys: StoredKeys,
}

/// The rows of an INSERT that are a list of VALUES.
#[derive(Debug)]
pub(super) struct Inserted {
    /// It has a RETURNING.
    pub(super) returns: bool,
    /// They are not all of the same length, which is an error.
    pub(super) ragged: bool,
    /// What is said of the values that identity columns are given.
    pub(super) overrides: Option<Overriding>,
    /// Functions are called in them.
    pub(super) calls: bool,
    /// Columns that are left out and have values of the moment for their defaults: names in SQL, and expressions.
    pub(super) added: Vec<(String, Box<str>)>,
    /// Columns of the rows of which that is the default: positions, and expressions.
    pub(super) replaced: Vec<(usize, Box<str>)>,
    /// The columns of the rows, in SQL, where none are listed.
    pub(super) columns: Option<Vec<String>>,
    /// The shard key.
    pub(super) key: Option<KeyColumn>,
    /// Other columns that take their values from sequences in some row.
    pub(super) sequences: Vec<SequenceColumn>,
    /// Some values come from sequences, the key's included.
    pub(super) takes_next: bool,
    /// Some are written as calls.
    pub(super) calls_sequences: bool,
}

/// A column of rows that are inserted which takes its value from a sequence.
#[derive(Debug, Clone)]
pub(in crate::plan) struct SequenceColumn {
    /// Its name in SQL.
    pub(in crate::plan) name: String,
    /// Its position among the values of a row, if it is not left out.
    pub(in crate::plan) position: Option<usize>,
    /// What gives the next value.
    pub(in crate::plan) next: Box<str>,
    /// It is an identity column.
    pub(in crate::plan) is_identity: bool,
}

/// The shard key of rows that are inserted.
#[derive(Debug, Clone)]
pub(in crate::plan) struct KeyColumn {
    /// Its name in SQL.
    pub(in crate::plan) name: String,
    /// Its position among the values of a row, if it is not left out.
    pub(in crate::plan) position: Option<usize>,
    /// The expression of its default.
    pub(in crate::plan) default: Option<Box<str>>,
    /// Its default is that of an identity column.
    pub(in crate::plan) is_identity: bool,
}

/// Where stored keys come from.
#[derive(Debug, Clone)]
pub(super) enum StoredKeys {
    /// Values, one per row.
    Values(Vec<KeyExpr>),
    /// A column of rows of a scope.
    Column(ColumnId, ScopeId),
}

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Analysis {
    pub(super) facts: Facts,
    /// The main rows of the statement's top level.
    pub(super) top: Option<ScopeId>,
    pub(super) instances: Vec<Instance>,
    /// Mentions of common table expressions that write a sharded table: where what they return is.
    pub(super) returned: Vec<Instance>,
    /// One of them is mentioned twice.
    pub(super) returned_twice: bool,
    pub(super) stored: Vec<Stored>,
    /// Something that exists on the first shard only; its name.
    pub(super) first_shard: Option<String>,
    /// A temporary relation.
    pub(super) temporary: bool,
    /// A reference relation is read.
    pub(super) reference: bool,
    /// A relation of PostgreSQL's catalogue is read, or something of it by a name.
    pub(super) catalog: bool,
    /// A relation of it is.
    pub(super) lists_catalog: bool,
    /// It is read for nothing but the name of the table that each row is in, which every shard knows of its own rows.
    pub(super) names_own_tables: bool,
    /// Every relation of the user's that is read, each once.
    pub(super) read: Vec<TableName>,
    /// Every relation that functions read by themselves, each once.
    pub(super) read_inside: Vec<TableName>,
    /// A function that may do more than read uses something that exists on the first shard only; its name.
    pub(super) reads_inside: Option<String>,
    /// Views of what the session has, each once.
    pub(super) own_views: Vec<OwnView>,
    /// A volatile function reads tables: it sees what is written while the statement runs.
    pub(super) looks_again: bool,
    /// A view or function that reads sharded tables is read: no shard can, whatever the keys.
    pub(super) reads_views: Option<Refusal>,
    /// Row security policies would not be the same condition on each shard; why.
    pub(super) secured_apart: Option<Refusal>,
    /// A relation or function that is not known.
    pub(super) unknown: Option<String>,
    /// Why no shard's part of the rows can be told from its own rows alone: the first reason found below the outermost block.
    pub(super) merge: Option<Refusal>,
    /// A function whose value each shard would compute by itself, so that their parts of a read do not fit together. A write may have it
    /// computed for each row, where that is what PostgreSQL does, or have its value given.
    pub(super) varies: Option<Refusal>,
    /// Such a function is one that says what time it is: its value can be given.
    pub(super) moments: bool,
    /// A row of values calls a function that may return several rows: it stands for as many.
    pub(super) multiplies: bool,
    /// Why the shards' parts of the rows are more than appended: what the outermost block does.
    pub(super) combines: Option<Refusal>,
    /// What the outermost block does in detail, if it is a SELECT and understood.
    pub(super) root: Option<Root>,
    /// A table is written; what kind.
    pub(super) writes: bool,
    /// The table that is written, by its first write.
    pub(super) changed: Option<TableName>,
    /// The scopes of the statements that write: the outermost one's, and those of common table expressions.
    pub(super) written: Vec<ScopeId>,
    /// A reference table is written; its name.
    pub(super) writes_reference: Option<String>,
    /// Why copies of a reference table written by this statement could differ.
    pub(super) diverges: Option<String>,
    /// The table that an INSERT which is the whole statement stores rows in, and the columns it lists.
    pub(super) target: Option<(TableName, Vec<String>)>,
    /// Keys of rows have to be computed first; what is said where they cannot be.
    pub(super) computed: Option<Refusal>,
    /// A function gives the next value of a sequence.
    pub(super) calls_next: bool,
    /// The sequences that are used, as expressions in SQL.
    pub(super) used_sequences: Vec<Box<str>>,
    /// Values in rows of the statement are those of sequences, or made of such; what is said where they cannot be computed first.
    pub(super) sequence_values: Option<Refusal>,
    /// Rows that a query makes, or that are nothing but defaults, take values of sequences; what is said where they cannot be given.
    pub(super) takes_next: Option<Refusal>,
    /// The rows of an INSERT that is the whole statement.
    pub(super) inserted: Option<Inserted>,
    /// The primary must run it: a volatile function, an unlogged table.
    pub(super) primary: bool,
    /// Something may be changed, besides tables: by a volatile function that does more than compute.
    pub(super) may_change: bool,
    /// A user's function is called.
    pub(super) calls_code: bool,
    /// Nothing is changed, but the primary should answer: see [`Access::PrimaryRead`](crate::plan::Access::PrimaryRead).
    pub(super) primary_read: bool,
    /// Rows are locked.
    pub(super) locks: bool,
    /// And below the outermost block.
    pub(super) locks_inside: bool,
    /// And some of them may be copies that other shards have, too.
    pub(super) locks_copies: bool,
    /// It takes locks that are no rows', which end with the transaction: not before what the transaction writes shows.
    pub(super) locks_apart: bool,
    /// The limits of the outermost block, if they are understood.
    pub(super) limits: Option<Limits>,
    pub(super) effects: Effects,
    /// A temporary table it creates.
    pub(super) creates_temporary: Option<String>,
    /// Settings changed by `set_config` with literals.
    pub(super) settings: Vec<super::Setting>,
    /// Literals whose values were looked at.
    pub(super) guards: Vec<u32>,
    /// Where queries begin whose rows are given.
    pub(super) ahead: Vec<u32>,
    /// Defaults that are values of the moment, of rows that are there, or that a MERGE makes.
    pub(super) defaults: Vec<MomentDefault>,
}

/// A common table expression in force.
#[derive(Debug, Clone)]
struct Cte<'a> {
    name: String,
    columns: Vec<String>,
    body: CteBody<'a>,
    /// How many frames were there where it was defined.
    frames: usize,
    used: bool,
}

#[derive(Debug, Clone)]
enum CteBody<'a> {
    /// A query, walked where it is mentioned.
    Query { query: &'a Query, recursive: bool },
    /// The recursive one being walked: its own rows.
    Itself,
    /// A write, walked once where it is defined.
    Write {
        columns: Vec<Output>,
        scope: ScopeId,
        /// The sharded table that it writes.
        target: Option<Instance>,
    },
}

/// The walk over one statement.
pub(super) struct Analyser<'a> {
    pub(super) sql: &'a [u8],
    tokens: &'a [Token],
    scan: &'a Scan,
    context: &'a Context<'a>,
    /// The rows of which the statement has those that are not like others.
    folded: Option<&'a Folded>,
    /// What the statement says of values of identity columns.
    overriding: Option<Overriding>,
    /// The parameters that the statement mentions once, ascending.
    mentioned_once: Vec<u16>,
    /// One shard only: everything is there.
    alone: bool,
    analysis: Analysis,
    frames: Vec<Frame>,
    items: Vec<Item>,
    ctes: Vec<Cte<'a>>,
    /// Features of the query blocks being walked, outermost first.
    blocks: Vec<query::Features>,
    /// What the outermost block computes.
    outermost: Option<Root>,
    /// Column references that went further out than their own block.
    outward: usize,
    /// Queries around the one being walked, CTEs taken apart included.
    depth: u32,
    /// What is walked is an item of FROM: it is computed once, and not for each row.
    in_from: bool,
    /// The sharded table that the last write walked writes.
    written: Option<Instance>,
    /// The statement is an UPDATE, whose rows may move to other shards.
    moves: bool,
    /// Defaults that are values of the moment are written into the text.
    gives_moments: bool,
    /// What is walked is a common table expression that writes: it may be run as a statement of its own.
    in_common: bool,
    /// What is walked is a query by itself, with this around it.
    around: Option<Vec<Frame>>,
    /// And it names something of that.
    strays: bool,
    /// Nodes left before the statement counts as too complex: CTEs are walked at each mention.
    budget: u32,
}

/// Nodes walked at most.
const BUDGET: u32 = 200_000;

/// Queries inside each other at most.
const MAX_DEPTH: u32 = 100;

/// Walks a query or write, of whose rows some may have been `folded` away. The guards count whatever the outcome.
pub(super) fn analyse<'a>(
    statement: &'a Statement,
    folded: Option<&'a Folded>,
    (sql, tokens): (&'a [u8], &'a [Token]),
    scan: &'a Scan,
    context: &'a Context<'a>,
) -> (Result<Analysis, Stop>, Vec<u32>) {
    let mut analyser = Analyser {
        sql,
        tokens,
        scan,
        context,
        folded,
        overriding: Overriding::of(sql, tokens),
        mentioned_once: mentioned_once(sql, tokens),
        alone: context.relations.shards().len() <= 1,
        analysis: Analysis::default(),
        frames: Vec::new(),
        items: Vec::new(),
        ctes: Vec::new(),
        blocks: Vec::new(),
        outermost: None,
        outward: 0,
        depth: 0,
        in_from: false,
        written: None,
        moves: false,
        gives_moments: false,
        in_common: false,
        around: None,
        strays: false,
        budget: BUDGET,
    };
    analyser.analysis.names_own_tables = own_table::names_own_tables(sql, tokens);
    let top = analyser.analysis.facts.scope(None);
    analyser.analysis.top = Some(top);
    let outcome = analyser.statement(statement, top);
    let mut analysis = analyser.analysis;
    let mut guards = std::mem::take(&mut analysis.guards);
    guards.sort_unstable();
    guards.dedup();
    (outcome.map(|()| analysis), guards)
}

/// The numbers of the parameters that stand in a statement exactly once, ascending.
fn mentioned_once(sql: &[u8], tokens: &[Token]) -> Vec<u16> {
    let params = tokens.iter().filter(|token| token.kind == TokenKind::Param);
    let mut numbers: Vec<u16> = params.filter_map(|token| token.parameter(sql)).collect();
    numbers.sort_unstable();
    let single = |group: &[u16]| match group {
        [number] => Some(*number),
        _ => None,
    };
    numbers.chunk_by(u16::eq).filter_map(single).collect()
}

impl<'a> Analyser<'a> {
    fn spend(&mut self) -> Result<(), Stop> {
        self.budget = self
            .budget
            .checked_sub(1)
            .ok_or(Stop::Opaque("too complex"))?;
        Ok(())
    }

    /// Notes why rows of several shards cannot just be appended.
    fn needs_merge(&mut self, reason: impl FnOnce() -> Refusal) {
        if self.analysis.merge.is_none() {
            self.analysis.merge = Some(reason());
        }
    }

    /// Notes a function whose value each shard would compute by itself.
    fn varies(&mut self, reason: impl FnOnce() -> Refusal) {
        if self.analysis.varies.is_none() {
            self.analysis.varies = Some(reason());
        }
    }

    fn needs_first_shard(&mut self, what: &str) {
        if self.analysis.first_shard.is_none() {
            self.analysis.first_shard = Some(what.to_owned());
        }
    }

    /// Notes what a function reads by itself.
    fn reads_by_itself(&mut self, function: &crate::relations::Function) {
        let reads = function.reads.iter().any(|read| !read.is_empty());
        self.analysis.looks_again |= reads && function.volatility == Volatility::Volatile;
        for name in function.reads.iter().flatten() {
            if !self.analysis.read_inside.contains(name) {
                self.analysis.read_inside.push(name.clone());
            }
        }
    }

    fn is_unknown(&mut self, name: &str) {
        if self.analysis.unknown.is_none() || self.context.relations.is_configured(name) {
            self.analysis.unknown = Some(name.to_owned());
        }
    }

    fn relation(&self, schema: Option<&str>, name: &str) -> crate::relations::Resolved<'a> {
        self.context
            .relations
            .resolve(self.context.search_path, schema, name)
    }

    fn is_temporary(&self, schema: Option<&str>, name: &str) -> bool {
        let session = schema.is_none_or(|schema| schema == "pg_temp");
        session
            && self
                .context
                .temporary
                .iter()
                .any(|temporary| temporary == name)
    }
}

/// What a user calls a relation.
fn display(relation: &Relation) -> Arc<str> {
    relation.name.to_string().into()
}
