//! What kind of statement it is, with what the session must know to handle it.

use std::ops::Range;

use switchyard_schema::TableName;

/// The kind of a statement. Texts and names are as PostgreSQL folds them (unquoted ones in lower case).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `SELECT`, `VALUES`, `TABLE`, `WITH … SELECT`.
    Select,
    /// `INSERT`, `UPDATE`, `DELETE`, `MERGE`, also under `WITH`.
    Write,
    /// `BEGIN`, `START TRANSACTION`.
    Begin(TransactionModes),
    /// `COMMIT`, `END`.
    Commit {
        /// `AND CHAIN`
        chain: bool,
    },
    /// `ROLLBACK`, `ABORT`.
    Rollback {
        /// `AND CHAIN`
        chain: bool,
    },
    /// `PREPARE TRANSACTION 'name'`
    PrepareTransaction(String),
    /// `COMMIT PREPARED 'name'`, `ROLLBACK PREPARED 'name'`
    EndPrepared {
        /// What the client has called it.
        name: String,
        /// `COMMIT`
        commit: bool,
    },
    /// `SAVEPOINT name`
    Savepoint(String),
    /// `RELEASE [SAVEPOINT] name`
    Release(String),
    /// `ROLLBACK TO [SAVEPOINT] name`
    RollbackTo(String),
    /// `SET TRANSACTION modes`
    SetTransaction(TransactionModes),
    /// `SET SESSION CHARACTERISTICS AS TRANSACTION modes`
    SetSessionCharacteristics(TransactionModes),
    /// `SET [SESSION | LOCAL] name = value`. `SET TIME ZONE`, `SET NAMES`, `SET ROLE` and
    /// `SET SESSION AUTHORIZATION` come under the setting's own name.
    Set {
        /// The setting's name in lower case.
        name: String,
        /// The value, or `None` for `DEFAULT`.
        value: Option<SetValue>,
        /// `SET LOCAL`
        local: bool,
    },
    /// `SET CONSTRAINTS …`
    SetConstraints,
    /// `RESET name`, `RESET ALL` (`None`).
    Reset(Option<String>),
    /// `SHOW name`; `SHOW ALL` is `all`.
    Show(String),
    /// `DISCARD …`
    Discard(Discard),
    /// `PREPARE name [(types)] AS statement`
    Prepare {
        /// The prepared statement's name.
        name: String,
        /// The types as written, one range per type, in bytes of this text.
        types: Vec<Range<u32>>,
        /// The statement, in bytes of this text.
        statement: Range<u32>,
    },
    /// `EXECUTE name [(arguments)]`
    Execute {
        /// The prepared statement's name.
        name: String,
        /// The arguments as written, one range per argument, in bytes of this text.
        arguments: Vec<Range<u32>>,
    },
    /// `DEALLOCATE [PREPARE] name`, `ALL` is `None`.
    Deallocate(Option<String>),
    /// `DECLARE name … CURSOR … FOR query`
    Declare {
        /// The cursor's name.
        name: String,
        /// `WITH HOLD`
        hold: bool,
    },
    /// `FETCH … FROM name`, `MOVE … FROM name`
    Fetch {
        /// The cursor's name.
        name: String,
    },
    /// `UPDATE … WHERE CURRENT OF name`, `DELETE … WHERE CURRENT OF name`
    OfCursor {
        /// The cursor's name.
        name: String,
        /// The table it writes.
        table: TableName,
    },
    /// `CLOSE name`, `ALL` is `None`.
    CloseCursor(Option<String>),
    /// `LISTEN channel`
    Listen(String),
    /// `NOTIFY channel`
    Notify(String),
    /// `UNLISTEN channel`, `*` is `None`.
    Unlisten(Option<String>),
    /// `LOCK TABLE …`
    Lock,
    /// `COPY …`
    Copy(CopyDirection),
    /// `EXPLAIN …`
    Explain {
        /// `ANALYZE`: the statement runs.
        analyze: bool,
    },
    /// What changes the schema: `CREATE`, `ALTER`, `DROP`, `TRUNCATE`, `GRANT`, `COMMENT`, … After it the session's
    /// view of the relations is out of date.
    Ddl,
    /// `CREATE TABLE AS` and `SELECT INTO` of rows of several shards.
    CreateAs,
    /// `SELECT create_distributed_table(…)` and its friends.
    Distribute,
    /// `VACUUM`, `ANALYZE`, `CHECKPOINT`, `CLUSTER`, `REINDEX`, …: no rows, no schema change.
    Maintenance,
    /// `DO`
    Do,
    /// `CALL`
    Call,
    /// No statement at all.
    Empty,
    /// Anything else, understood or not.
    Other,
}

impl Command {
    /// Whether it has places in its own text, blanks included: then it says nothing of a text that is spaced otherwise.
    #[must_use]
    pub fn has_places(&self) -> bool {
        matches!(self, Self::Prepare { .. } | Self::Execute { .. })
    }
}

/// Which way a `COPY` moves rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyDirection {
    /// `COPY … FROM STDIN`
    In,
    /// `COPY … TO STDOUT`
    Out,
    /// From or to a file or program of the server's.
    Server,
}

/// What `DISCARD` throws away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// Everything.
    All,
    /// Cached plans.
    Plans,
    /// Sequence state.
    Sequences,
    /// Temporary tables.
    Temp,
}

/// The value of a `SET`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetValue {
    /// The items of the list, quotes taken off, words folded to lower case as PostgreSQL does.
    pub items: Vec<String>,
}

/// The modes of a transaction; `None` where nothing was said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransactionModes {
    /// `ISOLATION LEVEL`
    pub isolation: Option<Isolation>,
    /// `READ ONLY` (true), `READ WRITE` (false)
    pub read_only: Option<bool>,
    /// `DEFERRABLE`
    pub deferrable: Option<bool>,
}

/// Isolation levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// `READ UNCOMMITTED`
    ReadUncommitted,
    /// `READ COMMITTED`
    ReadCommitted,
    /// `REPEATABLE READ`
    RepeatableRead,
    /// `SERIALIZABLE`
    Serializable,
}

impl Isolation {
    /// As it is called in SQL, and in `default_transaction_isolation`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ReadUncommitted => "READ UNCOMMITTED",
            Self::ReadCommitted => "READ COMMITTED",
            Self::RepeatableRead => "REPEATABLE READ",
            Self::Serializable => "SERIALIZABLE",
        }
    }
}
