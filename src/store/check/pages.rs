//! redb's own page checksums, verified beside the running store.
//!
//! redb verifies a file only while it is opened. So a second `Database` is opened over a frozen
//! view: the header as it stood right behind a checkpoint, and the pages it leads to on the same
//! disk, which a read transaction begun before that checkpoint keeps from being used again. The
//! opening is broken off when everything is verified, so nothing is ever written; what redb would
//! write is dropped. Memory: the second handle's cache, [`CACHE_BYTES`], and a few bytes a table.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, DatabaseError, StorageBackend, StorageError};

use super::watch::Pace;
use crate::store::backend::IndexBackend;
use crate::store::gate::View as Pin;

/// Cache of the second handle, in bytes: the branches of the trees.
const CACHE_BYTES: usize = 256 << 10;

/// Bytes of redb's header.
const HEADER: usize = 4096;

/// How far redb's repair is when every page is verified (of 1.0).
const VERIFIED: f64 = 0.5;

/// The index as it was at a checkpoint.
pub(in crate::store) struct Frozen {
    /// Keeps the pages.
    _pin: Pin,
    header: Vec<u8>,
    len: u64,
    /// Which opening of the index it belongs to.
    pub(super) opening: u64,
}

impl Frozen {
    /// The index as `below` has it now, right behind a checkpoint; `pin` was begun before that.
    pub(in crate::store) fn new(pin: Pin, below: &IndexBackend, opening: u64) -> io::Result<Self> {
        let mut header = vec![0; HEADER];
        below.read(0, &mut header)?;
        Ok(Self { _pin: pin, header, len: below.len()?, opening })
    }

    /// Reads every page and compares its checksum.
    pub(super) fn verify(&self, below: IndexBackend, pace: &Arc<Mutex<Pace>>) -> Pages {
        let view = Arc::new(View {
            below,
            header: self.header.clone(),
            len: self.len,
            pace: pace.clone(),
            stopped: AtomicBool::new(false),
            last: AtomicU64::new(0),
        });
        let verified = Arc::new(AtomicBool::new(false));
        let done = verified.clone();
        let opened = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .set_repair_callback(move |repair| {
                // redb calls at 0.0, at 0.3 if it has to go back to an older state, and at 0.6 when
                // the state it found is verified.
                if repair.progress() > VERIFIED {
                    done.store(true, Ordering::Relaxed);
                }
                if repair.progress() > 0.0 {
                    repair.abort();
                }
            })
            .create_with_backend(Shown(view.clone()));
        let near = || format!("near byte {}", view.last.load(Ordering::Relaxed));
        match opened {
            _ if view.stopped.load(Ordering::Relaxed) => Pages::Stopped,
            Ok(_) => Pages::Whole,
            Err(DatabaseError::RepairAborted) if verified.load(Ordering::Relaxed) => Pages::Whole,
            Err(DatabaseError::Storage(StorageError::Io(error))) => Pages::Damaged(format!("{}: {error}", near())),
            Err(_) => Pages::Damaged(format!("a checksum is wrong {}", near())),
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    /// All checksums are right.
    Whole,
    /// They are not; where the first wrong one was met.
    Damaged(String),
    /// The check is to stop.
    Stopped,
}

#[derive(Debug)]
struct View {
    below: IndexBackend,
    header: Vec<u8>,
    len: u64,
    pace: Arc<Mutex<Pace>>,
    stopped: AtomicBool,
    /// Where the last page was read.
    last: AtomicU64,
}

/// The view as redb takes it.
#[derive(Debug)]
struct Shown(Arc<View>);

impl StorageBackend for Shown {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let Self(view) = self;
        if let Some(part) = usize::try_from(offset).ok().and_then(|start| view.header.get(start..start + out.len())) {
            out.copy_from_slice(part);
            return Ok(());
        }
        if !view.pace.lock().unwrap_or_else(PoisonError::into_inner).spend(out.len() as u64) {
            view.stopped.store(true, Ordering::Relaxed);
            return Err(io::ErrorKind::Interrupted.into());
        }
        view.last.store(offset, Ordering::Relaxed);
        view.below.read(offset, out)
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}
