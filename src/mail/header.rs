//! Streams of header fields (RFC 5322 section 2.2, RFC 9051 sections 6.4.4 and 6.4.5.1).
//!
//! [`HeaderFilter`] lets through the fields that HEADER.FIELDS and HEADER.FIELDS.NOT ask for,
//! [`FieldReader`] hands out unfolded fields one by one, and [`HeaderSearch`] looks for a text in
//! them. All three take a header's bytes cut anywhere and hold a bounded part of it, however long
//! its lines are.

use super::lines::{Line, LineCutter};
use super::text::{CharsetDecoder, Finder, decode_words};

/// Longest field name in bytes that is told from another; longer ones are no name anybody asks for.
pub const FIELD_NAME_MAX: usize = 256;

/// Most bytes of one field's body that are read for a search.
pub const FIELD_BODY_MAX: usize = 64 * 1024;

/// Lets through some of a header's fields, as they stand there, and the empty line after them.
#[derive(Clone, Debug)]
pub struct HeaderFilter {
    names: Vec<String>,
    /// Fields with these names are left out and the others let through.
    except: bool,
    state: Filter,
    /// What is known of a line before it is clear which field it begins.
    start: Vec<u8>,
    /// The present field is let through.
    passing: bool,
    /// The last byte let through.
    last: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    /// In the field name at the start of a line.
    Name,
    /// Past it.
    Body,
    /// Past the empty line.
    Done,
}

impl HeaderFilter {
    /// Lets through the fields with these names, in any case (HEADER.FIELDS), or with `except` all
    /// others (HEADER.FIELDS.NOT).
    pub fn new<N: AsRef<str>>(names: &[N], except: bool) -> Self {
        let names = names.iter().map(|name| name.as_ref().to_owned()).collect();
        Self { names, except, state: Filter::Name, start: Vec::new(), passing: except, last: b'\n' }
    }

    /// Takes the next bytes of the header and writes to `out` what passes. Bytes after the empty line
    /// are passed over.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            match self.state {
                Filter::Done => return,
                Filter::Body => {
                    let line = rest.split_inclusive(|&byte| byte == b'\n').next().unwrap_or(rest);
                    self.pass(line, out);
                    if line.ends_with(b"\n") {
                        self.state = Filter::Name;
                    }
                    rest = rest.get(line.len()..).unwrap_or_default();
                }
                Filter::Name if self.start.is_empty() && matches!(byte, b' ' | b'\t') => self.state = Filter::Body,
                Filter::Name => {
                    self.start.push(byte);
                    rest = after;
                    if matches!(byte, b':' | b'\n') || self.start.len() > FIELD_NAME_MAX {
                        self.decide(out);
                    }
                }
            }
        }
    }

    /// Ends the header: writes the empty line, which is always there (RFC 9051 section 6.4.5.1).
    pub fn finish(mut self, out: &mut Vec<u8>) {
        if !self.start.is_empty() {
            self.decide(out);
        }
        if self.last != b'\n' {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The start of a line is known: decides whether it passes.
    fn decide(&mut self, out: &mut Vec<u8>) {
        let start = std::mem::take(&mut self.start);
        if start == b"\n" || start == b"\r\n" {
            self.state = Filter::Done;
            return;
        }
        let name = start.strip_suffix(b":").map(<[u8]>::trim_ascii_end);
        let named = name.is_some_and(|name| self.names.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name)));
        self.passing = named != self.except;
        self.pass(&start, out);
        self.state = if start.ends_with(b"\n") { Filter::Name } else { Filter::Body };
        self.start = start;
        self.start.clear();
    }

    fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.passing {
            out.extend_from_slice(bytes);
            self.last = bytes.last().copied().unwrap_or(self.last);
        }
    }
}

/// Reads the fields of a header one by one, unfolded.
#[derive(Clone, Debug, Default)]
pub struct FieldReader {
    lines: LineCutter,
    field: Vec<u8>,
    done: bool,
}

impl FieldReader {
    /// Begins a header.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and hands out every field that is complete: its name as it is spelled and
    /// its body without white space around it. Of a body only the first [`FIELD_BODY_MAX`] bytes are
    /// read. Lines that are no field are passed over.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8], &[u8])) {
        let mut rest = bytes;
        let mut lines = std::mem::take(&mut self.lines);
        while !self.done
            && let Some(line) = lines.next(&mut rest, FIELD_BODY_MAX)
        {
            self.take(&line, &mut each);
        }
        self.lines = lines;
    }

    /// Ends the header and hands out what is left.
    pub fn finish(mut self, mut each: impl FnMut(&[u8], &[u8])) {
        let mut lines = std::mem::take(&mut self.lines);
        if let Some(line) = lines.rest().filter(|_| !self.done) {
            self.take(&line, &mut each);
        }
        self.hand_out(&mut each);
    }

    fn take(&mut self, line: &Line<'_>, each: &mut impl FnMut(&[u8], &[u8])) {
        let folded = line.kept.first().is_some_and(|byte| matches!(byte, b' ' | b'\t'));
        if !folded {
            self.hand_out(each);
            self.done = line.kept.is_empty();
        } else if self.field.is_empty() {
            return;
        }
        let room = (FIELD_NAME_MAX + FIELD_BODY_MAX).saturating_sub(self.field.len());
        self.field.extend_from_slice(line.kept.get(..room).unwrap_or(line.kept));
    }

    fn hand_out(&mut self, each: &mut impl FnMut(&[u8], &[u8])) {
        let colon = self.field.iter().position(|&byte| byte == b':');
        if let Some((name, body)) = colon.and_then(|colon| self.field.split_at_checked(colon)) {
            each(name.trim_ascii_end(), body.get(1..).unwrap_or_default().trim_ascii());
        }
        self.field.clear();
    }
}

/// Looks for a text in header fields, encoded words decoded (SEARCH HEADER and TEXT).
#[derive(Debug)]
pub struct HeaderSearch {
    name: Option<String>,
    finder: Finder,
    reader: FieldReader,
    seen: bool,
}

impl HeaderSearch {
    /// Looks for `needle` in the fields called `name`, in any case. The empty needle is in every
    /// such field (RFC 9051 section 6.4.4).
    pub fn in_field(name: &str, needle: &str) -> Self {
        Self { name: Some(name.to_owned()), ..Self::in_all(needle) }
    }

    /// Looks for `needle` in all fields, their names included.
    pub fn in_all(needle: &str) -> Self {
        Self { name: None, finder: Finder::new(needle), reader: FieldReader::new(), seen: false }
    }

    /// Takes the next bytes of the header, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.found() {
            return;
        }
        let Self { name, finder, reader, seen } = self;
        reader.feed(bytes, |field, body| *seen |= look(name.as_deref(), finder, field, body));
    }

    /// Ends the header; another may follow.
    pub fn end(&mut self) {
        let Self { name, finder, reader, seen } = self;
        std::mem::take(reader).finish(|field, body| *seen |= look(name.as_deref(), finder, field, body));
    }

    /// Tells whether the text has been found; once it has, the rest need not be fed.
    pub fn found(&self) -> bool {
        self.finder.found() && (self.seen || self.name.is_none())
    }
}

/// Looks into one field; tells whether it is one to look into.
fn look(name: Option<&str>, finder: &mut Finder, field: &[u8], body: &[u8]) -> bool {
    let wanted = name.is_none_or(|name| name.as_bytes().eq_ignore_ascii_case(field));
    if wanted {
        if name.is_none() {
            finder.feed(&String::from_utf8_lossy(field));
            finder.feed(": ");
        }
        finder.feed(&decode_words(&CharsetDecoder::decode_all(None, body)));
        finder.end();
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: &str = "From: ann@x.test\r\nSubject : =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n an alle\r\nTo: bob@x.test,\r\n\tcyn@x.test\r\n\
                          junk\r\nX-Long: 1\r\n\r\nFrom: body\r\n";

    fn filter(header: &str, names: &[&str], except: bool, cut: usize) -> String {
        let mut filter = HeaderFilter::new(names, except);
        let mut out = Vec::new();
        let (front, back) = header.as_bytes().split_at(cut.min(header.len()));
        filter.feed(front, &mut out);
        filter.feed(back, &mut out);
        filter.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    fn fields(header: &str, cut: usize) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut reader = FieldReader::new();
        let (front, back) = header.as_bytes().split_at(cut.min(header.len()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        reader.feed(front, |name, body| found.push((text(name), text(body))));
        reader.feed(back, |name, body| found.push((text(name), text(body))));
        reader.finish(|name, body| found.push((text(name), text(body))));
        found
    }

    #[test]
    fn header_fields_lets_named_fields_through_with_their_folds() {
        let subset = filter(HEADER, &["TO", "subject", "none"], false, 0);
        assert_eq!(
            subset,
            "Subject : =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n an alle\r\nTo: bob@x.test,\r\n\tcyn@x.test\r\n\r\n"
        );
        assert_eq!(filter(HEADER, &["none"], false, 0), "\r\n");
    }

    #[test]
    fn header_fields_not_lets_the_others_through() {
        let subset = filter(HEADER, &["To", "Subject"], true, 0);
        assert_eq!(subset, "From: ann@x.test\r\njunk\r\nX-Long: 1\r\n\r\n");
    }

    #[test]
    fn the_empty_line_is_there_whatever_the_header_lacks() {
        assert_eq!(filter("A: 1", &["a"], false, 0), "A: 1\r\n\r\n");
        assert_eq!(filter("A: 1\n\n", &["a"], false, 0), "A: 1\n\r\n");
        assert_eq!(filter("", &["a"], true, 0), "\r\n");
        assert_eq!(filter("A", &["a"], true, 0), "A\r\n\r\n");
    }

    #[test]
    fn a_filter_holds_no_more_than_a_name() {
        let mut filter = HeaderFilter::new(&["a"], false);
        let mut out = Vec::new();
        for _ in 0..1000 {
            filter.feed(&[b'x'; 1000], &mut out);
            assert!(filter.start.capacity() <= 2 * FIELD_NAME_MAX + 2);
        }
        assert!(out.is_empty());
    }

    #[test]
    fn fields_are_read_unfolded() {
        let found = fields(HEADER, 0);
        let subject = found.iter().find(|(name, _)| name == "Subject").unwrap();
        assert_eq!(subject.1, "=?utf-8?Q?Gr=C3=BC=C3=9Fe?= an alle");
        assert_eq!(
            found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["From", "Subject", "To", "X-Long"]
        );
    }

    #[test]
    fn a_field_reader_has_a_bound() {
        let mut reader = FieldReader::new();
        reader.feed(b"A: ", |_, _| {});
        for _ in 0..1000 {
            reader.feed(&[b'x'; 1000], |_, _| {});
            reader.feed(b"\r\n folded", |_, _| {});
            assert!(reader.field.capacity() + reader.lines.capacity() <= 4 * FIELD_BODY_MAX);
        }
    }

    #[test]
    fn a_header_search_decodes_what_it_looks_into() {
        let search = |mut search: HeaderSearch| {
            search.feed(HEADER.as_bytes());
            search.end();
            search.found()
        };
        assert!(search(HeaderSearch::in_field("SUBJECT", "GRÜSSE".replace("SS", "ß").as_str())));
        assert!(search(HeaderSearch::in_field("subject", "grüße an")));
        assert!(search(HeaderSearch::in_field("x-long", "")));
        assert!(!search(HeaderSearch::in_field("x-none", "")));
        assert!(!search(HeaderSearch::in_field("from", "bob")));
        assert!(search(HeaderSearch::in_all("to: bob@x.test,\tcyn")));
        assert!(!search(HeaderSearch::in_all("body")));
    }

    proptest! {
        #[test]
        fn where_the_input_is_cut_makes_no_difference(header in "[ab:\r\n \t]{0,40}", cut in 0_usize..40) {
            for except in [false, true] {
                prop_assert_eq!(filter(&header, &["a"], except, cut), filter(&header, &["a"], except, 0));
            }
            prop_assert_eq!(fields(&header, cut), fields(&header, 0));
        }

        #[test]
        fn every_field_passes_one_of_two_opposite_filters(header in "([abc]{1,2}: ?[a-z]{0,3}(\r\n [a-z]{1,3})?\r\n){0,6}") {
            let (with, without) = (filter(&header, &["a"], false, 0), filter(&header, &["a"], true, 0));
            prop_assert_eq!(with.len() + without.len(), header.len() + 4);
        }
    }
}
