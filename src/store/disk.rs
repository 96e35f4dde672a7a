//! A file as the store sees it, so that tests can cut its power, fill it and count its writes.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A file with positioned reads and writes. `sync` is `fdatasync`: what was written before it
/// returns survives a power cut, what was not may be there in any part or not at all.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts or extends with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Fills `buffer` from `offset`; an error when the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything written durable.
    fn sync(&self) -> io::Result<()>;
    /// Locks the file against other processes; false when another has it.
    fn try_lock(&self) -> io::Result<bool>;
    /// Lets it go.
    fn unlock(&self) -> io::Result<()>;
}

/// What went through a disk since start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes written.
    pub written: AtomicU64,
    /// Calls of `write_at`.
    pub writes: AtomicU64,
    /// Calls of `sync`.
    pub syncs: AtomicU64,
}

/// The two files of a store.
#[derive(Clone, Debug)]
pub struct Disks {
    /// `mail.redb`
    pub index: Arc<dyn Disk>,
    /// `mail.journal`
    pub journal: Arc<dyn Disk>,
}
