//! Import and export of mail: mbox and Maildir, whole folder trees, in constant memory.
//!
//! [`import()`] reads what lies on the disk and hands it to a [`Keeper`]; [`export()`] asks a
//! [`Giver`] and writes files. The store is both; so can be a running daemon at the other end of a
//! socket. Both journeys can be cut off at any point and go on when the same command is given
//! again: a note (import) or a small file (export) says how far they came. A message that cannot
//! be carried is told to the [`Observer`] and left out; the rest goes on.
//!
//! Files hold lines that end in LF, as their other readers expect; mail in the store ends lines
//! in CRLF. A message with bare LF in it comes back with CRLF there.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::store::{ReadError, WriteError};

mod export; //  from a store to files
mod import; //  from files to a store
mod keep; //    what a store does for both
mod letter; //  one message on its way in
mod level; //   a mailbox name as file names
mod lines; //   CRLF and LF
mod maildir; // a folder of one-message files
pub(super) mod mbox; // one file of many messages
mod ruin; //    a ruined store as a source
mod source; //  which mbox files and Maildirs lie under a path
#[cfg(test)]
mod tests;
mod wire; //    a store at the other end of a stream

pub use export::{Format, export};
pub use import::{ImportRequest, import};
pub use keep::{Content, Exchange, Giver, Keeper, Note, Target};
pub use letter::MESSAGE_MAX;
pub use ruin::Salvaged;
pub use wire::{Remote, serve};

/// Bytes read from a file at a time.
const CHUNK: usize = 64 << 10;

/// How far a journey is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Messages looked at.
    pub messages: u64,
    /// Bytes behind us, of the side that is read.
    pub bytes: u64,
    /// Bytes in all.
    pub bytes_total: u64,
}

/// What a journey did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Messages carried over.
    pub carried: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages found there already, from a run that was cut off.
    pub present: u64,
    /// Messages left out because they are marked as deleted for good (Thunderbird) or are no mail.
    pub passed: u64,
    /// Messages that could not be carried, each told to the observer.
    pub broken: u64,
    /// Mailboxes seen.
    pub folders: u64,
}

/// Hears how a journey goes.
pub trait Observer {
    /// Called after each message, and once before the first.
    fn progress(&mut self, progress: &Progress);

    /// Something was left out: where, and why.
    fn trouble(&mut self, place: &str, why: &str);
}

/// Why a journey ended early. What was carried before stays; the same command goes on from there.
#[derive(Debug)]
pub enum CarryError {
    /// A path could not be read or written.
    Path(PathBuf, io::Error),
    /// There is neither an mbox file nor a Maildir.
    NothingThere(PathBuf),
    /// The export would write over something that it did not write.
    Occupied(PathBuf),
    /// The store took no more.
    Write(WriteError),
    /// The store could not be read.
    Read(ReadError),
    /// The server refused; its sentence.
    Refused(String),
    /// The connection to the server broke.
    Broken(io::Error),
}

impl fmt::Display for CarryError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path, error) => write!(out, "{}: {error}", path.display()),
            Self::NothingThere(path) => write!(out, "{}: neither an mbox file nor a Maildir", path.display()),
            Self::Occupied(path) => write!(out, "{}: is there already; choose an empty folder", path.display()),
            Self::Write(error) => match error {
                WriteError::NoSuchAccount => out.write_str("the account is gone"),
                WriteError::NoSuchMailbox => out.write_str("the mailbox is gone"),
                WriteError::NoSuchQueued => out.write_str("the queued message is gone"),
                WriteError::Exists => out.write_str("the mailbox is there already"),
                WriteError::NotAllowed(rule) => write!(out, "not allowed: {rule}"),
                WriteError::OverQuota => out.write_str("the account's quota is used up"),
                WriteError::Limit(what) => write!(out, "a limit of the store is reached: {what}"),
                WriteError::DiskFull => out.write_str("too little space on the disk"),
                WriteError::Storage(text) => write!(out, "the store failed: {text}"),
                WriteError::Closed => out.write_str("the store is closed"),
            },
            Self::Read(ReadError::Storage(text)) => write!(out, "the store could not be read: {text}"),
            Self::Read(ReadError::Closed) => out.write_str("the store is closed"),
            Self::Refused(reason) => out.write_str(reason),
            Self::Broken(error) => write!(out, "the server broke the connection off: {error}"),
        }
    }
}

impl std::error::Error for CarryError {}

impl From<WriteError> for CarryError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

impl From<ReadError> for CarryError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// Says at which path an error of the file system happened.
trait At<T> {
    fn at(self, path: &Path) -> Result<T, CarryError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, CarryError> {
        self.map_err(|error| CarryError::Path(path.to_owned(), error))
    }
}
