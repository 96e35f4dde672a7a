//! One scan: an object, a set if there is one, a time limit, and a folder for what is unpacked.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use crate::filter::scan::ReadAt;
use crate::filter::scan::engine::{Examiner, Facts};
use crate::filter::scan::set::Set;
use crate::filter::scan::signature::DigestKind;
use crate::filter::scan::unpack::kind::Kind;
use crate::filter::scan::unpack::{
    About, Examine, Limit, Limits, Listed, Report, Sheet, Unpacker, Workshop, name_fault,
};
use crate::mail::scanned::{PRINTS_MAX, Print};
use crate::store::temporary;

use super::file::SeenFile;

/// Bytes of one thing that is unpacked that are kept in memory; more goes into a file without a name.
const SHEET_MEMORY_MAX: usize = 256 << 10;

/// The same of all things that there are at one time: of what is nested each level has some.
const SHEETS_MEMORY_MAX: usize = 1 << 20;

/// What a scan is done with.
#[derive(Clone, Copy)]
pub struct Bench<'b> {
    /// The signatures, if there are any.
    pub set: Option<&'b Set>,
    /// How far unpacking goes.
    pub limits: Limits,
    /// How long it may take, on the clock below.
    pub time: Duration,
    /// A clock: the time this thread has worked, or any other.
    pub clock: &'b dyn Fn() -> Duration,
    /// Where large things that are unpacked are kept meanwhile.
    pub folder: &'b Path,
}

impl std::fmt::Debug for Bench<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Bench").field("set", &self.set).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The name of the signature that was found.
    pub signature: Option<String>,
    /// What else was met.
    pub report: Report,
}

/// Prints of what is in a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prints {
    /// Nothing is missing.
    pub whole: bool,
    /// At most [`PRINTS_MAX`].
    pub prints: Vec<Print>,
}

impl Prints {
    fn add(&mut self, digests: &[(DigestKind, Vec<u8>)], size: u64) {
        let beginning = |wanted: DigestKind| {
            let found = digests.iter().find(|(kind, _)| *kind == wanted);
            found.and_then(|(_, digest)| digest.first_chunk::<8>().copied())
        };
        match (beginning(DigestKind::Md5), beginning(DigestKind::Sha256)) {
            (Some(md5), Some(sha256)) if self.prints.len() < PRINTS_MAX => {
                self.prints.push(Print { size: u32::try_from(size).unwrap_or(u32::MAX), md5, sha256 });
            }
            _ => self.whole = false,
        }
    }
}

/// Tells whether a print is kept: of attachments and of what is in archives and documents, but not of the
/// text that a message is, and of what an office document is full of (text, pictures) only where its name
/// says that it runs.
fn is_printed(about: &About<'_>) -> bool {
    match about.kind {
        Kind::Mail => false,
        Kind::Text | Kind::Html | Kind::Picture if about.container == Kind::Mail.clamav() => !about.name.is_empty(),
        Kind::Text | Kind::Html | Kind::Picture => name_fault(about.name).is_some(),
        _ => true,
    }
}

impl Bench<'_> {
    /// Scans an object and what is in it; `is_message` when it is known to be a message.
    ///
    /// # Errors
    /// Those of the object's medium, the set's, and of the folder.
    pub fn scan(&self, object: &dyn ReadAt, name: &str, is_message: bool) -> io::Result<Findings> {
        self.look(object, name, is_message, None)
    }

    /// Scans a message and takes prints of what is in it.
    ///
    /// # Errors
    /// As [`Bench::scan`].
    pub fn scan_and_print(&self, message: &dyn ReadAt) -> io::Result<(Findings, Prints)> {
        let mut prints = Prints { whole: true, prints: Vec::new() };
        let findings = self.look(message, "message", true, Some(&mut prints))?;
        prints.whole &= findings.report.limit.is_none();
        Ok((findings, prints))
    }

    fn look(
        &self,
        object: &dyn ReadAt,
        name: &str,
        is_message: bool,
        prints: Option<&mut Prints>,
    ) -> io::Result<Findings> {
        let start = (self.clock)();
        // A clock may stand at its end from the start, when whoever waits wants no scan at all.
        let until = start.saturating_add(self.time);
        let shop = Shop { folder: self.folder, clock: self.clock, until, memory: Rc::default() };
        let mut eye = Eye { set: self.set, examiner: self.set.map(Examiner::new), prints, found: None, cut: false };
        let mut report = Unpacker::new(self.limits, &shop, &mut eye).run(object, name, is_message)?;
        if eye.cut {
            report.limit.get_or_insert(Limit::Time);
        }
        Ok(Findings { signature: eye.found, report })
    }
}

/// Examines what is unpacked with a set.
struct Eye<'e> {
    set: Option<&'e Set>,
    examiner: Option<Examiner<'e>>,
    prints: Option<&'e mut Prints>,
    found: Option<String>,
    cut: bool,
}

impl Examine for Eye<'_> {
    fn object(
        &mut self,
        object: &dyn ReadAt,
        about: &About<'_>,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> io::Result<bool> {
        let Some(examiner) = &mut self.examiner else { return Ok(true) };
        let print = self.prints.is_some() && is_printed(about);
        let facts = Facts { target: about.kind.target(), container: about.container, pe: about.pe, print };
        let seen = examiner.examine(object, facts, goes_on)?;
        self.cut |= seen.cut;
        if let Some(prints) = self.prints.as_deref_mut().filter(|_| print) {
            prints.add(&seen.digests, object.size());
        }
        if !seen.allowed {
            self.found = seen.found;
        }
        Ok(self.found.is_none())
    }

    fn listed(&mut self, listed: &Listed<'_>) -> bool {
        let within =
            |range: Option<(u64, u64)>, value: u64| range.is_none_or(|(least, most)| (least..=most).contains(&value));
        let member = self.set.map(Set::members).unwrap_or_default().iter().find(|member| {
            (member.container.is_empty() || member.container == listed.container)
                && within(member.container_size, listed.container_size)
                && member.file.matches(listed.name)
                && within(member.packed, listed.packed)
                && within(member.size, listed.size)
                && member.encrypted.is_none_or(|encrypted| encrypted == listed.encrypted)
                && within(member.position, listed.position)
        });
        self.found = member.map(|member| member.name.clone());
        self.found.is_none()
    }
}

/// Keeps what is unpacked, in memory or in files without names.
struct Shop<'s> {
    folder: &'s Path,
    clock: &'s dyn Fn() -> Duration,
    until: Duration,
    /// Bytes of all sheets that are in memory.
    memory: Rc<Cell<usize>>,
}

impl Workshop for Shop<'_> {
    fn sheet(&self) -> io::Result<Box<dyn Sheet>> {
        let (folder, held) = (self.folder.into(), Rc::clone(&self.memory));
        Ok(Box::new(Paper { folder, memory: Vec::new(), held, file: None, size: 0 }))
    }

    fn goes_on(&self) -> bool {
        (self.clock)() < self.until
    }
}

/// Something unpacked.
struct Paper {
    folder: std::path::PathBuf,
    memory: Vec<u8>,
    /// See [`Shop::memory`].
    held: Rc<Cell<usize>>,
    file: Option<File>,
    size: u64,
}

impl Drop for Paper {
    fn drop(&mut self) {
        self.held.set(self.held.get() - self.memory.len());
    }
}

impl Sheet for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.size += bytes.len() as u64;
        if let Some(file) = &mut self.file {
            return file.write_all(bytes);
        }
        let all = self.held.get() + bytes.len();
        if self.memory.len() + bytes.len() <= SHEET_MEMORY_MAX && all <= SHEETS_MEMORY_MAX {
            self.memory.extend_from_slice(bytes);
            self.held.set(all);
            return Ok(());
        }
        let mut file = temporary(&self.folder)?;
        let memory = std::mem::take(&mut self.memory);
        self.held.set(self.held.get() - memory.len());
        file.write_all(&memory)?;
        file.write_all(bytes)?;
        self.file = Some(file);
        Ok(())
    }
}

impl ReadAt for Paper {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.file {
            Some(file) => SeenFile::read(file, self.size, offset, buffer),
            None => self.memory.read_at(offset, buffer),
        }
    }
}
