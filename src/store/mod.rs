//! redb and the ring journal: accounts, mailboxes, messages. The only folder that names redb.
//!
//! [`Store`] speaks in mail words. Reads go through a [`Reader`], one redb read transaction that
//! lives as long as one command and never as long as a session. Writes are commands to the one
//! writer thread and come back as [`Pending`]: resolved only after the journal's `fdatasync`.

use std::fs::DirBuilder;
use std::future::Future;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, mpsc};
use std::task::{Context, Poll};

mod account; //     plans: accounts, aliases, domains, notes
mod acl; //         who may do what in whose mailboxes
mod annotation; //  annotations of mailboxes and accounts
mod backend; //     redb over a disk, its first block kept twice
mod ballast; //     room kept for a disk that others fill
pub mod blob; //    bodies: spool, compressed blocks, packed pieces
mod certificate; // certificates that people log in with
mod change; //      what the journal holds, and how it is done to the tables
pub mod check; //   verifies everything, and repairs what can be
pub mod compact; // the index without its holes
pub mod damage; //  what is said when redb ends the program
mod directory; //   reads: who is who, and where an address leads
pub mod disk; //    a file as the store sees it, so that tests can fail it
pub mod dump; //    all rows as they are, for backups
mod engine; //      index and journal together: opening, replaying, making durable
mod error; //       what goes wrong
mod gate; //        who may read the index, and who waits while it is opened anew
mod gram; //        which bodies surely do not hold a text
pub mod journal; // the ring file that makes a 250 durable
mod learned; //     the spam filter's learned state
pub mod load; //    a store made of a dump's rows
mod mailbox; //     plans: mailboxes
mod medium; //      what the kernel tells of the disk
mod message; //     plans: messages
mod notify; //      wakes sessions when something changed
mod opening; //     which of the two files must be there, and what becomes of one that is of no use
mod overlay; //     a file to be read while nothing can be written
pub mod proof; //   is a dump complete?
mod queue; //       queued mail: plans, changes, reads
mod reader; //      reads: mailboxes and messages
mod record; //      the tables' values
pub mod salvage; // mail out of a ruined file
mod scanned; //     what the scan leaves behind, and recent mail for whoever scans it again
mod seal; //        a value's checksum, bound to its key
mod shelf; //       bodies in the tables
pub mod site; //    where a store lives: files by name, room, clock
mod space; //       is there room for more mail?
mod sweep; //       removes in steps what nobody refers to
mod table; //       the tables
#[cfg(test)]
mod tests; //       the store as a whole
mod upgrade; //     the schema
pub mod wear; //    what was written, and how long a card lasts
mod writer; //      the one thread that writes

pub use account::{ALIAS_TARGETS_MAX, NOTE_MAX, NOTE_NAME_MAX};
pub use acl::{ACL_ENTRIES_MAX, SHARED_MAX};
pub use blob::{Body, SPOOL_MEMORY_MAX, Spool, Spooled, SpooledReader, temporary};
pub use error::{OpenError, ReadError, WriteError};
pub use gram::{BODIES_STEP, Grams};
pub use learned::{LEARNED_PIECE_MAX, LEARNED_PIECES_MAX};
pub use mailbox::{MAILBOXES_MAX, SUBSCRIPTIONS_MAX};
pub use queue::{Parcel, QUEUED_RECIPIENTS_MAX, Submitted};
pub use reader::{Bodies, Reader};
pub use scanned::Whereabouts;
pub use upgrade::SCHEMA;

pub use crate::mail::mailbox::{Mailbox, Quota, Usage};
pub use crate::mail::message::{BlobId, Flagged, Message, Placed};

use tokio::sync::{oneshot, watch};

use crate::mail::address::{Address, Domain};
use crate::mail::date::ZonedTime;
use crate::mail::list::List;
use crate::mail::mailbox::{AccountId, MailboxId, MailboxName, ModSeq, SpecialUse, Uid};
use crate::mail::message::{FlagMode, FlagNames, UidSet};
use crate::mail::rights::Rights;
use crate::mail::secret::ScramVerifier;
use crate::mail::structure::Structure;

use compact::{Asked, CompactStart, Compaction};
use disk::Counters;
use engine::Shared;
use message::Incoming;
use opening::{Need, Opening};
use shelf::Pieces;
use site::{FolderSite, Room, Site};
use table::Tables;
use wear::WearFigures;
use writer::{Command, Hold, Keep, Target, job};

/// The store. Cheap to clone. [`Store::close`] closes it; when the last clone goes without that,
/// the writer closes it by itself, and nobody learns how that went.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    /// Unbounded, because the reactor must not block here; a session has one write under way at a
    /// time, so there are never more commands than sessions.
    commands: Arc<mpsc::Sender<Command>>,
}

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
    /// Quiet time in seconds after which the index is compacted, if more than a third of it is free
    /// and that is at least 16 MiB; 0 never does it. What is free is used for new mail in any case:
    /// a compaction gives it back to the disk. It writes what is kept once, at most two bytes for
    /// each byte that was removed. Default: 300.
    pub compact_idle_secs: u32,
    /// Size of the card or disk in bytes, for the estimate of its life; 0: as the kernel tells.
    /// Default: 0.
    pub card_bytes: u64,
    /// How often each of its cells can be written. Default: 1000, cautious for the three-bit (TLC)
    /// cells of ordinary cards; "high endurance" and industrial cards name 3,000 and more.
    pub card_cycles: u32,
    /// Bytes the card writes to its cells for each byte it is given. Default: 8: a lone block of
    /// 4 KiB costs a flash page of 16 KiB, and as much again is moved when old pages are cleared.
    pub card_amplification: u32,
    /// Whether the server may keep mail in memory (tmpfs, a root file system whose changes are in
    /// memory). Default: no, it refuses to start.
    pub allow_ram: bool,
    /// A mount point without which the server refuses to start, so that no mail goes into the folder
    /// below it. Default: none; disks in `/etc/fstab` are looked at anyway.
    pub require_mount: Option<PathBuf>,
    /// Days in which the whole store is read once, a slice each day, to find what a card has
    /// forgotten. 0 turns that off. Default: 30.
    pub scrub_days: u32,
    /// How fast such a slice is read, in bytes. Default: 1 MiB.
    pub scrub_bytes_per_second: u32,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            cache_bytes: 2 << 20,
            journal_bytes: 16 << 20,
            reserve_bytes: 32 << 20,
            compact_idle_secs: 300,
            card_bytes: 0,
            card_cycles: 1000,
            card_amplification: 8,
            allow_ram: false,
            require_mount: None,
            scrub_days: 30,
            scrub_bytes_per_second: 1 << 20,
        }
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

/// Where an address leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To these accounts (more than one through an alias), without doubles.
    Local(Vec<AccountId>),
    /// To these accounts, which may be none, and to addresses elsewhere, through an alias.
    Forward {
        /// The accounts, without doubles.
        accounts: Vec<AccountId>,
        /// The addresses.
        outside: Vec<Address>,
    },
    /// To the members of this list.
    List(Box<List>),
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
    /// The accounts' addresses, then others'.
    pub targets: Vec<Address>,
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

/// Figures for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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
    /// Size of `mail.redb` on disk, allocated bytes.
    #[serde(default)]
    pub index_bytes: u64,
    /// How many of them a compaction would give back, by estimate.
    #[serde(default)]
    pub index_free_bytes: u64,
    /// What is left for us on the medium, in bytes, and all of it; zero where it can't be asked.
    #[serde(default)]
    pub medium_free_bytes: u64,
    /// Size of the file system in bytes.
    #[serde(default)]
    pub medium_bytes: u64,
    /// The wear meter.
    #[serde(default)]
    pub wear: WearFigures,
}

/// The names of the two files in the data folder.
const INDEX_FILE: &str = "mail.redb";
const JOURNAL_FILE: &str = "mail.journal";

/// An index that is being made, which will take the other's place.
const NEW_FILE: &str = "mail.redb.new";

impl Store {
    /// Opens the store in `folder`, makes it if there is none, and replays the journal.
    pub fn open(folder: &Path, config: &StoreConfig) -> Result<Self, OpenError> {
        let storage = |error: std::io::Error| OpenError::Storage(format!("{}: {error}", folder.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(storage)?;
        if load::is_half_restored(folder) {
            return Err(OpenError::HalfRestored(folder.to_owned()));
        }
        damage::opened(folder);
        Self::open_on(Arc::new(FolderSite::new(folder)), config)
    }

    /// Opens the store at any site, such as a simulated one.
    pub fn open_on(site: Arc<dyn Site>, config: &StoreConfig) -> Result<Self, OpenError> {
        Opening::new(site, config, Need::Journal).store()
    }

    /// Opens the store with as much of its journal as can be read, if anything: what else was
    /// acknowledged since the last checkpoint is given up. For whoever was told
    /// [`OpenError::JournalMissing`], [`OpenError::JournalDamaged`] or [`OpenError::ForeignJournal`]
    /// and can't put the file back. A journal that is of no use stays as `mail.journal.aside`.
    pub fn open_without_journal(site: Arc<dyn Site>, config: &StoreConfig) -> Result<Self, OpenError> {
        Opening::new(site, config, Need::IndexAlone).store()
    }

    /// Sends a command that is one plan.
    fn plan<T: Send + 'static>(
        &self,
        plan: impl FnOnce(&mut Tables<'_>) -> message::Plan<T> + Send + 'static,
    ) -> Pending<T> {
        let (command, pending) = job(plan);
        // When the writer has gone, so has the sender in the command, and the caller learns it.
        drop(self.commands.send(command));
        pending
    }

    /// As [`Store::plan`], for what adds mail and so needs room on the disk.
    fn plan_mail<T: Send + 'static>(
        &self,
        plan: impl FnOnce(&mut Tables<'_>) -> message::Plan<T> + Send + 'static,
    ) -> Pending<T> {
        let shared = self.shared.clone();
        self.plan(move |tables| if shared.lacks_room() { Err(WriteError::DiskFull.into()) } else { plan(tables) })
    }

    /// Sends new messages.
    fn keep(&self, messages: Vec<NewMessage>, target: Target) {
        match messages.into_iter().map(Incoming::new).collect() {
            Ok(messages) => {
                drop(self.commands.send(Command::Keep(Box::new(Keep { messages, target, hold: Hold::New }))));
            }
            Err(error) => target.refuse(error),
        }
    }

    /// Resolves when the writer has nothing left to stage or to sweep. Commands that come meanwhile
    /// are done first.
    pub fn settled(&self) -> Pending<()> {
        let (sender, receiver) = oneshot::channel();
        drop(self.commands.send(Command::Settle(sender)));
        Pending(receiver)
    }

    /// Writes a checkpoint and closes. Later calls on other clones answer `Closed`.
    pub fn close(&self) -> Result<(), WriteError> {
        let (reply, closed) = mpsc::sync_channel(1);
        self.commands.send(Command::Close(reply)).map_err(|_| WriteError::Closed)?;
        closed.recv().unwrap_or(Err(WriteError::Closed))
    }

    /// Begins a read. While the index is opened anew after a failure of the disk it waits, five
    /// seconds at most.
    pub fn reader(&self) -> Result<Reader, ReadError> {
        Reader::new(self.shared.clone())
    }

    /// The highest modification sequence of anything in this account; wakes when it rises.
    pub fn watch(&self, account: AccountId) -> watch::Receiver<ModSeq> {
        let now = ModSeq(self.shared.applied.load(Ordering::Acquire));
        // A closed store has nobody who would ever wake the waiter: its channel is closed as well.
        if self.shared.is_closed() { watch::channel(now).1 } else { self.shared.watchers.watch(account.0, now) }
    }

    /// Begins a body. Fails early with [`WriteError::DiskFull`] while the reserve is touched.
    pub fn spool(&self) -> Result<Spool, WriteError> {
        if self.shared.is_closed() {
            return Err(WriteError::Closed);
        }
        if self.shared.space.is_full() {
            return Err(WriteError::DiskFull);
        }
        Ok(Spool::new(self.shared.site.path().into()))
    }

    /// Opens a body.
    pub fn body(&self, blob: BlobId) -> Result<Body, ReadError> {
        Body::open(Box::new(self.pieces()), blob)
    }

    /// Bodies as they are kept, in packed pieces: for whoever carries them elsewhere.
    pub fn pieces(&self) -> impl blob::PieceSource + use<> {
        Pieces::new(self.shared.clone())
    }

    /// The data folder, which holds small files beside the store's two.
    pub fn folder(&self) -> PathBuf {
        self.shared.site.path().into()
    }

    /// Figures for `status`.
    pub fn figures(&self) -> Figures {
        let [index, journal] = &self.shared.written;
        let bytes = |counters: &Counters| counters.written.load(Ordering::Relaxed);
        let syncs = |counters: &Counters| counters.syncs.load(Ordering::Relaxed);
        let counts = *self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.shared.site.room().unwrap_or(Room { free: 0, total: 0 });
        let store_bytes = self.shared.disks().into_iter().map(|disk| disk.allocated().unwrap_or(0)).sum();
        Figures {
            store_bytes,
            journal_written: bytes(journal),
            index_written: bytes(index),
            syncs: syncs(index) + syncs(journal),
            messages: counts.messages,
            checkpoints: counts.checkpoints,
            last_checkpoint: counts.last_checkpoint,
            index_bytes: self.shared.space.allocated(),
            index_free_bytes: compact::gain(&self.shared),
            medium_free_bytes: room.free,
            medium_bytes: room.total,
            wear: self.shared.wear.figures(&self.shared),
        }
    }

    /// Asks for a compaction of the index: answers when it has begun, or why it has not. `force`
    /// does it even when little is gained. Reads and writes go on while it lasts.
    pub fn compact(&self, force: bool) -> Pending<CompactStart> {
        let (sender, receiver) = oneshot::channel();
        drop(self.commands.send(Command::Compact(Asked { force, sender })));
        Pending(receiver)
    }

    /// How far a compaction is, and how the last one ended.
    pub fn compaction(&self) -> Compaction {
        self.shared.compaction.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps one message for several accounts, all or none; answers with the uids in their order.
    pub fn deliver(&self, message: NewMessage, to: Vec<(AccountId, Folder)>) -> Pending<Vec<(MailboxId, Uid)>> {
        let (sender, receiver) = oneshot::channel();
        self.keep(vec![message], Target::Deliver(to, sender));
        Pending(receiver)
    }

    /// APPEND, several messages as one (RFC 3502).
    pub fn append(&self, mailbox: MailboxId, messages: Vec<NewMessage>) -> Pending<Placed> {
        let (sender, receiver) = oneshot::channel();
        self.keep(messages, Target::Append(mailbox, None, sender));
        Pending(receiver)
    }

    /// REPLACE (RFC 8508): as [`Store::append`], and in the same change the message `uid` of `from` goes,
    /// or nothing is done.
    pub fn replace(&self, mailbox: MailboxId, messages: Vec<NewMessage>, from: MailboxId, uid: Uid) -> Pending<Placed> {
        let (sender, receiver) = oneshot::channel();
        self.keep(messages, Target::Append(mailbox, Some((from, uid)), sender));
        Pending(receiver)
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
        self.flag_within(mailbox, uids, (mode, flags), unchanged_since, Rights::ALL)
    }

    /// As [`Store::flag`], for somebody with these rights: flags that they are not about stay as they are.
    pub fn flag_within(
        &self,
        mailbox: MailboxId,
        uids: UidSet,
        change: (FlagMode, FlagNames),
        unchanged_since: Option<ModSeq>,
        rights: Rights,
    ) -> Pending<Flagged> {
        self.plan(move |tables| message::flag(tables, mailbox, &uids, change, unchanged_since, rights))
    }

    /// COPY, all or nothing.
    pub fn copy(&self, from: MailboxId, uids: UidSet, to: MailboxId) -> Pending<Placed> {
        self.copy_within(from, uids, to, Rights::ALL)
    }

    /// As [`Store::copy`], for somebody with these rights in the target: flags that they are not about stay
    /// behind.
    pub fn copy_within(&self, from: MailboxId, uids: UidSet, to: MailboxId, rights: Rights) -> Pending<Placed> {
        self.plan_mail(move |tables| message::transfer(tables, from, &uids, to, (false, rights)))
    }

    /// MOVE, all or nothing (RFC 6851); quota is not looked at within one account.
    pub fn relocate(&self, from: MailboxId, uids: UidSet, to: MailboxId) -> Pending<Placed> {
        self.relocate_within(from, uids, to, Rights::ALL)
    }

    /// As [`Store::relocate`], for somebody with these rights in the target.
    pub fn relocate_within(&self, from: MailboxId, uids: UidSet, to: MailboxId, rights: Rights) -> Pending<Placed> {
        self.plan(move |tables| message::transfer(tables, from, &uids, to, (true, rights)))
    }

    /// Removes what is marked `\Deleted`, of `uids` only if given; answers with what it removed.
    pub fn expunge(&self, mailbox: MailboxId, uids: Option<UidSet>) -> Pending<UidSet> {
        self.plan(move |tables| message::expunge(tables, mailbox, uids.as_ref()))
    }

    /// Removes messages whatever their flags (POP3).
    pub fn remove(&self, mailbox: MailboxId, uids: UidSet) -> Pending<UidSet> {
        self.plan(move |tables| message::remove(tables, mailbox, &uids))
    }

    /// Tells the first uid no session was shown and moves the mark to `uid_next`. Costs no sync of
    /// its own: the mark is written along with the next change.
    pub fn claim_recent(&self, mailbox: MailboxId) -> Pending<Uid> {
        self.plan(move |tables| message::claim_recent(tables, mailbox))
    }

    /// CREATE with its missing parents (RFC 9051 section 6.3.4).
    pub fn create_mailbox(
        &self,
        account: AccountId,
        name: MailboxName,
        special_use: Option<SpecialUse>,
    ) -> Pending<MailboxId> {
        self.plan(move |tables| mailbox::create(tables, account, &name, special_use))
    }

    /// DELETE with all its messages. A mailbox with children stays (`NotAllowed`).
    pub fn delete_mailbox(&self, account: AccountId, name: MailboxName) -> Pending<()> {
        self.plan(move |tables| mailbox::delete(tables, account, &name))
    }

    /// RENAME with everything below; INBOX's messages move and INBOX stays (RFC 9051 section 6.3.6).
    pub fn rename_mailbox(&self, account: AccountId, from: MailboxName, to: MailboxName) -> Pending<()> {
        self.plan(move |tables| mailbox::rename(tables, account, &from, &to))
    }

    /// SUBSCRIBE and UNSUBSCRIBE; a name may be subscribed that is no mailbox (any more).
    pub fn subscribe(&self, account: AccountId, name: MailboxName, subscribed: bool) -> Pending<()> {
        self.plan(move |tables| mailbox::subscribe(tables, account, &name, subscribed))
    }

    /// Makes an account with its standard mailboxes; its domain becomes local.
    pub fn add_account(&self, address: Address, verifier: ScramVerifier, quota: Quota) -> Pending<AccountId> {
        self.plan(move |tables| account::add(tables, &address, &verifier, quota))
    }

    /// Removes an account with all its mail and the aliases that lead to it alone.
    pub fn remove_account(&self, account: AccountId) -> Pending<()> {
        self.plan(move |tables| account::remove(tables, account))
    }

    /// Changes an account's password.
    pub fn set_verifier(&self, account: AccountId, verifier: ScramVerifier) -> Pending<()> {
        self.plan(move |tables| account::set_verifier(tables, account, verifier))
    }

    /// Changes an account's quota.
    pub fn set_quota(&self, account: AccountId, quota: Quota) -> Pending<()> {
        self.plan(move |tables| account::set_quota(tables, account, quota))
    }

    /// Adds or replaces an alias; its domain must be local, and targets in local domains accounts.
    pub fn put_alias(&self, alias: Alias) -> Pending<()> {
        self.plan(move |tables| account::put_alias(tables, &alias))
    }

    /// Removes an alias.
    pub fn remove_alias(&self, address: Address) -> Pending<()> {
        self.plan(move |tables| account::remove_alias(tables, &address))
    }

    /// Makes a list; its domain must be local and its address nobody's.
    pub fn add_list(&self, list: List) -> Pending<()> {
        self.plan(move |tables| account::put_list(tables, list, false))
    }

    /// Changes a list.
    pub fn set_list(&self, list: List) -> Pending<()> {
        self.plan(move |tables| account::put_list(tables, list, true))
    }

    /// Removes a list.
    pub fn remove_list(&self, address: Address) -> Pending<()> {
        self.plan(move |tables| account::remove_list(tables, &address))
    }

    /// Makes a domain local.
    pub fn add_domain(&self, domain: Domain) -> Pending<()> {
        self.plan(move |tables| account::add_domain(tables, &domain))
    }

    /// Makes a domain foreign; refused while accounts or aliases are in it.
    pub fn remove_domain(&self, domain: Domain) -> Pending<()> {
        self.plan(move |tables| account::remove_domain(tables, &domain))
    }

    /// Keeps a small setting of the program's own (such as the import's progress) under a name.
    pub fn put_note(&self, name: &str, value: Vec<u8>) -> Pending<()> {
        let name = name.to_owned();
        self.plan(move |tables| account::put_note(tables, &name, &value))
    }
}
