//! The dots of DATA on their way out (RFC 5321 section 4.5.2).

/// Doubles the dot at the beginning of a line, over pieces cut anywhere, and ends the message.
#[derive(Clone, Copy, Debug)]
pub(super) struct DotWriter(Place);

/// What the last byte was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// None, or the LF of a CRLF.
    Start,
    /// A CR.
    Return,
    /// An LF alone. A peer that takes it for a line's end must find no lone dot behind it.
    Feed,
    /// Another.
    Within,
}

impl Default for DotWriter {
    fn default() -> Self {
        Self(Place::Start)
    }
}

impl DotWriter {
    /// Appends a piece of content to `out`: at most four bytes for three.
    pub(super) fn write(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        out.reserve(piece.len() + piece.len() / 64 + 8);
        for line in piece.split_inclusive(|&byte| byte == b'\n') {
            if matches!(self.0, Place::Start | Place::Feed) && line.first() == Some(&b'.') {
                out.push(b'.');
            }
            out.extend_from_slice(line);
            self.0 = match line {
                [.., b'\r', b'\n'] => Place::Start,
                [b'\n'] if self.0 == Place::Return => Place::Start,
                [.., b'\n'] => Place::Feed,
                [.., b'\r'] => Place::Return,
                _ => Place::Within,
            };
        }
    }

    /// Appends the lone dot; a last line without its CRLF gets one (RFC 5321 section 4.1.1.4).
    pub(super) fn finish(self, out: &mut Vec<u8>) {
        if self.0 != Place::Start {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::smtp::dot::DotReader;
    use proptest::prelude::*;

    fn stuffed(content: &[u8], cut: usize) -> Vec<u8> {
        let (mut writer, mut out) = (DotWriter::default(), Vec::new());
        content.chunks(cut).for_each(|piece| writer.write(piece, &mut out));
        writer.finish(&mut out);
        out
    }

    #[test]
    fn a_leading_dot_is_doubled_and_a_last_line_is_ended() {
        assert_eq!(stuffed(b".a\r\n..\r\nb.c\r\n", 99), b"..a\r\n...\r\nb.c\r\n.\r\n");
        assert_eq!(stuffed(b"a", 99), b"a\r\n.\r\n");
        assert_eq!(stuffed(b"", 99), b".\r\n");
    }

    #[test]
    fn no_lone_dot_hides_behind_a_bare_line_feed() {
        assert_eq!(stuffed(b"a\n.\r\nMAIL\r\n", 99), b"a\n..\r\nMAIL\r\n.\r\n");
    }

    proptest! {
        #[test]
        fn what_is_stuffed_is_read_back_however_it_is_cut(
            lines in prop::collection::vec("[a.]{0,4}", 0..12), cut in 1_usize..9,
        ) {
            let content: String = lines.iter().flat_map(|line| [line, "\r\n"]).collect();
            let wire = stuffed(content.as_bytes(), cut);
            let (mut reader, mut back) = (DotReader::default(), Vec::new());
            prop_assert_eq!(reader.read(&wire, &mut back), (wire.len(), true));
            prop_assert_eq!(back, content.into_bytes());
        }

        #[test]
        fn no_content_ends_the_message_early(
            content in prop::collection::vec(prop::sample::select(b"a.\r\n".to_vec()), 0..60), cut in 1_usize..9,
        ) {
            let wire = stuffed(&content, cut);
            let mut back = Vec::new();
            prop_assert_eq!(DotReader::default().read(&wire, &mut back), (wire.len(), true));
        }
    }
}
