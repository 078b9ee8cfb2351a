//! INSERT of rows that belong to several shards: each shard is sent the client's own text with its rows only.

use std::ops::Range;

use postgres_protocol::escape::escape_literal;
use switchyard_schema::{KeyType, ShardIndex, ShardSet};

use super::analyse::{Analysis, KeyColumn, SEQUENCE_CALLS, SequenceColumn};
use super::apart::several;
use super::decide::stored_need;
use super::edits::Edits;
use super::moment::{Clock, Moments};
use super::overriding::Overriding;
use super::parse;
use super::refusal::Refusal;
use super::route::{KeyExpr, KeySet, Need, Param, Source, Target, Values};
use super::rows::Rows;
use super::{Operator, Plan, Planner};
use crate::sql::{Token, TokenKind};

/// An INSERT of a list of rows whose keys are known at binding.
#[derive(Debug, Clone)]
pub struct Insert {
    /// The keys of the rows, in their order.
    pub need: Need,
    /// It has a RETURNING.
    pub returns: bool,
    /// Functions are called in its rows: some of them PostgreSQL lets stand in a single row only.
    pub calls: bool,
    /// There are values of the moment in it, or in defaults that it takes.
    pub moments: bool,
    /// Columns that are left out and have such defaults: their names in SQL, and the expressions.
    added: Vec<(String, Box<str>)>,
    /// Columns of the rows that have such defaults: their positions, and the expressions.
    replaced: Vec<(usize, Box<str>)>,
    /// The columns of the rows, in SQL, where none are listed.
    columns: Option<Vec<String>>,
    /// The shard key.
    key: KeyColumn,
    /// Some rows' keys are expressions, or defaults that are.
    computes_keys: bool,
    /// Columns that take their values from sequences in some row.
    sequences: Vec<SequenceColumn>,
    /// Values come from sequences, keys included: the first shard computes, whose sequences are everybody's.
    pub(crate) takes_next: bool,
    /// Some of them are written as calls.
    calls_sequences: bool,
    /// What is said of the values that identity columns are given.
    overrides: Option<Overriding>,
    /// It is one of DEFAULT VALUES, planned [`with_values`].
    pub(crate) of_defaults: bool,
}

/// An INSERT of DEFAULT VALUES as one of a row, which is the same.
pub(crate) fn with_values(sql: &[u8]) -> Option<Vec<u8>> {
    let tokens = parse::tokens(sql, 0..u32::try_from(sql.len()).ok()?).ok()?;
    let defaults = |three: &[Token]| match three {
        [table, default, values] => {
            // Columns that are listed are an error there.
            table.kind != TokenKind::Punct(b')')
                && default.is_word(sql, "default")
                && values.is_word(sql, "values")
        }
        _ => false,
    };
    let at = tokens.windows(3).position(defaults)?;
    let (first, last) = (tokens.get(at + 1)?, tokens.get(at + 2)?);
    let before = sql.get(..first.start as usize)?;
    let after = sql.get(last.end as usize..)?;
    Some([before, b"VALUES (DEFAULT)", after].concat())
}

/// What PostgreSQL has to compute before rows can be stored, and what it has computed.
#[derive(Debug)]
pub(crate) struct Ahead<T> {
    /// Keys, in the order of their rows.
    pub(crate) keys: Vec<T>,
    /// Values of sequences: row by row, column by column.
    pub(crate) next: Vec<T>,
}

/// A key, or another value, that PostgreSQL has computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Computed {
    /// Its text; `None` is NULL.
    pub(crate) text: Option<Vec<u8>>,
    /// The number of its type.
    pub(crate) oid: u32,
}

/// What a shard is sent.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) shard: ShardIndex,
    /// From the client's text to the shard's.
    edits: Edits,
}

impl Part {
    /// The shard's text, of the client's.
    pub(crate) fn text(&self, sql: &[u8]) -> Vec<u8> {
        self.edits.apply(sql)
    }

    /// Where in the client's text a character of the shard's comes from, both counted from 1.
    pub(crate) fn origin(&self, sql: &[u8], position: usize) -> Option<usize> {
        self.edits.origin(sql, position)
    }
}

impl Computed {
    /// As it is written in a text; `None` if its type has no name here.
    fn literal(&self) -> Option<String> {
        let Some(text) = &self.text else {
            return Some("NULL".to_owned());
        };
        let literal = escape_literal(std::str::from_utf8(text).ok()?);
        Some(format!(
            "{}::pg_catalog.{}",
            literal.trim_start(),
            self.type_name()?
        ))
    }

    /// The name of its type, if it has one here. Keys of another are refused before.
    pub(crate) fn type_name(&self) -> Option<&'static str> {
        match self.oid {
            700 => Some("float4"),
            701 => Some("float8"),
            oid => KeyType::from_oid(oid).map(KeyType::internal_name),
        }
    }
}

/// A place in a text, and what stands there instead.
type Edit = (Range<usize>, Vec<u8>);

/// A value of a row that comes from a sequence.
enum Taken<'a> {
    /// The default of a column.
    Default(&'a SequenceColumn),
    /// What is written at this place of the text.
    Call(Range<usize>),
}

/// Whether a function of sequences is called in a value.
fn calls_sequence(sql: &[u8], value: &[Token]) -> bool {
    let is_call = |token: &Token| SEQUENCE_CALLS.iter().any(|name| token.is_word(sql, name));
    value.iter().any(is_call)
}

/// Whether a row leaves the value at this position to its default.
fn takes_default(sql: &[u8], values: &[&[Token]], position: Option<usize>) -> bool {
    match position.and_then(|at| values.get(at)) {
        Some(value) => matches!(value, [word] if word.is_word(sql, "default")),
        None => true,
    }
}

fn is_computed(keys: &[KeyExpr], row: usize) -> bool {
    keys.get(row)
        .is_some_and(|key| key.source == Source::Computed)
}

/// The INSERT, if its rows may be stored on several shards; else the reason why not.
pub(super) fn insert(analysis: &Analysis) -> Option<Result<Insert, Refusal>> {
    let rows = analysis.inserted.as_ref()?;
    let [stored] = analysis.stored.as_slice() else {
        return None;
    };
    if let (Some(refusal), Some(name)) = (&analysis.computed, &analysis.first_shard) {
        let detail = format!("It is computed with \"{name}\", which is on the first shard only.");
        return Some(Err(refusal.clone().detail(detail)));
    }
    let elsewhere = !analysis.instances.is_empty()
        || analysis.reads_views.is_some()
        || analysis.first_shard.is_some()
        || analysis.temporary
        || analysis.catalog
        || !analysis.settings.is_empty();
    if elsewhere || rows.ragged {
        return None;
    }
    let need = stored_need(analysis, stored);
    let computes = analysis.computed.is_some();
    let is_list = matches!(need.keys, KeySet::AnyOf(_));
    if !computes && !is_list && !rows.takes_next {
        return None;
    }
    if analysis.multiplies {
        return Some(Err(Refusal::not_supported(
            "a set-returning function in VALUES is not supported where the row's shard depends on what it returns",
        )
        .hint("Write INSERT … SELECT.")));
    }
    // One row is on one shard, which computes what there is to it.
    if let Some(reason) = analysis.merge.as_ref().filter(|_| is_list) {
        return Some(Err(reason.clone()));
    }
    Some(Ok(Insert {
        of_defaults: false,
        need,
        returns: rows.returns,
        calls: rows.calls,
        moments: analysis.moments && is_list,
        added: rows.added.clone(),
        replaced: rows.replaced.clone(),
        columns: rows.columns.clone(),
        key: rows.key.clone()?,
        computes_keys: computes,
        sequences: rows.sequences.clone(),
        takes_next: rows.takes_next,
        calls_sequences: rows.calls_sequences,
        overrides: rows.overrides,
    }))
}

impl Planner<'_> {
    /// Plans an INSERT of a list of rows, where it is one whose keys have to be computed, or that may turn out to be of several shards.
    pub(super) fn inserted(&self, plan: &mut Plan, analysis: &Analysis) {
        let Some(mut insert) = insert(analysis) else {
            return;
        };
        let takes_next = analysis
            .inserted
            .as_ref()
            .is_some_and(|rows| rows.takes_next);
        let moments = insert.as_ref().is_ok_and(|insert| insert.moments);
        if insert.as_ref().is_ok_and(|insert| insert.calls_sequences) && self.hides_sequence_call()
        {
            let refusal = Refusal::not_supported(
                "a function of sequences by this name in rows of a sharded table",
            );
            insert = Err(refusal.hint("Write it without quotes and schema."));
        }
        if moments && Moments::are_disguised(self.sql, self.tokens) {
            let refusal = Refusal::not_supported(
                "the time in this INSERT of rows of several shards is not supported",
            );
            insert = Err(refusal.hint("Write now() without quotes."));
        }
        match (&mut plan.operator, insert) {
            (Operator::PassThrough(Target::Keys(_)), Ok(insert)) if insert.takes_next => {
                plan.operator = Operator::Insert(Box::new(insert));
            }
            (Operator::PassThrough(Target::Keys(_)), Ok(insert)) => {
                plan.several = several(plan, Operator::Insert(Box::new(insert)));
            }
            // A shard by itself would take the values of its own sequence.
            (Operator::PassThrough(Target::Keys(_)), Err(refusal)) if takes_next => {
                plan.operator = Operator::Refuse(Box::new(refusal));
            }
            (Operator::PassThrough(Target::Keys(route)), Err(refusal)) => {
                route.several = Some(Box::new(refusal));
            }
            (Operator::Refuse(_), Ok(insert)) if insert.computes() => {
                plan.operator = Operator::Insert(Box::new(insert));
            }
            (Operator::Refuse(refused), Err(refusal)) => **refused = refusal,
            _ => {}
        }
    }
}

impl Insert {
    /// Whether keys have to be computed first.
    pub(crate) fn computes_keys(&self) -> bool {
        self.computes_keys
    }

    /// Whether anything has to be computed first.
    pub(crate) fn computes(&self) -> bool {
        self.computes_keys || self.takes_next
    }

    /// The shard of each row, where these are the keys that were computed.
    pub(crate) fn shards(
        &self,
        values: &Values<'_>,
        computed: &[Computed],
    ) -> Result<Vec<ShardIndex>, Box<Refusal>> {
        let params = computed.iter().map(|computed| Param {
            value: computed.text.as_deref(),
            binary: false,
            oid: computed.oid,
        });
        let computed: Vec<Param<'_>> = params.collect();
        self.need.shard_of_rows(values, &computed)
    }

    /// The expressions that have to be computed. `clock`: as for the parts.
    pub(crate) fn expressions(&self, sql: &[u8], clock: Option<&Clock>) -> Option<Ahead<String>> {
        let end = u32::try_from(sql.len()).ok()?;
        let tokens = parse::tokens(sql, 0..end).ok()?;
        let rows = Rows::of(sql, &tokens)?;
        let keys = self.keys();
        let computed = (0..keys.len()).filter(|row| is_computed(keys, *row));
        let text = |row: usize| match self.given_key(sql, &rows, &tokens, row) {
            Some(given) => String::from_utf8(sql.get(given)?.to_vec()).ok(),
            None => self.key.default.as_deref().map(str::to_owned),
        };
        let texts = computed.map(text).map(|text| {
            let text = text?;
            let text = clock.map_or(text.clone(), |clock| Moments::given(&text, clock));
            Some(format!("({text})"))
        });
        let mut next = Vec::new();
        for row in 0..rows.len() {
            let values = rows.values(&tokens, row);
            for taken in self.taken(sql, &values) {
                let text = match taken {
                    Taken::Default(column) => column.next.to_string(),
                    Taken::Call(place) => String::from_utf8(sql.get(place)?.to_vec()).ok()?,
                };
                let text = clock.map_or(text.clone(), |clock| Moments::given(&text, clock));
                next.push(format!("({text})"));
            }
        }
        Some(Ahead {
            keys: texts.collect::<Option<Vec<String>>>()?,
            next,
        })
    }

    /// The values of a row that come from sequences.
    fn taken(&self, sql: &[u8], values: &[&[Token]]) -> Vec<Taken<'_>> {
        let columns = self.sequences.iter();
        let defaults = columns.filter(|column| {
            column.is_identity && self.ignores() || takes_default(sql, values, column.position)
        });
        let mut taken: Vec<Taken<'_>> = defaults.map(Taken::Default).collect();
        if self.calls_sequences {
            let others = values.iter().enumerate();
            // A key has been computed by itself.
            let others = others.filter(|(at, _)| Some(*at) != self.key.position);
            let calls = others.filter(|(_, value)| calls_sequence(sql, value));
            taken.extend(calls.filter_map(|(_, value)| {
                let (first, last) = (value.first()?, value.last()?);
                Some(Taken::Call(first.start as usize..last.end as usize))
            }));
        }
        taken
    }

    /// Whether the values that identity columns are given are not stored.
    fn ignores(&self) -> bool {
        self.overrides == Some(Overriding::User)
    }

    /// The keys of the rows.
    fn keys(&self) -> &[KeyExpr] {
        if let KeySet::AnyOf(keys) = &self.need.keys {
            return keys;
        }
        let KeySet::Equal(key) = &self.need.keys else {
            return &[];
        };
        std::slice::from_ref(key)
    }

    /// The bytes of a row's key, if it is given as an expression.
    fn given_key(
        &self,
        sql: &[u8],
        rows: &Rows,
        tokens: &[Token],
        row: usize,
    ) -> Option<Range<usize>> {
        let value = *rows.values(tokens, row).get(self.key.position?)?;
        let is_default = matches!(value, [word] if word.is_word(sql, "default"))
            || self.key.is_identity && self.ignores();
        let (first, last) = (value.first()?, value.last()?);
        (!is_default).then_some(first.start as usize..last.end as usize)
    }

    /// What each shard is sent, in the order of their first rows, if the text has rows on these shards. `clock`: what time it
    /// is, if that matters.
    pub(crate) fn parts(
        &self,
        sql: &[u8],
        shards: &[ShardIndex],
        clock: Option<&Clock>,
        computed: &Ahead<Computed>,
    ) -> Option<Vec<Part>> {
        let end = u32::try_from(sql.len()).ok()?;
        let tokens = parse::tokens(sql, 0..end).ok()?;
        let rows = Rows::of(sql, &tokens).filter(|rows| rows.len() == shards.len())?;
        let given = match (clock, self.computes()) {
            (None, false) => Vec::new(),
            _ => self.given(sql, &tokens, &rows, clock, computed)?,
        };
        let mut all = ShardSet::empty();
        let mut parts = Vec::new();
        for shard in shards {
            if all.contains(*shard) {
                continue;
            }
            all.insert(*shard);
            let mut edits = rows.only(&tokens, |row| shards.get(row) == Some(shard));
            // What stands in rows that are gone goes with them.
            edits.extend_from_slice(&given);
            parts.push(Part {
                shard: *shard,
                edits: Edits::new(edits),
            });
        }
        Some(parts)
    }

    /// What gives the text values of the moment and computed keys.
    fn given(
        &self,
        sql: &[u8],
        tokens: &[Token],
        rows: &Rows,
        clock: Option<&Clock>,
        computed: &Ahead<Computed>,
    ) -> Option<Vec<Edit>> {
        let mut edits: Vec<Edit> = Vec::new();
        let at = |expression: &str| match clock {
            Some(clock) => Moments::given(expression, clock),
            None => expression.to_owned(),
        };
        let replaced = self.replaced.iter();
        let replaced: Vec<(usize, Vec<u8>)> = replaced
            .map(|(position, of)| (*position, format!("({})", at(of)).into_bytes()))
            .collect();
        let added = self.added.iter();
        let added: String = added.map(|(_, of)| format!(", ({})", at(of))).collect();
        let (mut next, mut computed) = (computed.next.iter(), computed.keys.iter());
        let adds_key = self.computes_keys && self.key.position.is_none();
        let keys = self.keys();
        for row in 0..rows.len() {
            let values = rows.values(tokens, row);
            for (position, instead) in &replaced {
                if let Some([word]) = values.get(*position)
                    && word.is_word(sql, "default")
                {
                    edits.push((word.start as usize..word.end as usize, instead.clone()));
                }
            }
            let mut added = match clock {
                Some(_) => added.clone(),
                None => String::new(),
            };
            added.push_str(&self.next_in_row(sql, &values, &mut next, &mut edits)?);
            if is_computed(keys, row) {
                let key = computed.next()?.literal()?;
                match self.key.position.and_then(|at| values.get(at)) {
                    Some([first, .., last]) => {
                        edits.push((first.start as usize..last.end as usize, key.into_bytes()));
                    }
                    Some([one]) => {
                        edits.push((one.start as usize..one.end as usize, key.into_bytes()));
                    }
                    _ => added.push_str(&format!(", {key}")),
                }
            }
            if !added.is_empty() {
                let end = rows.end_of(tokens, row)?;
                edits.push((end..end, added.into_bytes()));
            }
        }
        let mut names: Vec<&str> = match clock {
            Some(_) => self.added.iter().map(|(name, _)| name.as_str()).collect(),
            None => Vec::new(),
        };
        let left_out = self
            .sequences
            .iter()
            .filter(|column| column.position.is_none());
        names.extend(left_out.map(|column| column.name.as_str()));
        names.extend(adds_key.then_some(self.key.name.as_str()));
        let target = rows.target(sql, tokens)?;
        if !names.is_empty() {
            edits.push(self.columns_with(&names, target)?);
        }
        edits.extend(self.overriding(sql, tokens, rows));
        if let Some(clock) = clock {
            // Of what is replaced as a whole, the first counts. Values in rows need no names.
            let last = rows.end_of(tokens, rows.len().checked_sub(1)?)?;
            let moments = Moments::find(sql, tokens);
            edits.extend(moments.edits(sql, tokens, clock, |place| place > last));
        }
        Some(edits)
    }

    /// What has to be said of values in the place of identity columns' defaults.
    fn overriding(&self, sql: &[u8], tokens: &[Token], rows: &Rows) -> Option<Edit> {
        let behind = tokens.get(rows.target(sql, tokens)?.len()..)?;
        match self.overrides {
            None if self.overridden(sql, tokens, rows) => {
                let values = behind.first()?.start as usize;
                Some((values..values, b"OVERRIDING SYSTEM VALUE ".to_vec()))
            }
            // The next values stand where others were given.
            Some(Overriding::User) => {
                let user = behind.get(1)?;
                Some((user.start as usize..user.end as usize, b"SYSTEM".to_vec()))
            }
            None | Some(Overriding::System) => None,
        }
    }

    /// Whether the values given in the place of identity columns' defaults have to be said to be meant. Where a row has a value of its
    /// own, it is PostgreSQL that takes or refuses it.
    fn overridden(&self, sql: &[u8], tokens: &[Token], rows: &Rows) -> bool {
        let key = Some(self.key.position).filter(|_| self.key.is_identity && self.computes_keys);
        let others = self.sequences.iter().filter(|column| column.is_identity);
        let mut positions = others.map(|column| column.position).chain(key).peekable();
        let is_left_out = |position: Option<usize>| {
            (0..rows.len()).all(|row| takes_default(sql, &rows.values(tokens, row), position))
        };
        positions.peek().is_some() && positions.all(is_left_out)
    }

    /// Writes the next values of sequences in the place of a row's DEFAULTs; those that the row leaves out are returned.
    fn next_in_row<'a>(
        &self,
        sql: &[u8],
        values: &[&[Token]],
        next: &mut impl Iterator<Item = &'a Computed>,
        edits: &mut Vec<Edit>,
    ) -> Option<String> {
        let mut added = String::new();
        for taken in self.taken(sql, values) {
            let value = next.next()?.literal()?;
            let place = match taken {
                Taken::Call(place) => Some(place),
                Taken::Default(column) => {
                    let value = column.position.and_then(|at| values.get(at));
                    let ends = value.and_then(|value| value.first().zip(value.last()));
                    ends.map(|(first, last)| first.start as usize..last.end as usize)
                }
            };
            match place {
                Some(place) => edits.push((place, value.into_bytes())),
                None => added.push_str(&format!(", {value}")),
            }
        }
        Some(added)
    }

    /// The list of columns with those that are added.
    fn columns_with(&self, names: &[&str], target: &[Token]) -> Option<Edit> {
        let last = target.last()?;
        let names = names.join(", ");
        Some(match &self.columns {
            None => {
                let text = format!(", {names}");
                (last.start as usize..last.start as usize, text.into_bytes())
            }
            Some(columns) => {
                let text = format!(" ({}, {names}) ", columns.join(", "));
                (last.end as usize..last.end as usize, text.into_bytes())
            }
        })
    }

    /// The parameters it looks at.
    pub(super) fn params(&self) -> Vec<u16> {
        let mut params = Vec::new();
        self.need.keys.params(&mut params);
        params.sort_unstable();
        params.dedup();
        params
    }

    /// Bytes on the heap, about.
    pub(super) fn size(&self) -> usize {
        1024 + self.need.keys.size()
    }
}
