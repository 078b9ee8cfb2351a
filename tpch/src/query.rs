//! The 22 queries.

/// A query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Its number in the specification, from 1.
    pub number: usize,
    /// Its text.
    pub sql: &'static str,
}

/// All of them, in order.
pub const QUERIES: [Query; 22] = [
    query(1, include_str!("../queries/q01.sql")),
    query(2, include_str!("../queries/q02.sql")),
    query(3, include_str!("../queries/q03.sql")),
    query(4, include_str!("../queries/q04.sql")),
    query(5, include_str!("../queries/q05.sql")),
    query(6, include_str!("../queries/q06.sql")),
    query(7, include_str!("../queries/q07.sql")),
    query(8, include_str!("../queries/q08.sql")),
    query(9, include_str!("../queries/q09.sql")),
    query(10, include_str!("../queries/q10.sql")),
    query(11, include_str!("../queries/q11.sql")),
    query(12, include_str!("../queries/q12.sql")),
    query(13, include_str!("../queries/q13.sql")),
    query(14, include_str!("../queries/q14.sql")),
    query(15, include_str!("../queries/q15.sql")),
    query(16, include_str!("../queries/q16.sql")),
    query(17, include_str!("../queries/q17.sql")),
    query(18, include_str!("../queries/q18.sql")),
    query(19, include_str!("../queries/q19.sql")),
    query(20, include_str!("../queries/q20.sql")),
    query(21, include_str!("../queries/q21.sql")),
    query(22, include_str!("../queries/q22.sql")),
];

const fn query(number: usize, sql: &'static str) -> Query {
    Query { number, sql }
}
