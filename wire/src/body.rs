//! Reading the body of one message, every length checked against what is there.

use std::ffi::CStr;

use crate::sqlstate::SqlState;

/// Why a message could not be decoded. The texts are PostgreSQL's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body ends before what it announces.
    #[error("insufficient data left in message")]
    Truncated,
    /// The body goes on after its last field.
    #[error("invalid message format")]
    Trailing,
    /// A text without its terminating NUL.
    #[error("invalid string in message")]
    Unterminated,
    /// The tag names no message of this direction.
    #[error("invalid message type {0}")]
    UnknownTag(u8),
    /// A format code that is neither text (0) nor binary (1).
    #[error("unsupported format code: {0}")]
    UnsupportedFormat(i16),
    /// More than one format code, but not one for each value.
    #[error("bind message has {formats} parameter formats but {values} parameters")]
    FormatCount {
        /// How many format codes were sent.
        formats: usize,
        /// How many values were sent.
        values: usize,
    },
    /// A field holds what the protocol does not allow there.
    #[error("invalid {0} in message")]
    Invalid(&'static str),
}

impl DecodeError {
    /// What PostgreSQL reports for it.
    pub fn sqlstate(self) -> SqlState {
        match self {
            DecodeError::UnsupportedFormat(_) => SqlState::INVALID_PARAMETER_VALUE,
            DecodeError::Truncated
            | DecodeError::Trailing
            | DecodeError::Unterminated
            | DecodeError::UnknownTag(_)
            | DecodeError::FormatCount { .. }
            | DecodeError::Invalid(_) => SqlState::PROTOCOL_VIOLATION,
        }
    }
}

/// What has not been read of a body.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    /// A text without its NUL.
    pub(crate) fn cstr(&mut self) -> Result<&'a [u8], DecodeError> {
        let text = match self.0 {
            [0, ..] => &[],
            _ => CStr::from_bytes_until_nul(self.0)
                .map_err(|_| DecodeError::Unterminated)?
                .to_bytes(),
        };
        self.0 = &self.0[text.len() + 1..];
        Ok(text)
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing)
        }
    }
}
