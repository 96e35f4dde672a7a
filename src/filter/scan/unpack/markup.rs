//! Text in which other things are written down: HTML with `data:` addresses and coded blobs in scripts,
//! RTF with objects, text with uuencoded files and base64.
//!
//! Text and HTML are also examined in the plain form that signatures for them are written against: lower
//! case, each run of white space a blank.

use super::kind::Kind;
use super::{About, Inner, Item, PIECE, Sheet, Step, Stop, Unpacker, find, u32_at};
use crate::filter::scan::Stretch;
use crate::mail::structure::{Extent, TransferEncoding};
use crate::mail::text::TransferDecoder;

/// Fewest characters of base64 in a row that are looked into.
const BLOB_MIN: usize = 96;

/// Fewest characters of a whole line of base64, and fewest such lines, in text.
const LINE_MIN: usize = 40;

/// Longest line that is looked at as coded text.
const LINE_MAX: usize = 1024;

/// Lines between two looks at the clock.
const LINES_BETWEEN_LOOKS: u32 = 4096;

/// Bytes of an object at whose start an embedded file is looked for.
const EMBEDDED_MAX: usize = 4096;

impl Unpacker<'_> {
    pub(super) fn html(&mut self, item: Item<'_>) -> Step {
        self.plain_form(item, Kind::Html)?;
        self.blobs(item, Kind::Html)
    }

    pub(super) fn text(&mut self, item: Item<'_>) -> Step {
        self.plain_form(item, Kind::Text)?;
        self.blobs(item, Kind::Text)?;
        self.coded_lines(item, &[])
    }

    /// Examines the plain form of text.
    fn plain_form(&mut self, item: Item<'_>, kind: Kind) -> Step {
        let (mut sheet, mut at, mut blank) = (self.workshop.sheet()?, 0, true);
        loop {
            let piece = item.bytes(at, PIECE)?;
            if piece.is_empty() {
                break;
            }
            at += piece.len() as u64;
            let mut plain = Vec::with_capacity(piece.len());
            for byte in piece {
                let white = byte.is_ascii_whitespace() || byte == 0;
                if !(white && blank) {
                    plain.push(if white { b' ' } else { byte.to_ascii_lowercase() });
                }
                blank = white;
            }
            sheet.write(&plain)?;
            self.time()?;
        }
        let about = About { name: item.name, kind, container: kind.clamav(), pe: None };
        let workshop = self.workshop;
        let goes_on = self.examine.object(&*sheet, &about, &mut || workshop.goes_on())?;
        if goes_on { Ok(()) } else { Err(Stop::Enough) }
    }

    /// Looks into long runs of base64 in scripts and addresses.
    fn blobs(&mut self, item: Item<'_>, kind: Kind) -> Step {
        let (mut at, mut run) = (0, Vec::new());
        let mut blob: Option<(TransferDecoder, Box<dyn Sheet>)> = None;
        loop {
            let piece = item.bytes(at, PIECE)?;
            at += piece.len() as u64;
            for &byte in &piece {
                if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=') {
                    run.push(byte);
                    if run.len() >= PIECE {
                        self.grow(&mut blob, &mut run)?;
                    }
                } else if byte == b'\\' || byte == b'\n' || byte == b'\r' {
                    // Scripts break long strings.
                } else if blob.is_some() || run.len() >= BLOB_MIN {
                    self.grow(&mut blob, &mut run)?;
                    self.blob(blob.take(), item.inner(item.name, kind))?;
                } else {
                    run.clear();
                }
            }
            if piece.is_empty() {
                break;
            }
            self.time()?;
        }
        if blob.is_some() || run.len() >= BLOB_MIN {
            self.grow(&mut blob, &mut run)?;
            self.blob(blob.take(), item.inner(item.name, kind))?;
        }
        Ok(())
    }

    /// Decodes what was gathered.
    fn grow(&mut self, blob: &mut Option<(TransferDecoder, Box<dyn Sheet>)>, run: &mut Vec<u8>) -> Step {
        let (mut decoder, mut sheet) = match blob.take() {
            Some(blob) => blob,
            None => (TransferDecoder::new(TransferEncoding::Base64), self.workshop.sheet()?),
        };
        let mut out = Vec::new();
        decoder.decode(run, &mut out);
        run.clear();
        self.count(out.len())?;
        sheet.write(&out)?;
        *blob = Some((decoder, sheet));
        Ok(())
    }

    fn blob(&mut self, blob: Option<(TransferDecoder, Box<dyn Sheet>)>, inner: Inner<'_>) -> Step {
        let Some((mut decoder, mut sheet)) = blob else { return Ok(()) };
        let mut out = Vec::new();
        decoder.finish(&mut out);
        sheet.write(&out)?;
        self.object(Item { object: &*sheet, name: inner.name, depth: inner.depth }, inner.container)
    }

    /// Looks into uuencoded files and blocks of base64 in the lines of text, but not in `known`.
    pub(super) fn coded_lines(&mut self, item: Item<'_>, known: &[Extent]) -> Step {
        let mut lines = Lines { item, at: 0, buffer: Vec::new(), taken: 0 };
        let mut coded: Option<(Coded, Box<dyn Sheet>, String)> = None;
        let (mut known, mut count) = (known.iter().peekable(), 0_u32);
        loop {
            count = count.wrapping_add(1);
            if count.is_multiple_of(LINES_BETWEEN_LOOKS) {
                self.time()?;
            }
            // What is decoded elsewhere is jumped over; it comes in order.
            let place = lines.place();
            while known.next_if(|extent| extent.offset + extent.length <= place).is_some() {}
            if let Some(extent) = known.peek().filter(|extent| extent.offset <= place) {
                lines.jump(extent.offset + extent.length);
            }
            let Some(line) = lines.next()? else { break };
            let text = line.trim_ascii_end();
            let mut out = Vec::new();
            let goes_on = match &mut coded {
                Some((Coded::Uu, ..)) if text == b"end" => false,
                Some((Coded::Uu, ..)) => uudecode(text, &mut out),
                Some((Coded::Base64(decoder, lines), ..)) => {
                    let more = is_base64(text) && text.len() <= LINE_MAX;
                    if more {
                        decoder.decode(text, &mut out);
                        *lines += 1;
                    }
                    more
                }
                None => {
                    if let Some(name) = uu_name(text) {
                        self.name(&name);
                        coded = Some((Coded::Uu, self.workshop.sheet()?, name));
                    } else if text.len() >= LINE_MIN && is_base64(text) {
                        let mut decoder = TransferDecoder::new(TransferEncoding::Base64);
                        decoder.decode(text, &mut out);
                        coded = Some((Coded::Base64(decoder, 1), self.workshop.sheet()?, item.name.to_owned()));
                    }
                    true
                }
            };
            if let Some((_, sheet, _)) = &mut coded {
                self.count(out.len())?;
                sheet.write(&out)?;
            }
            if !goes_on && let Some(done) = coded.take() {
                self.coded(item, done)?;
            }
        }
        if let Some(done) = coded {
            self.coded(item, done)?;
        }
        Ok(())
    }

    fn coded(&mut self, item: Item<'_>, (coded, mut sheet, name): (Coded, Box<dyn Sheet>, String)) -> Step {
        self.time()?;
        if let Coded::Base64(mut decoder, lines) = coded {
            let mut out = Vec::new();
            decoder.finish(&mut out);
            sheet.write(&out)?;
            // A single long word is no file, unless it is long.
            if lines < 2 && sheet.size() < BLOB_MIN as u64 / 2 {
                return Ok(());
            }
        }
        if sheet.size() == 0 {
            return Ok(());
        }
        self.object(Item { object: &*sheet, name: &name, depth: item.depth + 1 }, Kind::Text.clamav())
    }

    pub(super) fn rtf(&mut self, item: Item<'_>) -> Step {
        self.plain_form(item, Kind::Text)?;
        let mut at = 0;
        while let Some(place) = find(item.object, b"\\objdata", at, u64::MAX)? {
            at = place + 8;
            let (mut sheet, mut high, mut over) = (self.workshop.sheet()?, None, false);
            let mut word = false;
            while !over {
                let piece = item.bytes(at, PIECE)?;
                let mut out = Vec::new();
                for &byte in &piece {
                    at += 1;
                    // Control words between the digits are there to hide them.
                    word = match byte {
                        b'\\' => true,
                        _ => word && !byte.is_ascii_whitespace() && byte != b'}' && byte != b'{',
                    };
                    if byte == b'}' {
                        over = true;
                        break;
                    }
                    let digit = char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                    if let Some(digit) = digit.filter(|_| !word) {
                        match high.take() {
                            Some(first) => out.push(first << 4 | digit),
                            None => high = Some(digit),
                        }
                    }
                }
                over |= piece.is_empty();
                self.count(out.len())?;
                sheet.write(&out)?;
            }
            self.embedded(Item { object: &*sheet, name: item.name, depth: item.depth + 1 })?;
            self.time()?;
        }
        Ok(())
    }

    /// An object of OLE 1 in RTF: class, two names, length, data.
    fn embedded(&mut self, inner: Item<'_>) -> Step {
        const MAGICS: [&[u8]; 5] = [b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1", b"PK\x03\x04", b"MZ", b"%PDF-", b"{\\rt"];
        if inner.object.size() == 0 {
            return Ok(());
        }
        self.object(inner, Kind::Rtf.clamav())?;
        let head = inner.bytes(0, EMBEDDED_MAX)?;
        // Version, format, three texts each behind its length, then the size of the data.
        let skipped =
            (0..3).try_fold(8_usize, |at, _| at.checked_add(4)?.checked_add(usize::try_from(u32_at(&head, at)?).ok()?));
        if let Some(at) = skipped.filter(|_| head.get(12..19) == Some(b"Package")) {
            let stretch = Stretch::new(inner.object, at as u64, u64::MAX);
            return self.native(Item { object: &stretch, ..inner });
        }
        let place = (1..head.len())
            .find(|&place| head.get(place..).is_some_and(|rest| MAGICS.iter().any(|magic| rest.starts_with(magic))));
        let Some(place) = place else { return Ok(()) };
        let stretch = Stretch::new(inner.object, place as u64, u64::MAX);
        self.object(Item { object: &stretch, name: inner.name, depth: inner.depth + 1 }, Kind::Rtf.clamav())
    }
}

/// How lines are coded.
enum Coded {
    Uu,
    /// And how many lines there were.
    Base64(TransferDecoder, u32),
}

/// The lines of an object; longer ones than [`LINE_MAX`] come in pieces.
struct Lines<'i> {
    item: Item<'i>,
    at: u64,
    buffer: Vec<u8>,
    taken: usize,
}

impl Lines<'_> {
    fn place(&self) -> u64 {
        self.at - (self.buffer.len() - self.taken) as u64
    }

    fn jump(&mut self, to: u64) {
        (self.at, self.taken) = (to, 0);
        self.buffer.clear();
    }

    fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        if self.buffer.len() - self.taken < LINE_MAX {
            self.buffer.drain(..self.taken);
            self.taken = 0;
            let more = self.item.bytes(self.at, PIECE)?;
            self.at += more.len() as u64;
            self.buffer.extend_from_slice(&more);
        }
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let rest = rest.get(..rest.len().min(LINE_MAX)).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let end = rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |end| end + 1);
        let line = rest.get(..end).unwrap_or_default().to_vec();
        self.taken += end;
        Ok(Some(line))
    }
}

fn is_base64(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
}

/// The name in `begin 644 NAME`.
fn uu_name(line: &[u8]) -> Option<String> {
    let rest = line.strip_prefix(b"begin ")?;
    let (mode, rest) = rest.split_at_checked(3)?;
    let name = rest.strip_prefix(b" ").or_else(|| rest.get(1..)?.strip_prefix(b" "))?;
    let octal = mode.iter().all(|byte| (b'0'..=b'7').contains(byte));
    (octal && !name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
}

/// Decodes a line of uuencoded data; false when it is none.
fn uudecode(line: &[u8], out: &mut Vec<u8>) -> bool {
    let Some((&first, rest)) = line.split_first() else { return true };
    if !(b' '..=b'`').contains(&first) {
        return false;
    }
    let length = usize::from((first - b' ') & 63);
    let before = out.len();
    for group in rest.chunks(4) {
        let bits = (0..4).fold(0_u32, |bits, place| {
            let byte = group.get(place).copied().unwrap_or(b' ');
            bits << 6 | u32::from(byte.wrapping_sub(b' ') & 63)
        });
        let [_, bytes @ ..] = bits.to_be_bytes();
        out.extend_from_slice(&bytes);
    }
    out.truncate(before + length);
    true
}
