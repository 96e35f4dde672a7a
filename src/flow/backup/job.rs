//! A store's rows as frames: what the server sends, and what the command makes itself when no server
//! runs.

use std::fmt;

use super::frame::{Kind, Sink};
use super::notes::{Since, find_base};
use super::{BackupError, Ending, Header, hex};
use crate::store::Store;
use crate::store::dump::{Dump, DumpError};

/// A backup that is about to be made. Holds the store's state of the moment it was begun, so the
/// store's file may grow until it ends.
pub struct Job {
    dump: Dump,
    header: Header,
    from: u64,
}

impl fmt::Debug for Job {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Job").field("header", &self.header).finish_non_exhaustive()
    }
}

impl Job {
    /// Begins a full backup, or one that builds on an earlier one.
    ///
    /// # Errors
    /// The store's, or there is no such earlier one.
    pub fn begin(store: &Store, since: Option<&Since>) -> Result<Self, BackupError> {
        let base = since.map(|since| find_base(store, since)).transpose()?;
        let from = base.as_ref().map_or(0, |base| base.watermark);
        let dump = store.dump()?;
        let about = dump.about();
        let header = Header {
            id: hex(&about.id),
            base: base.map(|base| base.id),
            at: about.at.0,
            host: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            schema: about.schema,
            watermark: about.watermark,
            tables: about.tables.clone(),
            about_bytes: dump.bytes(from)?,
        };
        Ok(Self { dump, header, from })
    }

    /// Hands over the header, all rows and the end; what goes wrong is handed over as well.
    ///
    /// # Errors
    /// The sink's.
    pub fn run(&self, sink: &mut dyn Sink) -> std::io::Result<()> {
        let header = serde_json::to_vec(&self.header)?;
        sink.frame(Kind::Header, &header)?;
        let mut rows = 0_u64;
        let done = self.dump.run(self.from, &mut |batch, count| {
            rows += u64::from(count);
            sink.frame(Kind::Rows, batch)
        });
        match done {
            Ok(damaged) => {
                let ending = Ending { rows, damaged, ..Ending::default() };
                sink.frame(Kind::End, &serde_json::to_vec(&ending)?)
            }
            Err(DumpError::Taker(error)) => Err(error),
            Err(DumpError::Read(error)) => sink.frame(Kind::Failed, error.to_string().as_bytes()),
        }
    }
}
