//! A backup file on its way out: frames in, hashed, compressed, encrypted.

use std::io::{self, Write};
use std::path::PathBuf;

use ring::digest::{Context, SHA256};

use super::frame::{self, FORMAT, Kind, MAGIC};
use super::lock::{Lock, Locked};
use super::{BackupError, Ending, Header, hex};

/// Writes a backup.
pub struct Writer<W: Write> {
    out: Locked<W>,
    hash: Context,
    rows: u64,
    files: u64,
}

impl<W: Write> std::fmt::Debug for Writer<W> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Writer").field("rows", &self.rows).field("files", &self.files).finish_non_exhaustive()
    }
}

impl<W: Write> Writer<W> {
    /// Begins a backup that `lock` encrypts.
    ///
    /// # Errors
    /// The disk's.
    pub fn begin(out: W, lock: &Lock, header: &Header) -> io::Result<Self> {
        let mut writer = Self { out: lock.apply(out)?, hash: Context::new(&SHA256), rows: 0, files: 0 };
        writer.put(format!("{MAGIC}{FORMAT}\n").as_bytes())?;
        writer.frame(Kind::Header, &serde_json::to_vec(header)?)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }

    /// Adds a frame.
    ///
    /// # Errors
    /// The disk's.
    pub fn frame(&mut self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        match kind {
            Kind::Rows => self.rows += crate::store::dump::rows(bytes).count() as u64,
            Kind::File => self.files += 1,
            _ => {}
        }
        self.put(&frame::head(kind, bytes)?)?;
        self.put(bytes)
    }

    /// Ends the backup with what the end of the rows said, and gives the output back, which is not
    /// flushed. A backup that is not finished can't be restored.
    ///
    /// # Errors
    /// The disk's; or rows went missing on their way here.
    pub fn finish(mut self, of_rows: &[u8]) -> Result<(W, Ending), BackupError> {
        let told: Ending = serde_json::from_slice(of_rows).map_err(|error| BackupError::Broken(error.into()))?;
        if told.rows != self.rows {
            return Err(BackupError::Broken(io::Error::other("rows went missing")));
        }
        let ending = Ending { files: self.files, sha256: hex(self.hash.finish().as_ref()), ..told };
        let write = || {
            frame::write(&mut self.out, Kind::End, &serde_json::to_vec(&ending)?)?;
            self.out.finish()
        };
        Ok((write().map_err(|error| BackupError::Target(PathBuf::new(), error))?, ending))
    }
}
