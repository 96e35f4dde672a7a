//! APPEND (RFC 9051 section 6.3.12, RFC 7888, RFC 7889): a message streams by.
//!
//! Whether it can be kept is asked before a synchronising client sends it. What a client sends
//! unasked and nobody wants is read and dropped, so that the connection can go on.

use std::time::Duration;

use crate::protocol::imap::command::AppendHead;
use crate::protocol::imap::config::ImapConfig;
use crate::protocol::imap::desk::{Desk, End, Errand, Then, Turn, unexpected};
use crate::protocol::imap::intake::{Intake, SWALLOW_MAX, Taken};
use crate::protocol::imap::request::{Answer, BODY_CHUNK, Refused, Request};

/// An APPEND on its way.
#[derive(Debug)]
pub(crate) struct Append {
    head: AppendHead,
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
    /// It is being kept.
    Keep,
    /// What was taken is being forgotten.
    Cancel(Option<End>),
}

/// How the command line ended.
#[derive(Debug)]
enum Ending {
    Keep,
    Refuse(End),
    Malformed { text: &'static str, fatal: bool },
}

impl Append {
    pub(crate) fn new(head: AppendHead) -> Self {
        let left = head.size;
        Self { head, left, state: State::Begin }
    }

    /// An APPEND that may not come now: it ends with `end`, and its message is not taken for commands.
    pub(crate) fn misplaced(head: AppendHead, end: End) -> Self {
        let left = head.size;
        Self { head, left, state: State::Misplaced(end) }
    }

    /// The message will not be kept: the command ends here when the client waits for our word, and
    /// after what it sends otherwise.
    fn refuse(&mut self, desk: &mut Desk, end: End) -> Turn {
        if self.head.synchronizing {
            return Turn::Done(end);
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
            State::Begin => {
                if self.head.size > u64::from(desk.config.append_max_bytes) {
                    return self.refuse(desk, End::no("[TOOBIG] the message is larger than APPENDLIMIT"));
                }
                self.state = State::Asked;
                let (mailbox, size) = (self.head.mailbox.clone(), self.head.size);
                Turn::Ask(Request::AppendBegin { mailbox, size })
            }
            State::Misplaced(end) => self.refuse(desk, end),
            State::Asked => match answer {
                Some(Answer::Mailbox(Some(_))) => {
                    if self.head.synchronizing {
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
                let flags = std::mem::take(&mut self.head.flags);
                Turn::Ask(Request::AppendEnd { flags, date: self.head.date })
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
                Some(Answer::Placed(placed)) => Turn::Done(match placed.to.first() {
                    Some(uid) => {
                        End::ok(format!("[APPENDUID {} {}] APPEND completed", placed.uid_validity.0, uid.get()))
                    }
                    None => End::ok("APPEND completed"),
                }),
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
