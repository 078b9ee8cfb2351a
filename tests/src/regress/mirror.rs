//! The shards kept in step with the plain server.
//!
//! Definitions are repeated on every shard as they come. Rows are never written there by the script: whenever the plain
//! server's tables have changed, each changed table is emptied on the shards and filled with the plain server's rows, every
//! row on the shard that the router's own placement says. The plain server's session is asked, so that what it has not
//! committed counts.

use std::collections::{BTreeMap, BTreeSet};

use switchyard_cluster::{Cluster, Node};
use switchyard_schema::{Bucket, BucketMap, bucket_sql};

use super::rows;
use crate::{Client, Login, Reply};

/// The shards, and what they were last given.
#[derive(Debug)]
pub(super) struct Mirror {
    /// The shards, and last the reordered server.
    servers: Vec<Client>,
    ports: Vec<u16>,
    buckets: BucketMap,
    /// What each table and sequence looked like when it was last given away.
    given: BTreeMap<String, String>,
    /// The shard keys of the tables that are not part of others.
    keys: BTreeSet<Key>,
    /// What went wrong on a shard and not on the plain server.
    troubles: Vec<String>,
    /// Whether only tables are sharded whose constraints hold over shards: they are to be written to.
    written: bool,
    /// The tables and sequences given away in this file.
    touched: BTreeSet<String>,
}

/// A lock was in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blocked;

/// A table's name in the configuration, and its shard key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// The schema.
    pub(super) schema: String,
    /// The table.
    pub(super) table: String,
    /// The column.
    pub(super) column: String,
}

/// A table with rows of its own.
#[derive(Debug)]
struct Table {
    /// Quoted as SQL needs it.
    name: String,
    columns: Vec<String>,
    /// The shard key, quoted.
    key: Option<String>,
    /// Whether a column's binary form is another one on each server.
    in_text: bool,
}

/// Tables, each with the shard key of the one it is part of: the first column that can be a shard key.
const TABLES: &str = "\
WITH RECURSIVE up AS (
  SELECT c.oid AS relid, c.oid AS at FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  UNION ALL
  SELECT up.relid, i.inhparent FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.at AND i.inhseqno = 1
), root AS (
  SELECT relid, at FROM up
   WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = up.at)
)
SELECT c.relkind, pg_catalog.format('%I.%I', n.nspname, c.relname), rn.nspname, rc.relname, k.attname,
       pg_catalog.quote_ident(k.attname),
       (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), E'\\n' ORDER BY a.attnum)
          FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
       EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                  AND (t.typname ~ '^_?reg' OR t.typsend = 0 OR t.typreceive = 0 OR t.typname = '_aclitem'))
  FROM root r
  JOIN pg_catalog.pg_class c ON c.oid = r.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_class rc ON rc.oid = r.at JOIN pg_catalog.pg_namespace rn ON rn.oid = rc.relnamespace
  LEFT JOIN LATERAL (
    SELECT a.attname FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_collation o ON o.oid = a.attcollation
     WHERE a.attrelid = r.at AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
       AND coalesce(o.collisdeterministic, true)
       AND a.atttypid = ANY ('{16,17,20,21,23,25,1042,1043,1082,1114,1184,1700,2950}'::pg_catalog.oid[])
       AND /* enforceable */
     ORDER BY a.attnum LIMIT 1) k ON true";

/// That the constraints of a table, and of its parts, hold over shards if it is sharded by this column: what is unique contains it,
/// nothing is excluded, and there are no foreign keys (those of colocated tables would do, but columns are chosen table by table).
const ENFORCEABLE: &str = "\
NOT EXISTS (
  SELECT FROM root p JOIN pg_catalog.pg_index i ON i.indrelid = p.relid
   WHERE p.at = r.at AND (i.indisexclusion OR i.indisunique AND NOT EXISTS (
     SELECT FROM pg_catalog.unnest(i.indkey) WITH ORDINALITY u (attnum, position)
       JOIN pg_catalog.pg_attribute ia ON ia.attrelid = i.indrelid AND ia.attnum = u.attnum
      WHERE ia.attname = a.attname AND u.position <= i.indnkeyatts)))
AND NOT EXISTS (
  SELECT FROM root p JOIN pg_catalog.pg_constraint f ON p.relid IN (f.conrelid, f.confrelid)
   WHERE p.at = r.at AND f.contype = 'f')";

const SEQUENCES: &str = "\
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'S' AND c.relpersistence <> 't'";

/// What removes each thing there is. Parts of others go with them.
const OBJECTS: &str = "\
SELECT pg_catalog.format('DROP %s %I.%I CASCADE', k.kind, n.nspname, c.relname)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN (VALUES ('r', 'TABLE'), ('p', 'TABLE'), ('v', 'VIEW'), ('m', 'MATERIALIZED VIEW'), ('S', 'SEQUENCE'),
               ('f', 'FOREIGN TABLE'), ('i', 'INDEX'), ('I', 'INDEX')) k (relkind, kind) ON k.relkind = c.relkind
 WHERE c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'switchyard')
UNION ALL
SELECT pg_catalog.format('DROP %s %s CASCADE', CASE p.prokind WHEN 'a' THEN 'AGGREGATE' ELSE 'ROUTINE' END,
                         p.oid::pg_catalog.regprocedure)
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
UNION ALL
SELECT pg_catalog.format('DROP %s %I.%I CASCADE', CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END,
                         n.nspname, t.typname)
  FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
  LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'switchyard') AND n.nspname !~ '^pg_temp'
   AND (t.typtype IN ('d', 'e', 'r') OR c.relkind = 'c')
UNION ALL
SELECT pg_catalog.format('DROP SCHEMA %I CASCADE', nspname) FROM pg_catalog.pg_namespace
 WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'switchyard')
UNION ALL
SELECT pg_catalog.format('DROP OWNED BY %1$I CASCADE; DROP ROLE %1$I', rolname) FROM pg_catalog.pg_roles
 WHERE rolname !~ '^pg_'";

/// What the session has set, as SET would; functions' names are qualified as the path may be anything.
const SETTINGS: &str = "\
SELECT pg_catalog.format('SELECT pg_catalog.set_config(%L, %L, false)', name, setting)
  FROM pg_catalog.pg_show_all_settings()
 WHERE source = 'session' AND name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable')
UNION ALL
SELECT pg_catalog.format('SET SESSION AUTHORIZATION %I', session_user)
UNION ALL
SELECT pg_catalog.format('SET ROLE %I', current_user) WHERE current_user <> session_user";

/// How long nobody waits for a lock.
const PATIENCE: &str = "2s";
/// The SQLSTATE of not having got one.
const LOCK_NOT_AVAILABLE: &str = "55P03";

impl Mirror {
    /// Of a cluster whose shards have nothing in them, and a server that will have all rows, those of one shard after those of
    /// another.
    pub(super) fn new(cluster: &Cluster, reordered: &dyn Node) -> Mirror {
        let names: Vec<(&str, u32)> = cluster
            .shards()
            .iter()
            .map(|shard| (shard.name.as_str(), 1))
            .collect();
        let ports: Vec<u16> = cluster
            .shards()
            .iter()
            .map(|shard| shard.primary.port())
            .chain([reordered.port()])
            .collect();
        Mirror {
            servers: ports.iter().map(|port| connect(*port)).collect(),
            buckets: BucketMap::place(&names),
            ports,
            given: BTreeMap::new(),
            keys: BTreeSet::new(),
            troubles: Vec::new(),
            written: false,
            touched: BTreeSet::new(),
        }
    }

    /// A new file begins. Whether only tables are sharded whose constraints hold over shards.
    pub(super) fn begin(&mut self, written: bool) {
        self.written = written;
        self.touched.clear();
    }

    /// New sessions, for a new file.
    pub(super) fn reconnect(&mut self) {
        self.servers = self.ports.iter().map(|port| connect(*port)).collect();
    }

    /// Repeats what has succeeded on the plain server on every shard.
    ///
    /// # Errors
    /// A lock that somebody holds was in the way; nobody waits for it long.
    pub(super) fn repeat(&mut self, sql: &str) -> Result<(), Blocked> {
        let mut blocked = false;
        for (number, server) in self.servers.iter_mut().enumerate() {
            let failures = server
                .simple(sql)
                .into_iter()
                .filter_map(|reply| reply.failure);
            for failure in failures {
                blocked |= failure.sqlstate() == LOCK_NOT_AVAILABLE;
                self.troubles
                    .push(format!("server {number}: {sql}: {failure:?}"));
            }
        }
        if blocked { Err(Blocked) } else { Ok(()) }
    }

    /// Does the same for what may well fail there.
    pub(super) fn try_repeat(&mut self, sql: &str) {
        for server in &mut self.servers {
            server.simple(sql);
        }
    }

    /// Gives the shards' sessions the settings of the plain server's: what a transaction has set ends with it.
    pub(super) fn settle(&mut self, plain: &mut Client) {
        let settings: Vec<String> = texts(&plain.simple(SETTINGS))
            .into_iter()
            .flatten()
            .collect();
        for server in &mut self.servers {
            for setting in ["RESET SESSION AUTHORIZATION", "RESET ALL"]
                .into_iter()
                .chain(settings.iter().map(String::as_str))
            {
                server.simple(setting);
            }
        }
    }

    /// Removes what the plain server does not have (any more): definitions that it has rolled back.
    pub(super) fn reconcile(&mut self, plain: &mut Client) {
        let wanted = objects(plain);
        for (number, server) in self.servers.iter_mut().enumerate() {
            for removal in objects(server).difference(&wanted) {
                // It fails for what has gone with another.
                server.simple(removal);
            }
            let missing: Vec<String> = wanted.difference(&objects(server)).cloned().collect();
            if !missing.is_empty() {
                self.troubles
                    .push(format!("server {number} lacks {missing:?}"));
            }
        }
    }

    /// The shard keys of the tables that are not part of others.
    pub(super) fn keys(&self) -> &BTreeSet<Key> {
        &self.keys
    }

    /// What went wrong on a shard and not on the plain server, since the last call.
    pub(super) fn troubles(&mut self) -> Vec<String> {
        std::mem::take(&mut self.troubles)
    }

    /// Gives the shards the rows of every table that has changed, and the state of every sequence.
    ///
    /// # Errors
    /// A lock that somebody holds was in the way.
    pub(super) fn follow(&mut self, plain: &mut Client) -> Result<(), Blocked> {
        let mut blocked = false;
        let tables = self.tables(plain);
        let prints = fingerprints(plain, &tables);
        for table in &tables {
            let print = table.print(&prints);
            if self.given.get(&table.name) == Some(&print) {
                continue;
            }
            match self.give(plain, table) {
                Ok(()) => self.gave(&table.name, print),
                Err(trouble) => {
                    let is_blocked = trouble.contains(LOCK_NOT_AVAILABLE);
                    if is_blocked {
                        self.given.remove(&table.name);
                    } else {
                        self.given.insert(table.name.clone(), print);
                    }
                    blocked |= is_blocked;
                    self.troubles
                        .push(format!("rows of {}: {trouble}", table.name));
                }
            }
        }
        let names: BTreeSet<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        self.given
            .retain(|name, _| names.contains(name.as_str()) || name.starts_with(SEQUENCE));
        self.sequences(plain);
        if blocked { Err(Blocked) } else { Ok(()) }
    }

    /// The tables that have other rows than were last given away, or are named by one of these words.
    pub(super) fn changed(&mut self, plain: &mut Client, words: &[String]) -> Vec<String> {
        let tables = self.tables(plain);
        let prints = fingerprints(plain, &tables);
        let concerned = |table: &Table| {
            let bare = table.name.rsplit('.').next().unwrap_or_default();
            self.given.get(&table.name) != Some(&table.print(&prints))
                || words.iter().any(|word| word == bare.trim_matches('"'))
        };
        tables
            .into_iter()
            .filter(concerned)
            .map(|table| table.name)
            .collect()
    }

    /// The shards have the plain server's rows now, and the state of its sequences, without having been given them.
    pub(super) fn accept(&mut self, plain: &mut Client) {
        let tables = self.tables(plain);
        let prints = fingerprints(plain, &tables);
        for table in &tables {
            self.gave(&table.name, table.print(&prints));
        }
        for (name, _, state) in sequences(plain) {
            self.gave(&name, state);
        }
    }

    fn gave(&mut self, name: &str, state: String) {
        if self.given.get(name) != Some(&state) {
            self.touched.insert(name.to_owned());
            self.given.insert(name.to_owned(), state);
        }
    }

    /// What the shards have of this file's tables is no longer known.
    pub(super) fn doubt(&mut self) {
        for name in std::mem::take(&mut self.touched) {
            self.given.remove(&name);
        }
    }

    fn tables(&mut self, plain: &mut Client) -> Vec<Table> {
        self.keys.clear();
        let mut tables = Vec::new();
        let enforceable = if self.written { ENFORCEABLE } else { "true" };
        let sql = TABLES.replace("/* enforceable */", enforceable);
        for row in texts(&plain.simple(&sql)) {
            let [kind, name, schema, root, column, key, columns, in_text] = row.as_slice() else {
                continue;
            };
            let has_key = column != "NULL";
            if has_key {
                let [schema, table, column] = [schema, root, column].map(Clone::clone);
                self.keys.insert(Key {
                    schema,
                    table,
                    column,
                });
            }
            if kind == "r" {
                let columns = columns.split('\n').filter(|column| *column != "NULL");
                tables.push(Table {
                    name: name.clone(),
                    columns: columns.map(ToOwned::to_owned).collect(),
                    key: has_key.then(|| key.clone()),
                    in_text: in_text == "t",
                });
            }
        }
        tables
    }

    /// Empties a table on every shard and fills it.
    fn give(&mut self, plain: &mut Client, table: &Table) -> Result<(), String> {
        let bucket = table
            .key
            .as_ref()
            .map_or_else(|| "0".to_owned(), |key| bucket_sql(key));
        let (format, columns) = (
            if table.in_text { "text" } else { "binary" },
            table.columns.join(", "),
        );
        let selected: Vec<String> = std::iter::once(format!("({bucket})::pg_catalog.int4"))
            .chain(table.columns.iter().cloned())
            .collect();
        let read = format!(
            "COPY (SELECT {} FROM ONLY {}) TO STDOUT (FORMAT {format})",
            selected.join(", "),
            table.name
        );
        let copied = only(plain.simple(&read))?.copied;
        let split = if table.in_text {
            rows::split_text
        } else {
            rows::split_binary
        };
        let unsharded = table.key.is_none();
        let owner = |bucket: u16| match Bucket::new(bucket) {
            Some(bucket) if !unsharded => self.buckets.owner(bucket).position(),
            _ => 0,
        };
        let shards = self.servers.len() - 1;
        let mut parts = split(&copied, shards, &owner)?;
        let join = if table.in_text {
            rows::join_text
        } else {
            rows::join_binary
        };
        parts.push(join(&parts));
        let list = if columns.is_empty() {
            String::new()
        } else {
            format!("({columns})")
        };
        let write = format!("COPY {} {list} FROM STDIN (FORMAT {format})", table.name);
        for (server, part) in self.servers.iter_mut().zip(parts) {
            // No triggers, no rules, no foreign keys: the other side may be on another shard.
            let begin = "BEGIN; SET LOCAL session_replication_role = replica";
            let filled = server
                .simple(&format!("{begin}; DELETE FROM ONLY {}", table.name))
                .into_iter()
                .chain([server.copy_in(&write, &part)])
                .find_map(|reply| reply.failure);
            server.simple("COMMIT");
            if let Some(failure) = filled {
                return Err(format!("{failure:?}"));
            }
        }
        Ok(())
    }

    fn sequences(&mut self, plain: &mut Client) {
        for (known, set, state) in sequences(plain) {
            if self.given.get(&known) == Some(&state) {
                continue;
            }
            for server in &mut self.servers {
                server.simple(&set);
            }
            self.gave(&known, state);
        }
    }
}

impl Table {
    /// What changes with its rows and its shard key.
    fn print(&self, prints: &BTreeMap<String, String>) -> String {
        format!("{:?} {:?}", self.key, prints.get(&self.name))
    }
}

/// Of every sequence: the name it is known by, what sets it, and its state.
fn sequences(plain: &mut Client) -> Vec<(String, String, String)> {
    let names: Vec<String> = texts(&plain.simple(SEQUENCES))
        .into_iter()
        .flatten()
        .collect();
    if names.is_empty() {
        return Vec::new();
    }
    let one = |name: &String| {
        format!(
            "SELECT {}, last_value, is_called FROM {name}",
            literal(name)
        )
    };
    let all: Vec<String> = names.iter().map(one).collect();
    let rows = texts(&plain.simple(&all.join(" UNION ALL ")));
    let rows = rows
        .into_iter()
        .filter_map(|row| <[String; 3]>::try_from(row).ok());
    rows.map(|[name, last, called]| {
        let set = format!(
            "SELECT pg_catalog.setval({}, {last}, '{called}')",
            literal(&name)
        );
        (format!("{SEQUENCE}{name}"), set, format!("{last} {called}"))
    })
    .collect()
}

/// How sequences are told from tables in what was given.
const SEQUENCE: &str = "sequence ";

fn connect(port: u16) -> Client {
    Client::connect(&super::settings(Login::new(port)).with("lock_timeout", PATIENCE))
}

fn objects(server: &mut Client) -> BTreeSet<String> {
    texts(&server.simple(OBJECTS))
        .into_iter()
        .flatten()
        .collect()
}

/// What changes whenever the rows of a table do: how many there are, where they are, and who wrote them.
fn fingerprints(plain: &mut Client, tables: &[Table]) -> BTreeMap<String, String> {
    let one = |table: &Table| {
        format!(
            "SELECT {name}, pg_catalog.concat_ws(' ', pg_catalog.count(*), \
             pg_catalog.sum(pg_catalog.hashtid(ctid)::pg_catalog.int8), \
             pg_catalog.sum(xmin::pg_catalog.text::pg_catalog.int8), \
             pg_catalog.sum(cmin::pg_catalog.text::pg_catalog.int8), \
             pg_catalog.pg_relation_filenode({name})) FROM ONLY {table}",
            name = literal(&table.name),
            table = table.name,
        )
    };
    if tables.is_empty() {
        return BTreeMap::new();
    }
    let all: Vec<String> = tables.iter().map(one).collect();
    let rows = texts(&plain.simple(&all.join(" UNION ALL ")));
    rows.into_iter()
        .filter_map(|row| <[String; 2]>::try_from(row).ok())
        .map(|[name, print]| (name, print))
        .collect()
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn texts(replies: &[Reply]) -> Vec<Vec<String>> {
    replies.iter().flat_map(Reply::texts).collect()
}

fn only(mut replies: Vec<Reply>) -> Result<Reply, String> {
    match (replies.pop(), replies.len()) {
        (
            Some(Reply {
                failure: Some(failure),
                ..
            }),
            _,
        ) => Err(format!("{failure:?}")),
        (Some(reply), 0) => Ok(reply),
        (reply, _) => Err(format!("{reply:?}")),
    }
}
