//! APPEND (RFC 9051 section 6.3.12, RFC 3502, RFC 7888, RFC 7889), CATENATE (RFC 4469) and REPLACE
//! (RFC 8508): messages stream by, one after the other, and are kept all together or not at all.
//!
//! What the intake makes of each line is a queue of pieces, worked off one by one. Whether a message
//! can be kept is asked before a synchronising client sends it. Once something of the command is
//! refused, what a client sends unasked is read and dropped, so that the connection can go on, and
//! the command ends where it would have ended.

use std::collections::VecDeque;
use std::time::Duration;

use crate::mail::date::ZonedTime;
use crate::mail::mailbox::{MailboxId, MailboxName, Uid};
use crate::mail::message::{FlagNames, Placed, UidSet};
use crate::protocol::imap::command::{AppendHead, AppendPiece};
use crate::protocol::imap::config::ImapConfig;
use crate::protocol::imap::desk::{Desk, End, Errand, Then, Turn, unexpected};
use crate::protocol::imap::intake::{Intake, SWALLOW_MAX, Taken};
use crate::protocol::imap::request::{Answer, BODY_CHUNK, Refused, Request};
use crate::protocol::imap::response::write_uids;
use crate::protocol::imap::url::ImapUrl;

/// Most messages of one APPEND: each keeps what the part walker found until the last one is there.
pub(crate) const MESSAGES_MAX: u32 = 32;

/// An APPEND on its way.
#[derive(Debug)]
pub(crate) struct Append {
    mailbox: MailboxName,
    /// What is known to come; the rest of the line follows a literal.
    pieces: VecDeque<AppendPiece>,
    /// Those of the message that is coming.
    flags: FlagNames,
    date: Option<ZonedTime>,
    /// Its number, from 1.
    number: u32,
    /// The message it takes the place of.
    replaces: Option<(MailboxId, Uid)>,
    /// Bytes of the message so far.
    size: u64,
    /// Bytes of the literal still to come.
    left: u64,
    /// Why nothing of it is kept.
    refused: Option<End>,
    /// Something was taken that is to be forgotten when nothing is kept.
    begun: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The next piece is due.
    Next,
    /// May the message be kept?
    Asked,
    /// The client sends a literal.
    Receive,
    /// These bytes of it came.
    Received(Vec<u8>),
    /// They are being kept.
    Passed,
    /// What this URL names is being taken.
    Fetched(String),
    /// The message is being set aside, because another follows.
    Aside,
    /// The rest of the command line follows.
    Line {
        /// The intake knows that the literal is over.
        told: bool,
    },
    /// It is being kept.
    Keep,
    /// What was taken is being forgotten.
    Cancel(End),
}

impl Append {
    pub(crate) fn new(head: AppendHead) -> Self {
        let AppendHead { mailbox, pieces } = head;
        Self {
            mailbox,
            pieces: pieces.into(),
            flags: FlagNames::default(),
            date: None,
            number: 0,
            replaces: None,
            size: 0,
            left: 0,
            refused: None,
            begun: false,
            state: State::Next,
        }
    }

    /// An APPEND that may not come now: it ends with `end`, and its message is not taken for commands.
    pub(crate) fn misplaced(head: AppendHead, end: End) -> Self {
        Self { refused: Some(end), ..Self::new(head) }
    }

    /// REPLACE: the message takes the place of another.
    pub(crate) fn replacing(head: AppendHead, mailbox: MailboxId, uid: Uid) -> Self {
        Self { replaces: Some((mailbox, uid)), ..Self::new(head) }
    }

    fn name(&self) -> &'static str {
        if self.replaces.is_some() { "REPLACE" } else { "APPEND" }
    }

    /// Works pieces off until one needs something.
    fn next(&mut self, desk: &mut Desk) -> Turn {
        while let Some(piece) = self.pieces.pop_front() {
            let turn = match piece {
                AppendPiece::Message { flags, date } => self.message(desk, flags, date),
                AppendPiece::Literal { size, synchronizing } => Some(self.literal(desk, size, synchronizing)),
                AppendPiece::Url(url) => self.url(desk, url),
                AppendPiece::End => self.message_end(),
            };
            if let Some(turn) = turn {
                return turn;
            }
        }
        // The line is over; a command that was not refused has ended with its last message.
        self.give_up()
    }

    /// A message begins: asks whether it may come.
    fn message(&mut self, desk: &Desk, flags: FlagNames, date: Option<ZonedTime>) -> Option<Turn> {
        self.number = self.number.saturating_add(1);
        (self.flags, self.date, self.size) = (flags, date, 0);
        if self.refused.is_some() {
            return None;
        }
        let size = match self.pieces.front() {
            Some(AppendPiece::Literal { size, .. }) => *size,
            _ => 0,
        };
        if self.number > 1 && self.replaces.is_some() {
            self.refused = Some(End::bad("REPLACE takes one message"));
        } else if self.number > MESSAGES_MAX {
            self.refused = Some(End::no("[LIMIT] that is more messages than one APPEND may bring"));
        } else if size > u64::from(desk.config.append_max_bytes) {
            self.refused = Some(too_big());
        } else {
            self.begun = true;
            self.state = State::Asked;
            return Some(Turn::Ask(Request::AppendBegin {
                mailbox: self.mailbox.clone(),
                size,
                replaced: self.replaces,
            }));
        }
        None
    }

    /// A literal comes next. The command ends here when it is refused and the client waits for our
    /// word.
    fn literal(&mut self, desk: &mut Desk, size: u64, synchronizing: bool) -> Turn {
        self.size = self.size.saturating_add(size);
        if self.refused.is_none() && self.size > u64::from(desk.config.append_max_bytes) {
            self.refused = Some(too_big());
        }
        if self.refused.is_some() && synchronizing {
            return self.give_up();
        }
        if self.refused.is_some() && size > SWALLOW_MAX {
            // More than anybody should send to be told no.
            desk.put(format_args!("* BYE the literal is too large to be passed over\r\n"));
            return Turn::Done(self.refused.take().unwrap_or_else(too_big).then(Then::Close));
        }
        if synchronizing {
            desk.put(format_args!("+ go on\r\n"));
        }
        self.left = size;
        self.receive_more()
    }

    /// The next bytes of the literal, or what stands behind it.
    fn receive_more(&mut self) -> Turn {
        self.state = if self.left == 0 { State::Line { told: false } } else { State::Receive };
        Turn::Read
    }

    /// A part that is here already (RFC 4469 section 3).
    fn url(&mut self, desk: &Desk, text: String) -> Option<Turn> {
        if self.refused.is_some() {
            return None;
        }
        // An authorization is for others; who is logged in needs none.
        let Some(url) = ImapUrl::parse(&text).filter(|url| url.access.is_none() && desk.is_own(url)) else {
            self.refused = Some(bad_url(&text));
            return None;
        };
        let most = u64::from(desk.config.append_max_bytes).saturating_sub(self.size);
        self.state = State::Fetched(text);
        Some(Turn::Ask(Request::AppendUrl { url: Box::new(url), most }))
    }

    fn message_end(&mut self) -> Option<Turn> {
        if self.refused.is_some() {
            return None;
        }
        let (flags, date) = (std::mem::take(&mut self.flags), self.date);
        let request = if self.pieces.is_empty() {
            self.state = State::Keep;
            Request::AppendEnd { flags, date, replaced: self.replaces }
        } else {
            self.state = State::Aside;
            Request::AppendNext { flags, date }
        };
        Some(Turn::Ask(request))
    }

    /// Ends a command of which nothing is kept.
    fn give_up(&mut self) -> Turn {
        let end = self.refused.take().unwrap_or_else(|| End::refused(Refused::Unavailable));
        if !self.begun {
            return Turn::Done(end);
        }
        self.state = State::Cancel(end);
        Turn::Ask(Request::AppendCancel)
    }

    /// Goes on where the world has said no.
    fn refuse(&mut self, answer: Option<&Answer>) {
        self.refused = Some(match answer {
            Some(Answer::Mailbox(None) | Answer::Refused(Refused::NoSuchMailbox)) => {
                End::no("[TRYCREATE] there is no such mailbox")
            }
            Some(Answer::Refused(refused)) => End::refused(*refused),
            _ => End::refused(Refused::Unavailable),
        });
    }

    fn kept(&self, desk: &mut Desk, placed: &Placed) -> Turn {
        let name = self.name();
        let Some(_) = placed.to.first() else { return Turn::Done(End::ok(format!("{name} completed"))) };
        let mut code = format!("[APPENDUID {} ", placed.uid_validity.0).into_bytes();
        write_uids(&mut code, &placed.to);
        code.push(b']');
        let code = String::from_utf8_lossy(&code);
        let Some((mailbox, uid)) = self.replaces else {
            return Turn::Done(End::ok(format!("{code} {name} completed")));
        };
        // The new uid comes before the EXPUNGE, which comes with the changes (RFC 8508 section 3.4).
        desk.put(format_args!("* OK {code} the new message is kept\r\n"));
        if let Some(view) = desk.view.as_deref_mut().filter(|view| view.mailbox == mailbox) {
            view.vanish(&std::iter::once(uid).collect::<UidSet>());
        }
        Turn::Done(End::ok("REPLACE completed").with_modseq())
    }
}

impl Errand for Append {
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        match std::mem::replace(&mut self.state, State::Next) {
            State::Next => self.next(desk),
            State::Asked => {
                if !matches!(answer, Some(Answer::Mailbox(Some(_)))) {
                    self.refuse(answer.as_ref());
                }
                self.next(desk)
            }
            State::Receive => self.receive_more(),
            State::Received(bytes) => {
                self.state = State::Passed;
                Turn::Ask(Request::AppendBytes(bytes))
            }
            State::Passed => {
                if !matches!(answer, Some(Answer::Done)) {
                    self.refuse(answer.as_ref());
                }
                self.receive_more()
            }
            State::Fetched(url) => {
                match answer {
                    Some(Answer::Appended(bytes)) => self.size = self.size.saturating_add(bytes),
                    Some(Answer::Refused(Refused::BadUrl)) => self.refused = Some(bad_url(&url)),
                    Some(Answer::Refused(Refused::TooBig)) => self.refused = Some(too_big()),
                    other => self.refuse(other.as_ref()),
                }
                self.next(desk)
            }
            State::Aside => {
                if !matches!(answer, Some(Answer::Done)) {
                    self.refuse(answer.as_ref());
                }
                self.next(desk)
            }
            line @ State::Line { .. } => {
                self.state = line;
                Turn::Read
            }
            State::Keep => match answer {
                Some(Answer::Placed(placed)) => self.kept(desk, &placed),
                Some(Answer::Refused(Refused::NoSuchMailbox)) => {
                    Turn::Done(End::no("[TRYCREATE] there is no such mailbox"))
                }
                other => unexpected(other),
            },
            State::Cancel(end) => Turn::Done(end),
        }
    }

    fn receive(&mut self, desk: &mut Desk, intake: &mut Intake, bytes: &[u8]) -> usize {
        if let State::Line { told } = &mut self.state {
            if !std::mem::replace(told, true) {
                intake.after_literal();
            }
            let (taken, outcome) = intake.take(bytes);
            match outcome {
                Taken::AppendLine(pieces) => self.pieces.extend(pieces),
                Taken::Declined { text, .. } => self.refused = Some(End::no(text)),
                Taken::Refused { text, fatal, .. } => {
                    let end = End::bad(text);
                    self.refused = Some(if fatal { end.then(Then::Close) } else { end });
                }
                Taken::Continue => {
                    desk.put(format_args!("+ go on\r\n"));
                    return taken;
                }
                _ => return taken,
            }
            self.state = State::Next;
            return taken;
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(BODY_CHUNK);
        let part = bytes.get(..most).unwrap_or(bytes);
        self.left -= part.len() as u64;
        if self.refused.is_none() {
            self.state = State::Received(part.to_vec());
        }
        part.len()
    }

    fn patience(&self, config: &ImapConfig) -> Option<Duration> {
        Some(Duration::from_secs(config.literal_max_secs.into()))
    }
}

fn too_big() -> End {
    End::no("[TOOBIG] the message is larger than APPENDLIMIT")
}

/// RFC 4469 section 4.1. What the code cannot hold is left out of it.
fn bad_url(url: &str) -> End {
    let spelled: String = url.chars().filter(|c| c.is_ascii_graphic() && *c != ']').collect();
    let code = if spelled.is_empty() { "BADURL /".to_owned() } else { format!("BADURL {spelled}") };
    End::no(format!("[{code}] there is no such message or part here"))
}
