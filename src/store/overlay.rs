//! A file that can be read while nothing can be written: changes stay in memory, above it.
//!
//! A card that turned read-only, or a disk without a free block, still holds all mail. redb writes
//! even to open its file, and what the journal holds has to be applied before it can be seen; both
//! go into an overlay of bounded size, which is thrown away when the file can be opened for real.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::Disk;

/// Unit of the overlay in bytes: redb's page.
const BLOCK: u64 = 4096;
const BLOCK_LEN: usize = 4096;

/// Most blocks an overlay holds: 16 MiB, twice what a journal of the usual size can bring.
const BLOCKS_MAX: usize = 4096;

/// A disk whose changes are in memory.
#[derive(Debug)]
pub(super) struct Overlay {
    disk: Arc<dyn Disk>,
    above: Mutex<Above>,
}

#[derive(Debug)]
struct Above {
    len: u64,
    /// From here on the file below no longer counts.
    below: u64,
    blocks: BTreeMap<u64, Box<[u8; BLOCK_LEN]>>,
}

impl Overlay {
    /// Nothing above `disk` yet.
    pub(super) fn new(disk: Arc<dyn Disk>) -> io::Result<Self> {
        let len = disk.len()?;
        Ok(Self { disk, above: Mutex::new(Above { len, below: len, blocks: BTreeMap::new() }) })
    }

    fn above(&self) -> MutexGuard<'_, Above> {
        self.above.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from the file below; what is behind its end is zeros.
    fn read_below(&self, below: u64, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(below.saturating_sub(offset)).unwrap_or(buffer.len()).min(buffer.len());
        let (there, rest) = buffer.split_at_mut(there);
        rest.fill(0);
        if there.is_empty() { Ok(()) } else { self.disk.read_at(offset, there) }
    }
}

/// Cuts the range of `len` bytes from `offset` at the blocks' borders: (block, where in it, how much).
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = usize::try_from(at % BLOCK).unwrap_or(0);
        let part = (BLOCK_LEN - within).min(len - done);
        done += part;
        (part > 0).then_some((at / BLOCK, within, part))
    })
}

impl Disk for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.above().len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut above = self.above();
        above.len = len;
        above.below = above.below.min(len);
        let gone = above.blocks.split_off(&len.div_ceil(BLOCK));
        drop(gone);
        if let Some(block) = above.blocks.get_mut(&(len / BLOCK)) {
            let end = usize::try_from(len % BLOCK).unwrap_or(0);
            block.get_mut(end..).unwrap_or_default().fill(0);
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let above = self.above();
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > above.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = buffer;
        for (number, within, len) in parts(offset, rest.len()) {
            let (part, after) = rest.split_at_mut(len);
            match above.blocks.get(&number).and_then(|block| block.get(within..within + len)) {
                Some(found) => part.copy_from_slice(found),
                None => self.read_below(above.below, number * BLOCK + within as u64, part)?,
            }
            rest = after;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut above = self.above();
        let mut rest = bytes;
        for (number, within, len) in parts(offset, bytes.len()) {
            let (part, after) = rest.split_at(len);
            if !above.blocks.contains_key(&number) {
                if above.blocks.len() >= BLOCKS_MAX {
                    return Err(io::Error::other("there is more in the journal than can be held in memory"));
                }
                let mut block = Box::new([0; BLOCK_LEN]);
                self.read_below(above.below, number * BLOCK, block.as_mut_slice())?;
                above.blocks.insert(number, block);
            }
            if let Some(target) = above.blocks.get_mut(&number).and_then(|block| block.get_mut(within..within + len)) {
                target.copy_from_slice(part);
            }
            rest = after;
        }
        above.len = above.len.max(offset.saturating_add(bytes.len() as u64));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::MemoryDisk;
    use super::*;

    #[test]
    fn an_overlay_reads_like_a_disk_and_leaves_the_one_below_alone() {
        let below = MemoryDisk::holding((0..10_000_u32).map(|at| at as u8).collect());
        let overlay = Overlay::new(Arc::new(below.clone())).unwrap();
        let model = below.fork();
        let same = |offset, len| {
            let (mut one, mut two) = (vec![1; len], vec![2; len]);
            let found = [model.read_at(offset, &mut one), overlay.read_at(offset, &mut two)];
            assert_eq!(found[0].is_ok(), found[1].is_ok(), "{offset} {len}");
            assert!(found[0].is_err() || one == two, "{offset} {len}");
        };
        let disks: [&dyn Disk; 2] = [&model, &overlay];
        for (offset, len) in [(0, 100), (4000, 200), (4096, 4096), (9990, 50), (20_000, 10)] {
            disks.iter().for_each(|disk| disk.write_at(offset, &vec![7; len]).unwrap());
            assert_eq!(model.len().unwrap(), overlay.len().unwrap());
            for (offset, len) in [(0, 10), (50, 9000), (4090, 20), (9000, 1040), (19_990, 20)] {
                same(offset, len);
            }
        }
        for len in [15_000, 4100, 30_000, 8192, 12_288] {
            disks.iter().for_each(|disk| disk.set_len(len).unwrap());
            for (offset, len) in [(0, 4096), (4000, 4192), (4096, 5000), (11_000, 1288), (29_000, 1000)] {
                same(offset, len);
            }
        }
        assert!(below.bytes().iter().enumerate().all(|(at, byte)| *byte == at as u8));
        assert!(overlay.write_at(0, &vec![1; BLOCKS_MAX * BLOCK_LEN + 1]).is_err());
    }
}
