//! Error and notice messages to the client.

use bytes::BytesMut;
use smallvec::SmallVec;
use switchyard_wire::SqlState;
use switchyard_wire::backend::Fields;
use switchyard_wire::backend::{Constraint, ErrorReport, Severity, encode};

use super::failure::Failure;
use crate::startup::cancel::CancelReason;

/// An error of the router's own.
pub(crate) fn error(output: &mut BytesMut, failure: &Failure) {
    encode::error(output, &of(failure, Severity::Error));
}

/// All that is to be said of a failure.
pub(crate) fn of(failure: &Failure, severity: Severity) -> ErrorReport<'_> {
    let mut report = ErrorReport::new(severity, failure.sqlstate(), failure.to_string());
    if let Some(detail) = failure.detail() {
        report = report.detail(detail);
    }
    if let Some(hint) = failure.hint() {
        report = report.hint(hint);
    }
    // Drivers prepare the statement again where they find this name.
    report.routine = matches!(failure, Failure::ResultChanged).then_some("RevalidateCachedQuery");
    if let Failure::Duplicate { index, .. } = failure {
        report = report.constraint(Constraint {
            schema: (&*index.table.schema).into(),
            table: (&*index.table.name).into(),
            name: (&*index.name.name).into(),
        });
    }
    report
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

/// A notice: what may be good to know.
pub(crate) fn notice(output: &mut BytesMut, sqlstate: SqlState, message: &str) {
    encode::notice(
        output,
        &ErrorReport::new(Severity::Notice, sqlstate, message),
    );
}

/// PostgreSQL's own error, untouched, with the shard's name added to its context. Where it names a statement by the
/// router's number, the client's own name takes its place; where it was `query_timeout` that cancelled, it says so.
pub(crate) fn error_of_shard(
    output: &mut BytesMut,
    fields: &Fields<'_>,
    shard: &str,
    bound: &(u64, SmallVec<[u8; 24]>),
    cancelled: CancelReason,
) {
    let context = match fields.get(b'W') {
        Some(context) => format!("{}\nshard \"{shard}\"", String::from_utf8_lossy(context)),
        None => format!("shard \"{shard}\""),
    };
    let ours = format!("\"sy_{}\"", bound.0);
    let theirs = format!("\"{}\"", String::from_utf8_lossy(&bound.1));
    let is_cancelled = fields.get(b'C') == Some(SqlState::QUERY_CANCELED.as_bytes());
    let reason = (is_cancelled && cancelled != CancelReason::Request).then_some(cancelled);
    let renamed = match reason {
        Some(reason) => Some(reason.message().to_owned()),
        None => fields
            .get(b'M')
            .map(String::from_utf8_lossy)
            .filter(|message| message.contains(&ours))
            .map(|message| message.replace(&ours, &theirs)),
    };
    let sqlstate = cancelled.sqlstate();
    let fields =
        fields
            .iter()
            .filter(|(code, _)| *code != b'W')
            .map(|(code, value)| match &renamed {
                Some(message) if code == b'M' => (code, message.as_bytes()),
                _ if code == b'C' && reason.is_some() => (code, sqlstate.as_bytes().as_slice()),
                _ => (code, value),
            });
    encode::fields(output, b'E', fields.chain([(b'W', context.as_bytes())]));
}
