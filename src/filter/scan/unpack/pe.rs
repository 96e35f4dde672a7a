//! Windows programs: what signatures ask of them, which is sections, entry point and imports.

use std::io;

use crate::filter::scan::{ReadAt, read_vec};

/// Most sections that are looked at, as ClamAV has it.
const SECTIONS_MAX: usize = 96;

/// Most functions of an import table that count.
const IMPORTS_MAX: usize = 10_000;

/// Most libraries of an import table.
const LIBRARIES_MAX: usize = 500;

/// What is known of a Windows program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pe {
    /// Where its code begins, as an offset in the file.
    pub entry: Option<u64>,
    /// Its sections in the order of its table.
    pub sections: Vec<PeSection>,
    wide: bool,
    /// Where the import table is in memory.
    imports: u32,
}

/// A section of a Windows program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeSection {
    /// Where it is in the file.
    pub offset: u64,
    /// Its bytes in the file.
    pub size: u64,
    address: u32,
    virtual_size: u32,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|two| u16::from_le_bytes(*two))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_le_bytes(*four))
}

impl Pe {
    /// Reads the headers; `None` when it is no Windows program.
    ///
    /// # Errors
    /// Those of the medium.
    pub fn read(object: &dyn ReadAt) -> io::Result<Option<Self>> {
        let start = read_vec(object, 0, 64)?;
        if !start.starts_with(b"MZ") {
            return Ok(None);
        }
        let Some(at) = u32_at(&start, 0x3C) else { return Ok(None) };
        let head = read_vec(object, at.into(), 24 + 240)?;
        Self::parse(object, &head, at.into())
    }

    fn parse(object: &dyn ReadAt, head: &[u8], at: u64) -> io::Result<Option<Self>> {
        let fields = || {
            let count = usize::from(u16_at(head, 6)?).min(SECTIONS_MAX);
            let optional = u16_at(head, 20)?;
            let wide = u16_at(head, 24)? == 0x20B;
            let entry = u32_at(head, 40)?;
            // The second of the data directories, which begin behind the optional header's fields.
            let imports = u32_at(head, 24 + if wide { 112 } else { 96 } + 8).unwrap_or(0);
            head.starts_with(b"PE\0\0").then_some((count, optional, wide, entry, imports))
        };
        let Some((count, optional, wide, entry, imports)) = fields() else { return Ok(None) };
        let table = read_vec(object, at + 24 + u64::from(optional), count * 40)?;
        let section = |row: &[u8]| {
            let offset = u64::from(u32_at(row, 20)?);
            let size = u64::from(u32_at(row, 16)?).min(object.size().saturating_sub(offset));
            Some(PeSection { offset, size, address: u32_at(row, 12)?, virtual_size: u32_at(row, 8)? })
        };
        let sections = table.chunks_exact(40).filter_map(section).collect();
        let mut pe = Self { entry: None, sections, wide, imports };
        pe.entry = pe.place(entry);
        Ok(Some(pe))
    }

    /// Where in the file an address in memory is.
    fn place(&self, address: u32) -> Option<u64> {
        let within = |section: &&PeSection| {
            let size = u64::from(section.virtual_size).max(section.size);
            (u64::from(section.address)..u64::from(section.address) + size).contains(&u64::from(address))
        };
        match self.sections.iter().find(within) {
            Some(section) => Some(section.offset + u64::from(address - section.address)),
            // The headers are in memory as they are in the file.
            None => self.sections.iter().all(|section| address < section.address).then_some(address.into()),
        }
    }

    /// What it imports, as the digest of imports is made of it: `library.function` in lower case, with
    /// commas between. Nothing when it imports nothing.
    ///
    /// # Errors
    /// Those of the medium.
    pub fn imports(&self, object: &dyn ReadAt) -> io::Result<Option<String>> {
        let Some(mut row) = self.place(self.imports).filter(|_| self.imports != 0) else { return Ok(None) };
        let (mut names, mut left): (Vec<String>, usize) = (Vec::new(), IMPORTS_MAX);
        for _ in 0..LIBRARIES_MAX {
            let bytes = read_vec(object, row, 20)?;
            let (Some(lookup), Some(name), Some(bound)) = (u32_at(&bytes, 0), u32_at(&bytes, 12), u32_at(&bytes, 16))
            else {
                break;
            };
            if name == 0 {
                break;
            }
            row += 20;
            let Some(library) = self.text(object, name)? else { continue };
            let library = library.to_ascii_lowercase();
            let stem = match library.rsplit_once('.') {
                Some((stem, "dll" | "ocx" | "sys")) => stem.to_owned(),
                _ => library,
            };
            let Some(mut entry) = self.place(if lookup == 0 { bound } else { lookup }) else { continue };
            let width = if self.wide { 8 } else { 4 };
            while left > 0 {
                left -= 1;
                let bytes = read_vec(object, entry, width)?;
                let (Some(low), high) = (u32_at(&bytes, 0), u32_at(&bytes, 4)) else { break };
                if low == 0 && high.unwrap_or(0) == 0 {
                    break;
                }
                entry += width as u64;
                let ordinal = if self.wide { high.unwrap_or(0) } else { low } >> 31 == 1;
                let function = if ordinal {
                    format!("ord{}", low & 0xFFFF)
                } else {
                    let Some(function) = self.text(object, low.saturating_add(2))? else { continue };
                    function.to_ascii_lowercase()
                };
                names.push(format!("{stem}.{function}"));
            }
        }
        Ok((!names.is_empty()).then(|| names.join(",")))
    }

    fn text(&self, object: &dyn ReadAt, address: u32) -> io::Result<Option<String>> {
        let Some(at) = self.place(address) else { return Ok(None) };
        let bytes = read_vec(object, at, 128)?;
        let end = bytes.iter().position(|&byte| byte == 0);
        let text = end.and_then(|end| std::str::from_utf8(bytes.get(..end)?).ok());
        Ok(text.filter(|text| !text.is_empty()).map(str::to_owned))
    }
}
