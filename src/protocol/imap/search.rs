//! What SEARCH asks for (RFC 9051 section 6.4.4, RFC 7162, RFC 5182, RFC 5032).
//!
//! The parser makes a [`SearchProgram`]. The session, which alone knows message numbers and `$`,
//! turns its sets into uids with [`SearchKey::resolve`]; [`super::matching`] then says of each
//! message whether it is what was asked for.

use crate::mail::mailbox::ModSeq;
use crate::mail::message::{Keyword, SystemFlags, UidSet};

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
}

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
