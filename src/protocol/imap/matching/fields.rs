//! Reads the fields of a header while its bytes go by (RFC 5322 section 2.2).
//!
//! Folded lines are joined and encoded words decoded. Nothing but the present field is held, and of
//! it at most [`PIECE_MAX`] bytes: the body of a longer one comes in several pieces.

use crate::mail::text::{CharsetDecoder, decode_words};

/// Longest name of a field in bytes; what is longer is no field.
const NAME_MAX: usize = 256;

/// Most bytes of a field's body that are decoded at once. An encoded word that is cut in two
/// there stays undecoded; fields of that length are addresses by the hundred.
const PIECE_MAX: usize = 16 * 1024;

/// Who wants the fields.
pub(super) trait FieldTaker {
    /// A field begins, `name` as it is spelled. Tells whether its body is wanted.
    fn begin(&mut self, name: &str) -> bool;
    /// A piece of the field's body.
    fn text(&mut self, text: &str);
    /// The field ends.
    fn end(&mut self);
}

/// Reads one header.
#[derive(Debug)]
pub(super) struct FieldReader {
    state: State,
    /// The name, or what is not decoded yet of the body.
    bytes: Vec<u8>,
    /// Header text is UTF-8 (RFC 6532), or what old programs wrote.
    charset: CharsetDecoder,
    text: String,
    at_line_start: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a field's name.
    Name,
    /// In a body that is wanted.
    Body,
    /// In a body that is not wanted, or a line that is no field.
    Other,
}

impl FieldReader {
    pub(super) fn new() -> Self {
        Self {
            state: State::Other,
            bytes: Vec::new(),
            charset: CharsetDecoder::new(None),
            text: String::new(),
            at_line_start: true,
        }
    }

    /// Takes the next bytes of the header, cut anywhere.
    pub(super) fn feed(&mut self, header: &[u8], taker: &mut impl FieldTaker) {
        for line in header.split_inclusive(|byte| *byte == b'\n') {
            // A line that begins with white space goes on with the field before it.
            if self.at_line_start && !matches!(line.first(), Some(b' ' | b'\t')) {
                self.finish(taker);
                self.state = State::Name;
            }
            self.at_line_start = line.ends_with(b"\n");
            let mut rest = line;
            if self.state == State::Name {
                rest = self.name(line, taker);
            }
            if self.state == State::Body {
                self.bytes.extend(rest.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
                if self.bytes.len() >= PIECE_MAX {
                    self.decode(false, taker);
                }
            }
        }
    }

    /// Ends the header, or the present field.
    pub(super) fn finish(&mut self, taker: &mut impl FieldTaker) {
        if self.state == State::Body {
            self.decode(true, taker);
            taker.end();
        }
        self.bytes.clear();
        self.state = State::Other;
    }

    /// Gathers a name up to its colon and returns what is behind it.
    fn name<'l>(&mut self, line: &'l [u8], taker: &mut impl FieldTaker) -> &'l [u8] {
        let colon = line.iter().position(|byte| *byte == b':');
        let name = line.get(..colon.unwrap_or(line.len())).unwrap_or_default();
        if self.bytes.len() + name.len() > NAME_MAX || name.contains(&b'\n') {
            self.state = State::Other;
            return &[];
        }
        self.bytes.extend_from_slice(name);
        let Some(colon) = colon else { return &[] };
        let wanted = taker.begin(String::from_utf8_lossy(&self.bytes).trim_end());
        self.state = if wanted { State::Body } else { State::Other };
        self.bytes.clear();
        self.charset = CharsetDecoder::new(None);
        line.get(colon + 1..).unwrap_or_default()
    }

    fn decode(&mut self, last: bool, taker: &mut impl FieldTaker) {
        self.charset.decode(&self.bytes, last, &mut self.text);
        if self.text.contains("=?") {
            taker.text(&decode_words(&self.text));
        } else {
            taker.text(&self.text);
        }
        self.text.clear();
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct All(Vec<(String, String, bool)>);

    impl FieldTaker for All {
        fn begin(&mut self, name: &str) -> bool {
            self.0.push((name.to_owned(), String::new(), false));
            name != "skip"
        }

        fn text(&mut self, text: &str) {
            self.0.last_mut().unwrap().1.push_str(text);
        }

        fn end(&mut self) {
            self.0.last_mut().unwrap().2 = true;
        }
    }

    fn read(header: &[u8], size: usize) -> Vec<(String, String)> {
        let (mut reader, mut all) = (FieldReader::new(), All::default());
        for piece in header.chunks(size) {
            reader.feed(piece, &mut all);
        }
        reader.finish(&mut all);
        assert!(all.0.iter().all(|(name, _, ended)| *ended == (name != "skip")));
        all.0.into_iter().map(|(name, text, _)| (name, text)).collect()
    }

    #[test]
    fn fields_come_unfolded_and_decoded() {
        let header = b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?q?_an?=\r\n alle\r\nskip: x\r\n y\r\nTo :\tann\nnonsense\r\n more\r\nX: gr\xfc\xdfe\r\n\r\n";
        let wanted = [("Subject", " Grüße an alle"), ("skip", ""), ("To", "\tann"), ("X", " grüße")];
        let wanted: Vec<_> = wanted.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        for size in 1..40 {
            assert_eq!(read(header, size), wanted, "in pieces of {size}");
        }
    }

    #[test]
    fn a_field_of_any_length_is_read_in_bounds() {
        let (mut reader, mut all) = (FieldReader::new(), All::default());
        reader.feed(b"To:", &mut all);
        for _ in 0..1000 {
            reader.feed(&[b'a'; 1000], &mut all);
            assert!(reader.bytes.capacity() <= 4 * PIECE_MAX);
        }
        reader.finish(&mut all);
        assert_eq!(all.0[0].1.len(), 1_000_000);
        assert!(read(&[b'n'; 2000], 100).is_empty());
    }

    proptest! {
        #[test]
        fn where_the_header_is_cut_makes_no_difference(header in "[a:\\r\\n \\xff=?]{0,60}", size in 1_usize..10) {
            prop_assert_eq!(read(header.as_bytes(), size), read(header.as_bytes(), usize::MAX));
        }
    }
}
