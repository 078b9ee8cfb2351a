//! What a statement calls the present: on several shards it is one value, which is written into the text they run.
//!
//! Purpose: [`Moments`] finds `now()`, `CURRENT_TIMESTAMP` and their like among a statement's tokens and puts subqueries with a constant in
//! their places. Invariants: a column made of one keeps its name, as the subquery's column has it; the changed text is analysed
//! again before it is used, and must have no such call left. Collaborators: the session asks one shard what time it is.

use std::ops::Range;

use super::analyse;
use super::edits::Edits;
use super::parse;
use super::{Context, Planner};
use crate::sql::{self, Scan, Token, TokenKind};

/// The time, as texts that PostgreSQL reads alike under any setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    /// When the transaction began.
    pub transaction: Box<str>,
    /// When the statement did.
    pub statement: Box<str>,
}

/// The query that asks a shard for a [`Clock`]: two lines.
pub const CLOCK: &str = "SELECT pg_catalog.to_char(t AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00' \
     FROM (VALUES (pg_catalog.now()), (pg_catalog.statement_timestamp())) AS clock (t)";

/// The calls for the time in a statement.
#[derive(Debug, Clone, Default)]
pub struct Moments {
    calls: Vec<Moment>,
    defaults: Vec<Written>,
}

/// A default that is a value of the moment, which is written into the text.
#[derive(Debug, Clone)]
pub(super) struct MomentDefault {
    /// Where the word DEFAULT is, or the parenthesis that it is written before.
    pub(super) at: u32,
    /// It is the word.
    pub(super) is_word: bool,
    /// What is written before it.
    pub(super) before: String,
    /// The default, if there is one to be written.
    pub(super) expression: Option<Box<str>>,
}

/// The same, by the position of the token.
#[derive(Debug, Clone)]
struct Written {
    token: usize,
    default: MomentDefault,
}

/// One call, by the positions of its tokens.
#[derive(Debug, Clone)]
struct Moment {
    first: usize,
    last: usize,
    name: &'static str,
    /// The type of its value.
    of_type: &'static str,
    /// The token that says how many digits a second has.
    precision: Option<usize>,
}

/// Functions without arguments.
const FUNCTIONS: [&str; 3] = ["now", "transaction_timestamp", "statement_timestamp"];

/// Words that are calls, and the types of their values.
const WORDS: [(&str, &str); 5] = [
    ("current_date", "date"),
    ("current_time", "timetz"),
    ("current_timestamp", "timestamptz"),
    ("localtime", "time"),
    ("localtimestamp", "timestamp"),
];

impl Moments {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.defaults.is_empty()
    }

    /// Those in a text of which these are the tokens.
    pub(super) fn find(sql: &[u8], tokens: &[Token]) -> Moments {
        let punct = |at: usize, byte| {
            let token = tokens.get(at);
            token.is_some_and(|token| token.kind == TokenKind::Punct(byte))
        };
        let mut found = Vec::new();
        for (at, token) in tokens.iter().enumerate() {
            let after_dot = at > 0 && punct(at - 1, b'.');
            let label = at > 0 && tokens[at - 1].is_word(sql, "as");
            let called = punct(at + 1, b'(');
            let mut functions = FUNCTIONS.iter().filter(|name| token.is_word(sql, name));
            let mut words = WORDS.iter().filter(|(name, _)| token.is_word(sql, name));
            if let Some(name) = functions.next()
                && called
                && punct(at + 2, b')')
            {
                // Of another schema it would not be PostgreSQL's, and something would be left.
                let qualified = after_dot && at > 1 && tokens[at - 2].is_word(sql, "pg_catalog");
                found.push(Moment {
                    first: if qualified { at - 2 } else { at },
                    last: at + 2,
                    name,
                    of_type: "timestamptz",
                    precision: None,
                });
            } else if let Some((name, of_type)) = words.next()
                && !after_dot
                && !label
            {
                let precise = called && punct(at + 3, b')');
                found.push(Moment {
                    first: at,
                    last: if precise { at + 3 } else { at },
                    name,
                    of_type,
                    precision: precise.then_some(at + 2),
                });
            }
        }
        Moments {
            calls: found,
            defaults: Vec::new(),
        }
    }

    /// The same, and defaults.
    fn with_defaults(mut self, tokens: &[Token], defaults: &[MomentDefault]) -> Option<Moments> {
        let written = |default: &MomentDefault| {
            let token = tokens.iter().position(|token| token.start == default.at)?;
            let default = default.clone();
            Some(Written { token, default })
        };
        self.defaults = defaults.iter().map(written).collect::<Option<_>>()?;
        Some(self)
    }

    /// The text with the time in it.
    pub fn text(&self, sql: &[u8], clock: &Clock) -> Vec<u8> {
        let end = u32::try_from(sql.len()).unwrap_or(u32::MAX);
        let tokens = parse::tokens(sql, 0..end).unwrap_or_default();
        Edits::new(self.edits(sql, &tokens, clock, |_| true)).apply(sql)
    }

    /// What puts the time into the text. `named`: whether what is made at this place is to have the call's name, as a column of the
    /// result has.
    pub(super) fn edits(
        &self,
        sql: &[u8],
        tokens: &[Token],
        clock: &Clock,
        named: impl Fn(usize) -> bool,
    ) -> Vec<(Range<usize>, Vec<u8>)> {
        let edit = |moment: &Moment| {
            let (first, last) = (tokens.get(moment.first)?, tokens.get(moment.last)?);
            let digits = moment.precision.and_then(|at| tokens.get(at));
            let digits = digits.map(|token| String::from_utf8_lossy(token.text(sql)));
            let typmod = digits.map_or(String::new(), |digits| format!("({digits})"));
            let at = match moment.name {
                "statement_timestamp" => &clock.statement,
                _ => &clock.transaction,
            };
            let value = format!("'{at}'::pg_catalog.timestamptz");
            let Moment { name, of_type, .. } = moment;
            let value = match *of_type {
                "timestamptz" if typmod.is_empty() => value,
                of_type => format!("{value}::pg_catalog.{of_type}{typmod}"),
            };
            let instead = match named(first.start as usize) {
                true => format!("(SELECT {value} AS \"{name}\")"),
                false => format!("({value})"),
            };
            Some((
                first.start as usize..last.end as usize,
                instead.into_bytes(),
            ))
        };
        let default = |written: &Written| {
            let token = tokens.get(written.token)?;
            let MomentDefault { before, .. } = &written.default;
            let value = written.default.expression.as_ref();
            let value = value.map(|value| format!("({})", Self::given(value, clock)));
            let end = match written.default.is_word {
                true => token.end,
                false => token.start,
            };
            let instead = format!("{before}{}", value.unwrap_or_default());
            Some((token.start as usize..end as usize, instead.into_bytes()))
        };
        let calls = self.calls.iter().filter_map(edit);
        calls
            .chain(self.defaults.iter().filter_map(default))
            .collect()
    }

    /// An expression of PostgreSQL's printing with the time in it.
    pub(super) fn given(expression: &str, clock: &Clock) -> String {
        let sql = expression.as_bytes();
        let end = u32::try_from(sql.len()).unwrap_or(u32::MAX);
        let tokens = parse::tokens(sql, 0..end).unwrap_or_default();
        let edits = Self::find(sql, &tokens).edits(sql, &tokens, clock, |_| false);
        String::from_utf8_lossy(&Edits::new(edits).apply(sql)).into_owned()
    }

    /// Whether a name of such a function is written in a way in which it would not be found.
    pub(super) fn are_disguised(sql: &[u8], tokens: &[Token]) -> bool {
        let quoted =
            |token: &Token| matches!(token.kind, TokenKind::QuotedIdent | TokenKind::UnicodeIdent);
        let named = |token: &Token| {
            let name = sql::name(token, sql);
            name.is_none_or(|name| FUNCTIONS.contains(&&*name))
        };
        tokens.iter().any(|token| quoted(token) && named(token))
    }
}

impl Planner<'_> {
    /// The calls for the time in a statement that is understood and has some, and defaults that do; `None` if they cannot all be replaced.
    pub(super) fn moments(&self, tokens: &[Token], defaults: &[MomentDefault]) -> Option<Moments> {
        let (first, last) = (tokens.first()?.start as usize, tokens.last()?.end as usize);
        let sql = self.sql.get(first..last)?;
        let own = parse::tokens(sql, 0..u32::try_from(sql.len()).ok()?).ok()?;
        let moments = Moments::find(sql, &own).with_defaults(tokens, defaults)?;
        let sample: Box<str> = "2000-01-01 00:00:00+00".into();
        let clock = Clock {
            transaction: sample.clone(),
            statement: sample,
        };
        let text = moments.text(sql, &clock);
        let left = is_any_left(&text, self.context)?;
        (!left).then_some(moments)
    }
}

/// Whether a text still calls for the time; `None` if it is not understood.
fn is_any_left(text: &[u8], context: &Context<'_>) -> Option<bool> {
    let mut scan = Scan::new();
    scan.scan(text).ok()?;
    let end = u32::try_from(text.len()).ok()?;
    let tokens = parse::tokens(text, 0..end).ok()?;
    let readable = parse::readable(text, &tokens)?;
    let statement = parse::parse(&readable, &tokens).ok()?;
    let (analysis, _) = analyse::analyse(&statement, None, (text, &tokens), &scan, context);
    analysis.ok().map(|analysis| analysis.moments)
}
