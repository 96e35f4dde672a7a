//! How a message's own header was written, as far as its kept fields go.
//!
//! Clients list a mailbox by HEADER.FIELDS: ten fields of each message, as they stand in it. The
//! record has those fields unfolded; a line of some ten bytes beside them tells what unfolding took
//! away (order, folds, an unusual spelling of a name), and such a list costs no look at the bodies.
//! Where the line can't tell it (a field stands there twice, ends with spaces, is in no UTF-8, has
//! bare LFs) there is none, and the header itself is read. Records made before there was this line
//! have none either.
//!
//! The line begins with [`LAYOUT`]. Then comes each kept field in the order of the header: its
//! letter; `_` when a tab follows the colon and `-` when nothing does, in place of a space; after an
//! apostrophe a number whose bits are the letters of the name in another case than usual; and after
//! a comma each, how many bytes lie before a fold, counted from the fold before. Behind a semicolon
//! follow the letters of those of [`OTHERS`] that the header has.

use super::Structure;
use super::field::Field;

/// Begins the line; no field has this letter.
const LAYOUT: u8 = b'=';

/// Fields that are not kept but often asked for, by letter: where the line does not name them, the
/// header has none. As part of the record, a letter never changes its meaning, and a field that is
/// added here would be missing from the lines that are there already: it must be kept instead.
const OTHERS: [(char, &str); 14] = [
    ('p', "priority"),
    ('x', "x-priority"),
    ('n', "newsgroups"),
    ('i', "importance"),
    ('l', "list-id"),
    ('u', "list-unsubscribe"),
    ('o', "list-post"),
    ('d', "disposition-notification-to"),
    ('m', "x-mailer"),
    ('a', "user-agent"),
    ('f', "mail-followup-to"),
    ('r', "mail-reply-to"),
    ('s', "x-spam-flag"),
    ('b', "bimi-indicator"),
];

/// Most folds of one field that are told of: a long thread's References have some thirty.
const FOLDS_MAX: usize = 64;

/// Header fields somebody asks for, all of them such as a [`Structure`] may tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// Bits, by the fields' places in their table.
    kept: u32,
    /// Bits, by places in [`OTHERS`].
    others: u32,
}

impl Wanted {
    /// The fields of these names in any case; `None` where nothing is known of one.
    pub fn of<N: AsRef<str>>(names: &[N]) -> Option<Self> {
        names.iter().try_fold(Self::default(), |wanted, name| {
            let one = match Field::named(name.as_ref()) {
                Some(field) => Self { kept: field.bit(), others: 0 },
                None => Self { kept: 0, others: other(name.as_ref())? },
            };
            Some(wanted.and(one))
        })
    }

    /// These fields and those of `more`.
    #[must_use]
    pub fn and(self, more: Self) -> Self {
        Self { kept: self.kept | more.kept, others: self.others | more.others }
    }
}

/// The bit of one of [`OTHERS`].
fn other(name: &str) -> Option<u32> {
    OTHERS.iter().position(|(_, known)| known.eq_ignore_ascii_case(name)).map(|place| 1 << place)
}

/// How one field was written.
#[derive(Debug, Default)]
pub(super) struct Spelling {
    /// The letters of its name in another case than usual.
    odd: u32,
    folds: Vec<usize>,
    /// Bytes before the last fold.
    folded: usize,
}

impl Spelling {
    /// A field begins under this name, which is its own in any case.
    pub(super) fn begin(field: Field, name: &[u8]) -> Self {
        let letters = field.name().bytes().zip(name).enumerate();
        let odd = letters.filter(|(_, (usual, found))| usual != *found).fold(0, |odd, (place, _)| odd | 1 << place);
        Self { odd, ..Self::default() }
    }

    /// The field is folded behind so many bytes of its body. Tells whether that can be told.
    pub(super) fn fold(&mut self, at: usize) -> bool {
        if self.folds.len() >= FOLDS_MAX {
            return false;
        }
        self.folds.push(at.saturating_sub(self.folded));
        self.folded = at;
        true
    }

    /// Bytes held.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.folds.capacity() * size_of::<usize>()
    }

    /// Adds a field to the line, its body as it was written and as it is kept. Tells whether one
    /// can be told from the other.
    fn tell(&self, line: &mut String, field: Field, written: &[u8], kept: &str) -> bool {
        let Some(lead) = written.strip_suffix(kept.as_bytes()) else { return false };
        let lead = match lead {
            b" " => "",
            b"\t" => "_",
            b"" => "-",
            _ => return false,
        };
        line.push(char::from(field.letter()));
        line.push_str(lead);
        if self.odd != 0 {
            line.extend(["'", &self.odd.to_string()]);
        }
        for fold in &self.folds {
            line.extend([",", &fold.to_string()]);
        }
        // This one's letter is a digit, and nobody asks for it.
        field != Field::ContentMd5
    }
}

/// The line of a header, while its fields go by.
#[derive(Debug, Default)]
pub(super) struct Layout {
    others: u32,
}

impl Layout {
    /// A field goes by that is not kept.
    pub(super) fn pass(&mut self, name: &str) {
        self.others |= other(name).unwrap_or(0);
    }

    /// The line for these fields: each with its body as it was written and as it is kept.
    pub(super) fn line<'f>(
        &self,
        fields: impl IntoIterator<Item = (Field, &'f Spelling, &'f [u8], &'f str)>,
    ) -> Option<String> {
        let mut line = char::from(LAYOUT).to_string();
        let told = |(field, spelling, written, kept): (Field, &Spelling, &[u8], &str)| {
            spelling.tell(&mut line, field, written, kept)
        };
        if !fields.into_iter().all(told) {
            return None;
        }
        let others = OTHERS.iter().filter(|(_, name)| other(name).is_some_and(|bit| self.others & bit != 0));
        if self.others != 0 {
            line.push(';');
        }
        line.extend(others.map(|(letter, _)| letter));
        Some(line)
    }
}

impl Structure {
    /// Tells whether [`Structure::spell`] can spell these fields.
    pub fn spells(&self, wanted: Wanted) -> bool {
        self.layout(wanted).is_some()
    }

    /// Adds these fields of the message's own header to `out`, as they were written, and the empty
    /// line: the bytes of HEADER.FIELDS (RFC 9051 section 6.4.5.1). `None` when that is not known;
    /// what `out` has then is worth nothing.
    pub fn spell(&self, wanted: Wanted, out: &mut Vec<u8>) -> Option<()> {
        let (mut layout, message) = (self.layout(wanted)?, self.message()?);
        while let Some((letter, rest)) = layout.split_at_checked(1) {
            let end = rest.find(|sign: char| sign.is_ascii_alphabetic()).unwrap_or(rest.len());
            let (how, after) = rest.split_at_checked(end)?;
            let field = letter.bytes().next().and_then(Field::lettered)?;
            if wanted.kept & field.bit() != 0 {
                spell_field(out, field, how, message.field(field)?)?;
            }
            layout = after;
        }
        out.extend_from_slice(b"\r\n");
        Some(())
    }

    /// The fields' part of the line, if none of the others that are wanted is in the header.
    fn layout(&self, wanted: Wanted) -> Option<&str> {
        let line = self.message()?.line(LAYOUT)?;
        let (fields, others) = line.split_once(';').unwrap_or((line, ""));
        let found = others.chars().filter_map(|letter| OTHERS.iter().find(|(known, _)| *known == letter));
        let found = found.filter_map(|(_, name)| other(name)).fold(0, |bits, bit| bits | bit);
        (found & wanted.others == 0).then_some(fields)
    }

    /// Tells whether this is what `newer` tells of the same message, as it was told before there was
    /// the line.
    pub fn is_older(&self, newer: &Self) -> bool {
        newer.message().and_then(|message| message.line(LAYOUT)).is_some_and(|line| {
            let line = format!("{}{line}\n", char::from(LAYOUT));
            let mut newer = newer.clone();
            newer.text = newer.text.replacen(&line, "", 1);
            for node in &mut newer.nodes {
                node.text_end = node.text_end.saturating_sub(u16::try_from(line.len()).unwrap_or(u16::MAX));
            }
            *self == newer
        })
    }
}

/// Adds one field, as `how` tells, with the newline.
fn spell_field(out: &mut Vec<u8>, field: Field, how: &str, kept: &str) -> Option<()> {
    let mut parts = how.split(',');
    let lead = parts.next()?;
    let (lead, odd) = lead.split_once('\'').unwrap_or((lead, "0"));
    let odd: u32 = odd.parse().ok()?;
    let name = field.name().bytes().enumerate();
    out.extend(name.map(|(place, byte)| if odd >> place & 1 == 1 { byte ^ 0x20 } else { byte }));
    out.push(b':');
    let mut lead = match lead {
        "" => " ",
        "_" => "\t",
        _ => "",
    };
    let mut rest = kept;
    for fold in parts {
        let fold: usize = fold.parse().ok()?;
        let (before, behind) = lead.split_at_checked(fold.min(lead.len()))?;
        let (line, after) = rest.split_at_checked(fold - before.len())?;
        for part in [before, line, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        (lead, rest) = (behind, after);
    }
    for part in [lead, rest, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Walker;
    use super::*;
    use crate::mail::header::HeaderFilter;

    const NAMES: [&str; 6] = ["From", "to", "Subject", "Message-ID", "Content-Type", "X-Priority"];

    fn walk(message: &str) -> Structure {
        let mut walker = Walker::new();
        walker.feed(message.as_bytes());
        walker.finish()
    }

    fn spelled(structure: &Structure, names: &[&str]) -> Option<String> {
        let mut out = Vec::new();
        let wanted = Wanted::of(names)?;
        let told = structure.spell(wanted, &mut out);
        assert_eq!(told.is_some(), structure.spells(wanted));
        told.map(|()| String::from_utf8(out).unwrap())
    }

    fn filtered(header: &str, names: &[&str]) -> String {
        let (mut filter, mut out) = (HeaderFilter::new(names, false), Vec::new());
        filter.feed(header.as_bytes(), &mut out);
        filter.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn common_fields_are_spelled_as_they_were_written() {
        let header = "Received: from a\r\n\tby b\r\nTo: Ann <ann@x.test>,\r\n Bob <bob@x.test>,\r\n\tCyn <cyn@x.test>\r\n\
                      Message-Id:\r\n\t<1@x.test>\r\nsubject:Gr\u{fc}\u{df}e\r\nFrom: d@x.test\r\nX-Mailer: none\r\n\
                      Content-Type: multipart/mixed;\r\n boundary=b\r\nCC:\r\nDate:\tnow\r\n\r\n";
        let structure = walk(&format!("{header}--b\r\nSubject: inner\r\n\r\ntext\r\n--b--\r\n"));
        let names = ["FROM", "to", "cc", "subject", "date", "message-id", "content-type", "references", "x-priority"];
        assert_eq!(spelled(&structure, &names).unwrap(), filtered(header, &names));
        assert_eq!(spelled(&structure, &["bcc"]).unwrap(), "\r\n");
        // Another's name, and one that is there and not kept.
        assert_eq!(spelled(&structure, &["from", "received"]), None);
        assert_eq!(spelled(&structure, &["from", "x-mailer"]), None);
        let line = structure.message().unwrap().line(LAYOUT).unwrap();
        assert_eq!(line, "t,18,18m_'512,0s-'1fT,17c-'2d_;m");
    }

    #[test]
    fn what_unfolding_loses_is_read_from_the_message() {
        for header in [
            "Subject: one\nTo: a@x.test\r\n\r\n",
            "Subject: one \r\n\r\n",
            "Subject:  two\r\n\r\n",
            "Subject : three\r\n\r\n",
            "Subject: four\r\nSubject: five\r\n\r\n",
            "To: a@x.test\r\nTo: b@x.test\r\n\r\n",
            "\u{feff}Subject: six\r\n\r\n",
            "Subject: se\0ven\r\n\r\n",
            "Subject: eight",
        ] {
            assert_eq!(spelled(&walk(header), &["subject"]), None, "{header:?}");
        }
        let long = "Subject: x".to_owned() + &"\r\n x".repeat(FOLDS_MAX);
        assert!(spelled(&walk(&format!("{long}\r\n\r\n")), &["subject"]).is_some());
        assert_eq!(spelled(&walk(&format!("{long}\r\n x\r\n\r\n")), &["subject"]), None);
    }

    #[test]
    fn a_record_without_the_line_is_as_good() {
        let message = "Subject: one\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b--\r\n";
        let newer = walk(message);
        // With a bare LF there is no line; it stands where nothing else of the record changes.
        let mut older = newer.clone();
        let line = newer.text.lines().find(|line| line.starts_with(char::from(LAYOUT))).unwrap().len() + 1;
        older.text = newer
            .text
            .lines()
            .filter(|line| !line.starts_with(char::from(LAYOUT)))
            .fold(String::new(), |text, line| text + line + "\n");
        for node in &mut older.nodes {
            node.text_end -= u16::try_from(line).unwrap();
        }
        assert!(older.is_older(&newer) && !newer.is_older(&older) && !newer.is_older(&newer));
        assert_eq!(spelled(&older, &["subject"]), None);
        assert_eq!(older.field(Field::Subject), newer.field(Field::Subject));
        older.text.insert(1, 'x');
        assert!(!older.is_older(&newer));
    }

    proptest! {
        #[test]
        fn whatever_is_spelled_is_what_the_filter_lets_through(
            header in "((From|FROM|To|Subject|message-id|Content-type|X-Priority|Received|x)[ ]{0,1}:[ \t\r]{0,2}[a-z,;=@\u{e9}]{0,5}(\r?\n[ \t]{1,2}[a-z]{0,3}){0,3}\r?\n){0,6}(\r\n)?",
            first in 0_usize..6,
        ) {
            let structure = walk(&header);
            let names = &NAMES[first..];
            if let Some(told) = spelled(&structure, names) {
                prop_assert_eq!(told, filtered(&header, names));
            }
        }

        #[test]
        fn clean_headers_are_all_told(
            header in "(From: [a-z]{1,9}(\r\n [a-z]{1,9}){0,3}\r\n)(Message-ID:(\r\n)?\t[a-z]{1,5}\r\n)(Received: [a-z]{1,5}\r\n)(subject: [a-z\u{e9}]{1,5}\r\n)\r\n",
        ) {
            prop_assert_eq!(spelled(&walk(&header), &NAMES), Some(filtered(&header, &NAMES)));
        }
    }
}
