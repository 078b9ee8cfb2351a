//! How the rows of several shards become one result.

use switchyard_wire::Format;

use super::value::Kind;

/// How the rows of a scattered statement become its result. Columns are counted from 0, in the shards' rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recipe {
    /// The columns of the result; the shards' rows begin with them.
    pub columns: u16,
    /// Columns behind those, which only the router sees.
    pub extras: u16,
    /// How each shard has ordered its rows. Empty: not at all, and the shards' rows follow each other.
    pub order: Vec<SortKey>,
    /// Rows that are made into one.
    pub group: Option<Group>,
    /// How the result is ordered, where that is not the order the rows come in.
    pub sort: Vec<SortKey>,
    /// Rows that equal the last one a limit lets through in so many keys, the first of the result's order, come too.
    pub ties: Option<u16>,
}

impl Recipe {
    /// How the result is ordered.
    pub(super) fn result_order(&self) -> &[SortKey] {
        match self.sort.as_slice() {
            [] => &self.order,
            sort => sort,
        }
    }
}

/// A column to order by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortKey {
    /// Its position.
    pub column: u16,
    /// How its values are compared.
    pub kind: Kind,
    /// It holds the binary form of the values, as `bytea`.
    pub sent: bool,
    /// The largest first.
    pub descending: bool,
    /// NULL before all else.
    pub nulls_first: bool,
}

/// Which rows are made into one: those that are equal in every key of [`Recipe::order`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// The columns that are combined. Of all others, the first row's value is taken.
    pub combine: Vec<(u16, Combine)>,
}

/// How the values of a column become one; NULLs are left out, and of nothing but NULLs comes NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// The sum of `bigint` values.
    SumInt8,
    /// The sum of `numeric` values.
    SumNumeric,
    /// An average: of the sum in one column and the number of values in another.
    Average {
        /// The column of the sum.
        sum: u16,
        /// It is `bigint` and not `numeric`.
        whole: bool,
        /// The column of the count.
        count: u16,
    },
    /// The value that comes first by this key.
    First(SortKey),
    /// `bool_and`, `every`
    And,
    /// `bool_or`
    Or,
    /// `bit_and` of this kind of integers.
    BitAnd(Kind),
    /// `bit_or` of this kind of integers.
    BitOr(Kind),
    /// `bit_xor` of this kind of integers.
    BitXor(Kind),
}

/// The formats of the shards' columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formats(Vec<Format>);

impl Formats {
    /// All in text: the simple protocol.
    pub fn text() -> Formats {
        Formats(Vec::new())
    }

    /// One for each column.
    pub fn each(formats: Vec<Format>) -> Formats {
        Formats(formats)
    }

    /// That of a column.
    pub fn of(&self, column: u16) -> Format {
        self.0
            .get(usize::from(column))
            .copied()
            .unwrap_or(Format::Text)
    }
}
