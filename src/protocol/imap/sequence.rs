//! Sequence sets (RFC 9051 section 9, `sequence-set`; `$` is RFC 5182's saved search result).

use crate::mail::mailbox::Uid;
use crate::mail::message::UidSet;

use super::token::{Cursor, Parsed, Refusal};

/// One end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeqNumber {
    /// A message number or uid; never zero.
    Number(u32),
    /// `*`: the highest there is.
    Star,
}

/// Most ranges in one set; a longer one is `BAD`.
pub const RANGES_MAX: usize = 8192;

/// A set of message numbers or uids as the client wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SequenceSet {
    /// Ranges in the client's order; the ends may stand in either order; at most [`RANGES_MAX`].
    Ranges(Vec<(SeqNumber, SeqNumber)>),
    /// `$`
    Saved,
}

impl SequenceSet {
    /// Reads a set.
    pub(super) fn parse(cursor: &mut Cursor) -> Parsed<Self> {
        if cursor.eat(b'$') {
            return Ok(Self::Saved);
        }
        let mut ranges = Vec::new();
        loop {
            let first = number(cursor)?;
            let last = if cursor.eat(b':') { number(cursor)? } else { first };
            if ranges.len() >= RANGES_MAX {
                return Err(Refusal::No("[LIMIT] the sequence set has too many ranges"));
            }
            ranges.push((first, last));
            if !cursor.eat(b',') {
                ranges.shrink_to_fit();
                return Ok(Self::Ranges(ranges));
            }
        }
    }

    /// The numbers as ascending, disjoint, non-adjacent ranges, `*` being `highest`. Where that is
    /// zero there is nothing for `*` to mean, and a range with it is empty. `None` for `$`.
    #[must_use]
    pub fn numbers(&self, highest: u32) -> Option<Vec<(u32, u32)>> {
        let Self::Ranges(ranges) = self else { return None };
        let number = |end: SeqNumber| match end {
            SeqNumber::Number(number) => number,
            SeqNumber::Star => highest,
        };
        let mut sorted: Vec<(u32, u32)> = ranges
            .iter()
            .map(|(first, last)| (number(*first), number(*last)))
            .filter(|(first, last)| *first > 0 && *last > 0)
            .map(|(first, last)| (first.min(last), first.max(last)))
            .collect();
        sorted.sort_unstable();
        sorted.dedup_by(|next, range| {
            let joins = next.0 <= range.1.saturating_add(1);
            if joins {
                range.1 = range.1.max(next.1);
            }
            joins
        });
        Some(sorted)
    }

    /// The uids the set names, there or not; `*` is `last`, the highest uid in the mailbox, and
    /// `$` is `saved`.
    #[must_use]
    pub fn uids(&self, last: Option<Uid>, saved: &UidSet) -> UidSet {
        let Some(ranges) = self.numbers(last.map_or(0, Uid::get)) else { return saved.clone() };
        let mut uids = UidSet::new();
        for (first, last) in ranges {
            if let (Some(first), Some(last)) = (Uid::new(first), Uid::new(last)) {
                uids.insert_range(first, last);
            }
        }
        uids
    }
}

/// A number other than zero, or `*`.
fn number(cursor: &mut Cursor) -> Parsed<SeqNumber> {
    if cursor.eat(b'*') { Ok(SeqNumber::Star) } else { cursor.nz_number().map(SeqNumber::Number) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Option<SequenceSet> {
        let mut cursor = Cursor::new(text.as_bytes());
        SequenceSet::parse(&mut cursor).ok().filter(|_| cursor.is_at_end())
    }

    #[test]
    fn the_examples_of_rfc_9051_mean_what_it_says() {
        assert_eq!(read("2,4:7,9,12:*").unwrap().numbers(15).unwrap(), [(2, 2), (4, 7), (9, 9), (12, 15)]);
        assert_eq!(read("*:4,5:7").unwrap().numbers(10).unwrap(), [(4, 10)]);
        assert_eq!(read("4294967295:*,1").unwrap().numbers(3).unwrap(), [(1, 1), (3, u32::MAX)]);
        assert_eq!(read("$"), Some(SequenceSet::Saved));
    }

    #[test]
    fn a_star_names_nothing_in_an_empty_mailbox() {
        assert_eq!(read("*,1:*,3:4").unwrap().numbers(0).unwrap(), [(3, 4)]);
        assert!(read("1:*").unwrap().uids(None, &UidSet::new()).is_empty());
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for text in ["", "0", "1:0", "1,", ",1", "1:", "1:2:3", "a", "4294967296", "1,$", "-1", "1 :2"] {
            assert_eq!(read(text), None, "{text:?}");
        }
        assert!(read(&"1,".repeat(RANGES_MAX)).is_none());
        assert!(read(&format!("{}1", "3,".repeat(RANGES_MAX - 1))).is_some());
        assert!(read(&format!("{}1", "3,".repeat(RANGES_MAX))).is_none());
    }

    #[test]
    fn a_saved_result_stands_for_itself() {
        let saved: UidSet = [3, 4, 9].into_iter().filter_map(Uid::new).collect();
        assert_eq!(SequenceSet::Saved.uids(Uid::new(20), &saved), saved);
    }

    proptest! {
        #[test]
        fn numbers_are_those_of_any_range(ends in prop::collection::vec((0_u32..30, 0_u32..30), 1..12), highest in 1_u32..30) {
            let end = |number: u32| if number == 0 { SeqNumber::Star } else { SeqNumber::Number(number) };
            let value = |number: u32| if number == 0 { highest } else { number };
            let set = SequenceSet::Ranges(ends.iter().map(|(a, b)| (end(*a), end(*b))).collect());
            let ranges = set.numbers(highest).unwrap();
            let uids = set.uids(Uid::new(highest), &UidSet::new());
            for number in 1..32 {
                let wanted = ends.iter().any(|(a, b)| {
                    let (a, b) = (value(*a), value(*b));
                    (a.min(b)..=a.max(b)).contains(&number)
                });
                prop_assert_eq!(ranges.iter().any(|(first, last)| (*first..=*last).contains(&number)), wanted);
                prop_assert_eq!(uids.contains(Uid::new(number).unwrap()), wanted);
            }
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].1 + 1 < pair[1].0);
            }
        }
    }
}
