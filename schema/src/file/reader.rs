//! Reading a TOML document as typed values, noting what is wrong and going on.
//!
//! A [`Section`] is a table that remembers which keys were asked for, so that [`Section::finish`] can report all others. An
//! [`Item`] is one value with its path and place. Every reading method returns `None` after it has reported why.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{duration, size};
use crate::diagnostic::Diagnostic;
use crate::model::{Literal, LiteralForm};

/// The problems found so far in a text.
pub(super) struct Report<'t> {
    text: &'t str,
    problems: RefCell<Vec<(usize, Diagnostic)>>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            problems: RefCell::default(),
        }
    }

    /// Notes a problem at a byte offset of the text.
    pub(super) fn add(
        &self,
        at: usize,
        key: &str,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        let (line, column) = self.position(at);
        let diagnostic = Diagnostic {
            line,
            column,
            key: key.to_owned(),
            message: message.into(),
            hint,
        };
        self.problems.borrow_mut().push((at, diagnostic));
    }

    /// Line and column, both from 1, of a byte offset.
    pub(super) fn position(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (line, before[start..].chars().count() + 1)
    }

    /// All problems in the order of the text.
    pub(super) fn into_diagnostics(self) -> Vec<Diagnostic> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|(at, _)| *at);
        problems.into_iter().map(|(_, problem)| problem).collect()
    }
}

/// A table being read.
pub(super) struct Section<'a> {
    table: &'a DeTable<'a>,
    path: String,
    at: usize,
    report: &'a Report<'a>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The document itself.
    pub(super) fn root(table: &'a Spanned<DeTable<'a>>, report: &'a Report<'a>) -> Self {
        Self {
            table: table.get_ref(),
            path: String::new(),
            at: 0,
            report,
            known: Vec::new(),
        }
    }

    /// The value of a key, if the key is there.
    pub(super) fn get(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.known.push(key);
        let (_, value) = self.table.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(Item {
            value: value.get_ref(),
            path: self.path_of(key),
            at: value.span().start,
            report: self.report,
        })
    }

    /// The value of a key that must be there.
    pub(super) fn require(&mut self, key: &'static str, hint: &str) -> Option<Item<'a>> {
        let item = self.get(key);
        if item.is_none() {
            self.report.add(
                self.at,
                &self.path_of(key),
                "is missing",
                Some(hint.to_owned()),
            );
        }
        item
    }

    /// The tables of an array of tables; none if the key is not there.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let items = self.get(key).and_then(|item| item.array());
        let items = items.into_iter().flatten();
        items.filter_map(|item| item.section()).collect()
    }

    /// Notes a problem of the table as a whole.
    pub(super) fn problem(&self, message: impl Into<String>, hint: Option<&str>) {
        self.report
            .add(self.at, &self.path, message, hint.map(str::to_owned));
    }

    /// Where the table begins, as a line number.
    pub(super) fn line(&self) -> usize {
        self.report.position(self.at).0
    }

    /// Reports every key nobody asked for.
    pub(super) fn finish(self) {
        for (key, _) in self.table {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let hint = match nearest(name, &self.known) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("allowed are {}", self.known.join(", ")),
            };
            self.report.add(
                key.span().start,
                &self.path_of(name),
                "is not a key of this section",
                Some(hint),
            );
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

/// One value with its place.
#[derive(Clone)]
pub(super) struct Item<'a> {
    value: &'a DeValue<'a>,
    path: String,
    at: usize,
    report: &'a Report<'a>,
}

impl<'a> Item<'a> {
    /// Notes a problem of this value.
    pub(super) fn problem(&self, message: impl Into<String>, hint: Option<&str>) {
        self.report
            .add(self.at, &self.path, message, hint.map(str::to_owned));
    }

    /// Where the value begins, as a line number.
    pub(super) fn line(&self) -> usize {
        self.report.position(self.at).0
    }

    /// Notes that the value is of another kind than the one wanted.
    fn unexpected<T>(&self, wanted: &str) -> Option<T> {
        let found = self.value.type_str();
        self.problem(format!("must be {wanted}, not {found}"), None);
        None
    }

    /// A string, perhaps empty.
    pub(super) fn string(&self) -> Option<&'a str> {
        self.value.as_str().or_else(|| self.unexpected("a string"))
    }

    /// A string with something in it, without NUL.
    pub(super) fn text(&self) -> Option<&'a str> {
        let string = self.string()?;
        if string.is_empty() || string.contains('\0') {
            self.problem("must not be empty", None);
            return None;
        }
        Some(string)
    }

    /// A name as PostgreSQL has them: one to 63 bytes.
    pub(super) fn name(&self) -> Option<&'a str> {
        let name = self.text()?;
        if name.len() > 63 {
            self.problem("is longer than PostgreSQL's 63 bytes", None);
            return None;
        }
        Some(name)
    }

    /// A file's path.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.text().map(PathBuf::from)
    }

    /// An integer within limits.
    pub(super) fn integer(&self, allowed: RangeInclusive<u32>) -> Option<u32> {
        let DeValue::Integer(integer) = self.value else {
            return self.unexpected("an integer");
        };
        let value = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        let value = value.filter(|value| allowed.contains(value));
        if value.is_none() {
            let (low, high) = (allowed.start(), allowed.end());
            self.problem(format!("must be from {low} to {high}"), None);
        }
        value
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        self.value
            .as_bool()
            .or_else(|| self.unexpected("true or false"))
    }

    /// One of some words.
    pub(super) fn choice<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let word = self.string()?;
        let chosen = words.iter().find(|(name, _)| *name == word);
        if chosen.is_none() {
            let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
            let hint = format!("allowed are {}", names.join(", "));
            self.problem(format!("{word:?} is not known here"), Some(&hint));
        }
        chosen.map(|(_, value)| *value)
    }

    /// A duration.
    pub(super) fn duration(&self) -> Option<Duration> {
        let duration = self.value.as_str().and_then(duration::parse);
        if duration.is_none() {
            self.problem("is not a duration", Some(duration::FORM));
        }
        duration
    }

    /// A duration, or `"off"`, which is `Some(None)`.
    pub(super) fn duration_or_off(&self) -> Option<Option<Duration>> {
        if self.value.as_str() == Some("off") {
            return Some(None);
        }
        let duration = self.value.as_str().and_then(duration::parse);
        if duration.is_none() {
            self.problem("is neither a duration nor \"off\"", Some(duration::FORM));
        }
        duration.map(Some)
    }

    /// A number of bytes.
    pub(super) fn size(&self) -> Option<u64> {
        let size = self.value.as_str().and_then(size::parse);
        if size.is_none() {
            self.problem("is not a size", Some(size::FORM));
        }
        size
    }

    /// A number of bytes, or `"off"`, which is `Some(None)`.
    pub(super) fn size_or_off(&self) -> Option<Option<u64>> {
        if self.value.as_str() == Some("off") {
            return Some(None);
        }
        let size = self.value.as_str().and_then(size::parse);
        if size.is_none() {
            self.problem("is neither a size nor \"off\"", Some(size::FORM));
        }
        size.map(Some)
    }

    /// The elements of an array.
    pub(super) fn array(&self) -> Option<Vec<Item<'a>>> {
        let DeValue::Array(array) = self.value else {
            return self.unexpected("an array");
        };
        let item = |(index, value): (usize, &'a Spanned<DeValue<'a>>)| Item {
            value: value.get_ref(),
            path: format!("{}[{index}]", self.path),
            at: value.span().start,
            report: self.report,
        };
        Some(array.iter().enumerate().map(item).collect())
    }

    /// A table.
    pub(super) fn section(&self) -> Option<Section<'a>> {
        let DeValue::Table(table) = self.value else {
            return self.unexpected("a table");
        };
        Some(Section {
            table,
            path: self.path.clone(),
            at: self.at,
            report: self.report,
            known: Vec::new(),
        })
    }

    /// A key value.
    pub(super) fn literal(&self) -> Option<Literal> {
        let (text, form) = match self.value {
            DeValue::String(text) => (text.to_string(), LiteralForm::String),
            DeValue::Integer(integer) => {
                match i64::from_str_radix(integer.as_str(), integer.radix()) {
                    Ok(value) => (value.to_string(), LiteralForm::Integer),
                    Err(_) => {
                        self.problem(
                            "does not fit in 64 bits",
                            Some("a larger numeric is written as a string"),
                        );
                        return None;
                    }
                }
            }
            DeValue::Float(number) => (number.as_str().to_owned(), LiteralForm::Decimal),
            DeValue::Boolean(value) => (value.to_string(), LiteralForm::Boolean),
            DeValue::Datetime(value) => (value.to_string(), LiteralForm::DateTime),
            DeValue::Array(_) | DeValue::Table(_) => return self.unexpected("a single value"),
        };
        Some(Literal { text, form })
    }
}

/// The name most like a mistyped one, if any is much like it.
pub(super) fn nearest<'n>(name: &str, names: &[&'n str]) -> Option<&'n str> {
    let near = names.iter().map(|other| (distance(name, other), *other));
    let (distance, near) = near.min()?;
    (distance <= name.len().max(near.len()) / 3).then_some(near)
}

/// How many characters have to be put in, taken out or exchanged to get from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let exchanged = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["pool_size", "pool_mode", "listen"];
        assert_eq!(nearest("poolsize", &names), Some("pool_size"));
        assert_eq!(nearest("pol_mode", &names), Some("pool_mode"));
        assert_eq!(nearest("colour", &names), None);
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn positions_count_characters_from_one() {
        let report = Report::new("a\nbä = 1\n");
        assert_eq!(report.position(0), (1, 1));
        assert_eq!(report.position(2), (2, 1));
        assert_eq!(report.position("a\nbä".len()), (2, 3));
        assert_eq!(report.position(1000), (3, 1));
    }
}
