//! Line ends: LF in files, CRLF in mail (RFC 5322 section 2.1). Both directions take bytes cut
//! anywhere.

use std::io::{self, Write};

/// Bytes gathered before they are handed on.
const GATHER: usize = 16 << 10;

/// Gives every line that ends in LF alone its CR.
#[derive(Debug, Default)]
pub(super) struct ToCrlf {
    gathered: Vec<u8>,
    after_cr: bool,
}

impl ToCrlf {
    /// Takes the next bytes and hands on what is worth it.
    pub(super) fn push(&mut self, bytes: &[u8], take: &mut dyn FnMut(&[u8])) {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if let Some(text) = line.strip_suffix(b"\n") {
                let has_cr = if text.is_empty() { self.after_cr } else { text.ends_with(b"\r") };
                self.gathered.extend_from_slice(text);
                self.gathered.extend_from_slice(if has_cr { b"\n" } else { b"\r\n" });
                self.after_cr = false;
            } else {
                self.gathered.extend_from_slice(line);
                self.after_cr = line.ends_with(b"\r");
            }
            if self.gathered.len() >= GATHER {
                take(&self.gathered);
                self.gathered.clear();
            }
        }
    }

    /// Hands on the rest; the next message may begin.
    pub(super) fn finish(&mut self, take: &mut dyn FnMut(&[u8])) {
        if !self.gathered.is_empty() {
            take(&self.gathered);
        }
        self.gathered.clear();
        self.after_cr = false;
    }
}

/// Takes the CR from every CRLF.
#[derive(Debug, Default)]
pub(super) struct ToLf {
    held_cr: bool,
}

impl ToLf {
    /// Takes the next bytes and writes them to `out`.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.held_cr && !bytes.starts_with(b"\n") {
            out.write_all(b"\r")?;
        }
        self.held_cr = false;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if let Some(text) = line.strip_suffix(b"\r\n") {
                out.write_all(text)?;
                out.write_all(b"\n")?;
            } else if let Some(text) = line.strip_suffix(b"\r") {
                // The last of these bytes: whether it is a line's end, the next ones say.
                out.write_all(text)?;
                self.held_cr = true;
            } else {
                out.write_all(line)?;
            }
        }
        Ok(())
    }

    /// Writes the rest; the next message may begin.
    pub(super) fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if std::mem::take(&mut self.held_cr) { out.write_all(b"\r") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn to_crlf(parts: &[&[u8]]) -> Vec<u8> {
        let (mut lines, mut out) = (ToCrlf::default(), Vec::new());
        for part in parts {
            lines.push(part, &mut |bytes| out.extend_from_slice(bytes));
        }
        lines.finish(&mut |bytes| out.extend_from_slice(bytes));
        out
    }

    fn to_lf(parts: &[&[u8]]) -> Vec<u8> {
        let (mut lines, mut out) = (ToLf::default(), Vec::new());
        for part in parts {
            lines.push(part, &mut out).unwrap();
        }
        lines.finish(&mut out).unwrap();
        out
    }

    #[test]
    fn every_line_ends_in_crlf_and_bare_cr_stays() {
        assert_eq!(to_crlf(&[b"a\nb\r\nc\rd"]), b"a\r\nb\r\nc\rd");
        assert_eq!(to_crlf(&[b"a\r", b"\nb", b"", b"\n\n"]), b"a\r\nb\r\n\r\n");
    }

    #[test]
    fn only_a_cr_before_lf_is_taken() {
        assert_eq!(to_lf(&[b"a\r\nb\rc\r", b"\nd\r", b"e\n\r"]), b"a\nb\rc\nd\re\n\r");
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_makes_no_difference(text in "[a\r\n]{0,40}", cut in 0_usize..40) {
            let text = text.as_bytes();
            let (left, right) = text.split_at(cut.min(text.len()));
            prop_assert_eq!(to_crlf(&[left, right]), to_crlf(&[text]));
            prop_assert_eq!(to_lf(&[left, right]), to_lf(&[text]));
            let mail = to_crlf(&[text]);
            // What has no CR but before LF comes back as it was.
            if !text.windows(2).any(|pair| pair[0] == b'\r' && pair[1] != b'\n') && !text.ends_with(b"\r") {
                prop_assert_eq!(to_crlf(&[&to_lf(&[&mail])]), mail);
            }
        }
    }
}
