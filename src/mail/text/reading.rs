//! The text of a message as SEARCH looks at it (RFC 9051 section 6.4.4): decoded fields and parts.
//!
//! What is looked through and what the gram index knows of must be the same text to the letter, so
//! both are read here.

use crate::mail::structure::TextPart;

use super::{CharsetDecoder, TransferDecoder, decode_words};

/// Bytes of a part that are decoded at a time: bounds the room they need.
const PIECE: usize = 4096;

/// A field's body as its reader sees it.
pub fn decode_field(body: &[u8]) -> String {
    decode_words(&CharsetDecoder::decode_all(None, body))
}

/// A field as SEARCH TEXT looks at it: its name, a colon, a space and its body.
pub fn field_text(name: &[u8], body: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(name).into_owned();
    text.push_str(": ");
    text.push_str(&decode_field(body));
    text
}

/// Undoes the two codings of a part's text.
#[derive(Debug)]
pub struct PartReader {
    transfer: TransferDecoder,
    charset: CharsetDecoder,
    bytes: Vec<u8>,
    text: String,
}

impl PartReader {
    /// Begins a part.
    pub fn new(part: &TextPart) -> Self {
        let charset = CharsetDecoder::new(part.charset.as_deref());
        Self { transfer: TransferDecoder::new(part.encoding), charset, bytes: Vec::new(), text: String::new() }
    }

    /// Takes the next bytes of the part's body as they stand in the message, cut anywhere, and hands
    /// their text on.
    pub fn feed(&mut self, body: &[u8], take: &mut dyn FnMut(&str)) {
        for coded in body.chunks(PIECE) {
            self.transfer.decode(coded, &mut self.bytes);
            self.pass_on(false, take);
        }
    }

    /// Ends the part: hands on what was held back.
    pub fn finish(mut self, take: &mut dyn FnMut(&str)) {
        self.transfer.finish(&mut self.bytes);
        self.pass_on(true, take);
    }

    fn pass_on(&mut self, last: bool, take: &mut dyn FnMut(&str)) {
        self.charset.decode(&self.bytes, last, &mut self.text);
        take(&self.text);
        self.bytes.clear();
        self.text.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::structure::{Extent, TransferEncoding};

    fn read(encoding: TransferEncoding, charset: Option<&str>, pieces: &[&[u8]]) -> String {
        let charset = charset.map(str::to_owned);
        let mut reader = PartReader::new(&TextPart { extent: Extent::default(), encoding, charset, html: false });
        let mut text = String::new();
        for piece in pieces {
            reader.feed(piece, &mut |piece| text.push_str(piece));
        }
        reader.finish(&mut |piece| text.push_str(piece));
        text
    }

    #[test]
    fn both_codings_are_undone_wherever_the_bytes_are_cut() {
        let quoted = TransferEncoding::QuotedPrintable;
        assert_eq!(read(quoted, Some("iso-8859-1"), &[b"gr=FC=\r\n=D", b"Fe"]), "grüße");
        assert_eq!(read(TransferEncoding::Base64, Some("utf-8"), &[b"R1LDnMOfRQ=", b"="]), "GRÜßE");
        assert_eq!(read(TransferEncoding::Identity, None, &["ß".as_bytes()]), "ß");
        assert_eq!(field_text(b"Subject", b"=?utf-8?q?gr=C3=BC?= x"), "Subject: grü x");
    }
}
