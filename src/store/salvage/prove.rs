//! Putting bodies together from what was found, and proving them by their hash.

use std::sync::Arc;

use crate::mail::message::BlobId;

use super::super::ReadError;
use super::super::blob::{self, BlobRecord, Body, Hasher, PIECE_HEADER, PieceSource, piece_count};
use super::super::change::{Change, Op};
use super::scan::{Finds, Piece, Stream, same_body};
use super::{Loss, Medium};

/// A card may hold pieces of several stores under the same number, and a mail may hold something
/// that poses as a piece: so many ways to choose among them are tried.
const CHOICES_MAX: u32 = 16;

/// A body that can be read.
#[derive(Clone, Debug)]
pub(super) struct Whole {
    pub(super) blob: u64,
    pub(super) record: BlobRecord,
    from: From,
}

#[derive(Clone, Copy, Debug)]
enum From {
    /// From the stream with this number.
    Journal(usize),
    /// From pieces, chosen so where there are several of an index.
    Pieces(u32),
}

/// Finds the bodies that have a row or are in the journal.
pub(super) fn prove(medium: &Arc<Medium>, finds: &Finds, whole: &mut Vec<Whole>, losses: &mut Vec<Loss>) {
    for (number, stream) in finds.streams.iter().enumerate() {
        let found = Whole { blob: stream.blob, record: stream.record.clone(), from: From::Journal(number) };
        if !is_known(whole, stream.blob, &stream.record) && found.is_proven(medium, finds) {
            whole.push(found);
        }
    }
    whole.sort_by_key(|whole| whole.blob);
    let journaled = whole.clone();
    for (id, record) in &finds.rows {
        let first = journaled.partition_point(|known| known.blob < *id);
        let mut known = journaled.iter().skip(first).take_while(|known| known.blob == *id);
        if known.any(|known| same_body(&known.record, record)) {
            continue;
        }
        let of_body = finds.pieces_of(*id);
        let count = piece_count(record.stored);
        let within = of_body.chunk_by(|one, other| one.index == other.index);
        let found = within.filter(|pieces| pieces.first().is_some_and(|piece| piece.index < count)).count();
        let found = u32::try_from(found).unwrap_or(u32::MAX);
        let loss = Loss { blob: BlobId(*id), size: Some(record.size), missing: count - found, found };
        if loss.missing > 0 {
            losses.push(loss);
            continue;
        }
        let choice = |choice| Whole { blob: *id, record: record.clone(), from: From::Pieces(choice) };
        // One choice is enough where no index has two pieces.
        let choices = if of_body.len() as u64 > u64::from(count) { CHOICES_MAX } else { 1 };
        match (0..choices).map(choice).find(|found| found.is_proven(medium, finds)) {
            Some(found) => whole.push(found),
            None => losses.push(loss),
        }
    }
    // A body of which some row led to the whole is not lost because another did not.
    whole.sort_by_key(|whole| whole.blob);
    losses.retain(|loss| whole.binary_search_by_key(&loss.blob.0, |whole| whole.blob).is_err());
}

fn is_known(whole: &[Whole], blob: u64, record: &BlobRecord) -> bool {
    whole.iter().any(|known| known.blob == blob && same_body(&known.record, record))
}

impl Finds {
    /// The pieces found of a body, by index.
    pub(super) fn pieces_of(&self, blob: u64) -> &[Piece] {
        let start = self.pieces.partition_point(|piece| piece.blob < blob);
        let end = self.pieces.partition_point(|piece| piece.blob <= blob);
        self.pieces.get(start..end).unwrap_or_default()
    }
}

impl Whole {
    /// A body that has no row, with the record that its pieces gave.
    pub(super) fn orphan(blob: u64, record: BlobRecord) -> Self {
        Self { blob, record, from: From::Pieces(0) }
    }

    /// Opens it.
    pub(super) fn body(&self, medium: &Arc<Medium>, finds: &Finds) -> Result<Body, ReadError> {
        let source: Box<dyn PieceSource> = match self.from {
            From::Journal(number) => {
                let stream = finds.streams.get(number).ok_or_else(|| gone(self.blob))?;
                Box::new(Cut { record: self.record.clone(), pieces: stream.cut(medium)? })
            }
            From::Pieces(choice) => {
                let places = choose(finds.pieces_of(self.blob), piece_count(self.record.stored), choice);
                Box::new(Scattered { medium: medium.clone(), record: self.record.clone(), places })
            }
        };
        Body::open(source, BlobId(self.blob))
    }

    /// Reads it through: every piece has its checksum, every block its length, the whole its hash.
    pub(super) fn is_proven(&self, medium: &Arc<Medium>, finds: &Finds) -> bool {
        let Ok(mut body) = self.body(medium, finds) else { return false };
        let (mut hasher, mut offset) = (Hasher::default(), 0);
        while offset < body.len() {
            let Ok(bytes) = body.read(offset, usize::MAX) else { return false };
            if bytes.is_empty() {
                return false;
            }
            hasher.write(bytes);
            offset += bytes.len() as u64;
        }
        self.record.hash.is_none_or(|hash| hash == hasher.finish())
    }
}

/// Where each piece begins, one of each index: `choice` counts through those that are there twice.
fn choose(pieces: &[Piece], count: u32, mut choice: u32) -> Vec<u64> {
    let mut places = Vec::new();
    for index in 0..count {
        let of_index = pieces.iter().filter(|piece| piece.index == index).collect::<Vec<_>>();
        let several = u32::try_from(of_index.len()).unwrap_or(1).max(1);
        let pick = usize::try_from(choice % several).unwrap_or(0);
        choice /= several;
        places.extend(of_index.get(pick).map(|piece| piece.at));
    }
    places
}

impl Stream {
    /// Reads its group again and cuts its stream into pieces.
    fn cut(&self, medium: &Medium) -> Result<Vec<Vec<u8>>, ReadError> {
        let mut payload = vec![0; self.length];
        medium.read(self.at, &mut payload)?;
        let mut pieces = Vec::new();
        let each = Change::each(&payload, &mut |change| {
            for op in change.ops {
                let (Op::Body { id, stored: Some(stored), .. } | Op::UnhashedBody { id, stored: Some(stored), .. }) =
                    op
                else {
                    continue;
                };
                if id == self.blob {
                    pieces.clear();
                    let cut = blob::cut(BlobId(id), &stored.0, &mut |_, piece| {
                        pieces.push(piece.to_vec());
                        Ok(true)
                    });
                    drop(cut);
                }
            }
            Ok(())
        });
        each.map_err(|_| gone(self.blob))?;
        Ok(pieces)
    }
}

fn gone(blob: u64) -> ReadError {
    ReadError::Storage(format!("body {blob}: it was there a moment ago"))
}

/// Pieces in memory.
#[derive(Debug)]
struct Cut {
    record: BlobRecord,
    pieces: Vec<Vec<u8>>,
}

impl PieceSource for Cut {
    fn record(&self, _: BlobId) -> Result<Option<BlobRecord>, ReadError> {
        Ok(Some(self.record.clone()))
    }

    fn piece(&self, _: BlobId, index: u32, take: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        if let Some(piece) = self.pieces.get(index as usize) {
            take(piece);
        }
        Ok(())
    }
}

/// Pieces in the file.
#[derive(Debug)]
struct Scattered {
    medium: Arc<Medium>,
    record: BlobRecord,
    places: Vec<u64>,
}

impl PieceSource for Scattered {
    fn record(&self, _: BlobId) -> Result<Option<BlobRecord>, ReadError> {
        Ok(Some(self.record.clone()))
    }

    fn piece(&self, _: BlobId, index: u32, take: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        let Some(at) = self.places.get(index as usize) else { return Ok(()) };
        let length = blob::piece_size(self.record.stored, index).unwrap_or(0);
        let mut piece = vec![0; PIECE_HEADER + length];
        self.medium.read(*at, &mut piece)?;
        take(&piece);
        Ok(())
    }
}
