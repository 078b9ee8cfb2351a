//! Plans meet shards: borrowing the backends a statement needs, sending to them, and relaying what they answer.
//!
//! `participants` keeps the backends a session holds, `relay` moves bytes between one of them and the client,
//! `copy` feeds a backend that asks for data.

pub(crate) mod copy;
pub(crate) mod participants;
pub(crate) mod relay;
