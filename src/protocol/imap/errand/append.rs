//! APPEND (RFC 9051 section 6.3.12, RFC 3502, RFC 7888, RFC 7889) and REPLACE (RFC 8508): messages
//! stream by, one after the other, and are kept all together or not at all.
//!
//! Whether it can be kept is asked before a synchronising client sends it. What a client sends
//! unasked and nobody wants is read and dropped, so that the connection can go on.

use std::time::Duration;

use crate::mail::mailbox::{MailboxId, MailboxName, Uid};
use crate::mail::message::UidSet;
use crate::protocol::imap::command::{AppendHead, AppendMessage};
use crate::protocol::imap::config::ImapConfig;
use crate::protocol::imap::desk::{Desk, End, Errand, Then, Turn, unexpected};
use crate::protocol::imap::intake::{Intake, SWALLOW_MAX, Taken};
use crate::protocol::imap::request::{Answer, BODY_CHUNK, Refused, Request};
use crate::protocol::imap::response::write_uids;

/// Most messages of one APPEND: each keeps what the part walker found until the last one is there.
pub(crate) const MESSAGES_MAX: u32 = 32;

/// An APPEND on its way.
#[derive(Debug)]
pub(crate) struct Append {
    mailbox: MailboxName,
    /// The message that is coming.
    message: AppendMessage,
    /// Its number, from 1.
    number: u32,
    /// The message it takes the place of.
    replaces: Option<(MailboxId, Uid)>,
    /// Bytes of the literal still to come.
    left: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Begin,
    /// It may not come now.
    Misplaced(End),
    /// May it be kept?
    Asked,
    /// The client sends the message.
    Receive,
    /// These bytes came.
    Received(Vec<u8>),
    /// They are being kept.
    Passed,
    /// Nobody wants the rest of it.
    Swallow(Option<End>),
    /// The rest of the command line follows.
    Line {
        refused: Option<End>,
        /// The intake knows that the literal is over.
        told: bool,
    },
    /// The command has ended.
    Ended(Ending),
    /// It is being set aside, because this one follows.
    Next(AppendMessage),
    /// It is being kept.
    Keep,
    /// What was taken is being forgotten.
    Cancel(Option<End>),
}

/// How the command line ended.
#[derive(Debug)]
enum Ending {
    Keep,
    /// Another message follows; nobody wants it where there is an end already.
    More(AppendMessage, Option<End>),
    Refuse(End),
    Malformed {
        text: &'static str,
        fatal: bool,
    },
}

impl Append {
    pub(crate) fn new(head: AppendHead) -> Self {
        Self::starting(head, State::Begin)
    }

    /// An APPEND that may not come now: it ends with `end`, and its message is not taken for commands.
    pub(crate) fn misplaced(head: AppendHead, end: End) -> Self {
        Self::starting(head, State::Misplaced(end))
    }

    /// REPLACE: the message takes the place of another.
    pub(crate) fn replacing(head: AppendHead, mailbox: MailboxId, uid: Uid) -> Self {
        Self { replaces: Some((mailbox, uid)), ..Self::new(head) }
    }

    fn starting(head: AppendHead, state: State) -> Self {
        let AppendHead { mailbox, message } = head;
        Self { mailbox, left: message.size, message, number: 1, replaces: None, state }
    }

    fn name(&self) -> &'static str {
        if self.replaces.is_some() { "REPLACE" } else { "APPEND" }
    }

    /// Asks whether the message may come.
    fn ask(&mut self, desk: &mut Desk) -> Turn {
        if self.message.size > u64::from(desk.config.append_max_bytes) {
            return self.refuse(desk, End::no("[TOOBIG] the message is larger than APPENDLIMIT"));
        }
        self.state = State::Asked;
        let (mailbox, size) = (self.mailbox.clone(), self.message.size);
        Turn::Ask(Request::AppendBegin { mailbox, size, replaced: self.replaces })
    }

    /// Ends before anything was sent that is not kept: forgets messages that were set aside.
    fn give_up(&mut self, end: End) -> Turn {
        if self.number == 1 {
            return Turn::Done(end);
        }
        self.state = State::Cancel(Some(end));
        Turn::Ask(Request::AppendCancel)
    }

    /// The next message of the command line.
    fn more(&mut self, desk: &mut Desk, message: AppendMessage, refused: Option<End>) -> Turn {
        if let Some(end) = refused {
            self.begin_next(message);
            return self.refuse(desk, end);
        }
        if self.number >= MESSAGES_MAX || self.replaces.is_some() {
            let end = if self.replaces.is_some() {
                End::bad("REPLACE takes one message")
            } else {
                End::no("[LIMIT] that is more messages than one APPEND may bring")
            };
            self.begin_next(message);
            return self.refuse(desk, end);
        }
        let flags = std::mem::take(&mut self.message.flags);
        self.state = State::Next(message);
        Turn::Ask(Request::AppendNext { flags, date: self.message.date })
    }

    fn begin_next(&mut self, message: AppendMessage) {
        self.number = self.number.saturating_add(1);
        self.left = message.size;
        self.message = message;
    }

    fn kept(&self, desk: &mut Desk, placed: &crate::mail::message::Placed) -> Turn {
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

    /// The message will not be kept: the command ends here when the client waits for our word, and
    /// after what it sends otherwise.
    fn refuse(&mut self, desk: &mut Desk, end: End) -> Turn {
        if self.message.synchronizing {
            return self.give_up(end);
        }
        if self.left > SWALLOW_MAX {
            // More than anybody should send to be told no.
            desk.put(format_args!("* BYE the literal is too large to be passed over\r\n"));
            return Turn::Done(end.then(Then::Close));
        }
        if self.left == 0 {
            return self.literal_done(Some(end));
        }
        self.state = State::Swallow(Some(end));
        Turn::Read
    }

    /// After the literal's last byte.
    fn literal_done(&mut self, refused: Option<End>) -> Turn {
        self.state = State::Line { refused, told: false };
        Turn::Read
    }
}

impl Errand for Append {
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        match std::mem::replace(&mut self.state, State::Receive) {
            State::Begin => self.ask(desk),
            State::Misplaced(end) => self.refuse(desk, end),
            State::Asked => match answer {
                Some(Answer::Mailbox(Some(_))) => {
                    if self.message.synchronizing {
                        desk.put(format_args!("+ go on\r\n"));
                    }
                    if self.left == 0 { self.literal_done(None) } else { Turn::Read }
                }
                Some(Answer::Mailbox(None) | Answer::Refused(Refused::NoSuchMailbox)) => {
                    self.refuse(desk, End::no("[TRYCREATE] there is no such mailbox"))
                }
                Some(Answer::Refused(refused)) => self.refuse(desk, End::refused(refused)),
                _ => self.refuse(desk, End::refused(Refused::Unavailable)),
            },
            State::Receive => Turn::Read,
            State::Received(bytes) => {
                self.state = State::Passed;
                Turn::Ask(Request::AppendBytes(bytes))
            }
            State::Passed => match answer {
                Some(Answer::Done) if self.left == 0 => self.literal_done(None),
                Some(Answer::Done) => Turn::Read,
                other => {
                    let refused =
                        if let Some(Answer::Refused(refused)) = other { refused } else { Refused::Unavailable };
                    let end = End::refused(refused);
                    if self.left == 0 {
                        return self.literal_done(Some(end));
                    }
                    self.state = State::Swallow(Some(end));
                    Turn::Read
                }
            },
            State::Swallow(end) if self.left == 0 => self.literal_done(end),
            State::Swallow(end) => {
                self.state = State::Swallow(end);
                Turn::Read
            }
            line @ State::Line { .. } => {
                self.state = line;
                Turn::Read
            }
            State::Ended(Ending::Keep) => {
                self.state = State::Keep;
                let flags = std::mem::take(&mut self.message.flags);
                Turn::Ask(Request::AppendEnd { flags, date: self.message.date, replaced: self.replaces })
            }
            State::Ended(Ending::More(message, refused)) => self.more(desk, message, refused),
            State::Next(message) => {
                self.begin_next(message);
                match answer {
                    Some(Answer::Done) => self.ask(desk),
                    Some(Answer::Refused(refused)) => self.refuse(desk, End::refused(refused)),
                    _ => self.refuse(desk, End::refused(Refused::Unavailable)),
                }
            }
            State::Ended(Ending::Refuse(end)) => {
                self.state = State::Cancel(Some(end));
                Turn::Ask(Request::AppendCancel)
            }
            State::Ended(Ending::Malformed { text, fatal }) => {
                let end = End::bad(text);
                self.state = State::Cancel(Some(if fatal { end.then(Then::Close) } else { end }));
                Turn::Ask(Request::AppendCancel)
            }
            State::Keep => match answer {
                Some(Answer::Placed(placed)) => self.kept(desk, &placed),
                Some(Answer::Refused(Refused::NoSuchMailbox)) => {
                    Turn::Done(End::no("[TRYCREATE] there is no such mailbox"))
                }
                other => unexpected(other),
            },
            State::Cancel(end) => end.map_or_else(|| unexpected(None), Turn::Done),
        }
    }

    fn receive(&mut self, _desk: &mut Desk, intake: &mut Intake, bytes: &[u8]) -> usize {
        match &mut self.state {
            State::Line { refused, told } => {
                if !std::mem::replace(told, true) {
                    intake.after_literal();
                }
                let (taken, outcome) = intake.take(bytes);
                let ending = match outcome {
                    Taken::LiteralEnd => refused.take().map_or(Ending::Keep, Ending::Refuse),
                    Taken::AppendMore(message) => Ending::More(message, refused.take()),
                    Taken::Declined { text, .. } => Ending::Refuse(End::no(text)),
                    Taken::Refused { text, fatal, .. } => Ending::Malformed { text, fatal },
                    _ => return taken,
                };
                self.state = State::Ended(ending);
                taken
            }
            swallow_or_receive => {
                let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(BODY_CHUNK);
                let part = bytes.get(..most).unwrap_or(bytes);
                self.left -= part.len() as u64;
                if !matches!(swallow_or_receive, State::Swallow(_)) {
                    self.state = State::Received(part.to_vec());
                }
                part.len()
            }
        }
    }

    fn patience(&self, config: &ImapConfig) -> Option<Duration> {
        Some(Duration::from_secs(config.literal_max_secs.into()))
    }
}
