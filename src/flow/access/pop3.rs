//! What a POP3 session asks about its maildrop, answered from the store (RFC 1939).
//!
//! The maildrop is the account's INBOX. [`Locks`] keeps it for one POP3 session at a time; IMAP
//! sessions and deliveries go on meanwhile, which the session allows for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::mail::mailbox::{AccountId, MailboxId, MailboxName, Uid};
use crate::mail::message::UidSet;
use crate::protocol::pop3::{
    Finding, Inquiry, Maildrop, OpenError, PIECE_MAX, Piece, PieceError, SIZES_MAX, Unavailable,
};
use crate::store::{Body, ReadError, Store};

/// Which accounts' maildrops are open; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Locks(Arc<Mutex<BTreeSet<AccountId>>>);

/// Keeps a maildrop for one session until it is dropped.
#[derive(Debug)]
struct Lock {
    locks: Locks,
    account: AccountId,
}

impl Locks {
    fn take(&self, account: AccountId) -> Option<Lock> {
        self.held().insert(account).then(|| Lock { locks: self.clone(), account })
    }

    fn held(&self) -> MutexGuard<'_, BTreeSet<AccountId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.locks.held().remove(&self.account);
    }
}

/// The world behind one POP3 session.
#[derive(Debug)]
pub struct Desk {
    store: Store,
    locks: Locks,
    open: Option<Open>,
}

/// An open maildrop.
#[derive(Debug)]
struct Open {
    mailbox: MailboxId,
    /// The message that is being sent.
    body: Option<(Uid, Body)>,
    _lock: Lock,
}

impl Desk {
    /// A desk with no maildrop open.
    #[must_use]
    pub fn new(store: Store, locks: Locks) -> Self {
        Self { store, locks, open: None }
    }

    /// Answers one inquiry. May block.
    pub fn answer(&mut self, inquiry: Inquiry) -> Finding {
        match inquiry {
            Inquiry::Open { account } => Finding::Open(self.open(account)),
            Inquiry::Sizes { first, last } => Finding::Sizes(self.sizes(first, last)),
            Inquiry::Piece { uid, offset } => Finding::Piece(self.piece(uid, offset)),
            Inquiry::Update { remove } => Finding::Update(self.update(remove)),
        }
    }

    fn open(&mut self, account: AccountId) -> Result<Maildrop, OpenError> {
        let lock = self.locks.take(account).ok_or(OpenError::InUse)?;
        let reader = self.store.reader().map_err(|error| failed(&error, OpenError::Unavailable))?;
        let mailbox = reader
            .mailbox_named(account, &MailboxName::inbox())
            .map_err(|error| failed(&error, OpenError::Unavailable))?
            // The account was removed since it was proved.
            .ok_or(OpenError::Unavailable)?;
        let uids = reader.uids(mailbox.id).map_err(|error| failed(&error, OpenError::Unavailable))?;
        self.open = Some(Open { mailbox: mailbox.id, body: None, _lock: lock });
        Ok(Maildrop { uid_validity: mailbox.uid_validity, uids, octets: mailbox.size })
    }

    fn sizes(&self, first: Uid, last: Uid) -> Result<Vec<(Uid, u32)>, Unavailable> {
        let open = self.open.as_ref().ok_or(Unavailable)?;
        let messages = self.store.reader().and_then(|reader| reader.messages(open.mailbox, first, last));
        messages
            .map_err(|error| failed(&error, Unavailable))?
            .take(SIZES_MAX)
            .map(|message| message.map(|message| (message.uid, message.size)))
            .collect::<Result<_, _>>()
            .map_err(|error| failed(&error, Unavailable))
    }

    fn piece(&mut self, uid: Uid, offset: u64) -> Result<Piece, PieceError> {
        let open = self.open.as_mut().ok_or(PieceError::Unavailable)?;
        let found = match open.body.take() {
            Some((kept, body)) if kept == uid => body,
            _ => {
                let message = self.store.reader().and_then(|reader| reader.message(open.mailbox, uid));
                let message = message.map_err(|error| failed(&error, PieceError::Unavailable))?;
                let blob = message.ok_or(PieceError::Gone)?.blob;
                self.store.body(blob).map_err(|error| failed(&error, PieceError::Unavailable))?
            }
        };
        let body = &mut open.body.insert((uid, found)).1;
        let size = body.len();
        let bytes = body.read(offset, PIECE_MAX).map_err(|error| failed(&error, PieceError::Unavailable))?.to_vec();
        let end = offset.saturating_add(bytes.len() as u64) >= size;
        if end {
            open.body = None;
        }
        Ok(Piece { bytes, size, end })
    }

    fn update(&mut self, remove: UidSet) -> Result<(), Unavailable> {
        let open = self.open.take().ok_or(Unavailable)?;
        if remove.is_empty() {
            return Ok(());
        }
        // The lock is let go after the removal and before the reply: the next session may come at once.
        self.store.remove(open.mailbox, remove).wait().map(drop).map_err(|error| {
            tracing::error!(?error, "messages deleted by POP3 were not removed");
            Unavailable
        })
    }
}

fn failed<E>(error: &ReadError, refusal: E) -> E {
    tracing::error!(?error, "the store could not be read for POP3");
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::Address;
    use crate::mail::date::ZonedTime;
    use crate::mail::message::FlagNames;
    use crate::mail::secret::ScramVerifier;
    use crate::mail::structure::Structure;
    use crate::store::{Folder, NewMessage, Quota, StoreConfig};

    #[test]
    fn a_maildrop_is_locked_for_one_session_until_it_ends() {
        let locks = Locks::default();
        let first = locks.take(AccountId(1));
        assert!(first.is_some() && locks.take(AccountId(1)).is_none());
        assert!(locks.take(AccountId(2)).is_some());
        drop(first);
        assert!(locks.take(AccountId(1)).is_some());
    }

    #[test]
    fn a_message_comes_in_pieces_and_leaves_at_the_update() {
        let folder = tempfile::tempdir().unwrap();
        let config = StoreConfig { journal_bytes: 1 << 20, reserve_bytes: 0, ..StoreConfig::default() };
        let store = Store::open(folder.path(), &config).unwrap();
        let verifier = ScramVerifier::made_up(&[0; 32], "ann", 1);
        let ann = Address::parse("ann@x.test").unwrap();
        let account = store.add_account(ann, verifier, Quota::default()).wait().unwrap();
        // Longer than a block, and not alike everywhere.
        let text: Vec<u8> = (0..200_000_u32).flat_map(|number| (number / 7).to_be_bytes()).collect();
        let mut spool = store.spool().unwrap();
        spool.write(&text).unwrap();
        let (structure, body) = (Structure::default(), spool.finish().unwrap());
        let message = NewMessage { body, structure, internal_date: ZonedTime::default(), flags: FlagNames::default() };
        store.deliver(message, vec![(account, Folder::Inbox)]).wait().unwrap();

        let mut desk = Desk::new(store.clone(), Locks::default());
        let maildrop = desk.open(account).unwrap();
        let uid = maildrop.uids.first().unwrap();
        assert_eq!((maildrop.uids.count(), maildrop.octets), (1, text.len() as u64));
        assert_eq!(desk.sizes(Uid::MIN, Uid::MAX), Ok(vec![(uid, 800_000)]));
        let mut found = Vec::new();
        loop {
            let piece = desk.piece(uid, found.len() as u64).unwrap();
            assert!(piece.bytes.len() <= PIECE_MAX && piece.size == 800_000);
            found.extend(piece.bytes);
            if piece.end {
                break;
            }
        }
        assert!(found == text);
        assert!(matches!(desk.piece(Uid::MAX, 0), Err(PieceError::Gone)));

        assert_eq!(Desk::new(store.clone(), desk.locks.clone()).open(account), Err(OpenError::InUse));
        assert_eq!(desk.update(UidSet::from_iter([uid])), Ok(()));
        assert_eq!(desk.open(account).unwrap().uids.count(), 0);
        assert_eq!(desk.update(UidSet::new()), Ok(()));
        assert_eq!(desk.update(UidSet::new()), Err(Unavailable), "it is no longer open");
    }
}
