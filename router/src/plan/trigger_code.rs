//! What the code of a sharded table's triggers does with sharded tables. It runs on the shard of the row that is written, sees the rows of
//! that shard only, and stores rows there.
//!
//! Each statement of the code that mentions such a table is planned with the row's shard key as its first parameter: it must be one for the
//! shard of that key. What is not PL/pgSQL of the usual forms counts as a statement for other shards.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "few plans are for one shard"
)]

use switchyard_schema::{KeyMap, TableName};

use super::analyse;
use super::decide;
use super::parse;
use super::route::{KeyExpr, KeySet, Need, Source, Target};
use super::{Context, Operator};
use crate::relations::{Placement, Relation};
use crate::sql::{self, Lexer, Scan, Token, TokenKind};

/// What a trigger does, when this table is written, if it may use rows that are not on the shard of the row that fires it.
pub(super) fn strays(first: &Relation, context: &Context<'_>) -> Option<String> {
    let context = Context {
        in_trigger: true,
        ..*context
    };
    let mut found = vec![first.name.clone()];
    let mut at = 0;
    while let Some(name) = found.get(at) {
        let relation = context.relations.get(&name.schema, &name.name)?;
        let (Some(key), Some(sharding)) = (relation.key_column(), relation.sharding()) else {
            at += 1;
            continue;
        };
        for source in &relation.triggers.beside {
            let code = Code::of(source, &key.name, &sharding.map);
            let Some(written) = code.and_then(|code| code.written(&context)) else {
                return Some(match relation.name == first.name {
                    true => "may use rows with other shard keys".to_owned(),
                    false => format!(
                        "may write table \"{}\", a trigger of which may use rows with other shard keys",
                        relation.name
                    ),
                });
            };
            let new = written.into_iter().filter(|name| !found.contains(name));
            let new: Vec<TableName> = new.collect();
            found.extend(new);
        }
        at += 1;
    }
    None
}

/// The code of a trigger of a table.
struct Code<'a> {
    source: &'a [u8],
    tokens: Vec<Token>,
    /// The table's shard key.
    key: &'a str,
    map: &'a KeyMap,
}

impl<'a> Code<'a> {
    fn of(source: &'a str, key: &'a str, map: &'a KeyMap) -> Option<Self> {
        let source = source.as_bytes();
        let mut lexer = Lexer::new(source);
        let mut tokens = Vec::new();
        while let Some(token) = lexer.next().ok()? {
            tokens.push(token);
        }
        Some(Code {
            source,
            tokens,
            key,
            map,
        })
    }

    /// The sharded tables it writes; `None` if it may use rows of other shards.
    fn written(&self, context: &Context<'_>) -> Option<Vec<TableName>> {
        let mut written = Vec::new();
        for piece in self.pieces() {
            if self.mentions(piece, context) {
                written.extend(self.planned(&self.query(piece)?, context)?);
            }
        }
        Some(written)
    }

    /// Its statements, and the conditions of others, by their tokens.
    fn pieces(&self) -> Vec<&[Token]> {
        let mut pieces = Vec::new();
        let mut rest = self.tokens.as_slice();
        while let Some(first) = rest.first() {
            if self.is_any(first, &["begin", "declare", "else", "loop", "then"]) {
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            let is_sql = self.is_any(first, &QUERIES);
            let ends = |token: &Token| {
                token.kind == TokenKind::Punct(b';')
                    || !is_sql && self.is_any(token, &["then", "loop"])
            };
            let end = rest.iter().position(ends).unwrap_or(rest.len());
            let (piece, after) = rest.split_at(end);
            pieces.push(piece);
            rest = after.get(1..).unwrap_or_default();
        }
        pieces
    }

    /// Whether a sharded table is named.
    fn mentions(&self, piece: &[Token], context: &Context<'_>) -> bool {
        let name = |at: usize| sql::name(piece.get(at)?, self.source);
        (0..piece.len()).any(|at| {
            let qualifier = match at.checked_sub(2) {
                Some(before) if self.is_dot(piece.get(at - 1)) => name(before),
                _ => None,
            };
            let Some(name) = name(at) else {
                return piece
                    .get(at)
                    .is_some_and(|token| token.kind == TokenKind::UnicodeIdent);
            };
            let mut relations = context.relations.named(&name);
            relations.any(|relation| {
                let is_it = qualifier
                    .as_ref()
                    .is_none_or(|schema| *schema == relation.name.schema);
                let whole = matches!(
                    relation.placement,
                    Placement::Reference | Placement::Unsharded | Placement::Catalog
                );
                is_it && !whole
            })
        })
    }

    /// A piece as a query of its own: the row's shard key is `$1`, its other columns are `$2`, and what is not SQL's is left out.
    fn query(&self, piece: &[Token]) -> Option<String> {
        let (first, rest) = piece.split_first()?;
        let after = |is: &dyn Fn(&Token) -> bool| {
            let at = rest.iter().position(is)?;
            rest.get(at + 1..)
        };
        if self.is_any(first, &["perform"]) {
            Some(format!("SELECT {}", self.text(rest)?))
        } else if self.is_any(first, &QUERIES) {
            self.text(piece)
        } else if self.is_any(first, &["if", "elsif", "elseif", "while"]) {
            Some(format!("SELECT ({})", self.text(rest)?))
        } else if self.is_any(first, &["for"]) {
            self.text(after(&|token| self.is_any(token, &["in"]))?)
        } else {
            let assigned = after(&|token| token.text(self.source) == b":=")?;
            Some(format!("SELECT ({})", self.text(assigned)?))
        }
    }

    fn text(&self, tokens: &[Token]) -> Option<String> {
        let mut text = String::new();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let before = at.checked_sub(1).and_then(|at| tokens.get(at));
            let inserts = before.is_some_and(|token| self.is_any(token, &["insert", "merge"]));
            if self.is_any(token, &["into"]) && !inserts {
                at = self.after_targets(tokens, at + 1);
                continue;
            }
            if self.is_any(token, &["new", "old"]) && self.is_dot(tokens.get(at + 1)) {
                let column = sql::name(tokens.get(at + 2)?, self.source)?;
                text.push_str(if column == self.key { " $1" } else { " $2" });
                at += 3;
                continue;
            }
            text.push(' ');
            text.push_str(std::str::from_utf8(token.text(self.source)).ok()?);
            at += 1;
        }
        Some(text)
    }

    /// Behind a list of variables.
    fn after_targets(&self, tokens: &[Token], mut at: usize) -> usize {
        if tokens
            .get(at)
            .is_some_and(|token| self.is_any(token, &["strict"]))
        {
            at += 1;
        }
        let separates =
            |token: &&Token| matches!(token.kind, TokenKind::Punct(b'.') | TokenKind::Punct(b','));
        while tokens.get(at + 1).filter(separates).is_some() {
            at += 2;
        }
        at + 1
    }

    /// The sharded tables that a query of the code writes; `None` if it is not one for the shard of `$1`.
    fn planned(&self, text: &str, context: &Context<'_>) -> Option<Option<TableName>> {
        let mut scan = Scan::new();
        scan.scan(text.as_bytes()).ok()?;
        let tokens = parse::tokens(text.as_bytes(), 0..u32::try_from(text.len()).ok()?).ok()?;
        let statement = parse::parse(text, &tokens).ok()?;
        let source = (text.as_bytes(), tokens.as_slice());
        let (analysis, _) = analyse::analyse(&statement, None, source, &scan, context);
        let analysis = analysis.ok()?;
        if analysis.written.len() > 1 || analysis.unknown.is_some() {
            return None;
        }
        let here = match decide::decide(&analysis) {
            Operator::PassThrough(Target::Keys(route)) => {
                route.needs.iter().all(|need| self.is_own(need))
            }
            Operator::PassThrough(_) => true,
            _ => false,
        };
        here.then_some(analysis.changed)
    }

    /// Whether rows with the key `$1` are needed, and no others.
    fn is_own(&self, need: &Need) -> bool {
        let is_key = |key: &KeyExpr| {
            matches!(key.source, Source::Param { number: 1, .. })
                && key.casts.is_empty()
                && !key.negative
        };
        let own = match &need.keys {
            KeySet::Equal(key) => is_key(key),
            KeySet::AnyOf(keys) => keys.iter().all(is_key),
            _ => false,
        };
        own && need.map.colocated_with(self.map)
    }

    fn is_any(&self, token: &Token, words: &[&str]) -> bool {
        words.iter().any(|word| token.is_word(self.source, word))
    }

    fn is_dot(&self, token: Option<&Token>) -> bool {
        token.is_some_and(|token| token.kind == TokenKind::Punct(b'.'))
    }
}

/// Words that statements of SQL begin with.
const QUERIES: [&str; 7] = [
    "delete", "insert", "merge", "perform", "select", "update", "with",
];
