//! APPEND and REPLACE, a line at a time: flags, dates, literals and the parts of CATENATE (RFC 9051
//! section 6.3.12, RFC 3502, RFC 4469, RFC 6855 section 4, RFC 8508).
//!
//! A line ends with the header of a literal, or ends the command. What a literal is depends on what
//! stands before it: a message or a part of one, which the session streams past, or a mailbox's name
//! or a URL, which is gathered like those of any command.

use super::super::command::{AppendHead, AppendPiece, Command, Tagged};
use super::super::sequence::{SeqNumber, SequenceSet};
use super::super::token::{Cursor, Parsed, Refusal};
use super::{Grammar, Rejected, Wanted, flags, usage};
use crate::mail::date::ZonedTime;
use crate::mail::message::FlagNames;

/// What the literal is that an APPEND has come to.
#[derive(Debug)]
pub(in super::super) enum AppendStart {
    /// The mailbox's name or a URL: the command goes on behind it.
    Held,
    /// A message, or a part of one.
    Message {
        /// The command.
        command: Tagged,
        /// What its literal stands in.
        open: OpenMessage,
    },
}

/// What stands open around the literal of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct OpenMessage {
    /// `UTF8 (`
    in_parens: bool,
    /// `CATENATE (`
    catenate: bool,
}

/// What follows the literal of a message.
#[derive(Debug)]
pub(in super::super) enum AppendLine {
    /// A URL is the next literal: the line goes on behind it.
    Held,
    /// These pieces; then the literal of a message, if the last of them is one, or the end.
    Pieces(Vec<AppendPiece>, Option<OpenMessage>),
}

/// Where reading has come to an end.
enum Reached {
    /// The literal of a message.
    Literal(OpenMessage),
    /// The literal of a URL.
    Held,
    /// The end of a message.
    MessageEnd,
}

/// Reads a command up to the literal header it ends with, if it is an APPEND or REPLACE.
pub(in super::super) fn append_start(text: &[u8], utf8: bool) -> Option<Result<AppendStart, Rejected>> {
    let mut cursor = Cursor::new(text);
    let tag = cursor.tag().ok()?;
    cursor.space().ok()?;
    let uid = cursor.eat_word("UID");
    if uid {
        cursor.space().ok()?;
    }
    let replaces = cursor.eat_word("REPLACE");
    if !replaces && (uid || !cursor.eat_word("APPEND")) {
        return None;
    }
    let mut grammar = Grammar { cursor, utf8 };
    Some(match grammar.append_or_replace(replaces, uid) {
        Ok(None) => Ok(AppendStart::Held),
        Ok(Some((command, Some(open)))) => {
            Ok(AppendStart::Message { command: Tagged { tag: tag.to_owned(), command }, open })
        }
        Ok(Some((_, None))) | Err(Refusal::Usage) => {
            let name = if replaces { "REPLACE" } else { "APPEND" };
            Err(Rejected { tag: Some(tag.to_owned()), refusal: Refusal::Bad(usage(name)) })
        }
        Err(refusal) => Err(Rejected { tag: Some(tag.to_owned()), refusal }),
    })
}

/// Reads what follows the literal of a message, up to the next literal's header or the line's end,
/// which is not in `text`.
pub(in super::super) fn append_rest(text: &[u8], open: OpenMessage, utf8: bool) -> Result<AppendLine, Refusal> {
    let mut grammar = Grammar { cursor: Cursor::new(text), utf8 };
    let mut pieces = Vec::new();
    let reached = grammar.after_literal(open, &mut pieces).map_err(|refusal| match refusal {
        // A literal was meant to follow.
        Refusal::Usage if text.ends_with(b"\r\n") => Refusal::Bad(usage("APPEND")),
        Refusal::Usage => Refusal::Bad("APPEND ends after a message, or a space and another follow"),
        refusal => refusal,
    })?;
    Ok(match reached {
        Reached::Held => AppendLine::Held,
        Reached::Literal(open) => AppendLine::Pieces(pieces, Some(open)),
        Reached::MessageEnd => AppendLine::Pieces(pieces, None),
    })
}

impl Grammar<'_> {
    /// APPEND or REPLACE of parts that are all URLs.
    pub(super) fn whole_append(&mut self, replaces: bool, uid: bool) -> Parsed<Command> {
        match self.append_or_replace(replaces, uid)? {
            Some((command, None)) => Ok(command),
            _ => Err(Refusal::Usage),
        }
    }

    /// What stands between the command's name and the end of the line; `None` when the literal there
    /// is a name or a URL.
    fn append_or_replace(&mut self, replaces: bool, uid: bool) -> Parsed<Option<(Command, Option<OpenMessage>)>> {
        let mut number = None;
        if replaces {
            self.cursor.space()?;
            let one = if self.cursor.eat(b'*') { SeqNumber::Star } else { SeqNumber::Number(self.cursor.nz_number()?) };
            number = Some(SequenceSet::Ranges(vec![(one, one)]));
        }
        let mut ahead = self.cursor;
        if ahead.space().is_ok() && ahead.is_at_open_literal() {
            return Ok(None);
        }
        let mailbox = self.mailbox(Wanted::New)?;
        let mut pieces = Vec::new();
        let open = match self.messages(&mut pieces)? {
            Reached::Held => return Ok(None),
            Reached::Literal(open) => Some(open),
            Reached::MessageEnd => None,
        };
        let head = AppendHead { mailbox, pieces };
        Ok(Some(match number {
            Some(number) => (Command::Replace { uid, number, head }, open),
            None => (Command::Append(head), open),
        }))
    }

    /// Behind a literal: the end of its message, or more parts of it, then maybe more messages.
    fn after_literal(&mut self, open: OpenMessage, pieces: &mut Vec<AppendPiece>) -> Parsed<Reached> {
        if open.in_parens {
            self.cursor.need(b')')?;
        }
        if open.catenate {
            let reached = self.parts(false, pieces)?;
            if !matches!(reached, Reached::MessageEnd) {
                return Ok(reached);
            }
        } else {
            pieces.push(AppendPiece::End);
        }
        if self.cursor.is_at_end() {
            return Ok(Reached::MessageEnd);
        }
        // imapclient writes a space behind a message and one before the next.
        let mut ahead = self.cursor;
        if ahead.space().is_ok() && ahead.peek() == Some(b' ') {
            self.cursor = ahead;
        }
        self.messages(pieces)
    }

    /// Messages, each behind a space, up to a literal or the end of the line.
    fn messages(&mut self, pieces: &mut Vec<AppendPiece>) -> Parsed<Reached> {
        loop {
            let reached = self.message(pieces)?;
            if !matches!(reached, Reached::MessageEnd) || self.cursor.is_at_end() {
                return Ok(reached);
            }
        }
    }

    /// A space, flags, date, and the literal's header or the parts of a message.
    fn message(&mut self, pieces: &mut Vec<AppendPiece>) -> Parsed<Reached> {
        self.cursor.space()?;
        let mut flags = FlagNames::default();
        if self.cursor.peek() == Some(b'(') {
            flags = flags::list(&mut self.cursor)?;
            self.cursor.space()?;
        }
        let mut date = None;
        if self.cursor.peek() == Some(b'"') {
            let spelled = self.cursor.quoted()?;
            date = std::str::from_utf8(&spelled).ok().and_then(ZonedTime::parse_imap);
            date.ok_or(Refusal::Bad("APPEND's date is not like \"17-Jul-1996 02:44:25 -0700\""))?;
            self.cursor.space()?;
        }
        pieces.push(AppendPiece::Message { flags, date });
        if self.cursor.eat_word("CATENATE") {
            self.cursor.space()?;
            self.cursor.need(b'(')?;
            return self.parts(true, pieces);
        }
        let in_parens = self.cursor.eat_word("UTF8");
        if in_parens {
            self.cursor.space()?;
            self.cursor.need(b'(')?;
        }
        self.streamed(pieces)?;
        Ok(Reached::Literal(OpenMessage { in_parens, catenate: false }))
    }

    /// The parts of CATENATE (RFC 4469 section 5), from the `first` or from behind one.
    fn parts(&mut self, mut first: bool, pieces: &mut Vec<AppendPiece>) -> Parsed<Reached> {
        loop {
            if !first {
                if self.cursor.eat(b')') {
                    pieces.push(AppendPiece::End);
                    return Ok(Reached::MessageEnd);
                }
                self.cursor.space()?;
            }
            first = false;
            let word = self.cursor.word();
            self.cursor.space()?;
            match word.as_str() {
                "URL" if self.cursor.is_at_open_literal() => return Ok(Reached::Held),
                "URL" => pieces.push(AppendPiece::Url(self.cursor.text()?)),
                "TEXT" | "UTF8" => {
                    let in_parens = word == "UTF8";
                    if in_parens {
                        self.cursor.need(b'(')?;
                    }
                    self.streamed(pieces)?;
                    return Ok(Reached::Literal(OpenMessage { in_parens, catenate: true }));
                }
                _ => return Err(Refusal::Bad("CATENATE takes TEXT with a literal and URL with a URL")),
            }
        }
    }

    /// The header of a literal that the session streams past; it ends the line.
    fn streamed(&mut self, pieces: &mut Vec<AppendPiece>) -> Parsed<()> {
        let literal = self.cursor.literal_header()?;
        self.cursor.is_at_end().then_some(()).ok_or(Refusal::Usage)?;
        pieces.push(AppendPiece::Literal { size: literal.size, synchronizing: literal.synchronizing });
        Ok(())
    }
}
