//! Cursors that lock the rows they give: the query with what says where each of these rows is.
//!
//! Purpose: UPDATE and DELETE … WHERE CURRENT OF find the row again that such a cursor is at. Invariants: the text is the client's with
//! columns added, and it is parsed again and compared before it is used; what is added is the shard key and the primary key of each table
//! whose rows are locked. Collaborators: `session::extended::declare` runs it and finds the rows, `session::cursor::of_cursor` uses what it kept.

use super::tables::{clauses, items, tables};
use super::{Cut, Locked, verify};
use crate::plan::merge::clauses::Clauses;
use crate::plan::{Context, parse};

/// A cursor's query that says where its rows are.
#[derive(Debug)]
pub struct Places {
    /// The client's query with more columns.
    pub text: Vec<u8>,
    /// The tables whose rows are locked, in the order of the columns.
    pub tables: Vec<Locked>,
}

impl Places {
    /// Of a query that locks its rows; `Err` is why they cannot be found again.
    pub fn of(sql: &[u8], context: &Context<'_>) -> Result<Places, String> {
        let unclear = || "Its text is not understood well enough.".to_owned();
        let end = u32::try_from(sql.len()).map_err(|_| unclear())?;
        let tokens = parse::tokens(sql, 0..end).map_err(|_| unclear())?;
        let readable = parse::readable(sql, &tokens).ok_or_else(unclear)?;
        let statement = parse::parse(&readable, &tokens).map_err(|_| unclear())?;
        let (query, select) = super::outermost(&statement).ok_or_else(unclear)?;
        let found = Clauses::find(sql, &tokens, query, select).ok_or_else(unclear)?;
        let of = tokens.get(found.locks.clone()).ok_or_else(unclear)?;
        let of = clauses(sql, of).ok_or_else(unclear)?;
        let tables = tables(&items(query, select, context), &of)?;
        if !tables.iter().any(Locked::stands_still) {
            return Err(
                "Others may change its rows, which are locked FOR KEY SHARE only.".to_owned(),
            );
        }
        let list = found.head.end;
        let places = Places {
            text: text(&Cut::new(sql), list, &tables),
            tables,
        };
        verify(&places.text, query, select, places.extras(), |ours| {
            ours.limit_clause == query.limit_clause
                && ours.fetch == query.fetch
                && ours.locks == query.locks
        })
        .ok_or_else(unclear)?;
        Ok(places)
    }

    /// How many columns are not the client's.
    pub fn extras(&self) -> usize {
        self.tables.iter().map(Locked::identity_width).sum()
    }
}

fn text(cut: &Cut<'_>, list: usize, tables: &[Locked]) -> Vec<u8> {
    let mut text = cut.between(0, list).to_vec();
    let columns = tables.iter().flat_map(Locked::identity);
    for (at, column) in columns.enumerate() {
        // No name of the client's can mean it.
        text.extend_from_slice(format!(", {column} AS \"switchyard place {}\"", at + 1).as_bytes());
    }
    text.push(b' ');
    text.extend_from_slice(cut.between(list, cut.tokens.len()));
    text
}
