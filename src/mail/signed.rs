//! What signatures are about, read from a message as it streams by: its header, and hashes of its body.
//!
//! DKIM and ARC sign chosen header fields and a hash of the canonical body (RFC 6376 section 3.7). The header is
//! kept, up to [`HEADER_MAX`]; of the body only the hashes are, of the forms that signatures in the header ask
//! for, so a message of any size needs the same memory. Lines of the header end with CRLF.

use std::{fmt, mem};

use ring::digest::{Context, SHA256};

use super::dkim_canon::{BodyForm, CanonicalBody};

/// Most bytes of a header that are kept; signatures of a longer one are not looked at.
pub const HEADER_MAX: usize = 64 << 10;

/// The hash of a canonical body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyHash {
    /// SHA-256.
    pub sha256: [u8; 32],
    /// Bytes of the canonical body.
    pub length: u64,
}

/// What signatures are about. Bodies are there as far as a signature asks for their form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signed {
    /// The header with the empty line behind it; `None` if it is longer than [`HEADER_MAX`].
    pub header: Option<Vec<u8>>,
    /// The body in simple form.
    pub simple: Option<BodyHash>,
    /// The body in relaxed form.
    pub relaxed: Option<BodyHash>,
    /// The body has ended; until then the hashes are not known.
    pub ended: bool,
}

/// Reads a message that is cut anywhere.
#[derive(Debug, Default)]
pub struct SignedReader {
    header: Vec<u8>,
    place: Place,
    simple: Option<Hasher>,
    relaxed: Option<Hasher>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Header,
    TooLong,
    Body,
}

impl SignedReader {
    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        match self.place {
            Place::TooLong => {}
            Place::Body => self.body(bytes),
            Place::Header => {
                // The empty line may be cut: look at its beginning again.
                let from = self.header.len().saturating_sub(3);
                let room = HEADER_MAX.saturating_sub(self.header.len()).min(bytes.len());
                let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
                self.header.extend_from_slice(now);
                let Some(end) = end_of_header(&self.header, from) else {
                    if !later.is_empty() {
                        (self.place, self.header) = (Place::TooLong, Vec::new());
                    }
                    return;
                };
                let body = self.header.split_off(end);
                self.begin_body();
                self.body(&body);
                self.body(later);
            }
        }
    }

    /// What is known so far.
    #[must_use]
    pub fn so_far(&self) -> Signed {
        let header = (self.place == Place::Body).then(|| self.header.clone());
        Signed { header, ..Signed::default() }
    }

    /// Ends the message.
    #[must_use]
    pub fn finish(mut self) -> Signed {
        if self.place == Place::Header {
            self.begin_body();
        }
        Signed {
            header: (self.place != Place::TooLong).then(|| mem::take(&mut self.header)),
            simple: self.simple.map(Hasher::finish),
            relaxed: self.relaxed.map(Hasher::finish),
            ended: true,
        }
    }

    fn begin_body(&mut self) {
        self.place = Place::Body;
        for form in wanted(&self.header) {
            *(if form == BodyForm::Simple { &mut self.simple } else { &mut self.relaxed }) = Some(Hasher::new(form));
        }
    }

    fn body(&mut self, bytes: &[u8]) {
        if let Some(body) = &mut self.simple {
            body.feed(bytes);
        }
        if let Some(body) = &mut self.relaxed {
            body.feed(bytes);
        }
    }
}

/// Where the body begins, if the empty line is there; `from` is where to begin to look.
fn end_of_header(header: &[u8], from: usize) -> Option<usize> {
    if header.starts_with(b"\r\n") {
        return Some(2);
    }
    let rest = header.get(from..)?;
    rest.windows(4).position(|window| window == b"\r\n\r\n").map(|at| from + at + 4)
}

/// The forms that the signatures in a header ask for.
fn wanted(header: &[u8]) -> Vec<BodyForm> {
    let mut forms = Vec::new();
    let mut fields = header.split_inclusive(|&byte| byte == b'\n').peekable();
    while let Some(line) = fields.next() {
        let mut field = line.to_vec();
        while let Some(more) = fields.next_if(|next| matches!(next.first(), Some(b' ' | b'\t'))) {
            field.extend_from_slice(more);
        }
        let Some(colon) = field.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) = field.split_at(colon);
        let name = name.trim_ascii_end();
        let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        if is(b"dkim-signature") || is(b"arc-message-signature") {
            let form = form_of(value.get(1..).unwrap_or_default());
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
    }
    forms
}

/// The body's form in a signature's tags: `c=header/body`, simple where it is left away (RFC 6376 section 3.5).
fn form_of(tags: &[u8]) -> BodyForm {
    let squeezed =
        |part: &[u8]| -> Vec<u8> { part.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect() };
    let mut tags = tags.split(|&byte| byte == b';').map(squeezed);
    let value = tags.find_map(|tag| tag.strip_prefix(b"c=").map(<[u8]>::to_ascii_lowercase)).unwrap_or_default();
    if value.ends_with(b"/relaxed") { BodyForm::Relaxed } else { BodyForm::Simple }
}

/// A body on its way into its hash.
struct Hasher {
    canonical: CanonicalBody,
    hash: Box<Context>,
    length: u64,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Hasher").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Hasher {
    fn new(form: BodyForm) -> Self {
        Self { canonical: CanonicalBody::new(form), hash: Box::new(Context::new(&SHA256)), length: 0 }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let Self { canonical, hash, length } = self;
        canonical.feed(bytes, &mut |piece| {
            hash.update(piece);
            *length += piece.len() as u64;
        });
    }

    fn finish(self) -> BodyHash {
        let Self { canonical, mut hash, mut length } = self;
        canonical.finish(&mut |piece| {
            hash.update(piece);
            length += piece.len() as u64;
        });
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(hash.finish().as_ref());
        BodyHash { sha256, length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ASKS: &str = "DKIM-Signature: v=1; c = relaxed/ relaxed; b=x\r\nDKIM-signature : v=1;\r\n c=relaxed; d=x\r\n";

    fn read(body: &str, cut: usize) -> Signed {
        let message = format!("{ASKS}\r\n{body}");
        let mut reader = SignedReader::default();
        for piece in message.as_bytes().chunks(cut) {
            reader.feed(piece);
        }
        reader.finish()
    }

    /// The canonical body as RFC 6376 describes it, on the whole.
    fn plainly(body: &str, form: BodyForm) -> Vec<u8> {
        let mut lines: Vec<String> = body.split("\r\n").map(str::to_owned).collect();
        if form == BodyForm::Relaxed {
            for line in &mut lines {
                let words: Vec<&str> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
                let begins_blank = line.starts_with([' ', '\t']) && !words.is_empty();
                *line = format!("{}{}", if begins_blank { " " } else { "" }, words.join(" "));
            }
        }
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        let text = if lines.is_empty() { String::new() } else { lines.join("\r\n") + "\r\n" };
        if text.is_empty() && form == BodyForm::Simple { b"\r\n".to_vec() } else { text.into_bytes() }
    }

    fn hashed(canonical: &[u8]) -> BodyHash {
        let hash = ring::digest::digest(&SHA256, canonical);
        BodyHash { sha256: hash.as_ref().try_into().unwrap(), length: canonical.len() as u64 }
    }

    #[test]
    fn bodies_are_hashed_in_the_forms_that_are_asked_for() {
        for body in [
            "",
            "\r\n",
            "\r\n\r\n",
            " \r\n",
            "a",
            "a\r\n",
            "a \t b \r\n\r\n \t\r\n\r\n",
            " a\r\n\r\n\r\nb\r\r\n",
            "ab\r",
        ] {
            let signed = read(body, 1000);
            assert_eq!(signed.simple, Some(hashed(&plainly(body, BodyForm::Simple))), "{body:?}");
            assert_eq!(signed.relaxed, Some(hashed(&plainly(body, BodyForm::Relaxed))), "{body:?}");
        }
        let mut plain = SignedReader::default();
        plain.feed(b"Subject: x\r\n\r\nbody");
        let signed = plain.finish();
        assert_eq!((signed.simple, signed.relaxed), (None, None));
        assert_eq!(signed.header.as_deref(), Some(&b"Subject: x\r\n\r\n"[..]));
    }

    #[test]
    fn lines_of_blanks_at_the_end_do_not_count_in_relaxed_form() {
        assert_eq!(read("C \r\nD \t E\r\n\r\n \t\r\n", 7).relaxed, Some(hashed(b"C\r\nD E\r\n")));
    }

    #[test]
    fn a_header_without_end_is_given_up() {
        let mut reader = SignedReader::default();
        for _ in 0..3000 {
            reader.feed(&[b'x'; 100]);
            assert!(reader.header.len() <= HEADER_MAX);
        }
        assert_eq!(reader.so_far().header, None);
        assert_eq!(reader.finish().header, None);
        let mut short = SignedReader::default();
        short.feed(b"A: 1\r\n");
        assert_eq!(short.so_far().header, None, "it may go on");
        assert_eq!(short.finish().header.as_deref(), Some(&b"A: 1\r\n"[..]));
        let mut none = SignedReader::default();
        none.feed(b"\r\nbody");
        assert_eq!(none.finish().header.as_deref(), Some(&b"\r\n"[..]));
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_changes_nothing(body in "[ab \t\r\n]{0,40}", cut in 1_usize..9) {
            prop_assert_eq!(read(&body, cut), read(&body, 10_000));
        }

        #[test]
        fn the_stream_agrees_with_the_whole(lines in prop::collection::vec("[ab \t]{0,4}", 0..8)) {
            let body = lines.join("\r\n");
            let signed = read(&body, 3);
            prop_assert_eq!(signed.simple, Some(hashed(&plainly(&body, BodyForm::Simple))));
            prop_assert_eq!(signed.relaxed, Some(hashed(&plainly(&body, BodyForm::Relaxed))));
        }
    }
}
