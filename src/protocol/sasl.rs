//! SASL on the server's side: PLAIN (RFC 4616), LOGIN, SCRAM-SHA-256 (RFC 5802, RFC 7677).
//!
//! One [`Exchange`] serves SMTP, IMAP and POP3: they carry base64 lines, this says what the lines
//! mean. It never sees the store: what must be known comes through [`Request`] and [`Answer`].

use std::time::Duration;

use crate::mail::address::Address;
use crate::mail::mailbox::AccountId;
use crate::mail::secret::{Password, ScramVerifier};

/// Longest response in bytes before base64; longer ones end the exchange.
pub const RESPONSE_MAX: usize = 1024;

/// A mechanism we offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registry's")]
pub enum Mechanism {
    Plain,
    Login,
    ScramSha256,
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
    /// To `CheckPassword` and `Concluded`.
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
pub struct Exchange {}

impl Exchange {
    /// Begins an exchange; `initial` is the initial response, if the client sent one.
    #[must_use]
    pub fn start(mechanism: Mechanism, initial: Option<&[u8]>) -> (Self, Move) {
        let _ = (mechanism, initial);
        todo!()
    }

    /// Takes the client's response, base64 undone.
    pub fn respond(&mut self, response: &[u8]) -> Move {
        let _ = response;
        todo!()
    }

    /// Takes the answer to a [`Move::Ask`].
    pub fn resume(&mut self, answer: Answer) -> Move {
        let _ = answer;
        todo!()
    }
}
