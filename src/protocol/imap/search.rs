//! What SEARCH asks for (RFC 9051 section 6.4.4, RFC 7162, RFC 5182, RFC 5032, RFC 8474,
//! RFC 8514), and the order SORT and THREAD put it in.
//!
//! The parser makes a [`SearchProgram`]. The session, which alone knows message numbers and `$`,
//! turns its sets into uids with [`SearchKey::resolve`]; [`super::matching`] then says of each
//! message whether it is what was asked for.

use std::fmt;

use crate::mail::mailbox::ModSeq;
use crate::mail::message::{BlobId, Keyword, SystemFlags, UidSet};

use super::sequence::SequenceSet;

/// A SEARCH command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchProgram {
    /// `RETURN (...)`, `None` for the old form of answer.
    pub returns: Option<SearchReturns>,
    /// All of it must hold.
    pub key: SearchKey,
}

/// What an extended search returns (RFC 9051 section 7.3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are RFC 9051's")]
pub struct SearchReturns {
    pub min: bool,
    pub max: bool,
    pub all: bool,
    pub count: bool,
    pub save: bool,
    /// RFC 5267
    pub update: bool,
    /// Some of the result, by place (RFC 9394 section 3.1).
    pub partial: Option<Page>,
}

impl SearchReturns {
    /// Tells whether there is an ESEARCH response: SAVE alone has none (RFC 5182 section 2.1).
    #[must_use]
    pub fn answers(&self) -> bool {
        self.min || self.max || self.all || self.count || self.partial.is_some()
    }
}

/// Places in a result, from its front or its end on, in the client's order (RFC 9394). Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// One end.
    pub from: u32,
    /// The other, maybe lower.
    pub to: u32,
    /// Counted from the end: `-1:-100`.
    pub backwards: bool,
}

impl Page {
    /// The places from the front of a result of `count`, from zero on and without the last.
    #[must_use]
    pub fn places(self, count: usize) -> std::ops::Range<usize> {
        let index = |place: u32| usize::try_from(place).unwrap_or(usize::MAX).min(count);
        let (low, high) = (index(self.from.min(self.to) - 1), index(self.from.max(self.to)));
        if self.backwards { count - high..count - low } else { low..high }
    }
}

impl fmt::Display for Page {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.backwards { "-" } else { "" };
        write!(out, "{sign}{}:{sign}{}", self.from, self.to)
    }
}

/// One criterion of SORT (RFC 5256 section 3, RFC 5957).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// By what.
    pub by: SortBy,
    /// `REVERSE`
    pub reverse: bool,
}

/// What SORT goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are RFC 5256's and RFC 5957's")]
pub enum SortBy {
    Arrival,
    Cc,
    Date,
    DisplayFrom,
    DisplayTo,
    From,
    Size,
    Subject,
    To,
}

/// How THREAD puts messages together (RFC 5256 section 3; REFS is REFERENCES without subjects,
/// the thread with the latest message last).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are RFC 5256's")]
pub enum Threading {
    OrderedSubject,
    References,
    Refs,
}

/// Most criteria in one SORT; more is `BAD`.
pub const SORT_KEYS_MAX: usize = 16;

/// Deepest nesting of search keys; deeper is `BAD`.
pub const SEARCH_DEPTH_MAX: usize = 16;

/// Most keys in one search; more is `BAD`.
pub const SEARCH_KEYS_MAX: usize = 256;

/// A search key. Dates are days since 1970-01-01 as the client's calendar has them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are RFC 9051's; NEW, OLD, UNSEEN and the like are built from these")]
pub enum SearchKey {
    All,
    And(Vec<SearchKey>),
    Or(Box<SearchKey>, Box<SearchKey>),
    Not(Box<SearchKey>),
    Flag(SystemFlags),
    Recent,
    Keyword(Keyword),
    Before(i64),
    On(i64),
    Since(i64),
    SentBefore(i64),
    SentOn(i64),
    SentSince(i64),
    Larger(u64),
    Smaller(u64),
    /// Header field name (lower case) and substring; an empty substring asks for the field itself.
    /// BCC, CC, FROM, SUBJECT and TO are this too.
    Header(String, String),
    Body(String),
    Text(String),
    Uid(SequenceSet),
    Sequence(SequenceSet),
    /// What `Uid` and `Sequence` become in [`SearchKey::resolve`]; never parsed.
    Uids(UidSet),
    ModSeq(ModSeq),
    /// RFC 5032, seconds.
    Older(u32),
    Younger(u32),
    /// RFC 8514
    SavedBefore(i64),
    SavedOn(i64),
    SavedSince(i64),
    /// RFC 8474; `None` is no identifier of ours.
    EmailId(Option<BlobId>),
}

/// How a sequence set in a search is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetKind {
    /// Uids, after `UID`.
    Uids,
    /// Message numbers; `$` is uids all the same.
    Numbers,
}

impl SearchKey {
    /// Tells whether message numbers are among the keys; `$` is uids.
    #[must_use]
    pub fn names_numbers(&self) -> bool {
        match self {
            Self::Sequence(set) => *set != SequenceSet::Saved,
            Self::And(keys) => keys.iter().any(Self::names_numbers),
            Self::Or(left, right) => left.names_numbers() || right.names_numbers(),
            Self::Not(key) => key.names_numbers(),
            _ => false,
        }
    }

    /// Turns every sequence set into the uids that `look_up` gives for it.
    ///
    /// # Errors
    /// The first error of `look_up`, such as a message number that is too high.
    pub fn resolve<E>(self, look_up: &mut impl FnMut(SetKind, &SequenceSet) -> Result<UidSet, E>) -> Result<Self, E> {
        Ok(match self {
            Self::Uid(set) => Self::Uids(look_up(SetKind::Uids, &set)?),
            Self::Sequence(set) => Self::Uids(look_up(SetKind::Numbers, &set)?),
            Self::And(keys) => Self::And(keys.into_iter().map(|key| key.resolve(look_up)).collect::<Result<_, E>>()?),
            Self::Or(left, right) => Self::Or(Box::new(left.resolve(look_up)?), Box::new(right.resolve(look_up)?)),
            Self::Not(key) => Self::Not(Box::new(key.resolve(look_up)?)),
            key => key,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::mailbox::Uid;

    #[test]
    fn every_set_becomes_uids() {
        let set = |kind: fn(SequenceSet) -> SearchKey| Box::new(kind(SequenceSet::Saved));
        let key = SearchKey::And(vec![
            SearchKey::Not(set(SearchKey::Uid)),
            SearchKey::Or(set(SearchKey::Sequence), Box::new(SearchKey::Recent)),
        ]);
        let one = |number: u32| -> UidSet { Uid::new(number).into_iter().collect() };
        let resolved = key.clone().resolve(&mut |kind, _| Ok::<_, ()>(one(if kind == SetKind::Uids { 1 } else { 2 })));
        let uids = |number| Box::new(SearchKey::Uids(one(number)));
        let wanted = vec![SearchKey::Not(uids(1)), SearchKey::Or(uids(2), Box::new(SearchKey::Recent))];
        assert_eq!(resolved, Ok(SearchKey::And(wanted)));
        assert_eq!(key.resolve(&mut |_, _| Err("too high")), Err("too high"));
    }
}
