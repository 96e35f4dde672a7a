//! A part of a message, as its record tells it.

use super::content::{self, ContentDisposition, Parameter};
use super::field::Field;
use super::scan;
use super::{Extent, Node, Shape, Structure, TransferEncoding};

/// A part of a message, or a message: the one that was walked, or one in a part of another.
#[derive(Clone, Copy, Debug)]
pub struct Part<'s> {
    structure: &'s Structure,
    index: usize,
    node: &'s Node,
}

/// Where a part's text is and how to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextPart {
    /// The part's body in the message.
    pub extent: Extent,
    /// How it is coded for transfer.
    pub encoding: TransferEncoding,
    /// The charset its sender names.
    pub charset: Option<String>,
    /// It is `text/html`.
    pub html: bool,
}

impl<'s> Part<'s> {
    pub(super) fn at(structure: &'s Structure, index: usize) -> Option<Self> {
        structure.nodes.get(index).map(|node| Self { structure, index, node })
    }

    /// The part's header with its empty line.
    pub fn header(self) -> Extent {
        Extent { offset: u64::from(self.node.offset), length: u64::from(self.node.header) }
    }

    /// The part's body as it stands in the message.
    pub fn body(self) -> Extent {
        Extent { offset: self.header().offset + self.header().length, length: u64::from(self.node.body) }
    }

    /// Header and body.
    pub fn whole(self) -> Extent {
        Extent { offset: self.header().offset, length: self.header().length + self.body().length }
    }

    /// Newlines in the body: one that belongs to the boundary after it is not counted.
    pub fn lines(self) -> u32 {
        self.node.lines
    }

    /// Tells whether there are parts below this one.
    pub fn is_multipart(self) -> bool {
        self.node.shape == Shape::Multipart
    }

    /// The parts of a multipart, in order; of any other part, none.
    pub fn children(self) -> impl Iterator<Item = Part<'s>> {
        let parts = self.is_multipart();
        self.below_here().filter(move |_| parts)
    }

    /// The message that this part holds.
    pub fn message(self) -> Option<Part<'s>> {
        (self.node.shape == Shape::Message).then(|| self.below_here().next()).flatten()
    }

    /// The part with this number in a message (RFC 9051 section 6.4.5.1).
    pub(super) fn numbered(self, number: u32) -> Option<Part<'s>> {
        if self.is_multipart() { self.below(number) } else { (number == 1).then_some(self) }
    }

    /// The part with this number below this part.
    pub(super) fn below(self, number: u32) -> Option<Part<'s>> {
        match self.node.shape {
            Shape::Leaf => None,
            Shape::Multipart => self.children().nth(usize::try_from(number.checked_sub(1)?).ok()?),
            Shape::Message => self.message()?.numbered(number),
        }
    }

    /// Type and subtype as the sender spelled them, or what stands for them:
    ///
    /// - no valid type is `text/plain` (RFC 2045 section 5.2), in a digest `message/rfc822`;
    /// - a multipart in which no part was found is `text/plain`, so that its reader sees what there is;
    /// - a message in a part that was not taken apart (it is encoded, or too deep) is
    ///   `application/octet-stream`, because IMAP promises an envelope of every `message/rfc822`.
    pub fn media(self) -> (&'s str, &'s str) {
        let declared = self.declared();
        let kind = |name| declared.filter(|(kind, _, _)| kind.eq_ignore_ascii_case(name));
        let media = match self.node.shape {
            Shape::Multipart => return kind("multipart").map_or(("multipart", "mixed"), |(a, b, _)| (a, b)),
            Shape::Message => return kind("message").map_or(("message", "rfc822"), |(a, b, _)| (a, b)),
            Shape::Leaf => declared.map(|(kind, subtype, _)| (kind, subtype)),
        };
        match media {
            Some((kind, subtype)) if is_message(kind, subtype) => ("application", "octet-stream"),
            Some((kind, subtype)) if !kind.eq_ignore_ascii_case("multipart") => (kind, subtype),
            _ => ("text", "plain"),
        }
    }

    /// Tells whether the type is `text`.
    pub fn is_text(self) -> bool {
        self.media().0.eq_ignore_ascii_case("text")
    }

    /// Parameters of the type; `charset=us-ascii` where `text/plain` stands for another type.
    pub fn parameters(self) -> Vec<Parameter> {
        let declared = self.declared().filter(|(kind, subtype, _)| self.media() == (*kind, *subtype));
        match declared {
            Some((_, _, rest)) => content::parameters(rest),
            None if self.is_text() => {
                vec![Parameter { name: "charset".to_owned(), value: "us-ascii".to_owned() }]
            }
            None => Vec::new(),
        }
    }

    /// How the body is coded. What holds parts or a message is not (RFC 2045 section 6.4).
    pub fn encoding(self) -> TransferEncoding {
        TransferEncoding::parse(self.encoding_token().unwrap_or_default())
    }

    /// The word for [`Part::encoding`] as the sender spelled it, `7bit` where there is none.
    pub fn encoding_name(self) -> &'s str {
        self.encoding_token().unwrap_or("7bit")
    }

    /// Content-Disposition, if it says something (RFC 2183).
    pub fn disposition(self) -> Option<ContentDisposition> {
        content::disposition(self.field(Field::ContentDisposition)?)
    }

    /// Content-Language: its tags (RFC 3282).
    pub fn languages(self) -> Vec<&'s str> {
        let tags = self.field(Field::ContentLanguage).unwrap_or_default().split(',');
        tags.map(|tag| scan::token(scan::skip_comments(tag)).0).filter(|tag| !tag.is_empty()).collect()
    }

    /// A field of the part's header: unfolded, in UTF-8, encoded words as they are. Fields that only
    /// messages have ([`Field::Date`] to [`Field::References`]) are kept of messages only.
    pub fn field(self, field: Field) -> Option<&'s str> {
        self.line(field.letter())
    }

    /// Several fields, each as [`Part::field`] gives it, at the price of one.
    pub fn fields<const N: usize>(self, fields: [Field; N]) -> [Option<&'s str>; N] {
        self.behind(fields.map(Field::letter))
    }

    /// The line of the record that `letter` begins, without it.
    pub(super) fn line(self, letter: u8) -> Option<&'s str> {
        let [line] = self.behind([letter]);
        line
    }

    /// What stands in the record behind each letter, the first where it stands there twice.
    fn behind<const N: usize>(self, letters: [u8; N]) -> [Option<&'s str>; N] {
        let mut found = [None; N];
        let mut missing = N;
        let mut rest = self.own_text();
        while missing > 0 && !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest.as_bytes()).unwrap_or(rest.len());
            let (line, behind) = rest.split_at(end);
            let place = letters.iter().position(|letter| line.as_bytes().first() == Some(letter));
            if let Some(first) = place.and_then(|place| found.get_mut(place)).filter(|known| known.is_none()) {
                *first = line.get(1..);
                missing -= 1;
            }
            rest = behind.get(1..).unwrap_or_default();
        }
        found
    }

    /// The part as text to search in, when it is a leaf that holds some.
    pub(super) fn text(self) -> Option<TextPart> {
        let (kind, subtype) = self.media();
        let readable = self.is_text() || kind.eq_ignore_ascii_case("message");
        (self.node.shape == Shape::Leaf && readable).then(|| TextPart {
            extent: self.body(),
            encoding: self.encoding(),
            charset: content::find(&self.parameters(), "charset").map(str::to_owned),
            html: subtype.eq_ignore_ascii_case("html"),
        })
    }

    /// What Content-Type says: type, subtype and what follows them.
    fn declared(self) -> Option<(&'s str, &'s str, &'s str)> {
        content::media(self.field(Field::ContentType)?)
    }

    fn encoding_token(self) -> Option<&'s str> {
        let token = content::encoding_token(self.field(Field::ContentTransferEncoding)?);
        let coded = TransferEncoding::parse(token) != TransferEncoding::Identity;
        let composite = || self.declared().is_some_and(|(kind, _, _)| kind.eq_ignore_ascii_case("multipart"));
        (!token.is_empty() && !(coded && (self.node.shape != Shape::Leaf || composite()))).then_some(token)
    }

    /// The part's lines in the record: a letter, and what it stands for.
    fn own_text(self) -> &'s str {
        let before = self.index.checked_sub(1).and_then(|index| self.structure.nodes.get(index));
        let start = before.map_or(0, |node| usize::from(node.text_end));
        self.structure.text.get(start..usize::from(self.node.text_end)).unwrap_or_default()
    }

    /// The nodes one level deeper that belong to this one.
    fn below_here(self) -> impl Iterator<Item = Part<'s>> {
        let depth = self.node.depth;
        let after = (self.index + 1..).map_while(move |index| Part::at(self.structure, index));
        after
            .take_while(move |part| part.node.depth > depth)
            .filter(move |part| part.node.depth.checked_sub(1) == Some(depth))
    }
}

/// Tells whether a part of this type holds a message (RFC 2046 section 5.2.1, RFC 6532 section 3.7).
pub(super) fn is_message(kind: &str, subtype: &str) -> bool {
    kind.eq_ignore_ascii_case("message")
        && (subtype.eq_ignore_ascii_case("rfc822") || subtype.eq_ignore_ascii_case("global"))
}
