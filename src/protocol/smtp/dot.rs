//! The end of DATA and the dots before it (RFC 5321 sections 4.1.1.4 and 4.5.2).
//!
//! Only CRLF, a dot and CRLF end a message. A dot on a line that another end than CRLF began is
//! content: reading it as an end is what lets one message smuggle in another. Bare CR and LF pass
//! through here as they are; [`super::ending`] judges them.

/// Where the reader stands within a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At a line's first byte.
    Start,
    /// After other bytes of a line.
    Within,
    /// After a CR.
    Return,
    /// After a line's first dot, which is the added one or the last line.
    Dot,
    /// After a line's first dot and a CR.
    DotReturn,
}

/// Reads a message after DATA, cut anywhere.
#[derive(Clone, Copy, Debug)]
pub struct DotReader(Place);

impl Default for DotReader {
    fn default() -> Self {
        Self(Place::Start)
    }
}

impl DotReader {
    /// Appends the content in `input` to `content` and stops behind the end of the message. Says
    /// how many bytes it took and whether the end was among them. Appends at most one byte more
    /// than it took.
    pub fn read(&mut self, input: &[u8], content: &mut Vec<u8>) -> (usize, bool) {
        let mut rest = input;
        while let Some(&byte) = rest.first() {
            let mut used = 1;
            self.0 = match (self.0, byte) {
                (Place::Start, b'.') => Place::Dot,
                (Place::DotReturn, b'\n') => return (input.len() - rest.len() + 1, true),
                (Place::Dot, b'\r') => Place::DotReturn,
                (Place::Return, b'\n') => {
                    content.push(b'\n');
                    Place::Start
                }
                (place, byte) => {
                    if place == Place::DotReturn {
                        // The dot was an added one after all, and the CR is content.
                        content.push(b'\r');
                    }
                    if byte == b'\r' {
                        content.push(b'\r');
                        Place::Return
                    } else {
                        // A run without CR holds neither an end nor a dot to take away.
                        used = rest.iter().position(|&byte| byte == b'\r').unwrap_or(rest.len()).max(1);
                        content.extend_from_slice(rest.get(..used).unwrap_or(rest));
                        Place::Within
                    }
                }
            };
            rest = rest.get(used..).unwrap_or_default();
        }
        (input.len(), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The content and what was left behind the end, `None` when there was no end.
    fn read(input: &[u8], cut: usize) -> (Vec<u8>, Option<usize>) {
        let (mut reader, mut content, mut taken) = (DotReader::default(), Vec::new(), 0);
        for piece in input.chunks(cut) {
            let (used, end) = reader.read(piece, &mut content);
            taken += used;
            if end {
                return (content, Some(taken));
            }
            assert_eq!(used, piece.len());
        }
        (content, None)
    }

    #[test]
    fn an_added_dot_is_taken_away_and_a_lone_dot_ends() {
        assert_eq!(read(b"..a\r\n.b\r\n...\r\nc.\r\n.\r\nQUIT", 99), (b".a\r\nb\r\n..\r\nc.\r\n".to_vec(), Some(21)));
        assert_eq!(read(b".\r\n", 99), (Vec::new(), Some(3)));
    }

    #[test]
    fn nothing_but_crlf_dot_crlf_ends() {
        for smuggled in [
            "\n.\n",
            "\n.\r\n",
            "\r\n.\n",
            "\r.\r",
            "\r.\r\n",
            "\r\n.\r",
            "\n\n.\r\n",
            "\r\r.\r\n",
            "\0.\r\n",
            "\r\n.\0\r\n",
        ] {
            let input = format!("a{smuggled}MAIL FROM:<x@y>\r\n");
            assert_eq!(read(input.as_bytes(), 99).1, None, "{smuggled:?}");
        }
        assert_eq!(read(b"a\n\r\n.\r\nrest", 99).1, Some(7));
        assert_eq!(read(b"a\r\r\n.\r\nrest", 99).1, Some(7));
    }

    #[test]
    fn what_follows_a_false_end_is_kept() {
        assert_eq!(read(b"a\r\n.\rb\r\n.\nc\r\n.\r\n", 99).0, b"a\r\n\rb\r\n\nc\r\n");
        assert_eq!(read(b".\r\r\n.\r\n", 99), (b"\r\r\n".to_vec(), Some(7)));
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_changes_nothing(input in prop::collection::vec(prop::sample::select(b"a.\r\n".to_vec()), 0..60), cut in 1_usize..9) {
            prop_assert_eq!(read(&input, cut), read(&input, 1000));
        }

        #[test]
        fn what_a_client_stuffs_is_read_back(lines in prop::collection::vec("[a.\\t]{0,5}", 0..12), cut in 1_usize..9) {
            let text = lines.iter().flat_map(|line| [line, "\r\n"]).collect::<String>();
            let stuffed = |line: &String| if line.starts_with('.') { format!(".{line}") } else { line.clone() };
            let mut sent = lines.iter().map(stuffed).collect::<Vec<_>>();
            sent.push(".\r\nQUIT\r\n".into());
            let sent = sent.join("\r\n");
            prop_assert_eq!(read(sent.as_bytes(), cut), (text.into_bytes(), Some(sent.len() - 6)));
        }

        #[test]
        fn content_is_bounded_by_what_was_taken(input in prop::collection::vec(prop::sample::select(b"a.\r\n".to_vec()), 0..60)) {
            let mut content = Vec::new();
            let (taken, _) = DotReader::default().read(&input, &mut content);
            prop_assert!(content.len() <= taken);
        }
    }
}
