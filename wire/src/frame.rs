//! Framing: where one message ends and the next begins.
//!
//! Every message after startup is a tag byte, a length word that counts itself but not the tag, and a body.
//! [`header`] reads the first five bytes and believes the length only within [`MAX_MESSAGE`], PostgreSQL's own limit.
//!
//! Encoders cannot fail. What cannot be said in the protocol comes out so that the peer refuses it rather than
//! misreads it: a message above the limit carries its true length, which every peer rejects; a text ends at its first
//! NUL, as it would in C; a list stops at the 65,535 entries its counter can name. None of these can happen to what
//! was decoded from a peer.

use bytes::{BufMut, BytesMut};

/// The largest length word PostgreSQL accepts (`MaxAllocSize`): one byte less than 1 GiB.
pub const MAX_MESSAGE: usize = 0x3fff_ffff;

/// Bytes of tag and length word.
pub const HEADER: usize = 5;

/// The start of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What kind of message follows.
    pub tag: u8,
    /// Bytes of the whole message, tag and length word included.
    pub len: usize,
}

impl Header {
    /// Bytes of the body alone.
    pub fn body_len(self) -> usize {
        self.len - HEADER
    }
}

/// The length word cannot be true; the stream has no further messages that could be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid message length {length} for message type 0x{tag:02x}")]
pub struct FrameError {
    /// The tag in front of the length.
    pub tag: u8,
    /// The length word as sent.
    pub length: u32,
}

/// Reads the header of the message at the start of `buf`; `None` if fewer than [`HEADER`] bytes are there.
#[inline]
pub fn header(buf: &[u8]) -> Result<Option<Header>, FrameError> {
    let Some((&tag, rest)) = buf.split_first() else {
        return Ok(None);
    };
    let Some((word, _)) = rest.split_first_chunk() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*word);
    if length < 4 || length as usize > MAX_MESSAGE {
        return Err(FrameError { tag, length });
    }
    Ok(Some(Header {
        tag,
        len: length as usize + 1,
    }))
}

/// A whole message and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// What kind of message it is.
    pub tag: u8,
    /// Its body.
    pub body: &'a [u8],
    /// The bytes after it.
    pub rest: &'a [u8],
}

/// Splits the first message off `buf`; `None` if it is not whole yet.
#[inline]
pub fn split(buf: &[u8]) -> Result<Option<Split<'_>>, FrameError> {
    let Some(header) = header(buf)? else {
        return Ok(None);
    };
    let Some((message, rest)) = buf.split_at_checked(header.len) else {
        return Ok(None);
    };
    Ok(Some(Split {
        tag: header.tag,
        body: &message[HEADER..],
        rest,
    }))
}

/// Appends a message whose body `body` writes, and fills in the length.
pub(crate) fn put(dst: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    let start = dst.len() + 1;
    dst.put_slice(&[tag, 0, 0, 0, 0]);
    body(dst);
    fill_length(dst, start);
}

/// Appends a startup packet: a message without a tag.
pub(crate) fn put_untagged(dst: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = dst.len();
    dst.put_u32(0);
    body(dst);
    fill_length(dst, start);
}

/// Writes the length of what begins with a length word at `start`.
fn fill_length(dst: &mut BytesMut, start: usize) {
    let length = u32::try_from(dst.len() - start).unwrap_or(u32::MAX);
    if let Some(word) = dst.get_mut(start..start + 4) {
        word.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends a message without a body.
pub(crate) fn put_empty(dst: &mut BytesMut, tag: u8) {
    dst.put_slice(&[tag, 0, 0, 0, 4]);
}

/// Appends a NUL-terminated text.
pub(crate) fn put_cstr(dst: &mut BytesMut, text: &[u8]) {
    let text = text.split(|&b| b == 0).next().unwrap_or_default();
    if !text.is_empty() {
        dst.reserve(text.len() + 1);
        dst.put_slice(text);
    }
    dst.put_u8(0);
}

/// Appends a 16-bit count and as many items as it can name.
pub(crate) fn put_counted<T>(
    dst: &mut BytesMut,
    items: &[T],
    mut each: impl FnMut(&mut BytesMut, &T),
) {
    let count = u16::try_from(items.len()).unwrap_or(u16::MAX);
    dst.put_u16(count);
    for item in items.iter().take(usize::from(count)) {
        each(dst, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_needs_five_bytes() {
        for n in 0..HEADER {
            assert_eq!(header(&[b'Q', 0, 0, 0, 4][..n]), Ok(None));
        }
        let found = header(&[b'Q', 0, 0, 0, 4]).unwrap().unwrap();
        assert_eq!((found.tag, found.len, found.body_len()), (b'Q', 5, 0));
    }

    #[test]
    fn impossible_lengths_are_errors() {
        for length in [0u32, 1, 3, 0x4000_0000, 0x8000_0000, u32::MAX] {
            let mut buf = vec![b'Q'];
            buf.extend(length.to_be_bytes());
            assert_eq!(header(&buf), Err(FrameError { tag: b'Q', length }));
        }
        let mut buf = vec![b'Q'];
        buf.extend(0x3fff_ffffu32.to_be_bytes());
        assert_eq!(header(&buf).unwrap().unwrap().len, 0x4000_0000);
    }

    #[test]
    fn split_waits_for_the_whole_message() {
        let bytes = [b'Q', 0, 0, 0, 6, b'1', 0, b'S'];
        for n in 0..7 {
            assert_eq!(split(&bytes[..n]), Ok(None));
        }
        let whole = split(&bytes).unwrap().unwrap();
        assert_eq!(
            (whole.tag, whole.body, whole.rest),
            (b'Q', &b"1\0"[..], &b"S"[..])
        );
    }

    #[test]
    fn texts_end_at_their_first_nul() {
        let mut dst = BytesMut::new();
        put_cstr(&mut dst, b"a\0b");
        assert_eq!(&dst[..], b"a\0");
    }

    #[test]
    fn lists_stop_where_their_counter_does() {
        let mut dst = BytesMut::new();
        put_counted(&mut dst, &vec![7u8; 70_000], |dst, item| dst.put_u8(*item));
        assert_eq!(dst.len(), 2 + 65_535);
        assert_eq!(&dst[..2], [0xff, 0xff]);
    }
}
