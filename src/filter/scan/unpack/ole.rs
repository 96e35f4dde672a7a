//! Compound files (MS-CFB): their streams, and the source of macros (MS-OVBA) that some of them hold.
//!
//! Our own reader, because malware comes in files that are slightly broken and strict readers refuse
//! them. Chains of sectors are followed on the disk, a sector at a time, so a file of any size takes the
//! same memory.

use std::io::{self, Read};

use super::kind::Kind;
use super::ovba::Source;
use super::{Item, Sheet, Step, Unpacker, find, u16_at, u32_at};
use crate::filter::scan::{ReadAt, Stretch, read_vec};

/// From here on sector numbers mean something else.
const SPECIAL: u32 = 0xFFFF_FFFA;

/// Most sectors of a chain: 2 GiB of the usual size.
const CHAIN_MAX: u32 = 1 << 22;

/// Most entries of the directory.
const ENTRIES_MAX: u64 = 4000;

/// Bytes of an entry of the directory.
const ENTRY: u64 = 128;

/// Bytes at the start of a stream in which the source of a macro is looked for.
const MACRO_MAX: u64 = 1 << 20;

/// A compound file.
struct Compound<'i> {
    item: Item<'i>,
    sector: u64,
    mini_sector: u64,
    /// Streams below this size are in mini sectors.
    cutoff: u64,
    /// The sectors of the table of sectors, as far as the header names them.
    table: Vec<u32>,
    mini_table: u32,
    directory: u32,
}

impl Compound<'_> {
    fn open(item: Item<'_>) -> io::Result<Option<Compound<'_>>> {
        let head = item.bytes(0, 512)?;
        let fields = || {
            let (shift, mini_shift) = (u16_at(&head, 30)?, u16_at(&head, 32)?);
            let fine = (9..=12).contains(&shift) && (4..=9).contains(&mini_shift);
            fine.then_some((shift, mini_shift, u32_at(&head, 48)?, u32_at(&head, 56)?, u32_at(&head, 60)?))
        };
        let Some((shift, mini_shift, directory, cutoff, mini_table)) = fields() else { return Ok(None) };
        let sector = 1 << shift;
        let mut table: Vec<u32> = (0..109).filter_map(|entry| u32_at(&head, 76 + entry * 4)).collect();
        // Large files name more sectors of the table in a chain of their own.
        let (mut next, mut left) = (u32_at(&head, 68).unwrap_or(SPECIAL), 256);
        while next < SPECIAL && left > 0 {
            let bytes = item.bytes((u64::from(next) + 1) * sector, usize::try_from(sector).unwrap_or(512))?;
            let (last, entries) = bytes
                .as_chunks::<4>()
                .0
                .split_last()
                .map_or((SPECIAL, [].as_slice()), |(last, rest)| (u32::from_le_bytes(*last), rest));
            table.extend(entries.iter().map(|entry| u32::from_le_bytes(*entry)));
            (next, left) = (last, left - 1);
        }
        Ok(Some(Compound {
            item,
            sector,
            mini_sector: 1 << mini_shift,
            cutoff: cutoff.into(),
            table,
            mini_table,
            directory,
        }))
    }

    /// The sector after one, by the table.
    fn after(&self, sector: u32) -> io::Result<u32> {
        let each = self.sector / 4;
        let index = usize::try_from(u64::from(sector) / each).unwrap_or(usize::MAX);
        let Some(&holder) = self.table.get(index).filter(|holder| **holder < SPECIAL) else { return Ok(SPECIAL) };
        let at = (u64::from(holder) + 1) * self.sector + u64::from(sector) % each * 4;
        Ok(u32_at(&self.item.bytes(at, 4)?, 0).unwrap_or(SPECIAL))
    }

    /// The chain that begins with a sector.
    fn chain(&self, first: u32, size: u64) -> Chain<'_> {
        Chain { file: self, mini: None, now: first, left: size, within: 0, steps: 0 }
    }
}

/// A stream, read along its chain.
struct Chain<'c> {
    file: &'c Compound<'c>,
    /// Of a small stream: the stream of mini sectors, and their table.
    mini: Option<(&'c dyn ReadAt, &'c dyn ReadAt)>,
    now: u32,
    left: u64,
    within: u64,
    steps: u32,
}

impl Read for Chain<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let size = if self.mini.is_some() { self.file.mini_sector } else { self.file.sector };
        if self.within == size {
            self.steps += 1;
            self.now = match self.mini {
                Some((_, table)) => u32_at(&read_vec(table, u64::from(self.now) * 4, 4)?, 0).unwrap_or(SPECIAL),
                None => self.file.after(self.now)?,
            };
            self.within = 0;
        }
        if self.now >= SPECIAL || self.steps > CHAIN_MAX || self.left == 0 {
            return Ok(0);
        }
        let most = usize::try_from((size - self.within).min(self.left)).unwrap_or(usize::MAX).min(into.len());
        let into = into.get_mut(..most).unwrap_or_default();
        let read = match self.mini {
            Some((stream, _)) => stream.read_at(u64::from(self.now) * size + self.within, into)?,
            None => self.file.item.object.read_at((u64::from(self.now) + 1) * size + self.within, into)?,
        };
        self.within += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

impl Unpacker<'_> {
    pub(super) fn ole(&mut self, item: Item<'_>) -> Step {
        let Some(file) = Compound::open(item)? else { return Ok(()) };
        self.holding(file.table.len() * 4, |unpacker| unpacker.streams(item, &file))
    }

    fn streams(&mut self, item: Item<'_>, file: &Compound<'_>) -> Step {
        let before = self.bytes;
        let directory = self.unpack(&mut file.chain(file.directory, ENTRIES_MAX * ENTRY), item.object.size())?;
        let root = read_vec(&*directory, 0, 128)?;
        let root_fields = || Some((u32_at(&root, 116)?, u32_at(&root, 120)?));
        let Some((mini_first, mini_size)) = root_fields() else { return Ok(()) };
        let size = item.object.size();
        let mini_stream = self.unpack(&mut file.chain(mini_first, u64::from(mini_size).min(size)), size)?;
        let mini_table = self.unpack(&mut file.chain(file.mini_table, size / 16), size)?;
        // What was copied is no growth: it stands in the file as it is.
        self.bytes = before;
        let mut at = ENTRY;
        while at < directory.size() {
            let entry = read_vec(&*directory, at, 128)?;
            at += ENTRY;
            let fields = || Some((u16_at(&entry, 64)?, *entry.get(66)?, u32_at(&entry, 116)?, u32_at(&entry, 120)?));
            let Some((length, kind, first, stream_size)) = fields() else { break };
            if kind != 2 || stream_size == 0 {
                continue;
            }
            let units = entry.get(..usize::from(length.saturating_sub(2)).min(64)).unwrap_or_default();
            let letters = units.chunks_exact(2).map(|pair| u16_at(pair, 0).unwrap_or(0));
            let name: String = char::decode_utf16(letters).map(|letter| letter.unwrap_or('?')).collect();
            let mut chain = file.chain(first, u64::from(stream_size).min(size));
            if u64::from(stream_size) < file.cutoff {
                chain.mini = Some((&*mini_stream, &*mini_table));
            }
            if matches!(name.as_str(), "EncryptedPackage" | "EncryptionInfo") {
                self.encrypted(item.name);
            }
            let stream = self.unpack(&mut chain, size)?;
            self.stream(item, &name, &*stream)?;
            self.time()?;
        }
        Ok(())
    }

    /// A stream of a compound file.
    fn stream(&mut self, item: Item<'_>, name: &str, stream: &dyn Sheet) -> Step {
        let inner = Item { object: stream, name, depth: item.depth + 1 };
        if name == "\u{1}Ole10Native" {
            return self.native(inner);
        }
        self.object(inner, Kind::Ole.clamav())?;
        // Word's and Excel's embedded files may follow a header of their own.
        let Some(start) = find(stream, b"\0Attribut", 0, MACRO_MAX)?.and_then(|place| place.checked_sub(3)) else {
            return Ok(());
        };
        self.macros(item.name);
        let from = self.source(&inner, start);
        let drawn = inner.inner(name, Kind::Ole);
        let sheet = self.draw(Source::new(from), stream.size(), drawn)?;
        self.drawn(sheet, drawn)
    }

    /// An embedded file: a length, a header with names, a length, the file.
    pub(super) fn native(&mut self, inner: Item<'_>) -> Step {
        let head = inner.bytes(0, 2048)?;
        let mut at = 6;
        let mut label = String::new();
        // Label and file name; then two numbers; then the name of a temporary file.
        for number in 0..2 {
            let rest = head.get(at..).unwrap_or_default();
            let Some(end) = rest.iter().position(|&byte| byte == 0) else { return Ok(()) };
            if number == 0 {
                label = String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned();
            }
            at += end + 1;
        }
        let Some(length) = u32_at(&head, at + 4) else { return Ok(()) };
        at += 8 + usize::try_from(length).unwrap_or(usize::MAX).min(4096);
        let Some(size) = u32_at(&inner.bytes(at as u64, 4)?, 0) else { return Ok(()) };
        self.name(&label);
        let stretch = Stretch::new(inner.object, at as u64 + 4, size.into());
        self.object(Item { object: &stretch, name: &label, depth: inner.depth + 1 }, Kind::Ole.clamav())
    }
}
