//! Undoes base64 and quoted-printable (RFC 2045 sections 6.7 and 6.8) piece by piece.
//!
//! One decoder serves two readers. Searching takes whatever comes out; FETCH BINARY (RFC 9051
//! section 6.4.5.2) must not hand out a wrong decoding as the right one, so it also asks whether
//! the data kept to the rules.

use std::fmt;

use crate::mail::structure::TransferEncoding;

/// Most white space held back at the possible end of a quoted-printable line, in bytes: a longer run
/// can't stand in a line that RFC 5322 section 2.1.1 allows, and is kept as it is.
const BLANKS_MAX: usize = 998;

/// The data breaks the rules of its transfer encoding, or the encoding is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the data does not keep to its transfer encoding")
    }
}

impl std::error::Error for Malformed {}

/// Decodes one part's body.
#[derive(Clone, Debug)]
pub struct TransferDecoder {
    coding: Coding,
    malformed: bool,
}

#[derive(Clone, Debug)]
enum Coding {
    Identity,
    Base64(Base64),
    QuotedPrintable(QuotedPrintable),
}

impl TransferDecoder {
    /// Begins a body. One in an unknown encoding comes out as it is and counts as malformed.
    pub fn new(encoding: TransferEncoding) -> Self {
        let coding = match encoding {
            TransferEncoding::Identity | TransferEncoding::Unknown => Coding::Identity,
            TransferEncoding::Base64 => Coding::Base64(Base64::default()),
            TransferEncoding::QuotedPrintable => Coding::QuotedPrintable(QuotedPrintable::default()),
        };
        Self { coding, malformed: encoding == TransferEncoding::Unknown }
    }

    /// Decodes the next bytes onto `out`, passing over what it does not understand.
    pub fn decode(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match &mut self.coding {
            Coding::Identity => out.extend_from_slice(bytes),
            Coding::Base64(base64) => {
                for &byte in bytes {
                    self.malformed |= !base64.take(byte, out);
                }
            }
            Coding::QuotedPrintable(quoted) => {
                for &byte in bytes {
                    self.malformed |= !quoted.take(byte, out);
                }
            }
        }
    }

    /// Ends the body: writes what was held back and leaves the decoder as new.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let fine = match &mut self.coding {
            Coding::Identity => true,
            Coding::Base64(base64) => std::mem::take(base64).finish(out),
            Coding::QuotedPrintable(quoted) => std::mem::take(quoted).finish(out),
        };
        self.malformed |= !fine;
    }

    /// Tells whether everything so far kept to the rules.
    ///
    /// # Errors
    /// [`Malformed`] when something did not, and what came out is a guess.
    pub fn verdict(&self) -> Result<(), Malformed> {
        if self.malformed { Err(Malformed) } else { Ok(()) }
    }
}

#[derive(Clone, Debug, Default)]
struct Base64 {
    bits: u32,
    digits: u8,
    /// The data has ended with `=`, of which so many are still to come.
    padding: Option<u8>,
}

impl Base64 {
    /// Takes one byte; tells whether it was a good one.
    fn take(&mut self, byte: u8, out: &mut Vec<u8>) -> bool {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => return self.pad(out),
            b' ' | b'\t' | b'\r' | b'\n' => return true,
            _ => return false,
        };
        self.bits = self.bits << 6 | u32::from(value);
        self.digits += 1;
        if self.digits == 4 {
            let [_, bytes @ ..] = self.bits.to_be_bytes();
            out.extend_from_slice(&bytes);
            (self.bits, self.digits) = (0, 0);
        }
        // Data after the padding: two encodings one after the other. The second is decoded too.
        self.padding.take().is_none()
    }

    fn pad(&mut self, out: &mut Vec<u8>) -> bool {
        match (self.digits, self.padding) {
            (2 | 3, None) => {
                self.padding = Some(3 - self.digits);
                self.flush(out);
                true
            }
            (0, Some(left @ 1..)) => {
                self.padding = Some(left - 1);
                true
            }
            _ => false,
        }
    }

    /// Writes the whole bytes of a quantum that has two or three digits.
    fn flush(&mut self, out: &mut Vec<u8>) {
        let [_, first, second, _] = (self.bits << (6 * (4 - u32::from(self.digits)))).to_be_bytes();
        match self.digits {
            2 => out.push(first),
            3 => out.extend_from_slice(&[first, second]),
            _ => {}
        }
        (self.bits, self.digits) = (0, 0);
    }

    fn finish(mut self, out: &mut Vec<u8>) -> bool {
        let complete = self.digits == 0 && self.padding.is_none_or(|left| left == 0);
        self.flush(out);
        complete
    }
}

#[derive(Clone, Debug, Default)]
struct QuotedPrintable {
    state: Quoted,
    /// White space that is text when more text follows on its line, and nothing otherwise.
    blanks: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Quoted {
    #[default]
    Text,
    /// After CR.
    Return,
    /// After `=`.
    Equals,
    /// After `=` and one hexadecimal digit.
    Digit(u8),
    /// After `=` and white space: a soft line break with padding, if the line ends.
    SoftBlank,
    /// After `=` and CR.
    SoftReturn,
}

impl QuotedPrintable {
    /// Takes one byte; tells whether it was a good one.
    fn take(&mut self, byte: u8, out: &mut Vec<u8>) -> bool {
        let state = std::mem::take(&mut self.state);
        match (state, byte) {
            (Quoted::Text, byte) => self.take_text(byte, out),
            (Quoted::Return, b'\n') => {
                self.blanks.clear();
                out.extend_from_slice(b"\r\n");
            }
            (Quoted::Return, byte) => {
                self.flush(out);
                out.push(b'\r');
                self.take_text(byte, out);
            }
            (Quoted::Equals | Quoted::SoftBlank, b' ' | b'\t') => self.state = Quoted::SoftBlank,
            (Quoted::Equals | Quoted::SoftBlank | Quoted::SoftReturn, b'\n') => {}
            (Quoted::Equals | Quoted::SoftBlank, b'\r') => self.state = Quoted::SoftReturn,
            (Quoted::Equals, byte) if byte.is_ascii_hexdigit() => self.state = Quoted::Digit(byte),
            (Quoted::Digit(first), byte) if byte.is_ascii_hexdigit() => {
                out.push(hex_value(first) << 4 | hex_value(byte));
            }
            (state, byte) => {
                state.spell(out);
                self.take_text(byte, out);
                return false;
            }
        }
        true
    }

    fn take_text(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            b' ' | b'\t' if self.blanks.len() < BLANKS_MAX => self.blanks.push(byte),
            b'\r' => self.state = Quoted::Return,
            b'\n' => {
                self.blanks.clear();
                out.push(b'\n');
            }
            b'=' => {
                self.flush(out);
                self.state = Quoted::Equals;
            }
            byte => {
                self.flush(out);
                out.push(byte);
            }
        }
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.blanks);
    }

    fn finish(self, out: &mut Vec<u8>) -> bool {
        match self.state {
            // A soft line break whose newline belongs to the boundary that follows: harmless.
            Quoted::Text | Quoted::Equals | Quoted::SoftBlank | Quoted::SoftReturn => true,
            Quoted::Return => {
                out.push(b'\r');
                true
            }
            state @ Quoted::Digit(_) => {
                state.spell(out);
                false
            }
        }
    }
}

impl Quoted {
    /// Writes what was taken for the beginning of something coded and was none.
    fn spell(self, out: &mut Vec<u8>) {
        match self {
            Self::Text | Self::Return | Self::SoftReturn => {}
            Self::Equals => out.push(b'='),
            Self::Digit(digit) => out.extend_from_slice(&[b'=', digit]),
            Self::SoftBlank => out.extend_from_slice(b"= "),
        }
    }
}

/// The value of a hexadecimal digit; zero for any other byte.
pub(in crate::mail) fn hex_value(digit: u8) -> u8 {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use proptest::prelude::*;

    fn decode(encoding: TransferEncoding, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut decoder = TransferDecoder::new(encoding);
        let mut out = Vec::new();
        for piece in pieces {
            decoder.decode(piece, &mut out);
        }
        decoder.finish(&mut out);
        (out, decoder.verdict().is_ok())
    }

    fn text(encoding: TransferEncoding, coded: &str) -> (String, bool) {
        let (out, fine) = decode(encoding, &[coded.as_bytes()]);
        (String::from_utf8_lossy(&out).into_owned(), fine)
    }

    #[test]
    fn base64_is_decoded_and_its_faults_are_told() {
        let cases = [
            ("aGVsbG8=", "hello", true),
            ("aGVs\r\nbG8=\r\n", "hello", true),
            ("aGVsbG8", "hello", false),
            ("aGVs*bG8=", "hello", false),
            ("aA==aQ==", "hi", false),
            ("aGVsbG8=  \r\n", "hello", true),
            ("aA=", "h", false),
            ("=", "", false),
            ("a", "", false),
            ("", "", true),
        ];
        for (coded, plain, fine) in cases {
            assert_eq!(text(TransferEncoding::Base64, coded), (plain.to_owned(), fine), "{coded:?}");
        }
    }

    #[test]
    fn quoted_printable_is_decoded_and_its_faults_are_told() {
        let cases = [
            ("caf=C3=A9", "café", true),
            ("soft=\r\nbreak=  \r\n!", "softbreak!", true),
            ("blanks \t \r\nend \n", "blanks\r\nend\n", true),
            ("a b\tc ", "a b\tc", true),
            ("1=2", "1=2", false),
            ("=XY", "=XY", false),
            ("=4", "=4", false),
            ("= a", "= a", false),
            ("end=", "end", true),
            ("a\rb", "a\rb", true),
            ("=c3=a9", "é", true),
        ];
        for (coded, plain, fine) in cases {
            assert_eq!(text(TransferEncoding::QuotedPrintable, coded), (plain.to_owned(), fine), "{coded:?}");
        }
    }

    #[test]
    fn an_unknown_encoding_comes_out_as_it_is_and_counts_as_malformed() {
        assert_eq!(text(TransferEncoding::Unknown, "x=41"), ("x=41".to_owned(), false));
        assert_eq!(text(TransferEncoding::Identity, "x=41"), ("x=41".to_owned(), true));
    }

    proptest! {
        #[test]
        fn base64_round_trips(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let coded = base64::engine::general_purpose::STANDARD.encode(&bytes);
            prop_assert_eq!(decode(TransferEncoding::Base64, &[coded.as_bytes()]), (bytes, true));
        }

        #[test]
        fn where_the_input_is_cut_makes_no_difference(bytes in "[=A-Fa0-3 \t\r\n*\u{e9}]{0,60}", cut in 0_usize..60) {
            let (front, back) = bytes.as_bytes().split_at(cut.min(bytes.len()));
            for encoding in [TransferEncoding::Base64, TransferEncoding::QuotedPrintable] {
                prop_assert_eq!(decode(encoding, &[front, back]), decode(encoding, &[bytes.as_bytes()]));
            }
        }
    }
}
