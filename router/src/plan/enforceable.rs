//! What constraints cannot hold across shards: those that a shard would have to see others' rows for.
//!
//! PostgreSQL is the analyser: after a change of the schema the first shard, in the same transaction, is asked what in its
//! catalogue is new and cannot be enforced ([`query`]), and the answer is told as a refusal ([`refusal`]).

use std::fmt::Write;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use switchyard_schema::{Database, Distribution, Table, TableName};

use super::refusal::Refusal;

/// The group of reference tables: whole on every shard.
const REFERENCE: i32 = -1;

/// Asks for what is new and cannot be enforced: one column, with the kind, the table, the constraint, and what else there is
/// to say, behind tabs. `None` where every table is unsharded.
pub(crate) fn query(database: &Database) -> Option<String> {
    let mut configured = String::new();
    for table in &database.tables {
        let (key, group) = match &table.distribution {
            Distribution::Reference => ("NULL".to_owned(), REFERENCE),
            Distribution::Sharded(key) => (escape_literal(&key.column), group(database, table)),
        };
        let separator = if configured.is_empty() { "" } else { ", " };
        let (schema, name) = (&table.name.schema, &table.name.name);
        // Writing to a string does not fail.
        let _ = write!(
            configured,
            "{separator}({}, {}, {key}, {group})",
            escape_literal(schema),
            escape_literal(name)
        );
    }
    (!configured.is_empty()).then(|| QUERY.replace("$CONFIGURED", &configured))
}

/// Asks for what there is of this table, new or not: it is about to be what `database` says of it.
pub(crate) fn query_of(database: &Database, table: &TableName) -> Option<String> {
    let query = query(database)?;
    let name = format!(
        "{}.{}",
        escape_identifier(&table.schema),
        escape_identifier(&table.name)
    );
    let tree = format!(
        "(SELECT {literal}::pg_catalog.regclass::pg_catalog.oid UNION
         SELECT relid FROM pg_catalog.pg_partition_tree({literal}::pg_catalog.regclass))",
        literal = escape_literal(&name)
    );
    let is_new = |version: &str| format!("pg_catalog.age({version}) <= began.age");
    let query = query
        .replace(&is_new("c.xmin"), &format!("c.oid IN {tree}"))
        .replace(&is_new("i.xmin"), &format!("i.indrelid IN {tree}"));
    let foreign = format!("(f.conrelid IN {tree} OR f.confrelid IN {tree})");
    Some(query.replace(&is_new("f.xmin"), &foreign))
}

/// Tables with the same number are colocated if their keys' types are the same.
fn group(database: &Database, table: &Table) -> i32 {
    let method = |table: &Table| match &table.distribution {
        Distribution::Sharded(key) => Some(key.method.clone()),
        Distribution::Reference => None,
    };
    let own = method(table);
    let first = database
        .tables
        .iter()
        .position(|other| method(other) == own);
    first
        .and_then(|at| i32::try_from(at).ok())
        .unwrap_or(REFERENCE)
}

/// What is new has been written by this transaction, or one that began later.
const QUERY: &str = "\
WITH RECURSIVE configured (schema, name, key, colocation) AS (VALUES $CONFIGURED),
placed AS (
    SELECT c.oid, k.key, k.colocation
    FROM configured k JOIN pg_catalog.pg_namespace n ON n.nspname = k.schema
         JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = k.name AND c.relkind IN ('r', 'p')
    UNION
    SELECT i.inhrelid, p.key, p.colocation FROM placed p JOIN pg_catalog.pg_inherits i ON i.inhparent = p.oid),
began AS (SELECT pg_catalog.age(pg_catalog.pg_current_xact_id()::pg_catalog.xid) AS age)
SELECT pg_catalog.concat_ws(E'\\t', 'key', c.relname, '', p.key)
FROM began, placed p JOIN pg_catalog.pg_class c ON c.oid = p.oid
WHERE p.colocation >= 0 AND pg_catalog.age(c.xmin) <= began.age
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                  WHERE a.attrelid = p.oid AND a.attname = p.key AND a.attnum > 0 AND NOT a.attisdropped)
UNION ALL
SELECT pg_catalog.concat_ws(E'\\t', CASE WHEN i.indisunique THEN 'unique' ELSE 'exclusion' END, t.relname, c.relname, p.key,
       (SELECT a.attname FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND i.indisunique AND i.indnkeyatts = 1 AND i.indpred IS NULL))
FROM began, placed p JOIN pg_catalog.pg_index i ON i.indrelid = p.oid
     JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_class t ON t.oid = p.oid
WHERE p.colocation >= 0 AND (i.indisunique OR i.indisexclusion) AND pg_catalog.age(i.xmin) <= began.age
  AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_attribute a
         JOIN pg_catalog.generate_series(0, i.indnkeyatts - 1) AS place ON i.indkey[place] = a.attnum
    WHERE a.attrelid = p.oid AND a.attname = p.key
      AND (i.indisunique OR 'pg_catalog.=' = (
        SELECT o.oprnamespace::pg_catalog.regnamespace || '.' || o.oprname
        FROM pg_catalog.pg_constraint e JOIN pg_catalog.pg_operator o ON o.oid = e.conexclop[place + 1]
        WHERE e.conindid = i.indexrelid AND e.contype = 'x')))
UNION ALL
SELECT pg_catalog.concat_ws(E'\\t', 'foreign', t.relname, f.conname, r.relname,
                            CASE WHEN parent.oid IS NULL THEN 'unsharded' WHEN child.colocation >= 0 THEN 'sharded' ELSE 'whole' END)
FROM began, pg_catalog.pg_constraint f
     JOIN pg_catalog.pg_class t ON t.oid = f.conrelid JOIN pg_catalog.pg_class r ON r.oid = f.confrelid
     LEFT JOIN placed child ON child.oid = f.conrelid LEFT JOIN placed parent ON parent.oid = f.confrelid
WHERE f.contype = 'f' AND pg_catalog.age(f.xmin) <= began.age AND (child.oid IS NOT NULL OR parent.oid IS NOT NULL)
  AND parent.colocation IS DISTINCT FROM -1
  AND NOT coalesce(child.colocation >= 0 AND child.colocation = parent.colocation AND EXISTS (
    SELECT FROM ROWS FROM (pg_catalog.unnest(f.conkey), pg_catalog.unnest(f.confkey)) AS pair (own, other)
         JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = pair.own AND a.attname = child.key
         JOIN pg_catalog.pg_attribute b ON b.attrelid = f.confrelid AND b.attnum = pair.other AND b.attname = parent.key
    WHERE a.atttypid = b.atttypid), false)
UNION ALL
SELECT pg_catalog.concat_ws(E'\\t', 'follows', t.relname, f.conname, child.key)
FROM began, pg_catalog.pg_constraint f JOIN pg_catalog.pg_class t ON t.oid = f.conrelid
     JOIN placed child ON child.oid = f.conrelid AND child.colocation >= 0
     JOIN placed parent ON parent.oid = f.confrelid
     JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attname = child.key AND a.attnum = ANY (f.conkey)
WHERE f.contype = 'f' AND pg_catalog.age(f.xmin) <= began.age
  AND (f.confupdtype IN ('n', 'd') OR f.confupdtype = 'c' AND parent.colocation = -1
       OR f.confdeltype IN ('n', 'd')
          AND coalesce(nullif(pg_catalog.to_jsonb(f) -> 'confdelsetcols', 'null') @> pg_catalog.to_jsonb(a.attnum), true))
LIMIT 1";

/// The refusal of uniqueness without the shard key.
pub(crate) fn without_key(table: &str, constraint: &str, key: &str) -> Refusal {
    refusal(&format!("unique\t{table}\t{constraint}\t{key}"))
}

/// The refusal that a row of [`query`] means.
pub(crate) fn refusal(row: &str) -> Refusal {
    let mut parts = row.split('\t');
    let mut next = || parts.next().unwrap_or_default();
    let (kind, table, constraint, other, how) = (next(), next(), next(), next(), next());
    let cannot = |what: &str| {
        Refusal::certain(
            "0A000",
            format!("{what} \"{constraint}\" of table \"{table}\" cannot hold across shards"),
        )
    };
    match (kind, how) {
        ("key", _) => Refusal::certain(
            "0A000",
            format!("table \"{table}\" has no column \"{other}\", which is its shard key"),
        )
        .hint("The shard key is in the router's configuration."),
        ("foreign", "unsharded") => cannot("foreign key")
            .detail(format!("Table \"{other}\" is not sharded: its rows are on the first shard only."))
            .hint(format!("Make \"{other}\" a reference table.")),
        ("foreign", "sharded") => cannot("foreign key")
            .detail(format!("Rows of \"{other}\" that it refers to could be on other shards."))
            .hint("Colocate the tables and let the key contain their shard keys, as a pair of the same type; or make the other a reference table."),
        ("foreign", _) => cannot("foreign key")
            .detail(format!("\"{table}\" is whole on a shard, and the rows of \"{other}\" are not."))
            .hint(format!("Shard \"{table}\" by the same key first, and add the foreign key then; or make \"{other}\" a reference table.")),
        ("follows", _) => cannot("foreign key")
            .detail(format!(
                "It changes the shard key \"{other}\" of rows that refer to another when that is changed or deleted, and they would have to move."
            ))
            .hint(format!("Leave out the action, or name the columns that it sets without \"{other}\": ON DELETE SET NULL (…).")),
        (kind, _) => cannot(match kind {
            "unique" => "unique constraint",
            _ => "exclusion constraint",
        })
        .detail(format!(
            "It does not contain the shard key \"{other}\", so that rows that exclude each other could be on different shards."
        ))
        .hint(match how {
            "" => format!("Let it contain \"{other}\" too, compared with =."),
            column => format!("Let it contain \"{other}\" too, compared with =; or have the router keep the column unique: SELECT create_global_unique_index('{table}', '{column}')."),
        }),
    }
}

#[cfg(test)]
mod tests {
    use switchyard_schema::Config;

    use super::{query, refusal};

    fn database(tables: &str) -> switchyard_schema::Database {
        let text = format!(
            "[router]\nlisten = \"127.0.0.1:6432\"\n[auth]\nmethod = \"trust\"\n[[users]]\nname = \"app\"\n[[databases]]\nname = \"shop\"\n\
             [[databases.shards]]\nname = \"s0\"\nnodes = [{{ host = \"127.0.0.1\", port = 1, role = \"primary\" }}]\n{tables}"
        );
        Config::parse(&text).unwrap().databases.remove(0)
    }

    #[test]
    fn tables_with_one_method_are_one_group() {
        assert_eq!(query(&database("")), None);
        let tables = "
            [[databases.tables]]\nname = \"a\"\nshard_key = \"id\"\nmethod = \"hash\"
            [[databases.tables]]\nname = \"it's\"\nmethod = \"reference\"
            [[databases.tables]]\nname = \"b\"\nshard_key = \"a_id\"\nmethod = \"hash\"
            [[databases.tables]]\nname = \"c\"\nshard_key = \"id\"\nmethod = \"modulo\"";
        let sql = query(&database(tables)).unwrap();
        let values = "VALUES ('public', 'a', 'id', 0), ('public', 'it''s', NULL, -1), ('public', 'b', 'a_id', 0), \
                      ('public', 'c', 'id', 3)";
        assert!(sql.contains(values), "{sql}");
    }

    #[test]
    fn the_reason_and_a_way_out_are_told() {
        let told = refusal("unique\tusers\tusers_email_key\tid");
        assert_eq!(
            told.message,
            "unique constraint \"users_email_key\" of table \"users\" cannot hold across shards"
        );
        assert!(told.detail.unwrap().contains("shard key \"id\""));
        let told = refusal("unique\tusers\tusers_email_key\tid\temail");
        assert!(
            told.hint
                .unwrap()
                .ends_with("SELECT create_global_unique_index('users', 'email').")
        );
        let told = refusal("foreign\torders\torders_shop_fkey\tshops\tunsharded");
        assert_eq!(told.hint.unwrap(), "Make \"shops\" a reference table.");
    }
}
