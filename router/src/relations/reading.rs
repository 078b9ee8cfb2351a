//! Functions that only read and compute, whatever volatility they are declared with: judged by the words of their code.
//!
//! It is SQL or PL/pgSQL without a word that could do more, and so is the code of every function it mentions. Such code
//! finds tables as the client's own text does, so that it may run where other tables of the same names come first: unless
//! it was resolved when it was made, has settings or rights of its own, or names a schema.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

use switchyard_schema::TableName;

use super::code::words;
use super::introspect::{FunctionRow, Introspection};
use super::{Placement, Relation, RelationKind};
use crate::sql::{self, Lexer, Token, TokenKind};

/// Words of code that does more, or depends on where it runs.
const DOING: &[&str] = &[
    "alter",
    "analyze",
    "call",
    "cluster",
    "cmax",
    "cmin",
    "comment",
    "commit",
    "copy",
    "create",
    "ctid",
    "delete",
    "discard",
    "drop",
    "execute",
    "grant",
    "insert",
    "listen",
    "load",
    "lock",
    "merge",
    "notify",
    "only",
    "open",
    "reassign",
    "refresh",
    "regclass",
    "reindex",
    "reset",
    "revoke",
    "rollback",
    "savepoint",
    "security",
    "set",
    "share",
    "tableoid",
    "truncate",
    "unlisten",
    "update",
    "vacuum",
    "xmax",
    "xmin",
    "information_schema",
];

/// Prefixes of what reads the catalogue.
const CATALOGUE: &[&str] = &["pg_", "has_", "to_reg", "_pg_"];

/// What a function's code mentions.
struct Code<'a> {
    reads: BTreeSet<TableName>,
    calls: Vec<&'a str>,
}

/// The functions that only read and compute, by oid, with the relations that they and the functions they mention may
/// read.
pub(super) fn reading(
    found: &Introspection,
    relations: &HashMap<i64, Relation>,
) -> HashMap<i64, BTreeSet<TableName>> {
    let mut tables: HashMap<&str, Vec<&Relation>> = HashMap::new();
    let users = |relation: &&Relation| !matches!(relation.placement, Placement::Catalog);
    for relation in relations.values().filter(users) {
        let named = tables.entry(&relation.name.name).or_default();
        named.push(relation);
    }
    let mut coded: HashMap<&str, Vec<i64>> = HashMap::new();
    let mut volatile: HashSet<&str> = HashSet::new();
    for row in &found.functions {
        match row.source {
            Some(_) => coded.entry(&row.name).or_default().push(row.oid),
            None if row.volatility == "v" => drop(volatile.insert(&row.name)),
            None => {}
        }
    }
    let mut known: HashMap<i64, Code<'_>> = found
        .functions
        .iter()
        .filter_map(|row| Some((row.oid, code(row, &tables, &coded, &volatile)?)))
        .collect();
    let callees = |code: &Code<'_>| -> Vec<i64> {
        let called = code.calls.iter().filter_map(|name| coded.get(name));
        called.flatten().copied().collect()
    };
    // What mentions one that does more does more.
    loop {
        let doing: Vec<i64> = known
            .iter()
            .filter(|(_, code)| callees(code).iter().any(|oid| !known.contains_key(oid)))
            .map(|(oid, _)| *oid)
            .collect();
        if doing.is_empty() {
            break;
        }
        doing.iter().for_each(|oid| drop(known.remove(oid)));
    }
    let mut reads: HashMap<i64, BTreeSet<TableName>> = known
        .iter()
        .map(|(oid, code)| (*oid, code.reads.clone()))
        .collect();
    let mut more = true;
    while more {
        more = false;
        for (oid, code) in &known {
            let inner = callees(code).into_iter().filter_map(|oid| reads.get(&oid));
            let inner: Vec<TableName> = inner.flatten().cloned().collect();
            let own = reads.entry(*oid).or_default();
            more |= inner
                .into_iter()
                .fold(false, |more, name| own.insert(name) | more);
        }
    }
    reads
}

/// What a function's own code mentions; none if it may do more than read.
fn code<'a>(
    row: &'a FunctionRow,
    tables: &HashMap<&str, Vec<&Relation>>,
    coded: &HashMap<&'a str, Vec<i64>>,
    volatile: &HashSet<&str>,
) -> Option<Code<'a>> {
    let source = row.source.as_deref()?;
    if !matches!(row.language.as_str(), "sql" | "plpgsql") || row.kind == "p" {
        return None;
    }
    let mut code = Code {
        reads: BTreeSet::new(),
        calls: Vec::new(),
    };
    let named: Vec<String> = words(source).collect();
    for word in &named {
        let word = word.as_str();
        let does = DOING.contains(&word) || volatile.contains(word) || word.contains("_to_xml");
        // SELECT INTO makes a table in SQL, and DECLARE a cursor of the session; in PL/pgSQL they are about variables.
        let makes = matches!(word, "into" | "declare") && row.language == "sql";
        if does || makes || CATALOGUE.iter().any(|prefix| word.starts_with(prefix)) {
            return None;
        }
        for relation in tables.get(word).into_iter().flatten() {
            if relation.kind == RelationKind::Sequence {
                return None;
            }
            code.reads.insert(relation.name.clone());
        }
        code.calls
            .extend(coded.get_key_value(word).map(|(name, _)| *name));
    }
    let types = cast_to(source)?;
    let mentions = |names: &[String], relation: &TableName| {
        let same = names.iter().filter(|name| **name == relation.name);
        same.count()
    };
    // A row of its type is no row of the table.
    code.reads
        .retain(|relation| mentions(&named, relation) > mentions(&types, relation));
    let bound = row.fixed || is_bound(source, &code.reads)?;
    (code.reads.is_empty() || !bound).then_some(code)
}

/// The names that `::` stands before; none if the code cannot be taken apart.
fn cast_to(source: &str) -> Option<Vec<String>> {
    let source = source.as_bytes();
    let mut lexer = Lexer::new(source);
    let (mut found, mut after_cast) = (Vec::new(), false);
    while let Some(token) = lexer.next().ok()? {
        if after_cast {
            found.extend(sql::name(&token, source).map(Cow::into_owned));
        }
        after_cast = token.text(source) == b"::";
    }
    Some(found)
}

/// Whether any of these relations is named with its schema, or as a type, which another table of its name is not; none if the
/// code cannot be taken apart.
fn is_bound(source: &str, relations: &BTreeSet<TableName>) -> Option<bool> {
    let source = source.as_bytes();
    let mut lexer = Lexer::new(source);
    let mut tokens: Vec<Token> = Vec::new();
    while let Some(token) = lexer.next().ok()? {
        tokens.push(token);
    }
    let bound = |pair: &[Token]| {
        let [before, token] = pair else {
            return false;
        };
        let name = sql::name(token, source);
        let names = |known: &TableName| Some(known.name.as_str()) == name.as_deref();
        let cast = before.text(source) == b"::" || before.is_word(source, "as");
        cast && relations.iter().any(names)
    };
    let qualified = |three: &[Token]| match three {
        [schema, dot, table] if dot.kind == TokenKind::Punct(b'.') => {
            let (schema, table) = (sql::name(schema, source), sql::name(table, source));
            relations.iter().any(|known| {
                let schemas = Some(known.schema.as_str()) == schema.as_deref();
                schemas && Some(known.name.as_str()) == table.as_deref()
            })
        }
        _ => false,
    };
    Some(tokens.windows(2).any(bound) || tokens.windows(3).any(qualified))
}
