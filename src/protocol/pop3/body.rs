//! A message as RETR and TOP send it: lines end in CRLF, a leading dot is doubled, a lone dot ends
//! it (RFC 1939 section 3), and TOP stops after some lines of the body (section 7).
//!
//! Works on pieces cut anywhere and keeps nothing of them.

/// Where in a line the last byte was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    /// Before the first byte.
    Start,
    /// After a CR that is the line's first byte.
    LoneCr,
    /// After something else.
    Text,
    /// After a CR that follows something else.
    TextCr,
}

/// How much TOP still sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// All of it (RETR).
    Whole,
    /// The rest of the header, the empty line, and so many lines.
    Header(u32),
    /// So many lines.
    Body(u32),
}

/// Turns the pieces of one message into what goes over the wire.
#[derive(Debug)]
pub(super) struct BodyWriter {
    column: Column,
    extent: Extent,
}

impl BodyWriter {
    /// For RETR, or for TOP with this many lines of the body.
    pub(super) fn new(top: Option<u32>) -> Self {
        Self { column: Column::Start, extent: top.map_or(Extent::Whole, Extent::Header) }
    }

    /// Adds a piece to `out`; tells whether more is wanted.
    pub(super) fn write(&mut self, piece: &[u8], out: &mut Vec<u8>) -> bool {
        for line in piece.split_inclusive(|&byte| byte == b'\n') {
            if self.is_full() {
                break;
            }
            self.write_line(line, out);
        }
        !self.is_full()
    }

    /// Ends the message: its last line gets its CRLF if it has none, then the lone dot.
    pub(super) fn finish(self, out: &mut Vec<u8>) {
        match self.column {
            Column::Start => {}
            Column::LoneCr | Column::TextCr => out.push(b'\n'),
            Column::Text => out.extend_from_slice(b"\r\n"),
        }
        out.extend_from_slice(b".\r\n");
    }

    fn is_full(&self) -> bool {
        self.extent == Extent::Body(0) && self.column == Column::Start
    }

    /// Takes a line or what is there of one.
    fn write_line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        if self.column == Column::Start && line.starts_with(b".") {
            out.push(b'.');
        }
        let Some(text) = line.strip_suffix(b"\n") else {
            out.extend_from_slice(line);
            self.column = self.after(line);
            return;
        };
        out.extend_from_slice(text);
        let end = self.after(text);
        // A message that came by APPEND may have bare LFs.
        let has_cr = matches!(end, Column::LoneCr | Column::TextCr);
        out.extend_from_slice(if has_cr { b"\n" } else { b"\r\n" });
        self.column = Column::Start;
        self.extent = match self.extent {
            Extent::Header(lines) if matches!(end, Column::Start | Column::LoneCr) => Extent::Body(lines),
            Extent::Body(lines) => Extent::Body(lines.saturating_sub(1)),
            extent => extent,
        };
    }

    /// The column after `text`, which holds no LF.
    fn after(&self, text: &[u8]) -> Column {
        match (self.column, text) {
            (column, []) => column,
            (Column::Start, [b'\r']) => Column::LoneCr,
            (_, [.., b'\r']) => Column::TextCr,
            _ => Column::Text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sent(message: &str, top: Option<u32>, piece: usize) -> String {
        let (mut writer, mut out) = (BodyWriter::new(top), Vec::new());
        for piece in message.as_bytes().chunks(piece) {
            if !writer.write(piece, &mut out) {
                break;
            }
        }
        writer.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dots_are_doubled_and_lines_end_in_crlf_wherever_pieces_are_cut() {
        for piece in 1..20 {
            assert_eq!(sent("A: b\r\n\r\n.\r\n..x\n.", None, piece), "A: b\r\n\r\n..\r\n...x\r\n..\r\n.\r\n");
            assert_eq!(sent("a.b\rc\r", None, piece), "a.b\rc\r\n.\r\n");
        }
        assert_eq!(sent("", None, 1), ".\r\n");
    }

    #[test]
    fn top_sends_the_header_the_empty_line_and_some_lines() {
        let message = "A: b\r\nC: d\r\n\r\none\r\n.two\r\n\r\nfour";
        for piece in 1..40 {
            assert_eq!(sent(message, Some(0), piece), "A: b\r\nC: d\r\n\r\n.\r\n");
            assert_eq!(sent(message, Some(2), piece), "A: b\r\nC: d\r\n\r\none\r\n..two\r\n.\r\n");
            assert_eq!(sent(message, Some(99), piece), "A: b\r\nC: d\r\n\r\none\r\n..two\r\n\r\nfour\r\n.\r\n");
            assert_eq!(sent("A: b\n\n1\n2\n", Some(1), piece), "A: b\r\n\r\n1\r\n.\r\n");
            assert_eq!(sent("no body", Some(1), piece), "no body\r\n.\r\n");
        }
    }

    proptest! {
        #[test]
        fn what_a_client_takes_apart_is_the_message(message in "[a.\\r\\n]{0,40}", piece in 1_usize..9) {
            let wire = sent(&message, None, piece);
            let lines: Vec<_> = wire.strip_suffix(".\r\n").unwrap().split_inclusive("\r\n").collect();
            prop_assert!(!lines.contains(&".\r\n"));
            let received: String = lines.iter().map(|line| line.strip_prefix('.').unwrap_or(line)).collect();
            let mut wanted = message.replace("\r\n", "\n").replace('\n', "\r\n");
            if wanted.ends_with('\r') {
                wanted.push('\n');
            } else if !wanted.is_empty() && !wanted.ends_with("\r\n") {
                wanted.push_str("\r\n");
            }
            prop_assert_eq!(received, wanted);
        }
    }
}
