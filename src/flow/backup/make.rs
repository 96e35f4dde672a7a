//! A backup file made of a store's frames and the box's files.
//!
//! The file is written under another name, made durable, and then given its own, so a backup that is
//! cut off is never taken for one, and one that is there is never written over unasked.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::files::Files;
use super::frame::{Kind, Sink};
use super::lock::Lock;
use super::notes::Made;
use super::writer::Writer;
use super::{BackupError, Header};

/// What the partial file in a folder is called; one that was left behind is used again.
const PARTIAL: &str = "pillarbox-backup.partial";

/// Bytes gathered before they are written: two of age's chunks.
const BUFFER_BYTES: usize = 128 << 10;

/// What is to be made.
#[derive(Debug)]
pub struct Plan {
    /// A file, a folder to make one in, or `-` for standard output.
    pub target: PathBuf,
    /// Whether a file that is there may be replaced.
    pub force: bool,
    /// What it is encrypted for.
    pub lock: Lock,
    /// The files beside the mail.
    pub files: Files,
    /// The name of this machine.
    pub host: String,
}

/// A backup that is being made: takes frames as a [`Sink`].
pub struct Make<'m> {
    plan: &'m mut Plan,
    watch: &'m mut dyn FnMut(u64, u64),
    open: Option<Open>,
    seen: u64,
    ending: Option<Vec<u8>>,
    failed: Option<BackupError>,
}

struct Open {
    header: Header,
    path: PathBuf,
    writer: Writer<BufWriter<Output>>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// What the store is to remember.
    #[serde(flatten)]
    pub made: Made,
    /// Where it is; nowhere when it went to standard output.
    pub file: Option<PathBuf>,
    /// Rows in it.
    pub rows: u64,
    /// Files in it.
    pub files: u64,
    /// Bodies in it that were damaged in the store already.
    pub damaged: u64,
}

impl std::fmt::Debug for Make<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Make").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Plan {
    /// Looks whether the backup can go where it should, before anything is begun.
    ///
    /// # Errors
    /// A file is there, or its folder is not.
    pub fn check(&self) -> Result<(), BackupError> {
        if self.is_stream() || self.is_device() || self.target.is_dir() {
            return Ok(());
        }
        let taken = self.target.exists() && !self.force;
        if taken {
            let text = format!("{} is there already; choose another name or give --force", self.target.display());
            return Err(BackupError::Refused(text));
        }
        let folder = folder_of(&self.target);
        if folder.is_dir() { Ok(()) } else { Err(BackupError::Target(folder, io::ErrorKind::NotFound.into())) }
    }

    /// The folder that the backup goes to, if any.
    pub fn folder(&self) -> Option<PathBuf> {
        let folder = if self.target.is_dir() { self.target.clone() } else { folder_of(&self.target) };
        (!self.is_stream()).then_some(folder)
    }

    fn is_stream(&self) -> bool {
        self.target == Path::new("-")
    }

    /// A tape, a pipe: what is written to as it is and is never replaced.
    fn is_device(&self) -> bool {
        fs::metadata(&self.target).is_ok_and(|facts| !facts.is_file() && !facts.is_dir())
    }

    /// The final name and the name until then.
    fn paths(&self, header: &Header) -> (PathBuf, PathBuf) {
        if self.target.is_dir() {
            return (self.target.join(file_name(header)), self.target.join(PARTIAL));
        }
        let mut partial = self.target.clone().into_os_string();
        partial.push(".partial");
        (self.target.clone(), PathBuf::from(partial))
    }
}

/// A name that sorts by date, such as `pillarbox-20261101-020003-full-3f2a91c0d417.age`.
fn file_name(header: &Header) -> String {
    let (day, secs) = (header.at.div_euclid(86_400), header.at.rem_euclid(86_400));
    let (year, month, date) = crate::mail::date::civil_from_days(day);
    let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
    let kind = if header.base.is_none() { "full" } else { "incremental" };
    let id = &header.id;
    format!("pillarbox-{year:04}{month:02}{date:02}-{hour:02}{minute:02}{second:02}-{kind}-{id}.age")
}

fn folder_of(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

impl<'m> Make<'m> {
    /// Begins; the file is opened when the header comes. `watch` hears how many bytes came, and about
    /// how many will.
    pub fn new(plan: &'m mut Plan, watch: &'m mut dyn FnMut(u64, u64)) -> Self {
        Self { plan, watch, open: None, seen: 0, ending: None, failed: None }
    }

    /// Takes a frame of the store's.
    ///
    /// # Errors
    /// The target's.
    pub fn take(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), BackupError> {
        match (kind, &mut self.open) {
            (Kind::Header, None) => {
                let header = serde_json::from_slice(bytes).map_err(|error| BackupError::Broken(error.into()))?;
                self.open = Some(self.begin(header)?);
            }
            (Kind::Rows, Some(open)) => {
                self.seen += bytes.len() as u64;
                open.writer.frame(kind, bytes).map_err(|error| BackupError::Target(open.path.clone(), error))?;
                (self.watch)(self.seen, open.header.about_bytes);
            }
            (Kind::End, Some(_)) => self.ending = Some(bytes.to_vec()),
            (Kind::Failed, _) => {
                return Err(BackupError::Refused(String::from_utf8_lossy(bytes).into_owned()));
            }
            _ => return Err(BackupError::Broken(io::ErrorKind::InvalidData.into())),
        }
        Ok(())
    }

    fn begin(&mut self, mut header: Header) -> Result<Open, BackupError> {
        header.host.clone_from(&self.plan.host);
        let (path, partial) = self.plan.paths(&header);
        let broken = |error| BackupError::Target(path.clone(), error);
        let output = match (self.plan.is_stream(), self.plan.is_device()) {
            (true, _) => Ok(Output::stream()),
            (false, true) => Output::device(&path),
            (false, false) => Output::file(partial),
        };
        let output = output.map_err(broken)?;
        // Also because age would hide what the disk says of its head.
        let output = BufWriter::with_capacity(BUFFER_BYTES, output);
        let mut writer = Writer::begin(output, &self.plan.lock, &header).map_err(broken)?;
        self.plan.files.put(&mut writer).map_err(broken)?;
        Ok(Open { header, path, writer })
    }

    /// Ends the backup: it is durable under its name when this returns.
    ///
    /// # Errors
    /// The target's; or the frames did not come to their end. Nothing is left of it then.
    pub fn finish(mut self) -> Result<Report, BackupError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let cut = || BackupError::Broken(io::ErrorKind::UnexpectedEof.into());
        let (open, of_rows) = self.open.take().zip(self.ending.take()).ok_or_else(cut)?;
        let Open { header, path, writer } = open;
        let (output, ending) = writer.finish(&of_rows).map_err(|error| match error {
            BackupError::Target(_, error) => BackupError::Target(path.clone(), error),
            other => other,
        })?;
        let broken = |error| BackupError::Target(path.clone(), error);
        let output = output.into_inner().map_err(|error| broken(error.into_error()))?;
        let bytes = output.written;
        let is_file = output.keep(&path, self.plan.force).map_err(broken)?;
        Ok(Report {
            made: Made::new(&header, bytes),
            file: is_file.then_some(path),
            rows: ending.rows,
            files: ending.files,
            damaged: ending.damaged,
        })
    }
}

/// A store in our own process hands its frames over like this; what went wrong is told by
/// [`Make::finish`].
impl Sink for Make<'_> {
    fn frame(&mut self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        self.take(kind, bytes).map_err(|error| {
            self.failed = Some(error);
            io::Error::other("the backup can't be written")
        })
    }
}

/// Where the bytes go; standard output where there is no file. A partial file that is not kept is
/// removed.
#[derive(Debug)]
struct Output {
    file: Option<File>,
    partial: Option<PathBuf>,
    written: u64,
}

impl Output {
    fn stream() -> Self {
        Self { file: None, partial: None, written: 0 }
    }

    fn device(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open(path)?;
        Ok(Self { file: Some(file), partial: None, written: 0 })
    }

    fn file(partial: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&partial)?;
        // Not every file system of a memory stick has locks.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(io::Error::other("another backup is being written there"));
        }
        file.set_len(0)?;
        Ok(Self { file: Some(file), partial: Some(partial), written: 0 })
    }

    /// Gives the file its name; tells whether there is one.
    fn keep(mut self, path: &Path, force: bool) -> io::Result<bool> {
        let Some(file) = &self.file else { return io::stdout().flush().map(|()| false) };
        // A pipe has nothing to sync, and folders of some memory sticks neither.
        let synced = |done: io::Result<()>| match done {
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
            done => done,
        };
        synced(file.sync_all())?;
        if let Some(partial) = &self.partial {
            if path.exists() && !force {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(partial, path)?;
            self.partial = None;
            synced(File::open(folder_of(path)).and_then(|folder| folder.sync_all()))?;
        }
        Ok(true)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.file {
            Some(file) => file.write(bytes)?,
            None => io::stdout().write(bytes)?,
        };
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            // Where the medium is gone, so is the file.
            let _ = fs::remove_file(partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_when_and_what() {
        let header = Header { id: "3f2a91c0d417".into(), at: 1_793_498_403, ..Header::default() };
        assert_eq!(file_name(&header), "pillarbox-20261101-020003-full-3f2a91c0d417.age");
        let header = Header { base: Some("x".into()), at: 0, ..header };
        assert_eq!(file_name(&header), "pillarbox-19700101-000000-incremental-3f2a91c0d417.age");
    }

    #[test]
    fn what_is_not_finished_leaves_nothing_and_what_is_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("box.age");
        let mut plan = Plan {
            target: target.clone(),
            force: false,
            lock: Lock::Recipients(vec![age::x25519::Identity::generate().to_public()]),
            files: Files::default(),
            host: "box".to_owned(),
        };
        plan.check().unwrap();
        let header = serde_json::to_vec(&Header::default()).unwrap();
        let mut watch = |_, _| {};
        let mut make = Make::new(&mut plan, &mut watch);
        make.take(Kind::Header, &header).unwrap();
        assert!(folder.path().join("box.age.partial").exists());
        assert!(matches!(make.finish(), Err(BackupError::Broken(_))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        let mut make = Make::new(&mut plan, &mut watch);
        make.take(Kind::Header, &header).unwrap();
        make.take(Kind::End, b"{}").unwrap();
        assert_eq!(make.finish().unwrap().file, Some(target.clone()));
        assert!(plan.check().unwrap_err().to_string().contains("--force"));
        plan.force = true;
        plan.check().unwrap();
    }
}
