//! The queries that read a shard's catalogue, and the rows they return.
//!
//! Run each query on one primary, map every row to the struct beside it by position, and hand the lot to
//! [`Relations::build`](super::Relations::build). Types are chosen so that any client library decodes them: `int8`, `int4`,
//! `bool` and `text`.

/// Everything introspection reads.
#[derive(Debug, Clone, Default)]
pub struct Introspection {
    /// Rows of [`RELATIONS`].
    pub relations: Vec<RelationRow>,
    /// Rows of [`COLUMNS`].
    pub columns: Vec<ColumnRow>,
    /// Rows of [`UNIQUE_INDEXES`].
    pub unique_indexes: Vec<UniqueIndexRow>,
    /// Rows of [`VIEW_USES`].
    pub view_uses: Vec<ViewUseRow>,
    /// Rows of [`FUNCTIONS`].
    pub functions: Vec<FunctionRow>,
    /// Rows of [`TRIGGERS`].
    pub triggers: Vec<TriggerRow>,
    /// Rows of [`FOREIGN_KEYS`].
    pub foreign_keys: Vec<ForeignKeyRow>,
    /// Rows of [`POLICIES`].
    pub policies: Vec<PolicyRow>,
    /// Rows of [`GLOBAL_INDEXES`].
    pub global_indexes: Vec<GlobalIndexRow>,
}

/// Relations; temporary ones are left out. Columns: oid int8, schema text, name text, kind text, parent int8 or NULL,
/// definition text or NULL, unlogged bool, rules bool, policies bool, updatable bool (a view that PostgreSQL inserts, updates
/// and deletes rows through by itself).
pub const RELATIONS: &str = "\
SELECT c.oid::pg_catalog.int8, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind::pg_catalog.text,
       (SELECT i.inhparent::pg_catalog.int8 FROM pg_catalog.pg_inherits i
         WHERE i.inhrelid = c.oid ORDER BY i.inhseqno LIMIT 1),
       CASE WHEN c.relkind IN ('v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
            THEN pg_catalog.pg_get_viewdef(c.oid) END,
       c.relpersistence = 'u',
       EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type <> '1' AND r.ev_enabled <> 'D'),
       c.relrowsecurity,
       CASE WHEN c.relkind = 'v' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
            THEN pg_catalog.pg_relation_is_updatable(c.oid, false) & 28 = 28 ELSE false END
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't' AND n.nspname <> 'pg_toast'";

/// One row of [`RELATIONS`].
#[derive(Debug, Clone)]
pub struct RelationRow {
    /// `pg_class.oid`
    pub oid: i64,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// `pg_class.relkind`
    pub kind: String,
    /// The table it is a partition or child of.
    pub parent: Option<i64>,
    /// A view's query.
    pub definition: Option<String>,
    /// Not replicated.
    pub unlogged: bool,
    /// It has rules for statements that write it.
    pub rules: bool,
    /// `pg_class.relrowsecurity`
    pub policies: bool,
    /// A view that PostgreSQL writes through by itself.
    pub updatable: bool,
}

/// Two columns: the type in SQL of an attribute `a` with type `t`, collation `l` in schema `s` and this modifier, NULL unless it is one
/// of PostgreSQL's own of whose values arrays are made; and what stands behind it, the modifier and the collation.
macro_rules! sql_type {
    ($modifier:literal) => {
        concat!(
            "CASE WHEN t.typtype IN ('b', 'r') AND t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace AND t.oid < 16384
             AND t.typarray <> 0 AND t.typcategory <> 'A' AND (t.typname <> 'interval' OR ",
            $modifier,
            " = -1)
            THEN 'pg_catalog.' OPERATOR(pg_catalog.||) pg_catalog.quote_ident(t.typname) END,
       CASE WHEN ",
            $modifier,
            " = -1 THEN ''
            ELSE coalesce(pg_catalog.substring(pg_catalog.format_type(a.atttypid, ",
            $modifier,
            "), '[(][-0-9,]+[)]'), '') END
       OPERATOR(pg_catalog.||)
       CASE WHEN a.attcollation = t.typcollation THEN ''
            ELSE ' COLLATE ' OPERATOR(pg_catalog.||) pg_catalog.quote_ident(s.nspname)
                 OPERATOR(pg_catalog.||) '.' OPERATOR(pg_catalog.||) pg_catalog.quote_ident(l.collname) END"
        )
    };
}

/// The columns of a temporary table, in order, as they are if their types have the modifiers in `{modifiers}`, an array in SQL. One
/// column, text: type in SQL or nothing, its suffix, the same as `ALTER TABLE` takes it if it is not the column's, and the whole type, whatever it is, separated by tabs.
/// A domain takes no modifier: it has its base type's.
pub const TEMPORARY_COLUMNS: &str = concat!(
    "\
SELECT pg_catalog.concat_ws(E'\\t', coalesce(k.name, ''), coalesce(k.suffix, ''),
           CASE WHEN k.modifier <> k.atttypmod AND k.typtype <> 'd'
                THEN pg_catalog.concat('ALTER ', pg_catalog.quote_ident(k.attname), ' TYPE ',
                                       pg_catalog.format_type(k.atttypid, k.modifier),
                                       pg_catalog.substring(k.suffix, ' COLLATE .*')) ELSE '' END,
           pg_catalog.concat(pg_catalog.format_type(k.atttypid, CASE WHEN k.typtype = 'd' THEN -1 ELSE k.modifier END),
                             pg_catalog.substring(k.suffix, ' COLLATE .*')))
  FROM (SELECT a.attnum, a.attname, a.atttypid, a.atttypmod, t.typtype, m.modifier,
               ",
    sql_type!("m.modifier"),
    "
          FROM pg_catalog.pg_attribute a
          JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
          LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
          LEFT JOIN pg_catalog.pg_namespace s ON s.oid = l.collnamespace
          JOIN pg_catalog.unnest({modifiers}::pg_catalog.int4[]) WITH ORDINALITY AS m (modifier, number) ON m.number = a.attnum
         WHERE a.attrelid = {table}::pg_catalog.regclass) AS k (attnum, attname, atttypid, atttypmod, typtype, modifier, name,
                                                                           suffix)
 ORDER BY k.attnum"
);

/// Types with modifiers, `{oids}` and `{modifiers}`, both arrays in SQL: one line for each, like those of [`TEMPORARY_COLUMNS`], with a type in
/// SQL only of those that have no collation.
pub const PLAIN_TYPES: &str = concat!(
    "\
SELECT pg_catalog.string_agg(pg_catalog.concat_ws(E'\\t', CASE WHEN k.collates THEN '' ELSE coalesce(k.name, '') END, coalesce(k.suffix, ''), '', ''),
                             E'\\n' ORDER BY k.number)
  FROM (SELECT a.number, t.typcollation <> 0,
               ",
    sql_type!("a.modifier"),
    "
          FROM (SELECT u.*, 0::pg_catalog.oid AS attcollation
                  FROM ROWS FROM (pg_catalog.unnest({oids}::pg_catalog.oid[]), pg_catalog.unnest({modifiers}::pg_catalog.int4[]))
                  WITH ORDINALITY AS u (atttypid, modifier, number)) AS a
          JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
          LEFT JOIN pg_catalog.pg_collation l ON false
          LEFT JOIN pg_catalog.pg_namespace s ON false) AS k (number, collates, name, suffix)"
);

/// Columns of user relations in order. Columns: relation int8, number int4, name text, type int8 (a domain's base type),
/// typmod int4, not null bool, collation text ('' if none, 'C' for the byte-wise ones, '?' for nondeterministic ones; of
/// the C library's locales those of the code points' order, and all that PostgreSQL 17 and later bring along),
/// default text or NULL, identity bool, generated bool, type in SQL text or NULL, its suffix text, and the whole type in SQL or NULL:
/// of those that can be given as texts. Texts of floats, of times with a zone and of intervals depend on settings, so that they may
/// not be read as what they were.
pub const COLUMNS: &str = concat!(
    "\
WITH RECURSIVE base (oid, type, typmod) AS (
    SELECT t.oid, t.oid, -1 FROM pg_catalog.pg_type t WHERE t.typtype <> 'd'
    UNION ALL
    SELECT d.oid, b.type, CASE WHEN d.typtypmod = -1 THEN b.typmod ELSE d.typtypmod END
      FROM pg_catalog.pg_type d JOIN base b ON d.typtype = 'd' AND d.typbasetype = b.oid)
SELECT a.attrelid::pg_catalog.int8, a.attnum::pg_catalog.int4, a.attname::pg_catalog.text, b.type::pg_catalog.int8,
       CASE WHEN a.atttypmod = -1 THEN b.typmod ELSE a.atttypmod END,
       a.attnotnull OR t.typnotnull,
       CASE WHEN a.attcollation = 0 THEN ''
            WHEN NOT l.collisdeterministic THEN '?'
            WHEN CASE WHEN l.collprovider = 'd' THEN d.provider ELSE l.collprovider::pg_catalog.text END = 'b' THEN 'C'
            WHEN CASE WHEN l.collprovider = 'd' THEN d.provider ELSE l.collprovider::pg_catalog.text END = 'c'
             AND CASE WHEN l.collprovider = 'd' THEN d.datcollate ELSE l.collcollate END IN ('C', 'POSIX', 'C.UTF-8', 'C.utf8') THEN 'C'
            ELSE l.collname::pg_catalog.text END,
       CASE WHEN a.attgenerated = '' THEN coalesce(pg_catalog.pg_get_expr(f.adbin, f.adrelid),
                                                   CASE WHEN t.typtype = 'd' THEN pg_catalog.pg_get_expr(t.typdefaultbin, 0) END)
            ELSE NULL END,
       a.attidentity <> '', a.attgenerated <> '',
       ", sql_type!("a.atttypmod"), ",
       CASE WHEN e.typtype = 'e'
              OR e.typtype = 'b' AND e.oid NOT IN (700, 701, 790, 1184, 1266)
             AND (e.typcategory IN ('S', 'B', 'N', 'D', 'I', 'V') OR e.typcategory = 'U' AND e.oid < 16384)
            THEN pg_catalog.format_type(a.atttypid, CASE WHEN t.typtype = 'd' THEN -1 ELSE a.atttypmod END) END
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  JOIN base b ON b.oid = a.atttypid
  JOIN pg_catalog.pg_type r ON r.oid = b.type
  JOIN pg_catalog.pg_type e ON e.oid = CASE WHEN r.typcategory = 'A' AND r.typelem <> 0 THEN r.typelem ELSE r.oid END
  JOIN (SELECT datcollate::pg_catalog.text,
               coalesce(pg_catalog.to_jsonb(pg_database) OPERATOR(pg_catalog.->>) 'datlocprovider', 'c') AS provider
          FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) d ON true
  LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
  LEFT JOIN pg_catalog.pg_namespace s ON s.oid = l.collnamespace
  LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
 WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND c.relpersistence <> 't'
 ORDER BY a.attrelid, a.attnum"
);

/// One row of [`COLUMNS`].
#[derive(Debug, Clone)]
pub struct ColumnRow {
    /// The relation's oid.
    pub relation: i64,
    /// `pg_attribute.attnum`
    pub number: i32,
    /// Name.
    pub name: String,
    /// Type, of a domain its base type.
    pub type_oid: i64,
    /// Type modifier or -1.
    pub typmod: i32,
    /// NULL is refused.
    pub not_null: bool,
    /// Collation: empty, `C`, `?` (nondeterministic) or its name.
    pub collation: String,
    /// The default expression.
    pub default: Option<String>,
    /// An identity column.
    pub identity: bool,
    /// A generated column.
    pub generated: bool,
    /// Its type as SQL names it, if it is one of PostgreSQL's own that is no array.
    pub sql_type: Option<String>,
    /// What follows that name: the modifier, and the collation if it is not the type's.
    pub sql_suffix: String,
    /// Its type in SQL, if it is another one whose texts are exact.
    pub text_type: Option<String>,
}

/// Unique indexes and exclusion constraints of user tables. Columns: relation int8, column numbers text
/// (blank-separated, 0 for an expression), primary bool.
pub const UNIQUE_INDEXES: &str = "\
SELECT i.indrelid::pg_catalog.int8, i.indkey::pg_catalog.text, i.indisprimary
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE (i.indisunique OR i.indisexclusion) AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND c.relpersistence <> 't'";

/// One row of [`UNIQUE_INDEXES`].
#[derive(Debug, Clone)]
pub struct UniqueIndexRow {
    /// The relation's oid.
    pub relation: i64,
    /// `pg_index.indkey`
    pub columns: String,
    /// It is the primary key's.
    pub primary: bool,
}

/// What views use directly. Columns: view int8, relation int8 or NULL, function int8 or NULL.
pub const VIEW_USES: &str = "\
SELECT DISTINCT r.ev_class::pg_catalog.int8,
       CASE WHEN d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass THEN d.refobjid::pg_catalog.int8 END,
       CASE WHEN d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass THEN d.refobjid::pg_catalog.int8 END
  FROM pg_catalog.pg_rewrite r
  JOIN pg_catalog.pg_depend d
    ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
 WHERE d.refclassid IN ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass)
   AND NOT (d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = r.ev_class)";

/// One row of [`VIEW_USES`].
#[derive(Debug, Clone)]
pub struct ViewUseRow {
    /// The view's oid (or that of a table with a rule).
    pub view: i64,
    /// A relation it reads.
    pub relation: Option<i64>,
    /// A function it calls.
    pub function: Option<i64>,
}

/// Functions. Columns: oid int8, schema text, name text, kind text, volatility text, language text, source text or NULL
/// (NULL for built-in and C functions, and those of the router), fixed bool, returns_set bool.
pub const FUNCTIONS: &str = "\
SELECT p.oid::pg_catalog.int8, n.nspname::pg_catalog.text, p.proname::pg_catalog.text, p.prokind::pg_catalog.text,
       p.provolatile::pg_catalog.text, l.lanname::pg_catalog.text,
       CASE WHEN l.lanname IN ('internal', 'c') OR p.prokind = 'a' OR n.nspname IN ('pg_catalog', 'information_schema', 'switchyard') THEN NULL
            ELSE coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc) END,
       p.prosqlbody IS NOT NULL OR p.proconfig IS NOT NULL OR p.prosecdef, p.proretset
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang";

/// One row of [`FUNCTIONS`].
#[derive(Debug, Clone)]
pub struct FunctionRow {
    /// `pg_proc.oid`
    pub oid: i64,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// `pg_proc.prokind`
    pub kind: String,
    /// `pg_proc.provolatile`
    pub volatility: String,
    /// Language.
    pub language: String,
    /// Its code.
    pub source: Option<String>,
    /// The code's names were resolved when it was made, or it has settings or rights of its own.
    pub fixed: bool,
    /// `pg_proc.proretset`
    pub returns_set: bool,
}

/// Triggers of users, enabled ones, without those that keep global unique indexes. Columns: relation int8, function int8, for each row bool, before bool, of INSERT bool, of UPDATE bool,
/// of INSERT, UPDATE or DELETE bool, of TRUNCATE bool, definition text or NULL (NULL if it has no condition).
pub const TRIGGERS: &str = "\
SELECT t.tgrelid::pg_catalog.int8, t.tgfoid::pg_catalog.int8, t.tgtype & 1 = 1, t.tgtype & 2 = 2, t.tgtype & 4 = 4, t.tgtype & 16 = 16,
       t.tgtype & 28 <> 0, t.tgtype & 32 = 32, CASE WHEN t.tgqual IS NOT NULL THEN pg_catalog.pg_get_triggerdef(t.oid) END
  FROM pg_catalog.pg_trigger t
 WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgname NOT LIKE 'switchyard\\_%:%'";

/// One row of [`TRIGGERS`].
#[derive(Debug, Clone)]
pub struct TriggerRow {
    /// The relation's oid.
    pub relation: i64,
    /// The oid of the function it runs.
    pub function: i64,
    /// It runs for each row, and not once for a statement.
    pub each_row: bool,
    /// It runs before the row is written.
    pub before: bool,
    /// It runs where rows are inserted.
    pub on_insert: bool,
    /// It runs where rows are updated.
    pub on_update: bool,
    /// It runs where rows are inserted, updated or deleted.
    pub on_rows: bool,
    /// It runs where the table is truncated.
    pub on_truncate: bool,
    /// Its definition, if that has a condition.
    pub condition: Option<String>,
}

/// Foreign keys. Columns: the referring table int8, the one that is referred to int8, `pg_constraint.confupdtype` text,
/// `pg_constraint.confdeltype` text.
pub const FOREIGN_KEYS: &str = "\
SELECT f.conrelid::pg_catalog.int8, f.confrelid::pg_catalog.int8, f.confupdtype::pg_catalog.text, f.confdeltype::pg_catalog.text
  FROM pg_catalog.pg_constraint f
 WHERE f.contype = 'f'";

/// One row of [`FOREIGN_KEYS`].
#[derive(Debug, Clone)]
pub struct ForeignKeyRow {
    /// The oid of the table whose rows refer to others.
    pub from: i64,
    /// The oid of the table that they refer to.
    pub to: i64,
    /// What becomes of them when those are updated: `pg_constraint.confupdtype`.
    pub on_update: String,
    /// And when those are deleted: `pg_constraint.confdeltype`.
    pub on_delete: String,
}

/// Global unique indexes, by the triggers that keep them. Columns: the table int8, the index's schema text, its name text, the column
/// text.
pub const GLOBAL_INDEXES: &str = "\
SELECT t.tgrelid::pg_catalog.int8, n.nspname::pg_catalog.text, i.relname::pg_catalog.text, a.attname::pg_catalog.text
  FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_class i ON i.relnamespace = p.pronamespace
       AND t.tgname = pg_catalog.concat('switchyard_rows:', i.relname) AND p.proname = pg_catalog.concat(i.relname, '_record')
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.oid AND a.attnum = 1
 WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'";

/// One row of [`GLOBAL_INDEXES`].
#[derive(Debug, Clone)]
pub struct GlobalIndexRow {
    /// The oid of the table.
    pub relation: i64,
    /// The index's schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The column of the table.
    pub column: String,
}

/// Row security policies in force. Columns: the table int8, its conditions text.
pub const POLICIES: &str = "\
SELECT p.polrelid::pg_catalog.int8,
       pg_catalog.concat_ws(' ', pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))
  FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
 WHERE c.relrowsecurity";

/// One row of [`POLICIES`].
#[derive(Debug, Clone)]
pub struct PolicyRow {
    /// The table's oid.
    pub relation: i64,
    /// Its conditions, of PostgreSQL's printing.
    pub conditions: String,
}
