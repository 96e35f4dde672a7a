//! redb's first block as it stands in the file, twice: with a trailer that tells whether it is
//! whole and which of the two is the newer.
//!
//! redb uses the first 320 bytes of its first 4 KiB. The last 64 bytes of the block are ours:
//! magic, version, flags, generation, where block 1 was moved to, and a checksum over all of it.

use std::io;

/// Unit of the file: redb's page.
pub(super) const BLOCK: u64 = 4096;
pub(super) const BLOCK_LEN: usize = 4096;

/// A block of the file.
pub(super) type Block = [u8; BLOCK_LEN];

/// How much of its first block redb may use.
pub(super) const ROOM: usize = BLOCK_LEN - 64;

/// What a file of redb begins with.
pub(super) const REDB_MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

const MAGIC: [u8; 8] = *b"pboxhead";
const VERSION: u32 = 1;
/// The index alone holds everything that was acknowledged.
const COMPLETE: u32 = 1;
/// Where the checksum stands: over everything before it.
const CRC: usize = BLOCK_LEN - 4;

/// One copy of the first block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// What redb wrote.
    pub(super) redb: [u8; ROOM],
    /// Counts the copies written: of two that are whole the higher one is the newer.
    pub(super) generation: u64,
    /// Where the file keeps redb's second block, whose place the second copy has.
    pub(super) moved: u64,
    /// The index alone holds everything that was acknowledged: the journal isn't needed.
    pub(super) complete: bool,
}

impl Header {
    /// The first block of a file in which redb has not made a database yet.
    pub(super) fn blank() -> Self {
        Self { redb: [0; ROOM], generation: 0, moved: 2 * BLOCK, complete: true }
    }

    /// Tells whether there is a database. redb writes its magic only after everything else of a
    /// new file is durable.
    pub(super) fn is_blank(&self) -> bool {
        !self.redb.starts_with(&REDB_MAGIC)
    }

    /// The block as it is written.
    pub(super) fn block(&self) -> Block {
        let mut block = [0; BLOCK_LEN];
        let mut at = copy(&mut block, 0, &self.redb);
        at = copy(&mut block, at, &MAGIC);
        at = copy(&mut block, at, &VERSION.to_le_bytes());
        at = copy(&mut block, at, &(u32::from(self.complete) * COMPLETE).to_le_bytes());
        at = copy(&mut block, at, &self.generation.to_le_bytes());
        copy(&mut block, at, &self.moved.to_le_bytes());
        let crc = checksum(&block);
        copy(&mut block, CRC, &crc.to_le_bytes());
        block
    }

    /// Reads a block; `None` when it is torn, damaged or something else.
    ///
    /// # Errors
    /// `InvalidData` when a newer Pillarbox wrote it.
    pub(super) fn parse(block: &Block) -> io::Result<Option<Self>> {
        let mut rest = block.as_slice();
        let redb: [u8; ROOM] = take(&mut rest);
        // A page of redb's begins otherwise, so no mail that lies in one is ever taken for a copy.
        let ours = redb.starts_with(&REDB_MAGIC) || redb.starts_with(&[0; REDB_MAGIC.len()]);
        let ours = ours && take(&mut rest) == MAGIC;
        let version = u32::from_le_bytes(take(&mut rest));
        let flags = u32::from_le_bytes(take(&mut rest));
        let [generation, moved] = [(); 2].map(|()| u64::from_le_bytes(take(&mut rest)));
        let crc = block.last_chunk().map(|crc| u32::from_le_bytes(*crc));
        if !ours || crc != Some(checksum(block)) {
            return Ok(None);
        }
        if version != VERSION {
            return Err(damaged("the index was written by a newer Pillarbox"));
        }
        if moved < 2 * BLOCK || moved % BLOCK != 0 {
            return Err(damaged("the header of the index makes no sense"));
        }
        Ok(Some(Self { redb, generation, moved, complete: flags & COMPLETE != 0 }))
    }
}

impl std::fmt::Debug for Header {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { redb: _, generation, moved, complete } = self;
        write!(out, "Header({generation}, moved to {moved}, complete: {complete})")
    }
}

/// The error of a file that is not as we wrote it.
pub(super) fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Copies `bytes` to `at` and returns where they end; what does not fit is not copied.
pub(super) fn copy(block: &mut Block, at: usize, bytes: &[u8]) -> usize {
    if let Some(target) = block.get_mut(at..at + bytes.len()) {
        target.copy_from_slice(bytes);
    }
    at + bytes.len()
}

/// Takes a field off the front.
pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (field, behind) = rest.split_first_chunk().unwrap_or((&[0; N], &[]));
    *rest = behind;
    *field
}

/// The checksum over a block without its last four bytes, where it stands.
pub(super) fn checksum(block: &Block) -> u32 {
    crc32c::crc32c(block.get(..CRC).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let mut redb = [0; ROOM];
        redb[..9].copy_from_slice(&REDB_MAGIC);
        redb[300] = 7;
        Header { redb, generation: 258, moved: 3 << 12, complete: true }
    }

    #[test]
    fn a_copy_is_read_as_it_was_written_and_stands_where_the_description_says() {
        let block = header().block();
        assert_eq!(Header::parse(&block).unwrap(), Some(header()));
        assert_eq!(&block[4032..4040], b"pboxhead");
        assert_eq!(block[4040..4048], [1, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(block[4048..4064], [2, 1, 0, 0, 0, 0, 0, 0, 0, 0x30, 0, 0, 0, 0, 0, 0]);
        assert_eq!(block[4064..4092], [0; 28]);
        assert_eq!(block[4092..], crc32c::crc32c(&block[..4092]).to_le_bytes());
        let blank = Header::parse(&Header::blank().block()).unwrap().unwrap();
        assert!(blank.is_blank() && blank.complete && !header().is_blank());
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let block = header().block();
        for bit in 0..block.len() * 8 {
            let mut flipped = block;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::parse(&flipped).unwrap(), None, "{bit}");
        }
    }

    #[test]
    fn a_page_that_ends_like_a_copy_is_none_and_a_newer_copy_is_said_so() {
        let sealed = |change: &dyn Fn(&mut Block)| {
            let mut block = header().block();
            change(&mut block);
            let crc = checksum(&block);
            copy(&mut block, CRC, &crc.to_le_bytes());
            Header::parse(&block)
        };
        assert_eq!(sealed(&|block| block[0] = 1).unwrap(), None);
        assert!(sealed(&|block| block[4040] = 2).unwrap_err().to_string().contains("newer"));
        assert!(sealed(&|block| block[4057] = 0x10).is_err());
        assert!(sealed(&|block| block[4056] = 1).is_err());
    }
}
