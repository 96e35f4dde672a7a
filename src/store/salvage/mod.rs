//! Salvage: finding whole messages in a ruined `mail.redb`, `mail.journal` or image of a card.
//!
//! The tables are of no use in a ruined file, so nothing of redb is read. Every piece of a body has a
//! header with a mark and a checksum, every body's row names the body, its size and its hash, and
//! every journal group has a checksum over all of it. [`Ruin::read`] goes through the file once and notes
//! what it finds; then each body is put together from its pieces, decompressed and hashed. What
//! comes out right is proven, and so is what has no row left but all its pieces up to the one that says it
//! is the last. What has all its pieces for all one can see is given apart.
//!
//! Memory: 32 bytes for each piece found (16 KiB of mail at most), and the rows.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::mail::date::ZonedTime;
use crate::mail::message::BlobId;

use super::ReadError;
use super::blob::Body;
use prove::Whole;
use scan::Finds;

mod orphan; // bodies whose row is lost
mod prove; //  bodies put together and hashed
mod scan; //   marks and what follows them
#[cfg(test)]
mod tests;

/// Bytes read at once where a medium gives errors.
const BLOCK: usize = 4096;

/// Called with how many bytes are behind us and how many there are.
pub type Watch<'w> = dyn FnMut(u64, u64) + 'w;

/// A file that was a store or a card that held one, and the mail in it.
#[derive(Debug)]
pub struct Ruin {
    medium: Arc<Medium>,
    finds: Finds,
    whole: Vec<Whole>,
    /// How many of `whole`, the first, are proven.
    proven: usize,
    losses: Vec<Loss>,
    unclaimed: u64,
}

/// A body that can't be put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The body.
    pub blob: BlobId,
    /// Its size in bytes, where that is known.
    pub size: Option<u64>,
    /// Pieces that are missing; with none missing the bytes do not give the hash.
    pub missing: u32,
    /// Pieces that are there.
    pub found: u32,
}

/// What was found in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes the medium did not give.
    pub unreadable: u64,
    /// Rows of bodies; a body may have several, of different times.
    pub rows: u64,
    /// Pieces, each that is there twice counted once.
    pub pieces: u64,
    /// Bodies in the journal.
    pub journaled: u64,
    /// Pieces of bodies that are not whole.
    pub unclaimed: u64,
}

impl Ruin {
    /// Reads the file through and puts together what can be. `watch` hears how far the reading is.
    ///
    /// # Errors
    /// When the file cannot be opened or has no length; places that cannot be read are passed over.
    pub fn read(path: &Path, watch: &mut Watch<'_>) -> io::Result<Self> {
        let medium = Arc::new(Medium::open(path)?);
        let finds = scan::scan(&medium, watch);
        let mut ruin = Self { medium, finds, whole: Vec::new(), proven: 0, losses: Vec::new(), unclaimed: 0 };
        prove::prove(&ruin.medium, &ruin.finds, &mut ruin.whole, &mut ruin.losses);
        let unproven = orphan::prove(&ruin.medium, &ruin.finds, &mut ruin.whole, &mut ruin.losses);
        ruin.proven = ruin.whole.len();
        ruin.whole.extend(unproven);
        ruin.unclaimed = ruin.losses.iter().map(|loss| u64::from(loss.found)).sum();
        Ok(ruin)
    }

    /// How many messages are whole: those that are proven by their row and hash or by their pieces,
    /// and those that seem to have all their pieces and nothing that says so.
    pub fn count(&self) -> (usize, usize) {
        (self.proven, self.whole.len() - self.proven)
    }

    /// Size in bytes of a whole message, and when it came where the journal tells. Proven ones are
    /// numbered first.
    pub fn message(&self, number: usize) -> Option<(u64, Option<ZonedTime>)> {
        let whole = self.whole.get(number)?;
        Some((whole.record.size, self.finds.dates.get(&whole.blob).copied()))
    }

    /// Opens a whole message.
    ///
    /// # Errors
    /// [`ReadError::Storage`] when there is none of this number or the medium fails now.
    pub fn body(&self, number: usize) -> Result<Body, ReadError> {
        let whole = self.whole.get(number).ok_or_else(|| ReadError::Storage(format!("no message {number}")))?;
        whole.body(&self.medium, &self.finds)
    }

    /// The bodies that cannot be put together.
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// What was found in all.
    pub fn finding(&self) -> Finding {
        let count = |length: usize| length as u64;
        Finding {
            bytes: self.medium.length,
            unreadable: self.finds.unreadable,
            rows: count(self.finds.rows.len()),
            pieces: count(self.finds.pieces.len()),
            journaled: count(self.finds.streams.len()),
            unclaimed: self.unclaimed,
        }
    }
}

/// A file or a device, for reading.
#[derive(Debug)]
struct Medium {
    file: File,
    length: u64,
}

impl Medium {
    fn open(path: &Path) -> io::Result<Self> {
        use std::io::{Seek, SeekFrom};
        let mut file = File::open(path)?;
        // A device has no length among its facts, but an end.
        let length = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, length })
    }

    /// Fills `bytes` from `offset`, zeros where the medium gives nothing; tells how many those are.
    fn read_through(&self, offset: u64, bytes: &mut [u8]) -> u64 {
        if self.file.read_exact_at(bytes, offset).is_ok() {
            return 0;
        }
        let (mut at, mut lost) = (offset, 0);
        for block in bytes.chunks_mut(BLOCK) {
            if self.file.read_exact_at(block, at).is_err() {
                block.fill(0);
                lost += block.len() as u64;
            }
            at += block.len() as u64;
        }
        lost
    }

    /// Fills `bytes` from `offset`.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), ReadError> {
        let failed = |error| ReadError::Storage(format!("byte {offset} of the file: {error}"));
        self.file.read_exact_at(bytes, offset).map_err(failed)
    }
}
