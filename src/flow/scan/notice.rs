//! What a recipient is told when mail was kept from him for what was found in it: plain words, from the
//! null sender, so that nothing answers.

use std::fmt::Write as _;

use crate::mail::address::Address;
use crate::mail::date::ZonedTime;
use crate::mail::message::FlagNames;
use crate::mail::structure::{Field, Structure, Walker};
use crate::mail::text::decode_words;
use crate::mail::trace;
use crate::store::{NewMessage, Store, WriteError};

/// Most characters of a sender or a subject that are quoted: others wrote them.
const QUOTED_MAX: usize = 120;

/// What became of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It was refused; its sender was told by his server.
    Refused,
    /// It was put aside when it came.
    Aside,
    /// It was in the mailbox and was put aside.
    TakenOut,
    /// It was in the mailbox and is in Junk now.
    ToJunk,
}

/// A message as a notice names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Its From field.
    pub from: String,
    /// Its subject.
    pub subject: String,
}

impl Named {
    /// What a message calls itself.
    pub fn of(structure: &Structure) -> Self {
        let field = |field| structure.field(field).map(|text| quoted(&decode_words(text))).unwrap_or_default();
        Self { from: field(Field::From), subject: field(Field::Subject) }
    }
}

/// A notice.
#[derive(Clone, Debug)]
pub struct Notice<'n> {
    /// Our own name.
    pub host: &'n str,
    /// Whom it is for.
    pub to: &'n Address,
    /// Our name for it: letters and digits, never used before.
    pub id: &'n str,
    /// Now.
    pub at: ZonedTime,
    /// The message it is about.
    pub about: &'n Named,
    /// What was found in it.
    pub finding: &'n str,
    /// What became of it.
    pub kept: Kept,
    /// Who has what is put aside.
    pub keeper: Option<&'n str>,
}

impl Notice<'_> {
    /// Spells it, lines ending in CRLF, a Return-Path field at its beginning as in all mail that is kept.
    pub fn spell(&self) -> String {
        let Self { host, to, id, at, about, finding, kept, keeper } = self;
        let (subject, what) = match kept {
            Kept::Refused => (
                "Mail for you was refused",
                "A message for you was not taken, because of what was found in it. Its sender's server was told so.",
            ),
            Kept::Aside => {
                ("Mail for you was put aside", "A message for you was put aside, because of what was found in it.")
            }
            Kept::TakenOut => (
                "Mail was taken out of your mailbox",
                "A message that was in your mailbox was put aside. What is in it was not known to be dangerous when it\r\n\
                 came, and is now. If you have opened its attachment, tell whoever looks after your computer.",
            ),
            Kept::ToJunk => (
                "Mail in your mailbox is dangerous",
                "A message that was in your mailbox is in Junk now. What is in it was not known to be dangerous when it\r\n\
                 came, and is now. Do not open its attachment; if you have, tell whoever looks after your computer.",
            ),
        };
        let ask = match (kept, keeper) {
            (Kept::ToJunk, _) => "You can delete it there.".to_owned(),
            (Kept::Refused, _) => {
                "You need not do anything. If you were waiting for it, ask its sender to send it in another way.".into()
            }
            (_, Some(keeper)) => format!(
                "You need not do anything. If you were waiting for it, write to {keeper}\r\n\
                 and name what was found."
            ),
            (_, None) => "You need not do anything.".to_owned(),
        };
        let or_none = |text: &str| if text.is_empty() { "(none)".to_owned() } else { text.to_owned() };
        let body = format!(
            "{what}\r\n\r\n  From:    {}\r\n  Subject: {}\r\n  Found:   {}\r\n\r\n{ask}\r\n",
            or_none(&about.from),
            or_none(&about.subject),
            quoted(finding)
        );
        let mut text = String::from("Return-Path: <>\r\n");
        text.push_str(&trace::date(*at));
        // Writing to a String cannot fail.
        let _ =
            write!(text, "From: Mail delivery at {host} <postmaster@{host}>\r\nTo: <{to}>\r\nSubject: {subject}\r\n");
        text.push_str(&trace::message_id(id, host));
        let (charset, coding) = if body.is_ascii() { ("us-ascii", "7bit") } else { ("utf-8", "8bit") };
        let _ = write!(
            text,
            "Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset={charset}\r\n\
             Content-Transfer-Encoding: {coding}\r\n\r\n{body}"
        );
        text
    }

    /// Makes a message of it.
    ///
    /// # Errors
    /// The store's.
    pub fn message(&self, store: &Store) -> Result<NewMessage, WriteError> {
        let (text, mut spool, mut walker) = (self.spell(), store.spool()?, Walker::new());
        spool.write(text.as_bytes())?;
        walker.feed(text.as_bytes());
        let (body, structure) = (spool.finish()?, walker.finish());
        Ok(NewMessage { body, structure, internal_date: self.at, flags: FlagNames::default() })
    }
}

/// What others wrote, on one line and not long.
fn quoted(text: &str) -> String {
    let plain = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    plain.take(QUOTED_MAX).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::date::Timestamp;

    fn notice(about: &Named, kept: Kept, keeper: Option<&str>) -> String {
        let to = Address::parse("ann@x.test").unwrap();
        let at = ZonedTime::utc(Timestamp(1_700_000_000));
        Notice { host: "mail.x.test", to: &to, id: "abc1", at, about, finding: "Test.Evil", kept, keeper }.spell()
    }

    #[test]
    fn a_notice_says_what_was_found_and_what_to_do() {
        let about = Named { from: "Bob <bob@y.test>".into(), subject: "Invoice".into() };
        let text = notice(&about, Kept::Aside, Some("postmaster@x.test"));
        for line in [
            "Return-Path: <>\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "Subject: Mail for you was put aside\r\n",
            "  From:    Bob <bob@y.test>\r\n",
            "  Subject: Invoice\r\n",
            "  Found:   Test.Evil\r\n",
            "write to postmaster@x.test\r\n",
        ] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
        assert!(text.is_ascii() && !text.contains("8bit"));
    }

    #[test]
    fn what_others_wrote_stays_on_its_line_in_the_text() {
        let mut walker = Walker::new();
        walker.feed(b"From: =?utf-8?q?Eve=0D=0ABcc:_x?= <e@y.test>\r\nSubject: ");
        walker.feed(&b"=?utf-8?q?=C3=A9?= ".repeat(300));
        walker.feed(b"\r\n\r\n");
        let about = Named::of(&walker.finish());
        let text = notice(&about, Kept::Refused, None);
        let (header, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(header.contains("8bit") && !header.contains("Bcc") && !header.contains("Eve"), "{header}");
        assert!(body.lines().all(|line| line.len() < 400 && !line.starts_with("Bcc")), "{body}");
    }
}
