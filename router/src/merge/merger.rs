//! The operators in a row: interleave, group, sort, limit.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use switchyard_wire::frame;

use super::MergeError;
use super::group::{self, Open};
use super::interleave::{Interleave, Keyed, Next};
use super::limit::{Limit, Verdict};
use super::order::{Keys, Row, compare};
use super::recipe::{Formats, Recipe};

/// One execution of a [`Recipe`].
#[derive(Debug)]
pub struct Merger {
    recipe: Arc<Recipe>,
    formats: Formats,
    limit: Limit,
    interleave: Interleave,
    open: Option<Open>,
    sorting: Option<Sorting>,
    /// The keys of the last row given, where others may tie with it.
    last: Option<Keys>,
    over: bool,
}

/// What a [`Merger`] does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It needs the next row of this source, or to know that it has ended.
    Need(usize),
    /// It has given a row.
    Row,
    /// There are no more rows in the result.
    End,
}

/// Rows that are sorted here.
#[derive(Debug)]
struct Sorting {
    rows: Vec<Keyed>,
    /// How many of them can matter at most.
    reach: Option<usize>,
    bytes: usize,
    most_bytes: usize,
    /// All are there, and in order; the next is the last.
    sorted: bool,
}

impl Merger {
    /// Begins; rows come from so many sources. What has to be sorted may take so many bytes.
    pub fn new(
        recipe: Arc<Recipe>,
        formats: Formats,
        sources: usize,
        limit: Limit,
        most_bytes: usize,
    ) -> Merger {
        let reach = match recipe.ties {
            Some(_) => None,
            None => limit.reach().and_then(|reach| usize::try_from(reach).ok()),
        };
        let sorting = (!recipe.sort.is_empty()).then(|| Sorting {
            rows: Vec::new(),
            reach,
            bytes: 0,
            most_bytes,
            sorted: false,
        });
        Merger {
            recipe,
            formats,
            limit,
            interleave: Interleave::new(sources),
            open: None,
            sorting,
            last: None,
            over: false,
        }
    }

    /// The columns of the result.
    pub fn columns(&self) -> usize {
        self.recipe.columns.into()
    }

    /// Takes the row that was needed: the body of a DataRow.
    pub fn feed(&mut self, body: Bytes) -> Result<(), MergeError> {
        let row = Row::new(body);
        let width = usize::from(self.recipe.columns) + usize::from(self.recipe.extras);
        if row.values()?.len() != width {
            return Err(MergeError::Unreadable("row"));
        }
        let keys = row.keys(&self.recipe.order, &self.formats)?;
        self.interleave.feed((row, keys), &self.recipe.order);
        Ok(())
    }

    /// The source whose row was needed has ended.
    pub fn end(&mut self) {
        self.interleave.end();
    }

    /// Goes on as far as it can. A row is appended to `out` as a DataRow.
    pub fn step(&mut self, out: &mut BytesMut) -> Result<Step, MergeError> {
        loop {
            if self.over || (self.recipe.ties.is_none() && self.limit.is_reached()) {
                return Ok(Step::End);
            }
            let (row, keys) = match self.next()? {
                Next::Row(keyed) => keyed,
                Next::Need(source) => return Ok(Step::Need(source)),
                Next::End => {
                    self.over = true;
                    continue;
                }
            };
            match self.limit.next() {
                Verdict::PassOver => {}
                Verdict::Give => {
                    self.give(&row, out)?;
                    self.last = self.recipe.ties.map(|_| keys);
                    return Ok(Step::Row);
                }
                Verdict::Enough if self.ties_with_last(&keys) => {
                    self.give(&row, out)?;
                    return Ok(Step::Row);
                }
                Verdict::Enough => self.over = true,
            }
        }
    }

    fn ties_with_last(&self, keys: &Keys) -> bool {
        let (Some(last), Some(ties)) = (&self.last, self.recipe.ties) else {
            return false;
        };
        let order = self.recipe.result_order();
        let order = order.get(..usize::from(ties)).unwrap_or(order);
        compare(order, last, keys).is_eq()
    }

    /// The next row of the result, limits apart.
    fn next(&mut self) -> Result<Next, MergeError> {
        let Some(mut sorting) = self.sorting.take() else {
            return self.next_group();
        };
        while !sorting.sorted {
            match self.next_group()? {
                Next::Row((row, _)) => {
                    let row = row.detached();
                    let keys = row.keys(&self.recipe.sort, &self.formats)?;
                    sorting.add((row, keys), &self.recipe)?;
                }
                Next::End => {
                    sorting.sort(&self.recipe);
                    sorting.rows.reverse();
                    sorting.sorted = true;
                }
                need @ Next::Need(_) => {
                    self.sorting = Some(sorting);
                    return Ok(need);
                }
            }
        }
        let next = sorting.rows.pop().map_or(Next::End, Next::Row);
        self.sorting = Some(sorting);
        Ok(next)
    }

    fn next_group(&mut self) -> Result<Next, MergeError> {
        loop {
            let keyed = match self.interleave.next(&self.recipe.order) {
                Next::Row(keyed) => keyed,
                Next::End => {
                    let last = self.open.take();
                    let last = last.map(|open| open.finish(&self.recipe, &self.formats));
                    return Ok(last.transpose()?.map_or(Next::End, Next::Row));
                }
                need @ Next::Need(_) => return Ok(need),
            };
            if self.recipe.group.is_none() {
                return Ok(Next::Row(keyed));
            }
            if let Some(row) = group::take(&mut self.open, keyed, &self.recipe, &self.formats)? {
                return Ok(Next::Row(row));
            }
        }
    }

    /// Appends a row without the columns that are ours.
    fn give(&self, row: &Row, out: &mut BytesMut) -> Result<(), MergeError> {
        let values = row.values()?;
        let all = values.as_bytes();
        let mut rest = values.iter();
        rest.by_ref()
            .take(self.recipe.columns.into())
            .for_each(drop);
        let shown = all.get(..all.len() - rest.as_bytes().len()).unwrap_or(all);
        out.put_u8(b'D');
        let length = frame::HEADER - 1 + 2 + shown.len();
        out.put_u32(u32::try_from(length).map_err(|_| MergeError::Unreadable("row"))?);
        out.put_u16(self.recipe.columns);
        out.put_slice(shown);
        Ok(())
    }
}

impl Sorting {
    fn add(&mut self, keyed: Keyed, recipe: &Recipe) -> Result<(), MergeError> {
        self.bytes += size(&keyed);
        self.rows.push(keyed);
        let reach = self.reach.unwrap_or(usize::MAX);
        // Sorted as often as their number doubles, each row is moved a constant number of times.
        if self.rows.len() > reach && self.rows.len() / 2 >= reach.max(FEW) {
            self.sort(recipe);
        }
        if self.bytes > self.most_bytes {
            self.sort(recipe);
            if self.bytes > self.most_bytes {
                return Err(MergeError::TooLarge(self.most_bytes));
            }
        }
        Ok(())
    }

    /// Sorts what there is and lets go of what cannot matter.
    fn sort(&mut self, recipe: &Recipe) {
        self.rows.sort_by(|a, b| compare(&recipe.sort, &a.1, &b.1));
        self.rows.truncate(self.reach.unwrap_or(usize::MAX));
        self.bytes = self.rows.iter().map(size).sum();
    }
}

/// Fewer rows than this are not worth sorting early.
const FEW: usize = 64;

fn size((row, keys): &Keyed) -> usize {
    row.size() + size_of::<Keyed>() + 32 * keys.len()
}
