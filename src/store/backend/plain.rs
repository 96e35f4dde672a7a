//! Makes a plain file of redb, as schema 1 had it, into one with two headers, in place.
//!
//! The second copy goes where redb's second block is, so that it is found whatever becomes of the
//! first: that block moves to the end of the file. A cut can come at any write. Until the second
//! copy is durable the file is a plain one with a block and a note behind it, and the note tells
//! the next start where the moved block is, since its first place may be torn by then.

use std::io;

use super::header::{BLOCK, BLOCK_LEN, Block, Header, REDB_MAGIC, checksum, copy, damaged};
use crate::store::disk::Disk;

/// How much of the first block redb fills in a plain file; the rest is zeros.
const PLAIN_LEN: usize = 320;

const NOTE_MAGIC: [u8; 8] = *b"pboxmove";

/// Tells whether a first block is that of a plain file, and not a copy of ours that was damaged.
pub(super) fn is_plain(block: &Block) -> bool {
    let rest = block.get(PLAIN_LEN..).unwrap_or_default();
    block.starts_with(&REDB_MAGIC) && rest.iter().all(|byte| *byte == 0)
}

/// Moves the second block of a plain file behind its end and writes a copy of the first block,
/// `plain`, in its place. Everything is durable when this returns.
pub(super) fn adopt(disk: &dyn Disk, plain: &Block) -> io::Result<Header> {
    // What a cut left of an attempt before this one is behind redb's last page, and redb takes it
    // for free pages.
    let len = disk.len()? / BLOCK * BLOCK;
    let redb = plain.first_chunk().ok_or_else(|| damaged("the index is no database"))?;
    let moved = if let Some(moved) = noted(disk, len, plain)? {
        moved
    } else {
        let mut second = [0; BLOCK_LEN];
        disk.read_at(BLOCK, &mut second)?;
        disk.write_at(len, &second)?;
        disk.write_at(len + BLOCK, &note(len, plain, &second))?;
        disk.sync()?;
        len
    };
    // Whether the journal is needed can't be told from a plain file: so it is.
    let header = Header { redb: *redb, generation: 1, moved, complete: false };
    disk.write_at(BLOCK, &header.block())?;
    disk.sync()?;
    disk.set_len(moved + BLOCK)?;
    Ok(header)
}

/// Reads the note at the end of a file of `len` bytes: where the second block was moved to, if
/// that block is there.
fn noted(disk: &dyn Disk, len: u64, plain: &Block) -> io::Result<Option<u64>> {
    let Some(moved) = len.checked_sub(2 * BLOCK).filter(|moved| *moved >= 2 * BLOCK) else { return Ok(None) };
    let (mut second, mut found) = ([0; BLOCK_LEN], [0; BLOCK_LEN]);
    disk.read_at(moved, &mut second)?;
    disk.read_at(moved + BLOCK, &mut found)?;
    Ok((found == note(moved, plain, &second)).then_some(moved))
}

/// The note names the first block by its checksum: mail can't know it, and so can't pose as one.
fn note(moved: u64, plain: &Block, second: &Block) -> Block {
    let mut block = [0; BLOCK_LEN];
    let mut at = copy(&mut block, 0, &NOTE_MAGIC);
    at = copy(&mut block, at, &moved.to_le_bytes());
    at = copy(&mut block, at, &crc32c::crc32c(plain).to_le_bytes());
    at = copy(&mut block, at, &crc32c::crc32c(second).to_le_bytes());
    let crc = checksum(&block);
    copy(&mut block, at, &crc.to_le_bytes());
    block
}
