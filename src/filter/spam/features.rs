//! What a message shows, as hashes.

use std::collections::HashMap;

use crate::mail::structure::{Part, Structure, Walker};
use crate::mail::text::{CharsetDecoder, TransferDecoder};

use super::signs::Signs;
use super::{fields, html, text};

/// Bytes of a message that are looked at: its header and the beginning of its body. A message costs
/// no more than this, whatever comes after it.
pub const WINDOW_MAX: usize = 64 << 10;

/// Most features of a message. Real mail stays under 2,500.
pub const FEATURES_MAX: usize = 6000;

/// Most parts whose kind is a feature.
pub(super) const PARTS_MAX: usize = 50;

/// What a feature is about; part of its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About<'a> {
    /// A word of the text.
    Word,
    /// A run of letters of the text.
    Letters,
    /// A word of the subject.
    SubjectWord,
    /// A run of letters of the subject.
    SubjectLetters,
    /// A word in the field of this name.
    Field(&'a str),
    /// The look of the field of this name: letters for letters, digits for digits.
    Shape(&'a str),
    /// That there is such a field, or two in this order.
    Fields,
    /// An element or attribute of HTML.
    Html,
    /// Where a link leads.
    Link,
    /// The kind of a part.
    Kind,
    /// A trick.
    Trick,
    /// A sign of the whole message.
    Sign,
}

impl About<'_> {
    /// Where its hashes begin.
    fn seed(self) -> u32 {
        match self {
            Self::Word => 1,
            Self::Letters => 2,
            Self::SubjectWord => 3,
            Self::SubjectLetters => 4,
            Self::Fields => 5,
            Self::Html => 6,
            Self::Link => 7,
            Self::Kind => 8,
            Self::Trick => 9,
            Self::Sign => 12,
            Self::Field(name) => crc32c::crc32c_append(10, name.as_bytes()),
            Self::Shape(name) => crc32c::crc32c_append(11, name.as_bytes()),
        }
    }

    /// How much it says to a person, from 0; runs of letters say nothing.
    fn rank(self) -> Option<u8> {
        match self {
            Self::Word | Self::SubjectWord | Self::Link | Self::Trick => Some(0),
            Self::Sign | Self::Html | Self::Kind => Some(1),
            Self::Field(_) | Self::Fields => Some(2),
            Self::Letters | Self::SubjectLetters | Self::Shape(_) => None,
        }
    }

    /// It can mean the same in anyone's mail.
    fn is_general(self) -> bool {
        !matches!(self, Self::Field(_) | Self::Shape(_) | Self::Fields | Self::Link | Self::Kind)
    }

    /// Says it to a person.
    fn said(self, what: &str) -> String {
        match self {
            Self::Word => format!("\"{what}\""),
            Self::Letters => format!("\"{what}\" in the text"),
            Self::SubjectWord => format!("\"{what}\" in the subject"),
            Self::SubjectLetters => format!("\"{what}\" in the subject's letters"),
            Self::Field(name) => format!("\"{what}\" in {name}"),
            Self::Shape(name) => format!("the form of {name} ({what})"),
            Self::Fields => format!("the fields {what}"),
            Self::Html => format!("HTML {what}"),
            Self::Link => format!("a link to {what}"),
            Self::Kind => format!("a part {what}"),
            Self::Trick | Self::Sign => what.to_owned(),
        }
    }
}

/// What a message shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// Ascending, without doubles.
    hashes: Vec<u32>,
}

/// What the features of a message say, by hash.
pub type Words = HashMap<u32, Saying>;

/// What a feature says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saying {
    /// How much it says to a person: 0 most.
    pub rank: u8,
    /// In words.
    pub what: String,
}

impl Features {
    /// Reads them out of a message, of which `head` is the beginning: all of it, or its first
    /// [`WINDOW_MAX`] bytes at least.
    #[must_use]
    pub fn of(head: &[u8]) -> Self {
        Collector::default().read(head).0
    }

    /// As [`Features::of`], but only those that can mean the same in anyone's mail: the text, the subject,
    /// HTML, tricks and signs of the whole message; none of the words, looks and order of the other
    /// fields, and no hosts. What ships with the filter is learnt of these.
    #[must_use]
    pub fn general(head: &[u8]) -> Self {
        Collector { general: true, ..Collector::default() }.read(head).0
    }

    /// As [`Features::of`], with what they say.
    #[cfg(test)]
    pub(super) fn with_words(head: &[u8]) -> (Self, Words) {
        let (features, words) = Collector { words: Some(Words::new()), ..Collector::default() }.read(head);
        (features, words.unwrap_or_default())
    }

    /// What some features of a message say, of those that say something to a person; the message is
    /// read again.
    #[must_use]
    pub fn words_of(head: &[u8], hashes: &[u32]) -> Words {
        let wanted = Some(hashes.iter().copied().collect());
        Collector { words: Some(Words::new()), wanted, ..Collector::default() }.read(head).1.unwrap_or_default()
    }

    /// The hashes, ascending.
    #[must_use]
    pub fn hashes(&self) -> &[u32] {
        &self.hashes
    }

    /// A number that tells this message from others: the same for each copy of it.
    #[must_use]
    pub fn id(&self) -> u64 {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        self.hashes.iter().for_each(|hash| digest.update(&hash.to_le_bytes()));
        digest.finish().as_ref().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

/// Gathers features.
#[derive(Debug, Default)]
pub(super) struct Collector {
    hashes: Vec<u32>,
    words: Option<Words>,
    /// Of which alone the words are wanted.
    wanted: Option<std::collections::HashSet<u32>>,
    /// Leave out what holds for one mailbox alone.
    general: bool,
}

impl Collector {
    /// Adds one.
    pub(super) fn add(&mut self, about: About<'_>, what: &str) {
        if self.hashes.len() >= 2 * FEATURES_MAX {
            return;
        }
        if self.general && !about.is_general() {
            return;
        }
        let hash = spread(crc32c::crc32c_append(about.seed(), what.as_bytes()));
        self.hashes.push(hash);
        if let Some(words) = &mut self.words
            && self.wanted.as_ref().is_none_or(|wanted| about.rank().is_some() && wanted.contains(&hash))
        {
            words
                .entry(hash)
                .or_insert_with(|| Saying { rank: about.rank().unwrap_or(u8::MAX), what: about.said(what) });
        }
    }

    fn read(mut self, head: &[u8]) -> (Features, Option<Words>) {
        let head = head.get(..WINDOW_MAX).unwrap_or(head);
        let mut walker = Walker::new();
        walker.feed(head);
        let structure = walker.finish();
        let mut signs = Signs::default();
        fields::read(header(&structure, head), &mut signs, &mut self);
        for part in structure.parts().take(PARTS_MAX) {
            self.part(part);
        }
        let mut left = WINDOW_MAX;
        for part in structure.parts().filter(|part| part.is_text()) {
            let decoded = decode(part, head, left);
            left -= decoded.len().min(left);
            self.body(part, &decoded, &mut signs);
        }
        signs.tell(&structure, &mut self);
        let mut hashes = self.hashes;
        if hashes.len() > FEATURES_MAX {
            // Those that came first count: the header, and what a reader sees first.
            let mut seen = std::collections::HashSet::new();
            hashes.retain(|hash| seen.insert(*hash));
            hashes.truncate(FEATURES_MAX);
        }
        hashes.sort_unstable();
        hashes.dedup();
        (Features { hashes }, self.words)
    }

    fn part(&mut self, part: Part<'_>) {
        let (kind, of) = part.media();
        self.add(About::Kind, &format!("of type {kind}/{of}").to_lowercase());
        self.add(About::Kind, &format!("coded {}", part.encoding_name()).to_lowercase());
        let disposition = part.disposition().map(|disposition| disposition.parameters).unwrap_or_default();
        for parameter in part.parameters().into_iter().chain(disposition) {
            match parameter.name.to_ascii_lowercase().as_str() {
                "charset" => self.add(About::Kind, &format!("in {}", parameter.value).to_lowercase()),
                "name" | "filename" => {
                    let ending = parameter.value.rsplit_once('.').map_or("no ending", |(_, ending)| ending);
                    self.add(About::Kind, &format!("named *.{ending}").to_lowercase());
                }
                _ => {}
            }
        }
    }

    fn body(&mut self, part: Part<'_>, decoded: &str, signs: &mut Signs) {
        let is_html = part.media().1.eq_ignore_ascii_case("html") || html::looks_like(decoded);
        if is_html {
            let plain = html::read(decoded, self);
            signs.text(&plain, decoded.len());
            signs.links(decoded.matches("://").count());
            text::read(&plain, text::Where::Body, self);
        } else {
            signs.text(decoded, 0);
            text::read(decoded, text::Where::Body, self);
        }
        text::links(decoded, self);
    }
}

/// Makes each bit of a hash depend on all of a checksum's: a table takes the upper ones.
fn spread(checksum: u32) -> u32 {
    let mixed = checksum.wrapping_mul(0x9E37_79B1);
    (mixed ^ mixed >> 15).wrapping_mul(0x85EB_CA6B)
}

/// The header of the message itself.
fn header<'h>(structure: &Structure, head: &'h [u8]) -> &'h [u8] {
    let Some(message) = structure.parts().next() else { return head };
    let end = usize::try_from(message.header().length).unwrap_or(usize::MAX);
    head.get(..end).unwrap_or(head)
}

/// A part's text, of which at most `left` bytes.
fn decode(part: Part<'_>, head: &[u8], left: usize) -> String {
    let at = |place: u64| usize::try_from(place).map_or(head.len(), |place| place.min(head.len()));
    let body = part.body();
    let coded = head.get(at(body.offset)..at(body.offset + body.length)).unwrap_or_default();
    let (mut decoder, mut bytes) = (TransferDecoder::new(part.encoding()), Vec::new());
    decoder.decode(coded, &mut bytes);
    decoder.finish(&mut bytes);
    bytes.truncate(left);
    let parameters = part.parameters();
    let charset = parameters.iter().find(|parameter| parameter.name.eq_ignore_ascii_case("charset"));
    CharsetDecoder::decode_all(charset.map(|charset| charset.value.as_str()), &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(message: &str) -> Vec<String> {
        let (_, words) = Features::with_words(message.as_bytes());
        words.into_values().map(|saying| saying.what).collect()
    }

    #[test]
    fn a_message_shows_its_words_fields_links_and_parts() {
        let said = said(concat!(
            "From: Ann <ann@example.org>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n",
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n",
            "--b\r\nContent-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n",
            "<p>caf=E9 <b>now</b> <a href=3D\"http://shop.example.net/x\">here</a></p>\r\n",
            "--b\r\nContent-Type: application/zip; name=\"bill.PDF.zip\"\r\nContent-Transfer-Encoding: base64\r\n\r\nUEs=\r\n--b--\r\n"
        ));
        for there in [
            "\"ann\" in from",
            "\"grüße\" in the subject",
            "\"café\"",
            "\"now\"",
            "a link to shop.example.net",
            "a link to example.net",
            "a part named *.zip",
            "a part of type application/zip",
            "HTML <b>",
        ] {
            assert!(said.iter().any(|said| said == there), "{there} is missing in {said:?}");
        }
    }

    #[test]
    fn words_do_not_change_what_is_found() {
        let message = b"Subject: one\r\n\r\ntwo three\r\n";
        assert_eq!(Features::of(message), Features::with_words(message).0);
    }

    #[test]
    fn copies_have_one_number_and_others_another() {
        let id = |message: &[u8]| Features::of(message).id();
        assert_eq!(id(b"Subject: one\r\n\r\ntwo\r\n"), id(b"Subject: one\r\n\r\ntwo\r\n"));
        assert_ne!(id(b"Subject: one\r\n\r\ntwo\r\n"), id(b"Subject: one\r\n\r\nthree\r\n"));
        // What we write on delivery is no part of it.
        assert_eq!(
            id(b"Return-Path: <a@b.c>\r\nX-Spam-Status: No\r\nSubject: one\r\n\r\ntwo\r\n"),
            id(b"Subject: one\r\n\r\ntwo\r\n")
        );
    }

    /// Reads a message made to cost much; it has no more than the most features, and what lies behind
    /// the window is not looked at.
    fn bounded(message: &[u8]) {
        let features = Features::of(message);
        assert!(features.hashes().len() <= FEATURES_MAX);
        assert_eq!(features, Features::of(message.get(..WINDOW_MAX).unwrap_or(message)));
        assert!(features.hashes().len() > 5);
    }

    #[test]
    fn a_million_words_are_bounded() {
        let mut many = b"Subject: x\r\n\r\n".to_vec();
        (0..1_000_000).for_each(|number: u32| many.extend_from_slice(format!("w{number} ").as_bytes()));
        bounded(&many);
    }

    #[test]
    fn fifty_megabytes_of_html_are_bounded() {
        let begin = b"Subject: x\r\nContent-Type: text/html\r\n\r\n".to_vec();
        bounded(&[begin.clone(), b"<div style='display:none'>".repeat(2_000_000)].concat());
        bounded(&[begin.clone(), b"<".repeat(100_000)].concat());
        bounded(&[begin.clone(), b"&".repeat(100_000)].concat());
        bounded(&[begin.clone(), b"<!--".repeat(50_000)].concat());
        bounded(&[begin, b"<a b".repeat(50_000)].concat());
    }

    #[test]
    fn nested_and_countless_parts_are_bounded() {
        let mut nested = Vec::new();
        for depth in 0..20_000 {
            let begins = format!("Content-Type: multipart/mixed; boundary=b{depth}\r\n\r\n--b{depth}\r\n");
            nested.extend_from_slice(begins.as_bytes());
        }
        bounded(&nested);
        let mut flat = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n".to_vec();
        flat.extend_from_slice(&b"--b\r\nContent-Type: text/x; name=a.b\r\n\r\nword\r\n".repeat(100_000));
        bounded(&flat);
    }

    #[test]
    fn stuffed_headers_and_one_endless_word_are_bounded() {
        bounded(&[b"X: y z\r\n".repeat(100_000), b"\r\n".to_vec()].concat());
        bounded(&[b"Received: from a (b [192.0.2.1])\r\n by c\r\n".repeat(50_000), b"\r\n".to_vec()].concat());
        bounded(&[b"From: a@b.example\r\nSubject: ".to_vec(), b"a".repeat(2_000_000), b"\r\n\r\n".to_vec()].concat());
        bounded(&[b"From: a@b.example\r\n\r\n".to_vec(), b"a".repeat(2_000_000)].concat());
        bounded(&[b"From: a@b.example\r\n\r\n".to_vec(), b"http://a.".repeat(200_000)].concat());
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let features = Features::of(&bytes);
            prop_assert!(features.hashes().is_sorted_by(|one, other| one < other));
        }

        #[test]
        fn nothing_html_breaks_it(text in "(<[a-z!/-]{0,6}|style=|display:none|&[a-z#0-9]{0,5};?|>|[ a-zé\u{200B}]{0,5}){0,60}") {
            drop(Features::with_words(format!("Content-Type: text/html\r\n\r\n{text}").as_bytes()));
        }
    }
}
