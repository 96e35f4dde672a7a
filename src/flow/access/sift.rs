//! What a search need not read: bodies that the gram index says do not hold a text.
//!
//! For each text that is looked for the rows of its grams are read from the sheet that knows a
//! body, once for all bodies of the sheet. Uids and numbers of bodies rise together, so a search
//! goes from one sheet to the next; where they don't (mail that was moved about) some sheets are
//! kept.

use std::collections::VecDeque;

use crate::mail::message::BlobId;
use crate::mail::text::SheetHead;
use crate::store::{Grams, ReadError};

/// Sheets that are kept: some ten KiB each.
const SHEETS_MAX: usize = 16;

/// The gram index, asked about the texts of one search.
#[derive(Debug)]
pub(super) struct Sift<'q> {
    grams: Grams,
    /// The places of each text's grams.
    looks: &'q [Vec<u16>],
    /// The one asked last stands first.
    sheets: VecDeque<Sheet>,
    /// The last body that no sheet knew, and the next that one may know.
    unknown: Option<(u64, u64)>,
}

/// A sheet and what it says.
#[derive(Debug)]
struct Sheet {
    first: u64,
    head: SheetHead,
    /// For each text which of its bodies may hold it, a bit each.
    suspects: Vec<Vec<u64>>,
}

impl<'q> Sift<'q> {
    pub(super) fn new(grams: Grams, looks: &'q [Vec<u16>]) -> Self {
        Self { grams, looks, sheets: VecDeque::new(), unknown: None }
    }

    /// Tells whether a body surely does not hold a text.
    pub(super) fn lacks(&mut self, body: BlobId, look: usize) -> Result<bool, ReadError> {
        if self.unknown.is_some_and(|(from, to)| from <= body.0 && body.0 < to) || !self.turn_to(body)? {
            return Ok(false);
        }
        let Some(sheet) = self.sheets.front() else { return Ok(false) };
        let suspected = sheet.head.position(body.0).is_none_or(|at| {
            let words = sheet.suspects.get(look);
            words.and_then(|words| words.get(at / 64)).is_none_or(|word| word >> (at % 64) & 1 == 1)
        });
        Ok(!suspected)
    }

    /// Puts the sheet that may know a body in front; false when there is none.
    fn turn_to(&mut self, body: BlobId) -> Result<bool, ReadError> {
        let covers = |sheet: &Sheet| sheet.first <= body.0 && body.0 <= sheet.head.through();
        if let Some(at) = self.sheets.iter().position(covers) {
            self.sheets.swap(0, at);
            return Ok(true);
        }
        let Some((first, head)) = self.grams.sheet_of(body)? else {
            let next = self.grams.next_sheet(BlobId(body.0.saturating_add(1)))?;
            self.unknown = Some((body.0, next.map_or(u64::MAX, |(next, _)| next.0)));
            return Ok(false);
        };
        let suspects = self.looks.iter().map(|places| suspects(&self.grams, first, &head, places));
        let suspects = suspects.collect::<Result<_, _>>()?;
        self.sheets.push_front(Sheet { first: first.0, head, suspects });
        self.sheets.truncate(SHEETS_MAX);
        Ok(true)
    }
}

/// Which bodies of a sheet may hold a text with grams at these places, a bit each.
fn suspects(grams: &Grams, first: BlobId, head: &SheetHead, places: &[u16]) -> Result<Vec<u64>, ReadError> {
    let mut columns: Option<Vec<u8>> = None;
    for place in places {
        let (block, range) = head.find_row(*place);
        let mut join = |rows: &[u8]| {
            let Some(row) = rows.get(range.clone()) else { return };
            match &mut columns {
                Some(columns) => columns.iter_mut().zip(row).for_each(|(column, row)| *column &= row),
                None => columns = Some(row.to_vec()),
            }
        };
        // A row that can't be read rules nothing out.
        grams.block(first, block, &mut join)?;
        if columns.as_ref().is_some_and(|columns| columns.iter().all(|byte| *byte == 0)) {
            break;
        }
    }
    let mut bits = vec![u64::MAX; head.len().div_ceil(64)];
    let Some(columns) = columns else { return Ok(bits) };
    for (at, suspected) in head.suspects(&columns).enumerate() {
        if let Some(word) = bits.get_mut(at / 64).filter(|_| !suspected) {
            *word &= !(1 << (at % 64));
        }
    }
    Ok(bits)
}
