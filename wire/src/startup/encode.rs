//! Encoders of startup packets.

use bytes::{BufMut, BytesMut};

use super::{CANCEL_REQUEST, GSS_ENC_REQUEST, ProtocolVersion, SSL_REQUEST};
use crate::frame::{put_cstr, put_untagged};

/// StartupMessage. A parameter without a name ends the list, so there must be none.
pub fn startup<'a>(
    dst: &mut BytesMut,
    version: ProtocolVersion,
    params: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) {
    put_untagged(dst, |dst| {
        dst.put_u32(version.word());
        for (name, value) in params {
            put_cstr(dst, name);
            put_cstr(dst, value);
        }
        dst.put_u8(0);
    });
}

/// SSLRequest.
pub fn ssl_request(dst: &mut BytesMut) {
    put_untagged(dst, |dst| dst.put_u32(SSL_REQUEST));
}

/// GSSENCRequest.
pub fn gss_enc_request(dst: &mut BytesMut) {
    put_untagged(dst, |dst| dst.put_u32(GSS_ENC_REQUEST));
}

/// CancelRequest.
pub fn cancel_request(dst: &mut BytesMut, pid: i32, secret: &[u8]) {
    put_untagged(dst, |dst| {
        dst.put_u32(CANCEL_REQUEST);
        dst.put_i32(pid);
        dst.put_slice(secret);
    });
}
