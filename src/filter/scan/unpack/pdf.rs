//! PDF: every stream in the file, whatever the cross-reference table says, with the filters that can be
//! undone in a row: Flate, ASCII85, ASCIIHex.

use std::io::{self, Read};

use flate2::bufread::ZlibDecoder;

use super::kind::Kind;
use super::{Drawn, Inner, Item, Step, Unpacker, find};
use crate::filter::scan::Stretch;

/// Bytes before a stream in which its dictionary is looked for.
const DICTIONARY: u64 = 1024;

/// Most filters in a row.
const FILTERS_MAX: usize = 8;

impl Unpacker<'_> {
    pub(super) fn pdf(&mut self, item: Item<'_>) -> Step {
        if find(item.object, b"/Encrypt", 0, u64::MAX)?.is_some() {
            self.encrypted(item.name);
        }
        let mut at = 0;
        while let Some(place) = find(item.object, b"stream", at, u64::MAX)? {
            at = place + 6;
            self.time()?;
            let from = place.saturating_sub(DICTIONARY);
            let before = item.bytes(from, usize::try_from(place - from).unwrap_or(0))?;
            if before.ends_with(b"end") {
                continue;
            }
            let eol = item.bytes(at, 2)?;
            let start = at
                + match eol.as_slice() {
                    b"\r\n" => 2,
                    [b'\r' | b'\n', ..] => 1,
                    _ => continue,
                };
            let end = find(item.object, b"endstream", start, u64::MAX)?.unwrap_or(item.object.size());
            let filters = filters(&before);
            let stretch = Stretch::new(item.object, start, end - start);
            self.pdf_stream(item, &stretch, &filters)?;
            at = end;
        }
        Ok(())
    }

    fn pdf_stream(&mut self, item: Item<'_>, stretch: &Stretch<'_>, filters: &[String]) -> Step {
        let inner = Item { object: stretch, name: item.name, depth: item.depth + 1 };
        if filters.is_empty() {
            return self.object(inner, Kind::Pdf.clamav());
        }
        let drawn = item.inner(item.name, Kind::Pdf);
        let sheet = self.draw_pdf(&inner, stretch.size, filters, drawn)?;
        self.drawn(sheet, drawn)
    }

    #[inline(never)]
    fn draw_pdf(&mut self, whole: &Item<'_>, packed: u64, filters: &[String], inner: Inner<'_>) -> Drawn {
        let mut reader: Box<dyn Read + '_> = Box::new(self.source(whole, 0));
        for filter in filters {
            reader = match filter.as_str() {
                "FlateDecode" | "Fl" => Box::new(ZlibDecoder::new(self.between(reader))),
                "ASCIIHexDecode" | "AHx" => Box::new(Ascii::new(self.between(reader), false)),
                "ASCII85Decode" | "A85" => Box::new(Ascii::new(self.between(reader), true)),
                // Pictures and what a reader needs a key for.
                _ => return Ok(None),
            };
        }
        self.draw(reader, packed, inner)
    }
}

/// The filters that the dictionary before a stream names.
fn filters(before: &[u8]) -> Vec<String> {
    let start = before.windows(4).rposition(|window| window == b" obj").unwrap_or(0);
    let dictionary = plain(before.get(start..).unwrap_or_default());
    let Some((_, rest)) = dictionary.split_once("/Filter") else { return Vec::new() };
    let rest = rest.trim_start();
    if let Some(list) = rest.strip_prefix('[') {
        let list = list.split(']').next().unwrap_or_default();
        let names = list.split('/').skip(1).map(|name| name.trim().to_owned());
        return names.take(FILTERS_MAX).collect();
    }
    let name = rest.strip_prefix('/').unwrap_or_default();
    let end = name.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(name.len());
    name.get(..end).filter(|name| !name.is_empty()).map(str::to_owned).into_iter().collect()
}

/// Text with `#xx` in names undone, which hides them from who does not.
fn plain(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let coded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| byte == b'#');
        out.push(char::from(coded.unwrap_or(byte)));
        rest = if coded.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    out
}

/// Undoes hexadecimal digits or base 85.
struct Ascii<R> {
    from: R,
    base85: bool,
    digits: Vec<u8>,
    out: Vec<u8>,
    taken: usize,
    over: bool,
}

impl<R: Read> Ascii<R> {
    fn new(from: R, base85: bool) -> Self {
        Self { from, base85, digits: Vec::new(), out: Vec::new(), taken: 0, over: false }
    }

    fn take(&mut self, byte: u8) {
        match byte {
            _ if byte.is_ascii_whitespace() => {}
            b'~' => self.over = true,
            b'>' if !self.base85 => self.over = true,
            b'z' if self.base85 && self.digits.is_empty() => self.out.extend_from_slice(&[0; 4]),
            b'!'..=b'u' if self.base85 => self.digits.push(byte - b'!'),
            _ if !self.base85 && byte.is_ascii_hexdigit() => {
                self.digits.push(u8::try_from(char::from(byte).to_digit(16).unwrap_or(0)).unwrap_or(0));
            }
            _ => {}
        }
        if self.digits.len() == if self.base85 { 5 } else { 2 } {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let digits = std::mem::take(&mut self.digits);
        if self.base85 && digits.len() > 1 {
            let padded = digits.iter().copied().chain(std::iter::repeat(84)).take(5);
            let number = padded.fold(0_u32, |number, digit| number.wrapping_mul(85).wrapping_add(digit.into()));
            self.out.extend_from_slice(number.to_be_bytes().get(..digits.len() - 1).unwrap_or_default());
        } else if !self.base85 && !digits.is_empty() {
            let low = digits.get(1).copied().unwrap_or(0);
            self.out.push(digits.first().copied().unwrap_or(0) << 4 | low);
        }
    }
}

impl<R: Read> Read for Ascii<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.out.len() && !self.over {
            (self.taken, self.out) = (0, Vec::new());
            let mut piece = [0; 4096];
            let read = self.from.read(&mut piece)?;
            for &byte in piece.get(..read).unwrap_or_default() {
                if !self.over {
                    self.take(byte);
                }
            }
            self.over |= read == 0;
            if self.over {
                self.flush();
            }
        }
        let rest = self.out.get(self.taken..).unwrap_or_default();
        let count = rest.len().min(into.len());
        if let (Some(into), Some(from)) = (into.get_mut(..count), rest.get(..count)) {
            into.copy_from_slice(from);
        }
        self.taken += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undone(text: &str, base85: bool) -> Vec<u8> {
        let mut out = Vec::new();
        Ascii::new(text.as_bytes(), base85).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn digits_are_undone() {
        assert_eq!(undone("48 65 6C\n6c 6F>trash", false), b"Hello");
        assert_eq!(undone("7>", false), b"p");
        assert_eq!(undone("87cURDZ~>", true), b"Hello");
        assert_eq!(undone("z~>", true), [0; 4]);
    }

    #[test]
    fn filters_are_found_however_they_are_written() {
        assert_eq!(filters(b"1 0 obj\n<</Length 3/Filter/FlateDecode>>"), ["FlateDecode"]);
        assert_eq!(filters(b"<</Filter [/ASCII85Decode /FlateDecode] /Length 9>>"), ["ASCII85Decode", "FlateDecode"]);
        assert_eq!(filters(b"<</#46ilter/Fl#61teDecode>>"), ["FlateDecode"]);
        assert_eq!(filters(b"/Filter/X endobj 2 0 obj <</Length 3>>"), Vec::<String>::new());
    }
}
