//! Types of expressions, as far as the router can be certain of them and compares their values.

use switchyard_schema::{Collation, KeyType};

use crate::merge::Kind;
use crate::relations::Column;

/// A type whose values the router compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Typed {
    oid: u32,
    kind: Kind,
    collation: Collation,
}

const BOOL: u32 = 16;
const BYTEA: u32 = 17;
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const DATE: u32 = 1082;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const NUMERIC: u32 = 1700;
const UUID: u32 = 2950;

impl Typed {
    /// `bigint`
    pub(super) const INT8: Typed = Typed::plain(INT8, Kind::Int8);
    /// `numeric`
    pub(super) const NUMERIC: Typed = Typed::plain(NUMERIC, Kind::Numeric);
    /// `boolean`
    pub(super) const BOOL: Typed = Typed::plain(BOOL, Kind::Bool);

    const fn plain(oid: u32, kind: Kind) -> Typed {
        Typed {
            oid,
            kind,
            collation: Collation::Bytes,
        }
    }

    /// The type of a column, if its values are compared here.
    pub(super) fn of(column: &Column) -> Option<Typed> {
        let kind = match column.type_oid {
            BOOL => Kind::Bool,
            BYTEA => Kind::Bytea,
            INT8 => Kind::Int8,
            INT2 => Kind::Int2,
            INT4 => Kind::Int4,
            25 | 1043 => Kind::Text,
            FLOAT4 => Kind::Float4,
            FLOAT8 => Kind::Float8,
            1042 => Kind::Bpchar,
            DATE => Kind::Date,
            TIMESTAMP | TIMESTAMPTZ => Kind::Timestamp,
            NUMERIC => Kind::Numeric,
            UUID => Kind::Uuid,
            _ => return None,
        };
        let oid = column.type_oid;
        let collation = column.collation;
        (collation != Collation::Nondeterministic).then_some(Typed {
            oid,
            kind,
            collation,
        })
    }

    /// The type a cast names, if it has no collation.
    pub(super) fn of_key(key_type: KeyType) -> Option<Typed> {
        Some(match key_type {
            KeyType::Int2 => Typed::plain(INT2, Kind::Int2),
            KeyType::Int4 => Typed::plain(INT4, Kind::Int4),
            KeyType::Int8 => Typed::INT8,
            KeyType::Numeric => Typed::NUMERIC,
            KeyType::Bool => Typed::BOOL,
            KeyType::Uuid => Typed::plain(UUID, Kind::Uuid),
            KeyType::Bytea => Typed::plain(BYTEA, Kind::Bytea),
            KeyType::Date => Typed::plain(DATE, Kind::Date),
            KeyType::Timestamp => Typed::plain(TIMESTAMP, Kind::Timestamp),
            KeyType::Timestamptz => Typed::plain(TIMESTAMPTZ, Kind::Timestamp),
            KeyType::Text | KeyType::Varchar | KeyType::Bpchar => return None,
        })
    }

    /// The same with a collation that compares bytes.
    pub(super) fn bytewise(self) -> Typed {
        Typed {
            collation: Collation::Bytes,
            ..self
        }
    }

    /// `smallint`, `integer`
    pub(super) fn is_small(self) -> bool {
        matches!(self.kind, Kind::Int2 | Kind::Int4)
    }

    /// An integer.
    pub(super) fn is_whole(self) -> bool {
        self.is_small() || self.kind == Kind::Int8
    }

    /// A number that is added exactly.
    pub(super) fn is_number(self) -> bool {
        self.is_whole() || self.kind == Kind::Numeric
    }

    /// Whether `min` and `max` of values are found here.
    pub(super) fn has_extremes(self) -> bool {
        let time = matches!(self.kind, Kind::Date | Kind::Timestamp);
        let text = matches!(self.kind, Kind::Text | Kind::Bpchar);
        self.is_number() || time || (text && self.is_ordered())
    }

    /// How values are written and compared.
    pub(super) fn kind(self) -> Kind {
        self.kind
    }

    /// Whether the router's order is PostgreSQL's.
    pub(super) fn is_ordered(self) -> bool {
        self.collation == Collation::Bytes
    }

    /// Whether values that are equal are written alike, or any of them may stand for all.
    pub(super) fn is_grouped(self) -> bool {
        // There are two zeros, which are equal.
        !matches!(self.kind, Kind::Float4 | Kind::Float8)
    }

    /// The function that makes a value's binary form, where values are compared by it.
    pub(super) fn send(self) -> Option<&'static str> {
        match self.oid {
            DATE => Some("date_send"),
            TIMESTAMP => Some("timestamp_send"),
            TIMESTAMPTZ => Some("timestamptz_send"),
            FLOAT4 => Some("float4send"),
            FLOAT8 => Some("float8send"),
            _ => None,
        }
    }
}
