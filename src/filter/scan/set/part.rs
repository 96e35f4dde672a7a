//! A section that is in memory if there is room for it, and otherwise read where it is wanted.

use std::borrow::Cow;
use std::io;

use super::{Extent, SetError};
use crate::filter::scan::{ReadAt, read_vec};

/// Bytes that are read at one time while a section is looked through.
const PIECE: usize = 60 << 10;

/// One section of a set.
#[derive(Debug, Default)]
pub(super) struct Part {
    extent: Extent,
    /// All of it, or nothing where it stays on the disk.
    held: Vec<u8>,
}

impl Part {
    /// Reads a section to its end, compares its sum, and keeps it if it is no larger than `room`, which
    /// gets smaller by it. `see` is shown all of it, in pieces that are multiples of 12 bytes.
    ///
    /// # Errors
    /// Those of the medium, and that it is not what was written.
    pub(super) fn open(
        medium: &dyn ReadAt,
        extent: Extent,
        room: &mut u64,
        what: &'static str,
        see: &mut dyn FnMut(&[u8]),
    ) -> Result<Self, SetError> {
        let keep = extent.length <= *room;
        let mut held = Vec::new();
        if keep {
            *room -= extent.length;
            held.reserve_exact(usize::try_from(extent.length).map_err(|_| SetError::Damaged(what))?);
        }
        let (mut at, mut checksum) = (0, 0);
        while at < extent.length {
            let count = usize::try_from(extent.length - at).unwrap_or(usize::MAX).min(PIECE);
            let piece = read_vec(medium, extent.offset + at, count)?;
            if piece.len() < count {
                return Err(SetError::Damaged(what));
            }
            checksum = crc32c::crc32c_append(checksum, &piece);
            see(&piece);
            if keep {
                held.extend_from_slice(&piece);
            }
            at += count as u64;
        }
        if checksum == extent.checksum { Ok(Self { extent, held }) } else { Err(SetError::Damaged(what)) }
    }

    /// Its bytes.
    pub(super) fn length(&self) -> u64 {
        self.extent.length
    }

    /// How many of them are in memory.
    pub(super) fn resident(&self) -> usize {
        self.held.len()
    }

    /// Some of its bytes, fewer at its end.
    ///
    /// # Errors
    /// Those of the medium.
    pub(super) fn bytes(&self, medium: &dyn ReadAt, at: u64, count: usize) -> io::Result<Cow<'_, [u8]>> {
        let left = usize::try_from(self.extent.length.saturating_sub(at)).unwrap_or(usize::MAX);
        let count = count.min(left);
        if self.held.is_empty() {
            return Ok(Cow::Owned(read_vec(medium, self.extent.offset + at, count)?));
        }
        let rest = usize::try_from(at).ok().and_then(|at| self.held.get(at..)).unwrap_or_default();
        Ok(Cow::Borrowed(rest.get(..count).unwrap_or_default()))
    }
}
