//! Every body: its record, structure, pieces, blocks and hash.
//!
//! Each piece is read in a read transaction of its own. A body that is found bad is looked for once
//! more: if it was removed meanwhile, there is no finding. Bodies do not know who refers to them, so
//! what is wrong is gathered and named for many at a time.

use std::ops::Bound;

use super::finding::{Damage, Finding, Place};
use super::view::{Row, View, row};
use super::{Checkup, Halt, Mode, Step, mend};
use crate::mail::message::BlobId;
use crate::mail::structure::{Structure, Walker};
use crate::store::blob::{BlobRecord, BodyHash, Wholeness, piece_count, read_whole};
use crate::store::error::Trouble;
use crate::store::record::{Bytes, StructureRecord};
use crate::store::scanned::walked;
use crate::store::table::load;

/// Findings about bodies that are named together: one look at all references names them all.
const SUSPECTS_MAX: usize = 256;

/// Hashes that are filled in by one change.
const HASHES_MAX: usize = 512;

/// Bytes that a body costs to read beside its pieces, by estimate.
const BODY_COST: u64 = 1024;

/// A body with something wrong.
#[derive(Debug)]
pub(super) struct Suspect {
    body: u64,
    damage: Damage,
    /// What was done about it.
    mended: Option<String>,
}

/// A body as it stood when the check came to it.
struct Found {
    id: u64,
    record: BlobRecord,
    /// As it is kept; `None` when it can't be read.
    structure: Option<Vec<u8>>,
    excess: bool,
}

impl Checkup<'_> {
    /// Reads bodies from number `from` on until `bytes` are read; gives the number to go on from.
    pub(super) fn bodies(&mut self, from: u64, bytes: u64) -> Step<Option<u64>> {
        let begun = self.read_so_far();
        let mut next = Some(from);
        while let Some(at) = next {
            if self.read_so_far().saturating_sub(begun) >= bytes {
                break;
            }
            let (found, after) = self.look(at)?;
            next = after;
            if let Some(found) = found {
                self.body(found)?;
            }
        }
        self.fill_hashes(0)?;
        self.name_suspects()?;
        Ok(next)
    }

    fn read_so_far(&self) -> u64 {
        self.pace.lock().unwrap_or_else(std::sync::PoisonError::into_inner).total()
    }

    /// Finds the next body, and what lies before it and belongs to none. Gives also where to go on.
    fn look(&mut self, at: u64) -> Step<(Option<Found>, Option<u64>)> {
        let view = self.view()?;
        let row_found = view.bodies.range(at..).map_err(Trouble::from)?.next().transpose().map_err(Trouble::from)?;
        let id = row_found.map(|(key, _)| key.value());
        self.lone(&view, at, id)?;
        let Some(id) = id else { return Ok((None, None)) };
        let after = id.checked_add(1);
        // A damaged record is told with the references, a body on its way out not at all.
        let Row::There(record) = row::<BlobRecord>(load(&view.bodies, id))? else { return Ok((None, after)) };
        if view.is_passing(id)? {
            return Ok((None, after));
        }
        let kept = row::<StructureRecord>(load(&view.structures, id))?.there();
        let structure = kept.map(|StructureRecord(Bytes(bytes))| bytes);
        let structure = structure.and_then(|bytes| walked(&bytes).map(<[u8]>::to_vec));
        let tail = view.tails.get(id).map_err(Trouble::from)?.is_some();
        let pieces = piece_count(record.stored).saturating_sub(u32::from(tail));
        let excess = view.pieces.range((id, pieces)..=(id, u32::MAX)).map_err(Trouble::from)?.next().is_some();
        Ok((Some(Found { id, record, structure, excess }), after))
    }

    /// Pieces and structures from `from` up to the body `to` that belong to no body.
    fn lone(&mut self, view: &View, from: u64, to: Option<u64>) -> Step {
        let mut next = from;
        loop {
            let end = to.map_or(Bound::Unbounded, Bound::Excluded);
            let key_of = |table: &redb::ReadOnlyTable<u64, &'static [u8]>| -> Result<Option<u64>, Trouble> {
                Ok(table.range::<u64>((Bound::Included(next), end))?.next().transpose()?.map(|(key, _)| key.value()))
            };
            if to.is_some_and(|to| next >= to) {
                return Ok(());
            }
            let end = to.map_or(Bound::Unbounded, |to| Bound::Excluded((to, 0)));
            let piece =
                view.pieces.range::<(u64, u32)>((Bound::Included((next, 0)), end)).map_err(Trouble::from)?.next();
            let piece = piece.transpose().map_err(Trouble::from)?.map(|(key, _)| key.value().0);
            let (tail, structure) = (key_of(&view.tails)?, key_of(&view.structures)?);
            let Some(id) = [piece, tail, structure].into_iter().flatten().min() else { return Ok(()) };
            if !view.is_passing(id)? {
                let pieces = piece == Some(id) || tail == Some(id);
                let damage = if pieces { Damage::LonePieces } else { Damage::LoneStructure };
                self.find(Place::Body { id, subject: view.subject(id)? }, damage)?;
            }
            let Some(after) = id.checked_add(1) else { return Ok(()) };
            next = after;
        }
    }

    /// Reads a body from end to end.
    fn body(&mut self, found: Found) -> Step {
        let Found { id, record, structure, excess } = found;
        self.report.bodies += 1;
        self.spend(BODY_COST)?;
        let mut walker = (self.options.deep || structure.is_none()).then(Walker::new);
        let whole = self.read_body(id, &record, &mut |raw| {
            if let Some(walker) = &mut walker {
                walker.feed(raw);
            }
        })?;
        let damage = match whole {
            Wholeness::Whole(hash) => {
                self.whole(id, &record, hash, structure.as_deref(), walker)?;
                excess.then_some(Damage::Excess)
            }
            Wholeness::Senseless => Some(Damage::BodyRecord),
            Wholeness::Pieces { first, count, of } => Some(Damage::Pieces { first, count, of }),
            Wholeness::Block(block) => Some(Damage::Block(block)),
            Wholeness::OtherHash => Some(Damage::Hash),
        };
        let Some(damage) = damage else { return Ok(()) };
        self.suspect(Suspect { body: id, damage, mended: None })
    }

    /// Hands a body's bytes to `take` and tells how whole it is.
    pub(super) fn read_body(&mut self, id: u64, record: &BlobRecord, take: &mut dyn FnMut(&[u8])) -> Step<Wholeness> {
        let last = piece_count(record.stored).saturating_sub(1);
        let fetch = |index: u32, hand: &mut dyn FnMut(&[u8])| -> Step {
            let mut length = 0;
            self.view()?.piece(id, index, index == last, &mut |piece| {
                length = piece.len();
                hand(piece);
            })?;
            self.spend(length as u64)
        };
        read_whole(BlobId(id), record, fetch, take)
    }

    /// A body is whole: so must be what was drawn from it.
    fn whole(
        &mut self,
        id: u64,
        record: &BlobRecord,
        hash: BodyHash,
        structure: Option<&[u8]>,
        walker: Option<Walker>,
    ) -> Step {
        if record.hash.is_none() && self.mode == Mode::Mend {
            self.hashes.push((id, hash));
            self.fill_hashes(HASHES_MAX)?;
        }
        let Some(walker) = walker else { return Ok(()) };
        let found = walker.finish();
        let again = postcard::to_allocvec(&found).map_err(|_| Trouble::damaged("structure"))?;
        let is_older =
            |known: &[u8]| postcard::from_bytes::<Structure>(known).is_ok_and(|known| known.is_older(&found));
        if structure.is_some_and(|known| known == again || is_older(known)) {
            return Ok(());
        }
        let damage = if structure.is_some() { Damage::StructureDiffers } else { Damage::Structure };
        let mended = match self.mode {
            Mode::Tell => None,
            _ => self.plan(move |tables| mend::structure(tables, id, again))?,
        };
        self.suspect(Suspect { body: id, damage, mended })
    }

    /// Fills in the hashes of bodies that schema 1 kept, when more than `most` wait.
    fn fill_hashes(&mut self, most: usize) -> Step {
        if self.hashes.is_empty() || self.hashes.len() < most {
            return Ok(());
        }
        let hashes = std::mem::take(&mut self.hashes);
        self.plan(move |tables| mend::hashes(tables, hashes)).map(drop)
    }

    fn suspect(&mut self, suspect: Suspect) -> Step {
        let view = self.view()?;
        let gone = !matches!(row::<BlobRecord>(load(&view.bodies, suspect.body))?, Row::There(_));
        if gone || view.is_passing(suspect.body)? {
            return Ok(());
        }
        drop(view);
        self.suspects.push(suspect);
        if self.suspects.len() >= SUSPECTS_MAX { self.name_suspects() } else { Ok(()) }
    }

    /// Tells what was gathered, each message by its name.
    fn name_suspects(&mut self) -> Step {
        let suspects = std::mem::take(&mut self.suspects);
        if suspects.is_empty() {
            return Ok(());
        }
        let view = self.view()?;
        let mut named = vec![false; suspects.len()];
        view.each_reference(&mut |reference| {
            let first = suspects.partition_point(|suspect| suspect.body < reference.body);
            for (suspect, named) in suspects.iter().zip(&mut named).skip(first) {
                if suspect.body != reference.body {
                    break;
                }
                *named = true;
                let finding = Finding { place: reference.by.place(&view)?, damage: suspect.damage.clone() };
                self.tell(&finding, suspect.mended.as_deref());
            }
            if self.pace.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_stopped() {
                return Err(Halt::Stopped);
            }
            Ok(())
        })?;
        for (suspect, _) in suspects.into_iter().zip(named).filter(|(_, named)| !named) {
            // Who was removed between the two looks is no finding either.
            if matches!(row::<BlobRecord>(load(&view.bodies, suspect.body))?, Row::There(_))
                && !view.is_passing(suspect.body)?
            {
                let place = Place::Body { id: suspect.body, subject: view.subject(suspect.body)? };
                self.tell(&Finding { place, damage: suspect.damage }, suspect.mended.as_deref());
            }
        }
        Ok(())
    }
}
