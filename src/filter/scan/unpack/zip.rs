//! Zip (APPNOTE 6.3): the directory at the end, and where it is missing or lies, the files in order.
//!
//! The directory is read entry by entry, so an archive of a million files takes no more memory than
//! one; that is why it is our own.

use flate2::bufread::DeflateDecoder;

use super::archive::{BZIP2_MEMORY, lzma_memory_kib, zstd_reader};
use super::kind::Kind;
use super::{Drawn, Inner, Item, Limit, Listed, Step, Unpacker, find, u16_at, u32_at, u64_at};
use crate::filter::scan::Stretch;

/// Bytes of the end record, and most of the comment behind it.
const END: u64 = 22;
const COMMENT_MAX: u64 = 65_535;

/// Bytes of an entry of the directory and of a file's header, without what varies.
const ENTRY: u64 = 46;
const LOCAL: u64 = 30;

/// Longest name that is looked at.
const NAME_MAX: usize = 1024;

/// What is known of a file in an archive.
#[derive(Clone, Debug, Default)]
struct Member {
    flags: u16,
    method: u16,
    packed: u64,
    size: u64,
    local: u64,
    name: String,
}

impl Unpacker<'_> {
    pub(super) fn zip(&mut self, item: Item<'_>) -> Step {
        let mut position = 0;
        if let Some((mut at, count, shift)) = directory(item)? {
            while position < count {
                let fixed = item.bytes(at, 46)?;
                if !fixed.starts_with(b"PK\x01\x02") {
                    break;
                }
                let Some((member, length)) = entry(item, at, &fixed, shift)? else { break };
                at += length;
                position += 1;
                self.time()?;
                self.zip_member(item, &member, position)?;
            }
        }
        if position == 0 {
            // No directory: the files themselves are there.
            let mut at = 0;
            while let Some(place) = find(item.object, b"PK\x03\x04", at, u64::MAX)? {
                at = place + 4;
                position += 1;
                if let Some(member) = local(item, place)? {
                    self.zip_member(item, &member, position)?;
                    // What is stored may hold archives, which are looked at where they belong.
                    if member.method == 0 {
                        at = at.saturating_add(member.packed);
                    }
                }
                self.time()?;
            }
        }
        Ok(())
    }

    fn zip_member(&mut self, item: Item<'_>, member: &Member, position: u64) -> Step {
        let encrypted = member.flags & 1 != 0;
        let name = member.name.as_str();
        self.listed(&Listed {
            container: Kind::Zip.clamav(),
            container_size: item.object.size(),
            name,
            packed: member.packed,
            size: member.size,
            encrypted,
            position,
        })?;
        if name.starts_with("Basic/") && !name.ends_with('/') && name.contains("Module") {
            self.macros(name);
        }
        if encrypted || name.ends_with('/') {
            return Ok(());
        }
        let header = item.bytes(member.local, 30)?;
        let (true, Some(name_length), Some(extra)) =
            (header.starts_with(b"PK\x03\x04"), u16_at(&header, 26), u16_at(&header, 28))
        else {
            return Ok(());
        };
        let start = member.local + LOCAL + u64::from(name_length) + u64::from(extra);
        // A file without a directory may say its size only behind its bytes.
        let packed = if member.packed == 0 { item.object.size().saturating_sub(start) } else { member.packed };
        let data = Stretch::new(item.object, start, packed);
        let whole = Item { object: &data, name, depth: item.depth };
        let inner = item.inner(name, Kind::Zip);
        self.time()?;
        if member.method == 0 {
            let stored = Stretch::new(item.object, start, member.packed.max(member.size.min(packed)));
            return self.object(Item { object: &stored, name, depth: item.depth + 1 }, Kind::Zip.clamav());
        }
        let sheet = self.draw_zip(&whole, member, packed, inner)?;
        self.drawn(sheet, inner)
    }

    /// What a member's decoder makes of its bytes.
    #[inline(never)]
    fn draw_zip(&mut self, whole: &Item<'_>, member: &Member, packed: u64, inner: Inner<'_>) -> Drawn {
        let from = self.source(whole, 0);
        match member.method {
            8 => self.draw(DeflateDecoder::new(from), packed, inner),
            9 => self.draw(deflate64::Deflate64Decoder::with_buffer(from), packed, inner),
            12 if self.limits.dictionary < BZIP2_MEMORY => {
                self.limit(Limit::Memory);
                Ok(None)
            }
            12 => self.draw(bzip2::bufread::BzDecoder::new(from), packed, inner),
            14 => {
                // Version (2), length of the properties (2), properties: a byte and the dictionary.
                let head = whole.bytes(0, 9)?;
                let (Some(&props), Some(dictionary)) = (head.get(4), u32_at(&head, 5)) else { return Ok(None) };
                // A dictionary need not be larger than what comes out.
                let dictionary = u64::from(dictionary).min(member.size.max(4096));
                let dictionary = u32::try_from(dictionary).ok().filter(|size| *size <= self.limits.dictionary);
                let Some(dictionary) = dictionary else {
                    self.limit(Limit::Memory);
                    return Ok(None);
                };
                let from = self.source(whole, 9);
                let size = if member.flags & 2 != 0 { u64::MAX } else { member.size };
                match lzma_rust2::LzmaReader::new_with_props(from, size, props, dictionary, None) {
                    Ok(reader) => self.draw(reader, packed, inner),
                    Err(_) => Ok(None),
                }
            }
            20 | 93 => match zstd_reader(from, &self.limits) {
                Some(reader) => self.draw(reader, packed, inner),
                None => Ok(None),
            },
            95 => {
                let reader = lzma_rust2::XzReader::new_mem_limit(from, false, lzma_memory_kib(&self.limits));
                self.draw(reader, packed, inner)
            }
            _ => {
                self.opaque(&member.name);
                Ok(None)
            }
        }
    }
}

/// Where the directory begins, how many entries it has, and by how much its places are off because
/// something stands before the archive.
fn directory(item: Item<'_>) -> std::io::Result<Option<(u64, u64, u64)>> {
    let size = item.object.size();
    let from = size.saturating_sub(END + COMMENT_MAX);
    let tail = item.bytes(from, usize::try_from(END + COMMENT_MAX).unwrap_or(0))?;
    let Some(place) = tail.windows(4).rposition(|window| window == b"PK\x05\x06") else { return Ok(None) };
    let end = tail.get(place..).unwrap_or_default();
    let fields = || Some((u16_at(end, 10)?, u32_at(end, 12)?, u32_at(end, 16)?));
    let Some((count, length, offset)) = fields() else { return Ok(None) };
    let at = from + place as u64;
    if count == u16::MAX || offset == u32::MAX {
        // Zip64: a locator before the end record says where the larger one is.
        let locator = item.bytes(at.saturating_sub(20), 20)?;
        let wide = u64_at(&locator, 8).filter(|_| locator.starts_with(b"PK\x06\x07"));
        if let Some(wide) = wide {
            let record = item.bytes(wide, 56)?;
            if let (true, Some(count), Some(offset)) =
                (record.starts_with(b"PK\x06\x06"), u64_at(&record, 32), u64_at(&record, 48))
            {
                return Ok(Some((offset, count, 0)));
            }
        }
    }
    let start = at.saturating_sub(length.into());
    let shift = start.saturating_sub(offset.into());
    // Entries are counted as they are met: the number may lie.
    Ok(Some((u64::from(offset) + shift, u64::from(count).max(u64::from(length) / ENTRY), shift)))
}

/// Reads an entry of the directory and says how long it is.
fn entry(item: Item<'_>, at: u64, fixed: &[u8], shift: u64) -> std::io::Result<Option<(Member, u64)>> {
    let fields = || {
        Some((
            u16_at(fixed, 8)?,
            u16_at(fixed, 10)?,
            u32_at(fixed, 20)?,
            u32_at(fixed, 24)?,
            u16_at(fixed, 28)?,
            u16_at(fixed, 30)?,
            u16_at(fixed, 32)?,
            u32_at(fixed, 42)?,
        ))
    };
    let Some((flags, method, packed, size, name, extra, comment, local)) = fields() else { return Ok(None) };
    let label = item.bytes(at + ENTRY, usize::from(name).min(NAME_MAX))?;
    let mut member = Member {
        flags,
        method,
        packed: packed.into(),
        size: size.into(),
        local: u64::from(local) + shift,
        name: String::from_utf8_lossy(&label).into_owned(),
    };
    if packed == u32::MAX || size == u32::MAX || local == u32::MAX {
        let bytes = item.bytes(at + ENTRY + u64::from(name), usize::from(extra))?;
        widen(&mut member, &bytes, (size == u32::MAX, packed == u32::MAX, local == u32::MAX));
    }
    Ok(Some((member, ENTRY + u64::from(name) + u64::from(extra) + u64::from(comment))))
}

/// Takes the larger numbers of Zip64 out of an extra field.
fn widen(member: &mut Member, extra: &[u8], (size, packed, local): (bool, bool, bool)) {
    let mut rest = extra;
    while let (Some(id), Some(length)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let Some(body) = rest.get(4..4 + usize::from(length)) else { return };
        if id == 1 {
            let mut numbers = body.chunks_exact(8).filter_map(|bytes| u64_at(bytes, 0));
            for (wanted, into) in [(size, &mut member.size), (packed, &mut member.packed), (local, &mut member.local)] {
                if wanted {
                    *into = numbers.next().unwrap_or(*into);
                }
            }
        }
        rest = rest.get(4 + usize::from(length)..).unwrap_or_default();
    }
}

/// Reads a file's own header.
fn local(item: Item<'_>, at: u64) -> std::io::Result<Option<Member>> {
    let fixed = item.bytes(at, 30)?;
    let fields = || {
        Some((u16_at(&fixed, 6)?, u16_at(&fixed, 8)?, u32_at(&fixed, 18)?, u32_at(&fixed, 22)?, u16_at(&fixed, 26)?))
    };
    let Some((flags, method, packed, size, name)) = fields() else { return Ok(None) };
    let label = item.bytes(at + LOCAL, usize::from(name).min(NAME_MAX))?;
    Ok(Some(Member {
        flags,
        method,
        packed: packed.into(),
        size: size.into(),
        local: at,
        name: String::from_utf8_lossy(&label).into_owned(),
    }))
}
