//! Buffers that are borrowed while bytes are on their way.
//!
//! A mail server holds hundreds of connections that say nothing for half an hour. None of them keeps
//! a buffer: one is taken from this thread's free list when the socket is readable and given back
//! before waiting again. The list keeps a few buffers; more are freed, so a busy minute leaves no
//! memory behind.

use std::cell::RefCell;

/// Size of a buffer in bytes: the largest TLS record with its header (RFC 8446 section 5.2 allows
/// 2^14 + 256 bytes of ciphertext, RFC 5246 section 6.2.3 allows 2^14 + 2048).
pub const BUFFER_BYTES: usize = 16_384 + 2_048 + 5;

/// Buffers kept for reuse on each thread.
const KEPT_MAX: usize = 4;

thread_local! {
    static KEPT: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// [`BUFFER_BYTES`] of room, of which a stretch is filled. Given back when dropped.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// Borrows an empty buffer.
    pub fn take() -> Self {
        let kept = KEPT.try_with(|kept| kept.borrow_mut().pop()).ok().flatten();
        Self { bytes: kept.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice()), start: 0, end: 0 }
    }

    /// The bytes that were put in and not yet consumed.
    pub fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// The same, to be changed in place (rustls decrypts there).
    pub fn filled_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// How many bytes are filled.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Tells whether nothing is filled.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The room behind the filled bytes. Write into its front and call [`Buffer::grow`].
    pub fn spare_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// Counts `count` bytes of the spare room as filled; at most all of it.
    pub fn grow(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// Copies bytes behind the filled ones and returns how many there was room for.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let room = self.spare_mut();
        let taken = room.len().min(bytes.len());
        if let (Some(to), Some(from)) = (room.get_mut(..taken), bytes.get(..taken)) {
            to.copy_from_slice(from);
        }
        self.grow(taken);
        taken
    }

    /// Removes `count` bytes from the front; at most all.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // While the thread ends its list is gone, and the buffer is freed like any other.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < KEPT_MAX {
                kept.push(bytes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_is_consumed_in_order_and_room_comes_back() {
        let mut buffer = Buffer::take();
        assert_eq!(buffer.push(b"abcdef"), 6);
        buffer.consume(2);
        assert_eq!(buffer.filled(), b"cdef");
        buffer.consume(9);
        assert!(buffer.is_empty());
        assert_eq!(buffer.spare_mut().len(), BUFFER_BYTES);
        assert_eq!(buffer.push(&vec![1; BUFFER_BYTES + 7]), BUFFER_BYTES);
    }

    #[test]
    fn a_dropped_buffer_is_borrowed_again_and_few_are_kept() {
        let many: Vec<Buffer> = (0..KEPT_MAX + 3).map(|_| Buffer::take()).collect();
        drop(many);
        assert_eq!(KEPT.with(|kept| kept.borrow().len()), KEPT_MAX);
        let one = Buffer::take();
        assert_eq!(KEPT.with(|kept| kept.borrow().len()), KEPT_MAX - 1);
        assert!(one.is_empty());
    }
}
