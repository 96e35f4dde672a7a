//! What one session knows of its selected mailbox (RFC 9051 sections 2.3.1, 5.2 and 7.5.1).
//!
//! Sequence numbers are positions in a set of uids, so the view is that set as ranges with the
//! number of messages before each: a mailbox of 100,000 messages nobody deleted from costs twelve
//! bytes. Messages that are gone but were not reported stay in the set, because the client still
//! counts them; they are a second set of ranges. Nothing is kept for each message.

use crate::mail::mailbox::{MailboxId, ModSeq, Uid};
use crate::mail::message::{Flagged, Keywords, UidSet};

use crate::mail::rights::Rights;

use super::context::Contexts;
use super::request::{Opened, Request};
use super::sequence::{SeqNumber, SequenceSet};

/// Why a sequence set means nothing in this mailbox (RFC 9051 section 9, `sequence-set`: BAD).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoSuchMessage;

/// A selected mailbox as its client knows it.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) mailbox: MailboxId,
    /// It was opened with EXAMINE.
    pub(crate) read_only: bool,
    /// What may be done with it, as far as the client was told. Whoever answers looks again.
    pub(crate) rights: Rights,
    /// Changes up to here have been reported.
    pub(crate) modseq: ModSeq,
    /// Changes of flags up to here have been reported.
    pub(crate) flags_modseq: ModSeq,
    /// Messages below this uid are known.
    pub(crate) uid_next: Uid,
    /// Some messages were shown as `\Recent` that are not marked as shown yet.
    pub(crate) unclaimed: bool,
    /// The keywords the client was told of.
    pub(crate) keywords: Keywords,
    /// The result of the last SEARCH RETURN (SAVE), for `$` (RFC 5182); cut at its next use.
    pub(crate) saved: UidSet,
    /// New messages of which NOTIFY wants something fetched.
    pub(crate) fresh: UidSet,
    /// Searches that are kept up to date.
    pub(crate) contexts: Option<Box<Contexts>>,
    /// What the client counts: `gone` is part of it.
    uids: UidSet,
    /// Messages before each range of `uids`.
    before: Vec<u32>,
    /// Removed, but not reported yet.
    gone: UidSet,
    /// `\Recent` in this session (RFC 3501 section 2.3.2).
    recent: UidSet,
}

impl View {
    /// The view right after SELECT or EXAMINE; messages from `recent_from` on are `\Recent`.
    pub(crate) fn new(opened: &Opened, recent_from: Uid, read_only: bool) -> Self {
        let mailbox = &opened.mailbox;
        let mut view = Self {
            mailbox: mailbox.id,
            read_only,
            rights: mailbox.rights,
            modseq: mailbox.highest_modseq,
            flags_modseq: mailbox.highest_modseq,
            unclaimed: false,
            uid_next: mailbox.uid_next,
            keywords: mailbox.keywords.clone(),
            saved: UidSet::new(),
            fresh: UidSet::new(),
            contexts: None,
            uids: opened.uids.clone(),
            before: Vec::new(),
            gone: UidSet::new(),
            recent: UidSet::new(),
        };
        view.mark_recent(recent_from);
        view.recount();
        view
    }

    /// Asks what changed since all that is known.
    pub(crate) fn ask_changes(&self) -> Request {
        let Self { mailbox, modseq: since, uid_next, rights, .. } = *self;
        Request::Changes { mailbox, since, uid_next, rights }
    }

    /// How many messages the client counts (EXISTS).
    pub(crate) fn exists(&self) -> u32 {
        let last = self.uids.ranges().last().map_or(0, |(first, last)| last.get() - first.get() + 1);
        self.before.last().map_or(0, |before| before + last)
    }

    /// How many of them are `\Recent`.
    pub(crate) fn recent_count(&self) -> u32 {
        self.recent.count()
    }

    /// Tells whether `uid` is `\Recent` here.
    pub(crate) fn is_recent(&self, uid: Uid) -> bool {
        self.recent.contains(uid)
    }

    /// Messages that are `\Recent` here.
    pub(crate) fn recent(&self) -> &UidSet {
        &self.recent
    }

    /// Every message the client counts, those that are gone included.
    pub(crate) fn uids(&self) -> &UidSet {
        &self.uids
    }

    /// Messages that are gone and still counted.
    pub(crate) fn gone(&self) -> &UidSet {
        &self.gone
    }

    /// Notes that messages may have come into the results of kept searches, or have left them.
    pub(crate) fn touch(&mut self, uids: &UidSet) {
        if let Some(contexts) = self.contexts.as_deref_mut() {
            contexts.touched.union_with(uids);
        }
    }

    /// Tells whether some messages are gone that the client still counts.
    pub(crate) fn has_gone(&self) -> bool {
        !self.gone.is_empty()
    }

    /// The sequence number of `uid`, if the client counts it.
    pub(crate) fn number(&self, uid: Uid) -> Option<u32> {
        let index = self.uids.ranges().partition_point(|range| range.1 < uid);
        let (first, _) = self.uids.ranges().get(index).filter(|range| range.0 <= uid)?;
        Some(self.before.get(index)? + (uid.get() - first.get()) + 1)
    }

    /// The uids a sequence set means: of message numbers, or with `uid` of uids.
    ///
    /// Numbers beyond the last message are an error (RFC 9051 section 9); uids that are not there
    /// are passed over (section 6.4.9). Time grows with the ranges of the set and of the view.
    pub(crate) fn resolve(&self, set: &SequenceSet, uid: bool) -> Result<UidSet, NoSuchMessage> {
        let ranges = match set {
            SequenceSet::Saved => return Ok(self.saved.intersection(&self.uids)),
            SequenceSet::Ranges(ranges) => ranges,
        };
        let highest = if uid { self.uids.last().map_or(0, Uid::get) } else { self.exists() };
        let end = |number: SeqNumber| match number {
            SeqNumber::Number(number) => number,
            SeqNumber::Star => highest,
        };
        let mut pairs = Vec::with_capacity(ranges.len());
        for &(from, to) in ranges {
            // Clients ask for 1:* without knowing that the mailbox is empty: there it means nothing.
            if highest == 0 && (from == SeqNumber::Star || to == SeqNumber::Star) {
                continue;
            }
            let (from, to) = (end(from), end(to));
            if !uid && (from.max(to) > highest || from.min(to) == 0) {
                return Err(NoSuchMessage);
            }
            pairs.push((from.min(to), from.max(to)));
        }
        pairs.sort_unstable();
        let mut numbers = UidSet::new();
        for (from, to) in pairs {
            // An empty mailbox makes `*` zero: nothing is meant.
            if let (Some(from), Some(to)) = (Uid::new(from.max(1)), Uid::new(to)) {
                numbers.insert_range(from, to);
            }
        }
        Ok(if uid { numbers.intersection(&self.uids) } else { self.uids_at(&numbers) })
    }

    /// The sequence numbers of `uids`, as ranges; those the client does not count are passed over.
    pub(crate) fn numbers(&self, uids: &UidSet) -> UidSet {
        let mut numbers = UidSet::new();
        for &(first, last) in uids.intersection(&self.uids).ranges() {
            if let (Some(first), Some(last)) =
                (self.number(first).and_then(Uid::new), self.number(last).and_then(Uid::new))
            {
                numbers.insert_range(first, last);
            }
        }
        numbers
    }

    /// Takes in messages that are new to the client, above all it knows. Those from
    /// `recent_from` on are `\Recent`.
    pub(crate) fn arrive(&mut self, new: &UidSet, recent_from: Uid) {
        self.uids.union_with(new);
        self.touch(new);
        for &(first, last) in new.ranges() {
            if last >= recent_from {
                self.recent.insert_range(first.max(recent_from), last);
            }
        }
        self.recount();
    }

    /// Notes what the session's own STORE did. Where nobody else changed flags since the last
    /// report, the client knows it all and nothing has to be looked through for it.
    pub(crate) fn flagged(&mut self, flagged: &Flagged) {
        self.touch(&flagged.changed);
        if flagged.flags_before <= self.flags_modseq {
            self.flags_modseq = self.flags_modseq.max(flagged.modseq);
        }
    }

    /// Notes that messages are gone; they keep their numbers until [`View::forget`].
    pub(crate) fn vanish(&mut self, uids: &UidSet) {
        self.gone.union_with(&uids.intersection(&self.uids));
    }

    /// Forgets up to `most` messages that are gone and returns the numbers for their EXPUNGE
    /// responses, highest first, so that each is right as it stands. Empty when all is told.
    pub(crate) fn forget(&mut self, most: u32) -> Vec<u32> {
        let told = self.gone.split_last(most);
        let mut numbers: Vec<u32> = told.iter().filter_map(|uid| self.number(uid)).collect();
        numbers.reverse();
        if !told.is_empty() {
            self.drop_told(&told);
        }
        numbers
    }

    /// Forgets messages that are gone, at most `most` ranges of them, and returns their uids for a
    /// VANISHED response. Empty when all is told.
    pub(crate) fn forget_ranges(&mut self, most: usize) -> UidSet {
        let told = self.gone.split_first_ranges(most);
        if !told.is_empty() {
            self.drop_told(&told);
        }
        told
    }

    fn drop_told(&mut self, told: &UidSet) {
        self.uids.subtract(told);
        self.recent.subtract(told);
        self.saved.subtract(told);
        self.gone.shrink_to_fit();
        self.recount();
    }

    /// Makes messages from `from` on `\Recent`.
    fn mark_recent(&mut self, from: Uid) {
        for &(first, last) in self.uids.ranges() {
            if last >= from {
                self.recent.insert_range(first.max(from), last);
            }
        }
    }

    /// The uids at these sequence numbers, all of which are there.
    fn uids_at(&self, numbers: &UidSet) -> UidSet {
        let mut uids = UidSet::new();
        let mut index = 0;
        for &(first, last) in numbers.ranges() {
            let (mut from, to) = (first.get(), last.get());
            while from <= to {
                // The range that holds message `from`: the last one with fewer messages before it.
                while self.before.get(index + 1).is_some_and(|before| *before < from) {
                    index += 1;
                }
                let (Some(range), Some(before)) = (self.uids.ranges().get(index), self.before.get(index)) else {
                    return uids;
                };
                let length = range.1.get() - range.0.get() + 1;
                let upto = to.min(before + length);
                if upto < from {
                    return uids;
                }
                let at = |number: u32| Uid::new(range.0.get() + (number - before - 1));
                if let (Some(first), Some(last)) = (at(from), at(upto)) {
                    uids.insert_range(first, last);
                }
                from = upto + 1;
            }
        }
        uids
    }

    fn recount(&mut self) {
        self.uids.shrink_to_fit();
        let mut count = 0;
        let before = self.uids.ranges().iter().map(|(first, last)| {
            let before = count;
            count += last.get() - first.get() + 1;
            before
        });
        self.before = before.collect();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;
    use crate::mail::mailbox::{AccountId, Mailbox, MailboxName, UidValidity};

    /// A mailbox as SELECT finds it.
    pub(crate) fn opened(uids: UidSet) -> Opened {
        let uid_next = uids.last().and_then(Uid::successor).unwrap_or(Uid::MIN);
        Opened {
            mailbox: Mailbox {
                id: MailboxId(1),
                account: AccountId(1),
                name: MailboxName::inbox(),
                special_use: None,
                subscribed: true,
                uid_validity: UidValidity(NonZeroU32::MIN),
                uid_next,
                highest_modseq: ModSeq(1),
                flags_modseq: ModSeq(0),
                messages: uids.count(),
                unseen: 0,
                deleted: 0,
                size: 0,
                deleted_size: 0,
                keywords: Keywords::default(),
                recent_from: Uid::MIN,
                rights: Rights::ALL,
            },
            uids,
            first_unseen: None,
        }
    }

    fn numbers(ranges: &[(u32, u32)]) -> SequenceSet {
        SequenceSet::Ranges(ranges.iter().map(|(a, b)| (SeqNumber::Number(*a), SeqNumber::Number(*b))).collect())
    }

    /// What may happen to a view.
    #[derive(Clone, Debug)]
    enum Event {
        Arrive(u32, u32),
        Vanish(Vec<u32>),
        Forget(u32),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0_u32..3, 1_u32..5).prop_map(|(gap, count)| Event::Arrive(gap, count)),
            prop::collection::vec(1_u32..60, 1..6).prop_map(Event::Vanish),
            (1_u32..10).prop_map(Event::Forget),
        ]
    }

    proptest! {
        /// The model is the plain list of uids a client would keep.
        #[test]
        fn a_view_numbers_messages_as_a_list_of_uids_does(events in prop::collection::vec(event(), 0..40)) {
            let mut view = View::new(&opened(UidSet::new()), Uid::MIN, false);
            let mut list: Vec<u32> = Vec::new();
            let mut gone: Vec<u32> = Vec::new();
            let mut next = 1;
            for event in events {
                match event {
                    Event::Arrive(gap, count) => {
                        next += gap;
                        let new: UidSet = (next..next + count).filter_map(Uid::new).collect();
                        list.extend(next..next + count);
                        next += count;
                        view.arrive(&new, Uid::MIN);
                    }
                    Event::Vanish(uids) => {
                        view.vanish(&uids.iter().filter_map(|uid| Uid::new(*uid)).collect());
                        gone.extend(uids.iter().filter(|uid| list.contains(uid)));
                        gone.sort_unstable();
                        gone.dedup();
                    }
                    Event::Forget(most) => {
                        for number in view.forget(most) {
                            let removed = list.remove(number as usize - 1);
                            prop_assert_eq!(gone.pop(), Some(removed));
                        }
                    }
                }
                prop_assert_eq!(view.exists() as usize, list.len());
                prop_assert_eq!(view.has_gone(), !gone.is_empty());
                prop_assert_eq!(view.recent_count() as usize, list.len());
                for uid in 1..next + 2 {
                    let number = list.iter().position(|known| *known == uid).map(|index| u32::try_from(index).unwrap() + 1);
                    prop_assert_eq!(view.number(Uid::new(uid).unwrap()), number);
                }
                for from in 1..=view.exists() {
                    for to in [from, view.exists(), (from + 3).min(view.exists())] {
                        let uids = view.resolve(&numbers(&[(to, from)]), false).unwrap();
                        let expected = &list[from as usize - 1..to as usize];
                        prop_assert_eq!(uids.iter().map(Uid::get).collect::<Vec<_>>(), expected);
                        prop_assert_eq!(view.numbers(&uids), (from..=to).filter_map(Uid::new).collect());
                    }
                }
            }
        }
    }

    #[test]
    fn a_number_beyond_the_last_message_is_an_error_and_a_uid_is_not() {
        let view = View::new(&opened((3..=4).filter_map(Uid::new).collect()), Uid::new(4).unwrap(), false);
        assert_eq!(view.resolve(&numbers(&[(1, 3)]), false), Err(NoSuchMessage));
        assert_eq!(view.resolve(&numbers(&[(1, 3)]), true).unwrap().count(), 1);
        assert!(view.resolve(&numbers(&[(9, 9)]), true).unwrap().is_empty());
        assert!(!view.is_recent(Uid::new(3).unwrap()) && view.is_recent(Uid::new(4).unwrap()));
    }

    #[test]
    fn a_star_is_the_last_message_even_below_the_other_end() {
        let view = View::new(&opened((3..=4).filter_map(Uid::new).collect()), Uid::MIN, false);
        let set = SequenceSet::Ranges(vec![(SeqNumber::Number(9), SeqNumber::Star)]);
        assert_eq!(view.resolve(&set, true).unwrap().iter().map(Uid::get).collect::<Vec<_>>(), [4]);
        let empty = View::new(&opened(UidSet::new()), Uid::MIN, false);
        assert!(empty.resolve(&set, true).unwrap().is_empty());
        assert!(empty.resolve(&set, false).unwrap().is_empty());
        assert_eq!(empty.resolve(&numbers(&[(1, 1)]), false), Err(NoSuchMessage));
    }
}
