//! Errors and notices: the fields received, and the reports we write.

use std::borrow::Cow;
use std::fmt;

use crate::body::{DecodeError, Reader};
use crate::sqlstate::SqlState;

/// The fields of an ErrorResponse or NoticeResponse.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn read(body: &mut Reader<'a>) -> Result<Fields<'a>, DecodeError> {
        let start = body.0;
        while body.u8()? != 0 {
            body.cstr()?;
        }
        let used = start.len() - body.0.len();
        Ok(Fields(&start[..used - 1]))
    }

    /// All of them in order: code and value.
    pub fn iter(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut body = Reader(self.0);
        std::iter::from_fn(move || Some((body.u8().ok()?, body.cstr().ok()?)))
    }

    /// The field with this code, such as `b'M'`.
    pub fn get(self, code: u8) -> Option<&'a [u8]> {
        self.iter()
            .find_map(|(found, value)| (found == code).then_some(value))
    }

    /// The SQLSTATE, if it has a proper one.
    pub fn sqlstate(self) -> Option<SqlState> {
        SqlState::parse(self.get(b'C')?)
    }

    /// How bad it is, from the field that is never translated.
    pub fn severity(self) -> Option<Severity> {
        Severity::parse(self.get(b'V').or_else(|| self.get(b'S'))?)
    }

    /// The message, as far as it is UTF-8.
    pub fn message(self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.get(b'M').unwrap_or_default())
    }
}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.iter()
                    .map(|(code, value)| (char::from(code), String::from_utf8_lossy(value))),
            )
            .finish()
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The connection ends.
    Fatal,
    /// Every connection ends.
    Panic,
    /// Something to look at.
    Warning,
    /// A remark.
    Notice,
    /// For developers.
    Debug,
    /// Asked for by the client.
    Info,
    /// For the server's log.
    Log,
}

impl Severity {
    /// PostgreSQL's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
            Severity::Panic => "PANIC",
            Severity::Warning => "WARNING",
            Severity::Notice => "NOTICE",
            Severity::Debug => "DEBUG",
            Severity::Info => "INFO",
            Severity::Log => "LOG",
        }
    }

    /// The severity with this name.
    pub fn parse(name: &[u8]) -> Option<Severity> {
        Some(match name {
            b"ERROR" => Severity::Error,
            b"FATAL" => Severity::Fatal,
            b"PANIC" => Severity::Panic,
            b"WARNING" => Severity::Warning,
            b"NOTICE" => Severity::Notice,
            b"DEBUG" => Severity::Debug,
            b"INFO" => Severity::Info,
            b"LOG" => Severity::Log,
            _ => return None,
        })
    }
}

/// An error or notice of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReport<'a> {
    /// How bad it is.
    pub severity: Severity,
    /// What programs know it by.
    pub sqlstate: SqlState,
    /// What people read, in PostgreSQL's style: lower case, no full stop.
    pub message: Cow<'a, str>,
    /// More about it, in sentences.
    pub detail: Option<Cow<'a, str>>,
    /// What to do about it, in sentences.
    pub hint: Option<Cow<'a, str>>,
    /// Where it happened.
    pub context: Option<Cow<'a, str>>,
    /// The character of the statement, from 1, it is about.
    pub position: Option<u32>,
    /// The constraint it is about.
    pub constraint: Option<Constraint<'a>>,
    /// The function of PostgreSQL's that would have said it: some programs know an error by that.
    pub routine: Option<&'static str>,
}

/// A constraint that an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint<'a> {
    /// The schema of its table.
    pub schema: Cow<'a, str>,
    /// Its table.
    pub table: Cow<'a, str>,
    /// Its name.
    pub name: Cow<'a, str>,
}

impl<'a> ErrorReport<'a> {
    /// A report with nothing but a message.
    pub fn new(
        severity: Severity,
        sqlstate: SqlState,
        message: impl Into<Cow<'a, str>>,
    ) -> ErrorReport<'a> {
        ErrorReport {
            severity,
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
            context: None,
            position: None,
            constraint: None,
            routine: None,
        }
    }

    /// The statement failed.
    pub fn error(sqlstate: SqlState, message: impl Into<Cow<'a, str>>) -> ErrorReport<'a> {
        ErrorReport::new(Severity::Error, sqlstate, message)
    }

    /// The connection ends.
    pub fn fatal(sqlstate: SqlState, message: impl Into<Cow<'a, str>>) -> ErrorReport<'a> {
        ErrorReport::new(Severity::Fatal, sqlstate, message)
    }

    /// A remark.
    pub fn notice(sqlstate: SqlState, message: impl Into<Cow<'a, str>>) -> ErrorReport<'a> {
        ErrorReport::new(Severity::Notice, sqlstate, message)
    }

    /// With more about it.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'a, str>>) -> ErrorReport<'a> {
        self.detail = Some(detail.into());
        self
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'a, str>>) -> ErrorReport<'a> {
        self.hint = Some(hint.into());
        self
    }

    /// With where it happened.
    #[must_use]
    pub fn context(mut self, context: impl Into<Cow<'a, str>>) -> ErrorReport<'a> {
        self.context = Some(context.into());
        self
    }

    /// With the character of the statement, from 1.
    #[must_use]
    pub fn position(mut self, position: u32) -> ErrorReport<'a> {
        self.position = Some(position);
        self
    }

    /// With the constraint it is about.
    #[must_use]
    pub fn constraint(mut self, constraint: Constraint<'a>) -> ErrorReport<'a> {
        self.constraint = Some(constraint);
        self
    }

    /// The report without borrows.
    pub fn into_owned(self) -> ErrorReport<'static> {
        let own = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        ErrorReport {
            severity: self.severity,
            sqlstate: self.sqlstate,
            message: own(self.message),
            detail: self.detail.map(own),
            hint: self.hint.map(own),
            context: self.context.map(own),
            position: self.position,
            constraint: self.constraint.map(|constraint| Constraint {
                schema: own(constraint.schema),
                table: own(constraint.table),
                name: own(constraint.name),
            }),
            routine: self.routine,
        }
    }
}
