//! Room kept for a disk that others fill to the last byte.
//!
//! The journal's file is longer than its ring: the ballast behind it is written zeros, and nobody
//! reads them. When a write to one of the store's files finds no space, the file is cut a little
//! shorter and the write is done again, so a checkpoint of what was acknowledged, and the deleting
//! that makes room, have pages to work with, and redb never hears of it. While some of it is gone
//! the writer takes no mail and makes every change durable in the index itself, so that nothing is
//! acknowledged that a replay would have no room for. When there is room again it is written back,
//! in the course of the next command and by no timer.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::error::is_of_space;

/// Bytes given up at a time: others who fill the disk would take what is not needed at once.
const STEP: u64 = 128 << 10;

/// What is needed beside the pages that wait in redb's cache: the group that met the full disk, the
/// allocator's state of a file of several GiB, and the first removals.
const BESIDE_PAGES: u64 = 2 << 20;

/// Wait after a ballast that could not be written back.
const AGAIN: Duration = Duration::from_secs(60);

/// The ballast behind the journal's ring.
#[derive(Debug)]
pub(super) struct Ballast {
    /// How much there should be, in bytes.
    size: u64,
    hold: Mutex<Hold>,
    /// A write found no space, and nothing was left to be given up.
    dry: AtomicBool,
}

#[derive(Debug, Default)]
struct Hold {
    journal: Option<Arc<dyn Disk>>,
    /// Where it begins: the length of the ring. Not known before the journal was opened.
    ring: Option<u64>,
    /// How much there is, in bytes.
    there: u64,
    /// Said in the log since it was whole.
    told: bool,
    not_before: Option<Instant>,
}

impl Ballast {
    /// A ballast for an index with a cache of `cache` bytes: half of them may wait to be written when
    /// the disk fills. There is nothing of it before the journal is open.
    pub(super) fn new(cache: u64) -> Self {
        let size = (cache / 2 + BESIDE_PAGES).next_multiple_of(STEP);
        Self { size, hold: Mutex::default(), dry: AtomicBool::new(false) }
    }

    /// Names the file it is in.
    pub(super) fn lies_in(&self, journal: Arc<dyn Disk>) {
        self.hold().journal = Some(journal);
    }

    fn hold(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks how much there is, once the length of the ring is known.
    pub(super) fn found(&self, ring: u64) -> io::Result<()> {
        let mut hold = self.hold();
        let len = hold.journal.as_ref().map_or(Ok(0), |journal| journal.len())?;
        hold.ring = Some(ring);
        hold.there = len.saturating_sub(ring);
        Ok(())
    }

    /// Bytes that are missing from it.
    pub(super) fn missing(&self) -> u64 {
        self.size.saturating_sub(self.hold().there)
    }

    /// Tells whether a write found no space since [`Ballast::forget`].
    pub(super) fn ran_dry(&self) -> bool {
        self.dry.load(Ordering::Relaxed)
    }

    /// Forgets that a write found no space.
    pub(super) fn forget(&self) {
        self.dry.store(false, Ordering::Relaxed);
    }

    /// Gives up a step of it; false when there is none.
    fn give(&self) -> bool {
        let mut hold = self.hold();
        let Some((ring, journal)) = hold.place().filter(|_| hold.there > 0) else { return false };
        if !std::mem::replace(&mut hold.told, true) {
            tracing::error!(
                "the disk is full: no mail is taken in until there is room again; what is here can be read and \
                 deleted. Delete mail, or free space on the disk"
            );
        }
        let left = hold.there.saturating_sub(STEP);
        // Freed blocks are others' at many file systems only once that is durable.
        let cut = journal.set_len(ring.saturating_add(left)).and_then(|()| journal.sync());
        if cut.is_ok() {
            hold.there = left;
        }
        cut.is_ok()
    }

    /// Writes back what is missing. Call it where there is room.
    pub(super) fn restore(&self) {
        let mut hold = self.hold();
        let Some((ring, journal)) = hold.place() else { return };
        if hold.there >= self.size || hold.not_before.is_some_and(|time| Instant::now() < time) {
            return;
        }
        let zeros = vec![0; usize::try_from(STEP).unwrap_or(0)];
        let before = hold.there;
        let write = || {
            let mut at = before;
            while at < self.size {
                let part = usize::try_from(self.size - at).unwrap_or(zeros.len()).min(zeros.len());
                journal.write_at(ring + at, zeros.get(..part).unwrap_or_default())?;
                at += part as u64;
            }
            journal.sync()
        };
        match write() {
            Ok(()) => {
                hold.there = self.size;
                if std::mem::take(&mut hold.told) {
                    tracing::info!("there is room on the disk again; mail is taken in");
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the reserve behind the journal can't be written");
                hold.not_before = Some(Instant::now() + AGAIN);
                // What there was stays; an error here shows itself at the next write.
                drop(journal.set_len(ring.saturating_add(before)));
            }
        }
    }
}

impl Hold {
    fn place(&self) -> Option<(u64, Arc<dyn Disk>)> {
        self.ring.zip(self.journal.clone())
    }
}

/// A file of the store whose writes may use the ballast up.
#[derive(Debug)]
pub(super) struct Ballasted {
    disk: Arc<dyn Disk>,
    ballast: Arc<Ballast>,
}

impl Ballasted {
    /// `disk`, with `ballast` to fall back on.
    pub(super) fn new(disk: Arc<dyn Disk>, ballast: Arc<Ballast>) -> Self {
        Self { disk, ballast }
    }

    fn pressing(&self, act: impl Fn() -> io::Result<()>) -> io::Result<()> {
        loop {
            match act() {
                Err(error) if is_of_space(&error) => {
                    if !self.ballast.give() {
                        self.ballast.dry.store(true, Ordering::Relaxed);
                        return Err(error);
                    }
                }
                done => return done,
            }
        }
    }
}

impl Disk for Ballasted {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.pressing(|| self.disk.set_len(len))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.pressing(|| self.disk.write_at(offset, bytes))
    }

    fn sync(&self) -> io::Result<()> {
        // Not tried again: after a sync that failed, one that succeeds says nothing about what was
        // written before. The store is opened anew, and finds the room then.
        self.disk.sync().inspect_err(|error| {
            if is_of_space(error) {
                self.ballast.dry.store(true, Ordering::Relaxed);
                self.ballast.give();
            }
        })
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.disk.try_lock()
    }

    fn unlock(&self) -> io::Result<()> {
        self.disk.unlock()
    }

    fn allocated(&self) -> io::Result<u64> {
        self.disk.allocated()
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::MemoryDisk;
    use super::*;
    use std::sync::atomic::AtomicU64;

    /// A disk without space for the first writes of each kind.
    #[derive(Debug, Default)]
    struct Tight {
        disk: MemoryDisk,
        failures: AtomicU64,
    }

    impl Disk for Tight {
        fn len(&self) -> io::Result<u64> {
            self.disk.len()
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.disk.set_len(len)
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.disk.read_at(offset, buffer)
        }

        fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            let short = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if short.is_ok() { Err(io::ErrorKind::StorageFull.into()) } else { self.disk.write_at(offset, bytes) }
        }

        fn sync(&self) -> io::Result<()> {
            self.disk.sync()
        }

        fn try_lock(&self) -> io::Result<bool> {
            self.disk.try_lock()
        }

        fn unlock(&self) -> io::Result<()> {
            self.disk.unlock()
        }
    }

    #[test]
    fn a_write_without_space_takes_from_the_ballast_until_there_is_none() {
        let journal = MemoryDisk::default();
        journal.set_len(65_536).unwrap();
        let ballast = Arc::new(Ballast::new(0));
        ballast.lies_in(Arc::new(journal.clone()));
        let tight = Arc::new(Tight::default());
        let index = Ballasted::new(tight.clone(), ballast.clone());
        let after = |failures| {
            tight.failures.store(failures, Ordering::Relaxed);
            index.write_at(0, b"page").map_err(|error| error.kind())
        };
        assert_eq!(after(1), Err(io::ErrorKind::StorageFull), "the ring is not known yet");
        assert!(ballast.ran_dry());
        ballast.forget();
        ballast.found(65_536).unwrap();
        assert_eq!(ballast.missing(), BESIDE_PAGES);
        ballast.restore();
        assert_eq!((ballast.missing(), journal.len().unwrap()), (0, 65_536 + BESIDE_PAGES));
        assert_eq!(after(2), Ok(()));
        assert_eq!((ballast.missing(), journal.len().unwrap()), (2 * STEP, 65_536 + BESIDE_PAGES - 2 * STEP));
        assert!(!ballast.ran_dry());
        assert_eq!(after(100), Err(io::ErrorKind::StorageFull));
        assert!(ballast.ran_dry());
        assert_eq!(journal.len().unwrap(), 65_536);
        ballast.restore();
        assert_eq!(ballast.missing(), 0);
        let again = Ballast::new(0);
        again.lies_in(Arc::new(journal));
        again.found(65_536).unwrap();
        assert_eq!(again.missing(), 0);
    }
}
