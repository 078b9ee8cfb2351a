//! What a session's client is to find of sequences: `currval()` and `lastval()`, given in the text where the server's session
//! does not remember them.
//!
//! Purpose: the connection that a client's statement runs on is not the one where it took a value. What it took is known by the
//! sequence's number on the first shard, whose sequences are everybody's, and stands in the place of the call. Invariants: a sequence of
//! which nothing is known is left to the server, which has an error for it; so is one that the block has used there.

use std::collections::BTreeMap;
use std::ops::Range;

use postgres_protocol::escape::escape_literal;
use switchyard_schema::ShardIndex;

use super::analyse::SEQUENCE_CALLS;
use super::edits::Edits;
use super::moment::Moments;
use super::parse;
use super::route::Target;
use super::{Command, Operator, Plan, Planner, Write};
use crate::sql::{self, Token, TokenKind};

/// The latest values that a session has taken of sequences.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    /// By the sequences' numbers.
    values: BTreeMap<u32, i64>,
    /// What `lastval()` is, and of which sequence, if that is known.
    last: Option<(i64, Option<u32>)>,
}

impl Remembered {
    /// Nothing has been taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty() && self.last.is_none()
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes note of what a server's session remembered of these sequences, and that was its last value.
    pub(crate) fn learn(&mut self, values: &[(u32, i64)], last: Option<i64>) {
        self.values.extend(values.iter().copied());
        if let Some(last) = last {
            let mut of = values.iter().filter(|(_, value)| *value == last);
            let sequence = of.next().map(|(sequence, _)| *sequence);
            self.last = Some((last, sequence.filter(|_| of.next().is_none())));
        } else if let Some((last, Some(sequence))) = &mut self.last
            && let Some(value) = self.values.get(sequence)
        {
            // By setval().
            *last = *value;
        }
    }

    /// The text with what is remembered in it, but for these sequences, which the server's own session has used, and those that the
    /// statement itself uses, from where it does. `None`: it is not read.
    pub(crate) fn text(&self, sql: &[u8], used: &[Box<str>], own: &[Box<str>]) -> Option<Vec<u8>> {
        let tokens = parse::tokens(sql, 0..u32::try_from(sql.len()).ok()?).ok()?;
        let both = [used, own].concat();
        let first = first_use(sql, &tokens);
        let mut edits = Vec::new();
        for (at, token) in tokens.iter().enumerate() {
            let is = |name| token.is_word(sql, name);
            if !is("currval") && !is("lastval") {
                continue;
            }
            let used = if at < first { used } else { &both };
            let Some(call) = Call::at(&tokens, at) else {
                continue;
            };
            let instead = match (is("currval"), &self.last) {
                (true, _) => self.current(std::str::from_utf8(sql.get(call.inside)?).ok()?, used),
                (false, Some((last, Some(sequence)))) if used.is_empty() => format!(
                    // Of a sequence that has been dropped PostgreSQL says nothing.
                    "(SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = {sequence}) \
                     THEN {}::pg_catalog.int8 ELSE pg_catalog.lastval() END AS lastval)",
                    quoted(*last)
                ),
                (false, Some((last, None))) if used.is_empty() => {
                    format!("(SELECT {}::pg_catalog.int8 AS lastval)", quoted(*last))
                }
                (false, _) => continue,
            };
            edits.push((call.place, instead.into_bytes()));
        }
        Some(Edits::new(edits).apply(sql))
    }

    fn current(&self, argument: &str, used: &[Box<str>]) -> String {
        let real = format!("pg_catalog.currval({argument})");
        let number = format!("({argument})::pg_catalog.regclass::pg_catalog.oid");
        let mut cases = String::new();
        for used in used {
            cases.push_str(&format!(" WHEN ({used})::pg_catalog.regclass THEN {real}"));
        }
        for (sequence, value) in &self.values {
            let value = quoted(*value);
            cases.push_str(&format!(" WHEN {sequence} THEN {value}::pg_catalog.int8"));
        }
        match cases.is_empty() {
            true => format!("(SELECT {real} AS currval)"),
            false => format!("(SELECT CASE {number}{cases} ELSE {real} END AS currval)"),
        }
    }
}

/// Where a statement begins to use sequences itself. One row's expressions are computed in the order of the text; of any other statement nobody
/// knows what comes first.
fn first_use(sql: &[u8], tokens: &[Token]) -> usize {
    let is = |token: &Token, names: &[&str]| names.iter().any(|name| token.is_word(sql, name));
    let selects = tokens.first().is_some_and(|first| is(first, &["select"]));
    let several = ["from", "select", "union", "intersect", "except"];
    let mut rest = tokens.iter().skip(1);
    match selects && !rest.any(|token| is(token, &several)) {
        true => {
            let uses = |token: &Token| is(token, &["nextval", "setval"]);
            tokens.iter().position(uses).unwrap_or(tokens.len())
        }
        false => 0,
    }
}

/// A number that may be negative.
fn quoted(value: i64) -> String {
    format!("'{value}'")
}

/// A call in a text: where it is, and where its arguments are.
struct Call {
    place: Range<usize>,
    inside: Range<usize>,
}

impl Call {
    /// The call of the function whose name is this token, with PostgreSQL's schema in front.
    fn at(tokens: &[Token], at: usize) -> Option<Self> {
        let punct = |at: usize, byte| {
            let token = tokens.get(at);
            token.is_some_and(|token| token.kind == TokenKind::Punct(byte))
        };
        let first = match at >= 2 && punct(at - 1, b'.') {
            true => at - 2,
            false => at,
        };
        if !punct(at + 1, b'(') {
            return None;
        }
        let mut depth = 0_usize;
        let closes = |token: &Token| {
            if token.kind == TokenKind::Punct(b'(') {
                depth += 1;
            } else if token.kind == TokenKind::Punct(b')') {
                depth -= 1;
            }
            depth == 0
        };
        let rest = tokens.get(at + 1..)?;
        let end = at + 1 + rest.iter().position(closes)?;
        let (open, close) = (tokens.get(at + 1)?, tokens.get(end)?);
        Some(Self {
            place: tokens.get(first)?.start as usize..close.end as usize,
            inside: open.end as usize..close.start as usize,
        })
    }
}

/// The sequence that a default takes its values from, as an expression in SQL.
pub(in crate::plan) fn sequence_of(expression: &str) -> Option<Box<str>> {
    let sql = expression.as_bytes();
    let tokens = parse::tokens(sql, 0..u32::try_from(sql.len()).ok()?).ok()?;
    let calls = tokens.iter().enumerate();
    let mut calls = calls.filter(|(_, token)| token.is_word(sql, "nextval"));
    let (at, _) = calls.next()?;
    let inside = Call::at(&tokens, at)?.inside;
    // Of two nobody knows which was the last.
    calls.next().is_none().then_some(())?;
    expression.get(inside).map(Into::into)
}

/// The sequence of this name, as an expression in SQL.
pub(in crate::plan) fn sequence_named(name: &str) -> Box<str> {
    format!("{}::pg_catalog.regclass", escape_literal(name)).into()
}

impl Planner<'_> {
    /// A statement of the first shard's that reads what the session remembers of sequences may have to be given it.
    pub(super) fn remembering(&self, plan: &mut Plan) {
        let first = matches!(
            plan.operator,
            Operator::PassThrough(Target::Shard(ShardIndex::FIRST))
        );
        let is_statement = matches!(plan.command, Command::Select | Command::Write);
        let reads = plan.effects.reads_sequence_state;
        if !reads || !first || !is_statement || self.hides_sequence_call() {
            return;
        }
        plan.operator = Operator::Write(Box::new(Write {
            target: Target::Shard(ShardIndex::FIRST),
            moments: Moments::default(),
            copies: false,
            given: Vec::new(),
            ahead: Vec::new(),
            remembers: true,
        }));
    }

    /// Whether a function of sequences may be called by a name by which it is not found in the text: in quotes, or of another schema.
    pub(super) fn hides_sequence_call(&self) -> bool {
        let is_call = |name: &str| SEQUENCE_CALLS.contains(&name);
        self.tokens.iter().enumerate().any(|(at, token)| {
            let quoted = matches!(token.kind, TokenKind::QuotedIdent | TokenKind::UnicodeIdent);
            let name = sql::name(token, self.sql);
            let before = |back: usize| self.tokens.get(at.checked_sub(back)?);
            let after_dot = before(1).is_some_and(|dot| dot.kind == TokenKind::Punct(b'.'));
            let schema = before(2).filter(|_| after_dot);
            let elsewhere = schema.is_some_and(|name| !name.is_word(self.sql, "pg_catalog"));
            match quoted {
                true => name.is_none_or(|name| is_call(&name)),
                false => elsewhere && name.is_some_and(|name| is_call(&name)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_stands_in_the_place_of_the_call() {
        let mut remembered = Remembered::default();
        remembered.learn(&[(7, 5), (8, -2)], Some(-2));
        let text = |sql: &str, used: &[Box<str>]| {
            String::from_utf8(
                remembered
                    .text(sql.as_bytes(), used, &["'o'".into()])
                    .unwrap(),
            )
            .unwrap()
        };
        assert_eq!(
            text("SELECT lastval() + 1, currvalue", &[]),
            "SELECT (SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = 8) \
             THEN '-2'::pg_catalog.int8 ELSE pg_catalog.lastval() END AS lastval) + 1, currvalue"
        );
        assert_eq!(
            text("SELECT pg_catalog.currval( concat('a', ')') )", &[]),
            "SELECT (SELECT CASE ( concat('a', ')') )::pg_catalog.regclass::pg_catalog.oid WHEN 7 THEN '5'::pg_catalog.int8 \
             WHEN 8 THEN '-2'::pg_catalog.int8 ELSE pg_catalog.currval( concat('a', ')') ) END AS currval)"
        );
        let of_itself = "SELECT currval('o'), nextval('o'), currval('o'), lastval()";
        let known = " WHEN 7 THEN '5'::pg_catalog.int8 WHEN 8 THEN '-2'::pg_catalog.int8";
        let real = "pg_catalog.currval('o')";
        assert_eq!(
            text(of_itself, &[]),
            format!(
                "SELECT (SELECT CASE ('o')::pg_catalog.regclass::pg_catalog.oid{known} ELSE {real} END AS currval), nextval('o'), \
                 (SELECT CASE ('o')::pg_catalog.regclass::pg_catalog.oid WHEN ('o')::pg_catalog.regclass THEN {real}{known} \
                 ELSE {real} END AS currval), lastval()"
            )
        );
        let used: Box<str> = "'s'".into();
        assert_eq!(
            text("SELECT lastval(), currval('t')", &[used]),
            "SELECT lastval(), (SELECT CASE ('t')::pg_catalog.regclass::pg_catalog.oid WHEN ('s')::pg_catalog.regclass THEN \
             pg_catalog.currval('t') WHEN 7 THEN '5'::pg_catalog.int8 WHEN 8 THEN '-2'::pg_catalog.int8 \
             ELSE pg_catalog.currval('t') END AS currval)"
        );
    }

    #[test]
    fn setval_changes_what_the_last_sequence_remembers() {
        let mut remembered = Remembered::default();
        remembered.learn(&[(7, 5), (8, 2)], Some(2));
        remembered.learn(&[(7, 50)], None);
        assert_eq!(remembered.last, Some((2, Some(8))));
        remembered.learn(&[(8, 80)], None);
        assert_eq!(remembered.last, Some((80, Some(8))));
        // Of two of one value nobody knows which was the last.
        remembered.learn(&[(7, 3), (8, 3)], Some(3));
        remembered.learn(&[(8, 9)], None);
        assert_eq!(remembered.last, Some((3, None)));
    }

    #[test]
    fn sequences_of_defaults() {
        let of = |expression| sequence_of(expression).map(String::from);
        assert_eq!(
            of("nextval('a.s'::regclass)").as_deref(),
            Some("'a.s'::regclass")
        );
        assert_eq!(
            of("pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('a.t', 'c'))").as_deref(),
            Some("pg_catalog.pg_get_serial_sequence('a.t', 'c')")
        );
        assert_eq!(
            of("('T'::text || nextval('s'::regclass))").as_deref(),
            Some("'s'::regclass")
        );
        assert_eq!(of("nextval('s'::regclass) + nextval('t'::regclass)"), None);
    }
}
