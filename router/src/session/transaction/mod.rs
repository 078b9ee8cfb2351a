//! Transactions over several shards: their statements (`control`), their end (`commit`), those that the client prepares itself
//! (`prepared`), and one moment for all shards (`cut`).

mod commit;
mod control;
mod cut;
pub(super) mod prepared;
