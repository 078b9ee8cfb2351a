//! INSERT into a reference table of rows that are computed once, for all copies: what each copy would still do by itself.

use sqlparser::ast::Insert;

use super::Planner;
use super::insert_place::place;
use crate::relations::{Relation, is_moment};
use crate::sql::{self, Token, TokenKind};

/// Strings that stand for a time that passes.
const MOMENTS: [&[u8]; 4] = [b"'now'", b"'today'", b"'tomorrow'", b"'yesterday'"];

impl Planner<'_> {
    /// Whether every copy stores the same of the same rows; else the reason why not.
    pub(super) fn same_on_copies(
        &self,
        relation: &Relation,
        insert: &Insert,
    ) -> Result<(), String> {
        let triggers = &relation.triggers;
        let differs = triggers.unsharded.is_some()
            || triggers.elsewhere.is_some()
            || triggers.unseen.is_some()
            || !triggers.varying.is_empty();
        if differs {
            return Err("A trigger of it would do something else on each shard.".to_owned());
        }
        let place = place(self.sql, self.tokens, insert.on.is_some());
        let end = place
            .ok_or("The query is not found in its text.")?
            .query
            .end;
        let behind = |token: &&Token| token.start as usize >= end;
        let clauses: Vec<Token> = self.tokens.iter().filter(behind).copied().collect();
        let is_moment = |token: &Token| {
            token.kind == TokenKind::Word
                && sql::name(token, self.sql).is_some_and(|name| is_moment(&name))
        };
        let others: Vec<Token> = clauses
            .iter()
            .filter(|token| !is_moment(token))
            .copied()
            .collect();
        if let Some(name) = self.computed_apart(&others, true) {
            return Err(format!(
                "Each shard would compute a value of its own: {name}."
            ));
        }
        let text = self.sql.get(end..).unwrap_or_default().to_ascii_lowercase();
        let disguised = |word: &&[u8]| text.windows(word.len()).any(|part| part == *word);
        if clauses
            .iter()
            .any(|token| token.is_word(self.sql, "default"))
            || MOMENTS.iter().any(disguised)
        {
            return Err("Each shard would compute a value of its own.".to_owned());
        }
        Ok(())
    }
}
