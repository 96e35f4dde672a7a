//! What holds one thing packed (gzip, bzip2, xz, LZMA, Zstandard), and archives that hold files as they
//! are (tar, ISO 9660).

use std::io::Read;

use flate2::bufread::MultiGzDecoder;

use super::kind::Kind;
use super::tar::{BLOCK, TarEntry};
use super::{DICTIONARY_MAX, Inner, Item, Limit, Listed, Step, Unpacker, u32_at};
use crate::filter::scan::Stretch;

/// Memory that a decoder of LZMA may take, in KiB: its dictionary and its tables.
pub(super) const LZMA_MEMORY_KIB: u32 = DICTIONARY_MAX / 1024 + 2048;

/// The largest window of Zstandard as a power of two: [`DICTIONARY_MAX`].
const ZSTD_WINDOW: u32 = 23;

/// Bytes of a block of a CD.
const CD_BLOCK: u64 = 2048;

/// Most folders of a CD that are looked at.
const FOLDERS_MAX: usize = 1000;

/// Most bytes of a folder of a CD.
const FOLDER_BYTES_MAX: usize = 1 << 20;

impl Unpacker<'_> {
    pub(super) fn packed(&mut self, item: Item<'_>, kind: Kind) -> Step {
        let from = item.reader(0);
        let reader: Box<dyn Read + '_> = match kind {
            Kind::Gzip => Box::new(MultiGzDecoder::new(from)),
            Kind::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(from)),
            Kind::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(from, true, LZMA_MEMORY_KIB)),
            Kind::Zstd => match zstd_reader(from) {
                Some(reader) => reader,
                None => return Ok(()),
            },
            _ => match lzma_rust2::LzmaReader::new_mem_limit(from, LZMA_MEMORY_KIB, None) {
                Ok(reader) => Box::new(reader),
                // Few files that begin like LZMA are LZMA.
                Err(_) => return Ok(()),
            },
        };
        let name = inner_name(item.name);
        if name != item.name {
            self.name(name);
        }
        let before = self.files;
        self.unpacked(reader, item.object.size(), item.inner(name, kind))?;
        if self.files == before && kind != Kind::Lzma && item.depth < self.limits.depth {
            self.opaque(item.name);
        }
        Ok(())
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
            let bytes = usize::try_from(length).unwrap_or(0).min(FOLDER_BYTES_MAX);
            let folder = item.bytes(u64::from(block) * CD_BLOCK, bytes)?;
            let mut at = 0;
            while at < folder.len() {
                let length = usize::from(folder.get(at).copied().unwrap_or(0));
                if length == 0 {
                    // Records do not cross blocks.
                    at = (at / 2048 + 1) * 2048;
                    continue;
                }
                let record = folder.get(at..at + length).unwrap_or_default();
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
        }
        if folders.len() >= FOLDERS_MAX {
            self.limit(Limit::Files);
        }
        Ok(())
    }

    /// A stored or packed member whose decoder the container names.
    pub(super) fn member(&mut self, from: impl Read, packed: u64, inner: Inner<'_>) -> Step {
        self.time()?;
        self.unpacked(from, packed, inner)
    }
}

/// A decoder of Zstandard with a bounded window.
pub(super) fn zstd_reader<'r>(from: impl std::io::BufRead + 'r) -> Option<Box<dyn Read + 'r>> {
    let mut reader = zstd::stream::read::Decoder::with_buffer(from).ok()?;
    reader.window_log_max(ZSTD_WINDOW).ok()?;
    Some(Box::new(reader))
}

/// The name without what the packer added.
fn inner_name(name: &str) -> &str {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let known = ["gz", "bz2", "xz", "zst", "lzma", "tgz"].iter().any(|known| extension.eq_ignore_ascii_case(known));
    if known { stem } else { name }
}
