//! The ring file that makes a 250 durable (DESIGN section 4, STORAGE section 6).
//!
//! A group is a header {magic, generation, first seq, last seq, length, crc32c} and a payload, padded
//! to 4 KiB so that an acknowledged block is never rewritten before its reuse. The file is written
//! with zeros once and never truncated: only blocks already written cost no file-system journal.

use std::sync::Arc;

use super::disk::Disk;

/// Why the journal could not do something.
#[derive(Debug)]
pub enum JournalError {
    /// The group would overwrite groups above the last checkpoint: checkpoint first.
    Full,
    /// The group is larger than half the ring can ever hold.
    TooLarge,
    /// The file belongs to another store.
    Foreign,
    /// The file is no journal of ours; the text says what is wrong.
    Damaged(&'static str),
    /// The disk failed.
    Disk(std::io::Error),
}

/// The ring.
#[derive(Debug)]
pub struct Journal {}

#[expect(clippy::todo, reason = "the facade comes first")]
#[allow(unused_variables)]
impl Journal {
    /// Opens the ring of the store with this identity, or writes a new one of `bytes` when the file
    /// is empty (zeros, then a header block, each synced).
    pub fn open(disk: Arc<dyn Disk>, store: [u8; 16], bytes: u64) -> Result<Self, JournalError> {
        todo!()
    }

    /// Hands every group with a `last_seq` above `applied` to `take`, in order, and stands ready to
    /// append after the last. Stops at the first group that is torn, foreign or out of order.
    /// Call once, before the first append.
    pub fn replay(
        &mut self,
        applied: u64,
        take: &mut dyn FnMut(u64, u64, &[u8]) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        todo!()
    }

    /// Writes one group and syncs. On return it is durable.
    pub fn append(&mut self, first_seq: u64, last_seq: u64, payload: &[u8]) -> Result<(), JournalError> {
        todo!()
    }

    /// Everything up to `seq` is durable in the index: its groups may be overwritten.
    pub fn checkpointed(&mut self, seq: u64) {
        todo!()
    }

    /// Bytes of groups above the last checkpoint, padding included.
    pub fn volume(&self) -> u64 {
        todo!()
    }

    /// Largest payload [`Journal::append`] takes, in bytes.
    pub fn payload_max(&self) -> u64 {
        todo!()
    }
}
