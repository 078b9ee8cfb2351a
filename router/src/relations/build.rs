//! From catalogue rows and configuration to [`Relations`].

mod code;
mod defaults;
mod global;
mod policies;
mod shown;
mod stays;
mod triggers;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use switchyard_schema::{
    BucketMap, Collation, Database, Distribution, KeyMap, KeyType, ShardKey, Table, TableName,
};

use self::code::Touched;
use super::code::{calls, words};
use super::introspect::{ColumnRow, FunctionRow, Introspection, RelationRow};
use super::reading::reading;
use super::{
    ByName, Changes, Column, DefaultValue, Function, FunctionKind, Placement, Policies, Relation,
    RelationKind, Relations, Sharding, SqlType, Triggers, Volatility, is_system_schema,
};

/// Something configuration and servers disagree about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The table.
    pub table: TableName,
    /// What is wrong with it.
    pub message: String,
}

impl Relations {
    /// Joins a shard's catalogue with the configuration. `buckets` is the catalog's bucket map, if there is one.
    pub fn build(
        database: &Database,
        found: &Introspection,
        buckets: Option<&Arc<BucketMap>>,
    ) -> Relations {
        let mut builder = Builder::new(database, found, buckets);
        builder.tables();
        builder.names();
        // Functions read views and views call functions: repeat until nothing changes.
        while builder.functions_that_read() | builder.views_that_read() {}
        builder.code();
        builder.touched();
        builder.changes();
        builder.functions();
        builder.views();
        builder.defaults();
        builder.triggers();
        builder.policies();
        builder.rules();
        builder.stays();
        builder.shown();
        builder.finish()
    }
}

struct Builder<'a> {
    database: &'a Database,
    found: &'a Introspection,
    buckets: Arc<BucketMap>,
    relations: HashMap<i64, Relation>,
    functions: ByName<Vec<Function>>,
    /// Functions by oid: name, and a sharded table each reads.
    reads: HashMap<i64, TableName>,
    /// Functions by oid: the settings each may change.
    changes: HashMap<i64, Changes>,
    /// Relations by their names, without PostgreSQL's.
    named: HashMap<String, Vec<i64>>,
    /// The names of PostgreSQL's functions that are volatile, or about numbers of transactions.
    builtins: HashSet<String>,
    /// Functions with code by oid: its words.
    code: HashMap<i64, HashSet<String>>,
    /// The same: what it touches.
    touched: HashMap<i64, Touched>,
    /// And by their names.
    touched_by_name: HashMap<String, Touched>,
    problems: Vec<Problem>,
}

impl<'a> Builder<'a> {
    fn new(
        database: &'a Database,
        found: &'a Introspection,
        buckets: Option<&'a Arc<BucketMap>>,
    ) -> Self {
        Builder {
            database,
            found,
            buckets: buckets.map_or_else(
                || Arc::new(BucketMap::place(&database.weights())),
                Arc::clone,
            ),
            relations: HashMap::new(),
            functions: ByName::default(),
            reads: HashMap::new(),
            changes: HashMap::new(),
            named: HashMap::new(),
            builtins: HashSet::new(),
            code: HashMap::new(),
            touched: HashMap::new(),
            touched_by_name: HashMap::new(),
            problems: Vec::new(),
        }
    }

    /// What names in code may mean.
    fn names(&mut self) {
        for (oid, relation) in &self.relations {
            if !matches!(relation.placement, Placement::Catalog) {
                let named = self.named.entry(relation.name.name.clone()).or_default();
                named.push(*oid);
            }
        }
        let functions = self.found.functions.iter();
        let kept = functions.filter(|row| {
            let numbers = matches!(&*row.name, "pg_current_xact_id" | "txid_current");
            row.schema == "pg_catalog" && (row.volatility == "v" || numbers)
        });
        self.builtins = kept.map(|row| row.name.clone()).collect();
    }

    fn tables(&mut self) {
        let mut columns: HashMap<i64, Vec<&ColumnRow>> = HashMap::new();
        for row in &self.found.columns {
            columns.entry(row.relation).or_default().push(row);
        }
        let rows = self.found.relations.iter().map(|row| (row.oid, row));
        let rows: HashMap<i64, &RelationRow> = rows.collect();
        for row in &self.found.relations {
            let columns = columns.get(&row.oid).map_or(&[][..], Vec::as_slice);
            let placement = self.placement(row, columns, &rows);
            let relation = Relation {
                name: TableName::new(&row.schema, &row.name),
                oid: row.oid,
                kind: kind(&row.kind),
                placement,
                columns: columns.iter().map(|of| column(row, of)).collect(),
                unique_without_key: false,
                volatility: Volatility::Immutable,
                primary_key: Vec::new(),
                definition: row.definition.clone(),
                unlogged: row.unlogged,
                triggers: Triggers::default(),
                cascades: Vec::new(),
                on_truncate: None,
                on_truncate_cascade: None,
                policies: Policies::default(),
                rewritten: row.rules,
                rules: false,
                stays: None,
                shows: None,
            };
            self.relations.insert(row.oid, relation);
        }
        self.missing_tables();
        self.unique_indexes();
    }

    /// The placement the configuration gives a relation or the nearest of its parents.
    fn placement(
        &mut self,
        row: &RelationRow,
        columns: &[&ColumnRow],
        rows: &HashMap<i64, &RelationRow>,
    ) -> Placement {
        if is_system_schema(&row.schema) {
            return Placement::Catalog;
        }
        let mut at = row;
        for _ in 0..=rows.len() {
            let name = TableName::new(&at.schema, &at.name);
            if let Some(table) = self.database.tables.iter().find(|table| table.name == name) {
                return self.configured(row, columns, table);
            }
            match at.parent.and_then(|parent| rows.get(&parent)) {
                Some(parent) => at = parent,
                None => break,
            }
        }
        Placement::Unsharded
    }

    fn configured(
        &mut self,
        row: &RelationRow,
        columns: &[&ColumnRow],
        table: &Table,
    ) -> Placement {
        let key = match &table.distribution {
            Distribution::Reference => return Placement::Reference,
            Distribution::Sharded(key) => key,
        };
        match sharding(key, columns, self.database, &self.buckets) {
            Ok(sharding) => Placement::Sharded(sharding),
            Err(message) => {
                let table = TableName::new(&row.schema, &row.name);
                self.problems.push(Problem {
                    table,
                    message: message.clone(),
                });
                Placement::Broken(message)
            }
        }
    }

    fn missing_tables(&mut self) {
        let present: HashSet<&TableName> = self
            .relations
            .values()
            .map(|relation| &relation.name)
            .collect();
        let missing = self
            .database
            .tables
            .iter()
            .filter(|table| !present.contains(&table.name));
        let message = "the table is configured but does not exist on the shards".to_owned();
        self.problems.extend(missing.map(|table| Problem {
            table: table.name.clone(),
            message: message.clone(),
        }));
    }

    fn unique_indexes(&mut self) {
        for index in &self.found.unique_indexes {
            let Some(relation) = self.relations.get_mut(&index.relation) else {
                continue;
            };
            let names: Vec<i32> = index
                .columns
                .split(' ')
                .filter_map(|number| number.parse().ok())
                .collect();
            if index.primary {
                let columns = self.found.columns.iter();
                let of_relation: Vec<&ColumnRow> = columns
                    .filter(|row| row.relation == index.relation)
                    .collect();
                let name = |number: &i32| {
                    let row = of_relation.iter().find(|row| row.number == *number);
                    row.map(|row| row.name.clone())
                };
                relation.primary_key = names.iter().filter_map(name).collect();
            }
            let Some(sharding) = relation.sharding() else {
                continue;
            };
            let key = relation
                .columns
                .get(sharding.column)
                .map(|column| column.name.as_str());
            let number = self
                .found
                .columns
                .iter()
                .find(|row| row.relation == index.relation && Some(row.name.as_str()) == key);
            relation.unique_without_key |= !number.is_some_and(|row| names.contains(&row.number));
        }
    }

    /// Marks functions whose code mentions a sharded table, or something known to read one. Says whether any is new.
    fn functions_that_read(&mut self) -> bool {
        let sharded = self.names_of(is_sharded);
        let named = |row: &FunctionRow| Some((row.name.clone(), self.reads.get(&row.oid)?.clone()));
        let reading: HashMap<String, TableName> =
            self.found.functions.iter().filter_map(named).collect();
        let before = self.reads.len();
        for row in &self.found.functions {
            let Some(source) = row
                .source
                .as_ref()
                .filter(|_| !self.reads.contains_key(&row.oid))
            else {
                continue;
            };
            let hit =
                words(source).find_map(|word| sharded.get(&word).or_else(|| reading.get(&word)));
            if let Some(table) = hit {
                self.reads.insert(row.oid, table.clone());
            }
        }
        self.reads.len() > before
    }

    /// The settings that functions may change, through functions they mention too.
    fn changes(&mut self) {
        let code: Vec<(&FunctionRow, HashSet<String>)> = self
            .found
            .functions
            .iter()
            .filter_map(|row| Some((row, words(row.source.as_ref()?).collect())))
            .collect();
        let mut named: HashMap<&str, Changes> = HashMap::new();
        for (row, _) in &code {
            let source = row.source.as_deref().unwrap_or_default();
            let own = Changes::of(source, &row.language);
            if !own.is_empty() {
                named.entry(&row.name).or_default().add(&own);
                self.changes.insert(row.oid, own);
            }
        }
        let mut more = !named.is_empty();
        while more {
            more = false;
            for (row, words) in &code {
                let called = words.iter().filter_map(|word| named.get(word.as_str()));
                let mut all = self.changes.get(&row.oid).cloned().unwrap_or_default();
                if called.fold(false, |more, called| all.add(called) | more) {
                    named.entry(&row.name).or_default().add(&all);
                    self.changes.insert(row.oid, all);
                    more = true;
                }
            }
        }
    }

    /// What is known of functions.
    fn functions(&mut self) {
        let mut reading = reading(self.found, &self.relations);
        for row in &self.found.functions {
            let mut function = function(row, self.reads.get(&row.oid));
            function.changes = self.changes.get(&row.oid).cloned().unwrap_or_default();
            function.reads = reading.remove(&row.oid);
            if let Some(touched) = self.touched.get(&row.oid) {
                function.reads_unsharded = touched.tables || touched.sequences;
                function.writes_reference.clone_from(&touched.reference);
                function.dynamic = touched.dynamic;
            }
            let known = self.functions.entry(row.name.as_str().into()).or_default();
            match known
                .iter_mut()
                .find(|known| known.schema == function.schema)
            {
                Some(known) => known.merge(&function),
                None => known.push(function),
            }
        }
    }

    /// The names of relations of one placement.
    fn names_of(&self, placement: fn(&Placement) -> bool) -> HashMap<String, TableName> {
        let chosen = self
            .relations
            .values()
            .filter(|relation| placement(&relation.placement));
        chosen
            .map(|relation| (relation.name.name.clone(), relation.name.clone()))
            .collect()
    }

    /// Marks views that read sharded tables, and tables whose rules do. Says whether any is new.
    fn views_that_read(&mut self) -> bool {
        let mut changed = false;
        for used in &self.found.view_uses {
            let table = match (
                used.relation.and_then(|oid| self.relations.get(&oid)),
                used.function,
            ) {
                (Some(relation), _) => match &relation.placement {
                    Placement::Sharded(_) | Placement::Broken(_) => Some(relation.name.clone()),
                    Placement::ReadsSharded(table) => Some(table.clone()),
                    Placement::Reference | Placement::Unsharded | Placement::Catalog => None,
                },
                (None, Some(function)) => self.reads.get(&function).cloned(),
                (None, None) => None,
            };
            let (Some(table), Some(view)) = (table, self.relations.get_mut(&used.view)) else {
                continue;
            };
            if matches!(view.placement, Placement::Unsharded | Placement::Reference) {
                view.placement = Placement::ReadsSharded(table);
                changed = true;
            }
        }
        changed
    }

    /// What is known of views besides.
    fn views(&mut self) {
        self.views_of_one_kind();
        for row in &self.found.relations {
            let Some(definition) = &row.definition else {
                continue;
            };
            let volatility = self.volatility(definition);
            if let Some(view) = self.relations.get_mut(&row.oid) {
                view.volatility = volatility;
            }
        }
    }

    /// A view that reads reference tables only is one itself (a materialized one has rows of its own).
    fn views_of_one_kind(&mut self) {
        let mut uses: HashMap<i64, Vec<i64>> = HashMap::new();
        for used in &self.found.view_uses {
            uses.entry(used.view).or_default().extend(used.relation);
        }
        loop {
            let reference = |oid: &i64| {
                self.relations
                    .get(oid)
                    .is_some_and(|relation| matches!(relation.placement, Placement::Reference))
            };
            let plain = |oid: &i64| {
                self.relations.get(oid).is_some_and(|relation| {
                    relation.kind == RelationKind::View
                        && matches!(relation.placement, Placement::Unsharded)
                })
            };
            let found: Vec<i64> = uses
                .iter()
                .filter(|(view, reads)| {
                    plain(view) && !reads.is_empty() && reads.iter().all(reference)
                })
                .map(|(view, _)| *view)
                .collect();
            if found.is_empty() {
                break;
            }
            for view in found {
                if let Some(view) = self.relations.get_mut(&view) {
                    view.placement = Placement::Reference;
                }
            }
        }
    }

    /// The volatility of an expression or query of PostgreSQL's printing, judged by the names in it.
    fn volatility(&self, text: &str) -> Volatility {
        calls(text)
            .map(|word| self.word_volatility(&word))
            .max()
            .unwrap_or(Volatility::Immutable)
    }

    fn word_volatility(&self, word: &str) -> Volatility {
        if word.starts_with("current_")
            || matches!(
                word,
                "localtime" | "localtimestamp" | "session_user" | "user"
            )
        {
            return Volatility::Stable;
        }
        let known = self.functions.get(word).into_iter().flatten();
        known
            .map(|function| function.volatility)
            .max()
            .unwrap_or(Volatility::Immutable)
    }

    fn finish(self) -> Relations {
        let mut schemas: ByName<ByName<Relation>> = ByName::default();
        let sharded = |relation: &Relation| {
            matches!(
                relation.placement,
                Placement::Sharded(_) | Placement::Broken(_)
            )
        };
        let any = self.relations.values().any(sharded);
        for relation in self.relations.into_values() {
            let schema = schemas
                .entry(relation.name.schema.as_str().into())
                .or_default();
            schema.insert(relation.name.name.as_str().into(), relation);
        }
        Relations {
            read_on: None,
            shards: self
                .database
                .shards
                .iter()
                .map(|shard| shard.name.as_str().into())
                .collect(),
            schemas,
            functions: self.functions,
            sharded: any,
            configured: self
                .database
                .tables
                .iter()
                .map(|table| table.name.clone())
                .collect(),
            problems: self.problems,
            global_indexes: global::indexes(self.found),
        }
    }
}

/// Words of statements that write.
fn is_write(word: &str) -> bool {
    matches!(
        word,
        "insert" | "update" | "delete" | "merge" | "truncate" | "copy"
    )
}

fn is_sharded(placement: &Placement) -> bool {
    matches!(
        placement,
        Placement::Sharded(_) | Placement::Broken(_) | Placement::ReadsSharded(_)
    )
}

fn is_unsharded(placement: &Placement) -> bool {
    matches!(placement, Placement::Unsharded)
}

fn is_reference(placement: &Placement) -> bool {
    matches!(placement, Placement::Reference)
}

/// Joins a shard key with the column it names.
fn sharding(
    key: &ShardKey,
    columns: &[&ColumnRow],
    database: &Database,
    buckets: &Arc<BucketMap>,
) -> Result<Sharding, String> {
    let position = columns.iter().position(|column| column.name == key.column);
    let Some((position, column)) = position.and_then(|at| Some((at, columns.get(at)?))) else {
        return Err(format!(
            "the shard key column \"{}\" does not exist",
            key.column
        ));
    };
    let oid = u32::try_from(column.type_oid).unwrap_or(0);
    let Some(key_type) = KeyType::from_oid(oid) else {
        return Err(format!(
            "the type of the shard key column \"{}\" cannot be a shard key",
            key.column
        ));
    };
    if column.generated {
        return Err(format!(
            "the shard key column \"{}\" is generated",
            key.column
        ));
    }
    let map = KeyMap::resolve(key, key_type, collation(column), database, Some(buckets))
        .map_err(|error| error.to_string())?;
    Ok(Sharding {
        column: position,
        map: Arc::new(map),
    })
}

fn kind(relkind: &str) -> RelationKind {
    match relkind {
        "v" => RelationKind::View,
        "m" => RelationKind::MaterializedView,
        "f" => RelationKind::Foreign,
        "S" => RelationKind::Sequence,
        _ => RelationKind::Table,
    }
}

fn collation(row: &ColumnRow) -> Collation {
    match row.collation.as_str() {
        "" | "C" => Collation::Bytes,
        "?" => Collation::Nondeterministic,
        _ => Collation::Deterministic,
    }
}

fn column(relation: &RelationRow, row: &ColumnRow) -> Column {
    let default = if row.identity {
        DefaultValue::Identity
    } else if row.generated {
        DefaultValue::Generated
    } else {
        DefaultValue::Absent
    };
    Column {
        name: row.name.clone(),
        type_oid: u32::try_from(row.type_oid).unwrap_or(0),
        typmod: row.typmod,
        not_null: row.not_null,
        collation: collation(row),
        default,
        expression: row.identity.then(|| next_of_identity(relation, row)),
        sql_type: row.sql_type.as_ref().map(|name| SqlType {
            name: name.as_str().into(),
            suffix: row.sql_suffix.as_str().into(),
        }),
        text_type: row.text_type.as_deref().map(Into::into),
    }
}

/// What gives an identity column its next value.
fn next_of_identity(relation: &RelationRow, row: &ColumnRow) -> Box<str> {
    let (schema, name) = (
        escape_identifier(&relation.schema),
        escape_identifier(&relation.name),
    );
    let table = escape_literal(&format!("{schema}.{name}"));
    let column = escape_literal(&row.name);
    format!("pg_catalog.nextval(pg_catalog.pg_get_serial_sequence({table}, {column}))").into()
}

fn function(row: &FunctionRow, reads: Option<&TableName>) -> Function {
    let kind = match row.kind.as_str() {
        "a" => FunctionKind::Aggregate,
        "w" => FunctionKind::Window,
        "p" => FunctionKind::Procedure,
        _ => FunctionKind::Normal,
    };
    let volatility = match row.volatility.as_str() {
        "i" => Volatility::Immutable,
        "s" => Volatility::Stable,
        _ => Volatility::Volatile,
    };
    Function {
        oids: u32::try_from(row.oid).into_iter().collect(),
        schema: row.schema.as_str().into(),
        kind,
        volatility,
        user_code: row.source.is_some(),
        reads_sharded: reads.cloned(),
        reads_unsharded: false,
        writes_reference: None,
        changes: Changes::default(),
        reads: None,
        dynamic: false,
        returns_set: row.returns_set,
    }
}
