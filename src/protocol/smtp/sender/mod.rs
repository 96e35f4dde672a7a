//! The sending end of SMTP: mail to the next server (RFC 5321 sections 3 and 4).
//!
//! A [`Sender`] greets, starts TLS, logs in at a relay, and then asks for one message after the
//! other with [`Request::Mail`]. The content it asks for in pieces, and for each message it tells
//! with [`Request::Done`] what became of every recipient, whatever the peer said or did not say.
//! How the connection itself went is told by [`Sender::end`] once it is over.
//!
//! It speaks PIPELINING (RFC 2920), SIZE (RFC 1870), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531),
//! CHUNKING and BINARYMIME (RFC 3030), DSN (RFC 3461), ENHANCEDSTATUSCODES (RFC 2034), STARTTLS
//! (RFC 3207), AUTH (RFC 4954), REQUIRETLS (RFC 8689) and LIMITS (RFC 9422) where they are offered.

use std::fmt;

use crate::mail::envelope::Envelope;
use crate::mail::secret::Password;
use crate::protocol::TlsFacts;

mod command; //     the lines of MAIL and RCPT
mod envelope; //    a message's way from MAIL to its last reply
mod extensions; //  what the peer offers
mod heard; //       what the peer said
mod login; //       AUTH on the client's side
mod nature; //      what a content needs of the way it goes
mod opening; //     from the greeting to the first message
mod reply; //       replies, whatever comes
mod session; //     the session
mod stuffing; //    the dots of DATA

#[cfg(test)]
mod tests;

pub use extensions::Extensions;
pub use heard::{Enhanced, Heard, Origin};
pub use login::Derive;
pub use nature::{Nature, NatureReader};
pub use session::Sender;

/// Random bytes of a login's nonce.
pub const NONCE_BYTES: usize = 18;

/// What a sender is set up with.
#[derive(Clone, Debug)]
pub struct SenderSetup {
    /// Our name, as EHLO tells it: a domain, or an address literal in brackets.
    pub helo: String,
    /// What is wanted of STARTTLS. Where TLS came before the greeting it is not asked for again.
    pub tls: TlsWish,
    /// Whom to log in as.
    pub credentials: Option<Credentials>,
}

/// What is wanted of STARTTLS (RFC 3207).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsWish {
    /// It is not used, offered or not.
    Never,
    /// It is used where it is offered, and mail goes in clear where it is not.
    IfOffered,
    /// No mail goes without it.
    Required,
}

/// Whom to log in as at a relay (RFC 4954).
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The login, as the relay wants it.
    pub login: String,
    /// The password.
    pub password: Password,
    /// Logging in without TLS is allowed.
    pub in_clear: bool,
    /// Random bytes, new for each connection (RFC 5802 section 5.1).
    pub nonce: [u8; NONCE_BYTES],
}

/// What only the world outside a [`Sender`] can answer or do.
#[derive(Debug)]
pub enum Request {
    /// The next message for this connection, please.
    Mail,
    /// The next piece of the message's content.
    Body,
    /// What became of the message.
    Done(Box<Done>),
    /// Keys for a login are wanted: call [`Derive::run`] on a thread that may block.
    Derive(Box<Derive>),
}

/// The answer to a [`Request`].
#[derive(Debug)]
pub enum Answer {
    /// To [`Request::Mail`]: the message; none ends the connection.
    Mail(Option<Box<Mail>>),
    /// To [`Request::Body`]: the next piece of content, as it is in the message; empty at its end.
    Body(Vec<u8>),
    /// To [`Request::Body`]: the content cannot be had. The connection is dropped without ending
    /// the message, so that nothing half is taken.
    Broken,
    /// To [`Request::Done`].
    Noted,
    /// To [`Request::Derive`]: what it came to.
    Derived(Box<Derive>),
}

/// A message for the next server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// From whom and for whom. All recipients are sent in one transaction, up to the peer's limit.
    pub envelope: Envelope,
    /// Bytes of content that [`Request::Body`] will bring.
    pub size: u64,
    /// What the content needs.
    pub nature: Nature,
    /// REQUIRETLS was asked for (RFC 8689).
    pub require_tls: bool,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// What became of each recipient, in the envelope's order.
    pub recipients: Vec<Outcome>,
    /// Nothing was wrong with the message: an older connection had come to its end. Who was
    /// deferred can be tried over a new connection at once.
    pub again: bool,
}

/// What became of a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The next server is answerable for the message now.
    Taken(Heard),
    /// Not now; try again later.
    Deferred(Heard),
    /// Never; the sender should be told.
    Refused(Heard),
}

impl Outcome {
    /// What was heard, or what we came to ourselves.
    pub fn heard(&self) -> &Heard {
        match self {
            Self::Taken(heard) | Self::Deferred(heard) | Self::Refused(heard) => heard,
        }
    }

    /// Tells whether the peer only wants fewer recipients in one transaction (RFC 5321 section
    /// 4.5.3.1.10): the others of the same transaction were judged, this one can follow at once.
    pub fn is_one_too_many(&self) -> bool {
        matches!(self, Self::Deferred(heard)
            if heard.at == Point::Recipient && heard.enhanced.is_some_and(|code| (code.subject, code.detail) == (5, 3)))
    }
}

/// How far a connection or a message was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Before the greeting.
    Greeting,
    /// EHLO or HELO.
    Hello,
    /// STARTTLS and the handshake.
    StartTls,
    /// AUTH
    Login,
    /// Between two messages, or before the first.
    Between,
    /// MAIL, and what is judged before it.
    Mail,
    /// RCPT
    Recipient,
    /// DATA, up to its 354.
    Data,
    /// The content, up to the last reply.
    Content,
}

impl fmt::Display for Point {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Greeting => "the greeting",
            Self::Hello => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Login => "AUTH",
            Self::Between => "the next message",
            Self::Mail => "MAIL FROM",
            Self::Recipient => "RCPT TO",
            Self::Data => "DATA",
            Self::Content => "the message",
        })
    }
}

/// How a connection went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Whether it came to a proper end.
    pub how: How,
    /// The name the peer gave itself in answer to EHLO.
    pub peer: Option<String>,
    /// What it offered last.
    pub extensions: Extensions,
    /// TLS version and cipher suite, `None` in clear.
    pub tls: Option<TlsFacts>,
    /// Messages begun.
    pub messages: u32,
}

/// Whether a connection came to a proper end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// We said QUIT, or there was nothing left to do.
    Fine,
    /// It ended before its time: at `heard.at` the peer refused, was not understood, was silent or
    /// has gone, or we could not go on with what it offered.
    Failed(Heard),
}
