//! Sheets: which grams are in the texts of some hundred bodies, a bit for each.
//!
//! A sheet is a table of bits with a row for each place of a gram and a column for a stretch of
//! text. A search reads the few rows of what it looks for, and their conjunction names the columns
//! that may hold it: a row of a sheet is read at the cost of a page, whatever the bodies' sizes. A
//! column is filled to a third and then the next begins, so that long texts take several and short
//! ones share one; the last characters of a column stand in the next one as well, so that what is
//! looked for is in one of them as a whole. A sheet says "may be" or "surely not", and nothing else.

use serde::{Deserialize, Serialize};

use super::each_folded;
use super::grams::{LOOK_MAX, ROWS, Window};

/// What rows and grams mean. A sheet of another version is made anew.
pub const SHEET_VERSION: u8 = 1;

/// Most columns of a sheet: its bits take 512 KiB while it is made.
pub const COLUMNS_MAX: u16 = 512;

/// Most bodies of a sheet.
pub const BODIES_MAX: usize = 4096;

/// Bits of a column at which the next begins: a third.
const FILL: u16 = ROWS / 3;

/// Bits of a column above which no further body begins in it.
const FILL_SHARED: u16 = FILL / 4 * 3;

/// Most bodies that begin in a column: a find makes a search read them all.
const SHARED_MAX: u8 = 8;

/// Most columns of a body. One with more text than that (some hundred thousand characters of
/// prose) is always read.
const BODY_COLUMNS_MAX: u16 = 64;

/// Bytes of a row while the sheet is made.
const WIDTH: usize = COLUMNS_MAX as usize / 8;

/// Bytes of rows that are kept together: with key and seal they fill a page of 4 KiB.
const BLOCK_BYTES: usize = 3968;

/// The head of a sheet: whose texts are in it, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SheetHead {
    /// [`SHEET_VERSION`]
    version: u8,
    /// Bytes of a row.
    width: u8,
    /// The number of the first body looked at.
    first: u64,
    /// That of the last.
    through: u64,
    /// The bodies, ascending.
    bodies: Vec<Entry>,
}

/// A body of a sheet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Its number above that of the first.
    above: u32,
    /// Its first column.
    column: u16,
    /// How many it has; none when it has too much text, and may hold anything.
    columns: u16,
}

impl SheetHead {
    /// Reads a head; `None` when it is of another version, or none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let head: Self = postcard::from_bytes(bytes).ok()?;
        (head.version == SHEET_VERSION && (1..=WIDTH).contains(&head.width.into())).then_some(head)
    }

    /// The number of the last body it looked at.
    pub fn through(&self) -> u64 {
        self.through
    }

    /// How many bodies it knows.
    pub fn len(&self) -> usize {
        self.bodies.len()
    }

    /// Tells whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.bodies.is_empty()
    }

    /// In which block the row of a place stands, counted from 0, and where in it.
    pub fn find_row(&self, place: u16) -> (u32, std::ops::Range<usize>) {
        let width = usize::from(self.width).max(1);
        let rows = BLOCK_BYTES / width;
        let start = usize::from(place) % rows * width;
        (u32::try_from(usize::from(place) / rows).unwrap_or(u32::MAX), start..start + width)
    }

    /// Which of the bodies, by their place in the sheet, have a column among `columns` (a bit each, as
    /// in a row), or may hold anything.
    pub fn suspects<'s>(&'s self, columns: &'s [u8]) -> impl Iterator<Item = bool> + 's {
        let is_set =
            |column: u16| columns.get(usize::from(column / 8)).is_some_and(|byte| byte >> (column % 8) & 1 == 1);
        self.bodies.iter().map(move |entry| {
            let end = entry.column.saturating_add(entry.columns);
            entry.columns == 0 || (entry.column..end).any(is_set)
        })
    }

    /// Where a body stands in the sheet; `None` when it is not known here.
    pub fn position(&self, body: u64) -> Option<usize> {
        let above = u32::try_from(body.checked_sub(self.first)?).ok()?;
        self.bodies.binary_search_by_key(&above, |entry| entry.above).ok()
    }
}

/// A finished sheet.
#[derive(Clone, Debug)]
pub struct Sheet {
    /// Its head.
    pub head: SheetHead,
    /// Its rows, as every column was as wide as could be.
    bits: Vec<u8>,
}

impl Sheet {
    /// The head's bytes.
    pub fn head_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(&self.head).unwrap_or_default()
    }

    /// The blocks of rows, in order, each at most 4 KiB.
    pub fn blocks(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let width = usize::from(self.head.width).max(1);
        self.bits
            .chunks(WIDTH * (BLOCK_BYTES / width))
            .map(move |rows| rows.chunks(WIDTH).flat_map(|row| row.get(..width).unwrap_or_default()).copied().collect())
    }
}

/// Makes a sheet of texts.
#[derive(Debug)]
pub struct SheetMaker {
    bits: Vec<u8>,
    head: SheetHead,
    column: u16,
    /// Bits set in it.
    filled: u16,
    /// Bodies that began in it.
    sharing: u8,
    window: Window,
    /// The last characters, for the next column: the oldest stands at `at` once it is full.
    tail: Vec<char>,
    at: usize,
    /// The present body's first column.
    began: u16,
    /// It has too much text.
    over: bool,
    /// There is no column left for it.
    full: bool,
}

impl SheetMaker {
    /// Begins a sheet of the bodies from number `first` on.
    pub fn new(first: u64) -> Self {
        Self {
            bits: vec![0; usize::from(ROWS) * WIDTH],
            head: SheetHead { version: SHEET_VERSION, first, through: first, ..SheetHead::default() },
            column: 0,
            filled: 0,
            sharing: 0,
            window: Window::default(),
            tail: Vec::with_capacity(LOOK_MAX),
            at: 0,
            began: 0,
            over: false,
            full: false,
        }
    }

    /// Begins a body. False when there is no room for another: the sheet is done.
    pub fn begin(&mut self) -> bool {
        self.end_text();
        if self.filled > FILL_SHARED || self.sharing >= SHARED_MAX {
            self.next_column();
        }
        self.sharing += 1;
        (self.began, self.over) = (self.column, false);
        !self.full && self.head.bodies.len() < BODIES_MAX
    }

    /// Takes the next piece of the present text.
    pub fn feed(&mut self, text: &str) {
        if self.is_done_with_body() {
            return;
        }
        each_folded(text, |c| self.push(c));
    }

    /// Ends a text: nothing that is looked for reaches from one into the next.
    pub fn end_text(&mut self) {
        self.window.clear();
        self.tail.clear();
        self.at = 0;
    }

    /// Tells whether more text of the present body would change nothing.
    pub fn is_done_with_body(&self) -> bool {
        self.over || self.full
    }

    /// The present body can't be read: it may hold anything.
    pub fn give_up(&mut self) {
        self.over = true;
    }

    /// Ends the body, whose number is this. False when there was no room for all of it: the sheet is
    /// done, without it.
    pub fn end(&mut self, body: u64) -> bool {
        if self.full && !self.over {
            return false;
        }
        let Ok(above) = u32::try_from(body.saturating_sub(self.head.first)) else { return false };
        let mut columns = self.column - self.began + 1;
        if self.over {
            self.clear_columns();
            columns = 0;
        }
        self.head.bodies.push(Entry { above, column: self.began, columns });
        self.head.through = body;
        true
    }

    /// Ends the sheet.
    pub fn finish(mut self) -> Sheet {
        let used = self.head.bodies.iter().map(|entry| entry.column + entry.columns).max().unwrap_or(0);
        self.head.width = u8::try_from(used.div_ceil(8).max(1)).unwrap_or(u8::MAX);
        Sheet { head: self.head, bits: self.bits }
    }

    fn push(&mut self, c: char) {
        if self.is_done_with_body() {
            return;
        }
        let Self { bits, window, filled, column, .. } = self;
        window.push(c, |place| set(bits, place, *column, filled));
        if self.tail.len() < LOOK_MAX - 1 {
            self.tail.push(c);
        } else if let Some(oldest) = self.tail.get_mut(self.at) {
            *oldest = c;
            self.at = (self.at + 1) % (LOOK_MAX - 1);
        }
        if self.filled >= FILL {
            self.over = self.column - self.began + 1 >= BODY_COLUMNS_MAX;
            if !self.over {
                self.next_column();
                self.repeat_tail();
            }
        }
    }

    fn next_column(&mut self) {
        (self.filled, self.sharing) = (0, 0);
        if self.column + 1 < COLUMNS_MAX {
            self.column += 1;
        } else {
            self.full = true;
        }
    }

    /// The last characters stand in the new column too.
    fn repeat_tail(&mut self) {
        let (newer, older) = self.tail.split_at(self.at.min(self.tail.len()));
        self.window.clear();
        for &c in older.iter().chain(newer) {
            self.window.push(c, |place| set(&mut self.bits, place, self.column, &mut self.filled));
        }
    }

    /// Gives back the columns of a body that has too many. The one it began in may be shared.
    fn clear_columns(&mut self) {
        for row in self.bits.chunks_exact_mut(WIDTH) {
            for column in self.began + 1..=self.column {
                if let Some(byte) = row.get_mut(usize::from(column / 8)) {
                    *byte &= !(1 << (column % 8));
                }
            }
        }
        (self.column, self.filled) = (self.began, FILL);
    }
}

fn set(bits: &mut [u8], place: u16, column: u16, filled: &mut u16) {
    let Some(byte) = bits.get_mut(usize::from(place) * WIDTH + usize::from(column / 8)) else { return };
    let bit = 1 << (column % 8);
    *filled += u16::from(*byte & bit == 0);
    *byte |= bit;
}

#[cfg(test)]
mod tests {
    use super::super::grams::places_of;
    use super::super::{Finder, NEEDLE_MAX};
    use super::*;
    use proptest::prelude::*;

    fn sheet(texts: &[String]) -> Sheet {
        let mut maker = SheetMaker::new(10);
        for (body, text) in (10..).zip(texts) {
            assert!(maker.begin());
            maker.feed(text);
            assert!(maker.end(body));
        }
        maker.finish()
    }

    /// The bodies that may hold `needle`, as a search finds them from head and blocks.
    fn suspects(sheet: &Sheet, needle: &str) -> Vec<bool> {
        let head = SheetHead::decode(&sheet.head_bytes()).unwrap();
        let blocks: Vec<_> = sheet.blocks().collect();
        let mut columns = vec![0xFF; head.width.into()];
        for place in places_of(needle) {
            let (block, range) = head.find_row(place);
            for (column, byte) in columns.iter_mut().zip(&blocks[block as usize][range]) {
                *column &= byte;
            }
        }
        head.suspects(&columns).collect()
    }

    /// A text of words at random.
    fn words(seed: u64, count: usize) -> String {
        let mut state = seed;
        let mut word = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            format!("{:x} ", state >> 36)
        };
        (0..count).map(|_| word()).collect()
    }

    #[test]
    fn what_is_in_a_text_is_suspected_and_most_else_is_not() {
        let texts: Vec<_> = (0..60).map(|seed| words(seed, if seed % 7 == 0 { 3000 } else { 40 })).collect();
        let sheet = sheet(&texts);
        assert!(sheet.head.bodies.iter().any(|entry| entry.columns > 3), "{:?}", sheet.head);
        assert!(sheet.head.bodies.windows(2).any(|pair| pair[0].column == pair[1].column));
        assert!(sheet.blocks().all(|block| block.len() <= 4096));
        let mut wrong = 0;
        for (index, text) in texts.iter().enumerate() {
            for start in (0..text.len() - 200).step_by(397) {
                let found = suspects(&sheet, &text[start..start + 9 + start % 150]);
                assert!(found[index], "{index} at {start}");
                wrong += found.iter().filter(|found| **found).count() - 1;
            }
        }
        let asked: usize = texts.iter().map(|text| (text.len() - 200).div_ceil(397)).sum();
        // Some share a column with the one that has it.
        assert!(wrong < asked * 9, "{wrong} of {asked}");
        assert_eq!(suspects(&sheet, "no such words anywhere").iter().filter(|found| **found).count(), 0);
        assert_eq!(suspects(&sheet, "ab").iter().filter(|found| **found).count(), 60);
    }

    #[test]
    fn a_body_with_too_much_text_is_always_suspected_and_costs_no_columns() {
        let texts = [words(1, 40), words(2, 100_000), words(3, 40)];
        let sheet = sheet(&texts);
        assert_eq!(sheet.head.bodies[1].columns, 0);
        assert!(sheet.head.bodies[2].column <= 1, "{:?}", sheet.head);
        assert_eq!(suspects(&sheet, "no such words anywhere"), [false, true, false]);
        assert!(suspects(&sheet, &texts[2][5..40])[2]);
    }

    #[test]
    fn a_full_sheet_takes_no_more_and_forgets_the_body_that_did_not_fit() {
        let mut maker = SheetMaker::new(0);
        let mut taken = 0;
        while maker.begin() {
            maker.feed(&words(taken, 4000));
            if !maker.end(taken) {
                break;
            }
            taken += 1;
        }
        let sheet = maker.finish();
        assert!(taken > 20 && sheet.head.len() as u64 == taken, "{taken}");
        assert_eq!((sheet.head.through(), sheet.head.position(taken)), (taken - 1, None));
        assert_eq!(sheet.head.position(taken - 1), Some(sheet.head.len() - 1));
        let width = usize::from(sheet.head.width);
        assert!(width > WIDTH / 2, "{width}");
        assert_eq!(sheet.blocks().map(|block| block.len()).sum::<usize>(), usize::from(ROWS) * width);
    }

    #[test]
    fn what_is_no_head_is_none() {
        assert_eq!(SheetHead::decode(b""), None);
        let mut other = sheet(&[words(1, 10)]).head;
        other.version += 1;
        assert_eq!(SheetHead::decode(&postcard::to_allocvec(&other).unwrap()), None);
    }

    proptest! {
        #[test]
        fn whatever_the_finder_finds_is_suspected(
            texts in prop::collection::vec("[abAÄé便郵ß]{0,40}", 1..5),
            needle in "[abAÄé便郵ß]{1,6}",
        ) {
            let sheet = sheet(&texts);
            let suspected = suspects(&sheet, &needle);
            for (text, suspected) in texts.iter().zip(suspected) {
                let mut finder = Finder::new(&needle);
                finder.feed(text);
                prop_assert!(suspected || !finder.found(), "{text} {needle}");
            }
            prop_assert!(needle.len() < NEEDLE_MAX);
        }
    }
}
