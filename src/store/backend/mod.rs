//! redb over a [`Disk`], with its first block kept twice.
//!
//! redb rewrites its header in place, and a card that garbles that one block in a power cut would
//! take the whole file with it. So the [`Guard`] keeps redb's block 0 in memory and writes it into
//! two blocks of the file in turn, never into the one that the last successful sync made durable.
//! It also remembers that copy: after a failed sync the cache of the system may show things that
//! are not on the disk, so the store goes back to what is known to be there.
//!
//! redb's own lock is not used: [`Disk::try_lock`] is taken once when the store opens and is held
//! over a reopening after a failed disk, when redb's handle is closed and made anew.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::disk::Disk;

mod header; // one copy of the first block
mod plain; //  files that have only one
#[cfg(test)]
mod tests;

use header::{BLOCK, BLOCK_LEN, Header, damaged};

/// The index file below redb: its first block twice, everything else once.
///
/// The copies are at 0 and at 4096. What redb calls its bytes 4096..8192 is at `moved`, what it
/// has from there on is a block further; a new file has `moved` = 8192, so everything is simply a
/// block further.
#[derive(Debug)]
pub(super) struct Guard {
    disk: Arc<dyn Disk>,
    moved: u64,
    /// Length in bytes as redb has it.
    len: AtomicU64,
    kept: Mutex<Kept>,
}

/// The first block.
#[derive(Debug)]
struct Kept {
    /// As redb wrote it last.
    latest: Header,
    /// As the last successful sync made it durable.
    durable: Header,
    /// Where in the file that is. Until the next sync every copy goes to the other place.
    place: u64,
    /// The highest generation that was ever written.
    generation: u64,
    /// What the next copy will say.
    complete: bool,
    state: State,
    /// The other place holds an older copy than the durable one.
    unmirrored: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The latest is durable.
    Settled,
    /// The latest waits for a sync.
    Written,
    /// A write of a copy, or a sync, failed: nobody knows what is in the other place.
    Failed,
}

impl Kept {
    /// Where the next copy goes.
    fn spare(&self) -> u64 {
        BLOCK - self.place
    }
}

impl Guard {
    /// Reads the first block of an index; makes it in a new file, and in a plain one of schema 1.
    ///
    /// # Errors
    /// As the disk gives them; `InvalidData` when the file is no index or both copies are damaged.
    pub(super) fn open(disk: Arc<dyn Disk>) -> io::Result<Self> {
        // A process that was killed may have left copies that are still on their way to the disk.
        disk.sync()?;
        let len = disk.len()?;
        let mut newest: Option<(u64, Header)> = None;
        let mut first = [0; BLOCK_LEN];
        for place in [BLOCK, 0] {
            if len >= place + BLOCK {
                disk.read_at(place, &mut first)?;
                let found = Header::parse(&first)?.map(|header| (place, header));
                newest = newest.into_iter().chain(found).max_by_key(|(_, header)| header.generation);
            }
        }
        let (place, durable) = match newest {
            Some(found) => found,
            None if plain::is_plain(&first) && len >= 2 * BLOCK => (BLOCK, plain::adopt(&*disk, &first)?),
            // A file this short was never more than begun.
            None if len <= 2 * BLOCK => (0, begin(&*disk)?),
            None => return Err(damaged("both copies of the first block of the index are damaged")),
        };
        let kept = Kept {
            latest: durable,
            durable,
            place,
            generation: durable.generation,
            complete: durable.complete,
            state: State::Settled,
            unmirrored: false,
        };
        let guard = Self { disk, moved: durable.moved, len: AtomicU64::new(0), kept: Mutex::new(kept) };
        guard.measure(&durable)?;
        Ok(guard)
    }

    /// The same index on another disk, such as one in memory above this one's: as the last successful
    /// sync left it.
    pub(super) fn above(&self, disk: Arc<dyn Disk>) -> Self {
        let kept = self.kept();
        let above = Kept {
            latest: kept.durable,
            durable: kept.durable,
            place: kept.place,
            generation: kept.generation,
            complete: kept.durable.complete,
            state: State::Settled,
            unmirrored: false,
        };
        Self { disk, moved: self.moved, len: AtomicU64::new(0), kept: Mutex::new(above) }
    }

    /// Before redb opens the file, again: back to the first block as the last successful sync left
    /// it. If a sync or a write has failed since, it is written over whatever is in the other
    /// place, so that what failed never comes back once redb writes on.
    pub(super) fn go_back(&self) -> io::Result<()> {
        let mut kept = self.kept();
        if kept.state != State::Settled {
            let durable = kept.durable;
            kept.state = State::Settled;
            self.put(&mut kept, &durable)?;
            self.settle(&mut kept)?;
        }
        kept.latest = kept.durable;
        self.measure(&kept.durable)
    }

    /// Tells whether there is no database in the file yet.
    pub(super) fn is_blank(&self) -> bool {
        self.kept().durable.is_blank()
    }

    /// Tells whether the index alone holds everything that was acknowledged.
    pub(super) fn is_complete(&self) -> bool {
        self.kept().complete
    }

    /// Has the next copy say whether the index alone holds everything that was acknowledged.
    pub(super) fn set_complete(&self, complete: bool) {
        self.kept().complete = complete;
    }

    /// As [`Guard::set_complete`], durable on return.
    pub(super) fn make_complete(&self, complete: bool) -> io::Result<()> {
        let mut kept = self.kept();
        kept.complete = complete;
        let latest = kept.latest;
        self.put(&mut kept, &latest)?;
        self.settle(&mut kept)
    }

    /// Writes the durable copy into the other place as well, where an older one is, so that neither
    /// is needed any more than the other when a bit flips. It becomes durable with time or the next
    /// sync. If the write fails, the next copy meets the same place and tells.
    pub(super) fn mirror(&self) {
        let mut kept = self.kept();
        if kept.state == State::Settled && kept.unmirrored {
            kept.unmirrored = self.disk.write_at(kept.spare(), &kept.durable.block()).is_err();
        }
    }

    /// Reads both copies again, between two commits: the durable one must be as it was written, and
    /// the other one a whole copy too. Tells whether they are.
    pub(super) fn reread(&self) -> io::Result<bool> {
        let kept = self.kept();
        let mut block = [0; BLOCK_LEN];
        self.disk.read_at(kept.place, &mut block)?;
        let durable = block == kept.durable.block();
        self.disk.read_at(kept.spare(), &mut block)?;
        Ok(durable && Header::parse(&block)?.is_some())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a copy.
    fn put(&self, kept: &mut Kept, header: &Header) -> io::Result<()> {
        if kept.state == State::Failed {
            return Err(io::Error::other("the index failed before"));
        }
        kept.state = State::Failed;
        kept.generation += 1;
        let next = Header { generation: kept.generation, complete: kept.complete, ..*header };
        self.disk.write_at(kept.spare(), &next.block())?;
        kept.latest = next;
        kept.state = State::Written;
        Ok(())
    }

    /// Syncs: the latest copy is the durable one then.
    fn settle(&self, kept: &mut Kept) -> io::Result<()> {
        // A sync after a failed one may well succeed, because the system has given up what failed.
        if kept.state == State::Failed {
            return Err(io::Error::other("the index failed before"));
        }
        self.disk.sync().inspect_err(|_| kept.state = State::Failed)?;
        if kept.state == State::Written {
            kept.place = kept.spare();
            kept.durable = kept.latest;
            kept.unmirrored = true;
            kept.state = State::Settled;
        }
        Ok(())
    }

    /// Finds out how long the file is for redb. Where redb has cut it to less than where its second
    /// block was moved to, it finds it longer than it left it, and takes the rest for free pages.
    fn measure(&self, header: &Header) -> io::Result<()> {
        let len = if header.is_blank() {
            // Whatever redb began here is begun anew.
            if self.disk.len()? > 2 * BLOCK {
                self.disk.set_len(2 * BLOCK)?;
            }
            0
        } else {
            let len = self.disk.len()? / BLOCK * BLOCK;
            if len < header.moved + BLOCK {
                return Err(damaged("the index was cut short"));
            }
            len - BLOCK
        };
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    /// Where in the file a byte of redb's is, and how many bytes from there are in one piece. Not
    /// for the first block.
    fn place(&self, offset: u64) -> (u64, u64) {
        match offset {
            ..BLOCK => (offset, BLOCK - offset),
            _ if offset < 2 * BLOCK => (offset - BLOCK + self.moved, 2 * BLOCK - offset),
            _ if offset < self.moved => (offset, self.moved - offset),
            _ => (offset + BLOCK, u64::MAX),
        }
    }
}

/// Writes the first block of a new file, both copies.
fn begin(disk: &dyn Disk) -> io::Result<Header> {
    let header = Header::blank();
    disk.write_at(0, &header.block())?;
    disk.write_at(BLOCK, &header.block())?;
    disk.sync()?;
    Ok(header)
}

/// How much of `len` bytes is in a piece of `piece` bytes.
fn within(len: usize, piece: u64) -> usize {
    usize::try_from(piece).map_or(len, |piece| len.min(piece))
}

/// The index file as redb sees it.
#[derive(Debug)]
pub(super) struct IndexBackend(pub(super) Arc<Guard>);

impl StorageBackend for IndexBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len.load(Ordering::Acquire))
    }

    fn read(&self, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        while !out.is_empty() {
            let (place, piece) = self.0.place(offset);
            let (part, rest) = out.split_at_mut(within(out.len(), piece));
            if offset < BLOCK {
                let start = within(BLOCK_LEN, offset);
                let block = self.0.kept().latest.redb;
                let known = block.get(start..).unwrap_or_default().iter().chain(std::iter::repeat(&0));
                part.iter_mut().zip(known).for_each(|(byte, known)| *byte = *known);
            } else {
                self.0.disk.read_at(place, part)?;
            }
            offset += part.len() as u64;
            out = rest;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // Below `moved` nothing can be given back: redb's second block is there.
        self.0.disk.set_len(len.max(self.0.moved) + BLOCK)?;
        self.0.len.store(len, Ordering::Release);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut kept = self.0.kept();
        self.0.settle(&mut kept)
    }

    fn write(&self, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let (place, piece) = self.0.place(offset);
            let (part, rest) = data.split_at(within(data.len(), piece));
            if offset < BLOCK {
                let mut kept = self.0.kept();
                let mut next = kept.latest;
                let start = within(BLOCK_LEN, offset);
                let room = next.redb.get_mut(start..start + part.len());
                room.ok_or_else(|| damaged("redb needs more of its first block than it has"))?.copy_from_slice(part);
                self.0.put(&mut kept, &next)?;
            } else {
                self.0.disk.write_at(place, part)?;
            }
            offset += part.len() as u64;
            data = rest;
        }
        Ok(())
    }

    /// Both copies are the same in a file that was closed.
    fn close(&self) -> io::Result<()> {
        let mut kept = self.0.kept();
        if kept.state != State::Settled || !kept.unmirrored {
            return Ok(());
        }
        self.0.disk.write_at(kept.spare(), &kept.durable.block())?;
        kept.unmirrored = false;
        self.0.settle(&mut kept)
    }
}
