//! Error and notice messages to the client.

use bytes::BytesMut;
use switchyard_wire::SqlState;
use switchyard_wire::backend::Fields;
use switchyard_wire::backend::{ErrorReport, Severity, encode};

use super::failure::Failure;

/// An error of the router's own.
pub(crate) fn error(output: &mut BytesMut, failure: &Failure) {
    let mut report = ErrorReport::error(failure.sqlstate(), failure.to_string());
    if let Some(detail) = failure.detail() {
        report = report.detail(detail);
    }
    if let Some(hint) = failure.hint() {
        report = report.hint(hint);
    }
    encode::error(output, &report);
}

/// An error that ends the session.
pub(crate) fn fatal(output: &mut BytesMut, sqlstate: SqlState, message: &str) {
    encode::error(output, &ErrorReport::fatal(sqlstate, message));
}

/// A warning, as PostgreSQL would give it for a statement that the router answers itself.
pub(crate) fn warning(output: &mut BytesMut, sqlstate: SqlState, message: &str) {
    encode::notice(
        output,
        &ErrorReport::new(Severity::Warning, sqlstate, message),
    );
}

/// PostgreSQL's own error, untouched, with the shard's name added to its context.
pub(crate) fn error_of_shard(output: &mut BytesMut, fields: &Fields<'_>, shard: &str) {
    let context = match fields.get(b'W') {
        Some(context) => format!("{}\nshard \"{shard}\"", String::from_utf8_lossy(context)),
        None => format!("shard \"{shard}\""),
    };
    encode::fields(
        output,
        b'E',
        fields
            .iter()
            .filter(|(code, _)| *code != b'W')
            .chain([(b'W', context.as_bytes())]),
    );
}
