//! TLS on a socket, of either side, on rustls' unbuffered interface.
//!
//! Records are read into a borrowed buffer and decrypted there; only an incomplete record is kept, in
//! a block of exactly its size. [`Machine`] is what server and client have in common.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, ServerConfig};
use tokio::net::TcpStream;

use super::buffer::Buffer;
use super::drive::Arrival;
use super::exporter;
use super::stream::send_some;
use super::verify::Proof;
use crate::mail::certificate::Fingerprint;
use crate::protocol::{Channel, TlsFacts};

/// What a client's TLS is made of.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// What rustls is to do, with the verifier in it.
    pub(super) config: Arc<ClientConfig>,
    /// Whom it speaks with.
    pub(super) name: ServerName<'static>,
    /// What the verifier notes.
    pub(super) proof: Proof,
}

/// One side's TLS machine of rustls.
pub trait Machine: Sized {
    /// What rustls keeps for this side.
    type Data;
    /// What a machine is made of.
    type Settings: Clone + fmt::Debug;

    /// Makes the machine of a new connection.
    ///
    /// # Errors
    /// rustls refuses the settings.
    fn begin(settings: &Self::Settings) -> Result<Self, rustls::Error>;

    /// Works on records that came in.
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// The peer has proved its name in the handshake that was made with these settings.
    fn is_verified(_settings: &Self::Settings) -> bool {
        false
    }

    /// The peer's own certificate, whose key it has proved to have; of a client, if it presented one.
    fn certificate(&self) -> Option<Fingerprint> {
        None
    }

    /// Version and cipher suite, once they are agreed on.
    fn agreed(&self) -> (Option<rustls::ProtocolVersion>, Option<rustls::SupportedCipherSuite>);
}

impl Machine for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    type Settings = Arc<ServerConfig>;

    fn begin(settings: &Self::Settings) -> Result<Self, rustls::Error> {
        Self::new(Arc::clone(settings))
    }

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn certificate(&self) -> Option<Fingerprint> {
        self.peer_certificates()?.first().map(|own| Fingerprint::of(own))
    }

    fn agreed(&self) -> (Option<rustls::ProtocolVersion>, Option<rustls::SupportedCipherSuite>) {
        (self.protocol_version(), self.negotiated_cipher_suite())
    }
}

impl Machine for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    type Settings = ClientSettings;

    fn begin(settings: &Self::Settings) -> Result<Self, rustls::Error> {
        Self::new(Arc::clone(&settings.config), settings.name.clone())
    }

    fn is_verified(settings: &Self::Settings) -> bool {
        settings.proof.is_given()
    }

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn agreed(&self) -> (Option<rustls::ProtocolVersion>, Option<rustls::SupportedCipherSuite>) {
        (self.protocol_version(), self.negotiated_cipher_suite())
    }
}

/// The TLS side of a connection.
pub(super) struct Tls<M> {
    connection: M,
    /// An incomplete record, in a block of its size.
    pub(super) parked: Vec<u8>,
    /// Data decrypted on the way to writing; the next read gives it out.
    pub(super) plain: Option<Buffer>,
    /// Records rustls wants sent: handshake messages, alerts, key updates.
    pub(super) owed: Vec<u8>,
    peer_closed: bool,
}

impl<M> fmt::Debug for Tls<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tls").field("parked", &self.parked.len()).finish_non_exhaustive()
    }
}

/// Where the machine stands when it can do no more by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// It needs more records for the handshake.
    Handshake,
    /// Data may be sent.
    Open,
    /// Both sides have closed.
    Closed,
}

impl<M: Machine> Tls<M> {
    pub(super) fn new(settings: &M::Settings) -> io::Result<Self> {
        let connection = M::begin(settings).map_err(io::Error::other)?;
        Ok(Self { connection, parked: Vec::new(), plain: None, owed: Vec::new(), peer_closed: false })
    }

    pub(super) async fn handshake(&mut self, socket: &TcpStream) -> io::Result<TlsFacts> {
        // A client speaks first.
        self.advance(&mut Buffer::take(), &mut Buffer::take())?;
        let mut binding = None;
        loop {
            let mut plain = Buffer::take();
            let taken = self.take_in(socket, &mut plain);
            // Before any wait: another connection's handshake may go on after it.
            binding = exporter::take().or(binding);
            // An alert says more to the peer than a closed connection, so it goes out first.
            self.send_owed(socket).await?;
            let (stand, arrived) = taken?;
            match (stand, arrived) {
                (Stand::Open, _) => {
                    // Data may follow the client's last flight in the same segment.
                    self.plain = Some(plain).filter(|plain| !plain.is_empty());
                    let certificate = self.connection.certificate();
                    return Ok(TlsFacts { channel: Channel { binding, certificate }, ..self.facts() });
                }
                (Stand::Closed, _) | (_, Some(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                (Stand::Handshake, _) => {
                    drop(plain);
                    socket.readable().await?;
                }
            }
        }
    }

    fn facts(&self) -> TlsFacts {
        let (version, suite) = self.connection.agreed();
        let version = match version {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLS",
        };
        let suite = suite.and_then(|suite| suite.suite().as_str());
        let suite = suite.unwrap_or("unknown");
        // rustls tells its TLS 1.3 suites apart by a prefix that IANA's names do not have.
        let suite = suite.strip_prefix("TLS13_").map_or_else(|| suite.to_owned(), |rest| format!("TLS_{rest}"));
        TlsFacts { description: format!("{version} {suite}"), ..TlsFacts::default() }
    }

    pub(super) fn read(&mut self, socket: &TcpStream) -> io::Result<Arrival> {
        if let Some(plain) = self.plain.take() {
            return Ok(Arrival::Bytes(plain));
        }
        if self.peer_closed {
            return Ok(Arrival::Gone);
        }
        let mut plain = Buffer::take();
        let (stand, arrived) = self.take_in(socket, &mut plain)?;
        if !plain.is_empty() {
            return Ok(Arrival::Bytes(plain));
        }
        // A peer that leaves without close_notify has gone like any other: each of our protocols
        // marks its own ends, so a cut is never taken for one (RFC 8446 section 6.1).
        let gone = stand == Stand::Closed || self.peer_closed || arrived == Some(0);
        // Records without data are no reason to read on at once: others wait too.
        Ok(if gone { Arrival::Gone } else { Arrival::Nothing })
    }

    /// Reads once from the socket into a borrowed buffer, behind what was parked, lets rustls work
    /// on it and parks what it left over. Tells where the machine stands and how many bytes arrived:
    /// none while the peer sends nothing, `Some(0)` when it has closed.
    fn take_in(&mut self, socket: &TcpStream, plain: &mut Buffer) -> io::Result<(Stand, Option<usize>)> {
        let mut records = Buffer::take();
        records.push(&self.parked);
        let arrived = match socket.try_read(records.spare_mut()) {
            Ok(count) => count,
            // Nothing new: rustls went as far as it could the last time.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((Stand::Handshake, None)),
            Err(error) => return Err(error),
        };
        records.grow(arrived);
        let stand = self.advance(&mut records, plain)?;
        self.park(&records)?;
        Ok((stand, Some(arrived)))
    }

    /// Keeps what rustls left over: less than one record, or the peer breaks the protocol.
    fn park(&mut self, records: &Buffer) -> io::Result<()> {
        if records.len() >= super::buffer::BUFFER_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a TLS message larger than any record"));
        }
        self.parked = records.filled().to_vec();
        Ok(())
    }

    /// Lets rustls work on `records` until it can do no more. Data goes to `plain`, which has room
    /// for all that a buffer of records can hold; what must be sent is added to `owed`.
    fn advance(&mut self, records: &mut Buffer, plain: &mut Buffer) -> io::Result<Stand> {
        loop {
            let UnbufferedStatus { mut discard, state, .. } = self.connection.process(records.filled_mut());
            let mut stand = None;
            let mut failure = None;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                discard += record.discard;
                                if plain.push(record.payload) < record.payload.len() {
                                    failure = Some(io::Error::other("more data than its records"));
                                }
                            }
                            Err(error) => failure = Some(invalid(error)),
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    if let Err(EncodeError::InsufficientSize(size)) = message.encode(&mut []) {
                        let start = self.owed.len();
                        self.owed.resize(start + size.required_size, 0);
                        let room = self.owed.get_mut(start..).unwrap_or_default();
                        if let Err(error) = message.encode(room) {
                            failure = Some(io::Error::other(error));
                        }
                    }
                }
                // The caller sends what is owed before anything else.
                Ok(ConnectionState::TransmitTlsData(message)) => message.done(),
                Ok(ConnectionState::BlockedHandshake) => stand = Some(Stand::Handshake),
                Ok(ConnectionState::WriteTraffic(_)) => stand = Some(Stand::Open),
                Ok(ConnectionState::PeerClosed) => self.peer_closed = true,
                Ok(ConnectionState::Closed) => stand = Some(Stand::Closed),
                // Early data is not offered, and nothing else is known to need us.
                Ok(_) => failure = Some(io::Error::other("an unexpected TLS state")),
                Err(error) => failure = Some(invalid(error)),
            }
            records.consume(discard);
            if let Some(error) = failure {
                self.gather_alert(records);
                return Err(error);
            }
            if let Some(stand) = stand {
                return Ok(stand);
            }
        }
    }

    /// After a failure: takes the alert that rustls has prepared, if any.
    fn gather_alert(&mut self, records: &mut Buffer) {
        let UnbufferedStatus { state, .. } = self.connection.process(records.filled_mut());
        if let Ok(ConnectionState::EncodeTlsData(mut message)) = state
            && let Err(EncodeError::InsufficientSize(size)) = message.encode(&mut [])
        {
            let mut alert = vec![0; size.required_size];
            if message.encode(&mut alert).is_ok() {
                self.owed.extend_from_slice(&alert);
            }
        }
    }

    /// Sends what rustls wants sent. May be dropped and called again: what has gone out is removed.
    pub(super) async fn send_owed(&mut self, socket: &TcpStream) -> io::Result<()> {
        while !self.owed.is_empty() {
            let sent = send_some(socket, &self.owed).await?;
            self.owed.drain(..sent.min(self.owed.len()));
        }
        self.owed = Vec::new();
        Ok(())
    }

    /// Encrypts one chunk of at most [`RECORD_BYTES`] into `record`.
    pub(super) fn seal(&mut self, chunk: &[u8], record: &mut Buffer) -> io::Result<()> {
        self.reach_open()?;
        let UnbufferedStatus { state, .. } = self.connection.process(&mut self.parked);
        match state.map_err(invalid)? {
            ConnectionState::WriteTraffic(mut traffic) => {
                let written = traffic.encrypt(chunk, record.spare_mut()).map_err(|error| match error {
                    EncryptError::InsufficientSize(_) => io::Error::other("a TLS record larger than its buffer"),
                    EncryptError::EncryptExhausted => io::Error::other("the TLS keys are used up"),
                })?;
                record.grow(written);
                Ok(())
            }
            _ => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Works through whole records that were left over, so that data may be sent. What they held is
    /// kept for the next read.
    fn reach_open(&mut self) -> io::Result<()> {
        let mut records = Buffer::take();
        records.push(&self.parked);
        let mut plain = self.plain.take().unwrap_or_else(Buffer::take);
        let stand = self.advance(&mut records, &mut plain)?;
        self.plain = Some(plain).filter(|plain| !plain.is_empty());
        self.park(&records)?;
        match stand {
            Stand::Open => Ok(()),
            Stand::Handshake | Stand::Closed => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Encrypts a `close_notify`; tells whether there is anything to send.
    pub(super) fn say_goodbye(&mut self, record: &mut Buffer) -> bool {
        if self.reach_open().is_err() {
            return false;
        }
        let UnbufferedStatus { state, .. } = self.connection.process(&mut self.parked);
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = state else { return false };
        let written = traffic.queue_close_notify(record.spare_mut()).unwrap_or(0);
        record.grow(written);
        written > 0
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
