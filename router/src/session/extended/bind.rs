//! The values of a Bind message, as keys ask for them.

use std::cell::Cell;

use switchyard_wire::frontend::Bind;
use switchyard_wire::{Format, ValuesIter};

use super::lossy;
use crate::execute::failure::Failure;
use crate::plan::{Param, Params};
use crate::session::statement::Statement;

/// Whether a Bind message has the parameters that its statement needs, as far as is known: the arrays of rows that are given would take the place of
/// missing ones.
pub(in crate::session) fn has_parameters(
    bind: &Bind<'_>,
    needed: Option<usize>,
) -> Result<(), Failure> {
    let given = bind.params.len();
    match needed {
        None => Ok(()),
        Some(needed) if given == needed => Ok(()),
        Some(needed) => Err(Failure::ParameterCount {
            given,
            statement: lossy(bind.statement),
            needed,
        }),
    }
}

/// The parameters of a Bind message, with their types.
pub(in crate::session) struct BoundParams<'a> {
    bind: &'a Bind<'a>,
    statement: &'a Statement,
    /// The values from this position on. Keys are asked for in the order of their numbers, more or less: to start over for
    /// each would take the square of their number.
    rest: Cell<(usize, ValuesIter<'a>)>,
}

impl<'a> BoundParams<'a> {
    pub(in crate::session) fn new(bind: &'a Bind<'a>, statement: &'a Statement) -> Self {
        Self {
            bind,
            statement,
            rest: Cell::new((0, bind.params.iter())),
        }
    }

    fn value(&self, index: usize) -> Option<Option<&'a [u8]>> {
        let start = (0, self.bind.params.iter());
        let (position, mut rest) = self.rest.replace(start);
        let skipped = match index.checked_sub(position) {
            Some(skipped) => skipped,
            None => {
                rest = self.bind.params.iter();
                index
            }
        };
        let value = rest.nth(skipped);
        self.rest.set((index + 1, rest));
        value
    }
}

impl Params for BoundParams<'_> {
    fn param(&self, number: u16) -> Option<Param<'_>> {
        let index = usize::from(number).checked_sub(1)?;
        Some(Param {
            value: self.value(index)?,
            binary: self.bind.param_formats.format(index) == Format::Binary,
            oid: self.statement.parameter_type(number),
        })
    }
}
