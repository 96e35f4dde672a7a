//! Windows programs: what signatures ask of them, which is sections, entry point and imports.

use std::io;

use crate::filter::scan::{ReadAt, read_vec};

/// Most sections that are looked at, as ClamAV has it.
const SECTIONS_MAX: usize = 96;

/// Most functions of an import table that count.
const IMPORTS_MAX: usize = 10_000;

/// Most libraries of an import table.
const LIBRARIES_MAX: usize = 500;

/// What two libraries export under numbers, of which programs import much by number: number and name, a line
/// each. Digests of imports are made of names.
const WINSOCK: &str = include_str!("ordinals/ws2_32.txt");
const OLE_AUTOMATION: &str = include_str!("ordinals/oleaut32.txt");

/// Bytes to which places in a file are rounded down where a program's own measure does not fit.
const BLOCK: u32 = 512;

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
    /// Bytes of the headers, which are in memory as they are in the file.
    headers: u32,
}

/// A section of a Windows program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeSection {
    /// Where it is in the file, rounded as Windows' loader does.
    pub offset: u64,
    /// Its bytes in the file, rounded in the same way.
    pub size: u64,
    /// Where it ends in the file as it says itself.
    pub end: u64,
    address: u32,
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
            let (memory_step, file_step, headers) = (u32_at(head, 56)?, u32_at(head, 60)?, u32_at(head, 84)?);
            // The second of the data directories, which begin behind the optional header's fields.
            let imports = u32_at(head, 24 + if wide { 112 } else { 96 } + 8).unwrap_or(0);
            let headers = u32::try_from(up(headers, memory_step)).unwrap_or(u32::MAX);
            let pe = Self { wide, imports, headers, ..Self::default() };
            head.starts_with(b"PE\0\0").then_some((count, optional, entry, memory_step, file_step, pe))
        };
        let Some((count, optional, entry, memory_step, mut file_step, mut pe)) = fields() else { return Ok(None) };
        let table = read_vec(object, at + 24 + u64::from(optional), count * 40)?;
        let rows = || table.chunks_exact(40);
        let is_off = |row: &[u8]| u32_at(row, 20).is_some_and(|at| down(at, file_step) != at && down(at, BLOCK) == at);
        if rows().any(is_off) {
            file_step = BLOCK;
        }
        let section = |row: &[u8]| {
            let (address, length, start) = (u32_at(row, 12)?, u32_at(row, 16)?, u32_at(row, 20)?);
            let offset = u64::from(down(start, file_step));
            Some(PeSection {
                offset,
                size: up(length, file_step).min(object.size().saturating_sub(offset)),
                end: object.size().min(u64::from(start) + u64::from(length)),
                address: down(address, memory_step),
            })
        };
        pe.sections = rows().filter_map(section).collect();
        pe.entry = pe.place(entry);
        Ok(Some(pe))
    }

    /// Where in the file an address in memory is: of sections that overlap the last counts.
    fn place(&self, address: u32) -> Option<u64> {
        if address < self.headers {
            return Some(address.into());
        }
        self.sections.iter().rev().find_map(|section| {
            let within = u64::from(address.checked_sub(section.address)?);
            (within < section.size).then_some(section.offset + within)
        })
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
                _ => library.clone(),
            };
            let known = match library.as_str() {
                "ws2_32.dll" | "wsock32.dll" => WINSOCK,
                "oleaut32.dll" => OLE_AUTOMATION,
                _ => "",
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
                    named(known, low & 0xFFFF)
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

/// The name of what a library exports under a number.
fn named(known: &str, number: u32) -> String {
    let wanted = number.to_string();
    let name = known.lines().find_map(|line| line.strip_prefix(&wanted)?.strip_prefix(' '));
    name.map_or_else(|| format!("ord{number}"), str::to_owned)
}

/// A number rounded down to a multiple of another.
fn down(number: u32, to: u32) -> u32 {
    number.checked_div(to).map_or(number, |whole| whole * to)
}

/// A number rounded up to a multiple of another.
fn up(number: u32, to: u32) -> u64 {
    let (number, to) = (u64::from(number), u64::from(to));
    if to == 0 { number } else { number.div_ceil(to) * to }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_imported_by_number_has_its_name_where_it_is_known() {
        assert_eq!(named(WINSOCK, 1), "accept");
        assert_eq!(named(WINSOCK, 115), "wsastartup");
        assert_eq!(named(WINSOCK, 9999), "ord9999");
        assert_eq!(named(OLE_AUTOMATION, 2), "sysallocstring");
        assert_eq!(named("", 2), "ord2");
    }

    #[test]
    fn places_are_rounded_to_blocks_and_nothing_to_blocks_of_none() {
        assert_eq!([down(513, 512), down(511, 512), down(7, 0)], [512, 0, 7]);
        assert_eq!([up(513, 512), up(512, 512), up(u32::MAX, 512), up(7, 0)], [1024, 512, 1 << 32, 7]);
    }
}
