//! The tables whose rows a statement locks: what its clauses and its FROM say, and the texts that lock rows and tell them apart.

use std::borrow::Cow;
use std::sync::Arc;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use sqlparser::ast::{Query, Select, TableFactor, TableWithJoins};
use switchyard_schema::{Key, KeyMap, ShardIndex, TableName};

use crate::plan::Context;
use crate::plan::analyse::names::{name, relation_name};
use crate::plan::utility::is_temporary;
use crate::plan::words::Words;
use crate::plan::workspace::fetch::names;
use crate::relations::{Placement, Relation, RelationKind, Resolved};
use crate::sql::Token;

/// A table whose rows are locked.
#[derive(Debug, Clone)]
pub struct Locked {
    /// The table.
    pub relation: TableName,
    /// Rows that are locked already are waited for, passed over, or an error.
    pub wait: Wait,
    /// What the statement calls it.
    alias: String,
    columns: Vec<String>,
    key: Vec<String>,
    strength: Strength,
    place: Place,
}

/// Where the rows of a table are.
#[derive(Debug, Clone)]
enum Place {
    First,
    /// By the value of this column.
    Key(String, Arc<KeyMap>),
}

/// How strong a lock is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    KeyShare,
    Share,
    NoKeyUpdate,
    Update,
}

/// What is done about a row that somebody else has locked. Of two that are given, the later here counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// It is waited for.
    Block,
    /// It is passed over.
    Skip,
    /// It is an error.
    Fail,
}

impl Locked {
    /// Bytes on the heap, about.
    pub(super) fn size(&self) -> usize {
        48 * self.columns.len()
    }

    /// How many columns a candidate has for it.
    pub fn width(&self) -> usize {
        self.identity_width() + 1
    }

    /// What a candidate has of it, besides the client's columns: what identifies the row, and all of it.
    pub(super) fn columns(&self) -> impl Iterator<Item = String> {
        self.identity().chain([self.row()])
    }

    /// The value that says where a row is, and the values of its primary key.
    pub(super) fn identity(&self) -> impl Iterator<Item = String> {
        let alias = escape_identifier(&self.alias);
        let place = match &self.place {
            Place::First => "NULL::pg_catalog.text".to_owned(),
            Place::Key(column, _) => text_of(&alias, column),
        };
        let key: Vec<String> = self
            .key
            .iter()
            .map(|column| text_of(&alias, column))
            .collect();
        [place].into_iter().chain(key)
    }

    /// How many columns identify a row.
    pub fn identity_width(&self) -> usize {
        1 + self.key.len()
    }

    /// Whether nobody else can change the rows while they are locked.
    pub fn stands_still(&self) -> bool {
        self.strength > Strength::KeyShare
    }

    /// All of a row as one text.
    fn row(&self) -> String {
        let alias = escape_identifier(&self.alias);
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("{alias}.{}", escape_identifier(column)))
            .collect();
        format!("ROW({})::pg_catalog.text", columns.join(", "))
    }

    /// The shard of a row; `None` if the text does not say.
    pub fn shard(&self, place: Option<&str>) -> Option<ShardIndex> {
        let Place::Key(_, map) = &self.place else {
            return Some(ShardIndex::FIRST);
        };
        match place {
            None => map.shard_of(None).ok(),
            Some(text) => {
                let key = Key::from_text(map.key_type(), text.as_bytes()).ok()?;
                map.shard_of(Some(&key)).ok()
            }
        }
    }

    /// The query that locks the rows with these primary keys, and gives all of each.
    pub fn query(&self, keys: &[&[&str]]) -> String {
        let (source, columns) = self.with_keys(keys);
        let row = self.row();
        let strength = match self.strength {
            Strength::KeyShare => "KEY SHARE",
            Strength::Share => "SHARE",
            Strength::NoKeyUpdate => "NO KEY UPDATE",
            Strength::Update => "UPDATE",
        };
        let wait = match self.wait {
            Wait::Block => "",
            Wait::Skip => " SKIP LOCKED",
            Wait::Fail => " NOWAIT",
        };
        format!("SELECT {row} {source} ORDER BY {columns} FOR {strength}{wait}")
    }

    /// The query that tells where its shard has the rows with these primary keys: of each one text, and the key.
    pub fn query_places(&self, keys: &[&[&str]]) -> String {
        let (source, _) = self.with_keys(keys);
        let alias = escape_identifier(&self.alias);
        let key: Vec<String> = self.identity().skip(1).collect();
        let key = key.join(", ");
        format!(
            "SELECT pg_catalog.concat_ws(' ', {alias}.tableoid, pg_catalog.pg_relation_filenode({alias}.tableoid), {alias}.ctid), {key} {source}"
        )
    }

    /// The name of the table in SQL.
    pub fn name(&self) -> String {
        let (schema, table) = (
            escape_identifier(&self.relation.schema),
            escape_identifier(&self.relation.name),
        );
        format!("{schema}.{table}")
    }

    /// FROM and WHERE for the rows with these primary keys, and the columns of the key.
    fn with_keys(&self, keys: &[&[&str]]) -> (String, String) {
        let alias = escape_identifier(&self.alias);
        let columns: Vec<String> = self
            .key
            .iter()
            .map(|column| format!("{alias}.{}", escape_identifier(column)))
            .collect();
        let columns = columns.join(", ");
        let key = |key: &&[&str]| {
            let values: Vec<String> = key.iter().map(|value| escape_literal(value)).collect();
            format!("({})", values.join(", "))
        };
        let keys: Vec<String> = keys.iter().map(key).collect();
        let (table, keys) = (self.name(), keys.join(", "));
        let source = format!("FROM {table} AS {alias} WHERE ({columns}) IN ({keys})");
        (source, columns)
    }
}

impl std::fmt::Display for Locked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = names(&self.key);
        write!(f, "{} {:?} by {key}", self.relation, self.strength)?;
        match self.wait {
            Wait::Block => Ok(()),
            Wait::Skip => write!(f, ", skip locked"),
            Wait::Fail => write!(f, ", no wait"),
        }
    }
}

fn text_of(alias: &str, column: &str) -> String {
    format!("{alias}.{}::pg_catalog.text", escape_identifier(column))
}

/// One FOR UPDATE, or its like.
pub(super) struct Clause {
    strength: Strength,
    /// The tables it names; none: all.
    pub(super) of: Vec<String>,
    wait: Wait,
}

/// The clauses of row locks.
pub(super) fn clauses(sql: &[u8], tokens: &[Token]) -> Option<Vec<Clause>> {
    let mut words = Words::new(sql, tokens);
    let mut clauses = Vec::new();
    while words.eat("for") {
        let strength = if words.eat("update") {
            Strength::Update
        } else if words.eat_all(&["no", "key", "update"]) {
            Strength::NoKeyUpdate
        } else if words.eat("share") {
            Strength::Share
        } else if words.eat_all(&["key", "share"]) {
            Strength::KeyShare
        } else {
            return None;
        };
        let mut of = Vec::new();
        if words.eat("of") {
            of.push(words.name()?);
            while words.eat_symbol(",") {
                of.push(words.name()?);
            }
        }
        let wait = if words.eat("nowait") {
            Wait::Fail
        } else if words.eat_all(&["skip", "locked"]) {
            Wait::Skip
        } else {
            Wait::Block
        };
        clauses.push(Clause { strength, of, wait });
    }
    words.is_done().then_some(clauses)
}

/// An item of the outermost FROM, with its alias.
pub(super) struct Item<'a> {
    pub(super) alias: Option<String>,
    /// The table, if it is one; `Err` is why its rows cannot be locked.
    pub(super) table: Result<&'a Relation, &'static str>,
}

/// The items of a FROM.
pub(super) fn items<'a>(query: &Query, select: &Select, context: &Context<'a>) -> Vec<Item<'a>> {
    let mut items = Vec::new();
    for table in &select.from {
        joined(table, query, context, &mut items);
    }
    items
}

fn joined<'a>(
    table: &TableWithJoins,
    query: &Query,
    context: &Context<'a>,
    items: &mut Vec<Item<'a>>,
) {
    let joins = table.joins.iter().map(|join| &join.relation);
    for factor in [&table.relation].into_iter().chain(joins) {
        if let TableFactor::NestedJoin {
            table_with_joins,
            alias: None,
        } = factor
        {
            joined(table_with_joins, query, context, items);
        } else {
            items.push(item(factor, query, context));
        }
    }
}

fn item<'a>(factor: &TableFactor, query: &Query, context: &Context<'a>) -> Item<'a> {
    let TableFactor::Table {
        name: object,
        alias,
        args: None,
        sample: None,
        ..
    } = factor
    else {
        return Item {
            alias: None,
            table: Err("It locks rows of a subquery or a function."),
        };
    };
    let renamed = alias
        .as_ref()
        .is_some_and(|alias| !alias.columns.is_empty());
    let Ok((schema, table)) = relation_name(object) else {
        return Item {
            alias: None,
            table: Err("It locks rows of something with a longer name."),
        };
    };
    let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
    let mut ctes = ctes.filter_map(|cte| name(&cte.alias.name).ok());
    let is_cte = schema.is_none() && ctes.any(|cte| cte == table);
    let found = context
        .relations
        .resolve(context.search_path, schema.as_deref(), &table);
    let relation = match found {
        _ if is_cte => Err("It locks rows of a common table expression."),
        _ if is_temporary(context, &table) => Err("It locks rows of a temporary table."),
        _ if renamed => Err("It gives the columns of the table other names."),
        Resolved::Known(relation) if relation.kind == RelationKind::Table => Ok(relation),
        Resolved::Known(_) => Err("It locks rows of a view."),
        Resolved::Catalog | Resolved::Unknown => Err("It locks rows of a table that is not known."),
    };
    Item {
        alias: match alias {
            Some(alias) => name(&alias.name).ok().map(Cow::into_owned),
            None => Some(table.into_owned()),
        },
        table: relation,
    }
}

/// The tables whose rows the clauses lock.
pub(super) fn tables(items: &[Item<'_>], clauses: &[Clause]) -> Result<Vec<Locked>, String> {
    let mut tables = Vec::new();
    for item in items {
        let is_of = |clause: &&Clause| {
            let named = |name: &String| item.alias.as_ref() == Some(name);
            clause.of.is_empty() || clause.of.iter().any(named)
        };
        let own = clauses.iter().filter(is_of);
        let strength = own.clone().map(|clause| clause.strength).max();
        let wait = own.map(|clause| clause.wait).max();
        let (Some(strength), Some(wait)) = (strength, wait) else {
            continue;
        };
        let relation = item.table.map_err(str::to_owned)?;
        let alias = item.alias.clone().unwrap_or_default();
        let same = items.iter().filter(|other| other.alias == item.alias);
        if same.count() > 1 {
            return Err(format!("It calls two tables \"{alias}\"."));
        }
        tables.push(locked(relation, alias, strength, wait)?);
    }
    Ok(tables)
}

fn locked(
    relation: &Relation,
    alias: String,
    strength: Strength,
    wait: Wait,
) -> Result<Locked, String> {
    let table = &relation.name;
    let place = match &relation.placement {
        Placement::Sharded(sharding) => {
            let column = relation.columns.get(sharding.column);
            let column = column.ok_or("The shard key is not known.")?;
            Place::Key(column.name.clone(), Arc::clone(&sharding.map))
        }
        Placement::Unsharded => Place::First,
        Placement::Reference => {
            return Err(format!(
                "It locks rows of the reference table \"{table}\", of which each shard has a copy."
            ));
        }
        Placement::Catalog | Placement::ReadsSharded(_) | Placement::Broken(_) => {
            return Err(format!("It locks rows of \"{table}\"."));
        }
    };
    if relation.primary_key.is_empty() {
        return Err(format!(
            "It locks rows of \"{table}\", which has no primary key to find them by."
        ));
    }
    Ok(Locked {
        relation: table.clone(),
        wait,
        alias,
        columns: relation
            .columns
            .iter()
            .map(|column| column.name.clone())
            .collect(),
        key: relation.primary_key.clone(),
        strength,
        place,
    })
}
