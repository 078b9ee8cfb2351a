//! What is known of functions.

use std::collections::BTreeSet;

use smallvec::SmallVec;
use switchyard_schema::TableName;

use super::Changes;

/// Every overload of one name in one schema, folded into the worst of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// The schema.
    pub schema: Box<str>,
    /// `pg_proc.oid` on the first shard, of every overload.
    pub oids: SmallVec<[u32; 2]>,
    /// What it is; an aggregate if any overload is one.
    pub kind: FunctionKind,
    /// The most volatile overload's.
    pub volatility: Volatility,
    /// Written in SQL, PL/pgSQL or another language whose code may do anything, settings included.
    pub user_code: bool,
    /// A sharded table its code mentions, directly or through functions it mentions.
    pub reads_sharded: Option<TableName>,
    /// Its code mentions what the first shard alone has, directly or through functions it mentions: a table, a sequence, locks.
    pub reads_unsharded: bool,
    /// A reference table its code, or that of a function it mentions, mentions and may write.
    pub writes_reference: Option<TableName>,
    /// The settings its code may change, directly or through functions it mentions.
    pub changes: Changes,
    /// If its code does nothing but read and compute, whatever its volatility: the relations it may read, which it finds
    /// by their names alone.
    pub reads: Option<BTreeSet<TableName>>,
    /// Its code, or that of a function it mentions, runs text as SQL: what it touches cannot be known.
    pub dynamic: bool,
    /// Any overload returns any number of rows.
    pub returns_set: bool,
}

impl Function {
    /// PostgreSQL's, or made by the router: of those it is known by their name what they do. So it is of functions in C of extensions,
    /// `uuid-ossp` and `pgcrypto`, that give each row a value of its own.
    pub(crate) fn is_builtin(&self, name: &str) -> bool {
        matches!(&*self.schema, "pg_catalog" | "switchyard")
            || is_own(name) && !self.user_code && self.kind == FunctionKind::Normal
    }

    /// Folds another overload in.
    pub(super) fn merge(&mut self, other: &Function) {
        self.oids.extend_from_slice(&other.oids);
        self.kind = self.kind.max(other.kind);
        self.volatility = self.volatility.max(other.volatility);
        self.user_code |= other.user_code;
        self.dynamic |= other.dynamic;
        self.returns_set |= other.returns_set;
        self.changes.add(&other.changes);
        self.reads_unsharded |= other.reads_unsharded;
        self.reads = match (self.reads.take(), &other.reads) {
            (Some(known), Some(other)) => Some(known.union(other).cloned().collect()),
            _ => None,
        };
        if self.writes_reference.is_none() {
            self.writes_reference.clone_from(&other.writes_reference);
        }
        if self.reads_sharded.is_none() {
            self.reads_sharded.clone_from(&other.reads_sharded);
        }
    }
}

/// What a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FunctionKind {
    /// An ordinary function.
    Normal,
    /// A procedure.
    Procedure,
    /// A window function.
    Window,
    /// An aggregate.
    Aggregate,
}

/// Functions whose argument is run as SQL or names a table.
const RUNS_TEXT: &[&str] = &[
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "database_to_xmlschema",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "schema_to_xmlschema",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "table_to_xmlschema",
    "ts_rewrite",
    "ts_stat",
    "pg_logical_slot_get_changes",
    "pg_logical_slot_peek_changes",
];

/// Whether a function of PostgreSQL's runs its argument as SQL or reads the table it names.
pub(crate) fn runs_text(name: &str) -> bool {
    RUNS_TEXT.contains(&name)
}

/// Whether a volatile function of PostgreSQL's gives each row a value of its own, and does no more.
pub(crate) fn is_own(name: &str) -> bool {
    matches!(
        name,
        "clock_timestamp"
            | "gen_random_uuid"
            | "gen_snowflake_id"
            | "pg_sleep"
            | "pg_sleep_for"
            | "pg_sleep_until"
            | "random"
            | "timeofday"
            | "uuid_generate_v1"
            | "uuid_generate_v1mc"
            | "uuid_generate_v4"
            | "uuidv4"
            | "uuidv7"
    )
}

/// Whether a volatile function of PostgreSQL's, or one that gives the transaction a number, is about what the first shard keeps for all:
/// sequences, large objects, advisory locks, notifications, the state of the server.
pub(crate) fn is_of_first_shard(name: &str, volatility: Volatility) -> bool {
    let kept = matches!(
        name,
        "currval" | "lastval" | "loread" | "lowrite" | "nextval" | "setval"
    );
    let prefixed = || ["lo_", "pg_"].iter().any(|prefix| name.starts_with(prefix));
    matches!(name, "pg_current_xact_id" | "txid_current")
        || volatility == Volatility::Volatile && !is_own(name) && (kept || prefixed())
}

/// Whether a stable function of PostgreSQL's may give something else on another server or at another moment.
pub(crate) fn differs(name: &str) -> bool {
    is_momentary(name)
        || ["pg_", "txid_", "inet_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// Whether it is a function, or a word that stands for one, that says what time it is, the same for a whole statement.
pub(crate) fn is_moment(name: &str) -> bool {
    matches!(
        name,
        "current_date"
            | "current_time"
            | "current_timestamp"
            | "localtime"
            | "localtimestamp"
            | "now"
            | "statement_timestamp"
            | "transaction_timestamp"
    )
}

/// Whether it is a stable function of PostgreSQL's whose result differs from server to server or from moment to moment. (The other
/// stable ones depend on settings, which are the same everywhere.)
pub(crate) fn is_momentary(name: &str) -> bool {
    matches!(
        name,
        "age"
            | "current_date"
            | "current_query"
            | "current_time"
            | "current_timestamp"
            | "inet_client_addr"
            | "inet_client_port"
            | "inet_server_addr"
            | "inet_server_port"
            | "localtime"
            | "localtimestamp"
            | "now"
            | "statement_timestamp"
            | "transaction_timestamp"
            | "version"
    )
}

/// PostgreSQL's volatility classes, ascending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volatility {
    /// Same arguments, same result, always.
    Immutable,
    /// Same arguments, same result, within a statement.
    Stable,
    /// Anything.
    Volatile,
}
