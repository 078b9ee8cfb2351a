//! Statements that SQL prepares: PREPARE, EXECUTE and DEALLOCATE.

pub(super) mod arguments;
mod prepare_text;
pub(super) mod sql_prepared;
