//! Many signature files into one set, in bounded memory: records are sorted in temporary files, the
//! approximate filter and the map of grams are all that grows with the set (a byte and a few bits a
//! signature).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::sort::Sorter;
use super::source::{self, SourceError, TakeLine};
use crate::filter::scan::set::filter::Filter;
use crate::filter::scan::set::record::{
    ALIGNMENT, GRAM_BYTES, Gram, HASH_BYTES, HashRecord, IGNORED_TAG, PatternRecord, SOUGHT_BYTES, SegmentRecord,
    filter_key, framed,
};
use crate::filter::scan::set::{
    Counts, Extent, HEADER_BYTES, Header, MEMBERS_MAX, Origin, SECTIONS, Section, bucket, bucket_bits, name_key,
};
use crate::filter::scan::signature::{self, Format, Logical, Member, Reason, Signature};
use crate::store::temporary;

/// Bits of the map of grams for each of them; with 64 one place in 64 that has nothing is looked at.
const MAP_BITS_EACH: u64 = 64;

/// Largest map: a MiB.
const MAP_BITS_MAX: u32 = 23;

/// Most bytes of pattern records, which are numbered in 29 bits.
const RECORDS_MAX: u64 = (1 << 29) * ALIGNMENT;

/// Most bytes of names, so that five bytes number them with room to spare.
const NAMES_MAX: u64 = 1 << 38;

/// Why a set was not compiled.
#[derive(Debug)]
pub enum CompileError {
    /// A signature file is not taken.
    Source(PathBuf, SourceError),
    /// The set can't be written.
    Output(io::Error),
    /// There are more signatures than a set holds.
    TooMany(&'static str),
}

impl std::fmt::Display for CompileError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Source(path, error) => write!(out, "{}: {error}", path.display()),
            Self::Output(error) => write!(out, "the signature set cannot be written: {error}"),
            Self::TooMany(what) => write!(out, "there are more {what} than a signature set holds"),
        }
    }
}

impl std::error::Error for CompileError {}

impl From<io::Error> for CompileError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Is told how many bytes of the signature files were read.
pub type Progress<'p> = &'p mut dyn FnMut(u64);

/// Compiles signature files into the file `output`, with temporary files in its folder. After a cut
/// the file is the old one or the new one.
///
/// # Errors
/// Why it can't be.
pub fn compile(sources: &[PathBuf], output: &Path, now: i64, progress: Progress<'_>) -> Result<Header, CompileError> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut maker = Maker::new(folder)?;
    for path in sources {
        let mut origin = Origin::default();
        let mut taker =
            Taker { maker: &mut maker, format: None, taken: 0, left: BTreeMap::new(), progress, failed: None };
        let about = source::read(path, &mut taker);
        if let Some(failure) = taker.failed {
            return Err(failure);
        }
        origin.about = about.map_err(|error| CompileError::Source(path.clone(), error))?;
        origin.taken = taker.taken;
        origin.left = taker.left.into_iter().map(|(reason, count)| (reason.0.to_owned(), count)).collect();
        origin.name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        maker.origins.push(origin);
    }
    let mut name = output.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    // An earlier try that was broken off.
    let _ = std::fs::remove_file(&new);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&new)?;
    let written = maker.write(file, now).and_then(|header| {
        std::fs::rename(&new, output)?;
        File::open(folder)?.sync_all()?;
        Ok(header)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written
}

/// Compiles into a file without a name, for one scan.
///
/// # Errors
/// As [`compile`].
pub fn compile_unnamed(sources: &[PathBuf], folder: &Path, progress: Progress<'_>) -> Result<File, CompileError> {
    let place = folder.join(format!(".signatures-{}", std::process::id()));
    let compiled = compile(sources, &place, 0, progress).and_then(|_| Ok(File::open(&place)?));
    let _ = std::fs::remove_file(&place);
    compiled
}

/// Takes the lines of one source.
struct Taker<'t, 'f> {
    maker: &'t mut Maker<'f>,
    format: Option<Format>,
    taken: u64,
    left: BTreeMap<Reason, u64>,
    progress: Progress<'t>,
    failed: Option<CompileError>,
}

impl TakeLine for Taker<'_, '_> {
    fn file(&mut self, format: Format) {
        self.format = Some(format);
    }

    fn line(&mut self, line: Option<&[u8]>) -> io::Result<()> {
        let read = match (line, self.format) {
            (Some(line), Some(format)) => signature::read(format, line),
            (None, _) => Err(Reason("lines that are too long")),
            (_, None) => Ok(None),
        };
        let added = match read {
            Ok(None) => return Ok(()),
            Ok(Some(signature)) => self.maker.add(signature),
            Err(reason) => Ok(Some(reason)),
        };
        match added {
            Ok(None) => self.taken += 1,
            Ok(Some(reason)) => *self.left.entry(reason).or_default() += 1,
            Err(failure) => {
                self.failed = Some(failure);
                return Err(io::Error::other("the set is full"));
            }
        }
        Ok(())
    }

    fn progress(&mut self, bytes: u64) {
        (self.progress)(bytes);
    }
}

/// A temporary file that grows.
struct Growing {
    file: BufWriter<File>,
    length: u64,
}

impl Growing {
    fn new(folder: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::with_capacity(64 << 10, temporary(folder)?), length: 0 })
    }

    /// Adds bytes and returns where they are.
    fn add(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.length;
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(at)
    }
}

/// A set that is being made.
struct Maker<'f> {
    names: Growing,
    records: Growing,
    hashes: Sorter<'f, HASH_BYTES>,
    grams: Sorter<'f, GRAM_BYTES>,
    shorts: Sorter<'f, GRAM_BYTES>,
    members: Vec<Member>,
    counts: Counts,
    origins: Vec<Origin>,
    kinds: [bool; 3],
}

impl<'f> Maker<'f> {
    fn new(folder: &'f Path) -> io::Result<Self> {
        Ok(Self {
            names: Growing::new(folder)?,
            records: Growing::new(folder)?,
            hashes: Sorter::new(folder),
            grams: Sorter::new(folder),
            shorts: Sorter::new(folder),
            members: Vec::new(),
            counts: Counts::default(),
            origins: Vec::new(),
            kinds: [false; 3],
        })
    }

    fn add(&mut self, signature: Signature) -> Result<Option<Reason>, CompileError> {
        match signature {
            Signature::Hash(hash) => {
                let name = self.name(&hash.name)?;
                self.hashes.push(HashRecord::of(&hash, name).bytes())?;
                self.counts.hashes += 1;
                if let Some(kind) = self.kinds.get_mut(hash.kind as usize) {
                    *kind = true;
                }
            }
            Signature::Ignore(name) => {
                let record = HashRecord { key: name_key(&name), tag: IGNORED_TAG, name: 0, size: None };
                self.hashes.push(record.bytes())?;
                self.counts.ignored += 1;
            }
            Signature::Member(_) if self.members.len() >= MEMBERS_MAX => {
                return Ok(Some(Reason("more signatures for what stands in archives than are kept")));
            }
            Signature::Member(member) => {
                self.members.push(member);
                self.counts.members += 1;
            }
            Signature::Pattern(logical) => return self.add_pattern(logical),
        }
        Ok(None)
    }

    fn name(&mut self, name: &str) -> Result<u64, CompileError> {
        if self.names.length > NAMES_MAX {
            return Err(CompileError::TooMany("names"));
        }
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        let at = self.names.add(&[length])?;
        self.names.add(name.as_bytes().get(..usize::from(length)).unwrap_or_default())?;
        Ok(at)
    }

    fn add_pattern(&mut self, logical: Logical) -> Result<Option<Reason>, CompileError> {
        const TOO_LONG: Reason = Reason("patterns that are too long");
        let simple = logical.bodies.len() == 1
            && logical.regexes.is_empty()
            && logical.expression == signature::Expression::Sub(0);
        let target = logical.terms.target;
        let Logical { name, terms, expression, bodies, regexes } = logical;
        let record = PatternRecord { name, terms, expression, regexes };
        let Some(frame) = framed(&record) else { return Ok(Some(TOO_LONG)) };
        // A signature counts with all of its segments or not at all.
        let mut segments = Vec::new();
        let at = self.place()?;
        for (number, (sub, place, body)) in bodies.into_iter().enumerate() {
            let segments_of_it = body.segments.len();
            for (index, segment) in body.segments.into_iter().enumerate() {
                let Some(anchor) = segment.anchor() else { return Ok(Some(TOO_LONG)) };
                let anchored = segment.anchored(anchor).to_vec();
                let record = SegmentRecord {
                    signature: at,
                    body: u16::try_from(number).unwrap_or(u16::MAX),
                    sub,
                    index: u8::try_from(index).unwrap_or(u8::MAX),
                    last: index + 1 == segments_of_it,
                    fold: body.fold,
                    word: body.word,
                    simple,
                    target,
                    place,
                    anchor,
                    segment,
                };
                let Some(frame) = framed(&record) else { return Ok(Some(TOO_LONG)) };
                segments.push((anchored, frame));
            }
        }
        self.records.add(&frame)?;
        for (anchored, frame) in segments {
            let place = self.place()?;
            self.records.add(&frame)?;
            let (gram, long) = Gram::of(&anchored, place);
            if long {
                self.grams.push(gram.bytes())?;
            } else {
                self.shorts.push(gram.bytes())?;
            }
            self.counts.segments += 1;
        }
        self.counts.patterns += 1;
        Ok(None)
    }

    fn place(&self) -> Result<u32, CompileError> {
        if self.records.length >= RECORDS_MAX {
            return Err(CompileError::TooMany("patterns"));
        }
        u32::try_from(self.records.length / ALIGNMENT).map_err(|_| CompileError::TooMany("patterns"))
    }

    fn write(self, file: File, now: i64) -> Result<Header, CompileError> {
        let mut out = Output {
            file: BufWriter::with_capacity(64 << 10, file),
            at: 0,
            open: None,
            sections: [Extent::default(); SECTIONS],
        };
        let mut counts = self.counts;
        out.add(&vec![0; HEADER_BYTES])?;

        let mut filter = Filter::with_keys(self.hashes.count());
        let hash_bits = bucket_bits(self.hashes.count());
        let mut directory = Directory::new(hash_bits);
        let (mut sorted, mut before, mut number) = (self.hashes.finish()?, None, 0_u32);
        out.begin(Section::Hashes);
        while let Some(bytes) = sorted.next()? {
            // Lists repeat what others have.
            let head = bytes.first_chunk::<SOUGHT_BYTES>().copied();
            if head == before {
                continue;
            }
            before = head;
            let Some(record) = HashRecord::from_bytes(&bytes) else { continue };
            filter.add(filter_key(&record.key, record.tag));
            directory.reach(bucket(&record.key, hash_bits), number);
            number = number.checked_add(1).ok_or(CompileError::TooMany("digests"))?;
            out.add(&bytes)?;
        }
        counts.hashes = u64::from(number).saturating_sub(counts.ignored.min(u64::from(number)));
        drop(sorted);
        out.section(Section::Directory, &directory.bytes(number))?;
        out.section(Section::Filter, filter.bytes())?;
        drop(filter);
        out.copy(Section::Names, self.names)?;
        out.copy(Section::Records, self.records)?;

        let grams = self.grams.count();
        let map_bits = (grams * MAP_BITS_EACH).max(4096).next_power_of_two().ilog2().min(MAP_BITS_MAX);
        let gram_bits = (grams / 2).max(2).next_power_of_two().ilog2().min(20);
        let mut map = if grams == 0 { Vec::new() } else { vec![0_u8; 1 << (map_bits - 3)] };
        let mut directory = Directory::new(u8::try_from(gram_bits).unwrap_or(20));
        let (mut sorted, mut number) = (self.grams.finish()?, 0_u32);
        out.begin(Section::Grams);
        while let Some(bytes) = sorted.next()? {
            let Some(gram) = Gram::from_bytes(&bytes) else { continue };
            let bit = gram.hash >> (32 - map_bits);
            if let Some(byte) = map.get_mut((bit >> 3) as usize) {
                *byte |= 1 << (bit & 7);
            }
            directory.reach((gram.hash >> (32 - gram_bits)).into(), number);
            number += 1;
            out.add(&bytes)?;
        }
        out.section(Section::GramDirectory, &directory.bytes(number))?;
        out.section(Section::GramMap, &map)?;
        let mut sorted = self.shorts.finish()?;
        out.begin(Section::Shorts);
        while let Some(bytes) = sorted.next()? {
            out.add(&bytes)?;
        }
        let coded = |failed: postcard::Error| CompileError::Output(io::Error::other(failed));
        out.section(Section::Members, &postcard::to_allocvec(&self.members).map_err(coded)?)?;
        out.section(Section::Origins, &postcard::to_allocvec(&(&self.origins, self.kinds)).map_err(coded)?)?;

        let header = Header {
            made: now,
            sections: out.sections,
            counts,
            hash_bits,
            map_bits: u8::try_from(map_bits).unwrap_or(0),
            gram_bits: u8::try_from(gram_bits).unwrap_or(0),
        };
        let bytes = header.bytes().filter(|bytes| bytes.len() == HEADER_BYTES);
        let bytes = bytes.ok_or_else(|| CompileError::Output(io::Error::other("the header does not fit")))?;
        let mut file = out.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        Ok(header)
    }
}

/// Where each bucket begins, as records come in order.
struct Directory {
    starts: Vec<u32>,
    buckets: usize,
}

impl Directory {
    fn new(bits: u8) -> Self {
        Self { starts: Vec::new(), buckets: 1 << bits }
    }

    /// Record `number` is the next, in `bucket`.
    fn reach(&mut self, bucket: u64, number: u32) {
        let bucket = usize::try_from(bucket).unwrap_or(usize::MAX).min(self.buckets);
        while self.starts.len() <= bucket {
            self.starts.push(number);
        }
    }

    /// The directory, once there are no more.
    fn bytes(mut self, count: u32) -> Vec<u8> {
        self.starts.resize(self.buckets + 1, count);
        self.starts.iter().flat_map(|start| start.to_le_bytes()).collect()
    }
}

/// The set as it is written.
struct Output {
    file: BufWriter<File>,
    at: u64,
    /// The section that is being written.
    open: Option<Section>,
    sections: [Extent; SECTIONS],
}

impl Output {
    fn begin(&mut self, section: Section) {
        self.open = Some(section);
        if let Some(extent) = self.sections.get_mut(section as usize) {
            extent.offset = self.at;
        }
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.at += bytes.len() as u64;
        if let Some(extent) = self.open.and_then(|open| self.sections.get_mut(open as usize)) {
            extent.checksum = crc32c::crc32c_append(extent.checksum, bytes);
            extent.length += bytes.len() as u64;
        }
        Ok(())
    }

    fn section(&mut self, section: Section, bytes: &[u8]) -> io::Result<()> {
        self.begin(section);
        self.add(bytes)
    }

    fn copy(&mut self, section: Section, from: Growing) -> io::Result<()> {
        self.begin(section);
        let mut file = from.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        let mut piece = vec![0; 64 << 10];
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                return Ok(());
            }
            self.add(piece.get(..read).unwrap_or_default())?;
        }
    }
}
