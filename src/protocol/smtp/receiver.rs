//! The receiving end of SMTP as a session: commands in, replies and questions out (RFC 5321
//! sections 3 and 4, RFC 6409).
//!
//! Each [`State`] holds what is known in it. Replies gather in `out`; a question to the world is put
//! in `ask`, and what is to be done with its answer is the state it leaves behind. Whatever is known
//! of a message once its content begins lives with whoever answers [`Request::Begin`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::command::{AUTH_LINE_MAX, BURL_LINE_MAX, COMMAND_LINE_MAX, Command, Mail};
use super::content::Content;
use super::extension;
use super::{Answer, Reply, Request, Role, Sender, SmtpConfig};
use crate::mail::address::Address;
use crate::mail::envelope::{Client, Envelope, Recipient};
use crate::protocol::line::{LineBuffer, Taken};
use crate::protocol::sasl::{self, Exchange};
use crate::protocol::{Channel, Notice, Session, Step, TlsFacts};

mod incoming; // DATA, BDAT and BURL: how a content comes
mod login; //    STARTTLS and AUTH

/// First byte of a TLS record that carries a handshake (RFC 8446 section 5.1). No command begins so.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a receiver is set up with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Which port's manners it has.
    pub role: Role,
    /// Our name, as greeting and Received field tell it.
    pub name: Arc<str>,
    /// The settings.
    pub config: Arc<SmtpConfig>,
    /// Where the connection comes from.
    pub peer: IpAddr,
    /// TLS can be started by STARTTLS.
    pub starttls: bool,
    /// Logging in without TLS is allowed to clients on this machine.
    pub login_in_clear: bool,
    /// The client may submit as some senders without logging in; which ones is asked at MAIL.
    pub open: bool,
}

/// The receiving end of one connection.
#[derive(Debug)]
pub struct Receiver {
    setup: Setup,
    client: Client,
    login: Option<sasl::Identity>,
    /// What a login can rest on, until there is one.
    channel: Option<Box<Channel>>,
    state: State,
    line: LineBuffer,
    out: Vec<u8>,
    /// `out` was given to the driver and counts as sent.
    written: bool,
    ask: Option<Request>,
    /// The URL that BURL asks for, until its turn comes.
    url: Option<Box<str>>,
    stopping: bool,
    /// Refused commands since the last message kept.
    errors: u16,
    /// Commands since the last message kept.
    commands: u16,
    /// Messages begun.
    messages: u16,
}

/// What is known, and what comes next.
#[derive(Debug)]
enum State {
    /// Nothing has been said yet.
    Connected,
    /// Before EHLO or HELO; again after STARTTLS.
    Greeted,
    /// Between transactions.
    Ready,
    /// Within AUTH: the client's next line is a response.
    Authenticating(Exchange),
    /// An exchange's question is out.
    AskedLogin(Exchange),
    /// MAIL's question is out.
    AskedSender(Envelope),
    /// After MAIL, gathering recipients.
    Addressing { envelope: Envelope, refused: bool },
    /// RCPT's question is out.
    AskedRecipient { envelope: Envelope, recipient: Recipient, refused: bool },
    /// DATA's or the first BDAT's question is out.
    AskedBegin { content: Content, framing: Framing },
    /// The content comes.
    Receiving { content: Content, framing: Framing },
    /// A question about the content is out.
    AskedContent { content: Content, framing: Framing },
    /// Bytes of a URL are asked for.
    AskedFetch(Content),
    /// Between chunks.
    Chunking(Content),
    /// The content has ended, and whether the message is kept is asked.
    AskedFinish,
    /// STARTTLS was answered.
    StartingTls,
    /// Close once everything is said.
    Over,
}

/// How a content is framed, and so how its parts are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Data,
    /// A chunk of this many bytes.
    Bdat(u64),
    /// What a URL names (RFC 4468).
    Burl,
    /// A chunk that nobody asked for: dropped, then answered (RFC 3030 section 2).
    Unwanted,
}

impl Receiver {
    /// Sets up the receiving end of a new connection.
    pub fn new(setup: Setup) -> Self {
        let address = setup.peer.to_canonical();
        Self {
            setup,
            client: Client { address, greeting: None, plain_helo: false, tls: None, login: None },
            login: None,
            channel: None,
            state: State::Connected,
            line: LineBuffer::default(),
            out: Vec::new(),
            written: false,
            ask: None,
            url: None,
            stopping: false,
            errors: 0,
            commands: 0,
            messages: 0,
        }
    }

    fn say(&mut self, reply: &Reply) {
        reply.write_to(&mut self.out);
    }

    /// Says something and closes.
    fn end(&mut self, reply: &Reply) {
        self.say(reply);
        self.state = State::Over;
    }

    /// Refuses a command. What is no fault of the client's is not counted; too many faults end the
    /// connection.
    fn refuse(&mut self, reply: &Reply) {
        self.say(reply);
        self.errors = self.errors.saturating_add(u16::from(reply.code >= 500));
        if self.errors >= self.setup.config.errors_max {
            self.end(&Reply::new(421, "4.7.0", "too many errors"));
        }
    }

    /// Logging in is possible here and now (RFC 4954 section 3).
    fn may_log_in(&self) -> bool {
        let local = self.setup.login_in_clear && self.client.address.is_loopback();
        self.setup.role == Role::Submission && self.login.is_none() && (self.client.tls.is_some() || local)
    }

    /// Takes the part of a line at the front of `bytes`.
    fn take_line(&mut self, bytes: &[u8]) -> usize {
        if self.line.is_empty() && bytes.first() == Some(&TLS_HANDSHAKE) {
            // A TLS client on a port that begins in clear: nothing we could say would reach it.
            self.state = State::Over;
            return bytes.len();
        }
        let responds = matches!(self.state, State::Authenticating(_));
        let max = match self.setup.role {
            _ if responds || self.may_log_in() => AUTH_LINE_MAX,
            Role::Submission => BURL_LINE_MAX,
            Role::Exchange => COMMAND_LINE_MAX,
        };
        let (taken, came) = self.line.take(bytes, max);
        match came {
            Taken::More => {}
            Taken::TooLong if responds => {
                self.state = State::Ready;
                self.refuse(&Reply::new(500, "5.5.6", "authentication line too long"));
            }
            Taken::TooLong => self.refuse(&Reply::new(500, "5.5.2", "line too long")),
            // Stricter than it need be: two servers that read line ends differently can be made to
            // disagree about what is a command.
            Taken::Line { bare: true, .. } if self.setup.role == Role::Exchange => {
                self.refuse(&Reply::new(500, "5.5.2", "lines end with CRLF"));
            }
            Taken::Line { line, .. } => {
                let line = zeroize::Zeroizing::new(line);
                if responds { self.response(&line) } else { self.command(&line) }
            }
        }
        taken
    }

    fn command(&mut self, line: &[u8]) {
        self.commands = self.commands.saturating_add(1);
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(reply) => return self.refuse(&reply),
        };
        if self.commands > self.setup.config.commands_max && !matches!(command, Command::Quit) {
            return self.end(&Reply::new(421, "4.7.0", "too many commands without a message"));
        }
        match command {
            Command::Hello { extended, name } => {
                self.reset();
                self.client.greeting = name;
                self.client.plain_helo = !extended;
                self.hello(extended);
            }
            Command::Mail(mail) => self.mail(mail),
            Command::Rcpt(recipient) => self.rcpt(recipient),
            Command::Data => self.data(),
            Command::Bdat { size, last } => self.bdat(size, last),
            Command::Burl { url, last } => self.burl(url, last),
            Command::Reset => {
                self.reset();
                self.say(&Reply::new(250, "2.0.0", "forgotten"));
            }
            Command::Noop => self.say(&Reply::new(250, "2.0.0", "ok")),
            Command::Help => {
                let text = "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP HELP VRFY QUIT STARTTLS AUTH\nsee RFC 5321";
                self.say(&Reply::new(214, "2.0.0", text));
            }
            // Who exists is told by RCPT alone, where it can be counted (RFC 5321 section 7.3).
            Command::Verify => self.say(&Reply::new(252, "2.5.0", "send and see")),
            Command::Expand => self.refuse(&Reply::new(502, "5.5.1", "no list is told")),
            Command::Quit => self.end(&Reply::new(221, "2.0.0", "goodbye")),
            Command::StartTls => self.start_tls(),
            Command::Auth { mechanism, initial } => self.auth(&mechanism, initial.as_deref()),
            Command::Foreign => self.end(&Reply::new(554, "5.5.1", "this port speaks SMTP alone")),
        }
    }

    /// RFC 5321 section 4.1.1.1.
    fn hello(&mut self, extended: bool) {
        self.state = State::Ready;
        let text = if extended {
            let facts = extension::Facts {
                role: self.setup.role,
                starttls: self.setup.starttls && self.client.tls.is_none(),
                auth: self.may_log_in(),
                channel: self.channel.as_deref().copied().unwrap_or_default(),
                burl: self.setup.role == Role::Submission && (self.login.is_some() || self.may_log_in()),
                tls: self.client.tls.is_some(),
            };
            extension::list(&self.setup.name, &self.setup.config, facts)
        } else {
            self.setup.name.to_string()
        };
        self.say(&Reply::plain(250, text));
    }

    /// Ends a transaction without a message (RFC 5321 section 4.1.1.5).
    fn reset(&mut self) {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Connected | State::Greeted => self.state = State::Greeted,
            State::Chunking(_) => self.ask = Some(Request::Discard(None)),
            _ => {}
        }
    }

    /// RFC 5321 section 4.1.1.2.
    fn mail(&mut self, mail: Mail) {
        let config = &self.setup.config;
        let refusal = match &self.state {
            State::Ready if self.setup.role == Role::Submission && self.login.is_none() && !self.setup.open => {
                let text = if self.may_log_in() { "log in first" } else { "start TLS and log in first" };
                Some(Reply::new(530, "5.7.0", text))
            }
            State::Ready if self.messages >= config.messages_max => {
                Some(Reply::new(452, "4.5.3", "enough messages over this connection"))
            }
            State::Ready if mail.size.is_some_and(|size| size > u64::from(config.message_max_bytes)) => {
                Some(Reply::new(552, "5.3.4", "message too big"))
            }
            State::Ready if needs_utf8(mail.from.address()) && !mail.utf8 => {
                Some(Reply::new(553, "5.6.7", "such a sender needs SMTPUTF8"))
            }
            // RFC 8689 section 4.1: who demands TLS from here on has to have come by it.
            State::Ready if mail.require_tls && self.client.tls.is_none() => {
                Some(Reply::new(530, "5.7.10", "REQUIRETLS needs TLS from the start"))
            }
            State::Ready => None,
            State::Greeted => Some(out_of_order("say EHLO first")),
            _ => Some(out_of_order("a message is begun")),
        };
        if let Some(reply) = refusal {
            return self.refuse(&reply);
        }
        let sender = Sender {
            role: self.setup.role,
            login: self.login.clone(),
            from: mail.from.clone(),
            size: mail.size,
            body: mail.body,
            require_tls: mail.require_tls,
        };
        self.ask = Some(Request::Sender(Box::new(sender)));
        self.state = State::AskedSender(Envelope {
            from: mail.from,
            recipients: Vec::new(),
            body: mail.body,
            utf8: mail.utf8,
            ret: mail.ret,
            envelope_id: mail.envelope_id,
        });
    }

    /// RFC 5321 section 4.1.1.3.
    fn rcpt(&mut self, recipient: Recipient) {
        // Recipients have a bound of their own.
        self.commands = self.commands.saturating_sub(1);
        let most = usize::from(self.setup.config.recipients_max);
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Addressing { envelope, refused } => {
                let reply = if envelope.recipients.len() >= most {
                    Reply::new(452, "4.5.3", "enough recipients: send the rest in another message")
                } else if needs_utf8(recipient.path.address()) && !envelope.utf8 {
                    Reply::new(553, "5.6.7", "such a recipient needs SMTPUTF8")
                } else {
                    self.ask = Some(Request::Recipient(Box::new(recipient.clone())));
                    self.state = State::AskedRecipient { envelope, recipient, refused };
                    return;
                };
                self.state = State::Addressing { envelope, refused: true };
                self.refuse(&reply);
            }
            state => {
                self.state = state;
                self.refuse(&out_of_order("MAIL comes first"));
            }
        }
    }
}

impl Receiver {
    /// At the end of a command, where a reply can be said.
    fn at_boundary(&self) -> bool {
        let quiet = matches!(
            self.state,
            State::Greeted | State::Ready | State::Authenticating(_) | State::Addressing { .. } | State::Chunking(_)
        );
        quiet && self.line.is_empty() && self.ask.is_none()
    }
}

impl Session for Receiver {
    type Request = Request;
    type Answer = Answer;

    fn next(&mut self) -> Step<'_, Request> {
        if std::mem::take(&mut self.written) {
            self.out = Vec::new();
        }
        if matches!(self.state, State::Connected) {
            self.state = State::Greeted;
            self.say(&Reply::plain(220, format!("{} ESMTP", self.setup.name)));
        }
        if self.stopping && self.at_boundary() {
            // RFC 5321 section 3.8.
            self.end(&Reply::new(421, "4.3.2", "the server stops: come back later"));
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
            self.out = Vec::new();
            self.state = State::Over;
            return 0;
        }
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Receiving { mut content, framing } => {
                let taken = content.take(bytes);
                self.proceed(content, framing);
                taken
            }
            state => {
                self.state = state;
                self.take_line(bytes)
            }
        }
    }

    fn resume(&mut self, answer: Answer) {
        let verdict = match answer {
            Answer::Sasl(answer) => return self.login_answered(answer),
            Answer::Fetched(bytes) => {
                if let State::AskedFetch(mut content) = std::mem::replace(&mut self.state, State::Ready) {
                    content.fetched(bytes);
                    self.proceed(content, Framing::Burl);
                }
                return;
            }
            Answer::Accepted => Ok(()),
            Answer::Refused(reply) => Err(reply),
        };
        match (std::mem::replace(&mut self.state, State::Ready), verdict) {
            (State::AskedSender(envelope), Ok(())) => {
                self.state = State::Addressing { envelope, refused: false };
                self.say(&Reply::new(250, "2.1.0", "sender ok"));
            }
            (State::AskedRecipient { mut envelope, recipient, refused }, Ok(())) => {
                envelope.recipients.push(recipient);
                self.state = State::Addressing { envelope, refused };
                self.say(&Reply::new(250, "2.1.5", "recipient ok"));
            }
            (State::AskedRecipient { envelope, .. }, Err(reply)) => {
                self.state = State::Addressing { envelope, refused: true };
                self.refuse(&reply);
            }
            (State::AskedBegin { content, framing: Framing::Data }, Ok(())) => {
                self.say(&Reply::plain(354, "end with a lone dot"));
                self.state = State::Receiving { content, framing: Framing::Data };
            }
            (State::AskedBegin { content, framing } | State::AskedContent { content, framing }, Ok(())) => {
                self.proceed(content, framing);
            }
            (State::AskedFetch(mut content), Err(reply)) => {
                content.fetch_failed(reply, false);
                self.proceed(content, Framing::Burl);
            }
            (
                State::AskedBegin { mut content, framing: Framing::Burl }
                | State::AskedContent { mut content, framing: Framing::Burl },
                Err(reply),
            ) => {
                self.url = None;
                content.fetch_failed(reply, true);
                self.proceed(content, Framing::Burl);
            }
            (
                State::AskedBegin { mut content, framing: framing @ Framing::Bdat(_) }
                | State::AskedContent { mut content, framing },
                Err(reply),
            ) => {
                content.refuse(reply, true);
                self.proceed(content, framing);
            }
            (State::AskedFinish, Ok(())) => {
                self.errors = 0;
                self.commands = 0;
                self.say(&Reply::new(250, "2.0.0", "kept"));
            }
            (State::AskedSender(_) | State::AskedBegin { .. } | State::AskedFinish, Err(reply)) => {
                self.refuse(&reply);
            }
            // The answer to RSET's Discard changes nothing.
            (state, _) => self.state = state,
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            // RFC 5321 section 4.5.3.2 bounds silence alone, which a byte now and then would evade.
            Notice::Changed => self.end(&Reply::new(421, "4.4.2", "the message comes too slowly")),
            Notice::Silence => self.end(&Reply::new(421, "4.4.2", "silence for too long")),
            Notice::Stopping => self.stopping = true,
        }
    }

    fn tls_started(&mut self, tls: TlsFacts) {
        // Nothing said or heard in clear is worth anything now (RFC 3207 section 4.2).
        self.line.clear();
        self.login = None;
        self.client.greeting = None;
        self.client.plain_helo = false;
        self.client.tls = Some(tls.description);
        let Channel { binding, certificate } = tls.channel;
        let channel = Channel { binding: binding.filter(|_| self.setup.config.offer_scram_plus), certificate };
        self.channel = channel.kept().filter(|_| self.setup.role == Role::Submission);
        if matches!(self.state, State::StartingTls) {
            self.state = State::Greeted;
        }
    }

    fn patience(&self) -> Duration {
        let config = &self.setup.config;
        let seconds = if matches!(self.state, State::Receiving { .. }) {
            config.data_idle_max_secs
        } else {
            config.idle_max_secs
        };
        Duration::from_secs(seconds.into())
    }

    /// While a content comes, the world outside watches how slowly.
    fn wants_changes(&self) -> bool {
        matches!(self.state, State::Receiving { .. } | State::Chunking(_))
    }
}

fn needs_utf8(address: Option<&Address>) -> bool {
    address.is_some_and(Address::is_international)
}

fn out_of_order(text: &'static str) -> Reply {
    Reply::new(503, "5.5.1", text)
}

#[cfg(test)]
mod tests;
