//! Statements around a query: EXPLAIN, DECLARE, COPY.
//!
//! The query is planned as it would be by itself. Where one shard answers it, the whole statement goes there; where several
//! would, a workspace runs the whole statement, or COPY appends what each of them copies.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kinds of statements and relations that are named are those that are treated apart"
)]

use std::ops::Range;
use std::sync::Arc;

use super::analyse::mention::{secured, varying_policy};
use super::command::{Command, CopyDirection};
use super::refusal::Refusal;
use super::route::Target;
use super::setting::unfollowed;
use super::utility::{FIRST, plan, refused};
use super::words::Words;
use super::{Access, Context, Layer, Operator, Pin, Pins, Plan, Planner};
use super::{copy_in, parse};
use crate::relations::{Placement, Relation, RelationKind, Resolved};
use crate::sql::{Token, TokenKind};

impl Planner<'_> {
    /// `EXPLAIN` of a statement for one shard goes where the statement goes; of one for several, each says its part.
    pub(super) fn explain(&self, mut words: Words<'_>) -> Plan {
        let analyze = explain_options(&mut words).analyze;
        let command = Command::Explain { analyze };
        let mut plan = self.inner(words.rest());
        let is_explained = |operator: &Operator| {
            matches!(
                operator,
                Operator::Append(_) | Operator::Merge(_) | Operator::Lock(_) | Operator::Write(_)
            )
        };
        let several = plan.several.as_ref();
        if !is_explained(&plan.operator)
            && !several.is_some_and(|several| is_explained(&several.operator))
        {
            plan = self.alone_or_apart(plan, words.rest());
        }
        let session = match plan.command {
            Command::OfCursor { .. } => "EXPLAIN of WHERE CURRENT OF is not supported",
            _ => "EXPLAIN EXECUTE is not supported yet",
        };
        let mut plan = serving(plan, &command);
        plan.effects.pins = Pins::NONE;
        plan.temporary = None;
        if !analyze {
            plan.settings.clear();
        }
        match &plan.operator {
            Operator::PassThrough(_)
            | Operator::Append(_)
            | Operator::Merge(_)
            | Operator::Workspace(_)
            | Operator::Lock(_)
            | Operator::Write(_)
            | Operator::CopyIn(_)
            | Operator::Refuse(_) => plan,
            // A plan for several rows is there for other values only.
            // What the shards plan is the update.
            Operator::Move(of) if !analyze => Plan {
                operator: Operator::Write(Box::new(of.write.clone())),
                ..plan
            },
            Operator::Insert(_)
            | Operator::InsertQuery(_)
            | Operator::Move(_)
            | Operator::Steps(_) => {
                refused(Refusal::not_supported("EXPLAIN of this statement"), command)
            }
            // What every shard does one can say.
            Operator::Broadcast(_) if !analyze => Plan {
                operator: Operator::PassThrough(FIRST),
                ..plan
            },
            Operator::Broadcast(_) => refused(
                Refusal::not_supported(
                    "EXPLAIN ANALYZE of a statement that changes all shards is not supported",
                )
                .hint("Leave out ANALYZE."),
                command,
            ),
            // What it executes, or which shard has the row, is the session's.
            Operator::Session => refused(Refusal::not_supported(session), command),
        }
    }

    pub(super) fn declare(&self, mut words: Words<'_>) -> Plan {
        let Some(name) = words.name() else {
            return self.syntax_error();
        };
        let hold = words
            .clone()
            .rest()
            .windows(2)
            .any(|pair| pair[0].is_word(self.sql, "with") && pair[1].is_word(self.sql, "hold"));
        if !words.skip_past("for") {
            return self.syntax_error();
        }
        let command = Command::Declare { name, hold };
        let plan = self.inner(words.rest());
        let named = self
            .scan
            .hint
            .as_ref()
            .is_some_and(|hint| hint.shard.is_some());
        // All rows are locked before the cursor has any.
        let locks_several = |plan: &Plan| {
            let several = matches!(
                plan.operator,
                Operator::Append(_) | Operator::Merge(_) | Operator::Lock(_)
            );
            several && plan.access == Access::LockingRead && !named && plan.settings.is_empty()
        };
        let by_session = |plan: &Plan| Plan {
            operator: Operator::Session,
            command: command.clone(),
            several: None,
            ..plan.clone()
        };
        if locks_several(&plan) {
            return by_session(&plan);
        }
        let several = plan.several.as_deref();
        let several = several.filter(|several| locks_several(several));
        let several = several.map(|several| Arc::new(by_session(several)));
        // An error in the rows is one of FETCH, which a workspace runs: only with the rows themselves.
        let plan = unfinished(self.alone_or_apart(plan, words.rest()));
        if !plan.settings.is_empty() {
            return refused(unfollowed("a setting in a cursor's query"), command);
        }
        if let Operator::Workspace(workspace) = &plan.operator
            && workspace.looks_again
        {
            let message = "a cursor whose functions see later changes is not supported over rows of several shards";
            let refusal = Refusal::not_supported(message)
                .detail("A volatile function in it reads tables.")
                .hint(
                    "Declare the function STABLE, if it may see the rows of the cursor's own time.",
                );
            return refused(refusal, command);
        }
        let is_apart = matches!(plan.operator, Operator::Workspace(_));
        let is_alone = matches!(
            plan.operator,
            Operator::PassThrough(_) | Operator::Refuse(_)
        );
        if !is_apart && !is_alone {
            let message = "this cursor over several shards is not supported";
            return refused(Refusal::not_supported(message), command);
        }
        let mut plan = serving(plan, &command);
        plan.several = several.or(plan.several);
        if hold && is_alone {
            plan.effects.pins.insert(Pin::HoldCursor);
        }
        plan
    }

    /// COPY of a table or of a query.
    pub(super) fn copy(&self, mut words: Words<'_>) -> Plan {
        let first = words.rest().first();
        if first.is_some_and(|token| token.kind == TokenKind::Punct(b'(')) {
            return self.copy_query(words);
        }
        let binary = words.eat("binary");
        let Some((schema, name)) = words.qualified_name() else {
            return self.syntax_error();
        };
        let columns = words.rest();
        words.list();
        let columns = columns.get(..columns.len() - words.rest().len());
        let from = words.eat("from");
        if !from && !words.eat("to") {
            return self.syntax_error();
        }
        let direction = match (words.is("stdin") || words.is("stdout"), from) {
            (true, true) => CopyDirection::In,
            (true, false) => CopyDirection::Out,
            (false, _) => CopyDirection::Server,
        };
        let command = Command::Copy(direction);
        let access = if from { Access::Write } else { Access::Read };
        let mut to_first = plan(Operator::PassThrough(FIRST), access, command.clone());
        to_first.effects.uses_sequences = from;
        if self.alone || self.context.temporary.contains(&name) {
            return Plan {
                access: if self.alone { access } else { Access::Write },
                ..to_first
            };
        }
        let Context {
            relations,
            search_path,
            ..
        } = self.context;
        match relations.resolve(search_path, schema.as_deref(), &name) {
            Resolved::Known(relation) => match relation.placement {
                Placement::Unsharded | Placement::Catalog => to_first,
                _ if from => match copy_in::listed(self.sql, columns.unwrap_or_default()) {
                    Some(listed) => self.copy_into(relation, &listed, binary, words),
                    None => self.syntax_error(),
                },
                _ => copy_out_of(relation, direction),
            },
            Resolved::Catalog => to_first,
            Resolved::Unknown => self.unless_new(Plan {
                unknown: Some(name),
                ..to_first
            }),
        }
    }

    fn copy_query(&self, mut words: Words<'_>) -> Plan {
        let tokens = words.rest();
        if words.list().is_none() || !words.eat("to") {
            return self.syntax_error();
        }
        let inside = tokens
            .get(1..tokens.len() - words.rest().len() - 2)
            .unwrap_or_default();
        let direction = match words.is("stdout") {
            true => CopyDirection::Out,
            false => CopyDirection::Server,
        };
        let command = Command::Copy(direction);
        let plan = self.inner(inside);
        let plan = match (&plan.operator, direction) {
            // Each shard's rows are copied, one shard's after the other's.
            (Operator::Append(_), CopyDirection::Out) => plan,
            (_, CopyDirection::Out) if returns_on_several(&plan) => plan,
            // The names of the columns are copied, too, if they are wanted.
            _ => unfinished(self.alone_or_apart(plan, inside)),
        };
        match (&plan.operator, direction) {
            (Operator::PassThrough(_) | Operator::Refuse(_), _)
            | (Operator::Append(_) | Operator::Workspace(_), CopyDirection::Out) => {
                serving(plan, &command)
            }
            (Operator::Write(_), CopyDirection::Out) if returns_on_several(&plan) => {
                serving(plan, &command)
            }
            (_, CopyDirection::Out) => refused(
                Refusal::not_supported(
                    "COPY of what a statement returns that writes on several shards is not supported",
                )
                .hint("Run the statement by itself: its RETURNING gives the rows."),
                command,
            ),
            _ => refused(several_to_a_file(), command),
        }
    }

    /// The plan of the query that the tokens are, of which one shard or a workspace answers all: another kind of plan is
    /// for rows that pass through the router.
    fn alone_or_apart(&self, plan: Plan, tokens: &[Token]) -> Plan {
        let is_either = |operator: &Operator| {
            matches!(
                operator,
                Operator::PassThrough(_) | Operator::Refuse(_) | Operator::Workspace(_)
            )
        };
        let several = plan.several.as_ref();
        if is_either(&plan.operator) && several.is_none_or(|several| is_either(&several.operator)) {
            return plan;
        }
        let context = Context {
            layer: Layer::Workspace,
            ..*self.context
        };
        let planner = Planner {
            context: &context,
            ..*self
        };
        let mut plan = planner.inner(tokens);
        if let Operator::Workspace(workspace) = &mut plan.operator {
            workspace.reason = "rows of several shards are wanted in one place".to_owned();
        }
        if let Some(several) = &plan.several
            && matches!(
                several.operator,
                Operator::Write(_)
                    | Operator::Move(_)
                    | Operator::Steps(_)
                    | Operator::Insert(_)
                    | Operator::InsertQuery(_)
            )
        {
            let message = "a write of several shards is not supported in this statement";
            let refusal = Refusal::not_supported(message).hint("Run the write by itself.");
            let refused = refused(refusal, several.command.clone());
            plan.several = Some(refused.into());
        }
        if plan.access == Access::LockingRead {
            if !is_either(&plan.operator) {
                let message = "row locks on several shards are not supported in this statement";
                let refusal = Refusal::not_supported(message).hint("Lock the rows by themselves.");
                return refused(refusal, plan.command);
            }
            plan.several = None;
        }
        plan
    }
}

/// Whether each of several shards copies what its part of a write returns: it does that by the client's own text.
fn returns_on_several(plan: &Plan) -> bool {
    let is_so =
        |plan: &Plan| matches!(&plan.operator, Operator::Write(write) if write.is_as_written());
    match &plan.several {
        Some(several) => is_so(several),
        None => is_so(plan),
    }
}

/// The plan, where the whole of the query is run in the workspace.
fn unfinished(mut plan: Plan) -> Plan {
    let unfinish = |plan: &mut Plan| {
        if let Operator::Workspace(workspace) = &mut plan.operator {
            workspace.finish = None;
        }
    };
    unfinish(&mut plan);
    if let Some(several) = &mut plan.several {
        unfinish(Arc::make_mut(several));
    }
    plan
}

/// The plan, as that of the statement around its query.
fn serving(mut plan: Plan, command: &Command) -> Plan {
    plan.command = command.clone();
    if let Some(several) = plan.several.take() {
        let several = Plan {
            command: command.clone(),
            ..Plan::clone(&several)
        };
        plan.several = Some(several.into());
    }
    plan
}

/// COPY of a relation that is not on the first shard alone.
fn copy_out_of(relation: &Relation, direction: CopyDirection) -> Plan {
    let any = Operator::PassThrough(Target::AnyShard);
    let varying = relation.policies.varying.as_ref();
    let apart = varying.map(|name| varying_policy(relation, name));
    if let Some(refusal) = secured(relation).or(apart) {
        return refused(refusal, Command::Copy(direction));
    }
    let operator = match (&relation.placement, direction) {
        (Placement::Reference, _) => any,
        // PostgreSQL copies tables only, and says so.
        (Placement::ReadsSharded(_) | Placement::Sharded(_), _)
            if relation.kind == RelationKind::View =>
        {
            any
        }
        (Placement::Sharded(_), CopyDirection::Out) => Operator::Append(Target::AllShards),
        (Placement::Broken(reason), _) => Operator::Refuse(Box::new(
            Refusal::not_supported(format!(
                "COPY of the table \"{}\" is not supported",
                relation.name
            ))
            .detail(reason.clone()),
        )),
        _ => Operator::Refuse(Box::new(several_to_a_file())),
    };
    plan(operator, Access::Read, Command::Copy(direction))
}

/// A file or a program of a server's would get the rows of one shard, or none.
fn several_to_a_file() -> Refusal {
    Refusal::not_supported(
        "COPY of rows of several shards to a file or program of a server is not supported",
    )
    .hint("Copy TO STDOUT, or restrict the shard key so that one shard has all the rows.")
}

/// The query in a statement around one, everything before it blanks, so that PostgreSQL counts error positions as it
/// would in the whole; a query by itself is the whole.
pub(crate) fn query_within(sql: &[u8], command: &Command) -> Vec<u8> {
    let Some(range) = query_range(sql, command) else {
        return sql.to_vec();
    };
    let (start, end) = (range.start as usize, range.end as usize);
    let before = sql.get(..start).unwrap_or_default();
    // Positions are counted in characters, so one blank stands for one character.
    let characters = before.iter().filter(|byte| (**byte as i8) >= -0x40).count();
    let mut query = vec![b' '; characters];
    query.extend_from_slice(sql.get(start..end).unwrap_or_default());
    query
}

/// Whether a DECLARE asks for a cursor that gives its rows in binary.
pub(crate) fn cursor_is_binary(sql: &[u8]) -> bool {
    let tokens = all_tokens(sql);
    let mut words = Words::new(sql, &tokens);
    words.eat("declare");
    words.next();
    words.eat_any(&["asensitive", "insensitive"]);
    words.eat("binary")
}

fn query_range(sql: &[u8], command: &Command) -> Option<Range<u32>> {
    let tokens = all_tokens(sql);
    let mut words = Words::new(sql, &tokens);
    match command {
        Command::Copy(_) => {
            words.eat("copy");
            let tokens = words.rest();
            words.list()?;
            let inside = tokens.get(1..tokens.len() - words.rest().len() - 1)?;
            Some(Words::new(sql, inside).range())
        }
        Command::Declare { .. } => words.skip_past("for").then(|| words.range()),
        Command::Explain { .. } => {
            words.eat("explain");
            explain_options(&mut words);
            Some(words.range())
        }
        _ => None,
    }
}

/// The options of EXPLAIN that matter here.
pub(crate) struct ExplainOptions {
    /// The statement is run.
    pub(crate) analyze: bool,
    /// The answer is lines of text.
    pub(crate) text: bool,
    /// Those that need no ANALYZE, as written.
    others: Vec<String>,
}

impl ExplainOptions {
    /// The text up to the statement, of an EXPLAIN that does not run it.
    pub(crate) fn without_analyze(&self) -> String {
        match self.others.is_empty() {
            true => "EXPLAIN ".to_owned(),
            false => format!("EXPLAIN ({}) ", self.others.join(", ")),
        }
    }
}

/// What EXPLAIN is asked for, and its text up to the statement it explains.
pub(crate) fn explained(sql: &[u8]) -> (ExplainOptions, &[u8]) {
    let tokens = all_tokens(sql);
    let mut words = Words::new(sql, &tokens);
    words.eat("explain");
    let options = explain_options(&mut words);
    let start = words.range().start as usize;
    (options, sql.get(..start).unwrap_or_default())
}

/// Takes the options of EXPLAIN.
fn explain_options(words: &mut Words<'_>) -> ExplainOptions {
    let mut options = ExplainOptions {
        analyze: false,
        text: true,
        others: Vec::new(),
    };
    let sql = words.sql;
    let first = words.rest().first();
    if first.is_some_and(|token| token.kind == TokenKind::Punct(b'('))
        && !starts_query(sql, words.rest())
    {
        for option in words.list().unwrap_or_default() {
            let text = sql.get(option.start as usize..option.end as usize);
            let written = String::from_utf8_lossy(text.unwrap_or_default());
            let text = written.to_ascii_lowercase();
            let mut parts = text.split_ascii_whitespace();
            let name = parts.next();
            let value = parts.next().map(|value| value.trim_matches('\''));
            match name {
                Some("analyze" | "analyse") => {
                    options.analyze = !matches!(value, Some("off" | "false" | "0"));
                }
                Some("format") => options.text = value == Some("text"),
                Some("timing" | "wal" | "serialize") => {}
                _ => options.others.push(written.into_owned()),
            }
        }
    }
    options.analyze |= words.eat_any(&["analyze", "analyse"]);
    if words.eat("verbose") {
        options.others.push("VERBOSE".to_owned());
    }
    options
}

/// Whether the tokens start with a parenthesised query.
fn starts_query(sql: &[u8], tokens: &[Token]) -> bool {
    let first = tokens
        .iter()
        .find(|token| token.kind != TokenKind::Punct(b'('));
    first.is_some_and(|token| {
        ["select", "with", "values", "table"]
            .iter()
            .any(|word| token.is_word(sql, word))
    })
}

/// Whether the rows of this COPY TO STDOUT come behind a line of their names.
pub(crate) fn copy_has_header(sql: &[u8]) -> bool {
    let tokens = all_tokens(sql);
    let mut words = Words::new(sql, &tokens);
    if !words.skip_past("stdout") {
        return false;
    }
    words.eat("with");
    let is_off = |words: &Words<'_>| {
        let value = words.rest().first().map(|token| token.text(sql));
        let value = value.map(|value| value.to_ascii_lowercase());
        matches!(
            value.as_deref(),
            Some(b"false" | b"off" | b"0" | b"'false'" | b"'off'" | b"'0'")
        )
    };
    if words.eat_symbol("(") {
        return words
            .split()
            .any(|mut option| option.eat("header") && !is_off(&option));
    }
    // Words, as before PostgreSQL 9, where FORCE QUOTE lists columns, which have any names.
    let mut before = None;
    while let Some(token) = words.next() {
        let lists =
            |token: &&Token| token.kind == TokenKind::Punct(b',') || token.is_word(sql, "quote");
        if token.is_word(sql, "header") && !before.as_ref().is_some_and(lists) {
            return true;
        }
        before = Some(token);
    }
    false
}

fn all_tokens(sql: &[u8]) -> Vec<Token> {
    let end = u32::try_from(sql.len()).unwrap_or(u32::MAX);
    // The text has been planned, so it can be cut into tokens.
    parse::tokens(sql, 0..end).unwrap_or_default()
}
