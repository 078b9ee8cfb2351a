//! Reads a shard's catalogue into [`Introspection`].
//!
//! Collaborators: the queries and rows belong to [`crate::relations`]; the control thread says when.

use super::link::{Link, LinkError, TextRow};
use crate::backend::Connection;
use crate::relations::introspect::{
    COLUMNS, ColumnRow, FOREIGN_KEYS, FUNCTIONS, ForeignKeyRow, FunctionRow, GLOBAL_INDEXES,
    GlobalIndexRow, POLICIES, PolicyRow, RELATIONS, RelationRow, TRIGGERS, TriggerRow,
    UNIQUE_INDEXES, UniqueIndexRow, VIEW_USES, ViewUseRow,
};
use crate::relations::{Introspection, TypeName, USER_TYPES, UserType};

/// Something that changes whenever what [`introspect`] reads may have changed, and is cheap to ask for.
/// Built-in objects and temporary ones are left out, and so is what changes when rows are rewritten only.
const FINGERPRINT: &str = "\
WITH class AS (
    SELECT c.oid, c.relnamespace, c.relname, c.relkind, c.relpersistence, c.relrowsecurity FROM pg_catalog.pg_class c
     WHERE c.oid >= 16384 AND c.relpersistence <> 't' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'i', 'I')),
versions (kind, object, version) AS (
    SELECT 'class', c.oid, c.relnamespace || '.' || c.relname || c.relkind::text || c.relpersistence::text || c.relrowsecurity::text
      FROM class c
    UNION ALL
    SELECT 'attribute', c.oid, a.attnum || '.' || a.xmin::text
      FROM pg_catalog.pg_attribute a JOIN class c ON c.oid = a.attrelid WHERE a.attnum > 0
    UNION ALL
    SELECT 'default', d.oid, d.xmin::text FROM pg_catalog.pg_attrdef d JOIN class c ON c.oid = d.adrelid
    UNION ALL
    SELECT 'rule', r.oid, r.xmin::text FROM pg_catalog.pg_rewrite r JOIN class c ON c.oid = r.ev_class
    UNION ALL
    SELECT 'trigger', t.oid, t.xmin::text
      FROM pg_catalog.pg_trigger t JOIN class c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
    UNION ALL
    SELECT 'policy', p.oid, p.xmin::text FROM pg_catalog.pg_policy p
    UNION ALL
    SELECT 'foreign key', f.oid, f.xmin::text FROM pg_catalog.pg_constraint f WHERE f.contype = 'f'
    UNION ALL
    SELECT 'inherits', c.oid, i.inhparent || '.' || i.inhseqno
      FROM pg_catalog.pg_inherits i JOIN class c ON c.oid = i.inhrelid
    UNION ALL
    SELECT 'index', i.indrelid, i.indexrelid || '.' || i.indkey::text || i.indisunique::text
      FROM pg_catalog.pg_index i JOIN class c ON c.oid = i.indrelid
    UNION ALL
    SELECT 'domain', t.oid, t.xmin::text FROM pg_catalog.pg_type t WHERE t.oid >= 16384 AND t.typtype = 'd'
    UNION ALL
    SELECT 'function', p.oid, p.xmin::text FROM pg_catalog.pg_proc p WHERE p.oid >= 16384
    UNION ALL
    SELECT 'namespace', n.oid, n.nspname::text FROM pg_catalog.pg_namespace n WHERE n.nspname !~ '^pg_(toast_)?temp_')
SELECT pg_catalog.count(*), pg_catalog.md5(pg_catalog.string_agg(
       v.kind || ':' || v.object || ':' || v.version, ',' ORDER BY v.kind, v.object, v.version)) FROM versions v";

/// What a server said of its catalogue's version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(TextRow);

/// Asks for the version of a server's catalogue.
///
/// # Errors
/// [`LinkError`].
pub async fn fingerprint(link: &mut Link) -> Result<Fingerprint, LinkError> {
    let mut rows = link.ask(FINGERPRINT).await?;
    rows.pop()
        .map(Fingerprint)
        .ok_or(LinkError::Unexpected("its catalogue's version"))
}

/// Reads a server's catalogue, all of it as of one moment.
///
/// # Errors
/// [`LinkError`].
pub async fn introspect(link: &mut Link) -> Result<Introspection, LinkError> {
    link.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    link.ask("SET LOCAL search_path TO ''").await?;
    let found = read(link).await;
    // Also ends a failed transaction, so that the link can be used again.
    link.ask("COMMIT").await?;
    found
}

/// Reads the catalogue as the transaction block that the connection is in sees it.
///
/// # Errors
/// [`LinkError`]; the block goes on if the server refused something.
pub async fn introspect_within(connection: &mut Connection) -> Result<Introspection, LinkError> {
    connection.ask("SAVEPOINT \"switchyard relations\"").await?;
    let found = match connection.ask("SET LOCAL search_path TO ''").await {
        Ok(_) => read(connection).await,
        Err(error) => Err(error),
    };
    // It takes back the search path, too.
    let ends = ["ROLLBACK TO SAVEPOINT", "RELEASE SAVEPOINT"];
    for end in ends {
        let sql = format!("{end} \"switchyard relations\"");
        connection.ask(&sql).await?;
    }
    found
}

/// Reads the types that users have made on a server, or in the transaction block that the connection is in.
///
/// # Errors
/// [`LinkError`].
pub(crate) async fn user_types(connection: &mut Connection) -> Result<Vec<UserType>, LinkError> {
    types_of(connection.simple_query(USER_TYPES).await?)
}

/// The rows of [`USER_TYPES`].
///
/// # Errors
/// [`LinkError::Unexpected`].
pub(crate) fn types_of(rows: Vec<TextRow>) -> Result<Vec<UserType>, LinkError> {
    all(rows, user_type).ok_or(LinkError::Unexpected("types"))
}

/// What answers questions.
trait Asked {
    async fn ask(&mut self, sql: &str) -> Result<Vec<TextRow>, LinkError>;
}

impl Asked for Link {
    async fn ask(&mut self, sql: &str) -> Result<Vec<TextRow>, LinkError> {
        Link::ask(self, sql).await
    }
}

impl Asked for Connection {
    async fn ask(&mut self, sql: &str) -> Result<Vec<TextRow>, LinkError> {
        Ok(self.simple_query(sql).await?)
    }
}

async fn read(link: &mut impl Asked) -> Result<Introspection, LinkError> {
    let relations = link.ask(RELATIONS).await?;
    let columns = link.ask(COLUMNS).await?;
    let unique_indexes = link.ask(UNIQUE_INDEXES).await?;
    let view_uses = link.ask(VIEW_USES).await?;
    let functions = link.ask(FUNCTIONS).await?;
    let triggers = link.ask(TRIGGERS).await?;
    let foreign_keys = link.ask(FOREIGN_KEYS).await?;
    let policies = link.ask(POLICIES).await?;
    let global_indexes = link.ask(GLOBAL_INDEXES).await?;
    Ok(Introspection {
        relations: all(relations, relation).ok_or(LinkError::Unexpected("relations"))?,
        columns: all(columns, column).ok_or(LinkError::Unexpected("columns"))?,
        unique_indexes: all(unique_indexes, unique_index)
            .ok_or(LinkError::Unexpected("indexes"))?,
        view_uses: all(view_uses, view_use).ok_or(LinkError::Unexpected("views"))?,
        functions: all(functions, function).ok_or(LinkError::Unexpected("functions"))?,
        triggers: all(triggers, trigger).ok_or(LinkError::Unexpected("triggers"))?,
        foreign_keys: all(foreign_keys, foreign_key)
            .ok_or(LinkError::Unexpected("foreign keys"))?,
        policies: all(policies, policy).ok_or(LinkError::Unexpected("policies"))?,
        global_indexes: all(global_indexes, global_index)
            .ok_or(LinkError::Unexpected("global indexes"))?,
    })
}

/// The values of one row, taken in order.
struct Values(std::vec::IntoIter<Option<String>>);

impl Values {
    fn optional(&mut self) -> Option<Option<String>> {
        self.0.next()
    }

    fn text(&mut self) -> Option<String> {
        self.0.next()?
    }

    fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        self.text()?.parse().ok()
    }

    fn optional_number<T: std::str::FromStr>(&mut self) -> Option<Option<T>> {
        match self.optional()? {
            Some(text) => text.parse().ok().map(Some),
            None => Some(None),
        }
    }

    fn flag(&mut self) -> Option<bool> {
        match self.text()?.as_str() {
            "t" => Some(true),
            "f" => Some(false),
            _ => None,
        }
    }
}

fn all<T>(rows: Vec<TextRow>, read: fn(&mut Values) -> Option<T>) -> Option<Vec<T>> {
    rows.into_iter()
        .map(|row| read(&mut Values(row.into_iter())))
        .collect()
}

fn relation(row: &mut Values) -> Option<RelationRow> {
    Some(RelationRow {
        oid: row.number()?,
        schema: row.text()?,
        name: row.text()?,
        kind: row.text()?,
        parent: row.optional_number()?,
        definition: row.optional()?,
        unlogged: row.flag()?,
        rules: row.flag()?,
        policies: row.flag()?,
        updatable: row.flag()?,
    })
}

fn column(row: &mut Values) -> Option<ColumnRow> {
    Some(ColumnRow {
        relation: row.number()?,
        number: row.number()?,
        name: row.text()?,
        type_oid: row.number()?,
        typmod: row.number()?,
        not_null: row.flag()?,
        collation: row.text()?,
        default: row.optional()?,
        identity: row.flag()?,
        generated: row.flag()?,
        sql_type: row.optional()?,
        sql_suffix: row.text()?,
        text_type: row.optional()?,
    })
}

fn unique_index(row: &mut Values) -> Option<UniqueIndexRow> {
    Some(UniqueIndexRow {
        relation: row.number()?,
        columns: row.text()?,
        primary: row.flag()?,
    })
}

fn view_use(row: &mut Values) -> Option<ViewUseRow> {
    Some(ViewUseRow {
        view: row.number()?,
        relation: row.optional_number()?,
        function: row.optional_number()?,
    })
}

fn trigger(row: &mut Values) -> Option<TriggerRow> {
    Some(TriggerRow {
        relation: row.number()?,
        function: row.number()?,
        each_row: row.flag()?,
        before: row.flag()?,
        on_insert: row.flag()?,
        on_update: row.flag()?,
        on_rows: row.flag()?,
        on_truncate: row.flag()?,
        condition: row.optional()?,
    })
}

fn foreign_key(row: &mut Values) -> Option<ForeignKeyRow> {
    Some(ForeignKeyRow {
        from: row.number()?,
        to: row.number()?,
        on_update: row.text()?,
        on_delete: row.text()?,
    })
}

fn function(row: &mut Values) -> Option<FunctionRow> {
    Some(FunctionRow {
        oid: row.number()?,
        schema: row.text()?,
        name: row.text()?,
        kind: row.text()?,
        volatility: row.text()?,
        language: row.text()?,
        source: row.optional()?,
        fixed: row.flag()?,
        returns_set: row.flag()?,
    })
}

fn policy(row: &mut Values) -> Option<PolicyRow> {
    Some(PolicyRow {
        relation: row.number()?,
        conditions: row.text()?,
    })
}

fn global_index(row: &mut Values) -> Option<GlobalIndexRow> {
    Some(GlobalIndexRow {
        relation: row.number()?,
        schema: row.text()?,
        name: row.text()?,
        column: row.text()?,
    })
}

fn user_type(row: &mut Values) -> Option<UserType> {
    Some(UserType {
        oid: row.number()?,
        name: TypeName {
            qualified: row.text()?.into(),
            is_array: row.flag()?,
        },
        relation: row.number()?,
    })
}
