//! Rows that are equal in their keys, made into one.

use bytes::{BufMut, Bytes, BytesMut};

use super::MergeError;
use super::aggregate::Partial;
use super::interleave::Keyed;
use super::order::{Row, compare};
use super::recipe::{Formats, Recipe};

/// The group whose rows are coming in.
#[derive(Debug)]
pub(super) struct Open {
    first: Keyed,
    partials: Vec<Partial>,
}

impl Open {
    fn new(first: Keyed, recipe: &Recipe, formats: &Formats) -> Result<Open, MergeError> {
        let combine = recipe.group.iter().flat_map(|group| &group.combine);
        let partials = combine.map(|(_, combine)| Partial::new(*combine)).collect();
        let row = first.0.clone();
        let mut open = Open { first, partials };
        open.add(&row, recipe, formats)?;
        Ok(open)
    }

    fn add(&mut self, row: &Row, recipe: &Recipe, formats: &Formats) -> Result<(), MergeError> {
        let combine = recipe.group.iter().flat_map(|group| &group.combine);
        for (partial, (column, combine)) in self.partials.iter_mut().zip(combine) {
            partial.add(*combine, *column, row, formats)?;
        }
        Ok(())
    }

    /// The one row of the group.
    pub(super) fn finish(self, recipe: &Recipe, formats: &Formats) -> Result<Keyed, MergeError> {
        if self.partials.is_empty() {
            return Ok(self.first);
        }
        let combine = recipe.group.iter().flat_map(|group| &group.combine);
        let mut finished: Vec<(u16, Option<Bytes>)> = self
            .partials
            .into_iter()
            .zip(combine)
            .map(|(partial, (column, combine))| {
                (*column, partial.finish(*combine, formats.of(*column)))
            })
            .collect();
        let (row, keys) = self.first;
        let values = row.values()?;
        let mut body = BytesMut::with_capacity(row.size() + 16 * finished.len());
        body.put_u16(recipe.columns + recipe.extras);
        for (column, value) in (0..).zip(values) {
            let combined = finished.iter_mut().find(|(at, _)| *at == column);
            match combined {
                Some((_, value)) => put(&mut body, value.take().as_deref()),
                None => put(&mut body, value),
            }
        }
        Ok((Row::new(body.freeze()), keys))
    }
}

/// Appends a value with its length.
fn put(body: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        None => body.put_i32(-1),
        Some(value) => {
            body.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
            body.put_slice(value);
        }
    }
}

/// Takes a row into the open group, or begins a new one with it and gives the row of the one before.
pub(super) fn take(
    open: &mut Option<Open>,
    keyed: Keyed,
    recipe: &Recipe,
    formats: &Formats,
) -> Result<Option<Keyed>, MergeError> {
    if let Some(open) = open
        && compare(&recipe.order, &open.first.1, &keyed.1).is_eq()
    {
        open.add(&keyed.0, recipe, formats)?;
        return Ok(None);
    }
    let before = open.replace(Open::new(keyed, recipe, formats)?);
    before.map(|open| open.finish(recipe, formats)).transpose()
}
