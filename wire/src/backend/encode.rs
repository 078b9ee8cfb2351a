//! Encoders of backend messages. Each appends one whole message.

use bytes::{BufMut, BytesMut};

use super::{Authentication, Column, Columns, CopyResponse, ErrorReport, TransactionStatus, tag};
use crate::frame::{put, put_counted, put_cstr, put_empty};
use crate::list::{Format, Oids, Values, put_formats, put_values};
use crate::startup::ProtocolVersion;

/// ErrorResponse.
pub fn error(dst: &mut BytesMut, report: &ErrorReport<'_>) {
    report_as(dst, tag::ERROR_RESPONSE, report);
}

/// NoticeResponse.
pub fn notice(dst: &mut BytesMut, report: &ErrorReport<'_>) {
    report_as(dst, tag::NOTICE_RESPONSE, report);
}

fn report_as(dst: &mut BytesMut, tag: u8, report: &ErrorReport<'_>) {
    let position = report.position.map(|position| position.to_string());
    let constraint = report.constraint.as_ref();
    let all = [
        (b'S', Some(report.severity.as_str())),
        (b'V', Some(report.severity.as_str())),
        (b'C', Some(report.sqlstate.as_str())),
        (b'M', Some(&*report.message)),
        (b'D', report.detail.as_deref()),
        (b'H', report.hint.as_deref()),
        (b'P', position.as_deref()),
        (b'W', report.context.as_deref()),
        (b's', constraint.map(|of| &*of.schema)),
        (b't', constraint.map(|of| &*of.table)),
        (b'n', constraint.map(|of| &*of.name)),
        (b'R', report.routine),
    ];
    let present = all
        .iter()
        .filter_map(|(code, value)| value.map(|value| (*code, value.as_bytes())));
    fields(dst, tag, present);
}

/// ErrorResponse or NoticeResponse, by tag, from its fields: those of another one, with changes.
pub fn fields<'a>(dst: &mut BytesMut, tag: u8, fields: impl Iterator<Item = (u8, &'a [u8])>) {
    put(dst, tag, |dst| {
        for (code, value) in fields.filter(|(code, _)| *code != 0) {
            dst.put_u8(code);
            put_cstr(dst, value);
        }
        dst.put_u8(0);
    });
}

/// ReadyForQuery.
pub fn ready_for_query(dst: &mut BytesMut, status: TransactionStatus) {
    dst.put_slice(&[tag::READY_FOR_QUERY, 0, 0, 0, 5, status.code()]);
}

/// CommandComplete.
pub fn command_complete(dst: &mut BytesMut, command_tag: &[u8]) {
    put(dst, tag::COMMAND_COMPLETE, |dst| put_cstr(dst, command_tag));
}

/// ParameterStatus.
pub fn parameter_status(dst: &mut BytesMut, name: &[u8], value: &[u8]) {
    put(dst, tag::PARAMETER_STATUS, |dst| {
        put_cstr(dst, name);
        put_cstr(dst, value);
    });
}

/// BackendKeyData.
pub fn backend_key_data(dst: &mut BytesMut, pid: i32, secret: &[u8]) {
    put(dst, tag::BACKEND_KEY_DATA, |dst| {
        dst.put_i32(pid);
        dst.put_slice(secret);
    });
}

/// RowDescription.
pub fn row_description(dst: &mut BytesMut, columns: &[Column<'_>]) {
    put(dst, tag::ROW_DESCRIPTION, |dst| {
        put_counted(dst, columns, |dst, column| column.write(dst));
    });
}

pub(super) fn row_description_like(dst: &mut BytesMut, columns: Columns<'_>) {
    put(dst, tag::ROW_DESCRIPTION, |dst| columns.write(dst));
}

/// DataRow.
pub fn data_row<V: AsRef<[u8]>>(dst: &mut BytesMut, values: &[Option<V>]) {
    put(dst, tag::DATA_ROW, |dst| put_values(dst, values));
}

pub(super) fn data_row_like(dst: &mut BytesMut, values: Values<'_>) {
    put(dst, tag::DATA_ROW, |dst| values.write(dst));
}

/// ParseComplete.
pub fn parse_complete(dst: &mut BytesMut) {
    put_empty(dst, tag::PARSE_COMPLETE);
}

/// BindComplete.
pub fn bind_complete(dst: &mut BytesMut) {
    put_empty(dst, tag::BIND_COMPLETE);
}

/// CloseComplete.
pub fn close_complete(dst: &mut BytesMut) {
    put_empty(dst, tag::CLOSE_COMPLETE);
}

/// NoData.
pub fn no_data(dst: &mut BytesMut) {
    put_empty(dst, tag::NO_DATA);
}

/// EmptyQueryResponse.
pub fn empty_query(dst: &mut BytesMut) {
    put_empty(dst, tag::EMPTY_QUERY_RESPONSE);
}

/// PortalSuspended.
pub fn portal_suspended(dst: &mut BytesMut) {
    put_empty(dst, tag::PORTAL_SUSPENDED);
}

/// ParameterDescription.
pub fn parameter_description(dst: &mut BytesMut, types: &[u32]) {
    put(dst, tag::PARAMETER_DESCRIPTION, |dst| {
        put_counted(dst, types, |dst, oid| dst.put_u32(*oid));
    });
}

pub(super) fn parameter_description_like(dst: &mut BytesMut, types: Oids<'_>) {
    put(dst, tag::PARAMETER_DESCRIPTION, |dst| types.write(dst));
}

/// NotificationResponse.
pub fn notification_response(dst: &mut BytesMut, pid: i32, channel: &[u8], payload: &[u8]) {
    put(dst, tag::NOTIFICATION_RESPONSE, |dst| {
        dst.put_i32(pid);
        put_cstr(dst, channel);
        put_cstr(dst, payload);
    });
}

/// FunctionCallResponse.
pub fn function_call_response(dst: &mut BytesMut, value: Option<&[u8]>) {
    put(dst, tag::FUNCTION_CALL_RESPONSE, |dst| match value {
        None => dst.put_i32(-1),
        Some(value) => {
            dst.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
            dst.put_slice(value);
        }
    });
}

/// CopyData.
pub fn copy_data(dst: &mut BytesMut, data: &[u8]) {
    put(dst, tag::COPY_DATA, |dst| dst.put_slice(data));
}

/// CopyDone.
pub fn copy_done(dst: &mut BytesMut) {
    put_empty(dst, tag::COPY_DONE);
}

/// CopyInResponse.
pub fn copy_in_response(dst: &mut BytesMut, format: Format, columns: &[Format]) {
    copy_response(dst, tag::COPY_IN_RESPONSE, format, columns);
}

/// CopyOutResponse.
pub fn copy_out_response(dst: &mut BytesMut, format: Format, columns: &[Format]) {
    copy_response(dst, tag::COPY_OUT_RESPONSE, format, columns);
}

/// CopyBothResponse.
pub fn copy_both_response(dst: &mut BytesMut, format: Format, columns: &[Format]) {
    copy_response(dst, tag::COPY_BOTH_RESPONSE, format, columns);
}

fn copy_response(dst: &mut BytesMut, tag: u8, format: Format, columns: &[Format]) {
    put(dst, tag, |dst| {
        dst.put_u8(u8::from(format == Format::Binary));
        put_formats(dst, columns);
    });
}

pub(super) fn copy_response_like(dst: &mut BytesMut, tag: u8, copy: CopyResponse<'_>) {
    put(dst, tag, |dst| {
        dst.put_u8(u8::from(copy.format == Format::Binary));
        copy.columns.write(dst);
    });
}

/// Any step of authentication.
pub fn authentication(dst: &mut BytesMut, step: Authentication<'_>) {
    let (code, data): (i32, &[u8]) = match step {
        Authentication::Ok => (0, &[]),
        Authentication::KerberosV5 => (2, &[]),
        Authentication::CleartextPassword => (3, &[]),
        Authentication::Md5Password { ref salt } => (5, salt),
        Authentication::ScmCredential => (6, &[]),
        Authentication::Gss => (7, &[]),
        Authentication::GssContinue(data) => (8, data),
        Authentication::Sspi => (9, &[]),
        Authentication::Sasl(mechanisms) => {
            return authentication_sasl_from(dst, mechanisms.iter());
        }
        Authentication::SaslContinue(data) => (11, data),
        Authentication::SaslFinal(data) => (12, data),
    };
    put(dst, tag::AUTHENTICATION, |dst| {
        dst.put_i32(code);
        dst.put_slice(data);
    });
}

/// AuthenticationOk.
pub fn authentication_ok(dst: &mut BytesMut) {
    authentication(dst, Authentication::Ok);
}

/// AuthenticationSASL with the mechanisms offered, the favourite first.
pub fn authentication_sasl(dst: &mut BytesMut, mechanisms: &[&str]) {
    authentication_sasl_from(dst, mechanisms.iter().map(|name| name.as_bytes()));
}

fn authentication_sasl_from<'a>(dst: &mut BytesMut, mechanisms: impl Iterator<Item = &'a [u8]>) {
    put(dst, tag::AUTHENTICATION, |dst| {
        dst.put_i32(10);
        mechanisms.for_each(|name| put_cstr(dst, name));
        dst.put_u8(0);
    });
}

/// AuthenticationSASLContinue.
pub fn authentication_sasl_continue(dst: &mut BytesMut, data: &[u8]) {
    authentication(dst, Authentication::SaslContinue(data));
}

/// AuthenticationSASLFinal.
pub fn authentication_sasl_final(dst: &mut BytesMut, data: &[u8]) {
    authentication(dst, Authentication::SaslFinal(data));
}

/// NegotiateProtocolVersion: the newest version spoken here and the options not known here.
pub fn negotiate_protocol_version(
    dst: &mut BytesMut,
    version: ProtocolVersion,
    unknown_options: &[&[u8]],
) {
    let count = u32::try_from(unknown_options.len()).unwrap_or(u32::MAX);
    negotiate_protocol_version_like(dst, version, count, unknown_options.iter().copied());
}

pub(super) fn negotiate_protocol_version_like<'a>(
    dst: &mut BytesMut,
    version: ProtocolVersion,
    count: u32,
    unknown_options: impl Iterator<Item = &'a [u8]>,
) {
    put(dst, tag::NEGOTIATE_PROTOCOL_VERSION, |dst| {
        dst.put_u32(version.word());
        dst.put_u32(count);
        unknown_options.for_each(|name| put_cstr(dst, name));
    });
}
