//! The sending end of SMTP as a session: replies in, commands, content and questions out.
//!
//! Every command that is sent leaves an [`Awaited`] behind, and each reply belongs to the first of
//! them; so pipelined replies and single ones are one case. Whatever goes wrong ends in
//! [`Sender::fail`], which settles whoever is not settled yet.

use std::collections::VecDeque;
use std::time::Duration;

use zeroize::Zeroize as _;

use super::envelope::Transaction;
use super::heard::Enhanced;
use super::login::Login;
use super::reply::{Nonsense, ReplyReader, Said};
use super::{Answer, End, Extensions, Heard, How, Point, Request, SenderSetup};
use crate::protocol::{Notice, Session, Step, TlsFacts};

/// How long a peer may take for a command (RFC 5321 sections 4.5.3.2.1 to 4.5.3.2.3).
const COMMAND_PATIENCE: Duration = Duration::from_mins(5);

/// How long it may take for DATA (section 4.5.3.2.4).
const DATA_PATIENCE: Duration = Duration::from_mins(2);

/// How long it may take to keep a message (section 4.5.3.2.6).
const CONTENT_PATIENCE: Duration = Duration::from_mins(10);

/// How long we wait for the answer to QUIT: nothing depends on it.
const QUIT_PATIENCE: Duration = Duration::from_secs(10);

/// How long a stopping server waits for the last reply to a message that was sent whole.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// RFC 3463 section 3.5: no answer from host.
const NO_ANSWER: Enhanced = Enhanced::new(4, 4, 1);

/// A reply that is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Login,
    Reset,
    Mail,
    /// RCPT of this recipient.
    Rcpt(usize),
    Data,
    /// A chunk of BDAT.
    Chunk {
        last: bool,
    },
    /// The content's end.
    Dot,
    /// The dot that ends a DATA which nobody was left for (RFC 2920 section 3.1).
    LoneDot,
    /// Nothing was asked: the peer breaks in while the content goes out.
    Early,
    Quit,
}

impl Awaited {
    pub(super) fn point(self) -> Point {
        match self {
            Self::Greeting => Point::Greeting,
            Self::Ehlo | Self::Helo => Point::Hello,
            Self::StartTls => Point::StartTls,
            Self::Login => Point::Login,
            Self::Reset | Self::Quit => Point::Between,
            Self::Mail => Point::Mail,
            Self::Rcpt(_) => Point::Recipient,
            Self::Data => Point::Data,
            Self::Chunk { .. } | Self::Dot | Self::LoneDot | Self::Early => Point::Content,
        }
    }

    fn patience(self) -> Duration {
        match self {
            Self::Data => DATA_PATIENCE,
            Self::Chunk { last: true } | Self::Dot => CONTENT_PATIENCE,
            Self::Quit => QUIT_PATIENCE,
            _ => COMMAND_PATIENCE,
        }
    }
}

/// Where the session stands.
#[derive(Debug)]
pub(super) enum State {
    /// From the greeting to the first message.
    Opening,
    /// STARTTLS was answered with 220.
    StartingTls,
    /// Between messages.
    Between,
    /// A message is under way.
    Sending(Box<Transaction>),
    /// What became of a message is being told; the connection may be over then.
    Telling { over: bool },
    /// QUIT was said.
    Leaving,
    /// Close once everything is said.
    Over,
}

/// The sending end of one connection.
#[derive(Debug)]
pub struct Sender {
    pub(super) setup: SenderSetup,
    pub(super) state: State,
    pub(super) out: Vec<u8>,
    /// `out` was given to the driver and counts as sent.
    written: bool,
    pub(super) ask: Option<Request>,
    reader: ReplyReader,
    pub(super) awaited: VecDeque<Awaited>,
    pub(super) extensions: Extensions,
    pub(super) peer: Option<String>,
    pub(super) tls: Option<TlsFacts>,
    pub(super) login: Option<Login>,
    /// Messages begun.
    pub(super) messages: u32,
    /// A transaction was broken off and must be forgotten before the next.
    pub(super) reset_owed: bool,
    failure: Option<Heard>,
    stopping: bool,
}

impl Sender {
    /// Sets up the sending end of a new connection.
    pub fn new(setup: SenderSetup) -> Self {
        Self {
            setup,
            state: State::Opening,
            out: Vec::new(),
            written: false,
            ask: None,
            reader: ReplyReader::default(),
            awaited: VecDeque::from([Awaited::Greeting]),
            extensions: Extensions::default(),
            peer: None,
            tls: None,
            login: None,
            messages: 0,
            reset_owed: false,
            failure: None,
            stopping: false,
        }
    }

    /// How the connection went; call it when the driver has ended.
    pub fn end(&self) -> End {
        let how = match (&self.failure, &self.state) {
            (Some(heard), _) => How::Failed(heard.clone()),
            (None, State::Leaving | State::Over) => How::Fine,
            (None, _) => How::Failed(self.gone()),
        };
        End {
            how,
            peer: self.peer.clone(),
            extensions: self.extensions.clone(),
            tls: self.tls.clone(),
            messages: self.messages,
        }
    }

    /// Sends a command line, CRLF included, and awaits its reply.
    pub(super) fn say(&mut self, line: &str, awaited: Awaited) {
        self.out.extend_from_slice(line.as_bytes());
        self.awaited.push_back(awaited);
    }

    /// Ends the connection as it should be.
    pub(super) fn quit(&mut self) {
        self.say("QUIT\r\n", Awaited::Quit);
        self.state = State::Leaving;
    }

    /// Ends the connection before its time; whoever is not settled yet is deferred.
    pub(super) fn fail(&mut self, heard: Heard) {
        self.out.zeroize();
        self.awaited.clear();
        self.login = None;
        match std::mem::replace(&mut self.state, State::Over) {
            State::Sending(mut transaction) => {
                let lost = heard.code == 421 && heard.enhanced != Some(NO_ANSWER);
                let again = lost && self.messages > 1 && transaction.is_before_content();
                transaction.defer_all(&heard);
                self.tell(*transaction, again, true);
            }
            // What became of the message is told all the same.
            State::Telling { .. } => self.state = State::Telling { over: true },
            _ => self.ask = None,
        }
        self.failure.get_or_insert(heard);
    }

    /// The same where the peer has said no: it is told that we go.
    pub(super) fn fail_politely(&mut self, heard: Heard) {
        let closing = heard.code == 421;
        self.fail(heard);
        if !closing && matches!(self.state, State::Over) {
            self.out.extend_from_slice(b"QUIT\r\n");
        }
    }

    /// Tells what became of a message.
    pub(super) fn tell(&mut self, transaction: Transaction, again: bool, over: bool) {
        self.ask = Some(Request::Done(Box::new(transaction.done(again))));
        self.state = State::Telling { over };
    }

    /// What we are waiting for, or were doing.
    fn point(&self) -> Point {
        match (self.awaited.front(), &self.state) {
            (Some(awaited), _) => awaited.point(),
            (None, State::StartingTls) => Point::StartTls,
            (None, State::Sending(_)) => Point::Content,
            (None, _) => Point::Between,
        }
    }

    fn gone(&self) -> Heard {
        let at = self.point();
        Heard::ours(at, 421, Enhanced::new(4, 4, 2), format!("the connection was lost at {at}"))
    }

    /// The peer does not speak SMTP as we know it.
    pub(super) fn nonsense(&mut self, at: Point, text: &str) {
        self.fail(Heard::ours(at, 451, Enhanced::new(4, 5, 0), format!("not understood at {at}: {text}")));
    }

    fn reply(&mut self, said: Said, awaited: Awaited) {
        let at = awaited.point();
        if said.code == 421 && !matches!(awaited, Awaited::Quit) {
            // RFC 5321 section 3.8: the peer closes, whatever it was asked. It is an answer all the same.
            if let State::Sending(transaction) = &mut self.state {
                transaction.answered();
            }
            return self.fail(said.heard(at));
        }
        match awaited {
            Awaited::Greeting => self.greeted(said),
            Awaited::Ehlo | Awaited::Helo => self.welcomed(said, awaited == Awaited::Ehlo),
            Awaited::StartTls => self.start_tls_answered(said),
            Awaited::Login => self.login_answered(said),
            Awaited::Quit => self.state = State::Over,
            Awaited::Reset if said.class() == 2 => {
                self.reset_owed = false;
                self.advance();
            }
            Awaited::Reset => self.fail(said.heard(at)),
            awaited => self.transaction_answered(said, awaited),
        }
    }

    /// Asks for the next message, or leaves when this was the last (RFC 9422 section 4.1).
    pub(super) fn ask_mail(&mut self) {
        self.state = State::Between;
        let enough = self.extensions.mail_max.is_some_and(|most| self.messages >= most);
        if enough || self.stopping {
            self.quit();
        } else {
            self.ask = Some(Request::Mail);
        }
    }
}

impl Session for Sender {
    type Request = Request;
    type Answer = Answer;

    fn next(&mut self) -> Step<'_, Request> {
        if std::mem::take(&mut self.written) {
            // A password may have been in it.
            self.out.zeroize();
            if !matches!(self.state, State::Sending(_)) {
                self.out = Vec::new();
            }
        }
        if !self.out.is_empty() {
            self.written = true;
            return Step::Write(&self.out);
        }
        if let Some(request) = self.ask.take() {
            return Step::Ask(request);
        }
        match self.state {
            State::StartingTls => Step::StartTls,
            State::Over => Step::Close,
            _ => Step::Read,
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> usize {
        if bytes.is_empty() {
            if matches!(self.state, State::Leaving) {
                self.state = State::Over;
            } else if !matches!(self.state, State::Over) {
                let heard = self.gone();
                self.fail(heard);
            }
            return 0;
        }
        if self.awaited.is_empty()
            && matches!(&self.state, State::Sending(transaction) if transaction.is_within_content())
        {
            self.awaited.push_back(Awaited::Early);
        }
        if self.awaited.is_empty() {
            self.nonsense(self.point(), "a reply that nobody asked for");
            return bytes.len();
        }
        let (taken, came) = self.reader.take(bytes);
        match came {
            None => {}
            Some(Err(Nonsense(text))) => self.nonsense(self.point(), &text),
            Some(Ok(said)) => {
                let Some(awaited) = self.awaited.pop_front() else { return taken };
                let surplus = self.awaited.is_empty() && taken < bytes.len();
                self.reply(said, awaited);
                if surplus && !matches!(self.state, State::Over | State::Leaving) {
                    // It would be taken for the answer to what we say next.
                    self.nonsense(awaited.point(), "more replies than commands");
                }
            }
        }
        taken
    }

    fn resume(&mut self, answer: Answer) {
        match (answer, &self.state) {
            (Answer::Mail(Some(mail)), State::Between) => self.begin(*mail),
            (Answer::Mail(None), State::Between) => self.quit(),
            (Answer::Body(piece), State::Sending(_)) => self.content(&piece),
            (Answer::Broken, State::Sending(_)) => {
                let text = "the message could not be read here";
                self.fail(Heard::ours(Point::Content, 451, Enhanced::new(4, 3, 0), text));
            }
            (Answer::Noted, State::Telling { over: true }) => self.state = State::Over,
            (Answer::Noted, State::Telling { over: false }) => self.ask_mail(),
            (Answer::Derived(derive), State::Opening) => self.login_derived(*derive),
            // The connection failed while the world outside thought about it.
            _ => {}
        }
    }

    fn notice(&mut self, notice: Notice) {
        let at = self.point();
        match notice {
            Notice::Changed => {}
            _ if matches!(self.state, State::Leaving) => self.state = State::Over,
            Notice::Silence => {
                let text = format!("no answer to {at} in {}", spoken(self.patience()));
                self.fail(Heard::ours(at, 421, NO_ANSWER, text));
            }
            Notice::Stopping => {
                self.stopping = true;
                // A message that was sent whole gets the chance to be acknowledged: it would be
                // sent twice otherwise.
                if !matches!(&self.state, State::Sending(transaction) if transaction.is_sent()) {
                    let text = "this server stops; the message waits until it runs again";
                    self.fail(Heard::ours(at, 451, Enhanced::new(4, 3, 2), text));
                }
            }
        }
    }

    fn tls_started(&mut self, tls: TlsFacts) {
        self.tls = Some(tls);
        if matches!(self.state, State::StartingTls) {
            // RFC 3207 section 4.2: what was said in clear does not count.
            self.extensions = Extensions::default();
            self.peer = None;
            self.state = State::Opening;
            self.hello();
        }
    }

    fn patience(&self) -> Duration {
        let patience = self.awaited.front().map_or(COMMAND_PATIENCE, |awaited| awaited.patience());
        if self.stopping { patience.min(STOP_PATIENCE) } else { patience }
    }
}

fn spoken(patience: Duration) -> String {
    let seconds = patience.as_secs();
    if seconds >= 120 { format!("{} minutes", seconds / 60) } else { format!("{seconds} seconds") }
}
