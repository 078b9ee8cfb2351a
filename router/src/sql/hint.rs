//! Routing hints in a leading comment: `/* switchyard: shard=s1 */`, `primary`, `replica`.
//!
//! A hint chooses a route; it is never a security boundary. What starts with `switchyard:` and is not understood is
//! [`Hint::invalid`], so that a misspelt hint is an error and not a silently different route.

/// A hint found in front of the first token of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hint {
    /// The shard to run on, by name.
    pub shard: Option<Box<str>>,
    /// The kind of node to run on.
    pub node: Option<HintNode>,
    /// The comment claimed to be a hint but is not one.
    pub invalid: bool,
}

/// The kind of node a hint asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintNode {
    /// The shard's primary, also for reads.
    Primary,
    /// A replica; the statement must be a plain read.
    Replica,
}

impl Hint {
    /// Reads the inside of a block comment; `None` if it is an ordinary comment.
    pub fn parse(comment: &[u8]) -> Option<Hint> {
        let text = comment.trim_ascii().strip_prefix(b"switchyard:")?;
        let mut hint = Hint::default();
        let Ok(text) = std::str::from_utf8(text) else {
            return Some(Hint {
                invalid: true,
                ..hint
            });
        };
        let mut parts = 0;
        for part in text
            .split(|c: char| c.is_ascii_whitespace() || c == ',')
            .filter(|part| !part.is_empty())
        {
            parts += 1;
            match part {
                "primary" if hint.node.is_none() => hint.node = Some(HintNode::Primary),
                "replica" if hint.node.is_none() => hint.node = Some(HintNode::Replica),
                _ => match part.strip_prefix("shard=") {
                    Some(name) if !name.is_empty() && hint.shard.is_none() => {
                        hint.shard = Some(name.into())
                    }
                    _ => hint.invalid = true,
                },
            }
        }
        hint.invalid |= parts == 0;
        Some(hint)
    }

    /// Appends the hint to a cache key, in a form no token can take.
    pub(crate) fn write_key(&self, key: &mut Vec<u8>) {
        key.push(HINT_MARK);
        if let Some(shard) = &self.shard {
            key.extend_from_slice(shard.as_bytes());
        }
        key.push(match self.node {
            None => HINT_MARK,
            Some(HintNode::Primary) => HINT_MARK + 1,
            Some(HintNode::Replica) => HINT_MARK + 2,
        });
        key.push(if self.invalid { b'!' } else { b'.' });
    }
}

/// First of the control bytes that mark a hint in a cache key; the lexer accepts none of them in a text.
const HINT_MARK: u8 = 0x10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_form() {
        assert_eq!(Hint::parse(b" just a comment "), None);
        let hint = Hint::parse(b" switchyard: shard=s1 primary ").unwrap();
        assert_eq!(hint.shard.as_deref(), Some("s1"));
        assert_eq!(hint.node, Some(HintNode::Primary));
        assert!(!hint.invalid);
        assert_eq!(
            Hint::parse(b"switchyard: replica").unwrap().node,
            Some(HintNode::Replica)
        );
    }

    #[test]
    fn what_is_not_understood_is_invalid() {
        for bad in [
            "switchyard:",
            "switchyard: shard=",
            "switchyard: shrad=s1",
            "switchyard: primary replica",
        ] {
            assert!(Hint::parse(bad.as_bytes()).unwrap().invalid, "{bad}");
        }
    }
}
