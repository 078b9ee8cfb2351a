//! Reads of several shards whose rows are merged here ([`merge`]), shard by shard a [`part`]; joins by parameters (`bind_join`), reads
//! that a global unique index finds the shard of (`located`), rows that are locked (`lock`), COPY TO (`copy`).

pub(super) mod bind_join;
mod choose_join;
pub(super) mod copy;
pub(super) mod keep;
pub(super) mod located;
pub(super) mod lock;
pub(super) mod merge;
pub(super) mod part;
