//! What is answered with an error of the router's own instead of a guess.

use std::fmt;

/// An error for the client, in the parts PostgreSQL's messages have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The five characters of the SQLSTATE.
    pub sqlstate: &'static str,
    /// The primary message, in PostgreSQL's style.
    pub message: String,
    /// What in the statement is the reason.
    pub detail: Option<String>,
    /// A way out.
    pub hint: Option<String>,
    /// One PostgreSQL might have found an error in the statement before (a syntax error, an unknown column): the
    /// session may let a shard *analyse* the text (Parse, no execution) and forward the error it gets, if any.
    pub analyse_first: bool,
}

/// `feature_not_supported`
pub(crate) const NOT_SUPPORTED: &str = "0A000";
/// `syntax_error`
pub(crate) const SYNTAX_ERROR: &str = "42601";

impl Refusal {
    /// 0A000 with the reason.
    pub fn not_supported(message: impl Into<String>) -> Self {
        Refusal {
            sqlstate: NOT_SUPPORTED,
            message: message.into(),
            detail: None,
            hint: None,
            analyse_first: true,
        }
    }

    /// An error that needs no second opinion.
    pub fn certain(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Refusal {
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
            analyse_first: false,
        }
    }

    /// Adds the detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds why a workspace could not answer instead.
    pub(crate) fn explain(&mut self, why: &str) {
        let detail = self.detail.take();
        self.detail = Some(match detail {
            Some(detail) => format!("{detail} {why}"),
            None => why.to_owned(),
        });
    }

    /// Adds the way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.sqlstate, self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, "\nDETAIL: {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nHINT: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}
