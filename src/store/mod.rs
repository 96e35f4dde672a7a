//! redb and the ring journal: accounts, mailboxes, messages. The only folder that names redb.
//!
//! [`Store`] speaks in mail words. Reads go through a [`Reader`], one redb read transaction that
//! lives as long as one command and never as long as a session. Writes are commands to the one
//! writer thread and come back as [`Pending`]: resolved only after the journal's `fdatasync`.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

pub mod blob; //    bodies: spool, compressed blocks, packed pieces
pub mod disk; //    a file as the store sees it, so that tests can fail it
pub mod journal; // the ring file that makes a 250 durable

pub use blob::{BlobId, Body, Spool, Spooled};

use tokio::sync::{oneshot, watch};

use crate::mail::address::{Address, Domain};
use crate::mail::date::ZonedTime;
use crate::mail::mailbox::{AccountId, MailboxId, MailboxName, ModSeq, SpecialUse, Uid, UidValidity};
use crate::mail::message::{FlagMode, FlagNames, Flags, Keywords, UidSet};
use crate::mail::secret::ScramVerifier;
use crate::mail::structure::Structure;

/// The store. Cheap to clone; the last clone does not close it, [`Store::close`] does.
#[derive(Clone, Debug)]
pub struct Store {}

/// How the store uses the board.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct StoreConfig {
    /// redb's cache in bytes; it is heap. Default: 2 MiB (STORAGE: 1 to 2 MiB is enough).
    pub cache_bytes: u32,
    /// The journal ring's size in bytes, written once at set-up. Default: 16 MiB.
    pub journal_bytes: u32,
    /// Space left free on the disk below which mail is refused with 452 4.3.1. Default: 32 MiB.
    pub reserve_bytes: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { cache_bytes: 2 << 20, journal_bytes: 16 << 20, reserve_bytes: 32 << 20 }
    }
}

/// A write on its way to the disk: a future, and [`Pending::wait`] for threads that may block.
/// Resolves once the change is durable. Dropping it does not take the write back.
#[derive(Debug)]
pub struct Pending<T>(oneshot::Receiver<Result<T, WriteError>>);

impl<T> Future for Pending<T> {
    type Output = Result<T, WriteError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or(Err(WriteError::Closed)))
    }
}

impl<T> Pending<T> {
    /// Blocks until the change is durable. Never call it on the reactor.
    ///
    /// # Errors
    /// As the write that made it.
    pub fn wait(self) -> Result<T, WriteError> {
        self.0.blocking_recv().unwrap_or(Err(WriteError::Closed))
    }
}

/// Why a write was not done. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// There is no such account (any more).
    NoSuchAccount,
    /// There is no such mailbox (any more).
    NoSuchMailbox,
    /// The name is taken.
    Exists,
    /// INBOX and mailboxes with children are not deleted, INBOX's name is not given away, and so on;
    /// the text says which rule.
    NotAllowed(&'static str),
    /// The account's quota of bytes or messages is used up.
    OverQuota,
    /// A bound of the store: mailboxes of an account, keywords of a mailbox, uids.
    Limit(&'static str),
    /// Too little space on the disk; nothing is lost, deleting makes room.
    DiskFull,
    /// The disk failed; the store reopens itself, trying again later may work.
    Storage(String),
    /// The store is closed.
    Closed,
}

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The disk failed or a checksum is wrong; the text says where.
    Storage(String),
    /// The store is closed.
    Closed,
}

/// Why the store did not open. `Display` is one sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Another process has it open.
    InUse(PathBuf),
    /// It was written by a newer Pillarbox.
    NewerSchema {
        /// Schema found.
        found: u32,
        /// Newest we know.
        known: u32,
    },
    /// The journal belongs to another store.
    ForeignJournal(PathBuf),
    /// The disk failed or the file is damaged.
    Storage(String),
}

/// An account.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its number.
    pub id: AccountId,
    /// Its first address, which is also its login.
    pub address: Address,
    /// What may be kept.
    pub quota: Quota,
    /// What is kept.
    pub used: Usage,
}

/// What an account may keep; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Quota {
    /// Bytes of messages.
    pub bytes: Option<u64>,
    /// Number of messages.
    pub messages: Option<u64>,
}

/// What an account keeps, each copy counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Bytes of messages.
    pub bytes: u64,
    /// Number of messages.
    pub messages: u64,
}

/// Where an address leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To these accounts (more than one through an alias), without doubles.
    Local(Vec<AccountId>),
    /// The domain is ours, the address is nobody's.
    Unknown,
    /// The domain is not ours.
    Remote,
}

/// An alias: mail for `address` goes to `targets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// What mail is addressed to; a catch-all is an alias with the local part `*`.
    pub address: Address,
    /// The accounts' addresses.
    pub targets: Vec<Address>,
}

/// A mailbox with its counters.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names are RFC 9051's STATUS items")]
pub struct Mailbox {
    pub id: MailboxId,
    pub account: AccountId,
    pub name: MailboxName,
    pub special_use: Option<SpecialUse>,
    pub subscribed: bool,
    pub uid_validity: UidValidity,
    pub uid_next: Uid,
    pub highest_modseq: ModSeq,
    pub messages: u32,
    pub unseen: u32,
    pub deleted: u32,
    /// Bytes of all messages.
    pub size: u64,
    /// Bytes of those marked `\Deleted`.
    pub deleted_size: u64,
    pub keywords: Keywords,
    /// Messages from here on have been shown to no session yet (RFC 3501 `\Recent`).
    pub recent_from: Uid,
}

/// One message of a mailbox: the small record, about 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    pub saved: crate::mail::date::Timestamp,
    /// RFC822.SIZE
    pub size: u32,
    /// Its body.
    pub blob: BlobId,
}

/// A message to be kept.
#[derive(Debug)]
pub struct NewMessage {
    /// The finished body.
    pub body: Spooled,
    /// What the part walker found.
    pub structure: Structure,
    /// INTERNALDATE
    pub internal_date: ZonedTime,
    /// Flags to begin with.
    pub flags: FlagNames,
}

/// Which mailbox of an account a delivery goes to; INBOX where there is no such mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folder {
    /// INBOX
    Inbox,
    /// The mailbox with this use.
    Special(SpecialUse),
    /// The mailbox of this name (subaddressing).
    Named(MailboxName),
}

/// One read transaction: the store as it is now, for one command.
#[derive(Debug)]
pub struct Reader {}

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
}

/// Figures for `status`.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Figures {
    /// Size of `mail.redb` and the journal on disk, allocated bytes.
    pub store_bytes: u64,
    /// Bytes written through the store since start: journal.
    pub journal_written: u64,
    /// Bytes written through the store since start: redb.
    pub index_written: u64,
    /// `fdatasync` calls since start.
    pub syncs: u64,
    /// Messages delivered or appended since start.
    pub messages: u64,
    /// Checkpoints since start.
    pub checkpoints: u64,
    /// When the last checkpoint was, seconds since 1970.
    pub last_checkpoint: Option<i64>,
}

#[expect(clippy::todo, reason = "the facade comes first")]
#[allow(unused_variables, clippy::missing_errors_doc)]
impl Store {
    /// Opens the store in `folder`, makes it if there is none, and replays the journal.
    pub fn open(folder: &Path, config: &StoreConfig) -> Result<Self, OpenError> {
        todo!()
    }

    /// Writes a checkpoint and closes. Later calls on other clones answer `Closed`.
    pub fn close(&self) -> Result<(), WriteError> {
        todo!()
    }

    /// Begins a read.
    pub fn reader(&self) -> Result<Reader, ReadError> {
        todo!()
    }

    /// The highest modification sequence of anything in this account; wakes when it rises.
    pub fn watch(&self, account: AccountId) -> watch::Receiver<ModSeq> {
        todo!()
    }

    /// Begins a body. Fails early with [`WriteError::DiskFull`] while the reserve is touched.
    pub fn spool(&self) -> Result<Spool, WriteError> {
        todo!()
    }

    /// Opens a body.
    pub fn body(&self, blob: BlobId) -> Result<Body, ReadError> {
        todo!()
    }

    /// Figures for `status`.
    pub fn figures(&self) -> Figures {
        todo!()
    }

    /// Keeps one message for several accounts, all or none; answers with the uids in their order.
    pub fn deliver(&self, message: NewMessage, to: Vec<(AccountId, Folder)>) -> Pending<Vec<(MailboxId, Uid)>> {
        todo!()
    }

    /// APPEND, several messages as one (RFC 3502).
    pub fn append(&self, mailbox: MailboxId, messages: Vec<NewMessage>) -> Pending<Placed> {
        todo!()
    }

    /// STORE; uids that are not there are passed over.
    pub fn flag(
        &self,
        mailbox: MailboxId,
        uids: UidSet,
        mode: FlagMode,
        flags: FlagNames,
        unchanged_since: Option<ModSeq>,
    ) -> Pending<Flagged> {
        todo!()
    }

    /// COPY, all or nothing.
    pub fn copy(&self, from: MailboxId, uids: UidSet, to: MailboxId) -> Pending<Placed> {
        todo!()
    }

    /// MOVE, all or nothing (RFC 6851); quota is not looked at within one account.
    pub fn relocate(&self, from: MailboxId, uids: UidSet, to: MailboxId) -> Pending<Placed> {
        todo!()
    }

    /// Removes what is marked `\Deleted`, of `uids` only if given; answers with what it removed.
    pub fn expunge(&self, mailbox: MailboxId, uids: Option<UidSet>) -> Pending<UidSet> {
        todo!()
    }

    /// Removes messages whatever their flags (POP3).
    pub fn remove(&self, mailbox: MailboxId, uids: UidSet) -> Pending<UidSet> {
        todo!()
    }

    /// Tells the first uid no session was shown and moves the mark to `uid_next`. Costs no sync of
    /// its own: the mark is written along with the next change.
    pub fn claim_recent(&self, mailbox: MailboxId) -> Pending<Uid> {
        todo!()
    }

    /// CREATE with its missing parents (RFC 9051 section 6.3.4).
    pub fn create_mailbox(
        &self,
        account: AccountId,
        name: MailboxName,
        special_use: Option<SpecialUse>,
    ) -> Pending<MailboxId> {
        todo!()
    }

    /// DELETE with all its messages. A mailbox with children stays (`NotAllowed`).
    pub fn delete_mailbox(&self, account: AccountId, name: MailboxName) -> Pending<()> {
        todo!()
    }

    /// RENAME with everything below; INBOX's messages move and INBOX stays (RFC 9051 section 6.3.6).
    pub fn rename_mailbox(&self, account: AccountId, from: MailboxName, to: MailboxName) -> Pending<()> {
        todo!()
    }

    /// SUBSCRIBE and UNSUBSCRIBE; a name may be subscribed that is no mailbox (any more).
    pub fn subscribe(&self, account: AccountId, name: MailboxName, subscribed: bool) -> Pending<()> {
        todo!()
    }

    /// Makes an account with its standard mailboxes; its domain becomes local.
    pub fn add_account(&self, address: Address, verifier: ScramVerifier, quota: Quota) -> Pending<AccountId> {
        todo!()
    }

    /// Removes an account with all its mail and the aliases that lead to it alone.
    pub fn remove_account(&self, account: AccountId) -> Pending<()> {
        todo!()
    }

    /// Changes an account's password.
    pub fn set_verifier(&self, account: AccountId, verifier: ScramVerifier) -> Pending<()> {
        todo!()
    }

    /// Changes an account's quota.
    pub fn set_quota(&self, account: AccountId, quota: Quota) -> Pending<()> {
        todo!()
    }

    /// Adds or replaces an alias; its domain must be local, its targets accounts.
    pub fn put_alias(&self, alias: Alias) -> Pending<()> {
        todo!()
    }

    /// Removes an alias.
    pub fn remove_alias(&self, address: Address) -> Pending<()> {
        todo!()
    }

    /// Makes a domain local.
    pub fn add_domain(&self, domain: Domain) -> Pending<()> {
        todo!()
    }

    /// Makes a domain foreign; refused while accounts or aliases are in it.
    pub fn remove_domain(&self, domain: Domain) -> Pending<()> {
        todo!()
    }

    /// Keeps a small setting of the program's own (such as the import's progress) under a name.
    pub fn put_note(&self, name: &str, value: Vec<u8>) -> Pending<()> {
        todo!()
    }
}

#[expect(clippy::todo, reason = "the facade comes first")]
#[allow(unused_variables, clippy::missing_errors_doc)]
impl Reader {
    /// The local domains, sorted.
    pub fn domains(&self) -> Result<Vec<Domain>, ReadError> {
        todo!()
    }

    /// All accounts, by number.
    pub fn accounts(&self) -> Result<Vec<Account>, ReadError> {
        todo!()
    }

    /// One account.
    pub fn account(&self, id: AccountId) -> Result<Option<Account>, ReadError> {
        todo!()
    }

    /// The account with this login: its first address, or the local part alone where one account
    /// only has it.
    pub fn login(&self, login: &str) -> Result<Option<(Account, ScramVerifier)>, ReadError> {
        todo!()
    }

    /// Where mail to `address` goes: account, alias, the same without `+detail`, catch-all.
    /// `postmaster` of a local domain reaches the first account when nobody else has it.
    pub fn route(&self, address: &Address) -> Result<Route, ReadError> {
        todo!()
    }

    /// Tells whether `account` may send as `address`: its own, with any detail, or an alias to it.
    pub fn may_send_as(&self, account: AccountId, address: &Address) -> Result<bool, ReadError> {
        todo!()
    }

    /// All aliases, sorted.
    pub fn aliases(&self) -> Result<Vec<Alias>, ReadError> {
        todo!()
    }

    /// An account's mailboxes, sorted by name, INBOX first.
    pub fn mailboxes(&self, account: AccountId) -> Result<Vec<Mailbox>, ReadError> {
        todo!()
    }

    /// One mailbox.
    pub fn mailbox(&self, id: MailboxId) -> Result<Option<Mailbox>, ReadError> {
        todo!()
    }

    /// One mailbox by name.
    pub fn mailbox_named(&self, account: AccountId, name: &MailboxName) -> Result<Option<Mailbox>, ReadError> {
        todo!()
    }

    /// Subscribed names, sorted; some may be no mailbox.
    pub fn subscriptions(&self, account: AccountId) -> Result<Vec<MailboxName>, ReadError> {
        todo!()
    }

    /// Every uid of a mailbox.
    pub fn uids(&self, mailbox: MailboxId) -> Result<UidSet, ReadError> {
        todo!()
    }

    /// One message.
    pub fn message(&self, mailbox: MailboxId, uid: Uid) -> Result<Option<Message>, ReadError> {
        todo!()
    }

    /// Messages from `first` to `last`, ascending.
    pub fn messages(
        &self,
        mailbox: MailboxId,
        first: Uid,
        last: Uid,
    ) -> Result<impl Iterator<Item = Result<Message, ReadError>> + use<>, ReadError> {
        Ok(std::iter::empty())
    }

    /// What the part walker found in a message.
    pub fn structure(&self, mailbox: MailboxId, uid: Uid) -> Result<Option<Structure>, ReadError> {
        todo!()
    }

    /// Uids that were removed after `since`. Where that is no longer known exactly, more uids than
    /// were removed, none of which is there (RFC 7162 section 3.2.5.2 allows that).
    pub fn vanished(&self, mailbox: MailboxId, since: ModSeq) -> Result<UidSet, ReadError> {
        todo!()
    }

    /// A note put by [`Store::put_note`].
    pub fn note(&self, name: &str) -> Result<Option<Vec<u8>>, ReadError> {
        todo!()
    }
}
