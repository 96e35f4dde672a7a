//! A medium that goes wrong: it fills, fails, turns read-only, and its clock jumps.
//!
//! Files take blocks when they are written, as in a file system with holes. Every change (write,
//! cut, sync, a file's coming and going) counts as one operation, so a test can let a fault begin
//! at each of them in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::mail::date::Timestamp;
use crate::store::disk::Disk;
use crate::store::site::{MemorySite, Room, Site};

/// Bytes the medium gives at a time.
const BLOCK: u64 = 4096;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Others take all the room that is left.
    Fill,
    /// The same, and whatever comes free later, before we can use it.
    FillOn,
    /// One operation fails.
    ErrorOnce,
    /// Every operation fails until the medium is healed.
    Error,
    /// The same, and reads too.
    Gone,
    /// Nothing can be changed until the medium is healed.
    ReadOnly,
}

#[derive(Debug, Default)]
struct State {
    /// Operations so far, and reads.
    operations: u64,
    reads: u64,
    /// What begins at which operation, or at which read.
    at: Option<(u64, Fault)>,
    read_at: Option<u64>,
    /// What is wrong now.
    now: Option<Fault>,
    /// Blocks there are, and what others hold of them.
    capacity: u64,
    others: u64,
    /// Others take everything that is free.
    greedy: bool,
    blocks: BTreeMap<String, BTreeSet<u64>>,
    clock: Option<i64>,
}

impl State {
    fn used(&self) -> u64 {
        self.blocks.values().map(|blocks| blocks.len() as u64).sum()
    }

    fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.used() + self.others)
    }

    /// Counts an operation; the error it meets.
    fn operate(&mut self) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        let begins = self.at.filter(|(at, _)| *at == number).map(|(_, fault)| fault);
        match begins {
            Some(Fault::Fill) => self.others += self.free(),
            Some(Fault::FillOn) => self.greedy = true,
            Some(Fault::ErrorOnce) => return Err(io::Error::other("the write failed")),
            Some(fault) => self.now = Some(fault),
            None => {}
        }
        if self.greedy {
            self.others += self.free();
        }
        match self.now {
            Some(Fault::ReadOnly) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Some(_) => Err(io::Error::other("the disk is gone")),
            None => Ok(()),
        }
    }
}

/// A site on the medium. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Medium {
    site: MemorySite,
    state: Arc<Mutex<State>>,
}

impl Medium {
    /// A medium of `capacity` bytes with the files of `site` on it.
    pub(super) fn new(site: MemorySite, capacity: u64) -> Self {
        let state = State { capacity: capacity / BLOCK, ..State::default() };
        let medium = Self { site, state: Arc::new(Mutex::new(state)) };
        for name in ["mail.redb", "mail.journal"] {
            let bytes = medium.site.disk(name).bytes();
            // What is zeros in the index was never written; the journal's zeros were.
            let blocks = bytes.chunks(BLOCK as usize).enumerate();
            let there = blocks.filter(|(_, block)| name == "mail.journal" || block.iter().any(|byte| *byte != 0));
            let there = there.map(|(number, _)| number as u64).collect();
            medium.state().blocks.insert(name.to_owned(), there);
        }
        medium
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Lets `fault` begin at the operation that comes after `operations` more.
    pub(super) fn fail_after(&self, operations: u64, fault: Fault) {
        let mut state = self.state();
        state.at = Some((state.operations + operations, fault));
    }

    /// Lets the read fail that comes after `reads` more, and no other.
    pub(super) fn fail_read_after(&self, reads: u64) {
        let mut state = self.state();
        state.read_at = Some(state.reads + reads);
    }

    /// Everything works again, and others give back what they took.
    pub(super) fn heal(&self) {
        let mut state = self.state();
        (state.at, state.read_at, state.now) = (None, None, None);
        (state.others, state.greedy) = (0, false);
    }

    /// Operations and reads so far.
    pub(super) fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.operations, state.reads)
    }

    /// Tells whether a fault has begun, or is over.
    pub(super) fn has_failed(&self) -> bool {
        let state = self.state();
        state.at.is_some_and(|(at, _)| state.operations > at) || state.read_at.is_some_and(|at| state.reads > at)
    }

    /// Sets the clock.
    pub(super) fn set_clock(&self, seconds: i64) {
        self.state().clock = Some(seconds);
    }

    /// The files as they are.
    pub(super) fn site(&self) -> &MemorySite {
        &self.site
    }

    fn file(&self, name: &str, disk: Arc<dyn Disk>) -> Arc<dyn Disk> {
        Arc::new(Medial { name: name.to_owned(), disk, medium: self.clone() })
    }
}

impl Site for Medium {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>> {
        Ok(self.site.open(name)?.map(|disk| self.file(name, disk)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        self.state().operate()?;
        self.site.create(name).map(|disk| self.file(name, disk))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        let blocks = state.blocks.remove(from).unwrap_or_default();
        state.blocks.insert(to.to_owned(), blocks);
        self.site.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.blocks.remove(name);
        self.site.remove(name)
    }

    fn room(&self) -> io::Result<Room> {
        let state = self.state();
        Ok(Room { free: state.free() * BLOCK, total: state.capacity * BLOCK })
    }

    fn now(&self) -> Timestamp {
        let clock = self.state().clock;
        clock.map_or_else(|| self.site.now(), Timestamp)
    }

    fn path(&self) -> &Path {
        self.site.path()
    }
}

/// A file on the medium.
#[derive(Debug)]
struct Medial {
    name: String,
    disk: Arc<dyn Disk>,
    medium: Medium,
}

impl Disk for Medial {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.medium.state();
        state.operate()?;
        state.blocks.entry(self.name.clone()).or_default().split_off(&len.div_ceil(BLOCK));
        self.disk.set_len(len)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.medium.state();
        let number = state.reads;
        state.reads += 1;
        if state.now == Some(Fault::Gone) || state.read_at == Some(number) {
            return Err(io::Error::other("the read failed"));
        }
        drop(state);
        self.disk.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.medium.state();
        state.operate()?;
        let mut fits = bytes.len();
        for block in offset / BLOCK..(offset + bytes.len() as u64).div_ceil(BLOCK) {
            let room = state.free() > 0;
            let blocks = state.blocks.entry(self.name.clone()).or_default();
            if !blocks.contains(&block) {
                if !room {
                    fits = usize::try_from((block * BLOCK).saturating_sub(offset)).unwrap();
                    break;
                }
                blocks.insert(block);
            }
        }
        drop(state);
        // What had space is written, as by write(2).
        self.disk.write_at(offset, &bytes[..fits])?;
        if fits == bytes.len() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn sync(&self) -> io::Result<()> {
        self.medium.state().operate()?;
        self.disk.sync()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.disk.try_lock()
    }

    fn unlock(&self) -> io::Result<()> {
        self.disk.unlock()
    }

    fn allocated(&self) -> io::Result<u64> {
        let blocks = self.medium.state().blocks.get(&self.name).map_or(0, BTreeSet::len);
        Ok(blocks as u64 * BLOCK)
    }
}
