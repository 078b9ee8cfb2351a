//! UPDATE and DELETE of the row that a cursor is at: its shard has the row.

#![expect(clippy::wildcard_enum_match_arm, reason = "few plans are of interest")]

use switchyard_schema::TableName;

use super::command::Command;
use super::refusal::Refusal;
use super::utility::refused;
use super::words::Words;
use super::{Access, Context, Operator, Plan, Planner};
use crate::relations::{Placement, Relation, Resolved};
use crate::sql::{self, Token, TokenKind};

impl Planner<'_> {
    /// Plans `… WHERE CURRENT OF cursor` of a sharded table, if that is what it is. It is what the same statement for all rows would be, on the
    /// one shard that the session knows.
    pub(super) fn of_cursor(&self, tokens: &[Token]) -> Option<Plan> {
        let writes = |word| {
            tokens
                .first()
                .is_some_and(|token| token.is_word(self.sql, word))
        };
        if self.alone || !(writes("update") || writes("delete") || writes("with")) {
            return None;
        }
        let words = |four: &[Token]| match four {
            [condition, current, of, name] => {
                let is = |token: &Token, word| token.is_word(self.sql, word);
                let names = matches!(name.kind, TokenKind::Word | TokenKind::QuotedIdent);
                is(condition, "where") && is(current, "current") && is(of, "of") && names
            }
            _ => false,
        };
        let at = tokens.windows(4).position(words)?;
        let name = sql::name(tokens.get(at + 3)?, self.sql)?.into_owned();
        let before = tokens.get(..at)?;
        let all: Vec<Token> = [before, tokens.get(at + 4..)?].concat();
        let plan = self.inner(&all);
        Some(match plan.operator {
            Operator::Write(ref write)
                if write.is_plain()
                    && !write.copies
                    && let Some((named, table)) = self.written_before(before)
                    && !(writes("with") && self.needs_others(tokens, named)) =>
            {
                Plan {
                    operator: Operator::Session,
                    access: Access::Write,
                    command: Command::OfCursor { name, table },
                    several: None,
                    ..plan
                }
            }
            // Where everything is on the first shard, the cursor is there.
            Operator::PassThrough(super::Target::Shard(_)) | Operator::Refuse(_) => plan,
            _ => refused(
                Refusal::not_supported("WHERE CURRENT OF is not supported in this statement")
                    .detail("The row that the cursor is at is on one shard, and the statement needs others.")
                    .hint("Find the row by its key."),
                Command::Write,
            ),
        })
    }
    /// The table that the last UPDATE or DELETE among these tokens writes, and the token that names it.
    fn written_before(&self, tokens: &[Token]) -> Option<(usize, TableName)> {
        let is = |at: usize, word| {
            let token = tokens.get(at);
            token.is_some_and(|token| token.is_word(self.sql, word))
        };
        let after = |at: usize| match (is(at, "update"), is(at, "delete") && is(at + 1, "from")) {
            (true, _) => Some(at + 1),
            (_, true) => Some(at + 2),
            (false, false) => None,
        };
        let at = (0..tokens.len()).rev().find_map(after)?;
        let mut words = Words::new(self.sql, tokens.get(at..)?);
        words.eat("only");
        let (schema, name) = words.qualified_name()?;
        let named = (tokens.len() - words.rest().len()).checked_sub(1)?;
        let relation = self.known(schema.as_deref(), &name)?;
        Some((named, relation.name.clone()))
    }

    /// Whether a statement under WITH names rows of other shards, besides the table that this token names: of those it would use, or
    /// change, the ones on the shard of the row only.
    fn needs_others(&self, tokens: &[Token], named: usize) -> bool {
        let name = |at: usize| tokens.get(at).and_then(|token| sql::name(token, self.sql));
        let is_point = |at: usize| {
            let token = tokens.get(at);
            token.is_some_and(|token| token.kind == TokenKind::Punct(b'.'))
        };
        (0..tokens.len()).any(|at| {
            if tokens
                .get(at)
                .is_some_and(|token| token.kind == TokenKind::UnicodeIdent)
            {
                return true;
            }
            let Some(own) = name(at).filter(|_| at != named && !is_point(at + 1)) else {
                return false;
            };
            let schema = match at.checked_sub(2).filter(|_| is_point(at - 1)) {
                Some(before) => name(before),
                None => None,
            };
            let relation = self.known(schema.as_deref(), &own);
            relation.is_some_and(|relation| match relation.placement {
                Placement::Sharded(_) | Placement::ReadsSharded(_) | Placement::Broken(_) => true,
                Placement::Reference | Placement::Unsharded | Placement::Catalog => false,
            })
        })
    }

    fn known(&self, schema: Option<&str>, name: &str) -> Option<&Relation> {
        let Context {
            relations,
            search_path,
            ..
        } = self.context;
        match relations.resolve(search_path, schema, name) {
            Resolved::Known(relation) => Some(relation),
            Resolved::Catalog | Resolved::Unknown => None,
        }
    }
}
