//! What introspection found in a database, joined with what the configuration says of it.
//!
//! Purpose: the planner asks here what a name means: which relation, where its rows are, which column is the shard
//! key; what a function is and how volatile. Invariant: pure and immutable once built; whatever is not in here is
//! *unknown*, never assumed harmless. Collaborators: the topology runs the queries of [`introspect`] on a shard and
//! calls [`Relations::build`]; [`crate::plan`] reads.

mod build;
mod changes;
mod code;
#[cfg(test)]
pub(crate) mod fixture;
mod functions;
pub mod introspect;
mod keeps;
mod oids;
mod reading;
mod search_path;

use std::collections::HashMap;
use std::sync::Arc;

use switchyard_schema::{Collation, KeyMap, TableName};

pub use build::Problem;
pub use changes::{Changes, constant};
pub(crate) use code::words as words_of;
pub use functions::{Function, FunctionKind, Volatility};
pub(crate) use functions::{differs, is_moment, is_momentary, is_own, runs_text};
pub use introspect::Introspection;
pub use oids::{FIRST_USER_OID, OidMap, Oids, TypeName, USER_TYPES, USER_TYPES_VERSION, UserType};
pub use search_path::SearchPath;

/// What is found by a name: every statement that is planned looks for some.
type ByName<T> = HashMap<Box<str>, T, foldhash::fast::RandomState>;

/// The relations and functions of one database, as every shard has them.
#[derive(Debug, Default)]
pub struct Relations {
    shards: Vec<Box<str>>,
    schemas: ByName<ByName<Relation>>,
    functions: ByName<Vec<Function>>,
    sharded: bool,
    configured: Vec<TableName>,
    problems: Vec<Problem>,
    global_indexes: Arc<[GlobalIndex]>,
    /// The node that they were read on, whose numbers they have: servers number differently.
    pub(crate) read_on: Option<u32>,
}

/// What keeps a column of a sharded table unique on whatever shards its rows are: a sharded table of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalIndex {
    /// The table.
    pub table: TableName,
    /// Its column.
    pub column: String,
    /// The index.
    pub name: TableName,
}

/// A table, partitioned table, view, materialized view, foreign table or sequence.
#[derive(Debug, Clone)]
pub struct Relation {
    /// Schema and name.
    pub name: TableName,
    /// `pg_class.oid` on the first shard.
    pub oid: i64,
    /// What it is.
    pub kind: RelationKind,
    /// Where its rows are.
    pub placement: Placement,
    /// Its columns in order, dropped ones left out.
    pub columns: Vec<Column>,
    /// It has a unique index that lacks the shard key: uniqueness holds within a shard only.
    pub unique_without_key: bool,
    /// For a view: the most volatile function in it.
    pub volatility: Volatility,
    /// The columns of its primary key, in the key's order.
    pub primary_key: Vec<String>,
    /// A view's query, every name in it qualified.
    pub definition: Option<String>,
    /// Not replicated: only the primary can read it.
    pub unlogged: bool,
    /// What its triggers may do besides.
    pub triggers: Triggers,
    /// The tables whose rows change or go with its rows, by foreign keys.
    pub cascades: Vec<TableName>,
    /// A function that a trigger runs where it is truncated, and that touches what is not on the first shard, or would run on each.
    pub on_truncate: Option<String>,
    /// The same where it is truncated with the tables that refer to it.
    pub on_truncate_cascade: Option<String>,
    /// What its row security policies may touch.
    pub policies: Policies,
    /// Rules make other statements of those that write it.
    pub rewritten: bool,
    /// Rules make other statements of those that write it, which may reach rows that are not on the first shard only.
    pub rules: bool,
    /// Why an UPDATE cannot move its rows to other shards: what one server does with a row whose shard key changes, a shard that loses the
    /// row and another that gets it would not do.
    pub stays: Option<&'static str>,
    /// For a simple view: the table whose rows it shows.
    pub shows: Option<Shown>,
}

/// What a view shows that PostgreSQL writes through, and that has a row of one table for each of its rows, as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The table.
    pub table: TableName,
    /// Its columns that the view does not show, as an INSERT into the view stores them.
    pub hidden: Vec<Column>,
    /// Columns of the view that have defaults of their own: an UPDATE sets others to NULL by DEFAULT, not to the table's.
    pub defaults: Vec<String>,
}

/// What the triggers of a table may touch when a row is written: they run on the shard of the row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Triggers {
    /// Code that mentions sharded tables that are colocated with this one.
    pub beside: Vec<std::sync::Arc<str>>,
    /// What the first shard alone has: a table, a sequence, a function that is about such.
    pub unsharded: Option<String>,
    /// A sharded table that is not colocated with this one.
    pub elsewhere: Option<TableName>,
    /// A reference table, in code that writes.
    pub reference: Option<TableName>,
    /// Code that the router cannot see, or that makes values of the moment; the function's name.
    pub unseen: Option<String>,
    /// The names of functions whose results are not the same each time, in order.
    pub varying: Vec<String>,
    /// Some run once for a statement.
    pub each_statement: bool,
    /// The settings their code may change.
    pub changes: Changes,
    /// A function that may change the shard key of a row that is inserted, before it is stored.
    pub rekeys_inserted: Option<String>,
    /// The same of a row that is updated.
    pub rekeys_updated: Option<String>,
}

/// What the row security policies of a table may touch: they are applied on each shard to the rows there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    /// What they use of which another shard has other rows: a table, or a function that uses one.
    pub elsewhere: Option<String>,
    /// A function in them of which each shard would have a value of its own.
    pub varying: Option<String>,
}

/// What a relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    /// An ordinary or partitioned table.
    Table,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// A foreign table.
    Foreign,
    /// A sequence.
    Sequence,
}

/// Where a relation's rows are.
#[derive(Debug, Clone)]
pub enum Placement {
    /// Whole on every shard.
    Reference,
    /// Whole on the first shard.
    Unsharded,
    /// Each row on the shard its key says.
    Sharded(Sharding),
    /// PostgreSQL's own catalogue: every server answers for itself.
    Catalog,
    /// A view that reads a sharded table, directly or through other views and functions.
    ReadsSharded(TableName),
    /// The configuration and the servers disagree about it; the reason.
    Broken(String),
}

/// The shard key of a relation.
#[derive(Debug, Clone)]
pub struct Sharding {
    /// Position of the key in [`Relation::columns`].
    pub column: usize,
    /// From key to shard.
    pub map: Arc<KeyMap>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The name.
    pub name: String,
    /// The type's OID; of a domain, its base type's.
    pub type_oid: u32,
    /// The type's modifier, or -1.
    pub typmod: i32,
    /// NULL is refused.
    pub not_null: bool,
    /// How its strings are compared.
    pub collation: Collation,
    /// What an INSERT that leaves the column out stores.
    pub default: DefaultValue,
    /// The expression of its default, every name in it qualified.
    pub expression: Option<Box<str>>,
    /// Its type in SQL, if it is one of PostgreSQL's own of whose values arrays are made.
    pub sql_type: Option<SqlType>,
    /// Its type in SQL, with its modifier, if it is another one that reads from the text of a value just that value.
    pub text_type: Option<Box<str>>,
}

/// A column's type as SQL writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlType {
    /// The type's name, with its schema.
    pub name: Box<str>,
    /// What a column's definition has behind it: a modifier, a collation.
    pub suffix: Box<str>,
}

/// What an INSERT that leaves a column out stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// NULL.
    Absent,
    /// The same value everywhere.
    Immutable,
    /// A value computed from the row.
    Generated,
    /// A value that depends on the session or the time.
    Stable,
    /// The next value of a sequence, or what is made of it.
    Sequence,
    /// The next value of an identity column's sequence.
    Identity,
    /// What code of the user's makes, which may use tables, or what cannot be seen: where it runs matters.
    Elsewhere,
    /// A value of the moment, which all rows of a transaction share, or one made of such; nothing in it depends on the server otherwise.
    Moment,
    /// A value that each row has for itself, made by functions of PostgreSQL's that do no more.
    Own,
    /// Anything else.
    Volatile,
}

/// What a name means.
#[derive(Debug, Clone, Copy)]
pub enum Resolved<'a> {
    /// A relation.
    Known(&'a Relation),
    /// A relation of PostgreSQL's catalogue or of the information schema.
    Catalog,
    /// No relation known.
    Unknown,
}

impl Relations {
    /// The shards' names.
    pub fn shards(&self) -> &[Box<str>] {
        &self.shards
    }

    /// What configuration and servers disagree about.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Every global unique index.
    pub fn global_indexes(&self) -> &Arc<[GlobalIndex]> {
        &self.global_indexes
    }

    /// Whether any table is sharded.
    pub fn has_sharded(&self) -> bool {
        self.sharded
    }

    /// Whether the configuration places a table of that name, in whatever schema; it need not exist.
    pub fn is_configured(&self, name: &str) -> bool {
        self.configured.iter().any(|table| table.name == name)
    }

    /// Every relation, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Relation> {
        self.schemas.values().flat_map(HashMap::values)
    }

    /// The relation of that name.
    pub fn get(&self, schema: &str, name: &str) -> Option<&Relation> {
        self.schemas.get(schema)?.get(name)
    }

    /// What a name in a statement means, by PostgreSQL's rules for the search path.
    pub fn resolve<'a>(
        &'a self,
        path: &SearchPath,
        schema: Option<&str>,
        name: &str,
    ) -> Resolved<'a> {
        let look = |schema: &str| match self.get(schema, name) {
            Some(relation) => match relation.placement {
                Placement::Catalog => Resolved::Catalog,
                Placement::Reference
                | Placement::Unsharded
                | Placement::Sharded(_)
                | Placement::ReadsSharded(_)
                | Placement::Broken(_) => Resolved::Known(relation),
            },
            None if is_system_schema(schema)
                && (schema != "pg_catalog" || name.starts_with("pg_")) =>
            {
                Resolved::Catalog
            }
            None => Resolved::Unknown,
        };
        if let Some(schema) = schema {
            return if is_system_schema(schema) {
                Resolved::Catalog
            } else {
                look(schema)
            };
        }
        // Names that start with `pg_` and are not known may be the user's: ask the path's own schemas first.
        let known = |schema: &&str| self.get(schema, name).is_some();
        match path.schemas().find(known) {
            Some(schema) => look(schema),
            None if name.starts_with("pg_") => Resolved::Catalog,
            None => Resolved::Unknown,
        }
    }

    /// What a function name in a call may mean: every overload of that name the path can reach.
    pub fn functions<'a>(
        &'a self,
        path: &'a SearchPath,
        schema: Option<&'a str>,
        name: &str,
    ) -> impl Iterator<Item = &'a Function> {
        self.functions
            .get(name)
            .into_iter()
            .flatten()
            .filter(move |function| match schema {
                Some(schema) => *function.schema == *schema,
                None => path
                    .schemas()
                    .any(|reachable| reachable == &*function.schema),
            })
    }

    /// Every function with that name, in whatever schema.
    pub fn functions_named(&self, name: &str) -> &[Function] {
        self.functions.get(name).map_or(&[], Vec::as_slice)
    }

    /// The function with this number on the first shard, with its name.
    pub fn function_of(&self, oid: u32) -> Option<(&str, &Function)> {
        let mut all = self.functions.iter();
        all.find_map(|(name, functions)| {
            let function = functions
                .iter()
                .find(|function| function.oids.contains(&oid))?;
            Some((&**name, function))
        })
    }

    /// The table whose rows a relation shows: itself, or that of a simple view.
    pub fn table_of<'a>(&'a self, relation: &'a Relation) -> &'a Relation {
        let shown = relation.shows.as_ref().map(|shown| &shown.table);
        let table = shown.and_then(|table| self.get(&table.schema, &table.name));
        table.unwrap_or(relation)
    }

    /// Every relation with that name, in whatever schema.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &Relation> {
        self.schemas
            .values()
            .filter_map(move |relations| relations.get(name))
    }
}

impl Relation {
    /// The position of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The sharding, if its rows are on the shards their keys say.
    pub fn sharding(&self) -> Option<&Sharding> {
        match &self.placement {
            Placement::Sharded(sharding) => Some(sharding),
            Placement::Reference
            | Placement::Unsharded
            | Placement::Catalog
            | Placement::ReadsSharded(_)
            | Placement::Broken(_) => None,
        }
    }

    /// The key column, of a sharded relation.
    pub fn key_column(&self) -> Option<&Column> {
        self.columns.get(self.sharding()?.column)
    }

    /// Columns of the table behind a view that the view does not show: an INSERT stores their defaults.
    pub fn hidden(&self) -> &[Column] {
        self.shows.as_ref().map_or(&[], |shown| &shown.hidden)
    }

    /// Whether an UPDATE sets the column to its default by DEFAULT: by a view whose column has none of its own it is NULL.
    pub fn has_default_of_its_own(&self, column: &str) -> bool {
        let shown = self.shows.as_ref();
        shown.is_none_or(|shown| shown.defaults.iter().any(|name| name == column))
    }

    /// A column that a view does not show, if there is one whose default somebody must compute for the shards.
    pub fn hides_values(&self) -> Option<&Column> {
        let simple = |column: &&Column| {
            matches!(
                column.default,
                DefaultValue::Absent | DefaultValue::Immutable | DefaultValue::Generated
            )
        };
        self.hidden().iter().find(|column| !simple(column))
    }
}

/// Schemas whose relations are PostgreSQL's own.
pub(crate) fn is_system_schema(schema: &str) -> bool {
    matches!(schema, "pg_catalog" | "information_schema" | "pg_toast")
}
