//! Plans meet shards: borrowing the backends a statement needs, sending to them, and relaying what they answer.
//!
//! `participants` keeps the backends a session holds, each a `participant`; `client` is the client's stream; `relay` moves
//! bytes between the two, and `copy` feeds a backend that asks for data, `copy_in` several at a time. `messages` reads what a backend says one message at a time, and `workspace` is a
//! PostgreSQL apart that rows of several shards are brought to, from where `load` takes them into a table. Rows that are given by parameters
//! are `arrays`, and what of them each shard needs is in `given_rows`. `block` is the transaction block they take part in, `remember` asks for what its session is to remember of sequences, `pins` whether it still has to be kept, `failure` the errors it can all end with, and `report` says them to the client.

pub(crate) mod arrays;
pub(crate) mod block;
pub(crate) mod client;
pub(crate) mod copy;
pub(crate) mod copy_in;
pub(crate) mod failure;
pub(crate) mod given_rows;
pub(crate) mod load;
pub(crate) mod messages;
pub(crate) mod participant;
pub(crate) mod participants;
pub(crate) mod pins;
pub(crate) mod relay;
pub(crate) mod remember;
pub(crate) mod report;
pub(crate) mod workspace;
