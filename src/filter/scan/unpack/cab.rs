//! Windows cabinets (MS-CAB): stored, MSZIP and LZX folders; Quantum can't be unpacked here.
//!
//! A folder is one stream in blocks of 32 KiB at most. An MSZIP block is deflate that refers back into
//! the block before, so the decoder is handed a buffer that still holds it. LZX has a window of its own, of
//! 2 MiB at most, and blocks that are made of many trees: the clock is looked at before each.

use std::io::{self, Read};

use lzxd::{Lzxd, WindowSize};

use super::kind::Kind;
use super::{Drawn, Item, Limit, Limits, Listed, Sheet, Step, Stop, Unpacker, Workshop, u16_at, u32_at};
use crate::filter::scan::Stretch;

/// Most bytes of a block unpacked.
const BLOCK_MAX: usize = 32 * 1024;

/// Longest name with its zero.
const NAME_MAX: usize = 256;

/// Most files, and most folders, that are looked at.
const FILES_MAX: u16 = 5000;

/// What is known of a file: where its entry is, and its folder.
type Entry = (u64, u16);

impl Unpacker<'_> {
    pub(super) fn cab(&mut self, item: Item<'_>) -> Step {
        let head = item.bytes(0, 40)?;
        let fields = || Some((u32_at(&head, 16)?, u16_at(&head, 26)?, u16_at(&head, 28)?, u16_at(&head, 30)?));
        let Some((files_at, folders, files, flags)) = fields() else { return Ok(()) };
        let (mut at, mut folder_extra, mut block_extra) = (36, 0, 0);
        if flags & 4 != 0 {
            let lengths = (u16_at(&head, 36).unwrap_or(0), head.get(38).copied(), head.get(39).copied());
            (folder_extra, block_extra) = (u64::from(lengths.1.unwrap_or(0)), u64::from(lengths.2.unwrap_or(0)));
            at += 4 + u64::from(lengths.0);
        }
        // Names of the cabinets before and behind this one.
        for _ in 0..2 * (u32::from(flags & 1 != 0) + u32::from(flags & 2 != 0)) {
            let text = item.bytes(at, 256)?;
            let Some(end) = text.iter().position(|&byte| byte == 0) else { return Ok(()) };
            at += end as u64 + 1;
        }
        if folders.max(files) > FILES_MAX {
            self.limit(Limit::Files);
        }
        let entries = self.cab_entries(item, files_at.into(), files.min(FILES_MAX))?;
        for number in 0..folders.min(FILES_MAX) {
            self.time()?;
            let folder = item.bytes(at, 8)?;
            at += 8 + folder_extra;
            let fields = || Some((u32_at(&folder, 0)?, u16_at(&folder, 4)?, u16_at(&folder, 6)?));
            let Some((blocks_at, blocks, method)) = fields() else { return Ok(()) };
            let sheet = self.draw_cab(item, method, (blocks_at.into(), blocks, block_extra))?;
            self.cab_files(item, &entries, number, sheet.as_deref())?;
        }
        Ok(())
    }

    /// What comes out of a folder's blocks: where they are, how many, and what each has before it.
    #[inline(never)]
    fn draw_cab(&mut self, item: Item<'_>, method: u16, (at, left, extra): (u64, u16, u64)) -> Drawn {
        match Packer::of(method, &self.limits) {
            Ok(packer) => {
                let workshop = self.workshop;
                let mut reader = Blocks { item, at, left, extra, packer, workshop, buffer: Vec::new(), start: 0 };
                self.unpack(&mut reader, item.object.size()).map(Some)
            }
            Err(limit) => {
                if let Some(limit) = limit {
                    self.limit(limit);
                }
                Ok(None)
            }
        }
    }

    /// Where each file is described; the descriptions are as long as the names in them.
    fn cab_entries(&mut self, item: Item<'_>, mut at: u64, files: u16) -> Result<Vec<Entry>, Stop> {
        let mut entries = Vec::new();
        for _ in 0..files {
            let head = item.bytes(at, 16 + NAME_MAX)?;
            let Some(folder) = u16_at(&head, 8) else { break };
            let Some(end) = head.get(16..).unwrap_or_default().iter().position(|&byte| byte == 0) else { break };
            entries.push((at, folder));
            at += 16 + end as u64 + 1;
            self.time()?;
        }
        Ok(entries)
    }

    /// The files of one folder, which follow one another on its sheet.
    fn cab_files(&mut self, item: Item<'_>, entries: &[Entry], folder: u16, sheet: Option<&dyn Sheet>) -> Step {
        for (position, &(at, of)) in entries.iter().enumerate() {
            if of != folder {
                continue;
            }
            let head = item.bytes(at, 16 + NAME_MAX)?;
            let fields = || Some((u32_at(&head, 0)?, u32_at(&head, 4)?));
            let Some((size, offset)) = fields() else { return Ok(()) };
            let name = head.get(16..).unwrap_or_default();
            let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
            let name = String::from_utf8_lossy(name.get(..end).unwrap_or_default()).into_owned();
            self.listed(&Listed {
                container: Kind::Cab.clamav(),
                container_size: item.object.size(),
                name: &name,
                packed: 0,
                size: size.into(),
                encrypted: false,
                position: position as u64 + 1,
            })?;
            match sheet {
                Some(sheet) => {
                    let stretch = Stretch::new(sheet, offset.into(), size.into());
                    self.object(Item { object: &stretch, name: &name, depth: item.depth + 1 }, Kind::Cab.clamav())?;
                }
                None => self.opaque(&name),
            }
        }
        Ok(())
    }
}

/// What a folder is packed with.
enum Packer {
    Stored,
    Zip,
    Lzx(Box<Lzxd>),
}

impl Packer {
    /// The packer of a folder; otherwise the limit that forbids it, or none where it is not known here.
    fn of(method: u16, limits: &Limits) -> Result<Self, Option<Limit>> {
        match method & 15 {
            0 => Ok(Self::Stored),
            1 => Ok(Self::Zip),
            3 => {
                // The logarithm of the window's bytes.
                let window = match method >> 8 & 31 {
                    15 => WindowSize::KB32,
                    16 => WindowSize::KB64,
                    17 => WindowSize::KB128,
                    18 => WindowSize::KB256,
                    19 => WindowSize::KB512,
                    20 => WindowSize::MB1,
                    21 => WindowSize::MB2,
                    _ => return Err(None),
                };
                let fits = window as u32 <= limits.dictionary;
                fits.then(|| Self::Lzx(Box::new(Lzxd::new(window)))).ok_or(Some(Limit::Memory))
            }
            _ => Err(None),
        }
    }
}

/// A folder's stream.
struct Blocks<'i> {
    item: Item<'i>,
    at: u64,
    left: u16,
    extra: u64,
    packer: Packer,
    workshop: &'i dyn Workshop,
    /// This block, and before it what MSZIP refers back to.
    buffer: Vec<u8>,
    /// Where in the buffer the next byte is.
    start: usize,
}

impl Blocks<'_> {
    fn block(&mut self) -> io::Result<bool> {
        if self.left == 0 {
            return Ok(false);
        }
        self.left -= 1;
        let head = self.item.bytes(self.at, 8)?;
        let (Some(packed), Some(size)) = (u16_at(&head, 4), u16_at(&head, 6)) else { return Ok(false) };
        let bytes = self.item.bytes(self.at + 8 + self.extra, packed.into())?;
        self.at += 8 + self.extra + u64::from(packed);
        let size = usize::from(size).min(BLOCK_MAX);
        match &mut self.packer {
            Packer::Stored => {
                self.buffer.clear();
                self.buffer.extend_from_slice(bytes.get(..size.min(bytes.len())).unwrap_or_default());
                self.start = 0;
                Ok(true)
            }
            Packer::Zip => {
                let Some(deflated) = bytes.strip_prefix(b"CK") else { return Ok(false) };
                let before = self.buffer.len().saturating_sub(BLOCK_MAX);
                self.buffer.drain(..before);
                self.start = self.buffer.len();
                self.buffer.resize(self.start + size, 0);
                let mut decoder = miniz_oxide::inflate::core::DecompressorOxide::new();
                let flags = miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
                let (_, _, written) =
                    miniz_oxide::inflate::core::decompress(&mut decoder, deflated, &mut self.buffer, self.start, flags);
                self.buffer.truncate(self.start + written);
                Ok(written > 0)
            }
            Packer::Lzx(decoder) => {
                if !self.workshop.goes_on() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                let Ok(unpacked) = decoder.decompress_next(&bytes, size) else { return Ok(false) };
                self.buffer.clear();
                self.buffer.extend_from_slice(unpacked);
                self.start = 0;
                Ok(!unpacked.is_empty())
            }
        }
    }
}

impl Read for Blocks<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.start >= self.buffer.len() && !self.block()? {
            return Ok(0);
        }
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let count = rest.len().min(into.len());
        if let (Some(into), Some(from)) = (into.get_mut(..count), rest.get(..count)) {
            into.copy_from_slice(from);
        }
        self.start += count;
        Ok(count)
    }
}
