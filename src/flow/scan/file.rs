//! A file that can be read anywhere.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::filter::scan::ReadAt;
use crate::filter::scan::set::{HEADER_BYTES, Header, Set, SetError};

/// An open file of a size that was looked at once: what is added to it later is not seen.
#[derive(Debug)]
pub struct SeenFile {
    file: File,
    size: u64,
}

impl SeenFile {
    /// Takes an open file.
    ///
    /// # Errors
    /// The file system's.
    pub fn new(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file, size })
    }
}

impl SeenFile {
    /// Reads from a file of which `size` bytes count.
    pub(super) fn read(file: &File, size: u64, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let mut read = 0;
        while let Some(rest) = buffer.get_mut(read..wanted).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }
}

impl ReadAt for SeenFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Self::read(&self.file, self.size, offset, buffer)
    }
}

/// What the compiled set at `path` is known by ([`Header::mark`]), without opening it.
///
/// # Errors
/// Those of the file system; [`io::ErrorKind::UnexpectedEof`] for what is too short to be one.
pub fn mark_of(path: &Path) -> io::Result<u64> {
    let mut first_block = vec![0; HEADER_BYTES];
    File::open(path)?.read_exact_at(&mut first_block, 0)?;
    Ok(Header::mark(&first_block))
}

/// Opens a compiled set.
///
/// # Errors
/// Why it can't be used.
pub fn open_set(path: &Path) -> Result<Set, SetError> {
    open_set_within(path, u64::MAX)
}

/// Opens a compiled set of which `room` bytes may be in memory.
///
/// # Errors
/// Why it can't be used.
pub fn open_set_within(path: &Path, room: u64) -> Result<Set, SetError> {
    Set::open_within(Box::new(SeenFile::new(File::open(path)?)?), room)
}
