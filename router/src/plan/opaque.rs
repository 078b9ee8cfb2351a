//! Statements that are not understood: judged by the names in them, and never scattered.

use switchyard_schema::ShardIndex;

use super::command::Command;
use super::parse::Opaque;
use super::refusal::Refusal;
use super::route::Target;
use super::utility::{is_temporary, plan, refused};
use super::workspace;
use super::{Access, Context, Operator, Plan, Planner};
use crate::relations::{Placement, runs_text};
use crate::sql::{self, Lexer, Token, TokenKind};

/// What the names in a statement may refer to, whatever their place. Constants count: they may hold code.
#[derive(Debug, Default)]
pub(super) struct Mentions {
    /// A sharded relation, something that reads one, or a function that does.
    pub(super) sharded: Option<String>,
    /// A reference relation.
    pub(super) reference: Option<String>,
    /// A temporary relation of the session.
    pub(super) temporary: bool,
    /// Code that runs text as SQL.
    pub(super) dynamic: Option<String>,
    /// A word that writes.
    pub(super) writes: bool,
}

/// How deep constants inside constants are read.
const DEPTH: u32 = 4;

impl Mentions {
    /// Everything named, in code inside constants too.
    pub(super) fn of(sql: &[u8], tokens: &[Token], context: &Context<'_>) -> Mentions {
        let mut mentions = Mentions::default();
        for token in tokens {
            mentions.token(sql, token, context, 0);
        }
        mentions
    }

    /// What a query or write names: its constants are data. (If something in it runs text, it is refused for that.)
    fn of_query(sql: &[u8], tokens: &[Token], context: &Context<'_>) -> Mentions {
        let mut mentions = Mentions::default();
        let mut after_as = false;
        for token in tokens {
            // After AS stands no relation.
            if !(after_as && token.kind == TokenKind::UnicodeIdent) {
                mentions.token(sql, token, context, DEPTH);
            }
            after_as = token.is_word(sql, "as");
        }
        mentions
    }

    fn token(&mut self, text: &[u8], token: &Token, context: &Context<'_>, depth: u32) {
        match token.kind {
            TokenKind::Word | TokenKind::QuotedIdent => {
                if let Some(name) = sql::name(token, text) {
                    self.name(&name, context);
                }
            }
            TokenKind::UnicodeIdent => {
                // The name is not worked out: it may be any.
                self.sharded.get_or_insert_with(|| "U&\"…\"".to_owned());
            }
            TokenKind::String | TokenKind::OtherString if depth < DEPTH => {
                let plain = |byte: &u8| {
                    if matches!(byte, b'\'' | b'$' | b'\\') {
                        b' '
                    } else {
                        *byte
                    }
                };
                let inside: Vec<u8> = token.text(text).iter().map(plain).collect();
                self.constant(&inside, context, depth + 1);
            }
            TokenKind::String
            | TokenKind::OtherString
            | TokenKind::Integer
            | TokenKind::Decimal
            | TokenKind::OtherNumber
            | TokenKind::Param
            | TokenKind::Operator
            | TokenKind::Punct(_) => {}
        }
    }

    fn constant(&mut self, inside: &[u8], context: &Context<'_>, depth: u32) {
        let mut lexer = Lexer::new(inside);
        loop {
            match lexer.next() {
                Ok(Some(token)) => self.token(inside, &token, context, depth),
                Ok(None) => return,
                Err(_) => {
                    let text = String::from_utf8_lossy(inside).to_ascii_lowercase();
                    let part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
                    text.split(|c| !part(c))
                        .filter(|word| !word.is_empty())
                        .for_each(|word| self.name(word, context));
                    return;
                }
            }
        }
    }

    fn name(&mut self, name: &str, context: &Context<'_>) {
        self.temporary |= is_temporary(context, name);
        self.writes |= matches!(
            name,
            "insert" | "update" | "delete" | "merge" | "truncate" | "copy"
        );
        if name == "execute" || runs_text(name) {
            self.dynamic
                .get_or_insert_with(|| name.to_ascii_uppercase());
        }
        let relations = context.relations;
        if relations.is_configured(name) && relations.named(name).next().is_none() {
            self.sharded.get_or_insert_with(|| name.to_owned());
        }
        for relation in relations.named(name) {
            match &relation.placement {
                Placement::Sharded(_) | Placement::Broken(_) | Placement::ReadsSharded(_) => {
                    self.sharded
                        .get_or_insert_with(|| relation.name.to_string());
                }
                Placement::Reference => {
                    self.reference
                        .get_or_insert_with(|| relation.name.to_string());
                }
                Placement::Unsharded | Placement::Catalog => {}
            }
        }
        for function in context.relations.functions_named(name) {
            if let Some(table) = &function.reads_sharded {
                self.sharded.get_or_insert_with(|| table.to_string());
            }
            if let Some(table) = &function.writes_reference {
                self.writes = true;
                self.reference.get_or_insert_with(|| table.to_string());
            }
            if function.dynamic {
                self.dynamic.get_or_insert_with(|| name.to_owned());
            }
        }
    }
}

impl Planner<'_> {
    /// A statement that is not understood: the first shard's primary, if nothing in it can be about another one.
    pub(super) fn opaque(&self, tokens: &[Token], command: Command, why: Opaque) -> Plan {
        let mut to_first = plan(
            Operator::PassThrough(Target::Shard(ShardIndex::FIRST)),
            Access::Write,
            command.clone(),
        );
        to_first.effects.uses_sequences = true;
        if self.alone {
            return to_first;
        }
        let code = matches!(command, Command::Do | Command::Call);
        let read = if code {
            Mentions::of
        } else {
            Mentions::of_query
        };
        let mentions = read(self.sql, tokens, self.context);
        let hint = "Name the shard it is for: /* switchyard: shard=… */.";
        if let Some(table) = mentions.sharded {
            let mut refusal = Refusal::not_supported(
                "this statement is not understood well enough to be sent to the right shards",
            )
            .detail(format!(
                "It may touch the sharded table \"{table}\" ({why})."
            ))
            .hint(hint);
            if !code {
                let reason = refusal.message.clone();
                match workspace::by_names(self.sql, tokens, self.context, reason) {
                    Ok(workspace) => {
                        let operator = Operator::Workspace(Box::new(workspace));
                        return plan(operator, Access::Read, Command::Select);
                    }
                    Err(why) => refusal.explain(&why),
                }
            }
            return refused(refusal, command);
        }
        if mentions.writes
            && let Some(table) = mentions.reference
        {
            let refusal = Refusal::not_supported(
                "this statement is not understood well enough to be sent to the right shards",
            )
            .detail(format!(
                "It may write the reference table \"{table}\", which every shard has ({why})."
            ))
            .hint(hint);
            return refused(refusal, command);
        }
        if let Some(code) = mentions.dynamic
            && self.context.relations.has_sharded()
        {
            let refusal = Refusal::not_supported("the code runs SQL that the router cannot see")
                .detail(format!("What \"{code}\" runs may touch sharded tables."))
                .hint(hint);
            return refused(refusal, command);
        }
        to_first
    }
}
