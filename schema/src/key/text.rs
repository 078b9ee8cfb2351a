//! Text forms of integers, uuid, bytea and boolean, as PostgreSQL's input functions read them.

use std::borrow::Cow;

use super::KeyError;

/// What C's `isspace` takes for a blank; PostgreSQL's input functions skip these around a value.
pub(super) fn trim(value: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t'..=b'\r');
    let start = value.iter().take_while(|b| blank(b)).count();
    let rest = &value[start..];
    let end = rest.iter().rev().take_while(|b| blank(b)).count();
    &rest[..rest.len() - end]
}

/// `int2in`, `int4in`, `int8in`.
pub(super) fn integer(value: &[u8], min: i64, max: i64) -> Result<i64, KeyError> {
    let value = trim(value);
    let (negative, digits) = match value {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, value),
    };
    if digits.is_empty() {
        return Err(KeyError::Invalid);
    }
    let mut magnitude: i128 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return Err(newer_form(digits));
        }
        // Beyond i64 the value is out of range whatever follows; saturating keeps that so.
        magnitude = (magnitude * 10 + i128::from(digit - b'0')).min(1 << 64);
    }
    let value = if negative { -magnitude } else { magnitude };
    match i64::try_from(value) {
        Ok(value) if (min..=max).contains(&value) => Ok(value),
        _ => Err(KeyError::Invalid),
    }
}

/// Since version 16 PostgreSQL reads `0x1F`, `0o17`, `0b11` and `1_000`; what it is depends on the server.
pub(super) fn newer_form(digits: &[u8]) -> KeyError {
    let newer = matches!(digits, [b'0', b'x' | b'X' | b'o' | b'O' | b'b' | b'B', ..])
        || digits.contains(&b'_');
    if newer {
        KeyError::NotExact
    } else {
        KeyError::Invalid
    }
}

/// `uuid_in`: 32 hexadecimal digits, a hyphen allowed after each four, the whole perhaps in braces.
pub(super) fn uuid(value: &[u8]) -> Result<[u8; 16], KeyError> {
    let digits = match value {
        [b'{', inner @ .., b'}'] => inner,
        _ => value,
    };
    let mut bytes = [0u8; 16];
    let mut rest = digits;
    for (index, byte) in bytes.iter_mut().enumerate() {
        let [high, low, after @ ..] = rest else {
            return Err(KeyError::Invalid);
        };
        *byte = hex_pair(*high, *low).ok_or(KeyError::Invalid)?;
        rest = match after {
            [b'-', after @ ..] if index % 2 == 1 && index < 15 => after,
            _ => after,
        };
    }
    if rest.is_empty() {
        Ok(bytes)
    } else {
        Err(KeyError::Invalid)
    }
}

/// `byteain`: the hex form `\x…` or the escape form.
pub(super) fn bytea(value: &[u8]) -> Result<Cow<'_, [u8]>, KeyError> {
    match value {
        [b'\\', b'x', hex @ ..] => bytea_hex(hex).map(Cow::Owned),
        _ if value.contains(&b'\\') => bytea_escape(value).map(Cow::Owned),
        _ => Ok(Cow::Borrowed(value)),
    }
}

/// Pairs of hexadecimal digits, blanks allowed between pairs.
fn bytea_hex(mut rest: &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut bytes = Vec::with_capacity(rest.len() / 2);
    loop {
        match rest {
            [] => return Ok(bytes),
            [b' ' | b'\n' | b'\t' | b'\r', after @ ..] => rest = after,
            [high, low, after @ ..] => {
                bytes.push(hex_pair(*high, *low).ok_or(KeyError::Invalid)?);
                rest = after;
            }
            [_] => return Err(KeyError::Invalid),
        }
    }
}

/// `\\` and `\ooo`; every other byte is itself.
fn bytea_escape(mut rest: &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut bytes = Vec::with_capacity(rest.len());
    loop {
        match rest {
            [] => return Ok(bytes),
            [b'\\', b'\\', after @ ..] => {
                bytes.push(b'\\');
                rest = after;
            }
            [
                b'\\',
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                after @ ..,
            ] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            [b'\\', ..] => return Err(KeyError::Invalid),
            [byte, after @ ..] => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    Some((digit(high)? << 4 | digit(low)?) as u8)
}

/// `boolin`: any prefix of true, false, yes, no; on, off with at least two letters; 1 and 0.
pub(super) fn boolean(value: &[u8]) -> Result<bool, KeyError> {
    let value = trim(value);
    let prefix_of = |word: &[u8], least: usize| {
        value.len() >= least
            && word
                .get(..value.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(value))
    };
    if prefix_of(b"true", 1) || prefix_of(b"yes", 1) || prefix_of(b"on", 2) || value == b"1" {
        Ok(true)
    } else if prefix_of(b"false", 1) || prefix_of(b"no", 1) || prefix_of(b"off", 2) || value == b"0"
    {
        Ok(false)
    } else {
        Err(KeyError::Invalid)
    }
}
