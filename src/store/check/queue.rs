//! Queued mail and what the spam filter learnt: every record, every counter, and the schedule both
//! ways.

use redb::ReadableTable;

use super::census::Sums;
use super::finding::{Counter, Damage, Miscount, Place};
use super::view::{Row, View, row};
use super::{Checkup, Step};
use crate::mail::queue::Due;
use crate::store::error::Trouble;
use crate::store::queue::{QueuedRecord, RecipientRecord};
use crate::store::record::Record;
use crate::store::table::load;
use crate::store::{gram, learned, seal};

impl Checkup<'_> {
    pub(super) fn queue(&mut self, view: &View, sums: &mut Sums) -> Step {
        let mut next = 0;
        for entry in view.queue.iter().map_err(Trouble::from)? {
            let (key, value) = entry.map_err(Trouble::from)?;
            let id = key.value();
            self.recipients_of_none(view, next, id)?;
            next = id.saturating_add(1);
            // A queued message has the number of the change that queued it.
            sums.highest_modseq = sums.highest_modseq.max(id);
            match QueuedRecord::decode(id, value.value()) {
                Ok(record) => self.queued(view, id, &record)?,
                Err(_) => self.find(view.queued(id)?, Damage::Unreadable)?,
            }
        }
        self.recipients_of_none(view, next, u64::MAX)?;
        self.schedule(view)
    }

    /// A message's recipients, and what of them is due.
    fn queued(&mut self, view: &View, id: u64, record: &QueuedRecord) -> Step {
        let (mut recipients, mut unsettled, mut scheduled) = (0_u32, 0_u32, true);
        for entry in view.recipients.range((id, 0)..=(id, u32::MAX)).map_err(Trouble::from)? {
            let (key, value) = entry.map_err(Trouble::from)?;
            let number = key.value().1;
            recipients += u32::from(number == recipients);
            let Ok(row) = RecipientRecord::decode(key.value(), value.value()) else {
                self.find(Place::Recipient { id, number }, Damage::Unreadable)?;
                unsettled += 1;
                continue;
            };
            unsettled += u32::from(!row.delivery.stage.is_settled());
            if let Some((domain, Due(due))) = row.scheduled() {
                scheduled &= view.schedule.get((due, id, number)).map_err(Trouble::from)?.is_some();
                scheduled &= view.destinations.get((domain, due, id, number)).map_err(Trouble::from)?.is_some();
            }
        }
        let mut counts = Vec::new();
        for (of, kept, found) in
            [(Counter::Recipients, record.recipients, recipients), (Counter::Unsettled, record.unsettled, unsettled)]
        {
            // What nobody waits for any more would have gone.
            if kept != found || kept == 0 {
                counts.push(Miscount { of, kept: kept.into(), found: found.into() });
            }
        }
        if !counts.is_empty() {
            self.find(view.queued(id)?, Damage::Miscounted(counts))?;
        }
        if scheduled { Ok(()) } else { self.find(view.queued(id)?, Damage::Unscheduled) }
    }

    /// Recipients whose message is not there.
    fn recipients_of_none(&mut self, view: &View, from: u64, to: u64) -> Step {
        let mut next = from;
        while next < to {
            let first = view.recipients.range((next, 0)..(to, 0)).map_err(Trouble::from)?.next();
            let Some((key, _)) = first.transpose().map_err(Trouble::from)? else { break };
            let id = key.value().0;
            next = id.saturating_add(1);
            self.find(view.queued(id)?, Damage::NoMessage)?;
        }
        Ok(())
    }

    /// What is due leads to a recipient for whom it is.
    fn schedule(&mut self, view: &View) -> Step {
        let wrong = |key: (u64, u64, u32), named: Option<&str>| -> Result<bool, Trouble> {
            let (due, id, number) = key;
            Ok(match row::<RecipientRecord>(load(&view.recipients, (id, number)))? {
                Row::There(row) => row
                    .scheduled()
                    .is_none_or(|(domain, Due(found))| found != due || named.is_some_and(|named| named != domain)),
                Row::Missing => true,
                // Told already.
                Row::Damaged => false,
            })
        };
        for entry in view.schedule.iter().map_err(Trouble::from)? {
            let (key, ()) = entry.map(|(key, value)| (key, value.value())).map_err(Trouble::from)?;
            if wrong(key.value(), None)? {
                self.find(view.queued(key.value().1)?, Damage::Unscheduled)?;
            }
        }
        for entry in view.destinations.iter().map_err(Trouble::from)? {
            let (key, _) = entry.map_err(Trouble::from)?;
            let (domain, due, id, number) = key.value();
            if wrong((due, id, number), Some(domain))? {
                self.find(view.queued(id)?, Damage::Unscheduled)?;
            }
        }
        Ok(())
    }

    /// What the spam filter learnt.
    pub(super) fn learned(&mut self, view: &View) -> Step {
        for entry in view.learned.iter().map_err(Trouble::from)? {
            let (key, value) = entry.map_err(Trouble::from)?;
            let (learner, piece) = key.value();
            if seal::open(learned::NAME, key.value(), value.value()).is_err() {
                self.find(Place::Learned { learner, piece }, Damage::Unreadable)?;
            }
        }
        Ok(())
    }

    /// The gram index. What it says of bodies is not gone over: it is only ever a hint.
    pub(super) fn grams(&mut self, view: &View) -> Step {
        let mut told = None;
        for entry in view.grams.iter().map_err(Trouble::from)? {
            let (key, value) = entry.map_err(Trouble::from)?;
            let (first, _) = key.value();
            if told != Some(first) && seal::open(gram::NAME, key.value(), value.value()).is_err() {
                told = Some(first);
                self.find(Place::Sheet { first }, Damage::Unreadable)?;
            }
        }
        Ok(())
    }
}
