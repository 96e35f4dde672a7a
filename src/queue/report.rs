//! Notifications about what became of a message: `multipart/report` (RFC 3462) with a part in plain
//! words, one for machines (RFC 3464) and what comes back of the message.
//!
//! Where an address or the message itself is international the parts take the forms of RFC 6533, else
//! everything is ASCII, whatever a foreign server said. The message that comes back is no matter of
//! this module: [`Spelled`] is what goes before and after it.

use std::fmt::Write as _;

use crate::mail::address::Address;
use crate::mail::date::{Timestamp, ZonedTime};
use crate::mail::queue::Answer;
use crate::mail::trace;

mod words; // what an answer means, in plain words

/// What is told of a recipient (RFC 3464 section 2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It was given up.
    Failed,
    /// It takes long.
    Delayed,
    /// It lies in the mailbox.
    Delivered,
    /// It was handed to a server that tells nothing further.
    Relayed,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
        }
    }
}

/// A recipient that is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told<'a> {
    /// The address.
    pub address: &'a Address,
    /// ORCPT as given, `type;address` in xtext.
    pub original: Option<&'a str>,
    /// What became of it.
    pub action: Action,
    /// The last that was heard.
    pub answer: Option<&'a Answer>,
    /// When the last attempt was.
    pub tried: Option<Timestamp>,
}

/// How much of the message comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// Its header.
    Header,
    /// All of it.
    Whole,
}

/// A notification.
#[derive(Clone, Debug)]
pub struct Notice<'a> {
    /// Our own name.
    pub host: &'a str,
    /// Whom it is for: the message's sender.
    pub to: &'a Address,
    /// Our name for the notification, never used before: letters and digits. It stands in the
    /// boundary too, so nobody who writes a message can know it.
    pub id: &'a str,
    /// Now.
    pub at: ZonedTime,
    /// When the message came.
    pub arrived: Timestamp,
    /// ENVID=, in xtext as given.
    pub envelope_id: Option<&'a str>,
    /// The message was sent with SMTPUTF8.
    pub utf8: bool,
    /// What comes back.
    pub returned: Returned,
    /// It has bytes beyond ASCII.
    pub eight_bit: bool,
    /// Of whom is told; at least one.
    pub recipients: Vec<Told<'a>>,
    /// Up to when it is tried, for delays.
    pub until: Option<Timestamp>,
}

/// A notification without what comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spelled {
    /// Everything before.
    pub before: String,
    /// Everything after.
    pub after: String,
    /// It has bytes beyond ASCII, that which comes back included.
    pub eight_bit: bool,
}

impl Notice<'_> {
    /// Spells the notification, lines ending in CRLF. A Return-Path field stands at its beginning, as
    /// in all mail that is kept.
    pub fn spell(&self) -> Spelled {
        let global = self.is_global();
        let (human, machine) = (self.human(global), self.machine(global));
        let eight_bit = self.eight_bit || !human.is_ascii() || !machine.is_ascii();
        let encoding = |eight: bool| if eight { "8bit" } else { "7bit" };
        let boundary = format!("report-{}", self.id);
        let Self { host, to, id, at, .. } = self;
        let mut text = String::from("Return-Path: <>\r\n");
        text.push_str(&trace::date(*at));
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "From: Mail delivery at {host} <postmaster@{host}>\r\nTo: <{to}>\r\nSubject: {}\r\n",
            self.subject()
        );
        text.push_str(&trace::message_id(id, host));
        let _ = write!(
            text,
            "Auto-Submitted: auto-replied\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n\
             Content-Transfer-Encoding: {}\r\n\
             \r\n\
             This is a report about mail, in several parts.\r\n\
             \r\n--{boundary}\r\n\
             Content-Type: text/plain; charset={}\r\n\
             Content-Transfer-Encoding: {}\r\n\r\n{human}",
            encoding(eight_bit),
            if human.is_ascii() { "us-ascii" } else { "utf-8" },
            encoding(!human.is_ascii()),
        );
        let kind = if global { "message/global-delivery-status" } else { "message/delivery-status" };
        let _ = write!(
            text,
            "\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {}\r\n\r\n{machine}",
            encoding(!machine.is_ascii()),
        );
        let kind = match (self.returned, global) {
            (Returned::Header, false) => "text/rfc822-headers",
            (Returned::Header, true) => "message/global-headers",
            (Returned::Whole, false) => "message/rfc822",
            (Returned::Whole, true) => "message/global",
        };
        let _ = write!(
            text,
            "\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {}\r\n\r\n",
            encoding(self.eight_bit)
        );
        Spelled { before: text, after: format!("\r\n--{boundary}--\r\n"), eight_bit }
    }

    /// An address or the message is international (RFC 6533 section 1).
    fn is_global(&self) -> bool {
        self.utf8 || self.to.is_international() || self.recipients.iter().any(|told| told.address.is_international())
    }

    fn subject(&self) -> &'static str {
        match self.recipients.first().map(|told| told.action) {
            Some(Action::Failed) => "Not delivered: your message came back",
            Some(Action::Delayed) => "Delayed: your message still waits",
            Some(Action::Delivered) => "Delivered: your message arrived",
            Some(Action::Relayed) | None => "Handed on: your message is on its way",
        }
    }

    /// The part for people.
    fn human(&self, global: bool) -> String {
        let arrived = ZonedTime::utc(self.arrived).to_rfc5322();
        let beginning = match self.recipients.first().map(|told| told.action) {
            Some(Action::Failed) => {
                "could not be delivered to the following\r\nrecipients, and will not be tried again:"
            }
            Some(Action::Delayed) => {
                "has not yet been delivered to the\r\nfollowing recipients. You need not do anything: it is tried again."
            }
            Some(Action::Delivered) => "was delivered, as you asked to be told:",
            Some(Action::Relayed) | None => {
                "was handed to another server, which\r\nmay not tell you what becomes of it:"
            }
        };
        let mut text = format!("Your message, which came to {} on\r\n{arrived},\r\n{beginning}\r\n", self.host);
        for told in &self.recipients {
            // Writing to a String cannot fail.
            let _ = write!(text, "\r\n<{}>\r\n", told.address);
            if matches!(told.action, Action::Failed | Action::Delayed) {
                let _ = write!(text, "    {}\r\n", words::meaning(told.answer, told.action == Action::Failed));
            }
            match told.answer {
                Some(answer) if !answer.from().is_empty() => {
                    let said = fold(&plain(answer.text(), global));
                    let _ = write!(text, "    What {} said: {said}\r\n", plain(answer.from(), global));
                }
                Some(answer) if told.action != Action::Delivered => {
                    let _ = write!(text, "    In detail: {}\r\n", fold(&plain(answer.text(), global)));
                }
                _ => {}
            }
        }
        if let Some(until) = self.until {
            let until = ZonedTime::utc(until).to_rfc5322();
            let _ = write!(text, "\r\nIt is tried until about {until}.\r\nIf that fails too, you are told.\r\n");
        }
        let below = match self.returned {
            Returned::Header => "The header of your message is attached.",
            Returned::Whole => "Your message is attached.",
        };
        let _ = write!(text, "\r\n{below}\r\n");
        text
    }

    /// The part for machines (RFC 3464 section 2).
    fn machine(&self, global: bool) -> String {
        let mut text = format!("Reporting-MTA: dns; {}\r\n", self.host);
        // Writing to a String cannot fail.
        if let Some(id) = self.envelope_id.and_then(from_xtext) {
            let _ = write!(text, "Original-Envelope-Id: {}\r\n", plain(&id, global));
        }
        let _ = write!(text, "Arrival-Date: {}\r\n", ZonedTime::utc(self.arrived).to_rfc5322());
        for told in &self.recipients {
            text.push_str("\r\n");
            if let Some((kind, original)) = told.original.and_then(|original| original_recipient(original, global)) {
                let _ = write!(text, "Original-Recipient: {kind}; {original}\r\n");
            }
            let kind = if told.address.is_international() { "utf-8" } else { "rfc822" };
            let _ = write!(text, "Final-Recipient: {kind}; {}\r\n", told.address);
            let _ = write!(text, "Action: {}\r\nStatus: {}\r\n", told.action.word(), status(told));
            if let Some(answer) = told.answer.filter(|answer| !answer.text().is_empty()) {
                let said = plain(answer.text(), global);
                if answer.from().is_empty() {
                    let _ = write!(text, "Diagnostic-Code: x-pillarbox; {said}\r\n");
                } else {
                    let _ = write!(text, "Remote-MTA: dns; {}\r\n", plain(answer.from(), global));
                    let _ = write!(text, "Diagnostic-Code: smtp; {said}\r\n");
                }
            }
            if let Some(tried) = told.tried {
                let _ = write!(text, "Last-Attempt-Date: {}\r\n", ZonedTime::utc(tried).to_rfc5322());
            }
            if let Some(until) = self.until {
                let _ = write!(text, "Will-Retry-Until: {}\r\n", ZonedTime::utc(until).to_rfc5322());
            }
        }
        text
    }
}

/// The status of a recipient (RFC 3463). Its class must fit the action: what was given up after many
/// refusals "for now" ran out of time.
fn status(told: &Told<'_>) -> String {
    let heard = told.answer.and_then(|answer| enhanced(answer.text()));
    match told.action {
        Action::Delivered | Action::Relayed => heard.filter(|code| code.starts_with('2')).unwrap_or("2.0.0").to_owned(),
        Action::Delayed => heard.filter(|code| code.starts_with('4')).unwrap_or("4.0.0").to_owned(),
        Action::Failed if told.answer.is_some_and(is_for_now) => "5.4.7".to_owned(),
        Action::Failed => heard.filter(|code| code.starts_with('5')).unwrap_or("5.0.0").to_owned(),
    }
}

/// The enhanced status code in an answer, `550 5.1.1 text` or `5.1.1 text`.
fn enhanced(text: &str) -> Option<&str> {
    let number = |word: &str, max| (1..=max).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_digit());
    text.split(' ').take(2).find(|word| {
        let mut parts = word.split('.');
        let class = parts.next().is_some_and(|class| matches!(class, "2" | "4" | "5"));
        class
            && parts.next().is_some_and(|part| number(part, 3))
            && parts.next().is_some_and(|part| number(part, 3))
            && parts.next().is_none()
    })
}

/// The answer was a refusal for now.
fn is_for_now(answer: &Answer) -> bool {
    answer.text().starts_with('4')
}

/// The text itself, or with anything that is not ASCII made unreadable where only ASCII may stand.
fn plain(text: &str, global: bool) -> String {
    let fits = |c: char| !c.is_control() && (global || c.is_ascii());
    text.chars().map(|c| if fits(c) { c } else { '?' }).collect()
}

/// Text cut into lines at its spaces, for people.
fn fold(text: &str) -> String {
    let (mut folded, mut length) = (String::new(), 0);
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if length > 0 && length + word.len() > 60 {
            folded.push_str("\r\n    ");
            length = 0;
        } else if length > 0 {
            folded.push(' ');
        }
        folded.push_str(word);
        length += word.len() + 1;
    }
    folded
}

/// ORCPT as the two halves of an Original-Recipient field (RFC 3461 section 6.3, RFC 6533 section 3).
fn original_recipient(original: &str, global: bool) -> Option<(&str, String)> {
    let (kind, encoded) = original.split_once(';')?;
    let is_kind = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let decoded = if kind.eq_ignore_ascii_case("utf-8") { from_unitext(encoded) } else { from_xtext(encoded) };
    let decoded = decoded.filter(|_| is_kind)?;
    // The encoded form is ASCII, and for an address of this kind always right.
    let fits = global || decoded.is_ascii();
    Some((kind, if fits { decoded } else { plain(encoded, false) }))
}

/// Decodes xtext (RFC 3461 section 4); `None` for what is none, or holds what would break a line.
fn from_xtext(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'+' {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    let decoded = String::from_utf8(bytes).ok()?;
    (!decoded.is_empty() && !decoded.chars().any(char::is_control)).then_some(decoded)
}

/// Decodes `utf-8-addr-xtext` and `utf-8-addr-unitext` (RFC 6533 section 3): `\x{HEX}` is a character.
fn from_unitext(text: &str) -> Option<String> {
    let mut decoded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x{") {
        decoded.push_str(before);
        let (digits, after) = after.split_once('}')?;
        decoded.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
        rest = after;
    }
    decoded.push_str(rest);
    (!decoded.is_empty() && !decoded.chars().any(char::is_control)).then_some(decoded)
}

#[cfg(test)]
mod tests;
