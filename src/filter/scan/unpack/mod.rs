//! What is in an object: archives, documents and messages are taken apart, everything in them is
//! examined, and that again, with limits on how deep, how many, how much and how long.
//!
//! [`Unpacker::object`] looks what an object is, hands it to whoever examines it, and then goes
//! through what is in it. What stands in it as it is becomes a [`super::Stretch`] of it; what is packed
//! is written to a [`Sheet`], examined and thrown away before the next. A container that is damaged
//! gives what there is of it. A limit that is met is a fact of the report, and so is what could not be
//! looked into.

use std::io::{self, Read};

use super::{ReadAt, read_vec};
use kind::Kind;
use pe::Pe;
use watch::limit_of;

mod archive;
mod cab;
pub mod kind;
mod markup;
mod message;
mod names;
mod ole;
mod ovba;
mod pdf;
pub mod pe;
mod rar;
mod sevenzip;
pub mod tar;
mod tnef;
mod watch;
mod zip;

pub use names::{NameFault, name_fault};

/// Something that is written once and then read.
pub trait Sheet: ReadAt {
    /// Adds bytes.
    ///
    /// # Errors
    /// Those of the medium.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Where unpacked objects are kept while they are examined, and whose time it is.
pub trait Workshop {
    /// A new, empty sheet.
    ///
    /// # Errors
    /// Those of the medium.
    fn sheet(&self) -> io::Result<Box<dyn Sheet>>;

    /// Tells whether there is time left.
    fn goes_on(&self) -> bool;
}

/// How far unpacking goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Deepest nesting.
    pub depth: u32,
    /// Most objects, all together.
    pub files: u32,
    /// Most bytes that are unpacked, all together.
    pub bytes: u64,
    /// Most bytes that come out of one that goes in, for what is larger than [`RATIO_FLOOR`].
    pub ratio: u64,
    /// Largest dictionary or window of a packer, in bytes: what it takes of memory is the attacker's to say.
    pub dictionary: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 16, files: 5000, bytes: 256 << 20, ratio: 250, dictionary: 8 << 20 }
    }
}

/// What unpacks to less is no bomb, in bytes.
pub const RATIO_FLOOR: u64 = 4 << 20;

/// Most bytes of containers' lists that are held while what is in them is looked at, on all levels together.
const HELD_MAX: usize = 2 << 20;

/// Bytes read at one time.
const PIECE: usize = 16 * 1024;

/// What was met on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The first limit that was met.
    pub limit: Option<Limit>,
    /// Something is encrypted: its name.
    pub encrypted: Option<String>,
    /// A document has macros: its name.
    pub macros: Option<String>,
    /// The first name that is dangerous, and why.
    pub name: Option<(String, NameFault)>,
    /// Something is packed in a way that can't be unpacked here: its name.
    pub opaque: Option<String>,
}

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::depth`].
    Depth,
    /// [`Limits::files`].
    Files,
    /// [`Limits::bytes`].
    Bytes,
    /// [`Limits::ratio`].
    Ratio,
    /// There was no time left.
    Time,
    /// It wants more memory than there is for it: [`Limits::dictionary`], or a container's lists are too long.
    Memory,
}

impl Limit {
    /// The name of the finding.
    pub fn finding(self) -> &'static str {
        match self {
            Self::Depth => "Limits.Exceeded.Depth",
            Self::Files => "Limits.Exceeded.Files",
            Self::Bytes => "Limits.Exceeded.Bytes",
            Self::Ratio => "Limits.Exceeded.Ratio",
            Self::Time => "Limits.Exceeded.Time",
            Self::Memory => "Limits.Exceeded.Memory",
        }
    }
}

/// What is known of an object when it is examined.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Its name in its container.
    pub name: &'a str,
    /// What it is.
    pub kind: Kind,
    /// What it was in, as ClamAV spells it.
    pub container: &'static str,
    /// If it is a Windows program, what is known of it.
    pub pe: Option<&'a Pe>,
}

/// What an archive says of a file in it.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// The kind of archive as ClamAV spells it.
    pub container: &'static str,
    /// The archive's bytes.
    pub container_size: u64,
    /// The file's name.
    pub name: &'a str,
    /// Its bytes in the archive.
    pub packed: u64,
    /// Its bytes unpacked.
    pub size: u64,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// Its number in the archive, from one.
    pub position: u64,
}

/// Who examines what is unpacked.
pub trait Examine {
    /// Examines an object; false ends the unpacking.
    ///
    /// # Errors
    /// Those of the media.
    fn object(&mut self, object: &dyn ReadAt, about: &About<'_>, goes_on: &mut dyn FnMut() -> bool)
    -> io::Result<bool>;

    /// Examines what an archive says of a file; false ends the unpacking.
    fn listed(&mut self, listed: &Listed<'_>) -> bool;
}

/// Why unpacking ended early.
#[derive(Debug)]
enum Stop {
    /// Whoever examines has seen enough, or a limit was met that ends it all.
    Enough,
    /// A medium failed.
    Failed(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// A step of unpacking.
type Step = Result<(), Stop>;

/// What came out of a decoder; none where it could not be made.
type Drawn = Result<Option<Box<dyn Sheet>>, Stop>;

/// An object with its name and how deep it is.
#[derive(Clone, Copy)]
struct Item<'i> {
    object: &'i dyn ReadAt,
    name: &'i str,
    depth: u32,
}

/// Takes objects apart.
pub struct Unpacker<'u> {
    limits: Limits,
    workshop: &'u dyn Workshop,
    examine: &'u mut dyn Examine,
    files: u32,
    bytes: u64,
    held: usize,
    report: Report,
}

impl std::fmt::Debug for Unpacker<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Unpacker").field("report", &self.report).finish_non_exhaustive()
    }
}

impl<'u> Unpacker<'u> {
    /// Unpacks within `limits`.
    pub fn new(limits: Limits, workshop: &'u dyn Workshop, examine: &'u mut dyn Examine) -> Self {
        Self { limits, workshop, examine, files: 0, bytes: 0, held: 0, report: Report::default() }
    }

    /// Examines an object and what is in it. A message that is known to be one is not asked what it is.
    ///
    /// # Errors
    /// Those of the media.
    pub fn run(mut self, object: &dyn ReadAt, name: &str, is_message: bool) -> io::Result<Report> {
        let item = Item { object, name, depth: 0 };
        let done = if is_message { self.known(item, Kind::Mail, "") } else { self.object(item, "") };
        match done {
            Ok(()) | Err(Stop::Enough) => Ok(self.report),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    fn object(&mut self, item: Item<'_>, container: &'static str) -> Step {
        let kind = Kind::of(item.object)?;
        self.known(item, kind, container)
    }

    fn known(&mut self, item: Item<'_>, kind: Kind, container: &'static str) -> Step {
        if item.depth > self.limits.depth {
            self.limit(Limit::Depth);
            return Ok(());
        }
        self.files += 1;
        if self.files > self.limits.files {
            self.limit(Limit::Files);
            return Err(Stop::Enough);
        }
        self.time()?;
        let pe = if kind == Kind::Pe { Pe::read(item.object)? } else { None };
        let about = About { name: item.name, kind, container, pe: pe.as_ref() };
        let workshop = self.workshop;
        if !self.examine.object(item.object, &about, &mut || workshop.goes_on())? {
            return Err(Stop::Enough);
        }
        self.time()?;
        match kind {
            Kind::Zip => self.zip(item),
            Kind::Gzip | Kind::Bzip2 | Kind::Xz | Kind::Lzma | Kind::Zstd => self.packed(item, kind),
            Kind::Tar => self.tar(item),
            Kind::SevenZip => self.seven_zip(item),
            Kind::Rar => self.rar(item),
            Kind::Cab => self.cab(item),
            Kind::Iso => self.iso(item),
            Kind::Ole => self.ole(item),
            Kind::Tnef => self.tnef(item),
            Kind::Pdf => self.pdf(item),
            Kind::Rtf => self.rtf(item),
            Kind::Html => self.html(item),
            Kind::Mail => self.message(item),
            Kind::Text => self.text(item),
            // Installers carry archives behind their code.
            Kind::Pe => self.overlay(item, pe.as_ref()),
            _ => Ok(()),
        }
    }

    /// What stands behind the last section of a Windows program, if it is an archive.
    fn overlay(&mut self, item: Item<'_>, pe: Option<&Pe>) -> Step {
        let end = pe.and_then(|pe| pe.sections.iter().map(|section| section.end).max()).unwrap_or(0);
        if end == 0 || end >= item.object.size() {
            return Ok(());
        }
        let rest = super::Stretch::new(item.object, end, u64::MAX);
        match Kind::of(&rest)? {
            kind @ (Kind::Zip | Kind::SevenZip | Kind::Rar | Kind::Cab) => {
                self.known(Item { object: &rest, name: item.name, depth: item.depth + 1 }, kind, Kind::Pe.clamav())
            }
            _ => Ok(()),
        }
    }

    /// Notes the first limit that is met.
    fn limit(&mut self, limit: Limit) {
        self.report.limit.get_or_insert(limit);
    }

    fn time(&mut self) -> Step {
        if self.workshop.goes_on() {
            return Ok(());
        }
        self.limit(Limit::Time);
        Err(Stop::Enough)
    }

    /// Notes what a name says.
    fn name(&mut self, name: &str) {
        if self.report.name.is_none()
            && let Some(fault) = name_fault(name)
        {
            self.report.name = Some((shown(name), fault));
        }
    }

    fn encrypted(&mut self, name: &str) {
        self.report.encrypted.get_or_insert_with(|| shown(name));
    }

    fn macros(&mut self, name: &str) {
        self.report.macros.get_or_insert_with(|| shown(name));
    }

    fn opaque(&mut self, name: &str) {
        self.report.opaque.get_or_insert_with(|| shown(name));
    }

    /// Counts bytes that were unpacked.
    fn count(&mut self, bytes: usize) -> Step {
        self.bytes += bytes as u64;
        if self.bytes > self.limits.bytes {
            self.limit(Limit::Bytes);
            return Err(Stop::Enough);
        }
        Ok(())
    }

    /// Unpacks `packed` bytes onto a sheet. A decoder that fails ends it: what came out counts.
    fn unpack(&mut self, from: &mut dyn Read, packed: u64) -> Result<Box<dyn Sheet>, Stop> {
        let mut sheet = self.workshop.sheet()?;
        let (mut piece, mut total, mut looks) = (vec![0; PIECE], 0_u64, 0_u32);
        loop {
            let read = match from.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    if let Some(limit) = limit_of(&error) {
                        self.limit(limit);
                    }
                    break;
                }
            };
            self.count(read)?;
            total += read as u64;
            if total > RATIO_FLOOR && total / packed.max(1) > self.limits.ratio {
                self.limit(Limit::Ratio);
                break;
            }
            looks += 1;
            if looks.is_multiple_of(64) {
                self.time()?;
            }
            sheet.write(piece.get(..read).unwrap_or_default())?;
        }
        self.time()?;
        Ok(sheet)
    }

    /// Takes a step while a container's lists are held, if there is room for them.
    fn holding(&mut self, bytes: usize, step: impl FnOnce(&mut Self) -> Step) -> Step {
        if self.held + bytes > HELD_MAX {
            self.limit(Limit::Memory);
            return Ok(());
        }
        self.held += bytes;
        let done = step(self);
        self.held -= bytes;
        done
    }

    /// Draws what comes out of a decoder, unless it would be too deep. Decoders are made in functions that
    /// return before it is examined: their memory is for one at a time, and so is what their making takes
    /// of the stack, which is much in a program built for size.
    fn draw(&mut self, mut from: impl Read, packed: u64, inner: Inner<'_>) -> Drawn {
        if inner.depth > self.limits.depth {
            self.limit(Limit::Depth);
            return Ok(None);
        }
        self.unpack(&mut from, packed).map(Some)
    }

    /// Examines what was drawn.
    fn drawn(&mut self, sheet: Option<Box<dyn Sheet>>, inner: Inner<'_>) -> Step {
        let Some(sheet) = sheet.filter(|sheet| sheet.size() > 0) else { return Ok(()) };
        self.object(Item { object: &*sheet, name: inner.name, depth: inner.depth }, inner.container)
    }

    /// Tells whoever examines what an archive says of a file.
    fn listed(&mut self, listed: &Listed<'_>) -> Step {
        self.name(listed.name);
        if listed.encrypted {
            self.encrypted(listed.name);
        }
        if self.examine.listed(listed) { Ok(()) } else { Err(Stop::Enough) }
    }
}

/// What is about to come out of a container.
#[derive(Clone, Copy)]
struct Inner<'i> {
    name: &'i str,
    depth: u32,
    container: &'static str,
}

impl Item<'_> {
    /// Something in this, called `name`.
    fn inner<'n>(&self, name: &'n str, kind: Kind) -> Inner<'n> {
        Inner { name, depth: self.depth + 1, container: kind.clamav() }
    }

    fn bytes(&self, offset: u64, count: usize) -> io::Result<Vec<u8>> {
        read_vec(self.object, offset, count)
    }
}

/// A name as it can be logged: no control characters, not long.
fn shown(name: &str) -> String {
    name.chars().filter(|letter| !letter.is_control()).take(80).collect()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|two| u16::from_le_bytes(*two))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_le_bytes(*four))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|eight| u64::from_le_bytes(*eight))
}

/// Where bytes first are at or behind `from`, within `most` bytes.
fn find(object: &dyn ReadAt, wanted: &[u8], from: u64, most: u64) -> io::Result<Option<u64>> {
    let end = object.size().min(from.saturating_add(most));
    let mut at = from;
    while at < end {
        let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE + wanted.len());
        let bytes = read_vec(object, at, count)?;
        if let Some(place) = bytes.windows(wanted.len()).position(|window| window == wanted) {
            return Ok(Some(at + place as u64));
        }
        if bytes.len() <= wanted.len() {
            break;
        }
        at += (bytes.len() - wanted.len() + 1) as u64;
    }
    Ok(None)
}
