//! Statements that are neither queries nor plain writes: classified by their words.
//!
//! Most of what changes the schema runs on every shard in one transaction. What cannot run in a transaction block is
//! refused when there is more than one shard, with the way out: one shard at a time, by hint.

use switchyard_schema::ShardIndex;

use super::analyse::write::trigger_refused;
use super::command::Command;
use super::control;
use super::opaque::Mentions;
use super::refusal::{Refusal, SYNTAX_ERROR};
use super::route::Target;
use super::setting;
use super::setting::unreadable;
use super::stepwise::stepwise;
use super::words::Words;
use super::{Access, Broadcast, Context, Effects, Operator, Pin, Pins, Plan, Planner};
use crate::relations::{Changes, Relation, constant, words_of};
use crate::sql::{self, Token, TokenKind};
use crate::two_phase::is_reserved;

/// Words that PostgreSQL takes for names of nothing, or of functions and types only.
const NO_CHANNELS: &str = "\
all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate \
collation column concurrently constraint create cross current_catalog current_date current_role current_schema \
current_time current_timestamp current_user default deferrable desc distinct do else end except false fetch \
for foreign freeze from full grant group having ilike in initially inner intersect into is isnull join lateral \
leading left like limit localtime localtimestamp natural not notnull null offset on only or order outer \
overlaps placing primary references returning right select session_user similar some symmetric system_user \
table tablesample then to trailing true union unique user using variadic verbose when where window with";

/// Words a statement of PostgreSQL's can start with, besides those of queries and writes.
const FIRST_WORDS: &[&str] = &[
    "abort",
    "alter",
    "analyse",
    "analyze",
    "begin",
    "call",
    "checkpoint",
    "close",
    "cluster",
    "comment",
    "commit",
    "copy",
    "create",
    "deallocate",
    "declare",
    "discard",
    "do",
    "drop",
    "end",
    "execute",
    "explain",
    "fetch",
    "grant",
    "import",
    "listen",
    "load",
    "lock",
    "merge",
    "move",
    "notify",
    "prepare",
    "reassign",
    "refresh",
    "reindex",
    "release",
    "reset",
    "revoke",
    "rollback",
    "savepoint",
    "security",
    "set",
    "show",
    "start",
    "table",
    "truncate",
    "unlisten",
    "vacuum",
    "select",
    "insert",
    "update",
    "delete",
    "values",
    "with",
];

pub(super) const FIRST: Target = Target::Shard(ShardIndex::FIRST);

impl Planner<'_> {
    /// Plans a statement by its words.
    pub(super) fn utility(&self, tokens: &[Token]) -> Plan {
        let words = Words::new(self.sql, tokens);
        if let Some(command) = control::transaction(&words) {
            return transaction(command);
        }
        if let Some(command) = control::session(&words) {
            return self.session_command(command);
        }
        let mut words = words;
        let Some(first) = words.next() else {
            return handled(Command::Empty);
        };
        let word = String::from_utf8_lossy(first.text(self.sql)).to_ascii_lowercase();
        match word.as_str() {
            "explain" => self.explain(words),
            "declare" => self.declare(words),
            "copy" => self.copy(words),
            "listen" => self.listen(words),
            "unlisten" => self.unlisten(words),
            "notify" => self.notify(words),
            "lock" => self.lock(tokens),
            "create" | "alter" | "drop" | "comment" | "grant" | "revoke" | "security"
            | "import" | "reassign" | "refresh" => self.ddl(tokens, &word, words),
            "truncate" => self.truncate(tokens),
            "analyze" | "analyse" | "checkpoint" => self.everywhere(tokens, Command::Maintenance),
            "vacuum" | "cluster" | "reindex" => self.maintenance(tokens, &word, &words),
            "do" => self.code(tokens, Command::Do),
            "call" => self.code(tokens, Command::Call),
            "load" => self.load(),
            "prepare" | "commit" | "rollback" => self.prepared_transaction(&words),
            "set" if words.eat_all(&["transaction", "snapshot"]) && !self.alone => refused(
                Refusal::certain(
                    "0A000",
                    "importing a snapshot is not supported across shards",
                ),
                Command::Other,
            ),
            // They change the session's state. Had the router not understood what they do, that state would be of whoever has the
            // connection next.
            "abort" | "begin" | "close" | "deallocate" | "discard" | "end" | "execute"
            | "fetch" | "move" | "release" | "reset" | "savepoint" | "set" | "show" | "start" => {
                self.syntax_error()
            }
            _ if FIRST_WORDS.contains(&word.as_str()) => {
                self.opaque(tokens, Command::Other, "not parsed")
            }
            // No statement starts like this: PostgreSQL says so.
            _ => plan(
                Operator::PassThrough(Target::AnyShard),
                Access::Read,
                Command::Other,
            ),
        }
    }

    fn session_command(&self, command: Command) -> Plan {
        if let Command::Set {
            name,
            value: Some(value),
            ..
        } = &command
        {
            let item = value
                .items
                .first()
                .map(|item| item.to_ascii_lowercase())
                .unwrap_or_default();
            if let Some(refusal) = unreadable(name, &item, self.alone) {
                return refused(refusal, command);
            }
            if name == "seed" {
                return refused(
                    Refusal::certain("0A000", "SET seed is not supported")
                        .hint("Call setseed() in the transaction block that calls random()."),
                    command,
                );
            }
        }
        if let Command::Show(_) = &command {
            return plan(
                Operator::PassThrough(Target::AnyShard),
                Access::PrimaryRead,
                command,
            );
        }
        handled(command)
    }

    fn listen(&self, mut words: Words<'_>) -> Plan {
        match channel(&mut words) {
            Some(channel) => handled(Command::Listen(channel)),
            None => self.syntax_error(),
        }
    }

    fn unlisten(&self, mut words: Words<'_>) -> Plan {
        if words.eat_symbol("*") {
            return match words.is_done() {
                true => handled(Command::Unlisten(None)),
                false => self.syntax_error(),
            };
        }
        match channel(&mut words) {
            Some(channel) => handled(Command::Unlisten(Some(channel))),
            None => self.syntax_error(),
        }
    }

    fn notify(&self, mut words: Words<'_>) -> Plan {
        let Some(channel) = words.name() else {
            return self.syntax_error();
        };
        plan(
            Operator::PassThrough(FIRST),
            Access::Write,
            Command::Notify(channel),
        )
    }

    /// Locks of an unsharded table are the first shard's; of any other they are taken everywhere.
    fn lock(&self, tokens: &[Token]) -> Plan {
        let mentions = Mentions::of(self.sql, tokens, self.context);
        if self.alone || (mentions.sharded.is_none() && mentions.reference.is_none()) {
            return plan(
                Operator::PassThrough(FIRST),
                Access::LockingRead,
                Command::Lock,
            );
        }
        plan(
            Operator::Broadcast(Broadcast::Ddl),
            Access::LockingRead,
            Command::Lock,
        )
    }

    /// Rows are everywhere, but for those of unsharded tables. Triggers would run on each shard.
    fn truncate(&self, tokens: &[Token]) -> Plan {
        let mentions = Mentions::of(self.sql, tokens, self.context);
        let cascades = tokens
            .iter()
            .any(|token| token.is_word(self.sql, "cascade"));
        let function = |relation: &Relation| match cascades {
            true => relation.on_truncate_cascade.clone(),
            false => relation.on_truncate.clone(),
        };
        let named = |token: &Token| {
            let name = sql::name(token, self.sql)?;
            let mut relations = self.context.relations.named(&name);
            relations.find_map(|relation| Some((relation, function(relation)?)))
        };
        if let (false, Some((relation, function))) = (self.alone, tokens.iter().find_map(named)) {
            let what = format!(
                "runs function \"{function}\" once for a statement, and would run it once on each shard"
            );
            let refusal =
                trigger_refused(relation, &what).hint("Use DELETE, or disable the trigger.");
            return refused(refusal, Command::Other);
        }
        if mentions.sharded.is_none() && mentions.reference.is_none() && !cascades {
            return plan(Operator::PassThrough(FIRST), Access::Write, Command::Other);
        }
        self.everywhere(tokens, Command::Other)
    }

    /// On every shard, or where a temporary table is.
    fn everywhere(&self, tokens: &[Token], command: Command) -> Plan {
        let mentions = Mentions::of(self.sql, tokens, self.context);
        let operator = if self.alone || mentions.temporary {
            Operator::PassThrough(FIRST)
        } else {
            Operator::Broadcast(Broadcast::Ddl)
        };
        plan(operator, Access::Write, command)
    }

    fn maintenance(&self, tokens: &[Token], word: &str, words: &Words<'_>) -> Plan {
        let in_block = match word {
            "cluster" => !words.is_done(),
            "reindex" => {
                let whole = ["concurrently", "database", "system", "schema"];
                !whole.iter().any(|word| words.has(word))
            }
            _ => false,
        };
        if word == "vacuum" && self.is_of_unsharded_tables(tokens) {
            return plan(
                Operator::PassThrough(FIRST),
                Access::Write,
                Command::Maintenance,
            );
        }
        let plan = self.everywhere(tokens, Command::Maintenance);
        if matches!(plan.operator, Operator::Broadcast(_)) && !in_block {
            return stepwise(plan.command);
        }
        plan
    }

    /// The statement names tables, and all their rows are on the first shard.
    fn is_of_unsharded_tables(&self, tokens: &[Token]) -> bool {
        const OPTIONS: [&str; 5] = ["vacuum", "full", "freeze", "verbose", "analyze"];
        let mentions = Mentions::of(self.sql, tokens, self.context);
        let names_one = tokens.last().is_some_and(|last| {
            sql::name(last, self.sql).is_some()
                && !OPTIONS.iter().any(|option| last.is_word(self.sql, option))
        });
        names_one && mentions.sharded.is_none() && mentions.reference.is_none()
    }

    fn load(&self) -> Plan {
        let refusal = Refusal::not_supported("LOAD is not supported")
            .hint("Set session_preload_libraries on the servers.");
        if self.alone {
            let mut plan = plan(Operator::PassThrough(FIRST), Access::Write, Command::Other);
            plan.effects.pins = Pins::one(Pin::Library);
            return plan;
        }
        refused(refusal, Command::Other)
    }

    /// `PREPARE TRANSACTION`, `COMMIT PREPARED` and `ROLLBACK PREPARED` that are not read.
    fn prepared_transaction(&self, words: &Words<'_>) -> Plan {
        let name = words.rest().get(1).map(|name| name.kind);
        if !(words.is("transaction") || words.is("prepared"))
            || name != Some(TokenKind::OtherString)
        {
            return self.syntax_error();
        }
        refused(
            Refusal::certain(
                "0A000",
                "a transaction identifier with escapes is not supported",
            )
            .hint("Write it as a plain string."),
            Command::Other,
        )
    }

    /// `DO` and `CALL`: code that may do anything.
    fn code(&self, tokens: &[Token], command: Command) -> Plan {
        let mut plan = self.opaque(tokens, command, "code");
        plan.effects.dirty = true;
        if !matches!(plan.operator, Operator::PassThrough(_)) {
            return plan;
        }
        let changes = self.changes(tokens);
        if changes.unseen {
            plan.effects.pins.insert(Pin::Setting);
        }
        match setting::of_code(&changes) {
            Ok(settings) => Plan { settings, ..plan },
            Err(refusal) => refused(refusal, plan.command),
        }
    }

    /// The settings that the code of `DO` and `CALL` may change.
    fn changes(&self, tokens: &[Token]) -> Changes {
        let mut language = "plpgsql".to_owned();
        if let Some(at) = tokens
            .iter()
            .position(|token| token.is_word(self.sql, "language"))
        {
            language = tokens
                .get(at + 1)
                .and_then(|name| sql::name(name, self.sql))
                .unwrap_or_default()
                .into_owned();
        }
        let mut changes = Changes::default();
        let is_do = tokens
            .first()
            .is_some_and(|first| first.is_word(self.sql, "do"));
        for token in tokens {
            if let (true, Some(code)) = (is_do, constant(self.sql, token)) {
                changes.add(&Changes::of(&code, &language));
                for word in words_of(&code) {
                    self.changes_of(&word, &mut changes);
                }
            } else if is_do && token.kind == TokenKind::OtherString {
                changes.unseen = true;
            } else if let Some(name) = sql::name(token, self.sql) {
                self.changes_of(&name, &mut changes);
            }
        }
        changes
    }

    fn changes_of(&self, name: &str, changes: &mut Changes) {
        for function in self.context.relations.functions_named(name) {
            changes.add(&function.changes);
        }
    }

    /// What is not well formed: PostgreSQL says so, and it does not matter which.
    /// The plan, unless it names a table that is configured and not known: by now it may be there, and its rows are not to be looked for,
    /// or stored, on the first shard. PostgreSQL says so where there is none.
    pub(super) fn unless_new(&self, plan: Plan) -> Plan {
        let relations = self.context.relations;
        let is_new = |name: &&String| !self.alone && relations.is_configured(name);
        let Some(name) = plan.unknown.as_ref().filter(is_new) else {
            return plan;
        };
        if let Command::Copy(_) = plan.command {
            // PostgreSQL looks at no COPY without running it.
            let missing = format!("relation \"{name}\" does not exist");
            return refused(Refusal::certain("42P01", missing), plan.command);
        }
        let message =
            format!("table \"{name}\" is too new: the router has not read its definition yet");
        let refusal = Refusal {
            sqlstate: "55000",
            ..Refusal::not_supported(message)
        };
        Plan {
            operator: Operator::Refuse(Box::new(refusal.hint("Run the statement again."))),
            key_params: Vec::new(),
            several: None,
            ..plan
        }
    }

    pub(super) fn syntax_error(&self) -> Plan {
        let refusal = Refusal::not_supported("this form of the statement is not supported")
            .hint("Write names and constants plainly, without escapes.");
        refused(refusal, Command::Other)
    }
}

/// The channel that stands for itself at the end of a statement. What PostgreSQL does not take for one is none.
fn channel(words: &mut Words<'_>) -> Option<String> {
    let is_quoted = words.rest().first()?.kind == TokenKind::QuotedIdent;
    let channel = words.name()?;
    (words.is_done() && (is_quoted || !NO_CHANNELS.split(' ').any(|word| word == channel)))
        .then_some(channel)
}

/// A plan without particular effects.
pub(super) fn plan(operator: Operator, access: Access, command: Command) -> Plan {
    Plan {
        operator,
        access,
        effects: Effects::default(),
        command,
        params: 0,
        key_params: Vec::new(),
        guards: Vec::new(),
        unknown: None,
        sequences: Vec::new(),
        temporary: None,
        settings: Vec::new(),
        node: None,
        several: None,
        unique: None,
        steady: false,
        located: None,
    }
}

/// A statement the session handles.
fn handled(command: Command) -> Plan {
    plan(Operator::Session, Access::Read, command)
}

/// A statement about a transaction.
fn transaction(command: Command) -> Plan {
    if let Command::PrepareTransaction(name) | Command::EndPrepared { name, .. } = &command
        && is_reserved(name)
    {
        let message = format!("transaction identifier \"{name}\" is reserved");
        let refusal = Refusal::certain("42939", message)
            .detail("The router gives names that begin with \"switchyard.\" to parts of transactions on several shards, and ends them itself.");
        return refused(refusal, Command::Other);
    }
    handled(command)
}

pub(super) fn refused(refusal: Refusal, command: Command) -> Plan {
    plan(Operator::Refuse(Box::new(refusal)), Access::Write, command)
}

/// An error in a hint.
pub(super) fn bad_hint(message: String) -> Plan {
    refused(
        Refusal::certain(SYNTAX_ERROR, message).hint("A hint is /* switchyard: shard=NAME */, /* switchyard: primary */ or /* switchyard: replica */."),
        Command::Other,
    )
}

/// Whether a name is that of a temporary relation of the session.
pub(super) fn is_temporary(context: &Context<'_>, name: &str) -> bool {
    context.temporary.iter().any(|temporary| temporary == name)
}
