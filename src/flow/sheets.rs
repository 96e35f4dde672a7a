//! The gram index, made of bodies a sheet at a time (STORAGE section 8).
//!
//! Bodies that no sheet knows are a gap: the newest ones, or those between two sheets of which one
//! was given up because most of its bodies have gone. A gap with enough bodies becomes a sheet. The
//! text that is looked at is, to the letter, what SEARCH looks at.

use std::fmt;

use super::access::search::Open;
use crate::mail::header::FieldReader;
use crate::mail::message::BlobId;
use crate::mail::structure::Structure;
use crate::mail::text::{PartReader, SheetMaker, field_text};
use crate::store::{BODIES_STEP, ReadError, Store, WriteError};

/// Bodies between two sheets that are worth one. As many of the newest as [`BODIES_STEP`].
const HOLE_MIN: usize = 64;

/// Bodies read between two looks at whether to go on.
const BATCH: usize = 32;

/// Blocks written as one change: some 64 KiB, so that mail never waits long for them.
const BLOCKS_AT_ONCE: usize = 16;

/// Bodies that no sheet knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first of them.
    pub first: BlobId,
    /// No sheet knows anything up to here.
    pub last: BlobId,
}

/// Why no sheet was made.
#[derive(Debug)]
pub enum SheetError {
    /// Reading failed.
    Read(ReadError),
    /// Writing failed.
    Write(WriteError),
}

impl From<ReadError> for SheetError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<WriteError> for SheetError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

impl fmt::Display for SheetError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(out),
            Self::Write(error) => error.fmt(out),
        }
    }
}

impl std::error::Error for SheetError {}

/// Finds the first gap that is worth a sheet. Sheets that nobody can read, and those of which more
/// than half of the bodies have gone, are removed on the way. Blocks.
///
/// # Errors
/// The store's.
pub fn next_gap(store: &Store) -> Result<Option<Gap>, SheetError> {
    let newest_min = usize::try_from(BODIES_STEP).unwrap_or(usize::MAX);
    let mut from = BlobId(0);
    loop {
        let grams = store.reader()?.grams()?;
        let next = grams.next_sheet(from)?;
        let last = next.as_ref().map_or(BlobId(u64::MAX), |(first, _)| BlobId(first.0.saturating_sub(1)));
        if from <= last && next.as_ref().is_none_or(|(first, _)| *first > from) {
            let enough = if next.is_some() { HOLE_MIN } else { newest_min };
            let bodies = grams.bodies(from, last, enough)?;
            if let Some(first) = bodies.first().filter(|_| bodies.len() >= enough) {
                return Ok(Some(Gap { first: *first, last }));
            }
        }
        let Some((first, head)) = next else { return Ok(None) };
        let through = head.as_ref().map(|head| BlobId(head.through()));
        let half = head.as_ref().map_or(0, |head| head.len().div_ceil(2));
        match through {
            Some(through) if grams.bodies(first, through, half)?.len() >= half => {
                from = BlobId(through.0.saturating_add(1));
            }
            _ => {
                drop(grams);
                store.forget_sheets(first, first).wait()?;
            }
        }
    }
}

/// Makes a sheet of the first bodies of a gap, as many as it takes. `go_on` is asked now and then;
/// once it says no, nothing is made and the answer is false. Blocks.
///
/// # Errors
/// The store's; nothing is lost, and the next attempt begins anew.
pub fn make_sheet(store: &Store, gap: Gap, go_on: &mut dyn FnMut() -> bool) -> Result<bool, SheetError> {
    let mut maker = SheetMaker::new(gap.first.0);
    let mut next = Some(gap.first);
    while let Some(from) = next.filter(|from| *from <= gap.last) {
        next = gather(store, from, gap.last, &mut maker)?;
        if !go_on() {
            return Ok(false);
        }
    }
    let sheet = maker.finish();
    if sheet.head.is_empty() {
        return Ok(true);
    }
    // What an attempt left behind that was broken off.
    store.forget_sheets(gap.first, BlobId(sheet.head.through())).wait()?;
    let mut blocks = (1..).zip(sheet.blocks());
    loop {
        let rows: Vec<_> = blocks.by_ref().take(BLOCKS_AT_ONCE).collect();
        if rows.is_empty() {
            break;
        }
        store.put_sheet(gap.first, rows).wait()?;
        if !go_on() {
            return Ok(false);
        }
    }
    store.put_sheet(gap.first, vec![(0, sheet.head_bytes())]).wait()?;
    Ok(true)
}

/// Gathers some bodies; tells where to go on, and nothing when there are no more or the sheet is full.
fn gather(store: &Store, from: BlobId, last: BlobId, maker: &mut SheetMaker) -> Result<Option<BlobId>, SheetError> {
    let reader = store.reader()?;
    let (bodies, mut open) = (reader.bodies()?, Open::new(store));
    let mut next = None;
    for body in reader.grams()?.bodies(from, last, BATCH)? {
        if !maker.begin() {
            return Ok(None);
        }
        let gathered = bodies.structure(body).and_then(|structure| match structure {
            Some(structure) => read(&mut open, body, &structure, maker),
            None => Ok(()),
        });
        match gathered {
            Ok(()) => {}
            Err(ReadError::Closed) => return Err(ReadError::Closed.into()),
            // It may have been removed meanwhile; what is damaged others tell of.
            Err(ReadError::Storage(_)) => maker.give_up(),
        }
        if !maker.end(body.0) {
            return Ok(None);
        }
        next = Some(BlobId(body.0.saturating_add(1)));
    }
    Ok(next)
}

/// Reads all that SEARCH TEXT looks at.
fn read(open: &mut Open<'_>, body: BlobId, structure: &Structure, maker: &mut SheetMaker) -> Result<(), ReadError> {
    for extent in structure.headers() {
        let mut reader = FieldReader::new();
        let take = |maker: &mut SheetMaker, name: &[u8], body: &[u8]| {
            maker.feed(&field_text(name, body));
            maker.end_text();
        };
        open.read(body, extent, &mut |bytes| {
            reader.feed(bytes, |name, body| take(maker, name, body));
            !maker.is_done_with_body()
        })?;
        reader.finish(|name, body| take(maker, name, body));
    }
    for part in structure.texts() {
        let mut reader = PartReader::new(&part);
        open.read(body, part.extent, &mut |bytes| {
            reader.feed(bytes, &mut |text| maker.feed(text));
            !maker.is_done_with_body()
        })?;
        reader.finish(&mut |text| maker.feed(text));
        maker.end_text();
    }
    Ok(())
}

#[cfg(test)]
mod tests;
