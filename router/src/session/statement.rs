//! Prepared statements and portals, as clients name them and as the router numbers them.
//!
//! Every distinct statement (text, declared types, and the [`Scope`] that gives its names and literals their meaning) has one
//! number in the process, so that clients that prepare the same share its preparation on every backend.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use postgres_protocol::escape::escape_identifier;
use smallvec::SmallVec;
use switchyard_schema::{ShardIndex, ShardSet};
use switchyard_wire::frontend::encode;

use super::extended::merge::Shared;
use super::extended::portable;
use crate::backend::Connection;
use crate::plan::{ContextId, Plan};
use crate::relations::SearchPath;
use crate::sql::{HintNode, Literal};

/// A distinct statement.
#[derive(Debug)]
pub(crate) struct Statement {
    /// Its number; prepared on backends under [`Statement::backend_name`].
    pub(crate) number: u64,
    backend_name: Box<str>,
    pub(crate) text: StatementText,
    /// The types of its parameters, once a backend has described them.
    described: OnceLock<Box<[u32]>>,
    /// The columns of its result, as a backend first described them: a whole message.
    columns: OnceLock<Bytes>,
    /// What shards run for it instead, the latest last: as long as it is known, so are those.
    derived: Mutex<Vec<Arc<Statement>>>,
}

/// So many statements of ours are kept for one of a client's.
const MOST_DERIVED: usize = 4;

/// How a statement was prepared, and what identifies it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum StatementText {
    /// By a Parse message.
    Parsed {
        /// Without the terminating zero.
        sql: Box<[u8]>,
        /// Type OIDs; 0 and missing ones are for the server to infer.
        declared: Box<[u32]>,
    },
    /// By `PREPARE name (types) AS sql`.
    Prepared {
        /// The types as written.
        types: Box<str>,
        /// The statement as written.
        sql: Box<str>,
    },
}

impl Statement {
    /// The name under which backends hold it.
    pub(crate) fn backend_name(&self) -> &str {
        &self.backend_name
    }

    /// The statement itself.
    pub(crate) fn sql(&self) -> &[u8] {
        match &self.text {
            StatementText::Parsed { sql, .. } => sql,
            StatementText::Prepared { sql, .. } => sql.as_bytes(),
        }
    }

    /// How many types of parameters are declared; the text may mention fewer.
    pub(crate) fn declared(&self) -> u16 {
        match &self.text {
            StatementText::Parsed { declared, .. } => {
                u16::try_from(declared.len()).unwrap_or(u16::MAX)
            }
            StatementText::Prepared { .. } => 0,
        }
    }

    /// The type of parameter `number` (from 1): as declared, else as described, else 0.
    pub(crate) fn parameter_type(&self, number: u16) -> u32 {
        let index = usize::from(number).wrapping_sub(1);
        let declared = match &self.text {
            StatementText::Parsed { declared, .. } => declared.get(index).copied().unwrap_or(0),
            StatementText::Prepared { .. } => 0,
        };
        if declared != 0 {
            return declared;
        }
        self.described
            .get()
            .and_then(|types| types.get(index).copied())
            .unwrap_or(0)
    }

    /// The statement of this text that shards run for this one.
    pub(crate) fn derived(
        &self,
        text: StatementText,
        intern: impl FnOnce(StatementText) -> Arc<Statement>,
    ) -> Arc<Statement> {
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = derived.iter().find(|known| known.text == text) {
            return Arc::clone(known);
        }
        let statement = intern(text);
        if derived.len() >= MOST_DERIVED {
            derived.remove(0);
        }
        derived.push(Arc::clone(&statement));
        statement
    }

    /// Whether PostgreSQL has taken it and described it.
    pub(crate) fn is_described(&self) -> bool {
        self.described.get().is_some()
    }

    /// Takes note of the parameter types a backend described.
    pub(crate) fn describe(&self, types: &[u32]) {
        // Every shard has the same schema, so the first description is as good as any.
        let _ = self.described.set(types.into());
    }

    /// The columns of its result, if they have been described: a whole message.
    pub(crate) fn columns(&self) -> Option<&Bytes> {
        self.columns.get()
    }

    /// Takes note of the columns a backend described.
    pub(crate) fn describe_columns(&self, columns: Bytes) {
        let _ = self.columns.set(columns);
    }

    /// Appends the Parse message that prepares it on a backend: under its number, or as the unnamed statement.
    pub(crate) fn encode_prepare(&self, connection: &mut Connection, named: bool) {
        let name = if named { self.backend_name() } else { "" };
        let declared: &[u32] = match &self.text {
            StatementText::Parsed { declared, .. } => declared,
            StatementText::Prepared { .. } => &[],
        };
        let declared = match connection.oid_map() {
            Some(map) => Cow::Owned(map.here(declared)),
            None => Cow::Borrowed(declared),
        };
        let output = &mut connection.output;
        encode::parse(output, name.as_bytes(), self.sql(), &declared);
    }

    /// The statement that prepares it on a backend, if it was prepared by SQL.
    pub(crate) fn prepare_sql(&self) -> Option<String> {
        match &self.text {
            StatementText::Parsed { .. } => None,
            StatementText::Prepared { sql, .. } => {
                Some(self.prepare_sql_as(self.backend_name(), sql))
            }
        }
    }

    /// Appends the query that prepares it, or the Parse message, under the client's name for it and with its text as it
    /// runs somewhere else.
    pub(crate) fn encode_prepare_as(&self, output: &mut BytesMut, name: &str, text: &[u8]) {
        match &self.text {
            StatementText::Parsed { declared, .. } => {
                let types: Vec<u32> = declared.iter().copied().map(portable).collect();
                encode::parse(output, name.as_bytes(), text, &types);
                encode::sync(output);
            }
            StatementText::Prepared { .. } => {
                let name = escape_identifier(name);
                let sql = self.prepare_sql_as(&name, &String::from_utf8_lossy(text));
                encode::query(output, sql.as_bytes());
            }
        }
    }

    fn prepare_sql_as(&self, name: &str, sql: &str) -> String {
        let types = match &self.text {
            StatementText::Prepared { types, .. } if !types.is_empty() => format!(" ({types})"),
            StatementText::Prepared { .. } | StatementText::Parsed { .. } => String::new(),
        };
        format!("PREPARE {name}{types} AS {sql}")
    }
}

/// What a text means: the same text is another statement in another database, under another search path, after the schema
/// has changed, or where its literals are read otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    pub(crate) database: Arc<str>,
    /// [`crate::topology::DatabaseTopology::generation`].
    pub(crate) generation: u64,
    pub(crate) role: Arc<str>,
    pub(crate) search_path: SearchPath,
    /// [`crate::backend::Settings::reading`]
    pub(crate) reading: Arc<str>,
}

/// The process's distinct statements.
#[derive(Debug, Default)]
pub(crate) struct Statements {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_text: HashMap<(Scope, StatementText), Weak<Statement>>,
    last: u64,
    sweep_at: usize,
}

impl Statements {
    /// The statement of this text, numbered at first sight. One that is of its moment is nobody else's.
    pub(crate) fn intern(&self, scope: Scope, text: StatementText) -> Arc<Statement> {
        let key = (scope, text.clone());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(statement) = known.by_text.get(&key).and_then(Weak::upgrade) {
            return statement;
        }
        if known.by_text.len() >= known.sweep_at {
            known
                .by_text
                .retain(|_, statement| statement.strong_count() > 0);
            known.sweep_at = (known.by_text.len() * 2).max(1024);
        }
        known.last += 1;
        let statement = Arc::new(Statement {
            number: known.last,
            backend_name: format!("sy_{}", known.last).into(),
            text,
            described: OnceLock::new(),
            columns: OnceLock::new(),
            derived: Mutex::default(),
        });
        if !is_of_its_moment(statement.sql()) {
            known.by_text.insert(key, Arc::downgrade(&statement));
        }
        statement
    }
}

/// Words that PostgreSQL reads as the time at which it parses the statement.
const MOMENTS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];

/// Whether a literal may stand for the time. What is not sure may do so.
fn is_of_its_moment(sql: &[u8]) -> bool {
    if memchr::memchr2(b'\'', b'$', sql).is_none() {
        return false;
    }
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let mut rest = sql;
    while let Some(start) = rest.iter().position(is_part) {
        rest = &rest[start..];
        let end = rest.iter().position(|byte| !is_part(byte));
        let (word, behind) = rest.split_at(end.unwrap_or(rest.len()));
        let is_moment = MOMENTS
            .iter()
            .any(|moment| word.eq_ignore_ascii_case(moment));
        if is_moment && behind.first() != Some(&b'(') {
            return true;
        }
        rest = behind;
    }
    false
}

/// A prepared statement of one client. What its execution needs comes first.
#[derive(Debug, Clone)]
#[repr(C)]
pub(crate) struct SessionStatement {
    pub(crate) statement: Arc<Statement>,
    /// Its plan, and what that was made for.
    pub(crate) plan: Arc<Plan>,
    pub(crate) context: ContextId,
    /// The hint in its text.
    pub(crate) hint: Option<HintNode>,
    /// The schema has changed since a client was told of its columns: are they the same?
    pub(crate) is_in_doubt: bool,
    /// The literals of its text.
    pub(crate) literals: Arc<[Literal]>,
    pub(crate) origin: Origin,
}

impl SessionStatement {
    /// How many parameters it has; `None` if SQL has prepared it, which may have declared more than its text mentions.
    pub(crate) fn parameters(&self) -> Option<usize> {
        let own = self.plan.params.max(self.statement.declared());
        match &self.statement.text {
            StatementText::Parsed { .. } => Some(own.into()),
            StatementText::Prepared { .. } => None,
        }
    }
}

/// When and by what a statement was prepared.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The PREPARE as the client wrote it; none of what a Parse message prepared.
    pub(crate) written: Option<Arc<str>>,
    pub(crate) at: SystemTime,
    /// The [`Scope::generation`] that it was prepared under, or by which its columns were the same still.
    pub(crate) generation: u64,
}

impl Portal {
    /// What it runs, and on how many shards.
    pub(crate) fn plan(&self) -> (&Plan, usize) {
        match self {
            Self::One { plan, .. } => (plan, 1),
            Self::Several { plan, shards, .. }
            | Self::Written { plan, shards, .. }
            | Self::Merge { plan, shards, .. } => (plan, shards.len()),
            Self::Locked { prepared, .. } | Self::CreateAs { prepared, .. } => (&prepared.plan, 0),
            Self::Insert {
                prepared, shards, ..
            } => (&prepared.plan, shards.len()),
            Self::Session { plan, .. }
            | Self::Workspace { plan, .. }
            | Self::Answered { plan, .. }
            | Self::Fetch { plan, .. } => (plan, 0),
        }
    }
}

/// What a statement that changed rows has returned.
#[derive(Debug, Clone)]
pub(crate) struct Returned {
    /// The tag at the end of it.
    pub(crate) tag: Box<str>,
    /// The rows that have not been fetched, each a whole message.
    pub(crate) rows: VecDeque<Bytes>,
}

/// A bound portal of one client.
#[derive(Debug, Clone)]
pub(crate) enum Portal {
    /// On one backend, under the client's own name.
    One {
        shard: ShardIndex,
        is_primary: bool,
        plan: Arc<Plan>,
    },
    /// On several backends, or to be run on them one after the other.
    Several {
        shards: ShardSet,
        /// Those of which the primary has it.
        on_primaries: ShardSet,
        plan: Arc<Plan>,
        /// The next shard to fetch rows from.
        progress: usize,
    },
    /// On several backends, each of which changes its rows when it is first executed.
    Written {
        shards: ShardSet,
        plan: Arc<Plan>,
        /// The answer to Describe, a whole message, if the backends' own would say less.
        description: Option<Bytes>,
        /// What they have returned, and has not been fetched.
        returned: Option<Returned>,
    },
    /// On several backends, whose rows are merged.
    Merge {
        shards: ShardSet,
        /// Those of which the primary has it.
        on_primaries: ShardSet,
        plan: Arc<Plan>,
        /// The answer to Describe, a whole message.
        description: Option<Bytes>,
        merging: Shared,
    },
    /// In a workspace.
    Workspace {
        /// The workspace's, while it is open.
        number: u64,
        plan: Arc<Plan>,
        /// The answer to Describe, a whole message, if it has a result.
        description: Option<Bytes>,
        /// What the client is told when it is executed, if a part of it has failed on a shard: then it has no workspace.
        failed: Option<Bytes>,
    },
    /// Rows that are to be found and locked.
    Locked {
        prepared: Arc<SessionStatement>,
        /// A whole Bind message.
        bind: Bytes,
        /// The answer to Describe, a whole message.
        description: Bytes,
    },
    /// A table to be made of rows of several shards.
    CreateAs {
        prepared: Arc<SessionStatement>,
        /// A whole Bind message.
        bind: Bytes,
    },
    /// Rows that are to be inserted on several shards, or another statement that is done when it is first executed.
    Insert {
        prepared: Arc<SessionStatement>,
        /// A whole Bind message.
        bind: Bytes,
        /// The shard of each row.
        shards: Arc<[ShardIndex]>,
        /// The answer to Describe, a whole message.
        description: Bytes,
    },
    /// An answer that is there already: an EXPLAIN's, or rows that have been locked.
    Answered {
        plan: Arc<Plan>,
        /// The answer to Describe, a whole message.
        description: Bytes,
        /// The rows that have not been fetched, each a whole message.
        rows: VecDeque<Bytes>,
        /// The command tag, where it does not count the rows that are fetched.
        tag: Option<Box<str>>,
    },
    /// A FETCH or MOVE of a cursor in a workspace.
    Fetch {
        cursor: Box<str>,
        plan: Arc<Plan>,
        statement: Arc<Statement>,
        /// A whole Bind message for unnamed ones.
        bind: Bytes,
        /// The answer to Describe, a whole message, if it has rows.
        description: Option<Bytes>,
    },
    /// A statement the session handles itself.
    Session {
        plan: Arc<Plan>,
        statement: Arc<Statement>,
    },
}

impl Portal {
    /// Whether the primary of this shard has it, rather than a replica. `None`: no backend has it.
    pub(crate) fn is_on_primary(&self, shard: ShardIndex) -> Option<bool> {
        match self {
            Self::One { is_primary, .. } => Some(*is_primary),
            Self::Several { on_primaries, .. } | Self::Merge { on_primaries, .. } => {
                Some(on_primaries.contains(shard))
            }
            Self::Written { .. } => Some(true),
            Self::Session { .. }
            | Self::Workspace { .. }
            | Self::Answered { .. }
            | Self::Locked { .. }
            | Self::CreateAs { .. }
            | Self::Insert { .. }
            | Self::Fetch { .. } => None,
        }
    }
}

/// What a client has given names to. Most clients use the unnamed one only, which costs no hash.
#[derive(Debug)]
pub(crate) struct ByName<T> {
    unnamed: Option<T>,
    named: HashMap<Name, T, foldhash::fast::RandomState>,
}

/// What drivers name statements by lies beside what it names: nothing else is touched to find it.
type Name = SmallVec<[u8; 24]>;

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self {
            unnamed: None,
            named: HashMap::default(),
        }
    }
}

impl<T> ByName<T> {
    pub(crate) fn get(&self, name: &[u8]) -> Option<&T> {
        match name {
            b"" => self.unnamed.as_ref(),
            name => self.named.get(name),
        }
    }

    pub(crate) fn get_mut(&mut self, name: &[u8]) -> Option<&mut T> {
        match name {
            b"" => self.unnamed.as_mut(),
            name => self.named.get_mut(name),
        }
    }

    /// Adds one, or replaces it.
    pub(crate) fn insert(&mut self, name: &[u8], value: T) {
        match name {
            b"" => self.unnamed = Some(value),
            name => drop(self.named.insert(Name::from_slice(name), value)),
        }
    }

    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<T> {
        match name {
            b"" => self.unnamed.take(),
            name => self.named.remove(name),
        }
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.unnamed.iter().chain(self.named.values())
    }

    /// Whether nothing has a name, nor is unnamed.
    pub(crate) fn is_empty(&self) -> bool {
        self.unnamed.is_none() && self.named.is_empty()
    }

    /// Those with names.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&[u8], &T)> {
        self.named.iter().map(|(name, value)| (&**name, value))
    }

    pub(crate) fn clear(&mut self) {
        self.unnamed = None;
        // Of an empty map, too, every slot would be written.
        if !self.named.is_empty() {
            self.named.clear();
        }
    }
}
