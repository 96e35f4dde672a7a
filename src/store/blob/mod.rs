//! Bodies: the spool on the way in, compressed blocks, packed pieces (STORAGE section 2).
//!
//! A body is cut into blocks of 64 KiB, each compressed by itself, so that any range can be read
//! with one block's memory. The compressed stream is cut into pieces just below a power of two
//! (16,320 / 8,128 / 4,032 bytes and a rest), because redb gives every value a power-of-two page.
//! Each piece begins with a small header (magic, blob, index, length, checksum), so that mail can
//! be salvaged from a ruined file.

use std::fmt::Debug;

use super::ReadError;
use crate::mail::message::BlobId;

mod block; // a block and its compressed form
mod body; //  reading a body from its pieces
mod piece; // the compressed stream in pieces
#[cfg(test)]
mod sample;
mod spool; // a body on its way in
mod whole; // reading a body from end to end, to see whether it is whole

pub use block::BLOCK_MAX;
pub use body::{Body, beginning};
pub use piece::{PIECE_HEADER, TakePiece, cut, piece_count, piece_payload, piece_space};
pub(super) use piece::{PIECE_MAX, PieceHeader, piece_size, read_header};
pub use spool::{SPOOL_MEMORY_MAX, Spool, Spooled, SpooledReader, temporary};
pub use whole::{Wholeness, read_whole};

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
    /// What the body hashes to; bodies that schema 1 kept have none.
    pub hash: Option<BodyHash>,
}

/// The first half of a body's SHA-256.
pub type BodyHash = [u8; 16];

/// The hash of a body that comes piece by piece.
#[derive(Clone)]
pub struct Hasher(ring::digest::Context);

impl Debug for Hasher {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Hasher")
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }
}

impl Hasher {
    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes.
    pub fn finish(self) -> BodyHash {
        let digest = self.0.finish();
        digest.as_ref().first_chunk().copied().unwrap_or_default()
    }
}

/// Where pieces are read from: redb in the store, a map in tests.
pub trait PieceSource: Debug + Send {
    /// The record of `blob`, or `None` when there is no such body.
    fn record(&self, blob: BlobId) -> Result<Option<BlobRecord>, ReadError>;

    /// Hands piece `index` of `blob` (header included) to `take`.
    fn piece(&self, blob: BlobId, index: u32, take: &mut dyn FnMut(&[u8])) -> Result<(), ReadError>;
}
