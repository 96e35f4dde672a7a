//! A chain of backups: a full one and, in their order, those that build on it.
//!
//! Small tables and files are taken from the last one alone, bodies from all. So the last one's
//! tables come first, to know which bodies there still are, and then every file's bodies in order:
//! the last file is read twice where there is more than one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::files::Unpack;
use super::frame::Kind;
use super::lock::Keys;
use super::reader::Reader;
use super::{BackupError, Header};
use crate::store::dump::{Row, rows};
use crate::store::load::Load;
use crate::store::proof::{Findings, Proof};

/// Files whose chain was looked at.
#[derive(Debug)]
pub(super) struct Chain {
    links: Vec<(PathBuf, Header)>,
}

/// Where a chain's rows and files go; nowhere when it is only proved.
#[derive(Debug, Default)]
pub(super) struct Goal<'g> {
    pub(super) load: Option<&'g mut Load>,
    pub(super) files: Option<&'g mut Unpack>,
}

/// Which rows of a file are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Everything.
    All,
    /// Everything but the bodies.
    Tables,
    /// Bodies below this number.
    Bodies(u64),
}

impl Chain {
    /// Reads the headers and makes sure that each file builds on the one before.
    pub(super) fn open(paths: &[PathBuf], keys: &Keys, read: &Arc<AtomicU64>) -> Result<Self, BackupError> {
        let mut links: Vec<(PathBuf, Header)> = Vec::new();
        for path in paths {
            let header = Reader::open(path, keys, read)?.header().clone();
            let (here, before) = (path.display(), links.last());
            match (&header.base, before) {
                (None, None) => {}
                (Some(base), Some((_, last))) if *base == last.id => {}
                (Some(base), None) => {
                    return Err(BackupError::Chain(format!(
                        "{here} is an incremental backup that builds on {base}; name that file before it"
                    )));
                }
                (None, Some((first, _))) => {
                    return Err(BackupError::Chain(format!(
                        "{here} is a full backup and builds on nothing; restore it without {}",
                        first.display()
                    )));
                }
                (Some(base), Some((last, found))) => {
                    return Err(BackupError::Chain(format!(
                        "{here} builds on {base}, but {} before it is {}; put the files in the order they were made, \
                         none left out",
                        last.display(),
                        found.id
                    )));
                }
            }
            links.push((path.clone(), header));
        }
        Ok(Self { links })
    }

    /// The last one's header.
    pub(super) fn last(&self) -> Header {
        self.links.last().map(|(_, header)| header.clone()).unwrap_or_default()
    }

    /// The last one's file.
    pub(super) fn last_path(&self) -> &Path {
        self.links.last().map_or(Path::new(""), |(path, _)| path)
    }

    /// Reads it all.
    pub(super) fn walk(
        &self,
        keys: &Keys,
        goal: &mut Goal<'_>,
        read: &Arc<AtomicU64>,
        watch: &mut dyn FnMut(),
    ) -> Result<Findings, BackupError> {
        let mut walk = Walk { proof: Proof::default(), goal, watch };
        if let [(path, header)] = self.links.as_slice() {
            walk.file(path, header, keys, Part::All, read)?;
        } else if let Some((path, header)) = self.links.last() {
            walk.file(path, header, keys, Part::Tables, read)?;
            let last = self.links.len() - 1;
            for (index, (path, header)) in self.links.iter().enumerate() {
                // What a file holds above its watermark may not be what came of it: the next has that.
                let upto = if index == last { u64::MAX } else { header.watermark };
                walk.file(path, header, keys, Part::Bodies(upto), read)?;
            }
        }
        Ok(walk.proof.finish())
    }
}

struct Walk<'w, 'g> {
    proof: Proof,
    goal: &'w mut Goal<'g>,
    watch: &'w mut dyn FnMut(),
}

impl Walk<'_, '_> {
    fn file(
        &mut self,
        path: &Path,
        header: &Header,
        keys: &Keys,
        part: Part,
        read: &Arc<AtomicU64>,
    ) -> Result<(), BackupError> {
        let mut reader = Reader::open(path, keys, read)?;
        if reader.header() != header {
            return Err(reader.altered());
        }
        let altered = || BackupError::Altered(path.to_owned());
        while let Some((kind, bytes)) = reader.next()? {
            (self.watch)();
            match (kind, &mut self.goal.files) {
                (Kind::Rows, _) => {
                    let batch = rows(bytes).collect::<Option<Vec<_>>>().ok_or_else(altered)?;
                    self.batch(&batch, header, part).map_err(|error| error.unwrap_or_else(altered))?;
                }
                (Kind::File, Some(files)) if !matches!(part, Part::Bodies(_)) => files.begin(bytes, path)?,
                (Kind::Data, Some(files)) if !matches!(part, Part::Bodies(_)) => files.data(bytes, path)?,
                _ => {}
            }
        }
        if let (Some(files), false) = (&mut self.goal.files, matches!(part, Part::Bodies(_))) {
            files.end(path)?;
        }
        self.proof.end_of_dump();
        Ok(())
    }

    /// Deals with a batch; an error of `None` says that it makes no sense.
    fn batch(&mut self, batch: &[Row<'_>], header: &Header, part: Part) -> Result<(), Option<BackupError>> {
        let mut taken = Vec::with_capacity(batch.len());
        let mut seen: Vec<u8> = Vec::new();
        for row in batch {
            let name = header.tables.get(usize::from(row.table)).ok_or(None)?;
            if self.takes(name, row, part) {
                taken.push(*row);
                if !seen.contains(&row.table) {
                    seen.push(row.table);
                }
            }
        }
        let Some(load) = &mut self.goal.load else { return Ok(()) };
        for number in seen {
            let name = header.tables.get(usize::from(number)).ok_or(None)?;
            load.put(name, number, &taken).map_err(|error| Some(error.into()))?;
        }
        Ok(())
    }

    /// Proves a row; tells whether it goes into the store.
    fn takes(&mut self, name: &str, row: &Row<'_>, part: Part) -> bool {
        let of_body = matches!(name, "structure" | "piece" | "tail");
        match (part, name) {
            (Part::All | Part::Tables, "blob") => self.proof.list(row),
            (Part::All | Part::Tables, _) if !of_body => self.proof.see(name, row),
            _ => {}
        }
        match part {
            Part::Tables => !of_body,
            Part::All => {
                self.proof.see_body(name, row);
                true
            }
            Part::Bodies(upto) => {
                let id = row.key.first_chunk().map_or(u64::MAX, |id| u64::from_le_bytes(*id));
                if (of_body || name == "blob") && id < upto {
                    self.proof.see_body(name, row);
                }
                of_body && id < upto && self.proof.lists(id)
            }
        }
    }
}

/// What a proof without writing found.
///
/// # Errors
/// A file can't be read to its end, is not what was written, or the files make no chain. Calls `watch`
/// while it goes on, and counts what it reads of the files in `read`.
pub fn verify(
    paths: &[PathBuf],
    keys: &Keys,
    read: &Arc<AtomicU64>,
    watch: &mut dyn FnMut(),
) -> Result<(Header, Findings), BackupError> {
    let chain = Chain::open(paths, keys, read)?;
    let findings = chain.walk(keys, &mut Goal::default(), read, watch)?;
    Ok((chain.last(), findings))
}
