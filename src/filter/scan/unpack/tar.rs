//! Tar archives: blocks of 512 bytes, a header before each file.

/// Bytes of a block.
pub const BLOCK: u64 = 512;

/// What a header says of the file behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarEntry {
    /// Its name.
    pub name: String,
    /// Its bytes, which are followed by zeros up to whole blocks.
    pub size: u64,
    /// It is a file, and not a folder, a link or a note about the next one.
    pub is_file: bool,
}

impl TarEntry {
    /// Reads a header of 512 bytes; `None` when its checksum says that it is none.
    pub fn parse(block: &[u8]) -> Option<Self> {
        let block = block.get(..512)?;
        let wanted = octal(block.get(148..156)?)?;
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, &byte)| u64::from(if (148..156).contains(&at) { b' ' } else { byte }))
            .sum();
        if sum != wanted {
            return None;
        }
        let text = |range: std::ops::Range<usize>| {
            let bytes = block.get(range).unwrap_or_default();
            let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
        };
        let prefix = if block.get(257..262) == Some(b"ustar") { text(345..500) } else { String::new() };
        let name = if prefix.is_empty() { text(0..100) } else { format!("{prefix}/{}", text(0..100)) };
        let kind = block.get(156).copied().unwrap_or(0);
        Some(Self { name, size: octal(block.get(124..136)?)?, is_file: matches!(kind, 0 | b'0' | b'7') })
    }

    /// Bytes from the header's end to the next header.
    pub fn padded(&self) -> u64 {
        self.size.saturating_add(BLOCK - 1) / BLOCK * BLOCK
    }
}

/// A number in octal digits, or with the highest bit set in binary, as GNU tar writes large ones.
fn octal(field: &[u8]) -> Option<u64> {
    if let Some((first, rest)) = field.split_first().filter(|(first, _)| **first & 0x80 != 0) {
        let wide = rest.iter().try_fold(u64::from(first & 0x7F), |number, &byte| {
            number.checked_mul(256).map(|number| number | u64::from(byte))
        });
        return wide;
    }
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_matches(|letter: char| letter == '\0' || letter == ' ');
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}
