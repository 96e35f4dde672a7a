//! Reading an mbox file, message by message, with the memory of a line.

use std::io::{self, BufRead, Read};

use super::status::{Field, Marks};
use super::{FROM, separator};
use crate::flow::carry::lines::ToCrlf;
use crate::mail::date::ZonedTime;
use crate::mail::message::FlagNames;

/// Longest part of a line that is looked at as a whole, in bytes.
const PART_MAX: u64 = 8 << 10;

/// The subject of the first "message" that c-client and Dovecot keep their own notes in.
const INTERNAL: &[u8] = b"subject: don't delete this message -- folder internal data";

/// Reads an mbox file from a separator on.
#[derive(Debug)]
pub(in crate::flow::carry) struct Reader<R> {
    input: R,
    /// The line read last, or the part of it that fits.
    line: Vec<u8>,
    /// Where it ends in the file.
    offset: u64,
    lines: ToCrlf,
    /// The date in a separator that was read already, and where that line began.
    separator: Option<(Option<ZonedTime>, u64)>,
}

/// A message that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::flow::carry) struct Found {
    /// Where its separator begins in the file.
    pub(in crate::flow::carry) start: u64,
    /// Where the next separator begins, or the file ends.
    pub(in crate::flow::carry) end: u64,
    /// When it came, as the separator says.
    pub(in crate::flow::carry) date: Option<ZonedTime>,
    pub(in crate::flow::carry) flags: FlagNames,
    /// It is no mail any more, or never was.
    pub(in crate::flow::carry) passed: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads from `input`, which stands at byte `offset` of the file.
    pub(in crate::flow::carry) fn new(input: R, offset: u64) -> Self {
        Self { input, line: Vec::new(), offset, lines: ToCrlf::default(), separator: None }
    }

    /// Hands the next message to `take` in CRLF lines, cut anywhere; `None` at the end of the file.
    ///
    /// # Errors
    /// `InvalidData` when there is no separator where one must be, others as the file gives them.
    pub(in crate::flow::carry) fn next(&mut self, take: &mut dyn FnMut(&[u8])) -> io::Result<Option<Found>> {
        let Some((date, start)) = self.find_separator()? else { return Ok(None) };
        let (mut head, mut blank) = (Head::default(), None);
        let (mut first, mut begins) = (true, true);
        while self.read_part()? {
            let part = self.line.as_slice();
            if begins
                && (first || blank.is_some())
                && part.starts_with(FROM)
                && let Some(date) = separator::date(part)
            {
                self.separator = Some((Some(date), self.offset - part.len() as u64));
                break;
            }
            // A blank line is the file's if a separator or the end comes next.
            if let Some(blank) = blank.take() {
                self.lines.push(blank, take);
            }
            if begins && matches!(part, b"\n" | b"\r\n") {
                blank = Some(b"\r\n");
                head.ended = true;
            } else if !(begins && head.takes_out(part)) {
                self.lines.push(if begins { unquoted(part) } else { part }, take);
            }
            first = false;
            begins = part.ends_with(b"\n");
        }
        self.lines.finish(take);
        let end = self.separator.map_or(self.offset, |(_, start)| start);
        let marks = head.marks();
        Ok(Some(Found { start, end, date, passed: head.internal || marks.expunged, flags: marks.flags }))
    }

    /// The separator at the front: read before, or the next line.
    fn find_separator(&mut self) -> io::Result<Option<(Option<ZonedTime>, u64)>> {
        if let Some(found) = self.separator.take() {
            return Ok(Some(found));
        }
        while self.read_part()? {
            let start = self.offset - self.line.len() as u64;
            match self.line.as_slice() {
                b"\n" | b"\r\n" => {}
                line if line.starts_with(FROM) => return Ok(Some((separator::date(line), start))),
                _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "no mbox file: a `From ` line is missing")),
            }
        }
        Ok(None)
    }

    /// Reads a line, or as much of it as is looked at as a whole; false at the end of the file.
    fn read_part(&mut self) -> io::Result<bool> {
        self.line.clear();
        let read = (&mut self.input).take(PART_MAX).read_until(b'\n', &mut self.line)?;
        self.offset += read as u64;
        Ok(read > 0)
    }
}

/// What is known of a message's header while it goes by.
#[derive(Debug, Default)]
struct Head {
    /// Fields that stand at the very front, as a set of [`Field::bit`].
    seen: u8,
    front: Marks,
    /// From fields further down.
    within: Marks,
    past_front: bool,
    ended: bool,
    internal: bool,
}

impl Head {
    /// Looks at the beginning of a header line; true when it is the file's and not the message's.
    fn takes_out(&mut self, line: &[u8]) -> bool {
        if self.ended {
            return false;
        }
        let found = Field::of(line);
        if let Some((field, body)) = found.filter(|(field, _)| !self.past_front && field.may_follow(self.seen)) {
            self.seen |= field.bit();
            self.front.add(field, body);
            return true;
        }
        self.past_front = true;
        if let Some((field, body)) = found {
            self.within.add(field, body);
        }
        self.internal |= line.get(..INTERNAL.len()).is_some_and(|start| start.eq_ignore_ascii_case(INTERNAL));
        false
    }

    fn marks(&self) -> Marks {
        if self.seen == 0 { self.within.clone() } else { self.front.clone() }
    }
}

/// The line with one `>` less, if it is quoted.
fn unquoted(line: &[u8]) -> &[u8] {
    let quotes = line.iter().take_while(|byte| **byte == b'>').count();
    let is_quoted = quotes > 0 && line.get(quotes..).is_some_and(|rest| rest.starts_with(FROM));
    line.get(usize::from(is_quoted)..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::message::SystemFlags;

    fn read(file: &[u8]) -> Vec<(String, Found)> {
        let mut reader = Reader::new(file, 0);
        let mut all = Vec::new();
        loop {
            let mut bytes = Vec::new();
            match reader.next(&mut |part| bytes.extend_from_slice(part)).unwrap() {
                Some(found) => all.push((String::from_utf8(bytes).unwrap(), found)),
                None => return all,
            }
        }
    }

    fn texts(file: &[u8]) -> Vec<String> {
        read(file).into_iter().map(|(text, _)| text).collect()
    }

    const FIRST: &str = "From ann@example.org Wed Jul 17 02:44:25 1996\n";

    #[test]
    fn messages_are_parted_at_separators_behind_blank_lines() {
        let file =
            format!("{FIRST}Subject: a\n\none\n\n{FIRST}Subject: b\n\ntwo\nFrom here on Wed\n\nFrom us to you\n\n\n");
        let found = read(file.as_bytes());
        assert_eq!(found[0].0, "Subject: a\r\n\r\none\r\n");
        assert_eq!(found[1].0, "Subject: b\r\n\r\ntwo\r\nFrom here on Wed\r\n\r\nFrom us to you\r\n\r\n");
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].1.start, found[0].1.end, found[1].1.end), (0, 63, file.len() as u64));
        assert_eq!(found[0].1.date.unwrap().at.0, 837_571_465);
        let mut rest = Reader::new(&file.as_bytes()[63..], 63);
        assert_eq!(rest.next(&mut |_| ()).unwrap().unwrap(), found[1].1);
    }

    #[test]
    fn crlf_files_and_missing_ends_are_read_alike() {
        let crlf = format!("{FIRST}Subject: a\n\none\n\n{FIRST}\n").replace('\n', "\r\n");
        assert_eq!(texts(crlf.as_bytes()), ["Subject: a\r\n\r\none\r\n", ""]);
        assert_eq!(texts(format!("\n\n{FIRST}Subject: a").as_bytes()), ["Subject: a"]);
        assert_eq!(texts(format!("{FIRST}{FIRST}a: b\n").as_bytes()), ["", "a: b\r\n"]);
        assert!(texts(b"").is_empty());
        assert!(texts(b"\r\n\n").is_empty());
    }

    #[test]
    fn one_quote_is_taken_from_quoted_lines() {
        let file = format!("{FIRST}\n>From a\n>>From b\n>from c\n> From d\n");
        assert_eq!(texts(file.as_bytes()), ["\r\nFrom a\r\n>From b\r\n>from c\r\n> From d\r\n"]);
    }

    #[test]
    fn a_file_that_begins_otherwise_is_no_mbox() {
        let error = Reader::new(&b"Subject: a\n\n"[..], 0).next(&mut |_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_line_longer_than_memory_for_it_comes_through() {
        let long = "x".repeat(100_000) + "From a Wed Jul 17 02:44:25 1996";
        let file = format!("{FIRST}\n{long}\nend\n");
        assert_eq!(texts(file.as_bytes()), [format!("\r\n{long}\r\nend\r\n")]);
        // A part may end between CR and LF.
        let edge = "x".repeat(8191);
        assert_eq!(texts(format!("{FIRST}\n{edge}\r\nend\n").as_bytes()), [format!("\r\n{edge}\r\nend\r\n")]);
    }

    #[test]
    fn flags_at_the_front_are_taken_out_and_others_only_read() {
        let file = format!(
            "{FIRST}Status: RO\nX-Status: F\nStatus: mine\nSubject: a\n\n{FIRST}Subject: b\nStatus: R\n\nStatus: O\n"
        );
        let found = read(file.as_bytes());
        assert_eq!(found[0].0, "Status: mine\r\nSubject: a\r\n");
        assert_eq!(found[0].1.flags.system, SystemFlags::SEEN.union(SystemFlags::FLAGGED));
        assert_eq!(found[1].0, "Subject: b\r\nStatus: R\r\n\r\nStatus: O\r\n");
        assert_eq!(found[1].1.flags.system, SystemFlags::SEEN);
    }

    #[test]
    fn what_is_no_mail_is_passed() {
        let notes = format!("{FIRST}Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\nX-IMAP: 1 2\n\ntext\n");
        assert!(read(notes.as_bytes())[0].1.passed);
        let expunged = format!("{FIRST}X-Mozilla-Status: 0009\nX-Mozilla-Status2: 00000000\nSubject: a\n\n");
        let found = read(expunged.as_bytes());
        assert!(found[0].1.passed);
        assert_eq!(found[0].0, "Subject: a\r\n");
    }
}
