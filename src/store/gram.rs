//! The gram index: which bodies surely do not hold a text (STORAGE section 8).
//!
//! A sheet (`mail::text::Sheet`) is a head and blocks of rows, each a sealed value of about a page. It
//! is derived from bodies and can be made again, so it goes past the journal: readers see it at
//! once, the next checkpoint makes it durable, and what a power cut takes is made anew. The head is
//! written last, and without it a sheet's blocks are nothing. Backups leave the table out. A body
//! whose number no sheet knows is simply read, and so is everything where a row is damaged.

use std::fmt;
use std::sync::Arc;

use redb::{ReadOnlyTable, ReadableTable};
use tokio::sync::watch;

use crate::mail::mailbox::{AccountId, ModSeq};
use crate::mail::message::BlobId;
use crate::mail::text::SheetHead;

use super::engine::Shared;
use super::error::{ReadError, Trouble};
use super::message::Plan;
use super::notify::BODIES_WATCH;
use super::table::{BLOB, GRAM, Tables};
use super::{Pending, Reader, Store, seal};

/// New bodies between two words to whoever waits at [`Store::watch_bodies`].
pub const BODIES_STEP: u64 = 512;

/// The table's name in its seals.
pub(super) const NAME: &str = "gram";

/// The row of a sheet's head; blocks follow it.
const HEAD: u32 = 0;

/// Bytes of the index that a row takes up: a large one has a page.
fn space_of(row: usize) -> u64 {
    if row > 2000 { (row as u64).next_multiple_of(4096) } else { row as u64 + 20 }
}

/// Writes rows of a sheet, without the journal.
fn put(tables: &mut Tables<'_>, first: u64, rows: &[(u32, Vec<u8>)]) -> Plan<()> {
    for (index, bytes) in rows {
        let mut value = seal::begin();
        value.extend_from_slice(bytes);
        let value = seal::seal(NAME, (first, *index), value);
        let before =
            tables.gram()?.insert((first, *index), value.as_slice())?.map_or(0, |row| space_of(row.value().len()));
        let kept = tables.progress.kept.saturating_add(space_of(value.len()));
        tables.progress.kept = kept.saturating_sub(before);
        tables.touched = true;
    }
    Ok(((), Vec::new()))
}

/// Removes sheets whose first body is one of these, with blocks that have no head.
pub(super) fn forget(tables: &mut Tables<'_>, first: u64, last: u64) -> Result<(), Trouble> {
    let rows = tables.gram()?.range((first, HEAD)..=(last, u32::MAX))?;
    let keys = rows.map(|row| Ok(row?.0.value())).collect::<Result<Vec<_>, Trouble>>()?;
    for key in keys {
        let freed = tables.gram()?.remove(key)?.map_or(0, |row| space_of(row.value().len()));
        tables.progress.kept = tables.progress.kept.saturating_sub(freed);
        tables.touched = true;
    }
    Ok(())
}

impl Store {
    /// Resolves with the next change when [`BODIES_STEP`] bodies have come since the last word.
    pub fn watch_bodies(&self) -> watch::Receiver<ModSeq> {
        self.watch(AccountId(BODIES_WATCH))
    }

    /// Writes rows of the sheet that begins with body `first`: 0 is its head, which comes last.
    pub fn put_sheet(&self, first: BlobId, rows: Vec<(u32, Vec<u8>)>) -> Pending<()> {
        self.plan_mail(move |tables| put(tables, first.0, &rows))
    }

    /// Removes the sheets that begin with a body from `first` to `last`.
    pub fn forget_sheets(&self, first: BlobId, last: BlobId) -> Pending<()> {
        self.plan(move |tables| Ok((forget(tables, first.0, last.0)?, Vec::new())))
    }
}

impl Reader {
    /// The gram index, as of this reader's moment.
    pub fn grams(&self) -> Result<Grams, ReadError> {
        let table = self.told(self.table(GRAM))?;
        let bodies = self.told(self.table(BLOB))?;
        let (shared, token) = self.keep();
        Ok(Grams { table, bodies, shared, _token: token })
    }
}

/// The gram index, as of one reader's moment.
pub struct Grams {
    table: ReadOnlyTable<(u64, u32), &'static [u8]>,
    bodies: ReadOnlyTable<u64, &'static [u8]>,
    shared: Arc<Shared>,
    /// Rows need their index open, even if another takes its place.
    _token: Arc<()>,
}

impl fmt::Debug for Grams {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Grams")
    }
}

impl Grams {
    /// The sheet that may know this body: the number it begins with, and its head, where it has one
    /// that can be read and reaches so far.
    ///
    /// # Errors
    /// When the disk fails. A damaged head is none.
    pub fn sheet_of(&self, body: BlobId) -> Result<Option<(BlobId, SheetHead)>, ReadError> {
        self.told(|| {
            let last = self.table.range(..=(body.0, u32::MAX))?.next_back().transpose()?;
            let Some(first) = last.map(|(key, _)| key.value().0) else { return Ok(None) };
            Ok(self.head(first)?.filter(|head| head.through() >= body.0).map(|head| (BlobId(first), head)))
        })
    }

    /// The first sheet that begins at `from` or later: its first body, and its head where it has one.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn next_sheet(&self, from: BlobId) -> Result<Option<(BlobId, Option<SheetHead>)>, ReadError> {
        self.told(|| {
            let next = self.table.range((from.0, HEAD)..)?.next().transpose()?;
            let Some(first) = next.map(|(key, _)| key.value().0) else { return Ok(None) };
            Ok(Some((BlobId(first), self.head(first)?)))
        })
    }

    /// Hands a block of rows to `take`, counted from 0. False when it is missing or damaged.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn block(&self, first: BlobId, block: u32, take: &mut dyn FnMut(&[u8])) -> Result<bool, ReadError> {
        self.told(|| {
            let key = (first.0, block.saturating_add(1));
            let Some(row) = self.table.get(key)? else { return Ok(false) };
            Ok(seal::open(NAME, key, row.value()).map(take).is_ok())
        })
    }

    /// The numbers of the bodies there are from `from` to `through`, the first `most` of them.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn bodies(&self, from: BlobId, through: BlobId, most: usize) -> Result<Vec<BlobId>, ReadError> {
        self.told(|| {
            let rows = self.bodies.range(from.0..=through.0.max(from.0))?;
            rows.take(most).map(|row| Ok(BlobId(row?.0.value()))).collect()
        })
    }

    fn head(&self, first: u64) -> Result<Option<SheetHead>, Trouble> {
        let row = self.table.get((first, HEAD))?;
        Ok(row.and_then(|row| SheetHead::decode(seal::open(NAME, (first, HEAD), row.value()).ok()?)))
    }

    fn told<T>(&self, read: impl FnOnce() -> Result<T, Trouble>) -> Result<T, ReadError> {
        read().map_err(|trouble| self.shared.failed(trouble))
    }
}
