//! Flags, keywords and sets of uids (RFC 9051 section 2.3).
//!
//! A keyword is a bit: each mailbox keeps the [`Keywords`] table that names the bits, so a
//! message's flags are twelve bytes wherever they are held.

use serde::{Deserialize, Serialize};

use super::date::{Timestamp, ZonedTime};
use super::mailbox::{ModSeq, Uid, UidValidity};

/// System flags (RFC 9051 section 2.3.2) as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SystemFlags(pub u8);

impl SystemFlags {
    /// `\Answered`
    pub const ANSWERED: Self = Self(1);
    /// `\Flagged`
    pub const FLAGGED: Self = Self(2);
    /// `\Deleted`
    pub const DELETED: Self = Self(4);
    /// `\Seen`
    pub const SEEN: Self = Self(8);
    /// `\Draft`
    pub const DRAFT: Self = Self(16);

    /// Tells whether every flag of `other` is set here.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the flags set in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the flags set here and not in `other`.
    #[must_use]
    pub fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// Most keywords a mailbox can name; a further one is refused with `LIMIT`.
pub const KEYWORDS_MAX: usize = 64;

/// Longest keyword in bytes.
pub const KEYWORD_MAX: usize = 128;

/// A keyword (RFC 9051 `flag-keyword`): a non-empty atom of at most [`KEYWORD_MAX`] bytes.
/// Compares without regard to ASCII case; keeps the spelling it was first given.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Keyword(String);

impl Keyword {
    /// Returns the keyword, or `None` when `name` is no atom or too long.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let special = |byte: u8| matches!(byte, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']');
        let atom = !name.is_empty()
            && name.len() <= KEYWORD_MAX
            && name.bytes().all(|byte| byte.is_ascii_graphic() && !special(byte));
        atom.then(|| Self(name.to_owned()))
    }

    /// The keyword as first spelled.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Keyword {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Keyword {}

/// The keywords a mailbox knows; the position is the bit in [`Flags::keywords`].
/// At most [`KEYWORDS_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keywords(pub Vec<Keyword>);

impl Keywords {
    /// Returns the bit of `keyword`, or `None` when the mailbox does not know it.
    #[must_use]
    pub fn bit(&self, keyword: &Keyword) -> Option<u64> {
        self.0.iter().position(|known| known == keyword).map(|index| 1 << index)
    }

    /// Names the keywords of the set bits.
    pub fn names(&self, bits: u64) -> impl Iterator<Item = &Keyword> {
        self.0.iter().enumerate().filter(move |(index, _)| bits >> index & 1 == 1).map(|(_, name)| name)
    }
}

/// The flags of one message: bits of the system flags, and of the mailbox's [`Keywords`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags {
    /// System flags; `\Recent` is no flag of a message but of a session's view.
    pub system: SystemFlags,
    /// Bits of the mailbox's [`Keywords`].
    pub keywords: u64,
}

/// Flags by name, as a client gives them in STORE and APPEND.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlagNames {
    /// System flags.
    pub system: SystemFlags,
    /// Keywords.
    pub keywords: Vec<Keyword>,
}

/// What STORE does with the flags it names (RFC 9051 section 6.4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagMode {
    /// `FLAGS`: exactly these.
    Replace,
    /// `+FLAGS`: these too.
    Add,
    /// `-FLAGS`: not these.
    Remove,
}

/// A set of uids as ascending, disjoint, non-adjacent inclusive ranges.
///
/// Costs eight bytes a range whatever the number of messages: a mailbox of 100,000 messages
/// nobody deleted from is one range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UidSet(Vec<(Uid, Uid)>);

impl UidSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Every uid from `first` to `last`.
    #[must_use]
    pub fn of_range(first: Uid, last: Uid) -> Self {
        Self(vec![(first.min(last), first.max(last))])
    }

    /// The ranges, ascending; both ends belong to the set.
    #[must_use]
    pub fn ranges(&self) -> &[(Uid, Uid)] {
        &self.0
    }

    /// Tells whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many uids the set holds.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.iter().map(|(first, last)| last.get() - first.get() + 1).sum()
    }

    /// The first uid, if any.
    #[must_use]
    pub fn first(&self) -> Option<Uid> {
        self.0.first().map(|range| range.0)
    }

    /// The last uid, if any.
    #[must_use]
    pub fn last(&self) -> Option<Uid> {
        self.0.last().map(|range| range.1)
    }

    /// Tells whether `uid` is in the set.
    #[must_use]
    pub fn contains(&self, uid: Uid) -> bool {
        let after = self.0.partition_point(|range| range.0 <= uid);
        after.checked_sub(1).and_then(|index| self.0.get(index)).is_some_and(|range| uid <= range.1)
    }

    /// Adds one uid. Amortised constant when uids come in ascending order.
    pub fn insert(&mut self, uid: Uid) {
        self.insert_range(uid, uid);
    }

    /// Adds every uid from `first` to `last`; the ends may be given in either order.
    pub fn insert_range(&mut self, first: Uid, last: Uid) {
        let (first, last) = if first <= last { (first, last) } else { (last, first) };
        // Ranges that touch or overlap [first, last] lie in [from, to).
        let from = self.0.partition_point(|range| range.1.get() < first.get().saturating_sub(1));
        let to = self.0.partition_point(|range| range.0.get() <= last.get().saturating_add(1));
        let low = self.0.get(from).filter(|_| from < to).map_or(first, |range| range.0.min(first));
        let high = to
            .checked_sub(1)
            .and_then(|index| self.0.get(index))
            .filter(|_| from < to)
            .map_or(last, |range| range.1.max(last));
        self.0.splice(from..to.max(from), [(low, high)]);
    }

    /// Takes one uid out; tells whether it was there.
    pub fn remove(&mut self, uid: Uid) -> bool {
        let index = self.0.partition_point(|range| range.1 < uid);
        let Some(&(first, last)) = self.0.get(index).filter(|range| range.0 <= uid) else { return false };
        let before = Uid::new(uid.get() - 1).filter(|_| first < uid).map(|end| (first, end));
        let after = uid.successor().filter(|_| uid < last).map(|start| (start, last));
        self.0.splice(index..=index, before.into_iter().chain(after));
        true
    }

    /// Every uid that is in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(&&a), Some(&&b)) = (left.peek(), right.peek()) {
            let (first, last) = (a.0.max(b.0), a.1.min(b.1));
            if first <= last {
                both.push((first, last));
            }
            if a.1 <= b.1 {
                left.next();
            } else {
                right.next();
            }
        }
        Self(both)
    }

    /// Takes out every uid of `other`. Time grows with the number of ranges.
    pub fn subtract(&mut self, other: &Self) {
        let mut holes = other.0.iter().peekable();
        let mut kept = Vec::with_capacity(self.0.len());
        for &(first, last) in &self.0 {
            // What is left of this range starts here; none when a hole reaches its end.
            let mut start = Some(first);
            while let (Some(from), Some(&&(hole, hole_end))) = (start, holes.peek()) {
                if hole > last {
                    break;
                }
                if let Some(end) = Uid::new(hole.get() - 1).filter(|end| from <= *end) {
                    kept.push((from, end));
                }
                start =
                    hole_end.max(Uid::new(from.get() - 1).unwrap_or(hole_end)).successor().filter(|next| *next <= last);
                if hole_end > last {
                    break;
                }
                holes.next();
            }
            kept.extend(start.map(|from| (from, last)));
        }
        self.0 = kept;
    }

    /// Adds every uid of `other`. Time grows with the number of ranges.
    pub fn union_with(&mut self, other: &Self) {
        let mut all: Vec<(Uid, Uid)> = Vec::with_capacity(self.0.len() + other.0.len());
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        loop {
            let next = match (left.peek(), right.peek()) {
                (Some(a), Some(b)) if a.0 <= b.0 => left.next(),
                (_, Some(_)) => right.next(),
                (_, None) => left.next(),
            };
            let Some(&(first, last)) = next else { break };
            match all.last_mut() {
                Some(before) if first.get() - 1 <= before.1.get() => before.1 = before.1.max(last),
                _ => all.push((first, last)),
            }
        }
        self.0 = all;
    }

    /// Cuts the lowest uids off, at most `count` of them.
    #[must_use]
    pub fn split_first(&mut self, count: u32) -> Self {
        let (mut whole, mut left) = (0, count);
        while let Some(&(first, last)) = self.0.get(whole).filter(|(first, last)| last.get() - first.get() < left) {
            left -= last.get() - first.get() + 1;
            whole += 1;
        }
        let mut taken: Vec<_> = self.0.drain(..whole).collect();
        // `left` is smaller than the range's length here, so neither end overflows.
        if let Some(range) = self.0.first_mut().filter(|_| left > 0)
            && let (Some(end), Some(start)) = (Uid::new(range.0.get() + left - 1), Uid::new(range.0.get() + left))
        {
            taken.push((range.0, end));
            range.0 = start;
        }
        Self(taken)
    }

    /// Cuts the lowest ranges off, at most `count` of them.
    #[must_use]
    pub fn split_first_ranges(&mut self, count: usize) -> Self {
        Self(self.0.drain(..count.min(self.0.len())).collect())
    }

    /// Cuts the highest uids off, at most `count` of them.
    #[must_use]
    pub fn split_last(&mut self, count: u32) -> Self {
        let mut rest = std::mem::take(self);
        *self = rest.split_first(rest.count().saturating_sub(count));
        rest
    }

    /// How many uids are below `uid`.
    #[must_use]
    pub fn count_below(&self, uid: Uid) -> u32 {
        self.0
            .iter()
            .take_while(|range| range.0 < uid)
            .map(|(first, last)| (*last).min(Uid::new(uid.get() - 1).unwrap_or(*last)).get() - first.get() + 1)
            .sum()
    }

    /// Gives memory back that the set no longer needs.
    pub fn shrink_to_fit(&mut self) {
        self.0.shrink_to_fit();
    }

    /// Every uid, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Uid> + '_ {
        self.0.iter().flat_map(|(first, last)| (first.get()..=last.get()).filter_map(Uid::new))
    }
}

impl FromIterator<Uid> for UidSet {
    fn from_iter<T: IntoIterator<Item = Uid>>(uids: T) -> Self {
        let mut set = Self::new();
        for uid in uids {
            set.insert(uid);
        }
        set
    }
}

/// A body in the store. Copies of a message share it, so it is also the message's `EMAILID`
/// (RFC 8474).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobId(pub u64);

/// One message of a mailbox: the small record, about 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its uid.
    pub uid: Uid,
    /// Its flags, by the mailbox's keywords.
    pub flags: Flags,
    /// When it last changed.
    pub modseq: ModSeq,
    /// INTERNALDATE
    pub internal_date: ZonedTime,
    /// When it came into this mailbox (RFC 8514 SAVEDATE), seconds.
    pub saved: Timestamp,
    /// RFC822.SIZE
    pub size: u32,
    /// Its body.
    pub blob: BlobId,
}

/// Where messages were put by APPEND, COPY or MOVE (RFC 4315).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The target mailbox's.
    pub uid_validity: UidValidity,
    /// Old uids, ascending (empty for APPEND).
    pub from: UidSet,
    /// New uids, ascending, in the order of the old ones.
    pub to: UidSet,
}

/// What STORE did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flagged {
    /// The modification sequence of the change; that of the mailbox when nothing changed.
    pub modseq: ModSeq,
    /// Messages whose flags are other than before.
    pub changed: UidSet,
    /// Messages left alone because they changed after UNCHANGEDSINCE.
    pub modified: UidSet,
    /// The mailbox's `flags_modseq` before the change.
    pub flags_before: ModSeq,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_uid_set_is_the_set_of_what_was_put_in(steps in prop::collection::vec((any::<bool>(), 1_u32..40, 0_u32..6), 0..60)) {
            let mut set = UidSet::new();
            let mut model = BTreeSet::new();
            for (insert, start, length) in steps {
                if insert {
                    set.insert_range(Uid::new(start).unwrap(), Uid::new(start + length).unwrap());
                    model.extend(start..=start + length);
                } else {
                    prop_assert_eq!(set.remove(Uid::new(start).unwrap()), model.remove(&start));
                }
            }
            prop_assert_eq!(set.iter().map(Uid::get).collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.count() as usize, model.len());
            for uid in 1..50 {
                prop_assert_eq!(set.contains(Uid::new(uid).unwrap()), model.contains(&uid));
            }
            for pair in set.ranges().windows(2) {
                prop_assert!(pair[0].1.get() + 1 < pair[1].0.get());
            }
        }

        #[test]
        fn sets_meet_join_and_part_as_sets_do(
            left in prop::collection::btree_set(1_u32..60, 0..40),
            right in prop::collection::btree_set(1_u32..60, 0..40),
            count in 0_u32..70,
        ) {
            let set = |model: &BTreeSet<u32>| model.iter().filter_map(|uid| Uid::new(*uid)).collect::<UidSet>();
            let (a, b) = (set(&left), set(&right));
            prop_assert_eq!(a.intersection(&b), set(&left.intersection(&right).copied().collect()));
            let mut rest = a.clone();
            rest.subtract(&b);
            prop_assert_eq!(rest, set(&left.difference(&right).copied().collect()));
            let mut both = a.clone();
            both.union_with(&b);
            prop_assert_eq!(both, set(&left.union(&right).copied().collect()));
            let mut rest = a.clone();
            prop_assert_eq!(rest.split_first(count), set(&left.iter().take(count as usize).copied().collect()));
            prop_assert_eq!(rest, set(&left.iter().skip(count as usize).copied().collect()));
            let mut rest = a.clone();
            prop_assert_eq!(rest.split_last(count), set(&left.iter().rev().take(count as usize).copied().collect()));
            prop_assert_eq!(rest, set(&left.iter().rev().skip(count as usize).copied().collect()));
            prop_assert_eq!(a.count_below(Uid::new(count + 1).unwrap()) as usize, left.range(..=count).count());
        }
    }
}
