//! SQL text, read by PostgreSQL's lexical rules.
//!
//! Purpose: turn the bytes of a query into what the plan cache and the planner need, in one pass and without
//! allocating once warm. Invariant: pure (no sockets, no clocks); a text that is not read exactly as PostgreSQL reads
//! it is [`Unscannable`], never half understood. Collaborators: [`crate::plan`] plans what [`Scan`] found.

mod empty;
pub mod hint;
pub mod lexer;
pub(crate) mod names;
mod redact;
pub mod scan;
pub(crate) mod template;
#[cfg(test)]
mod tests;

pub(crate) use empty::without_empty;
pub use hint::{Hint, HintNode};
pub use lexer::{Lexer, Token, TokenKind, Unscannable};
pub(crate) use names::name;
pub(crate) use redact::redacted;
pub use scan::{Literal, LiteralKind, Scan};
