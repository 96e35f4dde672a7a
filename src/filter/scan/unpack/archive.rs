//! What holds one thing packed (gzip, bzip2, xz, LZMA, Zstandard), and archives that hold files as they
//! are (tar, ISO 9660).

use std::io::Read;

use flate2::bufread::MultiGzDecoder;

use super::kind::Kind;
use super::tar::{BLOCK, TarEntry};
use super::watch::limit_of;
use super::{Drawn, Inner, Item, Limit, Limits, Listed, Step, Unpacker, u32_at, u64_at};
use crate::filter::scan::Stretch;

/// Most memory of a decoder of LZMA beside its dictionary, in KiB: its tables.
const LZMA_TABLES_KIB: u32 = 2048;

/// The largest size that a file of LZMA may say, as xz takes it for one: 256 GiB.
const LZMA_SIZE_MAX: u64 = 1 << 38;

/// Memory of a decoder of bzip2, in bytes: four times its largest block.
pub(super) const BZIP2_MEMORY: u32 = 3_600_000;

/// Bytes of a block of a CD.
const CD_BLOCK: u64 = 2048;

/// Most folders of a CD that are looked at.
const FOLDERS_MAX: usize = 1000;

/// Most blocks of a folder of a CD.
const FOLDER_BLOCKS_MAX: u64 = 512;

impl Unpacker<'_> {
    pub(super) fn packed(&mut self, item: Item<'_>, kind: Kind) -> Step {
        let name = inner_name(item.name);
        let inner = item.inner(name, kind);
        let before = self.files;
        let Some(sheet) = self.draw_packed(item, kind, inner)? else { return Ok(()) };
        if name != item.name {
            self.name(name);
        }
        self.drawn(Some(sheet), inner)?;
        if self.files == before && kind != Kind::Lzma && item.depth < self.limits.depth {
            self.opaque(item.name);
        }
        Ok(())
    }

    #[inline(never)]
    fn draw_packed(&mut self, item: Item<'_>, kind: Kind, inner: Inner<'_>) -> Drawn {
        let from = self.source(&item, 0);
        let reader: Box<dyn Read + '_> = match kind {
            Kind::Gzip => Box::new(MultiGzDecoder::new(from)),
            Kind::Bzip2 if self.limits.dictionary < BZIP2_MEMORY => {
                self.limit(Limit::Memory);
                return Ok(None);
            }
            Kind::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(from)),
            Kind::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(from, true, lzma_memory_kib(&self.limits))),
            Kind::Zstd => match zstd_reader(from, &self.limits) {
                Some(reader) => reader,
                None => return Ok(None),
            },
            _ => match lzma_rust2::LzmaReader::new_mem_limit(from, lzma_memory_kib(&self.limits), None) {
                Ok(reader) => Box::new(reader),
                Err(error) => {
                    // Few files that begin like LZMA are LZMA; those say a size that can be, or none.
                    let size = u64_at(&item.bytes(0, 13)?, 5).unwrap_or(1 << 63);
                    if limit_of(&error) == Some(Limit::Memory) && (size == u64::MAX || size < LZMA_SIZE_MAX) {
                        self.limit(Limit::Memory);
                    }
                    return Ok(None);
                }
            },
        };
        self.draw(reader, item.object.size(), inner)
    }

    pub(super) fn tar(&mut self, item: Item<'_>) -> Step {
        let (mut at, mut long_name) = (0, None);
        let mut position = 0;
        while let Some(entry) = TarEntry::parse(&item.bytes(at, 512)?) {
            at += BLOCK;
            let kind = item.bytes(at - BLOCK + 156, 1)?.first().copied().unwrap_or(0);
            if entry.is_file {
                let name = long_name.take().unwrap_or(entry.name.clone());
                position += 1;
                self.listed(&Listed {
                    container: Kind::Tar.clamav(),
                    container_size: item.object.size(),
                    name: &name,
                    packed: entry.size,
                    size: entry.size,
                    encrypted: false,
                    position,
                })?;
                let stretch = Stretch::new(item.object, at, entry.size);
                self.object(Item { object: &stretch, name: &name, depth: item.depth + 1 }, Kind::Tar.clamav())?;
            } else if kind == b'L' {
                // GNU tar's way to write a long name.
                let bytes = item.bytes(at, usize::try_from(entry.size.min(4096)).unwrap_or(0))?;
                let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
                long_name = Some(String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned());
            }
            let next = at.saturating_add(entry.padded());
            if next >= item.object.size() {
                break;
            }
            at = next;
            self.time()?;
        }
        Ok(())
    }

    pub(super) fn iso(&mut self, item: Item<'_>) -> Step {
        let descriptor = item.bytes(16 * CD_BLOCK, 2048)?;
        let Some(root) = descriptor.get(156..190) else { return Ok(()) };
        let mut folders = vec![(u32_at(root, 2).unwrap_or(0), u32_at(root, 10).unwrap_or(0))];
        let mut done = 0;
        while let Some(&(block, length)) = folders.get(done) {
            done += 1;
            self.time()?;
            let blocks = u64::from(length).div_ceil(CD_BLOCK);
            if blocks > FOLDER_BLOCKS_MAX {
                self.limit(Limit::Files);
            }
            for number in 0..blocks.min(FOLDER_BLOCKS_MAX) {
                let block = item.bytes((u64::from(block) + number) * CD_BLOCK, 2048)?;
                if block.is_empty() {
                    break;
                }
                self.time()?;
                self.iso_block(item, &block, &mut folders)?;
            }
        }
        if folders.len() >= FOLDERS_MAX {
            self.limit(Limit::Files);
        }
        Ok(())
    }

    /// The records of a block of a folder; they do not cross blocks.
    fn iso_block(&mut self, item: Item<'_>, records: &[u8], folders: &mut Vec<(u32, u32)>) -> Step {
        let mut at = 0;
        while let Some(length) = records.get(at).copied().map(usize::from).filter(|length| *length > 0) {
            let record = records.get(at..at + length).unwrap_or_default();
            at += length;
            let (Some(block), Some(size)) = (u32_at(record, 2), u32_at(record, 10)) else { continue };
            let flags = record.get(25).copied().unwrap_or(0);
            let name = record.get(33..33 + usize::from(record.get(32).copied().unwrap_or(0))).unwrap_or_default();
            if matches!(name, b"\0" | b"\x01") {
                continue;
            }
            let name = String::from_utf8_lossy(name);
            let name = name.split(';').next().unwrap_or_default();
            if flags & 2 != 0 {
                if folders.len() < FOLDERS_MAX && !folders.iter().any(|(one, _)| *one == block) {
                    folders.push((block, size));
                }
                continue;
            }
            self.name(name);
            let stretch = Stretch::new(item.object, u64::from(block) * CD_BLOCK, size.into());
            self.object(Item { object: &stretch, name, depth: item.depth + 1 }, Kind::Iso.clamav())?;
        }
        Ok(())
    }
}

/// A decoder of Zstandard with a bounded window.
pub(super) fn zstd_reader<'r>(from: impl std::io::BufRead + 'r, limits: &Limits) -> Option<Box<dyn Read + 'r>> {
    let mut reader = zstd::stream::read::Decoder::with_buffer(from).ok()?;
    reader.window_log_max(limits.dictionary.max(1024).ilog2()).ok()?;
    Some(Box::new(reader))
}

/// Memory that a decoder of LZMA may take, in KiB: its dictionary and its tables.
pub(super) fn lzma_memory_kib(limits: &Limits) -> u32 {
    limits.dictionary / 1024 + LZMA_TABLES_KIB
}

/// The name without what the packer added.
fn inner_name(name: &str) -> &str {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let known = ["gz", "bz2", "xz", "zst", "lzma", "tgz"].iter().any(|known| extension.eq_ignore_ascii_case(known));
    if known { stem } else { name }
}
