//! An IMAP connection without its socket: one command at a time, from its bytes to its tagged
//! response.
//!
//! The session gathers commands with the [`Intake`], hands each to the file of its state
//! ([`greeting`], [`authenticated`], [`selected`]), runs the errand that comes of it, tells what
//! other sessions changed meanwhile, and writes the tagged response. Between commands it holds no
//! buffer: what is left is the [`Desk`] and the view of the selected mailbox.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use crate::protocol::{Notice, Session as Protocol, Step, TlsFacts};

use super::command::{Command, Tagged};
use super::compress::Channel;
use super::config::ImapConfig;
use super::desk::{Begun, Desk, Enabled, End, Errand, Site, Stage, Then, Turn};
use super::errand::append::Append;
use super::errand::multisearch::MultiSearch;
use super::errand::telling::Telling;
use super::intake::{Intake, Taken};
use super::notify::Notify;
use super::request::{Answer, Request};
use super::response::{Condition, write_status};
use super::{any, authenticated, greeting, selected};

/// One IMAP connection.
#[derive(Debug)]
pub struct Session {
    desk: Desk,
    intake: Intake,
    channel: Option<Box<Channel>>,
    work: Work,
    due: Due,
    /// The output was handed out and counts as sent at the next call.
    sent: bool,
    /// Commands before login.
    commands: u8,
    /// Commands answered BAD, one after the other.
    bad: u8,
}

/// What the session is busy with.
#[derive(Debug)]
enum Work {
    /// The greeting was not said yet.
    Greet,
    /// Between commands.
    Rest,
    /// A command is being answered.
    Command { tag: String, errand: Box<dyn Errand>, manner: Manner },
    /// A command is done but for the tagged response: changes are told first.
    Settle { tag: String, end: End, telling: Box<Telling> },
    /// Between commands: changes are told, as NOTIFY wants it.
    Notice(Box<Telling>),
}

/// What a command says about what is told at its end.
#[derive(Clone, Copy, Debug)]
struct Manner {
    /// EXPUNGE may be told.
    expunges: bool,
    /// It may change the selected mailbox.
    changes: bool,
}

/// What `next` says.
#[derive(Debug)]
enum Due {
    /// Nothing before the work went on.
    Go,
    Flush,
    Read,
    Ask(Request),
    /// An answer is awaited.
    Answer,
    StartTls,
    /// What was said is sent as it is; what follows is compressed.
    Compress,
    Close,
}

impl Session {
    /// A connection that was just accepted. With implicit TLS call
    /// [`tls_started`](Protocol::tls_started) before anything else.
    #[must_use]
    pub fn new(config: Arc<ImapConfig>, site: Site) -> Self {
        let desk = Desk {
            config,
            site,
            secure: false,
            channel: None,
            compressed: false,
            stage: Stage::Greeting,
            enabled: Enabled::default(),
            notify: None,
            view: None,
            out: Vec::new(),
            failed_logins: 0,
            user: None,
        };
        let intake = Intake::default();
        Self { desk, intake, channel: None, work: Work::Greet, due: Due::Go, sent: false, commands: 0, bad: 0 }
    }

    /// Goes on with the work until something is due.
    fn advance(&mut self, mut answer: Option<Answer>) {
        loop {
            let turn = match &mut self.work {
                Work::Greet => {
                    greeting::greet(&mut self.desk);
                    self.work = Work::Rest;
                    continue;
                }
                Work::Rest => {
                    self.due = Due::Read;
                    return;
                }
                Work::Command { errand, .. } => errand.go(&mut self.desk, answer.take()),
                Work::Settle { telling, .. } | Work::Notice(telling) => telling.go(&mut self.desk, answer.take()),
            };
            self.due = match turn {
                Turn::Ask(request) => Due::Ask(request),
                Turn::Flush => Due::Flush,
                Turn::Read => Due::Read,
                Turn::Done(end) => {
                    self.done(end);
                    if matches!(self.due, Due::Go) {
                        continue;
                    }
                    return;
                }
            };
            return;
        }
    }

    /// The errand or the telling of changes is over.
    fn done(&mut self, outcome: End) {
        self.due = Due::Go;
        match mem::replace(&mut self.work, Work::Rest) {
            Work::Command { tag, manner, .. } => self.settle(tag, outcome, manner),
            // The mailbox has gone: BYE was said.
            Work::Settle { .. } | Work::Notice(_) if outcome.then != Then::GoOn => self.due = Due::Close,
            Work::Settle { tag, end, .. } => self.tagged(&tag, &end),
            Work::Greet | Work::Rest | Work::Notice(_) => {}
        }
    }

    /// Tells changes, then writes the tagged response (RFC 9051 sections 5.2 and 7). Where NOTIFY asks
    /// for nothing about the selected mailbox, only what the command itself may have done is told.
    fn settle(&mut self, tag: String, end: End, manner: Manner) {
        let told = self.desk.notify.as_deref().is_none_or(|notify| notify.selected.is_some()) || manner.changes;
        if self.desk.view.is_some() && told && !end.quiet && end.then == Then::GoOn {
            let telling = Box::new(Telling::after_command(manner.expunges));
            self.work = Work::Settle { tag, end, telling };
        } else {
            self.tagged(&tag, &end);
        }
    }

    fn tagged(&mut self, tag: &str, end: &End) {
        if end.then == Then::Abort {
            self.due = Due::Close;
            return;
        }
        let mut end = end;
        let full;
        if end.then == Then::Compress {
            self.channel = Channel::open(self.desk.config.compressed_sessions_max.into());
            if self.channel.is_none() {
                full = End::no("[LIMIT] too many sessions are compressed already, go on without");
                end = &full;
            }
        }
        let modseq = end.tells_modseq.then(|| self.desk.told_modseq()).flatten();
        let code = modseq.map(|modseq| format!("HIGHESTMODSEQ {}", modseq.0));
        write_status(&mut self.desk.out, Some(tag), end.condition, code.as_deref(), &end.text);
        self.intake.set_utf8(self.desk.enabled.utf8_names());
        self.due = match end.then {
            Then::GoOn => Due::Go,
            Then::StartTls => Due::StartTls,
            Then::Compress => Due::Compress,
            Then::Close | Then::Abort => Due::Close,
        };
        match end.condition {
            Condition::Bad => self.count_bad(),
            _ => self.bad = 0,
        }
    }

    /// Ends the session when too many commands in a row make no sense: that is no IMAP client.
    fn count_bad(&mut self) {
        self.bad = self.bad.saturating_add(1);
        if self.bad >= self.desk.config.bad_commands_max {
            self.bye("too many bad commands");
        }
    }

    fn bye(&mut self, text: &str) {
        write_status(&mut self.desk.out, None, Condition::Bye, None, text);
        self.due = Due::Close;
    }

    /// What the intake made of the bytes while the session is between commands.
    fn gathered(&mut self, taken: Taken) {
        match taken {
            Taken::More | Taken::AppendLine(_) => {}
            Taken::Continue => self.desk.out.extend_from_slice(b"+ go on\r\n"),
            Taken::Command(tagged) => self.begin(tagged),
            Taken::Declined { tag, text } => write_status(&mut self.desk.out, Some(&tag), Condition::No, None, text),
            Taken::Refused { tag, text, fatal: false } => {
                write_status(&mut self.desk.out, tag.as_deref(), Condition::Bad, None, text);
                self.count_bad();
            }
            Taken::Refused { text, fatal: true, .. } => self.bye(text),
        }
    }

    /// Hands what was unpacked to the commands; false when there is nothing.
    fn take_unpacked(&mut self) -> bool {
        let Some(mut channel) = self.channel.take() else { return false };
        let mut taken = 0;
        if self.desk.compressed {
            if channel.rest().is_empty() && channel.has_more() && channel.take(&[]).is_err() {
                self.channel = Some(channel);
                self.bye("what came is not compressed");
                return true;
            }
            if !channel.rest().is_empty() {
                taken = self.take(channel.rest());
                channel.consume(taken);
            }
        }
        self.channel = Some(channel);
        taken > 0
    }

    /// Takes bytes of the client.
    fn take(&mut self, bytes: &[u8]) -> usize {
        if let Work::Command { errand, .. } = &mut self.work {
            let taken = errand.receive(&mut self.desk, &mut self.intake, bytes);
            self.due = Due::Go;
            taken
        } else {
            let (taken, outcome) = self.intake.take(bytes);
            self.gathered(outcome);
            taken
        }
    }

    fn begin(&mut self, Tagged { tag, command }: Tagged) {
        if self.desk.stage == Stage::Greeting && !matches!(command, Command::Logout) {
            self.commands = self.commands.saturating_add(1);
            if self.commands > self.desk.config.commands_before_login_max {
                return self.bye("too many commands before a login");
            }
        }
        self.due = Due::Go;
        let manner = Manner { expunges: !selected::holds_expunges(&command), changes: selected::may_change(&command) };
        if matches!(command, Command::Unauthenticate) && self.desk.stage == Stage::Authenticated {
            self.commands = 0;
        }
        match dispatch(&mut self.desk, &tag, command) {
            Begun::End(end) => self.settle(tag, end, manner),
            Begun::Errand(errand) => self.work = Work::Command { tag, errand, manner },
        }
    }
}

/// Hands a command to the file of the state it belongs to (RFC 9051 section 3).
fn dispatch(desk: &mut Desk, tag: &str, command: Command) -> Begun {
    match command {
        Command::Capability | Command::Noop | Command::Logout | Command::Id(_) => any::begin(desk, &command).into(),
        Command::StartTls | Command::Authenticate { .. } | Command::Login { .. } => match desk.stage {
            Stage::Greeting => greeting::begin(desk, command),
            Stage::Authenticated => End::bad("you are logged in already").into(),
        },
        Command::Append(head) | Command::Replace { head, .. } if desk.stage == Stage::Greeting => {
            Begun::errand(Append::misplaced(head, End::bad("log in first")))
        }
        _ if desk.stage == Stage::Greeting => End::bad("log in first").into(),
        Command::Close
        | Command::Unselect
        | Command::Expunge { .. }
        | Command::Check
        | Command::CancelUpdate(_)
        | Command::Search { .. }
        | Command::Sort { .. }
        | Command::Thread { .. }
        | Command::UidBatches { .. }
        | Command::Fetch(_)
        | Command::Replace { .. }
        | Command::Store(_)
        | Command::Copy { .. }
        | Command::Move { .. } => selected::begin(desk, tag, command),
        Command::Esearch { sources, program } => MultiSearch::begin(desk, tag, sources, program),
        _ => authenticated::begin(desk, command),
    }
}

impl Session {
    /// Tells whether changes are told between commands, and this is between two.
    fn waits_for_notices(&self) -> bool {
        let watches = |notify: &Notify| notify.selected.is_some() || !notify.groups.is_empty();
        matches!((&self.work, &self.due), (Work::Rest, Due::Read)) && self.desk.notify.as_deref().is_some_and(watches)
    }
}

impl Protocol for Session {
    type Request = Request;
    type Answer = Answer;

    fn next(&mut self) -> Step<'_, Request> {
        if mem::take(&mut self.sent) {
            self.desk.out.clear();
        }
        loop {
            if matches!(self.due, Due::Read) && self.desk.out.is_empty() && self.take_unpacked() {
                continue;
            }
            match &self.due {
                Due::Go => {
                    self.advance(None);
                    continue;
                }
                Due::Flush if self.desk.out.is_empty() => {
                    self.due = Due::Go;
                    continue;
                }
                Due::Flush => self.due = Due::Go,
                // Small answers are gathered while more are asked for.
                Due::Ask(_) if !self.desk.is_full() => {
                    if let Due::Ask(request) = mem::replace(&mut self.due, Due::Answer) {
                        return Step::Ask(request);
                    }
                    continue;
                }
                _ if !self.desk.out.is_empty() => {}
                Due::Ask(_) => continue,
                Due::Read | Due::Answer => {
                    self.desk.out = Vec::new();
                    if let Some(channel) = self.channel.as_mut().filter(|_| self.desk.compressed) {
                        channel.relax();
                    }
                    return Step::Read;
                }
                Due::Compress => {
                    self.desk.compressed = true;
                    self.due = Due::Go;
                    continue;
                }
                Due::StartTls => return Step::StartTls,
                Due::Close => return Step::Close,
            }
            self.sent = true;
            let Some(channel) = self.channel.as_mut().filter(|_| self.desk.compressed) else {
                return Step::Write(&self.desk.out);
            };
            // What can't be packed can't be said either.
            return channel.pack(&self.desk.out).map_or(Step::Close, Step::Write);
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> usize {
        if bytes.is_empty() {
            // Nobody is left to answer.
            self.desk.out = Vec::new();
            self.due = Due::Close;
            return 0;
        }
        if !matches!(self.due, Due::Read) {
            return bytes.len();
        }
        let Some(channel) = self.channel.as_mut().filter(|_| self.desk.compressed) else { return self.take(bytes) };
        if let Ok(taken) = channel.take(bytes) {
            taken.max(1)
        } else {
            self.bye("what came is not compressed");
            bytes.len()
        }
    }

    fn resume(&mut self, answer: Answer) {
        if matches!(self.due, Due::Answer) {
            self.due = Due::Go;
            self.advance(Some(answer));
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Changed => {
                if self.waits_for_notices() {
                    self.work = Work::Notice(Box::new(Telling::unasked(&self.desk, false)));
                    self.due = Due::Go;
                } else if let Work::Command { errand, .. } = &mut self.work
                    && errand.wants_changes()
                {
                    errand.changed();
                    self.due = Due::Go;
                }
            }
            Notice::Silence if self.desk.stage == Stage::Greeting => self.bye("no login came"),
            Notice::Silence => self.bye("nothing was heard for long"),
            Notice::Stopping => self.bye("the server is stopping, come back soon"),
        }
    }

    fn tls_started(&mut self, tls: TlsFacts) {
        self.desk.secure = true;
        self.desk.channel = tls.channel.kept();
        // Whatever was begun in clear is not to be trusted (RFC 9051 section 6.2.1).
        self.intake = Intake::default();
        if matches!(self.due, Due::StartTls) {
            self.due = Due::Go;
        }
    }

    fn patience(&self) -> Duration {
        let config = &self.desk.config;
        let seconds = |seconds: u16| Duration::from_secs(seconds.into());
        if self.desk.stage == Stage::Greeting {
            return seconds(config.login_max_secs);
        }
        let midway = || self.intake.is_midway().then(|| seconds(config.literal_max_secs));
        match &self.work {
            Work::Command { errand, .. } => errand.patience(config),
            _ => midway(),
        }
        .unwrap_or(seconds(config.idle_max_secs))
    }

    fn wants_changes(&self) -> bool {
        let waits = matches!(&self.work, Work::Command { errand, .. } if errand.wants_changes());
        waits && matches!(self.due, Due::Read) || self.waits_for_notices()
    }
}

#[cfg(test)]
mod tests;
