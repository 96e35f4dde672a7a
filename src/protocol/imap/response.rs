//! Spells the pieces of responses (RFC 9051 section 9).
//!
//! Everything is appended to a buffer the session owns and reuses; numbers, flags, sets and strings
//! allocate nothing, since FETCH FLAGS of a large mailbox passes through here for each message.
//! Strings are quoted where every client can read them quoted, and literals otherwise.

use crate::mail::date::ZonedTime;
use crate::mail::mailbox::MailboxName;
use crate::mail::message::{Flags, KEYWORDS_MAX, Keywords, SystemFlags, UidSet};
use crate::mail::rights::Rights;

use super::name;
use super::token::is_atom_char;

/// Longest text written as a quoted string; a longer one is a literal, which clients read in one go.
const QUOTED_MAX: usize = 4096;

/// The system flags in the order in which they are shown.
const SYSTEM_FLAGS: [(SystemFlags, &[u8]); 5] = [
    (SystemFlags::ANSWERED, b"\\Answered"),
    (SystemFlags::FLAGGED, b"\\Flagged"),
    (SystemFlags::DELETED, b"\\Deleted"),
    (SystemFlags::SEEN, b"\\Seen"),
    (SystemFlags::DRAFT, b"\\Draft"),
];

/// A status response's condition (RFC 9051 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are RFC 9051's")]
pub enum Condition {
    Ok,
    No,
    Bad,
    PreAuth,
    Bye,
}

/// Writes a whole status response: `tag OK [CODE] text` CRLF, untagged without a tag. `text` may
/// begin with a response code of its own when `code` is none.
pub fn write_status(out: &mut Vec<u8>, tag: Option<&str>, condition: Condition, code: Option<&str>, text: &str) {
    out.extend_from_slice(tag.unwrap_or("*").as_bytes());
    out.extend_from_slice(match condition {
        Condition::Ok => b" OK ",
        Condition::No => b" NO ",
        Condition::Bad => b" BAD ",
        Condition::PreAuth => b" PREAUTH ",
        Condition::Bye => b" BYE ",
    });
    if let Some(code) = code {
        out.push(b'[');
        out.extend_from_slice(code.as_bytes());
        out.extend_from_slice(b"] ");
    }
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes a number in decimal.
pub fn write_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = heapless::Vec::<u8, 20>::new();
    let mut rest = number;
    loop {
        // A remainder by ten fits a byte; twenty digits hold any u64.
        let _ = digits.push(b'0' + u8::try_from(rest % 10).unwrap_or(0));
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend(digits.iter().rev());
}

/// Writes a string as quoted where it may be and as a literal otherwise.
pub fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    let quotable = |byte: &u8| byte.is_ascii() && !matches!(byte, b'\r' | b'\n' | 0);
    if text.len() <= QUOTED_MAX && text.iter().all(quotable) {
        write_quoted(out, text);
    } else {
        write_literal_header(out, text.len() as u64, text.contains(&0));
        out.extend_from_slice(text);
    }
}

/// Writes a string, or NIL when there is none.
pub fn write_nstring(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        Some(text) => write_string(out, text),
        None => out.extend_from_slice(b"NIL"),
    }
}

/// Writes a string bare where it may be an atom, and as [`write_string`] does otherwise. `NIL` is
/// quoted: bare it would be read as none.
pub fn write_astring(out: &mut Vec<u8>, text: &[u8]) {
    if is_atom(text) {
        out.extend_from_slice(text);
    } else {
        write_string(out, text);
    }
}

/// Writes the header of a literal of `size` bytes with its CRLF; with `binary` that of a literal8,
/// which alone may hold NUL (RFC 9051 section 4.3.1).
pub fn write_literal_header(out: &mut Vec<u8>, size: u64, binary: bool) {
    out.extend_from_slice(if binary { b"~{" } else { b"{" });
    write_number(out, size);
    out.extend_from_slice(b"}\r\n");
}

/// Writes a mailbox name as an astring: UTF-8 when `utf8` (IMAP4rev2 or UTF8=ACCEPT is on), else
/// modified UTF-7 (RFC 3501 section 5.1.3).
pub fn write_mailbox(out: &mut Vec<u8>, name: &MailboxName, utf8: bool) {
    write_name(out, name.as_str(), utf8);
}

/// Writes a text that is spelled like a mailbox name, such as a LIST reference, as
/// [`write_mailbox`] does.
pub fn write_name(out: &mut Vec<u8>, text: &str, utf8: bool) {
    if text.is_ascii() && (utf8 || !text.contains('&')) {
        write_astring(out, text.as_bytes());
    } else if utf8 && !text.contains(['\r', '\n', '\0']) {
        write_quoted(out, text.as_bytes());
    } else {
        let mut encoded = Vec::with_capacity(text.len() * 2);
        name::encode_utf7(&mut encoded, text);
        write_astring(out, &encoded);
    }
}

/// Writes a parenthesised flag list; `\Recent` at its end when `recent`.
pub fn write_flags(out: &mut Vec<u8>, flags: Flags, keywords: &Keywords, recent: bool) {
    out.push(b'(');
    let start = out.len();
    for (flag, spelling) in SYSTEM_FLAGS {
        if flags.system.contains(flag) {
            out.extend_from_slice(spelling);
            out.push(b' ');
        }
    }
    if flags.keywords != 0 {
        for keyword in keywords.names(flags.keywords) {
            out.extend_from_slice(keyword.as_str().as_bytes());
            out.push(b' ');
        }
    }
    if recent {
        out.extend_from_slice(b"\\Recent ");
    }
    close_list(out, start);
}

/// Writes a mailbox's flags.
pub fn write_mailbox_flags(out: &mut Vec<u8>, keywords: &Keywords) {
    write_flags_there(out, keywords, Rights::ALL, false);
}

/// Writes those of a mailbox's flags that may be kept there with these rights (RFC 4314 section 5.2), `\*`
/// among them where new keywords may come.
pub fn write_permanent_flags(out: &mut Vec<u8>, keywords: &Keywords, rights: Rights) {
    write_flags_there(out, keywords, rights, keywords.0.len() < KEYWORDS_MAX);
}

fn write_flags_there(out: &mut Vec<u8>, keywords: &Keywords, rights: Rights, new_keywords: bool) {
    out.push(b'(');
    let start = out.len();
    let system = rights.system_flags();
    for (_, spelling) in SYSTEM_FLAGS.iter().filter(|(flag, _)| system.contains(*flag)) {
        out.extend_from_slice(spelling);
        out.push(b' ');
    }
    if rights.has(Rights::WRITE) {
        for keyword in &keywords.0 {
            out.extend_from_slice(keyword.as_str().as_bytes());
            out.push(b' ');
        }
        if new_keywords {
            out.extend_from_slice(b"\\* ");
        }
    }
    close_list(out, start);
}

/// Writes a non-empty set as `uid-set`.
pub fn write_uids(out: &mut Vec<u8>, uids: &UidSet) {
    write_ranges(out, uids.ranges().iter().map(|(first, last)| (first.get(), last.get())));
}

/// Writes inclusive ranges of message numbers or uids as a `sequence-set`.
pub fn write_ranges(out: &mut Vec<u8>, ranges: impl IntoIterator<Item = (u32, u32)>) {
    for (index, (first, last)) in ranges.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_number(out, u64::from(first));
        if last != first {
            out.push(b':');
            write_number(out, u64::from(last));
        }
    }
}

/// Writes a `date-time` with its quotes.
pub fn write_date_time(out: &mut Vec<u8>, time: ZonedTime) {
    out.push(b'"');
    out.extend_from_slice(time.to_imap().as_bytes());
    out.push(b'"');
}

/// An atom that nobody takes for something else.
fn is_atom(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_atom_char(*byte)) && !text.eq_ignore_ascii_case(b"NIL")
}

/// Writes `text`, which holds no CR, LF or NUL, between quotes.
fn write_quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// Ends a list whose items each brought a space along.
fn close_list(out: &mut Vec<u8>, start: usize) {
    if out.len() > start {
        out.pop();
    }
    out.push(b')');
}

#[cfg(test)]
mod tests {
    use super::super::token::Cursor;
    use super::*;
    use crate::mail::date::Timestamp;
    use crate::mail::mailbox::Uid;
    use crate::mail::message::Keyword;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_string_is_quoted_only_where_every_client_reads_it() {
        assert_eq!(written(|out| write_string(out, br#"a "b" \c"#)), r#""a \"b\" \\c""#);
        assert_eq!(written(|out| write_string(out, b"")), r#""""#);
        assert_eq!(written(|out| write_string(out, b"a\r\nb")), "{4}\r\na\r\nb");
        assert_eq!(written(|out| write_string(out, "é".as_bytes())), "{2}\r\né");
        assert_eq!(written(|out| write_string(out, b"a\0")), "~{2}\r\na\0");
        assert_eq!(written(|out| write_nstring(out, None)), "NIL");
        assert_eq!(written(|out| write_string(out, &[b'x'; 5000])).len(), "{5000}\r\n".len() + 5000);
    }

    #[test]
    fn an_astring_is_bare_where_it_may_be() {
        assert_eq!(written(|out| write_astring(out, b"INBOX/a.b")), "INBOX/a.b");
        assert_eq!(written(|out| write_astring(out, b"nil")), r#""nil""#);
        assert_eq!(written(|out| write_astring(out, b"a b")), r#""a b""#);
        assert_eq!(written(|out| write_astring(out, b"")), r#""""#);
    }

    #[test]
    fn a_mailbox_name_is_spelled_as_the_client_reads_it() {
        let name = MailboxName::new("Entwürfe & mehr").unwrap();
        assert_eq!(written(|out| write_mailbox(out, &name, true)), "\"Entwürfe & mehr\"");
        assert_eq!(written(|out| write_mailbox(out, &name, false)), "\"Entw&APw-rfe &- mehr\"");
        let name = MailboxName::new("Q&A").unwrap();
        assert_eq!(written(|out| write_mailbox(out, &name, true)), "Q&A");
        assert_eq!(written(|out| write_mailbox(out, &name, false)), "Q&-A");
    }

    #[test]
    fn flags_stand_in_one_list() {
        let keywords = Keywords(vec![Keyword::new("$Junk").unwrap(), Keyword::new("later").unwrap()]);
        let flags = Flags { system: SystemFlags::SEEN.union(SystemFlags::ANSWERED), keywords: 2 };
        assert_eq!(written(|out| write_flags(out, flags, &keywords, true)), r"(\Answered \Seen later \Recent)");
        assert_eq!(written(|out| write_flags(out, Flags::default(), &keywords, false)), "()");
        assert_eq!(
            written(|out| write_permanent_flags(out, &keywords, Rights::ALL)),
            r"(\Answered \Flagged \Deleted \Seen \Draft $Junk later \*)"
        );
    }

    #[test]
    fn sets_and_times_are_spelled_as_the_rfc_does() {
        let uids: UidSet = [1, 2, 3, 7, u32::MAX].into_iter().filter_map(Uid::new).collect();
        assert_eq!(written(|out| write_uids(out, &uids)), "1:3,7,4294967295");
        let time = ZonedTime { at: Timestamp(837_596_665), offset_mins: -420 };
        assert_eq!(written(|out| write_date_time(out, time)), "\"17-Jul-1996 02:44:25 -0700\"");
        let early = ZonedTime { at: Timestamp(0), offset_mins: 0 };
        assert_eq!(written(|out| write_date_time(out, early)), "\" 1-Jan-1970 00:00:00 +0000\"");
    }

    #[test]
    fn a_status_response_is_one_line() {
        assert_eq!(
            written(|out| write_status(out, Some("a1"), Condition::No, Some("TRYCREATE"), "no such mailbox")),
            "a1 NO [TRYCREATE] no such mailbox\r\n"
        );
        assert_eq!(written(|out| write_status(out, None, Condition::Bye, None, "later")), "* BYE later\r\n");
    }

    proptest! {
        #[test]
        fn numbers_are_spelled_in_decimal(number in any::<u64>()) {
            prop_assert_eq!(written(|out| write_number(out, number)), number.to_string());
        }

        #[test]
        fn what_is_written_reads_back(text in prop::collection::vec(any::<u8>(), 0..60)) {
            for write in [write_string, write_astring] {
                let mut out = Vec::new();
                write(&mut out, &text);
                let mut cursor = Cursor::new(&out);
                let read = cursor.astring().unwrap().into_owned();
                prop_assert_eq!(&read, &text);
                prop_assert!(cursor.is_at_end());
            }
        }
    }
}
