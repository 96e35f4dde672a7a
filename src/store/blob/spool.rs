//! A body on its way in: compressed as it comes, in memory or in an unlinked file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::block::{BLOCK_MAX, Window, pack};
use super::piece::{TakePiece, cut_from};
use super::{BlobRecord, Hasher};
use crate::mail::message::BlobId;
use crate::mail::scanned::Scanned;
use crate::store::{ReadError, WriteError};

/// Most bytes of a compressed stream that are held in memory; what is larger goes to a temporary
/// file. A message from the network is in memory for its sender's time, so this is for each session.
pub const SPOOL_MEMORY_MAX: usize = 192 << 10;

/// A body on its way in: compressed in 64 KiB blocks as it comes, in memory up to
/// [`SPOOL_MEMORY_MAX`] and in an unlinked temporary file beyond it.
#[derive(Debug)]
pub struct Spool {
    folder: Arc<Path>,
    /// What is not compressed yet: less than a block. Grows with the body, so that a small one
    /// costs little.
    raw: Vec<u8>,
    place: Place,
    size: u64,
    stored: u64,
    blocks: Vec<u32>,
    hasher: Hasher,
}

/// A finished [`Spool`].
#[derive(Debug)]
pub struct Spooled {
    place: Place,
    record: BlobRecord,
    /// What the scan leaves behind.
    scanned: Option<Box<Scanned>>,
}

/// Where the compressed stream is.
#[derive(Debug)]
enum Place {
    Memory(Vec<u8>),
    File(File),
}

impl Spool {
    /// Begins a body that spills into an unlinked temporary file in `folder`.
    pub fn new(folder: Arc<Path>) -> Self {
        let (place, hasher) = (Place::Memory(Vec::new()), Hasher::default());
        Self { folder, raw: Vec::new(), place, size: 0, stored: 0, blocks: Vec::new(), hasher }
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`WriteError::DiskFull`] or [`WriteError::Storage`] when the temporary file cannot be
    /// written; the spool is of no use afterwards.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.hasher.write(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.raw.is_empty()
                && let Some((block, left)) = rest.split_at_checked(BLOCK_MAX)
            {
                self.put(block).map_err(|error| write_error(&error))?;
                rest = left;
                continue;
            }
            let (part, left) = rest.split_at_checked(BLOCK_MAX - self.raw.len()).unwrap_or((rest, &[]));
            self.reserve(part.len());
            self.raw.extend_from_slice(part);
            rest = left;
            if self.raw.len() == BLOCK_MAX {
                self.put_raw()?;
            }
        }
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.size
    }

    /// Tells whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells whether the body has left memory for a temporary file, so that writing may block.
    pub fn is_on_disk(&self) -> bool {
        matches!(self.place, Place::File(_))
    }

    /// Heap the spool holds at this moment, in bytes.
    pub fn memory(&self) -> usize {
        let stream = if let Place::Memory(stream) = &self.place { stream.capacity() } else { 0 };
        self.raw.capacity() + stream + self.blocks.capacity() * size_of::<u32>()
    }

    /// Leaves memory for a temporary file, but for the last block.
    ///
    /// # Errors
    /// As [`Spool::write`].
    pub fn spill(&mut self) -> Result<(), WriteError> {
        let spill = |stream: &[u8]| {
            let mut file = temporary(&self.folder)?;
            file.write_all(stream)?;
            Ok(file)
        };
        if let Place::Memory(stream) = &self.place {
            self.place = Place::File(spill(stream).map_err(|error: io::Error| write_error(&error))?);
        }
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    /// As [`Spool::write`].
    pub fn finish(mut self) -> Result<Spooled, WriteError> {
        if !self.raw.is_empty() {
            self.put_raw()?;
        }
        self.blocks.shrink_to_fit();
        let hash = Some(self.hasher.finish());
        let record = BlobRecord { refs: 0, size: self.size, stored: self.stored, blocks: self.blocks, hash };
        Ok(Spooled { place: self.place, record, scanned: None })
    }

    /// Makes room in the block for `more` bytes, doubling but never beyond a block.
    fn reserve(&mut self, more: usize) {
        let needed = self.raw.len() + more;
        if needed > self.raw.capacity() {
            let room = needed.max(self.raw.capacity() * 2).min(BLOCK_MAX);
            self.raw.reserve_exact(room - self.raw.len());
        }
    }

    fn put_raw(&mut self) -> Result<(), WriteError> {
        let mut raw = std::mem::take(&mut self.raw);
        self.put(&raw).map_err(|error| write_error(&error))?;
        raw.clear();
        self.raw = raw;
        Ok(())
    }

    /// Compresses a block and adds it to the stream.
    fn put(&mut self, block: &[u8]) -> io::Result<()> {
        let length = pack(block, |packed| {
            if let Place::Memory(stream) = &mut self.place {
                if stream.len() + packed.len() <= SPOOL_MEMORY_MAX {
                    stream.reserve_exact(packed.len());
                    stream.extend_from_slice(packed);
                    return Ok(packed.len());
                }
                let mut file = temporary(&self.folder)?;
                file.write_all(stream)?;
                self.place = Place::File(file);
            }
            if let Place::File(file) = &mut self.place {
                file.write_all(packed)?;
            }
            Ok(packed.len())
        })?;
        self.stored += length as u64;
        self.blocks.push(u32::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?);
        Ok(())
    }
}

impl Spooled {
    /// Size of the body in bytes.
    pub fn size(&self) -> u64 {
        self.record.size
    }

    /// Size of the compressed stream in bytes.
    pub fn stored(&self) -> u64 {
        self.record.stored
    }

    /// The record to keep, with no references yet.
    pub fn record(&self) -> BlobRecord {
        self.record.clone()
    }

    /// Takes what the scan leaves behind, to be kept with the body.
    pub fn set_scanned(&mut self, scanned: Scanned) {
        self.scanned = Some(Box::new(scanned));
    }

    /// What the scan leaves behind, if the body was scanned.
    pub fn scanned(&self) -> Option<&Scanned> {
        self.scanned.as_deref()
    }

    /// The whole compressed stream where it is in memory: what goes into the journal.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match &self.place {
            Place::Memory(stream) => Some(stream),
            Place::File(_) => None,
        }
    }

    /// The whole compressed stream, wherever it is.
    ///
    /// # Errors
    /// [`WriteError::Storage`] when the temporary file cannot be read.
    pub fn whole(&self) -> Result<Vec<u8>, WriteError> {
        let mut bytes = Vec::new();
        let length = usize::try_from(self.record.stored).map_err(|_| WriteError::Limit("size of a message"))?;
        self.stream(0, length, &mut bytes).map_err(|error| write_error(&error))?;
        Ok(bytes)
    }

    /// Hands every piece, with its header for `blob`, to `take`, in order, starting at piece
    /// `first`; stops early when `take` says false. Memory: one piece.
    ///
    /// # Errors
    /// Those of `take`, and [`WriteError::Storage`] when the temporary file cannot be read.
    pub fn pieces(&self, blob: BlobId, first: u32, take: &mut TakePiece<'_>) -> Result<(), WriteError> {
        cut_from(blob, self.record.stored, first, take, |extent, piece| {
            self.stream(extent.offset, extent.length, piece).map_err(|error| write_error(&error))
        })
    }

    /// Opens the body for reading before it is committed (the scanner's view of it).
    pub fn reader(&self) -> SpooledReader<'_> {
        SpooledReader { spooled: self, window: Window::default() }
    }

    /// Adds `length` bytes of the compressed stream from `start` to `bytes`.
    fn stream(&self, start: u64, length: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        match &self.place {
            Place::Memory(stream) => {
                let start = usize::try_from(start).unwrap_or(usize::MAX);
                let wanted = stream.get(start..start.saturating_add(length));
                bytes.extend_from_slice(wanted.ok_or(io::ErrorKind::UnexpectedEof)?);
            }
            Place::File(file) => {
                let before = bytes.len();
                bytes.resize(before + length, 0);
                file.read_exact_at(bytes.get_mut(before..).unwrap_or_default(), start)?;
            }
        }
        Ok(())
    }
}

/// A [`Spooled`] body, open for reading; holds a block's memory.
#[derive(Debug)]
pub struct SpooledReader<'s> {
    spooled: &'s Spooled,
    window: Window,
}

impl SpooledReader<'_> {
    /// Bytes from `offset`: at most `max`, at most to the end of their 64 KiB block, none past the
    /// end. Keeps the block it decompressed last.
    ///
    /// # Errors
    /// [`ReadError::Storage`] when the temporary file cannot be read.
    pub fn read(&mut self, offset: u64, max: usize) -> Result<&[u8], ReadError> {
        let spooled = self.spooled;
        self.window.read(&spooled.record, offset, max, |start, length, packed| {
            let failed = |error| ReadError::Storage(format!("temporary file of a message: {error}"));
            spooled.stream(start, length, packed).map_err(failed)
        })
    }
}

fn write_error(error: &io::Error) -> WriteError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => WriteError::DiskFull,
        _ => WriteError::Storage(format!("temporary file of a message: {error}")),
    }
}

/// A file without a name: it is gone with its last user, whatever ends that.
///
/// # Errors
/// The file system's.
pub fn temporary(folder: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;

    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    match rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(File::from(file)),
        // Some file systems know no files without names, and old kernels take the flag for O_DIRECTORY.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => named_and_unlinked(folder),
        Err(error) => Err(error.into()),
    }
}

fn named_and_unlinked(folder: &Path) -> io::Result<File> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!(".spool-{}-{number}", std::process::id()));
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return std::fs::remove_file(&path).map(|()| file),
            // Left behind by a process that was killed between the two calls.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => std::fs::remove_file(&path)?,
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "noise is cut on purpose")]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn read_all(spooled: &Spooled) -> Vec<u8> {
        let (mut reader, mut bytes) = (spooled.reader(), Vec::new());
        loop {
            let part = reader.read(bytes.len() as u64, 50_000).unwrap();
            if part.is_empty() {
                return bytes;
            }
            bytes.extend_from_slice(part);
        }
    }

    #[test]
    fn a_large_body_leaves_memory_for_a_file_without_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(Arc::from(folder.path()));
        let raw = noise(5_000_000);
        for part in raw.chunks(4096) {
            spool.write(part).unwrap();
            assert!(spool.memory() <= SPOOL_MEMORY_MAX + BLOCK_MAX + 4096, "{}", spool.memory());
        }
        assert!(spool.is_on_disk());
        assert!(spool.memory() <= BLOCK_MAX + 4096);
        assert_eq!(spool.len(), 5_000_000);
        let spooled = spool.finish().unwrap();
        assert_eq!((spooled.size(), spooled.stored()), (5_000_000, 5_000_000));
        assert!(spooled.in_memory().is_none());
        assert!(read_all(&spooled) == raw);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_small_body_costs_little_memory() {
        let mut spool = Spool::new(Arc::from(Path::new("/nowhere")));
        assert_eq!(spool.memory(), 0);
        spool.write(&[b'x'; 2000]).unwrap();
        assert_eq!(spool.memory(), 2000);
        let spooled = spool.finish().unwrap();
        assert!(spooled.in_memory().unwrap().len() < 100);
        assert_eq!(read_all(&spooled), [b'x'; 2000]);
    }

    #[test]
    fn a_folder_that_is_gone_is_an_error_and_no_panic() {
        let mut spool = Spool::new(Arc::from(Path::new("/nowhere")));
        assert!(matches!(spool.write(&noise(SPOOL_MEMORY_MAX + 2 * BLOCK_MAX)), Err(WriteError::Storage(_))));
    }

    #[test]
    fn pieces_begin_anywhere_and_stop_when_told() {
        let mut spool = Spool::new(Arc::from(std::env::temp_dir()));
        spool.write(&noise(300_000)).unwrap();
        let spooled = spool.finish().unwrap();
        let from = |first, max| {
            let mut seen = Vec::new();
            spooled
                .pieces(BlobId(1), first, &mut |index, piece| {
                    seen.push((index, piece.to_vec()));
                    Ok(seen.len() < max)
                })
                .unwrap();
            seen
        };
        let all = from(0, usize::MAX);
        assert_eq!(all.len(), super::super::piece_count(spooled.stored()) as usize);
        assert_eq!(from(7, 3), all[7..10]);
        assert_eq!(from(7, usize::MAX), all[7..]);
        assert!(from(999, 1).is_empty());
        let refused = spooled.pieces(BlobId(1), 0, &mut |_, _| Err(WriteError::DiskFull));
        assert_eq!(refused, Err(WriteError::DiskFull));
    }

    #[test]
    fn where_files_need_names_the_name_is_taken_away_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = named_and_unlinked(folder.path()).unwrap();
        file.write_all(b"body").unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
