//! What columns store that an INSERT leaves out.

use std::collections::HashSet;

use super::Builder;
use super::code::Touched;
use crate::relations::code::calls;
use crate::relations::{DefaultValue, Volatility, differs, is_moment, is_own};

impl Builder<'_> {
    /// What an INSERT that leaves a column out stores.
    pub(super) fn defaults(&mut self) {
        for row in &self.found.columns {
            let Some(default) = &row.default else {
                continue;
            };
            let value = self.default_value(default);
            let expression = Some(default.as_str().into());
            let relation = self.relations.get_mut(&row.relation);
            if let Some(column) =
                relation.and_then(|r| r.columns.iter_mut().find(|column| column.name == row.name))
            {
                column.default = value;
                column.expression = expression;
            }
        }
    }

    fn default_value(&self, default: &str) -> DefaultValue {
        let called: HashSet<String> = calls(default).collect();
        let mut touched = Touched {
            sequences: called.iter().any(|name| self.is_kept_by_the_first(name)),
            ..Touched::default()
        };
        for code in called
            .iter()
            .filter_map(|name| self.touched_by_name.get(name))
        {
            touched.add(code);
        }
        let mut code = self.found.functions.iter();
        let reads = code.any(|row| called.contains(&row.name) && self.reads.contains_key(&row.oid));
        if reads || touched.tables || touched.writes || touched.dynamic {
            return DefaultValue::Elsewhere;
        }
        if touched.sequences {
            return DefaultValue::Sequence;
        }
        match self.volatility(default) {
            Volatility::Immutable => DefaultValue::Immutable,
            Volatility::Volatile if self.is_own(default) => DefaultValue::Own,
            _ if self.is_of_moment(default) => DefaultValue::Moment,
            Volatility::Stable => DefaultValue::Stable,
            Volatility::Volatile => DefaultValue::Volatile,
        }
    }

    /// Whether an expression of PostgreSQL's printing calls nothing that gives several rows one value of the moment, or that does more
    /// than compute one.
    fn is_own(&self, text: &str) -> bool {
        let mut words = calls(text);
        words.all(|word| {
            self.computes(&word, &|volatility| volatility == Volatility::Immutable)
                || is_own(&word) && self.is_builtin(&word)
        })
    }

    /// Whether what it calls is the same everywhere, but for values of the moment and those that each row has for itself.
    fn is_of_moment(&self, text: &str) -> bool {
        let mut words = calls(text);
        words.all(|word| {
            is_moment(&word)
                || is_own(&word) && self.is_builtin(&word)
                || self.computes(&word, &|volatility| volatility == Volatility::Immutable)
                || self.is_builtin(&word)
                    && !differs(&word)
                    && self.computes(&word, &|volatility| volatility < Volatility::Volatile)
        })
    }

    fn is_builtin(&self, name: &str) -> bool {
        let known = self.functions.get(name).map_or(&[][..], Vec::as_slice);
        !known.is_empty() && known.iter().all(|known| known.is_builtin(name))
    }

    fn computes(&self, name: &str, is_so: &dyn Fn(Volatility) -> bool) -> bool {
        let known = self.functions.get(name).map_or(&[][..], Vec::as_slice);
        !known.is_empty() && known.iter().all(|known| is_so(known.volatility))
    }
}
