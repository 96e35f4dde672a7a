//! What SORT goes by (RFC 5256 sections 2 and 3, RFC 5957): criteria as bytes that compare as the
//! messages do, and the base subject, which THREAD needs too.

use crate::mail::date::ZonedTime;
use crate::mail::message::Message;
use crate::mail::structure::{Field, MailAddress, Structure, addresses};
use crate::mail::text::{decode_words, each_folded};

use super::search::{SortBy, SortKey};

/// Most bytes of one text that count in the order.
const TEXT_MAX: usize = 512;

/// Most words that are taken off the front of a subject; real ones have a handful.
const LEADERS_MAX: usize = 64;

/// Tells whether SORT by `order` must know more of messages than their rows.
#[must_use]
pub fn needs_structure(order: &[SortKey]) -> bool {
    order.iter().any(|key| !matches!(key.by, SortBy::Arrival | SortBy::Size))
}

/// What a message is sorted by, as bytes: all criteria one after the other, none the front of another.
#[must_use]
pub fn sort_bytes(order: &[SortKey], message: &Message, structure: Option<&Structure>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for key in order {
        let start = bytes.len();
        let field = |field| structure.and_then(|structure| structure.field(field)).unwrap_or_default();
        match key.by {
            SortBy::Arrival => time(&mut bytes, message.internal_date.at.0),
            SortBy::Size => bytes.extend_from_slice(&message.size.to_be_bytes()),
            SortBy::Date => time(&mut bytes, sent(Some(field(Field::Date)), message)),
            SortBy::Subject => text(&mut bytes, &Subject::of(&decode_words(field(Field::Subject))).base),
            SortBy::Cc => text(&mut bytes, &mailbox(field(Field::Cc))),
            SortBy::From => text(&mut bytes, &mailbox(field(Field::From))),
            SortBy::To => text(&mut bytes, &mailbox(field(Field::To))),
            SortBy::DisplayFrom => text(&mut bytes, &display(field(Field::From))),
            SortBy::DisplayTo => text(&mut bytes, &display(field(Field::To))),
        }
        if key.reverse {
            for byte in bytes.iter_mut().skip(start) {
                *byte = !*byte;
            }
        }
    }
    bytes
}

/// When a message was sent, in seconds since 1970; when it came where it does not say
/// (RFC 5256 section 2.2).
#[must_use]
pub fn sent(date: Option<&str>, message: &Message) -> i64 {
    date.and_then(ZonedTime::parse_rfc5322).unwrap_or(message.internal_date).at.0
}

/// Five bytes: from before 1970 to the year 19,000 or so.
fn time(bytes: &mut Vec<u8>, seconds: i64) {
    let [_, _, _, five @ ..] = (seconds.clamp(-(1 << 38), 1 << 38) + (1 << 38)).to_be_bytes();
    bytes.extend_from_slice(&five);
}

/// A text by its letters without regard to case, after the manner of i;unicode-casemap; ends with a
/// byte that is lower than any.
fn text(bytes: &mut Vec<u8>, text: &str) {
    let end = bytes.len() + TEXT_MAX;
    each_folded(text, |c| {
        if bytes.len() < end && c != '\0' {
            bytes.extend_from_slice(c.to_ascii_uppercase().encode_utf8(&mut [0; 4]).as_bytes());
        }
    });
    bytes.push(0);
}

/// The local part of the first address (RFC 5256 section 3: `addr-mailbox`).
fn mailbox(field: &str) -> String {
    let first = addresses(field).into_iter().next();
    match first {
        Some(MailAddress::Mailbox { local, .. }) => local,
        Some(MailAddress::Group(name)) => name,
        Some(MailAddress::GroupEnd) | None => String::new(),
    }
}

/// The name of the first address, or the address where it has none (RFC 5957 section 3).
fn display(field: &str) -> String {
    let first = addresses(field).into_iter().next();
    match first {
        Some(MailAddress::Mailbox { name: Some(name), .. }) if !name.trim().is_empty() => decode_words(&name),
        Some(MailAddress::Mailbox { local, host, .. }) if host.is_empty() => local,
        Some(MailAddress::Mailbox { local, host, .. }) => format!("{local}@{host}"),
        Some(MailAddress::Group(name)) => decode_words(&name),
        Some(MailAddress::GroupEnd) | None => String::new(),
    }
}

/// What a subject is about (RFC 5256 section 2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The subject without `Re:`, `Fwd:`, `[list]` and `(fwd)`, in one case.
    pub base: String,
    /// Something of it said that it answers or forwards.
    pub answers: bool,
}

impl Subject {
    /// Takes a subject apart, encoded words undone.
    #[must_use]
    pub fn of(subject: &str) -> Self {
        let mut spaced = String::with_capacity(subject.len());
        for word in subject.split_whitespace() {
            if !spaced.is_empty() {
                spaced.push(' ');
            }
            spaced.push_str(word);
        }
        let mut rest = spaced.as_str();
        let mut answers = false;
        for _ in 0..LEADERS_MAX {
            let before = rest.len();
            rest = without_trailers(rest, &mut answers);
            loop {
                let length = rest.len();
                rest = without_leader(rest, &mut answers);
                rest = without_blob(rest);
                if rest.len() == length {
                    break;
                }
            }
            if let Some(inner) = forwarded(rest) {
                answers = true;
                rest = inner;
            }
            if rest.len() == before {
                break;
            }
        }
        let mut base = String::with_capacity(rest.len());
        each_folded(rest, |c| base.push(c));
        Self { base, answers }
    }
}

/// Without `(fwd)` and white space at the end.
fn without_trailers<'t>(subject: &'t str, answers: &mut bool) -> &'t str {
    let mut subject = subject.trim_end();
    while let Some(rest) = strip_end(subject, "(fwd)") {
        *answers = true;
        subject = rest.trim_end();
    }
    subject
}

fn strip_end<'t>(text: &'t str, end: &str) -> Option<&'t str> {
    let at = text.len().checked_sub(end.len())?;
    let (front, found) = text.split_at_checked(at)?;
    found.eq_ignore_ascii_case(end).then_some(front)
}

fn strip_front<'t>(text: &'t str, front: &str) -> Option<&'t str> {
    let (found, rest) = text.split_at_checked(front.len())?;
    found.eq_ignore_ascii_case(front).then_some(rest)
}

/// Without `Re:`, `Fw:` or `Fwd:` at the front, blobs before and within it.
fn without_leader<'t>(subject: &'t str, answers: &mut bool) -> &'t str {
    let subject = subject.trim_start();
    let mut rest = subject;
    while let Some((_, behind)) = blob(rest) {
        rest = behind;
    }
    let word = ["re", "fwd", "fw"].iter().find_map(|word| strip_front(rest, word));
    let Some(behind) = word.map(str::trim_start) else { return subject };
    let behind = blob(behind).map_or(behind, |(_, behind)| behind);
    match behind.strip_prefix(':') {
        Some(behind) => {
            *answers = true;
            behind.trim_start()
        }
        None => subject,
    }
}

/// Without `[list]` at the front, where something is left then.
fn without_blob(subject: &str) -> &str {
    match blob(subject) {
        Some((_, rest)) if !rest.is_empty() => rest,
        _ => subject,
    }
}

/// `[...]` with no bracket in it, and what follows.
fn blob(text: &str) -> Option<(&str, &str)> {
    let (inner, rest) = text.strip_prefix('[')?.split_once(']')?;
    (!inner.contains('[')).then(|| (inner, rest.trim_start()))
}

/// What stands in `[Fwd: ...]`.
fn forwarded(subject: &str) -> Option<&str> {
    strip_front(subject, "[fwd:").and_then(|rest| rest.strip_suffix(']')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mail::date::Timestamp;
    use crate::mail::mailbox::{ModSeq, Uid};
    use crate::mail::message::{BlobId, Flags};
    use crate::mail::structure::Walker;

    fn base(subject: &str) -> (String, bool) {
        let Subject { base, answers } = Subject::of(subject);
        (base, answers)
    }

    #[test]
    fn the_base_of_a_subject_is_what_it_is_about() {
        let plan = |answers| ("the plan".to_owned(), answers);
        assert_eq!(base("The  plan"), plan(false));
        for subject in ["Re: the plan", "RE[2]: Fwd:\tthe plan (FWD)", "[list] Re: [list] the plan", "[Fwd: the plan]"]
        {
            assert_eq!(base(subject), plan(true), "{subject}");
        }
        assert_eq!(base("[list] the plan"), plan(false));
        assert_eq!(base("[list]"), ("[list]".to_owned(), false));
        assert_eq!(base("Re: "), (String::new(), true));
        assert_eq!(base("Regards"), ("regards".to_owned(), false));
    }

    fn row(size: u32, at: i64) -> Message {
        Message {
            uid: Uid::MIN,
            flags: Flags::default(),
            modseq: ModSeq(1),
            internal_date: ZonedTime::utc(Timestamp(at)),
            saved: Timestamp(0),
            size,
            blob: BlobId(1),
        }
    }

    fn structure(header: &str) -> Structure {
        let mut walker = Walker::new();
        walker.feed(header.as_bytes());
        walker.finish()
    }

    fn by(by: SortBy, reverse: bool, header: &str) -> Vec<u8> {
        sort_bytes(&[SortKey { by, reverse }], &row(7, 100), Some(&structure(header)))
    }

    #[test]
    fn texts_are_ordered_without_regard_to_case() {
        let subject = |text: &str| by(SortBy::Subject, false, &format!("Subject: {text}\r\n\r\n"));
        assert!(subject("apples") < subject("Bananas") && subject("app") < subject("apples"));
        assert_eq!(subject("Re: X"), subject("x"));
        let backwards = |text: &str| by(SortBy::Subject, true, &format!("Subject: {text}\r\n\r\n"));
        assert!(backwards("apples") > backwards("Bananas") && backwards("app") > backwards("apples"));
    }

    #[test]
    fn addresses_are_ordered_by_local_part_or_name() {
        let from = "From: =?utf-8?Q?=C3=84nne?= <zoe@a.example>\r\n\r\n";
        assert_eq!(by(SortBy::From, false, from), b"ZOE\0");
        assert_eq!(by(SortBy::DisplayFrom, false, from), "A\u{308}NNE\0".as_bytes());
        assert_eq!(by(SortBy::DisplayTo, false, "To: <bob@b.example>\r\n\r\n"), b"BOB@B.EXAMPLE\0");
        assert_eq!(by(SortBy::Cc, false, from), b"\0");
    }

    #[test]
    fn a_message_without_a_date_has_that_of_its_arrival() {
        let dated = "Date: Thu, 1 Jan 1970 01:00:50 +0100\r\n\r\n";
        assert!(by(SortBy::Date, false, dated) < by(SortBy::Date, false, "\r\n"));
        assert_eq!(by(SortBy::Date, false, "\r\n"), by(SortBy::Arrival, false, dated));
    }

    proptest! {
        #[test]
        fn times_compare_as_numbers_do(a in -5_000_000_000_i64..50_000_000_000, b in -5_000_000_000_i64..50_000_000_000) {
            let bytes = |at| sort_bytes(&[SortKey { by: SortBy::Arrival, reverse: false }], &row(1, at), None);
            prop_assert_eq!(bytes(a).cmp(&bytes(b)), a.cmp(&b));
        }

        #[test]
        fn any_subject_has_a_base(subject in "[\\[\\]()Rrefwd: x]{0,40}") {
            let Subject { base, .. } = Subject::of(&subject);
            prop_assert!(base.len() <= subject.len());
        }
    }
}
