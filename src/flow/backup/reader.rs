//! A backup file on its way in: decrypted, unpacked, its frames given back one by one.
//!
//! The last frame is given only when everything before it hashes to what it says and nothing comes
//! after it; so whoever has seen [`Reader::next`] end has read what was written, all of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::digest::{Context, SHA256};

use super::frame::{self, FORMAT, Kind, MAGIC};
use super::lock::{self, Keys, Unlocked, told};
use super::{At, BackupError, Ending, Header, hex};
use crate::store::load::{knows_schema, knows_table};

/// Longest first line.
const LINE_MAX: usize = 64;

/// Counts what is read.
#[derive(Debug)]
struct Counting {
    input: File,
    read: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(bytes)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// An open backup.
pub(super) struct Reader {
    input: Unlocked<Counting>,
    path: PathBuf,
    hash: Context,
    header: Header,
    frame: Vec<u8>,
    rows: u64,
    files: u64,
}

impl Reader {
    /// Opens a backup and reads its header. What is read of the file is added to `read`.
    pub(super) fn open(path: &Path, keys: &Keys, read: &Arc<AtomicU64>) -> Result<Self, BackupError> {
        let input = Counting { input: File::open(path).at(path)?, read: read.clone() };
        let mut input = lock::open(input, keys, path)?;
        let mut hash = Context::new(&SHA256);
        first_line(&mut input, &mut hash, path)?;
        let mut reader = Self {
            input,
            path: path.to_owned(),
            hash,
            header: Header::default(),
            frame: Vec::new(),
            rows: 0,
            files: 0,
        };
        if reader.read()? != Kind::Header {
            return Err(reader.altered());
        }
        reader.header = serde_json::from_slice(&reader.frame).map_err(|_| reader.altered())?;
        let Header { version, schema, tables, .. } = &reader.header;
        let unknown =
            tables.iter().find(|name| !knows_table(name)).map(|name| format!("version {version}, table {name}"));
        let newer = (!knows_schema(*schema)).then(|| format!("version {version}, schema {schema}"));
        if let Some(what) = newer.or(unknown) {
            return Err(BackupError::Newer(path.to_owned(), what));
        }
        Ok(reader)
    }

    /// What it is of.
    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn altered(&self) -> BackupError {
        BackupError::Altered(self.path.clone())
    }

    fn read(&mut self) -> Result<Kind, BackupError> {
        let kind = frame::read(&mut self.input, &mut self.frame).map_err(|error| told(error, &self.path))?;
        let kind = kind.ok_or_else(|| self.altered())?;
        if kind != Kind::End {
            self.hash.update(&frame::head(kind, &self.frame).map_err(|error| told(error, &self.path))?);
            self.hash.update(&self.frame);
        }
        Ok(kind)
    }

    /// The next frame; `None` after the last, when all of it is proved to be what was written.
    pub(super) fn next(&mut self) -> Result<Option<(Kind, &[u8])>, BackupError> {
        let kind = self.read()?;
        match kind {
            Kind::File => self.files += 1,
            Kind::Data => {}
            Kind::Rows => self.rows += crate::store::dump::rows(&self.frame).count() as u64,
            Kind::End => return self.end().map(|()| None),
            Kind::Header | Kind::Failed => return Err(self.altered()),
        }
        Ok(Some((kind, &self.frame)))
    }

    fn end(&mut self) -> Result<(), BackupError> {
        let ending: Ending = serde_json::from_slice(&self.frame).map_err(|_| self.altered())?;
        let found = hex(self.hash.clone().finish().as_ref());
        // To the very end: only there age proves that nothing was cut off.
        let more = self.input.read(&mut [0]).map_err(|error| told(error, &self.path))?;
        let counted = (ending.rows, ending.files) == (self.rows, self.files);
        if found == ending.sha256 && counted && more == 0 { Ok(()) } else { Err(self.altered()) }
    }
}

fn first_line(input: &mut impl Read, hash: &mut Context, path: &Path) -> Result<(), BackupError> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && line.len() < LINE_MAX {
        let mut byte = [0];
        input.read_exact(&mut byte).map_err(|error| told(error, path))?;
        line.extend(byte);
    }
    hash.update(&line);
    let line = String::from_utf8_lossy(&line);
    let version = line.strip_prefix(MAGIC).and_then(|rest| rest.strip_suffix('\n'));
    match version.map(str::parse::<u32>) {
        Some(Ok(FORMAT)) => Ok(()),
        Some(Ok(newer)) if newer > FORMAT => Err(BackupError::Newer(path.to_owned(), format!("format {newer}"))),
        _ => Err(BackupError::Foreign(path.to_owned(), "it is encrypted with age but holds something else")),
    }
}
