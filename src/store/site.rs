//! Where a store lives: its files by name, the room around them, and the clock it goes by.
//!
//! [`FolderSite`] is a folder of the file system. [`MemorySite`] is one in memory for tests, whose
//! files are [`MemoryDisk`]s. A rename is atomic and durable when it returns, so a file that was
//! written and synced under another name takes a file's place whole or not at all.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::mail::date::Timestamp;

use super::disk::{Disk, FileDisk, MemoryDisk, sync_folder};
use super::medium::{self, Medium};

/// A place for a store's files.
pub trait Site: Debug + Send + Sync + 'static {
    /// Opens the file of this name; `None` when there is none.
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>>;

    /// Makes an empty file that its owner alone may read. Its name is durable when this returns.
    /// `AlreadyExists` when there is one.
    fn create(&self, name: &str) -> io::Result<Arc<dyn Disk>>;

    /// Gives a file another name; a file that has it goes. Atomic, and durable when this returns.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; it is no error when there is none.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The room on the medium.
    fn room(&self) -> io::Result<Room>;

    /// The time of day, as far as it is known.
    fn now(&self) -> Timestamp;

    /// What the kernel tells of the medium; `None` where it tells nothing.
    fn medium(&self) -> Option<Medium> {
        None
    }

    /// A folder for temporary files, and the site's name in messages to people.
    fn path(&self) -> &Path;
}

/// Bytes of a medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What is left for us.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// A folder of the file system.
#[derive(Debug)]
pub struct FolderSite(PathBuf);

impl FolderSite {
    /// The folder at `path`, which must be there.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl Site for FolderSite {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>> {
        match FileDisk::open(&self.0.join(name)) {
            Ok(disk) => Ok(Some(Arc::new(disk))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        Ok(Arc::new(FileDisk::create(&self.0.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.0.join(from), self.0.join(to))?;
        sync_folder(&self.0)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.0.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn room(&self) -> io::Result<Room> {
        let disk = rustix::fs::statvfs(&self.0)?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Ok(Room { free: bytes(disk.f_bavail), total: bytes(disk.f_blocks) })
    }

    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Timestamp(i64::try_from(since).unwrap_or(0))
    }

    fn medium(&self) -> Option<Medium> {
        medium::of(&self.0)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

/// A folder in memory, for tests, with room for everything. Clones share it.
#[derive(Clone, Debug)]
pub struct MemorySite {
    files: Arc<Mutex<BTreeMap<String, MemoryDisk>>>,
    path: Arc<Path>,
}

impl MemorySite {
    /// An empty one, whose temporary files go to `path`.
    pub fn new(path: &Path) -> Self {
        Self { files: Arc::default(), path: path.into() }
    }

    /// A file; an empty one that is made now when there is none.
    pub fn disk(&self, name: &str) -> MemoryDisk {
        self.files().entry(name.to_owned()).or_default().clone()
    }

    /// A site of its own whose files are what `change` makes of these.
    #[must_use]
    pub fn each(&self, change: &mut dyn FnMut(&MemoryDisk) -> MemoryDisk) -> Self {
        let files = self.files().iter().map(|(name, disk)| (name.clone(), change(disk))).collect();
        Self { files: Arc::new(Mutex::new(files)), path: self.path.clone() }
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, MemoryDisk>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Site for MemorySite {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>> {
        Ok(self.files().get(name).map(|disk| -> Arc<dyn Disk> { Arc::new(disk.clone()) }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        let mut files = self.files();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(Arc::new(files.entry(name.to_owned()).or_default().clone()))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files();
        let disk = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), disk);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files().remove(name);
        Ok(())
    }

    fn room(&self) -> io::Result<Room> {
        Ok(Room { free: u64::MAX / 2, total: 0 })
    }

    fn now(&self) -> Timestamp {
        FolderSite::new(&self.path).now()
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_a_site(site: &dyn Site) {
        assert!(site.open("one").unwrap().is_none());
        let one = site.create("one").unwrap();
        one.write_at(0, b"first").unwrap();
        assert_eq!(site.create("one").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        site.create("two").unwrap().write_at(0, b"second").unwrap();
        site.rename("two", "one").unwrap();
        assert!(site.open("two").unwrap().is_none());
        let mut found = [0; 6];
        site.open("one").unwrap().unwrap().read_at(0, &mut found).unwrap();
        assert_eq!(&found, b"second");
        site.remove("one").unwrap();
        site.remove("one").unwrap();
        assert!(site.open("one").unwrap().is_none());
        assert_eq!(site.rename("one", "two").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(site.room().unwrap().free > 0);
        assert!(site.now() > Timestamp(1_700_000_000));
    }

    #[test]
    fn files_are_made_renamed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        is_a_site(&FolderSite::new(folder.path()));
        is_a_site(&MemorySite::new(folder.path()));
    }
}
