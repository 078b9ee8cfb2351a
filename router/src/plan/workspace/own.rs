//! Views of PostgreSQL's that list what one connection to a server has: a client means what its session has.

use switchyard_schema::TableName;

use super::needs::Uses;

/// A view of what the session has. In a workspace it is a table that the session fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnView {
    /// `pg_cursors`
    Cursors,
    /// `pg_prepared_statements`
    PreparedStatements,
}

impl OwnView {
    /// The view of that name in the catalogue.
    pub(in crate::plan) fn named(name: &str) -> Option<OwnView> {
        match name {
            "pg_cursors" => Some(OwnView::Cursors),
            "pg_prepared_statements" => Some(OwnView::PreparedStatements),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            OwnView::Cursors => "pg_cursors",
            OwnView::PreparedStatements => "pg_prepared_statements",
        }
    }

    /// Whether it is the relation of this name.
    pub fn is(self, name: &TableName) -> bool {
        name.schema == "pg_catalog" && name.name == self.name()
    }

    /// Why what is used of it is not known here; `None` if it is.
    pub(super) fn lacks(self, uses: &Uses) -> Option<String> {
        let counts = ["generic_plans", "custom_plans"];
        let counted = counts.into_iter().any(|column| uses.may_use(column));
        (self == OwnView::PreparedStatements && counted)
            .then(|| "Each server counts the plans that it has made.".to_owned())
    }
}
