//! A message's header as it streams by on its way in (RFC 5321 section 4.4, RFC 6409 section 8).
//!
//! A Return-Path is taken out, and of mail that we judge what poses as our word. Received fields are
//! counted, what a submission lacks is added at the header's end, and a message without an empty line
//! between header and body gets one, so that our own fields never swallow its first line. Only the
//! beginning of one line is ever held back; every other byte passes as it came.

use super::carry::mbox::separator;

/// Most bytes of a line held back to see whether it begins a field. A longer name is none: RFC 5322
/// lines have at most 998 bytes, and the longest registered name has 40.
const NAME_MAX: usize = 256;

/// Most bytes of an Authentication-Results field held back to see in whose name it speaks.
const RESULTS_MAX: usize = 256;

/// How the names of the fields begin that the spam filter writes, in lower case.
const OURS: &[u8] = b"x-spam-";

/// Fields to add at the end of the header where the message has none of that name.
#[derive(Clone, Debug, Default)]
pub struct Additions {
    /// A Message-ID field with its CRLF.
    pub message_id: Option<String>,
    /// A Date field with its CRLF.
    pub date: Option<String>,
}

/// How the field is called that says what was found about a sender, in lower case.
const RESULTS: &[u8] = b"authentication-results";

/// What to take out of a header besides Return-Path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    /// The fields our spam filter writes.
    pub spam: bool,
    /// Authentication-Results fields in this name, ours (RFC 8601 section 5).
    pub results_of: Option<String>,
    /// What a list says of itself.
    pub list: bool,
    /// Reply-To.
    pub reply_to: bool,
}

impl Foreign {
    /// Tells whether a field of this name, in lower case, is taken out whatever it says.
    fn takes_out(&self, name: &[u8]) -> bool {
        name == b"return-path"
            || self.spam && name.starts_with(OURS)
            || self.list && (name.starts_with(b"list-") || name == b"precedence")
            || self.reply_to && name == b"reply-to"
    }
}

/// Where the reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the beginning of a line, which is held back.
    Start,
    /// Within a line that is kept.
    Kept,
    /// Within a line that is taken out.
    TakenOut,
    /// Behind the header.
    Body,
}

/// What the beginning of a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    /// Too little to tell.
    Unclear,
    /// A field whose name has this many bytes.
    Field(usize),
    /// More of the field before.
    Continuation,
    /// The empty line.
    Empty,
    /// The `From ` line of an mbox file, as careless programs send it along.
    Mbox,
    /// No part of a header.
    Body,
}

/// Reads the header of a message that is cut anywhere.
#[derive(Clone, Debug)]
pub struct Heading {
    place: Place,
    held: Vec<u8>,
    /// The field in progress is taken out.
    taking_out: bool,
    first: bool,
    received: u32,
    additions: Additions,
    foreign: Foreign,
}

impl Heading {
    /// Begins a message.
    pub fn new(additions: Additions, foreign: Foreign) -> Self {
        Self { place: Place::Start, held: Vec::new(), taking_out: false, first: true, received: 0, additions, foreign }
    }

    /// Tells whether the header is over: what follows needs no pass through here.
    pub fn is_over(&self) -> bool {
        self.place == Place::Body
    }

    /// How many Received fields the message came with.
    pub fn received(&self) -> u32 {
        self.received
    }

    /// Takes the next bytes and appends what is kept to `out`.
    pub fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            match self.place {
                Place::Start => {
                    self.held.push(byte);
                    rest = after;
                    self.decide(out);
                }
                Place::Kept | Place::TakenOut => {
                    let end = rest.iter().position(|&byte| byte == b'\n');
                    let (line, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
                    if self.place == Place::Kept {
                        out.extend_from_slice(line);
                    }
                    if end.is_some() {
                        self.place = Place::Start;
                    }
                    rest = after;
                }
                Place::Body => {
                    out.extend_from_slice(rest);
                    return;
                }
            }
        }
    }

    /// Ends the message and appends what was held back.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.place == Place::Body {
            return;
        }
        if self.place == Place::Kept {
            // The last line has no end, as BDAT allows.
            out.extend_from_slice(b"\r\n");
        }
        if matches!(beginning(&self.held, self.first), Beginning::Field(_)) {
            // It was waited for the name it speaks in.
            self.held = Vec::new();
        }
        self.end_header(out, !self.held.is_empty());
    }

    /// Decides about the line in progress, if its beginning suffices.
    fn decide(&mut self, out: &mut Vec<u8>) {
        let beginning = beginning(&self.held, self.first);
        match beginning {
            Beginning::Unclear => return,
            Beginning::Empty => return self.end_header(out, false),
            Beginning::Body => return self.end_header(out, true),
            Beginning::Continuation => {}
            Beginning::Mbox => self.taking_out = true,
            Beginning::Field(length) => {
                let name = self.held.get(..length).unwrap_or_default().to_ascii_lowercase();
                let poses = match &self.foreign.results_of {
                    Some(host) if name == RESULTS => match poses_as(&self.held, host) {
                        Some(poses) => poses,
                        // More of it has to be there; what says nothing for so long is no good.
                        None if self.held.len() < RESULTS_MAX => return,
                        None => true,
                    },
                    _ => false,
                };
                self.taking_out = self.foreign.takes_out(&name) || poses;
                match name.as_slice() {
                    b"received" => self.received = self.received.saturating_add(1),
                    b"message-id" => self.additions.message_id = None,
                    b"date" => self.additions.date = None,
                    _ => {}
                }
            }
        }
        self.first = false;
        self.place = if self.taking_out { Place::TakenOut } else { Place::Kept };
        let held = std::mem::take(&mut self.held);
        self.pass(&held, out);
    }

    /// Adds what is missing, then what was held back: the empty line, or a line of the body, which
    /// gets an empty line before it.
    fn end_header(&mut self, out: &mut Vec<u8>, separate: bool) {
        for field in [self.additions.message_id.take(), self.additions.date.take()].into_iter().flatten() {
            out.extend_from_slice(field.as_bytes());
        }
        if separate {
            out.extend_from_slice(b"\r\n");
        }
        out.append(&mut self.held);
        self.held = Vec::new();
        self.place = Place::Body;
    }
}

/// Tells whether an Authentication-Results field speaks in the name of `host`, if enough of it is there: the name
/// comes first, behind blanks, folds and comments (RFC 8601 section 2.2), and may stand in quotes.
fn poses_as(field: &[u8], host: &str) -> Option<bool> {
    let colon = field.iter().position(|&byte| byte == b':')?;
    let mut rest = field.get(colon + 1..)?;
    let mut depth = 0_usize;
    loop {
        let (&byte, after) = rest.split_first()?;
        match byte {
            b'(' => depth += 1,
            b')' if depth > 0 => depth -= 1,
            // A fold, or the field's end: then it names nobody.
            b'\n' if !matches!(after.first()?, b' ' | b'\t') => return Some(false),
            _ if depth > 0 || byte.is_ascii_whitespace() => {}
            _ => break,
        }
        rest = after;
    }
    let quoted = rest.first() == Some(&b'"');
    let rest = if quoted { rest.get(1..)? } else { rest };
    let ends = |byte: &u8| if quoted { *byte == b'"' } else { byte.is_ascii_whitespace() || b";(/".contains(byte) };
    let end = rest.iter().position(ends)?;
    let name = rest.get(..end)?;
    Some(name.trim_ascii().eq_ignore_ascii_case(host.as_bytes()))
}

/// Reads the beginning of a line (RFC 5322 section 2.2; a blank before the colon is section 4.5's).
fn beginning(line: &[u8], first: bool) -> Beginning {
    const MBOX: &[u8] = b"From ";
    match line {
        b"" | b"\r" => return Beginning::Unclear,
        b"\r\n" | b"\n" => return Beginning::Empty,
        [b' ' | b'\t', ..] if !first => return Beginning::Continuation,
        _ => {}
    }
    let name = line.iter().position(|byte| !matches!(byte, b'!'..=b'9' | b';'..=b'~')).unwrap_or(line.len());
    let blanks = line.iter().skip(name).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    match line.get(name + blanks) {
        _ if first && line.starts_with(MBOX) => Beginning::Mbox,
        // What stood first before somebody wrote fields above it. Text may begin so as well, so all of it
        // has to be there.
        _ if line.starts_with(MBOX) && !line.ends_with(b"\n") && line.len() < NAME_MAX => Beginning::Unclear,
        _ if line.starts_with(MBOX) && separator::date(line).is_some() => Beginning::Mbox,
        Some(b':') if name > 0 => Beginning::Field(name),
        None if name > 0 && line.len() < NAME_MAX => Beginning::Unclear,
        _ => Beginning::Body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn additions() -> Additions {
        Additions { message_id: Some("Message-ID: <1@x>\r\n".into()), date: Some("Date: now\r\n".into()) }
    }

    fn pass(text: &str, cut: usize, additions: Additions) -> (String, u32) {
        let mut heading = Heading::new(
            additions,
            Foreign { spam: true, results_of: Some("me.test".to_owned()), ..Foreign::default() },
        );
        let mut out = Vec::new();
        for piece in text.as_bytes().chunks(cut) {
            heading.pass(piece, &mut out);
            assert!(heading.held.len() <= RESULTS_MAX);
        }
        heading.finish(&mut out);
        (String::from_utf8(out).unwrap(), heading.received())
    }

    fn plain(text: &str) -> String {
        pass(text, 1000, Additions::default()).0
    }

    #[test]
    fn a_return_path_is_taken_out_with_its_continuation() {
        let text =
            "A: 1\r\nreturn-path :\r\n <x@y>\r\nReturn-Path-2: 3\r\nReturn-Path: <>\r\n\r\nReturn-Path: body\r\n";
        assert_eq!(plain(text), "A: 1\r\nReturn-Path-2: 3\r\n\r\nReturn-Path: body\r\n");
    }

    #[test]
    fn a_spam_filters_word_that_came_along_is_taken_out() {
        let text =
            "A: 1\r\nX-Spam-Status: No\r\n score=-9\r\nx-spam-flag : NO\r\nX-Spammer: 3\r\n\r\nX-Spam-Level: *\r\n";
        assert_eq!(plain(text), "A: 1\r\nX-Spammer: 3\r\n\r\nX-Spam-Level: *\r\n");
        let (mut kept, mut heading) = (Vec::new(), Heading::new(Additions::default(), Foreign::default()));
        heading.pass(text.as_bytes(), &mut kept);
        assert_eq!(kept, text.as_bytes(), "where another filter judges");
    }

    #[test]
    fn what_poses_as_our_results_is_taken_out_and_others_words_stay() {
        for forged in
            ["me.test; spf=pass", " ME.test", "\r\n\tme.test;", " (x(y)) me.test 1; dkim=pass", " \"me.test\";"]
        {
            let text = format!("A: 1\r\nAuthentication-Results:{forged}\r\n\tmore\r\nB: 2\r\n\r\nhi\r\n");
            assert_eq!(plain(&text), "A: 1\r\nB: 2\r\n\r\nhi\r\n", "{forged:?}");
            assert_eq!(pass(&text, 1, Additions::default()), pass(&text, 999, Additions::default()), "{forged:?}");
        }
        for other in [" you.test; spf=pass", " me.test.you.test;", ";me.test", "", " (me.test) you.test;"] {
            let text = format!("A: 1\r\nauthentication-results:{other}\r\nB: 2\r\n\r\nhi\r\n");
            assert_eq!(plain(&text), text, "{other:?}");
            assert_eq!(pass(&text, 1, Additions::default()), pass(&text, 999, Additions::default()), "{other:?}");
        }
        // A name that does not come.
        let long = format!("A: 1\r\nAuthentication-Results:{}me.test\r\n\r\nhi\r\n", " ".repeat(5000));
        assert_eq!(plain(&long), "A: 1\r\n\r\nhi\r\n");
        // The message ends in it.
        assert_eq!(plain("A: 1\r\nAuthentication-Results: me.test"), "A: 1\r\n");
    }

    #[test]
    fn what_is_missing_is_added_at_the_end_of_the_header() {
        assert_eq!(
            pass("A: 1\r\n b\r\n\r\nhi\r\n", 99, additions()).0,
            "A: 1\r\n b\r\nMessage-ID: <1@x>\r\nDate: now\r\n\r\nhi\r\n"
        );
        let whole = "date: then\r\nMESSAGE-ID: <2@y>\r\n\r\nhi\r\n";
        assert_eq!(pass(whole, 99, additions()).0, whole);
        assert_eq!(pass("A: 1", 99, additions()).0, "A: 1\r\nMessage-ID: <1@x>\r\nDate: now\r\n");
        assert_eq!(pass("", 99, additions()).0, "Message-ID: <1@x>\r\nDate: now\r\n");
    }

    #[test]
    fn a_body_without_a_header_gets_an_empty_line_before_it() {
        assert_eq!(plain(".hidden\r\n"), "\r\n.hidden\r\n");
        assert_eq!(plain("A: 1\r\nno field\r\nB: 2\r\n"), "A: 1\r\n\r\nno field\r\nB: 2\r\n");
        assert_eq!(plain(" indented\r\n"), "\r\n indented\r\n");
        assert_eq!(plain("abc"), "\r\nabc");
        assert_eq!(plain(&"x".repeat(300)), format!("\r\n{}", "x".repeat(300)));
        assert_eq!(plain("Jürgen: x\r\n"), "\r\nJürgen: x\r\n");
    }

    #[test]
    fn the_from_line_of_an_mbox_file_is_taken_out_of_a_header() {
        assert_eq!(plain("From ann Mon Jan  1\r\nA: 1\r\n\r\nhi\r\n"), "A: 1\r\n\r\nhi\r\n");
        assert_eq!(plain("A: 1\r\nFrom ann\r\n"), "A: 1\r\n\r\nFrom ann\r\n");
        assert_eq!(plain("A: 1\r\nFrom ann, with love\r\nB: 2\r\n"), "A: 1\r\n\r\nFrom ann, with love\r\nB: 2\r\n");
        // But with its date behind fields that somebody wrote above it, too.
        let below = "X: 1\r\nFrom ann@x.test  Sun Apr  8 13:07:32 2007\r\nA: 1\r\n\r\nhi\r\n";
        assert_eq!(plain(below), "X: 1\r\nA: 1\r\n\r\nhi\r\n");
        assert_eq!(pass(below, 3, Additions::default()), pass(below, 999, Additions::default()));
        assert_eq!(plain("From: ann\r\n\r\n"), "From: ann\r\n\r\n");
    }

    #[test]
    fn received_fields_are_counted_in_the_header_alone() {
        assert_eq!(pass("Received: a\r\nRECEIVED: b\r\n\tc\r\n\r\nReceived: d\r\n", 99, Additions::default()).1, 2);
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_changes_nothing(
            lines in prop::collection::vec(prop::sample::select(vec!["A: 1\r\n", " b\r\n", "Return-Path: x\r\n", "Date : y\r\n", "\r\n", "From z\r\n", "x", "Received:\r\n", "\n"]), 0..8),
            cut in 1_usize..9,
        ) {
            let text = lines.concat();
            prop_assert_eq!(pass(&text, cut, additions()), pass(&text, 1000, additions()));
        }

        #[test]
        fn the_body_passes_untouched(body in "[ -~\\r\\n]{0,60}") {
            let kept = plain(&format!("A: 1\r\n\r\n{body}"));
            prop_assert_eq!(kept, format!("A: 1\r\n\r\n{body}"));
        }
    }
}
