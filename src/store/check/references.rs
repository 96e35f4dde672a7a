//! Who refers to which body, counted both ways.
//!
//! A body's number says nothing about who refers to it, so the bodies are taken in windows of
//! [`WINDOW`], and everything that refers to bodies is gone through once for each window. Memory:
//! 20 bytes for a body of the window, 1.3 MiB.

use std::ops::Bound;

use super::finding::{Counter, Damage, Miscount, Place};
use super::view::View;
use super::{Checkup, Step};
use crate::store::blob::BlobRecord;
use crate::store::error::Trouble;
use crate::store::record::Record;

/// Bodies counted at a time.
const WINDOW: usize = 64 << 10;

/// References between two looks whether the check is to stop.
const STRIDE: u32 = 1024;

/// A body of the window.
struct Entry {
    /// Its number above the window's first.
    above: u32,
    refs: u32,
    size: u32,
    found: u32,
    known: bool,
}

impl Checkup<'_> {
    pub(super) fn references(&mut self, view: &View) -> Step {
        let mut from = Bound::Unbounded;
        loop {
            let Window { base, bodies: mut window, more } = fill(view, from)?;
            let start = match from {
                Bound::Excluded(last) => last + 1,
                _ => 0,
            };
            let last = window.last().map_or(base, |entry| base + u64::from(entry.above));
            let end = if more { last } else { u64::MAX };
            let mut seen = 0_u32;
            view.each_reference(&mut |reference| {
                seen = seen.wrapping_add(1);
                if seen.is_multiple_of(STRIDE) {
                    self.spend(0)?;
                }
                if !(start..=end).contains(&reference.body) {
                    return Ok(());
                }
                let above = reference.body.checked_sub(base).and_then(|above| u32::try_from(above).ok());
                let at = above.and_then(|above| window.binary_search_by_key(&above, |entry| entry.above).ok());
                let Some(entry) = at.and_then(|at| window.get_mut(at)) else {
                    let damage = if view.has_pieces(reference.body)? { Damage::BodyRecord } else { Damage::NoBody };
                    return self.find(reference.by.place(view)?, damage);
                };
                entry.found = entry.found.saturating_add(1);
                if !entry.known {
                    return self.find(reference.by.place(view)?, Damage::BodyRecord);
                }
                if entry.size != reference.size {
                    let damage = Damage::Size { kept: reference.size, found: entry.size.into() };
                    return self.find(reference.by.place(view)?, damage);
                }
                Ok(())
            })?;
            for entry in &window {
                self.referred(view, base + u64::from(entry.above), entry)?;
            }
            if !more {
                return Ok(());
            }
            from = Bound::Excluded(last);
        }
    }

    /// Compares what a body says with what was found.
    fn referred(&mut self, view: &View, id: u64, entry: &Entry) -> Step {
        let place = |view: &View| Ok::<_, Trouble>(Place::Body { id, subject: view.subject(id)? });
        match (entry.known, entry.found) {
            (true, found) if found == entry.refs && found > 0 => Ok(()),
            (_, 0) if view.is_passing(id)? => Ok(()),
            (false, 0) => self.find(place(view)?, Damage::BodyRecord),
            (false, _) => Ok(()),
            (true, 0) => self.find(place(view)?, Damage::Unreferenced),
            (true, found) => {
                let count = Miscount { of: Counter::References, kept: entry.refs.into(), found: found.into() };
                self.find(place(view)?, Damage::Miscounted(vec![count]))
            }
        }
    }
}

/// Bodies counted together.
struct Window {
    /// The number of the first.
    base: u64,
    bodies: Vec<Entry>,
    /// There are others behind them.
    more: bool,
}

fn fill(view: &View, from: Bound<u64>) -> Result<Window, Trouble> {
    let mut window = Window { base: 0, bodies: Vec::new(), more: false };
    for entry in view.bodies.range::<u64>((from, Bound::Unbounded))? {
        let (key, value) = entry?;
        let id = key.value();
        if window.bodies.is_empty() {
            window.base = id;
        }
        let above = id.checked_sub(window.base).and_then(|above| u32::try_from(above).ok());
        let Some(above) = above.filter(|_| window.bodies.len() < WINDOW) else {
            window.more = true;
            break;
        };
        let record = BlobRecord::decode(id, value.value()).ok();
        let known = record.is_some();
        let (refs, size) =
            record.map_or((0, 0), |record| (record.refs, u32::try_from(record.size).unwrap_or(u32::MAX)));
        window.bodies.push(Entry { above, refs, size, found: 0, known });
    }
    Ok(window)
}
