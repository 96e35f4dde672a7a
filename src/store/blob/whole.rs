//! Reads a body from end to end and says what of it is damaged.

use super::block::unpack;
use super::piece::{extents_from, piece_payload};
use super::{BlobRecord, Hasher, piece_count};
use crate::mail::message::BlobId;

/// How whole a body is. What is named is counted from one, as a person counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wholeness {
    /// Every byte is what was kept; the hash of the whole.
    Whole(super::BodyHash),
    /// The numbers of its record do not agree with each other.
    Senseless,
    /// Pieces are missing or not what was written.
    Pieces {
        /// The first of them.
        first: u32,
        /// How many.
        count: u32,
        /// How many the body has.
        of: u32,
    },
    /// All pieces are whole, and this block can't be unpacked from them.
    Block(u32),
    /// Everything can be unpacked, and its hash is another.
    OtherHash,
}

/// Reads a body and checks each piece, each block and the hash. `fetch` hands a piece, header
/// included, to whom it is given, or hands nothing over when there is no such piece; `take` gets the
/// body's bytes in order, up to the first damage. Memory: a block, packed and unpacked, and a piece.
///
/// # Errors
/// Those of `fetch`.
pub fn read_whole<E>(
    blob: BlobId,
    record: &BlobRecord,
    mut fetch: impl FnMut(u32, &mut dyn FnMut(&[u8])) -> Result<(), E>,
    take: &mut dyn FnMut(&[u8]),
) -> Result<Wholeness, E> {
    if !record.is_sound() {
        return Ok(Wholeness::Senseless);
    }
    let (mut damaged, mut first, mut torn) = (0_u32, 0, None);
    let (mut packed, mut raw) = (Vec::new(), Vec::new());
    let mut hasher = Hasher::default();
    let mut blocks = (0_u32..).zip(&record.blocks).peekable();
    for extent in extents_from(record.stored, 0) {
        let mut whole = false;
        fetch(extent.index, &mut |piece| {
            if let Ok(payload) = piece_payload(blob, extent.index, piece)
                && payload.len() == extent.length
            {
                whole = true;
                packed.extend_from_slice(payload);
            }
        })?;
        if !whole {
            if damaged == 0 {
                first = extent.index.saturating_add(1);
            }
            damaged += 1;
        }
        // Behind the first damage only the checksums of the pieces are looked at.
        if damaged > 0 || torn.is_some() {
            packed.clear();
            continue;
        }
        while let Some((index, length)) = blocks.next_if(|(_, length)| **length as usize <= packed.len()) {
            let (block, rest) = packed.split_at_checked(*length as usize).unwrap_or((&packed, &[]));
            if unpack(block, &mut raw, record.raw_length(index.into())).is_err() {
                torn = Some(index.saturating_add(1));
                break;
            }
            hasher.write(&raw);
            take(&raw);
            packed = rest.to_vec();
        }
    }
    Ok(match (damaged, torn, hasher.finish()) {
        (0, None, found) if record.hash.is_none_or(|kept| kept == found) => Wholeness::Whole(found),
        (0, None, _) => Wholeness::OtherHash,
        (0, Some(block), _) => Wholeness::Block(block),
        (count, ..) => Wholeness::Pieces { first, count, of: piece_count(record.stored) },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::super::sample::{mixed, shelve};
    use super::*;

    fn read(record: &BlobRecord, pieces: &BTreeMap<u32, Vec<u8>>) -> (Wholeness, Vec<u8>) {
        let mut raw = Vec::new();
        let fetch = |index, take: &mut dyn FnMut(&[u8])| {
            if let Some(piece) = pieces.get(&index) {
                take(piece);
            }
            Ok::<_, Infallible>(())
        };
        let whole = read_whole(BlobId(5), record, fetch, &mut |bytes| raw.extend_from_slice(bytes)).unwrap();
        (whole, raw)
    }

    #[test]
    fn a_whole_body_is_read_and_hashed() {
        for size in [0, 1, 4032, 65_536, 65_537, 300_000] {
            let raw = mixed(size);
            let (record, pieces) = shelve(&raw);
            assert_eq!(read(&record, &pieces), (Wholeness::Whole(record.hash.unwrap()), raw), "{size}");
            // Schema 1 kept no hash.
            let unhashed = BlobRecord { hash: None, ..record.clone() };
            assert_eq!(read(&unhashed, &pieces).0, Wholeness::Whole(record.hash.unwrap()));
        }
    }

    #[test]
    fn each_kind_of_damage_is_told_apart() {
        let raw = mixed(300_000);
        let (record, pieces) = shelve(&raw);
        let of = piece_count(record.stored);
        let mut ruined = pieces.clone();
        ruined.get_mut(&5).unwrap()[700] ^= 1;
        ruined.remove(&7);
        let (whole, start) = read(&record, &ruined);
        assert_eq!(whole, Wholeness::Pieces { first: 6, count: 2, of });
        assert!(!start.is_empty() && raw.starts_with(&start));

        let other = BlobRecord { hash: Some([7; 16]), ..record.clone() };
        assert_eq!(read(&other, &pieces).0, Wholeness::OtherHash);
        let senseless = BlobRecord { stored: record.stored + 1, ..record.clone() };
        assert_eq!(read(&senseless, &pieces).0, Wholeness::Senseless);
        let mut shifted = record.clone();
        (shifted.blocks[0], shifted.blocks[1]) = (shifted.blocks[0] - 1, shifted.blocks[1] + 1);
        assert_eq!(read(&shifted, &pieces).0, Wholeness::Block(1));
    }
}
