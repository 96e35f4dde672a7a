//! From the greeting to the first message: EHLO, STARTTLS, AUTH.

use super::extensions::peer_name;
use super::heard::Enhanced;
use super::login::{Derive, Login, Move};
use super::reply::Said;
use super::session::{Awaited, Sender, State};
use super::{Extensions, Heard, Point, Request, TlsWish};

/// RFC 3463 section 3.8: encryption needed.
const ENCRYPTION_NEEDED: Enhanced = Enhanced::new(4, 7, 10);

/// RFC 3463 section 3.8: security features not supported.
const NOT_SUPPORTED: Enhanced = Enhanced::new(4, 7, 4);

impl Sender {
    /// RFC 5321 section 3.1.
    pub(super) fn greeted(&mut self, said: Said) {
        match said.class() {
            2 if said.code == 220 => self.hello(),
            4 | 5 => self.fail_politely(said.heard(Point::Greeting)),
            _ => self.unfit(&said, Point::Greeting),
        }
    }

    /// RFC 5321 section 3.2.
    pub(super) fn hello(&mut self) {
        let line = format!("EHLO {}\r\n", self.setup.helo);
        self.say(&line, Awaited::Ehlo);
    }

    /// The answer to EHLO or, where `extended` is false, to HELO.
    pub(super) fn welcomed(&mut self, said: Said, extended: bool) {
        match said.code {
            250 => {
                self.peer = said.lines.first().and_then(|line| peer_name(line));
                self.extensions = if extended { Extensions::read(&said.lines) } else { Extensions::default() };
                self.secure();
            }
            // EHLO is not known there (RFC 5321 section 3.2).
            500..=504 | 550 if extended => {
                let line = format!("HELO {}\r\n", self.setup.helo);
                self.say(&line, Awaited::Helo);
            }
            400..600 => self.fail_politely(said.heard(Point::Hello)),
            _ => self.unfit(&said, Point::Hello),
        }
    }

    /// Starts TLS where that is wanted and can be.
    fn secure(&mut self) {
        let wish = if self.tls.is_some() { TlsWish::Never } else { self.setup.tls };
        match wish {
            TlsWish::IfOffered | TlsWish::Required if self.extensions.starttls => {
                self.say("STARTTLS\r\n", Awaited::StartTls);
            }
            TlsWish::Required => {
                let text = "the next server offers no TLS, and this mail may not go without";
                self.fail_politely(Heard::ours(Point::StartTls, 454, ENCRYPTION_NEEDED, text));
            }
            TlsWish::Never | TlsWish::IfOffered => self.log_in(),
        }
    }

    /// RFC 3207 section 4.
    pub(super) fn start_tls_answered(&mut self, said: Said) {
        match said.class() {
            2 if said.code == 220 => self.state = State::StartingTls,
            4 | 5 if self.setup.tls == TlsWish::IfOffered => self.log_in(),
            4 | 5 => self.fail_politely(said.heard(Point::StartTls)),
            _ => self.unfit(&said, Point::StartTls),
        }
    }

    /// Logs in where there is somebody to log in as (RFC 4954).
    fn log_in(&mut self) {
        let Some(credentials) = self.setup.credentials.take() else { return self.ask_mail() };
        if self.tls.is_none() && !credentials.in_clear {
            let text = "no login without TLS: the password would be told to everybody on the way";
            return self.fail_politely(Heard::ours(Point::Login, 454, ENCRYPTION_NEEDED, text));
        }
        if let Some((login, line)) = Login::start(credentials, &self.extensions.auth) {
            self.login = Some(login);
            self.say(&line, Awaited::Login);
            self.out.extend_from_slice(b"\r\n");
        } else {
            let text = "the relay offers no login by SCRAM-SHA-256, PLAIN or LOGIN";
            self.fail_politely(Heard::ours(Point::Login, 454, NOT_SUPPORTED, text));
        }
    }

    /// RFC 4954 section 4.
    pub(super) fn login_answered(&mut self, said: Said) {
        match (said.code, self.login.as_mut()) {
            (334, Some(login)) => {
                let next = login.challenge(said.lines.first().map_or("", String::as_str));
                self.login_goes_on(next);
            }
            (200..300, Some(login)) if login.may_end() => {
                self.login = None;
                self.ask_mail();
            }
            (200..300, _) => self.login_goes_on(Move::Fail("it could not prove that it knows the password too")),
            (400..600, _) => self.fail_politely(said.heard(Point::Login)),
            _ => self.unfit(&said, Point::Login),
        }
    }

    /// The keys that were asked for.
    pub(super) fn login_derived(&mut self, derive: Derive) {
        if let Some(login) = self.login.as_mut() {
            let next = login.derived(derive);
            self.login_goes_on(next);
        }
    }

    fn login_goes_on(&mut self, next: Move) {
        match next {
            Move::Line(line) => {
                self.say(&line, Awaited::Login);
                self.out.extend_from_slice(b"\r\n");
            }
            Move::Derive(derive) => self.ask = Some(Request::Derive(derive)),
            Move::Fail(text) => {
                let text = format!("the login at the relay failed: {text}");
                self.fail(Heard::ours(Point::Login, 454, Enhanced::new(4, 7, 0), text));
            }
        }
    }

    /// A reply whose code means nothing where it was given.
    pub(super) fn unfit(&mut self, said: &Said, at: Point) {
        self.nonsense(at, &format!("the answer was {} {}", said.code, said.text));
    }
}
