//! Bodies: the spool on the way in, compressed blocks, packed pieces (STORAGE section 2).
//!
//! A body is cut into blocks of 64 KiB, each compressed by itself, so that any range can be read
//! with one block's memory. The compressed stream is cut into pieces just below a power of two
//! (16,320 / 8,128 / 4,032 bytes and a rest), because redb gives every value a power-of-two page.
//! Each piece begins with a small header (magic, blob, index, length, checksum), so that mail can
//! be salvaged from a ruined file.

use std::fmt::Debug;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::{ReadError, WriteError};
use crate::mail::message::BlobId;

/// A body on its way in: compressed in 64 KiB blocks as it comes, in memory up to a bound and in
/// an unlinked temporary file beyond it.
#[derive(Debug)]
pub struct Spool {}

/// A finished [`Spool`].
#[derive(Debug)]
pub struct Spooled {}

/// A body, open for reading; holds no transaction and no memory but a block's.
#[derive(Debug)]
pub struct Body {}

/// What the store keeps of a body beside its pieces (the BLOB table's value).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BlobRecord {
    /// How many messages refer to it; at zero it is removed.
    pub refs: u32,
    /// Size of the body in bytes.
    pub size: u64,
    /// Size of the compressed stream in bytes.
    pub stored: u64,
    /// Length of each compressed block in bytes; a block as long as its raw data is kept raw.
    pub blocks: Vec<u32>,
}

/// Where pieces are read from: redb in the store, a map in tests.
pub trait PieceSource: Debug + Send {
    /// The record of `blob`, or `None` when there is no such body.
    fn record(&self, blob: BlobId) -> Result<Option<BlobRecord>, ReadError>;

    /// Hands piece `index` of `blob` (header included) to `take`.
    fn piece(&self, blob: BlobId, index: u32, take: &mut dyn FnMut(&[u8])) -> Result<(), ReadError>;
}

#[expect(clippy::todo, reason = "the facade comes first")]
#[allow(unused_variables)]
impl Spool {
    /// Begins a body that spills into an unlinked temporary file in `folder`.
    pub fn new(folder: Arc<Path>) -> Self {
        todo!()
    }
}

#[expect(clippy::todo, reason = "the facade comes first")]
#[allow(unused_variables)]
impl Spooled {
    /// Size of the body in bytes.
    pub fn size(&self) -> u64 {
        todo!()
    }

    /// Size of the compressed stream in bytes.
    pub fn stored(&self) -> u64 {
        todo!()
    }

    /// The record to keep, with no references yet.
    pub fn record(&self) -> BlobRecord {
        todo!()
    }

    /// The whole compressed stream where it is in memory: what goes into the journal.
    pub fn in_memory(&self) -> Option<&[u8]> {
        todo!()
    }

    /// Hands every piece, with its header for `blob`, to `take`, in order, starting at piece
    /// `first`; stops early when `take` says false. Memory: one piece.
    pub fn pieces(
        &self,
        blob: BlobId,
        first: u32,
        take: &mut dyn FnMut(u32, &[u8]) -> Result<bool, WriteError>,
    ) -> Result<(), WriteError> {
        todo!()
    }
}

/// Cuts a compressed stream that lies in memory into pieces, as [`Spooled::pieces`] does (replay).
#[expect(clippy::todo, reason = "the facade comes first")]
#[allow(unused_variables)]
pub fn cut(
    blob: BlobId,
    stored: &[u8],
    take: &mut dyn FnMut(u32, &[u8]) -> Result<bool, WriteError>,
) -> Result<(), WriteError> {
    let _: Option<File> = None;
    todo!()
}

/// How many pieces a compressed stream of `stored` bytes has.
#[expect(clippy::todo, reason = "the facade comes first")]
pub fn piece_count(stored: u64) -> u32 {
    let _ = stored;
    todo!()
}

#[expect(clippy::todo, reason = "the facade comes first")]
#[allow(unused_variables)]
impl Body {
    /// Opens `blob`.
    pub fn open(source: Box<dyn PieceSource>, blob: BlobId) -> Result<Self, ReadError> {
        todo!()
    }
}

#[expect(clippy::todo, reason = "the facade comes first")]
#[allow(unused_variables, clippy::missing_errors_doc)]
impl Spool {
    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        todo!()
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        todo!()
    }

    /// Tells whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells whether the body has left memory for a temporary file, so that writing may block.
    pub fn is_on_disk(&self) -> bool {
        todo!()
    }

    /// Ends the body.
    pub fn finish(self) -> Result<Spooled, WriteError> {
        todo!()
    }
}

#[expect(clippy::todo, reason = "the facade comes first")]
#[allow(unused_variables, clippy::missing_errors_doc)]
impl Body {
    /// Size in bytes.
    pub fn len(&self) -> u64 {
        todo!()
    }

    /// Tells whether the body is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes from `offset`: at most `max`, at most to the end of their 64 KiB block, none past the
    /// end. Keeps the block it decompressed last.
    pub fn read(&mut self, offset: u64, max: usize) -> Result<&[u8], ReadError> {
        todo!()
    }
}
