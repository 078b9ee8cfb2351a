//! Encoders of frontend messages. Each appends one whole message.

use bytes::{BufMut, BytesMut};

use super::{Bind, Kind, tag};
use crate::frame::{put, put_counted, put_cstr, put_empty};
use crate::list::{Format, Formats, Oids, Values, put_formats, put_values};

pub use crate::startup::encode::{cancel_request, gss_enc_request, ssl_request, startup};

/// Query.
pub fn query(dst: &mut BytesMut, sql: &[u8]) {
    put(dst, tag::QUERY, |dst| put_cstr(dst, sql));
}

/// Parse.
pub fn parse(dst: &mut BytesMut, name: &[u8], sql: &[u8], param_types: &[u32]) {
    put(dst, tag::PARSE, |dst| {
        put_cstr(dst, name);
        put_cstr(dst, sql);
        put_counted(dst, param_types, |dst, oid| dst.put_u32(*oid));
    });
}

/// Parse, with the parameter types of another one.
pub fn parse_like(dst: &mut BytesMut, name: &[u8], sql: &[u8], param_types: Oids<'_>) {
    put(dst, tag::PARSE, |dst| {
        put_cstr(dst, name);
        put_cstr(dst, sql);
        param_types.write(dst);
    });
}

/// Bind.
pub fn bind<V: AsRef<[u8]>>(
    dst: &mut BytesMut,
    portal: &[u8],
    statement: &[u8],
    param_formats: &[Format],
    params: &[Option<V>],
    result_formats: &[Format],
) {
    put(dst, tag::BIND, |dst| {
        put_cstr(dst, portal);
        put_cstr(dst, statement);
        put_formats(dst, param_formats);
        put_values(dst, params);
        put_formats(dst, result_formats);
    });
}

/// Bind, as another one, but to the statement of this name.
pub fn bind_like(dst: &mut BytesMut, like: &Bind<'_>, statement: &[u8]) {
    put(dst, tag::BIND, |dst| {
        put_cstr(dst, like.portal);
        put_cstr(dst, statement);
        dst.put_slice(like.values);
    });
}

/// Describe.
pub fn describe(dst: &mut BytesMut, kind: Kind, name: &[u8]) {
    put(dst, tag::DESCRIBE, |dst| {
        dst.put_u8(kind.code());
        put_cstr(dst, name);
    });
}

/// Close.
pub fn close(dst: &mut BytesMut, kind: Kind, name: &[u8]) {
    put(dst, tag::CLOSE, |dst| {
        dst.put_u8(kind.code());
        put_cstr(dst, name);
    });
}

/// Execute.
pub fn execute(dst: &mut BytesMut, portal: &[u8], max_rows: i32) {
    put(dst, tag::EXECUTE, |dst| {
        put_cstr(dst, portal);
        dst.put_i32(max_rows);
    });
}

/// Sync.
pub fn sync(dst: &mut BytesMut) {
    put_empty(dst, tag::SYNC);
}

/// Flush.
pub fn flush(dst: &mut BytesMut) {
    put_empty(dst, tag::FLUSH);
}

/// CopyData.
pub fn copy_data(dst: &mut BytesMut, data: &[u8]) {
    put(dst, tag::COPY_DATA, |dst| dst.put_slice(data));
}

/// CopyDone.
pub fn copy_done(dst: &mut BytesMut) {
    put_empty(dst, tag::COPY_DONE);
}

/// CopyFail.
pub fn copy_fail(dst: &mut BytesMut, reason: &[u8]) {
    put(dst, tag::COPY_FAIL, |dst| put_cstr(dst, reason));
}

/// FunctionCall.
pub fn function_call<V: AsRef<[u8]>>(
    dst: &mut BytesMut,
    function: u32,
    arg_formats: &[Format],
    args: &[Option<V>],
    result_format: Format,
) {
    put(dst, tag::FUNCTION_CALL, |dst| {
        dst.put_u32(function);
        put_formats(dst, arg_formats);
        put_values(dst, args);
        dst.put_i16(result_format.code());
    });
}

pub(super) fn function_call_like(
    dst: &mut BytesMut,
    function: u32,
    arg_formats: Formats<'_>,
    args: Values<'_>,
    result_format: Format,
) {
    put(dst, tag::FUNCTION_CALL, |dst| {
        dst.put_u32(function);
        arg_formats.write(dst);
        args.write(dst);
        dst.put_i16(result_format.code());
    });
}

/// PasswordMessage: a password, or its MD5 form.
pub fn password(dst: &mut BytesMut, password: &[u8]) {
    put(dst, tag::PASSWORD, |dst| put_cstr(dst, password));
}

/// SASLInitialResponse.
pub fn sasl_initial_response(dst: &mut BytesMut, mechanism: &[u8], response: Option<&[u8]>) {
    put(dst, tag::PASSWORD, |dst| {
        put_cstr(dst, mechanism);
        match response {
            None => dst.put_i32(-1),
            Some(response) => {
                dst.put_i32(i32::try_from(response.len()).unwrap_or(i32::MAX));
                dst.put_slice(response);
            }
        }
    });
}

/// SASLResponse.
pub fn sasl_response(dst: &mut BytesMut, response: &[u8]) {
    put(dst, tag::PASSWORD, |dst| dst.put_slice(response));
}

/// Terminate.
pub fn terminate(dst: &mut BytesMut) {
    put_empty(dst, tag::TERMINATE);
}
