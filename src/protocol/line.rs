//! Lines with a bound (RFC 5321 section 4.5.3.1, RFC 1939 section 3).
//!
//! SMTP and POP3 speak in lines that end in CRLF. [`LineBuffer`] gathers one from bytes cut anywhere
//! and never holds more than the caller's bound; between lines it holds no memory, because most
//! connections are idle most of the time.

/// A line on its way in.
#[derive(Debug, Default)]
pub struct LineBuffer {
    bytes: Vec<u8>,
    too_long: bool,
}

/// What came of bytes given to [`LineBuffer::take`].
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// The line goes on; all bytes were taken.
    More,
    /// A line is complete, without its end.
    Line {
        /// The line, without CRLF or LF.
        line: Vec<u8>,
        /// It ended in LF alone.
        bare: bool,
    },
    /// A line has ended that was longer than the bound; what it said is lost.
    TooLong,
}

impl LineBuffer {
    /// Takes bytes up to and including the next LF; says how many it took and what came of them.
    /// `max` bounds the line, its end included.
    pub fn take(&mut self, input: &[u8], max: usize) -> (usize, Taken) {
        let end = input.iter().position(|&byte| byte == b'\n');
        let taken = end.map_or(input.len(), |end| end + 1);
        let piece = input.get(..taken).unwrap_or(input);
        self.too_long |= self.bytes.len() + piece.len() > max;
        if self.too_long {
            self.bytes = Vec::new();
        } else {
            self.bytes.extend_from_slice(piece);
        }
        if end.is_none() {
            return (taken, Taken::More);
        }
        if std::mem::take(&mut self.too_long) {
            return (taken, Taken::TooLong);
        }
        let mut line = std::mem::take(&mut self.bytes);
        line.pop();
        let bare = line.pop_if(|last| *last == b'\r').is_none();
        (taken, Taken::Line { line, bare })
    }

    /// Tells whether nothing of a line has come yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.too_long
    }

    /// Forgets what has come of a line.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Drop for LineBuffer {
    /// A line can hold a password.
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(input: &[u8], cut: usize, max: usize) -> Vec<Taken> {
        let mut buffer = LineBuffer::default();
        let mut lines = Vec::new();
        for mut piece in input.chunks(cut) {
            while !piece.is_empty() {
                let (taken, came) = buffer.take(piece, max);
                assert!(taken > 0 && buffer.bytes.len() <= max);
                piece = &piece[taken..];
                if came != Taken::More {
                    lines.push(came);
                }
            }
        }
        lines
    }

    #[test]
    fn a_line_is_told_without_its_end() {
        let line = |line: &[u8], bare| Taken::Line { line: line.to_vec(), bare };
        assert_eq!(
            lines(b"NOOP\r\n\r\nQUIT\nx", 64, 64),
            [line(b"NOOP", false), line(b"", false), line(b"QUIT", true)]
        );
    }

    #[test]
    fn a_line_beyond_the_bound_is_lost_up_to_its_end_and_the_next_is_whole() {
        let line = Taken::Line { line: b"1234".to_vec(), bare: false };
        assert_eq!(lines(b"12345\r\n1234\r\n", 64, 6), [Taken::TooLong, line]);
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_changes_nothing(input in prop::collection::vec(prop::sample::select(b"ab\r\n".to_vec()), 0..80), cut in 1_usize..20) {
            prop_assert_eq!(lines(&input, cut, 8), lines(&input, 1000, 8));
        }
    }
}
