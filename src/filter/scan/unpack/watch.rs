//! What goes into a decoder and between two of them, watched: a packer can make much work of few bytes
//! that never comes out at the end, so the clock and the amount are looked at on the way.

use std::io::{self, Read};

use super::{Item, Limit, PIECE, Unpacker, Workshop};
use crate::filter::scan::Cursor;

/// Ends with an error when there is no time left, or when more comes through than was said.
pub(super) struct Watched<'w, R> {
    from: R,
    workshop: &'w dyn Workshop,
    left: u64,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.workshop.goes_on() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let read = self.from.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(read)
    }
}

impl<'u> Unpacker<'u> {
    /// Reads an item from `offset`, some KiB at a time.
    pub(super) fn source<'i>(&self, item: &Item<'i>, offset: u64) -> io::BufReader<Watched<'u, Cursor<'i>>> {
        self.watched(Cursor::new(item.object, offset), u64::MAX)
    }

    /// What comes out of one decoder and goes into the next: no more than may come out at the end.
    pub(super) fn between<R: Read>(&self, from: R) -> io::BufReader<Watched<'u, R>> {
        self.watched(from, self.limits.bytes)
    }

    fn watched<R: Read>(&self, from: R, left: u64) -> io::BufReader<Watched<'u, R>> {
        io::BufReader::with_capacity(PIECE, Watched { from, workshop: self.workshop, left })
    }
}

/// The limit that ended a decoder, if it was one and not damage.
pub(super) fn limit_of(error: &io::Error) -> Option<Limit> {
    match error.kind() {
        io::ErrorKind::OutOfMemory => Some(Limit::Memory),
        io::ErrorKind::FileTooLarge => Some(Limit::Bytes),
        io::ErrorKind::TimedOut => Some(Limit::Time),
        // Zstandard's library has only words for it.
        io::ErrorKind::Other if error.to_string().contains("too much memory") => Some(Limit::Memory),
        _ => None,
    }
}
