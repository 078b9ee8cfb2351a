//! What changes the schema.

use switchyard_schema::ShardIndex;

use super::command::Command;
use super::opaque::Mentions;
use super::refusal::Refusal;
use super::route::Target;
use super::utility::{plan, refused};
use super::words::Words;
use super::{Access, Broadcast, Operator, Pin, Pins, Plan, Planner};
use crate::relations::{Placement, Resolved, Volatility};
use crate::sql::{self, Token, TokenKind};

impl Planner<'_> {
    /// Everything that changes the schema: on all shards, with the exceptions.
    pub(super) fn ddl(&self, tokens: &[Token], verb: &str, mut words: Words<'_>) -> Plan {
        if verb == "create"
            && let Some(plan) = self.create_temporary(tokens, words.clone())
        {
            return plan;
        }
        let mentions = Mentions::of(self.sql, tokens, self.context);
        if self.alone || mentions.temporary {
            return plan(
                Operator::PassThrough(Target::Shard(ShardIndex::FIRST)),
                Access::Write,
                Command::Ddl,
            );
        }
        if let Some(refusal) = outside_block(verb, &words) {
            return refused(refusal, Command::Ddl);
        }
        if let Some(refusal) = self.stores_rows(verb, &mut words, &mentions) {
            return refused(refusal, Command::Ddl);
        }
        if verb == "alter"
            && words.eat("table")
            && let Some(refusal) = self.alter_table(words)
        {
            return refused(refusal, Command::Ddl);
        }
        plan(
            Operator::Broadcast(Broadcast::Ddl),
            Access::Write,
            Command::Ddl,
        )
    }

    /// `CREATE TEMP …`: on the first shard, where the session's temporary relations are.
    fn create_temporary(&self, tokens: &[Token], mut words: Words<'_>) -> Option<Plan> {
        words.eat_all(&["or", "replace"]);
        words.eat_any(&["global", "local"]);
        let in_schema = |words: &Words<'_>| {
            let mut rest = words.clone();
            rest.next();
            rest.eat_all(&["if", "not", "exists"]);
            rest.is("pg_temp")
        };
        if !words.eat_any(&["temp", "temporary"]) && !in_schema(&words) {
            return None;
        }
        words.eat("recursive");
        let what = words.name()?;
        if !matches!(what.as_str(), "table" | "view" | "sequence") {
            return None;
        }
        words.eat_all(&["if", "not", "exists"]);
        let (_, name) = words.qualified_name()?;
        let first = Operator::PassThrough(Target::Shard(ShardIndex::FIRST));
        let mut plan = plan(first, Access::Write, Command::Other);
        let mentions = Mentions::of(self.sql, tokens, self.context);
        if !self.alone
            && let Some(table) = mentions.sharded
        {
            // LIKE and INHERITS copy a definition; AS and a view copy or read rows.
            if what == "view" || words.has("as") {
                let refusal = Refusal::not_supported(format!(
                    "a temporary {what} of the sharded table \"{table}\" is not supported yet"
                ));
                return Some(refused(refusal, Command::Other));
            }
        }
        plan.effects.pins = Pins::one(Pin::Temporary);
        plan.temporary = Some(name);
        Some(plan)
    }

    /// `CREATE TABLE AS` and `CREATE MATERIALIZED VIEW` store rows: not those of sharded tables.
    fn stores_rows(
        &self,
        verb: &str,
        words: &mut Words<'_>,
        mentions: &Mentions,
    ) -> Option<Refusal> {
        let mut rest = words.clone();
        rest.eat_all(&["or", "replace"]);
        rest.eat("unlogged");
        let table = mentions.sharded.as_ref()?;
        let materialized = rest.is("materialized");
        let table_as = rest.eat("table")
            && rest.has("as")
            && (rest.has("select")
                || rest.has("table")
                || rest.has("values")
                || rest.has("execute"));
        if verb == "create" && (materialized || (table_as && !rest.has("generated"))) {
            return Some(
                Refusal::not_supported(format!("storing rows of the sharded table \"{table}\" in a new relation is not supported yet"))
                    .hint("Create the table first and fill it shard key by shard key with INSERT … SELECT."),
            );
        }
        None
    }

    /// Changes of the shard key, and of reference tables with values of each shard's own.
    fn alter_table(&self, mut words: Words<'_>) -> Option<Refusal> {
        words.eat_all(&["if", "exists"]);
        words.eat("only");
        let (schema, name) = words.qualified_name()?;
        let found =
            self.context
                .relations
                .resolve(self.context.search_path, schema.as_deref(), &name);
        let Resolved::Known(relation) = found else {
            return None;
        };
        match &relation.placement {
            Placement::Sharded(_) => {
                let key = &relation.key_column()?.name;
                let names_key = words
                    .rest()
                    .iter()
                    .any(|token| sql::name(token, self.sql).as_deref() == Some(key));
                let changes = ["type", "rename", "drop"]
                    .iter()
                    .any(|word| words.has(word));
                let constraint_only =
                    words.has("constraint") && !words.has("type") && !words.has("rename");
                (names_key && changes && !constraint_only && !self.drops_constraint_of(&words, key))
                    .then(|| {
                        Refusal::not_supported(format!(
                            "changing the shard key \"{key}\" of table \"{}\" is not supported",
                            relation.name
                        ))
                        .detail("Where the rows are depends on it.")
                    })
            }
            Placement::Reference => {
                let own = words
                    .rest()
                    .iter()
                    .filter_map(|token| sql::name(token, self.sql))
                    .find(|word| self.differs(word));
                own.map(|word| {
                    Refusal::not_supported(format!(
                        "this change of the reference table \"{}\" is not supported",
                        relation.name
                    ))
                    .detail(format!(
                        "Each shard would compute values of its own: {word}."
                    ))
                })
            }
            Placement::Unsharded
            | Placement::Catalog
            | Placement::ReadsSharded(_)
            | Placement::Broken(_) => None,
        }
    }

    /// `ALTER COLUMN key DROP DEFAULT` and `DROP NOT NULL` leave the rows where they are.
    fn drops_constraint_of(&self, words: &Words<'_>, key: &str) -> bool {
        let tokens = words.rest();
        let drops: Vec<usize> = (0..tokens.len())
            .filter(|at| tokens[*at].is_word(self.sql, "drop"))
            .collect();
        let harmless = |at: &usize| {
            tokens.get(at + 1).is_some_and(|token| {
                token.is_word(self.sql, "default")
                    || token.is_word(self.sql, "not")
                    || token.is_word(self.sql, "identity")
                    || token.is_word(self.sql, "expression")
            })
        };
        let _ = key;
        !words.has("type") && !words.has("rename") && drops.iter().all(harmless)
    }

    fn differs(&self, word: &str) -> bool {
        if matches!(
            word,
            "serial" | "bigserial" | "smallserial" | "identity" | "nextval"
        ) {
            return true;
        }
        if word.starts_with("current_") || word.starts_with("localtime") {
            return true;
        }
        self.context
            .relations
            .functions_named(word)
            .iter()
            .any(|function| {
                function.volatility == Volatility::Volatile
                    || (function.volatility == Volatility::Stable
                        && matches!(
                            word,
                            "now" | "statement_timestamp" | "transaction_timestamp"
                        ))
            })
    }
}

/// What PostgreSQL does not run in a transaction block, or what is about one server and not about a database.
fn outside_block(verb: &str, words: &Words<'_>) -> Option<Refusal> {
    let mut rest = words.clone();
    rest.eat("unique");
    let object = rest.name().unwrap_or_default();
    let concurrently = words.rest().iter().take(8).any(|token: &Token| {
        token.kind == TokenKind::Word && token.is_word(words.sql, "concurrently")
    }) || (verb == "alter" && words.has("concurrently"));
    let what = match (verb, object.as_str()) {
        ("create" | "drop", "database") => format!("{} DATABASE", verb.to_ascii_uppercase()),
        ("create" | "drop" | "alter", "tablespace") => {
            format!("{} TABLESPACE", verb.to_ascii_uppercase())
        }
        ("create" | "drop" | "alter", "subscription") => {
            format!("{} SUBSCRIPTION", verb.to_ascii_uppercase())
        }
        ("alter", "system") => "ALTER SYSTEM".to_owned(),
        ("alter", "database") if words.has("tablespace") => {
            "ALTER DATABASE SET TABLESPACE".to_owned()
        }
        _ if concurrently && matches!(verb, "create" | "drop" | "alter") => {
            format!("{} … CONCURRENTLY", verb.to_ascii_uppercase())
        }
        _ => return None,
    };
    Some(
        Refusal::not_supported(format!("{what} cannot run on all shards together"))
            .detail("PostgreSQL does not run it inside a transaction block.")
            .hint("Run it on one shard after the other: /* switchyard: shard=… */."),
    )
}
