//! What is known of functions.

use std::collections::BTreeSet;

use switchyard_schema::TableName;

use super::Changes;

/// Every overload of one name in one schema, folded into the worst of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// The schema.
    pub schema: Box<str>,
    /// What it is; an aggregate if any overload is one.
    pub kind: FunctionKind,
    /// The most volatile overload's.
    pub volatility: Volatility,
    /// Written in SQL, PL/pgSQL or another language whose code may do anything, settings included.
    pub user_code: bool,
    /// A sharded table its code mentions, directly or through functions it mentions.
    pub reads_sharded: Option<TableName>,
    /// Its code mentions a table that exists on the first shard only.
    pub reads_unsharded: bool,
    /// A reference table its code mentions, if the code also writes.
    pub writes_reference: Option<TableName>,
    /// The settings its code may change, directly or through functions it mentions.
    pub changes: Changes,
    /// If its code does nothing but read and compute, whatever its volatility: the relations it may read, which it finds
    /// by their names alone.
    pub reads: Option<BTreeSet<TableName>>,
    /// Its code runs text as SQL: what it touches cannot be known.
    pub dynamic: bool,
    /// Any overload returns any number of rows.
    pub returns_set: bool,
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

/// Whether a volatile function of PostgreSQL's gives each row a value of its own, and does no more.
pub(crate) fn is_own(name: &str) -> bool {
    matches!(
        name,
        "clock_timestamp"
            | "gen_random_uuid"
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
