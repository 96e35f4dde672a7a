//! Mailboxes and their messages: every record, every counter, the log of removed messages.

use redb::ReadableTable;

use super::census::{Sums, below, differs};
use super::finding::{Counter, Damage, Place};
use super::view::View;
use super::{Checkup, Step};
use crate::store::change::{VANISH_BYTES_MAX, vanish_cost};
use crate::store::error::Trouble;
use crate::store::record::{MailboxRecord, MessageRecord, Record, Tally, VanishRecord};

/// Messages between two looks whether the check is to stop.
const STRIDE: u64 = 1024;

/// What the messages of a mailbox came to.
#[derive(Debug, Default)]
pub(super) struct Count {
    pub(super) tally: Tally,
    pub(super) next_uid: u32,
    pub(super) highest_modseq: u64,
    /// Keywords in use.
    pub(super) keywords: u64,
}

impl Count {
    pub(super) fn add(&mut self, uid: u32, row: &MessageRecord) {
        self.tally.add(row.flags, row.size);
        self.next_uid = uid.saturating_add(1);
        self.highest_modseq = self.highest_modseq.max(row.modseq);
        self.keywords |= row.flags.keywords;
    }
}

/// The keyword bits that a mailbox has names for.
pub(super) fn known_keywords(record: &MailboxRecord) -> u64 {
    u32::try_from(record.keywords.0.len())
        .ok()
        .and_then(|count| 1_u64.checked_shl(count))
        .map_or(u64::MAX, |bit| bit - 1)
}

impl Checkup<'_> {
    pub(super) fn mailboxes(&mut self, view: &View, sums: &mut Sums) -> Step {
        let mut next = 0;
        for entry in view.mailboxes.iter().map_err(Trouble::from)? {
            let (key, value) = entry.map_err(Trouble::from)?;
            let id = key.value();
            if id < next {
                self.find(Place::Row { table: "mbox".to_owned(), key: id.to_string() }, Damage::Disorder)?;
                continue;
            }
            self.between(view, next, id, sums)?;
            next = id.saturating_add(1);
            sums.next_mailbox = next;
            self.report.mailboxes += 1;
            let record = MailboxRecord::decode(id, value.value()).ok();
            self.mailbox(view, id, record, sums)?;
        }
        self.between(view, next, u32::MAX, sums)
    }

    fn mailbox(&mut self, view: &View, id: u32, record: Option<MailboxRecord>, sums: &mut Sums) -> Step {
        let Some(record) = record else {
            self.messages(view, id, u64::MAX, sums)?;
            self.find(view.mailbox(id)?, Damage::Unreadable)?;
            return self.removed(view, id, None);
        };
        let count = self.messages(view, id, known_keywords(&record), sums)?;
        let used = sums.used.entry(record.account).or_default();
        used.messages = used.messages.saturating_add(count.tally.messages.into());
        used.bytes = used.bytes.saturating_add(count.tally.size);
        sums.highest_modseq = sums.highest_modseq.max(record.highest_modseq);
        sums.uid_validity = sums.uid_validity.max(record.uid_validity);

        let Tally { messages, unseen, deleted, size, deleted_size } = count.tally;
        let exact = [
            (Counter::Messages, record.messages.into(), messages.into()),
            (Counter::Unseen, record.unseen.into(), unseen.into()),
            (Counter::Deleted, record.deleted.into(), deleted.into()),
            (Counter::Size, record.size, size),
            (Counter::DeletedSize, record.deleted_size, deleted_size),
        ];
        let least = [
            (Counter::NextUid, record.uid_next.into(), count.next_uid.max(1).into()),
            (Counter::FirstRecent, record.recent_from.into(), 1),
            (Counter::HighestModSeq, record.highest_modseq, count.highest_modseq.max(record.flags_modseq)),
            (Counter::UidValidity, record.uid_validity.into(), 1),
        ];
        let counts: Vec<_> = exact.into_iter().filter_map(differs).chain(least.into_iter().filter_map(below)).collect();
        if !counts.is_empty() {
            self.find(view.mailbox(id)?, Damage::Miscounted(counts))?;
        }
        let listed = view.names.get((record.account, record.name.as_str())).map_err(Trouble::from)?;
        if listed.map(|listed| listed.value()) != Some(id) {
            self.find(view.mailbox(id)?, Damage::Unlisted)?;
        }
        if view.accounts.get(record.account).map_err(Trouble::from)?.is_none() {
            self.find(view.mailbox(id)?, Damage::NoAccount)?;
        }
        self.removed(view, id, Some(&record))
    }

    /// Goes through a mailbox's messages.
    fn messages(&mut self, view: &View, id: u32, keywords: u64, sums: &mut Sums) -> Step<Count> {
        let mut count = Count::default();
        let mut next = 0;
        for entry in view.messages.range((id, 0)..=(id, u32::MAX)).map_err(Trouble::from)? {
            let (key, value) = entry.map_err(Trouble::from)?;
            let uid = key.value().1;
            self.report.messages += 1;
            if self.report.messages.is_multiple_of(STRIDE) {
                self.spend(0)?;
            }
            if uid < next || key.value().0 != id {
                self.find(view.message(id, uid)?, Damage::Disorder)?;
                continue;
            }
            next = uid.saturating_add(1);
            let Ok(row) = MessageRecord::decode(key.value(), value.value()) else {
                // Its number was given out all the same.
                count.next_uid = next;
                self.find(view.message(id, uid)?, Damage::Unreadable)?;
                continue;
            };
            count.add(uid, &row);
            if row.flags.keywords & !keywords != 0 {
                self.find(view.message(id, uid)?, Damage::UnknownKeywords)?;
            }
        }
        sums.highest_modseq = sums.highest_modseq.max(count.highest_modseq);
        Ok(count)
    }

    /// Messages whose mailbox is not there belong to one that was deleted.
    fn between(&mut self, view: &View, from: u32, to: u32, sums: &mut Sums) -> Step {
        let mut next = from;
        while next < to {
            let first = view.messages.range((next, 0)..(to, 0)).map_err(Trouble::from)?.next();
            let Some((key, _)) = first.transpose().map_err(Trouble::from)? else { break };
            let id = key.value().0;
            next = id.saturating_add(1);
            sums.next_mailbox = next;
            self.messages(view, id, u64::MAX, sums)?;
            if !view.is_dropped(id)? {
                self.find(view.mailbox(id)?, Damage::NoMailbox)?;
            }
        }
        let mut next = from;
        while next < to {
            let first = view.vanished.range((next, 0)..(to, 0)).map_err(Trouble::from)?.next();
            let Some((key, _)) = first.transpose().map_err(Trouble::from)? else { break };
            let id = key.value().0;
            next = id.saturating_add(1);
            if !view.is_dropped(id)?
                && view.messages.range((id, 0)..=(id, u32::MAX)).map_err(Trouble::from)?.next().is_none()
            {
                self.find(view.mailbox(id)?, Damage::Vanished)?;
            }
        }
        Ok(())
    }

    /// The log of removed messages: it is bounded, and names none that is there.
    fn removed(&mut self, view: &View, id: u32, record: Option<&MailboxRecord>) -> Step {
        let Some(record) = record else { return Ok(()) };
        let (mut bytes, mut right) = (0_u32, record.vanish_from <= record.highest_modseq);
        for entry in view.vanished.range((id, 0)..=(id, u64::MAX)).map_err(Trouble::from)? {
            let (key, value) = entry.map_err(Trouble::from)?;
            bytes = bytes.saturating_add(vanish_cost(value.value()));
            let Ok(VanishRecord(uids)) = VanishRecord::decode(key.value(), value.value()) else {
                right = false;
                continue;
            };
            right &= key.value().1 <= record.highest_modseq;
            for (first, last) in uids.ranges() {
                let there = view.messages.range((id, first.get())..=(id, last.get())).map_err(Trouble::from)?.next();
                right &= there.is_none() && last.get() < record.uid_next;
            }
        }
        if right && bytes == record.vanish_bytes && bytes <= VANISH_BYTES_MAX {
            return Ok(());
        }
        self.find(view.mailbox(id)?, Damage::Vanished)
    }
}
