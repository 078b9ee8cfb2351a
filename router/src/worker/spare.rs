//! Input buffers that no connection of a worker has a use for, for the next one that something arrives on: who waits holds
//! none. So one buffer, which is warm, mostly serves all sessions and their backends in turn.
//!
//! Invariant: a buffer that is kept is empty. Of what it held before nothing can be read: bytes beyond its length are not to
//! be seen before they have been written.

use bytes::BytesMut;

/// Room made for one read: a page of small messages, and few system calls for large ones.
pub(super) const READ_SIZE: usize = 16 << 10;
/// As many as are worth keeping: a thread handles one request at a time, and few wait with input unhandled.
const KEPT: usize = 16;

/// Empty buffers, each with room for one read.
#[derive(Debug, Default)]
pub(super) struct Spare(Vec<BytesMut>);

impl Spare {
    /// A buffer, empty, with room for one read.
    pub(super) fn take(&mut self) -> BytesMut {
        self.0
            .pop()
            .unwrap_or_else(|| BytesMut::with_capacity(READ_SIZE))
    }

    /// Keeps a buffer of the usual size, or drops it.
    pub(super) fn put(&mut self, mut buffer: BytesMut) {
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

#[cfg(test)]
mod tests {
    use bytes::Buf;

    use super::*;

    #[test]
    fn a_buffer_is_lent_again_empty_and_with_all_its_room() {
        let mut spare = Spare::default();
        let mut buffer = spare.take();
        let memory = buffer.as_ptr();
        buffer.extend_from_slice(b"somebody's secret");
        buffer.advance(10);
        spare.put(buffer);
        let again = spare.take();
        assert_eq!((again.as_ptr(), again.len()), (memory, 0));
        assert_eq!(again.capacity(), READ_SIZE);
    }

    #[test]
    fn what_somebody_still_holds_a_part_of_and_what_has_grown_is_not_kept() {
        let mut spare = Spare::default();
        let mut buffer = spare.take();
        buffer.extend_from_slice(b"somebody's secret");
        let part = buffer.split_to(10);
        spare.put(buffer);
        spare.put(BytesMut::with_capacity(4 * READ_SIZE));
        assert!(spare.0.is_empty());
        drop(part);
    }

    #[test]
    fn no_more_are_kept_than_are_of_use() {
        let mut spare = Spare::default();
        for _ in 0..2 * KEPT {
            spare.put(BytesMut::with_capacity(READ_SIZE));
        }
        assert_eq!(spare.0.len(), KEPT);
    }
}
