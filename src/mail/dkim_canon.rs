//! Canonical forms of a message for DKIM, as it streams by (RFC 6376 section 3.4).
//!
//! [`CanonicalBody`] takes a body cut anywhere and hands out its canonical form, so that a body of any
//! size is hashed in constant memory and for several signatures in one pass; [`relaxed_field`] does one
//! header field. Signing and verifying share them.
//!
//! A line ends with LF, with or without a CR before it, and is canonical with CRLF: what is signed here
//! leaves with CRLF, and a file that is checked may have been written by any editor. A bare CR ends
//! nothing.

/// How much may change on the way without harm (RFC 6376 sections 3.4.3 and 3.4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyForm {
    /// Nothing but empty lines at the end.
    Simple,
    /// Besides, white space at the end of lines, and how much of it stands within them.
    Relaxed,
}

/// A body that becomes canonical.
#[derive(Clone, Debug)]
pub struct CanonicalBody {
    form: BodyForm,
    /// Line ends not handed out yet: empty lines, which count only if something follows.
    ends: u64,
    /// A CR came last, and may belong to a line end.
    carriage: bool,
    /// White space came last (relaxed only); it counts, as one space, if something follows in the line.
    blank: bool,
    /// Something was handed out: the body is not empty.
    begun: bool,
}

/// Line ends to hand out at a time.
const ENDS: &[u8] = b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n";

impl CanonicalBody {
    /// Begins a body.
    #[must_use]
    pub fn new(form: BodyForm) -> Self {
        Self { form, ends: 0, carriage: false, blank: false, begun: false }
    }

    /// Takes the next bytes and hands the canonical ones to `out`, in pieces. Of what came, no more than
    /// four facts are kept.
    pub fn feed(&mut self, bytes: &[u8], out: &mut impl FnMut(&[u8])) {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            match byte {
                b'\n' => {
                    self.end_line();
                    rest = after;
                }
                b'\r' => {
                    if self.carriage {
                        self.hand_out(b"\r", out);
                    }
                    self.carriage = true;
                    rest = after;
                }
                b' ' | b'\t' if self.form == BodyForm::Relaxed => {
                    self.settle_carriage(out);
                    self.blank = true;
                    rest = after;
                }
                _ => {
                    self.settle_carriage(out);
                    let special = |byte: &u8| match byte {
                        b'\r' | b'\n' => true,
                        b' ' | b'\t' => self.form == BodyForm::Relaxed,
                        _ => false,
                    };
                    let (plain, after) = rest.split_at(rest.iter().position(special).unwrap_or(rest.len()));
                    self.hand_out(plain, out);
                    rest = after;
                }
            }
        }
    }

    /// Ends the body: a last line without its end gets one, and a simple body has one line at least.
    pub fn finish(mut self, out: &mut impl FnMut(&[u8])) {
        self.settle_carriage(out);
        if self.begun || self.form == BodyForm::Simple {
            out(b"\r\n");
        }
    }

    fn end_line(&mut self) {
        self.carriage = false;
        self.blank = false;
        self.ends = self.ends.saturating_add(1);
    }

    /// A CR that no LF followed is a byte like others.
    fn settle_carriage(&mut self, out: &mut impl FnMut(&[u8])) {
        if std::mem::take(&mut self.carriage) {
            self.hand_out(b"\r", out);
        }
    }

    /// Hands out bytes of a line, and before them what was held back.
    fn hand_out(&mut self, bytes: &[u8], out: &mut impl FnMut(&[u8])) {
        while self.ends > 0 {
            let count = self.ends.min(ENDS.len() as u64 / 2);
            let length = usize::try_from(count * 2).unwrap_or(ENDS.len());
            out(ENDS.get(..length).unwrap_or(ENDS));
            self.ends -= count;
        }
        if std::mem::take(&mut self.blank) {
            out(b" ");
        }
        out(bytes);
        self.begun = true;
    }
}

/// Appends a header field in the relaxed form (RFC 6376 section 3.4.2), with its CRLF. `field` is the
/// whole field, folded as it stands in the message, with or without its line end. A field without a
/// colon gives nothing.
pub fn relaxed_field(field: &[u8], out: &mut Vec<u8>) {
    let Some(colon) = field.iter().position(|&byte| byte == b':') else { return };
    let (name, body) = field.split_at(colon);
    out.extend(name.trim_ascii().iter().map(u8::to_ascii_lowercase));
    out.push(b':');
    let start = out.len();
    let mut blank = false;
    for &byte in body.iter().skip(1) {
        match byte {
            b'\r' | b'\n' => {}
            b' ' | b'\t' => blank = true,
            _ => {
                if std::mem::take(&mut blank) && out.len() > start {
                    out.push(b' ');
                }
                out.push(byte);
            }
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(form: BodyForm, body: &[u8], cut: usize) -> String {
        let (mut canonical, mut out) = (CanonicalBody::new(form), Vec::new());
        for piece in body.chunks(cut) {
            canonical.feed(piece, &mut |bytes| out.extend_from_slice(bytes));
        }
        canonical.finish(&mut |bytes| out.extend_from_slice(bytes));
        String::from_utf8(out).unwrap()
    }

    fn relaxed(body: &str) -> String {
        canonical(BodyForm::Relaxed, body.as_bytes(), 1000)
    }

    fn simple(body: &str) -> String {
        canonical(BodyForm::Simple, body.as_bytes(), 1000)
    }

    #[test]
    fn the_example_of_the_rfc_comes_out_as_printed() {
        // RFC 6376 section 3.4.5
        let body = " C \r\nD \t E\r\n\r\n\r\n";
        assert_eq!(relaxed(body), " C\r\nD E\r\n");
        assert_eq!(simple(body), " C \r\nD \t E\r\n");
        let mut out = Vec::new();
        relaxed_field(b"A: X\r\n", &mut out);
        relaxed_field(b"B : Y\t\r\n\tZ  \r\n", &mut out);
        assert_eq!(out, b"a:X\r\nb:Y Z\r\n");
    }

    #[test]
    fn an_empty_body_is_nothing_relaxed_and_one_line_simple() {
        for body in ["", "\r\n", "\r\n\r\n\r\n", "\n"] {
            assert_eq!((relaxed(body).as_str(), simple(body).as_str()), ("", "\r\n"), "{body:?}");
        }
        assert_eq!(relaxed(" \t\r\n \r\n"), "");
        assert_eq!(simple(" \r\n"), " \r\n");
    }

    #[test]
    fn white_space_alone_at_the_end_is_no_line() {
        assert_eq!(relaxed("a\r\n \t \r\n\r\n \r\n"), "a\r\n");
        assert_eq!(relaxed("a\r\n \t"), "a\r\n");
        assert_eq!(relaxed("a \r\n\r\n \r\n b\r\n"), "a\r\n\r\n\r\n b\r\n");
        assert_eq!(simple("a\r\n \r\n\r\n"), "a\r\n \r\n");
    }

    #[test]
    fn a_last_line_without_its_end_gets_one_and_other_newlines_become_crlf() {
        assert_eq!((relaxed("a"), simple("a")), ("a\r\n".into(), "a\r\n".into()));
        assert_eq!(relaxed("a\nb\n"), "a\r\nb\r\n");
        assert_eq!((relaxed("a\rb\r\r\n"), simple("a\r")), ("a\rb\r\r\n".into(), "a\r\r\n".into()));
    }

    #[test]
    fn many_empty_lines_are_kept_when_something_follows() {
        let body = "\r\n".repeat(100) + "x";
        assert_eq!((relaxed(&body), simple(&body)), (body.clone() + "\r\n", body + "\r\n"));
    }

    #[test]
    fn a_field_of_white_space_is_empty() {
        let mut out = Vec::new();
        relaxed_field(b"Subject: \t\r\n \r\n", &mut out);
        relaxed_field(b"no field", &mut out);
        relaxed_field(b"X:a\r\n\r\n", &mut out);
        assert_eq!(out, b"subject:\r\nx:a\r\n");
    }

    /// RFC 6376 section 3.4, said line by line over the whole body.
    fn by_the_book(form: BodyForm, body: &str) -> String {
        let mut lines: Vec<String> =
            body.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned()).collect();
        if body.ends_with('\n') {
            lines.pop();
        } else if let Some(last) = lines.last_mut() {
            // What no LF ended keeps its CR.
            *last = body.rsplit('\n').next().unwrap().to_owned();
        }
        if form == BodyForm::Relaxed {
            for line in &mut lines {
                let mut out = String::new();
                for c in line.chars() {
                    let blank = matches!(c, ' ' | '\t');
                    if !(blank && out.ends_with(' ')) {
                        out.push(if blank { ' ' } else { c });
                    }
                }
                *line = out.strip_suffix(' ').unwrap_or(&out).to_owned();
            }
        }
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        let text = lines.into_iter().fold(String::new(), |text, line| text + &line + "\r\n");
        if text.is_empty() && form == BodyForm::Simple { "\r\n".into() } else { text }
    }

    proptest! {
        #[test]
        fn however_it_is_cut_it_is_what_the_rfc_says(
            pieces in prop::collection::vec(prop::sample::select(vec!["a", " ", "\t", "\r\n", "\r\n", "\n", "\r", "bc d", "é"]), 0..20),
            cut in 1_usize..7,
        ) {
            let body = pieces.concat();
            for form in [BodyForm::Simple, BodyForm::Relaxed] {
                prop_assert_eq!(canonical(form, body.as_bytes(), cut), by_the_book(form, &body));
            }
        }
    }
}
