//! LOGIN and AUTHENTICATE: carries a SASL exchange over the line (RFC 9051 sections 6.2.2, 6.2.3).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::protocol::Channel;
use crate::protocol::imap::any::capabilities;
use crate::protocol::imap::desk::{Desk, End, Errand, Stage, Then, Turn};
use crate::protocol::imap::intake::Intake;
use crate::protocol::imap::request::{Answer, Request};
use crate::protocol::sasl::{self, Exchange, Identity, Mechanism, Move, RESPONSE_MAX, Refusal};

/// Longest response line: [`RESPONSE_MAX`] bytes in base64.
const LINE_MAX: usize = RESPONSE_MAX.div_ceil(3) * 4;

/// A login on its way.
#[derive(Debug)]
pub(crate) struct Login {
    /// None for LOGIN, which is one question.
    exchange: Option<Exchange>,
    due: Option<Move>,
}

impl Login {
    /// LOGIN: one question.
    pub(crate) fn asking(request: sasl::Request) -> Self {
        Self { exchange: None, due: Some(Move::Ask(request)) }
    }

    /// AUTHENTICATE.
    pub(crate) fn exchange(mechanism: Mechanism, initial: Option<&[u8]>, channel: Option<&Channel>) -> Self {
        let (exchange, due) = Exchange::start(mechanism, initial, channel);
        Self { exchange: Some(exchange), due: Some(due) }
    }

    fn respond(&mut self, line: &[u8]) -> Move {
        if line == b"*" {
            return Move::Done(Err(Refusal::Cancelled));
        }
        match (BASE64.decode(line), &mut self.exchange) {
            (Ok(response), Some(exchange)) => exchange.respond(&response),
            _ => Move::Done(Err(Refusal::Malformed)),
        }
    }
}

impl Errand for Login {
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        if let Some(answer) = answer {
            self.due = Some(match (answer, &mut self.exchange) {
                (Answer::Sasl(answer), Some(exchange)) => exchange.resume(answer),
                (Answer::Sasl(sasl::Answer::Login(outcome)), None) => Move::Done(outcome),
                _ => Move::Done(Err(Refusal::Unavailable)),
            });
        }
        match self.due.take() {
            Some(Move::Ask(request)) => Turn::Ask(Request::Sasl(request)),
            Some(Move::Challenge(challenge)) => {
                let challenge = BASE64.encode(challenge);
                desk.put(format_args!("+ {challenge}\r\n"));
                Turn::Read
            }
            Some(Move::Done(outcome)) => Turn::Done(conclude(desk, &outcome)),
            // The response line is not complete.
            None => Turn::Read,
        }
    }

    fn receive(&mut self, _desk: &mut Desk, intake: &mut Intake, bytes: &[u8]) -> usize {
        let (taken, line) = intake.take_line(bytes, LINE_MAX);
        if let Some(line) = line {
            self.due =
                Some(if line.len() > LINE_MAX { Move::Done(Err(Refusal::Malformed)) } else { self.respond(&line) });
        }
        taken
    }
}

/// The tagged response (codes: RFC 5530).
fn conclude(desk: &mut Desk, outcome: &Result<Identity, Refusal>) -> End {
    let refusal = match outcome {
        Ok(identity) => {
            desk.user = Some(identity.address.to_string().into());
            desk.stage = Stage::Authenticated;
            desk.failed_logins = 0;
            desk.channel = desk.channel.take().filter(|channel| channel.certificate.is_some());
            return End::ok(format!("[CAPABILITY {}] logged in", capabilities(desk)));
        }
        Err(refusal) => *refusal,
    };
    let end = match refusal {
        Refusal::Malformed => End::bad("the response makes no sense"),
        Refusal::Cancelled => End::bad("AUTHENTICATE cancelled"),
        Refusal::Unavailable => End::no("[UNAVAILABLE] try again later"),
        Refusal::Credentials => End::no("[AUTHENTICATIONFAILED] user or password is wrong"),
        Refusal::LockedOut { retry } => {
            let seconds = retry.as_secs().max(1);
            End::no(format!("[LIMIT] too many failed logins, try again in {seconds} seconds"))
        }
    };
    if matches!(refusal, Refusal::Credentials | Refusal::LockedOut { .. }) {
        desk.failed_logins = desk.failed_logins.saturating_add(1);
        if desk.failed_logins >= desk.config.failed_logins_max {
            desk.put(format_args!("* BYE too many failed logins\r\n"));
            return end.then(Then::Close);
        }
    }
    end
}
