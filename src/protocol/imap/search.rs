//! What SEARCH asks for, and whether a message is it (RFC 9051 section 6.4.4, RFC 7162, RFC 5182).

use crate::mail::mailbox::ModSeq;
use crate::mail::message::{Keyword, SystemFlags};

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
    ModSeq(ModSeq),
    /// RFC 5032, seconds.
    Older(u32),
    Younger(u32),
}
