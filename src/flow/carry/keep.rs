//! What import and export ask of a store, and how ours answers.

use crate::mail::mailbox::{AccountId, Mailbox, MailboxId, MailboxName, Uid};
use crate::mail::message::{BlobId, Keywords, Message};
use crate::store::{Body, NewMessage, ReadError, Spool, Spooled, Store, WriteError};

use super::CarryError;

/// Most messages that are compared with one that may have been kept already.
const COMPARED_MAX: usize = 4096;

/// Where imported mail goes: one account.
pub trait Keeper {
    /// The mailbox of this name, made and subscribed if it is not there.
    fn target(&mut self, name: &MailboxName) -> Result<Target, CarryError>;

    /// Begins a body.
    fn spool(&mut self) -> Result<Spool, CarryError>;

    /// Keeps messages, all or none, and a note before them; tells the uid after the last.
    fn append(&mut self, mailbox: MailboxId, messages: Vec<NewMessage>, note: Option<Note>) -> Result<Uid, CarryError>;

    /// The first message from `since` on that has exactly the bytes of `body`, if any.
    fn find(&mut self, mailbox: MailboxId, since: Uid, body: &Spooled) -> Result<Option<Uid>, CarryError>;

    /// A note kept before under this name.
    fn note(&mut self, name: &str) -> Result<Option<Vec<u8>>, CarryError>;

    /// Keeps a note.
    fn put_note(&mut self, note: Note) -> Result<(), CarryError>;

    /// The number that stands for the account in names of notes.
    fn account(&self) -> AccountId;
}

/// Where exported mail comes from: one account.
pub trait Giver {
    /// Its mailboxes.
    fn mailboxes(&mut self) -> Result<Vec<Mailbox>, CarryError>;

    /// The first `max` messages of a mailbox from `first` on.
    fn messages(&mut self, mailbox: MailboxId, first: Uid, max: usize) -> Result<Vec<Message>, CarryError>;

    /// Opens a body. [`ReadError::Storage`] is this message's trouble alone.
    fn body(&mut self, blob: BlobId) -> Result<Box<dyn Content + '_>, ReadError>;
}

/// A body being read.
pub trait Content {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// Some bytes from `offset`, at most `max`; none past the end.
    fn read(&mut self, offset: u64, max: usize) -> Result<&[u8], ReadError>;
}

impl Content for Body {
    fn size(&self) -> u64 {
        self.len()
    }

    fn read(&mut self, offset: u64, max: usize) -> Result<&[u8], ReadError> {
        Self::read(self, offset, max)
    }
}

/// A mailbox that mail is put into.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Target {
    /// Its number.
    pub id: MailboxId,
    /// What the next message will get at least.
    pub uid_next: Uid,
    /// The keywords it knows.
    pub keywords: Keywords,
}

/// Something small to remember under a name.
pub type Note = (String, Vec<u8>);

/// An account of our own store.
#[derive(Clone, Debug)]
pub struct Exchange {
    store: Store,
    account: AccountId,
}

impl Exchange {
    /// Carries mail of `account`.
    pub fn new(store: Store, account: AccountId) -> Self {
        Self { store, account }
    }

    /// Opens a body.
    pub(super) fn open(&self, blob: BlobId) -> Result<Body, ReadError> {
        self.store.body(blob)
    }

    fn named(&self, name: &MailboxName) -> Result<Option<Target>, CarryError> {
        let mailbox = self.store.reader()?.mailbox_named(self.account, name)?;
        Ok(mailbox.map(|found| Target { id: found.id, uid_next: found.uid_next, keywords: found.keywords }))
    }

    /// Tells whether a body of the store has the same bytes.
    fn is_same(&self, blob: BlobId, spooled: &Spooled) -> Result<bool, ReadError> {
        let (mut kept, mut new) = (self.open(blob)?, spooled.reader());
        let mut offset = 0;
        while offset < spooled.size() {
            let (one, other) = (kept.read(offset, usize::MAX)?, new.read(offset, usize::MAX)?);
            if one != other || one.is_empty() {
                return Ok(false);
            }
            offset += one.len() as u64;
        }
        Ok(true)
    }
}

impl Keeper for Exchange {
    fn target(&mut self, name: &MailboxName) -> Result<Target, CarryError> {
        if let Some(target) = self.named(name)? {
            return Ok(target);
        }
        match self.store.create_mailbox(self.account, name.clone(), None).wait() {
            // Somebody else may have made it meanwhile.
            Ok(_) | Err(WriteError::Exists) => {}
            Err(error) => return Err(error.into()),
        }
        self.store.subscribe(self.account, name.clone(), true).wait()?;
        self.named(name)?.ok_or(CarryError::Write(WriteError::NoSuchMailbox))
    }

    fn spool(&mut self) -> Result<Spool, CarryError> {
        Ok(self.store.spool()?)
    }

    fn append(&mut self, mailbox: MailboxId, messages: Vec<NewMessage>, note: Option<Note>) -> Result<Uid, CarryError> {
        // Both are asked for before either is waited for, so they share a sync.
        let noted = note.map(|(name, value)| self.store.put_note(&name, value));
        let placed = self.store.append(mailbox, messages);
        if let Some(noted) = noted {
            noted.wait()?;
        }
        let last = placed.wait()?.to.last();
        Ok(last.and_then(Uid::successor).unwrap_or(Uid::MAX))
    }

    fn find(&mut self, mailbox: MailboxId, since: Uid, body: &Spooled) -> Result<Option<Uid>, CarryError> {
        let reader = self.store.reader()?;
        for message in reader.messages(mailbox, since, Uid::MAX)?.take(COMPARED_MAX) {
            let message = message?;
            if u64::from(message.size) == body.size() && self.is_same(message.blob, body)? {
                return Ok(Some(message.uid));
            }
        }
        Ok(None)
    }

    fn note(&mut self, name: &str) -> Result<Option<Vec<u8>>, CarryError> {
        Ok(self.store.reader()?.note(name)?)
    }

    fn put_note(&mut self, (name, value): Note) -> Result<(), CarryError> {
        Ok(self.store.put_note(&name, value).wait()?)
    }

    fn account(&self) -> AccountId {
        self.account
    }
}

impl Giver for Exchange {
    fn mailboxes(&mut self) -> Result<Vec<Mailbox>, CarryError> {
        Ok(self.store.reader()?.mailboxes(self.account)?)
    }

    fn messages(&mut self, mailbox: MailboxId, first: Uid, max: usize) -> Result<Vec<Message>, CarryError> {
        let reader = self.store.reader()?;
        let found = reader.messages(mailbox, first, Uid::MAX)?.take(max);
        Ok(found.collect::<Result<_, _>>()?)
    }

    fn body(&mut self, blob: BlobId) -> Result<Box<dyn Content + '_>, ReadError> {
        Ok(Box::new(self.open(blob)?))
    }
}
