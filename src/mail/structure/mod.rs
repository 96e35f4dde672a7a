//! The part walker: where everything is in a message (RFC 2045, RFC 2046, RFC 9051 section 7.5.2).
//!
//! [`Walker`] reads a message once while it streams by and leaves a [`Structure`]: every part's
//! place, size and lines, and of its header the few fields that ENVELOPE, BODYSTRUCTURE and SEARCH
//! want, unfolded and otherwise as they were written. The record is kept with the message; it is a
//! few hundred bytes for common mail and at most [`RECORD_MAX`] for any. What the fields mean
//! (addresses, parameters) is read from them when it is asked for, through [`Part`].
//!
//! Mail is taken as it comes: what breaks the rules is read as the neighbouring programs read it,
//! and past a bound the rest of the message counts as body of the last part taken.

use serde::{Deserialize, Serialize};

mod address;
mod content;
mod field;
mod gather;
mod layout;
mod part;
mod scan;
mod walker;

pub use address::{ADDRESSES_MAX, MailAddress, addresses};
pub use content::{ContentDisposition, PARAMETERS_MAX, Parameter};
pub use field::Field;
pub use layout::Wanted;
pub use part::{Part, TextPart};
pub use walker::Walker;

/// Deepest nesting of parts and messages in messages; what is deeper is body. Real mail stays under
/// ten; whoever reads the tree may then recurse.
pub const DEPTH_MAX: usize = 32;

/// Most parts of a message. Real mail stays under a hundred; with this many the table of parts takes
/// at most 25,000 bytes of the record.
pub const PARTS_MAX: usize = 1000;

/// Most bytes of header fields kept of a message, all its parts together.
pub const TEXT_MAX: usize = 40_000;

// `Node::text_end` reaches to its end.
const _: () = assert!(TEXT_MAX <= u16::MAX as usize && RECORD_MAX <= 64 * 1024);

/// Bytes of [`TEXT_MAX`] set aside for media types and transfer encodings alone, so that a message
/// with long fields in many parts still shows what each part is.
const TEXT_RESERVE: usize = 14_000;

/// Most bytes a part takes of the reserve; a part that might not get them is not taken.
const ESSENTIALS_MAX: usize = 100;

/// Most bytes of a header in which fields are looked for; its end is found wherever it is. The
/// trace fields of a long journey take a few KiB.
pub const HEADER_MAX: u32 = 64 * 1024;

/// Longest boundary in bytes; RFC 2046 section 5.1.1 allows 70, some senders take more. A multipart
/// with a longer one is not taken apart.
pub const BOUNDARY_MAX: usize = 256;

/// Longest record in bytes, as postcard spells it: 25 bytes a part, the text, and their lengths.
pub const RECORD_MAX: usize = 25 * PARTS_MAX + TEXT_MAX + 8;

/// What the walker keeps of a message.
///
/// Messages are smaller than 4 GiB: the store counts their bytes in 32 bits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Structure {
    /// The message and its parts in preorder.
    nodes: Vec<Node>,
    /// The kept fields of all parts, in their order: a line each, of the field's letter and its
    /// body. A line more may follow the message's own (see `layout`).
    text: String,
    /// Something of the message's own header was left out.
    cut: bool,
}

/// A message or a part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Node {
    /// Zero for the message itself. A part is one deeper than the multipart it stands in, a message
    /// one deeper than the part that holds it.
    depth: u8,
    shape: Shape,
    /// Where the header starts.
    offset: u32,
    /// Bytes of the header with its empty line.
    header: u32,
    /// Bytes of the body, which follows the header.
    body: u32,
    /// Newlines in the body.
    lines: u32,
    /// Where this node's lines in `Structure::text` end.
    text_end: u16,
}

/// What is below a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Shape {
    /// Nothing.
    #[default]
    Leaf,
    /// One part or more.
    Multipart,
    /// A message.
    Message,
}

/// Bytes of a message: where they start and how many they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Offset from the message's first byte.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// What of a part [`Structure::extent`] is asked for (RFC 9051 section 6.4.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// `BODY[path]`: a part's body; the whole message for the empty path.
    Body,
    /// `BODY[path.MIME]`: the part's own header with its empty line.
    Mime,
    /// `BODY[path.HEADER]`: the header of the message (that the part holds), with its empty line.
    Header,
    /// `BODY[path.TEXT]`: the text of the message (that the part holds).
    Text,
}

/// How a part's body is coded for transfer (RFC 2045 section 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferEncoding {
    /// `7bit`, `8bit`, `binary`, or none given.
    #[default]
    Identity,
    /// `base64`
    Base64,
    /// `quoted-printable`
    QuotedPrintable,
    /// A coding nobody knows (FETCH BINARY answers UNKNOWN-CTE).
    Unknown,
}

impl TransferEncoding {
    /// Reads the token of a Content-Transfer-Encoding field.
    pub fn parse(token: &str) -> Self {
        const NAMES: [(&str, TransferEncoding); 7] = [
            ("", TransferEncoding::Identity),
            ("7bit", TransferEncoding::Identity),
            ("8bit", TransferEncoding::Identity),
            ("binary", TransferEncoding::Identity),
            ("base64", TransferEncoding::Base64),
            ("quoted-printable", TransferEncoding::QuotedPrintable),
            // What MIME drafts and some senders call quoted-printable.
            ("quoted_printable", TransferEncoding::QuotedPrintable),
        ];
        let named = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(token));
        named.map_or(Self::Unknown, |(_, encoding)| *encoding)
    }
}

impl Structure {
    /// Where a section is, or `None` when the message has no such part, or the part no such section.
    pub fn extent(&self, path: &[u32], section: Section) -> Option<Extent> {
        if path.is_empty() {
            let message = self.message()?;
            return match section {
                Section::Body => Some(message.whole()),
                Section::Mime => None,
                Section::Header => Some(message.header()),
                Section::Text => Some(message.body()),
            };
        }
        let part = self.part(path)?;
        match section {
            Section::Body => Some(part.body()),
            Section::Mime => Some(part.header()),
            Section::Header => part.message().map(Part::header),
            Section::Text => part.message().map(Part::body),
        }
    }

    /// How the part at `path` is coded, or `None` when there is no such part. The message as a whole
    /// (the empty path) is not coded, nor is a part that holds others.
    pub fn encoding(&self, path: &[u32]) -> Option<TransferEncoding> {
        if path.is_empty() { Some(TransferEncoding::Identity) } else { self.part(path).map(Part::encoding) }
    }

    /// The part at `path` (RFC 9051 section 6.4.5.1), or `None` when there is none or `path` is empty.
    ///
    /// The only part of a message that is no multipart is 1. Numbers below a message that stands in a
    /// part go on from that part's: 4.2 is the second part of the multipart message in part 4.
    pub fn part(&self, path: &[u32]) -> Option<Part<'_>> {
        let (&first, rest) = path.split_first()?;
        rest.iter().try_fold(self.message()?.numbered(first)?, |part, &number| part.below(number))
    }

    /// The message itself. `None` only for a record that no walker made.
    pub fn message(&self) -> Option<Part<'_>> {
        Part::at(self, 0)
    }

    /// The message and everything in it, in preorder.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        (0..self.nodes.len()).filter_map(|index| Part::at(self, index))
    }

    /// The headers of the message, its parts and the messages in it, for SEARCH TEXT.
    pub fn headers(&self) -> impl Iterator<Item = Extent> {
        self.parts().map(Part::header).filter(|header| header.length > 0)
    }

    /// The parts that are text, in order, for SEARCH BODY and TEXT. Reports and other messages that
    /// were not taken apart count too.
    pub fn texts(&self) -> impl Iterator<Item = TextPart> {
        self.parts().filter_map(Part::text)
    }

    /// The text a reader sees first: plain where there is one, else HTML, no attachment (PREVIEW).
    pub fn first_text(&self) -> Option<TextPart> {
        let attached =
            |part: Part<'_>| part.disposition().is_some_and(|how| how.kind.eq_ignore_ascii_case("attachment"));
        let texts = || self.parts().filter(|part| part.is_text() && !attached(*part)).filter_map(Part::text);
        texts().find(|text| !text.html).or_else(|| texts().next())
    }

    /// Bytes of memory it takes.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.nodes.capacity() * size_of::<Node>() + self.text.capacity()
    }

    /// Bytes of the whole message.
    pub fn size(&self) -> u64 {
        self.message().map_or(0, |message| message.whole().length)
    }

    /// A field of the message's own header: unfolded, in UTF-8, encoded words as they are.
    pub fn field(&self, field: Field) -> Option<&str> {
        self.message()?.field(field)
    }

    /// Several fields of the message's own header at the price of one.
    pub fn fields<const N: usize>(&self, fields: [Field; N]) -> [Option<&str>; N] {
        self.message().map_or([None; N], |message| message.fields(fields))
    }

    /// Tells whether [`Structure::field`] has all there was of the fields it keeps. When not (one
    /// was too long or stood there twice), a search reads the header itself.
    pub fn fields_are_whole(&self) -> bool {
        !self.cut
    }
}

#[cfg(test)]
mod tests;
