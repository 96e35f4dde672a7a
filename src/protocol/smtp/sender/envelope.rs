//! A message's way from MAIL to its last reply (RFC 5321 section 3.3).
//!
//! Where PIPELINING is offered, MAIL, the recipients and DATA go in one piece (RFC 2920). Where
//! CHUNKING is, the content goes by BDAT (RFC 3030): it needs no dots, and no answer before it.

use super::heard::Enhanced;
use super::reply::Said;
use super::session::{Awaited, Sender, State};
use super::stuffing::DotWriter;
use super::{Done, Heard, Mail, Outcome, Point, Request, command};
use crate::mail::address::Address;

/// Recipients sent in one piece: few enough that neither side's window fills up while the other
/// writes (RFC 2920 section 3.1).
const GROUP_MAX: usize = 50;

/// Chunks sent whose answers have not come.
const CHUNKS_MAX: usize = 8;

/// A message under way.
#[derive(Debug)]
pub(super) struct Transaction {
    mail: Mail,
    standings: Vec<Standing>,
    /// The next recipient to be named.
    next: usize,
    /// Recipients named in this transaction; the peer takes no more.
    named: usize,
    phase: Phase,
    framing: Framing,
    /// What ended the content early.
    refusal: Option<Heard>,
    /// The refusal is the connection's: nothing was wrong with the message.
    elsewhere: bool,
}

/// Where a recipient stands.
#[derive(Clone, Debug)]
enum Standing {
    /// Not answered yet.
    Open,
    /// RCPT was answered with yes.
    Accepted,
    /// It is known what became of it.
    Settled(Outcome),
}

/// How far the message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// MAIL was not sent yet.
    New,
    /// MAIL was sent, recipients are.
    Addressing,
    /// DATA was sent.
    Announced,
    /// The content goes.
    Content,
    /// The content was sent to its end.
    Sent,
}

/// How the content is framed.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Dots(DotWriter),
    Chunks,
}

impl Transaction {
    fn new(mail: Mail, chunks: bool, most: usize) -> Self {
        let count = mail.envelope.recipients.len();
        let framing = if chunks { Framing::Chunks } else { Framing::Dots(DotWriter::default()) };
        Self {
            mail,
            standings: vec![Standing::Open; count],
            next: 0,
            named: count.min(most),
            phase: Phase::New,
            framing,
            refusal: None,
            elsewhere: false,
        }
    }

    /// The content was sent to its end, and only its reply is missing.
    pub(super) fn is_sent(&self) -> bool {
        self.phase == Phase::Sent
    }

    /// The peer has answered, and not with yes: whether it took the message is no open question.
    pub(super) fn answered(&mut self) {
        self.phase = self.phase.min(Phase::Content);
    }

    /// Nothing of the content has gone out.
    pub(super) fn is_before_content(&self) -> bool {
        self.phase < Phase::Content
    }

    /// The content is being sent.
    pub(super) fn is_within_content(&self) -> bool {
        self.phase == Phase::Content
    }

    /// Settles a recipient that is not settled yet.
    fn settle(&mut self, recipient: usize, outcome: Outcome) {
        if let Some(standing) = self.standings.get_mut(recipient).filter(|standing| !standing.is_settled()) {
            *standing = Standing::Settled(outcome);
        }
    }

    /// Settles all who are not settled yet.
    fn settle_all(&mut self, outcome: &Outcome) {
        for standing in self.standings.iter_mut().filter(|standing| !standing.is_settled()) {
            *standing = Standing::Settled(outcome.clone());
        }
    }

    /// Settles those whose RCPT was accepted.
    fn settle_accepted(&mut self, outcome: &Outcome) {
        for standing in self.standings.iter_mut().filter(|standing| matches!(standing, Standing::Accepted)) {
            *standing = Standing::Settled(outcome.clone());
        }
    }

    /// Defers all who are not settled yet: the connection has failed.
    pub(super) fn defer_all(&mut self, heard: &Heard) {
        let unsure = self.is_sent();
        let mut heard = Heard { unsure, ..heard.clone() };
        if unsure {
            let told = std::mem::take(&mut heard.text);
            super::heard::keep(
                &mut heard.text,
                "the message was sent whole and not acknowledged, so it may arrive twice: ",
            );
            super::heard::keep(&mut heard.text, &told);
        }
        self.settle_all(&Outcome::Deferred(heard));
    }

    /// Somebody is not settled: MAIL, at least, was not refused.
    fn has_open(&self) -> bool {
        self.standings.iter().any(|standing| !standing.is_settled())
    }

    fn has_accepted(&self) -> bool {
        self.standings.iter().any(|standing| matches!(standing, Standing::Accepted))
    }

    /// What became of everybody.
    pub(super) fn done(self, again: bool) -> Done {
        let open = || {
            let text = "the next server takes fewer recipients in one transaction";
            Outcome::Deferred(Heard::ours(Point::Recipient, 452, Enhanced::new(4, 5, 3), text))
        };
        let recipients = self.standings.into_iter().map(|standing| match standing {
            Standing::Settled(outcome) => outcome,
            Standing::Open | Standing::Accepted => open(),
        });
        Done { recipients: recipients.collect(), again: again || self.elsewhere }
    }
}

impl Standing {
    fn is_settled(&self) -> bool {
        matches!(self, Self::Settled(_))
    }
}

impl Sender {
    /// Begins a message.
    pub(super) fn begin(&mut self, mail: Mail) {
        let chunks = self.extensions.chunking;
        let most = self.extensions.recipients_max.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        let refusal = self.unable(&mail);
        let mut transaction = Transaction::new(mail, chunks, most);
        if let Some(heard) = refusal {
            transaction.settle_all(&refused(heard));
        }
        if transaction.standings.iter().all(Standing::is_settled) {
            return self.tell(transaction, false, false);
        }
        self.messages = self.messages.saturating_add(1);
        self.state = State::Sending(Box::new(transaction));
        self.advance();
    }

    /// Why a message cannot go over this connection, if it cannot.
    fn unable(&self, mail: &Mail) -> Option<Heard> {
        let offered = &self.extensions;
        let no = |code, enhanced, text: String| Some(Heard::ours(Point::Mail, code, enhanced, text));
        if mail.require_tls && !self.tls.as_ref().is_some_and(|tls| tls.verified) {
            // RFC 8689 section 4.2.1: TLS alone is not enough, the server must have proved its name.
            // Another connection may demand that from the start.
            let text = "the sender demands verified TLS (REQUIRETLS), which this connection is not";
            return no(450, Enhanced::new(4, 7, 10), text.to_owned());
        }
        if mail.require_tls && !offered.require_tls {
            let text = "the sender demands TLS all the way (REQUIRETLS), which the next server cannot promise";
            return no(550, Enhanced::new(5, 7, 30), text.to_owned());
        }
        if let Some(most) = offered.size_max.filter(|&most| mail.size > most) {
            let text = format!("the message has {} bytes and the next server takes at most {most}", mail.size);
            return no(552, Enhanced::new(5, 3, 4), text);
        }
        self.lacks_for_content(mail)
    }

    /// What the peer lacks that the message's content or addresses need.
    fn lacks_for_content(&self, mail: &Mail) -> Option<Heard> {
        let offered = &self.extensions;
        let no = |code, enhanced, text: &str| Some(Heard::ours(Point::Mail, code, enhanced, text));
        if needs_utf8(mail) && !offered.utf8 {
            // RFC 6531 section 3.5; RFC 6532 leaves no way to spell it in ASCII.
            let text = "the message has an address or header in letters beyond ASCII, \
                        and the next server cannot take such mail (SMTPUTF8)";
            return no(550, Enhanced::new(5, 6, 7), text);
        }
        if mail.nature.binary && !(offered.binary && offered.chunking) {
            let text = "the message holds binary content, and the next server cannot take such mail (BINARYMIME)";
            return no(554, Enhanced::new(5, 6, 3), text);
        }
        if mail.nature.eight_bit && !offered.eight_bit {
            let text = "the message holds 8-bit text, and the next server cannot take such mail (8BITMIME)";
            return no(554, Enhanced::new(5, 6, 3), text);
        }
        None
    }

    /// Says what comes next, when every reply has come.
    pub(super) fn advance(&mut self) {
        if !self.awaited.is_empty() {
            return;
        }
        let State::Sending(transaction) = &mut self.state else { return };
        let pipelining = self.extensions.pipelining;
        let mut commands: Vec<(String, Awaited)> = Vec::new();
        if transaction.phase == Phase::New && self.reset_owed {
            commands.push(("RSET\r\n".to_owned(), Awaited::Reset));
        }
        if transaction.phase == Phase::New && (commands.is_empty() || pipelining) {
            let utf8 = needs_utf8(&transaction.mail);
            commands.push((command::mail(&transaction.mail, &self.extensions, utf8), Awaited::Mail));
            transaction.phase = Phase::Addressing;
        }
        if transaction.phase == Phase::Addressing && (commands.is_empty() || pipelining) {
            let group = if pipelining { GROUP_MAX } else { 1 };
            let until = transaction.named.min(transaction.next.saturating_add(group));
            let until = if transaction.has_open() { until } else { transaction.next };
            let named = transaction.mail.envelope.recipients.get(transaction.next..until).unwrap_or_default();
            for (number, recipient) in (transaction.next..).zip(named) {
                commands.push((command::rcpt(recipient, &self.extensions), Awaited::Rcpt(number)));
            }
            transaction.next = until;
            let all = transaction.next == transaction.named || !transaction.has_open();
            let dots = matches!(transaction.framing, Framing::Dots(_));
            if all && commands.is_empty() && !transaction.has_accepted() {
                return self.finish(true);
            }
            if all && dots && (commands.is_empty() || pipelining) {
                commands.push(("DATA\r\n".to_owned(), Awaited::Data));
                transaction.phase = Phase::Announced;
            } else if all && commands.is_empty() {
                transaction.phase = Phase::Content;
                self.ask = Some(Request::Body);
            }
        }
        for (line, awaited) in commands {
            self.say(&line, awaited);
        }
    }

    /// Tells what became of the message; `reset` says that the peer may hold a broken transaction.
    fn finish(&mut self, reset: bool) {
        self.reset_owed |= reset;
        if let State::Sending(transaction) = std::mem::replace(&mut self.state, State::Between) {
            self.tell(*transaction, false, false);
        }
    }

    /// Takes a reply within a transaction.
    pub(super) fn transaction_answered(&mut self, said: Said, awaited: Awaited) {
        let dsn = self.extensions.dsn;
        let State::Sending(transaction) = &mut self.state else { return };
        let class = said.class();
        match awaited {
            Awaited::Mail if class == 2 => self.advance(),
            Awaited::Mail if class >= 4 => {
                let heard = said.heard(Point::Mail);
                let enough = heard.enhanced.is_some_and(|code| (code.subject, code.detail) == (5, 3));
                // Another server's bound on messages over one connection.
                transaction.elsewhere = enough && !heard.is_permanent() && self.messages > 1;
                transaction.settle_all(&refused(heard));
                if self.awaited.is_empty() {
                    self.finish(false);
                }
            }
            Awaited::Rcpt(number) if class == 2 => {
                if let Some(standing @ Standing::Open) = transaction.standings.get_mut(number) {
                    *standing = Standing::Accepted;
                }
                self.advance();
            }
            Awaited::Rcpt(number) if class >= 4 => {
                let heard = said.heard(Point::Recipient);
                // RFC 5321 section 4.5.3.1.10: 552 once said "too many recipients".
                let too_many =
                    heard.code == 552 && heard.enhanced.is_none_or(|code| (code.subject, code.detail) == (5, 3));
                let outcome = if too_many { Outcome::Deferred(heard) } else { refused(heard) };
                transaction.settle(number, outcome);
                self.advance();
            }
            Awaited::Data if said.code == 354 && transaction.has_accepted() => {
                transaction.phase = Phase::Content;
                self.ask = Some(Request::Body);
            }
            // RFC 2920 section 3.1: nobody was accepted, and the peer waits for a message.
            Awaited::Data if said.code == 354 => self.say(".\r\n", Awaited::LoneDot),
            Awaited::Data if class >= 4 => {
                transaction.settle_accepted(&refused(said.heard(Point::Data)));
                self.finish(true);
            }
            Awaited::LoneDot => self.finish(true),
            Awaited::Chunk { last: false } if class == 2 => self.go_on(),
            Awaited::Chunk { last: false } if class >= 4 => {
                // RFC 3030 section 2: what follows is refused as well.
                transaction.refusal.get_or_insert(said.heard(Point::Content));
                self.go_on();
            }
            Awaited::Chunk { last: true } | Awaited::Dot if class != 3 => {
                let refusal = transaction.refusal.take();
                let reset = refusal.is_some() && class == 2;
                let heard = Heard { dsn, ..refusal.unwrap_or_else(|| said.heard(Point::Content)) };
                let outcome = if heard.code < 300 { Outcome::Taken(heard) } else { refused(heard) };
                transaction.settle_accepted(&outcome);
                let chunks = matches!(transaction.framing, Framing::Chunks);
                self.finish(reset || (chunks && class != 2));
            }
            // The peer broke in while the content went out.
            Awaited::Early if class >= 4 => {
                let outcome = refused(said.heard(Point::Content));
                transaction.settle_accepted(&outcome);
                self.fail(outcome.heard().clone());
            }
            _ => self.unfit(&said, awaited.point()),
        }
    }

    /// Between chunks: asks for more, or stops when one was refused.
    fn go_on(&mut self) {
        let State::Sending(transaction) = &mut self.state else { return };
        if transaction.phase != Phase::Content {
            return;
        }
        if let Some(heard) = transaction.refusal.as_ref() {
            if self.awaited.is_empty() {
                let outcome = refused(heard.clone());
                transaction.settle_accepted(&outcome);
                self.finish(true);
            }
            return;
        }
        let most = if self.extensions.pipelining { CHUNKS_MAX } else { 1 };
        if self.awaited.len() < most {
            self.ask = Some(Request::Body);
        }
    }

    /// Takes a piece of content; an empty one is its end.
    pub(super) fn content(&mut self, piece: &[u8]) {
        let State::Sending(transaction) = &mut self.state else { return };
        if transaction.phase != Phase::Content {
            return;
        }
        let end = piece.is_empty();
        if end {
            transaction.phase = Phase::Sent;
        }
        match &mut transaction.framing {
            Framing::Dots(writer) if end => {
                writer.finish(&mut self.out);
                self.awaited.push_back(Awaited::Dot);
            }
            Framing::Dots(writer) => {
                writer.write(piece, &mut self.out);
                self.ask = Some(Request::Body);
            }
            Framing::Chunks if end => self.say("BDAT 0 LAST\r\n", Awaited::Chunk { last: true }),
            Framing::Chunks => {
                self.say(&format!("BDAT {}\r\n", piece.len()), Awaited::Chunk { last: false });
                self.out.extend_from_slice(piece);
                self.go_on();
            }
        }
    }
}

/// A refusal as its code says it is meant (RFC 5321 section 4.2.1).
fn refused(heard: Heard) -> Outcome {
    if heard.is_permanent() { Outcome::Refused(heard) } else { Outcome::Deferred(heard) }
}

/// Tells whether a message can only go with SMTPUTF8 (RFC 6531 section 3.4).
fn needs_utf8(mail: &Mail) -> bool {
    let recipients = mail.envelope.recipients.iter().filter_map(|recipient| recipient.path.address());
    mail.nature.utf8_header || recipients.chain(mail.envelope.from.address()).any(Address::is_international)
}
