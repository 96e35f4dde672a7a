//! The two header blocks of the ring, and how a ring is made.

use std::io;

use super::super::disk::Disk;
use super::{BLOCK, BLOCK_LEN, DATA, JournalError, Mark};

/// The smallest ring.
const RING_MIN: u64 = 16 * BLOCK;
/// How many zeros are written at a time.
const STEP: usize = 1 << 20;

const HEADER_MAGIC: [u8; 8] = *b"pboxring";
const VERSION: u32 = 1;

/// What a file that should be a ring holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Nothing, or zeros: no ring was made here, or a cut came while it was made.
    Nothing,
    /// No header block that can be read.
    Unreadable,
    /// A ring, of whichever store.
    Ring,
}

/// A header block: the newest one that is whole tells where to begin reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) store: [u8; 16],
    /// Counts header blocks written, in turn at block 0 and block 1.
    pub(super) generation: u64,
    /// Length of the file in bytes.
    pub(super) ring: u64,
    /// The first group above the checkpoint.
    pub(super) tail: Mark,
    /// What the checkpoint held: no index older than this can follow from here.
    pub(super) checkpoint: u64,
}

impl Header {
    /// The block as it is written.
    pub(super) fn block(&self) -> [u8; BLOCK_LEN] {
        let mut block = [0; BLOCK_LEN];
        let mut at = copy(&mut block, 0, &HEADER_MAGIC);
        at = copy(&mut block, at + 4, &VERSION.to_le_bytes());
        at = copy(&mut block, at, &self.store);
        for number in [self.generation, self.ring, self.tail.offset, self.tail.number, self.checkpoint] {
            at = copy(&mut block, at, &number.to_le_bytes());
        }
        at = copy(&mut block, at, &self.tail.previous.to_le_bytes());
        let crc = crc32c::crc32c(block.get(12..at).unwrap_or_default());
        copy(&mut block, 8, &crc.to_le_bytes());
        block
    }

    /// Reads a header block; `None` when it is torn or was never written.
    pub(super) fn parse(block: &[u8; BLOCK_LEN]) -> Result<Option<Self>, JournalError> {
        let mut fields = Fields(block);
        if fields.take() != HEADER_MAGIC {
            return Ok(None);
        }
        let crc = u32::from_le_bytes(fields.take());
        // The version comes before the checksum is looked at: another version may reckon it otherwise.
        let version = u32::from_le_bytes(fields.take());
        let store = fields.take();
        let [generation, ring, offset, number, checkpoint] = [(); 5].map(|()| u64::from_le_bytes(fields.take()));
        let previous = u32::from_le_bytes(fields.take());
        let end = BLOCK_LEN - fields.0.len();
        if crc32c::crc32c(block.get(12..end).unwrap_or_default()) != crc {
            return Ok(None);
        }
        if version != VERSION {
            return Err(JournalError::Damaged("it was written by a newer Pillarbox"));
        }
        let sane = ring >= RING_MIN && ring % BLOCK == 0 && (DATA..=ring).contains(&offset) && offset % BLOCK == 0;
        if !sane {
            return Err(JournalError::Damaged("its header makes no sense"));
        }
        Ok(Some(Self { store, generation, ring, tail: Mark { offset, number, previous }, checkpoint }))
    }
}

/// Looks at what a file holds without needing to know whose it is.
pub fn contents(disk: &dyn Disk) -> io::Result<Contents> {
    let len = disk.len()?;
    match header_blocks(disk, len) {
        Ok([None, None]) if is_zeros(disk, len)? => Ok(Contents::Nothing),
        Ok([None, None]) => Ok(Contents::Unreadable),
        Err(JournalError::Disk(error)) => Err(error),
        Ok(_) | Err(_) => Ok(Contents::Ring),
    }
}

/// Reads both header blocks of a file of `len` bytes.
pub(super) fn header_blocks(disk: &dyn Disk, len: u64) -> Result<[Option<Header>; 2], JournalError> {
    let mut found = [None; 2];
    if len >= DATA {
        for (place, header) in (0..).zip(&mut found) {
            let mut block = [0; BLOCK_LEN];
            disk.read_at(place * BLOCK, &mut block)?;
            *header = Header::parse(&block)?;
        }
    }
    Ok(found)
}

/// Writes a new ring: zeros, and the header once they are durable.
pub(super) fn create(disk: &dyn Disk, store: [u8; 16], bytes: u64) -> Result<Header, JournalError> {
    let ring = bytes.max(RING_MIN) / BLOCK * BLOCK;
    let zeros = vec![0; STEP];
    disk.set_len(0)?;
    let mut written = 0;
    while written < ring {
        let step = usize::try_from(ring - written).unwrap_or(STEP).min(STEP);
        disk.write_at(written, zeros.get(..step).unwrap_or(&zeros))?;
        written += step as u64;
    }
    disk.sync()?;
    let tail = Mark { offset: DATA, number: 1, previous: 0 };
    let header = Header { store, generation: 0, ring, tail, checkpoint: 0 };
    disk.write_at(0, &header.block())?;
    disk.sync()?;
    Ok(header)
}

/// Tells whether a file of `len` bytes has nothing in it.
pub(super) fn is_zeros(disk: &dyn Disk, len: u64) -> io::Result<bool> {
    let mut block = [0; BLOCK_LEN];
    let mut at = 0;
    while at < len {
        let part = usize::try_from(len - at).unwrap_or(BLOCK_LEN).min(BLOCK_LEN);
        let part = block.get_mut(..part).unwrap_or_default();
        disk.read_at(at, part)?;
        if part.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += part.len() as u64;
    }
    Ok(true)
}

/// Copies `bytes` to `at` and returns where they end; what does not fit is not copied.
pub(super) fn copy(block: &mut [u8; BLOCK_LEN], at: usize, bytes: &[u8]) -> usize {
    if let Some(target) = block.get_mut(at..at + bytes.len()) {
        target.copy_from_slice(bytes);
    }
    at + bytes.len()
}

/// Takes fields of fixed size off the front of a block.
pub(super) struct Fields<'b>(pub(super) &'b [u8]);

impl Fields<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *field
    }
}
