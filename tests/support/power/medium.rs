//! A site whose files are in memory and which remembers in which order everything happened to them.
//!
//! One log runs over all files: names made, changed and removed, writes, lengths, and syncs with
//! what they made durable. A position in it is a moment: the power can be cut at any (`cut.rs`), and
//! the driver notes at which position it sent a command and at which it was answered.
//!
//! Whoever drives a store can hold its writer at the next change of a file. So commands come while
//! the disk is busy, as on a slow card, and yet in the same order in every run.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use pillarbox::mail::date::Timestamp;
use pillarbox::store::disk::Disk;
use pillarbox::store::site::{Room, Site};

use super::image::Image;

/// Something that happened to the files. Files go by number, because names change.
#[derive(Debug)]
pub(crate) enum Event {
    /// A file was made; the name is durable.
    Created {
        name: String,
        file: usize,
    },
    /// A file got another name; that is durable.
    Renamed {
        from: String,
        to: String,
    },
    /// A name was removed. Like the real site, this does not sync the folder: until another name is
    /// made durable the removal may be lost.
    Removed {
        name: String,
    },
    Wrote {
        file: usize,
        offset: usize,
        bytes: Box<[u8]>,
    },
    Length {
        file: usize,
        len: usize,
    },
    /// A sync returned; the file is durable as it is here.
    Synced {
        file: usize,
        image: Image,
    },
}

/// The files as they were at some moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    pub(crate) names: BTreeMap<String, usize>,
    pub(crate) images: Vec<Image>,
}

impl Files {
    /// What the file of this name holds.
    pub(crate) fn image(&self, name: &str) -> Option<&Image> {
        self.names.get(name).map(|file| &self.images[*file])
    }

    /// Adds a file.
    pub(crate) fn put(&mut self, name: &str, image: Image) {
        self.names.insert(name.to_owned(), self.images.len());
        self.images.push(image);
    }
}

#[derive(Debug, Default)]
struct Inner {
    live: Files,
    events: Vec<Event>,
    locked: BTreeSet<usize>,
    /// Nobody but this thread may change a file.
    held_for: Option<ThreadId>,
    /// Somebody stands there and waits to change a file.
    somebody_waits: bool,
    now: i64,
    /// Answers so far, for their order.
    answers: usize,
    /// There is no disk any more.
    gone: bool,
}

/// A site in memory. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Medium {
    inner: Arc<(Mutex<Inner>, Condvar)>,
    folder: Arc<Path>,
    start: Arc<Files>,
}

/// When the clock of every medium begins.
const BEGIN: i64 = 1_767_225_600;

/// The longest a store may need for anything; beyond it, it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

impl Medium {
    /// A site with these files, durable as they are. What a store puts into temporary files goes to
    /// `folder`.
    pub(crate) fn new(start: Files, folder: &Path) -> Self {
        let inner = Inner { live: start.clone(), now: BEGIN, ..Inner::default() };
        Self { inner: Arc::new((Mutex::new(inner), Condvar::new())), folder: folder.into(), start: Arc::new(start) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This moment: how many events came before it.
    pub(crate) fn position(&self) -> usize {
        self.inner().events.len()
    }

    /// This moment, for an answer, and how many answers came before it.
    pub(crate) fn answered(&self) -> (usize, usize) {
        let mut inner = self.inner();
        inner.answers += 1;
        (inner.events.len(), inner.answers)
    }

    /// Wakes whoever waits for somebody.
    pub(crate) fn nudge(&self) {
        drop(self.inner());
        self.inner.1.notify_all();
    }

    /// Lets time pass.
    pub(crate) fn tick(&self, seconds: i64) {
        self.inner().now += seconds;
    }

    /// From now on only this thread may change files; others wait.
    pub(crate) fn hold(&self) {
        let mut inner = self.inner();
        inner.held_for = Some(thread::current().id());
        inner.somebody_waits = false;
    }

    /// Waits until another thread stands at the medium or `other` came true.
    pub(crate) fn wait_for_somebody(&self, other: &dyn Fn() -> bool) {
        let mut inner = self.inner();
        while !inner.somebody_waits && !other() {
            let waited = self.inner.1.wait_timeout(inner, PATIENCE).unwrap_or_else(PoisonError::into_inner);
            assert!(!waited.1.timed_out(), "the writer does nothing");
            inner = waited.0;
        }
    }

    /// Lets everybody go on.
    pub(crate) fn release(&self) {
        self.inner().held_for = None;
        self.inner.1.notify_all();
    }

    /// From now on every change fails.
    pub(crate) fn take_away(&self) {
        self.inner().gone = true;
    }

    /// Takes the log away: where it began and what happened since.
    pub(crate) fn take_log(&self) -> (Arc<Files>, Vec<Event>) {
        (self.start.clone(), std::mem::take(&mut self.inner().events))
    }

    /// The files as a reader sees them now.
    pub(crate) fn files(&self) -> Files {
        self.inner().live.clone()
    }

    /// A change of a file or of a name, once this thread may.
    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        let me = thread::current().id();
        let mut inner = self.inner();
        while inner.held_for.is_some_and(|thread| thread != me) {
            inner.somebody_waits = true;
            self.inner.1.notify_all();
            inner = self.inner.1.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        if inner.gone {
            return Err(io::Error::other("the disk was taken away"));
        }
        change(&mut inner)
    }

    fn disk(&self, file: usize) -> Arc<dyn Disk> {
        Arc::new(MediumDisk { medium: self.clone(), file })
    }
}

impl Site for Medium {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>> {
        let file = self.inner().live.names.get(name).copied();
        Ok(file.map(|file| self.disk(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        let file = self.change(|inner| {
            if inner.live.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let file = inner.live.images.len();
            inner.live.put(name, Image::default());
            inner.events.push(Event::Created { name: name.to_owned(), file });
            Ok(file)
        })?;
        Ok(self.disk(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|inner| {
            let file = inner.live.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            inner.live.names.insert(to.to_owned(), file);
            inner.events.push(Event::Renamed { from: from.to_owned(), to: to.to_owned() });
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|inner| {
            if inner.live.names.remove(name).is_some() {
                inner.events.push(Event::Removed { name: name.to_owned() });
            }
            Ok(())
        })
    }

    fn room(&self) -> io::Result<Room> {
        Ok(Room { free: 1 << 40, total: 1 << 40 })
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.inner().now)
    }

    fn path(&self) -> &Path {
        &self.folder
    }
}

/// A file of the medium.
#[derive(Debug)]
struct MediumDisk {
    medium: Medium,
    file: usize,
}

/// An offset as an index.
fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

impl Disk for MediumDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.medium.inner().live.images[self.file].len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = index(len)?;
        self.medium.change(|inner| {
            inner.live.images[self.file].set_len(len);
            inner.events.push(Event::Length { file: self.file, len });
            Ok(())
        })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.medium.inner().live.images[self.file].read(index(offset)?, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = index(offset)?;
        self.medium.change(|inner| {
            inner.live.images[self.file].write(offset, bytes);
            inner.events.push(Event::Wrote { file: self.file, offset, bytes: bytes.into() });
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.medium.change(|inner| {
            let image = inner.live.images[self.file].clone();
            inner.events.push(Event::Synced { file: self.file, image });
            Ok(())
        })
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(self.medium.inner().locked.insert(self.file))
    }

    fn unlock(&self) -> io::Result<()> {
        self.medium.inner().locked.remove(&self.file);
        Ok(())
    }
}

/// A folder for temporary files: memory where there is such a place, so that the laboratory wears
/// out nobody's disk.
pub(crate) fn scratch() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}
