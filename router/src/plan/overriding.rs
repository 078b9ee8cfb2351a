//! OVERRIDING … VALUE: what becomes of the values that an INSERT gives identity columns.

use crate::relations::{Column, DefaultValue};
use crate::sql::Token;

/// What an INSERT says of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overriding {
    /// SYSTEM VALUE: they are stored.
    System,
    /// USER VALUE: they are not, but the next values of their sequences.
    User,
}

impl Overriding {
    /// The first one of a statement.
    pub(super) fn of(sql: &[u8], tokens: &[Token]) -> Option<Self> {
        tokens.windows(3).find_map(|three| match three {
            [first, kind, value]
                if first.is_word(sql, "overriding") && value.is_word(sql, "value") =>
            {
                let kinds = [("system", Self::System), ("user", Self::User)];
                let mut kinds = kinds.into_iter();
                kinds.find_map(|(word, known)| kind.is_word(sql, word).then_some(known))
            }
            _ => None,
        })
    }

    /// Whether values that are given to this column are not stored.
    pub(super) fn ignores(overriding: Option<Self>, column: &Column) -> bool {
        overriding == Some(Self::User) && column.default == DefaultValue::Identity
    }
}
