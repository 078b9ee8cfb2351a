//! Input buffers that no client of a worker has a use for, for its next client that sends something: idle clients hold
//! none.

use bytes::BytesMut;

/// Room made for one read from a client.
pub(crate) const READ_SIZE: usize = 8 << 10;
/// As many as are worth keeping: a thread handles one request at a time, and few wait with input unhandled.
const KEPT: usize = 16;

/// Empty buffers, each with room for one read.
#[derive(Debug, Default)]
pub(crate) struct Spare(Vec<BytesMut>);

impl Spare {
    /// A buffer, empty, with room for one read.
    pub(crate) fn take(&mut self) -> BytesMut {
        self.0
            .pop()
            .unwrap_or_else(|| BytesMut::with_capacity(READ_SIZE))
    }

    /// Keeps a buffer of the usual size, or drops it.
    pub(crate) fn put(&mut self, mut buffer: BytesMut) {
        buffer.clear();
        // Gets back the room of what has been handled.
        if buffer.try_reclaim(READ_SIZE)
            && buffer.capacity() <= 2 * READ_SIZE
            && self.0.len() < KEPT
        {
            self.0.push(buffer);
        }
    }
}
