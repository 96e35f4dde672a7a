//! SMTP, IMAP and POP3 as sessions: bytes in, steps out. No socket, no clock, no store.
//!
//! A [`Session`] takes bytes and says in a [`Step`] what should happen next. Time, randomness and
//! the answer to every question come in as arguments, so a session runs the same in a unit test, a
//! transcript, a fuzzer and a connection. The one loop that drives them all is `net::drive`.

use std::fmt;
use std::time::Duration;

use crate::mail::certificate::Fingerprint;

pub mod imap; // IMAP4rev1 and IMAP4rev2 (RFC 3501, RFC 9051)
pub mod line; // lines with a bound (RFC 5321 4.5.3.1)
pub mod pop3; // POP3 (RFC 1939)
pub mod sasl; // PLAIN, LOGIN, EXTERNAL and SCRAM-SHA-256(-PLUS) (RFC 4422, RFC 5802), for all three
pub mod smtp; // SMTP receiving, submission and sending (RFC 5321, RFC 6409)

/// What should happen next.
#[derive(Debug)]
pub enum Step<'s, Request> {
    /// Hand the peer's bytes to [`Session::receive`]; none means it has gone.
    Read,
    /// Send these bytes. They count as sent when `next` is called again.
    Write(&'s [u8]),
    /// Hand the answer to [`Session::resume`].
    Ask(Request),
    /// Start TLS, in the role that the connection has, and call [`Session::tls_started`]. What the peer sent in clear and
    /// was not yet taken is dropped, so nothing can be injected before the handshake.
    StartTls,
    /// Close the connection.
    Close,
}

/// Something that happened while a session waited at [`Step::Read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A mailbox of the account may have changed; in SMTP, the message comes too slowly. Given only
    /// while [`Session::wants_changes`].
    Changed,
    /// The peer was silent for longer than [`Session::patience`].
    Silence,
    /// The server stops: say so and close.
    Stopping,
}

/// What both ends of a TLS connection know and nobody in between can: `tls-exporter` (RFC 9266).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ChannelBinding(pub [u8; 32]);

impl fmt::Debug for ChannelBinding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ChannelBinding(hidden)")
    }
}

/// What TLS agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// Version and cipher suite in the words of RFC 8446 and IANA, such as
    /// `TLSv1.3 TLS_AES_128_GCM_SHA256`, for the Received field and the log.
    pub description: String,
    /// The peer has proved that it has the name it should have; never true of a client.
    pub verified: bool,
    /// What a login on this connection can rest on; on the server's side.
    pub channel: Channel,
}

/// What a TLS connection brings to a login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channel {
    /// What a login can be bound to; in TLS 1.3.
    pub binding: Option<ChannelBinding>,
    /// A certificate whose key the client has proved to have. Where a session is told of it, it was
    /// registered when the connection began.
    pub certificate: Option<Fingerprint>,
}

impl Channel {
    /// The channel in a box, or nothing where it brings nothing: most connections keep none.
    #[must_use]
    pub fn kept(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

/// One end of a protocol, without its socket.
pub trait Session {
    /// A question only the world outside can answer.
    type Request;
    /// What comes back.
    type Answer;

    /// Says what should happen next. Calling it again without doing so is harmless, except that
    /// bytes of [`Step::Write`] and the request of [`Step::Ask`] are given once.
    fn next(&mut self) -> Step<'_, Self::Request>;

    /// Takes bytes at [`Step::Read`] and returns how many it took: at least one, at most all. The
    /// driver offers the rest at the next `Read`. An empty slice says that the peer has gone.
    fn receive(&mut self, bytes: &[u8]) -> usize;

    /// Takes the answer to the request of the last [`Step::Ask`].
    fn resume(&mut self, answer: Self::Answer);

    /// Takes notice of something while at [`Step::Read`].
    fn notice(&mut self, notice: Notice);

    /// TLS has started: after [`Step::StartTls`], or before the greeting on an implicit-TLS port.
    fn tls_started(&mut self, tls: TlsFacts);

    /// How long the peer may be silent at the present `Read`.
    fn patience(&self) -> Duration;

    /// Tells whether [`Notice::Changed`] would be answered at the present `Read` (IDLE).
    fn wants_changes(&self) -> bool {
        false
    }
}
