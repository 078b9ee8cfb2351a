//! From a statement to a plan: where it goes, what it may touch, and what the session must know about it.
//!
//! Purpose: [`plan`] turns one statement into a printable [`Plan`]. Invariants: pure; a plan is a function of the
//! normalised text, of the values of its *guard* literals, and of the [`Context`], so it can be cached under them
//! ([`PlanCache`]); other values are reached at binding only ([`Target::shards`]); what is not understood is opaque and
//! is never scattered. Collaborators: [`crate::sql`] scans the text, [`crate::relations`] says what is where; the session
//! executes plans.

pub mod ahead;
mod analyse;
mod apart;
mod array;
mod bind;
pub mod bind_join;
pub mod cache;
pub(crate) mod code;
mod command;
mod computed;
mod control;
pub mod copy_in;
mod copy_options;
pub(crate) mod create_as;
mod ddl;
mod decide;
pub(crate) mod distribute;
mod edits;
pub(crate) mod enforceable;
pub mod explain;
pub mod given;
pub(crate) mod insert;
mod insert_ahead;
mod insert_copies;
mod insert_place;
pub(crate) mod insert_query;
pub mod learned;
pub mod located;
pub mod lock;
pub mod merge;
pub mod moment;
pub(crate) mod moving;
pub mod needed;
mod of_cursor;
mod opaque;
mod overriding;
mod parse;
mod pins;
mod refusal;
pub(crate) mod remembered;
mod route;
mod rows;
mod setting;
mod shares;
mod steps;
pub(crate) mod stepwise;
mod trigger_code;
mod types;
mod unique;
mod utility;
mod within;
mod words;
pub mod workspace;
mod write;

#[cfg(test)]
mod cases;

pub(crate) use bind::key_shards;
pub use cache::{CacheContext, ContextId, PlanCache};
pub use command::{Command, CopyDirection, Discard, Isolation, SetValue, TransactionModes};
pub use copy_in::{AddedColumn, CopiedRows, CopyIn};
pub use insert::Insert;
pub use insert_query::FromQuery;
pub use located::{Located, Lookup};
pub use lock::Lock;
pub use merge::{Finish, Merge};
pub use moving::Move;
pub use pins::{Pin, Pins};
pub use refusal::Refusal;
pub use route::{
    KeyExpr, KeyRoute, KeySet, Limit, Need, NoParams, Param, Params, Source, StoredAs, Target,
    Values,
};
pub(crate) use setting::unreadable;
pub use setting::{Argument, Setting};
pub use steps::{Rest, Steps};
pub(crate) use within::{copy_has_header, cursor_is_binary, explained, query_within};
pub use workspace::Workspace;
pub use write::Write;

use std::sync::Arc;

use sqlparser::ast::Statement;
use switchyard_schema::{ShardIndex, TableName};

use self::analyse::Analysis;
use self::rows::{Folded, Rows};
use crate::relations::{GlobalIndex, RelationKind, Relations, SearchPath};
pub use crate::sql::HintNode;
use crate::sql::{Hint, Scan, Token, TokenKind};

/// The stack a thread that plans must have. The deepest statement that is parsed (deeper ones are opaque) needs about
/// 2 MiB of it, or 8 MiB without optimization; what is not touched costs nothing.
pub const STACK_BYTES: usize = 16 << 20;

/// What planning depends on besides the text.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// What is where.
    pub relations: &'a Relations,
    /// The session's effective search path.
    pub search_path: &'a SearchPath,
    /// Names of temporary relations the session may have created and not dropped.
    pub temporary: &'a [String],
    /// What may answer a read.
    pub layer: Layer,
    /// Relations whose rows are given with the statement: every shard has all of them.
    pub given: &'a [TableName],
    /// Queries of the statement whose rows are given.
    pub ahead: &'a [ahead::Instead],
    /// The statement is one of a trigger's code, all of which is looked into.
    pub in_trigger: bool,
}

/// What may answer a read: `SET switchyard.layer`, by which two ways to the same answer can be compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Layer {
    /// The first that applies.
    #[default]
    Auto,
    /// No bind join: shards send what is merged, or finished.
    Merge,
    /// A bind join wherever it can, however many rows are expected.
    BindJoin,
    /// A workspace wherever it can.
    Workspace,
}

impl Layer {
    /// Whether it asks for this workspace, of a statement that could be answered without.
    fn wants(self, workspace: &Workspace) -> bool {
        match self {
            Layer::Auto | Layer::Merge => false,
            Layer::BindJoin => !workspace.joins.is_empty(),
            Layer::Workspace => true,
        }
    }
}

/// What to do with one statement.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where it goes and how the answers become one.
    pub operator: Operator,
    /// What kind of node may run it.
    pub access: Access,
    /// What it may leave behind in the backend's session.
    pub effects: Effects,
    /// What kind of statement it is.
    pub command: Command,
    /// The highest `$n`.
    pub params: u16,
    /// The `$n` that binding looks at.
    pub key_params: Vec<u16>,
    /// The literal slots whose values this plan depends on.
    pub guards: Vec<u32>,
    /// A relation or function name that is not known. The session refreshes the relations once and plans again before
    /// it lets a shard answer, because the name may be that of a view of sharded tables made just now.
    pub unknown: Option<String>,
    /// The sequences it may use, as expressions in SQL.
    pub sequences: Vec<Box<str>>,
    /// The name of a temporary relation it creates.
    pub temporary: Option<String>,
    /// Settings it changes by `set_config`: the session takes note of them.
    pub settings: Vec<Setting>,
    /// The kind of node its hint asks for.
    pub node: Option<HintNode>,
    /// What to do where the values lead to several shards, if this plan is for one.
    pub several: Option<Arc<Plan>>,
    /// The global unique indexes of the tables that it may write: what it has changed of them the session takes to their shards.
    pub unique: Option<Arc<[GlobalIndex]>>,
    /// It means the same whenever it is analysed, but for strings in it: it only reads tables, and calls no function of the user's, which may say of
    /// itself what it is not.
    pub(crate) steady: bool,
    /// How the one shard is found that has the rows, by a global unique index.
    pub located: Option<Arc<Located>>,
}

impl Plan {
    /// Whether a reason to keep a backend may have ended with it.
    pub(crate) fn may_unpin(&self) -> bool {
        let ends = matches!(
            self.command,
            Command::Ddl | Command::CloseCursor(_) | Command::Discard(_)
        );
        ends || self.effects.unlocks
    }

    /// Whether it goes where it goes because of where rows of sharded tables are.
    pub(crate) fn goes_by_rows(&self) -> bool {
        match &self.operator {
            Operator::PassThrough(Target::Keys(route)) => !route.needs.is_empty(),
            Operator::PassThrough(Target::AnyShard | Target::Shard(_))
            | Operator::Broadcast(_)
            | Operator::Session => false,
            Operator::PassThrough(Target::AllShards)
            | Operator::Append(_)
            | Operator::Merge(_)
            | Operator::Workspace(_)
            | Operator::Lock(_)
            | Operator::Write(_)
            | Operator::Move(_)
            | Operator::Steps(_)
            | Operator::Insert(_)
            | Operator::InsertQuery(_)
            | Operator::CopyIn(_)
            | Operator::Refuse(_) => true,
        }
    }

    /// Bytes on the heap, about.
    pub(crate) fn size(&self) -> usize {
        let route = match &self.operator {
            Operator::PassThrough(Target::Keys(route)) | Operator::Append(Target::Keys(route)) => {
                route.size()
            }
            Operator::Merge(merge) => merge.size(),
            Operator::Lock(lock) => lock.size(),
            Operator::Write(write) => write.size(),
            Operator::Move(of) => of.size(),
            Operator::Steps(steps) => steps.write.size() + 64 * steps.given.columns.len(),
            Operator::Insert(insert) => insert.size(),
            Operator::InsertQuery(insert) => insert.workspace.size() + 1024,
            Operator::PassThrough(_)
            | Operator::Append(_)
            | Operator::Broadcast(_)
            | Operator::Session => 0,
            Operator::Workspace(workspace) => workspace.size(),
            Operator::CopyIn(_) | Operator::Refuse(_) => 512,
        };
        let several = self.several.as_ref().map_or(0, |several| several.size());
        several + route + 2 * self.key_params.len() + 4 * self.guards.len() + 64
    }
}

/// How a statement is executed.
#[derive(Debug, Clone)]
pub enum Operator {
    /// The original bytes go to one shard, and its answer back. Where a key turns out at binding to be a value whose shard
    /// is not certain, the statement is one whose rows can be appended, or it is refused.
    PassThrough(Target),
    /// The original bytes go to several shards, and their rows are appended, in shard order or any other.
    Append(Target),
    /// A text made from the original goes to several shards, and their rows are merged.
    Merge(Box<Merge>),
    /// The original bytes go to all shards, in one transaction where there can be one: the first shard first, and when it has
    /// succeeded the others; the answer is the first shard's.
    Broadcast(Broadcast),
    /// The session handles it itself.
    Session,
    /// A PostgreSQL apart answers, with what it needs from the shards.
    Workspace(Box<Workspace>),
    /// Rows of several shards are found, and then locked one by one.
    Lock(Box<Lock>),
    /// Several shards change rows of their own, one after the other in one transaction; their counts are added, and the rows they
    /// return appended.
    Write(Box<Write>),
    /// The same, and rows whose shard keys it changes move to the shards they belong to then.
    Move(Box<Move>),
    /// Several shards change rows of their own, and one of them runs a query over what they return.
    Steps(Box<Steps>),
    /// Each shard is sent the rows that it stores.
    Insert(Box<Insert>),
    /// A workspace runs a query, and each shard is sent the rows that it stores.
    InsertQuery(Box<FromQuery>),
    /// The rows that the client copies are divided among the shards.
    CopyIn(Arc<CopyIn>),
    /// An error.
    Refuse(Box<Refusal>),
}

impl Operator {
    /// The parameters that binding looks at.
    fn params(&self) -> Vec<u16> {
        match self {
            Operator::PassThrough(Target::Keys(route)) | Operator::Append(Target::Keys(route)) => {
                route.params()
            }
            Operator::Merge(merge) => merge.params(),
            Operator::Lock(lock) => lock.params(),
            Operator::Write(write) => write.params(),
            Operator::Move(of) => of.params(),
            Operator::Steps(steps) => steps.write.params(),
            Operator::Insert(insert) => insert.params(),
            Operator::InsertQuery(insert) => insert.workspace.params(),
            Operator::Workspace(workspace) => workspace.params(),
            Operator::PassThrough(_)
            | Operator::Append(_)
            | Operator::Broadcast(_)
            | Operator::Session
            | Operator::CopyIn(_)
            | Operator::Refuse(_) => Vec::new(),
        }
    }
}

/// Why a statement goes to all shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broadcast {
    /// It changes the schema.
    Ddl,
    /// PostgreSQL runs it in no transaction block: on one shard after the other, each by itself. The answer is the first one's.
    Stepwise,
    /// It writes a reference table. Every shard must report the same number of rows.
    Reference,
}

/// What kind of node may run a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Only reads: a replica may serve it.
    Read,
    /// Only reads, but what a replica would say may differ (a setting such as `transaction_read_only`, statistics), or
    /// the server calls it volatile although it changes nothing: primary.
    PrimaryRead,
    /// Reads and locks rows: primary.
    LockingRead,
    /// Writes, or may write: primary.
    Write,
}

/// What a statement may leave behind in the session of the backend that ran it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effects {
    /// Reasons to keep the backend for this session.
    pub pins: Pins,
    /// Settings or other state may have changed unseen: reset the backend before another session gets it.
    pub dirty: bool,
    /// Reads `currval` or `lastval`: right only on the backend where this session last used the sequence.
    pub reads_sequence_state: bool,
    /// May advance or set a sequence, which the backend's session remembers for `currval` and `lastval`.
    pub uses_sequences: bool,
    /// Which sequences those are is not known for certain: code of the user's may use some.
    pub unseen_sequences: bool,
    /// Seeds `random()`, for the rest of the backend's life.
    pub seeds_random: bool,
    /// May let go of advisory locks, or may not have got the one it tries to take.
    pub unlocks: bool,
    /// It says itself that it notifies; code that it runs may do so unseen.
    pub notifies: bool,
    /// It asks what the session listens to, which its backend does not know.
    pub asks_channels: bool,
}

/// Plans one statement: `sql` is a text with exactly one statement (or none), and `scan` what scanning it found. A text
/// of several statements is planned piece by piece, each piece scanned on its own.
pub fn plan(sql: &(impl AsRef<[u8]> + ?Sized), scan: &Scan, context: &Context<'_>) -> Plan {
    let sql = sql.as_ref();
    let end = u32::try_from(sql.len()).unwrap_or(u32::MAX);
    let Ok(tokens) = parse::tokens(sql, 0..end) else {
        // PostgreSQL's lexer refuses the text as well, whichever shard it is on.
        return utility::plan(
            Operator::PassThrough(Target::AnyShard),
            Access::Read,
            Command::Other,
        );
    };
    let planner = Planner {
        sql,
        tokens: &tokens,
        scan,
        context,
        alone: context.relations.shards().len() <= 1,
    };
    planner.plan()
}

/// Planning of one statement.
#[derive(Clone, Copy)]
struct Planner<'a> {
    sql: &'a [u8],
    /// All of the text's.
    tokens: &'a [Token],
    scan: &'a Scan,
    context: &'a Context<'a>,
    /// There is one shard only: everything is there.
    alone: bool,
}

impl Planner<'_> {
    fn plan(&self) -> Plan {
        let mut plan = self.inner(self.tokens);
        self.remembering(&mut plan);
        self.unseen_setting(&mut plan);
        let says = |word| {
            let mut tokens = self.tokens.iter();
            tokens.any(|token| token.is_word(self.sql, word))
        };
        let notifies = matches!(plan.command, Command::Notify(_)) || says("pg_notify");
        plan.effects.notifies = notifies;
        plan.effects.asks_channels = says("pg_listening_channels");
        let number = |token: &Token| token.parameter(self.sql).unwrap_or(u16::MAX);
        plan.params = self
            .tokens
            .iter()
            .filter(|token| token.kind == TokenKind::Param)
            .map(number)
            .max()
            .unwrap_or(0);
        plan.key_params = plan.operator.params();
        let of_value = plan.located.as_ref().and_then(|located| located.param());
        plan.key_params.extend(of_value);
        if let Some(several) = &mut plan.several {
            let params = plan.params;
            let guards = &plan.guards;
            let several = Arc::make_mut(several);
            several.params = params;
            several.guards.clone_from(guards);
            let others = &several.key_params;
            plan.key_params.extend_from_slice(others);
            plan.key_params.sort_unstable();
            plan.key_params.dedup();
        }
        if let Some(hint) = &self.scan.hint {
            plan = self.hinted(plan, hint);
        }
        self.keeping_unique(&mut plan);
        plan
    }

    /// A set_config where the analysis did not find it, or did not look.
    fn unseen_setting(&self, plan: &mut Plan) {
        let is_sent = !matches!(plan.operator, Operator::Session | Operator::Refuse(_));
        let calls = |token: &Token| token.is_word(self.sql, "set_config");
        if !is_sent || !plan.settings.is_empty() || !self.tokens.iter().any(calls) {
            return;
        }
        if let Command::Explain { analyze: false } = plan.command {
            return;
        }
        if let Command::Ddl = plan.command {
            // A definition runs nothing, and what CREATE TABLE AS sets must not be another session's.
            plan.effects.dirty = true;
            return;
        }
        let refusal = setting::unfollowed("a setting in this statement");
        *plan = utility::refused(refusal, plan.command.clone());
    }

    /// Plans the statement that the tokens are.
    fn inner(&self, tokens: &[Token]) -> Plan {
        let first = tokens
            .iter()
            .find(|token| token.kind != TokenKind::Punct(b'('));
        let queries = [
            "select", "insert", "update", "delete", "merge", "with", "values", "table",
        ];
        let query =
            first.is_some_and(|token| queries.iter().any(|word| token.is_word(self.sql, word)));
        if !query {
            return self.utility(tokens);
        }
        if let Some(plan) = self.distribute(tokens) {
            return plan;
        }
        let is_into = |token: &Token| token.is_word(self.sql, "into");
        if !self.alone
            && tokens.iter().any(is_into)
            && let Some(created) = create_as::CreateAs::read(self.sql, tokens)
            && let Some(plan) = self.create_as(&created)
        {
            return plan;
        }
        if let Some(plan) = self.of_cursor(tokens) {
            return plan;
        }
        if let Some(plan) = self.of_defaults(tokens) {
            return plan;
        }
        let Some(text) = parse::readable(self.sql, tokens) else {
            return self.opaque(tokens, Command::Other, "not UTF-8");
        };
        let (statement, folded) = match self.parse(&text, tokens) {
            Ok(parsed) => parsed,
            Err(why) => return self.opaque(tokens, Command::Other, why),
        };
        let source = (self.sql, tokens);
        let (outcome, guards) =
            analyse::analyse(&statement, folded.as_ref(), source, self.scan, self.context);
        let plan = match outcome {
            Ok(analysis) => self.planned(analysis, &statement, tokens),
            Err(analyse::Stop::Opaque(why)) => self.opaque(tokens, Command::Other, why),
            Err(analyse::Stop::Refuse(refusal)) => utility::refused(*refusal, Command::Other),
        };
        let mut plan = plan;
        plan.guards.extend(guards);
        plan.guards.sort_unstable();
        plan.guards.dedup();
        plan
    }

    /// The plan of an INSERT of DEFAULT VALUES, if something of the row is computed first.
    fn of_defaults(&self, tokens: &[Token]) -> Option<Plan> {
        let inserts = tokens.first()?.is_word(self.sql, "insert");
        if self.alone || !inserts || tokens.len() != self.tokens.len() {
            return None;
        }
        let text = insert::with_values(self.sql)?;
        let mut scan = Scan::new();
        scan.scan(&text).ok()?;
        let tokens = parse::tokens(&text, 0..u32::try_from(text.len()).ok()?).ok()?;
        let planner = Planner {
            sql: &text,
            tokens: &tokens,
            scan: &scan,
            ..*self
        };
        let mut plan = planner.inner(&tokens);
        let Operator::Insert(insert) = &mut plan.operator else {
            return None;
        };
        insert.of_defaults = true;
        Some(plan)
    }

    /// The syntax tree of a statement; of rows to be inserted that are alike, it has the first.
    fn parse(
        &self,
        text: &str,
        tokens: &[Token],
    ) -> Result<(Statement, Option<Folded>), parse::Opaque> {
        if let Some(rows) = Rows::of(self.sql, tokens) {
            let (folded, tokens) = Folded::new(self.sql, tokens, &self.scan.literals, &rows);
            let statement = parse::parse(text, &tokens)?;
            if analyse::inserted_rows(&statement) == Some(folded.shapes()) {
                return Ok((statement, Some(folded)));
            }
        }
        Ok((parse::parse(text, tokens)?, None))
    }

    /// See [`Plan::steady`].
    fn is_steady(&self, analysis: &Analysis) -> bool {
        let relations = self.context.relations;
        let is_table = |name: &TableName| {
            let known = relations.get(&name.schema, &name.name);
            known.is_some_and(|relation| relation.kind == RelationKind::Table)
        };
        let tables = analysis.read.iter().all(is_table) && analysis.read_inside.is_empty();
        let reads = decide::access(analysis) == Access::Read && analysis.settings.is_empty();
        let plain = !analysis.catalog && !analysis.temporary && analysis.unknown.is_none();
        reads && tables && plain && !analysis.calls_code
    }

    /// The plan of a statement that is understood.
    fn planned(&self, mut analysis: Analysis, statement: &Statement, tokens: &[Token]) -> Plan {
        analysis.locks_copies =
            lock::locks_copies(&analysis, statement, self.sql, tokens, self.context);
        let merge = match self.alone {
            true => None,
            false => merge::merge(&analysis, statement, self.sql, tokens),
        };
        let mut plan = Plan {
            operator: match merge {
                Some(merge) => Operator::Merge(Box::new(merge)),
                None => decide::decide(&analysis),
            },
            access: decide::access(&analysis),
            effects: analysis.effects,
            command: if analysis.writes {
                Command::Write
            } else {
                Command::Select
            },
            params: 0,
            key_params: Vec::new(),
            guards: Vec::new(),
            unknown: analysis.unknown.clone(),
            sequences: analysis.used_sequences.clone(),
            temporary: analysis.creates_temporary.clone(),
            settings: analysis.settings.clone(),
            node: None,
            several: None,
            unique: None,
            steady: self.is_steady(&analysis),
            located: None,
        };
        if !self.alone {
            self.inserted(&mut plan, &analysis);
        }
        let apart = !self.alone || !analysis.own_views.is_empty();
        if apart && !analysis.writes {
            match self.context.given.is_empty() {
                true => self.apart(&mut plan, (&analysis, statement, tokens)),
                false => self.finished(&mut plan, (&analysis, statement, tokens)),
            }
        }
        if !self.alone && analysis.writes {
            // Rows of any number go to the first shard; a write there is given few.
            let to_first = analysis.stored.is_empty() && analysis.writes_reference.is_none();
            if to_first {
                self.inserted_from(&mut plan, (&analysis, statement, tokens));
            }
            self.written(&mut plan, (&analysis, statement, tokens));
            if !to_first {
                self.inserted_from(&mut plan, (&analysis, statement, tokens));
            }
            self.in_steps(&mut plan, (&analysis, statement, tokens));
        }
        plan.located = located::located(&plan, &analysis, self.context);
        self.unless_new(plan)
    }

    /// Applies a hint: it overrides the route, not what the statement is.
    fn hinted(&self, mut plan: Plan, hint: &Hint) -> Plan {
        if hint.invalid {
            return utility::bad_hint("unrecognized routing hint".to_owned());
        }
        if let Some(name) = &hint.shard {
            let position = self
                .context
                .relations
                .shards()
                .iter()
                .position(|shard| shard == name);
            let Some(shard) = position
                .and_then(|position| u16::try_from(position).ok())
                .map(ShardIndex)
            else {
                return utility::bad_hint(format!(
                    "shard \"{name}\" of the routing hint does not exist"
                ));
            };
            if !matches!(plan.operator, Operator::Session) {
                plan.operator = Operator::PassThrough(Target::Shard(shard));
                plan.key_params.clear();
                plan.several = None;
            }
        }
        match hint.node {
            Some(HintNode::Replica)
                if plan.access > Access::PrimaryRead
                    && !matches!(plan.operator, Operator::Session) =>
            {
                return utility::bad_hint(
                    "the statement may write and cannot run on a replica".to_owned(),
                );
            }
            node => plan.node = node,
        }
        plan
    }
}
