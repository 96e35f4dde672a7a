//! What a content needs of the way it goes: eight bits, binary transport, UTF-8 in its header.
//!
//! BODY= and SMTPUTF8 say what a sender wished; whether a server without the extension can take the
//! message is for its bytes to say. [`NatureReader`] looks at them once as they stream by.

use serde::{Deserialize, Serialize};

/// What a content needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nature {
    /// There are bytes above 127 (RFC 6152).
    pub eight_bit: bool,
    /// There are bytes above 127 in the header, and the message was sent with SMTPUTF8 (RFC 6532).
    pub utf8_header: bool,
    /// There is a bare CR or LF, or a NUL, so that only BINARYMIME can carry it (RFC 3030 section
    /// 3). Lines longer than 998 bytes are not meant: sloppy mailers make them, servers take them.
    pub binary: bool,
}

/// Finds a content's [`Nature`]. Feed it all of the content, in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub struct NatureReader {
    found: Nature,
    header_is_over: bool,
    after_cr: bool,
    within_line: bool,
}

impl NatureReader {
    /// Takes the next piece.
    pub fn feed(&mut self, piece: &[u8]) {
        for &byte in piece {
            let bare = self.after_cr != (byte == b'\n');
            self.found.binary |= bare || byte == 0;
            if byte == b'\n' {
                self.header_is_over |= !self.within_line;
                self.within_line = false;
            } else if byte != b'\r' {
                self.within_line = true;
                self.found.eight_bit |= !byte.is_ascii();
                self.found.utf8_header |= !byte.is_ascii() && !self.header_is_over;
            }
            self.after_cr = byte == b'\r';
        }
    }

    /// What was found; `utf8` says whether the message came with SMTPUTF8. Raw eight-bit header
    /// fields without it are an old disease and need no more than eight bits.
    pub fn finish(self, utf8: bool) -> Nature {
        let Nature { eight_bit, utf8_header, binary } = self.found;
        Nature { eight_bit, utf8_header: utf8_header && utf8, binary: binary || self.after_cr }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nature(text: &[u8]) -> Nature {
        let mut whole = NatureReader::default();
        whole.feed(text);
        let mut bytes = NatureReader::default();
        text.chunks(1).for_each(|byte| bytes.feed(byte));
        assert_eq!(whole.finish(true), bytes.finish(true));
        whole.finish(true)
    }

    #[test]
    fn eight_bits_are_told_by_where_they_stand() {
        let found = |eight_bit, utf8_header| Nature { eight_bit, utf8_header, binary: false };
        assert_eq!(nature(b"Subject: a\r\n\r\nbody\r\n"), found(false, false));
        assert_eq!(nature("Subject: a\r\n\r\nb\u{f6}dy\r\n".as_bytes()), found(true, false));
        assert_eq!(nature("Subject: \u{f6}\r\n\r\nbody\r\n".as_bytes()), found(true, true));
        let mut raw = NatureReader::default();
        raw.feed(b"Subject: \xf6\r\n\r\n");
        assert_eq!(raw.finish(false), found(true, false));
    }

    #[test]
    fn what_is_not_lines_is_binary() {
        for text in [b"a\nb".as_slice(), b"a\rb", b"a\r\r\nb", b"a\r", b"a\0b"] {
            assert!(nature(text).binary, "{text:?}");
        }
        let long = [b"\r\n".as_slice(), &[b'x'; 1998], b"\r\n"].concat();
        for text in [b"".as_slice(), b"a\r\n\r\nb", &long] {
            assert!(!nature(text).binary, "{text:?}");
        }
    }
}
