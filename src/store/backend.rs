//! redb over a [`Disk`].
//!
//! redb's own lock is not used: [`Disk::try_lock`] is taken once when the store opens and is held
//! over a reopening after a failed disk, when redb's handle is closed and made anew.

use std::io;
use std::sync::Arc;

use redb::StorageBackend;

use super::disk::Disk;

/// The index file as redb sees it.
#[derive(Debug)]
pub(super) struct IndexBackend(pub(super) Arc<dyn Disk>);

impl StorageBackend for IndexBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}
