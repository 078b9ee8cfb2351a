//! The `x=value` attributes that SCRAM messages are made of.

/// Why an attribute could not be read. The texts are PostgreSQL's details of "malformed SCRAM message".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// Nothing is left.
    #[error("Attribute expected, but found end of string.")]
    End,
    /// What is there is not named by a letter.
    #[error("Attribute expected, but found invalid character.")]
    Name,
    /// Another attribute than this one is there.
    #[error("Expected attribute \"{0}\" but found another one.")]
    Other(char),
    /// No equals sign after the name.
    #[error("Expected character \"=\" for attribute \"{0}\".")]
    Equals(char),
}

/// Reads the next attribute, and the comma after it.
pub(super) fn any<'a>(input: &mut &'a [u8]) -> Result<(u8, &'a [u8]), AttributeError> {
    let (&name, rest) = input.split_first().ok_or(AttributeError::End)?;
    if !name.is_ascii_alphabetic() {
        return Err(AttributeError::Name);
    }
    let rest = rest
        .strip_prefix(b"=")
        .ok_or(AttributeError::Equals(char::from(name)))?;
    let end = rest.iter().position(|&b| b == b',').unwrap_or(rest.len());
    let (value, rest) = rest.split_at(end);
    *input = rest.strip_prefix(b",").unwrap_or(rest);
    Ok((name, value))
}

/// Reads the next attribute, which must have this name.
pub(super) fn named<'a>(input: &mut &'a [u8], name: u8) -> Result<&'a [u8], AttributeError> {
    if input.first() != Some(&name) {
        return Err(AttributeError::Other(char::from(name)));
    }
    any(input).map(|(_, value)| value)
}

/// Whether this can be a nonce: printable ASCII without commas.
pub(super) fn is_nonce(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|&b| b.is_ascii_graphic() && b != b',')
}
