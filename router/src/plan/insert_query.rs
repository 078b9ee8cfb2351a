//! INSERT of what a query returns, whose rows belong to other shards than those they are made of: a workspace runs the query and
//! gives the rows the types of the table, and they are copied into the table on their shards.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "few plans and defaults are of interest"
)]

use std::ops::ControlFlow;
use std::sync::Arc;

use postgres_protocol::escape::escape_identifier;
use sqlparser::ast::{Insert, Query, SetExpr, Statement, Visit, Visitor};
use switchyard_schema::{KeyMap, ShardIndex, ShardSet, TableName};

use super::analyse::names;
use super::analyse::{Analysis, StoredKeys, differs_in_triggers, is_default};
use super::apart::{Understood, several};
use super::given::GivenColumn;
use super::insert_place::{Place, place};
use super::learned::Learned;
use super::moment::{Clock, Moments};
use super::overriding::Overriding;
use super::parse;
use super::refusal::Refusal;
use super::route::{KeyRoute, StoredAs, Target};
use super::workspace::sequences_of;
use super::{Operator, Plan, Planner, Workspace};
use crate::relations::{DefaultValue, Placement, Relation, RelationKind};

/// An INSERT of a query's rows.
#[derive(Debug, Clone)]
pub struct FromQuery {
    /// What runs the query.
    pub workspace: Workspace,
    /// The table, in SQL.
    table: String,
    /// Its columns as the rows have them, in SQL; where none are listed, all: a query may return fewer.
    columns: Vec<String>,
    listed: bool,
    /// Columns whose values are not stored, in SQL: they take their defaults.
    ignored: Vec<String>,
    /// Columns that the workspace gives their defaults.
    defaults: Vec<Default>,
    stored: Stored,
    /// There are values of the moment in the query, or such defaults.
    pub moments: bool,
    /// What stands behind the query, if anything does: COPY cannot store the rows, then.
    pub clauses: Option<Clauses>,
    /// The query is computed first: what PostgreSQL has said of its columns.
    pub first: Option<Arc<Learned>>,
}

/// Where rows are stored.
#[derive(Debug, Clone)]
enum Stored {
    /// Each on the shard of its key, a column of this name, in SQL.
    Keyed {
        key: String,
        map: Arc<KeyMap>,
        column: StoredAs,
    },
    /// All of them in every copy of a reference table.
    Everywhere,
    /// All of them on the first shard.
    First,
}

/// ON CONFLICT and RETURNING behind a query.
#[derive(Debug, Clone)]
pub struct Clauses {
    /// There is an ON CONFLICT.
    on_conflict: bool,
    /// There is a RETURNING.
    pub returns: bool,
    /// What they call the table, in SQL, if that is not its name.
    alias: Option<String>,
    /// The table's columns, by their names in SQL: how their values are given.
    columns: Vec<(String, GivenColumn)>,
}

/// A column whose default the shards would each compute otherwise, a value of the moment or the next one of a sequence, or that decides
/// which shard it is.
#[derive(Debug, Clone)]
struct Default {
    /// Its position among the table's columns.
    position: usize,
    /// In SQL.
    name: String,
    expression: Box<str>,
    of_moment: bool,
    of_sequence: bool,
}

/// The table of a workspace that gives the rows their types.
const ROWS: &str = "pg_temp.\"switchyard rows\"";

/// The column of that table for values of this one that are not stored.
fn aside(name: &str) -> String {
    escape_identifier(&format!("switchyard ignores {name}"))
}

/// What is done for an execution of it.
#[derive(Debug)]
pub(crate) struct Steps {
    /// Makes the table in the workspace.
    pub(crate) make: String,
    /// Before the query: puts its rows there.
    pub(crate) fill: String,
    /// Takes them out.
    pub(crate) take: String,
    /// Copies those of one shard into the table.
    pub(crate) copy: String,
    /// The columns of a row, in SQL.
    all: Vec<String>,
    /// The shard key's position in a row; `None` where all rows go to the same shards.
    pub(crate) key: Option<usize>,
}

impl FromQuery {
    /// The query in its place, with the common table expressions in front of the INSERT; all else blank. There may be an ON CONFLICT behind it.
    pub(crate) fn query(sql: &[u8], on_conflict: bool) -> Option<Vec<u8>> {
        let end = u32::try_from(sql.len()).ok()?;
        let Place { ctes, query } = place(sql, &parse::tokens(sql, 0..end).ok()?, on_conflict)?;
        let bytes = sql.iter().enumerate().take(query.end);
        let kept = |at: &usize| ctes.contains(at) || query.contains(at);
        let bytes = bytes.map(|(at, byte)| if kept(&at) { *byte } else { b' ' });
        Some(bytes.collect())
    }

    /// What is done for a query that returns so many columns, at this time if it matters.
    pub(crate) fn steps(&self, width: usize, clock: Option<&Clock>) -> Result<Steps, Refusal> {
        let listed = match self.listed {
            true => &self.columns,
            false => self.columns.get(..width).unwrap_or(&self.columns),
        };
        let defaults = self.defaults.iter();
        let is_ignored = |name: &String| self.ignored.contains(name);
        let defaults = defaults
            .filter(|column| self.listed || column.position >= width || is_ignored(&column.name));
        let defaults: Vec<&Default> = defaults
            .filter(|column| clock.is_some() || !column.of_moment)
            .collect();
        let names = defaults.iter().map(|column| column.name.clone());
        let stored = listed.iter().filter(|name| !is_ignored(name)).cloned();
        let all: Vec<String> = stored.chain(names).collect();
        let key = match &self.stored {
            Stored::Keyed { key, .. } => Some(all.iter().position(|name| name == key)),
            Stored::Everywhere | Stored::First => None,
        };
        if key == Some(None) {
            let what = "an INSERT of a query's rows without their shard key";
            return Err(Refusal::not_supported(what).hint("Let the query return the shard key."));
        }
        let names = all;
        let all = names.join(", ");
        let ignored = self.ignored.iter();
        let ignored: String = ignored
            .map(|name| format!(", {name} AS {}", aside(name)))
            .collect();
        let listed = listed.iter().map(|name| match is_ignored(name) {
            true => aside(name),
            false => name.clone(),
        });
        let listed: Vec<String> = listed.collect();
        let listed = listed.join(", ");
        let mut make = format!(
            "CREATE TEMPORARY TABLE {ROWS} AS SELECT {all}{ignored} FROM {} WITH NO DATA",
            self.table
        );
        for column in defaults {
            let value = match clock.filter(|_| column.of_moment) {
                Some(clock) => Moments::given(&column.expression, clock),
                None => column.expression.to_string(),
            };
            make.push_str(&format!(
                "; ALTER TABLE {ROWS} ALTER {} SET DEFAULT {value}",
                column.name
            ));
        }
        Ok(Steps {
            make,
            fill: format!("INSERT INTO {ROWS} ({listed}) "),
            take: format!("SELECT {all} FROM {ROWS}"),
            copy: format!("COPY {} ({all}) FROM STDIN (FORMAT binary)", self.table),
            all: names,
            key: key.flatten(),
        })
    }

    /// Whether there is an ON CONFLICT behind the query.
    pub(crate) fn has_conflict(&self) -> bool {
        self.clauses
            .as_ref()
            .is_some_and(|clauses| clauses.on_conflict)
    }

    /// The columns of rows that are stored with clauses.
    pub(crate) fn given(&self, steps: &Steps) -> Option<Vec<&GivenColumn>> {
        let clauses = self.clauses.as_ref()?;
        let columns = steps.all.iter().map(|name| clauses.column(name));
        columns.collect()
    }

    /// Stores rows, which are given as arrays from this parameter on, with the clauses of the statement.
    pub(crate) fn store(
        &self,
        sql: &[u8],
        steps: &Steps,
        first: usize,
        clock: Option<&Clock>,
    ) -> Option<Vec<u8>> {
        let clauses = self.clauses.as_ref()?;
        let end = u32::try_from(sql.len()).ok()?;
        let Place { query, .. } =
            place(sql, &parse::tokens(sql, 0..end).ok()?, clauses.on_conflict)?;
        let alias = clauses.alias.as_ref();
        let alias = alias.map_or(String::new(), |alias| format!(" AS {alias}"));
        let (mut arrays, mut names, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (at, column) in self.given(steps)?.into_iter().enumerate() {
            let element = column.element();
            arrays.push(format!("pg_catalog.unnest(${}::{element}[])", first + at));
            names.push(format!("c{at}"));
            values.push(match column.as_text {
                true => format!("c{at}::{}", column.sql_type.name),
                false => format!("c{at}"),
            });
        }
        let (all, arrays, names) = (steps.all.join(", "), arrays.join(", "), names.join(", "));
        let values = values.join(", ");
        let text = format!(
            "INSERT INTO {}{alias} ({all}) OVERRIDING SYSTEM VALUE SELECT {values} FROM ROWS FROM ({arrays}) AS given ({names}) ",
            self.table
        );
        let clauses = self.at(sql.get(query.end..)?.to_vec(), clock);
        Some([text.into_bytes(), clauses].concat())
    }

    /// The shards that rows may belong to, of so many.
    pub(crate) fn shards(&self, count: usize) -> ShardSet {
        match &self.stored {
            Stored::Keyed { map, .. } => map.shards(),
            Stored::Everywhere => ShardSet::all(count),
            Stored::First => ShardSet::one(ShardIndex::FIRST),
        }
    }

    /// Which get which, for people.
    pub(super) fn places(&self) -> &'static str {
        match &self.stored {
            Stored::Everywhere => "all of them on every shard",
            Stored::Keyed { .. } => "each on its shard",
            Stored::First => "all of them on the first shard",
        }
    }

    /// Whether all of them get all rows.
    pub(crate) fn is_everywhere(&self) -> bool {
        matches!(self.stored, Stored::Everywhere)
    }

    /// The shard of a row with this key, in binary. One that PostgreSQL refuses goes to any.
    pub(crate) fn shard(&self, key: Option<&[u8]>) -> Option<ShardIndex> {
        match &self.stored {
            Stored::Keyed { map, column, .. } => column.shard(map, key),
            Stored::Everywhere | Stored::First => Some(ShardIndex::FIRST),
        }
    }

    /// Whether rows take values of sequences: the workspace is where the first shard is, then.
    pub(crate) fn takes_next(&self) -> bool {
        self.workspace.at_first
    }

    /// The text of the query with the time in it.
    pub(crate) fn at(&self, text: Vec<u8>, clock: Option<&Clock>) -> Vec<u8> {
        let Some(clock) = clock else {
            return text;
        };
        let end = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let tokens = parse::tokens(&text, 0..end).unwrap_or_default();
        Moments::find(&text, &tokens).text(&text, clock)
    }
}

impl Clauses {
    fn of(insert: &Insert, relation: &Relation) -> Result<Option<Self>, String> {
        let ordered = insert
            .source
            .as_ref()
            .is_some_and(|query| query.order_by.is_some());
        let is_divided = relation.sharding().is_some();
        if insert.returning.is_some() && ordered && is_divided {
            return Err("RETURNING in the order of the query's rows is not supported where they are sent to other shards.".to_owned());
        }
        // No view takes a COPY.
        if insert.on.is_none() && insert.returning.is_none() && relation.shows.is_none() {
            return Ok(None);
        }
        if has_query(&insert.on) || has_query(&insert.returning) {
            return Err(
                "A subquery in ON CONFLICT or RETURNING would see the rows of one shard."
                    .to_owned(),
            );
        }
        let columns = relation.columns.iter().map(|column| {
            let given = GivenColumn::of(column)?;
            Some((escape_identifier(&column.name), given))
        });
        let columns: Vec<_> = columns.flatten().collect();
        // A key is read in binary.
        let key = relation.key_column().filter(|_| is_divided);
        if columns.len() < relation.columns.len() || key.is_some_and(|key| key.sql_type.is_none()) {
            return Err("Columns of composite types, and of arrays of floating-point numbers or of times with a zone, cannot be given to a statement with ON CONFLICT or RETURNING.".to_owned());
        }
        let alias = insert.table_alias.as_ref();
        let alias = alias.and_then(|alias| names::name(&alias.alias).ok());
        Ok(Some(Self {
            on_conflict: insert.on.is_some(),
            returns: insert.returning.is_some(),
            alias: alias.map(|alias| escape_identifier(&alias)),
            columns,
        }))
    }

    fn column(&self, column: &str) -> Option<&GivenColumn> {
        let mut columns = self.columns.iter();
        let (_, given) = columns.find(|(name, _)| name == column)?;
        Some(given)
    }
}

/// Whether there is a query in a part of a statement.
fn has_query(part: &impl Visit) -> bool {
    struct Queries;
    impl Visitor for Queries {
        type Break = ();
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    part.visit(&mut Queries).is_break()
}

/// Whether rows behind VALUES mean the same as a query: none has a DEFAULT. Only those that need one, for a subquery in them or for copies
/// that would differ, are taken so.
fn is_query(query: &Query, copies: bool) -> bool {
    let SetExpr::Values(values) = &*query.body else {
        return true;
    };
    let mut rows = values.rows.iter().flat_map(|row| &row.content);
    !rows.any(is_default) && (copies || has_query(values))
}

/// Whether a list has several rows.
fn is_many(analysis: &Analysis) -> bool {
    let many = |keys: &StoredKeys| matches!(keys, StoredKeys::Values(keys) if keys.len() > 1);
    analysis.stored.iter().any(|stored| many(&stored.keys))
}

/// The INSERT that a statement is, with common table expressions in front of it or without.
fn insert_of(statement: &Statement) -> Option<&Insert> {
    match statement {
        Statement::Insert(insert) => Some(insert),
        Statement::Query(query) => match &*query.body {
            SetExpr::Insert(Statement::Insert(insert)) => Some(insert),
            _ => None,
        },
        _ => None,
    }
}

impl Planner<'_> {
    /// Plans an INSERT of a query's rows that the shards cannot do by themselves.
    pub(super) fn inserted_from(&self, plan: &mut Plan, (analysis, statement, _): Understood<'_>) {
        let Some(insert) = insert_of(statement) else {
            return;
        };
        let Some(query) = insert.source.as_deref() else {
            return;
        };
        let list = analysis.inserted.as_ref();
        let copies = analysis.writes_reference.is_some();
        // What is returned of a list comes in its order.
        let is_rows = list.is_some_and(|list| {
            let unordered = list.returns && is_many(analysis);
            list.overrides.is_some() || unordered || !is_query(query, copies)
        });
        let Some(target) = analysis.target.as_ref().filter(|_| !is_rows) else {
            return;
        };
        let refusal = match &mut plan.operator {
            Operator::Refuse(refusal) => refusal,
            Operator::PassThrough(Target::Keys(KeyRoute {
                several: Some(refusal),
                ..
            })) if plan.several.is_none() => refusal,
            _ => return,
        };
        let refused = if matches!(&*query.body, SetExpr::Insert(_)) || analysis.written.len() > 1 {
            Err("A common table expression in it writes.".to_owned())
        } else {
            self.rows_of_query(analysis, target, insert)
        };
        match refused {
            Err(why) => refusal.explain(&why),
            Ok((from, guards)) => {
                plan.guards.extend(guards);
                let operator = Operator::InsertQuery(Box::new(from));
                match matches!(plan.operator, Operator::PassThrough(_)) {
                    true => plan.several = several(plan, operator),
                    false => plan.operator = operator,
                }
            }
        }
    }

    fn rows_of_query(
        &self,
        whole: &Analysis,
        (relation, listed): &(TableName, Vec<String>),
        insert: &Insert,
    ) -> Result<(FromQuery, Vec<u32>), String> {
        let relations = self.context.relations;
        let relation = relations.get(&relation.schema, &relation.name);
        let relation = relation.ok_or("The table is not known.")?;
        let stored = self.storage(relation, insert)?;
        let clauses = Clauses::of(insert, relation)?;
        let hidden = relation.hides_values();
        if let Some(column) = hidden.filter(|_| !matches!(stored, Stored::First)) {
            return Err(format!(
                "The view does not show column \"{}\", whose default each shard would compute by itself.",
                column.name
            ));
        }
        let query = FromQuery::query(self.sql, insert.on.is_some());
        let query = query.ok_or("The query is not found in its text.")?;
        let (mut workspace, first, moments, guards) = self.of_query(&query)?;
        let ignored = ignored(relation, Overriding::of(self.sql, self.tokens));
        let defaults = match &stored {
            Stored::Keyed { .. } | Stored::Everywhere => defaults(relation, listed, &ignored)?,
            Stored::First => Vec::new(),
        };
        if let Stored::Keyed { key, .. } = &stored {
            let is_listed =
                listed.is_empty() || listed.iter().any(|name| escape_identifier(name) == *key);
            if !is_listed && !defaults.iter().any(|column| column.name == *key) {
                return Err("The query does not return the shard key.".to_owned());
            }
        }
        workspace.at_first |= defaults.iter().any(|column| column.of_sequence);
        // The table's are those of the whole statement.
        workspace.sequences = sequences_of(whole);
        let columns = match listed.as_slice() {
            [] => relation
                .columns
                .iter()
                .map(|column| escape_identifier(&column.name))
                .collect(),
            listed => listed.iter().map(|name| escape_identifier(name)).collect(),
        };
        let from = FromQuery {
            workspace,
            table: format!(
                "{}.{}",
                escape_identifier(&relation.name.schema),
                escape_identifier(&relation.name.name)
            ),
            columns,
            listed: !listed.is_empty(),
            ignored: ignored.iter().map(|name| escape_identifier(name)).collect(),
            moments: moments || whole.moments || defaults.iter().any(|column| column.of_moment),
            defaults,
            clauses,
            stored,
            first,
        };
        Ok((from, guards))
    }

    /// Where the rows are stored, if every shard that does so does it as one server would.
    fn storage(&self, relation: &Relation, insert: &Insert) -> Result<Stored, String> {
        let stored = match (&relation.placement, relation.key_column()) {
            (Placement::Sharded(sharding), Some(column)) => Stored::Keyed {
                key: escape_identifier(&column.name),
                map: Arc::clone(&sharding.map),
                column: StoredAs {
                    typmod: column.typmod,
                    not_null: column.not_null,
                },
            },
            (Placement::Reference, _) => {
                self.same_on_copies(relation, insert)?;
                Stored::Everywhere
            }
            (Placement::Unsharded, _) => {
                // Rules change statements, and COPY is none of those.
                let is_plain = relation.kind == RelationKind::Table || relation.shows.is_some();
                return match is_plain && !relation.rewritten {
                    true => Ok(Stored::First),
                    false => Err("It is not a plain table.".to_owned()),
                };
            }
            _ => return Err("The table is not known.".to_owned()),
        };
        let mut varying = relation.triggers.varying.iter();
        if relation.triggers.each_statement
            || varying.any(|name| differs_in_triggers(self.context, name))
        {
            return Err("A trigger of it would do something else on each shard.".to_owned());
        }
        Ok(stored)
    }
}

/// The columns whose values are not stored.
fn ignored(relation: &Relation, overriding: Option<Overriding>) -> Vec<&str> {
    let columns = relation.columns.iter();
    let ignored = columns.filter(|column| Overriding::ignores(overriding, column));
    ignored.map(|column| &*column.name).collect()
}

/// The defaults of columns that are left out, or may be, of which the shards are given the values.
fn defaults(
    relation: &Relation,
    listed: &[String],
    ignored: &[&str],
) -> Result<Vec<Default>, String> {
    let mut found = Vec::new();
    for (position, column) in relation.columns.iter().enumerate() {
        if listed.contains(&column.name) && !ignored.contains(&&*column.name) {
            continue;
        }
        let sharding = relation.sharding();
        let once = sharding.is_none_or(|sharding| sharding.column == position);
        let of_sequence = matches!(
            column.default,
            DefaultValue::Sequence | DefaultValue::Identity
        );
        let of_moment = column.default == DefaultValue::Moment;
        let is_made = of_sequence || of_moment || once && column.default == DefaultValue::Own;
        match (column.default, &column.expression) {
            (_, Some(expression)) if is_made => found.push(Default {
                position,
                name: escape_identifier(&column.name),
                expression: expression.clone(),
                of_moment,
                of_sequence,
            }),
            (DefaultValue::Stable | DefaultValue::Volatile | DefaultValue::Elsewhere, _) => {
                return Err(format!(
                    "Each shard would compute a default of its own for column \"{}\".",
                    column.name
                ));
            }
            _ => {}
        }
    }
    Ok(found)
}
