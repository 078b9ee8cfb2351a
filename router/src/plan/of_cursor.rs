//! UPDATE and DELETE of the row that a cursor is at: its shard has the row.

#![expect(clippy::wildcard_enum_match_arm, reason = "few plans are of interest")]

use super::command::Command;
use super::refusal::Refusal;
use super::utility::refused;
use super::{Access, Operator, Plan, Planner};
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
        let all: Vec<Token> = [tokens.get(..at)?, tokens.get(at + 4..)?].concat();
        let plan = self.inner(&all);
        Some(match plan.operator {
            Operator::Write(ref write) if write.is_plain() && !write.copies => Plan {
                operator: Operator::Session,
                access: Access::Write,
                command: Command::OfCursor { name },
                several: None,
                ..plan
            },
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
}
