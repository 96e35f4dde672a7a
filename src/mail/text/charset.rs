//! Turns the charsets of mail into UTF-8 piece by piece.
//!
//! Labels are read as the web reads them (`encoding_rs`), which is how mail programs mean them. Text
//! that is labelled US-ASCII, UTF-8, by a name nobody knows or not at all is read as UTF-8, and what
//! is no UTF-8 in it as windows-1252: wrong labels are common, and so a search finds the words.

use encoding_rs::{CoderResult, Decoder, Encoding, REPLACEMENT, UTF_8, WINDOWS_1252};

/// Names of US-ASCII, which the web's table takes for windows-1252 (RFC 2046 section 4.1.2).
const ASCII_LABELS: [&str; 6] = ["us-ascii", "ascii", "ansi_x3.4-1968", "iso-ir-6", "csascii", "iso646-us"];

/// Decodes one text.
#[derive(Debug)]
pub struct CharsetDecoder(Kind);

// The decoders of encoding_rs are large and every message that is searched has one at a time.
#[derive(Debug)]
enum Kind {
    /// UTF-8 with windows-1252 for the rest; holds the beginning of a character, at most three bytes.
    Guess(Vec<u8>),
    Known(Box<Decoder>),
}

impl CharsetDecoder {
    /// Begins a text with the charset of this name (RFC 2046 section 4.1.2; a language after `*`,
    /// as RFC 2231 section 5 allows in encoded words, is passed over).
    pub fn new(label: Option<&str>) -> Self {
        let label = label.map(|label| label.split('*').next().unwrap_or_default().trim());
        let known = label
            .filter(|label| !ASCII_LABELS.iter().any(|ascii| ascii.eq_ignore_ascii_case(label)))
            .and_then(|label| Encoding::for_label(label.as_bytes()))
            .filter(|&encoding| encoding != UTF_8 && encoding != REPLACEMENT);
        Self(known.map_or_else(
            || Kind::Guess(Vec::new()),
            |encoding| Kind::Known(Box::new(encoding.new_decoder_with_bom_removal())),
        ))
    }

    /// Decodes the next bytes onto `out`; `last` ends the text, after which the decoder is used up.
    pub fn decode(&mut self, bytes: &[u8], last: bool, out: &mut String) {
        match &mut self.0 {
            Kind::Guess(held) => guess(held, bytes, last, out),
            Kind::Known(decoder) => {
                let mut rest = bytes;
                loop {
                    // Never zero, so that the loop moves on even where the decoder has no estimate.
                    out.reserve(decoder.max_utf8_buffer_length(rest.len()).unwrap_or(rest.len()).max(16));
                    let (result, read, _) = decoder.decode_to_string(rest, out, last);
                    rest = rest.get(read..).unwrap_or_default();
                    if result == CoderResult::InputEmpty {
                        break;
                    }
                }
                if last {
                    self.0 = Kind::Guess(Vec::new());
                }
            }
        }
    }

    /// Decodes a whole text.
    pub fn decode_all(label: Option<&str>, bytes: &[u8]) -> String {
        let mut out = String::new();
        Self::new(label).decode(bytes, true, &mut out);
        out
    }
}

/// Reads UTF-8, and as windows-1252 whatever is none.
fn guess(held: &mut Vec<u8>, bytes: &[u8], last: bool, out: &mut String) {
    let joined;
    let mut rest = bytes;
    if !held.is_empty() {
        joined = [held.as_slice(), bytes].concat();
        held.clear();
        rest = &joined;
    }
    loop {
        let error = match std::str::from_utf8(rest) {
            Ok(text) => {
                out.push_str(text);
                return;
            }
            Err(error) => error,
        };
        let (good, bad) = rest.split_at_checked(error.valid_up_to()).unwrap_or_default();
        out.push_str(std::str::from_utf8(good).unwrap_or_default());
        let length = match error.error_len() {
            Some(length) => length,
            None if last => bad.len(),
            None => {
                held.extend_from_slice(bad);
                return;
            }
        };
        let (stray, after) = bad.split_at_checked(length).unwrap_or((bad, &[]));
        out.push_str(&WINDOWS_1252.decode_without_bom_handling(stray).0);
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_read_by_its_label_and_guessed_without_one() {
        let cases: [(Option<&str>, &[u8], &str); 9] = [
            (Some("iso-8859-1"), b"caf\xe9", "café"),
            (Some("KOI8-R"), b"\xd0\xd2\xc9\xd7\xc5\xd4", "привет"),
            (Some("iso-2022-jp"), b"\x1b$B$3$s\x1b(B", "こん"),
            (Some("us-ascii"), "café".as_bytes(), "café"),
            (Some("us-ascii"), b"caf\xe9", "café"),
            (Some("utf-8"), b"caf\xe9 caf\xc3\xa9", "café café"),
            (Some("x-nobody-knows"), b"\x93hi\x94", "“hi”"),
            (Some("utf-8*en"), b"caf\xc3\xa9", "café"),
            (None, b"\xc3", "Ã"),
        ];
        for (label, bytes, text) in cases {
            assert_eq!(CharsetDecoder::decode_all(label, bytes), text, "{label:?}");
        }
    }

    proptest! {
        #[test]
        fn where_the_input_is_cut_makes_no_difference(bytes in prop::collection::vec(any::<u8>(), 0..40), cut in 0_usize..40) {
            let (front, back) = bytes.split_at(cut.min(bytes.len()));
            for label in [None, Some("shift_jis"), Some("utf-16le"), Some("iso-2022-jp"), Some("gb18030")] {
                let mut decoder = CharsetDecoder::new(label);
                let mut out = String::new();
                decoder.decode(front, false, &mut out);
                decoder.decode(back, true, &mut out);
                prop_assert_eq!(out, CharsetDecoder::decode_all(label, &bytes));
            }
        }
    }
}
