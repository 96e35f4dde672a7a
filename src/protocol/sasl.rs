//! SASL on the server's side: PLAIN (RFC 4616), LOGIN, SCRAM-SHA-256 and SCRAM-SHA-256-PLUS
//! (RFC 5802, RFC 7677), EXTERNAL by client certificate (RFC 4422 appendix A).
//!
//! One [`Exchange`] serves SMTP, IMAP and POP3: they carry base64 lines, this says what the lines
//! mean. It never sees the store: what must be known comes through [`Request`] and [`Answer`].
//! Whether a mechanism may be used on the present connection is for the session to say: none of
//! them belongs on a connection without TLS.
//!
//! Where the connection has a [`ChannelBinding`] the PLUS mechanism is offered, and a client that
//! believes it was not (`y`) is refused: somebody in between has taken it out of the list
//! (RFC 5802 section 6). EXTERNAL is offered where the connection has a certificate that is registered;
//! whether it still is, and whose, is asked when somebody logs in with it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{Channel, ChannelBinding};
use crate::mail::address::{Address, DOMAIN_MAX, LOCAL_PART_MAX};
use crate::mail::certificate::Fingerprint;
use crate::mail::mailbox::AccountId;
use crate::mail::secret::{Password, ScramVerifier, prepared};
use scram::{ClientFirst, Proof, Scram};

mod scram; // the messages of SCRAM (RFC 5802 section 7)

/// Longest response in bytes before base64; longer ones end the exchange.
pub const RESPONSE_MAX: usize = 1024;

/// Longest response line in bytes, CRLF included: [`RESPONSE_MAX`] in base64.
pub const RESPONSE_LINE_MAX: usize = RESPONSE_MAX.div_ceil(3) * 4 + 2;

/// Longest login in bytes: an address.
pub const LOGIN_MAX: usize = LOCAL_PART_MAX + 1 + DOMAIN_MAX;

/// A mechanism we offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registry's")]
pub enum Mechanism {
    Plain,
    Login,
    ScramSha256,
    ScramSha256Plus,
    External,
}

impl Mechanism {
    /// Reads a mechanism's name without regard to case; `None` when we know none of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Plain, Self::Login, Self::ScramSha256, Self::ScramSha256Plus, Self::External]
            .into_iter()
            .find(|known| known.name().eq_ignore_ascii_case(name))
    }

    /// As [`Mechanism::named`], as far as it [is to be had](Mechanism::is_had) on the connection.
    #[must_use]
    pub fn offered(name: &str, channel: Option<&Channel>) -> Option<Self> {
        Self::named(name).filter(|mechanism| mechanism.is_had(channel))
    }

    /// Tells whether the connection has what the mechanism rests on: a channel binding for PLUS, a
    /// certificate for EXTERNAL.
    #[must_use]
    pub fn is_had(self, channel: Option<&Channel>) -> bool {
        match self {
            Self::ScramSha256Plus => channel.is_some_and(|channel| channel.binding.is_some()),
            Self::External => channel.is_some_and(|channel| channel.certificate.is_some()),
            Self::Plain | Self::Login | Self::ScramSha256 => true,
        }
    }

    /// The registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::External => "EXTERNAL",
        }
    }
}

/// Who has logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account.
    pub account: AccountId,
    /// Its first address.
    pub address: Address,
}

/// Why nobody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// User or password is wrong; which one is not said.
    Credentials,
    /// Too many failures from this address or for this user; `retry` says how long that lasts.
    LockedOut {
        /// Time left.
        retry: Duration,
    },
    /// The response makes no sense in this mechanism.
    Malformed,
    /// The client gave up with `*`.
    Cancelled,
    /// The store could not be asked.
    Unavailable,
}

/// What only the store knows.
#[derive(Debug)]
pub enum Request {
    /// Does this password belong to this user? (PLAIN, LOGIN, and POP3's USER and PASS.)
    CheckPassword {
        /// The user as given: an address, or a local part where that is unambiguous.
        login: String,
        /// The password.
        password: Password,
    },
    /// The SCRAM keys of this user, or made-up ones that stay the same for an unknown user.
    Verifier {
        /// The user as given.
        login: String,
    },
    /// Whom does this certificate let in? Its key was proved by TLS. (EXTERNAL)
    Certificate {
        /// Which.
        certificate: Fingerprint,
        /// The user as given; none for whoever it belongs to.
        acts_as: Option<String>,
    },
    /// A SCRAM exchange has ended; a failure counts like a wrong password.
    Concluded {
        /// The user as given.
        login: String,
        /// Whether the client's proof was right.
        proved: bool,
    },
}

/// The answer to a [`Request`].
#[derive(Debug)]
pub enum Answer {
    /// To `CheckPassword`, `Certificate` and `Concluded`; to `Verifier` only as a refusal.
    Login(Result<Identity, Refusal>),
    /// To `Verifier`: the keys and a fresh nonce for the server's side of the exchange.
    Verifier {
        /// The keys.
        verifier: ScramVerifier,
        /// Eighteen random bytes.
        nonce: [u8; 18],
    },
}

/// What an exchange does next.
#[derive(Debug)]
pub enum Move {
    /// Send this challenge (before base64) and hand the response to [`Exchange::respond`].
    Challenge(Vec<u8>),
    /// Ask, and hand the answer to [`Exchange::resume`].
    Ask(Request),
    /// It is over.
    Done(Result<Identity, Refusal>),
}

/// One authentication exchange.
#[derive(Debug)]
pub struct Exchange(State);

/// Where an exchange stands; each waits for what its name says.
#[derive(Debug)]
enum State {
    PlainMessage,
    LoginName,
    LoginPassword {
        login: String,
    },
    /// Whom the owner of this certificate wants to be.
    ActsAs(Fingerprint),
    /// The answer to `CheckPassword` or `Certificate`.
    Checked,
    ClientFirst {
        /// PLUS was chosen.
        bound: bool,
        binding: Option<ChannelBinding>,
    },
    Verifier(Box<ClientFirst>),
    ClientFinal(Box<Scram>),
    /// The answer to `Concluded`; the signature is there when the proof was right.
    Concluded {
        signature: Option<[u8; 32]>,
    },
    /// The empty response to the server's signature.
    Acknowledged(Identity),
    Over,
}

impl Exchange {
    /// Begins an exchange; `initial` is the initial response, if the client sent one (an empty one
    /// is written `=`). `channel` is the connection's: with a binding in it, PLUS counts as offered.
    #[must_use]
    pub fn start(mechanism: Mechanism, initial: Option<&[u8]>, channel: Option<&Channel>) -> (Self, Move) {
        let Channel { binding, certificate } = channel.copied().unwrap_or_default();
        let (state, challenge) = match mechanism {
            Mechanism::Plain => (State::PlainMessage, ""),
            Mechanism::Login => (State::LoginName, "Username:"),
            Mechanism::ScramSha256 => (State::ClientFirst { bound: false, binding }, ""),
            Mechanism::ScramSha256Plus => (State::ClientFirst { bound: true, binding }, ""),
            Mechanism::External => (certificate.map_or(State::Over, State::ActsAs), ""),
        };
        let mut exchange = Self(state);
        let first = match initial {
            // Some clients begin LOGIN with an empty initial response instead of none.
            Some(response) if !(response.is_empty() && mechanism == Mechanism::Login) => exchange.respond(response),
            _ => Move::Challenge(challenge.into()),
        };
        (exchange, first)
    }

    /// Takes the client's response, base64 undone.
    pub fn respond(&mut self, response: &[u8]) -> Move {
        if response.len() > RESPONSE_MAX {
            return self.end(Refusal::Malformed);
        }
        let Ok(text) = std::str::from_utf8(response) else { return self.end(Refusal::Malformed) };
        let next = match std::mem::replace(&mut self.0, State::Over) {
            State::PlainMessage => self.plain(text),
            State::LoginName => self.login_name(text),
            State::LoginPassword { login } => self.check(&login, text),
            State::ActsAs(certificate) => self.external(text, certificate),
            State::ClientFirst { bound, binding } => self.client_first(text, bound, binding),
            State::ClientFinal(scram) => self.client_final(*scram, text),
            State::Acknowledged(identity) if text.is_empty() => Some(Move::Done(Ok(identity))),
            _ => None,
        };
        next.unwrap_or_else(|| self.end(Refusal::Malformed))
    }

    /// Takes the answer to a [`Move::Ask`].
    pub fn resume(&mut self, answer: Answer) -> Move {
        match (std::mem::replace(&mut self.0, State::Over), answer) {
            (State::Checked, Answer::Login(Ok(identity))) => Move::Done(Ok(identity)),
            (State::Verifier(first), Answer::Verifier { verifier, nonce }) => {
                self.server_first(*first, verifier, nonce)
            }
            (State::Concluded { signature: Some(signature) }, Answer::Login(Ok(identity))) => {
                self.0 = State::Acknowledged(identity);
                Move::Challenge(format!("v={}", STANDARD.encode(signature)).into())
            }
            (State::Concluded { signature: None }, Answer::Login(Ok(_))) => self.end(Refusal::Credentials),
            (_, Answer::Login(Err(refusal))) => self.end(refusal),
            // An answer to another question: nobody is let in on the strength of that.
            _ => self.end(Refusal::Unavailable),
        }
    }

    fn end(&mut self, refusal: Refusal) -> Move {
        self.0 = State::Over;
        Move::Done(Err(refusal))
    }

    /// `[authzid] NUL authcid NUL passwd` (RFC 4616 section 2).
    fn plain(&mut self, message: &str) -> Option<Move> {
        let mut fields = message.split('\0');
        let (acts_as, login, password) = (fields.next()?, fields.next()?, fields.next()?);
        let whole = fields.next().is_none() && acts_for_itself(acts_as, login);
        whole.then(|| self.check(login, password)).flatten()
    }

    fn login_name(&mut self, name: &str) -> Option<Move> {
        self.0 = State::LoginPassword { login: checked_login(name)? };
        Some(Move::Challenge("Password:".into()))
    }

    fn check(&mut self, login: &str, password: &str) -> Option<Move> {
        let login = checked_login(login)?;
        let password = Password::new(password.to_owned())?;
        self.0 = State::Checked;
        Some(Move::Ask(Request::CheckPassword { login, password }))
    }

    /// `[authzid]` (RFC 4422 appendix A.1).
    fn external(&mut self, acts_as: &str, certificate: Fingerprint) -> Option<Move> {
        let acts_as = if acts_as.is_empty() { None } else { Some(checked_login(acts_as)?) };
        self.0 = State::Checked;
        Some(Move::Ask(Request::Certificate { certificate, acts_as }))
    }

    fn client_first(&mut self, message: &str, bound: bool, binding: Option<ChannelBinding>) -> Option<Move> {
        let first = ClientFirst::parse(message, bound, binding)?;
        let login = first.login.clone();
        self.0 = State::Verifier(Box::new(first));
        Some(Move::Ask(Request::Verifier { login }))
    }

    fn server_first(&mut self, first: ClientFirst, verifier: ScramVerifier, nonce: [u8; 18]) -> Move {
        let (scram, message) = first.answer(verifier, nonce);
        self.0 = State::ClientFinal(Box::new(scram));
        Move::Challenge(message.into())
    }

    fn client_final(&mut self, scram: Scram, message: &str) -> Option<Move> {
        let signature = match scram.check(message)? {
            Proof::Right { signature } => Some(signature),
            Proof::Wrong => None,
        };
        self.0 = State::Concluded { signature };
        Some(Move::Ask(Request::Concluded { login: scram.login, proved: signature.is_some() }))
    }
}

/// Undoes the base64 of a response line (without CRLF); `*` is a client that gives up
/// (RFC 4954 section 4, RFC 5034 section 4, RFC 9051 section 6.2.2).
///
/// # Errors
/// [`Refusal::Cancelled`] for `*`, [`Refusal::Malformed`] for what is no base64 or too long.
pub fn decode_response(line: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    match line {
        b"*" => Err(Refusal::Cancelled),
        line if line.len() > RESPONSE_LINE_MAX => Err(Refusal::Malformed),
        line => STANDARD.decode(line).map(Zeroizing::new).map_err(|_| Refusal::Malformed),
    }
}

/// Undoes the base64 of an initial response, where `=` stands for an empty one (RFC 4954 section 4).
///
/// # Errors
/// [`Refusal::Malformed`] for what is no base64 or too long.
pub fn decode_initial(word: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    match word {
        b"=" => Ok(Zeroizing::default()),
        b"*" => Err(Refusal::Malformed),
        word => decode_response(word),
    }
}

/// Puts a challenge into base64.
#[must_use]
pub fn encode_challenge(challenge: &[u8]) -> String {
    STANDARD.encode(challenge)
}

/// Nobody may act for somebody else: the identity to act as is empty or the login itself.
fn acts_for_itself(acts_as: &str, login: &str) -> bool {
    acts_as.is_empty() || prepared(acts_as).eq_ignore_ascii_case(&prepared(login))
}

/// A login in its prepared form, or `None` when it cannot be one.
fn checked_login(login: &str) -> Option<String> {
    let login = prepared(login);
    let fits = !login.is_empty() && login.len() <= LOGIN_MAX && !login.chars().any(char::is_control);
    fits.then(|| login.into_owned())
}

#[cfg(test)]
mod tests;
