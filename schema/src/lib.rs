//! The pure model of a sharded PostgreSQL: configuration, shard keys, buckets and placement.
//!
//! This crate is the only place that knows which shard a key is on, and both programs ask it. It does no I/O, knows no clock
//! and no runtime: the same input gives the same output for ever.
//!
//! Reading order: [`model`](Config) is what a configuration says; `file` reads it; [`Key`] is a value that decides a shard;
//! [`hash`] is PostgreSQL's own hash of it; [`BucketMap`] places the hash; [`KeyMap`] joins all that into one function.

mod access;
mod balance;
mod bucket;
mod choices;
mod defaults;
mod diagnostic;
mod file;
pub mod hash;
pub mod hba;
mod key;
mod list;
mod literal;
mod model;
mod modulo;
mod placement;
mod pooling;
mod range;
mod ring;
mod shard;
mod shard_sql;
mod shift;

pub use access::{Auth, AuthMethod, User, UserLookup};
pub use bucket::{BUCKETS, Bucket, BucketMap, BucketMapError, bucket_sql};
pub use diagnostic::Diagnostic;
pub use key::{Key, KeyError, KeyFamily, KeyType, Numeric};
pub use list::ListMap;
pub use model::{
    Address, Catalog, ClientTls, Config, Consistency, Database, Distribution, ListEntry, Literal,
    LiteralForm, LogConfig, LogFormat, Method, Node, NodeTls, Peer, PoolMode, RangeEntry,
    ReadPolicy, Role, RouterConfig, Secret, Shard, ShardKey, SslMode, Table, TableName, Timeouts,
};
pub use modulo::{ModuloMap, remainder_sql};
pub use placement::{Collation, KeyMap, NoShard, Placement, ResolveError};
pub use pooling::{LOOKUPS, PoolConfig, PoolRules, Pooling};
pub use range::RangeMap;
pub use shard::{MAX_SHARDS, ShardIndex, ShardSet};
pub use shard_sql::{owner_sql, shard_sql};
pub use shift::{Keys, Shift, ShiftError};
