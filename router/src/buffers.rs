//! Input buffers of a worker's connections: those that none has a use for, for the next one that something arrives on. Who waits holds
//! none, so that one buffer, which is warm, mostly serves all sessions and their backends in turn.
//!
//! A worker is a thread, so that its spare buffers are that thread's and need no lock: two for each query would be eight of its
//! locked operations.
//!
//! Invariant: a buffer that is kept is empty. Of what it held before nothing can be read: bytes beyond its length are not to
//! be seen before they have been written.

use std::cell::RefCell;

use bytes::BytesMut;

thread_local! {
    static SPARE: RefCell<Spare> = const { RefCell::new(Spare(Vec::new())) };
}

/// Room made for one read: a page of small messages, and few system calls for large ones.
const READ_SIZE: usize = 16 << 10;
/// As many as are worth keeping: a thread handles one request at a time, and few wait with input unhandled.
const KEPT: usize = 16;

/// Empty buffers, each with room for one read.
#[derive(Debug, Default)]
struct Spare(Vec<BytesMut>);

/// Makes room for one read in the input buffer of a connection. One that holds no memory is lent a spare one.
pub(crate) fn make_room(input: &mut BytesMut) {
    if input.capacity() == 0 {
        *input = SPARE.with_borrow_mut(Spare::take);
    }
    input.reserve(READ_SIZE);
}

/// Takes an input buffer back if nothing is left in it: the next to read anything has one that is warm, whichever
/// connection it was.
pub(crate) fn reclaim(input: &mut BytesMut) {
    if input.is_empty() && input.capacity() > 0 {
        let empty = std::mem::take(input);
        SPARE.with_borrow_mut(|spare| spare.put(empty));
    }
}

impl Spare {
    /// A buffer, empty, with room for one read.
    fn take(&mut self) -> BytesMut {
        self.0
            .pop()
            .unwrap_or_else(|| BytesMut::with_capacity(READ_SIZE))
    }

    /// Keeps a buffer of the usual size, or drops it.
    fn put(&mut self, mut buffer: BytesMut) {
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
