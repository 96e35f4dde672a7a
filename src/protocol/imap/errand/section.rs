//! One section of one message, streamed into a literal (RFC 9051 section 6.4.5.1, RFC 3516).
//!
//! A literal's length comes before its bytes. Bytes that are sent as they lie in the message have a
//! known length. Filtered headers and decoded parts are made once into memory; what proves longer
//! than [`GATHERED_MAX`] is only counted that time and made a second time while it is sent. Once a
//! length was promised, exactly that many bytes follow or the connection ends.

use crate::mail::header::HeaderFilter;
use crate::mail::message::{BlobId, Message};
use crate::mail::structure::{self, Extent, Structure, TextPart, TransferEncoding, Wanted};
use crate::mail::text::{CharsetDecoder, TransferDecoder, preview};
use crate::protocol::imap::fetch::{FetchItem, SectionItem, SectionKind};
use crate::protocol::imap::request::{BODY_CHUNK, Request};
use crate::protocol::imap::response::{write_astring, write_literal_header, write_number, write_string};

/// Most bytes of a filtered header or decoded part that are held before they are sent.
const GATHERED_MAX: usize = 64 * 1024;

/// Bytes of a text, as it is coded for transfer, that its preview is made of; within one chunk.
const PREVIEW_BYTES: u64 = 8 * 1024;

/// What a section needs next.
#[derive(Debug)]
pub(crate) enum Progress {
    Ask(Request),
    Done,
    /// NIL was written: the part keeps to no transfer encoding (RFC 3516 section 4.3).
    Undecodable,
    /// A literal was begun that can't be completed.
    Lost,
}

/// A section being sent.
#[derive(Debug)]
pub(crate) struct Section {
    blob: BlobId,
    /// Where it lies.
    extent: Extent,
    /// Bytes of the extent that were read.
    read: u64,
    partial: Option<(u32, u32)>,
    recipe: Recipe,
    phase: Phase,
}

/// How bytes of the message become the section.
#[derive(Clone, Debug)]
enum Recipe {
    AsIs,
    Fields {
        names: Vec<String>,
        except: bool,
    },
    Decoded(TransferEncoding),
    /// Only the decoded length is told.
    DecodedSize(TransferEncoding),
    /// The beginning of a text, as a list of messages shows it.
    Preview(Box<TextPart>),
}

#[derive(Debug)]
enum Phase {
    Begin,
    /// So many bytes are to be sent as they lie; the first of them make the promise.
    Copy {
        left: u64,
        promised: bool,
    },
    /// Making it to see how long it is. What was made is kept while it is short.
    Gather {
        maker: Maker,
        kept: Option<Vec<u8>>,
        length: u64,
    },
    /// Making it again while it is sent.
    Emit {
        maker: Maker,
        skip: u64,
        left: u64,
    },
}

#[derive(Debug)]
enum Maker {
    Filter(Option<HeaderFilter>),
    Decoder(TransferDecoder),
}

impl Maker {
    fn new(recipe: &Recipe) -> Self {
        match recipe {
            Recipe::Fields { names, except } => Self::Filter(Some(HeaderFilter::new(names, *except))),
            Recipe::Decoded(encoding) | Recipe::DecodedSize(encoding) => Self::Decoder(TransferDecoder::new(*encoding)),
            Recipe::AsIs | Recipe::Preview(_) => Self::Decoder(TransferDecoder::new(TransferEncoding::Identity)),
        }
    }

    fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Filter(filter) => {
                if let Some(filter) = filter {
                    filter.feed(bytes, out);
                }
            }
            Self::Decoder(decoder) => decoder.decode(bytes, out),
        }
    }

    /// Ends it; false when what came out is a guess.
    fn finish(&mut self, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Filter(filter) => {
                if let Some(filter) = filter.take() {
                    filter.finish(out);
                }
                true
            }
            Self::Decoder(decoder) => {
                decoder.finish(out);
                decoder.verdict().is_ok()
            }
        }
    }
}

impl Section {
    /// Writes the item's name and begins it; NIL and `None` when the message has no such section.
    pub(crate) fn begin(
        out: &mut Vec<u8>,
        item: &SectionItem,
        row: &Message,
        structure: Option<&Structure>,
    ) -> Option<Self> {
        write_name(out, item);
        if let Some(fields) = spelled(item, structure) {
            write_part(out, &fields, item.partial, false);
            return None;
        }
        let kind = match item.kind {
            SectionKind::Mime => structure::Section::Mime,
            SectionKind::Header | SectionKind::HeaderFields(..) => structure::Section::Header,
            SectionKind::Text => structure::Section::Text,
            SectionKind::Body | SectionKind::Binary | SectionKind::BinarySize => structure::Section::Body,
        };
        let encoding = || structure.and_then(|found| found.encoding(&item.path)).unwrap_or_default();
        let recipe = match &item.kind {
            SectionKind::HeaderFields(names, except) => Recipe::Fields { names: names.clone(), except: *except },
            SectionKind::Binary => Recipe::Decoded(encoding()),
            SectionKind::BinarySize => Recipe::DecodedSize(encoding()),
            _ => Recipe::AsIs,
        };
        Self::located(out, row, locate(row, structure, &item.path, kind), item.partial, recipe)
    }

    /// Writes the name of an RFC822 item of IMAP4rev1 and begins it.
    pub(crate) fn begin_rfc822(
        out: &mut Vec<u8>,
        item: &FetchItem,
        row: &Message,
        structure: Option<&Structure>,
    ) -> Option<Self> {
        let (name, kind): (&[u8], _) = match item {
            FetchItem::Rfc822Header => (b"RFC822.HEADER ", structure::Section::Header),
            FetchItem::Rfc822Text => (b"RFC822.TEXT ", structure::Section::Text),
            _ => (b"RFC822 ", structure::Section::Body),
        };
        out.extend_from_slice(name);
        Self::located(out, row, locate(row, structure, &[], kind), None, Recipe::AsIs)
    }

    /// Writes PREVIEW (RFC 8970) and begins to read the text it is made of; done with `None` where the
    /// message has no text.
    pub(crate) fn begin_preview(out: &mut Vec<u8>, row: &Message, structure: &Structure) -> Option<Self> {
        out.extend_from_slice(b"PREVIEW ");
        let Some(part) = structure.first_text().filter(|part| part.extent.length > 0) else {
            out.extend_from_slice(b"\"\"");
            return None;
        };
        let extent = Extent { length: part.extent.length.min(PREVIEW_BYTES), ..part.extent };
        Self::located(out, row, Some(extent), None, Recipe::Preview(Box::new(part)))
    }

    fn located(
        out: &mut Vec<u8>,
        row: &Message,
        extent: Option<Extent>,
        partial: Option<(u32, u32)>,
        recipe: Recipe,
    ) -> Option<Self> {
        let Some(extent) = extent else {
            out.extend_from_slice(nothing(&recipe));
            return None;
        };
        Some(Self { blob: row.blob, extent, read: 0, partial, recipe, phase: Phase::Begin })
    }

    /// Goes on; `bytes` are the answer to the last [`Progress::Ask`], none the first time.
    pub(crate) fn go(&mut self, out: &mut Vec<u8>, bytes: &[u8]) -> Progress {
        self.read += bytes.len() as u64;
        if let (Recipe::Preview(part), true) = (&self.recipe, self.read > 0) {
            let mut text = String::new();
            let (mut transfer, mut decoded) = (TransferDecoder::new(part.encoding), Vec::new());
            transfer.decode(bytes, &mut decoded);
            CharsetDecoder::new(part.charset.as_deref()).decode(&decoded, false, &mut text);
            write_preview(out, &preview(&text, part.html));
            return Progress::Done;
        }
        match std::mem::replace(&mut self.phase, Phase::Begin) {
            Phase::Begin => self.begin_reading(out),
            Phase::Copy { left, promised } => self.copy(out, bytes, left, promised),
            Phase::Gather { maker, kept, length } => self.gather(out, bytes, maker, kept, length),
            Phase::Emit { maker, skip, left } => self.emit(out, bytes, maker, skip, left),
        }
    }

    fn begin_reading(&mut self, out: &mut Vec<u8>) -> Progress {
        match self.recipe {
            Recipe::DecodedSize(TransferEncoding::Identity) => {
                write_number(out, self.extent.length);
                Progress::Done
            }
            Recipe::AsIs | Recipe::Decoded(TransferEncoding::Identity) => {
                let (skip, left) = clip(self.extent.length, self.partial);
                if left == 0 {
                    out.extend_from_slice(b"\"\"");
                    return Progress::Done;
                }
                self.read = skip;
                self.phase = Phase::Copy { left, promised: false };
                self.ask(left)
            }
            Recipe::Preview(_) => {
                self.phase = Phase::Copy { left: self.extent.length, promised: false };
                self.ask(self.extent.length)
            }
            _ => {
                let (maker, kept) = (Maker::new(&self.recipe), Some(Vec::new()));
                if self.extent.length == 0 {
                    return self.gather(out, &[], maker, kept, 0);
                }
                self.phase = Phase::Gather { maker, kept, length: 0 };
                self.ask(self.extent.length)
            }
        }
    }

    fn copy(&mut self, out: &mut Vec<u8>, bytes: &[u8], left: u64, promised: bool) -> Progress {
        if bytes.is_empty() {
            return if promised { Progress::Lost } else { self.missing(out) };
        }
        if !promised {
            write_literal_header(out, left, self.is_binary());
        }
        out.extend_from_slice(bytes);
        let left = left.saturating_sub(bytes.len() as u64);
        if left == 0 {
            return Progress::Done;
        }
        self.phase = Phase::Copy { left, promised: true };
        self.ask(left)
    }

    fn gather(
        &mut self,
        out: &mut Vec<u8>,
        bytes: &[u8],
        mut maker: Maker,
        mut kept: Option<Vec<u8>>,
        mut length: u64,
    ) -> Progress {
        let mut made = kept.take().unwrap_or_default();
        let before = made.len();
        maker.feed(bytes, &mut made);
        let left = self.extent.length - self.read.min(self.extent.length);
        let sound = left > 0 || maker.finish(&mut made);
        length += (made.len() - before) as u64;
        let whole = made.len() as u64 == length && made.len() <= GATHERED_MAX;
        let kept = whole.then_some(made);
        if left > 0 {
            if bytes.is_empty() {
                return self.missing(out);
            }
            self.phase = Phase::Gather { maker, kept, length };
            return self.ask(left);
        }
        if !sound {
            self.missing(out);
            return Progress::Undecodable;
        }
        if matches!(self.recipe, Recipe::DecodedSize(_)) {
            write_number(out, length);
            return Progress::Done;
        }
        if let Some(made) = kept {
            write_part(out, &made, self.partial, self.is_binary());
            return Progress::Done;
        }
        let (skip, left) = clip(length, self.partial);
        if left == 0 {
            out.extend_from_slice(b"\"\"");
            return Progress::Done;
        }
        write_literal_header(out, left, self.is_binary());
        self.read = 0;
        let maker = Maker::new(&self.recipe);
        self.phase = Phase::Emit { maker, skip, left };
        self.ask(self.extent.length)
    }

    fn emit(&mut self, out: &mut Vec<u8>, bytes: &[u8], mut maker: Maker, skip: u64, left: u64) -> Progress {
        if bytes.is_empty() {
            return Progress::Lost;
        }
        let mut made = Vec::new();
        maker.feed(bytes, &mut made);
        let rest = self.extent.length - self.read.min(self.extent.length);
        if rest == 0 {
            maker.finish(&mut made);
        }
        let skipped = skip.min(made.len() as u64);
        let made = made.get(index(skipped)..).unwrap_or_default();
        let made = made.get(..index(left)).unwrap_or(made);
        out.extend_from_slice(made);
        let left = left - made.len() as u64;
        if left == 0 {
            return Progress::Done;
        }
        if rest == 0 {
            return Progress::Lost;
        }
        self.phase = Phase::Emit { maker, skip: skip - skipped, left };
        self.ask(rest)
    }

    fn ask(&self, left: u64) -> Progress {
        let max = index(left).min(BODY_CHUNK);
        Progress::Ask(Request::Body { blob: self.blob, offset: self.extent.offset + self.read, max })
    }

    fn missing(&self, out: &mut Vec<u8>) -> Progress {
        out.extend_from_slice(nothing(&self.recipe));
        Progress::Done
    }

    /// Decoded bytes may hold NUL, which only a literal8 may (RFC 9051 section 4.3.1).
    fn is_binary(&self) -> bool {
        matches!(self.recipe, Recipe::Decoded(_))
    }
}

/// The bytes of HEADER.FIELDS, where the structure tells them and the message need not be read.
fn spelled(item: &SectionItem, structure: Option<&Structure>) -> Option<Vec<u8>> {
    let SectionKind::HeaderFields(names, false) = &item.kind else { return None };
    let mut fields = Vec::new();
    structure.filter(|_| item.path.is_empty())?.spell(Wanted::of(names)?, &mut fields)?;
    Some(fields)
}

/// Writes as much of a section as a partial FETCH sends.
fn write_part(out: &mut Vec<u8>, made: &[u8], partial: Option<(u32, u32)>, binary: bool) {
    let (skip, left) = clip(made.len() as u64, partial);
    if left == 0 {
        out.extend_from_slice(b"\"\"");
        return;
    }
    write_literal_header(out, left, binary);
    let (skip, left) = (index(skip), index(left));
    out.extend_from_slice(made.get(skip..skip + left).unwrap_or_default());
}

/// Writes a preview: UTF-8 in a literal (RFC 8970 section 4).
fn write_preview(out: &mut Vec<u8>, text: &str) {
    write_string(out, text.as_bytes());
}

/// What stands for a section that is not there; a number can't be NIL (RFC 3516 section 7).
fn nothing(recipe: &Recipe) -> &'static [u8] {
    if matches!(recipe, Recipe::DecodedSize(_)) { b"0" } else { b"NIL" }
}

/// A length or offset within memory.
fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// How many bytes of `length` a partial FETCH skips, and how many it sends.
fn clip(length: u64, partial: Option<(u32, u32)>) -> (u64, u64) {
    let (origin, count) = partial.map_or((0, u64::MAX), |(origin, count)| (u64::from(origin), u64::from(count)));
    let skip = origin.min(length);
    (skip, count.min(length - skip))
}

/// Where a section lies; the whole message needs no structure.
fn locate(row: &Message, structure: Option<&Structure>, path: &[u32], section: structure::Section) -> Option<Extent> {
    if path.is_empty() && section == structure::Section::Body {
        return Some(Extent { offset: 0, length: u64::from(row.size) });
    }
    structure?.extent(path, section)
}

/// Writes `BODY[1.2.HEADER]<0>` and the like, with the space behind it (RFC 9051 section 7.5.2).
fn write_name(out: &mut Vec<u8>, item: &SectionItem) {
    out.extend_from_slice(match item.kind {
        SectionKind::Binary => b"BINARY[".as_slice(),
        SectionKind::BinarySize => b"BINARY.SIZE[",
        _ => b"BODY[",
    });
    for (index, part) in item.path.iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        write_number(out, u64::from(*part));
    }
    let text: &[u8] = match &item.kind {
        SectionKind::Body | SectionKind::Binary | SectionKind::BinarySize => b"",
        SectionKind::Mime => b"MIME",
        SectionKind::Header => b"HEADER",
        SectionKind::HeaderFields(_, false) => b"HEADER.FIELDS",
        SectionKind::HeaderFields(_, true) => b"HEADER.FIELDS.NOT",
        SectionKind::Text => b"TEXT",
    };
    if !text.is_empty() && !item.path.is_empty() {
        out.push(b'.');
    }
    out.extend_from_slice(text);
    if let SectionKind::HeaderFields(names, _) = &item.kind {
        out.extend_from_slice(b" (");
        for (index, name) in names.iter().enumerate() {
            if index > 0 {
                out.push(b' ');
            }
            write_astring(out, name.as_bytes());
        }
        out.push(b')');
    }
    out.push(b']');
    if let Some((origin, _)) = item.partial.filter(|_| item.kind != SectionKind::BinarySize) {
        out.push(b'<');
        write_number(out, u64::from(origin));
        out.push(b'>');
    }
    out.push(b' ');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::date::{Timestamp, ZonedTime};
    use crate::mail::mailbox::{ModSeq, Uid};
    use crate::mail::message::Flags;
    use crate::mail::structure::Walker;

    /// What FETCH writes of one section of `text`, of which only the first `there` bytes are there.
    fn fetch(
        text: &[u8],
        there: usize,
        kind: SectionKind,
        path: &[u32],
        partial: Option<(u32, u32)>,
    ) -> (String, Progress) {
        let mut walker = Walker::new();
        walker.feed(text);
        let structure = walker.finish();
        let row = Message {
            uid: Uid::MIN,
            flags: Flags::default(),
            modseq: ModSeq(1),
            internal_date: ZonedTime::default(),
            saved: Timestamp(0),
            size: u32::try_from(text.len()).unwrap(),
            blob: BlobId(1),
        };
        let item = SectionItem { peek: true, kind, path: path.to_vec(), partial };
        let mut out = Vec::new();
        let Some(mut section) = Section::begin(&mut out, &item, &row, Some(&structure)) else {
            return (String::from_utf8(out).unwrap(), Progress::Done);
        };
        let mut bytes: &[u8] = &[];
        let end = loop {
            match section.go(&mut out, bytes) {
                Progress::Ask(Request::Body { offset, max, .. }) => {
                    assert!(max <= BODY_CHUNK);
                    let from = usize::try_from(offset).unwrap().min(there);
                    bytes = &text[from..there.min(from + max)];
                }
                end => break end,
            }
        };
        (String::from_utf8(out).unwrap(), end)
    }

    fn fields(name: &str) -> SectionKind {
        SectionKind::HeaderFields(vec![name.to_owned()], false)
    }

    #[test]
    fn a_header_longer_than_memory_allows_is_made_twice() {
        let long = format!("X: {}\r\n", "y".repeat(90)).repeat(2000);
        let text = format!("Subject: one\r\n{long}\r\nbody");
        let (out, end) = fetch(text.as_bytes(), text.len(), fields("x"), &[], None);
        assert!(matches!(end, Progress::Done));
        let wanted = format!("BODY[HEADER.FIELDS (x)] {{{}}}\r\n{long}\r\n", long.len() + 2);
        assert!(out == wanted);
        let (out, _) = fetch(text.as_bytes(), text.len(), fields("x"), &[], Some((95 * 1000, 3)));
        assert_eq!(out, "BODY[HEADER.FIELDS (x)]<95000> {3}\r\nX: ");
        let (out, _) = fetch(text.as_bytes(), text.len(), fields("x"), &[], Some((1_000_000, 3)));
        assert_eq!(out, "BODY[HEADER.FIELDS (x)]<1000000> \"\"");
    }

    #[test]
    fn a_decoded_part_longer_than_memory_allows_is_whole() {
        let text = format!("Content-Transfer-Encoding: base64\r\n\r\n{}", "YWJj\r\n".repeat(30_000));
        let decoded = "abc".repeat(30_000);
        let (out, _) = fetch(text.as_bytes(), text.len(), SectionKind::Binary, &[1], None);
        assert!(out == format!("BINARY[1] ~{{90000}}\r\n{decoded}"));
        let (out, _) = fetch(text.as_bytes(), text.len(), SectionKind::Binary, &[1], Some((89_999, 7)));
        assert_eq!(out, "BINARY[1]<89999> ~{1}\r\nc");
        let (out, _) = fetch(text.as_bytes(), text.len(), SectionKind::BinarySize, &[1], None);
        assert_eq!(out, "BINARY.SIZE[1] 90000");
    }

    #[test]
    fn a_body_that_is_gone_is_nil_before_its_length_is_promised() {
        let text = b"Subject: one\r\n\r\nbody";
        for kind in [SectionKind::Body, SectionKind::Header, fields("received")] {
            let (out, end) = fetch(text, 0, kind, &[], None);
            assert!(matches!(end, Progress::Done));
            assert!(out.ends_with(" NIL"), "{out}");
        }
    }

    #[test]
    fn fields_that_the_structure_tells_are_sent_without_the_body() {
        let text = b"Received: x\r\nSUBJECT: one\r\n two\r\n\r\nbody";
        assert_eq!(
            fetch(text, 0, fields("subject"), &[], None).0,
            "BODY[HEADER.FIELDS (subject)] {22}\r\nSUBJECT: one\r\n two\r\n\r\n"
        );
        assert_eq!(
            fetch(text, 0, fields("subject"), &[], Some((9, 3))).0,
            "BODY[HEADER.FIELDS (subject)]<9> {3}\r\none"
        );
        assert_eq!(fetch(text, 0, fields("subject"), &[], Some((99, 3))).0, "BODY[HEADER.FIELDS (subject)]<99> \"\"");
    }

    #[test]
    fn a_body_that_ends_early_ends_the_connection() {
        let text = vec![b'x'; 3 * BODY_CHUNK];
        let (out, end) = fetch(&text, 2 * BODY_CHUNK, SectionKind::Body, &[], None);
        assert!(matches!(end, Progress::Lost));
        assert!(out.starts_with("BODY[] {49152}\r\n"));
    }

    #[test]
    fn a_part_that_breaks_its_encoding_has_no_binary() {
        let text = b"Content-Transfer-Encoding: x-odd\r\n\r\ntext";
        let (out, end) = fetch(text, text.len(), SectionKind::Binary, &[1], None);
        assert_eq!((out.as_str(), matches!(end, Progress::Undecodable)), ("BINARY[1] NIL", true));
        let (out, _) = fetch(text, text.len(), SectionKind::BinarySize, &[1], None);
        assert_eq!(out, "BINARY.SIZE[1] 0");
    }

    #[test]
    fn an_empty_section_is_an_empty_string() {
        let text = b"Subject: one\r\n\r\n";
        assert_eq!(fetch(text, text.len(), SectionKind::Text, &[], None).0, "BODY[TEXT] \"\"");
        assert_eq!(fetch(text, text.len(), SectionKind::Binary, &[1], None).0, "BINARY[1] \"\"");
        assert_eq!(fetch(text, text.len(), SectionKind::Mime, &[7], None).0, "BODY[7.MIME] NIL");
    }
}
