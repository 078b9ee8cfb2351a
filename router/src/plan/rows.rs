//! The rows of `INSERT … VALUES`: where each is in the text, and which of them are alike.
//!
//! Purpose: an INSERT may have many thousands of rows, which are mostly written alike. Only one of those that are alike is parsed and
//! analysed; the others' keys stand at the same places of theirs. A shard is sent the client's own text without the rows of others.
//! Invariant: two rows are alike only if they differ in nothing but the values of literals and the numbers of parameters.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kinds of tokens that are named are those that structure rows"
)]

use std::collections::HashMap;
use std::ops::Range;

use super::route::{KeyExpr, Source};
use crate::relations::{is_moment, is_own};
use crate::sql::{self, Literal, Token, TokenKind};

/// The rows of a VALUES list that is all there is to an INSERT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rows {
    /// The tokens of each, with its parentheses.
    rows: Vec<Range<usize>>,
}

impl Rows {
    /// Of `INSERT INTO … VALUES (…), (…) …`, if the tokens are that. What follows the rows may make more of them than a list of rows
    /// to insert: that is for the parser to say.
    pub(crate) fn of(sql: &[u8], tokens: &[Token]) -> Option<Self> {
        let insert = tokens.first()?.is_word(sql, "insert");
        let into = tokens.get(1)?.is_word(sql, "into");
        if !insert || !into {
            return None;
        }
        let mut depth = 0_usize;
        let mut values = None;
        for (at, token) in tokens.iter().enumerate() {
            match token.kind {
                TokenKind::Punct(b'(' | b'[') => depth += 1,
                TokenKind::Punct(b')' | b']') => depth = depth.saturating_sub(1),
                TokenKind::Word if depth == 0 => {
                    let queries = ["select", "with", "table", "default"];
                    if queries.iter().any(|word| token.is_word(sql, word)) {
                        return None;
                    }
                    if token.is_word(sql, "values") {
                        values = Some(at);
                        break;
                    }
                }
                _ => {}
            }
        }
        let mut at = values? + 1;
        let mut rows = Vec::new();
        loop {
            let end = row_end(tokens, at)?;
            rows.push(at..end);
            match tokens.get(end).map(|token| token.kind) {
                Some(TokenKind::Punct(b',')) => at = end + 1,
                _ => return Some(Self { rows }),
            }
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// What makes of the text one with only those rows that are wanted, of which there is at least one.
    pub(crate) fn only(
        &self,
        tokens: &[Token],
        wanted: impl Fn(usize) -> bool,
    ) -> Vec<(Range<usize>, Vec<u8>)> {
        let start = |row: usize| {
            let token = self.rows.get(row).and_then(|row| tokens.get(row.start));
            token.map_or(0, |token| token.start as usize)
        };
        let end = |row: usize| {
            let token = self.rows.get(row).and_then(|row| tokens.get(row.end - 1));
            token.map_or(0, |token| token.end as usize)
        };
        let mut gone: Vec<(Range<usize>, Vec<u8>)> = Vec::new();
        // The last row that stays: what follows it up to the next goes, commas included.
        let mut kept = None;
        let mut dropped = false;
        for row in 0..self.rows.len() {
            if !wanted(row) {
                dropped = true;
                continue;
            }
            match kept {
                None if dropped => gone.push((start(0)..start(row), Vec::new())),
                Some(before) if dropped => gone.push((end(before)..start(row), b", ".to_vec())),
                None | Some(_) => {}
            }
            (kept, dropped) = (Some(row), false);
        }
        if let (true, Some(last)) = (dropped, kept) {
            gone.push((end(last)..end(self.rows.len() - 1), Vec::new()));
        }
        gone
    }

    /// The tokens of a row's values.
    pub(crate) fn values<'t>(&self, tokens: &'t [Token], row: usize) -> Vec<&'t [Token]> {
        let inside = self.rows.get(row).map(|row| row.start + 1..row.end - 1);
        let inside = inside.and_then(|inside| tokens.get(inside));
        let mut depth = 0_usize;
        let mut is_comma = |token: &Token| {
            match token.kind {
                TokenKind::Punct(b'(' | b'[') => depth += 1,
                TokenKind::Punct(b')' | b']') => depth = depth.saturating_sub(1),
                TokenKind::Punct(b',') => return depth == 0,
                _ => {}
            }
            false
        };
        inside
            .unwrap_or_default()
            .split(|token| is_comma(token))
            .collect()
    }

    /// Where a row ends, before its parenthesis.
    pub(crate) fn end_of(&self, tokens: &[Token], row: usize) -> Option<usize> {
        let last = tokens.get(self.rows.get(row)?.end - 1)?;
        Some(last.start as usize)
    }

    /// The tokens before VALUES and what is said there of identity columns.
    pub(crate) fn target<'t>(&self, sql: &[u8], tokens: &'t [Token]) -> Option<&'t [Token]> {
        let before = tokens.get(..self.rows.first()?.start - 1)?;
        match before {
            [target @ .., overriding, _, _] if overriding.is_word(sql, "overriding") => {
                Some(target)
            }
            target => Some(target),
        }
    }
}

/// Behind the parenthesis that closes the one at `start`.
fn row_end(tokens: &[Token], start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.kind {
            TokenKind::Punct(b'(' | b'[') => depth += 1,
            TokenKind::Punct(b')' | b']') => depth = depth.checked_sub(1)?,
            _ if depth == 0 => return None,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// Rows of which only some are looked at, for the others are like them.
#[derive(Debug, Clone)]
pub(super) struct Folded {
    rows: Vec<Row>,
    /// How many are looked at.
    shapes: usize,
    calls: bool,
}

/// What is known of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    /// Which of those that are looked at it is like.
    shape: usize,
    /// The number of its first literal in the text.
    first_literal: usize,
    /// Its parameters in order.
    params: Vec<u16>,
}

impl Folded {
    /// The rows, and the tokens of the statement without those that are like an earlier one.
    pub(super) fn new(
        sql: &[u8],
        tokens: &[Token],
        literals: &[Literal],
        rows: &Rows,
    ) -> (Self, Vec<Token>) {
        let mut shapes: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut folded = Vec::with_capacity(rows.rows.len());
        let first = rows.rows.first().map_or(0, |row| row.start);
        let mut kept = tokens.get(..first).unwrap_or_default().to_vec();
        let (mut shape, mut calls) = (Vec::new(), false);
        for range in &rows.rows {
            let own = tokens.get(range.clone()).unwrap_or_default();
            shape.clear();
            calls |= write_shape(sql, own, &mut shape);
            let start = own.first().map_or(0, |token| token.start);
            let params = own
                .iter()
                .filter(|token| token.kind == TokenKind::Param)
                .map(|token| token.parameter(sql).unwrap_or(0));
            let known = shapes.get(&shape).copied();
            let number = known.unwrap_or(shapes.len());
            if known.is_none() {
                if number > 0 {
                    kept.push(comma(start));
                }
                kept.extend_from_slice(own);
                shapes.insert(shape.clone(), number);
            }
            folded.push(Row {
                shape: number,
                first_literal: literals.partition_point(|literal| literal.span.start < start),
                params: params.collect(),
            });
        }
        let end = rows.rows.last().map_or(0, |row| row.end);
        kept.extend_from_slice(tokens.get(end..).unwrap_or_default());
        let folded = Self {
            rows: folded,
            shapes: shapes.len(),
            calls,
        };
        (folded, kept)
    }

    /// Whether functions are called in them.
    pub(super) fn calls(&self) -> bool {
        self.calls
    }

    /// Whether some rows are left out, as they are like others.
    pub(super) fn is_shorter(&self) -> bool {
        self.rows.len() > self.shapes
    }

    /// How many rows are looked at.
    pub(super) fn shapes(&self) -> usize {
        self.shapes
    }

    /// The keys of all rows, from those of the ones that are looked at. `is_sole`: whether a parameter is mentioned once.
    pub(super) fn keys(
        &self,
        looked_at: &[KeyExpr],
        is_sole: impl Fn(u16) -> bool,
    ) -> Vec<KeyExpr> {
        let mut firsts: Vec<Option<&Row>> = vec![None; self.shapes];
        let mut keys = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let (Some(first), Some(key)) = (firsts.get_mut(row.shape), looked_at.get(row.shape))
            else {
                continue;
            };
            let first = *first.get_or_insert(row);
            let mut key = key.clone();
            match &mut key.source {
                Source::Literal { slot, .. } => {
                    let offset = (*slot as usize).saturating_sub(first.first_literal);
                    *slot = u32::try_from(row.first_literal + offset).unwrap_or(u32::MAX);
                }
                Source::Param { number, sole } => {
                    let position = first.params.iter().position(|known| known == number);
                    let own = position.and_then(|position| row.params.get(position));
                    *number = own.copied().unwrap_or(0);
                    *sole = is_sole(*number);
                }
                Source::Bool(_) | Source::Null | Source::Computed => {}
            }
            keys.push(key);
        }
        keys
    }
}

/// What rows that are alike have in common. What a function is called with may decide what it does: such rows are like none but their
/// copies. Returns whether it is such a row.
fn write_shape(sql: &[u8], row: &[Token], shape: &mut Vec<u8>) -> bool {
    let calls = row.windows(2).enumerate().any(|(at, pair)| {
        let named = matches!(
            pair[0].kind,
            TokenKind::Word | TokenKind::QuotedIdent | TokenKind::UnicodeIdent
        );
        named && pair[1].kind == TokenKind::Punct(b'(') && !is_known(sql, &row[at..])
    });
    for token in row {
        let mark = match token.kind {
            TokenKind::Integer if !calls => b'\x01',
            TokenKind::Decimal if !calls => b'\x02',
            TokenKind::String if !calls => b'\x03',
            TokenKind::Param if token.parameter(sql).is_some_and(|number| number > 0) => b'\x04',
            _ => {
                shape.extend_from_slice(token.text(sql));
                b' '
            }
        };
        shape.push(mark);
    }
    // A parameter twice in a row is another row than two parameters.
    let params = row.iter().filter(|token| token.kind == TokenKind::Param);
    let params: Vec<&[u8]> = params.map(|token| token.text(sql)).collect();
    for param in &params {
        let first = params.iter().position(|known| known == param);
        shape.push(b'\x05');
        shape.extend_from_slice(first.unwrap_or_default().to_string().as_bytes());
    }
    calls
}

/// Whether the tokens begin with a call without arguments of a function that gives one value.
fn is_known(sql: &[u8], call: &[Token]) -> bool {
    let name = call.first().and_then(|token| sql::name(token, sql));
    let known = name.is_some_and(|name| is_moment(&name) || is_own(&name));
    known
        && call
            .get(2)
            .is_some_and(|token| token.kind == TokenKind::Punct(b')'))
}

fn comma(before: u32) -> Token {
    Token {
        kind: TokenKind::Punct(b','),
        start: before,
        end: before,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use proptest::prelude::*;

    use super::{Folded, Rows};
    use crate::plan::edits::Edits;
    use crate::plan::{Context, Layer, NoParams, Operator, Plan, Values, parse, plan};
    use crate::relations::{Relations, SearchPath, fixture};
    use crate::sql::{Scan, Token};

    fn tokens(sql: &str) -> Vec<Token> {
        parse::tokens(sql.as_bytes(), 0..u32::try_from(sql.len()).unwrap()).unwrap()
    }

    fn rows(sql: &str) -> Option<Rows> {
        Rows::of(sql.as_bytes(), &tokens(sql))
    }

    fn only(sql: &str, wanted: &[usize]) -> String {
        let edits = rows(sql)
            .unwrap()
            .only(&tokens(sql), |row| wanted.contains(&row));
        String::from_utf8(Edits::new(edits).apply(sql.as_bytes())).unwrap()
    }

    #[test]
    fn rows_are_found_where_they_are_all_there_is() {
        let count = |sql: &str| rows(sql).map(|rows| rows.len());
        assert_eq!(
            count("INSERT INTO t VALUES (1, (2)), (f(3, 4), '), (')"),
            Some(2)
        );
        assert_eq!(
            count("insert into t (a) overriding system value values (1) returning a"),
            Some(1)
        );
        assert_eq!(
            count("INSERT INTO t (a) VALUES (ARRAY[(1), (2)]), ((SELECT 1))"),
            Some(2)
        );
        for other in [
            "INSERT INTO t DEFAULT VALUES",
            "INSERT INTO t SELECT 1 UNION VALUES (1), (2)",
            "INSERT INTO t WITH a AS (VALUES (1)) VALUES (1), (2)",
            "INSERT INTO t VALUES",
            "INSERT INTO t VALUES 1",
            "INSERT INTO t VALUES (1), (2",
            "SELECT 1",
            "VALUES (1), (2)",
        ] {
            assert_eq!(count(other), None, "{other}");
        }
    }

    #[test]
    fn a_text_keeps_the_rows_that_are_wanted() {
        let sql = "INSERT INTO t VALUES /*a*/ (1) , (2),(3) /*b*/, (4) RETURNING a;";
        assert_eq!(only(sql, &[0, 1, 2, 3]), sql);
        let kept = |wanted: &[usize]| only(sql, wanted);
        assert_eq!(kept(&[0]), "INSERT INTO t VALUES /*a*/ (1) RETURNING a;");
        assert_eq!(kept(&[3]), "INSERT INTO t VALUES /*a*/ (4) RETURNING a;");
        assert_eq!(
            kept(&[1, 2]),
            "INSERT INTO t VALUES /*a*/ (2),(3) RETURNING a;"
        );
        assert_eq!(
            kept(&[0, 3]),
            "INSERT INTO t VALUES /*a*/ (1), (4) RETURNING a;"
        );
    }

    #[test]
    fn only_rows_that_differ_are_looked_at() {
        let sql = "INSERT INTO t VALUES (1, 'a', $1), (2, 'b', $2), (-3, 'c', $3), (4, 5, NULL), (6, 'd', $1)";
        let mut scan = Scan::new();
        scan.scan(sql.as_bytes()).unwrap();
        let (folded, kept) = Folded::new(
            sql.as_bytes(),
            &tokens(sql),
            &scan.literals,
            &rows(sql).unwrap(),
        );
        assert_eq!(folded.shapes(), 3);
        let kept: Vec<&str> = kept
            .iter()
            .map(|token| std::str::from_utf8(token.text(sql.as_bytes())).unwrap())
            .collect();
        assert_eq!(
            kept.concat(),
            "INSERTINTOtVALUES(1,'a',$1)(-3,'c',$3)(4,5,NULL)"
        );
    }

    const SCHEMA: &str = "table public.users hash id (id int8 not null; name text)";

    fn planned(sql: &str) -> (Plan, Scan) {
        static RELATIONS: OnceLock<Relations> = OnceLock::new();
        let relations = RELATIONS.get_or_init(|| fixture::relations(8, SCHEMA));
        let mut scan = Scan::new();
        scan.scan(sql.as_bytes()).unwrap();
        let context = Context {
            relations,
            search_path: &SearchPath::default(),
            temporary: &[],
            layer: Layer::Auto,
            given: &[],
            ahead: &[],
            in_trigger: false,
        };
        (plan(sql, &scan, &context), scan)
    }

    /// The shard of each row.
    fn shards(sql: &str) -> Result<Vec<u16>, String> {
        let (plan, scan) = planned(sql);
        let values = Values {
            sql: sql.as_bytes(),
            literals: &scan.literals,
            params: &NoParams,
        };
        let found = match plan.several.as_deref().map(|several| &several.operator) {
            Some(Operator::Insert(insert)) => insert.shards(&values, &[]),
            _ => match &plan.operator {
                Operator::PassThrough(target) => target
                    .shards(&values, 8)
                    .map(|shards| shards.iter().collect()),
                other => panic!("{other:?}"),
            },
        };
        let found = found.map_err(|refusal| refusal.message);
        Ok(found?.iter().map(|shard| shard.0).collect())
    }

    fn row() -> impl Strategy<Value = String> {
        prop_oneof![
            (any::<i32>(), "[a-z'(),]{0,6}")
                .prop_map(|(id, name)| format!("({id}, '{}')", name.replace('\'', "''"))),
            any::<u16>().prop_map(|id| format!("('{id}', upper('(x), (y)'))")),
            any::<u16>().prop_map(|id| format!("(+{id}, NULL)")),
            any::<u16>().prop_map(|id| format!("({id}::int8, E'\\'')")),
            any::<u16>().prop_map(|id| format!("(({id}), $${id}), ($$)")),
            any::<u16>().prop_map(|id| format!(
                "({id}.0, (SELECT max(x) FROM (VALUES (1), (2)) AS v (x))::text)"
            )),
        ]
    }

    proptest! {
        #[test]
        fn each_row_goes_where_it_goes_by_itself(rows in proptest::collection::vec(row(), 2..20), space in prop_oneof![Just(""), Just(" /* , ( */ ")]) {
            let all = format!("INSERT INTO users (id, name) VALUES {}{space}RETURNING id", rows.join(&format!("{space},{space}")));
            let own: Vec<u16> = rows.iter().flat_map(|row| shards(&format!("INSERT INTO users (id, name) VALUES {row}")).unwrap()).collect();
            let found = shards(&all).unwrap();
            prop_assert_eq!(&found, &own);
            // Every row is in the text of its shard, in order, and in no other.
            for shard in 0..8 {
                let wanted: Vec<usize> = (0..rows.len()).filter(|row| own[*row] == shard).collect();
                if wanted.is_empty() {
                    continue;
                }
                let text = only(&all, &wanted);
                let own: Vec<&String> = wanted.iter().map(|row| &rows[*row]).collect();
                let mut rest = text.as_str();
                for row in &own {
                    let at = rest.find(row.as_str());
                    prop_assert!(at.is_some(), "{} {}", row, text);
                    rest = &rest[at.unwrap() + row.len()..];
                }
                prop_assert_eq!(super::Rows::of(text.as_bytes(), &tokens(&text)).unwrap().len(), own.len());
            }
        }
    }
}
