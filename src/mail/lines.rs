//! Lines of a message that streams by, cut anywhere.
//!
//! A line ends with LF, with or without a CR before it: mail that came by APPEND or import may hold
//! bare LFs, and a bare CR ends nothing. A line that lies within one piece of input is lent out
//! without a copy; of one that does not, only as many bytes are kept as the reader wants to see.

/// A line, or the end of the message where the last line has no newline.
#[derive(Debug)]
pub(super) struct Line<'l> {
    /// What was kept of the line, without its newline.
    pub(super) kept: &'l [u8],
    /// Whether `kept` is all of it.
    pub(super) whole: bool,
    /// Bytes of the line with its newline.
    pub(super) length: usize,
    /// Bytes of the newline: 2 for CRLF, 1 for LF, 0 at the end of the message.
    pub(super) newline: usize,
}

/// Cuts a stream into lines.
#[derive(Clone, Debug, Default)]
pub(super) struct LineCutter {
    kept: Vec<u8>,
    length: usize,
    last: u8,
    given: bool,
}

impl LineCutter {
    /// Takes bytes off the front of `input` until a line is complete, and lends it. `None` when the
    /// input is used up. No more than `keep` bytes are held of a line that comes in pieces.
    pub(super) fn next<'l, 'i: 'l>(&'l mut self, input: &mut &'i [u8], keep: usize) -> Option<Line<'l>> {
        self.forget_given();
        let piece = input.split_inclusive(|&byte| byte == b'\n').next()?;
        *input = input.get(piece.len()..).unwrap_or_default();
        if self.length == 0
            && let Some(line) = piece.strip_suffix(b"\n")
        {
            let kept = line.strip_suffix(b"\r").unwrap_or(line);
            return Some(Line { kept, whole: true, length: piece.len(), newline: piece.len() - kept.len() });
        }
        let room = keep.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(piece.get(..room).unwrap_or(piece));
        let before = self.last;
        self.length = self.length.saturating_add(piece.len());
        self.last = piece.last().copied().unwrap_or(before);
        if self.last != b'\n' {
            return None;
        }
        let second_last = piece.len().checked_sub(2).and_then(|index| piece.get(index)).copied();
        let newline = if second_last.unwrap_or(before) == b'\r' { 2 } else { 1 };
        Some(self.lend(newline))
    }

    /// Lends what came after the last newline, if anything did.
    pub(super) fn rest(&mut self) -> Option<Line<'_>> {
        self.forget_given();
        (self.length > 0).then(|| self.lend(0))
    }

    /// Bytes held.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.kept.capacity()
    }

    fn lend(&mut self, newline: usize) -> Line<'_> {
        let (length, text) = (self.length, self.length.saturating_sub(newline));
        self.given = true;
        self.length = 0;
        self.last = 0;
        // What was kept of a long line may end within its newline.
        Line { kept: self.kept.get(..text).unwrap_or(&self.kept), whole: self.kept.len() >= text, length, newline }
    }

    fn forget_given(&mut self) {
        if self.given {
            self.kept.clear();
            self.given = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(pieces: &[&[u8]], keep: usize) -> Vec<(Vec<u8>, bool, usize, usize)> {
        let mut cutter = LineCutter::default();
        let mut found = Vec::new();
        for mut piece in pieces.iter().copied() {
            while let Some(line) = cutter.next(&mut piece, keep) {
                found.push((line.kept.to_vec(), line.whole, line.length, line.newline));
            }
        }
        found.extend(cutter.rest().map(|line| (line.kept.to_vec(), line.whole, line.length, line.newline)));
        found
    }

    #[test]
    fn a_line_that_comes_in_pieces_is_kept_up_to_the_bound() {
        let found = lines(&[b"ab\r", b"\ncd", b"efg", b"\nh"], 3);
        let expected = [(&b"ab"[..], true, 4, 2), (b"cde", false, 6, 1), (b"h", true, 1, 0)];
        let expected: Vec<_> = expected.iter().map(|l| (l.0.to_vec(), l.1, l.2, l.3)).collect();
        assert_eq!(found, expected);
    }

    proptest! {
        #[test]
        fn where_the_input_is_cut_makes_no_difference(text in "[a\r\n]{0,40}", cuts in prop::collection::vec(0_usize..40, 0..6)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let found = lines(&pieces, 100);
            prop_assert_eq!(&found, &lines(&[bytes], 100));
            prop_assert_eq!(found.iter().map(|line| line.2).sum::<usize>(), bytes.len());
        }
    }
}
