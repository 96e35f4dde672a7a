//! The AUTHORIZATION state (RFC 1939 section 4): who is this, and is the connection fit to ask.

use super::{Request, Session, State, Task};
use crate::mail::mailbox::AccountId;
use crate::protocol::pop3::Inquiry;
use crate::protocol::pop3::command::Command;
use crate::protocol::sasl::{self, Exchange, Mechanism, Move, Refusal};

impl Session {
    /// CAPA (RFC 2449 section 5): the same in both states but for what only serves logging in.
    pub(super) fn capabilities(&mut self) {
        self.say("+OK capabilities follow");
        self.out.extend_from_slice(b"TOP\r\nUIDL\r\n");
        if self.may_log_in() {
            self.out.extend_from_slice(b"USER\r\nSASL");
            for mechanism in self.mechanisms() {
                self.out.push(b' ');
                self.out.extend_from_slice(mechanism.name().as_bytes());
            }
            self.out.extend_from_slice(b"\r\n");
        }
        if !self.tls && matches!(self.state, State::Authorization { .. }) {
            self.out.extend_from_slice(b"STLS\r\n");
        }
        self.out.extend_from_slice(
            b"PIPELINING\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nEXPIRE NEVER\r\nUTF8 USER\r\nIMPLEMENTATION Pillarbox\r\n.\r\n",
        );
    }

    /// The mechanisms that are offered here: LOGIN is younger than USER and PASS and no better.
    fn mechanisms(&self) -> impl Iterator<Item = Mechanism> + use<> {
        let channel = self.channel.as_deref().copied();
        let all = [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha256Plus, Mechanism::External];
        all.into_iter().filter(move |mechanism| mechanism.is_had(channel.as_ref()))
    }

    /// The commands of the AUTHORIZATION state (RFC 1939 section 4).
    pub(super) fn authorize(&mut self, command: Command) {
        let may_log_in = self.may_log_in();
        let State::Authorization { user, utf8 } = &mut self.state else { return };
        match command {
            Command::Stls if self.tls => self.say("-ERR TLS is on already"),
            // RFC 6856 section 2.1 lets us say so: the answer to UTF8 was not protected.
            Command::Stls if *utf8 => self.say("-ERR STLS goes before UTF8"),
            Command::Stls => {
                *user = None;
                self.say("+OK begin TLS");
                self.task = Task::StartingTls;
            }
            // Mail is sent as it was kept either way: a message that needs UTF-8 is of more use to an
            // old client as it is than refused with [UTF8] (RFC 6856 section 5).
            Command::Utf8 => {
                *utf8 = true;
                self.say("+OK");
            }
            Command::User(_) | Command::Pass(_) | Command::Auth(..) if !may_log_in => self.say("-ERR start TLS first"),
            Command::User(name) => {
                *user = Some(name);
                self.say("+OK now the password");
            }
            Command::Pass(password) => match user.take() {
                None => self.say("-ERR USER first"),
                Some(login) => {
                    self.ask = Some(Request::Sasl(sasl::Request::CheckPassword { login, password }));
                    self.task = Task::LoggingIn(None);
                }
            },
            Command::AuthList => {
                self.say("+OK mechanisms follow");
                for mechanism in self.mechanisms().filter(|_| may_log_in) {
                    self.say(mechanism.name());
                }
                self.say(".");
            }
            Command::Auth(mechanism, _) if !mechanism.is_had(self.channel.as_deref()) => {
                self.bad("no such mechanism");
            }
            Command::Auth(mechanism, initial) => {
                *user = None;
                let initial = initial.as_ref().map(|initial| initial.0.as_slice());
                let (exchange, next) = Exchange::start(mechanism, initial, self.channel.as_deref());
                self.go_on(Box::new(exchange), next);
            }
            _ => self.say("-ERR log in first"),
        }
    }

    /// Does what an exchange says (RFC 5034 section 4).
    pub(super) fn go_on(&mut self, exchange: Box<Exchange>, next: Move) {
        match next {
            Move::Challenge(challenge) => {
                self.say(&format!("+ {}", sasl::encode_challenge(&challenge)));
                self.task = Task::Response(exchange);
            }
            Move::Ask(request) => {
                self.ask = Some(Request::Sasl(request));
                self.task = Task::LoggingIn(Some(exchange));
            }
            Move::Done(Ok(identity)) => self.open(identity.account),
            Move::Done(Err(refusal)) => self.refuse(refusal),
        }
    }

    pub(super) fn open(&mut self, account: AccountId) {
        self.channel = None;
        self.ask(Inquiry::Open { account }, Task::Opening);
    }

    /// Answers a failed login with the codes of RFC 3206: `[AUTH]` makes a client ask its user for
    /// another password, `[SYS/TEMP]` does not.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.task = Task::Command;
        match refusal {
            Refusal::Credentials => {
                self.login_failures += 1;
                self.say("-ERR [AUTH] wrong user or password");
                if self.login_failures >= self.config.login_failures_max {
                    self.task = Task::Leaving;
                }
            }
            Refusal::LockedOut { retry } => {
                self.say(&format!(
                    "-ERR [SYS/TEMP] too many failures, try again in {} seconds",
                    retry.as_secs().max(1)
                ));
                self.task = Task::Leaving;
            }
            Refusal::Malformed => self.bad("the response makes no sense"),
            Refusal::Cancelled => self.say("-ERR cancelled"),
            Refusal::Unavailable => self.say("-ERR [SYS/TEMP] try again later"),
        }
    }
}
