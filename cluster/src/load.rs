//! Loading tables: every row straight to the shard its key says, all servers at the same time.

use switchyard_schema::{
    Collation, Config, Database, Distribution, Key, KeyError, KeyMap, KeyType, NoShard,
    ResolveError, TableName,
};

use crate::{Cluster, Error, Node};

/// A table that can be loaded, with its rows.
pub struct Table<'a> {
    /// Its name in PostgreSQL.
    pub name: &'a str,
    /// Its columns with their types, as far as the last one that may be a shard key.
    pub columns: &'a [(&'a str, KeyType)],
    /// Gives every row, the same ones each time.
    pub rows: Rows<'a>,
}

/// Calls what it is given with every row: a line of COPY's text format without the line's end.
pub type Rows<'a> = Box<dyn Fn(&mut dyn FnMut(&str)) + 'a>;

/// Why tables could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A server did not do what it was asked to.
    #[error(transparent)]
    Cluster(#[from] Error),
    /// The configuration lacks the cluster's database.
    #[error("the configuration does not have the cluster's database")]
    NoDatabase,
    /// The configuration shards a table by a column that is not among those that may be.
    #[error("the rows of {table} do not say which column is its shard key {column}")]
    NoColumn {
        /// The table.
        table: String,
        /// Its shard key.
        column: String,
    },
    /// A table's shard key does not fit.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A row's key cannot be read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A row's key has no shard.
    #[error(transparent)]
    NoShard(#[from] NoShard),
}

impl Cluster {
    /// Runs `before` on every primary and the plain server, if there is one, then loads the rows: on the shards as `config`
    /// distributes them, whole on the plain server. Says how many rows there are.
    pub fn load(
        &self,
        config: &Config,
        tables: &[Table<'_>],
        before: &str,
    ) -> Result<usize, LoadError> {
        let database = config
            .database(&self.spec().database)
            .ok_or(LoadError::NoDatabase)?;
        let (portions, rows) = portions(database, self.shards().len(), tables)?;
        std::thread::scope(|scope| {
            let shards = self.shards().iter().map(|shard| shard.primary.as_ref());
            let threads: Vec<_> = shards
                .chain(self.oracle())
                .zip(&portions)
                .map(|(node, portion)| scope.spawn(move || self.fill(node, portion, before)))
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| match thread.join() {
                    Ok(filled) => filled,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
        })?;
        Ok(rows)
    }

    /// Runs `before` on one server, then loads all rows there.
    pub fn load_whole(
        &self,
        node: &dyn Node,
        tables: &[Table<'_>],
        before: &str,
    ) -> Result<(), LoadError> {
        let lines = |table: &Table<'_>| {
            let mut lines = Vec::new();
            (table.rows)(&mut |row| push_line(&mut lines, row));
            (table.name.to_owned(), lines)
        };
        let portion: Portion = tables.iter().map(lines).collect();
        self.fill(node, &portion, before)
    }

    fn fill(&self, node: &dyn Node, portion: &Portion, before: &str) -> Result<(), LoadError> {
        let mut session = self.owner(node)?;
        session.run(before)?;
        for (table, lines) in portion {
            session.copy(&format!("COPY {table} FROM STDIN"), lines)?;
        }
        let analyze = session.run(ANALYZE)?;
        session.run(&analyze)?;
        Ok(())
    }
}

/// A statement that has PostgreSQL look what there is now, for its plans. The system's own tables are left out: there it takes longer than all else.
const ANALYZE: &str = "\
SELECT 'ANALYZE ' || string_agg(oid::regclass::text, ', ') FROM pg_class
 WHERE relkind IN ('r', 'p') AND relnamespace <> ALL ('{pg_catalog,information_schema,pg_toast}'::regnamespace[])";

/// What one server gets: each table's lines, in loading order.
type Portion = Vec<(String, Vec<u8>)>;

fn push_line(lines: &mut Vec<u8>, row: &str) {
    lines.extend_from_slice(row.as_bytes());
    lines.push(b'\n');
}

/// One portion per shard, and last one with everything.
fn portions(
    database: &Database,
    shards: usize,
    tables: &[Table<'_>],
) -> Result<(Vec<Portion>, usize), LoadError> {
    let mut portions: Vec<Portion> = vec![Portion::new(); shards + 1];
    let mut rows = 0;
    for table in tables {
        let place = Place::of(table, database)?;
        let mut lines: Vec<Vec<u8>> = vec![Vec::new(); shards + 1];
        let mut failed = None;
        (table.rows)(&mut |row| {
            rows += 1;
            let mut give = |server: usize| push_line(&mut lines[server], row);
            give(shards);
            match place.shard(row) {
                Ok(Some(shard)) => give(shard),
                Ok(None) => (0..shards).for_each(give),
                Err(error) => failed = Some(error),
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        for (portion, lines) in portions.iter_mut().zip(lines) {
            portion.push((table.name.to_owned(), lines));
        }
    }
    Ok((portions, rows))
}

/// Where a table's rows go.
enum Place {
    Everywhere,
    FirstShard,
    /// By the value of the column at this position.
    ByKey(usize, KeyMap),
}

impl Place {
    fn of(table: &Table<'_>, database: &Database) -> Result<Place, LoadError> {
        let name = TableName::new("public", table.name);
        let key = match database.table(&name).map(|table| &table.distribution) {
            None => return Ok(Place::FirstShard),
            Some(Distribution::Reference) => return Ok(Place::Everywhere),
            Some(Distribution::Sharded(key)) => key,
        };
        let mut columns = table.columns.iter().enumerate();
        let Some((position, &(_, key_type))) = columns.find(|(_, (name, _))| *name == key.column)
        else {
            return Err(LoadError::NoColumn {
                table: table.name.to_owned(),
                column: key.column.clone(),
            });
        };
        let map = KeyMap::resolve(key, key_type, Collation::Bytes, database, None)?;
        Ok(Place::ByKey(position, map))
    }

    /// The shard of a line; none: all of them.
    fn shard(&self, line: &str) -> Result<Option<usize>, LoadError> {
        match self {
            Place::Everywhere => Ok(None),
            Place::FirstShard => Ok(Some(0)),
            Place::ByKey(position, map) => {
                let key = line.split('\t').nth(*position).unwrap_or_default();
                let key = Key::from_text(map.key_type(), key.as_bytes())?;
                Ok(Some(map.shard_of(Some(&key))?.position()))
            }
        }
    }
}
