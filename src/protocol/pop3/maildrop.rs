//! The maildrop as a session numbers it: message 1 is the first uid of the snapshot, and numbers
//! stay what they are until the session ends, whatever is deleted (RFC 1939 section 5).

use super::Maildrop;
use crate::mail::mailbox::Uid;
use crate::mail::message::UidSet;

/// A maildrop with what this session has marked as deleted.
#[derive(Debug)]
pub(super) struct View {
    maildrop: Maildrop,
    deleted: UidSet,
    deleted_octets: u64,
}

/// Why a number names no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberError {
    /// There are not that many.
    None,
    /// It is marked as deleted.
    Deleted,
}

impl View {
    pub(super) fn new(maildrop: Maildrop) -> Self {
        Self { maildrop, deleted: UidSet::new(), deleted_octets: 0 }
    }

    /// How many messages are not marked, and their size.
    pub(super) fn left(&self) -> (u32, u64) {
        let messages = self.maildrop.uids.count().saturating_sub(self.deleted.count());
        (messages, self.maildrop.octets.saturating_sub(self.deleted_octets))
    }

    /// The uid of a message number.
    pub(super) fn uid(&self, number: u32) -> Result<Uid, NumberError> {
        let mut before = number.checked_sub(1).ok_or(NumberError::None)?;
        for &(first, last) in self.maildrop.uids.ranges() {
            let beyond = last.get() - first.get();
            if before <= beyond {
                let uid = Uid::new(first.get() + before).ok_or(NumberError::None)?;
                return if self.deleted.contains(uid) { Err(NumberError::Deleted) } else { Ok(uid) };
            }
            before -= beyond + 1;
        }
        Err(NumberError::None)
    }

    /// The text of UIDL: stays the same as long as the message is there (RFC 1939 section 7), and
    /// means no other message afterwards.
    pub(super) fn unique_id(&self, uid: Uid) -> String {
        format!("{}-{}", self.maildrop.uid_validity.0, uid.get())
    }

    /// Marks a message of so many octets as deleted.
    pub(super) fn delete(&mut self, uid: Uid, octets: u32) {
        if !self.deleted.contains(uid) {
            self.deleted.insert(uid);
            self.deleted_octets += u64::from(octets);
        }
    }

    /// Takes all marks back.
    pub(super) fn reset(&mut self) {
        self.deleted = UidSet::new();
        self.deleted_octets = 0;
    }

    /// What was marked.
    pub(super) fn into_deleted(self) -> UidSet {
        self.deleted
    }

    /// The last uid, if there is a message at all.
    pub(super) fn last(&self) -> Option<Uid> {
        self.maildrop.uids.last()
    }

    /// The message at `cursor` or the next one that is not marked, with its number.
    pub(super) fn at(&self, cursor: &mut Cursor) -> Option<(u32, Uid)> {
        loop {
            let &(first, last) = self.maildrop.uids.ranges().get(cursor.range)?;
            let uid = Uid::new(first.get().checked_add(cursor.within)?).filter(|uid| *uid <= last);
            match uid {
                None => {
                    cursor.range += 1;
                    cursor.within = 0;
                }
                Some(uid) if self.deleted.contains(uid) => cursor.advance(),
                Some(uid) => return Some((cursor.before + 1, uid)),
            }
        }
    }
}

/// A place in a maildrop, so that a listing goes on where it stopped.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    range: usize,
    /// Uids of that range already passed.
    within: u32,
    /// Messages already passed, marked ones too.
    before: u32,
}

impl Cursor {
    /// Passes one message.
    pub(super) fn advance(&mut self) {
        self.within = self.within.saturating_add(1);
        self.before = self.before.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::mailbox::UidValidity;
    use proptest::prelude::*;
    use std::num::NonZeroU32;

    fn view(uids: impl IntoIterator<Item = u32>) -> View {
        let uids = uids.into_iter().filter_map(Uid::new).collect();
        View::new(Maildrop { uid_validity: UidValidity(NonZeroU32::MIN), uids, octets: 1000 })
    }

    #[test]
    fn numbers_stay_when_messages_are_deleted() {
        let mut view = view([3, 4, 9]);
        view.delete(Uid::new(4).unwrap(), 300);
        view.delete(Uid::new(4).unwrap(), 300);
        assert_eq!(view.left(), (2, 700));
        assert_eq!(view.uid(3), Ok(Uid::new(9).unwrap()));
        assert_eq!(view.uid(2), Err(NumberError::Deleted));
        assert_eq!((view.uid(0), view.uid(4)), (Err(NumberError::None), Err(NumberError::None)));
        view.reset();
        assert_eq!((view.left(), view.uid(2)), ((3, 1000), Ok(Uid::new(4).unwrap())));
    }

    #[test]
    fn the_highest_uid_is_reached() {
        let view = view([u32::MAX]);
        assert_eq!(view.uid(1), Ok(Uid::MAX));
        let mut cursor = Cursor::default();
        assert_eq!(view.at(&mut cursor), Some((1, Uid::MAX)));
        cursor.advance();
        assert_eq!(view.at(&mut cursor), None);
    }

    proptest! {
        #[test]
        fn a_cursor_lists_what_the_numbers_name(
            uids in proptest::collection::btree_set(1_u32..60, 0..40),
            deleted in proptest::collection::btree_set(1_u32..60, 0..20),
        ) {
            let mut view = view(uids.iter().copied());
            for uid in deleted.intersection(&uids) {
                view.delete(Uid::new(*uid).unwrap(), 1);
            }
            let mut cursor = Cursor::default();
            let mut listed = Vec::new();
            while let Some((number, uid)) = view.at(&mut cursor) {
                prop_assert_eq!(view.uid(number), Ok(uid));
                listed.push(uid.get());
                cursor.advance();
            }
            prop_assert_eq!(listed, uids.difference(&deleted).copied().collect::<Vec<_>>());
        }
    }
}
