//! Backup and restore: one file of the whole box, made while the server runs, in constant memory.
//!
//! A backup is an age file (readable by anything that speaks age) around a zstd stream around the
//! frames of [`frame`]. [`Job`] makes the rows' frames out of a store, in the server's process or the
//! command's own; [`Make`] puts the box's files beside them and ends the stream with a hash over all
//! of it; [`restore()`] makes a data folder of a chain of backups, and [`verify()`] proves one without
//! writing. What was cut off or changed is found out before anything is moved into place.
//!
//! A backup is whole, or it is incremental and names the one it builds on. Which were made is kept in
//! the store as a note ([`Made`]), so a number that an incremental one is built on is always one that
//! this very store gave out.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::store::load::RESTORING;
use crate::store::{OpenError, ReadError, WriteError};

mod chain; //   which backups build on which
mod files; //   the box's files beside its mail
mod frame; //   the stream's frames
mod job; //     rows out of a store
mod lock; //    age and zstd around it all
mod make; //    a backup file out of a store and its files
mod notes; //   which backups were made
mod reader; //  a backup file on its way in
mod restore; // a data folder out of backups
mod writer; //  a backup file on its way out

pub use crate::store::proof::Findings;
pub use chain::verify;
pub use files::{Files, gather};
pub use frame::{Kind, Sink, Take, Wire, receive};
pub use job::Job;
pub use lock::{Keys, Lock, LockKind, PASSPHRASE_MIN, identities, recipients};
pub use make::{Make, Plan, Report};
pub use notes::{Made, Since, made, note_made};
pub use restore::{Place, Restored, give, restore};

/// What a backup begins with: what it is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Header {
    /// Its name: 12 hexadecimal digits.
    pub id: String,
    /// The backup that this one builds on; none for a whole one.
    pub base: Option<String>,
    /// When it was begun, seconds since 1970.
    pub at: i64,
    /// The host it is of.
    pub host: String,
    /// The version of Pillarbox that made it.
    pub version: String,
    /// The schema of its rows.
    pub schema: u32,
    /// Bodies below this number are in this backup or in those it builds on, all of them.
    pub watermark: u64,
    /// The tables; a row names its own by its place here.
    pub tables: Vec<String>,
    /// About how many bytes will come, for a progress bar.
    pub about_bytes: u64,
}

/// What a backup ends with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Ending {
    /// Rows in it.
    pub rows: u64,
    /// Files in it.
    pub files: u64,
    /// Bodies that were damaged or incomplete in the store already.
    pub damaged: u64,
    /// SHA-256 of everything before the ending, in hexadecimal.
    pub sha256: String,
}

/// Why there is no backup, or no restore. `Display` is one sentence without its full stop.
#[derive(Debug)]
pub enum BackupError {
    /// A file could not be read or written.
    Path(PathBuf, io::Error),
    /// The medium that the backup goes to failed or is full.
    Target(PathBuf, io::Error),
    /// The file is no backup of ours; the text says why.
    Foreign(PathBuf, &'static str),
    /// The passphrase or identity does not open it.
    WrongKey(PathBuf, LockKind),
    /// It asks for more memory than we give a passphrase.
    TooMuchWork(PathBuf, u8),
    /// It was cut off.
    CutOff(PathBuf),
    /// It is not what was written.
    Altered(PathBuf),
    /// A newer program made it.
    Newer(PathBuf, String),
    /// The files do not make a chain; the text says why.
    Chain(String),
    /// There is no such backup to build on.
    NoBase(String),
    /// There is a store, or something else, where the restored one would go.
    Occupied(PathBuf),
    /// The key, passphrase or recipient given makes no sense; the text says why.
    Key(String),
    /// The store could not be read.
    Read(ReadError),
    /// The store could not be written.
    Write(WriteError),
    /// The restored store could not be made.
    Open(OpenError),
    /// The restored store could not be written into this folder; the text says why.
    Fill(PathBuf, String),
    /// The server refused, or failed in the middle; its sentence.
    Refused(String),
    /// The connection to the server broke.
    Broken(io::Error),
}

impl fmt::Display for BackupError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path, error) => write!(out, "{}: {error}", path.display()),
            Self::Target(path, error) => {
                let advice = match error.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                        "make room there or take another medium"
                    }
                    _ => "look whether the medium is still there",
                };
                write!(out, "the backup can't be written to {} ({error}); {advice}", path.display())
            }
            Self::Foreign(path, why) => write!(out, "{} is no backup of Pillarbox: {why}", path.display()),
            Self::WrongKey(path, LockKind::Passphrase) => {
                write!(out, "the passphrase does not open {}; try again with the one it was made with", path.display())
            }
            Self::WrongKey(path, LockKind::Recipients) => write!(
                out,
                "none of the given keys opens {}; name the file of the secret key with --identity",
                path.display()
            ),
            Self::TooMuchWork(path, factor) => write!(
                out,
                "{} asks for more memory than is given to a passphrase (work factor {factor}, {} at most); \
                 decrypt it with `age -d` on a larger computer and encrypt it again",
                path.display(),
                lock::WORK_FACTOR_MAX
            ),
            Self::CutOff(path) => write!(
                out,
                "{} ends too early: it was cut off when it was made or copied; copy it again or take another backup",
                path.display()
            ),
            Self::Altered(path) => write!(
                out,
                "{} is damaged or was altered: it is not what was written; copy it again or take another backup",
                path.display()
            ),
            Self::Newer(path, what) => {
                write!(out, "{} was made by a newer Pillarbox ({what}); restore it with that version", path.display())
            }
            Self::NoBase(what) => write!(
                out,
                "there is no backup `{what}` to build on that this store remembers; make a full one, without --since"
            ),
            Self::Occupied(path) => write!(
                out,
                "{} is not empty; restore into another folder, or with --force, which moves what is there aside",
                path.display()
            ),
            Self::Chain(why) | Self::Key(why) | Self::Refused(why) => out.write_str(why),
            Self::Read(error) => error.fmt(out),
            Self::Write(error) => error.fmt(out),
            Self::Open(error) => error.fmt(out),
            Self::Fill(path, why) => write!(
                out,
                "nothing could be restored into {} ({why}); look whether there is room and whether the disk is good",
                path.display()
            ),
            Self::Broken(error) => {
                write!(out, "the server broke the connection off ({error}); look whether it runs and try again")
            }
        }
    }
}

impl std::error::Error for BackupError {}

impl From<ReadError> for BackupError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<WriteError> for BackupError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

impl From<OpenError> for BackupError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

/// Says at which path an error of the file system happened.
trait At<T> {
    fn at(self, path: &Path) -> Result<T, BackupError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, BackupError> {
        self.map_err(|error| BackupError::Path(path.to_owned(), error))
    }
}

/// Spells bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
