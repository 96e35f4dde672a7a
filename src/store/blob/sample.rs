//! What tests of bodies begin with: a body of mixed bytes, spooled and cut.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{BlobRecord, Spool, cut};
use crate::mail::message::BlobId;

/// The number of the body that [`shelve`] makes.
pub(super) const BODY: BlobId = BlobId(5);

/// Spools `raw` and cuts it; from memory and from the spool the pieces are the same.
pub(super) fn shelve(raw: &[u8]) -> (BlobRecord, BTreeMap<u32, Vec<u8>>) {
    let mut spool = Spool::new(Arc::from(std::env::temp_dir()));
    for part in raw.chunks(10_007) {
        spool.write(part).unwrap();
    }
    let spooled = spool.finish().unwrap();
    let mut pieces = BTreeMap::new();
    spooled
        .pieces(BODY, 0, &mut |index, piece| {
            pieces.insert(index, piece.to_vec());
            Ok(true)
        })
        .unwrap();
    if let Some(stored) = spooled.in_memory() {
        let mut again = BTreeMap::new();
        cut(BODY, stored, &mut |index, piece| {
            again.insert(index, piece.to_vec());
            Ok(true)
        })
        .unwrap();
        assert_eq!(again, pieces);
    }
    (spooled.record(), pieces)
}

/// Bytes of which about half is text and half is noise, 16 KiB of each in turn.
#[allow(clippy::cast_possible_truncation, reason = "noise is cut on purpose")]
pub(super) fn mixed(length: usize) -> Vec<u8> {
    let noise = |index: usize| {
        let mixed = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8
    };
    (0..length).map(|index| if index >> 14 & 1 == 0 { b"mail "[index % 5] } else { noise(index) }).collect()
}
