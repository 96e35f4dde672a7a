//! Reading a body from its pieces, a block at a time.

use super::block::Window;
use super::piece::{extents_at, piece_payload};
use super::{BLOCK_MAX, BlobRecord, PieceSource};
use crate::mail::message::BlobId;
use crate::store::ReadError;

/// A body, open for reading; holds no transaction and no memory but a block's.
#[derive(Debug)]
pub struct Body {
    source: Box<dyn PieceSource>,
    blob: BlobId,
    record: BlobRecord,
    window: Window,
}

impl Body {
    /// Opens `blob`.
    ///
    /// # Errors
    /// [`ReadError::Storage`] when there is no such body or its record makes no sense.
    pub fn open(source: Box<dyn PieceSource>, blob: BlobId) -> Result<Self, ReadError> {
        let record = sound_record(&*source, blob)?;
        Ok(Self { source, blob, record, window: Window::default() })
    }

    /// Which body this is.
    pub fn blob(&self) -> BlobId {
        self.blob
    }

    /// Size in bytes.
    pub fn len(&self) -> u64 {
        self.record.size
    }

    /// Tells whether the body is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes from `offset`: at most `max`, at most to the end of their 64 KiB block, none past the
    /// end. Keeps the block it decompressed last.
    ///
    /// # Errors
    /// [`ReadError::Storage`] naming body and piece, when a checksum is wrong or a piece is missing.
    pub fn read(&mut self, offset: u64, max: usize) -> Result<&[u8], ReadError> {
        let Self { source, blob, record, window } = self;
        read(&**source, *blob, record, window, (offset, max))
    }

    /// Gives the cached block's memory back; the next read decompresses it again.
    pub fn rest(&mut self) {
        self.window.forget();
    }
}

/// The first `wanted` bytes of a body, or all where it has fewer; `None` when that is more than
/// `most`, or more than a block.
///
/// # Errors
/// As [`Body::open`] and [`Body::read`].
pub fn beginning(
    source: &dyn PieceSource,
    blob: BlobId,
    wanted: u64,
    most: usize,
) -> Result<Option<Vec<u8>>, ReadError> {
    let record = sound_record(source, blob)?;
    let wanted = usize::try_from(wanted.min(record.size)).ok().filter(|wanted| *wanted <= most.min(BLOCK_MAX));
    let Some(wanted) = wanted else { return Ok(None) };
    let mut window = Window::default();
    read(source, blob, &record, &mut window, (0, wanted))?;
    let mut bytes = window.into_block();
    bytes.truncate(wanted);
    // Of a header the rest of its block need not wait with it.
    bytes.shrink_to_fit();
    Ok(Some(bytes))
}

fn sound_record(source: &dyn PieceSource, blob: BlobId) -> Result<BlobRecord, ReadError> {
    let record = source.record(blob)?;
    let record = record.ok_or_else(|| ReadError::Storage(format!("body {} is not there", blob.0)))?;
    let sound = record.is_sound().then_some(record);
    sound.ok_or_else(|| ReadError::Storage(format!("body {}: its record makes no sense", blob.0)))
}

/// Bytes from an offset, so many at most, of a body of which `window` may have the block.
fn read<'w>(
    source: &dyn PieceSource,
    blob: BlobId,
    record: &BlobRecord,
    window: &'w mut Window,
    (offset, max): (u64, usize),
) -> Result<&'w [u8], ReadError> {
    let fetch = |start, length, packed: &mut Vec<u8>| gather(source, blob, record.stored, start, length, packed);
    window.read(record, offset, max, fetch).map_err(|error| match error {
        ReadError::Storage(text) if text.starts_with("block") => ReadError::Storage(format!("body {} {text}", blob.0)),
        error => error,
    })
}

/// Adds `length` bytes of the compressed stream from `start` to `packed`.
fn gather(
    source: &dyn PieceSource,
    blob: BlobId,
    stored: u64,
    start: u64,
    length: usize,
    packed: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let end = start + length as u64;
    for extent in extents_at(stored, start).take_while(|extent| extent.offset < end) {
        let wrong = |what: &str| ReadError::Storage(format!("body {} piece {}: {what}", blob.0, extent.index));
        let mut found = Err(wrong("is missing"));
        source.piece(blob, extent.index, &mut |piece| {
            found = piece_payload(blob, extent.index, piece).and_then(|payload| {
                let within = |at: u64| usize::try_from(at.saturating_sub(extent.offset)).unwrap_or(usize::MAX);
                let wanted = payload.get(within(start)..within(end).min(extent.length));
                let whole = wanted.filter(|_| payload.len() == extent.length);
                packed.extend_from_slice(whole.ok_or_else(|| wrong("has a wrong length"))?);
                Ok(())
            });
        })?;
        found?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "noise is cut on purpose")]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::sample::{self, mixed};
    use super::*;

    /// A store of one body.
    #[derive(Clone, Debug)]
    struct Shelf {
        record: BlobRecord,
        pieces: BTreeMap<u32, Vec<u8>>,
    }

    impl PieceSource for Shelf {
        fn record(&self, blob: BlobId) -> Result<Option<BlobRecord>, ReadError> {
            Ok((blob == BlobId(5)).then(|| self.record.clone()))
        }

        fn piece(&self, _: BlobId, index: u32, take: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
            if let Some(piece) = self.pieces.get(&index) {
                take(piece);
            }
            Ok(())
        }
    }

    fn shelve(raw: &[u8]) -> Shelf {
        let (record, pieces) = sample::shelve(raw);
        Shelf { record, pieces }
    }

    #[test]
    fn a_body_of_any_size_comes_back() {
        for size in [0, 1, 2000, 65_535, 65_536, 65_537, 200_000, 5_000_000] {
            let raw = mixed(size);
            let mut body = Body::open(Box::new(shelve(&raw)), BlobId(5)).unwrap();
            assert_eq!((body.len(), body.is_empty()), (size as u64, size == 0));
            let mut again = Vec::new();
            loop {
                let part = body.read(again.len() as u64, 20_000).unwrap();
                if part.is_empty() {
                    break;
                }
                assert!(part.len() <= 20_000);
                again.extend_from_slice(part);
            }
            assert!(again == raw, "{size}");
        }
    }

    proptest! {
        #[test]
        fn any_range_is_what_was_written(ranges in prop::collection::vec((0_usize..310_000, 0_usize..100_000), 1..30)) {
            let raw = mixed(300_000);
            let mut body = Body::open(Box::new(shelve(&raw)), BlobId(5)).unwrap();
            for (offset, max) in ranges {
                let part = body.read(offset as u64, max).unwrap();
                let rest = raw.get(offset..).unwrap_or_default();
                let to_block_end = BLOCK_MAX - offset % BLOCK_MAX;
                prop_assert!(part == &rest[..rest.len().min(max).min(to_block_end)]);
                if max % 7 == 0 {
                    body.rest();
                }
            }
        }
    }

    #[test]
    fn a_beginning_is_all_of_what_is_wanted_or_nothing() {
        let raw = mixed(100_000);
        let shelf = shelve(&raw);
        for (wanted, most, found) in [
            (0, 9, Some(0)),
            (500, 500, Some(500)),
            (501, 500, None),
            (65_536, 99_999, Some(65_536)),
            (65_537, 99_999, None),
            (u64::MAX, usize::MAX, None),
        ] {
            let begun = beginning(&shelf, BlobId(5), wanted, most).unwrap();
            assert_eq!(begun.as_deref(), found.map(|length: usize| &raw[..length]), "{wanted} {most}");
        }
        assert_eq!(beginning(&shelve(b"letter"), BlobId(5), u64::MAX, 6).unwrap().as_deref(), Some(&b"letter"[..]));
        assert!(beginning(&shelf, BlobId(6), 0, 9).is_err());
    }

    #[test]
    fn a_ruined_piece_is_named_and_the_rest_is_still_read() {
        let raw = mixed(200_000);
        let whole = shelve(&raw);
        let mut ruined = whole.clone();
        ruined.pieces.get_mut(&0).unwrap()[100] ^= 4;
        let mut body = Body::open(Box::new(ruined), BlobId(5)).unwrap();
        assert_eq!(body.read(0, 1), Err(ReadError::Storage("body 5 piece 0: checksum is wrong".to_owned())));
        assert_eq!(body.read(131_072, 9).unwrap(), &raw[131_072..131_081]);

        let mut missing = whole.clone();
        missing.pieces.remove(&0);
        let mut body = Body::open(Box::new(missing), BlobId(5)).unwrap();
        assert_eq!(body.read(0, 1), Err(ReadError::Storage("body 5 piece 0: is missing".to_owned())));
    }

    #[test]
    fn a_body_that_is_not_there_or_makes_no_sense_does_not_open() {
        let shelf = shelve(b"letter");
        assert!(Body::open(Box::new(shelf.clone()), BlobId(6)).is_err());
        let changes: [fn(&mut BlobRecord); 4] = [
            |record| record.size += 1 << 20,
            |record| record.stored += 1,
            |record| record.blocks.clear(),
            |record| record.blocks = vec![0],
        ];
        for change in changes {
            let mut shelf = shelf.clone();
            change(&mut shelf.record);
            assert!(Body::open(Box::new(shelf), BlobId(5)).is_err());
        }
    }
}
