//! SQLSTATE codes: the five characters by which programs know an error.

use std::fmt;

/// A SQLSTATE.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SqlState([u8; 5]);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl SqlState {
            $($(#[$doc])* pub const $name: SqlState = SqlState(*$code);)*
        }
    };
}

codes! {
    /// Not an error.
    SUCCESSFUL_COMPLETION = b"00000";
    /// A warning without a code of its own.
    WARNING = b"01000";
    /// No connection where one is needed.
    CONNECTION_EXCEPTION = b"08000";
    /// The server refused the connection.
    CONNECTION_REJECTED = b"08004";
    /// A node was lost before the statement took effect.
    CONNECTION_FAILURE = b"08006";
    /// The outcome of a COMMIT is not known.
    TRANSACTION_RESOLUTION_UNKNOWN = b"08007";
    /// The peer does not keep to the protocol.
    PROTOCOL_VIOLATION = b"08P01";
    /// What was asked for is not supported.
    FEATURE_NOT_SUPPORTED = b"0A000";
    /// A number its type cannot hold.
    NUMERIC_VALUE_OUT_OF_RANGE = b"22003";
    /// Bytes that are no text in the encoding.
    CHARACTER_NOT_IN_REPERTOIRE = b"22021";
    /// A parameter's value is not allowed.
    INVALID_PARAMETER_VALUE = b"22023";
    /// A value that is no text of its type.
    INVALID_TEXT_REPRESENTATION = b"22P02";
    /// A value that is not the binary form of its type.
    INVALID_BINARY_REPRESENTATION = b"22P03";
    /// NULL where none may be.
    NOT_NULL_VIOLATION = b"23502";
    /// BEGIN inside a transaction.
    ACTIVE_SQL_TRANSACTION = b"25001";
    /// A write in a read-only transaction.
    READ_ONLY_SQL_TRANSACTION = b"25006";
    /// COMMIT or the like outside a transaction.
    NO_ACTIVE_SQL_TRANSACTION = b"25P01";
    /// The transaction failed before.
    IN_FAILED_SQL_TRANSACTION = b"25P02";
    /// `idle_in_transaction_session_timeout`
    IDLE_IN_TRANSACTION_SESSION_TIMEOUT = b"25P03";
    /// A transaction took too long.
    TRANSACTION_TIMEOUT = b"25P04";
    /// No such prepared statement.
    INVALID_SQL_STATEMENT_NAME = b"26000";
    /// This user may not connect.
    INVALID_AUTHORIZATION_SPECIFICATION = b"28000";
    /// The password does not fit.
    INVALID_PASSWORD = b"28P01";
    /// No such cursor or portal.
    INVALID_CURSOR_NAME = b"34000";
    /// No such database.
    INVALID_CATALOG_NAME = b"3D000";
    /// No such savepoint.
    INVALID_SAVEPOINT_SPECIFICATION = b"3B001";
    /// No such schema.
    INVALID_SCHEMA_NAME = b"3F000";
    /// Concurrent change: retry the transaction.
    SERIALIZATION_FAILURE = b"40001";
    /// `unique_violation`
    UNIQUE_VIOLATION = b"23505";
    /// The transaction was rolled back, whether statements took effect is not known.
    STATEMENT_COMPLETION_UNKNOWN = b"40003";
    /// Deadlock: retry the transaction.
    DEADLOCK_DETECTED = b"40P01";
    /// The statement is no SQL.
    SYNTAX_ERROR = b"42601";
    /// This user may not do that.
    INSUFFICIENT_PRIVILEGE = b"42501";
    /// No table can be so.
    INVALID_TABLE_DEFINITION = b"42P16";
    /// No such column.
    UNDEFINED_COLUMN = b"42703";
    /// No such type, operator … object.
    UNDEFINED_OBJECT = b"42704";
    /// No such function.
    UNDEFINED_FUNCTION = b"42883";
    /// A cursor or portal of that name exists.
    DUPLICATE_CURSOR = b"42P03";
    /// A prepared statement of that name exists.
    DUPLICATE_PREPARED_STATEMENT = b"42P05";
    /// No such table.
    UNDEFINED_TABLE = b"42P01";
    /// No such parameter.
    UNDEFINED_PARAMETER = b"42P02";
    /// A parameter's type cannot be told.
    INDETERMINATE_DATATYPE = b"42P18";
    /// A resource is used up.
    INSUFFICIENT_RESOURCES = b"53000";
    /// No room on disk.
    DISK_FULL = b"53100";
    /// No memory left.
    OUT_OF_MEMORY = b"53200";
    /// Too many clients, or a queue is full.
    TOO_MANY_CONNECTIONS = b"53300";
    /// A configured limit was met.
    CONFIGURATION_LIMIT_EXCEEDED = b"53400";
    /// The statement is too complex or too long.
    PROGRAM_LIMIT_EXCEEDED = b"54000";
    /// The object is not in the state this needs.
    OBJECT_NOT_IN_PREREQUISITE_STATE = b"55000";
    /// A lock could not be had.
    LOCK_NOT_AVAILABLE = b"55P03";
    /// The statement was cancelled.
    QUERY_CANCELED = b"57014";
    /// The server shuts down.
    ADMIN_SHUTDOWN = b"57P01";
    /// The server crashed.
    CRASH_SHUTDOWN = b"57P02";
    /// The server does not take connections now.
    CANNOT_CONNECT_NOW = b"57P03";
    /// Idle for too long.
    IDLE_SESSION_TIMEOUT = b"57P05";
    /// Reading or writing failed outside PostgreSQL.
    IO_ERROR = b"58030";
    /// The configuration has an error.
    CONFIG_FILE_ERROR = b"F0000";
    /// A bug.
    INTERNAL_ERROR = b"XX000";
}

impl SqlState {
    /// The code with these characters, if they are five digits or capital letters.
    pub fn parse(code: &[u8]) -> Option<SqlState> {
        let code: [u8; 5] = code.try_into().ok()?;
        code.iter()
            .all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
            .then_some(SqlState(code))
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }

    /// The code as bytes.
    pub fn as_bytes(&self) -> &[u8; 5] {
        &self.0
    }

    /// The first two characters, which name the class of the error.
    pub fn class(&self) -> &str {
        self.as_str().get(..2).unwrap_or("XX")
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
