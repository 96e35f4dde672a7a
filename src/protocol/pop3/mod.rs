//! POP3 (RFC 1939) with CAPA (RFC 2449), STLS (RFC 2595), AUTH (RFC 5034), the response codes of
//! RFC 2449 and RFC 3206, and UTF8 (RFC 6856).
//!
//! A [`Session`] sees a maildrop as a set of uids taken at login and a total size: sizes of
//! messages, rows of listings and pieces of bodies are asked for when they are due, so a maildrop
//! of 100,000 messages costs a session as much as one of ten.
//!
//! POP3 leaves flags alone: a message read here stays unseen for IMAP, because many people let a
//! second program fetch copies. Messages are removed at QUIT only (the UPDATE state); a connection
//! that is lost removes nothing.

use serde::{Deserialize, Serialize};

use crate::mail::mailbox::{AccountId, Uid, UidValidity};
use crate::mail::message::UidSet;
use crate::protocol::sasl;

mod body;
mod command;
mod maildrop;
mod session;

pub use session::Session;

/// Longest command line in bytes, CRLF included. RFC 2449 section 4 grants 255; an address or a
/// password of full length needs more, and AUTH and its responses get
/// [`RESPONSE_LINE_MAX`](sasl::RESPONSE_LINE_MAX).
pub const COMMAND_LINE_MAX: usize = 512;

/// Most rows of an answer to [`Inquiry::Sizes`].
pub const SIZES_MAX: usize = 512;

/// Most bytes of an answer to [`Inquiry::Piece`].
pub const PIECE_MAX: usize = 32 << 10;

/// How POP3 sessions behave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pop3Config {
    /// Silence that ends a session, in seconds. Default: 600, the least that RFC 1939 section 3
    /// allows.
    pub idle_max_secs: u16,
    /// Silence that ends a connection nobody has logged in on, in seconds; shorter than RFC 1939
    /// wants, because nobody's mail waits there. Default: 120.
    pub login_max_secs: u16,
    /// Commands we do not know or cannot read before the connection is closed. Default: 10.
    pub bad_commands_max: u16,
    /// Failed logins before the connection is closed. Default: 3.
    pub login_failures_max: u16,
}

impl Default for Pop3Config {
    fn default() -> Self {
        Self { idle_max_secs: 600, login_max_secs: 120, bad_commands_max: 10, login_failures_max: 3 }
    }
}

/// What a session asks.
#[derive(Debug)]
pub enum Request {
    /// About a login; answered with [`Answer::Sasl`].
    Sasl(sasl::Request),
    /// About the maildrop; answered with [`Answer::Maildrop`].
    Maildrop(Inquiry),
}

/// The answer to a [`Request`].
#[derive(Debug)]
pub enum Answer {
    /// To [`Request::Sasl`].
    Sasl(sasl::Answer),
    /// To [`Request::Maildrop`].
    Maildrop(Finding),
}

/// What a session asks about its maildrop.
#[derive(Debug, PartialEq, Eq)]
pub enum Inquiry {
    /// Lock the maildrop and tell what is in it.
    Open {
        /// Whose.
        account: AccountId,
    },
    /// Sizes of the messages from `first` to `last`, ascending, at most [`SIZES_MAX`]. Fewer mean
    /// that there are no more.
    Sizes {
        /// Where to begin.
        first: Uid,
        /// Where to end.
        last: Uid,
    },
    /// Bytes of a message from `offset` on, at most [`PIECE_MAX`].
    Piece {
        /// Which message.
        uid: Uid,
        /// Where to begin.
        offset: u64,
    },
    /// Remove these messages and unlock the maildrop (the UPDATE state, RFC 1939 section 6).
    Update {
        /// What was marked as deleted.
        remove: UidSet,
    },
}

/// The answer to an [`Inquiry`], in the same order.
#[derive(Debug)]
#[expect(missing_docs, reason = "each belongs to the inquiry of its name")]
pub enum Finding {
    Open(Result<Maildrop, OpenError>),
    Sizes(Result<Vec<(Uid, u32)>, Unavailable>),
    Piece(Result<Piece, PieceError>),
    Update(Result<(), Unavailable>),
}

/// What is in a maildrop when a session begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maildrop {
    /// Changes when uids begin anew.
    pub uid_validity: UidValidity,
    /// Every message; the numbers of POP3 count these in ascending order.
    pub uids: UidSet,
    /// Bytes of all messages.
    pub octets: u64,
}

/// Why a maildrop was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Another session has it (RFC 1939 section 4, `[IN-USE]`).
    InUse,
    /// The store could not be asked.
    Unavailable,
}

/// The store could not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// Bytes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The bytes; none only where the message is empty.
    pub bytes: Vec<u8>,
    /// Size of the whole message.
    pub size: u64,
    /// Nothing follows.
    pub end: bool,
}

/// Why there are no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceError {
    /// The message was removed by another program.
    Gone,
    /// The store could not be asked.
    Unavailable,
}
