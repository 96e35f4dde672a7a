//! Searches whose results are kept up to date (RFC 5267 section 4.3).
//!
//! A context keeps what was found as ranges of uids. Whatever may change an answer, a new message or
//! one whose flags changed, is *touched*: only those are looked at again. What names messages or
//! depends on the time can change without a touch, so it is not kept up to date.

use crate::mail::message::UidSet;

use super::search::SearchKey;

/// Most contexts of a session; for more `NOUPDATE` is said (RFC 5267 section 4.3.1).
pub(crate) const CONTEXTS_MAX: usize = 4;

/// Most ranges of uids in a result that is kept up to date, at 8 bytes each.
pub(crate) const CONTEXT_RANGES_MAX: usize = 4096;

/// A search that is kept up to date.
#[derive(Debug)]
pub(crate) struct Context {
    /// Of the command that began it.
    pub(crate) tag: String,
    /// It is told in uids.
    pub(crate) uid: bool,
    /// What must hold.
    pub(crate) key: SearchKey,
    /// What the client was told.
    pub(crate) found: UidSet,
}

/// The contexts of a selected mailbox.
#[derive(Debug, Default)]
pub(crate) struct Contexts {
    /// In the order they were begun.
    pub(crate) list: Vec<Context>,
    /// Messages to look at again.
    pub(crate) touched: UidSet,
}

impl Context {
    /// Tells whether the result is too scattered to be kept.
    pub(crate) fn is_too_large(&self) -> bool {
        self.found.ranges().len() > CONTEXT_RANGES_MAX
    }
}

/// Tells whether the answer to a resolved search changes only where a message is touched.
pub(crate) fn can_follow(key: &SearchKey) -> bool {
    match key {
        SearchKey::Uids(_) | SearchKey::Older(_) | SearchKey::Younger(_) => false,
        SearchKey::And(keys) => keys.iter().all(can_follow),
        SearchKey::Or(left, right) => can_follow(left) && can_follow(right),
        SearchKey::Not(key) => can_follow(key),
        _ => true,
    }
}
