//! A message on its way in as something to scan.

use std::cell::RefCell;
use std::io;

use crate::filter::scan::ReadAt;
use crate::store::{Spooled, SpooledReader};

/// A finished body, read where it is wanted; a block of it is unpacked at a time.
pub struct SpooledObject<'s> {
    size: u64,
    reader: RefCell<SpooledReader<'s>>,
}

impl std::fmt::Debug for SpooledObject<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "SpooledObject({})", self.size)
    }
}

impl<'s> SpooledObject<'s> {
    /// Takes a body.
    pub fn new(body: &'s Spooled) -> Self {
        Self { size: body.size(), reader: RefCell::new(body.reader()) }
    }
}

impl ReadAt for SpooledObject<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut reader = self.reader.borrow_mut();
        let mut done = 0;
        while done < buffer.len() {
            let rest = buffer.get_mut(done..).unwrap_or_default();
            let bytes = reader.read(offset + done as u64, rest.len()).map_err(io::Error::other)?;
            let Some(into) = rest.get_mut(..bytes.len()).filter(|into| !into.is_empty()) else { break };
            into.copy_from_slice(bytes);
            done += bytes.len();
        }
        Ok(done)
    }
}
