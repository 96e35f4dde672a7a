//! 7z: the header, packed or not, and its folders with Copy, LZMA, LZMA2, Deflate, BZip2 and Zstandard, and
//! the filters for programs and for tables. A folder is unpacked once and its files are stretches of what comes out.
//!
//! Our own reader of the header: what it says of numbers and lengths is the attacker's, and each list
//! here has a bound.

use std::io::{BufRead, Read};

use flate2::bufread::DeflateDecoder;
use lzma_rust2::filter::bcj::BcjReader;
use lzma_rust2::filter::delta::DeltaReader;

use super::archive::{BZIP2_MEMORY, lzma_memory_kib, zstd_reader};
use super::kind::Kind;
use super::{Item, Limit, Limits, Listed, Sheet, Step, Unpacker, u32_at, u64_at};
use crate::filter::scan::{ReadAt, Stretch, read_vec};

/// Most bytes of a header.
const HEADER_MAX: u64 = 1 << 20;

/// Most folders, and most files; of each some bytes are kept.
const FOLDERS_MAX: u64 = 4096;
const FILES_MAX: u64 = 16_384;

/// Bytes of a list that are held for each folder and for each file, its name not counted.
const FOLDER_HELD: usize = 260;
const FILE_HELD: usize = 40;

/// Most coders of a folder.
const CODERS_MAX: u64 = 4;

/// What the header says.
#[derive(Default)]
struct Archive {
    /// Where the packed streams begin, in the file.
    packed_at: u64,
    packed: Vec<u64>,
    folders: Vec<Folder>,
    names: Vec<String>,
    /// Files that have a stream.
    full: Vec<bool>,
}

/// Streams that are packed together.
#[derive(Clone, Default)]
struct Folder {
    coders: Vec<Coder>,
    /// The coders in a row, by number: the first is the one out of which the files come, and what comes out of each
    /// goes into the one before. Archives list them in either order.
    row: Vec<usize>,
    /// More than one stream goes into a coder, or out of one.
    tangled: bool,
    sizes: Vec<u64>,
    /// Sizes of the files in it.
    files: Vec<u64>,
}

impl Folder {
    /// The bytes of its files together.
    fn whole(&self) -> u64 {
        let last = self.row.first().copied().unwrap_or(0);
        self.sizes.get(last).copied().unwrap_or(0)
    }

    /// The coders in the order in which they are undone, each with how much comes out of it.
    fn undone(&self) -> impl Iterator<Item = (&Coder, u64)> {
        let each = |&number: &usize| Some((self.coders.get(number)?, *self.sizes.get(number)?));
        self.row.iter().rev().filter_map(each)
    }
}

#[derive(Clone, Default)]
struct Coder {
    id: Vec<u8>,
    properties: Vec<u8>,
}

/// Reads a header.
struct Fields<'b>(&'b [u8]);

impl Fields<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn take(&mut self, count: u64) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number: the first byte's high bits say how many follow.
    fn number(&mut self) -> Option<u64> {
        let first = self.byte()?;
        let more = first.leading_ones();
        let mut number = 0;
        for place in 0..more.min(8) {
            number |= u64::from(self.byte()?) << (8 * place);
        }
        if more < 7 {
            number |= (u64::from(first) & (0x7F >> more)) << (8 * more);
        }
        Some(number)
    }

    fn count(&mut self, most: u64) -> Option<u64> {
        self.number().filter(|&number| number <= most)
    }

    fn bits(&mut self, count: u64) -> Option<Vec<bool>> {
        let bytes = self.take(count.div_ceil(8))?;
        Some(
            (0..count)
                .map(|bit| bytes.get((bit / 8) as usize).is_some_and(|byte| byte >> (7 - bit % 8) & 1 == 1))
                .collect(),
        )
    }

    /// Skips sums, of which not all need be there.
    fn sums(&mut self, count: u64) -> Option<Vec<bool>> {
        let there = if self.byte()? == 0 { self.bits(count)? } else { vec![true; usize::try_from(count).ok()?] };
        let sums = there.iter().filter(|there| **there).count();
        self.take(sums as u64 * 4)?;
        Some(there)
    }

    fn streams(&mut self, archive: &mut Archive) -> Option<()> {
        let mut sums = Vec::new();
        loop {
            match self.number()? {
                0 => return Some(()),
                6 => {
                    archive.packed_at = self.number()?.checked_add(32)?;
                    let count = self.count(FOLDERS_MAX * CODERS_MAX)?;
                    loop {
                        match self.number()? {
                            0 => break,
                            9 => archive.packed = (0..count).map(|_| self.number()).collect::<Option<_>>()?,
                            10 => drop(self.sums(count)?),
                            _ => return None,
                        }
                    }
                }
                7 => sums = self.folders(archive)?,
                8 => self.substreams(archive, &sums)?,
                _ => return None,
            }
        }
    }

    fn folders(&mut self, archive: &mut Archive) -> Option<Vec<bool>> {
        if self.number()? != 11 {
            return None;
        }
        let count = self.count(FOLDERS_MAX)?;
        if self.byte()? != 0 {
            return None;
        }
        archive.folders = (0..count).map(|_| self.folder()).collect::<Option<_>>()?;
        let mut there = vec![false; archive.folders.len()];
        loop {
            match self.number()? {
                0 => return Some(there),
                12 => {
                    for folder in &mut archive.folders {
                        folder.sizes = folder.coders.iter().map(|_| self.number()).collect::<Option<_>>()?;
                    }
                }
                10 => there = self.sums(count)?,
                _ => return None,
            }
        }
    }

    fn folder(&mut self) -> Option<Folder> {
        let mut folder = Folder::default();
        let (mut inputs, mut outputs) = (0, 0);
        for _ in 0..self.count(CODERS_MAX)? {
            let flags = self.byte()?;
            let id = self.take(u64::from(flags & 15))?.to_vec();
            let (streams_in, streams_out) =
                if flags & 16 != 0 { (self.count(CODERS_MAX)?, self.count(CODERS_MAX)?) } else { (1, 1) };
            folder.tangled |= (streams_in, streams_out) != (1, 1);
            (inputs, outputs) = (inputs + streams_in, outputs + streams_out);
            let properties = if flags & 32 != 0 {
                let length = self.count(1024)?;
                self.take(length)?.to_vec()
            } else {
                Vec::new()
            };
            folder.coders.push(Coder { id, properties });
        }
        let pairs = outputs.checked_sub(1)?;
        let mut bound = Vec::new();
        for _ in 0..pairs {
            let (input, output) = (self.number()?, self.number()?);
            bound.push((usize::try_from(input).ok()?, usize::try_from(output).ok()?));
        }
        let last = (0..folder.coders.len()).find(|number| bound.iter().all(|(_, output)| output != number));
        let mut next = last;
        while let Some(number) = next.filter(|_| folder.row.len() < folder.coders.len()) {
            folder.row.push(number);
            next = bound.iter().find(|(input, _)| *input == number).map(|(_, output)| *output);
        }
        folder.tangled |= next.is_some() || folder.row.len() != folder.coders.len();
        let packed = inputs.checked_sub(pairs)?;
        folder.tangled |= packed != 1;
        for _ in 0..if packed > 1 { packed } else { 0 } {
            self.number()?;
        }
        Some(folder)
    }

    fn substreams(&mut self, archive: &mut Archive, sums: &[bool]) -> Option<()> {
        let mut counts = vec![1; archive.folders.len()];
        let mut kind = self.number()?;
        if kind == 13 {
            for count in &mut counts {
                *count = self.count(FILES_MAX)?;
            }
            kind = self.number()?;
        }
        if counts.iter().sum::<u64>() > FILES_MAX {
            return None;
        }
        for (folder, &count) in archive.folders.iter_mut().zip(&counts) {
            let whole = folder.whole();
            folder.files.clear();
            let mut left = whole;
            for number in 0..count {
                let size = if number + 1 == count {
                    left
                } else if kind == 9 {
                    self.number()?
                } else {
                    return None;
                };
                left = left.checked_sub(size)?;
                folder.files.push(size);
            }
        }
        if kind == 9 {
            kind = self.number()?;
        }
        while kind != 0 {
            if kind != 10 {
                return None;
            }
            let known = counts.iter().zip(sums).filter(|(count, there)| **count == 1 && **there).count() as u64;
            self.sums(counts.iter().sum::<u64>().checked_sub(known)?)?;
            kind = self.number()?;
        }
        Some(())
    }

    fn files(&mut self, archive: &mut Archive) -> Option<()> {
        let count = self.count(FILES_MAX)?;
        archive.full = vec![true; usize::try_from(count).ok()?];
        loop {
            let kind = self.number()?;
            if kind == 0 {
                return Some(());
            }
            let length = self.number()?;
            let mut field = Fields(self.take(length)?);
            match kind {
                14 => archive.full = field.bits(count)?.into_iter().map(|empty| !empty).collect(),
                17 if field.byte()? == 0 => {
                    let letters = field.0.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair));
                    let letters = letters.collect::<Vec<u16>>();
                    let names = letters.split(|&letter| letter == 0).take(archive.full.len());
                    archive.names = names.map(String::from_utf16_lossy).collect();
                }
                _ => {}
            }
        }
    }
}

/// Reads a header that is not packed.
fn header(bytes: &[u8]) -> Option<Archive> {
    let mut archive = Archive::default();
    let mut fields = Fields(bytes);
    if fields.number()? != 1 {
        return None;
    }
    loop {
        match fields.number()? {
            0 => break,
            2 => loop {
                let kind = fields.number()?;
                if kind == 0 {
                    break;
                }
                let length = fields.number()?;
                fields.take(length)?;
            },
            4 => fields.streams(&mut archive)?,
            5 => fields.files(&mut archive)?,
            _ => return None,
        }
    }
    Some(archive)
}

impl Unpacker<'_> {
    pub(super) fn seven_zip(&mut self, item: Item<'_>) -> Step {
        let start = item.bytes(0, 32)?;
        let (Some(offset), Some(length)) = (u64_at(&start, 12), u64_at(&start, 20)) else { return Ok(()) };
        if length > HEADER_MAX {
            self.limit(Limit::Memory);
            return Ok(());
        }
        let mut bytes = item.bytes(offset.saturating_add(32), usize::try_from(length).unwrap_or(0))?;
        // A packed header holds the streams of another, mostly one.
        for _ in 0..4 {
            if bytes.first() != Some(&0x17) {
                break;
            }
            let mut archive = Archive::default();
            if Fields(bytes.get(1..).unwrap_or_default()).streams(&mut archive).is_none() {
                break;
            }
            let Some(folder) = archive.folders.first() else { break };
            if folder.coders.iter().any(is_cipher) {
                self.encrypted(item.name);
                return Ok(());
            }
            let before = self.bytes;
            let Some(sheet) = self.folder(item, folder, archive.packed_at, archive.packed.first().copied())? else {
                break;
            };
            self.bytes = before;
            bytes = read_vec(&*sheet, 0, usize::try_from(HEADER_MAX).unwrap_or(0))?;
        }
        let Some(archive) = header(&bytes) else {
            self.opaque(item.name);
            return Ok(());
        };
        drop(bytes);
        let names: usize = archive.names.iter().map(String::len).sum();
        let held = names + archive.folders.len() * FOLDER_HELD + archive.full.len() * FILE_HELD;
        self.holding(held, |unpacker| unpacker.members(item, &archive))
    }

    fn members(&mut self, item: Item<'_>, archive: &Archive) -> Step {
        let names = archive.names.iter().zip(&archive.full);
        let mut full = names.clone().filter(|(_, full)| **full).map(|(name, _)| name.as_str());
        for (name, _) in names.filter(|(_, full)| !**full) {
            self.name(name);
        }
        let (mut at, mut packed, mut position) = (archive.packed_at, archive.packed.iter().copied(), 0);
        for folder in &archive.folders {
            let size = packed.next();
            let encrypted = folder.coders.iter().any(is_cipher);
            let sheet = if encrypted { None } else { self.folder(item, folder, at, size)? };
            at = at.saturating_add(size.unwrap_or(0));
            let whole = [folder.whole()];
            let files = if folder.files.is_empty() { whole.as_slice() } else { &folder.files };
            let mut from = 0;
            for &size in files {
                let name = full.next().unwrap_or_default();
                position += 1;
                self.listed(&Listed {
                    container: Kind::SevenZip.clamav(),
                    container_size: item.object.size(),
                    name,
                    packed: 0,
                    size,
                    encrypted,
                    position,
                })?;
                match &sheet {
                    Some(sheet) => {
                        let stretch = Stretch::new(&**sheet, from, size);
                        if stretch.size() > 0 {
                            let inner = Item { object: &stretch, name, depth: item.depth + 1 };
                            self.object(inner, Kind::SevenZip.clamav())?;
                        }
                    }
                    None if !encrypted => self.opaque(name),
                    None => {}
                }
                from = from.saturating_add(size);
            }
        }
        Ok(())
    }

    /// Unpacks a folder; `None` when that can't be done here.
    fn folder(
        &mut self,
        item: Item<'_>,
        folder: &Folder,
        at: u64,
        packed: Option<u64>,
    ) -> Result<Option<Box<dyn Sheet>>, super::Stop> {
        let Some(packed) = packed.filter(|_| !folder.tangled) else { return Ok(None) };
        // Each packer has a dictionary, and all of a row are at work at one time.
        if folder.coders.iter().filter(|coder| !is_light(coder)).count() > 1 {
            self.limit(Limit::Memory);
            return Ok(None);
        }
        let stretch = Stretch::new(item.object, at, packed);
        let whole = Item { object: &stretch, ..item };
        let mut reader: Box<dyn Read + '_> = Box::new(self.source(&whole, 0));
        for (coder, size) in folder.undone() {
            match decoder(coder, size, self.between(reader), &self.limits) {
                Ok(next) => reader = next,
                Err(limit) => {
                    if let Some(limit) = limit {
                        self.limit(limit);
                    }
                    return Ok(None);
                }
            }
        }
        self.unpack(&mut reader.take(folder.whole()), packed).map(Some)
    }
}

fn is_cipher(coder: &Coder) -> bool {
    coder.id.starts_with(&[6, 0xF1])
}

/// Tells whether a coder needs no memory to speak of: what is stored, and the filters.
fn is_light(coder: &Coder) -> bool {
    matches!(coder.id.as_slice(), [0 | 3 | 4 | 7 | 10] | [3, 3, ..])
}

/// Undoes a coder; otherwise the limit that forbids it, or none where it can't be undone here at all.
fn decoder<'r>(
    coder: &Coder,
    size: u64,
    from: impl BufRead + 'r,
    limits: &Limits,
) -> Result<Box<dyn Read + 'r>, Option<Limit>> {
    let properties = &coder.properties;
    // A dictionary need not be larger than what comes out.
    let bounded = |dictionary: u64| {
        let dictionary = u32::try_from(dictionary.min(size.max(4096))).ok();
        dictionary.filter(|&size| size <= limits.dictionary).ok_or(Some(Limit::Memory))
    };
    let damaged = |_| None;
    Ok(match coder.id.as_slice() {
        [0] => Box::new(from),
        [3, 1, 1] => {
            let (Some(&props), Some(dictionary)) = (properties.first(), u32_at(properties, 1)) else {
                return Err(None);
            };
            let dictionary = bounded(dictionary.into())?;
            Box::new(lzma_rust2::LzmaReader::new_with_props(from, size, props, dictionary, None).map_err(damaged)?)
        }
        [0x21] => {
            let code = u32::from(*properties.first().ok_or(None)?).min(40);
            let dictionary = if code == 40 { u64::from(u32::MAX) } else { u64::from(2 | code & 1) << (code / 2 + 11) };
            let (dictionary, memory) = (bounded(dictionary)?, lzma_memory_kib(limits));
            Box::new(lzma_rust2::Lzma2Reader::new_mem_limit(from, dictionary, memory, None).map_err(damaged)?)
        }
        [4, 1, 8] => Box::new(DeflateDecoder::new(from)),
        [4, 1, 9] => Box::new(deflate64::Deflate64Decoder::with_buffer(from)),
        [4, 2, 2] if limits.dictionary < BZIP2_MEMORY => return Err(Some(Limit::Memory)),
        [4, 2, 2] => Box::new(bzip2::bufread::BzDecoder::new(from)),
        [4, 0xF7, 0x11, 1] => zstd_reader(from, limits).ok_or(None)?,
        // Each byte is the difference to the one so many before.
        [3] => Box::new(DeltaReader::new(from, usize::from(properties.first().copied().unwrap_or(0)) + 1)),
        [3, 3, 1, 3] | [4] => Box::new(BcjReader::new_x86(from, 0)),
        [3, 3, 5, 1] | [7] => Box::new(BcjReader::new_arm(from, 0)),
        [10] => Box::new(BcjReader::new_arm64(from, 0)),
        _ => return Err(None),
    })
}
