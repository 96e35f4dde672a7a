//! STARTTLS (RFC 3207) and AUTH (RFC 4954): how a connection becomes safe, and whose it is.

use super::{Receiver, State, out_of_order};
use crate::protocol::sasl::{self, Exchange, Mechanism, Move, Refusal};
use crate::protocol::smtp::{Reply, Request, Role};

impl Receiver {
    /// RFC 3207 section 4.
    pub(super) fn start_tls(&mut self) {
        let refusal = match self.state {
            _ if self.client.tls.is_some() => Some(out_of_order("TLS is on")),
            _ if !self.setup.starttls => Some(Reply::new(502, "5.5.1", "TLS is not to be had here")),
            State::Greeted | State::Ready => None,
            _ => Some(out_of_order("a message is begun")),
        };
        if let Some(reply) = refusal {
            return self.refuse(&reply);
        }
        self.say(&Reply::new(220, "2.0.0", "start TLS"));
        self.state = State::StartingTls;
    }

    /// RFC 4954 section 4.
    pub(super) fn auth(&mut self, mechanism: &str, initial: Option<&str>) {
        let refusal = match self.state {
            _ if self.setup.role == Role::Exchange => {
                Some(Reply::new(502, "5.5.1", "no logging in on this port: use 465 or 587"))
            }
            _ if self.login.is_some() => Some(out_of_order("logged in already")),
            State::Greeted => Some(out_of_order("say EHLO first")),
            State::Ready if self.may_log_in() => None,
            State::Ready => Some(Reply::new(538, "5.7.11", "start TLS first")),
            _ => Some(out_of_order("a message is begun")),
        };
        if let Some(reply) = refusal {
            return self.refuse(&reply);
        }
        let Some(mechanism) = Mechanism::offered(mechanism, self.channel.as_deref()) else {
            return self.refuse(&Reply::new(504, "5.5.4", "mechanism unknown"));
        };
        match initial.map(|word| sasl::decode_initial(word.as_bytes())).transpose() {
            Ok(initial) => {
                let initial = initial.as_deref().map(Vec::as_slice);
                let (exchange, next) = Exchange::start(mechanism, initial, self.channel.as_deref());
                self.exchange(exchange, next);
            }
            Err(refusal) => self.refuse(&login_refused(refusal)),
        }
    }

    /// The client's line within AUTH.
    pub(super) fn response(&mut self, line: &[u8]) {
        let State::Authenticating(mut exchange) = std::mem::replace(&mut self.state, State::Ready) else { return };
        match sasl::decode_response(line) {
            Ok(response) => {
                let next = exchange.respond(&response);
                self.exchange(exchange, next);
            }
            Err(refusal) => self.refuse(&login_refused(refusal)),
        }
    }

    /// The answer to an exchange's question.
    pub(super) fn login_answered(&mut self, answer: sasl::Answer) {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::AskedLogin(mut exchange) => {
                let next = exchange.resume(answer);
                self.exchange(exchange, next);
            }
            state => self.state = state,
        }
    }

    /// Makes the next move of an exchange.
    fn exchange(&mut self, exchange: Exchange, next: Move) {
        match next {
            Move::Challenge(challenge) => {
                self.say(&Reply::plain(334, sasl::encode_challenge(&challenge)));
                self.state = State::Authenticating(exchange);
            }
            Move::Ask(request) => {
                self.ask = Some(Request::Sasl(request));
                self.state = State::AskedLogin(exchange);
            }
            Move::Done(Ok(identity)) => {
                self.login = Some(identity);
                self.channel = None;
                self.state = State::Ready;
                self.say(&Reply::new(235, "2.7.0", "logged in"));
            }
            Move::Done(Err(refusal)) => {
                self.state = State::Ready;
                self.refuse(&login_refused(refusal));
            }
        }
    }
}

/// RFC 4954 section 6.
fn login_refused(refusal: Refusal) -> Reply {
    match refusal {
        Refusal::Credentials => Reply::new(535, "5.7.8", "user or password is wrong"),
        Refusal::LockedOut { retry } => {
            Reply::new(454, "4.7.0", format!("too many failures: try again in {} s", retry.as_secs()))
        }
        Refusal::Malformed => Reply::new(501, "5.5.2", "response makes no sense"),
        Refusal::Cancelled => Reply::new(501, "5.7.0", "cancelled"),
        Refusal::Unavailable => Reply::new(454, "4.7.0", "cannot check that now"),
    }
}
