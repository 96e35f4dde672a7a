//! The compressed stream in pieces that fit redb's pages, each with a header for salvage.
//!
//! Header, little-endian: magic `pbxP`, blob (8 bytes), index (4; the highest bit marks the last
//! piece), payload length (4), crc32c over all that and the payload (4). Sizes are 64 bytes below a power of two, header included: an exact
//! power of two would take twice the page (STORAGE section 2).

use crate::mail::message::BlobId;
use crate::store::{ReadError, WriteError};

const MAGIC: [u8; 4] = *b"pbxP";

/// Takes a piece, header included, by its number; false ends the work.
pub type TakePiece<'t> = dyn FnMut(u32, &[u8]) -> Result<bool, WriteError> + 't;

/// Marks the index of a body's last piece, so that pieces prove a body without its row.
const LAST: u32 = 1 << 31;

/// Bytes of a piece's header.
pub const PIECE_HEADER: usize = 24;

/// Sizes of pieces in bytes, header included. What is left after the last is a piece of its own
/// that shares a page with others.
const SIZES: [usize; 3] = [16_320, 8_128, 4_032];

/// The largest piece.
pub(in crate::store) const PIECE_MAX: usize = 16_320;

/// redb's page in bytes.
const PAGE: usize = 4096;

/// What a row takes in its page beside its bytes: its key and its place.
const ENTRY: usize = 16;

/// What a page takes in the pages above it.
const ABOVE: usize = 40;

/// Payload of the largest piece.
const FULL: u64 = (PIECE_MAX - PIECE_HEADER) as u64;

/// Which bytes of the compressed stream a piece holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) index: u32,
    pub(super) offset: u64,
    pub(super) length: usize,
    /// There is none behind it.
    pub(super) last: bool,
}

/// The pieces of a compressed stream of `stored` bytes, from the one that holds byte `offset` on.
pub(super) fn extents_at(stored: u64, offset: u64) -> impl Iterator<Item = Extent> {
    // All but the last few pieces are of the largest size, so only those are searched.
    let first = u32::try_from((offset / FULL).min(stored / FULL)).unwrap_or(u32::MAX);
    extents_from(stored, first).skip_while(move |extent| extent.offset + extent.length as u64 <= offset)
}

/// The pieces of a compressed stream of `stored` bytes, from number `first` on.
pub(super) fn extents_from(stored: u64, first: u32) -> impl Iterator<Item = Extent> {
    let full = u32::try_from(stored / FULL).unwrap_or(u32::MAX).min(first);
    let mut next = (full, u64::from(full) * FULL);
    let all = std::iter::from_fn(move || {
        let (index, offset) = next;
        let left = stored.checked_sub(offset).filter(|left| *left > 0)?;
        let fitting = SIZES.into_iter().map(|size| size - PIECE_HEADER).find(|size| *size as u64 <= left);
        let length = fitting.unwrap_or_else(|| usize::try_from(left).unwrap_or(0));
        next = (index.checked_add(1)?, offset + length as u64);
        Some(Extent { index, offset, length, last: left == length as u64 })
    });
    all.skip_while(move |extent| extent.index < first)
}

/// How many pieces a compressed stream of `stored` bytes has.
pub fn piece_count(stored: u64) -> u32 {
    let full = u32::try_from(stored / FULL).unwrap_or(u32::MAX);
    extents_from(stored, full).last().map_or(full, |extent| extent.index + 1)
}

/// Bytes of pages that the pieces of a compressed stream take up; those below `shared` share theirs.
pub fn piece_space(stored: u64, shared: usize) -> u64 {
    let space = |length: usize| {
        let piece = length + PIECE_HEADER;
        // Of small ones as many share a page as fit whole.
        let page =
            if piece < shared { PAGE / (PAGE / (piece + ENTRY)).max(1) } else { piece.next_power_of_two().max(PAGE) };
        (page + ABOVE) as u64
    };
    let full = u32::try_from(stored / FULL).unwrap_or(u32::MAX);
    let rest = extents_from(stored, full).map(|extent| space(extent.length)).sum::<u64>();
    (stored / FULL) * space(PIECE_MAX - PIECE_HEADER) + rest
}

/// Cuts a compressed stream that lies in memory into pieces, as [`Spooled::pieces`] does (replay).
///
/// [`Spooled::pieces`]: super::Spooled::pieces
///
/// # Errors
/// Those of `take`.
pub fn cut(blob: BlobId, stored: &[u8], take: &mut TakePiece<'_>) -> Result<(), WriteError> {
    cut_from(blob, stored.len() as u64, 0, take, |extent, piece| {
        let start = usize::try_from(extent.offset).unwrap_or(usize::MAX);
        piece.extend_from_slice(stored.get(start..start.saturating_add(extent.length)).unwrap_or_default());
        Ok(())
    })
}

/// Makes the pieces of a stream from number `first` on; `fetch` adds a piece's payload to a buffer.
pub(super) fn cut_from(
    blob: BlobId,
    stored: u64,
    first: u32,
    take: &mut TakePiece<'_>,
    mut fetch: impl FnMut(Extent, &mut Vec<u8>) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    let mut piece = Vec::new();
    for extent in extents_from(stored, first) {
        piece.clear();
        piece.reserve_exact(PIECE_HEADER + extent.length);
        piece.extend_from_slice(&[0; PIECE_HEADER]);
        fetch(extent, &mut piece)?;
        let (header, payload) = piece.split_first_chunk_mut().ok_or(WriteError::Limit("piece"))?;
        *header = header_of(blob, extent.index, extent.last, payload);
        if !take(extent.index, &piece)? {
            break;
        }
    }
    Ok(())
}

/// The payload of a piece, its header checked.
///
/// # Errors
/// [`ReadError::Storage`] naming blob and piece, when the header is not the one this piece must
/// have or the checksum is wrong.
pub fn piece_payload(blob: BlobId, index: u32, piece: &[u8]) -> Result<&[u8], ReadError> {
    let wrong = |what: &str| ReadError::Storage(format!("body {} piece {index}: {what}", blob.0));
    let (header, payload) = piece.split_first_chunk().ok_or_else(|| wrong("cut short"))?;
    let last = read_header(header).is_some_and(|named| named.last);
    if *header == header_of(blob, index, last, payload) { Ok(payload) } else { Err(wrong("checksum is wrong")) }
}

/// What a piece's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct PieceHeader {
    pub(in crate::store) blob: u64,
    pub(in crate::store) index: u32,
    /// The body's last; stores made before there was this mark have none.
    pub(in crate::store) last: bool,
    /// Bytes of payload.
    pub(in crate::store) length: usize,
}

/// Reads a piece's header; `None` where it has not the magic. Its checksum is not looked at.
pub(in crate::store) fn read_header(header: &[u8; PIECE_HEADER]) -> Option<PieceHeader> {
    let (magic, rest) = header.split_first_chunk()?;
    let (blob, rest) = rest.split_first_chunk()?;
    let (index, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*rest.first_chunk()?)).ok()?;
    let (blob, index) = (u64::from_le_bytes(*blob), u32::from_le_bytes(*index));
    (*magic == MAGIC).then_some(PieceHeader { blob, index: index & !LAST, last: index & LAST != 0, length })
}

/// Payload bytes of piece `index` of a compressed stream of `stored` bytes.
pub(in crate::store) fn piece_size(stored: u64, index: u32) -> Option<usize> {
    extents_from(stored, index).next().map(|extent| extent.length)
}

fn header_of(blob: BlobId, index: u32, last: bool, payload: &[u8]) -> [u8; PIECE_HEADER] {
    let mut header = [0; PIECE_HEADER];
    let index = if last { index | LAST } else { index };
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let fields = MAGIC.into_iter().chain(blob.0.to_le_bytes()).chain(index.to_le_bytes()).chain(length.to_le_bytes());
    header.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
    let (named, sum) = header.split_at_mut(PIECE_HEADER - 4);
    let crc = crc32c::crc32c_append(crc32c::crc32c(named), payload);
    sum.copy_from_slice(&crc.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(stored: &[u8]) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        cut(BlobId(9), stored, &mut |index, piece| {
            assert_eq!(index as usize, pieces.len());
            pieces.push(piece.to_vec());
            Ok(true)
        })
        .unwrap();
        pieces
    }

    #[test]
    fn sizes_stay_just_below_a_power_of_two() {
        let sizes = |length: usize| pieces(&vec![1; length]).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(0), [0; 0]);
        assert_eq!(sizes(1), [25]);
        assert_eq!(sizes(4008), [4032]);
        assert_eq!(sizes(4009), [4032, 25]);
        assert_eq!(sizes(16_295), [8128, 8128, 111]);
        assert_eq!(sizes(16_296), [16_320]);
        assert_eq!(sizes(45_000), [16_320, 16_320, 8128, 4032, 320]);
    }

    #[test]
    fn a_changed_or_misplaced_piece_is_named() {
        let piece = pieces(b"compressed").remove(0);
        assert_eq!(piece_payload(BlobId(9), 0, &piece), Ok(&b"compressed"[..]));
        for at in 0..piece.len() {
            let mut piece = piece.clone();
            piece[at] ^= 1;
            let error = ReadError::Storage("body 9 piece 0: checksum is wrong".to_owned());
            assert_eq!(piece_payload(BlobId(9), 0, &piece), Err(error));
        }
        assert!(piece_payload(BlobId(8), 0, &piece).is_err());
        assert!(piece_payload(BlobId(9), 1, &piece).is_err());
        assert!(piece_payload(BlobId(9), 0, &piece[..33]).is_err());
        assert!(piece_payload(BlobId(9), 0, b"").is_err());
    }

    proptest! {
        #[test]
        fn pieces_are_the_stream_and_are_found_by_number_and_offset(length in 0_u64..120_000, at in 0_u64..120_000) {
            let all: Vec<_> = extents_from(length, 0).collect();
            prop_assert_eq!(all.len(), piece_count(length) as usize);
            prop_assert!(all.iter().rev().skip(1).all(|extent| !extent.last) && all.last().is_none_or(|extent| extent.last));
            let mut end = 0;
            for (index, extent) in all.iter().enumerate() {
                prop_assert_eq!((extent.index as usize, extent.offset), (index, end));
                prop_assert!(extent.length > 0);
                end += extent.length as u64;
                prop_assert_eq!(extents_from(length, extent.index).next(), Some(*extent));
            }
            prop_assert_eq!(end, length);
            let holder = all.iter().find(|extent| (extent.offset..extent.offset + extent.length as u64).contains(&at));
            prop_assert_eq!(extents_at(length, at).next(), holder.copied());
        }
    }
}
