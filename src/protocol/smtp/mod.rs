//! SMTP: receiving and submission on the server's side (RFC 5321, RFC 6409), and sending to the next
//! server in [`sender`].
//!
//! One [`Receiver`] speaks both roles: [`Role::Exchange`] on port 25 takes mail for our users from
//! anybody, [`Role::Submission`] on 465 and 587 takes mail from our users. It knows the words and
//! their order; whom mail may come from and go to, and where it is kept, it asks by [`Request`].
//!
//! Extensions: PIPELINING (RFC 2920), SIZE (RFC 1870), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531),
//! ENHANCEDSTATUSCODES (RFC 2034), STARTTLS (RFC 3207), CHUNKING and BINARYMIME (RFC 3030), DSN
//! (RFC 3461), LIMITS (RFC 9422), REQUIRETLS (RFC 8689), AUTH (RFC 4954), BURL (RFC 4468).

pub mod command; //   commands and their parameters (RFC 5321 4.1)
pub mod config; //    the settings
pub mod content; //   a message's bytes on their way through a session
pub mod dot; //       the end of DATA and the dots before it (RFC 5321 4.5.2)
pub mod ending; //    bare CR and LF (RFC 5321 2.3.8)
pub mod extension; // what EHLO offers (RFC 5321 4.1.1.1)
pub mod receiver; //  the session
pub mod reply; //     replies (RFC 5321 4.2)
pub mod sender; //    the other end: mail to the next server

pub use config::SmtpConfig;
pub use receiver::{Receiver, Setup};
pub use reply::Reply;

use super::sasl;
use crate::mail::envelope::{BodyType, Client, Envelope, Recipient, ReversePath};

/// Which port's manners a receiver has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Port 25: mail from anywhere for our users (RFC 5321).
    Exchange,
    /// Ports 465 and 587: mail from our users (RFC 6409, RFC 8314). AUTH comes before MAIL.
    Submission,
}

/// What only the world outside a [`Receiver`] can answer or do.
#[derive(Debug)]
pub enum Request {
    /// An authentication exchange asks.
    Sasl(sasl::Request),
    /// MAIL: may this sender begin a message? What was known of an earlier one is void.
    Sender(Box<Sender>),
    /// RCPT: is this a recipient of ours?
    Recipient(Box<Recipient>),
    /// A message's content follows: is there room for it?
    Begin(Box<Begin>),
    /// Opens what an authorized URL names, for who has logged in, and reads the first bytes of it. Content
    /// is made of them here.
    Fetch(Box<str>),
    /// The next bytes of that.
    FetchMore,
    /// Content, in pieces of at most [`content::PIECE_MAX`] bytes.
    Body(Vec<u8>),
    /// The content has ended: keep the message for all recipients, and answer when it is kept.
    Finish,
    /// The message is not wanted any more, for this reason; the peer's own RSET gives none.
    Discard(Option<Reply>),
}

/// The answer to a [`Request`].
#[derive(Debug)]
pub enum Answer {
    /// To [`Request::Sasl`].
    Sasl(sasl::Answer),
    /// Yes, or it is done.
    Accepted,
    /// To [`Request::Fetch`] and [`Request::FetchMore`]: some bytes, at most [`content::FETCH_MAX`], none
    /// at the end.
    Fetched(Vec<u8>),
    /// No; this is said to the peer, once its turn comes.
    Refused(Reply),
}

/// A message's sender, and what MAIL said along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Which port's manners apply.
    pub role: Role,
    /// Who has logged in.
    pub login: Option<sasl::Identity>,
    /// MAIL FROM
    pub from: ReversePath,
    /// SIZE=, in bytes.
    pub size: Option<u64>,
    /// BODY=
    pub body: BodyType,
    /// REQUIRETLS: TLS all the way from here on (RFC 8689).
    pub require_tls: bool,
}

/// What is known of a message when its content begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Who sends it.
    pub client: Client,
    /// From whom, for whom.
    pub envelope: Envelope,
}
