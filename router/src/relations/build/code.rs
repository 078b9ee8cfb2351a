//! What the code of functions touches, through the functions it mentions too.

use std::collections::{HashMap, HashSet};

use switchyard_schema::TableName;

use super::{Builder, is_reference, is_unsharded, is_write};
use crate::relations::code::words;
use crate::relations::functions::is_of_first_shard;
use crate::relations::{RelationKind, Volatility, runs_text};

/// What code touches besides sharded tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Touched {
    /// It mentions tables of the first shard.
    pub(super) tables: bool,
    /// It mentions sequences, or functions of PostgreSQL's that are about what only the first shard has.
    pub(super) sequences: bool,
    /// Besides advisory locks, that is.
    pub(super) beyond_locks: bool,
    /// It may write.
    pub(super) writes: bool,
    /// A reference table that it may write.
    pub(super) reference: Option<TableName>,
    /// It runs text as SQL, or is in a language of which nothing is known.
    pub(super) dynamic: bool,
}

impl Touched {
    /// Adds what other code touches; says whether that is more.
    pub(super) fn add(&mut self, other: &Touched) -> bool {
        let before = self.clone();
        self.tables |= other.tables;
        self.sequences |= other.sequences;
        self.beyond_locks |= other.beyond_locks;
        self.writes |= other.writes;
        self.dynamic |= other.dynamic;
        if self.reference.is_none() {
            self.reference.clone_from(&other.reference);
        }
        *self != before
    }
}

impl Builder<'_> {
    /// Takes the code of functions apart.
    pub(super) fn code(&mut self) {
        let code = self.found.functions.iter();
        let code = code.filter_map(|row| Some((row.oid, words(row.source.as_ref()?).collect())));
        self.code = code.collect();
    }

    /// Finds out what functions touch, by oid and by name.
    pub(super) fn touched(&mut self) {
        let own: HashMap<i64, Touched> = self
            .found
            .functions
            .iter()
            .filter_map(|row| {
                let words = self.code.get(&row.oid)?;
                let mut touched = self.touched_by(words);
                // PL/pgSQL runs text by EXECUTE; other languages than SQL have calls of their own for it.
                touched.dynamic |= match row.language.as_str() {
                    "sql" => false,
                    "plpgsql" => words.contains("execute"),
                    _ => true,
                };
                Some((row.oid, touched))
            })
            .collect();
        let named = |touched: &HashMap<i64, Touched>| {
            let mut named: HashMap<String, Touched> = HashMap::new();
            for row in &self.found.functions {
                if let Some(touched) = touched.get(&row.oid) {
                    named.entry(row.name.clone()).or_default().add(touched);
                }
            }
            named
        };
        let mut touched = own;
        loop {
            let by_name = named(&touched);
            let mut more = false;
            for (oid, touched) in &mut touched {
                let mentioned = self.code.get(oid).into_iter().flatten();
                let mentioned = mentioned.filter_map(|word| by_name.get(word));
                more = mentioned.fold(more, |more, other| touched.add(other) | more);
            }
            if !more {
                (self.touched, self.touched_by_name) = (touched, by_name);
                return;
            }
        }
    }

    /// What code with these words touches by itself.
    pub(super) fn touched_by(&self, words: &HashSet<String>) -> Touched {
        let writes = words.iter().any(|word| is_write(word));
        let mut touched = Touched {
            writes,
            dynamic: words.iter().any(|word| runs_text(word)),
            sequences: words.iter().any(|word| self.is_kept_by_the_first(word)),
            beyond_locks: words
                .iter()
                .any(|word| self.is_kept_by_the_first(word) && !word.contains("_advisory_")),
            ..Touched::default()
        };
        for word in words {
            for oid in self.named.get(word).into_iter().flatten() {
                let Some(relation) = self.relations.get(oid) else {
                    continue;
                };
                let sequence = relation.kind == RelationKind::Sequence;
                if is_unsharded(&relation.placement) {
                    touched.sequences |= sequence;
                    touched.beyond_locks |= sequence;
                    touched.tables |= !sequence;
                }
                if writes && is_reference(&relation.placement) {
                    touched
                        .reference
                        .get_or_insert_with(|| relation.name.clone());
                }
            }
        }
        touched
    }

    /// Whether it names a function of PostgreSQL's that is about what only the first shard has.
    pub(super) fn is_kept_by_the_first(&self, word: &str) -> bool {
        // Whatever is not one of PostgreSQL's has been filtered out.
        is_of_first_shard(word, Volatility::Volatile) && self.builtins.contains(word)
    }
}
