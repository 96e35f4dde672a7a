//! Bare CR and LF in a message (RFC 5321 section 2.3.8, RFC 5322 section 2.3).
//!
//! On port 25 they are noted and the message is refused: two servers that read them differently are
//! how mail is smuggled. On submission they are repaired to CRLF, because scanners and scripts send
//! them and their users cannot help it.

/// What is done about bare CR and LF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Every byte is content (BINARYMIME, RFC 3030 section 3).
    Keep,
    /// They are noted; the content is left as it is.
    Note,
    /// Each becomes a CRLF.
    Repair,
}

/// What is owed to the content before its next byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    Nothing,
    /// A CR went out; its LF is awaited.
    Feed,
    /// A CR went out and another came: together with an LF they are one end (text written twice
    /// through a Windows stream ends its lines in CR CR LF), without it they are two.
    FeedAndLine,
}

/// Watches the line ends of a content that is cut anywhere.
#[derive(Clone, Copy, Debug)]
pub struct Endings {
    manner: Manner,
    owed: Owed,
    bare: bool,
}

impl Endings {
    /// Begins a content.
    #[must_use]
    pub fn new(manner: Manner) -> Self {
        Self { manner, owed: Owed::Nothing, bare: false }
    }

    /// Takes a piece of content and returns it, repaired where that is the manner: at most two
    /// bytes for one, and two more.
    #[must_use]
    pub fn pass(&mut self, content: Vec<u8>) -> Vec<u8> {
        if self.manner == Manner::Keep || (self.owed == Owed::Nothing && all_paired(&content)) {
            return content;
        }
        let mut repaired = Vec::with_capacity(content.len() + content.len() / 16 + 4);
        for &byte in &content {
            match (self.owed, byte) {
                (Owed::Nothing, b'\r') => {
                    repaired.push(b'\r');
                    self.owed = Owed::Feed;
                }
                (Owed::Nothing, b'\n') => {
                    self.bare = true;
                    repaired.extend_from_slice(b"\r\n");
                }
                (Owed::Nothing, byte) => repaired.push(byte),
                (Owed::Feed, b'\r') => {
                    self.bare = true;
                    self.owed = Owed::FeedAndLine;
                }
                (Owed::FeedAndLine, b'\r') => repaired.extend_from_slice(b"\n\r"),
                (_, b'\n') => {
                    repaired.push(b'\n');
                    self.owed = Owed::Nothing;
                }
                (_, byte) => {
                    self.settle(&mut repaired);
                    repaired.push(byte);
                }
            }
        }
        if self.manner == Manner::Repair { repaired } else { content }
    }

    /// Ends the content: returns what is still owed to it.
    #[must_use]
    pub fn finish(&mut self) -> Vec<u8> {
        let mut owed = Vec::new();
        if self.manner != Manner::Keep {
            self.settle(&mut owed);
        }
        if self.manner == Manner::Repair { owed } else { Vec::new() }
    }

    /// Tells whether a bare CR or LF has been found that makes the message one to refuse.
    #[must_use]
    pub fn must_refuse(&self) -> bool {
        self.bare && self.manner == Manner::Note
    }

    fn settle(&mut self, content: &mut Vec<u8>) {
        match std::mem::replace(&mut self.owed, Owed::Nothing) {
            Owed::Nothing => return,
            Owed::Feed => content.push(b'\n'),
            Owed::FeedAndLine => content.extend_from_slice(b"\n\r\n"),
        }
        self.bare = true;
    }
}

/// Tells whether every CR is followed by an LF here and every LF preceded by a CR.
fn all_paired(content: &[u8]) -> bool {
    let mut rest = content;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\r' || byte == b'\n') {
        match rest.get(at..at + 2) {
            Some(b"\r\n") => rest = rest.get(at + 2..).unwrap_or_default(),
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pass(manner: Manner, input: &[u8], cut: usize) -> (Vec<u8>, bool) {
        let mut endings = Endings::new(manner);
        let mut output: Vec<u8> = input.chunks(cut).flat_map(|piece| endings.pass(piece.to_vec())).collect();
        output.extend(endings.finish());
        (output, endings.bare)
    }

    #[test]
    fn every_kind_of_line_end_becomes_crlf() {
        for (sent, kept) in [
            ("a\nb\n", "a\r\nb\r\n"),
            ("a\rb\r", "a\r\nb\r\n"),
            ("a\r\rb", "a\r\n\r\nb"),
            ("a\r\r\nb", "a\r\nb"),
            ("a\n\r\nb", "a\r\n\r\nb"),
            ("a\r\n\nb", "a\r\n\r\nb"),
            ("\r\r\r\n", "\r\n\r\n"),
            ("a\r\r", "a\r\n\r\n"),
        ] {
            assert_eq!(pass(Manner::Repair, sent.as_bytes(), 99), (kept.as_bytes().to_vec(), true), "{sent:?}");
            assert_eq!(pass(Manner::Note, sent.as_bytes(), 99), (sent.as_bytes().to_vec(), true), "{sent:?}");
            assert_eq!(pass(Manner::Keep, sent.as_bytes(), 99), (sent.as_bytes().to_vec(), false), "{sent:?}");
        }
    }

    #[test]
    fn proper_lines_are_left_alone() {
        for manner in [Manner::Keep, Manner::Note, Manner::Repair] {
            for cut in 1..9 {
                assert_eq!(pass(manner, b"a\r\n\r\nb\r\nc", cut), (b"a\r\n\r\nb\r\nc".to_vec(), false));
            }
        }
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_changes_nothing(input in prop::collection::vec(prop::sample::select(b"a\r\n".to_vec()), 0..60), cut in 1_usize..9) {
            for manner in [Manner::Note, Manner::Repair] {
                prop_assert_eq!(pass(manner, &input, cut), pass(manner, &input, 1000));
            }
        }

        #[test]
        fn nothing_bare_is_left_and_nothing_else_is_lost(input in prop::collection::vec(prop::sample::select(b"ab\r\n".to_vec()), 0..60)) {
            let (kept, bare) = pass(Manner::Repair, &input, 7);
            prop_assert!(all_paired(&kept));
            prop_assert_eq!(bare, !all_paired(&input));
            let letters = |bytes: &[u8]| bytes.iter().copied().filter(u8::is_ascii_alphabetic).collect::<Vec<_>>();
            prop_assert_eq!(letters(&kept), letters(&input));
        }
    }
}
