//! What goes wrong in the store, in three words for callers and one for the inside.
//!
//! [`WriteError`], [`ReadError`] and [`OpenError`] have a variant for each case a caller treats
//! differently; each `Display` is one sentence that says what to do. Inside, a [`Trouble`] is a
//! failed disk or a damaged record, and a [`Fault`] tells a refused command from a broken store.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::journal::JournalError;

/// Why a write was not done. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// There is no such account (any more).
    NoSuchAccount,
    /// There is no such mailbox (any more).
    NoSuchMailbox,
    /// There is no such queued message (any more).
    NoSuchQueued,
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
    /// The disk failed; the store reopens itself, trying again later may work. The write is left out
    /// for good, unless the power goes or the process is killed before the store is open again: then
    /// a write that failed at its very sync may yet be found done.
    Storage(String),
    /// The store is closed.
    Closed,
}

impl fmt::Display for WriteError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchAccount => out.write_str("there is no such account; `pillarbox account list` shows them"),
            Self::NoSuchMailbox => out.write_str("there is no such mailbox; create it first"),
            Self::NoSuchQueued => out.write_str("there is no such queued message; it was delivered or removed"),
            Self::Exists => out.write_str("the name is taken; choose another or remove what has it"),
            Self::NotAllowed(rule) => write!(out, "this is not allowed: {rule}"),
            Self::OverQuota => out.write_str("the account's quota is used up; delete mail or raise the quota"),
            Self::Limit(what) => write!(out, "a limit is reached ({what}); remove some before adding more"),
            Self::DiskFull => out.write_str("the disk is nearly full; delete mail or free space, then try again"),
            Self::Storage(what) => write!(out, "the disk failed ({what}); try again, and look at the disk if it stays"),
            Self::Closed => out.write_str("the store is closed; try again when the server runs"),
        }
    }
}

impl std::error::Error for WriteError {}

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The disk failed or a checksum is wrong; the text says where.
    Storage(String),
    /// The store is closed.
    Closed,
}

impl fmt::Display for ReadError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(what) => write!(out, "reading failed ({what}); try again, and look at the disk if it stays"),
            Self::Closed => out.write_str("the store is closed; try again when the server runs"),
        }
    }
}

impl std::error::Error for ReadError {}

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
    /// A restore into the folder is under way or was cut off.
    HalfRestored(PathBuf),
    /// The journal is missing, empty or unreadable, and the store was not closed cleanly, so that
    /// acknowledged mail may be in the journal alone.
    JournalMissing(PathBuf),
    /// The journal is damaged, and acknowledged mail in it can't be read; the text says what is wrong.
    JournalDamaged(PathBuf, &'static str),
    /// There is no room on the disk for what opening has to write.
    DiskFull,
    /// There is no room on the disk for a new store.
    NoRoom {
        /// The data folder.
        folder: PathBuf,
        /// Bytes that the journal needs.
        needed: u64,
        /// Bytes that are free, as far as it is known.
        free: Option<u64>,
    },
    /// The disk failed or the file is damaged.
    Storage(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => {
                write!(out, "another process has the store in {} open; stop it or use another folder", path.display())
            }
            Self::NewerSchema { found, known } => write!(
                out,
                "the store was written by a newer Pillarbox (schema {found}, this one knows {known}); \
                 start the newer version or restore a backup made before the upgrade"
            ),
            Self::ForeignJournal(path) => write!(
                out,
                "the journal in {} belongs to another store; put back the mail.journal that goes with mail.redb, \
                 or move this one away if there is none",
                path.display()
            ),
            Self::HalfRestored(path) => write!(
                out,
                "a restore into {} is under way or was cut off; give the same `pillarbox restore` again, or remove \
                 {} to begin with an empty store",
                path.display(),
                path.join(super::load::RESTORING).display()
            ),
            Self::JournalMissing(path) => write!(
                out,
                "mail.journal in {} is missing or can't be read, and mail of the last minutes may be in it alone; \
                 put the file back, or run `pillarbox check-store --repair` to go on without that mail",
                path.display()
            ),
            Self::JournalDamaged(path, what) => write!(
                out,
                "mail.journal in {} is damaged ({what}), and mail of the last minutes can't be read; put back a copy \
                 of the file, or run `pillarbox check-store --repair` to go on without that mail",
                path.display()
            ),
            Self::DiskFull => out.write_str(
                "the disk is full, and the store needs a little room to open; free a few MiB on the disk of the data \
                 folder and try again",
            ),
            Self::NoRoom { folder, needed, free } => {
                let mib = |bytes: u64| bytes.div_ceil(1 << 20);
                write!(
                    out,
                    "there is no room for a new store in {}: it begins with {} MiB",
                    folder.display(),
                    mib(*needed)
                )?;
                if let Some(free) = free {
                    write!(out, " and {} MiB are free", free >> 20)?;
                }
                out.write_str("; free some, choose another disk, or set `journal-bytes` in [store] lower")
            }
            Self::Storage(what) => write!(out, "the store can't be read ({what}); check the disk or restore a backup"),
        }
    }
}

impl std::error::Error for OpenError {}

/// The disk failed, or a record is not what was written.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    kind: Kind,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A record or an invariant is broken; the rest can be read and written.
    Damaged,
    /// The disk failed, so redb refuses everything until it is opened again.
    Disk,
    /// The same, because there was no space left.
    Full,
    /// The index was closed under a reader, to be opened anew.
    Closed,
}

impl Trouble {
    /// A record or an invariant of ours is broken; `what` names it.
    pub(super) fn damaged(what: &str) -> Self {
        Self { kind: Kind::Damaged, text: format!("damaged record: {what}") }
    }

    /// Tells whether the disk failed, so that the store must be reopened.
    pub(super) fn is_of_disk(&self) -> bool {
        matches!(self.kind, Kind::Disk | Kind::Full)
    }

    /// Tells whether there was no space left.
    pub(super) fn is_full(&self) -> bool {
        self.kind == Kind::Full
    }

    /// Tells whether reading again may work, once the index is open anew.
    pub(super) fn may_pass(&self) -> bool {
        self.kind != Kind::Damaged
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

/// Why a command was not planned or applied.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The command can't be done; the group goes on without it.
    Refused(WriteError),
    /// The store is broken; the whole group is taken back.
    Broken(Trouble),
}

impl From<WriteError> for Fault {
    fn from(error: WriteError) -> Self {
        Self::Refused(error)
    }
}

impl From<Trouble> for Fault {
    fn from(trouble: Trouble) -> Self {
        Self::Broken(trouble)
    }
}

impl From<Trouble> for WriteError {
    fn from(trouble: Trouble) -> Self {
        if trouble.is_full() { Self::DiskFull } else { Self::Storage(trouble.text) }
    }
}

impl From<Trouble> for ReadError {
    fn from(trouble: Trouble) -> Self {
        Self::Storage(trouble.text)
    }
}

impl From<Trouble> for OpenError {
    fn from(trouble: Trouble) -> Self {
        if trouble.is_full() { Self::DiskFull } else { Self::Storage(trouble.text) }
    }
}

/// Tells whether an error says that the disk, or our share of it, is full.
pub(super) fn is_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self { kind: if is_of_space(&error) { Kind::Full } else { Kind::Disk }, text: error.to_string() }
    }
}

impl From<JournalError> for Trouble {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Disk(error) => error.into(),
            other => Self { kind: Kind::Damaged, text: other.to_string() },
        }
    }
}

impl From<redb::Error> for Trouble {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => error.into(),
            redb::Error::PreviousIo => Self { kind: Kind::Disk, text: "the disk failed a moment ago".to_owned() },
            redb::Error::DatabaseClosed => Self { kind: Kind::Closed, text: "the index was closed".to_owned() },
            other => Self { kind: Kind::Damaged, text: other.to_string() },
        }
    }
}

/// Every error of redb becomes a [`Trouble`], and through it what callers see.
macro_rules! from_redb {
    ($($error:ident)*) => {$(
        impl From<redb::$error> for Trouble {
            fn from(error: redb::$error) -> Self {
                redb::Error::from(error).into()
            }
        }

        impl From<redb::$error> for Fault {
            fn from(error: redb::$error) -> Self {
                Self::Broken(error.into())
            }
        }

        impl From<redb::$error> for ReadError {
            fn from(error: redb::$error) -> Self {
                Trouble::from(error).into()
            }
        }
    )*};
}

from_redb!(StorageError TableError TransactionError CommitError SetDurabilityError DatabaseError);
