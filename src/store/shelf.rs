//! Bodies on their shelf: how their pieces, records and structures come and go in the tables.
//!
//! A body's last piece is apart, in TAIL, while it is small: between full pieces it would have a
//! page of its own, and in TAIL it shares one. So a mail of 4,100 bytes costs 4 KiB and not 8.
//! References are counted in the body's record; the last one to go takes the body along, or
//! leaves a large one to the sweep.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use redb::{ReadOnlyTable, ReadTransaction};

use crate::mail::message::BlobId;

use super::blob::{self, BlobRecord, PieceSource};
use super::engine::Shared;
use super::error::{ReadError, Trouble};
use super::gram::BODIES_STEP;
use super::notify::BODIES_WATCH;
use super::record::{Bytes, Record, StructureRecord};
use super::table::{BLOB, PIECE, SWEEP_BODY, SWEEP_STAGED, TAIL, Tables, load};

/// A last piece below this many bytes goes to TAIL: two of them fit a page.
const TAIL_MAX: usize = 2000;

/// What a body's record without its blocks, its structure and a message's row take beside their
/// own bytes: keys, offsets, checksums.
const ROWS_BYTES: u64 = 120;

/// Puts one piece on the shelf.
pub(super) fn put_piece(tables: &mut Tables<'_>, id: u64, index: u32, piece: &[u8]) -> Result<(), Trouble> {
    // Pieces are cut from large to small, so a small one is the last.
    if piece.len() < TAIL_MAX {
        tables.tail()?.insert(id, piece)?;
    } else {
        tables.piece()?.insert((id, index), piece)?;
    }
    Ok(())
}

/// Puts a body's record and structure on the shelf, and its pieces where they are not staged yet.
pub(super) fn put_body(
    tables: &mut Tables<'_>,
    id: u64,
    record: &BlobRecord,
    structure: &Bytes,
    stored: Option<&Bytes>,
) -> Result<(), Trouble> {
    let structure = StructureRecord(structure.clone()).encode(id)?;
    tables.blob()?.insert(id, record.encode(id)?.as_slice())?;
    tables.structure()?.insert(id, structure.as_slice())?;
    tables.progress.blob = tables.progress.blob.max(id.saturating_add(1));
    if id % BODIES_STEP == BODIES_STEP - 1 {
        tables.wake(BODIES_WATCH);
    }
    tables.progress.kept = tables.progress.kept.saturating_add(space_of(record, structure.len()));
    let Some(stored) = stored else {
        tables.sweep()?.remove((SWEEP_STAGED, id))?;
        return Ok(());
    };
    let mut trouble = None;
    let cut = blob::cut(BlobId(id), &stored.0, &mut |index, piece| {
        trouble = put_piece(tables, id, index, piece).err();
        Ok(trouble.is_none())
    });
    match (trouble, cut) {
        (Some(trouble), _) => Err(trouble),
        (None, Err(_)) => Err(Trouble::damaged("body of a change")),
        (None, Ok(())) => Ok(()),
    }
}

/// Bytes of the index that a body takes up: its pieces in their pages, its structure, its record
/// and a message's row, in pages that are full.
fn space_of(record: &BlobRecord, structure: usize) -> u64 {
    blob::piece_space(record.stored, TAIL_MAX) + (structure + 3 * record.blocks.len()) as u64 + ROWS_BYTES
}

/// Counts one reference to a body out. The last one removes it, or leaves that to the sweep when
/// this transaction has removed enough.
pub(super) fn release(tables: &mut Tables<'_>, id: u64) -> Result<(), Trouble> {
    let mut record: BlobRecord = load(tables.blob()?, id)?.ok_or_else(|| Trouble::damaged("message without a body"))?;
    record.refs = record.refs.saturating_sub(1);
    let pieces = blob::piece_count(record.stored);
    match tables.pieces_left.checked_sub(pieces.max(1)) {
        Some(left) if record.refs == 0 => {
            tables.pieces_left = left;
            let tail = tables.tail()?.remove(id)?.is_some();
            for index in 0..pieces.saturating_sub(u32::from(tail)) {
                tables.piece()?.remove((id, index))?;
            }
            erase(tables, id)
        }
        _ => {
            if record.refs == 0 {
                tables.leave_to_sweep(SWEEP_BODY, id)?;
            }
            tables.blob()?.insert(id, record.encode(id)?.as_slice())?;
            Ok(())
        }
    }
}

/// Removes what is kept of a body beside its pieces; a body that was never finished has nothing.
pub(super) fn erase(tables: &mut Tables<'_>, id: u64) -> Result<(), Trouble> {
    let structure = tables.structure()?.remove(id)?.map_or(0, |value| value.value().len());
    let record = tables.blob()?.remove(id)?.map(|value| BlobRecord::decode(id, value.value())).transpose()?;
    let space = record.map_or(0, |record| space_of(&record, structure));
    tables.progress.kept = tables.progress.kept.saturating_sub(space);
    Ok(())
}

/// Bodies as of one transaction, for many short ones that are read at once.
pub(super) struct Shelf {
    blob: ReadOnlyTable<u64, &'static [u8]>,
    piece: ReadOnlyTable<(u64, u32), &'static [u8]>,
    tail: ReadOnlyTable<u64, &'static [u8]>,
    /// The last piece's index where that is small, once the record was read.
    last: Cell<Option<u32>>,
    shared: Arc<Shared>,
}

impl Shelf {
    pub(super) fn new(transaction: &ReadTransaction, shared: Arc<Shared>) -> Result<Self, Trouble> {
        let (blob, piece, tail) =
            (transaction.open_table(BLOB)?, transaction.open_table(PIECE)?, transaction.open_table(TAIL)?);
        Ok(Self { blob, piece, tail, last: Cell::new(None), shared })
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Shelf")
    }
}

impl PieceSource for Shelf {
    fn record(&self, blob: BlobId) -> Result<Option<BlobRecord>, ReadError> {
        let record: Option<BlobRecord> = load(&self.blob, blob.0).map_err(|trouble| self.shared.failed(trouble))?;
        let last = record.as_ref().and_then(|record| {
            let last = blob::piece_count(record.stored).checked_sub(1)?;
            let size = blob::piece_size(record.stored, last)? + blob::PIECE_HEADER;
            (size < TAIL_MAX).then_some(last)
        });
        self.last.set(last);
        Ok(record)
    }

    fn piece(&self, blob: BlobId, index: u32, take: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        let find = || match self.last.get() {
            Some(last) if last == index => self.tail.get(blob.0),
            _ => self.piece.get((blob.0, index)),
        };
        let found = find().map_err(Trouble::from).and_then(|piece| piece.ok_or_else(|| Trouble::damaged("body")));
        take(found.map_err(|trouble| self.shared.failed(trouble))?.value());
        Ok(())
    }
}

/// Bodies as [`super::Body`] reads them: each piece in a transaction of its own, because a slow
/// client would keep one open for minutes and the file would grow meanwhile.
#[derive(Debug)]
pub(super) struct Pieces {
    shared: Arc<Shared>,
    /// The last piece's index, once the record was read.
    last: Cell<Option<u32>>,
}

impl Pieces {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, last: Cell::new(None) }
    }

    fn find(&self, blob: BlobId, index: u32, take: &mut dyn FnMut(&[u8])) -> Result<(), Attempt> {
        let transaction = self.shared.begin_read().map_err(Attempt::Refused)?;
        let find = || {
            let tail = if self.last.get() == Some(index) { transaction.open_table(TAIL)?.get(blob.0)? } else { None };
            let piece = match tail {
                Some(piece) => Some(piece),
                None => transaction.open_table(PIECE)?.get((blob.0, index))?,
            };
            piece.ok_or_else(|| Trouble::damaged("body: the message may have been removed"))
        };
        take(find().map_err(Attempt::Broken)?.value());
        Ok(())
    }
}

/// Why a piece was not read.
enum Attempt {
    /// The index is not open.
    Refused(ReadError),
    Broken(Trouble),
}

impl PieceSource for Pieces {
    fn record(&self, blob: BlobId) -> Result<Option<BlobRecord>, ReadError> {
        let transaction = self.shared.begin_read()?;
        let read = || load(&transaction.open_table(BLOB)?, blob.0);
        let record: Option<BlobRecord> = read().map_err(|trouble| self.shared.failed(trouble))?;
        self.last.set(record.as_ref().and_then(|record| blob::piece_count(record.stored).checked_sub(1)));
        Ok(record)
    }

    fn piece(&self, blob: BlobId, index: u32, take: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        // A body is read over many commands: one that the index is opened anew under goes on then.
        let found = match self.find(blob, index, take) {
            Err(Attempt::Broken(trouble)) if trouble.may_pass() => {
                drop(self.shared.failed(trouble));
                self.find(blob, index, take)
            }
            found => found,
        };
        found.map_err(|attempt| match attempt {
            Attempt::Refused(error) => error,
            Attempt::Broken(trouble) => self.shared.failed(trouble),
        })
    }
}
