//! Attachment scanning: signatures of malware, matched against what is unpacked from a message.
//!
//! [`signature`] reads the lines of ClamAV's formats and our own; [`set`] is the compiled form of
//! many of them, one read-only file of which little is in memory; [`engine`] matches one object
//! against it in one pass; [`unpack`] takes objects apart, with limits. Nothing here opens a file:
//! an object and a set are read through [`ReadAt`], what is unpacked is kept by a
//! [`unpack::Workshop`].

use std::io;

pub mod engine; //    one object against one set
pub mod set; //       the compiled set: layout, encoding, look-ups
pub mod signature; // lines of signature files
pub mod unpack; //    what is in an object, with limits

/// Bytes that can be read anywhere.
pub trait ReadAt {
    /// How many there are.
    fn size(&self) -> u64;

    /// Reads bytes at `offset` into `buffer`; fewer than it holds only at the end.
    ///
    /// # Errors
    /// Those of the medium.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(into), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            into.copy_from_slice(from);
        }
        Ok(count)
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.as_slice().read_at(offset, buffer)
    }
}

/// A stretch of something else.
#[derive(Clone, Copy)]
pub struct Stretch<'o> {
    whole: &'o dyn ReadAt,
    offset: u64,
    size: u64,
}

impl std::fmt::Debug for Stretch<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Stretch({}+{})", self.offset, self.size)
    }
}

impl<'o> Stretch<'o> {
    /// `size` bytes of `whole` from `offset`, or as many as there are.
    pub fn new(whole: &'o dyn ReadAt, offset: u64, size: u64) -> Self {
        let offset = offset.min(whole.size());
        Self { whole, offset, size: size.min(whole.size() - offset) }
    }
}

impl ReadAt for Stretch<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        self.whole.read_at(self.offset + offset.min(self.size), buffer.get_mut(..count).unwrap_or_default())
    }
}

/// Reads what is at `offset`, `count` bytes or fewer at the end.
///
/// # Errors
/// Those of the medium.
pub fn read_vec(from: &dyn ReadAt, offset: u64, count: usize) -> io::Result<Vec<u8>> {
    let left = usize::try_from(from.size().saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; count.min(left)];
    let read = from.read_at(offset, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Reads one thing from its start to its end.
#[derive(Clone, Copy)]
pub struct Cursor<'o> {
    from: &'o dyn ReadAt,
    /// Where the next byte is.
    pub offset: u64,
}

impl std::fmt::Debug for Cursor<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Cursor({})", self.offset)
    }
}

impl<'o> Cursor<'o> {
    /// Begins at `offset`.
    pub fn new(from: &'o dyn ReadAt, offset: u64) -> Self {
        Self { from, offset }
    }
}

impl io::Read for Cursor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read_at(self.offset, buffer)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// What an object is, as far as signatures ask for it (ClamAV's target types).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum Target {
    /// Anything.
    #[default]
    Any = 0,
    /// A Windows executable.
    Pe = 1,
    /// A compound file: old Office documents, msi.
    Ole = 2,
    /// HTML.
    Html = 3,
    /// A message.
    Mail = 4,
    /// A picture.
    Graphics = 5,
    /// A Unix executable.
    Elf = 6,
    /// Text.
    Text = 7,
    /// A macOS executable.
    MachO = 9,
    /// PDF.
    Pdf = 10,
    /// Flash.
    Flash = 11,
    /// Java bytecode.
    Java = 12,
}

impl Target {
    /// ClamAV's number for it.
    pub fn from_number(number: u8) -> Option<Self> {
        const ALL: [Target; 12] = [
            Target::Any,
            Target::Pe,
            Target::Ole,
            Target::Html,
            Target::Mail,
            Target::Graphics,
            Target::Elf,
            Target::Text,
            Target::MachO,
            Target::Pdf,
            Target::Flash,
            Target::Java,
        ];
        ALL.into_iter().find(|target| *target as u8 == number)
    }
}
