//! Plans meet shards: borrowing the backends a statement needs, sending to them, and relaying what they answer.
//!
//! `participants` keeps the backends a session holds, each a `participant`, `relay` moves bytes between one of them and the client,
//! `copy` feeds a backend that asks for data.

pub(crate) mod copy;
pub(crate) mod participant;
pub(crate) mod participants;
pub(crate) mod relay;
