//! What changes the schema.

use switchyard_schema::ShardIndex;

use super::command::Command;
use super::create_as::{CreateAs, name_of, of_configured};
use super::opaque::Mentions;
use super::refusal::Refusal;
use super::route::Target;
use super::utility::{plan, refused};
use super::words::Words;
use super::{Access, Broadcast, Operator, Pin, Pins, Plan, Planner};
use crate::relations::{Placement, Relation, Resolved, Volatility};
use crate::sql::{self, Token, TokenKind};

impl Planner<'_> {
    /// Everything that changes the schema: on all shards, with the exceptions.
    pub(super) fn ddl(&self, tokens: &[Token], verb: &str, mut words: Words<'_>) -> Plan {
        let mentions = Mentions::of(self.sql, tokens, self.context);
        if verb == "create"
            && !self.alone
            && let Some(refusal) = self.stores_rows(words.clone(), &mentions)
        {
            return refused(refusal, Command::Ddl);
        }
        if let (false, Some(created)) = (self.alone, CreateAs::read(self.sql, tokens))
            && let Some(plan) = self.create_as(&created)
        {
            return plan;
        }
        if verb == "create"
            && let Some(plan) = self.create_temporary(words.clone(), &mentions)
        {
            return plan;
        }
        if self.alone || mentions.temporary {
            return plan(
                Operator::PassThrough(Target::Shard(ShardIndex::FIRST)),
                Access::Write,
                Command::Ddl,
            );
        }
        if let Some(plan) = self.concurrently(verb, &words) {
            return plan;
        }
        if let Some(refusal) = outside_block(verb, &words) {
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
    fn create_temporary(&self, mut words: Words<'_>, mentions: &Mentions) -> Option<Plan> {
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
        // Of a table LIKE and INHERITS copy a definition; a view reads rows.
        if let (false, "view", Some(table)) = (self.alone, what.as_str(), &mentions.sharded) {
            let refusal = Refusal::not_supported(format!(
                "a temporary view of the sharded table \"{table}\" is not supported yet"
            ))
            .detail("It would read the rows of one shard.")
            .hint("CREATE VIEW makes one for every session.");
            return Some(refused(refusal, Command::Other));
        }
        plan.effects.pins = Pins::one(Pin::Temporary);
        plan.temporary = Some(name);
        Some(plan)
    }

    /// What stores rows in ways that are not supported: a materialized view of sharded tables, CREATE TABLE AS EXECUTE.
    fn stores_rows(&self, mut words: Words<'_>, mentions: &Mentions) -> Option<Refusal> {
        if words.eat_all(&["materialized", "view"]) {
            words.eat_all(&["if", "not", "exists"]);
            let (_, name) = words.qualified_name()?;
            if self.context.relations.is_configured(&name) {
                return Some(of_configured(&name));
            }
            let table = mentions.sharded.as_ref()?;
            let message =
                format!("a materialized view of the sharded table \"{table}\" is not supported");
            return Some(
                Refusal::not_supported(message)
                    .detail("Each shard would refresh it with the rows that it has itself.")
                    .hint("CREATE TABLE AS stores the rows of all shards."),
            );
        }
        words.eat_any(&["global", "local"]);
        words.eat_any(&["temp", "temporary", "unlogged"]);
        if !words.eat("table") {
            return None;
        }
        words.eat_all(&["if", "not", "exists"]);
        let is_named = name_of(&mut words).is_some();
        if !words.skip_past("as") {
            return None;
        }
        if words.is("execute") {
            let refusal = Refusal::not_supported("CREATE TABLE AS EXECUTE is not supported")
                .detail("What has been prepared is the session's own, and no shard knows it by its name.")
                .hint("Write the query itself behind AS.");
            return Some(refusal);
        }
        let table = mentions.sharded.as_ref().filter(|_| !is_named)?;
        let message = format!(
            "storing rows of the sharded table \"{table}\" in a table of this name is not supported"
        );
        Some(
            Refusal::not_supported(message)
                .hint("Give it a plain name, with no more than a schema before it."),
        )
    }

    /// What would leave rows where they are not looked for, or differ from shard to shard.
    fn alter_table(&self, mut words: Words<'_>) -> Option<Refusal> {
        words.eat_all(&["if", "exists"]);
        words.eat("only");
        let (schema, name) = words.qualified_name()?;
        words.eat_symbol("*");
        let Resolved::Known(relation) = self.find(schema.as_deref(), &name) else {
            return None;
        };
        let mut actions = words.split();
        match &relation.placement {
            Placement::Sharded(_) => {
                let key = &relation.key_column()?.name;
                actions.find_map(|action| self.alters_sharded(relation, key, action))
            }
            Placement::Reference => {
                let mut names = words
                    .rest()
                    .iter()
                    .filter_map(|token| sql::name(token, self.sql));
                names.find(|word| self.differs(word)).map(|word| {
                    let table = &relation.name;
                    Refusal::not_supported(format!(
                        "this change of the reference table \"{table}\" is not supported"
                    ))
                    .detail(format!(
                        "Each shard would compute values of its own: {word}."
                    ))
                })
            }
            Placement::Unsharded => {
                actions.find_map(|action| self.alters_unsharded(relation, action))
            }
            Placement::Catalog | Placement::ReadsSharded(_) | Placement::Broken(_) => None,
        }
    }

    fn find(&self, schema: Option<&str>, name: &str) -> Resolved<'_> {
        self.context
            .relations
            .resolve(self.context.search_path, schema, name)
    }

    /// One action of ALTER TABLE on a sharded table.
    fn alters_sharded(
        &self,
        relation: &Relation,
        key: &str,
        mut action: Words<'_>,
    ) -> Option<Refusal> {
        let refuse = |what: &str| Some(misplaces(relation, what));
        let whole = action.clone();
        if action.eat("rename") {
            if action.is("constraint") {
                return None;
            }
            if action.is("to") {
                return refuse("renaming");
            }
            action.eat("column");
            return if action.name()? == key {
                refuse("renaming the shard key")
            } else {
                None
            };
        }
        if action.eat_all(&["set", "schema"]) {
            return refuse("moving to another schema");
        }
        if action.eat_any(&["attach", "detach", "inherit"]) || action.eat_all(&["no", "inherit"]) {
            let what = "attaching and detaching partitions and children";
            return Some(misplaces(relation, what).hint(PARTITIONS));
        }
        if action.eat("alter") {
            action.eat("column");
            if action.name()? == key && action.has("type") {
                return refuse("changing the type of the shard key");
            }
            if !action.has("type") {
                return None;
            }
            let apart = self.computed_apart(whole.rest(), false);
            return apart.map(|name| computed_apart(relation, &name));
        }
        if action.eat("drop") {
            if action.is("constraint") {
                return None;
            }
            action.eat("column");
            action.eat_all(&["if", "exists"]);
            return if action.name()? == key {
                refuse("dropping the shard key")
            } else {
                None
            };
        }
        if let (true, Some(name)) = (action.is("add"), self.computed_apart(whole.rest(), false)) {
            return Some(computed_apart(relation, &name));
        }
        let sequences = ["serial", "bigserial", "smallserial", "identity", "nextval"];
        if action.eat("add") && sequences.iter().any(|word| whole.has(word)) {
            return Some(numbers(relation));
        }
        None
    }

    /// One action of ALTER TABLE on an unsharded table: it must not become part of a sharded one, or take its name.
    fn alters_unsharded(&self, relation: &Relation, mut action: Words<'_>) -> Option<Refusal> {
        let table = &relation.name;
        let refusal = Refusal::not_supported(format!(
            "table \"{table}\" cannot become part of a sharded table"
        ))
        .detail("Its rows are on the first shard only.");
        if action.eat_all(&["rename", "to"]) {
            return self
                .context
                .relations
                .is_configured(&action.name()?)
                .then_some(refusal);
        }
        if action.eat("inherit") {
            let (schema, name) = action.qualified_name()?;
            let parent = self.find(schema.as_deref(), &name);
            return matches!(parent, Resolved::Known(parent) if parent.sharding().is_some())
                .then_some(refusal);
        }
        None
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

/// What there is instead of ATTACH and DETACH.
const PARTITIONS: &str =
    "Make partitions by CREATE TABLE … PARTITION OF, and remove them by DROP TABLE.";

/// What would make the router look for rows where they are not.
fn misplaces(relation: &Relation, what: &str) -> Refusal {
    let table = &relation.name;
    let message = format!("{what} of the sharded table \"{table}\" is not supported");
    Refusal::not_supported(message)
        .detail("Rows would be where they are not looked for.")
        .hint("Make another table as it is to be, and INSERT the rows of this one.")
}

/// A new column with a sequence.
fn numbers(relation: &Relation) -> Refusal {
    let table = &relation.name;
    let message = format!(
        "adding a column with a sequence of the sharded table \"{table}\" is not supported"
    );
    Refusal::not_supported(message)
        .detail("Each shard would number the rows that it has by itself.")
        .hint("Make another table with the column, and INSERT the rows of this one.")
}

/// Rows that are there get values that each shard would compute by itself.
fn computed_apart(relation: &Relation, name: &str) -> Refusal {
    Refusal::not_supported(format!(
        "this change of the sharded table \"{}\" is not supported: it computes \"{name}\" for the rows that are there",
        relation.name
    ))
    .detail("Each shard would compute a result of its own.")
    .hint("Add a column without a default, UPDATE it, and set the default by ALTER COLUMN … SET DEFAULT then.")
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
