//! Bodies whose row is lost: their pieces tell enough.
//!
//! A body's compressed stream is blocks one after another. A block that zstd made says itself how
//! long it is; one that was kept raw is 64 KiB or the rest. So the row can be made anew, and reading the
//! body proves that every block is what was compressed. The last piece says that it is the last, and
//! each has its checksum, so a body is proven by them. Pieces of older stores do not say it: there
//! only their sizes tell (they are cut from large to small, and what is left over is a piece of its
//! own). Neither is proven where two pieces claim one place.

use std::sync::Arc;

use zstd::zstd_safe::{find_frame_compressed_size, get_frame_content_size};

use crate::mail::message::BlobId;

use super::super::blob::{BLOCK_MAX, BlobRecord, PIECE_HEADER, piece_count, piece_size};
use super::prove::Whole;
use super::scan::{Finds, Piece};
use super::{Loss, Medium};

/// What every frame of zstd begins with (RFC 8878 section 3.1.1).
const FRAME: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// Finds bodies that have all their pieces and neither a row nor a loss. Adds those that are proven to
/// `whole` and returns the others.
pub(super) fn prove(medium: &Arc<Medium>, finds: &Finds, whole: &mut Vec<Whole>, losses: &mut Vec<Loss>) -> Vec<Whole> {
    let mut unproven = Vec::new();
    let mut known: Vec<u64> = whole.iter().map(|whole| whole.blob).collect();
    known.extend(losses.iter().map(|loss| loss.blob.0));
    known.sort_unstable();
    for pieces in finds.pieces.chunk_by(|one, other| one.blob == other.blob) {
        let Some(first) = pieces.first().filter(|piece| known.binary_search(&piece.blob).is_err()) else { continue };
        let mut of_body: Vec<Piece> = pieces.to_vec();
        of_body.dedup_by_key(|piece| piece.index);
        let proven = of_body.len() == pieces.len() && of_body.last().is_some_and(|piece| piece.last);
        let found = record_of(medium, &of_body, proven).map(|record| Whole::orphan(first.blob, record));
        match found.filter(|found| found.is_proven(medium, finds)) {
            Some(found) if proven => whole.push(found),
            Some(found) => unproven.push(found),
            None => losses.push(Loss {
                blob: BlobId(first.blob),
                size: None,
                missing: 0,
                found: u32::try_from(of_body.len()).unwrap_or(u32::MAX),
            }),
        }
    }
    unproven
}

/// Makes the row anew that these pieces had, if they are all, which `proven` says is sure.
fn record_of(medium: &Medium, pieces: &[Piece], proven: bool) -> Option<BlobRecord> {
    let stored = pieces.iter().map(|piece| u64::from(piece.length)).sum();
    let cut_so = (0..)
        .zip(pieces)
        .all(|(index, piece)| piece.index == index && piece_size(stored, index) == usize::try_from(piece.length).ok());
    if !cut_so || usize::try_from(piece_count(stored)).ok() != Some(pieces.len()) {
        return None;
    }
    let mut record = BlobRecord { refs: 1, size: 0, stored, blocks: Vec::new(), hash: None };
    let (mut stream, mut next) = (Vec::new(), pieces.iter());
    loop {
        // A block is never longer compressed than raw.
        while stream.len() < BLOCK_MAX {
            let Some(piece) = next.next() else { break };
            let from = stream.len();
            stream.resize(from + usize::try_from(piece.length).ok()?, 0);
            medium.read(piece.at + PIECE_HEADER as u64, stream.get_mut(from..)?).ok()?;
        }
        if stream.is_empty() {
            return Some(record);
        }
        // Only the last block holds less than 64 KiB.
        if !record.size.is_multiple_of(BLOCK_MAX as u64) {
            return None;
        }
        let frame = frame(&stream);
        // A frame that is cut off, or mail that looks like one.
        if frame.is_none() && !proven && stream.starts_with(&FRAME) {
            return None;
        }
        let (length, raw) = frame.unwrap_or_else(|| {
            let raw = stream.len().min(BLOCK_MAX);
            (raw, raw)
        });
        record.blocks.push(u32::try_from(length).ok()?);
        record.size += raw as u64;
        stream.drain(..length);
    }
}

/// The length of the frame at the beginning, and of what was compressed.
fn frame(stream: &[u8]) -> Option<(usize, usize)> {
    if !stream.starts_with(&FRAME) {
        return None;
    }
    let length = find_frame_compressed_size(stream).ok()?;
    let raw = usize::try_from(get_frame_content_size(stream).ok()??).ok()?;
    (length <= stream.len() && length < raw && raw <= BLOCK_MAX).then_some((length, raw))
}
