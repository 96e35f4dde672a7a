//! Who a message is from and for (RFC 5321 section 3.3), with the delivery status notification
//! wishes that travel along (RFC 3461).

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::address::{Address, Domain};

/// Where notifications go (RFC 5321 `Reverse-path`): nowhere for `<>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReversePath {
    /// `<>`: a notification; never answered by another.
    Null,
    /// The sender's address.
    Address(Address),
}

impl ReversePath {
    /// The sender's address, if there is one.
    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Address(address) => Some(address),
        }
    }
}

impl fmt::Display for ReversePath {
    /// Writes the path as MAIL and Return-Path do, in angle brackets.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => out.write_str("<>"),
            Self::Address(address) => write!(out, "<{address}>"),
        }
    }
}

/// Whom a message is for (RFC 5321 `Forward-path`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardPath {
    /// `<Postmaster>` without a domain (RFC 5321 section 4.1.1.3).
    Postmaster,
    /// The recipient's address.
    Address(Address),
}

impl ForwardPath {
    /// The recipient's address; `None` for the bare `Postmaster`.
    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Postmaster => None,
            Self::Address(address) => Some(address),
        }
    }
}

impl fmt::Display for ForwardPath {
    /// Writes the path as RCPT does, in angle brackets.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postmaster => out.write_str("<Postmaster>"),
            Self::Address(address) => write!(out, "<{address}>"),
        }
    }
}

/// How the content was declared with BODY= (RFC 6152, RFC 3030).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyType {
    /// Seven-bit lines.
    #[default]
    SevenBit,
    /// Eight-bit lines.
    EightBitMime,
    /// Any octets (only by BDAT).
    BinaryMime,
}

/// What the sender wants to hear of a recipient (RFC 3461 NOTIFY).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// NOTIFY was given at all.
    pub given: bool,
    /// SUCCESS
    pub success: bool,
    /// FAILURE
    pub failure: bool,
    /// DELAY
    pub delay: bool,
}

/// How much of the message comes back in a notification (RFC 3461 RET).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReturnContent {
    /// RET=FULL
    Full,
    /// RET=HDRS
    Headers,
}

/// A recipient with what RFC 3461 says along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Whom the message is for.
    pub path: ForwardPath,
    /// NOTIFY
    pub notify: Notify,
    /// ORCPT as given, `type;address` in xtext, at most 500 bytes.
    pub original: Option<String>,
}

/// A message's envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// MAIL FROM
    pub from: ReversePath,
    /// RCPT TO, in order; bounded by the receiver's recipient limit.
    pub recipients: Vec<Recipient>,
    /// BODY=
    pub body: BodyType,
    /// SMTPUTF8 was asked for (RFC 6531).
    pub utf8: bool,
    /// RET=
    pub ret: Option<ReturnContent>,
    /// ENVID=, in xtext as given, at most 100 bytes.
    pub envelope_id: Option<String>,
}

/// Who stands at the other end of a connection, for the Received field and the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Address the connection came from.
    pub address: IpAddr,
    /// What EHLO or HELO named; not to be trusted.
    pub greeting: Option<Domain>,
    /// HELO and no EHLO was used.
    pub plain_helo: bool,
    /// The connection's TLS version and cipher suite, `None` in clear.
    pub tls: Option<String>,
    /// The account's address after AUTH.
    pub login: Option<Address>,
}
