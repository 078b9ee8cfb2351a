//! The errors a client can meet from a session itself, each with its SQLSTATE, in PostgreSQL's message style.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "few failures have a detail or a hint"
)]

use switchyard_wire::{DecodeError, SqlState};

use crate::hearing::LIMIT as INBOX_LIMIT;
use crate::merge::MergeError;
use crate::plan::Refusal;
use crate::relations::GlobalIndex;
use crate::startup::cancel::CancelReason;

/// An error for the client. It ends the statement (and fails the transaction block), never the session.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{}", .0.message)]
    Refused(Box<Refusal>),
    #[error("shard \"{shard}\" is not available")]
    ShardDown { shard: Box<str> },
    #[error("shard \"{shard}\" refused a connection: {message}")]
    ShardRefused {
        shard: Box<str>,
        sqlstate: SqlState,
        message: Box<str>,
    },
    /// In PostgreSQL's own words.
    #[error("{message} (shard \"{shard}\")")]
    ShardSays {
        shard: Box<str>,
        sqlstate: SqlState,
        message: Box<str>,
    },
    #[error("the connection to shard \"{shard}\" was lost")]
    ShardLost { shard: Box<str> },
    #[error(
        "the connection to shard \"{shard}\" was lost, and with it what the session kept there"
    )]
    StateLost { shard: Box<str> },
    #[error(
        "the connection to shard \"{shard}\" was lost; whether the statement took effect is unknown"
    )]
    OutcomeUnknown { shard: Box<str> },
    #[error("shard \"{shard}\" broke the protocol")]
    ShardBrokeProtocol { shard: Box<str> },
    #[error("no connection to shard \"{shard}\" became free in time")]
    PoolExhausted { shard: Box<str> },
    #[error("the database is paused")]
    Paused,
    #[error("all {limit} workspaces of the node are in use")]
    WorkspacesBusy { limit: usize },
    #[error("the statement needs more than {limit} bytes of rows from the shards")]
    FetchLimit { limit: u64 },
    #[error("the statement returns more than {limit} bytes of rows of several shards")]
    ReturnedLimit { limit: u64 },
    #[error(
        "the rows of {what} are too many to be given to a write of several shards: more than {rows}, or {bytes} bytes"
    )]
    GivenLimit {
        what: Box<str>,
        rows: u32,
        bytes: usize,
    },
    #[error("{}", .0.message())]
    Cancelled(CancelReason),
    #[error("current transaction is aborted, commands ignored until end of transaction block")]
    InFailedTransaction,
    #[error(
        "the transaction on several shards cannot be committed: shard \"{shard}\" cannot record the decision: {reason}"
    )]
    Undecidable { shard: Box<str>, reason: Box<str> },
    #[error("prepared statement \"{0}\" does not exist")]
    NoSuchStatement(Box<str>),
    #[error("unnamed prepared statement does not exist")]
    NoUnnamedStatement,
    /// In PostgreSQL's own words.
    #[error("cached plan must not change result type")]
    ResultChanged,
    #[error("prepared statement \"{0}\" already exists")]
    DuplicateStatement(Box<str>),
    #[error("portal \"{0}\" does not exist")]
    NoSuchPortal(Box<str>),
    /// In PostgreSQL's own words.
    #[error(transparent)]
    InvalidMessage(#[from] DecodeError),
    #[error(
        "bind message supplies {given} parameters, but prepared statement \"{statement}\" requires {needed}"
    )]
    ParameterCount {
        given: usize,
        statement: Box<str>,
        needed: usize,
    },
    #[error("cursor \"{0}\" already exists")]
    DuplicateCursor(Box<str>),
    #[error("cursor \"{0}\" does not exist")]
    NoSuchCursor(Box<str>),
    #[error("savepoint \"{0}\" does not exist")]
    NoSuchSavepoint(Box<str>),
    /// As PgBouncer has it.
    #[error("transaction blocks not allowed in statement pooling mode")]
    BlockInStatementMode,
    #[error("{0} can only be used in transaction blocks")]
    NoBlock(&'static str),
    /// PostgreSQL has words of its own for it, if its client_encoding is UTF8.
    #[error("a statement that is not valid UTF-8 is not supported")]
    NotUtf8,
    #[error("{0}")]
    Unmerged(MergeError),
    #[error("bind message has {formats} result formats but query has {columns} columns")]
    FormatCount { formats: usize, columns: usize },
    #[error("{what} is not supported")]
    Unsupported { what: Box<str>, hint: &'static str },
    #[error(
        "the copies of a reference table differ: shard \"{shard}\" reported another number of rows"
    )]
    CopiesDiffer { shard: Box<str> },
    #[error("invalid value for parameter \"switchyard.route\": \"{0}\"")]
    BadRoute(Box<str>),
    #[error("invalid value for parameter \"switchyard.layer\": \"{0}\"")]
    BadLayer(Box<str>),
    #[error("parameter \"switchyard.consistent_read\" requires a Boolean value")]
    BadConsistentRead,
    #[error("SET switchyard.consistent_read must be called before any query")]
    TooLateForCut,
    #[error("could not take the snapshots of all shards at one moment: {reason}")]
    NoCut { reason: Box<str> },
    #[error(
        "a statement on another connection than the one whose settings code may have changed is not supported"
    )]
    SettingsElsewhere,
    #[error("{0} cannot run inside a transaction block")]
    NotInBlock(&'static str),
    #[error("could not lock the rows: they change too often")]
    RowsChange,
    /// A statement that is run on one shard after the other has come to an end too early.
    #[error("{failure}")]
    Halfway {
        failure: Box<Failure>,
        /// How far it has come.
        detail: Box<str>,
        hint: Box<str>,
    },
    /// In PostgreSQL's own words.
    #[error("duplicate key value violates unique constraint \"{}\"", .index.name.name)]
    Duplicate {
        /// The global unique index that has the value.
        index: Box<GlobalIndex>,
        /// The column and the value.
        detail: Box<str>,
    },
    #[error("the tables' distribution changed during the statement")]
    Retry,
    #[error("the router does not hear from the catalog where rows are")]
    OutOfTouch,
    #[error("more than {INBOX_LIMIT} bytes of notifications wait for the client")]
    InboxFull,
}

impl Failure {
    pub(crate) fn sqlstate(&self) -> SqlState {
        match self {
            Self::Refused(refusal) => {
                SqlState::parse(refusal.sqlstate.as_bytes()).unwrap_or(SqlState::INTERNAL_ERROR)
            }
            Self::ShardRefused { sqlstate, .. } | Self::ShardSays { sqlstate, .. } => *sqlstate,
            Self::ShardDown { .. }
            | Self::ShardLost { .. }
            | Self::StateLost { .. }
            | Self::OutOfTouch => SqlState::CONNECTION_FAILURE,
            Self::BadRoute(_) | Self::BadLayer(_) | Self::BadConsistentRead => {
                SqlState::INVALID_PARAMETER_VALUE
            }
            Self::NotInBlock(_) | Self::TooLateForCut => SqlState::ACTIVE_SQL_TRANSACTION,
            Self::NoCut { .. } => SqlState::LOCK_NOT_AVAILABLE,
            Self::CopiesDiffer { .. } => SqlState::INTERNAL_ERROR,
            Self::OutcomeUnknown { .. } => SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
            Self::WorkspacesBusy { .. }
            | Self::FetchLimit { .. }
            | Self::ReturnedLimit { .. }
            | Self::GivenLimit { .. }
            | Self::InboxFull
            | Self::Unmerged(MergeError::TooLarge(_)) => SqlState::CONFIGURATION_LIMIT_EXCEEDED,
            Self::Unmerged(MergeError::BigintOverflow | MergeError::NumericOverflow) => {
                SqlState::NUMERIC_VALUE_OUT_OF_RANGE
            }
            Self::Unmerged(MergeError::Unreadable(_)) | Self::ShardBrokeProtocol { .. } => {
                SqlState::INTERNAL_ERROR
            }
            Self::PoolExhausted { .. } => SqlState::TOO_MANY_CONNECTIONS,
            Self::Paused => SqlState::CANNOT_CONNECT_NOW,
            Self::Cancelled(reason) => reason.sqlstate(),
            Self::InvalidMessage(error) => error.sqlstate(),
            Self::InFailedTransaction => SqlState::IN_FAILED_SQL_TRANSACTION,
            Self::Halfway { failure, .. } => failure.sqlstate(),
            Self::Undecidable { .. } => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::Duplicate { .. } => SqlState::UNIQUE_VIOLATION,
            Self::NotUtf8
            | Self::ResultChanged
            | Self::SettingsElsewhere
            | Self::BlockInStatementMode
            | Self::Unsupported { .. } => SqlState::FEATURE_NOT_SUPPORTED,
            Self::NoSuchStatement(_) | Self::NoUnnamedStatement => {
                SqlState::INVALID_SQL_STATEMENT_NAME
            }
            Self::DuplicateStatement(_) => SqlState::DUPLICATE_PREPARED_STATEMENT,
            Self::NoSuchPortal(_) | Self::NoSuchCursor(_) => SqlState::INVALID_CURSOR_NAME,
            Self::ParameterCount { .. } | Self::FormatCount { .. } => SqlState::PROTOCOL_VIOLATION,
            Self::DuplicateCursor(_) => SqlState::DUPLICATE_CURSOR,
            Self::NoSuchSavepoint(_) => SqlState::INVALID_SAVEPOINT_SPECIFICATION,
            Self::NoBlock(_) => SqlState::NO_ACTIVE_SQL_TRANSACTION,
            Self::RowsChange | Self::Retry => SqlState::SERIALIZATION_FAILURE,
        }
    }

    pub(crate) fn detail(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => refusal.detail.as_deref(),
            Self::Halfway { detail, .. } | Self::Duplicate { detail, .. } => Some(detail),
            _ => None,
        }
    }

    pub(crate) fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => refusal.hint.as_deref(),
            Self::Halfway { hint, .. } => Some(hint),
            Self::Undecidable { .. } => Some(
                "Let the router's first administrator create a schema in the database: GRANT CREATE ON DATABASE … TO ….",
            ),
            Self::WorkspacesBusy { .. } => {
                Some("The limit is workspace_sessions in the router's configuration.")
            }
            Self::FetchLimit { .. } => Some(
                "Restrict the rows it reads, or raise max_fetch_bytes in the router's configuration.",
            ),
            Self::GivenLimit { .. } => Some(
                "Read the rows that matter first, and write by values; or distribute both tables by the columns they are joined on.",
            ),
            Self::SettingsElsewhere => Some(
                "Use DISCARD ALL first, or write set_config and SET with the setting's name in the function.",
            ),
            Self::BlockInStatementMode => Some(
                "Send the statements in one query string, or set pool_mode to transaction for the database or the user.",
            ),
            Self::NotUtf8 => Some("Set client_encoding to UTF8."),
            Self::Unsupported { hint, .. } => Some(hint),
            Self::BadRoute(_) => Some("Available values: primary, replica, default."),
            Self::BadLayer(_) => Some("Available values: auto, merge, bind join, workspace."),
            Self::NoCut { .. } => Some(
                "Run the statement again; or SET switchyard.consistent_read = off, to see each shard as it is.",
            ),
            Self::Retry => Some("Run the transaction again."),
            Self::OutOfTouch => Some(
                "Rows have been moved, or are about to be: use another router, or wait until the catalog can be reached.",
            ),
            Self::Unmerged(MergeError::TooLarge(_)) => {
                Some("Add a LIMIT, or group by fewer values.")
            }
            _ => None,
        }
    }
}
