//! What a server says that a statement has done.

/// The start of a command tag: enough for the command and its row count.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CommandTag {
    bytes: [u8; 32],
    length: usize,
}

impl CommandTag {
    /// The tag of a CommandComplete body.
    pub(crate) fn of(body: &[u8]) -> Self {
        let mut tag = Self::default();
        tag.read(body);
        tag
    }

    /// Becomes the tag of a CommandComplete body, which ends with a zero.
    pub(super) fn read(&mut self, body: &[u8]) {
        self.length = body.len().saturating_sub(1).min(self.bytes.len());
        self.bytes[..self.length].copy_from_slice(&body[..self.length]);
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// True if this is the whole tag.
    pub(crate) fn is(&self, tag: &[u8]) -> bool {
        self.as_bytes() == tag
    }

    /// The same tag with another row count.
    pub(crate) fn with_rows(&self, rows: u64) -> String {
        let tag = String::from_utf8_lossy(self.as_bytes());
        match tag.rsplit_once(' ') {
            Some((words, _)) => format!("{words} {rows}"),
            None => tag.into_owned(),
        }
    }

    /// The row count at its end; 0 if it has none.
    pub(crate) fn rows(&self) -> u64 {
        let count = self.as_bytes().rsplit(|byte| *byte == b' ').next();
        count
            .and_then(|count| std::str::from_utf8(count).ok())
            .and_then(|count| count.parse().ok())
            .unwrap_or(0)
    }
}
