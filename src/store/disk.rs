//! A file as the store sees it, so that tests can cut its power, fill it and count its writes.
//!
//! [`FileDisk`] is the real one, [`Counted`] counts what goes through another disk, and
//! [`MemoryDisk`] keeps apart what was synced and what was not, so that a test can pull the plug.
//! A [`super::site::Site`] opens them by name.

use std::fmt::Debug;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

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

    /// Bytes that the file takes on the medium; less than its length where it has holes.
    fn allocated(&self) -> io::Result<u64> {
        self.len()
    }

    /// Tells whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
}

/// The place of something that another may take while the store runs.
#[derive(Debug)]
pub(super) struct Slot<T: ?Sized>(RwLock<Arc<T>>);

impl<T: ?Sized> Slot<T> {
    pub(super) fn new(first: Arc<T>) -> Self {
        Self(RwLock::new(first))
    }

    /// What is there now.
    pub(super) fn get(&self) -> Arc<T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another in its place.
    pub(super) fn put(&self, other: Arc<T>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = other;
    }
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

/// A file of the file system, readable by its owner alone.
#[derive(Debug)]
pub struct FileDisk(File);

impl FileDisk {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// As the file system gives them.
    pub fn open(path: &Path) -> io::Result<Self> {
        let opened = gentle().open(path);
        // Only a file's owner may read it without leaving the time there.
        let opened = opened.or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => OpenOptions::new().read(true).write(true).open(path),
            _ => Err(error),
        });
        opened.map(Self)
    }

    /// Makes an empty file at `path` with mode 0600. Its name is durable when this returns.
    ///
    /// # Errors
    /// `AlreadyExists` when there is a file; others as the file system gives them.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = gentle().create_new(true).mode(0o600).open(path)?;
        file.sync_all()?;
        // A synced file in an unsynced folder may have lost its name after a power cut.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_folder(folder)?;
        Ok(Self(file))
    }
}

/// For reading and writing. Reading leaves no access time in the inode: the kernel would write it to
/// the medium once a day, where nothing else does.
fn gentle() -> OpenOptions {
    let mut options = OpenOptions::new();
    let flags = i32::try_from(rustix::fs::OFlags::NOATIME.bits()).unwrap_or(0);
    options.read(true).write(true).custom_flags(flags);
    options
}

/// Makes durable which names are in a folder.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

impl Disk for FileDisk {
    fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|facts| facts.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn unlock(&self) -> io::Result<()> {
        self.0.unlock()
    }

    fn allocated(&self) -> io::Result<u64> {
        self.0.metadata().map(|facts| facts.blocks().saturating_mul(512))
    }
}

/// A disk that counts what goes through it.
#[derive(Debug)]
pub struct Counted {
    disk: Arc<dyn Disk>,
    counters: Arc<Counters>,
}

impl Counted {
    /// Counts what goes through `disk` into `counters`; several disks may share them.
    pub fn new(disk: Arc<dyn Disk>, counters: Arc<Counters>) -> Self {
        Self { disk, counters }
    }
}

impl Disk for Counted {
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
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        self.counters.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.disk.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.disk.sync()
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

/// Bytes a device writes as a whole or not at all.
pub const SECTOR: usize = 512;

/// What becomes of a sector that was written and that no sync has followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is there.
    Kept,
    /// What was there before still is.
    Lost,
    /// Neither: the device was cut off while it wrote.
    Garbage,
}

/// A disk in memory, for tests: it remembers which writes no sync has followed yet, so that
/// [`MemoryDisk::power_cut`] can lose any part of them. Clones share the disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    /// What reads see.
    live: Vec<u8>,
    /// What the last sync left.
    synced: Vec<u8>,
    /// What came after it, in order.
    unsynced: Vec<Change>,
    locked: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Change {
    /// Makes the change on `image`: of a write each sector as `fate` has it.
    fn apply(&self, image: &mut Vec<u8>, fate: &mut dyn FnMut() -> Fate) {
        match self {
            Self::Length(len) if fate() == Fate::Kept => image.resize(*len, 0),
            Self::Length(_) => {}
            Self::Write { offset, bytes } => {
                for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                    let (at, fate) = (offset + index * SECTOR, fate());
                    if fate == Fate::Lost {
                        continue;
                    }
                    image.resize(image.len().max(at + sector.len()), 0);
                    let Some(target) = image.get_mut(at..at + sector.len()) else { continue };
                    target.copy_from_slice(sector);
                    if fate == Fate::Garbage {
                        target.iter_mut().zip(0_u8..=u8::MAX).for_each(|(byte, salt)| *byte ^= salt | 1);
                    }
                }
            }
        }
    }
}

impl MemoryDisk {
    /// A disk that holds `bytes`, all of them synced.
    pub fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Memory { live: bytes.clone(), synced: bytes, ..Memory::default() })))
    }

    /// The disk as it may be found after a power cut now: everything synced, and of each later
    /// write those 512-byte sectors for which `keep` says so.
    #[must_use]
    pub fn power_cut(&self, keep: &mut dyn FnMut() -> bool) -> Self {
        self.crash(&mut || if keep() { Fate::Kept } else { Fate::Lost })
    }

    /// As [`MemoryDisk::power_cut`], on a device that may leave garbage where it was writing.
    #[must_use]
    pub fn crash(&self, fate: &mut dyn FnMut() -> Fate) -> Self {
        let memory = self.memory();
        let mut image = memory.synced.clone();
        for change in &memory.unsynced {
            change.apply(&mut image, fate);
        }
        Self::holding(image)
    }

    /// What a failed `fdatasync` leaves: the medium has of what was unsynced what `fate` says, the
    /// cache still shows all of it, and no later sync will write it again.
    pub fn forget_unsynced(&self, fate: &mut dyn FnMut() -> Fate) {
        let mut memory = self.memory();
        for change in std::mem::take(&mut memory.unsynced) {
            change.apply(&mut memory.synced, fate);
        }
    }

    /// A disk of its own in the same state, synced and unsynced.
    #[must_use]
    pub fn fork(&self) -> Self {
        let memory = self.memory();
        let (live, synced, unsynced) = (memory.live.clone(), memory.synced.clone(), memory.unsynced.clone());
        Self(Arc::new(Mutex::new(Memory { live, synced, unsynced, locked: false })))
    }

    /// Everything on the disk as a reader sees it now.
    pub fn bytes(&self) -> Vec<u8> {
        self.memory().live.clone()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: Change) {
        let mut memory = self.memory();
        change.apply(&mut memory.live, &mut || Fate::Kept);
        memory.unsynced.push(change);
    }
}

/// An offset as an index, or the error of a file that has no such place.
fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

impl Disk for MemoryDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.memory().live.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Length(index(len)?));
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let (memory, start) = (self.memory(), index(offset)?);
        let found = start.checked_add(buffer.len()).and_then(|end| memory.live.get(start..end));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(Change::Write { offset: index(offset)?, bytes: bytes.to_vec() });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut memory = self.memory();
        let changes = std::mem::take(&mut memory.unsynced);
        for change in &changes {
            change.apply(&mut memory.synced, &mut || Fate::Kept);
        }
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut memory = self.memory();
        Ok(!std::mem::replace(&mut memory.locked, true))
    }

    fn unlock(&self) -> io::Result<()> {
        self.memory().locked = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn is_a_disk(disk: &dyn Disk) {
        assert!(disk.is_empty().unwrap());
        disk.write_at(3, b"letter").unwrap();
        disk.sync().unwrap();
        assert_eq!(disk.len().unwrap(), 9);
        let mut buffer = [9; 5];
        disk.read_at(1, &mut buffer).unwrap();
        assert_eq!(&buffer, b"\0\0let");
        disk.set_len(5).unwrap();
        assert_eq!(disk.read_at(3, &mut buffer).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        disk.set_len(6).unwrap();
        disk.read_at(1, &mut buffer).unwrap();
        assert_eq!(&buffer, b"\0\0le\0");
    }

    #[test]
    fn a_file_is_a_disk_that_its_owner_alone_may_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mail.journal");
        assert_eq!(FileDisk::open(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let disk = FileDisk::create(&path).unwrap();
        is_a_disk(&disk);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(FileDisk::open(&path).unwrap().len().unwrap(), 6);
        assert_eq!(FileDisk::create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_locked_file_is_refused_to_others_until_it_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mail.redb");
        let (one, two) = (FileDisk::create(&path).unwrap(), FileDisk::open(&path).unwrap());
        assert!(one.try_lock().unwrap());
        assert!(!two.try_lock().unwrap());
        one.unlock().unwrap();
        assert!(two.try_lock().unwrap());
    }

    #[test]
    fn what_goes_through_is_counted() {
        let counters = Arc::new(Counters::default());
        is_a_disk(&Counted::new(Arc::new(MemoryDisk::default()), counters.clone()));
        let figures = [&counters.written, &counters.writes, &counters.syncs].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(figures, [6, 1, 1]);
    }

    #[test]
    fn a_power_cut_loses_what_was_not_synced_by_sectors() {
        let disk = MemoryDisk::default();
        is_a_disk(&disk);
        disk.sync().unwrap();
        disk.write_at(0, &[7; 1024]).unwrap();
        assert_eq!(disk.power_cut(&mut || false).bytes(), b"\0\0\0le\0");
        let mut turn = false;
        let half = disk.power_cut(&mut || {
            turn = !turn;
            turn
        });
        assert_eq!(half.bytes(), [7; 512]);
        disk.sync().unwrap();
        assert_eq!(disk.power_cut(&mut || false).bytes(), [7; 1024]);
    }

    #[test]
    fn what_was_being_written_may_be_neither_old_nor_new() {
        let disk = MemoryDisk::holding(vec![1; 1024]);
        disk.write_at(0, &[7; 512]).unwrap();
        let found = disk.crash(&mut || Fate::Garbage).bytes();
        assert!(found[..512].iter().any(|byte| *byte != 1 && *byte != 7));
        assert_eq!(found[512..], [1; 512]);
    }

    #[test]
    fn after_a_failed_sync_the_cache_shows_what_the_medium_has_not() {
        let disk = MemoryDisk::holding(vec![1; 512]);
        disk.write_at(0, &[7; 512]).unwrap();
        disk.forget_unsynced(&mut || Fate::Lost);
        disk.sync().unwrap();
        assert_eq!(disk.bytes(), [7; 512]);
        assert_eq!(disk.power_cut(&mut || true).bytes(), [1; 512]);
    }
}
