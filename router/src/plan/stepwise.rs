//! What PostgreSQL runs in no transaction block: on one shard after the other, each by itself. It can be called again after a failure:
//! what a shard has is not done again.

use super::command::Command;
use super::enforceable;
use super::refusal::Refusal;
use super::utility::{plan, refused};
use super::words::Words;
use super::{Access, Broadcast, Operator, Plan, Planner, parse};
use crate::relations::{Placement, Resolved};

/// Such a statement, as far as what is left to be done depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stepwise {
    /// `CREATE INDEX CONCURRENTLY index ON table`
    Create {
        /// The index, folded as PostgreSQL does.
        index: String,
        /// The table as written.
        table: String,
    },
    /// `DROP INDEX CONCURRENTLY index`, as written.
    Drop(String),
    /// Done again each time: VACUUM, REINDEX, CLUSTER.
    Again(&'static str),
}

impl Stepwise {
    /// Reads the text of a statement that has been planned as one.
    pub(crate) fn read(sql: &[u8]) -> Self {
        let end = u32::try_from(sql.len()).unwrap_or(u32::MAX);
        let tokens = parse::tokens(sql, 0..end).unwrap_or_default();
        let mut words = Words::new(sql, &tokens);
        if words.eat("vacuum") {
            return Self::Again("VACUUM");
        }
        if words.eat("cluster") {
            return Self::Again("CLUSTER");
        }
        if words.eat("reindex") {
            return Self::Again(match words.has("concurrently") {
                true => "REINDEX CONCURRENTLY",
                false => "REINDEX",
            });
        }
        if words.eat("drop") {
            words.eat_all(&["index", "concurrently"]);
            words.eat_all(&["if", "exists"]);
            return Self::Drop(named(&mut words).unwrap_or_default());
        }
        words.eat("create");
        let created = Created::read(&mut words);
        Self::Create {
            index: created.index.unwrap_or_default(),
            table: named(&mut words).unwrap_or_default(),
        }
    }

    /// What it is, as PostgreSQL calls it.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::Create { .. } => "CREATE INDEX CONCURRENTLY",
            Self::Drop(_) => "DROP INDEX CONCURRENTLY",
            Self::Again(what) => what,
        }
    }
}

/// `CREATE [UNIQUE] INDEX CONCURRENTLY [IF NOT EXISTS] [name] ON [ONLY]`
struct Created {
    unique: bool,
    index: Option<String>,
}

impl Created {
    /// Reads what stands before the table.
    fn read(words: &mut Words<'_>) -> Self {
        let unique = words.eat("unique");
        words.eat_all(&["index", "concurrently"]);
        words.eat_all(&["if", "not", "exists"]);
        let index = match words.is("on") {
            true => None,
            false => words.name(),
        };
        words.eat("on");
        words.eat("only");
        Self { unique, index }
    }
}

/// A name with its schema, as written.
fn named(words: &mut Words<'_>) -> Option<String> {
    let before = words.range();
    words.qualified_name()?;
    let end = match words.is_done() {
        true => before.end,
        false => words.range().start,
    };
    let text = words.sql.get(before.start as usize..end as usize)?;
    Some(String::from_utf8_lossy(text.trim_ascii()).into_owned())
}

impl Planner<'_> {
    /// The plan of CREATE and DROP INDEX CONCURRENTLY.
    pub(super) fn concurrently(&self, verb: &str, words: &Words<'_>) -> Option<Plan> {
        let mut words = words.clone();
        let mut start = words.clone();
        start.eat("unique");
        if !start.eat_all(&["index", "concurrently"]) {
            return None;
        }
        if verb == "create"
            && let Some(refusal) = self.cannot_be_created(&mut words)
        {
            return Some(refused(refusal, Command::Ddl));
        }
        Some(stepwise(Command::Ddl))
    }

    /// An index that no shard could keep, or that could not be told from another one.
    fn cannot_be_created(&self, words: &mut Words<'_>) -> Option<Refusal> {
        let Created { unique, index } = Created::read(words);
        let Some(index) = index else {
            let refusal = Refusal::not_supported("CREATE INDEX CONCURRENTLY without a name is not supported")
                .detail("It is made on one shard after the other; without a name nobody could tell which of them have it.")
                .hint("Give the index a name.");
            return Some(refusal);
        };
        let (schema, name) = words.qualified_name()?;
        let relations = self.context.relations;
        let found = relations.resolve(self.context.search_path, schema.as_deref(), &name);
        let Resolved::Known(relation) = found else {
            return None;
        };
        let Placement::Sharded(_) = relation.placement else {
            return None;
        };
        let key = &relation.key_column()?.name;
        if words.eat("using") {
            words.name();
        }
        let columns = words.list()?;
        let is_key = |column: &std::ops::Range<u32>| {
            let tokens = parse::tokens(self.sql, column.clone()).unwrap_or_default();
            let tokens: Vec<_> = tokens
                .into_iter()
                .filter(|token| token.start >= column.start)
                .collect();
            let mut words = Words::new(self.sql, &tokens);
            words.name().as_ref() == Some(key) && !words.eat_symbol("(")
        };
        let holds = !unique || columns.iter().any(is_key);
        (!holds).then(|| enforceable::without_key(&relation.name.name, &index, key))
    }
}

/// On one shard after the other.
pub(super) fn stepwise(command: Command) -> Plan {
    plan(
        Operator::Broadcast(Broadcast::Stepwise),
        Access::Write,
        command,
    )
}

#[cfg(test)]
mod tests {
    use super::Stepwise;

    #[test]
    fn statements_are_read() {
        let create = |index: &str, table: &str| Stepwise::Create {
            index: index.into(),
            table: table.into(),
        };
        for (sql, expected) in [
            ("CREATE INDEX CONCURRENTLY i ON t (a)", create("i", "t")),
            (
                "create unique index concurrently if not exists \"I\" on only Shop.\"T\" using btree (a)",
                create("I", "Shop.\"T\""),
            ),
            (
                "DROP INDEX CONCURRENTLY IF EXISTS shop.i CASCADE;",
                Stepwise::Drop("shop.i".into()),
            ),
            ("DROP INDEX CONCURRENTLY i", Stepwise::Drop("i".into())),
            (
                "REINDEX TABLE CONCURRENTLY t",
                Stepwise::Again("REINDEX CONCURRENTLY"),
            ),
            ("VACUUM", Stepwise::Again("VACUUM")),
        ] {
            assert_eq!(Stepwise::read(sql.as_bytes()), expected, "{sql}");
        }
    }
}
