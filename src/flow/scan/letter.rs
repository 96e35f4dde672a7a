//! A message as something to scan: on its way in, or kept.

use std::cell::RefCell;
use std::io;

use crate::filter::scan::ReadAt;
use crate::store::{Body, ReadError, Spooled, SpooledReader};

/// A body, read where it is wanted; a block of it is unpacked at a time.
pub struct LetterObject<R> {
    size: u64,
    reader: RefCell<R>,
}

/// A finished body on its way in.
pub type SpooledObject<'s> = LetterObject<SpooledReader<'s>>;

/// A body of a message that is kept.
pub type KeptObject = LetterObject<Body>;

/// Gives bytes from an offset on: some of them, none past the end.
trait Pull {
    fn pull(&mut self, offset: u64, max: usize) -> Result<&[u8], ReadError>;
}

impl Pull for SpooledReader<'_> {
    fn pull(&mut self, offset: u64, max: usize) -> Result<&[u8], ReadError> {
        self.read(offset, max)
    }
}

impl Pull for Body {
    fn pull(&mut self, offset: u64, max: usize) -> Result<&[u8], ReadError> {
        self.read(offset, max)
    }
}

impl<R> std::fmt::Debug for LetterObject<R> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "LetterObject({})", self.size)
    }
}

impl<'s> SpooledObject<'s> {
    /// Takes a body.
    pub fn new(body: &'s Spooled) -> Self {
        Self { size: body.size(), reader: RefCell::new(body.reader()) }
    }
}

impl KeptObject {
    /// Takes a body that is kept.
    pub fn kept(body: Body) -> Self {
        Self { size: body.len(), reader: RefCell::new(body) }
    }
}

impl<R: Pull> ReadAt for LetterObject<R> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut reader = self.reader.borrow_mut();
        let mut done = 0;
        while done < buffer.len() {
            let rest = buffer.get_mut(done..).unwrap_or_default();
            let bytes = reader.pull(offset + done as u64, rest.len()).map_err(io::Error::other)?;
            let Some(into) = rest.get_mut(..bytes.len()).filter(|into| !into.is_empty()) else { break };
            into.copy_from_slice(bytes);
            done += bytes.len();
        }
        Ok(done)
    }
}
